"""Images to vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..program import Program
from .base import Layer

__all__ = ["Flatten"]


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """(B, d₁, d₂, ...) seen as (B, d₁d₂...): no op, no copy.

    >>> import gpunn
    >>> gpunn.Sequential([gpunn.Flatten(), gpunn.Dense(10)], input_shape=(28, 28)).output_shape
    (10,)
    """

    def emit(self, program: Program, x: str) -> str:
        """A view of x."""
        batch, *rest = program.slots[x].shape
        return program.view(x, (batch, math.prod(d or 0 for d in rest)))
