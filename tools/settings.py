"""Defaults from `irc.toml`: which file counts, and what it says about one subcommand's options.

The file is looked for in the current folder and its parents, as far as the root of the repository
or the home folder.  Its tables are subcommands, its keys their options' long names.  An option goes
by the command line first, then the environment (`IRC_COMPILE_TARGET`, `IRC_NUM_THREADS`), then this
file, then its own default.  Imports click; tomllib only where there is a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from ..ir.errors import Error
from ..ir.spelling import nearest, suggestion

NAME = "irc.toml"
ENVIRONMENT = {"threads": "IRC_NUM_THREADS"}
"""Options with a variable of their own, which goes before the file."""


def settings_file(start: Path | None = None) -> Path | None:
    """The nearest `irc.toml` in `start` (the current folder) or above; None where there is none."""
    try:
        folder = (start or Path.cwd()).absolute()
    except FileNotFoundError:  # the current folder has been deleted
        return None
    home = Path(os.path.expanduser("~"))
    for place in (folder, *folder.parents):
        if (place / NAME).is_file():
            return place / NAME
        if place == home or (place / ".git").exists():
            return None
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """The tables of the file; E0534 where it is no TOML, E0509 where it cannot be read."""
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Error("E0509", f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error("E0534", f"{path} is no TOML file", details=(str(error),)) from None


def check_tables(path: Path, tables: Mapping[str, Any], commands: Iterable[str]) -> None:
    """Raise E0534 where a table is no subcommand, or a key stands outside the tables."""
    known = list(commands)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise _mistake(path, "", name, "stands outside the tables", [f"[{c}]" for c in known])
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean [{near}]?" if near else f"tables: {', '.join(known)}"
            where = f"line {_line(path, name, '')}" if _line(path, name, "") else None
            raise Error("E0534", f"{path}: [{name}] is no command", where=where, hint=hint)


def defaults(path: Path, command: click.Command, name: str, table: Any) -> dict[str, Any]:
    """The table's values by parameter name, as click's `default_map` wants them.

    Values of options whose own variable is set are left out.  E0534 for an unknown key or a value
    that the option refuses.
    """
    options = {long: option for option in command.params for long in _long_names(option)}
    found: dict[str, Any] = {}
    for key, value in (table or {}).items():
        option = options.get(key)
        if option is None:
            raise _mistake(path, name, key, f"is no option of `irc {name}`", list(options))
        _check(path, name, key, option, value)
        if not os.environ.get(ENVIRONMENT.get(key, "")):
            found[str(option.name)] = value
    return found


def _long_names(option: click.Parameter) -> list[str]:
    """`threads` of --threads; nothing for arguments and for --help."""
    if not isinstance(option, click.Option) or option.is_eager or not option.expose_value:
        return []
    return [text[2:] for text in option.opts if text.startswith("--")]


def _check(path: Path, name: str, key: str, option: Any, value: Any) -> None:
    """Raise E0534 unless the option takes the value."""
    if option.is_flag or isinstance(value, bool):
        if not (option.is_flag and isinstance(value, bool)):
            want = "true or false" if option.is_flag else "no truth value"
            raise _mistake(path, name, key, f"must be {want}, found {value!r}")
        return
    if option.multiple != isinstance(value, list):
        want = "a list" if option.multiple else "one value"
        raise _mistake(path, name, key, f"must be {want}, found {value!r}")
    if isinstance(option.type, click.types.IntParamType) and isinstance(value, float):
        raise _mistake(path, name, key, f"must be a whole number, found {value!r}")
    try:
        context = click.Context(click.Command(name), resilient_parsing=False)
        option.process_value(context, value)
    except click.BadParameter as error:
        raise _mistake(path, name, key, f"cannot be {value!r}: {error.message}") from None
    except (TypeError, ValueError) as error:
        raise _mistake(path, name, key, f"cannot be {value!r}: {error}") from None


def _mistake(
    path: Path, table: str, key: str, what: str, known: Iterable[str] = ()
) -> Error:
    line = _line(path, table, key)
    place = f"[{table}] " if table else ""
    return Error(
        "E0534",
        f"{path}: {place}{key} {what}",
        where=f"line {line}" if line else None,
        hint=suggestion(key, known),
    )


def _line(path: Path, table: str, key: str) -> int:
    """Where a key (or, without one, a table's header) stands; 0 where that is not plain to see."""
    inside = not table
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        header = re.match(r"\s*\[\s*\"?([\w-]+)\"?\s*\]", text)
        if header:
            inside = header[1] == table
            if inside and not key:
                return number
        elif inside and key and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", text):
            return number
    return 0


__all__ = ["NAME", "check_tables", "defaults", "read_settings", "settings_file"]
