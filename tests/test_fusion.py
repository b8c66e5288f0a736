"""Ops that run as one: what is joined, what is not because it would be wrong, and that the result stays."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_program import drawn_programs, drawn_values, hyper_of

import gpunn
from gpunn import device as devices
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.backends.numpy import KERNELS, SIGMA, SIGMA_PRIME, NumpyBackend
from gpunn.fusion import Pattern
from gpunn.losses import loss_named
from gpunn.metrics import metrics_named
from gpunn.ops import HYPER, OPS, register_op
from gpunn.program import Program, Role
from gpunn.variants import Model, inspection, training

# ------------------------------------------------------------------ a backend that fuses


def kept(slot, values):
    """Write what somebody else needs too."""
    if slot is not None:
        slot[...] = values


def rows_of(X, perm, cursor, count):
    return X[perm[cursor[0] :][:count]].reshape(count, -1)


def activate(z, a, sigma):
    KERNELS["activate"](z, a, sigma=sigma, s=np.empty_like(z), mask=np.empty(z.shape, bool))


def activate_grad(y, delta, sigma):
    KERNELS["activate_grad"](y, delta, sigma=sigma, s=np.empty_like(delta))


def sgd(gradient, hyper, theta, **attrs):
    scratch = {name: np.empty_like(theta) for name in "sg"}
    KERNELS["sgd"](gradient.ravel(), hyper, theta, **attrs, **scratch)


def linear_activate(x, W, b, z, a, *, sigma):
    total = x @ W.T + b
    kept(z, total)
    activate(total, a, sigma)


def gather_linear(X, perm, cursor, W, b, x, z):
    z[...] = rows_of(X, perm, cursor, len(z)) @ W.T + b


def gather_linear_activate(X, perm, cursor, W, b, x, z, a, *, sigma):
    linear_activate(rows_of(X, perm, cursor, len(a)), W, b, z, a, sigma=sigma)


def linear_grad_input_activate_grad(delta, W, y, grad_x, *, sigma, accumulate=False):
    grad_x[...] = delta @ W + (grad_x if accumulate else 0)
    activate_grad(y, grad_x, sigma)


def quadratic_activate_grad(a, t, w, y, loss, delta, *, sigma):
    scratch = {name: np.empty(a.shape) for name in "de"}
    KERNELS["quadratic"](a, t, w, loss, delta, **scratch)
    activate_grad(y, delta, sigma)


def gather_linear_grad_weight(X, perm, cursor, delta, x, grad_W, *, accumulate=False):
    grad_W[...] = delta.T @ rows_of(X, perm, cursor, len(delta)) + (grad_W if accumulate else 0)


def linear_grad_weight_sgd(delta, x, hyper, grad_W, theta, *, accumulate=False, **attrs):
    gradient = delta.T @ x + (grad_W if accumulate else 0)
    kept(grad_W, gradient)
    sgd(gradient, hyper, theta, **attrs)


def gather_linear_grad_weight_sgd(X, perm, cursor, delta, hyper, x, grad_W, theta, **attrs):
    linear_grad_weight_sgd(rows := delta, rows_of(X, perm, cursor, len(rows)), hyper, grad_W, theta, **attrs)


def linear_grad_bias_sgd(delta, hyper, grad_b, theta, *, accumulate=False, **attrs):
    gradient = delta.sum(axis=0) + (grad_b if accumulate else 0)
    kept(grad_b, gradient)
    sgd(gradient, hyper, theta, **attrs)


def activate_add(z, v, a, y, *, sigma):
    made = np.empty_like(z)
    activate(z, made, sigma)
    kept(a, made)
    np.add(made, v, out=y)


def activate_activate(z, a, b, *, sigma):
    made = np.empty_like(z)
    activate(z, made, sigma)
    kept(a, made)
    activate(made, b, sigma)


FUSED = {
    "linear+activate": linear_activate,
    "gather+linear": gather_linear,
    "gather+linear+activate": gather_linear_activate,
    "linear_grad_input+activate_grad": linear_grad_input_activate_grad,
    "quadratic+activate_grad": quadratic_activate_grad,
    "gather+linear_grad_weight": gather_linear_grad_weight,
    "linear_grad_weight+sgd": linear_grad_weight_sgd,
    "gather+linear_grad_weight+sgd": gather_linear_grad_weight_sgd,
    "linear_grad_bias+sgd": linear_grad_bias_sgd,
    "activate+add": activate_add,
    "activate+activate": activate_activate,
}

FORWARD = Pattern("linear", "activate")
BACKWARD = Pattern("linear_grad_input", "activate_grad")
OUTPUT = Pattern("quadratic", "activate_grad")
GATHER = Pattern("gather", "linear|linear_grad_weight", into_all=True)
UPDATE_W = Pattern("linear_grad_weight", "sgd", split=True)
UPDATE_B = Pattern("linear_grad_bias", "sgd", split=True)
FIRST_LAYER = Pattern("gather+linear", "activate")
FIRST_UPDATE = Pattern("gather+linear_grad_weight", "sgd", split=True)

PATTERNS = {
    "forward": (FORWARD,),
    "backward": (BACKWARD,),
    "output": (OUTPUT,),
    "gather": (GATHER,),
    "weights": (UPDATE_W,),
    "biases": (UPDATE_B,),
    "weights, biases": (UPDATE_W, UPDATE_B),
    "biases, weights": (UPDATE_B, UPDATE_W),
    "gather, first layer": (GATHER, FIRST_LAYER),
    "gather, first update": (GATHER, FIRST_UPDATE),
    "everything": (
        GATHER,
        FIRST_LAYER,
        FORWARD,
        OUTPUT,
        BACKWARD,
        FIRST_UPDATE,
        UPDATE_W,
        UPDATE_B,
    ),
}


class FusingBackend(NumpyBackend):
    """NumPy with code for some pairs of ops."""

    def __init__(self, patterns):
        self.patterns = patterns
        self.kernels = {**KERNELS, **FUSED}


LAYERS = (gpunn.Dense(5, activation="sigmoid"), gpunn.Dense(3, activation="sigmoid"))


def step_of(layers=LAYERS, optimizer=None, **given):
    """One step of training on minibatches of four, as a program."""
    optimizer = optimizer or gpunn.SGD(lr=0.5)
    return training(Model(layers, (6,), "float64"), loss_named("quadratic"), optimizer, 4, **given)


def names(program):
    return [op.name for op in program.ops]


def op_of(program, name):
    return next(op for op in program.ops if op.name == name)


@pytest.fixture
def vocabulary():
    """Ops registered in a test are gone after it."""
    before = dict(OPS)
    yield OPS
    OPS.clear()
    OPS.update(before)


# ------------------------------------------------------------------ what is joined


@pytest.mark.parametrize(
    ("patterns", "name", "ins", "outs"),
    [
        (
            "forward",
            "linear+activate",
            ("x", "layers.0.weights", "layers.0.bias"),
            (None, "layers.0.a"),
        ),
        (
            "backward",
            "linear_grad_input+activate_grad",
            ("layers.1.delta", "layers.1.weights", "layers.0.a"),
            ("layers.0.delta",),
        ),
        (
            "output",
            "quadratic+activate_grad",
            ("layers.1.a", "t", None, "layers.1.a"),
            ("loss", "layers.1.delta"),
        ),
        (
            "gather",
            "gather+linear",
            ("X", "perm", "cursor", "layers.0.weights", "layers.0.bias"),
            (None, "layers.0.z"),
        ),
        (
            "gather",
            "gather+linear_grad_weight",
            ("X", "perm", "cursor", "layers.0.delta"),
            (None, "grad.layers.0.weights"),
        ),
        (
            "weights",
            "linear_grad_weight+sgd",
            ("layers.1.delta", "layers.0.a", "hyper"),
            (None, "theta[layers.1.weights]"),
        ),
        ("biases", "linear_grad_bias+sgd", ("layers.1.delta", "hyper"), (None, "theta[layers.1.bias]")),
        (
            "gather, first layer",
            "gather+linear+activate",
            ("X", "perm", "cursor", "layers.0.weights", "layers.0.bias"),
            (None, None, "layers.0.a"),
        ),
        (
            "gather, first update",
            "gather+linear_grad_weight+sgd",
            ("X", "perm", "cursor", "layers.0.delta", "hyper"),
            (None, None, "theta[layers.0.weights]"),
        ),
    ],
)
def test_the_joined_op_reads_and_writes_all_but_the_slot_between(patterns, name, ins, outs):
    op = op_of(step_of().fuse(PATTERNS[patterns]), name)
    assert (op.ins, op.outs) == (ins, outs)
    assert "+".join(part.name for part in op.parts) == name


@pytest.mark.parametrize("patterns", ["forward", "gather", "weights", "gather, first layer", "everything"])
def test_a_joined_op_does_not_read_what_it_makes_itself(patterns):
    fused = step_of().fuse(PATTERNS[patterns])
    assert fused.elided
    assert [op.name for op in fused.ops if op.reads & fused.elided] == []


@pytest.mark.parametrize(
    ("patterns", "elided"),
    [
        ("forward", {"layers.0.z", "layers.1.z"}),
        ("backward", set()),
        ("output", set()),
        ("gather", {"x"}),
        ("weights", {"grad.layers.0.weights", "grad.layers.1.weights"}),
        ("gather, first layer", {"x", "layers.0.z"}),
        ("gather, first update", {"x", "grad.layers.0.weights"}),
    ],
)
def test_the_slots_that_nobody_writes_any_more_are_declared(patterns, elided):
    program = step_of()
    fused = program.fuse(PATTERNS[patterns])
    assert {slot for slot in fused.elided if slot in program.slots} - {"grad", "theta"} == elided
    assert program.elided == set()
    assert elided.isdisjoint(slot for op in fused.ops for slot in (*op.ins, *op.outs))
    assert elided.isdisjoint(fused.plan().offsets)


@pytest.mark.parametrize("slot", ["x", "layers.0.z", "grad.layers.0.weights", "grad"])
@pytest.mark.parametrize("memory", [{}, {"grad": np.ones(128)}], ids=["", "another program's gradient"])
def test_a_slot_that_nobody_writes_any_more_cannot_be_read(slot, memory):
    """Not even where the gradient of another program lies in the same memory."""
    runner = FusingBackend(PATTERNS["everything"]).load(step_of(), dict(memory))
    with pytest.raises(gpunn.GpunnError, match=f"'{slot}'"):
        runner.read(slot)


@pytest.mark.parametrize("patterns", ["weights", "biases", "weights, biases", "everything"])
def test_theta_is_not_elided_because_it_is_updated_window_by_window(patterns):
    assert "theta" not in step_of().fuse(PATTERNS[patterns]).elided


@pytest.mark.parametrize("patterns", ["weights", "biases"])
def test_the_gradient_is_not_elided_while_some_of_its_windows_are_written(patterns):
    assert "grad" not in step_of().fuse(PATTERNS[patterns]).elided


def test_the_gradient_is_elided_once_every_window_is_folded():
    assert "grad" in step_of().fuse(PATTERNS["weights, biases"]).elided


def test_everything_that_can_be_joined_is():
    assert names(step_of().fuse(PATTERNS["everything"])) == [
        "gather+linear+activate",
        "linear+activate",
        "gather",
        "quadratic+activate_grad",
        "linear_grad_input+activate_grad",
        "linear_grad_weight+sgd",
        "linear_grad_bias+sgd",
        "gather+linear_grad_weight+sgd",
        "linear_grad_bias+sgd",
        "tally",
        "advance",
    ]


def test_an_update_by_window_updates_each_parameter_once():
    program = step_of().fuse(PATTERNS["weights"])
    updated = [op.outs[-1] for op in program.ops if op.name.endswith("sgd")]
    assert sorted(updated) == [
        "theta[layers.0.bias]",
        "theta[layers.0.weights]",
        "theta[layers.1.bias]",
        "theta[layers.1.weights]",
    ]


@pytest.mark.parametrize("patterns", ["weights, biases", "biases, weights", "everything"])
def test_two_patterns_that_split_an_update_split_it_once(patterns):
    program = step_of().fuse(PATTERNS[patterns])
    updated = [op.outs[-1] for op in program.ops if op.name.endswith("sgd")]
    assert sorted(updated) == sorted(set(updated))
    assert len(updated) == 4


@pytest.mark.parametrize(
    ("settings", "terms", "prefix"),
    [
        ({}, None, [0, 0, 0, 0]),
        ({"l2": 0.1}, ("l2",), [30, 15, 0, 0]),
        ({"l1": 0.1}, ("l1",), [30, 15, 0, 0]),
        ({"weight_decay": 0.1}, ("decay",), [30, 15, 0, 0]),
        ({"l1": 0.1, "l2": 0.1, "weight_decay": 0.1}, ("l1", "l2", "decay"), [30, 15, 0, 0]),
    ],
    ids=str,
)
def test_a_window_knows_how_many_of_its_elements_are_weights(settings, terms, prefix):
    program = step_of(optimizer=gpunn.SGD(**settings)).fuse(PATTERNS["weights, biases"])
    updates = {op.outs[-1]: op.attrs for op in program.ops if op.name.endswith("sgd")}
    keys = ["layers.0.weights", "layers.1.weights", "layers.0.bias", "layers.1.bias"]
    assert [updates[f"theta[{key}]"]["weights"] for key in keys] == prefix
    assert [updates[f"theta[{key}]"].get("terms") for key in keys] == [terms] * 4


@pytest.mark.parametrize("patterns", ["weights, biases", "everything"])
def test_an_update_by_a_clipped_gradient_waits_for_the_norm_of_the_whole(patterns):
    fused = names(step_of(optimizer=gpunn.SGD(clip_norm=1.0)).fuse(PATTERNS[patterns]))
    assert fused[-4:] == ["tally", "clip_by_norm", "sgd", "advance"]


def test_an_update_that_nothing_is_folded_into_stays_whole():
    program = step_of(optimizer=gpunn.Adam())
    assert program.fuse(PATTERNS["weights, biases"]).ops == program.ops


def test_the_program_that_is_fused_stays_as_it_was():
    program = step_of()
    before, slots = str(program), set(program.slots)
    program.fuse(PATTERNS["everything"])
    assert (str(program), set(program.slots)) == (before, slots)


def test_without_patterns_nothing_changes():
    program = step_of()
    assert str(program.fuse(())) == str(program)


def test_a_fused_program_can_be_fused_again():
    once, twice = step_of().fuse(PATTERNS["gather"]), PATTERNS["gather, first layer"]
    assert names(once.fuse(twice)) == names(step_of().fuse(twice))
    assert once.fuse(twice).elided == step_of().fuse(twice).elided


def test_a_joined_op_prints_both_equations_and_both_formulas():
    lines = str(step_of().fuse(PATTERNS["everything"])).splitlines()[3:]
    assert [re.split(r"\s{2,}", lines[row].strip())[1:4] for row in (0, 3, 5)] == [
        [
            "data+forward",
            "gather+linear+activate",
            "x = X[perm[cursor : cursor+B]]; z0 = x W0ᵀ + b0; a0 = sigmoid(z0)",
        ],
        [
            "loss+BP1",
            "quadratic+activate_grad",
            "C = mean ½‖a1 − t‖², ∂C/∂a = (a1 − t)/B; δ1 = δ1 ⊙ sigmoid′(a1)",
        ],
        ["BP4+update", "linear_grad_weight+sgd", "∂C/∂W1 = δ1ᵀ a0; W1 = W1 − lr g, g = ∇C[W1]"],
    ]


@pytest.mark.parametrize("patterns", list(PATTERNS))
def test_a_joined_op_has_the_label_of_its_layer(patterns):
    fused = step_of().fuse(PATTERNS[patterns])
    labels = [op.label for op in fused.ops if op.parts and not op.name.startswith("quadratic")]
    assert [label for label in labels if not label.startswith("layer ")] == []


# ------------------------------------------------------------------ what is not joined


@pytest.fixture
def square(monkeypatch):
    """An activation whose σ′ is a function of z: a = z²/2."""

    def sigma(z, a, s, mask):
        np.multiply(0.5 * z, z, out=a)

    def sigma_prime(z, delta, s):
        np.multiply(delta, z, out=delta)

    row = Activation("square", lambda z: z * z / 2, lambda z: z, "input", "a = z²/2", "a test")
    monkeypatch.setitem(ACTIVATIONS, "square", row)
    monkeypatch.setitem(SIGMA, "square", sigma)
    monkeypatch.setitem(SIGMA_PRIME, "square", sigma_prime)
    return "square"


def test_a_z_that_its_derivative_needs_is_written(square):
    layers = (gpunn.Dense(5, activation=square), gpunn.Dense(3, activation="sigmoid"))
    fused = step_of(layers=layers).fuse(PATTERNS["everything"])
    assert op_of(fused, "gather+linear+activate").outs == (None, "layers.0.z", "layers.0.a")
    assert op_of(fused, "linear+activate").outs == (None, "layers.1.a")
    assert "layers.0.z" not in fused.elided


def test_a_z_that_is_pinned_is_written():
    program = step_of()
    program.pin("layers.1.z")
    fused = program.fuse(PATTERNS["forward"])
    assert [op.outs for op in fused.ops if op.name == "linear+activate"] == [
        (None, "layers.0.a"),
        ("layers.1.z", "layers.1.a"),
    ]


def test_a_z_that_is_pinned_under_another_shape_is_written():
    program = step_of()
    program.pin(program.view("layers.1.z", (12,)))
    assert "layers.1.z" not in program.fuse(PATTERNS["forward"]).elided


def test_a_minibatch_that_is_pinned_is_gathered():
    program = step_of()
    program.pin("x")
    assert names(program.fuse(PATTERNS["gather"])) == names(program)


@pytest.mark.parametrize("pinned", ["grad.layers.1.weights", "grad"])
def test_a_gradient_that_is_pinned_is_written(pinned):
    program = step_of()
    program.pin(pinned)
    fused = program.fuse(PATTERNS["weights"])
    written = {op.outs[0] for op in fused.ops if op.name == "linear_grad_weight+sgd"}
    assert "grad.layers.1.weights" in written
    assert ("grad.layers.0.weights" in written) is (pinned == "grad")


def test_an_inspection_writes_every_gradient_and_every_error():
    program = inspection(Model(LAYERS, (6,), "float64"), loss_named("quadratic"), 4)
    fused = program.fuse(PATTERNS["everything"])
    written = {slot for op in fused.ops for slot in op.outs}
    assert {"layers.0.delta", "layers.1.delta"} <= written
    assert {f"grad.{key}" for key in program.parameters} <= written


def test_an_intermediate_that_another_op_reads_is_written():
    program = step_of(metrics=metrics_named(["accuracy"]), layers=(*LAYERS, gpunn.Activation("tanh")))
    a = program.emit("activate", ("layers.1.z",), sigma="tanh")
    program.pin(a)
    fused = program.fuse(PATTERNS["forward"])
    assert [op.outs[0] for op in fused.ops if op.name == "linear+activate"] == [None, "layers.1.z"]


def test_a_minibatch_that_an_op_without_code_for_it_reads_is_gathered():
    program = step_of(layers=(gpunn.Activation("tanh"), *LAYERS))
    assert names(program.fuse(PATTERNS["gather"])) == names(program)


def test_a_minibatch_is_gathered_where_only_some_of_its_readers_have_code():
    program = step_of()
    program.pin(program.emit("softmax", ("x",)))
    assert names(program.fuse(PATTERNS["gather"])) == names(program)


def test_a_minibatch_is_gathered_where_the_cursor_moves_before_its_last_reader():
    program = step_of()
    last = next(i for i, op in enumerate(program.ops) if op.ins[1:2] == ("x",))
    program.ops.insert(last, program.ops.pop())
    assert names(program.fuse(PATTERNS["gather"])) == names(program)


def hand_built(*slots):
    program = Program("float64")
    for name, shape, *role in slots:
        program.slot(name, shape, *(role or [Role.INPUT]))
    return program


def test_an_op_that_overwrites_the_intermediate_in_between_keeps_the_two_apart():
    program = hand_built(("delta", (4, 3)), ("W", (3, 5)), ("a", (4, 5)), ("more", (4, 5)))
    error = program.emit("linear_grad_input", ("delta", "W"))
    program.emit("copy", ("more",), {"v": error}, accumulate=True)
    program.emit("activate_grad", ("a",), {"delta": error}, sigma="tanh")
    assert names(program.fuse([BACKWARD])) == names(program)


def test_the_last_of_several_that_add_to_an_error_is_joined_and_still_adds():
    program = hand_built(("delta", (4, 3)), ("W", (3, 5)), ("V", (3, 5)), ("a", (4, 5)))
    error = program.emit("linear_grad_input", ("delta", "W"))
    program.emit("linear_grad_input", ("delta", "V"), {"grad_x": error}, accumulate=True)
    program.emit("activate_grad", ("a",), {"delta": error}, sigma="tanh")
    fused = program.fuse([BACKWARD])
    assert names(fused) == ["linear_grad_input", "linear_grad_input+activate_grad"]
    assert fused.ops[1].attrs == {"accumulate": True, "sigma": "tanh"}
    assert fused.ops[1].outs == (error,)
    assert error in fused.ops[1].reads


def test_two_ops_with_the_same_attribute_stay_apart_where_its_values_differ():
    """A joined op has one set of attributes: σ could mean either."""
    program = hand_built(("z", (4, 3)))
    a = program.emit("activate", ("z",), sigma="tanh")
    program.pin(program.emit("activate", (a,), sigma="sigmoid"))
    assert names(program.fuse([Pattern("activate", "activate")])) == ["activate", "activate"]


def test_an_intermediate_that_one_op_reads_twice_is_not_folded_into_it():
    """u + u: the joined op would have to know that both operands are the result before."""
    program = hand_built(("z", (4, 3)))
    a = program.emit("activate", ("z",), sigma="tanh")
    y = program.emit("add", (a, a))
    program.pin(y)
    runner = FusingBackend([Pattern("activate", "add")]).load(program, {})
    runner.write("z", 1.0)
    runner.run()
    np.testing.assert_allclose(runner.read(y), 2 * np.tanh(1.0))


def test_the_code_for_two_ops_can_tell_which_operand_is_the_result_between(vocabulary):
    """u − v: whether the result before is u or v has to show in the joined op, or they stay apart."""
    register_op("minus", "u(*S) v(*S) -> y(*S)", formula="{y} = {u} − {v}", numpy=np.subtract)

    def joined(order):
        program = hand_built(("z", (4, 3)), ("other", (4, 3)))
        a = program.emit("activate", ("z",), sigma="tanh")
        program.pin(program.emit("minus", {"left": (a, "other"), "right": ("other", a)}[order]))
        op = program.fuse([Pattern("activate", "minus")]).ops[-1]
        return op.name, op.ins, op.attrs

    assert joined("left") != joined("right")


def test_an_op_moves_past_none_that_writes_the_same_slot():
    program = hand_built(("x", (4, 2)), ("W", (6, 2)), ("b", (6,)), ("u", (4, 6)), ("a", (4, 6)))
    z = program.emit("linear", ("x", "W", "b"))
    program.emit("copy", ("u",), {"v": "a"})
    program.emit("activate", (z,), {"a": "a"}, sigma="tanh")
    program.pin("a")
    assert names(program.fuse([FORWARD])) == ["copy", "linear+activate"]


def test_two_ops_are_not_joined_across_a_view_of_another_shape():
    """The code for both takes z and a of one shape."""
    program = hand_built(("x", (4, 2)), ("W", (6, 2)), ("b", (6,)))
    z = program.emit("linear", ("x", "W", "b"))
    a = program.emit("activate", (program.view(z, (4, 2, 3)),), sigma="tanh")
    program.pin(a)
    runner = FusingBackend([FORWARD]).load(program, {})
    runner.write("b", 1.0)
    runner.run()
    np.testing.assert_allclose(runner.read(a), np.tanh(1.0))


# ------------------------------------------------------------------ where an update may move


def updating(order):
    """BP2, BP4, the update of W and whatever else, in that order, as a program; W is the only parameter."""
    program = hand_built(("x", (4, 5)), ("delta", (4, 3)))
    W = program.parameter("W", (3, 5), "normal")
    layout = program.lay_out_parameters()
    hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
    grad_W, grad = program.gradient(W), "grad"

    def terms(*present):
        return {"weights": layout.weights, "terms": present}

    emit = {
        "BP2": lambda: program.pin(program.emit("linear_grad_input", ("delta", W))),
        "BP4": lambda: program.emit("linear_grad_weight", ("delta", "x"), {"grad_W": grad_W}),
        "BP4 again": lambda: program.emit(
            "linear_grad_weight", ("delta", "x"), {"grad_W": grad_W}, accumulate=True
        ),
        "sgd": lambda: program.emit("sgd", (grad, hyper), {"theta": "theta"}, **terms("l1", "l2", "decay")),
        "sgd, clipped": lambda: program.emit(
            "sgd", (grad, hyper), {"theta": "theta"}, **terms("l2", "decay", "clip")
        ),
        "clip": lambda: program.emit("halve", (), {"grad": grad}),
        "clip by norm": lambda: program.emit("clip_by_norm", (grad,), {"hyper": hyper}),
        "norm": lambda: program.emit("norm", (grad,), {"norm": program.slot("n", (1,), Role.HYPER)}),
        "new lr": lambda: program.emit("lr_of_norm", (grad,), {"hyper": hyper}),
        "new delta": lambda: program.emit("copy", ("delta",), {"v": "delta"}, accumulate=True),
        "penalty": lambda: program.emit(
            "weight_penalty",
            ("theta", hyper),
            {"penalty": program.slot("p", (1,), Role.HYPER, "float64")},
            weights=layout.weights,
            terms=("l1", "l2"),
        ),
    }
    for word in re.split(r", (?!clipped)", order):
        emit[word]()
    return program


@pytest.fixture
def readers_of_the_gradient(vocabulary):
    def halve(grad):
        np.multiply(grad, 0.5, out=grad)

    def norm(grad, norm):
        norm[0] = np.sqrt(grad @ grad)

    def lr_of_norm(grad, hyper):
        hyper[0] = 1 / (1 + grad @ grad)

    register_op("halve", "-> grad(P)", formula="{grad} = {grad}/2", updates=("grad",), numpy=halve)
    register_op("norm", "grad(P) -> norm(1)", formula="{norm} = ‖{grad}‖", numpy=norm)
    register_op(
        "lr_of_norm",
        "grad(P) -> hyper(H):float64",
        formula="{hyper} = 1/(1 + ‖{grad}‖²)",
        updates=("hyper",),
        numpy=lr_of_norm,
    )


def outcome(program, fused):
    """Everything that outlives three steps."""
    runner = FusingBackend([UPDATE_W]).load(program, {}, fused=fused)
    rng = np.random.default_rng(0)
    runner.write("W", rng.standard_normal((3, 5)))
    runner.write("hyper", hyper_of(lr=0.1, l1=0.3, l2=0.2, weight_decay=0.4, clip_norm=0.5, clip_scale=1.0))
    steps = [(rng.standard_normal((4, 5)), rng.standard_normal((4, 3))) for _ in range(3)]
    for x, delta in steps:
        runner.write("x", x)
        runner.write("delta", delta)
        runner.run()
    told = ["theta", "hyper", *(s for s in ("n", "p", "grad_x") if s in program.slots)]
    return {slot: runner.read(slot) for slot in told}


@pytest.mark.parametrize(
    ("order", "ops"),
    [
        ("BP2, BP4, sgd", ["linear_grad_input", "linear_grad_weight+sgd"]),
        ("BP4, BP2, sgd", ["linear_grad_input", "linear_grad_weight+sgd"]),
        ("BP4, sgd, BP2", ["linear_grad_weight+sgd", "linear_grad_input"]),
        ("BP4, penalty, sgd", ["weight_penalty", "linear_grad_weight+sgd"]),
        ("BP4, penalty, BP2, sgd", ["weight_penalty", "linear_grad_input", "linear_grad_weight+sgd"]),
        ("BP4, clip, sgd", ["linear_grad_weight", "halve", "sgd"]),
        ("BP4, clip by norm, sgd, clipped", ["linear_grad_weight", "clip_by_norm", "sgd"]),
        ("BP4, new lr, sgd", ["linear_grad_weight", "lr_of_norm", "sgd"]),
        ("BP4, BP2, new delta, sgd", ["linear_grad_weight", "linear_grad_input", "copy", "sgd"]),
    ],
)
def test_an_update_moves_to_its_gradient_or_the_gradient_to_it_or_neither(
    readers_of_the_gradient, order, ops
):
    assert names(updating(order).fuse([UPDATE_W])) == ops


@pytest.mark.parametrize(
    "order",
    [
        "BP2, BP4, sgd",
        "BP4, BP2, sgd",
        "BP4, sgd, BP2",
        "BP4, penalty, sgd",
        "BP4, sgd, penalty",
        "BP4, penalty, BP2, sgd",
        "BP4, clip, sgd",
        "BP4, clip by norm, sgd, clipped",
        "BP4, new lr, sgd",
        "BP4, BP2, new delta, sgd",
        "BP4, new delta, BP4 again, sgd",
        "BP4, BP4 again, sgd",
        "BP4, norm, sgd",
        "BP4, sgd, norm",
        "BP4, norm, BP4 again, norm, sgd",
        "BP4, sgd, BP4 again, sgd",
    ],
)
def test_wherever_the_update_is_folded_three_steps_end_alike(readers_of_the_gradient, order):
    program = updating(order)
    apart, joined = outcome(program, fused=False), outcome(program, fused=True)
    assert [name for name in apart if not np.allclose(joined[name], apart[name], rtol=1e-12, atol=0)] == []


@pytest.mark.parametrize("order", ["BP4, norm, sgd", "BP4, sgd, norm"])
def test_a_gradient_that_another_op_reads_is_written(readers_of_the_gradient, order):
    fused = updating(order).fuse([UPDATE_W])
    assert "grad.W" in {slot for op in fused.ops for slot in op.writes}


def test_a_gradient_that_is_added_to_is_there_to_be_added_to():
    fused = updating("BP4, BP4 again, sgd").fuse([UPDATE_W])
    adding = next(op for op in fused.ops if op.attrs.get("accumulate"))
    assert "grad.W" in (*adding.ins, *adding.outs)


# ------------------------------------------------------------------ the same result


@pytest.fixture
def fusing(monkeypatch):
    """A device by name whose backend has these patterns."""

    def make(patterns):
        monkeypatch.setitem(devices.BACKENDS, "fusing", "a test")
        monkeypatch.setitem(devices._LOADED, "fusing", FusingBackend(patterns))
        return "fusing"

    return make


def trained(device, layers, optimizer, labels, dtype="float64", shape=(6,)):
    """Twenty steps of training: two epochs of nine minibatches of five and one of two."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((47, *shape))
    y = rng.integers(0, 3, 47)
    net = gpunn.Sequential(layers, input_shape=shape, device=device, dtype=dtype, seed=0)
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=optimizer, batch_size=5, metrics=["accuracy"])
    history = trainer.fit(X, y if labels else np.eye(3)[y], epochs=2, verbose=0)
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in history.records]
    assert trainer.updates == 20
    return net, records


NETWORKS = {
    "two layers": (LAYERS, (6,)),
    "images": ((gpunn.Flatten(), *LAYERS), (2, 3)),
    "one output layer": ((gpunn.Dense(3, activation="tanh"),), (6,)),
    "no activation": ((gpunn.Dense(5), gpunn.Dense(3)), (6,)),
    "an activation first": ((gpunn.Activation("tanh"), *LAYERS), (6,)),
    "one unit": ((gpunn.Dense(1, activation="tanh"), gpunn.Dense(3, activation="relu")), (6,)),
    "layers of activation": (
        (gpunn.Dense(4), gpunn.Activation("tanh"), gpunn.Activation("sigmoid"), gpunn.Dense(3)),
        (6,),
    ),
    "dropout": ((LAYERS[0], gpunn.Dropout(0.3), LAYERS[1]), (6,)),
}

UPDATES = {
    "sgd": gpunn.SGD(lr=0.05, l2=0.1),
    "every penalty": gpunn.SGD(lr=0.05, l1=0.01, l2=0.1, weight_decay=0.2),
    "clipped, scheduled": gpunn.SGD(lr=0.5, clip_norm=0.01, schedule=gpunn.Cosine(2)),
    "adam": gpunn.Adam(lr=0.1),
}


@pytest.mark.parametrize("optimizer", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("patterns", list(PATTERNS))
def test_twenty_fused_steps_are_twenty_steps(fusing, patterns, network, optimizer):
    layers, shape = NETWORKS[network]
    plain, records = trained("numpy", layers, optimizer, labels=False, shape=shape)
    fused, fused_records = trained(fusing(PATTERNS[patterns]), layers, optimizer, labels=False, shape=shape)
    np.testing.assert_allclose(fused.theta, plain.theta, rtol=1e-12, atol=1e-14)
    assert [record.keys() for record in fused_records] == [record.keys() for record in records]
    np.testing.assert_allclose(
        [list(record.values()) for record in fused_records],
        [list(record.values()) for record in records],
        rtol=1e-12,
    )


def test_twenty_fused_steps_on_labels_in_float32_are_twenty_steps(fusing):
    given = {"optimizer": gpunn.SGD(lr=0.5, momentum=0.9), "labels": True, "dtype": "float32"}
    plain, _ = trained("numpy", LAYERS, **given)
    fused, _ = trained(fusing(PATTERNS["everything"]), LAYERS, **given)
    np.testing.assert_allclose(fused.theta, plain.theta, rtol=1e-4, atol=1e-6)


def test_a_derivative_that_needs_z_is_the_same_when_fused(fusing, square):
    layers = (gpunn.Dense(5, activation=square), gpunn.Dense(3, activation=square))
    plain, _ = trained("numpy", layers, gpunn.SGD(lr=0.01), labels=False)
    fused, _ = trained(fusing(PATTERNS["everything"]), layers, gpunn.SGD(lr=0.01), labels=False)
    np.testing.assert_allclose(fused.theta, plain.theta, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, X, y: net.predict(X),
        lambda net, X, y: list(net.evaluate(X, y, loss="quadratic").values()),
        lambda net, X, y: np.concatenate([g.ravel() for g in net.gradients(X, y, loss="quadratic").values()]),
        lambda net, X, y: np.concatenate([e.ravel() for e in net.errors(X, y, loss="quadratic").values()]),
        lambda net, X, y: net.jacobian(X[0]),
    ],
    ids=["predict", "evaluate", "gradients", "errors", "jacobian"],
)
def test_what_a_network_tells_is_the_same_when_fused(fusing, ask):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((7, 6)), rng.standard_normal((7, 3))
    nets = [
        gpunn.Sequential(LAYERS, input_shape=6, device=device, dtype="float64", seed=0)
        for device in ("numpy", fusing(PATTERNS["everything"]))
    ]
    np.testing.assert_allclose(ask(nets[1], X, y), ask(nets[0], X, y), rtol=1e-12, atol=1e-15)


@settings(max_examples=150, deadline=None)
@given(
    program=drawn_programs(),
    patterns=st.lists(
        st.sampled_from([FORWARD, BACKWARD, OUTPUT, UPDATE_W, UPDATE_B]), unique=True, min_size=1
    ),
    data=st.data(),
)
def test_any_program_gives_the_same_result_when_fused(program, patterns, data):
    gpunn.SGD().emit(program)
    program.pin(
        program.marks["error of x"], *data.draw(st.sets(st.sampled_from(sorted(program.slots)), max_size=2))
    )
    runners = [FusingBackend(patterns).load(program, {}, fused=fused) for fused in (False, True)]
    for runner in runners:
        runner.write("hyper", hyper_of(lr=0.01))
        for step in range(2):
            values = drawn_values(program, step)
            values = values if step == 0 else {slot: values[slot] for slot in ("x", "t")}
            for slot, array in values.items():
                runner.write(slot, array)
            runner.run()
    told = ["loss", *({"theta"} if program.parameters else ()), *sorted(program.pinned)]
    apart, joined = ({slot: runner.read(slot) for slot in told} for runner in runners)
    wrong = [slot for slot in told if not np.allclose(joined[slot], apart[slot], rtol=1e-9, atol=1e-12)]
    assert wrong == []
