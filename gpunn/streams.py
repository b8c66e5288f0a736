"""Minibatches that come one by one: from a list, a loader, a generator larger than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .errors import ArgumentError, DataError, whole_number

__all__ = ["Stream", "is_pair", "stream_of"]


class Stream:
    """Where minibatches come from: an iterable of (x, y) or (x, y, sample_weight), or what makes one.

    Where it raises, what was learnt from the batches before stays learnt, and the epoch counts for nothing.

    Parameters
    ----------
    source : iterable or callable
        A list or a loader is gone through once an epoch; a function is called once an epoch; an iterator (a
        generator) goes on where it stopped.
    steps : int, optional
        The minibatches of one epoch; without it an epoch ends where the source does. With it, a list, loader
        or function begins anew where it ends, and the next epoch goes on where the last one stopped.
    what : str
        What the batches are, for the messages: ``"validation "``.
    """

    def __init__(self, source: Any, steps: int | None = None, what: str = "") -> None:
        self.source = source
        self.what = what
        self.steps = None if steps is None else whole_number("steps_per_epoch", steps, 1)
        self.once = isinstance(source, Iterator)
        self._made = 0
        self._iterator: Iterator[Any] | None = None

    def _begin(self) -> Iterator[Any]:
        made = not isinstance(self.source, Iterable) and callable(self.source)
        source = self.source() if made else self.source
        if not isinstance(source, Iterable):
            raise ArgumentError(f"{self.source!r} gives {source!r}, expected an iterable of (x, y) batches")
        return iter(source)

    def __len__(self) -> int:
        """The minibatches of one epoch, 0 where only the source knows."""
        if self.steps is not None:
            return self.steps
        try:
            return len(self.source)
        except (TypeError, NotImplementedError):
            return 0

    def check(self, epochs: int) -> None:
        """Raise where the source cannot last for that many epochs."""
        if self.once and self.steps is None and epochs > 1:
            raise ArgumentError(
                f"a {type(self.source).__name__} can be gone through once, {epochs} epochs are asked for: "
                f"pass the function that makes it, a list of batches, or steps_per_epoch"
            )

    def epoch(self) -> Iterator[tuple[Any, Any, Any]]:
        """The minibatches of one epoch as (x, y, sample_weight or None)."""
        fresh = self._iterator is None or self.steps is None
        iterator = self._begin() if self._iterator is None or fresh else self._iterator
        self._iterator, number = iterator, 0
        # The count is asked first: a batch that is taken from a generator and not used would be lost.
        while number != self.steps:
            try:
                batch = next(iterator)
            except StopIteration:
                if self.once or self.steps is None or fresh:
                    break
                self._iterator = iterator = self._begin()
                fresh = True
                continue
            number, fresh = number + 1, False
            self._made += 1
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise DataError(
                    f"{self.what}batch {number} is {_described(batch)}, expected a pair (x, y) or (x, y, "
                    f"sample_weight)"
                )
            yield batch[0], batch[1], batch[2] if len(batch) == 3 else None
        if number == 0:
            again = f" after {self._made} batches" if self._made else ""
            raise DataError(
                f"the {self.what}batches have run out{again}: expected at least one (x, y) an epoch"
            )


def _described(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    shape = getattr(batch, "shape", None)
    return f"a {type(batch).__name__}" + (f" of shape {shape}" if shape is not None else "")


def stream_of(X: Any, y: Any, steps: int | None = None) -> Stream | None:
    """The stream that X is where no y is given; None for arrays.

    Raises :class:`gpunn.DataError` for arrays without y, :class:`gpunn.ArgumentError` for ``steps_per_epoch``
    with arrays.
    """
    if isinstance(X, Stream):
        return X
    table = isinstance(X, (np.ndarray, Mapping, str, bytes)) or hasattr(X, "shape")
    if y is None and not table and (callable(X) or isinstance(X, Iterable)):
        return Stream(X, steps)
    if y is None:
        raise DataError(
            f"y is missing (NoneType), expected numbers; X is a {type(X).__name__}: give both, or an "
            f"iterable of (x, y) batches as X"
        )
    if steps is not None:
        raise ArgumentError("steps_per_epoch is for an iterable of batches; arrays have n / batch_size steps")
    return None


def is_pair(data: Any, dimensions: int) -> bool:
    """Whether that is (X, y), and not two batches (x, y); one example has that many dimensions."""

    def is_batch(part: Any) -> bool:
        if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
            return False
        try:
            return np.ndim(part[0]) > dimensions
        except ValueError:  # A list that is no array.
            return False

    if not isinstance(data, (tuple, list)) or len(data) != 2 or all(map(is_batch, data)):
        return False
    return not (isinstance(data, list) and all(isinstance(part, tuple) for part in data))
