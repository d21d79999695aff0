"""Values known while importing: a node on known operands is run at once, dims included.

The row of the node builds its ops in a scratch block; each op is then evaluated on the known
elements.  Ops that only move elements take dim expressions as they are, a few compute with them;
any other op on a dim expression gives up, and the node is built as usual.  Imports: ir.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import Dim, DimLike, equal, floordiv, max_, min_, mod, nonneg
from ...ir.errors import Error
from ...ir.interpret import Interpreter
from ...ir.ops.core import Const
from .item import KNOWN_LIMIT, Array, is_symbolic
from .node import Known, Node, Result, Row

NEVER = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
                   "SplitToSequence"})  # fmt: skip


class _Unknown(Exception):
    """An element cannot be told while importing."""


def fold(node: Node, row: Row) -> list[Known | None] | None:
    """The results of the node where all operands are known; None where it must be built."""
    given = [item for item in node.inputs if item is not None]
    if not given or node.op in NEVER or any(i.known is None for i in given):
        return None
    block = Block([item.type for item in given])
    args = iter(block.args)
    node.args = [None if item is None else next(args) for item in node.inputs]
    outer, node.b = node.b, Builder(block, loc=node.b.loc)
    try:
        results = results_of(row(node))
        env: dict[Value, Array] = {}
        for arg, item in zip(block.args, given, strict=True):
            assert item.known is not None
            env[arg] = item.known
        for op in block:
            _run(op, env)
        return [_found(result, env) for result in results]
    except _Unknown:
        return None
    finally:
        node.args, node.b = None, outer


def results_of(result: Result) -> list[Value | Known | None]:
    """What a row gave, as a list."""
    return [result] if isinstance(result, (Value, Known)) else list(result)


def _found(result: Value | Known | None, env: dict[Value, Array]) -> Known | None:
    if not isinstance(result, Value):
        return result
    return Known(env[result], result.tensor.dtype)


def _run(op: Op, env: dict[Value, Array]) -> None:
    """Evaluate one op of the scratch block; raises _Unknown."""
    if op.regions or any(getattr(r.type, "shape", None) is None for r in op.results):
        raise _Unknown
    if isinstance(op, Const):
        env[op.result] = op.value.array
        return
    if any(not r.tensor.is_static or r.tensor.size > KNOWN_LIMIT for r in op.results):
        raise _Unknown
    if op.name == "dim_value":
        env[op.result] = np.array(op.attributes["dim"], object)
        if op.attributes["dtype"].kind not in ("int", "uint"):
            raise _Unknown
        return
    arrays = [None if v is None else env[v] for v in op.operands]
    if any(a is not None and is_symbolic(a) for a in arrays):
        rule = _SYMBOLIC.get(op.name)
        if rule is None:
            raise _Unknown
        results: Sequence[Array] = (rule(op, *arrays),)
    else:
        plain = [None if v is None else _plain(env[v], v) for v in op.operands]
        try:
            results = Interpreter().results(op, plain)
        except Error as error:
            if error.code == "E0323":  # a dim in an attribute
                raise _Unknown from None
            raise
        except TypeError:
            raise _Unknown from None
    for value, array in zip(op.results, results, strict=True):
        env[value] = np.asarray(array)


def _plain(array: Array, value: Value) -> Array:
    return array.astype(value.tensor.dtype.np) if array.dtype == object else array


# ---- dim expressions: one function of op and object arrays each


def _move(op: Op, *arrays: Array) -> Array:
    return type(op).evaluate(*[a.astype(object) for a in arrays], **op.attributes)


def _gather(op: Op, x: Array, index: Array) -> Array:
    if is_symbolic(index):
        raise _Unknown
    return type(op).evaluate(x, index.astype(np.int64), **op.attributes)


def _cast(op: Op, x: Array) -> Array:
    to = op.attributes["to"]
    if to.kind in ("int", "uint"):
        return x
    if to.kind == "bool":
        return _each(lambda a: _negated(equal(a, 0)))(op, x).astype(np.bool_)
    raise _Unknown


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    """A rule that computes element by element with broadcasting; None means unknown."""

    def rule(op: Op, *arrays: Array) -> Array:
        if op.result.tensor.dtype.kind not in ("int", "uint", "bool"):
            raise _Unknown
        spread = np.broadcast_arrays(*[a.astype(object) for a in arrays])
        out = np.empty(spread[0].shape, object)
        for at in np.ndindex(out.shape):
            value = function(*[_number(a[at]) for a in spread])
            if value is None or _is_vast(value):
                raise _Unknown
            out[at] = value
        return out.astype(np.bool_) if op.result.tensor.dtype.kind == "bool" else out

    return rule


def _is_vast(value: Any) -> bool:
    """A dim expression that grew beyond use (a hostile model can square one again and again)."""
    if not isinstance(value, Dim):
        return False
    return len(value.terms) > 64 or any(len(m.factors) > 16 for m, _ in value.terms)


def _number(element: Any) -> Any:
    return element if isinstance(element, (Dim, bool)) else int(element)


def _quotient(a: DimLike, b: DimLike) -> DimLike | None:
    """a / b: rounded down and toward zero are one where nothing is negative."""
    return floordiv(a, b) if nonneg(a) is True and nonneg(b - 1) is True else None


def _rest(a: DimLike, b: DimLike) -> DimLike | None:
    return mod(a, b) if nonneg(a) is True and nonneg(b - 1) is True else None


def _less(a: DimLike, b: DimLike) -> bool | None:
    if nonneg(b - a - 1) is True:
        return True
    return False if nonneg(a - b) is True else None


def _magnitude(a: DimLike) -> DimLike | None:
    return a if nonneg(a) is True else None


def _reduce(combine: Callable[[list[Any]], DimLike]) -> Callable[..., Array]:
    def rule(op: Op, x: Array) -> Array:
        axes, keep = op.attributes["axes"], op.attributes["keepdims"]
        if len(axes) != x.ndim:
            raise _Unknown
        out = np.empty((1,) * x.ndim if keep else (), object)
        out[...] = combine([_number(e) for e in x.flat])
        return out

    return rule


_SYMBOLIC: dict[str, Callable[..., Array]] = {
    "reshape": _move,
    "transpose": _move,
    "slice": _move,
    "concat": _move,
    "broadcast_to": _move,
    "identity": _move,
    "gather": _gather,
    "take": _gather,
    "cast": _cast,
    "add": _each(lambda a, b: a + b),
    "sub": _each(lambda a, b: a - b),
    "mul": _each(lambda a, b: a * b),
    "neg": _each(lambda a: -a),
    "abs": _each(_magnitude),
    "div": _each(_quotient),
    "mod": _each(_rest),
    "rem": _each(_rest),
    "min": _each(min_),
    "max": _each(max_),
    "eq": _each(equal),
    "ne": _each(lambda a, b: _negated(equal(a, b))),
    "lt": _each(_less),
    "gt": _each(lambda a, b: _less(b, a)),
    "le": _each(lambda a, b: _negated(_less(b, a))),
    "ge": _each(lambda a, b: _negated(_less(a, b))),
    "where": _each(lambda c, a, b: a if c else b),
    "reduce_prod": _reduce(math.prod),
    "reduce_sum": _reduce(sum),
    "reduce_max": _reduce(lambda found: max_(*found)),
    "reduce_min": _reduce(lambda found: min_(*found)),
}

__all__ = ["fold", "results_of"]
