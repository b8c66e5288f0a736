"""The Trainer: minibatches, epochs, and everything that has to go on when a run is stopped and resumed.

Permutations and dropout masks depend on (seed, epoch, step) alone and the device counts its own steps, so the
state of a run is a handful of arrays: Θ, the optimiser's state, the counters.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import checkpoint
from .arrays import on_gpu
from .backends.base import Backend, Memory, Runner
from .batches import Batches, check_metrics, prepared
from .callbacks.base import Callback, as_callback
from .device import backend_for
from .engine import Engine, State
from .errors import (
    ArgumentError,
    DivergenceError,
    FormatError,
    GpunnError,
    ShapeError,
    warn,
    whole_number,
)
from .history import History
from .interrupt import Interrupt
from .losses import Loss, loss_named
from .metrics import Metric, metrics_named
from .optimizers import Optimizer, optimizer_from_config, optimizer_named
from .progress import Progress
from .streams import Stream, is_pair, stream_of
from .variants import Model, Targets

__all__ = ["History", "StepLoss", "Trainer"]

#: Seconds between two looks at Ctrl-C, the progress bar and the first-bad-step slot.
SLICE = 0.05

#: Minibatches of a stream that are held, with a snapshot from before them: how many, or what they take.
HELD, HELD_BYTES = 32, 1 << 28


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
        self, batches: Iterable[Batches], loss: Loss, metrics: Sequence[Metric], batch_size: int = ...
    ) -> dict[str, Any]:
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
        A name of :data:`gpunn.losses.LOSSES`, such as ``"quadratic"`` or ``"cross_entropy"``.
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
        loss: str | Loss,
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
        self.completed = False
        self.history = History(
            about={
                "network": _described_network(network) | {"loss": self.loss.name},
                "loss": self.loss.name,
                "optimizer": repr(self.optimizer),
                "batch_size": self.batch_size,
                "seed": self.seed,
            }
        )
        self._lr_scale = self._kept_scale = 1.0
        self._open = False
        self._last: Batches | None = None
        self._stream_of_epochs: Stream | None = None
        self._pass: dict[str, Any] = {}
        self._order: Any = None
        self._drawn: NDArray[Any] | None = None
        self._chunk = 0, 1
        self._steps = 0
        # Raises here, not later, where loss and network do not fit together.
        self._engine = Engine(
            network.model,
            network.backend,
            network.memory["theta"],
            self.loss,
            self.optimizer,
            self.metrics,
            self.seed,
            Targets(self.loss.takes_labels(network.outputs)),
        )

    # ------------------------------------------------------------------ training

    def epoch(
        self,
        X: Any,
        y: Any = None,
        *,
        shuffle: bool | Callable[[int], Any] = True,
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
            Stop after that many minibatches, even within the epoch; of an iterable of batches, that many are
            an epoch.

        Returns
        -------
        dict
            The epoch's record (see :class:`gpunn.History`); with ``"partial": True`` where ``steps`` ended
            it before its last minibatch.
        """
        limit = None if steps is None else whole_number("steps", steps, 1)
        feed = self._feed(X, y, shuffle, sample_weight, class_weight, None if y is not None else limit)
        try:
            return self._epoch(feed, limit, lambda samples: None)
        finally:
            self._engine.release()

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        validation_data: Any = None,
        shuffle: bool | Callable[[int], Any] = True,
        sample_weight: Any = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
        callbacks: Sequence[Any] = (),
        verbose: int = 1,
    ) -> History:
        """Train for that many more epochs; arguments as for :meth:`gpunn.Sequential.fit`."""
        epochs = whole_number("epochs", epochs, 0)
        feed = self._feed(X, y, shuffle, sample_weight, class_weight, steps_per_epoch)
        if feed.stream is not None:
            feed.stream.check(epochs)
        validation = self._validation(validation_data)
        if not isinstance(callbacks, (list, tuple)):
            raise ArgumentError(f"callbacks is {callbacks!r}, expected a list of callbacks")
        told = [as_callback(callback) for callback in callbacks]
        self.network.history = self.history
        last = self.epochs_done + epochs
        total = None if feed.batches is None else epochs * feed.batches.count
        progress = Progress(last, total, verbose, done=self._engine.position)

        def moved(samples: int) -> None:
            if progress.shown:
                progress.advance(samples, *self._running_means())
            # After the last minibatch the epoch is neither open nor closed: nothing that could be resumed.
            if self._open:
                for callback in told:
                    callback.on_progress(self)

        self.stop = self.completed = False
        begun: list[Callback] = []
        try:
            for callback in told:
                begun.append(callback)
                callback.on_fit_begin(self)
            while self.epochs_done < last and not self.stop:
                record = self._epoch(feed, None, moved)
                if validation is not None:
                    found = self.network.evaluate_batches(validation(), self.loss, self.metrics)
                    record |= {f"val_{key}": _plain(value) for key, value in found.items()}
                for callback in told:
                    callback.on_epoch_end(self, record)
                progress.line(record)
            self.completed = True
        except BaseException as error:
            for failure in self._tell_of_end(begun):
                error.add_note(f"a callback's on_fit_end failed too: {failure!r}")
            raise
        finally:
            self._engine.release()
            progress.close()
        if failures := self._tell_of_end(begun):
            raise failures[0]
        return self.history

    def _tell_of_end(self, callbacks: Sequence[Callback]) -> list[BaseException]:
        """Tell the callbacks of the end; one that fails there keeps no other from being told."""
        failures = []
        for callback in callbacks:
            try:
                callback.on_fit_end(self)
            except BaseException as error:
                failures.append(error)
        return failures

    def _validation(self, data: Any) -> Callable[[], Iterable[Batches]] | None:
        """What is gone through after each epoch."""
        if data is None:
            return None
        names = ("validation X", "validation y")
        if is_pair(data, len(self.network.model.input_shape)):
            validation = self.network._prepare(data[0], data[1], self.loss, names=names)
            check_metrics(validation, self.metrics, self.loss)
            validation.scan("fit")
            return lambda: [validation]
        if isinstance(data, (tuple, list)) and all(isinstance(batch, (tuple, list)) for batch in data):
            batches = list(self._prepared(Stream(data, what="validation "), scan="fit"))
            return lambda: batches
        if isinstance(data, Iterator):
            raise ArgumentError(
                f"validation_data is a {type(data).__name__}, which can be gone through once: pass the "
                f"function that makes it, or a list of (x, y) batches"
            )
        table = isinstance(data, (tuple, list, Mapping, str, bytes)) or hasattr(data, "__array__")
        if callable(data) or (isinstance(data, Iterable) and not table):
            return lambda: self._prepared(Stream(data, what="validation "), scan="fit")
        raise ArgumentError(
            "validation_data is not a pair: expected (X, y), or a list or a loader of (x, y) batches, or a "
            "function that makes an iterable of them"
        )

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
        if self.optimizer.schedule is not None:
            if self.optimizer.schedule.unit == "epoch":
                raise ArgumentError(
                    f"{self.optimizer.schedule!r} counts epochs, and step() knows none: count with "
                    f"unit='step', or train by epoch()"
                )
            self._engine.set_hyper("lr", float(self._rates(self.updates, 1, 0)[0]))
        runner = self._engine.runner(batches.count, batches.targets, gathered=False)
        marks = runner.program.marks
        runner.write(marks["x"], batches.data["X"])
        runner.write(marks["target"], batches.data["T"])
        if "weight" in marks:
            runner.write(marks["weight"], batches.data["weights"])
        if on_gpu(x):
            self.network.backend.done_reading(x)
        with Interrupt() as interrupt:
            runner.run()
        self._steps += 1
        if interrupt.requested:
            raise KeyboardInterrupt
        mine, self._last = self._steps, batches

        def read() -> float:
            number = self.updates
            if self._steps != mine:
                raise ArgumentError(
                    f"the loss of step {number - self._steps + mine} is gone, step {number} has overwritten "
                    f"it: call float() on it before the next step"
                )
            # An infinite input may pass σ unseen, and spoil the update all the same.
            if self._last is not None:
                self._last.scan(f"step {number}")
            cost = float(self._engine.read("loss")[0])
            if not np.isfinite(cost):
                raise DivergenceError(
                    f"step {number}: the loss is {cost}; the weights are no longer usable: lower lr (now "
                    f"{self.lr:g}), or train by epoch(), which restores the last good ones"
                )
            return cost

        return StepLoss(read)

    def evaluate(self, X: Any, y: Any = None) -> dict[str, Any]:
        """Mean loss and metrics over a data set of any size, or over an iterable of (x, y) batches."""
        stream = stream_of(X, y)
        if stream is not None:
            prepared = self._prepared(stream, scan="evaluate")
            return self.network.evaluate_batches(prepared, self.loss, self.metrics)
        batches = self.network._prepare(X, y, self.loss)
        check_metrics(batches, self.metrics, self.loss)
        batches.scan("evaluate")
        return self.network.evaluate_batches([batches], self.loss, self.metrics)

    def rewind(self) -> None:
        """Give up an epoch that was stopped: the next one begins at its first example.

        The updates that were made stay made.
        """
        self._engine.rewind()

    @property
    def updates(self) -> int:
        """How many updates were made, as the device counts them."""
        return self._engine.updates

    @property
    def lr(self) -> float:
        """The learning rate of the last update; without a schedule also that of the next."""
        return self._engine.hyper("lr")

    @property
    def lr_scale(self) -> float:
        """What multiplies the learning rate, beside the schedule; a callback may change it."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, value: float) -> None:
        real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not real or not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"lr_scale is {value!r}, expected a finite number above 0")
        self._lr_scale = float(value)
        if self.optimizer.schedule is None:
            self._engine.set_hyper("lr", self.optimizer.lr * self._lr_scale)

    # ------------------------------------------------------------------ saving

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the whole state of the run: parameters, optimiser, counters, seed, history. Atomic."""
        states = {f"state.{name}": values for name, values in self._state().items()}
        config = {**self._config(), "network": self.network.config()}
        checkpoint.write(path, "run", config, {**self.network.tensors(), **states})

    def _config(self) -> dict[str, Any]:
        return {
            "loss": self.loss.name,
            "clip": self.loss.clip,
            "optimizer": {"class": type(self.optimizer).__name__, "config": self.optimizer.config()},
            "batch_size": self.batch_size,
            "metrics": [metric.name for metric in self.metrics],
            "seed": self.seed,
            "epochs_done": self.epochs_done,
            "lr_scale": self._lr_scale,
            "pass": self._pass,
            "history": self.history.records,
        }

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: self._engine.read(name) for name in self._engine.saved}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies (``copy.deepcopy``, ``pickle``) are runs of their own, with a network of their own."""
        return _copied, (type(self), self.network, self._config(), self._state())

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu", precision: str = "float32") -> Trainer:
        """Load a run and go on as if it had never stopped; arguments as for :func:`gpunn.load`.

        Raises
        ------
        gpunn.FormatError
            If the file is damaged, not gpunn's, or holds a network instead of a run.
        """
        backend_for(device, precision)
        file = checkpoint.read(path)
        if file.kind != "run":
            raise FormatError(
                f"{path} holds a {file.kind}, expected a training run: use gpunn.load() for a network"
            )
        config = file.config
        network = checkpoint.build_network(file, config.get("network"), device, precision)
        try:
            trainer = cls._rebuild(
                network, config, lambda name, shape, dtype: file.tensor(f"state.{name}", shape, dtype)
            )
        except FormatError:
            raise
        except (
            GpunnError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
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
            loss=replace(loss_named(config["loss"]), clip=config.get("clip", 0.0)),
            optimizer=optimizer_from_config(config["optimizer"]["class"], config["optimizer"]["config"]),
            batch_size=config["batch_size"],
            metrics=config["metrics"],
        )
        trainer.seed = whole_number("seed", config["seed"], 0)
        trainer.epochs_done = whole_number("epochs_done", config["epochs_done"], 0)
        trainer._lr_scale = float(config["lr_scale"])
        if not (trainer._lr_scale > 0 and math.isfinite(trainer._lr_scale)):
            raise ArgumentError(f"lr_scale is {trainer._lr_scale}")
        trainer._pass = dict(config["pass"])
        if trainer._pass:
            trainer._engine.sums(Targets(trainer._pass["labels"] is True, trainer._pass["weighted"] is True))
        trainer.history.records = [dict(record) for record in config["history"]]
        for name in trainer._engine.saved:
            array = trainer._engine.memory[name]
            trainer.network.backend.assign(array, state(name, tuple(array.shape), str(array.dtype)))
        position = trainer._engine.position
        if position or trainer._pass:
            count = whole_number("count", trainer._pass["count"], 1)
            if not 0 <= position <= count:
                raise ArgumentError(f"the cursor is {position}, outside the {count} examples")
            if not math.isfinite(trainer._pass["seconds"]):
                raise ArgumentError(f"the seconds of the epoch are {trainer._pass['seconds']}")
        return trainer

    # ------------------------------------------------------------------ inside

    def _batches(
        self, X: Any, y: Any, sample_weight: Any, class_weight: Any, names: tuple[str, str] = ("X", "y")
    ) -> Batches:
        return self.network._prepare(X, y, self.loss, sample_weight, class_weight, names)

    def _feed(
        self, X: Any, y: Any, shuffle: Any, sample_weight: Any, class_weight: Any, steps: int | None
    ) -> _Feed:
        stream = stream_of(X, y, steps)
        if stream is None:
            batches = self._batches(X, y, sample_weight, class_weight)
            check_metrics(batches, self.metrics, self.loss)
            return _Feed(batches, None, shuffle if callable(shuffle) else bool(shuffle), class_weight)
        last = self._stream_of_epochs
        if last is not None and last.source is stream.source and last.steps == stream.steps:
            stream = last  # It goes on where the last epoch stopped.
        self._stream_of_epochs = stream if stream.steps is not None else None
        if sample_weight is not None:
            raise ArgumentError("sample_weight comes with each batch of an iterable: (x, y, sample_weight)")
        if isinstance(class_weight, str):
            raise ArgumentError(
                f"class_weight is {class_weight!r}, and an iterable of batches does not tell how often each "
                f"class comes: give a mapping of label to weight"
            )
        return _Feed(None, stream, False, class_weight)

    def _rates(self, first: int, steps: int, in_epoch: int, start: int = 0) -> NDArray[np.float64]:
        """The learning rates of ``steps`` updates of the epoch from ``start`` on; ``first`` began it."""
        schedule = self.optimizer.schedule
        assert schedule is not None
        if not in_epoch and schedule.unit == "epoch":
            raise ArgumentError(
                f"{schedule!r} counts epochs, and these batches do not say how many make one: give "
                f"steps_per_epoch, or count with unit='step'"
            )
        lr = self.optimizer.lr * self._lr_scale
        return schedule.rates(lr, self.epochs_done, first, steps, in_epoch or 1, start)

    def _begin(self, batches: Batches, shuffle: Any) -> NDArray[Any]:
        """Start an epoch, or check that these data are those of the epoch that was stopped."""
        labels, weighted = batches.targets.labels, batches.targets.weighted
        now = {"count": batches.count, "shuffle": bool(shuffle), "labels": labels, "weighted": weighted}
        now["fingerprint"] = batches.fingerprint
        self._prepare_pass(batches.targets)
        if self._engine.position == 0:
            self._pass = {**now, "seconds": 0.0}
        elif {key: self._pass.get(key) for key in now} != now:
            raise ArgumentError(
                f"epoch {self.epochs_done + 1} was stopped after {self._engine.position} of "
                f"{_described(self._pass)}; to go on, give the same data and shuffle, got {_described(now)}; "
                f"to give that epoch up, call rewind()"
            )
        if callable(shuffle):
            return self._drawn_order(shuffle, batches.count)
        if not shuffle:
            return np.arange(batches.count)
        return np.random.default_rng([self.seed, 1, self.epochs_done]).permutation(batches.count)

    def _drawn_order(self, draw: Callable[[int], Any], count: int) -> NDArray[Any]:
        """The order that a function gives, once an epoch."""
        if self._engine.position == 0:
            self._drawn = None
            order = np.asarray(draw(count))
            if order.shape != (count,) or order.dtype.kind not in "iu":
                raise ArgumentError(
                    f"shuffle gave {order.dtype} {order.shape}, expected the places of the {count} examples "
                    f"in the order of the epoch: whole numbers ({count},)"
                )
            if count and not 0 <= order.min() <= order.max() < count:
                raise ShapeError(
                    f"shuffle gave numbers from {order.min()} to {order.max()}, expected places of the "
                    f"{count} examples, 0 to {count - 1}"
                )
            self._drawn = order.astype(np.int64)
        if self._drawn is None:
            raise ArgumentError(
                "the order of the epoch that was stopped came from a function, and files do not keep it: "
                "rewind() gives that epoch up"
            )
        return self._drawn

    def _prepare_pass(self, targets: Targets) -> None:
        """Empty the sums, unless an epoch goes on."""
        if self.updates == 0:
            self._warn_of_zeros()
        self.network.loss = self.loss.name
        sums = self._engine.sums(targets)
        if self._engine.position == 0:
            self._engine.clear({"loss_sum", *sums.values()})

    def _warn_of_zeros(self) -> None:
        """Units that start alike stay alike: all-zero weights make every hidden layer one unit wide."""
        tensors = [values for values in self.network.tensors().values() if values.ndim > 1]
        if len(tensors) > 1 and not any(values.any() for values in tensors):
            warn(
                "every weight of this network is zero: the units of a hidden layer are alike and will stay "
                "alike; start from weights='glorot_uniform' or another random initialiser"
            )

    def _epoch(self, feed: _Feed, limit: int | None, progress: Callable[[int], None]) -> dict[str, Any]:
        order = None if feed.batches is None else self._begin(feed.batches, feed.shuffle)
        kept, self._kept_scale = self._engine.state(), self._lr_scale
        steps_before, epochs_before = self.updates, self.epochs_done
        with Interrupt() as interrupt:
            try:
                if feed.batches is not None and order is not None:
                    whole = self._minibatches(feed.batches, order, kept, limit, progress, interrupt)
                else:
                    whole = self._stream(feed, kept, progress, interrupt)
                if interrupt.requested and "samples" not in self._pass:
                    raise KeyboardInterrupt  # Before the first minibatch: there is nothing to record.
                record = self._record()
                if whole:
                    self._engine.rewind()
                    self.epochs_done = epochs_before + 1
                    self.history.records.append(record)
                else:
                    record["partial"] = True
            except KeyboardInterrupt:
                # A second Ctrl-C came in the middle of something: this call never happened.
                self._put_back(kept)
                self.epochs_done = epochs_before
                raise
            finally:
                self._steps += max(0, self.updates - steps_before)
        if interrupt.requested:
            raise KeyboardInterrupt
        return record

    def _minibatches(
        self,
        batches: Batches,
        order: NDArray[Any],
        kept: State,
        limit: int | None,
        progress: Callable[[int], None],
        interrupt: Interrupt,
    ) -> bool:
        """Run minibatches to the end of the epoch (then True), to the limit, or to Ctrl-C."""
        if self._order is None or len(order) != len(self._order):
            self._order = self.network.backend.zeros(order.shape, "int64")
        self.network.backend.assign(self._order, order)
        data = {"perm": self._order, **batches.data}
        position, count = self._engine.position, batches.count
        # How many minibatches fill a slice is known from the epoch before, unless they were of another size.
        chunk = self._chunk[1] if self._chunk[0] == self.batch_size else 1
        if self.optimizer.schedule is not None:
            in_epoch = -(-count // self.batch_size)
            first = self.updates - position // self.batch_size
            self._engine.set_hyper("first_step", first)
            data["rates"] = self.network.backend.upload(self._rates(first, in_epoch, in_epoch), "float64")

        scale = self._lr_scale

        def again(number: int, keep_all: bool) -> Runner:
            if "rates" in data:
                self._engine.set_hyper("first_step", first)
            rows = min(self.batch_size, batches.count - self._engine.position)
            return self._engine.bound(rows, batches.targets, data, keep_all=keep_all)

        bound: Runner | None = None
        while position < count and limit != 0 and not interrupt.requested:
            full = (count - position) // self.batch_size
            steps = min(full or 1, chunk, limit if limit is not None else chunk)
            rows = self.batch_size if full else count - position
            runner = self._engine.runner(rows, batches.targets)
            if runner is not bound:
                runner.bind(checked=True, **data)
                bound = runner
            tick = time.perf_counter()
            runner.run(steps)
            before, position = position, self._engine.position
            seconds = time.perf_counter() - tick
            self._pass["seconds"] += seconds
            self._pass["samples"] = position
            told = bool(full) and steps == chunk  # A few steps before the end tell little.
            chunk = _next_chunk(steps, seconds)
            if told:
                self._chunk = self.batch_size, chunk
            limit = None if limit is None else limit - steps
            if self._engine.bad_loss:
                self._diverged(again, [batches], kept, kept)
            self._open = position < count
            progress(position - before)
            if "rates" in data and scale != self._lr_scale:  # A callback has changed it.
                data["rates"] = self.network.backend.upload(self._rates(first, in_epoch, in_epoch), "float64")
                bound, scale = None, self._lr_scale
        if not self._engine.all_finite():
            self._diverged(again, [batches], kept, kept)
        return position == count

    def _stream(
        self,
        feed: _Feed,
        kept: State,
        progress: Callable[[int], None],
        interrupt: Interrupt,
    ) -> bool:
        """Run the minibatches of a stream as they come; returns whether all of the epoch came.

        The last few are held, with a snapshot from before them, so that divergence can be explained.
        """
        assert feed.stream is not None
        if self._engine.position:
            raise ArgumentError(
                f"epoch {self.epochs_done + 1} was stopped after {self._engine.position} of "
                f"{_described(self._pass)}: go on with these data first, or give that epoch up by rewind()"
            )
        first, in_epoch, number = self.updates, len(feed.stream), 0
        held: list[tuple[Batches, Mapping[str, Any]]] = []
        snapshot, told = kept, time.perf_counter()
        moved = size = 0

        def again(number: int, keep_all: bool) -> Runner:
            batches, data = held[number]
            self._engine.rewind()
            if "rates" in data:
                self._engine.set_hyper("first_step", self.updates)
            return self._engine.bound(batches.count, batches.targets, data, keep_all=keep_all)

        def explain() -> None:
            # The newest first: it is to blame, even where a generator fills one buffer again and again.
            self._diverged(again, [batches for batches, _ in reversed(held)], snapshot, kept)

        for batches in self._prepared(feed.stream, feed.class_weight):
            if number == 0:
                self._prepare_pass(batches.targets)
                self._pass = {
                    "count": batches.count,
                    "shuffle": False,
                    "labels": batches.targets.labels,
                    "weighted": batches.targets.weighted,
                    "seconds": 0.0,
                    "samples": 0,
                }
                kept = snapshot = self._engine.state()
            tick = time.perf_counter()
            data = {"perm": self.network.backend.upload(np.arange(batches.count), "int64"), **batches.data}
            if self.optimizer.schedule is not None:
                rate = self._rates(first, 1, in_epoch, number)
                self._engine.set_hyper("first_step", first + number)
                data["rates"] = self.network.backend.upload(rate, "float64")
            if len(held) == HELD or size > HELD_BYTES:
                if not self._engine.all_finite():
                    explain()
                held, snapshot, size = [], self._engine.state(), 0
            held.append((batches, data))
            size += batches.data["X"].size * batches.data["X"].dtype.itemsize
            runner = self._engine.runner(batches.count, batches.targets)
            runner.bind(**data)
            runner.run()
            runner.release()
            self._engine.rewind()
            if self._engine.bad_loss:
                explain()
            number, moved = number + 1, moved + batches.count
            self._pass["seconds"] += time.perf_counter() - tick
            self._pass["samples"] += batches.count
            if time.perf_counter() - told >= SLICE:
                self._open = True
                progress(moved)
                moved, told = 0, time.perf_counter()
            if interrupt.requested:
                break
        if not self._engine.all_finite():
            explain()
        self._open = False
        progress(moved)
        return not interrupt.requested

    def _prepared(self, stream: Stream, class_weight: Any = None, scan: str = "") -> Iterator[Batches]:
        return prepared(stream, self.network._prepare, self.loss, self.metrics, class_weight, scan)

    def _running_means(self) -> tuple[float, float | None]:
        total = self._engine.read("loss_sum")
        accuracy = None
        for metric in self.metrics:
            if metric.name == "accuracy":
                accuracy = float(self._measured(metric))
        return float(total[0] / total[1]) if total[1] else 0.0, accuracy

    def _measured(self, metric: Metric) -> Any:
        targets = Targets(self._pass["labels"], self._pass["weighted"])
        return _plain(
            metric.finish(self._engine.read(self._engine.sums(targets)[metric.name]), self._pass["samples"])
        )

    def _record(self) -> dict[str, Any]:
        total = self._engine.read("loss_sum")
        mass = float(total[1]) or 1.0
        record: dict[str, Any] = {"epoch": self.epochs_done + 1, "loss": float(total[0] / mass)}
        if self.optimizer.has_penalty:
            record["penalty"] = float(total[2] / mass)
        for metric in self.metrics:
            record[metric.name] = self._measured(metric)
        about = {"lr": self.lr, "seconds": self._pass["seconds"], "samples": self._pass["samples"]}
        return record | about | {"updates": self.updates}

    def _diverged(
        self,
        replay: Callable[[int, bool], Runner],
        seen: Sequence[Batches],
        before: State,
        kept: State,
    ) -> None:
        """Find the op that first gave a value that is not finite; put the last good weights back; raise.

        Parameters
        ----------
        replay : callable
            Makes the runner of a step, numbered from ``before`` on; told whether each slot has to be kept.
        seen : sequence of Batches
            The data of these steps.
        before, kept : mapping
            The state before these steps, and the one to put back.
        """
        made, lr = self.updates, self.lr
        self._put_back(kept)
        for batches in seen:
            batches.scan("training")
        self._engine.restore(before)
        step, found = self._engine.find_bad_op(before, made - self.updates, replay)
        self._put_back(kept)
        where = f"training diverged at step {step} (epoch {self.epochs_done + 1}): {found}."
        if not self._engine.all_finite(loss=False):
            raise DivergenceError(
                f"{where} The weights or the optimiser's state were not finite before this epoch: load good "
                f"ones, or begin with a new network"
            )
        raise DivergenceError(
            f"{where} The last good weights are back. Lower lr (now {lr:g}), scale the inputs, or "
            f"start from smaller weights"
        )

    def _put_back(self, kept: State) -> None:
        self._engine.restore(kept)
        self._lr_scale = self._kept_scale


@dataclass(frozen=True)
class _Feed:
    """What an epoch goes through: a data set, or a stream of minibatches."""

    batches: Batches | None
    stream: Stream | None
    shuffle: bool | Callable[[int], Any]
    class_weight: Any


def _described_network(network: Network) -> dict[str, Any]:
    """Its configuration; what cannot be saved can be trained all the same."""
    try:
        return network.config()
    except ArgumentError:
        return {"class": type(network).__name__, "layers": repr(network)}


def _plain(value: Any) -> Any:
    """A measured value as JSON can hold it."""
    return value.tolist() if isinstance(value, np.ndarray) else value


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
    trainer = cls._rebuild(network, config, lambda name, shape, dtype: states[name])
    network.history = trainer.history
    return trainer
