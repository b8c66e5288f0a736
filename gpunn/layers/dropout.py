"""Zeros at random while training, so that no unit can rely on another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from ..program import Program
from .base import Layer

__all__ = ["Dropout"]


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """In training y = x ⊙ m/(1 − rate), mᵢ = 0 with probability ``rate``, else 1; elsewhere y = x.

    Input and output have one shape. The mask comes from Philox 4×32-10 (:mod:`gpunn.philox`) and depends on
    (seed, step, layer) alone, step being the number of updates before: it is the same on every backend, and
    a resumed run draws the same ones. It is off in ``predict``, ``evaluate``, ``gradients``, ``errors`` and
    ``jacobian``.

    Parameters
    ----------
    rate : float
        The probability of a zero, at least 0 and below 1.

    Raises
    ------
    gpunn.ArgumentError
        For another rate.

    Notes
    -----
    Source: Srivastava et al., Dropout, JMLR 15 (2014), section 4; scaled while training instead of
    afterwards, section 10.

    Examples
    --------
    >>> import gpunn
    >>> net = gpunn.Sequential([gpunn.Dense(8), gpunn.Dropout(0.5), gpunn.Dense(2)], input_shape=4, seed=0)
    >>> [op.name for op in net.program(loss="mse").ops][1:4]
    ['linear', 'dropout', 'linear']
    >>> [op.name for op in net.program().ops]
    ['linear', 'linear']
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        rate = _as_rate(self.rate)
        if not 0 <= rate < 1:
            raise ArgumentError(f"Dropout: rate is {self.rate!r}, expected at least 0 and below 1")
        object.__setattr__(self, "rate", rate)

    def emit(self, program: Program, x: str) -> str:
        """``dropout`` in a training program, nothing in others."""
        if not program.training or self.rate == 0:
            return x
        key, step = program.slot_of_run("key", (2,)), program.slot_of_run("step", (1,))
        layer = sum(op.name == "dropout" for op in program.ops)
        y: str = program.emit("dropout", (x, key, step), rate=self.rate, layer=layer)[0]
        return y


def _as_rate(value: Any) -> float:
    if isinstance(value, (bool, str)):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
