"""The targets by name: what the passes need to know of each, and which backend builds for it.

A target with a processor of its own compiles anywhere (`irc compile` writes the plan) and runs only
where that processor's features are.  llvmlite is imported when a target is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.errors import Error, UnsupportedError
from ..ir.spelling import nearest
from ..ir.target import Target

if TYPE_CHECKING:
    from .llvm.compile import CodegenTarget

ROWS = {
    "cpu": "this machine, all its features",
    "c": "C99, any processor: one .c and one .h file, or compiled by the system's compiler to run",
    "reference": "numpy, op by op: the definition of correct",
    "x86_64-linux": "any x86-64 (SSE2)",
    "x86_64-linux-v2": "x86-64 with SSE4.2",
    "x86_64-linux-v3": "x86-64 with AVX2 and FMA",
    "x86_64-linux-v4": "x86-64 with AVX-512",
    "aarch64-linux": "any 64-bit ARM (NEON)",
}
"""Name and meaning; the last five also take a processor: `aarch64-linux-cortex-a72`."""


@dataclass(frozen=True)
class Choice:
    """A target by name: `backend` is cpu, c or reference; `codegen` is LLVM's part (cpu only)."""

    name: str
    backend: str
    target: Target
    codegen: CodegenTarget | None = None

    def lacking(self) -> list[str]:
        """What this machine lacks to run code for the target; empty where it runs."""
        from .cpu.host import host, present_features

        if self.codegen is None:
            return []
        if self.codegen.arch != host().arch:
            return [f"a processor of {self.codegen.arch}"]
        return sorted(present_features(self.codegen) - host().features)


def thread_count(threads: int | None = None) -> int:
    """The argument, else IRC_NUM_THREADS, else the cores allowed; E0403 where it is no count."""
    from .cpu.host import cores_allowed

    said = os.environ.get("IRC_NUM_THREADS", "") if threads is None else str(threads)
    if not said:
        return cores_allowed()
    if not said.isdecimal() or not 1 <= int(said) <= 1024:
        source = "IRC_NUM_THREADS" if threads is None else "threads"
        raise Error("E0403", f"{source} is '{said}'", hint="a number from 1 to 1024")
    return int(said)


def choose(name: str, threads: int | None = None) -> Choice:
    """The target called `name`; E0401 for an unknown one."""
    count = thread_count(threads)
    if not isinstance(name, str):
        raise UnsupportedError("E0401", f"a target is a name, found {name!r}", hint="irc targets")
    if name == "cpu":
        from .cpu.host import codegen_target
        from .cpu.target import cpu_target

        return Choice(name, "cpu", cpu_target(count), codegen_target())
    if name == "c":
        from .c.target import c_target

        return Choice(name, "c", c_target())
    if name == "reference":
        return Choice(name, "reference", Target("reference"))
    return _named(name, count)


def _named(name: str, threads: int) -> Choice:
    from .cpu.target import processor

    try:
        target, codegen = processor(name, threads)
    except UnsupportedError as error:
        near = nearest(name, ROWS)
        error.hint = f"did you mean '{near}'? `irc targets` lists them" if near else error.hint
        raise
    return Choice(name, "cpu", target, codegen)


__all__ = ["ROWS", "Choice", "choose", "thread_count"]
