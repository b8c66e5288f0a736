"""Campaigns against the readers and writers of files: damage, single flipped bits, kills while saving.

A damaged file is read or refused with FormatError, at once, in memory of twice its size and 64 MB. The files
come by number (see ``mutations.py``), so a failure can be repeated. ``GPUNN_CAMPAIGN=full`` reads many more
of them, in processes whose memory is limited; ``GPUNN_CAMPAIGN_REPORT`` names a file for the figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import gpunn

pytest.importorskip("resource", reason="memory is limited and measured on Unix only")
import mutations

FULL = os.environ.get("GPUNN_CAMPAIGN") == "full"
ROOT = Path(gpunn.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

MUTATIONS = 20_000 if FULL else 400
FLIPS = 1000 if FULL else 60
KILLS = 50 if FULL else 4

#: Seconds of the CPU for one file. It should be under one; a machine that is busy may take longer.
SECONDS = 5.0

pytestmark = pytest.mark.campaign


@pytest.fixture
def report(record_property):
    """Keep the figures of a campaign with the test, and as a line of JSON in the file that is named."""

    def write(figures):
        line = json.dumps(figures)
        record_property("campaign", line)
        if name := os.environ.get("GPUNN_CAMPAIGN_REPORT"):
            with open(name, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        if FULL:
            print(line)

    return write


@pytest.mark.parametrize("kind", mutations.FORMATS)
def test_a_damaged_file_is_read_or_refused_at_once_and_in_bounded_memory(kind, tmp_path, report):
    if FULL:
        if not Path("/proc/self/statm").exists():
            pytest.skip("the memory of a process is limited file by file on Linux only")
        done = subprocess.run(
            [sys.executable, mutations.__file__, kind, "0", str(MUTATIONS)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr == ""
        found = json.loads(done.stdout)
    else:
        found = mutations.campaign(kind, 0, MUTATIONS, tmp_path)
    report(found)
    assert found["failures"] == []
    assert found["refused"] + found["read"] == MUTATIONS
    assert min(found["refused"], found["read"]) > MUTATIONS / 50, "the damage is too harmless, or too plain"
    assert found["slowest_seconds"] < SECONDS, f"mutations.case({kind!r}, {found['slowest_case']})"


@pytest.mark.parametrize("kind", mutations.FORMATS)
def test_the_same_number_gives_the_same_file(kind):
    for number in range(5):
        assert mutations.case(kind, number) == mutations.case(kind, number)
    assert len({mutations.case(kind, number) for number in range(20)}) > 10


def _bits(rng: random.Random, content: bytes) -> list[int]:
    """Every bit of a file, shuffled so that its length, header, description and tensors come in turn."""
    size = 8 + int.from_bytes(content[:8], "little")
    start = content.index(b'"gpunn":')
    parts = [range(64), range(64, 8 * start), range(8 * start, 8 * size), range(8 * size, 8 * len(content))]
    shuffled = [rng.sample(part, len(part)) for part in parts]
    longest = max(map(len, shuffled))
    return [part[i] for i in range(longest) for part in shuffled if i < len(part)]


@pytest.mark.parametrize("kind", ["model", "run"])
def test_every_single_bit_that_is_flipped_is_noticed(kind, tmp_path, report):
    rng = random.Random(0)
    path = tmp_path / "flipped.safetensors"
    read = gpunn.load if kind == "model" else gpunn.Trainer.load
    files = [content for _, content in mutations.seeds(kind)]
    flips = [
        (i, bit) for i, content in enumerate(files) for bit in _bits(rng, content)[: -(-FLIPS // len(files))]
    ]
    noticed, missed = 0, []
    for i, bit in flips[:FLIPS]:
        damaged = bytearray(files[i])
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read(path)
        except gpunn.FormatError:
            noticed += 1
        else:
            missed.append((i, bit))
    report(
        {"campaign": f"bit flips in {kind} files", "cases": FLIPS, "refused": noticed, "read": len(missed)}
    )
    assert missed == []
    assert noticed == FLIPS


SAVE_FOR_EVER = """
import sys

import gpunn

path, kind = sys.argv[1:]
layers = [gpunn.Dense(500), gpunn.Dense(500)]
saved = [gpunn.Sequential(layers, input_shape=500, seed=seed) for seed in (1, 2)]
if kind == "run":
    saved = [gpunn.Trainer(net, loss="quadratic", optimizer="adam") for net in saved]
saved[0].save(path)
print("ready", flush=True)
while True:
    for each in saved:
        each.save(path)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is known to Unix only")
@pytest.mark.parametrize("kind", ["model", "run"])
def test_a_kill_at_any_moment_leaves_a_whole_file_and_the_next_save_clears_up(kind, tmp_path, report):
    rng = random.Random(0)
    path = tmp_path / "saved.safetensors"
    read = gpunn.load if kind == "model" else lambda path: gpunn.Trainer.load(path).network
    layers = [gpunn.Dense(500), gpunn.Dense(500)]
    thetas = {seed: gpunn.Sequential(layers, input_shape=500, seed=seed).theta for seed in (1, 2)}
    found = {1: 0, 2: 0}
    litter = 0
    for _ in range(KILLS // 2):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, str(path), kind],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.15))
            child.send_signal(signal.SIGKILL)
        network = read(path)
        found[network.seed] += 1
        np.testing.assert_array_equal(network.theta, thetas[network.seed])
        litter += len(os.listdir(tmp_path)) - 1
        gpunn.Sequential([gpunn.Dense(2)], input_shape=2, seed=3).save(path)
        assert os.listdir(tmp_path) == [path.name]
        assert gpunn.load(path).seed == 3
    report(
        {
            "campaign": f"kills while saving a {kind}",
            "cases": KILLS // 2,
            "read": sum(found.values()),
            "first": found[1],
            "second": found[2],
            "in the middle of a save": litter,
        }
    )


def test_an_honest_file_may_unpack_to_more_but_is_seen_to_be_whole_first(tmp_path):
    """Zeros pack to a thousandth: what is whole is read, what is not is refused before memory is taken."""
    size = 2**26
    zeros = np.zeros(size, np.uint8)
    gpunn.data.write_idx(tmp_path / "whole.gz", zeros)
    np.savez_compressed(tmp_path / "whole.npz", X=zeros.view("f4")[None], y=[0.5])
    assert gpunn.data.read_idx(tmp_path / "whole.gz").shape == (size,)
    assert gpunn.data.read_npz(tmp_path / "whole.npz").train.X.nbytes == size
    content = bytearray((tmp_path / "whole.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "damaged.gz").write_bytes(content)
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "damaged.npz").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(gpunn.FormatError, match=r"damaged\.gz: the gzip stream is damaged"):
            gpunn.data.read_idx(tmp_path / "damaged.gz")
        with pytest.raises(gpunn.FormatError, match=r"damaged\.npz: "):
            gpunn.data.read_npz(tmp_path / "damaged.npz")
        assert tracemalloc.get_traced_memory()[1] < size // 8
    finally:
        tracemalloc.stop()
