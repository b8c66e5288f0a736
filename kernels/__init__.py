"""The CUDA sources that gpunn compiles, and how to read one.

The folder is installed as the package ``gpunn.kernels``.
"""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable

__all__ = ["assembled", "source"]

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")


def source(name: str, folder: Traversable | None = None) -> str:
    """The text of one kernel source, from gpunn's own folder unless another is given.

    Raises ``FileNotFoundError``, which lists the sources there are.

    >>> source("nothing.cu")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no kernel source 'nothing.cu' in gpunn.kernels; there is: ...
    """
    where = folder or resources.files(__name__)
    known = sorted(entry.name for entry in where.iterdir() if entry.name.endswith((".cu", ".cuh")))
    if name not in known:
        raise FileNotFoundError(
            f"no kernel source {name!r} in {folder or 'gpunn.kernels'}; "
            f"there is: {', '.join(known) or 'none yet'}"
        )
    return where.joinpath(name).read_text(encoding="utf-8")


def assembled(name: str, folder: Traversable | None = None) -> str:
    """One kernel source with every ``#include "header.cuh"`` replaced by the header, each header once.

    ``#line`` directives keep the compiler's messages at the real file and line; ``#include <...>`` stays.
    The compiler therefore reads one text, and a hash of it covers all that the kernels are made from.
    A header inside an ``#if`` counts as included, whatever becomes of the condition.

    Raises ``FileNotFoundError``, which names the includer and its line, for a header that is not there.
    """
    return "\n".join(_lines(name, folder, {name})) + "\n"


def _lines(name: str, folder: Traversable | None, seen: set[str]) -> list[str]:
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(source(name, folder).splitlines(), 1):
        include = _INCLUDE.match(line)
        if include and include[1] not in seen:
            seen.add(include[1])
            try:
                lines += _lines(include[1], folder, seen)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{name}, line {number}: {error}") from None
            lines.append(f'#line {number + 1} "{name}"')
        else:
            lines.append("" if include or _ONCE.match(line) else line)
    return lines
