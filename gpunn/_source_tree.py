"""``gpunn.kernels`` in a bare checkout, where no installer has mapped it to the folder ``kernels/``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = ["find_kernels"]

_NAME = "gpunn.kernels"


class _KernelsFinder:
    """Resolves ``gpunn.kernels`` alone; its submodules are then found through its own path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _NAME:
            return None
        return spec_from_file_location(
            name, self.folder / "__init__.py", submodule_search_locations=[str(self.folder)]
        )


def find_kernels() -> None:
    """Add the finder where the package does not hold the folder itself.

    First in line: beside this checkout, another one may be installed, and its kernels are not ours.
    """
    package = Path(__file__).parent
    folder = package.parent / "kernels"
    if not (package / "kernels").is_dir() and (folder / "__init__.py").is_file():
        sys.meta_path.insert(0, _KernelsFinder(folder))
