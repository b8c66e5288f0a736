"""Which column of a table is which: features by their names in training, targets by theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data import Dataset, Split, read_csv
from ..data.table import first_row
from ..errors import DataError, unknown_name
from .task import Classes, Target, few, target_column

__all__ = ["TABLES", "in_order", "names_of", "read_features", "target_elsewhere"]

#: What the names of tables end in.
TABLES = (".csv", ".tsv", ".txt")

#: A column by its index or its name, several of them, or none.
_Columns = int | str | tuple[int | str, ...] | None


def names_of(dataset: Dataset) -> Classes:
    """The names of the features; None where they have none, or where one of them is there twice."""
    names = dataset.feature_names
    return None if names is None or len(set(names)) < len(names) else names


def in_order(dataset: Dataset, names: Classes, where: str) -> Dataset:
    """The data with their features in the order of the names; as they are where either has no names.

    Raises :class:`gpunn.DataError` where the data have other features.

    >>> data = Dataset("toy", Split(np.array([[1, 2]]), None), feature_names=("width", "age"))
    >>> in_order(data, ("age", "width"), "toy.csv").train.X
    array([[2, 1]])
    >>> in_order(data, ("age", "length"), "toy.csv")
    Traceback (most recent call last):
        ...
    gpunn.errors.DataError: toy.csv has no column 'length', and 'width' is none of the features that the
    network was trained on: name the columns as in training (age, length), or give the file without its
    header to go by position
    """
    found = dataset.feature_names
    if names is None or found is None or found == names:
        return dataset
    _check_names(where, names, found)
    order = [found.index(name) for name in names]

    def ordered(side: Split | None) -> Split | None:
        return None if side is None else replace(side, X=side.X[:, order])

    return replace(
        dataset,
        train=replace(dataset.train, X=dataset.train.X[:, order]),
        validation=ordered(dataset.validation),
        test=ordered(dataset.test),
        feature_names=names,
    )


def _check_names(where: str, names: Sequence[str], found: Sequence[str]) -> None:
    """Raise unless these are the same names in any order."""
    missing = [name for name in names if name not in found]
    more = [name for name in found if name not in names]
    twice = [name for name in names if found.count(name) > 1]
    if not (missing or more or twice):
        return
    faults = []
    if missing:
        faults.append(f"has no column {_quoted(missing)}")
    if twice:
        faults.append(f"has more than one column {_quoted(twice)}")
    if more:
        verb = "is" if len(more) == 1 else "are"
        start = f"{_quoted(more)} {verb}" if faults else f"has the column {_quoted(more)}, which {verb}"
        faults.append(f"{start} none of the features that the network was trained on")
    if missing:
        remedy = (
            f"name the columns as in training ({few(names)}), or give the file without its header to go by "
            f"position"
        )
    else:
        remedy = f"leave each of the features in once ({few(names)}), and beside them the target alone"
    raise DataError(f"{where} {', and '.join(faults)}: {remedy}")


def _quoted(names: Sequence[str]) -> str:
    return few([repr(name) for name in names])


def target_elsewhere(target: Target, names: Classes, path: str) -> Target:
    """The target of the training in another file, where there is such a one; None leaves it to the reader.

    It is found by its name, else it is the one column that is none of the features, else by its index. Raises
    :class:`gpunn.DataError` where a table has the features alone.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        return None
    if suffix == ".npz":
        return target if isinstance(target, str) and target in _arrays(path) else None
    if suffix not in TABLES:
        return None
    cells, _ = first_row(path, _delimiter(path))
    asked = target_column(target, path)
    columns = () if asked is None else asked if isinstance(asked, tuple) else (asked,)
    if columns and all(isinstance(column, str) and column in cells for column in columns):
        return target
    if names is not None and set(names) <= set(cells):
        others = [column for column, cell in enumerate(cells) if cell not in names]
        if not others:
            raise DataError(
                f"{path} has a column for each feature and none for the target{_called(target)}, which is "
                f"needed here: add it (gpunn predict takes the features alone)"
            )
        if len(others) == 1:
            return str(others[0])
    return target if columns and _are_there(columns, cells) else None


def _called(target: Target) -> str:
    if not target:
        return ""
    return f" {target!r}" if isinstance(target, str) else f"s {_quoted(target)}"


def _arrays(path: str) -> Sequence[str]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return list(arrays.files)
    except Exception:
        # A damaged archive raises almost anything; its reader says what is wrong.
        return ()


def _delimiter(path: str) -> str | None:
    return "\t" if path.lower().endswith(".tsv") else None


def _are_there(columns: Sequence[int | str], cells: Sequence[str]) -> bool:
    return all(
        column in cells if isinstance(column, str) else -len(cells) <= column < len(cells)
        for column in columns
    )


def read_features(path: str, target: Target, width: int, names: Classes, *, given: bool) -> Dataset:
    """Read the features of a table, in the order of the training; a target beside them is left out.

    Parameters
    ----------
    path : str
        The table.
    target : Target
        Of the training, or as --target says.
    width : int
        How many features the network takes.
    names : tuple of str or None
        What they were called in training. Without, or where the table has no header, they go by position.
    given : bool
        Whether --target says what to leave out.

    Raises
    ------
    gpunn.GpunnError
        Where the table has other features, or is none.
    """
    cells, named = first_row(path, _delimiter(path))
    asked = target_column(target, path)
    columns = () if asked is None else asked if isinstance(asked, tuple) else (asked,)
    count = len(columns) or 1
    known = names is not None and set(names) <= set(cells)
    out: _Columns
    if given:
        if missing := [column for column in columns if isinstance(column, str) and column not in cells]:
            raise unknown_name("target column", missing[0], cells)
        out = asked
    elif known and names is not None:
        others = [column for column, cell in enumerate(cells) if cell not in names]
        if len(others) > count:
            _check_names(path, names, [cell for cell in cells if cell not in columns])
        out = None if not others else others[0] if len(others) == 1 else tuple(others)
    elif len(cells) == width:
        out = None
    else:
        last = tuple(range(-count, 0)) if count > 1 else -1
        out = asked if columns and _are_there(columns, cells) else last
    left = () if out is None else out if isinstance(out, tuple) else (out,)
    if names is not None and (given if known else named) and _are_there(left, cells):
        places = {cells.index(column) if isinstance(column, str) else column % len(cells) for column in left}
        if not given:
            # A column that was a feature is none of the targets that are only guessed.
            places = {place for place in places if cells[place] not in names}
        _check_names(path, names, [cell for place, cell in enumerate(cells) if place not in places])
    fits = known or len(cells) - len(left) == width
    if cells and not fits and not given:
        raise _wrong_width(path, len(cells), width, count)
    dataset = read_csv(path, target=out, delimiter=_delimiter(path), header=True if known else "auto")
    if not fits:
        raise _wrong_width(path, len(cells), width, count)
    return in_order(dataset, names, path)


def _wrong_width(path: str, columns: int, width: int, count: int) -> DataError:
    which = "the target, which" if count == 1 else f"the {count} targets, which"
    where = "it is not the last" if count == 1 else "they are not the last"
    return DataError(
        f"{path} has {columns:,} columns, the network takes {width:,} features: expected {width:,} columns, "
        f"or {width + count:,} with {which} --target names where {where}"
    )
