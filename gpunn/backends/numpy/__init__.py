"""The NumPy backend: the readable definition of every op, and what every other backend is held against.

A kernel is a function of the views of an op's inputs and outputs (``None`` where one is absent) and of
its attributes. It writes its outputs and allocates nothing of their size (a row or a column at most): what
it needs beside them it declares as ``scratch``, in the notation of the op signatures.
"""

from __future__ import annotations

from .runner import Calls, NumpyBackend, NumpyRunner
from .sigma import SIGMA, SIGMA_PRIME
from .table import KERNELS

__all__ = ["KERNELS", "SIGMA", "SIGMA_PRIME", "Calls", "NumpyBackend", "NumpyRunner"]
