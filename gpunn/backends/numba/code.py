"""Machine code of kernels: made once, kept in a folder of object files, found by name.

Numba and LLVM only compile. What they make of a kernel is an object file of its own, with no reference to
either, so that a process whose kernels are all there does not import Numba. The name of the folder is a
fingerprint of all that the code depends on: these sources, the scalar σ, the versions, the processor.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import platformdirs

from ...errors import warn
from ...files import write_atomically

__all__ = ["Code", "Processor"]

#: What the machine code depends on, beside this folder: the scalar σ and the vocabulary.
SOURCES = ("activations.py", "ops.py", "philox.py")


class Processor:
    """The processor that code is made for: its name, features, and vectors.

    Attributes
    ----------
    width
        Bytes of a vector register.
    registers
        How many of them there are.
    """

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        self.name = llvm.get_host_cpu_name()
        wide = bool(features.get("avx512f"))
        self.width = 64 if wide else 32 if features.get("avx2") else 16
        self.registers = 32 if wide or llvm.get_process_triple().startswith("aarch64") else 16
        # LLVM keeps to half of a 512-bit register on some processors; for these loops that is half the speed.
        self.features = features.flatten() + (",-prefer-256-bit" if wide else "")

    def machine(self) -> Any:
        """LLVM's description of it."""
        return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            cpu=self.name, features=self.features, opt=3, jit=True, reloc="static", codemodel="jitdefault"
        )


class Code:
    """The kernels of this process, by name.

    Parameters
    ----------
    folder : path, optional
        For object files; the user's cache folder unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.processor = Processor()
        self._machine = self.processor.machine()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.processor.machine())
        self._addresses: dict[str, int] = {}
        self._kept: list[Any] = []
        self._lock = threading.RLock()
        self._folder = folder
        self._told = self._homeless = False

    @property
    def folder(self) -> Path | None:
        """Where object files are kept; None where there can be no such folder, which is said once."""
        if self._folder is None and not self._homeless:
            try:
                root = Path(platformdirs.user_cache_dir("gpunn", appauthor=False)) / "kernels"
                self._folder = root / self.fingerprint()
            except (OSError, RuntimeError) as error:  # There may be no home.
                self._keep_nothing(error)
        return self._folder

    def _keep_nothing(self, error: Exception) -> None:
        self._folder = None
        if not self._homeless:
            self._homeless = True
            warn(f"compiled kernels cannot be kept ({error}): each process compiles them anew")

    def fingerprint(self) -> str:
        """A name that changes with everything the machine code depends on."""
        here = Path(__file__).resolve().parent
        found = hashlib.sha256()
        for path in sorted(here.glob("*.py")) + [here.parent.parent / name for name in SOURCES]:
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        told = (
            version("numba"),
            version("llvmlite"),
            sys.version,
            self.processor.name,
            self.processor.features,
        )
        found.update(repr(told).encode())
        return found.hexdigest()[:24]

    def address(self, name: str, make: Callable[[], Any], *, keep: bool = True) -> int:
        """The address of a kernel; ``make`` returns its LLVM module where there is no code for it yet.

        ``keep=False``: not in the folder, for what was made from a function of the user's.
        """
        with self._lock:
            if name not in self._addresses:
                self._load(self._object(name, make, keep))
                found = self._engine.get_function_address(name)
                if not found:
                    raise RuntimeError(f"the code of kernel {name!r} does not hold it: delete {self._folder}")
                self._addresses[name] = found
            return self._addresses[name]

    def _object(self, name: str, make: Callable[[], Any], keep: bool) -> bytes:
        path = self.folder / f"{name}.o" if keep and self.folder else None
        if path and (found := _whole(path)):
            return found
        if keep and not self._told:
            self._told = True
            print("gpunn: compiling kernels for this processor, once", file=sys.stderr, flush=True)
        module = make()
        module.verify()
        self.optimise(module)
        code: bytes = self._machine.emit_object(module)
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, hashlib.sha256(code).digest() + code)
            except OSError as error:
                self._keep_nothing(error)
        return code

    def optimise(self, module: Any) -> None:
        """LLVM's own passes, for this processor."""
        builder = llvm.create_pass_builder(self._machine, llvm.create_pipeline_tuning_options(speed_level=3))
        builder.getModulePassManager().run(module, builder)

    def assembly(self, module: Any) -> str:
        """What a module becomes; for tests."""
        self.optimise(module)
        return str(self._machine.emit_assembly(module))

    def _load(self, code: bytes) -> None:
        found = llvm.ObjectFileRef.from_data(code)
        self._kept.append(found)
        self._engine.add_object_file(found)
        self._engine.finalize_object()


def _whole(path: Path) -> bytes | None:
    """The code in a file, which begins with its SHA-256; None where it is not there or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None
