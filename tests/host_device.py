"""The CUDA backend without a GPU: over the host shim, Numba's simulator, and what stands in for CuPy."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from cuda_host import HostDriver
from cuda_host.build import compiler
from cuda_sim import SimulatorDriver
from fake_cuda import FakeCublasLt, FakeCupy

import gpunn
from gpunn import kernels
from gpunn.backends.cuda.backend import CudaBackend
from gpunn.backends.cuda.catalogue import Kernel, instances
from gpunn.backends.cuda.gpu import Gpu
from gpunn.backends.cuda.lower import Limits

#: Few threads, so that kernels have to stride, and more than one warp, so that they have to meet.
SMALL = Limits(threads=64, blocks=3, partial=3)


class Shim:
    """Launches kernels of ``kernels/``, or of another folder, over arrays of the host."""

    def __init__(self, sources=None, sanitize=False):
        by_file = defaultdict(list)
        for kernel in instances():
            by_file[kernel.file].append(kernel.expression)
        folder = sources or next(iter(kernels.__path__))
        self.driver = HostDriver(by_file, sources=folder, sanitize=sanitize)
        self.launched = []

    def launch(self, kernel, grid, block, arguments):
        self.launched.append(kernel)
        plain = [a.view(np.ndarray) if isinstance(a, np.ndarray) else a for a in arguments]
        if isinstance(kernel, Kernel):
            self.driver.launch(kernel.expression, grid, block, plain)
        else:
            simulator().launch(kernel, (2,), (4,), plain)  # Threads of Python: few are quick.


def shim(sanitize=False):
    """The shim, or a visible skip."""
    if compiler() is None:
        pytest.skip("cuda_host: g++ is not installed")
    return built(sanitize)


@cache
def built(sanitize):
    return Shim(sanitize=sanitize)


@cache
def simulator():
    return SimulatorDriver()


def fake_gpu(number=0, *, sanitize=False, epilogues=True, loses_nan=False, room=1 << 30, hasty=()):
    """A Gpu whose memory is the host's."""
    cupy, runs = FakeCupy(room, hasty), shim(sanitize)

    def load(kernel):
        def bind(grid, block, arguments):
            # A launch keeps addresses, not the arrays.
            kept = [
                (a.plain.ctypes.data, a.shape, a.dtype) if isinstance(a, cupy.ndarray) else a
                for a in arguments
            ]

            def launch():
                there = [cupy.at(*each) if isinstance(each, tuple) else each for each in kept]
                runs.launch(kernel, grid, block, there)

            launch.addresses = [each[0] for each in kept if isinstance(each, tuple)]
            return lambda: cupy.current[-1].do(launch)

        return bind

    return Gpu(number, cupy=cupy, cublaslt=FakeCublasLt(cupy, epilogues, loses_nan), load=load)


@cache
def host_backend(sanitize=False, limits=SMALL):
    """The CUDA backend on this machine, or a visible skip."""
    return CudaBackend(fake_gpu(sanitize=sanitize), limits=limits)


def simulated_backend():
    """The same where Numba's simulator is there too, or a visible skip."""
    try:
        simulator()
    except gpunn.DeviceError as error:
        pytest.skip(f"cuda_sim: {error}")
    return host_backend()
