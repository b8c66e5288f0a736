"""Θ after each of twelve steps, as PyTorch's optimisers make it, and the factors of its schedules.

    python benchmarks/optimizer_trajectories.py tests/trajectories.json

Needs torch and scikit-learn (``pip install torch scikit-learn``) and no gpunn: ``tests/test_trajectories.py``
replays the file without either. Everything is float64; the numbers in the file have all their digits.

What PyTorch does not do, or not so, is written out here, in this order (g is the data gradient, w a weight):

1. g ← g · min(1, c/‖g‖) over weights and biases together. ``torch.nn.utils.clip_grad_norm_`` divides by
   ‖g‖ + 1e-6 instead; where ‖g‖ = 0 the factor is 1.
2. g ← g + l1 sign(w), with sign(0) = 0.
3. w ← w (1 − lr weight_decay) for SGD, before the step, as ``torch.optim.AdamW`` does it.


l2 is the ``weight_decay`` of the optimisers without W, in a group of parameters that holds the weights only.
PyTorch has no optimiser with both: where weight_decay and a penalty meet, the penalty sees the w before it.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer
from torch.optim import lr_scheduler

WEIGHTS, BIASES, STEPS = 5, 2, 12
FACTORS = 40
L1, L2, WEIGHT_DECAY, CLIP_NORM = 0.02, 0.03, 0.05, 0.5

#: Name, gpunn's class, its settings, torch's class, the settings of that.
OPTIMIZERS: tuple[tuple[str, str, dict[str, Any], Any, dict[str, Any]], ...] = (
    ("sgd", "SGD", {"lr": 0.1}, torch.optim.SGD, {"lr": 0.1}),
    (
        "momentum",
        "SGD",
        {"lr": 0.1, "momentum": 0.9},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9},
    ),
    (
        "nesterov",
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    (
        "adam",
        "Adam",
        {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        torch.optim.Adam,
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8},
    ),
    (
        "adam other betas",
        "Adam",
        {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
    ),
    (
        "adamw",
        "AdamW",
        {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": WEIGHT_DECAY},
        torch.optim.AdamW,
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8},
    ),
    (
        "rmsprop",
        "RMSprop",
        {"lr": 0.05, "rho": 0.9, "epsilon": 1e-8},
        torch.optim.RMSprop,
        {"lr": 0.05, "alpha": 0.9, "eps": 1e-8, "momentum": 0.0, "centered": False},
    ),
    (
        "adagrad",
        "Adagrad",
        {"lr": 0.1, "epsilon": 1e-10},
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
    ),
)


def start_and_gradients() -> tuple[np.ndarray, np.ndarray]:
    """One weight starts at 0 and stays without a gradient for two steps, where sign(0) matters."""
    rng = np.random.default_rng(20)
    start = rng.standard_normal(WEIGHTS + BIASES)
    gradients = rng.standard_normal((STEPS, WEIGHTS + BIASES))
    gradients *= np.array([1, 0.5, 0.1, 1, 1, 0.15, 2, 0.05, 1, 0.1, 0.5, 1])[:, None]
    start[3] = 0
    gradients[:2, 3] = 0
    gradients[::3, 1] *= -1
    gradients[4] = 0
    gradients[5, 5] = 0
    gradients[6, 0] = 25
    return start, gradients


def cases() -> Iterator[tuple[str, str, dict[str, Any], Any, dict[str, Any]]]:
    for name, cls, settings, make, own in OPTIMIZERS:
        penalties: list[dict[str, float]] = [{}, {"l2": L2}]
        if "weight_decay" in settings:
            penalties = [{}]
        if name == "sgd":
            penalties += [{"l1": L1}, {"l1": L1, "l2": L2}]
        if cls == "SGD":
            penalties += [{"weight_decay": WEIGHT_DECAY}]
        if name == "nesterov":
            penalties += [{"l1": L1, "l2": L2, "weight_decay": WEIGHT_DECAY}]
        for penalty in penalties:
            for clip in ({}, {"clip_norm": CLIP_NORM}):
                extra = {**penalty, **clip}
                yield ", ".join((name, *extra)), cls, {**settings, **extra}, make, own


def trajectory(
    start: np.ndarray, gradients: np.ndarray, settings: dict[str, Any], make: Any, own: dict[str, Any]
) -> list[list[float]]:
    w = torch.tensor(start[:WEIGHTS], requires_grad=True)
    b = torch.tensor(start[WEIGHTS:], requires_grad=True)
    by_torch = make is torch.optim.AdamW
    by_hand = "weight_decay" in settings and not by_torch
    decay = settings["weight_decay"] if by_torch else 0.0 if by_hand else settings.get("l2", 0.0)
    groups = [{"params": [w], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}]
    optimizer = make(groups, **own, foreach=False)
    rows = []
    for row in gradients:
        g = clipped(torch.tensor(row), settings.get("clip_norm"))
        with torch.no_grad():
            w.grad = g[:WEIGHTS] + settings.get("l1", 0.0) * torch.sign(w)
            b.grad = g[WEIGHTS:].clone()
            if by_hand:
                w.grad += settings.get("l2", 0.0) * w
                w.mul_(1 - settings["lr"] * settings["weight_decay"])
        optimizer.step()
        rows.append([*w.tolist(), *b.tolist()])
    return rows


def clipped(g: torch.Tensor, most: float | None) -> torch.Tensor:
    norm = torch.linalg.vector_norm(g).item()
    return g if most is None or norm <= most else g * (most / norm)


def factors(make: Any, count: int = FACTORS) -> list[float]:
    """The learning rates of the first ``count`` steps, where the learning rate is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer)
    found = []
    for _ in range(count):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return found


def warmup_then_cosine(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=35, eta_min=0.05),
        ],
        milestones=[5],
    )


def inverse_scaling() -> list[float]:
    optimizer = SGDOptimizer([], learning_rate_init=1.0, lr_schedule="invscaling", power_t=0.5)
    found = []
    for t in range(FACTORS):
        optimizer.iteration_ends(t)
        found.append(float(optimizer.learning_rate))
    return found


def schedules() -> list[dict[str, Any]]:
    rows = (
        (
            "step",
            "torch StepLR",
            {"step_size": 10, "gamma": 0.3},
            factors(lambda o: lr_scheduler.StepLR(o, step_size=10, gamma=0.3)),
        ),
        (
            "exponential",
            "torch ExponentialLR",
            {"gamma": 0.9},
            factors(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9)),
        ),
        (
            "cosine",
            "torch CosineAnnealingLR",
            {"T_max": 25, "eta_min": 0.05},
            factors(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=25, eta_min=0.05), 26),
        ),
        (
            "warmup",
            "torch LinearLR",
            {"start_factor": 1 / 5, "total_iters": 4},
            factors(lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 5, total_iters=4)),
        ),
        (
            "warmup, cosine",
            "torch SequentialLR of LinearLR and CosineAnnealingLR",
            {"start_factor": 1 / 5, "total_iters": 4, "milestone": 5, "T_max": 35, "eta_min": 0.05},
            factors(warmup_then_cosine),
        ),
        ("inverse scaling", "scikit-learn SGDOptimizer.iteration_ends", {"power_t": 0.5}, inverse_scaling()),
    )
    return [dict(zip(("name", "reference", "settings", "factors"), row, strict=True)) for row in rows]


def compact(value: Any, depth: int = 0) -> str:
    """JSON with a line for each row of numbers and each entry."""
    if isinstance(value, dict) and depth == 0:
        parts = [f"{json.dumps(key)}: {compact(inner, 1)}" for key, inner in value.items()]
        return "{\n" + ",\n".join(parts) + "\n}"
    if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        return "[\n" + ",\n".join(compact(inner, depth + 1) for inner in value) + "\n]"
    if isinstance(value, dict) and isinstance(value.get("theta"), list):
        head = json.dumps({key: inner for key, inner in value.items() if key != "theta"})
        return f'{head[:-1]}, "theta": {compact(value["theta"], depth + 1)}}}'
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The epoch parameter", category=UserWarning)
    torch.set_default_dtype(torch.float64)

    start, gradients = start_and_gradients()
    norms = np.linalg.norm(gradients, axis=1)
    assert {"zero", "below", "above"} == {
        "zero" if n == 0 else "below" if n < CLIP_NORM else "above" for n in norms
    }
    optimizers = [
        {
            "name": name,
            "optimizer": cls,
            "settings": settings,
            "theta": trajectory(start, gradients, settings, make, own),
        }
        for name, cls, settings, make, own in cases()
    ]
    for one, other in combinations(optimizers, 2):
        apart = np.abs(np.subtract(one["theta"], other["theta"])).max()
        assert apart > 1e-4, f"{one['name']} and {other['name']} are {apart} apart: one of them tests nothing"

    versions = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    result = {
        "generated_by": {**versions, "python": platform.python_version(), "date": date.today().isoformat()},
        "notes": {
            "theta": "after each step; the first 5 are weights, on which l1, l2 and weight_decay act",
            "clip_norm": "data gradient times min(1, clip_norm/norm), without torch's + 1e-6, before l1, l2",
            "l2": "torch's weight_decay of the optimisers without W",
            "l1": "l1 sign(w) added to the clipped gradient, sign(0) = 0",
            "weight_decay": "w times (1 - lr weight_decay), after penalties, before step; AdamW: torch's own",
            "factors": "of the learning rate at step (or epoch) 0, 1, 2, ...",
        },
        "start": start.tolist(),
        "weights": WEIGHTS,
        "gradients": gradients.tolist(),
        "optimizers": optimizers,
        "schedules": schedules(),
    }
    text = compact(result)
    assert json.loads(text) == result
    options.json.write_text(text + "\n", encoding="utf-8")
    print(f"{options.json}: {len(optimizers)} optimisers, {len(result['schedules'])} schedules")


if __name__ == "__main__":
    main()
