"""Matrix products of small networks: tiles of the result are kept in registers.

Two kernels, each for any size. Rows of the data are found through a table of addresses, so that a minibatch
is read where it lies: what would be gathered is never copied.

``dots``: out[r, j] = Σₖ x[r, k] W[j, k] + b[j]. Both run along k; sums over k stay in vectors until the end.
``combine``: out[m, k] = β out[m, k] + α Σₛ c[m, s] x[s, k]. δᵀ x and δ W, with the update of W folded in; the
word ``beta`` is 0 (β = 0: out is not read), 1 (β = 1), or the address of a float64 γ, small (β = 1 + γ).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .emit import FLOATS, WORD, Emitter
from .gemm import gemm

#: Words of the blocks.
DOTS = ("rows", "W", "b", "out", "r0", "r1", "units", "K", "ldo", "ahead")
COMBINE = ("rows", "c", "out", "m0", "m1", "S", "K", "cm", "cs", "ldo", "alpha", "beta")

#: A tile's rows by its outputs, and rows by vectors, where there are 32 registers.
TILE, COMBINED = (5, 4), (6, 4)

#: Rows of the next minibatch that a tile of the first layer asks for while it works.
AHEAD = 2


def dots(module: ir.Module, dtype: str, lanes: int, registers: int) -> str:
    """The kernel ``dots_{dtype}``."""
    high, wide = TILE if registers >= 32 else (3, 3)
    name = f"dots_{dtype}"
    for r in range(1, high + 1):
        for j in range(1, wide + 1):
            _dot_tile(module, f"{name}_{r}x{j}", dtype, lanes, r, j)
    e = Emitter(module, name, dtype, lanes)
    rows, W, b, out, r0, r1, units, K, ldo, ahead = (e.given(i) for i in range(len(DOTS)))

    def column(r: Any, height: int) -> None:
        table = e.b.add(rows, e.b.mul(r, e.word(8)))
        corner = e.at(out, e.b.mul(r, ldo))
        # Each tile asks for as many rows of the next minibatch as bring all of them here in time.
        due = e.variable(e.word(0))

        def next_row() -> Any:
            row = e.b.load(due)
            e.b.store(e.b.add(row, e.word(1)), due)
            some = e.b.and_(
                e.b.icmp_signed("<", row, e.word(height)), e.b.icmp_signed("!=", ahead, e.word(0))
            )
            place = e.b.select(some, e.b.add(ahead, e.b.mul(e.b.add(r, row), e.word(8))), table)
            return e.load_word(place, e.word(0))

        def tile(j: Any, width: int) -> None:
            call = module.globals[f"{name}_{height}x{width}"]
            wanted = [next_row() for _ in range(AHEAD)]
            e.b.call(call, [table, e.at(W, e.b.mul(j, K)), e.at(b, j), e.at(corner, j), K, ldo, *wanted])

        e.tiles(e.word(0), units, wide, tile)

    e.tiles(r0, r1, high, column)
    e.finish()
    return name


def _dot_tile(module: ir.Module, name: str, dtype: str, lanes: int, height: int, width: int) -> None:
    e = Emitter(module, name, dtype, lanes, [WORD] * (6 + AHEAD))
    e.function.linkage = "internal"
    table, W, b, out, K, ldo, *wanted = e.function.args
    x = [e.load_word(table, e.word(r)) for r in range(height)]
    w = [e.at(W, e.b.mul(K, e.word(j))) for j in range(width)]
    sums = [[e.variable(e.zeros()) for _ in w] for _ in x]

    def add(k: Any, mask: Any = None) -> None:
        columns = [e.load_vector(base, k, mask) for base in w]
        for base, row in zip(x, sums, strict=True):
            value = e.load_vector(base, k, mask)
            for column, place in zip(columns, row, strict=True):
                e.b.store(e.fma(value, column, e.b.load(place)), place)

    whole = e.whole(e.word(0), K, lanes)
    with e.loop(e.word(0), whole, lanes) as k:
        for base in wanted:
            e.prefetch(e.at(base, k), level=2)
        add(k)
    with e.when(e.b.icmp_signed("<", whole, K)):
        add(whole, e.first(e.b.sub(K, whole)))
    found = iter(e.totals([e.b.load(place) for row in sums for place in row]))
    for r in range(height):
        for j in range(width):
            value = e.b.fadd(next(found), e.load(b, e.word(j)))
            e.store(value, out, e.b.add(e.b.mul(ldo, e.word(r)), e.word(j)))
    e.finish()


def combine(module: ir.Module, dtype: str, lanes: int, registers: int) -> str:
    """The kernel ``combine_{dtype}``."""
    high, wide = COMBINED if registers >= 32 else (6, 2)
    name = f"combine_{dtype}"
    for m in range(1, high + 1):
        _combine_tile(module, f"{name}_{m}x{wide}", dtype, lanes, m, wide, masked=False)
        _combine_tile(module, f"{name}_{m}x1", dtype, lanes, m, 1, masked=True)
    e = Emitter(module, name, dtype, lanes)
    rows, c, out, m0, m1, S, K, cm, cs, ldo, alpha, beta = (e.given(i) for i in range(len(COMBINE)))
    scale = e.b.load(e.b.inttoptr(alpha, ir.DoubleType().as_pointer()))
    if dtype == "float32":
        scale = e.b.fptrunc(scale, ir.FloatType())
    chunk = wide * lanes
    shrinks = e.b.icmp_unsigned(">", beta, e.word(1))
    ones = e.b.select(shrinks, beta, alpha)
    gamma = e.b.load(e.b.inttoptr(ones, ir.DoubleType().as_pointer()))
    if dtype == "float32":
        gamma = e.b.fptrunc(gamma, ir.FloatType())
    gamma = e.b.select(shrinks, gamma, ir.Constant(FLOATS[dtype], 0.0))

    def strips(k: Any, width: int) -> None:
        """All rows of the result, where x is of these columns: they stay in the cache meanwhile."""

        def tile(m: Any, height: int) -> None:
            call = module.globals[f"{name}_{height}x{width}"]
            coefficients, corner = e.at(c, e.b.mul(m, cm)), e.at(out, e.b.mul(m, ldo))
            e.b.call(call, [rows, coefficients, corner, k, S, K, cm, cs, ldo, scale, gamma, beta])

        e.tiles(m0, m1, high, tile)

    last = e.whole(e.word(0), K, chunk)
    with e.loop(e.word(0), last, chunk) as k:
        strips(k, wide)
    with e.loop(last, K, lanes) as k:
        strips(k, 1)
    e.finish()
    return name


def _combine_tile(
    module: ir.Module, name: str, dtype: str, lanes: int, height: int, width: int, *, masked: bool
) -> None:
    e = Emitter(module, name, dtype, lanes, [WORD] * 9 + [FLOATS[dtype]] * 2 + [WORD])
    e.function.linkage = "internal"
    rows, c, out, k, S, K, cm, cs, ldo, alpha, gamma, beta = e.function.args
    mask = e.first(e.b.sub(K, k)) if masked else None
    sums = [[e.variable(e.zeros()) for _ in range(width)] for _ in range(height)]
    places = [e.at(out, e.b.add(k, e.b.mul(ldo, e.word(m)))) for m in range(height)]
    steps = [e.word(v * lanes) for v in range(width)]
    for place in places:  # They come while the sums are made.
        for step in steps:
            e.prefetch(e.at(place, step), level=1, write=True)
    with e.loop(e.word(0), S) as s:
        base = e.at(e.load_word(rows, s), k)
        values = [e.load_vector(base, step, mask) for step in steps]
        column = e.at(c, e.b.mul(s, cs))
        for m, row in enumerate(sums):
            factor = e.spread(e.load(column, e.b.mul(cm, e.word(m))))
            for value, total in zip(values, row, strict=True):
                e.b.store(e.fma(factor, value, e.b.load(total)), total)
    scale, pull = e.spread(alpha), e.spread(gamma)
    with e.b.if_else(e.b.icmp_signed("!=", beta, e.word(0))) as (adds, writes):
        with adds:
            for place, row in zip(places, sums, strict=True):
                for step, total in zip(steps, row, strict=True):
                    old = e.load_vector(place, step, mask)
                    kept = e.fma(pull, old, old)  # 1 + γ by itself would round γ away.
                    e.store_vector(e.fma(scale, e.b.load(total), kept), place, step, mask)
        with writes:
            for place, row in zip(places, sums, strict=True):
                for step, total in zip(steps, row, strict=True):
                    e.store_vector(e.b.fmul(scale, e.b.load(total)), place, step, mask)
    e.finish()


KERNELS = {"dots": dots, "combine": combine, "gemm": gemm}
