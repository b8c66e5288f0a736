"""What the examples share: their options, and the table of what the notes say and what comes out here."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Where pictures go unless told otherwise; the documentation takes them from there.
PICTURES = Path("build") / "pictures"


@dataclass(frozen=True)
class Row:
    """A number that the notes state, and the same computed here.

    Parameters
    ----------
    source : str
        Where it stands: book and chapter, equation, video or post.
    what : str
        What the number is.
    says : float or str
        The notes' number; a text such as ``"about 95 %"`` where they give no digits.
    here : float or str
        What comes out here.
    within : float
        How far the two may be apart; None where a run is a random one, or where ``says`` is a text.
    """

    source: str
    what: str
    says: Any
    here: Any
    within: float | None = 0.0

    @property
    def holds(self) -> bool:
        """Whether the two agree, as far as they have to."""
        if self.within is None:
            return True
        if isinstance(self.says, str) or isinstance(self.here, str):
            return bool(self.says == self.here)
        return math.isclose(self.says, self.here, rel_tol=0.0, abs_tol=self.within)


def table(rows: Iterable[Row]) -> str:
    """The rows as people read them."""
    head = ("what", "the notes say", "here", "source")
    lines = [head, *((row.what, _text(row.says), _text(row.here), row.source) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    made = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]])
        for line in lines
    ]
    return "\n".join([made[0], "-" * len(made[0]), *made[1:]])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def run(main: Callable[..., list[Row]], doc: str | None, argv: list[str] | None = None) -> None:
    """Call an example's ``main(device, quick, out)`` with what the command line says; print its table."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, auto or a backend's name")
    parser.add_argument("--quick", action="store_true", help="fewer examples, epochs and seeds: seconds")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    print(table(main(options.device, options.quick, options.out)))
    print(f"pictures: {options.out}")
