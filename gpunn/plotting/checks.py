"""What a user passes to a picture, as arrays that can be drawn, or an error that says what to do."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, as_numbers, first_where, on_gpu
from ..errors import ArgumentError, DataError, ShapeError, unknown_name

__all__ = [
    "LARGEST",
    "called",
    "column",
    "held",
    "image_shape",
    "labels",
    "listed",
    "numbers",
    "picture_path",
    "picture_title",
    "two_names",
]

#: What is further from 0 is refused: Matplotlib's differences and margins of it leave float64.
LARGEST = 1e306

#: What a picture can be written as.
FORMATS = ("pdf", "png", "svg")


def held(name: str, values: Any) -> Array:
    """The values as an array on the host that is not empty, of whatever dtype they have."""
    if on_gpu(values):
        raise DataError(f"{name} lies on a GPU: copy it to the host first, with CuPy by {name}.get()")
    array = as_numbers(name, values)
    if array.size == 0:
        raise DataError(f"{name} is empty (shape {array.shape}), so there is nothing to draw")
    return array


def numbers(name: str, values: Any) -> Array:
    """The values in float64: some, and neither NaN nor infinite nor so large that axes cannot hold them.

    >>> numbers("x", [1, 2]).dtype
    dtype('float64')
    >>> numbers("x", [[0.5, float("nan")]])
    Traceback (most recent call last):
        ...
    gpunn.errors.DataError: x[0, 1] is nan, and only finite numbers can be drawn
    """
    array = np.asarray(held(name, values), np.float64)
    at = first_where(array.reshape(-1), lambda block: ~np.isfinite(block))
    if at is not None:
        where = ", ".join(str(int(i)) for i in np.unravel_index(at[0], array.shape))
        one = f"{name}[{where}]" if where else name
        raise DataError(f"{one} is {array.flat[at[0]]}, and only finite numbers can be drawn")
    largest = max(array.max(), -array.min())
    if largest > LARGEST:
        raise DataError(f"{name} goes as far as ±{largest:g}, expected at most ±{LARGEST:g}: scale it")
    return array


def column(name: str, values: Any, count: int | None = None, of: str = "x") -> Array:
    """One number for each point: (n,), or (n, 1) as a network takes and gives it."""
    array = numbers(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(f"{name} has shape {array.shape}, expected one number a point: (n,) or (n, 1)")
    if count is not None and len(array) != count:
        raise ShapeError(f"{name} has {len(array)} numbers, {of} has {count}: expected one for each point")
    return array


def labels(name: str, values: Any) -> Array:
    """Class labels from 0 on, (n,); of outputs (n, classes) the class whose output is greatest.

    >>> labels("predicted", [[0.1, 0.9], [0.6, 0.4]])
    array([1, 0])
    """
    array = held(name, values)
    if array.ndim == 2 and array.shape[1] > 1:
        best: Array = np.argmax(numbers(name, array), axis=1)
        return best
    if array.ndim == 2:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(
            f"{name} has shape {array.shape}, expected labels (n,), or outputs (n, classes) of a network"
        )
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    wrong = (whole != array) | (whole < 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"{name}[{at}] is {array[at]}, expected a label: a whole number from 0 on")
    return whole


def called(names: Iterable[Any] | None, count: int | None, what: str, default: str = "") -> list[str]:
    """A name for each of so many things; as many as there are where the count is open."""
    if names is None:
        return [f"{default}{i}" for i in range(count or 0)]
    found = [str(name) for name in listed("names", names, f"a list of names, one for each {what}")]
    if count is not None and len(found) != count:
        raise ArgumentError(f"names has {len(found)} names, expected {count}: one for each {what}")
    return found


def two_names(argument: str, names: Any) -> tuple[str, str]:
    """The names of two axes."""
    expected = "two names, such as ('x', 'y')"
    found = [str(name) for name in listed(argument, names, expected)]
    if len(found) != 2:
        raise ArgumentError(f"{argument} is {names!r}, expected {expected}")
    return found[0], found[1]


def listed(argument: str, values: Any, expected: str) -> list[Any]:
    """What is passed as a list, one text being none.

    >>> listed("names", "relu", "a list of names")
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: names is 'relu', expected a list of names
    """
    try:
        # An array of no axes says that it is iterable, and is not.
        found = None if isinstance(values, (str, bytes)) else list(values)
    except TypeError:
        found = None
    if found is None:
        raise ArgumentError(f"{argument} is {values!r}, expected {expected}")
    return found


def picture_title(title: Any) -> str:
    """The title, empty where there is none."""
    if title is not None and not isinstance(title, str):
        raise ArgumentError(f"title is {title!r}, expected a str")
    return title or ""


def picture_path(path: Any) -> tuple[Path, str]:
    """Where a picture is written, and in which format.

    >>> picture_path("curves.PNG")[1]
    'png'
    >>> picture_path("curves.jpg")
    Traceback (most recent call last):
        ...
    gpunn.errors.UnknownNameError: unknown picture format 'jpg': did you mean 'png'? Known: pdf, png, svg
    """
    try:
        place = os.fspath(path)
    except TypeError:
        place = None
    if not isinstance(place, str) or "\0" in place:
        raise ArgumentError(f"path is {path!r}, expected the path of a file, such as 'picture.png'")
    suffix = Path(place).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise unknown_name("picture format", suffix, FORMATS)
    return Path(place), suffix


def image_shape(shape: Any, example: tuple[int, ...], what: str) -> tuple[int, int]:
    """The rows and columns of an image: those given, those that the example has, or those of a square.

    >>> image_shape(None, (784,), "a row of weights")
    (28, 28)
    >>> image_shape(None, (1, 20, 30), "an example")
    (20, 30)
    >>> image_shape(None, (785,), "a row of weights")
    Traceback (most recent call last):
        ...
    gpunn.errors.ShapeError: a row of weights has 785 numbers, which fill no square: give ...
    """
    count = math.prod(example)
    if shape is None:
        if len(example) > 1 and math.prod(example[-2:]) == count:
            return example[-2], example[-1]
        side = math.isqrt(count)
        if side * side != count:
            raise ShapeError(f"{what} has {count} numbers, which fill no square: give shape=(rows, columns)")
        return side, side
    expected = "two whole numbers: (rows, columns)"
    try:
        rows, columns = map(operator.index, listed("shape", shape, expected))
    except (TypeError, ValueError):
        raise ArgumentError(f"shape is {shape!r}, expected {expected}") from None
    if rows < 1 or columns < 1 or rows * columns != count:
        raise ShapeError(
            f"shape is {shape!r}, but {what} has {count} numbers: expected rows · columns = {count}"
        )
    return rows, columns
