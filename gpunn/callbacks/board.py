"""Curves for TensorBoard, by way of tensorboardX."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import GpunnError
from .base import Run, as_number, writing
from .logs import Log

__all__ = ["MissingTensorBoardXError", "TensorBoard"]

#: Entries of a record that are no curve of their own.
NO_CURVES = ("epoch", "seconds", "samples", "updates")


class MissingTensorBoardXError(GpunnError, ImportError):
    """The package tensorboardX cannot be imported, so nothing can be logged for TensorBoard."""


class TensorBoard(Log):
    """Writes curves for TensorBoard: loss and metrics of training and validation, learning rate, speed.

    The step is the number of the epoch. ``loss`` is the curve ``loss/train`` and ``val_loss`` is
    ``loss/val``, so that TensorBoard draws them side by side; ``lr`` and ``samples_per_second`` stand alone.
    What is no number is left out.

    Each training is a run of its own below the folder, ``run-1``, ``run-2``, ...; a fit that goes on with the
    same trainer adds to its run. Look at them with ``tensorboard --logdir FOLDER``. Needs tensorboardX
    (``pip install tensorboardX``).

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
                f"pip install tensorboardX"
            ) from error
        self._library = tensorboardX

    def _begin(self, *, goes_on: bool) -> None:
        if not goes_on:
            self.run = None
        self._file = None
        with writing("TensorBoard", Path(self.folder)):
            Path(self.folder).mkdir(parents=True, exist_ok=True)

    def _write(self, trainer: Run, record: Mapping[str, Any], *, late: bool = False) -> None:
        proto = self._library.proto
        values = [
            proto.summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in _curves(record)
        ]
        # At the end of a fit Θ may be that of another epoch.
        if self.histograms and not late:
            for key, array in trainer.network.tensors().items():
                values.extend(self._library.summary.histogram(key, array, bins=64).value)
        event = {"step": record["epoch"], "summary": proto.summary_pb2.Summary(value=values)}
        with writing("TensorBoard", self.run or Path(self.folder)):
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
        number = as_number(value)
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
