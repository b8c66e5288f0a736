"""Memory, views made once, and the loop over the calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from ...arena import ALIGNMENT
from ...errors import ProgramError, ShapeError
from ...ops import OPS, fill, rule
from ...program import Program
from ...slots import WORKSPACE, Op, Role
from ..base import Backend, Memory, Runner
from . import backward, forward, losses, sums, updates  # noqa: F401 (they fill the table)
from .table import KERNELS, SCRATCH, Array, Kernel

__all__ = ["NumpyBackend", "NumpyRunner"]


def _aligned(nbytes: int) -> Array:
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class NumpyRunner(Runner):
    """A loop over calls whose arguments are views made once."""

    def __init__(self, backend: NumpyBackend, program: Program, memory: Memory) -> None:
        self.program = program
        self._backend = backend
        self._roots: dict[str, Array] = {}
        plan = program.plan()
        workspace = _aligned(plan.nbytes)
        for name, slot in program.slots.items():
            if slot.base is not None:
                continue
            if slot.role in WORKSPACE and name in plan.offsets:
                at = plan.offsets[name]
                shape = tuple(d or 0 for d in slot.shape)
                self._roots[name] = workspace[at : at + slot.nbytes].view(slot.dtype).reshape(shape)
            elif name in memory:
                self._roots[name] = memory[name]
        needs = [self._scratch(op) for op in program.ops]
        sizes = [sum(_room(shape, dtype) for _, shape, dtype in need) for need in needs]
        scratch = _aligned(max(sizes, default=0))
        self._scratches = [_carve(scratch, need) for need in needs]
        self._calls: list[Callable[[], None] | None] = [None] * len(program.ops)
        self._compile(range(len(program.ops)))

    def _scratch(self, op: Op) -> list[tuple[str, tuple[int, ...], str]]:
        if op.name not in OPS or op.name not in SCRATCH or self._backend.kernel(op) is not KERNELS[op.name]:
            return []
        given = [self.program.slots[s].shape if s else None for s in (*op.ins, *op.outs)]
        sizes = rule(op.name).sizes(given, op.attrs, op.label)
        return [
            (o.name, tuple(d or 0 for d in fill(o, sizes, op.name)), o.dtype or self.program.dtype)
            for o in SCRATCH[op.name]
        ]

    def _compile(self, positions: Any) -> None:
        for i in positions:
            op = self.program.ops[i]
            named = [s for s in (*op.ins, *op.outs) if s is not None]
            if all(self.program.root(s) in self._roots for s in named):
                views = [None if s is None else self.array(s) for s in (*op.ins, *op.outs)]
                kernel, keywords = self._backend.kernel(op), {**op.attrs, **self._scratches[i]}
                if self._calls[i] is None:
                    _check_call(kernel, op, views, keywords)
                self._calls[i] = partial(kernel, *views, **keywords)

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
        touched = [
            i for i, op in enumerate(self.program.ops) if any(s in data for s in (*op.ins, *op.outs) if s)
        ]
        self._compile(touched)

    def _may_convert(self, name: str, array: Array) -> bool:
        """Whether a memory map may keep another dtype: where gather, which converts, is all that reads it."""
        return (
            isinstance(array, np.memmap)
            and np.can_cast(array.dtype, self.program.slots[name].dtype, "same_kind")
            and all(op.name == "gather" for op in self.program.ops if name in op.ins)
        )

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        for i, op in enumerate(self.program.ops):
            if any(s and self.program.slots[s].role is Role.DATA for s in op.ins):
                self._calls[i] = None
        for name, slot in self.program.slots.items():
            if slot.role is Role.DATA:
                self._roots.pop(name, None)

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        calls = [call for call in self._calls if call is not None]
        if len(calls) < len(self._calls):
            missing = [
                s for s, slot in self.program.slots.items() if slot.role is Role.DATA and s not in self._roots
            ]
            raise ProgramError(f"bind() these data slots before run(): {', '.join(missing)}")
        with np.errstate(all="ignore"):
            for _ in range(steps):
                for call in calls:
                    call()

    def step_op(self, index: int) -> None:
        """Run one op."""
        call = self._calls[index]
        if call is None:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        with np.errstate(all="ignore"):
            call()


def _check_call(kernel: Kernel, op: Op, views: list[Any], named: dict[str, Any]) -> None:
    """An op's operands and attributes have to be what its kernel takes."""
    try:
        signature(kernel).bind(*views, **named)
    except TypeError as error:
        raise ProgramError(
            f"{op.label or op.name}: the kernel of {op.name!r} cannot take its operands and "
            f"attributes: {error}"
        ) from error


def _room(shape: tuple[int, ...], dtype: str) -> int:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _carve(buffer: Array, needs: list[tuple[str, tuple[int, ...], str]]) -> dict[str, Array]:
    views, at = {}, 0
    for name, shape, dtype in needs:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        views[name] = buffer[at : at + nbytes].view(dtype).reshape(shape)
        at += _room(shape, dtype)
    return views


class NumpyBackend(Backend):
    """Runs a program op by op with NumPy; always there."""

    name = "numpy"
    kernels = KERNELS

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros, aligned."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return _aligned(nbytes).view(dtype).reshape(shape)

    def upload(self, array: Array, dtype: str) -> Array:
        """The array itself where it is contiguous and of that dtype, or a contiguous memory map of any."""
        if isinstance(array, np.memmap) and array.flags.c_contiguous:
            return array  # It may be larger than memory: gather converts each minibatch.
        return np.ascontiguousarray(array, dtype=dtype)

    def download(self, array: Array) -> Array:
        """A copy."""
        return np.array(array)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> NumpyRunner:
        """Lay out the workspace and make the calls."""
        return NumpyRunner(self, self.prepared(program, memory, fused=fused, keep_all=keep_all), memory)
