"""Data that are too large for the GPU: they stay on the host, and rows come in the order of the permutation.

A ring on the GPU holds two chunks. While one is used, the host gathers the next into memory that is pinned,
from where it is copied beside the work. The example at position p of the epoch lies at row p mod R of the
ring: kernels gather through p mod R instead of the permutation, and a captured step stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gpu import Gpu

__all__ = ["Ring", "Streamed"]

#: Bytes of a chunk of one slot: long enough to hide the start of a copy.
CHUNK = 32 << 20


class Streamed:
    """An array of the host where a device array is expected: ``X``, targets or weights of a data set."""

    def __init__(self, array: NDArray[Any], dtype: str) -> None:
        self.array, self.dtype = array, np.dtype(dtype)
        self.shape, self.ndim, self.size = array.shape, array.ndim, array.size
        self.flags = array.flags

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            return np.asarray(self.array[rows], self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def rows_of(self, nbytes: int) -> int:
        """How many examples are so many bytes, at least one."""
        return max(1, nbytes // max(1, math.prod(self.shape[1:]) * self.dtype.itemsize))


class Ring:
    """Two chunks of a streamed array on the GPU."""

    def __init__(self, gpu: Gpu, source: Streamed, rows: int) -> None:
        self._gpu, self.rows = gpu, rows
        self.source: Streamed | None = source
        row = math.prod(source.shape[1:]) * source.dtype.itemsize
        self.array = gpu.zeros(2 * rows * row).view(source.dtype).reshape(2 * rows, *source.shape[1:])
        self._pinned = [
            gpu.pinned(rows * row).view(source.dtype).reshape(rows, *source.shape[1:]) for _ in range(2)
        ]

    def fits(self, source: Streamed, rows: int) -> bool:
        """Whether another array can come through this ring."""
        return (
            self.rows == rows
            and self.array.shape[1:] == source.shape[1:]
            and self.array.dtype == source.dtype
        )

    def places(self, count: int) -> Any:
        """Where each position of an epoch lies in the ring."""
        return self._gpu.upload(np.arange(count) % (2 * self.rows))

    def bring(self, half: int, first: int, examples: NDArray[np.int64], stream: Any) -> None:
        """Queue the copy of these examples to where the positions from ``first`` on lie."""
        assert self.source is not None
        pinned = self._pinned[half][: len(examples)]
        with np.errstate(over="ignore"):
            pinned[...] = self.source.array[examples]
        at, room = first % (2 * self.rows), 2 * self.rows
        before = min(len(examples), room - at)
        with self._gpu.device:
            self.array[at : at + before].set(pinned[:before], stream=stream)
            if before < len(examples):
                self.array[: len(examples) - before].set(pinned[before:], stream=stream)
