"""A data set and its sides, what makes a column a label, and holding examples out for a test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import ArgumentError, DataError, ShapeError

__all__ = ["Dataset", "Split", "as_labels", "as_target", "hold_out"]


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One side of a data set: examples and their targets, in the same order.

    Parameters
    ----------
    X
        The examples, (n, n_features).
    y
        The targets: (n,) int64 labels, or (n,) or (n, n_outputs) numbers; None if there are none.
    classes
        For labels, the name of each: ``classes[y[i]]`` names the class of example i. Else None.
    name
        Which side this is, such as ``"train"``.
    target_names
        For targets (n, n_outputs), the name of each output; None where they have none.

    Raises
    ------
    ShapeError
        If X and y differ in length.

    Examples
    --------
    >>> side = Split(np.zeros((3, 2)), np.array([0, 1, 0]), classes=("cat", "dog"), name="train")
    >>> side
    Split('train': X (3, 2) float64, y (3,) int64, 2 classes)
    >>> len(side)
    3
    """

    X: NDArray[Any]
    y: NDArray[Any] | None
    classes: tuple[str, ...] | None = None
    name: str = ""
    target_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.y is not None and len(self.X) != len(self.y):
            raise ShapeError(
                f"the split {self.name!r} has X with {len(self.X)} examples and y with {len(self.y)}, "
                "expected as many targets as examples"
            )

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        y = "no y" if self.y is None else f"y {self.y.shape} {self.y.dtype}"
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Split({self.name!r}: X {self.X.shape} {self.X.dtype}, {y}{classes})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set: what to train on and, where there are any, what to validate and test on.

    Parameters
    ----------
    name
        What it is called: ``"mnist"``, or a file's name without its suffix.
    train, validation, test
        The sides; None where the data set has no such side.
    classes
        For labels, the name of each, the same on every side; None when the targets are numbers.
    target_names
        For targets (n, n_outputs), the name of each output, the same on every side; else None.
    description
        One sentence on what the examples are and where they come from.
    feature_names
        The name of each column of X, the same on every side; None where they have none.

    Examples
    --------
    >>> side = Split(np.zeros((3, 2)), np.zeros(3), name="train")
    >>> Dataset("toy", train=side).test is None
    True
    """

    name: str
    train: Split
    validation: Split | None = None
    test: Split | None = None
    classes: tuple[str, ...] | None = None
    description: str = ""
    target_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None


def as_target(values: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Turn a column of a file into targets: labels with their classes, or numbers.

    ================================ ========================= =====================
    `values`                         targets                   classes
    ================================ ========================= =====================
    text                             (n,) int64 labels         the words, sorted
    1-D whole numbers, exactly 0..k-1 the same as int64         "0", ..., "k-1"
    other 1-D whole numbers          the same as int64         None
    anything else that is a number   float32, or float64 where None
                                     float32 would lose digits
    ================================ ========================= =====================

    Exactly 0..k-1 means that each of them occurs: a count or a year is not mistaken for a label.

    >>> as_target(np.array(["dog", "cat", "dog"]))
    (array([1, 0, 1]), ('cat', 'dog'))
    >>> as_target(np.array([0, 2, 1], dtype=np.uint8))
    (array([0, 2, 1]), ('0', '1', '2'))
    >>> as_target(np.array([1990, 2000]))
    (array([1990, 2000]), None)
    """
    if values.dtype.kind == "U":
        words, codes = np.unique(values, return_inverse=True)
        return as_labels(codes.reshape(values.shape), words.tolist())
    if values.ndim == 1 and values.dtype.kind in "biu":
        if values.dtype.kind == "u" and int(values.max()) >= 2**63:
            raise DataError(f"a target is {int(values.max())}, expected whole numbers below 2**63")
        labels = values.astype(np.int64)
        whole = labels.min() == 0 and labels.max() < len(labels) and bool(np.bincount(labels).all())
        return labels, tuple(map(str, range(int(labels.max()) + 1))) if whole else None
    return values.astype(np.result_type(values.dtype, np.float32), copy=False), None


def as_labels(codes: NDArray[Any], words: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn codes, where code c stands for ``words[c]``, into labels of the sorted words.

    Each word is held once, however often it occurs and however long it is.

    >>> as_labels(np.array([0, 1, 2, 0]), ["dog", "cat", "dog"])
    (array([1, 0, 1, 1]), ('cat', 'dog'))
    """
    classes = tuple(sorted(set(words)))
    numbers = {word: number for number, word in enumerate(classes)}
    return np.array([numbers[word] for word in words], dtype=np.int64)[codes], classes


def hold_out(
    X: ArrayLike, y: ArrayLike, fraction: float = 0.2, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shuffle examples and hold a fraction of them out, keeping the share of each class.

    ⌈n · fraction⌉ examples are held out, but never none and never all. Whole-number labels are
    stratified: each class gives its share, rounded so that the sum fits, and keeps at least one
    example for training. Otherwise (numbers as targets, whole numbers with fewer than two examples
    each on average, which count rather than classify, or a fraction that would leave some class
    none for training) the shuffle alone decides.

    Parameters
    ----------
    X
        The examples, (n, ...), n at least 2.
    y
        The targets, (n,) or (n, n_outputs).
    fraction
        The part to hold out, more than 0 and less than 1.
    seed
        The seed of the shuffle: the same seed, the same sides.

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Copies, in shuffled order.

    Raises
    ------
    ArgumentError
        If the fraction or the seed cannot be used.
    ShapeError
        If X and y differ in length.
    DataError
        If there are fewer than two examples.

    Examples
    --------
    >>> X, y = np.arange(20).reshape(10, 2), np.array([0] * 5 + [1] * 5)
    >>> X_train, y_train, X_test, y_test = hold_out(X, y, fraction=0.4, seed=1)
    >>> np.bincount(y_train), np.bincount(y_test)
    (array([3, 3]), array([2, 2]))
    """
    examples, targets = np.asarray(X), np.asarray(y)
    if examples.ndim == 0 or targets.ndim == 0 or len(examples) != len(targets):
        raise ShapeError(
            f"cannot divide X of shape {examples.shape} with y of shape {targets.shape}, "
            "expected as many targets as examples"
        )
    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction is {fraction!r}, expected more than 0 and less than 1")
    if len(examples) < 2:
        raise DataError(
            f"cannot divide {len(examples)} example(s) into two sides, expected at least 2: "
            "bring more, or hold nothing out"
        )
    try:
        generator = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"seed is {seed!r}, expected a whole number from 0 up") from error
    n = len(examples)
    # Rounded first, so that 100 · 0.07 = 7.000000000000001 holds out 7 and not 8.
    held = min(max(math.ceil(round(n * fraction, 6)), 1), n - 1)
    order = generator.permutation(n)
    out = _stratified(targets[order], held) if targets.ndim == 1 else None
    if out is None:
        out = np.arange(n) < held
    train, test = order[~out], order[out]
    return examples[train], targets[train], examples[test], targets[test]


def _stratified(labels: NDArray[Any], held: int) -> NDArray[np.bool_] | None:
    n = len(labels)
    if labels.dtype.kind not in "biu":
        return None
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if 2 * len(classes) > n or held > n - len(classes):
        return None
    take, remainder = np.divmod(counts * held, n)
    # What rounding down left over goes to the largest remainders.
    while left := held - int(take.sum()):
        spare = np.flatnonzero(take < counts - 1)
        take[spare[np.argsort(-remainder[spare], kind="stable")[:left]]] += 1
    grouped = np.argsort(codes, kind="stable")
    starts = np.cumsum(counts) - counts
    mask = np.zeros(n, dtype=bool)
    mask[grouped] = np.arange(n) - np.repeat(starts, counts) < np.repeat(take, counts)
    return mask
