"""A program: a flat list of ops over named slots, declared once and run by any backend.

Layers emit the forward ops, a loss emits the cost, :meth:`Program.backpropagate` appends the adjoints in
reverse (the four equations), an optimiser appends the update. Nothing here holds an array.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from .arena import Layout, Plan, lay_out, plan_workspace
from .errors import ArgumentError, ProgramError, ShapeError, unknown_name
from .fusion import Pattern, fuse_ops
from .ops import Operand, Shape, rule
from .slots import WORKSPACE, Op, Role, Slot

__all__ = ["WORKSPACE", "Op", "Program", "Role", "Slot"]


class Program:
    """An ordered list of ops over named slots.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        The dtype of every slot that does not name another.
    title : str
        Shown above the printed table.
    training : bool
        Whether layers emit what they do in training only (dropout).

    Examples
    --------
    >>> from gpunn.program import Program, Role
    >>> p = Program()
    >>> x = p.slot("x", (10, 784), Role.INPUT)
    >>> with p.scope("layers.0", "layer 0 Dense"):
    ...     W = p.parameter("weights", (30, 784), "normal")
    ...     b = p.parameter("bias", (30,), "normal", weight=False)
    ...     z = p.emit("linear", (x, W, b))
    ...     a = p.emit("activate", (z,), sigma="sigmoid")
    >>> p.slots[a].shape, [op.name for op in p.ops]
    ((10, 30), ['linear', 'activate'])
    """

    def __init__(self, dtype: str = "float32", title: str = "", *, training: bool = False) -> None:
        self.dtype = dtype
        self.title = title
        self.training = training
        self.slots: dict[str, Slot] = {}
        self.ops: list[Op] = []
        self.pinned: set[str] = set()
        self.elided: set[str] = set()
        self.initializers: dict[str, Any] = {}
        self.layout: Layout | None = None
        self.marks: dict[str, str] = {}
        self._weights: dict[str, bool] = {}
        self._scope = ""
        self._label = ""
        self._index = ""

    # ------------------------------------------------------------------ declaring

    def slot(
        self,
        name: str,
        shape: Sequence[int | None],
        role: Role,
        dtype: str | None = None,
        symbol: str | None = None,
        *,
        base: str | None = None,
        offset: int = 0,
    ) -> str:
        """Declare a slot; returns its name. The same declaration twice is one slot."""
        made = Slot(name, tuple(shape), dtype or self.dtype, role, symbol or name, self._scope, base, offset)
        if name in self.slots and self.slots[name] != made:
            raise ProgramError(f"slot {name!r} is declared twice: as {self.slots[name]} and as {made}")
        self.slots[name] = made
        return name

    def slot_of_run(self, name: str, shape: Sequence[int], dtype: str = "int64", symbol: str = "") -> str:
        """Declare a slot that belongs to no layer and outlives the step: a counter, a key, a sum."""
        with self.scope("", ""):
            return self.slot(name, shape, Role.HYPER, dtype, symbol or name)

    def parameter(self, name: str, shape: Sequence[int], initializer: Any, *, weight: bool = True) -> str:
        """Declare a parameter of the present scope; ``weight`` says whether penalties act on it.

        Its symbol is the first letter of its name, upper case for a weight: W0, b0.
        """
        key = f"{self._scope}.{name}" if self._scope else name
        if self.layout is not None:
            raise ProgramError(
                f"parameter {key!r} comes after Θ was laid out: layers emit before everything else"
            )
        if math.prod(shape) == 0:
            raise ShapeError(f"{self._label or key}: parameter {name!r} would be empty, shape {tuple(shape)}")
        letter = name[0].upper() if weight else name[0]
        self.slot(key, shape, Role.PARAMETER, symbol=f"{letter}{self._index}")
        self.initializers[key] = initializer
        self._weights[key] = weight
        return key

    def view(self, of: str, shape: Sequence[int | None]) -> str:
        """The same elements in another shape, without a copy (Flatten).

        >>> p = Program()
        >>> x = p.slot("x", (10, 28, 28), Role.INPUT)
        >>> p.slots[p.view(x, (10, 784))].base
        'x'
        """
        source = self.described(of)
        if source.shape == tuple(shape):
            return of
        if math.prod(d or 0 for d in shape) != source.size:
            raise ShapeError(f"{self._label}: cannot view {of} of shape {source.shape} as {tuple(shape)}")
        seen = replace(source, shape=tuple(shape), base=of, offset=0)
        stem = f"{of}.{'x'.join(map(str, shape))}"
        name = next(n for n in _numbered(stem) if self.slots.get(n) in (None, replace(seen, name=n)))
        self.slots[name] = replace(seen, name=name)
        return name

    @contextmanager
    def scope(self, prefix: str, label: str) -> Iterator[None]:
        """Names and labels of what is declared inside: ``layers.0`` and ``layer 0 Dense``."""
        before = self._scope, self._label, self._index
        self._scope, self._label = prefix, label
        tail = prefix.rsplit(".", 1)[-1]
        self._index = tail if tail.isdigit() else ""
        try:
            yield
        finally:
            self._scope, self._label, self._index = before

    def emit(
        self,
        name: str,
        ins: Sequence[str | None] = (),
        outs: Mapping[str, str] | None = None,
        *,
        label: str | None = None,
        roles: Mapping[str, Role] | None = None,
        **attrs: Any,
    ) -> Any:
        """Append an op; returns its first output slot, or a tuple where it has several.

        Parameters
        ----------
        name : str
            An op of the vocabulary.
        ins : sequence of slot names
            In the order of the signature; ``None`` (or nothing, at the end) for an optional one.
        outs : mapping of operand to slot, optional
            Existing slots to write. The other outputs are declared as new activations; optional ones
            that are not given stay absent.
        attrs
            Attributes; a letter of the signature (``B=10``) fixes a size.

        Raises
        ------
        gpunn.ShapeError
            Names the layer, the operand, the shape that came and the shape that was expected.
        """
        entry = rule(name)
        outs = dict(outs or {})
        label = label if label is not None else (f"{self._label}: forward" if self._label else "")
        where = f"{label}: {name}" if label else name
        if unknown := set(outs) - {operand.name for operand in entry.outputs}:
            raise unknown_name(f"output of {name}", unknown.pop(), (o.name for o in entry.outputs))
        padded = (*ins, *[None] * (len(entry.inputs) - len(ins)))
        for slot in (*padded, *outs.values()):
            if slot is not None and slot not in self.slots:
                raise unknown_name(f"slot of {where}", slot, self.slots)
        letters = entry.letters
        kept = {key: value for key, value in attrs.items() if key not in letters}
        if entry.attributes is not None:
            try:
                entry.attributes(**{key: value for key, value in kept.items() if key != "accumulate"})
            except TypeError as error:
                raise ArgumentError(f"{where}: wrong attributes {kept}: {error}") from error
        given = [self.slots[s].shape if s else None for s in padded]
        given += [self.slots[outs[o.name]].shape if o.name in outs else None for o in entry.outputs]
        shapes = entry.resolve(given, attrs, label)
        written = []
        for operand in entry.outputs:
            slot = outs.get(operand.name)
            if slot is None and not operand.optional:
                dtype = self._dtype_of(operand, entry.inputs, padded)
                role = (roles or {}).get(operand.name, Role.ACTIVATION)
                slot = self._fresh(operand.name, shapes[operand.name] or (), role, dtype)
            written.append(slot)
        op = Op(name, padded, tuple(written), kept, label)
        for operand, slot in zip((*entry.inputs, *entry.outputs), (*op.ins, *op.outs), strict=True):
            want = self._dtype_of(operand, entry.inputs, padded)
            if slot is not None and want != "any" and self.slots[slot].dtype != want:
                raise ProgramError(
                    f"{where}: {operand.name} has dtype {self.slots[slot].dtype}, expected {want}"
                )
        self.ops.append(op)
        return op.outs[0] if len(op.outs) == 1 else op.outs

    def _dtype_of(self, operand: Operand, inputs: Sequence[Operand], ins: Sequence[str | None]) -> str:
        if operand.dtype is None:
            return self.dtype
        if operand.dtype.startswith("="):
            other = [o.name for o in inputs].index(operand.dtype[1:])
            return self.slots[str(ins[other])].dtype
        return operand.dtype

    def _fresh(self, operand: str, shape: Shape, role: Role, dtype: str) -> str:
        stem = f"{self._scope}.{operand}" if self._scope else operand
        name = self._unused(stem)
        again = 0 if name == stem else int(name.removeprefix(f"{stem}.")) - 1
        return self.slot(name, shape, role, dtype, f"{operand}{self._index}" + "′" * again)

    def _unused(self, stem: str) -> str:
        return next(name for name in _numbered(stem) if name not in self.slots)

    def error_slot(self, of: str) -> str:
        """Declare the slot of ∂C/∂slot, named after the layer that the slot belongs to."""
        slot = self.slots[of]
        tail = slot.scope.rsplit(".", 1)[-1]
        stem = f"{slot.scope or of}.delta"
        name = self._unused(stem)
        again = 0 if name == stem else int(name.removeprefix(f"{stem}.")) - 1
        symbol = f"δ{tail}" if tail.isdigit() else f"∂C/∂{slot.symbol}"
        with self.scope(slot.scope, self._label):
            return self.slot(name, slot.shape, Role.ACTIVATION, slot.dtype, symbol + "′" * again)

    def lay_out_parameters(self) -> Layout:
        """Make Θ: after the forward ops, every parameter becomes a window of the slot ``theta``."""
        if self.layout is None:
            keys = {
                key: (tuple(d or 0 for d in self.slots[key].shape), is_weight)
                for key, is_weight in self._weights.items()
            }
            self.layout = lay_out(keys, np.dtype(self.dtype).itemsize)
            with self.scope("", ""):
                self.slot("theta", (self.layout.size,), Role.PARAMETER, symbol="Θ")
            for key, window in self.layout.windows.items():
                self.slots[key] = replace(self.slots[key], base="theta", offset=window.offset)
        return self.layout

    def gradient(self, key: str) -> str:
        """The slot of ∂C/∂parameter: the same window of ∇Θ."""
        layout = self.lay_out_parameters()
        window = layout.windows[key]
        with self.scope("", ""):
            base = self.slot("grad", (layout.size,), Role.GRADIENT, symbol="∇C")
            symbol = f"∂C/∂{self.slots[key].symbol}"
            return self.slot(
                f"grad.{key}", window.shape, Role.GRADIENT, symbol=symbol, base=base, offset=window.offset
            )

    def pin(self, *slots: str) -> None:
        """Keep these slots' content until the step ends, whatever else wants their place."""
        for slot in slots:
            self.described(slot)
        self.pinned.update(slots)

    # ------------------------------------------------------------------ asking

    def described(self, slot: str) -> Slot:
        """The slot of that name, or an error with the nearest name there is."""
        try:
            return self.slots[slot]
        except KeyError:
            raise unknown_name("slot", slot, self.slots) from None

    def root(self, slot: str) -> str:
        """The slot that owns the memory of this one."""
        return self.place(slot)[0]

    def place(self, slot: str) -> tuple[str, int]:
        """The slot that owns the memory of this one, and where in it this one starts (elements)."""
        offset, name = 0, slot
        while (base := self.slots[name].base) is not None:
            offset += self.slots[name].offset
            name = base
        return name, offset

    def owner(self, slot: str) -> str:
        """The parameter or the slot with memory of its own that this one is, or is a view of."""
        name = slot
        while name not in self._weights and (base := self.slots[name].base) is not None:
            name = base
        return name

    def overlap(self, one: str, other: str) -> bool:
        """Whether two slots share elements."""
        (root, start), (other_root, other_start) = self.place(one), self.place(other)
        if root != other_root:
            return False
        if one == root or other == root:
            return True
        return start < other_start + self.slots[other].size and other_start < start + self.slots[one].size

    def same_elements(self, one: str, other: str) -> bool:
        """Whether two slots are the same elements, in whatever shape."""
        return self.place(one) == self.place(other) and self.slots[one].size == self.slots[other].size

    def same_shape(self, one: str, other: str) -> bool:
        """Whether two slots have one shape."""
        return self.slots[one].shape == self.slots[other].shape

    def touches(self, slots: Iterable[str], others: Iterable[str]) -> bool:
        """Whether any of ``slots`` shares elements with any of ``others``."""
        others = tuple(others)
        return any(self.overlap(s, o) for s in slots for o in others)

    def producer(self, slot: str) -> Op | None:
        """The last op that writes this slot, or the slot that it is a view of."""
        root = self.root(slot)
        return next((op for op in reversed(self.ops) if slot in op.writes or root in op.writes), None)

    @property
    def label(self) -> str:
        """The label of the scope being declared, for error messages."""
        return self._label or self.title or "program"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameter keys, in key order."""
        return tuple(self._weights)

    # ------------------------------------------------------------------ transforming

    def backpropagate(
        self, seeds: Mapping[str, str], wrt: Sequence[str] = (), *, parameters: bool = True
    ) -> dict[str, str]:
        """Append the adjoints of the forward ops, last first: the reversed network.

        Parameters
        ----------
        seeds : mapping of slot to slot
            Forward slot to the slot that holds ∂C/∂slot already (what a loss wrote).
        wrt : sequence of slots
            Inputs whose ∂C/∂input is wanted beside the parameters'.
        parameters : bool
            Whether the parameters' gradients are wanted at all.

        Returns
        -------
        dict
            Forward slot to the slot that holds its error in the end. Where an op works in place, a and z
            share one slot, which holds ∂C/∂z = δ when the step is done.

        Raises
        ------
        gpunn.ProgramError
            If an op on the way has no adjoint.
        """
        self.lay_out_parameters()
        walk = _Backward(self, seeds, wrt, parameters)
        for op in reversed(self.ops.copy()):
            entry = rule(op.name)
            if not any(s is not None and walk.has_error(s) for s in op.outs):
                continue
            if not any(walk.needs(s) for s in op.ins if s is not None):
                continue
            if entry.adjoint is None:
                raise ProgramError(
                    f"{op.label or op.name}: op {op.name!r} has no adjoint, and the error has to pass it: "
                    f"register it with adjoint=..."
                )
            layer = op.label.removesuffix(": forward") or op.name
            with self.scope(_scope_of(self, op), layer):
                walk.label = f"{layer}: backward"
                entry.adjoint(walk, op)
        return dict(walk.errors)

    def prune(self) -> None:
        """Drop the ops whose results nobody reads (a softmax that the loss has taken into itself)."""
        live = {self.root(s) for s in self.pinned}
        kept: list[Op] = []
        for op in reversed(self.ops):
            outs = {self.root(s) for s in op.writes}
            if outs & live or any(self.slots[s].role not in WORKSPACE for s in outs):
                kept.append(op)
                live |= {self.root(s) for s in op.reads}
        self.ops = kept[::-1]

    def fuse(self, patterns: Sequence[Pattern]) -> Program:
        """A new program in which the ops that the patterns name run as one; see :mod:`gpunn.fusion`.

        Slots that no op reads or writes any more are listed in ``elided``.
        """
        fused = self.copy()
        fused.ops = fuse_ops(self.ops, patterns, fused)
        fused.elided |= _used(self.ops) - _covered(fused)
        return fused

    def disposable(self, slot: str) -> bool:
        """Whether a slot may go unwritten: it is not pinned and does not outlive the step."""
        roles = (Role.ACTIVATION, Role.INPUT, Role.TARGET, Role.GRADIENT)
        return self.slots[slot].role in roles and not self.touches([slot], self.pinned)

    def split_by_window(self, op: Op) -> list[Op]:
        """One op over flat Θ as an op for each parameter's window (its padding is zero and stays so)."""
        if op.parts or not rule(op.name).elementwise or self.layout is None or "theta" not in op.writes:
            return [op]
        pieces = []
        for key, window in self.layout.windows.items():
            inside = {s: self._window_of(s, key) for s in (*op.ins, *op.outs) if s}
            attrs = dict(op.attrs)
            if "weights" in attrs:
                attrs["weights"] = max(0, min(window.size, attrs["weights"] - window.offset))
            ins, outs = (tuple(inside[s] if s else None for s in side) for side in (op.ins, op.outs))
            pieces.append(replace(op, ins=ins, outs=outs, attrs=attrs, label=f"{op.label} of {key}"))
        return pieces

    def _window_of(self, slot: str, key: str) -> str:
        """The window of a flat slot that belongs to one parameter, itself flat."""
        whole = self.slots[slot]
        assert self.layout is not None
        if whole.shape != (self.layout.size,):
            return slot
        window = self.layout.windows[key]
        symbol = self.slots[key].symbol if slot == "theta" else f"{whole.symbol}[{self.slots[key].symbol}]"
        name = f"{slot}[{key}]"
        self.slots[name] = replace(
            whole, name=name, shape=(window.size,), symbol=symbol, base=slot, offset=window.offset
        )
        return name

    def copy(self) -> Program:
        """A program of its own with the same slots and ops."""
        other = Program(self.dtype, self.title, training=self.training)
        other.slots, other.ops = dict(self.slots), list(self.ops)
        other.pinned, other.elided = set(self.pinned), set(self.elided)
        other.initializers, other.layout = dict(self.initializers), self.layout
        other.marks, other._weights = dict(self.marks), dict(self._weights)
        return other

    # ------------------------------------------------------------------ before a run

    def check(self) -> None:
        """Raise ProgramError if an op reads an activation that nothing has written."""
        written: set[str] = set()
        for position, op in enumerate(self.ops):
            for slot in op.reads:
                root = self.root(slot)
                if self.slots[root].role is Role.ACTIVATION and root not in written:
                    raise ProgramError(
                        f"op {position} ({op.label or op.name}) reads {slot!r} before any op has written it"
                    )
            written |= {self.root(s) for s in op.writes}

    def plan(self) -> Plan:
        """Offsets of the workspace slots, reusing the place of every slot that nobody reads any more."""
        end = len(self.ops)
        pinned = {self.root(s) for s in self.pinned}
        life: dict[str, tuple[int, int]] = {}
        for position, op in enumerate(self.ops):
            for slot in (*op.ins, *op.outs):
                if slot is not None:
                    root = self.root(slot)
                    first = life.get(root, (position, 0))[0]
                    life[root] = (first, position)
        produced = {self.root(s) for op in self.ops for s in op.writes - op.reads}
        wanted = []
        for name, made in self.slots.items():
            if made.base is None and made.role in WORKSPACE and (name in life or name in pinned):
                first, last = life.get(name, (0, end))
                from_outside = name not in produced
                wanted.append(
                    (name, made.nbytes, -1 if from_outside else first, end if name in pinned else last)
                )
        return plan_workspace(wanted)

    # ------------------------------------------------------------------ printing

    def __str__(self) -> str:
        rows = [("#", "equation", "op", "formula", "writes", "label")]
        output_error: set[str] = set()
        for position, op in enumerate(self.ops):
            equation = self._equation(op, output_error)
            written = ", ".join(
                f"{self.slots[s].symbol} {_show(self._unpadded(s))}"
                for s in dict.fromkeys(op.outs)
                if s and self.slots[s].role in WORKSPACE | {Role.PARAMETER, Role.GRADIENT}
            )
            rows.append((str(position), equation, op.name, self.formula(op), written, op.label))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                [
                    row[0].rjust(widths[0]),
                    *[c.ljust(w) for c, w in zip(row[1:5], widths[1:], strict=True)],
                    row[5],
                ]
            )
            for row in rows
        ]
        lines.insert(1, "-" * max(len(line) for line in lines))
        return "\n".join(line.rstrip() for line in [*self._heading(), *lines])

    __repr__ = __str__

    def _unpadded(self, slot: str) -> Shape:
        shape = self.slots[slot].shape
        return (self.layout.count,) if self.layout and shape == (self.layout.size,) else shape

    def _heading(self) -> list[str]:
        parameters = f"{self.layout.count:,} parameters" if self.layout else "no parameters"
        heading = f"{len(self.ops)} ops, {parameters}, {self.dtype}, workspace {self.plan().nbytes:,} bytes"
        return [f"{self.title}: {heading}" if self.title else heading]

    def _equation(self, op: Op, output_error: set[str]) -> str:
        if op.parts:
            return "+".join(dict.fromkeys(self._equation(part, output_error) for part in op.parts))
        equation = rule(op.name).equation
        if equation == "loss":
            delta = {self.root(s) for s in op.outs[1:] if s}
            output_error |= delta
            others = (part for o in self.ops for part in (o.parts or (o,)) if part is not op)
            turned = any(part.reads & part.writes & delta for part in others)
            return "loss" if turned or not delta else "loss, BP1"
        elif equation == "forward" and op.label.endswith(": backward"):
            return "BP2"
        elif equation == "BP2" and self.root(str(op.outs[0])) in output_error:
            return "BP1"
        return equation

    def formula(self, op: Op) -> str:
        """The op's mathematics with this program's symbols in it.

        >>> p = Program()
        >>> x, W, b = (p.slot(n, s, Role.INPUT) for n, s in (("x", (2, 3)), ("W", (4, 3)), ("b", (4,))))
        >>> _ = p.emit("linear", (x, W, b))
        >>> p.formula(p.ops[0])
        'z = x Wᵀ + b'
        """
        if op.parts:
            return "; ".join(self.formula(part) for part in op.parts)
        entry = rule(op.name)
        names = {
            operand.name: self.slots[slot].symbol if slot else "·"
            for operand, slot in zip((*entry.inputs, *entry.outputs), (*op.ins, *op.outs), strict=True)
        }
        terms = op.attrs.get("terms", ())
        chosen = re.sub(r"⟨(\w+):(.*?)⟩", lambda part: part[2] if part[1] in terms else "", entry.formula)
        text = chosen.format_map(names)
        if "sigma" in op.attrs:
            text = text.replace("σ", str(op.attrs["sigma"]))
        return text.replace(" = ", " += ", 1) if op.attrs.get("accumulate") else text


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}.{number}" for number in count(2))


def _used(ops: Iterable[Op]) -> set[str]:
    return {s for op in ops for s in (*op.ins, *op.outs) if s}


def _covered(program: Program) -> set[str]:
    """The slots that the ops use, and those that lie in memory that they use."""
    used = _used(program.ops)
    return {s for s in program.slots if program.touches([s], used)}


def _show(shape: Shape) -> str:
    return (
        "(" + ", ".join("n" if d is None else str(d) for d in shape) + ("," if len(shape) == 1 else "") + ")"
    )


def _scope_of(program: Program, op: Op) -> str:
    return next((program.slots[s].scope for s in op.outs if s is not None), "")


class _Backward:
    """The state of one walk back through the program: which slot holds the error of which."""

    def __init__(
        self, program: Program, seeds: Mapping[str, str], wrt: Sequence[str], parameters: bool
    ) -> None:
        self.program = program
        self.parameters = parameters
        self.label = ""
        for slot in (*seeds, *seeds.values(), *wrt):
            program.described(slot)
        self.errors: dict[str, str] = {}
        for slot, seed in seeds.items():
            owner = program.owner(slot)
            self.errors[owner] = program.view(seed, program.slots[owner].shape)
        self.wanted = {program.owner(s) for s in wrt}
        written: set[str] = set()
        for op in program.ops:
            entry = rule(op.name)
            forward = entry.adjoint is not None or entry.equation in ("forward", "loss")
            if forward and any(self.needs(s) for s in op.ins if s):
                made = {program.owner(s) for s in op.outs if s and program.slots[s].role in WORKSPACE}
                if again := made & written:
                    raise ProgramError(
                        f"{op.label or op.name}: {op.name} overwrites {again.pop()!r}: the error cannot pass "
                        f"a slot whose content is gone: give the op an output of its own"
                    )
                written |= made
                self.wanted |= made

    def needs(self, slot: str | None) -> bool:
        if slot is None:
            return False
        owner = self.program.owner(slot)
        return owner in self.wanted or (self.parameters and self.program.slots[owner].role is Role.PARAMETER)

    def has_error(self, slot: str) -> bool:
        return self.program.owner(slot) in self.errors

    def error(self, slot: str | None) -> str:
        owner = self.program.owner(str(slot))
        if owner not in self.errors:
            raise ProgramError(f"{self.label}: no error has reached {slot!r}")
        return self.program.view(self.errors[owner], self.program.slots[str(slot)].shape)

    def send(self, op: str, ins: Sequence[str], to: str | None, **attrs: Any) -> None:
        if not self.needs(to):
            return
        program, slot = self.program, str(to)
        owner = program.owner(slot)
        again = owner in self.errors
        if not again:
            parameter = program.slots[owner].role is Role.PARAMETER
            self.errors[owner] = program.gradient(owner) if parameter else program.error_slot(owner)
        target = self.error(slot)
        output = self._only_output(op)
        if not again:
            program.emit(op, ins, {output: target}, label=self.label, **attrs)
        elif rule(op).accumulates:
            program.emit(op, ins, {output: target}, label=self.label, accumulate=True, **attrs)
        else:
            term = program.error_slot(slot)
            program.emit(op, ins, {output: term}, label=self.label, **attrs)
            program.emit("copy", (term,), {"v": target}, label=self.label, accumulate=True)

    def rewrite(
        self, op: str, ins: Sequence[str], error_of: str | None, to: str | None, **attrs: Any
    ) -> None:
        if not self.needs(to):
            return
        program, slot = self.program, str(to)
        delta = self.error(error_of)
        output = self._only_output(op)
        program.emit(op, ins, {output: delta}, label=self.label, **attrs)
        owner = program.owner(slot)
        if owner in self.errors or program.slots[owner].role is Role.PARAMETER:
            self.send("copy", (delta,), to=slot)
        else:
            self.errors[owner] = program.view(delta, program.slots[owner].shape)

    def _only_output(self, op: str) -> str:
        names = [operand.name for operand in rule(op).outputs]
        if len(names) != 1:
            raise ProgramError(f"{self.label}: op {op!r} writes {', '.join(names)}; an error is one slot")
        return names[0]
