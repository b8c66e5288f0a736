"""Backpropagation one example at a time, in the manner of the book: columns, np.dot, sums."""

from __future__ import annotations

import numpy as np

from . import Unsupported


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


class Peer:
    def __init__(self, problem, device, threads, precision):
        workload = problem.workload
        if workload.optimizer[0] != "sgd" or workload.hidden != "sigmoid":
            raise Unsupported("the book's loops are sigmoid networks under plain SGD")
        self.weights = [W.copy() for W, _ in problem.layers]
        self.biases = [b[:, None].copy() for _, b in problem.layers]
        self.X, self.T = problem.X[:, :, None], problem.targets[:, :, None]
        self.crossed, self.lr = workload.loss == "cross_entropy", np.float32(problem.options["lr"])

    def run(self, steps, order):
        return [self.update_minibatch(rows) for rows in order.take(steps)]

    def update_minibatch(self, rows):
        sum_b = [np.zeros(b.shape, b.dtype) for b in self.biases]
        sum_W = [np.zeros(W.shape, W.dtype) for W in self.weights]
        cost = 0.0
        for row in rows:
            grad_b, grad_W, own = self.backprop(self.X[row], self.T[row])
            sum_b = [total + one for total, one in zip(sum_b, grad_b, strict=True)]
            sum_W = [total + one for total, one in zip(sum_W, grad_W, strict=True)]
            cost += own
        rate = self.lr / np.float32(len(rows))
        self.weights = [W - rate * total for W, total in zip(self.weights, sum_W, strict=True)]
        self.biases = [b - rate * total for b, total in zip(self.biases, sum_b, strict=True)]
        return cost / len(rows)

    def backprop(self, x, t):
        activations = [x]
        last = len(self.weights) - 1
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            sigma = softmax if self.crossed and k == last else sigmoid
            activations.append(sigma(np.dot(W, activations[-1]) + b))
        a = activations[-1]
        delta = a - t if self.crossed else (a - t) * a * (1 - a)
        cost = -np.log(a[t == 1][0]) if self.crossed else 0.5 * float(np.sum((a - t) ** 2))
        grad_b, grad_W = [delta], [np.dot(delta, activations[-2].T)]
        for k in range(last, 0, -1):
            a = activations[k]
            delta = np.dot(self.weights[k].T, delta) * a * (1 - a)
            grad_b.insert(0, delta)
            grad_W.insert(0, np.dot(delta, activations[k - 1].T))
        return grad_b, grad_W, cost

    def parameters(self):
        return [(W, b[:, 0]) for W, b in zip(self.weights, self.biases, strict=True)]
