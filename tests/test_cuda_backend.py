"""Whole runs with device="cuda", on a GPU that the host stands in for: the same numbers as on the CPU."""

from __future__ import annotations

import gc
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from devices import PLACES, there
from fake_cuda import FakeCupy
from host_device import SMALL, fake_gpu, simulated_backend

import gpunn
from gpunn.backends.cuda.backend import CudaBackend
from gpunn.backends.cuda.cublaslt import WORKSPACE, Matmul
from gpunn.backends.cuda.gpu import Gpu
from gpunn.ops import OPS, register_op
from gpunn.program import Program
from gpunn.slots import Role

pytestmark = pytest.mark.cuda_host


def found_as(monkeypatch, backend):
    """Put a backend where device="cuda" looks for one."""
    name = f"cuda:{backend.gpu.number}, {backend.precision}"
    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: None)
    monkeypatch.setitem(gpunn.device._LOADED, name, backend)
    return backend


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a stand-in for a GPU there; its options, and those of the backend."""
    of_the_backend = ("eager", "precision", "resident")

    def put(**options):
        chosen = {key: options.pop(key) for key in of_the_backend if key in options}
        return found_as(monkeypatch, CudaBackend(fake_gpu(**options), limits=SMALL, **chosen))

    return put


@pytest.fixture(params=PLACES)
def place(request, stand_in, monkeypatch):
    """The same, and where there is a GPU that one; ``epilogues`` is whether cuBLASLt's may be used."""
    if request.param == "stand-in":
        return stand_in
    there("cuda")

    def put(epilogues=True, **options):
        backend = CudaBackend(Gpu(), **options)
        if not epilogues:
            monkeypatch.setattr(backend.gpu, "offers", lambda product: False)
        return found_as(monkeypatch, backend)

    return put


@pytest.fixture
def data(rng):
    return rng.standard_normal((53, 7)), rng.integers(0, 3, 53)


def network(device, layers=None, dtype="float64", **options):
    layers = layers or [
        gpunn.Dense(8, activation="relu"),
        gpunn.Dropout(0.2),
        gpunn.Dense(5, activation="gelu"),
        gpunn.Dense(3, activation="softmax"),
    ]
    return gpunn.Sequential(layers, 7, device=device, dtype=dtype, seed=3, **options)


RUNS = {
    "SGD": ("cross_entropy", gpunn.SGD(lr=0.5)),
    "SGD with l2": ("cross_entropy", gpunn.SGD(lr=0.5, l2=0.02)),
    "SGD with l1": ("cross_entropy", gpunn.SGD(lr=0.5, l1=0.02)),
    "SGD with decay and l2": ("quadratic", gpunn.SGD(lr=0.5, l2=0.02, weight_decay=0.1)),
    "clipped": ("quadratic", gpunn.SGD(lr=0.5, clip_norm=0.1)),
    "momentum": ("mse", gpunn.SGD(lr=0.1, momentum=0.9)),
    "Nesterov": ("mae", gpunn.SGD(lr=0.1, momentum=0.9, nesterov=True)),
    "Adam": ("cross_entropy", gpunn.Adam(lr=0.01)),
    "AdamW": ("huber", gpunn.AdamW(lr=0.01, weight_decay=0.1)),
    "RMSprop": ("cross_entropy", gpunn.RMSprop(lr=0.01)),
    "Adagrad": ("cross_entropy", gpunn.Adagrad(lr=0.1)),
    "a schedule": ("cross_entropy", gpunn.SGD(lr=0.5, schedule=gpunn.Warmup(1, gpunn.Cosine(4)))),
}


@pytest.mark.parametrize(
    ("described", "eager", "epilogues"),
    [
        *((described, False, True) for described in RUNS),
        ("SGD", True, True),
        ("SGD", False, False),
        ("Adam", True, False),
    ],
)
def test_a_run_is_that_of_the_cpu(place, data, described, eager, epilogues):
    """Partial batches, dropout, evaluation and metrics too."""
    place(eager=eager, epilogues=epilogues)
    loss, optimizer = RUNS[described]
    X, y = data
    if loss in ("mse", "mae", "huber"):
        y = np.eye(3)[y]
    nets = [network(device) for device in ("numpy", "cuda")]
    options = {"batch_size": 8, "epochs": 4, "validation_data": (X, y), "verbose": 0}
    if loss == "cross_entropy":
        options["metrics"] = ("accuracy",)
    theirs, ours = (net.fit(X, y, loss=loss, optimizer=optimizer, **options) for net in nets)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)
    assert list(ours.keys()) == list(theirs.keys())
    for key in set(ours.keys()) - {"seconds"}:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-10)


@pytest.mark.parametrize("epilogues", [True, False], ids=["epilogues", "no epilogues"])
def test_two_hundred_steps_are_those_of_the_four_equations(place, epilogues, rng):
    """Against backpropagation example by example, written without any code of gpunn."""
    place(epilogues=epilogues)
    layers = [gpunn.Dense(9, activation="sigmoid", weights="normal"), gpunn.Dense(4, activation="sigmoid")]
    net = network("cuda", layers)
    X, T = rng.standard_normal((40, 7)), rng.random((40, 4))
    told = net.to("numpy").parameters
    theirs = [oracle.Layer(told[f"layers.{i}.weights"], told[f"layers.{i}.bias"], "sigmoid") for i in (0, 1)]
    sgd = gpunn.SGD(lr=0.5)
    net.fit(X, T, loss="quadratic", optimizer=sgd, batch_size=10, epochs=50, shuffle=False, verbose=0)
    for step in range(200):
        rows = slice(step * 10 % 40, step * 10 % 40 + 10)
        _, gradients, _ = oracle.backpropagate(theirs, X[rows], T[rows], "quadratic")
        for layer, (weights, bias) in zip(theirs, gradients, strict=True):
            layer.W, layer.b = layer.W - 0.5 * weights, layer.b - 0.5 * bias
    expected = np.concatenate([part.ravel() for layer in theirs for part in (layer.W, layer.b)])
    assert np.linalg.norm(net.theta - expected) <= 1e-9 * np.linalg.norm(expected)


def test_a_weighted_run_is_that_of_the_cpu(place, data, rng):
    place()
    nets, weights = [network(device) for device in ("numpy", "cuda")], rng.random(53)
    options = {"loss": "cross_entropy", "batch_size": 8, "epochs": 3, "verbose": 0}
    ours, theirs = (net.fit(*data, sample_weight=weights, **options)["loss"] for net in nets)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("epilogues", [True, False], ids=["epilogues", "no epilogues"])
def test_a_run_with_generated_kernels_is_that_of_the_cpu(place, monkeypatch, epilogues):
    monkeypatch.setenv("GPUNN_CUDA_KERNELS", "numba")
    simulated_backend()
    place(epilogues=epilogues)
    X, y = np.linspace(-1, 1, 35).reshape(5, 7), np.arange(5) % 3
    layers = [gpunn.Dense(4, activation="silu"), gpunn.Dense(3), gpunn.Dense(3, activation="tanh")]
    nets = [network(device, layers) for device in ("numpy", "cuda")]
    for net in nets:
        net.fit(X, y, loss="quadratic", optimizer=gpunn.SGD(lr=0.5), batch_size=3, epochs=2, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------ the graph


def trained(net, X, y, epochs=3, **options):
    trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer=gpunn.SGD(lr=0.5), batch_size=8, **options)
    trainer.fit(X, y, epochs=epochs, verbose=0)
    return trainer


def graphs(trainer):
    """The launches of each graph, by its number of steps, of each runner."""
    runners = trainer._engine._runners.values()
    return [{steps: graph.launches for steps, graph in runner._graphs.items()} for runner in runners]


def test_every_step_but_the_first_replays_a_graph(stand_in, data):
    stand_in()
    assert graphs(trained(network("cuda"), *data)) == [{1: 3 * (53 // 8) - 1}, {1: 3 - 1}]


@pytest.mark.parametrize("stopped", [None, 3])
def test_many_steps_are_replayed_together(stand_in, data, monkeypatch, stopped):
    monkeypatch.setattr("gpunn.backends.cuda.runner.MANY", 4)
    monkeypatch.setattr("gpunn.training._next_chunk", lambda steps, seconds: 10 * steps)
    stand_in()
    nets = [network(device) for device in ("numpy", "cuda")]
    trainers = [trained(net, *data) for net in nets]
    for trainer in trainers:
        trainer.epoch(*data, steps=stopped)
        trainer.fit(*data, epochs=1, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)
    if stopped is None:  # 6 whole batches an epoch, of which the first step ever is launched call by call.
        assert graphs(trainers[1]) == [{4: 5, 1: 1 + 4 * 2}, {1: 5 - 1}]


def test_an_eager_backend_has_no_graph(stand_in, data):
    stand_in(eager=True)
    assert graphs(trained(network("cuda"), *data)) == [{}, {}]


def test_a_graph_follows_a_parameter_that_is_set(place, data):
    place()
    nets = [network(device) for device in ("numpy", "cuda")]
    for net in nets:
        trainer = trained(net, *data)
        net.parameters["layers.2.weights"] = np.full((5, 8), 0.1)
        net.theta = net.theta * 0.9
        trainer.fit(*data, epochs=2, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


def test_a_graph_follows_other_data(place, data, rng):
    place()
    others = rng.standard_normal((53, 7)), rng.integers(0, 3, 53)
    nets = [network(device) for device in ("numpy", "cuda")]
    for net in nets:
        trainer = trained(net, *data)
        trainer.fit(*others, epochs=2, verbose=0)
        trainer.fit(others[0][:30], others[1][:30], epochs=1, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


def test_a_graph_follows_the_learning_rate(place, data):
    place()
    nets = [network(device) for device in ("numpy", "cuda")]
    for net in nets:
        trainer = trained(net, *data)
        trainer.lr_scale = 0.1
        trainer.fit(*data, epochs=2, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


@pytest.fixture
def reads_the_host():
    """An op whose function for the GPU looks at a number on the host."""

    def halve(x, y):
        y[...] = x * (0.5 if float(x.get().max()) < 1e9 else 0.25)

    register_op(
        "halve", "x(*S) -> y(*S)", formula="{y} = {x}/2", source="a test", numpy=lambda x, y: None, cuda=halve
    )
    yield
    del OPS["halve"]


def test_an_op_that_cannot_be_captured_is_named_once_and_runs(place, reads_the_host):
    backend = place()
    program = Program("float64")
    x, y = (program.slot(name, (4,), Role.INPUT) for name in ("x", "y"))
    program.emit("halve", (x,), {"y": y}, label="layer 0 Halve")
    program.pin(x, y)
    runner = backend.load(program, {})
    runner.write("x", [1.0, 2.0, 3.0, 4.0])
    with pytest.warns(
        gpunn.GpunnWarning, match="op 'halve' cannot be part of a CUDA graph .* copy to the host"
    ):
        runner.run(3)
    runner.run(2)
    np.testing.assert_array_equal(runner.read("y"), [0.5, 1.0, 1.5, 2.0])


def test_an_op_that_allocates_is_not_captured_into_memory_of_others(place):
    def double(x, y):
        y[...] = x * 2.0

    backend = place()
    register_op(
        "double_",
        "x(*S) -> y(*S)",
        formula="{y} = 2 {x}",
        numpy=lambda x, y: None,
        cuda=double,
        source="a test",
    )
    try:
        program = Program("float64")
        x, y = (program.slot(name, (4,), Role.INPUT) for name in ("x", "y"))
        program.emit("double_", (x,), {"y": y}, label="layer 0 Double")
        program.pin(x, y)
        runner = backend.load(program, {})
        runner.write("x", [1.0, 2.0, 3.0, 4.0])
        with pytest.warns(gpunn.GpunnWarning, match="op 'double_' cannot be part of .*it allocates"):
            runner.run(5)
        np.testing.assert_array_equal(runner.read("y"), [2.0, 4.0, 6.0, 8.0])
    finally:
        del OPS["double_"]


def test_a_capture_that_fails_in_the_end_blames_no_op(stand_in, data, monkeypatch):
    backend = stand_in()
    end = type(backend.gpu.stream).end_capture

    def fails(stream):
        end(stream)
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(type(backend.gpu.stream), "end_capture", fails)
    net = network("cuda")
    with pytest.warns(
        gpunn.GpunnWarning, match=r"^training on batches of \d+ cannot be part of a CUDA graph"
    ):
        trained(net, *data)
    np.testing.assert_allclose(net.theta, trained(network("numpy"), *data).network.theta, rtol=1e-10)


def test_threads_take_turns_on_one_gpu(place, data):
    """One trains, and captures; the others upload, predict and download meanwhile."""
    place()
    quiet, net = network("cuda"), network("cuda")
    expected = quiet.predict(data[0])
    with ThreadPoolExecutor(4) as pool:
        training = pool.submit(trained, net, *data, epochs=5)
        found = list(pool.map(lambda _: quiet.predict(data[0]), range(20)))
        training.result()
    assert all(np.array_equal(each, expected) for each in found)
    assert net.theta.tobytes() == trained(network("cuda"), *data, epochs=5).network.theta.tobytes()


def test_a_process_that_was_forked_says_what_to_do(stand_in, monkeypatch):
    backend = stand_in()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(gpunn.DeviceError, match="forked from: start processes by 'spawn'"):
        backend.zeros((3,), "float32")


def test_an_op_without_a_kernel_for_a_gpu_is_refused(place):
    backend = place()
    register_op("third", "x(*S) -> y(*S)", formula="{y} = {x}/3", source="a test", numpy=lambda x, y: None)
    try:
        program = Program("float64")
        x, y = (program.slot(name, (4,), Role.INPUT) for name in ("x", "y"))
        program.emit("third", (x,), {"y": y})
        with pytest.raises(gpunn.ProgramError, match="the cuda backend has no kernel for op 'third'"):
            backend.load(program, {})
    finally:
        del OPS["third"]


# ------------------------------------------------------------------ products


@pytest.mark.parametrize("epilogue", ["", "bias", "relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 1, 1), (2, 3, 4), (5, 1, 7), (1, 6, 2)])
def test_a_product_is_that_of_row_major_matrices(
    place, rng, rows, columns, inner, transposed, dtype, epilogue
):
    gpu = place().gpu
    left, right = rng.standard_normal((rows, inner)), rng.standard_normal((inner, columns))
    out, bias, rates = rng.standard_normal((rows, columns)), rng.standard_normal(columns), [0.5, 0.25]
    given = [
        gpu.upload(values.astype(dtype))
        for values in (left.T if transposed[0] else left, right.T if transposed[1] else right, out, bias)
    ]
    # Both begin where 16 bytes do not: numbers side by side, as the runner has them.
    scales = gpu.upload(np.array(rates, dtype))
    plan = gpu.plan(Matmul(rows, columns, inner, dtype, *transposed, epilogue=epilogue), given[3])
    if plan is None and epilogue:
        pytest.skip(f"this cuBLASLt has no {epilogue} for {dtype}")
    gpu.run([gpu.multiply(plan, *given[:3], scales[:1], scales[1:])])
    expected = 0.5 * left @ right + 0.25 * out + (bias if epilogue else 0)
    expected = np.maximum(expected, 0) if epilogue == "relu" else expected
    rtol = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(gpu.download(given[2]), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("loses_nan", [False, True])
def test_relu_in_one_with_a_product_is_used_where_it_keeps_nan(stand_in, loses_nan):
    backend = stand_in(loses_nan=loses_nan)
    net = network("cuda", [gpunn.Dense(4, activation="relu")])
    X = np.zeros((3, 7))
    X[1, 2] = np.nan
    found = net.predict(X)
    assert np.isnan(found).any(axis=1).tolist() == [False, True, False]
    passes = [kernel.expression for kernel, *_ in backend.gpu._binders if "bias_activate" in str(kernel)]
    assert passes == (["bias_activate<double, sigma::relu>"] if loses_nan else [])


@pytest.mark.parametrize(("precision", "compute"), [("float32", 68), ("tf32", 77)])
def test_tensor_cores_round_only_where_they_are_asked_to(stand_in, data, precision, compute):
    backend = stand_in(precision=precision)
    net = network("cuda", dtype="float32", precision=precision)
    net.fit(*data, loss="cross_entropy", epochs=1, verbose=0)
    net.predict_proba(data[0])
    assert backend.gpu._lt._library.precisions == {compute}


def test_a_precision_of_float32_is_not_for_float64(place):
    place(precision="tf32")
    with pytest.raises(gpunn.ArgumentError, match="precision 'tf32' is for dtype 'float32'"):
        network("cuda", precision="tf32")


def test_tensor_cores_stay_where_a_network_goes(stand_in, data, tmp_path):
    stand_in(precision="tf32")
    stand_in()
    net = network("cuda", dtype="float32", precision="tf32")
    assert (net.to("cuda").precision, net.to("cpu").precision) == ("tf32", "float32")
    assert "precision='tf32'" in repr(net)
    trained(net, *data).save(tmp_path / "run.safetensors")
    assert gpunn.Trainer.load(tmp_path / "run.safetensors", "cuda", "tf32").network.precision == "tf32"
    assert gpunn.load(tmp_path / "run.safetensors", "cuda", precision="tf32").precision == "tf32"
    assert gpunn.load(tmp_path / "run.safetensors", "cuda").precision == "float32"


def test_plans_are_given_back(stand_in, data):
    backend = stand_in()
    net = network("cuda")
    net.fit(*data, loss="cross_entropy", epochs=2, verbose=0)
    del net
    gc.collect()
    assert list(backend.gpu._lt._library.objects.values()) == ["handle"]


# ------------------------------------------------------------------ memory


def test_a_batch_that_does_not_fit_says_which_would(stand_in, rng):
    stand_in(room=WORKSPACE + 4_000_000)
    net = network("cuda", [gpunn.Dense(1000, activation="tanh"), gpunn.Dense(2)])
    X, y = rng.standard_normal((400, 7)), rng.integers(0, 2, 400)
    told = r"training .*: 6 MiB do not fit into the memory of GPU 0, .*: batches of (\d+) would fit"
    with pytest.raises(gpunn.errors.DeviceMemoryError, match=told) as caught:
        net.fit(X, y, loss="cross_entropy", batch_size=400, verbose=0)
    batch_size = int(re.search(told, str(caught.value))[1])
    del caught  # It holds what had been allocated.
    gc.collect()
    history = net.fit(X[:batch_size], y[:batch_size], loss="cross_entropy", batch_size=batch_size, verbose=0)
    assert np.isfinite(history["loss"]).all()


def test_what_does_not_fit_says_how_large_it_is(stand_in):
    backend = stand_in(room=WORKSPACE + 400_000)
    with pytest.raises(
        gpunn.errors.DeviceMemoryError, match=r"1 MiB do not fit into the memory of GPU 0, of which 0"
    ):
        backend.zeros((20_000, 7), "float64")


def test_a_prediction_that_does_not_fit_says_so_too(stand_in, data):
    backend = stand_in(room=WORKSPACE + 600_000)
    net, X = network("cuda"), backend.gpu.upload(np.zeros((8000, 7)))
    with pytest.raises(gpunn.errors.DeviceMemoryError, match="do not fit into the memory of GPU 0"):
        net.predict(X)


@pytest.mark.parametrize("stage", [1, 100, 10_000])
def test_data_go_to_the_gpu_in_pieces(place, data, monkeypatch, stage):
    monkeypatch.setattr("gpunn.backends.cuda.gpu.STAGE", stage)
    gpu = place().gpu
    for array in (data[0], data[0].T, data[0][::-2], np.float64(3.0), np.zeros((0, 4)), np.zeros((4, 0))):
        for dtype in ("float32", "float64"):
            found = gpu.download(gpu.upload(np.asarray(array), dtype))
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, np.asarray(array, dtype))


def test_a_run_gives_its_memory_back(stand_in, data):
    backend = stand_in()
    before = backend.gpu.cupy.used
    net = network("cuda")
    trained(net, *data)
    del net
    gc.collect()
    assert backend.gpu.cupy.used - before <= WORKSPACE


# ------------------------------------------------------------------ files


def test_a_run_goes_on_from_a_file_with_the_same_bytes(place, data, tmp_path):
    place()
    straight, broken = (network("cuda") for _ in range(2))
    trained(straight, *data, epochs=4)
    trained(broken, *data, epochs=2).save(tmp_path / "run.safetensors")
    resumed = gpunn.Trainer.load(tmp_path / "run.safetensors", device="cuda")
    resumed.fit(*data, epochs=2, verbose=0)
    assert resumed.network.theta.tobytes() == straight.theta.tobytes()


def test_a_network_moves_to_a_gpu_and_back(place, data, tmp_path):
    place()
    net = network("cpu")
    there = net.to("cuda")
    np.testing.assert_array_equal(there.theta, net.theta)
    there.save(tmp_path / "net.safetensors")
    again = gpunn.load(tmp_path / "net.safetensors", device="cuda")
    np.testing.assert_allclose(again.predict(data[0]), net.predict(data[0]), rtol=1e-12)


# ------------------------------------------------------------------ arrays of other libraries


class Tensor:
    """An array of another library on a GPU, which says so by DLPack alone."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        return self.array


@pytest.mark.parametrize("hasty", [(), (0,), (1,)], ids=["late", "the user first", "the network first"])
def test_what_lies_on_the_gpu_is_predicted_there_in_the_streams_order(stand_in, data, hasty):
    backend = stand_in(hasty=hasty)
    cupy = backend.gpu.cupy
    net, X = network("cuda"), cupy.empty(data[0].shape)
    X[...] = data[0]  # Queued where the user computes.
    output = net.predict(X, batch_size=16)
    X[...] = np.nan
    assert type(output) is type(X)
    np.testing.assert_array_equal(output.get(), net.predict(data[0], batch_size=16))


def test_data_on_the_gpu_are_trained_on_without_a_copy(place, data):
    backend = place()
    X = backend.gpu.upload(data[0])
    there, here = (network("cuda") for _ in range(2))
    trainer = gpunn.Trainer(there, loss="cross_entropy", batch_size=8)
    assert trainer._batches(X, data[1], None, None).data["X"] is X
    for net, inputs, labels in ((there, X, backend.gpu.upload(data[1])), (here, *data)):
        net.fit(inputs, labels, loss="cross_entropy", batch_size=8, epochs=2, verbose=0)
    assert there.theta.tobytes() == here.theta.tobytes()


def test_what_says_by_dlpack_that_it_is_there_is_taken_on_the_networks_own_stream(stand_in, data):
    backend = stand_in()
    tensor = Tensor(backend.gpu.upload(data[0]))
    net = network("cuda")
    np.testing.assert_array_equal(net.predict(tensor).get(), net.predict(data[0]))
    assert tensor.streams == [backend.gpu.stream.ptr]


@pytest.mark.parametrize("hasty", [(), (0,), (1,)], ids=["late", "the user first", "the network first"])
def test_a_batch_on_the_gpu_may_be_written_anew_after_each_step(stand_in, data, hasty):
    cupy = stand_in(hasty=hasty).gpu.cupy
    nets = [network(device) for device in ("numpy", "cuda")]
    buffer = cupy.empty((8, 7))
    for net in nets:
        trainer = gpunn.Trainer(net, loss="cross_entropy", optimizer="adam", batch_size=8)
        for start in range(0, 40, 8):
            batch = data[0][start : start + 8]
            if net is nets[1]:
                buffer[...] = batch
            trainer.step(batch if net is nets[0] else buffer, data[1][start : start + 8])
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hasty", [(), (0,), (1,)], ids=["late", "the user first", "the network first"])
def test_a_window_of_the_parameters_takes_turns_with_the_network(stand_in, data, hasty):
    stand_in(hasty=hasty)
    net, key = network("cuda"), "layers.2.bias"
    net.parameters[key] = np.arange(5.0)
    window = net.parameters[key]
    assert window.tolist() == [0, 1, 2, 3, 4]
    window[...] = 7.0
    assert net.tensors()[key].tolist() == [7] * 5
    trained(net, *data, epochs=1)
    assert window.tolist() == net.tensors()[key].tolist() != [7] * 5
    trainer = gpunn.Trainer(net, loss="cross_entropy", batch_size=8)
    trainer.step(data[0][:8], data[1][:8])
    seen = window.tolist()
    assert seen == net.tensors()[key].tolist()


def test_parameters_are_set_from_arrays_on_the_gpu(place):
    place()
    net = network("cuda")
    net.parameters["layers.2.bias"] = np.ones(5)
    net.parameters["layers.2.bias"] = net.parameters["layers.2.bias"] * 0.0
    assert net.tensors()["layers.2.bias"].tolist() == [0.0] * 5
    theta = net.theta
    net.theta = net.backend.gpu.upload(theta * 2)
    np.testing.assert_array_equal(net.theta, theta * 2)
    with pytest.raises(gpunn.ShapeError, match=r"takes numbers of shape \(5,\), got float64 \(4,\)"):
        net.parameters["layers.2.bias"] = net.backend.gpu.upload(np.zeros(4))


def test_data_on_the_gpu_are_not_brought_to_the_host(stand_in, rng):
    cupy = stand_in().gpu.cupy
    X, y = cupy.asarray(rng.standard_normal((1000, 300))), rng.integers(0, 3, 1000)
    net = gpunn.Sequential([gpunn.Dense(3)], 300, device="cuda", dtype="float64", seed=3)
    trained(net, X, y, epochs=2).evaluate(X, y)
    assert cupy.downloaded < X.nbytes / 2


@pytest.mark.parametrize("call", ["predict", "evaluate", "gradients", "jacobian"])
def test_every_call_takes_what_lies_on_the_gpu(place, data, call):
    backend = place()
    net, (X, y) = network("cuda"), data
    arguments = (y,) if call in ("evaluate", "gradients") else ()
    options = {"loss": "cross_entropy"} if arguments else {}
    found, expected = (getattr(net, call)(x, *arguments, **options) for x in (backend.gpu.upload(X), X))
    if isinstance(expected, dict):
        assert {key: np.asarray(v).tolist() for key, v in found.items()} == {
            key: np.asarray(v).tolist() for key, v in expected.items()
        }
    else:
        np.testing.assert_array_equal(found.get() if call == "predict" else found, expected)


def test_numbers_of_another_dtype_are_converted_on_the_gpu(place, data):
    backend = place()
    X = backend.gpu.upload((data[0] * 100).astype("int32"))
    net = network("cuda", dtype="float32")
    np.testing.assert_array_equal(net.predict(X).get(), net.predict((data[0] * 100).astype("int32")))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 5)), r"X has shape \(3, 5\), the network takes \(n, 7\)"),
        (np.zeros((3, 7), "complex128"), "X has dtype complex128, expected numbers"),
        (np.zeros((0, 7)), "X is empty"),
    ],
)
def test_bad_data_on_the_gpu_are_refused(place, values, words):
    backend = place()
    with pytest.raises(gpunn.GpunnError, match=words):
        network("cuda").fit(backend.gpu.upload(values), np.zeros(len(values), int), loss="cross_entropy")


def test_nan_on_the_gpu_is_found_and_named(place, data):
    backend = place()
    X = data[0].copy()
    X[17, 2] = np.nan
    with pytest.raises(gpunn.DataError, match="X holds nan at row 17, column 2"):
        network("cuda").evaluate(backend.gpu.upload(X), data[1], loss="cross_entropy")


def test_data_on_another_gpu_are_refused(stand_in, data):
    backend = stand_in()
    X = backend.gpu.upload(data[0])
    X.number = 1
    with pytest.raises(gpunn.DataError, match=r"X lies on GPU 1, the network on GPU 0: .*net.to\('cuda:1'\)"):
        network("cuda").predict(X)


def test_a_network_on_the_cpu_says_how_to_bring_data_there(place, data):
    backend = place()
    with pytest.raises(gpunn.DataError, match=r"X lies on a GPU, and the network computes on the CPU"):
        network("cpu").predict(backend.gpu.upload(data[0]))


class Foreign:
    """An array of a library that has the older interface alone."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim


def test_an_array_of_another_gpu_is_refused_by_its_address(stand_in, data):
    backend = stand_in()
    X = backend.gpu.upload(data[0])
    backend.gpu.cupy.numbers[X.plain.ctypes.data] = 1
    with pytest.raises(gpunn.DataError, match="X lies on GPU 1, the network on GPU 0"):
        network("cuda").predict(Foreign(X))


# ------------------------------------------------------------------ a GPU that cannot be used


@pytest.mark.parametrize("fails", ["import", "driver", "cublaslt"])
def test_a_gpu_that_is_there_and_not_usable_says_what_to_look_at(monkeypatch, fails):
    class Broken(FakeCupy):
        def stream(self, non_blocking=False):
            raise RuntimeError("cudaErrorInsufficientDriver")

    modules = {"cupy": Broken() if fails == "driver" else FakeCupy()}
    if fails == "import":
        modules = {}

    def imported(name):
        if name not in modules:
            raise ImportError(f"no {name} here")
        return modules[name]

    monkeypatch.setattr("gpunn.device.why_not", lambda number=0: None)
    monkeypatch.setattr("gpunn.backends.cuda.gpu.why_not", lambda number=0: None)
    monkeypatch.setattr("gpunn.backends.cuda.gpu.import_module", imported)
    monkeypatch.setattr("gpunn.backends.cuda.cublaslt.import_module", imported)
    monkeypatch.setattr("gpunn.device._LOADED", {})
    words = {"import": "ImportError: no cupy", "driver": "InsufficientDriver", "cublaslt": "nvmath-python"}
    with pytest.raises(gpunn.DeviceError, match=f"{words[fails]}.*pip install") as caught:
        network("cuda")
    assert "gpunn[cuda13]" in str(caught.value)
    assert network("auto").backend.name == "numba"


# ------------------------------------------------------------------ several GPUs


@pytest.mark.parametrize("resident", [1.0, 0.0], ids=["there", "streamed"])
def test_a_second_gpu_is_the_one_that_works(stand_in, data, small_chunks, resident):
    """The stand-in refuses work on a stream of another GPU than the current one."""
    backend = stand_in(number=1, resident=resident)
    nets = [network(device) for device in ("numpy", "cuda:1")]
    for net in nets:
        trained(net, *data, metrics=("accuracy",)).evaluate(*data)
    assert nets[1].backend is backend
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)
    found = nets[1].predict(backend.gpu.upload(data[0]))
    np.testing.assert_allclose(found.get(), nets[0].predict(data[0]), rtol=1e-10)


# ------------------------------------------------------------------ data that stay on the host


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of some twenty examples."""
    monkeypatch.setattr("gpunn.backends.cuda.runner.CHUNK", 20 * 7 * 8)


@pytest.mark.parametrize("hasty", [(), (1,), (2,)], ids=["late", "work first", "copies first"])
@pytest.mark.parametrize(
    ("batch_size", "weighted", "eager"),
    [(8, True, False), (8, False, True), (20, False, False), (53, True, False)],
)
def test_data_that_are_streamed_give_the_same_bytes(
    place, data, rng, small_chunks, batch_size, eager, weighted, hasty
):
    weights = rng.random(53) if weighted else None
    thetas = []
    for resident in (1.0, 0.0):
        place(resident=resident, eager=eager, hasty=hasty)
        net = network("cuda")
        options = {"epochs": 3, "sample_weight": weights, "verbose": 0, "validation_data": data}
        history = net.fit(*data, loss="cross_entropy", batch_size=batch_size, **options)
        thetas.append((net.theta.tobytes(), history["loss"], history["val_loss"]))
    assert thetas[0] == thetas[1]


@pytest.mark.parametrize("kind", ["float64", "uint8"])
def test_a_memory_map_of_another_dtype_is_streamed(place, data, small_chunks, tmp_path, kind):
    np.save(tmp_path / "X.npy", (np.abs(data[0]) * 50).astype(kind))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    thetas = []
    for resident in (1.0, 0.0):
        place(resident=resident)
        net = network("cuda", dtype="float32")
        trainer = trained(net, X, data[1], epochs=2)
        rings = [bool(runner._rings) for runner in trainer._engine._runners.values()]
        assert rings == [not resident] * 2
        thetas.append(net.theta.tobytes())
    assert thetas[0] == thetas[1]


def test_streams_and_data_on_the_gpu_take_turns(place, data, small_chunks):
    backend = place(resident=0.0)
    nets = [network(device) for device in ("numpy", "cuda")]
    for net in nets:
        trainer = trained(net, *data)
        backend.resident = 1.0
        trainer.fit(*data, epochs=1, verbose=0)
        backend.resident = 0.0
        trainer.fit(data[0][:31], data[1][:31], epochs=1, verbose=0)
    np.testing.assert_allclose(nets[1].theta, nets[0].theta, rtol=1e-10, atol=1e-12)


def test_what_is_streamed_is_not_kept_alive(place, data, small_chunks):
    place(resident=0.0)
    X = data[0].copy()
    gone = weakref.ref(X)
    trainer = trained(network("cuda"), X, data[1])
    del X
    gc.collect()
    assert gone() is None
    assert trainer.epochs_done == 3


@pytest.mark.parametrize("call", ["evaluate", "gradients", "errors"])
def test_every_call_takes_data_that_stay_on_the_host(place, data, small_chunks, call):
    place(resident=0.0)
    ours, theirs = (getattr(network(d), call)(*data, loss="cross_entropy") for d in ("cuda", "numpy"))
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-10, atol=1e-13)
