"""Numba's CUDA simulator in a process of its own, launched like a driver of GPUs."""

from .driver import SimulatorDriver

__all__ = ["SimulatorDriver"]
