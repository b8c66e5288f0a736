"""Options of ``pytest benchmarks``, what it collects, and what it writes beside the figures."""

from __future__ import annotations

import os
import platform
import warnings

import numpy as np
import pytest

from .environment import UNSET, blas, cores, cpu, environment

#: These import frameworks that gpunn itself does not need.
collect_ignore_glob = ["peers/*", "optimizer_trajectories.py"]

#: Seconds and rounds of one kernel: there are hundreds. pytest-benchmark's own second would be minutes.
FULL = {"benchmark_max_time": "0.15", "benchmark_min_rounds": 5}
QUICK = {"benchmark_max_time": "0.005", "benchmark_min_rounds": 3}

#: What broke, by the name of the test: a record tells it.
FAILED = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser):
    group = parser.getgroup("gpunn benchmarks")
    group.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help="a backend to measure, once for each; all that work",
    )
    group.addoption(
        "--quick", action="store_true", help="the smallest sizes, few rounds: a look, no evidence"
    )


def pytest_configure(config):
    config.stash[FAILED] = {}
    if config.pluginmanager.hasplugin("benchmark"):
        # That there is nothing yet to compare with is told by a warning, and is no error.
        from pytest_benchmark.logger import PytestBenchmarkWarning as Told

        warnings.filterwarnings("default", category=Told)
        config.addinivalue_line("filterwarnings", f"default::{Told.__module__}.{Told.__name__}")
    words = [str(word).split("=")[0] for word in config.invocation_params.args]
    for name, value in (QUICK if config.getoption("quick", False) else FULL).items():
        if f"--{name.replace('_', '-')}" not in words:
            setattr(config.option, name, value)


def pytest_report_header():
    found = blas()
    if isinstance(found, list):
        told = "{internal_api} {version} {architecture}, threads: {num_threads}"
        found = "; ".join(told.format(**entry) for entry in found)
    pinned = "".join(f", pinned by {name}={os.environ[name]}" for name in UNSET if name in os.environ)
    return f"kernels: {found}{pinned}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        told = str(call.excinfo.value).strip() or call.excinfo.typename
        item.config.stash[FAILED][item.name] = told.splitlines()[0]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info():
    """What two runs that are compared should share: not the clock of the moment, which comes by default."""
    return {
        "cpu": cpu(),
        "cores": len(cores()),
        "blas": blas(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, output_json):
    output_json["environment"] = environment()
    output_json["failed"] = config.stash[FAILED]
