"""The costs against SciPy and scikit-learn: every kind of target, weights, one output, values far out."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

import gpunn

N = 17
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
NUMBERS = np.random.default_rng(5).standard_normal((N, 3)) * 2
SHARES = np.random.default_rng(6).random((N, 3))
WEIGHTS = np.random.default_rng(7).random(N) + 0.1


@pytest.fixture
def build(device):
    def network(units=3, activation="identity", dtype="float64"):
        return gpunn.Sequential(
            [gpunn.Dense(units, activation=activation, bias="normal")], 4, device=device, dtype=dtype, seed=1
        )

    return network


COSTS = {
    "quadratic": lambda y, t: 0.5 * ((y - t) ** 2).sum(axis=1),
    "mse": lambda y, t: ((y - t) ** 2).mean(axis=1),
    "mae": lambda y, t: np.abs(y - t).mean(axis=1),
    "huber": lambda y, t: special.huber(1.0, y - t).mean(axis=1),
    "binary_cross_entropy": lambda y, t: (
        (special.xlogy(t, special.expit(y)) + special.xlogy(1 - t, special.expit(-y))).sum(axis=1) * -1
    ),
    "poisson": lambda y, t: (np.exp(y) - t * y + special.xlogy(t, t) - t).sum(axis=1),
    "cross_entropy": lambda y, t: -(t * special.log_softmax(y, axis=1)).sum(axis=1),
}
SIGMOID = {"binary_cross_entropy": "sigmoid", "cross_entropy": "softmax", "poisson": "exp"}
every_loss = pytest.mark.parametrize("loss", COSTS)
weighted = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])


def targets_for(loss):
    return SHARES if loss in SIGMOID else NUMBERS


@every_loss
@weighted
def test_the_cost_is_the_mean_over_the_examples_of_the_formula(build, loss, weights):
    net, t = build(), targets_for(loss)
    expected = np.average(COSTS[loss](net.predict(X), t), weights=weights)
    assert net.evaluate(X, t, loss=loss, sample_weight=weights)["loss"] == pytest.approx(expected, rel=1e-12)


@every_loss
@weighted
@pytest.mark.parametrize("units", [1, 3])
def test_the_gradient_is_that_of_the_cost(build, loss, weights, units):
    net, t = build(units), targets_for(loss)[:, :units]
    assert gpunn.gradcheck(net, X, t, loss=loss, sample_weight=weights).passed


@pytest.mark.parametrize("loss", list(SIGMOID))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_activation_that_a_loss_takes_into_itself_changes_no_cost_and_no_gradient(build, loss, dtype):
    plain, linked = build(dtype=dtype), build(activation=SIGMOID[loss], dtype=dtype)
    plain.fit(X, SHARES, loss=loss, verbose=0)
    linked.fit(X, SHARES, loss=loss, verbose=0)
    assert plain.theta.tobytes() == linked.theta.tobytes()
    found = np.exp(plain.predict(X)) if loss == "poisson" else plain.predict_proba(X)
    np.testing.assert_allclose(found, linked.predict(X), rtol=1e-5)


def test_a_rate_is_learned_from_counts(build):
    """30 steps by the formula: a = exp(x Wᵀ + b), δ = (a − t)/n."""
    counts = np.random.default_rng(1).poisson(np.exp(X[:, :3])).astype(float)
    net, by_hand = build(), build()
    for _ in range(30):
        delta = (np.exp(by_hand.predict(X)) - counts) / N
        by_hand.theta = by_hand.theta - 0.02 * np.concatenate([(delta.T @ X).ravel(), delta.sum(axis=0)])
    how = {"loss": "poisson", "optimizer": gpunn.SGD(lr=0.02), "batch_size": N, "epochs": 30, "verbose": 0}
    losses = net.fit(X, counts, **how)["loss"]
    np.testing.assert_allclose(net.theta, by_hand.theta, rtol=1e-10)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy", "binary_cross_entropy"])
def test_labels_are_rows_with_a_single_one(build, loss):
    labels, rows = build(), build()
    how = {"loss": loss, "epochs": 3, "batch_size": 5, "metrics": (), "verbose": 0}
    found = labels.fit(X, LABELS, **how)["loss"]
    assert found == pytest.approx(rows.fit(X, np.eye(3)[LABELS], **how)["loss"], rel=1e-12)
    np.testing.assert_allclose(labels.theta, rows.theta, rtol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_labels_mean_nothing_to_a_loss_of_numbers(build, loss):
    with pytest.raises(gpunn.ShapeError, match=rf"loss '{loss}' takes no class labels with 3 outputs"):
        build().fit(X, LABELS, loss=loss, verbose=0)


@pytest.mark.parametrize("loss", [loss for loss in COSTS if loss != "cross_entropy"])
@pytest.mark.parametrize("dtype", [int, bool, float])
def test_with_one_output_a_vector_is_a_column(build, loss, dtype):
    y = (LABELS > 0).astype(dtype)
    net = build(1)
    assert net.evaluate(X, y, loss=loss) == net.evaluate(X, y[:, None].astype(float), loss=loss)
    expected = COSTS[loss](net.predict(X), y[:, None].astype(float)).mean()
    assert net.evaluate(X, y, loss=loss)["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_an_error_of_0_pulls_at_nothing(build, loss):
    net = build()
    gradients = net.gradients(X, net.predict(X), loss=loss)
    assert {key: float(np.abs(value).max()) for key, value in gradients.items()} == dict.fromkeys(
        gradients, 0
    )


@pytest.mark.parametrize("loss", ["mae", "huber"])
@pytest.mark.parametrize("size", [1e3, 1e15, 1e30])
def test_an_outlier_pulls_no_harder_than_any_other_error(build, loss, size):
    net = build(dtype="float32")
    far, near = (net.gradients(X, net.predict(X) - d, loss=loss)["layers.0.bias"] for d in (size, 2.0))
    np.testing.assert_allclose(far, near, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("z", [0.0, 1e-30, 40.0, 90.0, 800.0, 1e30])
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_binary_cross_entropy_is_finite_and_exact_far_out(build, dtype, z, t, sign):
    """−t log σ(z) − (1 − t) log σ(−z) by way of log(1 + exp), which is exact at both ends."""
    net = build(1, dtype=dtype)
    net.theta = [0, 0, 0, 0, sign * z]
    z = float(net.tensors()["layers.0.bias"][0])
    expected = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    found = net.evaluate(X, np.full(N, t), loss="binary_cross_entropy")["loss"]
    assert found == pytest.approx(expected, rel=1e-14)
    slope = net.gradients(X, np.full(N, t), loss="binary_cross_entropy")["layers.0.bias"][0]
    assert slope == pytest.approx((1 - t) * special.expit(z) - t * special.expit(-z), rel=1e-6, abs=1e-43)


def test_a_cost_that_float64_holds_is_found_though_a_difference_overflows(device):
    net = gpunn.Sequential([gpunn.Dense(2)], input_shape=2, device=device, dtype="float64", seed=0)
    net.parameters["layers.0.weights"] = np.eye(2)
    found = net.evaluate([[-1.7e308, 1e308]], [[2.0**-10, 0.0]], loss="cross_entropy")["loss"]
    assert found == pytest.approx(1.7e308 / 1024 + 1e308 / 1024, rel=1e-15)


@pytest.mark.parametrize("clip", [-0.1, 0.5, 1.0, float("nan"), "a", None])
def test_a_clip_that_is_none_is_refused(clip):
    with pytest.raises(gpunn.ArgumentError, match=r"clip is .*expected a number from 0"):
        replace(gpunn.losses.LOSSES["cross_entropy"], clip=clip)


@pytest.mark.parametrize(
    ("loss", "outputs"), [("quadratic", "sigmoid"), ("mse", "identity"), ("cross_entropy", "softmax")]
)
def test_costs_that_cannot_be_clipped_are_named(loss, outputs):
    net = gpunn.Sequential([gpunn.Dense(3, outputs)], input_shape=2, seed=0)
    clipped = replace(gpunn.losses.LOSSES[loss], clip=0.1)
    rows = np.eye(3)[[0, 1, 2, 0]]
    with pytest.raises(gpunn.ArgumentError, match=f"loss '{loss}'.*clip=0.1"):
        gpunn.Trainer(net, loss=clipped).epoch(np.ones((4, 2)), rows)


def test_a_loss_that_nobody_registered_is_refused():
    unknown = gpunn.losses.Loss("mine", "mean_squared_error")
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, seed=0)
    with pytest.raises(gpunn.ArgumentError, match=r"'mine'.*register_loss"):
        gpunn.Trainer(net, loss=unknown)


@pytest.mark.parametrize("way", ["file", "copy"])
def test_a_clip_is_part_of_the_run(tmp_path, way):
    X, y = np.array([[60.0, 0.0], [0.0, 60.0]]), np.array([1, 0])
    net = gpunn.Sequential([gpunn.Dense(2, "softmax", weights="zeros")], input_shape=2, seed=0)
    net.parameters["layers.0.weights"] = np.eye(2)
    clipped = replace(gpunn.losses.LOSSES["cross_entropy"], clip=1e-3)
    trainer = gpunn.Trainer(net, loss=clipped, optimizer=gpunn.SGD(lr=1e-9))
    if way == "file":
        trainer.save(tmp_path / "run.safetensors")
        again = gpunn.Trainer.load(tmp_path / "run.safetensors")
    else:
        again = copy.deepcopy(trainer)
    assert again.loss == clipped
    assert again.epoch(X, y)["loss"] == pytest.approx(-np.log(1e-3))
    assert net.evaluate(X, y, loss="cross_entropy")["loss"] == pytest.approx(60.0)
