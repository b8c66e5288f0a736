"""The side of the tests: what to run, on which memory."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import weakref
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

import gpunn

WORKER = Path(__file__).with_name("worker.py")


class SimulatorDriver:
    """Runs kernels of ``gpunn.backends.cuda.generated`` on arrays of NumPy, one launch after the other.

    A launch that takes longer than ``limit`` seconds ends the worker; the next one starts another. It ends
    with the driver, and with the process.
    """

    def __init__(self, limit=10.0):
        if find_spec("numba_cuda") is None:
            raise gpunn.DeviceError("the simulator is not available: pip install numba-cuda")
        self.limit = limit
        self._worker = None

    def launch(self, kernel, grid, block, arguments):
        """Run a kernel; what it writes is in the arrays afterwards. Numbers are passed as they are."""
        function = importable(kernel.function)
        regions, passed = packed(arguments)
        if self._worker is None:
            self._worker = Worker()
        job = (kernel.op, kernel.sigma, kernel.dtype, function, grid, block, regions, passed, self.limit)
        try:
            found = self._worker.ask(job)
        except EOFError:
            status, self._worker = self._worker.process.wait(), None
            if status == -signal.SIGALRM:
                raise TimeoutError(f"{kernel} ran longer than {self.limit} s in the simulator") from None
            raise RuntimeError(f"the simulator ended with status {status} in {kernel}") from None
        if isinstance(found, gpunn.GpunnError):
            raise found
        if isinstance(found, str):
            raise RuntimeError(f"{kernel} failed in the simulator:\n{found}")
        for array, word in zip(arguments, passed, strict=True):
            if is_array(array) and array.size and array.flags.writeable:
                region, offset, size, dtype = word
                array[...] = np.frombuffer(found[region], dtype, size, offset).reshape(array.shape)

    def close(self):
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class Worker:
    """The child process; it ends when its end of the pipe is all that is left."""

    def __init__(self):
        self.pipe, theirs = Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path},
            )
        self.end = weakref.finalize(self, ended, self.pipe, self.process)

    def ask(self, job):
        try:
            self.pipe.send(job)
            return self.pipe.recv()
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None


def ended(pipe, process):
    pipe.close()
    process.kill()
    process.wait()


def importable(function) -> tuple[str, str]:
    """The module and the name under which another process finds a function."""
    module = getattr(function, "__module__", None)
    if module not in (None, "__main__"):
        for name, value in vars(import_module(module)).items():
            if value is function:
                return module, name
    raise gpunn.ProgramError(
        f"{function!r} cannot be run in the simulator: no other process can import it by the name of a module"
    )


def is_array(argument) -> bool:
    return isinstance(argument, np.ndarray) and argument.ndim > 0


def packed(arguments) -> tuple[list[tuple[int, bytes]], list[Any]]:
    """The memory of all arrays as (address modulo 256, bytes), and each argument: a place or a number.

    A place is (region, offset, elements, dtype). Arrays that overlap share a region, on the other side too.
    """
    spans: list[list[int]] = []
    arrays = [argument for argument in arguments if is_array(argument)]
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError("an array is not contiguous")
    for start, end in sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays):
        if spans and start < spans[-1][1]:
            spans[-1][1] = max(end, spans[-1][1])
        else:
            spans.append([start, end])
    passed = []
    for argument in arguments:
        if not is_array(argument):
            passed.append(argument.item() if hasattr(argument, "item") else argument)
            continue
        at = argument.ctypes.data
        region = next(k for k, (start, end) in enumerate(spans) if start <= at <= at + argument.nbytes <= end)
        passed.append((region, at - spans[region][0], argument.size, argument.dtype.str))
    return [(start % 256, ctypes.string_at(start, end - start)) for start, end in spans], passed
