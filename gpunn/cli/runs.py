"""The folder of a run: what is saved in it, what must not be overwritten, and where a network came from."""

from __future__ import annotations

import math
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from numpy.typing import NDArray

from .. import checkpoint
from ..data import Standardizer
from ..errors import ArgumentError, DataError, FormatError, GpunnError
from ..history import History
from ..network import Sequential
from ..plotting import MissingMatplotlibError, compare_runs, learning_curves
from ..training import Trainer
from .columns import TABLES, target_elsewhere
from .scores import counted
from .task import DEFAULTS, Classes, Target, Task

__all__ = [
    "HISTORY",
    "MODEL",
    "PICTURE",
    "RUN",
    "Origin",
    "Source",
    "claim",
    "data_options",
    "draw_together",
    "replaced",
    "run_file",
    "save",
    "saved_file",
]

MODEL, RUN, HISTORY, PICTURE = "model.safetensors", "run.safetensors", "history.json", "learning_curves.png"

#: The data sets that have a name.
SETS = ("digits", "digit-traits", "mnist")

#: The entry of ``history.json`` that holds an :class:`Origin`.
_ENTRY = "command_line"

#: What a file, which anyone can edit, must hold in that entry.
_TYPES: dict[str, Any] = {
    "data": str,
    "target": (str, list, NoneType),
    "test_fraction": (int, float),
    "epochs": int,
    "shuffle": bool,
    "classes": (list, NoneType),
}

#: What it may hold beside; files of older versions lack it.
_MORE_TYPES: dict[str, Any] = {
    "answers": (list, NoneType),
    "class_weight": (str, NoneType),
    "early_stopping": (int, NoneType),
    "reduce_on_plateau": (int, NoneType),
    "csv_log": (str, NoneType),
    "tensorboard": (str, NoneType),
    "checkpoint_every": (int, NoneType),
    "keep": (int, NoneType),
    "numbers": (list, NoneType),
    "features": (list, NoneType),
    "standardizer": (dict, NoneType),
    "validation_fraction": (int, float, NoneType),
}


@dataclass(frozen=True)
class Origin:
    """What the command line trained a network on: enough to go on, and to name its classes.

    It is kept in the ``history.json`` beside the network. ``validation_fraction`` is None where no validation
    examples are looked at while it trains: then ``val_`` is of the test examples. ``features`` are the names
    of the columns that it learns from, where they have names. ``standardizer`` is what
    :meth:`gpunn.data.Standardizer.to_dict` gives, where the features are standardized.
    """

    data: str
    target: Target
    test_fraction: float
    epochs: int
    shuffle: bool
    classes: Classes
    answers: Classes = None
    class_weight: str | None = None
    early_stopping: int | None = None
    reduce_on_plateau: int | None = None
    csv_log: str | None = None
    tensorboard: str | None = None
    checkpoint_every: int | None = None
    keep: int | None = None
    numbers: Classes = None
    validation_fraction: float | None = None
    features: Classes = None
    standardizer: dict[str, Any] | None = None

    def scaled(self, X: NDArray[Any]) -> NDArray[Any]:
        """The features as the network takes them: standardized where it was trained on such."""
        return X if self.standardizer is None else Standardizer.from_dict(self.standardizer).transform(X)

    @property
    def task(self) -> Task:
        """What the network's outputs stand for."""
        return Task(self.classes, self.answers, self.numbers)

    @property
    def chooses(self) -> bool:
        """Whether something of the run is chosen by ``val_loss``: its weights, or its learning rate."""
        return bool(self.early_stopping or self.reduce_on_plateau)

    def record(self, history: History) -> None:
        """Enter it into a history."""
        history.about[_ENTRY] = asdict(self)

    @classmethod
    def beside(cls, path: str, network: Sequential) -> Origin | None:
        """The origin of the network saved at ``path``; None where the folder tells none, or another's."""
        try:
            about = History.load(Path(path).parent / HISTORY).about
            config, entry = dict(about["network"]), dict(about[_ENTRY])
        except (OSError, GpunnError, KeyError, TypeError, ValueError):
            return None
        own = network.config()
        if any(config.get(key) != own[key] for key in ("layers", "input_shape", "seed")):
            return None
        known = _TYPES | _MORE_TYPES
        if not _TYPES.keys() <= entry.keys() <= known.keys():
            return None
        if not all(isinstance(value, known[key]) for key, value in entry.items()):
            return None
        if isinstance(entry["target"], list):
            entry["target"] = tuple(map(str, entry["target"]))
        for key in ("classes", "answers", "numbers"):
            if entry.get(key) is not None:
                entry[key] = tuple(map(str, entry[key]))
                if len(entry[key]) != network.outputs:
                    return None
        width = math.prod(network.input_shape)
        if entry.get("features") is not None:
            entry["features"] = tuple(map(str, entry["features"]))
            if len(entry["features"]) != width:
                return None
        if entry.get("standardizer") is not None:
            try:
                if Standardizer.from_dict(entry["standardizer"]).shape != (width,):
                    return None
            except GpunnError:
                return None
        return cls(**entry)


@dataclass(frozen=True)
class Source:
    """Which data, what of them is predicted, and how they are divided."""

    data: str | None
    target: Target
    test_fraction: float
    validation_fraction: float | None


def data_options(options: Namespace, origin: Origin | None) -> Source:
    """--data, --target and the fractions: as given, else as the network was trained with.

    Of other data than in training, the origin's target is taken where they have it, but not its fractions.
    """
    target, test, validation = options.target, options.test_fraction, options.validation_fraction
    source = options.data
    if origin is not None and source in (None, origin.data):
        source = origin.data
        target = origin.target if target is None else target
        test = origin.test_fraction if test is None else test
        validation = origin.validation_fraction if validation is None else validation
    elif origin is not None and target is None:
        target = target_elsewhere(origin.target, origin.features, source)
    return Source(source, target, DEFAULTS["test_fraction"] if test is None else test, validation)


def claim(
    folder: Path, names: tuple[str, ...] = (MODEL, RUN, HISTORY, PICTURE), *, make: bool = True
) -> None:
    """Make the folder; raise rather than overwrite a file that gpunn did not write."""
    for name in names:
        path = folder / name
        if path.exists() and not _ours(path):
            raise ArgumentError(
                f"{path} exists and is not what gpunn saves under this name: move it, or choose another --out"
            )
    if make:
        folder.mkdir(parents=True, exist_ok=True)


def _ours(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            return checkpoint.read(path).kind in ("network", "run")
        if path.suffix == ".json":
            return "network" in History.load(path).about
        with open(path, "rb") as file:
            return b"Software\0gpunn" in file.read(200)
    except (FormatError, IsADirectoryError):
        return False


def saved_file(path: str, instead: str = "") -> str:
    """The path of a saved network or run; raises where it is that of data. ``instead``: what takes these."""
    if Path(path).suffix.lower() in (*TABLES, ".npz") or (path in SETS and not Path(path).exists()):
        hint = (
            f"give the data as {instead} {shlex.quote(path)}" if instead else "gpunn train learns from data"
        )
        raise ArgumentError(f"{path} is data, expected {MODEL} or {RUN} of a training: {hint}")
    return path


def run_file(path: str) -> str:
    """The path of a saved run; raises where it holds a network alone."""
    if checkpoint.read(saved_file(path)).kind != "run":
        beside = Path(path).parent / RUN
        told = (
            f"give {beside}, which lies beside it" if beside.exists() else f"give the {RUN} of its training"
        )
        raise FormatError(
            f"{path} holds a network alone, expected a run, with its optimizer and epochs: {told}"
        )
    return path


def replaced(folders: Iterable[Path]) -> list[str]:
    """A note for people where a run that was saved earlier will be replaced."""
    there = [folder for folder in folders if (folder / MODEL).exists() or (folder / RUN).exists()]
    if not there:
        return []
    what = "an earlier run"
    try:
        history = History.load(there[0] / HISTORY)
        what = f"the run of {history.about[_ENTRY]['data']}, {counted(len(history), 'epoch')},"
    except (OSError, GpunnError, LookupError, TypeError):
        pass
    more = f" and {counted(len(there) - 1, 'run')} more beside it" if len(there) > 1 else ""
    return [f"note: replaces {what} in {there[0]}{more}: --out saves elsewhere"]


def save(
    trainer: Trainer, network: Sequential, folder: Path, title: str, kept: int | None = None
) -> list[str]:
    """Save all there is of a run; returns what to tell of it. ``kept``: the epoch whose weights are back."""
    network.save(folder / MODEL)
    trainer.save(folder / RUN)
    trainer.history.save(folder / HISTORY)
    told = [
        _saved(folder / MODEL, "the network: gpunn evaluate, gpunn predict"),
        _saved(folder / RUN, "the run: gpunn train --resume goes on with it"),
        _saved(folder / HISTORY, "the numbers of each epoch"),
    ]
    if len(trainer.history):
        told.append(_draw(folder, lambda path: learning_curves(trainer.history, path, title, kept)))
    return told


def draw_together(histories: Mapping[int, History], folder: Path, title: str) -> str:
    """Draw the curves of several seeds over each other; returns what to tell of it."""
    runs = {f"seed {seed}": history for seed, history in histories.items()}
    return _draw(folder, lambda path: compare_runs(runs, path, title))


def _draw(folder: Path, picture: Callable[[Path], Any]) -> str:
    try:
        picture(folder / PICTURE)
    except (MissingMatplotlibError, DataError) as error:
        # A run is worth keeping without its picture.
        return f"no {PICTURE}: {error}"
    return _saved(folder / PICTURE, "the numbers over the epochs")


def _saved(path: Path, purpose: str) -> str:
    return f"saved {path!s:<{len(str(path.parent / PICTURE))}}  {purpose}"
