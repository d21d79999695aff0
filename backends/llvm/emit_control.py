"""Control flow, buffers and calls as LLVM text.

Invariant: an inner scope is written before the jump into it, because what it hoists goes before
that jump.
Imports: ir, emit_writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Block, Op
from ...ir.dims import Dim
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.ops.core import Const, Yield
from ...ir.types import DType
from .emit_index import Memory
from .emit_types import constant, memory_bits
from .emit_writer import Row, Writer

WRITTEN_OUT = 512
"""Lines of text that a short loop may come to when LLVM is asked to write it out."""

GUARDED = 12_000
"""The same where the index decides what is read: written out, a window's edges are constants."""

ROUNDS = 32
"""Lines of text of the rounds of any other loop that are to be written out together."""


def _for(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.For)
    if op.kind.startswith("gpu"):
        raise UnsupportedError(
            "E0423", f"loop {op.var} is of kind {op.kind}", hint="a GPU target prints it"
        )
    if op.extent == 1:
        w.enter(w.scope.label)
        w.bind(op.var, w.dim(op.lo), (op.lo, op.lo))
        w.run(op.body)
        w.leave()
    elif op.kind == "parallel" and w.parent is None:
        _parallel(w, op)
    elif not (isinstance(op.extent, int) and op.extent <= 0):
        _serial(w, op)


def _serial(w: Writer, op: loop.For) -> None:
    """Test, then a body that ends in the next test: the form LLVM's loop passes want."""
    lo, end = w.dim(op.lo), w.dim(op.lo + op.extent)
    head, done = w.label("loop"), w.label("done")
    jump = f"  br label %{head}"
    if not isinstance(op.extent, int):
        jump = f"  br i1 {w.emit(f'icmp slt i64 {lo}, {end}')}, label %{head}, label %{done}"
    before = w.scope.label
    inner = w.enter(head)
    w.count += 1
    var = f"%{op.var}.{w.count}"
    w.bind(op.var, var, (op.lo, op.lo + op.extent - 1))
    w.run(op.body)
    following = f"{var}.next"
    phi = f"  {var} = phi i64 [ {lo}, %{before} ], [ {following}, %{inner.label} ]"
    inner.lines[:0] = [f"{head}:", phi]
    w.line(f"{following} = add nsw i64 {var}, 1")
    note = _unrolling(w, op)
    w.branch(w.emit(f"icmp slt i64 {following}, {end}"), head, done, note)
    w.leave(jump)
    w.start(done)


def _unrolling(w: Writer, op: loop.For) -> str:
    """What LLVM is to make of the innermost scope, the body of a loop: loops come unrolled where
    they are wide; of the others it writes out short ones, and some rounds of small bodies.
    """
    scope, extent = w.scope, op.extent
    if scope.loops:
        return ""
    lines = len(scope.lines) + scope.added
    if isinstance(extent, int):
        most = GUARDED if scope.added and _decides(op) else WRITTEN_OUT
        if extent * lines <= most:
            scope.added += (extent - 1) * lines
            return w.module.loop_note('!"llvm.loop.unroll.full"')
    scope.loops = True
    rounds = next((n for n in (8, 4, 2) if n * lines <= ROUNDS), 1)
    if rounds == 1:
        return ""
    return w.module.loop_note(f'!"llvm.loop.unroll.count", i32 {rounds}')


def _decides(op: loop.For) -> bool:
    """Whether the index of a loop decides what its body may read or write."""
    guarded = [i for i in op.body.walk() if isinstance(i, (loop.Load, loop.Store, loop.If))]
    return any([op.var in e.symbols for i in guarded for e in i.where if isinstance(e, Dim)])


def _parallel(w: Writer, op: loop.For) -> None:
    """Outline the body: `.body` has its captures as parameters (so that noalias holds), the thunk
    unpacks them.
    """
    name = f"{w.function}.par{w.outlined}"
    w.outlined += 1
    child = Writer(w.module, name, w)
    child.bind(op.var, "%index", (op.lo, op.lo + op.extent - 1))
    if op.lo != 0:
        lo = child.dim(op.lo)
        child.symbols[op.var] = child.emit(f"add nsw i64 %index, {lo}"), 0
    child.run(op.body)
    pointer = "ptr noalias" if w.module.noalias else "ptr"
    params = [f"{pointer if t == 'ptr' else t} {n}" for t, n, _ in child.captured]
    w.module.texts.append(
        child.finished(f"define internal i32 @{name}.body({', '.join([*params, 'i64 %index'])}) #0")
    )
    slots = _slots(child.captured)
    size = sum(step for _, step in slots)
    frame = w.name("frame")
    w.allocas.append(f"  {frame} = alloca [{max(size, 8)} x i8], align 64")
    thunk = [f"define internal i32 @{name}(ptr %arg, i64 %index) #0 {{", "entry:"]
    for (type_, inside, outside), (at, _) in zip(child.captured, slots, strict=True):
        field_ = w.emit(f"getelementptr i8, ptr {frame}, i64 {at}")
        w.line(f"store {type_} {outside}, ptr {field_}, align 8")
        thunk += [
            f"  %p{at} = getelementptr i8, ptr %arg, i64 {at}",
            f"  {inside} = load {type_}, ptr %p{at}, align 8",
        ]
    passed = ", ".join([*[f"{t} {n}" for t, n, _ in child.captured], "i64 %index"])
    thunk += [f"  %status = call i32 @{name}.body({passed})", "  ret i32 %status", "}\n"]
    w.module.texts.append("\n".join(thunk))
    w.module.needs_parallel = True
    count = w.dim(op.extent)
    w.check_status(
        w.emit(f"call i32 @irc.parallel(ptr %ctx, ptr @{name}, ptr {frame}, i64 {count})")
    )


def _slots(captured: Sequence[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """(offset, size) of each capture in the frame: 8 bytes, or a whole register for a vector."""
    found, at = [], 0
    for type_, _, _ in captured:
        size = 8
        if type_[0] == "<":
            lanes, _, scalar = type_[1:-1].split(" ")
            bits = {"double": 64, "float": 32, "half": 16}.get(scalar) or int(scalar[1:])
            size = -(-int(lanes) * bits // 64) * 8
        found.append((at, size))
        at += size
    return found


def _if(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.If)
    condition = w.all_hold(op.where)
    if condition == "true":
        w.enter(w.scope.label)
        w.run(op.body)
        w.leave()
    elif condition != "false":
        _arms(w, condition, [op.body])


def _when(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.When)
    _arms(w, w.text(op.condition), [op.then, op.otherwise])


def _arms(w: Writer, condition: str, blocks: Sequence[Block]) -> None:
    """The first block where `condition` is true, else the second, if there is one."""
    done = w.label("endif")
    labels, lines = [], []
    for block in blocks:
        label = w.label("arm")
        labels.append(label)
        w.enter(label).lines.append(f"{label}:")
        w.run(block)
        w.line(f"br label %{done}")
        lines += w.pop().lines
    w.branch(condition, labels[0], labels[1] if len(labels) > 1 else done)
    w.scope.lines += lines
    w.start(done)


def _while(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.While)
    head, body, done = w.label("while"), w.label("do"), w.label("done")
    before = w.scope.label
    header = w.enter(head)
    w.count += 1
    var = f"%{op.var}.{w.count}"
    w.bind(op.var, var, (0, None))
    w.run(op.before)
    last = op.before.last
    assert isinstance(last, Yield)
    condition = w.text(last.operands[0])
    inner = w.enter(body)
    w.run(op.body)
    w.line(f"{var}.next = add nuw nsw i64 {var}, 1")
    w.line(f"br label %{head}")
    phi = f"  {var} = phi i64 [ 0, %{before} ], [ {var}.next, %{inner.label} ]"
    w.pop()
    w.branch(condition, body, done)
    header.lines[:0] = [f"{head}:", phi]
    header.lines += [f"{body}:", *inner.lines]
    w.leave(f"  br label %{head}")
    w.scope.loops = True
    w.start(done)


def _fail(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Fail)
    w.line(f"br label %{w.fail_label(op.status)}")
    w.start(w.label("after"))


def _bind(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Bind)
    dtype = op.value.type
    assert isinstance(dtype, DType)
    value = w.text(op.value)
    if dtype.bits < 64:
        value = w.emit(f"{'sext' if dtype.kind == 'int' else 'zext'} i{dtype.bits} {value} to i64")
    ok = w.label("bound")
    w.branch(
        w.emit(f"icmp ult i64 {value}, {w.dim(op.extent)}"), ok, w.fail_label(loop.STATUS_INDEX)
    )
    w.start(ok)
    w.bind(op.symbol, value, (0, op.extent - 1))


def _alloc(w: Writer, op: Op) -> None:
    """A buffer of the stack; with constant indices it becomes registers."""
    assert isinstance(op, loop.Alloc)
    type_ = op.type
    size = type_.size
    if type_.space == "tile":
        _configure_tiles(w)
        w.tiles[op.result] = len(w.tiles)
        return
    if type_.space not in ("register", "stack") or not isinstance(size, int):
        raise UnsupportedError(
            "E0424",
            f"a CPU kernel cannot allocate {type_}",
            where=Op.where(op),
            hint="plan it in the arena, or give it a static shape on the stack",
        )
    if type_.strides is not None:
        size = 1 + sum((d - 1) * s for d, s in zip(type_.shape, type_.strides, strict=True))
    name = w.name(_plain(op.label) or "buffer")
    w.allocas.append(
        f"  {name} = alloca [{max(1, -(-size * memory_bits(type_.dtype) // 8))} x i8], align 64"
    )
    w.buffers[op.result] = Memory(name, 0, 0, type_)


def _configure_tiles(w: Writer) -> None:
    """Once per function: all eight AMX tiles as 16 rows of 64 bytes, released at the end."""
    if w.tiles:
        return
    w.declare("declare void @llvm.x86.ldtilecfg(ptr)")
    w.declare("declare void @llvm.x86.tilerelease()")
    config = bytes([1]) + bytes(15) + bytes([64, 0] * 8) + bytes(16) + bytes([16] * 8) + bytes(8)
    text = "".join([f"\\{c:02X}" for c in config])
    w.declare(f'@irc.tilecfg = private unnamed_addr constant [64 x i8] c"{text}", align 64')
    w.allocas.append("  call void @llvm.x86.ldtilecfg(ptr @irc.tilecfg)")


def _plain(label: str) -> str:
    return "".join([c if c.isalnum() else "." for c in label])


def _view(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.View)
    base = w.memory(op.base)
    w.buffers[op.result] = Memory(base.base, base.level, base.offset + op.offset, op.type)


def _const(w: Writer, op: Op) -> None:
    assert isinstance(op, Const)
    w.values[op.result] = constant(op.value, op.type)


def _call(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Call)
    args = []
    for value in op.args:
        memory = w.memory(value)
        args.append(f"ptr {w.address(memory, memory.offset)}")
    args += [f"i64 {w.dim(e)}" for e in op.dims]
    context = (
        "null" if w.parent is not None else "%ctx"
    )  # a kernel inside a parallel loop is serial
    w.module.called[op.callee] = ", ".join(["ptr", *[a.split(" ")[0] for a in args]])
    w.check_status(w.emit(f"call i32 @{op.callee}({', '.join([f'ptr {context}', *args])})"))


def _host_call(w: Writer, op: Op) -> None:
    """Ask the context's second hook; without one the plan cannot go on."""
    assert isinstance(op, loop.HostCall)
    if w.parent is not None:
        raise UnsupportedError(
            "E0425", f"host call {op.callee} inside a parallel loop", where=Op.where(op)
        )
    pointers, dims = w.name("args"), w.name("dims")
    w.allocas.append(f"  {pointers} = alloca [{max(1, len(op.args))} x ptr], align 8")
    w.allocas.append(f"  {dims} = alloca [{max(1, len(op.dims))} x i64], align 8")
    for k, value in enumerate(op.args):
        memory = w.memory(value)
        at = w.emit(f"getelementptr ptr, ptr {pointers}, i64 {k}")
        w.line(f"store ptr {w.address(memory, memory.offset)}, ptr {at}, align 8")
    for k, e in enumerate(op.dims):
        at = w.emit(f"getelementptr i64, ptr {dims}, i64 {k}")
        w.line(f"store i64 {w.dim(e)}, ptr {at}, align 8")
    name = op.callee.encode() + b"\0"
    escaped = "".join([f"\\{c:02X}" for c in name])
    w.declare(f'@name.{op.callee} = private unnamed_addr constant [{len(name)} x i8] c"{escaped}"')
    asked, hooked, missing = w.label("ask"), w.label("hook"), w.fail_label(loop.STATUS_SHAPE)
    w.branch(w.emit("icmp eq ptr %ctx, null"), missing, asked)
    w.start(asked)
    hook = w.emit(f"load ptr, ptr {w.emit('getelementptr ptr, ptr %ctx, i64 1')}")
    w.branch(w.emit(f"icmp eq ptr {hook}, null"), missing, hooked)
    w.start(hooked)
    w.check_status(
        w.emit(f"call i32 {hook}(ptr %ctx, ptr @name.{op.callee}, ptr {pointers}, ptr {dims})")
    )


def _nothing(w: Writer, op: Op) -> None:
    """Terminators print nothing: the op around them does."""


CONTROL_ROWS: dict[str, Row] = {
    "loop.for": _for,
    "loop.if": _if,
    "loop.when": _when,
    "loop.while": _while,
    "loop.fail": _fail,
    "loop.bind": _bind,
    "loop.alloc": _alloc,
    "loop.view": _view,
    "loop.call": _call,
    "loop.host_call": _host_call,
    "const": _const,
    "return": _nothing,
    "yield": _nothing,
}

__all__ = ["CONTROL_ROWS"]
