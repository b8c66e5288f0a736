"""What the machine itself can do, as the ceiling of every figure: multiply-adds, a large product, a copy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

#: Side of the product, and bytes of the array that is copied: far beyond every cache.
SIDE, COPIED = 2048, 256 * 2**20
REPEATS = 5


def measure(device: str, threads: int) -> dict[str, Any]:
    """A second, in float32: ``fma_flops``, ``product_flops``, and ``copy_bytes`` read and written."""
    return on_the_gpu() if device == "cuda" else on_the_cpu(threads)


def on_the_cpu(threads: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    C = np.empty_like(A)
    source, target = (np.ones(COPIED, np.uint8) for _ in range(2))  # Pages of zeros are all one page.
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        copy = best(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
        found = {
            "product_flops": 2 * SIDE**3 / best(lambda: np.matmul(A, B, out=C)),
            "copy_bytes": 2 * COPIED / copy,
        }
        try:
            chains = fma_chains()
        except ImportError:
            return found
        rounds = 100_000
        states = [np.ones(LANES, np.float32) for _ in range(threads)]
        chains(states[0], 10)
        seconds = best(lambda: list(pool.map(lambda state: chains(state, rounds), states)))
        return {"fma_flops": 2 * CHAIN * LANES * rounds * threads / seconds, **found}


#: Numbers in flight, and multiply-adds on each between two stores: enough to hide the latency.
LANES, CHAIN = 192, 8


def fma_chains() -> Callable[[np.ndarray, int], None]:
    import llvmlite.binding as llvm

    # LLVM keeps to half of a 512-bit register on some processors; a ceiling has to use all of it.
    os.environ["NUMBA_CPU_FEATURES"] = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"
    from numba import njit

    @njit(nogil=True, fastmath={"contract"})
    def chains(state, rounds):
        a, b = np.float32(0.999), np.float32(1e-3)
        for _ in range(rounds):
            for j in range(LANES):
                x = state[j]
                for _ in range(CHAIN):
                    x = x * a + b
                state[j] = x

    return chains


def on_the_gpu() -> dict[str, Any]:
    import torch

    def seconds(call: Callable[[], Any], count: int = 10) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        for _ in range(REPEATS + 1):
            start.record()
            for _ in range(count):
                call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop) / 1e3 / count)
        return min(times)

    source = torch.zeros(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = {"copy_bytes": 2 * 2**30 / seconds(lambda: target.copy_(source))}
    for name, kind, tf32 in (
        ("product_flops", torch.float32, False),
        ("product_tf32_flops", torch.float32, True),
        ("product_bf16_flops", torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        A, B = (torch.randn(8192, 8192, device="cuda", dtype=kind) for _ in range(2))
        C = torch.empty_like(A)
        found[name] = 2 * 8192**3 / seconds(lambda A=A, B=B, C=C: torch.matmul(A, B, out=C))
    return found


def best(call: Callable[[], Any]) -> float:
    """The least seconds of several calls, after one that does not count."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
