"""Runs every tests/text/**/*.ir: parse, verify, passes, print, and compare with the CHECK lines.

The first line of a file says what is run on each of its cases, which `// -----` parts:

    // RUN: irc-opt --passes 'canonicalize,cse'      what the passes make of the module
    // RUN: irc-opt                                  just reading, checking and printing it
    // RUN: irc-opt --reject                         the error that reading, checking or a pass
    gives

`// CHECK: text` is found on a later line of the output, `// CHECK-NEXT:` on the very next one, and
`// CHECK-NOT:` nowhere between its neighbours; `{{...}}` is a regular expression.  After a change
that is meant, `pytest tests/text --update-golden` writes the whole output of each case into its
CHECK lines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from irc.ir.core import OPS
from irc.ir.errors import Error
from irc.ir.ops.core import Module
from irc.ir.parse import parse
from irc.ir.text import check_round_trip, print_op
from irc.ir.verify import verify

HERE = Path(__file__).parent
SPLIT = re.compile(r"^// -----.*\n", re.MULTILINE)
CHECK = re.compile(r"^// CHECK(|-NEXT|-NOT):(.*)$", re.MULTILINE)
RUN = re.compile(r"// RUN: irc-opt(.*)\n")


def run_passes(module: Module, text: str) -> Module:
    """The module after the passes that `text` names."""
    for step in import_module("irc.passes.pipeline").parse_pipeline(text):
        module = step.run(module) or module
        verify(module)
    return module


def output_of(case: str, arguments: Sequence[str], file: str) -> str:
    """What `irc opt` prints for one case: the module, or the error."""
    try:
        module = parse(case, file=file)
        verify(module)
        check_round_trip(module)
        if "--passes" in arguments:
            module = run_passes(module, arguments[arguments.index("--passes") + 1])
            check_round_trip(module)
    except Error as error:
        if "--reject" not in arguments:
            raise
        return error.render()
    assert "--reject" not in arguments, f"this should be refused:\n{case}"
    return print_op(module)


def pattern_of(text: str) -> re.Pattern[str]:
    """A CHECK text as a regular expression; runs of spaces match any."""
    parts = re.split(r"\{\{(.*?)\}\}", text.strip())
    quoted = [
        re.sub(r"(\\ )+", " +", re.escape(p)) if k % 2 == 0 else p for k, p in enumerate(parts)
    ]
    return re.compile("".join(quoted))


def mismatch(checks: Sequence[tuple[str, str]], output: str) -> str | None:
    """Why the output does not follow the CHECK lines; None where it does."""
    lines = output.split("\n")
    at = 0
    forbidden: list[str] = []
    for kind, text in [*checks, ("-END", "")]:
        if kind == "-NOT":
            forbidden.append(text)
            continue
        stop = at
        if kind == "-END":
            stop = len(lines)
        elif kind == "-NEXT":
            if at >= len(lines) or not pattern_of(text).search(lines[at]):
                return f"CHECK-NEXT:{text}\n  next line: {lines[at] if at < len(lines) else 'none'}"
        else:
            while stop < len(lines) and not pattern_of(text).search(lines[stop]):
                stop += 1
            if stop == len(lines):
                return f"CHECK:{text}\n  not found from line {at + 1} on"
        for no in forbidden:
            for line in lines[at:stop]:
                if pattern_of(no).search(line):
                    return f"CHECK-NOT:{no}\n  found: {line}"
        forbidden = []
        at = stop + 1
    return None


def golden(case: str, output: str) -> str:
    """The case with CHECK lines for every line of the output."""
    source = CHECK.sub("", case).rstrip("\n") + "\n"
    source = re.sub(r"\n{3,}", "\n\n", source)
    after_blank = True
    for line in output.split("\n"):
        if line.strip():
            source += (
                f"// CHECK{'' if after_blank else '-NEXT'}: {line.replace('{{', '{{[{][{]}}')}\n"
            )
        after_blank = not line.strip()
    return source


FILES = sorted(HERE.rglob("*.ir"))


@pytest.mark.parametrize(
    "path", FILES, ids=[str(f.relative_to(HERE).with_suffix("")) for f in FILES]
)
def test_file(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text(encoding="utf-8")
    head = RUN.match(text)
    assert head is not None, f"{path.name} does not start with // RUN: irc-opt"
    arguments = shlex.split(head[1])
    cases = SPLIT.split(text[head.end() :])
    outputs = [output_of(case, arguments, path.name) for case in cases]
    if request.config.getoption("--update-golden", False):
        updated = [golden(case, output) for case, output in zip(cases, outputs, strict=True)]
        path.write_text(head[0] + "// -----\n".join(updated), encoding="utf-8")
        return
    for case, output in zip(cases, outputs, strict=True):
        checks = [(m[1], m[2]) for m in CHECK.finditer(case)]
        assert checks, f"a case of {path.name} checks nothing:\n{case}"
        found = mismatch(checks, output)
        assert found is None, f"{found}\n\noutput:\n{output}"


def test_there_are_files_and_ops() -> None:
    assert len(FILES) >= 4
    assert "add" in OPS


@pytest.mark.parametrize(
    ("checks", "fits"),
    [
        ([("", "a"), ("-NEXT", "b")], True),
        ([("", "a"), ("-NEXT", "c")], False),
        ([("", "b"), ("", "a")], False),
        ([("", "a"), ("-NOT", "b"), ("", "c")], False),
        ([("", "a"), ("-NEXT", "b"), ("-NOT", "b"), ("", "c")], True),
        ([("-NOT", "d")], True),
        ([("-NOT", "c")], False),
        ([("", "{{[xyzb]}}"), ("-NEXT", "c")], True),
    ],
)
def test_checks_can_fail(checks: list[tuple[str, str]], fits: bool) -> None:
    assert (mismatch(checks, "a\nb\nc") is None) == fits
