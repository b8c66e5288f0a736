"""What Nielsen's book trains on MNIST, each over several seeds: what the book says, and what comes out here.

    GPUNN_DATA=... python -m benchmarks.mnist_book --out benchmarks/results    # about ten minutes
    python -m benchmarks.mnist_book --page docs/nielsen.md                     # the page's tables, from that
    python -m benchmarks.mnist_book --page docs/nielsen.md --check             # fails where it is behind

Training is on MNIST's first 50,000 images, or fewer; after every epoch the 10,000 test images and the 10,000
validation images (the last of the 60,000) are classified. The book reports the best epoch of its run; the
result file holds the numbers of every epoch, so that the last one, and the one that the validation images
choose, can be told too.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gpunn
from gpunn.data import load_mnist

from . import results
from .environment import environment

FILE = "nielsen-book-cpu.json"
BEGIN, END = "<!-- table: nielsen -->", "<!-- end -->"

#: What the names of losses and initialisers are in the book.
COSTS = {"quadratic": "quadratic", "binary_cross_entropy": "cross-entropy"}
WEIGHTS = {"normal": "N(0, 1)", "lecun_normal": "N(0, 1/n)"}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A network and its training; the accuracy in % that the book reports, and on which images."""

    hidden: int
    cost: str
    weights: str
    lr: float
    epochs: int
    output_weights: str | None = None
    lam: float = 0.0
    images: int = 50_000
    patience: int | None = None
    book: float | None = None
    book_images: str = "test"


EXPERIMENTS = (
    Experiment(30, "quadratic", "normal", 3.0, 30, book=95.42),
    Experiment(100, "quadratic", "normal", 3.0, 30, book=96.59),
    Experiment(100, "quadratic", "lecun_normal", 3.0, 30),
    Experiment(100, "quadratic", "normal", 3.0, 30, output_weights="lecun_normal"),
    Experiment(100, "quadratic", "lecun_normal", 3.0, 30, output_weights="normal"),
    Experiment(30, "binary_cross_entropy", "normal", 0.5, 30, book=95.49),
    Experiment(100, "binary_cross_entropy", "normal", 0.5, 30, book=96.82),
    Experiment(30, "binary_cross_entropy", "normal", 0.5, 30, lam=5.0, book=96.49),
    Experiment(100, "binary_cross_entropy", "normal", 0.5, 30, lam=5.0, book=97.92, book_images="validation"),
    Experiment(100, "binary_cross_entropy", "normal", 0.1, 60, lam=5.0, book=98.04, book_images="validation"),
    Experiment(100, "binary_cross_entropy", "lecun_normal", 0.1, 60, lam=5.0),
    Experiment(100, "binary_cross_entropy", "lecun_normal", 0.5, 60, patience=5),
    Experiment(30, "binary_cross_entropy", "normal", 0.5, 400, images=1_000, book=82.27),
    Experiment(30, "binary_cross_entropy", "normal", 0.5, 400, lam=0.1, images=1_000, book=87.1),
)


def train(experiment: Experiment, mnist: Any, seed: int, device: str) -> tuple[dict[str, Any], str]:
    """How many test and validation images are right after each epoch; and the backend that trained."""
    layers = [
        gpunn.Dense(units, activation="sigmoid", weights=weights, bias="normal")
        for units, weights in (
            (experiment.hidden, experiment.weights),
            (10, experiment.output_weights or experiment.weights),
        )
    ]
    net = gpunn.Sequential(layers, input_shape=784, device=device, seed=seed)
    right: list[int] = []

    def tested(trainer: gpunn.Trainer, record: dict[str, Any]) -> None:
        accuracy = net.evaluate(mnist.test.X, mnist.test.y, loss=experiment.cost, metrics=("accuracy",))
        right.append(round(accuracy["accuracy"] * len(mnist.test.y)))

    callbacks: list[Any] = [tested]
    if experiment.patience is not None:
        callbacks.append(gpunn.EarlyStopping("val_accuracy", patience=experiment.patience))
    history = net.fit(
        mnist.train.X[: experiment.images],
        mnist.train.y[: experiment.images],
        loss=experiment.cost,
        optimizer=gpunn.SGD(lr=experiment.lr, l2=experiment.lam / experiment.images),
        batch_size=10,
        epochs=experiment.epochs,
        validation_data=(mnist.validation.X, mnist.validation.y),
        metrics=("accuracy",),
        callbacks=callbacks,
        verbose=0,
    )
    held = [round(accuracy * len(mnist.validation.y)) for accuracy in history["val_accuracy"]]
    run = {"seed": seed, "seconds": sum(history["seconds"]), "test": right, "validation": held}
    return run, net.backend.name


def measure(seeds: int, device: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Train everything, and return the record."""
    mnist = load_mnist()
    rows = []
    for experiment in EXPERIMENTS:
        runs = []
        for seed in range(seeds):
            run, backend = train(experiment, mnist, seed, device)
            runs.append(run)
            tell(
                f"{name_of(asdict(experiment))}, seed {seed}: best {max(run['test'])}, last {run['test'][-1]}"
            )
        rows.append({**asdict(experiment), "runs": runs})
    if backend == "numba":
        importlib.import_module("numba")  # Its machine code may have come from the cache; the version counts.
    return {
        "schema": results.SCHEMA,
        "kind": "book",
        "name": "nielsen",
        "what": "how many of MNIST's 10,000 test and 10,000 validation images are right after each epoch",
        "setting": {
            "device": "cuda" if device.startswith("cuda") else "cpu",
            "backend": backend,
            "threads": gpunn.num_threads(),
            "precision": "float32",
            "repeats": seeds,
        },
        "environment": environment(),
        "rows": rows,
    }


def first_network(record: Record) -> dict[str, Any]:
    """The record of the book's first network alone, which the benchmarks' page shows."""
    row = record["rows"][0]
    runs = [
        {
            "seed": run["seed"],
            "best": max(run["test"]) / 10_000,
            "epoch": best_epoch(run["test"]),
            "final": run["test"][-1] / 10_000,
            "seconds": run["seconds"],
        }
        for run in row["runs"]
    ]
    return {
        "schema": results.SCHEMA,
        "kind": "accuracy",
        "name": "mnist-book",
        "what": "accuracy on MNIST's 10,000 test images of the book's first network, as a fraction",
        "setting": {**record["setting"], "epochs": row["epochs"]},
        "environment": record["environment"],
        "mean_best": statistics.mean(run["best"] for run in runs),
        "runs": runs,
    }


def best_epoch(right: Sequence[int]) -> int:
    """The first epoch, counted from 1, with the most images right.

    >>> best_epoch([9129, 9542, 9542])
    2
    """
    return right.index(max(right)) + 1


def name_of(row: Record) -> str:
    """A row of the table in words."""
    parts = [f"784-{row['hidden']}-10", COSTS[row["cost"]]]
    if row["lam"]:
        parts.append(f"λ = {row['lam']:g}")
    parts.append(f"weights {WEIGHTS[row['weights']]}")
    if row["output_weights"]:
        parts.append(f"those of the output layer {WEIGHTS[row['output_weights']]}")
    parts.append(f"η = {row['lr']:g}")
    if row["images"] < 50_000:
        parts.append(f"{row['images']:,} images")
    if row["patience"]:
        parts.append(f"stopped after {row['patience']} epochs without a better one")
    else:
        parts.append(f"{row['epochs']} epochs")
    return ", ".join(parts)


def spread(right: Sequence[int]) -> str:
    """Mean and extremes of some numbers of 10,000 images, in %.

    >>> spread([9500, 9520])
    '95.10 (95.00–95.20)'
    """
    return f"{statistics.mean(right) / 100:.2f} ({min(right) / 100:.2f}–{max(right) / 100:.2f})"


def section(record: Record) -> str:
    """What stands between the marks of the page."""
    head = (
        "network and training",
        "the book",
        "best epoch",
        "last epoch",
        "epoch chosen on validation images",
        "validation images, best epoch",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in record["rows"]:
        tests = [run["test"] for run in row["runs"]]
        held = [run["validation"] for run in row["runs"]]
        chosen = [test[best_epoch(valid) - 1] for test, valid in zip(tests, held, strict=True)]
        book = "–" if row["book"] is None else f"{row['book']:.2f}"
        cells = [
            name_of(row),
            book + (" (validation images)" if row["book_images"] == "validation" else ""),
            spread([max(test) for test in tests]),
            spread([test[-1] for test in tests]),
            spread(chosen),
            spread([max(valid) for valid in held]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = [run["seed"] for run in record["rows"][0]["runs"]]
    lines += [
        "",
        f"Accuracies in %, the mean over {len(seeds)} seeds with the least and the greatest; on the 10,000 "
        "test images, where the heading does not say validation. *Best epoch* is what the book reports: the "
        "epoch with the most test images right, so it is chosen by looking at the test images. The book has "
        "one run of each, the best of three in chapter 1, and its own random numbers. Where training stops "
        "early, the epoch chosen on the validation images is the one whose weights were kept.",
        "",
        "Every seed, best epoch / last epoch:",
        "",
        "| network and training | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|" + " --- |" * (len(seeds) + 1),
    ]
    for row in record["rows"]:
        each = [f"{max(run['test']) / 100:.2f} / {run['test'][-1] / 100:.2f}" for run in row["runs"]]
        lines.append("| " + " | ".join([name_of(row), *each]) + " |")
    return "\n".join([*lines, "", f"Measured on {where(record)}."])


def where(record: Record) -> str:
    """Machine, versions and date, in a line."""
    found, setting = record["environment"], record["setting"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    gpu = found["machine"]["gpu"] if setting["device"] == "cuda" else None
    machine = gpu["name"] if gpu else found["machine"]["cpu"]
    seconds = [run["seconds"] for row in record["rows"] for run in row["runs"]]
    return (
        f"{machine}, {threads}, {setting['precision']}, backend {setting['backend']}; {versions}; "
        f"{found['date']}. These are {len(seconds)} trainings, {sum(seconds) / 60:.1f} minutes in all"
    )


def regenerated(text: str, record: Record, page: str) -> str:
    """The page's text with its table written anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise results.ResultError(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{section(record)}\n\n{END}{after}"


def write_page(page: Path, record: Record, check: bool) -> int:
    """Write the table into the page; with ``check`` only say whether it is there."""
    text = page.read_text(encoding="utf-8")
    made = regenerated(text, record, page.name)
    if check:
        print(f"{page.name} {'is up to date' if made == text else 'is behind its results'}")
        return int(made != text)
    page.write_text(made, encoding="utf-8")
    print(f"{page} is up to date")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a folder for the result files")
    parser.add_argument("--page", type=Path, help="train nothing: write the table into this page")
    parser.add_argument("--check", action="store_true", help="write nothing: fail where the page is behind")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="the folder that the page is of")
    options = parser.parse_args(arguments)
    if options.page:
        return write_page(options.page, results.read(options.results / FILE), options.check)
    from threadpoolctl import threadpool_limits

    gpunn.set_num_threads(1)
    with threadpool_limits(1):
        record = measure(options.seeds, options.device, lambda line: print(line, flush=True))
    if options.out:
        for each in (record, first_network(record)):
            print(f"written: {results.write(each, options.out)}")
    print(section(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
