"""Ctrl-C ends training between two minibatches, and the training can go on as if it never had."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn import training

N, BATCH, PER_EPOCH = 23, 5, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
LONG_X = np.random.default_rng(5).standard_normal((1_000_000, 4))
LONG_LABELS = np.random.default_rng(6).integers(0, 3, len(LONG_X))
ROOT = Path(gpunn.__file__).parent.parent


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler before each test, and the one that was there after it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start(device):
    """Make a trainer of a small network, always from the same seed."""

    def trainer(**kwargs):
        layers = [gpunn.Dense(5, activation="tanh"), gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, seed=1)
        how = {"loss": "cross_entropy", "optimizer": "adam", "batch_size": BATCH, "metrics": ("accuracy",)}
        return gpunn.Trainer(net, **{**how, **kwargs})

    return trainer


@pytest.fixture
def press_after(monkeypatch):
    """Press Ctrl-C at the end of one slice of training, each slice being one minibatch."""

    def press(minibatch, times=1):
        slices = []

        def next_chunk(steps, seconds):
            slices.append(steps)
            if len(slices) == minibatch:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
                slices.append("after the signals")
            return 1

        monkeypatch.setattr(training, "_next_chunk", next_chunk)
        return slices

    return press


def outcome(trainer):
    """All that has to be the same: Θ byte for byte, the counters, the history but its seconds."""
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]
    return trainer.network.theta.tobytes(), trainer.updates, trainer.epochs_done, records


def without_seconds(record):
    return {key: value for key, value in record.items() if key != "seconds"}


# ------------------------------------------------------------------ at every minibatch


@pytest.mark.parametrize("minibatch", range(1, PER_EPOCH))
def test_an_epoch_interrupted_at_any_minibatch_goes_on_as_if_it_never_had(start, press_after, minibatch):
    trainer, expected = start(), start()
    press_after(minibatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS)
    assert (trainer.updates, trainer.epochs_done) == (minibatch, 0)
    record = trainer.epoch(X, LABELS)
    assert without_seconds(record) == without_seconds(expected.epoch(X, LABELS))
    assert outcome(trainer) == outcome(expected)


def test_an_epoch_interrupted_at_its_last_minibatch_is_done_and_in_the_history(start, press_after):
    trainer, expected = start(), start()
    press_after(PER_EPOCH)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS)
    assert (trainer.updates, trainer.epochs_done) == (PER_EPOCH, 1)
    first = expected.epoch(X, LABELS)
    assert [without_seconds(record) for record in trainer.history] == [without_seconds(first)]
    assert without_seconds(trainer.epoch(X, LABELS)) == without_seconds(expected.epoch(X, LABELS))
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


@pytest.mark.parametrize("minibatch", range(1, 3 * PER_EPOCH + 1))
def test_a_fit_interrupted_at_any_minibatch_goes_on_as_if_it_never_had(start, press_after, minibatch):
    trainer, expected = start(), start()
    press_after(minibatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, LABELS, epochs=3, verbose=0)
    done = minibatch // PER_EPOCH
    assert (trainer.updates, trainer.epochs_done) == (minibatch, done)
    assert trainer.history["epoch"] == list(range(1, done + 1)) if done else len(trainer.history) == 0
    trainer.fit(X, LABELS, epochs=3 - done, verbose=0)
    expected.fit(X, LABELS, epochs=3, verbose=0)
    assert outcome(trainer) == outcome(expected)


@pytest.mark.parametrize("minibatch", [2, 4, 7])
def test_an_interrupted_run_can_be_saved_and_taken_up_later(start, press_after, tmp_path, device, minibatch):
    trainer, expected = start(), start()
    press_after(minibatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, LABELS, epochs=2, verbose=0)
    trainer.save(tmp_path / "run.safetensors")
    later = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    later.fit(X, LABELS, epochs=2 - later.epochs_done, verbose=0)
    expected.fit(X, LABELS, epochs=2, verbose=0)
    assert outcome(later) == outcome(expected)


def test_the_network_is_usable_and_its_history_complete_so_far(start, press_after):
    net = start().network
    press_after(2 * PER_EPOCH + 2)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, LABELS, loss="cross_entropy", batch_size=BATCH, epochs=9, verbose=0)
    assert net.history["epoch"] == [1, 2]
    assert np.isfinite(net.predict(X)).all()
    assert len(net.fit(X, LABELS, loss="cross_entropy", verbose=0)) == 1


def test_callbacks_are_told_of_the_end(start, press_after):
    told = []

    class Note(gpunn.Callback):
        def on_fit_end(self, trainer):
            told.append(trainer.updates)

    press_after(3)
    with pytest.raises(KeyboardInterrupt):
        start().fit(X, LABELS, callbacks=[Note()], verbose=0)
    assert told == [3]


def test_ctrl_c_before_the_first_minibatch_leaves_everything_as_it_was(start, monkeypatch):
    trainer, expected = start(), start()
    assign = trainer.network.backend.assign

    def press(array, values):
        assign(array, values)
        if array is trainer._order:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer.network.backend, "assign", press)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS)
    assert (trainer.updates, len(trainer.history)) == (0, 0)
    monkeypatch.undo()
    trainer.epoch(X, LABELS)
    expected.epoch(X, LABELS)
    assert outcome(trainer) == outcome(expected)


def test_ctrl_c_is_not_lost_where_a_limit_of_steps_ends_the_call(start, monkeypatch):
    trainer, pressed = start(), []

    def press(array):
        if not pressed:
            pressed.append("Ctrl-C")
            signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(trainer.network.backend, "all_finite", press)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS, steps=2)
    assert trainer.updates == 2


# ------------------------------------------------------------------ at other moments


def press(trainer, record):
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_callback_ends_the_training_after_that_epoch(start):
    trainer, expected = start(), start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, LABELS, epochs=9, callbacks=[press], verbose=0)
    assert trainer.history["epoch"] == [1]
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    expected.fit(X, LABELS, epochs=2, verbose=0)
    assert outcome(trainer) == outcome(expected)


def test_ctrl_c_during_validation_does_not_lose_the_epoch(start, monkeypatch):
    trainer, expected = start(), start()
    monkeypatch.setattr(trainer.network, "evaluate_batches", lambda *args: press(None, None))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, LABELS, epochs=9, validation_data=(X, LABELS), verbose=0)
    expected.fit(X, LABELS, epochs=1, verbose=0)
    assert outcome(trainer) == outcome(expected)


@pytest.mark.parametrize(
    "send",
    [lambda: os.kill(os.getpid(), signal.SIGINT), lambda: signal.raise_signal(signal.SIGINT)],
    ids=["kill", "raise_signal"],
)
def test_ctrl_c_from_outside_ends_a_long_epoch_at_a_minibatch(start, send):
    trainer, expected = start(batch_size=1), start(batch_size=1)
    timer = threading.Timer(0.5, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(LONG_X, LONG_LABELS)
    timer.join()
    updates = trainer.updates
    assert 0 < updates < len(LONG_X)
    expected.epoch(LONG_X, LONG_LABELS, steps=updates)
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


def test_the_interruption_comes_soon(start):
    pressed = []

    def send():
        pressed.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.2, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        start(batch_size=1).fit(LONG_X, LONG_LABELS, epochs=100, verbose=0)
    assert time.perf_counter() - pressed[0] < 1


def test_the_second_ctrl_c_raises_at_once(start, press_after):
    slices = press_after(2, times=2)
    with pytest.raises(KeyboardInterrupt):
        start().epoch(X, LABELS)
    assert slices == [1, 1]


def test_the_first_ctrl_c_lets_the_minibatch_end(start, press_after):
    slices = press_after(2)
    with pytest.raises(KeyboardInterrupt):
        start().epoch(X, LABELS)
    assert slices == [1, 1, "after the signals"]


# ------------------------------------------------------------------ whose handler it is


def own_handler(pressed):
    def handle(number, frame):
        pressed.append(number)

    return handle


def test_a_handler_of_the_programs_own_stays_and_is_called(start, press_after):
    pressed = []
    mine = own_handler(pressed)
    signal.signal(signal.SIGINT, mine)
    press_after(2)
    trainer, expected = start(), start()
    trainer.epoch(X, LABELS)
    assert pressed == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is mine
    expected.epoch(X, LABELS)
    assert outcome(trainer) == outcome(expected)


def test_a_signal_that_the_program_ignores_stays_ignored(start, press_after):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    press_after(2)
    trainer = start()
    trainer.epoch(X, LABELS)
    assert trainer.epochs_done == 1
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_handler_is_back_after_training(start):
    start().fit(X, LABELS, epochs=2, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handler_is_back_after_an_interruption(start, press_after):
    press_after(2)
    with pytest.raises(KeyboardInterrupt):
        start().epoch(X, LABELS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("value", [np.nan, 1e38], ids=["bad data", "divergence"])
def test_the_handler_is_back_after_an_error(start, value):
    x = np.full_like(X, value)
    with pytest.raises((gpunn.DataError, gpunn.DivergenceError)):
        start(loss="quadratic", optimizer=gpunn.SGD(lr=1e30)).fit(x, LABELS, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_callbacks_run_under_the_programs_own_handler(start):
    seen = []

    def look(trainer, record):
        seen.append(signal.getsignal(signal.SIGINT))

    start().fit(X, LABELS, callbacks=[look], verbose=0)
    assert seen == [signal.default_int_handler]


def test_training_in_another_thread_works_and_leaves_the_handler_alone(start):
    trainer, expected, seen = start(), start(), []

    def look(trainer, record):
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(
        target=trainer.fit, args=(X, LABELS), kwargs={"epochs": 2, "callbacks": [look], "verbose": 0}
    )
    thread.start()
    thread.join()
    expected.fit(X, LABELS, epochs=2, verbose=0)
    assert outcome(trainer) == outcome(expected)
    assert seen == [signal.default_int_handler] * 2


# ------------------------------------------------------------------ a real Ctrl-C in a real program

SCRIPT = """
import inspect
import json
import sys

import numpy as np

import gpunn

rng = np.random.default_rng(0)
X, y = rng.standard_normal((20_000, 10)), rng.integers(0, 3, 20_000)


def start():
    layers = [gpunn.Dense(20, activation="relu"), gpunn.Dense(3)]
    net = gpunn.Sequential(layers, input_shape=10, seed=1)
    return gpunn.Trainer(net, loss="cross_entropy", optimizer="adam", batch_size=8)


def tell(trainer, record):
    print("an epoch is done", flush=True)


trainer = start()
try:
    trainer.fit(X, y, epochs=1000, callbacks=[tell], verbose=int(sys.argv[1]))
except KeyboardInterrupt:
    history, updates = len(trainer.history), trainer.updates
    trainer.epoch(X, y)
    again = start()
    epochs = [again.epoch(X, y) for _ in range(trainer.epochs_done)]
    same = trainer.network.theta.tobytes() == again.network.theta.tobytes()
    print(json.dumps({"same": same, "history": history, "updates": updates, "done": trainer.epochs_done}))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one child")
@pytest.mark.parametrize("verbose", [0, 1])
def test_a_program_that_gets_a_real_ctrl_c_can_go_on(verbose):
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(verbose)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with child:
        assert child.stdout.readline() == "an epoch is done\n"
        time.sleep(0.06)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["same"]
    assert found["history"] >= 1
    assert 2500 * found["history"] <= found["updates"] < 2500 * (found["history"] + 1)
    assert found["done"] == found["history"] + 1
    lines = [line for line in err.splitlines() if "compiling kernels" not in line]
    printed = found["history"] if verbose else 0
    assert printed - verbose <= len(lines) <= printed  # It may come after an epoch and before its line.


def test_a_step_that_ctrl_c_meets_is_made_whole(start, monkeypatch):
    trainer, expected = start(), start()
    first = trainer._engine.runner(
        BATCH, trainer._batches(X[:BATCH], LABELS[:BATCH], None, None).targets, gathered=False
    )
    run = first.run

    def pressed_meanwhile(steps=1):
        signal.raise_signal(signal.SIGINT)
        run(steps)

    monkeypatch.setattr(first, "run", pressed_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        trainer.step(X[:BATCH], LABELS[:BATCH])
    expected.step(X[:BATCH], LABELS[:BATCH])
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


@pytest.mark.parametrize("op", ["gather", "adam", "advance"])
@pytest.mark.parametrize("minibatch", [2, PER_EPOCH])
def test_a_second_ctrl_c_within_a_minibatch_undoes_the_call(
    start, device, monkeypatch, tmp_path, op, minibatch
):
    """What is left can be saved, loaded and gone on with as if the call had never been made."""
    if device != "numpy":
        pytest.skip("only the NumPy backend is in Python within a minibatch")
    from gpunn.backends import numpy as backend

    trainer, expected = start(), start()
    for each in (trainer, expected):
        each.epoch(X, LABELS, steps=1)
    monkeypatch.setattr(training, "_next_chunk", lambda steps, seconds: 1)
    trainer._engine._runners.clear()
    kernel, calls = backend.KERNELS[op], []

    def pressed_twice(*args, **kwargs):
        kernel(*args, **kwargs)
        calls.append(op)
        if trainer.updates >= minibatch - 1 and len(calls) >= minibatch - 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    pressed_twice.__signature__ = inspect.signature(kernel)
    monkeypatch.setitem(backend.KERNELS, op, pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS)
    monkeypatch.setitem(backend.KERNELS, op, kernel)
    trainer.save(tmp_path / "run")
    again = gpunn.Trainer.load(tmp_path / "run", device=device)
    again.epoch(X, LABELS)
    expected.epoch(X, LABELS)
    assert again.network.theta.tobytes() == expected.network.theta.tobytes()


def test_a_second_ctrl_c_after_the_last_minibatch_undoes_the_call_too(start, device, monkeypatch, tmp_path):
    trainer, expected = start(), start()
    real = trainer._record

    def pressed_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return real()

    monkeypatch.setattr(trainer, "_record", pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(X, LABELS)
    trainer.save(tmp_path / "run")
    again = gpunn.Trainer.load(tmp_path / "run", device=device)
    assert (again.updates, again.epochs_done) == (0, 0)
    again.epoch(X, LABELS)
    expected.epoch(X, LABELS)
    assert again.network.theta.tobytes() == expected.network.theta.tobytes()
