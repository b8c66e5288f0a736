"""Every op by itself, timed through the runner that trains networks with it."""

from __future__ import annotations

import math
import time

import pytest

from gpunn.device import backend_for

from .ops import absent, cases, working
from .programs import Kernel

pytest.importorskip("pytest_benchmark", reason="the kernels are timed by pytest-benchmark")

#: Seconds that a round lasts at least: timer, call from Python and synchronisation are lost in it.
ROUND = 1e-3


def pytest_generate_tests(metafunc):
    config = metafunc.config
    wanted = config.getoption("backend", None) or working()
    missing = absent(wanted)
    found = []
    for name in wanted:
        if name in missing:
            why = pytest.mark.skip(reason=f"{name}: {missing[name]}")
            found.append(pytest.param(name, None, marks=why, id=name))
            continue
        for case in cases("cuda" if name == "cuda" else "cpu", quick=config.getoption("quick", False)):
            found.append(pytest.param(name, case, id=f"{name}-{case.label}"))
    metafunc.parametrize(("backend", "case"), found)


def test_op(benchmark, backend, case, pytestconfig):
    kernel = Kernel(case, backend_for(backend))
    benchmark.group = case.op
    benchmark.params = {"backend": backend, "op": case.op, "dtype": case.dtype, "size": case.size}
    benchmark.extra_info.update({"backend": backend, **case.described()})
    kernel.run(1)
    steps, seconds = enough_steps(kernel) if benchmark.enabled else (1, math.inf)
    rounds = int(float(pytestconfig.getoption("benchmark_max_time")) / seconds)
    rounds = max(rounds, pytestconfig.getoption("benchmark_min_rounds"))
    benchmark.pedantic(kernel.run, args=(steps,), rounds=rounds)
    if benchmark.stats:  # Of rounds so far; people and records want seconds of one op.
        times = benchmark.stats.stats.data
        benchmark.stats.iterations = steps * kernel.ops
        times[:] = [each / benchmark.stats.iterations for each in times]


def enough_steps(kernel: Kernel) -> tuple[int, float]:
    """How many runs make a round, and the seconds that they take."""
    steps = 1
    while True:
        start = time.perf_counter()
        kernel.run(steps)
        seconds = time.perf_counter() - start
        if seconds >= ROUND:
            return steps, seconds
        steps *= math.ceil(min(10, 1.2 * ROUND / seconds))
