"""Pictures of training: the learning curves of one run, and several runs over each other.

Matplotlib (``pip install matplotlib``) is imported when a picture is drawn, not before, and pyplot's
global state is left alone: each function returns a :class:`matplotlib.figure.Figure` of its own, white,
made for print, and writes it to ``path`` where one is given.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, DataError, GpunnError, unknown_name
from .files import write_atomically
from .history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MissingMatplotlibError", "compare_runs", "learning_curves"]

#: Inches: a panel's width and height, and the room on its left, on its right (where the curves are named),
#: above (with a title and without) and below.
WIDTH, HEIGHT = 2.75, 2.25
LEFT, RIGHT, ABOVE, BELOW = 0.62, 0.85, (0.42, 0.14), 0.5
DPI = 150

#: Blue and vermilion of Okabe and Ito, told apart with any colour vision and in grey print; then the others.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DARK, LIGHT = "#404040", "#e4e4e4"
TEXT = 8.5

#: A loss that falls by more than this factor is drawn on a logarithmic axis.
LOGARITHMIC_FROM = 10.0


class MissingMatplotlibError(GpunnError, ImportError):
    """Matplotlib cannot be imported, so there is no picture."""


@dataclass(frozen=True)
class _Curve:
    """One line of a panel: the epochs, a value for each, what it is called and how it is drawn."""

    name: str
    colour: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    width: float = 1.6


def learning_curves(
    history: History, path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Figure:
    """The loss and, where it was taken, the accuracy (in %) of one run over its epochs.

    Training is blue, held-out data (``val_*``) vermilion, their best epoch is marked. The training
    numbers are means over the minibatches of an epoch, each taken before its update: they lag about
    half an epoch behind those of the held-out data.

    Parameters
    ----------
    history : History
        At least one epoch.
    path : path, optional
        Where to write the picture, atomically: ``.png`` (150 dots an inch), ``.pdf`` or ``.svg``.
    title : str, optional
        Shown above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        Which a notebook shows as it is.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        If there is no epoch to draw, or no such picture format.

    Examples
    --------
    >>> from gpunn import History
    >>> history = History([{"epoch": n, "loss": 1 / n, "accuracy": 1 - 0.5 / n} for n in (1, 2, 3)])
    >>> [axes.get_ylabel() for axes in learning_curves(history).axes]
    ['loss', 'accuracy (%)']
    """
    _check([history])
    panels = []
    for key in ("loss", "accuracy"):
        curves = [
            _curve(history, entry, name, colour)
            for entry, name, colour in ((key, "training", COLOURS[0]), (f"val_{key}", "held-out", COLOURS[1]))
            if _have([history], entry)
        ]
        panels.append((key, curves))
    figure = _figure(panels, title, mark_best="held-out")
    return _written(figure, path)


def compare_runs(
    runs: Mapping[str, History], path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Figure:
    """Several runs over each other: loss and accuracy on the held-out data, or else in training.

    Up to seven runs have a colour and a name each. More are drawn alike, thin, under their mean over the
    epochs that all of them reached.

    Parameters
    ----------
    runs : mapping of str to History
        What each run is called, such as ``{"seed 0": history, ...}``.
    path, title
        As for :func:`learning_curves`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for the loss and one for the accuracy, where all runs have it.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        If there is no run, or one without an epoch; if there is no such picture format.

    Examples
    --------
    >>> from gpunn import History
    >>> runs = {f"seed {s}": History([{"epoch": 1, "loss": 1.0 + s, "val_loss": 2.0}]) for s in range(3)}
    >>> [axes.get_ylabel() for axes in compare_runs(runs).axes]
    ['loss, held-out']
    """
    if not runs:
        raise ArgumentError("runs is empty, expected {'name': history, ...}")
    _check(runs.values())
    panels = []
    for key in ("loss", "accuracy"):
        held_out = _have(runs.values(), f"val_{key}")
        entry = f"val_{key}" if held_out else key
        if key == "loss" or _have(runs.values(), entry):
            label = f"{key}, {'held-out' if held_out else 'training'}"
            panels.append((label, _overlay(runs, entry)))
    return _written(_figure(panels, title), path)


def _check(histories: Iterable[History]) -> None:
    if not all(map(len, histories)):
        raise DataError("the history has no epochs, so there is nothing to draw: train for one at least")


def _have(histories: Iterable[History], entry: str) -> bool:
    return all(entry in keys for keys in (history.keys() for history in histories))


def _overlay(runs: Mapping[str, History], entry: str) -> list[_Curve]:
    if len(runs) <= len(COLOURS):
        return [
            _curve(history, entry, name, colour)
            for (name, history), colour in zip(runs.items(), COLOURS, strict=False)
        ]
    thin = [_curve(history, entry, "", "#9cc3de", width=0.7) for history in runs.values()]
    shared = range(min(len(curve.values) for curve in thin))
    means = tuple(sum(curve.values[i] for curve in thin) / len(thin) for i in shared)
    return [*thin, _Curve(f"mean of {len(thin)}", COLOURS[0], thin[0].epochs[: len(means)], means, width=2.0)]


def _curve(history: History, entry: str, name: str, colour: str, width: float = 1.6) -> _Curve:
    scale = 100 if entry.endswith("accuracy") else 1
    points = [(record["epoch"], record.get(entry)) for record in history]
    finite = [(epoch, scale * value) for epoch, value in points if value is not None and math.isfinite(value)]
    return _Curve(name, colour, tuple(x for x, _ in finite), tuple(y for _, y in finite), width)


def _figure(
    panels: Sequence[tuple[str, list[_Curve]]], title: str | None, mark_best: str | None = None
) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingMatplotlibError(
            f"pictures need Matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error
    panels = [(label, [curve for curve in curves if curve.values]) for label, curves in panels]
    panels = [(label, curves) for label, curves in panels if curves]
    cell = LEFT + WIDTH + RIGHT
    size = (cell * len(panels), ABOVE[not title] + HEIGHT + BELOW)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for i, (label, curves) in enumerate(panels):
        corner = ((cell * i + LEFT) / size[0], BELOW / size[1])
        axes = figure.add_axes((*corner, WIDTH / size[0], HEIGHT / size[1]), facecolor="white")
        _panel(axes, label, curves)
        for curve in curves:
            if label == "accuracy" and curve.name == mark_best and len(curve.values) > 1:
                _mark(axes, curve)
    if title:
        text = figure.text(
            LEFT / size[0], 1 - 0.12 / size[1], title, va="top", fontsize=10, fontweight="bold"
        )
        # A long title is made smaller rather than cut off.
        room = (size[0] - LEFT - 0.1) * DPI
        text.set_fontsize(10 * min(1.0, room / max(text.get_window_extent().width, 1.0)))
    return figure


def _panel(axes: Axes, label: str, curves: Sequence[_Curve]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    dots = max(len(curve.values) for curve in curves) == 1
    for curve in curves:
        axes.plot(
            curve.epochs,
            curve.values,
            color=curve.colour,
            linewidth=curve.width,
            marker="o" if dots else None,
            markersize=4,
            solid_capstyle="round",
            clip_on=False,
        )
    values = [value for curve in curves for value in curve.values]
    if "accuracy" in label:
        axes.set_ylabel(f"{label} (%)", fontsize=TEXT + 0.5, color=DARK)
        axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
    else:
        axes.set_ylabel(label, fontsize=TEXT + 0.5, color=DARK)
        if min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            # Numbers with many digits would push the axis' name out of the picture.
            axes.ticklabel_format(axis="y", scilimits=(-2, 5))
            axes.yaxis.get_offset_text().set(fontsize=TEXT, color=DARK)
    axes.set_xlabel("epoch", fontsize=TEXT + 0.5, color=DARK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(which="major", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=TEXT, color="#b0b0b0", labelcolor=DARK, width=0.6, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b0b0")
        spine.set_linewidth(0.6)
    _name_at_the_ends(axes, [curve for curve in curves if curve.name])


def _name_at_the_ends(axes: Axes, curves: Sequence[_Curve]) -> None:
    """Write each curve's name to the right of its end, names kept apart."""
    # Until they are asked for, the limits are not yet those of the data.
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(to_axes.transform((curve.epochs[-1], curve.values[-1]))[1]) for curve in curves]
    line = 1.25 * TEXT / 72 / HEIGHT
    for curve, height in zip(curves, _apart(ends, line), strict=True):
        axes.text(
            1.03,
            height,
            curve.name,
            transform=axes.transAxes,
            va="center",
            color=curve.colour,
            fontsize=TEXT,
        )


def _apart(places: Sequence[float], least: float) -> list[float]:
    """The places in the same order, ``least`` apart and within 0..1, moved no further than it takes.

    >>> [round(place, 2) for place in _apart([0.5, 0.52, 0.98, 1.0], 0.1)]
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


def _mark(axes: Axes, curve: _Curve) -> None:
    """A ring around the highest value; what and where it is stands where accuracies seldom go."""
    at = curve.values.index(max(curve.values))
    epoch, value = curve.epochs[at], curve.values[at]
    axes.plot(
        [epoch], [value], "o", color=curve.colour, markerfacecolor="white", markersize=5.5, clip_on=False
    )
    axes.text(
        0.98,
        0.05,
        f"best {curve.name}: {value:.2f} %, epoch {epoch}",
        transform=axes.transAxes,
        ha="right",
        color=curve.colour,
        fontsize=TEXT,
    )


def _written(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    target = Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    formats: Mapping[str, Any] = figure.canvas.get_supported_filetypes()
    if suffix not in formats:
        raise unknown_name("picture format", suffix, formats)
    about = {"Software": "gpunn"} if suffix == "png" else None
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix, metadata=about)
    write_atomically(target, picture.getvalue())
    return figure
