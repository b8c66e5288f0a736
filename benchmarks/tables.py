"""Results as tables: ratios within repeats, for the terminal and for README."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import results
from .peers import PEERS
from .workloads import WORKLOADS, from_description

#: Two sittings whose ratios are further apart than this are pointed out.
APART = 0.15

#: gpunn's backends in the order in which ``device=`` prefers them.
PREFERRED = ("gpunn-cuda", "gpunn-numba", "gpunn-numpy")

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- performance: written by python -m benchmarks report -->", "<!-- end of performance -->"

Record = Mapping[str, Any]


def seconds(record: Record, name: str) -> list[float]:
    """Seconds a step, of every repeat of every sitting."""
    return [value for sitting in record["peers"][name]["sittings"] for value in sitting["seconds"]]


def chosen(record: Record) -> str | None:
    """The backend of gpunn that this record compares with the others: what ``device=`` would take."""
    return next((name for name in PREFERRED if name in record["peers"]), None)


def ratios(record: Record, name: str, ours: str) -> list[list[float]]:
    """How many times gpunn is as fast, repeat by repeat, for each sitting: above 1 gpunn is faster."""
    pairs = zip(record["peers"][name]["sittings"], record["peers"][ours]["sittings"], strict=False)
    return [[a / b for a, b in zip(p["seconds"], q["seconds"], strict=False)] for p, q in pairs]


def ratio(record: Record, name: str, ours: str) -> float:
    """The median over all repeats."""
    return statistics.median(value for sitting in ratios(record, name, ours) for value in sitting)


def apart(record: Record, name: str, ours: str) -> float:
    """How far the medians of two sittings are from each other: 0.1 is 10 %."""
    medians = [statistics.median(sitting) for sitting in ratios(record, name, ours) if sitting]
    return max(medians) / min(medians) - 1 if len(medians) > 1 else 0.0


def spread(values: Sequence[float]) -> float:
    """The distance of the quartiles, relative to the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def time_of(value: float) -> str:
    """
    >>> [time_of(value) for value in (7.25e-6, 0.000314, 0.0123, 1.5)]
    ['7.2 µs', '314 µs', '12.3 ms', '1.5 s']
    """
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if value * scale < 1000:
            return f"{value * scale:.3g} {unit}" if value * scale >= 10 else f"{value * scale:.2g} {unit}"
    return f"{value:.3g} s"


def times(value: float) -> str:
    """
    >>> [times(value) for value in (0.474, 1.0, 6.36, 42.7)]
    ['0.47', '1.00', '6.4', '43']
    """
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def terminal(record: Record) -> str:
    """One workload as lines of a table."""
    workload = from_description(record["workload"])
    ours, setting = chosen(record), record["setting"]
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    lines = [
        f"{workload.name}: {workload.shape}, batch {workload.batch}, {workload.optimizer[0]}, "
        f"{record['data']}; {setting['device']}, {threads}, {setting['precision']}"
    ]
    rows = [
        ("", "a step", "least", "spread", "gpunn is ... times as fast", "sittings", "first run", "memory")
    ]
    for name, peer in sorted(
        record["peers"].items(), key=lambda item: statistics.median(seconds(record, item[0]))
    ):
        found = seconds(record, name)
        compared = medians = ""
        if ours and name != ours:
            compared = times(ratio(record, name, ours))
            medians = " ".join(times(statistics.median(sitting)) for sitting in ratios(record, name, ours))
            medians += " (!)" if apart(record, name, ours) > APART else ""
        last = peer["sittings"][-1]
        rows.append(
            (
                peer["label"],
                time_of(statistics.median(found)),
                time_of(min(found)),
                f"{100 * spread(found):.0f} %",
                compared,
                medians,
                time_of(last["first_run_seconds"]),
                memory_of(last),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    lines += [
        f"  {told['label']}: {told['status']}, {told['why'].splitlines()[0]}"
        for told in record["without"].values()
    ]
    if ours and any(apart(record, name, ours) > APART for name in record["peers"]):
        lines.append(
            f"  (!) the two sittings are more than {100 * APART:.0f} % apart: take that ratio as rough"
        )
    return "\n".join(lines)


def memory_of(sitting: Record) -> str:
    peak = sitting.get("memory", {}).get("peak_bytes")
    return f"{peak / 2**20:.0f} MiB" if peak else ""


def workload_records(folder: Path, device: str) -> list[dict[str, Any]]:
    """The committed records of a device, in the order of the table of workloads."""
    found = [results.read(path) for path in sorted(folder.glob(f"*-workload-{device}.json"))]
    order = list(WORKLOADS)
    return sorted(found, key=lambda record: order.index(record["workload"]["name"]))


def where(record: Record) -> str:
    """Machine, versions and date, in a line."""
    environment = record["environment"]
    machine, gpu = environment["machine"], environment["machine"].get("gpu")
    versions: dict[str, str] = {}
    architectures = []
    for peer in record["peers"].values():
        versions |= peer["sittings"][-1].get("versions", {})
    for peer in record["peers"].values():
        blas = peer["sittings"][-1].get("blas")
        for library in blas if isinstance(blas, list) else []:
            if library["internal_api"] == "openblas" and library["architecture"] not in architectures:
                architectures.append(library["architecture"])
    names = {"numpy": "NumPy", "numba": "Numba", "sklearn": "scikit-learn", "torch": "PyTorch", "jax": "JAX"}
    listed = ", ".join(f"{names[key]} {versions[key]}" for key in names if key in versions)
    device = (
        f"{gpu['name']} (driver {gpu['driver_version']}), "
        if gpu and record["setting"]["device"] == "cuda"
        else ""
    )
    return (
        f"{device}{machine['cpu']}, {machine['cores']} cores, "
        f"OpenBLAS kernels for {' and '.join(architectures) or '?'}; "
        f"Python {environment['versions']['python']}, {listed}; {environment['date']}"
    )


def readme_section(folder: Path) -> str:
    """What README says of performance, between its two marks."""
    parts = []
    for device, title in (("cpu", "On a CPU"), ("cuda", "On a GPU")):
        records = workload_records(folder, device)
        parts.append(
            f"### {title}\n\n{_measured(records) if any(map(chosen, records)) else 'Not yet measured.'}"
        )
    return "\n\n".join(parts)


def _measured(records: Sequence[Record]) -> str:
    present = [name for name in PEERS if any(name in record["peers"] for record in records)]
    rows = [["workload", "gpunn, a step", *(PEERS[name].label for name in present)]]
    rows.append(["---"] * len(rows[0]))
    lost, compared, rough = [], 0, False
    for record in records:
        workload, ours = from_description(record["workload"]), chosen(record)
        row = [f"`{workload.name}` {workload.shape}, batch {workload.batch}"]
        row.append(time_of(statistics.median(seconds(record, ours))))
        ahead = []
        for name in present:
            if name not in record["peers"]:
                row.append("–")
                continue
            value, compared = ratio(record, name, ours), compared + 1
            unsure = "~" if apart(record, name, ours) > APART else ""
            rough = rough or bool(unsure)
            row.append(f"**{unsure}{times(value)}**" if value < 1 else unsure + times(value))
            if value < 1:
                ahead.append(f"{PEERS[name].label} ({times(1 / value)})")
        if ahead:
            lost.append((len(ahead), f"- `{workload.name}`: {', '.join(ahead)}"))
        rows.append(row)
    backends = " and ".join(sorted({record["peers"][chosen(record)]["label"] for record in records}))
    notes = [
        f"How many times {backends} is as fast as each peer, the median over the repeats of one run; "
        "all start from the same weights, take the same minibatches and have the same cores and "
        "threads. Below 1, in bold, gpunn is slower; – is what a peer does not do.",
    ]
    if rough:
        notes[0] += f" ~ is rough: two sittings came out more than {100 * APART:.0f} % apart."
    behind = sum(count for count, _ in lost)
    notes.append(f"gpunn is the faster one in {compared - behind} of {compared} comparisons.")
    if lost:
        notes[-1] += " Faster, by so many times:\n\n" + "\n".join(line for _, line in lost)
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([table, *notes, f"Measured on {where(records[0])}."])


def regenerated(text: str, folder: Path) -> str:
    """README's text with its section on performance written anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise results.ResultError(f"README.md lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{readme_section(folder)}\n\n{END}{after}"


def summary(records: Sequence[Record]) -> str:
    """One line a workload: the step of gpunn, and how many times it is as fast as each."""
    lines = []
    for record in records:
        ours = chosen(record) if record["kind"] == "workload" else None
        if ours is None:
            continue
        others = [name for name in record["peers"] if name != ours]
        compared = "  ".join(f"{name} {times(ratio(record, name, ours))}" for name in others)
        step = time_of(statistics.median(seconds(record, ours)))
        lines.append(f"{record['workload']['name']:<11} {ours} {step:>8}; as fast as  {compared}")
    return "\n".join(lines)
