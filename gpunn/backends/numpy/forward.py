"""The minibatch, and from its examples to the outputs."""

from __future__ import annotations

import numpy as np

from ...philox import keep
from .sigma import SIGMA
from .table import Array, kernel, places

__all__ = ["EXPONENTIALS", "exponentials", "probabilities"]


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
    np.equal(labels[:, None], places(t.shape[1]), out=t)


@kernel()
def linear(x: Array, W: Array, b: Array, z: Array) -> None:
    """z = x Wᵀ + b."""
    np.matmul(x, W.T, out=z)
    np.add(z, b, out=z)


@kernel(scratch="s(*S) mask(*S):bool")
def activate(z: Array, a: Array, *, sigma: str, s: Array, mask: Array) -> None:
    """a = σ(z)."""
    SIGMA[sigma](z, a, s, mask)


def exponentials(
    z: Array, p: Array, e: Array, f: Array, m: Array, rest: Array, at: Array, far: Array
) -> None:
    """p = exp(z − max z) with 0 in the place of the largest, whose index is ``at``; rest = its row sums.

    A difference of two float64 numbers is rounded, and exp makes a relative error of that absolute one: the
    rounding is found (Knuth's two-sum) and put back. A row that holds NaN gives NaN.
    """
    np.argmax(z, axis=1, out=at)
    np.add(at, np.multiply(places(len(at)), z.shape[1]), out=at)
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


EXPONENTIALS = (
    "p(B,N):float64 e(B,N):float64 f(B,N):float64 m(B,1) rest(B,1):float64 at(B):int64 far(B,N):bool"
)


@kernel(scratch=EXPONENTIALS)
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
    exponentials(z, p, e, f, m, rest, at, far)
    probabilities(p, rest, at)
    np.copyto(a, p, casting="same_kind")


def probabilities(p: Array, rest: Array, at: Array) -> None:
    """What :func:`exponentials` left, divided by its sum with the largest."""
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
