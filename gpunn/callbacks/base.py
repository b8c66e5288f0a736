"""What a callback is, and what gpunn's own ones share: checked options, an entry that is monitored."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import ArgumentError, GpunnError, UnknownNameError, unknown_name, whole_number
from ..history import History, lower_is_better

__all__ = ["Callback", "Configured", "Monitor", "Run", "WriteError", "as_callback", "as_number", "writing"]


class Run(Protocol):
    """What a callback may ask of the trainer that calls it, and change about it.

    ``stop`` ends the fit after this epoch; ``completed`` tells, at the end, whether it ended by itself;
    ``lr_scale`` multiplies the learning rate.
    """

    network: Any
    optimizer: Any
    history: History
    epochs_done: int
    stop: bool
    completed: bool
    lr_scale: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the run, so that ``gpunn.Trainer.load`` can go on from here."""


class Callback:
    """Something that is told how training goes; a subclass overrides what it needs.

    The trainer is a :class:`gpunn.Trainer`. A callback that raises ends the fit, and leaves the network
    usable and the history complete so far.

    Examples
    --------
    Stop at an accuracy, and keep a number of one's own in the history:

    >>> import gpunn, numpy as np
    >>> class Enough(gpunn.Callback):
    ...     def on_epoch_end(self, trainer, record):
    ...         record["size of Θ"] = float(np.linalg.norm(trainer.network.theta))
    ...         if record["accuracy"] > 0.9:
    ...             trainer.stop = True
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> history = net.fit(X, y, loss="cross_entropy", optimizer="adam", metrics=("accuracy",), epochs=1000,
    ...                   callbacks=[Enough()], verbose=0)
    >>> history["accuracy"][-1] > 0.9 and "size of Θ" in history and len(history) < 1000
    True
    """

    def on_fit_begin(self, trainer: Any) -> None:
        """Before the first epoch."""

    def on_progress(self, trainer: Any) -> None:
        """Within an epoch, between two minibatches, some times a second: the run can be saved here."""

    def on_epoch_end(self, trainer: Any, record: dict[str, Any]) -> None:
        """After each epoch; what is added to ``record`` stays in the history."""

    def on_fit_end(self, trainer: Any) -> None:
        """After the last epoch, and after an interruption or an error too: ``trainer.completed`` tells."""


class FunctionCallback(Callback):
    def __init__(self, function: Callable[[Run, dict[str, Any]], Any]) -> None:
        self.function = function

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
        self.function(trainer, record)


def as_callback(callback: Any) -> Callback:
    """A callback itself, or a function of (trainer, record) as one."""
    if isinstance(callback, Callback):
        return callback
    if not callable(callback) or isinstance(callback, type):
        raise ArgumentError(
            f"callback {callback!r} is not a gpunn.Callback object nor a function of (trainer, record)"
        )
    return FunctionCallback(callback)


class WriteError(GpunnError, OSError):
    """A callback cannot write its file: the disk is full, the folder cannot be made, or is not ours."""


class Configured(Callback):
    """A callback that shows its options."""

    _options: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}({options})"

    def _whole(self, name: str, value: Any, least: int) -> int:
        return whole_number(f"{type(self).__name__}: {name}", value, least)

    def _number(self, name: str, value: Any, low: float, high: float = math.inf, *, open_: bool) -> float:
        """The value as a finite float of at least ``low`` (above it where ``open_``) and below ``high``."""
        number = as_number(value)
        if number is None or not (low < number < high or (number == low and not open_)):
            most = "" if math.isinf(high) else f" and below {high:g}"
            least = "above" if open_ else "of at least"
            raise ArgumentError(
                f"{type(self).__name__}: {name} is {value!r}, expected a number {least} {low:g}{most}"
            )
        return number

    def _path(self, name: str, value: Any) -> str:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(path, str) or not path:
            raise ArgumentError(f"{type(self).__name__}: {name} is {value!r}, expected a path")
        return path


class Monitor:
    """One entry of the records, and the best value of it so far."""

    def __init__(self, owner: str, key: Any, mode: Any, min_delta: float = 0.0) -> None:
        if not isinstance(key, str) or not key:
            raise ArgumentError(
                f"{owner}: monitor is {key!r}, expected the name of an entry of the record, "
                f"such as 'val_loss'"
            )
        if mode not in ("auto", "min", "max"):
            raise unknown_name(f"mode of {owner}", mode, ("auto", "min", "max"))
        self.owner = owner
        self.key = key
        try:
            self.lower: bool = lower_is_better(key) if mode == "auto" else mode == "min"
        except ArgumentError as error:
            raise ArgumentError(f"{owner}: {error} with mode='min' or mode='max'") from error
        self.min_delta = min_delta
        self.best: float | None = None

    def value(self, record: Mapping[str, Any]) -> float:
        """The monitored number, or an error that tells what there is to monitor."""
        where = f"the record of epoch {record.get('epoch')}"
        numbers = ", ".join(key for key, value in record.items() if as_number(value) is not None)
        if self.key not in record:
            hint = "metrics= and callbacks that come earlier in the list add entries"
            if self.key.startswith("val_"):
                hint = "val_* entries need fit(..., validation_data=(X, y))"
            raise UnknownNameError(
                f"{self.owner}: {where} has no entry {self.key!r} to monitor; its numbers are {numbers}; "
                f"{hint}"
            )
        number = as_number(record[self.key])
        if number is None:
            raise ArgumentError(
                f"{self.owner}: {self.key!r} is a {type(record[self.key]).__name__} in {where}, "
                f"expected a number: monitor one of {numbers}"
            )
        return number

    def improves(self, value: float) -> bool:
        """Whether the value is better than the best by more than ``min_delta``; no NaN or infinity is."""
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.lower else value - self.best
        return gain > self.min_delta


def as_number(value: Any) -> float | None:
    """The value as a float, or ``None`` where it is no single number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None


@contextmanager
def writing(owner: str, path: Path) -> Iterator[None]:
    """Let errors of the file system name who wanted to write what."""
    try:
        yield
    except OSError as error:
        failure = WriteError(f"{owner}: cannot write {path}: {error}")
        failure.errno = error.errno
        raise failure from error
