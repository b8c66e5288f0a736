"""The costs and ∂C/∂a, in float64 whatever the network's dtype."""

from __future__ import annotations

import numpy as np

from ...ops import cost_bounds
from .forward import EXPONENTIALS, exponentials, probabilities
from .table import Array, kernel, places

__all__ = ["difference"]


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


def _clipped(costs: Array, clip: float) -> Array:
    """The costs −log p, as of probabilities from ``clip`` to 1 − ``clip``."""
    if clip:
        np.clip(costs, *cost_bounds({"clip": clip}), out=costs)
    return costs


def difference(a: Array, t: Array, d: Array, e: Array) -> None:
    """d = a − t in float64."""
    np.copyto(d, a)
    np.copyto(e, t)
    np.subtract(d, e, out=d)


def _row_means(e: Array) -> Array:
    rows: Array = np.add.reduce(e, axis=1)
    np.divide(rows, e.shape[1], out=rows)
    return rows


def _squared(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, d: Array, e: Array, parts: int
) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/parts, divided once: each division would round."""
    difference(a, t, d, e)
    scale: Array | float = 1 / len(d)
    np.multiply(d, d, out=e)
    if w is None:
        loss[0] = np.add.reduce(e, axis=None) / (parts * len(d))
        loss[1] = len(d)
    else:
        rows = np.add.reduce(e, axis=1)
        np.divide(rows, parts, out=rows)
        scale = _mean(rows, w, loss)
    if delta is not None:
        _scaled(d, 2 / parts * scale, delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def quadratic(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ½‖aᵢ − tᵢ‖²."""
    _squared(a, t, w, loss, delta, d, e, 2)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def mean_squared_error(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/N."""
    _squared(a, t, w, loss, delta, d, e, a.shape[1])


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def mean_absolute_error(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = Σⱼ |aᵢⱼ − tᵢⱼ|/N."""
    difference(a, t, d, e)
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
    difference(a, t, d, e)
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
    clip: float = 0.0,
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
    _clipped(d, clip)
    scale = _mean(np.add.reduce(d, axis=1), w, loss)
    if delta is not None:
        np.divide(q, np.add(q, 1.0, out=s), out=q)
        np.subtract(q, e, out=d)
        np.negative(d, out=d, where=above)
        _scaled(d, scale, delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64 q(B,N):float64")
def poisson(
    z: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array, q: Array
) -> None:
    """Cᵢ = Σⱼ exp(z) − t z + t log t − t, where 0 log 0 = 0."""
    np.copyto(e, t)
    np.multiply(e, z, out=q, dtype=np.float64)
    np.log(e, out=d, where=e != 0)
    np.multiply(d, e, out=d, where=e != 0)
    np.copyto(d, 0.0, where=e == 0)
    np.subtract(d, e, out=d)
    np.subtract(d, q, out=d)
    np.exp(z, out=q, dtype=np.float64)
    np.add(d, q, out=d)
    scale = _mean(np.add.reduce(d, axis=1), w, loss)
    if delta is not None:
        _scaled(np.subtract(q, e, out=d), scale, delta)


@kernel(scratch=EXPONENTIALS)
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
    clip: float = 0.0,
) -> None:
    """Cᵢ = (max zᵢ − zᵢ[labelᵢ]) + log(1 + Σ of the other exponentials): terms that cannot cancel."""
    exponentials(z, p, e, f, m, rest, at, far)
    place = places(len(at)) * z.shape[1] + labels
    rows = np.subtract(m[:, 0], z.reshape(-1)[place], dtype=np.float64)
    scale = _mean(_clipped(np.add(rows, np.log1p(rest[:, 0]), out=rows), clip), w, loss)
    if delta is not None:
        probabilities(p, rest, at)
        p.reshape(-1)[place] -= 1
        _scaled(p, scale, delta)


@kernel(scratch=EXPONENTIALS)
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
    exponentials(z, p, e, f, m, rest, at, far)
    # Half of each difference, which cannot overflow, until t has made it small.
    np.multiply(z, 0.5, out=e)
    np.subtract(0.5 * m, e, out=e)
    np.add(e, 0.5 * np.log1p(rest), out=e)
    np.multiply(e, t, out=e)
    rows = np.add.reduce(e, axis=1)
    scale = _mean(np.multiply(rows, 2.0, out=rows), w, loss)
    if delta is not None:
        probabilities(p, rest, at)
        np.multiply(p, np.add.reduce(t, axis=1, keepdims=True, dtype=np.float64), out=p)
        np.subtract(p, t, out=p)
        _scaled(p, scale, delta)
