"""How parameters start: a table of distributions, drawn on the host so that every backend starts alike.

An initialiser is a function (generator, shape, fan_in, fan_out) to a float64 array. A new one is one
row of :data:`INITIALIZERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import unknown_name

__all__ = ["INITIALIZERS", "Initializer", "initialize", "initializer"]

Initializer = Callable[[np.random.Generator, Sequence[int], int, int], NDArray[Any]]


def _scaled_normal(variance: Callable[[int, int], float]) -> Initializer:
    def draw(rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray[Any]:
        return rng.standard_normal(shape) * math.sqrt(variance(fan_in, fan_out))

    return draw


def _scaled_uniform(variance: Callable[[int, int], float]) -> Initializer:
    def draw(rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray[Any]:
        limit = math.sqrt(3 * variance(fan_in, fan_out))
        return rng.uniform(-limit, limit, shape)

    return draw


def _lecun(fan_in: int, fan_out: int) -> float:
    return 1 / fan_in


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)


def _he(fan_in: int, fan_out: int) -> float:
    return 2 / fan_in


def _zeros(rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray[Any]:
    return np.zeros(shape)


#: Name to distribution.
INITIALIZERS: dict[str, Initializer] = {
    "normal": _scaled_normal(lambda fan_in, fan_out: 1.0),
    "lecun_normal": _scaled_normal(_lecun),
    "lecun_uniform": _scaled_uniform(_lecun),
    "glorot_normal": _scaled_normal(_glorot),
    "glorot_uniform": _scaled_uniform(_glorot),
    "he_normal": _scaled_normal(_he),
    "he_uniform": _scaled_uniform(_he),
    "zeros": _zeros,
}


#: The formula of each, and where it comes from, for people.
FORMULAS: dict[str, tuple[str, str]] = {
    "normal": ("N(0, 1)", "Nielsen, Neural Networks and Deep Learning, chapter 1"),
    "lecun_normal": ("N(0, 1/fan_in)", "Nielsen, chapter 3; LeCun et al. 1998, Efficient BackProp"),
    "lecun_uniform": ("U(−r, r), r² = 3/fan_in", "LeCun et al. 1998, Efficient BackProp"),
    "glorot_normal": ("N(0, 2/(fan_in + fan_out))", "Glorot and Bengio 2010"),
    "glorot_uniform": ("U(−r, r), r² = 6/(fan_in + fan_out)", "Glorot and Bengio 2010, equation (16)"),
    "he_normal": ("N(0, 2/fan_in)", "He et al. 2015, arXiv:1502.01852, equation (10)"),
    "he_uniform": ("U(−r, r), r² = 6/fan_in", "He et al. 2015, arXiv:1502.01852"),
    "zeros": ("0", "biases in most of the field"),
}


def initializer(name: str) -> Initializer:
    """The initialiser of that name, or an error with the nearest name there is."""
    try:
        return INITIALIZERS[name]
    except (KeyError, TypeError):
        raise unknown_name("initialiser", name, INITIALIZERS) from None


def initialize(name: str, shape: Sequence[int], seed: Sequence[int]) -> NDArray[Any]:
    """Draw one parameter: float64, the same for the same name, shape and seed everywhere.

    For a weight matrix (n_out, n_in), fan_in = n_in and fan_out = n_out; for a vector both are its length.

    >>> initialize("he_normal", (2, 3), seed=(0, 0)).shape
    (2, 3)
    """
    fan_out = shape[0] if shape else 1
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else fan_out
    return initializer(name)(np.random.default_rng(list(seed)), shape, fan_in, fan_out)
