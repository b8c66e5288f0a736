"""The updates: small frozen records of their numbers, each emitting one op over the whole flat Θ.

``l2`` adds ½ l2 Σw² over the weights (not the biases) to the cost; the notes' λ is l2 = λ/n.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ArgumentError, unknown_name
from .ops import HYPER
from .program import Program
from .slots import Role

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Optimizer", "optimizer_from_config", "optimizer_named"]

#: Every optimiser class by its name, in lower case: subclasses enter it when they are defined.
OPTIMIZERS: dict[str, type[Optimizer]] = {}


class Optimizer(ABC):
    """The base of all optimisers.

    A subclass is a frozen dataclass with ``lr`` and ``l2`` among its fields; :meth:`emit` appends its
    update, :meth:`hyper` gives the first value of every word of the hyper slot that it uses.
    """

    lr: float
    l2: float

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = OPTIMIZERS.get(cls.__name__.lower())
        if taken is not None and taken.__module__ != cls.__module__ and taken.__module__.startswith("gpunn."):
            raise ArgumentError(f"optimizer class {cls.__name__!r} exists in gpunn: choose another name")
        OPTIMIZERS[cls.__name__.lower()] = cls

    @abstractmethod
    def emit(self, program: Program) -> None:
        """Append the update of ``theta`` by ``grad``."""

    def hyper(self) -> dict[str, float]:
        """The first value of each word of the hyper slot (see :data:`gpunn.ops.HYPER`)."""
        return {key: float(value) for key, value in self.config().items() if key in HYPER}

    def config(self) -> dict[str, Any]:
        """The numbers that make this optimiser, as JSON can hold them."""
        return dict(vars(self))

    def _emit(self, program: Program, op: str, states: tuple[str, ...]) -> None:
        layout = program.lay_out_parameters()
        hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
        grad = program.slot("grad", (layout.size,), Role.GRADIENT, symbol="∇C")
        outs = {
            state: program.slot(f"{op}.{state}", (layout.size,), Role.STATE, symbol=state) for state in states
        }
        weights = layout.weights if self.l2 else 0
        program.emit(op, (grad, hyper), {**outs, "theta": "theta"}, label="update", weights=weights)

    def _check(self, **limits: tuple[float, float, bool]) -> None:
        name = type(self).__name__
        for key, (low, high, low_allowed) in limits.items():
            given = getattr(self, key)
            value = _as_float(given)
            if not math.isfinite(value):
                raise ArgumentError(f"{name}: {key} is {given!r}, expected a finite number")
            if not (low < value < high or (low_allowed and value == low)):
                least = "at least" if low_allowed else "more than"
                most = "" if math.isinf(high) else f" and below {high:g}"
                raise ArgumentError(f"{name}: {key} is {given!r}, expected {least} {low:g}{most}")
            object.__setattr__(self, key, value)


def _as_float(value: Any) -> float:
    """The number as a float; NaN for what is no number."""
    if isinstance(value, (bool, str, bytes)) or str(getattr(value, "dtype", "")) == "bool":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


_POSITIVE = (0.0, math.inf, False)
_NOT_NEGATIVE = (0.0, math.inf, True)
_FRACTION = (0.0, 1.0, True)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    θ ← θ − lr g;  with momentum μ: v ← μ v − lr g, θ ← θ + v;  g = ∇C + l2 w.

    Parameters
    ----------
    lr : float
        The learning rate η, above 0.
    momentum : float
        μ in [0, 1).
    l2 : float
        The penalty's factor, 0 or more.

    Notes
    -----
    Source: Nielsen, Neural Networks and Deep Learning, equations (20), (21), (93), (107), (108).

    >>> SGD(lr=3.0)
    SGD(lr=3.0, momentum=0.0, l2=0.0)
    >>> SGD(lr=0)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: SGD: lr is 0, expected more than 0
    """

    lr: float = 0.01
    momentum: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, momentum=_FRACTION, l2=_NOT_NEGATIVE)

    def emit(self, program: Program) -> None:
        """One ``sgd`` or one ``momentum`` op."""
        if self.momentum:
            self._emit(program, "momentum", ("velocity",))
        else:
            self._emit(program, "sgd", ())


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ − lr m̂/(√v̂ + ε).

    m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), g = ∇C + l2 w.

    Parameters
    ----------
    lr : float
        The step size, above 0.
    beta1, beta2 : float
        The decay rates, in [0, 1).
    epsilon : float
        Above 0.
    l2 : float
        The penalty's factor, 0 or more.

    Notes
    -----
    Source: Kingma and Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, algorithm 1.

    >>> Adam().lr
    0.001
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    l2: float = 0.0

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, beta1=_FRACTION, beta2=_FRACTION, epsilon=_POSITIVE, l2=_NOT_NEGATIVE)

    def emit(self, program: Program) -> None:
        """One ``adam`` op."""
        self._emit(program, "adam", ("m", "v"))

    def hyper(self) -> dict[str, float]:
        """The numbers, and β₁ᵗ, β₂ᵗ for the first step."""
        return {**super().hyper(), "beta1_power": self.beta1, "beta2_power": self.beta2}


def optimizer_named(optimizer: str | Optimizer) -> Optimizer:
    """The optimiser itself, or one by name with its default numbers.

    >>> optimizer_named("adam").lr
    0.001
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        raise ArgumentError(f"optimizer is a class, expected an object: write gpunn.{optimizer.__name__}()")
    if not isinstance(optimizer, str) or optimizer.lower() not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer.lower()]()


def optimizer_from_config(name: str, config: Mapping[str, Any]) -> Optimizer:
    """Build an optimiser from its class name and numbers, as a saved file has them."""
    if name.lower() not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    try:
        return OPTIMIZERS[name.lower()](**config)
    except TypeError as error:
        raise ArgumentError(f"optimizer {name} cannot be built from {dict(config)}: {error}") from error
