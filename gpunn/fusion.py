"""Rewriting a list of ops so that several run as one.

A backend names the patterns it has code for; the unfused list stays the definition. Two ops need not be
neighbours to be joined: one may move to the other if no op on the way reads or writes what it writes,
or writes what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .ops import rule
from .slots import Op

__all__ = ["Pattern", "Places", "fuse_ops"]


class Places(Protocol):
    """What fusion asks of the program whose ops it joins."""

    def touches(self, slots: Iterable[str], others: Iterable[str]) -> bool:
        """Whether any of ``slots`` shares elements with any of ``others``."""

    def same_elements(self, one: str, other: str) -> bool:
        """Whether two slots are the same elements, in whatever shape."""

    def same_shape(self, one: str, other: str) -> bool:
        """Whether two slots have one shape."""

    def disposable(self, slot: str) -> bool:
        """Whether a slot may go unwritten (not pinned, not persistent)."""

    def split_by_window(self, op: Op) -> list[Op]:
        """An op over flat Θ as one op a parameter."""


@dataclass(frozen=True)
class Pattern:
    """Two ops that a backend runs as one, named ``first+second``.

    Parameters
    ----------
    first, second : str
        Op names; ``first`` writes a slot that ``second`` reads, or reads and overwrites.
    into_all : bool
        Fold ``first`` into *every* reader of its result, or into none: a ``gather`` that is never
        executed, because each product reads the data through the permutation itself. ``second`` may
        then name several ops, separated by ``|``.
    split : bool
        ``second`` runs over the whole of Θ: split it into an op for each parameter, and fold each into
        the product that makes its gradient.

    The fused op reads the first's inputs, then the second's except the slot between; it writes the
    first's outputs, then the second's except the slot between. The slot between is ``None`` among the
    first's outputs where nobody else needs it: then it is never written.
    """

    first: str
    second: str
    into_all: bool = False
    split: bool = False

    @property
    def name(self) -> str:
        """The name of the fused op, and of the backend's function for it."""
        return f"{self.first}+{self.second}"


def fuse_ops(ops: Sequence[Op], patterns: Sequence[Pattern], places: Places) -> list[Op]:
    """Apply the patterns, in order, each as often as it fits; ``ops`` is not changed.

    The patterns are tried in their order, so a later one may name an earlier one's result
    (``gather+linear``).
    """
    result = list(ops)
    for pattern in patterns:
        if pattern.into_all:
            result = _fold_into_all(result, pattern, places)
            continue
        source = result
        if pattern.split:
            source = [
                piece
                for op in result
                for piece in (places.split_by_window(op) if op.name == pattern.second else [op])
            ]
        joined = _join_pairs(source, pattern, places)
        if len(joined) < len(source):
            result = joined
    return result


def _join_pairs(ops: list[Op], pattern: Pattern, places: Places) -> list[Op]:
    ops = list(ops)
    i = 0
    while i < len(ops):
        at = j = None
        if ops[i].name == pattern.first:
            j = _partner(ops, i, pattern, places)
        if j is not None:
            between = ops[i + 1 : j]
            if all(_may_swap(ops[j], op, places) for op in between):
                at = i
            elif all(_may_swap(ops[i], op, places) for op in between):
                at = j
        if at is None or j is None:
            i += 1
            continue
        fused = _merge(ops[i], ops[j], pattern.name, ops[i].label, [*between, *ops[j + 1 :]], places)
        ops[at] = fused
        del ops[j if at == i else i]
    return ops


def _partner(ops: Sequence[Op], i: int, pattern: Pattern, places: Places) -> int | None:
    """The first later op that uses what op i writes, if it is of the wanted name and fits."""
    for j in range(i + 1, len(ops)):
        if ops[j].name == pattern.second and places.touches(ops[i].writes, ops[j].reads):
            return j if _fits(ops[i], ops[j], places, any_shape=pattern.split) else None
    return None


def _fits(first: Op, second: Op, places: Places, *, any_shape: bool = False) -> bool:
    """Whether ``second`` takes one whole result of ``first``, once, and their attributes agree."""
    between = [s for s in (*second.ins, *second.outs) if s and places.touches([s], first.writes)]
    if len(between) != 1:
        return False
    (slot,) = between
    if not _in_place(second, slot) and _operand_of(second, slot) not in _expected(first, second):
        return False
    made = [s for s in first.writes if places.same_elements(s, slot)]
    shared = first.attrs.keys() & second.attrs.keys()
    return (
        bool(made)
        and (any_shape or places.same_shape(made[0], slot))
        and all(first.attrs[key] == second.attrs[key] for key in shared)
    )


def _in_place(op: Op, slot: str) -> bool:
    return slot in op.outs


def _operand_of(op: Op, slot: str) -> str:
    """The name of the operand in which an op (the first part of a joined one) takes a slot."""
    part = (op.parts or (op,))[0]
    return next((o.name for o, s in zip(rule(part.name).inputs, part.ins, strict=True) if s == slot), "")


def _expected(first: Op, second: Op) -> set[str]:
    """The same name as the result has; where there is none, the first operand."""
    made = {o.name for o in rule((first.parts or (first,))[-1].name).outputs}
    names = [o.name for o in rule((second.parts or (second,))[0].name).inputs]
    return made & set(names) or set(names[:1])


def _may_swap(one: Op, other: Op, places: Places) -> bool:
    return not (
        places.touches(one.writes, other.reads | other.writes) or places.touches(one.reads, other.writes)
    )


def _merge(first: Op, second: Op, name: str, label: str, rest: Sequence[Op], places: Places) -> Op:
    def between(slot: str | None) -> bool:
        return slot is not None and places.touches([slot], first.writes)

    def needed(slot: str) -> bool:
        return (
            slot in first.reads
            or places.touches([slot], second.writes)
            or not places.disposable(slot)
            or _read_later(slot, rest, places)
        )

    kept = tuple(s if s and needed(s) else None for s in first.outs)
    ins = first.ins + tuple(s for s in second.ins if not between(s))
    outs = kept + tuple(s for s in second.outs if not between(s))
    parts = (*(first.parts or (first,)), *(second.parts or (second,)))
    return Op(name, ins, outs, {**first.attrs, **second.attrs}, label, parts)


def _read_later(slot: str, rest: Sequence[Op], places: Places) -> bool:
    """Whether an op reads the slot before another one overwrites it whole."""
    for op in rest:
        if places.touches([slot], op.reads):
            return True
        if slot in op.writes:
            return False
    return False


def _fold_into_all(ops: list[Op], pattern: Pattern, places: Places) -> list[Op]:
    names = pattern.second.split("|")
    for i, first in enumerate(ops):
        if first.name != pattern.first or not all(s and places.disposable(s) for s in first.outs):
            continue
        rest = ops[i + 1 :]
        readers = [op for op in rest if places.touches(first.writes, op.reads)]
        overwritten = any(places.touches(first.writes, op.writes) for op in rest)
        stale = any(
            places.touches(first.reads, op.writes) and any(r in rest[k + 1 :] for r in readers)
            for k, op in enumerate(rest)
        )
        fit = all(op.name in names and _fits(first, op, places) for op in readers)
        if not readers or overwritten or stale or not fit:
            continue
        folded = [
            _merge(first, op, f"{first.name}+{op.name}", op.label, (), places) if op in readers else op
            for op in rest
        ]
        return _fold_into_all([*ops[:i], *folded], pattern, places)
    return ops
