"""Large matrix products: both operands are packed, block by block, into the order in which tiles read them.

One kernel, ``gemm``, for any size: C = α op(A) op(B) + β C, all row-major, op being a transposition or
nothing. Tiles of the result, some rows by some vectors, are kept in registers. For each step k of the sum a
tile needs a column of A, one number a row, and a row of B, some vectors. So A is packed into strips
``[k][rows]`` and B into panels ``[k][columns]``, with k in blocks: a strip of A stays in the first level of
the cache while all panels of a block of B go by, which lie in the second; the other strips wait in the third.
What the blocks of k give is added up in C.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .emit import FLOATS, INT32, SIZE, WORD, Emitter

__all__ = ["GEMM", "gemm", "room"]

#: Words of the block. ``b``: a row that all rows of C begin with, where β is 0, or 0. ``ta``: A is held as
#: [k, m]; ``tb``: B is held as [n, k]. ``alpha``: the address of a float64. ``beta``: 0 or 1, and with 0 C is
#: not read. ``pack``: where :func:`room` bytes are, at a multiple of 64.
GEMM = ("A", "B", "C", "b", "M", "N", "K", "lda", "ldb", "ldc", "ta", "tb", "alpha", "beta", "pack")

#: Steps k of a block at most, and bytes of the strips of a block of A.
DEPTH, STRIPS = 256, 1 << 20

#: Bytes of the panels of a block of B for each byte of a vector: half a megabyte where vectors have 64.
PANELS = 1 << 13

#: Rows between what is copied and what is asked for meanwhile.
AHEAD = 4


class Shape:
    """The sizes of tiles and blocks.

    Attributes
    ----------
    high, vectors, wide
        A tile's rows, the vectors of a row and their elements.
    rows, columns, depth
        A block's rows and columns of C, and its steps of the sum, at most.
    """

    def __init__(self, dtype: str, lanes: int, registers: int) -> None:
        self.high, self.vectors = (8, 3) if registers >= 32 else (4, 3)
        self.lanes, self.wide, self.depth = lanes, self.vectors * lanes, DEPTH
        line = SIZE[dtype] * DEPTH
        self.rows = STRIPS // line // self.high * self.high
        self.columns = PANELS * SIZE[dtype] * lanes // line // self.wide * self.wide


def room(dtype: str, lanes: int, registers: int) -> int:
    """Bytes of scratch that a call needs, whatever its size."""
    shape = Shape(dtype, lanes, registers)
    return SIZE[dtype] * (shape.wide + (shape.rows + shape.columns) * shape.depth)


def gemm(module: ir.Module, dtype: str, lanes: int, registers: int) -> str:
    """The kernel ``gemm_{dtype}``."""
    shape = Shape(dtype, lanes, registers)
    high, wide, name = shape.high, shape.wide, f"gemm_{dtype}"
    heights = [1 << i for i in range(high.bit_length())]
    tiles = {
        (h, w): _tile(module, f"{name}_{h}x{w or 'all'}", dtype, shape, h, w)
        for h in heights
        for w in range(shape.vectors + 1)
    }
    copies = {span: _copy(module, f"{name}_copy{span}", dtype, lanes, span) for span in (high, wide)}
    turns = {span: _transpose(module, f"{name}_turn{span}", dtype, lanes, span) for span in (high, wide)}
    e = Emitter(module, name, dtype, lanes)
    A, B, C, b, M, N, K, lda, ldb, ldc, ta, tb, alpha, beta, pack = (e.given(i) for i in range(len(GEMM)))
    scale = e.b.load(e.b.inttoptr(alpha, ir.DoubleType().as_pointer()))
    if dtype == "float32":
        scale = e.b.fptrunc(scale, ir.FloatType())
    zero = e.word(0)
    nothing, strips = pack, e.at(pack, e.word(wide))
    panels = e.at(strips, e.word(shape.rows * shape.depth))
    for v in range(shape.vectors):
        e.store_vector(e.zeros(), nothing, e.word(v * lanes))

    def least(x: Any, y: Any) -> Any:
        """The smaller word."""
        return e.b.select(e.b.icmp_signed("<", x, y), x, y)

    def blocks(count: Any, most: int, multiple: int) -> tuple[Any, Any]:
        """How many blocks of at most so many, one at least, and the size that makes them much the same."""
        number = e.b.udiv(_rounded(e, count, most), e.word(most))
        number = e.b.select(e.b.icmp_signed("==", number, zero), e.word(1), number)
        size = e.b.udiv(e.b.add(count, e.b.sub(number, e.word(1))), number)
        return number, _rounded(e, size, multiple)

    def packed(span: int, along: Any, source: Any, ld: Any, part: tuple[Any, Any], into: Any) -> None:
        """Pack a block's part of an operand; ``along``: what is next to each other there is of one k."""
        first, count = part
        corner = e.b.select(along, e.b.add(e.b.mul(k, ld), first), e.b.add(e.b.mul(first, ld), k))
        call = e.b.select(along, copies[span], turns[span])
        e.b.call(call, [e.at(source, corner), ld, count, steps, into])

    def row(i: Any, strip: Any, height: int) -> None:
        """The tiles that a strip makes with each panel."""
        edge = e.at(C, e.b.add(e.b.mul(e.b.add(m, i), ldc), n))

        def tile(j: Any, width: int) -> None:
            """One of them."""
            out, bias = e.at(edge, j), e.at(b, e.b.add(n, j))
            start = e.b.select(e.b.icmp_signed("!=", b, zero), bias, nothing)
            start, stride = e.b.select(adds, out, start), e.b.select(adds, ldc, zero)
            panel, left = e.at(panels, e.b.mul(j, held)), e.b.sub(columns, j)
            e.b.call(tiles[height, width], [strip, panel, steps, out, ldc, start, stride, left, scale])

        whole = e.whole(zero, columns, wide)
        with e.loop(zero, whole, wide) as j:
            tile(j, 0)
        left = e.b.udiv(_rounded(e, e.b.sub(columns, whole), lanes), e.word(lanes))
        for width in range(1, shape.vectors + 1):
            with e.when(e.b.icmp_signed("==", left, e.word(width))):
                tile(whole, width)

    (downs, down), (deeps, deep) = blocks(M, shape.rows, high), blocks(K, shape.depth, lanes)
    acrosses, across = blocks(N, shape.columns, wide)
    with e.loop(zero, downs) as mi, e.loop(zero, deeps) as ki:
        m, k = e.b.mul(mi, down), e.b.mul(ki, deep)
        rows, steps = least(down, e.b.sub(M, m)), least(deep, e.b.sub(K, k))
        held = _rounded(e, steps, lanes)
        packed(high, e.b.icmp_signed("!=", ta, zero), A, lda, (m, rows), strips)
        adds = e.b.icmp_signed("!=", e.b.or_(k, beta), zero)
        end = e.whole(zero, rows, high)
        last, rest = e.at(strips, e.b.mul(end, held)), e.b.sub(rows, end)
        with e.loop(zero, acrosses) as ni:
            n = e.b.mul(ni, across)
            columns = least(across, e.b.sub(N, n))
            packed(wide, e.b.icmp_signed("==", tb, zero), B, ldb, (n, columns), panels)
            with e.loop(zero, end, high) as i:
                row(i, e.at(strips, e.b.mul(i, held)), high)
            for h in heights[:-1]:  # The rows that are left are a sum of powers of two, the largest first.
                with e.when(e.b.icmp_signed("!=", e.b.and_(rest, e.word(h)), zero)):
                    done = e.b.and_(rest, e.word(-2 * h))
                    row(e.b.add(end, done), e.at(last, done), h)
    e.finish()
    return name


def _rounded(e: Emitter, count: Any, multiple: int) -> Any:
    """A multiple that is no less."""
    more = e.b.add(count, e.word(multiple - 1))
    return e.b.sub(more, e.b.urem(more, e.word(multiple)))


def _tile(module: ir.Module, name: str, dtype: str, shape: Shape, height: int, width: int) -> ir.Function:
    """Rows of C by so many vectors, the last one in part, or by all (0): a start and α times the sum.

    The start is C itself or one row for all, so that its stride is ``ldo`` or 0.
    """
    e = Emitter(module, name, dtype, shape.lanes, [WORD] * 8 + [FLOATS[dtype]])
    e.function.linkage = "internal"
    e.function.attributes.add("noinline")
    strip, panel, K, out, ldo, start, stride, columns, alpha = e.function.args
    at = [e.word(v * shape.lanes) for v in range(width or shape.vectors)]
    masks = [None for _ in at]
    if width:
        e.function.attributes.add("optsize")
        masks[-1] = e.first(e.b.sub(columns, at[-1]))
    rows = [e.at(out, e.b.mul(ldo, e.word(i))) for i in range(height)]
    sums = [[e.variable(e.zeros()) for _ in at] for _ in rows]
    for row in rows:  # They come while the sums are made.
        for step in at:
            e.prefetch(e.at(row, step), level=1, write=True)
    left, right = e.variable(strip), e.variable(panel)
    with e.loop(e.word(0), K):
        column, line = e.b.load(left), e.b.load(right)
        values = [e.load_vector(line, step) for step in at]
        for i, totals in enumerate(sums):
            factor = e.spread(e.load(column, e.word(i)))
            for value, total in zip(values, totals, strict=True):
                e.b.store(e.fma(factor, value, e.b.load(total)), total)
        e.b.store(e.at(column, e.word(shape.high)), left)
        e.b.store(e.at(line, e.word(shape.wide)), right)
    scale = e.spread(alpha)
    for i, (row, totals) in enumerate(zip(rows, sums, strict=True)):
        begin = e.at(start, e.b.mul(stride, e.word(i)))
        for step, total, mask in zip(at, totals, masks, strict=True):
            old = e.load_vector(begin, step, mask)
            e.store_vector(e.fma(scale, e.b.load(total), old), row, step, mask)
    e.finish()
    return e.function


def _copy(module: ir.Module, name: str, dtype: str, lanes: int, span: int) -> ir.Function:
    """``source[steps, count]`` into spans ``[k][span]``, each with room for whole vectors of k."""
    e = Emitter(module, name, dtype, min(span, lanes), [WORD] * 5)
    e.function.linkage = "internal"
    source, ld, count, steps, into = e.function.args
    held, whole = _rounded(e, steps, lanes), e.whole(e.word(0), count, e.lanes)
    with e.loop(e.word(0), steps) as k:
        row, place = e.at(source, e.b.mul(k, ld)), e.at(into, e.b.mul(k, e.word(span)))

        def piece(j: Any, mask: Any = None) -> None:
            """A vector of a row."""
            e.prefetch(e.at(row, e.b.add(j, e.b.mul(ld, e.word(AHEAD)))), level=2)
            within = e.b.urem(j, e.word(span))
            at = e.b.add(e.b.mul(e.b.sub(j, within), held), within)
            e.store_vector(e.load_vector(row, j, mask), place, at)

        with e.loop(e.word(0), whole, e.lanes) as j:
            piece(j)
        with e.when(e.b.icmp_signed("<", whole, count)):
            piece(whole, e.first(e.b.sub(count, whole)))
    e.finish()
    return e.function


def _transpose(module: ir.Module, name: str, dtype: str, lanes: int, span: int) -> ir.Function:
    """``source[count, steps]`` into such spans; where rows are missing at the end, the last one is taken."""
    e = Emitter(module, name, dtype, lanes, [WORD] * 5)
    e.function.linkage = "internal"
    source, ld, count, steps, into = e.function.args
    held, whole = _rounded(e, steps, lanes), e.whole(e.word(0), steps, lanes)
    group, last = min(span, lanes), e.b.sub(count, e.word(1))
    with e.loop(e.word(0), count, group) as first:
        within = e.b.urem(first, e.word(span))
        place = e.at(into, e.b.add(e.b.mul(e.b.sub(first, within), held), within))
        numbers = [e.b.add(first, e.word(i)) for i in range(group)]
        numbers = [e.b.select(e.b.icmp_signed("<", r, last), r, last) for r in numbers]
        rows = [e.at(source, e.b.mul(ld, r)) for r in numbers]

        def piece(k: Any, mask: Any = None) -> None:
            """A vector of each row; the next rows are asked for."""
            for row in rows:
                e.prefetch(e.at(row, e.b.add(k, e.b.mul(ld, e.word(group)))), level=2)
            columns = _columns(e, [e.load_vector(row, k, mask) for row in rows])
            for i, vector in enumerate(columns):
                e.store_vector(vector, place, e.b.mul(e.b.add(k, e.word(i * lanes // group)), e.word(span)))

        with e.loop(e.word(0), whole, lanes) as k:
            piece(k)
        with e.when(e.b.icmp_signed("<", whole, steps)):
            piece(whole, e.first(e.b.sub(steps, whole)))
    e.finish()
    return e.function


def _columns(e: Emitter, rows: list[Any]) -> list[Any]:
    """The columns of vectors, end to end: half of the vectors are threaded through the others, repeatedly."""
    kind, half = ir.VectorType(INT32, e.lanes), len(rows) // 2
    threads = [[at + i // 2 + i % 2 * e.lanes for i in range(e.lanes)] for at in (0, e.lanes // 2)]
    for _ in range(half.bit_length()):
        pairs = zip(rows[:half], rows[half:], strict=True)
        rows = [e.b.shuffle_vector(p, q, ir.Constant(kind, at)) for p, q in pairs for at in threads]
    return rows
