"""From the options and a data set to a network, its targets and its optimiser."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, Split, load
from ..errors import ArgumentError, DataError
from ..layers import Dense, Dropout, Layer
from ..losses import Loss, loss_named
from ..network import Sequential
from ..optimizers import Optimizer, optimizer_named
from .rates import read_schedule

__all__ = [
    "DEFAULTS",
    "Classes",
    "Target",
    "Task",
    "choose",
    "few",
    "load_data",
    "make_network",
    "make_optimizer",
    "output_count",
    "resolve_loss",
    "sides_of",
    "target_column",
    "targets_of",
    "task_of",
]

#: What each option is where it is not given. At least 95 % of the held-out digits come out right with these.
DEFAULTS: dict[str, Any] = {
    "test_fraction": 0.2,
    # Where something is chosen on the way; else nothing is held out to choose on.
    "validation_fraction": 0.1,
    "hidden": [128],
    "dropout": 0,
    "activation": "relu",
    "weights": "glorot_uniform",
    "bias": "zeros",
    "dtype": "float32",
    "device": "cpu",
    "optimizer": "adam",
    "batch_size": 32,
    "epochs": 30,
    "seed": [0],
    "metrics": [],
}

#: The options that are numbers of an optimiser; which of them it takes, it says itself.
NUMBERS = (
    "lr",
    "momentum",
    "nesterov",
    "rho",
    "beta1",
    "beta2",
    "epsilon",
    "l1",
    "l2",
    "weight_decay",
    "clip_norm",
)

#: The name of each class, in the order of the labels; ``None`` where there are none.
Classes = tuple[str, ...] | None

#: What --target names: a column or an array, several columns, or what the readers take by themselves.
Target = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Task:
    """What the outputs of a network stand for.

    Parameters
    ----------
    classes : tuple of str, optional
        The name of each output's class: one of them is right.
    answers : tuple of str, optional
        What each output says yes or no to. With neither, the outputs are numbers.
    numbers : tuple of str, optional
        What each number is called, where the data tell.
    """

    classes: Classes = None
    answers: Classes = None
    numbers: Classes = None

    @property
    def is_numbers(self) -> bool:
        """Whether the outputs are numbers."""
        return self.classes is None and self.answers is None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured without being asked for.

        >>> Task(classes=("cat", "dog")).metrics, Task(answers=("even", "prime")).metrics, Task().metrics
        (('accuracy',), ('accuracy', 'f1'), ('r2',))
        """
        if self.classes is not None:
            return ("accuracy",)
        return ("accuracy", "f1") if self.answers is not None else ("r2",)

    def __str__(self) -> str:
        if self.classes is not None:
            return ", ".join(self.classes)
        if self.answers is not None:
            return f"yes or no: {', '.join(self.answers)}"
        return "numbers" if self.numbers is None else f"numbers: {', '.join(self.numbers)}"


def choose(options: Namespace, name: str) -> Any:
    """What the user gave for an option, or else its default.

    >>> choose(Namespace(epochs=None, hidden=[]), "epochs"), choose(Namespace(hidden=[]), "hidden")
    (30, [])
    """
    given = getattr(options, name, None)
    return DEFAULTS[name] if given is None else given


def target_column(target: Target, source: str) -> int | str | tuple[int | str, ...] | None:
    """The target as the readers take it: digits are a column's index, but the name of an array in .npz.

    >>> target_column("2", "a.csv"), target_column("2", "a.npz"), target_column("kind", "a.csv")
    (2, '2', 'kind')
    >>> target_column(("2", "kind"), "a.csv")
    (2, 'kind')
    """
    if target is None or Path(source).suffix.lower() == ".npz":
        return target
    return _column(target) if isinstance(target, str) else tuple(map(_column, target))


def _column(name: str) -> int | str:
    return int(name) if name.removeprefix("-").isdecimal() else name


def load_data(
    source: str | None, target: Target, test_fraction: float, validation_fraction: float | None = None
) -> Dataset:
    """The data set that --data names. Its division depends on no --seed, so that runs can be compared."""
    if source is None:
        raise ArgumentError(
            "--data is missing: give digits, digit-traits, mnist, or a file .csv, .tsv, .txt, .npz"
        )
    return load(
        source,
        target=target_column(target, source),
        test_fraction=test_fraction,
        validation_fraction=0 if validation_fraction is None else validation_fraction,
    )


def sides_of(dataset: Dataset) -> list[Split]:
    """The sides that a data set has, training first."""
    return [side for side in (dataset.train, dataset.validation, dataset.test) if side is not None]


def _target(side: Split) -> NDArray[Any]:
    if side.y is None:
        raise DataError(f"the {side.name} examples have no targets, which are needed here")
    return side.y


def task_of(dataset: Dataset, loss: str | None, target: Target = None) -> Task:
    """Classes to tell apart, yes-or-no answers, or numbers, with the names that the data have for them.

    Targets of only 0 and 1 are answers under binary cross-entropy, which is the usual loss where the data
    name their outputs. Whole numbers that are not exactly 0..k-1 count as numbers, unless the loss asked for
    takes nothing but classes: then each of them is one.
    """
    if dataset.classes is not None:
        return Task(classes=dataset.classes)
    sides = [_target(side) for side in sides_of(dataset)]
    row = None if loss is None else loss_named(loss)
    whole, flat = sides[0].dtype.kind in "iu", all(y.ndim == 1 for y in sides)
    yes_or_no = dataset.target_names is not None if row is None else row.link == "sigmoid"
    if yes_or_no and not (whole and flat):
        if not all(bool(np.isin(y, (0, 1)).all()) for y in sides):
            return Task(numbers=dataset.target_names)
        return Task(answers=_names(dataset, target))
    if row is None or not flat or not (yes_or_no or row.labels == "op"):
        return Task(numbers=dataset.target_names)
    if not whole:
        raise DataError(
            f"--loss {loss} takes classes, and the targets of {dataset.name} are {sides[0].dtype} numbers: "
            f"name the column of classes with --target, or leave --loss out"
        )
    return Task(classes=tuple(map(str, np.unique(np.concatenate(sides)).tolist())))


def _names(dataset: Dataset, target: Target) -> tuple[str, ...]:
    """What the outputs are called: as the data say, else by the column, else by number."""
    outputs = _width(_target(dataset.train))
    if dataset.target_names is not None and len(dataset.target_names) == outputs:
        return dataset.target_names
    one = target if isinstance(target, str) and target else "answer"
    return (one,) if outputs == 1 else tuple(f"output {i}" for i in range(outputs))


def _width(y: NDArray[Any]) -> int:
    return 1 if y.ndim == 1 else int(y.shape[1])


def resolve_loss(loss: str | None, task: Task) -> str:
    """The loss asked for, or the usual one.

    >>> resolve_loss(None, Task(classes=("cat", "dog"))), resolve_loss(None, Task())
    ('cross_entropy', 'mse')
    >>> resolve_loss(None, Task(answers=("even", "prime")))
    'binary_cross_entropy'
    """
    if loss is not None:
        return loss_named(loss).name
    if task.classes is not None:
        return "cross_entropy"
    return "mse" if task.is_numbers else "binary_cross_entropy"


def output_count(dataset: Dataset, task: Task) -> int:
    """How many outputs the network needs: one a class, or one a target column."""
    if task.classes is not None:
        if len(task.classes) < 2:
            raise DataError(
                f"{dataset.name} has the one class {task.classes[0]!r}, expected two or more to tell apart"
            )
        return len(task.classes)
    return _width(_target(dataset.train))


def targets_of(side: Split, names: Classes, task: Task, loss: Loss, outputs: int) -> NDArray[Any]:
    """The targets as the loss takes them: labels in the order of the classes, rows, or numbers.

    Parameters
    ----------
    side : Split
        Its y are numbers, or labels.
    names : tuple of str or None
        What the data set calls its labels; None: a label is called by its number.
    task : Task
        What the network's outputs stand for.
    loss : Loss
        Decides between labels and one-hot rows.
    outputs : int
        Of the network.

    Raises
    ------
    gpunn.DataError
        If the data hold a class that the network has no output for, or no answers where it gives some.

    >>> from gpunn.losses import LOSSES
    >>> side = Split(np.zeros((2, 1)), np.array([0, 1]))
    >>> targets_of(side, ("b", "c"), Task(classes=("a", "b", "c")), LOSSES["cross_entropy"], 3)
    array([1, 2])
    """
    y = _target(side)
    if task.answers is not None and (_width(y) != outputs or not np.isin(y, (0, 1)).all()):
        raise DataError(
            f"the {side.name} targets are {y.dtype} of shape {y.shape}, expected 0 (no) or 1 (yes) for each "
            f"of {few(task.answers)}"
        )
    if task.classes is None:
        return y if y.dtype.kind == "f" else y.astype(np.float64)
    classes = task.classes
    if y.ndim > 1 or y.dtype.kind not in "iu":
        raise DataError(
            f"the {side.name} targets are {y.dtype} of shape {y.shape}, expected one of the classes "
            f"{few(classes)} for each example"
        )
    values, places = np.unique(y, return_inverse=True)
    called = [str(value) if names is None else names[value] for value in values.tolist()]
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in called if name not in index]
    if unknown:
        raise DataError(
            f"the {side.name} examples hold the class {unknown[0]!r}, and the network knows {few(classes)}"
        )
    labels = np.array([index[name] for name in called], dtype=np.int64)[places]
    return labels if loss.takes_labels(outputs) else np.eye(outputs)[labels]


def few(names: Sequence[str]) -> str:
    """Names in a line; of many, the first ten."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def make_network(
    options: Namespace, inputs: int, outputs: int, loss: str, task: Task, seed: int
) -> Sequential:
    """Dense layers as the options say; the last activation, where not given, is what the loss works with."""
    last = options.output_activation
    if last is None:
        last = loss_named(loss).link or ("identity" if task.is_numbers else "sigmoid")
    start = {"weights": choose(options, "weights"), "bias": choose(options, "bias")}
    units, rate = choose(options, "hidden"), choose(options, "dropout")
    if not 0 <= rate < 1:
        raise ArgumentError(f"--dropout is {rate:g}, expected at least 0 and below 1, such as 0.2")
    if rate and not units:
        raise ArgumentError("--dropout comes after hidden layers, and --hidden names none: leave one out")
    layers: list[Layer] = []
    for n in units:
        layers.append(Dense(n, choose(options, "activation"), **start))
        if rate:
            layers.append(Dropout(rate))
    return Sequential(
        [*layers, Dense(outputs, last, **start)],
        input_shape=inputs,
        device=choose(options, "device"),
        dtype=choose(options, "dtype"),
        seed=seed,
    )


def make_optimizer(options: Namespace) -> Optimizer:
    """The optimiser with the numbers that were given.

    >>> make_optimizer(Namespace(optimizer="sgd", lr=3.0, momentum=None, schedule="exponential:0.9"))
    SGD(lr=3.0, schedule=Exponential(rate=0.9, unit='epoch'))
    """
    kind = type(optimizer_named(choose(options, "optimizer")))
    numbers = {name: getattr(options, name, None) for name in NUMBERS}
    given = {name: number for name, number in numbers.items() if number is not None}
    takes = inspect.signature(kind).parameters
    for name in given:
        if name not in takes:
            option = name.replace("_", "-")
            raise ArgumentError(
                f"{kind.__name__} has no --{option}: leave it out, or take another --optimizer"
            )
    if given.get("nesterov") and not given.get("momentum"):
        raise ArgumentError("--nesterov needs a --momentum above 0, such as --momentum 0.9")
    text, warmup = getattr(options, "schedule", None), getattr(options, "warmup", None)
    schedule = read_schedule(text, warmup, choose(options, "epochs"))
    return kind(**given) if schedule is None else kind(**given | {"schedule": schedule})
