"""Sequential ops of the kernel level as Python source: loops, accesses, vectors, calls, arithmetic.

Imports: the translator, memory, the kernel-level ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from .blobs import Blob
from .core import Op
from .dims import DimLike, coefficient, substitute
from .errors import Error
from .interpret_memory import elements_of
from .interpret_translate import Level, Place, Rule, Translator
from .ops import loop
from .ops.core import Const, Func, Return, Yield
from .types import BufferType, VectorType, element

_SPEED = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}"}
"""Elementwise ops on scalars for which numpy's operators are `evaluate`, only quicker."""


def _elementwise(t: Translator, op: Op) -> None:
    """A scalar or vector op: its class's `evaluate`."""
    evaluate = getattr(type(op), "evaluate", None)
    if evaluate is None or op.regions:
        raise Error("E0521", f"'{op.name}' is no op of the kernel level", where=Op.where(op))
    args = [t.read(v) for v in op.operands]
    quick = _SPEED.get(op.name)
    if quick is not None and element(op.result.type).np.kind in "fiu":
        t.emit(f"{t.define(op.result)} = {quick.format(*args)}")
        return
    attributes = op.attributes
    call = t.constant(partial(evaluate, **attributes) if attributes else evaluate)
    t.emit(f"{''.join([t.define(r) + ', ' for r in op.results])[:-2]} = {call}({', '.join(args)})")


def _const(t: Translator, op: Const) -> None:
    type_ = op.result.type
    if isinstance(type_, BufferType):
        assert isinstance(op.value, Blob)
        t.bind(op.result, f"rt.table({t.constant(op)})")
        return
    value = np.asarray(op.value, element(type_).np)
    t.names[op.result] = t.constant(
        np.full(type_.lanes, value) if isinstance(type_, VectorType) else value[()]
    )


def _for(t: Translator, op: loop.For) -> None:
    var = t.define_symbol(op.var)
    lo, extent = t.expr(op.lo), t.expr(op.extent)
    if op.kind != "parallel":
        t.nested_loop(f"for {var} in range({lo}, {lo} + {extent}):", op.body)
        return
    level = Level("loop", t.fresh("b"), t.fresh("m"))
    t.emit(f"{level.base} = rt.stamp + 1")
    t.nest += 1
    t.emit(f"for {var} in rt.order({lo}, {extent}):")
    t.emit(f" {level.me} = rt.stamp = rt.stamp + 1")
    t.levels.append(level)
    t.block(op.body)
    t.levels.pop()
    t.nest -= 1


def _if(t: Translator, op: loop.If) -> None:
    t.emit(f"if {t.guard(op.where) or 'True'}:")
    t.block(op.body)


def _when(t: Translator, op: loop.When) -> None:
    t.emit(f"if {t.read(op.condition)}:")
    t.block(op.then)
    t.emit("else:")
    t.block(op.otherwise)


def _while(t: Translator, op: loop.While) -> None:
    var = t.define_symbol(op.var)
    t.emit(f"{var} = -1")
    t.emit("while True:")
    t.depth += 1
    t.emit(f"{var} += 1")
    t.ops(op.before)
    last = op.before.last
    assert isinstance(last, Yield)
    t.emit(f"if not {t.read(last.operands[0])}: break")
    t.ops(op.body)
    t.depth -= 1


def _alloc(t: Translator, op: loop.Alloc) -> None:
    type_ = op.type
    site = t.constant(op)
    if type_.space == "stream":
        name = t.fresh("S")
        t.emit(f"{name} = rt.stream()")
        shape = (t.expr(type_.size),)
        t.places[op.result] = Place(type_, name, shape, (), len(t.levels), False)
        t.names[op.result] = name
        return
    t.bind(op.result, f"rt.alloc({site}, {t.exprs(type_.shape)}, {t.exprs(type_.element_strides)})")


def _view(t: Translator, op: loop.View) -> None:
    base, type_ = t.place(op, op.base), op.type
    layout = f"{t.exprs(type_.shape)}, {t.exprs(type_.element_strides)}"
    window = f"rt.view({t.constant(op)}, W{base.name}, {t.expr(op.offset)}, {layout})"
    t.bind(op.result, window)
    made = t.places[op.result]
    t.places[op.result] = Place(
        made.type, made.name, made.shape, made.strides, base.depth, made.packed
    )


def _load(t: Translator, op: loop.Load) -> None:
    place = t.place(op, op.source)
    dtype = place.type.dtype
    out = t.define(op.result)
    fill = t.constant(np.asarray(0 if op.fill is None else op.fill, dtype.np)[()])
    if op.lane:
        _vector_access(t, op, place, out, fill)
        return
    if op.where:
        t.emit(f"if {t.guard(op.where)}:")
        t.depth += 1
    t.address(op, place, op.index)
    t.look(op, place)
    if place.packed:
        table, mask = t.constant(elements_of(dtype)), (1 << dtype.bits) - 1
        t.emit(f"{out} = {table}[(int(d{place.name}[h]) >> (o * {dtype.bits} % 8)) & {mask}]")
    else:
        t.emit(f"{out} = d{place.name}[o]")
    if op.where:
        t.depth -= 1
        t.emit(f"else: {out} = {fill}")


def _store(t: Translator, op: loop.Store) -> None:
    place = t.place(op, op.target)
    dtype = place.type.dtype
    if element(op.value.type) is not dtype:
        raise Error(
            "E0521", f"a {op.value.type} is stored in a buffer of {dtype}", where=Op.where(op)
        )
    value = t.read(op.value)
    if op.lane:
        _vector_access(t, op, place, value, "")
        return
    if op.where:
        t.emit(f"if {t.guard(op.where)}:")
        t.depth += 1
    t.address(op, place, op.index)
    t.touch(op, place)
    if place.packed:
        t.emit(
            f"rt.put_code(d{place.name}, o, int(rt.code_of({value}, {t.constant(dtype)})), "
            f"{dtype.bits})"
        )
    else:
        t.emit(f"d{place.name}[o] = {value}")
    if op.where:
        t.depth -= 1


def _vector_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, fill: str
) -> None:
    """A vector load or store: a slice where lanes step evenly and none is masked, else by lane."""
    moved = op.result.type if isinstance(op, loop.Load) else op.value.type
    assert isinstance(moved, VectorType)
    lanes = moved.lanes
    step = _lane_step(place, op.index, op.lane)
    ends = [
        [substitute(e, {op.lane: lane}) for lane in (0, lanes - 1)] for e in (*op.where, *op.index)
    ]
    even = all(_steps_evenly(e, op.lane) for e in op.where)
    quick = step is not None and even and not place.packed
    if quick and op.where:
        t.emit(f"if {t.guard([e for pair in ends[: len(op.where)] for e in pair])}:")
    elif quick:
        t.emit("if True:")
    if quick:
        t.depth += 1
        _slice_access(t, op, place, value, lanes, step or 0)
        t.depth -= 1
    if not quick or op.where:
        t.emit("else:" if quick else "if True:")
        t.depth += 1
        _lane_access(t, op, place, value, fill, lanes)
        t.depth -= 1


def _slice_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, lanes: int, step: int
) -> None:
    last = [substitute(e, {op.lane: lanes - 1}) for e in op.index]
    if t.check:
        tests = [f"0 <= {t.expr(e)} < {n}" for e, n in zip(last, place.shape, strict=True)]
        t.emit(
            f"if not ({' and '.join(tests)}): "
            f"rt.outside({t.constant(op)}, {t.exprs(last)}, W{place.name})"
        )
    t.address(op, place, [substitute(e, {op.lane: 0}) for e in op.index])
    n, cut = place.name, f"[o:o + {step * (lanes - 1) + 1}:{step}]"
    load = isinstance(op, loop.Load)
    if t.check:
        if load:
            t.emit(
                f"if (s{n}{cut} != p{n}).any(): "
                f"rt.undefined({t.constant(op)}, np.arange({lanes}) * {step} + o, W{n})"
            )
        else:
            t.emit(f"s{n}{cut} = p{n}")
        levels = t.shared_levels(place)
        if levels != "()":
            t.emit(
                f"rt.lanes({t.constant(op)}, W{n}, np.arange({lanes}) * {step} + o, "
                f"{levels}, {t.levels[-1].me}, {not load})"
            )
    t.emit(f"{value} = d{n}{cut}.copy()" if load else f"d{n}{cut} = {value}")


def _lane_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, fill: str, lanes: int
) -> None:
    saved = t.symbols.get(op.lane)
    t.symbols[op.lane] = t.constant(np.arange(lanes))
    index, where = t.exprs(op.index, op.lane), t.exprs(op.where, op.lane)
    if saved is None:
        del t.symbols[op.lane]
    else:
        t.symbols[op.lane] = saved
    levels = t.shared_levels(place)
    me = t.levels[-1].me if levels != "()" else "0"
    site, n = t.constant(op), place.name
    if isinstance(op, loop.Load):
        t.emit(
            f"{value} = rt.gather({site}, W{n}, {index}, {where}, {fill}, {lanes}, {levels}, {me})"
        )
    else:
        t.emit(f"rt.scatter({site}, W{n}, {index}, {where}, {value}, {lanes}, {levels}, {me})")


def _steps_evenly(e: DimLike, lane: str) -> bool:
    found = coefficient(e, lane)
    return found is not None and isinstance(found[0], int)


def _lane_step(place: Place, index: Sequence[DimLike], lane: str) -> int | None:
    """Elements from one lane to the next, where that is a known positive number."""
    total = 0
    for e, stride in zip(index, place.strides, strict=True):
        found = coefficient(e, lane)
        if found is None or not isinstance(found[0], int):
            return None
        if found[0]:
            if not stride.isdigit():
                return None
            total += found[0] * int(stride)
    return total if total > 0 else None


def _index_value(t: Translator, op: loop.IndexValue) -> None:
    out = t.define(op.result)
    kind = t.constant(op.dtype.np.type)
    if not op.lane:
        t.emit(f"{out} = {kind}({t.expr(op.value)})")
        return
    saved = t.symbols.get(op.lane)
    t.symbols[op.lane] = t.constant(np.arange(op.lanes))
    t.emit(f"{out} = np.full({op.lanes}, {t.expr(op.value, op.lane)}, {kind})")
    t.symbols.pop(op.lane)
    if saved is not None:
        t.symbols[op.lane] = saved


def _bind(t: Translator, op: loop.Bind) -> None:
    value = t.read(op.value)
    name = t.define_symbol(op.symbol)
    t.emit(f"{name} = int({value})")
    t.emit(f"if not 0 <= {name} < {t.expr(op.extent)}: rt.fail({loop.STATUS_INDEX})")


def _aligned(t: Translator, op: loop.Aligned) -> None:
    t.emit(f"{t.define(op.result)} = True")


def _fail(t: Translator, op: loop.Fail) -> None:
    t.emit(f"rt.fail({op.status})")


def _splat(t: Translator, op: loop.Splat) -> None:
    dtype = t.constant(element(op.result.type).np)
    t.emit(f"{t.define(op.result)} = np.full({op.lanes}, {t.read(op.x)}, {dtype})")


def _reduce_lanes(t: Translator, op: loop.ReduceLanes) -> None:
    t.emit(f"{t.define(op.result)} = rt.reduce_lanes({t.read(op.x)}, {op.combiner!r})")


def _transpose_lanes(t: Translator, op: loop.TransposeLanes) -> None:
    results = "".join([t.define(r) + ", " for r in op.results])
    t.emit(f"{results}= np.stack([{', '.join([t.read(v) for v in op.rows])}], axis=1)")


def _call(t: Translator, op: loop.Call | loop.HostCall) -> None:
    args = "[" + ", ".join([t.read(v) for v in op.args]) + "]"
    if isinstance(op, loop.HostCall):
        t.emit(f"rt.host_call({t.constant(op)}, {args}, {t.exprs(op.dims)})")
    else:
        t.emit(f"rt.call({t.constant(op)}, {args}, {t.exprs(op.dims)}, {t.outer_levels()})")


def _nothing(t: Translator, op: Op) -> None:
    """Terminators: what they yield is read by the op that holds them."""


PLAIN: dict[type[Op], Rule] = {
    Op: _elementwise, Const: _const, Return: _nothing, Yield: _nothing,
    loop.For: _for, loop.If: _if, loop.When: _when, loop.While: _while,
    loop.Alloc: _alloc, loop.View: _view, loop.Load: _load, loop.Store: _store,
    loop.IndexValue: _index_value, loop.Bind: _bind, loop.Fail: _fail, loop.Splat: _splat,
    loop.Prefetch: _nothing, loop.Fence: _nothing, loop.Aligned: _aligned,
    loop.ReduceLanes: _reduce_lanes, loop.TransposeLanes: _transpose_lanes,
    loop.Call: _call, loop.HostCall: _call,
}  # fmt: skip


def translate(
    func: Func, rules: Mapping[type[Op], Rule], symbols: Sequence[str], check: bool, outer: int
) -> Callable[..., None]:
    """The Python function `(rt, windows, dims, levels)` that does what `func` says."""
    t = Translator(func, rules, check, outer)
    for symbol in symbols:
        t.emit(f"{t.define_symbol(symbol)} = dims[{symbol!r}]")
    for k, level in enumerate(t.levels):
        t.emit(f"{level.base}, {level.me} = levels[{k}]")
    for k, value in enumerate(func.args):
        t.bind(value, f"windows[{k}]")
        place = t.places[value]
        t.places[value] = Place(place.type, place.name, place.shape, place.strides, 0, place.packed)
    t.emit("group = rt.group()")
    t.ops(func.body)
    source = "def kernel(rt, windows, dims, levels):\n" + "\n".join(t.lines) + "\n"
    exec(compile(source, f"<kernel @{func.sym}>", "exec"), t.globals)
    kernel: Callable[..., None] = t.globals["kernel"]
    kernel.__doc__ = source
    return kernel
