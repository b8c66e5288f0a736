"""Rewriting a list of ops so that several run as one.

A backend names the patterns it has code for; the unfused list stays the definition. Two ops need not be
neighbours to be joined: one may move to the other if no op on the way reads or writes what it writes,
or writes what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .slots import Op

__all__ = ["Pattern", "fuse_ops"]

Touches = Callable[[Iterable[str], Iterable[str]], bool]


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


def fuse_ops(
    ops: Sequence[Op],
    patterns: Sequence[Pattern],
    *,
    touches: Touches,
    split: Callable[[Op], list[Op]],
    disposable: Callable[[str], bool],
) -> list[Op]:
    """Apply the patterns, in order, each as often as it fits.

    Parameters
    ----------
    ops : sequence of Op
        The list; it is not changed.
    patterns : sequence of Pattern
        Tried in this order, so a later one may name an earlier one's result (``gather+linear``).
    touches : callable
        Whether two groups of slots share elements.
    split : callable
        An op over flat Θ to its pieces.
    disposable : callable
        Whether a slot may go unwritten (not pinned, not persistent).
    """
    result = list(ops)
    for pattern in patterns:
        if pattern.into_all:
            result = _fold_into_all(result, pattern, touches, disposable)
            continue
        source = result
        if pattern.split:
            source = [piece for op in result for piece in (split(op) if op.name == pattern.second else [op])]
        joined = _join_pairs(source, pattern, touches, disposable)
        if len(joined) < len(source):
            result = joined
    return result


def _join_pairs(
    ops: list[Op], pattern: Pattern, touches: Touches, disposable: Callable[[str], bool]
) -> list[Op]:
    ops = list(ops)
    i = 0
    while i < len(ops):
        j = _partner(ops, i, pattern, touches) if ops[i].name == pattern.first else None
        if j is not None:
            between = ops[i + 1 : j]
            if all(_may_swap(ops[j], op, touches) for op in between):
                at = i
            elif all(_may_swap(ops[i], op, touches) for op in between):
                at = j
            else:
                i += 1
                continue
            fused = _merge(ops[i], ops[j], pattern.name, [*between, *ops[j + 1 :]], touches, disposable)
            ops[at] = fused
            del ops[j if at == i else i]
            continue
        i += 1
    return ops


def _partner(ops: Sequence[Op], i: int, pattern: Pattern, touches: Touches) -> int | None:
    """The first later op of the wanted name that uses what op i writes."""
    for j in range(i + 1, len(ops)):
        if ops[j].name == pattern.second and touches(ops[i].writes, ops[j].reads):
            return j
    return None


def _may_swap(one: Op, other: Op, touches: Touches) -> bool:
    return not (touches(one.writes, other.reads | other.writes) or touches(one.reads, other.writes))


def _merge(
    first: Op,
    second: Op,
    name: str,
    rest: Sequence[Op],
    touches: Touches,
    disposable: Callable[[str], bool],
) -> Op:
    def between(slot: str | None) -> bool:
        return slot is not None and touches([slot], first.writes)

    def needed(slot: str) -> bool:
        return touches([slot], second.writes) or not disposable(slot) or _read_later(slot, rest, touches)

    kept = tuple(s if s and needed(s) else None for s in first.outs)
    ins = first.ins + tuple(s for s in second.ins if not between(s))
    outs = kept + tuple(s for s in second.outs if not between(s))
    parts = (*(first.parts or (first,)), *(second.parts or (second,)))
    return Op(name, ins, outs, {**first.attrs, **second.attrs}, first.label, parts)


def _read_later(slot: str, rest: Sequence[Op], touches: Touches) -> bool:
    """Whether an op reads the slot before another one overwrites it whole."""
    for op in rest:
        if touches([slot], op.reads):
            return True
        if slot in op.writes:
            return False
    return False


def _fold_into_all(
    ops: list[Op], pattern: Pattern, touches: Touches, disposable: Callable[[str], bool]
) -> list[Op]:
    names = pattern.second.split("|")
    for i, first in enumerate(ops):
        if first.name != pattern.first or not all(s and disposable(s) for s in first.outs):
            continue
        rest = ops[i + 1 :]
        readers = [op for op in rest if touches(first.writes, op.reads)]
        overwritten = any(touches(first.writes, op.writes) for op in rest)
        stale = any(
            touches(first.reads, op.writes) and any(r in rest[k + 1 :] for r in readers)
            for k, op in enumerate(rest)
        )
        if not readers or overwritten or stale or any(op.name not in names for op in readers):
            continue
        folded = [
            _merge(first, op, f"{first.name}+{op.name}", (), touches, disposable) if op in readers else op
            for op in rest
        ]
        return _fold_into_all([*ops[:i], *folded], pattern, touches, disposable)
    return ops
