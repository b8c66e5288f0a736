"""What every op computes, written in float64 without any code of gpunn: the other side of the parity tests.

A reference takes the inputs (and, for what is read and overwritten, the old outputs) by operand name and
returns the new outputs by operand name.
"""

from __future__ import annotations

import numpy as np
from oracle import SIGMA
from scipy import special

(
    LR,
    L2,
    MU,
    BETA1,
    BETA2,
    EPSILON,
    POWER1,
    POWER2,
    L1,
    DECAY,
    RHO,
    CLIP_NORM,
    CLIP_SCALE,
    FIRST,
    L2_SUM,
    HAT,
) = range(16)


def each(function, array):
    return np.array([function(v) for v in array.ravel().tolist()]).reshape(array.shape)


def derivative_from_kept(sigma, kept):
    """σ′ from what the row says is kept: the output a, or the input z for gelu and silu."""
    return {
        "identity": lambda a: np.ones_like(a),
        "sigmoid": lambda a: a * (1 - a),
        "tanh": lambda a: 1 - a * a,
        "relu": lambda a: (a > 0).astype(float),
        "leaky_relu": lambda a: np.where(a > 0, 1.0, 0.01),
        "elu": lambda a: np.where(a > 0, 1.0, 1 + a),
        "softplus": lambda a: 1 - np.exp(-a),
        "exp": lambda a: a,
        "hard_sigmoid": lambda a: ((a > 0) & (a < 1)) / 6,
        "gelu": lambda z: each(SIGMA["gelu"][1], z),
        "silu": lambda z: each(SIGMA["silu"][1], z),
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


def mean_absolute_error(a, t, w, loss, delta):
    loss, share = mean(np.abs(a - t).mean(axis=1), w)
    return {"loss": loss, "delta": share * np.sign(a - t) / a.shape[1]}


def huber(a, t, w, loss, delta):
    d = a - t
    loss, share = mean(np.where(np.abs(d) <= 1, d * d / 2, np.abs(d) - 0.5).mean(axis=1), w)
    return {"loss": loss, "delta": share * np.clip(d, -1, 1) / a.shape[1]}


def binary_cross_entropy(z, t, w, loss, delta):
    p = each(SIGMA["sigmoid"][0], z)
    loss, share = mean(-(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1), w)
    return {"loss": loss, "delta": share * (p - t)}


def poisson(z, t, w, loss, delta):
    logs = special.xlogy(t, t)
    loss, share = mean((np.exp(z) - t * z + logs - t).sum(axis=1), w)
    return {"loss": loss, "delta": share * (np.exp(z) - t)}


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


def weight_penalty(theta, hyper, penalty, weights, terms):
    w = theta[:weights]
    l2 = 0.5 * hyper[L2] * (w**2).sum() if "l2" in terms else 0.0
    return {"penalty": np.array([l2 + (hyper[L1] * np.abs(w).sum() if "l1" in terms else 0.0)])}


def tally(loss, step, penalty, loss_sum, first_bad):
    extra = 0.0 if penalty is None else penalty[0]
    added = np.array([loss[0], 1.0, extra]) * loss[1]
    return {"loss_sum": loss_sum + added, "first_bad": first_bad}


def count_correct(y, labels, correct):
    return {"correct": correct + (y.argmax(axis=1) == labels).sum()}


def argmax(t, labels):
    return {"labels": np.array([max(range(len(row)), key=lambda j: (row[j], -j)) for row in t])}


def count_top_k(y, labels, correct, k):
    best = [sorted(range(len(row)), key=lambda j: (-row[j], j))[:k] for row in y]
    return {"correct": correct + sum(label in places for label, places in zip(labels, best, strict=True))}


def count_exact(y, t, correct, threshold):
    return {"correct": correct + ((y > threshold) == (t > 0.5)).all(axis=1).sum()}


def confusion(y, labels, counts):
    counts = counts.copy()
    for row, label in zip(y, labels, strict=True):
        counts[label, row.argmax()] += 1
    return {"counts": counts}


def confusion_by_output(y, t, counts, threshold):
    counts = counts.copy()
    for outputs, wanted in zip(y, t, strict=True):
        for j, (output, want) in enumerate(zip(outputs, wanted, strict=True)):
            counts[j, int(want > 0.5), int(output > threshold)] += 1
    return {"counts": counts}


def sum_absolute(y, t, total):
    return {"total": total + np.array([np.abs(y - t).sum(), y.size])}


def moments(y, t, sums):
    """As if the rows before had been n copies of mean ± √(M2/n)."""
    before, mean, squares, residual = np.abs(sums[0]), sums[1], sums[2], sums[3]
    n = before + len(t)
    joint = (before * mean + t.sum(axis=0)) / n
    squares = squares + before * (mean - joint) ** 2 + ((t - joint) ** 2).sum(axis=0)
    return {"sums": np.stack([n, joint, squares, residual + ((y - t) ** 2).sum(axis=0)])}


def dropout(x, key, step, y, mask, rate, layer):
    kept = np.array([philox_word(i, key, step, layer) >= round(rate * 2**32) for i in range(x.size)])
    return {"y": x * kept.reshape(x.shape) / (1 - rate), "mask": kept.reshape(x.shape)}


def philox_word(i, key, step, layer):
    """Word i mod 4 of block i // 4, in Python's whole numbers."""
    c, k = [i // 4, layer, int(step[0]) % 2**32, int(step[0]) // 2**32], [int(key[0]), int(key[1])]
    for _ in range(10):
        high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [high[1] // 2**32 ^ c[1] ^ k[0], high[1] % 2**32, high[0] // 2**32 ^ c[3] ^ k[1], high[0] % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c[i % 4]


def dropout_grad(mask, delta, rate):
    return {"delta": np.where(mask, delta / (1 - rate), 0.0)}


def clip_by_norm(grad, hyper):
    scaled = hyper.copy()
    norm = np.sqrt((grad**2).sum())
    scaled[CLIP_SCALE] = min(1.0, hyper[CLIP_NORM] / norm) if norm else 1.0
    return {"hyper": scaled}


def schedule(rates, step, hyper):
    changed = hyper.copy()
    changed[LR] = rates[int(step[0] - hyper[FIRST])]
    return {"hyper": changed}


def l2_of_batch(loss, hyper):
    changed = hyper.copy()
    changed[L2] = hyper[L2_SUM] / loss[1]
    return {"hyper": changed}


def count_examples(w, loss):
    return {"loss": np.array([loss[0], len(w)])}


def epsilon_of_step(hyper):
    changed = hyper.copy()
    changed[EPSILON] = hyper[HAT] / np.sqrt(1 - hyper[POWER2])
    return {"hyper": changed}


def direction(grad, hyper, theta, weights, terms):
    """What the update goes along, and Θ after its decoupled decay."""
    is_weight = np.arange(len(theta)) < weights
    g = grad * (hyper[CLIP_SCALE] if "clip" in terms else 1)
    g = g + is_weight * (hyper[L2] * theta * ("l2" in terms) + hyper[L1] * np.sign(theta) * ("l1" in terms))
    if "decay" in terms:
        theta = theta - hyper[LR] * hyper[DECAY] * theta * is_weight
    return g, theta


def sgd(grad, hyper, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    return {"theta": theta - hyper[LR] * g}


def momentum(grad, hyper, velocity, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    velocity = hyper[MU] * velocity - hyper[LR] * g
    return {"velocity": velocity, "theta": theta + velocity}


def nesterov(grad, hyper, velocity, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    velocity = hyper[MU] * velocity - hyper[LR] * g
    return {"velocity": velocity, "theta": theta + hyper[MU] * velocity - hyper[LR] * g}


def adam(grad, hyper, m, v, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    m = hyper[BETA1] * m + (1 - hyper[BETA1]) * g
    v = hyper[BETA2] * v + (1 - hyper[BETA2]) * g * g
    m_hat, v_hat = m / (1 - hyper[POWER1]), v / (1 - hyper[POWER2])
    return {"m": m, "v": v, "theta": theta - hyper[LR] * m_hat / (np.sqrt(v_hat) + hyper[EPSILON])}


def rmsprop(grad, hyper, v, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    v = hyper[RHO] * v + (1 - hyper[RHO]) * g * g
    return {"v": v, "theta": theta - hyper[LR] * g / (np.sqrt(v) + hyper[EPSILON])}


def adagrad(grad, hyper, v, theta, weights, terms=()):
    g, theta = direction(grad, hyper, theta, weights, terms)
    v = v + g * g
    return {"v": v, "theta": theta - hyper[LR] * g / (np.sqrt(v) + hyper[EPSILON])}


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
        weight_penalty,
        tally,
        count_correct,
        argmax,
        count_top_k,
        count_exact,
        confusion,
        confusion_by_output,
        sum_absolute,
        moments,
        dropout,
        dropout_grad,
        clip_by_norm,
        schedule,
        l2_of_batch,
        count_examples,
        epsilon_of_step,
        nesterov,
        rmsprop,
        adagrad,
        mean_absolute_error,
        huber,
        binary_cross_entropy,
        poisson,
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
    "weight_penalty": [
        {"weights": weights, "terms": terms}
        for weights in (0, 17)
        for terms in (("l1",), ("l2",), ("l1", "l2"))
    ],
    **{
        name: [
            {"weights": 0},
            *({"weights": 17, "terms": terms} for terms in (("l1",), ("l2",), ("decay",), ("clip",))),
            {"weights": 17, "terms": ("l1", "l2", "decay", "clip")},
        ]
        for name in ("sgd", "momentum", "nesterov", "adam", "rmsprop", "adagrad")
    },
    "count_top_k": [{"k": 1}, {"k": 3}],
    "count_exact": [{"threshold": 0.5}, {"threshold": 0.0}],
    "confusion_by_output": [{"threshold": 0.5}, {"threshold": 0.0}],
    "dropout": [{"rate": 0.5, "layer": 0}, {"rate": 0.1, "layer": 3}],
    "dropout_grad": [{"rate": 0.5}, {"rate": 0.1}],
    "advance": [{"rows": 7}],
}
