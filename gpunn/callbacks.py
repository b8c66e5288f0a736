"""Ready callbacks: stop early, save the run, lower the learning rate, log to CSV and to TensorBoard.

They are told in the order of the list: what a callback adds to a record is seen by those after it. Put
:class:`Checkpoint` last, so that a file holds what the others have done in that epoch.
"""

from __future__ import annotations

import csv
import io
import math
import os
import socket
import string
import struct
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .errors import (
    ArgumentError,
    FormatError,
    GpunnError,
    GpunnWarning,
    UnknownNameError,
    unknown_name,
    whole_number,
)
from .history import lower_is_better
from .interrupt import Interrupt
from .training import Callback, Trainer

__all__ = [
    "CSVLog",
    "Checkpoint",
    "EarlyStopping",
    "MissingTensorBoardXError",
    "ReduceLROnPlateau",
    "TensorBoard",
    "WriteError",
]

#: Entries of a record that are no curve of their own in TensorBoard.
NO_CURVES = ("epoch", "seconds", "samples", "updates")


class WriteError(GpunnError, OSError):
    """A callback cannot write its file: the disk is full, the folder cannot be made, or is not ours."""


class MissingTensorBoardXError(GpunnError, ImportError):
    """The package tensorboardX cannot be imported, so nothing can be logged for TensorBoard."""


class _Configured(Callback):
    """A callback that shows its options."""

    _options: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}({options})"

    def _whole(self, name: str, value: Any, least: int) -> int:
        return whole_number(f"{type(self).__name__}: {name}", value, least)

    def _number(self, name: str, value: Any, low: float, high: float = math.inf, *, open_: bool) -> float:
        """The value as a finite float of at least ``low`` (above it where ``open_``) and below ``high``."""
        number = _as_number(value)
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


class _Monitor:
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
        self.lower: bool = lower_is_better(key) if mode == "auto" else mode == "min"
        self.min_delta = min_delta
        self.best: float | None = None

    def value(self, record: Mapping[str, Any]) -> float:
        """The monitored number, or an error that tells what there is to monitor."""
        where = f"the record of epoch {record.get('epoch')}"
        numbers = ", ".join(key for key, value in record.items() if _as_number(value) is not None)
        if self.key not in record:
            hint = "metrics= and callbacks that come earlier in the list add entries"
            if self.key.startswith("val_"):
                hint = "val_* entries need fit(..., validation_data=(X, y))"
            raise UnknownNameError(
                f"{self.owner}: {where} has no entry {self.key!r} to monitor; its numbers are {numbers}; "
                f"{hint}"
            )
        number = _as_number(record[self.key])
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


# ------------------------------------------------------------------ stopping and slowing down


class EarlyStopping(_Configured):
    """Ends the training when a number has not improved for a while, and puts the best Θ back.

    Improved means: better than the best so far by more than ``min_delta``. NaN and infinity never are.

    Parameters
    ----------
    monitor : str
        An entry of the records, such as ``"val_loss"`` or ``"val_accuracy"``.
    patience : int
        The training ends after that many epochs without improvement, at least 1.
    min_delta : float
        0 or more.
    restore_best : bool
        Copy Θ of the best epoch back into the network when the fit ends by itself, early or not. After
        Ctrl-C or an error Θ stays as it is, so that the run can go on. The copy lies on the device. The
        optimiser's state and the counters stay those of the last epoch.
    mode : {"auto", "min", "max"}
        Whether less is better; ``"auto"`` knows it of losses and metrics.

    Attributes
    ----------
    best : float or None
        The best value so far.
    best_epoch : int or None
        Its epoch.
    stopped_epoch : int or None
        The epoch after which the training was stopped; ``None`` where it was not.

    Raises
    ------
    gpunn.ArgumentError
        For options that cannot work; after the first epoch, where the entry is no number.
    gpunn.UnknownNameError
        After the first epoch, where there is no such entry.

    Examples
    --------
    >>> import gpunn, numpy as np
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> stopping = EarlyStopping("val_accuracy", patience=3)
    >>> history = net.fit(X[:40], y[:40], validation_data=(X[40:], y[40:]), loss="cross_entropy", epochs=100,
    ...                   optimizer="adam", metrics=("accuracy",), callbacks=[stopping], verbose=0)
    >>> stopping.stopped_epoch == stopping.best_epoch + 3 == len(history)
    True
    >>> EarlyStopping(patience=0)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: EarlyStopping: patience is 0, expected a whole number of at least 1
    """

    _options = ("monitor", "patience", "min_delta", "restore_best", "mode")

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        self.patience = self._whole("patience", patience, 1)
        self.min_delta = self._number("min_delta", min_delta, 0.0, open_=False)
        self._monitor = _Monitor(type(self).__name__, monitor, mode, self.min_delta)
        self.monitor = monitor
        self.restore_best = bool(restore_best)
        self.mode = mode
        self._reset()

    def _reset(self) -> None:
        self._monitor.best = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._waited = 0
        self._theta: Any = None

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forget what an earlier fit was like."""
        self._reset()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Compare with the best epoch; stop when there was none better for too long."""
        value = self._monitor.value(record)
        if self._monitor.improves(value):
            self._monitor.best, self.best_epoch, self._waited = value, record["epoch"], 0
            if self.restore_best:
                self._keep(trainer)
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = record["epoch"]
            trainer.stop = True

    def on_fit_end(self, trainer: Trainer) -> None:
        """Put the best Θ back where the fit ended by itself."""
        # Into Θ, never in its place: programs and parameters are windows of that very array.
        if trainer.completed and self._theta is not None:
            trainer.network.backend.assign(trainer.network.memory["theta"], self._theta)
        self._theta = None

    def _keep(self, trainer: Trainer) -> None:
        backend, theta = trainer.network.backend, trainer.network.memory["theta"]
        if self._theta is None:
            self._theta = backend.copy(theta)
        else:
            backend.assign(self._theta, theta)


class ReduceLROnPlateau(_Configured):
    """Lowers the learning rate by a factor each time a number has stopped improving.

    η ← max(factor · η, min_lr), by way of ``trainer.lr_scale``, which multiplies whatever learning rate the
    optimiser has and is saved with the run. The ``lr`` of the following records shows it.

    Parameters
    ----------
    monitor : str
        An entry of the records.
    factor : float
        Above 0 and below 1.
    patience : int
        Epochs without improvement before the rate is lowered, at least 1.
    min_delta : float
        An improvement is more than that, 0 or more.
    cooldown : int
        Epochs after a reduction that are not counted, 0 or more.
    min_lr : float
        The rate is not lowered below that; compared with ``trainer.optimizer.lr`` times the scale, so a
        schedule of the optimiser may still go lower.
    mode : {"auto", "min", "max"}
        As for :class:`EarlyStopping`.

    Raises
    ------
    gpunn.ArgumentError
        For options that cannot work; after the first epoch, where the entry is no number.
    gpunn.UnknownNameError
        After the first epoch, where there is no such entry.

    Examples
    --------
    >>> import gpunn
    >>> ReduceLROnPlateau("loss", factor=0.5, patience=2)
    ReduceLROnPlateau(monitor='loss', factor=0.5, patience=2, min_delta=0.0, cooldown=0, min_lr=0.0,
    mode='auto')
    >>> ReduceLROnPlateau(factor=10)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: ReduceLROnPlateau: factor is 10, expected a number above 0 and below 1
    """

    _options = ("monitor", "factor", "patience", "min_delta", "cooldown", "min_lr", "mode")

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.factor = self._number("factor", factor, 0.0, 1.0, open_=True)
        self.patience = self._whole("patience", patience, 1)
        self.min_delta = self._number("min_delta", min_delta, 0.0, open_=False)
        self.cooldown = self._whole("cooldown", cooldown, 0)
        self.min_lr = self._number("min_lr", min_lr, 0.0, open_=False)
        self._monitor = _Monitor(type(self).__name__, monitor, mode, self.min_delta)
        self.monitor = monitor
        self.mode = mode
        self._waited = self._cooling = 0

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin to count anew; the learning rate stays what the run has come to."""
        self._monitor.best = None
        self._waited = self._cooling = 0

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Compare with the best epoch; lower the learning rate when there was none better for too long."""
        value = self._monitor.value(record)
        cooling = self._cooling > 0
        self._cooling = max(0, self._cooling - 1)
        if self._monitor.improves(value):
            self._monitor.best, self._waited = value, 0
        elif not cooling:
            self._waited += 1
            if self._waited >= self.patience:
                self._lower(trainer)
                self._waited, self._cooling = 0, self.cooldown

    def _lower(self, trainer: Trainer) -> None:
        lowered = max(trainer.lr_scale * self.factor, self.min_lr / trainer.optimizer.lr)
        # Not lower: the floor is reached already. Not above 0: below the smallest float.
        if 0.0 < lowered < trainer.lr_scale:
            trainer.lr_scale = lowered


# ------------------------------------------------------------------ saving


class Checkpoint(_Configured):
    """Saves the whole run as it trains, so that ``gpunn.Trainer.load`` can go on from there.

    Each file is written atomically: at any moment the old or the new one is whole on disk. Folders that are
    missing are made, the first one before the first epoch, so that a path that cannot work is found early.

    Parameters
    ----------
    path : path
        With ``{epoch}`` a file an epoch, such as ``"runs/run-{epoch:04d}.safetensors"``; without it one
        file that is overwritten. A brace that is meant is doubled.
    every_epochs : int or None
        Save after epochs 1·every_epochs, 2·every_epochs, ...; ``None``: only by the clock.
    every_minutes : float or None
        Save when the last file is older than that, in the middle of an epoch too. That file bears the number
        of the epoch it is in, and the run it holds goes on with the next minibatch; where the data are an
        iterable of batches, it begins that epoch anew.
    keep : int or None
        How many files to keep: of those that this callback wrote, the oldest are deleted, once the new one is
        there. Nothing else is deleted, nor a file that somebody has changed since. ``None`` keeps all.
    monitor : str, optional
        Save only where this entry of the record is better than in all epochs that this run has saved.
    mode : {"auto", "min", "max"}
        As for :class:`EarlyStopping`.

    Attributes
    ----------
    paths : list of Path
        The files that are kept, the newest last.

    Raises
    ------
    gpunn.ArgumentError
        For options that cannot work.
    gpunn.UnknownNameError
        After the first epoch, where there is no entry ``monitor``.
    gpunn.callbacks.WriteError
        Where a file cannot be written; names it. The training ends, the network is as usable as after
        Ctrl-C, and earlier files are whole.

    Examples
    --------
    >>> import gpunn, numpy as np, os, tempfile
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saving = Checkpoint(folder + "/run-{epoch:02d}.safetensors", keep=2)
    ...     _ = net.fit(X, y, loss="cross_entropy", epochs=5, callbacks=[saving], verbose=0)
    ...     print(sorted(os.listdir(folder)))
    ...     trainer = gpunn.Trainer.load(saving.paths[-1])
    ['run-04.safetensors', 'run-05.safetensors']
    >>> trainer.epochs_done
    5
    >>> Checkpoint("run-{loss}.safetensors")
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: Checkpoint: path 'run-{loss}.safetensors' has the field {loss}, expected only
    {epoch}, such as {epoch:04d}; double a brace that is meant as such
    """

    _options = ("path", "every_epochs", "every_minutes", "keep", "monitor", "mode")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every_epochs: int | None = 1,
        every_minutes: float | None = None,
        keep: int | None = 3,
        monitor: str | None = None,
        mode: str = "auto",
    ) -> None:
        self.path = self._path("path", path)
        self._check_fields()
        self.every_epochs = None if every_epochs is None else self._whole("every_epochs", every_epochs, 1)
        self.every_minutes = (
            None if every_minutes is None else self._number("every_minutes", every_minutes, 0.0, open_=True)
        )
        if every_epochs is None and every_minutes is None:
            raise ArgumentError(
                "Checkpoint: every_epochs and every_minutes are both None, so nothing would be saved: "
                "give one of them"
            )
        if monitor is not None and every_minutes is not None:
            raise ArgumentError(
                f"Checkpoint: monitor={monitor!r} is known at the end of an epoch only, every_minutes="
                f"{every_minutes!r} saves in its middle too: use two Checkpoints with two paths"
            )
        self.keep = None if keep is None else self._whole("keep", keep, 1)
        self._monitor = None if monitor is None else _Monitor(type(self).__name__, monitor, mode)
        self.monitor = monitor
        self.mode = mode
        self._written: dict[Path, tuple[int, ...]] = {}
        self._saved_at = 0.0

    @property
    def paths(self) -> list[Path]:
        """The files that this callback wrote and keeps, the newest last."""
        return list(self._written)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Make the folder, start the clock, and recall the best epoch that this run has saved."""
        self._make_folder(self._file(trainer.epochs_done + 1))
        self._saved_at = time.monotonic()
        if self._monitor is not None:
            self._recall(self._monitor, trainer)

    def on_progress(self, trainer: Trainer) -> None:
        """Save when the last file is too old."""
        # Training looks at Θ at the end of the epoch only: until then, overwrite no good file with a bad Θ.
        network = trainer.network
        if self._clock_says() and network.backend.all_finite(network.memory["theta"]):
            self._save(trainer, trainer.epochs_done + 1)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Save where this epoch is due, and good enough."""
        epoch = int(record["epoch"])
        if self._monitor is None:
            if self._due(epoch) or self._clock_says():
                self._save(trainer, epoch)
            return
        value = self._monitor.value(record)
        if self._due(epoch) and self._monitor.improves(value):
            self._save(trainer, epoch)
            self._monitor.best = value

    def _due(self, epoch: int) -> bool:
        return self.every_epochs is not None and epoch % self.every_epochs == 0

    def _clock_says(self) -> bool:
        if self.every_minutes is None:
            return False
        return time.monotonic() - self._saved_at >= 60 * self.every_minutes

    def _recall(self, monitor: _Monitor, trainer: Trainer) -> None:
        """Take the best from the history of the run, so that a run that goes on overwrites no better file."""
        monitor.best = None
        for record in trainer.history.records:
            value, epoch = _as_number(record.get(monitor.key)), record.get("epoch")
            if value is None or not isinstance(epoch, int) or not self._due(epoch):
                continue
            if monitor.improves(value) and self._file(epoch).exists():
                monitor.best = value

    def _file(self, epoch: int) -> Path:
        return Path(self.path.format(epoch=epoch))

    def _save(self, trainer: Trainer, epoch: int) -> None:
        path = self._file(epoch)
        self._make_folder(path)
        with _writing(type(self).__name__, path):
            trainer.save(path)
            # The real path: later the working directory, or a link in between, may be another one.
            real = Path(os.path.realpath(path))
            seal = _seal(real)
        self._saved_at = time.monotonic()
        self._written.pop(real, None)
        self._written[real] = seal
        while self.keep is not None and len(self._written) > self.keep:
            oldest = next(iter(self._written))
            self._delete(oldest, self._written.pop(oldest))

    def _delete(self, path: Path, seal: tuple[int, ...]) -> None:
        try:
            if _seal(path) == seal:
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            # One old file too many is no reason to end a training.
            warnings.warn(f"Checkpoint: {path} cannot be deleted: {error}", GpunnWarning, stacklevel=2)

    def _make_folder(self, path: Path) -> None:
        if path.is_dir():
            raise ArgumentError(f"Checkpoint: {path} is a folder, expected the path of a file")
        with _writing(type(self).__name__, path):
            path.parent.mkdir(parents=True, exist_ok=True)

    def _check_fields(self) -> None:
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(self.path) if field is not None]
            nested = [spec for _, _, spec, _ in string.Formatter().parse(self.path) if spec and "{" in spec]
            wrong = [field for field in fields if field != "epoch"] + nested
            if not wrong:
                self.path.format(epoch=1)
        except ValueError as error:
            raise ArgumentError(
                f"Checkpoint: path {self.path!r} is no template: {error}; expected at most {{epoch}}, "
                f"such as {{epoch:04d}}; double a brace that is meant as such"
            ) from error
        if wrong:
            raise ArgumentError(
                f"Checkpoint: path {self.path!r} has the field {{{wrong[0]}}}, expected only {{epoch}}, "
                f"such as {{epoch:04d}}; double a brace that is meant as such"
            )


# ------------------------------------------------------------------ logging


class _Log(_Configured):
    """What is told of every epoch once, also of one whose end only the history knows."""

    def __init__(self) -> None:
        self._trainer: weakref.ref[Trainer] | None = None
        self._at_begin: int | None = None
        self._last = 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Go on where the same trainer goes on, else begin anew."""
        same = self._trainer is not None and self._trainer() is trainer
        self._begin(goes_on=same)
        self._trainer = weakref.ref(trainer)
        self._at_begin = len(trainer.history.records)
        self._last = 0

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Write the epoch."""
        # Ctrl-C waits: the epoch is neither lost nor written twice. One that cannot be written is not tried
        # again at the end of the fit, so it is counted before.
        with Interrupt() as interrupt:
            self._last = record["epoch"]
            self._write(trainer, record)
        if interrupt.requested:
            raise KeyboardInterrupt

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write what came into the history without a call: Ctrl-C, or an earlier callback that raised."""
        begin, self._at_begin = self._at_begin, None
        if begin is None:  # This fit ended before it began: the history is that of earlier ones.
            return
        for record in trainer.history.records[begin:]:
            if record["epoch"] > self._last:
                self._last = record["epoch"]
                self._write(trainer, record, late=True)

    def _begin(self, *, goes_on: bool) -> None:
        raise NotImplementedError

    def _write(self, trainer: Trainer, record: Mapping[str, Any], *, late: bool = False) -> None:
        raise NotImplementedError


class CSVLog(_Log):
    """Writes a line an epoch to a CSV file, at once, so that nothing is lost when the training ends.

    The columns are the numbers of the first record, in its order; lists, matrices and text are left out. An
    entry that comes only later has no column, one that is missing leaves its cell empty. Numbers are written
    so that reading them gives the same float again.

    Parameters
    ----------
    path : path
        The file; folders that are missing are made.
    append : bool
        Add to a file that is there, if it has the same columns; else such a file is replaced at the end of
        the first epoch. A fit that goes on with the same trainer always adds.

    Raises
    ------
    gpunn.FormatError
        With ``append``, where the file is no such log (before the first epoch) or has other columns (after
        it).
    gpunn.callbacks.WriteError
        Where the file cannot be written; names it.

    Examples
    --------
    >>> import gpunn, numpy as np, pathlib, tempfile
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "log.csv"
    ...     _ = net.fit(X, y, loss="cross_entropy", epochs=2, callbacks=[CSVLog(path)], verbose=0)
    ...     lines = path.read_text().splitlines()
    >>> lines[0].split(",")[:2], [line.split(",")[0] for line in lines]
    (['epoch', 'loss'], ['epoch', '1', '2'])
    """

    _options = ("path", "append")

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        super().__init__()
        self.path = self._path("path", path)
        self.append = bool(append)
        self._columns: list[str] | None = None
        self._replace = True

    def _begin(self, *, goes_on: bool) -> None:
        path = Path(self.path)
        if path.is_dir():
            raise ArgumentError(f"CSVLog: {path} is a folder, expected the path of a file")
        with _writing("CSVLog", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not goes_on or self._columns is None:
                self._columns = None
                self._replace = not self.append
                if self.append:
                    self._header()

    def _header(self) -> list[str] | None:
        """The columns of the file that is there, if there is one; an error if it is no log."""
        path = Path(self.path)
        try:
            with open(path, newline="", encoding="utf-8") as file:
                header = next(csv.reader(file), [])
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, csv.Error) as error:
            raise FormatError(f"CSVLog: {path} is no CSV file to append to: {error}") from error
        if header and not {"epoch", "loss"} <= set(header):
            raise FormatError(
                f"CSVLog: {path} is no log to append to: its first line is {','.join(header)[:80]!r}, "
                f"expected columns with epoch and loss; give another path, or append=False to replace it"
            )
        return header or None

    def _write(self, trainer: Trainer, record: Mapping[str, Any], *, late: bool = False) -> None:
        path = Path(self.path)
        with _writing("CSVLog", path):
            there = None if self._replace else self._header()
            if self._columns is None:
                self._columns = self._agreed(there, record, late)
            rows = [] if there else [self._columns]
            rows.append([_text(record.get(column)) for column in self._columns])
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            # Whole lines at once, and no file left open between two epochs: a killed program loses none.
            with open(path, "a+b" if there else "wb") as file:
                content = text.getvalue().encode()
                file.write(content if not there or _ends_a_line(file) else b"\n" + content)
        self._replace = False

    def _agreed(self, there: list[str] | None, record: Mapping[str, Any], late: bool) -> list[str]:
        numbers = [key for key, value in record.items() if _as_number(value) is not None]
        if there is None:
            return numbers
        # An epoch that was interrupted after its last minibatch has no validation yet.
        if sorted(there) != sorted(numbers) and not (late and set(numbers) <= set(there)):
            raise FormatError(
                f"CSVLog: {self.path} has the columns {', '.join(there)}, this training has "
                f"{', '.join(numbers)}: to append, they have to be the same; give another path, or "
                f"append=False to replace the file"
            )
        return there


class TensorBoard(_Log):
    """Writes curves for TensorBoard: loss and metrics of training and validation, learning rate, speed.

    The step is the number of the epoch. ``loss`` is the curve ``loss/train`` and ``val_loss`` is
    ``loss/val``, so that TensorBoard draws them side by side; ``lr`` and ``samples_per_second`` stand alone.
    What is no number is left out.

    Each training is a run of its own below the folder, ``run-1``, ``run-2``, ...; a fit that goes on with the
    same trainer adds to its run. Look at them with ``tensorboard --logdir FOLDER``. Needs tensorboardX
    (``pip install "gpunn[tensorboard]"``).

    Parameters
    ----------
    folder : path
        Made where it is missing.
    histograms : bool
        Write a histogram of each parameter after each epoch too.

    Attributes
    ----------
    run : Path or None
        The folder of the run that was written last.

    Raises
    ------
    gpunn.callbacks.MissingTensorBoardXError
        Where tensorboardX cannot be imported.
    gpunn.callbacks.WriteError
        Where the folder or the file cannot be written; names it.

    Examples
    --------
    >>> import gpunn, numpy as np, os, tempfile
    >>> X = np.random.default_rng(0).standard_normal((60, 4)); y = (X[:, 0] > 0).astype(int)
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=4, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     board = TensorBoard(folder)
    ...     _ = net.fit(X, y, loss="cross_entropy", epochs=2, callbacks=[board], verbose=0)
    ...     _ = net.fit(X, y, loss="cross_entropy", epochs=2, callbacks=[board], verbose=0)
    ...     print(sorted(os.listdir(folder)))
    ['run-1', 'run-2']
    """

    _options = ("folder", "histograms")

    def __init__(self, folder: str | os.PathLike[str], *, histograms: bool = False) -> None:
        super().__init__()
        self.folder = self._path("folder", folder)
        self.histograms = bool(histograms)
        self.run: Path | None = None
        self._file: Path | None = None
        try:
            import tensorboardX.proto.event_pb2
            import tensorboardX.proto.summary_pb2
            import tensorboardX.record_writer
            import tensorboardX.summary
        except ImportError as error:
            raise MissingTensorBoardXError(
                f"TensorBoard needs tensorboardX, which cannot be imported ({error}): "
                f'pip install "gpunn[tensorboard]"'
            ) from error
        self._library = tensorboardX

    def _begin(self, *, goes_on: bool) -> None:
        if not goes_on:
            self.run = None
        self._file = None
        with _writing("TensorBoard", Path(self.folder)):
            Path(self.folder).mkdir(parents=True, exist_ok=True)

    def _write(self, trainer: Trainer, record: Mapping[str, Any], *, late: bool = False) -> None:
        proto = self._library.proto
        values = [
            proto.summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in _curves(record)
        ]
        # At the end of a fit Θ may be that of another epoch.
        if self.histograms and not late:
            for key, array in trainer.network.tensors().items():
                values.extend(self._library.summary.histogram(key, array, bins=64).value)
        event = {"step": record["epoch"], "summary": proto.summary_pb2.Summary(value=values)}
        with _writing("TensorBoard", self.run or Path(self.folder)):
            if self.run is None:
                self.run = _new_run(Path(self.folder))
            content = b"" if self._file else self._bytes(file_version="brain.Event:2")
            if self._file is None:
                self._file = self.run / _event_file()
            # Not SummaryWriter: its thread would swallow errors, and lose an epoch that is not written yet.
            # Opened each time, so that nothing is left open whatever happens between two epochs.
            with open(self._file, "ab") as file:
                file.write(content + self._bytes(**event))

    def _bytes(self, **event: Any) -> bytes:
        """An event as its file has it: its length, the checksum of that, the event, its checksum."""
        checksum = self._library.record_writer.masked_crc32c
        content = self._library.proto.event_pb2.Event(wall_time=time.time(), **event).SerializeToString()
        length = struct.pack("<Q", len(content))
        return b"".join(
            (length, struct.pack("<I", checksum(length)), content, struct.pack("<I", checksum(content)))
        )


def _curves(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The curves' names and their points in this record."""
    for key, value in record.items():
        number = _as_number(value)
        if number is None or key in NO_CURVES:
            continue
        if key.startswith("val_"):
            yield f"{key.removeprefix('val_')}/val", number
        else:
            yield key if key == "lr" else f"{key}/train", number
    if record.get("seconds"):
        yield "samples_per_second", record["samples"] / record["seconds"]


def _event_file() -> str:
    """A name that TensorBoard takes for events: the files of a run in the order of their names."""
    return f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"


def _new_run(folder: Path) -> Path:
    for number in count(1):
        try:
            (folder / f"run-{number}").mkdir()
        except FileExistsError:
            continue
        break
    return folder / f"run-{number}"


# ------------------------------------------------------------------ inside


def _as_number(value: Any) -> float | None:
    """The value as a float, or ``None`` where it is no single number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None


def _text(value: Any) -> str:
    """A number so that reading it gives the same one; nothing for what is no number."""
    number = _as_number(value)
    if number is None:
        return ""
    whole = isinstance(value, int) or np.asarray(value).dtype.kind in "iu"
    return str(int(value)) if whole else repr(number)


def _ends_a_line(file: Any) -> bool:
    """Whether the last byte is a newline: a program that was killed may have left half a line."""
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _seal(path: Path) -> tuple[int, ...]:
    """What tells whether a file is still the one that was written."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


@contextmanager
def _writing(owner: str, path: Path) -> Iterator[None]:
    """Let errors of the file system name who wanted to write what."""
    try:
        yield
    except OSError as error:
        failure = WriteError(f"{owner}: cannot write {path}: {error}")
        failure.errno = error.errno
        raise failure from error
