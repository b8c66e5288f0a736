"""How well a network does: the numbers that the command line prints."""

from __future__ import annotations

__all__ = ["percent"]


def percent(fraction: float) -> str:
    """A fraction as people read it.

    >>> percent(0.97222)
    '97.22 %'
    """
    return f"{100 * fraction:.2f} %"
