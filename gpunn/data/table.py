"""Tables of numbers in text: comma, semicolon or tab between the cells, one example a row."""

from __future__ import annotations

import csv
import itertools
import math
import operator
import os
import re
import warnings
from array import array
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpunn.data.splits import Dataset, Split, as_labels, as_target
from gpunn.errors import ArgumentError, FormatError, unknown_name

__all__ = ["read_csv"]

# No digit can be matched in two ways: a long cell takes no longer than it is.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
# Surrogates stand for bytes that are not UTF-8.
_NO_TEXT = re.compile("[\0\udc80-\udcff]")
_CHUNK = 1 << 20
_SNIFFED_ROWS = 20


def read_csv(
    path: str | os.PathLike[str],
    target: int | str | Sequence[int | str] | None = -1,
    delimiter: str | None = None,
    header: bool | Literal["auto"] = "auto",
) -> Dataset:
    """Read a table of numbers from a UTF-8 text file, and one of its columns, or several, as the target.

    Every cell but the target's is a finite number; nothing is filled in or left out. Blank lines are
    skipped, spaces around a cell are dropped, and cells may be quoted as in RFC 4180. A cell takes 8 bytes
    of memory, and each class is held once, however long its word is.

    The target column decides what is learnt:

    - words become int64 labels 0..k-1, with the sorted words as ``classes``;
    - whole numbers become int64. If they are exactly 0..k-1, each occurring, they are labels with
      the classes ``"0"``, ..., ``"k-1"``; else ``classes`` is None;
    - other numbers become float64. A column is whole only if each cell is written so: ``1.0`` is not.

    Several target columns, which a list names, are numbers: float64, one column each in the order of the
    list, with the names in the header, where there is one, as ``target_names``.

    Parameters
    ----------
    path
        The file. A byte-order mark is allowed.
    target
        The column to predict: its name in the header, or its index from 0 (from the end when
        negative). A list of these: several columns. None reads every column as a feature.
    delimiter
        The character between cells. None finds it among tab, semicolon and comma.
    header
        Whether the first row names the columns. ``"auto"`` says so if no feature in it is a number
        and one at least is a word.

    Returns
    -------
    Dataset
        All rows as ``train``: X (n, n_features) float64, y (n,), with a list of t columns (n, t), or
        None. Where there is a header, ``feature_names`` are the names of the columns of X.

    Raises
    ------
    FormatError
        If the file is not such a table; the message names the line and the column, both from 1.
    UnknownNameError
        If no column has the name `target`.
    ArgumentError
        If an argument cannot be used.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "pets.csv"
    ...     _ = path.write_text("weight,legs,kind\\n4.5,4,cat\\n0.1,2,bird\\n")
    ...     pets = read_csv(path, target="kind")
    >>> pets.train.X
    array([[4.5, 4. ],
           [0.1, 2. ]])
    >>> pets.train.y, pets.classes
    (array([1, 0]), ('bird', 'cat'))
    >>> pets.feature_names
    ('weight', 'legs')

    Several targets:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "flats.csv"
    ...     _ = path.write_text("rooms,rent,price\\n2,700,160\\n3,900,210\\n")
    ...     flats = read_csv(path, target=["price", "rent"])
    >>> flats.train.y, flats.target_names
    (array([[160., 700.],
           [210., 900.]]), ('price', 'rent'))
    """
    if header not in (True, False, "auto"):
        raise ArgumentError(f"header is {header!r}, expected True, False or 'auto'")
    name = os.fspath(path)
    quoted = _has_quotes(name)
    layout = _layout(name, target, _sniff(name) if delimiter is None else _checked(delimiter), header)
    X, y, words = (None if quoted else _parse_fast(layout)) or _parse_slow(layout)
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    if y is not None:
        labels, classes = as_target(y) if words is None else as_labels(y, words)
    stem, called = Path(name).stem, layout.target_names
    return Dataset(
        stem,
        train=Split(X, labels, classes, "train", called),
        classes=classes,
        description=f"{len(X):,} rows of {X.shape[1]:,} numbers from {Path(name).name}",
        target_names=called,
        feature_names=layout.feature_names,
    )


def first_row(path: str | os.PathLike[str], delimiter: str | None = None) -> tuple[tuple[str, ...], bool]:
    """The cells of the first row, and whether they are names for the columns: a word or more, no number.

    Raises as :func:`read_csv`, of which it reads the first lines alone.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "pets.csv"
    ...     _ = path.write_text("weight,legs\\n4.5,4\\n")
    ...     first_row(path)
    (('weight', 'legs'), True)
    """
    name = os.fspath(path)
    try:
        with closing(_rows(name, _sniff(name) if delimiter is None else _checked(delimiter))) as rows:
            cells = tuple(next(rows, (0, 0, []))[2])
    except UnicodeDecodeError:
        # This one says where, and what to do.
        _has_quotes(name)
        raise
    return cells, _is_header(cells)


@dataclass(frozen=True)
class _Layout:
    path: str
    delimiter: str
    names: tuple[str, ...] | None
    header_lines: int
    first_line: int
    width: int
    targets: tuple[int, ...]
    several: bool
    words: bool
    header: bool | Literal["auto"]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        if self.names is None:
            return None
        return tuple(name for column, name in enumerate(self.names) if column not in self.targets)

    @property
    def target_names(self) -> tuple[str, ...] | None:
        if not self.several or self.names is None:
            return None
        return tuple(self.names[column] for column in self.targets)

    def place(self, line: int, column: int) -> str:
        title = f" ({self.names[column]!r})" if self.names else ""
        return f"{self.path}: line {line}, column {column + 1}{title}"


def _has_quotes(path: str) -> bool:
    """Whether any cell may be quoted; raises if the file is not UTF-8 text."""
    quotes = False
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        while chunk := file.read(_CHUNK):
            if "\0" in chunk or (not chunk.isascii() and _NO_TEXT.search(chunk)):
                file.seek(0)
                line, fault = next(
                    (number, found) for number, text in enumerate(file, 1) if (found := _NO_TEXT.search(text))
                )
                raise FormatError(
                    f"{path}: line {line}, character {fault.start() + 1} is the byte "
                    f"0x{ord(fault[0]) & 0xFF:02x}, expected UTF-8 text: save the file again as UTF-8 "
                    "(is it UTF-16, or no text at all?)"
                )
            quotes = quotes or '"' in chunk
    return quotes


def _checked(delimiter: str) -> str:
    if len(delimiter) != 1 or delimiter.isalnum() or delimiter in '+-._"\r\n\0':
        raise ArgumentError(
            f"delimiter is {delimiter!r}, expected one character that is no part of a number, a word "
            "or a quotation, such as ',', ';' or '\\t'"
        )
    return delimiter


def _sniff(path: str) -> str:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(itertools.islice(file, _SNIFFED_ROWS))
    widths = {candidate: _widths(lines, candidate) for candidate in "\t;,"}
    for candidate, found in widths.items():
        if len(set(found)) == 1 and found[0] > 1:
            return candidate
    return max(",;\t", key=lambda candidate: max(widths[candidate], default=0))


def _widths(lines: list[str], delimiter: str) -> list[int]:
    try:
        return [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        # A cell that is too long for csv, as a whole line is where this is not the delimiter.
        return []


def _rows(path: str, delimiter: str) -> Generator[tuple[int, int, list[str]]]:
    """The rows that are not blank: their first line, their last line, and their stripped cells."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        # csv refuses to skip spaces where the space is the delimiter.
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
        start = 1
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if cells and cells != [""]:
                    yield start, reader.line_num, cells
                start = reader.line_num + 1
        except csv.Error as error:
            raise FormatError(
                f"{path}: line {start}: {error}; expected cells separated by {delimiter!r}, each quoted "
                'as "..." or not at all: look for a quotation mark that is never closed'
            ) from error


def _layout(
    path: str,
    target: int | str | Sequence[int | str] | None,
    delimiter: str,
    header: bool | Literal["auto"],
) -> _Layout:
    with closing(_rows(path, delimiter)) as rows:
        first, second = next(rows, None), next(rows, None)
    if first is None:
        raise FormatError(f"{path}: is empty, expected rows of numbers separated by {delimiter!r}")
    cells = first[2]
    asked: list[Any] = [] if target is None else [target]
    several = False
    if isinstance(target, Sequence) and not isinstance(target, (str, bytes)):
        asked, several = list(target), True
    targets = tuple(_target_index(path, column, cells, header) for column in asked)
    if several:
        _check_several(asked, targets)
    features = [cell for column, cell in enumerate(cells) if column not in targets]
    if not features:
        which = "which is the target; expected features beside it:"
        if several:
            which = "each of them a target; expected features beside them: name fewer targets, or,"
        count = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
        raise FormatError(
            f"{path}: line {first[0]} has {count}, {which} "
            f"if the cells are not separated by {delimiter!r}, give the delimiter"
        )
    by_name = any(isinstance(column, str) for column in asked)
    named = _is_header(features) if header == "auto" and not by_name else header is not False
    if named and second is None:
        raise FormatError(f"{path}: holds a header and no rows, expected one row for each example")
    # Several targets are numbers, whatever their first cells hold.
    column = targets[0] if targets and not several else None
    row = second[2] if named and second is not None else cells
    words = column is not None and column < len(row) and not _is_number(row[column])
    names, lines = (tuple(cells), first[1]) if named else (None, 0)
    return _Layout(path, delimiter, names, lines, first[0], len(cells), targets, several, words, header)


def _target_index(path: str, target: Any, cells: list[str], header: bool | Literal["auto"]) -> int:
    if isinstance(target, str):
        if header is False:
            raise ArgumentError(
                f"target is {target!r} and header is False, expected a header to find the name in: "
                "give the column's index"
            )
        if target not in cells:
            raise unknown_name("target column", target, cells)
        if cells.count(target) > 1:
            raise FormatError(
                f"{path}: {cells.count(target)} columns are called {target!r}, expected one: "
                "give the column's index"
            )
        return cells.index(target)
    try:
        index = operator.index(target)
    except TypeError as error:
        raise ArgumentError(
            f"target is {target!r}, expected a column's name, index, a list of these, or None"
        ) from error
    if not -len(cells) <= index < len(cells):
        raise ArgumentError(
            f"target is column {index}, expected {-len(cells)} to {len(cells) - 1}, since {path} has "
            f"{len(cells)} columns"
        )
    return index % len(cells)


def _check_several(asked: Sequence[Any], targets: Sequence[int]) -> None:
    if not targets:
        raise ArgumentError("target is an empty list, expected one column or more, or None for no target")
    for place, column in enumerate(targets):
        before = targets.index(column)
        if before < place:
            ways = "" if asked[before] == asked[place] else f", as {asked[before]!r} and as {asked[place]!r}"
            which = f"the column {asked[place]!r}" if not ways else "one column"
            raise ArgumentError(f"target names {which} twice{ways}, expected each once: leave one out")


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell) or _NOT_FINITE.fullmatch(cell))


def _is_header(features: Sequence[str]) -> bool:
    return any(features) and not any(map(_is_number, features))


#: X; y, a column for each where there may be several; and, where y holds codes for words, the word of each.
_Parsed = tuple[NDArray[np.float64], NDArray[Any] | None, list[str] | None]


def _parse_fast(layout: _Layout) -> _Parsed | None:
    """The table by NumPy's parser, or None where it stumbles and :func:`_parse_slow` is to say why."""
    codes: dict[str, int] = {}

    def encode(cell: str) -> int:
        code = codes.get(cell)
        if code is None:
            if not cell.strip() or _is_number(cell.strip()):
                raise ValueError("a target that is no word among words")
            code = codes[cell] = len(codes)
        return code

    columns = list(layout.targets)
    table = _loadtxt(layout, np.float64, converters={columns[0]: encode} if layout.words else None)
    if table is None or table.shape[1] != layout.width or not _finite(table):
        return None
    if not columns:
        return table, None, None
    if layout.several:
        y: NDArray[Any] = np.ascontiguousarray(table[:, columns])
        return _without(table, columns), y, None
    column = table[:, columns[0]]
    y = column.copy()
    if layout.words:
        y = y.astype(np.intp)
    elif _may_be_whole(column) and (whole := _loadtxt(layout, np.int64, usecols=columns)) is not None:
        y = whole[:, 0]
    return _without(table, columns), y, [word.strip() for word in codes] if layout.words else None


def _loadtxt(
    layout: _Layout,
    dtype: type[Any],
    converters: Mapping[int | str, Callable[[str], int]] | None = None,
    usecols: list[int] | None = None,
) -> NDArray[Any] | None:
    with open(layout.path, encoding="utf-8-sig") as file, warnings.catch_warnings():
        # NumPy 1 takes "1.0" for a whole number, with a warning.
        warnings.simplefilter("error", DeprecationWarning)
        for _ in range(layout.header_lines):
            next(file)
        try:
            return np.loadtxt(
                file,
                dtype=dtype,
                comments=None,
                delimiter=layout.delimiter,
                converters=converters,
                usecols=usecols,
                ndmin=2,
                encoding="utf-8",
            )
        except (ValueError, DeprecationWarning):
            return None


def _without(table: NDArray[np.float64], columns: list[int]) -> NDArray[np.float64]:
    """The table without columns, moved together in its own memory: a copy would take as much again."""
    rows, width = table.shape
    flat, kept = table.reshape(-1), np.isin(np.arange(width), columns, invert=True)
    left, step = width - len(columns), 1 + _CHUNK // width
    for start in range(0, rows, step):
        block = table[start : start + step, kept]
        flat[start * left :][: block.size] = block.reshape(-1)
    return flat[: rows * left].reshape(rows, left)


def _finite(table: NDArray[np.float64]) -> bool:
    # The extremes tell, and need no array of flags.
    return bool(np.isfinite(table.min()) and np.isfinite(table.max()))


def _may_be_whole(column: NDArray[np.float64]) -> bool:
    return bool(np.all(column == np.rint(column)))


def _parse_slow(layout: _Layout) -> _Parsed:
    """The table row by row: the definition of what a table is, and the source of every complaint."""
    values, numbers = array("d"), array("d")
    targets: list[str] = []
    codes: dict[str, int] = {}
    labels = array("q")
    with closing(_rows(layout.path, layout.delimiter)) as rows:
        for line, _, cells in itertools.islice(rows, 1 if layout.names else 0, None):
            if len(cells) != layout.width:
                raise FormatError(
                    f"{layout.path}: line {line} has {len(cells)} columns, expected {layout.width} as in "
                    f"line {layout.first_line}: look for a missing or spare {layout.delimiter!r} in it"
                )
            for column, cell in enumerate(cells):
                if column in layout.targets:
                    if layout.several:
                        numbers.append(_value(layout, line, column, cell))
                        continue
                    _check_target(layout, line, column, cell)
                    if layout.words:
                        labels.append(codes.setdefault(cell, len(codes)))
                    else:
                        targets.append(cell)
                else:
                    values.append(_value(layout, line, column, cell))
    X = np.frombuffer(values, np.float64).reshape(-1, layout.width - len(layout.targets))
    if not layout.targets:
        return X, None, None
    if layout.several:
        # As they lie in the file, to the order in which they were asked for.
        order = [sorted(layout.targets).index(column) for column in layout.targets]
        y = np.frombuffer(numbers, np.float64).reshape(-1, len(order))
        return X, np.ascontiguousarray(y[:, order]), None
    if layout.words:
        return X, np.frombuffer(labels, np.int64), list(codes)
    if all(map(_INTEGER.fullmatch, targets)):
        try:
            return X, np.array([int(cell) for cell in targets], dtype=np.int64), None
        except (OverflowError, ValueError):
            pass
    return X, np.array([float(cell) for cell in targets]), None


def _check_target(layout: _Layout, line: int, column: int, cell: str) -> None:
    if not layout.words:
        _value(layout, line, column, cell)
    elif not cell:
        raise FormatError(
            f"{layout.place(line, column)} is empty, expected a class: fill the cell in or remove the row"
        )
    elif _is_number(cell):
        raise FormatError(
            f"{layout.place(line, column)} holds the number {cell!r}, expected a word as in the first row: "
            "write every target as a number, or every target as a word"
        )


def _value(layout: _Layout, line: int, column: int, cell: str) -> float:
    if _NUMBER.fullmatch(cell) and math.isfinite(value := float(cell)):
        return value
    where = layout.place(line, column)
    if not cell:
        raise FormatError(f"{where} is empty, expected a number: fill the cell in or remove the row")
    if _is_number(cell):
        raise FormatError(
            f"{where} holds {cell!r}, expected a finite number: correct the cell or remove the row"
        )
    shown = cell if len(cell) <= 40 else cell[:37] + "..."
    if _DECIMAL_COMMA.fullmatch(cell):
        remedy = "write the decimal point as a point"
    elif layout.several and column in layout.targets:
        remedy = "write the cell as a number; only a target that is alone may be words, the names of classes"
    elif line == layout.first_line and layout.header == "auto" and layout.names is None:
        remedy = "if this line names the columns, pass header=True; else write the cell as a number"
    elif column in layout.targets:
        remedy = "write every target as a number, or every target as a word"
    else:
        remedy = "write the cell as a number, remove the column, or make it the target"
    raise FormatError(f"{where} holds {shown!r}, expected a number: {remedy}")
