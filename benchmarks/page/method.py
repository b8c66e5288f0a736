"""The parts of the page that say how it was measured, where and with what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..environment import UNSET
from ..harness import COSTS, MOVES
from .compared import DEVICES, NOT_YET, Record, of, plural, span, workload_of
from .markup import Markup, element, listed, together

#: What libraries call themselves, in the order in which they are told.
NAMES = {
    "gpunn": "gpunn",
    "python": "Python",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "numba": "Numba",
    "sklearn": "scikit-learn",
    "torch": "PyTorch",
    "jax": "JAX",
    "cupy": "CuPy",
}


def method(records: Sequence[Record]) -> list[Markup]:
    measured = of(records, "workload")
    lines = [
        _line("The same arithmetic.", _checked(measured)),
        _line("In turn.", _in_turn(measured)),
        _line("Threads and precision.", *_threads(measured)) if measured else None,
        _line("BLAS.", *_blas(measured)),
        _line(
            "Memory.",
            "The most that the process ever held, with Python, its libraries and the training data.",
        ),
    ]
    return [element("ul", *lines, class_="method")]


def _line(title: str, *words: Any) -> Markup:
    return element("li", element("b", title), " ", *words)


def _checked(records: Sequence[Record]) -> str:
    said = (
        "All start from the same weights and train on the same minibatches. Before anything is timed, the "
        "costs and parameters of each are compared with gpunn's in float64, and who differs by more than "
        f"rounding explains is refused. Allowed are {COSTS:g} of the largest cost and {MOVES:g} of how far "
        "the parameters have moved."
    )
    sittings = [s for record in records for peer in record["peers"].values() for s in peer["sittings"]]
    if not sittings:
        return said
    costs, moves = (max(sitting[key] for sitting in sittings) for key in ("costs_off", "parameters_off"))
    steps = span([workload_of(record).checked for record in records])
    return f"{said} Over {steps} minibatches, the largest differences found were {costs:.1g} and {moves:.1g}."


def _in_turn(records: Sequence[Record]) -> str:
    said = (
        "Everyone lives in a process of its own, which the operating system stops while another one runs. "
        "A repeat times each of them once, one after the other, so that what slows the machine down for a "
        "while slows everyone down. Ratios are taken within a repeat, and the median over all repeats counts."
    )
    if not records:
        return said
    repeats = span([record["setting"]["repeats"] for record in records])
    counts = sorted({record["setting"].get("sittings", 1) for record in records})
    new = ", each with new processes" if counts[-1] > 1 else ""
    return f"{said} Here are {span(counts)} sitting{'s' * (counts[-1] > 1)} of {repeats} repeats{new}."


def _threads(records: Sequence[Record]) -> list[Any]:
    groups: dict[str, list[Markup]] = {}
    for record in records:
        setting = record["setting"]
        words = f"{plural(setting['threads'], 'thread')} and {setting['precision']}"
        words += " on a GPU" if setting["device"] == "cuda" else ""
        groups.setdefault(words, []).append(element("code", record["workload"]["name"]))
    told = [together([words, " for ", listed(names)]) for words, names in groups.items()]
    return ["All have the same cores, and as many threads: ", together(told, "; "), "."]


def _blas(records: Sequence[Record]) -> list[Any]:
    names = listed([element("code", name) for name in UNSET])
    found = {
        f"{name}={value}" for record in records for name, value in record["environment"]["unset"].items()
    }
    said = ["Libraries choose their matrix kernels by the processor. ", names, ", which could make OpenBLAS "]
    said.append("choose others, are unset for all who are measured")
    said.append(f" (they were set around them: {', '.join(sorted(found))})." if found else ".")
    return said


def machines(records: Sequence[Record]) -> list[Markup]:
    """Machine, versions and dates, for each device; more than one machine is told as such."""
    found: list[Markup] = []
    for device, title in DEVICES.items():
        here = of(records, None, device)
        if not here:
            continue
        found.append(element("h3", title))
        if len({record["environment"]["machine"]["cpu"] for record in here}) > 1:
            several = element("b", "These figures come from more than one machine")
            note = ": compare within a part, not between parts. Each part says where it was measured."
            found.append(element("p", several, note, class_="warning"))
        found.append(_machine(here))
    return found or [element("p", NOT_YET, class_="missing")]


def _machine(records: Sequence[Record]) -> Markup:
    machines = [record["environment"]["machine"] for record in records]
    told = {
        "Processor": [machine["cpu"] for machine in machines],
        "Cores": [machine.get("cores") for machine in machines],
        "Memory": [f"{m['memory_gib']:g} GiB" if m.get("memory_gib") else None for m in machines],
        "Clock": [f"{m['clock_mhz']:.0f} MHz" if m.get("clock_mhz") else None for m in machines],
        "GPU": [_gpu(machine["gpu"]) if machine.get("gpu") else None for machine in machines],
        "System": [machine.get("system") for machine in machines],
        "Versions": [_versions(records)],
        "OpenBLAS kernels for": _architectures(records),
        "Measured": sorted(record["environment"]["date"] for record in records),
    }
    rows = []
    for name, values in told.items():
        kept = list(dict.fromkeys(str(value) for value in values if value))
        rows += [element("dt", name), element("dd", "; ".join(kept))] if kept else []
    return element("dl", *rows)


def _gpu(gpu: Record) -> str:
    keys = {"driver_version": "driver", "memory.total": "memory"}
    told = [f"{words} {gpu[key]}" for key, words in keys.items() if gpu.get(key)]
    return f"{gpu['name']} ({', '.join(told)})" if told else gpu["name"]


def _sources(records: Sequence[Record]) -> list[Record]:
    """Who tells versions and libraries: the process that asked, and each that was measured."""
    peers = [peer for record in records for peer in record.get("peers", {}).values()]
    points = [
        point
        for record in records
        for found in record.get("directions", {}).values()
        for point in found["points"]
    ]
    peers += [peer for point in points for peer in point["peers"].values()]
    return [*(record["environment"] for record in records), *(peer["sittings"][-1] for peer in peers)]


def _versions(records: Sequence[Record]) -> str:
    found: dict[str, dict[str, None]] = {}
    for source in _sources(records):
        for name, version in source.get("versions", {}).items():
            found.setdefault(name, {})[version] = None
    return versions({name: " and ".join(each) for name, each in found.items()})


def versions(found: Record) -> str:
    """
    >>> versions({"numpy": "2.4", "python": "3.11", "abacus": "1"})
    'Python 3.11, NumPy 2.4, abacus 1'
    """
    order = {name: at for at, name in enumerate(NAMES)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return ", ".join(f"{NAMES.get(name, name)} {found[name]}" for name in names)


def _architectures(records: Sequence[Record]) -> Iterable[str]:
    for source in _sources(records):
        libraries = source.get("blas")
        for library in libraries if isinstance(libraries, list) else []:
            if library.get("internal_api") == "openblas" and library.get("architecture"):
                yield library["architecture"]


def measured_on(record: Record) -> Markup:
    """Where and when, for a part whose processes do not tell."""
    environment = record["environment"]
    machine = environment["machine"]
    gpu = machine.get("gpu") if record["setting"]["device"] == "cuda" else None
    cpu = machine["cpu"] + (f", {plural(machine['cores'], 'core')}" if machine.get("cores") else "")
    parts = [gpu["name"]] if gpu else []
    parts += [
        cpu,
        plural(record["setting"]["threads"], "thread"),
        versions(environment["versions"]),
        environment["date"],
    ]
    return element("p", f"Measured on {'; '.join(parts)}.", class_="where")
