"""CUDA C++ kernels compiled by g++ and run on the CPU, to find their faults without a GPU."""

from cuda_host.build import BuildError
from cuda_host.driver import HostDriver, KernelFault

__all__ = ["BuildError", "HostDriver", "KernelFault"]
