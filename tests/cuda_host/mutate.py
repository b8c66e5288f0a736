"""Faults put into the kernels and the CUDA backend by hand, one at a time: the tests have to find every one.

    python tests/cuda_host/mutate.py [part of a file's name]

prints each fault with the test that found it, and fails if one survives. It takes some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What may find a fault in a kernel; the quicker ones first, the rest run only where these find nothing.
TESTS = ("tests/test_cuda_kernels.py", "tests/test_extremes.py", "tests/test_parity.py")

#: What may find a fault in the backend.
BACKEND_TESTS = ("tests/test_cuda_backend.py",)
BACKEND = Path("gpunn") / "backends" / "cuda"


@dataclass(frozen=True)
class Fault:
    """In this file of ``kernels/`` or of the backend ``old``, which stands there once, becomes ``new``."""

    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())}  ->  {' '.join(self.new.split()) or '(nothing)'}"

    @property
    def home(self) -> Path:
        """The folder of the file, below the root."""
        return BACKEND if self.file.endswith(".py") else Path("kernels")

    def put_into(self, root: Path) -> None:
        """Change the file below a root."""
        path = root / self.home / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self}: stands there {text.count(self.old)} times"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


FAULTS = [
    # The grid-stride loop.
    Fault("real.cuh", "& (BYTES - 1)) == 0;", "& (BYTES - 1)) != 1;"),
    Fault("real.cuh", "packed ? n / W : 0", "packed ? (n + W - 1) / W : 0"),
    Fault("real.cuh", "i = packs * W + first_index()", "i = packs + first_index()"),
    Fault("real.cuh", "p += index_stride()", "p += blockDim.x"),
    Fault("real.cuh", "i += index_stride()", "i += blockDim.x"),
    Fault("real.cuh", "(blockIdx.x) * blockDim.x + threadIdx.x", "(blockIdx.x) * blockDim.x"),
    Fault("real.cuh", "(gridDim.x) * blockDim.x;", "(gridDim.x) * blockDim.x + 1;"),
    # σ and σ′.
    Fault("sigma.cuh", "return (z >= T(0) ? T(1) : e) / (T(1) + e);", "return T(1) / (T(1) + e);"),
    Fault("sigma.cuh", "return z <= T(0) ? T(0) : z;", "return z > T(0) ? z : T(0);"),
    Fault("sigma.cuh", "return a > T(0) ? T(1) : a * T(0);", "return a >= T(0) ? T(1) : a * T(0);"),
    Fault("sigma.cuh", "return a > T(0) ? T(1) : a * T(0);", "return a > T(0) ? T(1) : T(0);"),
    Fault("sigma.cuh", "a <= T(0) ? T(0.01) : a;", "T(0.01);"),
    Fault("sigma.cuh", "? z : expm1(z)", "? z : exp(z) - T(1)"),
    Fault("sigma.cuh", "log1p(::exp(-fabs(z)))", "log(T(1) + ::exp(-fabs(z)))"),
    Fault("sigma.cuh", "return -expm1(-a);", "return expm1(-a);"),
    Fault("sigma.cuh", "a > T(0) && a < T(1) ?", "a >= T(0) && a < T(1) ?"),
    Fault("sigma.cuh", "* r * (z + h)", "* r * (z - h)"),
    Fault("sigma.cuh", "return a - a * (lost", "return a + a * (lost"),
    Fault("sigma.cuh", "z < T(-80)", "z < T(-800)"),
    Fault("sigma.cuh", "return s * (T(1) + z * (T(1) - s));", "return s * (T(1) + z * s);"),
    # Threads that meet.
    Fault("block.cuh", "lane > 0; lane /= 2) value", "lane > 1; lane /= 2) value"),
    Fault("block.cuh", "__syncthreads();  // A sum before this one may still be read.", ""),
    Fault("block.cuh", "= value;\n    __syncthreads();", "= value;"),
    Fault("block.cuh", "if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = value;",
          "part[threadIdx.x / WARP] = value * T(threadIdx.x % WARP < 2);"),
    Fault("block.cuh", "warp < warps; ++warp) total", "warp < warps - 1; ++warp) total"),
    Fault("block.cuh", "if (warps == 1) return value;", "if (warps <= 2) return value;"),
    Fault("block.cuh", "if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = value;\n    __syncthreads();",
          "if (threadIdx.x % WARP == 0) {\n        part[threadIdx.x / WARP] = value;\n"
          "        __syncthreads();\n    }"),
    Fault("block.cuh", "return a.place < b.place;", "return a.place > b.place;"),
    Fault("block.cuh", "if (a_nan != b_nan) return a_nan;", "if (a_nan != b_nan) return b_nan;"),
    Fault("block.cuh", "j < columns; j += blockDim.x", "j < columns - 1; j += blockDim.x"),
    Fault("block.cuh", "if (warps == 1) return best.place;\n    __syncthreads();",
          "if (warps == 1) return best.place;"),
    Fault("block.cuh", "= best;\n    __syncthreads();", "= best;"),
    Fault("block.cuh", "if (before(part[warp], best))", "if (before(best, part[warp]))"),
    # Softmax.
    Fault("rows.cuh", "(v - (d - b)) - (b + m)", "(v - (d - b)) + (b + m)"),
    Fault("rows.cuh", "if (j != found.at) rest", "rest"),
    Fault("rows.cuh", "block_sum(rest) + found.largest * 0.0", "block_sum(rest)"),
    Fault("rows.cuh", "/ (1.0 + rest)", "/ rest"),
    Fault("rows.cu", "(d[j] - total)", "(d[j] + total)"),
    Fault("rows.cu", "mine += d[j] * y[j]", "mine += d[j]"),
    Fault("rows.cu", "label < columns;", "label <= columns;"),
    Fault("rows.cu", "if (threadIdx.x == 0) labels[r] = at;", "if (r < 2) labels[r] = at;"),
    # Costs.
    Fault("losses.cu", "return 2.0 * (a - t);", "return a - t;"),
    Fault("losses.cu", "q = size > 1.0 ? 1.0 : size;", "q = size;"),
    Fault("losses.cu", "return fabs(z) * (z > 0.0 ?", "return fabs(z) * (z < 0.0 ?"),
    Fault("losses.cu", "return z > 0.0 ? -d : d;", "return d;"),
    Fault("losses.cu", "mass != 0.0 ? weight / mass : 0.0", "weight / mass"),
    Fault("losses.cu", "if (!w) return {1.0, 1.0 / rows};", "if (!w) return {1.0, 1.0};"),
    Fault("losses.cu", "total / (parts * mass)", "total / parts"),
    Fault("losses.cu", "mine += costs[r];", "mine += costs[0];"),
    Fault("losses.cu", "r < rows; r += blockDim.x) mine += w[r]", "r < rows; r += WARP) mine += w[r]"),
    Fault("losses.cu", "* (row.share / parts)", "* row.share"),
    Fault("losses.cu", "costs[r] = total * row.weight", "costs[r] = total"),
    Fault("losses.cu", "(found.largest - row[label])", "(row[label] - found.largest)"),
    Fault("losses.cu", "known = 0 <= labels[r] && labels[r] < columns", "known = labels[r] < columns"),
    Fault("losses.cu", "(j == label ? 1.0 : 0.0)", "(j == found.at ? 1.0 : 0.0)"),
    Fault("losses.cu", "own = block_sum(own);", ""),
    Fault("losses.cu", "half - 0.5 * row[j] + tail", "half + tail - row[j] + half"),
    Fault("losses.cu", "found.probability(j, row[j]) * mass", "found.probability(j, row[j])"),
    # Sums.
    Fault("sums.cu", "first += gridDim.x * WARP", "first += WARP"),
    Fault("sums.cu", "part[y][x] = mine;\n        __syncthreads();", "part[y][x] = mine;"),
    Fault("sums.cu", "store(to, mine);\n        }\n        __syncthreads();", "store(to, mine);\n        }"),
    Fault("sums.cu", "other < DOWN; ++other", "other < DOWN - 1; ++other"),
    Fault("sums.cu", "r += gridDim.y * DOWN", "r += DOWN"),
    Fault("sums.cu", "sums + static_cast<long long>(blockIdx.y)", "sums + static_cast<long long>(0)"),
    Fault("sums.cu", "if (accumulate || words) {", "if (words) {"),
    Fault("sums.cu", "T(-words[hyper::lr]) : T(1)", "T(-words[hyper::lr]) : T(-1)"),
    Fault("updates.cu", "rates[0] = -lr;", "rates[0] = lr;"),
    Fault("updates.cu", "(terms & term::l2 ? words[hyper::l2] : 0.0));", "0.0);"),
    Fault("sums.cu", "columns % WIDTH<T> == 0 && aligned", "aligned"),
    Fault("sums.cu", "bool inside = column < columns", "bool inside = column <= columns"),
    Fault("sums.cu", "partial[2 * blockIdx.x] = total;", "partial[blockIdx.x] = total;"),
    Fault("sums.cu", "0.5 * words[hyper::l2] * squares", "words[hyper::l2] * squares"),
    Fault("sums.cu", "if (isinf(norm))", "if (false)"),
    Fault("sums.cu", "isinf(smaller) ? nan(\"\") :", ""),
    Fault("sums.cu", "norm <= most ? 1.0 : most / norm", "most / norm"),
    Fault("sums.cu", "!isfinite(cost) && *first_bad < 0", "!isfinite(cost)"),
    Fault("sums.cu", "!isfinite(cost) &&", "cost != cost &&"),
    Fault("sums.cu", "&& row[at] == row[at]", ""),
    Fault("sums.cu", "(row[j] == score && j < label)", "(row[j] == score && j <= label)"),
    Fault("sums.cu", "ahead < k", "ahead <= k"),
    Fault("sums.cu", "count += block_sum(wrong) == 0;", "count += wrong == 0;"),
    Fault("sums.cu", "labels[r] * columns + at", "at * columns + labels[r]"),
    Fault("sums.cu", "own[1] += taken - both;", "own[1] += is - both;"),
    Fault("sums.cu", "total[1] += n;", "total[1] += count;"),
    Fault("sums.cu", "* (before * now / (before + now))", "* before"),
    Fault("sums.cu", "- first - mean;", "- mean;"),
    # Updates.
    Fault("updates.cu", "if (i >= weights) return g;", "if (i > weights) return g;"),
    Fault("updates.cu", "return i < weights ? w * keep : w;", "return i <= weights ? w * keep : w;"),
    Fault("updates.cu", "if (terms & term::clip) g *= scale;", ""),
    Fault("updates.cu", "w < T(0) ? -lasso : w * lasso", "-lasso"),
    Fault("updates.cu", "words[hyper::lr] * words[hyper::weight_decay]", "words[hyper::weight_decay]"),
    Fault("updates.cu", "AHEAD ? mu * v.at[k] - step : v.at[k]", "AHEAD ? v.at[k] : mu * v.at[k] - step"),
    Fault("updates.cu", "sqrt(v.at[k] * unbias)", "sqrt(v.at[k])"),
    Fault("updates.cu", "new2 * (g * g)", "new2 * g"),
    Fault("updates.cu", "store(first + i, m);", ""),
    Fault("updates.cu", "FORGET ? words[hyper::rho] : 1.0", "words[hyper::rho]"),
    Fault("updates.cu", "*step - static_cast<long long>(words[hyper::first_step])", "*step"),
    Fault("updates.cu", "*step += 1;", "*step += rows;"),
    Fault("updates.cu", "words[hyper::beta2_power] *= words[hyper::beta2]",
          "words[hyper::beta2_power] *= words[hyper::beta1]"),
    # Dropout, bias, data.
    Fault("philox.cuh", "c1 = low1;", "c1 = low0;"),
    Fault("philox.cuh", "round < 10", "round < 9"),
    Fault("elementwise.cu", "philox(i / 4, layer", "philox(i, layer"),
    Fault("elementwise.cu", "now, now >> 32", "now, 0"),
    Fault("elementwise.cu", "bool whole = packed && i + 4 <= n", "bool whole = packed && i <= n"),
    Fault("elementwise.cu", "bool whole = packed && i + 4 <= n", "bool whole = i + 4 <= n"),
    Fault("elementwise.cu", "d.at[k] * T(scale) * (kept", "d.at[k] * (kept"),
    Fault("elementwise.cu", "blockIdx.y * blockDim.y + threadIdx.y; r < rows", "threadIdx.y; r < rows"),
    Fault("elementwise.cu", "if (keep) store(z + i, v);", "store(z + i, v);"),
    Fault("elementwise.cu", "columns % WIDTH<T> == 0 && aligned(z, b, a)", "aligned(z, b, a)"),
    Fault("elementwise.cu", "v.at[k] += bias.at[k];", "v.at[k] += bias.at[0];"),
    Fault("data.cu", "perm[start + r]", "perm[r]"),
    Fault("data.cu", "if (bytes % 16 == 0 && aligned(X, x))", "if (aligned(X, x))"),
    Fault("data.cu", "bytes % 4 == 0 && aligned<4>(X, x)", "bytes % 4 == 0"),
    Fault("data.cu", "rows, bytes / 4)", "rows, bytes / 16)"),
    Fault("data.cu", "(blockIdx.y) * blockDim.x + threadIdx.x; k < count", "(threadIdx.x); k < count"),
    # Products, and what runs them.
    Fault("cublaslt.py", '"TRANSA", int(product.right_transposed)', '"TRANSA", int(product.left_transposed)'),
    Fault("cublaslt.py", "k = product.columns, product.rows,", "k = product.rows, product.columns,"),
    Fault("cublaslt.py", "*shape, shape[0])", "*shape, max(shape))"),
    Fault("cublaslt.py", "            right,\n            a,\n            left,\n            b,",
          "            left,\n            a,\n            right,\n            b,"),
    Fault("cublaslt.py", '"BIAS_POINTER", bias)', '"BIAS_POINTER", bias + 8)'),
    Fault("runner.py", "alpha, beta = one, one if step.accumulate else zero", "alpha, beta = one, one"),
    Fault("runner.py", "if step.rates is not None:", "if step.rates is not None and step.accumulate:"),
    Fault("runner.py", "self._where[i], self._calls[i], self._graphs = where, self._made(i), {}",
          "self._where[i], self._calls[i] = where, self._made(i)"),
    Fault("runner.py", "divmod(steps, together)", "divmod(steps + 1, together)"),
    Fault("runner.py", "(call for _ in range(steps) for call in each())", "(call for call in each())"),
    Fault("runner.py", "                gpu.copies.wait_event(used[number - 2])\n", ""),
    Fault("runner.py", "                copied[number - 2].synchronize()\n", ""),
    Fault("runner.py", "            gpu.stream.wait_event(copied[-1])\n", ""),
    Fault("gpu.py", "            if shared:\n                self.wait_for_user()\n", ""),
    Fault("gpu.py", "                if shared:\n                    self.user_waits()\n",
          "                pass\n"),
    Fault("gpu.py", "        if used is not None:\n            used.synchronize()\n", ""),
    Fault("gpu.py", "self.cupy.cuda.using_allocator(refuse):", "self.device:"),
    Fault("interop.py", "    if where != gpu.number:", "    if False:"),
    Fault("gpu.py", "return self._keeps_nan.get(product, True)", "return True"),
    Fault("runner.py", "            self._gpu.assign(own, array)\n", "            own = own\n"),
    Fault("runner.py", "self._warm, steps = True, steps - 1", "self._warm = True"),
    Fault("runner.py", "        for _ in range(steps):\n            self._gpu.run(calls)",
          "        self._gpu.run(calls)"),
    Fault("runner.py", "            position += count * batch\n", ""),
    Fault("streaming.py", "at, room = first % (2 * self.rows)", "at, room = first % self.rows"),
    Fault("streaming.py", "np.arange(count) % (2 * self.rows)", "np.arange(count) % (2 * self.rows + 1)"),
    Fault("lower.py", '(*op.outs, np.int64(op.attrs["rows"]))', "(*op.outs, np.int64(0))"),
    Fault("lower.py", "out = z if kept else a", "out = a"),
    Fault("lower.py", "low.product(first, (True, False)", "low.product(first, (True, True)"),
    Fault("lower.py", "words = rest[0].ins[1] if rest else None", "words = None"),
    Fault("lower.py", "found.append(low.one_block(kernel(\"mass_of\"", "(low.one_block(kernel(\"mass_of\""),
]  # fmt: skip


def found_by(fault: Fault, scratch: Path) -> str:
    """The test that fails with the fault in a copy of the project; empty where none does."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for part in ("gpunn", "kernels", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    fault.put_into(folder)
    elsewhere = {"XDG_CACHE_HOME": str(scratch), "CI": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "cuda_host", "-rf"]
    try:
        for tests in BACKEND_TESTS if fault.home == BACKEND else TESTS:
            done = subprocess.run(
                [*command, tests],
                cwd=folder,
                env=os.environ | elsewhere,
                capture_output=True,
                text=True,
                check=False,
            )
            first = re.search(r"^(?:FAILED|ERROR) (\S.*)", done.stdout, re.MULTILINE)
            if done.returncode not in (0, 1) or (done.returncode and first is None):
                told = f"{done.stdout}\n{done.stderr}"
                raise RuntimeError(f"{fault}: pytest ended with {done.returncode}\n{told}")
            if first:
                return first[1]
        return ""
    finally:
        shutil.rmtree(folder)


def main(wanted: str = "") -> int:
    """Try every fault, or those whose file has the words in its name; how many survive."""
    faults = [fault for fault in FAULTS if wanted in fault.file]
    survivors = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        killers = pool.map(lambda fault: found_by(fault, Path(scratch)), faults)
        for fault, killer in zip(faults, killers, strict=True):
            survivors += not killer
            print(f"{'killed  ' if killer else 'SURVIVES'}  {fault}\n          {killer[:150]}", flush=True)
    print(f"{len(faults) - survivors} of {len(faults)} faults found")
    return survivors


if __name__ == "__main__":
    sys.exit(min(1, main(*sys.argv[1:])))
