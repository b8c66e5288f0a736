"""Who is how many times as fast as whom, and how sure that is: what the page says and draws."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import tables
from ..peers import PEERS
from ..workloads import Workload, from_description

Record = Mapping[str, Any]

DEVICES = {"cpu": "On a CPU", "cuda": "On a GPU"}
NOT_YET = "Not yet measured."


@dataclass(frozen=True)
class Comparison:
    """gpunn beside one peer on one workload: gpunn is ``value`` times as fast, the median over all repeats.

    Attributes
    ----------
    low, high
        The quartiles of the repeats' ratios.
    medians
        One for each sitting.
    own
        Whether the other one is a backend of gpunn too.
    """

    workload: str
    name: str
    label: str
    value: float
    low: float
    high: float
    medians: tuple[float, ...]
    apart: float
    own: bool

    @property
    def faster(self) -> bool:
        return self.value >= 1

    @property
    def rough(self) -> bool:
        """The sittings are so far apart that the ratio is pointed out."""
        return self.apart > tables.APART

    @property
    def close(self) -> bool:
        """Repeats or sittings do not agree about who is the faster one."""
        ends = (self.low, self.high, *self.medians)
        return min(ends) <= 1 <= max(ends)


def of(records: Iterable[Record], kind: str | None, device: str | None = None) -> list[Record]:
    """Those of a kind and a device; None is any."""
    return [
        record
        for record in records
        if kind in (None, record["kind"]) and device in (None, record["setting"]["device"])
    ]


def workload_of(record: Record) -> Workload:
    return from_description(record["workload"])


def comparisons(record: Record) -> list[Comparison]:
    """gpunn's preferred backend beside everyone else, those whom it is furthest behind first."""
    ours = tables.chosen(record)
    if ours is None:
        return []
    others = [name for name in record["peers"] if name != ours]
    return sorted((_comparison(record, name, ours) for name in others), key=lambda found: found.value)


def _comparison(record: Record, name: str, ours: str) -> Comparison:
    sittings = [sitting for sitting in tables.ratios(record, name, ours) if sitting]
    values = [value for sitting in sittings for value in sitting]
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return Comparison(
        workload=record["workload"]["name"],
        name=name,
        label=record["peers"][name]["label"],
        value=tables.ratio(record, name, ours),
        low=max(low, min(values)),
        high=min(high, max(values)),
        medians=tuple(map(statistics.median, sittings)),
        apart=tables.apart(record, name, ours),
        own=bool(record["peers"][name]["ours"]),
    )


def rivals(records: Iterable[Record]) -> dict[str, str]:
    """Name and label of all that were measured and are not gpunn, in the order of the table of peers."""
    peers = {name: peer for record in records for name, peer in record["peers"].items() if not peer["ours"]}
    order = [*PEERS, *(name for name in peers if name not in PEERS)]
    return {name: peers[name]["label"] for name in sorted(peers, key=order.index)}


def with_peers(records: Iterable[Record]) -> list[Comparison]:
    """All comparisons of gpunn with something that is not gpunn."""
    return [found for record in records for found in comparisons(record) if not found.own]


def step(record: Record, name: str) -> float:
    """The median seconds of a step."""
    return statistics.median(tables.seconds(record, name))


def fastest(record: Record) -> str | None:
    return min(record["peers"], key=lambda name: step(record, name), default=None)


def product_rate(record: Record) -> float | None:
    """Operations a second that a large product reached, in this run and its precision; the best sitting."""
    key = "product_tf32_flops" if record["setting"]["precision"] == "tf32" else "product_flops"
    return max((floor[key] for floor in record["floors"] if floor.get(key)), default=None)


def product_share(record: Record, name: str) -> float | None:
    """The part of a step that its matrix products alone would take at that rate."""
    rate = product_rate(record)
    return workload_of(record).flops / rate / step(record, name) if rate else None


def busy(record: Record, name: str) -> float | None:
    """The cores that a peer kept busy while it was timed, on average."""
    return _over_all(record, name, "busy")


def stolen(record: Record, name: str) -> float | None:
    """The part of the machine's time that its host took while a peer was timed."""
    found = _over_all(record, name, "stolen")
    return None if found is None else found / record["environment"]["machine"].get("cores", 1)


def _over_all(record: Record, name: str, key: str) -> float | None:
    pairs = [
        (part, whole)
        for sitting in record["peers"][name]["sittings"]
        for part, whole in zip(sitting.get(key) or [], sitting["seconds"], strict=False)
        if part is not None
    ]
    return sum(part for part, _ in pairs) / sum(whole for _, whole in pairs) if pairs else None


def device_step(record: Record, name: str) -> float | None:
    """The median seconds of a step by the device's own clock."""
    found = [
        value
        for sitting in record["peers"][name]["sittings"]
        for value in sitting.get("device_seconds") or []
        if value is not None
    ]
    return statistics.median(found) if found else None


def span(values: Iterable[float], words=str) -> str:
    """
    >>> span([3, 11, 5]), span([3, 3])
    ('3 to 11', '3')
    """
    found: Sequence[float] = sorted(set(values))
    least, most = words(found[0]), words(found[-1])
    return least if least == most else f"{least} to {most}"


def plural(count: int, word: str) -> str:
    """
    >>> plural(1, "thread"), plural(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count} {word}{'' if count == 1 else 's'}"


def percent(value: float) -> str:
    r"""
    >>> [percent(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0.0042, 0.36, 1.274)]
    ['0.4 %', '36 %', '127 %']
    """
    return f"{100 * value:.{0 if value >= 0.0995 else 1}f}\N{NO-BREAK SPACE}%"
