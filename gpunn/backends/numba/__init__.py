"""The Numba backend: kernels compiled once, called by address, whole epochs without Python."""

from .backend import NumbaBackend

__all__ = ["NumbaBackend"]
