"""Batches that come one by one train as one would by hand, whatever they come from and whatever breaks."""

from __future__ import annotations

import gc
import re
import signal
import weakref

import numpy as np
import pytest

import gpunn
from gpunn import engine, training
from gpunn.streams import Stream
from gpunn.training import HELD

N, BATCH = 23, 5
X = np.random.default_rng(3).standard_normal((N, 4))
LABELS = np.random.default_rng(4).integers(0, 3, N)
DENSE = np.eye(3)[LABELS]
WEIGHTS = np.random.default_rng(5).random(N) + 0.1
BATCHES = [(X[at : at + BATCH], LABELS[at : at + BATCH]) for at in range(0, N, BATCH)]
UNEVEN = [(X[a:b], LABELS[a:b]) for a, b in ((0, 1), (1, 9), (9, 10), (10, 23))]


class Spike(gpunn.Schedule):
    """Harmless, but for one step."""

    unit = "step"

    def factors(self, x, width):
        return np.where(x == 6, 1e38, 1e-6)


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler before each test, and the one that was there after it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start(device):
    """Make a trainer of a small network, always from the same seed."""

    def trainer(loss="cross_entropy", optimizer="adam", hidden="tanh", dtype="float64", **kwargs):
        layers = [gpunn.Dense(5, activation=hidden), gpunn.Dense(3)]
        net = gpunn.Sequential(layers, input_shape=4, device=device, dtype=dtype, seed=1)
        how = {"loss": loss, "optimizer": optimizer, "batch_size": N, "metrics": ("accuracy",)}
        return gpunn.Trainer(net, **{**how, **kwargs})

    return trainer


def stepped(trainer, batches, epochs=1):
    """The same training, one explicit step a batch; returns Θ."""
    for _ in range(epochs):
        for x, y, *weight in batches:
            trainer.step(x, y, sample_weight=weight[0] if weight else None)
    return trainer.network.theta


def theta_after(trainer, source, **how):
    trainer.fit(source, verbose=0, **how)
    return trainer.network.theta


class Loader:
    """What a loader of another library looks like: it can be gone through again and again."""

    def __init__(self, batches=BATCHES):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Sized(Loader):
    def __len__(self):
        return len(self.batches)


class Unsized(Loader):
    def __len__(self):
        raise NotImplementedError("nobody knows")


class Callable(Sized):
    """What can be gone through is, even where it can be called as well."""

    def __call__(self):
        raise AssertionError("called")


SOURCES = {
    "a list": lambda: BATCHES,
    "a tuple": lambda: tuple(BATCHES),
    "a list of lists": lambda: [list(batch) for batch in BATCHES],
    "a loader": Loader,
    "a loader with a length": Sized,
    "a loader without a length": Unsized,
    "a loader that can be called": Callable,
    "a function that makes a list": lambda: lambda: BATCHES,
    "a function that makes a generator": lambda: lambda: (batch for batch in BATCHES),
    "a class": lambda: Loader,
    "a stream": lambda: Stream(BATCHES),
}
every_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


# ------------------------------------------------------------------ as one would by hand


@every_source
def test_batches_train_as_explicit_steps_would(start, make):
    expected = stepped(start(), BATCHES, 3)
    np.testing.assert_array_equal(theta_after(start(), make(), epochs=3), expected)


@every_source
def test_the_record_counts_what_came(start, make):
    history = start().fit(make(), epochs=2, verbose=0)
    assert (history["samples"], history["updates"], history["epoch"]) == ([N, N], [5, 10], [1, 2])


@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_batches_of_any_size_come_whole_whatever_the_batch_size(start, batch_size):
    found = theta_after(start(batch_size=batch_size), UNEVEN, epochs=2)
    np.testing.assert_array_equal(found, stepped(start(), UNEVEN, 2))


def test_a_batch_without_weight_costs_nothing_and_moves_nothing(start):
    trainer, other = start(optimizer="sgd"), start(optimizer="sgd")
    record = trainer.epoch([(X, LABELS, WEIGHTS), (X, LABELS, WEIGHTS * 0)])
    expected = other.epoch([(X, LABELS, WEIGHTS)])
    assert trainer.network.theta.tobytes() == other.network.theta.tobytes()
    assert (record["loss"], record["samples"]) == (expected["loss"], 2 * N)


def test_batches_of_more_sizes_than_programs_are_kept(start):
    batches = [(X[:n], LABELS[:n]) for n in range(1, N + 1)]
    assert len(batches) > engine.CACHED_RUNNERS
    np.testing.assert_array_equal(theta_after(start(), batches, epochs=2), stepped(start(), batches, 2))


def test_batches_train_as_the_epoch_over_the_arrays_in_order(start):
    trainer, expected = start(batch_size=BATCH), start(batch_size=BATCH)
    record, other = trainer.epoch(BATCHES), expected.epoch(X, LABELS, shuffle=False)
    assert {**record, "seconds": 0} == {**other, "seconds": 0}
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


def test_weights_come_with_the_batches(start):
    batches = [(X[a:b], LABELS[a:b], WEIGHTS[a:b]) for a, b in ((0, 9), (9, N))]
    np.testing.assert_array_equal(theta_after(start(), batches, epochs=2), stepped(start(), batches, 2))
    assert (
        theta_after(start(), [batch[:2] for batch in batches]).tolist() != stepped(start(), batches).tolist()
    )


def test_class_weights_train_as_the_weights_of_the_labels(start):
    weights = np.array([1.0, 3.0, 0.5])
    weighted = [(x, y, weights[y]) for x, y in UNEVEN]
    found = theta_after(start(), UNEVEN, class_weight={1: 3.0, 2: 0.5})
    np.testing.assert_array_equal(found, stepped(start(), weighted))


def test_rows_of_targets_come_too(start):
    batches = [(x, DENSE[:0]) if not len(x) else (x, np.eye(3)[y]) for x, y in UNEVEN]
    found = theta_after(start("mse"), batches, epochs=2)
    np.testing.assert_array_equal(found, stepped(start("mse"), batches, 2))


def test_other_numbers_and_lists_are_converted(start):
    batches = [(x.astype(np.float32).tolist(), y.astype(np.int8)) for x, y in BATCHES]
    same = [(x.astype(np.float32), y) for x, y in BATCHES]
    np.testing.assert_array_equal(theta_after(start(), batches), stepped(start(), same))


def test_tensors_of_another_library_are_taken_by_their_array(start):
    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.values, dtype)

    batches = [(Tensor(x), Tensor(y)) for x, y in BATCHES]
    np.testing.assert_array_equal(theta_after(start(), batches), stepped(start(), BATCHES))


def test_frames_come_too(start):
    pandas = pytest.importorskip("pandas", reason="frames are those of pandas")
    batches = [(pandas.DataFrame(x, columns=list("abcd")), pandas.Series(y)) for x, y in BATCHES]
    np.testing.assert_array_equal(theta_after(start(), batches), stepped(start(), BATCHES))


# ------------------------------------------------------------------ where an epoch ends


def endless(seen=None):
    while True:
        for number, batch in enumerate(BATCHES):
            if seen is not None:
                seen.append(number)
            yield batch


def test_a_generator_without_end_goes_on_where_an_epoch_stopped(start):
    seen = []
    trainer = start()
    history = trainer.fit(endless(seen), epochs=3, steps_per_epoch=4, verbose=0)
    assert history["updates"] == [4, 8, 12]
    assert seen == [*range(5), *range(5), 0, 1]
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), (BATCHES * 3)[:12]))


def test_a_function_is_called_for_each_epoch(start):
    seen = []
    start().fit(lambda: (seen.append(i) or batch for i, batch in enumerate(BATCHES)), epochs=2, verbose=0)
    assert seen == [*range(len(BATCHES))] * 2


def test_with_steps_per_epoch_a_function_is_gone_on_with(start):
    seen = []
    start().fit(lambda: endless(seen), epochs=2, steps_per_epoch=3, verbose=0)
    assert seen == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("steps", [1, 2, len(BATCHES), len(BATCHES) + 1, 3 * len(BATCHES)])
def test_with_steps_per_epoch_a_list_goes_round(start, steps):
    """No batch is left out for ever, and each epoch has the number of steps that its schedule counts on."""
    trainer = start()
    records = trainer.fit(BATCHES, epochs=3, steps_per_epoch=steps, verbose=0).records
    assert [record["updates"] for record in records] == [steps, 2 * steps, 3 * steps]
    rounds = (BATCHES * 9)[: 3 * steps]
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), rounds))


def test_progress_is_told_of_within_an_epoch_only(start, tmp_path):
    """Between the last batch and the end of the epoch a saved run would begin the epoch anew."""
    seen = []

    class Watching(gpunn.Callback):
        def on_progress(self, trainer):
            seen.append(trainer.updates % len(BATCHES))

    start().fit(BATCHES, epochs=3, callbacks=[Watching()], verbose=0)
    assert 0 not in seen


def test_an_epoch_of_so_many_batches(start):
    trainer, generator = start(), endless()
    records = [trainer.epoch(generator, steps=3) for _ in range(2)]
    assert [record["updates"] for record in records] == [3, 6]
    assert "partial" not in records[0]
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), (BATCHES * 2)[:6]))


def test_a_generator_may_be_gone_through_once(start):
    np.testing.assert_array_equal(theta_after(start(), iter(BATCHES)), stepped(start(), BATCHES))


@pytest.mark.parametrize(
    "made", [lambda: (b for b in BATCHES), lambda: iter(BATCHES), lambda: map(tuple, BATCHES)]
)
def test_a_generator_is_refused_for_more_epochs_before_it_is_touched(start, made):
    source = made()
    with pytest.raises(gpunn.ArgumentError, match=r"can be gone through once, 2 epochs .*steps_per_epoch"):
        start().fit(source, epochs=2, verbose=0)
    assert len(list(source)) == 5


def test_a_generator_that_runs_out_says_after_how_many_and_keeps_what_was_learnt(start):
    trainer = start()
    with pytest.raises(gpunn.DataError, match=r"batches have run out after 10 batches: .*an epoch"):
        trainer.fit(iter(BATCHES * 2), epochs=9, steps_per_epoch=5, verbose=0)
    assert trainer.history["updates"] == [5, 10]
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), BATCHES, 2))


def test_a_generator_that_ends_within_an_epoch_ends_the_epoch(start):
    history = start().fit(iter(BATCHES), epochs=2, steps_per_epoch=3, verbose=0)
    assert history["samples"] == [15, 8]


# ------------------------------------------------------------------ what is refused

WRONG = {
    "empty": ([], "the batches have run out: expected at least one"),
    "a function of nothing": (lambda: [], "the batches have run out: expected at least one"),
    "an array": ([BATCHES[0], X], r"batch 2 is a ndarray of shape \(23, 4\), expected a pair"),
    "x alone": ([(X,)], "batch 1 is a tuple of 1, expected a pair"),
    "four things": ([(X, LABELS, WEIGHTS, 1)], "batch 1 is a tuple of 4"),
    "a mapping": ([{"x": X, "y": LABELS}], "batch 1 is a dict, expected a pair"),
    "a text": (["xy"], "batch 1 is a str, expected a pair"),
    "None": ([BATCHES[0], BATCHES[1], None], "batch 3 is a NoneType"),
    "too few columns": ([BATCHES[0], (X[:, :3], LABELS)], r"batch 2: x has shape \(23, 3\)"),
    "too few labels": ([BATCHES[0], (X, LABELS[:-1])], r"batch 2: y has shape \(22,\)"),
    "no examples": ([BATCHES[0], (X[:0], LABELS[:0])], "batch 2: x is empty"),
    "a label of 3": ([BATCHES[0], (X, LABELS + 1)], "batch 2: y holds the label 3"),
    "text": ([(np.array([["a"] * 4]), [0])], "batch 1: x .*<U1"),
    "y is None": ([(X, None)], "batch 1: y .*NoneType"),
    "too few weights": ([(X, LABELS, WEIGHTS[:-1])], r"batch 1: sample_weight has shape \(22,\)"),
    "a negative weight": ([BATCHES[0], (X, LABELS, -WEIGHTS)], "batch 2: sample_weight is -"),
    "weights once": (
        [BATCHES[0], (X, LABELS, WEIGHTS)],
        "batch 2 comes with labels and weights, the first .*",
    ),
    "labels, then targets": (
        [BATCHES[0], (X, DENSE)],
        "batch 2 comes with targets, the first one with labels",
    ),
}


@pytest.mark.parametrize(("source", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_batch_is_named_and_the_network_stays_usable(start, source, message):
    trainer = start()
    with pytest.raises(gpunn.ArgumentError, match=message):
        trainer.fit(source, verbose=0)
    trained = trainer.updates
    assert trained == (
        0 if callable(source) else sum(batch is BATCHES[0] or batch is BATCHES[1] for batch in source)
    )
    assert trainer.epoch(X, LABELS)["updates"] == trained + 1


REFUSED = {
    "an array without y": ((X,), {}, "y is missing .*; X is a ndarray: give both"),
    "a mapping without y": (({"x": X},), {}, "X is a dict"),
    "a number": ((3,), {}, "X is a int"),
    "steps with arrays": ((X, LABELS), {"steps_per_epoch": 3}, "steps_per_epoch is for an iterable"),
    "no steps": ((BATCHES,), {"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    "weights apart": ((BATCHES,), {"sample_weight": WEIGHTS}, "sample_weight comes with each batch"),
    "balanced": ((BATCHES,), {"class_weight": "balanced"}, "does not tell how often each class comes"),
    "a function of a number": ((lambda: 3,), {}, "gives 3, expected an iterable"),
}


@pytest.mark.parametrize(("args", "how", "message"), REFUSED.values(), ids=REFUSED)
def test_a_call_is_refused_for(start, args, how, message):
    trainer = start()
    with pytest.raises(gpunn.ArgumentError, match=message):
        trainer.fit(*args, verbose=0, **how)
    assert trainer.updates == 0


def test_a_stream_does_not_go_on_with_a_stopped_epoch_over_arrays(start):
    trainer = start(batch_size=BATCH)
    trainer.epoch(X, LABELS, steps=2)
    with pytest.raises(gpunn.ArgumentError, match="epoch 1 was stopped after 10 of 23 examples"):
        trainer.epoch(BATCHES)
    assert trainer.epoch(X, LABELS)["samples"] == N


def test_epochs_over_a_stream_and_over_arrays_take_turns(start):
    trainer, expected = start(batch_size=BATCH), start(batch_size=BATCH)
    for _ in range(2):
        trainer.epoch(BATCHES)
        expected.epoch(X, LABELS, shuffle=False)
        trainer.epoch(X, LABELS)
        expected.epoch(X, LABELS)
    assert trainer.network.theta.tobytes() == expected.network.theta.tobytes()


# ------------------------------------------------------------------ validation and evaluation

VALIDATION = {
    "a list": UNEVEN,
    "a list of two": [(X[:9], LABELS[:9]), (X[9:], LABELS[9:])],
    "a tuple of two": ((X[:9], LABELS[:9]), (X[9:], LABELS[9:])),
    "a list of two lists": [[X[:9], LABELS[:9]], [X[9:], LABELS[9:]]],
    "a list of one": [(X, LABELS)],
    "a function": lambda: iter(UNEVEN),
    "a loader": Loader(UNEVEN),
    "a pair of arrays": (X, LABELS),
    "a list of two arrays": [X, LABELS],
    "a pair of lists": (X.tolist(), LABELS.tolist()),
    "a list of two lists of numbers": [X.tolist(), LABELS.tolist()],
}


@pytest.mark.parametrize("data", VALIDATION.values(), ids=VALIDATION)
@pytest.mark.parametrize("source", [(X, LABELS), (BATCHES,)], ids=["arrays", "batches"])
def test_validation_comes_in_batches_or_whole(start, data, source):
    trainer = start()
    records = trainer.fit(*source, epochs=2, validation_data=data, verbose=0).records
    expected = trainer.evaluate(X, LABELS)
    assert records[1]["val_loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert records[1]["val_accuracy"] == expected["accuracy"]
    assert records[0]["val_loss"] != records[1]["val_loss"]


def test_two_short_lists_are_a_pair(start):
    history = start().fit(X, LABELS, validation_data=(X[:2].tolist(), [0, 1]), verbose=0)
    assert np.isfinite(history["val_loss"][0])


WRONG_VALIDATION = {
    "NaN": ([BATCHES[0], (X * np.nan, LABELS)], "fit: validation batch 2: x holds nan at row 0"),
    "too few labels": ([BATCHES[0], (X, LABELS[1:])], r"validation batch 2: y has shape \(22,\)"),
    "x alone": ([BATCHES[0], BATCHES[1], (X,)], "validation batch 3 is a tuple of 1"),
    "empty": ([], "the validation batches have run out"),
    "a generator": (iter(BATCHES), "validation_data is a list_iterator, which can be gone through once"),
    "a text": ("data", "validation_data is not a pair"),
    "an array": (X, "validation_data is not a pair"),
    "labels, then targets": ([BATCHES[0], BATCHES[1], (X, DENSE)], "validation batch 3 comes with targets"),
}


@pytest.mark.parametrize(("data", "message"), WRONG_VALIDATION.values(), ids=WRONG_VALIDATION)
def test_validation_that_cannot_work_is_refused_before_training(start, data, message):
    trainer = start()
    with pytest.raises(gpunn.ArgumentError, match=message):
        trainer.fit(X, LABELS, validation_data=data, verbose=0)
    assert trainer.updates == 0


def test_validation_from_a_function_is_scanned_as_it_comes(start):
    trainer = start()
    with pytest.raises(gpunn.DataError, match="fit: validation batch 1: x holds nan at row 0"):
        trainer.fit(X, LABELS, validation_data=lambda: [(X * np.nan, LABELS)], verbose=0)
    assert len(trainer.history) == 1


@every_source
def test_a_trainer_and_a_network_evaluate_batches(start, make):
    trainer = start()
    expected = trainer.evaluate(X, LABELS)
    assert trainer.evaluate(make()) == pytest.approx(expected, rel=1e-12)
    found = trainer.network.evaluate(make(), loss="cross_entropy", metrics=("accuracy",))
    assert found == pytest.approx(expected, rel=1e-12)


def test_evaluate_takes_the_weights_of_the_batches(start):
    net = start().network
    batches = [(X[a:b], LABELS[a:b], WEIGHTS[a:b]) for a, b in ((0, 9), (9, N))]
    expected = net.evaluate(X, LABELS, loss="cross_entropy", sample_weight=WEIGHTS)["loss"]
    assert net.evaluate(batches, loss="cross_entropy")["loss"] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(gpunn.ArgumentError, match="sample_weight comes with each batch"):
        net.evaluate(BATCHES, loss="cross_entropy", sample_weight=WEIGHTS)


# ------------------------------------------------------------------ when something breaks


@pytest.mark.parametrize("at", [1, 2, 5, HELD, HELD + 1, 2 * HELD, 2 * HELD + 1])
def test_nan_in_a_batch_names_the_batch_and_the_row_and_puts_the_weights_back(start, at):
    batches = (BATCHES * 20)[: 2 * HELD + 5]
    spoilt = batches[at - 1][0].copy()
    spoilt[1, 2] = np.nan
    batches[at - 1] = (spoilt, batches[at - 1][1])
    trainer = start()
    trainer.epoch(BATCHES)
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DataError, match=rf"training: batch {at}: x holds nan at row 1, column 2"):
        trainer.fit(batches, verbose=0)
    assert (trainer.network.theta.tobytes(), trainer.updates) == (before, 5)
    np.testing.assert_array_equal(theta_after(trainer, BATCHES), stepped(start(), BATCHES, 2))


@pytest.mark.parametrize("at", [1, 3, HELD, HELD + 1, 2 * HELD])
def test_a_step_that_overflows_is_named_with_its_op(start, at):
    """A tame network in float32, and one batch whose square is beyond float32."""
    batches = [(x, np.eye(3)[y]) for x, y in (BATCHES * 20)[: 2 * HELD + 5]]
    batches[at - 1] = (batches[at - 1][0] * 1e25, batches[at - 1][1] * 1e25)
    trainer = start("mse", gpunn.SGD(lr=1e-3), "identity", "float32")
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DivergenceError) as caught:
        trainer.fit(batches, verbose=0)
    assert re.search(rf"diverged at step {at} \(epoch 1\): layer \d Dense: backward: ", str(caught.value))
    assert trainer.network.theta.tobytes() == before


def test_weights_that_overflow_in_the_last_batch_of_an_epoch_are_found(start):
    batches = [*((x, np.eye(3)[y]) for x, y in BATCHES), (X * 1e18, DENSE * 1e18)]
    trainer = start("mse", gpunn.SGD(lr=1e9), "identity", "float32")
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DivergenceError, match=r"diverged at step \d"):
        trainer.fit(batches, verbose=0)
    assert trainer.network.theta.tobytes() == before


def test_divergence_under_a_schedule_is_replayed_with_the_rates_it_had(start):
    """The rate is harmless but for the seventh update, whose weights are beyond float32 at once."""
    batches = [(x, np.eye(3)[y]) for x, y in BATCHES * 2]
    trainer = start("mse", gpunn.SGD(lr=10.0, schedule=Spike()), "identity", "float32")
    with pytest.raises(gpunn.DivergenceError, match=r"diverged at step 7 \(epoch 1\): update: sgd"):
        trainer.fit(batches, verbose=0)


def test_nan_in_a_buffer_that_is_filled_again_and_again_names_the_last_batch(start):
    buffer = np.empty((BATCH, 4))

    def batches():
        for number in range(4):
            buffer[:] = X[:BATCH] if number < 3 else np.nan
            yield buffer, LABELS[:BATCH]

    trainer = start()
    before = trainer.network.theta.tobytes()
    with pytest.raises(gpunn.DataError, match="training: batch 4: x holds nan at row 0"):
        trainer.fit(batches, verbose=0)
    assert trainer.network.theta.tobytes() == before


def test_a_generator_that_raises_leaves_the_network_usable(start):
    def broken():
        yield BATCHES[0]
        yield BATCHES[1]
        raise OSError("the disk is gone")

    trainer = start()
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(broken, epochs=3, verbose=0)
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), BATCHES[:2]))
    assert (trainer.epochs_done, len(trainer.history)) == (0, 0)
    found = theta_after(trainer, BATCHES)
    np.testing.assert_array_equal(found, stepped(start(), [*BATCHES[:2], *BATCHES]))
    assert trainer.history["samples"] == [N]


def test_a_run_whose_generator_raised_is_saved_and_loaded(start, tmp_path, device):
    def broken():
        yield BATCHES[0]
        raise OSError("the disk is gone")

    trainer = start()
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.epoch(broken)
    trainer.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    np.testing.assert_array_equal(theta_after(again, BATCHES), theta_after(trainer, BATCHES))


# ------------------------------------------------------------------ Ctrl-C


def pressing(at, times=1, batches=BATCHES):
    """Batches; Ctrl-C is pressed while one of them is made."""
    for number, batch in enumerate(batches, 1):
        if number == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        yield batch


@pytest.mark.parametrize("at", range(1, 6))
def test_ctrl_c_ends_a_stream_behind_the_batch_that_was_being_made(start, at):
    trainer = start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(pressing(at), verbose=0)
    assert (trainer.updates, trainer.epochs_done, len(trainer.history)) == (at, 0, 0)
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), BATCHES[:at]))
    found = theta_after(trainer, BATCHES)
    np.testing.assert_array_equal(found, stepped(start(), [*BATCHES[:at], *BATCHES]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("at", range(1, 6))
def test_a_second_ctrl_c_undoes_the_epoch_over_the_stream(start, at):
    trainer = start()
    trainer.epoch(BATCHES)
    before = trainer.network.theta.tobytes()
    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(pressing(at, times=2))
    assert (trainer.network.theta.tobytes(), trainer.updates, trainer.epochs_done) == (before, 5, 1)
    np.testing.assert_array_equal(theta_after(trainer, BATCHES), stepped(start(), BATCHES, 2))


# ------------------------------------------------------------------ as large as it likes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_the_last_few_batches_of_a_long_generator_are_held(start, dtype):
    made, most = [], 0

    def alive():
        return sum(batch() is not None for batch in made)

    def batches():
        nonlocal most
        for _ in range(3 * HELD):
            x = np.zeros((3, 4), dtype)
            made.append(weakref.ref(x))
            most = max(most, alive())
            yield x, [0, 1, 2]
            del x

    start(dtype=dtype).fit(batches, epochs=2, verbose=0)
    assert HELD <= most <= HELD + 2
    assert alive() == 0


@pytest.mark.parametrize("schedule", [None, gpunn.Cosine(9), gpunn.Cosine(9, unit="step")], ids=str)
def test_each_batch_asks_for_its_own_rate_only(start, monkeypatch, schedule):
    """Tables for all batches so far would make a long epoch quadratic."""
    asked = []
    factors = gpunn.Cosine.factors
    monkeypatch.setattr(
        gpunn.Cosine, "factors", lambda self, x, width: asked.append(len(x)) or factors(self, x, width)
    )
    start(optimizer=gpunn.SGD(schedule=schedule)).fit(Sized(BATCHES * 4), verbose=0)
    assert sum(asked) == (0 if schedule is None else 20)


def test_a_schedule_in_epochs_has_to_know_how_long_one_is(start):
    trainer = start(optimizer=gpunn.SGD(schedule=gpunn.Cosine(9)))
    with pytest.raises(gpunn.ArgumentError, match=r"counts epochs.*give steps_per_epoch.*unit='step'"):
        trainer.fit(lambda: BATCHES, verbose=0)
    assert trainer.updates == 0
    trainer.fit(lambda: BATCHES, steps_per_epoch=5, verbose=0)
    assert trainer.updates == 5


def test_progress_is_told_within_a_stream(start, monkeypatch):
    monkeypatch.setattr(training, "SLICE", 0.0)
    updates = []

    class Watch(gpunn.Callback):
        def on_progress(self, trainer):
            updates.append(trainer.updates)

    start().fit(BATCHES, epochs=2, callbacks=[Watch()], verbose=0)
    assert updates == sorted(updates)
    assert {1, 2, 3, 4, 6, 7, 8, 9} <= set(updates)


def test_epochs_of_so_many_steps_go_on_in_a_list(start):
    trainer = start()
    for _ in range(3):
        trainer.epoch(BATCHES, steps=2)
    np.testing.assert_array_equal(trainer.network.theta, stepped(start(), (BATCHES * 2)[:6]))


def test_batches_of_which_only_some_are_weighted_are_refused_in_evaluation_too(start):
    net = start().network
    with pytest.raises(gpunn.DataError, match="batch 2 comes with labels and weights"):
        net.evaluate([(X, LABELS), (X, LABELS, WEIGHTS)], loss="cross_entropy")


def test_a_trainer_keeps_no_loader_that_it_has_gone_through(start):
    class Loader:
        def __iter__(self):
            return iter(BATCHES)

    trainer, loader = start(), Loader()
    trainer.epoch(loader)
    alive = weakref.ref(loader)
    del loader
    gc.collect()
    assert alive() is None


def test_minibatches_that_do_not_fit_on_a_gpu_stay_on_the_host(device, monkeypatch):
    X, y = np.random.default_rng(0).random((40, 5), dtype=np.float32), np.arange(40) % 3
    batches = [(X[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)]
    curves = []
    for resident in (0.5, 0.0):  # The share of the free memory that data may take there.
        net = gpunn.Sequential([gpunn.Dense(3, "softmax")], input_shape=5, device=device, seed=0)
        monkeypatch.setattr(net.backend, "resident", resident, raising=False)
        history = net.fit(batches, loss="cross_entropy", optimizer=gpunn.SGD(lr=0.5), epochs=3, verbose=0)
        curves.append(history["loss"])
    np.testing.assert_allclose(*curves, rtol=1e-6)


def test_large_minibatches_are_not_all_held(device, monkeypatch):
    monkeypatch.setattr("gpunn.training.HELD_BYTES", 100)
    X, y = np.random.default_rng(0).standard_normal((60, 5)), np.arange(60) % 3
    net = gpunn.Sequential([gpunn.Dense(3, "softmax")], input_shape=5, device=device, seed=0)
    batches = [(X[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10)]
    before = [net.fit(batches, loss="cross_entropy", verbose=0)["loss"][-1]]
    spoilt = [*batches[:4], (np.full((10, 5), np.nan), y[:10])]
    with pytest.raises(gpunn.GpunnError, match=r"NaN|nan|not finite"):
        net.fit(spoilt, loss="cross_entropy", verbose=0)
    assert net.evaluate(X, y, loss="cross_entropy")["loss"] <= before[0]
