"""From an op to what the device does: launches of kernels and matrix products.

Nothing here touches a GPU. How many threads run an op depends on its shapes alone: sums are added in one
order on every device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...activations import OWN
from ...errors import ProgramError, unknown_name
from ...fusion import Pattern
from ...ops import cost_bounds
from ...philox import threshold
from ...program import Program
from ...slots import Op
from .catalogue import REAL, Kernel, kernel
from .cublaslt import Matmul
from .generated import Generated

__all__ = [
    "LOWER",
    "PRODUCTS",
    "Launch",
    "Limits",
    "Lowering",
    "Product",
    "Rates",
    "Scratch",
    "patterns_for",
]

#: Threads of a warp; blocks are whole warps.
WARP = 32

#: Rows or columns of a matrix, at most.
LARGEST = 2**31 - 2**23

#: Threads that share a column in column_sums, as in sums.cu.
DOWN = 8

#: The terms of an update as bits, as in hyper.cuh.
TERMS = {"l1": 1, "l2": 2, "decay": 4, "clip": 8}

#: Ops that are matrix products, which a library computes: no kernel of ours.
PRODUCTS = ("linear", "linear_grad_input", "linear_grad_weight")


@dataclass(frozen=True)
class Limits:
    """How many threads an op may use.

    Attributes
    ----------
    threads
        A block's, at most; a multiple of 32.
    blocks
        A launch's, at most: kernels stride over what is beyond.
    partial
        Blocks that leave a partial sum each.
    """

    threads: int = 256
    blocks: int = 4096
    partial: int = 512


@dataclass(frozen=True)
class Scratch:
    """So many bytes that an op needs while it runs; all ops share them."""

    nbytes: int


@dataclass(frozen=True)
class Rates:
    """The two numbers α and β of a product that an update is folded into, of a dtype; all such share them."""

    dtype: str


#: A slot's name, room, a number of C's type, or an operand that is absent.
Argument = str | Scratch | Rates | np.generic | None


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: Kernel | Generated
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Product:
    """A matrix product of slots.

    Attributes
    ----------
    matmul
        Its sizes, and whether bias or ReLU follow in one.
    left, right, out, bias
        Slots.
    accumulate
        Whether it is added to what is there.
    rates
        Where α and β are, if they are not 1 and 0 (or 1).
    """

    matmul: Matmul
    left: str
    right: str
    out: str
    bias: str | None = None
    accumulate: bool = False
    rates: Rates | None = None


Step = Launch | Product

SIGMA = Pattern("linear", "activate")
UPDATE = (
    Pattern("linear_grad_weight", "sgd", split=True),
    Pattern("linear_grad_bias", "sgd", split=True),
)


def patterns_for(program: Program) -> tuple[Pattern, ...]:
    """What runs as one here; the update only where it is a scaled sum, which l1 is not."""
    folds = all("l1" not in op.attrs.get("terms", ()) for op in program.ops if op.name == "sgd")
    return (SIGMA, *UPDATE) if folds else (SIGMA,)


def written_by() -> str:
    """What the σ and σ′ kernels are made from: CUDA C++, unless GPUNN_CUDA_KERNELS=numba."""
    chosen = os.environ.get("GPUNN_CUDA_KERNELS", "c++")
    if chosen not in ("c++", "numba"):
        raise unknown_name("GPUNN_CUDA_KERNELS", chosen, ["c++", "numba"])
    return chosen


class Lowering:
    """What a program's ops become.

    Parameters
    ----------
    program : Program
        After fusion.
    limits : Limits, optional
        How many threads an op may use.
    offers : callable, optional
        Whether there is an algorithm for a product with bias or ReLU in one; none unless given.
    precision : str
        Of products in float32: ``"float32"`` or ``"tf32"``.
    """

    def __init__(
        self,
        program: Program,
        limits: Limits | None = None,
        offers: Callable[[Matmul], bool] = lambda product: False,
        precision: str = "float32",
    ) -> None:
        self.program = program
        self.limits = limits or Limits()
        self.offers = offers
        self.precision = precision
        self._rated: set[str | None] = set()

    def steps(self, op: Op) -> list[Step]:
        """What an op becomes."""
        if op.name not in LOWER:
            raise ProgramError(f"{op.label or op.name}: the cuda backend has no kernel for op {op.name!r}")
        found = LOWER[op.name](self, op)
        self._rated -= op.writes
        return found

    def rates(self, update: Op, dtype: str) -> tuple[Rates, list[Step]]:
        """α = −lr and β of an update that is folded into a product, and what has to find them first."""
        rates, words = Rates(dtype), update.ins[1]
        if words in self._rated:
            return rates, []
        self._rated.add(words)
        terms = np.int32(sum(TERMS[term] for term in update.attrs.get("terms", ())))
        made = kernel("fold_rates", REAL[dtype])
        return rates, [single(made, (words, rates, terms))]

    def product(self, op: Op, transposed: tuple[bool, bool], rows: int, columns: int, inner: int) -> Matmul:
        """The sizes of an op's product."""
        dtype = self.program.slots[str(op.ins[0])].dtype
        return Matmul(rows, columns, inner, dtype, *transposed, precision=self.precision)

    def shape(self, slot: str | None) -> tuple[int, ...]:
        """A slot's dimensions."""
        return tuple(d or 0 for d in self.program.slots[str(slot)].shape)

    def size(self, slot: str | None) -> int:
        """A slot's number of elements."""
        return math.prod(self.shape(slot))

    def real(self, slot: str | None) -> str:
        """A slot's dtype in CUDA C++."""
        return REAL[self.program.slots[str(slot)].dtype]

    def size_of(self, rows: int, columns: int) -> tuple[np.int32, np.int32]:
        """Rows and columns as a kernel takes them, which counts in 32 bits, to a stride beyond the last."""
        if max(rows, columns) > LARGEST:
            raise ProgramError(
                f"a matrix of {rows} rows and {columns} columns is too large for a GPU kernel, which takes "
                f"{LARGEST} of each: use smaller batches"
            )
        return np.int32(rows), np.int32(columns)

    def width(self, slot: str | None) -> int:
        """Elements of 16 bytes."""
        return 16 // np.dtype(self.program.slots[str(slot)].dtype).itemsize

    def flat(self, made: Kernel | Generated, n: int, width: int, arguments: Sequence[Argument]) -> Launch:
        """A launch over n numbers, a pack of 16 bytes a thread."""
        packs = -(-n // width)
        blocks = max(1, min(self.limits.blocks, -(-packs // self.limits.threads)))
        return Launch(made, (blocks,), (self.limits.threads,), tuple(arguments))

    def lines(self, made: Kernel, count: int, length: int, arguments: Sequence[Argument]) -> Launch:
        """A launch with a block for each of ``count`` rows or columns of a length."""
        threads = min(self.limits.threads, -(-max(length, 1) // WARP) * WARP)
        return Launch(made, (max(1, min(self.limits.blocks, count)),), (threads,), tuple(arguments))

    def one_block(self, made: Kernel, count: int, arguments: Sequence[Argument]) -> Launch:
        """A launch of one block over ``count`` numbers."""
        threads = min(self.limits.threads, -(-max(count, 1) // WARP) * WARP)
        return Launch(made, (1,), (threads,), tuple(arguments))

    def partial(self, n: int, width: int) -> int:
        """How many blocks leave a partial sum of n numbers: each thread adds eight packs before more come."""
        return max(1, min(self.limits.partial, -(-n // (width * self.limits.threads * 8))))


def single(made: Kernel, arguments: Sequence[Argument]) -> Launch:
    """A launch of one thread."""
    return Launch(made, (1,), (1,), tuple(arguments))


def matrix(low: Lowering, slot: str | None) -> tuple[np.int32, np.int32]:
    """Rows and columns as a kernel takes them."""
    rows, columns = low.shape(slot)
    return low.size_of(rows, columns)


# ------------------------------------------------------------------ the minibatch


def gather(low: Lowering, op: Op) -> list[Step]:
    """Rows of the data, as bytes."""
    rows = low.shape(op.outs[0])[0]
    low.size_of(rows, 1)
    slot = low.program.slots[str(op.outs[0])]
    nbytes = slot.nbytes // rows if rows else 0
    threads = min(low.limits.threads, -(-max(nbytes // 16, 1) // WARP) * WARP)
    across = max(1, min(low.limits.blocks, rows))
    down = max(1, min(low.limits.blocks // across, -(-nbytes // 16 // threads)))
    arguments = (*op.ins, *op.outs, np.int32(rows), np.int64(nbytes))
    return [Launch(kernel("gather"), (across, down), (threads,), arguments)]


def by_rows(low: Lowering, op: Op) -> list[Step]:
    """An op over rows that do not know of each other: its operands, then their rows and columns."""
    shaped = next(s for s in (*op.ins, *op.outs) if s and len(low.shape(s)) == 2)
    rows, columns = matrix(low, shaped)
    made = kernel(op.name, low.real(shaped))
    arguments = (*op.ins, *op.outs, rows, columns)
    return [low.lines(made, int(rows), int(columns), arguments)]


# ------------------------------------------------------------------ forward and backward


def linear(low: Lowering, op: Op) -> list[Step]:
    """x Wᵀ + b, and σ of it: in one where the library can, else one more pass."""
    first, *rest = op.parts or (op,)
    x, weights, bias = (str(s) for s in first.ins)
    z, sigma = str(first.outs[0]), rest[0].attrs["sigma"] if rest else "identity"
    a = str(rest[0].outs[0]) if rest else z
    kept = bool(rest) and z in op.writes
    out = z if kept else a
    (rows, inner), columns = low.shape(x), low.shape(weights)[0]
    product = Product(low.product(first, (False, True), rows, columns, inner), x, weights, out)
    epilogue = {"identity": "bias", "relu": "relu"}.get(sigma)
    if epilogue and not kept:
        joined = replace(product.matmul, epilogue=epilogue)
        if low.offers(joined):
            return [replace(product, matmul=joined, bias=bias)]
    if not rest or (sigma in OWN and written_by() == "c++"):
        return [product, biased(low, out, bias, a, sigma, keep=kept)]
    return [product, biased(low, out, bias, out, "identity", keep=False), *activated(low, rest[0], out)]


def biased(low: Lowering, z: str, bias: str, a: str, sigma: str, *, keep: bool) -> Launch:
    """a = σ(z + b); z ← z + b where it is kept."""
    rows, columns = low.shape(z)
    width = low.width(z) if columns % low.width(z) == 0 else 1
    packs = max(1, columns // width)
    across = min(low.limits.threads, 1 << (packs - 1).bit_length())
    down = low.limits.threads // across
    grid = max(1, min(low.limits.blocks, -(-packs // across)))
    made = kernel("bias_activate", low.real(z), f"sigma::{sigma}")
    arguments = (z, bias, a, *matrix(low, z), np.int32(keep))
    height = max(1, min(low.limits.blocks // grid, -(-rows // down)))
    return Launch(made, (grid, height), (across, down), arguments)


def scalar(low: Lowering, op: Op) -> list[Step]:
    """σ, or σ′ in place."""
    return activated(low, op, op.ins[0])


def activated(low: Lowering, op: Op, source: str | None) -> list[Step]:
    """σ or σ′ from the table of sigma.cuh, or generated from the scalar definition."""
    slot, sigma = op.outs[0], op.attrs["sigma"]
    n = low.size(slot)
    made: Kernel | Generated
    if sigma in OWN and written_by() == "c++":
        made = kernel(op.name, low.real(slot), f"sigma::{sigma}")
    else:
        made = Generated(op.name, sigma, low.program.slots[str(slot)].dtype)
    return [low.flat(made, n, low.width(slot), (source, slot, np.int64(n)))]


def dropout(low: Lowering, op: Op) -> list[Step]:
    """Masks and what they leave."""
    slot, rate = op.outs[0], op.attrs["rate"]
    n = low.size(slot)
    numbers = (np.float64(1 / (1 - rate)), np.uint64(threshold(rate)), np.int32(op.attrs["layer"]))
    made = kernel("dropout", low.real(slot))
    return [low.flat(made, n, 4, (*op.ins, *op.outs, np.int64(n), *numbers))]


def dropout_grad(low: Lowering, op: Op) -> list[Step]:
    """δ where the mask is."""
    slot = op.outs[0]
    n = low.size(slot)
    arguments = (*op.ins, *op.outs, np.int64(n), np.float64(1 / (1 - op.attrs["rate"])))
    return [low.flat(kernel("dropout_grad", low.real(slot)), n, low.width(slot), arguments)]


def elementwise(low: Lowering, op: Op) -> list[Step]:
    """A sum, or a copy; adding to what is there is a sum in place."""
    slot = op.outs[0]
    n = low.size(slot)
    if op.attrs.get("accumulate"):
        made, given = kernel("add", low.real(slot)), (*op.ins, *op.outs, *op.outs)
    else:
        made, given = kernel(op.name, low.real(slot)), (*op.ins, *op.outs)
    return [low.flat(made, n, low.width(slot), (*given, np.int64(n)))]


def grad_input(low: Lowering, op: Op) -> list[Step]:
    """δ W (BP2)."""
    delta, weights = (str(s) for s in op.ins)
    (rows, inner), columns = low.shape(delta), low.shape(weights)[1]
    matmul = low.product(op, (False, False), rows, columns, inner)
    accumulate = bool(op.attrs.get("accumulate"))
    return [Product(matmul, delta, weights, str(op.outs[0]), accumulate=accumulate)]


def grad_weight(low: Lowering, op: Op) -> list[Step]:
    """δᵀ x (BP4), or W β − lr δᵀ x at once."""
    first, *rest = op.parts or (op,)
    delta, x = (str(s) for s in first.ins)
    (inner, rows), columns = low.shape(delta), low.shape(x)[1]
    matmul = low.product(first, (True, False), rows, columns, inner)
    if not rest:
        accumulate = bool(op.attrs.get("accumulate"))
        return [Product(matmul, delta, x, str(first.outs[0]), accumulate=accumulate)]
    rates, before = low.rates(rest[0], matmul.dtype)
    return [*before, Product(matmul, delta, x, str(rest[0].outs[0]), rates=rates)]


def grad_bias(low: Lowering, op: Op) -> list[Step]:
    """Σ_batch δ (BP3), of stretches of the rows where there are many; or b − lr Σ at once."""
    first, *rest = op.parts or (op,)
    delta, out = first.ins[0], (rest or [first])[0].outs[0]
    words = rest[0].ins[1] if rest else None
    rows, columns = low.shape(delta)
    accumulate = np.int32(bool(op.attrs.get("accumulate")))
    packs = columns // low.width(delta) if columns % low.width(delta) == 0 else columns
    across = max(1, min(low.limits.blocks, -(-packs // WARP)))
    splits = max(1, min(rows // (8 * DOWN), low.limits.partial // across))
    made = kernel("column_sums", low.real(delta))
    block, (all_rows, many) = (WARP, DOWN), low.size_of(rows, columns)
    if splits == 1:
        return [Launch(made, (across,), block, (delta, out, all_rows, many, accumulate, words))]
    room = Scratch(splits * columns * np.dtype(low.program.slots[str(delta)].dtype).itemsize)
    return [
        Launch(made, (across, splits), block, (delta, room, all_rows, many, np.int32(0), None)),
        Launch(made, (across,), block, (room, out, np.int32(splits), many, accumulate, words)),
    ]


# ------------------------------------------------------------------ costs

#: Costs that are sums over numbers: the functor of losses.cu, and what their sum is divided by beside Σw.
COSTS: Mapping[str, tuple[str, Callable[[int], float]]] = {
    "quadratic": ("cost::squared", lambda columns: 2.0),
    "mean_squared_error": ("cost::squared", float),
    "mean_absolute_error": ("cost::absolute", float),
    "huber": ("cost::huber", float),
    "binary_cross_entropy": ("cost::binary_cross_entropy", lambda columns: 1.0),
    "poisson": ("cost::poisson", lambda columns: 1.0),
}


def loss(low: Lowering, op: Op) -> list[Step]:
    """Σw where the examples have weights, what each row costs, and the mean."""
    a, target, weights = op.ins
    total, delta = op.outs
    rows, columns = matrix(low, a)
    room, real = Scratch(8 * int(rows)), low.real(a)
    arguments: list[Argument] = [a, target, weights, total, room, delta, rows, columns]
    if op.name in COSTS:
        functor, divided_by = COSTS[op.name]
        parts = divided_by(int(columns))
        made = kernel("row_costs", real, functor)
        arguments.append(np.float64(parts))
    else:
        made, parts = kernel(op.name, real), 1.0
    if op.name != "softmax_cross_entropy_targets":
        arguments += map(np.float64, cost_bounds(op.attrs))
    found: list[Step] = []
    if weights:
        found.append(low.one_block(kernel("mass_of", real), int(rows), (weights, total, rows)))
    found.append(low.lines(made, int(rows), int(columns), arguments))
    weighted = np.int32(weights is not None)
    mean = (room, total, rows, np.float64(parts), weighted)
    return [*found, low.one_block(kernel("mean_cost"), int(rows), mean)]


# ------------------------------------------------------------------ sums


def partial_sums(
    low: Lowering,
    name: str,
    inputs: Sequence[str | None],
    n: int,
    each: int,
    last: Callable[[Scratch, int], Launch],
) -> list[Step]:
    """A kernel that leaves ``each`` sums a block over the first n of its inputs, and what adds them up."""
    blocks = low.partial(n, low.width(inputs[0]))
    room = Scratch(8 * each * blocks)
    arguments = (*inputs, room, np.int64(n))
    first = Launch(kernel(name, low.real(inputs[0])), (blocks,), (low.limits.threads,), arguments)
    return [first, last(room, blocks)]


def weight_penalty(low: Lowering, op: Op) -> list[Step]:
    """½ l2 Σw² + l1 Σ|w| over the weights, the first elements of Θ."""
    terms = np.int32(sum(TERMS[term] for term in op.attrs["terms"]))

    def last(room: Scratch, blocks: int) -> Launch:
        arguments = (room, op.ins[1], op.outs[0], np.int32(blocks), terms)
        return low.one_block(kernel("weight_penalty"), blocks, arguments)

    n = min(op.attrs["weights"], low.size(op.ins[0]))
    return partial_sums(low, "absolute_and_square", op.ins[:1], n, 2, last)


def clip_by_norm(low: Lowering, op: Op) -> list[Step]:
    """The norm of ∇C, and the scale that clips it."""

    def last(room: Scratch, blocks: int) -> Launch:
        return low.one_block(kernel("clip_scale"), blocks, (room, op.outs[0], np.int32(blocks)))

    return partial_sums(low, "square_norm", op.ins, low.size(op.ins[0]), 2, last)


def sum_absolute(low: Lowering, op: Op) -> list[Step]:
    """Σ|y − t|, and how many there are."""
    n = low.size(op.ins[0])

    def last(room: Scratch, blocks: int) -> Launch:
        arguments = (room, op.outs[0], np.int32(blocks), np.int64(n))
        return low.one_block(kernel("sum_absolute"), blocks, arguments)

    return partial_sums(low, "absolute_differences", op.ins, n, 1, last)


def tally(low: Lowering, op: Op) -> list[Step]:
    """The running cost, by one thread."""
    return [single(kernel("tally"), (*op.ins, *op.outs))]


def numbers(op: Op) -> list[Argument]:
    """The attribute of a metric."""
    if "k" in op.attrs:
        return [np.int64(op.attrs["k"])]
    return [np.float64(op.attrs["threshold"])] if "threshold" in op.attrs else []


def counted(low: Lowering, op: Op) -> list[Step]:
    """A metric over rows, with its attribute behind them."""
    rows, columns = matrix(low, op.ins[0])
    arguments = (*op.ins, *op.outs, rows, columns, *numbers(op))
    return [low.lines(kernel(op.name, low.real(op.ins[0])), int(rows), int(columns), arguments)]


def by_columns(low: Lowering, op: Op) -> list[Step]:
    """A metric of each column."""
    rows, columns = matrix(low, op.ins[0])
    arguments = (*op.ins, *op.outs, rows, columns, *numbers(op))
    return [low.lines(kernel(op.name, low.real(op.ins[0])), int(columns), int(rows), arguments)]


# ------------------------------------------------------------------ updates

#: Op to kernel, and what follows the type.
UPDATES: Mapping[str, tuple[str, ...]] = {
    "sgd": ("sgd",),
    "momentum": ("momentum", "false"),
    "nesterov": ("momentum", "true"),
    "adam": ("adam",),
    "rmsprop": ("adaptive", "true"),
    "adagrad": ("adaptive", "false"),
}


def update(low: Lowering, op: Op) -> list[Step]:
    """One pass over the flat Θ."""
    theta = op.outs[-1]
    n = low.size(theta)
    name, *flags = UPDATES[op.name]
    terms = np.int32(sum(TERMS[term] for term in op.attrs.get("terms", ())))
    arguments = (*op.ins, *op.outs, np.int64(n), np.int64(op.attrs["weights"]), terms)
    return [low.flat(kernel(name, low.real(theta), *flags), n, low.width(theta), arguments)]


def of_step(low: Lowering, op: Op) -> list[Step]:
    """A number of the step, by one thread."""
    return [single(kernel(op.name), (*op.ins, *op.outs))]


def count_examples(low: Lowering, op: Op) -> list[Step]:
    """The number of rows, by one thread."""
    (rows,) = low.shape(op.ins[0])
    return [single(kernel(op.name), (*op.outs, low.size_of(rows, 1)[0]))]


def advance(low: Lowering, op: Op) -> list[Step]:
    """The counters, by one thread."""
    return [single(kernel("advance"), (*op.outs, np.int64(op.attrs["rows"])))]


Lower = Callable[[Lowering, Op], list[Step]]

#: Op to what makes its launches and products.
LOWER: dict[str, Lower] = {
    "gather": gather,
    "linear": linear,
    "linear_grad_input": grad_input,
    "linear_grad_weight": grad_weight,
    "linear_grad_bias": grad_bias,
    "linear+activate": linear,
    "linear_grad_weight+sgd": grad_weight,
    "linear_grad_bias+sgd": grad_bias,
    "dropout": dropout,
    "dropout_grad": dropout_grad,
    "weight_penalty": weight_penalty,
    "clip_by_norm": clip_by_norm,
    "sum_absolute": sum_absolute,
    "tally": tally,
    **dict.fromkeys(("schedule", "l2_of_batch", "epsilon_of_step"), of_step),
    "advance": advance,
    "count_examples": count_examples,
    **dict.fromkeys(("activate", "activate_grad"), scalar),
    **dict.fromkeys(("add", "copy"), elementwise),
    **dict.fromkeys(("one_hot", "softmax", "softmax_grad", "argmax"), by_rows),
    **dict.fromkeys((*COSTS, "softmax_cross_entropy", "softmax_cross_entropy_targets"), loss),
    **dict.fromkeys(("count_correct", "count_top_k", "count_exact", "confusion"), counted),
    **dict.fromkeys(("confusion_by_output", "moments"), by_columns),
    **dict.fromkeys(UPDATES, update),
}
