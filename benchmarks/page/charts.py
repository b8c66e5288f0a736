"""The page's figures: drawn by Matplotlib, without pyplot, and given as SVG to be put into HTML."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpunn.plotting import COLOURS, DARK, LIGHT, _apart

from ..tables import time_of, times
from .markup import Markup, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: How a number is written at an axis.
Words = Callable[[float], str]

BLUE, VERMILION = COLOURS[:2]
OWN = "#a9b2b9"
AXIS = "#8a949c"

#: Points, of which a figure that is 480 pixels wide has 360: on a phone it shrinks by a sixth.
TEXT, SMALL = 11.0, 10.5

#: The medians of the first sitting, the second, ...
SITTINGS = "oDs^v"


@dataclass(frozen=True)
class Bar:
    """A peer: gpunn is ``value`` times as fast, for half of the repeats ``low`` to ``high`` times."""

    label: str
    value: float
    low: float
    high: float
    medians: Sequence[float]
    own: bool = False
    rough: bool = False


@dataclass(frozen=True)
class Line:
    """What one of those who are measured took, at each value of what grows."""

    label: str
    values: Sequence[float]
    seconds: Sequence[float]
    own: bool = False


@dataclass(frozen=True)
class Curve:
    """An op at its sizes, as points, and its kind, which has a colour."""

    kind: str
    points: Sequence[tuple[float, float]]


@contextmanager
def _style() -> Iterator[None]:
    """Text stays text, in the page's own font, and no name of a peer is read as mathematics."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gpunn", "text.parse_math": False}):
        yield


def svg(figure: Figure, name: str, words: str) -> Markup:
    """A figure as an element of a page on which no other figure is called ``name``; ``words`` tell it."""
    written = io.StringIO()
    with _style():
        about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=about, facecolor="white")
    text = written.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)[1]
    inside = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    for left_out in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style.*?</style>"):
        inside = re.sub(left_out, "", inside, flags=re.DOTALL)
    # Ids are shared by all that a page holds, and every figure of Matplotlib's has an axes_1.
    inside = re.sub(r'\bid="', f'id="{name}-', inside)
    inside = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', inside).replace("url(#", f"url(#{name}-")
    inside = re.sub(r"\s*\n\s*", "\n", inside)
    return element("svg", Markup(inside), viewBox=box, role="img", aria_label=words)


def ratios(bars: Sequence[Bar]) -> Figure:
    """How many times gpunn is as fast as each: a bar from 1, whiskers, and a mark for each sitting."""
    labels = [textwrap.fill(bar.label, 19) for bar in bars]
    heights = [0.42 + 0.17 * label.count("\n") for label in labels]
    inches = sum(heights)
    places = [inches - sum(heights[:at]) - height / 2 for at, height in enumerate(heights)]
    ends = [end for bar in bars for end in (bar.low, bar.high, bar.value, *bar.medians)]
    low, high = _room(min(ends), max(ends), any(bar.value < 1 for bar in bars))
    with _style():
        axes = _axes(left=1.62, width=3.3, height=inches, below=0.55, above=0.36)
        axes.set(xlim=(low, high), ylim=(0, inches), xscale="log")
        _log_ticks(axes.xaxis, low, high, lambda value: f"{value:g}", most=6)
        for bar, place in zip(bars, places, strict=True):
            _bar(axes, bar, place)
        axes.axvline(1, color=DARK, linewidth=1.0)
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=LIGHT, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("gpunn is … times as fast", fontsize=TEXT, color=DARK)
        for words, colour, side, shift in (
            ("gpunn slower", VERMILION, "right", -6),
            ("gpunn faster", BLUE, "left", 6),
        ):
            axes.annotate(
                words,
                (1, inches),
                xytext=(shift, 7),
                textcoords="offset points",
                ha=side,
                color=colour,
                fontsize=TEXT,
                fontweight="bold",
                annotation_clip=False,
            )
    return axes.figure


def _bar(axes: Axes, bar: Bar, place: float) -> None:
    colour = OWN if bar.own else BLUE if bar.value >= 1 else VERMILION
    axes.barh(place, bar.value - 1, left=1, height=0.25, color=colour, zorder=2)
    axes.plot([bar.low, bar.high], [place, place], color="#1f2933", linewidth=1.3, zorder=4)
    for at, median in enumerate(bar.medians if len(bar.medians) > 1 else []):
        axes.plot(
            median,
            place + (0.065 if at % 2 == 0 else -0.065),
            SITTINGS[at % len(SITTINGS)],
            markersize=4.2,
            markerfacecolor="white",
            markeredgecolor="#1f2933",
            markeredgewidth=0.9,
            zorder=5,
        )
    ends = (bar.low, bar.high, bar.value, *bar.medians)
    right = bar.value >= 1
    axes.annotate(
        f"{'~' if bar.rough else ''}{times(bar.value)}",
        (max(ends) if right else min(ends), place),
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        color=DARK if bar.own else colour,
        fontsize=TEXT,
        fontweight="bold",
    )


def _room(low: float, high: float, left: bool) -> tuple[float, float]:
    """The ends of a logarithmic axis around 1 with room for the numbers at the ends of the bars."""
    low, high = math.log(min(low, 0.9)), math.log(max(high, 1.6))
    room = 0.22 * (high - low)
    return math.exp(low - (1.2 * room if left else 0.02)), math.exp(high + room)


def scaling(lines: Sequence[Line], what: str, grows: str) -> Figure:
    """Time over what grows, both axes logarithmic; every line is named at its end."""
    with _style():
        longest = max(len(line.label) for line in lines)
        axes = _axes(left=0.85, width=2.6, height=2.9, below=0.62, above=0.34, right=0.35 + 0.1 * longest)
        axes.set(xscale="log", yscale="log")
        for line, (colour, dashes, marker) in zip(lines, _strokes(lines), strict=True):
            axes.plot(
                line.values,
                line.seconds,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=5 if line.own else 4,
                linewidth=2.4 if line.own else 1.4,
                zorder=3 if line.own else 2,
                clip_on=False,
            )
        values = sorted({value for line in lines for value in line.values})
        seconds = [second for line in lines for second in line.seconds]
        axes.set_xlim(values[0] / 1.05, values[-1] * 1.05)
        low, high = min(seconds) / 1.15, max(seconds) * 1.15
        axes.set_ylim(low, high)
        _log_ticks(axes.yaxis, low, high, time_of)
        _fixed_ticks(axes.xaxis, values, lambda value: f"{value:,.0f}")
        axes.grid(color=LIGHT, linewidth=0.7)
        axes.set_xlabel(grows, fontsize=TEXT, color=DARK)
        axes.text(0, 1.05, what, transform=axes.transAxes, fontsize=TEXT, color=DARK, fontweight="bold")
        _name_the_ends(axes, lines)
    return axes.figure


def _strokes(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """Colour, dashes and marker of each: gpunn's backends in colours, the others in greys."""
    own = ((colour, "-", "o") for colour in (BLUE, COLOURS[2], COLOURS[3], *COLOURS[4:]))
    greys = ("#30373d", "#6d7780", "#8a7a66") * 3
    others = zip(greys, ("-", "--", "-.", ":", "-", "--", "-.", ":", "-"), "s^DvXPs^D", strict=True)
    return [next(own if line.own else others) for line in lines]


def _name_the_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Each line's name, with a stroke from its end to it, as names have to keep apart."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [to_axes.transform((line.values[-1], line.seconds[-1])) for line in lines]
    height = axes.get_position().height * axes.figure.get_size_inches()[1]
    places = _apart([end[1] for end in ends], 1.35 * TEXT / 72 / height)
    for line, end, place, (colour, dashes, _) in zip(lines, ends, places, _strokes(lines), strict=True):
        axes.plot(
            [end[0], 1.07, 1.1],
            [end[1], place, place],
            color=colour,
            linestyle=dashes,
            linewidth=1.0,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(
            1.12,
            place,
            line.label,
            transform=axes.transAxes,
            va="center",
            color=colour,
            fontsize=TEXT,
            fontweight="bold" if line.own else "normal",
        )


def bandwidths(curves: Sequence[Curve], copy_bytes: float) -> Figure:
    """Bytes a second over the bytes that an op has to move, and what a large copy reaches."""
    points = [point for curve in curves for point in curve.points]
    left, right = min(x for x, _ in points) / 1.6, max(x for x, _ in points) * 1.6
    low, high = min(y for _, y in points) / 1.5, max([copy_bytes, *(y for _, y in points)]) * 1.6
    with _style():
        axes = _rates(left, right, low, high, "bytes read and written", "bytes a second", bandwidth_of)
        roof = f"large copy, {bandwidth_of(copy_bytes)}"
        axes.axhline(copy_bytes, color=DARK, linewidth=1.6, label=roof)
        _fixed_ticks(axes.xaxis, [x for x in (1e3, 1e5, 1e7, 1e9) if left < x < right], bytes_of)
        _draw(axes, curves)
    return axes.figure


def roofline(curves: Sequence[Curve], copy_bytes: float, product: float, fma: float | None) -> Figure:
    """Operations a second over operations for each byte, below what the machine reaches."""
    points = [point for curve in curves for point in curve.points]
    ridge, top = product / copy_bytes, max(product, fma or 0)
    left = min([x for x, _ in points] + [ridge]) / 1.8
    right = max([x for x, _ in points] + [8 * ridge]) * 1.4
    low, high = min(y for _, y in points) / 1.8, max([top, *(y for _, y in points)]) * 1.9
    with _style():
        axes = _rates(left, right, low, high, "operations for each byte", "operations a second", rate_of)
        axes.plot(
            [left, ridge, right],
            [copy_bytes * left, product, product],
            color=DARK,
            linewidth=1.6,
            label=f"large product, {rate_of(product)}",
        )
        if fma:
            reached = fma / copy_bytes
            axes.plot(
                [ridge, reached, right],
                [product, fma, fma],
                color=AXIS,
                linewidth=1.4,
                linestyle="--",
                label=f"multiply-adds, {rate_of(fma)}",
            )
        _draw(axes, curves)
    return axes.figure


def _rates(left: float, right: float, low: float, high: float, across: str, up: str, words: Words) -> Axes:
    axes = _axes(left=0.95, width=3.75, height=3.0, below=1.2, above=0.34, right=0.3)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    _log_ticks(axes.yaxis, low, high, words, most=6)
    _log_ticks(axes.xaxis, left, right, lambda value: f"{value:g}")
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_xlabel(across, fontsize=TEXT, color=DARK)
    axes.text(0, 1.05, up, transform=axes.transAxes, fontsize=TEXT, color=DARK, weight="bold")
    return axes


def _draw(axes: Axes, curves: Sequence[Curve]) -> None:
    """Points of a kind in a colour and with a marker, which a legend below names, with the lines."""
    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    colours = (BLUE, VERMILION, COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[5]) * len(kinds)
    for kind, colour, marker in zip(kinds, colours, "osD^vP" * len(kinds), strict=False):
        points = [point for curve in curves if curve.kind == kind for point in curve.points]
        axes.plot(
            *zip(*points, strict=True),
            marker,
            color=colour,
            markersize=4.8,
            markeredgecolor="white",
            markeredgewidth=0.4,
            alpha=0.8,
            label=kind,
        )
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.2, -0.17),
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        labelcolor=DARK,
        columnspacing=1.0,
        handlelength=1.6,
    )


def _scaled(value: float, unit: str) -> str:
    scales = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
    prefix, scale = next(((prefix, scale) for prefix, scale in scales if value >= scale), ("", 1.0))
    return f"{value / scale:.3g} {prefix}{unit}"


def rate_of(value: float) -> str:
    """
    >>> [rate_of(value) for value in (2e6, 1.597e11, 4.25e13)]
    ['2 Mflop/s', '160 Gflop/s', '42.5 Tflop/s']
    """
    return _scaled(value, "flop/s")


def bandwidth_of(value: float) -> str:
    """
    >>> bandwidth_of(36.8e9)
    '36.8 GB/s'
    """
    return _scaled(value, "B/s")


def bytes_of(value: float) -> str:
    """
    >>> bytes_of(1e5)
    '100 kB'
    """
    return _scaled(value, "B")


def _axes(
    *, left: float, width: float, height: float, below: float, above: float, right: float = 0.08
) -> Axes:
    """Axes of a figure of their own; all in inches."""
    from matplotlib.figure import Figure

    across, up = left + width + right, below + height + above
    figure = Figure(figsize=(across, up), facecolor="white")
    axes = figure.add_axes((left / across, below / up, width / across, height / up))
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=SMALL, color=AXIS, labelcolor=DARK, width=0.7, length=3.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=AXIS, linewidth=0.7)
    return axes


#: Where numbers stand within a decade, the finest first.
STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))


def _log_ticks(axis: Axis, low: float, high: float, words: Words, most: int = 7) -> None:
    """As many numbers as there may be, over more than a few decades not even one in each."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in STEPS:
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            break
    _fixed_ticks(axis, found[:: math.ceil(len(found) / most) or 1], words)


def _fixed_ticks(axis: Axis, values: Sequence[float], words: Words) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, place: words(value)))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_minor_formatter(NullFormatter())
