"""Every op by itself, timed in a process of its own: a record that :mod:`benchmarks.results` accepts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..environment import UNSET, cores, environment
from ..harness import PeerError, member
from ..peers import Entry
from ..results import SCHEMA
from .ops import absent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

#: Rounds of one kernel, at least.
ROUNDS, QUICK_ROUNDS = 5, 3

#: Seconds for all of it.
PATIENCE = 1800.0


class KernelError(RuntimeError):
    """Nothing could be measured; the message is what pytest said."""


def measure(
    backends: Sequence[str], device: str, quick: bool, threads: int, peer_python: str = sys.executable
) -> dict[str, Any]:
    """The record of all ops on these backends; ``peer_python`` is asked for a GPU's floors.

    Raises
    ------
    KernelError
        If not one kernel could be timed. Where some could, ``failed`` names those that could not.
    """
    rounds = QUICK_ROUNDS if quick else ROUNDS
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "kernels",
        "setting": {
            "device": device,
            "threads": threads,
            "precision": "float32",
            "repeats": rounds,
            "backends": list(backends),
        },
        "environment": environment(),
        "floors": floors(device, threads, peer_python),
        "without": absent(backends),
        "failed": {},
        "kernels": [],
    }
    present = [name for name in backends if name not in record["without"]]
    if present:
        found = _benchmarked(present, device, threads, quick, rounds)
        record["floors"] = higher(record["floors"], floors(device, threads, peer_python))
        record["environment"] |= {key: found["environment"][key] for key in ("versions", "blas")}
        record["failed"] = found["failed"]
        record["kernels"] = [_kernel(each) for each in found["benchmarks"]]
    return record


def share(kernel: Mapping[str, Any], floors: Mapping[str, Any]) -> tuple[float | None, str]:
    """What part of the machine's own speed a kernel reaches, and at what: ``"copy"`` or ``"product"``.

    A product is held against the flops of a large product, all else against the bytes of a large copy: above
    1 its operands stayed in a cache. None where that floor was not measured.

    >>> share({"flops": None, "bytes": 600, "seconds": {"median": 3.0}}, {"copy_bytes": 400.0})
    (0.5, 'copy')
    """
    kind, work = ("product", kernel["flops"]) if kernel["flops"] else ("copy", kernel["bytes"])
    ceiling = floors.get({"product": "product_flops", "copy": "copy_bytes"}[kind])
    return (work / kernel["seconds"]["median"] / ceiling if ceiling else None), kind


def floors(device: str, threads: int, python: str) -> dict[str, Any]:
    """What the machine can do, measured in a process of its own: it sets how Numba compiles there."""
    python = python if device == "cuda" else sys.executable
    with member(Entry("floors", "floors", ""), python, threads, device) as worker:
        try:
            return worker.ask("floors", device=device, threads=threads)
        except PeerError as error:
            return {"error": str(error)}


def higher(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The higher of each floor: a ceiling that another process pressed down is none.

    >>> higher({"copy_bytes": 3.0, "fma_flops": 7.0}, {"copy_bytes": 5.0, "fma_flops": 6.0})
    {'copy_bytes': 5.0, 'fma_flops': 7.0}
    """
    both = before.keys() & after.keys() - {"error"}
    return {**before, **after, **{key: max(before[key], after[key]) for key in both}}


def _benchmarked(
    backends: Sequence[str], device: str, threads: int, quick: bool, rounds: int
) -> dict[str, Any]:
    """What pytest-benchmark writes of them, with what conftest adds."""
    # What the tests around it are asked for (coverage, workers) is not asked of a measured process.
    environ = {k: v for k, v in os.environ.items() if k not in UNSET and not k.startswith("PYTEST_")}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environ |= dict.fromkeys(counts, str(threads))
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="gpunn-kernels-") as folder:
        path = Path(folder) / "kernels.json"
        command = [sys.executable, "-m", "pytest", str(HERE / "test_ops.py"), "-q", "-p", "no:cacheprovider"]
        command += [f"--backend={name}" for name in backends] + ["--quick"] * quick
        command += ["--benchmark-disable-gc", "--benchmark-quiet", f"--benchmark-min-rounds={rounds}"]
        command += [f"--benchmark-json={path}", f"--benchmark-storage=file://{folder}"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if hasattr(os, "sched_setaffinity") and device == "cpu":
            os.sched_setaffinity(process.pid, cores()[-threads:])
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise KernelError(f"the kernels were not done after {PATIENCE:.0f} s") from None
        finally:
            process.kill()
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise KernelError(f"no kernel was timed: {said[-2000:].strip()}") from None


def _kernel(found: Mapping[str, Any]) -> dict[str, Any]:
    stats = found["stats"]
    seconds = {key: float(f"{stats[key]:.6g}") for key in ("median", "min", "q1", "q3")}
    return {**found["extra_info"], "seconds": {**seconds, "rounds": stats["rounds"]}}
