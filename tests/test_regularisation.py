"""Penalties, decay, clipping and every optimiser through whole trainings, against a loop written by hand."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn

N, BATCH, EPOCHS, LR = 23, 5, 3, 0.05
X = np.random.default_rng(3).standard_normal((N, 4))
T = np.random.default_rng(4).standard_normal((N, 3))


@pytest.fixture
def start(device):
    """Make a trainer of a small network whose biases are far from 0, always from the same seed."""

    def trainer(optimizer, dtype="float64", **kwargs):
        layers = [gpunn.Dense(6, activation="tanh", bias="normal"), gpunn.Dense(3, bias="normal")]
        net = gpunn.Sequential(layers, input_shape=4, device=device, dtype=dtype, seed=1)
        return gpunn.Trainer(
            net, **{"loss": "quadratic", "optimizer": optimizer, "batch_size": BATCH, **kwargs}
        )

    return trainer


# ------------------------------------------------------------------ the loop by hand


def gradients(parts, x, t):
    """The four equations for tanh, identity and the quadratic cost: the cost, and ∂C of W0, b0, W1, b1."""
    W0, b0, W1, b1 = parts
    a = np.tanh(x @ W0.T + b0)
    error = a @ W1.T + b1 - t
    delta = error / len(x)
    delta_0 = (delta @ W1) * (1 - a * a)
    cost = 0.5 * (error * error).sum() / len(x)
    return cost, [delta_0.T @ x, delta_0.sum(axis=0), delta.T @ a, delta.sum(axis=0)]


def sgd(state, g, t, lr):
    return -lr * g


def momentum(state, g, t, lr):
    state["v"] = 0.9 * state.get("v", 0) - lr * g
    return state["v"]


def nesterov(state, g, t, lr):
    """The velocity of the next step already, from where the momentum will have led."""
    momentum(state, g, t, lr)
    return 0.9 * state["v"] - lr * g


def adam(state, g, t, lr):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return -lr * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


def rmsprop(state, g, t, lr):
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * g * g
    return -lr * g / (np.sqrt(state["v"]) + 1e-8)


def adagrad(state, g, t, lr):
    state["v"] = state.get("v", 0) + g * g
    return -lr * g / (np.sqrt(state["v"]) + 1e-10)


OPTIMIZERS = {
    "SGD": (gpunn.SGD, {}, sgd),
    "momentum": (gpunn.SGD, {"momentum": 0.9}, momentum),
    "Nesterov": (gpunn.SGD, {"momentum": 0.9, "nesterov": True}, nesterov),
    "Adam": (gpunn.Adam, {}, adam),
    "AdamW": (gpunn.AdamW, {}, adam),
    "RMSprop": (gpunn.RMSprop, {}, rmsprop),
    "Adagrad": (gpunn.Adagrad, {}, adagrad),
}
TERMS = {
    "nothing": {},
    "l1": {"l1": 0.02},
    "l2": {"l2": 0.1},
    "decay": {"weight_decay": 0.3},
    "clipping": {"clip_norm": 0.4},
    "all": {"l1": 0.02, "l2": 0.1, "weight_decay": 0.3, "clip_norm": 0.4},
}
every_optimizer = pytest.mark.parametrize(("kind", "extra", "rule"), OPTIMIZERS.values(), ids=OPTIMIZERS)
every_term = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def order(epochs=EPOCHS, seed=1):
    """The rows of each minibatch of each epoch."""
    for epoch in range(epochs):
        rows = np.random.default_rng([seed, 1, epoch]).permutation(N)
        yield [rows[at : at + BATCH] for at in range(0, N, BATCH)]


def by_hand(net, rule, lrs, l1=0.0, l2=0.0, weight_decay=0.0, clip_norm=None):
    """Train; returns Θ, the mean costs and the mean penalties of the epochs."""
    parts = [np.array(value) for value in net.tensors().values()]
    states = [{} for _ in parts]
    costs, penalties, t = [], [], 0
    for batches in order():
        total = extra = 0.0
        for rows in batches:
            t, lr = t + 1, lrs[t]
            cost, grads = gradients(parts, X[rows], T[rows])
            weights = [part for part in parts if part.ndim == 2]
            total += cost * len(rows)
            extra += len(rows) * sum(0.5 * l2 * (w**2).sum() + l1 * np.abs(w).sum() for w in weights)
            norm = np.sqrt(sum((grad**2).sum() for grad in grads))
            scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
            for i, grad in enumerate(grads):
                g = scale * grad
                if parts[i].ndim == 2:
                    g = g + l2 * parts[i] + l1 * np.sign(parts[i])
                    parts[i] = parts[i] - lr * weight_decay * parts[i]
                parts[i] = parts[i] + rule(states[i], g, t, lr)
        costs.append(total / N)
        penalties.append(extra / N)
    return np.concatenate([part.ravel() for part in parts]), costs, penalties


@every_optimizer
@every_term
def test_training_is_the_loop_one_would_write_by_hand(start, kind, extra, rule, terms):
    trainer = start(kind(lr=LR, **extra, **terms))
    decay = {"weight_decay": 0.01} if kind is gpunn.AdamW else {}
    theta, costs, penalties = by_hand(trainer.network, rule, [LR] * 15, **{**decay, **terms})
    records = trainer.fit(X, T, epochs=EPOCHS, verbose=0).records
    np.testing.assert_allclose(trainer.network.theta, theta, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose([record["loss"] for record in records], costs, rtol=1e-10)
    if "l1" in terms or "l2" in terms:
        np.testing.assert_allclose([record["penalty"] for record in records], penalties, rtol=1e-10)
    else:
        assert "penalty" not in records[0]


@every_optimizer
def test_a_schedule_moves_the_decay_with_the_rate(start, kind, extra, rule):
    """Decoupled decay is lr times weight_decay: a rate that falls takes both down."""
    schedule = gpunn.Exponential(0.8, unit="step")
    trainer = start(kind(lr=LR, **extra, **TERMS["all"], schedule=schedule))
    theta, _, _ = by_hand(trainer.network, rule, LR * 0.8 ** np.arange(15), **TERMS["all"])
    trainer.fit(X, T, epochs=EPOCHS, verbose=0)
    np.testing.assert_allclose(trainer.network.theta, theta, rtol=1e-10, atol=1e-13)


@every_optimizer
def test_batches_from_a_list_are_penalised_and_clipped_alike(start, kind, extra, rule):
    optimizer = kind(lr=LR, **extra, **TERMS["all"])
    whole, batches = start(optimizer), start(optimizer)
    records = whole.fit(X, T, epochs=2, shuffle=False, verbose=0).records
    parts = [(X[at : at + BATCH], T[at : at + BATCH]) for at in range(0, N, BATCH)]
    found = batches.fit(parts, epochs=2, verbose=0).records
    assert [{**record, "seconds": 0} for record in found] == [{**record, "seconds": 0} for record in records]
    assert whole.network.theta.tobytes() == batches.network.theta.tobytes()


@every_optimizer
def test_a_run_with_every_term_goes_on_as_if_it_had_never_stopped(start, tmp_path, device, kind, extra, rule):
    optimizer = kind(lr=LR, **extra, **TERMS["all"])
    stopped, expected = start(optimizer), start(optimizer)
    stopped.epoch(X, T, steps=3)
    stopped.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    assert again.optimizer == optimizer
    record, other = again.epoch(X, T), expected.epoch(X, T)
    assert {**record, "seconds": 0} == {**other, "seconds": 0}
    assert again.network.theta.tobytes() == expected.network.theta.tobytes()


# ------------------------------------------------------------------ clipping


def moved(trainer, scale=1.0):
    """How far one step over all examples moves Θ."""
    before = trainer.network.theta
    trainer.step(X[:BATCH], scale * T[:BATCH])
    return np.linalg.norm(trainer.network.theta - before)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e100])
@pytest.mark.parametrize("clip_norm", [1e-3, 0.4])
def test_a_clipped_step_is_never_longer_than_the_rate_times_the_limit(start, scale, clip_norm):
    assert moved(start(gpunn.SGD(lr=LR)), scale) > LR * clip_norm
    assert moved(start(gpunn.SGD(lr=LR, clip_norm=clip_norm)), scale) == pytest.approx(LR * clip_norm)


def test_a_gradient_below_the_limit_is_left_alone(start):
    free, limited = start(gpunn.SGD(lr=LR)), start(gpunn.SGD(lr=LR, clip_norm=1e3))
    assert moved(free) == moved(limited)
    assert free.network.theta.tobytes() == limited.network.theta.tobytes()


def test_gradients_beyond_the_square_root_of_float32_are_clipped_in_float32(start):
    """Their squares are infinite in float32."""
    trainer = start(gpunn.SGD(lr=1.0, clip_norm=0.5), "float32")
    assert moved(trainer, 1e25) == pytest.approx(0.5, rel=1e-5)


def test_a_gradient_of_zeros_is_no_division_by_zero(start):
    trainer = start(gpunn.SGD(lr=LR, clip_norm=0.5))
    t = trainer.network.predict(X[:BATCH])
    before = trainer.network.theta
    trainer.step(X[:BATCH], t)
    np.testing.assert_allclose(trainer.network.theta, before, atol=1e-15)


def test_clipping_scales_all_parameters_by_one_number(start):
    free, limited = start(gpunn.SGD(lr=LR)), start(gpunn.SGD(lr=LR, clip_norm=1e-2))
    before = free.network.theta
    moved(free)
    moved(limited)
    ratios = (limited.network.theta - before) / (free.network.theta - before)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    assert ratios[0] < 0.1


def test_the_penalty_is_not_clipped(start):
    """The limit is for the gradient of the data: at zero error the weights still shrink by lr l2 w."""
    trainer = start(gpunn.SGD(lr=LR, clip_norm=1e-9, l2=0.5))
    before = trainer.network.tensors()
    trainer.step(X[:BATCH], T[:BATCH])
    for key, value in trainer.network.tensors().items():
        factor = 1 - LR * 0.5 if key.endswith("weights") else 1
        np.testing.assert_allclose(value, before[key] * factor, rtol=1e-8)


# ------------------------------------------------------------------ what is penalised


@pytest.mark.parametrize("terms", [{"l1": 0.1}, {"l2": 0.1}, {"weight_decay": 0.1}], ids=str)
@every_optimizer
def test_weights_are_held_down_and_biases_are_not(start, kind, extra, rule, terms):
    """Targets that the network meets already: the data pull at nothing."""
    trainer = start(kind(lr=LR, **{"weight_decay": 0.0, **extra, **terms}))
    net = trainer.network
    net.parameters["layers.1.weights"] = np.zeros((3, 6))
    before = net.tensors()
    trainer.fit(X, np.tile(before["layers.1.bias"], (N, 1)), epochs=2, verbose=0)
    after = net.tensors()
    assert np.linalg.norm(after["layers.0.weights"]) < 0.999 * np.linalg.norm(before["layers.0.weights"])
    for key in ("layers.0.bias", "layers.1.bias", "layers.1.weights"):
        np.testing.assert_array_equal(after[key], before[key])


def test_l1_takes_small_weights_to_zero_and_not_far_beyond(start):
    trainer = start(gpunn.SGD(lr=0.01, l1=1.0))
    net = trainer.network
    net.parameters["layers.1.weights"] = np.zeros((3, 6))
    targets = np.tile(net.tensors()["layers.1.bias"], (N, 1))
    trainer.fit(X, targets, epochs=60, verbose=0)
    assert np.abs(net.tensors()["layers.0.weights"]).max() <= 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_of_a_record_is_that_of_the_data_alone(start, dtype):
    """One batch, so that the record is that of the first weights."""
    trainer = start(gpunn.SGD(lr=LR, l1=0.3, l2=0.7), dtype, batch_size=N)
    net = trainer.network
    weights = [value.astype(float) for key, value in net.tensors().items() if key.endswith("weights")]
    expected = sum(0.35 * (w**2).sum() + 0.3 * np.abs(w).sum() for w in weights)
    data = net.evaluate(X, T, loss="quadratic")["loss"]
    record = trainer.epoch(X, T)
    assert record["loss"] == pytest.approx(data, rel=1e-6)
    assert record["penalty"] == pytest.approx(expected, rel=1e-6)


def test_validation_and_evaluate_know_no_penalty(start):
    trainer = start(gpunn.SGD(lr=LR, l2=0.7))
    record = trainer.fit(X, T, validation_data=(X, T), verbose=0).records[0]
    assert record["val_loss"] == trainer.network.evaluate(X, T, loss="quadratic")["loss"]
    assert "val_penalty" not in record


def test_the_penalty_of_weighted_examples_is_weighted_with_them(start):
    """The rate moves nothing, so every minibatch has the same penalty."""
    weights = np.linspace(0.1, 5, N)
    trainer = start(gpunn.SGD(lr=1e-300, l2=0.7))
    values = [value for key, value in trainer.network.tensors().items() if key.endswith("weights")]
    record = trainer.epoch(X, T, sample_weight=weights)
    assert record["penalty"] == pytest.approx(0.35 * sum((w**2).sum() for w in values), rel=1e-12)


# ------------------------------------------------------------------ the checker of gradients


def test_a_gradient_that_is_far_below_the_cost_is_no_disagreement(start):
    """A cost of 1e12 is rounded by 1e-4: differences see nothing of the gradient of a slight weight."""
    net = start("sgd").network
    net.theta = net.theta * 1e-3
    assert gpunn.gradcheck(net, X * 1e-9, T * 1e6, loss="quadratic").passed


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_a_gradient_that_is_wrong_is_found_whatever_the_size_of_the_cost(start, monkeypatch, scale):
    net = start("sgd").network
    honest = gpunn.Sequential.gradients

    def wrong(self, *args, **kwargs):
        found = honest(self, *args, **kwargs)
        return {**found, "layers.0.bias": found["layers.0.bias"] * 1.05}

    assert gpunn.gradcheck(net, X, T * scale, loss="quadratic").passed
    monkeypatch.setattr(gpunn.Sequential, "gradients", wrong)
    check = gpunn.gradcheck(net, X, T * scale, loss="quadratic")
    assert not check.passed
    assert [key for key, error in check.errors.items() if error > check.bounds[key]] == ["layers.0.bias"]


@pytest.mark.parametrize("step", [0, -1e-5, 1e-9, 1e-300, 2, float("nan"), float("inf")])
def test_steps_with_which_nothing_could_be_found_are_refused(start, step):
    with pytest.raises(gpunn.ArgumentError, match=r"step is .*, expected a small number such as 1e-5"):
        gpunn.gradcheck(start("sgd").network, X, T, loss="quadratic", step=step)


@pytest.mark.parametrize(
    ("terms", "expected"), [({"l1": 1e-11}, 3e19 * 1e-11), ({"l2": 1e-30}, 0.5e-30 * 9e38)], ids=str
)
def test_a_penalty_of_large_weights_is_finite(start, terms, expected):
    net = start("sgd").network.to("numpy", "float32")
    net.theta = np.zeros(net.layout.count)
    weights = np.zeros(net.parameters["layers.0.weights"].shape)
    weights[0, 0] = 3e19
    net.parameters["layers.0.weights"] = weights
    trainer = gpunn.Trainer(net, loss="mse", optimizer=gpunn.SGD(lr=1e-30, **terms), batch_size=N)
    np.testing.assert_allclose(trainer.epoch(X * 0, T)["penalty"], expected, rtol=1e-6)
