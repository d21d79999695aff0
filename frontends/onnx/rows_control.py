"""Import rows of control flow: If, Loop, Scan.  Their inner graphs see the names of outer ones.

An If whose condition is known imports one branch only.  A Loop whose condition is always true is a
`for` (or a `scan`, where it stacks results), any other a `while`.  Imports: node, graph items, ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.core import Block, Builder, Value
from ...ir.dims import Dim, DimLike
from ...ir.ops.control import ForLoop, If, Scan, While
from ...ir.ops.core import Yield
from ...ir.ops.elementwise import constant
from ...ir.types import TensorType, boolean, i64
from .item import Item, item_of
from .node import Node, Result, Row

FLAG, COUNT = TensorType(boolean, ()), TensorType(i64, ())


def _yield(b: Builder, values: Sequence[Value]) -> Block:
    b.emit(Yield, *values)
    return b.block


def if_(n: Node) -> Any:
    """Both branches, or the one that a known condition chooses."""
    condition = n.known(0)
    branches = [n.required("then_branch"), n.required("else_branch")]
    if condition is not None:
        chosen = branches[0 if bool(condition.reshape(-1)[0]) else 1]
        return n.graph.region(chosen, n.b, (), n.place())
    blocks, types = [], []
    for branch in branches:
        b = Builder(Block(), loc=n.b.loc)
        items = n.graph.region(branch, b, (), n.place())
        types.append([str(i.type) for i in items])
        blocks.append(_yield(b, [i.value for i in items]))
    if types[0] != types[1]:
        raise n.unsupported("the branches of If give different types",
                            f"then: {', '.join(types[0])}", f"else: {', '.join(types[1])}",
                            hint="known extents (shapes=) may decide the condition")  # fmt: skip
    flag = n.reshape(n.cast(n.x(0), boolean), ())
    return n.b.insert(If(flag, regions=blocks, loc=n.b.loc)).results


# ---- Loop


def loop(n: Node) -> Any:
    """M, condition and carried values in; last carried values and stacked results out."""
    body = n.required("body")
    inits = [n.item(k) for k in range(2, len(n))]
    stacked = len(body.output) - 1 - len(inits)
    if stacked < 0 or len(body.input) != 2 + len(inits):
        raise n.invalid("E0115", "Loop: its body does not fit the carried values")
    trip = _trip(n)
    endless = _true(n.known(1)) if n.has(1) else True
    if trip is not None and endless and _always_true(body):
        return _counted(n, body, inits, trip, stacked)
    if stacked:
        raise n.unsupported("Loop: stacked results need a known number of steps")
    return _while(n, body, inits)


def _trip(n: Node) -> DimLike | Value | None:
    """The maximal number of steps: a dim where known, else a value; None where there is none."""
    if not n.has(0):
        return None
    known = n.known(0)
    if known is not None:
        found = known.reshape(-1)[0]
        return found if isinstance(found, Dim) else max(0, int(found))
    return n.reshape(n.x(0), ())


def _true(known: Any) -> bool:
    return known is not None and bool(known.reshape(-1)[0])


def _always_true(body: Any) -> bool:
    """The condition that the body gives is the one it gets, or constant true."""
    makers = {o: node for node in body.node for o in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    tensors = [t for t in body.initializer if t.name == name]
    if name in makers and makers[name].op_type == "Constant":
        tensors = [a.t for a in makers[name].attribute if a.name == "value"]
    return any(bool(t.raw_data.strip(b"\0") or any(t.int32_data)) for t in tensors)


def _unified(n: Node, items: Sequence[Item], types: Sequence[TensorType]) -> list[Value]:
    """The values of items that must have these types."""
    for item, want in zip(items, types):
        if item.type is not want:
            raise n.unsupported(f"{n.op}: a carried value changes its type",
                                f"it starts as {want}", f"a step gives {item.type}")  # fmt: skip
    return [item.value for item in items]


def _step(
    n: Node, body: Any, b: Builder, index: Value, flag: Item, carried: Sequence[Value]
) -> list[Item]:
    """Import the body for one step: condition, carried values, stacked values."""
    own = [_declared(b, item, v) for item, v in zip((item_of(index, b), flag), body.input)]
    return n.graph.region(body, b, [*own, *[item_of(v, b) for v in carried]], n.place())


def _declared(b: Builder, item: Item, declared: Any) -> Item:
    """Index and condition may be declared as vectors of one element."""
    if item.made is None or len(declared.type.tensor_type.shape.dim) != 1:
        return item
    return item_of(b.reshape(item.made, shape=(1,)), b)


def _counted(n: Node, body: Any, inits: Sequence[Item], trip: DimLike | Value, stacked: int) -> Any:
    types = [i.type for i in inits]
    block = Block([COUNT, *types])
    b = Builder(block, loc=n.b.loc)
    yes = Item(FLAG, b, elements=np.array(True))
    index, *carried = block.args
    _, *given = _step(n, body, b, index, yes, carried)
    values = _unified(n, given, types)
    starts = [i.value for i in inits]
    if not stacked:
        _yield(b, values)
        count = trip if isinstance(trip, Value) else None
        static = None if count is not None else trip
        made = ForLoop(count, *starts, trip=static, regions=[block], loc=n.b.loc)  # type: ignore[arg-type]
        return n.b.insert(made).results
    if isinstance(trip, Value):
        raise n.unsupported("Loop: stacked results need a known number of steps")
    following = b.add(index, constant(b, index, 1))
    _yield(b, [following, *values, *[i.value for i in given[len(types) :]]])
    first = n.const(0, i64)
    made_scan = Scan(
        first, *starts, carried=1 + len(starts), length=trip, regions=[block], loc=n.b.loc
    )
    return n.b.insert(made_scan).results[1:]


def _while(n: Node, body: Any, inits: Sequence[Item]) -> Any:
    """Index and condition are carried in front of the loop's own values."""
    types = [COUNT, FLAG, *[i.type for i in inits]]
    flag = n.reshape(n.x(1), ()) if n.has(1) else n.const(True, boolean)
    before, block = Block(types), Block(types)
    test = Builder(before, loc=n.b.loc)
    go: Value = before.args[1]
    bound = _trip(n)
    if isinstance(bound, Value):
        go = test.logical_and(go, test.lt(before.args[0], bound))
    _yield(test, [go])
    b = Builder(block, loc=n.b.loc)
    index, again, *carried = block.args
    found, *given = _step(n, body, b, index, item_of(again, b), carried)
    values = _unified(n, given, types[2:])
    go_on = found.value
    go_on = go_on if not go_on.tensor.rank else b.reshape(go_on, shape=())
    following = b.add(index, constant(b, index, 1))
    _yield(b, [following, go_on, *values])
    starts = [n.const(0, i64), flag, *[i.value for i in inits]]
    made = While(*starts, max_trip=bound if not isinstance(bound, Value) else None,
                 regions=[before, block], loc=n.b.loc)  # fmt: skip
    return n.b.insert(made).results[2:]


# ---- Scan


def scan(n: Node) -> Result:
    """Scanned axes move to the front; a reversed value is mirrored before or after."""
    body, count = n.required("body"), n.required("num_scan_inputs")
    first = 1 if n.version < 9 else 0  # opset 8 has the lengths of the sequences in front
    carried = len(n) - first - count
    outputs = len(body.output) - carried
    if carried < 0 or outputs < 0 or len(body.input) != carried + count:
        raise n.invalid("E0115", "Scan: its body does not fit the operands")
    if first:
        return _batched(n, body, carried)
    ways, axes = n.ints("scan_input_directions") or (), n.ints("scan_input_axes") or ()
    scanned = []
    for k in range(count):
        x = n.x(carried + k)
        axis = n.axis(axes[k] if k < len(axes) else 0, x.tensor.rank)
        x = n.transpose(x, [axis, *[d for d in range(x.tensor.rank) if d != axis]])
        scanned.append(mirrored(n, x) if k < len(ways) and ways[k] else x)
    out = _scanned(n, body, [n.x(k) for k in range(carried)], scanned)
    ways, axes = n.ints("scan_output_directions") or (), n.ints("scan_output_axes") or ()
    for k in range(outputs):
        y = out[carried + k]
        y = mirrored(n, y) if k < len(ways) and ways[k] else y
        axis = n.axis(axes[k] if k < len(axes) else 0, y.tensor.rank)
        order = [*range(1, axis + 1), 0, *range(axis + 1, y.tensor.rank)]
        out[carried + k] = n.transpose(y, order)
    return out


def _scanned(n: Node, body: Any, starts: Sequence[Value], scanned: Sequence[Value]) -> list[Value]:
    """The results of a scan along axis 0."""
    types = [v.tensor for v in starts]
    slices = [TensorType(v.tensor.dtype, v.tensor.shape[1:]) for v in scanned]
    block = Block([*types, *slices])
    b = Builder(block, loc=n.b.loc)
    given = n.graph.region(body, b, [item_of(v, b) for v in block.args], n.place())
    _unified(n, given[: len(starts)], types)
    _yield(b, [i.value for i in given])
    made = Scan(*starts, *scanned, carried=len(starts), regions=[block], loc=n.b.loc)
    return list(n.b.insert(made).results)


def _batched(n: Node, body: Any, carried: int) -> Result:
    """Opset 8: axis 0 of everything is the batch, axis 1 the sequence; one scan per sample."""
    batch = n.shape(1)[0]
    if n.has(0) or type(batch) is not int or not 1 <= batch <= 64:
        raise n.unsupported("Scan of opset 8 needs a known batch of 1 to 64, without lengths")
    ways = n.ints("directions") or ()
    samples = []
    for at in range(batch):
        xs = [_sample(n, n.x(k), at) for k in range(1, len(n))]
        scanned = [
            mirrored(n, x) if k < len(ways) and ways[k] else x for k, x in enumerate(xs[carried:])
        ]
        found = _scanned(n, body, xs[:carried], scanned)
        samples.append([n.reshape(y, (1, *y.tensor.shape)) for y in found])
    if batch == 1:
        return samples[0]
    return [n.b.concat(*parts, axis=0) for parts in zip(*samples)]


def _sample(n: Node, x: Value, at: int) -> Value:
    return n.reshape(n.take_range(x, 0, at, 1), x.tensor.shape[1:])


def mirrored(n: Node, x: Value) -> Value:
    """x from the last element of axis 0 to the first."""
    extent = x.tensor.shape[0]
    return n.take_range(x, 0, extent - 1, extent, -1)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("If", 1, if_),
    ("Loop", 1, loop),
    ("Scan", 8, scan),
)
