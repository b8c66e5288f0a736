"""The IDX format of MNIST: a magic number, the size of each axis, then the elements, big-endian.

============= ===========================================================
bytes         meaning
============= ===========================================================
0, 1          zero
2             type: 08 ubyte, 09 sbyte, 0B short, 0C int, 0D float, 0E double
3             the number of axes
4 per axis    its size, as a big-endian unsigned integer
the rest      the elements in C order, big-endian
============= ===========================================================

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits",
yann.lecun.com/exdb/mnist, section "File formats".
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.binary import ALLOWANCE, MAX_NDIM, byte_count, pass_over, read_at_most
from gpunn.errors import ArgumentError, FormatError
from gpunn.files import write_atomically

__all__ = ["read_idx", "write_idx"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
_CODES = {np.dtype(kind): code for code, kind in _TYPES.items()}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, compressed with gzip or not.

    Whether the file is compressed is told by its first bytes, not by its name.

    Reading takes no more memory than twice the file and 64 MB, whatever its header announces. A
    compressed file may well hold a larger array than that: it is then unpacked twice, once only to see
    that it is whole, before memory is taken for the array and for nothing beside it.

    Parameters
    ----------
    path
        The file, such as ``train-images-idx3-ubyte.gz``.

    Returns
    -------
    ndarray
        In the shape that the header announces, C-contiguous, writable, in the machine's byte order;
        uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    FormatError
        If the file is not IDX, is cut short, goes on after its last element, or does not unpack.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    The format is the one at yann.lecun.com/exdb/mnist, "File formats".

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        affordable = 2 * os.fstat(file.fileno()).st_size + ALLOWANCE
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return _read(file, name, affordable)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(unpacked, name, affordable)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(
                f"{name}: the gzip stream is damaged or cut short ({error}); expected a whole "
                "IDX file compressed with gzip: fetch the file again"
            ) from error


def _read(stream: IO[bytes] | gzip.GzipFile, name: str, affordable: int) -> NDArray[Any]:
    magic = bytes(read_at_most(stream, 4))
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise FormatError(
            f"{name}: begins with the bytes [{magic.hex(' ')}], expected an IDX file: [00 00 type axes] "
            f"with the type among {', '.join(f'{code:02x}' for code in _TYPES)}"
        )
    sizes = read_at_most(stream, 4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise FormatError(
            f"{name}: is cut short in its header: announces {magic[3]} axes, expected {4 * magic[3]} bytes "
            f"with their sizes, got {len(sizes)}: fetch the file again"
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(_TYPES[magic[2]]).newbyteorder(">")
    expected = byte_count(shape, dtype.itemsize)
    if expected is None:
        raise FormatError(
            f"{name}: the header announces the shape {_brief(shape)}, which no array can have "
            f"(at most {MAX_NDIM} axes, and what memory can address): the file is damaged"
        )
    announced = f"the header announces the shape {_brief(shape)} of {dtype.newbyteorder('=').name}"
    if expected > affordable:
        start = stream.tell()
        _expect_end(stream, pass_over(stream, expected), expected, name, announced)
        stream.seek(start)
    payload = read_at_most(stream, expected)
    _expect_end(stream, len(payload), expected, name, announced)
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer=payload)
    # In place: a converted copy would take the memory of the array once more.
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _expect_end(
    stream: IO[bytes] | gzip.GzipFile, got: int, expected: int, name: str, announced: str
) -> None:
    if got < expected:
        raise FormatError(
            f"{name}: is cut short: {announced}, expected {expected:,} bytes after it, got {got:,}: "
            "fetch the file again"
        )
    if stream.read(1):
        raise FormatError(
            f"{name}: goes on after its last element: {announced}, expected {expected:,} bytes after it, "
            "got more: the file is damaged, or its header is wrong"
        )


def _brief(shape: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, shape[:6])) + (", ..." if len(shape) > 6 else "")
    return f"({shown})"


def write_idx(path: str | os.PathLike[str], array: ArrayLike) -> None:
    """Write an array as an IDX file, compressed with gzip when the name ends in ``.gz``.

    The file appears whole or not at all, and the same array always gives the same bytes.

    Parameters
    ----------
    path
        The file to write; one that exists is replaced.
    array
        Any shape of at most 32 axes; uint8, int8, int16, int32, float32 or float64. IDX has no
        other types, and nothing is converted silently.

    Raises
    ------
    ArgumentError
        If IDX has no such type, or an axis is longer than its 32-bit size can say.
    OSError
        If the file cannot be written.

    Notes
    -----
    The format is the one at yann.lecun.com/exdb/mnist, "File formats".

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "labels-idx1-ubyte.gz"
    ...     write_idx(path, np.array([5, 0, 4], dtype=np.uint8))
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    values = np.asarray(array)
    code = _CODES.get(values.dtype.newbyteorder("="))
    if code is None:
        raise ArgumentError(
            f"cannot write {values.dtype.name} as IDX, expected one of "
            f"{', '.join(dtype.name for dtype in _CODES)}: convert with array.astype(...)"
        )
    if values.ndim > MAX_NDIM or max(values.shape, default=0) >= 2**32:
        raise ArgumentError(
            f"cannot write the shape {_brief(values.shape)} as IDX, expected at most {MAX_NDIM} axes "
            "of less than 2**32 elements each: reshape or divide the array"
        )
    header = bytes([0, 0, code, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    body = values.astype(values.dtype.newbyteorder(">"), copy=False).tobytes()
    content = header + body
    if os.fspath(path).lower().endswith(".gz"):
        # No name and no time in the stream: equal arrays give equal files.
        content = gzip.compress(content, mtime=0)
    write_atomically(Path(path), content)
