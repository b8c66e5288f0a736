"""Registers, shared memory, spills and stack of each kernel for each architecture, and its SASS.

A kernel that keeps something in local memory (a spill, or an array that registers cannot index) runs several
times slower and computes the same: only the compiler says so.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpunn.kernels import assembled

import gpunn
from gpunn.backends.cuda.code import OPTIONS, Code, whole_cubin

ARCHS = ("sm_80", "sm_90", "sm_100")

#: The kernels that have to move 16 bytes at once, and the architecture that is looked at.
WIDE = ("activate", "activate_grad")
WIDE_ARCH = "sm_90"

_ENTRY = "Compiling entry function '"


class CompileError(RuntimeError):
    """A source does not compile; the message is the compiler's."""


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes are those of a thread, ``shared`` those of a block."""

    kernel: str
    arch: str
    registers: int
    shared: int
    spills: int
    stack: int

    @property
    def fault(self) -> str | None:
        if self.spills or self.stack:
            return f"{self.kernel} for {self.arch}: {self.spills} bytes spilled, {self.stack} bytes of stack"
        return None


@dataclass(frozen=True)
class Unit:
    """One source compiled for one architecture, with the asked instances."""

    file: str
    arch: str
    cubin: bytes
    log: str
    names: dict[str, str]  # By mangled name.
    seconds: float

    @property
    def usages(self) -> list[Usage]:
        found = []
        for entry in self.log.split(_ENTRY)[1:]:
            # The entry's own lines come first; functions that it calls may follow.
            stack, stores, loads = (
                _bytes(entry, of) for of in ("stack frame", "spill stores", "spill loads")
            )
            used = re.search(r"Used (\d+) registers.*", entry)
            if not used or stack is None:
                raise CompileError(f"{self.file} for {self.arch}: unknown words of ptxas:\n{entry}")
            deep = _bytes(used[0], "cumulative stack size") or 0
            found.append(
                Usage(
                    self.names.get(symbol := entry[: entry.index("'")], symbol),
                    self.arch,
                    int(used[1]),
                    _bytes(used[0], "smem") or 0,
                    max(stores or 0, loads or 0),
                    max(stack, deep),
                )
            )
        return found


def _bytes(text: str, of: str) -> int | None:
    found = re.search(rf"(\d+) bytes {of}", text)
    return int(found[1]) if found else None


# ------------------------------------------------------------------ compiling


def compiler() -> str | None:
    """What compiles here: "nvcc", "nvrtc", or nothing."""
    return "nvcc" if shutil.which("nvcc") else "nvrtc" if why_no_nvrtc() is None else None


def why_no_nvrtc() -> str | None:
    """What CuPy's NVRTC lacks here, or None."""
    try:
        Code(WIDE_ARCH)
    except gpunn.DeviceError as error:
        return str(error)
    return None


def compile_unit(
    file: str, expressions: Iterable[str], arch: str, sources: Path | None = None, by: str | None = None
) -> Unit:
    """One source with these instances; ``by`` is the compiler, the one that is here unless given."""
    began = time.perf_counter()
    text, wanted = assembled(file, sources), sorted(set(expressions))
    how = {"nvcc": _by_nvcc, "nvrtc": _by_nvrtc}[by or compiler() or "nvcc"]
    cubin, log, names = how(file, text, wanted, arch)
    unit = Unit(file, arch, cubin, log, names, time.perf_counter() - began)
    if missing := set(wanted) - {usage.kernel for usage in unit.usages}:
        raise CompileError(f"{file} for {arch}: not compiled: {', '.join(sorted(missing))}\n{log}")
    return unit


def _by_nvcc(file: str, text: str, wanted: list[str], arch: str) -> tuple[bytes, str, dict[str, str]]:
    addresses = ",\n".join(f"(const void*)&{expression}" for expression in wanted)
    unit = f'{text}\n#line 1 "instances of {file}"\nconst void* instances[] = {{\n{addresses}}};\n'
    with tempfile.TemporaryDirectory() as scratch:
        source, cubin = Path(scratch, "unit.cu"), Path(scratch, "unit.cubin")
        source.write_text(unit, encoding="utf-8")
        command = ["nvcc", f"-arch={arch}", *OPTIONS, "-cubin", "-o", str(cubin), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        log = done.stdout + done.stderr
        if done.returncode:
            raise CompileError(f"{file} for {arch}:\n{log}")
        symbols = re.findall(rf"{_ENTRY}(\w+)'", log)
        # nvcc works beside a C++ compiler, and so beside its c++filt.
        plain = subprocess.run(["c++filt", *symbols], capture_output=True, text=True, check=True)
        asked = {expression.replace(" ", ""): expression for expression in wanted}
        found = [_name(line) for line in plain.stdout.splitlines()]
        names = {s: asked.get(n.replace(" ", ""), n) for s, n in zip(symbols, found, strict=True)}
        return cubin.read_bytes(), log, names


def _name(plain: str) -> str:
    """``f<int>`` of ``void f<int>(int*)``."""
    depth = 0
    for place, letter in enumerate(plain):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and not depth:
            return plain[:place].removeprefix("void ")
    return plain


def _by_nvrtc(file: str, text: str, wanted: list[str], arch: str) -> tuple[bytes, str, dict[str, str]]:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, file, (), ())
    try:
        for expression in wanted:
            nvrtc.addNameExpression(program, expression)
        try:
            nvrtc.compileProgram(program, (f"-arch={arch}", *OPTIONS))
        except nvrtc.NVRTCError as error:
            raise CompileError(f"{file} for {arch} ({error}):\n{nvrtc.getProgramLog(program)}") from error
        names = {nvrtc.getLoweredName(program, expression): expression for expression in wanted}
        return whole_cubin(nvrtc.getCUBIN(program)), nvrtc.getProgramLog(program), names
    finally:
        nvrtc.destroyProgram(program)


def build(
    instances: Iterable[tuple[str, str]],
    archs: Iterable[str] = ARCHS,
    sources: Path | None = None,
    by: str | None = None,
) -> list[Unit]:
    """Every (file, expression), a file and architecture at a time, two at once."""
    files: dict[str, list[str]] = {}
    for file, expression in instances:
        files.setdefault(file, []).append(expression)
    # The longest first.
    order = sorted(files, key=lambda file: -len(files[file]))
    asked = [(file, files[file], arch, sources, by) for file in order for arch in archs]
    with ProcessPoolExecutor(min(2, len(asked)), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(compile_unit, *zip(*asked, strict=True)))


# ------------------------------------------------------------------ SASS


def disassembler() -> str | None:
    """nvdisasm: on the path, in the wheel ``nvidia-cuda-nvdisasm``, or beside the toolkit."""
    if found := shutil.which("nvdisasm"):
        return found
    folders = [Path("/usr/local/cuda")]
    if wheels := importlib.util.find_spec("nvidia"):
        for place in wheels.submodule_search_locations or ():
            folders += [*Path(place).glob("cu*"), Path(place, "cuda_nvdisasm")]
    found_in = [folder / "bin" / "nvdisasm" for folder in folders]
    return next((str(path) for path in found_in if os.access(path, os.X_OK)), None)


def sass(unit: Unit, tool: str | None = None) -> dict[str, list[str]]:
    """The instructions of each kernel, such as ``LDG.E.128 R4, desc[UR4][R2.64]``."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "unit.cubin")
        path.write_bytes(unit.cubin)
        command = [tool or disassembler() or "nvdisasm", "--print-code", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for part in re.split(r"^\.text\.", text, flags=re.MULTILINE)[1:]:
        symbol, _, code = part.partition(":")
        if symbol in unit.names:
            found[unit.names[symbol]] = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", code, re.MULTILINE)
    return found


def narrow(kernel: str, instructions: list[str]) -> list[str]:
    """What is wrong with a kernel that has to load and store 16 bytes at once and keep all in registers."""
    faults = []
    for access in ("LDG", "STG"):
        if not any(re.search(rf"\b{access}\.[\w.]*\b128\b", line) for line in instructions):
            faults.append(f"{kernel}: no {access} of 16 bytes")
    local = [line for line in instructions if re.search(r"\b(LDL|STL)\b", line)]
    return faults + [f"{kernel}: local memory: {line}" for line in local[:1]]


def wide(instances: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those instances that have to move 16 bytes at once: all but δ ⊙ 1, of which compilers leave nothing."""
    return [
        (file, name)
        for file, name in instances
        if name.partition("<")[0] in WIDE and not re.fullmatch("activate_grad<.*identity>", name)
    ]


def narrow_kernels(units: Iterable[Unit]) -> list[str]:
    """The faults of all units, by their SASS; no instruction found is one too."""
    faults = []
    for unit in units:
        code = sass(unit)
        for _, name in wide((unit.file, name) for name in sorted(unit.names.values())):
            faults += narrow(name, code.get(name, []))
    return faults


# ------------------------------------------------------------------ the table


def table(usages: Iterable[Usage]) -> str:
    """A row for each kernel, a group of columns for each architecture."""
    titles = ("kernel", "arch", "registers", "shared", "spills", "stack")
    rows = [titles] + [
        (u.kernel, u.arch, *map(str, (u.registers, u.shared, u.spills, u.stack))) for u in usages
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> int:
    """Print the table of all kernels; 1 where one has a fault."""
    from gpunn.backends.cuda.catalogue import instances

    by = compiler()
    if by is None:
        print("nothing compiles CUDA here: install the CUDA toolkit, or CuPy with NVRTC")
        return 1
    began = time.perf_counter()
    units = build((kernel.file, kernel.expression) for kernel in instances())
    usages = [usage for unit in units for usage in unit.usages]
    print(table(sorted(usages, key=lambda usage: (usage.kernel, usage.arch))))
    print()
    for arch in ARCHS:
        mine = [unit for unit in units if unit.arch == arch]
        count, seconds = sum(len(unit.names) for unit in mine), sum(unit.seconds for unit in mine)
        print(f"{arch}: {count} kernels of {len(mine)} sources by {by} in {seconds:.1f} s of a core")
    faults = [usage.fault for usage in usages if usage.fault]
    if disassembler():
        looked_at = [unit for unit in units if unit.arch == WIDE_ARCH]
        faults += narrow_kernels(looked_at)
        count = len(wide((unit.file, name) for unit in looked_at for name in unit.names.values()))
        print(f"{WIDE_ARCH}: {count} kernels looked at for accesses of 16 bytes")
    else:
        print("accesses of 16 bytes: not looked at, nvdisasm is missing (pip install nvidia-cuda-nvdisasm)")
    print(f"{len(faults)} faults, {time.perf_counter() - began:.1f} s", *faults, sep="\n  ")
    return 1 if faults else 0
