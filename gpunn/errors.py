"""Every error gpunn raises on purpose, and how an unknown name is answered.

Each class is a :class:`GpunnError` and also the built-in that a caller would expect, so
``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
import operator
import sys
import warnings
from collections.abc import Iterable
from typing import Any

__all__ = [
    "ArgumentError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "DivergenceError",
    "FormatError",
    "GpunnError",
    "GpunnWarning",
    "ProgramError",
    "ShapeError",
    "UnknownNameError",
    "unknown_name",
    "warn",
    "whole_number",
]


#: What other libraries call some of ours, in lower case.
ELSEWHERE = {
    "linear": "identity",
    "none": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    "leakyrelu": "leaky_relu",
    "hardsigmoid": "hard_sigmoid",
    "bce": "binary_cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "log_loss": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "squared_error": "mse",
    "acc": "accuracy",
    "gpu": "cuda",
}


class GpunnError(Exception):
    """The base of every error that gpunn raises on purpose."""


class GpunnWarning(UserWarning):
    """Something that will run, but almost surely not as meant."""


class ArgumentError(GpunnError, ValueError):
    """An argument has a value that cannot work (a learning rate of 0, a batch of 0 examples)."""


class ShapeError(ArgumentError):
    """An array has another shape than the network, the layer or the op expects."""


class DataError(ArgumentError):
    """The data cannot be learnt from: empty, not numeric, labels out of range, NaN or infinite."""


class UnknownNameError(ArgumentError, KeyError):
    """No activation, loss, optimiser, device, ... of that name exists."""

    __str__ = GpunnError.__str__


class FormatError(ArgumentError):
    """A file is damaged, cut short, or not of the format it was read as."""


class ProgramError(GpunnError, ValueError):
    """A declared program breaks a rule: a slot read before it is written, an op without an adjoint."""


class DeviceError(GpunnError, RuntimeError):
    """A device was asked for that does not work here; the message says why and what to do."""


class DeviceMemoryError(DeviceError, MemoryError):
    """What was asked for does not fit into the memory of the device."""


class DivergenceError(GpunnError, ArithmeticError):
    """Training produced a loss or weights that are not finite; the last good weights were restored."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not in a table, with the nearest one that is.

    >>> str(unknown_name("activation", "sigmod", ["relu", "sigmoid"]))
    "unknown activation 'sigmod': did you mean 'sigmoid'? Known: relu, sigmoid"
    """
    names = sorted(known)
    given = str(name).lower()
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if ELSEWHERE.get(given) in names:
        near = [ELSEWHERE[given]]
    hint = f": did you mean {near[0]!r}?" if near else "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names) or 'none'}")


def warn(message: str) -> None:
    """Warn of something at the line of the caller outside gpunn."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "gpunn":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, GpunnWarning, stacklevel=level)


def whole_number(name: str, value: Any, least: int) -> int:
    """The value as an int, or an error that names the argument.

    >>> whole_number("batch_size", 0, 1)
    Traceback (most recent call last):
        ...
    gpunn.errors.ArgumentError: batch_size is 0, expected a whole number of at least 1
    """
    number = None
    if not isinstance(value, bool) and str(getattr(value, "dtype", "")) != "bool":
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or number < least:
        raise ArgumentError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return number
