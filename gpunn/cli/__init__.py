"""The command line: ``gpunn train``, ``evaluate``, ``predict``, ``info`` and ``program``.

Results go to standard output, progress and complaints to standard error. Whatever is wrong with the
arguments, the data or a file is one line, ``gpunn: error: ...``, and the exit code 2.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import GpunnError
from .options import parse

__all__ = ["main"]

#: What a shell reports for a command that a signal ended: 128 and the signal's number.
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0; 2 after an error, 130 after Ctrl-C, 141 where nobody reads the output any more (``| head``).

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version``.

    Examples
    --------
    >>> main(["program", "--inputs", "2", "--outputs", "1", "--hidden", "--loss", "mse", "--batch-size", "4"])
    training on batches of 4: 9 ops, ...
    0
    """
    for stream in (sys.stdout, sys.stderr):
        # The formulas hold ∂ and σ: a terminal that lacks them shows escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            command, options = parse(sys.argv[1:] if argv is None else argv)
            code = command(options)
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, and would complain then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("gpunn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (GpunnError, OSError, MemoryError) as error:
        print(f"gpunn: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return code


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning as a line for the user, who has no use for the place in the code."""
    print(f"gpunn: warning: {message}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).splitlines()) or type(error).__name__
