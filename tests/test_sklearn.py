"""The estimators of scikit-learn's kind: its numbers, its checks, its own tests, and what it has not."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from devices import WANTED, there
from host_device import host_backend
from scipy import sparse
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import gpunn
from gpunn import sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIGITS = load_digits().data[:400] / 16, load_digits().target[:400]
WIDE = 50 * DIGITS[0], DIGITS[1]
CANCER = StandardScaler().fit_transform(load_breast_cancer().data[:200]), load_breast_cancer().target[:200]
TAGS = make_multilabel_classification(120, random_state=0)
NUMBERS = make_regression(150, 10, n_targets=3, random_state=0)
NUMBERS = NUMBERS[0], NUMBERS[1] / 100
ONE = NUMBERS[0], NUMBERS[1][:, 0]
COUNTS = NUMBERS[0], np.exp(ONE[1] / 3).round()
CPU = [name for name in WANTED or ["numpy", "numba"] if name in ("numpy", "numba")]


@pytest.fixture(params=CPU)
def cpu(request):
    return there(request.param)


# ------------------------------------------------------------------ the same numbers

RUNS = {
    "Adam": ("Classifier", DIGITS, {}),
    "float32": ("Classifier", (DIGITS[0].astype("float32"), DIGITS[1]), {}),
    "Nesterov": ("Classifier", DIGITS, {"solver": "sgd"}),
    "momentum": ("Classifier", DIGITS, {"solver": "sgd", "nesterovs_momentum": False}),
    "momentum of 1": ("Classifier", DIGITS, {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4}),
    "SGD": ("Classifier", DIGITS, {"solver": "sgd", "momentum": 0, "alpha": 0}),
    "invscaling": (
        "Classifier",
        DIGITS,
        {"solver": "sgd", "learning_rate": "invscaling", "activation": "tanh", "learning_rate_init": 0.5},
    ),
    "adaptive": (
        "Classifier",
        DIGITS,
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 2, "max_iter": 40},
    ),
    "two layers": (
        "Classifier",
        DIGITS,
        {"activation": "logistic", "hidden_layer_sizes": (20, 10), "batch_size": 37, "alpha": 0.3},
    ),
    "in order": ("Classifier", DIGITS, {"shuffle": False, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "two classes": ("Classifier", CANCER, {"alpha": 0.1}),
    "several labels": ("Classifier", TAGS, {}),
    "held out": ("Classifier", DIGITS, {"early_stopping": True}),
    "stops by itself": ("Classifier", CANCER, {"tol": 0.05, "max_iter": 100, "n_iter_no_change": 3}),
    "saturated": ("Classifier", WIDE, {"learning_rate_init": 0.1}),
    "saturated, two classes": ("Classifier", (WIDE[0], WIDE[1] > 4), {"solver": "sgd"}),
    "saturated, L-BFGS": ("Classifier", WIDE, {"solver": "lbfgs", "alpha": 0.0, "max_iter": 3}),
    "L-BFGS": ("Classifier", CANCER, {"solver": "lbfgs", "alpha": 0.5}),
    "numbers": ("Regressor", ONE, {"activation": "identity"}),
    "rows of numbers": ("Regressor", NUMBERS, {"alpha": 1.0, "early_stopping": True}),
    "counts": ("Regressor", COUNTS, {"loss": "poisson"}),
    "L-BFGS of numbers": ("Regressor", NUMBERS, {"solver": "lbfgs", "alpha": 2.0}),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(("kind", "data", "given"), RUNS.values(), ids=RUNS)
def test_a_fit_is_that_of_scikit_learn(cpu, kind, data, given, weighted):
    weights = np.random.default_rng(1).random(len(data[1])) if weighted else None
    given = {"max_iter": 12, "random_state": 0, **given}
    a = getattr(theirs, f"MLP{kind}")(**given).fit(*data, sample_weight=weights)
    b = getattr(ours, f"MLP{kind}")(**given, device=cpu).fit(*data, sample_weight=weights)
    rtol = 1e-3 if data[0].dtype == "float32" else 1e-7
    for x, y in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(y, x, rtol=rtol, atol=rtol / 100)
    assert a.loss_ == pytest.approx(b.loss_, rel=rtol)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
        if getattr(a, name, None) is not None:
            np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=rtol, err_msg=name)
    found = b.predict(data[0])
    assert found.dtype == a.predict(data[0]).dtype
    np.testing.assert_allclose(found, a.predict(data[0]), rtol=1e3 * rtol, atol=rtol)
    if kind == "Classifier":
        for call in ("predict_proba", "predict_log_proba"):
            np.testing.assert_allclose(
                getattr(b, call)(data[0]), getattr(a, call)(data[0]), rtol=1e3 * rtol, atol=rtol
            )


@pytest.mark.parametrize("given", [{"solver": "sgd"}, {"solver": "adam"}], ids=str)
@pytest.mark.parametrize("way", ["partial_fit", "warm_start", "pickled between"])
def test_going_on_is_as_in_scikit_learn(cpu, given, way):
    estimators = [theirs.MLPClassifier(random_state=0, max_iter=3, **given)]
    estimators.append(ours.MLPClassifier(random_state=0, max_iter=3, device=cpu, **given))
    for i, mlp in enumerate(estimators):
        if way == "warm_start":
            mlp.set_params(warm_start=True).fit(*DIGITS).fit(*DIGITS)
            continue
        for start in (0, 100, 250):  # Of 100, 150 and 150 examples.
            rows = slice(start, start + 150 if start else 100)
            mlp.partial_fit(DIGITS[0][rows], DIGITS[1][rows], classes=range(10))
            if way == "pickled between":
                estimators[i] = mlp = pickle.loads(pickle.dumps(mlp))
    a, b = estimators
    for x, y in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=1e-9)


CHANGES = {
    "alpha": {"alpha": 5.0},
    "activation": {"activation": "tanh"},
    "learning rate": {"learning_rate_init": 0.3},
    "nothing": {},
}


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_parameters_may_change_between_two_calls_of_partial_fit(solver, pickled, change):
    found = []
    for module in (theirs, ours):
        mlp = module.MLPClassifier((8,), solver=solver, random_state=0, learning_rate_init=0.05)
        for _ in range(3):
            mlp.partial_fit(*DIGITS, classes=range(10))
        mlp.set_params(**change)
        for _ in range(3):
            mlp = pickle.loads(pickle.dumps(mlp)) if pickled else mlp
            mlp.partial_fit(*DIGITS)
        found.append(mlp.coefs_)
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pickled", [False, True])
def test_an_adaptive_learning_rate_goes_on(pickled):
    given = {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 0.5}
    found = []
    for module in (theirs, ours):
        mlp = module.MLPClassifier((4,), random_state=0, n_iter_no_change=1, **given)
        for _ in range(12):
            mlp.partial_fit(*CANCER, classes=[0, 1])
            mlp = pickle.loads(pickle.dumps(mlp)) if pickled else mlp
        found.append(mlp.loss_curve_)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


def test_a_fit_that_fails_leaves_what_there_was():
    mlp = ours.MLPClassifier(random_state=0, max_iter=3)
    with pytest.raises(gpunn.DeviceError, match="cannot be used"):
        clone(mlp).set_params(device="cuda:9").fit(*DIGITS)
    before = mlp.fit(*DIGITS).predict_proba(DIGITS[0])
    for change in ({"device": "cuda:9"}, {"activation": "gelo"}, {"dropout": [0.1, 0.2]}):
        with pytest.raises((gpunn.GpunnError, ValueError)):
            clone(mlp).set_params(**change).fit(*DIGITS)
        kept = {key: mlp.get_params()[key] for key in change}
        with pytest.raises((gpunn.GpunnError, ValueError)):
            mlp.set_params(**change).fit(*DIGITS)
        np.testing.assert_array_equal(mlp.set_params(**kept).predict_proba(DIGITS[0]), before)
    fresh = ours.MLPClassifier(device="cuda:9")
    with pytest.raises(gpunn.DeviceError):
        fresh.fit(*DIGITS)
    with pytest.raises(NotFittedError):
        fresh.set_params(device="cpu").predict(DIGITS[0])


def test_a_callback_that_raises_leaves_coefficients_that_predict():
    def third(trainer, record):
        if record["epoch"] == 3:
            raise RuntimeError("enough")

    mlp = ours.MLPClassifier(random_state=0, max_iter=5, callbacks=[third])
    with pytest.raises(RuntimeError, match="enough"):
        mlp.fit(*DIGITS)
    found = mlp.predict_proba(DIGITS[0])
    mlp.callbacks = None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mlp)).predict_proba(DIGITS[0]), found)


def test_dropout_is_repeated_by_the_seed():
    mlp = ours.MLPClassifier(random_state=0, max_iter=4, dropout=0.5, batch_size=50)
    first = mlp.fit(*DIGITS).coefs_
    assert all(map(np.array_equal, mlp.fit(*DIGITS).coefs_, first))
    assert all(map(np.array_equal, clone(mlp).fit(*DIGITS).coefs_, first))


def test_lbfgs_refuses_what_it_has_not():
    with pytest.raises(ValueError, match="no epochs for callbacks, and no dropout"):
        ours.MLPClassifier(solver="lbfgs", dropout=0.5).fit(*DIGITS)
    with pytest.raises(ValueError, match="is for classes"):
        ours.MLPRegressor(loss="cross_entropy").fit(*ONE)


def test_what_is_printed_is_what_scikit_learn_prints(cpu, capsys):
    given = {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 2, "max_iter": 300}
    given |= {"random_state": 0, "verbose": True, "early_stopping": True}
    theirs.MLPClassifier(**given).fit(*DIGITS)
    expected = capsys.readouterr().out
    ours.MLPClassifier(**given, device=cpu).fit(*DIGITS)
    assert capsys.readouterr().out == expected
    assert "Learning rate too small. Stopping." in expected


@pytest.mark.parametrize("way", ["too few iterations", "batch too large"])
def test_warnings_are_those_of_scikit_learn(way):
    given = {"max_iter": 2} if way == "too few iterations" else {"batch_size": 1000, "tol": 10.0}
    told = []
    for cls in (theirs.MLPClassifier, ours.MLPClassifier):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cls(random_state=0, **given).fit(*DIGITS)
        told.append([(each.category, str(each.message)) for each in caught])
        assert caught[0].filename == __file__ or cls is theirs.MLPClassifier
    assert told[0] == told[1] != []


# ------------------------------------------------------------------ scikit-learn's own checks and tests


@parametrize_with_checks(
    [
        cls(device=device, max_iter=60, random_state=0)
        for device in CPU
        for cls in (ours.MLPClassifier, ours.MLPRegressor)
    ]
)
def test_the_checks_of_scikit_learn_pass(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


#: Checks that train or predict: what a device can get wrong.
ON_A_DEVICE = (
    "check_classifiers_train|check_regressors_train|check_sample_weight|check_fit2d_1|check_dtype_object|"
    "check_methods_subset_invariance|check_fit_idempotent|check_estimators_pickle|check_estimators_dtypes|"
    "check_estimator_sparse|check_classifiers_classes|check_class_weight|check_regressors_int"
)


def on_a_device():
    """Each of these checks for both estimators."""
    given = {"hidden_layer_sizes": (10,), "device": "cuda", "max_iter": 40, "learning_rate_init": 0.05}
    for cls in (ours.MLPClassifier, ours.MLPRegressor):
        for estimator, check in estimator_checks_generator(cls(**given)):
            name = getattr(check, "func", check).__name__
            if re.match(ON_A_DEVICE, name):
                yield pytest.param(estimator, check, id=f"{cls.__name__}-{name}")


@pytest.mark.slow
@pytest.mark.cuda_host
@pytest.mark.parametrize(("estimator", "check"), list(on_a_device()))
def test_the_checks_of_scikit_learn_pass_on_a_gpu_that_the_host_stands_in_for(estimator, check, monkeypatch):
    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: None)
    monkeypatch.setitem(gpunn.device._LOADED, "cuda:0, float32", host_backend())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


#: Tests of scikit-learn's that reach into its private parts, and what they reach for.
PRIVATE = {
    "test_gradient": "_loss_grad_lbfgs",
    "test_learning_rate_warmstart": "_optimizer",
    "test_adaptive_learning_rate": "_optimizer",
}


@pytest.mark.slow
def test_the_tests_of_scikit_learn_pass(tmp_path):
    """As they lie in its wheel, with our names in the place of its own."""
    source = Path(sklearn.__file__).parent / "neural_network" / "tests" / "test_mlp.py"
    text = source.read_text(encoding="utf-8")
    line = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
    assert text.count(line) == 1
    (tmp_path / "test_mlp.py").write_text(
        text.replace(line, line.replace("sklearn.neural_network", "gpunn.sklearn"))
    )
    (tmp_path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef global_random_seed():\n    return 42\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "-W", "ignore", "."]
    wide = os.environ | {"COLUMNS": "500"}  # Else pytest cuts what it says of a failure.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=wide)
    failed = dict(
        re.findall(r"^FAILED \S+::(\w+)\S* - AttributeError: .* has no attribute '(\w+)'?", done.stdout, re.M)
    )
    bad = re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.M)
    assert len(bad) == len(PRIVATE), done.stdout[-3000:]
    assert failed == PRIVATE
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 53


# ------------------------------------------------------------------ beyond scikit-learn


def test_a_device_that_cannot_be_had_is_named_in_fit():
    with pytest.raises(gpunn.UnknownNameError, match=r"unknown device 'gpu'.*did you mean 'cuda'"):
        ours.MLPClassifier(device="gpu").fit(*DIGITS)


def test_the_dtype_is_that_of_x_or_the_one_that_is_asked_for():
    X = DIGITS[0].astype("float32")
    assert ours.MLPRegressor(max_iter=1).fit(X, DIGITS[1]).coefs_[0].dtype == "float32"
    mlp = ours.MLPRegressor(max_iter=1, dtype="float32").fit(*DIGITS)
    assert (mlp.coefs_[0].dtype, mlp.predict(DIGITS[0]).dtype) == ("float32", "float32")


@pytest.mark.parametrize("given", ["balanced", {0: 1.0, 1: 5.0}])
def test_class_weights_are_weights_of_the_examples(given):
    X, y = CANCER
    weights = sklearn.utils.class_weight.compute_sample_weight(given, y) * 2.0
    a = ours.MLPClassifier(random_state=0, max_iter=5, class_weight=given).fit(X, y, np.full(len(y), 2.0))
    b = ours.MLPClassifier(random_state=0, max_iter=5).fit(X, y, weights)
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])


def test_each_hidden_layer_may_have_its_own_activation_and_dropout(cpu):
    given = {"hidden_layer_sizes": (20, 10), "random_state": 0, "max_iter": 60, "learning_rate_init": 0.01}
    mlp = ours.MLPClassifier(activation=["gelu", "tanh"], dropout=[0.2, 0.0], device=cpu, **given).fit(
        *DIGITS
    )
    assert [getattr(layer, "activation", None) for layer in mlp.to_network().layers] == [
        "gelu",
        None,
        "tanh",
        "softmax",
    ]
    assert mlp.score(*DIGITS) > 0.95
    again = clone(mlp).fit(*DIGITS)
    assert all(map(np.array_equal, mlp.coefs_, again.coefs_))
    undropped = clone(mlp).set_params(dropout=0.0).fit(*DIGITS)
    assert not np.array_equal(mlp.coefs_[0], undropped.coefs_[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"activation": ["relu"]}, "activation has 1 entries, expected one for each of 2 hidden layers"),
        ({"dropout": [0.5]}, "dropout has 1 entries"),
        ({"activation": "gelo"}, "unknown activation 'gelo': did you mean 'gelu'"),
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier must be a float in the range"),
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes must be > 0, got \[3, 0\]"),
    ],
)
def test_parameters_that_cannot_be_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        ours.MLPClassifier(**{"hidden_layer_sizes": (4, 3), **given}).fit(*DIGITS)


@pytest.mark.parametrize(("loss", "other"), [("absolute_error", "mae"), ("huber", "huber")])
def test_other_costs_are_less_drawn_by_outliers(loss, other):
    X, y = ONE
    spoiled = np.where(np.arange(len(y)) % 20, y, y + 100)
    given = {"solver": "lbfgs", "activation": "identity", "random_state": 0, "max_iter": 2000}
    robust = ours.MLPRegressor(loss=loss, **given).fit(X, spoiled)
    squared = ours.MLPRegressor(**given).fit(X, spoiled)
    assert np.median(abs(robust.predict(X) - y)) < 0.1 * np.median(abs(squared.predict(X) - y))
    assert robust.to_network().loss == other


def test_counts_below_0_are_refused():
    with pytest.raises(ValueError, match=r"y holds -1.*loss='poisson' takes counts"):
        ours.MLPRegressor(loss="poisson").fit(NUMBERS[0], -np.ones(len(NUMBERS[0])))


@pytest.mark.parametrize("early", [False, True])
def test_validation_data_of_ones_own(cpu, early):
    X, y = DIGITS
    given = {"random_state": 0, "max_iter": 8, "early_stopping": early, "device": cpu}
    mlp = ours.MLPClassifier(**given).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert len(mlp.validation_loss_curve_) == 8
    if early:
        assert len(mlp.validation_scores_) == 8
        assert mlp.score(X[300:], y[300:]) == mlp.best_validation_score_
    else:
        chosen = mlp.predict_proba(X[300:])[np.arange(100), y[300:]]
        assert mlp.validation_loss_curve_[-1] == pytest.approx(-np.log(chosen).mean())
    mlp.set_params(warm_start=True).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert len(mlp.validation_loss_curve_) == len(mlp.loss_curve_) == 16
    assert not hasattr(mlp.set_params(warm_start=False).fit(X[:300], y[:300]), "validation_loss_curve_")
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        mlp.fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="features"):
        mlp.fit(X, y, X_val=X[:, :3], y_val=y)


def test_callbacks_are_told_of_each_epoch():
    seen = []
    ours.MLPClassifier(max_iter=3, callbacks=[lambda trainer, record: seen.append(record["loss"])]).fit(
        *DIGITS
    )
    assert len(seen) == 3


def test_ctrl_c_keeps_what_was_learnt():
    def press(trainer, record):
        if len(mlp.loss_curve_) == 3:
            signal.raise_signal(signal.SIGINT)

    mlp = ours.MLPClassifier(random_state=0, learning_rate_init=0.02, callbacks=[press])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        mlp.fit(*DIGITS)
    assert (mlp.n_iter_, len(mlp.loss_curve_)) == (3, 3)
    assert mlp.score(*DIGITS) > 0.3


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_data_are_what_they_are_dense(cpu, kind, solver):
    X, y = DIGITS
    given = {"solver": solver, "random_state": 0, "max_iter": 4, "device": cpu}
    a, b = (ours.MLPClassifier(**given).fit(data, y) for data in (X, kind(X)))
    assert all(map(np.array_equal, a.coefs_, b.coefs_))
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(kind(X)))


@pytest.mark.cuda_host
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"solver": "lbfgs"},
        {"early_stopping": True},
        {"shuffle": False},
        {"solver": "sgd", "batch_size": 64},
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_sparse_data_that_are_large_are_made_dense_by_pieces(cpu, monkeypatch, given, weighted):
    X, y = DIGITS
    weights = np.random.default_rng(1).random(len(y)) if weighted else None
    given = {"random_state": 0, "max_iter": 4, "device": cpu, **given}
    whole = ours.MLPClassifier(**given).fit(X, y, weights)
    monkeypatch.setattr(ours, "DENSE", 100 * X[0].nbytes)
    largest = []

    class Watched(sparse.csr_matrix):
        def toarray(self, *args, **kwargs):
            largest.append(self.shape[0])
            return super().toarray(*args, **kwargs)

    pieces = ours.MLPClassifier(**given).fit(Watched(X), y, weights)
    assert max(largest) <= 200
    for a, b in zip(whole.coefs_, pieces.coefs_, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)
    assert pieces.loss_ == pytest.approx(whole.loss_, rel=1e-12)
    np.testing.assert_allclose(pieces.predict_proba(Watched(X)), whole.predict_proba(X), rtol=1e-9)


def test_validation_data_that_are_sparse_and_large_are_made_dense_by_pieces(monkeypatch):
    X, y = DIGITS
    curves = []
    for limit in (ours.DENSE, 100 * X[0].nbytes):
        monkeypatch.setattr(ours, "DENSE", limit)
        mlp = ours.MLPClassifier(random_state=0, max_iter=3, early_stopping=True)
        data = sparse.csr_matrix(X), y
        mlp.fit(*data, X_val=data[0], y_val=data[1])
        curves.append((mlp.validation_loss_curve_, mlp.validation_scores_))
    np.testing.assert_allclose(*curves, rtol=1e-12)


@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_data_on_a_gpu_stay_there(monkeypatch, kind):
    backend = host_backend()
    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: None)
    monkeypatch.setitem(gpunn.device._LOADED, "cuda:0, float64", backend)
    monkeypatch.setitem(gpunn.device._LOADED, "cuda:0, float32", backend)
    X, y = CANCER
    cls = getattr(ours, f"MLP{kind}")
    given = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 3}
    cupy = backend.gpu.cupy
    there_X = cupy.asarray(X)
    a, b = cls(**given).fit(X, y), cls(**given, device="cuda").fit(there_X, cupy.asarray(y))
    for p, q in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_allclose(q, p, rtol=1e-9, atol=1e-12)
    if kind == "Regressor":
        found = b.predict(there_X)
        assert type(found) is type(there_X)
        np.testing.assert_allclose(found.get(), a.predict(X), rtol=1e-9)
    else:
        np.testing.assert_array_equal(b.predict(there_X), a.predict(X))
        found = b.predict_proba(there_X)
        assert type(found) is type(there_X)
        np.testing.assert_allclose(found.get(), a.predict_proba(X), rtol=1e-9)
        np.testing.assert_allclose(b.predict_log_proba(there_X), a.predict_log_proba(X), rtol=1e-9)
    with pytest.raises(ValueError, match="X has 3 features, but MLP"):
        b.predict(cupy.asarray(X[:, :3]))


# ------------------------------------------------------------------ to and from


@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_scikit_learns_estimators_go_both_ways(kind):
    data = DIGITS if kind == "Classifier" else NUMBERS
    source = getattr(theirs, f"MLP{kind}")(random_state=0, max_iter=5, alpha=0.3).fit(*data)
    mlp = getattr(ours, f"MLP{kind}").from_sklearn(source, device="numpy")
    assert (mlp.alpha, mlp.device) == (0.3, "numpy")
    np.testing.assert_allclose(mlp.predict(data[0]), source.predict(data[0]), rtol=1e-12)
    back = mlp.to_sklearn()
    assert type(back) is type(source)
    assert back.get_params() == source.get_params()
    np.testing.assert_array_equal(back.predict(data[0]), source.predict(data[0]))
    with pytest.raises(gpunn.ArgumentError, match="scikit-learn has no activation 'gelu'"):
        mlp.set_params(activation="gelu").to_sklearn()


def test_a_network_of_its_own_predicts_the_same():
    mlp = ours.MLPClassifier(random_state=0, max_iter=5).fit(*DIGITS)
    network = mlp.to_network()
    np.testing.assert_array_equal(network.predict(DIGITS[0]), mlp.predict_proba(DIGITS[0]))
    before = mlp.predict_proba(DIGITS[0])
    network.theta = network.theta * 0
    np.testing.assert_array_equal(mlp.predict_proba(DIGITS[0]), before)


def test_coefficients_that_are_set_are_those_that_predict():
    mlp = ours.MLPRegressor(random_state=0, max_iter=2).fit(*ONE)
    before = mlp.predict(ONE[0])
    mlp.intercepts_[-1] += 5.0
    np.testing.assert_allclose(mlp.predict(ONE[0]), before + 5, rtol=1e-6)


# ------------------------------------------------------------------ in scikit-learn's company


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_fitted_estimator_is_a_file_of_host_arrays(tmp_path, way):
    mlp = ours.MLPClassifier(random_state=0, max_iter=3).fit(*DIGITS)
    if way == "pickle":
        text = pickle.dumps(mlp)
        again = pickle.loads(text)
        assert b"gpunn.network" not in text
    else:
        joblib.dump(mlp, tmp_path / "mlp.joblib")
        again = joblib.load(tmp_path / "mlp.joblib")
    np.testing.assert_array_equal(again.predict_proba(DIGITS[0]), mlp.predict_proba(DIGITS[0]))


def test_an_estimator_works_in_pipelines_and_searches():
    X, y = CANCER
    search = GridSearchCV(
        make_pipeline(
            StandardScaler(), ours.MLPClassifier(max_iter=30, learning_rate_init=0.02, random_state=0)
        ),
        {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__hidden_layer_sizes": [(5,), (10, 5)]},
        cv=2,
    ).fit(X, y)
    assert search.best_score_ > 0.9
    assert cross_val_score(ours.MLPRegressor(max_iter=50), *ONE, cv=2).shape == (2,)


def test_parallel_searches_give_the_same_and_share_the_processors():
    X, y = CANCER
    found = [
        GridSearchCV(
            ours.MLPClassifier(max_iter=5, random_state=0), {"alpha": [1e-4, 1.0]}, cv=2, n_jobs=jobs
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*found)
    counts = joblib.Parallel(n_jobs=2)(joblib.delayed(gpunn.num_threads)() for _ in range(2))
    assert max(counts) <= max(1, (joblib.cpu_count() + 1) // 2)


def test_weights_are_routed_through_a_search():
    X, y = CANCER
    with sklearn.config_context(enable_metadata_routing=True):
        mlp = ours.MLPClassifier(max_iter=3, random_state=0).set_fit_request(sample_weight=True)
        mlp = mlp.set_score_request(sample_weight=False)
        weights = np.random.default_rng(0).random(len(y))
        a = GridSearchCV(mlp, {"alpha": [0.1]}, cv=2).fit(X, y, sample_weight=weights).best_estimator_
    b = clone(mlp).set_params(alpha=0.1).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])


def test_names_of_features_are_remembered():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(CANCER[0][:, :3], columns=["radius", "texture", "size"])
    mlp = ours.MLPClassifier(max_iter=2).fit(frame, np.where(CANCER[1], "benign", "malignant"))
    assert mlp.feature_names_in_.tolist() == ["radius", "texture", "size"]
    assert set(mlp.predict(frame)) <= {"benign", "malignant"}
    with pytest.raises(ValueError, match="feature names should match"):
        mlp.predict(frame.rename(columns={"size": "weight"}))


def test_a_fit_that_diverges_raises_with_scikit_learns_words():
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights") as caught:
        ours.MLPRegressor(solver="sgd", learning_rate_init=10.0, random_state=0).fit(*ONE)
    assert isinstance(caught.value.__cause__, gpunn.DivergenceError)
