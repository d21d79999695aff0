"""irc.toml: which file counts, what goes before what, and the place of every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from irc.ir.errors import Error
from irc.tools.main import COMMANDS, run
from irc.tools.settings import check_tables, defaults, read_settings, settings_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a folder in it, where the tests stand."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.delenv("IRC_NUM_THREADS", raising=False)
    return tmp_path


def threads_of(capsys: Capture, model: Path, *args: str) -> int:
    assert run(["bench", str(model), "--seconds", "0", "--json", *args]) == 0
    return int(json.loads(capsys.readouterr().out)["threads"])


def test_the_nearest_file_counts_up_to_the_repository(folder: Path) -> None:
    (folder.parent / "irc.toml").write_text("")
    try:
        assert settings_file() is None
        (folder / "irc.toml").write_text("")
        assert settings_file() == folder / "irc.toml"
        (folder / "inner" / "irc.toml").write_text("")
        assert settings_file() == folder / "inner" / "irc.toml"
    finally:
        (folder.parent / "irc.toml").unlink()


def test_the_home_folder_is_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "irc.toml").write_text("")
    monkeypatch.setenv("HOME", str(folder / "inner"))
    assert settings_file() is None


def test_what_goes_before_what(
    folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (folder / "irc.toml").write_text("[bench]\nthreads = 3\n[run]\nthreads = 4\n")
    assert threads_of(capsys, archive) == 3
    monkeypatch.setenv("IRC_NUM_THREADS", "2")
    assert threads_of(capsys, archive) == 2
    monkeypatch.setenv("IRC_BENCH_THREADS", "1")
    assert threads_of(capsys, archive) == 1
    assert threads_of(capsys, archive, "--threads", "5") == 5


def test_lists_and_flags(folder: Path, text_file: Path, capsys: Capture) -> None:
    (folder / "irc.toml").write_text('[run]\nshape = ["x:7x4"]\njson = true\n')
    assert run(["run", str(text_file), "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["out0"]["shape"] == [7, 4]


def test_env_names_the_file(folder: Path, capsys: Capture) -> None:
    (folder / "irc.toml").write_text("[run]\nseed = 1\n")
    assert run(["env"]) == 0
    assert str(folder / "irc.toml") in capsys.readouterr().out


MISTAKES = [
    ("[run]\nsed = 1\n", "line 2", "did you mean 'seed'?"),
    ("[rum]\nseed = 1\n", "line 1", "did you mean [run]?"),
    ("threads = 1\n", "line 1", "stands outside the tables"),
    ("[compile]\nemit = 'plan'\n[run]\n\nseed = 'x'\n", "line 5", "seed cannot be 'x'"),
    ("[run]\nseed = -1\n", "line 2", "seed cannot be -1"),
    ("[run]\nseed = true\n", "line 2", "must be no truth value"),
    ("[run]\njson = 'yes'\n", "line 2", "must be true or false"),
    ("[run]\nshape = 'x:1'\n", "line 2", "must be a list"),
    ("[run]\nshape = ['x']\n", "line 2", "is not like x:1x3x224x224"),
    ("[run]\nseed = [1]\n", "line 2", "must be one value"),
    ("[run]\nseed = 1.5\n", "line 2", "must be a whole number"),
    ("[run]\nquiet = true\n", "line 2", "is no option"),
    ("[run\n", "line 1", "is no TOML file"),
]


@pytest.mark.parametrize(("text", "line", "says"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_mistakes(folder: Path, text: str, line: str, says: str, capsys: Capture) -> None:
    (folder / "irc.toml").write_text(text)
    for command in (["run", "none.onnx"], ["env"]):
        assert run(command) == 1
        shown = capsys.readouterr().err
        assert shown.startswith(f"error[E0534]: {folder / 'irc.toml'}")
        assert line in shown and says in shown


def test_other_tables_do_not_disturb(folder: Path) -> None:
    """A mistake in the table of another command waits for that command."""
    (folder / "irc.toml").write_text("[run]\nsed = 1\n")
    assert run(["targets"]) == 0


def test_help_needs_no_file(folder: Path) -> None:
    (folder / "irc.toml").write_text("[")
    assert run(["--help"]) == 0


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Error, match="E0509"):
        read_settings(tmp_path)


def test_arguments_are_no_options(tmp_path: Path) -> None:
    """`model` has no default: it is what the command is about."""
    from irc.tools.cmd_run import command

    path = tmp_path / "irc.toml"
    path.write_text("")
    check_tables(path, {"run": {}}, COMMANDS)
    assert isinstance(command, click.Command)
    with pytest.raises(Error, match="is no option"):
        defaults(path, command, "run", {"model": "m.onnx"})


def test_a_folder_that_has_been_deleted_has_none(folder: Path) -> None:
    (folder / "inner").rmdir()
    assert run(["targets"]) == 0
