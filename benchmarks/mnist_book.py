"""The book's first network on MNIST, over several seeds: the best epoch's accuracy on the 10,000 test images.

    GPUNN_DATA=... python benchmarks/mnist_book.py [--json benchmarks/results/mnist_book.json]

784-30-10 sigmoid, quadratic cost, normal weights and biases, SGD 3.0, batch 10, 30 epochs, trained on the
first 50,000 images. The book reports 95.42 % for its run (Nielsen, chapter 1).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from environment import environment

import gpunn
from gpunn.data import load_mnist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    mnist = load_mnist()
    runs = []
    for seed in range(options.seeds):
        layers = [gpunn.Dense(n, activation="sigmoid", weights="normal", bias="normal") for n in (30, 10)]
        net = gpunn.Sequential(layers, input_shape=784, device=options.device, seed=seed)
        history = net.fit(
            mnist.train.X,
            mnist.train.y,
            loss="quadratic",
            optimizer=gpunn.SGD(lr=3.0),
            batch_size=10,
            epochs=options.epochs,
            validation_data=(mnist.test.X, mnist.test.y),
            metrics=("accuracy",),
            verbose=0,
        )
        best = history.best("val_accuracy")
        run = {"seed": seed, "best": best["val_accuracy"], "epoch": best["epoch"]}
        runs.append({**run, "final": history["val_accuracy"][-1], "seconds": sum(history["seconds"])})
        print(f"seed {seed}: best {100 * run['best']:.2f} % after epoch {run['epoch']}", flush=True)
    mean = statistics.mean(run["best"] for run in runs)
    print(f"mean of the best epochs: {100 * mean:.2f} %")
    if options.json:
        result = {
            "what": "accuracy on MNIST's 10,000 test images of the book's first network, as a fraction",
            "epochs": options.epochs,
            "device": net.backend.name,
            "mean_best": mean,
            "runs": runs,
            **environment(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
