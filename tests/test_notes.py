"""Every number that the notes state and that can be computed again comes out here.

The rows are those of the examples, one file a source: each names the book, the lecture or the post it is of.
"""

from __future__ import annotations

import importlib
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
