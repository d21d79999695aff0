"""What README.md and docs/commands.md show works: each Python block and each `irc` line is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from irc.tools.bench.models import demo_cnn
from irc.tools.main import COMMANDS, run


def blocks(root: Path, page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = (root / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with model.onnx."""
    (tmp_path / "model.onnx").write_bytes(demo_cnn().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_of_the_readme(root: Path, folder: Path) -> None:
    found = blocks(root, "README.md", "python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_shell_lines(
    page: str, root: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for block in blocks(root, page, "sh") for line in block.splitlines()]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "irc"
        assert run(words[1:]) == 0, f"{line}\n{capsys.readouterr().err}"


def test_every_command_has_a_row(root: Path) -> None:
    text = (root / "docs/commands.md").read_text(encoding="utf-8")
    assert all(f"`irc {name}" in text for name in COMMANDS)
