"""Data sets by name or by file: scikit-learn's digits, MNIST, and whatever lies in a table.

:func:`load` is what the command line calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.idx import read_idx
from gpunn.data.npz import read_npz
from gpunn.data.splits import Dataset, Split, hold_out
from gpunn.data.table import read_csv
from gpunn.errors import ArgumentError, DataError, FormatError, unknown_name

__all__ = ["load", "load_digit_traits", "load_digits", "load_mnist"]

_DIGITS = tuple("0123456789")
_TRAITS = {
    "even": {0, 2, 4, 6, 8},
    "prime": {2, 3, 5, 7},
    "five or more": {5, 6, 7, 8, 9},
    "with a hole": {0, 6, 8, 9},
}

# SHA-256 of the compressed files as first published; the mirrors keep them byte for byte.
_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_TIMEOUT_SECONDS = 30


def load(
    source: str | os.PathLike[str],
    *,
    target: int | str | Sequence[int | str] | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Load a data set by its name or from a file, divided into training, validation and test examples.

    The same arguments always give the same sides.

    Parameters
    ----------
    source
        ``"digits"`` (:func:`load_digits`), ``"digit-traits"`` (:func:`load_digit_traits`), ``"mnist"``
        (:func:`load_mnist`), or the path of a file that ends in ``.csv``, ``.tsv``, ``.txt``
        (:func:`read_csv`) or ``.npz`` (:func:`read_npz`); upper and lower case are the same.
    target
        What to predict, for a file: a column's name or index in a table, or a list of these for several
        columns of numbers; an array's name in an ``.npz``. None takes the last column, or the usual names.
    test_fraction
        The part of the examples to hold out as ``test``, from 0 (no test side) to below 1, by
        :func:`hold_out`. A file with a test side of its own keeps it, and so does MNIST.
    validation_fraction
        The part of the training examples that are left to hold out as ``validation``, in the same way: the
        test side is the same with and without. MNIST keeps its own.
    seed
        The seed of the shuffles that divide them.

    Returns
    -------
    Dataset
        With ``train``, ``test`` and ``validation`` (None if their fraction is 0 and the data have no such
        side of their own), ``classes`` and ``target_names``.

    Raises
    ------
    UnknownNameError
        If `source` is neither the name of a data set nor a path.
    DataError
        If there is no such file, or the data set cannot be had here.
    FormatError
        If the file cannot be read.
    ArgumentError
        If an argument cannot be used.

    Examples
    --------
    >>> load("digits", test_fraction=0.5).test
    Split('test': X (899, 64) float32, y (899,) int64, 10 classes)
    >>> load("digits", validation_fraction=0.1).validation
    Split('validation': X (144, 64) float32, y (144,) int64, 10 classes)
    >>> load("minst")
    Traceback (most recent call last):
    ...
    gpunn.errors.UnknownNameError: unknown data set 'minst': did you mean 'mnist'?
    Known: digit-traits, digits, mnist
    """
    for what, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if not 0 <= fraction < 1:
            raise ArgumentError(f"{what}_fraction is {fraction!r}, expected from 0 to below 1")
    name = os.fspath(source)
    if name.lower() in _NAMED:
        if target is not None:
            raise ArgumentError(
                f"target is {target!r}, but the data set {name!r} has its own: leave it out, or load a file"
            )
        return _NAMED[name.lower()](test_fraction, seed, validation_fraction)
    suffix = Path(name).suffix.lower()
    if suffix not in _READERS:
        raise _no_such_source(name, suffix)
    if not Path(name).is_file():
        raise DataError(f"there is no file {name!r} (looked in {Path(name).absolute().parent})")
    return _divide(_READERS[suffix](name, target), test_fraction, seed, validation_fraction)


def _no_such_source(name: str, suffix: str) -> ArgumentError:
    if not suffix and Path(name).name == name:
        return unknown_name("data set", name, _NAMED)
    return DataError(
        f"cannot load {name!r}: its name ends in {suffix or 'no suffix'!r}, expected a file that ends in "
        f"{', '.join(_READERS)}, or one of the data sets {', '.join(sorted(_NAMED))}"
    )


def _table(name: str, target: int | str | Sequence[int | str] | None) -> Dataset:
    tab = "\t" if name.lower().endswith(".tsv") else None
    return read_csv(name, target=-1 if target is None else target, delimiter=tab)


def _arrays(name: str, target: int | str | Sequence[int | str] | None) -> Dataset:
    if target is not None and not isinstance(target, str):
        more = "" if isinstance(target, int) else ": an array (n, t) holds t targets"
        raise ArgumentError(f"target is {target!r}, expected the name of an array in {name}{more}")
    return read_npz(name, target=target)


def _divide(dataset: Dataset, test_fraction: float, seed: int, validation_fraction: float) -> Dataset:
    train, validation, test = dataset.train, dataset.validation, dataset.test
    # The test side first: it must not depend on whether something is held out to validate on.
    if test is None:
        train, test = _part(train, "test", test_fraction, seed)
    if validation is None:
        train, validation = _part(train, "validation", validation_fraction, seed)
    return replace(dataset, train=train, validation=validation, test=test)


def _part(side: Split, name: str, fraction: float, seed: int) -> tuple[Split, Split | None]:
    if fraction == 0 or side.y is None:
        return side, None
    X, y, X_held, y_held = hold_out(side.X, side.y, fraction, seed)
    return replace(side, X=X, y=y), replace(side, X=X_held, y=y_held, name=name)


def load_digits(test_fraction: float = 0.2, seed: int = 0, validation_fraction: float = 0.0) -> Dataset:
    """The 1,797 handwritten digits of 8 × 8 pixels that come with scikit-learn: small, real, offline.

    Pixels 0..16 are scaled to 0..1. The digits are shuffled with `seed` and divided by
    :func:`hold_out`, every digit in the same share: 1,437 to train on and 360 to test on.

    Parameters
    ----------
    test_fraction
        The part to hold out as ``test``; 0 leaves all digits in ``train``.
    seed
        The seed of the shuffle.
    validation_fraction
        The part of the rest to hold out as ``validation``.

    Returns
    -------
    Dataset
        ``train``, ``test`` and ``validation``: X (n, 64) float32, y (n,) int64 in 0..9.

    Raises
    ------
    DataError
        If scikit-learn is not installed.

    Notes
    -----
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49: its test part.

    Examples
    --------
    >>> load_digits().train
    Split('train': X (1437, 64) float32, y (1437,) int64, 10 classes)
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError as error:
        raise DataError(
            "the data set 'digits' comes with scikit-learn, which cannot be imported here: "
            "pip install scikit-learn"
        ) from error
    pixels, labels = bundled(return_X_y=True)
    X = (np.asarray(pixels) / 16).astype(np.float32)
    y = np.asarray(labels).astype(np.int64)
    dataset = Dataset(
        "digits",
        train=Split(X, y, _DIGITS, "train"),
        classes=_DIGITS,
        description="1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, UCI), from scikit-learn",
    )
    return _divide(dataset, test_fraction, seed, validation_fraction)


def load_digit_traits(test_fraction: float = 0.2, seed: int = 0, validation_fraction: float = 0.0) -> Dataset:
    """Four questions about each of scikit-learn's digits, to be answered with yes or no: several at once.

    The images and their division are those of :func:`load_digits`, every digit in the same share. The
    targets are 1 for yes and 0 for no:

    - ``"even"``: 0, 2, 4, 6, 8
    - ``"prime"``: 2, 3, 5, 7
    - ``"five or more"``: 5, 6, 7, 8, 9
    - ``"with a hole"``: 0, 6, 8, 9

    A 4 counts as one without a hole, since most people write it open at the top.

    Parameters
    ----------
    test_fraction
        The part to hold out as ``test``; 0 leaves all digits in ``train``.
    seed
        The seed of the shuffle.
    validation_fraction
        The part of the rest to hold out as ``validation``.

    Returns
    -------
    Dataset
        ``train``, ``test`` and ``validation``: X (n, 64) float32, y (n, 4) float32 of 0 and 1.

    Raises
    ------
    DataError
        If scikit-learn is not installed.

    Examples
    --------
    >>> traits = load_digit_traits()
    >>> traits.target_names
    ('even', 'prime', 'five or more', 'with a hole')
    >>> traits.train
    Split('train': X (1437, 64) float32, y (1437, 4) float32)
    """
    digits = load_digits(test_fraction, seed, validation_fraction)
    names = tuple(_TRAITS)
    answers = np.array([[digit in yes for yes in _TRAITS.values()] for digit in range(10)], np.float32)

    def asked(side: Split) -> Split:
        return Split(side.X, answers[side.y], None, side.name, names)

    return Dataset(
        "digit-traits",
        train=asked(digits.train),
        validation=None if digits.validation is None else asked(digits.validation),
        test=None if digits.test is None else asked(digits.test),
        description=f"four yes-or-no traits of {digits.description}",
        target_names=names,
    )


def load_mnist(split: str = "book") -> Dataset:
    """The 70,000 handwritten digits of 28 × 28 pixels that the classic notes learn from.

    The four IDX files, ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, with ``.gz`` at the end or without, are
    looked for in the folder that the environment variable ``GPUNN_DATA`` names, in its subfolder
    ``mnist``, and in the user's cache. Only then are they downloaded into the cache by pooch
    (``pip install pooch``), checked against their SHA-256. Pixels 0..255 are scaled to 0..1.
    Fashion-MNIST and others that keep MNIST's names and sizes can be put in the same place.

    Parameters
    ----------
    split
        ``"book"``: the first 50,000 of the 60,000 training images to train on, the last 10,000 to
        validate on. ``"full"``: all 60,000 to train on, none to validate on. Both: 10,000 to test on.

    Returns
    -------
    Dataset
        X (n, 784) float32 in 0..1, y (n,) int64 in 0..9.

    Raises
    ------
    UnknownNameError
        If there is no such split.
    DataError
        If the files are nowhere and cannot be downloaded.
    FormatError
        If a file is damaged, or is not what its name says.

    Notes
    -----
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits". The split is that of
    M. Nielsen, "Neural Networks and Deep Learning", chapter 1, "Implementing our network to classify
    digits".

    Examples
    --------
    >>> load_mnist().train                                                          # doctest: +SKIP
    Split('train': X (50000, 784) float32, y (50000,) int64, 10 classes)
    >>> load_mnist(split="books")
    Traceback (most recent call last):
    ...
    gpunn.errors.UnknownNameError: unknown MNIST split 'books': did you mean 'book'? Known: book, full
    """
    if split not in ("book", "full"):
        raise unknown_name("MNIST split", split, ("book", "full"))
    paths = _mnist_files()
    X, y = _images_and_labels(paths[0], paths[1], 60_000)
    X_test, y_test = _images_and_labels(paths[2], paths[3], 10_000)
    n = 50_000 if split == "book" else 60_000
    validation = Split(X[n:], y[n:], _DIGITS, "validation") if split == "book" else None
    return Dataset(
        "mnist",
        train=Split(X[:n], y[:n], _DIGITS, "train"),
        validation=validation,
        test=Split(X_test, y_test, _DIGITS, "test"),
        classes=_DIGITS,
        description="70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes, Burges)",
    )


def _images_and_labels(
    images_path: Path, labels_path: Path, n: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    _expect(images_path, images, (n, 28, 28))
    _expect(labels_path, labels, (n,))
    if labels.max() > 9:
        raise FormatError(
            f"{labels_path}: label {int(labels.argmax())} is {int(labels.max())}, expected digits 0 to 9"
        )
    X = images.reshape(n, 784).astype(np.float32)
    X /= 255
    return X, labels.astype(np.int64)


def _expect(path: Path, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.uint8:
        raise FormatError(
            f"{path}: holds {array.dtype} of shape {array.shape}, expected uint8 of shape {shape} "
            "as in MNIST: is this another file under this name?"
        )


def _mnist_files() -> list[Path]:
    folders = []
    if given := os.environ.get("GPUNN_DATA"):
        folders += [Path(given), Path(given) / "mnist"]
    folders.append(_cache() / "mnist")
    for folder in folders:
        found = [_either(folder, name) for name in _MNIST_FILES]
        if None not in found:
            return [path for path in found if path is not None]
    return _download(folders)


def _either(folder: Path, name: str) -> Path | None:
    packed = folder / name
    plain = packed.with_suffix("")
    return packed if packed.is_file() else plain if plain.is_file() else None


def _cache() -> Path:
    try:
        import pooch
    except ImportError:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpunn"
    return Path(pooch.os_cache("gpunn"))


def _download(folders: list[Path]) -> list[Path]:
    try:
        import pooch
    except ImportError as error:
        raise _unobtainable(folders, ["it needs pooch: pip install pooch"]) from error
    paths = []
    for name, sha256 in _MNIST_FILES.items():
        causes = []
        for mirror in _MNIST_MIRRORS:
            try:
                path = pooch.retrieve(
                    mirror + name,
                    known_hash=f"sha256:{sha256}",
                    fname=name,
                    path=folders[-1],
                    downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS),
                )
            except (OSError, ValueError) as error:
                causes.append(f"{mirror + name}: {error}")
            else:
                paths.append(Path(path))
                break
        else:
            raise _unobtainable(folders, causes)
    return paths


def _unobtainable(folders: list[Path], causes: list[str]) -> DataError:
    lacking = "; ".join(f"{folder} ({_lack(folder)})" for folder in folders)
    return DataError(
        f"MNIST is not here: looked in {lacking}; expected the four files {', '.join(_MNIST_FILES)}, "
        f"with .gz or without, in one folder. It cannot be downloaded: {'; '.join(causes)}. "
        "Put the files in a folder and name that folder in the environment variable GPUNN_DATA"
    )


def _lack(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return "without " + ", ".join(name for name in _MNIST_FILES if _either(folder, name) is None)


_NAMED: dict[str, Callable[[float, int, float], Dataset]] = {
    "digit-traits": load_digit_traits,
    "digits": load_digits,
    "mnist": lambda test_fraction, seed, validation_fraction: load_mnist(),
}
_READERS: dict[str, Callable[[str, int | str | Sequence[int | str] | None], Dataset]] = {
    ".csv": _table,
    ".tsv": _table,
    ".txt": _table,
    ".npz": _arrays,
}
