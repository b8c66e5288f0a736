"""Damaged files by number: the same format and number give the same bytes; and how each is read and measured.

``python tests/mutations.py FORMAT FIRST COUNT`` reads COUNT of them in a process of its own, whose memory is
limited before each file, and prints what it measured as one line of JSON.
"""

from __future__ import annotations

import copy
import faulthandler
import gzip
import io
import json
import math
import random
import re
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpunn
from gpunn.checkpoint import _digest
from gpunn.data import load, read_csv, read_idx, read_npz, write_idx

FORMATS = ("idx", "csv", "npz", "model", "run")

#: What reading a file may take beside twice the file.
ALLOWANCE = 64 * 2**20

# fmt: off
EDGES = [
    0, 1, 2, 3, 7, 32, 33, 64, 65, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**12, 10**30, -1, -2, -128, -(2**31),
    -(2**63),
]
# fmt: on


class Case(NamedTuple):
    """A file; ``holds`` is what a whole compressed file unpacks to, where that is more than a few KB."""

    name: str
    content: bytes
    holds: int = 0


# ------------------------------------------------------------------ the files that are damaged


@cache
def seeds(kind: str) -> tuple[tuple[str, bytes], ...]:
    """Valid files of a format: (name, content)."""
    with tempfile.TemporaryDirectory() as folder:
        SEEDS[kind](Path(folder))
        return tuple((path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir()))


def _idx_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("u1", "i1", "i2", "i4", "f4", "f8"):
        write_idx(folder / f"{dtype}-idx", rng.integers(0, 100, (5, 4, 3)).astype(dtype))
        write_idx(folder / f"{dtype}-idx.gz", rng.integers(0, 100, (7, 3)).astype(dtype))
    write_idx(folder / "labels-idx1", rng.integers(0, 10, 300).astype("u1"))
    write_idx(folder / "images-idx3.gz", (rng.random((20, 28, 28)) > 0.8).astype("u1") * 255)
    write_idx(folder / "scalar-idx0", np.array(3, "u1"))
    write_idx(folder / "empty-idx2", np.zeros((0, 5), "f4"))


def _csv_seeds(folder: Path) -> None:
    rng = random.Random(0)
    rows = [[f"{rng.gauss(0, 1):.4g}", f"{rng.random():.3f}", str(rng.randrange(100))] for _ in range(30)]
    words = ["cat", "dog", "œuf", "bird of prey", "蛋"]
    for name, delimiter, end in (("comma", ",", "\n"), ("semicolon", ";", "\r\n"), ("tab", "\t", "\n")):
        lines = [delimiter.join([*row, str(i % 3)]) for i, row in enumerate(rows)]
        (folder / f"{name}.csv").write_bytes((end.join(lines) + end).encode())
        lines = [delimiter.join([*row, words[i % 5]]) for i, row in enumerate(rows)]
        table = end.join([delimiter.join(["a", "b b", "c", "kind"]), *lines])
        (folder / f"{name}-words.csv").write_bytes(table.encode())
    quoted = "\n".join(",".join(f'"{cell}"' for cell in [*row, 'a ""b"", c']) for row in rows)
    (folder / "quoted.csv").write_bytes(b"\xef\xbb\xbf" + quoted.encode())
    (folder / "one-row.txt").write_bytes(b"1,2,3")
    (folder / "one-column.csv").write_bytes(b"\xef\xbb\xbfa;y\n1;0.5\n2;1.5\n\n3;-2e3\n")
    (folder / "tabs.tsv").write_bytes(b"x\ty\n1\t0\n2\t1\n3\t2\n")


def _npz_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 3)), np.arange(12) % 3
    np.savez(folder / "doubles.npz", X=X, y=y)
    np.savez_compressed(folder / "floats.npz", X=X.astype("f4"), y=y.astype("u1"))
    np.savez(
        folder / "images.npz",
        x_train=np.zeros((6, 4, 4), "u1"),
        y_train=y[:6],
        x_test=np.ones((2, 4, 4), "u1"),
        y_test=y[:2],
    )
    np.savez_compressed(
        folder / "words.npz", data=np.asfortranarray(X), target=np.array(["a", "bé", "蛋蛋"])[y]
    )
    np.savez(folder / "bytes.npz", x=X.astype(">f4"), y=np.array([b"a", b"bc", b"d"])[y])
    np.savez(folder / "rows.npz", X=X.astype("f2"), y=X[:, :2], other=np.zeros(3, "M8[s]"))
    np.savez_compressed(
        folder / "whole.npz", X=(X * 9).astype("i8"), y=X[:, :1], X_test=X[:2].astype("i8"), y_test=X[:2, :1]
    )


def _networks() -> list[Any]:
    layers = [
        ([gpunn.Dense(5, activation="tanh", bias="normal"), gpunn.Dense(3)], 4, "float32"),
        (
            [gpunn.Flatten(), gpunn.Dense(6, activation="sigmoid"), gpunn.Activation("softmax")],
            (2, 3),
            "float64",
        ),
        ([gpunn.Dense(7, activation=name) for name in ("relu", "tanh", "softmax")], 3, "float32"),
        ([gpunn.Flatten(), gpunn.Activation("tanh")], (2, 2), "float32"),
        ([gpunn.Dense(1)], 1, "float64"),
    ]
    return [gpunn.Sequential(stack, shape, dtype=dtype, seed=7) for stack, shape, dtype in layers]


def _model_seeds(folder: Path) -> None:
    for i, network in enumerate(_networks()):
        network.save(folder / f"{i}.safetensors")


def _run_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    optimizers = ["adam", gpunn.SGD(lr=0.1, momentum=0.5), "sgd", gpunn.Adam(l2=0.01)]
    for i, (network, optimizer) in enumerate(zip(_networks()[:3] + _networks()[4:], optimizers, strict=True)):
        X = rng.standard_normal((13, *network.input_shape))
        y = rng.integers(0, network.outputs, 13) if network.outputs > 1 else rng.standard_normal(13)
        loss = "quadratic" if i in (1, 3) else "cross_entropy"
        metrics = ("accuracy",) if network.outputs > 1 else ()
        trainer = gpunn.Trainer(network, loss=loss, optimizer=optimizer, batch_size=5, metrics=metrics)
        trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=0)
        trainer.epoch(X, y, steps=1 + i % 2)
        # What the clock said would make other bytes each time.
        for record in (trainer._pass, *trainer.history):
            record["seconds"] = 0.125
        trainer.save(folder / f"{i}.safetensors")


SEEDS: dict[str, Callable[[Path], None]] = {
    "idx": _idx_seeds,
    "csv": _csv_seeds,
    "npz": _npz_seeds,
    "model": _model_seeds,
    "run": _run_seeds,
}


# ------------------------------------------------------------------ damage to any bytes


def scramble(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """One to four small damages, each of which keeps most of the file as it was."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        rng.choice(DAMAGES)(rng, damaged, other or content)
    return bytes(damaged[: 2**20])


def _place(rng: random.Random, damaged: bytearray) -> int:
    # Headers come first and directories last: half of all damage goes there.
    size = len(damaged)
    return rng.choice(
        [rng.randrange(size + 1)] * 2
        + [rng.randrange(min(size, 64) + 1), size - rng.randrange(min(size, 128) + 1)]
    )


def _flip(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    if damaged:
        damaged[min(_place(rng, damaged), len(damaged) - 1)] ^= 1 << rng.randrange(8)


def _replace(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start, size = _place(rng, damaged), rng.randint(1, 8)
    byte = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b" ", b'"', b"["])
    damaged[start : start + size] = rng.choice([byte * size, rng.randbytes(size)])


def _number(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start, width = _place(rng, damaged), rng.choice([1, 2, 4, 8])
    value = (rng.choice(EDGES) % 2 ** (8 * width)).to_bytes(width, rng.choice(["little", "big"]))
    damaged[start : start + width] = value


def _digits(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    if found := list(re.finditer(rb"\d+", damaged)):
        start, end = rng.choice(found).span()
        damaged[start:end] = str(rng.choice(EDGES)).encode()


def _truncate(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    del damaged[_place(rng, damaged) :]


def _insert(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start = _place(rng, damaged)
    damaged[start:start] = rng.choice([rng.randbytes(rng.randint(1, 40)), b"\0" * rng.choice([1, 8, 1000])])


def _delete(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start = _place(rng, damaged)
    del damaged[start : start + rng.choice([1, 2, 4, 8, rng.randint(1, 200)])]


def _duplicate(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start = _place(rng, damaged)
    chunk = bytes(damaged[start : start + rng.randint(1, 300)])
    damaged[start:start] = chunk * rng.choice([1, 1, 2, 50])


def _move(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start = _place(rng, damaged)
    end = start + rng.randint(1, 300)
    chunk = bytes(damaged[start:end])
    del damaged[start:end]
    target = _place(rng, damaged)
    damaged[target:target] = chunk


def _splice(rng: random.Random, damaged: bytearray, other: bytes) -> None:
    start, take = _place(rng, damaged), rng.randrange(len(other) + 1)
    chunk = other[take : take + rng.randint(1, 500)]
    damaged[start : start + rng.choice([0, len(chunk)])] = chunk


DAMAGES = [_flip, _flip, _replace, _number, _digits, _truncate, _insert, _delete, _duplicate, _move, _splice]


def _seed(rng: random.Random, kind: str) -> tuple[str, bytes, bytes]:
    name, content = rng.choice(seeds(kind))
    return name, content, rng.choice(seeds(kind))[1]


# ------------------------------------------------------------------ IDX


@cache
def _zeros(size: int) -> bytes:
    return gzip.compress(bytes(size), mtime=0)


def idx_case(rng: random.Random) -> Case:
    name, content, other = _seed(rng, "idx")
    kind = rng.randrange(40) / 4
    if kind < 4:
        return Case(name, scramble(rng, content, other))
    plain = gzip.decompress(content) if name.endswith(".gz") else content
    pack = rng.choice([bytes, lambda data: gzip.compress(data, mtime=0)])
    if kind < 7:
        axes = rng.choice([plain[3], 0, 1, 2, 3, 32, 33, 64, 255])
        sizes = [rng.choice([*EDGES, 1, 1, 2]) % 2**32 for _ in range(axes)]
        if rng.random() < 0.3:
            sizes = [1] * axes
        code = rng.choice([plain[2], 8, 9, 11, 12, 13, 14, 10, 0, 255])
        data = bytes([0, 0, code, axes]) + struct.pack(f">{axes}I", *sizes) + plain[4 + 4 * plain[3] :]
        return Case(name, pack(data))
    if kind < 8:
        return Case(name, pack(scramble(rng, plain, other)))
    if kind < 9.5:
        # The flags of gzip's header announce fields that the stream does not have.
        packed = bytearray(gzip.compress(plain, mtime=0))
        packed[3] = rng.randrange(256)
        packed[10:10] = rng.randbytes(rng.choice([0, 2, 20, 70_000]))
        return Case(name, bytes(packed) + rng.choice([b"", b"\0" * 99, packed, other]))
    # A bomb: a header, then zeros that unpack to a thousand times their size.
    size = rng.choice([2**20, 2**20, 2**24, 2**26])
    said = rng.choice([size, size, size - 1, size + 1, 1, 2**31, 2**32 - 1])
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", said)
    return Case(name, gzip.compress(head, mtime=0) + _zeros(size), holds=size if said == size else 0)


# ------------------------------------------------------------------ CSV

# fmt: off
CELLS = [
    "", " ", "nan", "inf", "-Infinity", "1e999", "-1e-999", "1e", "1_0", "٣", "0x1", "1,5", "+", ".", "#",
    "'", "9" * 25, "9" * 400, "9" * 5000, "-" + "9" * 20, str(2**63), str(-(2**63)), "1" * 2000 + "x",
    "0." + "3" * 999, "word", "é", "\ufeff", "\u2028", "\x1c", "\x0b", "\x85", "true", "None", "a" * 3000,
    '"', '""', '"a', 'a"b"',
]
# fmt: on


def csv_case(rng: random.Random) -> Case:
    name, content, other = _seed(rng, "csv")
    kind = rng.randrange(10)
    if kind < 4:
        return Case(name, scramble(rng, content, other))
    text = content.decode("utf-8-sig")
    lines = re.split(r"\r?\n", text)
    delimiter = next((d for d in "\t;," if d in lines[0]), ",")
    if kind < 8:
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(lines))
            cells = lines[i].split(delimiter)
            j = rng.randrange(len(cells))
            change = rng.randrange(8)
            if change < 3:
                cells[j] = rng.choice(CELLS)
            elif change == 3:
                cells[j] = '"' + cells[j] + rng.choice(['"', '"" "', "", '"\n"'])
            elif change == 4:
                cells = cells[:j] if rng.random() < 0.5 else cells + cells[j:]
            elif change == 5:
                cells.insert(j, rng.choice(CELLS))
            elif change == 6:
                cells = [cell.replace(".", ",") for cell in cells]
            else:
                cells = [rng.choice(CELLS) for _ in cells]
            lines[i] = delimiter.join(cells)
        end = rng.choice(["\n", "\r\n", "\r", "\n\n", " \n", "\x0c"])
        return Case(name, end.join(lines).encode("utf-8", "surrogatepass"))
    return Case(name, rng.choice(TABLES)(rng, lines, delimiter))


def _columns(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    row = delimiter.join([rng.choice(["1", "12.5", "0", "x"])] * rng.choice([100, 5_000, 40_000]))
    return "\n".join([row, row] if rng.random() < 0.5 else [row, *lines]).encode()


def _long_cell(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    size = rng.choice([10_000, 131_072, 140_000, 400_000])
    cell = rng.choice(["a", "1", "é", " ", "-", "1.", "\0", "e9"])
    long = (cell * size)[:size] + rng.choice(["", "x", "e5"])
    i = rng.randrange(len(lines))
    cells = lines[i].split(delimiter)
    cells[rng.randrange(len(cells))] = rng.choice([long, f'"{long}"', f'"{long}'])
    return "\n".join([*lines[:i], delimiter.join(cells), *lines[i + 1 :] * rng.choice([1, 40])]).encode()


def _encoding(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    text = "\n".join(lines)
    coding = rng.choice(["utf-16", "utf-32", "utf-16-le", "utf-7", "cp437"])
    mark = rng.choice([b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb"])
    return mark + text.encode(coding, "replace")


def _rows(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    few = lines[: rng.randrange(4)]
    return "\n".join(rng.choice([few, lines[::-1], lines * 30, few + [""] * 5000 + few])).encode()


def _delimiters(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    text = "\n".join(lines)
    return text.replace(delimiter, rng.choice([",", ";", "\t", " ", "|", ",,", "", "\n"])).encode()


def _bytes(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    return rng.choice(
        [b"", b"\n", b"\0", b'"', b",", b",\n", b"\xef\xbb\xbf", b"\r", rng.randbytes(rng.randrange(400))]
    )


TABLES = [_columns, _long_cell, _long_cell, _encoding, _rows, _delimiters, _bytes]


# ------------------------------------------------------------------ NPZ

# fmt: off
DTYPES = [
    "<f4", ">f8", "<i8", "|u1", "|b1", "<U2", "|S3", "<f2", "<f16", "|O", "<c8", "<M8[s]", "|V4", "<U0",
    "f4,f4", "<U99999999", "<U2147483647", "<S9999999999", "a3", "<f3", "(2,)f4", "(,)f4", "", "<m8[x]",
    "<i4\\n", "\\ud800",
]
HEADERS = [
    "", "{}", "[]", "None", "1", "(" * 9000, "[" * 150 + "]" * 150, "-" * 9000 + "1", "{'descr': '<f4'}",
    "\0" * 40, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", "9" * 9000,
    "__import__('os')", "'" * 5000, "{'descr': ('<f4', (2, 3)), 'fortran_order': False, 'shape': (3,)}",
    "{" * 2000, "'\\x'", "lambda: 0", "1is 2",
]
SHAPES = [
    "()", "(12,)", "(12, 3)", "(3, 12)", "36", "(True, 3)", "(12, 3.0)", "(12L, 3L)", "(12, -3)",
    "[12, 3]", "None", "(0,)", "(0, 3)", "(12, 0)", f"({'1, ' * 33})", f"({'1, ' * 70})", "(12, 3, 1)",
    "(1, 36)", "('12', 3)",
]
# fmt: on


def npz_case(rng: random.Random) -> Case:
    name, content, other = _seed(rng, "npz")
    kind = rng.randrange(20)
    if kind < 6:
        return Case(name, scramble(rng, content, other))
    if kind < 11:
        return Case(name, _directory(rng, content))
    if kind == 11:
        bomb, holds = rng.choice(_bombs(rng.choice([2**20] * 6 + [2**24, 2**26])))
        if rng.random() < 0.5:
            return Case(name, scramble(rng, bomb, other), holds)
        return Case(name, bomb, holds)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(io.BytesIO(other)) as archive:
        others = [(info.filename, archive.read(info)) for info in archive.infolist()]
    i = rng.randrange(len(members))
    member, data = members[i]
    if kind < 17:
        members[i] = (member, _npy(rng, data))
    elif kind < 18:
        members[i] = (member, scramble(rng, data, rng.choice(others)[1]))
    else:
        change = rng.randrange(5)
        if change == 0:
            members[i] = (
                rng.choice(["X", "../X.npy", "X.npy/", "é.npy", "y.npy", "x_test.npy", "a" * 999]),
                data,
            )
        elif change == 1:
            del members[i]
        elif change == 2:
            members.append(rng.choice(others))
        elif change == 3:
            members[i] = (member, rng.choice(others)[1])
        else:
            members += [(f"{number}.npy", b"") for number in range(rng.choice([10, 500]))]
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED] * 4 + [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    return Case(name, _zipped(members, rng.choice(methods)))


def _zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _npy(rng: random.Random, data: bytes) -> bytes:
    """An array with another header; the payload stays, or does not."""
    size = int.from_bytes(data[8:10], "little")
    header, payload = data[10 : 10 + size].decode("latin-1"), data[10 + size :]
    change = rng.randrange(8)
    if change < 3:
        numbers = [rng.choice([*EDGES, 1, 2, 3, 12]) for _ in range(rng.choice([1, 2, 2, 3, 33]))]
        shape = rng.choice([rng.choice(SHAPES), f"({', '.join(map(str, numbers))},)"])
        header = re.sub(r"'shape': .*\)", f"'shape': {shape}", header)
    elif change < 5:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': '{rng.choice(DTYPES)}'", header)
    elif change == 5:
        order = rng.choice(["True", "False", "1", "None", "'C'"])
        header = re.sub(r"'fortran_order': \w+", f"'fortran_order': {order}", header)
    elif change == 6:
        header = rng.choice(HEADERS)
    else:
        header = scramble(rng, header.encode("latin-1")).decode("latin-1")[:60_000]
    fill = rng.choice([b"\0", b"\xff", b"\x7f"])
    payload = rng.choice(
        [payload] * 4 + [fill * len(payload), payload + b"\0", payload[:-1], rng.randbytes(len(payload))]
    )
    said = rng.choice([len(header)] * 9 + [rng.choice(EDGES) % 2**16])
    if rng.random() < 0.8:
        return b"\x93NUMPY\x01\0" + said.to_bytes(2, "little") + header.encode("latin-1") + payload
    version = rng.choice([b"\x02\0", b"\x03\0", b"\x01\x01", b"\0\0"])
    said = rng.choice([said, rng.choice(EDGES) % 2**32])
    return b"\x93NUMPY" + version + said.to_bytes(4, "little") + header.encode("latin-1") + payload


#: The fields of zip's records behind their signatures: (offset, bytes).
# fmt: off
RECORDS = {
    b"PK\x03\x04": [(4, 2), (6, 2), (8, 2), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    b"PK\x01\x02": [(4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2),
                    (34, 2), (42, 4)],
    b"PK\x05\x06": [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
}
# fmt: on


def _directory(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        signature = rng.choice([b"PK\x03\x04", b"PK\x01\x02", b"PK\x01\x02", b"PK\x05\x06"])
        places = [found.start() for found in re.finditer(re.escape(signature), damaged)]
        if not places:
            continue
        start = rng.choice(places)
        offset, width = rng.choice(RECORDS[signature])
        old = int.from_bytes(damaged[start + offset : start + offset + width], "little")
        methods = [0, 8, 9, 12, 14, 93, 99]
        new = rng.choice([rng.choice(EDGES), old + rng.choice([-1, 1]), old * 2, rng.choice(methods)])
        damaged[start + offset : start + offset + width] = (new % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(damaged)


@cache
def _bombs(size: int) -> list[tuple[bytes, int]]:
    """Small archives that unpack to about ``size`` bytes, and what the whole ones among them hold."""
    found = []
    y = io.BytesIO()
    np.lib.format.write_array(y, np.array([0.5]))
    zeros = bytes(8 * (size // 8))
    for said in (size // 8, size // 8 - 1, size // 8 + 1, 1, 10**10):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': (1, {said}), }}\n".encode()
        npy = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header
        archive = _zipped([("X.npy", npy + zeros), ("y.npy", y.getvalue())])
        found.append((archive, size if said == size // 8 else 0))
        if said in (size // 8, 1):
            # The directory agrees with the header, the stream goes on or ends too early.
            lies = bytearray(archive)
            for wrong in (len(npy) + 8 * said + 8, len(npy) + 8 * said - 8):
                for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
                    start = lies.find(signature)
                    lies[start + offset : start + offset + 4] = wrong.to_bytes(4, "little")
                found.append((bytes(lies), 0))
    return found


# ------------------------------------------------------------------ models and runs

TYPES = {
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "F16": "<f2",
    "U8": "|u1",
    "BOOL": "|b1",
    "U64": "<u8",
}
# fmt: off
OTHER_TYPES = [
    "BF16", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "I16", "F128", "", "f32", None, 5,
]
VALUES: list[Any] = [
    *EDGES, None, True, False, 0.5, -0.5, 1e308, 5e-324, math.nan, math.inf, -math.inf, 10**4000, "", "0",
    "1e5", "\ud800", "\0", "a" * 5000, [], {}, [[]], [1], [1, 2], [1] * 100, ["a"], {"a": 1},
    {"class": "Dense", "config": {}}, "tanh", "softmax", "normal", "mse", "cross_entropy", "accuracy",
    "float32", "float64", "float16", "<f4", "a", "(,)f4", "Dense", "Flatten", "Activation", "Dropout",
    "SGD", "Adam", "AdamW", "RMSProp", "Sequential", "__init__",
    "class", "run", "network",
]
# fmt: on


def model_case(rng: random.Random) -> Case:
    return _safetensors_case(rng, "model")


def run_case(rng: random.Random) -> Case:
    return _safetensors_case(rng, "run")


def _safetensors_case(rng: random.Random, kind: str) -> Case:
    name, content, other = _seed(rng, kind)
    choice = rng.randrange(20)
    if choice < 4:
        return Case(name, scramble(rng, content, other))
    header, payload = unpack(content)
    if choice < 7:
        return Case(name, _header(rng, header, payload))
    text = header.pop("__metadata__")["gpunn"].partition(" ")[2]
    tensors = {
        key: np.frombuffer(payload[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for key, entry in header.items()
    }
    # From here on the checksum is right, whatever the content is.
    if choice < 10:
        text = scramble(rng, text.encode()).decode("utf-8", "replace")
    elif choice < 16:
        text = _surgery(rng, text)
    else:
        tensors = _tensors(rng, tensors)
    if choice >= 16 and rng.random() < 0.3:
        text = _surgery(rng, text)
    return Case(name, pack(text, tensors))


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the payload of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def pack(text: str, tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file with a right checksum."""
    text = text.encode("utf-8", "replace").decode()
    header: dict[str, Any] = {"__metadata__": {"gpunn": f"{_digest(text, tensors)} {text}"}}
    payload = b""
    codes = {np.dtype(dtype): code for code, dtype in TYPES.items()}
    for key, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        place = [len(payload), len(payload) + array.nbytes]
        header[key] = {"dtype": codes[array.dtype], "shape": list(array.shape), "data_offsets": place}
        payload += array.tobytes()
    return _joined(json.dumps(header, ensure_ascii=False).encode(), payload)


def _joined(header: bytes, payload: bytes, size: int | None = None) -> bytes:
    return ((len(header) if size is None else size) % 2**64).to_bytes(8, "little") + header + payload


def _header(rng: random.Random, header: dict[str, Any], payload: bytes) -> bytes:
    """Another header before the same tensors; the checksum stays what it was."""
    keys = [key for key in header if key != "__metadata__"]
    for _ in range(rng.randint(1, 3)):
        change = rng.randrange(7)
        key = rng.choice(keys) if keys else "a"
        entry = header.setdefault(key, {"dtype": "F32", "shape": [], "data_offsets": [0, 4]})
        if change == 0:
            entry["dtype"] = rng.choice([*TYPES, *OTHER_TYPES])
        elif change == 1:
            entry["shape"] = rng.choice([[], [0], [-1], [rng.choice(EDGES)], [1] * 100, [3, 5], None])
        elif change == 2:
            entry["data_offsets"] = [rng.choice([0, *EDGES]), rng.choice([len(payload), *EDGES])]
        elif change == 3:
            entry[rng.choice(["dtype", "shape", "data_offsets", "more"])] = copy.deepcopy(rng.choice(VALUES))
        elif change == 4:
            del header[key]
            keys = [k for k in keys if k != key]
        elif change == 5:
            header["__metadata__"] = rng.choice(
                [None, {}, {"gpunn": ""}, {"gpunn": 5}, {"format": "pt"}, {"gpunn": "0 {}"}]
            )
        else:
            header = {
                f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(300)
            } | header
    text = json.dumps(header).encode()
    size = rng.choice(
        [len(text)] * 6 + [rng.choice(EDGES), len(text) + 1, len(text) - 1, len(text) + len(payload)]
    )
    return _joined(
        rng.choice([text] * 6 + [b" " + text, text + b"  ", b"[" * 9999, text[:-1]]), payload, size
    )


def _surgery(rng: random.Random, text: str) -> str:
    """Entries of the description replaced, left out, doubled, exchanged."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = list(_entries(tree))
        if not places:
            break
        parent, key = rng.choice(places)
        change = rng.randrange(8)
        if change < 3:
            # A copy: what comes next may change it.
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif change == 3:
            del parent[key]
        elif change == 4:
            near, other = rng.choice(places)
            parent[key] = json.loads(json.dumps(near[other]))
        elif change == 5 and isinstance(parent, dict):
            parent[rng.choice(["", "more", "class", "units", "lr", str(key).upper()])] = parent.pop(key)
        elif change == 6 and isinstance(parent, list):
            parent[key:key] = parent[key : key + 1] * rng.choice([1, 2, 300])
        elif isinstance(parent[key], (int, float)):
            parent[key] = rng.choice(
                [-parent[key], parent[key] + 1, float(parent[key]), str(parent[key]), [parent[key]]]
            )
        else:
            parent[key] = "@nested@"
    depth = rng.choice([1, 5, 100, rng.randint(850, 1000), 20_000])
    opening, closing = rng.choice([("[", "]"), ('{"a": ', "}")])
    nested = opening * depth + "1" + closing * depth
    return json.dumps(tree).replace('"@nested@"', nested)


def _entries(tree: Any) -> Any:
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _entries(tree[key])


def _tensors(rng: random.Random, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    changed = dict(tensors)
    for _ in range(rng.randint(1, 3)):
        if not changed:
            break
        key, other = rng.choice(sorted(changed)), rng.choice(sorted(changed))
        array = changed[key]
        change = rng.randrange(9)
        if change == 0:
            del changed[key]
        elif change == 1:
            changed[rng.choice(["a", key.upper(), key + ".x", "é", ""])] = changed.pop(key)
        elif change == 2:
            changed[key], changed[other] = changed[other], changed[key]
        elif change == 3:
            shapes = [array.shape[::-1], (-1,), (*array.shape, 1), (1,) * (28 - array.ndim) + array.shape]
            changed[key] = array.reshape(rng.choice(shapes))
        elif change == 4:
            with np.errstate(all="ignore"):
                changed[key] = array.astype(rng.choice(list(TYPES.values())))
        elif change == 5:
            changed[key] = array[:0] if array.ndim else array
        else:
            value = rng.choice([math.nan, math.inf, -1e308, 1e-310, *EDGES])
            with np.errstate(all="ignore"):
                filled = np.full(array.shape, float(value)).astype(array.dtype)
            garbage = np.frombuffer(rng.randbytes(array.nbytes), array.dtype).reshape(array.shape)
            changed[key] = filled if rng.random() < 0.6 else garbage
    return changed


CASES: dict[str, Callable[[random.Random], Case]] = {
    "idx": idx_case,
    "csv": csv_case,
    "npz": npz_case,
    "model": model_case,
    "run": run_case,
}


def case(kind: str, number: int) -> Case:
    """The damaged file of that number."""
    return CASES[kind](random.Random(f"{kind} {number}"))


# ------------------------------------------------------------------ reading and measuring


def examine(kind: str, path: Path, number: int) -> None:
    """Read a file as users do; FormatError, or anything else that is wrong, passes through."""
    if kind == "idx":
        assert read_idx(path).flags.c_contiguous
    elif kind in ("csv", "npz"):
        data = (read_csv if kind == "csv" else read_npz)(path)
        assert np.isfinite(data.train.X).all()
        assert len(data.train.X) == len(data.train.y) >= 1
        if number % 4 == 0:
            # What is whole but has one example only cannot be divided: that is no fault of the file.
            fraction = 0.25 if len(data.train) > 1 else 0
            del data
            load(path, test_fraction=fraction)
    else:
        network = gpunn.Trainer.load(path).network if kind == "run" and number % 3 else gpunn.load(path)
        shape = network.input_shape
        if len(shape) < 30 and math.prod(shape) < 10**5:
            network.predict(np.full((2, *shape), 0.5))


def campaign(kind: str, first: int, count: int, folder: Path, limited: bool = False) -> dict[str, Any]:
    """Read ``count`` damaged files; with ``limited``, an allocation beyond the bound fails on the spot."""
    found: dict[str, Any] = {"campaign": kind, "cases": count, "refused": 0, "read": 0, "failures": []}
    slowest, peak, worst = 0.0, 0, 0
    for name, content in seeds(kind):
        (folder / name).write_bytes(content)
        examine(kind, folder / name, 0)
    started = _resident()
    for number in range(first, first + count):
        name, content, holds = case(kind, number)
        path = folder / name
        path.write_bytes(content)
        bound = 2 * max(len(content), holds) + ALLOWANCE
        fault, seconds, taken = _measured(kind, path, number, bound if limited else None)
        if seconds > slowest:
            slowest, worst = seconds, number
        peak = max(peak, taken)
        if taken > bound and fault in ("", "refused"):
            fault = f"took {taken:,} bytes, expected at most {bound:,}"
        if fault and fault != "refused":
            found["failures"].append(f"mutations.case({kind!r}, {number}), {name}: {fault}")
        else:
            found["refused" if fault else "read"] += 1
    # With what making the files took, which may be more than reading them.
    grown = _resident() - started
    return found | {
        "slowest_seconds": slowest,
        "slowest_case": worst,
        "peak_bytes": peak,
        "rss_growth_bytes": grown,
    }


def _measured(kind: str, path: Path, number: int, bound: int | None) -> tuple[str, float, int]:
    """What went wrong ("refused": a FormatError, "": nothing), seconds of the CPU, bytes at the peak."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if bound is not None:
            _limit(bound)
        started = time.process_time()
        fault, memory = _outcome(kind, path, number)
        seconds = time.process_time() - started
        if bound is not None:
            _limit(None)
        # Once more for the memory: what tracing takes itself would count against the limit.
        tracemalloc.start()
        again, memory_again = _outcome(kind, path, number)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if again != fault:
        fault = f"{fault or 'read'} the first time, {again or 'read'} the second"
    elif memory and not memory_again:
        # Python's parser calls its own limits MemoryError too, but those it reaches with all memory as well.
        fault = "ran out of the memory that a file of this size may take"
    for each in caught:
        if not issubclass(each.category, gpunn.GpunnWarning):
            fault = f"{fault or 'read'}, and warned {each.category.__name__}: {each.message}"
    return fault, seconds, taken


def _outcome(kind: str, path: Path, number: int) -> tuple[str, bool]:
    """What came of reading a file, and whether memory ran out on the way."""
    try:
        examine(kind, path, number)
    except gpunn.FormatError as error:
        return "refused", _ran_out(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:500], _ran_out(error)
    return "", False


def _ran_out(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _resident() -> int:
    """The most memory that this process has had at once, as the system counts it."""
    try:
        # Not ru_maxrss: on Linux a new process starts with that of the one that started it.
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(found[1]) if found else 0


def _limit(room: int | None) -> None:
    """Limit the address space to what it is now and ``room`` bytes more."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if room is None:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(3000, exit=True)
    with tempfile.TemporaryDirectory() as scratch:
        print(
            json.dumps(campaign(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(scratch), limited=True))
        )
