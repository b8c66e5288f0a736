"""Save the run as it trains."""

from __future__ import annotations

import os
import string
import time
import warnings
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, GpunnWarning
from .base import Configured, Monitor, Run, as_number, writing

__all__ = ["Checkpoint"]


class Checkpoint(Configured):
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
        self._monitor = None if monitor is None else Monitor(type(self).__name__, monitor, mode)
        self.monitor = monitor
        self.mode = mode
        self._written: dict[Path, tuple[int, ...]] = {}
        self._saved_at = 0.0

    @property
    def paths(self) -> list[Path]:
        """The files that this callback wrote and keeps, the newest last."""
        return list(self._written)

    def on_fit_begin(self, trainer: Run) -> None:
        """Make the folder, start the clock, and recall the best epoch that this run has saved."""
        self._make_folder(self._file(trainer.epochs_done + 1))
        self._saved_at = time.monotonic()
        if self._monitor is not None:
            self._recall(self._monitor, trainer)

    def on_progress(self, trainer: Run) -> None:
        """Save when the last file is too old."""
        # Training looks at Θ at the end of the epoch only: until then, overwrite no good file with a bad Θ.
        network = trainer.network
        if self._clock_says() and network.backend.all_finite(network.memory["theta"]):
            self._save(trainer, trainer.epochs_done + 1)

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
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

    def _recall(self, monitor: Monitor, trainer: Run) -> None:
        """Take the best from the history of the run, so that a run that goes on overwrites no better file."""
        monitor.best = None
        for record in trainer.history.records:
            value, epoch = as_number(record.get(monitor.key)), record.get("epoch")
            if value is None or not isinstance(epoch, int) or not self._due(epoch):
                continue
            if monitor.improves(value) and self._file(epoch).exists():
                monitor.best = value

    def _file(self, epoch: int) -> Path:
        return Path(self.path.format(epoch=epoch))

    def _save(self, trainer: Run, epoch: int) -> None:
        path = self._file(epoch)
        self._make_folder(path)
        with writing(type(self).__name__, path):
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
        with writing(type(self).__name__, path):
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


def _seal(path: Path) -> tuple[int, ...]:
    """What tells whether a file is still the one that was written."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
