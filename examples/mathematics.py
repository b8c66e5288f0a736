"""The mathematics of deep learning: gradients, Jacobians and the matrix calculus of a neuron and a layer.

    python examples/mathematics.py [--quick] [--device cpu] [--out FOLDER]

Each part of the notes is a function here, which asks gpunn for a derivative and holds it against the closed
form. Sources: Parr and Howard, The Matrix Calculus You Need For Deep Learning (arXiv:1802.01528), sections 4
to 6; Nielsen, Neural Networks and Deep Learning, chapter 2. Where the notes stop: products with the Hessian
(Pearlmutter 1994) and the curvature along the path of gradient descent (Cohen et al. 2021, arXiv:2103.00065).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from notes import PICTURES, Row, run

import gpunn
from gpunn.data import load_digits, load_mnist
from gpunn.ops import OPS, rule

NOTES = "The mathematics of deep learning"
PARR = "Parr & Howard"
NIELSEN = "Nielsen, chapter 2"

BLUE, VERMILION, GREEN, DARK, LIGHT = "#0072b2", "#d55e00", "#009e73", "#404040", "#e4e4e4"


# ------------------------------------------------------------------ functions as networks


@contextmanager
def elementwise_ops() -> Iterator[None]:
    """gpunn has `add`; within this block also u − v, u ⊙ v, u ⊘ v and sin, each with its local derivative."""

    def subtract_adjoint(back, op):
        delta = back.error(op.outs[0])
        back.send("copy", (delta,), to=op.ins[0])
        back.send("negative", (delta,), to=op.ins[1])

    def multiply_adjoint(back, op):
        u, v = op.ins
        delta = back.error(op.outs[0])
        back.send("multiply", (delta, v), to=u)
        back.send("multiply", (delta, u), to=v)

    def divide_adjoint(back, op):
        u, v = op.ins
        delta = back.error(op.outs[0])
        back.send("divide", (delta, v), to=u)
        back.send("divide_grad", (delta, op.outs[0], v), to=v)

    def sine_adjoint(back, op):
        back.send("sine_grad", (back.error(op.outs[0]), op.ins[0]), to=op.ins[0])

    def divide_grad(delta, y, v, grad):
        np.multiply(delta, y, out=grad)
        np.divide(grad, v, out=grad)
        np.negative(grad, out=grad)

    def sine_grad(delta, x, grad):
        np.cos(x, out=grad)
        np.multiply(grad, delta, out=grad)

    two = "u(*S) v(*S) -> y(*S)"
    ops = [
        ("subtract", two, "{y} = {u} − {v}", subtract_adjoint, np.subtract),
        ("multiply", two, "{y} = {u} ⊙ {v}", multiply_adjoint, np.multiply),
        ("divide", two, "{y} = {u} ⊘ {v}", divide_adjoint, np.divide),
        ("sine", "x(*S) -> y(*S)", "{y} = sin {x}", sine_adjoint, np.sin),
        ("negative", "u(*S) -> v(*S)", "{v} = −{u}", None, np.negative),
        (
            "divide_grad",
            "delta(*S) y(*S) v(*S) -> grad(*S)",
            "{grad} = −{delta} ⊙ {y} ⊘ {v}",
            None,
            divide_grad,
        ),
        ("sine_grad", "delta(*S) x(*S) -> grad(*S)", "{grad} = {delta} ⊙ cos {x}", None, sine_grad),
    ]
    try:
        for name, signature, formula, adjoint, kernel in ops:
            # NumPy's functions take arrays of CuPy too.
            gpunn.register_op(name, signature, formula=formula, adjoint=adjoint, numpy=kernel, cuda=kernel)
        yield
    finally:
        for name, *_ in ops:
            OPS.pop(name, None)


class Formula(gpunn.Layer):
    """A layer whose forward ops come from a function (program, x) -> slot; gpunn finds its derivative."""

    def __init__(self, formula: Callable[..., str]) -> None:
        self.formula = formula

    def emit(self, program, x):
        return self.formula(program, x)


def matrix(program: Any, x: str, name: str, rows: int) -> str:
    """The slot of A x, with A a parameter of that name; the op has a bias, which stays zero."""
    A = program.parameter(name, (rows, program.slots[x].shape[1]), "zeros")
    zero = program.parameter(f"{name} bias", (rows,), "zeros", weight=False)
    return program.emit("linear", (x, A, zero))


def network(formula: Callable[..., str], inputs: int, device: str, **matrices: Any) -> gpunn.Sequential:
    """The formula as a network in float64, with these matrices in it."""
    net = gpunn.Sequential([Formula(formula)], input_shape=inputs, dtype="float64", device=device, seed=0)
    for name, values in matrices.items():
        net.parameters[f"layers.0.{name}"] = values
    return net


def differences(net: gpunn.Sequential, x: Sequence[float], h: float = 1e-5) -> np.ndarray:
    """The Jacobian at x by central differences: column j is (f(x + h eⱼ) − f(x − h eⱼ))/2h."""
    steps = h * np.eye(len(x))
    return (np.asarray(net.predict(x + steps)) - np.asarray(net.predict(x - steps))).T / (2 * h)


# ------------------------------------------------------------------ gradients and Jacobians


def example_jacobian(x: float, y: float, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """F(x, y) = (2x + y³, eʸ − 13x) and its Jacobian by backpropagation, and by central differences.

    F(v) = A v + B (v ⊙ v ⊙ v) + E eᵛ with v = (x, y): three linear maps, a cube and an exponential.
    """

    def F(program, v):
        cubes = program.emit("multiply", (program.emit("multiply", (v, v)), v))
        powers = program.emit("activate", (v,), sigma="exp")
        polynomial = program.emit("add", (matrix(program, v, "A", 2), matrix(program, cubes, "B", 2)))
        return program.emit("add", (polynomial, matrix(program, powers, "E", 2)))

    with elementwise_ops():
        net = network(F, 2, device, A=[[2, 0], [-13, 0]], B=[[0, 1], [0, 0]], E=[[0, 0], [0, 1]])
        return net.jacobian([x, y]), differences(net, [x, y])


def jacobian_rows(device: str) -> list[Row]:
    rows = []
    for x, y in ((1.0, 0.0), (4.0, 2.0)):
        found, measured = example_jacobian(x, y, device)
        closed = [[2, 3 * y**2], [-13, np.exp(y)]]
        rows.append(
            Row(NOTES, f"Jacobian of (2x + y³, eʸ − 13x) at ({x:g}, {y:g})", text(closed), text(found))
        )
    gap = np.abs(found - measured).max()
    rows.append(Row(NOTES, "  and by central differences: largest gap", 0.0, float(gap), 1e-8))
    return rows


# ------------------------------------------------------------------ the chain rules


def sine_of_square(program, x):
    """y = sin u with u = x²."""
    return program.emit("sine", (program.emit("multiply", (x, x)),))


def number_plus_square(program, x):
    """y = x + u with u = x²: x reaches y on two ways, and the total derivative is their sum."""
    return program.emit("add", (x, program.emit("multiply", (x, x))))


def two_networks(device: str = "cpu") -> tuple[gpunn.Sequential, gpunn.Sequential, gpunn.Sequential]:
    """f: R⁴ → R⁵, g: R⁵ → R³, and g∘f, which is the layers of both one after the other."""
    f = [gpunn.Dense(6, "tanh", "normal"), gpunn.Dense(5, "silu", "normal")]
    g = [gpunn.Dense(6, "sigmoid", "normal"), gpunn.Dense(3, "identity", "normal")]
    given = {"dtype": "float64", "device": device}
    inner = gpunn.Sequential(f, input_shape=4, seed=1, **given)
    outer = gpunn.Sequential(g, input_shape=5, seed=2, **given)
    both = gpunn.Sequential([*f, *g], input_shape=4, **given)
    both.theta = np.concatenate([inner.theta, outer.theta])
    return inner, outer, both


def chain_rule(device: str = "cpu") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Jacobians of f at x, of g at f(x), and of g∘f at x."""
    inner, outer, both = two_networks(device)
    x = np.array([0.2, -0.4, 0.3, 0.1])
    return inner.jacobian(x), outer.jacobian(inner.predict(x[None])[0]), both.jacobian(x)


def chain_rule_rows(device: str) -> list[Row]:
    x = 1.5
    with elementwise_ops():
        of_sine = network(sine_of_square, 1, device).jacobian([x]).item()
        total = network(number_plus_square, 1, device).jacobian([x]).item()
    jf, jg, jgf = chain_rule(device)
    gap = np.abs(jg @ jf - jgf).max()
    return [
        Row(f"{PARR}, 4.5.1", f"d sin(x²)/dx = 2x cos x² at {x}", 2 * x * np.cos(x**2), of_sine, 1e-14),
        Row(f"{PARR}, 4.5.2", f"d(x + x²)/dx = 1 + 2x at {x}, a sum over two ways", 1 + 2 * x, total),
        Row(f"{PARR}, 4.5.3", "largest gap of J(g∘f) − J(g) J(f), two networks", 0.0, float(gap), 1e-14),
    ]


# ------------------------------------------------------------------ elementwise operations, expansion, sum

#: The point (w, x) at which the elementwise operations are differentiated.
W, X = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, -2.0, -1.0])

#: What the notes give for ∂(w ⊕ x)/∂w and ∂(w ⊕ x)/∂x: always diagonal.
ELEMENTWISE = {
    "add": ("w + x", np.eye(4), np.eye(4)),
    "subtract": ("w − x", np.eye(4), -np.eye(4)),
    "multiply": ("w ⊙ x", np.diag(X), np.diag(W)),
    "divide": ("w ⊘ x", np.diag(1 / X), np.diag(-W / X**2)),
}


def pair(op: str, left: Any, right: Any) -> tuple[Callable[..., str], dict[str, Any]]:
    """The formula (L v) ⊕ (R v) and its matrices: L and R pick out of v what the operation works on."""

    def formula(program, v):
        ends = matrix(program, v, "L", len(left)), matrix(program, v, "R", len(right))
        return program.emit(op, ends)

    return formula, {"L": left, "R": right}


def elementwise_jacobian(op: str, device: str = "cpu") -> np.ndarray:
    """[∂(w ⊕ x)/∂w | ∂(w ⊕ x)/∂x] at (W, X), (4, 8); within :func:`elementwise_ops`."""
    formula, matrices = pair(op, np.eye(4, 8), np.eye(4, 8, 4))
    return network(formula, 8, device, **matrices).jacobian(np.concatenate([W, X]))


def expansion_jacobian(op: str, z: float, device: str = "cpu") -> np.ndarray:
    """[∂(x ⊕ 1⃗ z)/∂x | ∂(x ⊕ 1⃗ z)/∂z] at X, (4, 5): the scalar z is expanded by a column of ones."""
    ones = np.hstack([np.zeros((4, 4)), np.ones((4, 1))])
    formula, matrices = pair(op, np.eye(4, 5), ones)
    return network(formula, 5, device, **matrices).jacobian([*X, z])


def sum_jacobian(device: str = "cpu") -> np.ndarray:
    """∂Σx/∂x at X, (1, 4): a sum is a neuron whose weights are all one."""
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=4, dtype="float64", device=device, seed=0)
    net.theta = [1, 1, 1, 1, 0]
    return net.jacobian(X)


def elementwise_rows(device: str) -> list[Row]:
    rows = []
    with elementwise_ops():
        for op, (name, by_w, by_x) in ELEMENTWISE.items():
            gap = np.abs(elementwise_jacobian(op, device) - np.hstack([by_w, by_x])).max()
            what = f"[∂/∂w | ∂/∂x] of {name} against its diagonals: largest gap"
            rows.append(Row(f"{PARR}, 4.2", what, 0.0, float(gap), 1e-15))
        plus, times = (expansion_jacobian(op, 3.0, device) for op in ("add", "multiply"))
    source = f"{PARR}, 4.3"
    rows += [
        Row(source, "∂(x + z)/∂x = I: largest gap", 0.0, apart(plus[:, :4], np.eye(4)), 1e-15),
        Row(source, "∂(x + z)/∂z = 1⃗", text(np.ones(4)), text(plus[:, 4])),
        Row(source, "∂(xz)/∂x = I z, z = 3: largest gap", 0.0, apart(times[:, :4], 3 * np.eye(4)), 1e-15),
        Row(source, "∂(xz)/∂z = x", text(X), text(times[:, 4])),
        Row(f"{PARR}, 4.4", "∂Σx/∂x = 1⃗ᵀ", text(np.ones((1, 4))), text(sum_jacobian(device))),
    ]
    return rows


# ------------------------------------------------------------------ a neuron and its cost


def neuron(device: str = "cpu") -> gpunn.Sequential:
    """a = max(0, w·x + b) with w = (2, −1) and b = 1."""
    net = gpunn.Sequential(
        [gpunn.Dense(1, activation="relu")], input_shape=2, dtype="float64", device=device, seed=0
    )
    net.theta = [2, -1, 1]
    return net


def parameter_jacobian(net: gpunn.Sequential, x: Sequence[float]) -> np.ndarray:
    """∂a/∂Θ at one example, a row an output, in the order of net.theta.

    With the target t = a − eᵢ the quadratic cost has ∂C/∂a = a − t = eᵢ: the gradient of C is that of aᵢ.
    """
    a = net.predict([x])[0]
    found = [net.gradients([x], [a - e], loss="quadratic") for e in np.eye(len(a))]
    return np.array([np.concatenate([part.ravel() for part in gradient.values()]) for gradient in found])


#: Four examples whose numbers come out even: the neuron gives 2, 0 (not active), 4 and 3.
EXAMPLES = np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 1.0], [1.0, 0.0]])
TARGETS = np.array([1.0, 3.0, 6.0, 3.0])


def cost_gradient(net: gpunn.Sequential, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """∂C/∂w and ∂C/∂b of C = 1/N Σ (y − max(0, w·x + b))² in closed form, in one vector.

    2/N Σ (w·x + b − y) xᵀ over the active examples, and the same sum without xᵀ.
    """
    *w, b = net.theta
    z = X @ w + b
    active = z > 0
    e = np.where(active, z - y, 0.0)
    return 2 / len(X) * np.array([*(e @ X), e.sum()])


def neuron_rows(device: str) -> list[Row]:
    net = neuron(device)
    rng = np.random.default_rng(0)
    many = rng.standard_normal((1000, 2)), rng.standard_normal(1000)
    few = net.gradients(EXAMPLES, TARGETS, loss="mse")
    mine = np.concatenate([part.ravel() for part in net.gradients(*many, loss="mse").values()])
    gap = np.abs(mine - cost_gradient(net, *many)).max()
    return [
        Row(f"{PARR}, 5", "∂a/∂(w, b) = (xᵀ, 1) where w·x + b > 0, x = (3, 4)", "[[3, 4, 1]]",
            text(parameter_jacobian(net, [3, 4]))),
        Row(f"{PARR}, 5", "∂a/∂(w, b) = 0 where w·x + b ≤ 0, x = (1, 4)", "[[0, 0, 0]]",
            text(parameter_jacobian(net, [1, 4]))),
        Row(f"{PARR}, 6.1", "∂C/∂w of four examples, ½ ((1, 1) − 2 (2, 1))", "[[-1.5, -0.5]]",
            text(few["layers.0.weights"])),
        Row(f"{PARR}, 6.2", "∂C/∂b of four examples, ½ (1 − 2)", "[-0.5]", text(few["layers.0.bias"])),
        Row(f"{PARR}, 6", "2/N Σ (w·x + b − y) xᵀ on 1,000 examples: largest gap", 0.0, float(gap), 1e-14),
    ]  # fmt: skip


# ------------------------------------------------------------------ a layer, and Θ


def layer(activation: str, device: str = "cpu") -> gpunn.Sequential:
    """σ(W x + b) with W = [[5, 2], [3, 6]] and b = (−2, log 3)."""
    net = gpunn.Sequential(
        [gpunn.Dense(2, activation=activation)], input_shape=2, dtype="float64", device=device, seed=0
    )
    net.parameters["layers.0.weights"] = [[5, 2], [3, 6]]
    net.parameters["layers.0.bias"] = [-2, np.log(3)]
    return net


def layer_rows(device: str) -> list[Row]:
    """At x = (½, −¼): z = (0, log 3), so a = (½, ¾) and σ′(z) = (¼, 3/16)."""
    x = [0.5, -0.25]
    linear = layer("identity", device)
    by_theta = [[0.5, -0.25, 0, 0, 1, 0], [0, 0, 0.5, -0.25, 0, 1]]
    return [
        Row(NOTES, "∂z/∂x of z = Wx + b is W", "[[5, 2], [3, 6]]", text(linear.jacobian(x))),
        Row(NOTES, "∂z/∂(W, b): xᵀ in the row of its neuron, and I", text(by_theta),
            text(parameter_jacobian(linear, x))),
        Row(NOTES, "∂σ(z)/∂x = diag(σ′(z)) W, sigmoid", text([[5 / 4, 2 / 4], [9 / 16, 18 / 16]]),
            text(layer("sigmoid", device).jacobian(x))),
    ]  # fmt: skip


def offsets(net: gpunn.Sequential) -> dict[str, tuple[int, int]]:
    """Where each parameter lies in net.theta: key to (first, last + 1)."""
    found, at = {}, 0
    for key, values in net.tensors().items():
        found[key] = (at, at + values.size)
        at += values.size
    return found


def theta_rows(device: str) -> list[Row]:
    net = gpunn.Sequential(
        [gpunn.Dense(3, activation="tanh"), gpunn.Dense(1)], input_shape=2, device=device, seed=0
    )
    net.theta = range(13)
    places = ", ".join(f"{low}–{high - 1}" for low, high in offsets(net).values())
    weights = net.tensors()["layers.0.weights"]
    net.parameters["layers.1.bias"] = [-1]
    return [
        Row(NOTES, "Θ of 2-3-1: places of W0, b0, W1, b1", "0–5, 6–8, 9–11, 12–12", places),
        Row(NOTES, "W0 after Θ = (0, 1, 2, …): row by row", "[[0, 1], [2, 3], [4, 5]]", text(weights)),
        Row(NOTES, "Θ's last entry after b1 = −1", -1.0, float(net.theta[-1])),
        Row(NIELSEN, "parameters of 784-30-10", 23_860, int(book_network(30, device).theta.size)),
    ]


# ------------------------------------------------------------------ minibatches


def updates_of_an_epoch(examples: int, batch: int, device: str = "cpu") -> tuple[int, int]:
    """How many updates a Trainer makes in an epoch, and how many examples are in the last."""
    X, y = np.zeros((2, examples, 1), np.float32)
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, device=device, seed=0)
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=0.1), batch_size=batch)
    before = trainer.epoch(X, y, shuffle=False, steps=examples // batch)
    whole = trainer.epoch(X, y, shuffle=False)
    return whole["updates"], whole["samples"] - before["samples"]


def update_rows(device: str) -> list[Row]:
    updates, last = updates_of_an_epoch(1_000_000, 120, device)
    return [
        Row(NOTES, "updates an epoch, 1,000,000 examples in batches of 120", 8334, updates),
        Row(NOTES, "  examples in the last of them", 40, last),
    ]


# ------------------------------------------------------------------ forward or backward


def book_network(
    hidden: int, device: str = "cpu", inputs: int = 784, dtype: str = "float32"
) -> gpunn.Sequential:
    """784-hidden-10 sigmoid, as in the book."""
    sigmoid = {"activation": "sigmoid", "weights": "lecun_normal", "bias": "normal"}
    return gpunn.Sequential(
        [gpunn.Dense(hidden, **sigmoid), gpunn.Dense(10, **sigmoid)],
        input_shape=inputs, device=device, dtype=dtype, seed=0,
    )  # fmt: skip


def multiplications(net: gpunn.Sequential) -> dict[str, int]:
    """Multiplications for ∇C of one example, from the shapes of the ops in the program.

    Counted are the products with weights, activations and σ′; not σ itself, nor the update.
    ``"forward"``: the values alone. ``"backpropagation"``: a forward pass and a backward pass.
    ``"differences"``: a forward pass with each parameter moved, and one with none.
    ``"forward mode"``: the values once, then for each parameter its own derivative carried to the cost,
    without multiplications by what is known to be zero.
    """
    program = net.program(loss="quadratic", batch_size=1)

    def size(op):
        shapes = [program.slots[slot].shape for slot in (*op.ins, *op.outs)]
        return int(np.prod(list(rule(op.name).sizes(shapes, op.attrs).values())))

    products = ("linear", "linear_grad_input", "linear_grad_weight", "activate_grad")
    counts = {name: sum(size(op) for op in program.ops if op.name == name) for name in products}
    forward = counts["linear"]

    def onward(ops, alive):
        """Carry a derivative of which ``alive`` entries are not zero through these ops, up to the cost."""
        spent = 0
        for op in ops:
            if op.name == "linear":
                units = program.slots[op.outs[0]].shape[1]
                spent, alive = spent + alive * units, units
            elif op.name in ("activate", "quadratic"):
                spent += alive
        return spent

    path = [op for op in program.ops if op.name in ("linear", "activate", "quadratic")]
    each = 0
    for at, op in enumerate(path):
        if op.name == "linear":
            parameters = sum(program.slots[slot].size for slot in op.ins[1:])
            each += parameters * onward(path[at + 1 :], alive=1)
    return {
        "forward": forward,
        "backpropagation": sum(counts.values()),
        "forward mode": forward + each,
        "differences": (net.theta.size + 1) * forward,
    }


def gradient_by_differences(
    net: gpunn.Sequential, X: Any, y: Any, step: float = 1e-6
) -> tuple[np.ndarray, int]:
    """∂C/∂θⱼ ≈ (C(θ + h eⱼ) − C(θ))/h for every parameter, and how many forward passes that took."""
    passes = 0

    def cost(theta):
        nonlocal passes
        passes += 1
        net.theta = theta
        return net.evaluate(X, y, loss="quadratic")["loss"]

    theta = net.theta
    here = cost(theta)
    found = np.empty_like(theta)
    for j in range(theta.size):
        moved = theta.copy()
        moved[j] += step
        found[j] = (cost(moved) - here) / step
    net.theta = theta
    return found, passes


def forward_or_backward_rows(device: str) -> list[Row]:
    book = multiplications(book_network(30, device))
    small = gpunn.Sequential(
        [gpunn.Dense(3, activation="sigmoid"), gpunn.Dense(2, activation="sigmoid")],
        input_shape=4, dtype="float64", device=device, seed=0,
    )  # fmt: skip
    x, y = [[0.5, -1.0, 2.0, 1.0]], [[0.0, 1.0]]
    found, passes = gradient_by_differences(small, x, y)
    exact = np.concatenate([part.ravel() for part in small.gradients(x, y, loss="quadratic").values()])
    ratio = book["backpropagation"] / book["forward"]
    by_mode = 23_550 * (1 + 10 + 10 + 10) + 310 * 2 + 23_820
    by_differences = 23_861 * 23_820
    return [
        Row(NOTES, "multiplications of a forward pass, 784-30-10", 784 * 30 + 30 * 10, book["forward"]),
        Row(NOTES, "  forward and backward: 2 · 23,820 + 10 · 30 + 40", 47_980, book["backpropagation"]),
        Row(NIELSEN, "  that is, in forward passes: about two", 2.0, ratio, 0.015),
        Row(NOTES, "  forward mode: 23,550 · 31 + 310 · 2 + 23,820", by_mode, book["forward mode"]),
        Row(NIELSEN, "  differences: 23,861 · 23,820", by_differences, book["differences"]),
        Row(NIELSEN, "forward passes for ∇C by differences, 4-3-2, 23 parameters", 24, passes),
        Row(NIELSEN, "  largest gap to backpropagation", 0.0, float(np.abs(found - exact).max()), 1e-7),
    ]  # fmt: skip


def measured_costs(widths: Sequence[int], device: str) -> list[dict[str, float]]:
    """Seconds for ∇C of one example by backpropagation and by differences, 64-width-10."""
    digits = load_digits()
    x, y = digits.train.X[:1], digits.train.y[:1]
    found = []
    for width in widths:
        net = book_network(width, device, inputs=64, dtype="float64")
        net.gradients(x, y, loss="quadratic")
        net.evaluate(x, y, loss="quadratic")
        clock = [time.perf_counter()]
        for _ in range(21):
            net.gradients(x, y, loss="quadratic")
            clock.append(time.perf_counter())
        _, passes = gradient_by_differences(net, x, y)
        backward, forward = float(np.median(np.diff(clock))), time.perf_counter() - clock[-1]
        found.append({"width": width, "parameters": net.theta.size, "passes": passes,
                      "backpropagation": backward, "differences": forward})  # fmt: skip
    return found


# ------------------------------------------------------------------ the error of a node


def demon(net: gpunn.Sequential, x: Any, y: Any, layer: int, unit: int, change: float) -> float:
    """C(z + Δ) − C(z) where Δ is added to the z of one neuron, for one example, through the neuron's bias."""
    key = f"layers.{layer}.bias"
    bias = net.tensors()[key]
    before = net.evaluate(x, y, loss="quadratic")["loss"]
    net.parameters[key] = bias + change * np.eye(len(bias))[unit]
    after = net.evaluate(x, y, loss="quadratic")["loss"]
    net.parameters[key] = bias
    return after - before


def errors_by_demon(net: gpunn.Sequential, x: Any, y: Any, step: float = 1e-5) -> dict[str, np.ndarray]:
    """δ of every neuron, measured: the change of C for ±Δ, over 2Δ."""
    found = {}
    for at, key in enumerate(net.errors(x, y, loss="quadratic")):
        units = net.tensors()[f"{key}.bias"].size
        both = [[demon(net, x, y, at, j, sign * step) for sign in (1, -1)] for j in range(units)]
        found[key] = np.array([(up - down) / (2 * step) for up, down in both])
    return found


def four_equations(net: gpunn.Sequential, X: np.ndarray, T: np.ndarray) -> dict[str, list[np.ndarray]]:
    """BP1 to BP4 by hand, in NumPy: a sigmoid network with the quadratic cost, from the forward quantities.

    C is a mean over the examples, so ∇ₐC is (a − t)/n. One entry a layer, from the first to the last.
    """
    values = net.tensors()
    layers = [(values[f"layers.{i}.weights"], values[f"layers.{i}.bias"]) for i in range(len(net.layers))]
    a, z = [X], []
    for W, b in layers:
        z.append(a[-1] @ W.T + b)
        a.append(1 / (1 + np.exp(-z[-1])))
    prime = [s * (1 - s) for s in a[1:]]
    delta = [(a[-1] - T) / len(X) * prime[-1]]
    for (W, _), slope in zip(layers[:0:-1], prime[-2::-1], strict=True):
        delta.insert(0, delta[0] @ W * slope)
    return {
        "BP1": delta[-1:],
        "BP2": delta[:-1],
        "BP3": [d.sum(axis=0) for d in delta],
        "BP4": [d.T @ below for d, below in zip(delta, a, strict=False)],
    }


def backpropagation_rows(device: str) -> list[Row]:
    sigmoids = [gpunn.Dense(n, activation="sigmoid") for n in (4, 3, 2)]
    net = gpunn.Sequential(sigmoids, input_shape=5, dtype="float64", device=device, seed=0)
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((7, 5)), rng.random((7, 2))
    errors = list(net.errors(X, T, loss="quadratic").values())
    gradients = net.gradients(X, T, loss="quadratic")
    by_gpunn = {
        "BP1": errors[-1:],
        "BP2": errors[:-1],
        "BP3": [gradients[f"layers.{i}.bias"] for i in range(3)],
        "BP4": [gradients[f"layers.{i}.weights"] for i in range(3)],
    }
    by_hand = four_equations(net, X, T)
    one = X[:1], T[:1]
    exact, measured = net.errors(*one, loss="quadratic"), errors_by_demon(net, *one)
    what = {
        "BP1": "δᴸ = ∇ₐC ⊙ σ′(zᴸ)",
        "BP2": "δˡ = ((Wˡ⁺¹)ᵀ δˡ⁺¹) ⊙ σ′(zˡ)",
        "BP3": "∂C/∂b = δ",
        "BP4": "∂C/∂W = δ aᵀ",
    }
    return [
        *(
            Row(f"{NIELSEN}, {name}", f"{formula} by hand: largest gap", 0.0,
                apart(by_hand[name], by_gpunn[name]), 1e-15)
            for name, formula in what.items()
        ),
        Row(NIELSEN, "δ = ∂C/∂z by adding Δ to each z, 5-4-3-2: largest gap", 0.0,
            apart(exact.values(), measured.values()), 1e-10),
    ]  # fmt: skip


# ------------------------------------------------------------------ curvature


def hessian_vector(
    net: gpunn.Sequential, X: Any, y: Any, loss: str = "quadratic", step: float = 1e-4
) -> Callable[[np.ndarray], np.ndarray]:
    """v ↦ H v at the network's present Θ: (∇C(θ + εv) − ∇C(θ − εv))/2ε, two gradients and no matrix.

    ε is ``step``/‖v‖. The network has to be in float64: the difference of two gradients has few digits left.
    """
    objective = net.objective(X, y, loss=loss)
    theta = net.theta

    def product(v):
        epsilon = step / np.linalg.norm(v)
        up, down = (objective(theta + sign * epsilon * v.ravel())[1] for sign in (1, -1))
        net.theta = theta
        return (up - down) / (2 * epsilon)

    return product


def sharpness(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, tol: float = 1e-3
) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of H and its eigenvector by Lanczos, from products H v alone."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator((start.size, start.size), matvec=product, dtype=float)
    values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tol)
    return float(values[0]), vectors[:, 0]


def linear_hessian(X: np.ndarray, outputs: int) -> np.ndarray:
    """H of the quadratic cost of z = W x + b, in the order of net.theta.

    Each neuron has 1/n Σ x̃ x̃ᵀ with x̃ = (x, 1), and no two neurons have anything to do with each other.
    """
    each, squares, mean = np.eye(outputs), X.T @ X / len(X), X.mean(axis=0, keepdims=True)
    return np.block([[np.kron(each, squares), np.kron(each, mean.T)], [np.kron(each, mean), each]])


def hessian_rows(device: str) -> list[Row]:
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((50, 4)) + 0.5, rng.standard_normal((50, 3))
    net = gpunn.Sequential([gpunn.Dense(3)], input_shape=4, dtype="float64", device=device, seed=0)
    H, product = linear_hessian(X, 3), hessian_vector(net, X, T)
    v = rng.standard_normal(len(H))
    largest, _ = sharpness(product, v, tol=1e-12)
    d = np.concatenate([part.ravel() for part in net.gradients(X, T, loss="quadratic").values()])
    highest = float(np.linalg.eigvalsh(H)[-1])
    source = "Pearlmutter 1994"
    return [
        Row(source, "H v of a linear network by two gradients: largest gap", 0.0,
            float(np.abs(product(v) - H @ v).max()), 1e-9),
        Row(source, "  largest eigenvalue of its H, by Lanczos", highest, largest, 1e-9),
        Row(source, "  curvature along d = −∇C: dᵀHd/‖d‖²", float(d @ H @ d / (d @ d)),
            float(d @ product(d) / (d @ d)), 1e-9),
    ]  # fmt: skip


def descend(lr: float, steps: int, every: int, device: str) -> dict[str, np.ndarray]:
    """Gradient descent on 200 digits at once, 64-16-10 tanh: the cost at each step, the curvature at some."""
    digits = load_digits()
    X, y = digits.train.X[:200], digits.train.y[:200]
    X = X - X.mean(axis=0)
    net = gpunn.Sequential(
        [gpunn.Dense(16, activation="tanh"), gpunn.Dense(10)],
        input_shape=64, dtype="float64", device=device, seed=1,
    )  # fmt: skip
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=lr), batch_size=len(X))
    top = np.random.default_rng(0).standard_normal(net.theta.size)
    found: dict[str, list[float]] = {"step": [], "sharpness": [], "along d": [], "cost": []}
    for step in range(0, steps, every):
        product = hessian_vector(net, X, y)
        largest, top = sharpness(product, top)
        d = -np.concatenate([part.ravel() for part in net.gradients(X, y, loss="quadratic").values()])
        found["step"].append(step)
        found["sharpness"].append(largest)
        found["along d"].append(float(d @ product(d) / (d @ d)))
        found["cost"] += [trainer.epoch(X, y, shuffle=False)["loss"] for _ in range(every)]
    return {key: np.array(values) for key, values in found.items()}


# ------------------------------------------------------------------ numbers


def text(values: Any) -> str:
    """A matrix as people write it, to ten digits."""
    values = np.asarray(values, float)
    if values.ndim == 0:
        return f"{values + 0.0:.10g}"
    return "[" + ", ".join(text(part) for part in values) + "]"


def apart(some: Any, others: Any) -> float:
    """The largest difference between two lists of arrays."""
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


def numbers(device: str = "cpu") -> list[Row]:
    """What the notes state, and the same from gpunn."""
    return [
        *jacobian_rows(device),
        *chain_rule_rows(device),
        *elementwise_rows(device),
        *neuron_rows(device),
        *layer_rows(device),
        *theta_rows(device),
        *update_rows(device),
        *forward_or_backward_rows(device),
        *backpropagation_rows(device),
        *hessian_rows(device),
    ]


# ------------------------------------------------------------------ pictures


def panels(across: int, down: int, width: float, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    """A white figure, in inches, and its axes in a grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, **options)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color("#b0b0b0")
        each.tick_params(which="both", labelsize=9, color="#b0b0b0", labelcolor=DARK)
        each.grid(color=LIGHT, linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes


def finish(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=11.5, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path)


def heat_map(axes: Any, values: np.ndarray, title: str, digits: str = ".3g", scale: float = 0.0) -> None:
    """A matrix as coloured cells with its numbers in them: vermilion below 0, white at 0, blue above."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signed", [VERMILION, "white", BLUE])
    limit = 1.8 * (scale or float(np.abs(values).max()))
    axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit)
    for (i, j), value in np.ndenumerate(values):
        shown = f"{round(value, 2) + 0.0:{digits}}".replace("-", "−")
        axes.text(j, i, shown, ha="center", va="center", fontsize=8.5, color=DARK if value else "#b0b0b0")
    axes.set_title(title, fontsize=10, color=DARK)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#b0b0b0")
    axes.grid(visible=False)


def elementwise_picture(path: Path, device: str) -> None:
    """The Jacobians of the elementwise operations: found by gpunn, beside the diagonals of the notes."""
    figure, axes = panels(2, 4, 7.6, 7.8)
    closed_form = {
        "add": "[ I | I ]",
        "subtract": "[ I | −I ]",
        "multiply": "[ diag x | diag w ]",
        "divide": "[ diag 1/x | diag −w/x² ]",
    }
    with elementwise_ops():
        for row, (op, (name, by_w, by_x)) in zip(axes, ELEMENTWISE.items(), strict=True):
            heat_map(row[0], elementwise_jacobian(op, device), f"{name}: by backpropagation")
            heat_map(row[1], np.hstack([by_w, by_x]), f"the notes: {closed_form[op]}")
            for each in row:
                each.axvline(3.5, color=DARK, linewidth=1)
    for each in axes[-1]:
        each.set_xticks([1.5, 5.5], ["∂/∂w", "∂/∂x"], fontsize=10)
        each.tick_params(length=0)
    point = f"at w = ({', '.join(f'{v:g}' for v in W)}), x = ({', '.join(f'{v:g}' for v in X)})"
    figure.supxlabel(point.replace("-", "−"), fontsize=10, color=DARK)
    finish(figure, "Elementwise operations have diagonal Jacobians", path)


def chain_picture(path: Path, device: str) -> None:
    """J(g) times J(f) is J(g∘f)."""
    jf, jg, both = chain_rule(device)
    figure, axes = panels(3, 1, 9.0, 3.2, width_ratios=[5, 4, 4])
    scale = max(float(np.abs(part).max()) for part in (jg, jf, both))
    parts = ((jg, "∂g/∂f at f(x)"), (jf, "∂f/∂x at x"), (both, "∂(g∘f)/∂x of both as one network"))
    for each, (values, name), sign in zip(axes[0], parts, ("×", "=", ""), strict=True):
        heat_map(each, values, name, ".2f", scale)
        each.set_xlabel("{} × {}".format(*values.shape), fontsize=9.5, color=DARK)
        each.annotate(sign, (1, 0.5), (13, 0), xycoords="axes fraction", textcoords="offset points",
                      fontsize=16, color=DARK, ha="center", va="center")  # fmt: skip
    finish(figure, "The chain rule for vectors: Jacobians multiply", path)


def neuron_picture(path: Path, device: str) -> None:
    """∂a/∂w over the plane of x, and the gradient of a cost as a walk along the examples."""
    net = neuron(device)
    figure, axes = panels(2, 1, 8.8, 4.7)
    left, right = axes[0]
    ticks = np.linspace(-2, 2, 9)
    grid = np.array([(p, q) for p in ticks for q in ticks])
    slopes = np.array([parameter_jacobian(net, x)[0] for x in grid])
    active = slopes[:, 2] > 0
    edge = np.array([-2.4, 2.4])
    left.grid(visible=False)
    left.fill_between(edge, 2 * edge + 1, -2.4, color="#fbe9dc", linewidth=0)
    left.plot(edge, 2 * edge + 1, color=DARK, linewidth=1.2, label="w·x + b = 0")
    left.plot(*grid[~active].T, ".", color=BLUE, markersize=5, label="0, not active")
    left.quiver(*grid[active].T, *slopes[active, :2].T, angles="xy", scale_units="xy", scale=6, width=0.007,
                color=VERMILION)  # fmt: skip
    left.plot([], [], color=VERMILION, marker=">", markersize=5, label="xᵀ, active")
    left.set(xlim=edge, ylim=edge, aspect="equal", xlabel="x₁", ylabel="x₂")
    left.legend(fontsize=9, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    left.set_title("∂a/∂w at each x, w = (2, −1), b = 1", fontsize=10, color=DARK)

    rng = np.random.default_rng(42)
    X, y = rng.uniform(-2, 2, (9, 2)), rng.uniform(0, 3, 9)
    parts = np.array([cost_gradient(net, x[None], t[None])[:2] / len(X) for x, t in zip(X, y, strict=True)])
    walk = np.vstack([[0, 0], parts.cumsum(axis=0)])
    gradient = net.gradients(X, y, loss="mse")["layers.0.weights"][0]
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    for start, end in pairwise(walk):
        if (start != end).any():
            right.annotate("", end, start, arrowprops={**arrow, "color": VERMILION, "linewidth": 1.5})
    right.annotate("", gradient, (0, 0), arrowprops={**arrow, "color": BLUE, "linewidth": 2.4})
    right.plot(*walk.T, linewidth=0)
    right.plot([], [], color=VERMILION, label="2/N (w·x + b − y) xᵀ, active")
    right.plot([], [], color=BLUE, linewidth=2.4, label="net.gradients")
    right.plot(0, 0, "o", color=DARK, markersize=4)
    right.margins(0.08)
    right.set_aspect("equal", adjustable="datalim")
    right.set(xlabel="∂C/∂w₁", ylabel="∂C/∂w₂")
    right.legend(fontsize=9, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    silent = int((~parts.any(axis=1)).sum())
    right.set_title(f"∂C/∂w of {len(X)} examples, {silent} of them not active", fontsize=10, color=DARK)
    finish(
        figure, "A neuron's gradient is its input; a cost's adds the inputs up, each times its error", path
    )


def multiplications_picture(path: Path, measured: Sequence[Mapping[str, float]]) -> None:
    """Counted for 784-h-10, and timed for 64-h-10."""
    figure, axes = panels(2, 1, 9.2, 3.9, width_ratios=[1.35, 1])
    left, right = axes[0]
    widths = (3, 10, 30, 100, 300)
    counts = [multiplications(book_network(width)) for width in widths]
    bars = {
        "differences": ("differences", VERMILION),
        "forward mode": ("forward mode, skipping zeros", GREEN),
        "backpropagation": ("backpropagation", BLUE),
        "forward": ("a forward pass alone", "#b0b0b0"),
    }
    for at, (key, (name, colour)) in enumerate(bars.items()):
        places = np.arange(len(widths)) + 0.2 * (at - 1.5)
        left.bar(places, [count[key] for count in counts], 0.2, color=colour, label=name)
    left.set(yscale="log", ylim=(1e3, 2e13), xlabel="hidden neurons h of 784-h-10")
    left.set_ylabel("multiplications for one ∇C")
    left.set_xticks(range(len(widths)), [str(w) for w in widths])
    left.grid(axis="x", visible=False)
    left.legend(fontsize=9, frameon=False, loc="upper left", ncols=2, columnspacing=1, handlelength=1.2)
    left.set_title("counted from the shapes of the ops", fontsize=10, color=DARK)
    parameters = [m["parameters"] for m in measured]
    for key, colour in (("differences", VERMILION), ("backpropagation", BLUE)):
        right.plot(parameters, [1e3 * m[key] for m in measured], "o-", color=colour, markersize=4, label=key)
    right.set(xscale="log", yscale="log", xlabel="parameters of 64-h-10", ylabel="milliseconds for one ∇C")
    right.set_xticks(parameters, [f"{int(p):,}" for p in parameters])
    right.set_xticks([], minor=True)
    right.legend(fontsize=9, frameon=False, loc="center right")
    right.set_title("measured", fontsize=10, color=DARK)
    finish(figure, "Forward, every parameter repeats the way to the cost; backward, it is walked once", path)


def demon_picture(path: Path, device: str, examples: int) -> float:
    """What a demon at each z could do; returns the largest gap between its slope and net.errors."""
    try:
        digits = load_mnist()
    except gpunn.GpunnError:
        digits = load_digits()
    train, test, sgd = digits.train, digits.test, gpunn.SGD(lr=3.0)
    net = book_network(30, device, inputs=train.X.shape[1])
    net.fit(train.X[:examples], train.y[:examples], loss="quadratic", optimizer=sgd, batch_size=10, epochs=2,
            verbose=0)  # fmt: skip
    net = net.to(device, "float64")
    output = np.asarray(net.predict(test.X[:200]))
    worst = int(np.argmax(((output - np.eye(10)[test.y[:200]]) ** 2).sum(axis=1)))
    one = test.X[worst : worst + 1], test.y[worst : worst + 1]
    errors, measured = net.errors(*one, loss="quadratic"), errors_by_demon(net, *one)

    figure, axes = panels(2, 1, 9.2, 3.9, width_ratios=[1, 1.25])
    left, right = axes[0]
    hidden, top = errors["layers.0"][0], errors["layers.1"][0]
    chosen = (
        (1, int(np.abs(top).argmax()), VERMILION, "output"),
        (0, int(np.abs(hidden).argmax()), BLUE, "hidden"),
        (0, int(np.abs(hidden).argmin()), GREEN, "hidden"),
    )
    changes = np.linspace(-3, 3, 41)
    for at, unit, colour, kind in chosen:
        delta = errors[f"layers.{at}"][0, unit]
        costs = [demon(net, *one, at, unit, change) for change in changes]
        named = f"{kind} neuron {unit}, δ = {round(delta, 3) + 0.0:.3f}".replace("-", "−")
        left.plot(changes, costs, color=colour, label=named)
        left.plot(changes[10:31], delta * changes[10:31], "--", color=colour, linewidth=1.2)
    left.legend(fontsize=9, frameon=False, loc="upper right")
    left.set_ylim(top=left.get_ylim()[1] + 0.3 * np.ptp(left.get_ylim()))
    left.set(xlabel="Δ added to z", ylabel="change of C")
    left.set_title("the cost, and δΔ (dashed)", fontsize=10, color=DARK)
    found, by_demon = (
        np.concatenate([part.ravel() for part in each.values()]) for each in (errors, measured)
    )
    right.bar(range(40), found, color=["#9cc3de"] * 30 + ["#f0b68f"] * 10, label="net.errors")
    right.plot(range(40), by_demon, ".", color=DARK, markersize=5, label="by adding ±Δ to z")
    right.axvline(29.5, color=DARK, linewidth=0.8)
    right.set_xticks([14.5, 34.5], ["30 hidden neurons", "10 outputs"], fontsize=9.5)
    right.tick_params(axis="x", length=0)
    right.grid(axis="x", visible=False)
    right.set_ylabel("δ = ∂C/∂z")
    right.legend(fontsize=9, frameon=False, loc="best")
    taken = int(output[worst].argmax())
    right.set_title(f"one test image, a {one[1][0]} taken for a {taken}", fontsize=10, color=DARK)
    finish(figure, "The error δ of a node is the change of the cost per Δ added to its z", path)
    return apart([found], [by_demon])


def curvature_picture(path: Path, runs: Mapping[float, Mapping[str, np.ndarray]]) -> None:
    """The cost, the largest eigenvalue and the curvature along d, over the steps of gradient descent."""
    figure, axes = panels(1, 2, 7.8, 6.2, sharex=True, height_ratios=[1, 2])
    above, below = axes[:, 0]
    last = max(run["step"][-1] for run in runs.values())
    for (lr, found), colour in zip(runs.items(), (BLUE, VERMILION, GREEN), strict=False):
        above.plot(found["cost"], color=colour, linewidth=1, label=f"η = {lr:g}")
        below.axhline(2 / lr, color=colour, linewidth=1.2, linestyle="--")
        below.plot(found["step"], found["sharpness"], color=colour, linewidth=1.8)
        below.plot(found["step"], found["along d"], ":", color=colour, linewidth=1.3)
        below.text(1.01 * last, 2 / lr, f"2/η = {2 / lr:g}", fontsize=9, color=colour, va="center")
    for style, name in (("-", "largest eigenvalue of H"), ("--", "2/η"), (":", "along the step, dᵀHd/‖d‖²")):
        below.plot([], [], style, color=DARK, label=name)
    above.set(yscale="log", ylabel="cost C")
    above.legend(fontsize=9, frameon=False, ncols=3, loc="upper right")
    below.set(xlim=(0, last), ylim=(-0.3, 1.06 * max(2 / lr for lr in runs)), ylabel="curvature of C")
    below.set_xlabel("steps of gradient descent on 200 digits at once, 64-16-10 tanh")
    below.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    finish(figure, "Curvature grows along the path until it reaches 2/η, and stays there", path)


def main(device: str = "cpu", quick: bool = False, out: Path = PICTURES) -> list[Row]:
    """All parts: the numbers, the pictures, and what was measured or trained."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = numbers(device)
    print(f"{sum(row.holds for row in rows)} of {len(rows)} numbers agree")
    print("drawing the Jacobians of elementwise operations and of a composition, and a neuron's gradient")
    elementwise_picture(out / "mathematics_elementwise.png", device)
    chain_picture(out / "mathematics_chain_rule.png", device)
    neuron_picture(out / "mathematics_neuron.png", device)
    print("taking ∇C by differences, a forward pass a parameter, and by backpropagation")
    measured = measured_costs((2, 5) if quick else (2, 5, 10, 20, 40), device)
    multiplications_picture(out / "mathematics_multiplications.png", measured)
    print("adding Δ to every z of a trained network")
    gap = demon_picture(out / "mathematics_demon.png", device, 1000 if quick else 10_000)
    steps, rates = (600, (0.5, 1.0)) if quick else (3000, (0.25, 0.5, 1.0))
    runs = {}
    for lr in rates:
        print(f"following the curvature over {steps} steps of gradient descent, η = {lr:g}")
        runs[lr] = descend(lr, steps, 20, device)
    curvature_picture(out / "mathematics_curvature.png", runs)
    largest = measured[-1]
    count = int(largest["parameters"])
    ratio = largest["differences"] / largest["backpropagation"]
    rows += [
        Row(
            NIELSEN, f"passes for ∇C by differences, {count:,} parameters", count + 1, int(largest["passes"])
        ),
        Row(
            NIELSEN,
            "  time of one pass, a call of evaluate, over that of a call of gradients",
            "a few times at this size",
            ratio / (count + 1),
            None,
        ),
        Row(
            NIELSEN,
            "  time of all passes over that of backpropagation",
            f"a few times {count + 1:,}",
            ratio,
            None,
        ),
        Row(NIELSEN, "δ by adding Δ to each z, a trained network: largest gap", 0.0, gap, 1e-8),
    ]
    for lr, found in runs.items():
        end = float(found["sharpness"][-len(found["step"]) // 3 :].mean()) * lr / 2
        what = f"largest eigenvalue over 2/η, last third of {steps} steps, η = {lr:g}"
        rows.append(Row("Cohen et al. 2021", what, "in time just above 1", end, None))
    return rows


if __name__ == "__main__":
    run(main, __doc__)
