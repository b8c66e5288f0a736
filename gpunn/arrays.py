"""What a user passes as numbers, as one NumPy array: lists, arrays, memory maps, data frames and series.

pandas is never imported: what has ``iloc`` is taken for a frame or a series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

__all__ = ["as_numbers", "blocks", "column_names", "first_where", "on_gpu", "place", "stays_on_disk"]

Array = NDArray[Any]

#: What DLPack calls memory of a GPU, and memory that a GPU and the host share.
DLPACK_CUDA = (2, 13)

#: Numbers in one block of :func:`blocks`: small beside any file, large beside the cost of a call.
BLOCK = 1 << 18


def as_numbers(name: str, values: Any) -> Array:
    """The values as a NumPy array of booleans, integers or floats, or DataError.

    A memory map stays one. In frames and series ``pandas.NA`` becomes NaN, and columns of several dtypes
    get the one that holds them all.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} is a masked array, and a network has no masks: pass {name}.filled(value)")
    if hasattr(values, "iloc"):
        return _frame(name, values) if values.ndim == 2 else _series(name, values)
    try:
        array: Array = values if isinstance(values, np.memmap) else np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} is not a rectangular array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        hint = "convert it to numbers first"
        if array.dtype.kind == "O" and array.ndim == 0:
            hint = "give a dense NumPy array (a sparse matrix: X.toarray())"
        elif array.ndim == 1 and (array.dtype.kind in "US" or _are_words(array)):
            hint = _words_hint(name)
        elif array.dtype.kind == "O":
            hint = f"unequal rows, None or strings among the numbers? Convert with {name}.astype(float)"
        raise DataError(f"{name} has dtype {array.dtype} ({type(values).__name__}), expected numbers: {hint}")
    return array


def on_gpu(values: Any) -> bool:
    """Whether values lie on a GPU: an array of CuPy, PyTorch, JAX or Numba there.

    >>> on_gpu(np.zeros(3)), on_gpu([1, 2])
    (False, False)
    """
    if hasattr(values, "__cuda_array_interface__"):
        return True
    where = getattr(values, "__dlpack_device__", None)
    return callable(where) and where()[0] in DLPACK_CUDA


def _are_words(array: Array) -> bool:
    return array.dtype.kind in "OT" and len(array) > 0 and all(isinstance(value, str) for value in array)


def _words_hint(name: str) -> str:
    return (
        f"for labels that are words: coder = gpunn.data.OneHot().fit({name}), then {name} = "
        f"coder.labels({name})"
    )


# ------------------------------------------------------------------ pandas


def _frame(name: str, frame: Any) -> Array:
    dtypes = list(frame.dtypes)
    kinds = {dtype.kind for dtype in dtypes if isinstance(dtype, np.dtype)}
    if len(kinds) == 1 and kinds <= set("biuf") and all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return np.asarray(frame)
    columns = [_column(name, label, frame.iloc[:, i]) for i, label in enumerate(frame.columns)]
    result = np.empty(frame.shape, np.result_type(*columns) if columns else np.float64)
    for i, column in enumerate(columns):
        result[:, i] = column
    return result


def _column(name: str, label: Any, column: Any) -> Array:
    dtype = column.dtype
    if dtype.kind in "biuf":
        return _numbers(column)
    one = f"{name}[{label!r}]"
    if hasattr(dtype, "categories"):
        hint = f"classes become columns of 0 and 1 by pandas.get_dummies({name}, columns=[{label!r}])"
    elif dtype.kind == "O":
        hint = (
            f"words that are classes become columns of 0 and 1 by pandas.get_dummies({name}, "
            f"columns=[{label!r}]), numbers written as words become numbers by pandas.to_numeric({one})"
        )
    elif dtype.kind == "M":
        hint = f"dates become numbers of days by ({one} - {one}.min()).dt.days"
    elif dtype.kind == "m":
        hint = f"durations become numbers of seconds by {one}.dt.total_seconds()"
    else:
        hint = "convert it to numbers, or drop it"
    raise DataError(f"column {label!r} of {name} has dtype {dtype}, expected numbers: {hint}")


def _series(name: str, series: Any) -> Array:
    dtype = series.dtype
    if dtype.kind in "biuf":
        return _numbers(series)
    if hasattr(dtype, "categories") and dtype.categories.dtype.kind in "biuf":
        # The classes are numbers, and np.asarray() gives them: NaN where one is missing.
        return np.asarray(series)
    hint = "convert it to numbers first"
    if hasattr(dtype, "categories") or dtype.kind == "O":
        hint = _words_hint(name)
    raise DataError(f"{name} has dtype {dtype} ({type(series).__name__}), expected numbers: {hint}")


def _numbers(series: Any) -> Array:
    """A series of numbers; nullable ones are integers or booleans as long as nothing is missing."""
    if not isinstance(series.dtype, np.dtype) and series.dtype.kind != "f" and series.isna().any():
        return np.asarray(series.to_numpy(dtype="float64", na_value=np.nan))
    array = np.asarray(series)
    return array if array.dtype.kind in "biuf" else np.asarray(series.to_numpy(dtype="float64"))


def column_names(values: Any) -> tuple[str, ...] | None:
    """What the columns of a frame are called; None for anything else.

    >>> column_names([[1, 2]]) is None
    True
    """
    if hasattr(values, "iloc") and values.ndim == 2:
        return tuple(map(repr, values.columns))
    return None


# ------------------------------------------------------------------ block by block


def stays_on_disk(array: Array) -> bool:
    """Whether an array is a memory map that can be read row by row: it may be larger than memory."""
    return isinstance(array, np.memmap) and bool(array.flags.c_contiguous)


def blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """The array in blocks of whole rows: (number of the first row, a view).

    >>> [(start, len(block)) for start, block in blocks(np.zeros((5, BLOCK // 2)))]
    [(0, 2), (2, 2), (4, 1)]
    """
    # A view that is no np.memmap: that class costs microseconds a slice.
    plain = np.asarray(array)
    rows = max(1, BLOCK * len(plain) // max(1, plain.size))
    for start in range(0, len(plain), rows):
        yield start, plain[start : start + rows]


def first_where(array: Array, test: Callable[[Array], Array]) -> tuple[int, ...] | None:
    """The index of the first element that passes an elementwise test, or None.

    >>> first_where(np.array([[1, 2], [-3, 4]]), lambda block: block < 0)
    (1, 0)
    """
    for start, block in blocks(array):
        passed = test(block)
        if passed.any():
            row, *rest = (int(i) for i in np.argwhere(passed)[0])
            return (start + row, *rest)
    return None


def place(index: tuple[int, ...], columns: tuple[str, ...] | None = None) -> str:
    """An index in words, with the column's name where it has one.

    >>> place((3, 1)), place((3, 1), ("'age'", "'height'")), place((3,))
    ('row 3, column 1', "row 3, column 1 ('height')", 'row 3')
    """
    row, *rest = index
    if not rest:
        return f"row {row}"
    name = f" ({columns[rest[0]]})" if columns and len(rest) == 1 else ""
    return f"row {row}, column {', '.join(map(str, rest))}{name}"
