"""Which ops are measured, at which sizes, and the bytes that each has to move: read from the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.ops import HYPER, OPS, Operand, Rule, fill, rule

from ..workloads import WORKLOADS, workload_named

#: What is not measured by itself, and why.
LEFT_OUT = {
    "advance": "three counters and two powers: the cost of a call",
    "schedule": "one number is copied: the cost of a call",
    "tally": "four numbers: the cost of a call",
}

#: Elements of what is flat or works element by element; in float64 the third alone.
ELEMENTS = (1_000, 30_000, 1_000_000, 16_000_000)

#: (B, N) of losses, metrics and softmax: the book's, MNIST's, speech's, ImageNet's.
ROWS = ((10, 10), (128, 10), (512, 2000), (1024, 1000))

#: Attributes whose values are not in the vocabulary. An update has all of Θ as weights, and no penalty;
#: σ′ of the identity is 1, which leaves nothing to do.
ATTRIBUTES: dict[str, Sequence[Mapping[str, Any]]] = {
    "activate": [{"sigma": name} for name in ACTIVATIONS],
    "activate_grad": [{"sigma": name} for name in ACTIVATIONS if name != "identity"],
    "dropout": [{"rate": 0.5, "layer": 0}],
    "dropout_grad": [{"rate": 0.5}],
    "weight_penalty": [{"terms": ("l2",)}],
    "count_top_k": [{"k": 5}],
    "count_exact": [{"threshold": 0.5}],
    "confusion_by_output": [{"threshold": 0.5}],
}

#: Of a large operand, the part that an op reads or writes.
TOUCHED = {
    ("gather", "X"): ("B", "*S"),
    ("gather", "perm"): ("B",),
    ("confusion", "counts"): ("B",),
}


@dataclass(frozen=True)
class Case:
    """One op with its attributes at one size.

    Attributes
    ----------
    size
        For people: ``1M elements``, ``128×784×512``.
    sizes
        The size behind each letter of the op's signature.
    """

    op: str
    size: str
    sizes: Mapping[str, Any]
    dtype: str = "float32"
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        return rule(self.op)

    @property
    def variant(self) -> str:
        """What tells it from the same op with other attributes."""
        shown = {key: value for key, value in self.attrs.items() if key not in ("weights", "layer")}
        words = {k: "+".join(v) if isinstance(v, tuple) else v for k, v in shown.items()}
        return ", ".join(f"{key}={value}" for key, value in words.items())

    @property
    def label(self) -> str:
        """The name of its test; pytest would escape the sign ×."""
        words = [self.op, *map(str, self.variant.split(", ") if self.variant else []), self.dtype, self.size]
        return "-".join(word.split("=")[-1] for word in words).replace("×", "x").replace(" elements", "")

    @property
    def operands(self) -> list[Operand]:
        """Those that are there: no weights of examples, every output."""
        return [o for o in self.rule.inputs if not o.optional] + list(self.rule.outputs)

    def shape(self, operand: Operand) -> tuple[int, ...]:
        return fill(operand, {"H": len(HYPER), **self.sizes}, self.op)

    def dtype_of(self, operand: Operand) -> str:
        free = operand.dtype in (None, "any") or operand.dtype.startswith("=")
        return self.dtype if free else operand.dtype

    @property
    def bytes(self) -> int:
        """What has to be read, and written, if every element were touched once.

        An output that the op updates or adds to counts twice: it is read and written. Of the data that a
        minibatch is gathered from, its rows alone count. Temporaries of a backend do not: they are its own.
        """
        both = {o.name for o in self.rule.outputs} if self.attrs.get("accumulate") else self.rule.updates
        total = 0
        for o in self.operands:
            part = Operand(o.name, TOUCHED.get((self.op, o.name), o.dims), o.dtype)
            times = 2 if o.name in both else 1
            total += times * math.prod(self.shape(part)) * np.dtype(self.dtype_of(o)).itemsize
        return total

    @property
    def flops(self) -> int | None:
        """2 B K N of a product; None of what memory bounds."""
        return 2 * math.prod(self.sizes[d] for d in "BKN") if is_product(self.rule) else None

    def described(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "op": self.op,
            "variant": self.variant,
            "dtype": self.dtype,
            "size": self.size,
            "sizes": dict(self.sizes),
            "bytes": self.bytes,
            "flops": self.flops,
        }


def is_product(entry: Rule) -> bool:
    return set("BKN") <= entry.letters


def cases(device: str = "cpu", *, quick: bool = False) -> list[Case]:
    """Every op that is not left out; ``quick`` takes the smallest size of each.

    >>> [case.label for case in cases() if case.op == "sgd"]
    ['sgd-float32-1k', 'sgd-float32-30k', 'sgd-float32-1M', 'sgd-float64-1M', 'sgd-float32-16M']
    >>> [case.size for case in cases(quick=True) if case.op == "linear"]
    ['10×30×10']
    """
    found = []
    for name, entry in OPS.items():
        if name in LEFT_OUT:
            continue
        sized = list(sizes_of(entry, device))
        for attrs in ATTRIBUTES.get(name, [{}]):
            for size, sizes, dtype in sized[:1] if quick else sized:
                whole = {"weights": sizes["P"]} if takes_weights(entry) else {}
                found.append(Case(name, size, sizes, dtype, {**whole, **attrs}))
    return found


def takes_weights(entry: Rule) -> bool:
    """Whether an op over flat Θ is told how much of it is weights."""
    return "P" in entry.letters and entry.attributes is not None


def sizes_of(entry: Rule, device: str) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Sizes of one op, smallest first: in words, by letter, and the dtype."""
    letters = {d for d in entry.letters if not d.isdigit()} - {"H"}
    if is_product(entry):
        found = [dict(zip("BKN", shape, strict=True)) for shape in products(device)]
    elif entry.equation == "BP3":
        found = [{"B": b, "N": n} for b, n in sorted({(b, n) for b, _, n in products(device)}, key=math.prod)]
    elif letters == {"n", "*S", "B"}:
        found = [{"B": b, "*S": (k,), "n": ELEMENTS[-1] // k} for b, k in inputs(device)]
    elif {"P", "*S"} & letters:
        for count in ELEMENTS:
            sizes = {d: (count,) if d == "*S" else count for d in letters & {"P", "*S"}}
            for dtype in ("float32", "float64") if count == ELEMENTS[2] else ("float32",):
                yield f"{in_words(count)} elements", sizes, dtype
        return
    elif letters == {"B", "N"}:
        found = [{"B": b, "N": n} for b, n in ROWS]
    else:
        found = [dict.fromkeys(sorted(letters), 100)]
    for sizes in found:
        shown = [math.prod(v) if isinstance(v, tuple) else v for d, v in sizes.items() if d != "n"]
        yield "×".join(map(str, shown)), sizes, "float32"


def products(device: str) -> list[tuple[int, int, int]]:
    """The (B, K, N) of every layer of every workload, smallest first."""
    chosen = [workload_named(name, device) for name in WORKLOADS]
    return sorted({(w.batch, k, n) for w in chosen for k, n in pairwise(w.sizes)}, key=math.prod)


def inputs(device: str) -> list[tuple[int, int]]:
    """The (B, inputs) of every workload's minibatch, smallest first."""
    chosen = [workload_named(name, device) for name in WORKLOADS]
    return sorted({(w.batch, w.inputs) for w in chosen}, key=math.prod)


def in_words(count: int) -> str:
    """
    >>> [in_words(count) for count in (100, 30_000, 16_000_000)]
    ['100', '30k', '16M']
    """
    for unit, scale in (("M", 1_000_000), ("k", 1000)):
        if count >= scale:
            return f"{count / scale:g}{unit}"
    return str(count)


def working() -> list[str]:
    """The backends that work here."""
    return [status.name for status in gpunn.devices() if status.works]


def absent(backends: Iterable[str]) -> dict[str, str]:
    """Those of the backends that cannot be had here, and why.

    >>> absent(["numpy", "abacus"])
    {'abacus': "there is no backend 'abacus'; there are numba, numpy, cuda"}
    """
    known = {status.name: status for status in gpunn.devices()}
    unknown = "there is no backend {!r}; there are " + ", ".join(known)
    return {
        name: known[name].detail if name in known else unknown.format(name)
        for name in backends
        if name not in known or not known[name].works
    }
