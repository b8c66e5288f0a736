"""Functions written in LLVM's own vectors: loops, addresses and fused multiply-adds over a block of words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

WORD, VOID, INT32, BIT = ir.IntType(64), ir.VoidType(), ir.IntType(32), ir.IntType(1)
FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
SIZE = {"float32": 4, "float64": 8}


class Emitter:
    """One function ``void name(block)`` of a module; ``block`` is the address of 64-bit words."""

    def __init__(
        self, module: ir.Module, name: str, dtype: str, lanes: int, kinds: Any = (WORD,), gives: Any = VOID
    ) -> None:
        self.module, self.lanes, self.size = module, lanes, SIZE[dtype]
        self.scalar = FLOATS[dtype]
        self.vector = ir.VectorType(self.scalar, lanes)
        self.suffix = f"v{lanes}f{8 * self.size}"
        self.function = ir.Function(module, ir.FunctionType(gives, list(kinds)), name)
        entry = self.function.append_basic_block("entry")
        self.entry = ir.IRBuilder(entry)
        self.b = ir.IRBuilder(self.function.append_basic_block("body"))
        self._body = self.b.block

    def finish(self, value: Any = None) -> None:
        """End the function."""
        if value is None:
            self.b.ret_void()
        else:
            self.b.ret(value)
        self.entry.branch(self._body)

    # ---------------------------------------------------------------- numbers and addresses

    def word(self, value: int) -> ir.Constant:
        """A constant word."""
        return ir.Constant(WORD, value)

    def given(self, position: int, block: Any = None) -> Any:
        """A word of the block."""
        return self.load_word(self.function.args[0] if block is None else block, self.word(position))

    def load_word(self, base: Any, index: Any) -> Any:
        """A word of memory."""
        at = self.b.add(base, self.b.mul(index, self.word(8)))
        return self.b.load(self.b.inttoptr(at, WORD.as_pointer()))

    def at(self, base: Any, index: Any) -> Any:
        """The address of an element."""
        return self.b.add(base, self.b.mul(index, self.word(self.size)))

    def load(self, base: Any, index: Any) -> Any:
        """An element."""
        return self.b.load(self.b.inttoptr(self.at(base, index), self.scalar.as_pointer()), align=self.size)

    def store(self, value: Any, base: Any, index: Any) -> None:
        """Write an element."""
        pointer = self.b.inttoptr(self.at(base, index), self.scalar.as_pointer())
        self.b.store(value, pointer, align=self.size)

    # ---------------------------------------------------------------- vectors

    def zeros(self) -> ir.Constant:
        """A vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def load_vector(self, base: Any, index: Any, mask: Any = None) -> Any:
        """A vector of elements, unmasked or the first of them."""
        pointer = self.b.inttoptr(self.at(base, index), self.vector.as_pointer())
        if mask is None:
            return self.b.load(pointer, align=self.size)
        masks = ir.VectorType(BIT, self.lanes)
        kind = ir.FunctionType(self.vector, [self.vector.as_pointer(), INT32, masks, self.vector])
        call = self._declared(f"llvm.masked.load.{self.suffix}.p0", kind)
        return self.b.call(call, [pointer, ir.Constant(INT32, self.size), mask, self.zeros()])

    def store_vector(self, value: Any, base: Any, index: Any, mask: Any = None) -> None:
        """Write a vector."""
        pointer = self.b.inttoptr(self.at(base, index), self.vector.as_pointer())
        if mask is None:
            self.b.store(value, pointer, align=self.size)
            return
        masks = ir.VectorType(BIT, self.lanes)
        kind = ir.FunctionType(VOID, [self.vector, self.vector.as_pointer(), INT32, masks])
        call = self._declared(f"llvm.masked.store.{self.suffix}.p0", kind)
        self.b.call(call, [value, pointer, ir.Constant(INT32, self.size), mask])

    def spread(self, value: Any) -> Any:
        """A vector of one number."""
        one = self.b.insert_element(ir.Constant(self.vector, ir.Undefined), value, ir.Constant(INT32, 0))
        places = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), places)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x y + z, rounded once."""
        call = self._declared(f"llvm.fma.{self.suffix}", ir.FunctionType(self.vector, [self.vector] * 3))
        return self.b.call(call, [x, y, z])

    def totals(self, vectors: Sequence[Any]) -> list[Any]:
        """The sum of each vector's elements.

        Two vectors become one that holds half as many partial sums of each, until each sum is one element.
        """
        held = [(vector, [i]) for i, vector in enumerate(vectors)]
        size = self.lanes
        while size > 1:
            pairs = [(held[i], held[min(i + 1, len(held) - 1)]) for i in range(0, len(held), 2)]
            held = [(self._halved(p[0], q[0], size), p[1] + q[1]) for p, q in pairs]
            size //= 2
        found: dict[int, Any] = {}
        for vector, owners in held:
            for place, owner in enumerate(owners):
                if owner not in found:
                    found[owner] = self.b.extract_element(vector, ir.Constant(INT32, place))
        return [found[i] for i in range(len(vectors))]

    def _halved(self, p: Any, q: Any, size: int) -> Any:
        """Groups of ``size`` partial sums in p, then those in q, each folded to half."""
        groups = range(0, 2 * self.lanes, size)
        low = [start + i for start in groups for i in range(size // 2)]
        kind = ir.VectorType(INT32, self.lanes)
        parts = [
            self.b.shuffle_vector(p, q, ir.Constant(kind, [place + at for place in low]))
            for at in (0, size // 2)
        ]
        return self.b.fadd(*parts)

    def first(self, count: Any) -> Any:
        """The mask of so many first lanes."""
        places = ir.Constant(ir.VectorType(WORD, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(ir.VectorType(WORD, self.lanes), ir.Undefined)
        one = self.b.insert_element(undefined, count, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.b.icmp_signed("<", places, self.b.shuffle_vector(one, undefined, zeros))

    def _declared(self, name: str, kind: ir.FunctionType) -> ir.Function:
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, kind, name)

    # ---------------------------------------------------------------- control

    def pause(self) -> None:
        """Tell the processor that this is a loop that waits."""
        if self.module.triple.startswith(("x86_64", "i686")):
            self.b.call(self._declared("llvm.x86.sse2.pause", ir.FunctionType(VOID, [])), [])
        elif self.module.triple.startswith(("aarch64", "arm64")):
            call = self._declared("llvm.aarch64.hint", ir.FunctionType(VOID, [INT32]))
            self.b.call(call, [ir.Constant(INT32, 1)])

    def variable(self, value: Any) -> Any:
        """A place for a value that changes; the optimiser keeps it in a register."""
        place = self.entry.alloca(value.type)
        self.b.store(value, place)
        return place

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """``for index in range(start, stop, step)``."""
        place = self.variable(start)
        head = self.function.append_basic_block("head")
        body = self.function.append_basic_block("each")
        done = self.function.append_basic_block("done")
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.load(place)
        self.b.cbranch(self.b.icmp_signed("<", index, stop), body, done)
        self.b.position_at_end(body)
        yield index
        self.b.store(self.b.add(index, self.word(step)), place)
        self.b.branch(head)
        self.b.position_at_end(done)

    def whole(self, start: Any, stop: Any, step: int) -> Any:
        """Where the last whole step ends."""
        count = self.b.sub(stop, start)
        return self.b.add(start, self.b.mul(self.b.sdiv(count, self.word(step)), self.word(step)))

    def prefetch(self, address: Any, *, level: int, write: bool = False) -> None:
        """Ask for the cache line of an address, into the first level of the cache or the second."""
        pointer = ir.IntType(8).as_pointer()
        call = self._declared("llvm.prefetch.p0", ir.FunctionType(VOID, [pointer, *[INT32] * 3]))
        flags = [ir.Constant(INT32, flag) for flag in (int(write), 4 - level, 1)]
        self.b.call(call, [self.b.inttoptr(address, pointer), *flags])

    def tiles(self, start: Any, stop: Any, most: int, make: Callable[[Any, int], None]) -> None:
        """``make(index, size)`` for one piece of ``start .. stop`` after the other, the last one smaller."""
        end = self.whole(start, stop, most)
        with self.loop(start, end, most) as index:
            make(index, most)
        left = self.b.sub(stop, end)
        for size in range(1, most):
            with self.when(self.b.icmp_signed("==", left, self.word(size))):
                make(end, size)

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """``if condition``."""
        with self.b.if_then(condition):
            yield
