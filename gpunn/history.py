"""What training remembers of each epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import plain
from .errors import ArgumentError, FormatError, unknown_name
from .files import write_atomically
from .metrics import METRICS

__all__ = ["History", "lower_is_better"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def lower_is_better(key: str) -> bool:
    """Whether less of an entry of the history is better: known of losses, metrics and the usual names.

    Raises :class:`gpunn.ArgumentError` for another name: a guess would keep the worst instead of the best.

    >>> lower_is_better("val_loss"), lower_is_better("mae"), lower_is_better("val_accuracy")
    (True, True, False)
    >>> lower_is_better("val_perplexity")
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: nobody knows whether less of 'val_perplexity' is better: say so
    """
    name = key.removeprefix("val_")
    if name in METRICS:
        return METRICS[name].lower
    if name.endswith(("loss", "penalty", "error", "mse", "rmse", "mae", "mape")):
        return True
    if name.startswith("top_") or name.endswith(
        ("accuracy", "precision", "recall", "f1", "r2", "auc", "score")
    ):
        return False
    raise ArgumentError(f"nobody knows whether less of {key!r} is better: say so")


class History:
    """One record an epoch: a mapping with ``epoch``, ``loss``, metrics, ``val_*``, ``seconds``, ``updates``.

    ``loss`` is the mean of the minibatch costs, each taken before its update and weighted by its examples;
    ``penalty`` (where there is one) is apart from it.

    >>> history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> history["loss"], history.best("loss")["epoch"], len(history)
    ([0.5, 0.25], 2, 2)
    """

    def __init__(
        self, records: list[dict[str, Any]] | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.records: list[dict[str, Any]] = list(records or [])
        self.about: dict[str, Any] = dict(about or {})

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> list[Any]:
        if key not in self.keys():
            raise unknown_name("entry of the history", key, self.keys())
        return [record.get(key) for record in self.records]

    def keys(self) -> list[str]:
        """The names of all entries, in the order in which they first came."""
        return list(dict.fromkeys(key for record in self.records for key in record))

    def best(self, key: str, lower: bool | None = None) -> dict[str, Any]:
        """The record with the highest value of a metric, or the lowest of a loss.

        ``lower`` says whether less is better, where the name does not.
        """
        if key not in self.keys():
            raise unknown_name("entry of the history", key, self.keys())
        usable = [record for record in self.records if _is_number(record.get(key))]
        if not usable:
            raise ArgumentError(f"no epoch of this history has a finite {key!r}")
        try:
            least = lower_is_better(key) if lower is None else lower
        except ArgumentError as error:
            raise ArgumentError(f"{error} by lower=True or lower=False") from error
        return (min if least else max)(usable, key=lambda record: record[key])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the records as JSON, atomically."""
        text = json.dumps({**self.about, "epochs": self.records}, indent=2, default=plain)
        write_atomically(Path(path), (text + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Read what :meth:`save` wrote; raises :class:`gpunn.FormatError` for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            records = [dict(record) for record in content.pop("epochs")]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"{path} is not a history that gpunn saved: {error!r}") from error
        return cls(records, content)

    def __repr__(self) -> str:
        lines = []
        for record in self.records:
            numbers = [f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()]
            lines.append("  ".join(numbers))
        return "\n".join(lines) or "no epochs yet"
