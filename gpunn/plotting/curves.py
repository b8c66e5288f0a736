"""Learning curves: the loss, the accuracy and the metrics of one run, and several runs over each other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError, DataError, whole_number
from ..history import History
from ..metrics import METRICS
from .checks import LARGEST
from .figure import (
    COLOURS,
    DARK,
    DPI,
    TEXT,
    Sheet,
    above,
    logarithmic,
    name_at_the_ends,
    name_axes,
    styled,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["compare_runs", "learning_curves"]

#: Inches: a panel's width and height, and the least room on its left, on its right (where the curves are
#: named), above (where its best epoch is told) and below. Longer names get more.
WIDTH, HEIGHT = 2.75, 2.25
LEFT, RIGHT, ABOVE, BELOW = 0.62, 0.85, 0.3, 0.5

#: How many panels stand beside each other.
ACROSS = 3

#: A loss that falls by more than this factor is drawn on a logarithmic axis.
LOGARITHMIC_FROM = 10.0

#: R² from here down is left out of its panel, where some of it is above 0.
LEAST_R2 = -1.0


@dataclass(frozen=True)
class _Curve:
    """One line of a panel: the epochs, a value for each, what it is called and how it is drawn."""

    name: str
    colour: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    width: float = 1.6

    def at(self, epoch: int) -> float | None:
        """The value of an epoch, where there is one."""
        return dict(zip(self.epochs, self.values, strict=True)).get(epoch)


@dataclass(frozen=True)
class _Panel:
    """What is measured, on which data, its curves, and the point that is marked: what to say of it, where."""

    key: str
    whose: str
    curves: list[_Curve]
    mark: tuple[str, _Curve, int] | None = None

    @property
    def label(self) -> str:
        """What stands beside the axis."""
        unit = " (%)" if _is_share(self.key) else ""
        return f"{'R²' if self.key == 'r2' else self.key}{self.whose}{unit}"


def learning_curves(
    history: History,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    kept: int | None = None,
) -> Figure:
    """The loss, the accuracy (in %) and the other metrics that were taken in one run, over its epochs.

    Training is blue, held-out data (``val_*``) vermilion, their best epoch is marked: that of the accuracy
    and the other metrics, or in each panel the one whose weights were kept. The training
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
    kept : int, optional
        The epoch whose weights were kept, where it is not the last: ``EarlyStopping.best_epoch``.

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
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn import History
    >>> history = History([{"epoch": n, "loss": 1 / n, "accuracy": 1 - 0.5 / n} for n in (1, 2, 3)])
    >>> [axes.get_ylabel() for axes in learning_curves(history).axes]
    ['loss', 'accuracy (%)']
    """
    _check({"history": history})
    if kept is not None and whole_number("kept", kept, 0) not in [record["epoch"] for record in history]:
        raise ArgumentError(f"kept is {kept}, and the history has no such epoch")
    panels = []
    for key in _measured([history]):
        curves = [
            _curve(history, entry, name, colour)
            for entry, name, colour in ((key, "training", COLOURS[0]), (f"val_{key}", "held-out", COLOURS[1]))
            if _have([history], entry)
        ]
        panels.append(_Panel(key, "", curves, _marked(history, key, curves, kept)))
    return written(_figure(panels, title), path)


def compare_runs(
    runs: Mapping[str, History], path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Figure:
    """Several runs over each other: loss, accuracy and metrics on the held-out data, or else in training.

    Up to seven runs have a colour and a name each. More are drawn alike, thin, under their mean over the
    epochs that all of them reached with a finite number.

    Parameters
    ----------
    runs : mapping of str to History
        What each run is called, such as ``{"seed 0": history, ...}``.
    path, title
        As for :func:`learning_curves`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for the loss and one for each metric that all runs have.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        If there is no run, or one without an epoch; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn import History
    >>> runs = {f"seed {s}": History([{"epoch": 1, "loss": 1.0 + s, "val_loss": 2.0}]) for s in range(3)}
    >>> [axes.get_ylabel() for axes in compare_runs(runs).axes]
    ['loss, held-out']
    """
    if not isinstance(runs, Mapping) or not runs:
        came = "is empty" if isinstance(runs, Mapping) else f"is a {type(runs).__name__}"
        raise ArgumentError(f"runs {came}, expected {{'name': history, ...}}")
    _check({f"runs[{name!r}]": history for name, history in runs.items()})
    panels = []
    for key in _measured(runs.values()):
        held_out = _have(runs.values(), f"val_{key}")
        entry = f"val_{key}" if held_out else key
        if key == "loss" or _have(runs.values(), entry):
            whose = ", held-out" if held_out else ", training"
            panels.append(_Panel(key, whose, _overlay(runs, entry)))
    return written(_figure(panels, title), path)


def _check(histories: Mapping[str, History]) -> None:
    for name, history in histories.items():
        if not isinstance(history, History):
            raise ArgumentError(
                f"{name} is a {type(history).__name__}, expected a gpunn.History, as training gives it; of "
                "records {'epoch': 1, 'loss': ...} make one: gpunn.History(records)"
            )
        if not len(history):
            raise DataError(f"{name} has no epochs, so there is nothing to draw: train for one at least")
        for i, record in enumerate(history):
            whole_number(f"'epoch' of record {i} of {name}", record.get("epoch"), 0)


def _is_share(key: str) -> bool:
    """Whether a metric is a part of the examples, which people read in %."""
    name = key.removeprefix("val_")
    return name == "accuracy" or name.startswith("top_")


def _measured(histories: Iterable[History]) -> list[str]:
    """What there is a panel for: the loss, the accuracy, and the other metrics that are numbers."""
    found = ["loss", "accuracy"]
    for history in histories:
        for record in history:
            for entry, value in record.items():
                name = entry.removeprefix("val_")
                if (name in METRICS or _is_share(name)) and isinstance(value, (int, float)):
                    found.append(name)
    return list(dict.fromkeys(found))


def _marked(
    history: History, key: str, curves: Sequence[_Curve], kept: int | None
) -> tuple[str, _Curve, int] | None:
    """What is worth a ring: the epoch whose weights were kept, else the best one on the held-out data."""
    for curve in curves:
        if curve.name != "held-out":
            continue
        if kept is not None and curve.at(kept) is not None:
            return "kept weights", curve, kept
        if kept is None and key != "loss" and len(curve.values) > 1:
            return f"best {curve.name}", curve, int(history.best(f"val_{key}")["epoch"])
    return None


def _have(histories: Iterable[History], entry: str) -> bool:
    return all(entry in keys for keys in (history.keys() for history in histories))


def _overlay(runs: Mapping[str, History], entry: str) -> list[_Curve]:
    if len(runs) <= len(COLOURS):
        return [
            _curve(history, entry, str(name), colour)
            for (name, history), colour in zip(runs.items(), COLOURS, strict=False)
        ]
    thin = [_curve(history, entry, "", "#9cc3de", width=0.7) for history in runs.values()]
    values = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in thin]
    shared = tuple(sorted(set(values[0]).intersection(*values)))
    means = tuple(sum(run[epoch] / len(thin) for run in values) for epoch in shared)
    return [*thin, _Curve(f"mean of {len(thin)}", COLOURS[0], shared, means, width=2.0)]


def _curve(history: History, entry: str, name: str, colour: str, width: float = 1.6) -> _Curve:
    scale = 100 if _is_share(entry) else 1
    points = [(record["epoch"], record.get(entry)) for record in history]
    kinds = (int, float, np.integer, np.floating)
    finite = [
        (epoch, scale * float(value))
        for epoch, value in points
        if isinstance(value, kinds) and abs(scale * value) <= LARGEST
    ]
    return _Curve(name, colour, tuple(x for x, _ in finite), tuple(y for _, y in finite), width)


def _figure(panels: Sequence[_Panel], title: str | None) -> Figure:
    panels = [replace(panel, curves=[curve for curve in panel.curves if curve.values]) for panel in panels]
    panels = [panel for panel in panels if panel.curves]
    if not panels:
        raise DataError("no loss, accuracy or other metric is finite in any epoch: there is nothing to draw")
    sheet = Sheet()
    figure = sheet.figure
    drawn = [figure.add_axes((0, 0, 1, 1), facecolor="white") for _ in panels]
    _lay_out(figure, drawn, LEFT, RIGHT, 0.0)
    for axes, panel in zip(drawn, panels, strict=True):
        _panel(axes, panel)
        if panel.mark is not None:
            _mark(axes, panel, *panel.mark)
    left, right = map(max, (LEFT, RIGHT), _needed(drawn))
    _lay_out(figure, drawn, left, right, 0.0)
    lines = sheet.broken(title, figure.get_size_inches()[0] - left - 0.1)
    _lay_out(figure, drawn, left, right, above(lines))
    sheet.entitle(lines, left)
    return figure


def _lay_out(figure: Figure, drawn: Sequence[Axes], left: float, right: float, title: float) -> None:
    """Give the figure its size, and each panel its place below a title that is so high."""
    across = max(1, min(ACROSS, len(drawn)))
    rows = -(-len(drawn) // across)
    cell, line = left + WIDTH + right, ABOVE + HEIGHT + BELOW
    size = (cell * across, line * rows + title)
    figure.set_size_inches(size)
    for i, axes in enumerate(drawn):
        x, y = cell * (i % across) + left, line * (rows - 1 - i // across) + BELOW
        axes.set_position((x / size[0], y / size[1], WIDTH / size[0], HEIGHT / size[1]))


def _needed(drawn: Sequence[Axes]) -> tuple[float, float]:
    """The inches that numbers and names take on the left and on the right of the panels."""
    left = right = 0.0
    for axes in drawn:
        renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        box, numbers = axes.get_window_extent(renderer), axes.yaxis.get_tightbbox(renderer)
        if numbers is not None:
            left = max(left, box.x0 - numbers.x0)
        ends = [text.get_window_extent(renderer).x1 for text in axes.texts]
        right = max([right, *(end - box.x1 for end in ends)])
    return left / DPI + 0.06, right / DPI + 0.06


def _panel(axes: Axes, panel: _Panel) -> None:
    curves = panel.curves
    dots = max(len(curve.values) for curve in curves) == 1
    values = [value for curve in curves for value in curve.values]
    cut = panel.key == "r2" and min(values) < LEAST_R2 and max(values) > 0
    for curve in curves:
        axes.plot(
            curve.epochs,
            curve.values,
            color=curve.colour,
            linewidth=curve.width,
            marker="o" if dots else None,
            markersize=4,
            solid_capstyle="round",
            clip_on=cut,
        )
    if _is_share(panel.key):
        axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
    elif cut:
        axes.set_ylim(LEAST_R2, 1.0)
    elif panel.key == "loss" and min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values):
        logarithmic(axes, math.log10(min(values)), math.log10(max(values)))
    else:
        # Numbers with many digits are hard to read.
        axes.ticklabel_format(axis="y", scilimits=(-2, 5))
        axes.yaxis.get_offset_text().set(fontsize=TEXT, color=DARK)
    name_axes(axes, "epoch", panel.label)
    _epochs(axes, [epoch for curve in curves for epoch in curve.epochs])
    styled(axes)
    ends = [(curve.name, curve.colour, curve.values[-1]) for curve in curves if curve.name]
    name_at_the_ends(axes, ends, HEIGHT)


def _epochs(axes: Axes, epochs: Sequence[int]) -> None:
    """Number the epochs from the first, which is not 0, to the last."""
    from matplotlib.ticker import MaxNLocator

    first, last = min(epochs), max(epochs)
    margin = 0.04 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    steps = MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1).tick_values(first, last)
    whole = [int(step) for step in steps if first <= step <= last and step == int(step)]
    apart = whole[1] - whole[0] if len(whole) > 1 else 1
    axes.set_xticks([first, *(step for step in whole if step - first > apart / 2)])


def _mark(axes: Axes, panel: _Panel, words: str, curve: _Curve, epoch: int) -> None:
    """A ring around the value of an epoch; what and where it is stands above the panel, clear of curves."""
    value = curve.at(epoch)
    if value is None:
        return
    # What the panel leaves out has no ring either.
    inside = value >= axes.get_ylim()[0]
    axes.plot(
        [epoch],
        [value],
        "o",
        color=curve.colour,
        markerfacecolor="white",
        markersize=5.5,
        clip_on=not inside,
    )
    number = f"{value:.2f} %" if _is_share(panel.key) else f"{value:.4g}"
    axes.text(
        1.0,
        1.03,
        f"{words}: {number}, epoch {epoch}",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        color=curve.colour,
        fontsize=TEXT,
    )
