"""The page of equations: each op with the code that computes it, read from the code's own tables.

The NumPy function is that of the backend's table. What Numba's and CUDA's backends call is found by lowering
a program of the one op, with nothing to run it, and noting the kernels that come out.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpunn
from gpunn import activations, initializers, metrics, ops
from gpunn.backends.cuda import lower as cuda
from gpunn.backends.numba import bodies, matrix, products
from gpunn.backends.numba.code import Processor
from gpunn.backends.numba.lower import Lowering
from gpunn.backends.numba.runner import Kernels
from gpunn.backends.numpy import KERNELS, SIGMA

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests")]  # Attributes to try an op with, and its reference.

from definitions import text_of  # noqa: E402
from one_op import program_of  # noqa: E402
from parts import NOTE, formula, table  # noqa: E402
from references import ATTRIBUTES, REFERENCES  # noqa: E402

os.environ.pop("GPUNN_CUDA_KERNELS", None)  # The page tells of the kernels that run unless it is set.

#: What every op of the table is held to, and by which part of its name the ops are chosen.
TEST = "tests/test_parity.py::test_an_op_computes_its_formula"

#: A signature's operands as the mathematics writes them.
SYMBOLS = {
    "delta": "δ",
    "grad": "∇C",
    "grad_W": "∂C/∂W",
    "grad_b": "∂C/∂b",
    "grad_x": "∂C/∂x",
    "theta": "Θ",
    "velocity": "v",
}

#: Where an op stands in a step, as a chapter of the page.
CHAPTERS = {
    "data": "The minibatch",
    "forward": "Forward",
    "loss": "The cost and its derivative",
    "BP2": "The error, backwards",
    "BP4": "The gradient of the weights",
    "BP3": "The gradient of the biases",
    "reduce": "Sums, metrics and numbers of a step",
    "update": "The update",
}


@dataclass(frozen=True)
class Place:
    """A definition in a file of the repository."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"`{self.name}` in `{self.path}`"


@dataclass(frozen=True)
class Code:
    """A line such as "NumPy: linear in ...": how it begins, definitions, and what is said after them."""

    begins: str
    places: list[Place] = field(default_factory=list)
    beside: str = ""

    def shown(self) -> str:
        """A line that opens to the code, with what that calls in its own file."""
        told = ", ".join(filter(None, [*map(str, self.places), self.beside]))
        line = re.sub("`(.*?)`", r"<code>\1</code>", f"{self.begins} {told}")
        if not self.places:
            return f'<p class="code">{line}</p>'
        places = dict.fromkeys(each for place in self.places for each in (place, *called(place)))
        blocks = (f"```{{definition}} {place.path} {place.name}\n```" for place in places)
        return "\n\n".join([f"<details><summary>{line}</summary>", *blocks, "</details>"])


def place(function: Callable[..., Any]) -> Place:
    """Where a function stands."""
    path = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").resolve().relative_to(ROOT)
    return Place(function.__name__, path.as_posix())


def called(place: Place) -> list[Place]:
    """The functions of its own file that a function of NumPy's or Numba's kernels calls."""
    if not place.path.startswith("gpunn/backends/numpy") and not place.path.endswith("numba/bodies.py"):
        return []
    names = re.findall(r"(?<![\w.])([a-z_]\w*)\(", text_of(place.path, place.name).partition("\n")[2])
    own = re.findall(r"^def (\w+)", (ROOT / place.path).read_text(encoding="utf-8"), re.MULTILINE)
    return [Place(name, place.path) for name in dict.fromkeys(names) if name in own and name != place.name]


# ------------------------------------------------------------------ what each backend does


def numpy_code(name: str) -> Code:
    """The function of the table."""
    return Code("NumPy:", [place(KERNELS[name])])


def numba_code(name: str) -> Code:
    """The bodies and products that a program of this op calls, small and large."""
    made: list[str] = []
    code = SimpleNamespace(
        processor=Processor(), address=lambda symbol, make, keep=True: made.append(symbol) or 0
    )
    for size in (7, 256):
        program = one_op(name, size)
        low = Lowering(program, code, SimpleNamespace(walkers=1), {}, {})
        low.begin()
        Kernels.lower(SimpleNamespace(), low, program.ops[0])
    names = dict.fromkeys(re.match(r"[a-z_0-9]+?(?=-|_float\d\d$|$)", symbol)[0] for symbol in made)
    tiles = [place(products.KERNELS[each]) for each in names if each in products.KERNELS]
    if tiles:
        made_of = f"which calls machine code that {' and '.join(map(str, tiles))} write"
        return Code("Numba:", [place(matrix.PRODUCTS[name])], made_of)
    return Code("Numba:", [place(getattr(bodies, each)) for each in names])


def cuda_code(name: str) -> Code:
    """The kernels that a program of this op launches, and its matrix products."""
    found: dict[Place, None] = {}
    product = False
    optional = [o.name for o in (*ops.OPS[name].inputs, *ops.OPS[name].outputs) if o.optional]
    for absent in (optional, []):
        program = one_op(name, 7, absent)
        for step in cuda.Lowering(program).steps(program.ops[0]):
            if isinstance(step, cuda.Product):
                product = True
                continue
            kernel, _, parameters = step.kernel.expression.partition("<")
            path = f"kernels/{step.kernel.file}"
            found[Place(kernel, path)] = None
            for functor in re.findall(r"cost::\w+", parameters):
                found[Place(functor, path)] = None
    maker = place(cuda.LOWER[name])
    beside = f"a matrix product of cuBLASLt, asked for by {maker}"
    return Code("CUDA:", list(found), beside if product else "")


def one_op(name: str, size: int, absent: Iterable[str] = ()) -> Any:
    """A program of this op alone, every size the same."""
    letters = {letter: size for letter in ops.OPS[name].letters if letter.isalpha()}
    sizes = {**letters, "*S": (size, size), "H": len(ops.HYPER), "n": 2 * size + 2}
    return program_of(name, sizes, absent=tuple(absent), **ATTRIBUTES.get(name, [{}])[0])


class Adjoints:
    """Notes the ops that carry an op's error back."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def needs(self, slot: Any) -> bool:
        return True

    def error(self, slot: Any) -> str:
        return "delta"

    def send(self, op: str, *args: Any, **attrs: Any) -> None:
        self.names[op] = None

    rewrite = send


def adjoints(rule: ops.Rule) -> list[str]:
    """The ops that an op's adjoint emits."""
    back = Adjoints()
    if rule.adjoint:
        rule.adjoint(back, one_op(rule.name, 7).ops[0])
    return list(back.names)


# ------------------------------------------------------------------ the page


def link(name: str) -> str:
    """An op's name, to its part of the page."""
    return f"[`{name}`](#{name})"


def told(rule: ops.Rule) -> str:
    """One op."""
    parts = [f"Shapes: `{rule.signature}`.", f"Source: {rule.source}."]
    if names := adjoints(rule):
        parts.append(f"Its error is carried back by {', '.join(map(link, names))}.")
    code = (numpy_code(rule.name), numba_code(rule.name), cuda_code(rule.name))
    path, _, test = TEST.partition("::")
    held = Code(
        f"Test: {Place(test, path)}, against",
        [Place(REFERENCES[rule.name].__name__, "tests/references.py")],
    )
    return "\n\n".join(
        [
            f"### {rule.name}",
            f"`{formula(rule, SYMBOLS)}`",
            "\n".join(f"{part}  " for part in parts).rstrip(),
            *(each.shown() for each in (*code, held)),
        ]
    )


def sigma(row: activations.Activation) -> str:
    """One σ."""
    twin = SIGMA[row.name]
    expression = inspect.getclosurevars(twin).nonlocals.get("expression", twin)
    array = (
        Code("NumPy:", [place(expression)])
        if inspect.isfunction(expression)
        else Code("NumPy:", beside=f"`numpy.{expression.__name__}`")
    )
    scalar = [place(row.sigma), place(row.sigma_prime)]
    struct = Place(f"sigma::{row.name}", "kernels/sigma.cuh")
    code = (Code("Definition, which Numba compiles:", scalar), array, Code("CUDA:", [struct]))
    return "\n\n".join(
        [f"### σ: {row.name}", f"`{row.formula}`", f"Source: {row.source}.", *(each.shown() for each in code)]
    )


def four_equations() -> str:
    """The table that the page begins with: BP1 to BP4 as ops."""
    losses = ", ".join(link(rule.name) for rule in ops.OPS.values() if rule.equation == "loss")
    after = link("activate_grad")
    return table(
        ("equation", "in the notes", "in a program"),
        [
            ("BP1", "`δᴸ = ∇ₐC ⊙ σ′(zᴸ)`", f"a cost writes ∂C/∂a ({losses}), then {after}"),
            ("BP2", "`δˡ = ((wˡ⁺¹)ᵀ δˡ⁺¹) ⊙ σ′(zˡ)`", f"{link('linear_grad_input')}, then {after}"),
            ("BP3", "`∂C/∂bˡ = δˡ`", f"{link('linear_grad_bias')}"),
            ("BP4", "`∂C/∂wˡ = δˡ (aˡ⁻¹)ᵀ`", f"{link('linear_grad_weight')}"),
        ],
    )


def cited() -> list[tuple[str, str]]:
    """(who says so, where it is in gpunn as a link): every source that a table or a docstring names."""
    found = [(rule.source, link(rule.name)) for rule in ops.OPS.values()]
    found += [(row.source, f"[`{row.name}`](activations.md)") for row in activations.ACTIVATIONS.values()]
    found += [(source, f"[`{name}`](layers.md)") for name, (_, source) in initializers.FORMULAS.items()]
    found += [(row.source, f"[`{row.name}`](metrics.md)") for row in metrics.METRICS.values()]
    pages = {
        "layers": gpunn.layers.LAYERS.values(),
        "optimizers": gpunn.optimizers.OPTIMIZERS.values(),
        "schedules": gpunn.schedules.SCHEDULES.values(),
    }
    things = [(kind, kind.__name__, page) for page, kinds in pages.items() for kind in kinds]
    things += [
        (member, f"net.{name}", "network")
        for name, member in vars(gpunn.Sequential).items()
        if not name.startswith("_")
    ]
    for thing, name, page in things:
        source = re.search(r"Source: (.*?)(?:\n\n|$)", inspect.getdoc(thing) or "", re.DOTALL)
        if source:
            found.append((" ".join(source[1].split()).rstrip("."), f"[`{name}`]({page}.md)"))
    return found


def book() -> str:
    """The equations of Nielsen's book that the sources name, in their order."""
    places: dict[str, list[str]] = {}
    for source, where in cited():
        for part in re.findall(r"Nielsen[^;]*", source):
            for number in re.findall(r"\((BP\d|\d+)\)", part):
                places.setdefault(number, []).append(where)
    order = sorted(places, key=lambda n: (n.startswith("BP"), int(n.removeprefix("BP"))))
    rows = [(f"({number})", ", ".join(dict.fromkeys(places[number]))) for number in order]
    return table(("equation", "where it is"), rows)


def papers() -> str:
    """The other sources."""
    rows: dict[str, list[str]] = {}
    for source, where in cited():
        for part in source.split("; "):
            if re.search(r"\b(1[89]|20)\d\d\b|arXiv|JMLR|Bishop", part) and "Nielsen" not in part:
                rows.setdefault(part, []).append(where)
    return table(("source", "where it is"), sorted((s, ", ".join(dict.fromkeys(w))) for s, w in rows.items()))


def fused() -> str:
    """What backends run as one op."""
    rows: dict[str, list[str]] = {}
    for backend, names in (("Numba", matrix.PRODUCTS), ("CUDA", cuda.LOWER)):
        for name in names:
            if "+" in name:
                rows.setdefault(name, []).append(backend)
    shown = (
        (" + ".join(link(part) for part in name.split("+")), ", ".join(where)) for name, where in rows.items()
    )
    return table(("ops", "run as one by"), shown)


def page() -> str:
    """The page."""
    rules = [ops.OPS[name] for name in ops.OPS]
    chapters = {place: [rule for rule in rules if rule.equation == place] for place in CHAPTERS}
    missing = {rule.equation for rule in rules} - set(CHAPTERS)
    if missing:
        raise ValueError(f"no chapter for {', '.join(sorted(missing))}")
    parts = [
        NOTE,
        "# The equations",
        "Every op that a program can hold: its formula, and the code that computes it on each backend. "
        "NumPy's is the definition that people read; Numba's becomes machine code; CUDA's runs on an NVIDIA "
        "GPU. A test makes inputs from each signature and holds all of them against a reference in float64 "
        f"that shares no code with gpunn, at sizes 1, 31, 33, 1025 and random ones: `{TEST}`. For one op:",
        '```sh\npytest tests/test_parity.py -k "computes_its_formula and linear"\n```',
        "This page is written from the backends' own tables, so it names what runs. What stands in brackets "
        "is there where it was asked for, such as an l2 penalty.",
        "## The four equations",
        "C is the mean cost of a minibatch, whose examples are rows here: so wᵀ and δ change places, and C's "
        "gradients are sums over the minibatch.",
        four_equations(),
        "`print(net.program(...))` shows a whole step in this way; [Ops](ops.md) explains signatures and "
        "adjoints.",
    ]
    for equation, title in CHAPTERS.items():
        parts += [f"## {title}", *map(told, chapters[equation])]
        if equation == "forward":
            parts += map(sigma, (activations.ACTIVATIONS[name] for name in activations.ACTIVATIONS))
    parts += [
        "## Run as one",
        "A backend may join ops, so that a minibatch is never copied, a result is activated while it is in "
        "the cache, and a gradient goes into its weights without being written. The list above stays the "
        "definition, and parity tests compare the two.",
        fused(),
        "## Nielsen's book",
        "Equations of *Neural Networks and Deep Learning* that the code names as its source. "
        "[The page on the book](nielsen.md) goes through it with its numbers; the other notes have pages of "
        "their own.",
        book(),
        "## Papers and books",
        papers(),
    ]
    return "\n\n".join(parts)
