"""The compiled functions of a float, and every σ made of them, against their exact values."""

from __future__ import annotations

import ctypes
import math
import re
from functools import cache
from math import sinh

import llvmlite.binding as llvm
import numpy as np
import pytest
from exact import DTYPES, mp, random_numbers, ulp_error
from test_campaign_numerics import EXACT, PLACES

from gpunn.activations import ACTIVATIONS
from gpunn.backends.numba import bodies
from gpunn.backends.numba.code import Code
from gpunn.backends.numba.frontend import compiled, scalar_of
from gpunn.backends.numba.lower import Argument, Scalar
from gpunn.backends.numba.mathematics import namespace

#: What a result may be off by, in ULP.
MOST = {"exp": 1.5, "log": 1.5, "expm1": 2.5, "log1p": 2.5, "tanh": 2.5, "erf": 2.5, "erfc": 2.5}

EXACTLY = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": mp.log1p,
    "tanh": mp.tanh,
    "erf": lambda x: mp.erf(max(min(x, mp.mpf(1000)), mp.mpf(-1000))),
    "erfc": lambda x: mp.erfc(max(min(x, mp.mpf(1000)), mp.mpf(-1000))),
}

#: Ends of intervals, and where results overflow, become denormal, 0 or 1.
SEAMS = (
    *(0.0, 0.55, -0.55, 0.5, -0.5, 0.8, -0.8, 1.0, -1.0, 2**0.5, 0.5**0.5, 2**0.5 - 1, 0.5**0.5 - 1),
    *(0.34657, -0.34657, 1.0397, -1.0397, 9.0, 10.05, 19.06, 26.5, 27.22, -5.9, 5.9, 9.19, -17.3, -37.4),
    *(88.72, -87.3, -103.97, 709.78, -708.4, -745.1),
)


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return Code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def loop(code):
    """A function of a float, or a σ, compiled over arrays: a function of an array, and its assembly."""

    @cache
    def made(function, dtype):
        name = f"loop-{function}-{dtype}"
        arrays = [Argument(dtype, 1)] * 3
        arguments = [*arrays, Argument(None, constant=function)]
        module = compiled(name, bodies.activate, arguments)
        assembly = code.assembly(module)
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64)(code.address(name, lambda: module, keep=False))

        def run(numbers):
            x = np.asarray(numbers, dtype)
            y = np.empty_like(x)
            tail = np.zeros(2 * bodies.LINE, dtype)
            block = np.array([word for a in (x, y, tail) for word in (a.ctypes.data, a.size)], np.int64)
            kernel(block.ctypes.data)
            return y

        return run, assembly

    return made


def numbers_for(dtype, places, count):
    return [number for seed in range(count) for number in random_numbers(dtype, places, seed)]


def overflows(exact, dtype):
    """Whether the exact value is infinite when it is rounded."""
    info = np.finfo(dtype)
    return abs(exact) >= mp.mpf(float(info.max)) + mp.ldexp(1, info.maxexp - info.nmant - 2)


# ------------------------------------------------------------------ the functions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MOST)
def test_a_function_is_as_near_to_the_exact_value_as_it_says(loop, name, dtype):
    least = {"log": 0.0, "log1p": -1.0}.get(name, -math.inf)
    run, _ = loop(getattr(namespace(dtype), name), dtype)
    xs = [x for x in numbers_for(dtype, SEAMS, 20) if x > least]
    for x, found in zip(xs, run(xs), strict=True):
        exact = EXACTLY[name](mp.mpf(x))
        if overflows(exact, dtype):
            assert found == math.copysign(math.inf, exact), x
        else:
            assert ulp_error(found, exact, dtype) <= MOST[name], (x, found, exact)


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, -1.0, -2.0, 5e-324]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "exp": [1, 1, math.inf, 0, math.nan, None, None, 1],
        "expm1": [0.0, -0.0, math.inf, -1, math.nan, None, None, 5e-324],
        "log": [-math.inf, -math.inf, math.inf, math.nan, math.nan, math.nan, math.nan, None],
        "log1p": [0.0, -0.0, math.inf, math.nan, math.nan, -math.inf, math.nan, 5e-324],
        "tanh": [0.0, -0.0, 1, -1, math.nan, None, None, 5e-324],
        "erf": [0.0, -0.0, 1, -1, math.nan, None, None, 5e-324],
        "erfc": [1, 1, 0, 2, math.nan, None, None, 1],
    }.items(),
)
def test_a_function_of_what_is_no_ordinary_number(loop, name, expected, dtype):
    run, _ = loop(getattr(namespace(dtype), name), dtype)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    xs, expected = ([smallest if v == 5e-324 else v for v in vs] for vs in (SPECIAL, expected))
    found = [v for v, wanted in zip(run(xs).tolist(), expected, strict=True) if wanted is not None]
    wanted = [float(v) for v in expected if v is not None]
    assert [repr(v) for v in found] == [repr(v) for v in wanted]


@pytest.mark.skipif(not llvm.get_process_triple().startswith("x86_64"), reason="reads x86-64's assembly")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MOST)
def test_a_loop_over_a_function_is_made_of_vectors(loop, code, name, dtype):
    _, assembly = loop(getattr(namespace(dtype), name), dtype)
    register = {64: "zmm", 32: "ymm", 16: "xmm"}[code.processor.width]
    kind = "p[sd]" if name.startswith("erf") else {"float32": "ps", "float64": "pd"}[dtype]
    assert len(re.findall(rf"\bv?(?:fn?madd\d+|mul|add){kind}\b.*%{register}", assembly)) >= 10
    assert not re.search(r"\bcall", assembly)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sqrt", "fabs", "floor", "ceil", "trunc"])
def test_what_has_an_exact_result_has_it(loop, name, dtype):
    run, assembly = loop(getattr(namespace(dtype), name), dtype)
    xs = np.array([*numbers_for(dtype, (0.5, 1.0, 7.0), 5), 0.0, -0.0, math.inf, -math.inf, math.nan], dtype)
    xs = np.abs(xs) if name == "sqrt" else xs
    np.testing.assert_array_equal(run(xs), getattr(np, name)(xs))
    assert not re.search(r"\bcall", assembly)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divisor", [1 / 64, -4.0, 0.3, math.inf])
def test_a_remainder_is_exact(loop, divisor, dtype):
    def remainder(x):
        return math.fmod(x, divisor)

    run, assembly = loop(scalar_of(remainder, dtype, namespace(dtype)), dtype)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan]
    xs = np.array([*numbers_for(dtype, (0.5, 12.0, -12.0), 5), *special], dtype)
    with np.errstate(invalid="ignore"):
        expected = np.fmod(xs, np.array(divisor, dtype))
    np.testing.assert_array_equal(run(xs), expected)
    same = np.isfinite(xs)
    np.testing.assert_array_equal(np.signbit(run(xs)[same]), np.signbit(expected[same]))
    if divisor == 1 / 64:
        assert not re.search(r"\bcall", assembly)


# ------------------------------------------------------------------ functions of the user's


def scale_of(factor):
    def scaled(z):
        return factor * math.sin(z) + sinh(z) + math.pi * 0.1

    return scaled


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_other_name_of_math_compiles_and_keeps_the_dtype(loop, dtype):
    scalar = scale_of(0.7)
    made = scalar_of(scalar, dtype, namespace(dtype))
    run, _ = loop(made, dtype)
    xs = np.linspace(-3, 3, 50).astype(dtype)
    expected = [scalar(float(x)) for x in xs]
    np.testing.assert_allclose(run(xs), expected, rtol=0, atol=20 * np.finfo(dtype).eps)
    (result,) = made.overloads.values()
    assert str(result.signature) == f"({dtype},) -> {dtype}"


def test_a_function_of_math_is_a_scalar_function_too():
    ours = namespace("float32")
    assert scalar_of(math.tanh, "float32", ours) is ours.tanh
    assert scalar_of(math.atan, "float32", ours) is math.atan


# ------------------------------------------------------------------ σ and σ′


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_compiled_activation_is_within_four_ulp_of_the_exact_value(loop, name, dtype):
    run, _ = loop(Scalar(name, False, dtype), dtype)
    zs = [z for z in numbers_for(dtype, PLACES, 10) if name != "exp" or z < 80]
    for z, found in zip(zs, run(zs), strict=True):
        exact = EXACT[name][0](mp.mpf(z))
        assert ulp_error(found, exact, dtype) <= 4, (z, found, exact)
    assert np.isnan(run([math.nan])).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_compiled_derivative_is_that_of_the_scalar_definition(loop, name, dtype):
    row = ACTIVATIONS[name]
    run, _ = loop(Scalar(name, True, dtype), dtype)
    zs = [z for z in numbers_for(dtype, PLACES, 10) if name != "exp" or z < 80]
    taken = np.array([row.sigma(z) for z in zs], dtype) if row.needs == "output" else np.array(zs, dtype)
    expected = np.array([row.sigma_prime(float(y)) for y in taken])
    # 1 − s has an error of one ULP of 1, which σ′ of silu multiplies by z; s is 1 from 37 on.
    grown = 1 + np.minimum(np.abs(zs), 40) * (name == "silu")
    grown = np.maximum(grown, np.abs(expected)) if name == "exp" else grown
    assert (np.abs(run(taken) - expected) <= 4 * grown * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("part", ["sigma", "sigma_prime"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_compiled_function_agrees_with_python_in_float64(loop, name, part):
    row = ACTIVATIONS[name]
    run, _ = loop(Scalar(name, part == "sigma_prime", "float64"), "float64")
    zs = np.array(numbers_for("float64", (0.0, 1.0, -1.0), 10))
    zs = zs[np.abs(zs) < 30]
    taken = [row.sigma(z) for z in zs] if part == "sigma_prime" and row.needs == "output" else zs
    expected = np.array([getattr(row, part)(y) for y in taken])
    np.testing.assert_allclose(run(taken), expected, rtol=2e-15, atol=2e-15)
