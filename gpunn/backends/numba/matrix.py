"""The ops that are matrix products, alone or with what is folded into them.

Small products are tiles of rows that lie where they are (:mod:`products`), found through a table of
addresses, so that a minibatch is not even copied. Larger ones pack what they read (:mod:`gemm`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...fusion import Pattern
from ...program import Program
from ...slots import Op
from .gemm import room
from .lower import LINE, Given, Lowering, Scalar
from .walk import At, Rows, Word

__all__ = ["PRODUCTS", "large", "patterns_for", "sizes"]

#: Where packing pays: the least of the three sizes, and the multiply-adds; fewer where a row of the inputs is
#: short, whose sums would mostly be added up across vectors.
LEAST, LIMIT = 64, 8_000_000
SHORT, SHORT_LIMIT = 128, 1_000_000

GATHER = Pattern("gather", "linear|linear_grad_weight", into_all=True)
SIGMA = (Pattern("linear", "activate"), Pattern("gather+linear", "activate"))
SIGMA_PRIME = (Pattern("linear_grad_input", "activate_grad"),)
UPDATE = (
    Pattern("linear_grad_weight", "sgd", split=True),
    Pattern("gather+linear_grad_weight", "sgd", split=True),
    Pattern("linear_grad_bias", "sgd", split=True),
)


def sizes(program: Program, op: Op) -> tuple[int, int, int]:
    """Batch, outputs and inputs of a product; zeros for what is none."""
    if op.name not in ("linear", "linear_grad_input", "linear_grad_weight"):
        return 0, 0, 0
    (batch, one), (_, other) = (program.slots[str(s)].shape for s in op.ins[:2])
    if op.name == "linear":
        one, other = program.slots[str(op.outs[0])].shape[1], one
    return int(batch or 0), int(one or 0), int(other or 0)


def large(batch: int, units: int, inputs: int) -> bool:
    """Whether a product is one for :mod:`gemm`."""
    limit = SHORT_LIMIT if inputs <= SHORT else LIMIT
    return min(batch, units, inputs) >= LEAST and batch * units * inputs > limit


def patterns_for(program: Program) -> tuple[Pattern, ...]:
    """What runs as one here: data are read where they lie, unless they have to be packed anyway."""
    gathered = {s for op in program.ops if op.name == "gather" for s in op.outs}
    packed = any(gathered & set(op.ins) and large(*sizes(program, op)) for op in program.ops)
    return (*(() if packed else (GATHER,)), *SIGMA, *SIGMA_PRIME, *UPDATE)


class Source:
    """The rows that a product takes: those of a slot, or of the data through a permutation."""

    def __init__(self, low: Lowering, rows: int, columns: int, slot: str, gather: Op | None = None) -> None:
        self.low, self.rows, self.columns, self.slot, self.gather = low, rows, columns, slot, gather

    def tables(self) -> tuple[Word, Word]:
        """Where the addresses of the rows are, and of those that come next (0: nothing is known of them)."""
        low = self.low
        if self.gather is None:
            return Rows(self.slot, self.rows, self.columns * low.itemsize(self.slot)), 0
        X, perm, cursor = (str(slot) for slot in self.gather.ins)
        own = low.program.slots[X].dtype
        if low.dtype(X) != own:
            size = self.rows * self.columns
            copied = low.scratch(size, own)
            given = [low.open(X), low.open(perm), low.array(cursor), low.table(copied, size, own)]
            low.body("gather", [*given, low.value(self.columns), low.value(0, "first")])
            stride = self.columns * np.dtype(own).itemsize
            rows = np.arange(self.rows, dtype=np.int64) * stride + copied
            low.kept.append(rows)
            return int(rows.ctypes.data), 0
        table, ahead = low.scratch(self.rows), low.scratch(self.rows)
        tables = [low.table(table, self.rows), low.table(ahead, self.rows)]
        stride = self.columns * low.itemsize(X)
        given = [low.word(At(X)), low.value(stride), low.open(perm), low.array(cursor)]
        low.body("addresses", [*given, *tables])
        return table, ahead


def _gemm(
    low: Lowering,
    shape: tuple[int, int, int],
    operands: tuple[tuple[Word, int], tuple[Word, int], tuple[Word, int]],
    *,
    dtype: str,
    bias: Word = 0,
    transposed: tuple[int, int] = (0, 0),
    alpha: int | None = None,
    add: bool = False,
) -> None:
    """One call of :mod:`gemm`: sizes M, N, K; A, B and C with their leading dimensions."""
    processor = low.code.processor
    lanes = processor.width // np.dtype(dtype).itemsize
    pack = low.pack(room(dtype, lanes, processor.registers))
    (A, lda), (B, ldb), (C, ldc) = operands
    scale = low.one() if alpha is None else alpha
    words: list[Word] = [A, B, C, bias, *shape, lda, ldb, ldc, *transposed, scale, int(add), pack]
    low.product("gemm", dtype, words)


def _gather(low: Lowering, op: Op) -> None:
    X, perm, cursor = (str(slot) for slot in op.ins)
    x = str(op.outs[0])
    rows = low.shape(x)[0]
    columns = low.size(x) // max(1, rows)
    for part in low.share(rows):
        given = [low.open(X), low.open(perm), low.array(cursor)]
        target = low.array(x, (part[0] * columns, part[1] * columns), flat=True)
        low.body("gather", [*given, target, low.value(columns), low.value(part[0], "first")])


def _times(low: Lowering, source: Source, W: str, b: str, z: str) -> None:
    """z = x Wᵀ + b, its rows complete for their walkers."""
    (batch, units), (_, inputs), dtype = low.shape(z), low.shape(W), low.dtype(z)
    if source.gather is not None or not large(batch, units, inputs):
        for start, stop in low.share(batch):
            rows, ahead = source.tables()
            words: list[Word] = [rows, At(W), At(b), At(z), start, stop, units, inputs, units, ahead]
            low.product("dots", dtype, words)
        return
    size, by_rows = low.itemsize(z), batch >= units
    for start, stop in low.share(batch if by_rows else units, LINE):
        if by_rows:
            shape = (stop - start, units, inputs)
            x, w, own = At(source.slot, start * inputs * size), At(W), At(b)
            out = At(z, start * units * size)
        else:
            shape = (batch, stop - start, inputs)
            x, w, own = At(source.slot), At(W, start * inputs * size), At(b, start * size)
            out = At(z, start * size)
        operands = (x, inputs), (w, inputs), (out, units)
        _gemm(low, shape, operands, dtype=dtype, bias=own, transposed=(0, 1))
    low.meet()


def _linear(low: Lowering, op: Op) -> None:
    """z = x Wᵀ + b, and a = σ(z): with gather, x is read where it lies."""
    parts = list(op.parts or (op,))
    gather = parts.pop(0) if parts[0].name == "gather" else None
    linear, sigma = parts[0], (parts[1] if len(parts) > 1 else None)
    x, W, b = (str(slot) for slot in linear.ins)
    z = str(linear.outs[0])
    a = z if sigma is None else str(sigma.outs[0])
    batch, inputs = low.shape(z)[0], low.shape(W)[1]
    out = a if sigma is not None and z not in op.writes else z
    _times(low, Source(low, batch, inputs, x, gather), W, b, out)
    if sigma is not None:
        for part in low.share(batch):
            given = low.absent() if low.one_place(out, a) else _flat(low, out, part)
            low.body("activate", [given, _flat(low, a, part), low.tail(a), _sigma(low, sigma)])


def _flat(low: Lowering, slot: str, rows: tuple[int, int]) -> Given:
    """Rows of a slot as one run of elements."""
    columns = low.size(slot) // low.shape(slot)[0]
    return low.array(slot, (rows[0] * columns, rows[1] * columns), flat=True)


def _sigma(low: Lowering, op: Op) -> Given:
    return low.value(Scalar(op.attrs["sigma"], op.name == "activate_grad", low.dtype(str(op.outs[0]))))


def _combine(
    low: Lowering,
    rows: Word,
    c: str,
    out: str,
    sizes: tuple[int, int, int, int],
    strides: tuple[int, int],
    alpha: int,
    beta: int,
) -> None:
    """out[m, k] = β out + α Σₛ c[m, s] x[s, k]; sizes (from m, to m, s, k), strides of c along m and s."""
    *m, s, k = sizes
    words: list[Word] = [rows, At(c), At(out), *m, s, k, *strides, k, alpha, beta]
    low.product("combine", low.dtype(out), words)


def _grad_input(low: Lowering, op: Op) -> None:
    """δ W, and times σ′."""
    parts = op.parts or (op,)
    delta, W = (str(slot) for slot in parts[0].ins)
    out, dtype = str(parts[0].outs[0]), low.dtype(str(parts[0].outs[0]))
    (batch, units), (_, inputs), size = low.shape(delta), low.shape(W), low.itemsize(out)
    add = bool(op.attrs.get("accumulate"))
    if not large(batch, units, inputs):
        for part in low.share(batch):
            rows = Rows(W, units, inputs * size)
            one = low.one()
            _combine(low, rows, delta, out, (*part, units, inputs), (units, 1), one, int(add))
    else:
        by_rows = batch >= inputs
        for start, stop in low.share(batch if by_rows else inputs, LINE):
            if by_rows:
                shape = (stop - start, inputs, units)
                d, w, to = At(delta, start * units * size), At(W), At(out, start * inputs * size)
            else:
                shape = (batch, stop - start, units)
                d, w, to = At(delta), At(W, start * size), At(out, start * size)
            _gemm(low, shape, ((d, units), (w, inputs), (to, inputs)), dtype=dtype, add=add)
        low.meet()
    if len(parts) > 1:
        y = str(parts[1].ins[0])
        for part in low.share(batch):
            given = [_flat(low, y, part), _flat(low, out, part), low.tail(out), _sigma(low, parts[1])]
            low.body("activate_grad", given)


def _grad_weight(low: Lowering, op: Op) -> None:
    """δᵀ x, or W − lr δᵀ x at once."""
    parts = list(op.parts or (op,))
    gather = parts.pop(0) if parts[0].name == "gather" else None
    product, update = parts[0], (parts[1] if len(parts) > 1 else None)
    delta, x = (str(slot) for slot in product.ins)
    out = str((update or product).outs[0])
    dtype, size = low.dtype(out), low.itemsize(out)
    units, inputs = low.shape(str(product.outs[0]))
    batch = low.shape(delta)[0]
    add = bool(op.attrs.get("accumulate")) or update is not None
    tiles = gather is not None or not large(batch, units, inputs)
    by_units = tiles or units >= inputs or update is not None
    for start, stop in low.share(units if by_units else inputs, 1 if tiles else LINE):
        alpha, beta = low.one(), int(add)
        if update is not None:
            alpha, pull = _rates(low, update)
            if tiles and pull:
                beta = pull
            else:
                _shrink(low, update, out, (start * inputs, stop * inputs))
        if tiles:
            rows, _ = Source(low, batch, inputs, x, gather).tables()
            _combine(low, rows, delta, out, (start, stop, batch, inputs), (1, units), alpha, beta)
            continue
        if by_units:
            shape = (stop - start, inputs, batch)
            d, v, to = At(delta, start * size), At(x), At(out, start * inputs * size)
        else:
            shape = (units, stop - start, batch)
            d, v, to = At(delta), At(x, start * size), At(out, start * size)
        operands = (d, units), (v, inputs), (to, inputs)
        _gemm(low, shape, operands, dtype=dtype, transposed=(1, 0), alpha=alpha, add=add)


def _shrink(low: Lowering, update: Op, out: str, part: tuple[int, int]) -> None:
    """What penalties and decay do to the weights."""
    terms = {name: name in update.attrs.get("terms", ()) for name in ("l1", "l2", "decay")}
    if any(terms.values()) and update.attrs["weights"]:
        named = [low.value(value, name) for name, value in terms.items()]
        low.body("shrink", [low.array(out, part, flat=True), low.array(str(update.ins[1])), *named])


def _rates(low: Lowering, update: Op) -> tuple[int, int]:
    """Where −lr is put at each step, and what the weights are pulled by where that is a multiple of them."""
    terms = set(update.attrs.get("terms", ())) & {"l1", "l2", "decay"} if update.attrs["weights"] else set()
    rates = low.scratch(2, "float64")
    named = [low.value(name in terms, name) for name in ("l2", "decay")]
    low.body("rates_of_step", [low.array(str(update.ins[1])), low.table(rates, 2, "float64"), *named])
    return rates, rates + 8 if terms and "l1" not in terms else 0


def _bias_step(low: Lowering, op: Op) -> None:
    """b − lr Σ_batch δ."""
    product, update = op.parts
    delta, b = str(product.ins[0]), str(update.outs[0])
    dtype = low.dtype(b)
    for start, stop in low.share(low.size(b), LINE):
        size = stop - start
        sums = low.table(low.scratch(size, dtype), size, dtype)
        span = [low.value(start, "start"), low.value(stop, "stop")]
        low.body("bias_step", [low.array(delta), sums, low.array(str(update.ins[1])), low.array(b), *span])


PRODUCTS: dict[str, Callable[[Lowering, Op], None]] = {
    "gather": _gather,
    "linear": _linear,
    "linear_grad_input": _grad_input,
    "linear_grad_weight": _grad_weight,
    "linear+activate": _linear,
    "gather+linear": _linear,
    "gather+linear+activate": _linear,
    "linear_grad_input+activate_grad": _grad_input,
    "linear_grad_weight+sgd": _grad_weight,
    "gather+linear_grad_weight": _grad_weight,
    "gather+linear_grad_weight+sgd": _grad_weight,
    "linear_grad_bias+sgd": _bias_step,
}
