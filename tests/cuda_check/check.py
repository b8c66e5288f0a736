"""Registers, shared memory, spills and stack of each kernel for each architecture, and its SASS.

A kernel that keeps something in local memory (a spill, or an array that registers cannot index) runs several
times slower and computes the same, and so does one of float that a literal without its f turned to double:
only the compiler says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import platformdirs
from gpunn.kernels import assembled

import gpunn
from gpunn.backends.cuda.code import OPTIONS, Code, whole_cubin
from gpunn.files import write_atomically

ARCHS = ("sm_80", "sm_90", "sm_100")
COMPILERS = ("nvcc", "nvrtc")

#: The architecture that NVRTC compiles for beside nvcc, and whose SASS is looked at.
SEEN_ARCH = "sm_90"
#: The kernels that have to move 16 bytes at once.
WIDE = ("activate", "activate_grad", "bias_activate")
#: The kernels whose instances of float may do nothing in double.
SINGLE = ("activate", "activate_grad", "bias_activate", "add", "copy")

CACHE = Path(platformdirs.user_cache_dir("gpunn", appauthor=False)) / "cuda_check"
#: What no check has used for this long is removed.
KEPT_SECONDS = 14 * 24 * 3600

_ENTRY = "Compiling entry function '"
_DOUBLE = re.compile(
    r"\b(?:D(?:FMA|ADD|MUL|SETP|MNMX|MMA)\b|(?:F2F|F2I|I2F|FRND)(?:\.\w+)*\.F64\b|MUFU\.\w+64H\b)"
)


class CompileError(RuntimeError):
    """A source does not compile; the message is the compiler's."""


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes are those of a thread, ``shared`` those of a block."""

    kernel: str
    arch: str
    by: str
    registers: int
    shared: int
    spills: int
    stack: int

    @property
    def fault(self) -> str | None:
        if self.spills or self.stack:
            return (
                f"{self.kernel} for {self.arch} by {self.by}: "
                f"{self.spills} bytes spilled, {self.stack} bytes of stack"
            )
        return None


@dataclass(frozen=True)
class Job:
    """One source with the wanted instances, to be compiled for one architecture."""

    file: str
    text: str
    wanted: tuple[str, ...]
    arch: str
    by: str


@dataclass(frozen=True)
class Unit:
    """What became of a job; the cubin may hold the kernels of other sources too."""

    file: str
    arch: str
    by: str
    cubin: bytes
    log: str
    names: dict[str, str]  # By mangled name.

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
                    self.by,
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


def compilers(arch: str) -> tuple[str, ...]:
    """What compiles for an architecture here: nvcc, for one NVRTC too; without nvcc NVRTC does all."""
    if not shutil.which("nvcc"):
        return () if why_no_nvrtc() else ("nvrtc",)
    return COMPILERS if arch == SEEN_ARCH and why_no_nvrtc() is None else ("nvcc",)


def users_compiler() -> str:
    """What the SASS is looked at of: NVRTC, which compiles for users, or nvcc where there is none."""
    return "nvcc" if why_no_nvrtc() else "nvrtc"


@cache
def why_no_nvrtc() -> str | None:
    """What CuPy's NVRTC lacks here, or None."""
    try:
        Code(SEEN_ARCH)
    except gpunn.DeviceError as error:
        return str(error)
    return None


@cache
def version(by: str) -> str:
    """All that a compiler tells of its version."""
    if by == "nvrtc":
        return repr(Code(SEEN_ARCH).version)
    return subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout


def build(
    instances: Iterable[tuple[str, str]],
    archs: Iterable[str] = ARCHS,
    sources: Path | None = None,
    by: str | None = None,
) -> list[Unit]:
    """Every (file, expression) by every compiler of its architecture, or by the given one.

    What an earlier run compiled is taken from the cache.
    """
    files: dict[str, set[str]] = {}
    for file, expression in instances:
        files.setdefault(file, set()).add(expression)
    jobs = [
        Job(file, assembled(file, sources), tuple(sorted(wanted)), arch, one)
        for arch in archs
        for one in ([by] if by else compilers(arch))
        for file, wanted in files.items()
    ]
    done = {job: unit for job in jobs if (unit := _kept(job))}
    with ThreadPoolExecutor(2) as pool:
        for units in pool.map(compile_together, _groups(job for job in jobs if job not in done)):
            for job, unit in units.items():
                _keep(job, unit)
            done |= units
    return [done[job] for job in jobs]


def _groups(jobs: Iterable[Job]) -> list[list[Job]]:
    """What to compile together, the longest first.

    For nvcc half of an architecture's sources: it reads all of CUDA's headers before it reads a source.
    """
    halves: dict[tuple[str, int], list[Job]] = {}
    alone = []
    for job in sorted(jobs, key=lambda job: -len(job.wanted)):
        if job.by == "nvrtc":
            alone.append([job])
            continue
        mine = [halves.setdefault((job.arch, half), []) for half in (0, 1)]
        min(mine, key=lambda half: sum(len(other.wanted) for other in half)).append(job)
    groups = [*alone, *filter(None, halves.values())]
    return sorted(groups, key=lambda group: -sum(len(job.wanted) for job in group))


def compile_together(jobs: list[Job]) -> dict[Job, Unit]:
    """Jobs for the same compiler and architecture; one after the other where they bear no company."""
    try:
        units = {"nvcc": _by_nvcc, "nvrtc": _by_nvrtc}[jobs[0].by](jobs)
        for job, unit in units.items():
            if missing := set(job.wanted) - {usage.kernel for usage in unit.usages}:
                raise CompileError(
                    f"{job.file} for {job.arch}: not compiled: {', '.join(sorted(missing))}\n{unit.log}"
                )
        return units
    except CompileError:
        if len(jobs) == 1:
            raise
        return {job: unit for one in jobs for job, unit in compile_together([one]).items()}


def _by_nvcc(jobs: list[Job]) -> dict[Job, Unit]:
    files, arch = ", ".join(job.file for job in jobs), jobs[0].arch
    with tempfile.TemporaryDirectory() as scratch:
        source, cubin = Path(scratch, "unit.cu"), Path(scratch, "unit.cubin")
        source.write_text(_joined(jobs), encoding="utf-8")
        command = ["nvcc", f"-arch={arch}", *OPTIONS, "-cubin", "-o", str(cubin), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        log = done.stdout + done.stderr
        if done.returncode:
            raise CompileError(f"{files} for {arch}:\n{log}")
        code = cubin.read_bytes()
    said, *entries = log.split(_ENTRY)
    symbols = [entry[: entry.index("'")] for entry in entries]
    # nvcc works beside a C++ compiler, and so beside its c++filt.
    plain = subprocess.run(["c++filt", *symbols], capture_output=True, text=True, check=True)
    logs = [said] * len(jobs)
    names: list[dict[str, str]] = [{} for _ in jobs]
    for entry, symbol, line in zip(entries, symbols, plain.stdout.splitlines(), strict=True):
        name = _name(line)
        place = int(number[1]) if (number := re.match(r"source_(\d+)::", name)) else 0
        name = re.sub(r"\bsource_\d+::", "", name)
        asked = {expression.replace(" ", ""): expression for expression in jobs[place].wanted}
        names[place][symbol] = asked.get(name.replace(" ", ""), name)
        logs[place] += _ENTRY + entry
    return {
        job: Unit(job.file, arch, "nvcc", code, log, mine)
        for job, log, mine in zip(jobs, logs, names, strict=True)
    }


def _joined(jobs: list[Job]) -> str:
    """The sources, each with a table of its instances, and each in a namespace where there are several."""
    headers = [line for job in jobs for line in re.findall(r"^\s*#\s*include\s*<.*", job.text, re.MULTILINE)]
    parts = []
    for place, job in enumerate(jobs):
        addresses = ",\n".join(f"(const void*)&{expression}" for expression in job.wanted)
        table = f'#line 1 "instances of {job.file}"\nconst void* instances[] = {{\n{addresses}}};\n'
        parts.append(f"{job.text}\n{table}")
        if len(jobs) > 1:
            parts[-1] = f"namespace source_{place} {{\n{parts[-1]}}}\n"
    return "\n".join([*(headers if len(jobs) > 1 else []), *parts])


def _name(plain: str) -> str:
    """``f<int>`` of ``void f<int>(int*)``."""
    depth = 0
    for place, letter in enumerate(plain):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and not depth:
            return plain[:place].removeprefix("void ")
    return plain


def _by_nvrtc(jobs: list[Job]) -> dict[Job, Unit]:
    from cupy.cuda import nvrtc

    (job,) = jobs
    program = nvrtc.createProgram(job.text, job.file, (), ())
    try:
        for expression in job.wanted:
            nvrtc.addNameExpression(program, expression)
        try:
            nvrtc.compileProgram(program, (f"-arch={job.arch}", *OPTIONS))
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise CompileError(f"{job.file} for {job.arch} ({error}):\n{log}") from error
        names = {nvrtc.getLoweredName(program, expression): expression for expression in job.wanted}
        code, log = whole_cubin(nvrtc.getCUBIN(program)), nvrtc.getProgramLog(program)
        return {job: Unit(job.file, job.arch, "nvrtc", code, log, names)}
    finally:
        nvrtc.destroyProgram(program)


# ------------------------------------------------------------------ what is kept


@cache
def _own_code() -> str:
    """What stands in this file: it decides what is kept, and in what form."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _key(job: Job) -> bytes:
    made_from = (job.text, job.wanted, OPTIONS, job.arch, job.by, version(job.by), _own_code())
    return hashlib.sha256(repr(made_from).encode()).digest()


def _kept(job: Job) -> Unit | None:
    """An earlier run's unit; None where there is none, or a damaged one."""
    path = CACHE / (key := _key(job)).hex()
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, rest = content[:32], content[32:]
    if hashlib.sha256(key + rest).digest() != digest:
        return None
    told, _, cubin = rest.partition(b"\n")
    return Unit(job.file, job.arch, job.by, cubin, *json.loads(told))


def _keep(job: Job, unit: Unit) -> None:
    """Write a unit, and remove what is no longer used; without a folder every run compiles anew."""
    key = _key(job)
    rest = json.dumps([unit.log, unit.names]).encode() + b"\n" + unit.cubin
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        write_atomically(CACHE / key.hex(), hashlib.sha256(key + rest).digest() + rest)
        for path in CACHE.iterdir():
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink(missing_ok=True)
    except OSError:
        pass


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


@lru_cache(maxsize=4)
def _disassembled(cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "unit.cubin")
        path.write_bytes(cubin)
        command = [disassembler() or "nvdisasm", "--print-code", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sass(unit: Unit) -> dict[str, list[str]]:
    """The instructions of each kernel, such as ``LDG.E.128 R4, desc[UR4][R2.64]``."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^\.text\.", _disassembled(unit.cubin), flags=re.MULTILINE)[1:]:
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


def is_single(name: str) -> bool:
    """Whether an instance computes in single precision alone."""
    return name.partition("<")[0] in SINGLE and re.match(r"\w+<float\b", name) is not None


def doubles(kernel: str, instructions: list[str]) -> list[str]:
    """What is wrong with a kernel that is meant to compute in single precision alone."""
    found = [line for line in instructions if _DOUBLE.search(line)]
    return [f"{kernel}: {len(found)} instructions of float64: {found[0]}"] if found else []


def code_faults(units: Iterable[Unit]) -> list[str]:
    """The faults of all units, by their SASS; no instruction found is one too."""
    faults = []
    for unit in units:
        code = sass(unit)
        for name in sorted(unit.names.values()):
            instructions = code.get(name, [])
            if not instructions:
                faults.append(f"{name}: no instructions")
                continue
            if wide([(unit.file, name)]):
                faults += narrow(name, instructions)
            if is_single(name):
                faults += doubles(name, instructions)
    return faults


# ------------------------------------------------------------------ the table


def table(usages: Iterable[Usage]) -> str:
    """A row for each kernel, a group of columns for each architecture."""
    titles = ("kernel", "arch", "by", "registers", "shared", "spills", "stack")
    rows = [titles] + [
        (u.kernel, u.arch, u.by, *map(str, (u.registers, u.shared, u.spills, u.stack))) for u in usages
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> int:
    """Print the table of all kernels; 1 where one has a fault."""
    from gpunn.backends.cuda.catalogue import instances

    if not compilers(SEEN_ARCH):
        print("nothing compiles CUDA here: install the CUDA toolkit, or CuPy with NVRTC")
        return 1
    began = time.perf_counter()
    units = build((kernel.file, kernel.expression) for kernel in instances())
    usages = [usage for unit in units for usage in unit.usages]
    print(table(sorted(usages, key=lambda usage: (usage.kernel, usage.arch, usage.by))))
    print()
    for arch in ARCHS:
        for by in compilers(arch):
            mine = [unit for unit in units if (unit.arch, unit.by) == (arch, by)]
            print(f"{arch}: {sum(len(unit.names) for unit in mine)} kernels of {len(mine)} sources by {by}")
    faults = [usage.fault for usage in usages if usage.fault]
    if disassembler():
        looked_at = [unit for unit in units if (unit.arch, unit.by) == (SEEN_ARCH, users_compiler())]
        faults += code_faults(looked_at)
        names = [(unit.file, name) for unit in looked_at for name in unit.names.values()]
        single = sum(is_single(name) for _, name in names)
        print(
            f"{SEEN_ARCH} by {users_compiler()}: {len(wide(names))} kernels looked at for accesses of "
            f"16 bytes, {single} for arithmetic in float64"
        )
    else:
        print("the instructions: not looked at, nvdisasm is missing (pip install nvidia-cuda-nvdisasm)")
    print(f"{len(faults)} faults, {time.perf_counter() - began:.1f} s", *faults, sep="\n  ")
    return 1 if faults else 0
