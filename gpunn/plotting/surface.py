"""The cost over two parameters, and the way that gradient descent takes down it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array, as_numbers
from ..errors import ArgumentError, DataError, ShapeError
from .checks import numbers, two_names
from .figure import COLOURS, DARK, TEXT, Sheet, colour_bar, colour_map, name_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["error_surface"]

#: Inches of the panel; the levels that a linear scale has about, and a logarithmic one at most.
WIDTH, HEIGHT, LEVELS, MOST_LEVELS = 3.7, 3.1, 14, 20

#: A cost that is nowhere below 0 has logarithmic levels where its greatest value is more than so many times
#: this quantile of it: around a minimum of 0 it falls without end, so the least value says little.
QUANTILE, SPANS = 0.01, 50.0

#: The paths, in this order: told apart from the blue below them, and from each other.
PATHS = (COLOURS[1], COLOURS[6], COLOURS[4], COLOURS[3], COLOURS[2], "#ffffff")

#: Up to so many points of a path have a dot each.
DOTS = 80

#: A path that leaves the panel is drawn until it is so many panels away.
AWAY = 10.0


def error_surface(
    cost: Any,
    w: Any,
    b: Any,
    *,
    descent: Any = None,
    labels: tuple[str, str] = ("w", "b"),
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The cost C(w, b) from white (low) to dark blue (high), and paths of gradient descent down it.

    The levels are logarithmic where the cost is nowhere negative and spans decades: a valley of a badly
    scaled problem would be one flat colour otherwise. A path begins with a ring and ends with a large dot; it
    stops where it is not finite any more or far outside, as that of a learning rate that is too large.

    Parameters
    ----------
    cost : array (len(b), len(w)), or callable
        C at each (w, b), a row a value of b, as ``numpy.meshgrid(w, b)`` has it; or a function of two numbers
        (w, b) ↦ C, called once for each of these points.
    w, b : array (n,)
        The two axes, from low to high.
    descent : array (n, 2), or mapping of str to array (n, 2), optional
        The points (w, b) of a path, or several paths and what they are called.
    labels : (str, str)
        What the axes are called.
    path, title
        As for :func:`weight_images`.

    Returns
    -------
    matplotlib.figure.Figure
        Which a notebook shows as it is.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        For axes that do not rise, a cost that has another shape or is not finite, a path that has no points
        (w, b); if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    C = ½ (w − 1)² + ½ b², and a path w ← w − η ∂C/∂w, b ← b − η ∂C/∂b with η = ½.

    >>> import numpy as np
    >>> from gpunn.plotting import error_surface
    >>> steps = [(1 + 2 * 0.5**n, 2 * 0.5**n) for n in range(8)]
    >>> figure = error_surface(lambda w, b: ((w - 1) ** 2 + b**2) / 2, np.linspace(-2, 4, 40),
    ...                        np.linspace(-3, 3, 40), descent=steps)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['b', 'cost C (logarithmic)']
    """
    across, up = _axis("w", w), _axis("b", b)
    names = two_names("labels", labels)
    ways = _ways(descent)
    values = numbers("cost", _at_each(cost, across, up) if callable(cost) else cost)
    if values.shape != (len(up), len(across)):
        hint = ": transpose it, a row is a value of b" if values.T.shape == (len(up), len(across)) else ""
        raise ShapeError(
            f"cost has shape {values.shape}, expected (len(b), len(w)) = {(len(up), len(across))}{hint}"
        )
    levels, logarithmic = _levels(values)
    sheet = Sheet()
    axes = sheet.panel(0, 0, WIDTH, HEIGHT)
    from matplotlib.colors import BoundaryNorm

    # A step of colour for each level, so that a logarithmic scale has as many colours as a linear one.
    colours = colour_map("cost", "#ffffff", "#d5e6f2", "#9cc3de", COLOURS[0], "#00304d")
    norm = BoundaryNorm(levels, colours.N)
    # What lies below the lowest level is left as it is: white too.
    filled = axes.contourf(across, up, values, levels=levels, cmap=colours, norm=norm)
    bar = sheet.panel(WIDTH + 0.15, 0, 0.12, HEIGHT)
    below = logarithmic and values.min() < levels[0]
    colour_bar(bar, filled, "cost C (logarithmic)" if logarithmic else "cost C", spacing="uniform")
    ticks = _ticks(levels, logarithmic)
    words = [f"{tick:.10g}".replace("-", "−", tick < 0) for tick in ticks]
    if below and ticks[0] == levels[0]:
        words[0] = f"≤ {words[0]}"
    bar.set_yticks(ticks, words)
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]))
    drawn = [_draw(axes, points, PATHS[i % len(PATHS)]) for i, points in enumerate(ways.values())]
    name_axes(axes, *names)
    styled(axes, grid=False)
    if any(ways):
        _name(sheet, axes, drawn, list(ways))
    return sheet.finish(title, path)


def _at_each(cost: Callable[[float, float], Any], across: Array, up: Array) -> Array:
    """The cost at each point of the grid."""
    values = np.empty((len(up), len(across)))
    for (i, j), _ in np.ndenumerate(values):
        w, b = float(across[j]), float(up[i])
        given = cost(w, b)
        try:
            value = np.asarray(given)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"cost({w:g}, {b:g}) is no array, expected one number: {error}") from error
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise ArgumentError(
                f"cost({w:g}, {b:g}) is {value.dtype} of shape {value.shape}, expected one number"
            )
        values[i, j] = value.item()
    return values


def _axis(name: str, values: Any) -> Array:
    array = numbers(name, values)
    if array.ndim != 1 or len(array) < 2:
        raise ShapeError(f"{name} has shape {array.shape}, expected two or more numbers in one row: (n,)")
    falls = np.flatnonzero(np.diff(array) <= 0)
    if len(falls):
        at = falls[0]
        raise ArgumentError(
            f"{name}[{at}] is {array[at]:g} and {name}[{at + 1}] is {array[at + 1]:g}: expected numbers "
            "that rise"
        )
    return array


def _ways(descent: Any) -> dict[str, Array]:
    """The paths by name, each up to its first point that is not finite."""
    if descent is None:
        return {}
    ways = {}
    for name, points in (descent if isinstance(descent, Mapping) else {"": descent}).items():
        what = f"descent[{name!r}]" if isinstance(descent, Mapping) else "descent"
        array = np.asarray(as_numbers(what, points), np.float64)
        if array.ndim != 2 or array.shape[1] != 2:
            raise ShapeError(
                f"{what} has shape {array.shape}, expected points (w, b), shape (n, 2); several paths are a "
                "mapping: {'name': points, ...}"
            )
        finite = np.isfinite(array).all(axis=1)
        known = len(array) if finite.all() else int(np.argmin(finite))
        if known == 0:
            raise DataError(f"{what} has no point that is finite, so there is nothing to draw")
        ways[str(name)] = array[:known]
    return ways


def _levels(values: Array) -> tuple[Array, bool]:
    """The levels from low to high, and whether they are logarithmic."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = 0.1 * abs(low) or 1.0
        return np.array([low - room, low + room]), False
    if low >= 0:
        least = float(np.quantile(values[values > 0], QUANTILE))
        if high > SPANS * least:
            return _decades(least, high), True
    return np.asarray(MaxNLocator(LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high), np.float64), False


def _decades(least: float, high: float) -> Array:
    """Round numbers from ``least`` down to ``high`` up, the fewer in each decade the more decades there are.

    >>> _decades(0.3, 40.0).tolist()
    [0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0]
    >>> _decades(2e-9, 3.0).tolist()
    [1e-09, 1e-08, 1e-07, 1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / (MOST_LEVELS - 2)))
    for steps in (("1", "1.5", "2", "3", "5", "7"), ("1", "2", "5"), ("1",)):
        found = [float(f"{step}e{decade}") for decade in range(first, last, stride) for step in steps]
        # Within what float64 holds.
        found.append(float(f"1e{min(last, 308)}") if last <= 308 or high <= 1e308 else high)
        start = max(i for i, level in enumerate(found) if level <= least)
        end = min(i for i, level in enumerate(found) if level >= high)
        if end - start < MOST_LEVELS:
            break
    return np.array(found[start : end + 1])


def _ticks(levels: Array, logarithmic: bool) -> list[float]:
    """The levels that have a number beside the colours."""
    numbered: list[float] = levels.tolist()
    if len(numbered) <= 10:
        return numbered
    if not logarithmic:
        return numbered[numbered.index(0.0) % 2 if 0.0 in numbered else 0 :: 2]
    return [numbered[0], *(level for level in numbered[1:] if f"{level:e}"[:3] in ("1.0", "2.0", "5.0"))]


def _draw(axes: Axes, points: Array, colour: str) -> Line2D:
    """A path with its beginning and its end."""
    from matplotlib.patheffects import Normal, Stroke

    points = _until_far(points, axes)
    edge = "#000000" if colour == "#ffffff" else "#ffffff"
    around = [Stroke(linewidth=2.6, foreground=edge), Normal()]
    (line,) = axes.plot(
        *points.T,
        color=colour,
        linewidth=1.4,
        marker="o" if len(points) <= DOTS else None,
        markersize=2.6,
        path_effects=around,
        zorder=3,
    )
    for point, size, inside, rim in ((points[0], 6.5, "white", colour), (points[-1], 7.0, colour, edge)):
        axes.plot(
            *point[:, None],
            "o",
            markersize=size,
            markerfacecolor=inside,
            markeredgecolor=rim,
            markeredgewidth=1.2,
            zorder=4,
        )
    return line


def _until_far(points: Array, axes: Axes) -> Array:
    """The points up to the first that is many panels away, which is drawn nearer on the same way."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    centre, size = np.array([left + right, low + high]) / 2, np.array([right - left, high - low])
    # Of a path that diverges it may not fit into float64, which is far too.
    with np.errstate(over="ignore"):
        distance = (np.abs(points / size - centre / size)).max(axis=1)
    far = np.flatnonzero(distance > AWAY)
    if len(far) == 0:
        return points
    at = int(far[0])
    before = points[at - 1] if at else centre
    share = AWAY / distance[at]
    nearer = before * (1 - share) + points[at] * share
    return np.vstack([points[:at], nearer])


def _name(sheet: Sheet, axes: Axes, shown: list[Line2D], names: list[str]) -> None:
    """Say over the panel what the paths are called, as many beside each other as there is room for."""
    words = [sheet.fitted(name, WIDTH - 0.4, TEXT, TEXT)[0] for name in names]
    widest = max(sheet.width_of(word, TEXT) for word in words) + 0.45
    legend = axes.legend(
        shown,
        ["path"] * len(shown),
        loc="lower left",
        bbox_to_anchor=(0, 1.005),
        borderaxespad=0,
        ncols=max(1, min(len(names), int((WIDTH + 0.3) / widest))),
        frameon=False,
        fontsize=TEXT,
        labelcolor=DARK,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    # Written afterwards: Matplotlib leaves out names that begin with an underscore.
    for text, name in zip(legend.get_texts(), words, strict=True):
        text.set(text=name, parse_math=False)
