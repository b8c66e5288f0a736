"""What runners on the CPU share: aligned memory, and memory maps as data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arena import ALIGNMENT
from .arrays import ArrayRunner
from .base import Backend

__all__ = ["HostBackend", "HostRunner", "aligned"]

Array = NDArray[Any]


def aligned(nbytes: int) -> Array:
    """Bytes of zeros that begin where the widest loads want them."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class HostRunner(ArrayRunner):
    """Slots as NumPy arrays."""

    def _zeros(self, nbytes: int) -> Array:
        return aligned(nbytes)

    def _may_convert(self, name: str, array: Array) -> bool:
        """A memory map may keep another dtype where gather, which converts, is all that reads it."""
        return (
            isinstance(array, np.memmap)
            and np.can_cast(array.dtype, self.program.slots[name].dtype, "same_kind")
            and all((op.parts or (op,))[0].name == "gather" for op in self.program.ops if name in op.ins)
        )

    def bind(self, *, checked: bool = False, **data: Array) -> None:
        """Give the data slots their arrays; a permutation has to stay within the examples."""
        if checked and all(
            self._roots.get(name) is data[name] for name in data if name in self.program.slots
        ):
            return  # It has them.
        super().bind(checked=checked, **data)

    def _look(self, slot: str | None) -> Array:
        return np.asarray(self.array(str(slot)))

    def _kept(self, name: str, array: Array) -> Array:
        return np.asarray(array)


class HostBackend(Backend):
    """Memory and transfers on the CPU."""

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros, aligned."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return aligned(nbytes).view(dtype).reshape(shape)

    def upload(self, array: Array, dtype: str) -> Array:
        """The array itself where it is contiguous and of that dtype, or a contiguous memory map of any."""
        if isinstance(array, np.memmap) and array.flags.c_contiguous:
            return array  # It may be larger than memory: gather converts each minibatch.
        return np.ascontiguousarray(array, dtype=dtype)

    def download(self, array: Array) -> Array:
        """A copy."""
        return np.array(array)

    def all_finite(self, array: Array) -> bool:
        """Whether no element is NaN or infinite; where the sum of squares is finite, all are."""
        flat = array.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(flat @ flat)) or bool(np.isfinite(flat).all())
