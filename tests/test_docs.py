"""The pages are those that the code gives, what they name is there, their code runs, and the site builds."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import gpunn
from gpunn.cli.options import parse

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NOTES = ("nielsen", "three_blue_one_brown", "hung_yi_lee", "mathematics", "function_fitting")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not in a source checkout")


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------ the pages and the code


def test_no_page_is_behind_the_code():
    """In a process of its own, where no test has registered anything; ``make docs`` writes the pages anew."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("behind: none\n", 0), done.stderr


def test_getting_started_can_be_followed_in_an_empty_folder(tmp_path, monkeypatch):
    """It writes files, so that pytest does not collect it as it does the other pages."""
    monkeypatch.chdir(tmp_path)
    page, flags = str(DOCS / "getting_started.md"), doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(page, module_relative=False, optionflags=flags, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 20


TABLES = {
    "activations.md": gpunn.activations.ACTIVATIONS,
    "callbacks.md": ["EarlyStopping", "Checkpoint", "ReduceLROnPlateau", "CSVLog", "TensorBoard"],
    "data.md": [f"gpunn.data.{name}" for name in gpunn.data.__all__],
    "layers.md": ["Dense", "Activation", "Flatten", "Dropout", *gpunn.initializers.INITIALIZERS],
    "losses.md": gpunn.losses.LOSSES,
    "metrics.md": gpunn.metrics.METRICS,
    "ops.md": gpunn.ops.OPS,
    "optimizers.md": ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"],
    "plotting.md": [name for name in gpunn.plotting.__all__ if not name.endswith("Error")],
    "schedules.md": ["StepDecay", "Exponential", "Cosine", "InverseScaling", "Warmup"],
}


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, rows in TABLES.items() for name in rows])
def test_every_entry_of_a_table_is_on_its_page(page, name):
    assert f"`{name}`" in (text := text_of(page)) or f"## {name}\n" in text


@pytest.mark.parametrize("page", list(TABLES))
def test_every_row_of_a_page_is_filled(page):
    rows = [line for line in text_of(page).splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 3
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []


# ------------------------------------------------------------------ the page of equations


def section(op):
    """What the page says of one op."""
    found = re.search(rf"^### {op}\n(.*?)(?=^##)", text_of("equations.md"), re.DOTALL | re.MULTILINE)
    assert found, f"equations.md has no part on {op}"
    return found[1]


@pytest.mark.parametrize("op", sorted(gpunn.ops.OWN))
def test_the_page_of_equations_names_the_code_of_every_op(op):
    from gpunn.backends.numpy import KERNELS

    told = section(op)
    lines = dict(re.findall(r"(?:<summary>|<p class=\"code\">)(\w+): (.*?)</", told.replace("</code>", "`")))
    assert list(lines) == ["NumPy", "Numba", "CUDA", "Test"]
    assert f"<code>{KERNELS[op].__name__}`" in lines["NumPy"]
    assert "gpunn/backends/numba/" in lines["Numba"]
    assert "kernels/" in lines["CUDA"] or "cuBLASLt" in lines["CUDA"]
    assert f"<code>{op}` in <code>tests/references.py`" in lines["Test"]
    assert gpunn.ops.OPS[op].source in told


def defined(path, name):
    """Whether a file of the repository defines a name, found here by other means than the page's own."""
    source = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".py"):
        return name in {getattr(node, "name", "") for node in ast.parse(source).body}
    kind = "struct " if "::" in name else "__global__ void "
    return re.search(rf"^{kind}{name.rpartition('::')[2]}\b", source, re.MULTILINE) is not None


def test_everything_that_the_page_of_equations_names_exists():
    text = text_of("equations.md")
    named = set(re.findall(r"<code>([\w:]+)</code> in <code>([\w./]+)</code>", text))
    named |= {(name, path) for path, name in re.findall(r"\{definition\} (\S+) (\S+)", text)}
    named |= {(name, path) for path, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", text)}
    assert len(named) > 200
    assert [(path, name) for name, path in sorted(named) if not defined(path, name)] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [("kernels/sums.cu", "tall"), ("kernels/losses.cu", "cost::hube"), ("gpunn/ops.py", "Rul")],
)
def test_a_name_that_is_not_there_is_missed(path, name):
    assert not defined(path, name)


# ------------------------------------------------------------------ every block of code is run or parsed


class Block(NamedTuple):
    """A fenced block: its page, its line there, its language and what it holds."""

    page: str
    line: int
    language: str
    text: str


def blocks_in(page, text):
    found = re.finditer(r"^( *)(```+)(.*)\n((?:.*\n)*?)\1\2 *$", text, re.MULTILINE)
    return [Block(page, text[: m.start()].count("\n") + 1, m[3].strip(), m[4]) for m in found]


BLOCKS = [
    block
    for path in [*PAGES, ROOT / "README.md"]
    for block in blocks_in(path.name, path.read_text(encoding="utf-8"))
]
SHELL = [
    block
    for block in BLOCKS
    if block.language in ("", "sh", "bash", "shell", "console") and ">>>" not in block.text
]


def fault_of(block):
    """What is wrong with a block that nobody would run or parse; None for the others."""
    if block.language == "python" and ">>>" not in block.text:
        return "Python without >>>, which no doctest runs"
    if block.language == "text" and (
        line := re.search(r"^(gpunn|python|make|pip) -?[a-z].*", block.text, re.MULTILINE)
    ):
        return f"a command as text, which nothing parses: {line[0]}"
    directive = block.language.partition("}")[0] in ("{definition", "{raw", "{toctree")
    if block.language not in ("python", "", "sh", "bash", "shell", "console", "text") and not directive:
        return f"{block.language}, which nothing runs"
    return None


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_all_fences_are_of_backticks(path):
    assert not re.findall(r"^ *~~~.*", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_of_code_is_one_that_is_run(block):
    assert fault_of(block) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nimport gpunn\n```", "Python without >>>, which no doctest runs"),
        ("- so:\n\n  ```python\n  import gpunn\n  ```", "Python without >>>, which no doctest runs"),
        ("```{code-block} python\nimport gpunn\n```", "{code-block} python, which nothing runs"),
        (
            "```text\ngpunn train --no-such\n```",
            "a command as text, which nothing parses: gpunn train --no-such",
        ),
        ("```js\nalert()\n```", "js, which nothing runs"),
        ("```python\n>>> import gpunn\n\n```", None),
        ("```\nmake test\n```", None),
    ],
)
def test_a_block_that_nobody_runs_is_found(text, fault):
    (block,) = blocks_in("page.md", text)
    assert fault_of(block) == fault


#: Where an example may be skipped: it needs a GPU, or MNIST, which would have to be downloaded.
SKIPPED_IN = {"data.md", "getting_started.md", "gpu.md"}


def test_examples_are_skipped_only_where_they_need_what_is_not_everywhere():
    pages = {block.page for block in BLOCKS if "+SKIP" in block.text}
    assert pages <= SKIPPED_IN


def commands(text):
    """The commands of a block, one a line unless it goes on, without comments and variables before them."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

#: Commands that are not this project's.
OTHERS = (".", "tensorboard")


def check(words):
    """Raise unless a command is one that would be understood."""
    first, rest = words[0], words[1:]
    if first == "gpunn":
        parse(rest)
    elif first == "make":
        unknown = [word for word in rest if "=" not in word and word not in TARGETS]
        assert not unknown, f"make has no target {unknown}"
    elif first in ("python", "python3"):
        check_python(rest)
    elif first == "pytest":
        check_pytest(rest)
    elif first == "bash":
        assert (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"
    elif first == "pip":
        assert rest[0] == "install"
        extras = {name for found in re.findall(r"\[(.*?)\]", " ".join(rest)) for name in found.split(",")}
        assert extras <= set(PROJECT["project"]["optional-dependencies"]), f"one of {extras} is no extra"
    else:
        assert first in OTHERS, f"nobody knows whether this is right: {shlex.join(words)}"


def check_python(rest):
    if rest[0] != "-m":
        script = ROOT / rest[0]
        assert script.is_file(), f"there is no {rest[0]}"
        options = script.read_text(encoding="utf-8")
        if "from notes import" in options:
            options += (ROOT / "examples" / "notes.py").read_text(encoding="utf-8")
        for word in rest[1:]:
            assert not word.startswith("-") or word in options, f"{rest[0]} has no option {word}"
    elif rest[1] == "benchmarks":
        importlib.import_module("benchmarks.__main__").parser().parse_args(rest[2:])
    elif rest[1] == "pytest":
        check_pytest(rest[2:])
    elif rest[1] != "venv":
        path = rest[1].replace(".", "/")
        places = [ROOT / f"{path}.py", ROOT / path / "__main__.py", ROOT / "tests" / path / "__main__.py"]
        assert any(place.is_file() for place in places), f"there is no module {rest[1]}"


def check_pytest(rest):
    markers = [line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    for before, word in zip(["", *rest], rest, strict=False):
        if before == "-m":
            assert word in markers, f"pytest has no marker {word}"
        elif not word.startswith("-") and before != "-k":
            assert (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_a_command_is_one_that_would_be_understood(block):
    for words in commands(block.text):
        check(words)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_an_indented_command_is_one_that_would_be_understood(path):
    lines = re.findall(
        r"^ {4}((?:[A-Z_]+=\S+ )?(?:gpunn|make|pytest|python3?) .*)$", text_of(path.name), re.MULTILINE
    )
    for words in commands("\n".join(lines)):
        check(words)


@pytest.mark.parametrize(
    "line",
    [
        "gpunn train --dataa digits",
        "make coffee",
        "python examples/no_such_example.py",
        "python examples/grid_search.py --qick",
        "python -m benchmarks run --workload no_such",
        "python -m benchmarks.no_such",
        "pytest -m no_such",
        "pytest tests/no_such.py",
        "pip install '.[no_such]'",
        "bash no_such.sh",
        "no_such_program",
    ],
)
def test_a_command_that_would_not_be_understood_is_found(line):
    (words,) = commands(f"PYTHONPATH=. {line}    # and why\n")
    with pytest.raises((AssertionError, gpunn.GpunnError, SystemExit)):
        check(words)


def shown(page, first):
    """The indented block of a page that begins with a line."""
    lines = text_of(page).splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == first)
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    beyond = next(i for i in range(at, len(lines)) if lines[i].strip() and not lines[i].startswith(indent))
    return "\n".join(line.removeprefix(indent) for line in lines[at:beyond]).strip() + "\n"


@pytest.mark.cuda_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_of_the_guide_is_lowered_and_runs(tmp_path, monkeypatch, dtype):
    """The kernel is put into the source and its row into the table, as the page says."""
    from cuda_host import HostDriver
    from cuda_host.build import compiler
    from one_op import program_of

    from gpunn.backends.cuda import catalogue, lower

    if compiler() is None:
        pytest.skip("cuda_host: g++ is not installed")
    sources = tmp_path / "kernels"
    shutil.copytree(ROOT / "kernels", sources, ignore=shutil.ignore_patterns("__pycache__"))
    with open(sources / "elementwise.cu", "a", encoding="utf-8") as file:
        file.write(shown("kernels.md", "// y = factor x."))
    row = re.search(r'"stretch": (\(T,\))', text_of("kernels.md"))[1]
    templates = {**catalogue.TEMPLATES["elementwise.cu"], "stretch": eval(row, {"T": catalogue.T})}
    monkeypatch.setitem(catalogue.TEMPLATES, "elementwise.cu", templates)
    names = dict(vars(lower))
    exec(shown("kernels.md", "def stretch(low: Lowering, op: Op) -> list[Step]:"), names)
    monkeypatch.setitem(lower.LOWER, "stretch", names["stretch"])
    monkeypatch.setitem(
        gpunn.ops.OPS,
        "stretch",
        gpunn.ops.Rule("stretch", "x(*S) -> y(*S)", "{y} = factor {x}", "", "forward"),
    )
    program = program_of("stretch", {"*S": (1025,)}, dtype, factor=3.0)
    (step,) = lower.Lowering(program, lower.Limits(threads=64, blocks=3)).steps(program.ops[0])
    made = str(step.kernel)
    driver = HostDriver({"elementwise.cu": [made]}, sources=sources)
    x, y = np.arange(1025, dtype=dtype), np.zeros(1025, dtype)
    driver.launch(made, step.grid, step.block, [{"x": x, "y": y}.get(a, a) for a in step.arguments])
    np.testing.assert_array_equal(y, 3 * x)


# ------------------------------------------------------------------ the site


@pytest.mark.parametrize("name", NOTES)
def test_the_notes_have_an_example_a_page_and_their_place_in_the_menu(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert name in re.search(r"^NOTES := (.*)$", makefile, re.MULTILINE)[1].split()
    assert (ROOT / "examples" / f"{name}.py").is_file()
    assert (DOCS / f"{name}.md").is_file()
    assert re.search(rf"^.* <{name}>$", text_of("index.md"), re.MULTILINE)


#: The smallest picture there is, for those that are not made yet.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000008200"
    "81774dc5e80000000049454e44ae426082"
)


def built(folder):
    """Build a site with warnings as errors; what the build said."""
    for module in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(module, reason="the site needs the extra docs")
    for name in ("gpunn", "kernels", "tests", "examples", "benchmarks"):
        os.symlink(ROOT / name, folder / name)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "docs", "html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """With stand-ins for pictures that the examples have not made here; ``make docs`` makes them."""
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for path in PAGES:
        for picture in re.findall(r"\.\./(build/pictures/[\w.-]+)", path.read_text(encoding="utf-8")):
            (tmp_path / picture).parent.mkdir(parents=True, exist_ok=True)
            made = ROOT / picture
            (tmp_path / picture).write_bytes(made.read_bytes() if made.is_file() else PIXEL)
    assert built(tmp_path) == (0, "")
    pages = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert pages >= {*(path.stem for path in PAGES), "measured"}
    equations = (tmp_path / "html" / "equations.html").read_text(encoding="utf-8")
    assert equations.count("<details>") > 200
    assert 'class="k">def</span>' in equations


@pytest.mark.slow
def test_a_broken_link_a_missing_picture_and_code_that_is_gone_are_errors(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "definitions.py", "_static"):
        (shutil.copytree if name == "_static" else shutil.copy)(DOCS / name, tmp_path / "docs" / name)
    (tmp_path / "docs" / "index.md").write_text(
        "# A site\n\n[There](nowhere.md)\n\n![A picture](../build/pictures/none.png)\n\n"
        "```{definition} gpunn/ops.py no_such_function\n```\n",
        encoding="utf-8",
    )
    code, said = built(tmp_path)
    assert code != 0
    assert all(word in said for word in ("nowhere.md", "none.png", "defines no no_such_function")), said
