"""The backend as networks see it: memory and transfers, and kernels when the first program is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...fusion import Pattern
from ...program import Program
from ..base import Memory
from ..host import HostBackend

if TYPE_CHECKING:
    from .code import Code
    from .runner import Kernels, NumbaRunner

__all__ = ["READABLE", "NumbaBackend"]

#: Dtypes that a kernel can read.
READABLE = ("float32", "float64", "bool", *(f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)))


class NumbaBackend(HostBackend):
    """Runs a program as machine code that Numba and LLVM have made of its kernels.

    Parameters
    ----------
    code
        Where machine code is kept; the user's cache folder unless given.
    """

    name = "numba"

    def __init__(self, code: Code | None = None) -> None:
        self._code = code

    @cached_property
    def made(self) -> Kernels:
        """The kernels; LLVM is imported with them."""
        from .runner import Kernels

        return Kernels(self._code)

    @property
    def kernels(self) -> Mapping[str, Callable[..., None]]:  # type: ignore[override]
        """Op name to what is compiled for it, or to what makes its calls of products."""
        from .runner import KERNELS

        return KERNELS

    def upload(self, array: NDArray[Any], dtype: str) -> Any:
        """The array itself where kernels can read it: contiguous and of that dtype, or a memory map."""
        readable = array.dtype.isnative and str(array.dtype) in READABLE
        return super().upload(array if readable else np.asarray(array, dtype), dtype)

    def fusions(self, program: Program) -> tuple[Pattern, ...]:
        """What is folded into products, where every op is compiled."""
        return self.made.fusions(program)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> NumbaRunner:
        """Make the calls and lay out the workspace."""
        from .runner import NumbaRunner

        prepared = self.prepared(program, memory, fused=fused, keep_all=keep_all)
        return NumbaRunner(self.made, prepared, memory)
