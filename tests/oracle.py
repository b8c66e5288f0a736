"""Backpropagation one example at a time in float64, straight from the four equations of the notes.

Nothing here comes from gpunn: it is what gpunn is held against.
"""

from __future__ import annotations

import math

import numpy as np


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def normal_pdf(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def normal_cdf(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


SIGMA = {
    "identity": (lambda z: z, lambda z: 1.0),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
    "leaky_relu": (lambda z: z if z > 0 else z / 100, lambda z: 1.0 if z > 0 else 0.01),
    "elu": (lambda z: z if z > 0 else math.exp(z) - 1, lambda z: math.exp(min(z, 0.0))),
    "exp": (math.exp, math.exp),
    "softplus": (lambda z: float(np.logaddexp(0.0, z)), sigmoid),
    "hard_sigmoid": (lambda z: min(max((z + 3) / 6, 0.0), 1.0), lambda z: float(-3 < z < 3) / 6),
    "gelu": (lambda z: z * normal_cdf(z), lambda z: normal_cdf(z) + z * normal_pdf(z)),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * sigmoid(-z))),
}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def activate(name, z):
    return softmax(z) if name == "softmax" else np.array([SIGMA[name][0](v) for v in z])


def back_through(name, z, grad_a):
    """∂C/∂z from ∂C/∂a: ⊙ σ′(z), or the Jacobian of softmax."""
    if name == "softmax":
        s = softmax(z)
        return (np.diag(s) - np.outer(s, s)) @ grad_a
    return grad_a * np.array([SIGMA[name][1](v) for v in z])


def cost(loss, a, t):
    if loss == "quadratic":
        return 0.5 * float((a - t) @ (a - t))
    if loss == "mse":
        return float((a - t) @ (a - t)) / len(a)
    if loss == "mae":
        return float(np.abs(a - t).mean())
    if loss == "huber":
        return float(np.mean([d * d / 2 if abs(d) <= 1 else abs(d) - 0.5 for d in a - t]))
    if loss == "binary_cross_entropy":
        return -float(t @ np.log(a) + (1 - t) @ np.log(1 - a))
    if loss == "cross_entropy":
        return -float(t @ np.log(a))
    if loss == "poisson":
        return sum(
            float(u - v * math.log(u) + (v and v * math.log(v)) - v) for u, v in zip(a, t, strict=True)
        )
    raise KeyError(loss)


def cost_gradient(loss, a, t):
    if loss == "quadratic":
        return a - t
    if loss == "mse":
        return 2 * (a - t) / len(a)
    if loss == "mae":
        return np.sign(a - t) / len(a)
    if loss == "huber":
        return np.clip(a - t, -1, 1) / len(a)
    if loss == "binary_cross_entropy":
        return (1 - t) / (1 - a) - t / a
    if loss == "cross_entropy":
        return -t / a
    if loss == "poisson":
        return 1 - t / a
    raise KeyError(loss)


class Layer:
    """W, b and σ; ``W is None`` for a layer that is σ alone."""

    def __init__(self, W, b, sigma):
        self.W, self.b, self.sigma = W, b, sigma


def backpropagate(layers, X, T, loss, weights=None):
    """Mean cost, ∂C/∂W and ∂C/∂b of each layer with weights, and each such layer's δ (n, n_l)."""
    weights = np.ones(len(X)) if weights is None else weights
    shares = weights / weights.sum()
    kept = [number for number, layer in enumerate(layers) if layer.W is not None]
    grads = {number: [0.0, 0.0] for number in kept}
    deltas = {number: [] for number in kept}
    total = 0.0
    for x, t, share in zip(X.reshape(len(X), -1).astype(float), T.astype(float), shares, strict=True):
        inputs, zs, a = [], [], x
        for layer in layers:
            inputs.append(a)
            zs.append(a if layer.W is None else layer.W @ a + layer.b)
            a = activate(layer.sigma, zs[-1])
        total += share * cost(loss, a, t)
        grad_a = cost_gradient(loss, a, t)
        for number in reversed(range(len(layers))):
            layer = layers[number]
            delta = back_through(layer.sigma, zs[number], grad_a)
            grad_a = delta if layer.W is None else layer.W.T @ delta
            if number in grads:
                grads[number][0] += share * np.outer(delta, inputs[number])
                grads[number][1] += share * delta
                deltas[number].append(share * delta)
    return total, [grads[number] for number in kept], [np.array(deltas[number]) for number in kept]
