"""All pages: every python fence not marked `no-run` and every line of a shell fence runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from doc_pages import (
    FENCE,
    ROOT,
    agrees,
    commands,
    fences,
    pages,
    programs,
    run_page,
)

from irc.tools.bench.models import demo_cnn
from irc.tools.main import COMMANDS

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in pages()}
OWN_TEST = "docs/from_scratch.md"
KINDS = {"", "python", "python no-run", "text", "text output", "sh", "toml"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages find around them: model.onnx, a small network."""
    (tmp_path / "model.onnx").write_bytes(demo_cnn().SerializeToString())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", [n for n in PAGES if n != OWN_TEST and (programs(PAGES[n]) or commands(PAGES[n]))]
)
def test_a_page_runs(name: str) -> None:
    run_page(name, PAGES[name], {"__name__": "__main__"})


def test_the_pages_show_something() -> None:
    """The conditions above do not hide every test."""
    assert programs(PAGES["README.md"]) and len(commands(PAGES["README.md"])) >= 8
    assert len(commands(PAGES["docs/commands.md"])) >= 8


def test_every_page_is_in_the_index() -> None:
    own = [name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")]
    assert not [n for n in own if f"]({n})" not in PAGES["docs/index.md"] and n != "index.md"]


def test_every_command_has_a_row() -> None:
    assert all(f"`irc {name}" in PAGES["docs/commands.md"] for name in COMMANDS)


def test_the_long_shard_is_listed() -> None:
    """Each file with tests marked long has its row in CONTRIBUTING.md, and no other has."""
    mark = "pytest.mark." + "long"
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if mark in path.read_text(encoding="utf-8")
    }
    table = PAGES["CONTRIBUTING.md"].partition("long shard")[2].partition("## Layout")[0]
    assert files == set(re.findall(r"`(tests/[\w/.]+\.py)`", table))


@pytest.mark.parametrize("name", PAGES)
def test_fences_say_what_they_are(name: str) -> None:
    """A misspelt fence would run nothing."""
    lines = PAGES[name].splitlines()
    assert sum(line.startswith("```") for line in lines) == 2 * len(fences(PAGES[name]))
    assert {fence.kind for fence in fences(PAGES[name])} <= KINDS


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    goals = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", FENCE.sub("", PAGES[name]))
    assert not [goal for goal in goals if not (folder / goal).exists()]


# --------------------------------------------------------------------- the convention itself

SAMPLE = """
```python
x = 1
print(x)
print("any", "thing")
```
```text output
1
... thing
```
```python no-run
1 / 0
```
```sh
irc env  # a comment

irc opt --list 'a b'
```
"""


def test_a_page_is_one_program() -> None:
    namespace: dict[str, Any] = {}
    assert run_page("sample.md", SAMPLE, namespace) == 3
    assert namespace["x"] == 1
    with pytest.raises(AssertionError, match=r"sample\.md:3 prints"):
        run_page("sample.md", SAMPLE.replace("x = 1", "x = 2"), {})


def test_commands_are_found() -> None:
    assert commands(SAMPLE) == [(15, ["irc", "env"]), (17, ["irc", "opt", "--list", "a b"])]


def test_fences_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sees what the program above it wrote, and the program below what it left."""
    monkeypatch.chdir(tmp_path)
    source = "func @main(%x: f32[2]) -> f32[2] {\\n  %0 = relu(%x) : f32[2]\\n  return %0\\n}\\n"
    page = (
        f"```python\nopen('a.ir', 'w').write('{source}')\n```\n"
        "```sh\nirc opt a.ir -o b.ir\n```\n"
        "```python\nassert 'relu' in open('b.ir').read()\n```\n"
    )
    run_page("page", page, {})
    with pytest.raises(AssertionError, match="page:5: irc opt"):
        run_page("page", page.replace("opt a.ir", "opt c.ir"), {})


def test_dots_stand_for_anything() -> None:
    assert agrees("...\npython 3...", "a\nb\npython 3.11")
    assert not agrees("...\npython 3...", "a\npython 2")
    assert not agrees("a...", "a\nb")


@pytest.mark.parametrize("line", ["irc no-such-command", "rm -r model.onnx"])
def test_a_failing_command_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match=rf"page:3: {line}: exit"):
        run_page("page", f"```sh\nirc env --json\n{line}\n```\n", {})


def test_only_blank_lines_do_not_count() -> None:
    assert run_page("page", '```python\n"""A page."""\n\nx = 1\n  \n# why\n```\n', {}) == 3
