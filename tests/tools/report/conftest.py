"""Collected data that several files of tests look at: a network with times, and one with loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irc.backends.targets import choose
from irc.tools.bench.models import MODELS
from irc.tools.report.collect import Settings, collect

Data = dict[str, Any]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a seeded network, by name."""
    folder = tmp_path_factory.mktemp("report")

    def file(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            path.write_bytes(MODELS[name]().SerializeToString())
        return path

    return file


@pytest.fixture(scope="session")
def demo(model_file: Callable[[str], Path]) -> Data:
    """The small convolutional network, run on one thread."""
    return collect(Settings(str(model_file("demo_cnn")), choose("cpu", 1)))


@pytest.fixture(scope="session")
def control(model_file: Callable[[str], Path]) -> Data:
    """A network with a branch and a loop, not run."""
    return collect(Settings(str(model_file("control")), choose("cpu", 1), profile=False))
