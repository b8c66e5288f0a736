"""Write down each epoch: what all logs share, and the one to CSV."""

from __future__ import annotations

import csv
import io
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError
from ..interrupt import Interrupt
from .base import Configured, Run, as_number, writing

__all__ = ["CSVLog", "Log"]


class Log(Configured, ABC):
    """What is told of every epoch once, also of one whose end only the history knows."""

    def __init__(self) -> None:
        self._trainer: weakref.ref[Run] | None = None
        self._at_begin: int | None = None
        self._last = 0

    def on_fit_begin(self, trainer: Run) -> None:
        """Go on where the same trainer goes on, else begin anew."""
        same = self._trainer is not None and self._trainer() is trainer
        self._begin(goes_on=same)
        self._trainer = weakref.ref(trainer)
        self._at_begin = len(trainer.history.records)
        self._last = 0

    def on_epoch_end(self, trainer: Run, record: dict[str, Any]) -> None:
        """Write the epoch."""
        # Ctrl-C waits: the epoch is neither lost nor written twice. One that cannot be written is not tried
        # again at the end of the fit, so it is counted before.
        with Interrupt() as interrupt:
            self._last = record["epoch"]
            self._write(trainer, record)
        if interrupt.requested:
            raise KeyboardInterrupt

    def on_fit_end(self, trainer: Run) -> None:
        """Write what came into the history without a call: Ctrl-C, or an earlier callback that raised."""
        begin, self._at_begin = self._at_begin, None
        if begin is None:  # This fit ended before it began: the history is that of earlier ones.
            return
        for record in trainer.history.records[begin:]:
            if record["epoch"] > self._last:
                self._last = record["epoch"]
                self._write(trainer, record, late=True)

    @abstractmethod
    def _begin(self, *, goes_on: bool) -> None:
        """Get ready for a fit: a new one, or one that goes on with the same trainer."""

    @abstractmethod
    def _write(self, trainer: Run, record: Mapping[str, Any], *, late: bool = False) -> None:
        """Write an epoch; ``late``: at the end of the fit."""


class CSVLog(Log):
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
        with writing("CSVLog", path):
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

    def _write(self, trainer: Run, record: Mapping[str, Any], *, late: bool = False) -> None:
        path = Path(self.path)
        with writing("CSVLog", path):
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
        numbers = [key for key, value in record.items() if as_number(value) is not None]
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


def _text(value: Any) -> str:
    """A number so that reading it gives the same one; nothing for what is no number."""
    number = as_number(value)
    if number is None:
        return ""
    whole = isinstance(value, int) or np.asarray(value).dtype.kind in "iu"
    return str(int(value)) if whole else repr(number)


def _ends_a_line(file: Any) -> bool:
    """Whether the last byte is a newline: a program that was killed may have left half a line."""
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
