"""Arrays on disk as X and y: the same results as in memory, without ever being in memory whole."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import gpunn
from gpunn.backends.numpy import NumpyBackend
from gpunn.batches import prepare
from gpunn.errors import ArgumentError, DataError, ShapeError
from gpunn.losses import LOSSES

N, N_IN, N_OUT = 300, 6, 3
rng = np.random.default_rng(7)
PIXELS = rng.integers(0, 256, (N, N_IN)).astype(np.uint8)
LABELS = rng.integers(0, N_OUT, N)
ROWS = rng.random((N, N_OUT))
DTYPES = ["uint8", "int16", "int64", "float16", "float32", "float64", ">f4", "bool"]


@pytest.fixture
def mapped(tmp_path):
    """An array as a read-only memory map."""

    def write(array, name="array"):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    return write


@pytest.fixture
def build(device):
    layers = [gpunn.Dense(5, activation="tanh"), gpunn.Dense(N_OUT)]
    return lambda **kwargs: gpunn.Sequential(
        layers, **{"input_shape": N_IN, "device": device, "seed": 0} | kwargs
    )


def put_on_numpy(net, X, y, loss="cross_entropy"):
    return prepare(NumpyBackend(), net.model, LOSSES[loss], net.outputs, X, y)


# ------------------------------------------------------------------ the same results


@pytest.mark.parametrize("own", ["float32", "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_map_of_any_dtype_trains_as_its_array(build, mapped, dtype, own):
    array = PIXELS.astype(dtype)
    on_disk, in_memory = build(dtype=own), build(dtype=own)
    for net, X in ((on_disk, mapped(array)), (in_memory, array)):
        how = {"loss": "cross_entropy", "epochs": 2, "batch_size": 32, "metrics": ("accuracy",), "verbose": 0}
        net.fit(X, LABELS, validation_data=(X, LABELS), optimizer=gpunn.SGD(lr=1e-3), **how)
    assert on_disk.theta.tobytes() == in_memory.theta.tobytes()
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert on_disk.history.records[-1][key] == in_memory.history.records[-1][key]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_map_of_any_dtype_is_used_as_its_array(build, mapped, dtype):
    net, array = build(), PIXELS.astype(dtype)
    X = mapped(array)
    np.testing.assert_array_equal(net.predict(X, batch_size=64), net.predict(array, batch_size=64))
    assert net.predict(X[:0]).shape == (0, N_OUT)
    assert net.evaluate(X, LABELS, loss="cross_entropy") == net.evaluate(array, LABELS, loss="cross_entropy")
    for method in ("gradients", "errors"):
        found, wanted = (getattr(net, method)(each, LABELS, loss="cross_entropy") for each in (X, array))
        for key in wanted:
            np.testing.assert_array_equal(found[key], wanted[key])
    np.testing.assert_array_equal(net.jacobian(X[:3]), net.jacobian(array[:3]))
    losses = [
        float(gpunn.Trainer(build(), loss="cross_entropy").step(each[:9], LABELS[:9])) for each in (X, array)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "uint64", ">i4"])
@pytest.mark.parametrize("loss", ["cross_entropy", "quadratic"])
def test_labels_on_disk_are_labels(build, mapped, dtype, loss):
    on_disk, in_memory = build(), build()
    for net, y in ((on_disk, mapped(LABELS.astype(dtype))), (in_memory, LABELS)):
        net.fit(PIXELS, y, loss=loss, class_weight="balanced", verbose=0, metrics=("accuracy",))
    assert on_disk.theta.tobytes() == in_memory.theta.tobytes()
    assert on_disk.history.records[0]["accuracy"] == in_memory.history.records[0]["accuracy"]


def test_booleans_on_disk_are_labels(device, mapped):
    y = LABELS > 0
    nets = [gpunn.Sequential([gpunn.Dense(2)], N_IN, device=device, seed=0) for _ in range(2)]
    for net, given in zip(nets, (mapped(y), y.astype(int)), strict=True):
        net.fit(PIXELS, given, loss="cross_entropy", class_weight={0: 2.0, 1: 0.5}, verbose=0)
    assert nets[0].theta.tobytes() == nets[1].theta.tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_rows_of_targets_on_disk_are_targets(build, mapped, dtype):
    rows = (ROWS * 3).astype(dtype)
    weights = mapped(rng.random(N).astype(np.float16), "weights")
    on_disk, in_memory = build(), build()
    for net, y in ((on_disk, mapped(rows)), (in_memory, rows)):
        net.fit(PIXELS, y, loss="mse", sample_weight=weights, verbose=0)
    assert on_disk.theta.tobytes() == in_memory.theta.tobytes()


def test_a_column_of_numbers_on_disk_is_a_target(device, mapped):
    nets = [gpunn.Sequential([gpunn.Dense(1)], N_IN, device=device, seed=0) for _ in range(2)]
    for net, y in zip(nets, (mapped(ROWS[:, 0]), ROWS[:, 0]), strict=True):
        net.fit(PIXELS / 255, y, loss="mse", verbose=0)
    assert nets[0].theta.tobytes() == nets[1].theta.tobytes()


def test_a_stopped_epoch_goes_on_with_the_same_data_from_elsewhere(build, mapped):
    trainer, whole = (gpunn.Trainer(build(), loss="cross_entropy", batch_size=32) for _ in range(2))
    trainer.epoch(mapped(PIXELS), mapped(LABELS.astype(np.uint8), "y"), steps=3)
    trainer.epoch(PIXELS, LABELS)
    whole.epoch(PIXELS, LABELS)
    assert trainer.network.theta.tobytes() == whole.network.theta.tobytes()


# ------------------------------------------------------------------ without a copy


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_map_stays_where_it_is(build, mapped, dtype):
    X, y = mapped(PIXELS.astype(dtype)), mapped(LABELS.astype(np.uint8), "y")
    batches = put_on_numpy(build(), X, y)
    assert np.shares_memory(batches.data["X"], X)
    assert np.shares_memory(batches.data["T"], y)
    part = put_on_numpy(build(), X[100:200], y[100:200])
    assert np.shares_memory(part.data["X"], X)


@pytest.mark.parametrize(
    "made",
    [
        lambda mapped: mapped(np.asfortranarray(PIXELS)),
        lambda mapped: mapped(np.c_[PIXELS, PIXELS])[:, ::2],
    ],
    ids=["Fortran order", "every second column"],
)
def test_a_map_whose_rows_do_not_lie_together_is_converted(build, mapped, made):
    X = made(mapped)
    assert isinstance(X, np.memmap)
    batches = put_on_numpy(build(), X, LABELS)
    assert batches.data["X"].dtype == np.float32
    np.testing.assert_array_equal(batches.data["X"], X)


LARGE = """
    import sys, tracemalloc
    import numpy as np, gpunn

    X = np.load(sys.argv[1], mmap_mode="r")
    y = np.load(sys.argv[2], mmap_mode="r")
    net = gpunn.Sequential([gpunn.Dense(2)], X.shape[1], device="numpy", seed=0)
    tracemalloc.start()
    net.fit(X, y, loss="cross_entropy", batch_size=1000, verbose=0, validation_data=(X, y))
    net.evaluate(X, y)
    assert net.predict(X).shape == (len(X), 2)
    print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize(("dtype", "width"), [("uint8", 1000), ("float64", 125), ("float32", 250)])
def test_a_large_file_is_never_in_memory_whole(tmp_path, dtype, width):
    count = 200_000
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", dtype, (count, width))
    X[:: count // 10, ::7] = 1  # the rest is a hole in the file
    np.save(tmp_path / "y.npy", (np.arange(count) % (count // 10) == 0).astype(np.uint8))
    del X
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE), tmp_path / "X.npy", tmp_path / "y.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The file has 200 MB, and as float32 up to 800 MB; a few batches have 4 MB each at most.
    assert int(done.stdout) < 40e6


# ------------------------------------------------------------------ what is refused


def refused_nan(net, call, X):
    if call == "step":
        float(gpunn.Trainer(net, loss="cross_entropy").step(X[200:], LABELS[200:]))
    else:
        options = {"verbose": 0} if call == "fit" else {}
        getattr(net, call)(X[200:], LABELS[200:], loss="cross_entropy", **options)


@pytest.mark.parametrize("call", ["fit", "evaluate", "gradients"])
@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float64", np.nan, "X holds nan at row 17, column 2 .*remove or fill"),
        ("float64", 1e39, r"X holds 1e\+39 at row 17, column 2 .*beyond float32"),
        ("float32", np.inf, "X holds inf at row 17, column 2"),
        ("float16", np.nan, "X holds nan at row 17, column 2"),
    ],
)
def test_values_that_are_not_finite_are_named(build, mapped, monkeypatch, call, dtype, value, message):
    monkeypatch.setattr(gpunn.arrays, "BLOCK", 30)
    array = PIXELS.astype(dtype)
    array[217, 2] = value
    array[280] = value
    with pytest.raises(DataError, match=message) as caught:
        refused_nan(build(), call, mapped(array))
    assert "7 such values in 2 rows" in str(caught.value)


@pytest.mark.parametrize(
    ("y", "loss", "message"),
    [
        (
            np.where(np.arange(N) == 211, 3, LABELS).astype(np.uint8),
            "cross_entropy",
            "the label 3 at row 211",
        ),
        (
            np.where(np.arange(N) == 211, -1, LABELS).astype(np.int8),
            "cross_entropy",
            "the label -1 at row 211",
        ),
        (
            np.where(np.arange(N) == 5, 2**63, LABELS).astype(np.uint64),
            "quadratic",
            "label 9223372036854775808",
        ),
        (np.where(np.arange(N)[:, None] == 211, -1, ROWS), "cross_entropy", "negative in row 211"),
    ],
)
def test_targets_out_of_range_are_named(build, mapped, monkeypatch, y, loss, message):
    monkeypatch.setattr(gpunn.arrays, "BLOCK", 30)
    with pytest.raises(DataError, match=message):
        build().fit(PIXELS, mapped(y), loss=loss, verbose=0)


def test_a_map_of_another_shape_is_refused(build, mapped):
    with pytest.raises(ShapeError, match=r"X has shape \(300, 5\)"):
        build().predict(mapped(PIXELS[:, :5]))


def test_words_on_disk_are_refused(build, mapped):
    with pytest.raises(DataError, match=r"X has dtype <U3 \(memmap\), expected numbers"):
        build().predict(mapped(PIXELS.astype(str)))


def test_the_runner_converts_only_maps_and_only_where_nothing_is_lost(mapped):
    net = gpunn.Sequential([gpunn.Dense(N_OUT)], N_IN, device="numpy")
    program = net.program(loss="cross_entropy", batch_size=10)
    runner = net.backend.load(program, {})
    runner.bind(X=mapped(PIXELS))
    for X in (PIXELS, PIXELS.astype(float), mapped(PIXELS + 1j)):
        with pytest.raises(ShapeError, match="data slot 'X' takes a contiguous float32 array"):
            runner.bind(X=X)
    with pytest.raises(ShapeError, match="data slot 'T' takes a contiguous int64 array"):
        runner.bind(T=mapped(LABELS.astype(np.float32), "T"))


def test_class_weights_of_labels_on_disk_are_checked(build, mapped):
    with pytest.raises(ArgumentError, match="names the label 7, expected 0 to 2"):
        build().fit(PIXELS, mapped(LABELS), loss="cross_entropy", class_weight={7: 1.0}, verbose=0)
