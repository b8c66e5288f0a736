"""The part of the page that says what came out, and what is not yet measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .. import tables
from ..workloads import WORKLOADS
from .charts import BLUE, VERMILION
from .compared import (
    DEVICES,
    NOT_YET,
    Comparison,
    Record,
    comparisons,
    of,
    percent,
    rivals,
    span,
    step,
    with_peers,
    workload_of,
)
from .markup import Markup, element, heat, listed, table, together

GREY = "#98a2ac"


def result(records: Sequence[Record]) -> list[Markup | None]:
    if not records:
        return [element("p", "Nothing is measured yet.", class_="verdict")]
    found: list[Markup | None] = []
    for device, title in DEVICES.items():
        here = of(records, "workload", device)
        found.append(element("h3", title))
        found += (
            _outcome(here) if any(map(tables.chosen, here)) else [element("p", NOT_YET, class_="missing")]
        )
    return [*found, _missing(records)]


def _outcome(records: Sequence[Record]) -> list[Markup | None]:
    """The verdict on one device: counts, all ratios, peer by peer, and how far to trust them."""
    found = with_peers(records)
    if not found:
        return [element("p", "gpunn is measured, but nothing beside it.")]
    sides = [_side(found, faster=True), _side(found, faster=False)]
    return [
        element("p", *_verdict(found), class_="verdict"),
        _first_look(records),
        _overview(records),
        _sureness(found),
        element("div", *sides, class_="sides"),
    ]


def _verdict(found: Sequence[Comparison]) -> list[Any]:
    ahead = sum(not each.faster for each in found)
    close = sum(each.close for each in found)
    said: list[Any] = [
        f"gpunn is faster in {len(found) - ahead} of {len(found)} comparisons, slower in {ahead}"
    ]
    said.append(f"; {close} of them {'is' if close == 1 else 'are'} too close to call. " if close else ". ")
    workloads = _grouped(found, "workload")
    first = [element("code", name) for name, each in workloads.items() if all(one.faster for one in each)]
    if not first:
        return [*said, f"On none of {len(workloads)} workloads is it the fastest of all."]
    return [
        *said,
        f"On {len(first)} of {len(workloads)} workloads it is the fastest of all: ",
        listed(first),
        ".",
    ]


def _first_look(records: Sequence[Record]) -> Markup | None:
    """What was measured once only is no evidence."""
    once = [record for record in records if record["setting"].get("sittings", 1) < 2]
    if not once:
        return None
    which = (
        "All of this was" if len(once) == len(records) else f"{len(once)} of {len(records)} workloads were"
    )
    repeats = span([record["setting"]["repeats"] for record in once])
    return element(
        "p",
        element("b", f"{which} measured in one sitting only"),
        f", of {repeats} repeats. That is a first look, in which a ratio may be well off.",
        class_="warning",
    )


def _overview(records: Sequence[Record]) -> Markup:
    """All ratios at a glance, a row for each workload."""
    labels = rivals(records)
    rows = []
    for record in records:
        ours, workload = tables.chosen(record), workload_of(record)
        if ours is None:
            continue
        found = {each.name: each for each in comparisons(record)}
        link = element("a", workload.name, href=f"#workload-{workload.name}-{record['setting']['device']}")
        rows.append(
            [
                together([link, element("small", f" {workload.shape}, batch {workload.batch:,}")]),
                tables.time_of(step(record, ours)),
                *(_glance(found.get(name)) for name in labels),
            ]
        )
    caption = element(
        "p",
        "How many times gpunn is as fast as each. ",
        element("span", "Above 1, blue: gpunn is faster", class_="more"),
        "; ",
        element("span", "below 1, orange: it is slower", class_="less"),
        "; grey: too close to call, as repeats or sittings do not agree on who is faster; ~: rough; –: not "
        "measured, for the reason that is given with the workload.",
    )
    head = ["workload", "gpunn, a step", *labels.values()]
    return together([caption, table(head, rows, class_="overview", label="All ratios")])


def _glance(found: Comparison | None) -> Markup:
    if found is None:
        return element("td", "–", class_="heat")
    words = "~" * found.rough + tables.times(found.value)
    if found.close:
        return heat(words, GREY, 0.4)
    # Full at four times as fast or as slow.
    strength = 0.15 + 0.85 * abs(math.log(found.value, 4))
    return heat(words, BLUE if found.faster else VERMILION, strength)


def _sureness(found: Sequence[Comparison]) -> Markup | None:
    """Whether the sittings agree, over all workloads."""
    twice = [each for each in found if len(each.medians) > 1]
    if not twice:
        return None
    rough, limit = [each for each in twice if each.rough], percent(tables.APART)
    if not rough:
        said = f"All {len(twice)} ratios agree within {limit} between sittings, each with new processes"
        return element(
            "p", f"{said}; the largest difference is {percent(max(e.apart for e in twice))}.", class_="sure"
        )
    return element(
        "p",
        element("b", f"{len(rough)} of {len(twice)} ratios {'is' if len(rough) == 1 else 'are'} rough (~): "),
        f"between sittings, each with new processes, they came out more than {limit} apart. ",
        listed([_rough(name, each) for name, each in _grouped(rough, "workload").items()]),
        ".",
        class_="warning",
    )


def _rough(workload: str, found: Sequence[Comparison]) -> Markup:
    """By name where they are few; each workload has its own note."""
    labels = "; ".join(each.label for each in found) if len(found) <= 3 else len(found)
    return together([element("code", workload), f" ({labels})"])


def _side(everything: Sequence[Comparison], *, faster: bool) -> Markup:
    """Peer by peer: by how much, and on how many workloads."""
    found = [each for each in everything if each.faster is faster]
    lines = []
    for label, each in _grouped(found, "label").items():
        count = sum(other.label == label for other in everything)
        ratios = span([one.value if faster else 1 / one.value for one in each], tables.times)
        name = element("b", label)
        said = (f"{ratios} times as fast as ", name) if faster else (name, f" is {ratios} times as fast")
        where = listed([element("code", one.workload) for one in each])
        if len(each) == count > 1:
            on = f", on all {count}"
        else:
            on = together([f", on {len(each)} of {count}: " if count > 1 else ", on ", where])
        lines.append(element("li", *said, on))
    title = "Where gpunn is faster" if faster else "Where gpunn is slower"
    inside = element("ul", *lines) if lines else element("p", "Nowhere in what was measured.")
    return element("div", element("h4", title), inside, class_=f"side {'faster' if faster else 'slower'}")


def _grouped(found: Iterable[Comparison], by: str) -> dict[str, list[Comparison]]:
    groups: dict[str, list[Comparison]] = {}
    for each in found:
        groups.setdefault(getattr(each, by), []).append(each)
    return groups


def _missing(records: Sequence[Record]) -> Markup | None:
    """What this page has no figures of."""
    kinds = {"workload": "whole networks", "kernels": "single ops", "scaling": "how the time grows"}
    lacking = []
    for device, title in DEVICES.items():
        where = title[0].lower() + title[1:]
        absent = [words for kind, words in kinds.items() if not of(records, kind, device)]
        there = {record["workload"]["name"] for record in of(records, "workload", device)}
        if len(absent) == len(kinds):
            continue  # Its heading says so already.
        absent += [name for name in WORKLOADS if there and name not in there]
        lacking += [f"{listed(absent)} {where}"] if absent else []
    lacking += [] if of(records, "accuracy") else ["accuracy"]
    return element("p", element("b", "Not yet measured: "), "; ".join(lacking), ".") if lacking else None
