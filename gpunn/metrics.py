"""What is measured beside the loss: a table of rows, each a sum kept on the device and what is read off it.

All sums of one pass over the data are made in that pass; metrics that need the same sum share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, unknown_name
from .losses import Loss
from .ops import fill, rule
from .program import Program
from .slots import Op

__all__ = ["METRICS", "Metric", "metrics_named"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A number (or a matrix) about outputs y and targets t over all examples of a pass.

    Classes are integer labels, or rows of targets whose largest entry is the class. With one output, and for
    rows of targets under ``"binary_cross_entropy"`` (several labels an example), each output is a yes or a
    no: yes above ½ (above 0 where the output is z).

    Parameters
    ----------
    name : str
        What ``metrics=`` calls it by.
    finish : callable
        (sum, number of examples) -> value.
    formula, source : str
        For people.
    classes, outputs, numbers : str, optional
        The op that adds a batch to the sum: for classes (y, labels), for a yes or no an output (y, t), for
        targets that are numbers (y, t). ``None``: there is none for such targets.
    lower : bool
        Whether less is better.
    attrs : mapping
        The attributes of the op.
    """

    name: str
    finish: Callable[[Array, int], Any]
    formula: str
    source: str
    classes: str | None = None
    outputs: str | None = None
    numbers: str | None = None
    lower: bool = False
    attrs: tuple[tuple[str, Any], ...] = ()

    def emit(self, program: Program, output: str, target: str, loss: Loss) -> str:
        """Emit the op that adds this batch to the sum; returns the sum's slot.

        Raises :class:`gpunn.ArgumentError` where the metric means nothing for such targets.
        """
        labels = len(program.slots[target].shape) == 1
        n_out = int(program.slots[output].shape[-1] or 0)
        split = not labels and loss.splits_by_output(n_out)
        op, attrs = self.numbers, dict(self.attrs)
        if op is None and split and self.outputs is not None:
            op, attrs = self.outputs, {"threshold": _threshold(program, output, loss)}
        elif op is None and not split and self.classes is not None:
            op = self.classes
            target = target if labels else self._argmax(program, target)
        elif labels or op is None:
            given = "class labels" if labels else f"{n_out} yes or no an example" if split else "numbers"
            takes = "numbers" if self.numbers else "classes" if self.classes else "a yes or no an output"
            raise ArgumentError(
                f"metric {self.name!r} is about {takes}, the targets are {given}: leave it out"
            )
        last = program.producer(output)
        if op == self.numbers and loss.link and (last is None or loss.link not in _applied(last)):
            raise ArgumentError(
                f"metric {self.name!r} compares outputs with targets, and with loss {loss.name!r} this "
                f"network's output is z: make the last activation {loss.link!r}, or leave it out"
            )
        entry = rule(op)
        operand = entry.outputs[0]
        sizes = entry.sizes([program.slots[s].shape for s in (output, target)], {}, self.name)
        slot = "sum." + "_".join([op, *(str(value) for _, value in self.attrs)])
        if slot not in program.slots:
            shape = tuple(d or 0 for d in fill(operand, sizes, self.name))
            program.slot_of_run(slot, shape, "float64", "Σ" + slot.removeprefix("sum."))
            program.emit(op, (output, target), {operand.name: slot}, label=self.name, **attrs)
        return slot

    @staticmethod
    def _argmax(program: Program, target: str) -> str:
        """The classes that rows of targets stand for, found once for all metrics."""
        for op in program.ops:
            if op.name == "argmax" and op.ins[0] == target:
                return str(op.outs[0])
        found: str = program.emit("argmax", (target,), label="metrics")
        return found


def _applied(op: Op) -> tuple[str, str]:
    """The name of an op, and the σ that it applies."""
    return op.name, str(op.attrs.get("sigma"))


def _threshold(program: Program, output: str, loss: Loss) -> float:
    """½ for a probability; 0 where the loss takes σ into itself and the network's output is z."""
    last = program.producer(output)
    sigma = None if last is None else last.attrs.get("sigma")
    return 0.0 if loss.link == "sigmoid" and sigma != "sigmoid" else 0.5


def _share(total: Array, count: int) -> float:
    return float(total[0]) / count


def _matrix(counts: Array, count: int) -> Array:
    return counts.astype(np.int64)


def _hits(counts: Array) -> tuple[Array, Array, Array]:
    """For each class, or each output's yes: TP, TP + FP, and TP + FN."""
    if counts.ndim == 3:
        return counts[:, 1, 1], counts[:, :, 1].sum(axis=1), counts[:, 1, :].sum(axis=1)
    return np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)


def _ratio(above: Array, below: Array) -> float:
    """The mean over classes; 0 for a class that was never said, or never was."""
    ratios = np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
    return float(ratios.mean())


def _precision(counts: Array, count: int) -> float:
    right, said, _ = _hits(counts)
    return _ratio(right, said)


def _recall(counts: Array, count: int) -> float:
    right, _, so = _hits(counts)
    return _ratio(right, so)


def _f1(counts: Array, count: int) -> float:
    right, said, so = _hits(counts)
    return _ratio(2 * right, said + so)


def _mean_absolute(total: Array, count: int) -> float:
    return float(total[0] / total[1])


def _r_squared(sums: Array, count: int) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(1 - sums[3] / np.where(sums[2] > 0, sums[2], np.nan)))


_COUNTS: dict[str, Any] = {"classes": "confusion", "outputs": "confusion_by_output"}
_SKLEARN = "scikit-learn's user guide, section 3.4"

METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            "accuracy",
            _share,
            "examples that are right / n; with several yes or no an example: all of them right",
            "Nielsen, Neural Networks and Deep Learning, chapter 1",
            classes="count_correct",
            outputs="count_exact",
        ),
        Metric(
            "confusion",
            _matrix,
            "counts[i, j]: examples of class i taken for j; with yes or no: [output, truth, prediction]",
            _SKLEARN,
            **_COUNTS,
        ),
        Metric(
            "precision",
            _precision,
            "mean over classes (or outputs) of TP/(TP + FP)",
            f"{_SKLEARN}, macro average; 0/0 counts as 0",
            **_COUNTS,
        ),
        Metric(
            "recall",
            _recall,
            "mean over classes (or outputs) of TP/(TP + FN)",
            f"{_SKLEARN}, macro average; 0/0 counts as 0",
            **_COUNTS,
        ),
        Metric(
            "f1",
            _f1,
            "mean over classes (or outputs) of 2TP/(2TP + FP + FN)",
            f"{_SKLEARN}, macro average",
            **_COUNTS,
        ),
        Metric("mae", _mean_absolute, "Σ|y − t| / (n N)", _SKLEARN, numbers="sum_absolute", lower=True),
        Metric(
            "r2",
            _r_squared,
            "mean over outputs of 1 − Σ(y − t)² / Σ(t − t̄)²; NaN where an output's targets are all equal",
            f"{_SKLEARN}, uniform average",
            numbers="moments",
        ),
    )
}


def _top(k: int) -> Metric:
    return Metric(
        f"top_{k}",
        _share,
        f"#(class among the {k} largest outputs) / n",
        "Russakovsky et al. 2015, arXiv:1409.0575",
        classes="count_top_k",
        attrs=(("k", k),),
    )


def metrics_named(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of those names (``"top_5"`` and the like too), or an error with the nearest name there is.

    >>> [metric.name for metric in metrics_named(["accuracy", "top_5"])]
    ['accuracy', 'top_5']
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        example = names if isinstance(names, str) else "accuracy"
        raise ArgumentError(f"metrics is {names!r}, expected a sequence of names such as ({example!r},)")
    found = {}
    for name in names:
        top = re.fullmatch(r"top_([1-9]\d*)", name) if isinstance(name, str) else None
        if top is None and (not isinstance(name, str) or name not in METRICS):
            raise unknown_name("metric", name, [*METRICS, "top_5"])
        found[name] = METRICS[name] if top is None else _top(int(top[1]))
    return tuple(found.values())
