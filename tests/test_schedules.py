"""Schedules: each one is its formula, at every step of every epoch, however the run is cut into parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

import gpunn
from gpunn import schedules
from gpunn.schedules import (
    Cosine,
    Exponential,
    InverseScaling,
    StepDecay,
    Warmup,
    schedule_from_config,
)

N, BATCH, PER_EPOCH = 23, 5, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
BATCHES = [(X[at : at + BATCH], LABELS[at : at + BATCH]) for at in range(0, N, BATCH)]


@dataclass(frozen=True)
class Line(gpunn.Schedule):
    """A schedule as a user writes it."""

    end: float
    unit: str = "epoch"

    def factors(self, x, width):
        return 1 - x / self.end


@pytest.fixture
def start(device):
    """Make a trainer of a small network, always from the same seed."""

    def trainer(schedule=None, lr=0.3, momentum=0.9, batch_size=BATCH, **kwargs):
        layers = [gpunn.Dense(5, activation="tanh"), gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, dtype="float64", seed=1)
        optimizer = gpunn.SGD(lr=lr, momentum=momentum, schedule=schedule, **kwargs)
        return gpunn.Trainer(net, loss="cross_entropy", optimizer=optimizer, batch_size=batch_size)

    return trainer


@pytest.fixture
def reload(tmp_path, device):
    """Save a trainer and load it again."""

    def saved_and_loaded(trainer):
        trainer.save(tmp_path / "run.safetensors")
        return gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)

    return saved_and_loaded


def lrs_of(trainer, minibatches, data=(X, LABELS)):
    """The learning rate of each of that many updates, read after each one."""
    found = []
    for _ in range(minibatches):
        trainer.epoch(*data, steps=1)
        found.append(trainer.lr)
    return found


def outcome(trainer):
    """Θ byte for byte, the counters, the history but its seconds."""
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    return trainer.network.theta.tobytes(), trainer.updates, trainer.epochs_done, records


# ------------------------------------------------------------------ the formulas

#: Each schedule, and its factor at x by itself: a step adds 1/5 to x.
FORMULAS = {
    "step decay": (StepDecay(2, 0.1), lambda x: 0.1 ** math.floor(round(x, 6) / 2)),
    "step decay within an epoch": (StepDecay(0.6, 0.5), lambda x: 0.5 ** math.floor(round(x / 0.6, 6))),
    "exponential": (Exponential(0.9), lambda x: math.exp(x * math.log(0.9))),
    "cosine": (Cosine(2), lambda x: math.cos(math.pi * min(x, 2) / 4) ** 2),
    "cosine to a fifth": (Cosine(1.5, 0.2), lambda x: 0.2 + 0.8 * math.cos(math.pi * min(x, 1.5) / 3) ** 2),
    "inverse scaling": (InverseScaling(), lambda x: 1 / math.sqrt(1 + x)),
    "inverse scaling, power 1": (InverseScaling(1), lambda x: 1 / (1 + x)),
    "warm-up": (Warmup(1.4), lambda x: min(1.0, (x + 0.2) / 1.4)),
    "warm-up shorter than a step": (Warmup(0.1), lambda x: 1.0),
    "warm-up, then cosine": (
        Warmup(1, Cosine(2)),
        lambda x: x + 0.2 if x < 0.99 else math.cos(math.pi * min(x - 1, 2) / 4) ** 2,
    ),
    "warm-up, then warm-up, then decay": (
        Warmup(1, Warmup(1, Exponential(0.5))),
        lambda x: x + 0.2 if x < 0.99 else x - 0.8 if x < 1.99 else 0.5 ** (x - 2),
    ),
}
every_formula = pytest.mark.parametrize(("schedule", "formula"), FORMULAS.values(), ids=FORMULAS)


@every_formula
def test_each_update_of_each_epoch_has_the_rate_of_the_formula(start, schedule, formula):
    found = lrs_of(start(schedule), 4 * PER_EPOCH)
    expected = [0.3 * formula(number / PER_EPOCH) for number in range(4 * PER_EPOCH)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


class Loader:
    """A loader that notes the rate of each update, and says how many batches it has."""

    def __init__(self):
        self.trainer, self.found = None, []

    def __len__(self):
        return len(BATCHES)

    def __iter__(self):
        for batch in BATCHES:
            yield batch
            self.found.append(self.trainer.lr)


@every_formula
def test_a_loader_of_batches_has_the_rates_of_the_formula_too(start, schedule, formula):
    loader = Loader()
    loader.trainer = start(schedule)
    loader.trainer.fit(loader, epochs=3, verbose=0)
    expected = [0.3 * formula(number / PER_EPOCH) for number in range(3 * PER_EPOCH)]
    np.testing.assert_allclose(loader.found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [pytest.param(*pair, id=name) for name, pair in FORMULAS.items() if "inverse" not in name],
)
def test_counted_in_steps_the_formula_goes_on_through_the_epochs(start, schedule, formula):
    """The same schedule with its lengths in steps: x grows by 1 instead of 1/5."""

    def in_steps(of):
        numbers = {**vars(of), "unit": "step"}
        for key in ("every", "length"):
            if key in numbers:
                numbers[key] *= PER_EPOCH
        if isinstance(numbers.get("then"), gpunn.Schedule):
            numbers["then"] = in_steps(numbers["then"])
        if isinstance(of, Exponential):
            numbers["rate"] **= 1 / PER_EPOCH
        return type(of)(**numbers)

    found = lrs_of(start(in_steps(schedule)), 3 * PER_EPOCH)
    expected = [0.3 * formula(number / PER_EPOCH) for number in range(3 * PER_EPOCH)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1])
def test_inverse_scaling_in_steps_is_that_of_scikit_learn(start, power):
    found = lrs_of(start(InverseScaling(power, unit="step")), 7)
    np.testing.assert_allclose(found, [0.3 / (number + 1) ** power for number in range(7)], rtol=1e-12)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("in_epoch", [3, 7, 10, 49, 1000])
def test_a_step_decay_falls_at_the_first_update_of_its_epoch_and_not_before(every, in_epoch):
    schedule = StepDecay(every, 0.5)
    rates = [schedule.rates(1.0, epoch, 0, in_epoch, in_epoch) for epoch in range(22)]
    assert [set(of_epoch) for of_epoch in rates] == [{0.5 ** (epoch // every)} for epoch in range(22)]


def test_the_rates_from_a_later_update_on_are_the_end_of_those_of_the_epoch():
    whole = Cosine(4).rates(0.3, 2, 20, 10, 10)
    np.testing.assert_array_equal(Cosine(4).rates(0.3, 2, 20, 3, 10, 7), whole[7:])


def test_a_warm_up_rises_by_the_same_at_each_step_and_never_trains_at_0(start):
    found = lrs_of(start(Warmup(2)), 2 * PER_EPOCH)
    np.testing.assert_allclose(found, 0.3 * np.arange(1, 11) / 10, rtol=1e-12)


# ------------------------------------------------------------------ what is trained


def test_training_with_a_schedule_is_training_with_each_rate_by_hand(start):
    """Without momentum the rate of a step touches that step alone: a fresh trainer a step has the same Θ."""
    trainer = start(Cosine(2, 0.1), momentum=0.0)
    rates = [0.3 * (0.1 + 0.9 * math.cos(math.pi * number / 20) ** 2) for number in range(10)]
    reference = start(momentum=0.0).network
    for rate, (x, y) in zip(rates, BATCHES * 2, strict=True):
        gpunn.Trainer(reference, loss="cross_entropy", optimizer=gpunn.SGD(lr=rate), batch_size=5).step(x, y)
    trainer.fit(X, LABELS, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(trainer.network.theta, reference.theta, rtol=1e-12)


@every_formula
def test_batches_from_a_list_train_as_those_from_arrays(start, schedule, formula):
    arrays, batches = start(schedule), start(schedule)
    arrays.fit(X, LABELS, epochs=3, shuffle=False, verbose=0)
    batches.fit(BATCHES, epochs=3, verbose=0)
    assert arrays.network.theta.tobytes() == batches.network.theta.tobytes()
    assert arrays.history["lr"] == batches.history["lr"]


def test_a_partial_last_batch_is_one_step_of_its_epoch(start):
    trainer = start(Exponential(0.5), batch_size=20)
    assert lrs_of(trainer, 4) == pytest.approx([0.3, 0.3 * 0.5**0.5, 0.15, 0.15 * 0.5**0.5])


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(start):
    trainer = start(Exponential(0.5), batch_size=100)
    assert trainer.fit(X, LABELS, epochs=3, verbose=0)["lr"] == pytest.approx([0.3, 0.15, 0.075])


def test_the_record_holds_the_rate_of_the_last_update(start):
    trainer = start(Exponential(0.5))
    history = trainer.fit(X, LABELS, epochs=3, verbose=0)
    assert history["lr"] == pytest.approx([0.3 * 0.5 ** (epoch + 0.8) for epoch in range(3)])
    assert trainer.lr == history["lr"][-1]


def test_without_a_schedule_the_record_holds_the_one_rate(start):
    assert start().fit(X, LABELS, epochs=2, verbose=0)["lr"] == [0.3, 0.3]


@pytest.mark.parametrize("optimizer", [gpunn.SGD, gpunn.Adam, gpunn.AdamW, gpunn.RMSprop, gpunn.Adagrad])
def test_a_rate_that_reaches_0_leaves_the_weights_where_they_are(start, optimizer):
    net = start().network
    trainer = gpunn.Trainer(
        net, loss="cross_entropy", optimizer=optimizer(schedule=Cosine(1, unit="epoch")), batch_size=BATCH
    )
    trainer.epoch(X, LABELS)
    there = net.theta.tobytes()
    records = trainer.fit(X, LABELS, epochs=2, verbose=0).records
    assert [record["lr"] for record in records][1:] == [0.0, 0.0]
    assert net.theta.tobytes() == there


def test_a_second_fit_of_a_network_begins_its_schedule_anew_and_a_trainer_goes_on(start):
    trainer = start(Exponential(0.5), batch_size=100)
    trainer.fit(X, LABELS, epochs=2, verbose=0)
    assert trainer.fit(X, LABELS, epochs=1, verbose=0)["lr"][-1] == pytest.approx(0.075)
    how = {"loss": "cross_entropy", "optimizer": trainer.optimizer, "batch_size": 100, "verbose": 0}
    assert trainer.network.fit(X, LABELS, **how)["lr"] == [0.3]


# ------------------------------------------------------------------ stopping and going on

RESUMED = {
    "epochs": Warmup(1.5, Cosine(3)),
    "steps": StepDecay(4, 0.5, unit="step"),
    "of a user": Line(5),
    "inside a warm-up": Warmup(1, Line(5)),
}


@pytest.mark.parametrize("schedule", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("stop", range(1, 2 * PER_EPOCH + 1))
def test_a_run_saved_and_loaded_at_any_minibatch_goes_on_as_if_it_never_had(start, reload, schedule, stop):
    trainer, expected = start(schedule), start(schedule)
    trainer.fit(X, LABELS, epochs=stop // PER_EPOCH, verbose=0)
    if stop % PER_EPOCH:
        trainer.epoch(X, LABELS, steps=stop % PER_EPOCH)
    again = reload(trainer)
    assert again.optimizer == trainer.optimizer
    again.fit(X, LABELS, epochs=3 - again.epochs_done, verbose=0)
    expected.fit(X, LABELS, epochs=3, verbose=0)
    assert outcome(again) == outcome(expected)


@pytest.mark.parametrize("schedule", [None, Exponential(0.5), Line(40, unit="step")], ids=str)
def test_the_scale_of_the_rate_is_saved_and_goes_on(start, reload, schedule):
    trainer = start(schedule)
    plain = lrs_of(start(schedule), 6)
    trainer.lr_scale = 0.25
    first = lrs_of(trainer, 3)
    again = reload(trainer)
    assert again.lr_scale == 0.25
    np.testing.assert_allclose(first + lrs_of(again, 3), 0.25 * np.array(plain), rtol=1e-14)


@pytest.mark.parametrize("schedule", [None, Exponential(0.5), Line(40, unit="step")], ids=str)
def test_a_scale_changed_within_an_epoch_holds_from_the_next_minibatch_on(start, monkeypatch, schedule):
    monkeypatch.setattr(gpunn.training, "_next_chunk", lambda steps, seconds: 1)
    found, expected = {}, lrs_of(start(schedule), 10)

    class Halve(gpunn.Callback):
        def on_progress(self, trainer):
            found[trainer.updates] = trainer.lr
            trainer.lr_scale = 0.5 if trainer.updates < 7 else 0.25

        def on_epoch_end(self, trainer, record):
            found[trainer.updates] = record["lr"]

    start(schedule).fit(X, LABELS, epochs=2, callbacks=[Halve()], verbose=0)
    factors = [1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert list(found) == list(range(1, 11))
    np.testing.assert_allclose(list(found.values()), np.array(expected) * factors, rtol=1e-14)


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf, "1", None, True, [1.0]])
def test_a_scale_that_is_no_positive_number_is_refused(start, scale):
    trainer = start()
    with pytest.raises(gpunn.ArgumentError, match=r"lr_scale is .*, expected a finite number above 0"):
        trainer.lr_scale = scale
    assert (trainer.lr, trainer.lr_scale) == (0.3, 1.0)


# ------------------------------------------------------------------ single steps


def test_single_steps_follow_a_schedule_in_steps(start):
    trainer, found = start(Line(10, unit="step")), []
    for x, y in BATCHES:
        trainer.step(x, y)
        found.append(trainer.lr)
    np.testing.assert_allclose(found, 0.3 * (1 - np.arange(5) / 10), rtol=1e-14)


def test_single_steps_train_as_the_epoch_would(start):
    steps, epoch = start(Line(10, unit="step")), start(Line(10, unit="step"))
    for x, y in BATCHES:
        steps.step(x, y)
    epoch.epoch(X, LABELS, shuffle=False)
    assert steps.network.theta.tobytes() == epoch.network.theta.tobytes()


@pytest.mark.parametrize("schedule", [Line(10), Warmup(2, Cosine(3))], ids=str)
def test_single_steps_know_no_epochs(start, schedule):
    trainer = start(schedule)
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.ArgumentError, match=r"counts epochs, and step\(\) knows none.*unit='step'"):
        trainer.step(X[:5], LABELS[:5])
    assert (trainer.network.theta.tobytes(), trainer.updates) == (before, 0)


def test_single_steps_between_two_parts_of_an_epoch_count_as_steps(start):
    trainer = start(Line(20, unit="step"))
    first = lrs_of(trainer, 2)
    trainer.step(X[:5], LABELS[:5])
    np.testing.assert_allclose(first + lrs_of(trainer, 2), 0.3 * (1 - np.array([0, 1, 3, 4]) / 20))


# ------------------------------------------------------------------ a user's own


def test_a_schedule_of_a_user_is_saved_and_built_again(start, reload):
    again = reload(start(Warmup(2, Line(5.5))))
    assert again.optimizer.schedule == Warmup(2, Line(5.5))


def test_a_run_whose_schedule_is_not_defined_any_more_is_refused(start, tmp_path, monkeypatch):
    start(Line(5)).save(tmp_path / "run.safetensors")
    monkeypatch.delitem(schedules.SCHEDULES, "line")
    with pytest.raises(gpunn.FormatError, match="unknown schedule 'Line'"):
        gpunn.Trainer.load(tmp_path / "run.safetensors")


class Odd(gpunn.Schedule):
    """No dataclass: what it is given, it keeps."""

    def __init__(self, answer):
        self.answer = answer

    def factors(self, x, width):
        return self.answer(x)


def test_a_schedule_that_names_no_unit_counts_epochs(start):
    assert lrs_of(start(Odd(lambda x: x + 1)), 7)[-1] == pytest.approx(0.3 * 2.2)


BAD_FACTORS = {
    "NaN": lambda x: np.full(len(x), np.nan),
    "infinity": lambda x: np.full(len(x), np.inf),
    "negative in the end": lambda x: 1 - 2 * x,
    "one number": lambda x: 1.0,
    "too few": lambda x: np.ones(len(x) - 1),
}


@pytest.mark.parametrize("answer", BAD_FACTORS.values(), ids=BAD_FACTORS)
def test_factors_that_are_no_rates_are_refused_before_the_epoch(start, answer):
    trainer = start(Odd(answer))
    before = trainer.network.theta.tobytes()
    with pytest.raises(
        gpunn.ArgumentError, match=r"gives the factors .*, expected 5 finite numbers of at leas"
    ):
        trainer.fit(X, LABELS, verbose=0)
    assert (trainer.network.theta.tobytes(), trainer.updates) == (before, 0)


def test_a_unit_that_is_none_is_refused(start):
    with pytest.raises(gpunn.ArgumentError, match=r"unit of Line.*'epochs'.*'epoch'"):
        start(Line(3, unit="epochs")).fit(X, LABELS, verbose=0)


# ------------------------------------------------------------------ what is refused

REFUSED = {
    "every is 0": (lambda: StepDecay(0), "StepDecay: every is 0, expected a number above 0"),
    "every is NaN": (lambda: StepDecay(math.nan), "StepDecay: every is nan"),
    "every is infinite": (lambda: StepDecay(math.inf), "StepDecay: every is inf"),
    "every is text": (lambda: StepDecay("2"), "StepDecay: every is '2'"),
    "every is True": (lambda: StepDecay(True), "StepDecay: every is True"),
    "factor above 1": (lambda: StepDecay(1, 1.1), "factor is 1.1, expected a number above 0 and at most 1"),
    "rate of 0": (lambda: Exponential(0), "Exponential: rate is 0"),
    "rate above 1": (lambda: Exponential(1.5), "Exponential: rate is 1.5"),
    "length of 0": (lambda: Cosine(0), "Cosine: length is 0"),
    "final below 0": (lambda: Cosine(1, -0.1), "Cosine: final is -0.1"),
    "final above 1": (lambda: Cosine(1, 1.1), "Cosine: final is 1.1"),
    "power of 0": (lambda: InverseScaling(0), "InverseScaling: power is 0"),
    "warm-up of 0": (lambda: Warmup(0), "Warmup: length is 0"),
    "another unit": (lambda: Cosine(1, unit="epochs"), r"unit of Cosine: 'epochs'.*'epoch'"),
    "two units": (lambda: Warmup(1, Cosine(2, unit="step")), "counts epochs and .* counts steps"),
    "then is a name": (lambda: Warmup(1, "cosine"), "then is 'cosine', expected a schedule"),
    "a name": (lambda: gpunn.SGD(schedule="cosine"), "schedule is 'cosine', expected one such as"),
    "a class": (lambda: gpunn.SGD(schedule=Cosine), "schedule is <class .*expected one such as"),
    "an unknown class": (
        lambda: schedule_from_config({"class": "Cosin", "config": {}}),
        "unknown schedule 'Cosin'.*'cosine'",
    ),
    "other numbers": (
        lambda: schedule_from_config({"class": "Cosine", "config": {"lengths": 3}}),
        "schedule Cosine cannot be built from",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_is_refused_where(make, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    "schedule",
    [StepDecay(2), Exponential(0.5), Cosine(3, 0.1), InverseScaling(), Warmup(1, Cosine(2))],
    ids=str,
)
def test_a_schedule_is_built_again_from_its_config(schedule):
    assert schedule_from_config(schedule.config()) == schedule


def test_the_optimizer_of_a_history_tells_its_schedule(start):
    assert "Cosine(length=3.0" in start(Cosine(3)).history.about["optimizer"]
