"""The meaning of an instruction call as plain loop-level ops: what an emitter prints that has no
text for it.

Imports: ir.
"""

from __future__ import annotations

from ..ir.core import Block, Value
from ..ir.dims import DimLike, fresh, sym
from ..ir.ops import loop
from ..ir.ops.instr import instr
from ..ir.symbols import map_dims_in

Window = tuple[Value, tuple[DimLike, ...]]


def call_index(op: loop.CallInstr, k: int) -> tuple[DimLike, ...]:
    """Where the window of operand k begins; the buffer's start where the call does not say."""
    given = op.index[k] if k < len(op.index) else ()
    return given or (0,) * op.args[k].buffer.rank  # type: ignore[no-any-return]


def meaning(op: loop.CallInstr) -> Block:
    """The instruction's body on the call's buffers, with loop variables of its own."""
    body = instr(op.instr).body
    env: dict[Value, Value] = {}
    block = body.body.copy(env)
    names = {inner.var: fresh("n") for inner in block.walk() if isinstance(inner, loop.For)}
    windows: dict[Value, Window] = {
        env[arg]: (op.args[k], call_index(op, k)) for k, arg in enumerate(body.args)
    }
    for inner in list(block.walk()):
        if isinstance(inner, loop.For):
            inner.set_attr("var", str(names[inner.var]))
        elif isinstance(inner, (loop.Load, loop.Store)):
            _move(inner, windows)
    for inner in block:
        map_dims_in(inner, {old: sym(str(new)) for old, new in names.items()})
    return block


def _move(access: loop.Load | loop.Store, windows: dict[Value, Window]) -> None:
    """Point an access of a window at the buffer itself."""
    known = windows.get(access.operands[-1])
    if known is None:
        return
    buffer, start = known
    skip = len(start) - len(access.index)
    moved = [s + i for s, i in zip(start[skip:], access.index, strict=True)]
    access.set_operands([*access.operands[:-1], buffer])
    access.set_attr("index", (*start[:skip], *moved))


__all__ = ["call_index", "meaning"]
