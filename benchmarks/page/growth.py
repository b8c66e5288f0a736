"""The parts of the page that show how the time grows, who overtakes whom, and whether it learns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from .. import tables
from ..scaling import crossover
from . import charts
from .compared import DEVICES, NOT_YET, Record, plural, span, step
from .markup import Markup, element, together
from .method import measured_on

#: What the numbers along a direction count.
UNITS = {"width": "units", "depth": "hidden layers", "batch": "examples", "samples": "examples"}


def scaling(record: Record) -> Markup:
    """A panel for each direction, and who overtakes whom."""
    panels = [_direction(name, found, record) for name, found in record["directions"].items()]
    repeats = record["setting"]["repeats"]
    return together(
        [
            element(
                "p",
                f"Each point is the median of {repeats} repeats in one sitting; both axes are logarithmic.",
            ),
            element("div", *panels, class_="panels"),
            measured_on(record),
        ]
    )


def _direction(name: str, found: Record, record: Record) -> Markup:
    lines = lines_of(name, found)
    title = element("h4", name.capitalize())
    meaning, _, remark = found["meaning"].partition(": ")
    told = together(part[:1].upper() + part[1:] + ". " for part in (meaning, remark) if part)
    if not lines:
        return element("figure", title, element("p", told), element("p", NOT_YET, class_="missing"))
    what = "time for each example" if name == "batch" else "time a step"
    ends = "; ".join(
        f"{line.label} from {tables.time_of(line.seconds[0])} to {tables.time_of(line.seconds[-1])}"
        for line in lines
    )
    picture = charts.scaling(lines, what, UNITS.get(name, name))
    return element(
        "figure",
        title,
        element("p", told),
        charts.svg(
            picture,
            f"growth-{name}-{record['setting']['device']}",
            f"Line chart of {what}: {meaning}. {ends}",
        ),
        element("ul", *(element("li", *said) for said in overtaken(lines, name)), class_="crossovers"),
    )


def lines_of(name: str, found: Record) -> list[charts.Line]:
    """gpunn's backends first; along ``batch`` the time of one example, as a larger step is more work."""
    peers = {peer: told for point in found["points"] for peer, told in point["peers"].items()}
    order = [*tables.PREFERRED, *(peer for peer in peers if peer not in tables.PREFERRED)]
    lines = []
    for peer in sorted(peers, key=order.index):
        here = [point for point in found["points"] if peer in point["peers"]]
        seconds = [step(point, peer) / (point["value"] if name == "batch" else 1) for point in here]
        values = [point["value"] for point in here]
        lines.append(charts.Line(peers[peer]["label"], values, seconds, peers[peer]["ours"]))
    return lines


def overtaken(lines: Sequence[charts.Line], name: str) -> list[list[Markup | str]]:
    """Who is faster from where on: between gpunn's backends, and of each of them with everyone else."""
    own, others = ([line for line in lines if line.own is mine] for mine in (True, False))
    pairs = [(first, second) for at, first in enumerate(own) for second in own[at + 1 :]]
    pairs += [(mine, other) for mine in own for other in others]
    return [said for pair in pairs if (said := _overtaken(*pair, name))]


def _overtaken(mine: charts.Line, other: charts.Line, name: str) -> list[Markup | str]:
    known = dict(zip(other.values, other.seconds, strict=True))
    shared = [(x, t, known[x]) for x, t in zip(mine.values, mine.seconds, strict=True) if x in known]
    if len(shared) < 2:
        return []
    values, first, second = (list(column) for column in zip(*shared, strict=True))
    at, winner, loser = crossover(values, second, first), mine, other
    if at is None:
        at, winner, loser = crossover(values, first, second), other, mine
        first, second = second, first
    ahead = [a <= b for a, b in zip(first, second, strict=True)]
    changes = sum(a != b for a, b in pairwise(ahead))
    who, whom = (element("b" if line.own else "span", line.label, class_="name") for line in (winner, loser))
    if not changes:
        ratios = span([b / a for a, b in zip(first, second, strict=True)], tables.times)
        return [who, " is faster than ", whom, f" throughout: {ratios} times as fast."]
    before = "below that it is slower" if changes == 1 else "below that now one is faster, now the other"
    return [
        "From about ",
        roughly(at),
        f" {UNITS.get(name, '')} on, ",
        who,
        " is faster than ",
        whom,
        f"; {before}.",
    ]


def roughly(value: float) -> str:
    """Two digits: where lines between measured points cross is not known better.

    >>> [roughly(value) for value in (7.3, 123.0, 2961.4)]
    ['7', '120', '3,000']
    """
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return f"{round(value / unit) * unit:,}"


def accuracy(record: Record) -> Markup:
    """Whether it learns as well as it should, in a line."""
    best = [run["best"] for run in record["runs"]]
    last = [run["final"] for run in record["runs"] if run.get("final") is not None]
    what = record["what"].removesuffix(", as a fraction")
    said = [
        f"{what[:1].upper()}{what[1:]}: ",
        element("b", _exactly(record["mean_best"])),
        f", the mean over {plural(len(best), 'run')} of each one's best epoch ({span(best, _exactly)})",
        f"; after the last epoch {_exactly(statistics.mean(last))} ({span(last, _exactly)})"
        if last
        else None,
        f". {DEVICES.get(record['setting']['device'], record['setting']['device'])}.",
    ]
    return element("li", *said, measured_on(record))


def _exactly(value: float) -> str:
    return f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
