"""Philox and dropout: the mask is a function of (seed, step, layer) alone, and off outside training."""

from __future__ import annotations

import copy

import numpy as np
import oracle
import pytest
from references import philox_word

import gpunn
from gpunn import philox as generator
from gpunn.backends.numpy import forward as kernels
from gpunn.losses import loss_named
from gpunn.philox import BLOCK, keep, key_of, philox, threshold
from gpunn.slots import Role

N, BATCH, PER_EPOCH = 23, 5, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
DENSE = np.random.default_rng(5).standard_normal((N, 3))
LAYERS = (gpunn.Dense(6, activation="tanh"), gpunn.Dropout(0.4), gpunn.Dense(3))


@pytest.fixture
def build(device):
    """Make a network of those layers, always from the same seed."""

    def network(*layers, input_shape=4, dtype="float64", seed=1):
        return gpunn.Sequential(layers or LAYERS, input_shape, device=device, dtype=dtype, seed=seed)

    return network


@pytest.fixture
def start(build):
    """Make a trainer of such a network."""

    def trainer(*layers, input_shape=4, dtype="float64", seed=1, **kwargs):
        how = {"loss": "cross_entropy", "optimizer": gpunn.SGD(lr=0.2, momentum=0.9), "batch_size": BATCH}
        return gpunn.Trainer(
            build(*layers, input_shape=input_shape, dtype=dtype, seed=seed), **{**how, **kwargs}
        )

    return trainer


@pytest.fixture
def drawn(monkeypatch, device):
    """Every mask that the NumPy backend draws: ((step, layer, shape), bytes), in order."""
    if device != "numpy":
        pytest.skip("only the NumPy backend draws its masks where they can be seen")
    masks = []

    def spied(key, step, layer, rate, mask):
        keep(key, step, layer, rate, mask)
        masks.append(((step, layer, mask.shape), mask.tobytes()))

    monkeypatch.setattr(kernels, "keep", spied)
    return masks


def mask_of(seed=0, step=0, layer=0, rate=0.5, shape=(64, 3)):
    mask = np.empty(shape, bool)
    keep(key_of(seed), step, layer, rate, mask)
    return mask


def outcome(trainer):
    """Θ byte for byte, the counters, the history but its seconds."""
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    return trainer.network.theta.tobytes(), trainer.updates, trainer.epochs_done, records


# ------------------------------------------------------------------ Philox

ONES = 0xFFFFFFFF
VECTORS = {
    "zeros": ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS.values(), ids=VECTORS)
def test_philox_gives_the_words_that_its_authors_publish(counter, key, words):
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == words


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS.values(), ids=VECTORS)
def test_philox_of_arrays_gives_the_same_words_in_each_place(counter, key, words):
    arrays = philox(tuple(np.full(3, word, np.uint64) for word in counter), key)
    assert [" ".join(f"{int(word[i]):08x}" for word in arrays) for i in range(3)] == [words] * 3


@pytest.mark.parametrize("step", [0, 1, 2**31, 2**32 - 1, 2**32, 2**40 + 7])
@pytest.mark.parametrize("layer", [0, 1, 1000])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 31])
def test_a_mask_is_what_whole_numbers_of_python_give(step, layer, size):
    words = [philox_word(i, key_of(9), [step], layer) for i in range(size)]
    assert mask_of(9, step, layer, 0.3, (size,)).tolist() == [word >= round(0.3 * 2**32) for word in words]


@pytest.mark.parametrize("extra", [-3, -1, 0, 1, 2, 4])
def test_a_mask_goes_on_over_the_end_of_a_block(extra):
    size = 4 * BLOCK + extra
    mask = mask_of(9, 3, 1, 0.3, (size,))
    words = [philox_word(i, key_of(9), [3], 1) for i in range(size - 9, size)]
    assert mask[-9:].tolist() == [word >= round(0.3 * 2**32) for word in words]


@pytest.mark.parametrize("block", [1, 3])
def test_a_mask_does_not_depend_on_the_size_of_a_block(monkeypatch, block):
    expected = mask_of(shape=(5, 7))
    monkeypatch.setattr(generator, "BLOCK", block)
    np.testing.assert_array_equal(mask_of(shape=(5, 7)), expected)


def test_a_smaller_batch_has_the_first_rows_of_a_larger_one():
    np.testing.assert_array_equal(mask_of(shape=(3, 7)), mask_of(shape=(5, 7))[:3])


HUGE = 2**200 + 1
OTHERS = {
    "step": {"step": 6},
    "a step 2^32 later": {"step": 5 + 2**32},
    "layer": {"layer": 3},
    "seed": {"seed": 8},
    "a seed 2^32 higher": {"seed": 7 + 2**32},
    "a huge seed": {"seed": HUGE},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_masks_of_others_share_half_of_their_elements_as_chance_would(other):
    here = {"seed": 7, "step": 5, "layer": 2, "shape": (4096,)}
    same = np.mean(mask_of(**here) == mask_of(**{**here, **other}))
    assert abs(same - 0.5) < 5 * 0.5 / 64


def test_huge_seeds_that_differ_in_their_lowest_bit_differ():
    assert mask_of(HUGE).tobytes() == mask_of(HUGE).tobytes() != mask_of(HUGE + 1).tobytes()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.75, 0.99])
def test_the_share_of_zeros_is_the_rate(rate):
    size = 200_000
    zeros = size - np.count_nonzero(mask_of(3, 11, 0, rate, (size,)))
    assert abs(zeros / size - rate) < 5 * np.sqrt(rate * (1 - rate) / size)


def test_zeros_come_in_each_row_and_column_alike():
    mask = mask_of(shape=(512, 512))
    limit = 5 * 0.5 / np.sqrt(512)
    assert np.abs(mask.mean(axis=0) - 0.5).max() < limit
    assert np.abs(mask.mean(axis=1) - 0.5).max() < limit


@pytest.mark.parametrize(("rate", "least"), [(0.0, 0), (0.25, 2**30), (0.5, 2**31), (0.1, 429496730)])
def test_the_threshold_is_the_rate_in_words(rate, least):
    assert threshold(rate) == least


# ------------------------------------------------------------------ the layer


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", None, True, [0.5], 1j])
def test_a_rate_that_is_no_probability_below_1_is_refused(rate):
    with pytest.raises(gpunn.ArgumentError, match=r"Dropout: rate is .*, expected at least 0 and below 1"):
        gpunn.Dropout(rate)


@pytest.mark.parametrize("rate", [0.25, np.float32(0.25), np.array(0.25)], ids=["float", "float32", "array"])
def test_a_rate_is_kept_as_a_plain_number(rate):
    assert type(gpunn.Dropout(rate).rate) is float
    assert gpunn.Dropout(rate) == gpunn.Dropout(0.25)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_kept_is_divided_by_its_share(build, dtype):
    net = build(gpunn.Dropout(0.75), gpunn.Dense(2), dtype=dtype)
    program = net.model.forward(BATCH, training=True)
    program.pin("x", program.ops[0].outs[0])
    memory = {**net.memory, "key": net.backend.zeros((2,), "int64"), "step": net.backend.zeros((1,), "int64")}
    runner = net.backend.load(program, memory, keep_all=True)
    net.backend.assign(memory["key"], key_of(1))
    runner.write("x", X[:BATCH])
    runner.run()
    y, mask = (runner.read(slot) for slot in program.ops[0].outs)
    np.testing.assert_array_equal(mask, mask_of(1, 0, 0, 0.75, (BATCH, 4)))
    np.testing.assert_array_equal(y, np.where(mask, X[:BATCH].astype(dtype) * 4, 0))
    assert 0 < mask.sum() < mask.size


def test_a_rate_of_0_leaves_no_trace_in_the_program(start, build):
    program = build(gpunn.Dense(3), gpunn.Dropout(0)).program(loss="mse")
    assert [op.name for op in program.ops if "dropout" in op.name] == []
    trainer, without = start(LAYERS[0], gpunn.Dropout(0), LAYERS[2]), start(LAYERS[0], LAYERS[2])
    assert without.fit(X, LABELS, verbose=0)["loss"] == trainer.fit(X, LABELS, verbose=0)["loss"]


@pytest.mark.parametrize("kind", ["predict", "evaluate", "gradients", "errors", "jacobian"])
def test_outside_training_dropout_is_off(build, kind):
    """The twin without the layer has the same parameters, drawn in the same order."""
    with_dropout, twin = build(), build(LAYERS[0], LAYERS[2])
    twin.theta = with_dropout.theta
    how = {
        "predict": lambda net: net.predict(X),
        "evaluate": lambda net: list(net.evaluate(X, LABELS, loss="cross_entropy").values()),
        "gradients": lambda net: list(net.gradients(X, LABELS, loss="cross_entropy").values()),
        "errors": lambda net: list(net.errors(X, LABELS, loss="cross_entropy").values()),
        "jacobian": lambda net: net.jacobian(X[0]),
    }[kind]
    found, expected = (np.concatenate([np.ravel(part) for part in how(net)]) for net in (with_dropout, twin))
    np.testing.assert_array_equal(found, expected)


def test_validation_is_without_dropout(start):
    trainer = start()
    record = trainer.fit(X, LABELS, validation_data=(X, LABELS), verbose=0).records[0]
    assert record["val_loss"] == trainer.network.evaluate(X, LABELS, loss="cross_entropy")["loss"]


def test_a_network_with_dropout_is_saved_and_loaded(build, tmp_path, device):
    net = build()
    net.save(tmp_path / "net.safetensors")
    again = gpunn.load(tmp_path / "net.safetensors", device=device)
    assert again.layers == net.layers
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


@pytest.mark.parametrize(
    ("last", "loss", "link"),
    [
        ("softmax", "cross_entropy", "softmax"),
        ("tanh", "cross_entropy", "softmax"),
        ("sigmoid", "binary_cross_entropy", "sigmoid"),
    ],
)
def test_dropout_behind_the_activation_that_a_loss_takes_into_itself_is_refused(start, last, loss, link):
    message = rf"layer 1 Dropout: loss '{loss}' works on z and applies {link} itself.*'{last}'.*before"
    with pytest.raises(gpunn.ArgumentError, match=message):
        start(gpunn.Dense(3, activation=last), gpunn.Dropout(0.5), loss=loss)


# ------------------------------------------------------------------ its gradient

SHAPED = {
    "between": (LAYERS, 4),
    "first": ((gpunn.Dropout(0.3), gpunn.Dense(3)), 4),
    "last": ((gpunn.Dense(3), gpunn.Dropout(0.3)), 4),
    "after an activation": (
        (gpunn.Dense(6), gpunn.Activation("sigmoid"), gpunn.Dropout(0.3), gpunn.Dense(3)),
        4,
    ),
    "after one that keeps z": ((gpunn.Dense(6, activation="silu"), gpunn.Dropout(0.3), gpunn.Dense(3)), 4),
    "before an activation": (
        (gpunn.Dense(6), gpunn.Dropout(0.3), gpunn.Activation("tanh"), gpunn.Dense(3)),
        4,
    ),
    "before Flatten": ((gpunn.Dropout(0.3), gpunn.Flatten(), gpunn.Dense(3)), (2, 2)),
    "twice": ((gpunn.Dense(6), gpunn.Dropout(0.3), gpunn.Dropout(0.5), gpunn.Dense(3)), 4),
    "everywhere": (
        (gpunn.Dropout(0.2), LAYERS[0], gpunn.Dropout(0.3), gpunn.Dense(3), gpunn.Dropout(0.4)),
        4,
    ),
}
every_place = pytest.mark.parametrize(("layers", "shape"), SHAPED.values(), ids=SHAPED)


STEP = 2**32 + 5


@pytest.fixture
def training_step(build):
    """Make the forward and backward of seven examples in training mode, the step and so the masks fixed."""

    def prepared(layers, shape, loss, dtype="float64"):
        net = build(*layers, input_shape=shape, dtype=dtype)
        program = net.model.forward(7, "a step", training=True)
        labels = loss == "cross_entropy"
        kind = ("labels", (7,), Role.TARGET, "int64") if labels else ("t", (7, 3), Role.TARGET, dtype)
        target = program.slot(*kind)
        program.backpropagate(loss_named(loss).emit(program, program.marks["output"], target))
        memory = dict(net.memory)
        runner = net.backend.load(program, memory, keep_all=True)
        net.backend.assign(memory["key"], key_of(4))
        net.backend.assign(memory["step"], np.array([STEP]))
        runner.write("x", X[:7].reshape(7, *net.input_shape))
        runner.write(target, LABELS[:7] if labels else DENSE[:7])
        return net, runner

    return prepared


def masks(runner):
    """The masks of a program that has run, layer by layer."""
    return [runner.read(op.outs[1]) for op in runner.program.ops if op.name == "dropout"]


def differences(net, runner, key, h=1e-5):
    """Central differences of the cost by each element of a parameter."""
    value = net.tensors()[key]
    estimate = np.empty(value.size)
    for i in range(value.size):
        costs = []
        for sign in (1, -1):
            moved = value.copy()
            moved.flat[i] += sign * h
            net.parameters[key] = moved
            runner.run()
            costs.append(runner.read("loss")[0])
        estimate[i] = (costs[0] - costs[1]) / (2 * h)
    net.parameters[key] = value
    runner.run()
    return estimate.reshape(value.shape)


@every_place
@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_the_gradient_of_a_step_in_training_is_that_of_its_cost(training_step, layers, shape, loss):
    net, runner = training_step(layers, shape, loss)
    runner.run()
    drawn = [mask.tobytes() for mask in masks(runner)]
    estimates = {key: differences(net, runner, key) for key in net.parameters}
    for key, estimate in estimates.items():
        np.testing.assert_allclose(runner.read(f"grad.{key}"), estimate, atol=1e-9, rtol=1e-6)
    assert [mask.tobytes() for mask in masks(runner)] == drawn
    assert len(drawn) == sum(isinstance(layer, gpunn.Dropout) for layer in layers)


@every_place
def test_each_dropout_layer_draws_its_own_mask_for_the_step(training_step, layers, shape):
    _, runner = training_step(layers, shape, "quadratic")
    runner.run()
    rates = [layer.rate for layer in layers if isinstance(layer, gpunn.Dropout)]
    expected = [
        mask_of(4, STEP, number, rate, mask.shape)
        for number, (rate, mask) in enumerate(zip(rates, masks(runner), strict=True))
    ]
    assert [mask.tolist() for mask in masks(runner)] == [mask.tolist() for mask in expected]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_a_step_in_training_is_that_of_the_oracle_with_the_mask_read_from_its_slot(
    training_step, loss, dtype
):
    """The mask over 1 − rate scales each example's hidden units: to the oracle, a weight of its own."""
    net, runner = training_step(LAYERS, 4, loss, dtype)
    runner.run()
    W0, b0, W1, b1 = (np.array(value, float) for value in net.tensors().values())
    (mask,) = masks(runner)
    targets = np.eye(3)[LABELS[:7]] if loss == "cross_entropy" else DENSE[:7]
    last = "softmax" if loss == "cross_entropy" else "identity"
    cost, grads = 0.0, [np.zeros_like(part) for part in (W0, b0, W1, b1)]
    for x, t, scale in zip(X[:7], targets, mask / 0.6, strict=True):
        layers = [oracle.Layer(W0, b0, "tanh"), oracle.Layer(W1 * scale, b1, last)]
        one, (grad_0, grad_1), _ = oracle.backpropagate(layers, x[None], t[None], loss)
        cost += one / 7
        found = (*grad_0, grad_1[0] * scale, grad_1[1])
        grads = [total + part / 7 for total, part in zip(grads, found, strict=True)]
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    assert runner.read("loss")[0] == pytest.approx(cost, rel=tolerance)
    for key, grad in zip(net.parameters, grads, strict=True):
        np.testing.assert_allclose(runner.read(f"grad.{key}"), grad, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------ a whole training


def by_hand(net, steps, seed=1, lr=0.2, rates=(0.3, 0.5)):
    """Dropout, tanh, Dropout, identity under the quadratic cost, over (step, rows) pairs."""
    W0, b0, W1, b1 = (np.array(value) for value in net.tensors().values())
    for step, rows in steps:
        x, t = X[rows], DENSE[rows]
        scale = [
            mask_of(seed, step, layer, rate, shape) / (1 - rate)
            for layer, (rate, shape) in enumerate(zip(rates, (x.shape, (len(x), 6)), strict=True))
        ]
        dropped = x * scale[0]
        a = np.tanh(dropped @ W0.T + b0)
        hidden = a * scale[1]
        delta = (hidden @ W1.T + b1 - t) / len(x)
        delta_0 = (delta @ W1) * scale[1] * (1 - a * a)
        W1, b1 = W1 - lr * delta.T @ hidden, b1 - lr * delta.sum(axis=0)
        W0, b0 = W0 - lr * delta_0.T @ dropped, b0 - lr * delta_0.sum(axis=0)
    return np.concatenate([part.ravel() for part in (W0, b0, W1, b1)])


TWO = (gpunn.Dropout(0.3), LAYERS[0], gpunn.Dropout(0.5), gpunn.Dense(3))
PLAIN = {"loss": "quadratic", "optimizer": gpunn.SGD(lr=0.2)}


@pytest.mark.parametrize("seed", [1, HUGE])
def test_training_is_the_loop_one_would_write_by_hand(start, seed):
    """Three epochs of five steps, the last of three rows: a mask has the rows of its own batch."""
    trainer = start(*TWO, **PLAIN, seed=seed)
    order = [np.random.default_rng([seed, 1, epoch]).permutation(N) for epoch in range(3)]
    batches = [rows[at : at + BATCH] for rows in order for at in range(0, N, BATCH)]
    expected = by_hand(trainer.network, enumerate(batches), seed)
    trainer.fit(X, DENSE, epochs=3, verbose=0)
    np.testing.assert_allclose(trainer.network.theta, expected, rtol=1e-10, atol=1e-13)


def test_single_steps_draw_the_masks_of_their_number_too(start):
    trainer = start(*TWO, **PLAIN)
    rows = [np.arange(3), np.arange(5, 10), np.arange(4)]
    expected = by_hand(trainer.network, enumerate(rows))
    losses = [float(trainer.step(X[part], DENSE[part])) for part in rows]
    np.testing.assert_allclose(trainer.network.theta, expected, rtol=1e-10, atol=1e-13)
    assert len(losses) == trainer.updates == 3


def test_a_stream_of_batches_draws_the_masks_of_its_steps(start):
    trainer = start(*TWO, **PLAIN)
    rows = [np.arange(3), np.arange(5, 10), np.arange(4)]
    expected = by_hand(trainer.network, enumerate(rows * 2))
    trainer.fit([(X[part], DENSE[part]) for part in rows], epochs=2, verbose=0)
    np.testing.assert_allclose(trainer.network.theta, expected, rtol=1e-10, atol=1e-13)


def test_steps_beyond_the_first_word_have_masks_of_their_own(start):
    trainer = start(*TWO, **PLAIN)
    trainer._engine.write("step", np.array([2**32 - 1]))
    rows = [np.arange(5), np.arange(5, 10)]
    expected = by_hand(trainer.network, enumerate(rows, 2**32 - 1))
    for part in rows:
        trainer.step(X[part], DENSE[part])
    np.testing.assert_allclose(trainer.network.theta, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stop", range(1, 2 * PER_EPOCH + 1))
def test_a_run_saved_and_loaded_anywhere_draws_the_masks_that_it_would_have(
    start, tmp_path, device, stop, dtype
):
    trainer, expected = start(dtype=dtype, seed=HUGE), start(dtype=dtype, seed=HUGE)
    trainer.fit(X, LABELS, epochs=stop // PER_EPOCH, verbose=0)
    if stop % PER_EPOCH:
        trainer.epoch(X, LABELS, steps=stop % PER_EPOCH)
    trainer.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    again.fit(X, LABELS, epochs=3 - again.epochs_done, verbose=0)
    expected.fit(X, LABELS, epochs=3, verbose=0)
    assert outcome(again) == outcome(expected)


def test_a_copied_run_draws_the_same_masks(start):
    trainer = start()
    trainer.epoch(X, LABELS, steps=2)
    again = copy.deepcopy(trainer)
    assert trainer.epoch(X, LABELS)["loss"] == again.epoch(X, LABELS)["loss"]
    assert trainer.network.theta.tobytes() == again.network.theta.tobytes()


def test_other_seeds_draw_other_masks(start):
    trainer, other = start(*TWO, **PLAIN), start(*TWO, **PLAIN, seed=2)
    other.network.theta = trainer.network.theta
    trainer.step(X[:BATCH], DENSE[:BATCH])
    other.step(X[:BATCH], DENSE[:BATCH])
    assert trainer.network.theta.tobytes() != other.network.theta.tobytes()


# ------------------------------------------------------------------ when it goes wrong


def test_the_search_for_what_diverged_draws_the_masks_of_each_step_again(start, drawn):
    trainer = start(*TWO, loss="quadratic", optimizer=gpunn.SGD(lr=1e12), dtype="float32")
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DivergenceError, match=r"layer \d|update") as caught:
        trainer.fit(X, DENSE, epochs=9, verbose=0)
    assert "no op" not in str(caught.value)
    once, again = {}, 0
    for place, mask in drawn:
        again += place in once
        assert once.setdefault(place, mask) == mask, place
    assert again > 0
    assert trainer.network.theta.tobytes() == before


def test_nan_in_an_input_is_named_even_where_it_may_be_dropped(start):
    spoilt = X.copy()
    spoilt[7, 2] = np.nan
    with pytest.raises(gpunn.DataError, match=r"training: X holds nan at row 7, column 2"):
        start(*TWO, **PLAIN).fit(spoilt, DENSE, verbose=0)
