"""Targets of 0 and 1 at several outputs: what they may hold, and what class_weight means for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gpunn
from gpunn.batches import as_targets, as_weights
from gpunn.errors import ArgumentError, DataError, ShapeError
from gpunn.losses import LOSSES, Loss

#: Any loss that takes the sigmoid into itself.
LOSS = Loss("yes_or_no", "quadratic", link="sigmoid")
TRAITS = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], np.float64)


def targets(values, count=4, outputs=3, loss=LOSS):
    return as_targets(values, loss, outputs, "float32", count)[0]


def weights(class_weight, values=TRAITS, sample_weight=None):
    count, outputs = values.shape
    return as_weights(sample_weight, class_weight, None, count, outputs, "float64", values)


# ------------------------------------------------------------------ targets


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.float16, np.float64])
def test_targets_of_0_and_1_may_have_any_dtype(dtype):
    found = targets(TRAITS.astype(dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, TRAITS)


def test_targets_between_0_and_1_are_probabilities():
    np.testing.assert_array_equal(targets(TRAITS / 2), TRAITS / 2)


@pytest.mark.parametrize("value", [-0.5, 1.5, -1, 2])
def test_targets_outside_0_and_1_are_named(value):
    spoilt = TRAITS.copy()
    spoilt[2:, 1] = value
    message = rf"y holds {float(value)} at row 2, column 1: loss 'yes_or_no' takes targets from 0 to 1"
    with pytest.raises(DataError, match=message):
        targets(spoilt)
    with pytest.raises(DataError, match=f"y holds {value} at row 1, column 0: .* from 0 to 1"):
        targets(np.array([0, value, 1, 0]), outputs=1)


def test_targets_outside_0_and_1_are_found_in_any_block(monkeypatch):
    monkeypatch.setattr(gpunn.arrays, "BLOCK", 6)
    spoilt = np.tile(TRAITS, (10, 1))
    spoilt[37, 2] = 7
    with pytest.raises(DataError, match=r"y holds 7\.0 at row 37, column 2"):
        targets(spoilt, count=40)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_to_the_scan_that_counts_it(value):
    spoilt = TRAITS.copy()
    spoilt[2, 1] = value
    assert not np.isfinite(targets(spoilt)[2, 1])


def test_other_losses_take_any_number():
    np.testing.assert_array_equal(targets(TRAITS - 3, loss=LOSSES["mse"]), TRAITS - 3)


# ------------------------------------------------------------------ class weights


def test_an_examples_weight_is_the_product_over_the_outputs():
    found = weights([{0: 2.0, 1: 3.0}, {1: 5.0}, {False: 7.0, True: 11.0}])
    np.testing.assert_array_equal(found, [2 * 5 * 7, 3 * 5 * 7, 2 * 1 * 7, 2 * 5 * 11])


def test_one_output_takes_a_mapping_alone():
    column = TRAITS[:, 1:2]
    np.testing.assert_array_equal(weights({0: 4.0}, column), [1, 1, 4, 1])
    np.testing.assert_array_equal(weights([{0: 4.0}], column), [1, 1, 4, 1])


def test_class_weights_multiply_sample_weights():
    found = weights([{1: 2.0}, {}, {}], sample_weight=[1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(found, [1, 4, 3, 4])


@pytest.fixture(scope="module")
def utils():
    return pytest.importorskip("sklearn.utils", reason="scikit-learn is what the weights are held against")


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0])
    ),
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=4, max_size=4),
)
def test_the_weights_are_those_of_scikit_learn(utils, values, pairs):
    mappings = [dict(enumerate(pair)) for pair in pairs[: values.shape[1]]]
    given = mappings if len(mappings) > 1 else mappings[0]
    np.testing.assert_allclose(weights(given, values), utils.compute_sample_weight(given, values))
    np.testing.assert_allclose(weights("balanced", values), utils.compute_sample_weight("balanced", values))


def test_balanced_answers_weigh_the_same_on_both_sides():
    column = TRAITS[:, 1:2]
    found = weights("balanced", column)
    assert found[column[:, 0] == 1].sum() == pytest.approx(found[column[:, 0] == 0].sum())
    assert found.sum() == pytest.approx(4)


REFUSED = {
    "another word": ("balance", ["'balance'", "'balanced' or a list of 3 mappings", "{0: 1.0, 1: 2.0}"]),
    "one mapping for all": ({0: 1.0, 1: 2.0}, ["a list of 3 mappings", "one an output"]),
    "too few": ([{1: 2.0}] * 2, ["holds 2 mappings", "a list of 3 mappings"]),
    "numbers": ([1.0, 2.0, 3.0], ["a list of 3 mappings"]),
    "a number": (2.0, ["class_weight is 2.0", "a list of 3 mappings"]),
    "a third class": ([{}, {2: 1.0}, {}], ["class_weight of output 1 names the label 2", "0 to 1"]),
    "a negative weight": ([{}, {}, {1: -1.0}], ["class_weight of output 2", "label 1", "-1.0", "at least 0"]),
    "a weight of NaN": ([{0: float("nan")}, {}, {}], ["output 0", "nan", "finite"]),
    "all zero": ([{0: 0, 1: 0}, {}, {}], ["all weights are zero"]),
}


@pytest.mark.parametrize(("class_weight", "words"), REFUSED.values(), ids=REFUSED)
def test_class_weights_are_refused_for(class_weight, words):
    with pytest.raises(ArgumentError) as caught:
        weights(class_weight)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


def test_class_weights_need_answers_of_0_and_1():
    spoilt = TRAITS.copy()
    spoilt[2, 1] = 0.25
    with pytest.raises(
        DataError, match=r"targets of 0 and 1, y holds 0.25 at row 2, column 1: .*sample_weight"
    ):
        weights("balanced", spoilt)


# ------------------------------------------------------------------ trained


@pytest.fixture
def nets(device):
    layers = [gpunn.Dense(3, activation="sigmoid")]
    return [gpunn.Sequential(layers, 2, device=device, dtype="float64", seed=0) for _ in range(2)]


@pytest.mark.parametrize("class_weight", ["balanced", [{1: 2.0}, {0: 0.5}, {1: 3.0}]])
def test_class_weights_train_as_the_same_sample_weights(nets, class_weight):
    X = np.random.default_rng(0).standard_normal((4, 2))
    how = {"loss": "binary_cross_entropy", "epochs": 3, "batch_size": 2, "verbose": 0}
    nets[0].fit(X, TRAITS, class_weight=class_weight, **how)
    nets[1].fit(X, TRAITS, sample_weight=weights(class_weight), **how)
    assert nets[0].theta.tobytes() == nets[1].theta.tobytes()
    nets[1].fit(X, TRAITS, **how)
    assert nets[0].theta.tobytes() != nets[1].theta.tobytes()


def test_training_refuses_answers_that_are_none(nets):
    before = nets[0].theta.tobytes()
    with pytest.raises(DataError, match=r"y holds 2\.0 at row 0, column 1: loss 'binary_cross_entropy'"):
        nets[0].fit(np.zeros((4, 2)), TRAITS * 2, loss="binary_cross_entropy", verbose=0)
    assert nets[0].theta.tobytes() == before


def test_other_losses_want_labels_for_class_weights(nets):
    with pytest.raises(
        ArgumentError, match="class_weight needs integers as y, and a loss that takes them for classes"
    ):
        nets[0].fit(np.zeros((4, 2)), TRAITS, loss="mse", class_weight="balanced", verbose=0)


def test_targets_of_another_width_are_refused(nets):
    with pytest.raises(ShapeError, match=r"y has shape \(4, 2\), expected \(4, 3\)"):
        nets[0].fit(np.zeros((4, 2)), TRAITS[:, :2], loss="binary_cross_entropy", verbose=0)
