"""Arrays of other libraries on a GPU: taken in without a copy, and given back, in their streams' order."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .gpu import Gpu, address

__all__ = ["OnDevice", "adopt", "done_reading", "given_back"]


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
        with self._gpu.here():
            part = self._array[self._gpu.cupy.asarray(key) if isinstance(key, np.ndarray) else key]
        return self._gpu.download(part)

    def all_finite(self, dtype: str) -> bool:
        """Whether every value is finite in that dtype."""
        return self._gpu.all_finite(self._array.astype(dtype, copy=False))

    def reshape(self, *shape: Any) -> NDArray[Any]:
        """The values in another shape."""
        return np.asarray(self).reshape(*shape)


def adopt(gpu: Gpu, name: str, values: Any) -> Any:
    """An array of CuPy over the memory of an array of CuPy, PyTorch, JAX or Numba; read after their work.

    DLPack first: its producer orders its own stream before ours, which the other interface leaves open.
    """
    where = device_of(gpu, values)
    if where != gpu.number:
        raise DataError(
            f"{name} lies on GPU {where}, the network on GPU {gpu.number}: move one of them, for instance by "
            f"net.to('cuda:{where}')"
        )
    gpu.share()
    with gpu.here():
        if hasattr(values, "__dlpack__") and not isinstance(values, gpu.cupy.ndarray):
            return gpu.cupy.from_dlpack(values)
        return gpu.cupy.asarray(values)


def device_of(gpu: Gpu, values: Any) -> int:
    """The number of the GPU that an array lies on."""
    if isinstance(values, gpu.cupy.ndarray):
        return int(values.device.id)
    if hasattr(values, "__dlpack_device__"):
        return int(values.__dlpack_device__()[1])
    return int(gpu.cupy.cuda.runtime.pointerGetAttributes(address(values)).device)


def library_of(values: Any) -> str:
    """The library of an array, by the modules of its class and of what that is derived from."""
    names = [cls.__module__.partition(".")[0] for cls in type(values).__mro__]
    return next((name for name in names if name in ("cupy", "torch", "jax", "jaxlib")), "")


def done_reading(gpu: Gpu, values: Any) -> None:
    """What the user queues from now on may write ``values``; CuPy's current stream waits already."""
    library = library_of(values)
    if library == "torch":
        stream = import_module("torch").cuda.current_stream(gpu.number)
        with gpu.device:
            gpu.cupy.cuda.ExternalStream(stream.cuda_stream).wait_event(gpu.stream.record())
    elif library != "cupy":
        gpu.stream.synchronize()  # Nothing else tells it.


def given_back(gpu: Gpu, array: Any, like: Any) -> Any:
    """An array of CuPy as the library of ``like`` has arrays: CuPy's where it is another.

    When it is dropped its memory is this stream's again, which waits for the user before it goes on.
    """
    done_reading(gpu, like)
    library = library_of(like)
    if library == "torch":
        return import_module("torch").from_dlpack(array)
    if library in ("jax", "jaxlib"):
        return import_module("jax.numpy").from_dlpack(array)
    return array
