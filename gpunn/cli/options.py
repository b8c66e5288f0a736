"""The options of each command, what they mean, and how a wrong one is answered."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .._version import __version__
from ..errors import ArgumentError, unknown_name
from .apply import evaluate, predict
from .rates import FORMS
from .show import info, program
from .task import DEFAULTS
from .train import train
from .watchers import KEEP, PATIENCE, SLOWER

__all__ = ["Command", "parse"]

Command = Callable[[argparse.Namespace], int]

_ABOUT = """Neural networks whose every equation is a kernel.

  gpunn train --data digits                     train, evaluate, save in runs/digits
  gpunn evaluate runs/digits/model.safetensors  loss and accuracy, class by class
  gpunn predict MODEL --data FILE.csv           one prediction a row
  gpunn info                                    what works on this machine
  gpunn program                                 the equations that training runs"""

_TRAIN = """Train a network, evaluate it on held-out data after each epoch, and save everything.

The final score is of the test examples. So is val_ after each epoch, unless something is chosen by it:
with --early-stopping, --reduce-on-plateau or --validation-fraction it is of validation examples, the data
set's own or a part of the training examples, and no test example has a say in the weights.

examples:
  gpunn train --data digits
  gpunn train --data flowers.csv --target species --hidden 20 20 --epochs 100
  gpunn train --data flats.csv --target rent --target price --early-stopping
  gpunn train --data digit-traits --hidden 128 64 --dropout 0.2 --optimizer adamw --weight-decay 0.01 \\
      --schedule cosine --warmup 2 --early-stopping 10 --class-weight balanced --metrics f1 \\
      --tensorboard runs/board --epochs 60
  gpunn train --resume runs/digits/run.safetensors --epochs 60
  gpunn train --data mnist --hidden 30 --activation sigmoid --output-activation sigmoid \\
      --loss quadratic --weights normal --bias normal --optimizer sgd --lr 3.0 \\
      --batch-size 10 --epochs 30 --seed 0 1 2 3 4"""

_EVALUATE = """The loss and the accuracy (for numbers: R²) of a saved network on a data set, class by class.

Where a network answers several yes or no, accuracy is the part of examples with every answer right, and a
table tells of each output.

examples:
  gpunn evaluate runs/digits/model.safetensors
  gpunn evaluate runs/flowers/model.safetensors --data more.csv --split all"""

_PREDICT = """Predict from features: a CSV table with a header line, one row an example, in the data's order.

The columns may be in another order than in training, as their names tell which is which; without a header
line they go by position. The file holds the features alone, or the target too: then it is the column that
--target names, else the one of the training, else the last, and it is left out. Several targets are left out
in the same way. Where a network answers several yes or no, each has a column, of 1 and 0; several numbers
have a column each.

examples:
  gpunn predict runs/flowers/model.safetensors --data new.csv
  gpunn predict runs/flowers/model.safetensors --data new.csv --proba --output probabilities.csv"""

_INFO = """What works on this machine, or what a saved network or run holds.

examples:
  gpunn info
  gpunn info runs/digits/run.safetensors"""

_PROGRAM = """Print the program that training runs for each minibatch: a line for each equation.

Of a run.safetensors, that of its training; of a model.safetensors, which does not hold its optimizer and
batch size, with those of the options.

examples:
  gpunn program
  gpunn program --hidden 30 --activation sigmoid --loss quadratic --optimizer sgd --batch-size 10
  gpunn program runs/digits/run.safetensors"""


class _Parser(argparse.ArgumentParser):
    """Raises gpunn's own errors, and takes no abbreviations, which a later option would break."""

    def __init__(self, **kwargs: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message} (see {self.prog} --help)")


def parse(argv: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command to run and its options.

    Raises
    ------
    gpunn.GpunnError
        For a command or an option that does not exist (with the nearest one), or a value of another type.
    SystemExit
        After ``--help`` and ``--version``.

    Examples
    --------
    >>> command, options = parse(["train", "--data", "digits", "--hidden", "30", "20"])
    >>> command.__name__, options.hidden, options.epochs
    ('train', [30, 20], None)
    """
    top = _Parser(prog="gpunn", description=_ABOUT)
    top.add_argument("--version", action="version", version=f"gpunn {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", title="commands (gpunn COMMAND --help tells more)")
    parsers = {
        name: commands.add_parser(name, description=about, help=about.split("\n")[0].rstrip("."))
        for name, about in (
            ("train", _TRAIN),
            ("evaluate", _EVALUATE),
            ("predict", _PREDICT),
            ("info", _INFO),
            ("program", _PROGRAM),
        )
    }
    _train(parsers["train"])
    _evaluate(parsers["evaluate"])
    _predict(parsers["predict"])
    _info(parsers["info"])
    _program(parsers["program"])
    if argv and not argv[0].startswith("-") and argv[0] not in parsers:
        raise unknown_name("command", argv[0], parsers)
    options, left = top.parse_known_args(argv)
    if left:
        parser = parsers.get(argv[0], top)
        # A bare name may be one value too many of the option before it.
        if not left[0].startswith("-"):
            parser.error(f"unexpected argument {left[0]!r}{_more_targets(argv, left[0])}")
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        raise unknown_name(f"option of {parser.prog}", left[0].partition("=")[0], known)
    if not hasattr(options, "run"):
        raise ArgumentError(f"a command is missing: one of {', '.join(parsers)} (see gpunn --help)")
    return options.run, options


def _more_targets(argv: Sequence[str], name: str) -> str:
    """What to write instead where a bare name follows a --target."""
    place = argv.index(name)
    if place < 2 or argv[place - 2] != "--target":
        return ""
    first, second = shlex.quote(argv[place - 1]), shlex.quote(name)
    return f": several columns are written --target {first} --target {second}"


def _whole(text: str) -> int:
    """A number of several that an option takes; says how they are separated."""
    try:
        return int(text)
    except ValueError:
        apart = _apart(text)
        raise argparse.ArgumentTypeError(apart or f"invalid int value: {text!r}") from None


def _name(text: str) -> str:
    if apart := _apart(text):
        raise argparse.ArgumentTypeError(apart)
    return text


def _apart(text: str) -> str:
    """What to write instead of values that are separated by commas; empty where there is no comma."""
    if "," not in text:
        return ""
    return f"{text!r} holds a comma, separate by spaces: {' '.join(text.replace(',', ' ').split())}"


def _default(name: str) -> str:
    value = DEFAULTS[name]
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class _Columns(argparse.Action):
    """One name as it is; where the option is repeated, a tuple of names, which may hold any character."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None:
            values = (*((before,) if isinstance(before, str) else before), values)
        setattr(namespace, self.dest, values)


def _data(parser: argparse.ArgumentParser, note: str = "", *, divided: bool = True) -> Any:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="NAME|FILE",
        help=f"digits, digit-traits, mnist, or a file .csv, .tsv, .txt, .npz{note}",
    )
    group.add_argument(
        "--target",
        action=_Columns,
        metavar="COLUMN",
        help="the column (name, or index from 0) or .npz array to predict; repeat it to predict several "
        "columns of numbers",
    )
    group.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help=f"the part held out, unless the data bring a test set (default {_default('test_fraction')})",
    )
    if divided:
        group.add_argument(
            "--validation-fraction",
            type=float,
            metavar="F",
            help="the part of the training examples held out to choose by, unless the data bring a "
            f"validation set (default {_default('validation_fraction')} with --early-stopping or "
            "--reduce-on-plateau, else none)",
        )
    return group


def _network(parser: argparse.ArgumentParser) -> Any:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--hidden",
        type=_whole,
        nargs="*",
        metavar="N",
        help=f"units of each hidden layer; none: no hidden layer (default {_default('hidden')})",
    )
    group.add_argument(
        "--dropout",
        type=float,
        metavar="RATE",
        help=f"the part of each hidden layer's outputs that training zeroes (default {_default('dropout')})",
    )
    group.add_argument(
        "--activation", metavar="NAME", help=f"of the hidden layers (default {_default('activation')})"
    )
    group.add_argument(
        "--output-activation",
        metavar="NAME",
        help="default: what the loss works with; else sigmoid for classes and answers, identity for numbers",
    )
    for name in ("weights", "bias"):
        group.add_argument(
            f"--{name}", metavar="NAME", help=f"how they start: an initialiser (default {_default(name)})"
        )
    group.add_argument("--dtype", metavar="NAME", help=f"float32 or float64 (default {_default('dtype')})")
    _device(group)
    return group


def _device(group: Any) -> None:
    group.add_argument(
        "--device", metavar="NAME", help=f"where it runs, see gpunn info (default {_default('device')})"
    )


def _learning(parser: argparse.ArgumentParser) -> Any:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--loss",
        metavar="NAME",
        help="default: cross_entropy for classes, binary_cross_entropy for answers of yes or no, mse for "
        "numbers; or quadratic, mae, huber. binary_cross_entropy makes targets of only 0 and 1 answers",
    )
    group.add_argument(
        "--optimizer",
        metavar="NAME",
        help=f"sgd, adam, adamw, rmsprop or adagrad (default {_default('optimizer')})",
    )
    group.add_argument("--lr", type=float, metavar="η", help="the learning rate (default: the optimizer's)")
    group.add_argument("--momentum", type=float, metavar="μ", help="for sgd (default 0)")
    group.add_argument(
        "--nesterov", action="store_true", default=None, help="take Nesterov's momentum instead, for sgd"
    )
    for name, letter, whose in (
        ("beta1", "β₁", "adam and adamw"),
        ("beta2", "β₂", "adam and adamw"),
        ("rho", "ρ", "rmsprop"),
        ("epsilon", "ε", "adam, adamw, rmsprop and adagrad"),
    ):
        help_ = f"for {whose} (default: the optimizer's)"
        group.add_argument(f"--{name}", type=float, metavar=letter, help=help_)
    group.add_argument("--l2", type=float, metavar="F", help="penalty ½ l2 Σw² (default 0)")
    group.add_argument("--l1", type=float, metavar="F", help="penalty l1 Σ|w| (default 0)")
    group.add_argument(
        "--weight-decay",
        type=float,
        metavar="F",
        help="w ← w − η F w apart from the update (default: the optimizer's, 0.01 for adamw, else 0)",
    )
    group.add_argument(
        "--clip-norm", type=float, metavar="N", help="scale a longer gradient to this length (default: never)"
    )
    group.add_argument(
        "--schedule",
        metavar="NAME[:N]",
        help=f"how the learning rate falls: {', '.join(form.written for form in FORMS.values())}. cosine "
        f"takes it to FINAL (default 0) times its start with the last epoch; step multiplies it by FACTOR "
        f"(default 0.1) every so many epochs; exponential by RATE each epoch; inverse divides it by (1 + "
        f"epochs)^POWER (default 0.5). Such as: {', '.join(form.example for form in FORMS.values())}",
    )
    group.add_argument(
        "--warmup",
        type=float,
        metavar="EPOCHS",
        help="let the learning rate rise from 0 over the first epochs, before the schedule (default 0)",
    )
    group.add_argument("--batch-size", type=int, metavar="N", help=f"(default {_default('batch_size')})")
    return group


def _train(parser: argparse.ArgumentParser) -> None:
    _data(parser).add_argument(
        "--standardize",
        action="store_true",
        default=None,
        help="give each feature the mean 0 and the deviation 1 over the training examples; evaluate, predict "
        "and --resume find the numbers in history.json and do the same",
    )
    _network(parser)
    group = _learning(parser)
    group.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help=f"in all, those of a resumed run included (default {_default('epochs')})",
    )
    group.add_argument(
        "--early-stopping",
        type=int,
        nargs="?",
        const=PATIENCE,
        metavar="PATIENCE",
        help=f"stop after that many epochs (without a number: {PATIENCE}) without a lower val_loss, and put "
        f"the weights of the best epoch back; a resumed run counts anew",
    )
    group.add_argument(
        "--reduce-on-plateau",
        type=int,
        nargs="?",
        const=SLOWER,
        metavar="PATIENCE",
        help=f"divide the learning rate by 10 after that many epochs (without a number: {SLOWER}) without a "
        f"lower val_loss; a resumed run counts anew",
    )
    group.add_argument(
        "--class-weight",
        metavar="balanced",
        help="let every class, or yes and no of each output, weigh the same, however rare (default: as they "
        "come)",
    )
    group.add_argument(
        "--metrics",
        type=_name,
        nargs="+",
        metavar="NAME",
        help="measured beside accuracy (for answers: and f1; for numbers: r2): precision, recall, f1, top_5, "
        "confusion (printed at the end); mae",
    )
    group.add_argument(
        "--seed",
        type=_whole,
        nargs="+",
        metavar="N",
        help="of weights, shuffles and dropout; several: one run for each (default 0)",
    )
    group.add_argument(
        "--no-shuffle", action="store_true", help="take the examples in the data's order in each epoch"
    )
    group = parser.add_argument_group(
        "files", "With several seeds, each has a folder seed-N, a board FOLDER/seed-N and a log NAME-seed-N."
    )
    group.add_argument("--out", metavar="FOLDER", help="where to save (default runs/NAME of the data)")
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a saved run.safetensors, with the same stopping and logs unless they are given anew "
        "(0, or '' for a path: none)",
    )
    group.add_argument(
        "--tensorboard",
        metavar="FOLDER",
        help="write curves there, each training as a run of its own: tensorboard --logdir FOLDER",
    )
    group.add_argument(
        "--csv-log",
        metavar="FILE",
        help="write a line with the numbers of each epoch; a resumed run adds to it",
    )
    group.add_argument(
        "--checkpoint-every", type=int, metavar="EPOCHS", help="save run-NNNN.safetensors beside the run too"
    )
    group.add_argument(
        "--keep", type=int, metavar="N", help=f"the newest N of these (default {KEEP}; 0: all)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only results")
    parser.set_defaults(run=train)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model.safetensors or run.safetensors")
    _data(parser, "; default: what it was trained with")
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--split", metavar="NAME", default="test", help="test, train, validation or all (default test)"
    )
    group.add_argument("--loss", metavar="NAME", help="default: what it was trained with")
    _device(group)
    parser.set_defaults(run=evaluate)


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model.safetensors or run.safetensors")
    parser.add_argument(
        "--data",
        required=True,
        metavar="NAME|FILE",
        help="a file .csv, .tsv, .txt, .npz; or digits, digit-traits, mnist",
    )
    parser.add_argument(
        "--target",
        action=_Columns,
        metavar="COLUMN",
        help="the column (name, or index from 0) to leave out; repeat it for several",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write to FILE.csv, or to FILE.npy (classes as numbers from 0)"
    )
    parser.add_argument("--proba", action="store_true", help="the probability of each class, or of each yes")
    _device(parser)
    parser.set_defaults(run=predict)


def _info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model.safetensors or run.safetensors")
    parser.set_defaults(run=info)


def _program(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a saved run or network, instead of the options"
    )
    _data(parser, "; gives inputs and outputs", divided=False)
    group = _network(parser)
    group.add_argument("--inputs", type=int, metavar="N", help="without --data (default 784)")
    group.add_argument("--outputs", type=int, metavar="N", help="without --data (default 10)")
    _learning(parser)
    parser.set_defaults(run=program)
