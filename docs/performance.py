"""The page of what was measured, from the result files of ``benchmarks/results``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent.parent)]

from parts import NOTE, table

from benchmarks import results, tables
from benchmarks.page.growth import lines_of

Record = dict[str, Any]

#: An op that takes this many times as long is told as slower; what is nearer to 1 may be chance.
CLEARLY = 1.1


def records(kind: str, device: str) -> list[Record]:
    """The result files of a kind and a device, which a reader refuses where they lack their environment."""
    found = [results.read(path) for path in sorted(results.FOLDER.glob(f"*{kind}-{device}.json"))]
    return [record for record in found if record["kind"] == kind]


def where(record: Record) -> str:
    """Machine, versions and date of a record."""
    about, setting = record["environment"], record["setting"]
    versions = about["versions"]
    told = [f"{tables.NAMES[name]} {versions[name]}" for name in tables.NAMES if name in versions]
    on = about["machine"].get("gpu") if setting["device"] == "cuda" else None
    threads = f"{setting['threads']} thread{'s' if setting['threads'] != 1 else ''}"
    return (
        f"Measured on {on['name'] + ', ' if on else ''}{about['machine']['cpu']}, {threads}; products in "
        f"{setting['precision']}; Python {versions['python']}, {', '.join(told)}; {about['date']}."
    )


def accuracy(record: Record) -> str:
    """Whether it learns what it should."""
    best = [100 * run["best"] for run in record["runs"]]
    what = record["what"].removesuffix(", as a fraction")
    spread = f"{min(best):.2f} to {max(best):.2f} %"
    return (
        f"{what[:1].upper()}{what[1:]}, {record['setting']['epochs']} epochs: "
        f"**{statistics.mean(best):.2f} %**, the mean over {len(best)} seeds of each one's best epoch "
        f"({spread}).\n\n{where(record)}"
    )


def scaling(record: Record) -> str:
    """A table a direction."""
    parts = []
    for name, found in record["directions"].items():
        lines = lines_of(name, found)
        values = sorted({value for line in lines for value in line.values})
        known = [dict(zip(line.values, line.seconds, strict=True)) for line in lines]
        rows = [(f"{value:,}", *(time_of(each.get(value)) for each in known)) for value in values]
        what = "The time for each example" if name == "batch" else "The time of a step"
        meaning, _, remark = found["meaning"].partition(": ")
        parts.append(f"{what}, by {meaning}{f'; {remark}' if remark else ''}:")
        parts.append(table((name, *(line.label for line in lines)), rows))
    return "\n\n".join([*parts, where(record)])


def kernels(record: Record) -> str:
    """Each op at the largest size that was measured."""
    backends = record["setting"]["backends"]
    last: dict[str, dict[str, Record]] = {}
    for kernel in record["kernels"]:
        if kernel["dtype"] == "float32":
            variant = kernel["variant"].removeprefix("sigma=")
            name = f"`{kernel['op']}`{f' {variant}' if variant else ''}"
            last.setdefault(name, {})[kernel["backend"]] = kernel
    rows = []
    for name, found in last.items():
        times = [found[b]["seconds"]["median"] if b in found else None for b in backends]
        rows.append((name, next(iter(found.values()))["size"], *map(time_of, times)))
    words = (
        "The median time of each op by itself, in float32, at the largest size that was measured; a size "
        "such as 1024×784×30 is minibatch × inputs × outputs."
    )
    parts = [words, *slower(last), table(("op", "size", *backends), rows), where(record)]
    return "\n\n".join(parts)


def slower(found: Mapping[str, Mapping[str, Record]], by: str = "numba", than: str = "numpy") -> list[str]:
    """Which ops take one backend longer than the other, by how many times: a sentence, or none."""
    ratios = {
        name: each[by]["seconds"]["median"] / each[than]["seconds"]["median"]
        for name, each in found.items()
        if by in each and than in each
    }
    behind = sorted((name for name in ratios if ratios[name] > CLEARLY), key=lambda name: -ratios[name])
    if not behind:
        return []
    told = ", ".join(f"{name} ({tables.times(ratios[name])})" for name in behind)
    return [
        f"By more than {100 * (CLEARLY - 1):.0f} %, {by} is slower than {than} in {len(behind)} of "
        f"{len(ratios)} ops; how many times as long it takes: {told}."
    ]


def time_of(value: float | None) -> str:
    """A cell of a column of times."""
    return tables.time_of(value, zeros=True) if value else "–"


#: Kind of result file, its title, and what is told of it.
PARTS: tuple[tuple[str, str, Callable[[Record], str]], ...] = (
    ("accuracy", "Does it learn as well?", accuracy),
    ("scaling", "How the time grows", scaling),
    ("kernels", "Every op by itself", kernels),
)


def page() -> str:
    """The page."""
    parts = [
        NOTE,
        "# Performance",
        "Every figure here is read from a result file of `benchmarks/results`, which holds the machine, the "
        "versions and the date too. [How gpunn is measured](benchmarks.md) says how; `make bench` measures "
        "on your machine, with whichever peers are installed.",
        '<p><a href="measured.html">All of it with charts</a>: every workload, peer, op and direction of '
        "growth.</p>",
        "## Training",
        tables.readme_section(results.FOLDER),
    ]
    for kind, title, tell in PARTS:
        parts.append(f"## {title}")
        for device, name in (("cpu", "On a CPU"), ("cuda", "On a GPU")):
            found = records(kind, device)
            parts += [f"### {name}", *map(tell, found)] if found else [f"{name}: not yet measured."]
    parts += [
        "## The estimators",
        "[In the place of scikit-learn's MLP](sklearn.md) has scores and times beside scikit-learn's own.",
    ]
    return "\n\n".join(parts)
