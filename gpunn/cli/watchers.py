"""What looks on while a network trains: early stopping, logs and numbered runs, from the options."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, ReduceLROnPlateau, TensorBoard
from ..callbacks.base import Run
from ..errors import ArgumentError, whole_number
from .runs import HISTORY, Origin, claim
from .scores import counted

__all__ = ["KEEP", "PATIENCE", "SLOWER", "asked_for", "told", "watchers_of"]

#: The epochs of --early-stopping and --reduce-on-plateau where they come without a number, and --keep.
PATIENCE, SLOWER, KEEP = 10, 5, 3

_COUNTS = ("early_stopping", "reduce_on_plateau", "checkpoint_every", "keep")
_PATHS = ("csv_log", "tensorboard")


def asked_for(options: Namespace, before: Origin | None = None) -> dict[str, Any]:
    """The entries of an :class:`Origin` about those who look on: as given, else as before, else none.

    Raises :class:`gpunn.ArgumentError` for numbers that cannot work.
    """
    found: dict[str, Any] = {}
    for name in (*_COUNTS, *_PATHS):
        given = getattr(options, name)
        if given is None:
            found[name] = None if before is None else getattr(before, name)
            continue
        if name in _COUNTS:
            whole_number(f"--{name.replace('_', '-')}", given, 0)
        # 0 and an empty path take away what the run had, apart from --keep, where 0 stands for all.
        found[name] = given if given or name == "keep" else None
    if options.keep is not None and found["checkpoint_every"] is None:
        raise ArgumentError(
            "--keep says how many of the runs of --checkpoint-every are kept: give both, or neither"
        )
    return found


def watchers_of(
    origin: Origin, folder: Path, seed: int | None, held_out: bool, goes_on: bool
) -> list[Callback]:
    """The callbacks of one run, in the order in which they have to be told.

    Parameters
    ----------
    origin : Origin
        What was asked for.
    folder : Path
        Where the run is saved.
    seed : int or None
        Of this run among several, which are not to write into each other's files.
    held_out : bool
        Whether there is a ``val_loss`` to watch.
    goes_on : bool
        Whether a log goes on with what is there.

    Raises
    ------
    gpunn.GpunnError
        Where something to watch or to log with is missing, or a file is not gpunn's to overwrite.
    """
    for name in ("early_stopping", "reduce_on_plateau"):
        if getattr(origin, name) and not held_out:
            option = f"--{name.replace('_', '-')}"
            raise ArgumentError(
                f"{option} watches val_loss, the loss on validation examples, and none of {origin.data} are "
                f"held out: give a --validation-fraction above 0, or leave {option} out"
            )
    found: list[Callback] = []
    if origin.early_stopping:
        found.append(EarlyStopping("val_loss", patience=origin.early_stopping))
    if origin.reduce_on_plateau:
        found.append(ReduceLROnPlateau("val_loss", patience=origin.reduce_on_plateau))
    if origin.tensorboard:
        board = Path(origin.tensorboard)
        found.append(TensorBoard(board if seed is None else board / f"seed-{seed}"))
    if origin.csv_log:
        path = Path(origin.csv_log)
        if seed is not None:
            path = path.with_name(f"{path.stem}-seed-{seed}{path.suffix}")
        _claim_log(path, origin.data)
        found.append(CSVLog(path, append=goes_on))
    if origin.checkpoint_every:
        claim(folder, tuple(path.name for path in folder.glob("run-*.safetensors")), make=False)
        escaped = str(folder).replace("{", "{{").replace("}", "}}")
        path = Path(escaped) / "run-{epoch:04d}.safetensors"
        keep = KEEP if origin.keep is None else origin.keep
        found.append(_NumberedRuns(path, folder, origin.checkpoint_every, keep))
    return found


def told(origin: Origin) -> str:
    """Those who look on, in words; nothing where there are none."""
    words = []
    if origin.early_stopping:
        words.append(f"stops after {counted(origin.early_stopping, 'epoch')} without a lower val_loss")
    if origin.reduce_on_plateau:
        epochs = counted(origin.reduce_on_plateau, "epoch")
        words.append(f"a tenth of the learning rate after {epochs} without a lower val_loss")
    if origin.csv_log:
        words.append(f"log in {origin.csv_log}")
    if origin.tensorboard:
        words.append(f"TensorBoard in {origin.tensorboard}")
    if origin.checkpoint_every:
        every = "epoch" if origin.checkpoint_every == 1 else counted(origin.checkpoint_every, "epoch")
        words.append(f"a numbered run every {every}")
    return "; ".join(words)


class _NumberedRuns(Checkpoint):
    """A Checkpoint that leaves the history beside its files, which tells --resume where they came from."""

    def __init__(self, path: Path, folder: Path, every: int, keep: int) -> None:
        super().__init__(path, every_epochs=every, keep=keep or None)
        self._folder = folder

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
        """Save where this epoch is due."""
        before = self.paths
        super().on_epoch_end(trainer, record)
        if self.paths != before:
            trainer.history.save(self._folder / HISTORY)


def _claim_log(path: Path, data: str) -> None:
    """Raise rather than overwrite a file that is no log of a training."""
    if not path.is_file():
        return
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        header = ["?"]
    is_data = Path(data).exists() and os.path.samefile(path, data)
    if is_data or (header and not {"epoch", "loss"} <= set(header)):
        raise ArgumentError(
            f"--csv-log {path} exists and is not the log of a training: move it, or choose another name"
        )
