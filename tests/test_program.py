"""The declared program: what emit checks, how Θ lies, what backpropagate appends, where slots lie."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.arena import ALIGNMENT
from gpunn.backends.numpy import SIGMA, SIGMA_PRIME
from gpunn.device import backend_for
from gpunn.losses import LOSSES, loss_named
from gpunn.metrics import METRICS, metrics_named
from gpunn.ops import HYPER, OPS, register_op
from gpunn.optimizers import OPTIMIZERS
from gpunn.program import WORKSPACE, Program, Role
from gpunn.variants import Model, Targets, evaluation, inspection, jacobian, prediction, training


def declared(*slots, dtype="float64"):
    """A program with input slots: name, shape, and a dtype where it is another."""
    program = Program(dtype)
    for name, shape, *other in slots:
        program.slot(name, shape, Role.INPUT, *other)
    return program


def dense(program, x, units, number, name="Dense"):
    """z = x Wᵀ + b in a scope of its own."""
    with program.scope(f"layers.{number}", f"layer {number} {name}"):
        weights = program.parameter("weights", (units, program.slots[x].shape[1]), "normal")
        bias = program.parameter("bias", (units,), "zeros", weight=False)
        return program.emit("linear", (x, weights, bias))


def loaded(program, keep_all=False):
    return backend_for("numpy").load(program, {}, fused=False, keep_all=keep_all)


@pytest.fixture
def vocabulary():
    """Ops registered in a test are gone after it."""
    before = dict(OPS)
    yield OPS
    OPS.clear()
    OPS.update(before)


@pytest.fixture
def square(monkeypatch):
    """An activation whose σ′ is a function of z: a = z²."""

    def sigma(z, a, s, mask):
        np.multiply(z, z, out=a)

    def sigma_prime(z, delta, s):
        np.multiply(delta, 2 * z, out=delta)

    row = Activation("square", lambda z: z * z, lambda z: 2 * z, "input", "a = z²", "a test")
    monkeypatch.setitem(ACTIVATIONS, "square", row)
    monkeypatch.setitem(SIGMA, "square", sigma)
    monkeypatch.setitem(SIGMA_PRIME, "square", sigma_prime)


# ------------------------------------------------------------------ emit


@pytest.mark.parametrize(
    ("op", "slots", "attrs", "shape"),
    [
        ("linear", [("x", (7, 4)), ("W", (5, 4)), ("b", (5,))], {}, (7, 5)),
        ("linear", [("x", (1, 1)), ("W", (1, 1)), ("b", (1,))], {}, (1, 1)),
        ("activate", [("z", (7, 2, 3))], {"sigma": "tanh"}, (7, 2, 3)),
        ("activate", [("z", (7,))], {"sigma": "tanh"}, (7,)),
        ("activate", [("z", ())], {"sigma": "tanh"}, ()),
        ("add", [("u", (2, 3)), ("v", (2, 3))], {}, (2, 3)),
        ("one_hot", [("labels", (7,), "int64")], {"N": 3}, (7, 3)),
        (
            "gather",
            [("X", (None, 2, 3)), ("perm", (None,), "int64"), ("cursor", (1,), "int64")],
            {"B": 7},
            (7, 2, 3),
        ),
        (
            "gather",
            [("X", (None,)), ("perm", (None,), "int64"), ("cursor", (1,), "int64")],
            {"B": 7},
            (7,),
        ),
        (
            "gather",
            [("X", (100, 3)), ("perm", (None,), "int64"), ("cursor", (1,), "int64")],
            {"B": 7},
            (7, 3),
        ),
    ],
)
def test_the_signature_gives_the_output_its_shape(op, slots, attrs, shape):
    program = declared(*slots)
    output = program.emit(op, [name for name, *_ in slots], **attrs)
    assert program.slots[output].shape == shape


@pytest.mark.parametrize(
    ("op", "slots", "complaint"),
    [
        (
            "linear",
            [("x", (7, 4)), ("W", (5, 3)), ("b", (5,))],
            "linear: W has shape (5, 3), expected (N, K) with K = 4",
        ),
        (
            "linear",
            [("x", (7, 4)), ("W", (5, 4)), ("b", (4,))],
            "linear: b has shape (4,), expected (N) with N = 5",
        ),
        ("linear", [("x", (7, 2, 2)), ("W", (5, 4)), ("b", (5,))], "linear: x has shape (7, 2, 2), expected"),
        ("linear", [("x", (7,)), ("W", (5, 4)), ("b", (5,))], "linear: x has shape (7,), expected (B, K)"),
        ("linear", [("x", (7, 4)), ("W", (5, 4))], "linear: operand b(N) is missing, expected x(B,K)"),
        ("linear", [], "linear: operand x(B, K) is missing"),
        ("activate", [("z", (2,)), ("more", (2,)), ("still more", (2,))], "activate: 4 operands given"),
        (
            "add",
            [("u", (2, 3)), ("v", (3, 2))],
            "add: v has shape (3, 2), expected (*S) with *S = (2, 3)",
        ),
        ("softmax", [("z", (2, 3, 4))], "softmax: z has shape (2, 3, 4), expected (B, N)"),
        (
            "gather",
            [("X", (None, 3)), ("perm", (None,), "int64"), ("cursor", (2,), "int64")],
            "gather: cursor has shape (2,), expected (1)",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_the_layer_and_the_operand(op, slots, complaint):
    program = declared(*slots)
    attrs = {"sigma": "tanh"} if op == "activate" else {}
    with program.scope("layers.3", "layer 3 Odd"), pytest.raises(gpunn.ShapeError) as caught:
        program.emit(op, [name for name, *_ in slots], **attrs)
    assert str(caught.value).startswith(f"layer 3 Odd: forward: {complaint}")


def test_a_shape_error_outside_any_scope_names_the_op_alone():
    program = declared(("u", (2,)), ("v", (3,)))
    with pytest.raises(gpunn.ShapeError, match=r"^add: v has shape \(3,\)"):
        program.emit("add", ("u", "v"))


def test_an_output_that_is_given_has_to_fit_too():
    program = declared(("u", (2, 3)), ("v", (2, 3)), ("y", (3, 2)))
    with pytest.raises(gpunn.ShapeError, match=r"add: y has shape \(3, 2\), expected"):
        program.emit("add", ("u", "v"), {"y": "y"})


@pytest.mark.parametrize(
    ("op", "slots", "size"),
    [
        ("gather", [("X", (None, 3)), ("perm", (None,), "int64"), ("cursor", (1,), "int64")], "B"),
        ("one_hot", [("labels", (7,), "int64")], "N"),
    ],
)
def test_a_size_that_nobody_tells_is_asked_for(op, slots, size):
    program = declared(*slots)
    with pytest.raises(gpunn.ShapeError, match=rf"the size {size} of .* is not known: give the op {size}="):
        program.emit(op, [name for name, *_ in slots])


@pytest.mark.parametrize(
    ("op", "slots", "complaint"),
    [
        ("one_hot", [("labels", (7,), "float64")], "labels has dtype float64, expected int64"),
        ("activate", [("z", (7,), "float32")], "z has dtype float32, expected float64"),
        (
            "gather",
            [("X", (None, 3)), ("perm", (None,), "float64"), ("cursor", (1,), "int64")],
            "perm has dtype float64, expected int64",
        ),
    ],
)
def test_a_dtype_that_does_not_fit_is_named_with_the_layer_and_the_operand(op, slots, complaint):
    program = declared(*slots)
    attrs = {"one_hot": {"N": 3}, "gather": {"B": 7}, "activate": {"sigma": "tanh"}}[op]
    with program.scope("layers.3", "layer 3 Odd"), pytest.raises(gpunn.ProgramError) as caught:
        program.emit(op, [name for name, *_ in slots], **attrs)
    assert str(caught.value) == f"layer 3 Odd: forward: {op}: {complaint}"


def test_an_output_of_another_dtype_is_refused():
    program = declared(("u", (2,)), ("v", (2,)), ("y", (2,), "float32"))
    with pytest.raises(gpunn.ProgramError, match="add: y has dtype float32, expected float64"):
        program.emit("add", ("u", "v"), {"y": "y"})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_gather_keeps_the_dtype_of_the_data(dtype):
    program = declared(("X", (None, 3), dtype), ("perm", (None,), "int64"), ("cursor", (1,), "int64"))
    assert program.slots[program.emit("gather", ("X", "perm", "cursor"), B=2)].dtype == dtype


def test_an_op_that_failed_is_not_in_the_program():
    program = declared(("u", (2,)), ("v", (3,)))
    with pytest.raises(gpunn.ShapeError):
        program.emit("add", ("u", "v"))
    assert (program.ops, sorted(program.slots)) == ([], ["u", "v"])


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        (lambda program: program.emit("lineer", ("features",)), "unknown op 'lineer': did you mean 'linear'"),
        (
            lambda program: program.emit("activate", ("feature",), sigma="tanh"),
            "unknown slot of activate 'feature': did you mean 'features'",
        ),
        (
            lambda program: program.emit("activate", ("features",), {"a": "output"}, sigma="tanh"),
            "unknown slot of activate 'output'",
        ),
        (
            lambda program: program.emit("linear_grad_bias", ("features",), {"grad": "features"}),
            "unknown output of linear_grad_bias 'grad': did you mean 'grad_b'",
        ),
        (
            lambda program: program.emit("activate", ("features",), sigma="tahn"),
            "unknown activation 'tahn': did you mean 'tanh'",
        ),
        (lambda program: program.pin("feature"), "unknown slot 'feature': did you mean 'features'"),
        (lambda program: program.view("feature", (4, 2)), "did you mean 'features'"),
        (lambda program: program.backpropagate({"feature": "features"}), "did you mean 'features'"),
        (lambda program: program.backpropagate({"features": "feature"}), "did you mean 'features'"),
        (
            lambda program: program.backpropagate({"features": "features"}, wrt=["feature"]),
            "did you mean 'features'",
        ),
    ],
    ids=["op", "input", "output", "operand", "sigma", "pin", "view", "seeded", "seed", "wrt"],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(gpunn.UnknownNameError, match=re.escape(near)):
        wrong(declared(("features", (2, 4))))


@pytest.mark.parametrize(
    ("attrs", "word"),
    [({}, "sigma"), ({"sigma": "tanh", "slope": 2}, "slope")],
    ids=["missing", "too many"],
)
def test_a_wrong_attribute_is_named(attrs, word):
    program = declared(("z", (2, 4)))
    with pytest.raises(gpunn.GpunnError, match=word):
        program.emit("activate", ("z",), **attrs)


def test_an_attribute_that_no_kernel_takes_is_named():
    program = declared(("x", (7, 4)), ("W", (5, 4)), ("b", (5,)))
    program.emit("linear", ("x", "W", "b"), transposed=True)
    with pytest.raises(gpunn.GpunnError, match="transposed"):
        loaded(program)


@pytest.mark.parametrize(("ins", "expected"), [(("a", "t"), None), (("a", "t", "w"), "w")])
def test_an_optional_operand_may_be_left_out(ins, expected):
    program = declared(("a", (3, 2)), ("t", (3, 2)), ("w", (3,)))
    loss, delta = program.emit("quadratic", ins)
    (op,) = program.ops
    assert (op.ins, op.outs) == (("a", "t", expected), (loss, None))
    assert delta is None


def test_an_optional_output_is_written_where_it_is_given():
    program = declared(("a", (3, 2)), ("t", (3, 2)), ("d", (3, 2)))
    assert program.emit("quadratic", ("a", "t", None), {"delta": "d"}) == ("loss", "d")


def test_a_new_output_has_the_role_that_was_asked_for():
    program = declared(("labels", (3,), "int64"))
    t = program.emit("one_hot", ("labels",), N=2, roles={"t": Role.TARGET})
    assert program.slots[t].role is Role.TARGET


# ------------------------------------------------------------------ names


def test_a_scope_names_slots_symbols_and_labels():
    program = declared(("x", (3, 4)))
    with program.scope("layers.7", "layer 7 Twin"):
        W = program.parameter("weights", (4, 4), "normal")
        b = program.parameter("bias", (4,), "zeros", weight=False)
        first = program.emit("linear", ("x", W, b))
        second = program.emit("linear", (first, W, b))
        third = program.emit("activate", (second,), sigma="tanh", label="a label of its own")
    assert [W, b, first, second, third] == [
        "layers.7.weights",
        "layers.7.bias",
        "layers.7.z",
        "layers.7.z.2",
        "layers.7.a",
    ]
    assert [program.slots[slot].symbol for slot in (W, b, first, second, third)] == [
        "W7",
        "b7",
        "z7",
        "z7′",
        "a7",
    ]
    assert {program.slots[slot].scope for slot in (W, b, first, second, third)} == {"layers.7"}
    assert [op.label for op in program.ops] == ["layer 7 Twin: forward"] * 2 + ["a label of its own"]


def test_a_scope_within_a_scope_gives_way_to_the_outer_one_even_after_an_error():
    program = declared(("x", (3, 4)))
    with program.scope("outer.1", "outer"):
        with pytest.raises(gpunn.ShapeError, match=r"^inner: forward"), program.scope("inner.2", "inner"):
            program.emit("softmax_grad", ("x", "x"))
        assert program.label == "outer"
        assert program.emit("softmax", ("x",)) == "outer.1.a"
    assert program.emit("softmax", ("x",)) == "a"
    assert [program.slots[name].symbol for name in ("outer.1.a", "a")] == ["a1", "a"]


def test_outside_any_scope_the_program_is_called_by_its_title():
    assert [Program(title="prediction of 3").label, Program().label] == ["prediction of 3", "program"]


def test_the_same_declaration_twice_is_one_slot():
    program = Program()
    assert program.slot("x", (2, 3), Role.INPUT) == program.slot("x", (2, 3), Role.INPUT)
    assert list(program.slots) == ["x"]


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (3, 2)},
        {"role": Role.TARGET},
        {"dtype": "float64"},
        {"symbol": "ξ"},
        {"offset": 1},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_declaration_of_a_slot_is_refused(other):
    program = Program()
    program.slot("x", (2, 3), Role.INPUT)
    with pytest.raises(gpunn.ProgramError, match="slot 'x' is declared twice"):
        program.slot(**{"name": "x", "shape": (2, 3), "role": Role.INPUT, **other})


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_an_empty_parameter_is_refused_by_the_name_of_its_layer(shape):
    program = Program()
    with (
        program.scope("layers.0", "layer 0 Odd"),
        pytest.raises(gpunn.ShapeError, match="layer 0 Odd: parameter 'gain' would be empty"),
    ):
        program.parameter("gain", shape, "zeros")


def test_a_parameter_after_theta_is_laid_out_is_refused():
    program = Program()
    program.parameter("weights", (2, 3), "zeros")
    program.lay_out_parameters()
    with pytest.raises(gpunn.ProgramError, match="parameter 'late' comes after Θ was laid out"):
        program.parameter("late", (2,), "zeros")


@pytest.mark.parametrize("name", ["delta", "z", "a", "loss", "x", "W", "η", "two words", "a.b", "{x}", "σ"])
def test_a_parameter_may_have_any_name(name):
    """A layer that shifts its input by a parameter; its gradient is the sum of δ over the batch."""

    class Shift(gpunn.Layer):
        def emit(self, program, x):
            shift = program.parameter(name, (program.slots[x].shape[1],), "zeros", weight=False)
            weights = program.parameter("weights", (2, 2), "normal")
            return program.emit("linear", (x, weights, shift))

    del gpunn.layers.LAYERS["Shift"]
    program = inspection(Model((Shift(),), (2,), "float64"), loss_named("quadratic"), 3)
    runner = loaded(program)
    runner.write("t", [[1.0, 2.0]] * 3)
    runner.write("x", 0.0)
    runner.run()
    np.testing.assert_allclose(runner.read(f"grad.layers.0.{name}"), [-1, -2])
    assert f"∂C/∂{name[0]}0" in str(program)


# ------------------------------------------------------------------ views


def test_a_view_has_the_memory_of_what_it_views():
    program = declared(("x", (3, 2, 2)))
    flat = program.view("x", (3, 4))
    again = program.view(flat, (6, 2))
    assert [program.root(slot) for slot in ("x", flat, again)] == ["x", "x", "x"]
    assert program.overlap(flat, again)
    program.pin("x")
    runner = loaded(program)
    runner.write(again, np.arange(12.0).reshape(6, 2))
    assert runner.read("x").tolist() == np.arange(12.0).reshape(3, 2, 2).tolist()
    assert np.shares_memory(runner.array(flat), runner.array("x"))


def test_a_view_in_the_same_shape_is_the_slot_itself():
    program = declared(("x", (3, 4)))
    assert program.view("x", (3, 4)) == "x"


def test_a_view_is_taken_twice_and_is_one_slot():
    program = declared(("x", (3, 4)))
    assert program.view("x", (4, 3)) == program.view("x", (4, 3))


def test_a_view_of_another_size_is_refused_with_the_layer_and_the_shapes():
    program = declared(("x", (3, 4)))
    with (
        program.scope("layers.0", "layer 0 Fold"),
        pytest.raises(gpunn.ShapeError, match=r"layer 0 Fold: cannot view x of shape \(3, 4\) as \(3, 5\)"),
    ):
        program.view("x", (3, 5))


def test_a_view_does_not_take_the_name_of_another_slot():
    program = declared(("x", (3, 4)), ("x.4x3", (8, 8)))
    view = program.view("x", (4, 3))
    assert (program.slots["x.4x3"].shape, program.slots[view].shape) == ((8, 8), (4, 3))


def test_flatten_is_no_op_and_no_copy():
    model = Model((gpunn.Flatten(), gpunn.Flatten()), (2, 3, 4), "float32")
    program = model.forward(5)
    output = program.marks["output"]
    assert (program.ops, program.slots[output].shape, program.root(output)) == ([], (5, 24), "x")


def test_windows_of_one_vector_overlap_only_where_they_share_elements():
    program = Program()
    program.slot("whole", (10,), Role.PARAMETER)
    program.slot("left", (4,), Role.PARAMETER, base="whole", offset=0)
    program.slot("right", (4,), Role.PARAMETER, base="whole", offset=4)
    program.slot("middle", (2,), Role.PARAMETER, base="whole", offset=3)
    program.slot("apart", (10,), Role.PARAMETER)
    pairs = itertools.combinations(["whole", "left", "right", "middle", "apart"], 2)
    assert [pair for pair in pairs if program.overlap(*pair)] == [
        ("whole", "left"),
        ("whole", "right"),
        ("whole", "middle"),
        ("left", "middle"),
        ("right", "middle"),
    ]


# ------------------------------------------------------------------ Θ and ∇Θ


@pytest.mark.parametrize(("dtype", "step"), [("float32", 64), ("float64", 32)])
def test_theta_holds_the_weights_first_then_the_biases_each_at_256_bytes(dtype, step):
    program = declared(("x", (3, 4)), dtype=dtype)
    z = dense(program, "x", 5, 0)
    dense(program, z, 1, 1)
    layout = program.lay_out_parameters()
    assert program.parameters == tuple(layout.windows)
    assert {key: window.offset for key, window in layout.windows.items()} == {
        "layers.0.weights": 0,
        "layers.1.weights": step,
        "layers.0.bias": 2 * step,
        "layers.1.bias": 3 * step,
    }
    assert (layout.weights, layout.size, layout.count) == (2 * step, 4 * step, 20 + 5 + 5 + 1)
    assert program.slots["theta"].shape == (4 * step,)


def test_a_gradient_is_the_same_window_of_nabla_theta():
    program = declared(("x", (3, 4)))
    dense(program, dense(program, "x", 5, 0), 2, 1)
    gradients = [program.gradient(key) for key in program.parameters]
    pairs = [
        (program.slots[key], program.slots[gradient])
        for key, gradient in zip(program.parameters, gradients, strict=True)
    ]
    assert [gradient.symbol for _, gradient in pairs] == ["∂C/∂W0", "∂C/∂b0", "∂C/∂W1", "∂C/∂b1"]
    assert [(p.offset, p.shape) for p, _ in pairs] == [(g.offset, g.shape) for _, g in pairs]
    assert {(p.base, g.base, g.role) for p, g in pairs} == {("theta", "grad", Role.GRADIENT)}
    assert program.slots["grad"].shape == program.slots["theta"].shape


def test_a_program_without_parameters_has_an_empty_theta():
    program = declared(("x", (3, 4)))
    program.emit("softmax", ("x",))
    assert (program.lay_out_parameters().size, program.slots["theta"].shape) == (0, (0,))


# ------------------------------------------------------------------ backpropagation


class Differentiated:
    """A hand-built program with a quadratic cost, in float64, and its derivatives two ways."""

    def __init__(self, forward, batch=3):
        p = self.program = declared(("x", (batch, 4)))
        output = forward(p, "x")
        self.forward_ops = len(p.ops)
        seed = loss_named("quadratic").emit(p, output, p.slot("t", p.slots[output].shape, Role.TARGET))
        self.errors = p.backpropagate(seed, wrt=["x"])
        p.pin(self.errors["x"])
        rng = np.random.default_rng(0)
        inputs = [s for s in p.slots.values() if s.role in (Role.INPUT, Role.TARGET) and s.base is None]
        integers = {s.name: rng.integers(0, 3, s.shape) for s in inputs if s.dtype == "int64"}
        self.values = {s.name: rng.standard_normal(s.shape) for s in inputs} | integers
        self.values["theta"] = np.zeros(p.layout.size)
        for window in p.layout.windows.values():
            part = slice(window.offset, window.offset + window.size)
            self.values["theta"][part] = rng.standard_normal(window.size)
        self.runner = loaded(p)

    @property
    def backward(self):
        """The names of the backward ops; those that add to their output with a plus."""
        ops = self.program.ops[self.forward_ops + 1 :]
        return [op.name + "+" * bool(op.attrs.get("accumulate")) for op in ops]

    def cost(self, **changed):
        for slot, values in {**self.values, **changed}.items():
            self.runner.write(slot, values)
        self.runner.run()
        return float(self.runner.read("loss")[0])

    def exact(self, slot):
        self.cost()
        return self.runner.read("grad" if slot == "theta" else self.errors[slot])

    def estimate(self, slot, h=1e-5):
        values = self.values[slot]
        steps = h * np.eye(values.size).reshape(values.size, *values.shape)
        found = [self.cost(**{slot: values + step}) - self.cost(**{slot: values - step}) for step in steps]
        return np.reshape(found, values.shape) / (2 * h)


def branches(p, x):
    a = p.emit("activate", (dense(p, x, 4, 0),), sigma="tanh")
    return p.emit("add", (dense(p, a, 3, 1), dense(p, a, 3, 2)))


def residual(p, x):
    z = dense(p, x, 3, 0)
    return p.emit("add", (z, p.emit("activate", (z,), sigma="tanh")))


def residual_the_other_way(p, x):
    z = dense(p, x, 3, 0)
    return p.emit("add", (p.emit("activate", (z,), sigma="tanh"), z))


def a_weight_twice(p, x):
    with p.scope("layers.0", "layer 0 Loop"):
        W, b = p.parameter("weights", (4, 4), "normal"), p.parameter("bias", (4,), "zeros", weight=False)
        z = p.emit("linear", (x, W, b))
        return p.emit("linear", (p.emit("activate", (z,), sigma="sigmoid"), W, b))


def view_and_linear(p, x):
    a = p.emit("activate", (dense(p, x, 4, 0),), sigma="tanh")
    square = p.emit("activate", (p.view(a, (p.slots[a].shape[0], 2, 2)),), sigma="sigmoid")
    return p.emit("add", (p.view(square, p.slots[a].shape), dense(p, a, 4, 1)))


def the_same_twice(p, x):
    a = p.emit("activate", (dense(p, x, 3, 0),), sigma="tanh")
    return p.emit("add", (a, a))


def the_input_twice(p, x):
    return p.emit("add", (dense(p, x, 3, 0), dense(p, x, 3, 1)))


def two_activations_of_one_z(p, x):
    z = dense(p, x, 3, 0)
    return p.emit("add", (p.emit("activate", (z,), sigma="tanh"), p.emit("activate", (z,), sigma="sigmoid")))


def activations_in_a_row(p, x):
    a = p.emit("activate", (p.emit("activate", (dense(p, x, 3, 0),), sigma="tanh"),), sigma="sigmoid")
    return p.emit("softmax", (a,))


def softmax_and_its_input(p, x):
    z = dense(p, x, 3, 0)
    return p.emit("add", (z, p.emit("softmax", (z,))))


def views_of_views(p, x):
    batch = p.slots[x].shape[0]
    z = dense(p, p.view(p.view(x, (batch, 2, 2)), (batch, 4)), 6, 0)
    folded = p.view(p.view(z, (batch, 3, 2)), (batch, 2, 3))
    return dense(p, p.view(p.emit("activate", (folded,), sigma="tanh"), (batch, 6)), 2, 1)


def a_view_of_the_output(p, x):
    batch = p.slots[x].shape[0]
    return p.view(p.emit("activate", (p.view(dense(p, x, 4, 0), (batch, 2, 2)),), sigma="tanh"), (batch, 4))


def weights_that_are_computed(p, x):
    W = p.emit("activate", (p.view(dense(p, x, 4, 0), (p.slots[x].shape[0], 4)),), sigma="tanh")
    with p.scope("layers.1", "layer 1 Hyper"):
        b = p.parameter("bias", (p.slots[x].shape[0],), "normal", weight=False)
        return p.emit("linear", (x, W, b))


def the_input_as_weights(p, x):
    with p.scope("layers.0", "layer 0 Gram"):
        b = p.parameter("bias", (p.slots[x].shape[0],), "normal", weight=False)
        return p.emit("linear", (x, x, b))


def a_bias_beside_fixed_weights(p, x):
    fixed = p.slot("fixed", (5, 4), Role.INPUT)
    with p.scope("layers.0", "layer 0 Fixed"):
        b = p.parameter("bias", (5,), "normal", weight=False)
        return p.emit("linear", (x, fixed, b))


def a_parameter_added(p, x):
    z = dense(p, x, 3, 0)
    with p.scope("layers.1", "layer 1 Shift"):
        return p.emit("add", (z, p.parameter("shift", p.slots[z].shape, "normal")))


def sigma_of_a_parameter(p, x):
    """Weights kept within (−1, 1)."""
    with p.scope("layers.0", "layer 0 Bounded"):
        W = p.emit("activate", (p.parameter("raw", (3, 4), "normal"),), sigma="tanh")
        b = p.parameter("bias", (3,), "normal", weight=False)
        return p.emit("linear", (x, W, b))


def sigma_of_a_parameter_read_twice(p, x):
    with p.scope("layers.0", "layer 0 Bounded"):
        raw = p.parameter("raw", (4, 4), "normal")
        b = p.parameter("bias", (4,), "normal", weight=False)
        W = p.emit("activate", (raw,), sigma="tanh")
        return p.emit("linear", (p.emit("linear", (x, raw, b)), W, b))


def a_parameter_in_another_shape(p, x):
    """A second weight, so that the window of the one that is viewed does not start at 0."""
    z = dense(p, x, 4, 0)
    with p.scope("layers.1", "layer 1 Folded"):
        W = p.view(p.parameter("weights", (2, 2, 4), "normal"), (4, 4))
        b = p.parameter("bias", (4,), "normal", weight=False)
        return p.emit("linear", (z, W, b))


def a_parameter_in_two_shapes(p, x):
    z = dense(p, x, 4, 0)
    with p.scope("layers.1", "layer 1 Folded"):
        W = p.parameter("weights", (16,), "normal")
        b = p.parameter("bias", (2, 2), "normal", weight=False)
        first = p.emit("linear", (z, p.view(W, (4, 4)), p.view(b, (4,))))
        return p.emit("linear", (first, p.view(p.view(W, (2, 8)), (4, 4)), p.view(b, (4,))))


def one_unit(p, x):
    a = p.emit("activate", (dense(p, x, 1, 0),), sigma="tanh")
    return p.emit("activate", (dense(p, a, 1, 1),), sigma="tanh")


def a_dead_branch(p, x):
    z = dense(p, x, 3, 0)
    dense(p, p.emit("activate", (z,), sigma="tanh"), 2, 1)
    return z


FORWARD = [
    branches,
    residual,
    residual_the_other_way,
    a_weight_twice,
    view_and_linear,
    the_same_twice,
    the_input_twice,
    two_activations_of_one_z,
    activations_in_a_row,
    softmax_and_its_input,
    views_of_views,
    a_view_of_the_output,
    weights_that_are_computed,
    the_input_as_weights,
    a_bias_beside_fixed_weights,
    a_parameter_added,
    sigma_of_a_parameter,
    sigma_of_a_parameter_read_twice,
    a_parameter_in_another_shape,
    a_parameter_in_two_shapes,
    one_unit,
    a_dead_branch,
]


@pytest.mark.parametrize("wrt", ["theta", "x"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("forward", FORWARD, ids=lambda forward: forward.__name__)
def test_backpropagation_agrees_with_central_differences(forward, batch, wrt):
    made = Differentiated(forward, batch)
    np.testing.assert_allclose(made.exact(wrt), made.estimate(wrt), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrt", ["theta", "x"])
def test_a_derivative_that_needs_the_input_agrees_with_central_differences(square, wrt):
    def forward(p, x):
        a = p.emit("activate", (dense(p, x, 3, 0),), sigma="square")
        return p.emit("activate", (p.emit("add", (a, dense(p, a, 3, 1))),), sigma="square")

    made = Differentiated(forward)
    np.testing.assert_allclose(made.exact(wrt), made.estimate(wrt), rtol=1e-6, atol=1e-8)


LINEAR = ["linear_grad_input", "linear_grad_weight", "linear_grad_bias"]


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (branches, ["copy", "copy", *LINEAR, "linear_grad_input+", *LINEAR[1:], "activate_grad", *LINEAR]),
        (residual, ["copy", "copy", "activate_grad", "copy+", *LINEAR]),
        (
            a_weight_twice,
            [*LINEAR, "activate_grad", LINEAR[0], "linear_grad_weight+", "linear_grad_bias+"],
        ),
        (the_same_twice, ["copy", "copy+", "activate_grad", *LINEAR]),
        (the_input_twice, ["copy", "copy", *LINEAR, "linear_grad_input+", *LINEAR[1:]]),
        (a_dead_branch, LINEAR),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_second_writer_of_an_error_adds_to_it(forward, backward):
    assert Differentiated(forward).backward == backward


def test_the_error_of_a_layer_reaches_its_input_before_its_weights_are_touched():
    """An update folded into BP4 destroys W: whoever reads W comes before it."""
    ops = training_program().ops
    last_reader = {key: i for i, op in enumerate(ops[:-2]) for key in op.ins if key and "weights" in key}
    writer = {op.outs[0]: i for i, op in enumerate(ops) if op.name == "linear_grad_weight"}
    assert last_reader == {"layers.0.weights": 1, "layers.1.weights": writer["grad.layers.1.weights"] - 1}


def test_backward_ops_have_the_label_of_their_layer():
    backward = [op.label for op in training_program().ops if op.label.endswith("backward")]
    assert backward == ["layer 1 Dense: backward"] * 4 + ["layer 0 Dense: backward"] * 3


def test_the_backward_op_of_an_op_without_a_label_is_called_by_the_ops_name():
    program = declared(("x", (3, 4)), ("seed", (3, 2)))
    program.backpropagate({program.emit("softmax", (dense(program, "x", 2, 0),)): "seed"})
    assert program.ops[2].label == "softmax: backward"


def test_an_activation_and_its_input_share_the_slot_of_their_error():
    made = Differentiated(two_activations_of_one_z)
    errors, program = made.errors, made.program
    assert errors["layers.0.z"] in (errors["a"], errors["a.2"])
    assert errors["a"] != errors["a.2"]
    assert program.slots[errors["layers.0.z"]].shape == (3, 3)


def test_the_errors_of_the_parameters_are_their_gradients():
    made = Differentiated(the_input_twice)
    assert made.errors["layers.1.bias"] == "grad.layers.1.bias"


def test_without_parameters_only_the_error_of_the_input_is_computed():
    program = declared(("x", (3, 4)))
    output = program.emit("activate", (dense(program, "x", 2, 0),), sigma="tanh")
    seed = program.slot("seed", (3, 2), Role.INPUT)
    errors = program.backpropagate({output: seed}, wrt=["x"], parameters=False)
    assert [op.name for op in program.ops[2:]] == ["activate_grad", "linear_grad_input"]
    assert program.slots[errors["x"]].shape == (3, 4)


def test_the_error_of_an_input_that_nobody_asks_for_is_not_computed():
    program = declared(("x", (3, 4)))
    z = dense(program, "x", 2, 0)
    errors = program.backpropagate({z: program.slot("seed", (3, 2), Role.INPUT)})
    assert [op.name for op in program.ops[1:]] == ["linear_grad_weight", "linear_grad_bias"]
    assert "x" not in errors


def test_nothing_is_appended_where_no_error_is_wanted():
    program = declared(("x", (3, 4)), ("seed", (3, 4)))
    a = program.emit("softmax", ("x",))
    program.backpropagate({a: "seed"})
    assert [op.name for op in program.ops] == ["softmax"]


def test_a_seed_of_another_size_is_refused():
    program = declared(("x", (3, 4)), ("seed", (3, 5)))
    with pytest.raises(gpunn.ShapeError, match=r"cannot view seed of shape \(3, 5\) as \(3, 2\)"):
        program.backpropagate({dense(program, "x", 2, 0): "seed"})


def in_place(p, z):
    p.emit("activate", (z,), {"a": z}, sigma="tanh")
    return z


def in_place_through_a_view(p, z):
    p.emit("activate", (z,), {"a": p.view(p.view(z, (3, 2, 1)), (3, 2))}, sigma="tanh")
    return z


def overwritten(p, z):
    a = p.emit("activate", (z,), sigma="tanh")
    total = p.emit("add", (a, z))
    p.emit("softmax", (z,), {"a": a})
    return p.emit("add", (total, a))


@pytest.mark.parametrize("forward", [in_place, in_place_through_a_view, overwritten])
def test_a_slot_that_is_written_twice_has_no_error_of_its_own(forward):
    program = declared(("x", (3, 4)), ("seed", (3, 2)))
    with program.scope("layers.1", "layer 1 Frugal"):
        output = forward(program, dense(program, "x", 2, 0))
    with pytest.raises(gpunn.ProgramError, match="layer 1 Frugal: forward"):
        program.backpropagate({output: "seed"})


def twice(x, y):
    np.multiply(x, 2, out=y)


def twice_adjoint(back, op):
    back.send("twice", (back.error(op.outs[0]),), to=op.ins[0])


def test_an_op_without_an_adjoint_is_named_where_the_error_has_to_pass_it(vocabulary):
    register_op("twice", "x(*S) -> y(*S)", formula="{y} = 2 {x}", numpy=twice)
    program = declared(("x", (3, 4)))
    with program.scope("layers.5", "layer 5 Twice"):
        W, b = program.parameter("weights", (2, 4), "normal"), program.parameter("bias", (2,), "zeros")
        y = program.emit("twice", (program.emit("linear", ("x", W, b)),))
    seed = program.slot("seed", (3, 2), Role.INPUT)
    with pytest.raises(gpunn.ProgramError, match="layer 5 Twice: forward: op 'twice' has no adjoint"):
        program.backpropagate({y: seed})


def test_an_op_without_an_adjoint_before_all_parameters_does_no_harm(vocabulary):
    register_op("twice", "x(*S) -> y(*S)", formula="{y} = 2 {x}", numpy=twice)
    program = declared(("x", (3, 4)))
    z = dense(program, program.emit("twice", ("x",)), 2, 0)
    program.backpropagate({z: program.slot("seed", (3, 2), Role.INPUT)})
    assert [op.name for op in program.ops] == ["twice", "linear", "linear_grad_weight", "linear_grad_bias"]


def test_an_op_that_cannot_add_to_its_output_is_followed_by_a_copy_that_does(vocabulary):
    register_op("twice", "x(*S) -> y(*S)", formula="{y} = 2 {x}", adjoint=twice_adjoint, numpy=twice)

    def forward(p, x):
        z = dense(p, x, 3, 0)
        return p.emit("add", (p.emit("twice", (z,)), p.emit("twice", (z,))))

    made = Differentiated(forward)
    assert made.backward == ["copy", "copy", "twice", "twice", "copy+", *LINEAR]
    np.testing.assert_allclose(made.exact("theta"), made.estimate("theta"), rtol=1e-6, atol=1e-8)


def test_the_copy_that_adds_knows_sizes_that_the_inputs_do_not_tell(vocabulary):
    """Two look-ups in one table of vectors: the gradient has as many rows as the table."""

    def lookup(W, rows, y):
        np.copyto(y, W[rows])

    def lookup_grad(delta, rows, grad):
        grad[...] = 0
        np.add.at(grad, rows, delta)

    def adjoint(back, op):
        W, rows = op.ins
        back.send("lookup_grad", (back.error(op.outs[0]), rows), to=W)

    register_op(
        "lookup", "W(V,N) rows(B):int64 -> y(B,N)", formula="{y} = {W}[{rows}]", adjoint=adjoint, numpy=lookup
    )
    register_op(
        "lookup_grad",
        "delta(B,N) rows(B):int64 -> grad(V,N)",
        formula="{grad}[{rows}] = {delta}",
        numpy=lookup_grad,
    )

    def forward(p, x):
        first, second = (p.slot(name, (3,), Role.INPUT, "int64") for name in ("first", "second"))
        with p.scope("layers.0", "layer 0 Lookup"):
            W = p.parameter("weights", (6, 4), "normal")
            found = p.emit("add", (p.emit("lookup", (W, first)), p.emit("lookup", (W, second))))
            return p.emit("add", (x, found))

    made = Differentiated(forward)
    np.testing.assert_allclose(made.exact("theta"), made.estimate("theta"), rtol=1e-6, atol=1e-8)


def test_the_last_layer_may_call_its_output_delta(vocabulary):
    """The error of the output has a place of its own all the same."""

    def double(x, delta):
        np.multiply(x, 2, out=delta)

    def adjoint(back, op):
        back.send("double", (back.error(op.outs[0]),), to=op.ins[0])

    register_op("double", "x(*S) -> delta(*S)", formula="{delta} = 2 {x}", adjoint=adjoint, numpy=double)

    def forward(p, x):
        z = dense(p, x, 2, 0)
        with p.scope("layers.1", "layer 1 Double"):
            return p.emit("double", (p.emit("activate", (z,), sigma="tanh"),))

    made = Differentiated(forward)
    output, error = made.program.ops[2].outs[0], made.errors["layers.1.delta"]
    assert output != error
    np.testing.assert_allclose(made.exact("theta"), made.estimate("theta"), rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------ programs drawn at random

KINDS = ["linear", "tied", "add", "tanh", "sigmoid", "softmax", "fold", "bounded", "folded"]


@st.composite
def drawn_programs(draw):
    """A forward program over (B, n) slots with fan-out, shared weights and views, its cost and ∇C."""
    batch = draw(st.sampled_from([1, 2, 5]))
    p = declared(("x", (batch, 3)))
    live, pairs = ["x"], []
    for number in range(draw(st.integers(1, 8))):
        kind, u = draw(st.sampled_from(KINDS)), draw(st.sampled_from(live))
        shape = p.slots[u].shape
        with p.scope(f"layers.{number}", f"layer {number} {kind}"):
            fitting = [pair for pair in pairs if p.slots[pair[0]].shape[1] == shape[1]]
            if kind == "tied" and fitting:
                live.append(p.emit("linear", (u, *draw(st.sampled_from(fitting)))))
            elif kind in ("linear", "tied"):
                units = draw(st.sampled_from([1, 3, 33]))
                weights = p.parameter("weights", (units, shape[1]), "normal")
                pairs.append((weights, p.parameter("bias", (units,), "normal", weight=False)))
                live.append(p.emit("linear", (u, *pairs[-1])))
            elif kind == "bounded":
                raw = p.parameter("raw", (3, shape[1]), "normal")
                pairs.append((p.emit("activate", (raw,), sigma="tanh"), p.parameter("bias", (3,), "normal")))
                live.append(p.emit("linear", (u, *pairs[-1])))
            elif kind == "folded":
                raw = p.parameter("raw", (shape[1], 1, 3), "normal")
                pairs.append((p.view(raw, (3, shape[1])), p.parameter("bias", (3,), "normal")))
                live.append(p.emit("linear", (u, *pairs[-1])))
            elif kind == "add":
                v = draw(st.sampled_from([v for v in live if p.slots[v].shape == shape]))
                live.append(p.emit("add", (u, v)))
            elif kind == "softmax":
                live.append(p.emit("softmax", (u,)))
            elif kind == "fold":
                folded = p.emit("activate", (p.view(u, (shape[1], 1, batch)),), sigma="tanh")
                live.append(p.view(folded, shape))
            else:
                live.append(p.emit("activate", (u,), sigma=kind))
    output = live[-1]
    seed = loss_named("quadratic").emit(p, output, p.slot("t", p.slots[output].shape, Role.TARGET))
    p.marks |= {"error of x": p.backpropagate(seed, wrt=["x"])["x"]}
    return p


def drawn_values(program, seed):
    """Numbers for Θ and for what the host writes, by slot."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(program.slots[name].shape) for name in ("x", "t", *program.parameters)}


def run_with(runner, values):
    for slot, array in values.items():
        runner.write(slot, array)
    runner.run()
    return runner


@settings(max_examples=100, deadline=None)
@given(program=drawn_programs(), seed=st.integers(0, 2**31))
def test_any_program_has_the_slope_that_central_differences_have(program, seed):
    program.pin(program.marks["error of x"])
    runner = loaded(program)
    values, direction = drawn_values(program, seed), drawn_values(program, seed + 1)
    length = np.sqrt(sum((part**2).sum() for part in direction.values()))
    direction = {slot: part / length for slot, part in direction.items() if slot != "t"}
    run_with(runner, values)
    errors = {"x": program.marks["error of x"]} | {
        key: f"grad.{key}" for key in program.parameters if f"grad.{key}" in program.slots
    }
    slope = sum(np.vdot(direction[slot], runner.read(error)) for slot, error in errors.items())
    h, cost = 1e-5, []
    for sign in (1, -1):
        moved = {slot: values[slot] + sign * h * part for slot, part in direction.items()}
        cost.append(run_with(runner, values | moved).read("loss")[0])
    estimate = (cost[0] - cost[1]) / (2 * h)
    assert abs(slope - estimate) <= 1e-5 * max(1, abs(slope), cost[0])


def lifetimes(program):
    """First and last op that need each slot's place: −1 where the host writes it, the end where pinned."""
    used = [{program.root(slot) for slot in (*op.ins, *op.outs) if slot} for op in program.ops]
    pinned, found = {program.root(slot) for slot in program.pinned}, {}
    for slot in set().union(*used):
        if program.slots[slot].role in WORKSPACE:
            at = [i for i, slots in enumerate(used) if slot in slots]
            by_the_host = slot in {program.root(read) for read in program.ops[at[0]].reads}
            found[slot] = (-1 if by_the_host else at[0], len(used) if slot in pinned else at[-1])
    return found


def sharing(program):
    """The pairs of slots that share bytes while both are needed."""
    plan, needed = program.plan(), lifetimes(program)
    ranges = {slot: (at, at + program.slots[slot].nbytes) for slot, at in plan.offsets.items()}
    assert set(ranges) == set(needed)

    def meet(one, other):
        return one[0] <= other[1] and other[0] <= one[1]

    def share(one, other):
        return one[0] < other[1] and other[0] < one[1]

    return [
        (a, b)
        for a, b in itertools.combinations(sorted(ranges), 2)
        if meet(needed[a], needed[b]) and share(ranges[a], ranges[b])
    ]


@settings(max_examples=100, deadline=None)
@given(program=drawn_programs(), data=st.data())
def test_no_two_slots_that_are_needed_together_share_bytes(program, data):
    program.pin(
        *data.draw(st.sets(st.sampled_from(sorted(program.slots)), max_size=3)) - set(program.parameters)
    )
    plan = program.plan()
    assert sharing(program) == []
    assert all(at % ALIGNMENT == 0 for at in plan.offsets.values())
    assert plan.nbytes == max(
        -(-(at + program.slots[slot].nbytes) // ALIGNMENT) * ALIGNMENT for slot, at in plan.offsets.items()
    )


def differing(planned, apart):
    """Run both op by op; the ops and slots that came out differently."""
    found = []
    for position, op in enumerate(planned.program.ops):
        planned.step_op(position)
        apart.step_op(position)
        found += [
            (position, s) for s in op.outs if s and planned.read(s).tobytes() != apart.read(s).tobytes()
        ]
    return found


@settings(max_examples=100, deadline=None)
@given(program=drawn_programs(), seed=st.integers(0, 2**31))
def test_every_op_gives_the_same_bytes_in_the_planned_workspace_as_with_a_place_for_each_slot(program, seed):
    runners = [loaded(program), loaded(program, keep_all=True)]
    for runner in runners:
        for slot, values in drawn_values(program, seed).items():
            runner.write(slot, values)
    assert differing(*runners) == []


#: Every update that an optimiser of gpunn's emits.
UPDATES = {
    **{name: cls for name, cls in OPTIMIZERS.items() if cls.__module__.startswith("gpunn.")},
    "momentum": partial(gpunn.SGD, momentum=0.9),
    "nesterov": partial(gpunn.SGD, momentum=0.9, nesterov=True),
}
EVERY_TERM = {"l1": 0.05, "l2": 0.1, "weight_decay": 0.2, "clip_norm": 0.01}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("targets", [Targets(), Targets(labels=True, weighted=True)])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_three_steps_of_training_give_the_same_bytes_in_the_planned_workspace(loss, targets, dtype):
    row = loss_named(loss)
    if targets.labels and not row.takes_labels(3):
        targets = replace(targets, labels=False)
    last = row.link or "softmax"
    layers = (gpunn.Flatten(), gpunn.Dense(40, activation="tanh"), gpunn.Dense(3, activation=last))
    program = training(
        Model(layers, (2, 3), dtype),
        row,
        gpunn.Adam(l2=0.1),
        4,
        metrics=metrics_named(metrics_for(row, targets)),
        targets=targets,
    )
    three_steps_agree(program, targets)


@pytest.mark.parametrize("schedule", [None, gpunn.Exponential(0.5)], ids=["", "scheduled"])
@pytest.mark.parametrize("given", [{}, EVERY_TERM], ids=["plain", "every term"])
@pytest.mark.parametrize("optimizer", UPDATES)
def test_three_steps_of_any_optimiser_give_the_same_bytes_in_the_planned_workspace(
    optimizer, given, schedule
):
    layers = (gpunn.Flatten(), gpunn.Dense(40, activation="tanh"), gpunn.Dropout(0.4), gpunn.Dense(3))
    update = UPDATES[optimizer](**given, schedule=schedule)
    targets = Targets(labels=True)
    program = training(Model(layers, (2, 3), "float32"), loss_named("quadratic"), update, 4, targets=targets)
    three_steps_agree(program, targets)


def three_steps_agree(program, targets):
    """Three minibatches op by op, in the planned workspace and with a place for each slot."""
    runners = [loaded(program), loaded(program, keep_all=True)]
    for runner in runners:
        with_data(runner, targets, rows=12)
        before = runner.read("theta").copy()
    assert differing(*runners) + differing(*runners) + differing(*runners) == []
    assert int(runners[0].read("cursor")[0]) == 12
    assert (runners[0].read("theta") != before).any()


def metrics_for(loss, targets):
    """Every metric that means something for such targets of three outputs."""
    split = not targets.labels and loss.splits_by_output(3)
    return [
        name
        for name, row in METRICS.items()
        if (not targets.labels if row.numbers else row.outputs if split else row.classes)
    ]


#: A number for every word that an update reads.
NUMBERS = {
    "lr": 0.1,
    "l1": 0.05,
    "l2": 0.1,
    "weight_decay": 0.2,
    "momentum": 0.9,
    "rho": 0.8,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "beta1_power": 0.9,
    "beta2_power": 0.999,
    "clip_norm": 0.01,
    "clip_scale": 1.0,
    "first_step": 0,
    "l2_sum": 0.5,
    "epsilon_hat": 1e-7,
}


def hyper_of(**words):
    """The content of the hyper slot; words that are not named are 0."""
    hyper = np.zeros(len(HYPER))
    for word, value in words.items():
        hyper[HYPER[word]] = value
    return hyper


def test_there_is_a_number_for_every_word_of_the_hyper_slot():
    assert NUMBERS.keys() == HYPER.keys()
    assert sorted(HYPER.values()) == list(range(len(HYPER)))


def with_data(runner, targets, rows=12, outputs=3, seed=0):
    """Data, a permutation and parameters for a program of one of the variants."""
    rng = np.random.default_rng(seed)
    dtype = runner.program.dtype
    labels = rng.integers(0, outputs, rows)
    shape = runner.program.slots["X"].shape[1:]
    runner.bind(
        X=rng.standard_normal((rows, *shape)).astype(dtype),
        T=labels if targets.labels else np.eye(outputs, dtype=dtype)[labels],
        weights=rng.random(rows).astype(dtype),
        perm=rng.permutation(rows),
        rates=np.linspace(0.1, 0.02, rows),
    )
    for key in runner.program.parameters:
        runner.write(key, rng.standard_normal(runner.array(key).shape))
    if "hyper" in runner.program.slots:
        runner.write("hyper", hyper_of(**NUMBERS))
    return runner


def test_a_chain_of_activations_needs_two_places():
    program = declared(("x", (64, 64)))
    slot = "x"
    for _ in range(9):
        slot = program.emit("activate", (slot,), sigma="tanh")
    assert program.plan().nbytes == 2 * 64 * 64 * 8


# ------------------------------------------------------------------ prune, pin, check


def test_prune_drops_what_nobody_reads_and_nothing_else():
    program = declared(("x", (3, 4)))
    a = program.emit("softmax", ("x",))
    dropped = program.emit("add", (a, "x"))
    program.emit("activate", (dropped,), sigma="tanh")
    kept = program.emit("activate", (a,), sigma="tanh")
    program.pin(kept)
    program.prune()
    assert [op.name for op in program.ops] == ["softmax", "activate"]
    assert program.ops[1].outs == (kept,)


def test_prune_keeps_an_op_whose_result_is_pinned_under_another_shape():
    program = declared(("x", (3, 4)))
    program.pin(program.view(program.emit("softmax", ("x",)), (4, 3)))
    program.prune()
    assert [op.name for op in program.ops] == ["softmax"]


def test_prune_keeps_what_outlives_the_step():
    program = declared(("a", (3, 4)), ("t", (3, 4)))
    loss = program.slot("loss", (2,), Role.HYPER, "float64")
    program.emit("quadratic", ("a", "t"), {"loss": loss})
    program.prune()
    assert [op.name for op in program.ops] == ["quadratic"]


def test_prune_keeps_an_op_that_works_in_place_on_what_is_pinned():
    program = declared(("a", (3, 4)), ("delta", (3, 4)))
    program.emit("softmax_grad", ("a",), {"delta": "delta"})
    program.pin("delta")
    program.prune()
    assert len(program.ops) == 1


@pytest.mark.parametrize(("pinned", "lost"), [(["layers.0.z"], False), ([], True)])
def test_a_pinned_slot_keeps_its_content_until_the_step_ends(pinned, lost):
    program = declared(("x", (8, 8)))
    slot = dense(program, "x", 8, 0)
    for _ in range(3):
        slot = program.emit("activate", (slot,), sigma="tanh")
    program.pin(*pinned)
    runner = loaded(program)
    runner.write("x", 1.0)
    runner.write("layers.0.bias", 2.0)
    runner.run()
    assert bool((runner.read("layers.0.z") != 2.0).any()) is lost


def test_a_pinned_input_is_still_there_at_the_next_step():
    program = declared(("x", (8, 8)))
    output = program.emit("activate", (program.emit("activate", ("x",), sigma="tanh"),), sigma="tanh")
    program.pin("x", output)
    runner = loaded(program)
    runner.write("x", 1.0)
    runner.run(3)
    np.testing.assert_allclose(runner.read(output), np.tanh(np.tanh(1.0)))


def test_a_slot_read_before_it_is_written_is_named_with_the_op():
    program = declared(("x", (3, 4)))
    program.slot("y", (3, 4), Role.ACTIVATION)
    program.emit("add", ("x", "y"), label="layer 2 Residual: forward")
    with pytest.raises(
        gpunn.ProgramError, match=r"op 0 \(layer 2 Residual: forward\) reads 'y' before any op"
    ):
        program.check()


@pytest.mark.parametrize(
    "emit",
    [
        lambda p: p.emit("softmax_grad", ("x",), {"delta": "y"}),
        lambda p: p.emit("copy", ("x",), {"v": "y"}, accumulate=True),
        lambda p: p.emit("softmax", (p.view("y", (4, 3)),)),
    ],
    ids=["in place", "accumulating", "through a view"],
)
def test_whatever_reads_before_a_write_is_found_when_the_program_is_loaded(emit):
    program = declared(("x", (3, 4)))
    program.slot("y", (3, 4), Role.ACTIVATION)
    emit(program)
    with pytest.raises(gpunn.ProgramError, match=r"reads 'y.*' before any op has written it"):
        loaded(program)


def test_a_slot_written_under_another_shape_may_be_read():
    program = declared(("x", (3, 4)))
    y = program.slot("y", (3, 4), Role.ACTIVATION)
    program.emit("copy", (program.view("x", (4, 3)),), {"v": program.view(y, (4, 3))})
    program.emit("softmax", (y,))
    assert program.check() is None


def test_a_copy_of_a_program_is_a_program_of_its_own():
    program = training_program()
    before, other = str(program), program.copy()
    assert str(other) == before
    other.pin("x")
    other.emit("softmax", ("x",))
    other.marks["x"] = "t"
    assert (str(program), program.pinned, program.marks["x"]) == (before, set(), "x")


# ------------------------------------------------------------------ printing


def training_program(**changed):
    """Two sigmoid layers, quadratic cost, SGD: the book's network, small."""
    layers = (gpunn.Dense(5, activation="sigmoid"), gpunn.Dense(3, activation="sigmoid"))
    given = {"loss": loss_named("quadratic"), "optimizer": gpunn.SGD(lr=3.0), "batch": 7, **changed}
    return training(Model(layers, (4,), "float32"), **given)


def printed(program):
    """Equation, op and formula of each row of the printed table."""
    return [tuple(re.split(r"\s{2,}", line.strip())[1:4]) for line in str(program).splitlines()[3:]]


def test_a_training_step_prints_as_the_four_equations():
    assert printed(training_program()) == [
        ("data", "gather", "x = X[perm[cursor : cursor+B]]"),
        ("forward", "linear", "z0 = x W0ᵀ + b0"),
        ("forward", "activate", "a0 = sigmoid(z0)"),
        ("forward", "linear", "z1 = a0 W1ᵀ + b1"),
        ("forward", "activate", "a1 = sigmoid(z1)"),
        ("data", "gather", "t = T[perm[cursor : cursor+B]]"),
        ("loss", "quadratic", "C = mean ½‖a1 − t‖², ∂C/∂a = (a1 − t)/B"),
        ("BP1", "activate_grad", "δ1 = δ1 ⊙ sigmoid′(a1)"),
        ("BP2", "linear_grad_input", "δ0 = δ1 W1"),
        ("BP4", "linear_grad_weight", "∂C/∂W1 = δ1ᵀ a0"),
        ("BP3", "linear_grad_bias", "∂C/∂b1 = Σ_batch δ1"),
        ("BP2", "activate_grad", "δ0 = δ0 ⊙ sigmoid′(a0)"),
        ("BP4", "linear_grad_weight", "∂C/∂W0 = δ0ᵀ x"),
        ("BP3", "linear_grad_bias", "∂C/∂b0 = Σ_batch δ0"),
        (
            "reduce",
            "tally",
            "ΣC += (C Σw, Σw, penalty Σw); first_bad = the first step whose C is not finite",
        ),
        ("update", "sgd", "Θ = Θ − lr g, g = ∇C"),
        ("update", "advance", "cursor += rows, step += 1, βᵢᵗ = βᵢᵗ βᵢ"),
    ]


@pytest.mark.parametrize(
    ("given", "direction"),
    [
        ({}, "g = ∇C"),
        ({"l2": 0.1}, "g = ∇C + l2 w"),
        ({"l1": 0.1}, "g = ∇C + l1 sign w"),
        ({"weight_decay": 0.1}, "g = ∇C; and w = w − lr decay w"),
        ({"clip_norm": 1.0}, "g = s ∇C"),
        (
            {"l1": 0.1, "l2": 0.1, "weight_decay": 0.1, "clip_norm": 1.0},
            "g = s ∇C + l2 w + l1 sign w; and w = w − lr decay w",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", UPDATES)
def test_an_update_prints_the_terms_that_it_has_and_no_others(optimizer, given, direction):
    program = training_program(optimizer=UPDATES[optimizer](**{"weight_decay": 0.0, **given}))
    update = next(op for op in program.ops if op.label == "update")
    formula = program.formula(update)
    assert formula.endswith(f", {direction}")
    assert formula.startswith(program.formula(replace(update, attrs={})).removesuffix("g = ∇C"))


def test_what_clips_and_what_schedules_print_before_the_update():
    optimizer = gpunn.SGD(clip_norm=1.0, schedule=gpunn.Cosine(3))
    assert printed(training_program(optimizer=optimizer))[-4:-1] == [
        ("update", "schedule", "lr = rates[step − first step of the epoch]"),
        ("reduce", "clip_by_norm", "s = min(1, clip_norm/‖∇C‖)"),
        ("update", "sgd", "Θ = Θ − lr g, g = s ∇C"),
    ]


def test_dropout_prints_its_mask_and_the_way_back():
    layers = (gpunn.Dense(5), gpunn.Dropout(0.25), gpunn.Dense(3))
    program = training(Model(layers, (4,), "float32"), loss_named("mse"), gpunn.SGD(), 7)
    rows = [row for row in printed(program) if row[1].startswith("dropout")]
    assert rows == [
        ("forward", "dropout", "mask1 = Philox(key, step) ≥ p, y1 = z0 ⊙ mask1/(1 − p)"),
        ("BP2", "dropout_grad", "δ1 = δ1 ⊙ mask1/(1 − p)"),
    ]


def test_what_is_added_to_an_error_prints_with_a_plus():
    assert [row for row in printed(Differentiated(branches).program) if "+=" in row[2]] == [
        ("BP2", "linear_grad_input", "∂C/∂a += δ1 W1")
    ]


def test_the_output_error_is_bp1_behind_a_view_too():
    rows = printed(Differentiated(a_view_of_the_output).program)
    assert [equation for equation, op, _ in rows if op == "activate_grad"] == ["BP1"]


SMALL = """\
two branches: 9 ops, 20 parameters, float32, workspace 1,280 bytes
#  equation  op                  formula                writes         label
---------------------------------------------------------------------------------------------
0  forward   linear              z0 = x W0ᵀ + b0        z0 (2, 4)      layer 0 Skip: forward
1  forward   activate            a0 = tanh(z0)          a0 (2, 4)      layer 0 Skip: forward
2  forward   add                 y0 = z0 + a0           y0 (2, 4)      layer 0 Skip: forward
3  BP2       copy                δ0 = seed              δ0 (2, 4)      layer 0 Skip: backward
4  BP2       copy                δ0′ = seed             δ0′ (2, 4)     layer 0 Skip: backward
5  BP2       activate_grad       δ0′ = δ0′ ⊙ tanh′(a0)  δ0′ (2, 4)     layer 0 Skip: backward
6  BP2       copy                δ0 += δ0′              δ0 (2, 4)      layer 0 Skip: backward
7  BP4       linear_grad_weight  ∂C/∂W0 = δ0ᵀ x         ∂C/∂W0 (4, 4)  layer 0 Skip: backward
8  BP3       linear_grad_bias    ∂C/∂b0 = Σ_batch δ0    ∂C/∂b0 (4,)    layer 0 Skip: backward
"""


def test_a_small_program_prints_exactly_like_this():
    program = declared(("x", (2, 4)), dtype="float32")
    program.title = "two branches"
    with program.scope("layers.0", "layer 0 Skip"):
        W, b = (
            program.parameter("weights", (4, 4), "normal"),
            program.parameter("bias", (4,), "zeros", weight=False),
        )
        z = program.emit("linear", ("x", W, b))
        y = program.emit("add", (z, program.emit("activate", (z,), sigma="tanh")))
    program.backpropagate({y: program.slot("seed", (2, 4), Role.INPUT)})
    assert str(program) == SMALL.rstrip("\n")
    assert repr(program) == str(program)


def test_open_sizes_and_vectors_print_as_such():
    program = declared(("W", (4, 3)), dtype="float32")
    program.emit("linear_grad_bias", ("W",), label="sum")
    program.emit("copy", (program.slot("open", (None, 2), Role.DATA),))
    assert [line.split()[-2:] for line in str(program).splitlines()[3:]] == [["(3,)", "sum"], ["(n,", "2)"]]


def test_a_program_without_ops_prints_its_heading():
    assert str(Program(title="nothing")).splitlines()[0] == (
        "nothing: 0 ops, no parameters, float32, workspace 0 bytes"
    )


# ------------------------------------------------------------------ the programs of a network

LAYERS = (gpunn.Dense(5, activation="sigmoid"), gpunn.Dense(3, activation="softmax"))
MODEL = Model(LAYERS, (4,), "float64")


def names(program):
    return [op.name for op in program.ops]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
@pytest.mark.parametrize("targets", [Targets(labels, weighted) for labels in (0, 1) for weighted in (0, 1)])
def test_a_training_program_takes_its_batch_through_the_permutation(targets, loss, batch):
    program = training(MODEL, loss_named(loss), gpunn.SGD(), batch, targets=targets)
    gathered = {op.ins[0]: program.slots[op.outs[0]] for op in program.ops if op.name == "gather"}
    target = ("int64", (batch,)) if targets.labels else ("float64", (batch, 3))
    expected = {"X": ("float64", (batch, 4)), "T": target}
    expected |= {"weights": ("float64", (batch,))} if targets.weighted else {}
    assert {data: (slot.dtype, slot.shape) for data, slot in gathered.items()} == expected
    assert program.ops[-1].attrs == {"rows": batch}
    assert {op.ins[1:] for op in program.ops if op.name == "gather"} == {("perm", "cursor")}


@pytest.mark.parametrize("targets", [Targets(labels, weighted) for labels in (0, 1) for weighted in (0, 1)])
def test_a_training_program_for_one_batch_has_slots_for_the_host_to_write(targets):
    program = training(MODEL, loss_named("quadratic"), gpunn.SGD(), 7, targets=targets, gathered=False)
    assert "gather" not in names(program)
    assert program.ops[-1].attrs == {"rows": 0}
    target = "labels" if targets.labels else "t"
    assert [program.marks.get(mark) for mark in ("x", "target", "weight")] == [
        "x",
        target,
        "w" if targets.weighted else None,
    ]


def test_a_step_on_a_batch_of_the_hosts_leaves_the_cursor_and_counts_the_step():
    runner = loaded(training(MODEL, loss_named("quadratic"), gpunn.SGD(), 7, gathered=False))
    runner.run(3)
    assert (runner.read("cursor").tolist(), runner.read("step").tolist()) == ([0], [3])


@pytest.mark.parametrize(
    ("optimizer", "ops", "states"),
    [
        (gpunn.SGD(), ["tally", "sgd"], []),
        (gpunn.SGD(momentum=0.9), ["tally", "momentum"], ["momentum.velocity"]),
        (gpunn.Adam(), ["tally", "adam"], ["adam.m", "adam.v"]),
        (gpunn.SGD(momentum=0.9, nesterov=True), ["tally", "nesterov"], ["nesterov.velocity"]),
        (gpunn.AdamW(), ["tally", "adam"], ["adam.m", "adam.v"]),
        (gpunn.RMSprop(), ["tally", "rmsprop"], ["rmsprop.v"]),
        (gpunn.Adagrad(), ["tally", "adagrad"], ["adagrad.v"]),
        (gpunn.SGD(l2=0.1), ["weight_penalty", "tally", "sgd"], []),
        (gpunn.SGD(l1=0.1), ["weight_penalty", "tally", "sgd"], []),
        (gpunn.SGD(weight_decay=0.1), ["tally", "sgd"], []),
        (gpunn.SGD(clip_norm=1.0), ["tally", "clip_by_norm", "sgd"], []),
        (gpunn.SGD(schedule=gpunn.Cosine(3)), ["tally", "schedule", "sgd"], []),
        (
            gpunn.SGD(l1=0.1, clip_norm=1.0, schedule=gpunn.Cosine(3)),
            ["weight_penalty", "tally", "schedule", "clip_by_norm", "sgd"],
            [],
        ),
        (gpunn.Adam(l2=0.1), ["weight_penalty", "tally", "adam"], ["adam.m", "adam.v"]),
    ],
    ids=repr,
)
def test_the_update_is_one_op_over_the_whole_of_theta(optimizer, ops, states):
    program = training(MODEL, loss_named("quadratic"), optimizer, 7)
    update = program.ops[-2]
    present = {
        "l1": optimizer.l1,
        "l2": optimizer.l2,
        "decay": optimizer.weight_decay,
        "clip": optimizer.clip_norm,
    }
    terms = tuple(term for term, value in present.items() if value)
    of_weights = {"l1", "l2", "decay"} & set(terms)
    assert names(program)[-1 - len(ops) :] == [*ops, "advance"]
    assert (update.ins, update.outs) == (("grad", "hyper"), (*states, "theta"))
    told = {"terms": terms} if terms else {}
    assert update.attrs == {"weights": program.layout.weights if of_weights else 0, **told}
    assert {program.slots[state].role for state in states} <= {Role.STATE}
    tally = next(op for op in program.ops if op.name == "tally")
    assert tally.ins[2] == ("penalty" if optimizer.l1 or optimizer.l2 else None)


def test_an_update_by_an_unknown_term_is_refused():
    program = declared(("g", (64,)))
    program.parameter("W", (3, 5), "normal")
    program.lay_out_parameters()
    hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
    theta = {"theta": "theta"}
    with pytest.raises(gpunn.UnknownNameError, match="unknown term of an update 'l3': did you mean 'l"):
        program.emit("sgd", ("g", hyper), theta, weights=0, terms=("l3",))


@pytest.mark.parametrize("gathered", [True, False], ids=["minibatches", "one batch"])
def test_a_single_step_neither_tallies_nor_schedules(gathered):
    optimizer = gpunn.SGD(l2=0.1, schedule=gpunn.Cosine(3))
    found = names(training(MODEL, loss_named("quadratic"), optimizer, 7, gathered=gathered))
    assert {"weight_penalty", "tally", "schedule"} & set(found) == (
        {"weight_penalty", "tally", "schedule"} if gathered else set()
    )


def test_dropout_is_in_training_programs_alone():
    model = Model((gpunn.Dense(5), gpunn.Dropout(0.5), gpunn.Dense(3)), (4,), "float64")
    loss = loss_named("mse")
    assert names(training(model, loss, gpunn.SGD(), 7)).count("dropout") == 1
    others = [
        evaluation(model, loss, 7),
        prediction(model, 7),
        inspection(model, loss, 7),
        jacobian(model, 7),
    ]
    assert [name for other in others for name in names(other) if "dropout" in name] == []


def test_each_dropout_of_a_network_has_a_number_of_its_own():
    layers = (gpunn.Dropout(0.1), gpunn.Dense(5), gpunn.Dropout(0.0), gpunn.Dropout(0.2), gpunn.Dense(3))
    program = training(Model(layers, (4,), "float64"), loss_named("mse"), gpunn.SGD(), 7)
    told = [op.attrs for op in program.ops if op.name == "dropout"]
    assert told == [{"rate": 0.1, "layer": 0}, {"rate": 0.2, "layer": 1}]


def test_the_softmax_that_the_loss_takes_into_itself_is_not_run():
    loss = loss_named("cross_entropy")
    assert names(training(MODEL, loss, gpunn.SGD(), 7))[:4] == ["gather", "linear", "activate", "linear"]
    assert "softmax" not in names(training(MODEL, loss, gpunn.SGD(), 7))
    assert "softmax" not in names(inspection(MODEL, loss, 7))
    assert "softmax" not in names(evaluation(MODEL, loss, 7))


def test_the_softmax_that_a_metric_reads_is_run():
    program = evaluation(MODEL, loss_named("cross_entropy"), 7, metrics=metrics_named(["accuracy"]))
    assert "softmax" in names(program)


@pytest.mark.parametrize(
    ("targets", "loss_ops"),
    [
        (Targets(), ["gather", "softmax_cross_entropy_targets"]),
        (Targets(labels=True), ["gather", "softmax_cross_entropy"]),
        (Targets(weighted=True), ["gather", "gather", "softmax_cross_entropy_targets"]),
    ],
)
def test_an_evaluation_program_is_forward_cost_and_sums(targets, loss_ops):
    program = evaluation(MODEL, loss_named("cross_entropy"), 7, targets=targets)
    assert names(program) == ["gather", "linear", "activate", "linear", *loss_ops, "tally", "advance"]
    assert next(op for op in program.ops if "cross" in op.name).outs == ("loss", None)
    assert {slot.role for slot in program.slots.values()}.isdisjoint({Role.GRADIENT, Role.STATE})


def test_labels_become_rows_on_the_device_where_the_loss_reads_rows():
    program = evaluation(MODEL, loss_named("quadratic"), 7, targets=Targets(labels=True))
    at = names(program).index("one_hot")
    assert names(program)[at - 1 : at + 2] == ["gather", "one_hot", "quadratic"]
    assert program.slots[program.ops[at].outs[0]].shape == (7, 3)


def test_a_prediction_program_is_the_forward_ops_with_its_ends_pinned():
    program = prediction(MODEL, 7)
    assert names(program) == ["linear", "activate", "linear", "softmax"]
    assert program.pinned == {program.marks["x"], program.marks["output"]} == {"x", "layers.1.a"}


@pytest.mark.parametrize("loss", ["quadratic", "cross_entropy"])
def test_an_inspection_program_marks_and_pins_the_errors_and_updates_nothing(loss):
    program = inspection(MODEL, loss_named(loss), 7)
    errors = [program.marks[f"layers.{i}"] for i in (0, 1)]
    assert [program.slots[error].shape for error in errors] == [(7, 5), (7, 3)]
    assert set(errors) <= program.pinned
    written = {program.slots[slot].role for op in program.ops for slot in op.writes}
    assert written == {Role.ACTIVATION, Role.GRADIENT, Role.HYPER}


def test_an_inspection_program_marks_layers_with_parameters_only():
    layers = (gpunn.Flatten(), gpunn.Dense(5), gpunn.Activation("tanh"), gpunn.Dense(3))
    program = inspection(Model(layers, (2, 2), "float64"), loss_named("mse"), 7)
    assert sorted(mark for mark in program.marks if mark.startswith("layers.")) == ["layers.1", "layers.3"]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_jacobian_of_a_linear_layer_is_its_weights(batch):
    program = jacobian(Model((gpunn.Dense(3),), (4,), "float64"), batch)
    assert names(program) == ["linear_grad_input"]
    runner = loaded(program)
    W = np.arange(12.0).reshape(3, 4)
    runner.write("layers.0.weights", W)
    runner.write(program.marks["seed"], np.eye(3)[:batch])
    runner.write(program.marks["x"], 1.0)
    runner.run(2)
    assert runner.read(program.marks["gradient"]).tolist() == W[:batch].tolist()


def test_a_jacobian_program_holds_no_gradient_of_a_parameter():
    program = jacobian(MODEL, 3)
    assert names(program)[4:] == ["softmax_grad", "linear_grad_input", "activate_grad", "linear_grad_input"]
    assert Role.GRADIENT not in {slot.role for slot in program.slots.values()}


def test_every_variant_has_the_same_theta():
    loss = loss_named("cross_entropy")
    programs = [
        training(MODEL, loss, gpunn.Adam(), 7),
        evaluation(MODEL, loss, 1),
        prediction(MODEL, 64),
        inspection(MODEL, loss, 3),
        jacobian(MODEL, 3),
    ]
    layouts = [program.layout for program in programs]
    assert layouts == [layouts[0]] * 5


@pytest.mark.parametrize("returned", ["layers.0.output", None, ("x", "x"), ["x"], 3], ids=repr)
def test_a_layer_that_returns_no_slot_is_named(returned):
    class Lost(gpunn.Layer):
        def emit(self, program, x):
            return returned

    del gpunn.layers.LAYERS["Lost"]
    with pytest.raises(
        gpunn.ArgumentError, match=r"layer 1 Lost: emit\(\) returned .*, expected an output slot"
    ):
        Model((gpunn.Dense(3), Lost()), (4,), "float32").forward(1)


def test_a_layer_that_does_not_fit_is_named_by_its_position():
    layers = (gpunn.Dense(3), gpunn.Flatten(), gpunn.Dense(2))
    with pytest.raises(gpunn.ShapeError, match=r"layer 0 Dense: Dense takes \(B, n_in\), got \(B, 2, 2\)"):
        Model(layers, (2, 2), "float32").forward(1)


def test_an_output_that_is_no_vector_is_refused_by_the_loss():
    model = Model((gpunn.Activation("tanh"),), (2, 2), "float32")
    with pytest.raises(
        gpunn.ShapeError, match=r"output \(B, n\), the network's is .*: put a Flatten\(\) last"
    ):
        training(model, loss_named("mse"), gpunn.SGD(), 7)
