"""Sequential as a user meets it: predict, evaluate, look inside, set parameters, move."""

from __future__ import annotations

import copy
import gc
import importlib
import os
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn.losses import LOSSES
from gpunn.optimizers import OPTIMIZERS

ROOT = Path(gpunn.__file__).parent.parent
N_IN, N_HIDDEN, N_OUT = 4, 5, 3
DIGITS = np.random.default_rng(3).integers(0, 6, (23, N_IN))
X = np.random.default_rng(4).standard_normal((2500, N_IN))
LABELS = np.random.default_rng(5).integers(0, N_OUT, len(X))
ONE_HOT = np.eye(N_OUT)[LABELS]
DENSE = np.random.default_rng(6).random((len(X), N_OUT))
WEIGHTS = np.random.default_rng(7).random(len(X)) * (np.arange(len(X)) % 7 > 0)


@pytest.fixture
def build(device):
    """Build a small network with biases that are not zero; keyword arguments go to Sequential."""

    def network(last="identity", hidden="tanh", outputs=N_OUT, **kwargs):
        layers = [
            gpunn.Dense(N_HIDDEN, activation=hidden, bias="normal"),
            gpunn.Dense(outputs, activation=last, bias="normal"),
        ]
        return gpunn.Sequential(layers, **{"input_shape": N_IN, "device": device, "seed": 1, **kwargs})

    return network


@pytest.fixture
def image_network(device):
    layers = [gpunn.Flatten(), gpunn.Dense(N_OUT, activation="tanh", bias="normal")]
    return gpunn.Sequential(layers, (2, 3), device=device, dtype="float64", seed=1)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


SIGMA = {
    "identity": lambda z: z,
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "relu": lambda z: np.maximum(z, 0),
    "exp": np.exp,
    "softmax": softmax,
}
SIGMA_PRIME_OF_OUTPUT = {
    "identity": lambda a: np.ones_like(a),
    "tanh": lambda a: 1 - a**2,
    "sigmoid": lambda a: a * (1 - a),
    "relu": lambda a: (a > 0).astype(float),
}


def layers_by_hand(net):
    """(W, b, σ) of each Dense layer, in float64."""
    return [
        (
            net.backend.download(net.parameters[f"layers.{i}.weights"]).astype(float),
            net.backend.download(net.parameters[f"layers.{i}.bias"]).astype(float),
            layer.activation,
        )
        for i, layer in enumerate(net.layers)
        if isinstance(layer, gpunn.Dense)
    ]


def outputs_by_hand(net, inputs):
    """The input and the output of every layer, in float64."""
    found = [np.asarray(inputs, float)]
    for W, b, sigma in layers_by_hand(net):
        found.append(SIGMA[sigma](found[-1] @ W.T + b))
    return found


def costs_by_hand(net, inputs, targets, loss):
    """One cost for each example."""
    a = outputs_by_hand(net, inputs)[-1]
    if loss == "cross_entropy":
        p = a if layers_by_hand(net)[-1][2] == "softmax" else softmax(a)
        return -(targets * np.log(p)).sum(axis=1)
    if loss == "binary_cross_entropy":
        p = a if layers_by_hand(net)[-1][2] == "sigmoid" else SIGMA["sigmoid"](a)
        return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
    if loss == "poisson":
        z = np.log(a) if layers_by_hand(net)[-1][2] == "exp" else a
        return (np.exp(z) - targets * z + targets * np.log(targets) - targets).sum(axis=1)
    if loss in ("mae", "huber"):
        d = np.abs(a - targets)
        return (d if loss == "mae" else np.where(d <= 1, d**2 / 2, d - 0.5)).mean(axis=1)
    return ((a - targets) ** 2).sum(axis=1) / (2 if loss == "quadratic" else a.shape[1])


def backpropagation_by_hand(net, inputs, targets, loss, weights):
    """∂C/∂parameter and δ of every layer, for the whole data at once, in float64."""
    layers, outs = layers_by_hand(net), outputs_by_hand(net, inputs)
    share = (weights / weights.sum())[:, None]
    a = outs[-1]
    if loss == "cross_entropy":
        p = a if layers[-1][2] == "softmax" else softmax(a)
        delta = share * (p * targets.sum(axis=1, keepdims=True) - targets)
    elif loss == "binary_cross_entropy":
        p = a if layers[-1][2] == "sigmoid" else SIGMA["sigmoid"](a)
        delta = share * (p - targets)
    elif loss == "poisson":
        delta = share * ((a if layers[-1][2] == "exp" else np.exp(a)) - targets)
    else:
        error = {
            "quadratic": lambda d: d,
            "mse": lambda d: 2 * d / a.shape[1],
            "mae": lambda d: np.sign(d) / a.shape[1],
            "huber": lambda d: np.clip(d, -1, 1) / a.shape[1],
        }[loss](a - targets)
        delta = share * error * SIGMA_PRIME_OF_OUTPUT[layers[-1][2]](a)
    gradients, errors = {}, {}
    for i in reversed(range(len(layers))):
        errors[f"layers.{i}"] = delta
        gradients[f"layers.{i}.weights"] = delta.T @ outs[i]
        gradients[f"layers.{i}.bias"] = delta.sum(axis=0)
        if i:
            delta = delta @ layers[i][0] * SIGMA_PRIME_OF_OUTPUT[layers[i - 1][2]](outs[i])
    return gradients, errors


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# ------------------------------------------------------------------ predict

FORMS = {
    "float64": lambda a: a.astype("float64"),
    "float32": lambda a: a.astype("float32"),
    "float16": lambda a: a.astype("float16"),
    "long double": lambda a: a.astype("longdouble"),
    "big-endian": lambda a: a.astype(">f4"),
    "int64": lambda a: a.astype("int64"),
    "int8": lambda a: a.astype("int8"),
    "uint8": lambda a: a.astype("uint8"),
    "Fortran order": lambda a: np.asfortranarray(a, dtype="float32"),
    "every other column": lambda a: np.repeat(a.astype("float32"), 2, axis=1)[:, ::2],
    "rows turned round": lambda a: a.astype("float32")[::-1].copy()[::-1],
    "one row broadcast": lambda a: np.broadcast_to(a[:1].astype("float32"), a.shape),
    "read-only": lambda a: read_only(a.astype("float32")),
    "nested lists": lambda a: a.tolist(),
    "a list of arrays": list,
    "a memory view": lambda a: memoryview(a.astype("float64")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_predict_takes_any_numbers_in_any_layout(build, form):
    net, given = build(), form(DIGITS)
    expected = net.predict(np.array(given, dtype="float32"))
    np.testing.assert_array_equal(net.predict(given), expected)


def test_predict_takes_booleans(build):
    net = build()
    np.testing.assert_array_equal(net.predict(DIGITS > 2), net.predict((DIGITS > 2).astype(float)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_gives_the_networks_own_dtype(build, dtype):
    assert build(dtype=dtype).predict(DIGITS).dtype == dtype


@pytest.mark.parametrize("hidden", ["identity", "tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("last", ["identity", "tanh", "sigmoid", "relu", "softmax"])
def test_predict_is_what_numpy_computes(build, hidden, last):
    net = build(last, hidden, dtype="float64")
    np.testing.assert_allclose(net.predict(X), outputs_by_hand(net, X)[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 22, 23, 24, 10**9])
def test_predict_is_the_same_whatever_the_batch_size(build, batch_size):
    net = build()
    np.testing.assert_allclose(
        net.predict(DIGITS, batch_size=batch_size), net.predict(DIGITS), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("rows", [1023, 1024, 1025, 2500])
def test_predict_takes_more_rows_than_a_batch(build, rows):
    net = build()
    expected = outputs_by_hand(net, X[:rows].astype("float32"))[-1]
    np.testing.assert_allclose(net.predict(X[:rows]), expected, rtol=1e-4, atol=1e-5)


def test_predict_of_data_of_many_sizes_one_after_the_other(build):
    net = build(dtype="float64")
    last_rows = np.concatenate([net.predict(X[: n + 1])[-1:] for n in range(20)])
    np.testing.assert_allclose(last_rows, net.predict(X[:20]), rtol=1e-12)


def test_predict_of_no_examples_is_empty(build):
    assert build().predict(np.zeros((0, N_IN))).shape == (0, N_OUT)


def test_predict_of_no_images_is_empty(image_network):
    assert image_network.predict(np.zeros((0, 2, 3))).shape == (0, N_OUT)


def test_predict_leaves_its_input_as_it_was(build):
    given = X.astype("float32")
    build().predict(given)
    np.testing.assert_array_equal(given, X.astype("float32"))


def test_predictions_share_no_memory_with_each_other(build):
    net = build()
    first = net.predict(DIGITS)
    kept = first.copy()
    net.predict(DIGITS + 1)
    np.testing.assert_array_equal(first, kept)


def test_predictions_of_flatten_alone_are_a_copy_of_the_input(device):
    images = np.arange(12, dtype="float32").reshape(2, 2, 3)
    flat = gpunn.Sequential([gpunn.Flatten()], (2, 3), device=device).predict(images)
    np.testing.assert_array_equal(flat, images.reshape(2, 6))
    flat[:] = -1
    assert images.min() == 0


def test_a_row_of_nan_gives_nan_in_that_row_alone(build):
    spoilt = X[:9].copy()
    spoilt[4, 2] = np.nan
    output = build().predict(spoilt)
    np.testing.assert_array_equal(np.isnan(output).all(axis=1), np.arange(9) == 4)
    np.testing.assert_array_equal(np.isnan(output).any(axis=1), np.arange(9) == 4)


USES = {
    "predict": lambda net: net.predict(X),
    "evaluate": lambda net: np.array([net.evaluate(X, LABELS, loss="cross_entropy")["loss"]]),
    "gradients": lambda net: net.gradients(X, LABELS, loss="cross_entropy")["layers.0.weights"],
    "errors": lambda net: net.errors(X, LABELS, loss="cross_entropy")["layers.0"],
    "jacobian": lambda net: net.jacobian(X[:300]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_threads_that_use_a_network_at_once_do_not_disturb_each_other(device, use):
    layers = [gpunn.Dense(100, activation="tanh"), gpunn.Dense(N_OUT)]
    net = gpunn.Sequential(layers, input_shape=N_IN, device=device, seed=1)
    expected = use(net)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: use(net), range(24)))
    np.testing.assert_allclose(np.stack(found), np.stack([expected] * 24), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ predict_proba


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_the_probabilities_are_the_output_where_it_is_softmax_or_sigmoid(build, last):
    net = build(last)
    np.testing.assert_array_equal(net.predict_proba(X), net.predict(X))


def test_the_probabilities_of_a_softmax_sum_to_one(build):
    np.testing.assert_allclose(build("softmax").predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_the_probabilities_are_softmax_of_z_after_training_with_cross_entropy(build):
    net = build(dtype="float64")
    net.fit(X, LABELS, loss="cross_entropy", verbose=0)
    np.testing.assert_allclose(net.predict_proba(X), softmax(net.predict(X)), rtol=1e-12)


def test_the_probabilities_are_the_sigmoid_of_z_after_training_with_binary_cross_entropy(build):
    net = build(dtype="float64")
    net.fit(X, ONE_HOT, loss="binary_cross_entropy", verbose=0)
    np.testing.assert_allclose(net.predict_proba(X), SIGMA["sigmoid"](net.predict(X)), rtol=1e-12)


def test_the_probabilities_of_no_examples_are_empty(build):
    net = build()
    net.fit(X, LABELS, loss="cross_entropy", verbose=0)
    assert net.predict_proba(np.zeros((0, N_IN))).shape == (0, N_OUT)


def test_the_probabilities_of_a_flattened_sigmoid_are_the_output(device):
    net = gpunn.Sequential([gpunn.Activation("sigmoid"), gpunn.Flatten()], (2, 2), device=device)
    images = X[:6].reshape(6, 2, 2)
    np.testing.assert_array_equal(net.predict_proba(images), net.predict(images))


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.link is None])
def test_probabilities_are_refused_after_training_with_another_loss(build, loss):
    net = build()
    net.fit(X, DENSE, loss=loss, verbose=0)
    with pytest.raises(gpunn.ArgumentError, match=f"no probability.*identity.*{loss}.*cross_entropy"):
        net.predict_proba(X)


@pytest.mark.parametrize("last", ["relu", "tanh"])
def test_probabilities_are_refused_where_the_output_is_none(build, last):
    with pytest.raises(gpunn.ArgumentError, match=f"no probability.*{last}.*softmax or sigmoid"):
        build(last).predict_proba(X)


def test_probabilities_are_refused_before_training_where_the_output_is_z(build):
    with pytest.raises(gpunn.ArgumentError, match=r"no probability.*None"):
        build().predict_proba(X)


# ------------------------------------------------------------------ evaluate

CASES = [
    ("quadratic", "sigmoid", LABELS, ONE_HOT),
    ("quadratic", "sigmoid", DENSE, DENSE),
    ("quadratic", "softmax", DENSE, DENSE),
    ("mse", "identity", DENSE, DENSE),
    ("mae", "tanh", DENSE, DENSE),
    ("huber", "identity", 3 * DENSE, 3 * DENSE),
    ("binary_cross_entropy", "identity", LABELS, ONE_HOT),
    ("binary_cross_entropy", "sigmoid", LABELS, ONE_HOT),
    ("binary_cross_entropy", "identity", DENSE, DENSE),
    ("poisson", "identity", DENSE, DENSE),
    ("poisson", "exp", DENSE, DENSE),
    ("cross_entropy", "identity", LABELS, ONE_HOT),
    ("cross_entropy", "softmax", LABELS, ONE_HOT),
    ("cross_entropy", "identity", DENSE, DENSE),
]
CASE_NAMES = [
    "quadratic of labels",
    "quadratic of targets",
    "quadratic of softmax",
    "mse",
    "mean absolute error",
    "huber",
    "binary cross-entropy of labels",
    "binary cross-entropy of sigmoid and labels",
    "binary cross-entropy of targets",
    "poisson",
    "poisson of exp",
    "cross-entropy of labels",
    "cross-entropy of softmax and labels",
    "cross-entropy of targets",
]


def test_there_is_a_case_of_every_loss():
    assert {loss for loss, *_ in CASES} == {loss for loss, *_ in LONG_CASES} == LOSSES.keys()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("loss", "last", "y", "targets"), CASES, ids=CASE_NAMES)
def test_evaluate_is_the_mean_cost_over_more_than_a_batch(build, loss, last, y, targets, weights):
    net = build(last, dtype="float64")
    costs = costs_by_hand(net, X, targets, loss)
    found = net.evaluate(X, y, loss=loss, sample_weight=weights)
    assert found == {"loss": pytest.approx(np.average(costs, weights=weights), rel=1e-12)}


@pytest.mark.parametrize("batch_size", [1, 100, 999, 2499, 2500, 2501])
def test_evaluate_is_the_same_whatever_the_batch_size(build, batch_size):
    net = build(dtype="float64")
    found = net.evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy",), batch_size=batch_size)
    expected = net.evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy",))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("y", [LABELS, ONE_HOT], ids=["labels", "targets"])
def test_accuracy_is_the_share_of_rows_whose_largest_output_is_right(build, y):
    net = build(dtype="float64")
    right = outputs_by_hand(net, X)[-1].argmax(axis=1) == LABELS
    found = net.evaluate(X, y, loss="cross_entropy", metrics=("accuracy",))
    assert list(found) == ["loss", "accuracy"]
    assert found["accuracy"] == right.mean()


def test_accuracy_with_one_output_is_the_side_of_one_half(device):
    layer = gpunn.Dense(1, activation="sigmoid")
    net, y = gpunn.Sequential([layer], N_IN, device=device, dtype="float64", seed=1), LABELS % 2
    guess = outputs_by_hand(net, X)[-1][:, 0] > 0.5
    assert 0.4 < guess.mean() < 0.6
    found = net.evaluate(X, y, loss="quadratic", metrics=("accuracy",))
    assert found["accuracy"] == (guess == y).mean()


def test_accuracy_with_several_yes_or_no_is_the_share_of_rows_that_are_right_in_all(build):
    net, answers = build(dtype="float64"), DENSE > 0.5
    right = (outputs_by_hand(net, X)[-1] > 0) == answers
    found = net.evaluate(X, answers, loss="binary_cross_entropy", metrics=("accuracy", "confusion"))
    assert found["accuracy"] == right.all(axis=1).mean()
    assert [table.trace() for table in found["confusion"]] == right.sum(axis=0).tolist()


def test_a_metric_named_twice_is_counted_once(build):
    net = build()
    once = net.evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy",))
    assert net.evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy", "accuracy")) == once


def test_evaluate_gives_plain_python_floats(build):
    found = build().evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy",))
    assert {type(value) for value in found.values()} == {float}


def test_evaluate_uses_the_loss_of_the_training_where_none_is_given(build):
    net = build()
    net.fit(X, DENSE, loss="mse", verbose=0)
    assert net.evaluate(X, DENSE) == net.evaluate(X, DENSE, loss="mse")


def test_evaluate_without_any_loss_says_so(build):
    with pytest.raises(gpunn.ArgumentError, match=r"loss is missing.*give loss="):
        build().evaluate(X, DENSE)


def test_evaluate_leaves_the_parameters_as_they_were(build):
    net = build()
    before = net.theta.tobytes()
    net.evaluate(X, LABELS, loss="cross_entropy")
    assert net.theta.tobytes() == before


# ------------------------------------------------------------------ gradients and errors

LONG = np.random.default_rng(8).standard_normal((8205, N_IN))
LONG_LABELS = np.random.default_rng(9).integers(0, N_OUT, len(LONG))
LONG_DENSE = np.random.default_rng(10).random((len(LONG), N_OUT))
LONG_WEIGHTS = np.random.default_rng(11).random(len(LONG)) * (np.arange(len(LONG)) >= 4096)
LONG_CASES = [
    ("quadratic", "sigmoid", LONG_LABELS, np.eye(N_OUT)[LONG_LABELS]),
    ("mse", "tanh", LONG_DENSE, LONG_DENSE),
    ("mae", "tanh", LONG_DENSE, LONG_DENSE),
    ("huber", "identity", 3 * LONG_DENSE, 3 * LONG_DENSE),
    ("binary_cross_entropy", "identity", LONG_LABELS, np.eye(N_OUT)[LONG_LABELS]),
    ("binary_cross_entropy", "sigmoid", LONG_DENSE, LONG_DENSE),
    ("poisson", "identity", LONG_DENSE, LONG_DENSE),
    ("cross_entropy", "identity", LONG_LABELS, np.eye(N_OUT)[LONG_LABELS]),
    ("cross_entropy", "softmax", LONG_DENSE, LONG_DENSE),
]
LONG_NAMES = [
    "quadratic",
    "mse",
    "mean absolute error",
    "huber",
    "binary cross-entropy of labels",
    "binary cross-entropy of targets",
    "poisson",
    "cross-entropy of labels",
    "cross-entropy of targets",
]


@pytest.mark.parametrize("weights", [None, LONG_WEIGHTS], ids=["unweighted", "first chunk weightless"])
@pytest.mark.parametrize(("loss", "last", "y", "targets"), LONG_CASES, ids=LONG_NAMES)
def test_gradients_of_more_rows_than_a_chunk_are_those_of_the_whole(build, loss, last, y, targets, weights):
    net = build(last, "sigmoid", dtype="float64")
    w = np.ones(len(LONG)) if weights is None else weights
    expected, _ = backpropagation_by_hand(net, LONG, targets, loss, w)
    found = net.gradients(LONG, y, loss=loss, sample_weight=weights)
    assert list(found) == list(net.parameters)
    np.testing.assert_allclose(flat(found, found), flat(expected, found), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("weights", [None, LONG_WEIGHTS], ids=["unweighted", "first chunk weightless"])
@pytest.mark.parametrize(("loss", "last", "y", "targets"), LONG_CASES, ids=LONG_NAMES)
def test_errors_of_more_rows_than_a_chunk_are_those_of_the_whole(build, loss, last, y, targets, weights):
    net = build(last, "sigmoid", dtype="float64")
    w = np.ones(len(LONG)) if weights is None else weights
    _, expected = backpropagation_by_hand(net, LONG, targets, loss, w)
    found = net.errors(LONG, y, loss=loss, sample_weight=weights)
    assert list(found) == ["layers.0", "layers.1"]
    np.testing.assert_allclose(flat(found, found), flat(expected, found), rtol=1e-9, atol=1e-17)


def flat(arrays, keys):
    return np.concatenate([np.ravel(arrays[key]) for key in keys])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_have_the_shapes_and_dtype_of_the_parameters(build, dtype):
    net = build(dtype=dtype)
    found = net.gradients(X, LABELS, loss="cross_entropy")
    expected = {key: (window.shape, window.dtype) for key, window in net.parameters.items()}
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == expected


def test_looking_at_gradients_and_errors_changes_nothing(build):
    net = build()
    before = net.theta.tobytes()
    net.gradients(X, LABELS, loss="cross_entropy")
    net.errors(X, LABELS, loss="cross_entropy")
    assert net.theta.tobytes() == before


# ------------------------------------------------------------------ jacobian


def central_differences(net, x, step=1e-6):
    """∂output/∂x of one example, (*output_shape, *input_shape)."""
    moves = step * np.eye(x.size).reshape(x.size, *x.shape)
    slopes = (net.predict(x + moves) - net.predict(x - moves)) / (2 * step)
    return np.moveaxis(slopes, 0, -1).reshape(*net.output_shape, *net.input_shape)


@pytest.mark.parametrize("last", ["identity", "sigmoid", "tanh", "softmax"])
def test_the_jacobian_agrees_with_central_differences(build, last):
    net = build(last, dtype="float64")
    found = net.jacobian(X[0])
    assert found.shape == (N_OUT, N_IN)
    np.testing.assert_allclose(found, central_differences(net, X[0]), rtol=1e-6, atol=1e-9)


def test_the_jacobian_of_a_batch_is_one_an_example(build):
    net = build("softmax", dtype="float64")
    expected = np.stack([net.jacobian(x) for x in X[:6]])
    np.testing.assert_array_equal(net.jacobian(X[:6]), expected)


def test_the_jacobian_of_no_examples_is_empty(build):
    assert build().jacobian(np.zeros((0, N_IN))).shape == (0, N_OUT, N_IN)


def test_the_jacobian_of_an_image_has_the_shape_of_the_image(image_network):
    image = X[:3, :2].reshape(2, 3)
    found = image_network.jacobian(image)
    assert found.shape == (N_OUT, 2, 3)
    np.testing.assert_allclose(found, central_differences(image_network, image), rtol=1e-6, atol=1e-9)


def test_the_jacobian_of_images_is_one_an_image(image_network):
    images = X[:6, :3].reshape(3, 2, 3)
    expected = np.stack([image_network.jacobian(image) for image in images])
    np.testing.assert_array_equal(image_network.jacobian(images), expected)


def test_the_jacobian_of_an_output_that_is_an_image(device):
    net = gpunn.Sequential([gpunn.Activation("tanh")], (2, 2), device=device, dtype="float64")
    image = X[0].reshape(2, 2)
    found = net.jacobian(image)
    assert found.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(found, central_differences(net, image), rtol=1e-6, atol=1e-9)


def test_the_jacobian_of_flatten_alone_is_the_identity(device):
    net = gpunn.Sequential([gpunn.Flatten()], (2, 2), device=device)
    np.testing.assert_array_equal(net.jacobian(np.ones((2, 2))), np.eye(4).reshape(4, 2, 2))


def test_the_jacobian_takes_a_list(build):
    net = build()
    np.testing.assert_array_equal(net.jacobian([1, 2, 3, 4]), net.jacobian(np.array([1.0, 2, 3, 4])))


# ------------------------------------------------------------------ parameters


def test_theta_holds_the_parameters_in_key_order_without_padding(build):
    net = build()
    parts = [net.backend.download(window).ravel() for window in net.parameters.values()]
    np.testing.assert_array_equal(net.theta, np.concatenate(parts))
    assert net.theta.size == net.layout.count < net.layout.size
    assert net.theta.dtype == net.dtype


def test_the_keys_count_the_layers_given(image_network):
    assert list(image_network.parameters) == ["layers.1.weights", "layers.1.bias"]


def test_theta_is_a_copy(build):
    net = build()
    net.theta[:] = 0
    assert net.theta.any()


def test_setting_theta_sets_every_parameter(build):
    net, other = build(seed=1), build(seed=2)
    net.theta = other.theta
    assert net.theta.tobytes() == other.theta.tobytes()
    np.testing.assert_array_equal(net.predict(X), other.predict(X))


@pytest.mark.parametrize("change", [-1, 1], ids=["short", "long"])
def test_theta_of_another_length_is_refused_and_nothing_is_set(build, change):
    net = build()
    before = net.theta
    with pytest.raises(gpunn.ShapeError, match=rf"\({before.size + change},\).*{before.size} parameters"):
        net.theta = np.zeros(before.size + change)
    np.testing.assert_array_equal(net.theta, before)


def test_theta_of_a_network_without_parameters_is_empty(device):
    net = gpunn.Sequential([gpunn.Flatten()], (2, 2), device=device)
    net.theta = []
    assert net.theta.shape == (0,)
    assert len(net.parameters) == 0


def test_setting_a_parameter_copies_into_its_window(build):
    net = build()
    window, values = net.parameters["layers.1.bias"], np.array([1.0, 2, 3])
    net.parameters["layers.1.bias"] = values
    values[:] = 9
    assert net.parameters["layers.1.bias"] is window
    np.testing.assert_array_equal(net.backend.download(window), [1, 2, 3])


def test_a_window_taken_before_training_sees_what_training_does(build):
    net = build()
    window = net.parameters["layers.0.weights"]
    before = net.backend.download(window)
    net.fit(X, LABELS, loss="cross_entropy", verbose=0)
    net.theta = net.theta + 1
    assert (net.backend.download(window) != before).all()
    assert net.parameters["layers.0.weights"] is window
    np.testing.assert_array_equal(net.backend.download(window).ravel(), net.theta[: window.size])


def test_predict_uses_a_parameter_set_after_training(build):
    net = build()
    net.fit(X, LABELS, loss="cross_entropy", verbose=0)
    before = net.predict(X)
    net.parameters["layers.1.bias"] = net.backend.download(net.parameters["layers.1.bias"]) + 1
    np.testing.assert_allclose(net.predict(X), before + 1, rtol=1e-5, atol=1e-5)


def test_training_uses_a_parameter_set_between_two_steps(build):
    net, other = build(), build(seed=2)
    trainer = gpunn.Trainer(net, loss="mse")
    trainer.step(X[:32], DENSE[:32])
    net.theta = other.theta
    trainer.step(X[:32], DENSE[:32])
    gpunn.Trainer(other, loss="mse").step(X[:32], DENSE[:32])
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize(
    "values",
    [np.zeros(4), np.zeros((3, 1)), 0.0, [], [1j, 2, 3], ["a", "b", "c"], [None, 1, 2]],
    ids=["too long", "a column", "a scalar", "empty", "complex", "strings", "objects"],
)
def test_a_parameter_takes_numbers_of_its_shape_only(build, values):
    net = build()
    before = net.theta.tobytes()
    with pytest.raises(gpunn.ShapeError, match=r"'layers.1.bias' takes numbers of shape \(3,\), got"):
        net.parameters["layers.1.bias"] = values
    assert net.theta.tobytes() == before


@pytest.mark.parametrize(
    "values", [[[1], [1, 2], 3], "abc", None, {}], ids=["ragged", "a word", "None", "a dict"]
)
def test_what_is_no_array_of_numbers_is_no_parameter(build, values):
    net = build()
    before = net.theta.tobytes()
    with pytest.raises(gpunn.GpunnError, match=r"layers\.1\.bias"):
        net.parameters["layers.1.bias"] = values
    with pytest.raises(gpunn.GpunnError, match="theta"):
        net.theta = values
    assert net.theta.tobytes() == before


@pytest.mark.parametrize(
    "delete",
    [lambda p: p.__delitem__("layers.0.bias"), lambda p: p.pop("layers.0.bias"), lambda p: p.clear()],
    ids=["del", "pop", "clear"],
)
def test_a_parameter_cannot_be_deleted(build, delete):
    net = build()
    with pytest.raises(gpunn.ArgumentError, match="cannot be deleted"):
        delete(net.parameters)
    assert len(net.parameters) == 4


def test_an_unknown_parameter_is_answered_with_the_nearest(build):
    with pytest.raises(gpunn.UnknownNameError, match=r"'layers.0.weight'.*did you mean 'layers.0.weights'"):
        build().parameters["layers.0.weight"]


def test_a_name_that_is_no_parameter_is_not_in_the_mapping(build):
    parameters = build().parameters
    assert "layers.0.bias" in parameters
    assert "layers.7.bias" not in parameters
    assert parameters.get("layers.7.bias") is None


def test_the_parameters_print_as_a_table(build):
    assert "layers.0.weights: float32 (5, 4)" in repr(build().parameters)


@pytest.mark.parametrize(
    "optimizer",
    [
        gpunn.SGD(lr=0.1),
        gpunn.SGD(lr=0.1, l2=0.1),
        gpunn.SGD(lr=0.1, momentum=0.9),
        gpunn.SGD(lr=0.1, momentum=0.9, l2=0.1),
        gpunn.SGD(lr=0.1, momentum=0.9, nesterov=True, l1=0.1, weight_decay=0.1, clip_norm=0.1),
        gpunn.Adam(),
        gpunn.Adam(l2=0.1),
        *[
            cls(schedule=schedule, l1=0.01, clip_norm=0.1)
            for cls in OPTIMIZERS.values()
            if cls.__module__.startswith("gpunn.")
            for schedule in (None, gpunn.Cosine(2))
        ],
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_padding_of_theta_stays_zero_through_training(build, optimizer, dtype):
    net = build(dtype=dtype)
    net.fit(X, LABELS, loss="cross_entropy", optimizer=optimizer, epochs=2, verbose=0)
    padding = np.ones(net.layout.size, bool)
    padding[np.concatenate([np.arange(w.offset, w.offset + w.size) for w in net.layout.windows.values()])] = 0
    assert padding.sum() == net.layout.size - net.layout.count > 0
    assert not net.backend.download(net.memory["theta"])[padding].any()


# ------------------------------------------------------------------ seeds


def test_the_same_seed_gives_the_same_bytes(build):
    assert build(seed=5).theta.tobytes() == build(seed=5).theta.tobytes()


def test_another_seed_gives_other_parameters(build):
    assert not np.isin(build(seed=5).theta, build(seed=6).theta).any()


def test_two_layers_of_one_shape_start_differently(device):
    layers = [gpunn.Dense(4), gpunn.Dense(4)]
    net = gpunn.Sequential(layers, input_shape=4, device=device, seed=0)
    assert not np.isin(net.tensors()["layers.0.weights"], net.tensors()["layers.1.weights"]).any()


def test_no_seed_draws_one_and_records_it(build):
    one, two = build(seed=None), build(seed=None)
    assert one.seed != two.seed
    assert build(seed=one.seed).theta.tobytes() == one.theta.tobytes()


def test_float32_starts_where_float64_starts_up_to_rounding(build):
    wide = build(dtype="float64").theta
    np.testing.assert_array_equal(build(dtype="float32").theta, wide.astype("float32"))
    assert (wide.astype("float32") != wide).any()


# ------------------------------------------------------------------ moving, copying, printing


def test_to_gives_a_new_network_with_the_same_parameters(build, device):
    net = build()
    net.fit(X, LABELS, loss="cross_entropy", verbose=0)
    moved = net.to(device)
    assert moved.theta.tobytes() == net.theta.tobytes()
    assert (moved.loss, moved.seed, moved.device) == ("cross_entropy", net.seed, device)
    moved.theta = np.zeros(net.layout.count)
    assert net.theta.any()


@pytest.mark.parametrize(("start", "end"), [("float32", "float64"), ("float64", "float32")])
def test_to_changes_the_dtype(build, device, start, end):
    net = build(dtype=start)
    moved = net.to(device, end)
    assert moved.dtype == moved.predict(X).dtype == end
    np.testing.assert_array_equal(moved.theta, net.theta.astype(end))


def test_to_the_cpu_is_always_possible(build):
    net = build()
    assert net.to("cpu").theta.tobytes() == net.theta.tobytes()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_a_network_of_its_own(build, copied):
    net = build()
    twin = copied(net)
    np.testing.assert_array_equal(twin.predict(X), net.predict(X))
    before = net.predict(X)
    twin.theta = np.zeros(net.layout.count)
    np.testing.assert_array_equal(twin.predict(X), np.zeros((len(X), N_OUT)))
    np.testing.assert_array_equal(net.predict(X), before)


LAYER_MODULE = """
import gpunn


class Doubled(gpunn.Layer):
    def emit(self, program, x):
        return program.emit("add", (x, x))
"""
UNPICKLE = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).theta.tobytes().hex())"


def test_a_pickled_network_brings_its_own_layers_along_to_another_process(tmp_path, monkeypatch):
    (tmp_path / "doubled_layer.py").write_text(LAYER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    layer = importlib.import_module("doubled_layer").Doubled
    net = gpunn.Sequential([gpunn.Dense(3), layer()], input_shape=N_IN, seed=1)
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    done = subprocess.run(
        [sys.executable, "-c", UNPICKLE, str(tmp_path / "net.pickle")],
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "PATH": ""},
        capture_output=True,
        text=True,
    )
    del gpunn.layers.LAYERS["Doubled"], sys.modules["doubled_layer"]
    assert done.stdout.strip() == net.theta.tobytes().hex(), done.stderr


def test_the_repr_builds_the_same_network_again(build):
    net = build(seed=None, dtype="float64")
    again = eval(repr(net), dict(vars(gpunn)))
    assert again.theta.tobytes() == net.theta.tobytes()
    assert repr(again) == repr(net)


def test_the_summary_lists_layers_shapes_and_parameters(image_network):
    lines = [line.split() for line in str(image_network.summary()).splitlines()]
    assert ["input", "(2,", "3)", "0"] in lines
    assert ["0", "Flatten", "(6,)", "0"] in lines
    assert ["1", "Dense,", "tanh", "(3,)", "21"] in lines
    assert lines[-1][:2] == ["21", "parameters,"]


def test_the_summary_shows_itself_at_a_prompt(build):
    net = build()
    assert repr(net.summary()) == str(net.summary())


def test_the_program_without_a_loss_is_the_prediction(build):
    assert "prediction of 7" in str(build().program(batch_size=7))


@pytest.mark.parametrize(("targets", "op"), [("auto", "one_hot"), ("labels", "one_hot"), ("dense", None)])
def test_the_program_takes_labels_or_targets(build, targets, op):
    program = build("sigmoid").program(loss="quadratic", targets=targets)
    assert ("one_hot" in [each.name for each in program.ops]) is (op is not None)


def test_a_loss_on_z_is_refused_after_a_flattened_activation(device):
    net = gpunn.Sequential([gpunn.Activation("relu"), gpunn.Flatten()], (2, 2), device=device)
    with pytest.raises(gpunn.ArgumentError, match=r"last activation must be 'identity' or 'softmax'.*relu"):
        net.program(loss="cross_entropy")


def test_a_few_programs_serve_every_number_of_examples(build, monkeypatch):
    net, loads = build(), []
    load = net.backend.load
    monkeypatch.setattr(net.backend, "load", lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs))
    found = [net.predict(X[:count]) for count in range(1, 65)]
    assert len(loads) == 7
    np.testing.assert_allclose(found[36], net.predict(X)[:37], rtol=1e-5, atol=1e-6)


def test_batches_that_evaluate_on_their_way_change_nothing(device):
    net = gpunn.Sequential([gpunn.Dense(3)], input_shape=4, device=device, seed=0)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)

    def batches():
        for start in range(0, 20, 5):
            net.evaluate(X[:3], y[:3], loss="cross_entropy", metrics=("accuracy",))
            yield X[start : start + 5], y[start : start + 5]

    found = net.evaluate(batches, loss="cross_entropy", metrics=("accuracy",))
    assert found == pytest.approx(net.evaluate(X, y, loss="cross_entropy", metrics=("accuracy",)))


def test_nothing_keeps_the_data_alive(device):
    net = gpunn.Sequential([gpunn.Dense(3)], input_shape=4, device=device, seed=0)
    trainer = gpunn.Trainer(net, loss="mse", batch_size=5)
    X, T = np.ones((12, 4), np.float32), np.ones((12, 3), np.float32)
    alive = weakref.ref(X)
    trainer.epoch(X, T)
    trainer.evaluate(X, T)
    losses = [trainer.step(X[:5], T[:5]) for _ in range(3)]
    trainer.step(np.ones((1, 4), np.float32), np.ones((1, 3), np.float32))
    del X
    gc.collect()
    assert alive() is None
    assert len(losses) == 3
