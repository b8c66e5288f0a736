"""Callbacks: when they stop, what they save, what they write, and what is left when one of them fails."""

from __future__ import annotations

import csv
import errno
import math
import os
import shutil
import signal
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn import callbacks, training
from gpunn.callbacks import Checkpoint, CSVLog, EarlyStopping, ReduceLROnPlateau, TensorBoard

N, BATCH, PER_EPOCH = 23, 5, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
VALIDATION = X[:7], LABELS[:7]
NAN = math.nan


@pytest.fixture
def start(device):
    """Make a trainer of a small network, always from the same seed."""

    def trainer(**kwargs):
        layers = [gpunn.Dense(5, activation="tanh"), gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, seed=1)
        optimizer = gpunn.Adam(lr=0.01)
        how = {"loss": "cross_entropy", "optimizer": optimizer, "batch_size": BATCH, "metrics": ("accuracy",)}
        return gpunn.Trainer(net, **{**how, **kwargs})

    return trainer


@pytest.fixture
def minibatch_slices(monkeypatch):
    """Slices of one minibatch each, so that callbacks hear of progress after every minibatch."""
    monkeypatch.setattr(training, "_next_chunk", lambda steps, seconds: 1)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the callbacks that stands still until it is set."""
    now = types.SimpleNamespace(seconds=1000.0)
    fake = types.SimpleNamespace(monotonic=lambda: now.seconds, time=lambda: 0.0)
    monkeypatch.setattr(callbacks.checkpoints, "time", fake)
    return now


def fit(trainer, epochs, *told, **how):
    return trainer.fit(X, LABELS, epochs=epochs, callbacks=list(told), verbose=0, **how)


def theta(trainer):
    return trainer.network.theta.tobytes()


def outcome(trainer):
    """All that has to be the same: Θ byte for byte, the counters, the history but its seconds."""
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    return theta(trainer), trainer.updates, trainer.epochs_done, records


def says(values, key="score"):
    """A callback that adds the next of these values to each record."""

    def add(trainer, record):
        record[key] = values[record["epoch"] - 1]

    return add


def raises_at(epoch, error=None):
    """A callback that raises after that epoch."""

    def fail(trainer, record):
        if record["epoch"] == epoch:
            raise error or Failure

    return fail


class Failure(Exception):
    """Raised by a callback."""


class Keeper(gpunn.Callback):
    """Keeps Θ of each epoch, and whether the fit ended by itself."""

    def __init__(self):
        self.thetas, self.ended = {}, []

    def on_epoch_end(self, trainer, record):
        self.thetas[record["epoch"]] = theta(trainer)

    def on_fit_end(self, trainer):
        self.ended.append(trainer.completed)


# ------------------------------------------------------------------ stopping early

STOPS = {
    "it gets worse": ([3, 2, 2.5, 2.5, 1], {"patience": 2}, 2, 4),
    "equal is no improvement": ([3, 3, 3, 3], {"patience": 3}, 1, 4),
    "an improvement starts the wait anew": ([3, 4, 2, 3, 1, 0], {"patience": 2}, 6, None),
    "a patience of one": ([3, 2, 2], {"patience": 1}, 2, 3),
    "never": ([5, 4, 3, 2, 1], {"patience": 1}, 5, None),
    "too small an improvement": ([3, 2.9, 2.8, 2.7], {"patience": 2, "min_delta": 0.5}, 1, 3),
    "small steps add up": ([3, 2.75, 2.4, 2.3], {"patience": 2, "min_delta": 0.5}, 3, None),
    "exactly min_delta": ([3, 2.5, 2.5], {"patience": 2, "min_delta": 0.5}, 1, 3),
    "more is better": ([1, 2, 1.5, 1.5], {"patience": 2, "mode": "max"}, 2, 4),
    "NaN first": ([NAN, 2, NAN, NAN], {"patience": 2}, 2, 4),
    "NaN in between": ([3, NAN, 2, NAN, 1], {"patience": 2}, 5, None),
    "only NaN": ([NAN, NAN, NAN], {"patience": 2}, None, 2),
    "infinity": ([-math.inf, 2, 1], {"patience": 2}, 3, None),
    "on the last epoch": ([1, 2], {"patience": 1}, 1, 2),
    "NumPy numbers": ([np.float32(1), np.int64(2), np.array(3.0)], {"patience": 2}, 1, 3),
}


@pytest.mark.parametrize(("values", "options", "best", "stopped"), STOPS.values(), ids=STOPS)
def test_training_stops_after_so_many_epochs_without_improvement(start, values, options, best, stopped):
    stopping = EarlyStopping("score", **{"mode": "min", **options})
    history = fit(start(), len(values), says(values), stopping)
    assert len(history) == (stopped or len(values))
    assert (stopping.best_epoch, stopping.stopped_epoch) == (best, stopped)
    assert stopping.best == (None if best is None else values[best - 1])


@pytest.mark.parametrize(
    ("values", "best"), [([2, 1, 3, 3], 2), ([3, 2, 1], 3), ([1, 2], 1)], ids=["early", "last", "all epochs"]
)
def test_the_best_parameters_are_back_when_the_fit_ends_by_itself(start, values, best):
    trainer, keeper = start(), Keeper()
    fit(trainer, len(values), says(values), EarlyStopping("score", patience=2, mode="min"), keeper)
    assert theta(trainer) == keeper.thetas[best]


def test_the_best_parameters_are_back_when_another_callback_stops_the_training(start):
    def stop(trainer, record):
        trainer.stop = record["epoch"] == 3

    trainer, keeper = start(), Keeper()
    fit(trainer, 9, says([1, 2, 3]), EarlyStopping("score", mode="min"), stop, keeper)
    assert theta(trainer) == keeper.thetas[1]


def test_the_best_parameters_are_copied_into_the_network_not_put_in_its_place(start):
    trainer = start()
    array, windows = trainer.network.memory["theta"], dict(trainer.network.parameters)
    fit(trainer, 3, says([1, 2, 3]), EarlyStopping("score", patience=2, mode="min"))
    assert trainer.network.memory["theta"] is array
    assert all(trainer.network.parameters[key] is window for key, window in windows.items())
    expected = start()
    fit(expected, 1)
    np.testing.assert_array_equal(trainer.network.predict(X), expected.network.predict(X))


def test_the_last_parameters_stay_where_the_best_are_not_wanted(start):
    trainer, keeper = start(), Keeper()
    fit(trainer, 3, says([1, 2, 3]), EarlyStopping("score", restore_best=False, mode="min"), keeper)
    assert theta(trainer) == keeper.thetas[3]


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
def test_a_fit_that_was_broken_off_keeps_its_parameters_and_can_go_on(start, error):
    trainer, expected = start(), start()
    with pytest.raises(error):
        fit(trainer, 5, says([1, 2, 3]), EarlyStopping("score", mode="min"), raises_at(3, error))
    fit(trainer, 2)
    fit(expected, 5, says([1, 2, 3, 0, 0]))
    assert theta(trainer) == theta(expected)


def test_early_stopping_forgets_the_fit_before(start):
    stopping = EarlyStopping("score", patience=1, mode="min")
    fit(start(), 3, says([1, 2, 3]), stopping)
    assert stopping.stopped_epoch == 2
    trainer, keeper = start(), Keeper()
    fit(trainer, 3, says([9, 8, 7]), stopping, keeper)
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (7, 3, None)
    assert theta(trainer) == keeper.thetas[3]


def test_early_stopping_watches_the_validation(start):
    stopping = EarlyStopping(patience=2)
    history = fit(start(), 4, stopping, validation_data=VALIDATION)
    assert stopping.best == min(history["val_loss"])


@pytest.mark.parametrize(
    ("key", "values", "best"), [("val_loss", [1, 2], 1), ("val_accuracy", [1, 2], 2), ("accuracy", [1, 2], 2)]
)
def test_what_is_better_is_known_of_losses_and_metrics(start, key, values, best):
    stopping = EarlyStopping(key)
    fit(start(), 2, says(values, key), stopping)
    assert stopping.best_epoch == best


# ------------------------------------------------------------------ lowering the learning rate

SCALES = {
    "at a plateau": ([3, 2, 2, 2, 1], {"patience": 2}, [1, 1, 1, 0.5, 0.5]),
    "again and again": ([1] * 5, {"patience": 2}, [1, 1, 0.5, 0.5, 0.25]),
    "never": ([3, 2, 1], {"patience": 1}, [1, 1, 1]),
    "after a cooldown": ([1] * 7, {"patience": 1, "cooldown": 2}, [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
    "too small an improvement": ([3, 2.9, 2.8], {"patience": 2, "min_delta": 0.5}, [1, 1, 0.5]),
    "not below min_lr": ([1] * 4, {"patience": 1, "min_lr": 0.004}, [1, 0.5, 0.4, 0.4]),
    "min_lr above the rate": ([1] * 3, {"patience": 1, "min_lr": 7.0}, [1, 1, 1]),
    "NaN": ([NAN] * 3, {"patience": 2}, [1, 0.5, 0.5]),
    "more is better": ([1, 2, 3], {"patience": 1, "mode": "max"}, [1, 1, 1]),
    "not to zero": ([1] * 4, {"patience": 1, "factor": 1e-200}, [1, 1e-200, 1e-200, 1e-200]),
}


@pytest.mark.parametrize(("values", "options", "scales"), SCALES.values(), ids=SCALES)
def test_the_learning_rate_is_lowered(start, values, options, scales):
    found = []
    plateau = ReduceLROnPlateau("score", **{"factor": 0.5, "mode": "min", **options})
    trainer = start()
    history = fit(trainer, len(values), says(values), plateau, lambda t, record: found.append(t.lr_scale))
    assert found == pytest.approx(scales)
    assert history["lr"] == pytest.approx([0.01 * scale for scale in (1, *scales[:-1])])


def test_a_lower_learning_rate_is_what_training_goes_on_with(start):
    trainer, expected = start(), start()
    fit(trainer, 2, says([1, 1]), ReduceLROnPlateau("score", patience=1, factor=0.25, mode="min"))
    fit(trainer, 2)
    fit(expected, 2)
    expected.lr_scale = 0.25
    fit(expected, 2)
    assert theta(trainer) == theta(expected)


def test_the_learning_rate_stays_low_in_the_next_fit_and_the_wait_begins_anew(start):
    plateau = ReduceLROnPlateau("score", patience=2, factor=0.5, mode="min")
    trainer = start()
    fit(trainer, 4, says([1, 1, 1, 1]), plateau)
    assert (trainer.lr_scale, plateau.best) == (0.5, 1)
    fit(trainer, 2, says([None] * 4 + [7, 7]), plateau)
    assert (trainer.lr_scale, plateau.best) == (0.5, 7)


# ------------------------------------------------------------------ what is monitored

MONITORS = [EarlyStopping, ReduceLROnPlateau, lambda key: Checkpoint("never", monitor=key)]
NAMES = ["EarlyStopping", "ReduceLROnPlateau", "Checkpoint"]
MONITORING = list(zip(MONITORS, NAMES, strict=True))


@pytest.mark.parametrize(("make", "name"), MONITORING, ids=NAMES)
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("val_loss", r"val_\* .* validation_data=\(X, y\)"),
        ("recall", r"metrics= and callbacks that come earlier"),
    ],
)
def test_an_entry_that_is_not_there_is_named_with_those_that_are(
    start, tmp_path, monkeypatch, make, name, key, hint
):
    monkeypatch.chdir(tmp_path)
    trainer = start()
    with pytest.raises(gpunn.UnknownNameError, match=rf"{name}: .*epoch 1 .*'{key}'.*loss, .*; {hint}"):
        fit(trainer, 5, says([[1]], "matrix"), make(key))
    assert (trainer.epochs_done, trainer.history["epoch"]) == (1, [1])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [([[1, 2], [3, 4]], "list"), (np.eye(2), "ndarray"), ("low", "str"), (None, "NoneType"), (True, "bool")],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(("make", "name"), MONITORING, ids=NAMES)
def test_an_entry_that_is_no_number_cannot_be_monitored(
    start, tmp_path, monkeypatch, make, name, value, kind
):
    monkeypatch.chdir(tmp_path)
    message = rf"{name}: 'confusion' is a {kind} in .*epoch 1, expected a number: monitor one of epoch, loss"
    with pytest.raises(gpunn.ArgumentError, match=message):
        fit(start(), 5, says([value], "confusion"), make("confusion"))


# ------------------------------------------------------------------ checkpoints


def saved(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["4", "5", "6"]),
        ({"keep": 1}, ["6"]),
        ({"keep": None}, ["1", "2", "3", "4", "5", "6"]),
        ({"keep": 99}, ["1", "2", "3", "4", "5", "6"]),
        ({"every_epochs": 2}, ["2", "4", "6"]),
        ({"every_epochs": 4}, ["4"]),
        ({"every_epochs": 7}, []),
        ({"every_epochs": None, "every_minutes": 1}, []),
    ],
    ids=str,
)
def test_a_checkpoint_is_written_when_it_is_due_and_the_newest_are_kept(
    start, tmp_path, clock, options, names
):
    saving = Checkpoint(tmp_path / "{epoch}", **options)
    fit(start(), 6, saving)
    assert saved(tmp_path) == names
    assert saving.paths == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("run", "run"),
        ("run-{epoch:04d}.safetensors", "run-0002.safetensors"),
        ("{epoch:>3}", "  2"),
        ("{{{epoch}}}", "{2}"),
        ("{{run}}", "{run}"),
        ("{epoch}/of {epoch}", "2/of 2"),
    ],
)
def test_the_name_of_a_checkpoint_holds_its_epoch(start, tmp_path, device, template, name):
    trainer = start()
    fit(trainer, 2, Checkpoint(f"{tmp_path}/{template}"))
    assert outcome(gpunn.Trainer.load(tmp_path / name, device=device)) == outcome(trainer)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_goes_on_from_each_checkpoint_as_if_it_had_never_stopped(start, tmp_path, device, epoch):
    expected = start()
    fit(expected, 4, Checkpoint(tmp_path / "{epoch}", keep=None), validation_data=VALIDATION)
    again = gpunn.Trainer.load(tmp_path / str(epoch), device=device)
    fit(again, 4 - epoch, validation_data=VALIDATION)
    assert outcome(again) == outcome(expected)


def test_a_checkpoint_holds_what_callbacks_before_it_did(start, tmp_path, device):
    plateau = ReduceLROnPlateau("score", patience=1, factor=0.5, mode="min")
    fit(start(), 2, says([1, 1]), plateau, Checkpoint(tmp_path / "run"))
    again = gpunn.Trainer.load(tmp_path / "run", device=device)
    assert (again.lr_scale, again.history["score"]) == (0.5, [1, 1])


def test_saving_checkpoints_changes_nothing_for_the_run(start, tmp_path, minibatch_slices):
    trainer, expected = start(), start()
    fit(trainer, 3, Checkpoint(tmp_path / "run", every_minutes=1e-9))
    fit(expected, 3)
    assert outcome(trainer) == outcome(expected)


class Tick(gpunn.Callback):
    """Sets the clock before the checkpoint looks at it: so many minutes after each minibatch."""

    def __init__(self, clock, minutes):
        self.clock, self.minutes, self.updates = clock, minutes, 0

    def on_progress(self, trainer):
        self.clock.seconds += 60 * self.minutes * (trainer.updates - self.updates)
        self.updates = trainer.updates

    def on_epoch_end(self, trainer, record):
        self.on_progress(trainer)


@pytest.mark.parametrize("minutes", [1, 2, 3, 4, 7])
def test_a_long_epoch_is_saved_in_its_middle_and_goes_on_from_there(
    start, tmp_path, device, clock, minibatch_slices, minutes
):
    trainer, expected, copies = start(), start(), []

    class Collect(gpunn.Callback):
        """Loads what is there after each minibatch."""

        def on_progress(self, trainer):
            for path in tmp_path.iterdir():
                again = gpunn.Trainer.load(path, device=device)
                if again.updates == trainer.updates:
                    copies.append((path.name, again))

        def on_epoch_end(self, trainer, record):
            self.on_progress(trainer)

    saving = Checkpoint(tmp_path / "{epoch}", every_epochs=None, every_minutes=minutes, keep=None)
    fit(trainer, 2, Tick(clock, 1), saving, Collect())
    fit(expected, 2)
    found = {(name, again.updates) for name, again in copies}
    assert found == {(str((at - 1) // PER_EPOCH + 1), at) for at in range(minutes, 11, minutes)}
    for _, again in copies:
        fit(again, 2 - again.epochs_done)
        assert outcome(again) == outcome(expected)


def test_a_streamed_epoch_that_was_saved_in_its_middle_begins_anew(
    start, tmp_path, device, clock, monkeypatch
):
    monkeypatch.setattr(training, "SLICE", 0.0)
    batches = [(X[at : at + BATCH], LABELS[at : at + BATCH]) for at in range(0, N, BATCH)]
    saving = Checkpoint(tmp_path / "run", every_epochs=None, every_minutes=7)
    start().fit(batches, epochs=2, callbacks=[Tick(clock, 1), saving], verbose=0)
    again = gpunn.Trainer.load(tmp_path / "run", device=device)
    assert (again.updates, again.epochs_done) == (7, 1)
    again.fit(batches, epochs=1, verbose=0)
    assert (again.updates, again.epochs_done) == (7 + PER_EPOCH, 2)
    assert again.history["samples"] == [N, N]


def test_parameters_that_are_not_finite_are_not_saved(start, tmp_path, device, clock, minibatch_slices):
    class Poison(gpunn.Callback):
        def on_progress(self, trainer):
            if trainer.updates == 2:
                trainer.network.backend.assign(trainer.network.memory["theta"][:1], np.array([np.inf]))

    saving = Checkpoint(tmp_path / "run", every_minutes=1)
    with pytest.raises(gpunn.DivergenceError):
        fit(start(), 1, Tick(clock, 1), Poison(), saving)
    again = gpunn.Trainer.load(tmp_path / "run", device=device)
    assert again.updates == 1
    assert np.isfinite(again.network.theta).all()


def test_any_save_starts_the_clock_anew(start, tmp_path, clock, minibatch_slices):
    times = []

    class Watch(gpunn.Callback):
        def on_progress(self, trainer):
            times.append((trainer.updates, (tmp_path / str(trainer.epochs_done + 1)).exists()))

    saving = Checkpoint(tmp_path / "{epoch}", every_minutes=4, keep=None)
    fit(start(), 2, Tick(clock, 1), saving, Watch())
    # After the saves at 4 and 5 minutes the next one is due at 9.
    assert [at for at, there in times if there and at % PER_EPOCH] == [4, 9]


def test_a_fit_starts_the_clock_anew(start, tmp_path, clock):
    saving = Checkpoint(tmp_path / "{epoch}", every_epochs=None, every_minutes=1)
    clock.seconds += 3600
    fit(start(), 1, saving)
    assert saved(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "options", "names"),
    [
        ([3, 2, 4, 1], {}, ["1", "2", "4"]),
        ([3, 2, 4, 1], {"mode": "max"}, ["1", "3"]),
        ([3, 2, 4, 1], {"keep": 1}, ["4"]),
        ([3, 1, 4, 2, 0, 1], {"every_epochs": 2}, ["2"]),
        ([NAN, 2, NAN, 3], {}, ["2"]),
    ],
    ids=["less is better", "more is better", "keep 1", "every 2", "NaN"],
)
def test_only_better_epochs_are_saved_where_a_number_is_monitored(start, tmp_path, values, options, names):
    how = {"monitor": "score", "mode": "min", "keep": None, **options}
    fit(start(), len(values), says(values), Checkpoint(tmp_path / "{epoch}", **how))
    assert saved(tmp_path) == names


@pytest.mark.parametrize("loaded", [False, True], ids=["same trainer", "loaded trainer"])
def test_a_run_that_goes_on_overwrites_no_better_checkpoint(start, tmp_path, device, loaded):
    trainer, say = start(), says([2, 3, 2.5, 1])
    fit(trainer, 2, say, Checkpoint(tmp_path / "best", monitor="score", mode="min"))
    if loaded:
        trainer.save(tmp_path / "last")
        trainer = gpunn.Trainer.load(tmp_path / "last", device=device)
    fit(trainer, 1, say, Checkpoint(tmp_path / "best", monitor="score", mode="min"))
    assert gpunn.Trainer.load(tmp_path / "best", device=device).epochs_done == 1
    fit(trainer, 1, say, Checkpoint(tmp_path / "best", monitor="score", mode="min"))
    assert gpunn.Trainer.load(tmp_path / "best", device=device).epochs_done == 4


def test_a_run_that_begins_overwrites_the_best_checkpoint_of_another(start, tmp_path, device):
    saving = Checkpoint(tmp_path / "best", monitor="score", mode="min")
    fit(start(), 2, says([1, 1]), saving)
    fit(start(), 2, says([3, 2]), saving)
    assert gpunn.Trainer.load(tmp_path / "best", device=device).history["score"] == [3, 2]


def test_an_epoch_that_was_not_due_is_no_best_one(start, tmp_path, device):
    trainer, say = start(), says([0, 2, 0, 1])
    for _ in range(2):
        fit(trainer, 2, say, Checkpoint(tmp_path / "best", monitor="score", mode="min", every_epochs=2))
    assert gpunn.Trainer.load(tmp_path / "best", device=device).epochs_done == 4


def test_an_epoch_before_the_first_checkpoint_is_no_best_one(start, tmp_path):
    trainer, say = start(), says([1, 2])
    fit(trainer, 1, say)
    fit(trainer, 1, say, Checkpoint(tmp_path / "best", monitor="score", mode="min"))
    assert saved(tmp_path) == ["best"]


def test_nothing_is_deleted_but_what_this_callback_wrote(start, tmp_path):
    for name in ("0", "1", "7", "notes"):
        (tmp_path / name).write_text("somebody's")
    first = Checkpoint(tmp_path / "{epoch}", keep=1)
    trainer = start()
    fit(trainer, 2, first)
    assert saved(tmp_path) == ["0", "2", "7", "notes"]
    fit(trainer, 1, Checkpoint(tmp_path / "{epoch}", keep=1))
    assert saved(tmp_path) == ["0", "2", "3", "7", "notes"]


def test_a_checkpoint_that_somebody_has_changed_since_is_not_deleted(start, tmp_path):
    saving, trainer = Checkpoint(tmp_path / "{epoch}", keep=1), start()
    fit(trainer, 1, saving)
    (tmp_path / "1").write_text("somebody's")
    fit(trainer, 1, saving)
    assert (tmp_path / "1").read_text() == "somebody's"
    assert saving.paths == [tmp_path / "2"]


def test_a_checkpoint_that_somebody_has_deleted_is_not_missed(start, tmp_path):
    saving, trainer = Checkpoint(tmp_path / "{epoch}", keep=1), start()
    fit(trainer, 1, saving)
    (tmp_path / "1").unlink()
    fit(trainer, 1, saving)
    assert saved(tmp_path) == ["2"]


def test_the_oldest_of_a_new_run_are_deleted_first(start, tmp_path):
    saving = Checkpoint(tmp_path / "{epoch}", keep=2)
    fit(start(), 3, saving)
    fit(start(), 2, saving)
    assert [path.name for path in saving.paths] == saved(tmp_path) == ["1", "2"]


def test_a_checkpoint_that_is_written_again_is_the_newest(start, tmp_path):
    saving = Checkpoint(tmp_path / "{epoch}", keep=2)
    fit(start(), 2, saving)
    fit(start(), 1, saving)
    assert [path.name for path in saving.paths] == ["2", "1"]


def test_checkpoints_are_found_again_from_another_folder(start, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    saving, trainer = Checkpoint("run/{epoch}", keep=1), start()
    fit(trainer, 1, saving)
    monkeypatch.chdir(tmp_path / "elsewhere")
    fit(trainer, 1, saving)
    assert saved(tmp_path / "run") == []
    assert saved(tmp_path / "elsewhere" / "run") == ["2"]


def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(start, tmp_path, monkeypatch):
    def refuse(self, missing_ok=False):
        raise PermissionError(errno.EACCES, "not yours")

    saving, trainer = Checkpoint(tmp_path / "{epoch}", keep=1), start()
    fit(trainer, 1, saving)
    delete = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda self, **kw: (refuse if self.name == "1" else delete)(self, **kw)
    )
    with pytest.warns(gpunn.GpunnWarning, match=r"Checkpoint: .*1 cannot be deleted: .*not yours"):
        fit(trainer, 1, saving)
    assert saved(tmp_path) == ["1", "2"]


def test_missing_folders_are_made_before_the_first_epoch(start, tmp_path):
    class Look(gpunn.Callback):
        def on_progress(self, trainer):
            assert (tmp_path / "a" / "b").is_dir()

    fit(start(), 1, Checkpoint(tmp_path / "a" / "b" / "{epoch}"), Look())
    assert saved(tmp_path / "a" / "b") == ["1"]


@pytest.mark.parametrize("make", [Checkpoint, CSVLog, lambda path: TensorBoard(path.parent)])
def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_epoch(start, tmp_path, make):
    if make not in (Checkpoint, CSVLog):
        pytest.importorskip("tensorboardX")
    (tmp_path / "file").write_text("no folder")
    trainer, before = start(), theta(start())
    with pytest.raises(callbacks.WriteError, match=r"cannot write .*file"):
        fit(trainer, 1, make(tmp_path / "file" / "run" / "x"))
    assert (theta(trainer), trainer.epochs_done) == (before, 0)


@pytest.mark.parametrize("make", [Checkpoint, CSVLog])
def test_a_folder_is_no_file(start, tmp_path, make):
    with pytest.raises(gpunn.ArgumentError, match=r"is a folder, expected the path of a file"):
        fit(start(), 1, make(tmp_path))


def test_a_full_disk_is_an_error_that_names_the_file_and_the_training_can_go_on(
    start, tmp_path, monkeypatch, device
):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer, expected, keeper = start(), start(), Keeper()
    fit(trainer, 1, Checkpoint(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(gpunn.checkpoint, "write_atomically", full)
        with pytest.raises(callbacks.WriteError, match=r"cannot write .*run: .*No space left") as caught:
            fit(trainer, 3, Checkpoint(tmp_path / "run"), keeper)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOSPC
    assert keeper.ended == [False]
    assert gpunn.Trainer.load(tmp_path / "run", device=device).epochs_done == 1
    fit(trainer, 2)
    fit(expected, 4)
    assert outcome(trainer) == outcome(expected)


# ------------------------------------------------------------------ CSV


def table(path):
    """The rows of a CSV file as dictionaries."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_epoch_is_a_line_that_is_written_at_once(start, tmp_path):
    path, lines = tmp_path / "log.csv", []
    history = fit(start(), 3, CSVLog(path), lambda t, r: lines.append(len(path.read_text().splitlines())))
    assert lines == [2, 3, 4]
    assert [list(row) for row in table(path)] == [list(history.records[0])] * 3


def test_reading_the_log_gives_the_same_numbers(start, tmp_path):
    path = tmp_path / "log.csv"
    history = fit(start(), 3, CSVLog(path), validation_data=VALIDATION)
    assert [{k: float(v) for k, v in row.items()} for row in table(path)] == history.records


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.30000000000000004"),
        (NAN, "nan"),
        (-math.inf, "-inf"),
        (12345678901234567890, "12345678901234567890"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.array(3), "3"),
    ],
    ids=repr,
)
def test_a_number_is_written_as_it_is(start, tmp_path, value, text):
    fit(start(), 1, says([value]), CSVLog(tmp_path / "log.csv"))
    assert table(tmp_path / "log.csv")[0]["score"] == text


@pytest.mark.parametrize("value", [[1, 2], np.eye(2), "low, very", None], ids=lambda v: type(v).__name__)
def test_what_is_no_number_is_left_out(start, tmp_path, value):
    history = fit(start(), 1, says([value], "extra"), CSVLog(tmp_path / "log.csv"))
    assert list(table(tmp_path / "log.csv")[0]) == [key for key in history.records[0] if key != "extra"]


def test_the_columns_are_those_of_the_first_epoch(start, tmp_path):
    def sometimes(trainer, record):
        record["even" if record["epoch"] % 2 == 0 else "odd"] = record["epoch"]

    path = tmp_path / "log.csv"
    fit(start(), 3, sometimes, CSVLog(path))
    rows = table(path)
    assert [row["odd"] for row in rows] == ["1", "", "3"]
    assert "even" not in rows[0]


@pytest.mark.parametrize("append", [False, True])
def test_a_log_that_is_there_is_replaced_or_added_to(start, tmp_path, append):
    path = tmp_path / "log.csv"
    fit(start(), 3, CSVLog(path, append=append))
    fit(start(), 2, CSVLog(path, append=append))
    assert [row["epoch"] for row in table(path)] == (["1", "2", "3"] if append else []) + ["1", "2"]


@pytest.mark.parametrize("append", [False, True])
def test_the_log_of_a_trainer_that_goes_on_goes_on(start, tmp_path, append):
    path, trainer = tmp_path / "log.csv", start()
    log = CSVLog(path, append=append)
    with pytest.raises(Failure):
        fit(trainer, 3, log, raises_at(2))
    fit(trainer, 2, log)
    assert [row["epoch"] for row in table(path)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("content", ["", "epoch,loss\n", "epoch,loss\r\n1,0.5\r\n"])
def test_a_log_may_be_anything_before_it_is_replaced(start, tmp_path, content):
    (tmp_path / "log.csv").write_text(content)
    fit(start(), 1, CSVLog(tmp_path / "log.csv"))
    assert len(table(tmp_path / "log.csv")) == 1


def test_a_log_that_was_cut_in_the_middle_of_a_line_goes_on_with_a_new_line(start, tmp_path):
    path = tmp_path / "log.csv"
    fit(start(), 2, CSVLog(path))
    path.write_text(path.read_text()[:-9])
    fit(start(), 1, CSVLog(path, append=True))
    assert [row["epoch"] for row in table(path)] == ["1", "2", "1"]


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
def test_appending_to_nothing_begins_a_log(start, tmp_path, content):
    if content is not None:
        (tmp_path / "log.csv").write_text(content)
    fit(start(), 1, CSVLog(tmp_path / "log.csv", append=True))
    assert [row["epoch"] for row in table(tmp_path / "log.csv")] == ["1"]


def test_a_log_that_is_deleted_meanwhile_begins_with_its_header_again(start, tmp_path):
    path = tmp_path / "log.csv"
    fit(start(), 3, CSVLog(path), lambda t, record: path.unlink() if record["epoch"] == 1 else None)
    assert [row["epoch"] for row in table(path)] == ["2", "3"]


def test_appending_to_other_columns_is_refused_and_the_file_stays(start, tmp_path):
    path = tmp_path / "log.csv"
    fit(start(), 1, CSVLog(path))
    before = path.read_bytes()
    trainer = start()
    with pytest.raises(
        gpunn.FormatError, match=r"has the columns epoch, loss, .*this training has .*val_loss"
    ):
        fit(trainer, 5, CSVLog(path, append=True), validation_data=VALIDATION)
    assert (trainer.epochs_done, path.read_bytes()) == (1, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,price\nbread,2\n", "no log to append to: its first line is 'name,price'"),
        (b"\xff\xfe", "no CSV"),
    ],
    ids=["other table", "no text"],
)
def test_appending_to_something_else_is_refused_before_the_first_epoch(start, tmp_path, content, message):
    path, trainer = tmp_path / "log.csv", start()
    path.write_bytes(content)
    with pytest.raises(gpunn.FormatError, match=message):
        fit(trainer, 5, CSVLog(path, append=True))
    assert (trainer.epochs_done, path.read_bytes()) == (0, content)


def test_a_full_disk_ends_the_training_with_an_error_that_names_the_log(start, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = start()
    log = CSVLog(tmp_path / "log.csv")
    fit(trainer, 1, log)
    monkeypatch.setattr(callbacks.logs, "_ends_a_line", full)
    with pytest.raises(callbacks.WriteError, match=r"CSVLog: cannot write .*log.csv: .*No space left"):
        fit(trainer, 3, log)
    assert trainer.epochs_done == 2
    assert len(table(tmp_path / "log.csv")) == 1


# ------------------------------------------------------------------ TensorBoard


def crc32c(data):
    """The checksum of Castagnoli, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    """The checksum as event files hold it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(run):
    """The events of a run: records of a length, its checksum, the bytes of an Event, their checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(Path(run).iterdir()):
        assert ".tfevents." in path.name
        data, at = path.read_bytes(), 0
        while at < len(data):
            length, check = struct.unpack_from("<QI", data, at)
            content = data[at + 12 : at + 12 + length]
            assert check == masked(data[at : at + 8])
            assert struct.unpack_from("<I", data, at + 12 + length) == (masked(content),)
            yield event_pb2.Event.FromString(content)
            at += 16 + length


def curves(run):
    """Tag to the points (step, value) of each curve."""
    found = {}
    for event in events(run):
        for value in event.summary.value:
            if not value.HasField("histo"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture
def board(tmp_path):
    """Make a TensorBoard callback; a visible skip where tensorboardX is missing."""
    pytest.importorskip("tensorboardX")
    return lambda **options: TensorBoard(tmp_path / "runs", **options)


def test_each_number_is_a_curve_over_the_epochs(start, tmp_path, board):
    trainer = start(optimizer=gpunn.SGD(lr=0.5, l2=0.25))
    history = fit(trainer, 3, says([[1, 2]] * 3, "matrix"), board(), validation_data=VALIDATION)
    speeds = [record["samples"] / record["seconds"] for record in history]
    expected = {
        "loss/train": history["loss"],
        "penalty/train": history["penalty"],
        "accuracy/train": history["accuracy"],
        "loss/val": history["val_loss"],
        "accuracy/val": history["val_accuracy"],
        "lr": [0.5, 0.5, 0.5],
        "samples_per_second": speeds,
    }
    found = curves(tmp_path / "runs" / "run-1")
    assert {tag: [step for step, _ in points] for tag, points in found.items()} == {
        tag: [1, 2, 3] for tag in expected
    }
    for tag, values in expected.items():
        assert [value for _, value in found[tag]] == pytest.approx(values, rel=1e-6)


def test_an_epoch_can_be_looked_at_as_soon_as_it_is_over(start, board):
    tensorboard, steps = board(), []

    def look(trainer, record):
        steps.append([step for step, _ in curves(tensorboard.run)["loss/train"]])

    fit(start(), 2, tensorboard, look)
    assert steps == [[1], [1, 2]]


def test_each_training_is_a_run_of_its_own_and_one_that_goes_on_adds_to_its_run(start, tmp_path, board):
    tensorboard, trainer = board(), start()
    with pytest.raises(Failure):
        fit(trainer, 3, tensorboard, raises_at(2))
    fit(trainer, 1, tensorboard)
    fit(start(), 1, tensorboard)
    fit(start(), 2, board())
    found = {
        run.name: [step for step, _ in curves(run)["loss/train"]] for run in (tmp_path / "runs").iterdir()
    }
    assert found == {"run-1": [1, 2, 3], "run-2": [1], "run-3": [1, 2]}


def test_a_value_that_is_not_finite_is_a_point_too(start, tmp_path, board):
    fit(start(), 2, says([NAN, math.inf]), board())
    points = curves(tmp_path / "runs" / "run-1")["score/train"]
    assert [repr(value) for _, value in points] == ["nan", "inf"]


@pytest.mark.parametrize("histograms", [False, True])
def test_the_parameters_have_histograms_if_asked_for(start, tmp_path, board, histograms):
    trainer = start()
    fit(trainer, 2, board(histograms=histograms))
    found = {}
    for event in events(tmp_path / "runs" / "run-1"):
        for value in event.summary.value:
            if value.HasField("histo"):
                found.setdefault(value.tag, {})[event.step] = value.histo
    if not histograms:
        assert found == {}
        return
    tensors = trainer.network.tensors()
    assert list(found) == list(tensors)
    for key, values in tensors.items():
        assert list(found[key]) == [1, 2]
        last = found[key][2]
        assert (last.num, last.min, last.max) == (values.size, values.min(), values.max())


def test_no_epochs_leave_no_run(start, tmp_path, board):
    fit(start(), 0, board())
    assert saved(tmp_path / "runs") == []


def test_an_event_file_begins_with_its_version(start, board):
    tensorboard = board()
    fit(start(), 1, tensorboard)
    assert [event.file_version for event in events(tensorboard.run)] == ["brain.Event:2", ""]


def test_a_run_that_cannot_be_written_ends_the_training_with_an_error_that_names_it(start, tmp_path, board):
    trainer, expected = start(), start()
    with pytest.raises(callbacks.WriteError, match=r"TensorBoard: cannot write .*run-1: .*No such file"):
        fit(trainer, 3, board(), lambda t, record: shutil.rmtree(tmp_path / "runs"))
    assert trainer.epochs_done == 2
    fit(trainer, 1)
    fit(expected, 3)
    assert outcome(trainer) == outcome(expected)


def test_a_missing_tensorboardX_is_an_error_that_tells_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(callbacks.MissingTensorBoardXError, match=r"pip install tensorboardX") as caught:
        TensorBoard(tmp_path)
    assert isinstance(caught.value, gpunn.GpunnError)
    assert isinstance(caught.value, ImportError)


# ------------------------------------------------------------------ when something goes wrong


class Broken(gpunn.Callback):
    """Raises in one hook, the second time it is called there (the first time at the begin and end)."""

    def __init__(self, hook):
        self.calls = 0
        after = 2 if hook in ("on_progress", "on_epoch_end") else 1

        def fail(*args):
            self.calls += 1
            if self.calls == after:
                raise Failure(hook)

        setattr(self, hook, fail)


HOOKS = ["on_fit_begin", "on_progress", "on_epoch_end", "on_fit_end"]


@pytest.mark.parametrize("first", [True, False], ids=["first in the list", "last in the list"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_callback_that_raises_in_any_hook_leaves_a_run_that_goes_on(
    start, tmp_path, minibatch_slices, hook, first
):
    trainer, expected, keeper = start(), start(), Keeper()
    log = CSVLog(tmp_path / "log.csv")
    told = [Broken(hook), EarlyStopping("loss"), keeper, log]
    with pytest.raises(Failure, match=hook):
        fit(trainer, 3, *(told if first else told[1:] + told[:1]))
    if not (first and hook == "on_fit_begin"):  # What has not begun is not told of the end.
        assert keeper.ended == [hook == "on_fit_end"]
    assert len(trainer.history) == trainer.epochs_done
    fit(trainer, 3 - trainer.epochs_done, log)
    fit(expected, 3)
    assert outcome(trainer) == outcome(expected)
    assert [row["epoch"] for row in table(tmp_path / "log.csv")] == ["1", "2", "3"]


def test_every_other_callback_is_told_of_the_end_when_one_raises_there(start):
    keepers = [Keeper(), Keeper()]
    with pytest.raises(Failure):
        fit(start(), 1, keepers[0], Broken("on_fit_end"), keepers[1])
    assert [keeper.ended for keeper in keepers] == [[True], [True]]


def test_an_epoch_that_only_the_history_knows_is_logged_at_the_end(start, tmp_path, board):
    trainer, tensorboard = start(), board(histograms=True)
    with pytest.raises(Failure):
        fit(trainer, 3, raises_at(2), CSVLog(tmp_path / "log.csv"), tensorboard)
    assert [row["epoch"] for row in table(tmp_path / "log.csv")] == ["1", "2"]
    assert [step for step, _ in curves(tensorboard.run)["loss/train"]] == [1, 2]
    histograms = {
        event.step for event in events(tensorboard.run) for v in event.summary.value if v.HasField("histo")
    }
    assert histograms == {1}, "at the end of the fit Θ may be that of another epoch"


@pytest.mark.parametrize("name", ["as_number", "_text", "_ends_a_line"])
def test_ctrl_c_while_an_epoch_is_logged_waits_until_it_is(start, tmp_path, monkeypatch, name):
    real, pressed = getattr(callbacks.logs, name), []

    def press(*args):
        if not pressed:
            pressed.append(name)
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    path, trainer = tmp_path / "log.csv", start()
    log = CSVLog(path)
    fit(trainer, 1, log)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(callbacks.logs, name, press)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(trainer, 3, log)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [row["epoch"] for row in table(path)] == ["1", "2"]


@pytest.mark.parametrize("append", [False, True])
def test_an_interrupted_epoch_without_its_validation_is_logged_too(start, tmp_path, append):
    path, trainer = tmp_path / "log.csv", start()
    fit(start(), 1, CSVLog(path), validation_data=VALIDATION)
    evaluate = trainer.network.evaluate_batches

    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    trainer.network.evaluate_batches = pressed
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, 3, CSVLog(path, append=append), validation_data=VALIDATION)
    trainer.network.evaluate_batches = evaluate
    rows = table(path)
    assert [row["epoch"] for row in rows] == (["1", "1"] if append else ["1"])
    assert rows[-1].get("val_loss", "") == ""


@pytest.mark.parametrize("make", [CSVLog, TensorBoard])
def test_a_log_whose_fit_never_began_writes_nothing(start, tmp_path, make):
    if make is TensorBoard:
        pytest.importorskip("tensorboardX")
    trainer = start()
    fit(trainer, 2)
    log = make(tmp_path / "log")
    log.on_fit_end(trainer)
    assert saved(tmp_path) == []


# ------------------------------------------------------------------ options

OPTIONS = [
    (
        lambda: EarlyStopping(patience=0),
        r"EarlyStopping: patience is 0, expected a whole number of at least 1",
    ),
    (lambda: EarlyStopping(patience=2.5), r"EarlyStopping: patience is 2.5"),
    (lambda: EarlyStopping(min_delta=-1), r"EarlyStopping: min_delta is -1, expected a number of at least 0"),
    (lambda: EarlyStopping(min_delta=NAN), r"EarlyStopping: min_delta is nan"),
    (lambda: EarlyStopping(min_delta="1"), r"EarlyStopping: min_delta is '1'"),
    (lambda: EarlyStopping(3), r"EarlyStopping: monitor is 3, expected the name of an entry"),
    (lambda: EarlyStopping(""), r"EarlyStopping: monitor is ''"),
    (lambda: EarlyStopping(mode="mix"), r"unknown mode of EarlyStopping 'mix'.*Known: auto, max, min"),
    (lambda: ReduceLROnPlateau(factor=1), r"factor is 1, expected a number above 0 and below 1"),
    (lambda: ReduceLROnPlateau(factor=0), r"ReduceLROnPlateau: factor is 0"),
    (lambda: ReduceLROnPlateau(patience=0), r"ReduceLROnPlateau: patience is 0"),
    (lambda: ReduceLROnPlateau(cooldown=-1), r"ReduceLROnPlateau: cooldown is -1"),
    (lambda: ReduceLROnPlateau(min_lr=-1), r"ReduceLROnPlateau: min_lr is -1"),
    (lambda: ReduceLROnPlateau(min_lr=math.inf), r"ReduceLROnPlateau: min_lr is inf"),
    (lambda: Checkpoint(""), r"Checkpoint: path is '', expected a path"),
    (lambda: Checkpoint(3), r"Checkpoint: path is 3, expected a path"),
    (lambda: Checkpoint(b"run"), r"Checkpoint: path is b'run'"),
    (lambda: Checkpoint("{loss}"), r"has the field \{loss\}, expected only \{epoch\}"),
    (lambda: Checkpoint("{}"), r"has the field \{\}"),
    (lambda: Checkpoint("{0}"), r"has the field \{0\}"),
    (lambda: Checkpoint("{epoch.real}"), r"has the field \{epoch.real\}"),
    (lambda: Checkpoint("{epoch:{epoch}}"), r"has the field"),
    (lambda: Checkpoint("{epoch:d!}"), r"path '\{epoch:d!\}' is no template"),
    (lambda: Checkpoint("run-{epoch"), r"path 'run-\{epoch' is no template"),
    (lambda: Checkpoint("run-}"), r"path 'run-\}' is no template.*double a brace"),
    (lambda: Checkpoint("x", keep=0), r"Checkpoint: keep is 0"),
    (lambda: Checkpoint("x", every_epochs=0), r"Checkpoint: every_epochs is 0"),
    (lambda: Checkpoint("x", every_minutes=0), r"every_minutes is 0, expected a number above 0"),
    (lambda: Checkpoint("x", every_epochs=None), r"both None, so nothing would be saved: give one of them"),
    (lambda: Checkpoint("x", monitor="loss", every_minutes=1), r"use two Checkpoints with two paths"),
    (lambda: Checkpoint("x", monitor="loss", mode=3), r"unknown mode of Checkpoint 3"),
    (lambda: CSVLog(""), r"CSVLog: path is ''"),
    (lambda: TensorBoard(None), r"TensorBoard: folder is None, expected a path"),
]


@pytest.mark.parametrize(("make", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_an_option_that_cannot_work_is_refused(make, message):
    with pytest.raises(gpunn.ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("callback", "shown"),
    [
        (
            EarlyStopping(patience=3),
            "EarlyStopping(monitor='val_loss', patience=3, min_delta=0.0, restore_best=True, mode='auto')",
        ),
        (
            ReduceLROnPlateau(factor=0.5),
            "ReduceLROnPlateau(monitor='val_loss', factor=0.5, patience=5, min_delta=0.0, cooldown=0, "
            "min_lr=0.0, mode='auto')",
        ),
        (
            Checkpoint(Path("run-{epoch}")),
            "Checkpoint(path='run-{epoch}', every_epochs=1, every_minutes=None, keep=3, monitor=None, "
            "mode='auto')",
        ),
        (CSVLog("log.csv"), "CSVLog(path='log.csv', append=False)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_callback_shows_its_options(callback, shown):
    assert repr(callback) == shown


def test_tensorboard_shows_its_options(board, tmp_path):
    assert repr(board()) == f"TensorBoard(folder={str(tmp_path / 'runs')!r}, histograms=False)"


@pytest.mark.parametrize(
    "name", ["Checkpoint", "CSVLog", "EarlyStopping", "ReduceLROnPlateau", "TensorBoard"]
)
def test_each_callback_is_one_of_gpunns_names(name):
    assert getattr(gpunn, name) is getattr(callbacks, name)
