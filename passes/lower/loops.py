"""Generic to loops: a fused region becomes one kernel of plain loop nests, mechanically.

Every `generic` gives one nest (pointwise) or three (initialise accumulators, update, finish); an op
with a `loops` rule writes its own.  Values inside the region become allocs; nothing is decided
here: what is inlined, tiled or kept in registers is the schedule's business. Loop variables are
called `STAGE.ITERATOR` (`s0.i0`), with `STAGE.init.` and `STAGE.fin.` before the iterators of the
first and third nest; accumulators are labelled `STAGE.acc0`, other values `STAGE.t0`. May import:
ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir.blobs import Blob
from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import DimLike, Range, nonneg, substitute, sym, symbols_of
from ...ir.errors import UnsupportedError
from ...ir.ops.core import Const, Func, Fused, Generic, Return, Yield
from ...ir.ops.loop import Alloc, Bind, For, IndexValue, Load, Store
from ...ir.symbols import rename_bind, rename_loop
from ...ir.types import BufferType, TensorType, i64


def buffer_of(type: TensorType, space: str = "heap") -> BufferType:
    """The dense buffer that holds a tensor."""
    return BufferType(type.dtype, type.shape, space)


def lower_fused(fused: Fused, sym_name: str) -> Func:
    """The kernel of a fused region: buffers for its operands, then for its results."""
    region = fused.body
    assert isinstance(region.last, Yield)
    outs = region.last.operands
    types = [buffer_of(v.tensor) for v in (*fused.operands, *fused.results)]
    names = [f"in{k}" for k in range(len(fused.operands))] + [f"out{k}" for k in range(len(outs))]
    kernel = Func.make(sym_name, types, names, kind="kernel")
    kernel.loc = fused.loc
    lowering = _Lowering(kernel)
    lowering.env.update(zip(region.args, kernel.args, strict=False))
    given = kernel.args[len(fused.operands) :]
    for value, buffer in zip(outs, given, strict=True):
        if value.op is not None and value not in lowering.homes:
            lowering.homes[value] = buffer
    for op in region:
        if op is not region.last:
            lowering.op(op)
    for value, buffer in zip(outs, given, strict=True):
        if lowering.env[value] is not buffer:
            lowering.copy(lowering.env[value], buffer)
    lowering.b.emit(Return)
    return kernel


class _Lowering:
    """While one region is lowered: where each tensor value lives, and the next stage number."""

    def __init__(self, kernel: Func) -> None:
        self.kernel = kernel
        self.b = Builder(kernel.body)
        self.env: dict[Value, Value] = {}
        self.homes: dict[Value, Value] = {}
        self.stage = 0

    def home(self, value: Value, label: str) -> Value:
        """The buffer a value is computed into: an output, or a new alloc."""
        buffer = self.homes.get(value)
        if buffer is None:
            buffer = self.b.emit(Alloc, label=label, type=buffer_of(value.tensor))
            buffer.name = label
        self.env[value] = buffer
        return buffer

    def op(self, op: Op) -> None:
        """Lower one op of the region."""
        name = f"s{self.stage}"
        self.stage += 1
        self.b.loc = op.loc
        if isinstance(op, Generic):
            outs = [self.home(r, f"{name}.t{k}") for k, r in enumerate(op.results)]
            lower_generic(self.b, op, [self.env[v] for v in op.operands], outs, name)
        elif isinstance(op, Const):
            self.constant(op, name)
        elif hasattr(op, "loops"):
            outs = [self.home(r, f"{name}.t{k}") for k, r in enumerate(op.results)]
            before = self.kernel.body.last
            op.loops(self.b, [self.env[v] for v in op.operands], outs)
            _prefix_loops(self.kernel.body, before, name)
        else:
            raise UnsupportedError(
                "E0401",
                f"'{op.name}' has no loops",
                where=op.loc,
                hint="decompose it before lowering",
            )

    def constant(self, op: Const, name: str) -> None:
        """A constant inside a region: a single element (bigger ones are operands)."""
        buffer = self.home(op.result, f"{name}.t0")
        assert isinstance(op.value, Blob) and op.value.array.size == 1, (
            "large constants are operands of a region"
        )
        element = op.value.array.reshape(()).item()
        scalar = self.b.insert(Const(element, op.result.tensor.dtype)).result
        self.b.emit(Store, scalar, buffer, index=(0,) * buffer.buffer.rank)

    def copy(self, source: Value, target: Value) -> None:
        """A nest that copies a whole buffer."""
        name = f"s{self.stage}"
        self.stage += 1
        its = [(f"{name}.i{k}", e) for k, e in enumerate(source.buffer.shape)]
        inner = nest(self.b, its)
        index = [sym(n) for n, _ in its]
        inner.emit(Store, inner.emit(Load, source, index=index), target, index=index)


def nest(b: Builder, its: Sequence[tuple[str, DimLike]], reductions: Sequence[str] = ()) -> Builder:
    """Loops over (name, extent), outermost first; gives a builder inside the innermost."""
    for name, extent in its:
        loop = b.insert(For.make(name, extent, reduction=name in reductions))
        b = Builder(loop.body, loc=b.loc)
    return b


def lower_generic(
    b: Builder, op: Generic, ins: Sequence[Value], outs: Sequence[Value], stage: str
) -> None:
    """The nests of one generic, reading the buffers `ins` and writing `outs`."""
    if not op.reduction:
        its = [(f"{stage}.{n}", e) for n, e in op.parallel]
        inner = nest(b, its)
        scope = _Scope(op, stage, {n: sym(f"{stage}.{n}") for n, _ in op.parallel}, dict(its))
        for value, out, index in zip(scope.body(inner, ins), outs, op.out_maps, strict=True):
            inner.emit(Store, value, out, index=scope.index(index))
        return
    _lower_reduction(b, op, ins, outs, stage)


def _lower_reduction(
    b: Builder, op: Generic, ins: Sequence[Value], outs: Sequence[Value], stage: str
) -> None:
    """Initialise, update and finish: accumulators have the parallel iterators' shape."""
    shape = tuple([e for _, e in op.parallel])
    accs = []
    for k, dtype in enumerate(op.acc_types):
        acc = b.emit(Alloc, label=f"{stage}.acc{k}", type=BufferType(dtype, shape))
        acc.name = f"{stage}.acc{k}"
        accs.append(acc)

    def scope(
        infix: str, iterators: Sequence[tuple[str, DimLike]]
    ) -> tuple[_Scope, list[tuple[str, DimLike]]]:
        its = [(f"{stage}.{infix}{n}", e) for n, e in iterators]
        names: dict[str, DimLike] = {
            n: sym(full) for (n, _), (full, _) in zip(iterators, its, strict=True)
        }
        return _Scope(op, stage, names, dict(its)), its

    _, its = scope("init.", op.parallel)
    inner = nest(b, its)
    at = [sym(n) for n, _ in its]
    for acc, value, dtype in zip(accs, op.init, op.acc_types, strict=True):
        inner.emit(Store, inner.insert(Const(value, dtype)).result, acc, index=at)

    update, its = scope("", [*op.parallel, *op.reduction])
    inner = nest(b, its, [f"{stage}.{n}" for n, _ in op.reduction])
    at = [sym(f"{stage}.{n}") for n, _ in op.parallel]
    gives = update.body(inner, ins)
    old = [inner.emit(Load, acc, index=at) for acc in accs]
    for acc, value in zip(accs, _inline(inner, op.combine, [*old, *gives], {}), strict=True):
        inner.emit(Store, value, acc, index=at)

    last, its = scope("fin.", op.parallel)
    inner = nest(b, its)
    at = [sym(n) for n, _ in its]
    done = _inline(inner, op.finish, [inner.emit(Load, acc, index=at) for acc in accs], last.names)
    for value, out, index in zip(done, outs, op.out_maps, strict=True):
        inner.emit(Store, value, out, index=last.index(index))


class _Scope:
    """Names of one nest: maps the generic's iterators (and gathered indices) to loop symbols."""

    def __init__(
        self, op: Generic, stage: str, names: dict[str, DimLike], extents: Mapping[str, DimLike]
    ) -> None:
        self.op, self.stage, self.names = op, stage, names
        self.ranges: dict[str, Range] = {n: (0, e - 1) for n, e in extents.items()}

    def index(self, exprs: Sequence[DimLike]) -> tuple[DimLike, ...]:
        return tuple([substitute(e, self.names) for e in exprs])

    def body(self, b: Builder, ins: Sequence[Value]) -> list[Value]:
        """Load every operand and inline the scalar body; gives what it yields."""
        op = self.op
        args: list[Value | None] = []
        needs_value = [not a.users for a in op.body.args]
        for k, buffer in enumerate(ins):
            gathered = self.gathered_extent(k)
            unused = needs_value[k] and gathered is None
            args.append(None if unused else self.load(b, k, buffer))
            if gathered is not None:
                value = args[k]
                assert value is not None
                symbol = f"{self.stage}._v{k}"
                wide = value if value.type is i64 else b.cast(value, to=i64)
                b.emit(Bind, wide, symbol=symbol, extent=gathered)
                self.names[f"_v{k}"] = sym(symbol)
                self.ranges[symbol] = (0, gathered - 1)
        return _inline(b, op.body, args, self.names)

    def gathered_extent(self, k: int) -> DimLike | None:
        """The extent of the dimension that operand k's value indexes; None if it has none."""
        name = f"_v{k}"
        for j, exprs in enumerate(self.op.maps):
            for d, e in enumerate(exprs):
                if name in symbols_of(e):
                    return self.op.operands[j].tensor.shape[d]
        return None

    def load(self, b: Builder, k: int, buffer: Value) -> Value:
        """Load operand k, guarded by what cannot be proved."""
        op = self.op
        index = self.index(op.maps[k])
        fill = op.fills[k] if op.fills else None
        where: tuple[DimLike, ...] = ()
        if fill is not None:
            wanted = list(self.index(op.where[k])) if op.where else []
            for e, extent in zip(index, buffer.buffer.shape, strict=True):
                wanted += [e, extent - 1 - e]
            where = tuple([e for e in wanted if nonneg(e, self.ranges) is not True])
        value: Value = b.emit(Load, buffer, index=index, where=where, fill=fill if where else None)
        return value


def _inline(
    b: Builder, block: Block, args: Sequence[Value | None], names: Mapping[str, DimLike]
) -> list[Value]:
    """Copy a scalar region's ops to the builder; index expressions are renamed."""
    env: dict[Value, Value] = {a: v for a, v in zip(block.args, args, strict=True) if v is not None}
    for op in block:
        if op is block.last:
            break
        made = op.copy(env)
        if isinstance(made, IndexValue):
            made.set_attr("value", substitute(made.value, names))
        b.insert(made)
    assert block.last is not None
    return [env.get(v, v) for v in block.last.operands]


def _prefix_loops(block: Block, after: Op | None, stage: str) -> None:
    """Give the loops and symbols that an op's own rule made unique names."""
    op = after.next if after is not None else block.first
    while op is not None:
        for inner in op.walk():
            if isinstance(inner, For):
                rename_loop(inner, f"{stage}.{inner.var}")
            elif isinstance(inner, Bind):
                rename_bind(inner, f"{stage}.{inner.symbol}")
        op = op.next


__all__ = ["buffer_of", "lower_fused", "lower_generic", "nest"]
