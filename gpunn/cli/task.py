"""From the options and a data set to a network, its targets and its optimiser."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, Split, load
from ..errors import ArgumentError, DataError
from ..layers import Dense
from ..losses import Loss, loss_named
from ..network import Sequential
from ..optimizers import Optimizer, optimizer_named

__all__ = [
    "DEFAULTS",
    "Classes",
    "choose",
    "classes_of",
    "load_data",
    "make_network",
    "make_optimizer",
    "output_count",
    "resolve_loss",
    "sides_of",
    "target_column",
    "targets_of",
]

#: What each option is where it is not given. At least 95 % of the held-out digits come out right with these.
DEFAULTS: dict[str, Any] = {
    "test_fraction": 0.2,
    "hidden": [128],
    "activation": "relu",
    "weights": "glorot_uniform",
    "bias": "zeros",
    "dtype": "float32",
    "device": "cpu",
    "optimizer": "adam",
    "batch_size": 32,
    "epochs": 30,
    "seed": [0],
}

#: The name of each class, in the order of the labels; ``None`` where numbers are predicted.
Classes = tuple[str, ...] | None


def choose(options: Namespace, name: str) -> Any:
    """What the user gave for an option, or else its default.

    >>> choose(Namespace(epochs=None, hidden=[]), "epochs"), choose(Namespace(hidden=[]), "hidden")
    (30, [])
    """
    given = getattr(options, name)
    return DEFAULTS[name] if given is None else given


def target_column(target: str | None, source: str) -> str | int | None:
    """The target as the readers take it: digits are a column's index, but the name of an array in .npz.

    >>> target_column("2", "a.csv"), target_column("2", "a.npz"), target_column("kind", "a.csv")
    (2, '2', 'kind')
    """
    if target is None or Path(source).suffix.lower() == ".npz":
        return target
    return int(target) if target.removeprefix("-").isdecimal() else target


def load_data(source: str | None, target: str | None, test_fraction: float) -> Dataset:
    """The data set that --data names. Its division depends on no --seed, so that runs can be compared."""
    if source is None:
        raise ArgumentError(
            "--data is missing: give digits, digit-traits, mnist, or a file .csv, .tsv, .txt, .npz"
        )
    return load(source, target=target_column(target, source), test_fraction=test_fraction)


def sides_of(dataset: Dataset) -> list[Split]:
    """The sides that a data set has, training first."""
    return [side for side in (dataset.train, dataset.validation, dataset.test) if side is not None]


def _target(side: Split) -> NDArray[Any]:
    if side.y is None:
        raise DataError(f"the {side.name} examples have no targets, which are needed here")
    return side.y


def classes_of(dataset: Dataset, loss: str | None) -> Classes:
    """The classes to tell apart, or None for numbers.

    Whole numbers that are not exactly 0..k-1 count as numbers, unless the loss asked for takes nothing but
    classes: then each of them is one.
    """
    if dataset.classes is not None:
        return dataset.classes
    sides = [_target(side) for side in sides_of(dataset)]
    if loss is None or loss_named(loss).labels != "op" or any(y.ndim > 1 for y in sides):
        return None
    if sides[0].dtype.kind not in "iu":
        raise DataError(
            f"--loss {loss} takes classes, and the targets of {dataset.name} are {sides[0].dtype} numbers: "
            f"name the column of classes with --target, or leave --loss out"
        )
    return tuple(map(str, np.unique(np.concatenate(sides)).tolist()))


def resolve_loss(loss: str | None, classes: Classes) -> str:
    """The loss asked for, or the usual one.

    >>> resolve_loss(None, ("cat", "dog")), resolve_loss(None, None)
    ('cross_entropy', 'mse')
    """
    if loss is not None:
        return loss_named(loss).name
    return "mse" if classes is None else "cross_entropy"


def output_count(dataset: Dataset, classes: Classes) -> int:
    """How many outputs the network needs: one a class, or one a target column."""
    if classes is not None:
        if len(classes) < 2:
            raise DataError(
                f"{dataset.name} has the one class {classes[0]!r}, expected two or more to tell apart"
            )
        return len(classes)
    y = _target(dataset.train)
    return 1 if y.ndim == 1 else int(y.shape[1])


def targets_of(side: Split, names: Classes, classes: Classes, loss: Loss, outputs: int) -> NDArray[Any]:
    """The targets as the loss takes them: labels in the order of ``classes``, one-hot rows, or numbers.

    Parameters
    ----------
    side : Split
        Its y are numbers, or labels.
    names : tuple of str or None
        What the data set calls its labels; None: a label is called by its number.
    classes : tuple of str or None
        What the network's outputs stand for.
    loss : Loss
        Decides between labels and one-hot rows.
    outputs : int
        Of the network.

    Raises
    ------
    gpunn.DataError
        If the data hold a class that the network has no output for.

    >>> from gpunn.losses import LOSSES
    >>> side = Split(np.zeros((2, 1)), np.array([0, 1]))
    >>> targets_of(side, ("b", "c"), ("a", "b", "c"), LOSSES["cross_entropy"], 3)
    array([1, 2])
    """
    y = _target(side)
    if classes is None:
        return y if y.dtype.kind == "f" else y.astype(np.float64)
    if y.ndim > 1 or y.dtype.kind not in "iu":
        raise DataError(
            f"the {side.name} targets are {y.dtype} of shape {y.shape}, expected one of the classes "
            f"{_shown(classes)} for each example"
        )
    values, places = np.unique(y, return_inverse=True)
    called = [str(value) if names is None else names[value] for value in values.tolist()]
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in called if name not in index]
    if unknown:
        raise DataError(
            f"the {side.name} examples hold the class {unknown[0]!r}, and the network knows {_shown(classes)}"
        )
    labels = np.array([index[name] for name in called], dtype=np.int64)[places]
    return labels if loss.takes_labels(outputs) else np.eye(outputs)[labels]


def _shown(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")


def make_network(
    options: Namespace, inputs: int, outputs: int, loss: str, classify: bool, seed: int
) -> Sequential:
    """Dense layers as the options say; the last activation, where not given, is what the loss works with."""
    last = options.output_activation
    if last is None:
        last = loss_named(loss).link or ("sigmoid" if classify else "identity")
    start = {"weights": choose(options, "weights"), "bias": choose(options, "bias")}
    hidden = [Dense(n, choose(options, "activation"), **start) for n in choose(options, "hidden")]
    return Sequential(
        [*hidden, Dense(outputs, last, **start)],
        input_shape=inputs,
        device=choose(options, "device"),
        dtype=choose(options, "dtype"),
        seed=seed,
    )


def make_optimizer(options: Namespace) -> Optimizer:
    """The optimiser with the numbers that were given.

    >>> make_optimizer(Namespace(optimizer="sgd", lr=3.0, momentum=None, l2=None))
    SGD(lr=3.0, momentum=0.0, l2=0.0)
    """
    kind = type(optimizer_named(choose(options, "optimizer")))
    numbers = {name: getattr(options, name) for name in ("lr", "momentum", "l2")}
    given = {name: number for name, number in numbers.items() if number is not None}
    takes = inspect.signature(kind).parameters
    for name in given:
        if name not in takes:
            raise ArgumentError(f"{kind.__name__} has no --{name}: leave it out, or take another --optimizer")
    return kind(**given)
