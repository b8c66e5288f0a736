"""gpunn.sklearn against scikit-learn: test scores at the same settings, and the time of ``fit``.

    python -m benchmarks.estimators [--out FOLDER]

Both are called in turn, in one process, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

import gpunn

from .environment import environment
from .results import FOLDER, write

SEEDS = range(5)

#: Bundled data to what they are of.
DATA = {
    "digits": "Classifier",
    "iris": "Classifier",
    "wine": "Classifier",
    "breast_cancer": "Classifier",
    "diabetes": "Regressor",
}

#: What is timed: data, dtype, parameters of both.
FITS = {
    "digits, defaults, float64": ("digits", "float64", {}),
    "digits, defaults, float32": ("digits", "float32", {}),
    "MNIST 784-30-10, SGD, batches of 10, float64": ("mnist", "float64", "nielsen"),
    "MNIST 784-30-10, SGD, batches of 10, float32": ("mnist", "float32", "nielsen"),
}
NIELSEN = {
    "hidden_layer_sizes": (30,),
    "activation": "logistic",
    "solver": "sgd",
    "momentum": 0.0,
    "learning_rate_init": 0.5,
    "batch_size": 10,
    "max_iter": 2,
    "n_iter_no_change": 10,
}


def classes(kind):
    import sklearn.neural_network as theirs

    import gpunn.sklearn as ours

    return {"scikit-learn": getattr(theirs, f"MLP{kind}"), "gpunn": getattr(ours, f"MLP{kind}")}


def scores() -> dict:
    """Test scores by data, library and seed."""
    import sklearn.datasets
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    found: dict = {}
    for name, kind in DATA.items():
        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        for library, cls in classes(kind).items():
            for seed in SEEDS:
                X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed)
                scaler = StandardScaler().fit(X_train)
                mlp = cls(random_state=seed, max_iter=2000).fit(scaler.transform(X_train), y_train)
                score = mlp.score(scaler.transform(X_test), y_test)
                found.setdefault(name, {}).setdefault(library, []).append(score)
    return found


def data(name, dtype):
    if name == "digits":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return X.astype(dtype), y
    from gpunn.data import load_mnist

    train = load_mnist().train
    return train.X.reshape(len(train.X), -1).astype(dtype), train.y


def times(repeats: int) -> dict:
    """Seconds of ``fit`` by row and library, called in turn."""
    found: dict = {}
    for row, (name, dtype, given) in FITS.items():
        X, y = data(name, dtype)
        given = NIELSEN if given == "nielsen" else {}
        for repeat in range(repeats + 1):
            for library, cls in classes("Classifier").items():
                mlp = cls(random_state=0, **given)
                start = time.perf_counter()
                mlp.fit(X, y)
                taken = time.perf_counter() - start
                if repeat:  # The first is for the libraries to warm up, and for gpunn to compile.
                    entry = found.setdefault(row, {}).setdefault(library, {"seconds": []})
                    entry["seconds"].append(taken)
                    entry |= {"epochs": int(mlp.n_iter_), "loss": float(mlp.loss_)}
    return found


def main(arguments=None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    from threadpoolctl import threadpool_limits

    gpunn.set_num_threads(1)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        record = {
            "schema": 1,
            "kind": "estimators",
            "scores": scores(),
            "times": times(options.repeats),
            "environment": environment(),
            "setting": {"device": "cpu", "threads": 1, "precision": "float32", "repeats": options.repeats},
        }
    for row, libraries in record["times"].items():
        theirs, ours = (statistics.median(libraries[name]["seconds"]) for name in ("scikit-learn", "gpunn"))
        print(f"{row}: {theirs:.3f} s, {ours:.3f} s, {theirs / ours:.2f} times as fast")
    path = write(record, options.out)
    print(path)
    return path


if __name__ == "__main__":
    main()
