"""The four equations, from the outputs back to the parameters."""

from __future__ import annotations

import numpy as np

from .sigma import SIGMA_PRIME
from .table import Array, kernel


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
