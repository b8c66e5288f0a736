"""Write the reference pages of this folder from the tables and docstrings of the code.

    python docs/generate.py           # writes what has changed
    python docs/generate.py --check   # writes nothing, fails if a page is behind the code

Each page is a table of what there is, with formula and source, and the docstring of each entry below it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import os
import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import equations
import performance
from parts import NOTE, code, formula, table

import gpunn
from gpunn import (
    activations,
    callbacks,
    data,
    errors,
    initializers,
    layers,
    losses,
    metrics,
    ops,
    optimizers,
    schedules,
)
from gpunn.cli.options import parse

FOLDER = Path(__file__).parent


def sections(docstring: str) -> list[tuple[str, str]]:
    """A NumPy docstring as (heading, text), the first heading empty."""
    parts = re.split(r"^([A-Z][a-z]+)\n-{3,}\n", docstring, flags=re.MULTILINE)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def entries(text: str) -> str:
    """``name : type`` with an indented description, as a list."""
    lines = []
    if ">>>" in text:
        raise ValueError(f"an example among the entries, without a heading of its own: {text}")
    for match in re.finditer(r"^(\S.*)\n((?:(?: {4}.*)?\n?)*)", text, flags=re.MULTILINE):
        name, _, kind = " ".join(match[1].split()).partition(" : ")
        told = " ".join(textwrap.dedent(match[2]).split())
        lines.append(f"- **{plain(name)}**{f' ({plain(kind)})' if kind else ''}: {plain(told)}")
    return "\n".join(lines)


def plain(text: str) -> str:
    """Restructured text as Markdown."""
    text = re.sub(r":\w+:`~?(?:gpunn\.)?([\w.]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("\\|", "|")


def described(thing: object) -> str:
    """A docstring as Markdown: prose, lists, examples that doctest runs."""
    found = []
    for heading, text in sections(inspect.getdoc(thing) or ""):
        if heading in ("Parameters", "Raises", "Returns", "Attributes", "Warns"):
            found.append(f"{heading}:\n\n{entries(text)}")
            continue
        if heading not in ("", "Notes", "Examples"):
            raise ValueError(f"{thing}: no rule for the heading {heading!r}")
        for paragraph in re.split(r"\n\n+", text.strip()):
            example = paragraph.startswith(">>>")
            found.append(f"```python\n{paragraph}\n\n```" if example else plain(paragraph))
    return "\n\n".join(found)


def signature(thing: type) -> str:
    """The constructor's call with its defaults, without types."""
    return f"gpunn.{thing.__name__}{arguments(thing)}"


def arguments(thing: Callable[..., object]) -> str:
    shown = []
    parameters = [p for p in inspect.signature(thing).parameters.values() if p.name not in ("self", "cls")]
    for position, parameter in enumerate(parameters):
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and (position == 0 or parameters[position - 1].kind is not parameter.KEYWORD_ONLY):
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        shown.append(stars + parameter.name + default)
    return f"({', '.join(shown)})"


def members(kind: type) -> str:
    """The public methods and properties that a class defines."""
    found = []
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(member, property)):
            continue
        call = "" if isinstance(member, property) else arguments(function)
        found.append(f"### {kind.__name__}.{name}\n\n`{name}{call}`\n\n{described(member)}")
    return "\n\n".join(found)


def classes(kinds: Iterable[type]) -> str:
    return "\n\n".join(f"## {kind.__name__}\n\n`{signature(kind)}`\n\n{described(kind)}" for kind in kinds)


def bases(*kinds: type) -> str:
    return "\n\n".join(f"## {kind.__name__}\n\n{described(kind)}\n\n{members(kind)}" for kind in kinds)


def intro(module: ModuleType, name: str) -> str:
    names = f"```python\n>>> import gpunn, numpy as np\n>>> from {module.__name__} import *\n\n```"
    return f"{NOTE}\n\n# {name}\n\n{described(module)}\n\nIn the examples:\n\n{names}"


def own(kinds: Iterable[type]) -> list[type]:
    return [kind for kind in kinds if kind.__module__.startswith("gpunn.")]


def activations_page() -> str:
    rows = [
        (
            code(row.name),
            row.formula,
            "a" if row.needs == "output" else "z",
            ", ".join(f"{kink:g}" for kink in row.kinks) or "none",
            row.source,
        )
        for row in activations.ACTIVATIONS.values()
    ]
    softmax = ops.OPS["softmax"]
    rows.append(
        (code("softmax"), "aⱼ = exp(zⱼ)/Σₖ exp(zₖ), ∂a/∂z = diag(a) − a aᵀ", "a", "none", softmax.source)
    )
    head = ("name", "formula", "σ′ needs", "kinks at z", "source")
    return "\n\n".join(
        [
            intro(activations, "Activations"),
            "Softmax works on rows instead of elements, so it is an op of its own.",
            table(head, rows),
            "## register_activation",
            described(gpunn.register_activation),
        ]
    )


def losses_page() -> str:
    rows = []
    for row in losses.LOSSES.values():
        rule = ops.OPS[row.op]
        labels = {"op": "classes", "one_hot": "classes, made one-hot rows", "never": ""}[row.labels]
        source = rule.source.partition("; C = ")[0]
        rows.append((code(row.name), formula(rule), row.link or "", labels, source))
    head = (
        "name",
        "formula over a batch of B rows with N outputs",
        "built-in output activation",
        "integer labels mean",
        "source",
    )
    return "\n\n".join(
        [
            intro(losses, "Losses"),
            "A loss with a built-in output activation works on z: the network's last activation has to be "
            "that one or the identity. All is computed in float64, by formulas whose terms cannot cancel.",
            table(head, rows),
            bases(losses.Loss),
            "## register_loss",
            described(gpunn.register_loss),
        ]
    )


def optimizers_page() -> str:
    kinds = own(optimizers.OPTIMIZERS.values())
    updates = [rule for rule in ops.OPS.values() if rule.elementwise]
    rows = [(code(rule.name), formula(rule).split(", g = ")[0], rule.source) for rule in updates]
    return "\n\n".join(
        [
            intro(optimizers, "Optimisers"),
            "The ops of the update:",
            table(("op", "formula", "source"), rows),
            classes(kinds),
            bases(gpunn.Optimizer),
        ]
    )


def schedules_page() -> str:
    kinds = own(schedules.SCHEDULES.values())
    rows = [(code(signature(kind)), first_line(kind)) for kind in kinds]
    return "\n\n".join(
        [
            intro(schedules, "Schedules"),
            table(("schedule", "what multiplies lr"), rows),
            classes(kinds),
            bases(gpunn.Schedule),
        ]
    )


def metrics_page() -> str:
    rows = [(code(row.name), row.formula, about(row), row.source) for row in metrics.METRICS.values()]
    top = metrics.metrics_named(["top_5"])[0]
    rows.append((code("top_5, top_2, ..."), top.formula.replace("5", "k"), about(top), top.source))
    rows.sort()
    return "\n\n".join(
        [
            intro(metrics, "Metrics"),
            table(("name", "formula", "about", "source"), rows),
            "## Metric",
            described(metrics.Metric),
        ]
    )


def about(row: metrics.Metric) -> str:
    kinds = {"classes": row.classes, "yes or no": row.outputs, "numbers": row.numbers}
    return ", ".join(kind for kind, op in kinds.items() if op)


def data_page() -> str:
    things = [getattr(data, name) for name in data.__all__]
    rows = [(code(f"gpunn.data.{thing.__name__}"), first_line(thing)) for thing in things]
    bodies = [f"## {thing.__name__}\n\n{described(thing)}" for thing in things]
    return "\n\n".join([intro(data, "Data"), table(("name", "what it is for"), rows), *bodies])


def first_line(thing: object) -> str:
    return plain((inspect.getdoc(thing) or "").split("\n")[0])


def layers_page() -> str:
    kinds = own(layers.LAYERS.values())
    rows = [(code(signature(kind)), first_line(kind)) for kind in kinds]
    starts = [(code(name), *initializers.FORMULAS[name]) for name in initializers.INITIALIZERS]
    return "\n\n".join(
        [
            intro(layers, "Layers"),
            table(("layer", "what it does"), rows),
            "Initialisers, for `weights=` and `bias=`:",
            table(("name", "drawn from", "source"), starts),
            classes(kinds),
            bases(layers.Layer),
        ]
    )


def callbacks_page() -> str:
    kinds = [
        getattr(callbacks, name) for name in callbacks.__all__ if inspect.isclass(getattr(callbacks, name))
    ]
    kinds = [kind for kind in kinds if issubclass(kind, gpunn.Callback) and kind is not gpunn.Callback]
    rows = [(code(signature(kind)), first_line(kind)) for kind in kinds]
    return "\n\n".join(
        [
            intro(callbacks, "Callbacks"),
            table(("callback", "what it does"), rows),
            classes(kinds),
            bases(gpunn.Callback),
        ]
    )


def network_page() -> str:
    from gpunn import network

    return "\n\n".join(
        [
            intro(network, "Network"),
            bases(gpunn.Sequential),
            *(
                f"## {function.__name__}\n\n{described(function)}"
                for function in (gpunn.load, gpunn.gradcheck)
            ),
            *(f"## {function.__name__}\n\n{described(function)}" for function in (gpunn.devices,)),
        ]
    )


def training_page() -> str:
    from gpunn import training

    return "\n\n".join([intro(training, "Training"), bases(gpunn.Trainer, training.StepLoss, gpunn.History)])


def sklearn_page() -> str:
    from gpunn import sklearn

    kinds = (sklearn.MLPClassifier, sklearn.MLPRegressor)
    calls = "\n\n".join(
        f"### {name}\n\n`{name}{arguments(getattr(kinds[0], name))}`\n\n{described(getattr(kinds[0], name))}"
        for name in ("fit", "to_network", "from_sklearn", "to_sklearn")
    )
    return "\n\n".join(
        [
            f"{NOTE}\n\n# In the place of scikit-learn's MLP\n\n{described(sklearn)}",
            "Change the import and keep the pipeline:",
            "```python\n>>> from gpunn.sklearn import MLPClassifier\n\n```",
            "`examples/grid_search.py` runs one search with both.",
            *scores(),
            classes(kinds).replace("`gpunn.MLP", "`gpunn.sklearn.MLP"),
            calls,
        ]
    )


def scores() -> list[str]:
    """What benchmarks/estimators.py measured."""
    path = FOLDER.parent / "benchmarks" / "results" / "estimators-cpu.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    rows, times = [], []
    for name, found in record["scores"].items():
        theirs, ours = (found[library] for library in ("scikit-learn", "gpunn"))
        rows.append((name, *(f"{statistics.mean(each):.4f} ± {error(each):.4f}" for each in (theirs, ours))))
    for row, found in record["times"].items():
        theirs, ours = (statistics.median(found[library]["seconds"]) for library in ("scikit-learn", "gpunn"))
        epochs = found["gpunn"]["epochs"]
        times.append((row, epochs, f"{theirs:.3f} s", f"{ours:.3f} s", f"{theirs / ours:.1f}"))
    about, versions = record["environment"], record["environment"]["versions"]
    return [
        "Test scores (accuracy; R² for diabetes), the mean of five seeds ± its standard error, at the same "
        "settings (`max_iter=2000`, standardised inputs):",
        table(("data", "scikit-learn", "gpunn"), rows),
        "The time of `fit`, at the same settings and epochs, both called in turn on one thread:",
        table(("data", "epochs", "scikit-learn", "gpunn", "times as fast"), times),
        f"Medians of {record['setting']['repeats']}; {about['machine']['cpu']}; Python {versions['python']}, "
        f"NumPy {versions['numpy']}, scikit-learn {versions['sklearn']}; {about['date']}. "
        "`python -m benchmarks.estimators` measures it on your machine.",
    ]


def error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def errors_page() -> str:
    kinds = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    rows = [
        (
            code(f"gpunn.{kind.__name__}"),
            ", ".join(code(base.__name__) for base in kind.__bases__),
            first_line(kind),
        )
        for kind in kinds
    ]
    return "\n\n".join([intro(errors, "Errors"), table(("error", "is also", "when"), rows)])


def command_line_page() -> str:
    """The help texts, as a terminal of 100 columns shows them."""
    os.environ["COLUMNS"] = "100"
    parts = [f"{NOTE}\n\n# The command line"]
    for command in ("", "train", "evaluate", "predict", "info", "program"):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            parse([*([command] if command else []), "--help"])
        parts.append(f"## gpunn {command}".rstrip() + f"\n\n```text\n{text.getvalue().rstrip()}\n```")
    return "\n\n".join(parts)


def ops_page() -> str:
    rows = [
        (
            f"[`{rule.name}`](equations.md#{rule.name})",
            rule.equation,
            code(rule.signature),
            formula(rule),
            rule.source,
        )
        for rule in ops.OPS.values()
    ]
    return "\n\n".join(
        [
            intro(ops, "Ops"),
            table(("op", "place", "signature", "formula", "source"), rows),
            bases(ops.Rule),
            "## register_op",
            described(gpunn.register_op),
        ]
    )


def plotting_page() -> str:
    from gpunn import plotting

    things = [getattr(plotting, name) for name in plotting.__all__]
    drawn = [thing for thing in things if not inspect.isclass(thing)]
    rows = [(f"[`{thing.__name__}`](#{thing.__name__})", first_line(thing)) for thing in drawn]
    bodies = [
        f"## {thing.__name__}\n\n`gpunn.plotting.{thing.__name__}{arguments(thing)}`\n\n{described(thing)}"
        for thing in drawn
    ]
    bodies += [f"## {thing.__name__}\n\n{described(thing)}" for thing in things if thing not in drawn]
    return "\n\n".join([intro(plotting, "Pictures"), table(("function", "what it draws"), rows), *bodies])


PAGES: dict[str, Callable[[], str]] = {
    "activations.md": activations_page,
    "callbacks.md": callbacks_page,
    "command_line.md": command_line_page,
    "data.md": data_page,
    "equations.md": equations.page,
    "errors.md": errors_page,
    "layers.md": layers_page,
    "losses.md": losses_page,
    "metrics.md": metrics_page,
    "network.md": network_page,
    "ops.md": ops_page,
    "optimizers.md": optimizers_page,
    "performance.md": performance.page,
    "plotting.md": plotting_page,
    "schedules.md": schedules_page,
    "sklearn.md": sklearn_page,
    "training.md": training_page,
}


def main(check: bool = False) -> list[str]:
    """Write the pages; returns the names of those that were behind."""
    behind = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            behind.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    return behind


if __name__ == "__main__":
    only_look = "--check" in sys.argv
    late = main(only_look)
    print(f"{'behind' if only_look else 'written'}: {', '.join(late) or 'none'}")
    sys.exit(only_look and bool(late))
