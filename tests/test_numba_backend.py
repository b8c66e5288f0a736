"""The Numba runner: every op and whole programs against the reference and the NumPy runner."""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from test_parity import CASES, activated, assert_close, run_op, sizes_of

import gpunn
from gpunn import threads
from gpunn.activations import ACTIVATIONS, Activation
from gpunn.backends.numba import NumbaBackend
from gpunn.backends.numba.code import Code, _whole
from gpunn.backends.numba.matrix import large
from gpunn.backends.numba.matrix import sizes as product_sizes
from gpunn.backends.numba.products import KERNELS
from gpunn.backends.numba.runner import NumbaRunner
from gpunn.device import backend_for
from gpunn.losses import loss_named
from gpunn.ops import HYPER, OPS
from gpunn.program import Program, Role
from gpunn.variants import Model, Targets, training


@pytest.fixture(scope="module")
def numba():
    return NumbaBackend()


@pytest.fixture
def walkers(monkeypatch):
    """Have every program run by so many walkers, however little work it is."""

    def force(count):
        monkeypatch.setattr(NumbaRunner, "_wanted", lambda self: count)

    return force


# ------------------------------------------------------------------ several walkers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "attrs", "present"), CASES)
def test_an_op_that_is_shared_out_computes_its_formula(numba, walkers, name, attrs, present, dtype):
    walkers(3)
    sizes = dict(sizes_of(name))["33"]
    seed = crc32(f"{name}{sizes}".encode())
    written, expected, scale, _, _ = run_op(numba, name, attrs, present, sizes, dtype, seed)
    assert_close(written, expected, scale, dtype)


def trained(backend, program, data, steps, **options):
    """Every slot that lasts, after some steps from the same start."""
    memory = {}
    runner = backend.load(program, memory, **options)
    rng = np.random.default_rng(1)
    size = memory["theta"].size
    theta = np.zeros(size)
    for window in program.layout.windows.values():
        theta[window.offset : window.offset + window.size] = rng.standard_normal(window.size) / 5
    backend.assign(memory["theta"], theta)
    hyper = np.zeros(len(HYPER))
    words = {"lr": 0.05, "l2": 1e-3, "l1": 1e-4, "momentum": 0.9, "weight_decay": 0.01, "clip_norm": 0.5}
    for word, value in words.items():
        hyper[HYPER[word]] = value
    memory["hyper"][...] = hyper
    memory["first_bad"][...] = -1
    runner.bind(**data)
    runner.run(steps)
    return memory


NETWORKS = {
    "one layer": [gpunn.Dense(3, activation="sigmoid")],
    "book": [gpunn.Dense(7, activation="sigmoid"), gpunn.Dense(3, activation="sigmoid")],
    "gelu": [gpunn.Dense(9, activation="silu"), gpunn.Dense(4, activation="tanh"), gpunn.Dense(3)],
    "wide": [gpunn.Dense(37, activation="relu"), gpunn.Dense(3, activation="sigmoid")],
}
OPTIMIZERS = {
    "sgd": gpunn.SGD(),
    "penalties": gpunn.SGD(l2=1.0, l1=1.0, weight_decay=1.0),
    "clipped": gpunn.SGD(clip_norm=1.0),
    "momentum": gpunn.SGD(momentum=0.9),
}


@pytest.mark.parametrize("batch", [1, 10, 33])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_fused_program_trains_as_numpy_does(numba, network, optimizer, batch):
    model = Model(tuple(NETWORKS[network]), (61,), "float64")
    rng = np.random.default_rng(2)
    data = {"X": rng.standard_normal((200, 61)), "T": rng.random((200, 3)), "perm": rng.permutation(200)}
    program = training(model, loss_named("quadratic"), OPTIMIZERS[optimizer], batch, targets=Targets())
    steps = 200 // batch if batch > 1 else 50
    ours = trained(numba, program, data, steps)
    theirs = trained(backend_for("numpy"), program, data, steps)
    assert "gather+linear" in str(numba.load(program, {}).program)
    for slot in theirs.keys() & ours.keys() - {"grad"}:
        np.testing.assert_allclose(ours[slot], theirs[slot], rtol=1e-9, atol=1e-12, err_msg=slot)


def data_for(inputs, outputs, examples):
    rng = np.random.default_rng(2)
    X, T = rng.standard_normal((examples, inputs)), rng.random((examples, outputs))
    return {"X": X, "T": T, "perm": rng.permutation(examples)}


LARGE = Model((gpunn.Dense(200, activation="relu"), gpunn.Dense(300)), (180,), "float64")


@pytest.mark.parametrize(
    "optimizer", [gpunn.SGD(l2=1.0), gpunn.Adam(), gpunn.SGD(momentum=0.9, clip_norm=1.0)]
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_large_products_are_as_right_as_small_ones(numba, walkers, count, optimizer):
    walkers(count)
    data = data_for(180, 300, 512)
    program = training(LARGE, loss_named("quadratic"), optimizer, 256, targets=Targets())
    assert large(*product_sizes(program, next(op for op in program.ops if op.name == "linear")))
    ours, theirs = (trained(b, program, data, 2) for b in (numba, backend_for("numpy")))
    for slot in theirs.keys() & ours.keys() - {"grad"}:
        np.testing.assert_allclose(ours[slot], theirs[slot], rtol=1e-9, atol=1e-12, err_msg=slot)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_number_of_walkers_gives_the_same_bytes_each_time(numba, walkers, count):
    walkers(count)
    program = training(LARGE, loss_named("quadratic"), gpunn.Adam(), 256, targets=Targets())
    first, second = (trained(numba, program, data_for(180, 300, 512), 2) for _ in range(2))
    assert {slot: v.tobytes() for slot, v in first.items()} == {
        slot: v.tobytes() for slot, v in second.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer", [gpunn.SGD(lr=0.1, clip_norm=0.1), gpunn.Adam(l1=1e-3), gpunn.RMSprop()]
)
@pytest.mark.parametrize(("hidden", "batch"), [(7, 5), (37, 33), (129, 130)])
def test_the_number_of_walkers_does_not_show_in_what_is_learnt(walkers, hidden, batch, optimizer, dtype):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 61)), rng.integers(0, 5, 300)
    found = []
    for count in (1, 2, 3, 5):
        walkers(count)
        layers = [gpunn.Dense(hidden, activation="gelu"), gpunn.Dropout(0.2), gpunn.Dense(5)]
        net = gpunn.Sequential(layers, 61, seed=0, device="numba", dtype=dtype)
        history = net.fit(X, y, loss="cross_entropy", optimizer=optimizer, batch_size=batch, verbose=0)
        found.append((net.theta.tobytes(), history["loss"][-1]))
    thetas, costs = zip(*found, strict=True)
    assert len(set(thetas)) == 1
    np.testing.assert_allclose(costs, costs[0], rtol=1e-14)


def test_walkers_are_as_many_as_the_work_is_worth_and_as_are_allowed(numba):
    small = training(Model((gpunn.Dense(3),), (4,), "float32"), loss_named("quadratic"), gpunn.SGD(), 5)
    large = training(LARGE, loss_named("quadratic"), gpunn.SGD(), 256, targets=Targets())
    try:
        gpunn.set_num_threads(3)
        assert [numba.load(program, {})._team.walkers for program in (small, large)] == [1, 3]
        runner = numba.load(large, {})
        gpunn.set_num_threads(1)
        assert numba.load(large, {})._team.walkers == 1
        memory = trained(numba, large, data_for(180, 300, 512), 1)
        assert memory["step"][0] == 1
        with pytest.raises(gpunn.ProgramError, match="bind"):
            runner.run()
        assert runner._team.walkers == 1
    finally:
        gpunn.set_num_threads(None)


@pytest.mark.parametrize("count", [0, -1, 1.5, "two", True])
def test_a_number_of_threads_is_a_whole_number(count):
    with pytest.raises(gpunn.ArgumentError, match=r"count is .*expected a whole number of at least 1"):
        gpunn.set_num_threads(count)


def test_the_environment_limits_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert gpunn.num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert gpunn.num_threads() == threads._allowed()


def test_threads_that_the_system_refuses_are_an_error_and_nothing_is_run(numba, walkers):
    walkers(3)
    program = training(LARGE, loss_named("quadratic"), gpunn.SGD(), 256, targets=Targets())
    memory = {}
    runner = numba.load(program, memory)
    runner.bind(**data_for(180, 300, 512))
    refuse = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)(lambda *given: 11)
    runner._team._create = ctypes.cast(refuse, ctypes.c_void_p).value
    with pytest.raises(gpunn.DeviceError, match="gave 1 of 3 threads"):
        runner.run()
    assert memory["step"][0] == 0


def test_blas_is_held_to_the_number_and_has_its_own_back():
    before = [library.num_threads for library in threads._libraries()]
    assert before
    try:
        gpunn.set_num_threads(1)
        with threads.limited():
            assert {library.num_threads for library in threads._libraries()} == {1}
        assert [library.num_threads for library in threads._libraries()] == before
    finally:
        gpunn.set_num_threads(None)


# ------------------------------------------------------------------ what would reach beyond memory


def book_step(batch=5, examples=20):
    program = training(Model((gpunn.Dense(3),), (4,), "float32"), loss_named("quadratic"), gpunn.SGD(), batch)
    X = np.ones((examples, 4), np.float32)
    return program, {"X": X, "T": np.zeros((examples, 3), np.float32), "perm": np.arange(examples)}


def test_steps_beyond_the_data_are_an_error(numba):
    program, data = book_step()
    memory = {}
    runner = numba.load(program, memory)
    memory["first_bad"][...] = -1
    runner.bind(**data)
    runner.run(4)
    with pytest.raises(gpunn.ProgramError, match="1 steps of 5 examples from the 20th on go beyond the 20"):
        runner.run(1)


@pytest.mark.parametrize("wrong", [-1, 20])
def test_a_permutation_beyond_the_data_is_an_error(numba, wrong):
    program, data = book_step()
    data["perm"][7] = wrong
    with pytest.raises(gpunn.ShapeError, match=r"'perm' holds numbers from .* expected places of the 20"):
        numba.load(program, {}).bind(**data)


@pytest.mark.parametrize("loss", ["cross_entropy", "quadratic"])
@pytest.mark.parametrize("wrong", [-1, 3, 10**9])
def test_a_label_that_changes_after_it_was_checked_makes_the_cost_nan(tmp_path, loss, wrong):
    X = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    y = np.memmap(tmp_path / "y", np.int64, "w+", shape=32)
    net = gpunn.Sequential([gpunn.Dense(3)], 4, device="numba", seed=0)

    def change(trainer, record):
        y[5] = wrong

    metrics = ("accuracy", "top_5", "confusion")
    with pytest.raises((gpunn.DivergenceError, gpunn.DataError)):
        net.fit(X, y, loss=loss, metrics=metrics, epochs=2, batch_size=8, verbose=0, callbacks=[change])


def test_a_step_within_a_scheduled_epoch_is_an_error():
    X = np.random.default_rng(0).standard_normal((1000, 4))
    optimizer = gpunn.SGD(lr=0.1, schedule=gpunn.Exponential(0.9, unit="step"))
    net = gpunn.Sequential([gpunn.Dense(2)], 4, device="numba", seed=0)
    trainer = gpunn.Trainer(net, loss="cross_entropy", batch_size=100, optimizer=optimizer)

    class Steps(gpunn.Callback):
        def on_progress(self, trainer):
            trainer.step(X[:50], np.zeros(50, int))

    with pytest.raises(gpunn.ProgramError, match="are not for callbacks"):
        trainer.fit(X, np.zeros(1000, int), epochs=2, verbose=0, callbacks=[Steps()])


# ------------------------------------------------------------------ from outside


@pytest.fixture
def outside():
    """What a test enters into the tables is gone after it."""
    before = [dict(table) for table in (ACTIVATIONS, OPS)]
    yield
    for table, rows in zip((ACTIVATIONS, OPS), before, strict=True):
        table.clear()
        table.update(rows)


HALF = 0.5


def halved(z):
    return HALF * z


def from_numpy(z):
    return np.tanh(z) + np.exp(-abs(z)) - 1


def by_a_function(z, slope=0.1):
    return halved(z) if z > 0 else slope * math.expm1(z)


Z = np.linspace(-3, 3, 101)
EXPECTED = {
    "lambda": (lambda z: z * z, Z * Z),
    "math": (math.atan, np.arctan(Z)),
    "numpy": (from_numpy, np.tanh(Z) + np.exp(-abs(Z)) - 1),
    "functions": (by_a_function, np.where(Z > 0, Z / 2, 0.1 * np.expm1(Z))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", EXPECTED)
def test_a_sigma_from_outside_is_compiled(numba, outside, how, dtype):
    sigma, expected = EXPECTED[how]
    ACTIVATIONS["mine"] = Activation("mine", sigma, lambda z: z, "input", "a", "a test")
    program = Program(dtype)
    assert numba.made.compiles(op_of(program, "mine"), program, {})
    np.testing.assert_allclose(activated(numba, "mine", Z, dtype), expected, rtol=4e-6, atol=1e-6)


def op_of(program, sigma):
    z = program.slot("z", (3,), Role.INPUT)
    program.emit("activate", (z,), {"a": program.slot("a", (3,), Role.INPUT)}, sigma=sigma)
    return program.ops[-1]


def test_a_name_that_is_taken_anew_means_the_new_function(numba, outside):
    for factor in (2.0, 3.0):
        row = Activation("mine", lambda z, factor=factor: factor * z, lambda z: 1.0, "input", "a", "a test")
        ACTIVATIONS["mine"] = row
        np.testing.assert_array_equal(activated(numba, "mine", Z), factor * Z)


def raising(z):
    if z > 2:
        raise ValueError("too large")
    return z


def calling_itself(z):
    return z if z < 1 else calling_itself(z / 2)


@pytest.mark.filterwarnings("ignore:activation 'mine':gpunn.GpunnWarning")
@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (raising, np.where(Z > 2, np.nan, Z)),
        (calling_itself, np.where(Z < 1, Z, np.where(Z < 2, Z / 2, Z / 4))),
    ],
)
def test_a_sigma_that_cannot_be_part_of_a_kernel_still_works(numba, outside, sigma, expected):
    ACTIVATIONS["mine"] = Activation("mine", sigma, lambda z: 1.0, "input", "a", "a test")
    program = Program("float64")
    assert not numba.made.compiles(op_of(program, "mine"), program, {})
    np.testing.assert_array_equal(activated(numba, "mine", Z), expected)


def test_a_network_of_a_sigma_from_outside_trains_as_fused_as_others(numba, outside):
    sigma = Activation("mine", lambda z: math.tanh(z), lambda a: 1.0 - a * a, "output", "a", "a test")
    ACTIVATIONS["mine"] = sigma
    found = {}
    for name in ("tanh", "mine"):
        model = Model((gpunn.Dense(7, activation=name), gpunn.Dense(3)), (61,), "float64")
        program = training(model, loss_named("quadratic"), gpunn.SGD(), 10, targets=Targets())
        found[name] = trained(numba, program, data_for(61, 3, 200), 20)["theta"]
        assert "gather+linear+activate" in str(numba.load(program, {}).program)
    np.testing.assert_allclose(found["mine"], found["tanh"], rtol=1e-12)


def twice(x, y):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = 2 * x[i, j]


def scaled(x, y, *, factor, shift):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = factor * x[i, j] + (1 if shift else 0)


def half_in_numpy(x, y):
    np.divide(x, 2, out=y)


class Chain(gpunn.Layer):
    """2x, then half of it, then 3x + 1 by an op with attributes."""

    def emit(self, program, x):
        x = program.emit("halve", (program.emit("twice", (x,)),))
        return program.emit("scaled", (x,), factor=3, shift=True)


@pytest.mark.parametrize("count", [1, 2])
def test_ops_from_outside_run_between_those_that_are_compiled(walkers, outside, count):
    walkers(count)
    gpunn.register_op("twice", "x(B,K) -> y(B,K)", formula="{y} = 2 {x}", numba=twice)
    gpunn.register_op("halve", "x(B,K) -> y(B,K)", formula="{y} = {x}/2", numpy=half_in_numpy)
    gpunn.register_op("scaled", "x(B,K) -> y(B,K)", formula="{y} = f {x}", numba=scaled)
    net = gpunn.Sequential(
        [gpunn.Dense(4), Chain(), gpunn.Dense(2)], 3, device="numba", dtype="float64", seed=0
    )
    plain = gpunn.Sequential([gpunn.Dense(4), gpunn.Dense(2)], 3, device="numpy", dtype="float64", seed=0)
    X = np.random.default_rng(0).standard_normal((7, 3))
    p = plain.parameters
    expected = (3 * (X @ p["layers.0.weights"].T) + 1) @ p["layers.1.weights"].T
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)


def weighed(x, y, *, a=1.0, b=1.0):
    for i in range(x.size):
        y.flat[i] = a * x.flat[i] + 100 * b


@pytest.mark.parametrize(
    "given", [{"a": 5.0}, {"b": 5.0}, {"a": 5.0, "b": 5.0}, {}, {"a": True}, {"b": True}]
)
def test_attributes_of_an_op_from_outside_are_told_apart(numba, outside, given):
    gpunn.register_op("weighed", "x(K) -> y(K)", formula="{y} = a {x} + 100 b", numba=weighed)
    program = Program("float64")
    x, y = (program.slot(name, (3,), Role.INPUT) for name in "xy")
    program.emit("weighed", (x,), {"y": y}, **given)
    program.pin("x", "y")
    runner = numba.load(program, {})
    runner.write("x", 1.0)
    runner.run()
    assert runner.read("y").tolist() == [given.get("a", 1.0) + 100 * given.get("b", 1.0)] * 3


def importing(x, y):
    import os

    y[0] = len(os.name)


@pytest.mark.parametrize("function", [importing, len, lambda x: x, lambda x, y: missing(x)])  # noqa: F821
def test_a_function_that_cannot_be_compiled_is_an_error_that_names_it(numba, outside, function):
    gpunn.register_op("odd", "x(K) -> y(K)", formula="{y} = {x}", numba=function)
    program = Program("float64")
    program.emit("odd", (program.slot("x", (3,), Role.INPUT),), {"y": program.slot("y", (3,), Role.INPUT)})
    program.pin("x", "y")
    with pytest.raises(gpunn.ProgramError, match="cannot be compiled"):
        numba.load(program, {})


FIRST = """
import gpunn, numpy as np
def twice(x, y):
    np.multiply(x, 2, out=y)
gpunn.register_op("twice", "x(*S) -> y(*S)", formula="{y} = 2 {x}", numpy=twice)
print(gpunn.Sequential([gpunn.Dense(2)], 3, seed=0).predict(np.ones((2, 3))).shape)
"""


def test_an_op_may_be_registered_before_the_first_network():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 2)\n"


def test_an_op_without_a_kernel_for_the_cpu_says_how_to_add_one(numba, outside):
    gpunn.register_op("twice", "x(B,K) -> y(B,K)", formula="{y} = 2 {x}")
    program = Program("float64")
    program.emit(
        "twice", (program.slot("x", (2, 2), Role.INPUT),), {"y": program.slot("y", (2, 2), Role.INPUT)}
    )
    program.pin("x", "y")
    with pytest.raises(gpunn.ProgramError, match=r"register the op with numba=function"):
        numba.load(program, {})


# ------------------------------------------------------------------ machine code


def test_code_is_made_once_and_found_again(tmp_path, capsys):
    first = NumbaBackend(Code(tmp_path))
    run_op(first, "add", {}, True, {"*S": (5,)}, "float32", 1)
    assert "compiling kernels" in capsys.readouterr().err
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.o")}
    assert made
    second = NumbaBackend(Code(tmp_path))
    run_op(second, "add", {}, True, {"*S": (5,)}, "float32", 1)
    assert capsys.readouterr().err == ""
    assert made == {path.name: path.read_bytes() for path in tmp_path.glob("*.o")}


def test_a_damaged_file_of_code_is_made_anew(tmp_path):
    def ran():
        backend = NumbaBackend(Code(tmp_path))
        written, expected, scale, _, _ = run_op(backend, "add", {}, True, {"*S": (5,)}, "float32", 1)
        assert_close(written, expected, scale, "float32")

    ran()
    files = list(tmp_path.glob("*.o"))
    good = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(good[path][:100] + bytes([good[path][100] ^ 1]) + good[path][101:])
    ran()
    assert all(_whole(path) is not None for path in files)
    for path in files:
        path.write_bytes(b"")
    ran()


def test_numba_itself_is_not_imported_where_all_code_is_there(numba):
    run_op(numba, "add", {}, True, {"*S": (5,)}, "float32", 1)
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_parity import run_op\n"
        "from gpunn.backends.numba import NumbaBackend\n"
        "run_op(NumbaBackend(), 'add', {}, True, {'*S': (5,)}, 'float32', 1)\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


def test_products_are_made_of_vectors(numba):
    code = numba.made.code
    lanes = code.processor.width // 4
    for name, make in KERNELS.items():
        module = ir.Module(name)
        module.triple = llvm.get_process_triple()
        make(module, "float32", lanes, code.processor.registers)
        text = code.assembly(llvm.parse_assembly(str(module)))
        letter = {64: "z", 32: "y", 16: "x"}[code.processor.width]
        assert len(re.findall(rf"vfmadd\w+ps\s[^\n]*%{letter}mm", text)) > 50 or "fmla" in text, name


COPY = """
import sys
import gpunn, numpy as np
net = gpunn.Sequential([gpunn.Dense(2, activation="sigmoid", weights="zeros")], 3, seed=0)
print(float(net.predict(np.zeros((1, 3)))[0, 0]))
"""


@pytest.mark.slow
def test_an_edited_activation_is_compiled_anew(tmp_path):
    copy = tmp_path / "gpunn"
    package = Path(gpunn.__file__).parent
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "kernels", tmp_path / "kernels")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def result():
        given = {"env": env, "cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        done = subprocess.run([sys.executable, "-c", COPY], **given)
        return float(done.stdout), "compiling" in done.stderr

    assert result() == (0.5, True)
    assert result() == (0.5, False)
    source = (copy / "activations.py").read_text(encoding="utf-8")
    edited = source.replace(
        "def _sigmoid(z: float) -> float:", "def _sigmoid(z: float) -> float:\n    return 0.75\n"
    )
    assert edited != source
    (copy / "activations.py").write_text(edited, encoding="utf-8")
    assert result() == (0.75, True)


@pytest.mark.parametrize("trouble", ["a file in the way", "no home", "a full disk"])
def test_a_folder_that_cannot_be_had_is_said_once(tmp_path, monkeypatch, trouble):
    def no_home(*given, **named):
        raise RuntimeError("no home")

    def full(path, content):
        raise OSError("no space left")

    (tmp_path / "file").write_text("in the way")
    folder = {"a file in the way": tmp_path / "file", "no home": None, "a full disk": tmp_path}[trouble]
    if trouble == "no home":
        monkeypatch.setattr("platformdirs.user_cache_dir", no_home)
    if trouble == "a full disk":
        monkeypatch.setattr("gpunn.backends.numba.code.write_atomically", full)
    backend = NumbaBackend(Code(folder))
    with pytest.warns(gpunn.GpunnWarning, match="cannot be kept"):
        first = run_op(backend, "add", {}, True, {"*S": (5,)}, "float32", 1)
    second = run_op(backend, "copy", {}, True, {"*S": (5,)}, "float32", 1)
    for written, expected, scale, _, _ in (first, second):
        assert_close(written, expected, scale, "float32")


# ------------------------------------------------------------------ beside the NumPy backend

BOOK = [gpunn.Dense(units, activation="sigmoid", weights="normal", bias="normal") for units in (30, 10)]


def book(device, seed, dtype="float32"):
    return gpunn.Sequential(BOOK, 784, device=device, dtype=dtype, seed=seed)


def test_the_books_network_agrees_with_numpy_after_200_steps():
    rng = np.random.default_rng(0)
    X, y = rng.random((2000, 784)), rng.integers(0, 10, 2000)
    how = {"loss": "quadratic", "optimizer": gpunn.SGD(lr=3.0), "batch_size": 10, "verbose": 0}
    nets = [book(device, 0, "float64") for device in ("numba", "numpy")]
    for net in nets:
        net.fit(X, y, **how)
    ours, theirs = (net.theta for net in nets)
    assert np.linalg.norm(ours - theirs) <= 1e-9 * np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.skipif("GPUNN_DATA" not in os.environ, reason="MNIST is not here: GPUNN_DATA names no folder")
def test_accuracies_differ_by_chance_alone():
    """Ten pairs of networks that begin alike, on 10,000 digits, in float32: after 10 epochs rounding has
    made them differ, but not one way."""
    data = gpunn.data.load_mnist()
    X, y = data.train.X[:10_000], data.train.y[:10_000]
    how, differences = {"loss": "quadratic"}, []
    for seed in range(10):
        found = []
        for device in ("numba", "numpy"):
            net = book(device, seed)
            net.fit(X, y, **how, optimizer=gpunn.SGD(lr=3.0), batch_size=10, epochs=10, verbose=0)
            scores = net.evaluate(data.test.X, data.test.y, **how, metrics=("accuracy",))
            found.append(scores["accuracy"])
        differences.append(found[0] - found[1])
    assert any(differences)
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) <= 3 * error
