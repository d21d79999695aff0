"""Parts of a program: the ops that some values need, from the inputs or from a cut on.

Imports: ir.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..ir.core import Block, Builder, Op, Value
from ..ir.interpret import input_names
from ..ir.ops.core import Func, Module, Return
from ..ir.types import TensorType


def read_by(op: Op) -> Iterator[Value]:
    """The values an op reads that lie outside it: operands, and captures of its regions."""
    inside: set[Value] = set()
    for inner in op.walk():
        for region in inner.regions:
            inside.update(region.args)
        yield from [v for v in inner.operands if v is not None and v not in inside]
        if inner is not op:
            inside.update(inner.results)


def needed(block: Block, values: Sequence[Value], cut: Mapping[Value, str]) -> list[Op]:
    """The ops of the block that the values need, in order; what is cut needs nothing."""
    wanted = {v for v in values if v not in cut}
    found: list[Op] = []
    op = block.last
    while op is not None:
        if not op.terminator and not wanted.isdisjoint(op.results):
            found.append(op)
            wanted.update([v for v in read_by(op) if v not in cut])
        op = op.prev
    return found[::-1]


def sliced(
    module: Module,
    outputs: Sequence[Value],
    cut: Mapping[Value, str] | None = None,
    names: Sequence[str] = (),
    env: dict[Value, Value] | None = None,
) -> Module:
    """A module whose `main` gives `outputs`; a value in `cut` becomes an input of that name.

    Inputs that nothing needs are left out.  `env` may replace values by ones that stand nowhere
    yet, and learns what became of each value.  State is forgotten: its inputs are plain ones.
    """
    main, cut = module.main, cut or {}
    env = env if env is not None else {}
    ops = needed(main.body, outputs, cut)
    read = {v for op in ops for v in read_by(op)} | set(outputs)
    given = dict(zip(main.args, input_names(main), strict=True)) | dict(cut)
    inputs = {v: name for v, name in given.items() if v in read and v not in env}
    func = Func.make(
        main.sym, [v.type for v in inputs], list(inputs.values()), outputs=list(names)
    )
    env.update(zip(inputs, func.args, strict=True))
    for op in ops:
        func.body.append(op.copy(env))
    Builder(func.body).emit(Return, *[env[v] for v in outputs])
    others = [f.copy({}) for f in module.funcs if f is not main]
    return Module.make([func, *others], module.sym)


def ends(op: Op) -> bool:
    """Can a program end at this op: does it give tensors of numbers, and nothing else?"""
    return bool(op.results) and all(
        [isinstance(r.type, TensorType) and r.type.dtype.kind != "string" for r in op.results]
    )


__all__ = ["ends", "needed", "read_by", "sliced"]
