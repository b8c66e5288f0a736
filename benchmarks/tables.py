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

#: A process that had its one processor for less of the time than this had to share it; and how far a large
#: product may be from one sitting to the other.
BUSY, DRIFT = 0.9, 0.25

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


def time_of(value: float, zeros: bool = False) -> str:
    """With ``zeros`` all times of a column have as many digits: 2.0 ms beside 1.1 ms.

    >>> [time_of(value) for value in (7.25e-6, 0.000314, 0.0123, 1.5, 0.002, 0.9998e-3)]
    ['7.2 µs', '314 µs', '12.3 ms', '1.5 s', '2 ms', '1 ms']
    >>> [time_of(value, zeros=True) for value in (0.002, 0.024, 0.314, 1.5)]
    ['2.0 ms', '24.0 ms', '314 ms', '1.50 s']
    """
    for unit, scale in (("µs", 1e6), ("ms", 1e3), ("s", 1.0)):
        if value * scale < 999.5 or unit == "s":
            break
    digits = 2 if value * scale < 10 and unit != "s" else 3
    kept = "#" if zeros else ""
    return f"{value * scale:{kept}.{digits}g}".removesuffix(".") + f" {unit}"


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
    if shared := disturbed(record):
        lines.append(f"  (!) the machine was not ours alone: {shared}: measure again")
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
    known = [record for record in found if record["workload"]["name"] in order]
    return sorted(known, key=lambda record: order.index(record["workload"]["name"]))


def where(records: Sequence[Record]) -> str:
    """Machine, versions and date, in a line; records of several machines cannot stand in one table."""
    versions: dict[str, set[str]] = {}
    architectures: set[str] = set()
    for record in records:
        for peer in record["peers"].values():
            for name, version in peer["sittings"][-1].get("versions", {}).items():
                versions.setdefault(name, set()).add(version)
            blas = peer["sittings"][-1].get("blas")
            for library in blas if isinstance(blas, list) else []:
                if library["internal_api"] == "openblas":
                    architectures.add(library["architecture"])

    def one(what: str, found: Sequence[Any]) -> Any:
        distinct = list(dict.fromkeys(found))
        if len(distinct) > 1:
            told = ", ".join(map(str, distinct))
            raise results.ResultError(
                f"these results have more than one {what}: {told}: measure them together"
            )
        return distinct[0]

    machines = [record["environment"]["machine"] for record in records]
    cpu = one("processor", [f"{machine['cpu']}, {machine['cores']} cores" for machine in machines])
    gpus = [machine.get("gpu") or {} for machine in machines]
    on = one("GPU", [" ".join(filter(None, (g.get("name"), g.get("driver_version")))) for g in gpus])
    precision = one("precision", [record["setting"]["precision"] for record in records])
    python = one("Python", [record["environment"]["versions"]["python"] for record in records])
    dates = sorted({record["environment"]["date"] for record in records})
    listed = ", ".join(f"{NAMES[key]} {'/'.join(sorted(versions[key]))}" for key in NAMES if key in versions)
    kernels = f"OpenBLAS kernels for {' and '.join(sorted(architectures)) or '?'}"
    device = f"{on}, " if on and records[0]["setting"]["device"] == "cuda" else ""
    return (
        f"{device}{cpu}, {kernels}; products in {precision}; Python {python}, {listed}; {' to '.join(dates)}"
    )


NAMES = {"numpy": "NumPy", "numba": "Numba", "sklearn": "scikit-learn", "torch": "PyTorch", "jax": "JAX"}


def disturbed(record: Record) -> str | None:
    """What says that someone else had the processors while this was measured; None where nothing does."""
    threads = record["setting"]["threads"]
    if record["setting"]["device"] == "cpu" and threads == 1:
        for peer in record["peers"].values():
            for sitting in peer["sittings"]:
                pairs = zip(sitting.get("busy", []), sitting["seconds"], strict=False)
                shares = [busy / seconds for busy, seconds in pairs]
                if shares and statistics.median(shares) < BUSY:
                    share = 100 * statistics.median(shares)
                    return f"{peer['label']} had its processor for {share:.0f} % of the time"
    floors = [floor["product_flops"] for floor in record["floors"] if floor.get("product_flops")]
    if floors and max(floors) / min(floors) > 1 + DRIFT:
        return (
            f"a large product was {max(floors) / min(floors):.2f} times as fast in one sitting as in another"
        )
    return None


def unsure(record: Record, name: str, ours: str) -> bool:
    """Whether a ratio is rough: one sitting alone, sittings apart, or a machine that was disturbed."""
    alone = len(record["peers"][name]["sittings"]) < 2
    return alone or apart(record, name, ours) > APART or disturbed(record) is not None


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
    lost, compared, ties, rough = [], 0, 0, False
    for record in records:
        workload, ours = from_description(record["workload"]), chosen(record)
        threads = record["setting"]["threads"]
        told = [workload.shape, f"batch {workload.batch}", f"{threads} thread{'s' if threads > 1 else ''}"]
        told += [] if record["data"] == "MNIST" else ["random data"]
        row = [f"`{workload.name}` {', '.join(told)}"]
        if ours is None:
            rows.append([*row, _absence(record, "gpunn-numpy"), *["" for _ in present]])
            continue
        row.append(time_of(statistics.median(seconds(record, ours))))
        ahead = []
        for name in present:
            if name not in record["peers"]:
                row.append(_absence(record, name))
                continue
            value, compared = ratio(record, name, ours), compared + 1
            mark = "~" if unsure(record, name, ours) else ""
            rough = rough or bool(mark)
            tie = times(value) == times(1)
            slower, ties = value < 1 and not tie, ties + tie
            row.append(f"**{mark}{times(value)}**" if slower else mark + times(value))
            if slower:
                ahead.append(f"{PEERS[name].label} ({times(1 / value)})")
        if ahead:
            lost.append((len(ahead), f"- `{workload.name}`: {'; '.join(ahead)}"))
        rows.append(row)
    measured = [record for record in records if chosen(record)]
    backends = " and ".join(sorted({chosen(record).removeprefix("gpunn-") for record in measured}))
    notes = [
        f"Under each peer: its time for a step over that of gpunn (backend {backends}), the median over the "
        "repeats of one run; 2 says that gpunn is twice as fast. All start from the same weights, take the "
        "same minibatches, have the same cores and threads. Below 1, in bold, gpunn is slower; 1.00 is a "
        "tie; – is what a peer does not do.",
    ]
    if book := _book(measured):
        notes.append(book)
    if rough:
        notes[0] += (
            " ~ is rough: all is measured twice, the second time in new processes, and the two came out more "
            f"than {100 * APART:.0f} % apart, or it was measured once, or other work was under way on the "
            "machine."
        )
    won = compared - ties - sum(count for count, _ in lost)
    tied = f", and as fast as the peer in {ties}" if ties else ""
    notes.append(f"By the medians, gpunn is the faster one in {won} of {compared} comparisons{tied}.")
    if lost:
        listed = "\n".join(line for _, line in lost)
        notes[-1] += f" Peers that are faster than gpunn, by so many times:\n\n{listed}"
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([table, *notes, f"Measured on {where(measured)}."])


#: Minibatches of the book's first run: 30 epochs of 50,000 examples by tens.
BOOK_STEPS = 30 * 50_000 // 10


def _book(records: Sequence[Record]) -> str | None:
    """How long the book's first run takes here and in the book's own manner, where both were measured."""
    for record in records:
        ours = chosen(record)
        if record["workload"]["name"] == "nielsen" and ours and "loops" in record["peers"]:
            here, there = (BOOK_STEPS * statistics.median(seconds(record, name)) for name in (ours, "loops"))
            return (
                f"The training of the book's first network, 30 epochs or {BOOK_STEPS:,} minibatches, takes "
                f"{time_of(here)} at that rate; in the book's own manner, one example after the other, "
                f"{time_of(there)}."
            )
    return None


def _absence(record: Record, name: str) -> str:
    """Why there is no time, in a word; a dash where a peer does not do a workload."""
    status = record["without"].get(name, {}).get("status", "left out")
    return "–" if status == "left out" else status


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
