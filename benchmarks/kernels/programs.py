"""An op as a program of its own, with data on which it can run thousands of times and stay the same work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend, Runner
from gpunn.backends.numpy import SIGMA
from gpunn.ops import HYPER, Operand
from gpunn.program import Program
from gpunn.slots import Role

from .ops import Case

#: Random numbers drawn for one operand; a larger one repeats them.
BLOCK = 2**20

#: Minibatches gathered in one run, so that rows come from beyond the first caches as they do in an epoch.
MINIBATCHES = 1024

#: Words of the hyper slot: a small step, so that Θ stays near where it was. Others are ½.
WORDS = {"lr": 1e-3, "l2": 1e-4, "momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "rho": 0.9}


class Kernel:
    """One op made ready on one backend.

    Attributes
    ----------
    ops
        How often a run runs it: once, but ``gather`` for each of many minibatches.
    """

    def __init__(self, case: Case, backend: Backend) -> None:
        rng = np.random.default_rng(0)
        operands = {o.name: o for o in case.operands}
        values = {name: data(case, operand, rng) for name, operand in operands.items()}
        starts = cursors(case)
        operands |= dict.fromkeys(starts, operands.get("cursor"))
        values |= starts
        program = Program(case.dtype)
        for name, operand in operands.items():
            program.slot(name, case.shape(operand), Role.INPUT, case.dtype_of(operand))
        ins = [None if o.optional else o.name for o in case.rule.inputs]
        outs = {o.name: o.name for o in case.rule.outputs}
        for cursor in starts or ["cursor"]:
            program.emit(case.op, [cursor if name == "cursor" else name for name in ins], outs, **case.attrs)
        program.pin(*operands)
        self.ops = len(program.ops)
        self.runner: Runner = backend.load(program, {}, fused=False)
        self.synchronize: Callable[[], object] = getattr(backend, "synchronize", lambda: None)
        for slot, array in values.items():
            self.runner.write(slot, array)

    def run(self, steps: int) -> None:
        """So many runs, and until the device has finished: a GPU's launches come back before that.

        So the device is idle when the next call begins: what a clock around it tells is of this call alone.
        """
        self.runner.run(steps)
        self.synchronize()


def cursors(case: Case) -> dict[str, int]:
    """The first row of each minibatch of a ``gather``, in a slot of its own."""
    if case.op != "gather":
        return {}
    rows, batch = case.sizes["n"], case.sizes["B"]
    return {f"cursor{k}": k * batch for k in range(min(MINIBATCHES, rows // batch))}


def data(case: Case, operand: Operand, rng: np.random.Generator) -> Any:
    """Values of one operand that many runs leave what they are, or bring to a limit that is no denormal.

    δ that is multiplied in place is 0: by and by every other number would be infinite or denormal, and
    arithmetic on those is slow. A product with 0 takes as long as any other.
    """
    name, shape, dtype = operand.name, case.shape(operand), case.dtype_of(operand)
    if name == "labels":
        return rng.integers(0, case.sizes["N"], shape)
    if name == "perm":
        return rng.permutation(case.sizes["n"])
    if name == "hyper":
        return [WORDS.get(word, 0.5) for word in HYPER]
    if dtype == "int64":
        return rng.integers(0, 9, shape)
    if dtype == "bool":
        return drawn(rng.random, shape) < 0.5
    if name in case.rule.updates and case.rule.equation != "update":
        return 0
    if name == "y" and case.op == "activate_grad":
        z = drawn(rng.standard_normal, shape).astype(dtype)
        return kept_for(case.attrs["sigma"], z)
    if case.rule.equation in ("loss", "reduce") and name in ("a", "t", "y"):
        return drawn(rng.random, shape)
    values = drawn(rng.standard_normal, shape)
    return np.abs(values) if name == "v" else values


def drawn(draw: Callable[[int], Any], shape: tuple[int, ...]) -> Any:
    return np.resize(draw(min(int(np.prod(shape)), BLOCK)), shape)


def kept_for(sigma: str, z: Any) -> Any:
    """What σ′ is computed from: σ(z), or z."""
    if ACTIVATIONS[sigma].needs == "input":
        return z
    a = np.empty_like(z)
    SIGMA[sigma](z, a, np.empty_like(z), np.empty(z.shape, bool))
    return a
