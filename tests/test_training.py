"""fit, Trainer and History, held against training written out in plain NumPy."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import gpunn
from gpunn import optimizers
from gpunn.losses import LOSSES

N, N_IN, N_HIDDEN, N_OUT = 23, 4, 5, 3
X = np.random.default_rng(3).standard_normal((N, N_IN))
LABELS = np.random.default_rng(4).integers(0, N_OUT, N)
ONE_HOT = np.eye(N_OUT)[LABELS]
DENSE = np.random.default_rng(5).random((N, N_OUT))
WEIGHTS = np.random.default_rng(6).random(N) + 0.1
ROOT = Path(gpunn.__file__).parent.parent
WITHOUT_SECONDS = {"seconds": None}

# ------------------------------------------------------------------ training in plain NumPy

LAST = {"quadratic": "sigmoid", "binary_cross_entropy": "sigmoid"}
#: Those whose gradients stay within bounds, whatever the learning rate.
BOUNDED = [name for name in LOSSES if name != "poisson"]
LABELLED = [name for name, row in LOSSES.items() if row.takes_labels(N_OUT)]


def cost_and_gradients(parameters, x, t, loss, w):
    """One minibatch: its cost, the gradient of each of W0, b0, W1, b1, and the rows that are right."""
    W0, b0, W1, b1 = parameters
    share = (w / w.sum())[:, None]
    a = np.tanh(x @ W0.T + b0)
    z = a @ W1.T + b1
    if loss == "cross_entropy":
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        cost, delta = -(share * t * log_p).sum(), share * (np.exp(log_p) - t)
    elif loss == "mse":
        cost, delta = (share * (z - t) ** 2).sum() / N_OUT, share * 2 / N_OUT * (z - t)
    elif loss == "mae":
        cost, delta = (share * np.abs(z - t)).sum() / N_OUT, share / N_OUT * np.sign(z - t)
    elif loss == "huber":
        d = np.abs(z - t)
        cost = (share * np.where(d <= 1, d**2 / 2, d - 0.5)).sum() / N_OUT
        delta = share / N_OUT * np.clip(z - t, -1, 1)
    elif loss == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-z))
        cost = -(share * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum()
        delta = share * (p - t)
    elif loss == "poisson":
        cost, delta = (share * (np.exp(z) - t * z + special.xlogy(t, t) - t)).sum(), share * (np.exp(z) - t)
    else:
        y = 1 / (1 + np.exp(-z))
        cost, delta = (share * (y - t) ** 2).sum() / 2, share * (y - t) * y * (1 - y)
    delta0 = (delta @ W1) * (1 - a**2)
    if loss == "binary_cross_entropy":
        right = ((z > 0) == (t > 0.5)).all(axis=1).sum()
    else:
        right = (z.argmax(axis=1) == t.argmax(axis=1)).sum()
    return cost, [delta0.T @ x, delta0.sum(axis=0), delta.T @ a, delta.sum(axis=0)], right


def plain_sgd(state, theta, g, t, lr=0.3):
    return theta - lr * g


def plain_momentum(state, theta, g, t, lr=0.1, mu=0.9):
    state["v"] = mu * state.get("v", 0) - lr * g
    return theta + state["v"]


def plain_adam(state, theta, g, t, lr=0.01, beta1=0.9, beta2=0.99, epsilon=1e-8):
    state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
    m_hat, v_hat = state["m"] / (1 - beta1**t), state["v"] / (1 - beta2**t)
    return theta - lr * m_hat / (np.sqrt(v_hat) + epsilon)


def plain_nesterov(state, theta, g, t, lr=0.1, mu=0.9):
    state["v"] = mu * state.get("v", 0) - lr * g
    return theta + mu * state["v"] - lr * g


def plain_rmsprop(state, theta, g, t, lr=0.01, rho=0.9, epsilon=1e-8):
    state["v"] = rho * state.get("v", 0) + (1 - rho) * g**2
    return theta - lr * g / (np.sqrt(state["v"]) + epsilon)


def plain_adagrad(state, theta, g, t, lr=0.1, epsilon=1e-10):
    state["v"] = state.get("v", 0) + g**2
    return theta - lr * g / (np.sqrt(state["v"]) + epsilon)


OPTIMIZERS = {
    "sgd": (partial(gpunn.SGD, 0.3), plain_sgd),
    "momentum": (partial(gpunn.SGD, 0.1, momentum=0.9), plain_momentum),
    "nesterov": (partial(gpunn.SGD, 0.1, momentum=0.9, nesterov=True), plain_nesterov),
    "adam": (partial(gpunn.Adam, 0.01, beta2=0.99), plain_adam),
    "adamw": (partial(gpunn.AdamW, 0.01, beta2=0.99, weight_decay=0.0), plain_adam),
    "rmsprop": (partial(gpunn.RMSprop, 0.01), plain_rmsprop),
    "adagrad": (partial(gpunn.Adagrad, 0.1), plain_adagrad),
}


def test_every_optimiser_and_every_loss_is_written_out():
    own = {cls for cls in optimizers.OPTIMIZERS.values() if cls.__module__.startswith("gpunn.")}
    assert {type(make()) for make, _ in OPTIMIZERS.values()} == own
    parameters = [np.ones((2, 4)), np.ones(2), np.ones((N_OUT, 2)), np.ones(N_OUT)]
    given = X[:2], ONE_HOT[:2]
    costs = {loss: cost_and_gradients(parameters, *given, loss, np.ones(2))[0] for loss in LOSSES}
    assert len(set(costs.values())) == len(LOSSES)


def plain_training(
    net,
    t,
    loss,
    update,
    *,
    batch_size,
    epochs,
    l1=0.0,
    l2=0.0,
    weight_decay=0.0,
    clip_norm=None,
    schedule=None,
    lr=None,
    shuffle=True,
    weights=None,
):
    """The records and the flat parameters after ``epochs``, starting from those of ``net``."""
    parameters = [net.backend.download(window).astype(float) for window in net.parameters.values()]
    states, step, records = [{} for _ in parameters], 0, []
    w = np.ones(N) if weights is None else weights
    for epoch in range(epochs):
        order = np.random.default_rng([net.seed, 1, epoch]).permutation(N) if shuffle else np.arange(N)
        costs, penalties, masses, right = [], [], [], 0
        for start in range(0, N, batch_size):
            rows, step = order[start : start + batch_size], step + 1
            cost, gradients, correct = cost_and_gradients(parameters, X[rows], t[rows], loss, w[rows])
            costs.append(cost)
            masses.append(w[rows].sum())
            matrices = [p for p in parameters if p.ndim == 2]
            penalties.append(sum(l2 / 2 * (p**2).sum() + l1 * np.abs(p).sum() for p in matrices))
            right += correct
            if clip_norm:
                norm = np.sqrt(sum((g**2).sum() for g in gradients))
                gradients = [g * min(1, clip_norm / norm) for g in gradients]
            told = {}
            if schedule is not None:
                x = epoch + start / batch_size / -(-N // batch_size)
                told = {"lr": lr * schedule(x)}
            rate = told.get("lr", lr)
            decayed = [p * (1 - rate * weight_decay) if p.ndim == 2 and rate else p for p in parameters]
            penalised = [
                g + l2 * p + l1 * np.sign(p) if p.ndim == 2 else g
                for g, p in zip(gradients, parameters, strict=True)
            ]
            parameters = [
                update(state, p, g, step, **told)
                for state, p, g in zip(states, decayed, penalised, strict=True)
            ]
        records.append(
            {
                "loss": np.average(costs, weights=masses),
                "penalty": np.average(penalties, weights=masses),
                "accuracy": right / N,
                "updates": step,
            }
        )
    return records, np.concatenate([p.ravel() for p in parameters])


@pytest.fixture
def build(device):
    """Build a small float64 network whose last activation suits the loss."""

    def network(loss="cross_entropy", outputs=N_OUT, **kwargs):
        layers = [
            gpunn.Dense(N_HIDDEN, activation="tanh", bias="normal"),
            gpunn.Dense(outputs, activation=LAST.get(loss, "identity"), bias="normal"),
        ]
        return gpunn.Sequential(
            layers, **{"input_shape": N_IN, "device": device, "dtype": "float64", "seed": 1, **kwargs}
        )

    return network


def targets_of(loss):
    return DENSE if loss in ("mse", "mae", "huber") else ONE_HOT


def without_seconds(record):
    return {key: value for key, value in record.items() if key != "seconds"}


# ------------------------------------------------------------------ the arithmetic


@pytest.mark.parametrize("l2", [0.0, 0.2], ids=["no penalty", "penalty"])
@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("loss", BOUNDED)
def test_training_follows_the_formulas_for_thirty_steps(build, loss, optimizer, update, l2):
    net, t = build(loss), targets_of(loss)
    _, expected = plain_training(net, t, loss, update, batch_size=4, epochs=5, l2=l2)
    history = net.fit(X, t, loss=loss, optimizer=optimizer(l2=l2), batch_size=4, epochs=5, verbose=0)
    assert history["updates"][-1] == 30
    np.testing.assert_allclose(net.theta, expected, rtol=1e-10, atol=1e-12)


SETTINGS = {
    "l1": {"l1": 0.1},
    "decay": {"weight_decay": 0.3},
    "clip": {"clip_norm": 0.05},
    "schedule": {"schedule": gpunn.Exponential(0.5)},
    "decay, schedule": {"weight_decay": 0.3, "schedule": gpunn.Exponential(0.5)},
    "all": {
        "l1": 0.1,
        "l2": 0.2,
        "weight_decay": 0.3,
        "clip_norm": 0.05,
        "schedule": gpunn.Exponential(0.5),
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_all_optimisers_have_follows_its_formula_for_thirty_steps(build, optimizer, update, settings):
    net, made = build(), optimizer(**settings)
    by_hand = {**settings, "lr": made.lr}
    if "schedule" in settings:
        by_hand["schedule"] = lambda x: 0.5**x
    records, expected = plain_training(
        net, ONE_HOT, "cross_entropy", update, batch_size=4, epochs=5, **by_hand
    )
    history = net.fit(X, ONE_HOT, loss="cross_entropy", optimizer=made, batch_size=4, epochs=5, verbose=0)
    np.testing.assert_allclose(net.theta, expected, rtol=1e-10, atol=1e-12)
    if made.has_penalty:
        assert history["penalty"] == pytest.approx([record["penalty"] for record in records], rel=1e-11)
    else:
        assert "penalty" not in history


def test_the_rate_of_a_record_is_that_of_its_last_update(build):
    how = {"loss": "cross_entropy", "batch_size": 4, "epochs": 3, "verbose": 0}
    constant = build().fit(X, LABELS, optimizer=gpunn.SGD(0.3), **how)
    falling = build().fit(X, LABELS, optimizer=gpunn.SGD(0.3, schedule=gpunn.Exponential(0.5)), **how)
    assert constant["lr"] == [0.3] * 3
    assert falling["lr"] == pytest.approx([0.3 * 0.5 ** (epoch + 5 / 6) for epoch in range(3)], rel=1e-12)


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "in order"])
@pytest.mark.parametrize("batch_size", [1, 4, 22, N, 100])
@pytest.mark.parametrize("loss", BOUNDED)
def test_the_records_are_means_over_the_minibatches_before_each_update(build, loss, batch_size, shuffle):
    net, t = build(loss), targets_of(loss)
    how = {"batch_size": batch_size, "epochs": 3, "shuffle": shuffle}
    expected, _ = plain_training(net, t, loss, plain_sgd, l2=0.05, **how)
    optimizer = gpunn.SGD(lr=0.3, l2=0.05)
    history = net.fit(X, t, loss=loss, optimizer=optimizer, metrics=("accuracy",), verbose=0, **how)
    found = [{key: record[key] for key in expected[0]} for record in history]
    assert found == [pytest.approx(record, rel=1e-11) for record in expected]


@pytest.mark.parametrize("batch_size", [1, 4, N])
@pytest.mark.parametrize("loss", BOUNDED)
def test_sample_weights_enter_each_minibatch_by_its_own_sum(build, loss, batch_size):
    net, t = build(loss), targets_of(loss)
    how = {"batch_size": batch_size, "epochs": 3}
    records, theta = plain_training(net, t, loss, plain_sgd, weights=WEIGHTS, **how)
    optimizer = gpunn.SGD(lr=0.3)
    history = net.fit(X, t, loss=loss, optimizer=optimizer, sample_weight=WEIGHTS, verbose=0, **how)
    np.testing.assert_allclose(net.theta, theta, rtol=1e-10, atol=1e-12)
    assert history["loss"] == pytest.approx([record["loss"] for record in records], rel=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_two_and_zero_are_a_row_twice_and_a_row_left_out(build, dtype):
    weights = np.arange(N) % 3
    repeated = np.repeat(np.arange(N), weights)
    how = {"loss": "cross_entropy", "optimizer": "adam", "batch_size": 100, "epochs": 20, "verbose": 0}
    net, other = build(dtype=dtype), build(dtype=dtype)
    net.fit(X, LABELS, sample_weight=weights, **how)
    other.fit(X[repeated], LABELS[repeated], **how)
    np.testing.assert_allclose(
        net.theta, other.theta, rtol=0, atol={"float32": 1e-5, "float64": 1e-12}[dtype]
    )


def test_a_minibatch_without_weight_changes_nothing_by_its_gradient(build):
    net = build()
    trainer = gpunn.Trainer(net, loss="cross_entropy")
    before = net.theta.tobytes()
    weights = np.array([0.0] * 4 + [1.0] * 4)
    trainer.batch_size = 4
    trainer.epoch(X[:8], LABELS[:8], shuffle=False, sample_weight=weights, steps=1)
    assert net.theta.tobytes() == before


def test_class_weights_are_the_weights_of_the_examples_of_each_class(build):
    how = {"loss": "cross_entropy", "batch_size": 4, "epochs": 2, "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS, class_weight={0: 2.0, 2: 0.5}, **how)
    other.fit(X, LABELS, sample_weight=np.array([2.0, 1.0, 0.5])[LABELS], **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_balanced_classes_weigh_the_same_in_total(build):
    how = {"loss": "cross_entropy", "batch_size": 4, "epochs": 2, "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS, class_weight="balanced", **how)
    other.fit(X, LABELS, sample_weight=(N / (3 * np.bincount(LABELS)))[LABELS], **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_balanced_classes_leave_out_a_class_that_never_occurs(build):
    labels = np.where(LABELS == 1, 2, LABELS)
    counts = np.bincount(labels)
    how = {"loss": "cross_entropy", "batch_size": 4, "epochs": 2, "verbose": 0}
    net, other = build(), build()
    net.fit(X, labels, class_weight="balanced", **how)
    other.fit(X, labels, sample_weight=N / (2 * counts[labels]), **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_class_weights_multiply_sample_weights(build):
    how = {"loss": "cross_entropy", "batch_size": 4, "epochs": 2, "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS, class_weight={1: 3.0}, sample_weight=WEIGHTS, **how)
    other.fit(X, LABELS, sample_weight=WEIGHTS * np.array([1.0, 3.0, 1.0])[LABELS], **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_a_class_that_the_network_has_and_the_data_lack_may_have_a_weight(build):
    how = {"loss": "cross_entropy", "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS % 2, class_weight={0: 1.0, 1: 2.0, 2: 3.0}, **how)
    other.fit(X, LABELS % 2, class_weight={0: 1.0, 1: 2.0}, **how)
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize(
    "yes_and_no", [(False, True), tuple(np.unique([False, True]))], ids=["bool", "NumPy's bool"]
)
def test_the_classes_of_boolean_labels_can_be_named_as_booleans(build, yes_and_no):
    net, other = build(), build()
    weights = dict(zip(yes_and_no, (1.0, 2.0), strict=True))
    net.fit(X, LABELS > 0, loss="cross_entropy", class_weight=weights, verbose=0)
    other.fit(X, (LABELS > 0).astype(int), loss="cross_entropy", class_weight={0: 1.0, 1: 2.0}, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize("loss", LABELLED)
def test_labels_and_one_hot_targets_train_alike(build, loss):
    how = {"loss": loss, "batch_size": 4, "epochs": 5, "metrics": ("accuracy",), "verbose": 0}
    net, other = build(loss), build(loss)
    history, expected = net.fit(X, LABELS, **how), other.fit(X, ONE_HOT, **how)
    np.testing.assert_allclose(net.theta, other.theta, rtol=1e-12, atol=1e-14)
    if loss != "binary_cross_entropy":  # There rows are a yes or no an output: another accuracy.
        assert history["accuracy"] == expected["accuracy"]
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)


@pytest.mark.parametrize(
    "form",
    [np.ravel, np.float32, np.bool_, list, lambda y: y.ravel().tolist(), lambda y: y.astype("uint8").ravel()],
    ids=["a vector", "float32", "booleans", "rows", "a list", "bytes"],
)
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "cross_entropy"])
def test_one_output_takes_its_targets_as_a_vector_or_as_a_column(build, loss, form):
    column = (LABELS % 2).reshape(N, 1)
    net, other = build(loss, outputs=1), build(loss, outputs=1)
    net.fit(X, form(column), loss=loss, epochs=2, verbose=0)
    other.fit(X, column.astype(float), loss=loss, epochs=2, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


# ------------------------------------------------------------------ what fit returns


def test_a_record_holds_these_entries_in_this_order_and_of_these_types(build):
    history = build().fit(
        X,
        LABELS,
        loss="cross_entropy",
        optimizer=gpunn.Adam(l2=0.1),
        batch_size=5,
        epochs=2,
        metrics=("accuracy",),
        validation_data=(X, LABELS),
        verbose=0,
    )
    assert [(key, type(value)) for key, value in history.records[1].items()] == [
        ("epoch", int),
        ("loss", float),
        ("penalty", float),
        ("accuracy", float),
        ("lr", float),
        ("seconds", float),
        ("samples", int),
        ("updates", int),
        ("val_loss", float),
        ("val_accuracy", float),
    ]
    assert (history["epoch"], history["samples"], history["updates"]) == ([1, 2], [N, N], [5, 10])
    assert min(history["seconds"]) > 0


def test_a_record_without_penalty_metrics_and_validation_is_short(build):
    history = build().fit(X, LABELS, loss="cross_entropy", verbose=0)
    assert history.keys() == ["epoch", "loss", "lr", "seconds", "samples", "updates"]


def test_the_history_is_kept_on_the_network_and_says_what_was_trained(build):
    net = build()
    history = net.fit(X, LABELS, loss="cross_entropy", optimizer="adam", batch_size=7, verbose=0)
    assert net.history is history
    assert {"loss": "cross_entropy", "batch_size": 7, "seed": 1}.items() <= history.about.items()
    assert history.about["optimizer"] == repr(gpunn.Adam())
    assert history.about["network"] == net.config()


def test_validation_is_evaluation_after_the_epoch(build):
    net = build()
    data = (X[:9], LABELS[:9])
    history = net.fit(
        X, LABELS, loss="cross_entropy", epochs=2, metrics=("accuracy",), validation_data=data, verbose=0
    )
    last = {key.removeprefix("val_"): history[key][-1] for key in ("val_loss", "val_accuracy")}
    assert last == net.evaluate(*data, metrics=("accuracy",))


def test_validation_data_do_not_change_the_training(build):
    how = {"loss": "cross_entropy", "optimizer": "adam", "batch_size": 4, "epochs": 3, "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS, validation_data=(X[:3], LABELS[:3]), **how)
    other.fit(X, LABELS, **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_no_epochs_change_nothing_and_leave_an_empty_history(build):
    net = build()
    before = net.theta.tobytes()
    assert len(net.fit(X, LABELS, loss="cross_entropy", epochs=0, verbose=0)) == 0
    assert net.theta.tobytes() == before


def test_training_leaves_the_data_as_they_were(build):
    given, y, weights = X.copy(), DENSE.copy(), WEIGHTS.copy()
    build("mse").fit(given, y, loss="mse", epochs=3, sample_weight=weights, verbose=0)
    np.testing.assert_array_equal(np.c_[given, y, weights], np.c_[X, DENSE, WEIGHTS])


def test_data_that_cannot_be_written_to_can_be_trained_on(build):
    given = X.copy()
    given.flags.writeable = False
    net, other = build(), build()
    net.fit(given, LABELS, loss="cross_entropy", verbose=0)
    other.fit(X, LABELS, loss="cross_entropy", verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


# ------------------------------------------------------------------ one call after the other


@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_second_fit_starts_a_fresh_optimiser_and_a_fresh_count(build, optimizer, update):
    how = {"loss": "cross_entropy", "optimizer": optimizer(), "batch_size": 4, "verbose": 0}
    net, other = build(), build()
    net.fit(X, LABELS, epochs=2, **how)
    other.theta = net.theta
    history = net.fit(X, LABELS, epochs=1, **how)
    other.fit(X, LABELS, epochs=1, **how)
    assert net.theta.tobytes() == other.theta.tobytes()
    assert (history["epoch"], history["updates"]) == ([1], [6])


@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_one_trainer_keeps_its_optimiser_and_its_count(build, optimizer, update):
    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer=optimizer(l2=0.1), batch_size=4)
    trainer.fit(X, LABELS, epochs=2, verbose=0)
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    expected = gpunn.Trainer(other, loss="cross_entropy", optimizer=optimizer(l2=0.1), batch_size=4)
    expected.fit(X, LABELS, epochs=3, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()
    assert [without_seconds(r) for r in trainer.history] == [without_seconds(r) for r in expected.history]


def test_the_epochs_of_a_trainer_are_those_of_fit(build):
    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", batch_size=4, metrics=("accuracy",))
    records = [trainer.epoch(X, LABELS) for _ in range(3)]
    history = other.fit(
        X, LABELS, loss="cross_entropy", batch_size=4, metrics=("accuracy",), epochs=3, verbose=0
    )
    assert net.theta.tobytes() == other.theta.tobytes()
    assert [without_seconds(r) for r in records] == [without_seconds(r) for r in history]


def test_an_epoch_in_pieces_is_the_epoch_in_one(build):
    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer="adam", batch_size=5, metrics=("accuracy",))
    pieces = [trainer.epoch(X, LABELS, steps=steps) for steps in (1, 2, 1, 100)]
    whole = gpunn.Trainer(other, loss="cross_entropy", optimizer="adam", batch_size=5, metrics=("accuracy",))
    record = whole.epoch(X, LABELS)
    assert net.theta.tobytes() == other.theta.tobytes()
    assert [piece.get("partial") for piece in pieces] == [True, True, True, None]
    assert [piece["samples"] for piece in pieces] == [5, 15, 20, N]
    assert [piece["updates"] for piece in pieces] == [1, 3, 4, 5]
    assert [piece["epoch"] for piece in pieces] == [1, 1, 1, 1]
    assert without_seconds(pieces[-1]) == without_seconds(record)


def test_a_partial_record_is_the_mean_over_the_minibatches_so_far(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy", optimizer=gpunn.SGD(lr=1e-12), batch_size=5)
    order = np.random.default_rng([1, 1, 0]).permutation(N)[:10]
    expected = trainer.evaluate(X[order], LABELS[order])["loss"]
    assert trainer.epoch(X, LABELS, steps=2)["loss"] == pytest.approx(expected, rel=1e-9)


def test_as_many_steps_as_an_epoch_has_end_it(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy", batch_size=5)
    assert "partial" not in trainer.epoch(X, LABELS, steps=5)
    assert trainer.epochs_done == 1


def test_evaluating_between_two_pieces_of_an_epoch_changes_nothing(build):
    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer="adam", batch_size=5, metrics=("accuracy",))
    trainer.epoch(X, LABELS, steps=2)
    trainer.evaluate(X, LABELS)
    record = trainer.epoch(X, LABELS)
    whole = gpunn.Trainer(other, loss="cross_entropy", optimizer="adam", batch_size=5, metrics=("accuracy",))
    assert without_seconds(record) == without_seconds(whole.epoch(X, LABELS))
    assert net.theta.tobytes() == other.theta.tobytes()


# ------------------------------------------------------------------ single steps


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("y", [LABELS, DENSE], ids=["labels", "targets"])
@pytest.mark.parametrize(("optimizer", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_over_the_minibatches_of_an_epoch_are_the_epoch(build, optimizer, update, y, weights):
    net, other = build(), build()
    how = {"loss": "cross_entropy", "optimizer": optimizer(l2=0.1), "batch_size": 5}
    trainer = gpunn.Trainer(net, **how)
    batches = np.split(np.random.default_rng([1, 1, 0]).permutation(N), [5, 10, 15, 20])
    chosen = [None if weights is None else weights[rows] for rows in batches]
    steps = [trainer.step(X[r], y[r], sample_weight=w) for r, w in zip(batches, chosen, strict=True)]
    gpunn.Trainer(other, **how).epoch(X, y, sample_weight=weights)
    assert len(steps) == trainer.updates == 5
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_the_loss_of_a_step_is_the_cost_before_its_update(build, size):
    net = build()
    before = net.evaluate(X[:size], LABELS[:size], loss="cross_entropy")["loss"]
    loss = gpunn.Trainer(net, loss="cross_entropy", batch_size=5).step(X[:size], LABELS[:size])
    assert float(loss) == pytest.approx(before, rel=1e-12)
    assert net.evaluate(X[:size], LABELS[:size])["loss"] < before


def test_the_loss_of_a_step_prints_as_a_number(build):
    loss = gpunn.Trainer(build(), loss="cross_entropy").step(X, LABELS)
    assert repr(loss) == f"StepLoss({float(loss):.6g})"


def test_a_loss_read_in_time_stays(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy")
    loss = trainer.step(X, LABELS)
    value = float(loss)
    trainer.step(X, LABELS)
    assert float(loss) == value


def test_a_loss_not_read_in_time_says_that_it_is_gone(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy")
    loss = trainer.step(X, LABELS)
    trainer.step(X, LABELS)
    with pytest.raises(gpunn.ArgumentError, match=r"loss of step 1 is gone.*step 2.*before the next step"):
        float(loss)


def test_an_epoch_overwrites_the_loss_of_a_step_too(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy")
    loss = trainer.step(X, LABELS)
    trainer.epoch(X, LABELS)
    with pytest.raises(gpunn.ArgumentError, match="is gone"):
        float(loss)


def test_evaluating_does_not_overwrite_the_loss_of_a_step(build):
    net = build()
    before = net.evaluate(X, LABELS, loss="cross_entropy")["loss"]
    trainer = gpunn.Trainer(net, loss="cross_entropy")
    loss = trainer.step(X, LABELS)
    trainer.evaluate(X[:3], LABELS[:3])
    assert float(loss) == pytest.approx(before, rel=1e-12)


def test_a_step_larger_than_the_batch_is_refused(build):
    trainer = gpunn.Trainer(build(), loss="cross_entropy", batch_size=5)
    with pytest.raises(gpunn.ShapeError, match=r"6 examples.*batch size is 5.*epoch\(\)"):
        trainer.step(X[:6], LABELS[:6])
    assert trainer.updates == 0


def test_steps_of_many_sizes_one_after_the_other(build):
    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", batch_size=N)
    sizes = [*range(1, N + 1), *range(N, 0, -1)]
    for size in sizes:
        trainer.step(X[:size], LABELS[:size])
        gpunn.Trainer(other, loss="cross_entropy").step(X[:size], LABELS[:size])
    assert trainer.updates == len(sizes)
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_a_trainer_trains_its_own_network_and_goes_on_alike(build, copied):
    trainer = gpunn.Trainer(build(), loss="cross_entropy", optimizer="adam", batch_size=5)
    trainer.epoch(X, LABELS, steps=3)
    before = trainer.network.theta.tobytes()
    twin = copied(trainer)
    record = twin.epoch(X, LABELS)
    assert trainer.network.theta.tobytes() == before
    assert without_seconds(record) == without_seconds(trainer.epoch(X, LABELS))
    assert twin.network.theta.tobytes() == trainer.network.theta.tobytes() != before


def test_a_step_in_the_middle_of_an_epoch_does_not_enter_its_record(build):
    how = {
        "loss": "cross_entropy",
        "optimizer": gpunn.SGD(lr=1e-12),
        "batch_size": 5,
        "metrics": ("accuracy",),
    }
    trainer = gpunn.Trainer(build(), **how)
    trainer.epoch(X, LABELS, steps=2)
    trainer.step(X[:1], [(LABELS[0] + 1) % N_OUT])
    record = trainer.epoch(X, LABELS)
    expected = gpunn.Trainer(build(), **how).epoch(X, LABELS)
    assert record["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    assert record["accuracy"] == expected["accuracy"]


# ------------------------------------------------------------------ callbacks


class Diary(gpunn.Callback):
    """Notes what it is told."""

    def __init__(self):
        self.notes = []

    def on_fit_begin(self, trainer):
        self.notes.append("begin")

    def on_epoch_end(self, trainer, record):
        self.notes.append((record["epoch"], trainer.epochs_done, len(trainer.history)))

    def on_fit_end(self, trainer):
        self.notes.append("end")


class Stop(Exception):
    """Raised by a callback."""


def raise_stop(trainer, record):
    raise Stop


def test_a_callback_is_told_of_the_beginning_of_each_epoch_and_of_the_end(build):
    diary = Diary()
    build().fit(X, LABELS, loss="cross_entropy", epochs=2, callbacks=[diary], verbose=0)
    assert diary.notes == ["begin", (1, 1, 1), (2, 2, 2), "end"]


def test_a_callback_is_told_of_the_end_of_no_epochs(build):
    diary = Diary()
    build().fit(X, LABELS, loss="cross_entropy", epochs=0, callbacks=[diary], verbose=0)
    assert diary.notes == ["begin", "end"]


def test_a_callback_that_overrides_nothing_does_nothing(build):
    assert len(build().fit(X, LABELS, loss="cross_entropy", callbacks=[gpunn.Callback()], verbose=0)) == 1


def test_a_function_can_add_to_the_record(build):
    def note(trainer, record):
        record["norm"] = float(np.linalg.norm(trainer.network.theta))

    net = build()
    history = net.fit(X, LABELS, loss="cross_entropy", epochs=2, callbacks=[note], verbose=0)
    assert history["norm"][-1] == np.linalg.norm(net.theta)


def test_callbacks_see_what_callbacks_before_them_added(build):
    def first(trainer, record):
        record["number"] = 1

    def second(trainer, record):
        record["number"] += 1

    history = build().fit(X, LABELS, loss="cross_entropy", callbacks=(first, second), verbose=0)
    assert history["number"] == [2]


def test_a_callback_can_stop_the_training(build):
    def stop_at_two(trainer, record):
        trainer.stop = record["epoch"] == 2

    history = build().fit(X, LABELS, loss="cross_entropy", epochs=9, callbacks=[stop_at_two], verbose=0)
    assert history["epoch"] == [1, 2]


def test_a_trainer_that_was_stopped_can_go_on(build):
    def stop(trainer, record):
        trainer.stop = True

    net, other = build(), build()
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer="adam")
    trainer.fit(X, LABELS, epochs=5, callbacks=[stop], verbose=0)
    trainer.fit(X, LABELS, epochs=2, verbose=0)
    other.fit(X, LABELS, loss="cross_entropy", optimizer="adam", epochs=3, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_a_callback_that_raises_leaves_everything_usable(build):
    net, other, diary = build(), build(), Diary()
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer="adam")
    with pytest.raises(Stop):
        trainer.fit(X, LABELS, epochs=5, callbacks=[raise_stop, diary], verbose=0)
    assert diary.notes == ["begin", "end"]
    assert (trainer.epochs_done, trainer.history["epoch"]) == (1, [1])
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    other.fit(X, LABELS, loss="cross_entropy", optimizer="adam", epochs=2, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_a_callback_that_raises_before_the_first_epoch_changes_nothing(build):
    class Broken(gpunn.Callback):
        def on_fit_begin(self, trainer):
            raise Stop

    net = build()
    before = net.theta.tobytes()
    with pytest.raises(Stop):
        net.fit(X, LABELS, loss="cross_entropy", callbacks=[Broken()], verbose=0)
    assert net.theta.tobytes() == before


def test_a_callback_can_train_and_evaluate_another_network(build):
    other = build(seed=2)

    def train_other(trainer, record):
        other.fit(X, LABELS, loss="cross_entropy", verbose=0)

    net, alone = build(), build()
    net.fit(X, LABELS, loss="cross_entropy", epochs=2, callbacks=[train_other], verbose=0)
    alone.fit(X, LABELS, loss="cross_entropy", epochs=2, verbose=0)
    assert net.theta.tobytes() == alone.theta.tobytes()


@pytest.mark.parametrize(
    "number", [np.float32(0.5), np.int64(3), np.bool_(True)], ids=lambda n: type(n).__name__
)
def test_a_numpy_number_that_a_callback_adds_can_be_saved(build, tmp_path, number):
    def note(trainer, record):
        record["note"] = number

    trainer = gpunn.Trainer(build(), loss="cross_entropy")
    history = trainer.fit(X, LABELS, callbacks=[note], verbose=0)
    history.save(tmp_path / "history.json")
    trainer.save(tmp_path / "run.safetensors")
    assert gpunn.History.load(tmp_path / "history.json")["note"] == [number]
    assert gpunn.Trainer.load(tmp_path / "run.safetensors").history["note"] == [number]


@pytest.mark.parametrize(
    ("key", "value"), [("accuracy_per_class", [0.1, 0.2]), ("loss_note", "low"), ("best_loss", None)]
)
def test_what_a_callback_adds_need_not_be_a_number(build, key, value):
    def note(trainer, record):
        record[key] = value

    history = build().fit(X, LABELS, loss="cross_entropy", callbacks=[note], verbose=1)
    assert history[key] == [value]


# ------------------------------------------------------------------ what a person sees


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_silence_is_silent(build, capfd):
    build().fit(X, LABELS, loss="cross_entropy", epochs=3, validation_data=(X, LABELS), verbose=0)
    assert capfd.readouterr() == ("", "")


def test_a_line_an_epoch_goes_to_stderr(build, capfd):
    build().fit(X, LABELS, loss="cross_entropy", epochs=12, metrics=("accuracy",), verbose=1)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line.split("  loss")[0] for line in lines[:2]] == ["epoch  1/12", "epoch  2/12"]
    assert len(lines) == 12
    assert all("accuracy" in line and "samples/s" in line for line in lines)


def test_the_lines_of_a_second_fit_of_one_trainer_go_on_counting(build, capfd):
    trainer = gpunn.Trainer(build(), loss="cross_entropy")
    trainer.fit(X, LABELS, epochs=2, verbose=0)
    trainer.fit(X, LABELS, epochs=1, verbose=1)
    assert capfd.readouterr().err.startswith("epoch 3/3")


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(build, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    build().fit(X, LABELS, loss="cross_entropy", epochs=2, metrics=("accuracy",), verbose=1)
    shown = terminal.getvalue()
    assert "epoch 2/2" in shown
    assert "100%" in shown
    assert shown.rsplit("\r", 1)[-1].strip() == ""


def test_training_without_any_stderr_works(build, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(build().fit(X, LABELS, loss="cross_entropy")) == 1


# ------------------------------------------------------------------ reproducibility

SCRIPT = """
import hashlib
import numpy as np
import gpunn

rng = np.random.default_rng(0)
X, y = rng.standard_normal((200, 20)), rng.integers(0, 3, 200)
layers = [gpunn.Dense(30, activation="relu"), gpunn.Dense(3)]
net = gpunn.Sequential(layers, input_shape=20, seed=1)
net.fit(X, y, loss="cross_entropy", optimizer="adam", epochs=2, verbose=0)
print(hashlib.sha256(net.theta.tobytes()).hexdigest())
"""


def run_script():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_same_seed_trains_to_the_same_bytes(build, device):
    nets = [build(dtype="float32", seed=9) for _ in range(2)]
    losses = [
        net.fit(X, LABELS, loss="cross_entropy", optimizer="adam", batch_size=4, epochs=3, verbose=0)["loss"]
        for net in nets
    ]
    assert losses[0] == losses[1]
    assert nets[0].theta.tobytes() == nets[1].theta.tobytes()


def test_two_processes_train_to_the_same_bytes():
    namespace: dict = {"print": lambda text: namespace.update(digest=text)}
    exec(SCRIPT, namespace)
    assert run_script() == run_script() == namespace["digest"]
    assert namespace["digest"] == hashlib.sha256(namespace["net"].theta.tobytes()).hexdigest()


def test_another_seed_shuffles_otherwise(build):
    net, other = build(seed=1), build(seed=2)
    other.theta = net.theta
    how = {"loss": "cross_entropy", "batch_size": 4, "verbose": 0}
    net.fit(X, LABELS, **how)
    other.fit(X, LABELS, **how)
    assert net.theta.tobytes() != other.theta.tobytes()


def test_without_shuffling_the_seed_does_not_matter(build):
    net, other = build(seed=1), build(seed=2)
    other.theta = net.theta
    how = {"loss": "cross_entropy", "batch_size": 4, "shuffle": False, "verbose": 0}
    net.fit(X, LABELS, **how)
    other.fit(X, LABELS, **how)
    assert net.theta.tobytes() == other.theta.tobytes()


def test_numpys_own_random_state_is_neither_used_nor_changed(build):
    np.random.seed(0)  # noqa: NPY002
    first = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    build(seed=None).fit(X, LABELS, loss="cross_entropy", verbose=0)
    assert np.random.random() == first  # noqa: NPY002


# ------------------------------------------------------------------ History


def test_a_history_comes_back_from_its_file(build, tmp_path):
    path = tmp_path / "history.json"
    history = build().fit(X, LABELS, loss="cross_entropy", epochs=2, verbose=0)
    history.save(path)
    again = gpunn.History.load(path)
    assert (again.records, again.about) == (history.records, history.about)


def test_a_history_with_a_loss_that_is_not_finite_comes_back(tmp_path):
    gpunn.History([{"epoch": 1, "loss": float("inf")}]).save(tmp_path / "history.json")
    assert gpunn.History.load(tmp_path / "history.json")["loss"] == [float("inf")]


@pytest.mark.parametrize(
    "content", ["", "[", "[]", "{}", '{"epochs": 3}', '{"epochs": [1]}', "null", "\x00", "\udcff"]
)
def test_a_damaged_history_is_refused(tmp_path, content):
    path = tmp_path / "history.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(gpunn.FormatError, match=r"history.json is not a history"):
        gpunn.History.load(path)


def test_the_best_epoch_has_the_lowest_loss_or_the_highest_metric():
    history = gpunn.History(
        [
            {"epoch": 1, "val_loss": 3.0, "accuracy": 0.9},
            {"epoch": 2, "val_loss": 1.0, "accuracy": 0.5},
            {"epoch": 3, "val_loss": 2.0},
        ]
    )
    assert history.best("val_loss")["epoch"] == 2
    assert history.best("accuracy")["epoch"] == 1
    assert history["accuracy"] == [0.9, 0.5, None]


@pytest.mark.parametrize("losses", [[float("nan"), 1.0], [1.0, float("nan")]], ids=["first", "last"])
def test_an_epoch_whose_loss_is_nan_is_never_the_best(losses):
    assert gpunn.History([{"loss": loss} for loss in losses]).best("loss") == {"loss": 1.0}


def test_the_best_of_numbers_that_are_numpys():
    history = gpunn.History([{"norm": np.float32(1)}, {"norm": np.float32(3)}, {"norm": np.int64(2)}])
    assert history.best("norm", lower=False) == {"norm": 3}
    assert history.best("norm", lower=True) == {"norm": 1}


def test_nobody_guesses_whether_less_is_better():
    with pytest.raises(gpunn.ArgumentError, match="nobody knows whether less of 'norm' is better"):
        gpunn.History([{"norm": 1.0}]).best("norm")


@pytest.mark.parametrize("key", ["rmse", "val_mse", "val_mape", "error", "val_loss", "mae", "penalty"])
def test_less_of_an_error_is_better_by_any_name(key):
    assert gpunn.History([{key: 2.0}, {key: 1.0}, {key: 3.0}]).best(key) == {key: 1.0}


def test_where_no_epoch_has_a_finite_loss_none_is_the_best():
    with pytest.raises(gpunn.ArgumentError, match=r"no epoch .*finite 'loss'"):
        gpunn.History([{"loss": float("nan")}, {"loss": float("inf")}]).best("loss")


def test_a_history_knows_what_it_holds():
    history = gpunn.History([{"epoch": 1, "loss": 1.0}])
    assert ("loss" in history, "val_loss" in history) == (True, False)


@pytest.mark.parametrize("ask", [lambda h: h["los"], lambda h: h.best("los")], ids=["item", "best"])
def test_an_unknown_entry_is_answered_with_the_nearest(ask):
    with pytest.raises(gpunn.UnknownNameError, match="'los': did you mean 'loss'"):
        ask(gpunn.History([{"loss": 1.0}]))


def test_a_history_prints_a_line_an_epoch():
    history = gpunn.History([{"epoch": 1, "loss": 0.123456789}, {"epoch": 2, "loss": 0.5}])
    assert repr(history) == "epoch 1  loss 0.123457\nepoch 2  loss 0.5"
    assert repr(gpunn.History()) == "no epochs yet"


# ------------------------------------------------------------------ an order of one's own


def test_a_function_may_give_the_order_of_each_epoch(build):
    orders = [np.random.default_rng(i).permutation(N) for i in range(3)]
    drawn = iter(orders)
    net, by_hand = build(), build()
    net.fit(X, LABELS, loss="cross_entropy", batch_size=5, epochs=3, shuffle=lambda n: next(drawn), verbose=0)
    trainer = gpunn.Trainer(by_hand, loss="cross_entropy", batch_size=5)
    for order in orders:
        trainer.fit(X[order], LABELS[order], epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(net.theta, by_hand.theta, rtol=1e-12)


def test_an_epoch_that_was_stopped_keeps_the_order_that_it_was_given(build, tmp_path):
    def shuffled():
        rng = np.random.default_rng(0)
        return lambda n: rng.permutation(n)

    straight, broken = (gpunn.Trainer(build(), loss="cross_entropy", batch_size=5) for _ in range(2))
    straight.epoch(X, LABELS, shuffle=shuffled())
    order = shuffled()
    broken.epoch(X, LABELS, shuffle=order, steps=2)
    broken.save(tmp_path / "run.safetensors")
    broken.epoch(X, LABELS, shuffle=order)
    np.testing.assert_array_equal(broken.network.theta, straight.network.theta)
    with pytest.raises(gpunn.ArgumentError, match="came from a function, and files do not keep it"):
        gpunn.Trainer.load(tmp_path / "run.safetensors").epoch(X, LABELS, shuffle=order)


@pytest.mark.parametrize("order", [np.arange(3), np.arange(N) / 2, np.zeros((N, 1), int)])
def test_an_order_that_is_none_is_refused(build, order):
    with pytest.raises(gpunn.ArgumentError, match=rf"expected the places of the {N} examples"):
        build().fit(X, LABELS, loss="cross_entropy", shuffle=lambda n: order, verbose=0)
    with pytest.raises(gpunn.ShapeError, match="places of the"):
        build().fit(X, LABELS, loss="cross_entropy", shuffle=lambda n: np.arange(n) + 1, verbose=0)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_the_objective_of_other_optimisers_is_cost_and_gradient(build, weights):
    net = build()
    objective = net.objective(X, ONE_HOT, loss="quadratic", sample_weight=weights)
    theta = np.random.default_rng(0).standard_normal(net.theta.size)
    cost, gradient = objective(theta)
    np.testing.assert_array_equal(net.theta, theta)
    found = net.evaluate(X, ONE_HOT, loss="quadratic", sample_weight=weights)["loss"]
    assert cost == pytest.approx(found, rel=1e-12)
    for i in range(0, theta.size, 7):
        step = np.zeros_like(theta)
        step[i] = 1e-6
        slope = (objective(theta + step)[0] - objective(theta - step)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)
