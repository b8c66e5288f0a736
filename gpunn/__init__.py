"""gpunn: neural networks whose every equation is a kernel.

>>> import gpunn
>>> net = gpunn.Sequential([gpunn.Dense(30, activation="sigmoid"), gpunn.Dense(10)], input_shape=64, seed=0)
>>> net.layout.count
2260
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._source_tree import find_kernels
from ._version import __version__
from .activations import register_activation
from .callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, ReduceLROnPlateau, TensorBoard
from .checkpoint import load
from .device import devices
from .errors import (
    ArgumentError,
    DataError,
    DeviceError,
    DivergenceError,
    FormatError,
    GpunnError,
    GpunnWarning,
    ProgramError,
    ShapeError,
    UnknownNameError,
)
from .gradients import gradcheck
from .history import History
from .layers import Activation, Dense, Dropout, Flatten, Layer
from .losses import register_loss
from .network import Sequential
from .ops import register_op
from .optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .program import Program
from .schedules import Cosine, Exponential, InverseScaling, Schedule, StepDecay, Warmup
from .threads import num_threads, set_num_threads
from .training import Trainer

__all__ = [
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "ArgumentError",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "Cosine",
    "DataError",
    "Dense",
    "DeviceError",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Exponential",
    "Flatten",
    "FormatError",
    "GpunnError",
    "GpunnWarning",
    "History",
    "InverseScaling",
    "Layer",
    "Optimizer",
    "Program",
    "ProgramError",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "Sequential",
    "ShapeError",
    "StepDecay",
    "TensorBoard",
    "Trainer",
    "UnknownNameError",
    "Warmup",
    "__version__",
    "devices",
    "gradcheck",
    "load",
    "num_threads",
    "register_activation",
    "register_loss",
    "register_op",
    "set_num_threads",
]

find_kernels()


def __getattr__(name: str) -> Any:
    """``gpunn.data`` and ``gpunn.plotting`` without an import of their own, and only when used."""
    if name in ("data", "plotting"):
        return import_module(f"gpunn.{name}")
    raise AttributeError(f"module 'gpunn' has no attribute {name!r}")
