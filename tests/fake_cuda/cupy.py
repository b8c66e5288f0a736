"""The part of CuPy that gpunn uses, over NumPy: arrays with addresses, streams that capture, little memory.

Work is done as late as a GPU may do it: a stream begins when somebody waits for it, and then runs alone, up
to where it waits for another; or, where it is named hasty, as early as a GPU may. What a real stream refuses
while it captures, a copy from or to the host, is refused here too. A captured call keeps the addresses and
numbers that it was recorded with, as a node of a CUDA graph does. Memory that is given back is used again by
the stream that it was taken in, as CuPy's pool does.
"""

from __future__ import annotations

import weakref
from bisect import bisect, insort
from collections import defaultdict, deque
from types import SimpleNamespace

import numpy as np


class OutOfMemoryError(MemoryError):
    pass


class CaptureError(RuntimeError):
    """What the driver answers to a call that a capturing stream cannot take."""


class Array(np.ndarray):
    """A device array; ``cupy`` is where its memory comes from."""

    cupy = number = None

    def __array_finalize__(self, other):
        self.cupy, self.number = getattr(other, "cupy", None), getattr(other, "number", None)

    @property
    def __cuda_array_interface__(self):
        found = dict(self.__array_interface__)
        return found | {"version": 3, "stream": None}

    @property
    def plain(self):
        return self.view(np.ndarray)

    @property
    def device(self):
        return SimpleNamespace(id=self.number)

    def get(self, stream=None):
        self.cupy.refuse_in_capture("a copy to the host")
        self.cupy.current[-1].synchronize()
        return np.array(self.plain)

    def set(self, values, stream=None):
        """From pinned memory, whose values are read when the copy is made."""
        self.cupy.refuse_in_capture("a copy from the host")
        assert (self.shape, self.dtype) == (values.shape, values.dtype), "set() wants the same kind of array"
        (stream or self.cupy.current[-1]).do(lambda: np.copyto(self.plain, values))

    def fill(self, value):
        self.cupy.refuse_in_capture("a fill")
        self.cupy.current[-1].do(lambda: self.plain.fill(value))

    def copy(self):
        return self.astype(self.dtype)

    def astype(self, dtype, copy=True):
        if self.dtype == np.dtype(dtype) and not copy:
            return self
        made = self.cupy.empty(self.shape, dtype)
        made[...] = self
        return made

    def __setitem__(self, key, values):
        self.cupy.refuse_in_capture("a copy")
        there = self.plain[key]
        values = values.plain if isinstance(values, Array) else np.array(values)

        def assign():
            with np.errstate(all="ignore"):
                np.copyto(there, values, casting="unsafe")

        self.cupy.current[-1].do(assign)

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        self.cupy.refuse_in_capture(f"{ufunc.__name__}, which allocates")
        plain = [i.plain if isinstance(i, Array) else i for i in inputs]
        made = self.cupy.empty(np.broadcast_shapes(*map(np.shape, plain)), self.dtype)
        self.cupy.current[-1].do(lambda: getattr(ufunc, method)(*plain, out=made.plain, **keywords))
        return made


class Event:
    """A place in a stream's queue."""

    def __init__(self, stream):
        self.stream, self.position = stream, stream.queued

    def synchronize(self):
        self.stream.cupy.refuse_in_capture("a wait for an event")
        self.stream.run_until(self.position)


class Stream:
    """A queue that is worked off when somebody waits; or that is written down while it captures."""

    def __init__(self, cupy, number):
        self.cupy, self.ptr, self.recorded = cupy, number, None
        self.device = cupy.devices[-1] if number else None  # The null stream is that of any device.
        self.queue, self.queued, self.begun = deque(), 0, 0

    def __enter__(self):
        self.cupy.current.append(self)
        return self

    def __exit__(self, *_):
        self.cupy.current.pop()

    def begin_capture(self, mode=None):
        assert self.recorded is None, "the stream is capturing already"
        self.recorded = []

    def end_capture(self):
        recorded, self.recorded = self.recorded, None
        assert recorded is not None, "the stream is not capturing"
        return Graph(self.cupy, recorded)

    def do(self, call):
        """Queue a call, or record it."""
        self.check_device()
        self.cupy.check_alive(call)
        if self.recorded is None:
            self.queue.append(call)
            self.queued += 1
            if self.ptr in self.cupy.hasty:
                self.run_until(self.queued)
        else:
            self.recorded.append(call)

    def check_device(self):
        here = self.cupy.devices[-1]
        assert self.device in (None, here), f"GPU {here} is current, the stream is one of GPU {self.device}"

    def record(self, event=None):
        assert event is None
        self.check_device()
        return Event(self)

    def wait_event(self, event):
        self.do(lambda: event.stream.run_until(event.position))

    def run_until(self, position):
        while self.begun < position:
            self.begun += 1
            self.queue.popleft()()

    def synchronize(self):
        self.cupy.refuse_in_capture("a wait for the stream")
        self.run_until(self.queued)


class Graph:
    def __init__(self, cupy, calls):
        self.cupy, self.calls, self.launches = cupy, calls, 0

    def launch(self, stream=None):
        self.launches += 1
        for call in self.calls:
            self.cupy.check_alive(call)
            (stream or self.cupy.current[-1]).do(call)


class Device:
    def __init__(self, cupy, number):
        self.cupy, self.id = cupy, number
        self.compute_capability = "90"

    def __enter__(self):
        self.cupy.devices.append(self.id)
        return self

    def __exit__(self, *_):
        self.cupy.devices.pop()


class Block:
    """What arrays hold of an allocation."""

    def __init__(self, memory):
        self.__array_interface__ = memory.__array_interface__


class FakeCupy:
    """Stands where the module ``cupy`` does.

    ``room`` is how many bytes the device has; ``hasty`` are the numbers of streams that begin at once: 0 is
    the user's, 1 the one of the work, 2 the one of copies.
    """

    ndarray = Array

    def __init__(self, room=1 << 30, hasty=()):
        self.room, self.hasty = room, hasty
        self.used = 0
        self.memories = {}  # by address, what was given back too
        self.addresses = []  # of these, in order
        self.alive = set()  # of these, those of arrays
        self.pool = defaultdict(list)  # stream and size: memory that was given back
        self.devices = [0]
        self.null = Stream(self, 0)
        self.current, self.streams = [self.null], [self.null]
        self.cuda = SimpleNamespace(
            Device=lambda number=0: Device(self, number),
            Stream=self.stream,
            alloc_pinned_memory=lambda nbytes: np.zeros(nbytes, np.uint8),
            get_current_stream=lambda: self.current[-1],
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (self.room - self.used, self.room), getDeviceCount=lambda: 1
            ),
        )

    def stream(self, non_blocking=False):
        made = Stream(self, len(self.streams))
        self.streams.append(made)
        return made

    def refuse_in_capture(self, what):
        if any(stream.recorded is not None for stream in self.streams):
            raise CaptureError(f"{what} is not permitted while a stream captures")

    def get_default_memory_pool(self):
        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def empty(self, shape, dtype=float):
        """An allocation, which may hold anything, with NaN around it."""
        self.refuse_in_capture("an allocation")
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if nbytes > self.room - self.used:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        kept = self.pool[self.current[-1].ptr, nbytes]
        memory = kept.pop() if kept else self.fresh(nbytes)
        block = Block(memory)
        self.used += nbytes
        self.alive.add(memory.ctypes.data)
        weakref.finalize(block, self.forget, memory, nbytes, self.current[-1].ptr)
        made = np.asarray(block).view(Array)
        made.cupy, made.number = self, self.devices[-1]
        return made.view(dtype).reshape(shape)

    def zeros(self, shape, dtype=float):
        made = self.empty(shape, dtype)
        made.fill(0)
        return made

    def fresh(self, nbytes):
        """Memory at a multiple of 256 that is none of 512, between bytes that are NaN."""
        if sum(memory.nbytes for memory in self.memories.values()) > 2 * self.room:
            self.trim()
        raw = np.full(nbytes + 1024, 0xFF, np.uint8)
        start = -raw.ctypes.data % 512 + 256
        memory = raw[start : start + nbytes]
        self.memories[memory.ctypes.data] = memory
        insort(self.addresses, memory.ctypes.data)
        return memory

    def trim(self):
        """Wait for everything and let go of what no array is of."""
        for stream in self.streams:
            stream.synchronize()
        self.pool.clear()
        self.memories = {address: self.memories[address] for address in self.alive}
        self.addresses = sorted(self.alive)

    def forget(self, memory, nbytes, stream):
        self.used -= nbytes
        self.alive.discard(memory.ctypes.data)
        self.pool[stream, nbytes].append(memory)

    def check_alive(self, call):
        """A call that is queued may only name memory of arrays that exist."""
        for address in getattr(call, "addresses", ()):
            first = self.memory_of(address).ctypes.data
            assert first in self.alive, f"the memory at {address:#x} was freed"

    def asarray(self, values, dtype=None):
        """A copy on the device; of what is there already, none."""
        self.refuse_in_capture("a copy from the host")
        if isinstance(values, Array) and values.cupy is self and dtype in (None, values.dtype):
            return values
        array = np.asarray(values, dtype)
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made

    def from_dlpack(self, values):
        """The memory itself."""
        return values.__dlpack__(stream=self.current[-1].ptr)

    def ascontiguousarray(self, array):
        return array if array.flags.c_contiguous else array.copy()

    def isfinite(self, array):
        self.refuse_in_capture("isfinite, which allocates")
        return np.isfinite(array.get())

    def isnan(self, array):
        self.refuse_in_capture("isnan, which allocates")
        return np.isnan(array.get())

    def at(self, address, shape, dtype, strides=None):
        """The memory at an address, as far as an allocation goes; an error where there is none."""
        steps = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        count = 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        memory = self.memory_of(address)
        flat = memory[address - memory.ctypes.data :].view(dtype)
        assert count <= flat.size, f"{count} numbers at {address:#x}, the allocation has {flat.size}"
        return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * flat.itemsize for s in steps))

    def memory_of(self, address):
        """The allocation that an address lies in."""
        place = bisect(self.addresses, address) - 1
        memory = self.memories[self.addresses[place]] if place >= 0 else None
        if memory is None or address >= memory.ctypes.data + max(1, memory.nbytes):
            raise AssertionError(f"nothing lives at {address:#x}")
        return memory
