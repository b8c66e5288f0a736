"""Arrays saved with ``numpy.savez``: examples and targets under the names that people use."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from gpunn.data.binary import ALLOWANCE, byte_count, pass_over, read_at_most
from gpunn.data.splits import Dataset, Split, as_labels, as_target
from gpunn.errors import DataError, FormatError, GpunnError, unknown_name

__all__ = ["read_npz"]

_PAIRS = (("X", "y"), ("x", "y"), ("X_train", "y_train"), ("x_train", "y_train"), ("data", "target"))
_CHUNK = 1 << 20
_TEST_PAIRS = (("X_test", "y_test"), ("x_test", "y_test"))
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: str | os.PathLike[str], features: str | None = None, target: str | None = None) -> Dataset:
    """Read examples and targets from an ``.npz`` file; nothing in it is ever unpickled.

    Without names, the first pair present is read: X and y, x and y, X_train and y_train, x_train and
    y_train, data and target. With one name, the other is the first that goes with it in this list.
    X_test and y_test (or x_test and y_test), where both are present, become the test side.

    Axes of X after the first are flattened in C order, (n, 28, 28) to (n, 784). Floats stay as they
    are, whole numbers become float32, or float64 where float32 would lose digits; nothing is scaled.
    A target of one column (n, 1) becomes (n,). Words become int64 labels with ``classes``, whole
    numbers int64 (labels if they are exactly 0..k-1), other targets floats.

    A damaged file takes no more memory than twice its size and 64 MB. A compressed one may well hold
    larger arrays than that: such an array is unpacked twice, once only to see that it is whole and as
    large as it announces, before memory is taken for it.

    Parameters
    ----------
    path
        The file, as written by ``numpy.savez`` or ``numpy.savez_compressed``.
    features, target
        The names of the two arrays in it; None finds them.

    Returns
    -------
    Dataset
        ``train`` and, if the file has one, ``test``: X (n, n_features), y (n,) or (n, n_outputs).

    Raises
    ------
    FormatError
        If the file is no ``.npz``, is damaged, holds Python objects, or its arrays do not fit together.
    UnknownNameError
        If an array of the name `features` or `target` is not in the file.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    The format of each array is that of NumPy Enhancement Proposal 1.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "xor.npz"
    ...     np.savez(path, X=[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], y=[0, 1, 1, 0])
    ...     xor = read_npz(path)
    >>> xor.train
    Split('train': X (4, 2) float64, y (4,) int64, 2 classes)
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = _Arrays(name, archive, 2 * os.fstat(file.fileno()).st_size + ALLOWANCE)
                train, test = arrays.pair(features, target), arrays.test_pair()
        except (GpunnError, MemoryError):
            raise
        except Exception as error:
            # A damaged zip surfaces as almost anything: struct, zlib, seek, encryption, recursion.
            raise FormatError(
                f"{name}: is not a zip archive, or a damaged one ({type(error).__name__}: {error}); expected "
                "a file written by numpy.savez"
            ) from error
    return _dataset(name, train, test)


_Pair = tuple[str, NDArray[Any], str, NDArray[Any]]


class _Arrays:
    """The arrays of one open archive, read when asked for."""

    def __init__(self, path: str, archive: zipfile.ZipFile, affordable: int) -> None:
        self.path = path
        self.affordable = affordable
        self.archive = archive
        self.members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }

    def pair(self, features: str | None, target: str | None) -> _Pair:
        for asked in (features, target):
            if asked is not None and asked not in self.members:
                raise unknown_name(f"array in {self.path}", asked, self.members)
        for x_name, y_name in [(features or x, target or y) for x, y in _PAIRS]:
            if x_name in self.members and y_name in self.members:
                return x_name, self.read(x_name), y_name, self.read(y_name)
        raise FormatError(
            f"{self.path}: holds the arrays {', '.join(sorted(self.members)) or 'none'}, expected one of the "
            f"pairs {', '.join(f'{features or x}/{target or y}' for x, y in _PAIRS)}: name the two to read"
        )

    def test_pair(self) -> _Pair | None:
        for x_name, y_name in _TEST_PAIRS:
            if x_name in self.members and y_name in self.members:
                return x_name, self.read(x_name), y_name, self.read(y_name)
        return None

    def read(self, key: str) -> NDArray[Any]:
        info = self.members[key]
        if info.compress_type not in _METHODS:
            # The others may ask for gigabytes before they give a byte.
            raise FormatError(
                f"{self.path}: the array {key!r} is packed by method {info.compress_type}, expected 0 or "
                "8, as numpy.savez and numpy.savez_compressed pack: save the file again"
            )
        with self.archive.open(info) as stream:
            try:
                version = npy.read_magic(stream)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    shape, fortran, dtype = _HEADERS[version](stream)
            except Exception as error:
                # NumPy lets tokenizer, syntax and key errors of a damaged header through.
                raise FormatError(
                    f"{self.path}: the array {key!r} has a damaged header ({type(error).__name__}: {error}), "
                    "expected one written by numpy.savez: save the file again"
                ) from error
            if dtype.hasobject:
                raise FormatError(
                    f"{self.path}: the array {key!r} holds Python objects, which are never unpickled; "
                    "expected numbers or text: save it again with an explicit dtype"
                )
            if dtype.kind not in "biufSU" or dtype.itemsize == 0:
                raise FormatError(f"{self.path}: the array {key!r} holds {dtype}, expected numbers or text")
            expected = byte_count(shape, dtype.itemsize)
            if expected is None:
                raise FormatError(
                    f"{self.path}: the array {key!r} announces a shape of {len(shape)} axes that no array "
                    "can have: the file is damaged"
                )
            # What the archive says of its member, before memory is taken for what the array says.
            held = info.file_size - stream.tell()
            if held == expected:
                if expected > self.affordable:
                    self._expect_whole(info)
                self.affordable -= expected
                payload = read_at_most(stream, expected)
                held = len(payload)
        if held != expected:
            raise FormatError(
                f"{self.path}: the array {key!r} announces {expected:,} bytes of elements, got "
                f"{'more' if held > expected else format(held, ',')}: the file is damaged"
            )
        array: NDArray[Any] = np.ndarray(shape, dtype, buffer=payload, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="), order="C", copy=False)

    def _expect_whole(self, info: zipfile.ZipInfo) -> None:
        with self.archive.open(info) as trial:
            if pass_over(trial, info.file_size) < info.file_size:
                raise zipfile.BadZipFile(f"{info.filename!r} unpacks to less than it announces")


def _dataset(path: str, train: _Pair, test: _Pair | None) -> Dataset:
    pairs = [train] if test is None else [train, test]
    examples = [_examples(path, pair) for pair in pairs]
    if len({X.shape[1] for X in examples}) > 1:
        raise FormatError(
            f"{path}: the training examples have {examples[0].shape[1]} features and the test examples "
            f"{examples[1].shape[1]}, expected as many"
        )
    raw = [_raw_targets(path, pair) for pair in pairs]
    if len({(y.shape[1:], y.dtype.kind == "U", y.dtype.kind == "f") for y in raw}) > 1:
        raise FormatError(
            f"{path}: the training targets are {raw[0].dtype} of shape {raw[0].shape} and the test targets "
            f"{raw[1].dtype} of shape {raw[1].shape}, expected the same kind and the same outputs"
        )
    try:
        y, classes = _labels(raw) if raw[0].dtype.kind == "U" else as_target(np.concatenate(raw))
    except DataError as error:
        raise FormatError(f"{path}: in the array {train[2]!r} {error}") from error
    sides = [
        Split(X, targets, classes, name)
        for X, targets, name in zip(examples, np.split(y, [len(raw[0])]), ("train", "test"), strict=False)
    ]
    return Dataset(
        Path(path).stem,
        train=sides[0],
        test=sides[1] if test is not None else None,
        classes=classes,
        description=f"{len(raw[0]):,} rows of {examples[0].shape[1]:,} numbers from {Path(path).name}",
    )


def _labels(sides: list[NDArray[Any]]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    # Each side on its own: in one array, a long word of the one would widen every word of the other.
    words: list[str] = []
    codes = []
    for side in sides:
        found, places = np.unique(side, return_inverse=True)
        codes.append(places.reshape(side.shape) + len(words))
        words += found.tolist()
    return as_labels(np.concatenate(codes), words)


def _examples(path: str, pair: _Pair) -> NDArray[Any]:
    x_name, X, y_name, y = pair
    if X.dtype.kind not in "biuf":
        raise FormatError(f"{path}: the array {x_name!r} holds text, expected numbers: encode it as numbers")
    if X.ndim < 2 or X.size == 0:
        raise FormatError(
            f"{path}: the array {x_name!r} has the shape {X.shape}, expected (examples, features) and at "
            "least one of each: reshape it, e.g. to (-1, 1), before saving"
        )
    if y.ndim == 0 or len(X) != len(y):
        raise FormatError(
            f"{path}: the array {x_name!r} has the shape {X.shape} and {y_name!r} {y.shape}, expected as "
            "many targets as examples"
        )
    return _floats(path, x_name, X.reshape(len(X), -1))


def _raw_targets(path: str, pair: _Pair) -> NDArray[Any]:
    _, _, y_name, y = pair
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim > 2 or y.size == 0 or (y.ndim == 2 and y.dtype.kind in "SU"):
        raise FormatError(
            f"{path}: the array {y_name!r} has the shape {y.shape} of {y.dtype}, expected (examples,), or "
            "(examples, outputs) of numbers"
        )
    if y.dtype.kind in "SU":
        try:
            words = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
            # NumPy takes any 32 bits for a character; Python strings cannot.
            rows = 1 + _CHUNK // words.itemsize
            for start in range(0, len(words), rows):
                block = words[start : start + rows]
                block.astype(block.dtype.newbyteorder("<")).tobytes().decode("utf-32-le")
        except ValueError as error:
            raise FormatError(
                f"{path}: the array {y_name!r} holds text that cannot be decoded ({error}), expected Unicode"
            ) from error
        return words
    if y.dtype.kind == "f" or y.ndim == 2:
        return _floats(path, y_name, y)
    return y


def _floats(path: str, key: str, values: NDArray[Any]) -> NDArray[Any]:
    wide = np.result_type(values.dtype, np.float32)
    # What overflows becomes infinite, and is refused below.
    with np.errstate(all="ignore"):
        floats = values.astype(np.float32 if wide.itemsize == 4 else np.float64, copy=False)
        finite = np.isfinite(floats.min()) and np.isfinite(floats.max())
    if not finite:
        place = np.unravel_index(int(np.argmin(np.isfinite(floats))), floats.shape)
        raise FormatError(
            f"{path}: the array {key!r} holds {floats[place]} at {tuple(map(int, place))}, expected finite "
            "numbers: correct or remove the example"
        )
    return floats
