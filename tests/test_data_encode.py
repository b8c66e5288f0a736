"""Standardizer and OneHot: what they learn, give and undo, from which kinds of data, and what they refuse."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gpunn.arrays
from gpunn.data import OneHot, Standardizer
from gpunn.errors import ArgumentError, DataError, FormatError, ShapeError

NAN, INFINITY = float("nan"), float("inf")
X = np.random.default_rng(0).normal(5, 3, (100, 4))
WORDS = ["dog", "cat", "dog", "bird"]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small data have many."""
    monkeypatch.setattr(gpunn.arrays, "BLOCK", 12)


# ------------------------------------------------------------------ Standardizer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_get_the_mean_0_and_the_deviation_1(dtype, small_blocks):
    Z = Standardizer().fit_transform(X.astype(dtype))
    assert Z.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(Z.mean(axis=0, dtype=np.float64), 0, atol=tolerance)
    np.testing.assert_allclose(Z.std(axis=0, dtype=np.float64), 1, rtol=tolerance)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9),
        elements=st.floats(-1e6, 1e6),
    ),
    st.integers(1, 40),
)
def test_mean_and_scale_are_numpys_whatever_the_blocks(X, block):
    usual = gpunn.arrays.BLOCK
    gpunn.arrays.BLOCK = block
    try:
        standard = Standardizer().fit(X)
    finally:
        gpunn.arrays.BLOCK = usual
    np.testing.assert_allclose(standard.mean, X.mean(axis=0), rtol=1e-12, atol=1e-9)
    deviation = X.std(axis=0)
    moves = X.max(axis=0) > X.min(axis=0)
    # Where float64 has no digits left for the spread, NumPy's deviation is noise too.
    clear = deviation > 1e-8 * np.abs(X).max()
    np.testing.assert_allclose(standard.scale[moves & clear], deviation[moves & clear], rtol=1e-6)
    assert (standard.scale > 0).all()
    assert (standard.scale[~moves] == 1).all()


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]),
        st.tuples(st.integers(1, 12), st.integers(0, 5)),
    ).filter(lambda array: array.dtype.kind != "f" or bool((np.abs(array) < 1e6).all()))
)
def test_the_inverse_undoes_the_transform(X):
    standard = Standardizer().fit(X)
    back = standard.inverse(standard.transform(X))
    assert back.dtype == (np.float64 if X.dtype == np.float64 else np.float32)
    size = np.abs(X.astype(np.float64)).max(initial=0)
    np.testing.assert_allclose(back, X.astype(np.float64), atol=float(4 * np.finfo(back.dtype).eps * size))


@given(
    hnp.arrays(np.float64, (7, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
)
def test_a_standardizer_comes_back_from_json_bit_for_bit(X):
    standard = Standardizer().fit(X)
    again = Standardizer.from_dict(json.loads(json.dumps(standard.to_dict())))
    assert again.mean.tobytes() == standard.mean.tobytes()
    assert again.scale.tobytes() == standard.scale.tobytes()


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3), (5, 0), (5, 2, 0)])
def test_examples_may_have_any_shape(shape):
    X = np.random.default_rng(1).standard_normal(shape)
    standard = Standardizer().fit(X)
    assert standard.shape == standard.mean.shape == standard.scale.shape == shape[1:]
    np.testing.assert_allclose(standard.transform(X), (X - X.mean(axis=0)) / X.std(axis=0))
    again = Standardizer.from_dict(json.loads(json.dumps(standard.to_dict())))
    assert again.shape == shape[1:]


def test_a_feature_that_never_changes_becomes_0():
    # The mean of 0.1 taken 1000 times is not 0.1, and its deviation not 0.
    X = np.c_[np.full(1000, 0.1), np.arange(1000)]
    standard = Standardizer().fit(X)
    assert (standard.mean[0], standard.scale[0]) == (0.1, 1.0)
    assert not standard.transform(X)[:, 0].any()
    assert standard.transform([[1.1, 0.0]])[0, 0] == 1.0


def test_one_example_is_enough():
    standard = Standardizer().fit([[3.0, 4.0]])
    np.testing.assert_array_equal(standard.transform([[3.0, 5.0]]), [[0.0, 1.0]])


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_the_scale_is_exact_far_from_zero(offset, small_blocks):
    X = offset + np.tile([1.0, 2.0, 3.0], 1000)[:, None]
    np.testing.assert_allclose(Standardizer().fit(X).scale, np.sqrt(2 / 3), rtol=1e-12)


def test_sums_are_float64_for_float32_data():
    X = np.full((1 << 20, 1), 0.1, np.float32)
    X[::2] += 1
    standard = Standardizer().fit(X)
    np.testing.assert_allclose(standard.mean, X.mean(dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(standard.scale, X.std(dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize("size", [1e-200, 1e-160, 5e-324, 1e150])
def test_very_small_and_very_large_spreads_have_a_scale(size):
    Z = Standardizer().fit_transform(np.array([[0.0], [size], [size], [0.0]]))
    assert np.isfinite(Z).all()
    assert 0.4 < np.abs(Z).max() < 2.1


def test_a_spread_beyond_float64_is_refused():
    with pytest.raises(DataError, match=r"column 1 of X goes from -1e\+300 to 1e\+300, .*scale it down"):
        Standardizer().fit([[0.0, 1e300], [1.0, -1e300]])


@pytest.mark.parametrize(
    "made",
    [X[::2, ::-1], np.asfortranarray(X), X.T[:, :4].T, X.astype(">f8"), X.tolist()],
    ids=["strided", "Fortran order", "transposed", "big-endian", "lists"],
)
def test_the_layout_of_the_data_does_not_matter(made, small_blocks):
    plain = np.array(made, np.float64)
    standard, other = Standardizer().fit(made), Standardizer().fit(plain)
    np.testing.assert_array_equal(standard.mean, other.mean)
    np.testing.assert_array_equal(standard.transform(made), other.transform(plain))


def test_data_that_cannot_be_written_to_are_left_as_they_were():
    data = X.copy()
    data.flags.writeable = False
    Z = Standardizer().fit_transform(data)
    assert Z.flags.writeable
    np.testing.assert_array_equal(data, X)


def test_no_examples_can_be_transformed_but_not_fitted():
    standard = Standardizer().fit(X)
    assert standard.transform(X[:0]).shape == standard.inverse(X[:0]).shape == (0, 4)
    with pytest.raises(DataError, match=r"X is empty: .*\(0, 4\)"):
        Standardizer().fit(X[:0])


def test_the_result_can_be_written_over_the_data_or_elsewhere(small_blocks):
    standard, data = Standardizer().fit(X), X.copy()
    assert standard.transform(data, out=data) is data
    np.testing.assert_array_equal(data, standard.transform(X))
    narrow = np.empty(X.shape, np.float32)
    standard.inverse(data, out=narrow)
    np.testing.assert_allclose(narrow, X, rtol=1e-6)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((100, 3)), r"float64 \(100, 3\), expected an array of floats of shape \(100, 4\)"),
        (np.empty((100, 4), np.int64), r"out is int64 \(100, 4\)"),
        ([[0.0] * 4] * 100, "out is list"),
    ],
)
def test_a_place_that_cannot_hold_the_result_is_refused(out, message):
    with pytest.raises(ShapeError, match=message):
        Standardizer().fit(X).transform(X, out=out)


def test_a_memory_map_is_read_block_by_block(tmp_path):
    shape = (100_000, 200)
    file = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, shape)
    file[::2] = 3
    result = np.lib.format.open_memmap(tmp_path / "Z.npy", "w+", np.float32, shape)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    tracemalloc.start()
    standard = Standardizer().fit(X)
    standard.transform(X, out=result)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6  # as float32 these are 80 MB
    np.testing.assert_array_equal(standard.scale, 1.5)
    np.testing.assert_array_equal(result[:4, 0], [1, -1, 1, -1])


def test_it_is_repeatable_to_fit_again():
    standard = Standardizer().fit(X)
    assert standard.fit(X[:, :2]) is standard
    assert standard.shape == (2,)
    np.testing.assert_array_equal(standard.mean, Standardizer().fit(X[:, :2]).mean)


def test_what_was_learnt_cannot_be_written_over():
    standard = Standardizer().fit(X)
    with pytest.raises(ValueError, match="read-only"):
        standard.mean[0] = 3
    with pytest.raises(AttributeError):
        standard.scale = 1
    with pytest.raises(AttributeError):
        standard.means = 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_do_the_same(copied):
    standard, coder = Standardizer().fit(X), OneHot().fit(WORDS)
    np.testing.assert_array_equal(copied(standard).transform(X), standard.transform(X))
    assert copied(coder).classes == coder.classes


def test_what_it_is_shows():
    assert repr(Standardizer()) == "Standardizer(not fitted)"
    assert repr(Standardizer().fit(X)) == "Standardizer(fitted on examples of shape (4,))"
    assert repr(OneHot()) == "OneHot(not fitted)"
    assert repr(OneHot().fit(range(30))) == "OneHot(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)"


@pytest.mark.parametrize(("value", "shown"), [(NAN, "nan"), (INFINITY, "inf"), (-INFINITY, "-inf")])
@pytest.mark.parametrize("call", ["fit", "transform", "fit_transform"])
def test_values_that_are_not_finite_are_named(call, value, shown, small_blocks):
    spoilt = X.copy()
    spoilt[70, 2] = value
    standard = Standardizer().fit(X)
    before = standard.mean
    with pytest.raises(DataError, match=f"X holds {shown} at row 70, column 2, .*remove or fill"):
        getattr(standard, call)(spoilt)
    assert standard.mean is before


def test_the_inverse_lets_nan_through():
    standard = Standardizer().fit(X)
    assert np.isnan(standard.inverse([[NAN, 0, 0, 0]])[0, 0])


REFUSED_X = {
    "a number": (3.0, ShapeError, r"X has shape \(\)"),
    "another number of features": (X[:, :3], ShapeError, r"\(100, 3\), this Standardizer takes \(n, 4\)"),
    "one example": (X[0], ShapeError, r"\(4,\), .* takes \(n, 4\): one example is X\[None\]"),
    "words": ([["a"] * 4], DataError, "expected numbers"),
    "ragged rows": ([[1, 2], [3]], DataError, "not a rectangular array"),
}


@pytest.mark.parametrize(("given", "error", "message"), REFUSED_X.values(), ids=REFUSED_X)
def test_a_standardizer_refuses(given, error, message):
    with pytest.raises(error, match=message):
        Standardizer().fit(X).transform(given)


def test_a_standardizer_of_numbers_says_what_it_takes():
    with pytest.raises(ShapeError, match=r"this Standardizer takes \(n,\)"):
        Standardizer().fit([1.0, 2.0]).transform([[1.0]])
    with pytest.raises(ShapeError, match=r"expected examples in rows"):
        Standardizer().fit(3.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Standardizer().transform(X),
        lambda: Standardizer().inverse(X),
        lambda: Standardizer().mean,
        lambda: Standardizer().to_dict(),
        lambda: OneHot().labels(WORDS),
        lambda: OneHot().transform(WORDS),
        lambda: OneHot().inverse([0]),
        lambda: OneHot().classes,
        lambda: OneHot().to_dict(),
    ],
)
def test_nothing_works_before_fit(call):
    with pytest.raises(ArgumentError, match=r"has seen no (data|labels): call fit\("):
        call()


GOOD = {"class": "Standardizer", "mean": [0.0, 1.0], "scale": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "got None, expected a dictionary"),
        ([1], r"got \[1\]"),
        ({}, "expected a dictionary with .*'mean', 'scale'"),
        ({**GOOD, "class": "OneHot"}, "'class': 'Standardizer'"),
        ({**GOOD, "more": 1}, "expected a dictionary"),
        ({**GOOD, "mean": "high"}, "mean is 'high', expected lists of finite numbers"),
        ({**GOOD, "mean": None}, "mean is None"),
        ({**GOOD, "mean": [NAN, 0.0]}, "mean is .*finite"),
        ({**GOOD, "scale": [1.0, INFINITY]}, "scale is .*finite"),
        ({**GOOD, "scale": [1.0, 10**400]}, "scale is .*finite"),
        ({**GOOD, "scale": [True, True]}, "scale is .*numbers"),
        ({**GOOD, "mean": [[0.0], [1.0, 2.0]]}, "mean is not rectangular"),
        ({**GOOD, "mean": [0.0]}, r"mean has shape \(1,\) and scale \(2,\)"),
        ({**GOOD, "scale": [1.0, 0.0]}, "scale holds 0.0, expected numbers above 0"),
    ],
)
def test_a_standardizer_is_not_rebuilt_from_nonsense(values, message):
    assert Standardizer.from_dict(GOOD).transform([[0.0, 1.0]]).tolist() == [[0.0, 0.0]]
    with pytest.raises(FormatError, match=message):
        Standardizer.from_dict(values)


# ------------------------------------------------------------------ OneHot

KINDS = {
    "words": (WORDS, ("bird", "cat", "dog")),
    "an array of words": (np.array(WORDS), ("bird", "cat", "dog")),
    "an array of objects": (np.array(WORDS, object), ("bird", "cat", "dog")),
    "a tuple": (tuple(WORDS), ("bird", "cat", "dog")),
    "integers": ([7, -2, 7], (-2, 7)),
    "uint8": (np.array([7, 2, 7], np.uint8), (2, 7)),
    "uint64": (np.array([2**63 + 1, 2**63 + 2], np.uint64), (2**63 + 1, 2**63 + 2)),
    "booleans": ([True, False, True], (False, True)),
    "NumPy's booleans": (np.array([True, True]), (True,)),
    "floats": ([2.5, 0.5], (0.5, 2.5)),
    "a range": (range(3), (0, 1, 2)),
    "large integers": ([10**30, 1], (1, 10**30)),
    "the end of a word": (["a\0", "a"], ("a", "a\0")),
    "NumPy's scalars": ([np.int64(4), np.int64(3)], (3, 4)),
    "not contiguous": (np.arange(6)[::-2], (1, 3, 5)),
}


@pytest.mark.parametrize(("labels", "classes"), KINDS.values(), ids=KINDS)
def test_classes_are_the_labels_sorted(labels, classes):
    coder = OneHot().fit(labels)
    assert coder.classes == classes
    assert list(map(type, coder.classes)) == list(map(type, classes))
    numbers = coder.labels(labels)
    assert numbers.dtype == np.int64
    assert [classes[i] for i in numbers] == list(labels)
    rows = coder.transform(labels)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.eye(len(classes))[numbers])
    assert coder.inverse(rows).tolist() == coder.inverse(numbers).tolist() == list(labels)


@given(
    st.one_of(
        st.lists(st.text(max_size=5), min_size=1),
        st.lists(st.integers(), min_size=1),
        st.lists(st.booleans(), min_size=1),
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
        st.lists(st.integers(-5, 5) | st.floats(-5, 5), min_size=1),
        hnp.arrays(st.sampled_from([np.int8, np.uint16, np.int64, np.float32]), st.integers(1, 20)).filter(
            lambda array: bool(np.isfinite(array).all())
        ),
    )
)
def test_any_labels_come_back(labels):
    coder = OneHot().fit(labels)
    assert list(coder.classes) == sorted(set(coder.classes))
    again = OneHot.from_dict(json.loads(json.dumps(coder.to_dict())))
    assert again.classes == coder.classes
    assert coder.inverse(again.transform(labels)).tolist() == list(labels)
    assert coder.inverse(again.labels(labels)).tolist() == list(labels)


def test_new_labels_need_not_hold_every_class():
    coder = OneHot().fit(WORDS)
    np.testing.assert_array_equal(coder.labels(["dog"]), [2])
    assert coder.transform([]).shape == (0, 3)
    assert coder.labels([]).shape == coder.inverse([]).shape == coder.inverse(np.zeros((0, 3))).shape == (0,)


def test_numpy_strings_of_any_length_are_words():
    strings = getattr(np.dtypes, "StringDType", None)
    if strings is None:
        pytest.skip("this NumPy has no strings of any length")
    coder = OneHot().fit(np.array(WORDS, strings()))
    assert coder.classes == ("bird", "cat", "dog")


def test_the_largest_output_decides_and_the_first_of_equals():
    coder = OneHot().fit(WORDS)
    outputs = [[-3.0, -1.0, -2.0], [0.5, 0.5, 0.5], [0, 0, 1]]
    assert coder.inverse(outputs).tolist() == ["cat", "bird", "dog"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "cow"], "labels hold 'cow' at row 1, expected one of the classes 'bird', 'cat', 'dog'"),
        ([3], "labels hold 3 at row 0, expected one of the classes 'bird'"),
        (np.array(["dog", "ox", "ox"]), "'ox' at row 1"),
    ],
)
def test_an_unknown_class_is_named_with_the_known_ones(labels, message):
    with pytest.raises(DataError, match=message):
        OneHot().fit(WORDS).transform(labels)


def test_of_many_known_classes_some_are_shown():
    with pytest.raises(DataError, match=r"labels hold 99 at row 0, .* 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.$"):
        OneHot().fit(range(50)).labels([99])


REFUSED_LABELS = {
    "none": ([], DataError, "labels is empty"),
    "a column": (np.zeros((3, 1), int), ShapeError, r"\(3, 1\), .*pass labels.ravel\(\)"),
    "rows": (np.zeros((3, 2), int), ShapeError, r"\(3, 2\), expected \(n,\), one label an example$"),
    "lists": ([["a"], ["b"]], ShapeError, "a list of lists"),
    "a word": ("dog", ShapeError, r"labels has shape \(\)"),
    "NaN": ([1.0, NAN], DataError, "labels hold nan at row 1"),
    "NaN in an array": (np.array([1.0, NAN]), DataError, "labels hold nan at row 1"),
    "infinity": ([INFINITY], DataError, "labels hold inf at row 0"),
    "None among words": (["a", None], DataError, "labels hold None at row 1, .*label of their own"),
    "words and numbers": (["a", 1], DataError, "labels hold int and str, expected labels of one kind"),
    "bytes": (np.array([b"a"]), DataError, r"dtype \|S1, .*astype\(str\)"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), DataError, "datetime64"),
    "complex numbers": ([1j], DataError, "labels hold 1j at row 0"),
    "a masked array": (np.ma.masked_equal([1, 2], 2), DataError, "masked"),
}


@pytest.mark.parametrize(("labels", "error", "message"), REFUSED_LABELS.values(), ids=REFUSED_LABELS)
def test_labels_are_refused_for(labels, error, message):
    with pytest.raises(error, match=message):
        OneHot().fit(labels)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.zeros((2, 2)), ShapeError, r"float64 of shape \(2, 2\), expected \(n, 3\), or whole numbers"),
        ([0.5, 0.5, 0.0], ShapeError, r"float64 of shape \(3,\)"),
        ([0, 3], DataError, "rows hold 3 at row 1, expected 0 to 2"),
        ([-1], DataError, "rows hold -1 at row 0"),
        ([[0.0, NAN, 1.0]], DataError, "rows hold NaN at row 0, column 1"),
        (["dog"], DataError, "expected numbers"),
        (1, ShapeError, r"shape \(\)"),
    ],
)
def test_rows_that_stand_for_no_class_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        OneHot().fit(WORDS).inverse(rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "got None, expected a dictionary"),
        ({"class": "OneHot"}, "and 'classes'"),
        ({"class": "OneHot", "classes": []}, r"classes is \[\], expected a list of labels"),
        ({"class": "OneHot", "classes": "ab"}, "classes is 'ab', expected a list"),
        ({"class": "OneHot", "classes": ["b", "a"]}, "expected each once, sorted"),
        ({"class": "OneHot", "classes": ["a", "a"]}, "expected each once, sorted"),
        ({"class": "OneHot", "classes": ["a", 1]}, "expected labels: labels hold int and str"),
        ({"class": "OneHot", "classes": [None]}, "expected labels: labels hold None"),
        ({"class": "OneHot", "classes": [["a"]]}, "expected labels"),
        ({"class": "OneHot", "classes": [NAN]}, "expected labels"),
    ],
)
def test_a_one_hot_is_not_rebuilt_from_nonsense(values, message):
    with pytest.raises(FormatError, match=message):
        OneHot.from_dict(values)
