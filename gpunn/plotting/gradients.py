"""How large the gradients of the layers are: once, or over time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DataError, ShapeError
from .checks import numbers
from .figure import (
    COLOURS,
    DARK,
    TEXT,
    Sheet,
    logarithmic,
    name_at_the_ends,
    name_axes,
    one_for_each,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["gradient_magnitudes"]

#: Inches: the panel's height, its width over time, that of bars at most, and the longest name.
HEIGHT, WIDTH, WIDEST, NAME = 2.6, 3.9, 7.0, 2.0

#: Norms that differ by more than this factor are drawn on a logarithmic axis.
LOGARITHMIC_FROM = 10.0

#: So many layers at most.
MOST_BARS, MOST_LINES = 60, 15


def gradient_magnitudes(
    gradients: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """How large the gradient of each layer is, ‖∂C/∂W‖ = (Σⱼₖ (∂C/∂Wⱼₖ)²)^½, as bars or over time.

    One mapping is drawn as bars, from the first layer to the last; several, taken one after the other, as a
    line a layer. The axis is logarithmic where the norms differ by more than a factor of ten, as they do in
    a deep network whose gradient vanishes; a norm of 0 has no bar there.

    Parameters
    ----------
    gradients : mapping of str to array, or iterable of such mappings
        As :meth:`gpunn.Sequential.gradients` gives it: the weights are drawn, the biases left out; where
        there are only biases (or errors δ, of :meth:`gpunn.Sequential.errors`), those.
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
        For no gradients, gradients that are not finite, mappings with different keys, more than 60 bars or 15
        lines; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn.plotting import gradient_magnitudes
    >>> once = {"layers.0.weights": [[3.0, 4.0]], "layers.0.bias": [1.0], "layers.1.weights": [[2.0]]}
    >>> [float(bar.get_height()) for bar in gradient_magnitudes(once).axes[0].patches]
    [5.0, 2.0]
    >>> len(gradient_magnitudes([once, once, once]).axes[0].get_lines())
    2

    Source: Nielsen, Neural Networks and Deep Learning, chapter 5.
    """
    over_time = not isinstance(gradients, Mapping)
    taken = _mappings(gradients)
    keys, label = _chosen(list(taken[0]))
    if len(keys) > (MOST_LINES if over_time else MOST_BARS):
        most, what = (MOST_LINES, "lines") if over_time else (MOST_BARS, "bars")
        raise ArgumentError(
            f"gradients has {len(keys)} layers, and at most {most} {what} can be drawn: choose some"
        )
    norms = np.array(
        [
            [
                _norm(f"gradients[{i}][{key!r}]" if over_time else f"gradients[{key!r}]", one[key])
                for key in keys
            ]
            for i, one in enumerate(taken)
        ]
    )
    names = [key.removesuffix(".weights").removesuffix(".bias") for key in keys]
    sheet = Sheet()
    (_lines if over_time else _bars)(sheet, names, norms)
    name_axes(sheet.figure.axes[0], y=label)
    return sheet.finish(title, path)


def _mappings(gradients: Any) -> list[Mapping[str, Any]]:
    try:
        taken = [gradients] if isinstance(gradients, Mapping) else list(gradients)
    except TypeError:
        taken = [gradients]
    if not taken or (isinstance(taken[0], Mapping) and not taken[0]):
        raise DataError("gradients is empty, so there is nothing to draw")
    for i, one in enumerate(taken):
        if not isinstance(one, Mapping):
            raise ArgumentError(
                f"gradients is or holds a {type(one).__name__}, expected what net.gradients(X, y) gives, or "
                "a list of such mappings"
            )
        if list(one) != list(taken[0]):
            raise ArgumentError(
                f"gradients[{i}] has the keys {list(one)}, but gradients[0] has {list(taken[0])}: expected "
                "gradients of one network"
            )
    strange = [key for key in taken[0] if not isinstance(key, str)]
    if strange:
        raise ArgumentError(
            f"gradients has the key {strange[0]!r}, expected names such as 'layers.0.weights', as "
            "net.gradients(X, y) gives them"
        )
    return cast("list[Mapping[str, Any]]", taken)


def _chosen(keys: list[str]) -> tuple[list[str], str]:
    """The keys that are drawn, and what the axis is called.

    >>> _chosen(["layers.0.weights", "layers.0.bias"])
    (['layers.0.weights'], '‖∂C/∂W‖')
    """
    if all(key.endswith(".bias") for key in keys):
        return keys, "‖∂C/∂b‖"
    chosen = [key for key in keys if not key.endswith(".bias")]
    if all(key.endswith(".weights") for key in chosen):
        return chosen, "‖∂C/∂W‖"
    errors = all(key.rpartition(".")[2].isdecimal() for key in chosen)
    return chosen, "‖δ‖" if errors else "norm of the gradient"


def _norm(name: str, values: Any) -> float:
    """Of numbers whose squares may not fit into float64 too."""
    array = numbers(name, values)
    if array.ndim == 0:
        raise ShapeError(f"{name} is one number, expected the array that net.gradients(X, y) gives")
    largest = float(np.abs(array).max())
    norm = largest * float(np.linalg.norm(array / largest)) if largest else 0.0
    return float(numbers(f"the norm of {name}", norm))


def _limits(norms: Array) -> tuple[float, float, bool]:
    """The least and the greatest norm above 0, and whether the axis is logarithmic."""
    positive = norms[norms > 0]
    if len(positive) == 0:
        return 1.0, 1.0, False
    low, high = float(positive.min()), float(positive.max())
    return low, high, high > LOGARITHMIC_FROM * low


def _bars(sheet: Sheet, names: Sequence[str], norms: Array) -> None:
    heights = norms[0].tolist()
    said = [f"{height:.0f}" if 100 <= height < 1e5 else f"{height:.2g}" for height in heights]
    number, widest = (
        max(sheet.width_of(word, TEXT) for word in words) + 0.1 for words in (said, [*names, *said])
    )
    # What has no room beside its neighbours stands upright.
    turned = widest > 1.1 or widest * len(names) > WIDEST
    step = max(0.2, min(max(0.5, number), WIDEST / len(names))) if turned else max(0.5, widest)
    axes = sheet.panel(0, 0, max(2.2, step * len(names)), HEIGHT)
    axes.bar(range(len(names)), heights, color=COLOURS[0], width=0.62)
    short = [sheet.fitted(name, NAME, TEXT, TEXT)[0] for name in names]
    axes.set_xticks(range(len(names)), short, parse_math=False)
    axes.set_xlim(-0.6, len(names) - 0.4)
    low, high, decades = _limits(norms)
    if decades:
        # The least bar has a height that can be seen, and the greatest room for its number.
        logarithmic(axes, math.log10(low) - 0.07 * math.log10(high / low) - 0.4, math.log10(high) + 0.2)
    else:
        axes.set_ylim(0, 1.05 * high)
    styled(axes)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0, labelrotation=90 if turned else 0)
    for i, (height, words) in enumerate(zip(heights, said, strict=True)):
        at = height if height or not decades else axes.get_ylim()[0]
        axes.annotate(
            words,
            (i, at),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=TEXT - 1,
            color=DARK,
            rotation=90 if number > step + 0.05 else 0,
        )
    name_axes(axes, "from the input to the output")


def _lines(sheet: Sheet, names: Sequence[str], norms: Array) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = sheet.panel(0, 0, WIDTH, HEIGHT)
    low, high, decades = _limits(norms)
    colours = one_for_each(len(names))
    marker = "o" if len(norms) == 1 else None
    ends = []
    for name, values, colour in zip(names, norms.T, colours, strict=True):
        seen = np.where(values > 0, values, np.nan) if decades else values
        axes.plot(seen, color=colour, linewidth=1.6, marker=marker, markersize=4)
        last = seen[np.isfinite(seen)]
        ends.append((sheet.fitted(name, NAME, TEXT, TEXT)[0], colour, float(last[-1]) if len(last) else low))
    if decades:
        logarithmic(axes, math.log10(low), math.log10(high))
    else:
        axes.set_ylim(0, 1.08 * high)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    styled(axes)
    name_at_the_ends(axes, ends, HEIGHT)
    name_axes(axes, "measurement")
