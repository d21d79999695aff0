"""`irc launch`: a training script in several processes, joined by MPI.

The launcher is the mpiexec beside this Python (of the package mpich), else the one on PATH.  The
processes' output passes through as it comes; with --json it goes to stderr.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from ..ir.errors import EXIT_NO_TOOLCHAIN, EXIT_OK, Error
from .options import detail, json_flag, note, verbosity
from .tables import show_json

INSTALL = "pip install 'tensor-irc[mpi]'"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "--processes", type=click.IntRange(1, 4096), required=True,
              help="How many processes.")  # fmt: skip
@click.option("--hosts", default=None, help="Machines, as a:4,b:4; without it this one.")
@click.option("--threads", type=click.IntRange(1, 1024), default=None,
              help="Threads of each process; without it an equal share of the cores.")  # fmt: skip
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@json_flag
@verbosity
def command(
    processes: int,
    hosts: str | None,
    threads: int | None,
    script: str,
    args: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run SCRIPT with ARGS in several processes that train one network together.

    A batch is the global one: each process takes its rows of it.  The exit code is the job's; a
    process that fails or is killed ends it.
    """
    if not Path(script).is_file():
        raise Error("E0509", f"there is no script {script}")
    line = [mpiexec(), "-n", str(processes), *(["-hosts", hosts] if hosts else [])]
    line += [sys.executable, script, *args]
    settings = dict(os.environ)
    if threads is not None:
        settings["IRC_NUM_THREADS"] = str(threads)
    detail(" ".join(line))
    start = time.perf_counter()
    code = run(line, settings, as_json)
    seconds = round(time.perf_counter() - start, 3)
    if as_json:
        show_json({"processes": processes, "exit_code": code, "seconds": seconds, "command": line})
    elif code != EXIT_OK:
        note(f"the job ended with {code} after {seconds} s")
    return code


def run(line: list[str], settings: dict[str, str], quiet_stdout: bool) -> int:
    """The exit code of a command; Ctrl-C reaches it by itself, and is waited for."""
    sys.stdout.flush()
    job = subprocess.Popen(line, env=settings, stdout=sys.stderr if quiet_stdout else None)
    while True:
        try:
            code = job.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue


def mpiexec() -> str:
    """The launcher; E0651 where the extra is not installed."""
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("mpiexec")
    try:
        import mpi4py  # noqa: F401  only whether it is there
    except ImportError:
        found = None
    if found is None:
        raise Error(
            "E0651",
            "training in several processes needs MPI",
            details=("found    neither mpiexec nor mpi4py beside this Python",)
            if beside is None
            else ("found    mpiexec, but no mpi4py",),
            hint=INSTALL,
            exit_code=EXIT_NO_TOOLCHAIN,
        )
    return found
