"""What every op computes, written in float64 without any code of gpunn: the other side of the parity tests.

A reference takes the inputs (and, for what is read and overwritten, the old outputs) by operand name and
returns the new outputs by operand name.
"""

from __future__ import annotations

import numpy as np
from oracle import SIGMA

LR, L2, MU, BETA1, BETA2, EPSILON, POWER1, POWER2 = range(8)


def each(function, array):
    return np.array([function(v) for v in array.ravel().tolist()]).reshape(array.shape)


def derivative_from_kept(sigma, kept):
    """σ′ from what the rule says is kept: the output a for the present activations."""
    return {
        "identity": lambda a: np.ones_like(a),
        "sigmoid": lambda a: a * (1 - a),
        "tanh": lambda a: 1 - a * a,
        "relu": lambda a: (a > 0).astype(float),
    }[sigma](kept)


def mean(rows, w):
    w = np.ones(len(rows)) if w is None else w
    return np.array([(rows * w).sum() / w.sum(), w.sum()]), (w / w.sum())[:, None]


def gather(X, perm, cursor, x):
    return {"x": np.stack([X[perm[int(cursor[0]) + i]] for i in range(len(x))])}


def one_hot(labels, t):
    return {"t": np.array([[float(j == label) for j in range(t.shape[1])] for label in labels])}


def linear(x, W, b, z):
    return {"z": (x[:, None, :] * W[None]).sum(-1) + b}


def activate(z, a, sigma):
    return {"a": each(SIGMA[sigma][0], z)}


def softmax(z, a):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return {"a": e / e.sum(axis=1, keepdims=True)}


def add(u, v, y):
    return {"y": u + v}


def quadratic(a, t, w, loss, delta):
    loss, share = mean(0.5 * ((a - t) ** 2).sum(axis=1), w)
    return {"loss": loss, "delta": share * (a - t)}


def mean_squared_error(a, t, w, loss, delta):
    loss, share = mean(((a - t) ** 2).mean(axis=1), w)
    return {"loss": loss, "delta": share * 2 * (a - t) / a.shape[1]}


def log_softmax(z):
    m = z.max(axis=1, keepdims=True)
    return z - m - np.log(np.exp(z - m).sum(axis=1, keepdims=True))


def softmax_cross_entropy(z, labels, w, loss, delta):
    return softmax_cross_entropy_targets(z, one_hot(labels, z)["t"], w, loss, delta)


def softmax_cross_entropy_targets(z, t, w, loss, delta):
    log_p = log_softmax(z)
    loss, share = mean(-(t * log_p).sum(axis=1), w)
    return {"loss": loss, "delta": share * (np.exp(log_p) * t.sum(axis=1, keepdims=True) - t)}


def linear_grad_input(delta, W, grad_x, accumulate=False):
    return {"grad_x": (delta[:, :, None] * W[None]).sum(1) + (grad_x if accumulate else 0)}


def linear_grad_weight(delta, x, grad_W, accumulate=False):
    return {
        "grad_W": sum(np.outer(d, r) for d, r in zip(delta, x, strict=True)) + (grad_W if accumulate else 0)
    }


def linear_grad_bias(delta, grad_b, accumulate=False):
    return {"grad_b": sum(delta) + (grad_b if accumulate else 0)}


def activate_grad(y, delta, sigma):
    return {"delta": delta * derivative_from_kept(sigma, y)}


def softmax_grad(a, delta):
    return {"delta": np.stack([(np.diag(s) - np.outer(s, s)) @ d for s, d in zip(a, delta, strict=True)])}


def copy(u, v, accumulate=False):
    return {"v": u + (v if accumulate else 0)}


def l2_penalty(theta, hyper, penalty, weights):
    return {"penalty": np.array([0.5 * hyper[L2] * (theta[:weights] ** 2).sum()])}


def tally(loss, step, penalty, loss_sum, first_bad):
    extra = 0.0 if penalty is None else penalty[0]
    added = np.array([loss[0], 1.0, extra]) * loss[1]
    return {"loss_sum": loss_sum + added, "first_bad": first_bad}


def count_correct(y, labels, correct):
    return {"correct": correct + (y.argmax(axis=1) == labels).sum()}


def count_correct_targets(y, t, correct):
    if y.shape[1] == 1:
        return {"correct": correct + ((y > 0.5) == (t > 0.5)).sum()}
    return {"correct": correct + (y.argmax(axis=1) == t.argmax(axis=1)).sum()}


def penalised(grad, hyper, theta, weights):
    return grad + hyper[L2] * theta * (np.arange(len(theta)) < weights)


def sgd(grad, hyper, theta, weights):
    return {"theta": theta - hyper[LR] * penalised(grad, hyper, theta, weights)}


def momentum(grad, hyper, velocity, theta, weights):
    velocity = hyper[MU] * velocity - hyper[LR] * penalised(grad, hyper, theta, weights)
    return {"velocity": velocity, "theta": theta + velocity}


def adam(grad, hyper, m, v, theta, weights):
    g = penalised(grad, hyper, theta, weights)
    m = hyper[BETA1] * m + (1 - hyper[BETA1]) * g
    v = hyper[BETA2] * v + (1 - hyper[BETA2]) * g * g
    m_hat, v_hat = m / (1 - hyper[POWER1]), v / (1 - hyper[POWER2])
    return {"m": m, "v": v, "theta": theta - hyper[LR] * m_hat / (np.sqrt(v_hat) + hyper[EPSILON])}


def advance(cursor, step, hyper, rows):
    moved = hyper.copy()
    moved[POWER1] *= hyper[BETA1]
    moved[POWER2] *= hyper[BETA2]
    return {"cursor": cursor + rows, "step": step + 1, "hyper": moved}


REFERENCES = {
    function.__name__: function
    for function in (
        gather,
        one_hot,
        linear,
        activate,
        softmax,
        add,
        quadratic,
        mean_squared_error,
        softmax_cross_entropy,
        softmax_cross_entropy_targets,
        linear_grad_input,
        linear_grad_weight,
        linear_grad_bias,
        activate_grad,
        softmax_grad,
        copy,
        l2_penalty,
        tally,
        count_correct,
        count_correct_targets,
        sgd,
        momentum,
        adam,
        advance,
    )
}

#: Ops whose result is a sum of products: rounding is relative to the terms, which may cancel.
SUMS = {"linear", "linear_grad_input", "linear_grad_weight", "linear_grad_bias"}

#: The attributes to try for ops that have some.
ATTRIBUTES = {
    "activate": [{"sigma": name} for name in SIGMA],
    "activate_grad": [{"sigma": name} for name in SIGMA],
    "l2_penalty": [{"weights": 0}, {"weights": 17}],
    "sgd": [{"weights": 0}, {"weights": 17}],
    "momentum": [{"weights": 0}, {"weights": 17}],
    "adam": [{"weights": 0}, {"weights": 17}],
    "advance": [{"rows": 7}],
}
