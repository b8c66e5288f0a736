"""From raw values to what a network learns from: features on one scale, labels as numbers and as rows.

Both objects learn something from the training data and then apply it to any other: fit them once, on the
training side alone, and keep them beside the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.arrays import as_numbers, blocks, column_names, first_where, place
from gpunn.errors import ArgumentError, DataError, FormatError, ShapeError

__all__ = ["OneHot", "Standardizer"]

Array = NDArray[Any]

_SHOWN = 10


class Standardizer:
    """Give every feature the mean 0 and the standard deviation 1: z = (x − μ)/s.

    With n examples, μ = Σ x/n and s = √(Σ (x − μ)²/n), a feature at a time, in float64. A feature that
    never changes has s = 1, so that it becomes 0. Nothing as large as the data is allocated for μ and s:
    they are merged from blocks of rows, so that a memory map may be larger than memory.

    Attributes
    ----------
    mean, scale : ndarray, float64
        μ and s, of the shape of one example; they cannot be written to.
    shape : tuple of int
        The shape of one example.

    Raises
    ------
    ArgumentError
        If it is used before :meth:`fit`.
    ShapeError
        If an example has another shape than those it was fitted on.
    DataError
        If a value is NaN or infinite (the message names row and column), or is no number.

    Notes
    -----
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37 (1983): blocks are merged by their equation (2.1).

    Examples
    --------
    >>> X = np.array([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])
    >>> standard = Standardizer().fit(X)
    >>> standard.mean, standard.scale
    (array([3., 7.]), array([1.63299316, 1.        ]))
    >>> standard.transform([[3.0, 8.0]])
    array([[0., 1.]])
    >>> standard.inverse([[0.0, 1.0]])
    array([[3., 8.]])
    """

    __slots__ = ("_mean", "_scale")

    def __init__(self) -> None:
        self._mean: Array | None = None
        self._scale: Array | None = None

    @property
    def mean(self) -> Array:
        """μ, of the shape of one example."""
        return self._fitted()[0]

    @property
    def scale(self) -> Array:
        """s, of the shape of one example."""
        return self._fitted()[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.mean.shape

    def fit(self, X: Any) -> Standardizer:
        """Learn μ and s from training examples (n, ...), n at least 1; returns the object itself."""
        array = as_numbers("X", X)
        if array.ndim == 0:
            raise ShapeError("X has shape (), expected examples in rows, (n, ...)")
        if not len(array):
            raise DataError(f"X is empty: it has shape {array.shape}, expected at least one example")
        _refuse_not_finite("X", array, column_names(X))
        low = high = np.zeros(())
        mean, squares, count = np.zeros(array.shape[1:]), np.zeros(array.shape[1:]), 0
        with np.errstate(over="ignore", invalid="ignore"):
            for start, block in blocks(array):
                # In one order, so that sums do not depend on the layout of X.
                rows = np.ascontiguousarray(block, np.float64)
                low = rows.min(axis=0) if not start else np.minimum(low, rows.min(axis=0))
                high = rows.max(axis=0) if not start else np.maximum(high, rows.max(axis=0))
                block_mean = rows.mean(axis=0)
                rows = rows - block_mean
                np.square(rows, out=rows)
                step, total = block_mean - mean, count + len(block)
                mean = mean + step * (len(block) / total)
                squares = squares + rows.sum(axis=0) + step * step * (count / total * len(block))
                count = total
            scale = np.sqrt(squares / count)
            # Squares of spreads below 1e-162 are 0 in float64: the range stands in for their root.
            scale = np.where(scale > 0, scale, high - low)
        wide = first_where(scale[None], lambda block: ~np.isfinite(block))
        if wide is not None:
            at = wide[1:]
            raise DataError(
                f"column {', '.join(map(str, at)) or '0'} of X goes from {low[at]} to {high[at]}, whose "
                f"squares are beyond float64: scale it down first"
            )
        constant = low == high
        self._mean = _frozen(np.where(constant, low, mean))
        self._scale = _frozen(np.where(constant, 1.0, scale))
        return self

    def transform(self, X: Any, *, out: Array | None = None) -> Array:
        """Standardize examples: z = (x − μ)/s.

        Parameters
        ----------
        X : array (n, ...)
            Examples of the shape that was fitted; n may be 0.
        out : ndarray, optional
            Where to write the result: an array of floats with the shape of X, such as a memory map, or X
            itself.

        Returns
        -------
        ndarray
            `out`, or a new array: float64 where X is float64 (as a list of floats is), else float32.
        """
        array = self._checked("X", X)
        _refuse_not_finite("X", array, column_names(X))
        mean, scale = self._fitted()
        result = _result(array, out)
        with np.errstate(over="ignore"):
            for start, block in blocks(array):
                z = np.subtract(block, mean, dtype=np.float64)
                z /= scale
                result[start : start + len(block)] = z
        return result

    def fit_transform(self, X: Any) -> Array:
        """:meth:`fit`, then :meth:`transform` of the same examples."""
        return self.fit(X).transform(X)

    def inverse(self, Z: Any, *, out: Array | None = None) -> Array:
        """Undo :meth:`transform`: x = z s + μ. NaN stays NaN; `out` and the dtype are as there."""
        array = self._checked("Z", Z)
        mean, scale = self._fitted()
        result = _result(array, out)
        with np.errstate(over="ignore", invalid="ignore"):
            for start, block in blocks(array):
                x = np.multiply(block, scale, dtype=np.float64)
                x += mean
                result[start : start + len(block)] = x
        return result

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` takes, as JSON can hold it, without loss.

        >>> Standardizer().fit([[1.0], [2.0]]).to_dict()
        {'class': 'Standardizer', 'mean': [1.5], 'scale': [0.5]}
        """
        mean, scale = self._fitted()
        return {"class": type(self).__name__, "mean": mean.tolist(), "scale": scale.tolist()}

    @classmethod
    def from_dict(cls, values: Any) -> Standardizer:
        """Rebuild from :meth:`to_dict`.

        Raises
        ------
        FormatError
            If the values are none that :meth:`to_dict` could have given.
        """
        given = _entries(cls, values, ("mean", "scale"))
        arrays = {}
        for key, entry in given.items():
            try:
                array = np.asarray(entry)
            except ValueError as error:
                raise FormatError(f"Standardizer: {key} is not rectangular: {error}") from error
            numbers = array.dtype.kind in "iuf" or not array.size
            if not numbers or not np.isfinite(array.astype(np.float64)).all():
                raise FormatError(f"Standardizer: {key} is {_short(entry)}, expected lists of finite numbers")
            arrays[key] = array.astype(np.float64)
        mean, scale = arrays["mean"], arrays["scale"]
        if mean.shape != scale.shape:
            raise FormatError(
                f"Standardizer: mean has shape {mean.shape} and scale {scale.shape}, expected the same"
            )
        if (scale <= 0).any():
            raise FormatError(f"Standardizer: scale holds {scale.min()}, expected numbers above 0")
        made = cls()
        made._mean, made._scale = _frozen(mean), _frozen(scale)
        return made

    def __repr__(self) -> str:
        if self._mean is None:
            return "Standardizer(not fitted)"
        return f"Standardizer(fitted on examples of shape {self._mean.shape})"

    def _fitted(self) -> tuple[Array, Array]:
        if self._mean is None or self._scale is None:
            raise ArgumentError(
                "this Standardizer has seen no data: call fit(X) with the training data first"
            )
        return self._mean, self._scale

    def _checked(self, name: str, values: Any) -> Array:
        mean, _ = self._fitted()
        array = as_numbers(name, values)
        if array.ndim == 0 or array.shape[1:] != mean.shape:
            want = ", ".join(["n", *map(str, mean.shape)]) + ("" if mean.ndim else ",")
            hint = f": one example is {name}[None]" if array.shape == mean.shape else ""
            raise ShapeError(f"{name} has shape {array.shape}, this Standardizer takes ({want}){hint}")
        return array


def _refuse_not_finite(name: str, array: Array, columns: tuple[str, ...] | None) -> None:
    if array.dtype.kind == "f":
        index = first_where(array, lambda block: ~np.isfinite(block))
        if index is not None:
            raise DataError(
                f"{name} holds {array[index]} at {place(index, columns)}, expected finite numbers: remove or "
                f"fill these rows"
            )


def _result(array: Array, out: Array | None) -> Array:
    if out is None:
        double = array.dtype.kind == "f" and array.dtype.itemsize >= 8
        return np.empty(array.shape, np.float64 if double else np.float32)
    if not isinstance(out, np.ndarray) or out.dtype.kind != "f" or out.shape != array.shape:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out is {found}, expected an array of floats of shape {array.shape}")
    return out


def _frozen(array: Array) -> Array:
    array = np.array(array, np.float64)
    array.flags.writeable = False
    return array


class OneHot:
    """Turn labels of any kind into the numbers 0..k−1 and into rows of 0 and 1, and back.

    The classes are the different labels in sorted order, so tᵢⱼ = 1 if label i is class j, else 0.

    Attributes
    ----------
    classes : tuple
        The labels that :meth:`fit` has seen, sorted: all words, or all numbers.

    Raises
    ------
    ArgumentError
        If it is used before :meth:`fit`.
    ShapeError
        If labels are not 1-D, or rows do not have one column a class.
    DataError
        If a label is missing, is none of the classes, or cannot be compared with the others.

    Examples
    --------
    >>> coder = OneHot().fit(["dog", "cat", "dog"])
    >>> coder
    OneHot('cat', 'dog')
    >>> coder.labels(["dog", "cat"])
    array([1, 0])
    >>> coder.transform(["dog", "cat"])
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    >>> coder.inverse([[0.2, 0.8], [0.9, 0.1]])
    array(['dog', 'cat'], dtype='<U3')
    """

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: tuple[Any, ...] | None = None

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels that were seen, sorted."""
        if self._classes is None:
            raise ArgumentError("this OneHot has seen no labels: call fit(labels) with the training labels")
        return self._classes

    def fit(self, labels: Any) -> OneHot:
        """Learn the classes from labels (n,), n at least 1; returns the object itself.

        Labels are words, whole numbers, booleans or finite floats, in a list, an array, or a series of
        pandas. Of a categorical series the values count, not the categories.
        """
        values, _ = _different(labels)
        if not values:
            raise DataError("labels is empty, expected at least one label")
        self._classes = tuple(values)
        return self

    def labels(self, labels: Any) -> NDArray[np.int64]:
        """The number of each label's class: (n,) int64 in 0..k−1."""
        index = {value: i for i, value in enumerate(self.classes)}
        values, codes = _different(labels)
        for i, value in enumerate(values):
            if value not in index:
                row = int(np.flatnonzero(codes == i)[0])
                raise DataError(
                    f"labels hold {value!r} at row {row}, expected one of the classes {_listed(self.classes)}"
                )
        return np.array([index[value] for value in values], np.int64)[codes]

    def transform(self, labels: Any) -> NDArray[np.float32]:
        """A row of 0 and 1 for each label: (n, k) float32."""
        codes = self.labels(labels)
        rows = np.zeros((len(codes), len(self.classes)), np.float32)
        rows[np.arange(len(codes)), codes] = 1
        return rows

    def inverse(self, rows: Any) -> Array:
        """The classes that rows or numbers stand for.

        Parameters
        ----------
        rows : array (n, k) or (n,)
            Rows of 0 and 1, of probabilities or of any outputs: the largest decides, the first of equals.
            Or whole numbers in 0..k−1, as :meth:`labels` gives them.

        Returns
        -------
        ndarray (n,)
            Labels of the kind that was fitted.
        """
        classes = self.classes
        array = as_numbers("rows", rows)
        if array.ndim == 2 and array.shape[1] == len(classes):
            bad = first_where(array, np.isnan) if array.dtype.kind == "f" else None
            if bad is not None:
                raise DataError(f"rows hold NaN at {place(bad)}: there is no largest of them")
            codes = array.argmax(axis=1)
        elif array.ndim == 1 and (array.dtype.kind in "biu" or not len(array)):
            bad = first_where(array, lambda block: (block < 0) | (block >= len(classes)))
            if bad is not None:
                raise DataError(f"rows hold {array[bad]} at {place(bad)}, expected 0 to {len(classes) - 1}")
            codes = array.astype(np.intp)
        else:
            raise ShapeError(
                f"rows is {array.dtype} of shape {array.shape}, expected (n, {len(classes)}), or whole "
                f"numbers of shape (n,)"
            )
        result: Array = _packed(classes)[codes]
        return result

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` takes, as JSON can hold it, without loss.

        >>> OneHot().fit([3, 5, 3]).to_dict()
        {'class': 'OneHot', 'classes': [3, 5]}
        """
        return {"class": type(self).__name__, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Any) -> OneHot:
        """Rebuild from :meth:`to_dict`.

        Raises
        ------
        FormatError
            If the values are none that :meth:`to_dict` could have given.
        """
        classes = _entries(cls, values, ("classes",))["classes"]
        if not isinstance(classes, (list, tuple)) or not classes:
            raise FormatError(f"OneHot: classes is {_short(classes)}, expected a list of labels")
        try:
            if tuple(_different(list(classes))[0]) != tuple(classes):
                raise FormatError(f"OneHot: classes is {_short(classes)}, expected each once, sorted")
        except (DataError, ShapeError) as error:
            raise FormatError(f"OneHot: classes is {_short(classes)}, expected labels: {error}") from error
        made = cls()
        made._classes = tuple(classes)
        return made

    def __repr__(self) -> str:
        return "OneHot(not fitted)" if self._classes is None else f"OneHot({_listed(self._classes)})"


def _different(labels: Any) -> tuple[list[Any], Array]:
    """The different labels, sorted, as Python values, and for each label which of them it is."""
    array = _label_array(labels)
    if array.ndim != 1:
        hint = ": pass labels.ravel()" if array.ndim == 2 and array.shape[1] == 1 else ""
        raise ShapeError(f"labels has shape {array.shape}, expected (n,), one label an example{hint}")
    if array.dtype.kind == "O":
        return _different_objects(array)
    if array.dtype.kind not in "biufU":
        hint = ": decode them by labels.astype(str)" if array.dtype.kind == "S" else ""
        raise DataError(f"labels has dtype {array.dtype}, expected words or numbers{hint}")
    if array.dtype.kind == "f":
        bad = first_where(array, lambda block: ~np.isfinite(block))
        if bad is not None:
            raise DataError(f"labels hold {array[bad]} at {place(bad)}, expected a label: {_REMEDY}")
    values, codes = np.unique(array, return_inverse=True)
    return values.tolist(), codes.reshape(-1)


_REMEDY = "remove these examples, or give them a label of their own"


def _label_array(labels: Any) -> Array:
    if isinstance(labels, np.ma.MaskedArray):
        raise DataError(
            "labels is a masked array, expected a label for each example: pass labels.filled(value)"
        )
    if isinstance(labels, np.ndarray):
        return labels.astype(object) if labels.dtype.kind == "T" else np.asarray(labels)
    if hasattr(labels, "iloc"):  # pandas
        if labels.ndim == 1 and labels.dtype.kind in "biuf" and not labels.isna().any():
            return np.asarray(labels.to_numpy())
        return np.asarray(labels, dtype=object)
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        return np.asarray(labels)
    if any(isinstance(each, (list, tuple, np.ndarray)) for each in labels):
        raise ShapeError("labels is a list of lists, expected (n,), one label an example")
    # As objects: NumPy would make words of the numbers in a list that holds both.
    array = np.empty(len(labels), object)
    array[:] = labels
    return array


def _different_objects(array: Array) -> tuple[list[Any], Array]:
    seen: dict[Any, int] = {}
    codes = np.empty(len(array), np.int64)
    for row, label in enumerate(array):
        value = label.item() if isinstance(label, np.generic) else label
        if not isinstance(value, (str, bool, int, float)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise DataError(f"labels hold {value!r} at row {row}, expected a word or a number: {_REMEDY}")
        codes[row] = seen.setdefault(value, len(seen))
    try:
        values = sorted(seen)
    except TypeError as error:
        kinds = " and ".join(sorted({type(value).__name__ for value in seen}))
        raise DataError(
            f"labels hold {kinds}, expected labels of one kind, which can be sorted: convert them with str()"
        ) from error
    rank = np.empty(len(values), np.int64)
    for i, value in enumerate(values):
        rank[seen[value]] = i
    return values, rank[codes] if len(values) else codes


def _packed(classes: tuple[Any, ...]) -> Array:
    """The classes as an array, of objects only where NumPy has no exact dtype for them."""
    array = np.array(classes)
    if array.tolist() == list(classes):
        return array
    array = np.empty(len(classes), object)
    array[:] = classes
    return array


def _listed(classes: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, classes[:_SHOWN])) + (", ..." if len(classes) > _SHOWN else "")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _entries(cls: type, values: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a dictionary that :meth:`to_dict` has made."""
    want = {"class", *keys}
    if not isinstance(values, Mapping) or set(values) != want or values["class"] != cls.__name__:
        raise FormatError(
            f"{cls.__name__}: got {_short(values)}, expected a dictionary with "
            f"{{'class': {cls.__name__!r}}} and {', '.join(map(repr, keys))}, as to_dict() makes it"
        )
    return {key: values[key] for key in keys}
