"""Every number that the notes state and that can be computed again comes out here.

The rows are those of the examples, one file a source: each names the book, the lecture or the post it is of.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

SOURCES = ("nielsen", "three_blue_one_brown", "hung_yi_lee", "mathematics", "function_fitting")
ROWS = {
    f"{name}: {row.what} ({row.source})": row
    for name in SOURCES
    for row in importlib.import_module(name).numbers()
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_the_notes_say_comes_out_here(row):
    assert row.within is not None, "a number that is asserted says how near it has to be"
    assert row.source
    assert row.holds, f"{row.what}: {row.source} says {row.says}, here it is {row.here}"


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_states_numbers(name):
    assert len([title for title in ROWS if title.startswith(f"{name}:")]) >= 3


def test_a_row_that_does_not_hold_is_seen():
    from notes import Row

    assert not Row("a book", "a number", 2.0, 2.5, within=0.1).holds
    assert not Row("a book", "a number", 2.0, float("nan"), within=0.1).holds
    assert not Row("a book", "a word", "yes", "no").holds


# ------------------------------------------------------------------ the book's table, trained in full

BOOK = ROOT / "benchmarks" / "results" / "nielsen-book-cpu.json"


def test_the_page_has_the_figures_of_the_result_file(tmp_path):
    from benchmarks.mnist_book import main

    page = ROOT / "docs" / "nielsen.md"
    assert main(["--page", str(page), "--check"]) == 0
    changed = tmp_path / "nielsen.md"
    changed.write_text(page.read_text(encoding="utf-8").replace("95.26", "99.26", 1), encoding="utf-8")
    assert main(["--page", str(changed), "--check"]) != 0


def test_the_best_epoch_is_the_first_of_the_best():
    from benchmarks.mnist_book import best_epoch

    assert [best_epoch(right) for right in ([9129, 9542, 9542], [3, 2, 1], [1, 2, 3])] == [2, 1, 3]


LEAST = {
    "784-30-10": ((30, "quadratic", "normal", 0.0), 0.945),
    "784-100-10 from 1/√n": ((100, "quadratic", "lecun_normal", 0.0), 0.96),
    "cross-entropy, λ = 5, from 1/√n": ((100, "binary_cross_entropy", "lecun_normal", 5.0), 0.975),
}


@pytest.mark.parametrize(("row", "least"), LEAST.values(), ids=LEAST)
def test_the_full_table_reaches_what_the_book_reports(row, least):
    record = json.loads(BOOK.read_text(encoding="utf-8"))
    wanted = dict(zip(("hidden", "cost", "weights", "lam"), row, strict=True))
    wanted |= {"images": 50_000, "output_weights": None, "patience": None}
    (found,) = [entry for entry in record["rows"] if wanted.items() <= entry.items()]
    means = statistics.mean(max(run["test"]) / 10_000 for run in found["runs"])
    assert len(found["runs"]) == 5
    assert means >= least
