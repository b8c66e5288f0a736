"""Files that are whole at any moment: the old content or the new, never a part."""

from __future__ import annotations

import hashlib
import os
from itertools import count
from pathlib import Path

__all__ = ["write_atomically"]

_SAVING: set[str] = set()
_NUMBERS = count()


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder.

    What an earlier, killed save to the same place left behind is removed.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if target.is_dir():
        raise IsADirectoryError(f"cannot save {path}: it is a folder, expected the path of a file")
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot save {path}: the folder {folder} does not exist")
    stem = f".gpunn-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    for stale in folder.glob(f"{stem}.*.saving"):
        if stale.name not in _SAVING and not _alive(stale.name.split(".")[2]):
            stale.unlink(missing_ok=True)
    temporary = folder / f"{stem}.{os.getpid()}.{next(_NUMBERS)}.saving"
    _SAVING.add(temporary.name)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        _SAVING.discard(temporary.name)
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _alive(pid: str) -> bool:
    """Whether another process of that number still runs (and may still be saving)."""
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
