"""Machine code of CUDA kernels: compiled once by NVRTC, kept in a folder of files, found by a hash.

NVRTC needs no GPU, and nothing here makes a CUDA context. The name of a file is the hash of all that the
code is made from (the source with its headers, the instance, the options, the architecture, NVRTC), so an
edited header or another toolkit never meets old code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import struct
import sys
import threading
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from ...errors import DeviceError, ProgramError, warn
from ...files import write_atomically
from ...kernels import assembled

if TYPE_CHECKING:
    from .catalogue import Kernel

__all__ = ["OPTIONS", "Code", "Compiled", "whole_cubin"]

#: How every kernel is compiled, by NVRTC here and by nvcc in the checks. Nothing of fast-math: subnormals,
#: quotients and roots are those of the CPU. Products are fused into sums, as the CPU's compiled kernels and
#: BLAS may do: that rounds once instead of twice, and takes one instruction.
OPTIONS = (
    "-std=c++17",
    "-ftz=false",
    "-prec-div=true",
    "-prec-sqrt=true",
    "-fmad=true",
    "--ptxas-options=-v",
)

_TELLING = threading.Lock()
_told = False


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture.

    Attributes
    ----------
    code
        The cubin.
    symbol
        The kernel's mangled name in it.
    log
        What the compiler said: warnings, registers, spills.
    """

    code: bytes
    symbol: str
    log: str


class Code:
    """The kernels of this process for one architecture.

    Parameters
    ----------
    arch : str
        As the compiler calls it: ``"sm_90"``.
    folder : path, optional
        For compiled kernels; the user's cache folder unless given.
    sources : folder, optional
        Where the sources are; gpunn's own unless given.

    Attributes
    ----------
    version : tuple
        NVRTC's version: major, minor, and of a library that pip installed the whole, ``13, 0, "13.0.88"``.
        One that a toolkit brought tells only the first two: after a patch release in its place, remove
        ``folder``.

    Raises ``DeviceError`` where CuPy or its NVRTC is missing, or does not know the architecture.
    """

    def __init__(self, arch: str, folder: Path | None = None, *, sources: Traversable | None = None) -> None:
        self.arch = arch
        self._nvrtc, numbers = _compiler(arch)
        self.version: tuple[int | str, ...] = (*numbers, *_builds())
        self._sources = sources
        self._folder = folder
        self._homeless = False
        self._compiled: dict[Kernel, Compiled] = {}
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path | None:
        """Where compiled kernels are kept; None where there can be no such folder, which is said once."""
        if self._folder is None and not self._homeless:
            try:
                self._folder = (
                    Path(platformdirs.user_cache_dir("gpunn", appauthor=False)) / "kernels" / "cuda"
                )
            except (OSError, RuntimeError) as error:  # There may be no home.
                self._keep_nothing(error)
        return self._folder

    def _keep_nothing(self, error: Exception) -> None:
        self._folder = None
        if not self._homeless:
            self._homeless = True
            warn(f"compiled kernels cannot be kept ({error}): each process compiles them anew")

    def cubin(self, kernel: Kernel) -> Compiled:
        """The machine code of an instance, compiled on the first request and kept.

        Raises ``ProgramError``, with what the compiler said, for one that does not compile.
        """
        with self._lock:
            if kernel not in self._compiled:
                self._compiled[kernel] = self._found(kernel)
            return self._compiled[kernel]

    def _found(self, kernel: Kernel) -> Compiled:
        text = assembled(kernel.file, self._sources)
        made_from = (text, kernel.expression, OPTIONS, self.arch, self.version)
        key = hashlib.sha256(repr(made_from).encode())
        path = self.folder / f"{key.hexdigest()}.cubin" if self.folder else None
        if path and (kept := _read(path, key.digest())):
            return kept
        _tell(self.arch)
        compiled = self._compile(kernel, text)
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _packed(compiled, key.digest()))
            except OSError as error:
                self._keep_nothing(error)
        return compiled

    def _compile(self, kernel: Kernel, text: str) -> Compiled:
        nvrtc = self._nvrtc
        options = (f"-arch={self.arch}", *OPTIONS)
        program = nvrtc.createProgram(text, kernel.file, (), ())
        try:
            nvrtc.addNameExpression(program, kernel.expression)
            try:
                nvrtc.compileProgram(program, options)
            except nvrtc.NVRTCError as error:
                log = _log(nvrtc, program)
                if "BUILTIN" in str(error):  # The second library of NVRTC is missing, or of another version.
                    raise _unusable(f"{error}\n{log}") from error
                raise ProgramError(
                    f"{kernel.file}: {kernel.expression} does not compile with {' '.join(options)} "
                    f"({error})\n{log}"
                ) from error
            code = whole_cubin(nvrtc.getCUBIN(program))
            symbol: str = nvrtc.getLoweredName(program, kernel.expression)
            return Compiled(code, symbol, _log(nvrtc, program))
        finally:
            nvrtc.destroyProgram(program)


def _compiler(arch: str) -> tuple[Any, tuple[int, int]]:
    """CuPy's NVRTC and its version; an error where it does not work or does not know the architecture."""
    try:
        from cupy.cuda import nvrtc
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("cupy", "cupy_backends"):
            raise DeviceError(
                "device 'cuda' needs CuPy, which is not installed: pip install gpunn[cuda13] "
                "(cupy-cuda13x), or gpunn[cuda12] (cupy-cuda12x) with a driver for CUDA 12"
            ) from error
        raise _unusable(error) from error
    except ImportError as error:
        raise _unusable(error) from error
    try:
        version, known = nvrtc.getVersion(), nvrtc.getSupportedArchs()
    except Exception as error:  # CuPy loads the library at the first call; how it fails differs by version.
        raise _unusable(error) from error
    if arch not in (names := [f"sm_{number}" for number in known]):
        raise DeviceError(
            f"NVRTC {'.'.join(map(str, version))} does not compile for {arch}, "
            f"only for {', '.join(names)}: install a CuPy for another CUDA"
        )
    return nvrtc, tuple(version)


def _builds() -> list[str]:
    """The whole versions of the distributions that bring NVRTC: the library tells only half of its own.

    Not the time of the library's file: that is another in each environment, with the same compiler.
    """
    found = []
    for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            found.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _unusable(cause: object) -> DeviceError:
    return DeviceError(
        f"CuPy is installed, but its compiler NVRTC does not work ({cause}): "
        "pip install gpunn[cuda13] (cupy-cuda13x[ctk]), or gpunn[cuda12] (cupy-cuda12x[ctk])"
    )


def whole_cubin(code: bytes) -> bytes:
    """A cubin with its last byte, a zero that CuPy's ``getCUBIN`` cuts off as if it ended a text."""
    headers = struct.unpack_from("<Q", code, 0x20)[0]
    size, count = struct.unpack_from("<HH", code, 0x36)
    return code + b"\0" if len(code) == headers + size * count - 1 else code


def _log(nvrtc: Any, program: Any) -> str:
    text: str = nvrtc.getProgramLog(program)
    return text.rstrip("\0\n ")


def _tell(arch: str) -> None:
    global _told
    with _TELLING:
        if not _told:
            _told = True
            print(f"gpunn: compiling CUDA kernels for {arch}, once", file=sys.stderr, flush=True)


def _packed(compiled: Compiled, key: bytes) -> bytes:
    """A file's content: the SHA-256 of the key and of the rest, a line of JSON, the code."""
    rest = json.dumps([compiled.symbol, compiled.log]).encode() + b"\n" + compiled.code
    return hashlib.sha256(key + rest).digest() + rest


def _read(path: Path, key: bytes) -> Compiled | None:
    """What a file holds; None where it is not there, damaged, or belongs to another key."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, rest = content[:32], content[32:]
    if hashlib.sha256(key + rest).digest() != digest:
        return None
    told, _, code = rest.partition(b"\n")
    symbol, log = json.loads(told)
    return Compiled(code, symbol, log)
