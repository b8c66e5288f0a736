"""Result files: JSON, one for each workload, kind and device; refused where they lack their environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .workloads import from_description

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"

KINDS = ("workload", "kernels", "scaling", "accuracy", "estimators", "book")

#: What a figure is worth nothing without.
NEEDED = {
    "environment": ("date", "machine", "versions", "blas", "unset"),
    "setting": ("device", "threads", "precision", "repeats"),
}


class ResultError(ValueError):
    """A result file that cannot be used: which one, and why."""


def check(record: Mapping[str, Any], name: str) -> None:
    """Refuse a record without its environment."""
    if record.get("schema") != SCHEMA:
        raise ResultError(f"{name}: schema is {record.get('schema')!r}, expected {SCHEMA}: measure it again")
    if record.get("kind") not in KINDS:
        raise ResultError(f"{name}: kind is {record.get('kind')!r}, expected one of {', '.join(KINDS)}")
    for part, keys in NEEDED.items():
        found = record.get(part)
        missing = [key for key in keys if not isinstance(found, Mapping) or key not in found]
        if missing:
            raise ResultError(f"{name}: {part} lacks {', '.join(missing)}: a figure is nothing without that")
    machine = record["environment"]["machine"]
    if not machine.get("cpu") or not machine.get("cores") or "numpy" not in record["environment"]["versions"]:
        raise ResultError(f"{name}: environment names no processor, no number of cores or no NumPy version")
    if record["kind"] == "workload":
        try:
            from_description(record["workload"])
            times = [s["seconds"] for peer in record["peers"].values() for s in peer["sittings"]]
            whole = all(each and all(value > 0 for value in each) for each in times)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultError(f"{name}: is not whole: {error!r}") from error
        if not whole:
            raise ResultError(f"{name}: a peer has no times")


def write(record: Mapping[str, Any], folder: Path) -> Path:
    """Check and write; the file's name is made of workload, kind and device."""
    check(record, f"a record of {record.get('kind')}")
    named = record.get("workload", record).get("name")
    path = folder / f"{'-'.join(filter(None, (named, record['kind'], record['setting']['device'])))}.json"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path.name}: {error}") from error
    if not isinstance(record, dict):
        raise ResultError(f"{path.name}: holds a {type(record).__name__}, expected an object")
    check(record, path.name)
    return record
