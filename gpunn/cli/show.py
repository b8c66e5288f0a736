"""``gpunn info`` and ``gpunn program``: what there is, and what would run."""

from __future__ import annotations

import os
import platform
import sys
from argparse import Namespace
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import checkpoint
from .._version import __version__
from ..device import devices
from ..errors import ArgumentError
from ..network import Sequential
from ..progress import record_line
from ..training import Trainer
from . import rates, watchers
from .runs import Origin
from .task import (
    Task,
    choose,
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
    kind = checkpoint.read(path).kind
    network: Sequential = checkpoint.load(path)
    print(f"{path}: a training {kind}" if kind == "run" else f"{path}: a {kind}", end="")
    print(f", {os.path.getsize(path):,} bytes\n")
    print(network.summary())
    print(f"\nloss      {network.loss or 'none yet'}")
    print(f"seed      {network.seed}")
    origin = Origin.beside(path, network)
    if origin is not None:
        print(f"data      {origin.data}{_targets(origin)}")
        print(f"predicts  {origin.task}")
    if kind == "run":
        trainer = Trainer.load(path)
        print(f"optimizer {trainer.optimizer!r}, batches of {trainer.batch_size}")
        if trainer.optimizer.schedule is not None:
            print(f"schedule  {rates.told(trainer.optimizer.schedule)}")
        if origin is not None and (watching := watchers.told(origin)):
            print(f"watching  {watching}")
        print(f"done      {trainer.epochs_done} epochs, {trainer.updates:,} updates")
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
    network, loss, task = _saved(options) if options.model is not None else _declared(options)
    size, optimizer = choose(options, "batch_size"), make_optimizer(options)
    targets = "auto" if task.answers is None else "dense"
    sys.stdout.write(f"{network.program(loss, optimizer, size, targets=targets)}\n")
    if loss is not None and optimizer.schedule is not None:
        print(f"rates: the learning rate {optimizer.lr:g} {rates.told(optimizer.schedule)}")
    return 0


def _saved(options: Namespace) -> tuple[Sequential, str | None, Task]:
    given = [name for name in _DECLARED if getattr(options, name) is not None]
    if given:
        raise ArgumentError(f"{options.model} has its own network: leave --{given[0].replace('_', '-')} out")
    network: Sequential = checkpoint.load(options.model, choose(options, "device"))
    origin = Origin.beside(options.model, network)
    return network, options.loss or network.loss, Task() if origin is None else origin.task


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
