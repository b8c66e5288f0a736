"""Networks and training runs as safetensors files: atomic to write, checked to read, no pickle.

A file holds the tensors by name and, in its metadata under ``gpunn``, a SHA-256 over all of it, a space, and
one JSON text: what the file is and the configuration that rebuilds it. The format is documented at
https://github.com/huggingface/safetensors, so other programs can read the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from .device import backend_for
from .errors import ArgumentError, FormatError, UnknownNameError, unknown_name
from .files import write_atomically

__all__ = ["NETWORKS", "File", "build_network", "load", "read", "write"]

FORMAT = 1

DTYPES = ("float32", "float64")

Tensors = Mapping[str, NDArray[Any]]

#: Network class name to its builder (config, device, a check of each parameter's key, shape and dtype, and
#: the precision); a class enters itself when it is defined.
NETWORKS: dict[str, Callable[..., Any]] = {}


class File:
    """The content of a gpunn file: ``kind`` ("network" or "run"), ``config`` and ``tensors``."""

    def __init__(
        self, path: Path, kind: str, config: dict[str, Any], tensors: dict[str, NDArray[Any]]
    ) -> None:
        self.path = path
        self.kind = kind
        self.config = config
        self.tensors = tensors

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """One tensor, or FormatError if it is missing or of another shape or dtype."""
        array = self.tensors.get(name)
        if array is None:
            raise FormatError(f"{self.path}: tensor {name!r} is missing")
        if array.shape != shape or array.dtype != dtype:
            raise FormatError(
                f"{self.path}: tensor {name!r} is {array.dtype} {array.shape}, "
                f"its configuration says {dtype} {shape}"
            )
        return array


def write(path: str | os.PathLike[str], kind: str, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Write a file so that at any moment the old or the new one is whole on disk."""
    target = Path(path)
    ready = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        text = json.dumps({"format": FORMAT, "kind": kind, "config": config}, default=plain)
    except TypeError as error:
        raise ArgumentError(
            f"{target} cannot be saved: {error}; the history and the layers' arguments may hold numbers, "
            f"text, lists, mappings and arrays"
        ) from error
    write_atomically(target, to_bytes(ready, metadata={"gpunn": f"{_digest(text, ready)} {text}"}))


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON can hold them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be saved as JSON")


def read(path: str | os.PathLike[str]) -> File:
    """Read and check a file that :func:`write` wrote.

    Raises
    ------
    gpunn.FormatError
        If the file is damaged, cut short, not safetensors, or not gpunn's.
    FileNotFoundError
        If there is none.
    """
    target = Path(path)
    if target.is_dir():
        raise FormatError(f"{target} is a folder, expected a file that gpunn saved")
    if not target.exists():
        raise FileNotFoundError(f"no file {target}")
    try:
        with safe_open(target, framework="numpy") as file:
            about = file.metadata() or {}
            names = list(file.keys())
            if "gpunn" not in about:
                raise FormatError(
                    f"{target} is a safetensors file, but not one of gpunn's: it holds "
                    f"{', '.join(map(repr, names[:5])) or 'no tensors'} and no 'gpunn' entry"
                )
            tensors = {name: file.get_tensor(name) for name in names}
    except (FormatError, PermissionError, MemoryError):
        raise
    except Exception as error:
        # Beside its own error, safetensors lets through what NumPy says of dtypes and shapes it lacks.
        raise FormatError(
            f"{target} is not a whole safetensors file (damaged, cut, or another format): {error}"
        ) from error
    digest, _, text = about["gpunn"].partition(" ")
    if digest != _digest(text, tensors):
        raise FormatError(f"{target} is damaged: its content does not match its SHA-256 checksum")
    return _described(target, text, tensors)


def _described(target: Path, text: str, tensors: dict[str, NDArray[Any]]) -> File:
    try:
        header = json.loads(text)
        version, kind, config = header["format"], header["kind"], dict(header["config"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{target}: its description cannot be read: {error}") from error
    if version != FORMAT:
        raise FormatError(
            f"{target} has format {version!r}, this version of gpunn reads {FORMAT}: update gpunn"
        )
    return File(target, str(kind), config, tensors)


def _digest(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def build_network(file: File, config: Any, device: str, precision: str = "float32") -> Any:
    """Build the network that a configuration describes and copy its parameters in.

    Raises :class:`gpunn.FormatError` for whatever is wrong with the configuration.
    """
    try:
        if config["class"] not in NETWORKS:
            raise unknown_name("network class", config["class"], NETWORKS)
        # By name only: NumPy has many more spellings, some of which it warns of or runs as Python.
        if config["dtype"] not in DTYPES:
            raise unknown_name("dtype", config["dtype"], DTYPES)
        network = NETWORKS[config["class"]](config, device, file.tensor, precision)
        for key in network.parameters:
            shape = tuple(network.parameters.window(key).shape)
            network.parameters[key] = file.tensor(key, shape, network.dtype)
    except FormatError:
        raise
    except Exception as error:
        # Whatever the layers, the initialisers and JSON's numbers make of it, down to RecursionError.
        hint = ""
        if isinstance(error, UnknownNameError):
            hint = "; what is not gpunn's own has to be registered before a file that names it is loaded"
        raise FormatError(f"{file.path}: its network cannot be built: {error}{hint}") from error
    return network


def load(path: str | os.PathLike[str], device: str = "cpu", precision: str = "float32") -> Any:
    """Load a network from the file of a network or of a training run.

    Parameters
    ----------
    path : path
        What :meth:`gpunn.Sequential.save` or :meth:`gpunn.Trainer.save` wrote.
    device, precision : str
        Where the network will live, and how a GPU computes its products (see :class:`gpunn.Sequential`).

    Raises
    ------
    gpunn.FormatError
        If the file is damaged, cut, or not gpunn's.

    Examples
    --------
    >>> import gpunn, tempfile, pathlib
    >>> net = gpunn.Sequential([gpunn.Dense(2)], input_shape=3, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "net.safetensors"
    ...     net.save(path)
    ...     again = gpunn.load(path)
    >>> bool((again.theta == net.theta).all())
    True
    """
    backend_for(device, precision)
    file = read(path)
    if file.kind not in ("network", "run"):
        raise FormatError(f"{path} holds a {file.kind!r}, expected a network or a training run")
    config = file.config if file.kind == "network" else file.config.get("network")
    return build_network(file, config, device, precision)
