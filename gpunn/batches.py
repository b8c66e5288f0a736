"""What a user passes as X, y and weights: checked on the host, once, and put on the device.

Every complaint names the argument, what came, what was expected and what to do.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.base import Backend
from .errors import ArgumentError, DataError, ShapeError
from .losses import Loss
from .variants import Model, Targets

__all__ = ["Batches", "as_inputs", "as_numbers", "as_targets", "as_weights", "prepare"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Batches:
    """A data set on the device: its ``mass`` is Σw; ``host`` keeps what came, for the messages."""

    data: Mapping[str, Any]
    targets: Targets
    count: int
    mass: float
    host: Mapping[str, tuple[Array, Array]]

    def fingerprint(self) -> int:
        """A number that tells this data set from another: a CRC of 64 rows spread over it."""
        rows = np.linspace(0, self.count - 1, 64).astype(int)
        code = 0
        for _, array in self.host.values():
            code = zlib.crc32(np.ascontiguousarray(array[rows]).tobytes(), code)
        return code

    def scan(self, where: str) -> None:
        """Raise DataError naming the first value that is not finite, if there is one.

        Training calls it only once a loss has come out not finite: a scan an epoch would cost a fifth of it.
        """
        for name, (given, array) in self.host.items():
            bad = ~np.isfinite(array)
            if bad.any():
                index = tuple(int(i) for i in np.argwhere(bad)[0])
                value = given.reshape(array.shape)[index]
                hint = "remove or fill these rows"
                if np.isfinite(value):
                    hint = f"that is beyond {array.dtype}: scale the data, or use dtype='float64'"
                at = f"row {index[0]}" + (f", column {', '.join(map(str, index[1:]))}" if index[1:] else "")
                raise DataError(
                    f"{where}: {name} holds {value} at {at} ({int(bad.sum())} such values in "
                    f"{int(bad.reshape(len(bad), -1).any(axis=1).sum())} rows): {hint}"
                )


def as_numbers(name: str, values: Any) -> Array:
    """The values as a NumPy array of booleans, integers or floats, or DataError."""
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} is a masked array, and a network has no masks: pass {name}.filled(value)")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} is not a rectangular array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        hint = "convert it to numbers first"
        if array.dtype.kind in "US" and array.ndim == 1:
            hint = f"for labels that are words: classes, {name} = np.unique({name}, return_inverse=True)"
        if array.dtype.kind == "O" and array.ndim == 0:
            hint = "give a dense NumPy array (a sparse matrix: X.toarray())"
        elif array.dtype.kind == "O":
            hint = f"unequal rows, None or strings among the numbers? Convert with {name}.astype(float)"
        raise DataError(f"{name} has dtype {array.dtype} ({type(values).__name__}), expected numbers: {hint}")
    return array


def as_inputs(values: Any, model: Model, name: str = "X", *, empty: bool = False) -> Array:
    """X as a contiguous array (n, *input_shape) of the network's dtype; a copy only where needed."""
    array = as_numbers(name, values)
    want = model.input_shape
    if array.shape[1:] != want or array.ndim == 0:
        shown = f"(n, {', '.join(map(str, want))})"
        hint = ""
        if array.shape == want:
            hint = f": one example is {name}[None]"
        elif array.ndim > 1 and len(want) == 1 and int(np.prod(array.shape[1:])) == want[0]:
            hint = f": pass {name}.reshape(len({name}), -1), or start the network with Flatten()"
        raise ShapeError(f"{name} has shape {array.shape}, the network takes {shown}{hint}")
    if not len(array) and not empty:
        raise DataError(f"{name} is empty: it has shape {array.shape}, expected at least one example")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=model.dtype)


def as_targets(
    values: Any, loss: Loss, outputs: int, dtype: str, count: int, name: str = "y"
) -> tuple[Array, bool]:
    """Y as labels (n,) int64 or as targets (n, outputs); the second value says which."""
    array = as_numbers(name, values)
    if array.ndim == 0 or len(array) != count:
        raise ShapeError(f"{name} has shape {array.shape}, expected {count} rows, as many as X has")
    whole = array.dtype.kind in "biu"
    if array.ndim == 1 and whole and loss.takes_labels(outputs):
        labels = array.astype(np.int64)
        bad = np.flatnonzero((labels < 0) | (labels >= outputs))
        if len(bad):
            raise DataError(
                f"{name} holds the label {array[bad[0]]} at row {bad[0]}, expected 0 to {outputs - 1}: "
                f"the network has {outputs} outputs (labels start at 0)"
            )
        return labels, True
    if array.ndim == 1 and outputs == 1 and loss.labels != "op":
        return _cast(array[:, None], dtype), False
    if array.shape != (count, outputs):
        if array.ndim == 2 and array.shape[1] == 1 and whole and loss.takes_labels(outputs):
            hint = f"labels are 1-D: pass {name}.ravel()"
        elif array.ndim == 1 and loss.takes_labels(outputs):
            hint = f"labels are integers, got {array.dtype}: pass {name}.astype(int)"
            if not np.isfinite(array).all():
                hint = f"labels are integers, and {name} holds NaN or infinity: remove or fill these rows"
        elif array.ndim == 1:
            hint = (
                f"loss {loss.name!r} takes no class labels with {outputs} outputs: pass one row per example"
            )
        else:
            hint = f"one column per output of the network, of which there are {outputs}"
        raise ShapeError(f"{name} has shape {array.shape}, expected ({count}, {outputs}): {hint}")
    if loss.link == "softmax" and (array < 0).any():
        row = int(np.argwhere(array < 0)[0][0])
        raise DataError(f"{name} is negative in row {row}: loss {loss.name!r} takes probabilities")
    return _cast(array, dtype), False


def _cast(array: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=dtype)


def as_weights(
    sample_weight: Any, class_weight: Any, labels: Array | None, count: int, classes: int, dtype: str
) -> Array | None:
    """The weight of each example: sample_weight times the weight of its class; ``None`` for all ones."""
    weights: Array | None = None
    if sample_weight is not None:
        weights = as_numbers("sample_weight", sample_weight).astype(np.float64)
        if weights.shape != (count,):
            raise ShapeError(f"sample_weight has shape {weights.shape}, expected ({count},): one an example")
        bad = ~(np.isfinite(_cast(weights, dtype)) & (weights >= 0))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"sample_weight is {weights[row]} at row {row}, expected finite {dtype} numbers of at least 0"
            )
    if class_weight is not None:
        per_class = _class_weights(class_weight, labels, classes)[labels]
        weights = per_class if weights is None else weights * per_class
    if weights is None:
        return None
    cast = _cast(weights, dtype)
    if not np.isfinite(cast).all():
        raise DataError(f"a sample_weight times its class_weight is beyond {dtype}: give smaller weights")
    if not cast.any():
        raise DataError(
            f"all weights are zero in {dtype}: there is nothing to learn from; give some example a weight"
        )
    return cast


def _class_weights(class_weight: Any, labels: Array | None, classes: int) -> Array:
    if labels is None:
        raise ArgumentError("class_weight needs integer labels as y; for other targets use sample_weight")
    counts = np.bincount(labels, minlength=classes)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ArgumentError(
                f"class_weight is {class_weight!r}, expected 'balanced' or a mapping of label to weight"
            )
        present = counts > 0
        balanced = np.zeros(len(counts))
        np.divide(len(labels), counts * present.sum(), where=present, out=balanced)
        return balanced
    if not isinstance(class_weight, Mapping):
        raise ArgumentError(
            f"class_weight is {class_weight!r}, expected 'balanced' or a mapping of label to weight"
        )
    table = np.ones(len(counts))
    for label, weight in class_weight.items():
        number = int(label) if isinstance(label, (bool, np.bool_)) else label
        if not isinstance(number, (int, np.integer)) or not 0 <= number < classes:
            raise ArgumentError(f"class_weight names the label {label!r}, expected 0 to {classes - 1}")
        real = isinstance(weight, (int, float, np.integer, np.floating))
        if not real or not (math.isfinite(weight) and weight >= 0):
            raise ArgumentError(
                f"class_weight of label {label} is {weight!r}, expected a finite number of at least 0"
            )
        table[number] = weight
    return table


def prepare(
    backend: Backend,
    model: Model,
    loss: Loss,
    outputs: int,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    class_weight: Any = None,
    names: tuple[str, str] = ("X", "y"),
) -> Batches:
    """Check a data set and put it on the device."""
    inputs = as_inputs(X, model, names[0])
    count = len(inputs)
    target, is_labels = as_targets(y, loss, outputs, model.dtype, count, names[1])
    labels = target if is_labels else None
    weights = as_weights(sample_weight, class_weight, labels, count, outputs, model.dtype)
    host = {names[0]: (np.asarray(X), inputs), names[1]: (np.asarray(y), target)}
    data = {
        "X": backend.upload(inputs, model.dtype),
        "T": backend.upload(target, "int64" if is_labels else model.dtype),
    }
    if weights is not None:
        data["weights"] = backend.upload(weights, model.dtype)
    mass = float(count) if weights is None else float(np.sum(weights, dtype=np.float64))
    return Batches(data, Targets(is_labels, weights is not None), count, mass, host)
