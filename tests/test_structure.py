"""The shape of the house: sizes, direction of imports, packages, stubs, machine paths, start-up.

The rules are functions from source text to findings, so that each can be shown a bad sample here.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
ROOMS = ("ir", "passes", "backends", "deploy", "frontends", "tools")
SKIPPED = {"__pycache__", "build", "dist", "shared"}

# room -> rooms it may import, besides itself; tools and the root face may import all
MAY_IMPORT = {
    "ir": set[str](),
    "passes": {"ir"},
    "backends": {"ir", "passes"},
    "deploy": {"ir", "passes", "backends"},
    "frontends": set[str](),
    "frontends/onnx": {"ir"},
    "frontends/nn": {"ir", "passes"},
    "frontends/train": {"ir", "passes", "backends", "deploy", "frontends/nn"},
    "frontends/compress": {
        "ir", "passes", "backends", "deploy", "frontends/nn", "frontends/train",
    },
}  # fmt: skip
# package -> the only folders that may import it
CONFINED = {
    "onnx": ("frontends/onnx/", "tools/bench/"),
    "llvmlite": ("backends/llvm/", "backends/cpu/", "backends/cuda/"),
    "pycuda": ("backends/cuda/",),
    "click": ("tools/",),
    "rich": ("tools/", "frontends/train/"),
}
# Written in halves, so that this file does not find itself.
STUB = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error|xf" + r"ail)\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}\])*~-])/(work|tmp|root|home)(?=[/\s\"'`:]|$)")


# --------------------------------------------------------------------- the rules


def room_of(path: str) -> str:
    """The room of a path like "frontends/onnx/rows.py" or "ir/core"; empty for the root face."""
    parts = path.split("/")
    if parts[0] == "frontends" and len(parts) > 1 and parts[1] not in ("", "__init__.py"):
        return "/".join(parts[:2])
    return parts[0] if parts[0] in ROOMS else ""


def imports_of(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and goal of each import: a path from the root ("/ir/core") or a name ("onnx.helper")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = path.split("/")[: -node.level]
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, "/" + "/".join([*base, a.name])) for a in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def import_findings(path: str, source: str) -> list[str]:
    """Imports against the direction, of a confined package elsewhere, or by our absolute name."""
    found, here = [], room_of(path)
    for line, goal in imports_of(path, ast.parse(source)):
        top = goal.partition(".")[0]
        if goal.startswith("/"):
            there = room_of(goal[1:])
            if there != here and here in MAY_IMPORT and there not in MAY_IMPORT[here]:
                found.append(f"{path}:{line}: {here} imports {goal[1:]}")
        elif top == "irc":
            found.append(f"{path}:{line}: import {goal} should be relative")
        elif top in CONFINED and not path.startswith(CONFINED[top]):
            found.append(f"{path}:{line}: {top} belongs to {', '.join(CONFINED[top])}")
    return found


def size_findings(path: str, source: str) -> list[str]:
    """The file, if it is too long, and its functions that are."""
    lines = source.count("\n")
    found = [f"{path}: {lines} lines"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MAX_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {size} lines")
    return found


def line_findings(path: str, text: str, pattern: re.Pattern[str]) -> list[str]:
    """The lines that the pattern finds."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{path}:{n}: {line.strip()[:90]}" for n, line in lines if pattern.search(line)]


# --------------------------------------------------------------------- the tree


def _files() -> Iterator[Path]:
    for folder, names, files in os.walk(ROOT):
        top = Path(folder) == ROOT
        names[:] = [
            name for name in names
            if name not in SKIPPED and not name.endswith(".egg-info")
            and (not name.startswith(".") or (top and name == ".ci"))
        ]  # fmt: skip
        yield from (Path(folder) / name for name in files)


TEXT_SUFFIXES = (".py", ".md", ".toml", ".ir", ".txt", "")
TEXTS = {}
for _file in _files():
    if _file.suffix in TEXT_SUFFIXES and _file.stat().st_size < 1 << 20:
        try:
            TEXTS[_file.relative_to(ROOT).as_posix()] = _file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
SOURCES = {path: text for path, text in TEXTS.items() if path.endswith(".py")}
PACKAGE = {path: text for path, text in SOURCES.items() if room_of(path) or path == "__init__.py"}


def _report(findings: Iterator[list[str]]) -> None:
    found = [row for rows in findings for row in rows]
    assert not found, "\n" + "\n".join(found)


def test_sizes() -> None:
    _report(size_findings(path, text) for path, text in SOURCES.items())


def test_import_direction() -> None:
    _report(import_findings(path, text) for path, text in PACKAGE.items())


def test_no_stubs() -> None:
    _report(line_findings(path, text, STUB) for path, text in SOURCES.items())


def test_no_machine_paths() -> None:
    _report(line_findings(path, text, MACHINE_PATH) for path, text in TEXTS.items())


def test_packages_are_listed() -> None:
    listed = tomllib.loads(TEXTS["pyproject.toml"])["tool"]["setuptools"]["packages"]
    folders = {path.rpartition("/")[0] for path in PACKAGE if path.endswith("/__init__.py")}
    assert listed == sorted(listed)
    assert set(listed) == {"irc", *("irc." + folder.replace("/", ".") for folder in folders)}


def test_every_module_lies_in_a_package() -> None:
    folders = {path.rpartition("/")[0] for path in PACKAGE if "/" in path}
    missing = [folder for folder in sorted(folders) if f"{folder}/__init__.py" not in PACKAGE]
    assert not missing


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import irc", "numpy onnx llvmlite click rich"),
        ("from irc.tools.main import run; run(['--help'])", "numpy onnx llvmlite rich"),
        ("from irc.tools.main import run; run(['env'])", "numpy onnx rich"),
    ],
    ids=["import", "help", "env"],
)
def test_start_up_is_light(code: str, forbidden: str) -> None:
    code += "; import sys; print('\\nLOADED', *sys.modules)"
    shell = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert shell.returncode == 0, shell.stderr
    loaded = set(shell.stdout.rpartition("LOADED")[2].split())
    assert "irc" in loaded
    assert not loaded & set(forbidden.split())


# --------------------------------------------------------------------- each rule sees a bad sample


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/a.py", "from ..passes import fuse"),
        ("ir/ops/a.py", "from ...backends.cpu import jit"),
        ("passes/a.py", "def f():\n    from .. import backends"),
        ("backends/cpu/a.py", "from ...frontends.onnx import load"),
        ("frontends/onnx/a.py", "from ...passes import pipeline"),
        ("frontends/nn/a.py", "from ..onnx import load"),
        ("deploy/a.py", "import irc.ir"),
        ("ir/a.py", "from irc.ir import core"),
        ("passes/a.py", "import onnx"),
        ("backends/c/a.py", "import llvmlite.binding as llvm"),
        ("backends/c/a.py", "importlib.import_module('llvmlite.binding')"),
        ("deploy/a.py", "from rich.table import Table"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert len(import_findings(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tools/a.py", "from ..frontends.onnx import load"),
        ("frontends/nn/a.py", "from ...passes import autodiff\nfrom . import layers"),
        ("frontends/onnx/rows/a.py", "import onnx\nfrom ....ir import core"),
        ("backends/cpu/a.py", "from ..llvm import emit\nimport llvmlite.binding"),
        ("__init__.py", "from .frontends.nn import Module"),
    ],
)
def test_a_right_import_passes(path: str, source: str) -> None:
    assert not import_findings(path, source)


def test_long_code_is_found() -> None:
    body = "".join(f"    x = {i}\n" for i in range(MAX_FUNCTION_LINES))
    assert not size_findings("a.py", "def f():\n" + body.partition("\n")[2])
    assert len(size_findings("a.py", "def f():\n" + body)) == 1
    assert len(size_findings("a.py", "x = 1\n" * (MAX_FILE_LINES + 1))) == 1


@pytest.mark.parametrize("word", ["TO" + "DO", "NotImplemented" + "Error", "mark.xf" + "ail"])
def test_a_stub_is_found(word: str) -> None:
    assert line_findings("a.py", f"x = 1  # {word}: later", STUB)


def test_a_machine_path_is_found() -> None:
    for head in ("work", "tmp"):
        assert line_findings("a.md", f'open("/{head}/models/a")', MACHINE_PATH)
    for before, head in (
        ("forward", "work"),
        ("$(X)", "tmp"),
        ("https://a.org", "home"),
        ("..", "tmp"),
    ):
        assert not line_findings("a.md", f"{before}/{head}/", MACHINE_PATH)
