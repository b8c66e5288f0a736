"""A device without a GPU: the CUDA backend's launches, run by the host shim and Numba's simulator."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from cuda_host import HostDriver
from cuda_sim import SimulatorDriver

import gpunn
from gpunn import kernels
from gpunn.backends.cuda.catalogue import Kernel, instances
from gpunn.backends.cuda.lower import Limits
from gpunn.backends.cuda.runner import CudaBackend
from gpunn.backends.host import aligned

#: Few threads, so that kernels have to stride, and more than one warp, so that they have to meet.
SMALL = Limits(threads=64, blocks=3, partial=3)


class HostDevice:
    """Memory is the host's; kernels of ``kernels/`` or of another folder run in a child process."""

    def __init__(self, sources=None, sanitize=False):
        by_file = defaultdict(list)
        for kernel in instances():
            by_file[kernel.file].append(kernel.expression)
        folder = sources or os.environ.get("CUDA_HOST_SOURCES") or next(iter(kernels.__path__))
        self.driver = HostDriver(by_file, sources=folder, sanitize=sanitize)
        self.launched = []

    def zeros(self, nbytes):
        return aligned(nbytes)

    def upload(self, array):
        copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def download(self, array):
        return np.array(array)

    def launch(self, kernel, grid, block, arguments):
        self.launched.append(kernel)
        if isinstance(kernel, Kernel):
            self.driver.launch(kernel.expression, grid, block, arguments)
        else:
            simulator().launch(kernel, (1,), (32,), arguments)

    def product(self, left, right, out, accumulate):
        product = np.matmul(left, right)
        out[...] = out + product if accumulate else product


@cache
def simulator():
    return SimulatorDriver()


def simulated_backend():
    """The CUDA backend with Numba's simulator beside the host shim, or a visible skip."""
    try:
        simulator()
    except gpunn.DeviceError as error:
        pytest.skip(f"cuda_sim: {error}")
    return host_backend()


@cache
def host_backend(sources=None, sanitize=False):
    """The CUDA backend on this machine, or a visible skip."""
    if shutil.which("g++") is None:
        pytest.skip("cuda_host: g++ is not installed")
    return CudaBackend(HostDevice(sources, sanitize), SMALL)
