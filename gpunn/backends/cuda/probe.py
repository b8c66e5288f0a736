"""Whether there is a GPU to use, found out without a CUDA context and without importing CuPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import metadata
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
    if reason := _too_old(library):
        return reason
    missing = [name for package, name in PACKAGES.items() if installed(package) is None]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: {REMEDY}"
    return None


def _too_old(library: Any) -> str | None:
    """Where CuPy is for a newer CUDA than the driver is."""
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    major, minor = version.value // 1000, version.value % 1000 // 10
    wheels = [number for number in (12, 13) if _installed_wheel(f"cupy-cuda{number}x")]
    if not wheels or min(wheels) <= major:
        return None
    return (
        f"the NVIDIA driver is one for CUDA {major}.{minor}, and CuPy is one for CUDA {min(wheels)}: "
        f"install a newer driver, or pip uninstall cupy-cuda{min(wheels)}x and pip install gpunn[cuda{major}]"
    )


def _installed_wheel(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


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
