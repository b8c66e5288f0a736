"""Builds a kernel file into a program: shared memory rewritten, instances listed, g++ run, result kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock

from platformdirs import user_cache_dir

HERE = Path(__file__).parent
CACHE = Path(user_cache_dir("gpunn")) / "cuda_host"
#: Programs that no test has used for this long are removed.
KEPT_SECONDS = 14 * 24 * 3600
SERVER_LOCK = Lock()

FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-no-pie",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
]
CHECKS = [
    "-fsanitize=alignment,bounds,shift-exponent,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
]
#: A call before each access of a kernel, to functions of the shim: the thread sanitizer itself has no part.
RACES = ["-fsanitize=thread"]
SANITIZE = ["-fsanitize=address", "-fno-omit-frame-pointer", "-DCUDA_HOST_SANITIZE"]

COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
SHARED = re.compile(r"(?P<extern>\bextern\s+)?(?:\bstatic\s+)?\b__shared__\b(?P<declaration>[^;]*);")
ALIGNMENT = re.compile(r"\b(?:__align__|alignas)\s*\([^)]*\)")
DECLARATOR = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<dimensions>(?:\[[^\]]*\]\s*)*)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class BuildError(RuntimeError):
    """A kernel file does not compile, or declares shared memory in a way the shim does not know."""


def without_comments(text: str) -> str:
    """The same text with blanks for comments and strings, every other character at its place."""
    return COMMENT_OR_STRING.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def split_at_commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "<([{") - (character in ">)]}")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def shared_variables(declaration: str, where: str) -> str:
    """C++ that declares the variables of one ``__shared__`` declaration in storage of the shim."""
    first, *others = split_at_commas(ALIGNMENT.sub(" ", declaration))
    found = DECLARATOR.search(first)
    type_name = first[: found.start()].strip() if found else ""
    if not type_name:
        raise BuildError(f"{where}: cannot read the declaration __shared__{declaration};")
    statements = []
    for part in (first[found.start() :], *others):
        variable = DECLARATOR.fullmatch(part)
        if variable is None:
            raise BuildError(f"{where}: cannot read {part.strip()!r} in __shared__{declaration};")
        name, dimensions = variable["name"], variable["dimensions"].strip()
        shared = f"cuda_host::Shared<{type_name}{dimensions}>"
        statements.append(f'static {shared} {name}_shared{{"{name}", __FILE__, __LINE__}};')
        statements.append(f"auto& {name} = {name}_shared.here();")
    return " ".join(" ".join(statements).split()) + "\n" * declaration.count("\n")


def rewrite(text: str, file: str) -> str:
    """A source whose ``__shared__`` declarations are the shim's, with the lines where they were."""
    masked = without_comments(text)
    written, end = [f'#line 1 "{file}"\n'], 0
    for match in SHARED.finditer(masked):
        where = f"{file}:{masked.count(chr(10), 0, match.start()) + 1}"
        if match["extern"]:
            raise BuildError(f"{where}: extern __shared__: the host shim has no dynamic shared memory")
        written += [text[end : match.start()], shared_variables(match["declaration"], where)]
        end = match.end()
    return "".join([*written, text[end:]])


def reached(sources: Path, file: str) -> dict[str, bytes]:
    """The file and all headers it includes from the folder, by name."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        name = waiting.pop()
        if name not in found and (sources / name).is_file():
            found[name] = (sources / name).read_bytes()
            waiting += INCLUDE.findall(found[name].decode())
    if file not in found:
        raise BuildError(f"no file {file} in {sources}")
    return found


@cache
def compiler() -> str | None:
    """The path of g++, or of what ``CXX`` names; None where it is not installed."""
    return shutil.which(os.environ.get("CXX") or "g++")


@cache
def compiler_version() -> bytes:
    if compiler() is None:
        raise BuildError("the host shim needs g++, or another compiler that CXX names")
    return subprocess.run([compiler(), "--version"], capture_output=True, check=True).stdout


def digest(*parts: bytes) -> str:
    return sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()


def run_compiler(arguments: Sequence[str], what: str) -> None:
    done = subprocess.run([compiler(), *arguments], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise BuildError(f"{what} does not compile:\n{compiler()} {' '.join(arguments)}\n{done.stderr}")


def kept(name: str) -> Path | None:
    path = CACHE / name
    try:
        os.utime(path)
    except FileNotFoundError:
        return None
    return path


def keep(made: Path, name: str) -> Path:
    for old in CACHE.iterdir():
        try:
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
        except FileNotFoundError:
            pass  # Another process removed it first.
    return made.replace(CACHE / name)


def flags(sanitize: bool) -> list[str]:
    return FLAGS + (SANITIZE if sanitize else [])


def server(sanitize: bool) -> Path:
    """The object file that all programs share."""
    sources = [(HERE / name).read_bytes() for name in ("host.hpp", "server.cpp")]
    name = "server-" + digest(*sources, repr(flags(sanitize)).encode(), compiler_version())[:32] + ".o"
    if path := kept(name):
        return path
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        made = Path(folder, name)
        # Not instrumented: it looks at guard zones that kernels may not touch.
        plain = [flag for flag in flags(sanitize) if flag != "-fsanitize=address"]
        run_compiler([*plain, "-O2", "-c", str(HERE / "server.cpp"), "-o", str(made)], "the host shim")
        return keep(made, name)


def table(file: str, expressions: Sequence[str]) -> str:
    """The translation unit: the file, and its instances by number."""
    rows = "\n".join(
        f"cuda_host::Invoker<&{expression}>::instance({json.dumps(expression)}),"
        for expression in expressions
    )
    return (
        f'#include "host.hpp"\n#include "{file}"\n#line 1 "the instances of {file}"\n'
        f"static const cuda_host::Instance instance_table[] = {{\n{rows}\n}};\n"
        "const cuda_host::Instance* const cuda_host::instances = instance_table;\n"
    )


def build(sources: Path, file: str, expressions: Sequence[str], *, sanitize: bool) -> Path:
    """The program that serves one kernel file, built unless one of the same bytes is kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    reachable = reached(sources, file)
    shim = [Path(path).read_bytes() for path in (__file__, HERE / "host.hpp", HERE / "server.cpp")]
    instances = table(file, expressions)
    named = [part for name, text in sorted(reachable.items()) for part in (name.encode(), text)]
    key = digest(*named, *shim, instances.encode(), repr(flags(sanitize)).encode(), compiler_version())
    name = f"{Path(file).stem}-{key[:32]}"
    if path := kept(name):
        return path
    with SERVER_LOCK:
        shared_object = server(sanitize)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for source, text in reachable.items():
            target = Path(folder, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(rewrite(text.decode(), source))
        main, compiled, made = (Path(folder, part) for part in ("instances.cpp", "instances.o", name))
        main.write_text(instances)
        common = [*flags(sanitize), *CHECKS]
        races = [] if sanitize else RACES  # A compiler takes one of the two sanitizers.
        includes = ["-I", str(HERE), "-I", folder]
        run_compiler([*common, *races, *includes, "-c", str(main), "-o", str(compiled)], file)
        run_compiler([*common, str(compiled), str(shared_object), "-o", str(made)], file)
        return keep(made, name)
