"""The programs that one network gives rise to: training, evaluation, prediction, inspection, Jacobian.

Each is declared for one batch size. They share Θ (and, in training, ∇Θ, the optimiser's state and the
counters) and have workspaces of their own, so a last partial batch is one more variant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ArgumentError, ShapeError
from .layers import Layer
from .losses import Loss
from .metrics import Metric
from .ops import HYPER
from .optimizers import Optimizer
from .program import Program
from .slots import Role

__all__ = ["Model", "Targets", "evaluation", "inspection", "jacobian", "prediction", "training"]


@dataclass(frozen=True)
class Targets:
    """What a batch's targets look like: labels (B,) or targets (B, n), with example weights or without."""

    labels: bool = False
    weighted: bool = False


@dataclass(frozen=True)
class Model:
    """The declaration of a network: its layers, the shape of one input, and the dtype."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    dtype: str

    def forward(
        self, batch: int, title: str = "", *, gathered: bool = False, training: bool = False
    ) -> Program:
        """Declare the forward ops for ``batch`` examples; ``program.marks`` names ``x`` and ``output``.

        ``gathered``: x is taken from the slot ``X`` through ``perm`` at ``cursor``; otherwise the host
        writes it. ``training``: with what layers do in training only.
        """
        program = Program(self.dtype, title, training=training)
        x = program.slot("x", (batch, *self.input_shape), Role.INPUT)
        if gathered:
            _gather(program, "X", x, self.input_shape, self.dtype)
        slot = x
        for i, layer in enumerate(self.layers):
            with program.scope(f"layers.{i}", f"layer {i} {type(layer).__name__}"):
                slot = layer.emit(program, slot)
                if not isinstance(slot, str) or slot not in program.slots:
                    raise ArgumentError(f"{program.label}: emit() returned {slot!r}, expected an output slot")
        program.lay_out_parameters()
        program.marks |= {"x": x, "output": slot}
        return program


def _gather(program: Program, data: str, into: str, shape: Sequence[int], dtype: str) -> None:
    rows = program.slots[into].shape[0]
    source = program.slot(data, (None, *shape), Role.DATA, dtype)
    permutation = program.slot("perm", (None,), Role.DATA, "int64", "perm")
    cursor = program.slot("cursor", (1,), Role.HYPER, "int64")
    program.emit("gather", (source, permutation, cursor), {"x": into}, B=rows, label="minibatch")


def _targets(program: Program, targets: Targets, *, gathered: bool) -> tuple[str, str | None]:
    """Declare the target and weight slots of a batch; returns their names."""
    batch, *rest = program.slots[program.marks["output"]].shape
    shape: tuple[int, ...] = () if targets.labels else tuple(d or 0 for d in rest)
    dtype = "int64" if targets.labels else program.dtype
    t = program.slot("labels" if targets.labels else "t", (batch, *shape), Role.TARGET, dtype)
    w = program.slot("w", (batch,), Role.TARGET) if targets.weighted else None
    if gathered:
        _gather(program, "T", t, shape, dtype)
        if w is not None:
            _gather(program, "weights", w, (), program.dtype)
    program.marks |= {"target": t} | ({"weight": w} if w else {})
    return t, w


def training(
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    batch: int,
    *,
    metrics: Sequence[Metric] = (),
    targets: Targets = Targets(),
    gathered: bool = True,
) -> Program:
    """One minibatch of training: forward, the four equations, the update.

    ``gathered``: the batch comes through the permutation, enters the sums of its epoch, and the cursor
    moves on; otherwise the host writes x and the targets, and it is a step on its own.
    """
    title = f"training on batches of {batch}"
    program = model.forward(batch, title, gathered=gathered, training=True)
    target, weight = _targets(program, targets, gathered=gathered)
    seed = loss.emit(program, program.marks["output"], target, weight)
    _measure(program, metrics, target, loss)
    program.backpropagate(seed)
    optimizer.emit_numbers(program)
    if gathered:
        _tally(program, _penalty(program, optimizer) if optimizer.has_penalty else None)
        if optimizer.schedule is not None:
            _schedule(program)
    optimizer.emit(program)
    _advance(program, batch if gathered else 0)
    program.prune()
    return program


def evaluation(
    model: Model, loss: Loss, batch: int, *, metrics: Sequence[Metric] = (), targets: Targets = Targets()
) -> Program:
    """One batch of evaluation: forward, the cost and the metrics, added to sums on the device."""
    program = model.forward(batch, f"evaluation on batches of {batch}", gathered=True)
    target, weight = _targets(program, targets, gathered=True)
    loss.emit(program, program.marks["output"], target, weight, gradient=False)
    _measure(program, metrics, target, loss)
    _tally(program, None)
    _advance(program, batch)
    program.prune()
    return program


def prediction(model: Model, batch: int) -> Program:
    """The output for one batch that the host writes."""
    program = model.forward(batch, f"prediction of {batch}")
    program.pin(program.marks["x"], program.marks["output"])
    return program


def inspection(model: Model, loss: Loss, batch: int, *, targets: Targets = Targets()) -> Program:
    """The cost, ∇C and every δ for one batch that the host writes; nothing is updated.

    ``program.marks["layers.{i}"]`` names the slot of δ of each layer that has parameters.
    """
    program = model.forward(batch, f"inspection of {batch}")
    forward = list(program.ops)
    target, weight = _targets(program, targets, gathered=False)
    seed = loss.emit(program, program.marks["output"], target, weight)
    errors = program.backpropagate(seed)
    for op in forward:
        reads = [s for s in op.ins if s is not None and program.slots[s].role is Role.PARAMETER]
        z = op.outs[0]
        if reads and z in errors:
            scope = program.slots[reads[0]].scope
            if scope not in program.marks:
                program.marks[scope] = errors[z]
                program.pin(errors[z])
    program.prune()
    return program


def jacobian(model: Model, batch: int) -> Program:
    """∂output/∂x times a seed that the host writes into ``program.marks["seed"]``, row by row."""
    program = model.forward(batch, f"Jacobian of {batch}")
    output, x = program.marks["output"], program.marks["x"]
    seed = program.slot("seed", program.slots[output].shape, Role.INPUT, symbol="∂C/∂output")
    errors = program.backpropagate({output: seed}, wrt=[x], parameters=False)
    program.marks |= {"seed": seed, "gradient": errors[program.root(x)]}
    program.pin(x, seed, program.marks["gradient"])
    program.prune()
    return program


def _measure(program: Program, metrics: Sequence[Metric], target: str, loss: Loss) -> None:
    """Emit the metrics; ``program.marks["metric.{name}"]`` names the slot of each one's sum."""
    for metric in metrics:
        slot = metric.emit(program, program.marks["output"], target, loss)
        program.marks[f"metric.{metric.name}"] = slot


def _penalty(program: Program, optimizer: Optimizer) -> str:
    terms = tuple(term for term in ("l1", "l2") if getattr(optimizer, term))
    weights = program.lay_out_parameters().weights
    hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
    penalty = program.slot("penalty", (1,), Role.HYPER, "float64")
    outs = {"penalty": penalty}
    program.emit("weight_penalty", ("theta", hyper), outs, label="penalty", weights=weights, terms=terms)
    return penalty


def _schedule(program: Program) -> None:
    rates = program.slot("rates", (None,), Role.DATA, "float64")
    step = program.slot("step", (1,), Role.HYPER, "int64")
    hyper = program.slot("hyper", (len(HYPER),), Role.HYPER, "float64")
    program.emit("schedule", (rates, step), {"hyper": hyper}, label="schedule")


def _tally(program: Program, penalty: str | None) -> None:
    step = program.slot("step", (1,), Role.HYPER, "int64")
    outs = {
        "loss_sum": program.slot("loss_sum", (3,), Role.HYPER, "float64", "ΣC"),
        "first_bad": program.slot("first_bad", (1,), Role.HYPER, "int64"),
    }
    program.emit("tally", ("loss", step, penalty), outs, label="running sums")


def _advance(program: Program, rows: int) -> None:
    outs = {
        "cursor": program.slot("cursor", (1,), Role.HYPER, "int64"),
        "step": program.slot("step", (1,), Role.HYPER, "int64"),
        "hyper": program.slot("hyper", (len(HYPER),), Role.HYPER, "float64"),
    }
    program.emit("advance", (), outs, label="next", rows=rows)


def output_shape(model: Model) -> tuple[int, ...]:
    """The shape of one output; raises, naming the layer, where the layers do not fit together."""
    program = model.forward(1)
    shape = program.slots[program.marks["output"]].shape
    if not model.input_shape or math.prod(model.input_shape) == 0:
        raise ShapeError(f"input_shape is {model.input_shape}, expected whole numbers of at least 1")
    return tuple(d or 0 for d in shape[1:])
