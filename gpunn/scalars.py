"""A scalar function as it is at one dtype: its numbers, its ``math`` and what it calls are of that dtype.

What compiles the functions is the caller's: Numba for the CPU, Numba CUDA for a GPU, nothing in a simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["retyped"]


def retyped(function: Any, dtype: str, mathematics: ModuleType, wrap: Callable[[FunctionType], Any]) -> Any:
    """A scalar function at a dtype.

    Parameters
    ----------
    function : callable
        Of one number; one of ``math`` becomes that of ``mathematics``.
    dtype : str
        What numbers of type float become: constants, defaults, globals, and what a closure holds.
    mathematics : module
        What stands for ``math``, and for the functions of NumPy that both have.
    wrap : callable
        Compiles one function of Python; is called for each that ``function`` calls too, innermost first.

    >>> retyped(lambda z: z + 0.1, "float32", math, lambda function: function)(np.float32(0.0))
    np.float32(0.1)
    """
    return _Retyping(dtype, mathematics, wrap).value(function)


@dataclass(frozen=True)
class _Retyping:
    dtype: str
    mathematics: ModuleType
    wrap: Callable[[FunctionType], Any]
    made: dict[FunctionType, Any] = field(default_factory=dict)

    def value(self, value: Any) -> Any:
        """What a scalar function refers to: a number, ``math``, or a function of it."""
        value = getattr(value, "py_func", value)
        if isinstance(value, FunctionType):
            if value not in self.made:
                self.made[value] = None  # One that calls itself cannot be compiled so.
                self.made[value] = self.wrap(self.function(value))
            return self.made[value]
        if type(value) is float:
            return np.dtype(self.dtype).type(value)
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
        at, code, known = self.value, function.__code__, function.__globals__
        names = {name: at(known[name]) for name in code.co_names if name in known}
        constants: CodeType = code.replace(co_consts=tuple(map(at, code.co_consts)))
        found = FunctionType(
            constants,
            {"__builtins__": __builtins__, **names},
            function.__name__,
            tuple(map(at, function.__defaults__ or ())) or None,
            tuple(CellType(at(cell.cell_contents)) for cell in function.__closure__ or ()),
        )
        if function.__kwdefaults__:
            found.__kwdefaults__ = {name: at(value) for name, value in function.__kwdefaults__.items()}
        return found


@cache
def _numpy(mathematics: ModuleType) -> ModuleType:
    """NumPy, as far as it has functions of one number that we have too."""
    found = ModuleType("numpy")
    vars(found).update({name: value for name, value in vars(np).items() if not name.startswith("__")})
    ours = ("exp", "expm1", "log", "log1p", "tanh", "floor", "ceil", "trunc", "sqrt", "fabs")
    vars(found).update({name: getattr(mathematics, name) for name in ours}, abs=abs, absolute=abs)
    return found
