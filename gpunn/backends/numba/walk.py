"""The walk: a program as an array of (address of a kernel, address of its block of words).

A team of walkers goes through lists of equal shape, each with blocks of its own (a range of rows, of outputs
or of Θ), and meets at barriers. The other walkers are threads of the operating system that live as long as
one call, so that nothing of them is left to Python: no pool, nothing to stop, nothing to lose in a fork.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from ...errors import DeviceError
from .code import Code
from .emit import WORD, Emitter

__all__ = ["At", "Call", "March", "Rows", "Size", "Team", "Word", "can_share"]


@dataclass(frozen=True)
class At:
    """A word of a block: the address of a slot's first element, and so many bytes after it."""

    slot: str
    offset: int = 0


@dataclass(frozen=True)
class Size:
    """A word of a block: how many elements a slot has, which for data is known when they are bound."""

    slot: str


@dataclass(frozen=True)
class Rows:
    """A word of a block: where a table is with the addresses of a slot's rows, of so many bytes each."""

    slot: str
    count: int
    stride: int


Word = int | float | At | Size | Rows


@dataclass
class Call:
    """One call of the walk: a kernel's address, and the words of its block."""

    address: int
    words: list[Word]
    block: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.block = np.zeros(max(1, len(self.words)), np.int64)
        self._tables: dict[int, NDArray[np.int64]] = {}
        for position, word in enumerate(self.words):
            if isinstance(word, float):
                self.block[position : position + 1].view(np.float64)[0] = word
            elif isinstance(word, int):
                self.block[position] = word
            elif isinstance(word, Rows):
                self._tables[position] = np.arange(word.count, dtype=np.int64) * word.stride

    def point(self, find: Callable[[str], tuple[int, int] | None]) -> bool:
        """Put in the addresses and sizes of the slots; False where one is not there."""
        known = True
        for position, word in enumerate(self.words):
            if isinstance(word, (int, float)):
                continue
            found = find(word.slot)
            known = known and found is not None
            address, size = found or (0, 0)
            if isinstance(word, Rows):
                table = self._tables[position]
                table += address - table[0]
                self.block[position] = table.ctypes.data
            else:
                self.block[position] = address + word.offset if isinstance(word, At) else size
        return known


#: What a barrier's block holds: where its two counters are, how many meet, and how to give up the processor.
BARRIER = ("counters", "walkers", "rest")

#: Looks at the counter before a waiting walker gives up the processor.
LOOKS = 2000

#: A walker's row: where its addresses and blocks are, how many, how often, where its start is told, ``rest``.
ROW = ("addresses", "blocks", "count", "steps", "told", "rest")


def can_share() -> bool:
    """Whether a team can have more than one walker here."""
    return sys.platform != "win32"


@cache
def _system(name: str) -> int:
    """The address of a function of the C library."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _barrier() -> Any:
    """A kernel that returns when all walkers are in it; it counts who is here, and how often all were."""
    module = ir.Module("barrier")
    module.triple = llvm.get_process_triple()
    e = Emitter(module, "barrier", "float64", 1)
    counters, walkers, rest = (e.given(i) for i in range(len(BARRIER)))
    present = e.b.inttoptr(counters, WORD.as_pointer())
    rounds = e.b.inttoptr(e.b.add(counters, e.word(64)), WORD.as_pointer())
    now = e.b.load_atomic(rounds, "acquire", 8)
    before = e.b.atomic_rmw("add", present, e.word(1), "acq_rel")
    last = e.b.icmp_signed("==", e.b.add(before, e.word(1)), walkers)
    with e.b.if_else(last) as (opens, waits):
        with opens:
            e.b.store_atomic(e.word(0), present, "monotonic", 8)
            e.b.store_atomic(e.b.add(now, e.word(1)), rounds, "release", 8)
        with waits:
            _wait(e, lambda: e.b.icmp_signed("==", e.b.load_atomic(rounds, "acquire", 8), now), rest)
    e.finish()
    return llvm.parse_assembly(str(module))


def _wait(e: Emitter, still: Callable[[], Any], rest: Any) -> None:
    """While ``still``: look again, and give up the processor when that has lasted."""
    look, idle, done = (e.function.append_basic_block(name) for name in ("look", "idle", "done"))
    looks = e.variable(e.word(0))
    e.b.branch(look)
    e.b.position_at_end(look)
    e.b.cbranch(still(), idle, done)
    e.b.position_at_end(idle)
    e.pause()
    e.b.store(e.b.add(e.b.load(looks), e.word(1)), looks)
    with e.when(e.b.icmp_signed(">", e.b.load(looks), e.word(LOOKS))):
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        e.b.call(e.b.inttoptr(rest, kind), [])
    e.b.branch(look)
    e.b.position_at_end(done)


def _team() -> Any:
    """``team(rows, walkers, create, join, threads)``: all walk their lists; returns how many did."""
    module = ir.Module("team")
    module.triple = llvm.get_process_triple()
    e = Emitter(module, "walk", "float64", 1)
    addresses, blocks, count, steps = (e.given(i) for i in range(4))
    kind = ir.FunctionType(ir.VoidType(), [WORD]).as_pointer()
    with e.loop(e.word(0), steps), e.loop(e.word(0), count) as i:
        e.b.call(e.b.inttoptr(e.load_word(addresses, i), kind), [e.load_word(blocks, i)])
    e.finish()
    walk = e.function
    walk.linkage = "internal"

    # A walker of its own thread waits to be told: 1, walk; 2, others could not come, go home.
    e = Emitter(module, "join_in", "float64", 1, [WORD], WORD)
    row = e.function.args[0]
    told, rest = e.b.inttoptr(e.given(4), WORD.as_pointer()), e.given(5)
    _wait(e, lambda: e.b.icmp_signed("==", e.b.load_atomic(told, "acquire", 8), e.word(0)), rest)
    with e.when(e.b.icmp_signed("==", e.b.load_atomic(told, "acquire", 8), e.word(1))):
        e.b.call(walk, [row])
    e.finish(e.word(0))
    join_in = e.function
    join_in.linkage = "internal"

    e = Emitter(module, "team", "float64", 1, [WORD] * 5, WORD)
    rows, walkers, create, join, threads = e.function.args
    told = e.b.inttoptr(e.given(4, rows), WORD.as_pointer())
    e.b.store_atomic(e.word(0), told, "release", 8)
    int32 = ir.IntType(32)
    creates = e.b.inttoptr(create, ir.FunctionType(int32, [WORD] * 4).as_pointer())
    joins = e.b.inttoptr(join, ir.FunctionType(int32, [WORD] * 2).as_pointer())
    made = e.variable(e.word(1))
    with e.loop(e.word(1), walkers) as t:
        own = e.b.add(rows, e.b.mul(t, e.word(8 * len(ROW))))
        handle = e.b.add(threads, e.b.mul(t, e.word(8)))
        with e.when(e.b.icmp_signed("==", e.b.load(made), t)):
            failed = e.b.call(creates, [handle, e.word(0), e.b.ptrtoint(join_in, WORD), own])
            good = e.b.icmp_signed("==", failed, ir.Constant(int32, 0))
            e.b.store(e.b.add(e.b.load(made), e.b.zext(good, WORD)), made)
    whole = e.b.icmp_signed("==", e.b.load(made), walkers)
    e.b.store_atomic(e.b.select(whole, e.word(1), e.word(2)), told, "release", 8)
    with e.when(whole):
        e.b.call(walk, [rows])
    with e.loop(e.word(1), e.b.load(made)) as t:
        e.b.call(joins, [e.load_word(threads, t), e.word(0)])
    e.finish(e.b.load(made))
    return llvm.parse_assembly(str(module))


class Team:
    """So many walkers of one program, and where they meet.

    Parameters
    ----------
    code
        The kernels of this process.
    walkers : int
        How many there are, the caller's thread being one.
    """

    def __init__(self, code: Code, walkers: int) -> None:
        self.walkers = walkers
        self._state = np.zeros(24, np.int64)  # The two counters and the start, a cache line each.
        self._threads = np.zeros(walkers, np.int64)
        self._handles = int(self._threads.ctypes.data)
        self._create, self._join, self._rest = 0, 0, 0
        if walkers > 1:
            self._create, self._join = _system("pthread_create"), _system("pthread_join")
            self._rest = _system("sched_yield")
        self._barrier = code.address("barrier", _barrier) if walkers > 1 else 0
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)
        self._team: Callable[..., int] = kind(code.address("team", _team))

    def meeting(self) -> Call:
        """A call that returns when every walker has made it."""
        return Call(self._barrier, [int(self._state.ctypes.data), self.walkers, self._rest])

    def march(self, lists: list[list[Call]]) -> March:
        """Lists of calls, one a walker, made ready."""
        march = March(lists, np.zeros((self.walkers, len(ROW)), np.int64))
        for row, addresses, blocks in zip(march.rows, march.addresses, march.blocks, strict=True):
            row[:3] = addresses.ctypes.data, blocks.ctypes.data, len(addresses)
            row[4:] = self._state.ctypes.data + 128, self._rest
        return march

    def walk(self, march: March, steps: int) -> None:
        """Every walker goes through its list so many times; other threads of Python run meanwhile."""
        march.rows[:, 3] = steps
        self._state[:] = 0  # A process that was forked while others walked has their counts.
        came = self._team(march.address, self.walkers, self._create, self._join, self._handles)
        if came < self.walkers:
            raise DeviceError(
                f"the system gave {came} of {self.walkers} threads and nothing was run: allow fewer with "
                f"gpunn.set_num_threads({came})"
            )


class March:
    """Lists of calls as the walkers read them."""

    def __init__(self, lists: list[list[Call]], rows: NDArray[np.int64]) -> None:
        self.lists, self.rows, self.address = lists, rows, int(rows.ctypes.data)
        self.addresses = [np.array([call.address for call in calls], np.int64) for calls in lists]
        self.blocks = [np.array([call.block.ctypes.data for call in calls], np.int64) for calls in lists]
