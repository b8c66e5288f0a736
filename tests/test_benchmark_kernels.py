"""The benchmarks of single ops: every op is there, its data stays what it is, its figures mean something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, results
from benchmarks.kernels import record
from benchmarks.kernels.ops import LEFT_OUT, TOUCHED, Case, cases, products
from benchmarks.kernels.programs import Kernel
from benchmarks.workloads import WORKLOADS
from gpunn.activations import ACTIVATIONS
from gpunn.device import backend_for
from gpunn.ops import HYPER, OPS, rule

ROOT = Path(__file__).parent.parent
QUICK = cases(quick=True)


def pytest_of_benchmarks(*words):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def measured():
    pytest.importorskip("pytest_benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_CORETYPE", "Haswell")
        patch.setattr(record, "floors", lambda *_: {"copy_bytes": 1e10, "product_flops": 1e11})
        return record.measure(["numpy", "abacus"], device="cpu", quick=True, threads=1)


class TestRecord:
    def test_it_is_one_that_results_accept(self, measured, tmp_path):
        assert results.read(results.write(measured, tmp_path)) == json.loads(json.dumps(measured))

    def test_every_op_is_measured_or_left_out_for_a_reason(self, measured):
        assert {kernel["op"] for kernel in measured["kernels"]} == OPS.keys() - LEFT_OUT.keys()
        assert LEFT_OUT.keys() <= OPS.keys()
        assert measured["failed"] == {}

    def test_the_figures_are_positive_and_in_order(self, measured):
        for kernel in measured["kernels"]:
            seconds = kernel["seconds"]
            assert 0 < seconds["min"] <= seconds["q1"] <= seconds["median"] <= seconds["q3"] < 1
            assert seconds["rounds"] >= measured["setting"]["repeats"]
            assert kernel["bytes"] > 0

    def test_a_backend_that_is_not_there_is_named_with_the_reason(self, measured):
        assert list(measured["without"]) == ["abacus"]
        assert {kernel["backend"] for kernel in measured["kernels"]} == {"numpy"}

    def test_the_measured_process_computes_with_the_machines_own_kernels_and_these_threads(self, measured):
        found = measured["environment"]
        assert found["unset"] == {"OPENBLAS_CORETYPE": "Haswell"}
        assert {"numpy", "gpunn", "python"} <= found["versions"].keys()
        if isinstance(found["blas"], list):
            assert {entry["num_threads"] for entry in found["blas"]} == {1}

    def test_no_backend_at_all_is_a_record_without_kernels(self, monkeypatch):
        monkeypatch.setattr(record, "floors", lambda *_: {})
        found = record.measure(["abacus"], device="cpu", quick=True, threads=1)
        assert (found["kernels"], list(found["without"])) == ([], ["abacus"])
        results.check(found, "kernels")

    def test_where_nothing_could_be_timed_the_error_holds_what_pytest_said(self, monkeypatch, tmp_path):
        monkeypatch.setattr(record, "floors", lambda *_: {})
        monkeypatch.setattr(record, "HERE", tmp_path)
        with pytest.raises(record.KernelError, match="no kernel was timed: ERROR"):
            record.measure(["numpy"], device="cpu", quick=True, threads=1)

    def test_floors_that_cannot_be_measured_say_why(self, monkeypatch):
        def broken(*_, **__):
            raise harness.PeerError("absent", "no torch")

        monkeypatch.setattr(harness.Member, "ask", broken)
        assert record.floors("cpu", 1, sys.executable) == {"error": "no torch"}


FLOORS = {"copy_bytes": 2e10, "product_flops": 1e11}


class TestShare:
    def test_a_product_is_held_against_a_large_product(self):
        kernel = {"flops": 10**9, "bytes": 1, "seconds": {"median": 0.02}}
        assert record.share(kernel, FLOORS) == (0.5, "product")

    def test_all_else_is_held_against_a_copy(self):
        kernel = {"flops": None, "bytes": 10**9, "seconds": {"median": 0.2}}
        assert record.share(kernel, FLOORS) == (0.25, "copy")

    def test_without_a_floor_there_is_none(self):
        kernel = {"flops": None, "bytes": 10**9, "seconds": {"median": 0.2}}
        assert record.share(kernel, {"error": "no torch"}) == (None, "copy")


class TestCases:
    def test_every_activation_is_measured_and_every_derivative_but_that_of_identity(self):
        found = {(case.op, case.attrs["sigma"]) for case in cases() if "sigma" in case.attrs}
        every = {(op, name) for op in ("activate", "activate_grad") for name in ACTIVATIONS}
        assert every - found == {("activate_grad", "identity")}

    def test_no_two_have_one_name(self):
        labels = [case.label for case in cases()]
        assert len(set(labels)) == len(labels)

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_products_have_the_shapes_of_the_workloads(self, device):
        found = {tuple(c.sizes[d] for d in "BKN") for c in cases(device) if c.op == "linear_grad_weight"}
        assert found == set(products(device))
        assert len(found) >= len(WORKLOADS)

    @pytest.mark.parametrize(
        ("op", "sizes", "attrs", "expected"),
        [
            ("linear", {"B": 2, "K": 3, "N": 5}, {}, 4 * (2 * 3 + 5 * 3 + 5 + 2 * 5)),
            ("linear_grad_bias", {"B": 2, "N": 5}, {"accumulate": True}, 4 * (10 + 2 * 5)),
            ("activate_grad", {"*S": (7,)}, {"sigma": "relu"}, 4 * (7 + 2 * 7)),
            ("adam", {"P": 7}, {}, 4 * (7 + 2 * 3 * 7) + 8 * len(HYPER)),
            ("dropout", {"*S": (7,)}, {}, 4 * 7 + 8 * 3 + 4 * 7 + 7),
            ("softmax_cross_entropy", {"B": 2, "N": 5}, {}, 4 * 10 + 8 * 2 + 8 * 2 + 4 * 10),
            ("gather", {"n": 1000, "B": 2, "*S": (5,)}, {}, 4 * 10 + 8 * 2 + 8 + 4 * 10),
            ("confusion", {"B": 2, "N": 5}, {}, 4 * 10 + 8 * 2 + 2 * 8 * 2),
        ],
    )
    def test_bytes_are_those_read_and_those_written(self, op, sizes, attrs, expected):
        assert Case(op, "", sizes, attrs=attrs).bytes == expected

    def test_what_is_touched_in_part_is_in_the_vocabulary(self):
        for op, operand in TOUCHED:
            assert operand in {o.name for o in (*rule(op).inputs, *rule(op).outputs)}


@pytest.mark.parametrize("case", QUICK, ids=[case.label for case in QUICK])
def test_data_stay_finite_and_never_denormal_however_often_an_op_runs(case):
    kernel = Kernel(case, backend_for("numpy"))
    kernel.run(-(-1000 // kernel.ops))
    for operand in case.operands:
        values = kernel.runner.read(operand.name)
        if values.dtype.kind == "f":
            assert np.isfinite(values).all(), operand
            assert not ((values != 0) & (np.abs(values) < np.finfo(values.dtype).tiny)).any(), operand


def test_derivatives_are_computed_from_what_sigma_wrote():
    for name in ("sigmoid", "relu", "gelu"):
        (case,) = (c for c in QUICK if c.op == "activate_grad" and c.attrs["sigma"] == name)
        y = Kernel(case, backend_for("numpy")).runner.read("y")
        low, high = {"sigmoid": (0, 1), "relu": (0, 9), "gelu": (-9, 9)}[name]
        assert low <= y.min() < y.max() <= high
        assert (y.min() < 0) == (name == "gelu")


@pytest.mark.skipif(find_spec("pytest_benchmark") is None, reason="needs pytest-benchmark")
class TestPytest:
    def test_the_whole_folder_runs_without_the_frameworks_of_the_peers(self):
        """Each kernel once, untimed, and the doctests."""
        code, said = pytest_of_benchmarks("benchmarks", "--quick", "--benchmark-disable", "--backend=numpy")
        assert code == 0, said

    def test_a_backend_that_is_not_there_is_a_visible_skip(self):
        code, said = pytest_of_benchmarks("benchmarks/kernels/test_ops.py", "--backend=abacus")
        assert code == 0, said
        assert "abacus: there is no backend 'abacus'" in said
