"""The NumPy backend: the readable definition of every op, and what every other backend is held against.

A kernel is a function of the views of an op's inputs and outputs (``None`` where one is absent) and of
its attributes. It writes its outputs and allocates nothing of their size: what it needs beside them it
declares as ``scratch``, in the notation of the op signatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arena import ALIGNMENT
from ..errors import ProgramError, ShapeError
from ..ops import HYPER, OPS, Operand, fill, rule
from ..program import Program
from ..slots import WORKSPACE, Op, Role
from .base import Backend, Memory, Runner

__all__ = ["KERNELS", "SIGMA", "SIGMA_PRIME", "NumpyBackend", "NumpyRunner"]

Array = NDArray[Any]
Kernel = Callable[..., None]

KERNELS: dict[str, Kernel] = {}
SCRATCH: dict[str, tuple[Operand, ...]] = {}

LR, L2, MU = HYPER["lr"], HYPER["l2"], HYPER["momentum"]
BETA1, BETA2, EPSILON = HYPER["beta1"], HYPER["beta2"], HYPER["epsilon"]
POWER1, POWER2 = HYPER["beta1_power"], HYPER["beta2_power"]


#: 0 and 1 by dtype code: an operand of the array's own dtype halves the cost of a call on a small array.
ZERO = {code: np.zeros((), code) for code in "fd"}
ONE = {code: np.ones((), code) for code in "fd"}


def kernel(scratch: str = "") -> Callable[[Kernel], Kernel]:
    """Enter a function into the table of kernels under its own name."""

    def enter(function: Kernel) -> Kernel:
        name = function.__name__
        KERNELS[name] = function
        SCRATCH[name] = tuple(Operand.parse(word) for word in scratch.split())
        return function

    return enter


@lru_cache(maxsize=64)
def _range(n: int) -> Array:
    return np.arange(n)


# ------------------------------------------------------------------ the minibatch


@kernel()
def gather(X: Array, perm: Array, cursor: Array, x: Array) -> None:
    """Rows perm[cursor : cursor + B] of X; mode "clip" is what lets take() write straight into x."""
    start = cursor.item()
    X.take(perm[start : start + len(x)], axis=0, out=x, mode="clip")


@kernel()
def one_hot(labels: Array, t: Array) -> None:
    """Labels as rows of 0 and 1."""
    np.equal(labels[:, None], _range(t.shape[1]), out=t)


# ------------------------------------------------------------------ forward


@kernel()
def linear(x: Array, W: Array, b: Array, z: Array) -> None:
    """z = x Wᵀ + b."""
    np.matmul(x, W.T, out=z)
    np.add(z, b, out=z)


def _identity(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.copyto(a, z)


def _sigmoid(z: Array, a: Array, s: Array, mask: Array) -> None:
    """e = exp(−|z|); 1/(1 + e) for z ≥ 0, e/(1 + e) below: no overflow, no cancellation."""
    one = ONE[z.dtype.char]
    np.abs(z, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.add(a, one, out=s)
    np.greater_equal(z, ZERO[z.dtype.char], out=mask)
    np.putmask(a, mask, one)
    np.divide(a, s, out=a)


def _tanh(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.tanh(z, out=a)


def _relu(z: Array, a: Array, s: Array, mask: Array) -> None:
    np.maximum(z, ZERO[z.dtype.char], out=a)


class _Twins(dict[str, Callable[..., None]]):
    def __missing__(self, name: str) -> Any:
        raise ProgramError(
            f"activation {name!r} has no array twin for NumPy: add one to SIGMA and one to SIGMA_PRIME in "
            f"gpunn.backends.numpy"
        )


#: σ over arrays: (z, out, a scratch array like z, a mask like z). The twins of ``activations.py``.
SIGMA = _Twins(identity=_identity, sigmoid=_sigmoid, tanh=_tanh, relu=_relu)


@kernel(scratch="s(*S) mask(*S):bool")
def activate(z: Array, a: Array, *, sigma: str, s: Array, mask: Array) -> None:
    """a = σ(z)."""
    SIGMA[sigma](z, a, s, mask)


@kernel(scratch="m(B,1)")
def softmax(z: Array, a: Array, *, m: Array) -> None:
    """exp(z − max z), divided by its row sum."""
    np.maximum.reduce(z, axis=1, keepdims=True, out=m)
    np.subtract(z, m, out=a)
    np.exp(a, out=a)
    np.add.reduce(a, axis=1, keepdims=True, out=m)
    np.divide(a, m, out=a)


@kernel()
def add(u: Array, v: Array, y: Array) -> None:
    """y = u + v."""
    np.add(u, v, out=y)


# ------------------------------------------------------------------ the cost, in float64 always


def _mean(rows: Array, w: Array | None, loss: Array) -> Array | float:
    """Write C = Σ wᵢ Cᵢ / Σ wᵢ and Σ wᵢ; return wᵢ/Σw. A batch without weight costs nothing."""
    if w is None:
        loss[0] = np.add.reduce(rows) / len(rows)
        loss[1] = len(rows)
        return 1 / len(rows)
    mass = float(np.add.reduce(w, dtype=np.float64))
    loss[0] = np.dot(rows, w) / mass if mass else 0.0
    loss[1] = mass
    return np.divide(w[:, None], mass, dtype=np.float64) if mass else 0.0


def _scaled(d: Array, scale: Array | float, delta: Array) -> None:
    """δ = scale d; the product in float64, then one cast, is what NumPy does fastest."""
    np.multiply(d, scale, out=d)
    np.copyto(delta, d, casting="same_kind")


def _squared(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, d: Array, e: Array, factor: float
) -> None:
    """Cᵢ = ½ factor ‖aᵢ − tᵢ‖²."""
    np.copyto(d, a)
    np.copyto(e, t)
    np.subtract(d, e, out=d)
    scale: Array | float = 1 / len(d)
    if w is None:
        loss[0] = 0.5 * factor * scale * float(np.vdot(d, d))
        loss[1] = len(d)
    else:
        np.multiply(d, d, out=e)
        rows = np.add.reduce(e, axis=1)
        np.multiply(rows, 0.5 * factor, out=rows)
        scale = _mean(rows, w, loss)
    if delta is not None:
        _scaled(d, factor * scale, delta)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def quadratic(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ½‖aᵢ − tᵢ‖²."""
    _squared(a, t, w, loss, delta, d, e, 1.0)


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def mean_squared_error(
    a: Array, t: Array, w: Array | None, loss: Array, delta: Array | None, *, d: Array, e: Array
) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/N."""
    _squared(a, t, w, loss, delta, d, e, 2.0 / a.shape[1])


def _shifted(z: Array, p: Array, m: Array) -> None:
    """p = z − max z, row by row."""
    np.maximum.reduce(z, axis=1, keepdims=True, out=m)
    np.copyto(p, z)
    np.subtract(p, m, out=p)


@kernel(scratch="p(B,N):float64 m(B,1):float64 r(B):float64 at(B):int64")
def softmax_cross_entropy(
    z: Array,
    labels: Array,
    w: Array | None,
    loss: Array,
    delta: Array | None,
    *,
    p: Array,
    m: Array,
    r: Array,
    at: Array,
) -> None:
    """Cᵢ = log Σⱼ exp zᵢⱼ − zᵢ[labelᵢ], by log-sum-exp."""
    _shifted(z, p, m)
    flat = p.reshape(-1)
    np.multiply(_range(len(at)), p.shape[1], out=at)
    np.add(at, labels, out=at)
    np.take(flat, at, out=r, mode="clip")
    np.exp(p, out=p)
    np.add.reduce(p, axis=1, keepdims=True, out=m)
    np.subtract(np.log(m[:, 0]), r, out=r)
    scale = _mean(r, w, loss)
    if delta is not None:
        np.divide(p, m, out=p)
        flat[at] -= 1
        _scaled(p, scale, delta)


@kernel(scratch="p(B,N):float64 q(B,N):float64 m(B,1):float64 total(B,1):float64 r(B):float64")
def softmax_cross_entropy_targets(
    z: Array,
    t: Array,
    w: Array | None,
    loss: Array,
    delta: Array | None,
    *,
    p: Array,
    q: Array,
    m: Array,
    total: Array,
    r: Array,
) -> None:
    """Cᵢ = −Σⱼ tᵢⱼ log softmax(zᵢ)ⱼ."""
    _shifted(z, p, m)
    np.exp(p, out=q)
    np.add.reduce(q, axis=1, keepdims=True, out=m)
    np.divide(q, m, out=q)
    np.subtract(np.log(m), p, out=p)
    np.einsum("ij,ij->i", p, t, out=r)
    scale = _mean(r, w, loss)
    if delta is not None:
        np.add.reduce(t, axis=1, keepdims=True, out=total)
        np.multiply(q, total, out=q)
        np.subtract(q, t, out=q)
        _scaled(q, scale, delta)


# ------------------------------------------------------------------ backward


def _matmul(left: Array, right: Array, out: Array, accumulate: bool, s: Array) -> None:
    if accumulate:
        np.matmul(left, right, out=s)
        np.add(out, s, out=out)
    else:
        np.matmul(left, right, out=out)


@kernel(scratch="s(B,K)")
def linear_grad_input(delta: Array, W: Array, grad_x: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂x = δ W (BP2)."""
    _matmul(delta, W, grad_x, accumulate, s)


@kernel(scratch="s(N,K)")
def linear_grad_weight(delta: Array, x: Array, grad_W: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂W = δᵀ x (BP4)."""
    _matmul(delta.T, x, grad_W, accumulate, s)


@kernel(scratch="s(N)")
def linear_grad_bias(delta: Array, grad_b: Array, *, s: Array, accumulate: bool = False) -> None:
    """∂C/∂b = Σ_batch δ (BP3)."""
    np.add.reduce(delta, axis=0, out=s if accumulate else grad_b)
    if accumulate:
        np.add(grad_b, s, out=grad_b)


def _identity_prime(a: Array, delta: Array, s: Array) -> None:
    pass


def _sigmoid_prime(a: Array, delta: Array, s: Array) -> None:
    np.subtract(ONE[a.dtype.char], a, out=s)
    np.multiply(s, a, out=s)
    np.multiply(delta, s, out=delta)


def _tanh_prime(a: Array, delta: Array, s: Array) -> None:
    one = ONE[a.dtype.char]
    np.subtract(one, a, out=s)
    np.multiply(delta, s, out=delta)
    np.add(one, a, out=s)
    np.multiply(delta, s, out=delta)


def _relu_prime(a: Array, delta: Array, s: Array) -> None:
    """The sign of a ≥ 0 is 0 or 1, and NaN stays NaN."""
    np.sign(a, out=s)
    np.multiply(delta, s, out=delta)


#: δ ← δ ⊙ σ′: (a or z, whichever σ′ needs; δ; a scratch array like δ).
SIGMA_PRIME = _Twins(identity=_identity_prime, sigmoid=_sigmoid_prime, tanh=_tanh_prime, relu=_relu_prime)


@kernel(scratch="s(*S)")
def activate_grad(y: Array, delta: Array, *, sigma: str, s: Array) -> None:
    """δ ← δ ⊙ σ′ (BP1, BP2)."""
    SIGMA_PRIME[sigma](y, delta, s)


@kernel(scratch="s(B,N) r(B,1)")
def softmax_grad(a: Array, delta: Array, *, s: Array, r: Array) -> None:
    """δ ← a ⊙ (δ − Σⱼ δⱼ aⱼ)."""
    np.multiply(a, delta, out=s)
    np.add.reduce(s, axis=1, keepdims=True, out=r)
    np.subtract(delta, r, out=delta)
    np.multiply(delta, a, out=delta)


@kernel()
def copy(u: Array, v: Array, *, accumulate: bool = False) -> None:
    """v = u, or v += u."""
    if accumulate:
        np.add(v, u, out=v)
    else:
        np.copyto(v, u)


# ------------------------------------------------------------------ reductions


@kernel()
def l2_penalty(theta: Array, hyper: Array, penalty: Array, *, weights: int) -> None:
    """½ l2 Σ w² over the prefix of Θ that holds the weights."""
    w = theta[:weights]
    penalty[0] = 0.5 * hyper.item(L2) * float(np.vdot(w, w))


@kernel()
def tally(loss: Array, step: Array, penalty: Array | None, loss_sum: Array, first_bad: Array) -> None:
    """Add the batch's cost to the running sums; remember the first step whose cost is not finite."""
    cost, mass = loss.item(0), loss.item(1)
    loss_sum[0] += cost * mass
    loss_sum[1] += mass
    if penalty is not None:
        loss_sum[2] += penalty.item() * mass
    if not math.isfinite(cost) and first_bad.item() < 0:
        first_bad[0] = step.item()


@kernel(scratch="guess(B):int64 mask(B):bool")
def count_correct(y: Array, labels: Array, correct: Array, *, guess: Array, mask: Array) -> None:
    """How many rows have their largest output at the label."""
    np.argmax(y, axis=1, out=guess)
    np.equal(guess, labels, out=mask)
    correct[0] += np.count_nonzero(mask)


@kernel(scratch="guess(B):int64 wanted(B):int64 mask(B):bool")
def count_correct_targets(
    y: Array, t: Array, correct: Array, *, guess: Array, wanted: Array, mask: Array
) -> None:
    """How many rows agree with their targets on the largest output (one output: on its side of ½)."""
    if y.shape[1] == 1:
        np.greater(y[:, 0], 0.5, out=guess)
        np.greater(t[:, 0], 0.5, out=wanted)
    else:
        np.argmax(y, axis=1, out=guess)
        np.argmax(t, axis=1, out=wanted)
    np.equal(guess, wanted, out=mask)
    correct[0] += np.count_nonzero(mask)


# ------------------------------------------------------------------ updates


@kernel(scratch="s(P)")
def sgd(grad: Array, hyper: Array, theta: Array, *, weights: int, s: Array) -> None:
    """w ← w(1 − lr l2) − lr ∂C/∂w: the same as w − lr(∂C/∂w + l2 w) in one pass fewer."""
    lr = hyper.item(LR)
    if weights:
        theta[:weights] *= 1 - lr * hyper.item(L2)
    np.multiply(grad, lr, out=s)
    np.subtract(theta, s, out=theta)


def _penalised(grad: Array, hyper: Array, theta: Array, weights: int, g: Array) -> Array:
    """∇C + l2 w, in ``g`` where there is a penalty."""
    if not weights:
        return grad
    np.multiply(theta[:weights], hyper.item(L2), out=g[:weights])
    np.add(g[:weights], grad[:weights], out=g[:weights])
    np.copyto(g[weights:], grad[weights:])
    return g


@kernel(scratch="s(P)")
def momentum(grad: Array, hyper: Array, velocity: Array, theta: Array, *, weights: int, s: Array) -> None:
    """v ← μ v − lr g, θ ← θ + v."""
    g = _penalised(grad, hyper, theta, weights, s)
    np.multiply(g, hyper.item(LR), out=s)
    np.multiply(velocity, hyper.item(MU), out=velocity)
    np.subtract(velocity, s, out=velocity)
    np.add(theta, velocity, out=theta)


@kernel(scratch="s(P) g(P)")
def adam(
    grad: Array, hyper: Array, m: Array, v: Array, theta: Array, *, weights: int, s: Array, g: Array
) -> None:
    """Algorithm 1 of the paper, with β₁ᵗ and β₂ᵗ read from the hyper slot."""
    beta1, beta2 = hyper.item(BETA1), hyper.item(BETA2)
    g = _penalised(grad, hyper, theta, weights, g)
    np.multiply(m, beta1, out=m)
    np.multiply(g, 1 - beta1, out=s)
    np.add(m, s, out=m)
    np.multiply(v, beta2, out=v)
    np.multiply(g, g, out=s)
    np.multiply(s, 1 - beta2, out=s)
    np.add(v, s, out=v)
    np.multiply(v, 1 / (1 - hyper.item(POWER2)), out=s)
    np.sqrt(s, out=s)
    np.add(s, hyper.item(EPSILON), out=s)
    np.divide(m, s, out=s)
    np.multiply(s, hyper.item(LR) / (1 - hyper.item(POWER1)), out=s)
    np.subtract(theta, s, out=theta)


@kernel()
def advance(cursor: Array, step: Array, hyper: Array, *, rows: int) -> None:
    """Move on to the next minibatch."""
    cursor[0] += rows
    step[0] += 1
    if hyper.item(POWER1) or hyper.item(POWER2):
        hyper[POWER1] *= hyper[BETA1]
        hyper[POWER2] *= hyper[BETA2]


# ------------------------------------------------------------------ the runner


def _aligned(nbytes: int) -> Array:
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class NumpyRunner(Runner):
    """A loop over calls whose arguments are views made once."""

    def __init__(self, backend: NumpyBackend, program: Program, memory: Memory) -> None:
        self.program = program
        self._backend = backend
        self._roots: dict[str, Array] = {}
        plan = program.plan()
        workspace = _aligned(plan.nbytes)
        for name, slot in program.slots.items():
            if slot.base is not None:
                continue
            if slot.role in WORKSPACE and name in plan.offsets:
                at = plan.offsets[name]
                shape = tuple(d or 0 for d in slot.shape)
                self._roots[name] = workspace[at : at + slot.nbytes].view(slot.dtype).reshape(shape)
            elif name in memory:
                self._roots[name] = memory[name]
        needs = [self._scratch(op) for op in program.ops]
        sizes = [sum(_room(shape, dtype) for _, shape, dtype in need) for need in needs]
        scratch = _aligned(max(sizes, default=0))
        self._scratches = [_carve(scratch, need) for need in needs]
        self._calls: list[Callable[[], None] | None] = [None] * len(program.ops)
        self._compile(range(len(program.ops)))

    def _scratch(self, op: Op) -> list[tuple[str, tuple[int, ...], str]]:
        if op.name not in OPS or op.name not in SCRATCH or self._backend.kernel(op) is not KERNELS[op.name]:
            return []
        given = [self.program.slots[s].shape if s else None for s in (*op.ins, *op.outs)]
        sizes = rule(op.name).sizes(given, op.attrs, op.label)
        return [
            (o.name, tuple(d or 0 for d in fill(o, sizes, op.name)), o.dtype or self.program.dtype)
            for o in SCRATCH[op.name]
        ]

    def _compile(self, positions: Any) -> None:
        for i in positions:
            op = self.program.ops[i]
            named = [s for s in (*op.ins, *op.outs) if s is not None]
            if all(self.program.root(s) in self._roots for s in named):
                views = [None if s is None else self.array(s) for s in (*op.ins, *op.outs)]
                kernel, keywords = self._backend.kernel(op), {**op.attrs, **self._scratches[i]}
                if self._calls[i] is None:
                    _check_call(kernel, op, views, keywords)
                self._calls[i] = partial(kernel, *views, **keywords)

    def array(self, slot: str) -> Array:
        """The view of a slot."""
        described = self.program.described(slot)
        if slot in self.program.elided:
            raise ProgramError(
                f"slot {slot!r} is never written here, the ops around it run as one: pin it, or load the "
                f"program with fused=False"
            )
        name, offset = self.program.place(slot)
        root = self._roots[name]
        if name == slot:
            return root
        shape = tuple(d or 0 for d in described.shape)
        return root.reshape(-1)[offset : offset + described.size].reshape(shape)

    def bind(self, **data: Any) -> None:
        """Give the data slots their arrays."""
        for name, array in data.items():
            slot = self.program.slots.get(name)
            if slot is None or slot.role is not Role.DATA:
                continue
            fits = array.ndim == len(slot.shape) and all(
                want is None or want == got for want, got in zip(slot.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != slot.dtype or not array.flags.c_contiguous:
                raise ShapeError(
                    f"data slot {name!r} takes a contiguous {slot.dtype} array of shape {slot.shape}, "
                    f"got {array.dtype} {array.shape}"
                )
            self._roots[name] = array
        touched = [
            i for i, op in enumerate(self.program.ops) if any(s in data for s in (*op.ins, *op.outs) if s)
        ]
        self._compile(touched)

    def release(self) -> None:
        """Forget the arrays of the data slots."""
        for i, op in enumerate(self.program.ops):
            if any(s and self.program.slots[s].role is Role.DATA for s in op.ins):
                self._calls[i] = None
        for name, slot in self.program.slots.items():
            if slot.role is Role.DATA:
                self._roots.pop(name, None)

    def run(self, steps: int = 1) -> None:
        """Run that many steps."""
        calls = [call for call in self._calls if call is not None]
        if len(calls) < len(self._calls):
            missing = [
                s for s, slot in self.program.slots.items() if slot.role is Role.DATA and s not in self._roots
            ]
            raise ProgramError(f"bind() these data slots before run(): {', '.join(missing)}")
        with np.errstate(all="ignore"):
            for _ in range(steps):
                for call in calls:
                    call()

    def step_op(self, index: int) -> None:
        """Run one op."""
        call = self._calls[index]
        if call is None:
            raise ProgramError(f"bind() the data slots of op {index} before running it")
        with np.errstate(all="ignore"):
            call()


def _check_call(kernel: Kernel, op: Op, views: list[Any], named: dict[str, Any]) -> None:
    """An op's operands and attributes have to be what its kernel takes."""
    try:
        signature(kernel).bind(*views, **named)
    except TypeError as error:
        raise ProgramError(
            f"{op.label or op.name}: the kernel of {op.name!r} cannot take its operands and "
            f"attributes: {error}"
        ) from error


def _room(shape: tuple[int, ...], dtype: str) -> int:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _carve(buffer: Array, needs: list[tuple[str, tuple[int, ...], str]]) -> dict[str, Array]:
    views, at = {}, 0
    for name, shape, dtype in needs:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        views[name] = buffer[at : at + nbytes].view(dtype).reshape(shape)
        at += _room(shape, dtype)
    return views


class NumpyBackend(Backend):
    """Runs a program op by op with NumPy; always there."""

    name = "numpy"
    kernels = KERNELS

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros, aligned."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return _aligned(nbytes).view(dtype).reshape(shape)

    def upload(self, array: Array, dtype: str) -> Array:
        """The array itself where it is contiguous and of that dtype."""
        return np.ascontiguousarray(array, dtype=dtype)

    def download(self, array: Array) -> Array:
        """A copy."""
        return np.array(array)

    def load(
        self, program: Program, memory: Memory, *, fused: bool = True, keep_all: bool = False
    ) -> NumpyRunner:
        """Lay out the workspace and make the calls."""
        return NumpyRunner(self, self.prepared(program, memory, fused=fused, keep_all=keep_all), memory)
