"""How a step's cost grows with width, depth, batch and samples, and where one backend overtakes another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, log
from typing import Any

from .environment import environment
from .harness import Setting, compare
from .peers import Entry
from .results import SCHEMA
from .workloads import Workload

BASE = Workload(
    "scaling",
    784,
    (128, 128, 10),
    hidden="relu",
    output="softmax",
    loss="cross_entropy",
    optimizer=("sgd", {"lr": 0.05}),
    batch=100,
    weights="he_normal",
    bias="zeros",
    checked=2,
)

#: Direction: what it is called, the values, and the workload of a value.
DIRECTIONS: dict[str, tuple[str, Sequence[int], Callable[[int], Workload]]] = {
    "width": (
        "units of both hidden layers of 784-w-w-10, batch 100",
        (8, 32, 128, 512, 2048),
        lambda n: replace(BASE, units=(n, n, 10)),
    ),
    "depth": (
        "hidden layers of 128 units, batch 100",
        (1, 2, 4, 8, 16),
        lambda n: replace(BASE, units=(*[128] * n, 10)),
    ),
    "batch": (
        "examples of a minibatch, 784-128-128-10",
        (1, 10, 100, 1000, 10_000),
        lambda n: replace(BASE, batch=n),
    ),
    "samples": (
        "examples of an epoch, 784-128-128-10, batch 100: what is done once an epoch is shared by its steps",
        (1000, 5000, 20_000, 50_000),
        lambda n: replace(BASE, samples=n),
    ),
}

#: Those who are measured besides gpunn's backends.
PEERS = ("numpy", "torch", "jax-scan")

#: Floating-point operations of one timed repeat, about: peers that compile a number of steps do not adapt.
WORK = 1e10


def measure(
    entries: Sequence[Entry],
    setting: Setting,
    tell: Callable[[str], None] = lambda line: None,
    *,
    quick: bool = False,
) -> dict[str, Any]:
    """The record of all directions; ``quick`` takes the first two values of each."""
    setting = replace(setting, sittings=1, repeats=min(setting.repeats, 5), threads=setting.threads or 1)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "scaling",
        "setting": {key: getattr(setting, key) for key in ("device", "threads", "precision", "repeats")},
        "environment": environment(),
        "directions": {},
    }
    for name, (meaning, values, workload_of) in DIRECTIONS.items():
        points = []
        for value in values[:2] if quick else values:
            workload = workload_of(value)
            epoch = workload.samples // workload.batch
            workload = replace(workload, steps=max(1, min(epoch, round(WORK / workload.flops))))
            tell(f"{name} {value}")
            found = compare(
                workload, entries, setting, lambda line, at=f"{name} {value}": tell(f"{at}: {line}")
            )
            points.append(
                {key: found[key] for key in ("data", "floors", "peers", "without")} | {"value": value}
            )
        record["directions"][name] = {"meaning": meaning, "points": points}
    return record


def crossover(values: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Where the second becomes faster than the first for good, on a logarithmic scale; None if never.

    >>> crossover([10, 100, 1000], [1.0, 10.0, 100.0], [10.0, 10.0, 10.0])
    100.0
    >>> crossover([10, 100], [1.0, 2.0], [3.0, 4.0]) is None
    True
    """
    gains = [log(a / b) for a, b in zip(first, second, strict=True)]
    if gains[-1] < 0:
        return None
    for at, (low, high) in reversed(list(enumerate(pairwise(gains)))):
        if low < 0:
            share = -low / (high - low)
            return round(exp(log(values[at]) + share * log(values[at + 1] / values[at])), 6)
    return values[0]
