"""Functions of one variable: activations with their derivatives, and a curve with what was fitted to it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import ACTIVATIONS, Activation, Scalar, activation
from ..arrays import Array
from ..errors import ArgumentError
from .checks import LARGEST, column, listed, two_names
from .figure import COLOURS, DARK, TEXT, Sheet, name_at_the_ends, name_axes, one_for_each, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["activation_curves", "fitted_curves"]

#: Inches of an activation's panel, and from one panel to the next.
PANEL, STEP = (1.8, 1.35), (2.5, 2.08)

#: Points of a curve between the two ends of an axis.
POINTS = 401

#: Inches: the panel of fitted curves, that of the differences, and what lies between the two.
FIT, DIFFERENCE, BETWEEN = (4.4, 2.7), (4.4, 1.2), 0.25

#: So many curves at most can be named beside a panel, and the inches that a name may take.
MOST, NAME = 15, 2.6


def activation_curves(
    names: str | Iterable[str] | None = None,
    *,
    low: float = -4.0,
    high: float = 4.0,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Activations σ(z) in blue and their derivatives σ′(z) in dashed vermilion, low ≤ z ≤ high.

    Both are the definitions that every backend follows, those of :data:`gpunn.activations.ACTIVATIONS`. Where
    σ has a kink, σ′ has a gap. The formula of σ stands over each panel.

    Parameters
    ----------
    names : str or iterable of str, optional
        Which; unless given all that there are, registered ones too.
    low, high : float
        Between which z.
    path, title
        As for :func:`weight_images`.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each, up to four beside each other.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        For a name that there is not, with the nearest one that is; for low ≥ high; for a registered σ that
        raises there; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn.plotting import activation_curves
    >>> figure = activation_curves(["sigmoid", "relu"])
    >>> sigma, sigma_prime = figure.axes[0].get_lines()
    >>> float(max(sigma_prime.get_ydata()))
    0.25
    """
    if isinstance(names, str):
        names = [names]
    chosen = [*ACTIVATIONS] if names is None else listed("names", names, "names of activations")
    if not chosen:
        raise ArgumentError("names is empty, expected names of activations, or None for all of them")
    if "softmax" in chosen:
        raise ArgumentError("softmax is a function of all z of a layer together: it has no curve over one z")
    rows = [activation(name) for name in chosen]
    try:
        low, high = float(low), float(high)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"low is {low!r}, high is {high!r}, expected two numbers") from None
    if not -LARGEST <= low < high <= LARGEST:
        raise ArgumentError(
            f"low is {low}, high is {high}, expected finite numbers with low < high, up to ±{LARGEST:g}"
        )
    sampled = [_sampled(row, low, high) for row in rows]
    sheet = Sheet()
    across = min(4, len(rows))
    for i, (row, (z, a, slope)) in enumerate(zip(rows, sampled, strict=True)):
        axes = sheet.panel(STEP[0] * (i % across), -STEP[1] * (i // across), *PANEL)
        axes.plot(z, a, color=COLOURS[0], linewidth=1.8)
        axes.plot(z, slope, color=COLOURS[1], linewidth=1.6, linestyle=(0, (4, 1.5)))
        axes.set_xlim(low, high)
        axes.set_xlabel("z", fontsize=TEXT, color=DARK, labelpad=1)
        styled(axes)
        words, size = sheet.fitted(row.name, PANEL[0] + 0.2, TEXT + 0.5)
        axes.text(
            0, 1.15, words, transform=axes.transAxes, fontsize=size, fontweight="bold", parse_math=False
        )
        words, size = sheet.fitted(_formula(row), PANEL[0] + 0.4, TEXT - 1.5, 5.5)
        axes.text(0, 1.04, words, transform=axes.transAxes, fontsize=size, color=DARK, parse_math=False)
        ends = [
            (name, colour, float(values[-1]))
            for name, colour, values in (("σ", COLOURS[0], a), ("σ′", COLOURS[1], slope))
            if math.isfinite(values[-1])
        ]
        name_at_the_ends(axes, ends, PANEL[1], TEXT + 1.5)
    return sheet.finish(title, path)


def _formula(row: Activation) -> str:
    """What is said of σ alone.

    >>> _formula(ACTIVATIONS["elu"])
    'a = z for z > 0, else eᶻ − 1'
    """
    return row.formula.partition("σ′")[0].rstrip(" ,;")


def _sampled(row: Activation, low: float, high: float) -> tuple[Array, Array, Array]:
    """z, σ(z), and σ′(z) with NaN at each kink; what is not finite or too large is NaN."""
    z = np.linspace(low, high, POINTS)
    kinks = [kink for kink in row.kinks if low < kink < high]
    for kink in kinks:
        near = 1e-6 * (high - low)
        z = np.concatenate([z[abs(z - kink) > near], [kink - near, kink, kink + near]])
    z.sort()
    a = _values(row.name, "σ", row.sigma, z)
    slope = _values(row.name, "σ′", row.sigma_prime, a if row.needs == "output" else z)
    slope[np.isin(z, kinks)] = np.nan
    return z, a, slope


def _values(name: str, word: str, function: Scalar, at: Array) -> Array:
    found = np.empty(len(at))
    for i, value in enumerate(at.tolist()):
        try:
            found[i] = function(value) if math.isfinite(value) else math.nan
        except Exception as error:
            raise ArgumentError(
                f"activation {name!r}: {word}({value!r}) raises {type(error).__name__}: {error}: "
                "choose low and high between which it does not"
            ) from error
    return np.where(np.abs(found) <= LARGEST, found, np.nan)


def fitted_curves(
    x: Any,
    y: Any,
    fits: Mapping[str, Any],
    *,
    difference: bool = False,
    names: tuple[str, str] = ("x", "y"),
    points: tuple[Any, Any] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """A target curve y over x, wide and grey, and what was fitted to it, a colour each.

    Parameters
    ----------
    x : array (n,) or (n, 1)
        In any order; the curves go through the points from left to right.
    y : array (n,) or (n, 1), or None
        The target; None where only points of it are known.
    fits : mapping of str to array (n,) or (n, 1)
        What each fit is called, and its values at x, such as ``net.predict(x)``; at most 15.
    difference : bool
        Draw fit − y below.
    names : (str, str)
        What the axes are called, units included.
    points : (array (m,), array (m,)), optional
        Dots, such as the examples that were trained on.
    path, title
        As for :func:`weight_images`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel, or two with ``difference``.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        For arrays that are empty, not finite or not one number a point; for a difference to a y that is not
        given; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from gpunn.plotting import fitted_curves
    >>> x = np.linspace(-1, 1, 50)
    >>> figure = fitted_curves(x, x**2, {"line": np.full(50, 1 / 3)}, difference=True)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['y', 'fit − y']
    """
    at = column("x", x)
    order = np.argsort(at, kind="stable")
    target = None if y is None else column("y", y, len(at))[order]
    if not isinstance(fits, Mapping):
        raise ArgumentError(f"fits is a {type(fits).__name__}, expected {{'name': values at x, ...}}")
    if len(fits) > MOST:
        raise ArgumentError(f"there are {len(fits)} fits, and at most {MOST} can be told apart: choose some")
    values = {str(name): column(f"fits[{name!r}]", fit, len(at))[order] for name, fit in fits.items()}
    dots = None if points is None else _dots(points)
    if difference and target is None:
        raise ArgumentError("difference=True draws fit − y, but y is None: give y")
    if difference and not values:
        raise ArgumentError("difference=True draws fit − y, but there are no fits")
    if target is None and dots is None and not values:
        raise ArgumentError("there are neither y nor fits nor points, so there is nothing to draw")
    across, up = two_names("names", names)
    at = at[order]
    marker = "o" if len(at) == 1 else None
    sheet = Sheet()
    axes = sheet.panel(0, 0, *FIT)
    colours = one_for_each(len(values))
    ends = []
    if target is not None:
        axes.plot(at, target, color="#a8a8a8", linewidth=3.4, marker=marker, solid_capstyle="round")
        ends.append((sheet.fitted(up, NAME, TEXT, TEXT)[0], "#707070", float(target[-1])))
    if dots is not None:
        axes.plot(*dots, "o", color="#606060", markersize=3, markeredgewidth=0, alpha=_opacity(len(dots[0])))
    for (name, fit), colour in zip(values.items(), colours, strict=True):
        axes.plot(at, fit, color=colour, linewidth=1.6, marker=marker)
        ends.append((sheet.fitted(name, NAME, TEXT, TEXT)[0], colour, float(fit[-1])))
    name_axes(axes, y=up)
    styled(axes)
    name_at_the_ends(axes, ends, FIT[1])
    lowest = axes
    if target is not None and difference:
        lowest = sheet.panel(0, -BETWEEN - DIFFERENCE[1], *DIFFERENCE)
        lowest.axhline(0, color="#a8a8a8", linewidth=2)
        for fit, colour in zip(values.values(), colours, strict=True):
            lowest.plot(at, fit - target, color=colour, linewidth=1.4, marker=marker)
        name_axes(lowest, y=f"fit − {up}")
        lowest.set_xlim(axes.get_xlim())
        axes.tick_params(labelbottom=False)
        styled(lowest)
    for panel in {axes, lowest}:
        # Numbers with many digits are hard to read.
        panel.ticklabel_format(axis="y", scilimits=(-3, 5))
        panel.yaxis.get_offset_text().set(fontsize=TEXT, color=DARK)
    name_axes(lowest, across)
    sheet.figure.align_ylabels([axes, lowest])
    return sheet.finish(title, path)


def _dots(points: Any) -> tuple[Array, Array]:
    """The two coordinates of the points."""
    if not isinstance(points, Sequence) or len(points) != 2:
        shape = getattr(points, "shape", None)
        came = f"an array of shape {shape}" if shape else f"a {type(points).__name__}"
        raise ArgumentError(f"points is {came}, expected a pair: points=(x of each, y of each)")
    x = column("points[0]", points[0])
    return x, column("points[1]", points[1], len(x), "points[0]")


def _opacity(count: int) -> float:
    """Fainter where there are many, so that their density shows."""
    return min(0.8, max(0.15, 12 / math.sqrt(count)))
