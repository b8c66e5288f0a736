"""Every op of the vocabulary, on every backend, in every dtype, held against a float64 reference.

The cases are made from the ops' signatures: an op that is registered is tested.
"""

from __future__ import annotations

import inspect
from zlib import crc32

import numpy as np
import pytest
from devices import DEVICES, there
from host_device import host_backend, shim, simulated_backend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import ATTRIBUTES, EPSILON, REFERENCES, SUMS, each

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.backends.cuda.generated import Generated
from gpunn.backends.cuda.lower import Limits
from gpunn.device import backend_for
from gpunn.losses import loss_named
from gpunn.metrics import metrics_named
from gpunn.ops import HYPER, OPS, fill, rule
from gpunn.program import Program
from gpunn.slots import Role
from gpunn.variants import Model, Targets, training

#: The backends, and the CUDA backend's kernels run on the CPU.
PLACES = [*DEVICES, pytest.param("cuda_host", marks=pytest.mark.cuda_host)]


@pytest.fixture(params=PLACES)
def backend(request):
    return host_backend() if request.param == "cuda_host" else backend_for(there(request.param))


#: Ops that Numba CUDA has kernels for too.
GENERATED = ("activate", "activate_grad")

#: Allowed error of one op, relative to the norm of what it writes, by dtype.
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}


def variants_of(name):
    found = ATTRIBUTES.get(name, [{}])
    if rule(name).accumulates:
        found = found + [{**attrs, "accumulate": True} for attrs in found]
    return found


def letters_of(name):
    return sorted(rule(name).letters - {"1", "2", "3", "H", "*S"})


def complete(name, sizes):
    """Room for a batch in the data, and the sizes that have no letter of their own."""
    if {"B", "n"} <= set(sizes):
        sizes["n"] += sizes["B"] + 2
    return {"H": len(HYPER), "*S": (sizes.get("B", 3), 3), **sizes}


def sizes_of(name):
    """Every letter 1, 31 and 33; then one letter after the other 1025, the rest small."""
    letters = letters_of(name)
    for size in (1, 31, 33):
        yield str(size), complete(name, {"*S": (size, size), **dict.fromkeys(letters, size)})
    for large in letters:
        yield f"{large}=1025", complete(name, {letter: 1025 if letter == large else 5 for letter in letters})
    if "*S" in rule(name).letters:
        yield "*S=1025", complete(name, {"*S": (1025,), **dict.fromkeys(letters, 5)})


def forms_of(name):
    """Attributes, and optional operands all there or all absent."""
    optional = any(o.optional for o in (*OPS[name].inputs, *OPS[name].outputs))
    return [
        (attrs, present) for attrs in variants_of(name) for present in ([True, False] if optional else [True])
    ]


def label_of(name, attrs, present):
    words = [name, *map(str, attrs.values()), *([] if present else ["required operands only"])]
    return "-".join(words)


CASES = [
    pytest.param(name, attrs, present, id=label_of(name, attrs, present))
    for name in OPS
    for attrs, present in forms_of(name)
]
SIZED_CASES = [
    pytest.param(name, attrs, present, sizes, id=f"{label_of(name, attrs, present)}-{size}")
    for name in OPS
    for attrs, present in forms_of(name)
    for size, sizes in sizes_of(name)
]


def values_for(operand, shape, dtype, sizes, rng):
    if operand.name == "labels":
        return rng.integers(0, sizes["N"], shape)
    if operand.name == "perm":
        return rng.permutation(sizes["n"])
    if operand.name == "cursor":
        return np.array([2])
    if operand.name == "first_bad":
        return np.array([-1])
    if operand.name == "step" and "T" in sizes:
        return np.array([3 + rng.integers(sizes["T"])])
    if operand.name in ("step", "key"):
        return rng.integers(0, 2**40 if operand.name == "step" else 2**32, shape)
    if operand.name == "mask":
        return rng.random(shape) < 0.7
    if dtype == "int64":
        return rng.integers(0, 9, shape)
    if operand.name == "hyper":
        words = {"lr": 0.1, "l2": 0.03, "momentum": 0.9, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3}
        words |= {"beta1_power": 0.9**3, "beta2_power": 0.99**3, "l1": 0.02, "weight_decay": 0.05, "rho": 0.9}
        words |= {"clip_norm": 0.7, "clip_scale": 0.4, "first_step": 3.0, "l2_sum": 0.3, "epsilon_hat": 0.2}
        return np.array([words[word] for word in HYPER])
    values = rng.standard_normal(shape)
    if operand.name in ("correct", "counts"):
        return np.floor(np.abs(10 * values))
    if operand.name == "t":
        return np.abs(np.tanh(values))
    positive = operand.name in ("v", "w", "loss", "counts", "sums")
    return np.abs(values) if positive else values


def run_op(backend, name, attrs, present, sizes, dtype, seed):
    """Run one op as a program of its own; returns what it wrote and what it should have written."""
    rng = np.random.default_rng(seed)
    entry = rule(name)
    program, given_, slots = Program(dtype), {}, {}
    operands = (*entry.inputs, *entry.outputs)
    for operand in operands:
        if operand.optional and not present:
            given_[operand.name] = None
            continue
        shape = fill(operand, sizes, name)
        kind = {None: dtype, "any": dtype, "=X": dtype}.get(operand.dtype, operand.dtype)
        values = values_for(operand, shape, kind, sizes, rng).astype(kind)
        slots[operand.name] = program.slot(operand.name, shape, Role.INPUT, kind)
        given_[operand.name] = values
    if name == "activate_grad" and ACTIVATIONS[attrs["sigma"]].needs == "output":
        given_["y"] = each(ACTIVATIONS[attrs["sigma"]].sigma, given_["y"]).astype(dtype)
    outs = {o.name: slots[o.name] for o in entry.outputs if o.name in slots}
    program.emit(name, [slots.get(o.name) for o in entry.inputs], outs, **attrs)
    program.pin(*slots)
    runner = backend.load(program, {}, fused=False)
    for operand, slot in slots.items():
        runner.write(slot, given_[operand])
    runner.step_op(0)
    wide = {k: v.astype(float) if v is not None and v.dtype.kind == "f" else v for k, v in given_.items()}
    expected = REFERENCES[name](**{k: None if v is None else v.copy() for k, v in wide.items()}, **attrs)
    written = {o.name: runner.read(slots[o.name]) for o in entry.outputs if o.name in slots}
    unwritten = {o.name: runner.read(slots[o.name]) for o in entry.inputs if o.name in slots}
    expected = {k: v for k, v in expected.items() if k in written}
    return written, expected, scales(name, wide, expected, attrs), given_, unwritten


def scales(name, operands, expected, attrs):
    """What an error is relative to: the largest norm among the result and the terms that may cancel in it.

    Of a sum of products, the terms are its products; elsewhere, the operands of the result's own shape.
    """
    if name in SUMS:
        sizes = {k: v if v is None else np.abs(v) for k, v in operands.items()}
        expected = {k: v for k, v in REFERENCES[name](**sizes, **attrs).items() if k in expected}
    floats = [v for v in operands.values() if v is not None and v.dtype.kind == "f"]
    return {
        k: max([float(np.linalg.norm(u)) for u in (v, *floats) if u.shape == v.shape] + [1e-30])
        for k, v in expected.items()
    }


def assert_close(written, expected, scale, dtype):
    assert written.keys() == expected.keys()
    for name, values in expected.items():
        error = float(np.linalg.norm(written[name].astype(float) - values)) / scale[name]
        assert error <= TOLERANCE[dtype], f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "attrs", "present", "sizes"), SIZED_CASES)
def test_an_op_computes_its_formula(backend, name, attrs, present, sizes, dtype):
    seed = crc32(f"{name}{sizes}".encode())
    written, expected, scale, _, _ = run_op(backend, name, attrs, present, sizes, dtype, seed)
    assert_close(written, expected, scale, dtype)


@pytest.mark.cuda_host
@pytest.mark.parametrize(
    ("name", "attrs", "present", "sizes"), [case for case in SIZED_CASES if case.id.endswith("=1025")]
)
def test_a_cuda_kernel_computes_its_formula_with_as_many_threads_as_on_a_gpu(name, attrs, present, sizes):
    backend = host_backend(limits=Limits())
    written, expected, scale, _, _ = run_op(backend, name, attrs, present, sizes, "float32", seed=3)
    assert_close(written, expected, scale, "float32")


@pytest.mark.cuda_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "attrs", "present", "sizes"),
    [case for case in SIZED_CASES if case.values[0] in GENERATED and case.id.endswith(("-1", "-33", "1025"))],
)
def test_a_generated_kernel_computes_the_formula_of_its_op(monkeypatch, name, attrs, present, sizes, dtype):
    """In Numba's simulator."""
    monkeypatch.setenv("GPUNN_CUDA_KERNELS", "numba")
    backend = simulated_backend()
    shim().launched.clear()
    written, expected, scale, _, _ = run_op(backend, name, attrs, present, sizes, dtype, seed=1)
    assert_close(written, expected, scale, dtype)
    assert shim().launched == [Generated(name, attrs["sigma"], dtype)]


@pytest.mark.parametrize(("name", "attrs", "present"), CASES)
def test_an_op_writes_its_outputs_only(backend, name, attrs, present):
    sizes = complete(name, dict.fromkeys(letters_of(name), 33))
    _, _, _, before, after = run_op(backend, name, attrs, present, sizes, "float32", 1)
    for operand, values in after.items():
        np.testing.assert_array_equal(values, before[operand])


@pytest.mark.cuda_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "attrs", "present"), CASES)
def test_a_cuda_kernel_reads_and_writes_its_operands_only(name, attrs, present, dtype):
    """Under the address sanitizer."""
    sizes = complete(name, dict.fromkeys(letters_of(name), 33))
    written, expected, scale, _, _ = run_op(
        host_backend(sanitize=True), name, attrs, present, sizes, dtype, seed=2
    )
    assert_close(written, expected, scale, dtype)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "attrs", "present"), CASES)
def test_an_op_computes_its_formula_at_any_size(backend, name, attrs, present, dtype, data):
    sizes = {letter: data.draw(st.integers(1, 40), label=letter) for letter in letters_of(name)}
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3), label="*S"))
    sizes = complete(name, {"*S": shape, **sizes})
    seed = data.draw(st.integers(0, 2**31), label="seed")
    written, expected, scale, _, _ = run_op(backend, name, attrs, present, sizes, dtype, seed)
    assert_close(written, expected, scale, dtype)


@pytest.mark.parametrize("name", list(OPS))
def test_an_op_has_a_reference_a_formula_and_a_source(name):
    assert name in REFERENCES
    assert "{" in rule(name).formula
    assert rule(name).source


@pytest.mark.parametrize("name", list(OPS))
def test_each_backend_brings_its_own_kernel(backend, name):
    kernel = backend.kernels[name]
    assert kernel.__module__.startswith(f"gpunn.backends.{backend.name}")
    assert kernel.__doc__


@pytest.mark.parametrize("name", list(OPS))
def test_a_formula_names_operands_of_the_signature_only(name):
    entry = rule(name)
    entry.formula.format_map({o.name: "·" for o in (*entry.inputs, *entry.outputs)})


@pytest.mark.parametrize("name", list(OPS))
def test_a_numpy_kernel_takes_the_operands_of_the_signature_in_order(name):
    from gpunn.backends.numpy import KERNELS

    entry = rule(name)
    operands = [o.name for o in (*entry.inputs, *entry.outputs)]
    positional = [
        p.name
        for p in inspect.signature(KERNELS[name]).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert positional == operands


@pytest.mark.parametrize("name", [name for name, rule_ in OPS.items() if rule_.elementwise])
def test_an_update_keeps_the_padding_of_theta_at_zero(backend, name):
    program = Program("float32")
    hyper = program.slot("hyper", (len(HYPER),), Role.INPUT, "float64")
    grad = program.slot("grad", (64,), Role.INPUT)
    outs = {o.name: program.slot(o.name, (64,), Role.INPUT) for o in rule(name).outputs}
    program.emit(name, (grad, hyper), outs, weights=64, terms=("l1", "l2", "decay", "clip"))
    program.pin("hyper", "grad", *outs)
    runner = backend.load(program, {}, fused=False)
    values = np.full(len(HYPER), 0.5)
    values[EPSILON] = 1e-8
    runner.write("hyper", values)
    runner.run(3)
    assert not runner.read("theta").any()


def test_tally_remembers_the_first_step_whose_loss_is_not_finite(backend):
    program = Program("float32")
    loss = program.slot("loss", (2,), Role.INPUT, "float64")
    step = program.slot("step", (1,), Role.INPUT, "int64")
    outs = {
        "loss_sum": program.slot("loss_sum", (3,), Role.INPUT, "float64"),
        "first_bad": program.slot("first_bad", (1,), Role.INPUT, "int64"),
    }
    program.emit("tally", (loss, step), outs)
    program.pin("loss", "step", *outs)
    runner = backend.load(program, {}, fused=False)
    runner.write("first_bad", -1)
    seen = []
    for number, value in enumerate([1.0, np.nan, np.inf]):
        runner.write("step", number)
        runner.write("loss", [value, 1])
        runner.run()
        seen.append(int(runner.read("first_bad")[0]))
    assert seen == [-1, 1, 1]


@pytest.mark.parametrize("weighted_op", ["quadratic", "mean_squared_error", "softmax_cross_entropy_targets"])
def test_a_batch_without_weight_costs_nothing_and_has_no_gradient(backend, weighted_op):
    program = Program("float64")
    ins = [program.slot(n, s, Role.INPUT) for n, s in (("a", (3, 2)), ("t", (3, 2)), ("w", (3,)))]
    outs = {
        "loss": program.slot("loss", (2,), Role.INPUT, "float64"),
        "delta": program.slot("delta", (3, 2), Role.INPUT),
    }
    program.emit(weighted_op, ins, outs)
    program.pin(*ins, *outs.values())
    runner = backend.load(program, {}, fused=False)
    runner.write("a", 1.0)
    runner.run()
    assert (runner.read("loss").tolist(), runner.read("delta").any()) == ([0.0, 0.0], False)


def activated(backend, name, z, dtype="float64"):
    """σ of an array, by a program of one op."""
    program = Program(dtype)
    z_slot, a = (program.slot(n, z.shape, Role.INPUT) for n in "za")
    program.emit("activate", (z_slot,), {"a": a}, sigma=name)
    program.pin(z_slot, a)
    runner = backend.load(program, {}, fused=False)
    runner.write("z", z)
    runner.run()
    return runner.read("a")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_activation_stays_within_four_ulp_of_its_scalar_definition(backend, name, dtype):
    z = np.concatenate([np.linspace(-100, 100, 4001), [0.0, -0.0, 1e-30, -1e-30]]).astype(dtype)
    z = z[z < 80] if name == "exp" else z  # Beyond it is more than float32 holds.
    found = activated(backend, name, z, dtype)
    exact = np.array([ACTIVATIONS[name].sigma(float(v)) for v in z])
    ulp = np.spacing(np.maximum(np.abs(exact).astype(dtype), np.finfo(dtype).tiny))
    assert np.max(np.abs(found.astype(float) - exact) / ulp) <= 4


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_nan_passes_through_every_activation(backend, name):
    assert np.isnan(activated(backend, name, np.full(1, np.nan), "float32")).all()


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
def test_nan_passes_through_every_derivative(backend, name):
    program = Program("float32")
    y, delta = (program.slot(n, (20,), Role.INPUT) for n in ("y", "delta"))
    program.emit("activate_grad", (y,), {"delta": delta}, sigma=name)
    program.pin(y, delta)
    runner = backend.load(program, {}, fused=False)
    runner.write("y", np.nan)
    runner.write("delta", 1.0)
    runner.run()
    assert np.isnan(runner.read("delta")).all()


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_scalar_derivative_agrees_with_central_differences(name):
    row = ACTIVATIONS[name]
    points = [z for z in np.linspace(-4, 4.1, 41).tolist() if all(abs(z - kink) > 1e-3 for kink in row.kinks)]
    kept = [row.sigma(z) if row.needs == "output" else z for z in points]
    found = np.array([row.sigma_prime(v) for v in kept])
    estimate = np.array([(row.sigma(z + 1e-6) - row.sigma(z - 1e-6)) / 2e-6 for z in points])
    np.testing.assert_allclose(found, estimate, atol=1e-8)


PROGRAMS = {
    "quadratic, labels, SGD": ("quadratic", gpunn.SGD(lr=0.5), Targets(labels=True), "sigmoid"),
    "quadratic, weighted, momentum": (
        "quadratic",
        gpunn.SGD(momentum=0.9),
        Targets(weighted=True),
        "softmax",
    ),
    "cross-entropy, labels, Adam, l2": ("cross_entropy", gpunn.Adam(l2=0.1), Targets(labels=True), "softmax"),
    "cross-entropy, dense, SGD, l2": ("cross_entropy", gpunn.SGD(l2=0.1), Targets(), "identity"),
    "mse, dense, Adam": ("mse", gpunn.Adam(), Targets(), "tanh"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("described", list(PROGRAMS))
def test_every_slot_agrees_after_every_op_of_two_training_steps(backend, rng, described, dtype):
    """The reference's slots are copied in before each op, so that rounding does not add up."""
    loss, optimizer, targets, last = PROGRAMS[described]
    layers = (gpunn.Flatten(), gpunn.Dense(9, activation="relu"), gpunn.Dense(4, activation=last))
    model = Model(layers, (2, 3), dtype)
    program = training(
        model, loss_named(loss), optimizer, 5, metrics=metrics_named(["accuracy"]), targets=targets
    )
    memory = {}
    runner = backend.load(program, memory, fused=False, keep_all=True)
    labels = rng.integers(0, 4, 12)
    data = {
        "X": rng.standard_normal((12, 2, 3)).astype(dtype),
        "T": labels if targets.labels else np.eye(4, dtype=dtype)[labels],
        "perm": rng.permutation(12),
        "weights": rng.random(12).astype(dtype),
    }
    runner.bind(**data)
    runner.write("theta", rng.standard_normal(runner.read("theta").shape))
    runner.write("first_bad", -1)
    hyper = runner.read("hyper")
    for word, value in optimizer.hyper().items():
        hyper[HYPER[word]] = value
    runner.write("hyper", hyper)
    slots = {name: runner.read(name) for name, slot in runner.program.slots.items() if slot.base is None}
    reference = {name: a.astype(float) if a.dtype.kind == "f" else a for name, a in slots.items()}
    view = Views(runner.program, reference)
    for position, op in [*enumerate(runner.program.ops)] * 2:
        for name, values in reference.items():
            if runner.program.slots[name].role is not Role.DATA:
                runner.write(name, values)
        entry = rule(op.name)
        names = [o.name for o in (*entry.inputs, *entry.outputs)]
        operands = dict(zip(names, (*op.ins, *op.outs), strict=True))
        old = {name: None if slot is None else view[slot].copy() for name, slot in operands.items()}
        expected = REFERENCES[op.name](**old, **op.attrs)
        runner.step_op(position)
        written = {name: runner.read(operands[name]) for name in expected if operands[name]}
        expected = {name: expected[name] for name in written}
        assert_close(written, expected, scales(op.name, old, expected, op.attrs), dtype)
        for name in written:
            view[operands[name]][...] = expected[name]
    assert int(reference["step"][0]) == 2


class Views:
    """Windows of a reference's slots, as a program lays them over one another."""

    def __init__(self, program, roots):
        self.program, self.roots = program, roots

    def __getitem__(self, name):
        slot = self.program.slots[name]
        root = self.roots[self.program.root(name)]
        if slot.base is None:
            return root
        return root.reshape(-1)[slot.offset : slot.offset + slot.size].reshape(slot.shape)
