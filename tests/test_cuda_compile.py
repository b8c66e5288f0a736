"""Every CUDA kernel compiles for three architectures, keeps all in registers, and moves 16 bytes at once.

And none of float computes in double unless it means to.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest
from cuda_check import check

from gpunn.backends.cuda.catalogue import instances as catalogue

pytestmark = [
    pytest.mark.cuda_host,
    pytest.mark.skipif(
        not shutil.which("nvcc") and not check.compilers(check.SEEN_ARCH),
        reason="neither nvcc nor CuPy's NVRTC is installed",
    ),
]

needs_disassembler = pytest.mark.skipif(check.disassembler() is None, reason="nvdisasm is not installed")

#: All in one source, for a compiler takes longer to begin than for any of them.
PLANTED = """
template <typename T>
__global__ void array(T* x, int n) {
    T kept[64];
#pragma unroll 1
    for (int i = 0; i < 64; ++i) kept[i] = x[i];
#pragma unroll 1
    for (int i = 0; i < n; ++i) x[i] = kept[(i * n) % 64];
}
template <typename T>
__global__ void __launch_bounds__(1024, 2) spilling(T* x) {
    T kept[96];
#pragma unroll
    for (int i = 0; i < 96; ++i) kept[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 96; ++i) x[threadIdx.x * 96 + (i * 37) % 96] = kept[i] * kept[95 - i];
}
__global__ void turn(int* x) {
    __shared__ int s[32];
    int i = threadIdx.x;
    s[i] = x[i];
    __syncthreads();
    x[i] = s[31 - i];
}
template <typename T, typename S>
__global__ void add(const T* z, T* a) {
    a[threadIdx.x] = S::value(z[threadIdx.x]);
}
template <typename T>
__global__ void bias_activate(const T* z, T* a, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) a[i] = z[i] * T(2);
}
template <typename T>
__global__ void dropout(const T* z, T* a, double scale) {
    a[threadIdx.x] = z[threadIdx.x] * scale;
}
"""
#: What σ may do, and what in float it may not: the instruction that shows it.
SIGMAS = {
    "half": ("return z * T(0.5);", None),
    "rooted": ("return sqrt(z) + exp(-fabs(z));", None),
    "counted": ("return T(int(z) % 7);", None),
    "exponential": ("const double e = exp(-fabs(double(z))); return T(e);", "DFMA"),
    "literal": ("return z * 0.3;", "DMUL"),
    "sum": ("return z + 0.3;", "DADD"),
    "compared": ("return z > 0.3 ? z : T(0);", "DSETP"),
    "reciprocal": ("return T(1.0 / (double(z) + 1.0));", "MUFU.RCP64H"),
    "rounded": ("return T(rint(double(z)));", "F64"),
}
PLANTED += "".join(
    f"struct {name} {{ template <typename T> __device__ static T value(T z) {{ {body} }} }};\n"
    for name, (body, _) in SIGMAS.items()
)
EXPRESSIONS = [
    "array<float>",
    "spilling<float>",
    "turn",
    *(f"bias_activate<{real}>" for real in ("float", "double")),
    "dropout<float>",
    *(f"add<float, {name}>" for name in SIGMAS),
    "add<double, exponential>",
]


@pytest.fixture(params=check.COMPILERS)
def by(request):
    """Each compiler that is here."""
    if request.param == "nvcc" and not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    if request.param == "nvrtc" and (why := check.why_no_nvrtc()):
        pytest.skip(why)
    return request.param


@pytest.fixture
def build(tmp_path, by):
    """Compiles sources of the test's own for one architecture."""

    def build(sources, arch="sm_90"):
        for file, (text, *_) in sources.items():
            (tmp_path / file).write_text(text, encoding="utf-8")
        asked = [(file, name) for file, (_, *names) in sources.items() for name in names]
        return check.build(asked, [arch], tmp_path, by)

    return build


@pytest.fixture
def planted(build):
    (unit,) = build({"planted.cu": (PLANTED, *EXPRESSIONS)})
    return unit


@pytest.fixture
def usage(planted):
    return {usage.kernel: usage for usage in planted.usages}


def instances(file=None):
    return [(kernel.file, kernel.expression) for kernel in catalogue() if file in (None, kernel.file)]


# ------------------------------------------------------------------ gpunn's own kernels


@pytest.mark.parametrize(
    ("arch", "by"),
    [*((arch, "the first compiler") for arch in check.ARCHS), (check.SEEN_ARCH, "nvrtc")],
)
def test_no_kernel_spills_or_has_a_stack(arch, by):
    if by == "nvrtc" and (why := check.why_no_nvrtc()):
        pytest.skip(why)
    units = check.build(instances(), [arch], by=by if by == "nvrtc" else check.compilers(arch)[0])
    usages = [usage for unit in units for usage in unit.usages]
    print(check.table(usages))
    assert {usage.kernel for usage in usages} >= {expression for _, expression in instances()}
    assert {usage.arch for usage in usages} == {arch}
    assert [usage.fault for usage in usages if usage.fault] == []


@needs_disassembler
def test_the_instructions_of_elementwise_kernels():
    asked = instances("elementwise.cu")
    assert {name.partition("<")[0] for _, name in check.wide(asked)} == set(check.WIDE)
    single = {name.partition("<")[0] for _, name in asked if check.is_single(name)}
    assert single == set(check.SINGLE)
    assert check.code_faults(check.build(asked, [check.SEEN_ARCH], by=check.users_compiler())) == []


@pytest.mark.parametrize(
    ("nvcc", "nvrtc", "found"),
    [
        (True, True, [("nvcc",), ("nvcc", "nvrtc"), ("nvcc",)]),
        (True, False, [("nvcc",)] * 3),
        (False, True, [("nvrtc",)] * 3),
        (False, False, [()] * 3),
    ],
)
def test_which_compiler_does_what(monkeypatch, nvcc, nvrtc, found):
    monkeypatch.setattr(check.shutil, "which", lambda name: "/bin/nvcc" if nvcc and name == "nvcc" else None)
    monkeypatch.setattr(check, "why_no_nvrtc", lambda: None if nvrtc else "it is not here")
    assert [check.compilers(arch) for arch in ("sm_80", "sm_90", "sm_100")] == found
    assert check.users_compiler() == ("nvrtc" if nvrtc else "nvcc")


# ------------------------------------------------------------------ what the check sees


@pytest.mark.parametrize(("name", "spills"), [("array<float>", False), ("spilling<float>", True)])
def test_local_memory_is_reported(usage, by, name, spills):
    found = usage[name]
    assert found.stack > 0
    assert (found.spills > 0) == spills
    assert found.fault == (
        f"{name} for sm_90 by {by}: {found.spills} bytes spilled, {found.stack} bytes of stack"
    )


def test_registers_and_shared_memory_are_read(usage):
    assert usage["turn"].registers > 0
    assert (usage["turn"].shared, usage["turn"].fault) == (128, None)


def test_an_instance_that_is_not_there_is_an_error(build):
    with pytest.raises(check.CompileError, match="shrink"):
        build({"planted.cu": (PLANTED, "turn", "shrink<float>")})


@pytest.fixture
def faults(planted):
    return check.code_faults([planted])


@needs_disassembler
@pytest.mark.parametrize("real", ["float", "double"])
def test_accesses_of_less_than_16_bytes_are_refused(faults, real):
    name = f"bias_activate<{real}>"
    found = [fault for fault in faults if fault.startswith(name)]
    assert found == [f"{name}: no {access} of 16 bytes" for access in ("LDG", "STG")]


@needs_disassembler
def test_local_memory_is_seen_in_the_instructions_too(planted):
    found = check.narrow("array", check.sass(planted)["array<float>"])
    assert any("local memory: STL" in fault for fault in found)


@needs_disassembler
def test_arithmetic_in_double_is_refused_in_kernels_of_float_alone(planted, faults):
    refused = {name: instruction for name, (_, instruction) in SIGMAS.items() if instruction}
    expected = {f"add<float, {name}>" for name in refused}
    assert {fault.partition(":")[0] for fault in faults if "float64" in fault} == expected
    code = check.sass(planted)
    for name, instruction in refused.items():
        lines = [line for line in code[f"add<float, {name}>"] if instruction in line]
        assert lines, (name, code[f"add<float, {name}>"])
        for line in lines:
            assert check.doubles("", [line]), line


@pytest.mark.parametrize(
    ("line", "is_double"),
    [
        ("DFMA R4, R2, R6, R8", True),
        ("@!P0 DADD R4, R2, -R6", True),
        ("@P1 DMUL R4, R2, R6", True),
        ("DSETP.GEU.AND P0, PT, |R2|, 1, PT", True),
        ("MUFU.RSQ64H R5, R3", True),
        ("F2F.F64.F32 R2, R4", True),
        ("F2F.F32.F64 R2, R4", True),
        ("I2F.F64.S64 R2, R4", True),
        ("F2I.F64.TRUNC R2, R4", True),
        ("FFMA R4, R2, R6, R8", False),
        ("MUFU.RCP R5, R3", False),
        ("F2I.S64.TRUNC R2, R4", False),
        ("LDG.E.64 R2, desc[UR4][R2.64]", False),
        ("F2FP.F16.F32.PACK_AB R0, R1, R2", False),
    ],
)
def test_which_instructions_are_of_float64(line, is_double):
    assert check.doubles("add<float>", [line]) == (
        [f"add<float>: 1 instructions of float64: {line}"] if is_double else []
    )


@pytest.mark.parametrize("instructions", [{}, {"add<float>": []}])
def test_a_kernel_without_instructions_is_refused(monkeypatch, instructions):
    monkeypatch.setattr(check, "sass", lambda unit: instructions)
    unit = check.Unit("some.cu", "sm_90", "nvcc", b"", "", {"_Z3add": "add<float>"})
    assert check.code_faults([unit]) == ["add<float>: no instructions"]


# ------------------------------------------------------------------ several sources at once

ONE = """
struct same { static const int value = 1; };
__device__ int own() { return same::value; }
template <typename T> __global__ void one(int* x) { x[0] += own(); }
__global__ void named(int* x) {
    __shared__ int s[32];
    s[x[0] % 32] = 1;
    __syncthreads();
    x[1] = s[x[2] % 32];
}
"""
OTHER = """
#include <cuda_fp16.h>
struct same { static const int value = 2; };
__device__ int own() { return same::value + int(__half2float(__half(1.0f))); }
template <typename T> __global__ void other(int* x) { x[0] += own(); }
"""


def grouped(sizes, archs=("sm_90",), by="nvcc"):
    jobs = [
        check.Job(file, "", tuple(f"{file}{i}" for i in range(size)), arch, by)
        for arch in archs
        for file, size in sizes.items()
    ]
    return [[(job.arch, job.file) for job in group] for group in check._groups(jobs)]


def test_nvcc_gets_half_of_an_architecture_at_once_and_nvrtc_a_source():
    sizes = {"a": 9, "b": 4, "c": 3, "d": 1}
    halves = [[("sm_90", "a")], [("sm_90", "b"), ("sm_90", "c"), ("sm_90", "d")]]
    assert grouped(sizes) == halves
    assert grouped(sizes, by="nvrtc") == [[("sm_90", file)] for file in "abcd"]
    both = grouped(sizes, archs=("sm_80", "sm_90"))
    assert [len(group) for group in both] == [1, 1, 3, 3]
    assert all(len({arch for arch, _ in group}) == 1 for group in both)


@pytest.fixture
def nvcc():
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")


def job(file, text, *wanted):
    return check.Job(file, text, wanted, "sm_90", "nvcc")


def test_sources_that_use_the_same_names_keep_their_own_kernels(nvcc):
    jobs = [job("one.cu", ONE, "one<same>", "named"), job("other.cu", OTHER, "other<same>")]
    units = check.compile_together(jobs)
    one, other = (units[one] for one in jobs)
    assert one.cubin == other.cubin
    assert (one.file, other.file) == ("one.cu", "other.cu")
    found = [{usage.kernel: usage.shared for usage in unit.usages} for unit in (one, other)]
    assert found == [{"one<same>": 0, "named": 128}, {"other<same>": 0}]
    assert [set(unit.names.values()) for unit in (one, other)] == [{"one<same>", "named"}, {"other<same>"}]


def test_sources_that_do_not_compile_together_are_compiled_apart(nvcc):
    jobs = [
        job(f"{name}.cu", f'extern "C" __global__ void same(int* x) {{ x[0] = {name}; }}', "same")
        for name in ("1", "2")
    ]
    units = check.compile_together(jobs)
    assert [units[one].names for one in jobs] == [{"same": "same"}] * 2
    assert units[jobs[0]].cubin != units[jobs[1]].cubin


@pytest.mark.parametrize("bad", ["first.cu", "second.cu", "third.cu"])
def test_an_error_among_several_sources_names_its_own(monkeypatch, bad):
    def by_nvcc(jobs):
        files = [job.file for job in jobs]
        if bad in files:
            raise check.CompileError(f"{', '.join(files)} for sm_90:\nerror")
        log = "Compiling entry function 'f'\n0 bytes stack frame\nUsed 8 registers\n"
        return {job: check.Unit(job.file, "sm_90", "nvcc", b"", log, {"f": "f"}) for job in jobs}

    monkeypatch.setattr(check, "_by_nvcc", by_nvcc)
    jobs = [job(file, "", "f") for file in ("first.cu", "second.cu", "third.cu")]
    with pytest.raises(check.CompileError, match=rf"^{bad} for sm_90:\nerror$"):
        check.compile_together(jobs)
    assert list(check.compile_together([one for one in jobs if one.file != bad])) == [
        one for one in jobs if one.file != bad
    ]


# ------------------------------------------------------------------ what is kept

TURN = "__global__ void turn(int* x) { x[0] = 7; }"


class Compiling:
    """Stands for a compiler, and counts what it is given."""

    def __init__(self):
        self.jobs = []

    def __call__(self, jobs):
        self.jobs += jobs
        number = len(self.jobs)
        return {
            job: check.Unit(job.file, job.arch, job.by, b"\x7fELF\n%d\n" % number, "σ", {"_Z": job.wanted[0]})
            for job in jobs
        }


@pytest.fixture
def compiling(monkeypatch, tmp_path):
    counter = Compiling()
    monkeypatch.setattr(check, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(check, "compile_together", counter)
    monkeypatch.setattr(check, "version", lambda by: f"{by} 1")
    return counter


@pytest.fixture
def turn(tmp_path, compiling):
    (tmp_path / "turn.cuh").write_text(TURN)
    (tmp_path / "turn.cu").write_text('#include "turn.cuh"\n')

    def turn(expression="turn", arch="sm_90", by="nvcc"):
        (unit,) = check.build([("turn.cu", expression)], [arch], tmp_path, by)
        return unit

    return turn


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_a_unit_is_compiled_once(turn, compiling):
    first = turn()
    assert turn() == first
    assert len(compiling.jobs) == 1


def edited(text):
    def edit(turn, tmp_path, monkeypatch):
        (tmp_path / "turn.cuh").write_text(text)
        turn()

    return edit


def fewer_options(turn, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "OPTIONS", check.OPTIONS[1:])
    turn()


def another_version(turn, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "version", lambda by: f"{by} 2")
    turn()


def another_check(turn, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_own_code", lambda: "edited")
    turn()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(edited(TURN.replace("7", "8")), id="header"),
        pytest.param(lambda turn, *_: turn(expression="turn<1>"), id="expression"),
        pytest.param(lambda turn, *_: turn(arch="sm_80"), id="architecture"),
        pytest.param(lambda turn, *_: turn(by="nvrtc"), id="compiler"),
        fewer_options,
        another_version,
        another_check,
    ],
)
def test_another_of_what_it_is_made_from_is_another_unit(turn, compiling, tmp_path, monkeypatch, change):
    turn()
    change(turn, tmp_path, monkeypatch)
    assert len(compiling.jobs) == 2
    assert len(entries(tmp_path)) == 2


def cut_short(path, other):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path, other):
    path.write_bytes(b"")


def altered(path, other):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def that_of_another(path, other):
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [cut_short, emptied, altered, that_of_another])
def test_a_damaged_entry_is_compiled_anew(turn, compiling, tmp_path, damage):
    turn()
    (path,) = entries(tmp_path)
    turn(arch="sm_80")
    (other,) = (entry for entry in entries(tmp_path) if entry != path)
    damage(path, other)
    again = turn()
    assert (len(compiling.jobs), again.cubin) == (3, b"\x7fELF\n3\n")
    assert turn() == again
    assert len(compiling.jobs) == 3


def test_what_is_not_used_for_two_weeks_is_removed_when_something_is_kept(turn, compiling, tmp_path):
    def aged(path, days):
        then = time.time() - days * 24 * 3600
        os.utime(path, (then, then))

    turn(arch="sm_80")
    (used,) = entries(tmp_path)
    turn(arch="sm_100")
    (recent,) = (path for path in entries(tmp_path) if path != used)
    (tmp_path / "cache" / "old").write_bytes(b"")
    for path, days in ((used, 15), (tmp_path / "cache" / "old", 15), (recent, 13)):
        aged(path, days)
    turn(arch="sm_80")  # Which makes it a used one again.
    turn(arch="sm_90")
    assert len(compiling.jobs) == 3
    assert {used, recent} < set(entries(tmp_path))
    assert len(entries(tmp_path)) == 3


def test_a_cache_that_cannot_be_had_is_done_without(turn, compiling, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert [turn().cubin, turn().cubin] == [b"\x7fELF\n1\n", b"\x7fELF\n2\n"]
    assert len(compiling.jobs) == 2


def test_a_failure_is_not_kept(turn, tmp_path, monkeypatch):
    def fail(jobs):
        raise check.CompileError("nonsense")

    monkeypatch.setattr(check, "compile_together", fail)
    for _ in range(2):
        with pytest.raises(check.CompileError, match="nonsense"):
            turn()
    assert not (tmp_path / "cache").exists()


def test_a_real_unit_is_the_same_when_it_comes_from_the_cache(planted, monkeypatch, tmp_path, by):
    monkeypatch.setattr(check, "CACHE", tmp_path / "cache")
    asked = check.Job("planted.cu", PLANTED, tuple(EXPRESSIONS), "sm_90", by)
    check._keep(asked, planted)
    assert check._kept(asked) == planted
    assert planted.cubin.startswith(b"\x7fELF")
