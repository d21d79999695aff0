"""The line of progress: on a terminal only, never under -q, and gone in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irc.tools import progress
from irc.tools.main import run
from irc.tools.progress import working

ON_A_TERMINAL = """
import sys
from irc.tools import progress
progress.PATIENCE = 0.0
from irc.tools.main import run
sys.exit(run(sys.argv[1:]))
"""


def on_a_terminal(*args: str) -> tuple[str, int]:
    """What a terminal gets on stderr, and the exit code."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", ON_A_TERMINAL, *args],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.communicate()
    return shown.decode(), process.returncode


def test_a_terminal_sees_what_is_done(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path / "cache"))  # nothing was compiled before
    shown, code = on_a_terminal("compile", str(archive), "-o", str(tmp_path / "m.ircx"))
    assert code == 0
    assert "compile: 2 kernels" in shown
    assert f"{tmp_path}" not in shown.partition("\x1b[?25h")[0]  # cut to one line
    assert shown.endswith("s\r\n")  # the line is wiped before the note


def test_quiet_is_quiet(archive: Path, tmp_path: Path) -> None:
    shown, code = on_a_terminal("compile", str(archive), "-o", str(tmp_path / "m.ircx"), "-q")
    assert (shown, code) == ("", 0)


def test_a_pipe_gets_no_line(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(archive), "--json"]) == 0
    assert capsys.readouterr().err == "random inputs, seed 0\n"


def test_short_work_imports_no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    run(["--version"])
    with working("work") as say:
        say("quick")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with pytest.raises(ImportError), working("work") as say:
        say("long")
