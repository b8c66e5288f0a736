"""How far a result is from the exact one, in ULP: mpmath with 60 digits is the judge.

``GPUNN_CAMPAIGN=full`` draws 1000 arrays a check instead of 60; ``GPUNN_CAMPAIGN_REPORT`` names a file that
gets the worst error of each check, one JSON object a line.
"""

from __future__ import annotations

import json
import math
import os
from functools import cache

import mpmath
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gpunn.device import backend_for
from gpunn.ops import rule
from gpunn.program import Program
from gpunn.slots import Role

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
    """The NumPy backend with one op in a program of its own; ins and outs are (name, shape or None) pairs."""
    program, entry = Program(dtype), rule(op)
    kinds = {operand.name: operand.dtype for operand in (*entry.inputs, *entry.outputs)}
    slots = {
        name: None if shape is None else program.slot(name, shape, Role.INPUT, kinds[name])
        for name, shape in (*ins, *outs)
    }
    program.emit(op, [slots[name] for name, _ in ins], {name: slots[name] for name, _ in outs}, **attrs)
    program.pin(*filter(None, slots.values()))
    return backend_for("numpy").load(program, {}, fused=False)


def run(op, ins, outs, dtype, **attrs):
    """What one op of the NumPy backend writes: ins are arrays by name (None: absent), outs what is there."""
    arrays_ = {name: None if array is None else np.asarray(array) for name, array in {**ins, **outs}.items()}
    shapes = {name: None if array is None else array.shape for name, array in arrays_.items()}
    pairs = [tuple((name, shapes[name]) for name in group) for group in (ins, outs)]
    runner = runner_of(op, *pairs, dtype, **attrs)
    for name, array in arrays_.items():
        if array is not None:
            runner.write(name, array)
    runner.run()
    return {name: runner.read(name) for name in outs}
