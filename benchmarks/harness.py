"""Starts a worker for each peer, compares what they compute, then times them in turn.

One repeat is A B C ... and the repeats follow each other, so that what slows the machine down for a while
slows everyone down. While one worker runs the others are stopped by the operating system. Ratios are taken
within a repeat. A sitting is all of that with new processes; two sittings say how far a ratio can be trusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .environment import UNSET, cores, environment, gpu
from .peers import OURS, Entry
from .results import SCHEMA
from .workloads import Workload, make_problem

ROOT = Path(__file__).resolve().parent.parent

#: How far a peer may be from gpunn in float64 over the first minibatches: its costs, relative to the
#: largest, and how its parameters have moved. Of each W and b the median over the elements of the move's
#: relative error counts: under Adam, or behind a kink of ReLU, single elements are rounding alone, but
#: most of them are not.
COSTS, MOVES = 1e-3, 5e-3

#: Seconds a peer may take to start, to compile and train on the first minibatches, and for one repeat.
PATIENCE = 300.0


@dataclass(frozen=True)
class Setting:
    """How a comparison is done.

    ``budget``: seconds of one repeat of one peer, at most (not of those that compile a number of steps).
    """

    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    repeats: int = 11
    sittings: int = 2
    budget: float = 0.4
    peer_python: str = sys.executable

    def threads_for(self, workload: Workload) -> int:
        return self.threads or (1 if workload.threads == "one" else len(cores()))


#: What the kind of an error says of a peer.
ABSENT = {
    "ModuleNotFoundError": "absent",
    "ImportError": "absent",
    "DeviceError": "absent",
    "Unsupported": "left out",
}


class PeerError(Exception):
    """A peer is not there, does not do this workload, computes something else, or broke: why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Member:
    """A worker process, stopped unless it is asked something."""

    def __init__(self, entry: Entry, python: str, threads: int, device: str) -> None:
        self.entry = entry
        environ = {key: value for key, value in os.environ.items() if key not in UNSET}
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environ |= dict.fromkeys(counts, str(threads)) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if device == "cpu":
            environ["JAX_PLATFORMS"] = "cpu"
        environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._heard = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._heard,
            text=True,
            env=environ,
            start_new_session=True,  # Ctrl-C is the harness's to handle.
        )
        if hasattr(os, "sched_setaffinity") and device == "cpu":
            os.sched_setaffinity(self.process.pid, cores()[-threads:])
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Let the worker do something, and stop it again."""
        try:
            self._signal("SIGCONT")
            self.process.stdin.write(json.dumps({"do": do, **words}) + "\n")
            self.process.stdin.flush()
            answer = self._answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise PeerError("failed", f"no answer to {do!r} within {PATIENCE:.0f} s") from None
        except OSError as error:
            raise PeerError("failed", f"{error}: {self._last_words()}") from None
        if not answer:
            raise PeerError("failed", f"its process ended: {self._last_words()}")
        self._signal("SIGSTOP")
        found = json.loads(answer)
        if "error" in found:
            kind, why = found["kind"], found["error"]
            if kind in ABSENT:
                raise PeerError(ABSENT[kind], why.removeprefix(f"{kind}: "))
            raise PeerError("failed", why)
        return found

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):
            self.process.send_signal(getattr(signal, name))

    def _last_words(self) -> str:
        self._heard.seek(0)
        return self._heard.read()[-2000:].decode(errors="replace").strip()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._heard):
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def member(entry: Entry, python: str, threads: int, device: str) -> Any:
    found = Member(entry, python, threads, device)
    try:
        yield found
    finally:
        found.end()


def compare(
    workload: Workload,
    entries: Sequence[Entry],
    setting: Setting,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The record of one workload: who took how long for a step, in every repeat, and all to judge it by."""
    threads = setting.threads_for(workload)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "workload",
        "workload": workload.describe(),
        "setting": {**asdict(setting), "threads": threads},
        "environment": environment(),
        "peers": {},
        "without": {},
        "floors": [],
    }
    del record["setting"]["peer_python"]  # A path of this machine.
    with tempfile.TemporaryDirectory(prefix="gpunn-benchmark-") as name:
        folder = Path(name)
        problem = make_problem(workload)
        problem.save(folder)
        record["data"] = problem.data
        first = [array for layer in problem.layers for array in layer]
        tell("what gpunn computes in float64")
        expected = _expected(folder, workload, setting, threads)
        left = list(entries)
        for sitting in range(setting.sittings):
            record["floors"].append(_floors(setting, threads))
            left = _sitting(record, workload, sitting, left, folder, setting, threads, expected, first, tell)
    record["gpu_after"] = gpu()
    return record


def _expected(folder: Path, workload: Workload, setting: Setting, threads: int) -> dict[str, Any]:
    """Costs and parameters of the first minibatches by gpunn's numpy backend in float64."""
    entry = replace(OURS["numpy"], options={"backend": "numpy", "dtype": "float64", "singly": True})
    with member(entry, sys.executable, threads, "cpu") as worker:
        _load(worker, folder, setting, threads)
        return _checked(worker, folder, workload)


def _floors(setting: Setting, threads: int) -> dict[str, Any]:
    """What the machine can do, measured in a process of its own between the sittings."""
    python = setting.peer_python if setting.device == "cuda" else sys.executable
    with member(Entry("floors", "floors", ""), python, threads, setting.device) as worker:
        try:
            return worker.ask("floors", device=setting.device, threads=threads)
        except PeerError as error:
            return {"error": str(error)}


def _load(worker: Member, folder: Path, setting: Setting, threads: int) -> dict[str, Any]:
    entry = worker.entry
    return worker.ask(
        "load",
        folder=str(folder),
        module=entry.module,
        options=dict(entry.options),
        change=dict(entry.change),
        device=setting.device,
        threads=threads,
        precision=setting.precision,
    )


def _checked(worker: Member, folder: Path, workload: Workload) -> dict[str, Any]:
    found = worker.ask("check", steps=workload.checked, folder=str(folder))
    path = Path(found.pop("theta"))
    found["theta"] = np.load(path)
    path.unlink()
    return found


def disagreement(
    found: dict[str, Any], expected: dict[str, Any], first: Sequence[np.ndarray]
) -> tuple[float, float, str | None]:
    """How far a peer is from gpunn, in costs and in moves of parameters, and what to say of too far."""
    costs, known = np.array(found["losses"]), np.array(expected["losses"])
    steps = len(known)
    if len(costs) != steps:
        costs, known = costs.mean(keepdims=True), known.mean(keepdims=True)
    apart = np.abs(costs - known) / np.max(np.abs(known))
    off = float(apart.max())
    ends = np.cumsum([array.size for array in first])[:-1]
    moves = zip(np.split(found["theta"], ends), np.split(expected["theta"], ends), first, strict=True)
    far = max(_moved_apart(theirs, ours, start.reshape(-1).astype(float)) for theirs, ours, start in moves)
    if not off <= COSTS:
        at = int(np.argmax(~(apart <= COSTS)))
        which = f"of minibatch {at + 1}" if len(costs) == steps else f"over {steps} minibatches"
        return off, far, f"its cost {which} is {costs[at]:.6g}, gpunn's is {known[at]:.6g}"
    if not far <= MOVES:
        told = f"after {steps} minibatches its parameters have moved by other amounts than gpunn's"
        return off, far, f"{told}: {far:.1e} apart, allowed {MOVES:.0e}"
    return off, far, None


def _moved_apart(theirs: np.ndarray, ours: np.ndarray, start: np.ndarray) -> float:
    move = ours - start
    counted = np.abs(move) > 0.01 * np.sqrt(np.mean(move**2))
    if not counted.any():
        return float(np.max(np.abs(theirs - start)))
    return float(np.median(np.abs(theirs - ours)[counted] / np.abs(move)[counted]))


def _sitting(
    record: dict[str, Any],
    workload: Workload,
    sitting: int,
    entries: Iterable[Entry],
    folder: Path,
    setting: Setting,
    threads: int,
    expected: dict[str, Any],
    first: Sequence[np.ndarray],
    tell: Callable[[str], None],
) -> list[Entry]:
    """Everyone once, from new processes; who took part is returned."""
    epoch = len(np.load(folder / "y.npy", mmap_mode="r")) // workload.batch
    most = min(workload.steps or epoch, epoch)
    with contextlib.ExitStack() as stack:
        taking_part: list[tuple[Member, int]] = []

        def leave(entry: Entry, error: PeerError) -> None:
            record["without"][entry.name] = {"label": entry.label, "status": error.status, "why": str(error)}
            record["peers"].pop(entry.name, None)
            tell(f"{entry.label} {error.status}: {error}")

        for entry in entries:
            tell(f"{entry.label}: starting")
            if setting.device not in entry.devices and not (entry.ours and "cpu" in entry.devices):
                leave(entry, PeerError("absent", f"it has nothing for device {setting.device!r}"))
                continue
            python = sys.executable if entry.ours else setting.peer_python
            worker = stack.enter_context(member(entry, python, threads, setting.device))
            try:
                loaded = _load(worker, folder, setting, threads)
                checked = _checked(worker, folder, workload)
                off, far, wrong = disagreement(checked, expected, first)
                if wrong:
                    raise PeerError("refused", f"it computes something else: {wrong}")
                steps, warm = _warmed_up(worker, most, loaded["fixed"], setting.budget)
            except PeerError as error:
                worker.end()
                leave(entry, error)
                continue
            taking_part.append((worker, steps))
            known = record["peers"].setdefault(
                entry.name, {"label": entry.label, "ours": entry.ours, "sittings": []}
            )
            known["sittings"].append(
                {
                    "steps": steps,
                    "import_seconds": loaded["import_seconds"],
                    "set_up_seconds": loaded["set_up_seconds"],
                    "first_run_seconds": checked["first_run_seconds"],
                    "warm_up_seconds": warm,
                    "costs_off": off,
                    "parameters_off": far,
                    "seconds": [],
                    "busy": [],
                    "stolen": [],
                    "device_seconds": [],
                    "python": loaded["python"],
                }
            )
        for repeat in range(setting.repeats):
            tell(f"sitting {sitting + 1} of {setting.sittings}, repeat {repeat + 1} of {setting.repeats}")
            for worker, steps in list(taking_part):
                try:
                    timed = worker.ask("time", steps=steps)
                    if not np.isfinite(timed["loss"]):
                        raise PeerError("failed", f"its cost became {timed['loss']}")
                except PeerError as error:
                    leave(worker.entry, error)
                    taking_part.remove((worker, steps))
                    continue
                kept = record["peers"][worker.entry.name]["sittings"][-1]
                for key in ("seconds", "busy", "stolen", "device_seconds"):
                    kept[key].append(None if timed[key] is None else float(f"{timed[key] / steps:.6g}"))
        for worker, _ in taking_part:
            record["peers"][worker.entry.name]["sittings"][-1] |= worker.ask("close")
        return [worker.entry for worker, _ in taking_part]


def _warmed_up(worker: Member, steps: int, fixed: bool, budget: float) -> tuple[int, float]:
    """The number of minibatches that fill the budget, and the seconds of the first run of so many."""
    if not fixed:
        tried, most = 1, steps
        for share in (0.1, 1.0):  # The first minibatches are slower than all others.
            step = worker.ask("time", steps=tried)["seconds"] / tried
            tried = max(1, min(most, round(share * budget / step)))
        steps = tried
    return steps, worker.ask("time", steps=steps)["seconds"]
