"""Activations, softmax and losses against their exact values, over all finite numbers (see ``exact.py``)."""

from __future__ import annotations

import numpy as np
import pytest
from exact import DTYPES, SIZE, Worst, arrays, campaign, mp, run
from hypothesis import given
from hypothesis import strategies as st

from gpunn.activations import ACTIVATIONS
from gpunn.losses import LOSSES

pytestmark = pytest.mark.campaign

# ------------------------------------------------------------------ activations


def exact_sigmoid(z):
    return 1 / (1 + mp.exp(-z))


def exact_density(z):
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def exact_distribution(z):
    """Φ; mpmath cannot count as far as Φ(−1e154), and nobody sees Φ below Φ(−1e4)."""
    return mp.erfc(-max(z, mp.mpf(-10000)) / mp.sqrt(2)) / 2


#: σ and σ′, both of z.
EXACT = {
    "identity": (lambda z: z, lambda z: mp.mpf(1)),
    "sigmoid": (exact_sigmoid, lambda z: exact_sigmoid(z) * exact_sigmoid(-z)),
    "tanh": (mp.tanh, lambda z: 4 * exact_sigmoid(2 * z) * exact_sigmoid(-2 * z)),
    "relu": (lambda z: max(z, mp.mpf(0)), lambda z: mp.mpf(z > 0)),
    "leaky_relu": (lambda z: z if z > 0 else z / 100, lambda z: mp.mpf(1) if z > 0 else mp.mpf(1) / 100),
    "elu": (lambda z: z if z > 0 else mp.expm1(z), lambda z: mp.exp(min(z, mp.mpf(0)))),
    "exp": (mp.exp, mp.exp),
    "softplus": (lambda z: max(z, mp.mpf(0)) + mp.log1p(mp.exp(-abs(z))), exact_sigmoid),
    "hard_sigmoid": (
        lambda z: min(max((z + 3) / 6, mp.mpf(0)), mp.mpf(1)),
        lambda z: mp.mpf(-3 < z < 3) / 6,
    ),
    "gelu": (lambda z: z * exact_distribution(z), lambda z: exact_distribution(z) + z * exact_density(z)),
    "silu": (
        lambda z: z * exact_sigmoid(z),
        lambda z: exact_sigmoid(z) * (1 + z * exact_sigmoid(-z)),
    ),
}

#: Where a σ or its code changes its ways: kinks, saturation, results that become denormal and then 0.
PLACES = (
    *(0.0, 1.0, -1.0, 3.0, -3.0, 9.0, -9.0, 17.0, 19.0, -19.0, 37.0, -37.0),
    *(-12.0, -12.9, -14.2, -37.5, -38.4, -38.6, -40.0, -80.0, -87.3, -92.0, -103.97, -108.0),
    *(-700.0, -708.4, -715.0, -745.1, -751.5, 88.7, 103.97, 709.78, 745.1),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_activation_is_within_four_ulp_of_the_exact_value(name, dtype):
    sigma, scalar = EXACT[name][0], ACTIVATIONS[name].sigma
    worst, worst_scalar = Worst("activate", name, dtype), Worst("scalar sigma", name, dtype)

    @campaign
    @given(arrays(dtype, PLACES))
    def check(zs):
        zs = [min(z, 80.0) for z in zs] if name == "exp" else zs  # e⁸⁰ is finite in float32.
        found = run("activate", {"z": zs}, {"a": np.zeros(SIZE)}, dtype, sigma=name)["a"]
        for z, a in zip(zs, found, strict=True):
            exact = sigma(mp.mpf(z))
            assert worst.see(a, exact, z) <= 4, (z, a, exact)
            if dtype == "float64":
                assert worst_scalar.see(scalar(z), exact, z) <= 4, (z, scalar(z), exact)

    check()
    worst.report()
    if dtype == "float64":
        worst_scalar.report()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_derivative_is_finite_and_right_away_from_the_kinks(name, dtype):
    row, derivative = ACTIVATIONS[name], EXACT[name][1]

    @campaign
    @given(arrays(dtype, PLACES))
    def check(zs):
        zs = [min(z, 80.0) for z in zs] if name == "exp" else zs  # e⁸⁰ is finite in float32.
        a = run("activate", {"z": zs}, {"a": np.zeros(SIZE)}, dtype, sigma=name)["a"]
        kept = a if row.needs == "output" else zs
        found = run("activate_grad", {"y": kept}, {"delta": np.ones(SIZE)}, dtype, sigma=name)["delta"]
        scalars = [row.sigma_prime(row.sigma(z) if row.needs == "output" else z) for z in zs]
        assert np.isfinite(found).all()
        assert np.isfinite(scalars).all()
        for z, *slopes in zip(zs, found, scalars, strict=True):
            if any(abs(z - kink) < 1e-3 for kink in row.kinks):
                continue
            exact = derivative(mp.mpf(z))
            for slope in slopes:
                assert abs(mp.mpf(float(slope)) - exact) <= 1e-6 * (1 + abs(exact)), (z, slope, exact)

    check()


# ------------------------------------------------------------------ softmax and the losses


def exact_softmax(z):
    """exp(zⱼ − max z) / Σ."""
    powers = [mp.exp(v - max(z)) for v in z]
    return [power / sum(powers) for power in powers]


def minus_log_softmax(z):
    """log Σ exp z − zⱼ; mpmath's log1p sees what is left of the sum beside the largest."""
    top = z.index(max(z))
    rest = sum(mp.exp(v - z[top]) for j, v in enumerate(z) if j != top)
    return [(z[top] - v) + mp.log1p(rest) for v in z]


def softplus(z):
    return max(z, mp.mpf(0)) + mp.log1p(mp.exp(-abs(z)))


def huber(d):
    return d * d / 2 if abs(d) <= 1 else abs(d) - mp.mpf(1) / 2


#: The cost of one row of outputs (or z) and targets.
EXACT_COST = {
    "quadratic": lambda a, t: sum((u - v) ** 2 for u, v in zip(a, t, strict=True)) / 2,
    "mse": lambda a, t: sum((u - v) ** 2 for u, v in zip(a, t, strict=True)) / len(a),
    "mae": lambda a, t: sum(abs(u - v) for u, v in zip(a, t, strict=True)) / len(a),
    "huber": lambda a, t: sum(huber(u - v) for u, v in zip(a, t, strict=True)) / len(a),
    "cross_entropy": lambda z, t: sum(v * c for v, c in zip(t, minus_log_softmax(z), strict=True)),
    "binary_cross_entropy": lambda z, t: sum(
        v * softplus(-u) + (1 - v) * softplus(u) for u, v in zip(z, t, strict=True)
    ),
}

#: Where exponentials of differences become denormal, and differences change sides of Huber's corner.
LOSS_PLACES = (0.0, 1.0, -1.0, 37.0, -37.0, -87.3, -103.97, -708.4, -745.1, 709.78)

#: Rows of a batch and their lengths: all numbers of one draw.
SHAPES = st.sampled_from([(1, SIZE), (SIZE, 1), (SIZE // 4, 4), (3, SIZE // 3)])


def exactly(array):
    return [[mp.mpf(float(v)) for v in row] for row in array]


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_is_within_four_ulp_of_the_exact_value(dtype):
    worst = Worst("softmax", "softmax", dtype)

    @campaign
    @given(arrays(dtype, LOSS_PLACES), SHAPES)
    def check(numbers, shape):
        z = np.reshape(numbers, shape).astype(dtype)
        found = run("softmax", {"z": z}, {"a": np.zeros(shape)}, dtype)["a"]
        for row, a in zip(exactly(z), found, strict=True):
            for value, exact in zip(a, exact_softmax(row), strict=True):
                assert worst.see(value, exact, None) <= 4, (row, value, exact)

    check()
    worst.report()


def targets_for(loss, rng, shape, dtype):
    """Probabilities (of 0 and 1 too) where the loss takes them, else numbers of any size."""
    if LOSSES[loss].link:
        return np.where(rng.random(shape) < 0.3, rng.integers(0, 2, shape), rng.random(shape)).astype(dtype)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-30, 30, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "poisson"])
def test_a_cost_is_within_four_ulp_of_the_exact_value(loss, dtype):
    """Of the float64 number that it is, for float32 outputs too; wherever that number can be had at all."""
    worst, most = Worst(f"cost of {dtype} outputs", loss, "float64"), mp.mpf(float(np.finfo(np.float64).max))
    inputs = "z" if LOSSES[loss].link else "a"

    @campaign
    @given(arrays(dtype, LOSS_PLACES), SHAPES, st.integers(0, 2**32 - 1))
    def check(numbers, shape, seed):
        a = np.reshape(numbers, shape).astype(dtype)
        t = targets_for(loss, np.random.default_rng(seed), shape, dtype)
        outs = {"loss": np.zeros(2), "delta": np.zeros(shape)}
        found = run(LOSSES[loss].op, {inputs: a, "t": t, "w": None}, outs, dtype)
        costs = [EXACT_COST[loss](*rows) for rows in zip(exactly(a), exactly(t), strict=True)]
        if sum(costs) * a.size <= most:
            assert worst.see(found["loss"][0], sum(costs) / len(costs), None) <= 4
        if np.abs(a).max() <= np.finfo(dtype).max / 4:
            assert np.isfinite(found["delta"]).all()

    check()
    worst.report()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cost_of_counts_is_within_four_ulp_of_its_largest_terms(dtype):
    """At e^z = t they cancel."""

    @campaign
    @given(arrays(dtype, LOSS_PLACES), SHAPES, st.integers(0, 2**32 - 1))
    def check(numbers, shape, seed):
        z = np.clip(np.reshape(numbers, shape), -1e3, 300).astype(dtype)
        t = np.random.default_rng(seed).poisson(np.exp(np.minimum(z.astype(float), 9))).astype(dtype)
        outs = {"loss": np.zeros(2), "delta": np.zeros(shape)}
        found = run("poisson", {"z": z, "t": t, "w": None}, outs, dtype)
        terms = [
            each
            for row in zip(exactly(z), exactly(t), strict=True)
            for u, v in zip(*row, strict=True)
            for each in (mp.exp(u), -v * u, v * mp.log(v) if v else mp.mpf(0), -v)
        ]
        size = sum(map(abs, terms)) / shape[0]
        assert abs(mp.mpf(found["loss"][0]) - sum(terms) / shape[0]) <= 4 * size * mp.mpf(2) ** -52
        if dtype == "float64":
            np.testing.assert_allclose(found["delta"], (np.exp(z) - t) / shape[0], rtol=1e-14)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sum_exp_of_labels_is_within_four_ulp_of_the_exact_value(dtype):
    worst, most = (
        Worst(f"cost of {dtype} outputs", "cross_entropy of labels", "float64"),
        mp.mpf(float(np.finfo(np.float64).max)),
    )

    @campaign
    @given(arrays(dtype, LOSS_PLACES), SHAPES, st.integers(0, 2**32 - 1))
    def check(numbers, shape, seed):
        z = np.reshape(numbers, shape).astype(dtype)
        labels = np.random.default_rng(seed).integers(0, shape[1], shape[0])
        outs = {"loss": np.zeros(2), "delta": np.zeros(shape)}
        found = run("softmax_cross_entropy", {"z": z, "labels": labels, "w": None}, outs, dtype)
        costs = [minus_log_softmax(row)[k] for row, k in zip(exactly(z), labels, strict=True)]
        if sum(costs) <= most:
            assert worst.see(found["loss"][0], sum(costs) / len(costs), None) <= 4
        assert np.isfinite(found["delta"]).all()

    check()
    worst.report()
