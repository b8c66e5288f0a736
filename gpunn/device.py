"""From ``device="cpu"`` to a backend, imported on first use, and what works on this machine.

Never a silent substitute: a device that cannot be had raises, with the cause and the remedy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

from .backends.base import Backend
from .errors import DeviceError, unknown_name
from .threads import num_threads

__all__ = ["DeviceStatus", "backend_for", "devices"]

#: Backend name to its class, as module:class. What is not here yet is in :data:`PLANNED`.
BACKENDS = {
    "numba": "gpunn.backends.numba:NumbaBackend",
    "numpy": "gpunn.backends.numpy:NumpyBackend",
}

#: What ``device="cpu"`` means.
BEST = "numba"

PLANNED = {
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
    ['numba', 'numpy']
    """
    count = num_threads()
    threads = f"{count} thread{'s' if count > 1 else ''}"
    numba = f"{_named('Numba')}, {threads} of the CPU; what device='cpu' means"
    found = [
        DeviceStatus("numba", True, numba),
        DeviceStatus("numpy", True, f"{_named('NumPy')}, on the CPU"),
    ]
    return found + [DeviceStatus(name, False, why) for name, why in PLANNED.items()]


def _named(library: str) -> str:
    """A library and its version, without importing it."""
    from importlib import metadata

    try:
        return f"{library} {metadata.version(library.lower())}"
    except metadata.PackageNotFoundError:
        return library


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
    'numba'
    """
    if not isinstance(device, str):
        raise unknown_name("device", device, ["cpu", "auto", *BACKENDS, *PLANNED])
    name = {"cpu": BEST, "auto": BEST}.get(
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
