"""The part of the page that shows every op by itself, beside what the machine can do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import tables
from . import charts
from .compared import NOT_YET, Record, percent, plural, span
from .markup import Markup, element, heat, listed, table, together
from .method import measured_on

#: Ops by what they do; one that is not here is of the last kind.
KINDS = {
    "σ, σ′, dropout": ("activate", "activate_grad", "softmax", "softmax_grad", "dropout", "dropout_grad"),
    "costs": (
        "quadratic",
        "mean_squared_error",
        "mean_absolute_error",
        "huber",
        "binary_cross_entropy",
        "softmax_cross_entropy",
        "softmax_cross_entropy_targets",
    ),
    "updates": ("sgd", "momentum", "nesterov", "adam", "rmsprop", "adagrad"),
}
OTHERS = "sums, data, measures"

ROOFS = (
    ". A matrix product cannot be much faster than the large one. Every other op has to read and write its "
    "arrays, and cannot do so faster than the copy, unless they are small enough to stay in a cache: a share "
    "above 100 % is no error. At the smallest sizes most of the time is the cost of a call."
)
SHARES = (
    "The share of the large product that each matrix product reaches, and of the large copy that every other "
    "op reaches: the darker, the closer. The time is that of the last size in float32. A size like 10×784×30 "
    "is minibatch × inputs × outputs."
)


class Timed(NamedTuple):
    """A kernel with its share of what bounds it: None where that was not measured."""

    kernel: Record
    share: float | None
    product: bool

    @property
    def op(self) -> str:
        words = [
            self.kernel["op"],
            self.kernel["variant"].rpartition("=")[2] if self.kernel["variant"] else "",
        ]
        return " ".join(filter(None, words))

    @property
    def time(self) -> float:
        return self.kernel["seconds"]["median"]

    @property
    def column(self) -> tuple[str, str]:
        return self.kernel["size"], self.kernel["dtype"]


def kernels(record: Record) -> Markup:
    """Rates beside the machine's own, then each op's share of them."""
    from ..kernels.record import share

    found = []
    for kernel in record["kernels"]:
        part, kind = share(kernel, record["floors"])
        found.append(Timed(kernel, part, kind == "product"))
    backends = list(dict.fromkeys(timed.kernel["backend"] for timed in found))
    figures = [figure for backend in backends for figure in _figures(backend, found, record)]
    return together(
        [
            _roofs(record),
            *(_summary(backend, found) for backend in backends),
            element("div", *figures, class_="panels"),
            element("p", SHARES) if found else element("p", NOT_YET, class_="missing"),
            element("div", *(_shares(family, backends) for family in families(found)), class_="tables"),
            _without(record),
            measured_on(record),
        ]
    )


def _roofs(record: Record) -> Markup:
    floors, threads = record["floors"], plural(record["setting"]["threads"], "thread")
    reached = [
        f"{charts.rate_of(floors[key])} in {words}"
        for key, words in (("fma_flops", "multiply-adds alone"), ("product_flops", "a large matrix product"))
        if floors.get(key)
    ]
    if floors.get("copy_bytes"):
        reached.append(f"{charts.bandwidth_of(floors['copy_bytes'])}, read and written, in a large copy")
    if not reached:
        why = f": {floors['error']}" if "error" in floors else ""
        return element("p", f"What the machine can do was not measured{why}.", class_="missing")
    rounds = {kernel["seconds"]["rounds"] for kernel in record["kernels"]}
    return element(
        "p",
        f"Times are medians of {span(rounds)} rounds. " if rounds else None,
        f"With {threads} this machine reached ",
        listed(reached),
        ROOFS,
    )


def _summary(backend: str, found: Iterable[Timed]) -> Markup | None:
    """The slowest, the median and the fastest op that is no matrix product, at its largest size."""
    last = {
        timed.op: timed
        for timed in found
        if timed.kernel["backend"] == backend and timed.kernel["dtype"] == "float32"
    }
    shares = sorted((t.share, op) for op, t in last.items() if not t.product and t.share is not None)
    if len(shares) < 3:
        return None
    (low, slowest), (high, best) = shares[0], shares[-1]
    middle = statistics.median(share for share, _ in shares)
    return element(
        "p",
        element("b", f"gpunn, {backend}"),
        f": at its largest size, half of {len(shares)} ops, matrix products apart, reach {percent(middle)} "
        f"of the copy or more; the least is {percent(low)} (",
        element("code", slowest),
        f"), the most {percent(high)} (",
        element("code", best),
        ").",
    )


def _figures(backend: str, found: Sequence[Timed], record: Record) -> list[Markup]:
    floors, device = record["floors"], record["setting"]["device"]
    here = [t for t in found if t.kernel["backend"] == backend and t.kernel["dtype"] == "float32"]
    products, others = ([t for t in here if t.product is product] for product in (True, False))
    figures = []
    if products and floors.get("copy_bytes") and floors.get("product_flops"):
        curves = [
            charts.Curve(
                op, [(t.kernel["flops"] / t.kernel["bytes"], t.kernel["flops"] / t.time) for t in each]
            )
            for op, each in _by_op(products).items()
        ]
        words = f"Roofline chart of the matrix products of gpunn's {backend} backend"
        picture = charts.roofline(
            curves, floors["copy_bytes"], floors["product_flops"], floors.get("fma_flops")
        )
        figures.append(_figure(f"{backend}: matrix products", f"product-{backend}-{device}", words, picture))
    if others and floors.get("copy_bytes"):
        words = f"Bytes a second of the other ops of gpunn's {backend} backend, over the bytes that they move"
        picture = charts.bandwidths(_curves(others), floors["copy_bytes"])
        figures.append(_figure(f"{backend}: all other ops", f"copy-{backend}-{device}", words, picture))
    return figures


def _figure(title: str, name: str, words: str, picture: Any) -> Markup:
    return element("figure", element("h4", f"gpunn, {title}"), charts.svg(picture, name, words))


def _curves(found: Sequence[Timed]) -> list[charts.Curve]:
    curves = []
    for each in _by_op(found).values():
        points = sorted((t.kernel["bytes"], t.kernel["bytes"] / t.time) for t in each)
        curves.append(charts.Curve(_kind(each[0].kernel["op"]), points))
    order = [*KINDS, OTHERS]
    return sorted(curves, key=lambda curve: order.index(curve.kind))


def _by_op(found: Iterable[Timed]) -> dict[str, list[Timed]]:
    groups: dict[str, list[Timed]] = {}
    for timed in found:
        groups.setdefault(timed.op, []).append(timed)
    return groups


def _kind(op: str) -> str:
    return next((kind for kind, ops in KINDS.items() if op in ops), OTHERS)


def families(found: Iterable[Timed]) -> list[dict[str, list[Timed]]]:
    """Ops that were measured at the same sizes, by name; each family is a table, the largest first."""
    alike: dict[tuple[Any, ...], dict[str, list[Timed]]] = {}
    for op, each in _by_op(found).items():
        columns = tuple(dict.fromkeys(timed.column for timed in each))
        alike.setdefault((each[0].product, columns), {})[op] = each
    return sorted(alike.values(), key=len, reverse=True)


def _shares(family: dict[str, list[Timed]], backends: Sequence[str]) -> Markup:
    columns = list(dict.fromkeys(timed.column for each in family.values() for timed in each))
    return (_by_size if len(columns) > len(family) else _by_name)(family, backends, columns)


def _by_name(
    family: dict[str, list[Timed]], backends: Sequence[str], columns: Sequence[tuple[str, str]]
) -> Markup:
    """A row for each op, a column for each size."""
    places = _places(family)
    unit = {size.partition(" ")[2] for size, _ in columns}
    unit = f" ({unit.pop()})" if len(unit) == 1 and unit != {""} else ""
    head = [f"op{unit}", *(word for _ in backends for word in (*(_size(at, unit) for at in columns), "time"))]
    above = [("", 1), *((f"gpunn, {backend}", len(columns) + 1) for backend in backends)]
    rows = []
    for op in family:
        row: list[Any] = [op]
        for backend in backends:
            here = [places.get((op, backend, column)) for column in columns]
            last = [timed for timed in here if timed and timed.kernel["dtype"] == "float32"]
            row += [_share(timed) for timed in here]
            row.append(tables.time_of(last[-1].time) if last else "–")
        rows.append(row)
    return table(head, rows, above=above, class_="shares", label=f"Shares of {', '.join(family)}")


def _by_size(
    family: dict[str, list[Timed]], backends: Sequence[str], columns: Sequence[tuple[str, str]]
) -> Markup:
    """A row for each size, a column for each op."""
    places = _places(family)
    head = ["size", *(list(backends) * len(family))]
    above = [("", 1), *((op, len(backends)) for op in family)]
    rows = []
    for at in columns:
        here = (places.get((op, backend, at)) for op in family for backend in backends)
        rows.append([_size(at), *(_share(timed, time=True) for timed in here)])
    return table(head, rows, above=above, class_="shares", label=f"Shares of {', '.join(family)}")


def _places(family: dict[str, list[Timed]]) -> dict[tuple[str, str, tuple[str, str]], Timed]:
    timed = [timed for each in family.values() for timed in each]
    return {(each.op, each.kernel["backend"], each.column): each for each in timed}


def _size(column: tuple[str, str], without: str = "") -> Markup:
    size, dtype = column
    shown = size.partition(" ")[0] if without else size
    return together([shown, element("small", f" {dtype}") if dtype != "float32" else None])


def _share(timed: Timed | None, *, time: bool = False) -> Markup:
    if timed is None or timed.share is None:
        return element("td", "–", class_="heat")
    took = tables.time_of(timed.time)
    words = together([percent(timed.share), element("small", f" {took}") if time else None])
    return heat(words, charts.BLUE, timed.share, None if time else took)


def _without(record: Record) -> Markup | None:
    """Backends that are not there, ops that could not be timed."""
    told = [*record.get("without", {}).items(), *record.get("failed", {}).items()]
    lines = [
        element("li", element("b", name), f": {str(why).strip().partition(chr(10))[0]}") for name, why in told
    ]
    if not lines:
        return None
    return together(
        [element("p", "Without a time:", class_="without"), element("ul", *lines, class_="without")]
    )
