"""One step of the ``nielsen`` workload on the numpy backend beside plain vectorised NumPy.

    python benchmarks/numpy_step.py [--json benchmarks/results/numpy_step.json]

784-30-10 sigmoid, batch 10, quadratic cost, SGD 3.0, float32, synthetic data of MNIST's shape. Both start
from the same parameters and go through the same minibatches; before anything is timed their costs and
parameters are compared. Repeats are interleaved (A B A B ...), and the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from environment import environment

import gpunn

SAMPLES, BATCH, LR = 10_000, 10, 3.0


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class Plain:
    """The step as one writes it by hand."""

    def __init__(self, tensors, X, Y, order):
        self.W0, self.b0, self.W1, self.b1 = (tensors[key].copy() for key in sorted(tensors, key=KEYS.index))
        self.X, self.Y, self.order = X, Y, order

    def steps(self, count):
        cost = 0.0
        for k in range(count):
            rows = self.order[k * BATCH : (k + 1) * BATCH]
            x, t = self.X[rows], self.Y[rows]
            a0 = sigmoid(x @ self.W0.T + self.b0)
            a1 = sigmoid(a0 @ self.W1.T + self.b1)
            error = a1 - t
            cost += 0.5 * np.vdot(error, error) / BATCH
            delta1 = error / BATCH * a1 * (1 - a1)
            delta0 = delta1 @ self.W1 * a0 * (1 - a0)
            self.W1 -= LR * (delta1.T @ a0)
            self.b1 -= LR * delta1.sum(axis=0)
            self.W0 -= LR * (delta0.T @ x)
            self.b0 -= LR * delta0.sum(axis=0)
        return cost / count


KEYS = ["layers.0.weights", "layers.0.bias", "layers.1.weights", "layers.1.bias"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    X = rng.random((SAMPLES, 784), dtype=np.float32)
    Y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, SAMPLES)]
    layers = [gpunn.Dense(n, activation="sigmoid", weights="normal", bias="normal") for n in (30, 10)]
    net = gpunn.Sequential(layers, input_shape=784, device="numpy", seed=0)
    trainer = gpunn.Trainer(net, loss="quadratic", optimizer=gpunn.SGD(lr=LR), batch_size=BATCH)
    order = np.random.default_rng([net.seed, 1, 0]).permutation(SAMPLES)
    plain = Plain(net.tensors(), X, Y, order)

    steps = SAMPLES // BATCH
    cost = trainer.epoch(X, Y)["loss"]
    np.testing.assert_allclose(cost, plain.steps(steps), rtol=1e-4)
    for key, value in zip(KEYS, (plain.W0, plain.b0, plain.W1, plain.b1), strict=True):
        np.testing.assert_allclose(net.parameters[key], value, rtol=0, atol=1e-3)

    ours, theirs = [], []
    for _ in range(options.repeats):
        start = time.perf_counter()
        trainer.epoch(X, Y)
        middle = time.perf_counter()
        plain.steps(steps)
        end = time.perf_counter()
        ours.append((middle - start) / steps * 1e6)
        theirs.append((end - middle) / steps * 1e6)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    result = {
        "what": "numpy backend over plain vectorised NumPy, one step of nielsen, microseconds",
        "ours": summary(ours),
        "plain": summary(theirs),
        "ratio": summary(ratios),
        "repeats": options.repeats,
        **environment(),
    }
    for name in ("ours", "plain", "ratio"):
        print(f"{name:<6}", "  ".join(f"{key} {value:.3g}" for key, value in result[name].items()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def summary(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "min": min(values), "quartile_1": low, "quartile_3": high}


if __name__ == "__main__":
    main()
