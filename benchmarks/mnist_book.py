"""The book's first network on MNIST, over several seeds: the best epoch's accuracy on the 10,000 test images.

    GPUNN_DATA=... python -m benchmarks.mnist_book [--out benchmarks/results]

784-30-10 sigmoid, quadratic cost, normal weights and biases, SGD 3.0, batch 10, 30 epochs, trained on the
first 50,000 images. The book reports 95.42 % for its run (Nielsen, chapter 1).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import gpunn
from gpunn.data import load_mnist

from .environment import environment
from .results import SCHEMA, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a folder for the result file")
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
    if options.out:
        where = environment()
        threads = gpunn.num_threads()
        device = "cuda" if options.device.startswith("cuda") else "cpu"
        record = {
            "schema": SCHEMA,
            "kind": "accuracy",
            "name": "mnist-book",
            "what": "accuracy on MNIST's 10,000 test images of the book's first network, as a fraction",
            "setting": {
                "device": device,
                "backend": net.backend.name,
                "threads": threads,
                "precision": "float32",
                "repeats": options.seeds,
                "epochs": options.epochs,
            },
            "environment": where,
            "mean_best": mean,
            "runs": runs,
        }
        print(f"written: {write(record, options.out)}")


if __name__ == "__main__":
    main()
