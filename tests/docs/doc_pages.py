"""The runnable parts of the documentation, and how they run.

A page is a script: its ```python fences run in order, in one namespace; ```python no-run does not.
A ```text output fence holds what the python fence before it prints, where a line `...` stands for
any lines and `...` within a line for any text.  Each line of a ```sh fence is an `irc` command.
Fences that say nothing are only shown.  All of a page runs in one folder that holds model.onnx.
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
    """Run the python of a page in `namespace`; gives the lines in it that are not blank.

    AssertionError where a page prints something else than it claims.
    """
    flags = lines = 0
    for fence, claimed in programs(page):
        code = compile("\n" * (fence.line - 1) + fence.text, name, "exec", flags)
        flags |= code.co_flags & __future__.annotations.compiler_flag
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        text = printed.getvalue()
        assert claimed is None or agrees(claimed, text), f"{name}:{fence.line} prints\n{text}"
        lines += sum(bool(line.strip()) for line in fence.text.splitlines())
    return lines


def run_commands(name: str, page: str) -> None:
    """Run the commands of a page here, in process; AssertionError where one fails."""
    for number, words in commands(page):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run(words[1:]) if words[0] == "irc" else 127
        assert status == 0, f"{name}:{number}: {' '.join(words)}: exit {status}\n{said.getvalue()}"
