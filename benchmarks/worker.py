"""The process of one peer: it reads a command a line, answers a line, and waits.

Runs in the peer's own Python, ``python -m benchmarks.worker``; what a framework prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Worker:
    """One peer, its problem and its place in the order of the minibatches."""

    def load(self, folder: str, module: str, options: dict, change: dict, **setting: Any) -> dict:
        """Import the peer and give it the problem."""
        from .workloads import Order, Problem

        self.peer = self.order = None
        gc.collect()
        imported = time.perf_counter()
        cls = importlib.import_module(module).Peer
        made = time.perf_counter()
        problem = Problem.load(Path(folder), change)
        given = time.perf_counter()
        self.memory_before = peak_memory()
        self.peer, self.order = cls(problem, **setting, **options), Order(problem)
        end = time.perf_counter()
        return {"import_seconds": made - imported, "set_up_seconds": end - given, **self.told()}

    def check(self, steps: int, folder: str) -> dict:
        """Train on the first minibatches; their costs, and the parameters in a file."""
        import numpy as np

        start = time.perf_counter()
        losses = np.asarray(self.peer.run(steps, self.order), float).reshape(-1)
        seconds = time.perf_counter() - start
        arrays = [np.asarray(array, float) for layer in self.peer.parameters() for array in layer]
        path = Path(folder) / f"theta-{os.getpid()}.npy"
        np.save(path, np.concatenate([array.reshape(-1) for array in arrays]))
        return {"losses": losses.tolist(), "theta": str(path), "first_run_seconds": seconds}

    def costs(self, steps: int) -> dict:
        """Train on; the cost of each minibatch."""
        found: list[float] = []
        while len(found) < steps:
            count = min(steps - len(found), self.order.left or self.order.per_epoch)
            found += [float(cost) for cost in self.peer.run(count, self.order)]
        return {"losses": found}

    def time(self, steps: int) -> dict:
        """Train on minibatches, and say how long each took."""
        begun = self.order.done
        gc.collect()
        gc.disable()
        stolen, busy = steal(), time.process_time()
        start = time.perf_counter()
        done, losses = 0, []
        while done < steps:
            count = min(steps - done, self.order.left or self.order.per_epoch)
            losses.append((count, self.peer.run(count, self.order)))
            done += count
        seconds = time.perf_counter() - start
        busy, stolen = time.process_time() - busy, steal() - stolen
        gc.enable()
        device = getattr(self.peer, "device_seconds", lambda: None)()
        return {
            "seconds": seconds,
            "busy": busy,
            "stolen": stolen,
            "device_seconds": device,
            "loss": sum(count * float(sum(map(float, each)) / len(each)) for count, each in losses) / steps,
            "minibatches": (begun, begun + steps),
        }

    def floors(self, device: str, threads: int) -> dict:
        """What the machine itself can do."""
        from .floors import measure

        return measure(device, threads)

    def told(self) -> dict:
        """What this process computes with."""
        return {"fixed": getattr(self.peer, "fixed", False), "python": platform.python_version()}

    def close(self) -> dict:
        """Memory, and the versions and threads of the libraries that were used."""
        from .environment import blas, versions

        return {
            "memory": {
                "peak_bytes": peak_memory(),
                "before_bytes": self.memory_before,
                "device_peak_bytes": getattr(self.peer, "device_memory", lambda: None)(),
            },
            "versions": versions(),
            "blas": blas(),
        }


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held."""
    try:  # Not getrusage: its figure begins with what the process held that started this one.
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def steal() -> float:
    """Seconds that the host of a virtual machine kept its processors, over all of them."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(words[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def die_with_the_harness() -> None:
    """Have Linux kill this process when its parent is gone: a stopped one would stay for ever."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # Its name in prctl(2).
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    die_with_the_harness()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            found = getattr(worker, command.pop("do"))(**command)
        except KeyboardInterrupt:
            return
        except BaseException as error:  # Whatever a peer does, the others go on.
            kind = type(error).__name__
            found = {"error": f"{kind}: {error}".strip().removesuffix(":"), "kind": kind}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
