"""Arrays in an archive: which pair is read, what becomes of it, and what is refused."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpunn.data import Dataset, read_npz
from gpunn.errors import FormatError, UnknownNameError

X = np.arange(6, dtype=np.float32).reshape(3, 2)
Y = np.array([0, 1, 1])


@pytest.fixture
def read(tmp_path):
    def read_arrays(*names: str, **arrays):
        np.savez(tmp_path / "arrays.npz", **arrays)
        return read_npz(tmp_path / "arrays.npz", *names)

    return read_arrays


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def npy_with_header(header: str, payload: bytes, version: int = 1) -> bytes:
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin-1") + payload


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PAIRS = [("X", "y"), ("x", "y"), ("X_train", "y_train"), ("x_train", "y_train"), ("data", "target")]


@pytest.mark.parametrize(("features", "target"), PAIRS)
def test_the_usual_names_are_found(read, features, target):
    data = read(**{features: X, target: Y, "other": np.zeros(7)})
    np.testing.assert_array_equal(data.train.X, X)
    np.testing.assert_array_equal(data.train.y, Y)
    assert data.train.X.dtype == np.float32
    assert data.classes == data.train.classes == ("0", "1")
    assert (data.name, data.validation, data.test) == ("arrays", None, None)


def test_the_first_of_the_usual_pairs_wins(read):
    data = read(data=X + 1, target=Y, X=X, y=Y)
    np.testing.assert_array_equal(data.train.X, X)


@pytest.mark.parametrize(
    "names", [("inputs", "outputs"), ("inputs",), (None, "outputs")], ids=["both", "features", "target"]
)
def test_arrays_can_be_named(read, names):
    data = read(*names, inputs=X + 1, outputs=Y[::-1], X=X + 1, y=Y[::-1])
    np.testing.assert_array_equal(data.train.X, X + 1)
    np.testing.assert_array_equal(data.train.y, Y[::-1])


@pytest.mark.parametrize(("features", "target"), [("X_test", "y_test"), ("x_test", "y_test")])
def test_a_test_pair_becomes_the_test_side_with_the_same_classes(read, features, target):
    words = np.array(["b", "c", "b"])
    data = read(x_train=X, y_train=words, **{features: X[:2] + 1, target: np.array(["a", "c"])})
    np.testing.assert_array_equal(data.train.y, [1, 2, 1])
    np.testing.assert_array_equal(data.test.X, X[:2] + 1)
    np.testing.assert_array_equal(data.test.y, [0, 2])
    assert data.classes == data.test.classes == ("a", "b", "c")
    assert (data.train.name, data.test.name) == ("train", "test")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_are_flattened_row_by_row_whatever_their_layout(tmp_path, save):
    images = np.asfortranarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    save(tmp_path / "images.npz", X=images, y=np.array([0, 1]))
    data = read_npz(tmp_path / "images.npz")
    np.testing.assert_array_equal(data.train.X, np.arange(24).reshape(2, 12))
    assert data.train.X.flags.c_contiguous
    assert data.train.X.flags.writeable


@pytest.mark.parametrize(
    ("stored", "read_as"),
    [
        ("bool", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("int64", "float64"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        (">f4", "float32"),
        (">i8", "float64"),
        ("longdouble", "float64"),
    ],
)
def test_features_become_floats_that_lose_no_digits(read, stored, read_as):
    features = read(X=X.astype(stored), y=Y).train.X
    np.testing.assert_array_equal(features, X.astype(stored).astype(read_as))
    assert features.dtype == np.dtype(read_as)
    assert features.dtype.isnative


TARGETS = {
    "labels": (np.array([2, 0, 1], np.uint8), [2, 0, 1], "int64", ("0", "1", "2")),
    "booleans": (np.array([True, False, True]), [1, 0, 1], "int64", ("0", "1")),
    "a column of labels": (np.array([[2], [0], [1]], np.int16), [2, 0, 1], "int64", ("0", "1", "2")),
    "whole numbers that are no labels": (np.array([5, 7, 9]), [5, 7, 9], "int64", None),
    "words": (np.array(["b", "é", "a"]), [1, 2, 0], "int64", ("a", "b", "é")),
    "bytes": (np.char.encode(["b", "é", "a"], "utf-8"), [1, 2, 0], "int64", ("a", "b", "é")),
    "a column of words": (np.array([["b"], ["a"], ["b"]]), [1, 0, 1], "int64", ("a", "b")),
    "floats": (np.array([0.5, 1.0, 2.0], np.float32), [0.5, 1.0, 2.0], "float32", None),
    "rows of floats": (np.eye(3), np.eye(3), "float64", None),
    "one-hot rows": (np.eye(3, dtype=np.uint8), np.eye(3), "float32", None),
}


@pytest.mark.parametrize(("stored", "y", "dtype", "classes"), TARGETS.values(), ids=TARGETS)
def test_a_target_of(read, stored, y, dtype, classes):
    data = read(X=X, y=stored)
    np.testing.assert_array_equal(data.train.y, y)
    assert data.train.y.dtype == np.dtype(dtype)
    assert data.classes == classes


BAD_TEXT = np.array([b"\xff\xff\xff\x7f" * 2] * 3).view("U2")
REFUSED = {
    "no known pair": ({"a": X, "y": Y}, r"holds the arrays a, y, expected one of the pairs X/y, x/y,"),
    "no arrays": ({}, "holds the arrays none, expected one of the pairs"),
    "objects as features": (
        {"X": X.astype(object), "y": Y},
        "'X' holds Python objects, which are never unpickled",
    ),
    "objects as targets": ({"X": X, "y": np.array([None, 1, "a"])}, "'y' holds Python objects"),
    "complex features": ({"X": X + 1j, "y": Y}, "'X' holds complex64, expected numbers or text"),
    "dates as targets": (
        {"X": X, "y": Y.astype("M8[s]")},
        r"'y' holds datetime64\[s\], expected numbers or text",
    ),
    "records": ({"X": np.zeros(3, "f4,i4"), "y": Y}, r"'X' holds \[.*\], expected numbers or text"),
    "text as features": ({"X": X.astype(str), "y": Y}, "'X' holds text, expected numbers"),
    "targets of one more": ({"X": X, "y": np.zeros(4)}, r"\(3, 2\) and 'y' \(4,\), expected as many targets"),
    "a single target": ({"X": X, "y": np.array(1)}, r"\(3, 2\) and 'y' \(\), expected as many targets"),
    "features in one axis": ({"X": np.zeros(3), "y": Y}, r"\(3,\), expected \(examples, features\)"),
    "no examples": ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, r"the shape \(0, 2\), expected"),
    "no features": ({"X": np.zeros((3, 0)), "y": Y}, r"the shape \(3, 0\), expected"),
    "targets without outputs": ({"X": X, "y": np.zeros((3, 0))}, r"'y' has the shape \(3, 0\)"),
    "targets in three axes": ({"X": X, "y": np.zeros((3, 1, 1))}, r"'y' has the shape \(3, 1, 1\)"),
    "rows of words": ({"X": X, "y": np.full((3, 2), "a")}, r"'y' has the shape \(3, 2\) of <U1"),
    "text beyond Unicode": ({"X": X, "y": BAD_TEXT}, "'y' holds text that cannot be decoded"),
    "bytes that are not UTF-8": (
        {"X": X, "y": np.array([b"\xff"] * 3)},
        "'y' holds text that cannot be decoded",
    ),
    "labels beyond 64 bits": (
        {"X": X, "y": np.full(3, 2**63, np.uint64)},
        "'y' a target is 9223372036854775808",
    ),
    "NaN in the features": (
        {"X": np.where(X == 3, np.nan, X), "y": Y},
        r"'X' holds nan at \(1, 1\), expected finite",
    ),
    "infinity in the targets": (
        {"X": X, "y": np.array([0, -np.inf, 1])},
        r"'y' holds -inf at \(1,\), expected",
    ),
    "a number beyond float64": (
        {"X": np.full((3, 1), np.longdouble("1e4000")), "y": Y},
        r"'X' holds inf at \(0, 0\)",
    ),
    "test examples of other features": (
        {"X": X, "y": Y, "X_test": X[:, :1], "y_test": Y},
        "the training examples have 2 features and the test examples 1",
    ),
    "test targets of another kind": (
        {"X": X, "y": Y, "X_test": X, "y_test": np.array(["a", "b", "c"])},
        r"the training targets are int64 of shape \(3,\) and the test targets <U1",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), REFUSED.values(), ids=REFUSED)
def test_an_archive_is_refused_for(read, arrays, message):
    with pytest.raises(FormatError, match=message):
        read(**arrays)


@pytest.mark.parametrize("names", [("Z", "y"), ("X", "Z"), ("Z",), (None, "Z")])
def test_a_name_that_is_not_in_the_archive_is_refused_with_those_that_are(read, names):
    with pytest.raises(UnknownNameError, match=r"unknown array in .*arrays\.npz 'Z'.*Known: X, y"):
        read(*names, X=X, y=Y)


GOOD = zipped({"X.npy": npy(X), "y.npy": npy(Y)})
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
DAMAGED = {
    "an empty file": (b"", "is not a zip archive, or a damaged one"),
    "a lone array": (npy(X), "is not a zip archive"),
    "a pickle": (b"\x80\x04K\x01.", "is not a zip archive"),
    "a cut archive": (GOOD[:-30], "is not a zip archive, or a damaged one"),
    "a wrong checksum": (GOOD.replace(npy(Y)[-8:], b"", 0)[:200] + b"\xff\xff" + GOOD[202:], "arrays.npz: "),
    "a member that is no array": (zipped({"X.npy": b"hello", "y.npy": npy(Y)}), "'X' has a damaged header"),
    "an unknown version": (
        zipped({"X.npy": npy(X).replace(b"Y\x01", b"Y\x09"), "y.npy": npy(Y)}),
        "damaged header",
    ),
    "a header of no dictionary": (
        zipped({"X.npy": npy_with_header("((((", b""), "y.npy": npy(Y)}),
        "'X' has a damaged header",
    ),
    "a shape below zero": (
        zipped({"X.npy": npy_with_header(HEADER.replace("3", "-3"), b""), "y.npy": npy(Y)}),
        "announces a shape of 2 axes that no array can have",
    ),
    "a shape beyond memory": (
        zipped({"X.npy": npy_with_header(HEADER.replace("3", "9" * 20), b""), "y.npy": npy(Y)}),
        "announces a shape of 2 axes that no array can have",
    ),
    "terabytes announced": (
        zipped({"X.npy": npy_with_header(HEADER.replace("3", "9" * 12), bytes(99)), "y.npy": npy(Y)}),
        "'X' announces 7,999,999,999,992 bytes of elements, got 99",
    ),
    "a payload one byte long": (
        zipped({"X.npy": npy(X) + b"a", "y.npy": npy(Y)}),
        "'X' announces 24 bytes of elements, got more",
    ),
    "elements of no size": (
        zipped({"X.npy": npy_with_header(HEADER.replace("<f4", "<U0"), b""), "y.npy": npy(Y)}),
        "'X' holds <U0, expected numbers or text",
    ),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "arrays.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"arrays\.npz: .*{message}" if "npz" not in message else message):
        read_npz(path)


def test_a_header_of_the_second_version_is_read(tmp_path):
    path = tmp_path / "arrays.npz"
    path.write_bytes(
        zipped({"X.npy": npy_with_header(HEADER + "\n", X.tobytes(), version=2), "y.npy": npy(Y)})
    )
    np.testing.assert_array_equal(read_npz(path).train.X, X)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_members_packed_as_numpy_never_packs_them_are_refused(tmp_path, method):
    path = tmp_path / "arrays.npz"
    path.write_bytes(zipped({"X.npy": npy(X), "y.npy": npy(Y)}, method))
    with pytest.raises(FormatError, match=rf"'X' is packed by method {method}, expected 0 or 8"):
        read_npz(path)


def test_a_long_word_on_one_side_does_not_widen_those_of_the_other(tmp_path):
    path = tmp_path / "words.npz"
    many, long = np.array(["a", "b"] * 1000), np.array(["c" * 20_000])
    np.savez(path, X=np.ones((2000, 1)), y=many, X_test=np.ones((1, 1)), y_test=long)
    tracemalloc.start()
    try:
        data = read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert data.classes == ("a", "b", "c" * 20_000)
    np.testing.assert_array_equal(data.train.y, np.arange(2000) % 2)
    np.testing.assert_array_equal(data.test.y, [2])


def test_no_memory_is_taken_for_what_a_member_unpacks_to_beyond_its_header(tmp_path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(zipped({"X.npy": npy(X) + bytes(2**26), "y.npy": npy(Y)}))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="got more"):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_running_out_of_memory_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "arrays.npz"
    path.write_bytes(GOOD)

    def exhausted(stream, count):
        raise MemoryError

    monkeypatch.setattr("gpunn.data.npz.read_at_most", exhausted)
    with pytest.raises(MemoryError):
        read_npz(path)


def test_a_missing_file_is_the_plain_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere.npz")


def mutated(content: bytes, seed: int, first: int, last: int) -> bytes:
    chance = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(first, min(last, len(damaged)))
        piece = chance.choice([b"", b"\xff", b"\0\0", b"(", b"9", chance.randbytes(chance.randint(1, 8))])
        damaged[start : start + chance.choice([0, 1, len(piece), len(piece), 10])] = piece
    return bytes(damaged)


def read_or_refuse(path: Path) -> Dataset | FormatError:
    try:
        return read_npz(path)
    except FormatError as error:
        return error


MUTATIONS = {
    "the archive": lambda seed: mutated(GOOD, seed, 0, 10**9),
    "the archive's directory": lambda seed: mutated(GOOD, seed, len(GOOD) - 110, 10**9),
    "the stored archive": lambda seed: mutated(
        zipped({"X.npy": npy(X), "y.npy": npy(Y)}, zipfile.ZIP_STORED), seed, 0, 10**9
    ),
    "an array's header": lambda seed: zipped({"X.npy": mutated(npy(X), seed, 0, 70), "y.npy": npy(Y)}),
    "an array of text": lambda seed: zipped(
        {"X.npy": npy(X), "y.npy": mutated(npy(np.array(["a", "bc", "d"])), seed, 0, 10**9)}
    ),
}


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mutation_gives_finite_numbers_or_a_format_error_in(tmp_path, mutate, seed):
    path = tmp_path / "arrays.npz"
    path.write_bytes(mutate(seed))
    result = read_or_refuse(path)
    if isinstance(result, FormatError):
        assert "arrays.npz: " in str(result)
    else:
        assert np.isfinite(result.train.X).all()
        assert len(result.train.X) == len(result.train.y) >= 1
