"""``gpunn info`` and ``gpunn program``: what there is, and what would run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from argparse import Namespace
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np

from .. import checkpoint, variants
from .._version import __version__
from ..device import devices
from ..errors import ArgumentError
from ..losses import loss_named
from ..network import Sequential
from ..optimizers import Optimizer
from ..program import Program
from ..progress import record_line
from ..training import Trainer
from . import rates, watchers
from .runs import RUN, Origin, saved_file
from .scores import counted
from .task import (
    NUMBERS,
    Task,
    choose,
    few,
    load_data,
    make_network,
    make_optimizer,
    output_count,
    resolve_loss,
    task_of,
)

__all__ = ["info", "program"]

#: What each extra brings, by the name of the distribution.
_EXTRAS = {
    "sklearn": "scikit-learn",
    "plot": "matplotlib",
    "data": "pooch",
    "tensorboard": "tensorboardX",
}

#: The options that declare a network, which a saved one has no use for.
_DECLARED = (
    "data",
    "target",
    "test_fraction",
    "inputs",
    "outputs",
    "hidden",
    "dropout",
    "activation",
    "output_activation",
    "weights",
    "bias",
    "dtype",
)

#: Those that a saved run has no use for either.
_LEARNING = ("loss", "optimizer", *NUMBERS, "schedule", "warmup", "batch_size")


def info(options: Namespace) -> int:
    """Print what works here, or what a file holds; returns 0."""
    if options.model is None:
        _here()
    else:
        _file(options.model)
    return 0


def _here() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"gpunn {__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {cores} CPU cores"
    )
    print(f"NumPy {np.__version__}, BLAS {_blas()}")
    print("\nbackends (--device)")
    for status in devices():
        print(f"  {status}")
    print("\nextras")
    for extra, distribution in _EXTRAS.items():
        print(f"  {extra:<11} {_version(distribution)}")
    print("\ndata (--data)")
    print("  digits        comes with scikit-learn")
    print("  digit-traits  the same, with four questions about each digit")
    print(f"  mnist         {_mnist()}")


def _blas() -> str:
    found = np.show_config(mode="dicts")
    blas = (found or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"{distribution} is not installed: pip install {distribution}"


def _mnist() -> str:
    folder = os.environ.get("GPUNN_DATA")
    if not folder:
        return "looked for in the user's cache; GPUNN_DATA may name another folder"
    state = "" if Path(folder).is_dir() else " (no such folder)"
    return f"looked for in GPUNN_DATA={folder}{state}, in its subfolder mnist, and in the user's cache"


def _file(path: str) -> None:
    kind = checkpoint.read(saved_file(path)).kind
    network: Sequential = checkpoint.load(path)
    print(f"{path}: a training {kind}" if kind == "run" else f"{path}: a {kind}", end="")
    print(f", {os.path.getsize(path):,} bytes\n")
    print(network.summary())
    print(f"\nloss      {network.loss or 'none yet'}")
    print(f"seed      {network.seed}")
    origin = Origin.beside(path, network)
    if origin is not None:
        print(f"data      {origin.data}{_targets(origin)}")
        if origin.features is not None:
            print(f"takes     {few(origin.features)}")
        if origin.standardizer is not None:
            print("features  standardized: mean 0 and deviation 1 in training")
        print(f"predicts  {origin.task}")
        if origin.class_weight is not None:
            print(f"weights   {origin.class_weight} class weights")
    if kind == "run":
        trainer = Trainer.load(path)
        print(f"optimizer {trainer.optimizer!r}, batches of {trainer.batch_size}")
        if trainer.optimizer.schedule is not None:
            print(f"schedule  {rates.told(trainer.optimizer.schedule)}")
        if origin is not None and (watching := watchers.told(origin)):
            print(f"watching  {watching}")
        done = counted(trainer.epochs_done, "epoch")
        print(f"done      {done}, {counted(trainer.updates, 'update')}")
        if len(trainer.history):
            print(f"last      {record_line(trainer.history.records[-1])}")


def _targets(origin: Origin) -> str:
    if not origin.target:
        return ""
    if isinstance(origin.target, str):
        return f", target {origin.target}"
    return f", targets {', '.join(origin.target)}"


def program(options: Namespace) -> int:
    """Print the program of one minibatch of training; returns 0."""
    if options.model is None:
        network, loss, task = _declared(options)
        size, optimizer = choose(options, "batch_size"), make_optimizer(options)
        targets = "auto" if task.answers is None else "dense"
        _print_program(network.program(loss, optimizer, size, targets=targets), optimizer)
        return 0
    kind = checkpoint.read(saved_file(options.model, "gpunn program --data")).kind
    for whose, names in (("network", _DECLARED), ("optimizer, batch size and loss", _LEARNING)):
        given = [name for name in names if getattr(options, name) is not None]
        if given and (kind == "run" or names is _DECLARED):
            option = given[0].replace("_", "-")
            raise ArgumentError(f"{options.model} has its own {whose}: leave --{option} out")
    return _program_of_run(options) if kind == "run" else _program_of_network(options)


def _print_program(program: Program, optimizer: Optimizer | None, scale: float = 1.0) -> None:
    sys.stdout.write(f"{program}\n")
    if optimizer is not None and optimizer.schedule is not None:
        print(f"rates: the learning rate {optimizer.lr * scale:g} {rates.told(optimizer.schedule)}")
    elif optimizer is not None and scale != 1:
        print(f"rates: the learning rate {optimizer.lr:g} has fallen to {optimizer.lr * scale:g}")


def _program_of_run(options: Namespace) -> int:
    """The program of a saved run is that of its last epoch, or, before the first, of what it was made for."""
    trainer = Trainer.load(options.model, choose(options, "device"))
    network = cast(Sequential, trainer.network)
    origin = Origin.beside(options.model, network)
    last = checkpoint.read(options.model).config["pass"]
    labels = trainer.loss.takes_labels(network.outputs) and (origin is None or origin.answers is None)
    weighted = origin is not None and origin.class_weight is not None
    targets = variants.Targets(bool(last.get("labels", labels)), bool(last.get("weighted", weighted)))
    batch, optimizer = trainer.batch_size, trainer.optimizer
    program = variants.training(
        network.model, trainer.loss, optimizer, batch, metrics=trainer.metrics, targets=targets
    )
    _print_program(program, optimizer, trainer.lr_scale)
    return 0


def _program_of_network(options: Namespace) -> int:
    """What a network file does not hold, its optimizer and the batch size, is as the options say."""
    network: Sequential = checkpoint.load(options.model, choose(options, "device"))
    origin, size = Origin.beside(options.model, network), choose(options, "batch_size")
    loss = options.loss or network.loss
    if loss is None:
        _print_program(network.program(None, batch_size=size), None)
        return 0
    row, optimizer = loss_named(loss), make_optimizer(options)
    answers = origin is not None and origin.answers is not None
    targets = variants.Targets(
        row.takes_labels(network.outputs) and not answers,
        origin is not None and origin.class_weight is not None,
    )
    _print_program(variants.training(network.model, row, optimizer, size, targets=targets), optimizer)
    if options.optimizer is None:
        beside = Path(options.model).parent / RUN
        told = f"gpunn program {shlex.quote(str(beside))} prints" if beside.exists() else f"its {RUN} has"
        print(
            f"note: {options.model} does not hold how it was trained, {type(optimizer).__name__} and batches "
            f"of {size} are assumed: {told} what it was trained with",
            file=sys.stderr,
        )
    return 0


def _declared(options: Namespace) -> tuple[Sequential, str, Task]:
    if options.data is None:
        inputs = 784 if options.inputs is None else options.inputs
        outputs = 10 if options.outputs is None else options.outputs
        loss = resolve_loss(options.loss, Task(classes=("",)))
        task = Task(classes=("",)) if outputs > 1 else Task()
        return make_network(options, inputs, outputs, loss, task, seed=0), loss, task
    if options.inputs is not None or options.outputs is not None:
        raise ArgumentError("--inputs and --outputs follow from --data: leave them out")
    dataset = load_data(options.data, options.target, choose(options, "test_fraction"))
    task = task_of(dataset, options.loss, options.target)
    loss, outputs = resolve_loss(options.loss, task), output_count(dataset, task)
    inputs = dataset.train.X.shape[1]
    return make_network(options, inputs, outputs, loss, task, seed=0), loss, task
