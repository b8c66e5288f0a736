"""How well a network does: the numbers that the command line prints."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["percent", "r_squared"]


def percent(fraction: float) -> str:
    """A fraction as people read it.

    >>> percent(0.97222)
    '97.22 %'
    """
    return f"{100 * fraction:.2f} %"


def r_squared(targets: Any, outputs: Any) -> float:
    """R² = 1 − Σ(y − a)² / Σ(y − ȳ)², over all examples and outputs, ȳ being each output's mean.

    1 is perfect, 0 as good as always saying the mean; NaN where the targets are all equal.

    >>> r_squared([1.0, 2.0, 3.0], [[1.0], [2.0], [4.0]])
    0.5
    """
    y = np.asarray(targets, np.float64).reshape(len(targets), -1)
    a = np.asarray(outputs, np.float64).reshape(y.shape)
    total = float(np.sum((y - y.mean(axis=0)) ** 2))
    return 1 - float(np.sum((y - a) ** 2)) / total if total else float("nan")
