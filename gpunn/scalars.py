"""A scalar function as it is at one dtype: its numbers, its ``math`` and what it calls are of that dtype.

What compiles the functions is the caller's: Numba for the CPU, Numba CUDA for a GPU, nothing in a simulator.
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from .errors import ProgramError

__all__ = ["retyped"]


def retyped(
    function: Any,
    dtype: str,
    mathematics: ModuleType,
    wrap: Callable[[FunctionType], Any],
    whole: Callable[[int], Any] = int,
) -> Any:
    """A scalar function at a dtype.

    Parameters
    ----------
    function : callable
        Of one number; one of ``math`` becomes that of ``mathematics``.
    dtype : str
        What numbers of type float become: constants, defaults, globals, what a closure holds, and what such
        tuples hold.
    mathematics : module
        What stands for ``math``, and for the functions of NumPy that both have.
    wrap : callable
        Compiles one function of Python; is called for each that ``function`` calls too, innermost first.
    whole : callable
        What whole numbers that fit into 16 bits become.

    Raises
    ------
    gpunn.ProgramError
        For a function that calls itself.

    >>> retyped(lambda z: z + 0.1, "float32", math, lambda function: function)(np.float32(0.0))
    np.float32(0.1)
    """
    return _Retyping(dtype, mathematics, wrap, whole).value(function)


@dataclass(frozen=True)
class _Retyping:
    dtype: str
    mathematics: ModuleType
    wrap: Callable[[FunctionType], Any]
    whole: Callable[[int], Any]
    made: dict[FunctionType, Any] = field(default_factory=dict)

    def value(self, value: Any) -> Any:
        """What a scalar function refers to: a number, ``math``, or a function of it."""
        value = getattr(value, "py_func", value)
        if isinstance(value, FunctionType):
            if value not in self.made:
                self.made[value] = None
                self.made[value] = self.wrap(self.function(value))
            if self.made[value] is None:
                raise ProgramError(f"{value.__name__} calls itself")
            return self.made[value]
        if isinstance(value, float):
            return np.dtype(self.dtype).type(value)
        if type(value) is int and abs(value) < 2**15:
            return self.whole(value)
        if type(value) is tuple:
            return tuple(map(self.value, value))
        if isinstance(value, CodeType):
            return value.replace(co_consts=tuple(map(self.value, value.co_consts)))
        if value is float:
            return np.dtype(self.dtype).type
        if value is math:
            return self.mathematics
        if value is np:
            return _numpy(self.mathematics)
        if isinstance(value, np.ufunc):
            return vars(_numpy(self.mathematics)).get(value.__name__, value)
        if getattr(value, "__module__", None) == "math":
            return getattr(self.mathematics, value.__name__)
        return value

    def function(self, function: FunctionType) -> FunctionType:
        """The function with all that it refers to at the dtype."""
        at, known = self.value, {"float": float, **function.__globals__}
        code, defaults = _positional(function)
        return FunctionType(
            at(code),
            {
                "__builtins__": __builtins__,
                **{name: at(known[name]) for name in _names(code) if name in known},
            },
            function.__name__,
            at(defaults) or None,
            tuple(CellType(at(cell.cell_contents)) for cell in function.__closure__ or ()),
        )


def _names(code: CodeType) -> set[str]:
    """The globals that a function refers to, or one that is defined in it; not what follows a dot."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _positional(function: FunctionType) -> tuple[CodeType, tuple[Any, ...]]:
    """The code and its defaults, where what goes by keyword alone goes by either: Numba knows no other."""
    code, defaults = function.__code__, function.__defaults__ or ()
    known, alone = function.__kwdefaults__ or {}, code.co_kwonlyargcount
    required = len(known) < alone and (known or defaults)
    if required or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
        return code, defaults
    names = code.co_varnames[code.co_argcount : code.co_argcount + alone]
    code = code.replace(co_argcount=code.co_argcount + alone, co_kwonlyargcount=0)
    return code, defaults + tuple(known[name] for name in names if name in known)


@cache
def _numpy(mathematics: ModuleType) -> ModuleType:
    """NumPy, as far as it has functions of one number that we have too."""
    found = ModuleType("numpy")
    vars(found).update({name: value for name, value in vars(np).items() if not name.startswith("__")})
    ours = ("exp", "expm1", "log", "log1p", "tanh", "floor", "ceil", "trunc", "sqrt", "fabs")
    vars(found).update({name: getattr(mathematics, name) for name in ours}, abs=abs, absolute=abs)
    return found
