"""What installs: pure Python with the kernels in it, as a wheel, an sdist, an editable or a checkout."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECK = "import gpunn, gpunn.kernels as k; print(gpunn.__version__, k.source.__name__, k.__file__)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not in a source checkout"),
]


def run(*command, cwd=None):
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clean copy of the sources, with one kernel source in it, to build from."""
    copy = tmp_path_factory.mktemp("checkout") / "gpunn"
    skipped = (
        ".git",
        ".venv",
        "__pycache__",
        "build",
        "dist",
        "*.egg-info",
        "runs",
        ".*_cache",
        ".hypothesis",
    )
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*skipped))
    (copy / "kernels" / "probe.cu").write_text("// a probe\n")
    (copy / "kernels" / "probe.cuh").write_text("// a header\n")
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), str(checkout))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_pure_python_and_holds_the_package_alone(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "gpunn",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }


def test_the_wheel_carries_the_kernels_their_sources_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "gpunn/kernels/__init__.py",
        "gpunn/kernels/probe.cu",
        "gpunn/kernels/probe.cuh",
        "gpunn/py.typed",
    } <= names
    assert {"gpunn/layers/dense.py", "gpunn/backends/numpy/runner.py", "gpunn/data/idx.py"} <= names


def test_the_wheel_carries_every_module(checkout, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(checkout).as_posix() for path in (checkout / "gpunn").rglob("*.py")}
    assert {"gpunn/layers/dropout.py", "gpunn/backends/numpy/sigma.py", "gpunn/data/encode.py"} <= modules
    assert modules - names == set()


def distributions(requirements):
    """The names in a list of requirements."""
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_what_gpunn_imports_is_what_it_requires():
    """In the core what no extra brings, and nothing that is not imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = distributions(project["dependencies"])
    extras = [distributions(names) for extra, names in project["optional-dependencies"].items()]
    assert {"numba", "numpy", "safetensors", "tqdm"} <= core
    imported = set()
    for path in (ROOT / "gpunn").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
                named = node.args[0]
                imported |= {named.value.partition(".")[0]} if isinstance(named, ast.Constant) else set()
    others = imported - set(sys.stdlib_module_names) - {"gpunn"}
    called = {
        "sklearn": "scikit-learn",
        "cupy": "cupy-cuda13x",
        "nvmath": "nvmath-python",
        "scipy": "scikit-learn",
    }
    others = {called.get(name, name) for name in others}
    assert others - core - set().union(*extras) == set()
    assert core <= others


def test_the_wheel_says_what_it_requires(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    told = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", archive.read(metadata).decode(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(told) == distributions(project["dependencies"])


def test_the_sdist_builds_again_and_carries_the_kernels(checkout, tmp_path):
    script = f"from setuptools import build_meta as b; print(b.build_sdist({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", script, cwd=checkout).split()[-1]
    with tarfile.open(tmp_path / name) as archive:
        members = {Path(*Path(m).parts[1:]).as_posix() for m in archive.getnames()}
    assert {
        "kernels/__init__.py",
        "kernels/probe.cu",
        "kernels/probe.cuh",
        "pyproject.toml",
        "LICENSE",
    } <= members


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installed_gpunn_finds_its_kernels(checkout, wheel, tmp_path, editable):
    """Installed beside the dependencies of this environment, in a folder or an environment of its own."""
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    parent = run(sys.executable, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    Path(site, "beside.pth").write_text(f"{parent}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--force-reinstall",
    ]
    run(*command, *(["--no-build-isolation", "-e", str(checkout)] if editable else [str(wheel)]))
    found = run(str(python), "-c", CHECK, cwd=tmp_path).split()[-1]
    assert Path(found).parent == (checkout / "kernels" if editable else Path(site) / "gpunn" / "kernels")
    source = run(str(python), "-c", "import gpunn.kernels as k; print(k.source('probe.cu'))", cwd=tmp_path)
    assert source.strip() == "// a probe"


def test_a_bare_checkout_finds_its_kernels(checkout, tmp_path):
    script = f"import sys; sys.path.insert(0, {str(checkout)!r})\n{CHECK}"
    found = run(sys.executable, "-c", script, cwd=tmp_path).split()[-1]
    assert Path(found).parent == checkout / "kernels"
