"""Neurons, costs, gradient descent and better learning: chapters 1 to 3 of Nielsen's book.

    python examples/nielsen.py [--device cpu] [--quick] [--out FOLDER]

Michael Nielsen, Neural Networks and Deep Learning, Determination Press, 2015. Equations (1) to (22) and those
of chapter 3 on costs, penalties and first weights are called with gpunn and held against what the book says;
then come the book's trainings on MNIST (see GPUNN_DATA), or, where that is not found, on the digits that
scikit-learn bundles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from notes import PICTURES, Row, run

import gpunn
from gpunn.data import hold_out, load_digits, load_mnist
from gpunn.plotting import activation_curves, compare_runs, error_surface, learning_curves

BLUE, VERMILION = "#0072b2", "#d55e00"
DARK, LIGHT = "#404040", "#e4e4e4"

#: The two ways in which the book's single neuron starts: (w, b).
GOOD, BAD = (0.6, 0.9), (2.0, 2.0)

#: The two inputs of a gate, in the order of a truth table.
BITS = [(0, 0), (0, 1), (1, 0), (1, 1)]


# ---------------------------------------------------------------- neurons


def neuron(weights: Sequence[float], bias: float, activation: str = "sigmoid") -> gpunn.Sequential:
    """A neuron with these weights and this bias: equation (4), 1 / (1 + exp(−Σ w x − b))."""
    net = gpunn.Sequential(
        [gpunn.Dense(1, activation=activation)], input_shape=len(weights), dtype="float64", seed=0
    )
    net.theta = [*weights, bias]
    return net


def perceptrons(*layers: tuple[Any, Any]) -> gpunn.Sequential:
    """Layers of perceptrons, each (weights, biases): 1 where w·x + b > 0, else 0; equation (2).

    A sigmoid neuron becomes a perceptron when its weights and bias are multiplied by a large number. At 1,000
    σ is 0 or 1 to the last digit for every w·x + b that is a whole number other than 0.
    """
    stack = [gpunn.Dense(len(bias), activation="sigmoid") for _, bias in layers]
    net = gpunn.Sequential(stack, input_shape=len(layers[0][0][0]), dtype="float64", seed=0)
    for i, (weights, bias) in enumerate(layers):
        net.parameters[f"layers.{i}.weights"] = 1_000 * np.asarray(weights, float)
        net.parameters[f"layers.{i}.bias"] = 1_000 * np.asarray(bias, float)
    return net


def adder() -> gpunn.Sequential:
    """The book's circuit of NAND gates that adds two bits: outputs their sum and the carry.

    A perceptron with weight 2 and bias −1 hands its input on; the carry's two inputs from one gate are
    merged into a weight of −4.
    """
    return perceptrons(
        ([[2, 0], [0, 2], [-2, -2]], [-1, -1, 3]),
        ([[-2, 0, -2], [0, -2, -2], [0, 0, 2]], [3, 3, -1]),
        ([[-2, -2, 0], [0, 0, -4]], [3, 3]),
    )


def decided(net: gpunn.Sequential, inputs: Any) -> str:
    """What perceptrons answer to each input, as digits."""
    return " ".join("".join(f"{a:g}" for a in outputs) for outputs in net.predict(np.asarray(inputs, float)))


def rows_of_neurons() -> list[Row]:
    """Equations (1) to (5)."""
    festival = list(itertools.product((0, 1), repeat=3))
    z = neuron([-2, -2], 3, "identity").predict(np.asarray(BITS, float))[:, 0]
    sigma, sigma_prime = (
        getattr(gpunn.activations.activation("sigmoid"), f) for f in ("sigma", "sigma_prime")
    )
    x, w, b = np.array([0.3, 0.7, 0.2]), [1.5, -2.0, 0.5], 0.4
    by_hand = 1 / (1 + math.exp(-float(x @ w) - b))
    h = 1e-5
    slope = max(
        abs((sigma(v + h) - sigma(v - h)) / (2 * h) - sigma(v) * (1 - sigma(v))) for v in (-3.0, 0.2, 2.0)
    )
    return [
        Row(
            "Nielsen, equation (1)",
            "to the festival? weights 6, 2, 2, threshold 5: the weather decides",
            "0 0 0 0 1 1 1 1",
            decided(perceptrons(([[6, 2, 2]], [-5])), festival),
        ),
        Row(
            "Nielsen, equation (1)",
            "to the festival? threshold 3: or both others together",
            "0 0 0 1 1 1 1 1",
            decided(perceptrons(([[6, 2, 2]], [-3])), festival),
        ),
        Row("Nielsen, equation (2)", "w·x + b of NAND, weights −2 and −2, bias 3, at 00", 3.0, float(z[0])),
        Row("Nielsen, equation (2)", "w·x + b of NAND at 11", -1.0, float(z[3])),
        Row(
            "Nielsen, chapter 1",
            "NAND of 00 01 10 11",
            "1 1 1 0",
            decided(perceptrons(([[-2, -2]], [3])), BITS),
        ),
        Row(
            "Nielsen, chapter 1",
            "sum and carry of 00 01 10 11 by NAND gates",
            "00 10 10 01",
            decided(adder(), BITS),
        ),
        Row("Nielsen, equation (3)", "σ(0)", 0.5, sigma(0.0)),
        Row("Nielsen, equation (3)", "σ(z) + σ(−z) − 1 at z = 1.7", 0.0, sigma(1.7) + sigma(-1.7) - 1, 1e-14),
        Row(
            "Nielsen, equation (4)",
            "a sigmoid neuron, less 1/(1 + exp(−Σ w x − b))",
            0.0,
            float(neuron(w, b).predict(x[None])[0, 0]) - by_hand,
            1e-14,
        ),
        Row("Nielsen, chapter 3", "σ′ less σ(1 − σ), by differences", 0.0, slope, 1e-10),
        Row("Nielsen, chapter 3", "largest σ′, at z = 0", 0.25, sigma_prime(sigma(0.0))),
        Row(
            "Nielsen, chapter 3",
            "mean of σ′ = σ(1 − σ) over σ from 0 to 1",
            1 / 6,
            float(np.mean([sigma_prime((i + 0.5) / 1000) for i in range(1000)])),
            1e-6,
        ),
        Row(
            "Nielsen, equation (5)",
            "Δoutput less Σ ∂output/∂w Δw + ∂output/∂b Δb: times less for half the Δ",
            4.0,
            shrinks(*output_and_gradient(x)),
            0.02,
        ),
    ]


def output_and_gradient(x: np.ndarray) -> tuple[Any, np.ndarray]:
    """θ ↦ (output, ∂output/∂θ) of a neuron at x, and where to start.

    With C = ½ (a − t)² and t = a − 1 the factor a − t is 1, and the gradient of the cost that of the output.
    """
    net = neuron([1.5, -2.0, 0.5], 0.4)

    def at(theta: np.ndarray) -> tuple[float, np.ndarray]:
        net.theta = theta
        a = net.predict(x[None])
        slopes = net.gradients(x[None], a - 1, loss="quadratic")
        return float(a[0, 0]), np.concatenate([slope.ravel() for slope in slopes.values()])

    return at, net.theta


def shrinks(function: Any, start: np.ndarray, size: float = 1e-3) -> float:
    """How many times less the linear approximation is off where the step is half as long: 4 in the limit."""
    step = size * np.random.default_rng(0).standard_normal(start.shape)
    value, gradient = function(start)
    off = [function(start + part * step)[0] - value - gradient @ (part * step) for part in (1.0, 0.5)]
    return float(off[0] / off[1])


# ---------------------------------------------------------------- cost and gradient descent


def small(seed: int = 0, output: str = "sigmoid") -> tuple[gpunn.Sequential, np.ndarray, np.ndarray]:
    """A network 4-5-3 in float64, and 20 examples with one-hot targets."""
    layers = [
        gpunn.Dense(5, activation="sigmoid", weights="normal", bias="normal"),
        gpunn.Dense(3, activation=output, weights="normal", bias="normal"),
    ]
    rng = np.random.default_rng(seed)
    net = gpunn.Sequential(layers, input_shape=4, dtype="float64", seed=seed)
    return net, rng.random((20, 4)), np.eye(3)[rng.integers(0, 3, 20)]


def largest(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """The largest difference between two sets of arrays."""
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


def rows_of_descent() -> list[Row]:
    """Equations (6) to (17), and (22)."""
    net, X, Y = small()
    a, start = net.predict(X), net.theta
    cost = net.evaluate(X, Y, loss="quadratic")["loss"]
    surface = net.objective(X, Y, loss="quadratic")
    C, gradient = surface(start)
    eta = 1e-4
    fall = (surface(start - eta * gradient)[0] - C) / (-eta * gradient @ gradient)

    theta, costs = start, [C]
    for _ in range(200):
        theta = theta - 1.0 * surface(theta)[1]
        costs.append(surface(theta)[0])

    steps = np.random.default_rng(1).standard_normal((1000, len(gradient)))
    steps *= eta * np.linalg.norm(gradient) / np.linalg.norm(steps, axis=1, keepdims=True)
    down = surface(start - eta * gradient)[0]
    better = sum(surface(start + step)[0] < down for step in steps)

    net.theta = start
    checked = gpunn.gradcheck(net, X, Y, loss="quadratic")
    slopes = net.gradients(X, Y, loss="quadratic")
    by_rule = {key: value - 3.0 * slopes[key] for key, value in net.tensors().items()}
    weights = net.tensors()
    net.fit(X, Y, loss="quadratic", optimizer=gpunn.SGD(lr=3.0), batch_size=len(X), epochs=1, verbose=0)
    off_the_rule = largest(net.tensors(), by_rule)

    hidden = 1 / (1 + np.exp(-X @ weights["layers.0.weights"].T - weights["layers.0.bias"]))
    output = 1 / (1 + np.exp(-hidden @ weights["layers.1.weights"].T - weights["layers.1.bias"]))

    zero, X10, Y10 = undecided()
    return [
        Row(
            "Nielsen, equation (6)",
            "C less (1/2n) Σ‖y − a‖²",
            0.0,
            cost - float(((Y - a) ** 2).sum()) / (2 * len(X)),
            1e-14,
        ),
        Row(
            "Nielsen, equation (6)",
            "C of ten sigmoid outputs with all parameters 0: 10 (½)² / 2",
            1.25,
            zero.evaluate(X10, Y10, loss="quadratic")["loss"],
        ),
        Row(
            "Nielsen, equations (7), (9), (12)",
            "ΔC less ∇C·Δv: times less for half the Δv",
            4.0,
            shrinks(surface, start),
            0.02,
        ),
        Row(
            "Nielsen, equations (8), (13)",
            "∇C less central differences, relative",
            0.0,
            checked.worst,
            1e-7,
        ),
        Row("Nielsen, equations (10), (14)", "ΔC / (−η‖∇C‖²) for η = 0.0001", 1.0, float(fall), 1e-3),
        Row(
            "Nielsen, equations (11), (15)",
            "steps of 200, at η = 1, that lower C",
            200,
            int((np.diff(costs) < 0).sum()),
        ),
        Row("Nielsen, chapter 1", "of 1,000 other steps as long, those that lower C more", 0, better),
        Row(
            "Nielsen, equations (16), (17)",
            "a step on all examples, less w − η ∂C/∂w",
            0.0,
            off_the_rule,
            1e-14,
        ),
        Row("Nielsen, equation (22)", "a′ less σ(w a + b)", 0.0, float(np.abs(a - output).max()), 1e-14),
    ]


def undecided() -> tuple[gpunn.Sequential, np.ndarray, np.ndarray]:
    """A network 784-30-10 with all parameters 0, one black image, and the target of a 6."""
    layers = [gpunn.Dense(n, activation="sigmoid", weights="zeros") for n in (30, 10)]
    net = gpunn.Sequential(layers, input_shape=784, dtype="float64", seed=0)
    return net, np.zeros((1, 784)), np.eye(10)[[6]]


def rows_of_minibatches() -> list[Row]:
    """Equations (18) to (21), and how often the book's first network is updated."""
    net, _, _ = small()
    rng = np.random.default_rng(2)
    X, Y = rng.random((1000, 4)), np.eye(3)[rng.integers(0, 3, 1000)]
    whole = net.gradients(X, Y, loss="quadratic")
    parts = [net.gradients(X[i : i + 10], Y[i : i + 10], loss="quadratic") for i in range(0, 1000, 10)]
    mean = {key: np.mean([part[key] for part in parts], axis=0) for key in whole}

    x, y = X[:10], Y[:10]
    eta, m, before = 3.0, len(x), net.tensors()
    each = [net.gradients(x[j : j + 1], y[j : j + 1], loss="quadratic") for j in range(m)]
    by_rule = {key: w - eta / m * sum(slope[key] for slope in each) for key, w in before.items()}
    gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=eta), batch_size=m).step(x, y)

    sizes = {n: book_network(784, n).theta.size for n in (30, 100)}
    return [
        Row(
            "Nielsen, equations (18), (19)",
            "mean of ∇C over the 100 minibatches of an epoch, less ∇C",
            0.0,
            largest(mean, whole),
            1e-14,
        ),
        Row(
            "Nielsen, equations (20), (21)",
            "a step on 10 examples, less w − (η/m) Σ ∂C_X/∂w",
            0.0,
            largest(net.tensors(), by_rule),
            1e-14,
        ),
        Row("Nielsen, chapter 3", "parameters of 784-30-10", 23_860, sizes[30]),
        Row("Nielsen, chapter 3", "parameters of 784-100-10: nearly 80,000", 80_000, sizes[100], 500),
    ]


# ---------------------------------------------------------------- the learning slowdown, the cross-entropy


def slow_neuron(start: tuple[float, float], loss: str, lr: float, epochs: int = 300) -> dict[str, Any]:
    """The book's neuron, which shall turn 1 into 0: its cost and its (w, b) over the epochs."""
    net = neuron([start[0]], start[1])
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    first = float(net.predict(one)[0, 0])
    slope = float(net.gradients(one, zero, loss=loss)["layers.0.weights"][0, 0])
    trainer = gpunn.Trainer(net, loss=loss, optimizer=gpunn.SGD(lr=lr), batch_size=1)
    way, costs = [net.theta], []
    for _ in range(epochs):
        costs.append(float(trainer.step(one, zero)))
        way.append(net.theta)
    last = float(net.predict(one)[0, 0])
    return {"first": first, "last": last, "slope": slope, "cost": costs, "way": np.array(way)}


def rows_of_the_neuron() -> list[Row]:
    """The single neuron of chapter 3, equations (54) to (62)."""
    good, bad = (slow_neuron(start, "quadratic", 0.15) for start in (GOOD, BAD))
    entropy = [slow_neuron(start, "binary_cross_entropy", 0.005, 1) for start in (GOOD, BAD)]

    def by_hand(found: Mapping[str, Any]) -> float:
        return float(found["first"] ** 2 * (1 - found["first"]))

    moved = np.abs(bad["way"][:, 0] - 2.0)
    return [
        Row("Nielsen, chapter 3", "output of the neuron at w = 0.6, b = 0.9", 0.82, good["first"], 0.005),
        Row(
            "Nielsen, chapter 3",
            "output after 300 epochs at η = 0.15, from w = 0.6, b = 0.9",
            0.09,
            good["last"],
            0.005,
        ),
        Row("Nielsen, chapter 3", "output of the neuron at w = b = 2", 0.98, bad["first"], 0.005),
        Row(
            "Nielsen, chapter 3, figure",
            "output after 300 epochs at η = 0.15, from w = b = 2",
            0.20,
            bad["last"],
            0.005,
        ),
        Row(
            "Nielsen, equations (55), (56)",
            "∂C/∂w less a σ′(z), quadratic, w = b = 2",
            0.0,
            bad["slope"] - by_hand(bad),
            1e-14,
        ),
        Row(
            "Nielsen, chapter 3",
            "from w = b = 2, w moves less in the first half of 300 epochs than in the second",
            "yes",
            "yes" if moved[150] < moved[300] - moved[150] else "no",
        ),
        Row(
            "Nielsen, equation (61)",
            "∂C/∂w less σ(z) − y, cross-entropy, w = b = 2",
            0.0,
            entropy[1]["slope"] - entropy[1]["first"],
            1e-14,
        ),
        Row(
            "Nielsen, chapter 3",
            "which start learns faster at first, with the quadratic cost",
            "the better",
            "the worse" if bad["slope"] > good["slope"] else "the better",
        ),
        Row(
            "Nielsen, chapter 3",
            "which start learns faster at first, with the cross-entropy",
            "the worse",
            "the worse" if entropy[1]["slope"] > entropy[0]["slope"] else "the better",
        ),
    ]


def rows_of_cross_entropy() -> list[Row]:
    """Equations (63) to (84): costs whose δ in the output layer is a − y."""
    net, X, Y = small()
    a = net.predict(X)
    cost = net.evaluate(X, Y, loss="binary_cross_entropy")["loss"]
    by_hand = -float((Y * np.log(a) + (1 - Y) * np.log(1 - a)).sum()) / len(X)
    logit = neuron([1.0], 0.0)
    sure = logit.evaluate([[math.log(0.3 / 0.7)]], [[0.3]], loss="binary_cross_entropy")["loss"]

    def off(output: str, loss: str) -> float:
        net, X, Y = small(output=output)
        delta = len(X) * net.errors(X, Y, loss=loss)["layers.1"]
        return float(np.abs(delta - (net.predict(X) - Y)).max())

    softmax = small(output="softmax")[0].predict(X)
    return [
        Row(
            "Nielsen, equation (63)",
            "C less −(1/n) Σ [y ln a + (1 − y) ln(1 − a)]",
            0.0,
            cost - by_hand,
            1e-14,
        ),
        Row(
            "Nielsen, equation (64)",
            "least cross-entropy for y = 0.3: the binary entropy",
            -(0.3 * math.log(0.3) + 0.7 * math.log(0.7)),
            sure,
            1e-14,
        ),
        Row(
            "Nielsen, equation (66)",
            "δ less a − y: cross-entropy, sigmoid outputs",
            0.0,
            off("sigmoid", "binary_cross_entropy"),
            1e-14,
        ),
        Row(
            "Nielsen, equation (68)",
            "δ less a − y: quadratic cost, linear outputs",
            0.0,
            off("identity", "quadratic"),
            1e-14,
        ),
        Row(
            "Nielsen, equation (84)",
            "δ less a − y: log-likelihood, softmax outputs",
            0.0,
            off("softmax", "cross_entropy"),
            1e-14,
        ),
        Row(
            "Nielsen, equation (79)",
            "sum of softmax outputs, less 1",
            0.0,
            float(np.abs(softmax.sum(axis=1) - 1).max()),
            1e-14,
        ),
    ]


def rows_of_regularisation() -> list[Row]:
    """Equations (85) to (98), and where weights start."""
    lam, eta = 0.1, 0.5
    rows = []
    for name, penalty, pull, equations in (
        ("L2", "l2", lambda w: w, "equations (93), (94)"),
        ("L1", "l1", np.sign, "equation (97)"),
    ):
        net, X, Y = small()
        n, before = len(X), net.tensors()
        slopes = net.gradients(X, Y, loss="binary_cross_entropy")
        by_rule = {
            key: w - eta * slopes[key] - (eta * lam / n * pull(w) if key.endswith("weights") else 0)
            for key, w in before.items()
        }
        optimizer = gpunn.SGD(lr=eta, **{penalty: lam / n})
        gpunn.Trainer(net, loss="binary_cross_entropy", optimizer=optimizer, batch_size=n).step(X, Y)
        what = (
            f"{name}: a step, less w − η λ/n {'w' if name == 'L2' else 'sgn(w)'} − η ∂C₀/∂w, biases as ever"
        )
        rows.append(Row(f"Nielsen, {equations}", what, 0.0, largest(net.tensors(), by_rule), 1e-14))
    wide, narrow = (starts(weights) for weights in ("normal", "lecun_normal"))
    return [
        *rows,
        Row(
            "Nielsen, chapter 3", "spread of z at 500 of 1,000 inputs, weights N(0, 1): √501", 22.4, wide, 0.5
        ),
        Row(
            "Nielsen, chapter 3",
            "spread of z at 500 of 1,000 inputs, weights N(0, 1/1,000): √(3/2)",
            1.22,
            narrow,
            0.03,
        ),
    ]


def starts(weights: str) -> float:
    """Standard deviation of z of 5,000 neurons with 1,000 inputs, of which half are 1 and half are 0."""
    layer = gpunn.Dense(5000, activation="identity", weights=weights, bias="normal")
    net = gpunn.Sequential([layer], input_shape=1000, seed=0)
    return float(net.predict(np.repeat([[1.0, 0.0]], 500, axis=0).reshape(1, 1000)).std())


def numbers() -> list[Row]:
    """What the book states as an exact number, or implies as an identity, computed here."""
    return [
        *rows_of_neurons(),
        *rows_of_descent(),
        *rows_of_minibatches(),
        *rows_of_the_neuron(),
        *rows_of_cross_entropy(),
        *rows_of_regularisation(),
    ]


# ---------------------------------------------------------------- the book's networks


def load() -> Any:
    """MNIST, 50,000 images to train on; or the digits of scikit-learn. Both with images to validate on."""
    try:
        return load_mnist()
    except gpunn.GpunnError:
        digits = load_digits()
        X, y, X_valid, y_valid = hold_out(digits.train.X, digits.train.y, 0.2, seed=0)
        train, validation = gpunn.data.Split(X, y), gpunn.data.Split(X_valid, y_valid)
        return gpunn.data.Dataset(digits.name, train, validation, digits.test)


def book_network(
    inputs: int, hidden: int, weights: str = "normal", seed: int = 0, device: str = "cpu"
) -> gpunn.Sequential:
    """Sigmoid neurons, 784-hidden-10: weights ``"normal"`` (chapter 1) or ``"lecun_normal"`` (chapter 3)."""
    layers = [gpunn.Dense(n, activation="sigmoid", weights=weights, bias="normal") for n in (hidden, 10)]
    return gpunn.Sequential(layers, input_shape=inputs, device=device, seed=seed)


def called(data: Any) -> str:
    """The data set's name for people."""
    return "MNIST" if data.name == "mnist" else f"scikit-learn's {data.name}"


def passes(data: Any, images: int, epochs: int) -> int:
    """How many epochs have as many updates where there are fewer images."""
    return -(-epochs * images // min(images, len(data.train.y)))


def trained(
    net: gpunn.Sequential,
    data: Any,
    *,
    loss: str,
    lr: float,
    epochs: int,
    images: int,
    lam: float = 0.0,
    of: int | None = None,
    tested: int = 10_000,
    callbacks: Sequence[Any] = (),
    validation: bool = False,
) -> gpunn.History:
    """The book's SGD in minibatches of 10 on the first images, held against the test or validation images.

    Equation (85)'s λ/n is ``l2``; n is the number of images, or ``of``: a few images can be trained on with
    the λ that is meant for 50,000.
    """
    images = min(images, len(data.train.y))
    held_out = data.validation if validation else data.test
    return net.fit(
        data.train.X[:images],
        data.train.y[:images],
        loss=loss,
        optimizer=gpunn.SGD(lr=lr, l2=lam / (of or images)),
        batch_size=10,
        epochs=epochs,
        validation_data=(held_out.X[:tested], held_out.y[:tested]),
        metrics=("accuracy",),
        callbacks=callbacks,
        verbose=0,
    )


def percent(share: float) -> str:
    """A share of the images, as the book tells it."""
    return f"{100 * share:.2f} %"


def with_parameters_of(net: gpunn.Sequential, layers: Sequence[gpunn.Layer]) -> gpunn.Sequential:
    """These layers with a network's parameters: its first ones, or all with other activations."""
    other = gpunn.Sequential(layers, input_shape=net.input_shape, device=net.device, seed=0)
    for key in other.parameters:
        other.parameters[key] = net.parameters[key]
    return other


# ---------------------------------------------------------------- pictures


def panels(count: int, width: float = 3.5, height: float = 2.9) -> tuple[Figure, list[Any]]:
    """A white figure with panels beside each other, in the style of gpunn's own pictures."""
    figure = Figure(figsize=(width * count, height), dpi=150, facecolor="white", layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, count)))
    for each in axes:
        each.grid(color=LIGHT, linewidth=0.6)
        each.set_axisbelow(True)
        each.tick_params(labelsize=8.5, color="#b0b0b0", labelcolor=DARK)
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color("#b0b0b0")
    return figure, axes


def labelled(axes: Any, x: str, y: str, title: str = "") -> None:
    """Names for the axes, and what one sees."""
    axes.set_xlabel(x, fontsize=9, color=DARK)
    axes.set_ylabel(y, fontsize=9, color=DARK)
    axes.set_title(title, fontsize=9.5, loc="left")


def save(figure: Figure, path: Path, title: str) -> None:
    """Write the figure under its title."""
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path)


def accuracies(history: gpunn.History) -> gpunn.History:
    """The accuracies on held-out images alone: costs of different kinds cannot be compared."""
    return gpunn.History([{key: record[key] for key in ("epoch", "val_accuracy")} for record in history])


def seen(chapter: int, what: str, says: Any, here: Any) -> Row:
    """A number of a random run."""
    return Row(f"Nielsen, chapter {chapter}", what, says, here, None)


def show_neurons(out: Path) -> None:
    """σ and σ′, with the two starts of the book's neuron."""
    figure = activation_curves("sigmoid", low=-6.0, high=6.0, title="σ is flat away from z = 0")
    axes = figure.axes[0]
    sigma = gpunn.activations.activation("sigmoid").sigma
    for z, name in ((1.5, "0.82"), (4.0, "0.98")):
        axes.plot([z], [sigma(z)], "o", color="#000000", markersize=3.5)
        axes.annotate(name, (z, sigma(z)), (0, -9), textcoords="offset points", fontsize=7.5)
    figure.savefig(out / "nielsen_sigmoid.png")


def show_slowdown(out: Path) -> list[Row]:
    """One neuron, two starts, two costs: equations (55) and (61)."""
    quadratic = [slow_neuron(start, "quadratic", 0.15) for start in (GOOD, BAD)]
    entropy = [slow_neuron(start, "binary_cross_entropy", 0.005) for start in (GOOD, BAD)]
    figure, axes = panels(2)
    for each, found in zip(axes, (quadratic, entropy), strict=True):
        for one, colour, start in zip(
            found, (BLUE, VERMILION), ("w = 0.6, b = 0.9", "w = b = 2"), strict=True
        ):
            each.plot(range(len(one["cost"])), one["cost"], color=colour, linewidth=1.8)
            at = (40, one["cost"][40])
            each.annotate(f"from {start}", at, (4, 5), textcoords="offset points", fontsize=9, color=colour)
        each.set_ylim(0, 1.1 * max(found[1]["cost"]))
    labelled(axes[0], "epoch", "cost C", "quadratic cost, η = 0.15")
    labelled(axes[1], "epoch", "cost C", "cross-entropy, η = 0.005")
    title = "Badly wrong: slow with the quadratic cost, fast with the cross-entropy"
    save(figure, out / "nielsen_slowdown.png", title)

    w = np.linspace(-2.5, 2.5, 61)
    grid = np.array([[x, y] for y in w for x in w])
    a = neuron([1.0, 1.0], 0.0).predict(grid).reshape(len(w), len(w))
    error_surface(
        a**2 / 2,
        w,
        w,
        descent={"from 0.6, 0.9": quadratic[0]["way"][::20], "from 2, 2": quadratic[1]["way"][::20]},
        labels=("weight w", "bias b"),
        path=out / "nielsen_surface.png",
        title="C = ½ σ(w + b)², a dot every 20 epochs: slow on the plateau",
    )
    what = "cross-entropy, η = 0.005, 300 epochs: output from"
    return [
        seen(3, f"{what} w = 0.6, b = 0.9", "–", entropy[0]["last"]),
        seen(3, f"{what} w = b = 2", "–", entropy[1]["last"]),
    ]


def show_minibatches(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """How well the mean over m examples estimates ∇C: equation (18)."""
    n = 2_000 if quick else 10_000
    X, y = data.train.X[:n], data.train.y[:n]
    net = book_network(X.shape[1], 30, device=device)

    def gradient(chosen: Any) -> np.ndarray:
        slopes = net.gradients(X[chosen], y[chosen], loss="quadratic")
        return np.concatenate([slope.ravel() for slope in slopes.values()])

    whole, rng = gradient(slice(None)), np.random.default_rng(0)
    sizes, off = np.array([1, 3, 10, 30, 100, 300, 1000]), []
    for m in sizes:
        draws = [gradient(rng.integers(0, len(X), m)) - whole for _ in range(5 if quick else 20)]
        off.append(float(np.sqrt(np.mean([d @ d for d in draws])) / np.linalg.norm(whole)))
    figure, (axes,) = panels(1, 5.2, 3.2)
    axes.loglog(sizes, off, "o-", color=BLUE, linewidth=1.8, label="measured")
    axes.loglog(sizes, off[0] / np.sqrt(sizes), "--", color=VERMILION, linewidth=1.3, label="as 1/√m")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.axhline(1, color="#808080", linewidth=1)
    axes.text(sizes[-1], 1.07, "as large as ∇C itself", ha="right", fontsize=8, color=DARK)
    network = f"{X.shape[1]}-30-10 at its start, quadratic cost, {called(data)}"
    labelled(axes, "examples in a minibatch, m", "‖estimate − ∇C‖ / ‖∇C‖", network)
    axes.legend(fontsize=8.5, frameon=False)
    save(figure, out / "nielsen_minibatch.png", "The mean over m examples estimates ∇C")
    ten = off[list(sizes).index(10)]
    return [seen(1, f"relative error of ∇C by 10 of {len(X):,} images", "roughly equal", ten)]


def show_book_networks(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """Chapter 1's two networks, and what chapter 3 makes of the larger one."""
    images, epochs = (8_000, 3) if quick else (50_000, 10)
    epochs = passes(data, images, epochs)
    entropy = "binary_cross_entropy"
    # Hidden neurons, first weights, cost, η, λ, and what the book says after 30 epochs.
    settings = {
        "30 hidden, quadratic": (30, "normal", "quadratic", 3.0, 0.0, "95.42 %"),
        "100 hidden, quadratic": (100, "normal", "quadratic", 3.0, 0.0, "96.59 %"),
        "100 hidden, cross-entropy": (100, "normal", entropy, 0.5, 0.0, "96.82 %"),
        "100 hidden, cross-entropy, λ = 5": (100, "normal", entropy, 0.5, 5.0, "97.92 % (validation)"),
        "the same from weights N(0, 1/n)": (100, "lecun_normal", entropy, 0.5, 5.0, "–"),
    }
    histories, rows = {}, []
    for name, (hidden, weights, loss, lr, lam, says) in settings.items():
        net = book_network(data.train.X.shape[1], hidden, weights, device=device)
        history = trained(net, data, loss=loss, lr=lr, epochs=epochs, images=images, lam=lam, of=50_000)
        histories[name] = accuracies(history)
        what = f"{name}: best of {epochs} epoch{'s' if epochs > 1 else ''}"
        rows.append(seen(1 if loss == "quadratic" else 3, what, says, percent(max(history["val_accuracy"]))))
    title = f"The book's networks on {called(data)}, one seed"
    compare_runs(histories, out / "nielsen_networks.png", title=title)
    return rows


def one_seed(data: Any, weights: str, seed: int, device: str, epochs: int, images: int) -> dict[str, Any]:
    """784-100-10 with the quadratic cost: z and σ′(z) before training, then σ′(z) and what is answered."""
    X = data.test.X[:2_000]
    net = book_network(data.train.X.shape[1], 100, weights, seed, device)
    hidden, output = with_parameters_of(net, net.layers[:1]).predict(X), net.predict(X)
    z = with_parameters_of(net, [net.layers[0], gpunn.Dense(10)]).predict(X)
    history = trained(net, data, loss="quadratic", lr=3.0, epochs=epochs, images=images)
    a = net.predict(X)
    return {
        "z": z,
        "hidden": float((hidden * (1 - hidden)).mean()),
        "output": float((output * (1 - output)).mean()),
        "accuracy": [100 * accuracy for accuracy in history["val_accuracy"]],
        "trained": (a * (1 - a)).mean(axis=0),
        "answered": np.bincount(a.argmax(axis=1), minlength=10) / len(X),
    }


def show_collapse(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """784-100-10 with the quadratic cost over several seeds: chapter 1's weights N(0, 1), and N(0, 1/n)."""
    images, epochs, seeds = (8_000, 3, 3) if quick else (50_000, 5, 5)
    epochs = passes(data, images, epochs)
    names = {"lecun_normal": "weights N(0, 1/n)", "normal": "weights N(0, 1)"}
    found = {
        weights: [one_seed(data, weights, seed, device, epochs, images) for seed in range(seeds)]
        for weights in names
    }
    figure, axes = panels(3, 3.6, 3.2)
    for (weights, name), colour in zip(names.items(), (BLUE, VERMILION), strict=True):
        for one in found[weights]:
            line = axes[0].plot(range(1, epochs + 1), one["accuracy"], color=colour)[0]
        line.set_label(name)
        z = np.concatenate([one["z"].ravel() for one in found[weights]])
        axes[1].hist(z, np.linspace(-20, 20, 81), density=True, color=colour, alpha=0.6, label=name)
    labelled(axes[0], "epoch", "accuracy on test images (%)", f"{seeds} seeds of each")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylim(min(min(one["accuracy"]) for one in found["normal"]) - 18, 100)
    labelled(axes[1], "z of the output neurons", "density", "before training")
    for each, place in zip(axes[:2], ("lower right", "upper left"), strict=True):
        each.legend(fontsize=8, frameon=False, loc=place)

    worst = min(found["normal"], key=lambda one: one["accuracy"][-1])
    dead = worst["answered"] < 0.02
    colours = [VERMILION if each else "#999999" for each in dead]
    axes[2].bar(range(10), worst["trained"], color=colours, width=0.7)
    axes[2].set_yscale("log")
    axes[2].set_ylim(top=8 * worst["trained"].max())
    axes[2].set_xticks(range(10))
    labelled(axes[2], "output neuron (digit)", "mean σ′(z)", "worst seed of N(0, 1), after training")
    hint = "orange: digits answered for\nless than 2 % of the images"
    title = "100 hidden, quadratic cost: weights N(0, 1) saturate output neurons"
    if dead.any():
        axes[2].text(0.02, 0.98, hint, transform=axes[2].transAxes, va="top", fontsize=8, color=VERMILION)
        title += "; some never learn their digit"
    save(figure, out / "nielsen_collapse.png", title)

    rows = []
    for weights, says in (("normal", "96.59, some runs quite a bit worse"), ("lecun_normal", "–")):
        best = ", ".join(f"{max(one['accuracy']):.1f}" for one in found[weights])
        what = f"100 hidden, quadratic, {names[weights]}"
        start = f"mean σ′(z) of the output neurons at the start, {names[weights]}"
        rows += [
            seen(1, f"{what}: best of {epochs} epochs, each seed (%)", says, best),
            seen(3, start, "–", float(np.mean([one["output"] for one in found[weights]]))),
            seen(
                3,
                start.replace("output", "hidden"),
                "–",
                float(np.mean([one["hidden"] for one in found[weights]])),
            ),
        ]
    return rows


def show_initialisation(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """30 hidden neurons, cross-entropy, λ = 5, η = 0.1: where the weights start."""
    images, epochs = (8_000, 3) if quick else (50_000, 10)
    epochs = passes(data, images, epochs)
    histories, rows = {}, []
    for weights, name, says in (
        ("lecun_normal", "weights N(0, 1/n)", "almost 93 %"),
        ("normal", "weights N(0, 1)", "under 87 %"),
    ):
        net = book_network(data.train.X.shape[1], 30, weights, device=device)
        history = trained(
            net,
            data,
            loss="binary_cross_entropy",
            lr=0.1,
            epochs=epochs,
            images=images,
            lam=5.0,
            of=50_000,
        )
        histories[name] = accuracies(history)
        rows.append(seen(3, f"30 hidden, {name}: after one epoch", says, percent(history["val_accuracy"][0])))
    narrow, wide = (100 * history["val_accuracy"][0] for history in histories.values())
    title = f"After one epoch: {narrow:.0f} % from weights N(0, 1/n), {wide:.0f} % from N(0, 1)"
    compare_runs(histories, out / "nielsen_initialisation.png", title=title)
    return rows


def show_overfitting(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """1,000 training images, 30 hidden neurons, cross-entropy, η = 0.5: without penalty and with λ = 0.1."""
    epochs, tested = (60, 1_000) if quick else (400, 10_000)
    few = data.train.X[:1_000], data.train.y[:1_000]
    found: dict[float, gpunn.History] = {}
    for lam in (0.0, 0.1):
        net = book_network(data.train.X.shape[1], 30, device=device)

        def look(trainer: gpunn.Trainer, record: dict[str, Any], net: Any = net) -> None:
            now = net.evaluate(*few, loss="binary_cross_entropy", metrics=("accuracy",))
            record["training_loss"], record["training_accuracy"] = now["loss"], now["accuracy"]

        found[lam] = trained(
            net,
            data,
            loss="binary_cross_entropy",
            lr=0.5,
            epochs=epochs,
            images=1_000,
            lam=lam,
            tested=tested,
            callbacks=[look],
        )
    figure, axes = panels(2, 4.2, 3.2)
    x = range(1, epochs + 1)
    for lam, colour in ((0.0, VERMILION), (0.1, BLUE)):
        for each, what, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
            test, training = (
                scale * np.array(found[lam][f"{whose}_{what}"]) for whose in ("val", "training")
            )
            each.plot(x, test, color=colour, linewidth=1.8, label=f"test images, λ = {lam:g}")
            each.plot(x, training, "--", color=colour, linewidth=1.3, label=f"training images, λ = {lam:g}")
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter("{x:g}")
    labelled(axes[0], "epoch", "cross-entropy", "cost, without the penalty")
    labelled(axes[1], "epoch", "accuracy (%)", "images that are right")
    axes[1].set_ylim(None if quick else 60, 101)
    axes[0].legend(fontsize=8, frameon=False)
    plain, cured = found[0.0], found[0.1]
    best = [percent(max(history["val_accuracy"])) for history in (plain, cured)]
    title = f"1,000 training images; of the test images at best {best[0]} right, with λ = 0.1 {best[1]}"
    save(figure, out / "nielsen_overfitting.png", title)
    least = plain.best("val_loss")["epoch"]
    return [
        seen(
            3,
            "1,000 images, no penalty: training images, at the end",
            "100 %",
            percent(plain["training_accuracy"][-1]),
        ),
        seen(
            3,
            "1,000 images, no penalty: test images, at best",
            "82.27 %",
            percent(max(plain["val_accuracy"])),
        ),
        seen(3, "1,000 images, no penalty: epoch of the least cost on test images", "around 15", least),
        seen(3, "1,000 images, λ = 0.1: test images, at best", "87.1 %", percent(max(cured["val_accuracy"]))),
    ]


def show_early_stopping(data: Any, device: str, quick: bool, out: Path) -> list[Row]:
    """The same 1,000 images: training ends when the validation images have not gone better for a while."""
    stopping = gpunn.EarlyStopping("val_accuracy", patience=10)
    net = book_network(data.train.X.shape[1], 30, device=device)
    history = trained(
        net,
        data,
        loss="binary_cross_entropy",
        lr=0.5,
        epochs=60 if quick else 400,
        images=1_000,
        tested=1_000 if quick else 10_000,
        callbacks=[stopping],
        validation=True,
    )
    title = "Early stopping: no better for 10 epochs, and the best weights are kept"
    learning_curves(history, out / "nielsen_early_stopping.png", title=title, kept=stopping.best_epoch)
    kept = net.evaluate(data.test.X, data.test.y, loss="binary_cross_entropy", metrics=("accuracy",))
    return [
        seen(3, "1,000 images, early stopping: epochs, of 400 at most", "about 280, by eye", len(history)),
        seen(3, "1,000 images, early stopping: test images", "–", percent(kept["accuracy"])),
    ]


def main(device: str = "cpu", quick: bool = False, out: Path = PICTURES) -> list[Row]:
    """Run all parts, and return what the book says beside what came out."""
    data = load()
    out.mkdir(parents=True, exist_ok=True)
    print(f"chapters 1 to 3 of Nielsen's book, on {called(data)}")
    print("neurons, cost, gradient descent: the equations")
    rows = numbers()
    print("one neuron: the learning slowdown")
    show_neurons(out)
    rows += show_slowdown(out)
    for says, part in (
        ("minibatches estimate the gradient", show_minibatches),
        ("the book's networks", show_book_networks),
        ("weights N(0, 1) with the quadratic cost: collapsed runs", show_collapse),
        ("where weights start", show_initialisation),
        ("overfitting on 1,000 images, and λ", show_overfitting),
        ("early stopping", show_early_stopping),
    ):
        print(says, flush=True)
        rows += [replace(row, what=f"{row.what}, {called(data)}") for row in part(data, device, quick, out)]
    return rows


if __name__ == "__main__":
    run(main, __doc__)
