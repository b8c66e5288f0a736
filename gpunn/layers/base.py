"""What a layer is: something that emits forward ops. Its gradient follows from the ops' adjoints."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError, unknown_name
from ..program import Program

__all__ = ["LAYERS", "Layer", "layer_from_config"]

#: Every layer class by its name: subclasses enter it when they are defined, so files can name them.
LAYERS: dict[str, type[Layer]] = {}


class Layer(ABC):
    """The base of all layers; a subclass defines :meth:`emit` and nothing else.

    A layer keeps the arguments of its constructor as attributes of the same names (a dataclass does so
    by itself), so that a saved network can be built again.

    Examples
    --------
    A layer of your own, with its gradient for free:

    >>> import gpunn
    >>> class Residual(gpunn.Layer):
    ...     def __init__(self, activation="relu"):
    ...         self.activation = activation
    ...
    ...     def emit(self, program, x):
    ...         n = program.slots[x].shape[1]
    ...         W = program.parameter("weights", (n, n), "he_normal")
    ...         b = program.parameter("bias", (n,), "zeros", weight=False)
    ...         z = program.emit("linear", (x, W, b))
    ...         a = program.emit("activate", (z,), sigma=self.activation)
    ...         return program.emit("add", (x, a))
    >>> net = gpunn.Sequential([Residual(), gpunn.Dense(3)], input_shape=4, seed=0)
    >>> sorted(net.parameters)
    ['layers.0.bias', 'layers.0.weights', 'layers.1.bias', 'layers.1.weights']
    >>> del gpunn.layers.LAYERS["Residual"]
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = LAYERS.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__ and taken.__module__.startswith("gpunn."):
            raise ArgumentError(f"layer class {cls.__name__!r} exists in gpunn: choose another name")
        LAYERS[cls.__name__] = cls

    @abstractmethod
    def emit(self, program: Program, x: str) -> str:
        """Emit the forward ops that turn slot ``x`` into the layer's output; returns the output slot.

        Raises :class:`gpunn.ShapeError` where x has a shape that the layer cannot take.
        """

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        found = {}
        for parameter in inspect.signature(type(self)).parameters.values():
            name = parameter.name
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(self, name):
                raise ArgumentError(
                    f"layer {type(self).__name__}: its constructor takes {name!r}, expected an argument of "
                    f"its own that is kept as self.{name}; or define config()"
                )
            found[name] = getattr(self, name)
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


def layer_from_config(name: str, config: Mapping[str, Any]) -> Layer:
    """Build a layer from its class name and config, as a saved file has them.

    >>> layer_from_config("Dense", {"units": 3})
    Dense(units=3, activation='identity', weights='glorot_uniform', bias='zeros')
    """
    if name not in LAYERS:
        raise unknown_name("layer class", name, LAYERS)
    try:
        return LAYERS[name](**config)
    except TypeError as error:
        raise ArgumentError(f"layer {name} cannot be built from {dict(config)}: {error}") from error
