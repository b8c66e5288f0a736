"""How many threads of the processor gpunn may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

from .errors import whole_number

__all__ = ["blas_threads", "limited", "num_threads", "set_num_threads"]

_CHOSEN: int | None = None


def set_num_threads(count: int | None) -> None:
    """Use at most that many threads on the CPU from now on; None: as many as the process may run on.

    It is a limit: small networks run on one thread, because handing out their work costs more than it gains.
    On ``device="cpu"`` the number makes no difference to what is learnt: each element is computed by one
    thread, in one order, so that parameters are the same to the last byte. A cost alone is a sum over
    threads, in float64, and may differ by 1e-15 of itself. The NumPy backend hands the limit to its BLAS, and
    results differ between numbers as BLAS makes them differ.

    Raises
    ------
    gpunn.ArgumentError
        Unless it is a whole number of at least 1, or None.

    Examples
    --------
    >>> import gpunn
    >>> gpunn.set_num_threads(1)
    >>> gpunn.num_threads()
    1
    >>> gpunn.set_num_threads(None)
    """
    global _CHOSEN
    _CHOSEN = None if count is None else whole_number("count", count, 1)


def num_threads() -> int:
    """The most threads that gpunn uses: :func:`set_num_threads`, else ``OMP_NUM_THREADS``, else all allowed.

    Allowed are the processors that this process may run on.
    """
    return _CHOSEN or _from_environment() or _allowed()


def limited() -> AbstractContextManager[None]:
    """Hold BLAS to what :func:`set_num_threads` was given; without that it keeps its own number."""
    return nullcontext() if _CHOSEN is None else blas_threads(_CHOSEN)


def _from_environment() -> int | None:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), _allowed()) if first.isdecimal() and int(first) else None


def _allowed() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not on every system.
        return os.cpu_count() or 1


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Give the BLAS libraries of this process so many threads, and afterwards what they had."""
    before = [(library, library.num_threads) for library in _libraries()]
    for library, had in before:
        if had != count:
            library.set_num_threads(count)
    try:
        yield
    finally:
        for library, had in before:
            if had != count:
                library.set_num_threads(had)
