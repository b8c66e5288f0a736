"""From a function over arrays to an LLVM module with one function over a block of words; imports Numba.

A kernel is a Python function whose arguments are arrays (views of slots), numbers that may differ from op to
op, and constants that are compiled in. The block holds, in the arguments' order, address and dimensions of
each array, and each number: an int64 or the bits of a float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import takewhile
from types import FunctionType, ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.extending import intrinsic

from ...errors import ProgramError
from ...scalars import retyped
from . import bodies
from .lower import Argument, Scalar
from .mathematics import namespace

__all__ = ["can_compile", "compiled", "scalar_of"]

njit: Any = numba.njit
carray: Any = getattr(numba, "carray")  # noqa: B009 (its stubs do not export it)
types: Any = numba.types

#: No "nnan", no "ninf": NaN has to stay visible.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

#: For a scalar σ, whose sums are written in the order that keeps its digits: no "reassoc".
SCALAR_FASTMATH = {"contract", "arcp"}

OPTIONS: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy", "boundscheck": False}
BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _pointer(kind: Any, width: Any) -> Any:
    @intrinsic
    def at(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], width.as_pointer())

        return types.CPointer(kind)(types.intp), codegen

    return at


POINTERS = {
    "float32": _pointer(types.float32, ir.FloatType()),
    "float64": _pointer(types.float64, ir.DoubleType()),
    **{
        f"{sign}int{bits}": _pointer(getattr(types, f"{sign}int{bits}"), ir.IntType(bits))
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "bool": _pointer(types.uint8, ir.IntType(8)),
}


@intrinsic
def widest(typing: Any) -> Any:
    """Mark the function that is being compiled: vectors of full width, not inlined before they are made."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite refuses attributes it does not know, a set does not.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


def compiled(name: str, body: Callable[..., Any], arguments: Sequence[Argument]) -> Any:
    """The LLVM module of a kernel, with ``void name(block)``."""
    lines = ["def entry(block):", "    widest()", "    words = carray(int64_at(block), 4096)"]
    passed, at = [], 0
    given: dict[str, Any] = {"carray": carray, "widest": widest}
    given |= {f"{kind}_at": pointer for kind, pointer in POINTERS.items()}
    try:
        given["body"] = _inlined(body)
    except ValueError as error:  # A name or a cell that is not there yet.
        raise ProgramError(f"{body!r} cannot be compiled: {error}") from error
    for position, argument in enumerate(arguments):
        word = f"v{position}"
        if argument.dtype is None:
            given[word] = _constant(argument.constant)
            word = "None" if argument.constant is None else word
        elif argument.ndim is None:
            value = (
                f"words[{at}]" if argument.dtype == "int64" else f"carray(float64_at(block + {8 * at}), 1)[0]"
            )
            lines.append(f"    {word} = {value}")
        else:
            shape = ", ".join(f"words[{at + 1 + d}]" for d in range(argument.ndim))
            lines.append(f"    {word} = carray({argument.dtype}_at(words[{at}]), ({shape},))")
        passed.append(f"{argument.name}={word}" if argument.name else word)
        at += 0 if argument.dtype is None else 1 + (argument.ndim or 0)
    lines.append(f"    body({', '.join(passed)})")
    exec("\n".join(lines), given)
    try:
        dispatcher = njit(types.void(types.intp), **OPTIONS, **BARE)(given["entry"])
    except Exception as error:
        kinds = ", ".join(map(str, arguments))
        raise ProgramError(f"{body!r} cannot be compiled for ({kinds}): {error}") from error
    (result,) = dispatcher.overloads.values()
    return _standing_alone(name, result.library.get_llvm_str(), result.fndesc.llvm_func_name)


def _constant(value: Any) -> Any:
    if not isinstance(value, Scalar):
        return value
    return scalar_of(value.function, value.dtype, namespace(value.dtype))


def _inlined(function: Callable[..., Any]) -> Any:
    """A body and those that it calls, as one function; what has to stay as it stands is one of its own."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType):
        raise ProgramError(f"{function!r} cannot be compiled: expected a function written in Python")
    names = {
        name: function.__globals__[name]
        for name in function.__code__.co_names
        if name in function.__globals__
    }
    helpers = {
        name: _inlined(value)
        for name, value in names.items()
        if isinstance(value, FunctionType) and value.__module__ == bodies.__name__
    }
    given = {**function.__globals__, **helpers}
    if function.__module__ == bodies.__name__:
        given["math"] = namespace("float64")
    made = _positional(function, given)
    if function.__name__ in bodies.EXACT:
        return njit(**{**OPTIONS, "fastmath": {"contract"}})(made)
    return njit(inline="always", **OPTIONS)(made)


def _positional(function: FunctionType, given: dict[str, Any]) -> FunctionType:
    """Numba has no arguments that go by keyword alone: they become such as go by either.

    Attributes are always given, so that of the defaults only those that all behind them have can stay.
    """
    code = function.__code__
    alone = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    code = code.replace(co_argcount=code.co_argcount + len(alone), co_kwonlyargcount=0)
    known = function.__kwdefaults__ or {}
    plain = list(function.__defaults__ or ()) if all(name in known for name in alone) else []
    behind = [known[name] for name in takewhile(known.__contains__, reversed(alone))][::-1]
    defaults = tuple(plain + behind) or None
    return FunctionType(code, given, function.__name__, defaults, function.__closure__)


def _standing_alone(name: str, text: str, native: str) -> Any:
    """The module of a compiled function, called by another with the address of the block alone."""
    module = llvm.parse_assembly(text)
    caller = llvm.parse_assembly(
        f"""
        declare i32 @"{native}"(ptr, ptr, i64)
        define void @"{name}"(i64 %block) {{
            %result = alloca ptr
            %exception = alloca ptr
            %status = call i32 @"{native}"(ptr %result, ptr %exception, i64 %block)
            ret void
        }}
        """
    )
    caller.triple, caller.data_layout = module.triple, module.data_layout
    module.link_in(caller)
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = "internal"
    return module


def scalar_of(function: Callable[..., Any], dtype: str, mathematics: ModuleType) -> Any:
    """A scalar function compiled to a dtype: its own numbers are of that dtype, its ``math`` is ours."""
    return retyped(
        function, dtype, mathematics, njit(inline="never", **{**OPTIONS, "fastmath": SCALAR_FASTMATH})
    )


def can_compile(scalar: Scalar) -> bool:
    """Whether a function from outside can be part of a kernel: it compiles, gives numbers, never raises."""
    kind = getattr(types, scalar.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = njit(**{**OPTIONS, "fastmath": SCALAR_FASTMATH})(
                _calling(scalar_of(scalar.function, scalar.dtype, namespace(scalar.dtype)))
            )
            made.compile((kind,))
        except Exception:
            return False
    (result,) = made.overloads.values()
    number = result.signature.return_type in types.real_domain | {types.boolean}
    return number and ".const.picklebuf" not in result.library.get_llvm_str()


def _calling(function: Any) -> Callable[[float], float]:
    def called(z: float) -> float:
        found: float = function(z)
        return found

    return called
