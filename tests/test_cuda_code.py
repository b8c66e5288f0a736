"""CUDA sources become machine code once: assembled, compiled by NVRTC, kept under a hash of all they are."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from gpunn.kernels import assembled, source

import gpunn
from gpunn.backends.cuda import code as code_module
from gpunn.backends.cuda.code import Code

pytestmark = pytest.mark.cuda_host

ROOT = Path(gpunn.__file__).parent.parent


class Kernel(NamedTuple):
    file: str
    expression: str


SCALE = Kernel("scale.cu", "scale<float>")
SOURCES = {
    "two.cuh": "#pragma once\n__device__ int two() { return 2; }\n",
    "more.cuh": '#pragma once\n#include "two.cuh"\n#include "more.cuh"\n'
    "__device__ int more() { return two(); }\n",
    "scale.cu": '// σ, doubled\n#include "two.cuh"\n#include "more.cuh"\n'
    "template <typename T>\n__global__ void scale(T* x) { x[threadIdx.x] *= two() * more(); }\n",
}


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in SOURCES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(code_module, "_told", False)


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def nvrtc():
    try:
        Code("sm_90")
    except gpunn.DeviceError as error:
        pytest.skip(str(error))
    from cupy.cuda import nvrtc

    return nvrtc


@pytest.fixture
def load(nvrtc, sources, kept):
    """Makes a Code as a new process would; other sources, folder or architecture where given."""

    def load(arch="sm_90", folder=kept, sources=sources):
        return Code(arch, folder, sources=sources)

    return load


@pytest.fixture
def no_compiling(monkeypatch, nvrtc):
    def refuse(*given):
        raise AssertionError("compiled again")

    return lambda: monkeypatch.setattr(nvrtc, "createProgram", refuse)


def files(folder):
    return sorted(folder.glob("*.cubin"))


# ------------------------------------------------------------------ the text


def test_each_header_is_there_once_where_it_was_included_first(sources):
    text = assembled("scale.cu", sources)
    assert [text.count(f"int {name}()") for name in ("two", "more")] == [1, 1]
    assert text.index("int two()") < text.index("int more()") < text.index("void scale")
    assert "#include" not in text
    assert "#pragma once" not in text


def test_every_line_keeps_its_file_and_number(sources):
    place, found = None, {}
    for line in assembled("scale.cu", sources).splitlines():
        if directive := re.fullmatch(r'#line (\d+) "(.*)"', line):
            place = (directive[2], int(directive[1]))
        else:
            found[place] = line
            place = (place[0], place[1] + 1)
    for name, text in SOURCES.items():
        for number, line in enumerate(text.splitlines(), 1):
            gone = line.startswith(("#include", "#pragma"))
            assert found.get((name, number), "") == ("" if gone else line)


def test_a_header_of_the_toolkit_is_left_to_the_compiler(sources):
    (sources / "half.cu").write_text("#include <cuda_fp16.h>\n")
    assert assembled("half.cu", sources) == '#line 1 "half.cu"\n#include <cuda_fp16.h>\n'


@pytest.mark.parametrize("includer", ["scale.cu", "more.cuh"])
def test_a_header_that_is_not_there_is_said_with_its_includer(sources, includer):
    (sources / includer).write_text('\n#include "nothing.cuh"\n')
    with pytest.raises(FileNotFoundError, match=rf"{includer}, line 2: .*'nothing.cuh'.*there is: more.cuh"):
        assembled("scale.cu" if includer == "scale.cu" else "more.cuh", sources)


def test_a_circle_of_headers_ends(sources):
    (sources / "two.cuh").write_text('#include "more.cuh"\nint a;\n')
    (sources / "more.cuh").write_text('#include "two.cuh"\nint b;\n')
    text = assembled("scale.cu", sources)
    assert [text.count("int a;"), text.count("int b;")] == [1, 1]


def test_gpunns_own_sources_are_read_unless_a_folder_is_given():
    assert "activate" in source("elementwise.cu")
    assert "void activate(" in assembled("elementwise.cu")


# ------------------------------------------------------------------ compiling and keeping


def test_a_kernel_is_compiled_kept_and_found_again_without_the_compiler(load, kept, no_compiling, capfd):
    first = load().cubin(SCALE)
    assert first.code.startswith(b"\x7fELF")
    assert first.symbol.encode() in first.code
    assert "0 bytes spill stores" in first.log
    assert len(files(kept)) == 1
    no_compiling()
    assert load().cubin(SCALE) == first
    assert capfd.readouterr().err == "gpunn: compiling CUDA kernels for sm_90, once\n"


def test_machine_code_ends_where_its_headers_say(load):
    code = load().cubin(SCALE).code
    at, size, count = (
        int.from_bytes(code[i : i + n], "little") for i, n in ((0x20, 8), (0x36, 2), (0x38, 2))
    )
    assert len(code) == at + size * count


def test_two_instances_are_two_files_and_are_told_of_once(load, kept, capfd):
    code = load()
    floats, doubles = code.cubin(SCALE), code.cubin(Kernel("scale.cu", "scale<double>"))
    assert floats.symbol != doubles.symbol
    assert len(files(kept)) == 2
    assert capfd.readouterr().err.count("compiling") == 1


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_changed_byte_of_a_source_is_another_file(load, kept, sources, name):
    load().cubin(SCALE)
    changed = (sources / name).read_text(encoding="utf-8").replace("{ ", "{\t", 1)
    (sources / name).write_text(changed, encoding="utf-8")
    load().cubin(SCALE)
    assert len(files(kept)) == 2


@pytest.mark.parametrize("option", range(len(code_module.OPTIONS)))
def test_a_changed_option_is_another_file(load, kept, monkeypatch, option):
    load().cubin(SCALE)
    options = code_module.OPTIONS[:option] + code_module.OPTIONS[option + 1 :]
    monkeypatch.setattr(code_module, "OPTIONS", options)
    load().cubin(SCALE)
    assert len(files(kept)) == 2


def test_another_architecture_is_another_file(load, kept):
    assert load().cubin(SCALE).code != load("sm_80").cubin(SCALE).code
    assert len(files(kept)) == 2


def test_another_nvrtc_is_another_file(load, kept, nvrtc, monkeypatch):
    load().cubin(SCALE)
    monkeypatch.setattr(nvrtc, "getVersion", lambda: (99, 0))
    load().cubin(SCALE)
    assert len(files(kept)) == 2


@pytest.mark.parametrize("name", ["nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"])
def test_another_build_of_nvrtc_is_another_file(load, kept, monkeypatch, name):
    def installs(build):
        def version(asked):
            if asked != name:
                raise importlib.metadata.PackageNotFoundError(asked)
            return build

        monkeypatch.setattr(importlib.metadata, "version", version)

    for build, count in (("13.0.48", 1), ("13.0.88", 2), ("13.0.48", 2)):
        installs(build)
        load().cubin(SCALE)
        assert len(files(kept)) == count


def test_an_nvrtc_that_pip_did_not_install_has_the_version_that_it_tells(load, nvrtc, monkeypatch):
    def version(asked):
        raise importlib.metadata.PackageNotFoundError(asked)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert load().version == nvrtc.getVersion()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def altered(place):
    def alter(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    alter.__name__ = f"altered at {place}"
    return alter


def that_of_another_kernel(path):
    (other,) = (file for file in files(path.parent) if file != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    "damage",
    [cut_short, emptied, altered(0), altered(40), altered(-1), that_of_another_kernel],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_file_is_compiled_anew(load, kept, no_compiling, damage):
    whole = load().cubin(SCALE)
    (path,) = files(kept)
    load().cubin(Kernel("scale.cu", "scale<double>"))
    damage(path)
    again = load().cubin(SCALE)
    assert again.symbol == whole.symbol
    assert len(again.code) == len(whole.code)
    no_compiling()
    assert load().cubin(SCALE) == again


def test_many_threads_compile_a_kernel_once(load, nvrtc, monkeypatch):
    made, real, found = [], nvrtc.createProgram, []

    def create(*given):
        made.append(given)
        return real(*given)

    monkeypatch.setattr(nvrtc, "createProgram", create)
    code, start = load(), threading.Barrier(8)

    def ask():
        start.wait()
        found.append(code.cubin(SCALE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize("trouble", ["a file in the way", "no home", "a full disk"])
def test_a_folder_that_cannot_be_had_is_said_once(load, tmp_path, monkeypatch, trouble):
    def no_home(*given, **named):
        raise RuntimeError("no home")

    def full(path, content):
        raise OSError("no space left")

    (tmp_path / "file").write_text("in the way")
    folder = {"a file in the way": tmp_path / "file", "no home": None, "a full disk": tmp_path}[trouble]
    if trouble == "no home":
        monkeypatch.setattr("platformdirs.user_cache_dir", no_home)
    if trouble == "a full disk":
        monkeypatch.setattr(code_module, "write_atomically", full)
    code = load(folder=folder)
    with pytest.warns(gpunn.GpunnWarning, match="cannot be kept") as said:
        found = [code.cubin(Kernel("scale.cu", f"scale<{real}>")) for real in ("float", "double")]
    assert len(said) == 1
    assert found[0].code != found[1].code


def test_the_users_cache_is_where_kernels_are_kept_unless_a_folder_is_given(load, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *given, **named: str(tmp_path / "cache"))
    load(folder=None).cubin(SCALE)
    assert len(files(tmp_path / "cache" / "kernels" / "cuda")) == 1


# ------------------------------------------------------------------ failures


def refused(code, kernel=SCALE):
    with pytest.raises(gpunn.ProgramError) as caught:
        code.cubin(kernel)
    return str(caught.value)


@pytest.mark.parametrize(("name", "line"), [("two.cuh", 2), ("more.cuh", 4), ("scale.cu", 5)])
def test_an_error_names_file_line_instance_options_and_what_the_compiler_said(load, sources, name, line):
    text = (sources / name).read_text(encoding="utf-8")
    (sources / name).write_text(text.replace("{ ", "{ undeclared_δ; ", 1), encoding="utf-8")
    told = refused(load())
    assert "scale.cu: scale<float> does not compile with -arch=sm_90 -std=c++17" in told
    assert f"{name}({line}): error" in told
    assert "undeclared_" in told
    assert "δ" in told


def test_an_instance_that_is_not_in_the_source_is_named(load):
    assert "shrink<float>" in refused(load(), Kernel("scale.cu", "shrink<float>"))


def test_an_option_that_the_compiler_does_not_know_is_named(load, monkeypatch):
    monkeypatch.setattr(code_module, "OPTIONS", ("-nonsense",))
    told = refused(load())
    assert "with -arch=sm_90 -nonsense" in told
    assert "nrecognized option" in told


def test_a_failure_leaves_no_file_and_no_program(load, sources, kept, nvrtc, monkeypatch):
    ended, real = [], nvrtc.destroyProgram
    monkeypatch.setattr(nvrtc, "destroyProgram", lambda program: (ended.append(program), real(program)))
    (sources / "scale.cu").write_text("nonsense")
    refused(load())
    assert len(ended) == 1
    assert files(kept) == []


def test_an_architecture_that_nvrtc_does_not_know_is_refused_with_those_it_knows(load):
    with pytest.raises(
        gpunn.DeviceError, match=r"NVRTC \d+\.\d+ does not compile for sm_10, only for .*sm_90"
    ):
        load("sm_10")


class Refusing:
    """An import finder in whose world CuPy, or a library that it needs, is not there."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "cupy_backends"):
            raise self.error
        return None


@pytest.fixture
def without_cupy(monkeypatch):
    def without(error):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupy_backends")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Refusing(error), *sys.meta_path])

    return without


def test_a_missing_cupy_is_said_with_the_remedy(without_cupy):
    without_cupy(ModuleNotFoundError("No module named 'cupy'", name="cupy"))
    with pytest.raises(gpunn.DeviceError, match=r"pip install gpunn\[cuda13\].*cupy-cuda13x.*cupy-cuda12x"):
        Code("sm_90")


@pytest.mark.parametrize(
    "error",
    [ImportError("libcuda-thing.so: cannot open"), ModuleNotFoundError("No module", name="cuda.pathfinder")],
)
def test_a_cupy_that_cannot_be_imported_is_said_with_the_cause(without_cupy, error):
    without_cupy(error)
    with pytest.raises(gpunn.DeviceError, match=rf"NVRTC does not work \({error}\): pip install"):
        Code("sm_90")


def test_a_missing_nvrtc_library_is_said_with_the_cause(load, nvrtc, monkeypatch):
    def missing():
        raise RuntimeError("CuPy failed to load libnvrtc.so.13")

    monkeypatch.setattr(nvrtc, "getVersion", missing)
    with pytest.raises(gpunn.DeviceError, match=r"libnvrtc\.so\.13\): pip install gpunn\[cuda13\]"):
        load()


def test_a_missing_second_library_of_nvrtc_is_no_fault_of_the_source(load, nvrtc, monkeypatch):
    def missing(program, options):
        raise nvrtc.NVRTCError(7)

    monkeypatch.setattr(nvrtc, "compileProgram", missing)
    with pytest.raises(gpunn.DeviceError, match="BUILTIN"):
        load().cubin(SCALE)


# ------------------------------------------------------------------ what it leaves alone

ALONE = """
import sys
import gpunn
assert "cupy" not in sys.modules, "import gpunn imports CuPy"
import gpunn.backends.cuda.code
assert "cupy" not in sys.modules, "the module imports CuPy before it is needed"
from pathlib import Path
from typing import NamedTuple
Kernel = NamedTuple("Kernel", [("file", str), ("expression", str)])
code = gpunn.backends.cuda.code.Code("sm_90", Path(sys.argv[1]), sources=Path(sys.argv[2]))
code.cubin(Kernel("scale.cu", "scale<float>"))
import ctypes
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit()
context = ctypes.c_void_p()
driver.cuCtxGetCurrent(ctypes.byref(context))
assert not context.value, "compiling makes a CUDA context"
flags, active = ctypes.c_uint(), ctypes.c_int()
if driver.cuInit(0) == 0:
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
assert not active.value, "compiling makes a primary context"
"""


def test_compiling_makes_no_cuda_context_and_import_gpunn_no_cupy(nvrtc, sources, kept):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ALONE, str(kept), str(sources)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
