"""The kernels that Numba CUDA makes of σ and σ′: their code, and what they compute in the simulator."""

from __future__ import annotations

import functools
import itertools
import math
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from cuda_sim import SimulatorDriver

import gpunn
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.backends.cuda import generated
from gpunn.backends.cuda.generated import Generated, cubin, ptx
from gpunn.scalars import retyped

pytestmark = [
    pytest.mark.cuda_host,
    pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed"),
]

OPS = ["activate", "activate_grad"]
DTYPES = ["float32", "float64"]
KERNELS = [Generated(*key) for key in itertools.product(OPS, ACTIVATIONS, DTYPES)]
#: δ ← δ · 1 is nothing to do, and the compiler finds out.
EMPTY = {"identity"}
AT_WORK = [kernel for kernel in KERNELS if kernel.op == "activate" or kernel.sigma not in EMPTY]
#: At float64 the largest stands for the rest: Numba takes a while for each.
COMPILED = [kernel for kernel in KERNELS if kernel.dtype == "float32" or kernel.sigma == "gelu"]


@pytest.fixture(autouse=True)
def _rows_as_they_were():
    """What a test registers is gone after it."""
    before = dict(ACTIVATIONS)
    yield
    ACTIVATIONS.clear()
    ACTIVATIONS.update(before)


@pytest.fixture(scope="module")
def simulator():
    driver = SimulatorDriver()
    yield driver
    driver.close()


def enter(sigma, sigma_prime=lambda z: 1.0):
    ACTIVATIONS["mine"] = Activation("mine", sigma, sigma_prime, "input", "a", "a test")


# ------------------------------------------------------------------ compiled


@pytest.mark.parametrize("kernel", COMPILED, ids=str)
def test_a_kernel_compiles_to_ptx_of_its_dtype_with_plain_arguments(kernel):
    text, entry = ptx(kernel, "sm_90")
    assert ".target sm_90" in text
    assert re.findall(r"\.entry (\w+)\(\s*((?:\.param \.u64 \w+,?\s*){3})\)", text)[0][0] == entry
    assert (".f64" in text) == (kernel.dtype == "float64" and kernel in AT_WORK)
    assert "NumbaEnv" not in text


@pytest.mark.parametrize("arch", ["sm_80", "sm_100"])
@pytest.mark.parametrize(
    "kernel",
    [
        Generated("activate", "elu", "float64"),
        Generated("activate_grad", "silu", "float32"),
    ],
    ids=str,
)
def test_a_kernel_compiles_for_every_architecture(kernel, arch):
    text, _ = ptx(kernel, arch)
    assert f".target {arch}" in text
    assert re.search(r"ld\.global\.v[24]\.[bf](32|64)", text)
    assert (".f64" in text) == (kernel.dtype == "float64")


@pytest.mark.parametrize("kernel", [kernel for kernel in COMPILED if kernel in AT_WORK], ids=str)
def test_sixteen_bytes_an_instruction_and_no_spills(kernel):
    text, _ = ptx(kernel, "sm_90")
    assert re.search(r"ld\.global\.v[24]\.", text)
    assert re.search(r"st\.global\.v[24]\.", text)
    code, entry, log = cubin(kernel, "sm_90")
    assert code[:4] == b"\x7fELF"
    assert entry.encode() in code
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == 1
    assert registers[0] <= 80


def nvdisasm():
    spec = find_spec("nvidia")
    roots = (spec and spec.submodule_search_locations) or ()
    found = [path for root in roots for path in Path(root).glob("cu*/bin/nvdisasm")]
    return found[0] if found else pytest.skip("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")


@pytest.mark.parametrize(
    "kernel",
    [
        Generated("activate", "gelu", "float32"),
        Generated("activate_grad", "silu", "float32"),
        Generated("activate_grad", "gelu", "float64"),
    ],
    ids=str,
)
def test_the_machine_code_reads_and_writes_sixteen_bytes_at_a_time(kernel, tmp_path):
    path = tmp_path / "kernel.cubin"
    path.write_bytes(cubin(kernel, "sm_90")[0])
    listing = subprocess.run([nvdisasm(), "-c", path], capture_output=True, text=True, check=True).stdout
    assert "LDG.E.128" in listing
    assert "STG.E.128" in listing
    assert re.findall(r"\b(LDL|STL)\b", listing) == []


def test_every_index_has_64_bits_and_no_loop_is_counted_by_a_division():
    text, _ = ptx(Generated("activate", "relu", "float32"), "sm_90")
    assert "div." not in text
    assert "cvt.u32.u64" not in text
    assert "setp.lt.s64" in text


def test_an_identity_does_nothing_to_an_error():
    assert "ld.global" not in ptx(Generated("activate_grad", "identity", "float32"), "sm_90")[0]


def test_an_architecture_of_another_kind_is_refused():
    with pytest.raises(gpunn.DeviceError, match="'gfx90a', expected a name such as 'sm_90'"):
        ptx(Generated("activate", "relu", "float32"), "gfx90a")


# ------------------------------------------------------------------ once, and by function


@pytest.fixture
def compiled(monkeypatch):
    made, own = [], generated._ptx
    monkeypatch.setattr(generated, "_ptx", lambda *given: made.append(given) or own(*given))
    return made


def test_a_kernel_is_compiled_once(compiled):
    enter(lambda z: 0.5 * z)
    kernel = Generated("activate", "mine", "float32")
    first = ptx(kernel, "sm_90")
    assert ptx(kernel, "sm_90") is first
    assert cubin(kernel, "sm_90") is cubin(kernel, "sm_90")
    assert len(compiled) == 1


def test_a_name_that_is_taken_anew_is_compiled_anew(compiled):
    kernel = Generated("activate", "mine", "float32")
    enter(lambda z: 2.0 * z)
    first = ptx(kernel, "sm_90")
    enter(lambda z: 3.0 * z)
    assert ptx(kernel, "sm_90") != first
    assert "0f40400000" in ptx(kernel, "sm_90")[0]
    assert len(compiled) == 2


# ------------------------------------------------------------------ in the simulator


def definition(kernel, numbers):
    return np.array([kernel.function(float(number)) for number in numbers])


def assert_close(found, expected, size=0.0):
    """Equal up to 8 ULP, of ``size`` where σ′ differs from 0 by a difference of larger numbers."""
    kind = np.finfo(found.dtype)
    bound = 8 * float(kind.eps)
    np.testing.assert_allclose(found, expected, rtol=bound, atol=max(bound * size, float(kind.tiny)))


def inputs(kernel, size):
    """Numbers on both sides of every branch, for a σ′ of an output the outputs, with NaN among them."""
    places = [1.5, -0.25, -90.0, 25.0, 0.0, -0.0]
    z = np.concatenate([places, np.random.default_rng(size).standard_normal(size) * 4])
    z = z[:size].astype(kernel.dtype)
    row = ACTIVATIONS[kernel.sigma]
    if kernel.op == "activate_grad" and row.needs == "output":
        z = np.array([row.sigma(float(number)) for number in z], kernel.dtype)
    z[7::29] = math.nan
    return z


def at(offset, values):
    """A copy of the values, so many elements beyond a multiple of 16 bytes, and what lies around it."""
    room = np.full(values.size + 16, 7.0, values.dtype)
    start = (-room.ctypes.data % 16) // room.itemsize + offset
    view = room[start : start + values.size]
    view[...] = values
    return view, lambda: np.delete(room, slice(start, start + values.size))


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_kernel_computes_its_definition(simulator, kernel):
    """Ten groups of four for eight threads, and three more."""
    size = 43
    source = inputs(kernel, size)
    old = np.linspace(-2, 3, size).astype(kernel.dtype)
    (read, _), (written, around) = at(0, source), at(0, old)
    simulator.launch(kernel, (1,), (8,), [read, written, np.int64(size)])
    expected = definition(kernel, source)
    if kernel.op == "activate":
        assert_close(written, expected)
    else:
        assert_close(written, expected * old, size=3.0)
    if kernel in AT_WORK:
        np.testing.assert_array_equal(np.isnan(written), np.isnan(source))
    np.testing.assert_array_equal(read, source)
    assert (around() == 7).all()


@pytest.mark.parametrize("offsets", [(1, 0), (0, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses_may_be_unaligned(simulator, op, dtype, offsets):
    kernel = Generated(op, "sigmoid", dtype)
    source, old = inputs(kernel, 37), np.linspace(-2, 3, 37).astype(dtype)
    (read, _), (written, around) = at(offsets[0], source), at(offsets[1], old)
    simulator.launch(kernel, (1,), (32,), [read, written, np.int64(37)])
    assert_close(written, definition(kernel, source) * (1 if op == "activate" else old))
    assert (around() == 7).all()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("sigma", ["relu", "gelu"])
def test_a_may_be_z(simulator, sigma, offset):
    kernel = Generated("activate", sigma, "float32")
    source = inputs(kernel, 70)
    place, around = at(offset, source)
    simulator.launch(kernel, (1,), (32,), [place, place, np.int64(70)])
    assert_close(place, definition(kernel, source))
    assert (around() == 7).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("length", [0, 5])
def test_what_lies_beyond_the_length_stays(simulator, op, length):
    kernel = Generated(op, "tanh", "float32")
    source, old = inputs(kernel, 40), np.linspace(-2, 3, 40, dtype=np.float32)
    written = old.copy()
    simulator.launch(kernel, (1,), (32,), [source, written, np.int64(length)])
    expected = definition(kernel, source) * (1 if op == "activate" else old)
    assert_close(written[:length], expected[:length])
    np.testing.assert_array_equal(written[length:], old[length:])


@pytest.mark.parametrize(("grid", "block"), [((1,), (1,)), ((3,), (5,)), ((2, 1, 1), (64, 1, 1))])
def test_any_grid_covers_the_array(simulator, grid, block):
    kernel = Generated("activate", "softplus", "float32")
    source = inputs(kernel, 150)
    written = np.zeros_like(source)
    simulator.launch(kernel, grid, block, [source, written, np.int64(150)])
    assert_close(written, definition(kernel, source))


# ------------------------------------------------------------------ from outside

HALF = 0.5


def halved(z):
    return HALF * z


def scale_of(factor):
    def scaled(z):
        return factor * math.expm1(z)

    return scaled


bent = scale_of(np.float64(0.7))


def of_everything(z, slope=0.1):
    return halved(z) + slope * math.pi if z > 0 else bent(z)


def of_numpy(z):
    return np.tanh(z) + np.exp(-np.abs(z)) - np.sqrt(1.0 + z * z)


def of_a_table(z, table=(1.5, 0.25)):
    return table[0] + z * table[1]


def of_a_mixed_table(z, table=(1.5, 2)):
    return table[0] * z if z < table[1] else z


SERIES = (0.5, 0.125, 0.1)


def of_tuples(z):
    total = z
    for factor in SERIES:
        total += factor * z
    for factor in (0.3, 0.7):
        total -= factor / (1.0 + z * z)
    return total


def of_a_nested_function(z):
    def inner(x):
        return HALF * math.tanh(0.3 * x)

    return inner(z) + inner(2.0 * z)


TWO = 2


def of_whole_numbers(z):
    n, total = 3, 0
    for _ in range(n):
        total += z**2 / TWO
    return 2 * z + max(0, min(z, 6)) / n - total + (1 if z > 0 else -1) / (1 + z * z)


def tanh(z):
    return math.tanh(z)


def by_keyword(z, *, slope=0.1):
    return slope * tanh(z) + float(z > 0)


OUTSIDE = {
    "functions, a closure, a default": of_everything,
    "NumPy": of_numpy,
    "constant elements": of_a_table,
    "constant elements of several types": of_a_mixed_table,
    "tuples": of_tuples,
    "a nested function": of_a_nested_function,
    "whole numbers": of_whole_numbers,
    "the name of one of math": tanh,
    "an argument by keyword": by_keyword,
    "a function of math": math.atan,
    "a function of NumPy": np.tanh,
}


@pytest.mark.parametrize(
    ("how", "dtype"),
    [*((how, "float32") for how in OUTSIDE), ("an argument by keyword", "float64")],
)
def test_a_sigma_from_outside_is_compiled_and_computed(simulator, how, dtype):
    enter(OUTSIDE[how])
    kernel = Generated("activate", "mine", dtype)
    text, entry = ptx(kernel, "sm_90")
    assert f".entry {entry}(" in text
    assert (".f64" in text) == (dtype == "float64")
    z = np.linspace(-3, 3, 61).astype(dtype)
    written = np.zeros_like(z)
    simulator.launch(kernel, (1,), (32,), [z, written, np.int64(61)])
    np.testing.assert_allclose(written, definition(kernel, z), rtol=1e-5, atol=10 * np.finfo(dtype).eps)


def test_numbers_become_those_of_the_dtype():
    def constants():
        return 0.5, 2, 40000, True, (1.5, (3, "a")), lambda z: 0.25

    kind = [np.float32, np.int16, int, bool]
    made = retyped(constants, "float32", math, lambda function: function, np.int16)()
    assert [type(value) for value in made[:4]] == kind
    assert [type(value) for value in (made[4][0], made[4][1][0], made[4][1][1], made[5](1))] == [
        *kind[:2],
        str,
        np.float32,
    ]
    assert type(retyped(constants, "float32", math, lambda function: function)()[1]) is int


def test_float64_in_a_network_of_float32_is_told_of_once_a_row():
    kernel = Generated("activate", "mine", "float32")
    enter(lambda z: round(z) * 0.5 + abs(z), lambda z: round(z) * z)
    said = r"'mine': sigma computes in float64 .*: write numbers as floats \(2\.0 \* z, not 2 \* z\)"
    with pytest.warns(gpunn.GpunnWarning, match=said) as caught:
        ptx(kernel, "sm_90")
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    ptx(Generated("activate_grad", "mine", "float32"), "sm_90")
    enter(lambda z: (TWO * 20000 * 20000 * 20000) * z)
    with pytest.warns(gpunn.GpunnWarning, match=said):
        text, _ = ptx(kernel, "sm_90")
    assert np.float64(1.6e13).tobytes()[::-1].hex().upper() in text  # No overflow at 16 or 32 bits.


@pytest.mark.parametrize("arch", ["sm_90", "sm_120"])
def test_the_angle_of_a_sine_is_reduced_in_float64_and_that_is_no_news(arch):
    enter(lambda z: math.sin(z) * math.cos(2 * z))
    assert "mul.f64" in ptx(Generated("activate", "mine", "float32"), arch)[0]


def overflowing(z):
    return math.exp(z) + math.log(-z)


def test_where_python_raises_the_simulator_has_infinity_and_nan(simulator):
    enter(overflowing)
    written = np.zeros(3, np.float32)
    arguments = [np.array([1e4, -1.0, 2.0], np.float32), written, np.int64(3)]
    simulator.launch(Generated("activate", "mine", "float32"), (1,), (32,), arguments)
    assert np.isnan(written).tolist() == [True, False, True]


def raising(z):
    if z > 2:
        raise ValueError("too large")
    return z


def calling_one_that_raises(z):
    return raising(z) + 1.0


def asserting(z):
    assert z < 2
    return z


def looking_up(z, table=(1.0, 2.0)):
    return table[int(z)] * z


def of_a_dictionary(z, table={"slope": 2.0}):  # noqa: B006
    return table["slope"] * z


def calling_itself(z):
    return z if z < 1 else calling_itself(z / 2)


def nesting_one_that_raises(z):
    def inner(x):
        if x > 2:
            raise ValueError("too large")
        return x

    return inner(z)


def required(z, one=1.0, *, slope):
    return one + slope * z


def calling_by_keyword(z):
    return required(z, slope=0.5)


class Callable:
    def __call__(self, z):
        return z

    def method(self, z):
        return z


def of_nothing_known(z):
    return no_such_name(z)  # noqa: F821


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        (raising, "raising may raise an exception"),
        (calling_one_that_raises, "raising may raise an exception"),
        (asserting, "asserting may raise an exception"),
        (looking_up, "looking_up may raise an exception"),
        (of_a_dictionary, "dict"),
        (calling_itself, ": calling_itself calls itself."),
        (nesting_one_that_raises, "may raise an exception"),
        (calling_by_keyword, "required has arguments that go by keyword alone"),
        (of_nothing_known, "'no_such_name' is not defined"),
        (
            functools.partial(lambda one, z: one - z, 1),
            "no plain function (def or lambda) but of type 'partial'",
        ),
        (Callable().method, "no plain function (def or lambda) but of type 'method'"),
        (Callable(), "no plain function (def or lambda) but of type 'Callable'"),
        (lambda z: None, "none"),
        (lambda z: z + 0j, "complex128"),
        (lambda z: "a", "str"),
        (lambda z: np.square(z), "it calls square, which cannot be compiled here: write that with if, else"),
        (lambda z: np.where(z > 0, z, 0.0), "it calls where, which cannot be compiled here"),
        (lambda z: z if isinstance(z, float) else 0.0, "it calls isinstance, which"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_what_to_do(sigma, said):
    if re.search("where|isinstance", said) and import_module("numba.cuda").is_available():
        pytest.skip("Numba compiles it apart, for the GPU that is there")
    enter(sigma)
    with pytest.raises(gpunn.ProgramError) as caught:
        ptx(Generated("activate", "mine", "float64"), "sm_90")
    words = ["activation 'mine': sigma cannot be compiled for a GPU", said, "Arithmetic, math.*"]
    assert [word for word in words if word not in str(caught.value)] == []
    assert len(str(caught.value)) < 350
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_derivative_is_named_when_it_is_the_one():
    enter(math.tanh, raising)
    with pytest.raises(gpunn.ProgramError, match="activation 'mine': sigma_prime cannot be compiled"):
        ptx(Generated("activate_grad", "mine", "float32"), "sm_90")


@pytest.mark.parametrize(
    ("package", "make"), [("numba_cuda", ptx), ("numba.cuda.types", ptx), ("cuda.bindings.nvjitlink", cubin)]
)
def test_a_package_that_is_missing_is_named_with_the_remedy(monkeypatch, package, make):
    enter(lambda z: 0.25 * z)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(gpunn.DeviceError, match=r"need the package .*pip install numba-cuda\[cu13\]"):
        make(Generated("activate", "mine", "float32"), "sm_90")


# ------------------------------------------------------------------ the simulator's driver


def test_an_access_out_of_bounds_is_an_error(simulator):
    z, a = np.ones(8, np.float32), np.zeros(5, np.float32)
    with pytest.raises(RuntimeError, match=r"failed in the simulator(.|\n)*IndexError"):
        simulator.launch(Generated("activate", "relu", "float32"), (1,), (32,), [z, a, np.int64(8)])


def test_a_function_that_no_other_process_can_import_is_refused(simulator):
    enter(lambda z: z)
    with pytest.raises(gpunn.ProgramError, match=r"cannot be run in the simulator.*import"):
        simulator.launch(Generated("activate", "mine", "float32"), (1,), (32,), [])


def test_without_numba_cuda_the_driver_says_so(monkeypatch):
    monkeypatch.setattr("cuda_sim.driver.find_spec", lambda name: None)
    with pytest.raises(gpunn.DeviceError, match="not available: pip install numba-cuda"):
        SimulatorDriver()


def endless(z):
    while z == z:
        z = z + 0.0
    return z


def test_a_kernel_that_does_not_end_is_ended_and_the_next_one_runs(simulator, monkeypatch):
    z, a = np.ones(3, np.float32), np.zeros(3, np.float32)
    enter(endless)
    with monkeypatch.context() as patch:
        patch.setattr(simulator, "limit", 0.3)
        with pytest.raises(TimeoutError, match=r"'mine'.* ran longer than 0.3 s"):
            simulator.launch(Generated("activate", "mine", "float32"), (1,), (1,), [z, a, np.int64(3)])
    simulator.launch(Generated("activate", "identity", "float32"), (1,), (32,), [z, a, np.int64(3)])
    assert a.tolist() == [1, 1, 1]


def test_the_worker_ends_with_what_holds_it(simulator):
    z, a = np.ones(3, np.float32), np.zeros(3, np.float32)
    simulator.launch(Generated("activate", "relu", "float32"), (1,), (32,), [z, a, np.int64(3)])
    process = simulator._worker.process
    assert process.poll() is None
    simulator._worker = None
    assert process.poll() is not None
