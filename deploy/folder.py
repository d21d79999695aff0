"""A package as a folder: text files from templates, checksums, written aside and renamed.

The bytes depend on the content alone: no times, no paths, files in order of their names.
May import: ir.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from ..ir.errors import Error

SCHEMA = "irc-package-1"
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
_C_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while bool true false main".split()
)


def package_name(path: Path, name: str | None) -> str:
    """The prefix of all public C names: `name`, else made of the folder's name.  E0803: no such."""
    if name is None:
        made = re.sub(r"\W+", "_", path.name, flags=re.ASCII).strip("_").lower() or "model"
        return made if re.match(r"[a-z]", made) and made not in _C_KEYWORDS else f"m_{made}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _C_KEYWORDS:
        raise Error(
            "E0803",
            f"'{name}' cannot begin the names of a C library",
            hint="letters, digits and underscores, a letter first",
        )
    return name


def render(template: str, **values: Any) -> str:
    """The text of templates/`template`; a name that is missing is an error."""
    env = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_template),
    )
    return env.get_template(template).render(values)


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON as packages hold it."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def write_package(path: Path, files: Mapping[str, str]) -> None:
    """Write the folder, its manifest and checksums included; what lies there is replaced.

    `files` are texts by relative path, the manifest among them.  E0804: something else lies there,
    and is left as it is.  E0805: it cannot be written; what was there stays.
    """
    goal = path.resolve()
    check_goal(goal)
    texts = {name: files[name].encode() for name in sorted(files)}
    rows = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in texts.items()]
    texts[SUMS] = "".join(rows).encode()
    aside: Path | None = None
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{goal.name}-", dir=goal.parent))
        for name, data in texts.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        os.chmod(aside, 0o777 & ~_umask())
        _exchange(aside, goal)
    except OSError as error:
        raise Error(
            "E0805", f"cannot write the package {path}: {error.strerror or error}"
        ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_goal(goal: Path) -> None:
    """E0804 unless the folder is new, empty or a package."""
    if not goal.exists() or (goal.is_dir() and not any(goal.iterdir())):
        return
    found = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads((goal / MANIFEST).read_text(encoding="utf-8")).get("schema")
    if found is None or not str(found).startswith("irc-package"):
        raise Error(
            "E0804",
            f"{goal} is no package, and is left as it is",
            hint="name a new or an empty folder",
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _exchange(aside: Path, goal: Path) -> None:
    """Move `aside` to `goal`; what stood there is put back where that fails."""
    if not goal.exists():
        aside.rename(goal)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{goal.name}-old-", dir=goal.parent))
    try:
        goal.rename(old)
        try:
            aside.rename(goal)
        except OSError:
            old.rename(goal)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


__all__ = [
    "MANIFEST", "SCHEMA", "SUMS", "check_goal", "json_text", "package_name", "render",
    "write_package",
]  # fmt: skip
