"""What runners on the CPU share: aligned memory, views of slots, and the arrays that are bound."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arena import ALIGNMENT
from ..errors import ProgramError, ShapeError
from ..program import Program
from ..slots import WORKSPACE, Role
from .base import Backend, Memory, Runner

__all__ = ["HostBackend", "HostRunner", "aligned"]

Array = NDArray[Any]


def aligned(nbytes: int) -> Array:
    """Bytes of zeros that begin where the widest loads want them."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class HostRunner(Runner):
    """Slots as NumPy arrays; what runs the ops is the subclass's."""

    def __init__(self, program: Program, memory: Memory) -> None:
        self.program = program
        self._roots: dict[str, Array] = {}
        plan = program.plan()
        self._offsets = plan.offsets
        workspace = self._zeros(plan.nbytes)
        for name, slot in program.slots.items():
            if slot.base is not None:
                continue
            if slot.role in WORKSPACE and name in plan.offsets:
                at = plan.offsets[name]
                shape = tuple(d or 0 for d in slot.shape)
                self._roots[name] = workspace[at : at + slot.nbytes].view(slot.dtype).reshape(shape)
            elif name in memory:
                self._roots[name] = memory[name]

    def _zeros(self, nbytes: int) -> Array:
        """Room for the workspace."""
        return aligned(nbytes)

    @abstractmethod
    def _rebind(self, positions: Iterable[int]) -> None:
        """Make the calls of these ops anew: arrays that they use have come or gone."""

    def array(self, slot: str) -> Array:
        """The view of a slot."""
        described = self.program.described(slot)
        if slot in self.program.elided:
            raise ProgramError(
                f"slot {slot!r} is never written here, the ops around it run as one: pin it, or load the "
                f"program with fused=False"
            )
        name, offset = self.program.place(slot)
        root = self._roots[name]
        if name == slot:
            return root
        shape = tuple(d or 0 for d in described.shape)
        return root.reshape(-1)[offset : offset + described.size].reshape(shape)

    def bind(self, **data: Any) -> None:
        """Give the data slots their arrays."""
        for name, array in data.items():
            slot = self.program.slots.get(name)
            if slot is None or slot.role is not Role.DATA:
                continue
            fits = array.ndim == len(slot.shape) and all(
                want is None or want == got for want, got in zip(slot.shape, array.shape, strict=True)
            )
            same = array.dtype == slot.dtype or self._may_convert(name, array)
            if not fits or not same or not array.flags.c_contiguous:
                raise ShapeError(
                    f"data slot {name!r} takes a contiguous {slot.dtype} array of shape {slot.shape}, "
                    f"got {array.dtype} {array.shape}"
                )
            self._roots[name] = np.asarray(array)
        self._rebind(i for i, op in enumerate(self.program.ops) if any(s in data for s in op.reads))

    def _may_convert(self, name: str, array: Array) -> bool:
        """Whether a memory map may keep another dtype: where gather, which converts, is all that reads it."""
        return (
            isinstance(array, np.memmap)
            and np.can_cast(array.dtype, self.program.slots[name].dtype, "same_kind")
            and all((op.parts or (op,))[0].name == "gather" for op in self.program.ops if name in op.ins)
        )

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        data = {name for name, slot in self.program.slots.items() if slot.role is Role.DATA}
        for name in data:
            self._roots.pop(name, None)
        self._rebind(i for i, op in enumerate(self.program.ops) if data & op.reads)

    def _unbound(self) -> ProgramError:
        missing = [
            name
            for name, slot in self.program.slots.items()
            if slot.role is Role.DATA and name not in self._roots
        ]
        return ProgramError(f"bind() these data slots before run(): {', '.join(missing)}")


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
