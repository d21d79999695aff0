"""What all tests share: a cache folder of their own, the tree's root, and the real models.

Real models lie in `$IRC_MODELS`, else in `shared/models` inside or beside the checkout.  A test
that wants one and finds none skips with that reason; the summary counts every skip.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Machines are shared and noisy, and a red run should be red again: no deadline, no chance.
hypothesis.settings.register_profile("irc", deadline=None, derandomize=True)
hypothesis.settings.load_profile("irc")

ROOT = Path(__file__).resolve().parent.parent
_own_cache: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """One fresh cache folder per run: nothing compiled by an earlier version is found again."""
    if not hasattr(config, "workerinput"):  # the controller; xdist workers inherit its environment
        _own_cache.append(tempfile.mkdtemp(prefix="irc-test-cache-"))
        os.environ["IRC_CACHE_DIR"] = _own_cache[0]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache folder."""
    for folder in _own_cache:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The number of skips, also when it is zero; the reasons stand above it."""
    skipped = len(terminalreporter.stats.get("skipped", ()))
    terminalreporter.write_line(f"skipped tests: {skipped}")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the package, which is the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_model() -> Callable[[str], Path]:
    """`shared_model("mnist")` is the path of mnist.onnx; skips where the models are not."""
    chosen = os.environ.get("IRC_MODELS")
    folders = [Path(chosen)] if chosen else [ROOT / "shared/models", ROOT.parent / "shared/models"]

    def find(name: str) -> Path:
        for folder in folders:
            if (path := folder / f"{name}.onnx").exists():
                return path
        pytest.skip(f"no {name}.onnx: set IRC_MODELS to the folder of the real models")

    return find
