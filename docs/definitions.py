"""The text of one function, class or kernel of this repository, found by its file and its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def text_of(path: str, name: str) -> str:
    """The definition, with its decorators or with the comment above it.

    >>> print(text_of("kernels/updates.cu", "count_examples"))
    // Σw = B; one thread.
    __global__ void count_examples(double* loss, int rows) { loss[1] = rows; }
    >>> text_of("gpunn/threads.py", "no_such_thing")
    Traceback (most recent call last):
        ...
    LookupError: gpunn/threads.py defines no no_such_thing
    """
    source = (ROOT / path).read_text(encoding="utf-8")
    found = _python(source, name) if path.endswith(".py") else _cuda(source, name)
    if found is None:
        raise LookupError(f"{path} defines no {name}")
    return found


def _python(source: str, name: str) -> str | None:
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
    return None


def _cuda(source: str, name: str) -> str | None:
    """A kernel, or a struct where the name has a namespace before it: ``cost::huber``."""
    lines, bare = source.splitlines(), re.escape(name.rpartition("::")[2])
    begins = rf"struct {bare}\b" if "::" in name else rf"__global__ void {bare}\("
    at = next((i for i, line in enumerate(lines) if re.match(begins, line)), None)
    if at is None:
        return None
    in_a_line = lines[at].endswith("}")
    last = at if in_a_line else next(i for i in range(at, len(lines)) if lines[i].startswith("}"))
    first = at
    while first and lines[first - 1].startswith(("//", "template ")):
        first -= 1
    return "\n".join(lines[first : last + 1])


def language(path: str) -> str:
    """How a file is coloured."""
    return "python" if path.endswith(".py") else "cuda"
