"""What written pages are made of: tables, formulas, names as code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gpunn import ops

NOTE = "<!-- Written by docs/generate.py from the code: change the code, then run `make docs`. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown.

    >>> print(table(("a", "b"), [(1, "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\\|y |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(entry) for entry in line)} |" for line in lines)


def cell(entry: object) -> str:
    return str(entry).replace("|", "\\|").replace("\n", " ")


def code(text: object) -> str:
    """As code where there is something; a formula may hold bars, which end a cell even in code."""
    return f"`{text}`" if str(text) else ""


def formula(rule: ops.Rule, symbols: Mapping[str, str] | None = None) -> str:
    """The op's formula with its operands' own names, or with symbols for some of them."""
    names = {o.name: (symbols or {}).get(o.name, o.name) for o in (*rule.inputs, *rule.outputs)}
    return re.sub(r"⟨\w+:(.*?)⟩", r"[\1]", rule.formula).format_map(names)
