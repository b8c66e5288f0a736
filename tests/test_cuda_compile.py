"""Every CUDA kernel compiles for three architectures, keeps all in registers, and moves 16 bytes at once."""

from __future__ import annotations

import shutil

import pytest
from cuda_check import check

pytestmark = [
    pytest.mark.cuda_host,
    pytest.mark.skipif(check.compiler() is None, reason="neither nvcc nor CuPy's NVRTC is installed"),
]

needs_disassembler = pytest.mark.skipif(check.disassembler() is None, reason="nvdisasm is not installed")

ARRAY = """
template <typename T>
__global__ void array(T* x, int n) {
    T kept[64];
    for (int i = 0; i < 64; ++i) kept[i] = x[i];
    for (int i = 0; i < n; ++i) kept[(i * n) % 64] += kept[n % 64];
    for (int i = 0; i < 64; ++i) x[i] = kept[i];
}
"""
SPILLING = """
template <typename T>
__global__ void __launch_bounds__(1024, 2) spilling(T* x) {
    T kept[128];
#pragma unroll
    for (int i = 0; i < 128; ++i) kept[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 128; ++i) x[threadIdx.x * 128 + (i * 37) % 128] = kept[i] * kept[127 - i];
}
"""
SCALARS = """
template <typename T>
__global__ void activate(const T* z, T* a, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) a[i] = z[i] * T(2);
}
"""


@pytest.fixture(params=["nvcc", "nvrtc"])
def by(request):
    """Each compiler that is here."""
    if request.param == "nvcc" and not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    if request.param == "nvrtc" and (why := check.why_no_nvrtc()):
        pytest.skip(why)
    return request.param


@pytest.fixture
def planted(tmp_path, by):
    """Compiles a source of the test's own for sm_90."""

    def compile_it(text, *expressions):
        (tmp_path / "planted.cu").write_text(text)
        return check.compile_unit("planted.cu", expressions, "sm_90", tmp_path, by)

    return compile_it


def instances():
    from gpunn.backends.cuda.catalogue import instances

    return [(kernel.file, kernel.expression) for kernel in instances()]


@pytest.mark.parametrize("arch", check.ARCHS)
def test_no_kernel_spills_or_has_a_stack(arch):
    units = check.build(instances(), [arch])
    usages = [usage for unit in units for usage in unit.usages]
    print(check.table(usages))
    assert {usage.kernel for usage in usages} >= {expression for _, expression in instances()}
    assert [usage.fault for usage in usages if usage.fault] == []


@needs_disassembler
def test_sigma_and_its_derivative_load_and_store_16_bytes():
    asked = check.wide(instances())
    assert {name.partition("<")[0] for _, name in asked} == set(check.WIDE)
    assert check.narrow_kernels(check.build(asked, [check.WIDE_ARCH])) == []


@pytest.mark.parametrize(
    ("text", "spills"), [(ARRAY, False), (SPILLING, True)], ids=["an indexed array", "too many registers"]
)
def test_local_memory_is_reported(planted, text, spills):
    name = "spilling<float>" if spills else "array<float>"
    (usage,) = planted(text, name).usages
    assert usage.stack > 0
    assert (usage.spills > 0) == spills
    assert usage.fault.startswith(
        f"{name} for sm_90: {usage.spills} bytes spilled, {usage.stack} bytes of stack"
    )


def test_registers_and_shared_memory_are_read(planted):
    text = "__global__ void turn(int* x) { __shared__ int s[32]; int i = threadIdx.x; s[i] = x[i]; "
    (usage,) = planted(text + "__syncthreads(); x[i] = s[31 - i]; }", "turn").usages
    assert usage.registers > 0
    assert (usage.shared, usage.fault) == (128, None)


def test_an_instance_that_is_not_there_is_an_error(planted):
    with pytest.raises(check.CompileError, match="shrink"):
        planted(SCALARS, "activate<float>", "shrink<float>")


@needs_disassembler
def test_accesses_of_less_than_16_bytes_are_refused(planted):
    unit = planted(SCALARS, "activate<float>", "activate<double>")
    assert check.narrow_kernels([unit]) == [
        f"activate<{real}>: no {access} of 16 bytes"
        for real in ("double", "float")
        for access in ("LDG", "STG")
    ]


@needs_disassembler
def test_local_memory_is_seen_in_the_instructions_too(planted):
    unit = planted(ARRAY, "array<float>")
    assert any(
        "local memory: STL" in fault for fault in check.narrow("array", check.sass(unit)["array<float>"])
    )
