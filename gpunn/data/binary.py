"""What the readers of binary files share: bounded reads, and array shapes that can exist."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Protocol

__all__ = ["ALLOWANCE", "MAX_NDIM", "byte_count", "pass_over", "read_at_most"]

#: The most axes that every supported NumPy can hold (NumPy 2 holds 64).
MAX_NDIM = 32

#: The bytes that a file may unpack to, beside twice its size, before it has shown to be whole: half of
#: the 64 MB that reading may take, since a growing buffer takes more than it holds.
ALLOWANCE = 1 << 25

_CHUNK = 1 << 20


class Readable(Protocol):
    """Anything with ``read(size)``: an open file, a member of a zip archive, a gzip stream."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, and none at the end."""
        ...


def read_at_most(stream: Readable, count: int) -> bytearray:
    """Read `count` bytes, or as many as there are, growing the buffer only as bytes arrive.

    A header may announce terabytes; memory is taken for what the stream delivers, never for what
    was announced, and no compressed stream is unpacked further than `count` bytes.

    >>> import io
    >>> read_at_most(io.BytesIO(b"abc"), 10**15)
    bytearray(b'abc')
    """
    payload = bytearray()
    while len(payload) < count and (chunk := stream.read(min(_CHUNK, count - len(payload)))):
        payload += chunk
    return payload


def pass_over(stream: Readable, count: int) -> int:
    """Read `count` bytes, or as many as there are, keeping none of them; returns how many those were.

    >>> import io
    >>> pass_over(io.BytesIO(b"abc"), 2), pass_over(io.BytesIO(b"abc"), 10**15)
    (2, 3)
    """
    passed = 0
    while passed < count and (chunk := stream.read(min(_CHUNK, count - passed))):
        passed += len(chunk)
    return passed


def byte_count(shape: Sequence[int], itemsize: int) -> int | None:
    """The bytes that an array of `shape` takes, or None where NumPy cannot hold such an array.

    >>> byte_count((2, 3), 4), byte_count((0, 2**62, 2**62), 1)
    (24, None)
    """
    if len(shape) > MAX_NDIM or any(size < 0 for size in shape):
        return None
    # NumPy refuses a shape whose non-zero axes overflow, even when another axis is 0.
    if math.prod(max(size, 1) for size in shape) * max(itemsize, 1) > sys.maxsize:
        return None
    return math.prod(shape) * itemsize
