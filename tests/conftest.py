"""What all tests share: a cache folder of their own, the text of every program, the real models.

Real models lie in `$IRC_MODELS`, else in `shared/models` inside or beside the checkout.  A test
that wants one and finds none skips with that reason; the summary counts every skip.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Machines are shared and noisy, and a red run should be red again: no deadline, no chance.
hypothesis.settings.register_profile("irc", deadline=None, derandomize=True)
hypothesis.settings.load_profile("irc")

ROOT = Path(__file__).resolve().parent.parent
_own_cache: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """One fresh cache folder per run: nothing compiled by an earlier version is found again."""
    config.addinivalue_line("markers", "damaged: makes broken IR on purpose, which no text can say")
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


LARGE_OPS, LARGE_BYTES, MOST_PROGRAMS = 2000, 4 << 20, 20


@pytest.fixture(autouse=True)
def every_program_survives_its_text(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Print and parse each module and function that the test has made (marker `damaged`: not)."""
    core = sys.modules.get("irc.ir.ops.core")
    if core is None or request.node.get_closest_marker("damaged") is not None:
        yield
        return
    made: list[Any] = []
    for cls in (core.Module, core.Func):
        begin = cls.__init__

        def noted(op: Any, *args: Any, begin: Any = begin, **kwargs: Any) -> None:
            begin(op, *args, **kwargs)
            made.append(op)

        monkeypatch.setattr(cls, "__init__", noted)
    yield
    monkeypatch.undo()
    failed = getattr(request.node, "failed_call", False)
    check = import_module("irc.ir.text").check_round_trip
    for op in made[:MOST_PROGRAMS] if not failed else ():
        if op.block is None and _is_small(op):
            check(op)


def _is_small(op: Any) -> bool:
    """Printing, parsing and hashing it take no time that matters."""
    ops = list(islice(op.walk(), LARGE_OPS))
    sizes = [getattr(value, "nbytes", 0) for inner in ops for value in inner.attrs]
    return len(ops) < LARGE_OPS and sum(sizes) < LARGE_BYTES


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note on the test whether its body failed."""
    report = yield
    item.failed_call = getattr(item, "failed_call", False) or report.failed  # type: ignore[attr-defined]
    return report


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
