"""The examples run: those of the notes by ``make examples``, and their numbers in test_notes.py."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("name", ["first_network", "grid_search", "several_labels"])
def test_an_example_learns(name, capsys, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    assert main(epochs=2) > 0.5
    assert capsys.readouterr().out
