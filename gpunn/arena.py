"""Where things lie: the flat layout of Θ and ∇Θ, and the planner that reuses workspace by lifetime.

Both are plain integer arithmetic over shapes; backends turn the answers into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Layout", "Plan", "Window", "lay_out", "plan_workspace"]

#: Bytes. A window starts at a multiple of it, so that a GPU reads it in whole transactions.
ALIGNMENT = 256


@dataclass(frozen=True)
class Window:
    """One parameter's place in Θ, in elements."""

    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The windows of one contiguous Θ: weights first, then the rest, padding between them.

    Parameters
    ----------
    windows : mapping
        Parameter key to window, in key order (the order in which layers declared them).
    size : int
        Elements of Θ, padding included.
    weights : int
        Elements of the prefix that holds the weights: what a penalty on weights acts on.
    """

    windows: Mapping[str, Window]
    size: int
    weights: int

    @property
    def count(self) -> int:
        """The number of parameters, padding excluded."""
        return sum(window.size for window in self.windows.values())


def lay_out(parameters: Mapping[str, tuple[tuple[int, ...], bool]], itemsize: int) -> Layout:
    """Give each parameter its window.

    Parameters
    ----------
    parameters : mapping
        Key to (shape, whether it is a weight that penalties act on).
    itemsize : int
        Bytes an element.

    Examples
    --------
    >>> layout = lay_out({"W": ((2, 3), True), "b": ((2,), False)}, itemsize=4)
    >>> layout.windows["b"], layout.size, layout.weights, layout.count
    (Window(offset=64, shape=(2,)), 128, 64, 8)
    """
    step = max(1, ALIGNMENT // itemsize)
    offsets: dict[str, int] = {}
    end = weights = 0
    for wanted in (True, False):
        for key, (shape, is_weight) in parameters.items():
            if is_weight is wanted:
                offsets[key] = end
                end += -(-math.prod(shape) // step) * step
        if wanted:
            weights = end
    windows = {key: Window(offsets[key], shape) for key, (shape, _) in parameters.items()}
    return Layout(windows, end, weights)


@dataclass(frozen=True)
class Plan:
    """Byte offsets of the workspace's slots, and the bytes of the whole."""

    offsets: Mapping[str, int]
    nbytes: int


def plan_workspace(slots: Iterable[tuple[str, int, int, int]]) -> Plan:
    """Place slots so that two share bytes only where their lifetimes do not meet.

    Each goes to the lowest place that is free for the whole of its life, once largest first and once in the
    order of their births; the smaller workspace is taken. It need not be the smallest there is.

    Parameters
    ----------
    slots : iterable of (name, nbytes, first, last)
        ``first`` and ``last`` are the indices of the first and the last op that touch the slot.

    Examples
    --------
    >>> plan_workspace([("z", 256, 0, 1), ("a", 256, 1, 2), ("y", 256, 2, 3)])
    Plan(offsets={'z': 0, 'a': 256, 'y': 0}, nbytes=512)
    """
    given = list(slots)
    plans = (
        _place(sorted(given, key=lambda slot: -slot[1])),
        _place(sorted(given, key=lambda slot: slot[2])),
    )
    return min(plans, key=lambda plan: plan.nbytes)


def _place(slots: Iterable[tuple[str, int, int, int]]) -> Plan:
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[str, int] = {}
    total = 0
    for name, nbytes, first, last in slots:
        room = -(-nbytes // ALIGNMENT) * ALIGNMENT
        at = 0
        for start, stop, born, died in sorted(placed):
            if born <= last and first <= died and start < at + room:
                at = max(at, stop)
        offsets[name] = at
        placed.append((at, at + room, first, last))
        total = max(total, at + room)
    return Plan(offsets, total)
