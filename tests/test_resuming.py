"""A run that was stopped, saved and loaded goes on as if it had never stopped, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn import optimizers
from gpunn.losses import LOSSES

N, BATCH, EPOCHS = 23, 5, 3
PER_EPOCH = 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
WEIGHTS = np.random.default_rng(5).random(N) + 0.1
ROOT = Path(gpunn.__file__).parent.parent

OPTIMIZERS = [
    gpunn.SGD(lr=0.3),
    gpunn.SGD(lr=0.3, l2=0.01),
    gpunn.SGD(lr=0.1, momentum=0.9),
    gpunn.SGD(lr=0.1, momentum=0.9, l2=0.01),
    gpunn.Adam(lr=0.01),
    gpunn.Adam(lr=0.01, l2=0.01),
    gpunn.SGD(lr=0.1, momentum=0.9, nesterov=True, l1=0.01, weight_decay=0.01, clip_norm=0.1),
    gpunn.SGD(lr=0.3, schedule=gpunn.Cosine(EPOCHS)),
    gpunn.AdamW(lr=0.01, schedule=gpunn.Warmup(7, gpunn.Exponential(0.9, unit="step"), unit="step")),
    gpunn.RMSprop(lr=0.01, clip_norm=0.1),
    gpunn.Adagrad(lr=0.1, schedule=gpunn.StepDecay(every=0.5)),
]


@pytest.fixture
def start(device):
    """Make a trainer of a small network, always from the same seed."""

    def trainer(
        optimizer=OPTIMIZERS[4],
        dtype="float32",
        metrics=("accuracy",),
        loss="cross_entropy",
        between=(),
        **kwargs,
    ):
        layers = [gpunn.Dense(5, activation="tanh"), *between, gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, dtype=dtype, seed=1)
        how = {"loss": loss, "optimizer": optimizer, "batch_size": BATCH, "metrics": metrics}
        return gpunn.Trainer(net, **{**how, **kwargs})

    return trainer


@pytest.fixture
def reload(tmp_path, device):
    """Save a trainer and load it again."""

    def saved_and_loaded(trainer):
        trainer.save(tmp_path / "run.safetensors")
        return gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)

    return saved_and_loaded


def train_for(trainer, minibatches, **how):
    """Whole epochs by fit, the rest of the minibatches by epoch."""
    trainer.fit(X, LABELS, epochs=minibatches // PER_EPOCH, verbose=0, **how)
    if minibatches % PER_EPOCH:
        trainer.epoch(X, LABELS, steps=minibatches % PER_EPOCH, **how)
    return trainer


def go_on(trainer, **how):
    """Fit until the last epoch is done."""
    trainer.fit(X, LABELS, epochs=EPOCHS - trainer.epochs_done, verbose=0, **how)
    return trainer


def outcome(trainer):
    """All that has to be the same: Θ byte for byte, the counters, the history but its seconds."""
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    return trainer.network.theta.tobytes(), trainer.updates, trainer.epochs_done, records


# ------------------------------------------------------------------ stopping anywhere


def test_there_is_a_run_of_every_optimiser():
    own = {cls for cls in optimizers.OPTIMIZERS.values() if cls.__module__.startswith("gpunn.")}
    assert {type(optimizer) for optimizer in OPTIMIZERS} == own


@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [
        *((optimizer, "float32") for optimizer in OPTIMIZERS),
        (OPTIMIZERS[3], "float64"),
        (OPTIMIZERS[5], "float64"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", range(EPOCHS * PER_EPOCH + 1))
def test_a_run_stopped_at_any_minibatch_goes_on_as_if_it_never_had(start, reload, stop, optimizer, dtype):
    stopped = reload(train_for(start(optimizer, dtype), stop))
    assert outcome(go_on(stopped)) == outcome(go_on(start(optimizer, dtype)))


@pytest.mark.parametrize("stop", [2, 4, 5, 9])
@pytest.mark.parametrize(
    ("made", "how"),
    [
        ({"metrics": ()}, {}),
        ({"metrics": ("accuracy", "top_2", "f1", "confusion")}, {}),
        ({"between": (gpunn.Dropout(0.5),)}, {}),
        ({"between": (gpunn.Dropout(0.2), gpunn.Dense(4, activation="relu"), gpunn.Dropout(0.4))}, {}),
        *[({"loss": name}, {}) for name, row in LOSSES.items() if row.takes_labels(3)],
        ({"batch_size": 1}, {}),
        ({}, {"shuffle": False}),
        ({}, {"sample_weight": WEIGHTS}),
        ({}, {"class_weight": "balanced"}),
    ],
    ids=lambda given: "".join(given) or "as usual",
)
def test_whatever_is_trained_a_stopped_run_goes_on_as_if_it_never_had(start, reload, made, how, stop):
    stopped = reload(train_for(start(**made), stop, **how))
    assert outcome(go_on(stopped, **how)) == outcome(go_on(start(**made), **how))


def test_validation_goes_on_too(start, reload):
    how = {"validation_data": (X[:7], LABELS[:7])}
    stopped = start()
    stopped.fit(X, LABELS, epochs=1, verbose=0, **how)
    stopped.epoch(X, LABELS, steps=2)
    assert outcome(go_on(reload(stopped), **how)) == outcome(go_on(start(), **how))


def test_a_run_saved_and_loaded_after_every_minibatch(start, reload):
    trainer = start()
    for _ in range(2 * PER_EPOCH):
        trainer = reload(trainer)
        trainer.epoch(X, LABELS, steps=1)
    expected = start()
    records = [expected.epoch(X, LABELS) for _ in range(2)]
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()
    assert trainer.updates == records[-1]["updates"]
    assert trainer.epochs_done == 2


def test_a_run_goes_on_by_steps_too(start, reload):
    trainer, expected = start(), start()
    trainer.step(X[:5], LABELS[:5])
    trainer = reload(trainer)
    loss = float(trainer.step(X[5:8], LABELS[5:8]))
    expected.step(X[:5], LABELS[:5])
    assert loss == float(expected.step(X[5:8], LABELS[5:8]))
    assert outcome(trainer) == outcome(expected)


@pytest.mark.parametrize("stop", [0, 2, PER_EPOCH])
def test_saving_changes_nothing_for_the_run_that_was_saved(start, reload, stop):
    trainer = train_for(start(), stop)
    reload(trainer)
    assert outcome(go_on(trainer)) == outcome(go_on(start()))


def test_two_runs_from_one_file_do_not_touch_each_other(start, reload, tmp_path, device):
    first = reload(train_for(start(), 7))
    second = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    go_on(first)
    assert outcome(go_on(second)) == outcome(first)


def test_the_seconds_of_a_stopped_epoch_count_both_of_its_parts(start, reload):
    trainer = start()
    before = trainer.epoch(X, LABELS, steps=2)["seconds"]
    assert reload(trainer).epoch(X, LABELS)["seconds"] > before


# ------------------------------------------------------------------ across processes

SCRIPT = """
import json
import sys

import numpy as np

import gpunn

path, minibatches = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
X, y = rng.standard_normal((203, 20)), rng.integers(0, 3, 203)


def begin():
    layers = [gpunn.Dense(30, activation="relu"), gpunn.Dense(3)]
    net = gpunn.Sequential(layers, input_shape=20, seed=1)
    how = {"optimizer": "adam", "batch_size": 10, "metrics": ("accuracy",)}
    return gpunn.Trainer(net, loss="cross_entropy", **how)


if minibatches:
    trainer = begin()
    trainer.fit(X, y, epochs=minibatches // 21, verbose=0)
    trainer.epoch(X, y, steps=minibatches % 21)
    trainer.save(path)
else:
    trainer = gpunn.Trainer.load(path) if path else begin()
    trainer.fit(X, y, epochs=3 - trainer.epochs_done, verbose=0)
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    print(json.dumps([trainer.network.theta.tobytes().hex(), records]))
"""


def process(path, minibatches):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(minibatches)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("minibatches", [30, 41])
def test_a_run_goes_on_in_another_process(tmp_path, minibatches):
    path = tmp_path / "run.safetensors"
    process(path, minibatches)
    assert json.loads(process(path, 0)) == json.loads(process("", 0))


# ------------------------------------------------------------------ what a loaded run is


def test_a_loaded_run_knows_everything_about_itself(start, reload):
    trainer = train_for(start(gpunn.SGD(lr=0.1, momentum=0.5, l2=0.25)), 7)
    loaded = reload(trainer)
    assert loaded.optimizer == trainer.optimizer
    assert (loaded.batch_size, loaded.metrics, loaded.seed) == (BATCH, trainer.metrics, trainer.seed)
    assert (loaded.loss, loaded.network.loss) == (trainer.loss, "cross_entropy")
    assert (loaded.updates, loaded.epochs_done) == (7, 1)
    assert loaded.history.records == trainer.history.records
    assert loaded.network.history is loaded.history


def test_the_history_of_a_loaded_run_says_the_same_about_it(start, reload):
    trainer = train_for(start(), 7)
    assert reload(trainer).history.about == trainer.history.about


def test_a_loaded_run_predicts_and_evaluates_as_before(start, reload):
    trainer = train_for(start(), 7)
    loaded = reload(trainer)
    np.testing.assert_array_equal(loaded.network.predict(X), trainer.network.predict(X))
    assert loaded.evaluate(X, LABELS) == trainer.evaluate(X, LABELS)


def test_fit_of_a_loaded_network_starts_afresh(start, reload):
    trainer = train_for(start(), 7)
    how = {"loss": "cross_entropy", "optimizer": "adam", "batch_size": BATCH, "verbose": 0}
    network = reload(trainer).network
    history = network.fit(X, LABELS, **how)
    trainer.network.fit(X, LABELS, **how)
    assert history["epoch"] == [1]
    assert network.theta.tobytes() == trainer.network.theta.tobytes()


# ------------------------------------------------------------------ what is refused

OTHER_DATA = [
    ((X[:-1], LABELS[:-1]), {}, r"epoch 2 was stopped after 10 of 23 .* got 22 examples"),
    ((np.tile(X, (2, 1)), np.tile(LABELS, 2)), {}, r"same data and shuffle, got 46 examples"),
    ((X, LABELS), {"shuffle": False}, r"\(shuffle=True\).*\(shuffle=False\)"),
]


@pytest.mark.parametrize(("data", "how", "message"), OTHER_DATA, ids=["fewer", "more", "in order"])
@pytest.mark.parametrize("call", ["epoch", "fit"])
def test_going_on_with_other_data_is_refused_and_nothing_is_lost(start, reload, call, data, how, message):
    trainer = reload(train_for(start(), 7))
    silence = {"verbose": 0} if call == "fit" else {}
    with pytest.raises(gpunn.ArgumentError, match=message):
        getattr(trainer, call)(*data, **how, **silence)
    assert outcome(go_on(trainer)) == outcome(go_on(start()))


def test_between_two_epochs_other_data_are_welcome(start, reload):
    trainer = reload(train_for(start(), PER_EPOCH))
    assert trainer.epoch(X[:9], LABELS[:9], shuffle=False)["samples"] == 9


def test_a_network_is_no_run(start, tmp_path):
    start().network.save(tmp_path / "net.safetensors")
    with pytest.raises(gpunn.FormatError, match=r"holds a network, expected a training run: use gpunn.load"):
        gpunn.Trainer.load(tmp_path / "net.safetensors")


def test_a_run_holds_its_network(start, tmp_path, device):
    trainer = train_for(start(), 7)
    trainer.save(tmp_path / "run.safetensors")
    net = gpunn.load(tmp_path / "run.safetensors", device=device)
    assert net.theta.tobytes() == trainer.network.theta.tobytes()
    assert (net.loss, net.seed) == ("cross_entropy", 1)
    np.testing.assert_array_equal(net.predict_proba(X), trainer.network.predict_proba(X))


@pytest.mark.parametrize(
    ("targets", "how", "message"),
    [
        (np.eye(int(LABELS.max()) + 1)[LABELS], {}, "with labels.*with targets"),
        (LABELS, {"sample_weight": np.ones(len(X))}, "with labels, content.*with labels, weighted"),
    ],
    ids=["dense targets", "weights"],
)
def test_going_on_with_other_targets_or_weights_is_refused(start, reload, targets, how, message):
    trainer = reload(train_for(start(), 7))
    with pytest.raises(gpunn.ArgumentError, match=message):
        trainer.epoch(X, targets, **how)


def test_going_on_with_other_examples_of_the_same_number_is_refused(start, reload):
    trainer = reload(train_for(start(), 7))
    with pytest.raises(gpunn.ArgumentError, match="give the same data and shuffle"):
        trainer.epoch(X[::-1], LABELS[::-1])


@pytest.mark.parametrize(
    "other", [{"class_weight": {0: 99.0}}, {"sample_weight": np.arange(N)[::-1]}, {}], ids=str
)
def test_an_epoch_goes_on_with_the_weights_it_began_with(start, other):
    trainer = start(loss="cross_entropy")
    trainer.epoch(X, LABELS, steps=1, sample_weight=np.arange(N))
    with pytest.raises(gpunn.ArgumentError, match=r"give the same data .*to give that epoch up, call rewind"):
        trainer.epoch(X, LABELS, **other)


def test_a_stopped_epoch_can_be_given_up(start):
    trainer = start(loss="cross_entropy")
    trainer.epoch(X, LABELS, steps=1)
    trainer.rewind()
    record = trainer.epoch(X[:7], LABELS[:7])
    assert (record["samples"], "partial" in record, trainer.epochs_done) == (7, False, 1)


def test_what_json_cannot_hold_is_no_history_to_save(start, tmp_path):
    trainer = start(loss="cross_entropy")
    trainer.fit(X, LABELS, callbacks=[lambda trainer, record: record.update(when=object())], verbose=0)
    with pytest.raises(gpunn.ArgumentError, match=r"run cannot be saved: a object cannot .*history"):
        trainer.save(tmp_path / "run")
