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
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
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
#: (scikit-learn clips probabilities at float32's ε when it computes a cost: 5e-4 here, its parameters agree.)
COSTS, MOVES = 1e-3, 2.5e-3

#: How far the mean cost of a run of the timed length may be from gpunn's over the same minibatches: it may be
#: another compilation than what was compared step by step, and rounding has had time to grow.
TIMED = 0.1

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
        self._answers: queue.Queue[str] = queue.Queue()
        self._heard = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        try:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._heard,
                text=True,
                env=environ,
                start_new_session=True,  # Ctrl-C is the harness's; children stop with it.
            )
        except OSError as error:
            self._heard.close()
            raise PeerError("absent", f"its Python cannot be started: {error}") from error
        if hasattr(os, "sched_setaffinity") and device == "cpu":
            os.sched_setaffinity(self.process.pid, cores()[-threads:])
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
        if hasattr(signal, name) and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, getattr(signal, name))

    def _last_words(self) -> str:
        self._heard.seek(0)
        return self._heard.read()[-2000:].decode(errors="replace").strip()

    def end(self) -> None:
        self._signal("SIGKILL")
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
    """The record of one workload: who took how long for a step, in every repeat, and all to judge it by.

    Raises
    ------
    PeerError
        If nobody can be timed, or gpunn itself cannot say what is right.
    """
    if setting.device == "cuda" and gpu() is None:
        raise PeerError("absent", "nvidia-smi finds no GPU here")
    _clean_up()
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-") as name:
        return _Comparison(workload, list(entries), setting, Path(name), tell).done()


#: Begins the name of a folder with a problem; the number of the process follows.
TEMPORARY = "gpunn-benchmark-"


def _clean_up() -> None:
    """Remove what a killed run left behind: it is as large as its data."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        number = folder.name.removeprefix(TEMPORARY).split("-")[0]
        if number.isdecimal() and not Path(f"/proc/{number}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)


class _Comparison:
    """One workload, everyone, all sittings."""

    def __init__(
        self,
        workload: Workload,
        entries: list[Entry],
        setting: Setting,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.workload, self.setting, self.folder, self.tell = workload, setting, folder, tell
        self.threads = setting.threads_for(workload)
        problem = make_problem(workload)
        problem.save(folder)
        self.first = [array for layer in problem.layers for array in layer]
        self.epoch = len(problem.X) // workload.batch
        self.most = min(workload.steps or self.epoch, self.epoch)
        self.steps: dict[str, int] = {}
        self.left = entries
        told = {key: value for key, value in asdict(setting).items() if key != "peer_python"}
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "workload",
            "workload": workload.describe(),
            "data": problem.data,
            "setting": {**told, "threads": self.threads},
            "environment": environment(),
            "peers": {},
            "without": {},
            "floors": [],
        }

    def done(self) -> dict[str, Any]:
        """The record, with everybody's times."""
        self.tell("what gpunn computes in float64")
        self.expected = self._expected()
        for sitting in range(self.setting.sittings):
            self.record["floors"].append(self._floors())
            self._sitting(f"sitting {sitting + 1} of {self.setting.sittings}")
        self.record["gpu_after"] = gpu()
        if not self.record["peers"]:
            told = "; ".join(f"{each['label']}: {each['why']}" for each in self.record["without"].values())
            raise PeerError("absent", f"nobody could be timed. {told}")
        return self.record

    def _member(self, entry: Entry, device: str | None = None) -> Any:
        python = sys.executable if entry.ours else self.setting.peer_python
        return member(entry, python, self.threads, device or self.setting.device)

    def _expected(self) -> dict[str, Any]:
        """Costs and parameters of the first minibatches by gpunn's numpy backend in float64.

        ``costs`` goes on: whole runs of the timed length are held against it.
        """
        entry = replace(OURS["numpy"], options={"backend": "numpy", "dtype": "float64", "singly": True})
        horizon = 3 * self.epoch if self.most == self.epoch else self.workload.checked + 3 * self.most
        with self._member(entry, "cpu") as worker:
            self._load(worker)
            found = self._checked(worker)
            costs = worker.ask("costs", steps=horizon - self.workload.checked)["losses"]
        return {**found, "costs": np.array(found["losses"] + costs)}

    def _floors(self) -> dict[str, Any]:
        """What the machine can do, measured in a process of its own between the sittings."""
        ours = self.setting.device != "cuda"
        with self._member(Entry("floors", "floors", "", ours=ours)) as worker:
            try:
                return worker.ask("floors", device=self.setting.device, threads=self.threads)
            except PeerError as error:
                return {"error": str(error)}

    def _load(self, worker: Member) -> dict[str, Any]:
        return worker.ask(
            "load",
            folder=str(self.folder),
            module=worker.entry.module,
            options=dict(worker.entry.options),
            change=dict(worker.entry.change),
            device=self.setting.device,
            threads=self.threads,
            precision=self.setting.precision,
        )

    def _checked(self, worker: Member) -> dict[str, Any]:
        found = worker.ask("check", steps=self.workload.checked, folder=str(self.folder))
        path = Path(found.pop("theta"))
        found["theta"] = np.load(path)
        path.unlink()
        return found

    def _sitting(self, told: str) -> None:
        """Everyone once, from new processes."""
        with contextlib.ExitStack() as stack:
            members = [ready for entry in self.left if (ready := self._ready(stack, entry)) is not None]
            for repeat in range(self.setting.repeats):
                self.tell(f"{told}, repeat {repeat + 1} of {self.setting.repeats}")
                turn = repeat % max(1, len(members))  # Nobody always follows the same one.
                for worker in members[turn:] + members[:turn]:
                    if worker in members and not self._timed(worker):
                        members.remove(worker)
            for worker in list(members):
                try:
                    self.record["peers"][worker.entry.name]["sittings"][-1] |= worker.ask("close")
                except PeerError as error:
                    self._leave(worker.entry, error)
                    members.remove(worker)
            self.left = [worker.entry for worker in members]

    def _leave(self, entry: Entry, error: PeerError) -> None:
        told = {"label": entry.label, "status": error.status, "why": str(error)}
        self.record["without"][entry.name] = told
        self.record["peers"].pop(entry.name, None)
        self.tell(f"{entry.label} {error.status}: {error}")

    def _ready(self, stack: contextlib.ExitStack, entry: Entry) -> Member | None:
        """The worker of a peer that is there, computes what gpunn computes, and is warm; None without one."""
        self.tell(f"{entry.label}: starting")
        worker: Member | None = None
        try:
            if self.setting.device not in entry.devices and not (entry.ours and "cpu" in entry.devices):
                raise PeerError("absent", f"it has nothing for device {self.setting.device!r}")
            worker = stack.enter_context(self._member(entry))
            loaded = self._load(worker)
            checked = self._checked(worker)
            off, far, wrong = disagreement(checked, self.expected, self.first)
            if wrong:
                raise PeerError("refused", f"it computes something else: {wrong}")
            if loaded["fixed"]:  # From the first minibatch: what is left of an epoch would be compiled anew.
                self._load(worker)
            warm = self._warmed_up(worker, loaded["fixed"])
        except PeerError as error:
            if worker is not None:
                worker.end()
            self._leave(entry, error)
            return None
        known = {"label": entry.label, "ours": entry.ours, "sittings": []}
        self.record["peers"].setdefault(entry.name, known)["sittings"].append(
            {
                "steps": self.steps[entry.name],
                "import_seconds": loaded["import_seconds"],
                "set_up_seconds": loaded["set_up_seconds"],
                "first_run_seconds": checked["first_run_seconds"],
                "warm_up_seconds": warm,
                "costs_off": off,
                "parameters_off": far,
                "python": loaded["python"],
                **{key: [] for key in TOLD},
            }
        )
        return worker

    def _warmed_up(self, worker: Member, fixed: bool) -> float:
        """Find the number of minibatches that fills the budget; the seconds of the first run of so many.

        Runs grow until one really lasts half the budget: the first minibatches are slower than others.
        """
        name, budget = worker.entry.name, self.setting.budget
        least = min(self.most, LEAST)
        steps = self.most if fixed else self.steps.get(name, 1)
        while True:
            timed = self._run(worker, steps)
            long_enough = timed["seconds"] >= budget / 2 and steps >= least
            if long_enough or steps == self.most or name in self.steps:
                break
            wanted = round(budget / timed["seconds"] * steps)
            steps = min(self.most, max(least, wanted, steps + 1))
        self.steps[name] = steps
        return float(timed["seconds"])

    def _run(self, worker: Member, steps: int) -> dict[str, Any]:
        """A run whose mean cost is held against gpunn's over the same minibatches, where that is known."""
        timed = _finite(worker.ask("time", steps=steps))
        start, end = timed["minibatches"]
        if end <= len(self.expected["costs"]):
            known = float(self.expected["costs"][start:end].mean())
            if not abs(timed["loss"] - known) <= TIMED * abs(known):
                told = f"over minibatches {start + 1} to {end} its cost is {timed['loss']:.6g}"
                raise PeerError("refused", f"timed, it computes something else: {told}, gpunn's {known:.6g}")
        return timed

    def _timed(self, worker: Member) -> bool:
        """One repeat of one peer; False where it broke."""
        steps = self.steps[worker.entry.name]
        try:
            timed = _finite(worker.ask("time", steps=steps))
        except PeerError as error:
            self._leave(worker.entry, error)
            return False
        kept = self.record["peers"][worker.entry.name]["sittings"][-1]
        for key in TOLD:
            kept[key].append(None if timed[key] is None else float(f"{timed[key] / steps:.6g}"))
        return True


def _finite(timed: dict[str, Any]) -> dict[str, Any]:
    if not np.isfinite(timed["loss"]):
        raise PeerError("failed", f"its cost became {timed['loss']}")
    return timed


#: What is kept of each repeat, in seconds a step.
TOLD = ("seconds", "busy", "stolen", "device_seconds")

#: Minibatches of a repeat, at least, where a workload has so many.
LEAST = 3


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
        return off, far, f"{told}: {far:.1e} apart, allowed {MOVES:.1e}"
    return off, far, None


def _moved_apart(theirs: np.ndarray, ours: np.ndarray, start: np.ndarray) -> float:
    move = ours - start
    counted = np.abs(move) > 0.01 * np.sqrt(np.mean(move**2))
    if not counted.any():
        return float(np.max(np.abs(theirs - start)))
    return float(np.median(np.abs(theirs - ours)[counted] / np.abs(move)[counted]))
