"""The CUDA sources that gpunn compiles, and how to read one.

The folder is installed as the package ``gpunn.kernels``.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["source"]


def source(name: str) -> str:
    """The text of one kernel source.

    Raises ``FileNotFoundError``, which lists the sources there are.

    >>> source("nothing.cu")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no kernel source 'nothing.cu' in gpunn.kernels; there is: ...
    """
    folder = resources.files(__name__)
    known = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith((".cu", ".cuh")))
    if name not in known:
        raise FileNotFoundError(
            f"no kernel source {name!r} in gpunn.kernels; there is: {', '.join(known) or 'none yet'}"
        )
    return folder.joinpath(name).read_text(encoding="utf-8")
