"""scikit-learn's MLPClassifier: no penalty, no Nesterov momentum, started from the given weights."""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from . import Unsupported


class Peer:
    def __init__(self, problem, device, threads, precision):
        workload, (kind, _) = problem.workload, problem.workload.optimizer
        if workload.loss != "cross_entropy" or kind == "adam":
            raise Unsupported(
                "MLPClassifier has cross-entropy alone, and its Adam adds ε to another √v"
                if kind == "adam"
                else "MLPClassifier has no other cost than cross-entropy"
            )
        self.X, self.y = problem.X, problem.y
        self.model = MLPClassifier(
            hidden_layer_sizes=workload.units[:-1],
            activation={"sigmoid": "logistic"}.get(workload.hidden, workload.hidden),
            solver="sgd",
            learning_rate_init=problem.options["lr"],
            momentum=problem.options.get("momentum", 0.0),
            nesterovs_momentum=False,
            alpha=0.0,
            batch_size=workload.batch,
            shuffle=False,
            random_state=0,
        )
        # One step makes the arrays; then weights and velocities are set to what they have to start from.
        first = slice(0, workload.batch)
        self.model.partial_fit(self.X[first], self.y[first], classes=np.arange(workload.units[-1]))
        for k, (W, b) in enumerate(problem.layers):
            self.model.coefs_[k][...] = W.T
            self.model.intercepts_[k][...] = b
        for velocity in self.model._optimizer.velocities:
            velocity[...] = 0

    def run(self, steps, order):
        rows = order.take(steps).reshape(-1)
        self.model.partial_fit(self.X[rows], self.y[rows])
        return [self.model.loss_]

    def parameters(self):
        return [(W.T, b) for W, b in zip(self.model.coefs_, self.model.intercepts_, strict=True)]
