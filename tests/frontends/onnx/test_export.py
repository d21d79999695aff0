"""Export: every op's samples go out and come back the same; names, dims, weights, opsets, errors."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
import irc.ir.ops  # noqa: F401  registers every op
from irc.frontends.onnx import census, export_onnx, load
from irc.frontends.onnx import export as export_module
from irc.frontends.onnx.export import NEWEST, OLDEST, TABLE, model_of
from irc.ir.blobs import Blob
from irc.ir.core import OPS, Builder, Value
from irc.ir.dims import sym
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.parse import parse
from irc.ir.types import DType, TensorType, f16, f32, i64
from irc.ir.verify import verify

REFUSED = {
    "pack", "unpack", "philox_bits", "philox_next", "random_normal", "random_uniform", "requantize",
    "resample",
}  # fmt: skip
"""Ops that ONNX cannot say: layouts and integer kernels of ours, and our random numbers."""
UNSAID = {
    ("cast", 82), ("pad", 4), ("quantize", 5), ("dequantize", 5), ("max_unpool", 1),
    ("max_unpool", 2),
}  # fmt: skip
"""Samples beyond ONNX: casts of complex numbers, mirror images of mirror images, f64 scales, unpools
without spatial axes.
"""
STRUCTURE = {"const", "func", "fused", "generic", "launch", "module", "return", "yield"}
N, T = sym("N"), sym("T")


def _matrix() -> Any:
    """The tests of every op, whose operands these are as well."""
    path = Path(__file__).parents[2] / "ir" / "ops" / "test_ops.py"
    spec = importlib.util.spec_from_file_location("op_matrix", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATRIX = _matrix()


def made(types: Sequence[Any], build: Callable[..., Any], outputs: Sequence[str] = ()) -> Module:
    """A module of one function; `build(b, *args)` gives its result or results."""
    names = [f"x{k}" for k in range(len(types))]
    func = Func.make("main", types, names, outputs=outputs)
    b = Builder(func.body)
    found = build(b, *func.args)
    b.emit(Return, *(found if isinstance(found, (tuple, list)) else (found,)))
    module = Module.make([func])
    verify(module)
    return module


def there_and_back(module: Module, inputs: Sequence[Any], opset: int | None = None) -> Any:
    """Run a module and what its export imports to; compare; the message."""
    proto = model_of(module, opset)
    again = load(proto)
    verify(again)
    want, got = run(module.main, list(inputs)), run(again.main, list(inputs))
    for x, y in zip(want, got, strict=True):
        wide = np.complex128 if x.dtype.kind == "c" else np.float64
        assert x.dtype == y.dtype and x.shape == y.shape
        close = 2e-2 if x.dtype.itemsize < 4 and x.dtype.kind not in "iub" else 2e-5
        np.testing.assert_allclose(y.astype(wide), x.astype(wide), rtol=close, atol=close)
    return proto


def nodes(proto: Any) -> Counter[str]:
    """Nodes of the main graph by type."""
    return Counter(node.op_type for node in proto.graph.node)


def random(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


# ---- every op


def test_every_op_has_a_row_or_parts_or_a_reason() -> None:
    ops = {n: c for n, c in OPS.items() if not n.startswith("loop.") and n not in STRUCTURE}
    lost = {n for n, c in ops.items() if n not in TABLE and not hasattr(c, "decompose")}
    assert lost <= REFUSED, f"no export row: {sorted(lost - REFUSED)}"
    assert set(TABLE) <= set(OPS), f"rows of no op: {sorted(set(TABLE) - set(OPS))}"


def _samples() -> list[Any]:
    return [
        pytest.param(cls, at, id=f"{cls.name}-{at}")
        for cls in MATRIX.classes()
        if cls.name not in REFUSED and not cls.name.startswith(("loop.", "instr."))
        for at, sample in enumerate(cls.samples)
        if not any([sample.attrs.get(k) for k in ("channel_block", "in_block")])
    ]


@pytest.mark.parametrize(("cls", "at"), _samples())
def test_the_samples_of_every_op(cls: Any, at: int) -> None:
    sample = cls.samples[at]
    dtypes = MATRIX.operand_dtypes(cls, sample, MATRIX.claimed(cls)[0])
    func, _ = MATRIX.call(cls, sample, dtypes)
    func.set_attr("inputs", tuple([f"x{k}" for k in range(len(func.args))]))
    given = [v for v in MATRIX.operand_values(sample, dtypes) if v is not None]
    if (cls.name, at) in UNSAID:
        with pytest.raises(Error, match="E01"):
            model_of(Module.make([func]))
        return
    with np.errstate(all="ignore"):
        there_and_back(Module.make([func]), given)
