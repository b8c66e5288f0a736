"""Results as one HTML page that needs nothing else: what was measured, how, where, and what came out.

===============  ==========================================================================
``result.py``    what came out, and what is not yet measured
``method.py``    how it was measured, where and with what
``networks.py``  one workload: who is faster, by how much, how sure that is
``ops.py``       every op by itself, beside what the machine can do
``growth.py``    how the time grows, and who overtakes whom; whether it learns
``compared.py``  the figures behind the words
``charts.py``    Matplotlib's figures as SVG
``markup.py``    HTML as nested calls
===============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..results import read
from ..workloads import WORKLOADS
from .compared import DEVICES, NOT_YET, Record, of, rivals
from .growth import accuracy, scaling
from .markup import Markup, element, listed, together
from .method import machines, method
from .networks import workload
from .ops import kernels
from .result import result

__all__ = ["page"]

STYLE = Path(__file__).with_name("page.css")

STEPS = (
    "A workload is a network with its cost, its optimiser and its size of minibatch. Timed is a step: "
    "forward pass, backpropagation and update of all parameters, for one minibatch of data in memory. "
    "The spread is the distance of the quartiles, relative to the median. The start is what a user waits for "
    "at first: import + setting up + the first minibatches with all compilation."
)
OPS = "gpunn's programs consist of ops; here each is timed by itself, beside what the machine can do at all."
GROWTH = "The same kind of network, made larger in one direction at a time."
LEARNS = "Speed is worth nothing if the networks do not learn what they should."


def page(folder: Path) -> str:
    """The page of all records of a folder.

    Raises
    ------
    benchmarks.results.ResultError
        If a file of the folder is no record, or lacks its environment.
    """
    records = in_order(read(path) for path in sorted(folder.glob("*.json")))
    parts = (
        ("result", "What came out", result(records)),
        ("how", "How it was measured", method(records)),
        ("where", "Where and with what", machines(records)),
        ("networks", "Whole networks", _part(records, "workload", workload, STEPS)),
        ("ops", "Single ops", _part(records, "kernels", kernels, OPS)),
        ("growth", "How the time grows", _part(records, "scaling", scaling, GROWTH)),
        ("accuracy", "Whether it learns", _learnt(records)),
    )
    links = [element("a", title, href=f"#{name}") for name, title, _ in parts]
    body = element(
        "main",
        element("h1", "gpunn, measured"),
        _opening(records),
        element("nav", *links, aria_label="Parts of this page"),
        *(element("section", element("h2", title), *inside, id=name) for name, title, inside in parts),
    )
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", "gpunn, measured"),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", body), lang="en") + "\n"


def in_order(records: Iterable[Record]) -> list[Record]:
    """Workloads as in their own table; one that is not there comes last."""
    order = list(WORKLOADS)

    def place(record: Record) -> int:
        name = record.get("workload", {}).get("name")
        return order.index(name) if name in order else len(order)

    return sorted(records, key=place)


def _opening(records: Sequence[Record]) -> Markup:
    peers = rivals(of(records, "workload")).values()
    compared = "Here its training steps are timed beside what one would otherwise use."
    if peers:
        others = listed([element("span", label, class_="name") for label in peers], between="; ")
        compared = together(["Here the same training steps are timed in gpunn and in others: ", others, "."])
    return element(
        "p",
        "gpunn is a Python library that trains neural networks. A network, its cost and its optimiser are "
        "declared as a list of ops, which are the equations of backpropagation, and a ",
        element("em", "backend"),
        " runs that list. ",
        compared,
        class_="lede",
    )


def _part(
    records: Sequence[Record], kind: str, show: Callable[[Record], Markup], about: str
) -> list[Markup | None]:
    """The records of a kind, first those of a CPU; what is missing is said to be."""
    parts: list[Markup | None] = [element("p", about)]
    if not of(records, kind):
        return [*parts, element("p", NOT_YET, class_="missing")]
    for device, title in DEVICES.items():
        parts.append(element("h3", title))
        found = [show(record) for record in of(records, kind, device)]
        parts += found or [element("p", NOT_YET, class_="missing")]
    return parts


def _learnt(records: Sequence[Record]) -> list[Markup]:
    found = of(records, "accuracy")
    told = element("ul", *map(accuracy, found)) if found else element("p", NOT_YET, class_="missing")
    return [element("p", LEARNS), told]
