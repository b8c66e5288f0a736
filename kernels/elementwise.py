"""Kernels over every element of an array, in Numba CUDA: made from a scalar σ or σ′, compiled by gpunn.

A kernel takes two device addresses and a length. Where both addresses are multiples of 16, four elements a
thread are read and written at a time, 16 bytes an instruction; the rest one by one. The loops stride over the
grid: any grid is right for any length.

In Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``) arrays of NumPy stand for addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numba.cuda
from numba.cuda.core import config

__all__ = ["activate", "activate_grad"]

cuda: Any = numba.cuda
Scalar = Callable[[Any], Any]
Kernel = Callable[[Any, Any, Any], None]

if config.ENABLE_CUDASIM:

    def address(p: Any) -> int:
        """Where an array lies."""
        return int(p.ctypes.data)

    def load(p: Any, i: int) -> Any:
        """Four elements from p[i] on."""
        if address(p) % 16 or i % 4:
            raise ValueError(f"misaligned load of element {i} at {address(p):#x}")
        return p[i], p[i + 1], p[i + 2], p[i + 3]

    def store(p: Any, i: int, a: Any, b: Any, c: Any, d: Any) -> None:
        """Four elements to p[i] and what follows."""
        if address(p) % 16 or i % 4:
            raise ValueError(f"misaligned store of element {i} at {address(p):#x}")
        p[i], p[i + 1], p[i + 2], p[i + 3] = a, b, c, d

    def opaque(i: int) -> int:
        """The same number."""
        return i

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    types: Any = import_module("numba.cuda.types")

    def _lane(number: int) -> Any:
        return ir.Constant(ir.IntType(32), number)

    def _group(builder: Any, p: Any, i: Any, kind: Any) -> Any:
        return builder.bitcast(builder.gep(p, [i]), ir.VectorType(kind, 4).as_pointer())

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def address(typing: Any, p: Any) -> Any:
        """The address as a number."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ptrtoint(arguments[0], ir.IntType(64))

        return types.int64(p), codegen

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def load(typing: Any, p: Any, i: Any) -> Any:
        """Four elements from p[i] on, by loads of 16 bytes."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            found = builder.load(
                _group(builder, arguments[0], arguments[1], context.get_data_type(p.dtype)), align=16
            )
            lanes = [builder.extract_element(found, _lane(number)) for number in range(4)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(p.dtype, 4)(p, types.int64), codegen

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def store(typing: Any, p: Any, i: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        """Four elements to p[i] and what follows, by stores of 16 bytes."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_data_type(p.dtype)
            group = ir.Constant(ir.VectorType(kind, 4), ir.Undefined)
            for number, value in enumerate(arguments[2:]):
                group = builder.insert_element(group, value, _lane(number))
            builder.store(group, _group(builder, arguments[0], arguments[1], kind), align=16)
            return context.get_dummy_value()

        return types.void(p, types.int64, *[p.dtype] * 4), codegen

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def opaque(typing: Any, i: Any) -> Any:
        """The same number, of which the compiler knows nothing.

        Else it counts the turns of a loop before it starts, with a division of 64 bits, to unroll it; but no
        load may pass a store, since a may be z.
        """

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            return builder.asm(ir.FunctionType(word, [word]), "mov.b64 $0, $1;", "=l,l", arguments, False)

        return types.int64(types.int64), codegen


def activate(sigma: Scalar) -> Kernel:
    """The kernel aᵢ = σ(zᵢ), for i = 0 … n − 1; a may be z."""

    def kernel(z: Any, a: Any, n: Any) -> None:
        first, step = cuda.grid(1), cuda.gridsize(1)
        whole = n & -4 if (address(z) | address(a)) & 15 == 0 else 0
        i = 4 * first
        while i < whole:
            z0, z1, z2, z3 = load(z, i)
            store(a, i, sigma(z0), sigma(z1), sigma(z2), sigma(z3))
            i = opaque(i + 4 * step)
        i = whole + first
        while i < n:
            a[i] = sigma(z[i])
            i = opaque(i + step)

    return kernel


def activate_grad(prime: Scalar) -> Kernel:
    """The kernel δᵢ ← δᵢ σ′(yᵢ), for i = 0 … n − 1, with y = a or z, whichever σ′ takes."""

    def kernel(y: Any, delta: Any, n: Any) -> None:
        first, step = cuda.grid(1), cuda.gridsize(1)
        whole = n & -4 if (address(y) | address(delta)) & 15 == 0 else 0
        i = 4 * first
        while i < whole:
            y0, y1, y2, y3 = load(y, i)
            d0, d1, d2, d3 = load(delta, i)
            store(delta, i, d0 * prime(y0), d1 * prime(y1), d2 * prime(y2), d3 * prime(y3))
            i = opaque(i + 4 * step)
        i = whole + first
        while i < n:
            delta[i] = delta[i] * prime(y[i])
            i = opaque(i + step)

    return kernel
