"""`irc launch`: a script in several processes, its exit code, and what is said without MPI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from irc.tools import cmd_launch
from irc.tools.main import run

SCRIPT = """
import os, sys
from irc import train
print("rank", train.rank(), "of", train.world(), os.environ.get("IRC_NUM_THREADS"), *sys.argv[1:])
if "--fail" in sys.argv and train.rank() == 1:
    sys.exit(1) if "--quietly" in sys.argv else 1 / 0
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


def launch(*args: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "irc.tools.entry", "launch", *args]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def test_processes_join(script: str) -> None:
    """The script's own options are the script's, -n too."""
    pytest.importorskip("mpi4py")
    ran = launch("-n", "2", "--threads", "3", script, "-n", "7", "--json")
    assert ran.returncode == 0, ran.stderr
    found = sorted(ran.stdout.splitlines())
    assert found == [f"rank {r} of 2 3 -n 7 --json" for r in range(2)]


def test_json_and_a_failure(script: str) -> None:
    pytest.importorskip("mpi4py")
    ran = launch("-n", "2", "--json", script, "--fail")
    facts = json.loads(ran.stdout)
    assert facts["processes"] == 2 and facts["exit_code"] == ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr and "rank 1 of 2 failed" in ran.stderr


def test_without_mpi(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert run(["launch", "-n", "2", script]) == 7
    said = capsys.readouterr().err
    assert "error[E0651]" in said and cmd_launch.INSTALL in said


def test_no_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "-n", "2", "missing.py"]) == 1
    assert "there is no script missing.py" in capsys.readouterr().err


def test_a_count_is_needed(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", script]) == 2
    assert run(["launch", "-n", "0", script]) == 2
    assert "--processes" in capsys.readouterr().err
