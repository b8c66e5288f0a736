"""The interface of a backend: memory, transfers, and a runner for a program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ProgramError, ShapeError
from ..fusion import Pattern
from ..ops import OPS, rule
from ..program import Program
from ..slots import WORKSPACE, Op, Role

__all__ = ["Backend", "Memory", "Runner"]

#: The persistent slots (Θ, ∇Θ, state, counters) by name: programs loaded into one memory share them.
Memory = MutableMapping[str, Any]


class Runner(ABC):
    """A program made ready to run on one backend.

    Attributes
    ----------
    program : Program
        What runs: the program after the backend's fusions.
    """

    program: Program

    @abstractmethod
    def bind(self, *, checked: bool = False, **data: Any) -> None:
        """Give the data slots (``X``, ``T``, ``perm``, ...) their arrays; on the device, contiguous.

        A permutation has to stay within the examples; ``checked``: the caller has seen to that.
        """

    @abstractmethod
    def release(self) -> None:
        """Forget the arrays that were bound, so that nothing keeps them alive."""

    @abstractmethod
    def run(self, steps: int = 1) -> None:
        """Run that many steps (minibatches) without returning to Python between them."""

    @abstractmethod
    def step_op(self, index: int) -> None:
        """Run one op of the program; for debugging and for parity tests."""

    @abstractmethod
    def array(self, slot: str) -> Any:
        """The device array of a slot: a window, not a copy."""

    def read(self, slot: str) -> NDArray[Any]:
        """A copy of a slot's content on the host."""
        return np.array(self.array(slot))

    def write(self, slot: str, values: Any) -> None:
        """Copy values into a slot; what is beyond its dtype becomes infinite."""
        with np.errstate(over="ignore"):
            self.array(slot)[...] = values


class Backend(ABC):
    """One way to run programs.

    Attributes
    ----------
    name : str
        What ``device=`` calls it by.
    patterns : tuple of Pattern
        The fusions it has code for.
    kernels : mapping
        Op name to function, called with the views of inputs and outputs and the attributes (or compiled
        to be called so).
    """

    name: str
    patterns: tuple[Pattern, ...] = ()
    kernels: Mapping[str, Callable[..., None]]

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A new array of zeros on the device, aligned for the widest loads."""

    @abstractmethod
    def upload(self, array: NDArray[Any], dtype: str) -> Any:
        """The array on the device, contiguous and of that dtype; no copy where none is needed.

        A memory map may stay as it is where the backend converts each minibatch when it is read.
        """

    def adopt(self, name: str, values: Any) -> tuple[Any, Any]:
        """An array of another library on a GPU, without a copy, and what shows its values on the host.

        Raises ``DataError`` where the backend computes elsewhere.
        """
        raise DataError(
            f"{name} lies on a GPU, and the network computes on the CPU: move one of them, for instance with "
            f"net.to('cuda'), or {name}.cpu() of PyTorch and {name}.get() of CuPy"
        )

    def given_back(self, array: Any, like: Any) -> Any:
        """A device array as the library of ``like``, which was adopted, has arrays."""
        return array

    def lend(self, array: Any) -> Any:
        """A device array for the user to read and write beside this backend."""
        return array

    def done_reading(self, values: Any) -> None:  # noqa: B027
        """What was adopted may be written again as soon as the work that reads it is done."""

    @abstractmethod
    def download(self, array: Any) -> NDArray[Any]:
        """A copy of a device array on the host."""

    def assign(self, array: Any, values: Any) -> None:
        """Copy values, from the host or from the device, into a device array of perhaps another dtype."""
        with np.errstate(over="ignore"):
            array[...] = values

    def copy(self, array: Any) -> Any:
        """A copy of a device array, on the device."""
        return array.copy()

    def all_finite(self, array: Any) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.isfinite(self.download(array)).all())

    @abstractmethod
    def load(self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False) -> Runner:
        """Make a program ready to run.

        Parameters
        ----------
        program : Program
            What to run.
        memory : Memory
            Holds the persistent slots; those that are missing are made, as zeros, and added.
        fused : bool
            Whether to apply the backend's fusions.
        keep_all : bool
            Give every slot a place of its own, so that each can be read after the step.
        """

    def fusions(self, program: Program) -> tuple[Pattern, ...]:
        """The fusions that are worth it in this program."""
        return self.patterns

    def prepared(self, program: Program, memory: Memory, *, fused: bool, keep_all: bool) -> Program:
        """The program as this backend runs it, checked, with its persistent slots in ``memory``."""
        program.check()
        if keep_all:
            program = program.copy()
            program.pinned = {name for name, slot in program.slots.items() if slot.role in WORKSPACE}
        elif fused and (patterns := self.fusions(program)):
            program = program.fuse(patterns)
        used = {program.root(s) for op in program.ops for s in (*op.ins, *op.outs) if s}
        for name in sorted(used):
            slot = program.slots[name]
            if slot.role in WORKSPACE or slot.role is Role.DATA:
                continue
            shape = tuple(d or 0 for d in slot.shape)
            if name not in memory:
                memory[name] = self.zeros(shape, slot.dtype)
            elif tuple(memory[name].shape) != shape:
                raise ShapeError(
                    f"slot {name!r} is {tuple(memory[name].shape)} in this memory, the program has {shape}: "
                    f"it belongs to another network"
                )
        return program

    def kernel(self, op: Op) -> Callable[..., None]:
        """The function that runs an op here, or an error that says how to add one."""
        found = self.kernels.get(op.name)
        if found is None and op.name in OPS:
            found = rule(op.name).kernels.get(self.name)
        if found is None:
            raise ProgramError(
                f"{op.label or op.name}: the {self.name} backend has no kernel for op {op.name!r}: "
                f"register the op with {self.name}=function"
            )
        return found
