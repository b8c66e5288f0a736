"""The activations: what the rows promise, their array twins, and those that are registered from outside."""

from __future__ import annotations

import functools
import math
import sys
import tracemalloc
import warnings

import numpy as np
import oracle
import pytest

import gpunn
from gpunn.activations import ACTIVATIONS, register_activation
from gpunn.backends.numpy import sigma as numpy_sigma
from gpunn.backends.numpy.sigma import BLOCK, SIGMA, SIGMA_PRIME
from gpunn.cli import main
from gpunn.device import backend_for
from gpunn.program import Program
from gpunn.slots import Role

LARGEST = np.finfo(np.float64).max.item()


@pytest.fixture(autouse=True)
def _rows_as_they_were():
    """What a test registers is gone after it."""
    before = dict(ACTIVATIONS)
    yield
    ACTIVATIONS.clear()
    ACTIVATIONS.update(before)


def loaded(op, shape, dtype, sigma):
    """A runner of ``activate`` or ``activate_grad`` alone, and the names of its two slots."""
    names = ("z", "a") if op == "activate" else ("y", "delta")
    program = Program(dtype)
    slots = [program.slot(name, shape, Role.INPUT) for name in names]
    program.emit(op, slots[:1], {names[1]: slots[1]}, sigma=sigma)
    program.pin(*slots)
    return backend_for("numpy").load(program, {}, fused=False), names


def activate(sigma, z, dtype="float64"):
    z = np.asarray(z, dtype)
    runner, _ = loaded("activate", z.shape, dtype, sigma)
    runner.write("z", z)
    runner.run()
    return runner.read("a")


def derivative(sigma, kept, dtype="float64"):
    kept = np.asarray(kept, dtype)
    runner, _ = loaded("activate_grad", kept.shape, dtype, sigma)
    runner.write("y", kept)
    runner.write("delta", np.ones(kept.shape))
    runner.run()
    return runner.read("delta")


def mish(z):
    return z * math.tanh((z if z > 0 else 0.0) + math.log1p(math.exp(-abs(z))))


def mish_prime(z):
    e = math.exp(-abs(z))
    t = math.tanh((z if z > 0 else 0.0) + math.log1p(e))
    return t + z * (1 - t * t) * (1 if z > 0 else e) / (1 + e)


def registered(name="mish", sigma=mish, sigma_prime=mish_prime, **more):
    return register_activation(name, sigma, sigma_prime, **more)


# ------------------------------------------------------------------ the rows of gpunn


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_row_has_hand_written_twins(name):
    assert name in SIGMA.keys() & SIGMA_PRIME.keys()
    assert {SIGMA[name].__module__, SIGMA_PRIME[name].__module__} == {numpy_sigma.__name__}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_scalar_sigma_is_finite_up_to_the_largest_number_and_lets_nan_through(name):
    row = ACTIVATIONS[name]
    for z in (LARGEST, -LARGEST, 1e300, -1e300, 800.0, -800.0, 5e-324, -5e-324, 0.0, -0.0):
        a = row.sigma(z)
        if name == "exp" and z > 700:
            assert a == math.inf
            continue
        assert math.isfinite(a)
        assert math.isfinite(row.sigma_prime(a if row.needs == "output" else z))
    assert math.isnan(row.sigma(math.nan))


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_passes_through_every_derivative(name, dtype):
    assert math.isnan(ACTIVATIONS[name].sigma_prime(math.nan))
    assert np.isnan(derivative(name, [math.nan, 1.0], dtype)).tolist() == [True, False]


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_row_and_the_oracle_agree_on_both_functions(name):
    row = ACTIVATIONS[name]
    for z in (-7.3, -2.1, -0.4, 0.6, 1.9, 6.2):
        a = row.sigma(z)
        assert a == pytest.approx(oracle.SIGMA[name][0](z), rel=1e-9, abs=1e-12)
        slope = row.sigma_prime(a if row.needs == "output" else z)
        assert slope == pytest.approx(oracle.SIGMA[name][1](z), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "z", "slope"),
    [("relu", 0.0, 0.0), ("leaky_relu", 0.0, 0.01), ("elu", 0.0, 1.0), ("hard_sigmoid", -3.0, 0.0)],
)
def test_a_derivative_at_a_corner_is_the_documented_one(name, z, slope):
    row = ACTIVATIONS[name]
    assert row.sigma_prime(row.sigma(z)) == slope
    assert derivative(name, activate(name, [z])).tolist() == [slope]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_block_of_an_array_is_computed(name, dtype):
    z = np.random.default_rng(3).standard_normal((2, BLOCK + 5)) * 4
    whole = activate(name, z, dtype)
    row = ACTIVATIONS[name]
    kept = whole if row.needs == "output" else z.astype(dtype)
    slopes = derivative(name, kept, dtype)
    for at in (0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, z.size - 1):
        exact = row.sigma(float(z.astype(dtype).ravel()[at]))
        assert whole.ravel()[at] == pytest.approx(exact, rel=1e-6, abs=1e-6)
        assert slopes.ravel()[at] == pytest.approx(row.sigma_prime(float(kept.ravel()[at])), abs=1e-6)


@pytest.mark.parametrize("op", ["activate", "activate_grad"])
@pytest.mark.parametrize("name", [*ACTIVATIONS, "mish"])
def test_no_twin_allocates_an_array_of_the_size_of_the_layer(name, op):
    if name == "mish":
        registered()
    runner, _ = loaded(op, (100 * BLOCK,), "float32", name)
    runner.run()
    tracemalloc.start()
    runner.run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 8 * BLOCK < 4 * 100 * BLOCK


# ------------------------------------------------------------------ registered from outside


def test_a_registered_activation_agrees_with_its_scalar_functions():
    registered()
    z = np.linspace(-40, 40, 3 * BLOCK + 1)
    np.testing.assert_allclose(activate("mish", z), [mish(v) for v in z], rtol=1e-14)
    np.testing.assert_allclose(derivative("mish", z), [mish_prime(v) for v in z], rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(activate("mish", z, "float32"), activate("mish", z), rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("needs", ["input", "output"])
def test_a_registered_activation_trains_in_a_layer_and_as_a_layer(needs):
    sigma_prime = (lambda a: 1 - a * a) if needs == "output" else (lambda z: 1 - math.tanh(z) ** 2)
    register_activation("tangent", lambda z: math.tanh(z), sigma_prime, needs=needs)
    X, y = np.random.default_rng(0).standard_normal((12, 3)), [0, 1] * 6
    for layers in (["tangent", "identity"], ["identity", "tangent"]):
        ours, own = (
            gpunn.Sequential(
                [gpunn.Dense(4, activation=first), gpunn.Activation(second), gpunn.Dense(2)],
                input_shape=3,
                seed=0,
                dtype="float64",
            )
            for first, second in (layers, [word.replace("tangent", "tanh") for word in layers])
        )
        for net in (ours, own):
            net.fit(X, y, loss="cross_entropy", epochs=2, batch_size=5, verbose=0)
        np.testing.assert_allclose(ours.theta, own.theta, rtol=1e-10)
        assert gpunn.gradcheck(ours, X, y, loss="cross_entropy")


def test_a_registered_activation_may_have_kinks():
    registered("hinge", lambda z: z if z > 1 else z * 0.5 + 0.5, lambda z: 1.0 if z > 1 else 0.5, kinks=[1])
    assert ACTIVATIONS["hinge"].kinks == (1.0,)
    assert activate("hinge", [2.0, 0.0]).tolist() == [2.0, 0.5]


def test_what_is_registered_can_be_read_back():
    row = registered(formula="a = z tanh(softplus z)", source="Misra 2019", needs="input", kinks=())
    assert ACTIVATIONS["mish"] is row
    assert (row.formula, row.source, row.needs) == ("a = z tanh(softplus z)", "Misra 2019", "input")
    assert registered("mish2").formula == "a = mish2(z)"


def test_a_file_needs_the_registration_and_nothing_else(tmp_path):
    registered()
    net = gpunn.Sequential([gpunn.Dense(2, activation="mish")], input_shape=3, seed=0)
    net.save(tmp_path / "net.safetensors")
    X = np.ones((2, 3))
    del ACTIVATIONS["mish"]
    with pytest.raises(gpunn.GpunnError, match="unknown activation 'mish'"):
        gpunn.load(tmp_path / "net.safetensors")
    registered()
    np.testing.assert_array_equal(gpunn.load(tmp_path / "net.safetensors").predict(X), net.predict(X))


def test_the_command_line_takes_a_registered_name(capsys):
    registered()
    done = main(["program", "--inputs", "4", "--outputs", "2", "--hidden", "3", "--activation", "mish"])
    assert done in (None, 0)
    assert "a0" in capsys.readouterr().out


def test_another_row_of_the_same_name_is_compiled_anew():
    registered("bend", lambda z: 2 * z, lambda z: 2.0)
    assert activate("bend", [1.5]).tolist() == [3.0]
    assert derivative("bend", [1.5]).tolist() == [2.0]
    del ACTIVATIONS["bend"]
    with pytest.raises(gpunn.UnknownNameError, match="bend"):
        SIGMA["bend"]
    registered("bend", lambda z: 3 * z, lambda z: 3.0)
    assert activate("bend", [1.5]).tolist() == [4.5]
    assert derivative("bend", [1.5]).tolist() == [3.0]


def test_it_is_compiled_once_and_when_it_is_first_used(monkeypatch):
    compiled, made = numpy_sigma._compiled, []
    monkeypatch.setattr(numpy_sigma, "_compiled", lambda scalar: made.append(scalar) or compiled(scalar))
    registered()
    assert made == []
    for _ in range(3):
        activate("mish", [1.0])
    assert made == [mish]


# ------------------------------------------------------------------ what Numba cannot compile


def uncompilable(z, table={"slope": 2.0}):  # noqa: B006
    return table["slope"] * z


def test_what_cannot_be_compiled_runs_with_one_warning_that_says_why():
    registered("twice", uncompilable, lambda z: 2.0)
    with pytest.warns(gpunn.GpunnWarning, match="'twice': sigma runs as Python.*slow.*numba") as caught:
        assert activate("twice", [1.0, -3.0, math.nan])[:2].tolist() == [2.0, -6.0]
    assert len(caught) == 1
    assert activate("twice", [4.0], "float32").tolist() == [8.0]
    assert math.isnan(activate("twice", [math.nan])[0])


def test_without_numba_everything_runs_as_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    registered("mish2")
    with pytest.warns(gpunn.GpunnWarning, match="numba"):
        np.testing.assert_allclose(activate("mish2", [1.0, -3.0]), [mish(1.0), mish(-3.0)])


def steep(z):
    return math.exp(z)


def wall(z):
    if abs(z) > 1000:
        raise ValueError("too far out")
    return 1 / (z - 40.0)


@pytest.mark.parametrize("python", [False, True], ids=["compiled", "python"])
@pytest.mark.parametrize(
    ("sigma", "sigma_prime", "bad"),
    [
        (steep, steep, 1e4),
        (wall, lambda z: -((z - 40.0) ** -2), 40.0),
        (wall, lambda z: -1 / (z - 40.0) ** 2, 1e4),
    ],
    ids=["overflow", "division", "raised"],
)
def test_an_exception_at_one_number_is_a_number_that_is_not_finite(
    sigma, sigma_prime, bad, python, monkeypatch
):
    if python:
        monkeypatch.setattr(numpy_sigma, "_compiled", lambda scalar: 1 / 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gpunn.GpunnWarning)
        registered("steep", sigma, sigma_prime)
        found = activate("steep", [1.0, bad, 2.0])
    assert np.isfinite(found).tolist() == [True, False, True]
    assert found[2] == pytest.approx(sigma(2.0), rel=1e-14)


def test_a_step_that_overflows_ends_in_divergence_with_the_weights_restored():
    with pytest.warns(gpunn.GpunnWarning, match=r"'steep': sigma\(750.0\) raises OverflowError"):
        registered("steep", steep, steep)
    net = gpunn.Sequential([gpunn.Dense(2, activation="steep")], input_shape=1, seed=0, dtype="float64")
    with pytest.raises(gpunn.DivergenceError):
        net.fit(np.full((4, 1), 1e4), np.ones((4, 2)), loss="quadratic", epochs=3, verbose=0)
    assert np.isfinite(net.theta).all()


# ------------------------------------------------------------------ what cannot be registered


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "relu"}, ["'relu'", "exists already"]),
        ({"name": "softmax"}, ["'softmax'", "exists already"]),
        ({"name": ""}, ["name is ''", "string"]),
        ({"name": 3}, ["name is 3", "string"]),
        ({"needs": "both"}, ["'odd'", "'both'", "'input'"]),
        ({"sigma": 2.0}, ["'odd'", "sigma is 2.0", "function"]),
        ({"sigma_prime": "tanh"}, ["'odd'", "sigma_prime is 'tanh'", "function"]),
        ({"kinks": 1.0}, ["'odd'", "kinks is 1.0"]),
        ({"sigma": lambda z: None}, ["'odd'", "sigma(0.0) is None", "real number"]),
        ({"sigma": lambda z: z + 0j}, ["'odd'", "sigma(0.0)", "real number"]),
        ({"sigma": lambda z: np.ones(2)}, ["'odd'", "sigma(0.0)", "real number"]),
        ({"sigma": lambda z: math.log(z)}, ["'odd'", "sigma(0.0) raises ValueError", "guard"]),
        ({"sigma": lambda z: 1 / z}, ["'odd'", "sigma(0.0) raises ZeroDivisionError"]),
        ({"sigma": lambda: 1.0}, ["'odd'", "sigma(0.0) raises TypeError"]),
        ({"sigma": lambda z: math.exp(z * z)}, ["'odd'", "sigma(30.0) raises OverflowError"]),
        ({"sigma": lambda z: z if z < 25 else math.inf}, ["'odd'", "sigma(30.0) is inf", "finite"]),
        ({"sigma": lambda z: max(0.0, z) + 0.5 * min(0.0, z)}, ["'odd'", "sigma(nan)", "max(0.0, z)"]),
        ({"sigma_prime": lambda z: math.nan}, ["'odd'", "sigma_prime(0.0) is nan", "finite"]),
        ({"sigma_prime": lambda z: math.tanh(z)}, ["'odd'", "sigma_prime gives", "rises by", "z = "]),
        ({"sigma_prime": lambda z: 1.001 * (1 - math.tanh(z) ** 2)}, ["'odd'", "sigma_prime gives"]),
        ({"needs": "output"}, ["'odd'", "needs='output'", "a = sigma(z)"]),
    ],
)
def test_an_activation_that_cannot_work_is_refused(wrong, words):
    rows = dict(ACTIVATIONS)
    given = {"name": "odd", "sigma": math.tanh, "sigma_prime": lambda z: 1 - math.tanh(z) ** 2, **wrong}
    if "sigma(nan)" in words:
        given.update(sigma_prime=lambda z: 1.0 if z > 0 else 0.5, kinks=[0.0])
    with pytest.raises(gpunn.ArgumentError) as caught:
        register_activation(**given)
    assert [word for word in words if word not in str(caught.value)] == []
    assert rows == ACTIVATIONS


def test_the_error_of_a_function_that_raises_has_its_exception_as_cause():
    with pytest.raises(gpunn.ArgumentError) as caught:
        registered("odd", lambda z: math.log(z), lambda z: 1 / z)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_name_of_gpunns_own_cannot_be_taken_even_when_its_row_is_gone():
    del ACTIVATIONS["relu"]
    with pytest.raises(gpunn.ArgumentError, match="'relu' exists already"):
        registered("relu")


@pytest.mark.parametrize(
    ("sigma", "sigma_prime", "named"),
    [
        (steep, steep, r"sigma\(750.0\) raises OverflowError"),
        (lambda z: z * math.tanh(z), lambda z: math.tanh(z) + z / math.cosh(z) ** 2, r"sigma_prime\(500.0\)"),
        (wall, lambda z: -((z - 40.0) ** -2), r"sigma\(10000.0\) raises ValueError"),
    ],
)
def test_what_fails_far_out_is_registered_with_a_warning(sigma, sigma_prime, named):
    with pytest.warns(gpunn.GpunnWarning, match=named):
        registered("far", sigma, sigma_prime)
    assert "far" in ACTIVATIONS


def test_numpy_functions_may_be_used_without_noise_at_registration():
    registered("numpys", lambda z: np.tanh(z), functools.partial(lambda one, z: one - np.tanh(z) ** 2, 1))
    with pytest.warns(gpunn.GpunnWarning, match="sigma_prime runs as Python"):
        slopes = derivative("numpys", [0.0, 1.0])
    np.testing.assert_allclose(slopes, [1.0, 1 - math.tanh(1) ** 2])
    np.testing.assert_allclose(activate("numpys", [1.0]), [math.tanh(1)])
