"""The step as one writes it by hand in NumPy: a minibatch is a matrix."""

from __future__ import annotations

import numpy as np


class Peer:
    def __init__(self, problem, device, threads, precision):
        self.kind, self.options = problem.workload.optimizer[0], problem.options
        self.crossed, self.hidden = problem.workload.loss == "cross_entropy", problem.workload.hidden
        self.theta = [array.copy() for layer in problem.layers for array in layer]
        self.m = [np.zeros_like(p) for p in self.theta]
        self.v = [np.zeros_like(p) for p in self.theta]
        self.X, self.T, self.t = problem.X, problem.targets, 0

    def run(self, steps, order):
        return [self.step(self.X[rows], self.T[rows]) for rows in order.take(steps)]

    def step(self, x, t):
        W, b = self.theta[::2], self.theta[1::2]
        a = [x]
        for k in range(len(W)):
            z = a[-1] @ W[k].T + b[k]
            if k < len(W) - 1 or not self.crossed:
                a.append(np.maximum(z, 0) if self.hidden == "relu" else 1 / (1 + np.exp(-z)))
            else:
                e = np.exp(z - z.max(axis=1, keepdims=True))
                a.append(e / e.sum(axis=1, keepdims=True))
        if self.crossed:
            cost = -np.log((a[-1] * t).sum(axis=1)).mean()
            delta = (a[-1] - t) / len(x)
        else:
            error = a[-1] - t
            cost = 0.5 * np.vdot(error, error) / len(x)
            delta = error * a[-1] * (1 - a[-1]) / len(x)
        grads = []
        for k in range(len(W) - 1, -1, -1):
            grads = [delta.T @ a[k], delta.sum(axis=0), *grads]
            if k:
                slope = (a[k] > 0) if self.hidden == "relu" else a[k] * (1 - a[k])
                delta = delta @ W[k] * slope
        self.update(grads)
        return cost

    def update(self, grads):
        lr = self.options["lr"]
        self.t += 1
        for p, g, m, v in zip(self.theta, grads, self.m, self.v, strict=True):
            if self.kind == "sgd":
                p -= lr * g
            elif self.kind == "momentum":
                m *= self.options["momentum"]
                m += g
                p -= lr * m
            else:
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= lr / (1 - 0.9**self.t) * m / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)

    def parameters(self):
        return list(zip(self.theta[::2], self.theta[1::2], strict=True))
