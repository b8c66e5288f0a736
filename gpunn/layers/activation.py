"""σ as a layer of its own, and how any layer emits one."""

from __future__ import annotations

from dataclasses import dataclass

from ..activations import activation as activation_named
from ..errors import ShapeError
from ..program import Program
from .base import Layer

__all__ = ["Activation", "check_activation", "emit_activation"]


def check_activation(name: str) -> None:
    """Raise, with the nearest name, unless ``name`` is an activation or softmax."""
    if name != "softmax":
        activation_named(name)


def emit_activation(program: Program, z: str, name: str) -> str:
    """Emit a = σ(z); the identity emits nothing, softmax its own row-wise op."""
    if name == "identity":
        return z
    if name == "softmax":
        if len(program.slots[z].shape) != 2:
            raise ShapeError(f"{program.label}: softmax takes (B, n), got {program.slots[z].shape}")
        a: str = program.emit("softmax", (z,))
        return a
    a = program.emit("activate", (z,), sigma=name)
    return a


@dataclass(frozen=True, repr=False)
class Activation(Layer):
    """a = σ(x), elementwise (softmax: row by row); input and output have one shape.

    Raises :class:`gpunn.UnknownNameError` for a name that is no activation.

    >>> Activation("tanh")
    Activation(activation='tanh')
    """

    activation: str

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def emit(self, program: Program, x: str) -> str:
        """a = σ(x)."""
        return emit_activation(program, x, self.activation)
