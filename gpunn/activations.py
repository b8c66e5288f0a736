"""Every activation function σ and its derivative σ′, once each, as scalar Python.

These few lines are the definition that all backends follow. The NumPy backend keeps an array twin of
each (``backends/numpy.py``); compiled backends compile the scalar functions themselves. A new
activation is one row of :data:`ACTIVATIONS` here and one twin there.

σ′ is written in terms of what is cheapest to keep: of the output a = σ(z) where that is enough
(``needs="output"``), else of the input z (``needs="input"``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import unknown_name

__all__ = ["ACTIVATIONS", "Activation", "activation"]

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


_NIELSEN = "Nielsen, Neural Networks and Deep Learning"

ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        Activation("identity", _identity, _identity_prime, "output", "a = z", f"{_NIELSEN}, chapter 3"),
        Activation(
            "sigmoid", _sigmoid, _sigmoid_prime, "output", "a = 1/(1 + e⁻ᶻ)", f"{_NIELSEN}, equation (3)"
        ),
        Activation(
            "tanh", _tanh, _tanh_prime, "output", "a = (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ)", f"{_NIELSEN}, equation (110)"
        ),
        Activation("relu", _relu, _relu_prime, "output", "a = max(0, z)", f"{_NIELSEN}, chapter 3", (0.0,)),
    )
}


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
