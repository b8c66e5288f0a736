"""``python -m benchmarks run`` measures; ``report`` writes the page and README's tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import gpunn

from . import results, scaling, tables
from .harness import PeerError, Setting, compare
from .peers import OURS, PEERS, Entry
from .workloads import WORKLOADS, workload_named

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "benchmarks"
PARTS = ("workloads", "kernels", "scaling")

#: Measures something, telling how far it is, and returns the record.
Job = Callable[[Callable[[str], None]], dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return options.call(options)
    except (results.ResultError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return 130


def positive(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r}, expected a whole number from 1 on")
    return int(word)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = found.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure gpunn and its peers")
    run.set_defaults(call=measure)
    run.add_argument(
        "--workload", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"of {', '.join(WORKLOADS)}"
    )
    run.add_argument("--peers", nargs="*", choices=PEERS, metavar="NAME", help=f"of {', '.join(PEERS)}")
    run.add_argument("--backend", nargs="+", choices=OURS, metavar="NAME", help=f"of {', '.join(OURS)}")
    run.add_argument(
        "--device", choices=("cpu", "cuda"), help="where peers run; a GPU where gpunn can use one"
    )
    run.add_argument("--part", nargs="+", choices=PARTS, default=None, help="not everything")
    run.add_argument("--quick", action="store_true", help="few repeats, one sitting: a look, no evidence")
    run.add_argument("--repeats", type=positive, help="timed repeats of a sitting")
    run.add_argument("--sittings", type=positive, help="times that everyone starts anew")
    run.add_argument("--threads", type=positive, help="for everyone; otherwise what each workload says")
    run.add_argument("--precision", choices=("float32", "tf32"), default="float32", help="of matrix products")
    run.add_argument("--minutes", type=float, help="begin nothing new after so many")
    run.add_argument(
        "--peer-python", help="a Python with PyTorch, JAX, scikit-learn (.venv-peers, else this one)"
    )
    run.add_argument(
        "--out", type=Path, default=BUILD, help="for result files; benchmarks/results to commit them"
    )
    report = commands.add_parser("report", help="write the page, and README's tables")
    report.set_defaults(call=write_report)
    report.add_argument("--results", type=Path, default=results.FOLDER)
    report.add_argument("--no-readme", action="store_true", help="leave README as it is")
    report.add_argument("--html", type=Path, default=BUILD / "report.html")
    return found


def measure(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    written: list[Path] = []
    left_out: list[str] = []
    lost: list[str] = []
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with tqdm(planned(options), unit="part", dynamic_ncols=True) as bar:

            def tell(line: str) -> None:
                bar.set_postfix_str(line.splitlines()[0][:70])

            for name, job in bar:
                if options.minutes and time.monotonic() - begun > 60 * options.minutes:
                    left_out.append(name)
                    continue
                bar.set_description(name)
                try:
                    record = job(tell)
                    written.append(results.write(record, options.out))
                except (PeerError, RuntimeError, results.ResultError, OSError) as error:
                    tqdm.write(f"{name}: not measured: {error}\n", file=sys.stdout)
                    lost.append(name)
                    continue
                if record["kind"] == "workload":
                    tqdm.write(tables.terminal(record) + "\n", file=sys.stdout)
    finally:  # Ctrl-C, too, leaves what had been measured, and says so.
        print(tables.summary([results.read(path) for path in written]))
        if left_out:
            print(f"not measured, {options.minutes:g} minutes were over: {', '.join(left_out)}")
        print(f"written to {options.out}: {', '.join(path.name for path in written) or 'nothing'}")
    return 1 if lost else 0


def planned(options: argparse.Namespace) -> list[tuple[str, Job]]:
    """What is to be measured: names, and calls that make the records."""
    setting, entries = chosen_setting(options), chosen_entries(options)
    parts = options.part or (["workloads"] if options.workload else PARTS)
    jobs: list[tuple[str, Job]] = []
    if "workloads" in parts:
        for name in options.workload or WORKLOADS:
            workload = workload_named(name, setting.device)
            jobs.append((name, partial(compare, workload, entries, setting)))
    if "kernels" in parts:
        backends = [entry.name.removeprefix("gpunn-") for entry in entries if entry.ours]
        jobs.append(("kernels", partial(kernels, backends, setting, options.quick)))
    if "scaling" in parts:
        some = [entry for entry in entries if entry.ours or entry.name in scaling.PEERS]
        jobs.append(("scaling", partial(scaling.measure, some, setting, quick=options.quick)))
    return jobs


def kernels(
    backends: list[str], setting: Setting, quick: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    from .kernels import record

    tell("every op by itself")
    return record.measure(backends, setting.device, quick, setting.threads or 1, setting.peer_python)


def chosen_setting(options: argparse.Namespace) -> Setting:
    given = {"device": device(options), "precision": options.precision}
    given |= {"repeats": 3, "sittings": 1, "budget": 0.1} if options.quick else {}
    told = {name: getattr(options, name) for name in ("repeats", "sittings", "threads")}
    given |= {name: value for name, value in told.items() if value is not None}
    return Setting(**given, peer_python=peer_python(options.peer_python))


def chosen_entries(options: argparse.Namespace) -> list[Entry]:
    backends = options.backend or [name for name, entry in OURS.items() if device(options) in entry.devices]
    peers = PEERS if options.peers is None else options.peers
    return [OURS[name] for name in backends] + [PEERS[name] for name in peers]


def device(options: argparse.Namespace) -> str:
    working = [status.name for status in gpunn.devices() if status.works]
    return options.device or ("cuda" if "cuda" in (options.backend or working) else "cpu")


def peer_python(given: str | None) -> str:
    """The Python that holds the frameworks: PyTorch and JAX need not share an environment with gpunn."""
    if given:
        return given
    own = ROOT / ".venv-peers" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def write_report(options: argparse.Namespace) -> int:
    from . import page

    if not options.no_readme:
        text = tables.README.read_text(encoding="utf-8")
        tables.README.write_text(tables.regenerated(text, options.results), encoding="utf-8")
    options.html.parent.mkdir(parents=True, exist_ok=True)
    options.html.write_text(page.page(options.results), encoding="utf-8")
    print(f"{'' if options.no_readme else 'README.md is up to date; '}the page is {options.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
