"""σ and σ′ over arrays, for the NumPy backend: a hand-written twin of every row of ``activations.py``.

A row from outside has no such twin: its scalar functions are compiled over arrays when they are first used.

What is a plain array expression runs in blocks of :data:`BLOCK` elements, in float64: its temporaries are no
larger than a block, however large the array, and a float32 result is rounded once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...activations import Activation, activation
from ...errors import GpunnWarning

__all__ = ["SIGMA", "SIGMA_PRIME"]

Array = NDArray[Any]
Expression = Callable[[Array], Any]
Twin = Callable[..., None]

#: 0 and 1 by dtype code: an operand of the array's own dtype halves the cost of a call on a small array.
ZERO = {code: np.zeros((), code) for code in "fd"}
ONE = {code: np.ones((), code) for code in "fd"}

#: Elements a block: in float64 a temporary is 64 KiB, so that a handful of them stay in the cache.
BLOCK = 8192


def _blocks(size: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, size, BLOCK)]


def _sigma(expression: Expression) -> Twin:
    """The twin a ← expression(z); slots are contiguous, so that reshape makes views."""

    def twin(z: Array, a: Array, s: Array, mask: Array) -> None:
        source, target = z.reshape(-1), a.reshape(-1)
        for part in _blocks(source.size):
            target[part] = expression(source[part].astype(np.float64))

    return twin


def _sigma_prime(expression: Expression) -> Twin:
    """The twin δ ← δ ⊙ expression(kept)."""

    def twin(kept: Array, delta: Array, s: Array) -> None:
        source, target = kept.reshape(-1), delta.reshape(-1)
        for part in _blocks(source.size):
            target[part] *= expression(source[part].astype(np.float64))

    return twin


def _identity(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.copyto(a, z)


def _identity_prime(a: Array, delta: Array, s: Array) -> None:
    pass


def _sigmoid(z: Array, a: Array, s: Array, mask: Array) -> None:
    """e = exp(−|z|); 1/(1 + e) for z ≥ 0, e/(1 + e) below: no overflow, no cancellation.

    e ≤ 1, so that the larger of e and the mask is the numerator: no branch on each element.
    """
    one = ONE[z.dtype.char]
    np.abs(z, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.add(a, one, out=s)
    np.greater_equal(z, ZERO[z.dtype.char], out=mask)
    np.maximum(a, mask, out=a)
    np.divide(a, s, out=a)


def _sigmoid_prime(a: Array, delta: Array, s: Array) -> None:
    np.subtract(ONE[a.dtype.char], a, out=s)
    np.multiply(s, a, out=s)
    np.multiply(delta, s, out=delta)


def _tanh(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.tanh(z, out=a)


def _tanh_prime(a: Array, delta: Array, s: Array) -> None:
    one = ONE[a.dtype.char]
    np.subtract(one, a, out=s)
    np.multiply(delta, s, out=delta)
    np.add(one, a, out=s)
    np.multiply(delta, s, out=delta)


def _relu(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.maximum(z, ZERO[z.dtype.char], out=a)


def _relu_prime(a: Array, delta: Array, s: Array) -> None:
    """The sign of a ≥ 0 is 0 or 1, and NaN stays NaN."""
    np.sign(a, out=s)
    np.multiply(delta, s, out=delta)


def _leaky_relu(z: Array, a: Array, s: Array, mask: Array) -> None:
    """The larger of z and 0.01 z."""
    np.multiply(z, 0.01, out=s)
    np.maximum(z, s, out=a)


def _leaky_relu_prime(a: Array, delta: Array, s: Array) -> None:
    """The larger of the sign and 0.01; NaN stays NaN."""
    np.sign(a, out=s)
    np.maximum(s, 0.01, out=s)
    np.multiply(delta, s, out=delta)


def _hard_sigmoid(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.add(z, 3, out=s)
    np.divide(s, 6, out=s)
    np.clip(s, 0, 1, out=a)


def _hard_sigmoid_prime(a: Array) -> Any:
    return np.where((a > 0) & (a < 1), 1 / 6, a * 0)


def _elu(z: Array) -> Array:
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def _elu_prime(a: Array) -> Any:
    return np.where(a > 0, 1.0, a + 1)


def _softplus(z: Array) -> Any:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _softplus_prime(a: Array) -> Any:
    return -np.expm1(-a)


def _silu(z: Array) -> Any:
    """Where exp(−z) overflows, e = exp(z/2) takes its place: z e e, with no denormal number in between."""
    a = z / (1 + np.exp(-z))
    deep = z < -700
    if deep.any():
        e = np.exp(0.5 * z[deep])
        a[deep] = z[deep] * e * e
    return a


def _silu_prime(z: Array) -> Any:
    e = np.exp(-np.abs(z))
    s = np.where(z >= 0, 1, e) / (1 + e)
    return s * (1 + z * (1 - s))


#: (1 + t) Φ(−t) exp(t²/2) as a polynomial in u = (t − 6)/(t + 6), constant last, for 0 ≤ t ≤ 40: its values
#: at the 23 Chebyshev nodes of that range, interpolated with 50 digits; the relative error is below 7e-18.
#: The substitution is that of Shepherd and Laframboise, Chebyshev approximation of (1 + 2x) exp(x²) erfc(x)
#: in 0 ≤ x < ∞, Mathematics of Computation 36, 1981.
_TAIL = (
    1.5695921634584025e-09,
    2.9426390752797887e-09,
    -1.5639864942746644e-08,
    -2.0027893278270845e-08,
    1.3236790158938167e-07,
    -4.2913666269661417e-10,
    -9.995898526491916e-07,
    1.7838116022958124e-06,
    4.412404543912898e-06,
    -2.6353393572409072e-05,
    3.779490167737176e-05,
    0.00011948965571717959,
    -0.0008689946656167478,
    0.0029356555179146167,
    -0.007059819421068707,
    0.013246864154012135,
    -0.01976647921997029,
    0.022592467062783016,
    -0.016141517332197368,
    -0.004373386779593226,
    0.03981142456242982,
    -0.08502536230577072,
    0.45345520027112796,
)


def _normal_tail(t: Array) -> tuple[Array, Array]:
    """Two factors whose product is Φ(−t), for 0 ≤ t ≤ 40; the second is exp(−t²/2).

    exp turns the absolute error of t²/2 into a relative one: ``lost`` is what the roundings of t²/2 and of
    1 + t leave out, and the polynomial takes it in before its last sum. t² is exactly h² + r(t + h), and h²
    is exact in float64 because h is a multiple of 1/64.
    """
    square, bottom = 0.5 * t * t, 1 + t
    h = np.floor(64 * t) / 64
    r = t - h
    lost = (0.5 * h * h - square) + 0.5 * r * (t + h)
    lost += np.where(t < 1, t - (bottom - 1), 1 - (bottom - t)) / bottom
    u = (t - 6) / (t + 6)
    q = np.full_like(t, _TAIL[0])
    for coefficient in _TAIL[1:-1]:
        q *= u
        q += coefficient
    q *= u
    top = _TAIL[-1] + (q - lost * (_TAIL[-1] + q))
    return top / bottom, np.exp(-square)


def _gelu(z: Array) -> Array:
    """−|z| Φ(−|z|) for z < 0, z − z Φ(−z) from there on; what may be denormal is multiplied last."""
    t = np.minimum(np.abs(z), 40)
    ratio, e = _normal_tail(t)
    tail = t * ratio * e
    return np.where(z < 0, -tail, z - tail)


def _gelu_prime(z: Array) -> Any:
    """Φ(z) + z φ(z)."""
    near = np.clip(z, -40, 40)
    ratio, e = _normal_tail(np.abs(near))
    tail = ratio * e
    return np.where(near < 0, tail, 1 - tail) + near * e / math.sqrt(2 * math.pi)


def _over_arrays(row: Activation, part: Literal["sigma", "sigma_prime"]) -> Expression:
    """A scalar function of a row from outside as a function of float64 arrays, compiled where possible.

    What goes wrong at one element makes that element infinite or NaN and never stops a step: compiled, the
    arithmetic is that of IEEE 754, as it is for arrays, and what still raises gives NaN.
    """
    scalar = getattr(row, part)
    try:
        return _compiled(scalar)
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        warnings.warn(
            f"activation {row.name!r}: {part} runs as Python, element by element, and is slow: numba cannot "
            f"compile it ({type(error).__name__}: {reason}). Arithmetic, math.* and functions with "
            "@numba.njit can be compiled",
            GpunnWarning,
            stacklevel=2,
        )

    def guarded(z: float) -> float:
        try:
            return float(scalar(z))
        except (ArithmeticError, ValueError):
            return math.nan

    each = np.frompyfunc(guarded, 1, 1)
    return lambda z: np.asarray(each(z), np.float64)


def _compiled(scalar: Callable[[float], float]) -> Expression:
    numba: Any = import_module("numba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = numba.njit(error_model="numpy")(scalar) if isinstance(scalar, FunctionType) else scalar

        def guarded(z: float) -> float:
            try:
                return inner(z)
            except Exception:
                return math.nan

        compiled: Expression = numba.vectorize(["float64(float64)"])(guarded)
    return compiled


class _Twins(dict[str, Twin]):
    """The twins by name; what is missing is compiled from the row of that name, and again for another row."""

    def __init__(self, compile_row: Callable[[Activation], Twin], **twins: Twin) -> None:
        super().__init__(twins)
        self._compile_row = compile_row
        self._made: dict[str, tuple[Activation, Twin]] = {}

    def __missing__(self, name: str) -> Twin:
        row = activation(name)
        if name not in self._made or self._made[name][0] is not row:
            self._made[name] = row, self._compile_row(row)
        return self._made[name][1]


#: σ over arrays: (z, out, a scratch array like z, a mask like z). The twins of ``activations.py``.
SIGMA = _Twins(
    lambda row: _sigma(_over_arrays(row, "sigma")),
    identity=_identity,
    sigmoid=_sigmoid,
    tanh=_tanh,
    relu=_relu,
    leaky_relu=_leaky_relu,
    hard_sigmoid=_hard_sigmoid,
    elu=_sigma(_elu),
    exp=_sigma(np.exp),
    softplus=_sigma(_softplus),
    gelu=_sigma(_gelu),
    silu=_sigma(_silu),
)

#: δ ← δ ⊙ σ′: (a or z, whichever σ′ needs; δ; a scratch array like δ).
SIGMA_PRIME = _Twins(
    lambda row: _sigma_prime(_over_arrays(row, "sigma_prime")),
    identity=_identity_prime,
    sigmoid=_sigmoid_prime,
    tanh=_tanh_prime,
    relu=_relu_prime,
    leaky_relu=_leaky_relu_prime,
    hard_sigmoid=_sigma_prime(_hard_sigmoid_prime),
    elu=_sigma_prime(_elu_prime),
    exp=_sigma_prime(lambda a: a),
    softplus=_sigma_prime(_softplus_prime),
    gelu=_sigma_prime(_gelu_prime),
    silu=_sigma_prime(_silu_prime),
)
