"""Launches kernels on the host: a child process for each kernel file, three runs for each launch."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np

from cuda_host.build import build

HEADER = struct.Struct("<9I")
BUFFER = struct.Struct("<2Q")
ARGUMENT = struct.Struct("<4I8s")
ANSWER = struct.Struct("<2IQ")
OK, FAULT, REFUSED = range(3)

#: What CUDA allows in a block and a grid.
LARGEST_BLOCK, LARGEST_GRID = (1024, 1024, 64), (2**31 - 1, 65535, 65535)
#: Seconds beyond its limit in which a child may say itself that it ran too long.
GRACE = 5.0
SOURCE_LINE = re.compile(r"([\w.-]+\.cuh?:\d+)")
SANITIZER_ERROR = re.compile(r"AddressSanitizer: (\S+) on .*(?:\n((?:READ|WRITE) of size \d+))?")
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0:handle_abort=1",
    "UBSAN_OPTIONS": "print_stacktrace=0",
}


class KernelFault(AssertionError):
    """A kernel did what it must not do, or was launched as it must not be."""


class ChildGone(Exception):
    pass


class ChildLate(Exception):
    pass


class Child:
    """The process that runs the kernels of one file."""

    def __init__(self, program: Path, limit: float):
        self.program = program
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # It lives as long as the process.
        self.process = subprocess.Popen(
            [program, str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            env=os.environ | ENVIRONMENT,
        )
        self.answers = select.poll()
        self.answers.register(self.process.stdout, select.POLLIN)
        self.limit = limit
        self.deadline = 0.0

    def write(self, job: bytes) -> None:
        left = memoryview(job)
        try:
            while left:
                left = left[self.process.stdin.write(left) :]
        except BrokenPipeError:
            raise ChildGone from None
        self.deadline = time.monotonic() + self.limit + GRACE

    def read_into(self, place) -> None:
        left = memoryview(place)
        while left:
            if not self.answers.poll(max(0, self.deadline - time.monotonic()) * 1000):
                raise ChildLate
            count = self.process.stdout.readinto(left)
            if not count:
                raise ChildGone
            left = left[count:]

    def read(self, size: int) -> bytearray:
        place = bytearray(size)
        self.read_into(place)
        return place

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()

    def line_of(self, address: int) -> str:
        """The source line of an address of the program, innermost first, where the debug data know it."""
        command = ["addr2line", "-i", "-e", self.program, hex(address)]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""
        line = SOURCE_LINE.search(found)
        return line[1] if line else ""

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


def stop_all(children: dict[str, Child]) -> None:
    while children:
        children.popitem()[1].stop()


def three(sizes: Sequence[int], largest: tuple[int, int, int], what: str) -> list[int]:
    """Three sizes out of one to three."""
    filled = [*sizes, 1, 1, 1][:3]
    if not 1 <= len(sizes) <= 3 or not all(
        1 <= size <= most for size, most in zip(filled, largest, strict=True)
    ):
        raise KernelFault(f"a {what} of {tuple(sizes)}: one to three sizes from 1 to {largest}")
    return filled


class Buffers:
    """The memory that a launch's arrays reach; arrays that overlap lie in one buffer."""

    def __init__(self, arrays: Mapping[int, np.ndarray]):
        spans = sorted((a.__array_interface__["data"][0], a.nbytes, number) for number, a in arrays.items())
        self.arrays = arrays
        self.places: dict[int, tuple[int, int]] = {}  # argument: its buffer, its offset
        self.ranges: list[list[int]] = []  # start and end of each buffer
        for start, size, number in sorted(spans, key=lambda span: span[1] == 0):  # the empty ones last
            if size == 0 or not self.ranges or start >= self.ranges[-1][1]:
                self.ranges.append([start, start + size])
            last = self.ranges[-1]
            last[1] = max(last[1], start + size)
            self.places[number] = (len(self.ranges) - 1, start - last[0])

    def members(self, buffer: int):
        for number, (position, offset) in self.places.items():
            if position == buffer:
                array = self.arrays[number]
                yield number, offset, array.reshape(-1).view(np.uint8)

    def contents(self, buffer: int) -> bytes:
        start, end = self.ranges[buffer]
        together = np.empty(end - start, np.uint8)
        for _, offset, array in self.members(buffer):
            together[offset : offset + array.size] = array
        return together.tobytes()

    def take(self, buffer: int, changed: bytearray) -> None:
        together = np.frombuffer(changed, np.uint8)
        for number, offset, array in self.members(buffer):
            if array.flags.writeable:
                array[:] = together[offset : offset + array.size]
            elif not np.array_equal(array, together[offset : offset + array.size]):
                raise KernelFault(f"argument {number} is a read-only array, and the kernel wrote to it")


class HostDriver:
    """Kernels of CUDA C++ files, run on the CPU.

    Parameters
    ----------
    instances
        For each file the name expressions to instantiate:
        ``{"elementwise.cu": ["activate<float, sigma::sigmoid>"]}``.
    sources
        The folder with the files and their headers.
    sanitize
        Build with the address sanitizer: every read and write outside of an array is found, slowly.
    limit
        Seconds that one launch may take.

    Raises
    ------
    BuildError
        A file does not compile; the message has the compiler's log.
    """

    def __init__(
        self,
        instances: Mapping[str, Sequence[str]],
        *,
        sources: Path,
        sanitize: bool = False,
        limit: float = 10.0,
    ):
        self.limit = limit
        self.numbers = {
            expression: (file, number)
            for file, expressions in instances.items()
            for number, expression in enumerate(expressions)
        }
        with ThreadPoolExecutor(2) as pool:
            built = {
                file: pool.submit(build, Path(sources), file, list(expressions), sanitize=sanitize)
                for file, expressions in instances.items()
            }
        self.programs = {file: future.result() for file, future in built.items()}
        self.children: dict[str, Child] = {}
        self._finish = weakref.finalize(self, stop_all, self.children)

    def __enter__(self) -> HostDriver:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes."""
        stop_all(self.children)

    def launch(
        self,
        expression: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: Sequence[np.ndarray | np.generic | None],
    ) -> None:
        """Run a kernel in three orders of threads and blocks, and write what it wrote into the arrays.

        Raises
        ------
        KernelFault
            The kernel is at fault, or its arguments do not fit.
        """
        if expression not in self.numbers:
            raise KernelFault(f"{expression}: no such instance; there are {', '.join(self.numbers)}")
        file, number = self.numbers[expression]
        try:
            self._launch(file, number, grid, block, arguments)
        except KernelFault as fault:
            raise KernelFault(f"{expression}: {fault}") from None

    def _launch(self, file, number, grid, block, arguments) -> None:
        grid, block = three(grid, LARGEST_GRID, "grid"), three(block, LARGEST_BLOCK, "block")
        if prod(block) > 1024:
            raise KernelFault(f"a block of {prod(block)} threads: at most 1024")
        buffers, packed = self._packed(arguments)
        contents = [buffers.contents(position) for position in range(len(buffers.ranges))]
        shapes = [BUFFER.pack(len(c), start) for c, (start, _) in zip(contents, buffers.ranges, strict=True)]
        header = HEADER.pack(number, *grid, *block, len(contents), len(packed))
        if file not in self.children:
            self.children[file] = Child(self.programs[file], self.limit)
        child = self.children[file]
        try:
            child.write(b"".join([header, *shapes, *packed, *contents]))
            status, length, address = ANSWER.unpack(child.read(ANSWER.size))
            body = child.read(length)
            changed = {}
            if status == OK:
                for position in np.flatnonzero(body):
                    changed[position] = child.read(len(contents[position]))
        except (ChildGone, ChildLate) as trouble:
            raise KernelFault(self._lost(file, trouble)) from None
        except BaseException:
            self.children.pop(file).stop()  # What it would answer belongs to no later launch.
            raise
        if status == FAULT:
            raise KernelFault(self._fault(file, body.decode(errors="replace"), address))
        if status == REFUSED:
            raise KernelFault(body.decode())
        for position, content in changed.items():
            buffers.take(position, content)

    def _packed(self, arguments) -> tuple[Buffers, list[bytes]]:
        for number, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                if not argument.flags.c_contiguous:
                    raise KernelFault(f"argument {number} is not C-contiguous")
            elif argument is not None and not isinstance(argument, np.bool_ | np.number):
                raise KernelFault(
                    f"argument {number} is a {type(argument).__name__}: arrays, NumPy scalars, None"
                )
        buffers = Buffers({n: a for n, a in enumerate(arguments) if isinstance(a, np.ndarray)})
        packed = []
        for number, argument in enumerate(arguments):
            if argument is None:
                packed.append(ARGUMENT.pack(ord("0"), 8, 0, 0, bytes(8)))
            elif isinstance(argument, np.ndarray):
                buffer, offset = buffers.places[number]
                packed.append(ARGUMENT.pack(ord("p"), 8, buffer, 0, offset.to_bytes(8, "little")))
            else:
                kind, size = argument.dtype.kind, argument.dtype.itemsize
                packed.append(ARGUMENT.pack(ord(kind), size, 0, 0, argument.tobytes()))
        return buffers, packed

    def _fault(self, file: str, message: str, address: int) -> str:
        """The child's own words, with the source line and what else it said."""
        child = self.children.pop(file)
        said = child.said()
        line = child.line_of(address) if address else ""
        child.stop()
        if error := SANITIZER_ERROR.search(said):
            message = ", ".join([*filter(None, error.groups()), message])
        if found := SOURCE_LINE.search(said):
            line = found[1]
        report = said.split("\n\n")[0]  # Of a sanitizer's: where it happened, not its map of the memory.
        return message + (f", at {line}" if line else "") + (f"\n{report}" if report else "")

    def _lost(self, file: str, trouble: Exception) -> str:
        """What became of a child that did not answer."""
        child = self.children.pop(file)
        if isinstance(trouble, ChildGone):
            code = child.process.wait()
            what = f"its process ended with status {code}"
        else:
            what = f"ran past {self.limit:g} s"
        child.process.kill()
        said = "\n".join(child.said().splitlines()[-30:])
        child.stop()
        return f"{what}\n{said}".strip()
