"""The three ways to change a program; there is no fourth.

1. `rebuild`: a forward sweep with an environment that emits a new function (lowering, autodiff).
2. `worklist`: rules keyed by op class, in place, until none applies (canonicalize, dead code).
3. Walks (`Op.walk`, `Block.walk`, `uses_outside`): for analyses.

A rule that makes ops does so through its builder, which stands at the place of the op rewritten and
gives its location to everything made there.  Imports: the core, ops/core, types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from .core import Block, Builder, Op, Value
from .errors import Error
from .ops.core import Func
from .types import Type

Values = Sequence[Value] | Value
BuildRule = Callable[[Builder, Op, Sequence[Value]], "Values | None"]
"""(builder, old op, its operands in the new function) -> its results there, or None: copy it."""
Rule = Callable[[Op, Builder], "Values | None"]
"""(op, builder placed before it) -> the values for its results, or None: no match, nothing made.

The op is erased with its regions: a rule copies what it keeps of them."""


def rebuild(
    func: Func, rules: Mapping[type[Op], Sequence[BuildRule]], types: Sequence[Type] | None = None
) -> Func:
    """A new function made op by op; `func` stays as it is.

    Rules are looked up by the op's class, then under `Op`; the first that gives values wins.  An op
    without a rule is copied, its result types inferred anew where the types of its operands
    changed.  `types` are new types for the parameters.
    """
    env: dict[Value, Value] = {}
    body = _rebuild_block(func.body, rules, env, types)
    return Func.raw((), func.attrs, (), (body,), func.loc)


def _rebuild_block(
    block: Block,
    rules: Mapping[type[Op], Sequence[BuildRule]],
    env: dict[Value, Value],
    types: Sequence[Type] | None = None,
) -> Block:
    made = Block(types or [a.type for a in block.args], [a.name for a in block.args])
    env.update(zip(block.args, made.args, strict=True))
    b = Builder(made)
    for op in block:
        b.loc = op.loc
        operands = [env[v] if v is not None else v for v in op.operands]
        values = _first(rules, b, op, operands)
        if values is None:
            values = _copy(b, op, operands, [_rebuild_block(r, rules, env) for r in op.regions])
        for old, new in zip(op.results, values, strict=True):
            env[old] = new
            if new.name is None:
                new.name = old.name
    return made


def _first(
    rules: Mapping[type[Op], Sequence[BuildRule]], b: Builder, op: Op, operands: Sequence[Value]
) -> Sequence[Value] | None:
    for rule in (*rules.get(type(op), ()), *rules.get(Op, ())):
        values = rule(b, op, operands)
        if values is not None:
            return (values,) if isinstance(values, Value) else values
    return None


def _copy(
    b: Builder, op: Op, operands: Sequence[Value], regions: Sequence[Block]
) -> Sequence[Value]:
    """`op` on new operands; types are inferred anew where they may have changed."""
    new = type(op).raw(operands, op.attrs, [r.type for r in op.results], regions, op.loc)
    if op.results and (
        op.regions
        or any([v is not None and v.type is not w.type for v, w in zip(operands, op.operands)])
    ):
        for value, type_ in zip(new.results, new.result_types(), strict=True):
            value.type = type_
    return b.insert(new).results


def worklist(program: Op | Block, rules: Mapping[type[Op], Sequence[Rule]]) -> int:
    """Apply rules in place, nested regions included, until none matches; the number of changes.

    Pure ops whose results nobody uses are removed.  After a change the ops made, the users of the
    replaced results and the makers of the operands are looked at again.
    """
    work = list(program.walk())
    work.reverse()
    waiting = set(work)
    if isinstance(program, Op):
        waiting.discard(program)  # the root itself stays
    changes = 0
    limit = 100 * (len(work) + 100)
    while work:
        op = work.pop()
        if op not in waiting:
            continue
        waiting.discard(op)
        if op.block is None:
            continue  # erased with the op around it
        results = op.results
        if op.pure and results and _unused(results):
            touched: Sequence[Op] = _makers(op)
            op.erase()
        else:
            found = rules.get(type(op))
            if not found:
                continue
            replaced = _apply(op, found)
            if replaced is None:
                continue
            touched = replaced
        changes += 1
        if changes > limit:
            raise Error(
                "E0245", f"the rewriting rules do not come to an end ({op.name} was the last)"
            )
        for near in touched:
            if near not in waiting and near.block is not None:
                work.append(near)
                waiting.add(near)
    return changes


def _unused(results: Sequence[Value]) -> bool:
    for value in results:
        if value.uses is not None:
            return False
    return True


def _apply(op: Op, rules: Sequence[Rule]) -> Sequence[Op] | None:
    """Replace `op` by the first rule that matches; gives the ops to look at again."""
    block = op.block
    assert block is not None
    before = op.prev
    for rule in rules:
        values = rule(op, Builder(block, op, op.loc))
        if values is None:
            continue
        if isinstance(values, Value):
            values = (values,)
        made: list[Op] = []
        fresh = before.next if before is not None else block.first
        while fresh is not None and fresh is not op:
            made.extend(fresh.walk() if fresh.regions else (fresh,))
            fresh = fresh.next
        touched = [*_makers(op), *[user for r in op.results for user in r.users], *reversed(made)]
        for old, new in zip(op.results, values, strict=True):
            if new.name is None:
                new.name = old.name
        op.replace_by(values)
        return touched
    return None


def _makers(op: Op) -> list[Op]:
    """The ops that made what `op` and the ops in it use."""
    found: dict[Op, None] = {}
    for inner in op.walk() if op.regions else (op,):
        for value in inner.operands:
            if value is not None and isinstance(value.owner, Op):
                found[value.owner] = None
    return list(found)


def uses_outside(block: Block) -> list[Value]:
    """The values of enclosing scopes that a region uses, in order of first use (its captures)."""
    inside: set[Value] = set(block.args)
    found: dict[Value, None] = {}
    for op in block.walk():
        for value in op.operands:
            if value is not None and value not in inside:
                found[value] = None
        inside.update(op.results)
        for nested in op.regions:
            inside.update(nested.args)
    return list(found)


def erase_all(ops: Iterable[Op]) -> None:
    """Erase ops, the last first, so that none loses an operand it still uses."""
    for op in reversed(list(ops)):
        op.erase()


__all__ = ["BuildRule", "Rule", "erase_all", "rebuild", "uses_outside", "worklist"]
