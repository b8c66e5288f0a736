"""What a person sees while a network trains: a bar that moves, and a line for each epoch."""

from __future__ import annotations

import sys
from typing import Any

from .metrics import METRICS

__all__ = ["Progress", "record_line", "shown"]


def shown(key: str, value: float) -> str:
    """A number of a record as people read it.

    >>> shown("val_accuracy", 0.9312), shown("f1", 0.9312), shown("loss", 0.00002)
    ('93.12 %', '0.9312', '2.000e-05')
    """
    if _is_share(key):
        return f"{100 * value:.2f} %"
    small = value != 0 and abs(value) < 0.001
    return f"{value:.3e}" if small or abs(value) >= 100_000 else f"{value:.4f}"


def _is_share(key: str) -> bool:
    name = key.removeprefix("val_")
    return name == "accuracy" or name.startswith("top_")


def record_line(record: dict[str, Any], epochs: int | None = None, lr: float | None = None) -> str:
    """One epoch's record as a line; with the learning rate, unless it is still ``lr``.

    >>> record_line({"epoch": 3, "loss": 0.25, "accuracy": 0.9312, "seconds": 0.5, "samples": 1000}, 30)
    'epoch  3/30  loss 0.2500  accuracy 93.12 %  2,000 samples/s'
    >>> record_line({"epoch": 4, "loss": 0.25, "r2": 0.5, "lr": 0.01}, lr=0.1)
    'epoch 4  loss 0.2500  r2 0.5000  lr 0.01'
    """
    of = f"/{epochs}" if epochs else ""
    width = len(str(epochs or record["epoch"]))
    parts = [f"epoch {record['epoch']:>{width}}{of}"]
    for key, value in record.items():
        name = key.removeprefix("val_")
        measured = name in ("loss", "penalty") or name in METRICS or _is_share(key)
        if measured and isinstance(value, float):
            parts.append(f"{key} {shown(key, value)}")
    if "lr" in record and record["lr"] != lr:
        parts.append(f"lr {record['lr']:.3g}")
    if record.get("seconds"):
        parts.append(f"{record['samples'] / record['seconds']:,.0f} samples/s")
    return "  ".join(parts)


class Progress:
    """A bar over all examples of all epochs on a terminal; only the lines where the output is a file.

    ``total`` is None where nobody knows how many examples will come.
    """

    def __init__(self, epochs: int, total: int | None, verbose: int, done: int = 0) -> None:
        self.epochs = epochs
        self.verbose = verbose if sys.stderr is not None else 0
        self._bar: Any = None
        self._lr: float | None = None
        if self.verbose:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                unit=" samples",
                unit_scale=True,
                leave=False,
                disable=not sys.stderr.isatty(),
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format=None if total is None else "{l_bar}{bar}| {rate_fmt}, {remaining} left{postfix}",
            )

    @property
    def shown(self) -> bool:
        """Whether anybody sees the bar."""
        return self._bar is not None and not self._bar.disable

    def advance(self, samples: int, loss: float, accuracy: float | None) -> None:
        """Move the bar by that many examples and show the running means of this epoch."""
        text = f"loss {loss:.4f}" + (f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else "")
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(samples)

    def line(self, record: dict[str, Any]) -> None:
        """Print an epoch's line above the bar."""
        if self.verbose:
            self._bar.write(record_line(record, self.epochs, self._lr), file=sys.stderr)
            self._lr = record.get("lr")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
