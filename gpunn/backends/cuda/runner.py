"""A program as launches and products over slots that lie on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ProgramError
from ...program import Program
from ..base import Backend, Memory
from ..host import HostRunner
from .catalogue import Kernel
from .generated import Generated
from .lower import LOWER, Argument, Launch, Limits, Lowering, Product, Scratch, Step

__all__ = ["CudaBackend", "CudaRunner", "Device"]


class Device(Protocol):
    """What runs launches: a GPU, or what stands in for one."""

    def zeros(self, nbytes: int) -> Any:
        """Bytes of zeros on the device, aligned for the widest loads."""

    def upload(self, array: NDArray[Any]) -> Any:
        """A contiguous array on the device."""

    def download(self, array: Any) -> NDArray[Any]:
        """A copy of a device array on the host."""

    def launch(
        self,
        kernel: Kernel | Generated,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: Sequence[Any],
    ) -> None:
        """Launch a kernel; arguments are device arrays, numbers of NumPy's types, and None for null."""

    def product(self, left: Any, right: Any, out: Any, accumulate: bool) -> None:
        """out = left right, or out += left right; left and right may be transposed views."""


class CudaRunner(HostRunner):
    """Launches the steps of the ops one after another."""

    def __init__(self, device: Device, program: Program, memory: Memory, limits: Limits | None) -> None:
        self._device = device
        super().__init__(program, memory)
        low = Lowering(program, limits)
        self._steps = [low.steps(op) for op in program.ops]
        needs = [a.nbytes for steps in self._steps for step in steps for a in rooms(step)]
        self._scratch = device.zeros(max(needs, default=0))
        self._calls: list[list[Callable[[], None]] | None] = [None] * len(program.ops)
        self._rebind(range(len(program.ops)))

    def _zeros(self, nbytes: int) -> Any:
        return self._device.zeros(nbytes)

    def _rebind(self, positions: Iterable[int]) -> None:
        for i in positions:
            op = self.program.ops[i]
            there = all(self.program.root(s) in self._roots for s in (*op.ins, *op.outs) if s)
            self._calls[i] = [self._call(step) for step in self._steps[i]] if there else None

    def _call(self, step: Step) -> Callable[[], None]:
        if isinstance(step, Product):
            left, right, out = (self.array(slot) for slot in (step.left, step.right, step.out))
            left = left.T if step.left_transposed else left
            right = right.T if step.right_transposed else right
            return lambda: self._device.product(left, right, out, step.accumulate)
        given = [self._given(argument) for argument in step.arguments]
        return lambda: self._device.launch(step.kernel, step.grid, step.block, given)

    def _given(self, argument: Argument) -> Any:
        if isinstance(argument, str):
            return self.array(argument)
        return self._scratch[: argument.nbytes] if isinstance(argument, Scratch) else argument

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        if any(calls is None for calls in self._calls):
            raise self._unbound()
        for _ in range(steps):
            for index in range(len(self._calls)):
                self.step_op(index)

    def step_op(self, index: int) -> None:
        """Run one op."""
        calls = self._calls[index]
        if calls is None:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        for call in calls:
            call()


def rooms(step: Step) -> list[Scratch]:
    """The room that a step needs."""
    return [a for a in step.arguments if isinstance(a, Scratch)] if isinstance(step, Launch) else []


class CudaBackend(Backend):
    """Runs a program as launches on a device.

    Parameters
    ----------
    device : Device
        What launches.
    limits : Limits, optional
        How many threads an op may use.
    """

    name = "cuda"
    kernels: Mapping[str, Callable[..., Any]] = LOWER

    def __init__(self, device: Device, limits: Limits | None = None) -> None:
        self.device, self.limits = device, limits

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Zeros, aligned."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return self.device.zeros(count * kind.itemsize).view(kind).reshape(shape)

    def upload(self, array: NDArray[Any], dtype: str) -> Any:
        """A contiguous copy on the device, of that dtype."""
        return self.device.upload(np.ascontiguousarray(array, dtype=dtype))

    def download(self, array: Any) -> NDArray[Any]:
        """A copy."""
        return self.device.download(array)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> CudaRunner:
        """Lay out the workspace and make the launches."""
        prepared = self.prepared(program, memory, fused=fused, keep_all=keep_all)
        return CudaRunner(self.device, prepared, memory, self.limits)
