"""Learning rates that change: what multiplies the optimiser's ``lr`` at each step.

A schedule is a formula in x, the epochs (or, with ``unit="step"``, the updates) made before a step. It is
evaluated on the host for all steps of an epoch at once; the device reads the rate of a step from that table.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, unknown_name

__all__ = [
    "SCHEDULES",
    "Cosine",
    "Exponential",
    "InverseScaling",
    "Schedule",
    "StepDecay",
    "Warmup",
    "schedule_from_config",
]

Array = NDArray[np.float64]

#: Every schedule class by its name, in lower case: subclasses enter it when they are defined.
SCHEDULES: dict[str, type[Schedule]] = {}


class Schedule(ABC):
    """The base of all schedules; a subclass is a frozen dataclass with a field ``unit``.

    Examples
    --------
    A schedule of your own:

    >>> import gpunn
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Linear(gpunn.Schedule):
    ...     epochs: float
    ...     unit: str = "epoch"
    ...
    ...     def factors(self, x, width):
    ...         return 1 - x / self.epochs
    >>> Linear(4).factors(np.array([0.0, 1.0, 2.0]), 1.0)
    array([1.  , 0.75, 0.5 ])
    >>> del gpunn.schedules.SCHEDULES["linear"]
    """

    unit: str = "epoch"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = SCHEDULES.get(cls.__name__.lower())
        if taken is not None and taken.__module__ != cls.__module__ and taken.__module__.startswith("gpunn."):
            raise ArgumentError(f"schedule class {cls.__name__!r} exists in gpunn: choose another name")
        SCHEDULES[cls.__name__.lower()] = cls

    @abstractmethod
    def factors(self, x: Array, width: float) -> Array:
        """What multiplies ``lr`` at each x; ``width`` is what one step adds to x."""

    def rates(
        self, lr: float, epochs_done: int, first: int, steps: int, in_epoch: int, start: int = 0
    ) -> Array:
        """The learning rate of ``steps`` updates.

        Parameters
        ----------
        lr : float
            What the factors multiply.
        epochs_done : int
            The epochs before this one.
        first : int
            The updates made before the epoch.
        steps : int
            How many updates.
        in_epoch : int
            The updates that a whole epoch has.
        start : int
            The updates of the epoch to leave out at its beginning.
        """
        if self.unit not in ("epoch", "step"):
            raise unknown_name(f"unit of {type(self).__name__}:", self.unit, ("epoch", "step"))
        numbers = np.arange(start, start + steps, dtype=np.float64)
        if self.unit == "step":
            x, width = first + numbers, 1.0
        else:
            x, width = epochs_done + numbers / in_epoch, 1 / in_epoch
        factors = np.asarray(self.factors(x, width), np.float64)
        if factors.shape != x.shape or not np.isfinite(factors).all() or (factors < 0).any():
            raise ArgumentError(
                f"{self!r} gives the factors {factors}, expected {len(x)} finite numbers of at least 0"
            )
        return lr * factors

    def config(self) -> dict[str, Any]:
        """The class's name and its numbers, as JSON can hold them."""
        numbers = dict(vars(self))
        for key, value in numbers.items():
            if isinstance(value, Schedule):
                numbers[key] = value.config()
        return {"class": type(self).__name__, "config": numbers}

    def _check(self, *, or_zero: tuple[str, ...] = (), **limits: tuple[float, float]) -> None:
        name = type(self).__name__
        if self.unit not in ("epoch", "step"):
            raise unknown_name(f"unit of {name}:", self.unit, ("epoch", "step"))
        for key, (low, high) in limits.items():
            given = getattr(self, key)
            number = isinstance(given, (int, float, np.integer, np.floating)) and not isinstance(given, bool)
            zero = key in or_zero and number and given == 0
            if not number or not (low < given <= high or zero) or math.isinf(given):
                least = "of at least" if key in or_zero else "above"
                most = "" if math.isinf(high) else f" and at most {high:g}"
                raise ArgumentError(f"{name}: {key} is {given!r}, expected a number {least} {low:g}{most}")
            object.__setattr__(self, key, float(given))


@dataclass(frozen=True)
class StepDecay(Schedule):
    """factor^⌊x/every⌋: the rate falls at once, each ``every`` epochs.

    Parameters
    ----------
    every : float
        Above 0.
    factor : float
        In (0, 1].
    unit : {"epoch", "step"}
        What ``every`` counts.

    Examples
    --------
    >>> StepDecay(every=2, factor=0.1).factors(np.array([0.0, 1.9, 2.0]), 0.1)
    array([1. , 1. , 0.1])
    """

    every: float
    factor: float = 0.1
    unit: str = "epoch"

    def __post_init__(self) -> None:
        self._check(every=(0, math.inf), factor=(0, 1))

    def factors(self, x: Array, width: float) -> Array:
        """factor^⌊x/every⌋."""
        # x is a sum of rounded steps: a hair below a whole number of periods counts as that number.
        return np.asarray(self.factor ** np.floor(x / self.every + 1e-9))


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate^x: the rate falls by the same part in each epoch, smoothly.

    Parameters
    ----------
    rate : float
        In (0, 1].
    unit : {"epoch", "step"}
        What x counts.

    Examples
    --------
    >>> Exponential(0.5).factors(np.array([0.0, 1.0, 2.0]), 1.0)
    array([1.  , 0.5 , 0.25])
    """

    rate: float
    unit: str = "epoch"

    def __post_init__(self) -> None:
        self._check(rate=(0, 1))

    def factors(self, x: Array, width: float) -> Array:
        """rate^x."""
        return np.asarray(self.rate**x)


@dataclass(frozen=True)
class Cosine(Schedule):
    """final + ½ (1 − final)(1 + cos(π x/length)): from 1 to ``final``, and there it stays.

    Parameters
    ----------
    length : float
        The epochs (or steps) that it takes, above 0.
    final : float
        In [0, 1].
    unit : {"epoch", "step"}
        What ``length`` counts.

    Notes
    -----
    Source: Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation (5), without restarts.

    Examples
    --------
    >>> Cosine(10).factors(np.array([0.0, 5.0, 10.0, 20.0]), 1.0).round(3)
    array([1. , 0.5, 0. , 0. ])
    """

    length: float
    final: float = 0.0
    unit: str = "epoch"

    def __post_init__(self) -> None:
        self._check(or_zero=("final",), length=(0, math.inf), final=(0, 1))

    def factors(self, x: Array, width: float) -> Array:
        """Half a wave."""
        wave = np.cos(np.pi * np.minimum(x / self.length, 1.0))
        return np.asarray(self.final + 0.5 * (1 - self.final) * (1 + wave))


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """1/(1 + x)^power: the form of scikit-learn's ``"invscaling"``, whose x counts examples.

    Parameters
    ----------
    power : float
        Above 0.
    unit : {"epoch", "step"}
        What x counts.

    Notes
    -----
    Source: Robbins and Monro, Annals of Mathematical Statistics 22 (1951), whose conditions for convergence
    it meets for ½ < power ≤ 1.

    Examples
    --------
    >>> InverseScaling().factors(np.array([0.0, 3.0]), 1.0)
    array([1. , 0.5])
    """

    power: float = 0.5
    unit: str = "epoch"

    def __post_init__(self) -> None:
        self._check(power=(0, math.inf))

    def factors(self, x: Array, width: float) -> Array:
        """(1 + x)^−power."""
        return np.asarray((1 + x) ** -self.power)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Up to 1 in a straight line over the first ``length`` epochs, then as another schedule says.

    The first step has one step's share of the rate, not 0; ``then`` starts where the line ends.

    Parameters
    ----------
    length : float
        The epochs (or steps) that it takes, above 0.
    then : Schedule, optional
        Of the same unit; without one the rate stays.
    unit : {"epoch", "step"}
        What ``length`` counts.

    Notes
    -----
    Source: Goyal et al., arXiv:1706.02677, section 2.2.

    Examples
    --------
    >>> Warmup(4, Cosine(10, unit="step"), unit="step").factors(np.arange(6.0), 1.0).round(3)
    array([0.25 , 0.5  , 0.75 , 1.   , 1.   , 0.976])
    """

    length: float
    then: Schedule | None = None
    unit: str = "epoch"

    def __post_init__(self) -> None:
        self._check(length=(0, math.inf))
        if self.then is not None and not isinstance(self.then, Schedule):
            raise ArgumentError(
                f"Warmup: then is {self.then!r}, expected a schedule such as gpunn.Cosine(30)"
            )
        if self.then is not None and self.then.unit != self.unit:
            raise ArgumentError(
                f"Warmup counts {self.unit}s and {self.then!r} counts {self.then.unit}s: "
                f"give both the same unit"
            )

    def factors(self, x: Array, width: float) -> Array:
        """min(1, (x + one step)/length), then the other schedule from there on."""
        rising = np.minimum((x + width) / self.length, 1.0)
        if self.then is None:
            return rising
        # A hair below the end of the line counts as its end, as in StepDecay.
        after = x - self.length + 1e-9 * max(1.0, self.length)
        return np.where(after < 0, rising, self.then.factors(np.maximum(x - self.length, 0.0), width))


def schedule_from_config(value: Any) -> Schedule | None:
    """A schedule from what :meth:`Schedule.config` gave, or itself."""
    if value is None or isinstance(value, Schedule):
        return value
    if not isinstance(value, Mapping) or value.keys() != {"class", "config"}:
        raise ArgumentError(f"schedule is {value!r}, expected one such as gpunn.Cosine(30)")
    name = str(value["class"])
    if name.lower() not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    kind = SCHEDULES[name.lower()]
    numbers = {
        key: schedule_from_config(number) if isinstance(number, Mapping) else number
        for key, number in dict(value["config"]).items()
    }
    try:
        return kind(**numbers)
    except TypeError as error:
        raise ArgumentError(f"schedule {name} cannot be built from {numbers}: {error}") from error
