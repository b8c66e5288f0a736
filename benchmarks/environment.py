"""Where and with what a result was measured: every result file carries it."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

import numpy as np

import gpunn


def environment() -> dict:
    return {
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "gpunn": gpunn.__version__,
        },
        "blas": blas(),
    }


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def blas():
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "threadpoolctl is not installed: architecture and threads not known"
    keys = ("internal_api", "version", "architecture", "num_threads")
    return [{key: entry.get(key) for key in keys} for entry in threadpool_info()]
