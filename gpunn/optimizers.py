"""The updates: small frozen records of their numbers, each emitting one op over the whole flat Θ.

All of them go along g = s ∇C + l2 w + l1 sign(w): ``l2`` and ``l1`` add ½ l2 Σw² and l1 Σ|w| over the weights
(not the biases) to the cost (Nielsen's λ is l2 = λ/n), and s = min(1, clip_norm/‖∇C‖) where ``clip_norm`` is
given, over the gradient of the data alone, all parameters together. ``weight_decay`` is decoupled:
w ← w − lr · weight_decay · w beside the update and apart from it; g is taken at w as it was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from .errors import ArgumentError, unknown_name
from .ops import HYPER
from .program import Program
from .schedules import Schedule, schedule_from_config
from .slots import Role

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "optimizer_from_config",
    "optimizer_named",
]

#: Every optimiser class by its name, in lower case: subclasses enter it when they are defined.
OPTIMIZERS: dict[str, type[Optimizer]] = {}


class Optimizer(ABC):
    """The base of all optimisers.

    A subclass is a frozen dataclass with ``lr`` among its fields, and whichever of ``l1``, ``l2``,
    ``weight_decay``, ``clip_norm`` and ``schedule`` it has; :meth:`emit` appends its update,
    :meth:`hyper` gives the first value of every word of the hyper slot that it uses.
    """

    lr: float
    l1 = 0.0
    l2 = 0.0
    weight_decay = 0.0
    clip_norm: float | None = None
    schedule: Schedule | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = OPTIMIZERS.get(cls.__name__.lower())
        if taken is not None and taken.__module__ != cls.__module__ and taken.__module__.startswith("gpunn."):
            raise ArgumentError(f"optimizer class {cls.__name__!r} exists in gpunn: choose another name")
        if not cls.__name__.startswith("_"):
            OPTIMIZERS[cls.__name__.lower()] = cls

    @abstractmethod
    def emit(self, program: Program) -> None:
        """Append the update of ``theta`` by ``grad``."""

    def emit_numbers(self, program: Program) -> None:  # noqa: B027
        """Append what finds numbers of ``hyper`` for this step, after the cost and before the penalty."""

    def hyper(self) -> dict[str, float]:
        """The first value of each word of the hyper slot (see :data:`gpunn.ops.HYPER`)."""
        given = {key: value for key, value in self.config().items() if key in HYPER and value is not None}
        return {"clip_scale": 1.0} | {key: float(value) for key, value in given.items()}

    def config(self) -> dict[str, Any]:
        """The numbers that make this optimiser, as JSON can hold them."""
        numbers = dict(vars(self))
        if isinstance(numbers.get("schedule"), Schedule):
            numbers["schedule"] = numbers["schedule"].config()
        return numbers

    @property
    def has_penalty(self) -> bool:
        """Whether the cost has a penalty on the weights."""
        return bool(self.l1 or self.l2)

    def emit_update(self, program: Program, op: str, states: tuple[str, ...] = ()) -> None:
        """Append one update op over the whole flat Θ, after the clipping where there is one.

        Parameters
        ----------
        program : Program
            Of a training step.
        op : str
            With the signature ``grad(P) hyper(H):float64 -> state₁(P) ... theta(P)``.
        states : tuple of str
            The names of its states, which start at zero and are saved with the run.
        """
        layout = program.lay_out_parameters()
        hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
        grad = program.slot("grad", (layout.size,), Role.GRADIENT, symbol="∇C")
        outs = {
            state: program.slot(f"{op}.{state}", (layout.size,), Role.STATE, symbol=state) for state in states
        }
        present = {"l1": self.l1, "l2": self.l2, "decay": self.weight_decay, "clip": self.clip_norm}
        terms = tuple(term for term, value in present.items() if value)
        if self.clip_norm:
            program.emit("clip_by_norm", (grad,), {"hyper": hyper}, label="clipping")
        weights = layout.weights if set(terms) - {"clip"} else 0
        told: dict[str, Any] = {"terms": terms} if terms else {}
        program.emit(op, (grad, hyper), {**outs, "theta": "theta"}, label="update", weights=weights, **told)

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

    def __repr__(self) -> str:
        if not is_dataclass(self):
            return object.__repr__(self)
        given = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name == "lr" or getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(sorted(given, key=lambda text: text[:3] != 'lr='))})"


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


@dataclass(frozen=True, kw_only=True, repr=False)
class _Common(Optimizer):
    """What all of gpunn's own optimisers have."""

    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Schedule | None = None

    def _check(self, **limits: tuple[float, float, bool]) -> None:
        super()._check(**limits, l1=_NOT_NEGATIVE, l2=_NOT_NEGATIVE, weight_decay=_NOT_NEGATIVE)
        if self.clip_norm is not None:
            super()._check(clip_norm=_POSITIVE)
        object.__setattr__(self, "schedule", schedule_from_config(self.schedule))


@dataclass(frozen=True, repr=False)
class SGD(_Common):
    """Stochastic gradient descent, with momentum or Nesterov's momentum if asked for.

    θ ← θ − lr g;  with momentum μ: v ← μ v − lr g, θ ← θ + v;  Nesterov's: θ ← θ + μ v − lr g.

    Parameters
    ----------
    lr : float
        The learning rate η, above 0.
    momentum : float
        μ in [0, 1).
    nesterov : bool
        Whether the gradient is taken where the momentum will have led; needs ``momentum``.
    l1, l2 : float
        The penalties' factors, 0 or more.
    weight_decay : float
        Decoupled, 0 or more.
    clip_norm : float, optional
        The largest ‖∇C‖, above 0.
    schedule : Schedule, optional
        What multiplies ``lr`` from step to step, such as ``gpunn.Cosine(30)``.

    Notes
    -----
    The velocity holds the learning rate, as in the book and in scikit-learn: under a schedule, what was begun
    at a higher rate goes on at it. PyTorch multiplies the whole velocity by the present rate.

    Source: Nielsen, Neural Networks and Deep Learning, equations (20), (21), (93), (97), (107), (108);
    Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.

    >>> SGD(lr=3.0)
    SGD(lr=3.0)
    >>> SGD(lr=0)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: SGD: lr is 0, expected more than 0
    """

    lr: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, momentum=_FRACTION)
        if self.nesterov not in (False, True):
            raise ArgumentError(f"SGD: nesterov is {self.nesterov!r}, expected True or False")
        object.__setattr__(self, "nesterov", bool(self.nesterov))
        if self.nesterov and not self.momentum:
            raise ArgumentError("SGD: nesterov=True needs a momentum above 0, such as momentum=0.9")

    def emit(self, program: Program) -> None:
        """One ``sgd``, ``momentum`` or ``nesterov`` op."""
        if self.momentum:
            self.emit_update(program, "nesterov" if self.nesterov else "momentum", ("velocity",))
        else:
            self.emit_update(program, "sgd", ())


@dataclass(frozen=True, repr=False)
class Adam(_Common):
    """Adam: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ − lr m̂/(√v̂ + ε).

    m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).

    Parameters
    ----------
    lr : float
        The step size, above 0.
    beta1, beta2 : float
        The decay rates, in [0, 1).
    epsilon : float
        Above 0.
    l1, l2 : float
        The penalties' factors, 0 or more.
    weight_decay : float
        Decoupled, 0 or more.
    clip_norm : float, optional
        The largest ‖∇C‖, above 0.
    schedule : Schedule, optional
        What multiplies ``lr`` from step to step, such as ``gpunn.Cosine(30)``.

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

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, beta1=_FRACTION, beta2=_FRACTION, epsilon=_POSITIVE)

    def emit(self, program: Program) -> None:
        """One ``adam`` op."""
        self.emit_update(program, "adam", ("m", "v"))

    def hyper(self) -> dict[str, float]:
        """The numbers, and β₁ᵗ, β₂ᵗ for the first step."""
        return {**super().hyper(), "beta1_power": self.beta1, "beta2_power": self.beta2}


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """:class:`Adam` with a decoupled decay of the weights: w ← w − lr · weight_decay · w, then Adam's step.

    Parameters
    ----------
    lr, beta1, beta2, epsilon, l1, l2, clip_norm, schedule
        As in :class:`Adam`.
    weight_decay : float
        0 or more.

    Notes
    -----
    Source: Loshchilov and Hutter, Decoupled weight decay regularization, arXiv:1711.05101, algorithm 2.

    >>> AdamW(lr=0.002)
    AdamW(lr=0.002)
    >>> AdamW().weight_decay
    0.01
    """

    weight_decay: float = field(default=0.01, kw_only=True)


@dataclass(frozen=True, repr=False)
class RMSprop(_Common):
    """RMSprop: v ← ρ v + (1−ρ) g², θ ← θ − lr g/(√v + ε).

    Parameters
    ----------
    lr : float
        Above 0.
    rho : float
        The decay rate, in [0, 1).
    epsilon : float
        Above 0.
    l1, l2 : float
        The penalties' factors, 0 or more.
    weight_decay : float
        Decoupled, 0 or more.
    clip_norm : float, optional
        The largest ‖∇C‖, above 0.
    schedule : Schedule, optional
        What multiplies ``lr`` from step to step, such as ``gpunn.Cosine(30)``.

    Notes
    -----
    Source: Tieleman and Hinton, Neural Networks for Machine Learning, Coursera 2012, lecture 6e.

    >>> RMSprop(rho=0.99)
    RMSprop(lr=0.001, rho=0.99)
    """

    lr: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, rho=_FRACTION, epsilon=_POSITIVE)

    def emit(self, program: Program) -> None:
        """One ``rmsprop`` op."""
        self.emit_update(program, "rmsprop", ("v",))


@dataclass(frozen=True, repr=False)
class Adagrad(_Common):
    """Adagrad: v ← v + g², θ ← θ − lr g/(√v + ε).

    Parameters
    ----------
    lr : float
        Above 0.
    epsilon : float
        Above 0.
    l1, l2 : float
        The penalties' factors, 0 or more.
    weight_decay : float
        Decoupled, 0 or more.
    clip_norm : float, optional
        The largest ‖∇C‖, above 0.
    schedule : Schedule, optional
        What multiplies ``lr`` from step to step, such as ``gpunn.Cosine(30)``.

    Notes
    -----
    Source: Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 12 (2011), with a diagonal matrix.

    >>> Adagrad(lr=0.1)
    Adagrad(lr=0.1)
    """

    lr: float = 0.01
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        self._check(lr=_POSITIVE, epsilon=_POSITIVE)

    def emit(self, program: Program) -> None:
        """One ``adagrad`` op."""
        self.emit_update(program, "adagrad", ("v",))


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
