"""Where and with what a result was measured: every result file carries it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

#: These pin a BLAS to kernels that are not the machine's own; measured processes run without them.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

#: Whose versions matter to a figure.
LIBRARIES = ("numpy", "scipy", "numba", "sklearn", "torch", "jax", "jaxlib", "cupy", "gpunn")


def environment() -> dict:
    """The machine and the date; what a process computes with is told by that process."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "time": datetime.now(UTC).strftime("%H:%M UTC"),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "machine": {
            "cpu": cpu(),
            "cores": len(cores()),
            "memory_gib": memory_gib(),
            "system": platform.system(),
            "clock_mhz": cpu_clock(),
            "gpu": gpu(),
        },
        "versions": versions() | {"python": platform.python_version()},
        "blas": blas(),
        "unset": {name: os.environ[name] for name in UNSET if name in os.environ},
    }


def versions() -> dict:
    """Versions of the libraries that this process has imported."""
    found = {name: sys.modules.get(name) for name in LIBRARIES}
    return {name: str(module.__version__) for name, module in found.items() if hasattr(module, "__version__")}


def cores() -> list[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu() -> str:
    """The model; where a virtual machine hides it, with family and model numbers and the widest vectors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    flags = told.get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "no AVX")
    name = told.get("model name", platform.processor() or "unknown")
    return f"{name} (family {told.get('cpu family')}, model {told.get('model')}, {widest})"


def cpu_clock() -> float | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return max(float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz"))
    except (OSError, ValueError):
        return None


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def gpu() -> dict | None:
    """Name, driver, clocks and power of the first GPU, by nvidia-smi; None without one."""
    keys = (
        "name",
        "driver_version",
        "memory.total",
        "clocks.sm",
        "clocks.mem",
        "power.draw",
        "temperature.gpu",
    )
    query = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(keys, (word.strip() for word in answer.split(",")), strict=False)) or None


def blas() -> list[dict] | str:
    """Libraries that multiply matrices in this process, their architecture and threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "threadpoolctl is not installed: architecture and threads not known"
    keys = ("internal_api", "version", "architecture", "num_threads")
    return [{key: entry.get(key) for key in keys} for entry in threadpool_info()]
