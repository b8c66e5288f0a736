"""HTML as nested calls: what comes from elsewhere is escaped, and a tag that is opened is closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, *inside: Any, **attributes: Any) -> Markup:
    """
    >>> element("p", "1 < 2, ", element("b", "really"), class_="note")
    '<p class="note">1 &lt; 2, <b>really</b></p>'
    """
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    written = "".join(f' {name}="{escape(str(value))}"' for name, value in pairs if value is not None)
    return Markup(f"<{tag}{written}>{together(inside)}</{tag}>")


def together(parts: Iterable[Any], between: str = "") -> Markup:
    """The parts one after the other, None left out."""
    return Markup(
        escape(between).join(
            part if isinstance(part, Markup) else escape(str(part)) for part in parts if part is not None
        )
    )


def listed(words: Sequence[Any], last: str = " and ", between: str = ", ") -> Markup:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(words) < 2:
        return together(words)
    return together([together(words[:-1], between), last, words[-1]])


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    above: Sequence[tuple[Any, int]] = (),
    marked: Sequence[int] = (),
    class_: str | None = None,
    label: str,
) -> Markup:
    """A table that scrolls by itself where it is too wide for the screen.

    ``above``: names over several columns, as (name, columns). ``marked``: rows to bring out. A cell that is
    a ``<td>`` already stays as it is; the first cell of each row is its heading.
    """
    lines = []
    if above:
        groups = [element("th", name, colspan=count, scope="colgroup") for name, count in above]
        lines.append(element("tr", *groups))
    lines.append(element("tr", *(element("th", cell, scope="col") for cell in head)))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *map(_cell, row[1:]),
            class_="ours" if at in marked else None,
        )
        for at, row in enumerate(rows)
    ]
    found = element("table", element("thead", *lines), element("tbody", *body), class_=class_)
    return element("div", found, class_="scroll", tabindex=0, role="region", aria_label=label)


def _cell(cell: Any) -> Markup:
    return cell if isinstance(cell, Markup) and cell.startswith("<td") else element("td", cell)


def heat(text: Any, colour: str, strength: float, title: str | None = None) -> Markup:
    """A cell whose background says how much: a colour as ``#0072b2``, its ``strength`` from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    opacity = 0.6 * min(1.0, max(0.0, strength))
    shade = f"background:rgba({red},{green},{blue},{opacity:.2f})"
    return element("td", text, class_="heat", style=shade, title=title)
