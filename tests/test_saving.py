"""Files of networks and runs: what comes back, what is refused, and what survives a failing save."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.checkpoint import _digest
from gpunn.initializers import INITIALIZERS
from gpunn.losses import LOSSES

X = np.random.default_rng(3).standard_normal((23, 4))
LABELS = np.random.default_rng(4).integers(0, 3, 23)
ROOT = Path(gpunn.__file__).parent.parent


class Rescaled(gpunn.Layer):
    """A layer of a user's own: x times a vector."""

    def __init__(self, activation="tanh"):
        self.activation = activation

    def emit(self, program, x):
        n = program.slots[x].shape[1]
        W = program.parameter("weights", (n, n), "normal")
        b = program.parameter("offset", (n,), "normal", weight=False)
        return program.emit("activate", (program.emit("linear", (x, W, b)),), sigma=self.activation)


def network(seed=1, **kwargs):
    layers = [gpunn.Dense(5, activation="tanh", bias="normal"), gpunn.Dense(3)]
    return gpunn.Sequential(layers, **{"input_shape": 4, "seed": seed, **kwargs})


def trained(**kwargs):
    trainer = gpunn.Trainer(network(), loss="cross_entropy", optimizer="adam", batch_size=5, **kwargs)
    trainer.fit(X, LABELS, epochs=1, verbose=0)
    trainer.epoch(X, LABELS, steps=2)
    return trainer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


# ------------------------------------------------------------------ what comes back

NETWORKS = {
    "one layer": ([gpunn.Dense(1)], 1),
    "every activation": (
        [gpunn.Dense(6, activation=name, bias="normal") for name in (*ACTIVATIONS, "softmax")],
        4,
    ),
    "every initialiser": (
        [gpunn.Dense(6, weights=name, bias="lecun_uniform") for name in INITIALIZERS],
        4,
    ),
    "flatten and activation layers": (
        [
            gpunn.Flatten(),
            gpunn.Dense(3),
            gpunn.Activation("relu"),
            gpunn.Dense(2),
            gpunn.Activation("softmax"),
        ],
        (2, 3, 2),
    ),
    "dropout": ([gpunn.Dense(3), gpunn.Dropout(0.25), gpunn.Dense(2), gpunn.Dropout(0)], 4),
    "a layer of one's own": ([Rescaled("relu"), gpunn.Dense(2)], 3),
    "no parameters": ([gpunn.Flatten(), gpunn.Activation("tanh")], (2, 2)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layers", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_comes_back_byte_for_byte(path, layers, shape, dtype):
    net = gpunn.Sequential(layers, shape, dtype=dtype, seed=7)
    net.save(path)
    again = gpunn.load(path)
    assert again.theta.tobytes() == net.theta.tobytes()
    assert repr(again) == repr(net)
    assert again.config() == net.config()
    inputs = np.random.default_rng(0).standard_normal((3, *net.input_shape))
    np.testing.assert_array_equal(again.predict(inputs), net.predict(inputs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unusual_numbers_come_back_byte_for_byte(path, dtype):
    net = network(dtype=dtype)
    unusual = np.full(net.layout.count, -0.0, dtype)
    unusual[:6] = [np.nan, np.inf, -np.inf, np.finfo(dtype).tiny / 8, np.finfo(dtype).max, 1 / 3]
    net.theta = unusual
    net.save(path)
    assert gpunn.load(path).theta.tobytes() == unusual.tobytes()


def test_a_seed_that_was_drawn_comes_back(path):
    net = network(seed=None)
    net.save(path)
    assert gpunn.load(path).seed == net.seed


@pytest.mark.parametrize("seed", [0, 2**32, 2**128], ids=["zero", "large", "larger than a word"])
def test_a_seed_of_any_size_comes_back(path, seed):
    network(seed=seed).save(path)
    assert gpunn.load(path).seed == seed


@pytest.mark.parametrize("loss", [None, *LOSSES])
def test_the_loss_of_the_training_comes_back(path, loss):
    net = network()
    if loss:
        net.fit(X, np.eye(3)[LABELS], loss=loss, verbose=0)
    net.save(path)
    assert gpunn.load(path).loss == loss


def test_the_device_is_chosen_when_loading(path):
    network().save(path)
    assert gpunn.load(path, device="numpy").device == "numpy"


def test_a_device_that_does_not_exist_is_not_the_files_fault(path):
    network().save(path)
    trained().save(path.with_name("run.safetensors"))
    with pytest.raises(gpunn.UnknownNameError, match="unknown device 'cpuu': did you mean 'cpu'"):
        gpunn.load(path, device="cpuu")
    with pytest.raises(gpunn.UnknownNameError, match="unknown device 'cpuu': did you mean 'cpu'"):
        gpunn.Trainer.load(path.with_name("run.safetensors"), device="cpuu")


def test_a_device_that_cannot_be_had_is_not_the_files_fault(path):
    network().save(path)
    with pytest.raises(gpunn.DeviceError, match="cuda"):
        gpunn.load(path, device="cuda:7")


@pytest.mark.parametrize("kind", ["network", "run"])
def test_the_file_is_plain_safetensors_that_other_programs_read(path, kind):
    trainer = trained()
    (trainer.network if kind == "network" else trainer).save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert set(header) - {"__metadata__"} == set(load_file(path))
    expected = trainer.network.tensors()
    found = {key: value.tobytes() for key, value in load_file(path).items() if key in expected}
    assert found == {key: value.tobytes() for key, value in expected.items()}


def test_nothing_is_pickled(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    trained().save(path)
    gpunn.load(path)
    gpunn.Trainer.load(path)


# ------------------------------------------------------------------ where it is saved

NAMES = [
    "net",
    "net.tar.gz",
    "[x]*.safetensors",
    "what?.safetensors",
    "réseau d’été 网络.safetensors",
    "two words",
    ".hidden",
    "-dash",
    "new\nline",
    "percent%s{0}",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_will_do(tmp_path, name):
    net = network()
    network(seed=2).save(tmp_path / name)
    net.save(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert gpunn.load(tmp_path / name).theta.tobytes() == net.theta.tobytes()


def test_the_longest_file_name_will_do(tmp_path):
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    network().save(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


class OnlyPathLike:
    """Something that knows its path and nothing else."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("form", [str, OnlyPathLike, Path], ids=["a string", "path-like", "a Path"])
def test_paths_come_in_every_form(path, form):
    trained().save(form(path))
    assert gpunn.load(form(path)).seed == gpunn.Trainer.load(form(path)).seed == 1


def test_a_file_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network().save("net")
    assert gpunn.load("net").seed == 1


def test_a_missing_folder_is_named_and_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        network().save(tmp_path / "nowhere" / "net")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_no_place_for_a_file_and_stays(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    with pytest.raises(OSError, match="net"):
        network().save(folder)
    assert os.listdir(tmp_path) == ["net"]
    assert os.listdir(folder) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_keeps_its_old_file(path):
    network().save(path)
    before = path.read_bytes()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            network(seed=2).save(path)
    finally:
        path.parent.chmod(0o700)
    assert path.read_bytes() == before


def test_a_link_stays_a_link(path, tmp_path):
    network(seed=2).save(path)
    link = tmp_path / "latest"
    link.symlink_to(path)
    network().save(link)
    assert link.is_symlink()
    assert gpunn.load(path).seed == gpunn.load(link).seed == 1


# ------------------------------------------------------------------ a save that fails


def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("how", "error"), [(fail, OSError), (interrupt, KeyboardInterrupt)], ids=["full", "Ctrl-C"]
)
@pytest.mark.parametrize("function", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("old", [True, False], ids=["over an old file", "a new file"])
def test_a_save_that_fails_leaves_the_old_file_and_no_litter(path, monkeypatch, function, how, error, old):
    if old:
        network(seed=2).save(path)
    monkeypatch.setattr(function, how)
    with pytest.raises(error):
        network().save(path)
    monkeypatch.undo()
    assert os.listdir(path.parent) == ([path.name] if old else [])
    assert not old or gpunn.load(path).seed == 2


def test_a_disk_that_fills_up_while_writing_leaves_the_old_file_and_no_litter(path):
    resource = pytest.importorskip("resource", reason="limits of file sizes are known to Unix only")
    network(seed=2).save(path)
    big = gpunn.Sequential([gpunn.Dense(200)], input_shape=200, seed=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            big.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(path.parent) == [path.name]
    assert gpunn.load(path).seed == 2


def test_the_content_is_on_the_disk_before_the_name_is(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append("replace") or replace(a, b))
    network().save(path)
    assert calls[:2] == ["fsync", "replace"]


def test_threads_that_save_to_one_path_do_not_disturb_each_other(path):
    net, failures = network(), []

    def save_often():
        try:
            for _ in range(20):
                net.save(path)
                gpunn.load(path)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=save_often) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failures == []
    assert os.listdir(path.parent) == [path.name]


SAVE_FOR_EVER = """
import os
import sys
import time

import gpunn

path, moment = sys.argv[1:]
layers = [gpunn.Dense(300), gpunn.Dense(300)]
nets = [gpunn.Sequential(layers, input_shape=300, seed=seed) for seed in (1, 2)]
nets[0].save(path)


def wait(*args, **kwargs):
    print("ready", flush=True)
    time.sleep(60)


if moment in ("fsync", "replace"):
    setattr(os, moment, wait)
else:
    print("ready", flush=True)
while True:
    for net in nets:
        net.save(path)
"""


def kill_while_saving(path, moment, delay):
    child = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path), moment],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is known to Unix only")
@pytest.mark.parametrize(
    ("moment", "delay"),
    [("fsync", 0), ("replace", 0), *(("any", 0.003 * i) for i in range(1, 9))],
)
def test_a_save_that_is_killed_leaves_a_whole_file_and_the_next_one_clears_up(path, moment, delay):
    kill_while_saving(path, moment, delay)
    assert gpunn.load(path).seed in (1, 2)
    assert moment == "any" or len(os.listdir(path.parent)) == 2
    network(seed=3).save(path)
    assert os.listdir(path.parent) == [path.name]
    assert gpunn.load(path).seed == 3


def test_what_else_lies_beside_the_file_stays(path):
    others = [
        f"{path.name}.bak",
        f".{path.name}.notes",
        ".another.saving",
        "net.safetensors2",
        "latest.saving",
    ]
    [(path.parent / name).write_text("not ours") for name in others]
    network().save(path)
    assert sorted(os.listdir(path.parent)) == sorted([*others, path.name])


def test_what_a_killed_save_of_another_file_left_stays_until_that_file_is_saved(path):
    kill_while_saving(path, "replace", 0)
    litter = set(os.listdir(path.parent)) - {path.name}
    network().save(path.with_name("other.safetensors"))
    assert set(os.listdir(path.parent)) == {path.name, "other.safetensors", *litter}
    network().save(path)
    assert set(os.listdir(path.parent)) == {path.name, "other.safetensors"}


# ------------------------------------------------------------------ damaged files


@pytest.mark.parametrize("load", [gpunn.load, gpunn.Trainer.load], ids=["a network", "a run"])
def test_a_missing_file_is_named(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("load", [gpunn.load, gpunn.Trainer.load], ids=["a network", "a run"])
def test_a_folder_is_no_file(tmp_path, load):
    with pytest.raises(gpunn.FormatError, match="is a folder, expected a file"):
        load(tmp_path)


def npz_bytes(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    return (tmp_path / "arrays.npz").read_bytes()


OTHER_CONTENT = {
    "empty": lambda folder: b"",
    "a text": lambda folder: b"layers.0.weights = 1, 2, 3\n" * 20,
    "zeros": lambda folder: bytes(1000),
    "JSON": lambda folder: b'{"layers.0.weights": [1, 2, 3]}',
    "npz": npz_bytes,
    "a huge header": lambda folder: b"\xff" * 8 + b"{}",
    "a pickle": lambda folder: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n." * 3,
}


@pytest.mark.parametrize("load", [gpunn.load, gpunn.Trainer.load], ids=["a network", "a run"])
@pytest.mark.parametrize("content", OTHER_CONTENT.values(), ids=OTHER_CONTENT)
def test_a_file_of_another_format_is_refused(path, content, load):
    path.write_bytes(content(path.parent))
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors is not a whole safetensors file"):
        load(path)


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F8_E4M3", "BF16", "F4"])
def test_a_dtype_that_numpy_lacks_is_refused(path, dtype):
    entry = {
        "dtype": dtype,
        "shape": [2 if dtype == "F4" else 1],
        "data_offsets": [0, 2 if dtype == "BF16" else 1],
    }
    header = json.dumps({"__metadata__": {"gpunn": "0 {}"}, "t": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(entry["data_offsets"][1]))
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors is not a whole safetensors file"):
        gpunn.load(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}], ids=["none", "empty", "another's"])
def test_a_safetensors_file_of_another_program_is_refused(path, metadata):
    save_file({"weight": np.zeros(3)}, path, metadata=metadata)
    with pytest.raises(
        gpunn.FormatError, match=r"not one of gpunn's: it holds 'weight' and no 'gpunn' entry"
    ):
        gpunn.load(path)


@pytest.fixture(scope="module")
def file_of_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    trained().save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "damaged.safetensors"


@pytest.mark.parametrize(
    "part", [*np.linspace(0, 1, 40, endpoint=False), "all but one byte", "one byte more"]
)
def test_a_file_that_was_cut_is_refused(file_of_run, scratch, part):
    whole = len(file_of_run)
    length = {"all but one byte": whole - 1, "one byte more": whole}.get(part) or int(whole * part)
    scratch.write_bytes(file_of_run[:length] + (b"\0" if part == "one byte more" else b""))
    with pytest.raises(gpunn.FormatError, match=r"damaged\.safetensors"):
        gpunn.load(scratch)


@pytest.mark.parametrize("number", range(320))
def test_a_file_with_one_bit_turned_is_refused(file_of_run, scratch, number):
    bit = random.Random(number).randrange(8 * len(file_of_run))
    damaged = bytearray(file_of_run)
    damaged[bit // 8] ^= 1 << bit % 8
    scratch.write_bytes(damaged)
    with pytest.raises(gpunn.FormatError, match=r"damaged\.safetensors"):
        gpunn.Trainer.load(scratch)


# ------------------------------------------------------------------ files that were made up


def write_file(path, description, tensors):
    """A file with a right checksum, whatever it says."""
    text = description if isinstance(description, str) else json.dumps(description)
    path.write_bytes(save(tensors, metadata={"gpunn": f"{_digest(text, tensors)} {text}"}))


@pytest.fixture
def write_network(path):
    """Write a network's file with entries of its configuration replaced, or left out."""

    def write(without=(), tensors=None, kind="network", **changes):
        net = network()
        config = {k: v for k, v in {**net.config(), **changes}.items() if k not in without}
        write_file(
            path, {"format": 1, "kind": kind, "config": config}, net.tensors() if tensors is None else tensors
        )
        return path

    return write


@pytest.fixture
def write_run(path):
    """Write a run's file with entries of its configuration or its tensors replaced, or left out."""

    def write(without=(), tensors=None, **changes):
        trainer = trained()
        trainer.save(path)
        size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + size])
        config = json.loads(header["__metadata__"]["gpunn"].partition(" ")[2])["config"]
        config = {k: v for k, v in {**config, **changes}.items() if k not in without}
        kept = {k: v for k, v in {**load_file(path), **(tensors or {})}.items() if k not in without}
        write_file(path, {"format": 1, "kind": "run", "config": config}, kept)
        return path

    return write


def dense(**config):
    return [{"class": "Dense", "config": config}]


def test_a_file_made_up_rightly_is_read(write_network):
    assert gpunn.load(write_network()).theta.tobytes() == network().theta.tobytes()


def test_a_run_made_up_rightly_is_read(write_run):
    assert gpunn.Trainer.load(write_run()).updates == 7


DESCRIPTIONS = {
    "empty": "",
    "no JSON": "{",
    "a list": "[1]",
    "a string": '"network"',
    "null": "null",
    "no format": {"kind": "network", "config": {}},
    "no kind": {"format": 1, "config": {}},
    "no configuration": {"format": 1, "kind": "network"},
    "a configuration that is no mapping": {"format": 1, "kind": "network", "config": 3},
    "nested too deeply": "[" * 100_000 + "]" * 100_000,
    "another kind": {"format": 1, "kind": "forest", "config": {}},
    "a kind that is a list": {"format": 1, "kind": ["network"], "config": {}},
    "an empty configuration": {"format": 1, "kind": "network", "config": {}},
    "an empty run": {"format": 1, "kind": "run", "config": {}},
    "a run whose network is a list": {"format": 1, "kind": "run", "config": {"network": [1]}},
    "a run whose network is null": {"format": 1, "kind": "run", "config": {"network": None}},
}


@pytest.mark.parametrize("load", [gpunn.load, gpunn.Trainer.load], ids=["a network", "a run"])
@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_makes_no_sense_is_refused(path, description, load):
    write_file(path, description, network().tensors())
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors"):
        load(path)


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_version_of_the_format_is_refused(path, version):
    write_file(
        path, {"format": version, "kind": "network", "config": network().config()}, network().tensors()
    )
    with pytest.raises(gpunn.FormatError, match=r"has format .*reads 1: update gpunn"):
        gpunn.load(path)


def test_a_wrong_checksum_is_refused(path):
    net = network()
    text = json.dumps({"format": 1, "kind": "network", "config": net.config()})
    path.write_bytes(save(net.tensors(), metadata={"gpunn": f"{'0' * 64} {text}"}))
    with pytest.raises(gpunn.FormatError, match="damaged: its content does not match its SHA-256"):
        gpunn.load(path)


def test_a_missing_checksum_is_refused(path):
    net = network()
    text = json.dumps({"format": 1, "kind": "network", "config": net.config()})
    path.write_bytes(save(net.tensors(), metadata={"gpunn": text}))
    with pytest.raises(gpunn.FormatError, match="SHA-256"):
        gpunn.load(path)


NAN, INFINITY = float("nan"), float("inf")
CHANGES = {
    "an unknown class of network": {"class": "Sequentiel"},
    "a class that is a list": {"class": ["Sequential"]},
    "a class that is null": {"class": None},
    "layers that are null": {"layers": None},
    "layers that are a number": {"layers": 3},
    "layers that are a string": {"layers": "Dense"},
    "no layers": {"layers": []},
    "an unknown layer": {"layers": [{"class": "Conv", "config": {}}]},
    "a layer that is a list": {"layers": [["Dense", {"units": 3}]]},
    "a layer's class that is a list": {"layers": [{"class": ["Dense"], "config": {}}]},
    "a layer without its class": {"layers": [{"config": {"units": 3}}]},
    "a layer without its configuration": {"layers": [{"class": "Dense"}]},
    "a layer's configuration that is a list": {"layers": [{"class": "Dense", "config": [3]}]},
    "a layer with an unknown argument": {"layers": dense(units=3, colour="red")},
    "a layer without its units": {"layers": dense()},
    "no units": {"layers": dense(units=0)},
    "units that are NaN": {"layers": dense(units=NAN)},
    "units that are infinite": {"layers": dense(units=INFINITY)},
    "units that are a string": {"layers": dense(units="3")},
    "more units than memory": {"layers": dense(units=10**13)},
    "more units than numbers": {"layers": dense(units=10**30)},
    "an unknown activation": {"layers": dense(units=3, activation="sine")},
    "an activation that is a list": {"layers": dense(units=3, activation=["tanh"])},
    "an unknown initialiser": {"layers": dense(units=3, weights="ones")},
    "another input shape": {"input_shape": [5]},
    "an empty input shape": {"input_shape": []},
    "an input shape of NaN": {"input_shape": [NAN]},
    "an input shape that is null": {"input_shape": None},
    "an input shape of strings": {"input_shape": ["4"]},
    "an image": {"input_shape": [2, 2]},
    "another dtype": {"dtype": "float64"},
    "an unknown dtype": {"dtype": "float16"},
    "a dtype that is null": {"dtype": None},
    "a dtype in NumPy's shorthand": {"dtype": "<f4"},
    "a dtype that NumPy warns of": {"dtype": "a"},
    "a dtype that NumPy runs as Python": {"dtype": "(,)f4"},
    "a seed that is NaN": {"seed": NAN},
    "a seed that is infinite": {"seed": INFINITY},
    "a negative seed": {"seed": -1},
    "a seed that is a string": {"seed": "1"},
    "an unknown loss": {"loss": "hinge"},
    "a loss that is a list": {"loss": ["mse"]},
}


@pytest.mark.parametrize("load", [gpunn.load, gpunn.Trainer.load], ids=["alone", "in a run"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_network_that_cannot_be_built_is_refused(write_network, write_run, changes, load):
    if load is gpunn.load:
        path = write_network(**changes)
    else:
        path = write_run(network={**network().config(), **changes})
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors"):
        load(path)


@pytest.mark.parametrize("key", ["class", "layers", "input_shape", "dtype", "seed"])
def test_a_network_without_an_entry_is_refused(write_network, key):
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors"):
        gpunn.load(write_network(without=[key]))


def test_a_file_that_claims_more_than_it_holds_takes_no_memory(write_network):
    path = write_network(layers=dense(units=10**7))
    tracemalloc.start()
    try:
        with pytest.raises(gpunn.FormatError, match=r"'layers.0.weights' is float32 \(5, 4\)"):
            gpunn.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def with_tensor(name, values):
    return {**network().tensors(), name: values}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "'layers.0.weights' is missing"),
        (
            {k: v for k, v in network().tensors().items() if k != "layers.1.bias"},
            "'layers.1.bias' is missing",
        ),
        (with_tensor("layers.0.weights", np.zeros((4, 5), "f4")), r"float32 \(4, 5\).*float32 \(5, 4\)"),
        (with_tensor("layers.0.weights", np.zeros(20, "f4")), r"float32 \(20,\).*float32 \(5, 4\)"),
        (with_tensor("layers.0.bias", np.zeros(5)), r"float64 \(5,\).*float32 \(5,\)"),
        (with_tensor("layers.0.bias", np.zeros(5, "i4")), r"int32 \(5,\).*float32 \(5,\)"),
    ],
    ids=["none", "one missing", "turned", "flat", "float64", "integers"],
)
def test_tensors_that_do_not_fit_the_configuration_are_refused(write_network, tensors, message):
    with pytest.raises(gpunn.FormatError, match=message):
        gpunn.load(write_network(tensors=tensors))


RUN_CHANGES = {
    "an unknown optimiser": {"optimizer": {"class": "Lion", "config": {}}},
    "an optimiser that is null": {"optimizer": None},
    "an optimiser's class that is a number": {"optimizer": {"class": 5, "config": {}}},
    "an optimiser's configuration that is a number": {"optimizer": {"class": "Adam", "config": 5}},
    "an optimiser with an unknown argument": {"optimizer": {"class": "Adam", "config": {"speed": 1}}},
    "a negative learning rate": {"optimizer": {"class": "Adam", "config": {"lr": -1}}},
    "a learning rate of NaN": {"optimizer": {"class": "Adam", "config": {"lr": NAN}}},
    "a learning rate beyond all floats": {"optimizer": {"class": "Adam", "config": {"lr": 10**400}}},
    "an optimiser that is not the tensors'": {"optimizer": {"class": "SGD", "config": {"momentum": 0.5}}},
    "an unknown loss": {"loss": "hinge"},
    "a loss that is a number": {"loss": 5},
    "no batch": {"batch_size": 0},
    "a batch of NaN": {"batch_size": NAN},
    "metrics that are a string": {"metrics": "accuracy"},
    "metrics that are null": {"metrics": None},
    "an unknown metric": {"metrics": ["f2"]},
    "a metric that has no sum": {"metrics": ["accuracy"]},
    "another metric that has no sum": {"metrics": ["f1"]},
    "a metric that means nothing for labels": {"metrics": ["r2"]},
    "a schedule that is a word": {"optimizer": {"class": "Adam", "config": {"schedule": "Cosine"}}},
    "an unknown schedule": {
        "optimizer": {"class": "Adam", "config": {"schedule": {"class": "Sine", "config": {"length": 3}}}}
    },
    "a schedule without its length": {
        "optimizer": {"class": "Adam", "config": {"schedule": {"class": "Cosine", "config": {}}}}
    },
    "a schedule of a number": {
        "optimizer": {"class": "Adam", "config": {"schedule": {"class": "Cosine", "config": 3}}}
    },
    "a clip of zero": {"optimizer": {"class": "Adam", "config": {"clip_norm": 0}}},
    "a scale of the rate that is zero": {"lr_scale": 0},
    "a scale of the rate that is NaN": {"lr_scale": NAN},
    "a scale of the rate that is null": {"lr_scale": None},
    "a seed that is NaN": {"seed": NAN},
    "a seed that is infinite": {"seed": INFINITY},
    "a negative seed": {"seed": -1},
    "epochs that are infinite": {"epochs_done": INFINITY},
    "epochs that are negative": {"epochs_done": -1},
    "epochs that are null": {"epochs_done": None},
    "a pass that is null": {"pass": None},
    "a pass that is a list": {"pass": [1]},
    "a pass without its seconds": {"pass": {"count": 23, "shuffle": True}},
    "a pass whose seconds are a string": {"pass": {"count": 23, "shuffle": True, "seconds": "1"}},
    "a history that is null": {"history": None},
    "a history of numbers": {"history": [1]},
    "a history that is a string": {"history": "best"},
}


@pytest.mark.parametrize("changes", RUN_CHANGES.values(), ids=RUN_CHANGES)
def test_a_run_that_cannot_be_rebuilt_is_refused(write_run, changes):
    with pytest.raises(gpunn.FormatError, match=r"net\.safetensors"):
        gpunn.Trainer.load(write_run(**changes))


RUN_ENTRIES = [
    "network",
    "loss",
    "optimizer",
    "batch_size",
    "metrics",
    "seed",
    "epochs_done",
    "lr_scale",
    "pass",
    "history",
]


@pytest.mark.parametrize("key", [*RUN_ENTRIES, "state.adam.m", "state.cursor", "state.hyper", "state.step"])
def test_a_run_without_an_entry_is_refused(write_run, key):
    with pytest.raises(gpunn.FormatError, match=rf"net\.safetensors.*{key}"):
        gpunn.Trainer.load(write_run(without=[key]))


@pytest.mark.parametrize("cursor", [-5, 24, 10**9])
def test_a_run_that_stopped_outside_its_data_is_refused(write_run, cursor):
    with pytest.raises(gpunn.FormatError, match="cursor"):
        gpunn.Trainer.load(write_run(tensors={"state.cursor": np.array([cursor])}))


def test_a_file_that_is_refused_changes_no_network(write_network):
    net = network(seed=2)
    before = copy.copy(net.theta)
    with pytest.raises(gpunn.FormatError):
        gpunn.load(write_network(seed=-1))
    np.testing.assert_array_equal(net.theta, before)


def test_the_same_network_gives_the_same_bytes(path, tmp_path):
    network().save(path)
    network().save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
