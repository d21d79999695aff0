"""Whole programs on disk: found again, never stale, damage counts as absence, bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irc.backends import compiler
from irc.backends.cpu import programs
from irc.backends.targets import Choice, choose
from irc.ir.core import Builder
from irc.ir.ops.core import Const, Func, Module
from irc.ir.types import TensorType, f32

X = np.arange(8, dtype=np.float32).reshape(1, 8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    return tmp_path / "programs"


def module(op: str = "relu", factor: float = 2.0) -> Module:
    func = Func.make("main", [TensorType(f32, (1, 8))], ["x"])
    b = Builder(func.body)
    scale = b.insert(Const(np.full((1, 8), factor, np.float32))).result
    b.return_(getattr(b, op)(b.mul(func.args[0], scale)))
    func.set_attr("outputs", ("y",))
    return Module.make([func])


def key(made: Module, choice: Choice) -> str:
    assert choice.codegen is not None
    return programs.program_key(made, choice.target, choice.codegen)


def test_a_program_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiler.executable(module(), choose("cpu", 1))
    assert len(list(folder.glob("*.ircx"))) == 1

    def never(*given: object) -> None:
        raise AssertionError("the pipeline ran again")

    monkeypatch.setattr(compiler, "lower", never)
    again = compiler.executable(module(), choose("cpu", 1))
    np.testing.assert_array_equal(again.run([X])[0], first.run([X])[0])
    with pytest.raises(AssertionError):
        compiler.executable(module(factor=3.0), choose("cpu", 1))


def test_names_differ_where_the_code_may() -> None:
    one = choose("cpu", 1)
    keys = [
        key(module(), one),
        key(module(), choose("cpu", 2)),
        key(module(), choose("x86_64-linux", 1)),
        key(module("exp"), one),
        key(module(factor=3.0), one),
    ]
    assert len(set(keys)) == len(keys)
    assert key(module(), one) == keys[0]


def test_other_sources_make_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(module(), choose("cpu", 1))
    monkeypatch.setattr(programs, "sources", lambda: "changed")
    assert key(module(), choose("cpu", 1)) != before


@pytest.mark.parametrize("at", [10, -10])
def test_damage_counts_as_absence(at: int, folder: Path) -> None:
    choice = choose("cpu", 1)
    first = compiler.executable(module(), choice)
    (path,) = folder.glob("*.ircx")
    data = bytearray(path.read_bytes())
    del data[at:]
    path.write_bytes(data)
    assert programs.find(key(module(), choice)) is None
    assert not path.exists()
    again = compiler.executable(module(), choice)
    np.testing.assert_array_equal(again.run([X])[0], first.run([X])[0])


def test_the_folder_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.executable(module(), choose("cpu", 1))
    size = sum(p.stat().st_size for p in folder.iterdir())
    monkeypatch.setattr(programs, "LIMIT", 3 * size)
    for k in range(5):
        compiler.executable(module(factor=3.0 + k), choose("cpu", 1))
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 3 * size
    assert programs.find(key(module(factor=7.0), choose("cpu", 1))) is not None
    monkeypatch.setattr(programs, "LARGEST", -1)
    compiler.executable(module(factor=9.0), choose("cpu", 1))
    assert programs.find(key(module(factor=9.0), choose("cpu", 1))) is None


def test_an_entry_that_cannot_be_taken_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder: what is whole serves, what is damaged is passed over."""

    def refuse(*given: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    first = compiler.executable(module(), choose("cpu", 1))
    (entry,) = folder.glob("*.ircx")
    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert programs.find(entry.stem) is not None
    entry.write_bytes(b"")
    assert programs.find(entry.stem) is None
    again = compiler.executable(module(), choose("cpu", 1))
    np.testing.assert_array_equal(again.run([X])[0], first.run([X])[0])


def test_no_folder_costs_only_time(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    exe = compiler.executable(module(), choose("cpu", 1))
    np.testing.assert_array_equal(exe.run([X])[0], 2 * X)
