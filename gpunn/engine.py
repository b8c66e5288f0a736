"""The device side of a training run: its programs, and the slots that last from step to step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import variants
from .backends.base import Backend, Memory, Runner
from .losses import Loss
from .metrics import Metric
from .ops import HYPER
from .optimizers import Optimizer
from .philox import key_of
from .program import Program
from .slots import Role
from .variants import Model, Targets

__all__ = ["Engine", "State"]

#: Step variants (batch sizes) kept ready to run, the least recently used dropped first.
CACHED_RUNNERS = 8

#: A copy of the slots that last, by name.
State = Mapping[str, Any]


class Engine:
    """Runs the steps of one run, and keeps what a step leaves to the next.

    Parameters
    ----------
    model, backend
        Of the network.
    theta : device array
        Its parameters, which the updates change in place.
    loss, optimizer, metrics
        What the programs are declared with.
    seed : int
        Of the dropout masks.
    targets : Targets
        The kind of targets to expect; others may come.

    Raises
    ------
    gpunn.GpunnError
        Where loss and network do not fit together.
    """

    def __init__(
        self,
        model: Model,
        backend: Backend,
        theta: Any,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Sequence[Metric],
        seed: int,
        targets: Targets,
    ) -> None:
        self.model = model
        self.backend = backend
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = metrics
        self.memory: Memory = {"theta": theta}
        self._runners: OrderedDict[tuple[Any, ...], Runner] = OrderedDict()
        self._sums: dict[Targets, dict[str, str]] = {}
        # Declared once, at the smallest size and without metrics, to learn which slots last.
        program = variants.training(model, loss, optimizer, 1, targets=targets)
        backend.prepared(program, self.memory, fused=False, keep_all=False)
        states = {name for name, slot in program.slots.items() if slot.role is Role.STATE}
        self._states = sorted(states & self.memory.keys())
        hyper = np.zeros(len(HYPER))
        for word, value in optimizer.hyper().items():
            hyper[HYPER[word]] = value
        self.write("hyper", hyper)
        self.write("first_bad", np.array([-1]))
        if "key" in self.memory:
            self.write("key", key_of(seed))

    # ------------------------------------------------------------------ programs

    def declare(self, batch: int, targets: Targets, *, gathered: bool = True) -> Program:
        """The program of one step on that many examples."""
        metrics = self.metrics if gathered else ()
        return variants.training(
            self.model, self.loss, self.optimizer, batch, metrics=metrics, targets=targets, gathered=gathered
        )

    def runner(self, batch: int, targets: Targets, *, gathered: bool = True) -> Runner:
        """That program, ready to run."""
        key = (batch, targets, gathered)
        if key not in self._runners:
            while len(self._runners) >= CACHED_RUNNERS:
                self._runners.popitem(last=False)
            program = self.declare(batch, targets, gathered=gathered)
            self._runners[key] = self.backend.load(program, self.memory)
        self._runners.move_to_end(key)
        return self._runners[key]

    def release(self) -> None:
        """Forget the data that the runners were bound to, so that nothing keeps them alive."""
        for runner in self._runners.values():
            runner.release()

    def bound(
        self, batch: int, targets: Targets, data: Mapping[str, Any], *, keep_all: bool = False
    ) -> Runner:
        """That program with its data; with ``keep_all`` every slot can be read after the step."""
        if keep_all:
            runner = self.backend.load(self.declare(batch, targets), self.memory, keep_all=True)
        else:
            runner = self.runner(batch, targets)
        runner.bind(**data)
        return runner

    # ------------------------------------------------------------------ what lasts

    def read(self, slot: str) -> NDArray[Any]:
        """A copy on the host."""
        return self.backend.download(self.memory[slot])

    def write(self, slot: str, values: NDArray[Any]) -> None:
        """Copy values into a slot."""
        self.backend.assign(self.memory[slot], values)

    def clear(self, slots: Iterable[str]) -> None:
        """Set slots to zero."""
        for slot in slots:
            self.write(slot, np.zeros(self.memory[slot].shape))

    def hyper(self, word: str) -> float:
        """One word of the hyper slot."""
        return float(self.read("hyper")[HYPER[word]])

    def set_hyper(self, word: str, value: float) -> None:
        """Change one word of the hyper slot."""
        hyper = self.read("hyper")
        hyper[HYPER[word]] = value
        self.write("hyper", hyper)

    @property
    def updates(self) -> int:
        """How many updates were made, as the device counts them."""
        return int(self.read("step")[0])

    @property
    def position(self) -> int:
        """How many examples of the epoch have been used, as the device counts them."""
        return int(self.read("cursor")[0])

    def rewind(self) -> None:
        """Go back to the first example."""
        self.clear(["cursor"])

    def sums(self, targets: Targets) -> dict[str, str]:
        """The slot of each metric's sum for targets of that kind, by the metric's name."""
        if not self.metrics:
            return {}
        if targets not in self._sums:
            program = self.declare(1, targets)
            self.backend.prepared(program, self.memory, fused=False, keep_all=False)
            self._sums[targets] = {
                metric.name: program.marks[f"metric.{metric.name}"] for metric in self.metrics
            }
        return self._sums[targets]

    @property
    def saved(self) -> list[str]:
        """The slots that a saved run holds beside the parameters."""
        return sorted(self.memory.keys() - {"theta", "grad"})

    def state(self) -> State:
        """A copy of everything that lasts, on the device."""
        return {name: self.backend.copy(self.memory[name]) for name in (*self.saved, "theta")}

    def restore(self, state: State) -> None:
        """Put a state back."""
        for name, values in state.items():
            self.backend.assign(self.memory[name], values)

    # ------------------------------------------------------------------ divergence

    @property
    def bad_loss(self) -> bool:
        """Whether a cost was not finite."""
        return int(self.read("first_bad")[0]) >= 0

    def all_finite(self, *, loss: bool = True) -> bool:
        """Whether Θ, the optimiser's state and the last cost are finite."""
        names = ("theta", *self._states, *(("loss",) if loss else ()))
        return all(self.backend.all_finite(self.memory[name]) for name in names)

    def find_bad_op(
        self, before: State, steps: int, replay: Callable[[int, bool], Runner]
    ) -> tuple[int, str]:
        """The number of the first update that gave a value that is not finite, and the op that did.

        Parameters
        ----------
        before : State
            From which the steps are run again.
        steps : int
            How many there were.
        replay : callable
            Makes the runner of a step, numbered from 0; told whether each slot has to be kept.
        """
        self.restore(before)
        good = 0
        while good < steps - 1:
            replay(good, False).run()
            if not self.all_finite():
                break
            good += 1
        self.restore(before)
        for number in range(good):
            replay(number, False).run()
        number, runner = self.updates + 1, replay(good, True)
        for position, op in enumerate(runner.program.ops):
            runner.step_op(position)
            if any(s and not np.isfinite(runner.read(s)).all() for s in op.outs):
                return (
                    number,
                    f"{op.label}: {op.name} gives {runner.program.formula(op)}, which is not finite",
                )
        return number, "no op when its step is run again"
