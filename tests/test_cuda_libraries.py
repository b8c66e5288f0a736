"""CuPy and cuBLASLt's bindings are as the stand-ins say; and with a GPU, what no stand-in can tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from enum import IntEnum

import numpy as np
import pytest
from devices import there
from fake_cuda import FakeCublasLt, FakeCupy
from fake_cuda import cupy as fake_cupy
from fake_cuda import lt as fake_lt

import gpunn
from gpunn.backends.cuda import cublaslt

# ------------------------------------------------------------------ without a GPU


def parameters(function):
    """The names of a function's parameters, by its signature or the first line of its description."""
    told = re.match(r"[\w.]*\((.*?)\)(?:\s|$|->)", function.__doc__ or "")
    if told is None:
        import inspect

        return list(inspect.signature(function).parameters)
    return [
        re.split(r"[ =]+", each.partition("=")[0].strip())[-1] for each in told[1].split(",") if each.strip()
    ]


@pytest.fixture
def lt():
    return pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed")


ENUMS = [
    cls
    for cls in vars(fake_lt).values()
    if isinstance(cls, type) and issubclass(cls, IntEnum) and cls is not IntEnum
]


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
def test_the_stand_ins_numbers_are_those_of_cublaslt(lt, enum):
    for member in enum:
        assert int(getattr(lt, enum.__name__)[member.name]) == member


def test_the_stand_ins_records_are_those_of_cublaslt(lt):
    ours = FakeCublasLt(FakeCupy())
    assert ours.matmul_heuristic_result_dtype == lt.matmul_heuristic_result_dtype
    for enum, name in (
        (fake_lt.MatmulDescAttribute, "get_matmul_desc_attribute_dtype"),
        (fake_lt.MatmulPreferenceAttribute, "get_matmul_preference_attribute_dtype"),
    ):
        for member in enum:
            theirs = getattr(lt, enum.__name__)[member.name]
            assert np.dtype(getattr(ours, name)(member)) == np.dtype(getattr(lt, name)(theirs))


CALLS = [name for name in vars(FakeCublasLt) if re.match("create|mat", name)]


@pytest.mark.parametrize("name", [name for name in CALLS if callable(getattr(FakeCublasLt, name))])
def test_the_stand_ins_calls_take_as_much_as_those_of_cublaslt(lt, name):
    assert len(parameters(getattr(lt, name))) == len(parameters(getattr(FakeCublasLt, name))) - 1  # self


def test_the_numbers_that_the_bindings_leave_out_are_nvidias(lt):
    kinds = {"float32": "CUDA_R_32F", "float64": "CUDA_R_64F"}
    types = pytest.importorskip("nvmath").CudaDataType
    assert {key: int(types[name]) for key, name in kinds.items()} == cublaslt.KIND
    computes = pytest.importorskip("nvmath").bindings.cublas.ComputeType
    names = {("float32", "float32"): "COMPUTE_32F", ("float32", "tf32"): "COMPUTE_32F_FAST_TF32"}
    names |= {("float64", precision): "COMPUTE_64F" for precision in ("float32", "tf32")}
    assert {key: int(computes[name]) for key, name in names.items()} == cublaslt.COMPUTE


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (fake_cupy.Array, "ndarray"),
        (fake_cupy.Event, "cuda.Event"),
        (fake_cupy.Stream, "cuda.Stream"),
        (fake_cupy.Graph, "cuda.Graph"),
        (fake_cupy.FakeCupy, ""),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_the_stand_in_for_cupy_does_cupy_does(cupy, ours, theirs):
    """Every call, with parameters of the same names; CuPy's own may take more."""
    import operator

    real = operator.attrgetter(theirs)(cupy) if theirs else cupy
    own = {"do", "run_until", "check_device", "stream", "refuse_in_capture", "using_allocator"}
    own |= {
        "of_thread",
        "current",
        "devices",
        "allocators",
        "forget",
        "fresh",
        "trim",
        "check_alive",
        "at",
        "memory_of",
        "number_of",
    }
    compared = 0
    for name, made in vars(ours).items():
        if name.startswith("_") or name in own:
            continue
        assert hasattr(real, name), f"CuPy has no {theirs}.{name}"
        if callable(made) and not isinstance(made, type):
            given = [each.strip("*") for each in parameters(made) if each != "self"]
            taken = [each for each in parameters(getattr(real, name)) if each != "self"]
            assert set(given) <= {each.strip("*") for each in taken}, f"{name}({', '.join(taken)})"
            compared += 1
    if ours is fake_cupy.FakeCupy:
        for name, made in vars(FakeCupy().cuda).items():
            for inner in ["", *(vars(made) if name in ("memory", "runtime") else ())]:
                assert operator.attrgetter(f"{name}.{inner}".strip("."))(cupy.cuda)
    assert compared > 0


def test_without_a_driver_cupy_does_no_harm_and_the_device_says_what_is_missing(cupy):
    """In a process that has not imported CuPy; nothing of it is imported before it is needed."""
    if "CUDA_VISIBLE_DEVICES" not in os.environ and not _driverless():
        pytest.skip("this machine has a GPU")
    code = (
        "import sys, gpunn\n"
        "from gpunn.cli import main\n"
        "code = main(['info'])\n"
        "assert not {'cupy', 'nvmath', 'numba.cuda'} & sys.modules.keys()\n"
        "try:\n"
        "    gpunn.Sequential([gpunn.Dense(2)], 3, device='cuda')\n"
        "except gpunn.DeviceError as error:\n"
        "    print('refused:', error)\n"
        "print(gpunn.Sequential([gpunn.Dense(2)], 3, device='auto').backend.name)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(re.match(r"\s*cuda\s+no\s+no NVIDIA driver was found", line) for line in lines), done.stdout
    refusal = (
        "refused: device 'cuda' cannot be used: no NVIDIA driver was found (libcuda.so.1): install one, or"
    )
    assert any(line.startswith(refusal) for line in lines), done.stdout
    assert lines[-1] == "numba"


def _driverless():
    from gpunn.backends.cuda.probe import driver

    return driver() is None


# ------------------------------------------------------------------ with a GPU


@pytest.fixture
def net():
    there("cuda")
    layers = [gpunn.Dense(8, activation="relu"), gpunn.Dense(3, activation="softmax")]
    return gpunn.Sequential(layers, 7, device="cuda", dtype="float32", seed=3)


@pytest.fixture
def X(rng):
    return rng.standard_normal((5000, 7)).astype("float32")


def long(torch):
    """Work that a stream is busy with for some milliseconds."""
    A = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        A = (A @ A).clamp(-1, 1)
    return A


@pytest.mark.gpu
def test_a_tensor_of_another_stream_of_pytorch_is_read_when_it_is_there(net, X):
    torch = pytest.importorskip("torch")
    expected = net.predict(X)
    ready = torch.from_numpy(X).to("cuda")
    tensor = torch.zeros_like(ready)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        long(torch)
        tensor += ready
        found = net.predict(tensor)
        tensor.zero_()
        twice = found * 2
    torch.cuda.synchronize()
    assert isinstance(found, torch.Tensor)
    assert found.device.type == "cuda"
    np.testing.assert_array_equal(twice.cpu().numpy(), expected * 2)


@pytest.mark.gpu
def test_a_network_trains_on_tensors_of_pytorch(net, X, rng):
    torch = pytest.importorskip("torch")
    y = rng.integers(0, 3, len(X))
    tensors = [torch.from_numpy(values).to("cuda") for values in (X, y)]
    other = net.to("cuda")
    for each, data in ((net, tensors), (other, (X, y))):
        each.fit(*data, loss="cross_entropy", batch_size=64, epochs=2, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()


@pytest.mark.gpu
def test_arrays_of_cupy_and_jax_come_back_as_they_came(net, X):
    cupy = pytest.importorskip("cupy")
    expected = net.predict(X)
    with cupy.cuda.Stream(non_blocking=True):
        there = cupy.asarray(X)
        found = net.predict(there)
        there[...] = cupy.nan
        np.testing.assert_array_equal(found.get(), expected)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX sees no GPU")
    found = net.predict(jax.numpy.asarray(X))
    assert isinstance(found, jax.Array)
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.gpu
def test_a_batch_larger_than_the_memory_says_which_would_fit(rng):
    there("cuda")
    wide = gpunn.Sequential([gpunn.Dense(4000), gpunn.Dense(1)], 1, device="cuda", seed=0)
    X = rng.standard_normal((20_000_000, 1)).astype("float32")
    told = r"MiB do not fit into the memory of GPU 0, .*: batches of (\d+) would fit"
    with pytest.raises(gpunn.errors.DeviceMemoryError, match=told):
        wide.fit(X, X, loss="mse", batch_size=len(X), verbose=0)
    history = wide.fit(X[:1000], X[:1000], loss="mse", batch_size=100, verbose=0)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.gpu
def test_two_gpus_compute_the_same_and_do_not_mix(net, X, rng):
    there("cuda")
    try:
        other = net.to("cuda:1")
    except gpunn.DeviceError as error:
        pytest.skip(str(error))
    y = rng.integers(0, 3, len(X))
    for each in (net, other):
        each.fit(X, y, loss="cross_entropy", batch_size=64, epochs=2, verbose=0)
    assert net.theta.tobytes() == other.theta.tobytes()
    with pytest.raises(gpunn.DataError, match=r"X lies on GPU 0, the network on GPU 1"):
        other.predict(net.backend.gpu.upload(X))
