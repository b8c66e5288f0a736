"""What a person sees while a network trains: a bar that moves, and a line for each epoch."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Progress", "record_line"]


def record_line(record: dict[str, Any], epochs: int | None = None) -> str:
    """One epoch's record as a line.

    >>> record_line({"epoch": 3, "loss": 0.25, "accuracy": 0.9312, "seconds": 0.5, "samples": 1000}, 30)
    'epoch  3/30  loss 0.2500  accuracy 93.12 %  2,000 samples/s'
    """
    of = f"/{epochs}" if epochs else ""
    width = len(str(epochs or record["epoch"]))
    parts = [f"epoch {record['epoch']:>{width}}{of}"]
    for key, value in record.items():
        if not isinstance(value, float):
            continue
        if key.removeprefix("val_") == "accuracy":
            parts.append(f"{key} {100 * value:.2f} %")
        elif key.removeprefix("val_") in ("loss", "penalty"):
            parts.append(f"{key} {value:.4f}")
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

    def advance(self, samples: int, loss: float, accuracy: float | None) -> None:
        """Move the bar by that many examples and show the running means of this epoch."""
        if self._bar is not None and not self._bar.disable:
            shown = f", loss {loss:.4f}" + (
                f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
            )
            self._bar.set_postfix_str(shown.removeprefix(", "), refresh=False)
            self._bar.update(samples)

    def line(self, record: dict[str, Any]) -> None:
        """Print an epoch's line above the bar."""
        if self.verbose:
            self._bar.write(record_line(record, self.epochs), file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
