"""IDX files: what is written is read back, and a damaged file is named, never believed."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpunn.data import read_idx, write_idx
from gpunn.data.binary import MAX_NDIM
from gpunn.errors import ArgumentError, FormatError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
NAMES = ["array-idx", "array-idx.gz"]


def idx_bytes(code: int, shape: tuple[int, ...], payload: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + payload


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@pytest.mark.parametrize(("code", "kind"), TYPES.items())
def test_every_type_is_read_from_its_big_endian_bytes(tmp_path, code, kind):
    expected = np.array([[1, 2, 3], [4, 5, 100]], dtype=kind)
    path = tmp_path / "two-by-three"
    path.write_bytes(idx_bytes(code, (2, 3), expected.astype(f">{kind}").tobytes()))
    array = read_idx(path)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.dtype(kind)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_is_written_is_read_back_bit_for_bit(folder, name, data):
    dtype = data.draw(st.sampled_from([np.dtype(kind) for kind in TYPES.values()]))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
    array = data.draw(hnp.arrays(dtype, shape))
    write_idx(folder / name, array)
    back = read_idx(folder / name)
    assert (back.shape, back.dtype, back.tobytes()) == (array.shape, array.dtype, array.tobytes())


@pytest.mark.parametrize("name", NAMES)
def test_an_array_in_another_order_of_bytes_or_axes_is_written_by_value(tmp_path, name):
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)


def test_gzip_is_told_by_the_bytes_and_not_by_the_name(tmp_path):
    content = idx_bytes(0x08, (3,), b"abc")
    (tmp_path / "plain.gz").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), read_idx(tmp_path / "packed"))


def test_a_name_that_ends_in_gz_is_compressed_and_equal_arrays_give_equal_files(tmp_path):
    array = np.zeros(1000, np.uint8)
    write_idx(tmp_path / "first.GZ", array)
    write_idx(tmp_path / "second.gz", array)
    assert (tmp_path / "first.GZ").read_bytes() == (tmp_path / "second.gz").read_bytes()
    assert (tmp_path / "first.GZ").stat().st_size < 100


def test_the_most_axes_that_numpy_can_hold_are_read_back(tmp_path):
    write_idx(tmp_path / "deep", np.ones((1,) * MAX_NDIM, np.uint8))
    assert read_idx(tmp_path / "deep").ndim == MAX_NDIM


DAMAGED = {
    "an empty file": (b"", r"begins with the bytes \[\], expected an IDX file"),
    "half a magic number": (b"\0\0\x08", "expected an IDX file"),
    "a zip file": (b"PK\x03\x04 and more", r"\[50 4b 03 04\]"),
    "an unknown type": (idx_bytes(0x0A, (1,), b"a"), "type among 08, 09, 0b, 0c, 0d, 0e"),
    "a header cut short": (idx_bytes(0x08, (2, 2), b"")[:-1], "announces 2 axes, expected 8 bytes .* got 7"),
    "no elements": (idx_bytes(0x0C, (3,), b""), r"the shape \(3\) of int32, expected 12 bytes .* got 0"),
    "one byte too few": (idx_bytes(0x08, (2, 2), b"abc"), "cut short: .* expected 4 bytes .* got 3"),
    "one byte too many": (idx_bytes(0x08, (2, 2), b"abcde"), "goes on .* expected 4 bytes .* got more"),
    "bytes after an empty array": (idx_bytes(0x08, (0, 28), b"a"), "goes on after its last element"),
    "terabytes announced": (
        idx_bytes(0x0E, (2**32 - 1, 1000), b"a" * 99),
        "expected 34,359,738,360,000 bytes",
    ),
    "more than can be addressed": (idx_bytes(0x0E, (2**32 - 1,) * 2, b""), "which no array can have"),
    "no elements in an impossible shape": (
        idx_bytes(0x08, (0, 2**32 - 1, 2**32 - 1, 1), b""),
        r"\(0, 4294967295, 4294967295, 1\), which no array can have",
    ),
    "more axes than NumPy has": (
        idx_bytes(0x08, (1,) * 33, b"a"),
        r"\(1, 1, 1, 1, 1, 1, \.\.\.\), which no array can have \(at most 32 axes",
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name_with_what_came_and_what_was_expected(
    tmp_path, content, message, pack
):
    path = tmp_path / "damaged-idx"
    path.write_bytes(pack(content))
    with pytest.raises(FormatError, match=rf"(?s)damaged-idx: .*{message}"):
        read_idx(path)


PACKED = gzip.compress(idx_bytes(0x08, (1000,), bytes(range(250)) * 4))
BROKEN_GZIP = {
    "cut in its header": PACKED[:5],
    "cut in its data": PACKED[:100],
    "cut in its checksum": PACKED[:-3],
    "of an unknown method": PACKED[:2] + b"\x07" + PACKED[3:],
    "with a wrong checksum": PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
    "with a damaged block": PACKED[:10] + b"\xff\xff\xff" + PACKED[13:],
    "followed by rubbish": PACKED + b"rubbish",
}


@pytest.mark.parametrize("content", BROKEN_GZIP.values(), ids=BROKEN_GZIP)
def test_a_gzip_stream_is_refused(tmp_path, content):
    path = tmp_path / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"broken\.gz: the gzip stream is damaged or cut short"):
        read_idx(path)


HONEST = 10**6
BOMBS = {
    "a header that announces 2 GB": idx_bytes(0x08, (2**31,), b"a" * HONEST),
    "a gzip header that announces 2 GB": gzip.compress(idx_bytes(0x08, (2**31,), b"a" * HONEST)),
    "64 MB behind a header of one element": gzip.compress(idx_bytes(0x08, (1,), bytes(2**26))),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_no_memory_is_taken_for(tmp_path, content):
    path = tmp_path / "bomb-idx"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * HONEST
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_the_plain_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nowhere-idx")


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float16", "bool", "complex64", "U3", "O"])
def test_a_type_that_idx_lacks_is_refused_and_nothing_is_written(tmp_path, dtype):
    with pytest.raises(ArgumentError, match=r"expected one of uint8, int8, int16, int32, float32, float64"):
        write_idx(tmp_path / "array-idx", np.zeros(3, dtype))
    assert list(tmp_path.iterdir()) == []


too_deep = pytest.param(
    (1,) * (MAX_NDIM + 1),
    id="too deep",
    marks=pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 holds no array of so many axes"),
)


@pytest.mark.parametrize("shape", [pytest.param((0, 2**32), id="too long"), too_deep])
def test_a_shape_that_idx_cannot_say_is_refused(tmp_path, shape):
    with pytest.raises(ArgumentError, match="expected at most 32 axes of less than"):
        write_idx(tmp_path / "array-idx", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_draft(tmp_path, monkeypatch, name):
    write_idx(tmp_path / name, np.array([1, 2, 3], np.uint8))

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_idx(tmp_path / name, np.array([4, 5, 6], np.uint8))
    np.testing.assert_array_equal(read_idx(tmp_path / name), [1, 2, 3])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def mutated(content: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(damaged) + 1)
        piece = chance.choice([b"", b"\xff", b"\0\0", chance.randbytes(chance.randint(1, 8))])
        damaged[start : start + chance.choice([0, 1, len(piece), 10])] = piece
    return bytes(damaged)


def read_or_refuse(path: Path) -> np.ndarray | FormatError:
    try:
        return read_idx(path)
    except FormatError as error:
        return error


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_mutated_file_gives_an_array_or_a_format_error(tmp_path, pack, seed):
    content = mutated(pack(idx_bytes(0x0B, (4, 3), np.arange(12, dtype=">i2").tobytes())), seed)
    path = tmp_path / "mutated-idx"
    path.write_bytes(content)
    result = read_or_refuse(path)
    if isinstance(result, FormatError):
        assert "mutated-idx: " in str(result)
    else:
        assert result.flags.c_contiguous
        assert result.nbytes <= 1032 * len(content)
