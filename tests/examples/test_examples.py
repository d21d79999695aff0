"""The programs of examples/ in a short form: they run, and what they train gets better."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def needs_scikit_learn(request: pytest.FixtureRequest) -> None:
    if "char_gpt" not in request.node.name:
        pytest.importorskip("sklearn")


def test_digits_cnn() -> None:
    trainer, found = load("digits_cnn").fit(epochs=4, rows=640)
    assert found["accuracy"] > 0.85 and len(trainer.history["loss"]) == 4


def test_char_gpt() -> None:
    """From 8 bits to less than 5 in a few steps."""
    said: list[str] = []
    assert load("char_gpt").fit(steps=25, say=said.append) < 5.2
    assert said[0].startswith("step 0")


def test_tabular() -> None:
    pytest.importorskip("pandas")
    found = load("tabular").fit(epochs=12)
    assert found["accuracy"] > 0.9 and found["auc"] > 0.95


def test_vae() -> None:
    history = load("vae").fit(epochs=3, rows=600)
    assert history[-1] < history[0] - 4


def test_transfer() -> None:
    assert load("transfer").fit(epochs=8, pretraining=2) > 0.7


def test_each_is_a_program() -> None:
    for file in sorted(EXAMPLES.glob("*.py")):
        said = subprocess.run([sys.executable, file, "--help"], capture_output=True, text=True)
        assert said.returncode == 0 and "usage:" in said.stdout, said.stderr


def test_each_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {file.stem for file in EXAMPLES.glob("*.py")} <= tested
