"""Every optimiser and schedule, step for step, against PyTorch (benchmarks/optimizer_trajectories.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gpunn
from gpunn.ops import HYPER
from gpunn.program import Program
from gpunn.schedules import Cosine, Exponential, InverseScaling, StepDecay, Warmup
from gpunn.variants import _advance

REFERENCE = json.loads(Path(__file__).with_name("trajectories.json").read_text(encoding="utf-8"))
START = np.array(REFERENCE["start"])
GRADIENTS = np.array(REFERENCE["gradients"])
#: Where each parameter lies in a row of the file.
PARTS = {"weights": slice(0, REFERENCE["weights"]), "bias": slice(REFERENCE["weights"], len(START))}

#: Near 0 a value is the difference of larger ones, hence the second number.
TOLERANCE = {"float64": {"rtol": 1e-12, "atol": 1e-14}, "float32": {"rtol": 1e-5, "atol": 1e-6}}


def update_of(optimizer, dtype):
    """A program that is nothing but the update and the counters, and the slots of the gradients."""
    program = Program(dtype)
    for key, part in PARTS.items():
        program.parameter(key, START[part].shape, "normal", weight=key == "weights")
    program.lay_out_parameters()
    gradients = {key: program.gradient(key) for key in PARTS}
    optimizer.emit(program)
    _advance(program, 0)
    return program, gradients


def replay(backend, optimizer, dtype):
    """Θ after every step, and everything in Θ that no parameter owns."""
    program, gradients = update_of(optimizer, dtype)
    runner = backend.load(program, {})
    hyper = np.zeros(len(HYPER))
    for name, value in optimizer.hyper().items():
        hyper[HYPER[name]] = value
    runner.write("hyper", hyper)
    for key, part in PARTS.items():
        runner.write(key, START[part])
    rows = []
    for gradient in GRADIENTS:
        for key, part in PARTS.items():
            runner.write(gradients[key], gradient[part])
        runner.run()
        rows.append(np.concatenate([runner.read(key) for key in PARTS]))
    padding = np.ones(program.layout.size, bool)
    for window in program.layout.windows.values():
        padding[window.offset : window.offset + window.size] = False
    return np.array(rows), runner.read("theta")[padding]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", REFERENCE["optimizers"], ids=lambda case: case["name"])
def test_an_optimizer_goes_the_way_of_the_reference(backend, case, dtype):
    optimizer = getattr(gpunn, case["optimizer"])(**case["settings"])
    theta, padding = replay(backend, optimizer, dtype)
    assert theta.dtype == dtype
    np.testing.assert_allclose(theta, case["theta"], **TOLERANCE[dtype])
    assert padding.size
    assert not padding.any()


#: The schedule of each name in the file, from the reference's own numbers. A line from 1/5 to 1 takes PyTorch
#: 4 steps; it is a warm-up of length 5, whose start at 0 no step has.
SCHEDULES = {
    "step": lambda step_size, gamma, **unit: StepDecay(step_size, gamma, **unit),
    "exponential": lambda gamma, **unit: Exponential(gamma, **unit),
    "cosine": lambda T_max, eta_min, **unit: Cosine(T_max, eta_min, **unit),
    "warmup": lambda start_factor, total_iters, **unit: Warmup(total_iters + 1, **unit),
    "warmup, cosine": lambda start_factor, total_iters, milestone, T_max, eta_min, **unit: Warmup(
        milestone, Cosine(T_max, eta_min, **unit), **unit
    ),
    "inverse scaling": lambda power_t, **unit: InverseScaling(power_t, **unit),
}


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("case", REFERENCE["schedules"], ids=lambda case: case["name"])
def test_a_schedule_has_the_factors_of_the_reference(case, unit):
    schedule = SCHEDULES[case["name"]](**case["settings"], unit=unit)
    expected = 0.5 * np.array(case["factors"])
    # Two epochs of many steps, or many epochs of one step.
    in_epoch = len(expected) // 2 if unit == "step" else 1
    rates = [
        schedule.rates(0.5, epoch, epoch * in_epoch, in_epoch, in_epoch)
        for epoch in range(len(expected) // in_epoch)
    ]
    np.testing.assert_allclose(np.concatenate(rates), expected, rtol=1e-12)
