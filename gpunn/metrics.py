"""What is counted beside the loss: a table of rows, each an op that adds to a sum on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import ArgumentError, unknown_name
from .ops import rule
from .program import Program
from .slots import Role

__all__ = ["METRICS", "Metric", "metrics_named"]


@dataclass(frozen=True)
class Metric:
    """A mean over examples, computed as a running sum divided by their number.

    Parameters
    ----------
    name : str
        What ``metrics=`` calls it by.
    op, labels_op : str
        (output, t) -> sum for targets (B, n), and for labels (B,).
    """

    name: str
    op: str
    labels_op: str

    @property
    def slot(self) -> str:
        """The slot of the running sum."""
        return f"sum.{self.name}"

    def emit(self, program: Program, output: str, target: str) -> None:
        """Emit the op that adds this batch to the sum."""
        labels = len(program.slots[target].shape) == 1
        op = self.labels_op if labels else self.op
        total = program.slot(self.slot, (1,), Role.HYPER, "float64", f"Σ{self.name}")
        program.emit(op, (output, target), {rule(op).outputs[0].name: total}, label=self.name)


METRICS: dict[str, Metric] = {
    row.name: row for row in (Metric("accuracy", "count_correct_targets", "count_correct"),)
}


def metrics_named(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of those names, or an error with the nearest name there is.

    >>> [metric.name for metric in metrics_named(["accuracy"])]
    ['accuracy']
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        example = names if isinstance(names, str) else "accuracy"
        raise ArgumentError(f"metrics is {names!r}, expected a sequence of names such as ({example!r},)")
    found = {}
    for name in names:
        if not isinstance(name, str) or name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        found[name] = METRICS[name]
    return tuple(found.values())
