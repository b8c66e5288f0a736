"""The page of benchmarks: what it says of records whose figures are known."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from html.parser import HTMLParser

import pytest

from benchmarks import page, results
from benchmarks.harness import COSTS, MOVES
from benchmarks.page import charts
from benchmarks.peers import OURS, PEERS
from benchmarks.workloads import WORKLOADS

ENVIRONMENT = {
    "date": "2026-01-02",
    "machine": {"cpu": "Some Processor", "cores": 2, "memory_gib": 16.0, "system": "Linux", "gpu": None},
    "versions": {"numpy": "2.4.6", "gpunn": "0.1.0", "python": "3.11.7"},
    "blas": [{"internal_api": "openblas", "version": "0.3", "architecture": "Haswell", "num_threads": 1}],
    "unset": {},
}
GPU = {"name": "NVIDIA H200", "driver_version": "570.1", "memory.total": "143771 MiB"}
ENTRIES = PEERS | {entry.name: entry for entry in OURS.values()}
FLOORS = {"fma_flops": 2e11, "product_flops": 1.5e11, "copy_bytes": 3e10}


def sitting(seconds, **changed):
    count = len(seconds)
    found = {
        "steps": 100,
        "import_seconds": 0.5,
        "set_up_seconds": 0.25,
        "first_run_seconds": 0.125,
        "costs_off": 4e-7,
        "parameters_off": 3e-6,
        "seconds": list(seconds),
        "busy": list(seconds),
        "stolen": [0.0] * count,
        "device_seconds": [None] * count,
        "python": "3.11.7",
        "memory": {"peak_bytes": 200 * 2**20, "before_bytes": 0, "device_peak_bytes": None},
        "versions": {"numpy": "2.4.6"},
        "blas": ENVIRONMENT["blas"],
    }
    return found | changed


def peer(name, *sittings, label=None, **changed):
    """``sittings``: for each the seconds of its repeats."""
    entry = ENTRIES[name]
    return {
        "label": label or entry.label,
        "ours": entry.ours,
        "sittings": [sitting(seconds, **changed) for seconds in sittings],
    }


def setting(device="cpu", repeats=3, sittings=2, threads=1):
    return {
        "device": device,
        "threads": threads,
        "precision": "float32",
        "repeats": repeats,
        "sittings": sittings,
    }


def workload(times, name="nielsen", device="cpu", labels=None, without=None, environment=None, **changed):
    """A record in which each of ``times`` took so many seconds: one number, or a tuple with one a sitting."""
    peers = {}
    for who, seconds in times.items():
        medians = seconds if isinstance(seconds, tuple) else (seconds, seconds)
        repeats = [(0.99 * s, s, 1.01 * s) for s in medians]
        peers[who] = peer(who, *repeats, label=(labels or {}).get(who), **changed)
    count = max((len(found["sittings"]) for found in peers.values()), default=2)
    return {
        "schema": results.SCHEMA,
        "kind": "workload",
        "workload": WORKLOADS[name].describe(),
        "setting": setting(device, sittings=count),
        "environment": environment or ENVIRONMENT,
        "peers": peers,
        "without": without or {},
        "floors": [FLOORS] * count,
        "data": "MNIST",
    }


def scaling(directions, device="cpu"):
    """``directions``: name -> {value: {who: seconds}}."""
    return {
        "schema": results.SCHEMA,
        "kind": "scaling",
        "setting": setting(device, sittings=1),
        "environment": ENVIRONMENT,
        "directions": {
            name: {
                "meaning": f"what grows: {name}",
                "points": [
                    {
                        "value": value,
                        "peers": {who: peer(who, [t]) for who, t in times.items()},
                        "without": {},
                    }
                    for value, times in points.items()
                ],
            }
            for name, points in directions.items()
        },
    }


def kernel(op, seconds, flops, moved, size="large", backend="numpy", variant="", dtype="float32"):
    return {
        "op": op,
        "variant": variant,
        "backend": backend,
        "dtype": dtype,
        "size": size,
        "sizes": {"B": 100},
        "seconds": {"median": seconds, "min": seconds, "q1": seconds, "q3": seconds, "rounds": 9},
        "bytes": moved,
        "flops": flops,
    }


def kernels(found, device="cpu"):
    return {
        "schema": results.SCHEMA,
        "kind": "kernels",
        "setting": setting(device),
        "environment": ENVIRONMENT,
        "floors": FLOORS,
        "kernels": found,
    }


ACCURACY = {
    "schema": results.SCHEMA,
    "kind": "accuracy",
    "what": "accuracy on the test images, as a fraction",
    "runs": [
        {"seed": 0, "best": 0.9512, "epoch": 29, "final": 0.95},
        {"seed": 1, "best": 0.9534, "epoch": 30, "final": 0.95},
    ],
    "mean_best": 0.9523,
    "setting": setting(),
    "environment": ENVIRONMENT,
}


class Reader(HTMLParser):
    """The words of a page, its tables, its ids; a tag that is not closed in its order is an error."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.rows, self.ids, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.words).split())  # No-break spaces become plain ones, too.

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("p", "li", "td", "th", "figure", "text", "h1", "h2", "h3", "h4"):
            self.words.append(" ")

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, start):
        """The first whose heading begins with that; "" is the head of the table of times."""
        return next(row for row in self.rows if (row[0].startswith(start) if start else row[0] == ""))


def made(folder, *records):
    for at, record in enumerate(records):
        (folder / f"{at}.json").write_text(json.dumps(record), encoding="utf-8")
    return page.page(folder)


def read(folder, *records):
    return Reader(made(folder, *records))


def test_an_empty_folder_says_that_nothing_is_measured_yet(tmp_path):
    found = read(tmp_path)
    assert "Nothing is measured yet." in found.text
    assert found.text.count("Not yet measured.") >= 4


def test_ratios_are_those_of_the_records_within_repeats(tmp_path):
    times = {"gpunn-numpy": 2e-3, "numpy": 1e-3, "torch": 5e-3, "jax": (2.8e-3, 3.2e-3)}
    found = read(tmp_path, workload(times))
    assert found.row("nielsen") == ["nielsen 784-30-10, batch 10", "2 ms", "0.50", "2.5", "1.50"]
    assert found.row("plain NumPy")[:5] == [
        "plain NumPy",
        "1 ms",
        "990 µs",
        "2.0\N{NO-BREAK SPACE}%",
        "0.50 0.50 · 0.50",
    ]
    assert found.row("JAX, a jitted step")[4] == "1.50 1.40 · 1.60"


def test_it_says_slower_where_gpunn_is_slower(tmp_path):
    times = {"gpunn-numpy": 2e-3, "numpy": 1e-3, "torch": 5e-3}
    found = read(tmp_path, workload(times), workload(times | {"torch": 1e-3}, name="3b1b"))
    assert "gpunn is faster in 1 of 4 comparisons, slower in 3." in found.text
    assert "On none of 2 workloads is it the fastest of all." in found.text
    assert "plain NumPy is 2.0 times as fast, on all 2" in found.text
    assert "PyTorch, eager is 2.0 times as fast, on 1 of 2: 3b1b" in found.text
    assert "2.5 times as fast as PyTorch, eager, on 1 of 2: nielsen" in found.text
    assert "It is slower than plain NumPy (which is 2.0 times as fast). It is faster than" in found.text
    assert "gpunn is in place 2 of 3" in found.text
    colours = {
        value for tag, name, value in found.attributes if name == "style" and "fill: " in (value or "")
    }
    assert any(charts.BLUE in colour for colour in colours)
    assert any(charts.VERMILION in colour for colour in colours)


def test_the_fastest_of_all_is_told_as_such(tmp_path):
    found = read(tmp_path, workload({"gpunn-numba": 1e-3, "gpunn-numpy": 5e-4, "numpy": 2e-3}))
    assert "On 1 of 1 workloads it is the fastest of all: nielsen." in found.text
    assert "gpunn is the fastest of 2" in found.text
    assert "Nowhere in what was measured." in found.text


def test_gpunns_own_backends_are_no_comparison(tmp_path):
    found = read(tmp_path, workload({"gpunn-numba": 1e-3, "gpunn-numpy": 5e-4, "numpy": 2e-3}))
    assert "faster in 1 of 1 comparisons" in found.text
    assert "Grey: another backend of gpunn's own." in found.text
    assert found.row("gpunn, numpy")[4].startswith("0.50")


def test_repeats_that_do_not_agree_on_who_is_faster_are_too_close_to_call(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": (0.97e-3, 1.05e-3)}))
    assert "1 of them is too close to call" in found.text
    assert "too close to call)" in found.text


def test_sittings_that_are_apart_are_pointed_out(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 2e-3, "torch": (2e-3, 3e-3)}))
    assert "1 of 2 ratios is rough (~)" in found.text
    assert "Take this ratio as rough" in found.text
    assert "PyTorch, eager (2.0 and 3.0)" in found.text
    assert found.row("nielsen")[2:] == ["2.0", "~2.5"]
    assert "1 of 2 ratios differ" in found.text


def test_sittings_that_agree_are_said_to(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": (2e-3, 2.1e-3)}))
    assert "rough (~)" not in found.text
    assert "Take this ratio" not in found.text
    assert "All 1 ratios agree within 15 % between sittings" in found.text
    assert "the largest difference is 5.0 %." in found.text


def test_one_sitting_is_a_first_look(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": (1e-3,), "numpy": (2e-3,)}))
    assert "All of this was measured in one sitting only, of 3 repeats." in found.text
    assert "ratios agree" not in found.text


def test_a_gpu_is_not_yet_measured(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 2e-3}))
    assert "On a GPU Not yet measured." in found.text
    assert (
        "Not yet measured: single ops, how the time grows, nielsen-ce, 3b1b, mnist-mlp, speech and wide"
        in found.text
    )


def test_a_gpu_that_was_measured_is_named(tmp_path):
    machine = ENVIRONMENT["machine"] | {"gpu": GPU}
    times = {"gpunn-cuda": 1e-5, "torch": 2e-4}
    record = workload(
        times,
        device="cuda",
        environment=ENVIRONMENT | {"machine": machine},
        device_seconds=[5e-6, 5e-6, 5e-6],
    )
    found = read(tmp_path, record)
    assert "On a CPU Not yet measured." in found.text
    assert "NVIDIA H200 (driver 570.1, memory 143771 MiB)" in found.text
    assert "by the device's clock" in found.row("")
    assert "5 µs" in found.row("gpunn, cuda")


def test_what_comes_from_records_is_escaped(tmp_path):
    without = {"jax": {"label": "<b>JAX</b>", "status": "failed", "why": "<script>alert('&')</script>\nmore"}}
    labels = {"torch": 'Py<img src="x">Torch $x^2$'}
    text = made(tmp_path, workload({"gpunn-numpy": 1e-3, "torch": 2e-3}, labels=labels, without=without))
    found = Reader(text)
    tags = {tag for tag, _, _ in found.attributes}
    assert not {"script", "img"} & tags
    assert "<script" not in text
    assert "<b>JAX</b>, failed: <script>alert('&')</script>" in found.text
    assert found.row("Py<img")[0] == labels["torch"]
    assert "$x^2$" in found.text


def test_the_page_needs_nothing_else(tmp_path):
    text = made(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 2e-3}), SCALING, KERNELS, ACCURACY)
    assert "http" not in text
    assert "@import" not in text
    references = [
        value for _, name, value in Reader(text).attributes if name in ("src", "href", "xlink:href")
    ]
    assert references
    assert all(value.startswith("#") for value in references)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_ids_are_unique_and_links_lead_somewhere(tmp_path):
    times = {"gpunn-numpy": 1e-3, "numpy": 2e-3}
    found = read(tmp_path, workload(times), workload(times, name="3b1b"), SCALING, KERNELS, ACCURACY)
    assert len(set(found.ids)) == len(found.ids)
    links = {value[1:] for _, name, value in found.attributes if name == "href"}
    assert links <= set(found.ids)


def test_every_figure_is_told_in_words(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 2e-3}), SCALING, KERNELS)
    figures = [value for tag, name, value in found.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(figures) == 5
    assert "plain NumPy 2.0" in figures[0]


def test_how_it_was_measured_tells_what_was_allowed_and_found(tmp_path):
    found = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 2e-3}))
    assert f"Allowed are {COSTS:g} of the largest cost and {MOVES:g} of how far" in found.text
    assert "Over 20 minibatches, the largest differences found were 4e-07 and 3e-06." in found.text
    assert "Some Processor" in found.text
    assert "Haswell" in found.text


def test_figures_of_several_machines_are_told_apart(tmp_path):
    other = ENVIRONMENT | {"machine": ENVIRONMENT["machine"] | {"cpu": "Another One"}}
    times = {"gpunn-numpy": 1e-3, "numpy": 2e-3}
    found = read(tmp_path, workload(times), workload(times, name="3b1b", environment=other))
    assert "These figures come from more than one machine" in found.text
    assert "Some Processor; Another One" in found.text


def test_floors_are_shares_of_a_large_product(tmp_path):
    flops = WORKLOADS["nielsen"].flops
    floor = flops / FLOORS["product_flops"]
    found = read(tmp_path, workload({"gpunn-numpy": 10 * floor, "numpy": 2 * floor}))
    assert "The fastest, plain NumPy, gets to 50 % of that rate, gpunn to 10 %." in found.text


def test_floors_that_were_not_measured_are_told(tmp_path):
    record = workload({"gpunn-numpy": 1e-3, "numpy": 2e-3})
    record["floors"] = [{"error": "no <compiler>"}]
    assert "Floor. Not measured: no <compiler>." in read(tmp_path, record).text


def test_idle_cores_and_stolen_time_have_columns(tmp_path):
    usual = read(tmp_path, workload({"gpunn-numpy": 1e-3, "numpy": 1e-3}))
    assert "cores busy" not in usual.row("")
    record = workload({"gpunn-numpy": 1e-3, "numpy": 1e-3}, busy=[5e-4] * 3, stolen=[2e-4] * 3)
    found = read(tmp_path, record)
    assert found.row("")[-2:] == ["cores busy", "taken by the host"]
    assert found.row("plain NumPy")[-2:] == ["0.50", "10\N{NO-BREAK SPACE}%"]


def test_a_first_start_that_took_far_longer_is_told(tmp_path):
    record = workload({"gpunn-numpy": 1e-3, "numpy": 1e-3})
    record["peers"]["gpunn-numpy"]["sittings"][0]["import_seconds"] = 9.625
    found = read(tmp_path, record)
    assert "875 ms 500 + 250 + 125 ms first sitting 10 s" in found.row("gpunn, numpy")
    assert "875 ms 500 + 250 + 125 ms" in found.row("plain NumPy")


def test_a_workload_without_gpunn_still_has_its_table(tmp_path):
    found = read(tmp_path, workload({"numpy": 1e-3, "torch": 2e-3}))
    assert "gpunn itself was not measured here." in found.text
    assert found.row("PyTorch, eager")[1] == "2 ms"


SCALING = scaling(
    {
        "width": {
            10: {"gpunn-numba": 1.0, "gpunn-numpy": 2.0, "numpy": 0.1, "torch": 2.0},
            100: {"gpunn-numba": 1.0, "gpunn-numpy": 2.0, "numpy": 1.0, "torch": 2.0},
            1000: {"gpunn-numba": 1.0, "gpunn-numpy": 2.0, "numpy": 10.0, "torch": 4.0},
        },
        "batch": {1: {"gpunn-numba": 1e-3, "numpy": 5e-4}, 10: {"gpunn-numba": 2e-3, "numpy": 5e-3}},
    }
)


def test_scaling_says_who_overtakes_whom(tmp_path):
    found = read(tmp_path, SCALING)
    assert (
        "From about 100 units on, gpunn, numba is faster than plain NumPy; below that it is slower."
        in found.text
    )
    assert "gpunn, numba is faster than gpunn, numpy throughout: 2.0 times as fast." in found.text
    assert "gpunn, numba is faster than PyTorch, eager throughout: 2.0 to 4.0 times as fast." in found.text


def test_along_batch_the_time_is_that_of_an_example(tmp_path):
    told = [value for _, name, value in read(tmp_path, SCALING).attributes if name == "aria-label"]
    assert any("gpunn, numba from 1 ms to 200 µs" in words for words in told)


def test_a_peer_that_is_missing_at_a_size_has_a_shorter_line(tmp_path):
    points = {10: {"gpunn-numpy": 1.0, "numpy": 2.0}, 100: {"gpunn-numpy": 2.0}}
    found = read(tmp_path, scaling({"depth": points}))
    assert "is faster than" not in found.text


KERNELS = kernels(
    [
        kernel("linear", 2.0, 1.5e11, 1e9, size="10×784×30"),
        kernel("sgd", 1.0, None, 3e9, size="1k elements"),
        kernel("sgd", 1.0, None, 4.5e10, size="1M elements"),
        kernel("adam", 1.0, None, 6e9, size="1k elements"),
        kernel("adam", 4e-3, None, 6e7, size="1M elements"),
        kernel("activate", 1.0, None, 3e8, size="1k elements", variant="sigma=relu"),
    ]
)


def test_ops_are_shares_of_what_the_machine_can_do(tmp_path):
    found = [
        [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in read(tmp_path, KERNELS).rows
    ]
    assert ["sgd", "10 %", "150 %", "1 s"] in found
    assert ["adam", "20 %", "50 %", "4 ms"] in found
    assert ["activate relu", "1.0 %", "1 s"] in found
    assert ["10×784×30", "50 % 2 s"] in found or ["linear", "50 %", "2 s"] in found


def test_ops_without_floors_have_times_but_no_shares(tmp_path):
    found = read(tmp_path, KERNELS | {"floors": {"error": "no compiler"}})
    assert "What the machine can do was not measured: no compiler." in found.text
    assert found.row("sgd") == ["sgd", "–", "–", "1 s"]


def test_accuracy_is_told_in_a_line(tmp_path):
    told = read(tmp_path, ACCURACY).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Accuracy on the test images: 95.23 %, the mean over 2 runs of each one's best epoch" in told
    assert "(95.12 % to 95.34 %); after the last epoch 95.00 % (95.00 %)" in told


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 0}', '{"schema": 1, "kind": "workload"}'])
def test_a_file_that_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(results.ResultError, match=r"^broken\.json: "):
        page.page(tmp_path)


def test_the_same_records_give_the_same_page(tmp_path):
    record = workload({"gpunn-numpy": 1e-3, "numpy": 2e-3})
    assert made(tmp_path, record) == made(tmp_path, record)


@pytest.mark.parametrize("name", ["charts", "compared", "growth", "markup", "method", "networks"])
def test_the_examples_are_true(name):
    found = doctest.testmod(importlib.import_module(f"benchmarks.page.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
