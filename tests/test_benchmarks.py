"""The benchmark harness: who computes something else is refused, what is written can be trusted."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import __main__, harness, results, scaling, tables
from benchmarks.environment import UNSET, environment
from benchmarks.harness import Setting, compare
from benchmarks.peers import OURS, PEERS, Entry
from benchmarks.workloads import WORKLOADS, Order, Problem, Workload, from_description, make_problem

TINY = Workload(
    "tiny",
    20,
    (7, 5),
    "sigmoid",
    "sigmoid",
    "quadratic",
    ("sgd", {"lr": 3.0}),
    4,
    "normal",
    "normal",
    samples=82,
)
CROSSED = replace(TINY, output="softmax", loss="cross_entropy", optimizer=("sgd", {"lr": 0.5}))
RELU = replace(CROSSED, hidden="relu", weights="he_normal", bias="zeros", units=(7, 6, 5))
QUICK = Setting(
    repeats=2,
    sittings=1,
    budget=0.01,
    threads=1,
    peer_python=os.environ.get("GPUNN_PEER_PYTHON", sys.executable),
)


@pytest.fixture
def no_floors(monkeypatch):
    """The machine's own speed takes a second to measure and says nothing here."""
    monkeypatch.setattr(harness._Comparison, "_floors", lambda self: {"copy_bytes": 1.0})


@pytest.mark.usefixtures("no_floors")
class TestComparison:
    @pytest.mark.parametrize(
        ("workload", "name"),
        [
            pytest.param(workload, name, id=f"{what}-{name}")
            for what, workload, names in [
                (
                    "quadratic",
                    TINY,
                    ["loops", "numpy", "torch", "torch-compile", "jax", "jax-scan", "jax-scan-io"],
                ),
                ("crossed", CROSSED, ["loops", "numpy", "sklearn", "torch", "jax"]),
                (
                    "momentum",
                    replace(RELU, optimizer=("momentum", {"lr": 0.1, "momentum": 0.9})),
                    ["numpy", "sklearn", "torch", "jax"],
                ),
                ("adam", replace(RELU, optimizer=("adam", {"lr": 0.01})), ["numpy", "torch", "jax"]),
            ]
            for name in names
        ],
    )
    def test_a_peer_computes_what_gpunn_computes_and_is_timed(self, workload, name):
        record = compare(workload, [OURS["numpy"], PEERS[name]], QUICK)
        if record["without"] and record["without"][name]["status"] == "absent":
            pytest.skip(f"{name}: {record['without'][name]['why']}")
        assert record["without"] == {}
        for peer in record["peers"].values():
            (sitting,) = peer["sittings"]
            assert len(sitting["seconds"]) == 2
            assert all(value > 0 for value in sitting["seconds"])
            assert sitting["parameters_off"] < 1e-3
            assert sitting["versions"]["numpy"]
        ratio = tables.ratio(record, name, "gpunn-numpy")
        assert ratio > 0

    @pytest.mark.parametrize("workload", [TINY, RELU], ids=["sgd", "relu"])
    def test_a_learning_rate_off_by_a_percent_is_refused(self, workload):
        lr = workload.optimizer[1]["lr"]
        record = compare(workload, [OURS["numpy"], PEERS["numpy"].altered(lr=1.01 * lr)], QUICK)
        assert record["without"]["numpy"]["status"] == "refused"
        assert "computes something else" in record["without"]["numpy"]["why"]
        assert set(record["peers"]) == {"gpunn-numpy"}

    def test_gpunn_too_is_refused_where_it_computes_something_else(self):
        record = compare(TINY, [OURS["numpy"].altered(lr=1.0), PEERS["numpy"]], QUICK)
        assert record["without"]["gpunn-numpy"]["status"] == "refused"
        assert tables.chosen(record) is None
        assert "numpy" in record["peers"]

    def test_where_nobody_can_be_timed_there_is_no_record(self):
        with pytest.raises(harness.PeerError, match=r"nobody could be timed\. plain NumPy: it computes"):
            compare(TINY, [PEERS["numpy"].altered(lr=1.0)], QUICK)

    def test_without_a_gpu_nothing_is_begun_for_one(self):
        with pytest.raises(harness.PeerError, match="nvidia-smi finds no GPU"):
            compare(TINY, [PEERS["torch"]], replace(QUICK, device="cuda"))

    def test_a_python_that_cannot_be_started_is_told(self):
        setting = replace(QUICK, peer_python="/nonexistent/python")
        record = compare(TINY, [OURS["numpy"], PEERS["numpy"]], setting)
        assert record["without"]["numpy"]["status"] == "absent"
        assert "/nonexistent/python" in record["without"]["numpy"]["why"]

    @pytest.mark.parametrize(
        ("body", "status", "why"),
        [
            (
                "    def run(self, steps, order):\n"
                "        if steps <= 20 and not hasattr(self, 'lazy'):\n"
                "            self.lazy = True\n"
                "            return super().run(steps, order)\n"
                "        return [self.step(self.X[rows], self.T[rows]) for rows in order.take(steps)[:1]]\n",
                "refused",
                "timed, it computes something else",
            ),
            ("    def device_memory(self):\n        os._exit(1)\n", "failed", "its process ended"),
        ],
        ids=["lazy when timed", "dies at the end"],
    )
    def test_what_is_only_right_at_first_is_found(self, body, status, why, monkeypatch, tmp_path):
        head = "import os\nfrom benchmarks.peers.plain_numpy import Peer as Plain\nclass Peer(Plain):\n"
        (tmp_path / "other_peer.py").write_text(head + body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        longer = replace(TINY, samples=2000, checked=2)
        record = compare(longer, [OURS["numpy"], Entry("other", "Other", "other_peer")], QUICK)
        assert record["without"]["other"]["status"] == status
        assert why in record["without"]["other"]["why"]
        assert set(record["peers"]) == {"gpunn-numpy"}

    def test_who_is_missing_or_breaks_is_listed_with_the_reason_and_the_others_go_on(
        self, monkeypatch, tmp_path
    ):
        (tmp_path / "breaking_peer.py").write_text("class Peer:\n    def __init__(self, *a, **k): 1 / 0\n")
        (tmp_path / "dying_peer.py").write_text(
            "import os, sys\nclass Peer:\n    def __init__(self, *a, **k):\n"
            "        print('a last word', file=sys.stderr, flush=True)\n        os._exit(3)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        entries = [
            Entry("missing", "Missing", "no_such_module"),
            Entry("breaking", "Breaking", "breaking_peer"),
            Entry("dying", "Dying", "dying_peer"),
            Entry("gpu", "For a GPU", "breaking_peer", devices=("cuda",)),
            OURS["numpy"],
        ]
        record = compare(TINY, entries, QUICK)
        told = {name: (found["status"], found["why"]) for name, found in record["without"].items()}
        assert told["missing"] == ("absent", "No module named 'no_such_module'")
        assert told["breaking"] == ("failed", "ZeroDivisionError: division by zero")
        assert told["dying"][0] == "failed"
        assert "a last word" in told["dying"][1]
        assert told["gpu"][0] == "absent"
        assert set(record["peers"]) == {"gpunn-numpy"}

    def test_a_peer_whose_cost_is_no_longer_finite_is_taken_out(self, monkeypatch, tmp_path):
        (tmp_path / "diverging_peer.py").write_text(
            "from benchmarks.peers.plain_numpy import Peer as Plain\n"
            "class Peer(Plain):\n"
            "    def run(self, steps, order):\n"
            "        found = super().run(steps, order)\n"
            "        self.options = {'lr': 1e38}\n"
            "        return found\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        workload = replace(RELU, output="softmax")
        record = compare(workload, [OURS["numpy"], Entry("diverging", "Diverging", "diverging_peer")], QUICK)
        assert record["without"]["diverging"]["status"] == "failed"
        assert "cost became" in record["without"]["diverging"]["why"]

    def test_what_pins_a_blas_is_unset_for_the_workers_and_recorded(self, monkeypatch, tmp_path):
        (tmp_path / "telling_peer.py").write_text(
            "import os\nclass Peer:\n    def __init__(self, *a, **k):\n"
            f"        raise RuntimeError(sorted(set(os.environ) & set({UNSET!r})))\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
        record = compare(TINY, [OURS["numpy"], Entry("telling", "Telling", "telling_peer")], QUICK)
        assert record["without"]["telling"]["why"] == "RuntimeError: []"
        assert record["environment"]["unset"] == {"OPENBLAS_CORETYPE": "Haswell"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_floors")
@pytest.mark.parametrize("name", WORKLOADS)
def test_plain_numpy_and_gpunn_agree_on_every_workload(name):
    workload = replace(WORKLOADS[name], batch=min(128, WORKLOADS[name].batch))
    record = compare(workload, [OURS["numpy"], PEERS["numpy"]], replace(QUICK, repeats=1))
    assert record["without"] == {}
    assert set(record["peers"]) == {"gpunn-numpy", "numpy"}


def test_the_order_goes_through_whole_epochs_and_skipping_is_taking():
    problem = make_problem(TINY)
    order, other = Order(problem), Order(problem)
    epoch = np.concatenate([order.take(7), order.take(13)])
    assert sorted(epoch.ravel()) == list(range(80))
    other.skip(20)
    np.testing.assert_array_equal(order.take(5), other.take(5))
    with pytest.raises(ValueError, match="16 minibatches asked for, 15 are left"):
        order.take(16)


def test_a_problem_is_the_same_after_saving(tmp_path):
    problem = make_problem(TINY)
    problem.save(tmp_path)
    again = Problem.load(tmp_path, {"lr": 1.0})
    assert again.workload == problem.workload
    assert again.options == {"lr": 1.0}
    np.testing.assert_array_equal(again.X, problem.X)
    assert len(problem.X) == 80
    assert again.targets.sum() == 80


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_survives_its_description(name):
    workload = WORKLOADS[name]
    assert from_description(json.loads(json.dumps(workload.describe()))) == workload


def test_sizes_are_told_shortly():
    assert WORKLOADS["speech"].shape == "440-7×1000-2000"
    assert WORKLOADS["nielsen"].flops == 2 * 10 * (2 * 784 * 30 + 3 * 30 * 10)
    assert WORKLOADS["nielsen"].parameters == 785 * 30 + 31 * 10


def a_record(ours, theirs, name="nielsen", device="cpu"):
    """A workload's record with these seconds of each sitting."""

    def peer(entry, sittings):
        return {
            "label": entry.label,
            "ours": entry.ours,
            "sittings": [
                {"seconds": found, "first_run_seconds": 1.0, "memory": {"peak_bytes": 2**20}, "versions": {}}
                for found in sittings
            ],
        }

    return {
        "schema": results.SCHEMA,
        "kind": "workload",
        "workload": WORKLOADS[name].describe(),
        "data": "MNIST",
        "setting": {
            "device": device,
            "threads": 1,
            "precision": "float32",
            "repeats": 3,
            "sittings": len(ours),
        },
        "environment": environment(),
        "peers": {"gpunn-numpy": peer(OURS["numpy"], ours), "numpy": peer(PEERS["numpy"], theirs)},
        "without": {},
        "floors": [{}],
    }


class TestResults:
    def test_a_record_reads_as_it_was_written(self, tmp_path):
        record = a_record([[1e-6, 2e-6]], [[2e-6, 2e-6]])
        path = results.write(record, tmp_path)
        assert path.name == "nielsen-workload-cpu.json"
        assert results.read(path) == json.loads(json.dumps(record))

    @pytest.mark.parametrize(
        ("part", "key"), [(part, key) for part, keys in results.NEEDED.items() for key in (None, *keys)]
    )
    def test_one_without_its_environment_is_neither_written_nor_read(self, part, key, tmp_path):
        record = a_record([[1e-6]], [[2e-6]])
        path = results.write(record, tmp_path)
        if key is None:
            del record[part]
        else:
            del record[part][key]
        with pytest.raises(results.ResultError, match=rf"{part} lacks .*{key or ''}"):
            results.write(record, tmp_path)
        path.write_text(json.dumps(record))
        with pytest.raises(results.ResultError, match=rf"nielsen-workload-cpu\.json: {part} lacks"):
            results.read(path)

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", "\x00", '{"schema": 1}', '{"schema": 1, "kind": "x"}']
    )
    def test_another_file_is_refused_with_its_name(self, content, tmp_path):
        path = tmp_path / "other.json"
        path.write_text(content)
        with pytest.raises(results.ResultError, match=r"other\.json"):
            results.read(path)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda record: record.pop("peers"),
            lambda record: record["workload"].pop("units"),
            lambda record: record["peers"]["numpy"]["sittings"][0].update(seconds=[]),
            lambda record: record["environment"]["machine"].pop("cores"),
        ],
        ids=["no peers", "no sizes", "no times", "no cores"],
    )
    def test_half_a_record_is_refused_with_its_name(self, spoil, tmp_path):
        record = a_record([[1e-6]], [[2e-6]])
        path = results.write(record, tmp_path)
        spoil(record)
        path.write_text(json.dumps(record))
        with pytest.raises(results.ResultError, match=r"nielsen-workload-cpu\.json"):
            results.read(path)

    def test_every_committed_result_can_be_read(self):
        paths = sorted(results.FOLDER.glob("*.json"))
        assert paths
        for path in paths:
            results.read(path)


class TestTables:
    def test_ratios_are_taken_within_repeats(self):
        record = a_record([[1.0, 10.0, 2.0]], [[3.0, 20.0, 8.0]])
        assert tables.ratios(record, "numpy", "gpunn-numpy") == [[3.0, 2.0, 4.0]]
        assert tables.ratio(record, "numpy", "gpunn-numpy") == 3.0

    def test_sittings_that_are_apart_are_pointed_out(self):
        rough = a_record([[1.0] * 3, [1.0] * 3], [[2.0] * 3, [2.4] * 3])
        assert tables.apart(rough, "numpy", "gpunn-numpy") == pytest.approx(0.2)
        assert "(!)" in tables.terminal(rough)
        same = a_record([[1.0] * 3, [1.0] * 3], [[2.0] * 3, [2.1] * 3])
        assert "(!)" not in tables.terminal(same)

    def test_where_gpunn_is_slower_is_said(self, tmp_path):
        results.write(a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2), tmp_path)
        results.write(a_record([[2e-6] * 3] * 2, [[5e-6] * 3] * 2, name="3b1b"), tmp_path)
        text = tables.readme_section(tmp_path)
        assert "| **0.50** |" in text
        assert "| 2.5 |" in text
        assert "gpunn is the faster one in 1 of 2 comparisons" in text
        assert "Peers that are faster than gpunn, by so many times:\n\n- `nielsen`: plain NumPy (2.0)" in text

    def test_one_sitting_or_a_shared_machine_is_rough(self, tmp_path):
        alone = a_record([[4e-6] * 3], [[2e-6] * 3])
        assert tables.unsure(alone, "numpy", "gpunn-numpy")
        twice = a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2)
        assert not tables.unsure(twice, "numpy", "gpunn-numpy")
        twice["peers"]["numpy"]["sittings"][1]["busy"] = [1e-6] * 3
        assert "plain NumPy had its processor for 50 % of the time" in tables.disturbed(twice)
        assert tables.unsure(twice, "numpy", "gpunn-numpy")
        assert "was not ours alone" in tables.terminal(twice)
        twice["peers"]["numpy"]["sittings"][1]["busy"] = [2e-6] * 3
        twice["floors"] = [{"product_flops": 1e9}, {"product_flops": 2e9}]
        assert "2.00 times as fast in one sitting" in tables.disturbed(twice)
        results.write(twice, tmp_path)
        assert "| **~0.50** |" in tables.readme_section(tmp_path)

    def test_who_is_refused_is_not_told_as_who_does_not_do_it(self, tmp_path):
        record = a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2)
        record["without"] = {
            name: {"label": "", "status": "refused", "why": ""} for name in ("torch", "numpy")
        }
        del record["peers"]["numpy"]
        results.write(record, tmp_path)
        results.write(a_record([[2e-6] * 3] * 2, [[5e-6] * 3] * 2, name="3b1b"), tmp_path)
        assert "| 4 µs | refused |" in tables.readme_section(tmp_path)

    def test_a_workload_that_gpunn_itself_lacks_is_in_the_table(self, tmp_path):
        record = a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2)
        record["without"] = {"gpunn-numpy": {"label": "", "status": "refused", "why": ""}}
        del record["peers"]["gpunn-numpy"]
        results.write(record, tmp_path)
        results.write(a_record([[2e-6] * 3] * 2, [[5e-6] * 3] * 2, name="3b1b"), tmp_path)
        assert "| `nielsen` 784-30-10, batch 10, 1 thread | refused |" in tables.readme_section(tmp_path)

    def test_results_of_several_machines_make_no_table(self, tmp_path):
        other = a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2, name="3b1b")
        other["environment"]["machine"]["cpu"] = "Another"
        results.write(other, tmp_path)
        results.write(a_record([[4e-6] * 3] * 2, [[2e-6] * 3] * 2), tmp_path)
        with pytest.raises(results.ResultError, match="more than one processor"):
            tables.readme_section(tmp_path)

    def test_a_gpu_is_not_yet_measured_until_it_is(self, tmp_path):
        results.write(a_record([[4e-6] * 3], [[2e-6] * 3]), tmp_path)
        assert "### On a GPU\n\nNot yet measured." in tables.readme_section(tmp_path)
        results.write(a_record([[4e-6] * 3], [[2e-6] * 3], device="cuda"), tmp_path)
        assert "Not yet measured" not in tables.readme_section(tmp_path)

    def test_readme_says_what_the_committed_results_say(self):
        text = tables.README.read_text(encoding="utf-8")
        assert tables.regenerated(text, results.FOLDER) == text, "run: python -m benchmarks report"

    def test_a_readme_without_its_marks_is_refused(self):
        with pytest.raises(results.ResultError, match=r"README\.md lacks"):
            tables.regenerated("# gpunn", results.FOLDER)


@pytest.mark.usefixtures("no_floors")
def test_scaling_measures_each_direction(monkeypatch):
    short = {name: (told, values[:1], of) for name, (told, values, of) in scaling.DIRECTIONS.items()}
    monkeypatch.setattr(scaling, "DIRECTIONS", {"depth": short["depth"]})
    record = scaling.measure([OURS["numpy"]], QUICK)
    results.check(record, "scaling")
    (point,) = record["directions"]["depth"]["points"]
    assert point["value"] == 1
    assert point["peers"]["gpunn-numpy"]["sittings"][0]["seconds"]


class TestCommand:
    @pytest.mark.usefixtures("no_floors")
    def test_run_writes_results_and_prints_a_table(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(__main__, "workload_named", lambda name, device: replace(TINY, name=name))
        words = ["run", "--quick", "--workload", "nielsen", "--peers", "numpy", "--backend", "numpy"]
        assert __main__.main([*words, "--out", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert "plain NumPy" in told
        assert "nielsen-workload-cpu.json" in told
        assert results.read(tmp_path / "nielsen-workload-cpu.json")["setting"]["sittings"] == 1

    def test_ctrl_c_keeps_what_was_measured(self, monkeypatch, tmp_path, capsys):
        record = a_record([[1e-6]], [[2e-6]])

        def stopped(tell):
            raise KeyboardInterrupt

        monkeypatch.setattr(__main__, "planned", lambda options: [("a", lambda tell: record), ("b", stopped)])
        assert __main__.main(["run", "--out", str(tmp_path)]) == 130
        assert "nielsen-workload-cpu.json" in capsys.readouterr().out
        assert (tmp_path / "nielsen-workload-cpu.json").exists()

    def test_nothing_new_is_begun_when_time_is_over(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(__main__, "planned", lambda options: [("a", None), ("b", None)])
        monkeypatch.setattr(__main__.time, "monotonic", iter([0.0, 61.0, 62.0]).__next__)
        assert __main__.main(["run", "--minutes", "1", "--out", str(tmp_path)]) == 0
        assert "not measured, 1 minutes were over: a, b" in capsys.readouterr().out

    def test_what_cannot_be_measured_does_not_lose_the_rest(self, monkeypatch, tmp_path, capsys):
        def broken(tell):
            raise harness.PeerError("failed", "it broke")

        jobs = [("a", broken), ("b", lambda tell: a_record([[1e-6]], [[2e-6]]))]
        monkeypatch.setattr(__main__, "planned", lambda options: jobs)
        assert __main__.main(["run", "--out", str(tmp_path)]) == 1
        assert "a: not measured: it broke" in capsys.readouterr().out
        assert (tmp_path / "nielsen-workload-cpu.json").exists()

    def test_a_place_for_results_that_cannot_be_is_told_first(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert __main__.main(["run", "--out", str(tmp_path / "file")]) == 2
        assert "file" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["--repeats", "0"], ["--workload", "nope"], ["--threads", "-1"]])
    def test_bad_words_are_refused(self, words, capsys):
        with pytest.raises(SystemExit, match="2"):
            __main__.main(["run", *words])
        assert words[1] in capsys.readouterr().err

    def test_a_result_without_its_environment_is_no_report(self, tmp_path, capsys):
        (tmp_path / "bad-workload-cpu.json").write_text('{"schema": 1, "kind": "workload"}')
        assert __main__.main(["report", "--no-readme", "--results", str(tmp_path)]) == 2
        assert "bad-workload-cpu.json: environment lacks date" in capsys.readouterr().err
