"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ShapeError, whole_number
from ..initializers import initializer
from ..program import Program
from .activation import check_activation, emit_activation
from .base import Layer

__all__ = ["Dense"]


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """A fully connected layer: a = σ(x Wᵀ + b).

    Input (B, n_in), output (B, units); W is (units, n_in), b is (units,).

    Parameters
    ----------
    units : int
        The number of outputs, at least 1.
    activation : str
        A name of :data:`gpunn.activations.ACTIVATIONS`, or ``"softmax"``.
    weights, bias : str
        Names of initialisers; ``"normal"`` is Nielsen's N(0, 1).

    Raises
    ------
    gpunn.GpunnError
        For an unknown name (with the nearest one), for ``units`` below 1.

    Notes
    -----
    Source: Nielsen, Neural Networks and Deep Learning, equation (25).

    Examples
    --------
    >>> import gpunn
    >>> gpunn.Dense(30, activation="sigmoid", weights="normal", bias="normal")
    Dense(units=30, activation='sigmoid', weights='normal', bias='normal')
    """

    units: int
    activation: str = "identity"
    weights: str = "glorot_uniform"
    bias: str = "zeros"

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole_number("Dense: units", self.units, 1))
        check_activation(self.activation)
        initializer(self.weights)
        initializer(self.bias)

    def emit(self, program: Program, x: str) -> str:
        """z = x Wᵀ + b, then a = σ(z)."""
        shape = program.slots[x].shape
        if len(shape) != 2:
            raise ShapeError(
                f"{program.label}: Dense takes (B, n_in), got (B, {', '.join(map(str, shape[1:]))}): "
                f"put a Flatten() before it"
            )
        n_in = int(shape[1] or 0)
        weights = program.parameter("weights", (self.units, n_in), self.weights)
        bias = program.parameter("bias", (self.units,), self.bias, weight=False)
        z: str = program.emit("linear", (x, weights, bias))
        return emit_activation(program, z, self.activation)
