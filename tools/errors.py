"""Where every failure of the command line becomes a message on stderr and an exit code.

Invariant: a user's mistake never shows a traceback; a defect of ours shows one line, the report
file with the traceback, and the reproducer when a pass wrote one (`exception.reproducer`, a path).
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ..ir.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, EXIT_USER, Error
from .options import verbose


def guarded(call: Callable[[], object], args: Sequence[str]) -> int:
    """Run `call`, print what goes wrong, return the exit code; `args` go into a crash report."""
    try:
        returned = call()
        sys.stdout.flush()
        return returned if isinstance(returned, int) else EXIT_OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as mistake:
        mistake.show()
        return EXIT_USAGE if isinstance(mistake, click.UsageError) else EXIT_USER
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except Error as error:
        click.echo(error.render(), err=True)
        return error.exit_code
    except BrokenPipeError:
        return _reader_left()
    except MemoryError:
        hint = "  hint: a smaller batch or --shape needs less; `irc inspect` prints the peak"
        click.echo(f"error[E0531]: out of memory\n{hint}", err=True)
        return EXIT_USER
    except OSError as error:
        if error.filename is None and error.strerror is None:
            return _internal(error, args)
        click.echo(_of_the_system(error), err=True)
        return EXIT_USER
    except Exception as error:
        if _was_interrupt(error):
            click.echo("interrupted", err=True)
            return EXIT_INTERRUPTED
        return _internal(error, args)


def _was_interrupt(error: BaseException | None) -> bool:
    """Is it what some import made of an interrupt?"""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reader_left() -> int:
    """Nobody reads stdout any more (`irc ... | head`): be silent, also at the last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _of_the_system(error: OSError) -> str:
    """A refusal of the operating system (no such file, no permission, disk full) as a sentence."""
    place = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
    return f"error[E0532]: {error.strerror or error}{place}"


def _internal(error: Exception, args: Sequence[str]) -> int:
    """A defect of ours: say so in short, and keep what a bug report needs."""
    text = "".join(traceback.format_exception(error))
    last = traceback.extract_tb(error.__traceback__)[-1]
    summary = str(error).partition("\n")[0][:200]
    lines = [
        f"internal error: {type(error).__name__}: {summary}",
        f"  at {Path(last.filename).name}:{last.lineno} in {last.name}; this is a defect of irc",
    ]
    reproducer = getattr(error, "reproducer", None)
    if reproducer is not None:
        lines.append(f"  reproducer: {reproducer}")
    report = _write_report(text, args)
    if report is not None:
        lines.append(f"  report: {report}")
    if verbose() > 0:
        lines.append(text.rstrip())
    else:
        lines.append("  hint: -v or IRC_DEBUG=1 shows the traceback")
    click.echo("\n".join(lines), err=True)
    return EXIT_INTERNAL


def _write_report(text: str, args: Sequence[str]) -> Path | None:
    """Arguments and traceback in a file of the cache folder; None where it cannot be written."""
    try:
        from ..backends.llvm.cache import cache_dir  # loads llvmlite, which no help page needs

        folder = cache_dir() / "crashes"
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        folder.mkdir(parents=True, exist_ok=True)
        said = f"irc {' '.join(args)}\n\n{text}"
        path.write_bytes(said.encode(errors="backslashreplace"))  # names of files may be no text
    except (ImportError, OSError):
        return None
    return path
