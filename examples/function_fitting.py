"""A network 1-10-1 learns a curve y = f(x) by gradient descent, and what the learning rate and the batch do.

    python examples/function_fitting.py [--device cpu] [--quick] [--out FOLDER]

The fitted curve and its difference from f(x) after more and more epochs; learning rates that are too small,
right and too large, with the error that gpunn raises; all examples, one example or a few in each update.

Sources: Lovkush Agarwal, "Stochastic Gradient Descent, Part II" (lovkush-a.github.io, 2020), which fits
lines, parabolas and sines; Manjeet Dahiya, "Gradient descent variants" (manjeetdahiya.com); LeCun, Bottou,
Orr and Müller, "Efficient BackProp" (1998), for the largest learning rate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from notes import PICTURES, Row, run

import gpunn
from gpunn.plotting import error_surface, fitted_curves

NAME = "function_fitting"
VARIANTS = "Dahiya, Gradient descent variants"
RATES = "LeCun et al. 1998, Efficient BackProp"
FITTING = "Agarwal, Stochastic gradient descent, part II"
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
BLACK, GREY, DARK, LIGHT = "#000000", "#b0b0b0", "#404040", "#e4e4e4"

EXAMPLES = 50
BATCHES = {"all 50 examples": 50, "minibatches of 8": 8, "single examples": 1}


def f(x: np.ndarray) -> np.ndarray:
    """The curve to be learnt."""
    return np.sin(np.pi * x) * (1 + x / 2)


def data(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Fifty points of the curve, with x from −1 to 1: (50, 1) and (50,)."""
    x = np.linspace(-1, 1, EXAMPLES)
    return x[:, None], f(x) + noise * np.random.default_rng(0).standard_normal(EXAMPLES)


def network(device: str = "cpu") -> gpunn.Sequential:
    """1-10-1: f(x) ≈ b₂ + Σ w₂ tanh(w₁ x + b₁)."""
    hidden = gpunn.Dense(10, activation="tanh", weights="normal", bias="normal")
    return gpunn.Sequential([hidden, gpunn.Dense(1)], input_shape=1, device=device, dtype="float64", seed=0)


def fitted(epochs: tuple[int, ...], device: str = "cpu") -> dict[str, np.ndarray]:
    """The network's curve after so many epochs of full-batch gradient descent."""
    X, y = data()
    net = network(device)
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=0.3), batch_size=EXAMPLES)
    curves = {}
    for until in epochs:
        trainer.fit(X, y, epochs=until - trainer.epochs_done, shuffle=False, verbose=0)
        curves[f"epoch {until:,}"] = net.predict(X)[:, 0]
    return curves


# The learning rate


@dataclass(frozen=True)
class Descent:
    """One run with one learning rate: the cost before each update, the last curve, what was said."""

    lr: float
    costs: np.ndarray
    curve: np.ndarray
    first_curves: list[np.ndarray]
    said: str = ""


def descend(lr: float, epochs: int, device: str = "cpu") -> Descent:
    """Full-batch gradient descent until it is done, or until gpunn says that it diverges."""
    X, y = data()
    net = network(device)
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=lr), batch_size=EXAMPLES)
    first, said = [], ""
    try:
        for _ in range(4):
            trainer.epoch(X, y, shuffle=False)
            first.append(net.predict(X)[:, 0])
        trainer.fit(X, y, epochs=epochs - 4, shuffle=False, verbose=0)
    except gpunn.DivergenceError as error:
        said = str(error)
    return Descent(lr, np.array(trainer.history["loss"]), net.predict(X)[:, 0], first, said)


def step_named(error: str) -> int:
    """The step that a DivergenceError names."""
    found = re.search(r"step (\d+)", error)
    assert found is not None
    return int(found[1])


def linear_neuron(lr: float, updates: int, *, start: float = 1.0) -> np.ndarray:
    """w after each update of a neuron a = w x, with x = 1, 2, 3 and the targets 0: its best weight is 0.

    C = ½ mean (w x)² = ½ λ w² is a parabola with the curvature λ = mean x² = 14/3.
    """
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, dtype="float64", seed=0)
    net.theta = [start, 0.0]
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=lr), batch_size=6)
    # Each x with both signs: the gradient of the bias is 0, so it stays where it is.
    X = np.array([[1.0], [2.0], [3.0], [-1.0], [-2.0], [-3.0]])
    path = [start]
    for _ in range(updates):
        trainer.step(X, np.zeros(6))
        path.append(float(net.parameters["layers.0.weights"][0, 0]))
    return np.array(path)


CURVATURE = 14 / 3


def first_infinite_step() -> int:
    """Where gpunn stops a = w x with x = 1, y = 0, w = 1 and η = 3: w doubles and changes its sign each time.

    The step k + 1 squares 2ᵏ, which float64 holds up to 2^1023: k = 512 is too much.
    """
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=2, dtype="float64", seed=0)
    net.theta = [1, 0, 0]
    X = np.array([[1.0, 0.0], [-1.0, 0.0]])
    try:
        net.fit(
            X,
            np.zeros(2),
            loss="quadratic",
            optimizer=gpunn.SGD(lr=3.0),
            epochs=600,
            shuffle=False,
            verbose=0,
        )
    except gpunn.DivergenceError as error:
        return step_named(str(error))
    raise AssertionError("it did not diverge")


# How many examples for one update


def updates_of_an_epoch(batch_size: int) -> int:
    """Counted by the trainer itself."""
    X, y = data()
    trainer = gpunn.Trainer(network(), loss="quadratic", optimizer=gpunn.SGD(lr=0.1), batch_size=batch_size)
    return int(trainer.epoch(X, y)["updates"])


def by_batch(epochs: Mapping[str, int], device: str = "cpu") -> dict[str, dict[str, np.ndarray]]:
    """The cost over all noisy examples after each epoch, with the updates and the seconds that it took."""
    X, y = data(noise=0.1)
    runs = {}
    for name, size in BATCHES.items():
        # Kernels are loaded at the first fit, which is none of what is timed.
        network(device).fit(X, y, loss="quadratic", optimizer=gpunn.SGD(lr=0.1), batch_size=size, verbose=0)
        net = network(device)
        begun = net.evaluate(X, y, loss="quadratic")["loss"]
        history = net.fit(
            X,
            y,
            loss="quadratic",
            optimizer=gpunn.SGD(lr=0.1),
            batch_size=size,
            epochs=epochs[name],
            validation_data=(X, y),
            verbose=0,
        )
        runs[name] = {
            "cost": np.array([begun, *history["val_loss"]]),
            "epochs": np.array([0, *history["epoch"]]),
            "updates": np.array([0, *history["updates"]]),
            # The median, since another program may have had the processor for a while.
            "milliseconds": 1e3 * np.median(history["seconds"]) * np.array([0, *history["epoch"]]),
        }
    return runs


def line() -> tuple[np.ndarray, np.ndarray]:
    """Fifty noisy points of y = 1.5 x − 0.5."""
    X = np.linspace(-1, 1, EXAMPLES)[:, None]
    return X, 1.5 * X[:, 0] - 0.5 + 0.4 * np.random.default_rng(1).standard_normal(EXAMPLES)


def paths(updates: Mapping[str, int], device: str = "cpu") -> dict[str, np.ndarray]:
    """(w, b) of a neuron a = w x + b after each update, for the three sizes of batch."""
    X, y = line()
    found = {}
    for name, size in BATCHES.items():
        net = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, device=device, dtype="float64", seed=0)
        net.theta = [-1.0, 1.5]
        trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=0.3), batch_size=size)
        points = [net.theta]
        for _ in range(updates[name]):
            trainer.epoch(X, y, steps=1)
            points.append(net.theta)
        found[name] = np.array(points)
    return found


def numbers() -> list[Row]:
    """What is stated as a number, and the same counted or computed here."""
    best = 1 / CURVATURE
    slow = linear_neuron(0.1 * best, 20)
    return [
        Row(
            "counted: n + n + n + 1", "weights and biases of 1-n-1, n = 10: 3n + 1", 31, len(network().theta)
        ),
        Row(VARIANTS, "updates an epoch, all 50 examples: 1", 1, updates_of_an_epoch(50)),
        Row(VARIANTS, "updates an epoch, single examples: n", 50, updates_of_an_epoch(1)),
        Row(VARIANTS, "updates an epoch, minibatches of 8: ⌈n/B⌉", 7, updates_of_an_epoch(8)),
        Row(VARIANTS, "updates an epoch, minibatches of 10: n/B", 5, updates_of_an_epoch(10)),
        Row(RATES, "w after 20 updates, η = 0.1/λ: 0.9²⁰", 0.9**20, float(slow[-1]), within=1e-15),
        Row(RATES, "w after one update, η = 1/λ", 0.0, float(linear_neuron(best, 1)[-1]), within=1e-15),
        Row(
            RATES,
            "w after one update, η = 2/λ: −w",
            -1.0,
            float(linear_neuron(2 * best, 1)[-1]),
            within=1e-15,
        ),
        Row(
            RATES,
            "w after ten updates, η = 3/λ: 2¹⁰ w",
            1024.0,
            float(linear_neuron(3 * best, 10)[-1]),
            within=1e-9,
        ),
        Row("IEEE 754, double precision", "first step whose cost overflows", 513, first_infinite_step()),
    ]


# Pictures


def styled(axes: Axes, title: str, x: str, y: str) -> None:
    """Plain axes, what they are, and what the panel shows."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8.5, color=GREY, labelcolor=DARK)
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.minorticks_off()
    axes.set_title(title, fontsize=9, loc="left", color=DARK)
    axes.set_xlabel(x, fontsize=8.5, color=DARK)
    axes.set_ylabel(y, fontsize=8.5, color=DARK)


def white(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def written(figure: Figure, title: str, path: Path) -> None:
    """Give the picture its title and save it."""
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.savefig(path)


def draw_rates(runs: Mapping[str, Descent], path: Path) -> None:
    """Above, what each learning rate makes of the curve; below, the cost over the updates."""
    X, y = data()
    figure = white(7.8, 5.2)
    grid = figure.subplot_mosaic([["too small", "right", "too large"], ["cost"] * 3], height_ratios=(1, 1.05))
    colours = dict(zip(runs, (GREEN, BLUE, VERMILION), strict=True))
    for name, found in runs.items():
        axes = grid[name]
        axes.plot(X[:, 0], y, color="black", linewidth=3.2, alpha=0.3, label="f(x)")
        updates = f"{len(found.costs):,} updates"
        if found.said:
            for number, curve in enumerate(found.first_curves, 1):
                axes.plot(X[:, 0], curve, color=colours[name], linewidth=1.2, alpha=0.3 + 0.175 * number)
                axes.annotate(
                    f"{number}", (1, curve[-1]), (3, 0), textcoords="offset points",
                    va="center", fontsize=8, color=colours[name], annotation_clip=False,
                )  # fmt: skip
            updates = "updates 1–4"
        else:
            axes.plot(X[:, 0], found.curve, color=colours[name], linewidth=1.8, label="network")
        styled(axes, f"{name}, η = {found.lr:g}: {updates}", "x", "y")
    grid["right"].legend(fontsize=8, frameon=False, loc="upper left")
    axes = grid["cost"]
    for name, found in runs.items():
        # What is beyond the axis is left out: the last costs are near the end of what float64 holds.
        shown = found.costs[found.costs < 1e9]
        axes.loglog(
            np.arange(1, len(shown) + 1),
            shown,
            color=colours[name],
            linewidth=1.8,
            label=f"{name}, η = {found.lr:g}",
        )
        if found.said:
            last = (len(found.costs) + 1, 1e7)
            axes.plot(*last, marker="x", color=colours[name], markersize=8, markeredgewidth=2, clip_on=False)
            axes.annotate(
                f"DivergenceError at step {step_named(found.said)}", last, (8, 0),
                textcoords="offset points", va="center", fontsize=8.5, color=colours[name],
            )  # fmt: skip
    axes.set_ylim(1e-4, 1e7)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    styled(axes, "the cost", "update", "cost C")
    written(figure, "Learning rates: too small does not arrive, too large flies off", path)


def draw_parabola(path: Path) -> None:
    """The steps on C = ½ λ w² for four learning rates."""
    figure = white(9.2, 2.6)
    w = np.linspace(-2.3, 2.3, 200)
    for axes, times in zip(figure.subplots(1, 4, sharey=True), (0.2, 1.0, 1.8, 2.2), strict=True):
        steps = linear_neuron(times / CURVATURE, 6, start=1.0)
        axes.plot(w, CURVATURE * w**2 / 2, color=GREY, linewidth=1.6)
        colour = VERMILION if times > 2 else BLUE
        axes.plot(steps, CURVATURE * steps**2 / 2, "o-", color=colour, markersize=4, linewidth=1.2)
        axes.set_ylim(-0.4, 12)
        axes.set_xlim(-2.3, 2.3)
        word = {0.2: "creeps", 1.0: "in one step", 1.8: "from side to side", 2.2: "away"}[times]
        styled(axes, f"η = {times:g}/λ: {word}", "weight w", "cost C" if times == 0.2 else "")
    written(figure, "One weight, six updates: C = ½ λ w² bears learning rates up to 2/λ", path)


def draw_batches(runs: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """The same costs over updates, over epochs and over time, in the colours that the paths have."""
    figure = white(9.2, 3.0)
    drawn = figure.subplots(1, 3, sharey=True)
    names = {"updates": "updates", "epochs": "epochs", "milliseconds": "time (ms)"}
    for axes, (key, label) in zip(drawn, names.items(), strict=True):
        for (name, found), colour in zip(runs.items(), (VERMILION, BLACK, ORANGE), strict=True):
            axes.plot(found[key], found["cost"], color=colour, linewidth=1.5, label=name)
        axes.set_yscale("log")
        axes.set_xlim(0, min(found[key][-1] for found in runs.values()))
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:,g}")
        styled(axes, f"over {label}", label, "cost C over all examples" if key == "updates" else "")
    drawn[-1].legend(fontsize=8, frameon=False, loc="upper right")
    written(figure, "Fewer examples in an update: more updates in an epoch, and more noise (η = 0.1)", path)


def draw_paths(found: Mapping[str, np.ndarray], path: Path) -> None:
    """Three ways down one surface."""
    X, y = line()

    def cost(w: float, b: float) -> float:
        return float(((w * X[:, 0] + b - y) ** 2).mean() / 2)

    ends = {f"{name}, {len(points) - 1} updates": points for name, points in found.items()}
    title = "All examples go down smoothly, single ones stumble"
    error_surface(
        cost, np.linspace(-1.5, 2.7, 80), np.linspace(-1.6, 2, 80), descent=ends, path=path, title=title
    )


def main(device: str = "cpu", quick: bool = False, out: Path = PICTURES) -> list[Row]:
    """Run every part, write the pictures, return the rows."""
    out.mkdir(parents=True, exist_ok=True)
    rows = numbers()

    print("the curve and its difference from f(x) after more and more epochs")
    epochs = (1, 100, 400, 1000) if quick else (1, 100, 400, 4000)
    curves = fitted(epochs, device)
    X, y = data()
    title = "A network 1-10-1 learns f(x): first a slope, then both bends, last the ends"
    fitted_curves(
        X[:, 0], y, curves, difference=True, names=("x", "f(x)"), path=out / f"{NAME}_curve.png", title=title
    )
    rows += [
        Row(FITTING, f"mean |fit − f(x)| after {name}", "shrinks", float(np.abs(curve - y).mean()), None)
        for name, curve in curves.items()
    ]

    print("learning rates: too small, right, too large")
    many = 500 if quick else 2000
    rates = {
        name: descend(lr, many, device)
        for name, lr in (("too small", 0.003), ("right", 0.3), ("too large", 1.0))
    }
    print(f"    gpunn.DivergenceError: {rates['too large'].said}")
    draw_rates(rates, out / f"{NAME}_learning_rates.png")
    draw_parabola(out / f"{NAME}_parabola.png")
    rows += [
        Row(
            FITTING,
            f"cost after {many:,} updates, η = 0.003",
            "still large",
            float(rates["too small"].costs[-1]),
            None,
        ),
        Row(FITTING, f"cost after {many:,} updates, η = 0.3", "small", float(rates["right"].costs[-1]), None),
        Row(FITTING, "η = 1: step that gpunn names", "diverges", step_named(rates["too large"].said), None),
    ]

    print("all examples, minibatches, single examples")
    lengths = (600, 100, 100) if quick else (2000, 400, 400)
    runs = by_batch(dict(zip(BATCHES, lengths, strict=True)), device)
    draw_batches(runs, out / f"{NAME}_batches.png")
    draw_paths(paths(dict(zip(BATCHES, (40, 40, 60), strict=True)), device), out / f"{NAME}_paths.png")
    rows += [
        Row(
            VARIANTS,
            f"cost after 100 epochs, {name}",
            f"{updates_of_an_epoch(BATCHES[name])} per epoch",
            float(found["cost"][100]),
            None,
        )
        for name, found in runs.items()
    ]
    return rows


if __name__ == "__main__":
    run(main, __doc__)
