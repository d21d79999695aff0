"""The core: use lists, blocks, op classes and their fields, builders, copies, blobs."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from irc.ir.blobs import Blob
from irc.ir.core import (
    OPS,
    Block,
    Builder,
    Float,
    Int,
    Loc,
    Op,
    attr,
    freeze,
    operand,
    optional,
    region,
    variadic,
)
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.ops.elementwise import Add, Mul
from irc.ir.types import BufferType, TensorType, Type, f32, i64, parse_type

V4 = TensorType(f32, (4,))


class Fielded(Op, name="test.fielded"):
    """Every kind of field."""

    x = operand(Float)
    y = optional(Int)
    rest = variadic()
    size = attr(int)
    where = attr(tuple, ())
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return (self.x.type,)


class Narrow(Fielded, name="test.narrow"):
    """Overrides a field of its base, which keeps its place."""

    x = operand(Int)


def values(*types: Type) -> tuple[Any, ...]:
    return Block(types).args


def test_fields_read_their_part_of_an_op() -> None:
    x, n, a, b = values(V4, TensorType(i64, ()), V4, V4)
    op = Fielded(x, n, a, b, size=3, regions=[Block()])
    assert (op.x, op.y, op.rest) == (x, n, (a, b))
    assert (op.size, op.where) == (3, ())
    assert op.body is op.regions[0] and op.body.parent is op
    assert Fielded(x, size=1, regions=[Block()]).y is None
    assert Fielded(x, None, a, size=1, regions=[Block()]).rest == (a,)
    assert [f.name for f in Fielded.spec.operands] == ["x", "y", "rest"]
    assert [f.name for f in Narrow.spec.operands] == ["x", "y", "rest"]
    assert [f.name for f in Fielded.spec.attrs] == ["size", "where"]
    assert "test.fielded" in op.place() and not hasattr(op, "__dict__")


def test_wrong_fields_are_errors() -> None:
    (x,) = values(V4)
    for wrong, code in [({}, "E0210"), ({"size": 1, "sise": 2}, "E0210")]:
        with pytest.raises(Error, match=code):
            Fielded(x, regions=[Block()], **wrong)
    with pytest.raises(Error, match="E0301"):
        Add(x)
    with pytest.raises(Error, match="E0302"):
        Add(*values(parse_type("bool[2]")) * 2)


def test_attributes_are_frozen() -> None:
    assert freeze([1, [np.int64(2), (3.0,)]]) == (1, (2, (3.0,)))
    assert type(freeze(np.float32(1))) is float
    op = Fielded(*values(V4), size=1, where=[[1]], regions=[Block()])
    assert op.where == ((1,),)
    op.set_attr("where", [2])
    assert op.where == (2,) and op.size == 1


def test_use_lists_follow_every_change() -> None:
    x, y, z = values(V4, V4, V4)
    assert x.users == ()
    a = Add(x, y)
    assert x.users == (a,) and x.uses is a
    b = Mul(x, x)
    assert x.users == (a, b)
    b.set_operands([x, z])
    assert x.users == (a, b) and z.users == (b,)
    x.replace_by(z)
    assert x.users == () and z.users == (b, a) and b.operands == (z, z)
    block = Block()
    block.append(a)
    block.append(b)
    b.erase()
    assert z.users == (a,) and len(block) == 1 and b.block is None


def test_blocks_are_linked_lists() -> None:
    block = Block()
    ops = [Add(*values(V4, V4)) for _ in range(4)]
    block.append(ops[1])
    block.insert_before(ops[0], ops[1])
    block.append(ops[3])
    block.insert_before(ops[2], ops[3])
    assert list(block) == ops and len(block) == 4
    assert (block.first, block.last) == (ops[0], ops[3])
    for op in (ops[1], ops[0], ops[3]):
        block.remove(op)
    assert list(block) == [ops[2]] and block.first is block.last is ops[2]
    assert ops[2].prev is ops[2].next is None
    for op in block:  # an op may go while the block is walked
        block.remove(op)
    assert block.first is block.last is None and len(block) == 0


def test_builders_insert_and_pass_locations_on() -> None:
    func = Func.make("f", [V4], ["x"])
    b = Builder(func.body, loc=Loc("a"))
    total = b.add(func.args[0], func.args[0])
    last = b.emit(Return, total)
    assert last == ()
    before = Builder(func.body, func.body.last, Loc("b"))
    product = before.mul(total, total)
    assert [op.name for op in func.body] == ["add", "mul", "return"]
    assert [str(op.loc) for op in func.body] == ["a", "b", "a"]
    assert product.op is not None and before.at(func.body).loc == Loc("b")
    with pytest.raises(AttributeError, match="no operation"):
        b.no_such_operation(total)
    assert b.return_(total) == () and b.alloc(type=BufferType(f32, (4,))).type.space == "heap"


def test_copies_are_deep_and_keep_names() -> None:
    func = Func.make("f", [V4], ["x"])
    b = Builder(func.body)
    s = b.add(func.args[0], func.args[0])
    s.name = "sum"
    b.emit(Return, s)
    module = Module.make([func])
    copied = module.clone()
    (again,) = copied.funcs
    assert again is not func and again.args[0].name == "x"
    assert again.returned[0].name == "sum" and again.returned[0] is not s
    assert s.users == (func.body.last,)
    assert again.parent_op is copied


def test_modules_find_functions() -> None:
    module = Module.make([Func.make("main", []), Func.make("k", [], kind="kernel")])
    assert module.main.sym == "main" and module.func("k").kind == "kernel"
    with pytest.raises(Error, match="@main, @k"):
        module.func("z")


def test_inference_is_remembered() -> None:
    calls = []

    class Counting(Op, name="test.counting"):
        x = operand()
        k = attr(int, 0)

        @staticmethod
        def infer(x: Type, k: int) -> Type:
            calls.append(k)
            return x

    (x,) = values(V4)
    for k in (1, 1, 2):
        Counting(x, k=k)
    assert calls == [1, 2]
    assert OPS["test.counting"] is Counting


def test_walk_goes_into_regions_in_order() -> None:
    inner = Block()
    inner.append(Const(1.0, f32))
    outer = Fielded(*values(V4), size=1, regions=[inner])
    assert [op.name for op in outer.walk()] == ["test.fielded", "const"]
    assert inner.first is not None and inner.first.parent_op is outer


def test_blobs_compare_by_content() -> None:
    a, b = Blob(np.arange(4)), Blob(np.arange(4))
    assert a == b and hash(a) == hash(b) and a.digest == b.digest
    assert a != Blob(np.arange(4, dtype=np.int32)) and a != Blob(np.arange(1, 5)) and a != 4
    reads = []

    def load() -> np.ndarray:
        reads.append(1)
        return np.zeros(4, np.float32)

    lazy, same = [Blob(None, V4, load, key=("file", 0, 16)) for _ in range(2)]
    assert lazy == same and not reads
    assert lazy.nbytes == 16 and lazy.dtype is f32 and not reads
    assert lazy.array.sum() == 0 and lazy.array is lazy.array and reads == [1]
    with pytest.raises(ValueError, match="read-only"):
        lazy.array[0] = 1


@pytest.mark.parametrize(
    "text",
    ["f32", "f32[]", "bf16[N, 2*M + 1]", "string[*]", "vec<f32, 16>", "token", "seq<opt<f32[3]>>",
     "buffer<i4[4, 4], shared, strides=[N, 1]>", "u33[0]", "f8e4m3fn[1]"],
)  # fmt: skip
def test_types_are_interned_and_printed(text: str) -> None:
    found = parse_type(text)
    assert str(found) == text and parse_type(f" {text} ") is found
    assert pickle.loads(pickle.dumps(found)) is found


def test_symbols_in_shapes() -> None:
    type_ = TensorType(f32, (sym("N"), 3))
    assert not type_.is_static and type_.rank == 2 and str(type_.size) == "3*N"
    assert BufferType(f32, (sym("N"), 3, 2)).element_strides == (6, 2, 1)
