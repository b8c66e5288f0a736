"""The reference pages are those that the code gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gpunn

DOCS = Path(__file__).parent.parent / "docs"


def test_no_page_is_behind_the_code():
    """In a process of its own, where no test has registered anything; ``make docs`` writes the pages anew."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("behind: none\n", 0), done.stderr


TABLES = {
    "activations.md": gpunn.activations.ACTIVATIONS,
    "callbacks.md": ["EarlyStopping", "Checkpoint", "ReduceLROnPlateau", "CSVLog", "TensorBoard"],
    "data.md": [f"gpunn.data.{name}" for name in gpunn.data.__all__],
    "layers.md": ["Dense", "Activation", "Flatten", "Dropout", *gpunn.initializers.INITIALIZERS],
    "losses.md": gpunn.losses.LOSSES,
    "metrics.md": gpunn.metrics.METRICS,
    "ops.md": gpunn.ops.OPS,
    "optimizers.md": ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"],
    "schedules.md": ["StepDecay", "Exponential", "Cosine", "InverseScaling", "Warmup"],
}


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, rows in TABLES.items() for name in rows])
def test_every_entry_of_a_table_is_on_its_page(page, name):
    assert f"`{name}`" in (text := (DOCS / page).read_text(encoding="utf-8")) or f"## {name}\n" in text


@pytest.mark.parametrize("page", list(TABLES))
def test_every_row_of_a_page_is_filled(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 3
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []
