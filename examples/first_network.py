"""The first network of Nielsen's book, on real digits, with its gradient looked at on the way.

    python examples/first_network.py [epochs]

784-30-10 sigmoid with the quadratic cost on MNIST where it is found (see GPUNN_DATA); else 64-30-10 on the
1,797 digits that scikit-learn bundles.
"""

from __future__ import annotations

import sys

import numpy as np

import gpunn
from gpunn.data import load_digits, load_mnist


def load():
    try:
        return load_mnist()
    except gpunn.GpunnError:
        return load_digits()


def main(epochs: int = 3) -> float:
    digits = load()
    net = gpunn.Sequential(
        [
            gpunn.Dense(30, activation="sigmoid", weights="normal", bias="normal"),
            gpunn.Dense(10, activation="sigmoid", weights="normal", bias="normal"),
        ],
        input_shape=digits.train.X.shape[1],
        seed=0,
    )
    print(net.summary())
    print(net.program(loss="quadratic", optimizer=gpunn.SGD(lr=3.0), batch_size=10))

    few = digits.train.X[:10], digits.train.y[:10]
    for name, delta in net.errors(*few, loss="quadratic").items():
        print(f"‖δ‖ of {name} before training: {np.linalg.norm(delta):.4f}")
    print(gpunn.gradcheck(net, *few, loss="quadratic"))

    history = net.fit(
        digits.train.X,
        digits.train.y,
        loss="quadratic",
        optimizer=gpunn.SGD(lr=3.0),
        batch_size=10,
        epochs=epochs,
        validation_data=(digits.test.X, digits.test.y),
        metrics=("accuracy",),
    )
    best = history.best("val_accuracy")
    print(f"{digits.name}: best accuracy {100 * best['val_accuracy']:.2f} % after epoch {best['epoch']}")
    return best["val_accuracy"]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
