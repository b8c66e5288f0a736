"""The backend as networks see it: memory, transfers, and a runner for a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...fusion import Pattern
from ...program import Program
from ..base import Backend, Memory
from .gpu import Gpu
from .interop import OnDevice, adopt, done_reading, given_back
from .lower import LOWER, Limits, patterns_for
from .runner import CudaRunner, outside
from .streaming import Streamed

__all__ = ["CudaBackend"]


class CudaBackend(Backend):
    """Runs programs on one GPU.

    Parameters
    ----------
    gpu : Gpu or int
        The GPU, or its number.
    precision : str
        Of products in float32: ``"float32"``, or ``"tf32"`` for ten bits of mantissa on tensor cores.
    limits : Limits, optional
        How many threads an op may use.
    eager : bool
        Never capture a graph.
    resident : float
        The share of the free memory that an array of the data may take; a larger one is streamed.
    """

    name = "cuda"
    kernels: Mapping[str, Callable[..., Any]] = LOWER

    def __init__(
        self,
        gpu: Gpu | int = 0,
        precision: str = "float32",
        limits: Limits | None = None,
        eager: bool = False,
        resident: float = 0.5,
    ) -> None:
        self.gpu = Gpu(gpu) if isinstance(gpu, int) else gpu
        self.resident = resident
        self.precision, self.limits, self.eager = precision, limits, eager

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Zeros, aligned."""
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        return self.gpu.zeros(nbytes).view(kind).reshape(shape)

    def upload(self, array: NDArray[Any], dtype: str) -> Any:
        """An array on the GPU, contiguous and of that dtype; what is too large stays on the host.

        A copy, unless it is there already.
        """
        nbytes = array.size * np.dtype(dtype).itemsize
        if hasattr(array, "__cuda_array_interface__"):
            cupy = self.gpu.cupy
            return self.gpu.allocated(nbytes, lambda: cupy.ascontiguousarray(array.astype(dtype, copy=False)))
        # What data become; orders and labels are whole numbers and small beside them.
        if np.dtype(dtype).kind == "f" and array.ndim and nbytes > self.resident * self.gpu.free()[0]:
            return Streamed(array, dtype)
        return self.gpu.upload(array, dtype)

    def adopt(self, name: str, values: Any) -> tuple[Any, Any]:
        """An array of another library on this GPU, without a copy, and what shows its values on the host."""
        array = adopt(self.gpu, name, values)
        return array, OnDevice(self.gpu, array)

    def given_back(self, array: Any, like: Any) -> Any:
        """A device array as the library of ``like`` has arrays."""
        return given_back(self.gpu, array, like)

    def lend(self, array: Any) -> Any:
        """The array itself; from now on this backend's work and the user's current stream take turns."""
        self.gpu.share()
        return array

    def done_reading(self, values: Any) -> None:
        """Let the stream of the library that ``values`` came from wait until they have been read."""
        done_reading(self.gpu, values)

    def download(self, array: Any) -> NDArray[Any]:
        """A copy."""
        return self.gpu.download(array)

    def assign(self, array: Any, values: Any) -> None:
        """Copy values, from the host or from the GPU, into an array of perhaps another dtype."""
        self.gpu.assign(array, values)

    def copy(self, array: Any) -> Any:
        """A copy on the GPU."""
        return self.gpu.copy(array)

    def all_finite(self, array: Any) -> bool:
        """Whether no element is NaN or infinite."""
        return self.gpu.all_finite(array)

    def fusions(self, program: Program) -> tuple[Pattern, ...]:
        """What runs as one, where every op is gpunn's own."""
        return () if any(outside(op) for op in program.ops) else patterns_for(program)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> CudaRunner:
        """Lay out the workspace and make the launches."""
        prepared = self.prepared(program, memory, fused=fused, keep_all=keep_all)
        for op in prepared.ops:
            if not outside(op):
                self.kernel(op)
        return CudaRunner(self.gpu, prepared, memory, self.limits, self.precision, self.eager)
