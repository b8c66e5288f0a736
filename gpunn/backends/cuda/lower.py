"""From an op to what the device does: launches of kernels and matrix products.

Nothing here touches a GPU. How many threads run an op depends on its shapes alone: sums are added in one
order on every device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...activations import OWN
from ...errors import unknown_name
from ...philox import threshold
from ...program import Program
from ...slots import Op
from .catalogue import REAL, Kernel, kernel
from .generated import Generated

__all__ = ["LOWER", "PRODUCTS", "Launch", "Limits", "Lowering", "Product", "Scratch"]

#: Threads of a warp; blocks are whole warps.
WARP = 32

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


#: A slot's name, room, a number of C's type, or an operand that is absent.
Argument = str | Scratch | np.generic | None


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: Kernel | Generated
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Product:
    """out = left right, or out += left right, of row-major matrices, each perhaps transposed."""

    left: str
    right: str
    out: str
    left_transposed: bool = False
    right_transposed: bool = False
    accumulate: bool = False


Step = Launch | Product


def written_by() -> str:
    """What the σ and σ′ kernels are made from: CUDA C++, unless GPUNN_CUDA_KERNELS=numba."""
    chosen = os.environ.get("GPUNN_CUDA_KERNELS", "c++")
    if chosen not in ("c++", "numba"):
        raise unknown_name("GPUNN_CUDA_KERNELS", chosen, ["c++", "numba"])
    return chosen


class Lowering:
    """What a program's ops become."""

    def __init__(self, program: Program, limits: Limits | None = None) -> None:
        self.program = program
        self.limits = limits or Limits()

    def steps(self, op: Op) -> list[Step]:
        """What an op becomes: nothing where it has no elements to write."""
        return LOWER[op.name](self, op)

    def shape(self, slot: str | None) -> tuple[int, ...]:
        """A slot's dimensions."""
        return tuple(d or 0 for d in self.program.slots[str(slot)].shape)

    def size(self, slot: str | None) -> int:
        """A slot's number of elements."""
        return math.prod(self.shape(slot))

    def real(self, slot: str | None) -> str:
        """A slot's dtype in CUDA C++."""
        return REAL[self.program.slots[str(slot)].dtype]

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
    return np.int32(rows), np.int32(columns)


# ------------------------------------------------------------------ the minibatch


def gather(low: Lowering, op: Op) -> list[Step]:
    """Rows of the data, as bytes."""
    rows = low.shape(op.outs[0])[0]
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
    """x Wᵀ, then + b."""
    x, weights, bias = (str(s) for s in op.ins)
    z = str(op.outs[0])
    product = Product(x, weights, z, right_transposed=True)
    return [product, biased(low, z, bias, z, "identity", keep=False)]


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
    """σ, or σ′ in place: from the table of sigma.cuh, or generated from the scalar definition."""
    slot, sigma = op.outs[0], op.attrs["sigma"]
    n = low.size(slot)
    made: Kernel | Generated
    if sigma in OWN and written_by() == "c++":
        made = kernel(op.name, low.real(slot), f"sigma::{sigma}")
    else:
        made = Generated(op.name, sigma, low.program.slots[str(slot)].dtype)
    return [low.flat(made, n, low.width(slot), (*op.ins, *op.outs, np.int64(n)))]


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
    return [Product(delta, weights, str(op.outs[0]), accumulate=bool(op.attrs.get("accumulate")))]


def grad_weight(low: Lowering, op: Op) -> list[Step]:
    """δᵀ x (BP4)."""
    delta, x = (str(s) for s in op.ins)
    accumulate = bool(op.attrs.get("accumulate"))
    return [Product(delta, x, str(op.outs[0]), left_transposed=True, accumulate=accumulate)]


def grad_bias(low: Lowering, op: Op) -> list[Step]:
    """Σ_batch δ (BP3), of stretches of the rows where there are many."""
    delta, out = op.ins[0], op.outs[0]
    rows, columns = low.shape(delta)
    accumulate = np.int32(bool(op.attrs.get("accumulate")))
    packs = columns // low.width(delta) if columns % low.width(delta) == 0 else columns
    across = max(1, min(low.limits.blocks, -(-packs // WARP)))
    splits = max(1, min(rows // (8 * DOWN), low.limits.partial // across))
    made = kernel("column_sums", low.real(delta))
    block = (WARP, DOWN)
    if splits == 1:
        return [Launch(made, (across,), block, (delta, out, np.int32(rows), np.int32(columns), accumulate))]
    room = Scratch(splits * columns * np.dtype(low.program.slots[str(delta)].dtype).itemsize)
    return [
        Launch(
            made, (across, splits), block, (delta, room, np.int32(rows), np.int32(columns), np.int32(False))
        ),
        Launch(made, (across,), block, (room, out, np.int32(splits), np.int32(columns), accumulate)),
    ]


# ------------------------------------------------------------------ costs

#: Costs that are sums over numbers: the functor of losses.cu, and what their sum is divided by beside Σw.
COSTS: Mapping[str, tuple[str, Callable[[int], float]]] = {
    "quadratic": ("cost::squared", lambda columns: 2.0),
    "mean_squared_error": ("cost::squared", float),
    "mean_absolute_error": ("cost::absolute", float),
    "huber": ("cost::huber", float),
    "binary_cross_entropy": ("cost::binary_cross_entropy", lambda columns: 1.0),
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


def schedule(low: Lowering, op: Op) -> list[Step]:
    """The learning rate of the step, by one thread."""
    return [single(kernel("schedule"), (*op.ins, *op.outs))]


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
    "dropout": dropout,
    "dropout_grad": dropout_grad,
    "weight_penalty": weight_penalty,
    "clip_by_norm": clip_by_norm,
    "sum_absolute": sum_absolute,
    "tally": tally,
    "schedule": schedule,
    "advance": advance,
    **dict.fromkeys(("activate", "activate_grad"), scalar),
    **dict.fromkeys(("add", "copy"), elementwise),
    **dict.fromkeys(("one_hot", "softmax", "softmax_grad", "argmax"), by_rows),
    **dict.fromkeys((*COSTS, "softmax_cross_entropy", "softmax_cross_entropy_targets"), loss),
    **dict.fromkeys(("count_correct", "count_top_k", "count_exact", "confusion"), counted),
    **dict.fromkeys(("confusion_by_output", "moments"), by_columns),
    **dict.fromkeys(UPDATES, update),
}
