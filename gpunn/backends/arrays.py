"""What every runner shares: slots as arrays of its device, windows of them, and data that are bound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from ..errors import ProgramError, ShapeError
from ..ops import HYPER
from ..program import Program
from ..slots import WORKSPACE, Role
from .base import Memory, Runner

__all__ = ["ArrayRunner"]


class ArrayRunner(Runner):
    """Slots as arrays with NumPy's interface; what runs the ops is the subclass's."""

    def __init__(self, program: Program, memory: Memory) -> None:
        self.program = program
        self._roots: dict[str, Any] = {}
        parts = [part for op in program.ops for part in (op.parts or (op,))]
        self._gathers = [part for part in parts if part.name == "gather"]
        self._reads = {
            (op.ins[1], op.ins[2], program.slots[str(op.outs[0])].shape[0]) for op in self._gathers
        }
        self._schedules = [part for part in parts if part.name == "schedule"]
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

    @abstractmethod
    def _zeros(self, nbytes: int) -> Any:
        """Bytes of zeros on the device, aligned."""

    @abstractmethod
    def _rebind(self, positions: Iterable[int]) -> None:
        """Make the calls of these ops anew: arrays that they use have come or gone."""

    def array(self, slot: str) -> Any:
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

    def bind(self, *, checked: bool = False, **data: Any) -> None:
        """Give the data slots their arrays; a permutation has to stay within the examples."""
        changed = set()
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
            kept = self._kept(name, array)
            if self._roots.get(name) is not kept:
                self._roots[name] = kept
                changed.add(name)
        if changed:
            self._rebind(i for i, op in enumerate(self.program.ops) if changed & op.reads)
        if not checked:
            self._check_places(data)

    def _may_convert(self, name: str, array: Any) -> bool:
        """Whether an array may be bound although it has another dtype."""
        return False

    def _kept(self, name: str, array: Any) -> Any:
        """What a data slot is from now on."""
        return array

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        data = {name for name, slot in self.program.slots.items() if slot.role is Role.DATA}
        for name in data:
            self._roots.pop(name, None)
        self._rebind(i for i, op in enumerate(self.program.ops) if data & op.reads)

    def _look(self, slot: str | None) -> NDArray[Any]:
        """A slot's content on the host, to be read at once."""
        return self.read(str(slot))

    def _span(self, slot: str) -> tuple[int, int]:
        """The least and the largest number of a slot, found where it lies."""
        array = self.array(slot)
        return int(array.min()), int(array.max())

    def _check_places(self, data: Mapping[str, Any]) -> None:
        """A permutation that is bound has to stay within the examples."""
        for X, name in {(str(op.ins[0]), str(op.ins[1])) for op in self._gathers}:
            if name in data and X in self._roots and data[name].size:
                (low, high), count = self._span(name), len(data.get(X, self._roots[X]))
                if low < 0 or high >= count:
                    raise ShapeError(
                        f"data slot {name!r} holds numbers from {low} to {high}, expected places of the "
                        f"{count} examples of {X!r}"
                    )

    def _check_room(self, steps: int) -> None:
        """Kernels do not look where the data end: so many steps have to fit in what is bound."""
        for perm, cursor, rows in self._reads:
            first, count = int(self._look(cursor)[0]), self.array(str(perm)).size
            if not 0 <= first <= count - steps * (rows or 0):
                raise ProgramError(
                    f"{steps} steps of {rows} examples from the {first}th on go beyond the {count} "
                    "examples that are bound"
                )
        for op in self._schedules:
            count, hyper = self.array(str(op.ins[0])).size, self._look(op.outs[0])
            first = int(self._look(op.ins[1])[0] - hyper[HYPER["first_step"]])
            if not 0 <= first <= count - steps:
                raise ProgramError(
                    f"{steps} steps from the {first}th of this epoch on go beyond its {count} learning "
                    "rates: steps, rewind() and another batch_size are not for callbacks"
                )

    def _unbound(self) -> ProgramError:
        missing = [
            name
            for name, slot in self.program.slots.items()
            if slot.role is Role.DATA and name not in self._roots
        ]
        return ProgramError(f"bind() these data slots before run(): {', '.join(missing)}")
