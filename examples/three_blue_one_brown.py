"""The network, the gradient and the chain rule of 3Blue1Brown's "Neural networks", chapters 1 to 4.

    python examples/three_blue_one_brown.py [--device cpu] [--quick] [--out FOLDER]

784-16-16-10 with its 13,002 weights and biases, the cost of one example and what it asks for, the negative
gradient, what the trained network has learnt and what it has not, and the chain rule with every factor in
numbers. On MNIST where it is found (see GPUNN_DATA), else on the 1,797 digits that scikit-learn bundles.

Source: Grant Sanderson, https://www.3blue1brown.com/topics/neural-networks, the videos of 2017 and their text
versions by Josh Pullen. The cost there is Σ (a − y)²: twice gpunn's ``"quadratic"``, or ``"mse"`` times the
number of outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from notes import PICTURES, Row, run

import gpunn
from gpunn.data import Split, load_digits, load_mnist
from gpunn.plotting import misclassified, weight_images

NAME = "three_blue_one_brown"
STRUCTURE, DESCENT, BACKPROP, CALCULUS = (f"3Blue1Brown, Neural networks, chapter {n}" for n in (1, 2, 3, 4))
BLUE, VERMILION, GREEN, GREY, DARK = "#0072b2", "#d55e00", "#009e73", "#b0b0b0", "#404040"

#: Outputs that the video of chapter 2 shows for an untrained network that sees a 3, and their cost there.
TRASH = (0.43, 0.28, 0.19, 0.88, 0.72, 0.01, 0.64, 0.86, 0.99, 0.63)
TRASH_COST = 3.37


def network(inputs: int = 784, activation: str = "sigmoid", **how: object) -> gpunn.Sequential:
    """784-16-16-10, as in all four chapters; weights and biases N(0, 1) where nothing else is said."""
    start = {"weights": how.pop("weights", "normal"), "bias": how.pop("bias", "normal")}
    hidden = [gpunn.Dense(16, activation=activation, **start) for _ in range(2)]
    output = gpunn.Dense(10, activation="sigmoid", **start)
    return gpunn.Sequential([*hidden, output], input_shape=inputs, seed=how.pop("seed", 0), **how)


def squares(net: gpunn.Sequential, X: object, y: object) -> float:
    """The cost of 3Blue1Brown: the mean over the examples of Σ (a − y)²."""
    return 2 * net.evaluate(X, y, loss="quadratic")["loss"]


# Chapter 1: what a network is


def counted() -> dict[str, int]:
    """How many weights and biases there are, layer by layer and in all."""
    counts = {key: window.size for key, window in network().parameters.items()}
    return counts | {"all": sum(counts.values())}


def edge_detector() -> tuple[gpunn.Sequential, dict[str, np.ndarray]]:
    """One neuron with weights set by hand to find an edge, and four images for it.

    +1 on a strip of 24 pixels, −1 on as many above and below it. A is dark, B the strip alone, C what
    surrounds it, and D a blob that covers the strip and 16 pixels beside it.
    """
    weights = np.zeros((28, 28))
    weights[11:14, 10:18] = 1
    weights[8:11, 10:18] = weights[14:17, 10:18] = -1
    blob = np.zeros((28, 28))
    blob[11:16, 10:18] = 1
    images = {"A": 0 * weights, "B": weights > 0, "C": weights < 0, "D": blob}
    neuron = gpunn.Sequential([gpunn.Dense(1)], input_shape=784, seed=0)
    neuron.parameters["layers.0.weights"] = weights.reshape(1, 784)
    return neuron, {name: np.asarray(image, "float32") for name, image in images.items()}


def ranked() -> str:
    """The four images in the order of the weighted sums that they give."""
    neuron, images = edge_detector()
    sums = neuron.predict(np.stack(list(images.values())).reshape(4, 784))[:, 0]
    return " > ".join(sorted(images, key=lambda name: -sums[list(images).index(name)]))


# Chapter 2: cost and gradient


def cost_of_outputs(outputs: Sequence[float], digit: int) -> float:
    """Σ (a − y)² of given outputs: a network of one identity hands them through."""
    through = gpunn.Sequential([gpunn.Activation("identity")], input_shape=len(outputs), dtype="float64")
    return squares(through, [outputs], [digit])


def importance(first: float, second: float) -> tuple[np.ndarray, float]:
    """−∇C where a cost falls off steeply in one weight and gently in the other, and the ratio of two wiggles.

    Two examples, each of which sees one weight, count by ``first`` and ``second``: at w = (1, 1) the
    gradient of Σ over both is (first, second).
    """
    X, y, counts = np.eye(2), np.zeros(2), [first, second]
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, dtype="float64", seed=0)
    net.theta = [1, 1, 0]
    found = net.gradients(X, y, loss="quadratic", sample_weight=counts)["layers.0.weights"][0] * sum(counts)
    changes = []
    for wiggle in 1e-3 * np.eye(3)[:2]:
        ends = []
        for side in (1, -1):
            net.theta = np.array([1, 1, 0]) + side * wiggle
            ends.append(net.evaluate(X, y, loss="quadratic", sample_weight=counts)["loss"])
        changes.append(ends[0] - ends[1])
    return -found, changes[0] / changes[1]


@dataclass(frozen=True)
class Walk:
    """The cost along straight lines from one point of weight space."""

    steps: np.ndarray
    down: np.ndarray
    up: np.ndarray
    elsewhere: list[np.ndarray]
    gradient: np.ndarray


def walk(net: gpunn.Sequential, X: object, y: object, steps: np.ndarray, random: int = 12) -> Walk:
    """Along −∇C, along ∇C, and along random directions: always the same lengths of step."""
    objective = net.objective(X, y, loss="quadratic")
    start = net.theta.astype("float64")
    gradient = 2 * objective(start)[1]

    def along(direction: np.ndarray) -> np.ndarray:
        unit = direction / np.linalg.norm(direction)
        return np.array([2 * objective(start + step * unit)[0] for step in steps])

    rng = np.random.default_rng(0)
    found = Walk(
        steps,
        along(-gradient),
        along(gradient),
        [along(rng.standard_normal(len(start))) for _ in range(random)],
        gradient,
    )
    net.theta = start
    return found


def nearness(net: gpunn.Sequential, train: Split, sizes: Sequence[int], draws: int) -> dict[int, np.ndarray]:
    """The cosine of the angle between the gradient of a minibatch and that of all examples, by size."""

    def gradient(rows: object) -> np.ndarray:
        parts = net.gradients(train.X[rows], train.y[rows], loss="quadratic").values()
        vector = np.concatenate([part.ravel() for part in parts])
        return vector / np.linalg.norm(vector)

    rng = np.random.default_rng(0)
    whole = gradient(slice(None))
    return {
        size: np.array(
            [whole @ gradient(rng.choice(len(train.X), size, replace=False)) for _ in range(draws)]
        )
        for size in sizes
    }


# Chapter 3: what one example asks for, and what all of them do


@dataclass(frozen=True)
class Wishes:
    """What one example wants: outputs, and the wanted changes −∂C₀/∂a of the last two layers."""

    outputs: np.ndarray
    targets: np.ndarray
    of_outputs: np.ndarray
    before: np.ndarray
    of_before: np.ndarray
    of_weights: np.ndarray


def wishes(net: gpunn.Sequential, x: np.ndarray, digit: int) -> Wishes:
    """−∂C₀/∂a^(L) = 2(y − a), −∂C₀/∂a^(L−1) through the Jacobian of the last layer, and −∂C₀/∂w^(L)."""
    below = gpunn.Sequential(net.layers[:-1], net.input_shape, net.device, net.dtype, seed=0)
    last = gpunn.Sequential(net.layers[-1:], below.output_shape, net.device, net.dtype, seed=0)
    below.theta, last.theta = np.split(net.theta, [below.theta.size])
    before = below.predict(x[None])[0]
    outputs = last.predict(before[None])[0]
    targets = np.eye(10)[digit]
    of_outputs = 2 * (targets - outputs)
    of_before = last.jacobian(before).T @ of_outputs
    key = f"layers.{len(net.layers) - 1}.weights"
    of_weights = -2 * net.gradients(x[None], [digit], loss="quadratic")[key]
    return Wishes(outputs, targets, of_outputs, before, of_before, of_weights)


def nudged(outputs: Sequence[float], digit: int) -> str:
    """Which way −∂C₀/∂a points for given outputs: δ of a layer that hands them through."""
    size = len(outputs)
    through = gpunn.Sequential([gpunn.Dense(size)], input_shape=size, dtype="float64", seed=0)
    through.parameters["layers.0.weights"] = np.eye(size)
    delta = through.errors([outputs], [digit], loss="quadratic")["layers.0"][0]
    return ", ".join("up" if change < 0 else "down" for change in delta)


def asked_for(net: gpunn.Sequential, train: Split) -> np.ndarray:
    """−∂C₀/∂b of the ten outputs for the first example of each digit, and last their average: (11, 10)."""
    rows = [int(np.flatnonzero(train.y == digit)[0]) for digit in range(10)]
    X, y = train.X[rows], train.y[rows]
    last = f"layers.{len(net.layers) - 1}"
    each = -2 * len(rows) * net.errors(X, y, loss="quadratic")[last]
    average = -2 * net.gradients(X, y, loss="quadratic")[f"{last}.bias"]
    return np.vstack([each, average])


# Chapter 4: the chain rule in numbers


@dataclass(frozen=True)
class Link:
    """One neuron of the chain: what goes in, what comes out, and the local derivatives."""

    w: float
    b: float
    before: float
    z: float
    a: float
    sigma_prime: float


def chain() -> tuple[gpunn.Sequential, list[Link]]:
    """1-1-1-1 with sigmoids and input 0.5, and the numbers of each link, the last one the link of layer L.

    Biases and weights are the first six that NumPy's old generator draws from N(0, 1) with the seed 6, as in
    the program of the video, and what its screen shows comes out: a^(L−1) = 0.48 and a^(L) = 0.66.
    """
    drawn = np.random.RandomState(6).standard_normal(6)
    biases, weights = drawn[:3], drawn[3:]
    layers = [gpunn.Dense(1, activation="sigmoid") for _ in range(3)]
    net = gpunn.Sequential(layers, input_shape=1, dtype="float64", seed=0)
    net.theta = np.stack([weights, biases], axis=1).ravel()
    links, a = [], 0.5
    for w, b in zip(weights, biases, strict=True):
        z = w * a + b
        out = 1 / (1 + math.exp(-z))
        links.append(Link(w, b, a, z, out, out * (1 - out)))
        a = out
    return net, links


def chain_rule() -> dict[str, tuple[float, float]]:
    """Each derivative of C₀ = (a^(L) − 1)² as a product along the chain, and as gpunn computes it.

    With one output ``"mse"`` is C₀ itself. ∂C₀/∂a^(L−1) is the Jacobian of the last neuron alone, times
    ∂C₀/∂a^(L).
    """
    net, links = chain()
    previous, last = links[-2:]
    found = net.gradients([[0.5]], [1.0], loss="mse")
    neuron = gpunn.Sequential(net.layers[-1:], input_shape=1, dtype="float64", seed=0)
    neuron.theta = [last.w, last.b]
    slope = 2 * (last.a - 1)
    through = last.w * last.sigma_prime * slope
    return {
        "∂C₀/∂w^(L)": (last.before * last.sigma_prime * slope, found["layers.2.weights"].item()),
        "∂C₀/∂b^(L)": (last.sigma_prime * slope, found["layers.2.bias"].item()),
        "∂C₀/∂a^(L−1)": (through, neuron.jacobian([last.before]).item() * slope),
        "∂C₀/∂w^(L−1)": (previous.before * previous.sigma_prime * through, found["layers.1.weights"].item()),
    }


def summed_over_paths() -> tuple[np.ndarray, np.ndarray]:
    """∂C₀/∂a_k^(L−1) = Σ_j w_jk σ′(z_j) 2(a_j − y_j), written out, and by gpunn's backpropagation."""
    net = network(30, dtype="float64")
    x, digit = np.random.default_rng(0).uniform(size=30), 2
    wanted = wishes(net, x, digit)
    W = net.parameters["layers.2.weights"]
    a, y = wanted.outputs, wanted.targets
    written_out = np.array(
        [sum(W[j, k] * a[j] * (1 - a[j]) * 2 * (a[j] - y[j]) for j in range(10)) for k in range(16)]
    )
    delta = 2 * net.errors(x[None], [digit], loss="quadratic")["layers.1"][0]
    return written_out, delta / (wanted.before * (1 - wanted.before))


def averaged() -> float:
    """The largest difference between ∇C and the average of the ∇C_k, example by example."""
    net = network(30, dtype="float64")
    rng = np.random.default_rng(0)
    X, y = rng.uniform(size=(20, 30)), rng.integers(10, size=20)
    whole = net.gradients(X, y, loss="quadratic")
    single = [net.gradients(X[k : k + 1], y[k : k + 1], loss="quadratic") for k in range(20)]
    return max(
        float(np.abs(whole[key] - np.mean([one[key] for one in single], axis=0)).max()) for key in whole
    )


def numbers() -> list[Row]:
    """What the videos and their text versions state as a number, and the same computed here."""
    counts = counted()
    sigma = gpunn.Sequential([gpunn.Activation("sigmoid")], input_shape=1, dtype="float64")
    down = importance(3, 1)[0]
    last = chain()[0].gradients([[0.5]], [[1.0]], loss="quadratic")
    slopes = {name: last[f"layers.2.{name}"].item() for name in ("weights", "bias")}
    by_hand, by_gpunn = summed_over_paths()
    rows = [
        Row(STRUCTURE, "weights into the first hidden layer", 784 * 16, counts["layers.0.weights"]),
        Row(STRUCTURE, "biases of the first hidden layer", 16, counts["layers.0.bias"]),
        Row(STRUCTURE, "weights and biases in all", 13_002, counts["all"]),
        Row(STRUCTURE, "σ(−1000)", 0.0, float(sigma.predict([[-1000.0]])[0, 0])),
        Row(STRUCTURE, "images by what an edge neuron sums up", "B > D > A > C", ranked()),
        # The video's outputs have two digits, its cost was summed before they were rounded.
        Row(DESCENT, "cost of one example, untrained", TRASH_COST, cost_of_outputs(TRASH, 3), within=0.02),
        Row(DESCENT, "∇C = (3, 1): how much more x matters", 3.0, float(down[0] / down[1]), within=1e-12),
        Row(
            BACKPROP, "−∇C of 3.2 and 0.1: ratio of equal nudges", 32.0, importance(3.2, 0.1)[1], within=1e-9
        ),
        Row(BACKPROP, "outputs 0.5, 0.8, 0.2 for a 2: nudges", "down, down, up", nudged([0.5, 0.8, 0.2], 2)),
        Row(BACKPROP, "average of the ∇C_k of 20 examples, less ∇C", 0.0, averaged(), within=1e-15),
        Row(CALCULUS, "weights and biases of the chain", 6, len(chain()[0].theta)),
        Row(CALCULUS, "a^(L−1) = ∂C/∂w over ∂C/∂b", 0.48, slopes["weights"] / slopes["bias"], within=0.005),
        Row(CALCULUS, "a^(L)", 0.66, float(chain()[0].predict([[0.5]])[0, 0]), within=0.005),
        Row(CALCULUS, "C₀ = (0.66 − 1.00)²", 0.34**2, squares(chain()[0], [[0.5]], [1.0]), within=0.0035),
    ]
    for what, (product, computed) in chain_rule().items():
        rows.append(Row(CALCULUS, f"{what}, as a product", product, computed, within=1e-15))
    rows.append(
        Row(
            CALCULUS,
            "Σ over paths of ∂C₀/∂a_k, less gpunn's",
            0.0,
            float(np.abs(by_hand - by_gpunn).max()),
            1e-14,
        )
    )
    return rows


# What is trained


def load() -> tuple[Split, Split]:
    """Training and test data: MNIST where it is found, else the bundled digits."""
    try:
        data = load_mnist()
    except gpunn.GpunnError:
        data = load_digits()
    return data.train, data.test


def trained(train: Split, test: Split, device: str, quick: bool) -> dict[str, gpunn.Sequential]:
    """The network of the videos with sigmoids and with ReLUs, and one with a few tweaks."""
    inputs, epochs = train.X.shape[1], 8 if quick else 30
    he = {"weights": "he_normal", "bias": "zeros", "device": device}
    wide = [gpunn.Dense(128, activation="relu", weights="he_normal"), gpunn.Dense(10, activation="softmax")]
    short = 4 if quick else 15
    schedule, shorter = gpunn.Cosine(epochs), gpunn.Cosine(short)
    plan = {
        "sigmoid": (
            network(inputs, weights="lecun_normal", bias="zeros", device=device),
            6.0,
            10 if quick else 100,
            epochs,
        ),
        "ReLU": (network(inputs, "relu", **he), 1.0, 10 if quick else 20, epochs),
        "tweaked": (gpunn.Sequential(wide, inputs, device=device, seed=0), 0.1, 10, short),
    }
    for name, (net, lr, batch, many) in plan.items():
        net.fit(
            train.X,
            train.y,
            loss="cross_entropy" if name == "tweaked" else "quadratic",
            optimizer=gpunn.SGD(lr=lr, schedule=shorter if name == "tweaked" else schedule),
            batch_size=batch,
            epochs=many,
            validation_data=(test.X, test.y),
            metrics=("accuracy",),
            verbose=0,
        )
    return {name: net for name, (net, *_) in plan.items()}


def noise(net: gpunn.Sequential, count: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Images of random pixels, and what the network answers."""
    X = np.random.default_rng(0).uniform(size=(count, *net.input_shape)).astype("float32")
    return X, net.predict(X)


def random_labels(train: Split, test: Split, device: str, quick: bool) -> dict[str, gpunn.History]:
    """A wide network on few examples, with their labels and with the same labels shuffled."""
    count, epochs = (200, 120) if quick else (1000, 40)
    X, y = train.X[:count], train.y[:count]
    shuffled = np.random.default_rng(0).permutation(y)
    runs = {}
    for name, labels in (("true labels", y), ("shuffled labels", shuffled)):
        layers = [
            gpunn.Dense(256, activation="relu", weights="he_normal"),
            gpunn.Dense(10, activation="softmax"),
        ]
        net = gpunn.Sequential(layers, train.X.shape[1], device=device, seed=0)
        runs[name] = net.fit(
            X,
            labels,
            loss="cross_entropy",
            optimizer=gpunn.Adam(lr=0.001),
            batch_size=20,
            epochs=epochs,
            validation_data=(test.X, test.y),
            metrics=("accuracy",),
            verbose=0,
        )
    return runs


# Pictures


def panels(*widths: float, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """A white figure with plain axes of these widths beside each other, in inches."""
    figure = Figure(figsize=(sum(widths), height), dpi=150, layout="constrained", facecolor="white")
    drawn = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0].tolist()
    for axes in drawn:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(labelsize=8.5, color=GREY, labelcolor=DARK)
        axes.set_axisbelow(True)
    return figure, drawn


def told(axes: Axes, title: str, x: str, y: str) -> None:
    """What a panel shows and what its axes are."""
    axes.set_title(title, fontsize=9, loc="left", color=DARK)
    axes.set_xlabel(x, fontsize=8.5, color=DARK)
    axes.set_ylabel(y, fontsize=8.5, color=DARK)


def beside(axes: Axes, height: float, words: str, colour: str) -> None:
    """Words to the right of the axes, at a height of its data."""
    axes.annotate(
        words, (1, height), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=8, color=colour, annotation_clip=False,
    )  # fmt: skip


def written(figure: Figure, title: str, path: Path) -> None:
    """Give the picture its title and save it."""
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path)


def image(axes: Axes, pixels: np.ndarray, title: str) -> None:
    """One digit, white on black."""
    side = math.isqrt(pixels.size)
    axes.imshow(pixels.reshape(side, side), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, loc="left", color=DARK)


def draw_edge(path: Path) -> None:
    """The weights that were set by hand, the four images and the weighted sum that each gives."""
    neuron, images = edge_detector()
    figure, drawn = panels(*[1.35] * 5, height=1.75)
    weights = neuron.parameters["layers.0.weights"].reshape(28, 28)
    drawn[0].imshow(weights, cmap=diverging(), vmin=-1.3, vmax=1.3)
    drawn[0].set_title("weights", fontsize=9, loc="left", color=DARK)
    for axes, (name, pixels) in zip(drawn[1:], images.items(), strict=True):
        total = float(neuron.predict(pixels.reshape(1, 784))[0, 0])
        image(axes, pixels, f"{name}: sum {total:g}".replace("-", "−"))
    drawn[0].set_xticks([])
    drawn[0].set_yticks([])
    drawn[0].spines[:].set(visible=True, color=GREY)
    written(figure, "Weights are a picture of what a neuron looks for: +1 blue, −1 orange", path)


def diverging() -> LinearSegmentedColormap:
    """Vermilion, white at 0, blue."""
    return LinearSegmentedColormap.from_list("diverging", [VERMILION, "white", BLUE])


def draw_wishes(x: np.ndarray, digit: int, wanted: Wishes, path: Path) -> None:
    """The image, the outputs with arrows towards their targets, the wanted changes one layer before."""
    figure, (left, middle, right) = panels(1.7, 3.4, 3.6, height=2.7)
    image(left, x, f"one example: a {digit}")
    rows = np.arange(10)
    middle.hlines(rows, 0, 1, color="#e4e4e4", linewidth=0.8)
    middle.scatter(
        wanted.targets, rows, s=26, facecolors="white", edgecolors=DARK, zorder=3, label="wanted, y"
    )
    middle.scatter(wanted.outputs, rows, s=22, color=DARK, zorder=4, label="output, a")
    for row, (a, y) in enumerate(zip(wanted.outputs, wanted.targets, strict=True)):
        if abs(y - a) > 0.1:
            colour = BLUE if y > a else VERMILION
            shape = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 3, "shrinkB": 3}
            middle.annotate("", (y, row), (a, row), arrowprops=shape, zorder=2)
    middle.set_yticks(rows)
    middle.invert_yaxis()
    middle.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.07), ncols=2)
    told(middle, "", "activation of the output", "output for digit")
    order = np.arange(1, 17)
    colours = [BLUE if wish > 0 else VERMILION for wish in wanted.of_before]
    right.bar(order, wanted.of_before, color=colours, width=0.7)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.set_xticks(order[::3])
    told(right, "what they ask of the layer before", "neuron of the second hidden layer", "−∂C₀/∂a")
    written(
        figure, f"One example, untrained: the output for {digit} is to rise, the others are to fall", path
    )


def draw_asked_for(asked: np.ndarray, path: Path) -> None:
    """A row an example, a column an output; below them the average."""
    figure, (axes,) = panels(4.8, height=3.7)
    top = float(np.abs(asked).max())
    shown = np.insert(asked, 10, np.nan, axis=0)
    drawn = axes.imshow(shown, cmap=diverging(), vmin=-top, vmax=top, aspect="auto")
    axes.set_xticks(range(10))
    axes.set_yticks([*range(10), 11], [f"a {digit}" for digit in range(10)] + ["average"])
    axes.spines[:].set_visible(False)
    told(axes, "", "bias of the output for digit", "example")
    bar = figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label("−∂C₀/∂b, the wanted change", fontsize=8.5, color=DARK)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)
    written(figure, "Each example asks for its own; what is done is the average", path)


def draw_walk(found: Walk, path: Path) -> None:
    """The cost along directions, and the sizes of the gradient's components."""
    figure, (left, right) = panels(4.6, 3.7, height=2.9)
    for costs in found.elsewhere:
        left.plot(found.steps, costs, color=GREY, linewidth=0.9)
    left.plot(found.steps, found.up, color=VERMILION, linewidth=1.8)
    left.plot(found.steps, found.down, color=BLUE, linewidth=1.8)
    beside(left, found.up[-1], "along ∇C", VERMILION)
    beside(left, float(np.mean([costs[-1] for costs in found.elsewhere])), "random\ndirections", "#707070")
    beside(left, found.down[-1], "along −∇C", BLUE)
    left.set_xlim(0, found.steps[-1])
    left.set_ylim(0, None)
    left.grid(color="#e4e4e4", linewidth=0.6)
    told(left, "steps of the same length, different directions", "length of the step ‖Δθ‖", "cost C")
    sizes = np.sort(np.abs(found.gradient))[::-1]
    moved = sizes[sizes > 0]
    right.semilogy(np.arange(1, len(moved) + 1), moved, color=BLUE, linewidth=1.8)
    right.set_xlim(0, len(sizes) * 1.02)
    right.set_ylim(max(moved[-1], moved[0] * 1e-7), moved[0] * 2)
    right.grid(color="#e4e4e4", linewidth=0.6)
    right.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    share = float((sizes[: len(sizes) // 100] ** 2).sum() / (sizes**2).sum())
    words = f"the largest 1 %\nhold {100 * share:.0f} % of ‖∇C‖²"
    still = len(sizes) - len(moved)
    words += f"\n{still:,} are exactly 0" if still else ""
    right.minorticks_off()
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    right.text(
        0.97,
        0.97,
        words,
        transform=right.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        color=DARK,
        bbox=plain,
    )
    told(right, f"the {len(sizes):,} components, largest first", "rank of the component", "size |∂C/∂θᵢ|")
    written(figure, "The negative gradient: which way is down, and which weights matter", path)


def draw_nearness(found: Mapping[int, np.ndarray], path: Path) -> None:
    """Dots for the draws, a line through their means."""
    figure, (axes,) = panels(4.2, height=2.8)
    for size, values in found.items():
        axes.scatter([size] * len(values), values, s=9, color="#56b4e9", alpha=0.7, linewidths=0)
    means = [values.mean() for values in found.values()]
    axes.plot(list(found), means, color=BLUE, marker="o", markersize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xticks(list(found), [f"{size:,}" for size in found])
    axes.minorticks_off()
    axes.set_ylim(min(0.0, *(values.min() for values in found.values())), 1.03)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    told(axes, "", "examples in the minibatch", "cosine with the gradient of all")
    written(figure, "A minibatch points nearly the same way", path)


def draw_accuracies(nets: Mapping[str, gpunn.Sequential], path: Path) -> None:
    """Accuracy on the test data over the epochs."""
    figure, (axes,) = panels(5.6, height=3.0)
    inputs = nets["sigmoid"].input_shape[0]
    names = {
        "sigmoid": f"{inputs}-16-16-10, sigmoid",
        "ReLU": f"{inputs}-16-16-10, ReLU",
        "tweaked": f"{inputs}-128-10, ReLU, softmax",
    }
    lowest = 1.0
    for (name, net), colour in zip(nets.items(), (BLUE, VERMILION, GREEN), strict=True):
        accuracies = net.history["val_accuracy"]
        lowest = min(lowest, accuracies[1])
        label = f"{names[name]}: {100 * accuracies[-1]:.1f} %"
        axes.plot(net.history["epoch"], 100 * np.array(accuracies), color=colour, linewidth=1.8, label=label)
    for stated in (96, 98):
        axes.axhline(stated, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)))
        beside(axes, stated, f"{stated} %, stated", DARK)
    axes.set_ylim(min(90, math.floor(100 * lowest)), 99.4)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    told(axes, "", "epoch", "accuracy on new images (%)")
    written(figure, "How many new images are read rightly", path)


def draw_noise(X: np.ndarray, answers: np.ndarray, digit: np.ndarray, sure: np.ndarray, path: Path) -> None:
    """Noise and a digit that the network takes for the same, with the outputs of both."""
    figure, drawn = panels(1.5, 2.5, 1.5, 2.5, height=2.2)
    named = (("random pixels", X, answers), ("a real image", digit, sure))
    for place, (title, pixels, outputs) in enumerate(named):
        image(drawn[2 * place], pixels, title)
        axes = drawn[2 * place + 1]
        best = int(outputs.argmax())
        axes.bar(range(10), outputs, color=[VERMILION if i == best else GREY for i in range(10)], width=0.7)
        axes.set_xticks(range(10))
        axes.set_ylim(0, 1.02)
        told(axes, f"“surely a {best}”: {outputs[best]:.2f}", "output for digit", "activation")
    written(figure, "It can be about as sure of noise as of a digit", path)


def draw_random_labels(runs: Mapping[str, gpunn.History], path: Path) -> None:
    """Accuracy on the training data, and on new images."""
    figure, drawn = panels(3.4, 3.4, height=2.7)
    for axes, key, title in zip(
        drawn, ("accuracy", "val_accuracy"), ("training data", "new images"), strict=True
    ):
        for (name, history), colour in zip(runs.items(), (BLUE, VERMILION), strict=True):
            axes.plot(history["epoch"], 100 * np.array(history[key]), color=colour, linewidth=1.8, label=name)
        axes.set_ylim(0, 103)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        told(axes, title, "epoch", "accuracy (%)")
    drawn[0].legend(fontsize=8, frameon=False, loc="lower right")
    drawn[1].axhline(10, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)))
    drawn[1].text(1, 6.5, "guessing: 10 %", va="top", fontsize=8, color=DARK)
    title = "Shuffled labels are learnt later than true ones, and for nothing"
    if runs["shuffled labels"]["accuracy"][-1] > 0.95:
        title = "Shuffled labels are learnt by heart, only later, and for nothing"
    written(figure, title, path)


def draw_chain(path: Path) -> None:
    """The tree w, a, b → z → a → C of the last neuron, with every value and every local derivative."""
    last = chain()[1][-1]
    slope = 2 * (last.a - 1)
    figure = Figure(figsize=(7.6, 3.5), dpi=150, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 7.6), ylim=(0, 3.5))
    axes.set_axis_off()
    places = {"w": (0.95, 2.9), "a⁻": (0.95, 2.1), "b": (0.95, 1.3), "z": (3.3, 2.1)}
    places |= {"a": (5.05, 2.1), "y": (5.05, 1.3), "C": (6.85, 2.1)}
    words = {
        "w": rf"$w^{{(L)}}$ = {last.w:.4f}",
        "a⁻": rf"$a^{{(L-1)}}$ = {last.before:.4f}",
        "b": rf"$b^{{(L)}}$ = {last.b:.4f}",
        "z": rf"$z^{{(L)}}$ = {last.z:.4f}",
        "a": rf"$a^{{(L)}}$ = {last.a:.4f}",
        "y": "$y$ = 1",
        "C": rf"$C_0$ = {(last.a - 1) ** 2:.4f}",
    }
    edges = {
        ("w", "z"): rf"$a^{{(L-1)}}$ = {last.before:.4f}",
        ("a⁻", "z"): rf"$w^{{(L)}}$ = {last.w:.4f}",
        ("b", "z"): "1",
        ("z", "a"): f"$\\sigma'(z)$\n{last.sigma_prime:.4f}",
        ("a", "C"): f"$2(a-y)$\n{slope:.4f}".replace("-0", "−0"),
        ("y", "C"): "",
    }
    boxes = {}
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": DARK, "linewidth": 0.9}
        boxes[name] = axes.text(
            x, y, words[name], ha="center", va="center", fontsize=9.5, color=DARK, bbox=box
        )
    figure.canvas.draw()
    for (start, end), label in edges.items():
        shape = {"arrowstyle": "-|>", "color": GREY if start == "y" else BLUE, "linewidth": 1.4}
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        axes.annotate("", places[end], places[start], arrowprops=shape | ends)
        x, y = np.mean([places[start], places[end]], axis=0) + {"w": (0.35, 0.2), "b": (0.2, -0.2)}.get(
            start, (0, 0.08)
        )
        axes.text(
            x, y, label, ha="center", va="center" if start in "wb" else "bottom", fontsize=9, color=BLUE
        )
    found = chain_rule()
    factors = {
        "w^{(L)}": (f"{last.before:.4f}", found["∂C₀/∂w^(L)"]),
        "b^{(L)}": ("1", found["∂C₀/∂b^(L)"]),
        "a^{(L-1)}": (f"{last.w:.4f}", found["∂C₀/∂a^(L−1)"]),
    }
    for row, (name, (first, (_, computed))) in enumerate(factors.items()):
        y = 0.78 - 0.27 * row
        axes.text(
            1.75, y, rf"$\partial C_0/\partial {name}$", ha="right", va="center", fontsize=9.5, color=DARK
        )
        product = f"=  {first}  ×  {last.sigma_prime:.4f}  ×  ({slope:.4f})".replace("-", "−")
        axes.text(1.85, y, product, ha="left", va="center", fontsize=9.5, color=DARK)
        value = f"=  {computed:.6f}, computed by gpunn".replace("-", "−")
        axes.text(4.45, y, value, ha="left", va="center", fontsize=9.5, color=BLUE)
    written(figure, "The chain rule: multiply what stands on the arrows from w, b or a to the cost", path)


def main(device: str = "cpu", quick: bool = False, out: Path = PICTURES) -> list[Row]:
    """Run every part, write the pictures, return the rows."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = load()
    if quick:
        train, test = Split(train.X[:4000], train.y[:4000]), Split(test.X[:1000], test.y[:1000])
    inputs = train.X.shape[1]

    print("chapter 1: 13,002 weights and biases")
    rows = numbers()
    draw_edge(out / f"{NAME}_edge.png")
    fresh = network(inputs, device=device)
    untrained = fresh.evaluate(test.X, test.y, loss="quadratic", metrics=("accuracy",))["accuracy"]

    print("chapter 2: downhill, and in random directions")
    few = 500 if quick else 2000
    walked = walk(fresh, train.X[:few], train.y[:few], np.linspace(0, 6, 25))
    draw_walk(walked, out / f"{NAME}_downhill.png")

    print("chapter 2: training")
    nets = trained(train, test, device, quick)
    draw_accuracies(nets, out / f"{NAME}_accuracy.png")
    learnt = nets["sigmoid"]
    title = "The weights of the first layer after training: loose patterns rather than little edges"
    weight_images(learnt, path=out / f"{NAME}_weights.png", title=title)
    answers = learnt.predict(test.X)
    misclassified(
        test.X, test.y, answers.argmax(1), path=out / f"{NAME}_mistakes.png", title="What it gets wrong"
    )
    X, confident = noise(learnt)
    worst = int(confident.max(1).argmax())
    alike = int(np.where(test.y == confident[worst].argmax(), answers.max(1), 0).argmax())
    draw_noise(X[worst], confident[worst], test.X[alike], answers[alike], out / f"{NAME}_noise.png")

    print("chapter 2: shuffled labels")
    runs = random_labels(train, test, device, quick)
    draw_random_labels(runs, out / f"{NAME}_random_labels.png")

    print("chapter 3: what one example asks for, and what ten do")
    digit = int(np.flatnonzero(train.y == 2)[0])
    draw_wishes(train.X[digit], 2, wishes(fresh, train.X[digit], 2), out / f"{NAME}_nudges.png")
    draw_asked_for(asked_for(fresh, train), out / f"{NAME}_average.png")
    near = nearness(fresh, train, (1, 10, 100, 1000), 5 if quick else 20)
    draw_nearness(near, out / f"{NAME}_minibatches.png")

    print("chapter 4: the chain rule, factor by factor")
    draw_chain(out / f"{NAME}_chain.png")

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    last = {name: net.history["val_accuracy"][-1] for name, net in nets.items()}
    heart = {name: history["accuracy"][-1] for name, history in runs.items()}
    useless = runs["shuffled labels"]["val_accuracy"][-1]
    rows += [
        Row(DESCENT, "accuracy of the untrained network", "it guesses", percent(untrained), None),
        Row(DESCENT, "accuracy, 16-16 sigmoid", "about 96 %", percent(last["sigmoid"]), None),
        Row(DESCENT, "accuracy, 16-16 ReLU", "about 96 %", percent(last["ReLU"]), None),
        Row(DESCENT, "accuracy with a few tweaks", "98 %", percent(last["tweaked"]), None),
        Row(
            DESCENT,
            "largest output for noise, mean of 1,000",
            "confident",
            f"{confident.max(1).mean():.2f}",
            None,
        ),
        Row(DESCENT, "training accuracy, true labels", "high", percent(heart["true labels"]), None),
        Row(
            DESCENT, "training accuracy, shuffled labels", "as high", percent(heart["shuffled labels"]), None
        ),
        Row(DESCENT, "new images after shuffled labels", "a guess", percent(useless), None),
        Row(
            BACKPROP, "cosine of ∇C with that of 100 examples", "pretty good", f"{near[100].mean():.2f}", None
        ),
    ]
    return rows


if __name__ == "__main__":
    run(main, __doc__)
