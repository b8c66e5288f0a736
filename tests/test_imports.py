"""Imports go only down, the two sides never meet, and importing gpunn imports little."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn

PACKAGE = Path(gpunn.__file__).parent

#: The floor of every module, by its first name below ``gpunn``. Imports go to the same floor or down.
LEVELS = {
    "errors": 0,
    "files": 0,
    "activations": 0,
    "_source_tree": 0,
    "_version": 0,
    "arrays": 0,
    "philox": 0,
    "scalars": 0,
    "threads": 1,
    "kernels": 0,
    "data": 1,
    "ops": 1,
    "arena": 1,
    "slots": 2,
    "fusion": 2,
    "program": 2,
    "initializers": 3,
    "layers": 3,
    "losses": 3,
    "metrics": 3,
    "optimizers": 3,
    "schedules": 3,
    "backends": 3,
    "device": 4,
    "variants": 4,
    "batches": 5,
    "callbacks": 5,
    "engine": 5,
    "checkpoint": 5,
    "gradients": 5,
    "history": 5,
    "interrupt": 5,
    "network": 5,
    "progress": 5,
    "streams": 5,
    "training": 5,
    "cli": 6,
    "plotting": 6,
    "sklearn": 6,
    "__init__": 7,
    "__main__": 7,
}
DECLARES = {"layers", "losses", "optimizers", "schedules", "initializers", "metrics", "variants"}
RUNS = {"backends"}


def modules(package):
    """Every module as (dotted parts below the package, path)."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield (parts if parts[-1] != "__init__" or len(parts) == 1 else parts[:-1]), path


def imported(package, parts, path):
    """The modules of the package that one module imports, anywhere in it, as dotted parts."""
    is_package = path.name == "__init__.py"
    home = ("gpunn", *(() if parts == ("__init__",) else parts))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"gpunn(\.\w+)+(:\w+)?", str(node.value)):
            names = [tuple(node.value.partition(":")[0].split("."))]
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (1 if is_package else 0)
            base = home[: len(home) - up] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*base, alias.name) for alias in node.names]
        for name in names:
            if name[0] == "gpunn":
                yield name[1:] or ("__init__",)


def top(parts, package):
    """The first name of a module below the package; a name that is no module belongs to ``__init__``."""
    first = parts[0]
    exists = (package / first).is_dir() or (package / f"{first}.py").is_file() or first == "kernels"
    return first if exists else "__init__"


def faults(package):
    """Every import that breaks a rule, in words."""
    found, graph = [], {}
    for parts, path in modules(package):
        own = parts[0]
        if own not in LEVELS:
            found.append(f"{own} has no level")
            continue
        for target in imported(package, parts, path):
            other = top(target, package)
            if other == own:
                continue
            graph.setdefault(own, set()).add(other)
            if LEVELS[other] > LEVELS[own]:
                found.append(f"{own} (level {LEVELS[own]}) imports {other} (level {LEVELS[other]})")
            if (own in DECLARES and other in RUNS) or (own in RUNS and other in DECLARES):
                found.append(f"{own} and {other} are on two sides")
    return found + [f"a circle through {name}" for name in graph if reaches(graph, name, name)]


def reaches(graph, start, end):
    seen, left = set(), list(graph.get(start, ()))
    while left:
        name = left.pop()
        if name == end:
            return True
        if name not in seen:
            seen.add(name)
            left.extend(graph.get(name, ()))
    return False


def test_imports_go_down_and_the_two_sides_never_meet():
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("ops.py", "from .program import Program", "ops (level 1) imports program (level 2)"),
        ("program.py", "import gpunn.network", "program (level 2) imports network (level 5)"),
        ("layers/dense.py", "from ..backends import base", "layers and backends are on two sides"),
        ("backends/numpy/runner.py", "from ...layers import Dense", "backends and layers are on two sides"),
        (
            "backends/base.py",
            "def f():\n    from gpunn.losses import LOSSES",
            "backends and losses are on two sides",
        ),
        ("training.py", "from .network import Sequential", "a circle through training"),
        ("errors.py", "from . import load", "errors (level 0) imports __init__ (level 7)"),
        ("optimizers.py", "import gpunn", "optimizers (level 3) imports __init__ (level 7)"),
        (
            "backends/base.py",
            "from importlib import import_module\nimport_module('gpunn.layers')",
            "backends and layers are on two sides",
        ),
        ("schedules.py", "from .optimizers import Optimizer", "a circle through schedules"),
        ("schedules.py", "from .backends import base", "schedules and backends are on two sides"),
        (
            "backends/numpy/sigma.py",
            "from ...metrics import METRICS",
            "backends and metrics are on two sides",
        ),
        ("philox.py", "from .ops import OPS", "philox (level 0) imports ops (level 1)"),
        ("data/encode.py", "from gpunn.batches import Batches", "data (level 1) imports batches (level 5)"),
        ("newroom.py", "import math", "newroom has no level"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, module, line, fault):
    copy = tmp_path / "gpunn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / module, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert fault in faults(copy)


GUIDE = PACKAGE.parent / "docs" / "contributing.md"


@pytest.mark.skipif(not GUIDE.is_file(), reason="not in a source checkout")
def test_the_guide_shows_every_room_on_its_floor():
    rows = re.findall(r"^\| (\d) \| (.*?) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = [(name, int(floor)) for floor, rooms in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", rooms)]
    inner = {"_source_tree", "_version", "kernels", "__init__", "__main__"}
    assert sorted(shown) == sorted((name, level) for name, level in LEVELS.items() if name not in inner)


FORBIDDEN = (
    "cupy",
    "llvmlite",
    "matplotlib",
    "numba",
    "pandas",
    "pooch",
    "scipy",
    "sklearn",
    "tensorboardX",
    "torch",
)


def imported_by(statement, cwd=None):
    script = f"import sys\n{statement}\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=cwd)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import gpunn",
        "import gpunn.cli",
        "import gpunn; gpunn.Sequential([gpunn.Dense(2)], input_shape=3)",
        "import gpunn; gpunn.devices()",
        "import gpunn.callbacks, gpunn.data, gpunn.philox, gpunn.schedules, gpunn.streams",
        "import gpunn; gpunn.Sequential([gpunn.Dropout(0.5), gpunn.Dense(2)], 3, device='numpy')"
        ".fit([[1, 2, 3]], [0], loss='cross_entropy', verbose=0)",
    ],
)
def test_importing_gpunn_imports_nothing_heavy(statement):
    assert imported_by(statement).isdisjoint(FORBIDDEN)


@pytest.mark.parametrize("name", ["sklearn", "scipy", "numba", "pandas", "tensorboardX"])
def test_the_hygiene_test_would_see_a_forbidden_import(tmp_path, name):
    copy = tmp_path / "gpunn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "__init__.py", "a", encoding="utf-8") as file:
        file.write(f"\nimport {name}\n")
    seen = imported_by(f"sys.path.insert(0, {str(tmp_path)!r}); import gpunn", cwd=tmp_path)
    assert name in seen


def test_gpunn_tests_is_not_importable():
    done = subprocess.run(
        [sys.executable, "-c", "import gpunn.tests"], capture_output=True, text=True, check=False
    )
    assert "No module named 'gpunn.tests'" in done.stderr


def test_the_numpy_backend_does_not_shadow_numpy():
    import numpy

    from gpunn.backends import numpy as backend

    assert numpy.array is not None
    assert backend.runner.np is numpy
