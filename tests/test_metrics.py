"""Metrics against scikit-learn, for every kind of target, in batches of every size, in fit and evaluate."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import gpunn
from gpunn.metrics import metrics_named

scores = pytest.importorskip("sklearn.metrics", reason="scikit-learn is what the metrics are held against")

N, BATCH = 53, 8
RNG = np.random.default_rng(3)
X = RNG.standard_normal((N, 5))
LABELS = RNG.choice(5, N, p=[0.4, 0.3, 0.2, 0.1, 0.0])
ONE_HOT = np.eye(5)[LABELS]
TRAITS = (RNG.random((N, 5)) < [0.1, 0.5, 0.8, 0.0, 1.0]).astype(float)
YES = (RNG.random(N) < 0.3).astype(int)
NUMBERS = RNG.standard_normal((N, 3)) * [1, 10, 100] + [0, 5, -1000]
KINDS = ("accuracy", "confusion", "precision", "recall", "f1")
batch_sizes = pytest.mark.parametrize("batch_size", [1, 7, 52, 53, 1000])


@pytest.fixture
def build(device):
    """Make a network of one layer whose outputs are all over the place."""

    def network(units, activation="identity", scale=1.0, dtype="float64"):
        net = gpunn.Sequential(
            [gpunn.Dense(units, activation=activation)], input_shape=5, device=device, dtype=dtype, seed=1
        )
        net.theta = np.random.default_rng(9).standard_normal(net.layout.count) * scale
        return net

    return network


def as_classes(real, said, classes):
    """What scikit-learn makes of classes, as gpunn names it; every class counts, even one that never is."""
    how = {"labels": range(classes), "average": "macro", "zero_division": 0}
    return {
        "accuracy": scores.accuracy_score(real, said),
        "confusion": scores.confusion_matrix(real, said, labels=range(classes)),
        "precision": scores.precision_score(real, said, **how),
        "recall": scores.recall_score(real, said, **how),
        "f1": scores.f1_score(real, said, **how),
    }


def as_answers(real, said):
    """What scikit-learn makes of a yes or no an output."""
    how = {"average": "macro", "zero_division": 0}
    return {
        "accuracy": scores.accuracy_score(real, said),
        "confusion": scores.multilabel_confusion_matrix(real, said),
        "precision": scores.precision_score(real, said, **how),
        "recall": scores.recall_score(real, said, **how),
        "f1": scores.f1_score(real, said, **how),
    }


def as_one_answer(real, said):
    """One output: the counts of its yes are those of the second class of two."""
    return {
        "accuracy": scores.accuracy_score(real, said),
        "confusion": scores.confusion_matrix(real, said, labels=[0, 1])[None],
        "precision": scores.precision_score(real, said, zero_division=0),
        "recall": scores.recall_score(real, said, zero_division=0),
        "f1": scores.f1_score(real, said, zero_division=0),
    }


def held(found, expected):
    assert found.keys() - {"loss"} == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


# ------------------------------------------------------------------ against scikit-learn

CASES = {
    "labels": (5, "softmax", "cross_entropy", LABELS),
    "labels, z": (5, "identity", "cross_entropy", LABELS),
    "labels, quadratic": (5, "sigmoid", "quadratic", LABELS),
    "labels of yes-or-no outputs": (5, "sigmoid", "binary_cross_entropy", LABELS),
    "rows of one class": (5, "softmax", "cross_entropy", ONE_HOT),
    "rows of probabilities": (5, "softmax", "cross_entropy", (ONE_HOT + 0.1) / 1.5),
    "rows, mse": (5, "tanh", "mse", ONE_HOT * 2 - 1),
    "several answers": (5, "sigmoid", "binary_cross_entropy", TRAITS),
    "several answers, z": (5, "identity", "binary_cross_entropy", TRAITS),
    "one answer": (1, "sigmoid", "binary_cross_entropy", YES),
    "one answer, z": (1, "identity", "binary_cross_entropy", YES),
    "one answer, a column": (1, "sigmoid", "mse", YES[:, None]),
    "one answer, mae": (1, "hard_sigmoid", "mae", YES.astype(bool)),
}
every_case = pytest.mark.parametrize(("units", "activation", "loss", "y"), CASES.values(), ids=CASES)


def expected_of(net, loss, y):
    """The metrics of classes, or of answers, from the network's predictions alone."""
    outputs = net.predict(X)
    split = 0.0 if loss == "binary_cross_entropy" and net.layers[0].activation == "identity" else 0.5
    if net.outputs == 1:
        return as_one_answer(np.ravel(y).astype(int), (outputs[:, 0] > split).astype(int))
    if loss == "binary_cross_entropy" and y.ndim == 2:
        return as_answers(y, outputs > split)
    return as_classes(y if y.ndim == 1 else y.argmax(axis=1), outputs.argmax(axis=1), net.outputs)


@every_case
@batch_sizes
def test_evaluate_measures_what_scikit_learn_measures(build, units, activation, loss, y, batch_size):
    net = build(units, activation)
    held(net.evaluate(X, y, loss=loss, metrics=KINDS, batch_size=batch_size), expected_of(net, loss, y))


@every_case
def test_fit_measures_each_minibatch_before_its_update(build, units, activation, loss, y):
    """A rate that moves nothing: the outputs are those of the start in every minibatch."""
    net = build(units, activation)
    expected = expected_of(net, loss, y)
    how = {"loss": loss, "optimizer": gpunn.SGD(lr=1e-300), "batch_size": BATCH, "metrics": KINDS}
    records = net.fit(X, y, epochs=2, validation_data=(X[::-1], y[::-1]), verbose=0, **how).records
    names = ("loss", *KINDS)
    for record in records:
        held({name: record[name] for name in names}, expected)
        held({name: record[f"val_{name}"] for name in names}, expected)
    assert json.loads(json.dumps(records)) == records
    assert isinstance(records[0]["confusion"][0][0], (int, list))


@batch_sizes
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("y", [LABELS, ONE_HOT], ids=["labels", "rows"])
def test_top_k_is_that_of_scikit_learn(build, batch_size, k, y):
    net = build(5)
    how = {"loss": "cross_entropy", "metrics": (f"top_{k}", "top_5"), "batch_size": batch_size}
    expected = scores.top_k_accuracy_score(LABELS, net.predict(X), k=k, labels=range(5))
    assert net.evaluate(X, y, **how)[f"top_{k}"] == pytest.approx(expected)
    assert net.evaluate(X, y, **how)["top_5"] == 1


@batch_sizes
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quadratic"])
@pytest.mark.parametrize("columns", [slice(0, 3), slice(1, 2)], ids=["three outputs", "one output"])
def test_errors_of_numbers_are_those_of_scikit_learn(build, batch_size, loss, columns):
    y = NUMBERS[:, columns]
    net = build(y.shape[1], scale=30)
    found = net.evaluate(X, y, loss=loss, metrics=("mae", "r2"), batch_size=batch_size)
    held(
        found,
        {
            "mae": scores.mean_absolute_error(y, net.predict(X)),
            "r2": scores.r2_score(y, net.predict(X), multioutput="uniform_average"),
        },
    )


def test_errors_of_probabilities_are_measured_behind_their_activation(build):
    net = build(5, "sigmoid")
    found = net.evaluate(X, TRAITS, loss="binary_cross_entropy", metrics=("mae",))
    assert found["mae"] == pytest.approx(scores.mean_absolute_error(TRAITS, net.predict(X)))


@pytest.mark.parametrize("metric", ["mae", "r2"])
@pytest.mark.parametrize(
    ("loss", "y", "link"),
    [("cross_entropy", ONE_HOT, "softmax"), ("binary_cross_entropy", TRAITS, "sigmoid")],
)
def test_z_is_not_compared_with_probabilities(build, metric, loss, y, link):
    message = rf"metric '{metric}' .* loss '{loss}' this network's output is z: .* '{link}'"
    with pytest.raises(gpunn.ArgumentError, match=message):
        build(5).evaluate(X, y, loss=loss, metrics=(metric,))


# ------------------------------------------------------------------ r2, where numbers cancel


@pytest.mark.parametrize("mean", [1e6, -1e8, 1e10])
@batch_sizes
def test_r2_keeps_its_digits_where_the_mean_is_large(build, mean, batch_size):
    net = build(1)
    y = mean + RNG.standard_normal(N)
    net.parameters["layers.0.bias"] = [mean]
    expected = scores.r2_score(y, net.predict(X))
    found = net.evaluate(X, y, loss="mse", metrics=("r2",), batch_size=batch_size)["r2"]
    assert found == pytest.approx(expected, rel=1e-4 if mean == 1e10 else 1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e10 + 0.1, -1e-5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@batch_sizes
def test_r2_of_targets_that_are_all_equal_means_nothing(build, value, dtype, batch_size):
    found = build(1, dtype=dtype).evaluate(
        X, np.full(N, value), loss="mse", metrics=("r2",), batch_size=batch_size
    )
    assert np.isnan(found["r2"])


def test_r2_is_1_for_what_is_predicted_exactly(build):
    net = build(3)
    assert net.evaluate(X, net.predict(X), loss="mse", metrics=("r2", "mae"))["r2"] == 1


# ------------------------------------------------------------------ ties


@pytest.fixture
def constant(build):
    """A network whose five outputs are what they are told, whatever comes."""

    def network(*outputs):
        net = build(len(outputs), scale=0.0)
        net.parameters["layers.0.bias"] = outputs
        return net

    return network


@pytest.mark.parametrize(("k", "share"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_of_equal_outputs_the_first_places_are_the_top(constant, k, share):
    y = np.arange(5)
    found = constant(1, 1, 1, 1, 1).evaluate(X[:5], y, loss="cross_entropy", metrics=("accuracy", f"top_{k}"))
    assert (found["accuracy"], found[f"top_{k}"]) == (1 / 5, share / 5)


@pytest.mark.parametrize(
    ("label", "found"), [(0, [0, 1, 1]), (1, [1, 1, 1]), (2, [0, 0, 0]), (3, [0, 0, 1]), (4, [0, 0, 0])]
)
def test_ties_behind_the_largest_are_taken_in_order(constant, label, found):
    """The largest is at place 1, then come 0 and 3, which are equal, then 2 and 4."""
    net = constant(1, 2, 0, 1, 0)
    how = {"loss": "cross_entropy", "metrics": ("top_1", "top_2", "top_3")}
    measured = net.evaluate(X[:1], [label], **how)
    assert [measured[f"top_{k}"] for k in (1, 2, 3)] == found


def test_an_output_on_the_line_is_a_no(constant):
    how = {"loss": "binary_cross_entropy", "metrics": ("accuracy",)}
    assert constant(0.0).evaluate(X[:2], [0, 1], **how)["accuracy"] == 0.5
    assert constant(1e-300).evaluate(X[:2], [1, 1], **how)["accuracy"] == 1


def test_a_target_on_the_line_is_a_no(constant):
    found = constant(-1.0, 1.0).evaluate(
        X[:1], [[0.5, 0.51]], loss="binary_cross_entropy", metrics=("accuracy",)
    )
    assert found["accuracy"] == 1


# ------------------------------------------------------------------ in parts


def streamed(y, sizes=(1, 20, 7, 25)):
    ends = np.cumsum(sizes)
    return [(X[end - size : end], y[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


@every_case
def test_a_list_of_batches_is_measured_as_the_whole(build, units, activation, loss, y):
    net = build(units, activation)
    held(net.evaluate(streamed(y), loss=loss, metrics=KINDS), expected_of(net, loss, y))
    whole = net.evaluate(X, y, loss=loss)["loss"]
    assert net.evaluate(streamed(y), loss=loss)["loss"] == pytest.approx(whole, rel=1e-12)


def test_a_list_of_batches_has_the_errors_of_the_whole(build):
    net = build(3, scale=30)
    how = {"loss": "mse", "metrics": ("mae", "r2")}
    found, expected = net.evaluate(streamed(NUMBERS), **how), net.evaluate(X, NUMBERS, **how)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("first", [0, 1])
def test_batches_of_labels_and_of_targets_do_not_mix_in_evaluate(build, first):
    batches = [(X, LABELS), (X, ONE_HOT)]
    kinds = ["labels", "targets"]
    message = f"batch 2 comes with {kinds[1 - first]}, the first one with {kinds[first]}"
    with pytest.raises(gpunn.DataError, match=message):
        build(5).evaluate(
            [batches[first], batches[1 - first]], loss="binary_cross_entropy", metrics=("accuracy",)
        )


def test_a_second_evaluation_does_not_remember_the_first(build):
    net = build(5)
    how = {"loss": "cross_entropy", "metrics": (*KINDS, "top_2")}
    first = net.evaluate(X, LABELS, **how)
    net.evaluate(X[:9], ONE_HOT[:9], **how)
    again = net.evaluate(X, LABELS, **how)
    held(again, {name: first[name] for name in (*KINDS, "top_2")})


ALL = (*KINDS, "top_1", "top_3")


@pytest.fixture
def start(build):
    def trainer(metrics=ALL, loss="cross_entropy"):
        return gpunn.Trainer(
            build(5), loss=loss, optimizer=gpunn.SGD(lr=0.5), batch_size=BATCH, metrics=metrics
        )

    return trainer


@pytest.mark.parametrize("y", [LABELS, ONE_HOT], ids=["labels", "rows"])
@pytest.mark.parametrize("stop", range(1, 7))
def test_metrics_of_an_epoch_in_two_parts_are_those_of_the_whole(start, tmp_path, device, y, stop):
    trainer = start()
    part = trainer.epoch(X, y, steps=stop)
    assert (part["samples"], np.sum(part["confusion"])) == (stop * BATCH, stop * BATCH)
    trainer.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device).epoch(X, y)
    expected = start().epoch(X, y)
    assert {**again, "seconds": 0} == {**expected, "seconds": 0}
    assert np.sum(again["confusion"]) == N


def test_metrics_of_errors_go_on_too(build, tmp_path, device):
    def trainer():
        how = {"loss": "mse", "optimizer": gpunn.SGD(lr=1e-3), "batch_size": BATCH, "metrics": ("mae", "r2")}
        return gpunn.Trainer(build(3), **how)

    stopped = trainer()
    stopped.epoch(X, NUMBERS, steps=3)
    stopped.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device).epoch(X, NUMBERS)
    assert {**again, "seconds": 0} == {**trainer().epoch(X, NUMBERS), "seconds": 0}


def test_a_trainer_may_go_from_labels_to_rows_and_be_saved(start, tmp_path, device):
    trainer = start(loss="binary_cross_entropy", metrics=("accuracy", "confusion"))
    assert np.shape(trainer.epoch(X, LABELS)["confusion"]) == (5, 5)
    assert np.shape(trainer.epoch(X, TRAITS)["confusion"]) == (5, 2, 2)
    trainer.save(tmp_path / "run.safetensors")
    again = gpunn.Trainer.load(tmp_path / "run.safetensors", device=device)
    assert again.epoch(X, LABELS)["confusion"] == copy.deepcopy(trainer).epoch(X, LABELS)["confusion"]


def test_weights_are_for_the_loss_and_not_for_the_metrics(build):
    net = build(5)
    weights = np.linspace(0.0, 2, N)
    found = net.evaluate(X, LABELS, loss="cross_entropy", metrics=KINDS, sample_weight=weights)
    held(found, expected_of(net, "cross_entropy", LABELS))


# ------------------------------------------------------------------ what is refused, and what is best

MEANINGLESS = {
    "errors of labels": ("mae", 5, "cross_entropy", LABELS, "is about numbers, the targets are class labels"),
    "r2 of labels": ("r2", 5, "quadratic", LABELS, "is about numbers, the targets are class labels"),
    "top 3 of one output": ("top_3", 1, "mse", YES, "is about classes, the targets are 1 yes or no"),
    "top 3 of answers": (
        "top_3",
        5,
        "binary_cross_entropy",
        TRAITS,
        "is about classes, the targets are 5 yes",
    ),
}
meaningless = pytest.mark.parametrize(
    ("metric", "units", "loss", "y", "message"), MEANINGLESS.values(), ids=MEANINGLESS
)


@meaningless
@pytest.mark.parametrize("call", ["fit", "evaluate", "stream"])
def test_a_metric_that_means_nothing_is_refused_before_training(build, call, metric, units, loss, y, message):
    net = build(units)
    before = net.theta.tobytes()
    calls = {
        "fit": lambda: net.fit(X, y, loss=loss, metrics=(metric,), verbose=0),
        "evaluate": lambda: net.evaluate(X, y, loss=loss, metrics=(metric,)),
        "stream": lambda: net.fit([(X, y)], loss=loss, metrics=(metric,), verbose=0),
    }
    with pytest.raises(gpunn.ArgumentError, match=rf"metric '{metric}' {message}.*leave it out"):
        calls[call]()
    assert net.theta.tobytes() == before


@pytest.mark.parametrize("name", ["top_0", "top_", "top_-1", "top_01", "top_1.5", "Accuracy", 3, None])
def test_a_metric_that_does_not_exist_is_named(name):
    with pytest.raises(gpunn.UnknownNameError, match="unknown metric"):
        metrics_named([name])


def test_a_metric_that_comes_twice_is_measured_once(build):
    found = build(5).evaluate(X, LABELS, loss="cross_entropy", metrics=("accuracy", "accuracy"))
    assert list(found) == ["loss", "accuracy"]


@pytest.mark.parametrize(
    ("key", "epoch"),
    [("mae", 2), ("val_mae", 1), ("r2", 1), ("val_r2", 3), ("top_3", 3), ("f1", 2), ("val_loss", 2)],
)
def test_the_best_epoch_has_the_lowest_error_or_the_highest_score(key, epoch):
    rows = {
        "mae": [0.3, 0.1, 0.2],
        "val_mae": [0.1, 0.2, 0.3],
        "r2": [0.9, -5.0, 0.8],
        "val_r2": [float("nan"), -1.0, 0.1],
        "top_3": [0.5, 0.6, 0.7],
        "f1": [0.1, 0.4, 0.3],
        "val_loss": [2.0, 1.0, float("nan")],
    }
    records = [{"epoch": i + 1, **{name: values[i] for name, values in rows.items()}} for i in range(3)]
    assert gpunn.History(records).best(key)["epoch"] == epoch


def test_there_is_no_best_matrix(build):
    history = build(5).fit(X, LABELS, loss="cross_entropy", metrics=("confusion",), verbose=0)
    with pytest.raises(gpunn.ArgumentError, match="no epoch of this history has a finite 'confusion'"):
        history.best("confusion")


def test_a_history_with_a_matrix_is_saved_and_read_again(build, tmp_path):
    history = build(5).fit(X, LABELS, loss="cross_entropy", metrics=("confusion",), verbose=0)
    history.save(tmp_path / "history.json")
    assert gpunn.History.load(tmp_path / "history.json").records == history.records


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1", "confusion"])
@pytest.mark.parametrize("targets", [[10.0, 0.0, 1.0], [-1.0, 1.0, 1.0], [0.5, 1.0, 1.5]], ids=str)
def test_a_yes_or_no_is_not_asked_of_numbers(device, metric, targets):
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, device=device, seed=0)
    with pytest.raises(
        gpunn.DataError, match=rf"metric '{metric}' takes targets of 0 and 1, y holds .*'mae' and 'r2'"
    ):
        net.evaluate(np.ones((3, 2)), targets, loss="mse", metrics=(metric,))
    with pytest.raises(gpunn.DataError, match="takes targets of 0 and 1"):
        net.fit(np.ones((3, 2)), targets, loss="mse", metrics=(metric,), verbose=0)


def test_a_network_that_gives_nan_is_never_right(device):
    net = gpunn.Sequential([gpunn.Dense(3)], input_shape=2, device=device, seed=0)
    net.theta = np.full(net.layout.count, np.nan)
    found = net.evaluate(np.ones((4, 2)), [0, 0, 1, 2], loss="cross_entropy", metrics=("accuracy", "top_1"))
    assert (found["accuracy"], found["top_1"]) == (0.0, 0.0)


def test_every_way_to_evaluate_asks_whether_targets_are_yes_or_no(device):
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, device=device, seed=0)
    X, T = np.ones((3, 2)), [10.0, 0.0, 1.0]
    trainer = gpunn.Trainer(net, loss="mse", metrics=("accuracy",))
    ways = [
        lambda: net.evaluate([(X, T)], loss="mse", metrics=("accuracy",)),
        lambda: trainer.evaluate(X, T),
        lambda: trainer.evaluate([(X, T)]),
        lambda: trainer.fit(X, [0, 1, 1], validation_data=(X, T), verbose=0),
    ]
    for way in ways:
        with pytest.raises(gpunn.DataError, match="takes targets of 0 and 1"):
            way()
