"""The vocabulary: every op that a program may hold, with its shape rule, formula, source and adjoint.

An op reads slots and writes slots; what it does is one line of mathematics. Backends bring the code:
a table from op name to function. Here stands only what is true on every backend.

The shape rule is a *signature*, a line such as ``x(B,K) W(N,K) b(N) -> z(B,N)``: operand names, each
with its dimensions; equal letters are equal sizes, ``*S`` stands for any number of dimensions, ``?``
marks an operand that may be absent, ``:int64`` fixes a dtype and ``:=X`` takes that of operand X (an
operand without either has the program's dtype). Tests read the signatures too: they make their inputs
from them, so a new op is tested on every backend as soon as it is registered.

Source of the four equations (BP1 to BP4): Nielsen, Neural Networks and Deep Learning, chapter 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from .activations import activation
from .errors import ArgumentError, ShapeError, unknown_name

__all__ = ["HYPER", "OPS", "Backward", "Operand", "Rule", "Shape", "fill", "register_op", "rule"]

Shape = tuple[int | None, ...]

#: The words of the ``hyper`` slot: every scalar of an update that may change between two steps.
HYPER = {
    name: word
    for word, name in enumerate(
        (
            "lr",
            "l2",
            "momentum",
            "beta1",
            "beta2",
            "epsilon",
            "beta1_power",
            "beta2_power",
            "l1",
            "weight_decay",
            "rho",
            "clip_norm",
            "clip_scale",
            "first_step",
            "l2_sum",
            "epsilon_hat",
        )
    )
}


#: What an operand's dtype may be: none (the program's), any, or one of these.
DTYPES = (None, "any", "bool", "float32", "float64", "int64")

#: The backends that an op may bring a kernel for.
KERNELS_FOR = ("numpy", "numba", "cuda")


#: An op's place in a step.
EQUATIONS = ("data", "forward", "loss", "BP1", "BP2", "BP3", "BP4", "reduce", "update")


class Node(Protocol):
    """The parts of an op that an adjoint looks at."""

    @property
    def ins(self) -> tuple[str | None, ...]:
        """The slots read, in the order of the signature."""

    @property
    def outs(self) -> tuple[str | None, ...]:
        """The slots written, in the order of the signature."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The op's attributes."""


class Backward(Protocol):
    """What an adjoint may do; :meth:`gpunn.program.Program.backpropagate` provides it."""

    def needs(self, slot: str | None) -> bool:
        """Whether ∂C/∂slot is wanted: slot is a parameter or depends on one."""

    def error(self, slot: str | None) -> str:
        """The slot that holds ∂C/∂slot, complete by now."""

    def send(self, op: str, ins: Sequence[str], to: str | None, **attrs: Any) -> None:
        """Emit ``op`` reading ``ins``; its output is (a part of) ∂C/∂to. Nothing where that is not wanted."""

    def rewrite(
        self, op: str, ins: Sequence[str], error_of: str | None, to: str | None, **attrs: Any
    ) -> None:
        """Emit ``op``, which turns ∂C/∂error_of into ∂C/∂to in place."""


Adjoint = Callable[[Backward, Any], None]


@dataclass(frozen=True)
class Operand:
    """One operand of a signature: its name, dimensions, dtype, and whether it may be absent."""

    name: str
    dims: tuple[str, ...]
    dtype: str | None = None
    optional: bool = False

    _PATTERN = re.compile(r"(\w+)(\??)\(([^)]*)\)(?::(=?\w+))?")

    @classmethod
    def parse(cls, text: str) -> Operand:
        """Read one operand.

        >>> Operand.parse("labels?(B):int64")
        Operand(name='labels', dims=('B',), dtype='int64', optional=True)
        """
        match = cls._PATTERN.fullmatch(text)
        if match is None:
            raise ArgumentError(
                f"not an operand: {text!r} (expected something like 'x(B,K)' or 't?(B):int64')"
            )
        name, optional, dims, dtype = match.groups()
        return cls(name, tuple(d.strip() for d in dims.split(",") if d.strip()), dtype, bool(optional))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.dims)})"


def cost_bounds(attrs: Mapping[str, Any]) -> tuple[float, float]:
    """Between what the cost −log p of a probability lies where an op is told to ``clip`` it to [ε, 1 − ε].

    >>> cost_bounds({}), cost_bounds({"clip": 0.25})
    ((-inf, inf), (0.2876820724517809, 1.3862943611198906))
    """
    clip = float(attrs.get("clip", 0.0))
    return (-math.log1p(-clip), -math.log(clip)) if clip else (-math.inf, math.inf)


@dataclass(frozen=True)
class Rule:
    """What is true of one op on every backend.

    Parameters
    ----------
    name : str
        The op's name.
    signature : str
        Operands and shapes, as the module's docstring describes.
    formula : str
        The mathematics, with operand names in braces; programs print it with their slots put in, and a
        part such as ``⟨l2: + l2 w⟩`` only where the attribute ``terms`` names it.
    source : str
        Where the formula stands.
    equation : str
        Its place in a step, one of :data:`EQUATIONS`.
    adjoint : callable or None
        Emits the ops that carry the error from the outputs back to the inputs.
    updates : tuple of str
        Outputs that are read too (an in-place op, a running sum).
    accumulates : bool
        Whether the op can add to its output instead of overwriting it (``accumulate=True``).
    elementwise : bool
        Whether the op may run window by window over the parts of its flat operands.
    attributes : callable or None
        Checks the op's attributes; raises :class:`gpunn.GpunnError`.
    kernels : mapping
        Functions by backend name, for ops registered from outside.
    """

    name: str
    signature: str
    formula: str
    source: str
    equation: str = "forward"
    adjoint: Adjoint | None = None
    updates: tuple[str, ...] = ()
    accumulates: bool = False
    elementwise: bool = False
    attributes: Callable[..., object] | None = None
    kernels: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left, _, right = self.signature.partition("->")
        ins, outs = (tuple(Operand.parse(word) for word in side.split()) for side in (left, right))
        object.__setattr__(self, "inputs", ins)
        object.__setattr__(self, "outputs", outs)
        names = [operand.name for operand in (*ins, *outs)]
        if not outs or len(set(names)) != len(names):
            raise ArgumentError(
                f"op {self.name!r}: a signature has outputs and no name twice, got {self.signature!r}"
            )
        if self.equation not in EQUATIONS:
            raise unknown_name(f"equation of op {self.name!r}:", self.equation, EQUATIONS)
        inputs_named = {operand.name for operand in ins}
        for operand in (*ins, *outs):
            like = (operand.dtype or "").removeprefix("=") if (operand.dtype or "").startswith("=") else None
            if sum(d.startswith("*") for d in operand.dims) > 1:
                raise ArgumentError(f"op {self.name!r}: {operand} has two open ends, expected one * at most")
            if like is not None and (like not in inputs_named or operand in ins):
                raise ArgumentError(
                    f"op {self.name!r}: {operand} takes the dtype of {like!r}, which is no input"
                )
            if like is None and operand.dtype not in DTYPES:
                raise unknown_name(f"dtype of {operand} in op {self.name!r}:", operand.dtype, DTYPES[1:])
        try:
            self.formula.format_map(dict.fromkeys(names, ""))
        except (KeyError, ValueError, IndexError) as error:
            raise ArgumentError(
                f"op {self.name!r}: the formula {self.formula!r} has other braces than the operands "
                f"{', '.join(names)}: {error}"
            ) from error
        for backend, function in self.kernels.items():
            if not callable(function):
                raise ArgumentError(f"op {self.name!r}: {backend}={function!r} is no function")
        missing = set(self.updates) - {operand.name for operand in outs}
        if missing:
            raise ArgumentError(f"op {self.name!r}: updates {sorted(missing)}, which are not outputs")

    inputs: tuple[Operand, ...] = field(init=False, repr=False)
    outputs: tuple[Operand, ...] = field(init=False, repr=False)

    def resolve(
        self, shapes: Sequence[Shape | None], attrs: Mapping[str, Any], label: str = ""
    ) -> dict[str, Shape | None]:
        """The shape of every operand, given those of the inputs (then, optionally, of the outputs).

        ``None`` for an operand is "absent" (optional) or "to be found" (an output).

        >>> rule("linear").resolve([(10, 784), (30, 784), (30,)], {})["z"]
        (10, 30)
        >>> rule("linear").resolve([(10, 784), (30, 700), (30,)], {}, "layer 0 Dense")
        Traceback (most recent call last):
            ...
        gpunn.errors.ShapeError: layer 0 Dense: linear: W has shape (30, 700), expected (N, K) with K = 784
        """
        sizes, given, where = self._match(shapes, attrs, label)
        found: dict[str, Shape | None] = {}
        for position, (operand, shape) in enumerate(given):
            absent = shape is None and position < len(self.inputs)
            found[operand.name] = (
                None if absent else (shape if shape is not None else fill(operand, sizes, where))
            )
        return found

    def sizes(
        self, shapes: Sequence[Shape | None], attrs: Mapping[str, Any], label: str = ""
    ) -> dict[str, Any]:
        """The size behind each letter of the signature, given the operands' shapes.

        >>> rule("linear").sizes([(10, 784), (30, 784), (30,)], {})
        {'B': 10, 'K': 784, 'N': 30}
        """
        return self._match(shapes, attrs, label)[0]

    def _match(
        self, shapes: Sequence[Shape | None], attrs: Mapping[str, Any], label: str
    ) -> tuple[dict[str, Any], list[tuple[Operand, Shape | None]], str]:
        where = f"{label}: {self.name}" if label else self.name
        operands = (*self.inputs, *self.outputs)
        if len(shapes) > len(operands):
            raise ShapeError(f"{where}: {len(shapes)} operands given, expected {self.signature}")
        given = list(zip(operands, [*shapes, *[None] * (len(operands) - len(shapes))], strict=True))
        letters = self.letters
        sizes: dict[str, Any] = {key: value for key, value in attrs.items() if key in letters}
        for position, (operand, shape) in enumerate(given):
            if shape is not None:
                _unify(operand, shape, sizes, where)
            elif position < len(self.inputs) and not operand.optional:
                raise ShapeError(f"{where}: operand {operand} is missing, expected {self.signature}")
        return sizes, given, where

    @property
    def letters(self) -> set[str]:
        """The letters of the signature."""
        return {d for operand in (*self.inputs, *self.outputs) for d in operand.dims}


def _unify(operand: Operand, shape: Shape, sizes: dict[str, Any], where: str) -> None:
    """Match one shape with its operand; sizes learns the letters met for the first time."""
    rest = [i for i, d in enumerate(operand.dims) if d.startswith("*")]
    at = rest[0] if rest else len(operand.dims)
    fixed = len(operand.dims) - len(rest)
    known = dict(sizes)
    ok = len(shape) >= fixed if rest else len(shape) == fixed
    if ok:
        middle = len(shape) - fixed
        pairs: list[tuple[str, Any]] = list(zip(operand.dims[:at], shape[:at], strict=True))
        if rest:
            pairs.append((operand.dims[at], tuple(shape[at : at + middle])))
            pairs += zip(operand.dims[at + 1 :], shape[at + middle :], strict=True)
        for letter, size in pairs:
            want = int(letter) if letter.isdigit() else sizes.get(letter)
            if want is None:
                sizes[letter] = size
            elif size is not None and want != size:
                ok = False
    if not ok:
        letters = [d for d in operand.dims if known.get(d) is not None]
        having = " with " + ", ".join(f"{d} = {known[d]}" for d in letters) if letters else ""
        raise ShapeError(
            f"{where}: {operand.name} has shape {shape}, expected ({', '.join(operand.dims)}){having}"
        )


def fill(operand: Operand, sizes: Mapping[str, Any], where: str) -> Shape:
    """The shape of an operand whose letters are all known."""
    shape: list[int | None] = []
    for d in operand.dims:
        if d.isdigit():
            shape.append(int(d))
        elif sizes.get(d) is None:
            raise ShapeError(
                f"{where}: the size {d} of {operand} is not known: give the op {d}=... or the slot"
            )
        elif d.startswith("*"):
            shape += sizes[d]
        else:
            shape.append(sizes[d])
    return tuple(shape)


# ------------------------------------------------------------------ adjoints


def _linear_adjoint(back: Backward, op: Node) -> None:
    x, weights, bias = op.ins
    delta = back.error(op.outs[0])
    back.send("linear_grad_input", (delta, str(weights)), to=x)
    back.send("linear_grad_weight", (delta, str(x)), to=weights)
    back.send("linear_grad_bias", (delta,), to=bias)


def _activate_adjoint(back: Backward, op: Node) -> None:
    (z,), (a,) = op.ins, op.outs
    sigma = op.attrs["sigma"]
    kept = a if activation(sigma).needs == "output" else z
    back.rewrite("activate_grad", (str(kept),), error_of=a, to=z, sigma=sigma)


def _softmax_adjoint(back: Backward, op: Node) -> None:
    (z,), (a,) = op.ins, op.outs
    back.rewrite("softmax_grad", (str(a),), error_of=a, to=z)


def _dropout_adjoint(back: Backward, op: Node) -> None:
    y, mask = op.outs
    back.rewrite("dropout_grad", (str(mask),), error_of=y, to=op.ins[0], rate=op.attrs["rate"])


def _add_adjoint(back: Backward, op: Node) -> None:
    delta = back.error(op.outs[0])
    for term in op.ins:
        back.send("copy", (delta,), to=term)


# ------------------------------------------------------------------ the table

_BOOK = "Nielsen, Neural Networks and Deep Learning"
_WEIGHTED = "C = Σᵢ wᵢ Cᵢ / Σᵢ wᵢ over the examples i of the batch, wᵢ = 1 where no weights are given"
_CLIPPED = "where clip = ε is given, C is that of probabilities from ε to 1 − ε"

#: What an update goes along: the clipped gradient of the data, and the gradient of the penalties.
_G = "g = ⟨clip:s ⟩{grad}⟨l2: + l2 w⟩⟨l1: + l1 sign w⟩⟨decay:; and w = w − lr decay w⟩"

OPS: dict[str, Rule] = {}


def register_op(
    name: str,
    signature: str,
    *,
    formula: str,
    source: str = "",
    equation: str = "forward",
    adjoint: Adjoint | None = None,
    updates: Sequence[str] = (),
    accumulates: bool = False,
    elementwise: bool = False,
    attributes: Callable[..., object] | None = None,
    **kernels: Callable[..., Any],
) -> Rule:
    """Add an op to the vocabulary.

    Parameters
    ----------
    name, signature, formula, source, equation, adjoint, updates, accumulates, elementwise, attributes
        As in :class:`Rule`.
    **kernels
        One function a backend, by the backend's name: ``numpy=f``. It is called with the views of the
        inputs, then of the outputs, in the signature's order (``None`` where an optional one is absent),
        and the attributes as keywords. It writes the outputs and nothing else. ``numba=f`` is compiled and
        must not raise; without it the Numba backend calls ``numpy=f`` between its own kernels. ``cuda=f`` is
        called with arrays of CuPy; without it a GPU refuses the op.

    Raises
    ------
    gpunn.GpunnError
        For a name that is taken or a signature that cannot be read.

    Examples
    --------
    >>> import gpunn, numpy
    >>> def double(x, y):
    ...     numpy.multiply(x, 2, out=y)
    >>> entry = gpunn.register_op("double", "x(*S) -> y(*S)", formula="{y} = 2 {x}", numpy=double)
    >>> entry.resolve([(3, 4)], {})["y"]
    (3, 4)
    >>> del gpunn.ops.OPS["double"]
    """
    if name in OPS:
        raise ArgumentError(f"op {name!r} exists already ({OPS[name].signature}): choose another name")
    if others := kernels.keys() - set(KERNELS_FOR):
        known = [*KERNELS_FOR, *(f.name for f in fields(Rule) if f.init and f.name != "kernels")]
        raise unknown_name("argument of register_op", others.pop(), known)
    entry = Rule(
        name,
        signature,
        formula,
        source,
        equation,
        adjoint,
        tuple(updates),
        accumulates,
        elementwise,
        attributes,
        kernels,
    )
    OPS[name] = entry
    return entry


def rule(name: str) -> Rule:
    """The rule of an op, or an error with the nearest op there is."""
    try:
        return OPS[name]
    except KeyError:
        raise unknown_name("op", name, OPS) from None


def _sigma_attribute(sigma: str) -> None:
    activation(sigma)


#: What an update may do beside following the gradient.
TERMS = ("l1", "l2", "decay", "clip")


def _update_attributes(weights: int, terms: Sequence[str] = ()) -> None:
    for term in terms:
        if term not in TERMS:
            raise unknown_name("term of an update", term, TERMS)


def _rate_attribute(rate: float, layer: int = 0) -> None:
    if not 0 <= rate < 1:
        raise ArgumentError(f"dropout rate is {rate!r}, expected at least 0 and below 1")


for _row in (
    # the minibatch
    Rule(
        "gather",
        "X(n,*S):any perm(n):int64 cursor(1):int64 -> x(B,*S):=X",
        "{x} = {X}[{perm}[{cursor} : {cursor}+B]]",
        "a minibatch is a random choice of examples: " + _BOOK + ", chapter 1",
        "data",
    ),
    Rule(
        "one_hot",
        "labels(B):int64 -> t(B,N)",
        "{t}ᵢⱼ = 1 if {labels}ᵢ = j else 0",
        _BOOK + ", chapter 1",
        "data",
    ),
    # forward
    Rule(
        "linear",
        "x(B,K) W(N,K) b(N) -> z(B,N)",
        "{z} = {x} {W}ᵀ + {b}",
        _BOOK + ", equation (25)",
        adjoint=_linear_adjoint,
    ),
    Rule(
        "activate",
        "z(*S) -> a(*S)",
        "{a} = σ({z})",
        _BOOK + ", equation (25)",
        adjoint=_activate_adjoint,
        attributes=_sigma_attribute,
    ),
    Rule(
        "softmax",
        "z(B,N) -> a(B,N)",
        "{a} = exp({z}) / Σⱼ exp({z}ⱼ)",
        _BOOK + ", equation (78)",
        adjoint=_softmax_adjoint,
    ),
    Rule(
        "dropout",
        "x(*S) key(2):int64 step(1):int64 -> y(*S) mask(*S):bool",
        "{mask} = Philox({key}, {step}) ≥ p, {y} = {x} ⊙ {mask}/(1 − p)",
        "Srivastava et al. 2014, JMLR 15, section 4, scaled in training as in section 10; Salmon et al. 2011 "
        "(Philox 4×32-10)",
        adjoint=_dropout_adjoint,
        attributes=_rate_attribute,
    ),
    Rule(
        "add",
        "u(*S) v(*S) -> y(*S)",
        "{y} = {u} + {v}",
        "He et al. 2015, arXiv:1512.03385, equation (1)",
        adjoint=_add_adjoint,
    ),
    # the cost and its derivative
    Rule(
        "quadratic",
        "a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean ½‖{a} − {t}‖², ∂C/∂a = ({a} − {t})/B",
        f"{_BOOK}, equation (26); {_WEIGHTED}",
        "loss",
    ),
    Rule(
        "mean_squared_error",
        "a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean ‖{a} − {t}‖²/N, ∂C/∂a = 2({a} − {t})/(B N)",
        f"the mean over all elements; {_WEIGHTED}",
        "loss",
    ),
    Rule(
        "mean_absolute_error",
        "a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean Σ|{a} − {t}|/N, ∂C/∂a = sign({a} − {t})/(B N)",
        f"the mean over all elements, sign 0 = 0; {_WEIGHTED}",
        "loss",
    ),
    Rule(
        "huber",
        "a(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean Σ h({a} − {t})/N, h(d) = ½d² for |d| ≤ 1, |d| − ½ beyond; "
        "∂C/∂a = clip({a} − {t}, ±1)/(B N)",
        f"Huber 1964, Annals of Mathematical Statistics 35, with δ = 1; {_WEIGHTED}",
        "loss",
    ),
    Rule(
        "binary_cross_entropy",
        "z(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = −mean Σ [{t} log σ({z}) + (1 − {t}) log(1 − σ({z}))], ∂C/∂z = (σ({z}) − {t})/B",
        f"{_BOOK}, equations (57) and (63); {_WEIGHTED}; {_CLIPPED}",
        "loss",
    ),
    Rule(
        "poisson",
        "z(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean Σ [e^{z} − {t} {z} + {t} log {t} − {t}], ∂C/∂z = (e^{z} − {t})/B",
        "half the deviance of Poisson: McCullagh and Nelder, Generalized Linear Models, table 2.1; "
        + _WEIGHTED,
        "loss",
    ),
    Rule(
        "softmax_cross_entropy",
        "z(B,N) labels(B):int64 w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean −log softmax({z})[{labels}], ∂C/∂z = (softmax({z}) − onehot({labels}))/B",
        f"{_BOOK}, equations (80) and (81); {_WEIGHTED}; {_CLIPPED}",
        "loss",
    ),
    Rule(
        "softmax_cross_entropy_targets",
        "z(B,N) t(B,N) w?(B) -> loss(2):float64 delta?(B,N)",
        "C = mean −{t}·log softmax({z}), ∂C/∂z = (softmax({z}) Σⱼ{t}ⱼ − {t})/B",
        f"Bishop, Pattern Recognition and Machine Learning, equation (4.108); {_WEIGHTED}",
        "loss",
    ),
    # backward
    Rule(
        "linear_grad_input",
        "delta(B,N) W(N,K) -> grad_x(B,K)",
        "{grad_x} = {delta} {W}",
        _BOOK + ", equation (BP2)",
        "BP2",
        accumulates=True,
    ),
    Rule(
        "linear_grad_weight",
        "delta(B,N) x(B,K) -> grad_W(N,K)",
        "{grad_W} = {delta}ᵀ {x}",
        _BOOK + ", equation (BP4)",
        "BP4",
        accumulates=True,
    ),
    Rule(
        "linear_grad_bias",
        "delta(B,N) -> grad_b(N)",
        "{grad_b} = Σ_batch {delta}",
        _BOOK + ", equation (BP3)",
        "BP3",
        accumulates=True,
    ),
    Rule(
        "activate_grad",
        "y(*S) -> delta(*S)",
        "{delta} = {delta} ⊙ σ′({y})",
        _BOOK + ", equations (BP1) and (BP2)",
        "BP2",
        updates=("delta",),
        attributes=_sigma_attribute,
    ),
    Rule(
        "softmax_grad",
        "a(B,N) -> delta(B,N)",
        "{delta} = {a} ⊙ ({delta} − Σⱼ {delta}ⱼ {a}ⱼ)",
        "the Jacobian of softmax, diag(a) − a aᵀ, times δ",
        "BP2",
        updates=("delta",),
    ),
    Rule(
        "dropout_grad",
        "mask(*S):bool -> delta(*S)",
        "{delta} = {delta} ⊙ {mask}/(1 − p)",
        "the adjoint of a product with a constant",
        "BP2",
        updates=("delta",),
        attributes=_rate_attribute,
    ),
    Rule(
        "copy",
        "u(*S) -> v(*S)",
        "{v} = {u}",
        "the adjoint of a sum hands the error to each term",
        "BP2",
        accumulates=True,
    ),
    # reductions
    Rule(
        "weight_penalty",
        "theta(P) hyper(H):float64 -> penalty(1):float64",
        "{penalty} = Σ over the weights of 0⟨l2: + ½ l2 w²⟩⟨l1: + l1 |w|⟩",
        _BOOK + ", equations (87) and (95) with l2 or l1 = λ/n",
        "reduce",
        attributes=_update_attributes,
    ),
    Rule(
        "tally",
        "loss(2):float64 step(1):int64 penalty?(1):float64 -> loss_sum(3):float64 first_bad(1):int64",
        "{loss_sum} += (C Σw, Σw, penalty Σw); {first_bad} = the first step whose {loss} is not finite",
        "the mean over an epoch of the minibatch costs, each weighted by its examples",
        "reduce",
        updates=("loss_sum", "first_bad"),
    ),
    Rule(
        "count_correct",
        "y(B,N) labels(B):int64 -> correct(1):float64",
        "{correct} += #(argmax {y} = {labels}), none where {y} holds NaN",
        _BOOK + ", chapter 1: the digit with the largest output",
        "reduce",
        updates=("correct",),
    ),
    Rule(
        "argmax",
        "t(B,N) -> labels(B):int64",
        "{labels} = argmax {t}",
        _BOOK + ", chapter 1: the digit with the largest output",
        "reduce",
    ),
    Rule(
        "count_top_k",
        "y(B,N) labels(B):int64 -> correct(1):float64",
        "{correct} += #({labels} among the k largest {y})",
        "Russakovsky et al. 2015, arXiv:1409.0575, section 4.1 (top-5)",
        "reduce",
        updates=("correct",),
    ),
    Rule(
        "count_exact",
        "y(B,N) t(B,N) -> correct(1):float64",
        "{correct} += #(every {y} on the side of its {t})",
        "subset accuracy; with one output, the accuracy of two classes",
        "reduce",
        updates=("correct",),
    ),
    Rule(
        "confusion",
        "y(B,N) labels(B):int64 -> counts(N,N):float64",
        "{counts}[{labels}, argmax {y}] += 1",
        "rows: the class it is; columns: the class it is taken for",
        "reduce",
        updates=("counts",),
    ),
    Rule(
        "confusion_by_output",
        "y(B,N) t(B,N) -> counts(N,2,2):float64",
        "{counts}[j, {t}ⱼ > ½, {y}ⱼ > threshold] += 1",
        "one confusion matrix an output",
        "reduce",
        updates=("counts",),
    ),
    Rule(
        "sum_absolute",
        "y(B,N) t(B,N) -> total(2):float64",
        "{total} += (Σ |{y} − {t}|, B N)",
        "the two sides of the mean absolute error",
        "reduce",
        updates=("total",),
    ),
    Rule(
        "moments",
        "y(B,N) t(B,N) -> sums(4,N):float64",
        "{sums} = (n, mean {t}, Σ({t} − mean)², Σ({y} − {t})²) of all rows so far",
        "Chan, Golub, LeVeque 1983, The American Statistician 37, equation (2.1)",
        "reduce",
        updates=("sums",),
    ),
    Rule(
        "clip_by_norm",
        "grad(P) -> hyper(H):float64",
        "s = min(1, clip_norm/‖{grad}‖)",
        "Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1",
        "reduce",
        updates=("hyper",),
    ),
    # updates
    Rule(
        "schedule",
        "rates(T):float64 step(1):int64 -> hyper(H):float64",
        "lr = {rates}[{step} − first step of the epoch]",
        "the learning rate of each step of an epoch, made by a schedule of gpunn.schedules",
        "update",
        updates=("hyper",),
    ),
    Rule(
        "l2_of_batch",
        "loss(2):float64 -> hyper(H):float64",
        "l2 in {hyper} = l2_sum/Σw of {loss}",
        "scikit-learn's MLP: the penalty ½ α Σ w² of a minibatch is divided by what its examples weigh",
        "reduce",
        updates=("hyper",),
    ),
    Rule(
        "count_examples",
        "w(B) -> loss(2):float64",
        "Σw = B in {loss}, from here on",
        "scikit-learn's MLP: an epoch's cost is the mean over the examples of their minibatches' costs",
        "reduce",
        updates=("loss",),
    ),
    Rule(
        "epsilon_of_step",
        "-> hyper(H):float64",
        "ε in {hyper} = ε̂/√(1 − β₂ᵗ)",
        "Kingma and Ba, Adam, arXiv:1412.6980, end of section 2: lr √(1 − β₂ᵗ)/(1 − β₁ᵗ) m/(√v + ε̂)",
        "reduce",
        updates=("hyper",),
    ),
    Rule(
        "sgd",
        "grad(P) hyper(H):float64 -> theta(P)",
        "{theta} = {theta} − lr g, " + _G,
        _BOOK + ", equations (20), (21), (93) and (97)",
        "update",
        updates=("theta",),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "momentum",
        "grad(P) hyper(H):float64 -> velocity(P) theta(P)",
        "{velocity} = μ {velocity} − lr g, {theta} = {theta} + {velocity}, " + _G,
        _BOOK + ", equations (107) and (108)",
        "update",
        updates=("velocity", "theta"),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "nesterov",
        "grad(P) hyper(H):float64 -> velocity(P) theta(P)",
        "{velocity} = μ {velocity} − lr g, {theta} = {theta} + μ {velocity} − lr g, " + _G,
        "Sutskever et al. 2013, ICML, section 2, written for the point looked ahead to",
        "update",
        updates=("velocity", "theta"),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "adam",
        "grad(P) hyper(H):float64 -> m(P) v(P) theta(P)",
        "{m} = β₁{m} + (1−β₁)g, {v} = β₂{v} + (1−β₂)g², {theta} = {theta} − lr m̂/(√v̂ + ε), " + _G,
        "Kingma and Ba, Adam, arXiv:1412.6980, algorithm 1; the decay as in Loshchilov and Hutter, "
        "arXiv:1711.05101, algorithm 2",
        "update",
        updates=("m", "v", "theta"),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "rmsprop",
        "grad(P) hyper(H):float64 -> v(P) theta(P)",
        "{v} = ρ{v} + (1−ρ)g², {theta} = {theta} − lr g/(√{v} + ε), " + _G,
        "Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6e",
        "update",
        updates=("v", "theta"),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "adagrad",
        "grad(P) hyper(H):float64 -> v(P) theta(P)",
        "{v} = {v} + g², {theta} = {theta} − lr g/(√{v} + ε), " + _G,
        "Duchi, Hazan, Singer 2011, JMLR 12, with a diagonal matrix",
        "update",
        updates=("v", "theta"),
        elementwise=True,
        attributes=_update_attributes,
    ),
    Rule(
        "advance",
        "-> cursor(1):int64 step(1):int64 hyper(H):float64",
        "{cursor} += rows, {step} += 1, βᵢᵗ = βᵢᵗ βᵢ",
        "the device counts its own steps",
        "update",
        updates=("cursor", "step", "hyper"),
    ),
):
    OPS[_row.name] = _row

#: gpunn's own ops; others come from outside.
OWN = frozenset(OPS)
