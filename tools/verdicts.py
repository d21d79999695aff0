"""How a model fails: a verdict of the built-in check or of a command, told apart well enough to say
whether a smaller model fails in the same way.

The built-in check loads, compiles, runs and compares in a process of its own, since a model may
take the process down or hang; that process is kept for the next model as long as it lives.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends import compiler
from ..ir.errors import Error
from . import driver

STAGES = ("import", "compile", "run", "compare")


@dataclass(frozen=True)
class Verdict:
    """`kind` is ok, error, crash, mismatch, died, hang or exit; `key` tells failures of one kind
    apart, `stage` says how far it came, `text` is for people.
    """

    kind: str
    key: str = ""
    stage: str = ""
    text: str = ""

    def same(self, other: Verdict) -> bool:
        """Is it the same failure?"""
        return self.kind != "ok" and (self.kind, self.key) == (other.kind, other.key)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".strip() + (f" ({self.text})" if self.text else "")


@dataclass(frozen=True)
class Conditions:
    """What a model is compiled and run with."""

    target: str = "cpu"
    threads: int | None = None
    seed: int = 0
    input_file: str | None = None
    tolerance: float | None = None


def judge(path: str, given: Conditions, upto: str = "compare") -> Verdict:
    """The verdict on a model, in this process, as far as a stage."""
    stage = STAGES[0]
    try:
        for stage, step in _steps(path, given):
            found = step()
            if found is not None:
                return found
            if stage == upto:
                break
    except Error as error:
        return Verdict("error", error.code, stage, error.message)
    except MemoryError:
        return Verdict("error", "memory", stage, "out of memory")
    except Exception as error:
        return Verdict("crash", _place(error), stage, str(error).partition("\n")[0][:200])
    return Verdict("ok", "", stage)


def _steps(path: str, given: Conditions) -> list[tuple[str, Callable[[], Verdict | None]]]:
    """The stages in order; each keeps what it makes for the next."""
    from ..backends.targets import choose
    from ..ir.interpret import run

    made: dict[str, Any] = {}

    def load() -> None:
        made["module"] = driver.load(path)

    def compile_it() -> None:
        made["exe"] = compiler.compiled_now(made["module"], choose(given.target, given.threads))

    def execute() -> None:
        made["inputs"] = inputs_of(compiler.reference(made["module"]).inputs, given)
        made["found"] = made["exe"].run({n: x.copy() for n, x in made["inputs"].items()})

    def compare() -> Verdict | None:
        from .verification import roundings, row

        main = made["module"].main
        expected, rounds = run(main, made["inputs"]), roundings(main)
        rows = [
            row("", y, ref, given.tolerance, rounds=rounds)
            for y, ref in zip(made["found"], expected, strict=True)
        ]
        worst = max(rows, key=lambda r: (not r.passed, r.error), default=None)
        if worst is None or worst.passed:
            return None
        return Verdict("mismatch", "", "compare", f"{worst.error:.1e} of max|ref|")

    return list(zip(STAGES, (load, compile_it, execute, compare), strict=True))


def inputs_of(fields: Any, given: Conditions) -> dict[str, Any]:
    """Random inputs; those of the file instead where names and shapes still agree."""
    import numpy as np

    from .feeds import random_inputs

    found = random_inputs(fields, given.seed)
    if given.input_file is not None:
        with np.load(given.input_file, allow_pickle=False) as file:
            for name, x in found.items():
                if name in file.files and file[name].dtype == x.dtype:
                    same = file[name].shape == x.shape
                    symbolic = not dict(fields)[name].is_static
                    found[name] = file[name] if same or symbolic else x
    return found


def _place(error: Exception) -> str:
    """`KeyError in cse.py:run`: type, file and function, not the line, which says too much."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f"{os.sep}tools{os.sep}" not in f.filename] or list(frames)
    return f"{type(error).__name__} in {Path(own[-1].filename).name}:{own[-1].name}"


# The process -------------------------------------------------------------------------------------


class Judge:
    """`judge` in a process of its own; a context manager.  `seconds` is the limit of one model."""

    def __init__(self, given: Conditions, seconds: float = 60.0) -> None:
        self.given = given
        self.seconds = seconds
        self.process: Any = None
        self.pipe: Any = None

    def __call__(self, path: str, upto: str = "compare") -> Verdict:
        """The verdict; `died` where the process ended, `hang` where the limit was passed."""
        if self.process is None:
            self._start()
        try:
            self.pipe.send((path, upto))
            if not self.pipe.poll(self.seconds):
                self.close()
                return Verdict("hang", "", "", f"more than {self.seconds:.0f} s")
            found: Verdict = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.close()
            return Verdict("died", _ending(code))
        return found

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.given), daemon=True)
        self.process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = self.pipe = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def serve(pipe: Any, given: Conditions) -> None:
    """The other side: paths in, verdicts out, nothing on stdout or stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this one
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    with contextlib.suppress(EOFError, OSError):
        while True:
            path, upto = pipe.recv()
            pipe.send(judge(path, given, upto))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit {code}"


# A command ---------------------------------------------------------------------------------------

_SAID = re.compile(r"error\[(E\d+)\]|internal error: (\w+)")


def command_verdict(command: str, path: str, seconds: float = 60.0) -> Verdict:
    """The verdict of a shell command, `{}` in it being the model: its exit code, 0 for ok.

    Where it is `irc`, the number of the error that it prints counts too.
    """
    line = command.replace("{}", shlex.quote(path))
    process = subprocess.Popen(
        line, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Verdict("hang", "", "", f"more than {seconds:.0f} s")
    if process.returncode == 0:
        return Verdict("ok")
    found = _SAID.search(said)
    number = next((g for g in found.groups() if g), "") if found else ""
    return Verdict("exit", f"{process.returncode} {number}".strip())


CHECKS: Mapping[str, Sequence[str]] = {
    "any": ("error", "crash", "mismatch", "died", "hang"),
    "error": ("error",),
    "crash": ("crash", "died", "hang"),
    "mismatch": ("mismatch",),
}
"""Name of a built-in check to the verdicts that it is about."""

__all__ = ["CHECKS", "STAGES", "Conditions", "Judge", "Verdict", "command_verdict", "judge"]
