"""Images in a grid: what the units of a layer look for, and the examples that a network gets wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, ShapeError, whole_number
from ..network import Sequential
from .checks import called, held, image_shape, labels, numbers
from .figure import COLOURS, DARK, EDGE, TEXT, Sheet, colour_bar, colour_map

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["misclassified", "weight_images"]

#: So many images at most stand in one picture.
MOST = 100

#: Inches: the side of an image where there are up to so many; the gap between two, and the line over each.
SIDES = ((1, 2.4), (4, 1.5), (12, 1.0), (40, 0.84), (MOST, 0.66))
GAP, LINE = 0.09, 0.16

#: An image is drawn no more than so many times as wide as high, or as high as wide.
SLIMMEST = 8.0

#: Where the largest weight is more than so many times this quantile of all, the colours end at the quantile.
QUANTILE, FAR = 0.998, 1.3


def weight_images(
    weights: Any,
    *,
    shape: tuple[int, int] | None = None,
    names: Iterable[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The incoming weights of each unit as an image: blue above 0, white at 0, vermilion below.

    Row j of W, the weights of zⱼ = Σₖ Wⱼₖ aₖ + bⱼ, is laid out as the input is. All images share one scale,
    ±max |w|; where few weights are far beyond all others, it ends at the 99.8 % quantile of |w|, and the
    colour bar has arrows. Of more than 100 units the first 100 are drawn, which the picture says.

    Parameters
    ----------
    weights : array (units, inputs) or (units, rows, columns), or Sequential
        Of a network the first layer that has weights.
    shape : (int, int), optional
        Rows and columns of an image; unless given, those of the network's input, or a square.
    names : iterable of str, optional
        One for each unit; else "unit 0", "unit 1", ...
    path : path, optional
        Where to write the picture, atomically: ``.png`` (150 dots an inch), ``.pdf`` or ``.svg``.
    title : str, optional
        Shown above.

    Returns
    -------
    matplotlib.figure.Figure
        Which a notebook shows as it is.

    Raises
    ------
    gpunn.plotting.MissingMatplotlibError
        If Matplotlib cannot be imported.
    gpunn.GpunnError
        For weights that are empty, not finite, of another shape, or no square where no shape is given; for
        names that are not one a unit; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> import gpunn
    >>> net = gpunn.Sequential([gpunn.Dense(30, activation="sigmoid")], input_shape=784, seed=0)
    >>> figure = gpunn.plotting.weight_images(net)
    >>> len(figure.axes[0].images), figure.axes[0].images[0].get_array().shape
    (30, (28, 28))
    """
    name, matrix, example = _rows_of(weights)
    rows, columns = image_shape(shape, example, f"a row of {name}")
    captions = called(names, len(matrix), "unit", "unit ")
    sizes = np.abs(matrix[:MOST])
    largest = float(sizes.max()) or 1.0
    most = float(np.quantile(sizes, QUANTILE))
    cut = most > 0 and largest > FAR * most
    sheet = Sheet()
    grid = _grid(
        sheet,
        matrix[:MOST].reshape(-1, rows, columns),
        captions,
        colour_map("weights", "#7a3500", COLOURS[1], "#ffffff", COLOURS[0], "#00304d"),
        (-most, most) if cut else (-largest, largest),
        "" if len(matrix) <= MOST else f"the first {MOST} of {len(matrix):,} units",
    )
    tall = min(grid.height - LINE, 2.2)
    bar = sheet.panel(grid.width + 0.18, (grid.height - LINE - tall) / 2, 0.1, tall)
    colour_bar(bar, grid.drawn, "weight", extend="both" if cut else "neither")
    return sheet.finish(title, path)


def misclassified(
    X: Any,
    y: Any,
    predicted: Any,
    *,
    shape: tuple[int, int] | None = None,
    count: int = 25,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The first examples whose predicted label is not the true one, each with "4 taken for 9".

    White is the least value among those that are shown, black the greatest. Below stands how many there are;
    where all predictions are right, that is all there is.

    Parameters
    ----------
    X : array (n, pixels) or (n, rows, columns)
        The examples; a memory map is read only where it is drawn.
    y, predicted : array (n,) of labels, or (n, classes)
        Of outputs, such as ``net.predict(X)``, the class whose output is greatest counts.
    shape : (int, int), optional
        Rows and columns of an image; unless given, those that X has, or a square.
    count : int
        How many are drawn at most; never more than 100.
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
        For empty data, numbers of examples that differ, labels that are none, pixels that are not finite or
        no square where no shape is given; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn.plotting import misclassified
    >>> figure = misclassified([[0, 1, 1, 0], [1, 0, 0, 1]], y=[4, 1], predicted=[9, 1])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['4 taken for 9', '1 of 2 is misclassified']
    """
    wanted = min(whole_number("count", count, 1), MOST)
    truth, taken, inputs = labels("y", y), labels("predicted", predicted), held("X", X)
    if inputs.ndim < 2:
        raise ShapeError(f"X has shape {inputs.shape}, expected (n, pixels) or (n, rows, columns)")
    if not len(inputs) == len(truth) == len(taken):
        raise ShapeError(
            f"X has {len(inputs)} examples, y {len(truth)} labels, predicted {len(taken)}: "
            "expected as many of each"
        )
    rows, columns = image_shape(shape, inputs.shape[1:], "an example")
    wrong = np.flatnonzero(truth != taken)
    shown = wrong[:wanted]
    sheet = Sheet()
    all_of_them = f"{len(wrong):,} of {len(truth):,} {'is' if len(wrong) == 1 else 'are'} misclassified"
    if len(wrong) == 0:
        axes = sheet.panel(0, 0, 3.0, 0.3)
        axes.set_axis_off()
        axes.text(0, 0.5, all_of_them, fontsize=TEXT, color=DARK, va="center")
        return sheet.finish(title, path)
    images = numbers("what is misclassified of X", inputs[shown]).reshape(-1, rows, columns)
    _grid(
        sheet,
        images,
        [f"{truth[i]} taken for {taken[i]}" for i in shown],
        colour_map("ink", "#ffffff", "#000000"),
        (float(images.min()), float(images.max())),
        all_of_them if len(shown) == len(wrong) else f"{all_of_them}, the first {len(shown)} are shown",
    )
    return sheet.finish(title, path)


def _rows_of(weights: Any) -> tuple[str, Array, tuple[int, ...]]:
    """What the weights are called, W (units, inputs), and the shape of one unit's inputs."""
    if isinstance(weights, Sequential):
        tensors = weights.tensors()
        key = next((key for key in tensors if key.endswith(".weights")), None)
        if key is None:
            raise ArgumentError("the network has no layer with weights, so there is nothing to draw")
        matrix = numbers(key, tensors[key])
        same = matrix.ndim == 2 and math.prod(weights.input_shape) == matrix.shape[1]
        example = weights.input_shape if same else matrix.shape[1:]
    else:
        key, matrix = "weights", numbers("weights", weights)
        matrix = matrix[None] if matrix.ndim == 1 else matrix
        example = matrix.shape[1:]
    if not 2 <= matrix.ndim <= 3:
        raise ShapeError(
            f"{key} has shape {matrix.shape}, expected (units, inputs) or (units, rows, columns)"
        )
    return key, matrix.reshape(len(matrix), -1), example


@dataclass(frozen=True)
class _Grid:
    """The last image of a grid, and the inches that the grid takes."""

    drawn: AxesImage
    width: float
    height: float


def _grid(
    sheet: Sheet,
    images: Array,
    captions: Sequence[str],
    colours: Colormap,
    limits: tuple[float, float],
    said: str,
) -> _Grid:
    """Draw each image under its caption, all of them in one panel whose coordinates are inches."""
    count, rows, columns = images.shape
    side = next(inches for most, inches in SIDES if count <= most)
    slim = math.sqrt(min(SLIMMEST, max(1 / SLIMMEST, columns / rows)))
    wide, tall = side * slim, side / slim
    across = _across(count, (wide + GAP) / (tall + LINE + GAP))
    down = -(-count // across)
    width, height = across * (wide + GAP) - GAP, down * (tall + LINE + GAP) - GAP
    axes = sheet.panel(0, 0, width, height)
    axes.set_axis_off()
    low, high = limits
    for i, (image, caption) in enumerate(zip(images, captions, strict=False)):
        x, y = i % across * (wide + GAP), i // across * (tall + LINE + GAP) + LINE
        drawn = axes.imshow(
            image,
            cmap=colours,
            vmin=low,
            vmax=high if high > low else low + 1,
            extent=(x, x + wide, y + tall, y),
            aspect="auto",
            interpolation="nearest",
        )
        frame = [x, x + wide, x + wide, x, x], [y, y, y + tall, y + tall, y]
        axes.plot(*frame, color=EDGE, linewidth=0.5, clip_on=False)
        words, size = sheet.fitted(caption, wide + GAP / 2, TEXT - 1)
        axes.text(
            x + wide / 2,
            y - 0.03,
            words,
            fontsize=size,
            color=DARK,
            ha="center",
            va="bottom",
            parse_math=False,
        )
    axes.set(xlim=(0, width), ylim=(height, 0))
    if said:
        axes.text(0, height + 0.08, said, fontsize=TEXT, color=DARK, va="top")
    return _Grid(drawn, width, height)


def _across(count: int, ratio: float) -> int:
    """How many stand beside each other, so that the grid is about 3 : 2 and few places stay empty.

    >>> [_across(count, 1.0) for count in (1, 2, 5, 16, 25, 30)]
    [1, 2, 3, 4, 5, 6]
    """

    def cost(across: int) -> float:
        down = -(-count // across)
        return abs(math.log(across * ratio / down / 1.5)) + 6 * (across * down - count) / count

    return min(range(1, count + 1), key=cost)
