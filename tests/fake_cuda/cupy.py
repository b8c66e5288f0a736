"""The part of CuPy that gpunn uses, over NumPy: arrays with addresses, streams that capture, little memory.

What a real stream refuses while it captures, a copy from or to the host, is refused here too. A captured call
keeps the addresses and numbers that it was recorded with, as a node of a CUDA graph does.
"""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np


class OutOfMemoryError(MemoryError):
    pass


class CaptureError(RuntimeError):
    """What the driver answers to a call that a capturing stream cannot take."""


class Array(np.ndarray):
    """A device array; ``cupy`` is where its memory comes from."""

    cupy = None

    def __array_finalize__(self, other):
        self.cupy = getattr(other, "cupy", None)

    @property
    def __cuda_array_interface__(self):
        found = dict(self.__array_interface__)
        return found | {"version": 3, "stream": None}

    def get(self, stream=None):
        self.cupy.refuse_in_capture("a copy to the host")
        return np.array(self.view(np.ndarray))

    def set(self, values, stream=None):
        self.cupy.refuse_in_capture("a copy from the host")
        self.view(np.ndarray)[...] = values

    def copy(self):
        return self.cupy.asarray(np.array(self.view(np.ndarray)))

    def astype(self, dtype, copy=True):
        same = self.dtype == np.dtype(dtype) and not copy
        return self if same else self.cupy.asarray(self.view(np.ndarray).astype(dtype))

    @property
    def device(self):
        return SimpleNamespace(id=self.cupy.device_of_arrays)

    def __setitem__(self, key, values):
        self.cupy.refuse_in_capture("a copy")
        with np.errstate(all="ignore"):
            np.ndarray.__setitem__(self.view(np.ndarray), key, np.asarray(values).view(np.ndarray))

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        self.cupy.refuse_in_capture(f"{ufunc.__name__}, which allocates")
        plain = [np.asarray(i).view(np.ndarray) if isinstance(i, Array) else i for i in inputs]
        return self.cupy.asarray(getattr(ufunc, method)(*plain, **keywords))


class Event:
    def synchronize(self):
        """Nothing is ever under way."""


class Stream:
    """A stream that runs what it is given at once, or writes it down while it captures."""

    def __init__(self, cupy, number):
        self.cupy, self.ptr, self.recorded = cupy, number, None

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
        return Graph(recorded)

    def do(self, call):
        """Run a call, or record it."""
        if self.recorded is None:
            call()
        else:
            self.recorded.append(call)

    def record(self, event=None):
        return event or Event()

    def wait_event(self, event):
        assert isinstance(event, Event)

    def synchronize(self):
        self.cupy.refuse_in_capture("a wait for the stream")


class Graph:
    def __init__(self, calls):
        self.calls, self.launches = calls, 0

    def launch(self, stream=None):
        self.launches += 1
        for call in self.calls:
            call()


class Device:
    def __init__(self, cupy, number):
        self.cupy, self.id = cupy, number
        self.compute_capability = "90"

    def __enter__(self):
        self.cupy.devices.append(self.id)
        return self

    def __exit__(self, *_):
        self.cupy.devices.pop()


class FakeCupy:
    """Stands where the module ``cupy`` does; ``room`` is how many bytes the device has."""

    ndarray = Array

    def __init__(self, room=1 << 30):
        self.room, self.used, self.device_of_arrays = room, 0, 0
        self.live = {}  # address of each allocation: its size, and its bytes while they are used
        self.null = Stream(self, 0)
        self.current, self.devices, self.streams = [self.null], [0], [self.null]
        self.cuda = SimpleNamespace(
            Device=lambda number=0: Device(self, number),
            Event=Event,
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

    def zeros(self, shape, dtype=float):
        """A new allocation, with NaN around it."""
        self.refuse_in_capture("an allocation")
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if nbytes > self.room - self.used:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        raw = np.full(nbytes + 1024, 0xFF, np.uint8).view(Array)
        raw.cupy = self
        start = -raw.ctypes.data % 512 + 256
        start -= (raw.ctypes.data + start) % 256
        made = raw[start : start + nbytes]
        made.view(np.ndarray)[...] = 0
        first = made.ctypes.data
        self.used += nbytes
        self.live[first] = (nbytes, weakref.ref(raw))
        weakref.finalize(raw, self.forget, first, nbytes)
        return made.view(dtype).reshape(shape)

    def forget(self, first, nbytes):
        self.used -= nbytes
        self.live.pop(first, None)

    def asarray(self, values, dtype=None):
        """A copy on the device; of what is there already, none."""
        self.refuse_in_capture("a copy from the host")
        if isinstance(values, Array) and values.cupy is self and dtype in (None, values.dtype):
            return values
        array = np.asarray(values, dtype)
        made = self.zeros(array.shape, array.dtype)
        made.view(np.ndarray)[...] = array
        return made

    def from_dlpack(self, values):
        """The memory itself."""
        return values.__dlpack__(stream=self.current[-1].ptr)

    def ascontiguousarray(self, array):
        return array if array.flags.c_contiguous else self.asarray(array)

    def isfinite(self, array):
        self.refuse_in_capture("isfinite, which allocates")
        return np.isfinite(array.view(np.ndarray))

    def at(self, address, shape, dtype, strides=None):
        """The memory at an address, as far as an allocation goes; an error where nothing lives."""
        count = (
            1 + sum((n - 1) * abs(s) for n, s in zip(shape, strides or (), strict=True)) if strides else None
        )
        for first, (nbytes, raw) in self.live.items():
            if first <= address < first + max(1, nbytes):
                owner = raw()
                start = address - owner.ctypes.data
                flat = owner.view(np.ndarray)[start : start + nbytes - (address - first)].view(dtype)
                need = int(np.prod(shape)) if count is None else count
                assert need <= flat.size, f"{need} numbers at {address:#x}, the allocation has {flat.size}"
                if strides is None:
                    return flat[:need].reshape(shape)
                return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * flat.itemsize for s in strides))
        raise AssertionError(f"nothing lives at {address:#x}: it was freed, or never allocated")
