"""Data sets by name and by file: the sides they give, where MNIST is looked for, what is refused."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gpunn.data
from gpunn.data import datasets, load, load_digit_traits, load_digits, load_mnist, write_idx
from gpunn.errors import ArgumentError, DataError, FormatError, UnknownNameError

FILES = list(datasets._MNIST_FILES)

needs_mnist = pytest.mark.skipif(
    not os.environ.get("GPUNN_DATA"), reason="GPUNN_DATA names no folder with the files of MNIST"
)


def test_everything_public_is_exported():
    assert all(hasattr(gpunn.data, name) for name in gpunn.data.__all__)
    assert gpunn.data.__all__ == sorted(gpunn.data.__all__)


def test_digits_are_divided_evenly_and_scaled():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    digits = load_digits()
    assert (digits.train.X.shape, digits.test.X.shape) == ((1437, 64), (360, 64))
    assert (digits.train.X.dtype, digits.train.y.dtype) == (np.float32, np.int64)
    assert (digits.train.X.min(), digits.train.X.max()) == (0.0, 1.0)
    assert digits.validation is None
    assert digits.classes == digits.test.classes == tuple("0123456789")
    shares = np.bincount(digits.test.y) / np.bincount(np.concatenate([digits.train.y, digits.test.y]))
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_digits_are_the_ones_of_scikit_learn():
    bundled = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    pixels, labels = bundled.load_digits(return_X_y=True)
    everything = load_digits(test_fraction=0)
    assert everything.test is None
    np.testing.assert_array_equal(everything.train.X, pixels / 16)
    np.testing.assert_array_equal(everything.train.y, labels)


def test_the_traits_are_answers_about_the_same_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    digits, traits = load_digits(0.3, 5), load_digit_traits(0.3, 5)
    assert traits.name == "digit-traits"
    assert traits.classes is traits.train.classes is traits.validation is None
    names = ("even", "prime", "five or more", "with a hole")
    assert traits.target_names == traits.train.target_names == traits.test.target_names == names
    for asked, known in ((traits.train, digits.train), (traits.test, digits.test)):
        assert asked.name == known.name
        np.testing.assert_array_equal(asked.X, known.X)
        assert (asked.y.dtype, asked.y.shape) == (np.float32, (len(known), 4))
        answers = [
            [digit % 2 == 0, digit in (2, 3, 5, 7), digit >= 5, digit in (0, 6, 8, 9)] for digit in known.y
        ]
        np.testing.assert_array_equal(asked.y, answers)


def test_the_traits_are_held_out_by_digit():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    traits = load_digit_traits()
    assert (len(traits.train), len(traits.test)) == (1437, 360)
    np.testing.assert_allclose(traits.train.y.mean(axis=0), traits.test.y.mean(axis=0), atol=0.01)
    whole = load_digit_traits(test_fraction=0)
    assert whole.test is None
    assert len(whole.train) == 1797


def test_load_knows_the_traits_by_name():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    first, again = load("Digit-Traits", seed=3, test_fraction=0.5), load_digit_traits(0.5, 3)
    np.testing.assert_array_equal(first.test.X, again.test.X)
    np.testing.assert_array_equal(first.test.y, again.test.y)


def test_most_fours_are_open_and_most_zeros_are_not():
    """What the trait "with a hole" says of 4: its background is in one piece, as few zeros' is."""
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy counts the pieces")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    digits = load_digits(test_fraction=0).train

    def closed(digit):
        images = np.pad(digits.X[digits.y == digit].reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
        return np.mean([ndimage.label(image < 0.3, np.ones((3, 3)))[1] > 1 for image in images])

    assert closed(4) < 0.25
    assert closed(0) > 0.75


@pytest.mark.parametrize("name", ["digits", "digit-traits"])
def test_digits_without_scikit_learn_name_the_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install scikit-learn"):
        load(name)


@pytest.mark.parametrize("name", ["digits", "Digits"])
def test_load_knows_the_digits_by_name(name):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    first, again = load(name, seed=3, test_fraction=0.5), load_digits(0.5, 3)
    np.testing.assert_array_equal(first.test.X, again.test.X)
    assert len(first.test) == 899


@needs_mnist
def test_mnist_has_the_sides_of_the_book():
    mnist = load("MNIST")
    sides = [mnist.train, mnist.validation, mnist.test]
    assert [side.X.shape for side in sides] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert [side.name for side in sides] == ["train", "validation", "test"]
    assert {(side.X.dtype.name, side.y.dtype.name) for side in sides} == {("float32", "int64")}
    assert (mnist.train.X.min(), mnist.train.X.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(mnist.train.y[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    np.testing.assert_array_equal(mnist.test.y[:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
    np.testing.assert_array_equal(
        np.bincount(mnist.test.y), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )


@needs_mnist
def test_mnist_can_be_had_whole_with_its_well_known_mean_and_deviation():
    mnist = load_mnist("full")
    assert mnist.validation is None
    assert mnist.train.X.shape == (60_000, 784)
    assert round(float(mnist.train.X.mean(dtype=np.float64)), 4) == 0.1307
    assert round(float(mnist.train.X.std(dtype=np.float64)), 4) == 0.3081


def test_an_unknown_split_of_mnist_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown MNIST split 'bok': did you mean 'book'"):
        load_mnist("bok")


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory):
    """Four files of MNIST's names and shapes: image i is blank but for pixel i mod 784, label i mod 10."""
    folder = tmp_path_factory.mktemp("look-alike")
    for side, n in [("train", 60_000), ("t10k", 10_000)]:
        images = np.zeros((n, 784), np.uint8)
        images[np.arange(n), np.arange(n) % 784] = 255
        packed = gzip.compress(
            bytes([0, 0, 8, 3, 0, 0, n >> 8, n & 255, 0, 0, 0, 28, 0, 0, 0, 28]) + images.tobytes(), 1
        )
        (folder / f"{side}-images-idx3-ubyte.gz").write_bytes(packed)
        write_idx(folder / f"{side}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no folder in GPUNN_DATA and no mirror."""
    monkeypatch.setattr(datasets, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", ())
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "mnist"


def linked(source: Path, folder: Path, *, plain: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name in FILES:
        if plain:
            (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress((source / name).read_bytes()))
        else:
            (folder / name).symlink_to(source / name)
    return folder


@pytest.mark.parametrize("plain", [False, True], ids=["gzip", "plain"])
@pytest.mark.parametrize("inside", ["", "mnist"], ids=["the folder itself", "its subfolder"])
def test_mnist_is_found_where_gpunn_data_says(look_alike, cache, tmp_path, monkeypatch, inside, plain):
    linked(look_alike, tmp_path / "data" / inside, plain=plain)
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    mnist = load_mnist()
    np.testing.assert_array_equal(mnist.validation.X.argmax(axis=1), np.arange(50_000, 60_000) % 784)
    np.testing.assert_array_equal(mnist.train.y, np.arange(50_000) % 10)
    assert mnist.train.X.sum() == 50_000


def test_mnist_is_found_in_the_cache_where_gpunn_data_lacks_a_file(look_alike, cache, tmp_path, monkeypatch):
    linked(look_alike, cache)
    (linked(look_alike, tmp_path / "data") / FILES[3]).unlink()
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    assert len(load_mnist().test) == 10_000


def test_mnist_that_is_nowhere_names_the_folders_the_files_and_the_variable(cache, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-labels-idx1-ubyte").touch()
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        load("mnist")
    message = str(caught.value)
    assert f"{tmp_path / 'data'} (without {FILES[0]}, {FILES[2]}, {FILES[3]})" in message
    assert f"{tmp_path / 'data' / 'mnist'} (no such folder)" in message
    assert f"{cache} (no such folder)" in message
    assert f"expected the four files {', '.join(FILES)}" in message
    assert "environment variable GPUNN_DATA" in message


def test_mnist_that_cannot_be_downloaded_without_pooch_names_the_extra(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"MNIST is not here: .*pip install pooch"):
        load_mnist()


WRONG = {
    "images of another size": (
        0,
        np.zeros((60_000, 2, 2), np.uint8),
        r"expected uint8 of shape \(60000, 28, 28\)",
    ),
    "too few labels": (1, np.zeros(59_999, np.uint8), r"uint8 of shape \(59999,\), expected .* \(60000,\)"),
    "labels of another type": (
        3,
        np.zeros(10_000, np.int32),
        r"holds int32 of shape \(10000,\), expected uint8",
    ),
    "a label above 9": (3, np.arange(10_000) // 999, "label 9990 is 10, expected digits 0 to 9"),
}


@pytest.mark.parametrize(("which", "array", "message"), WRONG.values(), ids=WRONG)
def test_a_file_of_mnist_is_refused_for(look_alike, cache, tmp_path, monkeypatch, which, array, message):
    folder = linked(look_alike, tmp_path / "data")
    (folder / FILES[which]).unlink()
    write_idx(folder / FILES[which], array.astype(np.uint8) if array.dtype == np.int64 else array)
    monkeypatch.setenv("GPUNN_DATA", str(folder))
    with pytest.raises(FormatError, match=f"{FILES[which]}: .*{message}"):
        load_mnist()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(look_alike, cache, monkeypatch):
    """A server that offers the look-alike files, whose checksums are made the expected ones."""
    pytest.importorskip("pooch", reason="pooch downloads the files")
    digests = {name: hashlib.sha256((look_alike / name).read_bytes()).hexdigest() for name in FILES}
    monkeypatch.setattr(datasets, "_MNIST_FILES", digests)
    handler = functools.partial(Quiet, directory=str(look_alike))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "before", [(), ("nowhere/",)], ids=["from the first mirror", "from the second mirror"]
)
def test_mnist_is_downloaded_once_into_the_cache(mirror, cache, monkeypatch, before):
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", (*(mirror + path for path in before), mirror))
    assert load_mnist().train.X.sum() == 50_000
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", ())
    assert load_mnist().train.X.sum() == 50_000


def test_a_download_with_another_checksum_is_refused_and_not_kept(mirror, cache, monkeypatch):
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", (mirror,))
    monkeypatch.setitem(datasets._MNIST_FILES, FILES[1], "0" * 64)
    with pytest.raises(DataError, match=rf"(?i)cannot be downloaded: {mirror}{FILES[1]}: .*hash.*0{{64}}"):
        load_mnist()
    assert [path.name for path in cache.iterdir()] == [FILES[0]]


def test_mirrors_that_cannot_be_reached_give_one_error_that_names_each(cache, monkeypatch):
    pytest.importorskip("pooch", reason="pooch downloads the files")
    mirrors = ("http://127.0.0.1:9/first/", "http://127.0.0.1:9/second/")
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", mirrors)
    with pytest.raises(DataError, match=f"{mirrors[0]}{FILES[0]}: .*{mirrors[1]}{FILES[0]}: .*GPUNN_DATA"):
        load_mnist()


def test_a_cache_that_cannot_be_written_is_named(mirror, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", (mirror,))
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match=r"cannot be downloaded: .*cache"):
        load_mnist()


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with_pooch = datasets._cache()
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert datasets._cache() == tmp_path / "gpunn"
    assert with_pooch.name == "gpunn" or sys.platform != "linux"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets._cache() == Path.home() / ".cache" / "gpunn"


TABLE = "a,b,kind\n" + "".join(f"{row},{row / 2},{'cat' if row % 2 else 'dog'}\n" for row in range(20))


@pytest.mark.parametrize("name", ["pets.csv", "pets.CSV", "pets.txt", "pets.tsv"])
def test_a_table_is_divided_into_the_same_sides_every_time(tmp_path, name):
    (tmp_path / name).write_text(TABLE.replace(",", "\t") if name.endswith("tsv") else TABLE)
    data, again = (
        load(tmp_path / name, test_fraction=0.3, seed=5),
        load(str(tmp_path / name), test_fraction=0.3, seed=5),
    )
    assert (len(data.train), len(data.test)) == (14, 6)
    np.testing.assert_array_equal(data.test.X, again.test.X)
    np.testing.assert_array_equal(np.bincount(data.test.y), [3, 3])
    assert data.classes == data.train.classes == data.test.classes == ("cat", "dog")
    assert (data.name, data.train.name, data.test.name) == ("pets", "train", "test")
    assert not set(data.train.X[:, 0]) & set(data.test.X[:, 0])


def test_a_tsv_has_tabs_even_where_commas_would_agree(tmp_path):
    (tmp_path / "words.tsv").write_text("1\ta,b\n2\tc,d\n")
    assert load(tmp_path / "words.tsv").classes == ("a,b", "c,d")


@pytest.mark.parametrize("target", ["b", 1])
def test_the_target_of_a_table_can_be_chosen(tmp_path, target):
    (tmp_path / "numbers.csv").write_text("a,b,c\n1,2.5,3\n4,5.5,6\n")
    data = load(tmp_path / "numbers.csv", target=target, test_fraction=0)
    np.testing.assert_array_equal(data.train.y, [2.5, 5.5])
    assert data.test is None


@pytest.mark.parametrize("name", ["arrays.npz", "ARRAYS.NPZ"])
def test_arrays_are_divided_unless_they_bring_a_test_side(tmp_path, name):
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    with open(tmp_path / name, "wb") as file:
        np.savez(file, X=X, y=y)
    assert len(load(tmp_path / name).test) == 2
    with open(tmp_path / name, "wb") as file:
        np.savez(file, X=X, y=y, X_test=X[:5], y_test=y[:5])
    assert len(load(tmp_path / name).test) == 5


@pytest.mark.parametrize("own_test_side", [False, True])
def test_validation_examples_come_out_of_the_training_side(tmp_path, own_test_side):
    X, y = np.arange(200.0).reshape(100, 2), np.arange(100) % 2
    test = {"X_test": -X[:5], "y_test": y[:5]} if own_test_side else {}
    np.savez(tmp_path / "arrays.npz", X=X, y=y, **test)
    plain = load(tmp_path / "arrays.npz", seed=3)
    data, again = (load(tmp_path / "arrays.npz", validation_fraction=0.25, seed=3) for _ in range(2))
    assert (plain.validation, data.validation.name, data.train.name) == (None, "validation", "train")
    np.testing.assert_array_equal(data.test.X, plain.test.X)
    np.testing.assert_array_equal(data.validation.X, again.validation.X)
    assert len(data.validation) == len(plain.train) // 4
    assert np.ptp(np.bincount(data.validation.y)) <= 1
    parts = np.concatenate([data.train.X, data.validation.X])[:, 0]
    np.testing.assert_array_equal(np.sort(parts), np.sort(plain.train.X[:, 0]))
    assert data.validation.classes == data.classes == ("0", "1")


def test_the_traits_are_validated_on_the_digits_of_the_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    digits, traits = (load(name, validation_fraction=0.1) for name in ("digits", "digit-traits"))
    np.testing.assert_array_equal(digits.validation.X, traits.validation.X)
    assert traits.validation.target_names == traits.target_names
    assert traits.validation.y.shape == (144, 4)


def test_several_columns_of_a_table_stay_together_on_every_side(tmp_path):
    rows = "".join(f"{i},{2 * i},{3 * i}.5\n" for i in range(20))
    (tmp_path / "table.csv").write_text("a,b,c\n" + rows)
    data = load(tmp_path / "table.csv", target=["c", "b"], test_fraction=0.25, validation_fraction=0.2)
    for side, count in ((data.train, 12), (data.validation, 3), (data.test, 5)):
        assert (len(side), side.target_names) == (count, ("c", "b"))
        np.testing.assert_array_equal(side.y, np.column_stack([3 * side.X[:, 0] + 0.5, 2 * side.X[:, 0]]))


def test_the_target_of_arrays_can_be_chosen(tmp_path):
    np.savez(tmp_path / "arrays.npz", X=np.ones((4, 2)), y=np.zeros(4), other=np.ones(4))
    assert load(tmp_path / "arrays.npz", target="other", test_fraction=0).train.y.sum() == 4


REFUSED = {
    "a name like another": (
        ("minst",),
        {},
        UnknownNameError,
        "unknown data set 'minst': did you mean 'mnist'",
    ),
    "a name like no other": (("zzz",), {}, UnknownNameError, "'zzz'. Known: digit-traits, digits, mnist"),
    "a file that is not there": (("nowhere.csv",), {}, DataError, r"no file 'nowhere\.csv' \(looked in /"),
    "another suffix": (
        ("a.parquet",),
        {},
        DataError,
        r"ends in '\.parquet', expected .* \.csv, \.tsv, \.txt, \.npz",
    ),
    "a path without a suffix": ((os.path.join("a", "b"),), {}, DataError, "ends in 'no suffix'"),
    "a target for the digits": (("digits",), {"target": "y"}, ArgumentError, "'digits' has its own"),
    "an index into arrays": (
        ("arrays.npz",),
        {"target": 0},
        ArgumentError,
        "expected the name of an array in",
    ),
    "several names of arrays": (
        ("arrays.npz",),
        {"target": ["y", "z"]},
        ArgumentError,
        r"the name of an array in .*: an array \(n, t\) holds t targets",
    ),
    "a validation fraction of 1": (
        ("digits",),
        {"validation_fraction": 1},
        ArgumentError,
        "validation_fraction is 1, expected from 0 to below 1",
    ),
    "a fraction below 0": (("digits",), {"test_fraction": -0.1}, ArgumentError, "test_fraction is -0.1"),
    "a fraction of 1": (("digits",), {"test_fraction": 1.0}, ArgumentError, "expected from 0 to below 1"),
}


@pytest.mark.parametrize(("arguments", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_load_is_refused_for(tmp_path, monkeypatch, arguments, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arrays.npz").touch()
    with pytest.raises(error, match=message):
        load(*arguments, **options)


def test_one_row_cannot_be_divided_but_can_be_kept_whole(tmp_path):
    (tmp_path / "one.csv").write_text("1,2,0\n")
    with pytest.raises(DataError, match="bring more, or hold nothing out"):
        load(tmp_path / "one.csv")
    assert len(load(tmp_path / "one.csv", test_fraction=0).train) == 1
