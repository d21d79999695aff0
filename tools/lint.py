"""ruff on everything, mypy (strict) on the packages in TYPED.  A script: it needs no installed irc.

The folder may have any name, and mypy takes a package's name from its folder: so it sees the tree
through a link named `irc` in a temporary folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPED = ("irc.ir", "irc.passes", "irc.deploy", "irc.frontends.nn", "irc.frontends.train")


def ruff() -> int:
    """Run ruff's rules over the tree; its exit code."""
    print("ruff: ", end="", flush=True)
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "."]
    return subprocess.run(command, cwd=ROOT).returncode


def mypy() -> int:
    """Run mypy in strict mode over the typed packages; its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(ROOT, Path(folder) / "irc", target_is_directory=True)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(ROOT / ".mypy_cache")]
        command += [word for name in TYPED for word in ("-p", name)]
        print("mypy: ", end="", flush=True)
        environment = {**os.environ, "MYPYPATH": folder}
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(int(any([ruff(), mypy()])))
