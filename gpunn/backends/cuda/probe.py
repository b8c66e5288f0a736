"""Whether there is a GPU to use, found out without a CUDA context and without importing CuPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

__all__ = ["driver", "names", "why_not"]

REMEDY = "pip install gpunn[cuda13], or gpunn[cuda12] with a driver for CUDA 12"

#: What the backend needs, as one imports it.
PACKAGES = {"cupy": "CuPy", "nvmath": "nvmath-python"}


def driver() -> Any:
    """NVIDIA's driver library, or None."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def why_not(
    number: int = 0,
    *,
    driver: Callable[[], Any] = driver,
    installed: Callable[[str], Any] = find_spec,
) -> str | None:
    """Why GPU ``number`` cannot be used and what to do, or None where it can.

    >>> why_not(driver=lambda: None)
    "no NVIDIA driver was found (libcuda.so.1): install one, or use device='cpu'"
    """
    library = driver()
    if library is None:
        return "no NVIDIA driver was found (libcuda.so.1): install one, or use device='cpu'"
    if code := library.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit gives {code}): is there a GPU, and may you use it?"
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?): use device='cpu'"
    if number >= count.value:
        known = ", ".join(f"cuda:{i}" for i in range(count.value))
        return f"there is no GPU {number}: this machine has {known}"
    missing = [name for package, name in PACKAGES.items() if installed(package) is None]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: {REMEDY}"
    return None


def names() -> str:
    """The GPUs, as the driver calls them."""
    library = driver()
    count, name, found = ctypes.c_int(), ctypes.create_string_buffer(100), []
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ""
    for number in range(count.value):
        device = ctypes.c_int()
        library.cuDeviceGet(ctypes.byref(device), number)
        library.cuDeviceGetName(name, len(name), device)
        found.append(f"cuda:{number} {name.value.decode(errors='replace')}")
    return ", ".join(found)
