"""``gpunn train``: one run, a run taken up again, or one run for each of several seeds."""

from __future__ import annotations

import math
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..data import Dataset, Split
from ..errors import ArgumentError, DivergenceError, whole_number
from ..history import History
from ..network import Sequential
from ..training import Trainer
from .runs import PICTURE, RUN, Origin, claim, data_options, draw_together, save
from .scores import percent, r_squared
from .task import (
    choose,
    classes_of,
    load_data,
    make_network,
    make_optimizer,
    output_count,
    resolve_loss,
    targets_of,
)

__all__ = ["train"]

INTERRUPTED = 130

#: Numbers above this are worth a warning: networks start from weights made for inputs of about −1 to 1.
LARGE = 100

#: So that a process that is killed loses little.
SECONDS_BETWEEN_SAVES = 30.0

#: What belongs to a run for good, so that ``--resume`` cannot change it.
_FIXED = (
    "hidden",
    "activation",
    "output_activation",
    "weights",
    "bias",
    "dtype",
    "loss",
    "optimizer",
    "lr",
    "momentum",
    "l2",
    "batch_size",
    "seed",
)


@dataclass(frozen=True)
class _Plan:
    """What all runs of one command share."""

    dataset: Dataset
    origin: Origin
    seeds: Sequence[int]
    quiet: bool

    @property
    def held_out(self) -> Split | None:
        return self.dataset.test

    @property
    def judged_on(self) -> Split:
        """The side that the final numbers are of."""
        return self.dataset.train if self.held_out is None else self.held_out

    @property
    def measure(self) -> str:
        return "accuracy" if self.origin.classes is not None else "loss"


@dataclass(frozen=True)
class _Result:
    """How one run ended; ``best`` is the best epoch on the held-out data, where there are any."""

    history: History
    final: dict[str, float]
    best: dict[str, Any] | None
    interrupted: bool


def train(options: Namespace) -> int:
    """Run the command; returns 0, or 130 after Ctrl-C."""
    return _start(options) if options.resume is None else _go_on(options)


def _start(options: Namespace) -> int:
    epochs = whole_number("--epochs", choose(options, "epochs"), 1)
    dataset = load_data(options.data, options.target, choose(options, "test_fraction"))
    classes = classes_of(dataset, options.loss)
    origin = Origin(
        options.data,
        options.target,
        choose(options, "test_fraction"),
        epochs,
        not options.no_shuffle,
        classes,
    )
    seeds = list(dict.fromkeys(choose(options, "seed")))
    plan = _Plan(dataset, origin, seeds, options.quiet)
    loss, outputs = resolve_loss(options.loss, classes), output_count(dataset, classes)
    optimizer = make_optimizer(options)
    out = Path("runs") / dataset.name if options.out is None else Path(options.out)
    several = len(seeds) > 1
    folders = {seed: out / f"seed-{seed}" if several else out for seed in seeds}
    results: dict[int, _Result] = {}
    for seed in seeds:
        network = make_network(options, dataset.train.X.shape[1], outputs, loss, classes is not None, seed)
        trainer = Trainer(
            network,
            loss=loss,
            optimizer=optimizer,
            batch_size=choose(options, "batch_size"),
            metrics=() if classes is None else ("accuracy",),
        )
        if not results:
            claim(out, (PICTURE,))
            for folder in folders.values():
                claim(folder)
            _introduce(plan, trainer, network)
        results[seed] = _run(trainer, network, plan, folders[seed], f"seed {seed}: " if several else "")
        if results[seed].interrupted:
            return INTERRUPTED
    if several:
        histories = {seed: result.history for seed, result in results.items()}
        _sum_up(plan, list(results.values()))
        print(draw_together(histories, out, _title(plan, network)))
    return 0


def _go_on(options: Namespace) -> int:
    for name in _FIXED:
        if getattr(options, name) is not None:
            raise ArgumentError(
                f"--{name.replace('_', '-')} belongs to the run that --resume goes on with: leave it out"
            )
    trainer = Trainer.load(options.resume, choose(options, "device"))
    network = cast(Sequential, trainer.network)
    before = Origin.beside(options.resume, network)
    source, target, fraction = data_options(options, before)
    dataset = load_data(source, target, fraction)
    loss = trainer.loss.name
    if before is None:
        epochs, shuffle, classes = choose(options, "epochs"), True, classes_of(dataset, loss)
    else:
        epochs = before.epochs if options.epochs is None else options.epochs
        shuffle, classes = before.shuffle, before.classes
    if epochs <= trainer.epochs_done:
        raise ArgumentError(
            f"{options.resume} has done {trainer.epochs_done} of {epochs} epochs: give more --epochs to go on"
        )
    origin = Origin(str(source), target, fraction, epochs, shuffle and not options.no_shuffle, classes)
    plan = _Plan(dataset, origin, [trainer.seed], options.quiet)
    folder = Path(options.resume).parent if options.out is None else Path(options.out)
    claim(folder)
    _introduce(plan, trainer, network)
    return INTERRUPTED if _run(trainer, network, plan, folder, "").interrupted else 0


def _save_now_and_then(folder: Path, title: str) -> Callable[[Trainer, dict[str, Any]], None]:
    """A callback that saves the run at the first epoch's end after every half a minute."""
    last = time.perf_counter()

    def save_if_due(trainer: Trainer, record: dict[str, Any]) -> None:
        nonlocal last
        if time.perf_counter() - last >= SECONDS_BETWEEN_SAVES:
            save(trainer, cast(Sequential, trainer.network), folder, title)
            last = time.perf_counter()

    return save_if_due


def _run(trainer: Trainer, network: Sequential, plan: _Plan, folder: Path, label: str) -> _Result:
    """Train what is left to train, save, and tell how it went."""
    origin, loss = plan.origin, trainer.loss

    def data(side: Split) -> tuple[Any, Any]:
        return side.X, targets_of(side, plan.dataset.classes, origin.classes, loss, network.outputs)

    origin.record(trainer.history)
    judged = data(plan.judged_on)
    interrupted, started, done = False, time.perf_counter(), trainer.epochs_done
    try:
        trainer.fit(
            *data(plan.dataset.train),
            epochs=origin.epochs - done,
            validation_data=None if plan.held_out is None else judged,
            shuffle=origin.shuffle,
            callbacks=[_save_now_and_then(folder, _title(plan, network))],
            verbose=0 if plan.quiet else 1,
        )
    except KeyboardInterrupt:
        interrupted = True
    except DivergenceError:
        save(trainer, network, folder, _title(plan, network))
        raise
    seconds = time.perf_counter() - started
    saved = save(trainer, network, folder, _title(plan, network))
    if interrupted:
        print(*saved, sep="\n", flush=True)
        print(_how_to_go_on(trainer, origin, folder), file=sys.stderr)
        return _Result(trainer.history, {}, None, True)
    final = trainer.evaluate(*judged)
    if origin.classes is None:
        final["r_squared"] = r_squared(judged[1], network.predict(judged[0]))
    result = _Result(trainer.history, final, _best(trainer.history, f"val_{plan.measure}"), False)
    print(label + _verdict(plan, result), flush=True)
    if label:
        print(f"{label}{_pace(trainer, done, seconds)}, saved in {folder}", flush=True)
    else:
        print(_pace(trainer, done, seconds), *saved, sep="\n")
    return result


def _best(history: History, key: str) -> dict[str, Any] | None:
    try:
        return history.best(key)
    except ArgumentError:
        # Nothing was held out, or no epoch came to a finite number.
        return None


# ---------------------------------------------------------------------- what is printed


def _introduce(plan: _Plan, trainer: Trainer, network: Sequential) -> None:
    dataset, origin = plan.dataset, plan.origin
    notes = _large("features", dataset.train.X)
    if origin.classes is None and dataset.train.y is not None:
        notes += _large("targets", dataset.train.y)
        if dataset.train.y.dtype.kind in "iu":
            notes.append(
                "note: the targets are whole numbers, but not 0 to k-1, and are taken for numbers: "
                "--loss cross_entropy makes each of them a class"
            )
    for note in notes:
        print(note, file=sys.stderr)
    if plan.quiet:
        return
    held_out = "nothing held out" if plan.held_out is None else f"{len(plan.held_out):,} to test on"
    kind = f"{len(origin.classes)} classes" if origin.classes is not None else f"{network.outputs} target(s)"
    print(
        f"{dataset.name}: {len(dataset.train):,} examples to train on, {held_out}; "
        f"{dataset.train.X.shape[1]:,} features, {kind}"
    )
    print(
        f"network {_shape(network)}: {network.layout.count:,} parameters, {network.dtype}, {network.device}"
    )
    seeds = f"{'seeds' if len(plan.seeds) > 1 else 'seed'} {', '.join(map(str, plan.seeds))}"
    print(f"loss {trainer.loss.name}, {trainer.optimizer!r}, batches of {trainer.batch_size}, {seeds}")
    if trainer.epochs_done or trainer.updates:
        print(f"going on after {trainer.epochs_done} epochs, {trainer.updates:,} updates")
    if plan.held_out is not None:
        print(f"val_ is of the {len(plan.held_out):,} {plan.held_out.name} examples, after each epoch")
    sys.stdout.flush()


def _large(what: str, values: Any) -> list[str]:
    most = max(float(values.max()), -float(values.min()))
    if most <= LARGE:
        return []
    return [
        f"note: the {what} reach {most:,.6g}; networks learn best from numbers of about -1 to 1: scale them"
    ]


def _shape(network: Sequential) -> str:
    """The sizes from input to output, with the activations.

    >>> from gpunn import Dense
    >>> _shape(Sequential([Dense(3, "relu"), Dense(2)], input_shape=4, seed=0))
    '4 - 3 relu - 2 identity'
    """
    parts = [str(math.prod(network.input_shape))]
    for layer in network.layers:
        config = layer.config()
        parts.append(" ".join(str(config[key]) for key in ("units", "activation") if key in config))
    return " - ".join(parts)


def _title(plan: _Plan, network: Sequential) -> str:
    return f"{plan.dataset.name}: {_shape(network)}"


def _score(plan: _Plan, value: float) -> str:
    return percent(value) if plan.measure == "accuracy" else f"{value:.6g}"


def _verdict(plan: _Plan, result: _Result) -> str:
    side, final = plan.judged_on, result.final
    text = f"{plan.measure} on the {len(side):,} {side.name} examples: {_score(plan, final[plan.measure])}"
    if plan.measure == "accuracy":
        text += f" ({round(final['accuracy'] * len(side)):,} right), loss {final['loss']:.4f}"
    else:
        text += f", R² {final['r_squared']:.4f}"
    if result.best is not None:
        best = _score(plan, result.best[f"val_{plan.measure}"])
        text += f"; best {best} after epoch {result.best['epoch']}"
    return text


def _pace(trainer: Trainer, done: int, seconds: float) -> str:
    epochs = trainer.epochs_done - done
    return f"trained {epochs} {'epoch' if epochs == 1 else 'epochs'} in {seconds:.1f} s"


def _how_to_go_on(trainer: Trainer, origin: Origin, folder: Path) -> str:
    if trainer.epochs_done == origin.epochs:
        return "gpunn: interrupted after the last epoch: the run is complete"
    return (
        f"gpunn: interrupted in epoch {trainer.epochs_done + 1} of {origin.epochs}; to go on: "
        f"gpunn train --resume {shlex.quote(str(folder / RUN))}"
    )


def _sum_up(plan: _Plan, results: Sequence[_Result]) -> None:
    """A table over the runs: the final scores and those of each run's best epoch."""
    scores = {"final": [result.final[plan.measure] for result in results]}
    best = [result.best[f"val_{plan.measure}"] for result in results if result.best is not None]
    if len(best) == len(results):
        scores["best epoch"] = best
    side = plan.judged_on
    print(f"{len(results)} seeds, {plan.measure} on the {len(side):,} {side.name} examples:")
    print(f"{'':<10}" + "".join(f"  {name:>10}" for name in ("mean", "deviation", "min", "max")))
    for name, values in scores.items():
        # A loss may be infinite, which has no deviation.
        with np.errstate(invalid="ignore"):
            numbers = (np.mean(values), np.std(values, ddof=1), min(values), max(values))
        row = [_score(plan, float(number)) for number in numbers]
        print(f"{name:<10}" + "".join(f"  {value:>10}" for value in row), flush=True)
