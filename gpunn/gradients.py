"""Backpropagation held against central differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ArgumentError, whole_number
from .network import Sequential

__all__ = ["GradientCheck", "gradcheck"]


@dataclass(frozen=True)
class GradientCheck:
    """The outcome: the norm-wise relative error of each parameter's gradient, and what is allowed.

    ``bounds`` is the tolerance, or where that is more what the rounding of the cost makes of a difference of
    two: below that nothing can be seen.
    """

    errors: Mapping[str, float]
    bounds: Mapping[str, float]
    tolerance: float

    @property
    def worst(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values(), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether every error is within its bound."""
        return all(error <= self.bounds[key] for key, error in self.errors.items())

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        lines = []
        for key, error in self.errors.items():
            coarse = self.bounds[key] > self.tolerance
            told = f"  (the cost's rounding hides up to {self.bounds[key]:.0e})" if coarse else ""
            lines.append(f"{key:<24} {error:.1e}{told}")
        verdict = "agree" if self.passed else "DISAGREE"
        return "\n".join(
            [*lines, f"backpropagation and central differences {verdict} (within {self.tolerance:g})"]
        )


def gradcheck(
    network: Sequential,
    X: Any,
    y: Any,
    *,
    loss: str | None = None,
    sample_weight: Any = None,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    entries: int = 100,
) -> GradientCheck:
    """Compare backpropagation with (C(θ + h) − C(θ − h)) / 2h, in float64, on the network's device.

    Parameters
    ----------
    network : Sequential
        Not changed: a float64 copy is checked.
    X, y, loss, sample_weight
        As for :meth:`gpunn.Sequential.gradients`. Keep inputs away from the kinks of ReLU: there is no
        derivative to compare with.
    step : float
        h, from 1e-8 to 1.
    tolerance : float
        For the relative error ‖g − ĝ‖ / (‖g‖ + ‖ĝ‖) over the entries compared of each parameter.
    entries : int
        How many entries of each parameter are compared, drawn with a fixed seed; all where there are fewer.

    Examples
    --------
    >>> import gpunn, numpy as np
    >>> net = gpunn.Sequential([gpunn.Dense(3, activation="tanh"), gpunn.Dense(2)], input_shape=4, seed=0)
    >>> X = np.random.default_rng(0).standard_normal((5, 4))
    >>> gpunn.gradcheck(net, X, [0, 1, 1, 0, 1], loss="cross_entropy").passed
    True
    """
    whole_number("entries", entries, 1)
    if not 1e-8 <= step <= 1:
        raise ArgumentError(
            f"step is {step!r}, expected a small number such as 1e-5: from 1e-8, below which the differences "
            f"are rounding alone, to 1"
        )
    copy = network.to(network.device, "float64")
    copy.loss = loss or network.loss
    gradients = copy.gradients(X, y, sample_weight=sample_weight)
    rng = np.random.default_rng(0)
    errors, bounds = {}, {}
    largest = 0.0
    for key, exact in gradients.items():
        value = copy.backend.download(copy.parameters.window(key))
        places = rng.permutation(value.size)[:entries]
        estimate = np.empty(len(places))
        for i, place in enumerate(places):
            cost = []
            for sign in (1, -1):
                moved = value.copy()
                moved.flat[place] += sign * step
                copy.parameters[key] = moved
                cost.append(copy.evaluate(X, y, sample_weight=sample_weight)["loss"])
            estimate[i] = (cost[0] - cost[1]) / (2 * step)
            largest = max(largest, *map(abs, cost))
        copy.parameters[key] = value
        chosen = exact.ravel()[places]
        scale = float(np.linalg.norm(chosen) + np.linalg.norm(estimate))
        # A difference of two costs cannot be nearer to the truth than their rounding.
        rounding = np.finfo(float).eps * largest / step * math.sqrt(len(places))
        errors[key] = float(np.linalg.norm(chosen - estimate)) / scale if scale else 0.0
        bounds[key] = max(tolerance, 4 * rounding / scale) if scale else tolerance
    return GradientCheck(errors, bounds, tolerance)
