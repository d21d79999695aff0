"""What a shell gets when it asks, through the script that `irc completion` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from irc.tools.cmd_completion import SHELLS, VARIABLE
from irc.tools.main import COMMANDS, group, run


def offered(line: str) -> list[str]:
    """The words for a command line whose last word is being written."""
    words = line.split(" ")
    found = BashComplete(group, {}, "irc", VARIABLE).get_completions(words[1:-1], words[-1])
    return [item.value for item in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.onnx", "b.ircx", "c.txt", ".hidden.onnx", "deep/er/d.ir", "in.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("irc comp", ["compile", "completion"]),
        ("irc completion f", ["fish"]),
        ("irc compile --target x86_64-linux-v", [f"x86_64-linux-v{k}" for k in (2, 3, 4)]),
        ("irc compile --emit l", ["loops", "llvm"]),
        ("irc compile --to f", ["fused"]),
        ("irc opt --passes cse,fold", ["cse,fold", "cse,fold-weights"]),
        ("irc compile --verify", ["--verify-each"]),
        ("irc compile ", ["a.onnx", "deep/"]),
        ("irc run ", ["a.onnx", "b.ircx", "deep/"]),
        ("irc run de", ["deep/er/d.ir"]),
        ("irc run .h", [".hidden.onnx"]),
        ("irc run no/where", []),
        ("irc run a.onnx --input i", ["in.npz"]),
    ],
)
def test_words(folder: Path, line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_all_commands_and_flags() -> None:
    assert set(offered("irc ")) == set(COMMANDS)
    assert {"--target", "--threads", "--json", "--dump-ir"} <= set(offered("irc compile --"))


def test_a_broken_settings_file_does_not_disturb(folder: Path) -> None:
    (folder / "irc.toml").write_text("[")
    assert offered("irc compile --to f") == ["fused"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_parse(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert VARIABLE in script and "irc" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: bash runs its function, which asks the installed command."""
    run(["completion", "bash"])
    body = "COMP_WORDS=(irc compile a); COMP_CWORD=2; _irc_completion irc; echo ${COMPREPLY[@]}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = subprocess.run(
        ["bash", "-c", capsys.readouterr().out + body],
        capture_output=True, text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert shell.stdout.strip() == "a.onnx"
