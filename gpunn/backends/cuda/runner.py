"""A program as launches and products over slots that lie on a GPU, captured once as a graph and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceMemoryError, ProgramError, warn
from ...ops import OWN, rule
from ...program import Program
from ...slots import Op
from ..arrays import ArrayRunner
from ..base import Memory
from .cublaslt import Plan
from .gpu import Gpu, address
from .lower import Argument, Launch, Limits, Lowering, Product, Rates, Scratch, Step
from .streaming import CHUNK, Ring, Streamed

__all__ = ["CudaRunner"]

Call = Callable[[], None]

#: Steps in the larger graph: a launch of a graph has a price of its own, however small the steps are.
MANY = 32


class CudaRunner(ArrayRunner):
    """The steps of the ops on the GPU's stream.

    The first step is launched call by call, which warms every kernel up. Then the calls are captured as a
    graph, and every later step replays it; where many steps follow, a graph of :data:`MANY`. The host reads
    the cursor when a run begins, and nothing after it.
    """

    def __init__(
        self,
        gpu: Gpu,
        program: Program,
        memory: Memory,
        limits: Limits | None = None,
        precision: str = "float32",
        eager: bool = False,
    ) -> None:
        self._gpu = gpu
        super().__init__(program, memory)
        self._plans: dict[Product, Plan] = {}
        low = Lowering(program, limits, gpu.offers, precision)
        self._steps = [[] if outside(op) else low.steps(op) for op in program.ops]
        self._make_room()
        #: Data that change from epoch to epoch: kept in one place, so that the graph stays as it is.
        self._steady = {str(op.ins[1]) for op in self._gathers} | {str(op.ins[0]) for op in self._schedules}
        self._own: dict[str, Any] = {}
        self._rings: dict[str, Ring] = {}
        #: What kernels read in the place of a slot: where a ring holds the examples, for the permutation.
        self._instead: dict[str, Any] = {}
        self._calls: list[list[Call] | None] = [None] * len(program.ops)
        self._where: list[tuple[int, ...] | None] = [None] * len(program.ops)
        #: By how many steps a graph holds.
        self._graphs: dict[int, Any] = {}
        self._warm, self._eager = False, eager
        self._rebind(range(len(program.ops)))

    def _make_room(self) -> None:
        """What ops need beside their slots: scratch, the numbers 1 and 0, α and β."""
        rooms = [a.nbytes for steps in self._steps for step in steps for a in arguments(step, Scratch)]
        self._scratch = self._zeros(max(rooms, default=0))
        dtypes = {step.matmul.dtype for steps in self._steps for step in steps if isinstance(step, Product)}
        self._ones = {dtype: self._gpu.upload(np.array([1, 0], dtype)) for dtype in dtypes}
        self._rates = {dtype: self._gpu.upload(np.zeros(2, dtype)) for dtype in dtypes}

    def _zeros(self, nbytes: int) -> Any:
        try:
            return self._gpu.zeros(nbytes)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(
                f"{self.program.title or 'this program'}: {error}: {self._hint(nbytes)}"
            ) from error

    def _hint(self, nbytes: int) -> str:
        """What to do where a workspace of so many bytes does not fit."""
        free, _ = self._gpu.free()
        rows = max((s.shape[0] or 0 for s in self.program.slots.values() if s.name == "x"), default=0)
        fits = int(rows * free / nbytes * 0.9) if rows else 0
        return f"batches of {fits} would fit" if 0 < fits < rows else "close what else uses the GPU"

    # ------------------------------------------------------------------ making the calls

    def _rebind(self, positions: Iterable[int]) -> None:
        for i in positions:
            op = self.program.ops[i]
            named = [s for s in (*op.ins, *op.outs) if s and s not in self.program.elided]
            if not all(self.program.root(s) in self._roots for s in named):
                self._calls[i] = None
                continue
            where = tuple(address(self.array(s)) for s in named)
            if self._where[i] == where and self._calls[i] is None:
                self._calls[i] = self._made(i)
            elif self._where[i] != where:
                self._where[i], self._calls[i], self._graphs = where, self._made(i), {}

    def _made(self, i: int) -> list[Call]:
        op = self.program.ops[i]
        if outside(op):
            function = rule(op.name).kernels["cuda"]
            views = [None if s is None else self.array(s) for s in (*op.ins, *op.outs)]
            return [lambda: function(*views, **op.attrs)]
        return [self._call(step) for step in self._steps[i]]

    def _call(self, step: Step) -> Call:
        if isinstance(step, Launch):
            given = [self._given(argument) for argument in step.arguments]
            return self._gpu.launch(step.kernel, step.grid, step.block, given)
        dtype = step.matmul.dtype
        one, zero = self._ones[dtype][:1], self._ones[dtype][1:]
        alpha, beta = one, one if step.accumulate else zero
        if step.rates is not None:
            alpha, beta = self._rates[dtype][:1], self._rates[dtype][1:]
        bias = None if step.bias is None else self.array(step.bias)
        if step not in self._plans:
            plan = self._gpu.plan(step.matmul, bias)
            if plan is None:
                raise ProgramError(f"cuBLASLt has no algorithm for {step.matmul}")
            self._plans[step] = plan
        left, right, out = (self.array(slot) for slot in (step.left, step.right, step.out))
        return self._gpu.multiply(self._plans[step], left, right, out, alpha, beta)

    def _given(self, argument: Argument) -> Any:
        if isinstance(argument, str):
            return self._instead[argument] if argument in self._instead else self.array(argument)
        if isinstance(argument, Rates):
            return self._rates[argument.dtype]
        return self._scratch[: argument.nbytes] if isinstance(argument, Scratch) else argument

    def bind(self, *, checked: bool = False, **data: Any) -> None:
        """Give the data slots their arrays; a permutation has to stay within the examples."""
        self._stream(data)
        super().bind(checked=checked, **data)

    def _stream(self, data: dict[str, Any]) -> None:
        """Rings for data that stay on the host; then all that is gathered comes through rings."""
        gathered = {str(op.ins[0]) for op in self._gathers}
        if not any(isinstance(data.get(name), Streamed) for name in gathered):
            if gathered & data.keys() and self._rings:
                self._rings, self._instead = {}, {}
            return
        sources = {
            name: array
            if isinstance(array, Streamed)
            else Streamed(self._gpu.download(array), str(array.dtype))
            for name, array in data.items()
            if name in gathered
        }
        batch = max(self.program.slots[str(op.outs[0])].shape[0] or 1 for op in self._gathers)
        rows = max(batch, min(source.rows_of(CHUNK) for source in sources.values()) // batch * batch)
        count = max(len(source) for source in sources.values())
        if self._rings.keys() == sources.keys() and all(
            self._rings[name].fits(source, rows) for name, source in sources.items()
        ):
            for name, source in sources.items():
                self._rings[name].source = source
            if all(len(places) == count for places in self._instead.values()):
                return
        else:
            self._rings = {name: Ring(self._gpu, source, rows) for name, source in sources.items()}
        places = next(iter(self._rings.values())).places(count)
        self._instead = {str(op.ins[1]): places for op in self._gathers}
        self._where, self._graphs = [None] * len(self._where), {}

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        super().release()
        for ring in self._rings.values():
            ring.source = None

    def _kept(self, name: str, array: Any) -> Any:
        if name in self._rings:
            return self._rings[name].array
        if not hasattr(array, "__cuda_array_interface__"):
            array = self._gpu.upload(array)
        if name not in self._steady:
            return array
        own = self._own.get(name)
        if own is None or own.shape != array.shape:
            own = self._own[name] = self._gpu.copy(array)
        else:
            self._gpu.assign(own, array)
        return own

    # ------------------------------------------------------------------ running

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        if any(calls is None for calls in self._calls):
            raise self._unbound()
        self._check_room(steps)
        if self._rings:
            with self._gpu.device:
                self._run_streamed(steps)
        else:
            self._run(steps)

    def _run_streamed(self, steps: int) -> None:
        """Run while the next examples are on their way; the order is read once, when all before is done."""
        gather = self._gathers[0]
        batch = self.program.slots[str(gather.outs[0])].shape[0] or 1
        position = begun = int(self.read(str(gather.ins[2]))[0])
        order = self._gpu.download(self.array(str(gather.ins[1]))[begun : begun + steps * batch])
        rows = next(iter(self._rings.values())).rows
        gpu, at_once = self._gpu, rows // batch
        copied: list[Any] = []
        used: list[Any] = []
        for number, start in enumerate(range(0, steps, at_once)):
            count = min(at_once, steps - start)
            if number >= 2:  # That half, of pinned memory and of the ring, is free again.
                copied[number - 2].synchronize()
                gpu.copies.wait_event(used[number - 2])
            examples = order[position - begun : position - begun + count * batch]
            for ring in self._rings.values():
                ring.bring(number % 2, position, examples, gpu.copies)
            copied.append(gpu.copies.record())
            gpu.stream.wait_event(copied[-1])
            self._run(count)
            used.append(gpu.stream.record())
            position += count * batch
        for event in copied[-2:]:
            event.synchronize()

    def _run(self, steps: int) -> None:
        calls = [call for calls in self._calls if calls for call in calls]
        if not self._warm and steps:
            self._gpu.run(calls)
            self._warm, steps = True, steps - 1
        for together in (MANY, 1):
            times, left = divmod(steps, together)
            if times and not self._eager and together not in self._graphs:
                self._capture(together)
            if times and together in self._graphs:
                self._gpu.replay(self._graphs[together], times)
                steps = left
        for _ in range(steps):
            self._gpu.run(calls)

    def _capture(self, steps: int) -> None:
        """Make a graph; where an op cannot be captured, stay without one and say so once."""
        under_way: list[Op] = []

        def each() -> Iterable[Call]:
            for op, calls in zip(self.program.ops, self._calls, strict=True):
                under_way[:] = [op]
                yield from calls or ()
            under_way.clear()

        try:
            self._graphs[steps] = self._gpu.capture(call for _ in range(steps) for call in each())
        except Exception as error:
            self._eager = True
            what = self.program.title or "this program"
            if under_way:
                what = f"{under_way[0].label or under_way[0].name}: op {under_way[0].name!r}"
            warn(f"{what} cannot be part of a CUDA graph ({error}): every step is launched op by op")

    def _span(self, slot: str) -> tuple[int, int]:
        with self._gpu.here():
            return super()._span(slot)

    def step_op(self, index: int) -> None:
        """Run one op."""
        calls = self._calls[index]
        if calls is None:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        self._gpu.run(calls)

    def read(self, slot: str) -> NDArray[Any]:
        """A copy of a slot's content on the host."""
        return self._gpu.download(self.array(slot))

    def write(self, slot: str, values: Any) -> None:
        """Copy values into a slot; what is beyond its dtype becomes infinite."""
        self._gpu.assign(self.array(slot), values)


def outside(op: Op) -> bool:
    """Whether an op was registered with a function for the GPU, which is called with arrays of CuPy."""
    return op.name not in OWN and not op.parts and "cuda" in rule(op.name).kernels


def arguments(step: Step, kind: type[Any]) -> list[Any]:
    """The arguments of that kind."""
    return [a for a in step.arguments if isinstance(a, kind)] if isinstance(step, Launch) else []
