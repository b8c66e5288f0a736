"""Every activation function σ and its derivative σ′, once each, as scalar Python.

These few lines are the definition that all backends follow: arithmetic and ``math`` alone, so that compiled
backends compile the scalar functions themselves, at float32 too. The NumPy backend keeps an array twin of
each (``backends/numpy/sigma.py``). A new activation of gpunn's own is one row of :data:`ACTIVATIONS` here and
one twin there; from outside, :func:`register_activation` takes the scalar functions and needs no twin.

Every σ is finite for every finite z, lets NaN through, and is within 4 ULP of the exact value, in its tails
and among the denormal numbers too.

σ′ is written in terms of what is cheapest to keep: of the output a = σ(z) where that is enough
(``needs="output"``), else of the input z (``needs="input"``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from .errors import ArgumentError, GpunnWarning, unknown_name

__all__ = ["ACTIVATIONS", "OWN", "Activation", "activation", "register_activation"]

Scalar = Callable[[float], float]


@dataclass(frozen=True)
class Activation:
    """A scalar σ, its derivative, and which of z or a the derivative is a function of.

    Parameters
    ----------
    name : str
        What layers call it by.
    sigma : callable
        z ↦ σ(z), finite for every finite z.
    sigma_prime : callable
        ``needs="output"``: a ↦ σ′ expressed by a = σ(z); ``needs="input"``: z ↦ σ′(z).
    needs : {"output", "input"}
        Which of the two ``sigma_prime`` takes.
    formula, source : str
        For people.
    kinks : tuple of float
        The inputs at which σ′ does not exist (finite differences must stay away from them).
    """

    name: str
    sigma: Scalar
    sigma_prime: Scalar
    needs: Literal["output", "input"]
    formula: str
    source: str
    kinks: tuple[float, ...] = ()


def _identity(z: float) -> float:
    return z


def _identity_prime(a: float) -> float:
    return 1.0


def _sigmoid(z: float) -> float:
    e = math.exp(-abs(z))
    return 1.0 / (1.0 + e) if z >= 0.0 else e / (1.0 + e)


def _sigmoid_prime(a: float) -> float:
    return a * (1.0 - a)


def _tanh(z: float) -> float:
    return math.tanh(z)


def _tanh_prime(a: float) -> float:
    return (1.0 - a) * (1.0 + a)


def _relu(z: float) -> float:
    return 0.0 if z <= 0.0 else z


def _relu_prime(a: float) -> float:
    return 1.0 if a > 0.0 else a * 0.0


def _leaky_relu(z: float) -> float:
    return z if z > 0.0 else 0.01 * z


def _leaky_relu_prime(a: float) -> float:
    return 1.0 if a > 0.0 else 0.01 if a <= 0.0 else a


def _exp(z: float) -> float:
    return math.inf if z > 709.782712893384 else math.exp(z)


def _exp_prime(a: float) -> float:
    return a


def _hard_sigmoid(z: float) -> float:
    """(z + 3)/6 is exact next to −3, where z/6 + ½ has no digit left."""
    a = (z + 3.0) / 6.0
    return 0.0 if a < 0.0 else 1.0 if a > 1.0 else a


def _hard_sigmoid_prime(a: float) -> float:
    return 1.0 / 6.0 if 0.0 < a < 1.0 else a * 0.0


def _elu(z: float) -> float:
    return z if z > 0.0 else math.expm1(z)


def _elu_prime(a: float) -> float:
    return 1.0 if a > 0.0 else a + 1.0


def _softplus(z: float) -> float:
    return (z if z > 0.0 else 0.0) + math.log1p(math.exp(-abs(z)))


def _softplus_prime(a: float) -> float:
    return -math.expm1(-a)


_SQRT_HALF = 0.7071067811865476
#: The same as 181/256, whose product with a number of few digits is exact, and the rest.
_SQRT_HALF_HIGH = 0.70703125
_SQRT_HALF_LOW = 7.553118654752440e-05
_SQRT_2PI_INVERSE = 0.3989422804014327


def _gelu(z: float) -> float:
    """z Φ(z), with Φ(z) = ½ erfc(x) and x = −z/√2.

    A relative error of x comes back 2x² times as large, so below −1 the result is corrected by what the
    rounding of x left out, times (ln erfc)′ ≈ −(2x + 1/(x + ½)). z is h + r for that, with h a multiple of
    1/64 that has few digits. Below −12, before erfc is denormal, z Φ(z) is
    −φ(z)(1 − 1/z² + 1·3/z⁴ − 1·3·5/z⁶ + …), and the two factors of φ are multiplied smallest last.
    """
    if not z < -1.0:
        return z * (0.5 * math.erfc(-z * _SQRT_HALF))
    if z < -40.0:
        return -0.0
    r = math.fmod(z, 0.015625)
    h = z - r
    if z < -12.0:
        t = 1.0 / (z * z)
        series = 1.0
        odd = 29.0
        while odd > 0.0:
            series = 1.0 - odd * t * series
            odd = odd - 2.0
        return -math.exp(-0.5 * h * h) * (_SQRT_2PI_INVERSE * series * math.exp(-0.5 * r * (z + h)))
    x = -z * _SQRT_HALF
    lost = ((-h * _SQRT_HALF_HIGH - x) - r * _SQRT_HALF_HIGH) - z * _SQRT_HALF_LOW
    a = z * (0.5 * math.erfc(x))
    return a - a * (lost * (2.0 * x + 1.0 / (x + 0.5)))


def _gelu_prime(z: float) -> float:
    """Φ(z) + z φ(z)."""
    return 0.5 * math.erfc(-z * _SQRT_HALF) + z * math.exp(-0.5 * z * z) * _SQRT_2PI_INVERSE


def _silu(z: float) -> float:
    """z/(1 + exp(−z)); below −80, where that 1 does not count, z e e with e = exp(z/2), never denormal."""
    if z < -80.0:
        e = math.exp(0.5 * z)
        return z * e * e
    return z / (1.0 + math.exp(-z))


def _silu_prime(z: float) -> float:
    e = math.exp(-abs(z))
    s = 1.0 / (1.0 + e) if z >= 0.0 else e / (1.0 + e)
    return s * (1.0 + z * (1.0 - s))


_NIELSEN = "Nielsen, Neural Networks and Deep Learning"

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        Activation(
            "identity", _identity, _identity_prime, "output", "a = z, σ′ = 1", f"{_NIELSEN}, chapter 3"
        ),
        Activation(
            "sigmoid",
            _sigmoid,
            _sigmoid_prime,
            "output",
            "a = 1/(1 + e⁻ᶻ), σ′ = a(1 − a)",
            f"{_NIELSEN}, equation (3)",
        ),
        Activation(
            "tanh",
            _tanh,
            _tanh_prime,
            "output",
            "a = (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ), σ′ = 1 − a²",
            f"{_NIELSEN}, equation (110)",
        ),
        Activation(
            "relu",
            _relu,
            _relu_prime,
            "output",
            "a = max(0, z), σ′ = 1 for z > 0, else 0",
            f"{_NIELSEN}, chapter 3",
            (0.0,),
        ),
        Activation(
            "leaky_relu",
            _leaky_relu,
            _leaky_relu_prime,
            "output",
            "a = max(z, 0.01 z), σ′ = 1 for z > 0, else 0.01",
            "Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, 2013",
            (0.0,),
        ),
        Activation(
            "elu",
            _elu,
            _elu_prime,
            "output",
            "a = z for z > 0, else eᶻ − 1; σ′ = 1 for z > 0, else a + 1",
            "Clevert, Unterthiner and Hochreiter 2015, arXiv:1511.07289, with α = 1",
        ),
        Activation(
            "softplus",
            _softplus,
            _softplus_prime,
            "output",
            "a = log(1 + eᶻ), σ′ = 1 − e⁻ᵃ",
            "Dugas et al., Incorporating second-order functional knowledge, 2000; Glorot et al. 2011",
        ),
        Activation(
            "exp",
            _exp,
            _exp_prime,
            "output",
            "a = eᶻ, σ′ = a",
            "McCullagh and Nelder, Generalized Linear Models, chapter 6: the inverse of the log link",
        ),
        Activation(
            "hard_sigmoid",
            _hard_sigmoid,
            _hard_sigmoid_prime,
            "output",
            "a = min(max(z/6 + ½, 0), 1), σ′ = 1/6 for 0 < a < 1, else 0",
            "Courbariaux, Bengio and David 2015, arXiv:1511.00363; slope 1/6 as in PyTorch and Keras 3",
            (-3.0, 3.0),
        ),
        Activation(
            "gelu",
            _gelu,
            _gelu_prime,
            "input",
            "a = z Φ(z), Φ(z) = ½ erfc(−z/√2), σ′ = Φ(z) + z exp(−z²/2)/√(2π)",
            "Hendrycks and Gimpel 2016, arXiv:1606.08415, without approximation",
        ),
        Activation(
            "silu",
            _silu,
            _silu_prime,
            "input",
            "a = z s, s = 1/(1 + e⁻ᶻ), σ′ = s (1 + z (1 − s))",
            "Elfwing, Uchibe and Doya 2017, arXiv:1702.03118",
        ),
    )
}

#: What files and programs mean by these names stays what it is.
OWN = frozenset(ACTIVATIONS)


def activation(name: str) -> Activation:
    """The activation of that name, or an error with the nearest name there is.

    >>> activation("sigmoid").sigma(0.0)
    0.5
    >>> activation("sigmoyd")
    Traceback (most recent call last):
        ...
    gpunn.errors.UnknownNameError: unknown activation 'sigmoyd': did you mean 'sigmoid'? ...
    """
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise unknown_name("activation", name, [*ACTIVATIONS, "softmax"]) from None


def register_activation(
    name: str,
    sigma: Scalar,
    sigma_prime: Scalar,
    *,
    needs: Literal["output", "input"] = "input",
    formula: str = "",
    source: str = "",
    kinks: Iterable[float] = (),
) -> Activation:
    """Add an activation from two scalar functions of Python; its name then works wherever a name does.

    A file keeps the name alone: a process that loads a network with it has to register it first.

    Parameters
    ----------
    name : str
        What layers, the command line and files will call it by.
    sigma : callable
        z ↦ σ(z), of one float, with NaN for NaN. Arithmetic, ``math.*`` and functions of such kind can be
        compiled; anything else still works, but slowly, and says so when it is first used.
    sigma_prime : callable
        σ′ of what ``needs`` says: of z, or of a = σ(z) where σ′ can be written in terms of that (then z need
        not be kept).
    needs : {"input", "output"}
        Whether ``sigma_prime`` takes z or a.
    formula, source : str
        For people; the formula is a = name(z) unless given.
    kinks : iterable of float
        The z at which σ′ does not exist; finite differences stay away from them.

    Returns
    -------
    Activation
        The new row of :data:`ACTIVATIONS`; ``del ACTIVATIONS[name]`` takes it out again.

    Raises
    ------
    gpunn.ArgumentError
        For a name that is taken; for a σ or σ′ that raises, gives no real number or none that is finite at
        a z with |z| ≤ 30; for a σ that turns NaN into a number (``max(0.0, z)`` does: it would hide that a
        run has diverged); for a σ′ that differs from (σ(z + h) − σ(z − h))/2h.

    Warns
    -----
    gpunn.GpunnWarning
        Where σ or σ′ raises or is not finite beyond |z| = 30, up to the largest float32. This is no error,
        because such functions exist (exp) and training stops with the last good weights when it gets there;
        but a formula such as log(1 + exp(z)) loses a value that could be had.

    Examples
    --------
    Mish (Misra 2019, arXiv:1908.08681) is a = z tanh(log(1 + eᶻ)), and σ′ = t + z (1 − t²)/(1 + e⁻ᶻ) with the
    same tanh as t.

    >>> import math, gpunn
    >>> def mish(z):
    ...     return z * math.tanh((z if z > 0 else 0.0) + math.log1p(math.exp(-abs(z))))
    >>> def mish_prime(z):
    ...     e = math.exp(-abs(z))
    ...     t = math.tanh((z if z > 0 else 0.0) + math.log1p(e))
    ...     return t + z * (1 - t * t) * (1 if z > 0 else e) / (1 + e)
    >>> row = gpunn.register_activation("mish", mish, mish_prime, formula="a = z tanh(log(1 + eᶻ))",
    ...                                 source="Misra 2019, arXiv:1908.08681")
    >>> net = gpunn.Sequential([gpunn.Dense(4, activation="mish"), gpunn.Dense(2)], input_shape=3, seed=0)
    >>> gpunn.gradcheck(net, [[1, -2, 3], [0, 1, -1]], [0, 1], loss="cross_entropy").passed
    True
    >>> gpunn.register_activation("swallows", lambda z: max(0.0, z), lambda z: float(z > 0), kinks=[0.0])
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: activation 'swallows': sigma(nan) is 0.0, expected NaN, ...
    >>> del gpunn.activations.ACTIVATIONS["mish"]
    """
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ArgumentError(f"name is {name!r}, expected a string that is not empty")
    if name in ACTIVATIONS or name in OWN or name == "softmax":
        raise ArgumentError(f"activation {name!r} exists already: choose another name")
    if needs not in ("output", "input"):
        raise ArgumentError(f"activation {name!r}: needs is {needs!r}, expected 'input' or 'output'")
    for word, function in (("sigma", sigma), ("sigma_prime", sigma_prime)):
        if not callable(function):
            raise ArgumentError(
                f"activation {name!r}: {word} is {function!r}, expected a function of one number"
            )
    try:
        corners = tuple(float(kink) for kink in kinks)
    except (TypeError, ValueError):
        raise ArgumentError(f"activation {name!r}: kinks is {kinks!r}, expected numbers") from None
    row = Activation(name, sigma, sigma_prime, needs, formula or f"a = {name}(z)", source, corners)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        _check_near(row)
        far = _trouble_far_out(row)
    if far:
        warnings.warn(
            f"activation {name!r}: {far}: a run that gets there diverges. Write it so that it is finite for "
            "every finite z, for instance with exp(-abs(z))",
            GpunnWarning,
            stacklevel=2,
        )
    ACTIVATIONS[name] = row
    return row


_NEAR = 30.0
_LARGEST_FLOAT32 = 3.4028234663852886e38
_FAR = (50.0, 100.0, 500.0, 750.0, 1e4, 1e9, 1e20, _LARGEST_FLOAT32)
_GOLDEN = 0.6180339887498949


class _Trouble(Exception):
    """What a function from outside did, in words."""


def _value(word: str, function: Scalar, at: float) -> float:
    try:
        value = function(at)
    except Exception as error:
        raise _Trouble(f"{word}({at!r}) raises {type(error).__name__}: {error}") from error
    if not isinstance(value, Real):
        raise _Trouble(f"{word}({at!r}) is {value!r}, expected a real number")
    return float(value)


def _finite(word: str, function: Scalar, at: float) -> float:
    value = _value(word, function, at)
    if not math.isfinite(value):
        raise _Trouble(f"{word}({at!r}) is {value!r}, expected a finite number")
    return value


def _slope(row: Activation, z: float, a: float) -> float:
    return _finite("sigma_prime", row.sigma_prime, a if row.needs == "output" else z)


def _irregular(count: int, reach: float) -> Iterator[float]:
    """Points between ±reach that nobody puts a kink at."""
    return (reach * (2.0 * (number * _GOLDEN % 1.0) - 1.0) for number in range(1, count + 1))


def _check_near(row: Activation) -> None:
    """Raise unless σ and σ′ are finite for |z| ≤ 30, σ′ is the derivative and NaN comes out as NaN."""
    h = 1e-6
    try:
        for z in (0.0, -0.0, _NEAR, -_NEAR, *(kink for kink in row.kinks if abs(kink) <= _NEAR)):
            _slope(row, z, _finite("sigma", row.sigma, z))
        for z in (*_irregular(100, _NEAR), *_irregular(50, 4.0), *_irregular(20, 0.1)):
            step = h * max(1.0, abs(z))
            found = _slope(row, z, _finite("sigma", row.sigma, z))
            right, left = (_finite("sigma", row.sigma, z + s) for s in (step, -step))
            if any(abs(z - kink) < 1e-3 for kink in row.kinks):
                continue
            estimate = (right - left) / ((z + step) - (z - step))
            noise = 1e-8 * (abs(right) + abs(left))
            if abs(found - estimate) > noise + 1e-5 * max(abs(found), abs(estimate)):
                takes = "z" if row.needs == "input" else "a = sigma(z), not z"
                raise _Trouble(
                    f"at z = {z!r} sigma_prime gives {found!r}, but sigma rises by {estimate!r} there. With "
                    f"needs={row.needs!r} sigma_prime takes {takes}; is the derivative right, and are all "
                    "kinks listed?"
                )
        nan = _value("sigma", row.sigma, math.nan)
    except _Trouble as trouble:
        hint = "" if "rises by" in str(trouble) else " for every z from -30 to 30: guard that case"
        raise ArgumentError(f"activation {row.name!r}: {trouble}{hint}") from trouble.__cause__
    if not math.isnan(nan):
        raise ArgumentError(
            f"activation {row.name!r}: sigma(nan) is {nan!r}, expected NaN, or a run that has diverged would "
            "not be found. max(0.0, z) swallows NaN; 0.0 if z <= 0.0 else z lets it through"
        )


def _trouble_far_out(row: Activation) -> str:
    """The first trouble beyond |z| = 30, in words, or nothing."""
    try:
        for size in _FAR:
            for z in (size, -size):
                _slope(row, z, _finite("sigma", row.sigma, z))
    except _Trouble as trouble:
        return str(trouble)
    return ""
