"""What all pictures share: Matplotlib imported on use, colours, a sheet in inches, writing it to a file."""

from __future__ import annotations

import io
import math
import os
from bisect import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import GpunnError
from ..files import write_atomically
from .checks import picture_path, picture_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DARK",
    "DPI",
    "EDGE",
    "LIGHT",
    "TEXT",
    "MissingMatplotlibError",
    "Sheet",
    "above",
    "apart",
    "colour_bar",
    "colour_map",
    "empty_figure",
    "logarithmic",
    "name_at_the_ends",
    "name_axes",
    "one_for_each",
    "styled",
    "written",
]

DPI = 150

#: Blue and vermilion of Okabe and Ito, told apart with any colour vision and in grey print; then the others.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DARK, EDGE, LIGHT = "#404040", "#b0b0b0", "#e4e4e4"
TEXT = 8.5

#: Up to so many decades a logarithmic axis has numbers between the powers of ten; and how many numbers
#: there are at most beyond that.
FINE, COARSE = 2.5, 8

#: The size of a title. Inches: a line of it, the least width under one, the room around everything.
TITLE = 10
LINE, LEAST_WIDTH, MARGIN = 0.175, 3.0, 0.1


class MissingMatplotlibError(GpunnError, ImportError):
    """Matplotlib cannot be imported, so there is no picture."""


def empty_figure() -> Figure:
    """A white figure that pyplot knows nothing of, or the error that says how to get Matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingMatplotlibError(
            f"pictures need Matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error
    figure = Figure(dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


class Sheet:
    """A figure whose panels are placed in inches, and which takes the size that what is on it needs."""

    def __init__(self) -> None:
        self.figure = empty_figure()
        # As long as the figure is one inch wide and high, its fractions are inches.
        self.figure.set_size_inches(1, 1)
        self._places: list[tuple[Axes, tuple[float, float, float, float]]] = []

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of that size with their lower left corner there; any origin will do."""
        axes = self.figure.add_axes((x, y, width, height), facecolor="white")
        self._places.append((axes, (x, y, width, height)))
        return axes

    def width_of(self, words: str, size: float, weight: str = "normal") -> float:
        """The inches that a line of text takes."""
        text = self.figure.text(0, 0, words, fontsize=size, fontweight=weight, parse_math=False)
        width = float(text.get_window_extent().width) / DPI
        text.remove()
        return width

    def fitted(self, words: str, room: float, size: float, least: float = 6.0) -> tuple[str, float]:
        """The text and its size so that it is no wider than ``room``: smaller first, then cut short."""
        width = self.width_of(words, size)
        if width <= room:
            return words, size
        size = max(least, size * room / width)
        cut = words
        while len(cut) > 1 and self.width_of(words, size) > room:
            cut = cut[:-1]
            words = cut.rstrip() + "…"
        return words, size

    def finish(self, title: str | None, path: str | os.PathLike[str] | None) -> Figure:
        """Give the figure its size and its title, and write it where a path is given."""
        boxes = [box for axes, _ in self._places if (box := axes.get_tightbbox()) is not None]
        left = min(box.x0 for box in boxes) / DPI - MARGIN
        below = min(box.y0 for box in boxes) / DPI - MARGIN
        width = max(box.x1 for box in boxes) / DPI + MARGIN - left
        height = max(box.y1 for box in boxes) / DPI + MARGIN - below
        if title:
            width = max(width, LEAST_WIDTH)
        lines = self.broken(title, width - 2 * MARGIN)
        height += above(lines)
        self.figure.set_size_inches(width, height)
        for axes, (x, y, w, h) in self._places:
            axes.set_position(((x - left) / width, (y - below) / height, w / width, h / height))
        self.entitle(lines, MARGIN)
        return written(self.figure, path)

    def entitle(self, lines: Sequence[str], left: float) -> None:
        """Write the lines of the title on top, so far from the left."""
        if lines:
            width, height = self.figure.get_size_inches()
            self.figure.text(
                left / width,
                1 - MARGIN / height,
                "\n".join(lines),
                va="top",
                fontsize=TITLE,
                fontweight="bold",
                linespacing=1.15,
                parse_math=False,
            )

    def broken(self, title: str | None, room: float) -> list[str]:
        """The title in lines that are no wider than the room; a word that is wider is cut in two."""
        lines: list[str] = []
        for part in picture_title(title).splitlines():
            line = ""
            for word in part.split():
                longer = f"{line} {word}" if line else word
                if line and self.width_of(longer, TITLE, "bold") > room:
                    lines.append(line)
                    longer = word
                while len(longer) > 1 and self.width_of(longer, TITLE, "bold") > room:
                    most = range(1, len(longer))
                    fits = bisect(most, room, key=lambda n: self.width_of(longer[:n], TITLE, "bold"))
                    lines.append(longer[: max(1, fits)])
                    longer = longer[max(1, fits) :]
                line = longer
            lines.append(line)
        return lines


def above(lines: Sequence[str]) -> float:
    """The inches that the lines of a title take."""
    return LINE * len(lines) + 0.1 if lines else 0.0


def name_axes(axes: Axes, x: str | None = None, y: str | None = None) -> None:
    """Write what the axes measure, as it is: a ``$`` begins no formula."""
    for axis, words in ((axes.xaxis, x), (axes.yaxis, y)):
        if words is not None:
            axis.set_label_text(words, fontsize=TEXT + 0.5, color=DARK, parse_math=False)


def styled(axes: Axes, grid: bool = True) -> None:
    """Grey axes on the left and below, a light grid, small numbers."""
    if grid:
        axes.grid(which="major", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=TEXT, color=EDGE, labelcolor=DARK, width=0.6, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(EDGE)
        spine.set_linewidth(0.6)


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis from 10^low to 10^high."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    # Within what float64 holds: Matplotlib looks beyond the ends.
    margin = 0.05 * (high - low)
    axes.set_ylim(10 ** max(low - margin, -300.0), 10 ** min(high + margin, 300.0))
    axes.set_yscale("log")
    if high - low <= FINE:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        # Matplotlib's own locator has no number at all where it would have to leave decades out.
        decades = range(math.ceil(low), math.floor(high) + 1, math.ceil((high - low) / COARSE))
        axes.yaxis.set_major_locator(FixedLocator([10.0**decade for decade in decades]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_at_the_ends(
    axes: Axes, ends: Sequence[tuple[str, str, float]], height: float, size: float = TEXT
) -> None:
    """Write each (name, colour, last value) to the right of a panel of that height, names kept apart."""
    # Until they are asked for, the limits are not yet those of the data.
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[1]
    places = [min(1.0, max(0.0, float(to_axes.transform((x, value))[1]))) for _, _, value in ends]
    for (name, colour, _), place in zip(ends, apart(places, 1.25 * size / 72 / height), strict=True):
        axes.text(
            1.03,
            place,
            name,
            transform=axes.transAxes,
            va="center",
            color=colour,
            fontsize=size,
            parse_math=False,
        )


def colour_bar(axes: Axes, drawn: ScalarMappable, label: str, **options: Any) -> None:
    """Fill these axes with the colours of what is drawn, and say what they measure."""
    bar = axes.figure.colorbar(drawn, cax=axes, **options)
    bar.outline.set(edgecolor=EDGE, linewidth=0.6)
    axes.minorticks_off()
    name_axes(axes, y=label)
    axes.tick_params(labelsize=TEXT - 0.5, color=EDGE, labelcolor=DARK, width=0.6, length=3)


def colour_map(name: str, *colours: str) -> Colormap:
    """A colour map that goes through these colours in even steps."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, list(colours))


def one_for_each(count: int) -> list[str]:
    """A colour for each of so many curves: told apart up to seven, from blue to vermilion beyond that."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib.colors import to_hex

    ramp = colour_map("order", COLOURS[0], "#56b4e9", "#999999", "#e69f00", COLOURS[1])
    return [to_hex(ramp(i / (count - 1))) for i in range(count)]


def apart(places: Sequence[float], least: float) -> list[float]:
    """The places in the same order, ``least`` apart and within 0..1, moved no further than it takes.

    >>> [round(place, 2) for place in apart([0.5, 0.52, 0.98, 1.0], 0.1)]
    [0.46, 0.56, 0.9, 1.0]
    """
    # Groups that touch are merged around the mean of where their members wish to be.
    groups: list[tuple[float, list[int]]] = []
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        centre, members = places[i], [i]
        while groups and centre - groups[-1][0] < least * (len(members) + len(groups[-1][1])) / 2:
            members = groups.pop()[1] + members
            half = least * (len(members) - 1) / 2
            centre = sum(places[j] for j in members) / len(members)
            centre = max(half, min(1 - half, centre))
        groups.append((centre, members))
    moved = list(places)
    for centre, members in groups:
        for rank, i in enumerate(members):
            moved[i] = centre + least * (rank - (len(members) - 1) / 2)
    return moved


def written(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, written atomically to the path where there is one."""
    if path is None:
        return figure
    target, suffix = picture_path(path)
    about = {"Software": "gpunn"} if suffix == "png" else None
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix, metadata=about)
    write_atomically(target, picture.getvalue())
    return figure
