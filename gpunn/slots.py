"""The nodes of a program: slots (named arrays) and ops over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from .ops import Shape, rule

__all__ = ["WORKSPACE", "Op", "Role", "Slot"]


class Role(StrEnum):
    """What a slot is for, and with it where it lives and how long.

    ``ACTIVATION``, ``INPUT`` and ``TARGET`` lie in the program's own workspace. ``PARAMETER``,
    ``GRADIENT``, ``STATE`` and ``HYPER`` persist between steps and are shared by the variants of one
    program. ``DATA`` is the user's, bound before a run.
    """

    PARAMETER = "parameter"
    GRADIENT = "gradient"
    STATE = "state"
    ACTIVATION = "activation"
    INPUT = "input"
    TARGET = "target"
    HYPER = "hyper"
    DATA = "data"


WORKSPACE = frozenset({Role.ACTIVATION, Role.INPUT, Role.TARGET})


@dataclass(frozen=True)
class Slot:
    """A named array of a program; ``base`` and ``offset`` (elements) make it a window of another."""

    name: str
    shape: Shape
    dtype: str
    role: Role
    symbol: str
    scope: str = ""
    base: str | None = None
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of elements (0 while a dimension is open)."""
        return math.prod(d or 0 for d in self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Op:
    """One op of a program: slots read, slots written (``None``: absent or elided), attributes, label."""

    name: str
    ins: tuple[str | None, ...]
    outs: tuple[str | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    parts: tuple[Op, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        """The slots whose old content the op uses."""
        if self.parts:
            used: set[str] = set()
            made: set[str] = set()
            for part in self.parts:
                used |= part.reads - made
                made |= part.writes
            return frozenset(used)
        kept = {s for s in self.ins if s}
        entry = rule(self.name)
        for operand, slot in zip(entry.outputs, self.outs, strict=True):
            if slot and (operand.name in entry.updates or self.attrs.get("accumulate")):
                kept.add(slot)
        return frozenset(kept)

    @property
    def writes(self) -> frozenset[str]:
        """The slots that the op writes."""
        return frozenset(s for s in self.outs if s)
