"""What the CUDA kernels do beyond the formula of an op: any alignment, in place, NaN, overflow."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mpmath
import numpy as np
import pytest
from cuda_host.mutate import FAULTS, ROOT
from host_device import SMALL, host_backend, shim
from one_op import outcome, program_of
from oracle import SIGMA
from references import ATTRIBUTES, each
from test_parity import complete, letters_of

import gpunn
from gpunn import kernels
from gpunn.activations import OWN as ACTIVATIONS
from gpunn.backends.cuda import lower
from gpunn.backends.cuda.catalogue import REAL, TEMPLATES, kernel
from gpunn.backends.cuda.generated import Generated
from gpunn.backends.cuda.lower import LOWER, PRODUCTS, Launch, Limits, Lowering, Product, Scratch
from gpunn.backends.host import aligned
from gpunn.ops import HYPER, OWN, rule
from gpunn.philox import keep, threshold
from gpunn.program import Program
from gpunn.slots import Role

pytestmark = pytest.mark.cuda_host

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


@pytest.fixture
def device():
    return shim()


def optional(name):
    return [o.name for o in (*rule(name).inputs, *rule(name).outputs) if o.optional]


def steps_of(name, sizes=None, absent=(), limits=SMALL, **attrs):
    """What an op becomes."""
    sizes = complete(name, sizes or dict.fromkeys(letters_of(name), 7))
    program = program_of(name, sizes, absent=absent, **{**ATTRIBUTES.get(name, [{}])[0], **attrs})
    return Lowering(program, limits).steps(program.ops[0])


# ------------------------------------------------------------------ the table is whole


@pytest.mark.parametrize("file", list(TEMPLATES))
def test_the_catalogue_holds_the_kernels_of_a_source(file):
    written = re.findall(r"__global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(", kernels.source(file))
    assert sorted(written) == sorted(TEMPLATES[file])


def test_the_catalogue_holds_every_source():
    (folder,) = kernels.__path__
    assert sorted(TEMPLATES) == sorted(path.name for path in Path(folder).glob("*.cu"))


def test_every_op_is_lowered():
    assert {name for name in LOWER if "+" not in name} == OWN


@pytest.mark.parametrize("name", sorted(OWN))
def test_only_the_ops_listed_as_products_are_products(name):
    assert any(isinstance(step, Product) for step in steps_of(name)) == (name in PRODUCTS)


def test_every_kernel_is_launched_by_an_op():
    everything = [steps_of(name, absent=absent) for name in OWN for absent in ((), optional(name))]
    net = gpunn.Sequential([gpunn.Dense(2, activation="tanh")], input_shape=3, seed=0)
    fused = net.program(loss="quadratic")
    fused = fused.fuse(lower.patterns_for(fused))
    everything += [Lowering(fused).steps(op) for op in fused.ops]
    launched = {step.kernel.expression for steps in everything for step in steps if isinstance(step, Launch)}
    names = {name for templates in TEMPLATES.values() for name in templates}
    assert {expression.partition("<")[0] for expression in launched} == names


def test_the_words_of_hyper_are_those_of_the_kernels():
    words = re.search(r"enum Word \{(.*?)\};", kernels.source("hyper.cuh"), re.DOTALL).group(1)
    assert re.findall(r"\w+", words) == sorted(HYPER, key=HYPER.get)


def test_the_bits_of_terms_are_those_of_the_kernels():
    bits = re.search(r"enum Bit \{(.*?)\};", kernels.source("hyper.cuh")).group(1)
    assert {name: int(bit) for name, bit in re.findall(r"(\w+) = (\d+)", bits)} == lower.TERMS


def test_threads_down_a_column_are_as_many_as_the_kernel_says():
    assert f"DOWN = {lower.DOWN};" in kernels.source("sums.cu")


def test_the_table_of_sigma_is_that_of_the_activations():
    assert set(re.findall(r"^struct (\w+)", kernels.source("sigma.cuh"), re.MULTILINE)) == ACTIVATIONS


# ------------------------------------------------------------------ which kernel runs


def test_numba_can_stand_in_for_the_table_of_sigma(monkeypatch):
    monkeypatch.setenv("GPUNN_CUDA_KERNELS", "numba")
    (step,) = steps_of("activate", sigma="tanh")
    assert step.kernel == Generated("activate", "tanh", "float32")


def test_another_maker_of_kernels_is_refused(monkeypatch):
    monkeypatch.setenv("GPUNN_CUDA_KERNELS", "numbas")
    with pytest.raises(gpunn.UnknownNameError, match="GPUNN_CUDA_KERNELS 'numbas': did you mean 'numba'"):
        steps_of("activate", sigma="tanh")


def test_an_activation_from_outside_is_generated():
    gpunn.register_activation("cube", lambda z: z * z * z, lambda z: 3 * z * z)
    try:
        (step,) = steps_of("activate_grad", sigma="cube")
        assert step.kernel == Generated("activate_grad", "cube", "float32")
    finally:
        del gpunn.activations.ACTIVATIONS["cube"]


def test_the_limits_are_those_of_a_gpu():
    limits = Limits()
    assert limits.threads % lower.WARP == 0
    assert limits.threads <= 1024
    assert limits.partial <= limits.blocks < 2**16  # What a grid may have in its second dimension.


@pytest.mark.parametrize("name", ["softmax", "linear_grad_bias", "moments", "sgd"])
def test_a_matrix_of_too_many_rows_for_a_kernel_is_refused(name):
    sizes = {"B": 2**31, "N": 1, "P": 2**40, "H": len(HYPER)}
    program = program_of(name, sizes, **ATTRIBUTES.get(name, [{}])[0])
    if name == "sgd":
        assert Lowering(program).steps(program.ops[0])
    else:
        with pytest.raises(gpunn.ProgramError, match="2147483648 rows and 1 columns"):
            Lowering(program).steps(program.ops[0])


@pytest.mark.parametrize("file", [*TEMPLATES, "block.cuh", "rows.cuh"])
def test_the_place_of_a_row_is_a_number_of_64_bits(file):
    """No test can afford the memory in which 32 bits would not do."""
    products = re.findall(r"(\S+) \* (?:columns|count)\b", kernels.source(file))
    wide = {"long>(r)", "long>(blockIdx.y)", "labels[r]", "r]", "r"}
    assert set(products) <= wide | {"sums[2", "sums[3"}


@pytest.mark.parametrize("name", sorted(OWN - set(PRODUCTS)))
def test_no_launch_is_larger_than_its_limits(name):
    limits = Limits(threads=128, blocks=8, partial=4)
    steps = steps_of(name, dict.fromkeys(letters_of(name), 1000), limits=limits)
    threads = max(lower.WARP * lower.DOWN, limits.threads)
    assert all(np.prod(step.grid) <= 8 and np.prod(step.block) <= threads for step in steps)


# ------------------------------------------------------------------ any alignment, in place


def shifted(values, shift):
    """The values in memory that begins ``shift`` elements after a multiple of 256 bytes."""
    room = aligned((values.size + shift) * values.itemsize).view(values.dtype)
    window = room[shift:].reshape(values.shape)
    window[...] = values
    return window


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 130, 1031])
def test_elements_are_activated_wherever_they_lie(device, n, shift, dtype):
    z = np.random.default_rng(n).standard_normal(n).astype(dtype)
    source, target = shifted(z, 0), shifted(np.zeros(n, dtype), shift)
    device.launch(kernel("activate", REAL[dtype], "sigma::tanh"), (2,), (64,), (source, target, np.int64(n)))
    np.testing.assert_allclose(target, np.tanh(z.astype(float)), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 5, 130, 1031])
def test_every_element_of_an_error_is_multiplied_once(device, n, shift, dtype):
    values = np.random.default_rng(n).uniform(0.1, 0.9, n).astype(dtype)
    y, delta = shifted(values, 0), shifted(np.ones(n, dtype), shift)
    device.launch(
        kernel("activate_grad", REAL[dtype], "sigma::sigmoid"), (2,), (64,), (y, delta, np.int64(n))
    )
    np.testing.assert_allclose(delta, values * (1 - values.astype(float)), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("sigma", sorted(ACTIVATIONS))
def test_elements_are_activated_in_place(device, sigma):
    z = shifted(np.linspace(-3, 3, 77), 0)
    expected = each(SIGMA[sigma][0], z)
    device.launch(kernel("activate", "double", f"sigma::{sigma}"), (1,), (32,), (z, z, np.int64(z.size)))
    np.testing.assert_allclose(z, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_at", "y_at", "mask_at"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("n", [1, 4, 30, 1031])
def test_what_dropout_leaves_is_the_same_wherever_it_lies(device, n, x_at, y_at, mask_at, dtype):
    key, step, rate = np.array([5, 2**32 - 1]), np.array([2**35 + 7]), 0.25
    x = shifted(np.arange(1, n + 1).astype(dtype), x_at)
    y, mask = shifted(np.zeros(n, dtype), y_at), shifted(np.zeros(n, np.bool_), mask_at)
    numbers = (np.int64(n), np.float64(1 / (1 - rate)), np.uint64(threshold(rate)), np.int32(3))
    device.launch(kernel("dropout", REAL[dtype]), (2,), (64,), (x, key, step, y, mask, *numbers))
    expected = np.empty(n, np.bool_)
    keep(key, int(step[0]), 3, rate, expected)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_allclose(y, x * expected / (1 - rate), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 4), (5, 10), (33, 12), (2, 300), (300, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_activation_are_one_pass(device, dtype, rows, columns, shift, kept):
    rng = np.random.default_rng(rows)
    product, b = (
        rng.standard_normal((rows, columns)).astype(dtype),
        rng.standard_normal(columns).astype(dtype),
    )
    z, a = shifted(product, shift), shifted(np.zeros((rows, columns), dtype), 0)
    program = Program(dtype)
    for name, shape in {"z": (rows, columns), "b": (columns,), "a": (rows, columns)}.items():
        program.slot(name, shape, Role.INPUT)
    launch = lower.biased(Lowering(program, SMALL), "z", "b", "a", "sigmoid", keep=kept)
    given = [{"z": z, "b": b, "a": a}.get(word, word) if isinstance(word, str) else word
             for word in launch.arguments]  # fmt: skip
    device.launch(launch.kernel, launch.grid, launch.block, given)
    expected = product + b
    np.testing.assert_allclose(a, 1 / (1 + np.exp(-expected.astype(float))), rtol=2 * TOLERANCE[dtype])
    np.testing.assert_array_equal(z, expected if kept else product)


@pytest.mark.parametrize("sigma", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_every_activation_are_one_pass_in_place(device, dtype, sigma):
    z, b = np.linspace(-2, 2, 24).reshape(3, 8).astype(dtype), np.linspace(-1, 1, 8).astype(dtype)
    expected = each(SIGMA[sigma][0], (z + b).astype(float))
    made = kernel("bias_activate", REAL[dtype], f"sigma::{sigma}")
    device.launch(made, (1, 2), (2, 8), (z, b, z, np.int32(3), np.int32(8), np.int32(False)))
    np.testing.assert_allclose(z, expected, rtol=4 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["bool", "int64", "float32", "float64"])
@pytest.mark.parametrize("columns", [1, 2, 3, 8, 33, 784])
def test_rows_of_any_length_and_dtype_are_gathered(device, columns, dtype, shift):
    X = shifted(np.random.default_rng(columns).integers(0, 2, (9, columns)).astype(dtype), shift)
    perm, cursor = np.array([5, 0, 8, 8, 2, 7, 1]), np.array([2])
    x = np.zeros((4, columns), dtype)
    nbytes = np.int64(columns * X.itemsize)
    device.launch(kernel("gather"), (2, 2), (32,), (X.view(np.uint8), perm, cursor, x.view(np.uint8),
                  np.int32(4), nbytes))  # fmt: skip
    np.testing.assert_array_equal(x, X[[8, 8, 2, 7]])


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("columns", [1, 4, 40, 150])
@pytest.mark.parametrize("rows", [1, 9, 64, 2000])
def test_columns_are_summed_in_stretches_of_rows(device, rows, columns, shift, accumulate):
    delta = shifted(np.random.default_rng(rows).standard_normal((rows, columns)), shift)
    grad = shifted(np.ones(columns), 0)
    program = program_of("linear_grad_bias", {"B": rows, "N": columns}, "float64", accumulate=accumulate)
    room = {}
    for step in Lowering(program, SMALL).steps(program.ops[0]):
        given = [
            {"delta": delta, "grad_b": grad}.get(word) if isinstance(word, str)
            else room.setdefault(word, aligned(word.nbytes)) if isinstance(word, Scratch)
            else word
            for word in step.arguments
        ]  # fmt: skip
        device.launch(step.kernel, step.grid, step.block, given)
    np.testing.assert_allclose(grad, delta.sum(axis=0) + accumulate, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("columns", [3, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_down_the_gradient_of_a_bias_is_one_pass(device, columns, dtype):
    delta, bias = np.linspace(-1, 1, 9 * columns).reshape(9, columns).astype(dtype), np.ones(columns, dtype)
    words = np.zeros(len(HYPER))
    words[HYPER["lr"]] = 0.25
    sizes = (np.int32(9), np.int32(columns), np.int32(False))
    device.launch(kernel("column_sums", REAL[dtype]), (2,), (32, 8), (delta, bias, *sizes, words))
    np.testing.assert_allclose(bias, 1 - 0.25 * delta.astype(float).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("terms", "keep"), [((), 1.0), (("l2",), 1 - 0.1 * 0.03), (("l2", "decay"), 1 - 0.1 * (0.03 + 0.05))]
)
def test_an_update_folded_into_a_product_is_two_numbers(device, terms, keep):
    words, rates = np.zeros(len(HYPER)), np.zeros(2)
    words[[HYPER["lr"], HYPER["l2"], HYPER["weight_decay"]]] = 0.1, 0.03, 0.05
    bits = np.int32(sum(lower.TERMS[term] for term in terms))
    device.launch(kernel("fold_rates", "double"), (1,), (1,), (words, rates, bits))
    np.testing.assert_allclose(rates, [-0.1, keep], rtol=1e-15)


# ------------------------------------------------------------------ what is not finite


def run(name, values, **described):
    return outcome(host_backend(), name, values, **described)


def clipped(grad, dtype):
    hyper = np.zeros(len(HYPER))
    hyper[HYPER["clip_norm"]] = 2.0
    with np.errstate(over="ignore"):
        found = run("clip_by_norm", {"grad": grad, "hyper": hyper}, sizes={"P": len(grad)}, dtype=dtype)
    return found["hyper"][HYPER["clip_scale"]]


@pytest.mark.parametrize(
    ("grad", "dtype", "scale"),
    [
        ([3e200, 4e200], "float64", 4e-201),
        ([3e38, 0.0], "float32", 2 / float(np.float32(3e38))),
        ([1e-200, 0.0], "float64", 1.0),
        ([np.nan, 1.0], "float64", np.nan),
        ([np.inf, 1.0], "float64", np.nan),
        ([-np.inf, 1.0], "float32", np.nan),
    ],
)
def test_a_norm_is_found_where_squares_overflow(grad, dtype, scale):
    np.testing.assert_allclose(clipped(np.array(grad), dtype), scale, rtol=1e-12)


@pytest.mark.parametrize("label", [-1, 4, 2**40])
def test_what_has_become_no_label_shows_as_nan(label):
    labels = {"labels": [1, label]}
    t = run("one_hot", labels, sizes={"B": 2, "N": 4})["t"]
    loss = run("softmax_cross_entropy", {"z": 1.0, **labels}, sizes={"B": 2, "N": 4})["loss"]
    assert np.isnan(loss[0])
    np.testing.assert_array_equal(t, [[0, 1, 0, 0], [np.nan, 0, 0, 0]])


@pytest.mark.parametrize("label", [-1, 4, 2**40])
def test_no_metric_counts_what_is_no_label(label):
    values = {"y": np.eye(4)[[1, 3]], "labels": [1, label]}
    sizes = {"B": 2, "N": 4}
    assert run("count_correct", values, sizes=sizes)["correct"] == 1
    assert run("count_top_k", values, sizes=sizes, k=4)["correct"] == 1
    assert run("confusion", values, sizes=sizes)["counts"].sum() == 1


@pytest.mark.parametrize("place", [0, 40, 99])
def test_nan_in_a_row_is_the_largest_and_never_correct(place):
    y = np.random.default_rng(0).standard_normal((2, 100))
    y[1, place] = np.nan
    guess = run("argmax", {"t": y}, sizes={"B": 2, "N": 100})["labels"]
    np.testing.assert_array_equal(guess, y.argmax(axis=1))
    values = {"y": y, "labels": guess}
    assert run("count_correct", values, sizes={"B": 2, "N": 100})["correct"] == 1
    assert run("count_top_k", values, sizes={"B": 2, "N": 100}, k=1)["correct"] == 1


@pytest.mark.parametrize("columns", [1, 2, 63, 64, 65, 300])
def test_the_first_of_equals_is_the_largest(columns):
    y = np.zeros((3, columns))
    y[1, columns // 2 :] = 1.0
    y[2] = -np.inf
    found = run("argmax", {"t": y}, sizes={"B": 3, "N": columns})["labels"]
    np.testing.assert_array_equal(found, [0, columns // 2, 0])
    ties = {"y": y, "labels": [0, columns // 2, columns - 1]}
    first = run("count_top_k", ties, sizes={"B": 3, "N": columns}, k=1)["correct"]
    assert first == (3 if columns == 1 else 2)


@pytest.mark.parametrize(
    "row", [[np.nan, 0.0], [0.0, np.inf], [np.inf, np.inf]], ids=["nan", "infinite", "two infinite"]
)
def test_a_softmax_that_cannot_be_is_nan(row):
    a = run("softmax", {"z": [row, [0.0, 0.0]]}, sizes={"B": 2, "N": 2})["a"]
    np.testing.assert_array_equal(a, [[np.nan, np.nan], [0.5, 0.5]])


def test_a_softmax_has_all_its_digits_where_differences_round():
    z = [0.1, -700.3, -20.7, -333.3, -1e-9, -36.9]
    exact = [mpmath.exp(mpmath.mpf(v)) for v in z]
    a = run("softmax", {"z": [z]}, sizes={"B": 1, "N": len(z)})["a"][0]
    np.testing.assert_allclose(a, [float(e / sum(exact)) for e in exact], rtol=6e-16)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "softmax_cross_entropy_targets"])
def test_a_cross_entropy_of_the_largest_numbers_is_finite(loss):
    z = np.array([[3e38, -3e38, 0.0]], dtype="float32")
    target = {"labels": [0]} if loss == "softmax_cross_entropy" else {"t": [[1.0, 0.0, 0.0]]}
    found = run(loss, {"z": z, **target}, sizes={"B": 1, "N": 3}, dtype="float32")
    assert (found["loss"].tolist(), found["delta"].tolist()) == ([0.0, 1.0], [[0.0, 0.0, 0.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_step_whose_cost_is_not_finite_is_kept(bad):
    values = {"loss": [bad, 1.0], "step": [7], "penalty": [0.0], "first_bad": [-1]}
    assert run("tally", values, sizes={})["first_bad"] == 7
    assert run("tally", {**values, "first_bad": [3]}, sizes={})["first_bad"] == 3


def test_a_cost_that_is_finite_is_no_bad_step():
    values = {"loss": [1e308, 1.0], "step": [7], "penalty": [0.0], "first_bad": [-1]}
    assert run("tally", values, sizes={})["first_bad"] == -1


@pytest.mark.parametrize("name", ["weight_penalty", "clip_by_norm", "sum_absolute", "mean_squared_error"])
def test_sums_of_many_blocks_are_whole(name):
    n = 64 * 8 * 4 * 5 + 3
    rng = np.random.default_rng(1)
    hyper = np.ones(len(HYPER))
    values, target = rng.standard_normal(n), rng.standard_normal(n)
    if name == "weight_penalty":
        found = run(
            name, {"theta": values, "hyper": hyper}, sizes={"P": n}, weights=n - 9, terms=("l1", "l2")
        )
        kept = values[: n - 9]
        np.testing.assert_allclose(found["penalty"], [np.abs(kept).sum() + 0.5 * kept @ kept], rtol=1e-13)
    elif name == "clip_by_norm":
        found = run(name, {"grad": values, "hyper": hyper}, sizes={"P": n})
        np.testing.assert_allclose(
            found["hyper"][HYPER["clip_scale"]], 1 / np.linalg.norm(values), rtol=1e-13
        )
    elif name == "sum_absolute":
        found = run(name, {"y": values[None], "t": target[None]}, sizes={"B": 1, "N": n})
        np.testing.assert_allclose(found["total"], [np.abs(values - target).sum(), n], rtol=1e-13)
    else:
        given = {"a": values[:, None], "t": target[:, None], "w": np.abs(values)}
        found = run(name, given, sizes={"B": n, "N": 1})
        expected = (np.abs(values) * (values - target) ** 2).sum() / np.abs(values).sum()
        np.testing.assert_allclose(found["loss"], [expected, np.abs(values).sum()], rtol=1e-12)


# ------------------------------------------------------------------ the faults of mutate.py


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_can_still_be_put_where_it_belongs(fault, tmp_path):
    copied = tmp_path / fault.home / fault.file
    copied.parent.mkdir(parents=True)
    shutil.copy(ROOT / fault.home / fault.file, copied)
    fault.put_into(tmp_path)
    assert copied.read_text(encoding="utf-8") != (ROOT / fault.home / fault.file).read_text(encoding="utf-8")
