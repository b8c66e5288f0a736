"""From ``device="cpu"`` to a backend, imported on first use, and what works on this machine.

Never a silent substitute: a device that cannot be had raises, with the cause and the remedy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .backends.base import Backend
from .backends.cuda.probe import names, why_not
from .errors import ArgumentError, DeviceError, unknown_name
from .threads import num_threads

__all__ = ["DeviceStatus", "backend_for", "devices"]

#: Backend name to its class, as module:class.
BACKENDS = {
    "cuda": "gpunn.backends.cuda.backend:CudaBackend",
    "numba": "gpunn.backends.numba:NumbaBackend",
    "numpy": "gpunn.backends.numpy:NumpyBackend",
}

#: What ``device="cpu"`` means.
BEST = "numba"

#: How products of float32 are computed, by the name of a precision: on a GPU alone the second.
PRECISIONS = ("float32", "tf32")

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
    reason = why_not()
    return [
        DeviceStatus("numba", True, numba),
        DeviceStatus("numpy", True, f"{_named('NumPy')}, on the CPU"),
        DeviceStatus("cuda", not reason, reason or names()),
    ]


def _named(library: str) -> str:
    """A library and its version, without importing it."""
    from importlib import metadata

    try:
        return f"{library} {metadata.version(library.lower())}"
    except metadata.PackageNotFoundError:
        return library


def backend_for(device: str, precision: str = "float32") -> Backend:
    """The backend of a device name.

    Parameters
    ----------
    device : str
        ``"cpu"`` (the best CPU backend present), ``"auto"`` (a GPU when one works, else the CPU), or the
        name of a backend; ``"cuda:1"`` numbers a GPU.
    precision : str
        ``"float32"``, or ``"tf32"``: products of float32 on a GPU's tensor cores, with ten bits of mantissa.

    Raises
    ------
    gpunn.DeviceError
        If the device cannot be had; the message says why and what to do.
    gpunn.UnknownNameError
        If there is no such device, with the nearest name.
    gpunn.ArgumentError
        If the device has no such precision.

    >>> backend_for("cpu").name
    'numba'
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    name, number = _split(device)
    if name == "auto" and not why_not():
        try:
            return backend_for("cuda", precision)
        except DeviceError:  # There, and not usable: device='cuda' says why.
            pass
    name = BEST if name == "auto" else name
    name = BEST if name == "cpu" else name
    if name not in BACKENDS:
        raise unknown_name("device", device, ["cpu", "auto", *BACKENDS])
    if name != "cuda" and precision != "float32":
        raise ArgumentError(
            f"precision {precision!r} is a GPU's: device {device!r} computes in the network's dtype"
        )
    key = f"cuda:{number}, {precision}" if name == "cuda" else name
    if key not in _LOADED:
        if name == "cuda" and (reason := why_not(number)):
            raise DeviceError(f"device {device!r} cannot be used: {reason}")
        module, _, cls = BACKENDS[name].partition(":")
        made = getattr(import_module(module), cls)
        _LOADED[key] = made(number, precision) if name == "cuda" else made()
    return _LOADED[key]


def _split(device: Any) -> tuple[str, int]:
    """Name and number of ``"cuda:1"``."""
    found = re.fullmatch(r"(cuda):(\d+)", device) if isinstance(device, str) else None
    if found:
        return found[1], int(found[2])
    return (device, 0) if isinstance(device, str) else ("", 0)
