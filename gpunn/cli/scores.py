"""How well a network does: the numbers that the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["confusion_lines", "counted", "percent"]


def counted(number: float, unit: str) -> str:
    """A number of things.

    >>> counted(1, "epoch"), counted(2.5, "epoch"), counted(1200, "example")
    ('1 epoch', '2.5 epochs', '1,200 examples')
    """
    told = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{told} {unit}" if number == 1 else f"{told} {unit}s"


def percent(fraction: float) -> str:
    """A fraction as people read it.

    >>> percent(0.97222)
    '97.22 %'
    """
    return f"{100 * fraction:.2f} %"


def confusion_lines(counts: NDArray[Any], names: Sequence[str]) -> list[str]:
    """A confusion matrix as lines: a row for each class, or for each output that says yes or no.

    >>> import numpy as np
    >>> print(*confusion_lines(np.array([[5, 1], [0, 7]]), ("cat", "dog")), sep="\\n")
    taken for  cat  dog
    cat          5    1
    dog          0    7
    """
    if counts.ndim == 3:
        head, titles = "output", ["no, right", "no, wrong", "yes, right", "yes, wrong"]
        rows = [[no_no, yes_no, yes_yes, no_yes] for (no_no, no_yes), (yes_no, yes_yes) in counts.tolist()]
    else:
        head, titles, rows = "taken for", list(names), counts.tolist()
    first = max(len(head), *map(len, names))
    cells = [titles, *([f"{number:,}" for number in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        f"{name:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for name, row in zip((head, *names), cells, strict=True)
    ]
