"""The Trainer: minibatches, epochs, and everything that has to go on when a run is stopped and resumed.

Permutations depend on (seed, epoch) alone and the device counts its own steps, so the state of a run is a
handful of arrays: Θ, the optimiser's state, the counters.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import checkpoint, variants
from .backends.base import Backend, Memory, Runner
from .batches import Batches
from .device import backend_for
from .errors import (
    ArgumentError,
    DivergenceError,
    FormatError,
    GpunnError,
    GpunnWarning,
    ShapeError,
    whole_number,
)
from .history import History
from .interrupt import Interrupt
from .losses import Loss, loss_named
from .metrics import Metric, metrics_named
from .ops import HYPER
from .optimizers import Optimizer, optimizer_from_config, optimizer_named
from .program import Program
from .progress import Progress
from .slots import Role
from .variants import Model, Targets

__all__ = ["Callback", "History", "StepLoss", "Trainer"]

#: Seconds between two looks at Ctrl-C, the progress bar and the first-bad-step slot.
SLICE = 0.05

#: Step variants (batch sizes) kept ready to run.
CACHED_RUNNERS = 8


class Network(Protocol):
    """What a Trainer needs of a network."""

    model: Model
    backend: Backend
    memory: Memory
    seed: int
    loss: str | None
    history: History

    @property
    def dtype(self) -> str:
        """The dtype of parameters and activations."""

    @property
    def outputs(self) -> int:
        """The number of outputs of one example."""

    def config(self) -> dict[str, Any]:
        """What rebuilds the network."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The parameters on the host."""

    def evaluate_batches(
        self, batches: Batches, loss: Loss, metrics: Sequence[Metric], batch_size: int = ...
    ) -> dict[str, float]:
        """Loss and metrics over prepared data."""

    def _prepare(
        self,
        X: Any,
        y: Any,
        loss: Loss,
        sample_weight: Any = ...,
        class_weight: Any = ...,
        names: tuple[str, str] = ...,
    ) -> Batches: ...


class Callback:
    """Something that is told how training goes; a subclass overrides what it needs."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After each epoch; what is added to ``record`` stays in the history."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, and after an interruption too."""


class StepLoss:
    """The cost of one step, read from the device when asked for: ``float(loss)``.

    It can be read until the next step overwrites it.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._value: float | None = None

    def __float__(self) -> float:
        if self._value is None:
            self._value = self._read()
        return self._value

    def __repr__(self) -> str:
        return f"StepLoss({float(self):.6g})"


class Trainer:
    """Trains a network by minibatches; keeps its optimiser's state from one call to the next.

    Parameters
    ----------
    network : Sequential
        Trained in place.
    loss : str
        ``"quadratic"``, ``"mse"``, ``"cross_entropy"``, or one that was registered.
    optimizer : str or Optimizer
        Such as ``gpunn.SGD(lr=3.0)``.
    batch_size : int
        At least 1; the last minibatch of an epoch may be smaller.
    metrics : sequence of str
        Such as ``("accuracy",)``.

    Raises
    ------
    gpunn.GpunnError
        For arguments that cannot work.

    Examples
    --------
    >>> import gpunn, numpy as np
    >>> X = np.random.default_rng(0).standard_normal((200, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer=gpunn.SGD(lr=0.5), batch_size=10)
    >>> first, last = [trainer.epoch(X, y)["loss"] for _ in range(2)]
    >>> last < first
    True
    """

    def __init__(
        self,
        network: Network,
        *,
        loss: str,
        optimizer: str | Optimizer = "sgd",
        batch_size: int = 32,
        metrics: Sequence[str] = (),
    ) -> None:
        self.network = network
        self.loss = loss_named(loss)
        self.optimizer = optimizer_named(optimizer)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.metrics = metrics_named(metrics)
        self.seed = network.seed
        self.epochs_done = 0
        self.stop = False
        self.history = History(
            about={
                "network": network.config() | {"loss": self.loss.name},
                "loss": self.loss.name,
                "optimizer": repr(self.optimizer),
                "batch_size": self.batch_size,
                "seed": self.seed,
            }
        )
        self._pass: dict[str, Any] = {}
        self._order: Any = None
        self._steps = 0
        self._runners: dict[tuple[Any, ...], Runner] = {}
        self._memory: Memory = {"theta": network.memory["theta"]}
        # Declared once, at the smallest size, to learn which slots persist; also raises here, not later,
        # where loss and network do not fit together.
        self._persistent(
            self._declare(1, Targets(self.loss.takes_labels(self.network.outputs)), gathered=True)
        )

    # ------------------------------------------------------------------ training

    def epoch(
        self,
        X: Any,
        y: Any,
        *,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: Any = None,
        steps: int | None = None,
    ) -> dict[str, Any]:
        """Train on every example once; an epoch that was stopped is taken up where it stopped.

        Parameters
        ----------
        X, y, shuffle, sample_weight, class_weight
            As for :meth:`gpunn.Sequential.fit`. To go on with a stopped epoch, give the same data.
        steps : int, optional
            Stop after that many minibatches, even within the epoch.

        Returns
        -------
        dict
            The epoch's record (see :class:`gpunn.History`); with ``"partial": True`` where ``steps`` ended
            it before its last minibatch.
        """
        batches = self._batches(X, y, sample_weight, class_weight)
        limit = None if steps is None else whole_number("steps", steps, 1)
        return self._epoch(batches, shuffle, limit, lambda samples, loss, accuracy: None)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int = 1,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Sequence[Any] = (),
        verbose: int = 1,
    ) -> History:
        """Train for that many more epochs; arguments as for :meth:`gpunn.Sequential.fit`."""
        epochs = whole_number("epochs", epochs, 0)
        batches = self._batches(X, y, sample_weight, class_weight)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise ArgumentError("validation_data is not a pair: expected (X, y)")
            validation = self.network._prepare(
                *validation_data, self.loss, names=("validation X", "validation y")
            )
            validation.scan("fit")
        if not isinstance(callbacks, (list, tuple)):
            raise ArgumentError(f"callbacks is {callbacks!r}, expected a list of callbacks")
        told = [_as_callback(callback) for callback in callbacks]
        self.network.history = self.history
        last = self.epochs_done + epochs
        progress = Progress(epochs, batches.count, verbose, done=self._position())
        self.stop = False
        try:
            for callback in told:
                callback.on_fit_begin(self)
            while self.epochs_done < last and not self.stop:
                record = self._epoch(batches, shuffle, None, progress.advance)
                self.history.records.append(record)
                if validation is not None:
                    found = self.network.evaluate_batches(validation, self.loss, self.metrics)
                    record |= {f"val_{key}": value for key, value in found.items()}
                for callback in told:
                    callback.on_epoch_end(self, record)
                progress.epochs = max(epochs, last)
                progress.line(record)
        finally:
            progress.close()
            for callback in told:
                callback.on_fit_end(self)
        return self.history

    def step(self, x: Any, y: Any, *, sample_weight: Any = None) -> StepLoss:
        """One update on one minibatch of any size up to ``batch_size``.

        Returns
        -------
        StepLoss
            The minibatch's cost before the update; ``float()`` reads it from the device, until the next
            step overwrites it, and raises :class:`gpunn.DivergenceError` if it is not finite.
        """
        batches = self._batches(x, y, sample_weight, None, names=("x", "y"))
        if batches.count > self.batch_size:
            raise ShapeError(
                f"x has {batches.count} examples, the batch size is {self.batch_size}: "
                f"pass fewer, or use epoch()"
            )
        self.network.loss = self.loss.name
        runner = self._runner(batches.count, batches.targets, gathered=False)
        marks = runner.program.marks
        runner.write(marks["x"], batches.data["X"])
        runner.write(marks["target"], batches.data["T"])
        if "weight" in marks:
            runner.write(marks["weight"], batches.data["weights"])
        with Interrupt() as interrupt:
            runner.run()
        self._steps += 1
        if interrupt.requested:
            raise KeyboardInterrupt
        mine = self._steps

        def read() -> float:
            number = self.updates
            if self._steps != mine:
                raise ArgumentError(
                    f"the loss of step {number - self._steps + mine} is gone, step {number} has overwritten "
                    f"it: call float() on it before the next step"
                )
            batches.scan(f"step {number}")
            cost = float(self._read("loss")[0])
            if not np.isfinite(cost):
                raise DivergenceError(
                    f"step {number}: the loss is {cost}; the weights are no longer usable: lower lr (now "
                    f"{self.optimizer.lr:g}), or train by epoch(), which restores the last good ones"
                )
            return cost

        return StepLoss(read)

    def evaluate(self, X: Any, y: Any) -> dict[str, float]:
        """Mean loss and metrics over a data set of any size."""
        batches = self.network._prepare(X, y, self.loss)
        batches.scan("evaluate")
        return self.network.evaluate_batches(batches, self.loss, self.metrics)

    @property
    def updates(self) -> int:
        """How many updates were made, as the device counts them."""
        return int(self._read("step")[0])

    # ------------------------------------------------------------------ saving

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the whole state of the run: parameters, optimiser, counters, seed, history. Atomic."""
        states = {f"state.{name}": values for name, values in self._state().items()}
        config = {**self._config(), "network": self.network.config()}
        checkpoint.write(path, "run", config, {**self.network.tensors(), **states})

    def _config(self) -> dict[str, Any]:
        return {
            "loss": self.loss.name,
            "optimizer": {"class": type(self.optimizer).__name__, "config": self.optimizer.config()},
            "batch_size": self.batch_size,
            "metrics": [metric.name for metric in self.metrics],
            "seed": self.seed,
            "epochs_done": self.epochs_done,
            "pass": self._pass,
            "history": self.history.records,
        }

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: self._read(name) for name in self._saved}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies (``copy.deepcopy``, ``pickle``) are runs of their own, with a network of their own."""
        return _copied, (type(self), self.network, self._config(), self._state())

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> Trainer:
        """Load a run and go on as if it had never stopped.

        Raises
        ------
        gpunn.FormatError
            If the file is damaged, not gpunn's, or holds a network instead of a run.
        """
        backend_for(device)
        file = checkpoint.read(path)
        if file.kind != "run":
            raise FormatError(
                f"{path} holds a {file.kind}, expected a training run: use gpunn.load() for a network"
            )
        config = file.config
        network = checkpoint.build_network(file, config.get("network"), device)
        try:
            trainer = cls._rebuild(
                network, config, lambda name, shape, dtype: file.tensor(f"state.{name}", shape, dtype)
            )
        except FormatError:
            raise
        except (GpunnError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise FormatError(f"{path}: its run cannot be rebuilt: {error}") from error
        network.history = trainer.history
        return trainer

    @classmethod
    def _rebuild(
        cls,
        network: Network,
        config: Mapping[str, Any],
        state: Callable[[str, tuple[int, ...], str], NDArray[Any]],
    ) -> Trainer:
        trainer = cls(
            network,
            loss=config["loss"],
            optimizer=optimizer_from_config(config["optimizer"]["class"], config["optimizer"]["config"]),
            batch_size=config["batch_size"],
            metrics=config["metrics"],
        )
        trainer.seed = whole_number("seed", config["seed"], 0)
        trainer.epochs_done = whole_number("epochs_done", config["epochs_done"], 0)
        trainer._pass = dict(config["pass"])
        trainer.history.records = [dict(record) for record in config["history"]]
        for name in trainer._saved:
            array = trainer._memory[name]
            trainer._backend.assign(array, state(name, tuple(array.shape), str(array.dtype)))
        position = trainer._position()
        if position or trainer._pass:
            count = whole_number("count", trainer._pass["count"], 1)
            if not 0 <= position < count:
                raise ArgumentError(f"the cursor is {position}, outside the {count} examples")
            if not math.isfinite(trainer._pass["seconds"]):
                raise ArgumentError(f"the seconds of the epoch are {trainer._pass['seconds']}")
        return trainer

    # ------------------------------------------------------------------ inside

    @property
    def _backend(self) -> Backend:
        return self.network.backend

    def _batches(
        self, X: Any, y: Any, sample_weight: Any, class_weight: Any, names: tuple[str, str] = ("X", "y")
    ) -> Batches:
        return self.network._prepare(X, y, self.loss, sample_weight, class_weight, names)

    def _declare(self, batch: int, targets: Targets, *, gathered: bool) -> Program:
        return variants.training(
            self.network.model,
            self.loss,
            self.optimizer,
            batch,
            metrics=self.metrics if gathered else (),
            targets=targets,
            gathered=gathered,
        )

    def _persistent(self, program: Program) -> None:
        """Make the slots that last from step to step, with their first values."""
        self._backend.prepared(program, self._memory, fused=False, keep_all=False)
        self._saved = sorted(
            name
            for name, slot in program.slots.items()
            if slot.role in (Role.STATE, Role.HYPER) and slot.base is None and name in self._memory
        )
        self._states = [name for name in self._saved if program.slots[name].role is Role.STATE]
        hyper = np.zeros(len(HYPER))
        for name, value in self.optimizer.hyper().items():
            hyper[HYPER[name]] = value
        self._backend.assign(self._memory["hyper"], hyper)
        self._backend.assign(self._memory["first_bad"], np.array([-1]))

    def _runner(self, batch: int, targets: Targets, *, gathered: bool) -> Runner:
        key = (batch, targets, gathered)
        if key not in self._runners:
            while len(self._runners) >= CACHED_RUNNERS:
                del self._runners[next(iter(self._runners))]
            program = self._declare(batch, targets, gathered=gathered)
            self._runners[key] = self._backend.load(program, self._memory)
        return self._runners[key]

    def _read(self, slot: str) -> NDArray[Any]:
        return self._backend.download(self._memory[slot])

    def _position(self) -> int:
        return int(self._read("cursor")[0])

    def _begin(self, batches: Batches, shuffle: bool) -> NDArray[Any]:
        """Start an epoch, or check that these data are those of the epoch that was stopped."""
        labels, weighted = batches.targets.labels, batches.targets.weighted
        now = {"count": batches.count, "shuffle": bool(shuffle), "labels": labels, "weighted": weighted}
        now["fingerprint"] = batches.fingerprint()
        if self.updates == 0:
            self._warn_of_zeros()
        self.network.loss = self.loss.name
        if self._position() == 0:
            self._pass = {**now, "seconds": 0.0}
            for name in ("loss_sum", *(metric.slot for metric in self.metrics)):
                self._backend.assign(self._memory[name], np.zeros(self._memory[name].shape))
        elif {key: self._pass.get(key) for key in now} != now:
            raise ArgumentError(
                f"epoch {self.epochs_done + 1} was stopped after {self._position()} of "
                f"{_described(self._pass)}; to go on, give the same data and shuffle, got {_described(now)}"
            )
        if not shuffle:
            return np.arange(batches.count)
        return np.random.default_rng([self.seed, 1, self.epochs_done]).permutation(batches.count)

    def _warn_of_zeros(self) -> None:
        """Units that start alike stay alike: all-zero weights make every hidden layer one unit wide."""
        tensors = [values for values in self.network.tensors().values() if values.ndim > 1]
        if len(tensors) > 1 and not any(values.any() for values in tensors):
            warnings.warn(
                "every weight of this network is zero: the units of a hidden layer are alike and will stay "
                "alike; start from weights='glorot_uniform' or another random initialiser",
                GpunnWarning,
                stacklevel=4,
            )

    def _epoch(
        self,
        batches: Batches,
        shuffle: bool,
        limit: int | None,
        progress: Callable[[int, float, float | None], None],
    ) -> dict[str, Any]:
        order = self._begin(batches, shuffle)
        if self._order is None or len(order) != len(self._order):
            self._order = self._backend.zeros(order.shape, "int64")
        self._backend.assign(self._order, order)
        data = {"perm": self._order, **batches.data}
        kept = {name: self._backend.copy(self._memory[name]) for name in (*self._saved, "theta")}
        started, steps_before, epochs_before = time.perf_counter(), self.updates, self.epochs_done
        with Interrupt() as interrupt:
            try:
                position = self._minibatches(batches, data, kept, limit, progress, interrupt)
                self._pass["seconds"] += time.perf_counter() - started
                self._steps += self.updates - steps_before
                record = self._record(position)
                if position < batches.count:
                    record["partial"] = True
                else:
                    self._backend.assign(self._memory["cursor"], np.zeros(1))
                    self.epochs_done = epochs_before + 1
            except KeyboardInterrupt:
                # A second Ctrl-C came in the middle of something: this call never happened.
                self._restore(kept)
                self.epochs_done = epochs_before
                raise
        if interrupt.requested:
            if "partial" not in record:
                self.history.records.append(record)
            raise KeyboardInterrupt
        return record

    def _minibatches(
        self,
        batches: Batches,
        data: Mapping[str, Any],
        kept: Mapping[str, Any],
        limit: int | None,
        progress: Callable[[int, float, float | None], None],
        interrupt: Interrupt,
    ) -> int:
        """Run minibatches to the end of the epoch, to the limit, or to Ctrl-C; returns where that is."""
        position, count, chunk = self._position(), batches.count, 1
        bound: Runner | None = None
        while position < count and limit != 0 and not interrupt.requested:
            full = (count - position) // self.batch_size
            steps = min(full or 1, chunk, limit if limit is not None else chunk)
            rows = self.batch_size if full else count - position
            runner = self._runner(rows, batches.targets, gathered=True)
            if runner is not bound:
                runner.bind(**data)
                bound = runner
            tick = time.perf_counter()
            runner.run(steps)
            moved, position = self._position() - position, self._position()
            chunk = _next_chunk(steps, time.perf_counter() - tick)
            limit = None if limit is None else limit - steps
            if int(self._read("first_bad")[0]) >= 0:
                self._diverged(batches, data, kept)
            progress(moved, *self._running_means(position))
        if not self._all_finite():
            self._diverged(batches, data, kept)
        return position

    def _running_means(self, position: int) -> tuple[float, float | None]:
        total = self._read("loss_sum")
        accuracy = None
        if any(metric.name == "accuracy" for metric in self.metrics):
            accuracy = float(self._read("sum.accuracy")[0]) / position
        return float(total[0] / total[1]) if total[1] else 0.0, accuracy

    def _record(self, position: int) -> dict[str, Any]:
        total = self._read("loss_sum")
        mass = float(total[1]) or 1.0
        record: dict[str, Any] = {"epoch": self.epochs_done + 1, "loss": float(total[0] / mass)}
        if self.optimizer.l2:
            record["penalty"] = float(total[2] / mass)
        for metric in self.metrics:
            record[metric.name] = float(self._read(metric.slot)[0]) / position
        return record | {"seconds": self._pass["seconds"], "samples": position, "updates": self.updates}

    def _restore(self, kept: Mapping[str, Any]) -> None:
        for name, values in kept.items():
            self._backend.assign(self._memory[name], values)

    def _diverged(self, batches: Batches, data: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        """Put the last good weights back, then find the op that first gave a value that is not finite."""
        last = self.updates
        self._restore(kept)
        batches.scan("training")
        good = before = self.updates
        while good < last:
            self._replay_runner(batches, data).run()
            if not self._all_finite():
                break
            good += 1
        self._restore(kept)
        for _ in range(good - before):
            self._replay_runner(batches, data).run()
        runner = self._replay_runner(batches, data, keep_all=True)
        found = "no op when its step is run again"
        for position, op in enumerate(runner.program.ops):
            runner.step_op(position)
            if any(s and not np.isfinite(runner.read(s)).all() for s in op.outs):
                found = f"{op.label}: {op.name} gives {runner.program.formula(op)}, which is not finite"
                break
        self._restore(kept)
        raise DivergenceError(
            f"training diverged at step {good + 1} (epoch {self.epochs_done + 1}): {found}. "
            f"The last good weights are back. Lower lr (now {self.optimizer.lr:g}), scale the inputs, or "
            f"start from smaller weights"
        )

    def _all_finite(self) -> bool:
        """Whether Θ, the optimiser's state and the last cost are finite."""
        arrays = (self._memory[name] for name in ("theta", "loss", *self._states))
        return all(self._backend.all_finite(array) for array in arrays)

    def _replay_runner(self, batches: Batches, data: Mapping[str, Any], keep_all: bool = False) -> Runner:
        rows = min(self.batch_size, batches.count - self._position())
        if keep_all:
            program = self._declare(rows, batches.targets, gathered=True)
            runner = self._backend.load(program, self._memory, keep_all=True)
        else:
            runner = self._runner(rows, batches.targets, gathered=True)
        runner.bind(**data)
        return runner


def _described(data: Mapping[str, Any]) -> str:
    """What an epoch goes through, in words."""
    kind = "labels" if data.get("labels") else "targets"
    weighted = ", weighted" if data.get("weighted") else ""
    content = f", content {data.get('fingerprint')}"
    return f"{data.get('count')} examples (shuffle={data.get('shuffle')}) with {kind}{weighted}{content}"


def _next_chunk(steps: int, seconds: float) -> int:
    """As many steps as fill a slice, growing at most tenfold at a time."""
    wanted = steps * SLICE / seconds if seconds > 0 else steps * 10
    return int(max(1, min(wanted, steps * 10)))


def _copied(
    cls: type[Trainer], network: Network, config: Mapping[str, Any], states: Mapping[str, NDArray[Any]]
) -> Trainer:
    return cls._rebuild(network, config, lambda name, shape, dtype: states[name])


class _FunctionCallback(Callback):
    def __init__(self, function: Callable[[Trainer, dict[str, Any]], Any]) -> None:
        self.function = function

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.function(trainer, record)


def _as_callback(callback: Any) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if not callable(callback) or isinstance(callback, type):
        raise ArgumentError(
            f"callback {callback!r} is not a gpunn.Callback object nor a function of (trainer, record)"
        )
    return _FunctionCallback(callback)
