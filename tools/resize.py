"""A module with one extent made smaller everywhere, where its ops allow that.

Inputs, constants (their first elements stay) and shapes among attributes take the new extent, and
every type is inferred anew.  A reshape whose sizes no longer agree gives way in its largest extent,
and that change goes on to what comes behind it.  Imports: ir.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.blobs import Blob
from ..ir.core import Builder, Op, Value
from ..ir.errors import Error
from ..ir.interpret import input_names
from ..ir.ops.core import Const, Func, Module
from ..ir.types import TensorType, Type

ROUNDS = 4
"""How often a change of an extent may bring about another."""


def resized(module: Module, old: int, new: int) -> Module | None:
    """The module with `new` in place of the extent `old`; None where some op refuses."""
    changes = {old: new}
    for _ in range(ROUNDS):
        before = dict(changes)
        try:
            return _rebuilt(module, changes)
        except (Error, ValueError, TypeError, IndexError):
            if changes == before:
                return None
    return None


def _rebuilt(module: Module, changes: dict[int, int]) -> Module:
    """All ops made anew; `changes` learns what reshapes bring about."""
    main = module.main
    types = [_type(v.type, changes) for v in main.args]
    func = Func.make(main.sym, types, input_names(main), outputs=main.outputs)
    b = Builder(func.body)
    env: dict[Value, Value] = dict(zip(main.args, func.args, strict=True))
    for op in main.body:
        b.insert(_made(op, env, changes))
    others = [f.copy({}) for f in module.funcs if f is not main]
    return Module.make([func, *others], module.sym)


def _made(op: Op, env: dict[Value, Value], changes: dict[int, int]) -> Op:
    """The op on its new operands."""
    if op.regions:  # what is inside was inferred for the old extents
        if any([env[v].type is not v.type for v in op.operands if v is not None]):
            raise ValueError("its regions would have to change")
        return op.copy(env)
    made: Op
    if isinstance(op, Const) and isinstance(op.value, Blob):
        made = Const(_first_elements(op.value, changes), loc=op.loc)
    else:
        operands = [env[v] if v is not None else None for v in op.operands]
        attrs = {
            n: _attribute(n, x, changes) for n, x in op.attributes.items() if n != "types"
        }
        if op.name == "reshape":
            attrs["shape"] = _fitted(attrs["shape"], operands[0], changes)
        made = type(op)(*operands, loc=op.loc, **attrs)  # type: ignore[arg-type]
    for old, result in zip(op.results, made.results, strict=True):
        result.name = old.name
        env[old] = result
    return made


def _type(type_: Type, changes: Mapping[int, int]) -> Type:
    if not isinstance(type_, TensorType) or type_.shape is None:
        return type_
    return TensorType(type_.dtype, _shape(type_.shape, changes))


def _shape(shape: Sequence[Any], changes: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple([changes.get(e, e) if isinstance(e, int) else e for e in shape])


def _first_elements(blob: Blob, changes: Mapping[int, int]) -> Blob:
    shape = _shape(blob.type.shape, changes)
    part = blob.array[tuple([slice(e) for e in shape])]
    return Blob(part.copy(), TensorType(blob.type.dtype, shape))


def _attribute(name: str, value: Any, changes: Mapping[int, int]) -> Any:
    if isinstance(value, TensorType):
        return _type(value, changes)
    return _shape(value, changes) if name in ("shape", "sizes") and value is not None else value


def _fitted(shape: Sequence[Any], x: Any, changes: dict[int, int]) -> tuple[Any, ...]:
    """The shape of a reshape with as many elements as `x`; a new extent is noted."""
    if not all([isinstance(e, int) for e in (*shape, *x.type.shape)]):
        return tuple(shape)
    wanted = math.prod(x.type.shape)
    if math.prod(shape) == wanted:
        return tuple(shape)
    for axis in sorted(range(len(shape)), key=lambda k: -shape[k]):
        rest = math.prod([e for k, e in enumerate(shape) if k != axis])
        if rest and wanted % rest == 0:
            changes.setdefault(shape[axis], wanted // rest)
            return (*shape[:axis], wanted // rest, *shape[axis + 1 :])
    return tuple(shape)


__all__ = ["resized"]
