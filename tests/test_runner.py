"""What a runner promises: no allocation while it runs, shared Θ between variants, clear errors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import gpunn
from gpunn.losses import LOSSES, loss_named
from gpunn.metrics import metrics_named
from gpunn.variants import Model, Targets, evaluation, prediction, training

LAYERS = (gpunn.Dense(64, activation="sigmoid"), gpunn.Dense(64, activation="relu"), gpunn.Dense(32))
OPTIMIZERS = {
    "sgd": gpunn.SGD(l2=0.1),
    "momentum": gpunn.SGD(momentum=0.9, l2=0.1),
    "adam": gpunn.Adam(l2=0.1),
}


def loaded(backend, program, rows=1024, targets=None, memory=None):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 32, rows)
    runner = backend.load(program, {} if memory is None else memory)
    runner.bind(
        X=rng.random((rows, 128), dtype=np.float32),
        T=labels if targets and targets.labels else np.eye(32, dtype=np.float32)[labels],
        weights=rng.random(rows, dtype=np.float32),
        perm=rng.permutation(rows),
    )
    return runner


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_the_numpy_runner_allocates_nothing_of_a_slots_size(loss, weighted, optimizer):
    targets = Targets(loss == "cross_entropy", weighted)
    program = training(
        Model(LAYERS, (128,), "float32"),
        loss_named(loss),
        OPTIMIZERS[optimizer],
        2048,
        metrics=metrics_named(["accuracy"]),
        targets=targets,
    )
    runner = loaded(gpunn.device.backend_for("numpy"), program, rows=4 * 2048, targets=targets)
    runner.run(1)
    tracemalloc.start()
    runner.run(3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    smallest_slot_of_a_batch = 2048 * 32 * 4
    buffers_numpy_casts_through = 2 * 8192 * 8
    assert peak < buffers_numpy_casts_through + 4096 < smallest_slot_of_a_batch


def test_variants_of_a_network_share_theta_and_have_workspaces_of_their_own(backend):
    model = Model(LAYERS, (128,), "float32")
    memory = {}
    train = loaded(backend, training(model, loss_named("mse"), gpunn.SGD(lr=0.1), 256), memory=memory)
    part = loaded(backend, training(model, loss_named("mse"), gpunn.SGD(lr=0.1), 7), memory=memory)
    part.write("theta", 0.0)
    part.write("t", 0.5)
    train.write("theta", 0.01)
    train.write("layers.0.weights", 0.02)
    train.write("t", 0.25)
    assert part.read("theta").min() == np.float32(0.01)
    np.testing.assert_array_equal(part.read("layers.0.weights"), np.float32(0.02))
    np.testing.assert_array_equal(part.read("t"), np.float32(0.5))


def test_a_cursor_is_shared_by_the_full_and_the_partial_batch(backend):
    model = Model(LAYERS, (128,), "float32")
    memory = {}
    full = loaded(backend, training(model, loss_named("mse"), gpunn.SGD(), 500), memory=memory)
    part = loaded(backend, training(model, loss_named("mse"), gpunn.SGD(), 24), memory=memory)
    full.run(2)
    part.run(1)
    assert (int(part.read("cursor")[0]), int(part.read("step")[0])) == (1024, 3)


def test_a_memory_of_another_network_is_refused(backend):
    memory = {}
    backend.load(prediction(Model(LAYERS, (128,), "float32"), 2), memory)
    with pytest.raises(gpunn.ShapeError, match="another network"):
        backend.load(prediction(Model(LAYERS, (129,), "float32"), 2), memory)


def test_data_have_to_be_bound_before_a_run(backend):
    program = evaluation(Model(LAYERS, (128,), "float32"), loss_named("mse"), 4)
    runner = backend.load(program, {})
    with pytest.raises(gpunn.ProgramError, match="bind"):
        runner.run(1)
    with pytest.raises(gpunn.ProgramError, match="bind"):
        runner.step_op(0)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((5, 127), np.float32),
        np.zeros((5, 128), np.float64),
        np.zeros((128, 5), np.float32).T,
        np.zeros(128, np.float32),
    ],
    ids=["shape", "dtype", "layout", "dimensions"],
)
def test_data_that_do_not_fit_a_slot_are_refused(backend, wrong):
    runner = backend.load(evaluation(Model(LAYERS, (128,), "float32"), loss_named("mse"), 4), {})
    with pytest.raises(gpunn.ShapeError, match="data slot 'X' takes a contiguous float32 array"):
        runner.bind(X=wrong)


@pytest.mark.parametrize("name", ["nothing.cu", "../errors.py", "__init__.py"])
def test_a_kernel_source_that_is_not_there_is_named(name):
    import gpunn.kernels

    with pytest.raises(FileNotFoundError, match=r"gpunn\.kernels; there is:"):
        gpunn.kernels.source(name)
