"""Layers: each emits its forward ops into a program and holds no arrays."""

from __future__ import annotations

from .activation import Activation, emit_activation
from .base import LAYERS, Layer, layer_from_config
from .dense import Dense
from .dropout import Dropout
from .flatten import Flatten

__all__ = [
    "LAYERS",
    "Activation",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "emit_activation",
    "layer_from_config",
]
