"""Everything that runs was loops: what emitters may see, and how much one `call_instr` may do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Builder, Op, Value
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.ops.elementwise import _Elementwise
from irc.ir.ops.instr import instr, instructions
from irc.ir.types import TensorType, f32
from irc.passes.pipeline import compile_module

ROOT = Path(__file__).resolve().parent.parent
EMITTERS = [*(ROOT / "backends" / "llvm").glob("emit*.py"), *(ROOT / "backends" / "c").glob("*.py"),
            *(ROOT / "backends" / "hls").glob("*.py")]  # fmt: skip
SEEN_BY_EMITTERS = {"core", "loop", "instr"}
STRUCTURE = {"const", "return", "yield"}


def families(tree: ast.AST) -> set[str]:
    """The op families that a module imports from `ir.ops`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("ir.ops"):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and ".ops." in f"{node.module}.":
            found.add((node.module or "").rsplit(".", 1)[1])
    return found


@pytest.mark.parametrize("path", EMITTERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_emitters_know_no_tensor_op(path: Path) -> None:
    assert families(ast.parse(path.read_text())) <= SEEN_BY_EMITTERS


def test_a_tensor_op_in_an_emitter_is_found() -> None:
    assert families(ast.parse("from ...ir.ops.conv import Conv")) == {"conv"}
    assert families(ast.parse("from ...ir.ops import matmul")) == {"matmul"}


@pytest.mark.parametrize("name", sorted(instructions()))
def test_an_instruction_is_one_instruction(name: str) -> None:
    """Its LLVM form calls one intrinsic, besides converting its operands; its meaning is loops."""
    found = instr(name)
    template = dict(found.emit).get("llvm", "")
    lines = [line for line in template.splitlines() if not line.startswith("declare")]
    calls = [line for line in lines if re.search(r"\bcall\b", line)]
    assert len(calls) <= 1
    assert not any(re.search(r"\b(br|switch|phi)\b", line) for line in lines)
    assert any(op.name == "loop.store" for op in found.body.walk())


def test_kernels_are_loops_and_scalars() -> None:
    """A kernel holds kernel-level ops, and arithmetic on scalars and vectors only."""
    func = Func.make("main", [TensorType(f32, (1, 3, 12, 12))], ["x"])
    b = Builder(func.body)
    value = b.relu(b.conv(func.args[0], _constant(b, (16, 3, 3, 3)), pads=(1, 1, 1, 1)))
    value = b.reshape(b.max_pool(value, kernel=(2, 2), strides=(2, 2)), shape=(1, 576))
    b.emit(Return, b.softmax(b.matmul(value, _constant(b, (576, 10))), axis=-1))
    planned = compile_module(Module.make([func]), cpu_target(1)).planned
    assert planned is not None and planned.kernels
    called = {op.attributes["callee"] for op in planned.func.walk() if op.name == "loop.call"}
    assert called == {kernel.sym for kernel in planned.kernels}
    for kernel in planned.kernels:
        for op in kernel.body.walk():
            assert op.name.startswith("loop.") or op.name in STRUCTURE or elementwise(op)
            assert not any(isinstance(v.type, TensorType) for v in (*op.operands, *op.results))


def elementwise(op: Op) -> bool:
    """Is it one of the ops that work on scalars as on tensors?"""
    return issubclass(OPS[op.name], _Elementwise)


def _constant(b: Builder, shape: tuple[int, ...]) -> Value:
    return b.insert(Const(np.full(shape, 0.01, np.float32))).result
