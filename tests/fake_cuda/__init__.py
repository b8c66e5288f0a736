"""CuPy and cuBLASLt without a GPU: what the CUDA backend calls of them, over the host's memory."""

from fake_cuda.cupy import FakeCupy
from fake_cuda.lt import FakeCublasLt

__all__ = ["FakeCublasLt", "FakeCupy"]
