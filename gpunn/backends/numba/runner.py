"""A program as calls of compiled kernels, and one loop that walks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ... import threads
from ...errors import ProgramError
from ...fusion import Pattern
from ...ops import OWN, rule
from ...program import Program
from ...slots import Op, Role
from ..base import Memory
from ..host import HostRunner
from ..numpy import Calls, NumpyBackend
from . import bodies
from .backend import READABLE
from .code import Code
from .lower import BODIES, PLAIN, Lowering, Scalar, attributes, general, number_of, operands
from .matrix import PRODUCTS, patterns_for, sizes
from .walk import March, Team, can_share

__all__ = ["KERNELS", "Kernels", "NumbaRunner"]

#: Multiply-adds of a step that are worth another walker: below, meeting costs more than it gains.
WORTH = 2_000_000

#: What does the ops of gpunn's own here: a function that is compiled, or that makes calls of products.
KERNELS: dict[str, Callable[..., None]] = {
    name: getattr(bodies, BODIES.get(name, name), None) or PRODUCTS[name] for name in OWN
}


class NumbaRunner(HostRunner):
    """Walks the calls; blocks are filled when arrays are bound.

    An op that has no compiled kernel, one from outside with ``numpy=`` alone, is called in between.
    """

    def __init__(self, kernels: Kernels, program: Program, memory: Memory) -> None:
        super().__init__(program, memory)
        self._kernels = kernels
        parts = [part for op in program.ops for part in (op.parts or (op,))]
        self._work = sum(math.prod(sizes(program, part)) for part in parts)
        self._lower()

    # ------------------------------------------------------------------ making the calls

    def _wanted(self) -> int:
        """How many walkers this work is worth."""
        return max(1, min(threads.num_threads(), self._work // WORTH)) if can_share() else 1

    def _lower(self) -> None:
        """Make the calls of every op anew: for another number of walkers, or data of another dtype."""
        ops = self.program.ops
        self._team = Team(self._kernels.code, self._wanted())
        self._dtypes = self._foreign()
        low = self._lowering = Lowering(
            self.program, self._kernels.code, self._team, self._dtypes, self._offsets
        )
        self._lists: list[list[list[Any]]] = []
        slow = []
        for i, op in enumerate(ops):
            low.begin()
            if self._kernels.compiles(op, self.program, self._dtypes):
                self._kernels.lower(low, op)
                low.meet()
            else:
                slow.append(i)
            self._lists.append(low.lists)
        self._slow = Calls(self._kernels.numpy, self.program, slow)
        self._calls: dict[int, Callable[[], None] | None] = dict.fromkeys(slow)
        self._ready = [False] * len(ops)
        self._single: dict[int, March] = {}
        self._parts = self._marches()
        self._point(range(len(ops)))

    def _marches(self) -> list[March | int]:
        """What a step is: walks, and the numbers of ops that Python calls between them."""
        found: list[March | int] = []
        lists: list[list[Any]] = [[] for _ in range(self._team.walkers)]
        for i, own in enumerate(self._lists):
            if i in self._calls:
                found += [self._team.march(lists)] if lists[0] else []
                found.append(i)
                lists = [[] for _ in range(self._team.walkers)]
            else:
                for calls, more in zip(lists, own, strict=True):
                    calls += more
        return [*found, self._team.march(lists)] if lists[0] else found

    def _foreign(self) -> dict[str, str]:
        """Data that are bound with another dtype than the program says."""
        return {
            name: str(self._roots[name].dtype)
            for name, slot in self.program.slots.items()
            if slot.role is Role.DATA and name in self._roots and self._roots[name].dtype != slot.dtype
        }

    def _rebind(self, positions: Iterable[int]) -> None:
        if self._foreign() != self._dtypes:
            self._lower()
        else:
            self._point(positions)

    def _point(self, positions: Iterable[int]) -> None:
        for i in positions:
            if i in self._calls:
                self._calls[i] = self._slow.call(i, self._roots, self.array)
                self._ready[i] = self._calls[i] is not None
            else:
                pointed = [
                    call.point(self._find) for calls in self._lists[i] for call in calls
                ]  # All of them.
                self._ready[i] = all(pointed)

    def _find(self, slot: str) -> tuple[int, int] | None:
        name, offset = self.program.place(slot)
        root = self._roots.get(name)
        if root is None:
            return None
        size = root.size if name == slot else self.program.described(slot).size
        return int(root.ctypes.data) + offset * root.itemsize, size

    # ------------------------------------------------------------------ running

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        if self._wanted() != self._team.walkers:
            self._lower()
        if not all(self._ready):
            raise self._unbound()
        self._check_room(steps)
        if len(self._parts) == 1 and isinstance(self._parts[0], March):
            self._team.walk(self._parts[0], steps)
            return
        for _ in range(steps):
            for part in self._parts:
                self._do(part)

    def step_op(self, index: int) -> None:
        """Run one op."""
        if not self._ready[index]:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        if index in self._calls:
            self._do(index)
            return
        if index not in self._single:
            self._single[index] = self._team.march(self._lists[index])
        self._do(self._single[index])

    def _do(self, part: March | int) -> None:
        if isinstance(part, March):
            self._team.walk(part, 1)
            return
        call = self._calls[part]
        if call is not None:
            with np.errstate(all="ignore"):
                call()


class Kernels:
    """The kernels of this process, and which ops have one.

    Parameters
    ----------
    code
        Where machine code is kept; the user's cache folder unless given.
    """

    def __init__(self, code: Code | None = None) -> None:
        self.code = code or Code()
        self.numpy = NumpyBackend()
        self._compiles: dict[str, bool] = {}

    def fusions(self, program: Program) -> tuple[Pattern, ...]:
        """Those of :mod:`matrix`, unless an op is called through the NumPy backend, which has none."""
        compiled = all(self.compiles(op, program, {}) for op in program.ops)
        return patterns_for(program) if compiled else ()

    def lower(self, low: Lowering, op: Op) -> None:
        """Make the calls of an op."""
        if op.name in PRODUCTS:
            PRODUCTS[op.name](low, op)
        elif op.name in PLAIN:
            PLAIN[op.name](low, op)
        elif op.name in KERNELS:
            general(low, op)
        else:
            function = rule(op.name).kernels["numba"]
            given = operands(low, op, rule(op.name), shaped=True) + attributes(low, op)
            low.compiled(f"op@{number_of(function)}", function, given, keep=False)

    def compiles(self, op: Op, program: Program, data: Any) -> bool:
        """Whether there is compiled code for an op: else it is called through the NumPy backend."""
        for part in op.parts or (op,):
            if any(data.get(s, READABLE[0]) not in READABLE for s in part.ins):
                return False
            if part.name in ("activate", "activate_grad"):
                slot = program.slots[str(part.outs[0])]
                scalar = Scalar(part.attrs["sigma"], part.name == "activate_grad", slot.dtype)
                if not self._scalar_compiles(scalar):
                    return False
            elif part.name not in KERNELS and "numba" not in rule(part.name).kernels:
                if "numpy" not in rule(part.name).kernels:
                    raise ProgramError(
                        f"{part.label or part.name}: the numba backend has no kernel for op {part.name!r}: "
                        "register the op with numba=function, which is compiled, or numpy=function"
                    )
                return False
        return True

    def _scalar_compiles(self, scalar: Scalar) -> bool:
        if scalar.own:
            return True
        name = f"{scalar}-{scalar.dtype}"
        if name not in self._compiles:
            from .frontend import can_compile

            self._compiles[name] = can_compile(scalar)
        return self._compiles[name]
