"""The table of kernels, and how a function enters it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ops import Operand

__all__ = ["KERNELS", "SCRATCH", "Array", "Kernel", "kernel", "places"]

Array = NDArray[Any]
Kernel = Callable[..., None]

#: Op name to function.
KERNELS: dict[str, Kernel] = {}

#: Op name to what the function needs beside its operands.
SCRATCH: dict[str, tuple[Operand, ...]] = {}


def kernel(scratch: str = "") -> Callable[[Kernel], Kernel]:
    """Enter a function into the table of kernels under its own name."""

    def enter(function: Kernel) -> Kernel:
        name = function.__name__
        KERNELS[name] = function
        SCRATCH[name] = tuple(Operand.parse(word) for word in scratch.split())
        return function

    return enter


@lru_cache(maxsize=64)
def places(n: int) -> Array:
    """0, 1, ..., n − 1."""
    made = np.arange(n)
    made.flags.writeable = False
    return made
