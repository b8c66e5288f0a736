"""The side of the simulator: a loop over launches. Needs NUMBA_ENABLE_CUDASIM=1 and the number of a pipe."""

from __future__ import annotations

import math
import signal
import sys
import traceback
import warnings
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from types import ModuleType

import numpy as np

import gpunn
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.backends.cuda.generated import Generated, python_kernel

WHOLE = ("floor", "ceil", "trunc")  # Of math they give an int, as on a GPU.


@cache
def mathematics(dtype):
    """``math`` as a GPU has it: of the dtype, with infinities and NaN where Python raises."""
    kind, found = np.dtype(dtype).type, ModuleType("math")

    def of(function):
        return lambda *numbers: kind(function(*numbers))

    for name, value in vars(math).items():
        if isinstance(value, float):
            setattr(found, name, kind(value))
        elif isinstance(getattr(np, name, None), np.ufunc) and name not in WHOLE:
            setattr(found, name, of(getattr(np, name)))
        elif name in ("erf", "erfc", "gamma", "lgamma"):
            setattr(found, name, of(value))
        elif not name.startswith("_"):
            setattr(found, name, value)
    return found


def placed(modulo, data):
    """A copy of some memory at an address that is the same modulo 256."""
    room = np.empty(len(data) + 256, np.uint8)
    start = (modulo - room.ctypes.data) % 256
    region = room[start : start + len(data)]
    region[...] = np.frombuffer(data, np.uint8)
    return region


def run(op, sigma, dtype, function, grid, block, regions, passed, limit):
    from numba import cuda
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    module, name = function
    found = getattr(import_module(module), name)
    ACTIVATIONS[sigma] = Activation(sigma, found, found, "input", "", "")
    kernel = cuda.jit(python_kernel(Generated(op, sigma, dtype), mathematics(dtype)))
    memory = [placed(*region) for region in regions]

    def argument(word):
        if not isinstance(word, tuple):
            return word
        region, offset, size, kind = word
        # As it is: an array of NumPy would be copied, to where it is aligned and overlaps with nothing.
        part = memory[region][offset : offset + size * np.dtype(kind).itemsize]
        return FakeCUDAArray(part.view(kind))

    kernel[grid, block](*map(argument, passed))
    return [region.tobytes() for region in memory]


def serve(pipe):
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, job[-1])  # Its signal ends this process, whatever it does.
        try:
            answer = run(*job)
        except gpunn.GpunnError as error:
            answer = error
        except Exception:
            answer = traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answer)


if __name__ == "__main__":
    sys.setswitchinterval(1e-4)
    warnings.simplefilter("ignore")  # Of numbers that overflow.
    serve(Connection(int(sys.argv[1])))
