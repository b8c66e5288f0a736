"""The NumPy backend: the readable definition of every op, and what every other backend is held against.

A kernel is a function of the views of an op's inputs and outputs (``None`` where one is absent) and of
its attributes. It writes its outputs and allocates nothing of their size: what it needs beside them it
declares as ``scratch``, in the notation of the op signatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arena import ALIGNMENT
from ..errors import ProgramError, ShapeError
from ..ops import HYPER, OPS, Operand, fill, rule
from ..philox import keep
from ..program import Program
from ..slots import WORKSPACE, Op, Role
from .base import Backend, Memory, Runner
from .numpy_sigma import SIGMA, SIGMA_PRIME

__all__ = ["KERNELS", "SIGMA", "SIGMA_PRIME", "NumpyBackend", "NumpyRunner"]

Array = NDArray[Any]
Kernel = Callable[..., None]

KERNELS: dict[str, Kernel] = {}
SCRATCH: dict[str, tuple[Operand, ...]] = {}

LR, L1, L2, DECAY = (HYPER[word] for word in ("lr", "l1", "l2", "weight_decay"))
MU, RHO, BETA1, BETA2 = (HYPER[word] for word in ("momentum", "rho", "beta1", "beta2"))
EPSILON, POWER1, POWER2 = (HYPER[word] for word in ("epsilon", "beta1_power", "beta2_power"))
CLIP_NORM, CLIP_SCALE, FIRST = (HYPER[word] for word in ("clip_norm", "clip_scale", "first_step"))


def kernel(scratch: str = "") -> Callable[[Kernel], Kernel]:
    """Enter a function into the table of kernels under its own name."""

    def enter(function: Kernel) -> Kernel:
        name = function.__name__
        KERNELS[name] = function
        SCRATCH[name] = tuple(Operand.parse(word) for word in scratch.split())
        return function

    return enter


@lru_cache(maxsize=64)
def _range(n: int) -> Array:
    return np.arange(n)


# ------------------------------------------------------------------ the minibatch


@kernel()
def gather(X: Array, perm: Array, cursor: Array, x: Array) -> None:
    """Rows perm[cursor : cursor + B] of X; mode "clip" is what lets take() write straight into x."""
    start = cursor.item()
    rows = perm[start : start + len(x)]
    if X.dtype == x.dtype:
        X.take(rows, axis=0, out=x, mode="clip")
    else:  # A memory map of another dtype: these rows alone are read and converted.
        x[...] = X[rows]


@kernel()
def one_hot(labels: Array, t: Array) -> None:
    """Labels as rows of 0 and 1."""
    np.equal(labels[:, None], _range(t.shape[1]), out=t)


# ------------------------------------------------------------------ forward


@kernel()
def linear(x: Array, W: Array, b: Array, z: Array) -> None:
    """z = x Wᵀ + b."""
    np.matmul(x, W.T, out=z)
    np.add(z, b, out=z)


@kernel(scratch="s(*S) mask(*S):bool")
def activate(z: Array, a: Array, *, sigma: str, s: Array, mask: Array) -> None:
    """a = σ(z)."""
    SIGMA[sigma](z, a, s, mask)


def _exponentials(
    z: Array, p: Array, e: Array, f: Array, m: Array, rest: Array, at: Array, far: Array
) -> None:
    """p = exp(z − max z) with 0 in the place of the largest, whose index is ``at``; rest = its row sums.

    A difference of two float64 numbers is rounded, and exp makes a relative error of that absolute one: the
    rounding is found (Knuth's two-sum) and put back. A row that holds NaN gives NaN.
    """
    np.argmax(z, axis=1, out=at)
    np.add(at, np.multiply(_range(len(at)), z.shape[1]), out=at)
    z.reshape(-1).take(at, out=m[:, 0], mode="clip")
    np.copyto(p, z)
    np.subtract(p, m, out=p)
    np.subtract(p, z, out=e)
    np.subtract(p, e, out=f)
    np.subtract(z, f, out=f)
    np.add(e, m, out=e)
    np.subtract(f, e, out=f)
    np.less(p, -800.0, out=far)
    np.copyto(f, 0.0, where=far)
    np.exp(p, out=p)
    np.multiply(f, p, out=f)
    np.add(p, f, out=p)
    p.reshape(-1)[at] = np.multiply(m[:, 0], 0.0)
    np.add.reduce(p, axis=1, keepdims=True, out=rest)


_EXPONENTIALS = (
    "p(B,N):float64 e(B,N):float64 f(B,N):float64 m(B,1) rest(B,1):float64 at(B):int64 far(B,N):bool"
)


@kernel(scratch=_EXPONENTIALS)
def softmax(
    z: Array,
    a: Array,
    *,
    p: Array,
    e: Array,
    f: Array,
    m: Array,
    rest: Array,
    at: Array,
    far: Array,
) -> None:
    """exp(z − max z), divided by its row sum."""
    _exponentials(z, p, e, f, m, rest, at, far)
    _probabilities(p, rest, at)
    np.copyto(a, p, casting="same_kind")


def _probabilities(p: Array, rest: Array, at: Array) -> None:
    """What :func:`_exponentials` left, divided by its sum with the largest."""
    p.reshape(-1)[at] = 1.0
    np.divide(p, np.add(rest, 1.0), out=p)


@kernel()
def dropout(x: Array, key: Array, step: Array, y: Array, mask: Array, *, rate: float, layer: int) -> None:
    """Zeros where the mask is, the rest divided by 1 − rate; the mask is a function of (key, step, layer)."""
    keep(key, step.item(), layer, rate, mask)
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=y)
    np.multiply(y, mask, out=y)


@kernel()
def add(u: Array, v: Array, y: Array) -> None:
    """y = u + v."""
    np.add(u, v, out=y)


# ------------------------------------------------------------------ the cost, in float64 always


def _mean(rows: Array, w: Array | None, loss: Array) -> Array | float:
    """Write C = Σ wᵢ Cᵢ / Σ wᵢ and Σ wᵢ; return wᵢ/Σw. A batch without weight costs nothing."""
    if w is None:
        loss[0] = np.add.reduce(rows) / len(rows)
        loss[1] = len(rows)
        return 1 / len(rows)
    mass = float(np.add.reduce(w, dtype=np.float64))
    loss[0] = np.dot(rows, w) / mass if mass else 0.0
    loss[1] = mass
    return np.divide(w[:, None], mass, dtype=np.float64) if mass else 0.0


def _scaled(d: Array, scale: Array | float, delta: Array) -> None:
    """δ = scale d; the product in float64, then one cast, is what NumPy does fastest."""
    np.multiply(d, scale, out=d)
    np.copyto(delta, d, casting="same_kind")


def _difference(a: Array, t: Array, d: Array, e: Array) -> None:
    """d = a − t in float64."""
    np.copyto(d, a)
    np.copyto(e, t)
    np.subtract(d, e, out=d)


def _row_means(e: Array) -> Array:
    rows: Array = np.add.reduce(e, axis=1)
    np.divide(rows, e.shape[1], out=rows)
    return rows


def _squared(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, d: Array, e: Array, factor: float
) -> None:
    """Cᵢ = ½ factor ‖aᵢ − tᵢ‖²."""
    _difference(a, t, d, e)
    scale: Array | float = 1 / len(d)
    if w is None:
        loss[0] = 0.5 * factor * scale * float(np.vdot(d, d))
        loss[1] = len(d)
    else:
        np.multiply(d, d, out=e)
        rows = np.add.reduce(e, axis=1)
        np.multiply(rows, 0.5 * factor, out=rows)
        scale = _mean(rows, w, loss)
    if delta is not None:
        _scaled(d, factor * scale, delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def quadratic(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ½‖aᵢ − tᵢ‖²."""
    _squared(a, t, w, loss, delta, d, e, 1.0)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def mean_squared_error(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/N."""
    _squared(a, t, w, loss, delta, d, e, 2.0 / a.shape[1])


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def mean_absolute_error(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = Σⱼ |aᵢⱼ − tᵢⱼ|/N."""
    _difference(a, t, d, e)
    np.abs(d, out=e)
    scale = _mean(_row_means(e), w, loss)
    if delta is not None:
        np.sign(d, out=d)
        _scaled(d, scale / a.shape[1], delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64 q(B,N):float64")
def huber(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array, q: Array
) -> None:
    """Cᵢ = Σⱼ (q|d| − ½q²)/N with q = min(|d|, 1), which is ½d² up to 1 and |d| − ½ beyond."""
    _difference(a, t, d, e)
    np.abs(d, out=e)
    np.minimum(e, 1.0, out=q)
    np.multiply(e, q, out=e)
    np.multiply(q, q, out=q)
    np.multiply(q, 0.5, out=q)
    np.subtract(e, q, out=e)
    scale = _mean(_row_means(e), w, loss)
    if delta is not None:
        np.clip(d, -1.0, 1.0, out=d)
        _scaled(d, scale / a.shape[1], delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64 q(B,N):float64 s(B,N):float64 above(B,N):bool")
def binary_cross_entropy(
    z: Array,
    t: Array,
    w: Array | None,
    loss: Array,
    delta: Array | None,
    *,
    d: Array,
    e: Array,
    q: Array,
    s: Array,
    above: Array,
) -> None:
    """Cᵢ = Σⱼ |z| e + log(1 + exp(−|z|)), e = 1 − t for z > 0, else t: terms that cannot cancel."""
    np.copyto(d, z)
    np.copyto(e, t)
    np.greater(d, 0.0, out=above)
    np.subtract(1.0, e, out=e, where=above)
    np.abs(d, out=d)
    np.exp(np.negative(d, out=q), out=q)
    np.multiply(d, e, out=d)
    np.add(d, np.log1p(q, out=s), out=d)
    scale = _mean(np.add.reduce(d, axis=1), w, loss)
    if delta is not None:
        np.divide(q, np.add(q, 1.0, out=s), out=q)
        np.subtract(q, e, out=d)
        np.negative(d, out=d, where=above)
        _scaled(d, scale, delta)


@kernel(scratch=_EXPONENTIALS)
def softmax_cross_entropy(
    z: Array,
    labels: Array,
    w: Array | None,
    loss: Array,
    delta: Array | None,
    *,
    p: Array,
    e: Array,
    f: Array,
    m: Array,
    rest: Array,
    at: Array,
    far: Array,
) -> None:
    """Cᵢ = (max zᵢ − zᵢ[labelᵢ]) + log(1 + Σ of the other exponentials): terms that cannot cancel."""
    _exponentials(z, p, e, f, m, rest, at, far)
    place = _range(len(at)) * z.shape[1] + labels
    rows = np.subtract(m[:, 0], z.reshape(-1)[place], dtype=np.float64)
    scale = _mean(np.add(rows, np.log1p(rest[:, 0]), out=rows), w, loss)
    if delta is not None:
        _probabilities(p, rest, at)
        p.reshape(-1)[place] -= 1
        _scaled(p, scale, delta)


@kernel(scratch=_EXPONENTIALS)
def softmax_cross_entropy_targets(
    z: Array,
    t: Array,
    w: Array | None,
    loss: Array,
    delta: Array | None,
    *,
    p: Array,
    e: Array,
    f: Array,
    m: Array,
    rest: Array,
    at: Array,
    far: Array,
) -> None:
    """Cᵢ = Σⱼ tᵢⱼ (max zᵢ − zᵢⱼ + log(1 + Σ of the other exponentials))."""
    _exponentials(z, p, e, f, m, rest, at, far)
    np.copyto(e, z)
    np.subtract(m, e, out=e)
    np.minimum(e, np.finfo(np.float64).max, out=e)
    np.add(e, np.log1p(rest), out=e)
    scale = _mean(np.einsum("ij,ij->i", e, t, dtype=np.float64), w, loss)
    if delta is not None:
        _probabilities(p, rest, at)
        np.multiply(p, np.add.reduce(t, axis=1, keepdims=True, dtype=np.float64), out=p)
        np.subtract(p, t, out=p)
        _scaled(p, scale, delta)


# ------------------------------------------------------------------ backward


def _matmul(left: Array, right: Array, out: Array, accumulate: bool, s: Array) -> None:
    if accumulate:
        np.matmul(left, right, out=s)
        np.add(out, s, out=out)
    else:
        np.matmul(left, right, out=out)


@kernel(scratch="s(B,K)")
def linear_grad_input(delta: Array, W: Array, grad_x: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂x = δ W (BP2)."""
    _matmul(delta, W, grad_x, accumulate, s)


@kernel(scratch="s(N,K)")
def linear_grad_weight(delta: Array, x: Array, grad_W: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂W = δᵀ x (BP4)."""
    _matmul(delta.T, x, grad_W, accumulate, s)


@kernel(scratch="s(N)")
def linear_grad_bias(delta: Array, grad_b: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂b = Σ_batch δ (BP3)."""
    np.add.reduce(delta, axis=0, out=s if accumulate else grad_b)
    if accumulate:
        np.add(grad_b, s, out=grad_b)


@kernel(scratch="s(*S)")
def activate_grad(y: Array, delta: Array, *, sigma: str, s: Array) -> None:
    """δ ← δ ⊙ σ′ (BP1, BP2)."""
    SIGMA_PRIME[sigma](y, delta, s)


@kernel(scratch="s(B,N) r(B,1)")
def softmax_grad(a: Array, delta: Array, *, s: Array, r: Array) -> None:
    """δ ← a ⊙ (δ − Σⱼ δⱼ aⱼ)."""
    np.multiply(a, delta, out=s)
    np.add.reduce(s, axis=1, keepdims=True, out=r)
    np.subtract(delta, r, out=delta)
    np.multiply(delta, a, out=delta)


@kernel()
def dropout_grad(mask: Array, delta: Array, *, rate: float) -> None:
    """δ ← δ ⊙ mask/(1 − rate)."""
    np.multiply(delta, delta.dtype.type(1 / (1 - rate)), out=delta)
    np.multiply(delta, mask, out=delta)


@kernel()
def copy(u: Array, v: Array, *, accumulate: bool = False) -> None:
    """v = u, or v += u."""
    if accumulate:
        np.add(v, u, out=v)
    else:
        np.copyto(v, u)


# ------------------------------------------------------------------ reductions


@kernel()
def weight_penalty(theta: Array, hyper: Array, penalty: Array, *, weights: int) -> None:
    """½ l2 Σ w² + l1 Σ |w| over the prefix of Θ that holds the weights."""
    w = theta[:weights]
    penalty[0] = 0.5 * hyper.item(L2) * float(np.vdot(w, w))
    if hyper.item(L1):
        penalty[0] += hyper.item(L1) * float(np.abs(w).sum())


@kernel()
def tally(loss: Array, step: Array, penalty: Array | None, loss_sum: Array, first_bad: Array) -> None:
    """Add the batch's cost to the running sums; remember the first step whose cost is not finite."""
    cost, mass = loss.item(0), loss.item(1)
    loss_sum[0] += cost * mass
    loss_sum[1] += mass
    if penalty is not None:
        loss_sum[2] += penalty.item() * mass
    if not math.isfinite(cost) and first_bad.item() < 0:
        first_bad[0] = step.item()


@kernel(scratch="guess(B):int64 mask(B):bool")
def count_correct(y: Array, labels: Array, correct: Array, *, guess: Array, mask: Array) -> None:
    """How many rows have their largest output at the label."""
    np.argmax(y, axis=1, out=guess)
    np.equal(guess, labels, out=mask)
    correct[0] += np.count_nonzero(mask)


@kernel()
def argmax(t: Array, labels: Array) -> None:
    """The place of the largest target, the first of several."""
    np.argmax(t, axis=1, out=labels)


@kernel(scratch="before(B,N):bool score(B,1)")
def count_top_k(y: Array, labels: Array, correct: Array, *, k: int, before: Array, score: Array) -> None:
    """How many labels have fewer than k outputs before theirs: larger, or equal and of a lower place."""
    score[:, 0] = y[_range(len(y)), labels]
    np.greater(y, score, out=before)
    ahead = np.count_nonzero(before, axis=1)
    np.equal(y, score, out=before)
    np.logical_and(before, _range(y.shape[1]) < labels[:, None], out=before)
    ahead += np.count_nonzero(before, axis=1)
    correct[0] += np.count_nonzero((ahead < k) & ~np.isnan(score[:, 0]))


@kernel(scratch="guess(B,N):bool wanted(B,N):bool")
def count_exact(y: Array, t: Array, correct: Array, *, threshold: float, guess: Array, wanted: Array) -> None:
    """How many rows have every output on its target's side."""
    np.greater(y, threshold, out=guess)
    np.greater(t, 0.5, out=wanted)
    np.equal(guess, wanted, out=guess)
    correct[0] += np.count_nonzero(guess.all(axis=1))


@kernel(scratch="guess(B):int64")
def confusion(y: Array, labels: Array, counts: Array, *, guess: Array) -> None:
    """One more at (the class it is, the class it is taken for) for each row."""
    np.argmax(y, axis=1, out=guess)
    np.add(guess, labels * len(counts), out=guess)
    counts += np.bincount(guess, minlength=counts.size).reshape(counts.shape)


@kernel(scratch="guess(B,N):bool wanted(B,N):bool")
def confusion_by_output(
    y: Array, t: Array, counts: Array, *, threshold: float, guess: Array, wanted: Array
) -> None:
    """The four counts of each output: [is it][is it taken for it]."""
    np.greater(y, threshold, out=guess)
    np.greater(t, 0.5, out=wanted)
    both = np.count_nonzero(guess & wanted, axis=0)
    taken, real = np.count_nonzero(guess, axis=0), np.count_nonzero(wanted, axis=0)
    counts[:, 1, 1] += both
    counts[:, 0, 1] += taken - both
    counts[:, 1, 0] += real - both
    counts[:, 0, 0] += len(y) - taken - real + both


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def sum_absolute(y: Array, t: Array, total: Array, *, d: Array, e: Array) -> None:
    """Σ |y − t| over all elements, and their number."""
    _difference(y, t, d, e)
    total[0] += np.add.reduce(np.abs(d, out=d), axis=None)
    total[1] += d.size


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def moments(y: Array, t: Array, sums: Array, *, d: Array, e: Array) -> None:
    """The batch's own moments, joined to those of the rows before: no cancellation of large sums."""
    _difference(y, t, d, e)
    sums[3] += np.einsum("ij,ij->j", d, d)
    first = e[0].copy()  # Equal targets have differences of 0 exactly, which a rounded mean would not give.
    np.subtract(e, first, out=e)
    mean = e.mean(axis=0)
    np.subtract(e, mean, out=e)
    mean += first
    before, now = sums[0].copy(), float(len(y))
    moved = mean - sums[1]
    sums[0] += now
    sums[1] += moved * (now / sums[0])
    sums[2] += np.einsum("ij,ij->j", e, e) + moved * moved * (before * now / sums[0])


@kernel(scratch="d(P):float64")
def clip_by_norm(grad: Array, hyper: Array, *, d: Array) -> None:
    """s = min(1, clip_norm/‖∇C‖); NaN stays NaN."""
    np.copyto(d, grad)
    norm = math.sqrt(float(np.vdot(d, d)))
    hyper[CLIP_SCALE] = 1.0 if norm <= hyper.item(CLIP_NORM) else hyper.item(CLIP_NORM) / norm


# ------------------------------------------------------------------ updates


@kernel()
def schedule(rates: Array, step: Array, hyper: Array) -> None:
    """The learning rate of this step of the epoch."""
    hyper[LR] = rates[step.item() - int(hyper.item(FIRST))]


def _direction(
    grad: Array, hyper: Array, theta: Array, weights: int, terms: tuple[str, ...], g: Array, s: Array
) -> Array:
    """The clipped gradient plus that of the penalties, in ``g`` where it is not ``grad`` itself.

    The decoupled decay of the weights is made on the way.
    """
    w = theta[:weights]
    if "decay" in terms:
        np.multiply(w, 1 - hyper.item(LR) * hyper.item(DECAY), out=w)
    if not {"l1", "l2", "clip"} & set(terms):
        return grad
    np.multiply(grad, hyper.item(CLIP_SCALE) if "clip" in terms else 1.0, out=g)
    if "l2" in terms:
        np.multiply(w, hyper.item(L2), out=s[:weights])
        np.add(g[:weights], s[:weights], out=g[:weights])
    if "l1" in terms:
        np.sign(w, out=s[:weights])
        np.multiply(s[:weights], hyper.item(L1), out=s[:weights])
        np.add(g[:weights], s[:weights], out=g[:weights])
    return g


@kernel(scratch="s(P) g(P)")
def sgd(
    grad: Array,
    hyper: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """θ ← θ − lr g."""
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    np.multiply(g, hyper.item(LR), out=s)
    np.subtract(theta, s, out=theta)


@kernel(scratch="s(P) g(P)")
def momentum(
    grad: Array,
    hyper: Array,
    velocity: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """v ← μ v − lr g, θ ← θ + v."""
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    np.multiply(g, hyper.item(LR), out=s)
    np.multiply(velocity, hyper.item(MU), out=velocity)
    np.subtract(velocity, s, out=velocity)
    np.add(theta, velocity, out=theta)


@kernel(scratch="s(P) g(P)")
def nesterov(
    grad: Array,
    hyper: Array,
    velocity: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """v ← μ v − lr g, θ ← θ + μ v − lr g."""
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    np.multiply(g, hyper.item(LR), out=s)
    np.multiply(velocity, hyper.item(MU), out=velocity)
    np.subtract(velocity, s, out=velocity)
    np.subtract(theta, s, out=theta)
    np.multiply(velocity, hyper.item(MU), out=s)
    np.add(theta, s, out=theta)


@kernel(scratch="s(P) g(P)")
def adam(
    grad: Array,
    hyper: Array,
    m: Array,
    v: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """Algorithm 1 of the paper, with β₁ᵗ and β₂ᵗ read from the hyper slot."""
    beta1, beta2 = hyper.item(BETA1), hyper.item(BETA2)
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    np.multiply(m, beta1, out=m)
    np.multiply(g, 1 - beta1, out=s)
    np.add(m, s, out=m)
    _running_square(v, g, beta2, 1 - beta2, s)
    np.multiply(v, 1 / (1 - hyper.item(POWER2)), out=s)
    np.sqrt(s, out=s)
    np.add(s, hyper.item(EPSILON), out=s)
    np.divide(m, s, out=s)
    np.multiply(s, hyper.item(LR) / (1 - hyper.item(POWER1)), out=s)
    np.subtract(theta, s, out=theta)


def _running_square(v: Array, g: Array, old: float, new: float, s: Array) -> None:
    """v ← old v + new g²."""
    np.multiply(v, old, out=v)
    np.multiply(g, g, out=s)
    np.multiply(s, new, out=s)
    np.add(v, s, out=v)


def _divided(g: Array, v: Array, hyper: Array, theta: Array, s: Array) -> None:
    """θ ← θ − lr g/(√v + ε)."""
    np.sqrt(v, out=s)
    np.add(s, hyper.item(EPSILON), out=s)
    np.divide(g, s, out=s)
    np.multiply(s, hyper.item(LR), out=s)
    np.subtract(theta, s, out=theta)


@kernel(scratch="s(P) g(P)")
def rmsprop(
    grad: Array,
    hyper: Array,
    v: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """v ← ρ v + (1−ρ) g², θ ← θ − lr g/(√v + ε)."""
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    _running_square(v, g, hyper.item(RHO), 1 - hyper.item(RHO), s)
    _divided(g, v, hyper, theta, s)


@kernel(scratch="s(P) g(P)")
def adagrad(
    grad: Array,
    hyper: Array,
    v: Array,
    theta: Array,
    *,
    weights: int,
    terms: tuple[str, ...] = (),
    s: Array,
    g: Array,
) -> None:
    """v ← v + g², θ ← θ − lr g/(√v + ε)."""
    g = _direction(grad, hyper, theta, weights, terms, g, s)
    _running_square(v, g, 1.0, 1.0, s)
    _divided(g, v, hyper, theta, s)


@kernel()
def advance(cursor: Array, step: Array, hyper: Array, *, rows: int) -> None:
    """Move on to the next minibatch."""
    cursor[0] += rows
    step[0] += 1
    if hyper.item(POWER1) or hyper.item(POWER2):
        hyper[POWER1] *= hyper[BETA1]
        hyper[POWER2] *= hyper[BETA2]


# ------------------------------------------------------------------ the runner


def _aligned(nbytes: int) -> Array:
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class NumpyRunner(Runner):
    """A loop over calls whose arguments are views made once."""

    def __init__(self, backend: NumpyBackend, program: Program, memory: Memory) -> None:
        self.program = program
        self._backend = backend
        self._roots: dict[str, Array] = {}
        plan = program.plan()
        workspace = _aligned(plan.nbytes)
        for name, slot in program.slots.items():
            if slot.base is not None:
                continue
            if slot.role in WORKSPACE and name in plan.offsets:
                at = plan.offsets[name]
                shape = tuple(d or 0 for d in slot.shape)
                self._roots[name] = workspace[at : at + slot.nbytes].view(slot.dtype).reshape(shape)
            elif name in memory:
                self._roots[name] = memory[name]
        needs = [self._scratch(op) for op in program.ops]
        sizes = [sum(_room(shape, dtype) for _, shape, dtype in need) for need in needs]
        scratch = _aligned(max(sizes, default=0))
        self._scratches = [_carve(scratch, need) for need in needs]
        self._calls: list[Callable[[], None] | None] = [None] * len(program.ops)
        self._compile(range(len(program.ops)))

    def _scratch(self, op: Op) -> list[tuple[str, tuple[int, ...], str]]:
        if op.name not in OPS or op.name not in SCRATCH or self._backend.kernel(op) is not KERNELS[op.name]:
            return []
        given = [self.program.slots[s].shape if s else None for s in (*op.ins, *op.outs)]
        sizes = rule(op.name).sizes(given, op.attrs, op.label)
        return [
            (o.name, tuple(d or 0 for d in fill(o, sizes, op.name)), o.dtype or self.program.dtype)
            for o in SCRATCH[op.name]
        ]

    def _compile(self, positions: Any) -> None:
        for i in positions:
            op = self.program.ops[i]
            named = [s for s in (*op.ins, *op.outs) if s is not None]
            if all(self.program.root(s) in self._roots for s in named):
                views = [None if s is None else self.array(s) for s in (*op.ins, *op.outs)]
                kernel, keywords = self._backend.kernel(op), {**op.attrs, **self._scratches[i]}
                if self._calls[i] is None:
                    _check_call(kernel, op, views, keywords)
                self._calls[i] = partial(kernel, *views, **keywords)

    def array(self, slot: str) -> Array:
        """The view of a slot."""
        described = self.program.described(slot)
        if slot in self.program.elided:
            raise ProgramError(
                f"slot {slot!r} is never written here, the ops around it run as one: pin it, or load the "
                f"program with fused=False"
            )
        name, offset = self.program.place(slot)
        root = self._roots[name]
        if name == slot:
            return root
        shape = tuple(d or 0 for d in described.shape)
        return root.reshape(-1)[offset : offset + described.size].reshape(shape)

    def bind(self, **data: Any) -> None:
        """Give the data slots their arrays."""
        for name, array in data.items():
            slot = self.program.slots.get(name)
            if slot is None or slot.role is not Role.DATA:
                continue
            fits = array.ndim == len(slot.shape) and all(
                want is None or want == got for want, got in zip(slot.shape, array.shape, strict=True)
            )
            same = array.dtype == slot.dtype or self._may_convert(name, array)
            if not fits or not same or not array.flags.c_contiguous:
                raise ShapeError(
                    f"data slot {name!r} takes a contiguous {slot.dtype} array of shape {slot.shape}, "
                    f"got {array.dtype} {array.shape}"
                )
            self._roots[name] = np.asarray(array)
        touched = [
            i for i, op in enumerate(self.program.ops) if any(s in data for s in (*op.ins, *op.outs) if s)
        ]
        self._compile(touched)

    def _may_convert(self, name: str, array: Array) -> bool:
        """Whether a memory map may keep another dtype: where gather, which converts, is all that reads it."""
        return (
            isinstance(array, np.memmap)
            and np.can_cast(array.dtype, self.program.slots[name].dtype, "same_kind")
            and all(op.name == "gather" for op in self.program.ops if name in op.ins)
        )

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        for i, op in enumerate(self.program.ops):
            if any(s and self.program.slots[s].role is Role.DATA for s in op.ins):
                self._calls[i] = None
        for name, slot in self.program.slots.items():
            if slot.role is Role.DATA:
                self._roots.pop(name, None)

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        calls = [call for call in self._calls if call is not None]
        if len(calls) < len(self._calls):
            missing = [
                s for s, slot in self.program.slots.items() if slot.role is Role.DATA and s not in self._roots
            ]
            raise ProgramError(f"bind() these data slots before run(): {', '.join(missing)}")
        with np.errstate(all="ignore"):
            for _ in range(steps):
                for call in calls:
                    call()

    def step_op(self, index: int) -> None:
        """Run one op."""
        call = self._calls[index]
        if call is None:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        with np.errstate(all="ignore"):
            call()


def _check_call(kernel: Kernel, op: Op, views: list[Any], named: dict[str, Any]) -> None:
    """An op's operands and attributes have to be what its kernel takes."""
    try:
        signature(kernel).bind(*views, **named)
    except TypeError as error:
        raise ProgramError(
            f"{op.label or op.name}: the kernel of {op.name!r} cannot take its operands and "
            f"attributes: {error}"
        ) from error


def _room(shape: tuple[int, ...], dtype: str) -> int:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _carve(buffer: Array, needs: list[tuple[str, tuple[int, ...], str]]) -> dict[str, Array]:
    views, at = {}, 0
    for name, shape, dtype in needs:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        views[name] = buffer[at : at + nbytes].view(dtype).reshape(shape)
        at += _room(shape, dtype)
    return views


class NumpyBackend(Backend):
    """Runs a program op by op with NumPy; always there."""

    name = "numpy"
    kernels = KERNELS

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros, aligned."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return _aligned(nbytes).view(dtype).reshape(shape)

    def upload(self, array: Array, dtype: str) -> Array:
        """The array itself where it is contiguous and of that dtype, or a contiguous memory map of any."""
        if isinstance(array, np.memmap) and array.flags.c_contiguous:
            return array  # It may be larger than memory: gather converts each minibatch.
        return np.ascontiguousarray(array, dtype=dtype)

    def download(self, array: Array) -> Array:
        """A copy."""
        return np.array(array)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> NumpyRunner:
        """Lay out the workspace and make the calls."""
        return NumpyRunner(self, self.prepared(program, memory, fused=fused, keep_all=keep_all), memory)
