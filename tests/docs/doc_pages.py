"""The runnable parts of the documentation, and how they run.

A page is a script: its fences run in order, in one folder that holds model.onnx.  The ```python
ones share one namespace; ```python no-run does not run.  A ```text output fence holds what the
python fence before it prints, where a line `...` stands for any lines and `...` within a line for
any text.  Each line of a ```sh fence is an `irc` command.  Fences that say nothing, `text` or
`toml` are only shown.
"""

from __future__ import annotations
import __future__

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from irc.tools.main import run

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block: the words behind the opening fence, its text, its first line's number."""

    kind: str
    text: str
    line: int


def pages() -> list[Path]:
    """The pages of the root and of docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def fences(page: str) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    return [
        Fence(found[1].strip(), found[2], page.count("\n", 0, found.start(2)) + 1)
        for found in FENCE.finditer(page)
    ]


def programs(page: str) -> list[tuple[Fence, str | None]]:
    """The python fences that run, each with the output that the page claims for it."""
    return [
        (block, follower.text if follower.kind == "text output" else None)
        for block, follower in pairwise([*fences(page), Fence("", "", 0)])
        if block.kind == "python"
    ]


def commands(page: str) -> list[tuple[int, list[str]]]:
    """The lines of the shell fences: number and words, the first of which is `irc`."""
    found = []
    for fence in fences(page):
        for number, line in enumerate(fence.text.splitlines(), fence.line):
            if fence.kind == "sh" and (words := shlex.split(line, comments=True)):
                found.append((number, words))
    return found


def agrees(claimed: str, printed: str) -> bool:
    """Is `printed` what a page claims?"""
    lines = [
        "(?s:.*)" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*")
        for line in claimed.strip().splitlines()
    ]
    return re.fullmatch("\n".join(lines), printed.strip()) is not None


def run_page(name: str, page: str, namespace: dict[str, Any]) -> int:
    """Run a page, its python in `namespace`; gives the lines of that which are not blank.

    AssertionError where a command fails or the page prints something else than it claims.
    """
    flags = lines = 0
    claims = {fence.line: claimed for fence, claimed in programs(page)}
    for fence in fences(page):
        if fence.kind == "sh":
            run_commands(name, [c for c in commands(page) if c[0] in range_of(fence)])
        if fence.kind != "python":
            continue
        claimed = claims[fence.line]
        code = compile("\n" * (fence.line - 1) + fence.text, name, "exec", flags)
        flags |= code.co_flags & __future__.annotations.compiler_flag
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        text = printed.getvalue()
        assert claimed is None or agrees(claimed, text), f"{name}:{fence.line} prints\n{text}"
        lines += sum(bool(line.strip()) for line in fence.text.splitlines())
    return lines


def range_of(fence: Fence) -> range:
    """The numbers of a fence's lines."""
    return range(fence.line, fence.line + fence.text.count("\n"))


def run_commands(name: str, lines: list[tuple[int, list[str]]]) -> None:
    """Run commands here, in process; AssertionError where one fails."""
    for number, words in lines:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run(words[1:]) if words[0] == "irc" else 127
        assert status == 0, f"{name}:{number}: {' '.join(words)}: exit {status}\n{said.getvalue()}"
