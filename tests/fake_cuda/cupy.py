"""The part of CuPy that gpunn uses, over NumPy: arrays with addresses, streams that capture, little memory.

Work is done as late as a GPU may do it: a stream begins when somebody waits for it, and then runs alone, up
to where it waits for another; or, where it is named hasty, as early as a GPU may. What a real stream refuses
while it captures, a copy from or to the host, is refused here too. A captured call keeps the addresses and
numbers that it was recorded with, as a node of a CUDA graph does. Memory that is given back is used again by
the stream that it was taken in, as CuPy's pool does.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect, insort
from collections import defaultdict, deque
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np


class OutOfMemoryError(MemoryError):
    pass


class CaptureError(RuntimeError):
    """What the driver answers to a call that a capturing stream cannot take."""


class Array:
    """A device array over ``plain``, of the GPU ``number``; NumPy does not take it unasked."""

    __module__ = "cupy"  # By which arrays are told apart.

    def __init__(self, cupy, plain, number):
        self.cupy, self.plain, self.number = cupy, plain, number
        self.shape, self.ndim, self.size = plain.shape, plain.ndim, plain.size
        self.dtype, self.nbytes, self.flags = plain.dtype, plain.nbytes, plain.flags

    def _like(self, plain):
        return Array(self.cupy, plain, self.number)

    @property
    def __cuda_array_interface__(self):
        return dict(self.plain.__array_interface__) | {"version": 3, "stream": None}

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    @property
    def device(self):
        return SimpleNamespace(id=self.number)

    def __len__(self):
        return len(self.plain)

    def __getitem__(self, key):
        assert not isinstance(key, np.ndarray), "an index has to be on the device"
        found = self.plain[key.get() if isinstance(key, Array) else key]
        return self._like(found if isinstance(found, np.ndarray) else self.plain[key, ...])

    def view(self, dtype):
        return self._like(self.plain.view(dtype))

    def reshape(self, *shape):
        return self._like(self.plain.reshape(*shape))

    def get(self, stream=None):
        self.cupy.refuse_in_capture("a copy to the host")
        self.cupy.current[-1].synchronize()
        self.cupy.downloaded += self.nbytes
        return np.array(self.plain)

    def tolist(self):
        return self.get().tolist()

    def set(self, arr, stream=None):
        """From pinned memory, whose values are read when the copy is made."""
        self.cupy.refuse_in_capture("a copy from the host")
        assert (self.shape, self.dtype) == (arr.shape, arr.dtype), "set() wants the same kind of array"
        (stream or self.cupy.current[-1]).do(lambda: np.copyto(self.plain, arr))

    def fill(self, value):
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
        there = self.plain[key if key is ... else (*key, ...) if isinstance(key, tuple) else (key, ...)]
        if isinstance(values, Array):
            values = values.plain
        else:
            self.cupy.refuse_in_capture("a copy from the host")
            values = np.array(values)

        def assign():
            with np.errstate(all="ignore"):
                np.copyto(there, values, casting="unsafe")

        self.cupy.current[-1].do(assign)

    def _made(self, function, *others):
        plain = [other.plain if isinstance(other, Array) else other for other in (self, *others)]
        kind = function(*(np.ones(1, np.asarray(each).dtype) for each in plain)).dtype
        made = self.cupy.empty(np.broadcast_shapes(*map(np.shape, plain)), kind)

        def compute():
            with np.errstate(all="ignore"):
                np.copyto(made.plain, function(*plain))

        self.cupy.current[-1].do(compute)
        return made

    def __mul__(self, other):
        return self._made(np.multiply, other)

    def _reduced(self, found):
        """Of one number: what is read by ``int()`` and its kind."""
        self.cupy.downloaded += found(self.plain).nbytes - self.nbytes
        return found(self.get())

    def min(self):
        return self._reduced(np.min)

    def max(self):
        return self._reduced(np.max)

    def all(self):
        return self._reduced(np.all)


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
        self.numbers = {}  # of these, the GPU
        self.alive = set()  # of these, those of arrays
        self.pool = defaultdict(list)  # stream and size: memory that was given back
        self.local, self.downloaded = threading.local(), 0
        self.null = Stream(self, 0)
        self.streams = [self.null]
        self.cuda = SimpleNamespace(
            Device=lambda number=0: Device(self, number),
            Stream=self.stream,
            alloc_pinned_memory=lambda nbytes: np.zeros(nbytes, np.uint8),
            get_current_stream=lambda: self.current[-1],
            using_allocator=self.using_allocator,
            ExternalStream=lambda number: self.streams[number],
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (self.room - self.used, self.room),
                pointerGetAttributes=lambda address: SimpleNamespace(device=self.number_of(address)),
            ),
        )

    def of_thread(self, name, first):
        if not hasattr(self.local, name):
            setattr(self.local, name, [*first])
        return getattr(self.local, name)

    current = property(lambda self: self.of_thread("current", [self.null]))
    devices = property(lambda self: self.of_thread("devices", [0]))
    allocators = property(lambda self: self.of_thread("allocators", []))

    def stream(self, non_blocking=False):
        made = Stream(self, len(self.streams))
        self.streams.append(made)
        return made

    def refuse_in_capture(self, what):
        if any(stream.recorded is not None for stream in self.streams):
            raise CaptureError(f"{what} is not permitted while a stream captures")

    def get_default_memory_pool(self):
        return SimpleNamespace(free_bytes=lambda: 0)

    def empty(self, shape, dtype=float):
        """An allocation, which may hold anything, with NaN around it."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        for allocator in self.allocators[-1:]:
            allocator(nbytes)
        if nbytes > self.room - self.used:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        kept = self.pool[self.current[-1].ptr, nbytes]
        memory = kept.pop() if kept else self.fresh(nbytes)
        block = Block(memory)
        self.used += nbytes
        self.alive.add(memory.ctypes.data)
        self.numbers[memory.ctypes.data] = self.devices[-1]
        weakref.finalize(block, self.forget, memory, nbytes, self.current[-1].ptr)
        return Array(self, np.asarray(block).view(dtype).reshape(shape), self.devices[-1])

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

    def number_of(self, address):
        """The GPU that an address is of."""
        return self.numbers[self.memory_of(address).ctypes.data]

    def check_alive(self, call):
        """A call that is queued may only name memory of arrays that exist."""
        for address in getattr(call, "addresses", ()):
            first = self.memory_of(address).ctypes.data
            assert first in self.alive, f"the memory at {address:#x} was freed"

    @contextmanager
    def using_allocator(self, allocator):
        self.allocators.append(allocator)
        try:
            yield
        finally:
            self.allocators.pop()

    def asarray(self, a, dtype=None):
        """A copy on the device; of what is there already, none."""
        if isinstance(a, Array):
            same = a.number == self.devices[-1] and dtype in (None, a.dtype)
            return a if same else a.astype(dtype or a.dtype)
        self.refuse_in_capture("a copy from the host")
        array = np.asarray(a, dtype)
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made

    def from_dlpack(self, array):
        """The memory itself."""
        return array.__dlpack__(stream=self.current[-1].ptr)

    def ascontiguousarray(self, a):
        return a if a.flags.c_contiguous else a.copy()

    def isfinite(self, x):
        return x._made(np.isfinite)

    def isnan(self, x):
        return x._made(np.isnan)

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
