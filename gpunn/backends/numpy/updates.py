"""The updates of Θ, and the counters that move on."""

from __future__ import annotations

import math

import numpy as np

from ...ops import HYPER
from .table import Array, kernel

LR, L1, L2, DECAY = (HYPER[word] for word in ("lr", "l1", "l2", "weight_decay"))
MU, RHO, BETA1, BETA2 = (HYPER[word] for word in ("momentum", "rho", "beta1", "beta2"))
EPSILON, POWER1, POWER2 = (HYPER[word] for word in ("epsilon", "beta1_power", "beta2_power"))
CLIP_SCALE, FIRST, L2_SUM = (HYPER[word] for word in ("clip_scale", "first_step", "l2_sum"))
EPSILON_HAT = HYPER["epsilon_hat"]


@kernel()
def schedule(rates: Array, step: Array, hyper: Array) -> None:
    """The learning rate of this step of the epoch."""
    hyper[LR] = rates[step.item() - int(hyper.item(FIRST))]


@kernel()
def l2_of_batch(loss: Array, hyper: Array) -> None:
    """The penalty's factor for a batch of that mass."""
    hyper[L2] = hyper[L2_SUM] / loss[1] if loss[1] else 0.0


@kernel()
def count_examples(w: Array, loss: Array) -> None:
    """What a minibatch counts in the mean of an epoch: its examples."""
    loss[1] = len(w)


@kernel()
def epsilon_of_step(hyper: Array) -> None:
    """ε̂ as the ε of the form with m̂ and v̂."""
    hyper[EPSILON] = hyper[EPSILON_HAT] / math.sqrt(1.0 - hyper[POWER2])


def _direction(
    grad: Array, hyper: Array, theta: Array, weights: int, terms: tuple[str, ...], g: Array, s: Array
) -> Array:
    """The clipped gradient plus that of the penalties, in ``g`` where it is not ``grad`` itself.

    The decoupled decay of the weights follows: penalties are about w as it was.
    """
    w = theta[:weights]
    if not {"l1", "l2", "clip"} & set(terms):
        _decay(w, hyper, terms)
        return grad
    np.multiply(grad, hyper.item(CLIP_SCALE) if "clip" in terms else 1.0, out=g)
    if "l2" in terms:
        np.multiply(w, hyper.item(L2), out=s[:weights])
        np.add(g[:weights], s[:weights], out=g[:weights])
    if "l1" in terms:
        np.sign(w, out=s[:weights])
        np.multiply(s[:weights], hyper.item(L1), out=s[:weights])
        np.add(g[:weights], s[:weights], out=g[:weights])
    _decay(w, hyper, terms)
    return g


def _decay(w: Array, hyper: Array, terms: tuple[str, ...]) -> None:
    if "decay" in terms:
        np.multiply(w, 1 - hyper.item(LR) * hyper.item(DECAY), out=w)


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
