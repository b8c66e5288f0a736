"""From an op to the calls that do it: which kernel, what its block holds, and which walker makes the call."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from ...activations import activation
from ...ops import OPS, OWN, Rule, cost_bounds, rule
from ...philox import threshold
from ...program import Program
from ...slots import Op
from ..host import aligned
from . import bodies, products
from .code import Code
from .walk import At, Call, Size, Team, Word

__all__ = ["Argument", "Given", "Lowering", "Scalar", "general"]


@dataclass(frozen=True)
class Scalar:
    """A constant of a body: σ or σ′ of an activation, at a dtype."""

    activation: str
    prime: bool
    dtype: str

    @property
    def function(self) -> Callable[[float], float]:
        """The definition."""
        row = activation(self.activation)
        return row.sigma_prime if self.prime else row.sigma

    @property
    def own(self) -> bool:
        """Whether it is gpunn's: its source is part of what the folder of kernels is named by."""
        function: Any = self.function
        name = getattr(function, "__name__", "")
        return activation.__globals__.get(name) is function

    def __str__(self) -> str:
        if self.own:
            return str(self.function.__name__).strip("_")
        return f"sigma@{number_of(self.function)}"


_NUMBERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_COUNT = count()
_BUILT_IN: dict[int, tuple[Any, int]] = {}


def number_of(function: Callable[..., Any]) -> int:
    """A number that no other function of this process has; a function may share its name with others."""
    try:
        return _NUMBERS.setdefault(function, next(_COUNT))
    except TypeError:  # No weak reference to it; kept, so that its place in memory stays its own.
        return _BUILT_IN.setdefault(id(function), (function, next(_COUNT)))[1]


@dataclass(frozen=True)
class Argument:
    """An argument of a body: an array (dtype, number of dimensions), a number (no dimensions), a constant.

    A number is ``"int64"`` or ``"float64"``; a constant has no dtype.
    """

    dtype: str | None
    ndim: int | None = None
    constant: Any = None
    name: str | None = None

    def __str__(self) -> str:
        if self.dtype is None:
            return str(self.constant)
        return self.dtype if self.ndim is None else f"{self.dtype}x{self.ndim}"


#: An argument and the words of the block that it takes.
Given = tuple[Argument, list[Word]]


class Lowering:
    """The calls of a program, as they are made.

    Attributes
    ----------
    walker
        Whose call the next one is.
    lists
        What the op at hand has become so far, a list for each walker.
    kept
        Scratch that has to live as long as the calls.
    data
        The dtypes of data that are not what the program says (memory maps of another dtype).
    offsets
        Where slots begin in the workspace; those of one place are not in use at one time.
    """

    def __init__(
        self,
        program: Program,
        code: Code,
        team: Team,
        data: Mapping[str, str],
        offsets: Mapping[str, int],
    ) -> None:
        self.program, self.code, self.team, self.data, self.offsets = program, code, team, data, offsets
        self.walker = 0
        self.lists: list[list[Call]] = []
        self._packs: dict[int, Any] = {}
        self.kept: list[Any] = []

    # ---------------------------------------------------------------- slots

    def shape(self, slot: str) -> tuple[int, ...]:
        """A slot's dimensions."""
        return tuple(d or 0 for d in self.program.slots[slot].shape)

    def dtype(self, slot: str) -> str:
        """A slot's dtype."""
        return self.data.get(slot, self.program.slots[slot].dtype)

    def size(self, slot: str) -> int:
        """A slot's number of elements."""
        return math.prod(self.shape(slot))

    def itemsize(self, slot: str) -> int:
        """The bytes of one element."""
        return np.dtype(self.dtype(slot)).itemsize

    def scratch(self, size: int, dtype: str = "int64") -> int:
        """The address of so many numbers, zero at first."""
        made = np.zeros(size, dtype)
        self.kept.append(made)
        return int(made.ctypes.data)

    def pack(self, nbytes: int) -> int:
        """Where so many bytes are to pack matrices into, one place for all products of a walker."""
        if self.walker not in self._packs:
            self._packs[self.walker] = aligned(nbytes)
        return int(self._packs[self.walker].ctypes.data)

    def one(self) -> int:
        """The address of a 1 in float64."""
        made = np.ones(1)
        self.kept.append(made)
        return int(made.ctypes.data)

    # ---------------------------------------------------------------- walkers

    @property
    def walkers(self) -> int:
        """How many there are."""
        return self.team.walkers

    def begin(self) -> None:
        """Begin another op."""
        self.lists = [[] for _ in range(self.walkers)]

    def share(self, count: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """A range of ``count`` for each walker, whose calls are made meanwhile; empty ranges are left out."""
        step = -(-count // (self.walkers * multiple)) * multiple
        for walker in range(self.walkers):
            start, stop = min(count, walker * step), min(count, (walker + 1) * step)
            self.walker = walker
            if start < stop:
                yield start, stop
        self.walker = 0

    def meet(self) -> None:
        """Nobody goes on before everybody is here."""
        if self.walkers > 1:
            for calls in self.lists:
                calls.append(self.team.meeting())

    # ---------------------------------------------------------------- calls

    def call(self, address: int, words: list[Word]) -> None:
        """Call the kernel at that address."""
        self.lists[self.walker].append(Call(address, words))

    def array(self, slot: str | None, rows: tuple[int, int] | None = None, *, flat: bool = False) -> Given:
        """A slot as an argument, whole or a range of its rows (flat: of its elements)."""
        if slot is None:
            return self.absent()
        shape = (self.size(slot),) if flat else self.shape(slot)
        offset = 0
        if rows is not None:
            offset = rows[0] * math.prod(shape[1:]) * self.itemsize(slot)
            shape = (rows[1] - rows[0], *shape[1:])
        return Argument(self.dtype(slot), len(shape)), [At(slot, offset), *shape]

    def open(self, slot: str) -> Given:
        """Data of a size that is known when they are bound, flat."""
        return Argument(self.dtype(slot), 1), [At(slot), Size(slot)]

    def table(self, address: int, count: int, dtype: str = "int64") -> Given:
        """Numbers at an address."""
        return Argument(dtype, 1), [address, count]

    def absent(self) -> Given:
        """An operand that is not there."""
        return Argument(None), []

    def one_place(self, slot: str, other: str) -> bool:
        """Whether two slots are the same memory, one being dead when the other is written."""
        (root, offset), (other_root, other_offset) = self.program.place(slot), self.program.place(other)
        same = root == other_root or (
            root in self.offsets and self.offsets[root] == self.offsets.get(other_root)
        )
        return same and offset == other_offset

    def tail(self, slot: str) -> Given:
        """Room for the elements that are left over when vectors of a slot's dtype have been filled."""
        dtype = self.dtype(slot)
        return self.table(self.scratch(2 * LINE, dtype), 2 * LINE, dtype)

    def word(self, word: Word) -> Given:
        """A whole number, or an address."""
        return Argument("int64"), [word]

    def value(self, value: Any, name: str | None = None) -> Given:
        """An attribute: a number of the block, or a constant."""
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if whole and -(2**63) <= value < 2**63:
            return Argument("int64", name=name), [int(value)]
        if isinstance(value, (float, np.floating)):
            return Argument("float64", name=name), [float(value)]
        return Argument(None, constant=value, name=name), []

    def body(self, name: str, given: list[Given]) -> None:
        """Call the body of that name, compiled for such arguments."""
        self.compiled(name, getattr(bodies, name), given, keep=True)

    def compiled(self, name: str, function: Callable[..., None], given: list[Given], *, keep: bool) -> None:
        """Call a function, compiled for such arguments; ``keep``: it is gpunn's own."""
        kinds = [argument for argument, _ in given]
        symbol = "-".join([name, *map(str, kinds)]) if keep else f"{name}-{_digest(kinds)}"
        own = all(k.constant.own for k in kinds if isinstance(k.constant, Scalar))

        def make() -> Any:
            from .frontend import compiled

            return compiled(symbol, function, kinds)

        address = self.code.address(symbol, make, keep=keep and own)
        self.call(address, [word for _, words in given for word in words])

    def product(self, name: str, dtype: str, words: list[Word]) -> None:
        """Call a kernel of :mod:`products`."""

        def make() -> Any:
            processor = self.code.processor
            module = ir.Module(name)
            module.triple = llvm.get_process_triple()
            lanes = processor.width // np.dtype(dtype).itemsize
            products.KERNELS[name](module, dtype, lanes, processor.registers)
            return llvm.parse_assembly(str(module))

        self.call(self.code.address(f"{name}_{dtype}", make), words)


def _digest(kinds: list[Argument]) -> str:
    """A name for arguments of any names, and constants of any kind."""
    found = hashlib.sha256()
    for kind in kinds:
        value = kind.constant
        told = (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        found.update(repr((kind.name, kind.dtype, kind.ndim, type(value).__name__, told)).encode())
    return found.hexdigest()[:16]


# ------------------------------------------------------------------ ops that are one body


def _terms(op: Op) -> dict[str, Any]:
    found = set(op.attrs.get("terms", ()))
    return {"weights": op.attrs["weights"], **{term: term in found for term in ("l1", "l2", "decay", "clip")}}


#: Attributes of ops as keywords of their bodies, where they differ.
ATTRIBUTES: Mapping[str, Callable[[Op], dict[str, Any]]] = {
    "dropout": lambda op: {**op.attrs, "least": threshold(op.attrs["rate"])},
    "dropout_grad": lambda op: {"rate": op.attrs["rate"]},
    "activate": lambda op: {},
    "activate_grad": lambda op: {},
    "copy": lambda op: {"accumulate": bool(op.attrs.get("accumulate"))},
    "linear_grad_bias": lambda op: {"accumulate": bool(op.attrs.get("accumulate"))},
    "weight_penalty": lambda op: {k: v for k, v in _terms(op).items() if k in ("weights", "l1", "l2")},
    "sgd": _terms,
    "momentum": lambda op: {**_terms(op), "ahead": False},
    "nesterov": lambda op: {**_terms(op), "ahead": True},
    "adam": _terms,
    "rmsprop": lambda op: {**_terms(op), "forget": True},
    "adagrad": lambda op: {**_terms(op), "forget": False},
    "clip_by_norm": lambda op: {},
    "binary_cross_entropy": lambda op: dict(zip(("least", "most"), cost_bounds(op.attrs), strict=True)),
    "softmax_cross_entropy": lambda op: dict(zip(("least", "most"), cost_bounds(op.attrs), strict=True)),
}

#: Ops that share a body.
BODIES = {"nesterov": "momentum", "rmsprop": "adaptive", "adagrad": "adaptive"}

#: Elements that one walker's range is a multiple of: a cache line has one owner, a block of Philox too.
LINE = bodies.LINE


def keywords(op: Op) -> dict[str, Any]:
    """An op's attributes as its body knows them."""
    return ATTRIBUTES[op.name](op) if op.name in ATTRIBUTES else dict(op.attrs)


def attributes(low: Lowering, op: Op) -> list[Given]:
    """The same as arguments."""
    return [low.value(value, name) for name, value in keywords(op).items()]


#: Ops whose operands are taken flat although their signature gives them dimensions.
FLAT = ("sum_absolute",)


def operands(
    low: Lowering, op: Op, entry: Rule, part: tuple[int, int] | None = None, *, shaped: bool = False
) -> list[Given]:
    """The operands in the order of the signature, of flat ones the part; ``shaped``: none is made flat."""
    given = []
    for operand, slot in zip((*entry.inputs, *entry.outputs), (*op.ins, *op.outs), strict=True):
        open_ended = not shaped and (op.name in FLAT or any(d.startswith("*") for d in operand.dims))
        cut = part if open_ended or operand.dims == ("P",) else None
        given.append(low.array(slot, cut, flat=open_ended))
    return given


def general(low: Lowering, op: Op) -> None:
    """One body, by one walker."""
    low.body(BODIES.get(op.name, op.name), operands(low, op, rule(op.name)) + attributes(low, op))


def elementwise(low: Lowering, op: Op) -> None:
    """One body over flat operands, each walker over a range of them."""
    entry = rule(op.name)
    size = low.size(str(op.outs[0]))
    for part in low.share(size, LINE):
        given = operands(low, op, entry, part)
        found = keywords(op)
        if "weights" in found:
            found["weights"] = max(0, min(part[1] - part[0], found["weights"] - part[0]))
        if op.name == "dropout":
            found["first"] = part[0] // 4
        given += [low.value(value, name) for name, value in found.items()]
        if op.name == "activate" and low.one_place(str(op.ins[0]), str(op.outs[0])):
            given[0] = low.absent()
        if op.name in ("activate", "activate_grad"):
            dtype = low.dtype(str(op.outs[0]))
            given.append(low.tail(str(op.outs[0])))
            given.append(low.value(Scalar(op.attrs["sigma"], op.name == "activate_grad", dtype)))
        low.body(BODIES.get(op.name, op.name), given)


def by_rows(low: Lowering, op: Op) -> None:
    """One body over rows that do not know of each other."""
    rows = low.shape(str(op.outs[0]))[0]
    for part in low.share(rows):
        given = [low.array(slot, part) for slot in (*op.ins, *op.outs)]
        low.body(op.name, given + scratch_row(low, op) + attributes(low, op))


#: Ops that need room for one row of float64.
ROW = ("softmax", "softmax_cross_entropy", "softmax_cross_entropy_targets")


def scratch_row(low: Lowering, op: Op) -> list[Given]:
    """Room for one row of float64, where the body needs it."""
    if op.name not in ROW:
        return []
    columns = low.shape(str(op.ins[0]))[-1]
    return [(Argument("float64", 1, name="p"), [low.scratch(columns, "float64"), columns])]


def loss(low: Lowering, op: Op) -> None:
    """A cost: each walker's rows, then the sum of what they found."""
    total = str(op.outs[0])
    rows = low.shape(str(op.ins[0]))[0]
    if low.walkers == 1:
        given = [low.array(slot) for slot in (*op.ins, *op.outs)]
        low.body(op.name, given + scratch_row(low, op) + attributes(low, op) + _span(low, 0, rows))
        return
    parts = low.scratch(2 * low.walkers, "float64")
    for start, stop in low.share(rows):
        given = [low.array(slot) for slot in (*op.ins, *op.outs)]
        given[len(op.ins)] = low.table(parts + 16 * low.walker, 2, "float64")
        low.body(op.name, given + scratch_row(low, op) + attributes(low, op) + _span(low, start, stop))
    low.meet()
    low.body("sum_of_costs", [low.table(parts, 2 * low.walkers, "float64"), low.array(total)])


def _span(low: Lowering, start: int, stop: int) -> list[Given]:
    return [low.value(start, "start"), low.value(stop, "stop")]


def grad_bias(low: Lowering, op: Op) -> None:
    """Σ_batch δ: each walker's columns."""
    delta, out = str(op.ins[0]), str(op.outs[0])
    for start, stop in low.share(low.size(out), LINE):
        given = [low.array(delta), low.array(out), *_span(low, start, stop)]
        low.body("linear_grad_bias", given + attributes(low, op))


LOSSES = [name for name in OWN if OPS[name].equation == "loss"]
UPDATES = [name for name in OWN if OPS[name].elementwise]
ELEMENTWISE = ("add", "copy", "dropout", "dropout_grad", "activate", "activate_grad")

#: How the ops are shared out.
PLAIN: dict[str, Callable[[Lowering, Op], None]] = {
    **dict.fromkeys(LOSSES, loss),
    **dict.fromkeys((*ELEMENTWISE, *UPDATES), elementwise),
    **dict.fromkeys(("one_hot", "softmax", "softmax_grad"), by_rows),
    "linear_grad_bias": grad_bias,
}
