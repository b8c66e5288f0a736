"""What cannot work is refused: a message says what came, what was expected, what to do; nothing is lost."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse

import gpunn
from gpunn.losses import LOSSES

N, N_IN, N_OUT = 23, 4, 3
X = np.random.default_rng(3).standard_normal((N, N_IN))
LABELS = np.random.default_rng(4).integers(0, N_OUT, N)
DENSE = np.random.default_rng(5).random((N, N_OUT))
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def build(device):
    """Build a small network; keyword arguments go to Sequential."""

    def network(hidden="tanh", last="identity", outputs=N_OUT, **kwargs):
        layers = [gpunn.Dense(5, activation=hidden), gpunn.Dense(outputs, activation=last)]
        return gpunn.Sequential(layers, **{"input_shape": N_IN, "device": device, "seed": 1, **kwargs})

    return network


@pytest.fixture
def net(build):
    """A network that was trained once, so that there is something to lose."""
    network = build()
    network.fit(X, LABELS, loss="cross_entropy", verbose=0)
    return network


def fit(net, x, y, loss="cross_entropy", **kwargs):
    net.fit(x, y, **{"loss": loss, "verbose": 0, **kwargs})


def evaluate(net, x, y, loss="cross_entropy", **kwargs):
    net.evaluate(x, y, loss=loss, **kwargs)


def gradients(net, x, y, loss="cross_entropy", **kwargs):
    net.gradients(x, y, loss=loss, **kwargs)


def errors(net, x, y, loss="cross_entropy", **kwargs):
    net.errors(x, y, loss=loss, **kwargs)


def epoch(net, x, y, loss="cross_entropy", **kwargs):
    gpunn.Trainer(net, loss=loss).epoch(x, y, **kwargs)


def step(net, x, y, loss="cross_entropy", **kwargs):
    float(gpunn.Trainer(net, loss=loss).step(x, y, **kwargs))


def predict(net, x):
    net.predict(x)


EVERY_CALL = [fit, evaluate, gradients, errors, epoch, step]
every_call = pytest.mark.parametrize("call", EVERY_CALL, ids=lambda call: call.__name__)


def refused(error, words, call, *args, **kwargs):
    """Run the call; it must raise ``error`` with a message that holds all the ``words``."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


# ------------------------------------------------------------------ X

BAD_X = {
    "too few features": (X[:, :3], gpunn.ShapeError, ["(23, 3)", "takes (n, 4)"]),
    "too many features": (np.c_[X, X], gpunn.ShapeError, ["(23, 8)", "takes (n, 4)"]),
    "one example alone": (X[0], gpunn.ShapeError, ["(4,)", "(n, 4)", "[None]"]),
    "images": (X.reshape(N, 2, 2), gpunn.ShapeError, ["(23, 2, 2)", "reshape(len(", "Flatten()"]),
    "a number": (3.5, gpunn.ShapeError, ["has shape ()", "(n, 4)"]),
    "an empty list": ([], gpunn.ShapeError, ["(0,)", "(n, 4)"]),
    "a ragged list": ([[1, 2, 3, 4], [1, 2, 3]], gpunn.DataError, ["not a rectangular array of numbers"]),
    "objects": (X.astype(object), gpunn.DataError, ["object", "ndarray", "astype(float)"]),
    "None among numbers": (
        [[1, 2, 3, None]] * 2,
        gpunn.DataError,
        ["object", "None or strings", "astype(float)"],
    ),
    "strings": (X.astype(str), gpunn.DataError, ["<U", "expected numbers", "convert"]),
    "bytes": (X.astype("S"), gpunn.DataError, ["|S", "expected numbers", "convert"]),
    "None": (None, gpunn.DataError, ["NoneType", "expected numbers"]),
    "a word": ("iris", gpunn.DataError, ["str", "expected numbers"]),
    "a dict": ({"a": 1}, gpunn.DataError, ["dict", "expected numbers"]),
    "complex numbers": (X + 0j, gpunn.DataError, ["complex128", "expected numbers"]),
    "dates": (X.astype("M8[s]"), gpunn.DataError, ["datetime64", "expected numbers"]),
    "durations": (X.astype("m8[s]"), gpunn.DataError, ["timedelta64", "expected numbers"]),
    "records": (np.zeros(N, [("a", "f4")]), gpunn.DataError, ["expected numbers"]),
    "a masked array": (np.ma.masked_greater(X, 1.0), gpunn.DataError, ["masked", "filled("]),
    "a sparse matrix": (sparse.csr_matrix(X), gpunn.DataError, ["csr_matrix", "dense", "toarray()"]),
    "a sparse array": (sparse.coo_array(X), gpunn.DataError, ["coo_array", "dense", "toarray()"]),
}


@pytest.mark.parametrize("call", [predict, *EVERY_CALL], ids=lambda call: call.__name__)
@pytest.mark.parametrize(("x", "error", "words"), BAD_X.values(), ids=BAD_X)
def test_x_that_cannot_work_is_refused(net, call, x, error, words):
    before, outputs = net.theta.tobytes(), net.predict(X)
    refused(
        error,
        [f"{'x' if call is step else 'X'} ", *words],
        call,
        net,
        x,
        *([] if call is predict else [LABELS]),
    )
    assert net.theta.tobytes() == before
    np.testing.assert_array_equal(net.predict(X), outputs)


@pytest.mark.parametrize(
    "x",
    [X[:, :3], X[0, :2], [[1, 2, 3, 4], [1, 2]], None, "iris", X + 0j],
    ids=["too few features", "a short example", "a ragged list", "None", "a word", "complex numbers"],
)
def test_the_jacobian_refuses_what_it_cannot_take(net, x):
    refused(gpunn.GpunnError, ["x "], net.jacobian, x)


@every_call
def test_no_examples_are_refused(net, call):
    words = [f"{'x' if call is step else 'X'} is empty", "(0, 4)", "at least one example"]
    refused(gpunn.DataError, words, call, net, X[:0], LABELS[:0])


# ------------------------------------------------------------------ y

LABELS_WITH_7 = np.where(np.arange(N) == 11, 7, LABELS)
LABELS_WITH_MINUS_1 = np.where(np.arange(N) == 11, -1, LABELS)
ONE_TO_THREE = LABELS + 1
BAD_Y = {
    "a label too high": (LABELS_WITH_7, gpunn.DataError, ["label 7 at row 11", "0 to 2", "3 outputs"]),
    "a negative label": (LABELS_WITH_MINUS_1, gpunn.DataError, ["label -1 at row 11", "0 to 2"]),
    "labels from 1": (ONE_TO_THREE, gpunn.DataError, ["label 3 at row", "labels start at 0"]),
    "a huge label": ([2**63 + 5] * N, gpunn.DataError, [f"label {2**63 + 5} at row 0", "0 to 2"]),
    "labels as floats": (LABELS.astype(float), gpunn.ShapeError, ["integers", "float64", "astype(int)"]),
    "labels as a column": (LABELS[:, None], gpunn.ShapeError, ["(23, 1)", "labels are 1-D", "ravel("]),
    "labels as a row": (LABELS[None], gpunn.ShapeError, ["(1, 23)", "23 rows"]),
    "labels as words": (np.array(["a", "b"])[LABELS % 2], gpunn.DataError, ["<U1", "expected numbers"]),
    "labels as objects": (LABELS.astype(object), gpunn.DataError, ["object", "expected numbers"]),
    "too few": (LABELS[:-1], gpunn.ShapeError, ["(22,)", "23 rows"]),
    "too many": (np.r_[LABELS, 0], gpunn.ShapeError, ["(24,)", "23 rows"]),
    "one number": (1, gpunn.ShapeError, ["has shape ()", "23 rows"]),
    "none": ([], gpunn.ShapeError, ["(0,)", "23 rows"]),
    "None": (None, gpunn.DataError, ["NoneType", "expected numbers"]),
    "too few columns": (DENSE[:, :2], gpunn.ShapeError, ["(23, 2)", "(23, 3)", "one column per output"]),
    "too many columns": (
        np.c_[DENSE, DENSE],
        gpunn.ShapeError,
        ["(23, 6)", "(23, 3)", "one column per output"],
    ),
    "three dimensions": (DENSE[..., None], gpunn.ShapeError, ["(23, 3, 1)", "(23, 3)"]),
    "ragged": ([[1, 0, 0]] * 22 + [[1, 0]], gpunn.DataError, ["not a rectangular array"]),
    "complex": (DENSE + 0j, gpunn.DataError, ["complex128", "expected numbers"]),
    "sparse": (sparse.csr_matrix(DENSE), gpunn.DataError, ["csr_matrix", "toarray()"]),
}


@every_call
@pytest.mark.parametrize(("y", "error", "words"), BAD_Y.values(), ids=BAD_Y)
def test_y_that_cannot_work_is_refused(net, call, y, error, words):
    before, outputs = net.theta.tobytes(), net.predict(X)
    refused(error, ["y ", *words], call, net, X, y)
    assert net.theta.tobytes() == before
    np.testing.assert_array_equal(net.predict(X), outputs)


@pytest.mark.parametrize("call", [fit, evaluate, epoch], ids=lambda call: call.__name__)
def test_where_batches_could_come_a_missing_y_is_said_to_be_missing(net, call):
    words = ["y is missing (NoneType)", "X is a ndarray", "give both", "an iterable of (x, y) batches"]
    refused(gpunn.DataError, words, call, net, X, None)


NO_BATCHES = {
    "nothing": ([], gpunn.DataError, ["batches have run out", "at least one (x, y)"]),
    "a generator of nothing": (lambda: iter(()), gpunn.DataError, ["batches have run out"]),
    "examples": ([X[0], X[1]], gpunn.DataError, ["batch 1 is a ndarray of shape (4,)", "a pair (x, y)"]),
    "x alone": ([(X,)], gpunn.DataError, ["batch 1 is a tuple of 1", "a pair (x, y)"]),
    "four arrays": ([(X, LABELS, LABELS, LABELS)], gpunn.DataError, ["batch 1 is a tuple of 4"]),
    "a bad second": (
        [(X, LABELS), (X[:, :3], LABELS)],
        gpunn.ShapeError,
        ["batch 2: x has shape (23, 3)", "takes (n, 4)"],
    ),
    "a bad label": ([(X, LABELS), (X, LABELS_WITH_7)], gpunn.DataError, ["batch 2: y", "label 7 at row 11"]),
    "targets after labels": (
        [(X, LABELS), (X, DENSE)],
        gpunn.DataError,
        ["batch 2 comes with targets, the first one with labels"],
    ),
    "a function of no batches": (lambda: 5, gpunn.ArgumentError, ["gives 5", "an iterable of (x, y)"]),
    "None": (None, gpunn.DataError, ["y is missing", "X is a NoneType"]),
    "a number": (3.5, gpunn.DataError, ["y is missing", "X is a float"]),
    "a word": ("iris", gpunn.DataError, ["y is missing", "X is a str"]),
    "a dict": ({"a": X}, gpunn.DataError, ["y is missing", "X is a dict"]),
    "a sparse matrix": (sparse.csr_matrix(X), gpunn.DataError, ["y is missing", "X is a csr_matrix"]),
}


@pytest.mark.parametrize("call", [fit, evaluate, epoch], ids=lambda call: call.__name__)
@pytest.mark.parametrize(("batches", "error", "words"), NO_BATCHES.values(), ids=NO_BATCHES)
def test_batches_that_cannot_work_are_refused(net, call, batches, error, words):
    refused(error, words, call, net, batches, None)


@pytest.mark.parametrize("call", [fit, epoch], ids=lambda call: call.__name__)
def test_training_batches_have_weights_all_of_them_or_none(net, call):
    words = ["batch 2 comes with labels and weights, the first one with labels", "all batches the same"]
    refused(gpunn.DataError, words, call, net, [(X, LABELS), (X, LABELS, np.ones(N))], None)


@pytest.mark.parametrize("y", [LABELS_WITH_7, LABELS_WITH_MINUS_1], ids=["too high", "negative"])
@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.takes_labels(N_OUT)])
def test_labels_out_of_range_are_refused_by_every_loss_that_takes_labels(net, y, loss):
    refused(gpunn.DataError, ["at row 11", "0 to 2"], fit, net, X, y, loss=loss)


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if not row.takes_labels(N_OUT)])
def test_labels_are_refused_by_a_loss_that_takes_none(net, loss):
    words = [f"{loss!r} takes no class labels", "3 outputs", "one row per example"]
    refused(gpunn.ShapeError, words, fit, net, X, LABELS, loss=loss)


def test_cross_entropy_with_one_output_takes_no_floats_as_labels(build):
    words = ["(23,)", "(23, 1)", "labels are integers", "astype(int)"]
    refused(gpunn.ShapeError, words, fit, build(outputs=1), X, (LABELS > 0).astype(float))


def test_negative_probabilities_are_refused(net):
    y = DENSE.copy()
    y[5, 1] = -0.5
    refused(gpunn.DataError, ["negative in row 5", "probabilities"], fit, net, X, y)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "cross_entropy"])
def test_a_vector_is_never_broadcast_over_several_outputs(net, loss):
    refused(gpunn.ShapeError, ["(23,)", "(23, 3)"], fit, net, X, DENSE[:, 0], loss=loss)


# ------------------------------------------------------------------ NaN and infinity

SPOILT = [(NAN, "nan"), (INFINITY, "inf"), (-INFINITY, "-inf")]


def spoilt_at(array, row, column, value):
    array = array.astype(float).copy()
    array[row, column] = value
    return array


@every_call
@pytest.mark.parametrize("hidden", ["identity", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("value", "shown"), SPOILT, ids=["NaN", "infinity", "minus infinity"])
def test_data_that_are_not_finite_are_named_by_row_and_column(build, call, hidden, value, shown):
    net = build(hidden)
    x = spoilt_at(X, 17, 2, value)
    name = "x" if call is step else "X"
    words = [f"{name} holds {shown} at row 17, column 2", "1 such values in 1 rows", "remove or fill"]
    refused(gpunn.DataError, words, call, net, x, LABELS)


@every_call
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize(("value", "shown"), SPOILT[:2], ids=["NaN", "infinity"])
def test_targets_that_are_not_finite_are_named_by_row_and_column(build, call, loss, value, shown):
    words = [f"y holds {shown} at row 17, column 2", "1 such values in 1 rows", "remove or fill"]
    refused(gpunn.DataError, words, call, build(), X, spoilt_at(DENSE, 17, 2, value), loss=loss)


@pytest.mark.parametrize("call", [fit, evaluate, gradients, errors, epoch], ids=lambda call: call.__name__)
@pytest.mark.parametrize("hidden", ["relu", "sigmoid"])
@pytest.mark.parametrize("value", [NAN, INFINITY], ids=["NaN", "infinity"])
def test_data_that_are_not_finite_leave_the_weights_as_they_were(build, call, hidden, value):
    net = build(hidden)
    before = net.theta.tobytes()
    with pytest.raises(gpunn.DataError):
        call(net, spoilt_at(X, 17, 2, value), LABELS)
    assert net.theta.tobytes() == before


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_the_row_is_named_whatever_the_minibatch_and_the_shuffle(build, batch_size, epochs):
    net = build()
    how = {"batch_size": batch_size, "epochs": epochs}
    refused(
        gpunn.DataError,
        ["X holds nan at row 17, column 2"],
        fit,
        net,
        spoilt_at(X, 17, 2, NAN),
        LABELS,
        **how,
    )


def test_the_first_bad_row_is_named_and_all_are_counted(build):
    x = spoilt_at(spoilt_at(X, slice(9, 12), slice(1, 3), NAN), 20, 0, INFINITY)
    words = ["holds nan at row 9, column 1", "7 such values in 4 rows"]
    refused(gpunn.DataError, words, fit, build(), x, LABELS)


def test_a_pixel_is_named_by_all_its_indices(device):
    images = np.ones((3, 2, 2))
    images[1, 0, 1] = NAN
    net = gpunn.Sequential([gpunn.Flatten(), gpunn.Dense(2)], (2, 2), device=device, seed=0)
    refused(gpunn.DataError, ["row 1, column 0, 1"], fit, net, images, [0, 1, 0])


def test_a_row_after_the_first_batch_of_an_evaluation_is_named(build):
    x = spoilt_at(np.tile(X, (100, 1)), 2000, 1, NAN)
    refused(gpunn.DataError, ["row 2000, column 1"], evaluate, build(), x, np.tile(LABELS, 100))


def test_validation_data_that_are_not_finite_are_named(build):
    data = (spoilt_at(X, 17, 2, NAN), LABELS)
    refused(
        gpunn.DataError, ["validation X", "row 17, column 2"], fit, build(), X, LABELS, validation_data=data
    )


@pytest.mark.parametrize("call", [fit, evaluate], ids=lambda call: call.__name__)
def test_numbers_beyond_float32_are_shown_as_they_came(build, call):
    words = ["1e+39 at row 17, column 2", "float32", "float64"]
    refused(gpunn.DataError, words, call, build(), spoilt_at(X, 17, 2, 1e39), LABELS)


# ------------------------------------------------------------------ weights

BAD_WEIGHTS = {
    "all zero": (np.zeros(N), gpunn.DataError, ["all weights are zero", "give some example a weight"]),
    "negative": (np.where(np.arange(N) == 9, -1.0, 1), gpunn.DataError, ["-1.0 at row 9", "at least 0"]),
    "NaN": (np.where(np.arange(N) == 9, NAN, 1), gpunn.DataError, ["nan at row 9", "finite"]),
    "infinite": (np.where(np.arange(N) == 9, INFINITY, 1), gpunn.DataError, ["inf at row 9", "finite"]),
    "too few": (np.ones(N - 1), gpunn.ShapeError, ["(22,)", "(23,)", "one an example"]),
    "a column": (np.ones((N, 1)), gpunn.ShapeError, ["(23, 1)", "(23,)", "one an example"]),
    "one number": (1.0, gpunn.ShapeError, ["()", "(23,)"]),
    "words": (["heavy"] * N, gpunn.DataError, ["expected numbers"]),
    "complex": (np.ones(N) + 0j, gpunn.DataError, ["complex128", "expected numbers"]),
    "ragged": ([1, [2, 3]], gpunn.DataError, ["not a rectangular array"]),
    "zero once in float32": (np.full(N, 1e-60), gpunn.DataError, ["float32"]),
    "infinite once in float32": (np.full(N, 1e39), gpunn.DataError, ["1e+39 at row 0", "float32"]),
}


@every_call
@pytest.mark.parametrize(("weights", "error", "words"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_sample_weights_that_cannot_work_are_refused(net, call, weights, error, words):
    before = net.theta.tobytes()
    refused(error, ["weight", *words], call, net, X, LABELS, sample_weight=weights)
    assert net.theta.tobytes() == before


BAD_CLASS_WEIGHTS = {
    "an unknown word": ("balance", ["'balance'", "'balanced'", "mapping"]),
    "a list": ([1, 2, 3], ["[1, 2, 3]", "'balanced'", "mapping"]),
    "a label that is none": ({3: 1.0}, ["label 3", "0 to 2"]),
    "a label as a string": ({"0": 1.0}, ["label '0'"]),
    "a label as a float": ({0.0: 2.0}, ["label 0.0"]),
    "a label as a float32": ({np.float32(0): 2.0}, ["label", "0.0"]),
    "a weight that is complex": ({1: np.complex128(2)}, ["label 1", "2+0j", "finite number"]),
    "a negative label": ({-1: 1.0}, ["label -1"]),
    "a negative weight": ({1: -2.0}, ["label 1", "-2.0", "at least 0"]),
    "a weight of NaN": ({1: NAN}, ["label 1", "nan", "finite"]),
    "an infinite weight": ({1: INFINITY}, ["label 1", "inf", "finite"]),
    "a weight as a string": ({1: "2"}, ["label 1", "'2'", "finite number"]),
    "a weight of None": ({1: None}, ["label 1", "None", "finite number"]),
    "all zero": ({0: 0, 1: 0, 2: 0}, ["all weights are zero"]),
}


@pytest.mark.parametrize(("weights", "words"), BAD_CLASS_WEIGHTS.values(), ids=BAD_CLASS_WEIGHTS)
@pytest.mark.parametrize("call", [fit, epoch], ids=lambda call: call.__name__)
def test_class_weights_that_cannot_work_are_refused(net, call, weights, words):
    before = net.theta.tobytes()
    refused(gpunn.ArgumentError, ["weight", *words], call, net, X, LABELS, class_weight=weights)
    assert net.theta.tobytes() == before


def test_class_weights_need_labels(net):
    words = ["class_weight needs integers as y", "a loss that takes them for classes", "sample_weight"]
    refused(gpunn.ArgumentError, words, fit, net, X, DENSE, class_weight="balanced")


# ------------------------------------------------------------------ arguments of fit

NO_WHOLE_NUMBERS = [0, -1, 1.5, 2.0, True, "10", None, NAN, [8], Fraction(8), np.array([8]), np.array(2.5)]


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda net, size: fit(net, X, LABELS, batch_size=size),
        lambda net, size: gpunn.Trainer(net, loss="mse", batch_size=size),
        lambda net, size: net.predict(X, batch_size=size),
        lambda net, size: net.evaluate(X, LABELS, batch_size=size),
        lambda net, size: net.program(batch_size=size),
    ],
    ids=["fit", "Trainer", "predict", "evaluate", "program"],
)
def test_a_batch_size_is_a_whole_number_of_at_least_one(net, call, value):
    words = ["batch_size is", repr(value), "a whole number of at least 1"]
    refused(gpunn.ArgumentError, words, call, net, value)


@pytest.mark.parametrize("value", [-1, 1.5, True, "10", None, NAN], ids=repr)
def test_epochs_are_a_whole_number(net, value):
    words = ["epochs is", repr(value), "a whole number of at least 0"]
    refused(gpunn.ArgumentError, words, fit, net, X, LABELS, epochs=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"], ids=repr)
def test_steps_are_a_whole_number_of_at_least_one(net, value):
    refused(gpunn.ArgumentError, ["steps is", repr(value), "at least 1"], epoch, net, X, LABELS, steps=value)


@pytest.mark.parametrize(
    "value", [np.int64(5), np.uint8(5), np.array(5)], ids=["int64", "uint8", "0-d array"]
)
def test_whole_numbers_may_be_numpys(net, value):
    assert len(net.fit(X, LABELS, loss="cross_entropy", batch_size=value, epochs=value, verbose=0)) == 5


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda: gpunn.SGD(lr=0), ["SGD: lr is 0", "more than 0"]),
        (lambda: gpunn.SGD(lr=-0.1), ["SGD: lr is -0.1", "more than 0"]),
        (lambda: gpunn.SGD(lr=NAN), ["SGD: lr is nan", "finite number"]),
        (lambda: gpunn.SGD(lr=INFINITY), ["SGD: lr is inf", "finite number"]),
        (lambda: gpunn.SGD(lr=10**400), ["SGD: lr is", "finite number"]),
        (lambda: gpunn.SGD(lr="0.1"), ["SGD: lr is '0.1'", "finite number"]),
        (lambda: gpunn.SGD(lr=None), ["SGD: lr is None", "finite number"]),
        (lambda: gpunn.SGD(lr=True), ["SGD: lr is True", "finite number"]),
        (lambda: gpunn.SGD(lr=1j), ["SGD: lr is 1j", "finite number"]),
        (lambda: gpunn.SGD(lr=[0.1]), ["SGD: lr is [0.1]", "finite number"]),
        (lambda: gpunn.SGD(lr=np.array([0.1, 0.2])), ["SGD: lr is", "finite number"]),
        (lambda: gpunn.SGD(momentum=1), ["SGD: momentum is 1", "below 1"]),
        (lambda: gpunn.SGD(momentum=-0.1), ["SGD: momentum is -0.1", "at least 0"]),
        (lambda: gpunn.SGD(l2=-1), ["SGD: l2 is -1", "at least 0"]),
        (lambda: gpunn.Adam(lr=0), ["Adam: lr is 0", "more than 0"]),
        (lambda: gpunn.Adam(beta1=1), ["Adam: beta1 is 1", "below 1"]),
        (lambda: gpunn.Adam(beta2=-0.1), ["Adam: beta2 is -0.1", "at least 0"]),
        (lambda: gpunn.Adam(epsilon=0), ["Adam: epsilon is 0", "more than 0"]),
    ],
)
def test_the_numbers_of_an_optimiser_are_checked(optimizer, words):
    refused(gpunn.ArgumentError, words, optimizer)


NOT_METRICS = ["accuracy", None, 5, [["accuracy"]], [None]]


@pytest.mark.parametrize("metrics", NOT_METRICS, ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda net, metrics: fit(net, X, LABELS, metrics=metrics),
        lambda net, metrics: net.evaluate(X, LABELS, metrics=metrics),
        lambda net, metrics: gpunn.Trainer(net, loss="cross_entropy", metrics=metrics),
    ],
    ids=["fit", "evaluate", "Trainer"],
)
def test_metrics_are_a_sequence_of_names(net, call, metrics):
    refused(gpunn.ArgumentError, ["metric"], call, net, metrics)


def test_metrics_given_as_a_string_say_what_to_write(net):
    refused(gpunn.ArgumentError, ["'accuracy'", "('accuracy',)"], fit, net, X, LABELS, metrics="accuracy")


@pytest.mark.parametrize(
    "callbacks",
    [print, None, 5, gpunn.Callback(), [3], ["print"], [None], [gpunn.Callback]],
    ids=["a function", "None", "a number", "a callback alone", "numbers", "names", "Nones", "a class"],
)
def test_callbacks_are_a_sequence_of_callbacks(net, callbacks):
    before = net.theta.tobytes()
    refused(gpunn.ArgumentError, ["callback"], fit, net, X, LABELS, callbacks=callbacks)
    assert net.theta.tobytes() == before


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (X, ["validation_data", "(X, y)"]),
        ((X,), ["validation_data", "(X, y)"]),
        ((X, LABELS, LABELS), ["validation_data", "(X, y)"]),
        ({"X": X, "y": LABELS}, ["validation_data", "(X, y)"]),
        (0.2, ["validation_data", "(X, y)"]),
        ((X[:, :3], LABELS), ["validation X", "(23, 3)", "(n, 4)"]),
        ((X[:0], LABELS[:0]), ["validation X is empty"]),
        ((X, LABELS[:-1]), ["validation y", "(22,)", "23 rows"]),
        ((X, LABELS_WITH_7), ["validation y", "label 7 at row 11"]),
        ((X, DENSE[:, :2]), ["validation y", "(23, 2)"]),
    ],
)
def test_validation_data_that_cannot_work_are_refused_before_training(net, data, words):
    before = net.theta.tobytes()
    refused(gpunn.ArgumentError, words, fit, net, X, LABELS, validation_data=data)
    assert net.theta.tobytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": "mse"},
        {"epochs": -1},
        {"batch_size": 0},
        {"optimizer": "adamm"},
        {"loss": "nothing"},
        {"metrics": "accuracy"},
        {"callbacks": [3]},
        {"validation_data": 3},
        {"sample_weight": [1]},
        {"loss": "quadratic", "class_weight": {9: 1}},
    ],
    ids=lambda arguments: list(arguments)[-1],
)
def test_a_fit_that_is_refused_leaves_the_network_as_it_was(net, arguments):
    before = (
        net.theta.tobytes(),
        net.loss,
        net.history,
        net.history.records[:],
        net.predict_proba(X).tobytes(),
    )
    with pytest.raises(gpunn.GpunnError):
        fit(net, X, LABELS, **arguments)
    after = (
        net.theta.tobytes(),
        net.loss,
        net.history,
        net.history.records[:],
        net.predict_proba(X).tobytes(),
    )
    assert after == before


@pytest.mark.parametrize("last", ["relu", "tanh", "sigmoid"])
def test_cross_entropy_works_on_z(build, last):
    net = build(last=last)
    words = ["cross_entropy", "works on z", "'identity' or 'softmax'", repr(last)]
    refused(gpunn.ArgumentError, words, fit, net, X, LABELS)
    assert net.loss is None


def test_a_loss_needs_an_output_that_is_a_vector(device):
    net = gpunn.Sequential([gpunn.Activation("tanh")], (2, 2), device=device)
    words = ["'mse' takes an output (B, n)", "Flatten() last"]
    refused(gpunn.ShapeError, words, fit, net, X.reshape(N, 2, 2), X.reshape(N, 2, 2), loss="mse")


# ------------------------------------------------------------------ unknown names

UNKNOWN = {
    "a loss": (lambda net: fit(net, X, LABELS, loss="crossentropy"), "loss", "cross_entropy"),
    "a loss in capitals": (lambda net: fit(net, X, LABELS, loss="MSE"), "loss", "mse"),
    "a loss of an evaluation": (lambda net: evaluate(net, X, LABELS, loss="quadratik"), "loss", "quadratic"),
    "a loss of a program": (lambda net: net.program(loss="mes"), "loss", "mse"),
    "an optimiser": (lambda net: fit(net, X, LABELS, optimizer="adamm"), "optimizer", "adam"),
    "an optimiser with a W": (lambda net: fit(net, X, LABELS, optimizer="admaw"), "optimizer", "adamw"),
    "a unit of a schedule": (lambda net: gpunn.Cosine(3, unit="epochs"), "unit of Cosine:", "epoch"),
    "a metric": (lambda net: fit(net, X, LABELS, metrics=("acuracy",)), "metric", "accuracy"),
    "an activation": (lambda net: gpunn.Dense(3, activation="sigmod"), "activation", "sigmoid"),
    "an activation layer": (lambda net: gpunn.Activation("soft_max"), "activation", "softmax"),
    "an initialiser of weights": (lambda net: gpunn.Dense(3, weights="he_norml"), "initialiser", "he_normal"),
    "an initialiser of the bias": (lambda net: gpunn.Dense(3, bias="zero"), "initialiser", "zeros"),
    "a dtype": (lambda net: net.to("cpu", "flaot32"), "dtype", "float32"),
    "a narrow dtype": (lambda net: net.to("cpu", "float16"), "dtype", "float64"),
    "a device": (lambda net: net.to("cup"), "device", "cpu"),
    "a kind of targets": (lambda net: net.program(loss="mse", targets="label"), "kind of targets", "labels"),
    "a parameter": (lambda net: net.parameters["layers.0.biases"], "parameter", "layers.0.bias"),
}


@pytest.mark.parametrize(("call", "kind", "nearest"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_name_is_answered_with_the_nearest(net, call, kind, nearest):
    refused(gpunn.UnknownNameError, [f"unknown {kind} ", f"did you mean {nearest!r}", "Known: "], call, net)


@pytest.mark.parametrize(
    "name", [None, 5, ["mse"], b"mse", {}, object()], ids=lambda name: type(name).__name__
)
@pytest.mark.parametrize(
    "call",
    [
        lambda net, name: fit(net, X, LABELS, loss=name),
        lambda net, name: fit(net, X, LABELS, optimizer=name),
        lambda net, name: gpunn.Dense(3, activation=name),
        lambda net, name: gpunn.Dense(3, weights=name),
        lambda net, name: gpunn.Sequential([gpunn.Dense(3)], 4, dtype=name),
        lambda net, name: gpunn.Sequential([gpunn.Dense(3)], 4, device=name),
    ],
    ids=["loss", "optimizer", "activation", "weights", "dtype", "device"],
)
def test_a_name_that_is_no_string_is_unknown(net, call, name):
    refused(gpunn.UnknownNameError, ["unknown", "Known: "], call, net, name)


def test_a_device_that_is_not_there_says_why_and_what_to_do(net, monkeypatch):
    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: "no driver: use device='cpu'")
    refused(gpunn.DeviceError, ["'cuda:7'", "use device='cpu'"], net.to, "cuda:7")


# ------------------------------------------------------------------ declaring a network

BAD_LAYERS = {
    "none": ([], ["[]", "a list of layers"]),
    "a layer alone": (gpunn.Dense(3), ["Dense(units=3", "a list of layers"]),
    "None": (None, ["None", "a list of layers"]),
    "a word": ("Dense", ["'Dense'", "a list of layers"]),
    "a generator": ((layer for layer in [gpunn.Dense(3)]), ["generator", "a list of layers"]),
    "a class among layers": ([gpunn.Dense(3), gpunn.Flatten], ["layer 1", "Flatten", "write Flatten(...)"]),
    "a number among layers": ([gpunn.Dense(3), 10], ["layer 1 is 10", "gpunn.Layer"]),
}


@pytest.mark.parametrize(("layers", "words"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_layers_that_are_none_are_refused(layers, words):
    refused(gpunn.ArgumentError, words, gpunn.Sequential, layers, 4)


@pytest.mark.parametrize(
    "shape",
    [0, -4, 4.0, "4", None, True, (), [], (2, 0), (2, None), (2, "3"), np.array([2, 3]), {4}],
    ids=repr,
)
def test_an_input_shape_is_made_of_whole_numbers(shape):
    refused(gpunn.ArgumentError, ["input_shape", "expected"], gpunn.Sequential, [gpunn.Flatten()], shape)


@pytest.mark.parametrize("units", [0, -1, 1.5, "3", None, True, [3], NAN, np.array([3, 4])], ids=repr)
def test_units_are_a_whole_number_of_at_least_one(units):
    refused(gpunn.ArgumentError, ["Dense: units is", "a whole number of at least 1"], gpunn.Dense, units)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, [1], NAN], ids=repr)
def test_a_seed_is_a_whole_number(seed):
    words = ["seed is", repr(seed), "at least 0"]
    refused(gpunn.ArgumentError, words, gpunn.Sequential, [gpunn.Dense(3)], 4, seed=seed)


def test_layers_that_do_not_fit_name_the_layer():
    words = ["layer 1 Dense", "(B, 2, 2)", "put a Flatten() before it"]
    refused(gpunn.ShapeError, words, gpunn.Sequential, [gpunn.Activation("relu"), gpunn.Dense(3)], (2, 2))


def test_softmax_of_images_names_the_layer():
    refused(
        gpunn.ShapeError,
        ["layer 0 Activation", "softmax"],
        gpunn.Sequential,
        [gpunn.Activation("softmax")],
        (2, 2),
    )


def test_every_message_is_one_sentence_of_readable_length(net):
    with pytest.raises(gpunn.ShapeError) as caught:
        net.predict(np.zeros((3, 5)))
    assert re.fullmatch(r"[^\n]{20,200}", str(caught.value))
