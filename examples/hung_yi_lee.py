"""Hung-yi Lee's Machine Learning (2021): predicting a channel's views, deep learning, and backpropagation.

    python examples/hung_yi_lee.py [--device cpu] [--quick] [--out FOLDER]

The lectures predict the views of their own channel, first with a line, then with more days, with sums of
sigmoids, with ReLUs, with more layers, until the network overfits. Their data are not public. Here
:func:`daily_views` makes a series up, so errors in thousands differ, and what has to come out is their shape.
What the lectures compute by hand is recomputed to their last digit.

Sources: Hung-yi Lee, National Taiwan University: Machine Learning 2021, the two introductory lectures
(https://youtu.be/Ye018rCVvOo, https://youtu.be/bHcJCp2Fyxs), and the two that they refer to: "Brief
Introduction of Deep Learning" (https://youtu.be/Dr-WRIEFefw) and "Backpropagation"
(https://youtu.be/ibJpTrp5mcE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from notes import PICTURES, Row, run

import gpunn
from gpunn.plotting import compare_runs, error_surface, fitted_curves, gradient_magnitudes, learning_curves

NAME = "hung_yi_lee"
REGRESSION = "Lee, ML 2021, Introduction I"
DEEP = "Lee, ML 2021, Introduction II"
BRIEF = "Lee, Brief introduction of deep learning"
BACKPROP = "Lee, Backpropagation"
HERE = "gpunn, backend against backend"
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
DARK, GREY, LIGHT = "#404040", "#b0b0b0", "#e4e4e4"

#: The lecture's mean absolute errors on its own data, in thousands of views: 2017 to 2020, and 2021, unseen.
WINDOWS = {1: (0.48, 0.58), 7: (0.38, 0.49), 28: (0.33, 0.46), 56: (0.32, 0.46)}
RELUS = {0: (0.32, 0.46), 10: (0.32, 0.45), 100: (0.28, 0.43), 1000: (0.27, 0.43)}
DEPTHS = {1: (0.28, 0.43), 2: (0.18, 0.39), 3: (0.14, 0.38), 4: (0.10, 0.44)}

#: Lunar New Year's Eve, when hardly anybody studies machine learning.
NEW_YEARS_EVES = ("2017-01-27", "2018-02-15", "2019-02-04", "2020-01-24", "2021-02-11")

#: The longest window, in days: all models predict the same days, whichever window they see.
LONGEST = 56


# Part 1: a channel's views


@dataclass(frozen=True)
class Views:
    """Views a day, in thousands, and what the models are told of them.

    ``days`` and ``counts`` begin 56 days before 2017; the days of 2017 to 2020 are learnt from, those of 2021
    are unseen.
    """

    days: np.ndarray
    counts: np.ndarray

    @property
    def seen(self) -> int:
        """How many days are predicted in training: those of 2017 to 2020."""
        return int(np.sum(self.days[LONGEST:] < np.datetime64("2021-01-01")))

    def windows(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """X, y of training and X, y unseen: x₁ is the day before y, x₂ the one before that, and so on."""
        X = np.lib.stride_tricks.sliding_window_view(self.counts, length)[LONGEST - length : -1, ::-1]
        y = self.counts[LONGEST:, None]
        return X[: self.seen], y[: self.seen], X[self.seen :], y[self.seen :]

    def scaled(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same with X about its mean, in standard deviations of training: y stays in thousands."""
        X, y, X_unseen, y_unseen = self.windows(length)
        return (X - y.mean()) / y.std(), y, (X_unseen - y.mean()) / y.std(), y_unseen


def daily_views(seed: int = 0) -> Views:
    """A made-up channel from 2016-11-06 to 2021-12-31, in thousands of views a day.

    views = trend · week · holiday · eˢ:  trend = 5 + 0.3 · years;  week = ½ on Fridays and Saturdays, else 1;
    holiday = 1 − ½ e^(−k/4), k ≥ 0 days after a Lunar New Year's Eve;  s = 0.95 s′ + 0.06 ε, where s′ is
    yesterday's s and ε ~ N(0, 1).

    Two low days a week and a dip that nothing announces are in the lecture's series too. Here they multiply
    what the channel would have otherwise, and a linear model can only add.
    """
    days = np.arange(np.datetime64("2016-11-06"), np.datetime64("2022-01-01"))
    weekday = (days.astype(int) + 3) % 7
    trend = 5 + 0.3 * np.arange(len(days)) / 365.25
    week = np.where((weekday == 4) | (weekday == 5), 0.5, 1.0)
    holiday = np.ones(len(days))
    for eve in NEW_YEARS_EVES:
        after = (days - np.datetime64(eve)).astype(int)
        holiday -= np.where(after >= 0, 0.5 * np.exp(-np.maximum(after, 0) / 4), 0.0)
    interest = np.zeros(len(days))
    noise = np.random.default_rng(seed).standard_normal(len(days))
    for today in range(1, len(days)):
        interest[today] = 0.95 * interest[today - 1] + 0.06 * noise[today]
    return Views(days, trend * week * holiday * np.exp(interest))


def regression(y: np.ndarray, inputs: int, hidden: Sequence[int] = (), **how: object) -> gpunn.Sequential:
    """y = b + Σ wⱼ xⱼ, or with ReLUs in between; what it says at first is about the mean of y."""
    layers = [gpunn.Dense(units, activation="relu", weights="he_normal") for units in hidden]
    net = gpunn.Sequential([*layers, gpunn.Dense(1)], input_shape=inputs, **{"seed": 0, **how})
    net.parameters[f"layers.{len(hidden)}.bias"] = [y.mean()]
    return net


def learnt(
    views: Views, window: int, hidden: Sequence[int], epochs: int, seed: int = 0, device: str = "cpu"
) -> tuple[gpunn.Sequential, gpunn.History]:
    """A model of so many days trained on 2017 to 2020 with the lecture's loss, the mean absolute error."""
    X, y, X_unseen, y_unseen = views.scaled(window)
    net = regression(y, window, hidden, seed=seed, device=device)
    # Where many ReLUs move at once, each has to move less.
    rate = 0.001 if hidden else 0.01
    history = net.fit(
        X,
        y,
        loss="mae",
        optimizer=gpunn.Adam(lr=rate, schedule=gpunn.Cosine(epochs)),
        batch_size=32,
        epochs=epochs,
        validation_data=(X_unseen, y_unseen),
        verbose=0,
    )
    return net, history


def errors(net: gpunn.Sequential, views: Views, window: int) -> tuple[float, float]:
    """The mean absolute error in training and on 2021, in thousands of views."""
    X, y, X_unseen, y_unseen = views.scaled(window)
    return net.evaluate(X, y, loss="mae")["loss"], net.evaluate(X_unseen, y_unseen, loss="mae")["loss"]


def mean_errors(
    views: Views, hidden: Sequence[int], epochs: int, seeds: int, device: str
) -> tuple[float, float]:
    """:func:`errors` of networks of 56 days, the mean over several first weights."""
    runs = [
        errors(learnt(views, LONGEST, hidden, epochs, seed, device)[0], views, LONGEST)
        for seed in range(seeds)
    ]
    return float(np.mean([seen for seen, _ in runs])), float(np.mean([unseen for _, unseen in runs]))


def linear_models(views: Views, epochs: int, device: str = "cpu") -> dict[int, gpunn.Sequential]:
    """y = b + Σ wⱼ xⱼ over the last 1, 7, 28 and 56 days."""
    return {days: learnt(views, days, (), epochs, device=device)[0] for days in WINDOWS}


def levels_off(here: Mapping[int, tuple[float, float]]) -> bool:
    """Whether 7 days beat 1 and 28 beat 7, seen and unseen, while 56 are hardly better than 28."""
    falls = all(here[a][i] > here[b][i] for a, b in ((1, 7), (7, 28)) for i in (0, 1))
    flat = all(abs(here[56][i] - here[28][i]) < 0.1 * (here[1][i] - here[28][i]) for i in (0, 1))
    return falls and flat


# Part 2: the loss of one line, and the way down its error surface


def lines_by_hand() -> dict[str, float]:
    """The lecture's example of a loss: y = 0.5k + 1 x₁ asked on 4.8k and 4.9k, where 4.9k and 7.5k came."""
    line = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, dtype="float64", seed=0)
    line.theta = [1.0, 0.5]
    X, y = [[4.8], [4.9]], [[4.9], [7.5]]
    first, second = line.predict(X)[:, 0]
    e1, e2 = (line.evaluate([x], [t], loss="mae")["loss"] for x, t in zip(X, y, strict=True))
    return {"y1": float(first), "y2": float(second), "e1": e1, "e2": e2}


def surface(views: Views, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """L(w, b) of y = b + w x₁ over 2017 to 2020, (len(b), len(w))."""
    X, y, *_ = views.windows(1)
    line = regression(y, 1, dtype="float64")
    cost = line.objective(X, y, loss="mae")
    return np.array([[cost([slope, height])[0] for slope in w] for height in b])


def descent(views: Views, start: tuple[float, float], rate: float, steps: int, device: str) -> np.ndarray:
    """The points (w, b) that gradient descent goes through, (steps + 1, 2); each step sees all data."""
    X, y, *_ = views.windows(1)
    line = regression(y, 1, dtype="float64", device=device)
    line.theta = start
    trainer = gpunn.Trainer(line, loss="mae", optimizer=gpunn.SGD(lr=rate), batch_size=len(X))
    path = [line.theta]
    for _ in range(steps):
        trainer.step(X, y)
        path.append(line.theta)
    return np.array(path)


# Part 3: y = b + cᵀ σ(b + W x)

#: The corners of a piecewise linear curve, as the lecture draws one: up, down, up again.
CORNERS = np.array([[0.0, 1.0], [1.5, 4.0], [3.0, 1.5], [5.0, 2.5]])


def curve(x: np.ndarray) -> np.ndarray:
    """The piecewise linear curve through the corners, flat outside."""
    return np.interp(x, *CORNERS.T)


def ramps(activation: str, dtype: str = "float64") -> gpunn.Sequential:
    """The curve as a constant and one step for each piece, with parameters that are read off its corners.

    Step i rises from 0 to 1 between corners i and i + 1 and is cᵢ high. With gpunn's hard sigmoid,
    clip(z/6 + ½, 0, 1), that is wᵢ = 6/Δx, bᵢ = −3 − wᵢ xᵢ, cᵢ = Δy.
    """
    (x, y), (dx, dy) = CORNERS[:-1].T, np.diff(CORNERS, axis=0).T
    layers = [gpunn.Dense(len(x), activation=activation), gpunn.Dense(1)]
    net = gpunn.Sequential(layers, input_shape=1, dtype=dtype, seed=0)
    net.parameters["layers.0.weights"] = (6 / dx)[:, None]
    net.parameters["layers.0.bias"] = -3 - 6 / dx * x
    net.parameters["layers.1.weights"] = dy[None]
    net.parameters["layers.1.bias"] = y[:1]
    return net


def hard_sigmoid_of_relus() -> gpunn.Sequential:
    """clip(z/6 + ½, 0, 1) = max(0, z/6 + ½) − max(0, z/6 − ½)."""
    layers = [gpunn.Dense(2, activation="relu"), gpunn.Dense(1)]
    net = gpunn.Sequential(layers, input_shape=1, dtype="float64", seed=0)
    net.theta = [1 / 6, 1 / 6, 0.5, -0.5, 1.0, -1.0, 0.0]
    return net


def sum_of_sigmoids(units: int, x: np.ndarray, y: np.ndarray, epochs: int, device: str) -> gpunn.Sequential:
    """y = b + cᵀ σ(b + W x) with parameters found by gradient descent."""
    net = gpunn.Sequential(
        [gpunn.Dense(units, activation="sigmoid", weights="normal", bias="normal"), gpunn.Dense(1)],
        input_shape=1,
        seed=0,
        device=device,
    )
    # Steps spread over the curve: each turns where its own b + w x is 0.
    centres = np.linspace(x.min(), x.max(), units + 2)[1:-1]
    net.parameters["layers.0.weights"] = np.full((units, 1), 2.0)
    net.parameters["layers.0.bias"] = -2.0 * centres
    optimizer = gpunn.Adam(lr=0.03, schedule=gpunn.Cosine(epochs))
    net.fit(x[:, None], y[:, None], loss="mse", optimizer=optimizer, batch_size=25, epochs=epochs, verbose=0)
    return net


# Part 4: batches, updates, epochs


def updates_in_an_epoch(examples: int, batch_size: int) -> int:
    """How often θ was updated in one epoch, as gpunn counts it."""
    X, y = np.zeros((examples, 1)), np.zeros((examples, 1))
    net = gpunn.Sequential([gpunn.Dense(1)], input_shape=1, seed=0)
    trainer = gpunn.Trainer(net, loss="mae", batch_size=batch_size)
    trainer.epoch(X, y)
    return trainer.updates


def batches(views: Views, epochs: int, device: str) -> dict[str, gpunn.History]:
    """The same linear model of 28 days with smaller and smaller batches: as many epochs, more updates."""
    X, y, *_ = views.scaled(28)
    runs = {}
    for size in (len(X), 100, 10):
        net = regression(y, 28, device=device)
        history = net.fit(
            X, y, loss="mae", optimizer=gpunn.SGD(lr=0.01), batch_size=size, epochs=epochs, verbose=0
        )
        updates = history["updates"][0]
        runs[f"batch of {size:,}: {updates} update{'s' if updates > 1 else ''} an epoch"] = history
    return runs


# Part 5: the forward and the backward pass


def example_network() -> gpunn.Sequential:
    """The fully connected feedforward network whose numbers the lecture goes through: three layers of two."""
    net = gpunn.Sequential(
        [gpunn.Dense(2, activation="sigmoid") for _ in range(3)], input_shape=2, dtype="float64", seed=0
    )
    weights = ([[1, -2], [-1, 1]], [[2, -1], [-2, -1]], [[3, -1], [-1, 4]])
    for i, (W, b) in enumerate(zip(weights, ([1, 0], [0, 0], [-2, 2]), strict=True)):
        net.parameters[f"layers.{i}.weights"], net.parameters[f"layers.{i}.bias"] = W, b
    return net


def layer_by_layer(net: gpunn.Sequential, x: np.ndarray, before: bool = False) -> list[np.ndarray]:
    """What each layer of a network gives out, the input first; ``before`` its σ: z instead of a."""
    outputs, a = [], x
    for i, layer in enumerate(net.layers):
        given = {}
        for name in ("identity", layer.activation):
            one = gpunn.Sequential(
                [gpunn.Dense(layer.units, name)], input_shape=a.shape[1], dtype=net.dtype, seed=0
            )
            for part in ("weights", "bias"):
                one.parameters[f"layers.0.{part}"] = net.parameters[f"layers.{i}.{part}"]
            given[name] = one.predict(a)
        a = given[layer.activation]
        outputs.append(given["identity"] if before else a)
    return [x, *outputs]


def slopes(activation: str, z: np.ndarray) -> np.ndarray:
    """σ′(z) of one example: constants, once the forward pass is done."""
    sigma = gpunn.Sequential([gpunn.Activation(activation)], input_shape=z.shape[1], dtype="float64", seed=0)
    return np.diag(sigma.jacobian(z[0]))


def backward_network(net: gpunn.Sequential, x: np.ndarray) -> gpunn.Sequential:
    """The network that the lecture builds for the backward pass: from ∂C/∂y to ∂C/∂z of the first layer.

    It runs the other way. Its neurons are amplifiers: layers 0, 2, 4 ... multiply by σ′(z), a constant once
    the forward pass is done; between them, layers 1, 3 ... multiply by the transposed weights.
    """
    z = layer_by_layer(net, x, before=True)[1:]
    stages = []
    for i in reversed(range(len(net.layers))):
        stages.append(np.diag(slopes(net.layers[i].activation, z[i])))
        if i:
            stages.append(net.parameters[f"layers.{i}.weights"].T)
    layers = [gpunn.Dense(len(W)) for W in stages]
    back = gpunn.Sequential(layers, input_shape=net.output_shape, dtype=net.dtype, seed=0)
    for i, W in enumerate(stages):
        back.parameters[f"layers.{i}.weights"] = W
    return back


@dataclass(frozen=True)
class Passes:
    """Both passes of one example: the a of the forward, the δ = ∂C/∂z of the backward network."""

    net: gpunn.Sequential
    back: gpunn.Sequential
    x: np.ndarray
    target: np.ndarray
    a: list[np.ndarray]
    delta: list[np.ndarray]

    @property
    def off_errors(self) -> float:
        """How far the backward network's outputs are from ``net.errors``, at most."""
        own = self.net.errors(self.x, self.target, loss="quadratic")
        return max(float(np.abs(d - own[f"layers.{i}"]).max()) for i, d in enumerate(self.delta))

    @property
    def off_gradients(self) -> float:
        """How far a × δ is from ``net.gradients``, at most."""
        own = self.net.gradients(self.x, self.target, loss="quadratic")
        products = [np.outer(d, a) for d, a in zip(self.delta, self.a, strict=False)]
        return max(float(np.abs(p - own[f"layers.{i}.weights"]).max()) for i, p in enumerate(products))


def two_passes() -> Passes:
    """∂C/∂w = ∂z/∂w · ∂C/∂z: a from the forward network times δ from the backward one; C = ½‖y − ŷ‖²."""
    net, x, target = example_network(), np.array([[1.0, -1.0]]), np.array([[1.0, 0.0]])
    a = layer_by_layer(net, x)
    back = backward_network(net, x)
    delta = layer_by_layer(back, a[-1] - target)[1::2][::-1]
    return Passes(net, back, x, target, a, delta)


# Part 6: a network of the size of a speech recogniser


@dataclass(frozen=True)
class Step:
    """One update on one device: the loss before it, the parameters after it."""

    loss: float
    theta: np.ndarray


def speech_network(device: str = "cpu", hidden: int = 7) -> gpunn.Sequential:
    """7 hidden layers of 1,000 ReLUs, from 440 features of sound to 2,000 classes: 8,449,000 parameters."""
    layers = [gpunn.Dense(1000, activation="relu", weights="he_normal") for _ in range(hidden)]
    output = gpunn.Dense(2000, activation="softmax")
    return gpunn.Sequential([*layers, output], input_shape=440, seed=0, device=device)


def sounds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features and classes: for the arithmetic, not for learning."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 440), np.float32), rng.integers(0, 2000, count)


def one_step_everywhere(examples: int) -> dict[str, Step]:
    """θ¹ = θ⁰ − η ∇L(θ⁰) of the same network on each backend that works here."""
    X, y = sounds(examples)
    steps = {}
    for status in gpunn.devices():
        if not status.works:
            continue
        net = speech_network(status.name)
        optimizer = gpunn.SGD(lr=0.1)
        trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer=optimizer, batch_size=examples)
        loss = float(trainer.step(X, y))
        steps[status.name] = Step(loss, net.theta)
    return steps


# Numbers


def numbers() -> list[Row]:
    """What the lectures compute by hand or state exactly, computed here."""
    line = lines_by_hand()
    rows = [
        Row(REGRESSION, "y = 0.5k + 1 · 4.8k, in k", 5.3, line["y1"], 1e-12),
        Row(REGRESSION, "e₁ = |5.3k − 4.9k|, in k", 0.4, line["e1"], 1e-12),
        Row(REGRESSION, "y = 0.5k + 1 · 4.9k, in k", 5.4, line["y2"], 1e-12),
        Row(REGRESSION, "e₂ = |5.4k − 7.5k|, in k", 2.1, line["e2"], 1e-12),
    ]

    x = np.linspace(-2, 7, 1801)[:, None]
    off = float(np.abs(ramps("hard_sigmoid").predict(x)[:, 0] - curve(x[:, 0])).max())
    z = np.linspace(-6, 6, 2401)[:, None]
    hard = gpunn.Sequential([gpunn.Activation("hard_sigmoid")], input_shape=1, dtype="float64", seed=0)
    apart = float(np.abs(hard.predict(z) - hard_sigmoid_of_relus().predict(z)).max())
    three = gpunn.Sequential([gpunn.Dense(3, activation="sigmoid"), gpunn.Dense(1)], input_shape=3, seed=0)
    weights = three.parameters["layers.0.weights"]
    rows += [
        Row(DEEP, "piecewise linear curve − (constant + 3 hard sigmoids), at most", 0.0, off, 1e-14),
        Row(DEEP, "hard sigmoid − sum of two ReLUs, at most", 0.0, apart, 1e-15),
        Row(DEEP, "3 sigmoids of 3 features: entries of W", 9, int(weights.size)),
        Row(DEEP, "10,000 examples, batch size 10: updates an epoch", 1000, updates_in_an_epoch(10_000, 10)),
        Row(DEEP, "1,000 examples, batch size 100: updates an epoch", 10, updates_in_an_epoch(1000, 100)),
    ]

    views = daily_views()
    here = {days: errors(model, views, days) for days, model in linear_models(views, 15).items()}
    shape = "yes" if levels_off(here) else "no"
    rows.append(Row(REGRESSION, "7 and 28 days help, 56 hardly more, seen and unseen", "yes", shape))

    net = example_network()
    stated = {
        (1, -1): ((0.98, 0.12), (0.86, 0.11), (0.62, 0.83)),
        (0, 0): ((0.73, 0.50), (0.72, 0.12), (0.51, 0.85)),
    }
    z = layer_by_layer(net, np.array([[1.0, -1.0]]), before=True)[1][0]
    rows += [
        Row(BRIEF, f"input (1, −1): z{'₁₂'[i]} of layer 1", says, float(z[i]))
        for i, says in ((0, 4), (1, -2))
    ]
    for given, layers in stated.items():
        outputs = layer_by_layer(net, np.array([given], float))[1:]
        told = f"input ({given[0]}, {given[1]})".replace("-", "−")
        for number, (says, a) in enumerate(zip(layers, outputs, strict=True), 1):
            rows += [
                Row(BRIEF, f"{told}: a{'₁₂'[i]} of layer {number}", says[i], float(a[0, i]), 0.005)
                for i in (0, 1)
            ]

    passes = two_passes()
    check = gpunn.gradcheck(passes.net, passes.x, passes.target, loss="quadratic")
    rows += [
        Row(BACKPROP, "∂C/∂z: backward network − net.errors, at most", 0.0, passes.off_errors, 1e-15),
        Row(BACKPROP, "∂C/∂w: a × δ − net.gradients, at most", 0.0, passes.off_gradients, 1e-15),
        Row(BACKPROP, "the same gradient by central differences", "agrees", "agrees" if check else "differs"),
    ]
    return rows


def compared(
    source: str, says: Mapping[str, tuple[float, float]], here: Mapping[str, tuple[float, float]]
) -> list[Row]:
    """Rows of errors on other data than the lecture's: shown, not held against it."""
    rows = []
    for name, pair in says.items():
        for i, whose in enumerate(("2017 to 2020", "2021, unseen")):
            rows.append(Row(source, f"error (k), {whose}: {name}", pair[i], round(here[name][i], 3), None))
    return rows


def named(what: str, pairs: Mapping[int, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The same with words for keys: ``named("hidden layer", {1: ..., 2: ...})``."""
    return {f"{count:,} {what}{'s' if count > 1 else ''}": pair for count, pair in pairs.items() if count}


def turns(pairs: Mapping[int, tuple[float, float]]) -> bool:
    """Whether training always gets better with depth while the deepest is not the best on what is unseen."""
    seen, unseen = zip(*pairs.values(), strict=True)
    return all(np.diff(seen) < 0) and unseen[-1] > min(unseen)


def gains(pairs: Mapping[int, tuple[float, float]]) -> bool:
    """Whether training always gets better with more ReLUs, and by more in all than what is unseen."""
    seen, unseen = zip(*pairs.values(), strict=True)
    return all(np.diff(seen) < 0) and 0 < unseen[0] - unseen[-1] < seen[0] - seen[-1]


# Pictures


def sheet(width: float, height: float, title: str) -> Figure:
    """A white figure with a title."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def panel(figure: Figure, place: object, title: str, across: str = "", up: str = "") -> Axes:
    """Axes in the style of gpunn's pictures."""
    axes = figure.add_subplot(place)
    axes.set_title(title, fontsize=9, loc="left", color="black")
    axes.set_xlabel(across, fontsize=9, color=DARK)
    axes.set_ylabel(up, fontsize=9, color=DARK)
    axes.tick_params(labelsize=8.5, color=GREY, labelcolor=DARK, width=0.6, length=3)
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=GREY, linewidth=0.6)
    return axes


def beside(axes: Axes, height: float, words: str, colour: str, up: float = 0.0) -> None:
    """Words to the right of the axes, at a height of its data, moved up by some points."""
    axes.annotate(
        words,
        (1.0, height),
        (5, up),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=8.5,
        va="center",
        color=colour,
        annotation_clip=False,
    )


def draw_views(views: Views, models: Mapping[str, np.ndarray], path: Path) -> None:
    """The whole series, and what each model said of the first weeks of 2021."""
    figure = sheet(7.5, 2.0 + 1.8 * len(models), "Two low days a week, and a dip that nothing announces")
    grid = figure.add_gridspec(1 + len(models), 1)
    axes = panel(figure, grid[0], "the made-up channel", up="views a day (k)")
    axes.plot(views.days[LONGEST:], views.counts[LONGEST:], color=DARK, linewidth=0.6)
    axes.axvspan(np.datetime64("2021-01-01"), views.days[-1], color=ORANGE, alpha=0.18, linewidth=0)
    axes.text(np.datetime64("2021-01-12"), 11, "2021, unseen", fontsize=8.5, color=DARK, va="top")
    axes.set_xlim(views.days[LONGEST], views.days[-1])
    axes.set_ylim(0, 11.5)
    years = np.arange(2017, 2022)
    axes.set_xticks([np.datetime64(f"{year}-01-01") for year in years], [f"January {year}" for year in years])

    shown = slice(LONGEST + views.seen, LONGEST + views.seen + 59)
    days, real = views.days[shown], views.counts[shown]
    eve = np.datetime64(NEW_YEARS_EVES[-1])
    fridays = [day for day in days if day.astype(int) % 7 == 1]
    for i, (name, said) in enumerate(models.items(), 1):
        axes = panel(figure, grid[i], name, up="views a day (k)")
        for day in fridays:
            half = np.timedelta64(12, "h")
            axes.axvspan(day - half, day + 3 * half, color="#eeeeee", linewidth=0, zorder=0)
        axes.plot(days, real, "-o", color=VERMILION, markersize=2.5, linewidth=1.4)
        axes.plot(days, said[: len(days)], "-o", color=BLUE, markersize=2.5, linewidth=1.4)
        axes.text(0.01, 0.93, "came", color=VERMILION, fontsize=8.5, va="top", transform=axes.transAxes)
        axes.text(0.075, 0.93, "predicted", color=BLUE, fontsize=8.5, va="top", transform=axes.transAxes)
        axes.text(
            0.19,
            0.93,
            "(grey: Friday and Saturday)",
            color=DARK,
            fontsize=8.5,
            va="top",
            transform=axes.transAxes,
        )
        axes.annotate(
            "New Year's Eve",
            (eve, real[days == eve][0]),
            (eve - np.timedelta64(8, "D"), 1.3),
            fontsize=8.5,
            color=DARK,
            va="center",
            ha="right",
            arrowprops={"arrowstyle": "-", "color": DARK, "lw": 0.8},
        )
        axes.set_xlim(days[0] - np.timedelta64(1, "D"), days[-1])
        axes.set_ylim(0, real.max() + 2.2)
        axes.set_xticks(fridays, [f"{day.item():%-d %b}" for day in fridays])
    figure.savefig(path)


def draw_errors(
    lecture: Mapping[int, tuple[float, float]],
    here: Mapping[int, tuple[float, float]],
    names: Sequence[str],
    across: str,
    title: str,
    path: Path,
) -> None:
    """The lecture's errors on its channel and those here, over the models."""
    figure = sheet(7.5, 3.0, title)
    grid = figure.add_gridspec(1, 2)
    at = np.arange(len(names))
    for i, (whose, found) in enumerate((("the lecture's channel", lecture), ("the made-up channel", here))):
        axes = panel(figure, grid[i], whose, across, "mean absolute error (k)")
        top = 1.2 * max(unseen for _, unseen in found.values())
        pairs = np.array(list(found.values()))
        for values, colour, sign in ((pairs[:, 0], BLUE, -1), (pairs[:, 1], VERMILION, 1)):
            axes.plot(at, values, "-o", color=colour, linewidth=1.6, markersize=4)
            # A number stands where the line does not go: beside a steep piece, else above or below.
            steep = np.clip(np.gradient(values) / top / 0.1, -1, 1)
            for x, value, slope in zip(at, values, steep, strict=True):
                over = sign > 0 or value < 0.12 * top
                axes.annotate(
                    f"{value:.2f}",
                    (x, value),
                    (-8 * slope * (1 if over else -1), 6 if over else -6),
                    textcoords="offset points",
                    fontsize=8.5,
                    ha="center",
                    va="bottom" if over else "top",
                    color=colour,
                )
        close = pairs[-1, 1] - pairs[-1, 0] < 0.1 * top
        beside(axes, pairs[-1, 1], "unseen", VERMILION, 4 if close else 0)
        beside(axes, pairs[-1, 0], "training", BLUE, -4 if close else 0)
        axes.set_xticks(at, names)
        axes.set_xlim(-0.35, len(at) - 0.7)
        axes.set_ylim(0, top)
    figure.savefig(path)


def draw_ramps(path: Path) -> None:
    """How a piecewise linear curve is put together, and what soft sigmoids make of the same parameters."""
    x = np.linspace(-0.5, 5.5, 601)
    figure = sheet(7.5, 3.1, "A piecewise linear curve is a constant and a hard sigmoid for each piece")
    grid = figure.add_gridspec(1, 2)
    hard, soft = ramps("hard_sigmoid"), ramps("sigmoid")
    steps = layer_by_layer(hard, x[:, None])[1] * hard.parameters["layers.1.weights"]
    left = panel(figure, grid[0], "the parts", "x", "y")
    left.axhline(CORNERS[0, 1], color=GREY, linewidth=1.6)
    beside(left, CORNERS[0, 1], "0: b", "#707070", -6)
    for i, (colour, number, up) in enumerate(zip((BLUE, GREEN, ORANGE), "₁₂₃", (0, 0, 6), strict=True)):
        left.plot(x, steps[:, i], color=colour, linewidth=1.6)
        beside(left, steps[-1, i], f"{i + 1}: c{number} σ(b{number} + w{number}x)", colour, up)
    right = panel(figure, grid[1], "their sum, 0 + 1 + 2 + 3", "x", "y")
    right.plot(x, hard.predict(x[:, None])[:, 0], color=VERMILION, linewidth=1.6)
    right.plot(x, soft.predict(x[:, None])[:, 0], color=BLUE, linewidth=1.6)
    beside(right, curve(x)[-1], "hard sigmoids", VERMILION, 6)
    beside(right, curve(x)[-1], "sigmoids", BLUE, -6)
    for axes in (left, right):
        axes.set_xlim(x[0], x[-1])
    figure.savefig(path)


def draw_relus(path: Path) -> None:
    """The hard sigmoid and the two ReLUs that add up to it."""
    z = np.linspace(-6, 6, 481)
    net = hard_sigmoid_of_relus()
    parts = layer_by_layer(net, z[:, None])[1] * net.parameters["layers.1.weights"]
    figure = sheet(5.2, 3.1, "A hard sigmoid is two ReLUs")
    axes = panel(figure, figure.add_gridspec(1, 1)[0], "clip(z/6 + ½, 0, 1)", "z", "output")
    names = ("max(0, z/6 + ½)", "−max(0, z/6 − ½)")
    for i, colour in enumerate((BLUE, GREEN)):
        axes.plot(z, parts[:, i], color=colour, linewidth=1.6)
        beside(axes, parts[-1, i], names[i], colour)
    axes.plot(z, net.predict(z[:, None])[:, 0], color=VERMILION, linewidth=2.2)
    beside(axes, 1.0, "their sum", VERMILION)
    axes.set_xlim(z[0], z[-1])
    axes.set_xticks(range(-6, 7, 3))
    figure.savefig(path)


def draw_passes(passes: Passes, path: Path) -> None:
    """The lecture's two networks with their numbers: a in circles, δ in triangles."""
    figure = Figure(figsize=(7.5, 5.0), dpi=150, facecolor="white")
    title = "∂C/∂w: a of the forward pass times δ of the backward pass"
    figure.text(0.01, 0.985, title, va="top", fontsize=10.5, fontweight="bold")
    _draw_forward(
        _bare(figure, 0.48, "forward: z = W a + b and a = σ(z), in circles; ∂z/∂w is the a that comes in"),
        passes,
    )
    _draw_backward(
        _bare(
            figure,
            0.0,
            "backward: δ = σ′(z) ⊙ Wᵀ δ of the layer after, in amplifiers of σ′(z), by now constants",
        ),
        passes,
    )
    figure.savefig(path)


def _bare(figure: Figure, bottom: float, title: str) -> Axes:
    axes = figure.add_axes((0.01, bottom, 0.98, 0.43))
    axes.set_title(title, fontsize=9, loc="left", color="black", pad=0)
    axes.set(xlim=(-0.6, 7.2), ylim=(-0.72, 1.7), aspect="equal", anchor="W")
    axes.axis("off")
    return axes


def _signed(number: float, form: str) -> str:
    return format(number, form).replace("-", "−")


def _edge(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], weight: float, colour: str
) -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1, "shrinkA": 0, "shrinkB": 0}
    )
    x, y = (s + 0.25 * (e - s) for s, e in zip(start, end, strict=True))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(x, y, _signed(weight, "g"), fontsize=8.5, ha="center", va="center", color=colour, bbox=box)


def _draw_forward(axes: Axes, passes: Passes) -> None:
    for layer, a in enumerate(passes.a):
        for unit, value in enumerate(a[0]):
            x, y = 2 * layer, 1 - unit
            edge = BLUE if layer else GREY
            axes.add_patch(Circle((x, y), 0.27, facecolor="white", edgecolor=edge, linewidth=1.6, zorder=3))
            number = _signed(value, ".2f" if layer else "g")
            axes.text(x, y, number, fontsize=9, ha="center", va="center", color=DARK, zorder=4)
            if layer:
                W = passes.net.parameters[f"layers.{layer - 1}.weights"]
                b = passes.net.parameters[f"layers.{layer - 1}.bias"][unit]
                axes.text(x, y + 0.34, f"b = {_signed(b, 'g')}", fontsize=8, ha="center", color=GREEN)
                for source in range(2):
                    bend = 0.12 * (source - unit)
                    _edge(axes, (x - 1.73, 1 - source + bend), (x - 0.28, y - bend), W[unit, source], BLUE)
    for unit, target in enumerate(passes.target[0]):
        axes.text(6.37, 1 - unit, f"y{'₁₂'[unit]}, to be {target:g}", fontsize=8.5, va="center", color=DARK)


def _draw_backward(axes: Axes, passes: Passes) -> None:
    z = layer_by_layer(passes.net, passes.x, before=True)[1:]
    for layer in range(3):
        slope = slopes("sigmoid", z[layer])
        for unit, value in enumerate(passes.delta[layer][0]):
            x, y = 2 * layer + 2, 1 - unit
            shape = [(x - 0.55, y), (x + 0.3, y + 0.4), (x + 0.3, y - 0.4)]
            axes.add_patch(Polygon(shape, facecolor="white", edgecolor=VERMILION, linewidth=1.6, zorder=3))
            number = _signed(value, ".3f")
            axes.text(x + 0.04, y, number, fontsize=8, ha="center", va="center", color=DARK, zorder=4)
            axes.text(x - 0.3, y + 0.34, f"× {slope[unit]:.3f}", fontsize=8, ha="center", color=GREEN)
            if layer < 2:
                W = passes.net.parameters[f"layers.{layer + 1}.weights"]
                for source in range(2):
                    bend = 0.12 * (source - unit)
                    _edge(axes, (x + 1.42, 1 - source), (x + 0.32, y - bend), W[source, unit], VERMILION)
    for unit, value in enumerate((passes.a[-1] - passes.target)[0]):
        axes.annotate(
            f"∂C/∂y{'₁₂'[unit]}\n= {_signed(value, '.2f')}",
            (6.31, 1 - unit),
            (6.55, 1 - unit),
            fontsize=8.5,
            va="center",
            color=DARK,
            arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1},
        )
    a, delta = passes.a[1][0, 0], passes.delta[1][0, 0]
    product = f"= {a:.2f} × {_signed(delta, '.3f')}\n= {_signed(a * delta, '.3f')}"
    axes.text(6.48, 0.5, "C = ½‖y − ŷ‖²", fontsize=8.5, va="center", color=DARK)
    told = f"for the weight 2 from 0.98:\n∂C/∂w = a × δ\n{product}"
    axes.text(-0.5, 0.5, told, fontsize=8.5, va="center", color=DARK, linespacing=1.5)


# Everything


def main(device: str = "cpu", quick: bool = False, out: Path = PICTURES) -> list[Row]:
    """All parts; ``quick`` trains fewer networks for fewer epochs."""
    out.mkdir(parents=True, exist_ok=True)
    views = daily_views()
    epochs, seeds = (12, 1) if quick else (60, 10)
    rows = numbers()

    def picture(part: str) -> Path:
        return out / f"{NAME}_{part}.png"

    print("1 linear models of the last 1, 7, 28 and 56 days")
    linear = linear_models(views, epochs, device)
    windows = {days: errors(net, views, days) for days, net in linear.items()}
    rows += compared(REGRESSION, named("day", WINDOWS), named("day", windows))
    draw_errors(
        WINDOWS,
        windows,
        [str(days) for days in WINDOWS],
        "days that the linear model sees",
        "More days help a linear model, up to a point",
        picture("windows"),
    )

    print("2 the error surface of y = b + w x₁, and two ways down")
    w, b = np.linspace(0.3, 1.2, 46), np.linspace(-1, 2, 46)
    ways = {
        f"from w = {start[0]:g}, b = {start[1]:g}".replace("-", "−"): descent(
            views, start, 0.02, 4000, device
        )
        for start in ((0.4, 1.7), (0.45, -0.8))
    }
    error_surface(
        surface(views, w, b),
        w,
        b,
        descent=ways,
        labels=("w", "b (thousands of views)"),
        path=picture("error_surface"),
        title="Into the valley fast, then slowly along it",
    )
    best = next(iter(ways.values()))[-1]
    rows += [
        Row(REGRESSION, "w* of one day", 0.97, round(float(best[0]), 2), None),
        Row(REGRESSION, "b* of one day (k)", 0.1, round(float(best[1]), 2), None),
    ]

    print("3 sums of sigmoids; a hard sigmoid out of two ReLUs")
    draw_ramps(picture("ramps"))
    draw_relus(picture("two_relus"))
    x = np.linspace(-0.5, 5.5, 400)
    fits = {}
    for units in (1, 3, 10):
        net = sum_of_sigmoids(units, x, curve(x), 60 if quick else 600, device)
        fits[f"{units} sigmoid{'s' if units > 1 else ''}"] = net.predict(x[:, None])
    fitted_curves(
        x,
        curve(x),
        fits,
        difference=True,
        path=picture("sigmoids"),
        title="More sigmoids come closer: y = b + cᵀσ(b + Wx), learnt",
    )

    print("4 batches, updates, epochs")
    compare_runs(
        batches(views, 10 if quick else 30, device),
        path=picture("batches"),
        title="An epoch of small batches is many updates",
    )

    print("5 10, 100 and 1,000 ReLUs of 56 days")
    relus = {0: windows[LONGEST]}
    for units in (10, 100, 1000):
        relus[units] = mean_errors(views, (units,), epochs, seeds, device)
    rows += compared(DEEP, named("ReLU", RELUS), named("ReLU", relus))
    draw_errors(
        RELUS,
        relus,
        ["linear", "10", "100", "1,000"],
        "ReLUs in one hidden layer",
        "More ReLUs fit better; unseen days gain less" if gains(relus) else "Errors over the number of ReLUs",
        picture("relus"),
    )

    print("6 one to four hidden layers of 100 ReLUs: overfitting")
    depths = {1: relus[100]}
    for count in (2, 3, 4):
        depths[count] = mean_errors(views, (100,) * count, epochs, seeds, device)
    rows += compared(DEEP, named("hidden layer", DEPTHS), named("hidden layer", depths))
    rows.append(
        Row(DEEP, "overfitting visible with 4 hidden layers", "yes", "yes" if turns(depths) else "no", None)
    )
    draw_errors(
        DEPTHS,
        depths,
        list("1234"),
        "hidden layers of 100 ReLUs",
        "Deeper fits better and better; unseen days get worse: overfitting"
        if turns(depths)
        else "Errors over the number of hidden layers",
        picture("depth"),
    )
    _, history = learnt(views, LONGEST, (100,) * 4, epochs, device=device)
    learning_curves(
        history, path=picture("overfitting"), title="Four layers: training and unseen days come apart"
    )
    net, _ = learnt(views, LONGEST, (100,), epochs, device=device)
    draw_views(
        views,
        {
            "linear, sees one day: yesterday's views, a day late": linear[1].predict(views.scaled(1)[2])[
                :, 0
            ],
            "100 ReLUs, see 56 days: the week, not the holiday": net.predict(views.scaled(LONGEST)[2])[:, 0],
        },
        picture("views"),
    )

    print("7 the forward and the backward network")
    draw_passes(two_passes(), picture("two_passes"))

    print("8 one step of a network as large as a speech recogniser, on each backend")
    examples = 8 if quick else 64
    steps = one_step_everywhere(examples)
    (name, first), *others = steps.items()
    count = len(first.theta)
    rows.append(Row(BACKPROP, "speech, 7 layers of 1,000: entries of ∇L(θ)", "over a million", count, None))
    for other, step in others:
        loss, far = abs(step.loss - first.loss), float(np.abs(step.theta - first.theta).max())
        rows.append(Row(HERE, f"one step of it: loss on {other} − loss on {name}", 0.0, loss, 1e-5))
        rows.append(Row(HERE, f"one step of it: θ on {other} − θ on {name}, at most", 0.0, far, 1e-6))
    net = speech_network(device)
    gradient_magnitudes(
        net.gradients(*sounds(examples), loss="cross_entropy"),
        path=picture("speech"),
        title=f"One gradient of {count:,} entries, layer by layer",
    )
    return rows


if __name__ == "__main__":
    run(main, __doc__)
