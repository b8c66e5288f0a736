"""Arrays of other libraries on a GPU: taken in without a copy, and given back, in their streams' order."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .gpu import Gpu

__all__ = ["OnDevice", "adopt", "given_back"]


class OnDevice:
    """A device array whose values are on the host where somebody looks at them: for messages."""

    def __init__(self, gpu: Gpu, array: Any) -> None:
        self._gpu, self._array = gpu, array
        self.shape, self.ndim = tuple(array.shape), array.ndim
        self.dtype, self.size = array.dtype, array.size

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._gpu.download(self._array), dtype)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def reshape(self, *shape: Any) -> NDArray[Any]:
        """The values in another shape."""
        return np.asarray(self).reshape(*shape)


def adopt(gpu: Gpu, name: str, values: Any) -> Any:
    """An array of CuPy over the memory of an array of CuPy, PyTorch, JAX or Numba; read after their work.

    DLPack first: its producer orders its own stream before ours, which the other interface leaves open.
    """
    gpu.wait_for_user()
    with gpu.here():
        if hasattr(values, "__dlpack__") and not isinstance(values, gpu.cupy.ndarray):
            array = gpu.cupy.from_dlpack(values)
        else:
            array = gpu.cupy.asarray(values)
    where = array.device.id
    if where != gpu.number:
        raise DataError(
            f"{name} lies on GPU {where}, the network on GPU {gpu.number}: move one of them, for instance by "
            f"net.to('cuda:{where}')"
        )
    return array


def given_back(gpu: Gpu, array: Any, like: Any) -> Any:
    """A copy in the user's stream, as the library of ``like`` has arrays.

    A copy, since CuPy uses memory again in the stream that it was taken in: it has to be the user's.
    """
    gpu.user_waits()
    with gpu.device:
        array = array.copy()
    gpu.wait_for_user()
    library = type(like).__module__.partition(".")[0]
    if library == "torch":
        return import_module("torch").from_dlpack(array)
    if library in ("jax", "jaxlib"):
        return import_module("jax.numpy").from_dlpack(array)
    return array
