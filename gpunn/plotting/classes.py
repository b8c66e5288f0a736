"""Which classes a network takes for which: the confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, DataError, ShapeError
from .checks import called, labels
from .figure import COLOURS, DARK, EDGE, TEXT, Sheet, colour_map, name_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix"]

#: So many classes at most have a row and a column.
MOST = 100

#: Inches: the whole matrix, and the largest and the smallest side of a cell.
SIDE, LARGEST, SMALLEST = 4.4, 0.6, 0.2

#: Inches: the widest cell, where few classes have long names, and what a name takes at most.
WIDEST, NAME = 1.1, 2.2


def confusion_matrix(
    y: Any,
    predicted: Any,
    *,
    names: Iterable[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """How many examples of each class are taken for which: nᵢⱼ = |{x : y(x) = i, predicted(x) = j}|.

    What is right, the diagonal, is blue by its share of the class; what is wrong is vermilion by its number,
    so that a few mistakes show beside many hits. Right of each row stands the share of that class that is
    recognised (its recall, nᵢᵢ / Σⱼ nᵢⱼ, in %).

    Parameters
    ----------
    y, predicted : array (n,) of labels, or (n, classes)
        Of outputs, such as ``net.predict(X)``, the class whose output is greatest counts.
    names : iterable of str, optional
        One for each class; else there are as many classes, from 0 on, as the greatest label says.
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
        For no examples, numbers of labels that differ, a label that is none or has no name, more than 100
        classes; if there is no such picture format.
    OSError
        If the picture cannot be written there: such as into a folder that does not exist.

    Examples
    --------
    >>> from gpunn.plotting import confusion_matrix
    >>> figure = confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], names=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts][:3]
    ['1', '1', '2']
    """
    truth, taken = labels("y", y), labels("predicted", predicted)
    if len(truth) != len(taken):
        raise ShapeError(f"y has {len(truth)} labels, predicted {len(taken)}: expected one for each example")
    greatest = int(max(truth.max(), taken.max()))
    words = None if names is None else called(names, None, "class")
    classes = greatest + 1 if words is None else len(words)
    if greatest >= classes:
        which = "y" if truth.max() == greatest else "predicted"
        raise DataError(
            f"names has {classes} names, but {which} has the label {greatest}: one name is missing"
        )
    if classes > MOST:
        raise ArgumentError(f"there are {classes:,} classes, and at most {MOST} fit into a picture")
    words = called(words, classes, "class")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, taken), 1)

    sheet = Sheet()
    widest = max(sheet.width_of(word, TEXT) for word in words) + 0.14
    cell = min(max(LARGEST, min(widest, WIDEST)), max(SMALLEST, SIDE / classes))
    side = cell * classes
    axes = sheet.panel(0, 0, side, side)
    shades = _shades(counts)
    axes.imshow(shades, interpolation="nearest")
    # About 0.62 of its size is what a digit of this typeface takes.
    size = min(TEXT, 0.88 * cell * 72 / max(1.8, 0.62 * len(str(counts.max()))))
    for (i, j), number in np.ndenumerate(counts):
        if number:
            colour = "white" if shades[i, j, :3] @ (0.3, 0.6, 0.1) < 0.55 else "#202020"
            axes.text(j, i, str(number), ha="center", va="center", fontsize=size, color=colour)
    sums = counts.sum(axis=1)
    for i in np.flatnonzero(sums).tolist():
        share = f"{100 * counts[i, i] / sums[i]:.1f} %"
        axes.text(
            classes - 0.5 + 0.08 / cell, i, share, va="center", fontsize=min(size + 1, TEXT), color=DARK
        )

    small = min(TEXT, 0.75 * cell * 72, max(6.0, TEXT * NAME / widest))
    short = [sheet.fitted(word, NAME, small, small)[0] for word in words]
    axes.set_xticks(range(classes), short, parse_math=False)
    axes.set_yticks(range(classes), short, parse_math=False)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#eeeeee", linewidth=0.5)
    axes.tick_params(which="both", length=0, labelsize=small, labelcolor=DARK)
    if max(sheet.width_of(word, small) for word in short) > 0.9 * cell:
        axes.tick_params(axis="x", labelrotation=90)
    name_axes(axes, "predicted class", "true class")
    for spine in axes.spines.values():
        spine.set(color=EDGE, linewidth=0.6)
    hits = int(np.trace(counts))
    said = f"{hits:,} of {len(truth):,} right: {100 * hits / len(truth):.2f} %"
    axes.text(-0.5, -0.5 - 0.07 / cell, said, fontsize=TEXT, color=DARK, va="bottom")
    return sheet.finish(title, path)


def _shades(counts: Any) -> Any:
    """The colour of each cell, (classes, classes, 4)."""
    shares = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    wrong = counts - np.diag(np.diag(counts))
    shades = colour_map("wrong", "#ffffff", "#f6b98a", COLOURS[1])(wrong / max(int(wrong.max()), 1))
    for i, share in enumerate(shares):
        shades[i, i] = colour_map("right", "#ffffff", "#9cc3de", COLOURS[0])(share)
    return shades
