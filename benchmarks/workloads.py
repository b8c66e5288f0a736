"""What is trained: networks, losses, optimisers and batches as data, and the data they are trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One training step, many times.

    Attributes
    ----------
    inputs, units
        Sizes: inputs of the network, units of each layer.
    hidden, output
        σ of the hidden layers and of the last. ``softmax`` belongs to ``cross_entropy``.
    optimizer
        ``("sgd", {"lr": 3.0})``, ``("momentum", {"lr": 0.01, "momentum": 0.9})``, ``("adam", {"lr": 1e-3})``
        with Kingma and Ba's β₁ = 0.9, β₂ = 0.999, ε = 1e-8.
    batch, samples
        Cut to whole repeats of whole batches: peers with fixed shapes would compile anew for what is left.
    steps
        Minibatches of one timed repeat, at most; 0 is an epoch.
    threads
        ``"one"`` where a second thread slows everyone down, ``"all"`` where it pays.
    checked
        Minibatches that are compared before anything is timed. Few for a deep network: what is rounding
        at first grows from layer to layer and from step to step until nobody agrees with anybody.
    """

    name: str
    inputs: int
    units: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    optimizer: tuple[str, Mapping[str, float]]
    batch: int
    weights: str
    bias: str
    samples: int = 50_000
    steps: int = 0
    threads: str = "one"
    checked: int = 20

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.inputs, *self.units)

    @property
    def shape(self) -> str:
        """``784-30-10``, with runs of equal layers as ``7×1000``."""
        words: list[str] = []
        for size in self.sizes:
            count, _, last = words[-1].rpartition("×") if words else ("", "", "")
            if words and last == str(size):
                words[-1] = f"{int(count or 1) + 1}×{size}"
            else:
                words.append(str(size))
        return "-".join(words)

    @property
    def parameters(self) -> int:
        return sum((k + 1) * n for k, n in zip(self.sizes, self.units, strict=False))

    @property
    def flops(self) -> int:
        """Multiplications and additions in a step's products: forward, ∂C/∂W, δ of all but the inputs."""
        products = [k * n for k, n in zip(self.sizes, self.units, strict=False)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def describe(self) -> dict[str, Any]:
        kind, options = self.optimizer
        return {**asdict(self), "optimizer": [kind, dict(options)], "units": list(self.units)}


def from_description(found: Mapping[str, Any]) -> Workload:
    kind, options = found["optimizer"]
    return Workload(**{**found, "units": tuple(found["units"]), "optimizer": (kind, options)})


_BOOK = {"hidden": "sigmoid", "output": "sigmoid", "loss": "quadratic", "optimizer": ("sgd", {"lr": 3.0})}
_BOOK |= {"weights": "normal", "bias": "normal"}
_RELU = {
    "hidden": "relu",
    "output": "softmax",
    "loss": "cross_entropy",
    "weights": "he_normal",
    "bias": "zeros",
}

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("nielsen", 784, (30, 10), batch=10, **_BOOK),
        Workload(
            "nielsen-ce",
            784,
            (30, 10),
            batch=10,
            **(_BOOK | {"output": "softmax", "loss": "cross_entropy", "optimizer": ("sgd", {"lr": 0.5})}),
        ),
        Workload("3b1b", 784, (16, 16, 10), batch=100, **_BOOK),
        Workload(
            "mnist-mlp",
            784,
            (512, 512, 10),
            batch=128,
            steps=130,
            threads="all",
            optimizer=("adam", {"lr": 1e-3}),
            **_RELU,
        ),
        Workload(
            "speech",
            440,
            (*[1000] * 7, 2000),
            batch=512,
            samples=20_000,
            steps=3,
            threads="all",
            checked=3,
            optimizer=("momentum", {"lr": 0.01, "momentum": 0.9}),
            **_RELU,
        ),
        Workload(
            "wide",
            784,
            (*[1024] * 7, 10),
            batch=1024,
            steps=3,
            threads="all",
            checked=2,
            optimizer=("adam", {"lr": 1e-3}),
            **_RELU,
        ),
    )
}

#: What a GPU trains where a CPU would take too long for it.
ON_A_GPU = {
    "wide": replace(
        WORKLOADS["wide"],
        inputs=4096,
        units=tuple([4096] * 9),
        batch=8192,
        samples=32_768,
        steps=4,
        optimizer=("sgd", {"lr": 0.01}),
    ),
    "speech": replace(WORKLOADS["speech"], steps=0),
    "mnist-mlp": replace(WORKLOADS["mnist-mlp"], steps=0),
}


def workload_named(name: str, device: str) -> Workload:
    if name not in WORKLOADS:
        raise SystemExit(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return ON_A_GPU.get(name, WORKLOADS[name]) if device == "cuda" else WORKLOADS[name]


@dataclass
class Problem:
    """A workload with its data and first weights, as every peer gets it: NumPy arrays, weights (out, in)."""

    workload: Workload
    data: str
    seed: int
    X: np.ndarray
    y: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray]]
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.options = self.options or self.workload.optimizer[1]

    @property
    def sigmas(self) -> list[str]:
        return [self.workload.hidden] * (len(self.layers) - 1) + [self.workload.output]

    @property
    def targets(self) -> np.ndarray:
        """The labels as rows of zeros with a one."""
        found = np.zeros((len(self.y), self.workload.units[-1]), self.X.dtype)
        found[np.arange(len(self.y)), self.y] = 1
        return found

    def save(self, folder: Path) -> None:
        np.save(folder / "X.npy", self.X)
        np.save(folder / "y.npy", self.y)
        for k, (W, b) in enumerate(self.layers):
            np.save(folder / f"W{k}.npy", W)
            np.save(folder / f"b{k}.npy", b)
        told = {"workload": self.workload.describe(), "data": self.data, "seed": self.seed}
        (folder / "problem.json").write_text(json.dumps(told))

    @classmethod
    def load(cls, folder: Path, options: Mapping[str, float] | None = None) -> Problem:
        told = json.loads((folder / "problem.json").read_text())
        workload = from_description(told["workload"])
        layers = [
            (np.load(folder / f"W{k}.npy"), np.load(folder / f"b{k}.npy")) for k in range(len(workload.units))
        ]
        X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
        changed = {**workload.optimizer[1], **(options or {})}
        return cls(workload, told["data"], told["seed"], X, y, layers, changed)


class Order:
    """The minibatches of a run, epoch after epoch: gpunn's own permutations, drawn by seed and epoch."""

    def __init__(self, problem: Problem) -> None:
        self.samples, self.batch, self.seed = len(problem.X), problem.workload.batch, problem.seed
        self.per_epoch, self.left, self.epoch = self.samples // self.batch, 0, -1

    @property
    def done(self) -> int:
        """Minibatches before the next, of all epochs."""
        return (self.epoch + 1) * self.per_epoch - self.left

    def take(self, steps: int) -> np.ndarray:
        """The rows of the next minibatches, (steps, B)."""
        if self.left == 0:
            rng = np.random.default_rng([self.seed, 1, self.epoch + 1])
            self.rows = rng.permutation(self.samples).reshape(-1, self.batch)
        end = self.skip(steps)
        return self.rows[end - steps : end]

    def skip(self, steps: int) -> int:
        """Go past minibatches that a peer draws by itself; says where in the epoch they end."""
        if self.left == 0:
            self.epoch, self.left = self.epoch + 1, self.per_epoch
        if steps > self.left:
            raise ValueError(f"{steps} minibatches asked for, {self.left} are left of the epoch")
        self.left -= steps
        return self.per_epoch - self.left


def make_problem(workload: Workload, seed: int = 0) -> Problem:
    """The data (MNIST where it is found and fits, else random numbers of that shape), and gpunn's weights."""
    X, y, data = _data(workload, seed)
    block = workload.batch * max(1, min(workload.steps, len(X) // workload.batch))
    kept = len(X) // block * block
    tensors = network(workload, device="numpy", seed=seed).tensors()
    layers = [
        (tensors[f"layers.{k}.weights"], tensors[f"layers.{k}.bias"]) for k in range(len(workload.units))
    ]
    return Problem(workload, data, seed, X[:kept], y[:kept], layers)


def network(workload: Workload, **options: Any) -> Any:
    """The workload's network in gpunn."""
    import gpunn

    sigmas: Sequence[str] = [workload.hidden] * (len(workload.units) - 1) + [workload.output]
    layers = [
        gpunn.Dense(n, activation=sigma, weights=workload.weights, bias=workload.bias)
        for n, sigma in zip(workload.units, sigmas, strict=True)
    ]
    return gpunn.Sequential(layers, input_shape=workload.inputs, **options)


def _data(workload: Workload, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    if (workload.inputs, workload.units[-1]) == (784, 10) and workload.samples <= 50_000:
        from gpunn.data import load_mnist
        from gpunn.errors import GpunnError

        try:
            train = load_mnist().train
        except (GpunnError, OSError) as error:
            why = f"MNIST was not found: {str(error).splitlines()[0]}"
        else:
            X, y = train.X[: workload.samples], train.y[: workload.samples]
            return np.ascontiguousarray(X, np.float32), y.astype(np.int64), "MNIST"
    else:
        why = "no data of this shape is at hand"
    rng = np.random.default_rng(seed)
    X = rng.random((workload.samples, workload.inputs), dtype=np.float32)
    y = rng.integers(0, workload.units[-1], workload.samples)
    return X, y, f"random numbers in [0, 1) and random labels ({why})"
