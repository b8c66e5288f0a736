"""A grid search over handwritten digits, with scikit-learn's MLPClassifier and with gpunn's.

python examples/grid_search.py [--device cpu] [--epochs 60]
"""

from __future__ import annotations

import argparse
import time
import warnings

from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import gpunn.sklearn

GRID = {"mlpclassifier__alpha": [1e-4, 1e-2, 1.0], "mlpclassifier__hidden_layer_sizes": [(50,), (100,)]}


def main(epochs: int = 60, device: str = "cpu") -> float:
    """Search with both; returns the best score."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y = load_digits(return_X_y=True)
    gpunn.sklearn.MLPClassifier(max_iter=1, device=device).fit(X, y)  # Kernels are compiled once a machine.
    estimators = {
        "scikit-learn": neural_network.MLPClassifier(
            max_iter=epochs, learning_rate_init=0.02, random_state=0
        ),
        "gpunn": gpunn.sklearn.MLPClassifier(
            max_iter=epochs, learning_rate_init=0.02, random_state=0, device=device
        ),
    }
    best = 0.0
    for library, mlp in estimators.items():
        search = GridSearchCV(make_pipeline(MinMaxScaler(), mlp), GRID, cv=3)
        start = time.perf_counter()
        search.fit(X, y)
        seconds = time.perf_counter() - start
        chosen = ", ".join(f"{key.rpartition('__')[2]}={value}" for key, value in search.best_params_.items())
        print(f"{library:<13} {seconds:6.2f} s   score {search.best_score_:.4f}   {chosen}")
        best = max(best, float(search.best_score_))
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--epochs", type=int, default=60, help="of each fit, at most")
    options = parser.parse_args()
    main(options.epochs, options.device)
