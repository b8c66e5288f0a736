"""``gpunn evaluate`` and ``gpunn predict``: a saved network on data."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checkpoint
from ..data import Dataset, Split, load
from ..errors import ArgumentError, DataError, FormatError, ShapeError, UnknownNameError, unknown_name
from ..files import write_atomically
from ..losses import loss_named
from ..network import Sequential
from .columns import TABLES, in_order, read_features
from .runs import Origin, data_options, saved_file
from .scores import percent
from .task import Classes, Task, choose, load_data, sides_of, target_column, targets_of

__all__ = ["evaluate", "predict"]

Array = NDArray[Any]

#: The names under which an .npz file may hold features and no targets.
_FEATURES = ("X", "x", "X_test", "x_test", "data")

_OF_ANSWERS = ("accuracy", "precision", "recall", "f1", "confusion")


def _network(options: Namespace) -> Sequential:
    path = saved_file(options.model, "--data")
    network: Sequential = checkpoint.load(path, choose(options, "device"))
    return network


def _width(network: Sequential) -> int:
    return int(np.prod(network.input_shape))


def _inputs(network: Sequential, X: Array, where: str, origin: Origin | None) -> Array:
    """The rows as in training, in the shape of the network's input, which may be that of an image."""
    if X.ndim < 2 or np.prod(X.shape[1:]) != _width(network):
        raise ShapeError(
            f"{where} holds features of shape {X.shape}, the network takes (n, {_width(network)})"
        )
    X = X.reshape(len(X), -1) if len(X) else X.reshape(0, _width(network))
    return (X if origin is None else origin.scaled(X)).reshape(len(X), *network.input_shape)


def _task(network: Sequential, origin: Origin | None, names: Task, loss: str | None) -> Task:
    """What the outputs stand for: as in training, else as the loss and the data say, named or numbered."""
    if origin is not None:
        return origin.task
    outputs, probabilities = network.outputs, _gives_probabilities(network)
    if loss is not None and loss_named(loss).link == "sigmoid" and (outputs == 1 or names.classes is None):
        known = names.answers if names.answers and len(names.answers) == outputs else None
        numbered = ("answer",) if outputs == 1 else tuple(f"output {i}" for i in range(outputs))
        return Task(answers=known or numbered)
    if outputs == 1 or not probabilities:
        return Task(numbers=names.answers if names.answers and len(names.answers) == outputs else None)
    known = names.classes if names.classes and len(names.classes) == outputs else None
    return Task(classes=known or _numbered(outputs))


def _numbered(outputs: int) -> tuple[str, ...]:
    return tuple(map(str, range(outputs)))


def _gives_probabilities(network: Sequential) -> bool:
    try:
        network.predict_proba(np.zeros((0, *network.input_shape)))
    except ArgumentError:
        return False
    return True


# ---------------------------------------------------------------------- evaluate


def evaluate(options: Namespace) -> int:
    """Print the loss and the accuracy, or R², of a saved network; returns 0."""
    network = _network(options)
    origin = Origin.beside(options.model, network)
    source = data_options(options, origin)
    fractions = (0, 0) if options.split == "all" else (source.test_fraction, source.validation_fraction)
    dataset = load_data(source.data, source.target, *fractions)
    if origin is not None:
        dataset = in_order(dataset, origin.features, str(source.data))
    side = _side(dataset, options.split)
    name = options.loss or network.loss
    if name is None:
        raise ArgumentError(f"{options.model} does not say which loss it was trained with: give --loss")
    X = _inputs(network, side.X, dataset.name, origin)
    task = _task(network, origin, Task(dataset.classes, dataset.target_names), name)
    loss = loss_named(name)
    y = targets_of(side, dataset.classes, task, loss, network.outputs)
    found = network.evaluate(X, y, loss=name, metrics=("r2",) if task.is_numbers else ())
    print(f"{dataset.name}, {side.name}: {len(side):,} examples")
    print(f"loss      {found['loss']:.6g} ({name})")
    if task.is_numbers:
        print(f"R²        {found['r2']:.4f}")
        if task.numbers is not None and len(task.numbers) > 1:
            _print_numbers(y, network.predict(X).reshape(y.shape), task.numbers)
    elif task.classes is not None:
        labels = y if y.ndim == 1 else y.argmax(axis=1)
        _print_classes(labels, network.predict(X).argmax(axis=1), task.classes)
    elif task.answers is not None:
        # Other losses take a row for one class: the answers are counted as they were learnt.
        counted = name if loss.link == "sigmoid" else "binary_cross_entropy"
        _print_answers(network.evaluate(X, y, loss=counted, metrics=_OF_ANSWERS), len(y), task.answers)
    return 0


def _side(dataset: Dataset, name: str) -> Split:
    sides = {side.name: side for side in sides_of(dataset)}
    if name == "all":
        X = np.concatenate([side.X for side in sides.values()])
        y = np.concatenate([side.y for side in sides.values() if side.y is not None])
        return Split(X, y, dataset.classes, "all")
    if name in sides:
        return sides[name]
    if name == "test":
        raise ArgumentError(f"{dataset.name} has no test examples: give --split all, or a --test-fraction")
    if name == "validation":
        raise ArgumentError(
            f"{dataset.name} has no validation examples, as none were held out in training: give --split "
            f"{', '.join(sides)} or all, or, where history.json is gone, its --validation-fraction"
        )
    raise unknown_name("split", name, [*sides, "all"])


def _print_classes(labels: Array, guesses: Array, classes: tuple[str, ...]) -> None:
    """The accuracy over all and class by class, and what each class is most often taken for."""
    right = int((labels == guesses).sum())
    print(f"accuracy  {percent(right / len(labels))} ({right:,} of {len(labels):,} right)\n")
    width = max(len("class"), *map(len, classes))
    print(f"{'class':<{width}}  examples   accuracy  most often taken for")
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, guesses), 1)
    for i, name in enumerate(classes):
        wrong = confusion[i].copy()
        count, wrong[i] = int(wrong.sum()), 0
        worst = int(wrong.argmax())
        accuracy = percent(confusion[i, i] / count) if count else ""
        taken = f"  {classes[worst]} ({wrong[worst]:,} of {count:,})" if wrong[worst] else ""
        print(f"{name:<{width}}  {count:>8,}  {accuracy:>9}{taken}".rstrip())


def _print_answers(found: dict[str, Any], count: int, answers: tuple[str, ...]) -> None:
    """How often every answer is right, and how well each output says yes."""
    right = round(found["accuracy"] * count)
    every = "with every answer right" if len(answers) > 1 else "right"
    print(f"accuracy  {percent(found['accuracy'])} ({right:,} of {count:,} {every})\n")
    width = max(len("output"), *map(len, answers))
    print(f"{'output':<{width}}  {'yes':>8}   accuracy  precision  recall      f1")

    def line(name: str, yes: str, accuracy: float, *scores: float) -> str:
        precision, recall, f1 = (f"{score:.4f}" for score in scores)
        return f"{name:<{width}}  {yes:>8}  {percent(accuracy):>9}  {precision:>9}  {recall:>6}  {f1:>6}"

    accuracies = []
    for name, counts in zip(answers, found["confusion"].tolist(), strict=True):
        (no_no, no_yes), (yes_no, yes_yes) = counts
        accuracies.append((no_no + yes_yes) / count)
        scores = (_ratio(yes_yes, no_yes + yes_yes), _ratio(yes_yes, yes_no + yes_yes))
        f1 = _ratio(2 * yes_yes, no_yes + yes_no + 2 * yes_yes)
        print(line(name, f"{yes_no + yes_yes:,}", accuracies[-1], *scores, f1))
    if len(answers) > 1:
        mean = float(np.mean(accuracies))
        print(line("mean", "", mean, found["precision"], found["recall"], found["f1"]))


def _print_numbers(y: Array, found: Array, names: tuple[str, ...]) -> None:
    """How well each number comes out; R², above, is the mean."""
    width = max(len("output"), *map(len, names))
    print(f"\n{'output':<{width}}  {'R²':>7}")
    left, spread = ((y - found) ** 2).sum(axis=0), ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    for name, above, below in zip(names, left.tolist(), spread.tolist(), strict=True):
        print(f"{name:<{width}}  {1 - above / below if below else math.nan:>7.4f}")


def _ratio(above: int, below: int) -> float:
    return above / below if below else 0.0


# ---------------------------------------------------------------------- predict


def predict(options: Namespace) -> int:
    """Print or write a prediction for each example; returns 0."""
    path = None if options.output is None else _writable(options)
    network = _network(options)
    origin = Origin.beside(options.model, network)
    X, names = _read(options, _width(network), origin)
    inputs = _inputs(network, X, options.data, origin)
    task = _task(network, origin, names, network.loss)
    classes = None
    if task.answers is not None:
        array, header = network.predict_proba(inputs), task.answers
        if not options.proba:
            array = (array > 0.5).astype(np.int64)
    elif options.proba:
        array = network.predict_proba(inputs)
        header = task.classes or _numbered(network.outputs)
    elif task.classes is not None:
        classes = task.classes
        array, header = network.predict(inputs).argmax(axis=1), ("prediction",)
    else:
        array = network.predict(inputs).reshape(len(inputs), -1)
        one = network.outputs == 1
        named = task.numbers or tuple(f"output {i}" for i in range(network.outputs))
        header = ("prediction",) if one else named
    if path is not None and path.suffix.lower() == ".npy":
        content = io.BytesIO()
        np.save(content, array)
        write_atomically(path, content.getvalue())
        return 0
    table = _table(header, array, classes)
    if path is None:
        sys.stdout.write(table)
    else:
        write_atomically(path, table.encode())
    return 0


def _writable(options: Namespace) -> Path:
    """Where --output goes: a known format, and none of the files that are read."""
    path = Path(options.output)
    if path.suffix.lower() not in (".csv", ".npy"):
        raise unknown_name("output format", path.suffix, (".csv", ".npy"))
    for name in (options.data, options.model):
        if path.exists() and Path(name).exists() and os.path.samefile(path, name):
            raise ArgumentError(f"--output {path} would overwrite what is read: choose another name")
    return path


def _table(header: Sequence[str], array: Array, classes: Classes) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    if array.ndim == 1 and classes is not None:
        writer.writerows([classes[label]] for label in array.tolist())
    else:
        # NumPy's own str: the shortest digits that give the same float32 back.
        writer.writerows([str(value) for value in row] for row in array)
    return text.getvalue()


def _read(options: Namespace, width: int, origin: Origin | None) -> tuple[Array, Task]:
    """The features in the data's order, and what the data call their classes or outputs."""
    source, given = options.data, options.target is not None
    suffix = Path(source).suffix.lower()
    named = options.target if given or origin is None else origin.target
    if suffix in TABLES:
        features = None if origin is None else origin.features
        dataset = read_features(source, named, width, features, given=given)
        return dataset.train.X, Task(dataset.classes, dataset.target_names)
    target = target_column(named, source)
    try:
        dataset = load(source, target=target if suffix == ".npz" or given else None, test_fraction=0)
    except (FormatError, UnknownNameError):
        if suffix != ".npz" or given:
            raise
        X = _features_alone(source)
        if X is None:
            raise
        return X, Task()
    names = Task(dataset.classes, dataset.target_names)
    return np.concatenate([side.X for side in sides_of(dataset)]), names


def _features_alone(path: str) -> Array | None:
    """The features of an .npz file that holds no targets; None where it is not such a file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = [name for name in _FEATURES if name in arrays.files] or arrays.files
            X: Array = arrays[found[0]]
    except Exception:
        # A damaged archive raises almost anything; what was wrong with it has been said already.
        return None
    if X.dtype.kind not in "biuf" or not np.isfinite(X).all():
        raise DataError(f"{path}: the array {found[0]!r} holds {X.dtype} values that are not finite numbers")
    return X
