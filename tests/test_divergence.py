"""Training that diverges says where, and gives the last good weights back."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpunn
from gpunn import checkpoint, training

N, BATCH, PER_EPOCH = 23, 5, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
DENSE = np.random.default_rng(5).random((N, 3))

OPTIMIZERS = [gpunn.SGD, lambda lr: gpunn.SGD(lr=lr, momentum=0.9), gpunn.Adam]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "momentum", "Adam"])


@pytest.fixture
def start(device):
    """Make a trainer of a small network; where all is positive, an input of 3e38 overflows at once."""

    def trainer(optimizer, hidden="relu", loss="mse", dtype="float32", positive=False, **kwargs):
        layers = [gpunn.Dense(5, activation=hidden), gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, dtype=dtype, seed=1)
        if positive:
            net.theta = np.abs(net.theta) + 1
        return gpunn.Trainer(net, **{"loss": loss, "optimizer": optimizer, "batch_size": BATCH, **kwargs})

    return trainer


@pytest.fixture
def state(tmp_path):
    """What has to be the same before and after: Θ, the optimiser's state, the counters, byte for byte."""

    def read(trainer):
        trainer.save(tmp_path / "run.safetensors")
        tensors = checkpoint.read(tmp_path / "run.safetensors").tensors
        sums = ("state.loss", "state.loss_sum", "state.penalty", "state.sum.count_correct")
        kept = {name: array.tobytes() for name, array in tensors.items() if name not in sums}
        return kept, trainer.epochs_done, trainer.history.records[:]

    return read


def with_row(row, value):
    x = X.copy()
    x[row] = value
    return x


# ------------------------------------------------------------------ where it went wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["quadratic", "mse"])
@every_optimizer
def test_a_learning_rate_that_is_far_too_high_is_named(start, optimizer, loss, dtype):
    trainer = start(optimizer(lr=1e200 if optimizer is gpunn.Adam else 1e6), loss=loss, dtype=dtype)
    with pytest.raises(gpunn.DivergenceError) as caught:
        trainer.fit(X, DENSE, epochs=100, verbose=0)
    message = str(caught.value)
    assert re.search(r"diverged at step \d+ \(epoch \d+\): (layer \d Dense|\w+ cost|update)", message), (
        message
    )
    assert f"Lower lr (now {trainer.optimizer.lr:g})" in message
    assert "last good weights are back" in message


def test_the_error_is_an_arithmetic_error_too(start):
    with pytest.raises(ArithmeticError):
        start(gpunn.SGD(lr=1e30)).fit(X, DENSE, epochs=100, verbose=0)


@pytest.mark.parametrize(
    ("rows", "step"),
    [(slice(None), 1), (0, 1), (12, 3), (22, 5)],
    ids=["all rows", "first minibatch", "a middle one", "the last, partial one"],
)
def test_the_step_and_the_op_that_overflowed_are_named(start, rows, step):
    trainer = start(gpunn.SGD(lr=1e-3), positive=True)
    before = trainer.network.theta.tobytes()
    place = rf"step {step} \(epoch 1\): layer 0 Dense: forward: linear gives z0.*scale the inputs"
    with pytest.raises(gpunn.DivergenceError, match=place):
        trainer.epoch(with_row(rows, 3e38), DENSE, shuffle=False)
    assert trainer.network.theta.tobytes() == before


@pytest.mark.parametrize("row", [2, 7, 22], ids=["first minibatch", "second", "the last, partial one"])
def test_a_cost_that_overflows_while_the_weights_stay_finite_is_named(start, row):
    y = DENSE.copy()
    y[row, 1] = 1e200
    trainer = start(gpunn.SGD(lr=1e-3), dtype="float64")
    with pytest.raises(gpunn.DivergenceError, match=rf"step {row // 5 + 1} \(epoch 1\): mse cost"):
        trainer.epoch(X, y, shuffle=False)


@pytest.mark.parametrize(
    ("row", "step"),
    [(0, 1), (12, 3), (22, 5)],
    ids=["first minibatch", "a middle one", "the last, partial one"],
)
def test_a_gradient_that_overflows_before_any_loss_does_is_named_by_its_own_step(start, row, step):
    trainer = start(gpunn.SGD(lr=1e-3), hidden="identity", positive=True)
    before = trainer.network.theta.tobytes()
    place = rf"step {step} \(epoch 1\): layer 1 Dense: backward: linear_grad_weight"
    with pytest.raises(gpunn.DivergenceError, match=place):
        trainer.epoch(with_row(row, 1e25), DENSE, shuffle=False)
    assert trainer.network.theta.tobytes() == before


@pytest.mark.parametrize("row", [2, 7, 22], ids=["first minibatch", "second", "the last, partial one"])
def test_in_float64_the_cost_itself_overflows_and_is_named(start, row):
    trainer = start(gpunn.SGD(lr=1e-3), dtype="float64")
    with pytest.raises(gpunn.DivergenceError, match=rf"step {row // 5 + 1} \(epoch 1\): mse cost"):
        trainer.epoch(with_row(row, 1e200), DENSE, shuffle=False)


def test_an_update_that_overflows_behind_a_saturated_sigmoid_is_named_by_its_own_step(device):
    net = gpunn.Sequential([gpunn.Dense(1, activation="sigmoid")], input_shape=4, device=device, seed=1)
    net.theta = np.full(5, 1e-6)
    before = net.theta.tobytes()
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=3e38), batch_size=BATCH)
    with pytest.raises(gpunn.DivergenceError, match=r"step 1 \(epoch 1\): update"):
        trainer.epoch(np.full((N, 4), 100.0), np.ones(N))
    assert net.theta.tobytes() == before


def test_an_optimisers_state_that_overflows_is_found_before_it_stops_the_training(start, state):
    trainer = start(gpunn.Adam(), hidden="identity", positive=True)
    before = state(trainer)
    with pytest.raises(gpunn.DivergenceError, match=r"step 3 \(epoch 1\): update: adam"):
        trainer.epoch(with_row(12, 1e12), DENSE, shuffle=False)
    assert state(trainer) == before


def test_the_error_comes_within_the_epoch(start, monkeypatch):
    slices = []
    monkeypatch.setattr(training, "_next_chunk", lambda steps, seconds: slices.append(steps) or 1)
    with pytest.raises(gpunn.DivergenceError):
        start(gpunn.SGD(lr=1e-3), positive=True).epoch(with_row(7, 3e38), DENSE, shuffle=False)
    assert slices == [1, 1]


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_labels_can_diverge_too(start, loss):
    with pytest.raises(gpunn.DivergenceError, match=r"diverged at step \d+"):
        start(gpunn.SGD(lr=1e30), loss=loss).fit(X * 1e10, LABELS, epochs=100, verbose=0)


# ------------------------------------------------------------------ what is back


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("row", [3, 12, 22], ids=["first minibatch", "a middle one", "the last, partial one"])
@every_optimizer
def test_everything_is_as_it_was_before_the_epoch(start, state, optimizer, row, epochs):
    trainer = start(optimizer(lr=0.01), metrics=("accuracy",))
    trainer.fit(X, DENSE, epochs=epochs, verbose=0)
    before = state(trainer)
    with pytest.raises(gpunn.DivergenceError, match=rf"epoch {epochs + 1}\)"):
        trainer.epoch(with_row(row, 3e38), DENSE)
    assert state(trainer) == before


@every_optimizer
def test_everything_is_as_it_was_before_the_call_that_went_on_with_an_epoch(start, state, optimizer):
    trainer = start(optimizer(lr=0.01), positive=True)
    trainer.epoch(with_row(12, 3e38), DENSE, shuffle=False, steps=2)
    before = state(trainer)
    with pytest.raises(gpunn.DivergenceError, match=r"step 3 \(epoch 1\)"):
        trainer.epoch(with_row(12, 3e38), DENSE, shuffle=False)
    assert state(trainer) == before
    assert trainer.updates == 2


@every_optimizer
def test_training_goes_on_with_good_data_as_if_nothing_had_been(start, optimizer):
    trainer, expected = start(optimizer(lr=0.01)), start(optimizer(lr=0.01))
    trainer.fit(X, DENSE, epochs=1, verbose=0)
    with pytest.raises(gpunn.DivergenceError):
        trainer.fit(with_row(12, 3e38), DENSE, epochs=3, verbose=0)
    trainer.fit(X, DENSE, epochs=2, verbose=0)
    expected.fit(X, DENSE, epochs=3, verbose=0)
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()
    assert trainer.history["loss"] == expected.history["loss"]


@every_optimizer
def test_training_goes_on_with_a_lower_rate(start, optimizer):
    trainer = start(optimizer(lr=1e30))
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DivergenceError):
        trainer.fit(X, DENSE, epochs=100, verbose=0)
    net = trainer.network
    assert net.theta.tobytes() == before
    history = net.fit(X, DENSE, loss="mse", optimizer=optimizer(lr=0.01), epochs=20, verbose=0)
    assert history["loss"][-1] < history["loss"][0]


def test_the_history_keeps_the_good_epochs_and_callbacks_are_told_of_the_end(start):
    ended = []

    class Worsen(gpunn.Callback):
        def on_epoch_end(self, trainer, record):
            if record["epoch"] == 2:
                trainer.network.theta = np.full(trainer.network.layout.count, 1e30)

        def on_fit_end(self, trainer):
            ended.append(trainer.epochs_done)

    net = start(gpunn.SGD(lr=0.01)).network
    with pytest.raises(gpunn.DivergenceError, match=r"step 11 \(epoch 3\)"):
        net.fit(X, DENSE, loss="mse", batch_size=BATCH, epochs=9, callbacks=[Worsen()], verbose=0)
    assert net.history["epoch"] == [1, 2]
    assert ended == [2]


def test_weights_that_were_bad_before_training_are_found(start):
    trainer = start(gpunn.SGD(lr=0.01))
    trainer.network.theta = np.full(trainer.network.layout.count, np.nan)
    with pytest.raises(gpunn.DivergenceError, match=r"step 1 .*layer 0 Dense: forward: linear"):
        trainer.epoch(X, DENSE)


# ------------------------------------------------------------------ bad data instead


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["NaN", "infinity"])
@pytest.mark.parametrize("row", [0, 12, 22])
@every_optimizer
def test_a_bad_row_of_x_is_named_instead_and_everything_is_as_it_was(start, state, optimizer, row, value):
    trainer = start(optimizer(lr=0.01))
    trainer.fit(X, DENSE, epochs=1, verbose=0)
    before = state(trainer)
    with pytest.raises(gpunn.DataError, match=f"X holds {value} at row {row}, column 0"):
        trainer.epoch(with_row(row, value), DENSE)
    assert state(trainer) == before


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["NaN", "infinity"])
@pytest.mark.parametrize("row", [0, 12, 22])
def test_a_bad_row_of_y_is_named_instead_and_everything_is_as_it_was(start, state, row, value):
    y = DENSE.copy()
    y[row, 1] = value
    trainer = start(gpunn.Adam())
    trainer.fit(X, DENSE, epochs=1, verbose=0)
    before = state(trainer)
    with pytest.raises(gpunn.DataError, match=f"y holds {value} at row {row}, column 1"):
        trainer.epoch(X, y)
    assert state(trainer) == before


def test_bad_data_are_named_even_where_the_learning_rate_is_too_high(start):
    with pytest.raises(gpunn.DataError, match="X holds nan at row 22"):
        start(gpunn.SGD(lr=1e30)).epoch(with_row(22, np.nan), DENSE, shuffle=False)


# ------------------------------------------------------------------ single steps


def test_reading_the_loss_of_a_step_that_diverged_raises(start):
    trainer = start(gpunn.SGD(lr=1e-3), positive=True)
    trainer.step(X[:5], DENSE[:5])
    loss = trainer.step(np.full((5, 4), 3e38), DENSE[:5])
    with pytest.raises(gpunn.DivergenceError, match=r"step 2: the loss is (nan|inf).*lower lr \(now 0.001\)"):
        float(loss)


@pytest.mark.parametrize("name", ["x", "y"])
def test_reading_the_loss_of_a_step_on_bad_data_names_the_row(start, name):
    data = {"x": X[:5].copy(), "y": DENSE[:5].copy()}
    data[name][3, 2] = np.nan
    loss = start(gpunn.SGD(lr=1e-3)).step(**data)
    with pytest.raises(gpunn.DataError, match=f"step 1: {name} holds nan at row 3, column 2"):
        float(loss)


@pytest.mark.parametrize("read", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("value", [np.nan, 3e38], ids=["bad data", "overflow"])
def test_good_weights_make_an_epoch_possible_again_after_a_bad_step(start, value, read):
    trainer, expected = (start(gpunn.SGD(lr=1e-3), positive=True) for _ in range(2))
    good = trainer.network.theta
    loss = trainer.step(with_row(3, value)[:5], DENSE[:5])
    if read:
        with pytest.raises(gpunn.GpunnError):
            float(loss)
    trainer.network.theta = good
    trainer.epoch(X, DENSE)
    expected.epoch(X, DENSE)
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


def test_an_epoch_after_a_bad_step_says_that_the_weights_are_bad(start):
    trainer = start(gpunn.SGD(lr=1e-3))
    trainer.step(with_row(3, np.nan)[:5], DENSE[:5])
    with pytest.raises(gpunn.DivergenceError, match=r"step 2 .*layer 0 Dense: forward: linear gives z"):
        trainer.epoch(X, DENSE)


# ------------------------------------------------------------------ schedules, rates, and bad weights


SCHEDULES = [
    gpunn.StepDecay(50),
    gpunn.Exponential(0.999),
    gpunn.Cosine(10_000, unit="step"),
    gpunn.Warmup(2),
    gpunn.InverseScaling(0.01),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_hides_neither_step_nor_op_in_a_later_epoch(start, schedule):
    trainer = start(gpunn.SGD(lr=4.0, schedule=schedule))
    with pytest.raises(
        gpunn.DivergenceError, match=r"step \d+ \(epoch ([2-9]|\d\d+)\): \w+.*, which is not finite"
    ):
        trainer.fit(X, DENSE, epochs=400, verbose=0)


def test_a_rate_that_was_changed_within_the_epoch_is_put_back_too(start, monkeypatch):
    monkeypatch.setattr(training, "_next_chunk", lambda steps, seconds: 1)

    class Lowered(gpunn.Callback):
        def on_progress(self, trainer):
            trainer.lr_scale = 0.5

    trainer = start(gpunn.SGD(lr=1e30))
    with pytest.raises(gpunn.DivergenceError):
        trainer.fit(X, DENSE, callbacks=[Lowered()], verbose=0)
    assert (trainer.lr_scale, trainer.lr) == (1.0, 1e30)


def test_weights_that_were_bad_before_are_not_called_good(start):
    trainer = start(gpunn.SGD(lr=0.01))
    trainer.network.parameters["layers.0.bias"] = np.full(5, np.nan)
    with pytest.raises(
        gpunn.DivergenceError, match="were not finite before this epoch: load good ones"
    ) as caught:
        trainer.epoch(X, DENSE)
    assert "last good weights" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad", "adamw"])
def test_relus_that_explode_are_named(start, optimizer):
    """Each layer multiplies by about a thousand: four of them leave float32 at once."""
    net = gpunn.Sequential(
        [gpunn.Dense(8, activation="relu") for _ in range(14)] + [gpunn.Dense(3)], input_shape=4, seed=0
    )
    net.theta = np.abs(net.theta) * 1000 + 1
    before = net.theta.tobytes()
    with pytest.raises(
        gpunn.DivergenceError, match=r"step 1 \(epoch 1\): layer \d+ Dense: forward: linear gives"
    ):
        net.fit(np.abs(X) + 1, DENSE, loss="mse", optimizer=optimizer, verbose=0)
    assert net.theta.tobytes() == before
