"""Views made once, and the loop over the calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from ...arena import ALIGNMENT
from ...errors import ProgramError
from ...ops import OPS, fill, rule
from ...program import Program
from ...slots import Op
from ...threads import limited
from ..base import Backend, Memory
from ..host import HostBackend, HostRunner, aligned
from . import backward, forward, losses, sums, updates  # noqa: F401 (they fill the table)
from .table import KERNELS, SCRATCH, Array, Kernel

__all__ = ["Calls", "NumpyBackend", "NumpyRunner"]

Call = Callable[[], None]


class Calls:
    """Some ops of a program as calls of functions over views; the ops share one scratch buffer.

    Parameters
    ----------
    backend : Backend
        Whose functions they are.
    program : Program
        Whose ops.
    positions : iterable of int
        Which of them.
    """

    def __init__(self, backend: Backend, program: Program, positions: Iterable[int]) -> None:
        self.program, self._backend = program, backend
        needs = {i: self._scratch(program.ops[i]) for i in positions}
        sizes = [sum(_room(shape, dtype) for _, shape, dtype in need) for need in needs.values()]
        scratch = aligned(max(sizes, default=0))
        self._scratches = {i: _carve(scratch, need) for i, need in needs.items()}
        self._made: set[int] = set()

    def _scratch(self, op: Op) -> list[tuple[str, tuple[int, ...], str]]:
        if op.name not in OPS or op.name not in SCRATCH or self._backend.kernel(op) is not KERNELS[op.name]:
            return []
        given = [self.program.slots[s].shape if s else None for s in (*op.ins, *op.outs)]
        sizes = rule(op.name).sizes(given, op.attrs, op.label)
        return [
            (o.name, tuple(d or 0 for d in fill(o, sizes, op.name)), o.dtype or self.program.dtype)
            for o in SCRATCH[op.name]
        ]

    def call(self, i: int, roots: Mapping[str, Array], array: Callable[[str], Array]) -> Call | None:
        """The call of op i, if all of its arrays are there."""
        op = self.program.ops[i]
        named = [s for s in (*op.ins, *op.outs) if s is not None]
        if not all(self.program.root(s) in roots for s in named):
            return None
        views = [None if s is None else array(s) for s in (*op.ins, *op.outs)]
        kernel, keywords = self._backend.kernel(op), {**op.attrs, **self._scratches[i]}
        if i not in self._made:
            _check_call(kernel, op, views, keywords)
            self._made.add(i)
        return partial(kernel, *views, **keywords)


class NumpyRunner(HostRunner):
    """A loop over calls whose arguments are views made once."""

    def __init__(self, backend: NumpyBackend, program: Program, memory: Memory) -> None:
        super().__init__(program, memory)
        self._ops = Calls(backend, program, range(len(program.ops)))
        self._calls: list[Call | None] = [None] * len(program.ops)
        self._rebind(range(len(program.ops)))

    def _rebind(self, positions: Iterable[int]) -> None:
        for i in positions:
            self._calls[i] = self._ops.call(i, self._roots, self.array)

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        calls = [call for call in self._calls if call is not None]
        if len(calls) < len(self._calls):
            raise self._unbound()
        with np.errstate(all="ignore"), limited():
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


class NumpyBackend(HostBackend):
    """Runs a program op by op with NumPy; always there."""

    name = "numpy"
    kernels = KERNELS

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> NumpyRunner:
        """Lay out the workspace and make the calls."""
        return NumpyRunner(self, self.prepared(program, memory, fused=fused, keep_all=keep_all), memory)
