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
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np

from ...activations import Activation, activation
from ...errors import DeviceError, ProgramError, warn
from ...scalars import retyped

__all__ = ["Generated", "cubin", "ptx", "python_kernel"]

REMEDY = "pip install numba-cuda[cu13]"

#: The end of how libdevice reduces a large angle of a float32's sine: a product of a whole number of 64 bits
#: with 2⁻⁶⁴ π/2. A small angle does not come here.
REDUCTION = re.compile(
    r"cvt\.rn\.f64\.s64\s+(%\w+), %\w+;\s+mul\.f64\s+(%\w+), \1, 0d3BF921FB54442D19;\s+"
    r"cvt\.rn\.f32\.f64\s+%\w+, \2;"
)

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
    def part(self) -> str:
        """Which of the two functions of an activation it is."""
        return "sigma" if self.op == "activate" else "sigma_prime"

    @property
    def function(self) -> Callable[[float], float]:
        """The definition: σ or σ′ of the row that has the name now."""
        found: Callable[[float], float] = getattr(activation(self.sigma), self.part)
        return found

    @property
    def entry(self) -> str:
        """The symbol of the kernel: the same in every process, as Numba's own is not."""
        return f"gpunn_{self.op}_{self.dtype}"


def ptx(kernel: Generated, arch: str) -> tuple[str, str]:
    """The PTX of a kernel and its entry symbol; ``arch`` such as ``"sm_90"``. Needs no GPU.

    A function is compiled once, with what its globals and its closure hold at that time, as Numba does it
    everywhere: after a change of these, define the function anew.

    Raises
    ------
    gpunn.ProgramError
        For a σ that cannot be compiled.
    gpunn.DeviceError
        Where numba-cuda, or a part of it, is not installed.

    Warns
    -----
    gpunn.GpunnWarning
        Once an activation, where its kernel at float32 computes in float64.
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


def python_kernel(
    kernel: Generated, mathematics: ModuleType | None = None, whole: Callable[[int], Any] = int
) -> Callable[..., None]:
    """The function of Python that is compiled, or that the simulator runs.

    ``mathematics`` stands for ``math`` in the scalar definition; ``whole`` is what its whole numbers become.
    """
    _package("numba_cuda")
    cuda = _package("numba.cuda")
    elementwise = _package("gpunn.kernels.elementwise")
    function = kernel.function
    plain = (FunctionType, BuiltinFunctionType, np.ufunc, type)
    if not isinstance(getattr(function, "py_func", function), plain):
        kind = type(function).__name__
        raise ProgramError(f"it is no plain function (def or lambda) but of type {kind!r}")

    def wrap(function: FunctionType) -> Any:
        if _can_raise(function.__code__):
            raise ProgramError(f"{function.__name__} may raise an exception, and a GPU has none")
        if function.__code__.co_kwonlyargcount:
            raise ProgramError(f"{function.__name__} has arguments that go by keyword alone")
        # Without inline numba-cuda compiles it apart, for the GPU that is there.
        return cuda.jit(device=True, inline="always")(function)

    scalar = retyped(function, kernel.dtype, mathematics or _mathematics(kernel.dtype), wrap, whole)
    made: Callable[..., None] = getattr(elementwise, kernel.op)(scalar)
    return made


def _can_raise(code: CodeType) -> bool:
    """Whether it says ``raise`` or ``assert``, or takes an element that is not known before it runs.

    Numba CUDA compiles these, but a thread that comes there leaves the kernel in silence.
    """
    before = ""
    for step in dis.get_instructions(code):
        index = step.opname == "BINARY_SUBSCR" or step.argrepr == "[]"
        if step.opname == "RAISE_VARARGS" or (index and before not in ("LOAD_CONST", "LOAD_SMALL_INT")):
            return True
        before = step.opname
    return any(_can_raise(part) for part in code.co_consts if isinstance(part, CodeType))


def _ptx(kernel: Generated, arch: str) -> tuple[str, str]:
    capability = _compute(arch)
    _package("numba_cuda")
    try:
        text = _compiled(kernel, capability)
    except DeviceError:
        raise
    except Exception as error:
        if _is_missing(error):
            raise DeviceError(f"numba-cuda lacks a part of CUDA: {_short(error)}; {REMEDY}") from error
        raise _refused(kernel, error) from error
    (symbol,) = re.findall(r"\.entry\s+(\w+)", text)
    text = re.sub(r"(?m)^\.common .*NumbaEnv.*\n", "", text).replace(symbol, kernel.entry)
    if kernel.dtype == "float32" and re.search(r"(?m)^(?!\s*\.reg).*\.f64", REDUCTION.sub("", text)):
        _tell_of_float64(kernel)
    return text, kernel.entry


def _compiled(kernel: Generated, capability: tuple[int, int]) -> str:
    """The PTX as Numba CUDA makes it.

    A whole number of 64 bits and a float32 give a float64, one of 16 bits and a float32 a float32, and whole
    numbers among themselves 64 bits either way. Where a literal is needed, the numbers stay as they are.
    """
    if kernel.dtype == "float32":
        try:
            return _text(kernel, capability, np.int16)
        except (DeviceError, ProgramError):
            raise
        except Exception as error:
            if _is_missing(error):
                raise
    return _text(kernel, capability, int)


def _text(kernel: Generated, capability: tuple[int, int], whole: Callable[[int], Any]) -> str:
    cuda, types = _package("numba.cuda"), _package("numba.cuda.types")
    pointer = types.CPointer(getattr(types, kernel.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # abi="c" is refused for kernels, but the arguments are plain values of C either way.
        text, _ = cuda.compile(
            python_kernel(kernel, whole=whole),
            types.void(pointer, pointer, types.int64),
            device=False,
            abi="numba",
            cc=capability,
            output="ptx",
        )
    return str(text)


#: The rows that a warning has been given of.
_TOLD: dict[str, Activation] = {}


def _tell_of_float64(kernel: Generated) -> None:
    row = activation(kernel.sigma)
    if _TOLD.get(kernel.sigma) is not row:
        _TOLD[kernel.sigma] = row
        warn(
            f"activation {kernel.sigma!r}: {kernel.part} computes in float64 on a GPU although the network "
            "is float32, which is slow: write numbers as floats (2.0 * z, not 2 * z)"
        )


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


def _called(error: Exception) -> str:
    """The function that Numba knows, but would need the driver, or an array, to compile."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], np.ufunc):
        return error.args[0].__name__
    called, trace = "", error.__traceback__ if type(error).__name__ == "CudaSupportError" else None
    while trace:
        function = getattr(trace.tb_frame.f_locals.get("fnty"), "typing_key", None)
        called = getattr(function, "__name__", called)
        trace = trace.tb_next
    return called


def _refused(kernel: Generated, error: Exception) -> ProgramError:
    why, called = _short(error), _called(error)
    if called or type(error).__name__ == "CudaSupportError":
        what = called or "something"
        why = f"it calls {what}, which cannot be compiled here: write that with if, else and arithmetic"
    return ProgramError(
        f"activation {kernel.sigma!r}: {kernel.part} cannot be compiled for a GPU: {why}. Arithmetic, math.* "
        "and functions of such can be compiled"
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
