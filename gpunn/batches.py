"""What a user passes as X, y and weights: checked on the host, once, and put on the device.

Every complaint names the argument, what came, what was expected and what to do.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import as_numbers, blocks, column_names, first_where, on_gpu, place, stays_on_disk
from .backends.base import Backend
from .errors import ArgumentError, DataError, ShapeError
from .losses import Loss
from .metrics import Metric
from .streams import Stream
from .variants import Model, Targets

__all__ = [
    "Batches",
    "adopted_inputs",
    "as_inputs",
    "as_numbers",
    "as_targets",
    "as_weights",
    "check_metrics",
    "prepare",
    "prepared",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class Given:
    """One argument on the host, for the messages: what came, and what is trained on.

    ``used`` may be a memory map of another dtype than ``dtype``, the one that minibatches have.
    """

    values: Array
    used: Array
    dtype: str
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Batches:
    """A data set on the device: its ``mass`` is Σw; ``host`` keeps what came, for the messages."""

    data: Mapping[str, Any]
    targets: Targets
    count: int
    mass: float
    host: Mapping[str, Given]

    @cached_property
    def fingerprint(self) -> int:
        """A number that tells these data and weights from others: a CRC of 64 rows spread over them."""
        rows = np.linspace(0, self.count - 1, 64).astype(int)
        code = 0
        for given in self.host.values():
            code = zlib.crc32(_cast(given.used[rows], given.dtype).tobytes(), code)
        return code

    def scan(self, where: str) -> None:
        """Raise DataError naming the first value that is not finite, if there is one.

        Training calls it only once a loss has come out not finite: a scan an epoch would cost a fifth of it.
        """
        for name, given in self.host.items():
            if hasattr(given.used, "all_finite") and given.used.all_finite(given.dtype):
                continue  # On a GPU, which is quicker than to bring it here.
            first: tuple[int, ...] | None = None
            values = rows = 0
            for start, block in blocks(given.used):
                if block.dtype.kind != "f":
                    break  # Whole numbers are finite in every dtype of a network.
                bad = ~np.isfinite(_cast(block, given.dtype))
                if bad.any():
                    if first is None:
                        row, *rest = (int(i) for i in np.argwhere(bad)[0])
                        first = (start + row, *rest)
                    values += int(np.count_nonzero(bad))
                    rows += int(np.count_nonzero(bad.reshape(len(bad), -1).any(axis=1)))
            if first is not None:
                value = given.values.reshape(given.used.shape)[first]
                hint = "remove or fill these rows"
                if np.isfinite(value):
                    hint = f"that is beyond {given.dtype}: scale the data, or use dtype='float64'"
                raise DataError(
                    f"{where}: {name} holds {value} at {place(first, given.columns)} ({values} such values "
                    f"in {rows} rows): {hint}"
                )


def check_metrics(batches: Batches, metrics: Sequence[Metric], loss: Loss) -> None:
    """Raise DataError where a metric asks yes or no, and the targets are other numbers."""
    asking = [metric.name for metric in metrics if metric.outputs is not None and metric.numbers is None]
    if not asking or batches.targets.labels:
        return
    name, given = next(item for item in batches.host.items() if item[0].endswith("y"))
    if not loss.splits_by_output(given.used.shape[1]):
        return
    bad = first_where(given.used, lambda block: (block < 0) | (block > 1))
    if bad is not None:
        raise DataError(
            f"metric {asking[0]!r} takes targets of 0 and 1, {name} holds {given.used[bad]} at "
            f"{place(bad, given.columns)}: for targets that are numbers there are 'mae' and 'r2'"
        )


def as_inputs(values: Any, model: Model, name: str = "X", *, empty: bool = False) -> Array:
    """X as a contiguous array (n, *input_shape) of the network's dtype; a copy only where needed.

    A memory map keeps the dtype that it has: a minibatch is converted when it is read.
    """
    array = as_numbers(name, values)
    _check_inputs(array, model, name, empty)
    return _ready(array, model.dtype)


def adopted_inputs(
    backend: Backend, values: Any, model: Model, name: str = "X", *, empty: bool = False
) -> tuple[Any, Any]:
    """X that lies on the network's GPU, ready there, copied only where needed, and what shows its values."""
    array, shown = backend.adopt(name, values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}, expected numbers: convert it to numbers first")
    _check_inputs(shown, model, name, empty)
    return backend.upload(array, model.dtype), shown


def _on_host(backend: Backend, name: str, values: Any) -> Any:
    """What is checked on the host, brought there if it lies on a GPU."""
    return np.asarray(backend.adopt(name, values)[1]) if on_gpu(values) else values


def _check_inputs(array: Any, model: Model, name: str, empty: bool) -> None:
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


def as_targets(
    values: Any, loss: Loss, outputs: int, dtype: str, count: int, name: str = "y"
) -> tuple[Array, bool]:
    """Y as labels (n,) int64 or as targets (n, outputs); the second value says which.

    A memory map keeps the dtype that it has: a minibatch is converted when it is read.
    """
    array = as_numbers(name, values)
    if array.ndim == 0 or len(array) != count:
        raise ShapeError(f"{name} has shape {array.shape}, expected {count} rows, as many as X has")
    whole = array.dtype.kind in "biu"
    if array.ndim == 1 and whole and loss.takes_labels(outputs):
        bad = first_where(array, lambda block: (block < 0) | (block >= outputs))
        if bad is not None:
            raise DataError(
                f"{name} holds the label {array[bad]} at row {bad[0]}, expected 0 to {outputs - 1}: "
                f"the network has {outputs} outputs (labels start at 0)"
            )
        return array if stays_on_disk(array) else array.astype(np.int64), True
    if array.ndim == 1 and outputs == 1 and loss.labels != "op":
        array = array[:, None]
    if array.shape != (count, outputs):
        if array.ndim == 2 and array.shape[1] == 1 and whole and loss.takes_labels(outputs):
            hint = f"labels are 1-D: pass numpy.ravel({name})"
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
    if loss.link == "softmax":
        bad = first_where(array, lambda block: block < 0)
        if bad is not None:
            raise DataError(f"{name} is negative in row {bad[0]}: loss {loss.name!r} takes probabilities")
    if loss.link == "sigmoid":
        # What is not finite is left to Batches.scan(), which counts it.
        bad = first_where(array, lambda block: ((block < 0) | (block > 1)) & np.isfinite(block))
        if bad is not None:
            raise DataError(
                f"{name} holds {array[bad]} at {place(bad)}: loss {loss.name!r} takes targets from 0 to 1, "
                f"such as 0 for no and 1 for yes"
            )
    return _ready(array, dtype), False


def _cast(array: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=dtype)


def _ready(array: Array, dtype: str) -> Array:
    return array if stays_on_disk(array) else _cast(array, dtype)


def as_weights(
    sample_weight: Any,
    class_weight: Any,
    labels: Array | None,
    count: int,
    classes: int,
    dtype: str,
    yes_or_no: Array | None = None,
    what: str = "",
) -> Array | None:
    """The weight of each example: sample_weight times the weight of its class; ``None`` for all ones.

    ``yes_or_no`` are targets (n, outputs) of 0 and 1. The weight of an example is then the product of the
    weights that its value has at each output, as in scikit-learn's ``compute_sample_weight``. ``what`` is
    what the examples are, for the messages: ``"batch 3: "``.
    """
    weights: Array | None = None
    if sample_weight is not None:
        weights = np.array(as_numbers(f"{what}sample_weight", sample_weight), np.float64)
        if weights.shape != (count,):
            raise ShapeError(
                f"{what}sample_weight has shape {weights.shape}, expected ({count},): one an example"
            )
        bad = ~(np.isfinite(_cast(weights, dtype)) & (weights >= 0))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{what}sample_weight is {weights[row]} at row {row}, expected finite {dtype} numbers of at "
                f"least 0"
            )
    if class_weight is not None:
        if yes_or_no is not None:
            per_class = _weights_by_output(class_weight, yes_or_no)
        else:
            per_class = _class_weights(class_weight, labels, classes)
        weights = per_class if weights is None else weights * per_class
    if weights is None:
        return None
    cast = _cast(weights, dtype)
    if not np.isfinite(cast).all():
        raise DataError(
            f"{what}a sample_weight times its class_weight is beyond {dtype}: give smaller weights"
        )
    # A minibatch of a stream may weigh nothing; a data set may not.
    if not what and not cast.any():
        raise DataError(
            f"all weights are zero in {dtype}: there is nothing to learn from; give some example a weight"
        )
    return cast


def _class_weights(class_weight: Any, labels: Array | None, classes: int) -> Array:
    if labels is None:
        raise ArgumentError(
            "class_weight needs integers as y, and a loss that takes them for classes; elsewhere use "
            "sample_weight"
        )
    labels = np.asarray(labels, np.int64)
    expected = "'balanced' or a mapping of label to weight"
    counts = np.bincount(labels, minlength=classes)
    if _is_balanced(class_weight, expected):
        return _balanced(counts)[labels]
    if not isinstance(class_weight, Mapping):
        raise ArgumentError(f"class_weight is {class_weight!r}, expected {expected}")
    return _table("class_weight", class_weight, classes)[labels]


def _weights_by_output(class_weight: Any, targets: Array) -> Array:
    count, outputs = targets.shape
    bad = first_where(targets, lambda block: (block != 0) & (block != 1))
    if bad is not None:
        raise DataError(
            f"class_weight needs targets of 0 and 1, y holds {targets[bad]} at {place(bad)}: for other "
            f"targets use sample_weight"
        )
    expected = f"'balanced' or a list of {outputs} mappings such as {{0: 1.0, 1: 2.0}}, one an output"
    if _is_balanced(class_weight, expected):
        ones = np.zeros(outputs, np.int64)
        for _, block in blocks(targets):
            ones += np.count_nonzero(block, axis=0)
        tables = _balanced(np.stack([count - ones, ones], axis=1))
    else:
        given = [class_weight] if outputs == 1 and isinstance(class_weight, Mapping) else class_weight
        if not isinstance(given, (list, tuple)) or not all(isinstance(each, Mapping) for each in given):
            raise ArgumentError(f"class_weight is {class_weight!r}, expected {expected}")
        if len(given) != outputs:
            raise ArgumentError(f"class_weight holds {len(given)} mappings, expected {expected}")
        tables = np.stack(
            [_table(f"class_weight of output {j}", each, 2) for j, each in enumerate(given)], axis=0
        )
    weights = np.empty(count)
    for start, block in blocks(targets):
        weights[start : start + len(block)] = np.where(block == 1, tables[:, 1], tables[:, 0]).prod(axis=1)
    return weights


def _is_balanced(class_weight: Any, expected: str) -> bool:
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise ArgumentError(f"class_weight is {class_weight!r}, expected {expected}")
    return isinstance(class_weight, str)


def _balanced(counts: Array) -> Array:
    """n/(k nⱼ) for each of the k classes present in a row of counts."""
    present = counts > 0
    weights = np.zeros(counts.shape)
    total = counts.sum(axis=-1, keepdims=True)
    np.divide(total, counts * present.sum(axis=-1, keepdims=True), where=present, out=weights)
    return weights


def _table(what: str, class_weight: Mapping[Any, Any], classes: int) -> Array:
    table = np.ones(classes)
    for label, weight in class_weight.items():
        number = int(label) if isinstance(label, (bool, np.bool_)) else label
        if not isinstance(number, (int, np.integer)) or not 0 <= number < classes:
            raise ArgumentError(f"{what} names the label {label!r}, expected 0 to {classes - 1}")
        real = isinstance(weight, (int, float, np.integer, np.floating))
        if not real or not (math.isfinite(weight) and weight >= 0):
            raise ArgumentError(
                f"{what}: label {label} has {weight!r}, expected a finite number of at least 0"
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
    columns = column_names(X)
    if on_gpu(X):
        there, given_X = adopted_inputs(backend, X, model, names[0])
        inputs = given_X
    else:
        given_X = as_numbers(names[0], X)
        inputs = as_inputs(given_X, model, names[0])
        there = None
    count = len(inputs)
    y, sample_weight = (
        _on_host(backend, name, values) for name, values in ((names[1], y), ("sample_weight", sample_weight))
    )
    given_y = as_numbers(names[1], y)
    target, is_labels = as_targets(given_y, loss, outputs, model.dtype, count, names[1])
    labels = target if is_labels else None
    yes_or_no = None if is_labels or loss.link != "sigmoid" else target
    weights = as_weights(
        sample_weight, class_weight, labels, count, outputs, model.dtype, yes_or_no, names[0][:-1]
    )
    kind = "int64" if is_labels else model.dtype
    host = {
        names[0]: Given(given_X, inputs, model.dtype, columns),
        names[1]: Given(given_y, target, kind, column_names(y)),
    }
    data = {
        "X": backend.upload(inputs, model.dtype) if there is None else there,
        "T": backend.upload(target, kind),
    }
    if weights is not None:
        data["weights"] = backend.upload(weights, model.dtype)
        host["sample_weight"] = Given(weights, weights, model.dtype)
    mass = float(count) if weights is None else float(np.sum(weights, dtype=np.float64))
    return Batches(data, Targets(is_labels, weights is not None), count, mass, host)


def prepared(
    stream: Stream,
    prepare_one: Callable[..., Batches],
    loss: Loss,
    metrics: Sequence[Metric],
    class_weight: Any = None,
    scan: str = "",
) -> Iterator[Batches]:
    """The batches of one epoch of a stream, checked and on the device, all of one kind.

    ``prepare_one`` is :func:`prepare` for one network; ``scan``, if given, looks for NaN too and says where.
    """
    kind: Targets | None = None
    for number, (x, y, weight) in enumerate(stream.epoch(), 1):
        which = f"{stream.what}batch {number}"
        batches = prepare_one(x, y, loss, weight, class_weight, (f"{which}: x", f"{which}: y"))
        kind = kind or batches.targets
        if batches.targets != kind:
            raise DataError(
                f"{which} comes with {_kind(batches.targets)}, the first one with {_kind(kind)}: give all "
                f"batches the same"
            )
        check_metrics(batches, metrics, loss)
        if scan:
            batches.scan(scan)
        yield batches


def _kind(targets: Targets) -> str:
    return ("labels" if targets.labels else "targets") + (" and weights" if targets.weighted else "")
