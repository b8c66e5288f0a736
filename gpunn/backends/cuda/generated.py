"""The kernels that Numba CUDA makes from the scalar definitions of σ and σ′: as text and as machine code."""

from __future__ import annotations

import dis
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np

from ...activations import activation
from ...errors import DeviceError, ProgramError
from ...scalars import retyped

__all__ = ["Generated", "cubin", "ptx", "python_kernel"]

REMEDY = "pip install numba-cuda[cu13]"

Made = TypeVar("Made")


@dataclass(frozen=True)
class Generated:
    """A kernel from a scalar definition: "activate", aᵢ = σ(zᵢ), or "activate_grad", δᵢ ← δᵢ σ′(yᵢ).

    Its arguments are two addresses and a length: of z and a, or of y and δ.
    """

    op: str
    sigma: str
    dtype: str

    @property
    def function(self) -> Callable[[float], float]:
        """The definition: σ or σ′ of the row that has the name now."""
        row = activation(self.sigma)
        return row.sigma if self.op == "activate" else row.sigma_prime

    @property
    def entry(self) -> str:
        """The symbol of the kernel: the same in every process, as Numba's own is not."""
        return f"gpunn_{self.op}_{self.dtype}"


def ptx(kernel: Generated, arch: str) -> tuple[str, str]:
    """The PTX of a kernel and its entry symbol; ``arch`` such as ``"sm_90"``. Needs no GPU.

    Raises
    ------
    gpunn.ProgramError
        For a σ that cannot be compiled.
    gpunn.DeviceError
        Where numba-cuda, or a part of it, is not installed.
    """
    return _once(ptx, kernel, arch, lambda: _ptx(kernel, arch))


def cubin(kernel: Generated, arch: str) -> tuple[bytes, str, str]:
    """The machine code of a kernel, its entry symbol, and what the assembler said of registers and spills.

    Raises what :func:`ptx` raises.
    """
    return _once(cubin, kernel, arch, lambda: _cubin(kernel, arch))


#: What was made, with the function it was made from: a name may come to mean another function, and an id
#: another object once the first is gone.
_MADE: dict[tuple[Any, ...], tuple[Any, Any]] = {}


def _once(what: Any, kernel: Generated, arch: str, make: Callable[[], Made]) -> Made:
    function = kernel.function
    key = what, id(function), kernel.op, kernel.dtype, arch
    if key not in _MADE:
        _MADE[key] = function, make()
    found: Made = _MADE[key][1]
    return found


def _package(name: str, wheel: str = "numba-cuda") -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise DeviceError(f"kernels for a GPU need the package {wheel}: {error}; {REMEDY}") from error


def _compute(arch: str) -> tuple[int, int]:
    found = re.fullmatch(r"sm_(\d+)(\d)[af]?", arch)
    if not found:
        raise DeviceError(f"arch is {arch!r}, expected a name such as 'sm_90'")
    return int(found[1]), int(found[2])


@cache
def _mathematics(dtype: str) -> ModuleType:
    """``math`` with π and its like at a dtype; its functions are compiled to those of the dtype given."""
    found, kind = ModuleType(f"math_of_{dtype}"), np.dtype(dtype).type
    for name, value in vars(math).items():
        if not name.startswith("_"):
            setattr(found, name, kind(value) if isinstance(value, float) else value)
    return found


def python_kernel(kernel: Generated, mathematics: ModuleType | None = None) -> Callable[..., None]:
    """The function of Python that is compiled, or that the simulator runs.

    ``mathematics`` stands for ``math`` in the scalar definition.
    """
    _package("numba_cuda")
    cuda = _package("numba.cuda")
    elementwise = _package("gpunn.kernels.elementwise")

    def wrap(function: FunctionType) -> Any:
        if _can_raise(function):
            raise ProgramError(f"{function.__name__} may raise an exception, and a GPU has none")
        # Without inline numba-cuda compiles it apart, for the GPU that is there.
        return cuda.jit(device=True, inline="always")(function)

    scalar = retyped(kernel.function, kernel.dtype, mathematics or _mathematics(kernel.dtype), wrap)
    made: Callable[..., None] = getattr(elementwise, kernel.op)(scalar)
    return made


def _can_raise(function: FunctionType) -> bool:
    """Whether it says ``raise`` or ``assert``, or takes an element that is not known before it runs.

    Numba CUDA compiles these, but a thread that comes there leaves the kernel in silence.
    """
    before = ""
    for step in dis.get_instructions(function):
        index = step.opname == "BINARY_SUBSCR" or step.argrepr == "[]"
        if step.opname == "RAISE_VARARGS" or (index and before not in ("LOAD_CONST", "LOAD_SMALL_INT")):
            return True
        before = step.opname
    return False


def _ptx(kernel: Generated, arch: str) -> tuple[str, str]:
    capability = _compute(arch)
    _package("numba_cuda")
    cuda, types = _package("numba.cuda"), _package("numba.cuda.types")
    pointer = types.CPointer(getattr(types, kernel.dtype))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # abi="c" is refused for kernels, but the arguments are plain values of C either way.
            text, _ = cuda.compile(
                python_kernel(kernel),
                types.void(pointer, pointer, types.int64),
                device=False,
                abi="numba",
                cc=capability,
                output="ptx",
            )
    except DeviceError:
        raise
    except Exception as error:
        if _is_missing(error):
            raise DeviceError(f"numba-cuda lacks a part of CUDA: {_short(error)}; {REMEDY}") from error
        raise _refused(kernel, error) from error
    (symbol,) = re.findall(r"\.entry\s+(\w+)", text)
    text = re.sub(r"(?m)^\.common .*NumbaEnv.*\n", "", text)
    return text.replace(symbol, kernel.entry), kernel.entry


def _is_missing(error: Exception) -> bool:
    """Whether a library is not there, rather than the function wrong."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ModuleNotFoundError", "NvvmSupportError", "DynamicLibNotFoundError"})


def _short(error: Exception) -> str:
    """The first line of an error of Numba's that says something, without colours."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Failed in ")]
    kind = "" if isinstance(error, ProgramError) else f"{type(error).__name__}: "
    return kind + (telling or lines or ["no reason given"])[0][:160]


def _refused(kernel: Generated, error: Exception) -> ProgramError:
    part = "sigma" if kernel.op == "activate" else "sigma_prime"
    return ProgramError(
        f"activation {kernel.sigma!r}: {part} cannot be compiled for a GPU: {_short(error)}. Arithmetic, "
        "math.* and functions of such can be compiled"
    )


def _cubin(kernel: Generated, arch: str) -> tuple[bytes, str, str]:
    text, entry = ptx(kernel, arch)
    link = _package("cuda.bindings.nvjitlink", "cuda-bindings")
    options = [f"-arch={arch}", "-verbose"]
    try:
        handle = link.create(len(options), options)
    except Exception as error:
        if _is_missing(error):
            raise DeviceError(f"nvJitLink is not here: {_short(error)}; {REMEDY}") from error
        raise
    try:
        data = text.encode()
        link.add_data(handle, link.InputType.PTX, data, len(data), entry)
        link.complete(handle)
        code = bytearray(link.get_linked_cubin_size(handle))
        link.get_linked_cubin(handle, code)
        return bytes(code), entry, _log(link.get_info_log_size, link.get_info_log, handle)
    except link.nvJitLinkError as error:
        said = _log(link.get_error_log_size, link.get_error_log, handle)
        raise _refused(kernel, ProgramError(said or str(error))) from error
    finally:
        link.destroy(handle)


def _log(size: Any, read: Any, handle: Any) -> str:
    room = bytearray(size(handle))
    read(handle, room)
    return room.decode("utf-8", "replace").rstrip("\0\n")
