"""From ``device="cpu"`` to a backend, imported on first use, and what works on this machine.

Never a silent substitute: a device that cannot be had raises, with the cause and the remedy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

from .backends.base import Backend
from .errors import DeviceError, unknown_name

__all__ = ["DeviceStatus", "backend_for", "devices"]

#: Backend name to its class, as module:class. What is not here yet is in :data:`PLANNED`.
BACKENDS = {"numpy": "gpunn.backends.numpy:NumpyBackend"}

PLANNED = {
    "numba": "this version of gpunn has no Numba backend yet: use device='cpu'",
    "cuda": "this version of gpunn has no CUDA backend yet: use device='cpu'",
}

_LOADED: dict[str, Backend] = {}


@dataclass(frozen=True)
class DeviceStatus:
    """One backend on this machine: whether it works, and what it is or why it does not."""

    name: str
    works: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name:<6} {'works' if self.works else 'no':<6} {self.detail}"


def devices() -> list[DeviceStatus]:
    """The backends that work here, and why the others do not.

    >>> import gpunn
    >>> [status.name for status in gpunn.devices() if status.works]
    ['numpy']
    """
    import numpy

    found = [DeviceStatus("numpy", True, f"NumPy {numpy.__version__}, on the CPU; what device='cpu' means")]
    return found + [DeviceStatus(name, False, why) for name, why in PLANNED.items()]


def backend_for(device: str) -> Backend:
    """The backend of a device name.

    Parameters
    ----------
    device : str
        ``"cpu"`` (the best CPU backend present), ``"auto"`` (a GPU when one works, else the CPU), or the
        name of a backend; ``"cuda:1"`` numbers a GPU.

    Raises
    ------
    gpunn.DeviceError
        If the device cannot be had; the message says why and what to do.
    gpunn.UnknownNameError
        If there is no such device, with the nearest name.

    >>> backend_for("cpu").name
    'numpy'
    """
    if not isinstance(device, str):
        raise unknown_name("device", device, ["cpu", "auto", *BACKENDS, *PLANNED])
    name = {"cpu": "numpy", "auto": "numpy"}.get(
        device, re.sub(r":\d+$", "", device) if device[:4] == "cuda" else device
    )
    if name in PLANNED:
        raise DeviceError(f"device {device!r} cannot be used: {PLANNED[name]}")
    if name not in BACKENDS:
        raise unknown_name("device", device, ["cpu", "auto", *BACKENDS, *PLANNED])
    if name not in _LOADED:
        module, _, cls = BACKENDS[name].partition(":")
        _LOADED[name] = getattr(import_module(module), cls)()
    return _LOADED[name]
