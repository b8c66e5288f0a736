"""``gpunn train``: one run, a run taken up again, or one run for each of several seeds."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..batches import as_weights
from ..callbacks import Callback, EarlyStopping, WriteError
from ..data import Dataset, Split, Standardizer
from ..errors import ArgumentError, DivergenceError, unknown_name, whole_number
from ..history import History
from ..layers import Layer
from ..network import Sequential
from ..progress import shown
from ..training import Trainer
from . import rates, watchers
from .columns import in_order, names_of
from .runs import (
    PICTURE,
    RUN,
    Origin,
    Source,
    claim,
    data_options,
    draw_together,
    replaced,
    run_file,
    save,
)
from .scores import confusion_lines, counted, percent
from .task import (
    DEFAULTS,
    NUMBERS,
    choose,
    load_data,
    make_network,
    make_optimizer,
    output_count,
    resolve_loss,
    targets_of,
    task_of,
)

__all__ = ["train"]

INTERRUPTED = 130

#: Numbers above this are worth a warning: networks start from weights made for inputs of about −1 to 1.
LARGE = 100

#: So that a process that is killed loses little.
SECONDS_BETWEEN_SAVES = 30.0

#: What belongs to a run for good, so that ``--resume`` cannot change it.
_FIXED = (
    "standardize",
    "hidden",
    "dropout",
    "activation",
    "output_activation",
    "weights",
    "bias",
    "dtype",
    "loss",
    "metrics",
    "class_weight",
    "optimizer",
    *NUMBERS,
    "schedule",
    "warmup",
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
    def watched(self) -> Split | None:
        """The side that ``val_`` is of, after each epoch."""
        return self.dataset.test if self.origin.validation_fraction is None else self.dataset.validation

    @property
    def judged_on(self) -> Split:
        """The side that the final numbers are of: one that had no say in the weights, where there is one."""
        sides = (self.dataset.test, self.watched, self.dataset.train)
        return next(side for side in sides if side is not None)

    @property
    def measure(self) -> str:
        return "loss" if self.origin.task.is_numbers else "accuracy"


@dataclass(frozen=True)
class _Result:
    """How one run ended.

    ``best`` is the best epoch on the watched side, where there is one; ``kept`` that whose weights early
    stopping has put back.
    """

    history: History
    final: dict[str, Any]
    best: dict[str, Any] | None
    kept: dict[str, Any] | None
    interrupted: bool


def train(options: Namespace) -> int:
    """Run the command; returns 0, or 130 after Ctrl-C."""
    return _start(options) if options.resume is None else _go_on(options)


def _start(options: Namespace) -> int:
    epochs = whole_number("--epochs", choose(options, "epochs"), 1)
    source, asked = data_options(options, None), watchers.asked_for(options)
    validation = _validation_fraction(source, asked)
    dataset = load_data(source.data, source.target, source.test_fraction, validation)
    task = task_of(dataset, options.loss, source.target)
    standardizer = Standardizer().fit(dataset.train.X).to_dict() if options.standardize else None
    origin = Origin(
        options.data,
        source.target,
        source.test_fraction,
        epochs,
        not options.no_shuffle,
        task.classes,
        task.answers,
        _class_weight(options.class_weight, dataset, numbers=task.is_numbers),
        **asked,
        numbers=task.numbers,
        validation_fraction=validation,
        features=names_of(dataset),
        standardizer=standardizer,
    )
    dataset = _scaled(dataset, origin)
    seeds = list(dict.fromkeys(choose(options, "seed")))
    plan = _Plan(dataset, origin, seeds, options.quiet)
    loss, outputs = resolve_loss(options.loss, task), output_count(dataset, task)
    optimizer = make_optimizer(options)
    metrics = list(dict.fromkeys([*task.metrics, *choose(options, "metrics")]))
    out = Path("runs") / dataset.name if options.out is None else Path(options.out)
    several = len(seeds) > 1
    folders = {seed: out / f"seed-{seed}" if several else out for seed in seeds}
    watching = {
        seed: watchers.watchers_of(
            origin, folders[seed], seed if several else None, plan.watched is not None, goes_on=False
        )
        for seed in seeds
    }
    results: dict[int, _Result] = {}
    for seed in seeds:
        network = make_network(options, dataset.train.X.shape[1], outputs, loss, task, seed)
        trainer = Trainer(
            network,
            loss=loss,
            optimizer=optimizer,
            batch_size=choose(options, "batch_size"),
            metrics=metrics,
        )
        if not results:
            _try_metrics(trainer, network, task.classes is not None)
            claim(out, (PICTURE,))
            for folder in folders.values():
                claim(folder)
            _introduce(plan, trainer, network, replaced(folders.values()))
        results[seed] = _run(
            trainer, network, plan, folders[seed], watching[seed], f"seed {seed}: " if several else ""
        )
        if results[seed].interrupted:
            return INTERRUPTED
    if several:
        histories = {seed: result.history for seed, result in results.items()}
        _sum_up(plan, list(results.values()))
        print(draw_together(histories, out, _title(plan, network)))
    return 0


def _scaled(dataset: Dataset, origin: Origin) -> Dataset:
    """The data as the network takes them."""

    def scaled(side: Split) -> Split:
        return dataclasses.replace(side, X=origin.scaled(side.X))

    return dataclasses.replace(
        dataset,
        train=scaled(dataset.train),
        validation=None if dataset.validation is None else scaled(dataset.validation),
        test=None if dataset.test is None else scaled(dataset.test),
    )


def _validation_fraction(source: Source, asked: Mapping[str, Any]) -> float | None:
    """What is held out to choose by; None where nothing is chosen, and val_ may be of the test examples."""
    chooses = bool(asked["early_stopping"] or asked["reduce_on_plateau"])
    if source.validation_fraction is None:
        return DEFAULTS["validation_fraction"] if chooses else None
    return None if source.validation_fraction == 0 and not chooses else source.validation_fraction


def _validation_again(
    options: Namespace, source: Source, asked: Mapping[str, Any], before: Origin
) -> float | None:
    """What was held out in the run that goes on, which has learnt from all the rest."""
    given, known = options.validation_fraction, before.validation_fraction
    if given is not None and (given or None) != (known or None):
        held = "held none out" if known is None else f"held {known:g} out"
        raise ArgumentError(
            f"--validation-fraction is {given:g}, but the run that --resume goes on with {held}, and has "
            f"learnt from all the rest: leave it out"
        )
    # A run of an older version may have chosen by its test examples: it goes on as it began.
    if known is None and not before.chooses:
        for name in ("early_stopping", "reduce_on_plateau"):
            if asked[name]:
                option = f"--{name.replace('_', '-')}"
                raise ArgumentError(
                    f"{option} needs validation examples, and the run that --resume goes on with held none "
                    f"out: train anew with {option}, or leave it out"
                )
    return known


def _class_weight(given: str | None, dataset: Dataset, *, numbers: bool) -> str | None:
    if given is None:
        return None
    if given != "balanced":
        raise unknown_name("--class-weight", given, ("balanced",))
    if numbers:
        raise ArgumentError(
            f"--class-weight is about classes, or answers of yes or no, and the targets of {dataset.name} "
            f"are numbers: leave it out"
        )
    return given


def _try_metrics(trainer: Trainer, network: Sequential, classes: bool) -> None:
    """Let metrics that mean nothing for such targets be an error before anything is made or printed."""
    labels = classes and trainer.loss.takes_labels(network.outputs)
    network.program(
        trainer.loss.name,
        metrics=[metric.name for metric in trainer.metrics],
        targets="labels" if labels else "dense",
    )


def _go_on(options: Namespace) -> int:
    for name in _FIXED:
        if getattr(options, name) is not None:
            raise ArgumentError(
                f"--{name.replace('_', '-')} belongs to the run that --resume goes on with: leave it out"
            )
    trainer = Trainer.load(run_file(options.resume), choose(options, "device"))
    network = cast(Sequential, trainer.network)
    before = Origin.beside(options.resume, network)
    source, asked = data_options(options, before), watchers.asked_for(options, before)
    if before is None or source.data != before.data:
        validation = _validation_fraction(source, asked)
    else:
        validation = _validation_again(options, source, asked, before)
    dataset = load_data(source.data, source.target, source.test_fraction, validation)
    if before is None:
        epochs, shuffle, features = choose(options, "epochs"), True, names_of(dataset)
        task = task_of(dataset, trainer.loss.name, source.target)
    else:
        epochs = before.epochs if options.epochs is None else options.epochs
        shuffle, task = before.shuffle, before.task
        dataset = in_order(dataset, before.features, str(source.data))
        features = before.features or names_of(dataset)
    if epochs <= trainer.epochs_done:
        raise ArgumentError(
            f"{options.resume} has done {trainer.epochs_done} of {counted(epochs, 'epoch')}: give more "
            f"--epochs to go on"
        )
    origin = Origin(
        str(source.data),
        source.target,
        source.test_fraction,
        epochs,
        shuffle and not options.no_shuffle,
        task.classes,
        task.answers,
        None if before is None else before.class_weight,
        **asked,
        numbers=task.numbers,
        validation_fraction=validation,
        features=features,
        standardizer=None if before is None else before.standardizer,
    )
    plan = _Plan(_scaled(dataset, origin), origin, [trainer.seed], options.quiet)
    folder = Path(options.resume).parent if options.out is None else Path(options.out)
    watching = watchers.watchers_of(origin, folder, None, plan.watched is not None, goes_on=True)
    claim(folder)
    elsewhere = folder.resolve() != Path(options.resume).parent.resolve()
    _introduce(plan, trainer, network, replaced([folder]) if elsewhere else [])
    return INTERRUPTED if _run(trainer, network, plan, folder, watching, "").interrupted else 0


def _save_now_and_then(folder: Path, title: str) -> Callable[[Trainer, dict[str, Any]], None]:
    """A callback that saves the run at the first epoch's end after every half a minute."""
    last = time.perf_counter()

    def save_if_due(trainer: Trainer, record: dict[str, Any]) -> None:
        nonlocal last
        if time.perf_counter() - last >= SECONDS_BETWEEN_SAVES:
            save(trainer, cast(Sequential, trainer.network), folder, title)
            last = time.perf_counter()

    return save_if_due


def _run(
    trainer: Trainer,
    network: Sequential,
    plan: _Plan,
    folder: Path,
    watching: Sequence[Callback],
    label: str,
) -> _Result:
    """Train what is left to train, save, and tell how it went."""
    origin, loss = plan.origin, trainer.loss

    def data(side: Split) -> tuple[Any, Any]:
        return side.X, targets_of(side, plan.dataset.classes, origin.task, loss, network.outputs)

    origin.record(trainer.history)
    X, y = data(plan.dataset.train)
    watched, judged = None if plan.watched is None else data(plan.watched), data(plan.judged_on)
    interrupted, started = False, time.perf_counter()
    done, updates = trainer.epochs_done, trainer.updates
    try:
        trainer.fit(
            X,
            y,
            epochs=origin.epochs - done,
            validation_data=watched,
            shuffle=origin.shuffle,
            callbacks=[*watching, _save_now_and_then(folder, _title(plan, network))],
            verbose=0 if plan.quiet else 1,
            **_weights(origin, y, loss.link == "sigmoid"),
        )
    except KeyboardInterrupt:
        interrupted = True
    except (DivergenceError, WriteError) as error:
        # What could not even begin leaves the files of an earlier run alone.
        if isinstance(error, DivergenceError) or trainer.updates > updates:
            save(trainer, network, folder, _title(plan, network))
        raise
    seconds = time.perf_counter() - started
    kept = _kept(trainer, watching)
    saved = save(trainer, network, folder, _title(plan, network), None if kept is None else kept["epoch"])
    if interrupted:
        print(*saved, sep="\n", flush=True)
        print(_how_to_go_on(trainer, origin, folder), file=sys.stderr)
        return _Result(trainer.history, {}, None, None, True)
    final = trainer.evaluate(*judged)
    result = _Result(trainer.history, final, _best(trainer.history, f"val_{plan.measure}"), kept, False)
    print(label + _verdict(plan, result), flush=True)
    if "confusion" in final:
        counts, names = final["confusion"], origin.classes or origin.answers or ()
        print(*confusion_lines(counts, names), sep="\n", flush=True)
    pace = _pace(trainer, done, seconds, watching)
    if label:
        print(f"{label}{pace}, saved in {folder}", flush=True)
    else:
        print(pace, *saved, sep="\n")
    return result


def _weights(origin: Origin, y: Any, by_output: bool) -> dict[str, Any]:
    """What weighs the examples: the classes' weights, or one an example where y holds one-hot rows."""
    if origin.class_weight is None:
        return {}
    if y.ndim == 1 or by_output:
        return {"class_weight": origin.class_weight}
    labels, classes = y.argmax(axis=1), y.shape[1]
    return {"sample_weight": as_weights(None, origin.class_weight, labels, len(y), classes, "float64")}


def _kept(trainer: Trainer, watching: Sequence[Callback]) -> dict[str, Any] | None:
    """The record of the epoch whose weights early stopping has put back; None where they are the last."""
    epochs = [watcher.best_epoch for watcher in watching if isinstance(watcher, EarlyStopping)]
    if not trainer.completed:
        return None
    return next((record for record in trainer.history if record["epoch"] in epochs), None)


def _best(history: History, key: str) -> dict[str, Any] | None:
    try:
        return history.best(key)
    except ArgumentError:
        # Nothing was held out, or no epoch came to a finite number.
        return None


# ---------------------------------------------------------------------- what is printed


def _introduce(plan: _Plan, trainer: Trainer, network: Sequential, before: Sequence[str]) -> None:
    dataset, origin = plan.dataset, plan.origin
    notes = [*before, *_large("features", dataset.train.X)]
    if origin.task.is_numbers and dataset.train.y is not None:
        notes += _large("targets", dataset.train.y)
        notes += _taken_for_numbers(dataset.train.y)
    notes += _standstill(trainer, origin.epochs)
    for note in notes:
        print(note, file=sys.stderr)
    if plan.quiet:
        return
    print(
        f"{dataset.name}: {len(dataset.train):,} examples to train on, {_held_out(plan)}; "
        f"{dataset.train.X.shape[1]:,} features{_told_scale(origin)}, {_kind(origin, network.outputs)}"
    )
    print(
        f"network {_shape(network)}: {network.layout.count:,} parameters, {network.dtype}, {network.device}"
    )
    seeds = f"{'seeds' if len(plan.seeds) > 1 else 'seed'} {', '.join(map(str, plan.seeds))}"
    optimizer, schedule = trainer.optimizer, trainer.optimizer.schedule
    if schedule is not None and dataclasses.is_dataclass(optimizer):
        optimizer = dataclasses.replace(optimizer, schedule=None)
    weights = "" if origin.class_weight is None else f"{origin.class_weight} class weights, "
    print(f"loss {trainer.loss.name}, {optimizer!r}, batches of {trainer.batch_size}, {weights}{seeds}")
    if schedule is not None:
        print(f"learning rate {optimizer.lr:g} {rates.told(schedule)}")
    if watching := watchers.told(origin):
        print(watching)
    if trainer.epochs_done or trainer.updates:
        print(f"going on after {_done(trainer)}")
    if plan.watched is not None:
        side = plan.watched
        print(f"val_ is of the {len(side):,} {side.name} examples, after each epoch{_say(plan)}")
    sys.stdout.flush()


def _done(trainer: Trainer) -> str:
    return f"{counted(trainer.epochs_done, 'epoch')}, {counted(trainer.updates, 'update')}"


def _told_scale(origin: Origin) -> str:
    return "" if origin.standardizer is None else ", standardized"


def _held_out(plan: _Plan) -> str:
    validation = None if plan.origin.validation_fraction is None else plan.dataset.validation
    sides = ((validation, "validate"), (plan.dataset.test, "test"))
    told = [f"{len(side):,} to {purpose} on" for side, purpose in sides if side is not None]
    return ", ".join(told) or "nothing held out"


def _say(plan: _Plan) -> str:
    """What the watched examples decide, and whether the final score can be trusted all the same."""
    chosen = "they choose the weights, " if plan.origin.early_stopping else ""
    if plan.watched is plan.judged_on:
        return f"; {chosen}which flatters their score" if chosen else ""
    if not chosen and plan.origin.reduce_on_plateau:
        chosen = "they choose the learning rate, "
    return f"; {chosen}the {plan.judged_on.name} examples are left for the end"


def _kind(origin: Origin, outputs: int) -> str:
    if origin.classes is not None:
        return f"{len(origin.classes)} classes"
    if origin.task.is_numbers:
        return f"{outputs} target(s)" if origin.numbers is None else f"{outputs} {origin.task}"
    return str(origin.task)


def _taken_for_numbers(y: Any) -> list[str]:
    if y.dtype.kind in "iu":
        return [
            "note: the targets are whole numbers, but not 0 to k-1, and are taken for numbers: "
            "--loss cross_entropy makes each of them a class"
        ]
    if y.ndim > 1 and bool(np.isin(y, (0, 1)).all()):
        return [
            "note: the targets are all 0 or 1, and are taken for numbers: --loss binary_cross_entropy makes "
            "each column a yes or no"
        ]
    return []


def _standstill(trainer: Trainer, epochs: int) -> list[str]:
    """Whether the epochs to come learn nothing, because the schedule of the run has come to its end."""
    schedule = trainer.optimizer.schedule
    if schedule is None or schedule.unit != "epoch":
        return []
    for epoch in range(trainer.epochs_done, epochs):
        if not schedule.rates(trainer.optimizer.lr, epoch, 0, 1, 1).any():
            return [
                f"note: from epoch {epoch + 1} on the learning rate is 0, as the schedule of this run says, "
                f"and nothing is learnt"
            ]
    return []


def _large(what: str, values: Any) -> list[str]:
    most = max(float(values.max()), -float(values.min()))
    if most <= LARGE:
        return []
    remedy = "--standardize scales them" if what == "features" else "scale them"
    return [
        f"note: the {what} reach {most:,.6g}; networks learn best from numbers of about -1 to 1: {remedy}"
    ]


def _shape(network: Sequential) -> str:
    """The sizes from input to output, with the activations.

    >>> from gpunn import Dense, Dropout
    >>> _shape(Sequential([Dense(3, "relu"), Dropout(0.2), Dense(2)], input_shape=4, seed=0))
    '4 - 3 relu - dropout 0.2 - 2 identity'
    """
    return " - ".join([str(math.prod(network.input_shape)), *map(_layer, network.layers)])


def _layer(layer: Layer) -> str:
    config = layer.config()
    told = " ".join(str(config[key]) for key in ("units", "activation") if key in config)
    return told or " ".join([type(layer).__name__.lower(), *map(str, config.values())])


def _title(plan: _Plan, network: Sequential) -> str:
    return f"{plan.dataset.name}: {_shape(network)}"


def _score(plan: _Plan, value: float) -> str:
    return percent(value) if plan.measure == "accuracy" else f"{value:.6g}"


def _verdict(plan: _Plan, result: _Result) -> str:
    side, final = plan.judged_on, result.final
    text = f"{plan.measure} on the {len(side):,} {side.name} examples: {_score(plan, final[plan.measure])}"
    if plan.measure == "accuracy":
        all_right = "with every answer right" if len(plan.origin.answers or ()) > 1 else "right"
        text += f" ({round(final['accuracy'] * len(side)):,} {all_right}), loss {final['loss']:.4f}"
    text += "".join(_others(final))
    if result.kept is not None:
        if plan.watched is not None and plan.watched is not side:
            kept = _score(plan, result.kept[f"val_{plan.measure}"])
            text += f"; on the {plan.watched.name} examples {kept} after epoch {result.kept['epoch']}"
    elif result.best is not None:
        best = _score(plan, result.best[f"val_{plan.measure}"])
        if plan.watched is side:
            text += f"; best {best} after epoch {result.best['epoch']}"
        elif plan.watched is not None:
            text += f"; best on the {plan.watched.name} examples {best} after epoch {result.best['epoch']}"
    return text


def _others(final: Mapping[str, Any]) -> list[str]:
    """The numbers beside loss and accuracy."""
    return [
        f", {'R²' if key == 'r2' else key} {shown(key, value)}"
        for key, value in final.items()
        if key not in ("loss", "accuracy") and isinstance(value, float)
    ]


def _pace(trainer: Trainer, done: int, seconds: float, watching: Sequence[Callback]) -> str:
    text = f"trained {counted(trainer.epochs_done - done, 'epoch')} in {seconds:.1f} s"
    for watcher in watching:
        if isinstance(watcher, EarlyStopping) and watcher.best_epoch is not None:
            early = ", stopped early" if watcher.stopped_epoch is not None else ""
            text += f"{early}; the weights are those of epoch {watcher.best_epoch}, with the lowest val_loss"
    return text


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
    # Of other examples, they belong in another table.
    chosen = any(result.kept is not None for result in results)
    if len(best) == len(results) and plan.watched is plan.judged_on and not chosen:
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
