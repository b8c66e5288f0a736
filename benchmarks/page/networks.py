"""The part of the page that shows one workload: who is faster, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import tables
from . import charts
from .compared import (
    Comparison,
    Record,
    busy,
    comparisons,
    device_step,
    fastest,
    percent,
    plural,
    product_rate,
    product_share,
    span,
    step,
    stolen,
    workload_of,
)
from .markup import Markup, element, listed, table, together

#: What stands behind a workload's name; sizes and the like are told from the record.
ABOUT = {
    "nielsen": "The first network of Nielsen's book",
    "nielsen-ce": "The same sizes with softmax and cross-entropy, which scikit-learn can train as well",
    "3b1b": "The network of 3Blue1Brown's videos",
    "mnist-mlp": "A wider network for MNIST, as in many tutorials",
    "speech": "A deep network with many outputs, of the kind that was used for speech",
    "wide": "A deep network of wide layers, where matrix products take nearly all the time",
}

COSTS = {"quadratic": "quadratic cost", "cross_entropy": "cross-entropy"}
OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}

#: How many processor cores are meant by "busy": further off than this is worth a column.
NOTABLE = 0.05


def workload(record: Record) -> Markup:
    """One workload: what it is, who is faster, the bars, the table, who is missing."""
    name, device = record["workload"]["name"], record["setting"]["device"]
    found = comparisons(record)
    return element(
        "section",
        element("h4", name, " ", _place(record)),
        element("p", *_described(record)),
        _standing(record, found),
        warning(found),
        _shared(record),
        element("div", _bars(record, found), _facts(record), class_="beside") if found else _facts(record),
        _times(record) if record["peers"] else None,
        _without(record),
        element("p", "Measured on ", tables.where([record]), ".", class_="where"),
        id=f"workload-{name}-{device}",
        class_="workload",
    )


def _shared(record: Record) -> Markup | None:
    """A warning where something else had the machine meanwhile."""
    told = tables.disturbed(record)
    words = f"The machine was not the benchmark's alone: {told}. Measure again."
    return element("p", words, class_="warning") if told else None


def _place(record: Record) -> Markup | None:
    """How many are faster than gpunn, of how many."""
    ours = tables.chosen(record)
    rivals = [name for name, peer in record["peers"].items() if not peer["ours"]]
    if ours is None or not rivals:
        return None
    place = 1 + sum(tables.ratio(record, name, ours) < 1 for name in rivals)
    words = "gpunn is the fastest" if place == 1 else f"gpunn is in place {place}"
    return element("span", f"{words} of {len(rivals) + 1}", class_="badge first" if place == 1 else "badge")


def _described(record: Record) -> list[Any]:
    found, setting = workload_of(record), record["setting"]
    kind, options = found.optimizer
    rates = ", ".join(f"{key} {value:g}" for key, value in options.items())
    return [
        f"{ABOUT.get(found.name, 'A network')}: ",
        element("span", found.shape, class_="name"),
        f", {found.hidden} hidden layers, {found.output} output; {found.parameters:,} parameters; "
        f"minibatches of {found.batch:,}; {COSTS.get(found.loss, found.loss)}; {OPTIMIZERS.get(kind, kind)} "
        f"({rates}). "
        f"Data: {record['data']}. {plural(setting['threads'], 'thread')}, {setting['precision']}.",
    ]


def _standing(record: Record, found: Sequence[Comparison]) -> Markup:
    """Whom gpunn is faster than, and everyone who is faster than gpunn."""
    ours = tables.chosen(record)
    if ours is None:
        return element("p", "gpunn itself was not measured here.", class_="missing")
    said: list[Any] = [element("b", record["peers"][ours]["label"])]
    said.append(f" takes {tables.time_of(step(record, ours))} a step.")
    rivals = [each for each in found if not each.own]
    ahead, behind = ([each for each in rivals if each.faster is faster] for faster in (False, True))
    if ahead:
        said += [" It is slower than ", listed([_faster(each) for each in ahead], between="; "), "."]
    if behind:
        said += [" It is faster than ", *_slower(behind, len(rivals)), "."]
    return element("p", *said)


def _faster(found: Comparison) -> Markup:
    note = f" (which is {tables.times(1 / found.value)} times as fast{_unsure(found)})"
    return together([_name(found), note])


def _slower(found: Sequence[Comparison], count: int) -> list[Any]:
    """All by name where they are few, else the nearest and the furthest."""
    told = [
        together([_name(each), f" ({tables.times(each.value)} times as fast{_unsure(each)})"])
        for each in found
    ]
    if len(found) <= 3:
        return [listed(told, between="; ")]
    which = f"all {count}" if len(found) == count else f"{len(found)} of {count}"
    return [which, " others, the nearest being ", told[0], " and the furthest ", told[-1]]


def _unsure(found: Comparison) -> str:
    return ", too close to call" if found.close else ""


def _name(found: Comparison) -> Markup:
    return element("span", found.label, class_="name")


def warning(found: Sequence[Comparison]) -> Markup | None:
    """What is said, in a box, of sittings that do not agree."""
    rough = [each for each in found if each.rough]
    if not rough:
        return None
    told = [together([_name(each), f" ({' and '.join(map(tables.times, each.medians))})"]) for each in rough]
    return element(
        "p",
        element("b", "Take this ratio as rough: " if len(rough) == 1 else "Take these ratios as rough: "),
        f"the sittings came out more than {percent(tables.APART)} apart for ",
        listed(told, between="; "),
        ".",
        class_="warning",
    )


def _bars(record: Record, found: Sequence[Comparison]) -> Markup:
    bars = [
        charts.Bar(each.label, each.value, each.low, each.high, each.medians, each.own, each.rough)
        for each in found
    ]
    told = "; ".join(f"{each.label} {tables.times(each.value)}" for each in found)
    name = f"{record['workload']['name']}-{record['setting']['device']}"
    words = f"Bar chart on a logarithmic axis of how many times gpunn is as fast: {told}"
    sittings = max(len(each.medians) for each in found)
    marks = [f"{mark} sitting {at}" for at, mark in enumerate("○◇□△▽"[:sittings], 1)]
    caption = element(
        "figcaption",
        "Bars: medians over all repeats; lines: the middle half of the repeats",
        f"; marks: the medians of {', '.join(marks)}." if sittings > 1 else ".",
        " Grey: another backend of gpunn's own." if any(each.own for each in found) else None,
    )
    return element("figure", charts.svg(charts.ratios(bars), f"bars-{name}", words), caption)


def _facts(record: Record) -> Markup:
    """What is not in the table: the floor under every time, the sittings, the load."""
    return element("ul", _floor(record), _agreement(record), _load(record), class_="facts")


def _floor(record: Record) -> Markup:
    ours, first, rate = tables.chosen(record), fastest(record), product_rate(record)
    if not rate:
        why = next((floor["error"] for floor in record["floors"] if "error" in floor), None)
        return element("li", element("b", "Floor. "), f"Not measured{f': {why}' if why else ''}.")
    flops = workload_of(record).flops
    said = [
        element("b", "Floor. "),
        f"The matrix products of a step are {count_of(flops)} operations. At {charts.rate_of(rate)}, which a "
        f"large product reached here, they alone take {tables.time_of(flops / rate)}. ",
    ]
    if first:
        share = percent(product_share(record, first))
        said.append(f"The fastest, {record['peers'][first]['label']}, gets to {share} of that rate")
        said.append(f", gpunn to {percent(product_share(record, ours))}." if ours and ours != first else ".")
    return element("li", *said)


def _agreement(record: Record) -> Markup:
    setting, found = record["setting"], comparisons(record)
    limit, count = percent(tables.APART), sum(each.rough for each in found)
    said = f"{plural(setting.get('sittings', 1), 'sitting')} of {plural(setting['repeats'], 'repeat')}"
    if setting.get("sittings", 1) < 2:
        said += ": how far another one would differ is not known."
    elif count:
        said += f" each; {count} of {len(found)} ratios differ by more than {limit} between them."
    elif found:
        most = percent(max(each.apart for each in found))
        said += f" each; all ratios agree within {limit}, the largest difference is {most}."
    else:
        said += " each."
    return element("li", element("b", "Repeats. "), said)


def _load(record: Record) -> Markup | None:
    """Whether all kept their threads busy, and whether the host took time away."""
    threads, peers = record["setting"]["threads"], record["peers"]
    known = [load / threads for load in (busy(record, name) for name in peers) if load is not None]
    taken = max(
        (share for share in (stolen(record, name) for name in peers) if share is not None), default=None
    )
    if not known:
        return None
    said = f"{plural(threads, 'thread')}, kept busy for {span(known, percent)} of the time"
    if taken is not None:
        said += "; the machine's host took " + (
            "no notable time" if taken < 0.01 else f"up to {percent(taken)} of it"
        )
    return element("li", element("b", "Load. "), said, ".")


def count_of(value: float) -> str:
    """
    >>> [count_of(value) for value in (1433400.0, 2.5e10, 830, 4.1e13)]
    ['1.43 million', '25 billion', '830', '41,000 billion']
    """
    for words, scale in ((" billion", 1e9), (" million", 1e6), (" thousand", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{words}" if value < 1e3 * scale else f"{value / scale:,.0f}{words}"
    return f"{value:.0f}"


def _times(record: Record) -> Markup:
    """Everyone's times, the fastest first."""
    names = sorted(record["peers"], key=lambda name: step(record, name))
    columns = _columns(record, names)
    ours = tables.chosen(record)
    return table(
        list(columns),
        zip(*columns.values(), strict=True),
        marked=[at for at, name in enumerate(names) if name == ours],
        class_="times",
        label=f"Times of {record['workload']['name']}",
    )


def _columns(record: Record, names: Sequence[str]) -> dict[str, list[Any]]:
    """What the table tells of each; what is the same for all, or as it should be, is left out."""
    threads, peers = record["setting"]["threads"], record["peers"]
    compared = {each.name: each for each in comparisons(record)}
    shares = [product_share(record, name) for name in names]
    clocks = [device_step(record, name) for name in names]
    loads = [busy(record, name) for name in names]
    taken = [stolen(record, name) for name in names]
    last = [peers[name]["sittings"][-1] for name in names]
    columns: dict[str, list[Any]] = {"": [peers[name]["label"] for name in names]}
    columns["a step, median"] = [
        element("td", tables.time_of(step(record, name)), class_="main") for name in names
    ]
    columns["least"] = [tables.time_of(min(tables.seconds(record, name))) for name in names]
    columns["spread"] = [percent(tables.spread(tables.seconds(record, name))) for name in names]
    if compared:
        columns["gpunn is … times as fast"] = [_ratio(compared.get(name)) for name in names]
    if any(clocks):
        columns["by the device's clock"] = [tables.time_of(clock) if clock else "–" for clock in clocks]
    if any(shares):
        columns["of the product rate"] = [percent(share) if share else "–" for share in shares]
    columns["start"] = [_start(peers[name]["sittings"]) for name in names]
    columns["memory, at most"] = [_memory(sitting) for sitting in last]
    columns["threads, BLAS kernels"] = [_blas(sitting, threads) for sitting in last]
    if any(load is not None and abs(load / threads - 1) > NOTABLE for load in loads):
        columns["cores busy"] = ["–" if load is None else f"{load:.2f}" for load in loads]
    if any(share and share >= 0.01 for share in taken):
        columns["taken by the host"] = ["–" if share is None else percent(share) for share in taken]
    return columns


def _ratio(found: Comparison | None) -> Markup:
    if found is None:
        return element("td", "")
    sittings = " · ".join(map(tables.times, found.medians)) if len(found.medians) > 1 else None
    return element(
        "td",
        element(
            "b", "~" * found.rough + tables.times(found.value), class_="more" if found.faster else "less"
        ),
        element("small", " ", sittings) if sittings else None,
        class_="rough" if found.rough else None,
    )


def _start(sittings: Sequence[Record]) -> Markup:
    """Import, set-up and first run of the last sitting; the first's too, where it took far longer."""
    parts = [
        [sitting[f"{part}_seconds"] for part in ("import", "set_up", "first_run")] for sitting in sittings
    ]
    last, longer = parts[-1], sum(parts[0]) > 2 * sum(parts[-1])
    return element(
        "td",
        tables.time_of(sum(last)),
        element("small", " ", _sum(last)),
        element("small", f" first sitting {tables.time_of(sum(parts[0]))}") if longer else None,
    )


def _sum(parts: Sequence[float]) -> str:
    """
    >>> _sum([0.4, 0.17, 0.92]), _sum([0.003, 0.007, 0.014])
    ('0.40 + 0.17 + 0.92 s', '3 + 7 + 14 ms')
    """
    if sum(parts) < 1:
        return f"{' + '.join(f'{1e3 * part:.0f}' for part in parts)} ms"
    return f"{' + '.join(f'{part:.2f}' for part in parts)} s"


def _memory(sitting: Record) -> Markup:
    device = sitting.get("memory", {}).get("device_peak_bytes")
    more = element("small", f" GPU {device / 2**20:.0f} MiB") if device else None
    return element("td", tables.memory_of(sitting) or "–", more)


def _blas(sitting: Record, threads: int) -> Markup:
    """What the process itself says of its libraries."""
    libraries = sitting.get("blas")
    if not isinstance(libraries, list):
        return element("td", str(threads), element("small", f" {libraries}") if libraries else None)
    counts = sorted({library["num_threads"] for library in libraries if library.get("num_threads")})
    kinds = dict.fromkeys(library["architecture"] for library in libraries if library.get("architecture"))
    return element("td", ", ".join(["/".join(map(str, counts)) or str(threads), *kinds]))


def _without(record: Record) -> Markup | None:
    """Who is missing, and why."""
    if not record["without"]:
        return None
    words = {"absent": "left out", "refused": "refused", "failed": "failed"}
    lines = [
        element(
            "li",
            element("b", told["label"]),
            f", {words.get(told['status'], told['status'])}: ",
            told["why"].strip().partition("\n")[0] or "no reason was given",
        )
        for told in record["without"].values()
    ]
    return together(
        [element("p", "Without a time:", class_="without"), element("ul", *lines, class_="without")]
    )
