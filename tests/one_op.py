"""Programs of one op."""

from __future__ import annotations

import numpy as np

from gpunn.ops import HYPER, fill, rule
from gpunn.program import Program
from gpunn.slots import Role


def program_of(name, sizes, dtype="float32", absent=(), **attrs):
    """A program of one op."""
    program, entry = Program(dtype), rule(name)
    slots = {}
    for operand in (*entry.inputs, *entry.outputs):
        if operand.name not in absent:
            kind = {None: dtype, "any": dtype, "=X": dtype}.get(operand.dtype, operand.dtype)
            slots[operand.name] = program.slot(operand.name, fill(operand, sizes, name), Role.INPUT, kind)
    outs = {o.name: slots[o.name] for o in entry.outputs if o.name in slots}
    program.emit(name, [slots.get(o.name) for o in entry.inputs], outs, **attrs)
    return program


def outcome(backend, name, values, *, sizes, dtype="float64", **attrs):
    """What an op writes, given some of its operands; the rest are zero, or absent where they may be."""
    absent = [o.name for o in rule(name).inputs if o.optional and o.name not in values]
    program = program_of(name, {"H": len(HYPER), **sizes}, dtype, absent, **attrs)
    program.pin(*program.slots)
    runner = backend.load(program, {}, fused=False)
    with np.errstate(all="ignore"):
        for slot, value in values.items():
            runner.write(slot, value)
        runner.run()
    return {slot: runner.read(slot) for slot in program.ops[0].writes}
