"""The command's frame: the table of subcommands, verbosity, and what each failure becomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from irc import __version__
from irc.ir.errors import Error, InvalidModelError, UnsupportedError
from irc.tools import main as main_module
from irc.tools.errors import guarded
from irc.tools.main import COMMANDS, group, run
from irc.tools.options import note, verbose


def test_every_row_names_a_command() -> None:
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert isinstance(command, click.Command)
        assert COMMANDS[name][1].endswith(".")


def test_every_command_speaks_json_and_can_be_quiet() -> None:
    """But the one that prints a shell's script."""
    context = click.Context(group)
    for name in set(COMMANDS) - {"completion"}:
        command = group.get_command(context, name)
        assert command is not None
        flags = {flag for param in command.params for flag in param.opts}
        assert {"--json", "--quiet", "--verbose"} <= flags, name


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_help_imports_no_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "import_module", None)
    assert run(["--help"]) == 0


@pytest.mark.parametrize("args", [["evn"], ["env", "--nope"], ["env", "extra"], ["--nope"], []])
def test_a_wrong_command_line_is_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert "Usage: irc" in captured.err
    assert not captured.out


def test_a_misspelt_command_is_told_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    run(["evn"])
    assert "Did you mean 'env'?" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"irc {__version__}\n"


def test_env_as_json_and_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["irc"] == __version__
    assert facts["packages"]["numpy"][0].isdigit()
    assert facts["extras"]["test"] == "yes"
    assert facts["llvm"][0].isdigit()
    assert run(["env"]) == 0
    assert facts["platform"] in capsys.readouterr().out


# --------------------------------------------------------------------- failures


def _raising(error: BaseException) -> int:
    def call() -> None:
        raise error

    return guarded(call, ["compile", "a.onnx"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Error("E0101", "no such model"), 1),
        (click.UsageError("no such flag"), 2),
        (UnsupportedError("E0401", "no such op"), 3),
        (InvalidModelError("E0102", "the file is cut short"), 4),
        (FileNotFoundError(2, "No such file or directory", "a.onnx"), 1),
        (PermissionError(13, "Permission denied", "out.ircx"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (KeyError("x"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_failure_has_its_code_and_no_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _raising(error) == code
    captured = capsys.readouterr()
    assert captured.err.strip()
    assert "Traceback" not in captured.err
    assert not captured.out


def test_an_error_is_rendered_whole(capsys: pytest.CaptureFixture[str]) -> None:
    error = Error("E0312", "shapes do not match", where="node 'a'", hint="transpose w")
    _raising(error)
    assert capsys.readouterr().err == error.render() + "\n"


def test_a_defect_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    defect = KeyError("x")
    defect.reproducer = "crash.ir"  # type: ignore[attr-defined]
    assert _raising(defect) == 70
    shown = capsys.readouterr().err
    assert "internal error: KeyError" in shown
    assert "reproducer: crash.ir" in shown
    (report,) = (tmp_path / "crashes").iterdir()
    assert str(report) in shown
    text = report.read_text()
    assert "irc compile a.onnx" in text
    assert "Traceback" in text


def test_a_defect_on_a_file_whose_name_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    name = os.fsdecode(b"bad\xff.onnx")

    def call() -> object:
        raise KeyError(name)

    assert guarded(call, ["compile", name]) == 70
    (report,) = (tmp_path / "crashes").iterdir()
    assert "bad\\udcff.onnx" in report.read_text()


def test_a_defect_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IRC_DEBUG", "1")
    assert _raising(KeyError("x")) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("IRC_CACHE_DIR", str(blocked))
    assert _raising(KeyError("x")) == 70
    assert "report:" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import sys, time; from irc.tools.errors import guarded\n"
        "def call():\n"
        "    for i in range(100000): print(i)\n"
        "sys.exit(guarded(call, []))"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


# --------------------------------------------------------------------- verbosity


@pytest.mark.parametrize(
    ("args", "debug", "level"),
    [
        ([], "", 0),
        (["-v"], "", 1),
        (["-q"], "", -1),
        (["-vv"], "", 2),
        (["-v"], "3", 3),
        ([], "nonsense", 0),
        (["-q"], "0", -1),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_verbosity_before_or_after_the_command(
    args: list[str], debug: str, level: int, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_DEBUG", debug)
    assert run([*args, "env"] if before else ["env", *args]) == 0
    assert verbose() == level


def test_notes_go_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(["env"])
    note("working")
    assert capsys.readouterr().err == "working\n"
    run(["-q", "env"])
    note("working")
    assert capsys.readouterr().err == ""


def test_the_script_is_installed() -> None:
    script = Path(sys.executable).with_name("irc.exe" if os.name == "nt" else "irc")
    shell = subprocess.run([str(script), "--version"], capture_output=True, text=True)
    assert shell.stdout == f"irc {__version__}\n"
