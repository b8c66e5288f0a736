"""Frames and series of pandas wherever an array is taken: the same numbers, and errors that name columns."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpunn
from gpunn.arrays import as_numbers
from gpunn.data import OneHot, Standardizer
from gpunn.errors import DataError, ShapeError

pd = pytest.importorskip("pandas", reason="pandas is not installed: frames are not tested")

N = 24
rng = np.random.default_rng(2)
FRAME = pd.DataFrame(
    {
        "age": rng.integers(18, 80, N),
        "height": rng.normal(1.7, 0.1, N),
        "member": rng.random(N) < 0.5,
        "visits": pd.array(rng.integers(0, 9, N), dtype="Int16"),
    },
    index=np.arange(N)[::-1] + 100,
)
X = FRAME.astype("float64").to_numpy()
LABELS = rng.integers(0, 3, N)
ROWS = rng.random((N, 3))


@pytest.fixture
def build(device):
    return lambda: gpunn.Sequential([gpunn.Dense(3)], input_shape=4, device=device, seed=0)


FRAMES = {
    "floats": (pd.DataFrame(X), X, "float64"),
    "float32": (pd.DataFrame(X.astype("f4")), X.astype("f4"), "float32"),
    "integers": (FRAME[["age"]], X[:, :1], "int64"),
    "several widths": (FRAME[["age"]].assign(small=np.int8(3)), np.c_[X[:, :1], np.full(N, 3)], "int64"),
    "booleans": (FRAME[["member"]], X[:, 2:3], "bool"),
    "mixed": (FRAME, X, "float64"),
    "booleans and integers": (FRAME[["member", "age"]], X[:, [2, 0]], "int64"),
    "nullable": (FRAME.convert_dtypes(), X, "float64"),
    "nullable integers": (FRAME[["age"]].astype("Int32"), X[:, :1], "int32"),
    "nullable booleans": (FRAME[["member"]].astype("boolean"), X[:, 2:3], "bool"),
    "nullable float32": (FRAME[["height"]].astype("Float32"), X[:, 1:2].astype("f4"), "float32"),
    "sparse": (FRAME[["age"]].astype("Sparse[int64]"), X[:, :1], "int64"),
    "columns of one name": (pd.DataFrame(X, columns=list("aaab")).convert_dtypes(), X, "float64"),
    "no columns": (FRAME[[]], X[:, :0], "float64"),
}


@pytest.mark.parametrize(("frame", "numbers", "dtype"), FRAMES.values(), ids=FRAMES)
def test_a_frame_is_its_numbers(frame, numbers, dtype):
    found = as_numbers("X", frame)
    assert type(found) is np.ndarray
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize(
    ("series", "numbers"),
    [
        (FRAME["age"], X[:, 0].astype(int)),
        (FRAME["visits"], X[:, 3].astype(np.int16)),
        (FRAME["member"].astype("boolean"), X[:, 2].astype(bool)),
        (pd.Series([3, 1, 3], dtype="category"), np.array([3, 1, 3])),
        (pd.Series([1, 0, 0], dtype="Sparse[int64]"), np.array([1, 0, 0])),
        (pd.Series([1, None], dtype="Int64"), np.array([1, np.nan])),
        (pd.Series([2**60 + 1], dtype="Int64"), np.array([2**60 + 1])),
        (pd.Series([True, None], dtype="boolean"), np.array([1, np.nan])),
        (pd.Series([0.5, None], dtype="Float32"), np.array([0.5, np.nan], np.float32)),
    ],
)
def test_a_series_is_its_numbers(series, numbers):
    found = as_numbers("y", series)
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize("backed", ["int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]"])
def test_arrow_columns_are_numbers(backed):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: Arrow-backed columns are not tested")
    whole = pd.DataFrame({"a": pd.Series([1, 0, 1], dtype=backed), "b": [1.5, 2.5, 3.5]})
    np.testing.assert_array_equal(as_numbers("X", whole), [[1, 1.5], [0, 2.5], [1, 3.5]])
    missing = pd.DataFrame({"a": pd.Series([1, None, 1], dtype=backed)})
    np.testing.assert_array_equal(as_numbers("X", missing), [[1], [np.nan], [1]])


def test_pandas_data_train_and_predict_as_their_arrays(build):
    frames, arrays = build(), build()
    weights = rng.random(N)
    for net, (x, y, w) in {
        frames: (FRAME, pd.Series(LABELS, index=FRAME.index[::-1]), pd.Series(weights)),
        arrays: (X, LABELS, weights),
    }.items():
        how = {"loss": "cross_entropy", "epochs": 2, "verbose": 0, "optimizer": gpunn.SGD(lr=1e-3)}
        net.fit(x, y, sample_weight=w, class_weight="balanced", validation_data=(x, y), **how)
    assert frames.theta.tobytes() == arrays.theta.tobytes()
    assert frames.history.records[-1]["val_loss"] == arrays.history.records[-1]["val_loss"]
    np.testing.assert_array_equal(frames.predict(FRAME), arrays.predict(X))
    y = pd.Series(LABELS, dtype="Int64")
    assert frames.evaluate(FRAME, y, sample_weight=pd.Series(weights)) == arrays.evaluate(
        X, LABELS, sample_weight=weights
    )
    for key, gradient in frames.gradients(FRAME, pd.Series(LABELS, dtype="category")).items():
        np.testing.assert_array_equal(gradient, arrays.gradients(X, LABELS)[key])
    np.testing.assert_array_equal(frames.jacobian(FRAME), arrays.jacobian(X))


def test_a_frame_of_targets_is_its_rows(build):
    y = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    assert build().evaluate(FRAME, y, loss="mse") == build().evaluate(X, ROWS, loss="mse")


def test_a_column_of_labels_says_what_to_do(build):
    with pytest.raises(ShapeError, match=r"y has shape \(24, 1\).*labels are 1-D"):
        build().evaluate(FRAME, pd.DataFrame({"class": LABELS}), loss="cross_entropy")


@pytest.mark.parametrize("call", ["fit", "evaluate", "gradients"])
def test_what_is_missing_is_named_by_row_and_column(build, call):
    frame = FRAME.astype({"age": "Int64"})
    frame.iloc[17, 0] = pd.NA
    options = {"verbose": 0} if call == "fit" else {}
    with pytest.raises(DataError, match=r"X holds nan at row 17, column 0 \('age'\) .*remove or fill"):
        getattr(build(), call)(frame, LABELS, loss="cross_entropy", **options)


def test_missing_labels_are_refused(build):
    y = pd.Series(LABELS, dtype="Int64")
    y[3] = pd.NA
    with pytest.raises(ShapeError, match="y holds NaN or infinity: remove or fill these rows"):
        build().evaluate(FRAME, y, loss="cross_entropy")


def test_missing_weights_are_refused(build):
    w = pd.Series(np.ones(N), dtype="Float64")
    w[3] = pd.NA
    with pytest.raises(DataError, match="sample_weight is nan at row 3"):
        build().evaluate(FRAME, LABELS, loss="cross_entropy", sample_weight=w)


DAYS = pd.date_range("2024-01-01", periods=N)
NO_NUMBERS = {
    "words": (["a", "b"] * 12, [r"get_dummies\(X, columns=\['kind'\]\)", r"to_numeric\(X\['kind'\]\)"]),
    "objects": (pd.Series([1, "b"] * 12, dtype=object).array, ["dtype object", r"to_numeric"]),
    "categories": (pd.Categorical(["a", "b"] * 12), ["dtype category", "get_dummies"]),
    "categories of numbers": (pd.Categorical([1, 2] * 12), ["dtype category", "get_dummies"]),
    "dates": (DAYS, [r"datetime64", r"\(X\['kind'\] - X\['kind'\].min\(\)\).dt.days"]),
    "dates of a zone": (DAYS.tz_localize("UTC"), [r"datetime64\[.*UTC", "dt.days"]),
    "durations": (DAYS - DAYS[0], ["timedelta64", "dt.total_seconds"]),
    "complex numbers": (np.ones(N) * 1j, ["complex128", "drop it"]),
}


@pytest.mark.parametrize(("column", "words"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_a_column_that_is_no_numbers_is_named(build, column, words):
    frame = FRAME[["age", "height", "member"]].assign(kind=column)
    with pytest.raises(DataError, match=r"column 'kind' of X has dtype .*, expected numbers: ") as caught:
        build().predict(frame)
    assert [word for word in words if not re.search(word, str(caught.value))] == [], caught.value


def test_the_remedy_for_dates_works():
    frame = pd.DataFrame({"when": DAYS})
    frame["when"] = (frame["when"] - frame["when"].min()).dt.days
    np.testing.assert_array_equal(as_numbers("X", frame)[:, 0], np.arange(N))


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(["a", "b", "c"] * 8),
        pd.Series(["a", "b", "c"] * 8, dtype=object),
        pd.Series(["a", "b", "c"] * 8, dtype="category"),
        np.array(["a", "b", "c"] * 8),
        np.array(["a", "b", "c"] * 8, object),
    ],
    ids=["text", "objects", "categories", "an array", "an array of objects"],
)
def test_labels_that_are_words_name_the_remedy_and_it_works(build, y):
    with pytest.raises(
        DataError, match=r"coder = gpunn.data.OneHot\(\).fit\(y\), then y = coder.labels\(y\)"
    ):
        build().evaluate(FRAME, y, loss="cross_entropy")
    labels = OneHot().fit(y).labels(y)
    np.testing.assert_array_equal(labels, [0, 1, 2] * 8)
    build().evaluate(FRAME, labels, loss="cross_entropy")


def test_a_series_of_dates_is_refused(build):
    with pytest.raises(DataError, match=r"y has dtype datetime64\[.*\(Series\), expected numbers"):
        build().evaluate(FRAME, pd.Series(DAYS), loss="mse")


def test_a_frame_of_another_width_is_refused(build):
    with pytest.raises(ShapeError, match=r"X has shape \(24, 3\), the network takes \(n, 4\)"):
        build().predict(FRAME[["age", "height", "member"]])


# ------------------------------------------------------------------ encoding


def test_a_frame_is_standardized_as_its_array():
    np.testing.assert_array_equal(Standardizer().fit_transform(FRAME), Standardizer().fit_transform(X))


def test_the_standardizer_names_the_column_of_a_missing_value():
    frame = FRAME.astype({"visits": "Int64"})
    frame.iloc[5, 3] = pd.NA
    with pytest.raises(DataError, match=r"X holds nan at row 5, column 3 \('visits'\)"):
        Standardizer().fit(frame)


@pytest.mark.parametrize(
    ("series", "classes"),
    [
        (pd.Series(["b", "a", "b"]), ("a", "b")),
        (pd.Series(["b", "a", "b"], dtype=object), ("a", "b")),
        (pd.Series(["b", "a", "b"], dtype="category"), ("a", "b")),
        (pd.Series(pd.Categorical(["b", "a", "b"], categories=["b", "c", "a"])), ("a", "b")),
        (pd.Series([3, 1, 3], dtype="category"), (1, 3)),
        (pd.Series([3, 1, 3]), (1, 3)),
        (pd.Series([3, 1, 3], dtype="Int64"), (1, 3)),
        (pd.Series([True, False, True], dtype="boolean"), (False, True)),
        (pd.Index(["b", "a", "b"]), ("a", "b")),
        (pd.Categorical(["b", "a", "b"]), ("a", "b")),
    ],
)
def test_labels_of_pandas_are_encoded(series, classes):
    coder = OneHot().fit(series)
    assert coder.classes == classes
    assert list(map(type, coder.classes)) == list(map(type, classes))
    np.testing.assert_array_equal(coder.labels(series), [1, 0, 1])
    assert coder.inverse(coder.transform(series)).tolist() == list(series)


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype="category"),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, None]),
        pd.Series([True, None], dtype="boolean"),
    ],
)
def test_a_missing_label_is_named(series):
    with pytest.raises(DataError, match=r"labels hold (nan|None|<NA>) at row 1, expected a"):
        OneHot().fit(series)
