"""Small models for the tests of the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import TensorType, f32
from irc.tools.bench.models import mlp, small_cnn

TEXT = """\
func @main(%x: f32[N, 4]) -> f32[N, 4] {
  %0 = relu(%x) : f32[N, 4]
  %1 = relu(%x) : f32[N, 4]
  %2 = add(%0, %1) : f32[N, 4]
  return %2
}
"""


def two_layers() -> Module:
    """Two products with relu between: x [1, 8] to y [1, 3]."""
    rng = np.random.default_rng(5)
    func = Func.make("main", [TensorType(f32, (1, 8))], ["x"], outputs=["y"])
    b = Builder(func.body)

    def layer(x, inputs, outputs):  # type: ignore[no-untyped-def]
        w = b.insert(Const(rng.standard_normal((inputs, outputs)).astype("f4"))).result
        return b.matmul(x, w)

    b.emit(Return, layer(b.relu(layer(func.args[0], 8, 16)), 16, 3))
    return Module.make([func])


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """relu(x) + relu(x) with a symbolic extent, as .ir."""
    path = tmp_path / "small.ir"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two layers, as .irc."""
    path = tmp_path / "layers.irc"
    two_layers().save(str(path))
    return path


@pytest.fixture(scope="session")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeded ONNX files by name."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for made in (mlp, small_cnn):
        path = folder / f"{made.__name__}.onnx"
        path.write_bytes(made().SerializeToString())
        found[made.__name__] = path
    return found
