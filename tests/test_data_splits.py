"""Sides of a data set: what they check, and how examples are held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn.data import Dataset, Split, hold_out
from gpunn.errors import ArgumentError, DataError, ShapeError


def numbered(n: int) -> np.ndarray:
    return np.arange(n).reshape(n, 1)


def test_a_split_says_what_it_holds():
    labelled = Split(np.zeros((3, 2), np.float32), np.array([0, 1, 1]), ("a", "b"), "train")
    assert repr(labelled) == "Split('train': X (3, 2) float32, y (3,) int64, 2 classes)"
    assert repr(Split(np.zeros((3, 2)), None)) == "Split('': X (3, 2) float64, no y)"
    assert len(labelled) == 3


def test_a_split_of_unequal_lengths_is_refused():
    with pytest.raises(ShapeError, match="'test' has X with 3 examples and y with 4"):
        Split(np.zeros((3, 2)), np.zeros(4), name="test")


@pytest.mark.parametrize("name", ["train", "name", "classes"])
def test_a_data_set_is_frozen(name):
    data = Dataset("toy", Split(np.zeros((3, 2)), None))
    with pytest.raises(AttributeError):
        setattr(data, name, None)


@given(
    n=st.integers(2, 60),
    fraction=st.floats(0.001, 0.999),
    kinds=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_holding_out_divides_every_example_once_and_leaves_no_side_empty(n, fraction, kinds, seed):
    y = np.random.default_rng(seed).integers(0, kinds, n)
    X_train, y_train, X_test, y_test = hold_out(numbered(n), y, fraction, seed)
    assert sorted([*X_train[:, 0], *X_test[:, 0]]) == list(range(n))
    assert len(X_test) == min(max(int(np.ceil(round(n * fraction, 6))), 1), n - 1)
    np.testing.assert_array_equal(y_train, y[X_train[:, 0]])
    np.testing.assert_array_equal(y_test, y[X_test[:, 0]])


@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=6), fraction=st.floats(0.05, 0.5))
def test_each_class_gives_its_share_and_keeps_one_for_training(counts, fraction):
    y = np.repeat(np.arange(len(counts)), counts)
    _, y_train, _, y_test = hold_out(numbered(len(y)), y, fraction)
    held = np.bincount(y_test, minlength=len(counts))
    share = np.array(counts) * len(y_test) / len(y)
    assert (np.abs(held - share) < 1).all()
    assert (np.bincount(y_train, minlength=len(counts)) >= 1).all()


@pytest.mark.parametrize("rare", [-1, 99])
def test_a_class_of_one_example_stays_in_training_even_if_others_give_more(rare):
    y = np.array([0, 0, 0, 0, rare])
    _, y_train, _, y_test = hold_out(numbered(5), y, fraction=0.6)
    assert rare in y_train
    np.testing.assert_array_equal(y_test, [0, 0, 0])


def test_what_several_classes_of_one_cannot_give_comes_from_the_others():
    y = np.array([0] * 6 + [1, 2, 3, 4])
    _, y_train, _, y_test = hold_out(numbered(10), y, fraction=0.5)
    np.testing.assert_array_equal(y_test, [0] * 5)
    assert sorted(y_train) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "y",
    [np.arange(50), np.linspace(0, 1, 50), np.eye(50), np.array(["a", "b"] * 25)],
    ids=["counts", "floats", "rows", "words"],
)
def test_targets_that_are_no_labels_are_shuffled_alone(y):
    _, y_train, _, y_test = hold_out(numbered(50), y, fraction=0.2)
    assert (len(y_train), len(y_test)) == (40, 10)


@pytest.mark.parametrize(
    ("n", "fraction", "held"), [(100, 0.07, 7), (1797, 0.2, 360), (2, 0.01, 1), (2, 0.99, 1)]
)
def test_as_many_are_held_out_as_the_fraction_says_rounded_up(n, fraction, held):
    assert len(hold_out(numbered(n), np.zeros(n), fraction)[2]) == held


def test_the_seed_alone_decides_the_shuffle():
    X, y = numbered(100), np.arange(100) % 3
    first, again, other = hold_out(X, y, seed=1), hold_out(X, y, seed=1), hold_out(X, y, seed=2)
    np.testing.assert_array_equal(first[2], again[2])
    assert (first[2] != other[2]).any()


def test_the_sides_are_shuffled_and_do_not_share_memory_with_what_came():
    X, y = numbered(100), np.arange(100) % 2
    X_train, _, X_test, _ = hold_out(X, y)
    assert (np.diff(X_train[:, 0]) < 0).any()
    assert not np.shares_memory(X, X_train)
    assert not np.shares_memory(X, X_test)


REFUSED = {
    "a fraction of 0": (
        (numbered(4), np.zeros(4), 0.0),
        ArgumentError,
        "fraction is 0.0, expected more than 0",
    ),
    "a fraction of 1": ((numbered(4), np.zeros(4), 1.0), ArgumentError, "fraction is 1.0, .* less than 1"),
    "a fraction of NaN": ((numbered(4), np.zeros(4), float("nan")), ArgumentError, "fraction is nan"),
    "unequal lengths": ((numbered(4), np.zeros(3)), ShapeError, r"\(4, 1\) with y of shape \(3,\)"),
    "a single number": ((np.float64(4), np.zeros(3)), ShapeError, r"X of shape \(\)"),
    "one example": ((numbered(1), np.zeros(1)), DataError, r"1 example\(s\) .* expected at least 2"),
    "a seed below 0": ((numbered(4), np.zeros(4), 0.5, -1), ArgumentError, "seed is -1, expected a whole"),
    "a seed of words": ((numbered(4), np.zeros(4), 0.5, "one"), ArgumentError, "seed is 'one'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_holding_out_is_refused_for(arguments, error, message):
    with pytest.raises(error, match=message):
        hold_out(*arguments)
