"""How far results are from the exact ones, over all finite numbers: mpmath with 60 digits is the judge.

Each check draws arrays from the whole range of the dtype and counts errors in ULP. ``GPUNN_CAMPAIGN=full``
draws 1000 arrays a check instead of 60; ``GPUNN_CAMPAIGN_REPORT`` names a file that gets the worst error of
each check, one JSON object a line.
"""

from __future__ import annotations

import json
import math
import os
from functools import cache

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpunn.activations import ACTIVATIONS
from gpunn.device import backend_for
from gpunn.program import Program
from gpunn.slots import Role

pytestmark = pytest.mark.campaign

EXAMPLES = 1000 if os.environ.get("GPUNN_CAMPAIGN") == "full" else 60
REPORT = os.environ.get("GPUNN_CAMPAIGN_REPORT")
DTYPES = ("float32", "float64")

#: Numbers of each kind in an array, and of all kinds.
DRAWN = 4
SIZE = 6 * DRAWN

mp = mpmath.mp.clone()
mp.dps = 60

campaign = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# ------------------------------------------------------------------ ULP, and what is drawn


def ulp(exact, dtype):
    """The spacing of the dtype's numbers at an exact value; among the denormal ones it is that of 0."""
    info = np.finfo(dtype)
    smallest = info.minexp - info.nmant
    return mp.ldexp(1, max(mp.frexp(exact)[1] - info.nmant - 1, smallest) if exact else smallest)


def ulp_error(found, exact, dtype):
    """|found − exact| in ULP of the exact value; infinite where what was found is not finite."""
    found = float(found)
    return float(abs(mp.mpf(found) - exact) / ulp(exact, dtype)) if math.isfinite(found) else math.inf


class Worst:
    """The largest error a check has met, and where."""

    def __init__(self, check, name, dtype):
        self.row = {"check": check, "name": name, "dtype": dtype, "examples": EXAMPLES}
        self.error, self.at = 0.0, None

    def see(self, found, exact, at):
        """Count an error; returns it."""
        error = ulp_error(found, exact, self.row["dtype"])
        if error > self.error:
            self.error, self.at = error, at
        return error

    def report(self):
        """Append the line to the report, if there is to be one."""
        if REPORT:
            with open(REPORT, "a", encoding="utf-8") as file:
                file.write(json.dumps({**self.row, "worst_ulp": round(self.error, 3), "at": self.at}) + "\n")


def rounded(value, dtype):
    info = np.finfo(dtype)
    return np.clip(value, info.min, info.max).astype(dtype).astype(np.float64).tolist()


def drawn_numbers(dtype, places):
    """What Hypothesis thinks of: any finite number, the extremes, and a few ULP next to the given places."""
    info = np.finfo(dtype)
    extremes = [float(v) for v in (info.max, info.min, info.tiny, info.smallest_subnormal)]

    def next_to(place, steps):
        at = np.asarray(place, dtype)
        return float(at + steps * np.spacing(at))

    return st.one_of(
        st.floats(width=info.bits, allow_nan=False, allow_infinity=False),
        st.sampled_from([*extremes, 0.0, -0.0]),
        st.builds(next_to, st.sampled_from(places), st.integers(-4, 4)),
    )


def random_numbers(dtype, places, seed):
    """What has all its digits: of any magnitude, of everyday size, and at any distance from the places."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    exponents = rng.uniform(info.minexp - info.nmant, info.maxexp, DRAWN)
    magnitudes = np.ldexp(rng.choice([-1.0, 1.0], DRAWN), np.floor(exponents).astype(int))
    wide = [
        magnitudes * rng.uniform(1, 1.999, DRAWN),
        rng.uniform(-10, 10, DRAWN),
        rng.uniform(-120, 120, DRAWN),
        rng.uniform(-800, 800, DRAWN),
        rng.choice(places, DRAWN) + rng.uniform(-1, 1, DRAWN) * 2.0 ** rng.uniform(-30, 0, DRAWN),
    ]
    return rounded(np.concatenate(wide), dtype)


def arrays(dtype, places=(0.0,)):
    """Lists of SIZE finite numbers of a dtype, drawn both ways."""
    drawn = st.lists(drawn_numbers(dtype, places), min_size=DRAWN, max_size=DRAWN)
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(lambda few, seed: few + random_numbers(dtype, places, seed), drawn, seeds)


@cache
def runner_of(op, ins, outs, dtype, **attrs):
    """The NumPy backend with one op in a program of its own; ins and outs are (name, shape) pairs."""
    program = Program(dtype)
    slots = {name: program.slot(name, shape, Role.INPUT) for name, shape in (*ins, *outs)}
    program.emit(op, [slots[name] for name, _ in ins], {name: slots[name] for name, _ in outs}, **attrs)
    program.pin(*slots.values())
    return backend_for("numpy").load(program, {}, fused=False)


def run(op, ins, outs, dtype, **attrs):
    """What one op of the NumPy backend writes: ins are arrays by name, outs what is there before."""
    given_ = {name: np.asarray(array, dtype) for name, array in ins.items()}
    start = {name: np.asarray(array, dtype) for name, array in outs.items()}
    shapes = [tuple((name, array.shape) for name, array in group.items()) for group in (given_, start)]
    runner = runner_of(op, *shapes, dtype, **attrs)
    for name, array in {**given_, **start}.items():
        runner.write(name, array)
    runner.run()
    return {name: runner.read(name) for name in start}


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
