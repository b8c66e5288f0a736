"""One NVIDIA GPU, through CuPy: memory, a stream, kernels, matrix products, captured graphs.

Everything is queued on a stream of its own, which does not wait for the null stream, by one thread at a time.
Once arrays are shared with the user, events order its work with that of the user's current stream. No context
is made before the first :class:`Gpu`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceError, DeviceMemoryError, ProgramError
from . import generated
from .catalogue import Kernel
from .code import Code
from .cublaslt import WORKSPACE, CublasLt, Matmul, Plan, bindings
from .generated import Generated
from .probe import REMEDY, why_not

__all__ = ["Gpu", "address", "mib"]

#: From grid, block and arguments to a launch that can be made any number of times.
Binder = Callable[[tuple[int, ...], tuple[int, ...], Sequence[Any]], Callable[[], None]]


#: Bytes that go to the GPU at a time.
STAGE = 16 << 20


def address(array: Any) -> int:
    """Where a device array begins."""
    return int(array.__cuda_array_interface__["data"][0])


class Gpu:
    """A GPU by its number.

    Parameters
    ----------
    number : int
        As ``cuda:1`` says it.
    cupy, cublaslt
        The libraries; what stands in for them in tests.
    load : callable, optional
        From a kernel to what its launches are made by; compiled and loaded unless given.

    Raises
    ------
    gpunn.DeviceError
        Where there is no such GPU, or a library is missing: names the cause and the remedy.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        cupy: Any = None,
        cublaslt: Any = None,
        load: Callable[[Kernel | Generated], Binder] | None = None,
    ) -> None:
        self.number = number
        self._load = load or self._compiled
        self._binders: dict[tuple[Any, ...], Binder] = {}
        self._modules: list[Any] = []
        self._code: Code | None = None
        self._keeps_nan: dict[Matmul, bool] = {}
        self._lock, self._depth, self._shared = threading.RLock(), 0, False
        self._process = os.getpid()
        if cupy is None and (reason := why_not(number)):
            raise DeviceError(f"device 'cuda:{number}' cannot be used: {reason}")
        try:
            self._begin(import_module("cupy") if cupy is None else cupy, cublaslt)
        except (DeviceError, DeviceMemoryError):
            raise
        except (
            Exception
        ) as error:  # An import that fails, a driver that is too old, a library without its file.
            raise DeviceError(
                f"device 'cuda:{number}' cannot be used: {type(error).__name__}: {error}: is what is "
                f"installed whole, and right for this driver? {REMEDY}"
            ) from error

    def _begin(self, cupy: Any, cublaslt: Any) -> None:
        self.cupy = cupy
        self.device = cupy.cuda.Device(self.number)
        self.arch = f"sm_{self.device.compute_capability}"
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.copies = cupy.cuda.Stream(non_blocking=True)
        self._pinned: list[tuple[NDArray[np.uint8], Any]] = []
        self._lt_workspace = self.zeros(WORKSPACE)
        with self.here():
            self._lt = CublasLt(cublaslt or bindings(), address(self._lt_workspace))

    @contextmanager
    def here(self) -> Iterator[None]:
        """Work of CuPy inside goes to this device and stream, and no other thread's in between."""
        if os.getpid() != self._process:
            raise DeviceError(
                f"GPU {self.number} belongs to the process that this one was forked from: start processes by "
                "'spawn' or 'forkserver' (multiprocessing.set_start_method), as joblib does"
            )
        with self._lock, self.device:
            shared = self._shared and not self._depth
            if shared:
                self.wait_for_user()
            self._depth += 1
            try:
                with self.stream:
                    yield
            finally:
                self._depth -= 1
                if shared:
                    self.user_waits()

    # ------------------------------------------------------------------ memory

    def zeros(self, nbytes: int) -> Any:
        """Bytes of zeros; CuPy's memory begins at multiples of 512."""
        return self.allocated(nbytes, lambda: self.cupy.zeros(nbytes, np.uint8))

    def upload(self, array: NDArray[Any], dtype: Any = None) -> Any:
        """A copy of a host array, contiguous and of that dtype."""
        kind = np.dtype(dtype or array.dtype)
        nbytes = array.size * kind.itemsize
        target = self.allocated(nbytes, lambda: self.cupy.empty(array.shape, kind))
        self._bring(array, target)
        return target

    def _bring(self, array: NDArray[Any], target: Any) -> None:
        """Copy a host array into a contiguous device array, cast piece by piece, through pinned memory."""
        if not array.size:
            return
        source, target = (array, target) if array.ndim else (array.reshape(1), target.reshape(1))
        rows = max(1, STAGE * len(source) // target.nbytes)
        with self.here():
            for number, start in enumerate(range(0, len(source), rows)):
                into = target[start : start + rows]
                staged = self._stage(number % 2, into.nbytes).view(target.dtype).reshape(into.shape)
                with np.errstate(over="ignore"):
                    staged[...] = source[start : start + rows]
                into.set(staged, stream=self.stream)
                self._pinned[number % 2] = self._pinned[number % 2][0], self.stream.record()

    def _stage(self, half: int, nbytes: int) -> NDArray[np.uint8]:
        """Pinned memory for a piece, once what was copied from it before is there."""
        while len(self._pinned) <= half:
            self._pinned.append((np.empty(0, np.uint8), None))
        memory, used = self._pinned[half]
        if used is not None:
            used.synchronize()
        if memory.nbytes < nbytes:
            memory = self.pinned(1 << (nbytes - 1).bit_length())
            self._pinned[half] = memory, None
        return memory[:nbytes]

    def download(self, array: Any) -> NDArray[Any]:
        """A copy on the host, once everything queued before is done."""
        with self.here():
            found: NDArray[Any] = array.get()
        return found

    def assign(self, array: Any, values: Any) -> None:
        """Copy values, from the host or the device, into an array of perhaps another dtype."""
        if not hasattr(values, "__cuda_array_interface__"):
            values = np.asarray(values)
            if values.shape == array.shape and array.flags.c_contiguous:
                self._bring(values, array)
                return
            values = self.upload(values, array.dtype)
        with self.here():
            array[...] = values

    def copy(self, array: Any) -> Any:
        """A copy on the device."""
        return self.allocated(array.nbytes, array.copy)

    def all_finite(self, array: Any) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(self.allocated(array.size, lambda: self.cupy.isfinite(array).all()))

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Memory of the host that can be copied from while the GPU works."""
        with self.here():
            memory = self.cupy.cuda.alloc_pinned_memory(max(1, nbytes))
        return np.frombuffer(memory, np.uint8, nbytes)

    def free(self) -> tuple[int, int]:
        """Bytes that are free, what CuPy keeps for later included, and bytes in all."""
        with self.here():
            free, total = self.cupy.cuda.runtime.memGetInfo()
            return free + self.cupy.get_default_memory_pool().free_bytes(), total

    def allocated(self, nbytes: int, make: Callable[[], Any]) -> Any:
        """What ``make`` makes here, or an error that says how much was asked for and how much there is."""
        try:
            with self.here():
                return make()
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            free, total = self.free()
            raise DeviceMemoryError(
                f"{mib(nbytes)} do not fit into the memory of GPU {self.number}, of which {mib(free)} of "
                f"{mib(total)} are free"
            ) from error

    # ------------------------------------------------------------------ the user's streams

    def share(self) -> None:
        """From now on the user has arrays of this stream, or this stream has the user's."""
        with self._lock:
            if not self._shared:
                self.wait_for_user()
                self.user_waits()
            self._shared = True

    def wait_for_user(self) -> None:
        """What is queued from now on waits for what the user's current stream has been given so far."""
        with self._lock, self.device:
            self.stream.wait_event(self.cupy.cuda.get_current_stream().record())

    def user_waits(self) -> None:
        """The user's current stream waits for what is queued here so far."""
        with self._lock, self.device:
            self.cupy.cuda.get_current_stream().wait_event(self.stream.record())

    # ------------------------------------------------------------------ launches

    def launch(
        self,
        kernel: Kernel | Generated,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: Sequence[Any],
    ) -> Callable[[], None]:
        """A launch made ready: arguments are device arrays, numbers of NumPy's types, and None for null."""
        # A name may have come to mean another function.
        key = (kernel, kernel.function) if isinstance(kernel, Generated) else (kernel,)
        if key not in self._binders:
            with self.here():
                self._binders[key] = self._load(kernel)
        return self._binders[key](grid, block, arguments)

    def _compiled(self, kernel: Kernel | Generated) -> Binder:
        if isinstance(kernel, Generated):
            code, symbol, _ = generated.cubin(kernel, self.arch)
        else:
            self._code = self._code or Code(self.arch)
            made = self._code.cubin(kernel)
            code, symbol = made.code, made.symbol
        module = import_module("cupy.cuda.function").Module()
        module.load(code)
        self._modules.append(module)
        function = module.get_function(symbol)

        def bind(
            grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any]
        ) -> Callable[[], None]:
            words = tuple(map(_word, arguments))
            return lambda: function(grid, block, words)

        return bind

    # ------------------------------------------------------------------ products

    def plan(self, product: Matmul, bias: Any = None) -> Plan | None:
        """A plan of a product; None where the library has none. Without ``bias`` it is only asked about."""
        with self.here():
            return self._lt.plan(product, address(self._lt_workspace if bias is None else bias))

    def multiply(
        self, plan: Plan, left: Any, right: Any, out: Any, alpha: Any, beta: Any
    ) -> Callable[[], None]:
        """A product made ready; all are device arrays."""
        lt, stream = self._lt, self.stream.ptr
        a, b, d, scale, keep = map(address, (left, right, out, alpha, beta))
        return lambda: lt.multiply(plan, a, b, d, scale, keep, stream)

    def offers(self, product: Matmul) -> bool:
        """Whether the library has the product with its epilogue, and a ReLU that leaves NaN as NaN.

        max(0, NaN) may be 0; how it is in the algorithm that the heuristic chose is found out by one product.
        """
        if self.plan(product) is None:
            return False
        if product.epilogue == "relu" and product not in self._keeps_nan:
            self._keeps_nan[product] = self._found_to_keep_nan(product)
        return self._keeps_nan.get(product, True)

    def _found_to_keep_nan(self, product: Matmul) -> bool:
        size = np.dtype(product.dtype).itemsize
        try:
            operand = self.zeros(product.inner * max(product.rows, product.columns) * size)
            out = self.zeros(product.rows * product.columns * size).view(product.dtype)
            scales = self.upload(np.array([1, 0], product.dtype))
        except DeviceMemoryError:
            return False
        operand = operand.view(product.dtype)
        with self.here():
            operand.fill(np.nan)
        plan = self.plan(product, operand)
        assert plan is not None
        self.run([self.multiply(plan, operand, operand, out, scales[:1], scales[1:])])
        with self.here():
            return bool(self.cupy.isnan(out).all())

    # ------------------------------------------------------------------ running

    def run(self, calls: Iterable[Callable[[], None]]) -> None:
        """Queue calls one after another."""
        with self.here():
            for call in calls:
                call()

    def capture(self, calls: Iterable[Callable[[], None]]) -> Any:
        """The calls as a graph; nothing is executed. A call that allocates cannot be in one.

        Its memory would be another's at the next replay.
        """

        def refuse(nbytes: int) -> None:
            raise ProgramError(f"it allocates {nbytes:,} bytes")

        with self.here(), self.cupy.cuda.using_allocator(refuse):
            try:
                self.stream.begin_capture()
                for call in calls:
                    call()
            except BaseException:
                _abandon(self.stream)
                raise
            return self.stream.end_capture()

    def replay(self, graph: Any, times: int) -> None:
        """Queue a graph so many times."""
        with self.here():
            for _ in range(times):
                graph.launch(self.stream)


def _abandon(stream: Any) -> None:
    """End a capture that has failed; what the driver says to that is known already."""
    try:
        stream.end_capture()
    except Exception:
        return


def mib(nbytes: float) -> str:
    """So many bytes in words."""
    return f"{nbytes / 2**20:,.0f} MiB"


def _word(argument: Any) -> Any:
    """An argument as eight bytes or fewer: an address where it is an array."""
    if argument is None:
        return np.uint64(0)
    return np.uint64(address(argument)) if hasattr(argument, "__cuda_array_interface__") else argument
