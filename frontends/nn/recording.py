"""Gradients of eager tensors: the recording becomes a block of IR, and the ordinary pass goes back.

Only the reverse ops are evaluated: the values of the forward ones are known.  With `keep` the
reverse ops are recorded in their turn, so that gradients have gradients.  May import: ir,
passes.autodiff, its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.core import Array, Block, Builder, Op, Value
from ...ir.errors import Error
from ...ir.interpret import Interpreter
from ...ir.ops.core import Const
from ...passes.autodiff.activity import reads
from ...passes.autodiff.pullback import expanded, has_rule, pullback
from .dispatch import (
    STATE,
    Base,
    Call,
    Node,
    apply,
    as_tensor,
    enable_grad,
    here,
    leaf,
    no_grad,
    result,
)

if TYPE_CHECKING:
    from .tensor import Tensor

Key = tuple[int, int]
"""Which tensor: (the node's id, which result) or (the leaf's id, -1)."""


class _PythonOp(Op):
    """Base of ops whose meaning is a Python function: they live in recordings only.

    `run(op, tensors)` gives the results' tensors.
    """

    def run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results for these operands."""
        raise AssertionError


class Tape:
    """A recording as a block: `values` by tensor, `known` what each value is.

    With `stop` it begins at `wrt`, else at the leaves.
    """

    def __init__(
        self, outputs: Sequence[Base], wrt: Sequence[Base] = (), stop: bool = False
    ) -> None:
        self.block = Block()
        self.values: dict[Key, Value] = {}
        self.known: dict[Value, Base] = {}
        self.leaves: list[tuple[Base, Value]] = []
        self.composites = False
        for t in wrt if stop else ():
            self._argument(t, t.array)
        for node in _in_order(outputs, set(self.values)):
            self._copy(node)
        for t in (*outputs, *wrt):
            if key_of(t) not in self.values:
                self._argument(t, t.array)
            self.known[self.values[key_of(t)]] = t

    def _copy(self, node: Node) -> None:
        """One recorded op in the block."""
        operands: list[Any] = []
        for t, array in zip(node.operands, node.arrays, strict=True):
            if t is None or array is None:
                operands.append(None)
                continue
            value = self.values.get(key_of(t))
            if value is None:
                value = self._argument(t, array)
            self.known.setdefault(value, t if t.array is array else leaf(array))
            operands.append(value)
        call = node.call
        self.composites = self.composites or not has_rule_class(call.cls)
        if call.template is None:
            op = call.cls.raw(operands, call.attrs, call.types, loc=node.loc)
        else:
            op = call.template.copy(dict(zip(call.reads, operands, strict=True)))
        self.block.append(op)
        for k, made in enumerate(op.results):
            self.values[id(node), k] = made

    def _argument(self, t: Base, array: Array) -> Value:
        value = self.block.add_arg(t.type)
        self.values[key_of(t)] = value
        self.known[value] = t if t.array is array else leaf(array)
        if t.node is None and t.requires_grad:
            self.leaves.append((t, value))
        return value


_RULES: dict[type[Op], bool] = {}


def has_rule_class(cls: type[Op]) -> bool:
    """Whether ops of this class go back by a rule of their own."""
    known = _RULES.get(cls)
    if known is None:
        known = _RULES[cls] = has_rule(cls.__new__(cls))
    return known


def key_of(t: Base) -> Key:
    """The tensor's identity in a recording."""
    return (id(t), -1) if t.node is None else (id(t.node), t.index)


def _in_order(outputs: Sequence[Base], stop: set[Key]) -> list[Node]:
    """The recorded ops that the outputs come from, operands first, not beyond `stop`."""
    found: list[Node] = []
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [
        (t.node, False) for t in reversed(outputs) if t.node is not None and key_of(t) not in stop
    ]
    while pending:
        node, done = pending.pop()
        if done:
            found.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending.append((node, True))
        for t in reversed(node.operands):
            if t is not None and t.node is not None and id(t.node) not in seen:
                if key_of(t) not in stop:
                    pending.append((t.node, False))
    return found


def gradients_on(
    tape: Tape, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], wrt: Sequence[Tensor],
    keep: bool,
) -> list[Tensor | None]:  # fmt: skip
    """The cotangents of `wrt` (leaves or results) for those of the outputs; None for no path."""
    return _pulled(tape, outputs, cotangents, [tape.values[key_of(t)] for t in wrt], keep)


def _pulled(
    tape: Tape, outputs: Sequence[Tensor], given: Sequence[Tensor], wrt: list[Value], keep: bool
) -> list[Tensor | None]:
    outs = [tape.values[key_of(t)] for t in outputs]
    if tape.composites:
        _, _, renamed = expanded(tape.block, outs, wrt)
        for old, new in renamed.items():
            if old in tape.known:
                tape.known[new] = tape.known[old]
        outs = [renamed.get(v, v) for v in outs]
        wrt = [renamed.get(v, v) for v in wrt]
    cotangents = []
    for t in given:
        value = tape.block.add_arg(t.type)
        tape.known[value] = t
        cotangents.append(value)
    found = pullback(Builder(tape.block), outs, cotangents, wrt)
    return evaluated(tape.block, tape.known, found, keep)


def evaluated(
    block: Block, known: Mapping[Value, Base], wanted: Sequence[Value | None], keep: bool
) -> list[Any]:
    """The wanted values as tensors, computing the ops of the block that they need and no other."""
    env: dict[Value, Any] = dict(known)
    needed = {v for v in wanted if v is not None and v not in env}
    plan: list[tuple[Op, list[Value]]] = []
    last: set[Value] = {v for v in wanted if v is not None}
    op = block.last
    while op is not None:
        if any([r in needed for r in op.results]):
            outer = reads(op)
            dying = [v for v in outer if v not in last]
            last.update(dying)
            plan.append((op, dying))
            needed.update([v for v in outer if v not in env])
        op = op.prev
    with np.errstate(all="ignore"), enable_grad() if keep else no_grad():
        for op, dying in reversed(plan):
            _run(op, env)
            for value in dying:
                env.pop(value, None)
    return [None if v is None else env[v] for v in wanted]


def _loop(op: Op, env: Mapping[Value, Any]) -> Sequence[Tensor]:
    """The results of an op with regions, by the interpreter; recorded as the op that it is."""
    outer = reads(op)
    tensors = [env[v] for v in outer]
    interpreter = Interpreter()
    interpreter.env.update({v: t.array for v, t in zip(outer, tensors)})
    arrays = [None if v is None else env[v].array for v in op.operands]
    found = interpreter.results(op, arrays)
    node = None
    if STATE.recording and any([t.requires_grad for t in tensors]):
        inside: dict[Value, Value] = {v: Value(v.type, None, k) for k, v in enumerate(outer)}
        own = tuple(inside.values())
        call = Call.region(op.copy(inside), own)
        node = Node(call, tuple(tensors), tuple([t.array for t in tensors]), op.loc or here())
    return [result(x, r.type, node, k) for k, (x, r) in enumerate(zip(found, op.results))]


def _run(op: Op, env: dict[Value, Any]) -> None:
    """Evaluate one op on tensors."""
    tensors = [None if v is None else env[v] for v in op.operands]
    if isinstance(op, Const):
        found: Any = (leaf(op.value.array),)
    elif isinstance(op, _PythonOp):
        found = op.run(tensors)
    elif op.regions:
        found = _loop(op, env)
    else:
        made = apply(type(op), *tensors, **op.attributes)
        found = made if isinstance(made, tuple) else (made,)
    for value, t in zip(op.results, found, strict=True):
        env.setdefault(value, t)


def backward(t: Tensor, gradient: Any = None) -> None:
    """Add the gradient of `t` to `.grad` of every leaf that requires one.  Errors: E0615."""
    if t.value is not None:
        raise Error(
            "E0615", "backward() does not work while tracing", where=here(),
            hint="irc.grad and irc.value_and_grad make gradients inside a trace",
        )  # fmt: skip
    if not t.requires_grad:
        raise Error(
            "E0615", "backward(): nothing that this tensor depends on requires a gradient",
            where=here(), details=(f"the tensor is {t.type}",),
            hint="nn.tensor(data, requires_grad=True), a Parameter; not inside nn.no_grad()",
        )  # fmt: skip
    seed = _seed(t, gradient)
    tape = Tape([t])
    found = _pulled(tape, [t], [seed], [value for _, value in tape.leaves], False)
    for (reached, _), g in zip(tape.leaves, found, strict=True):
        if g is not None:
            with no_grad():
                reached.grad = g if reached.grad is None else reached.grad + g


def _seed(t: Tensor, gradient: Any) -> Tensor:
    if gradient is None:
        if t.array.size != 1:
            raise Error(
                "E0615", f"backward() of a tensor {t.type} needs the gradient of its elements",
                where=here(), hint="reduce it to one number first, e.g. with .sum() or .mean()",
            )  # fmt: skip
        return leaf(np.ones(t.array.shape, t.array.dtype), t.type)
    seed = as_tensor(gradient, t.type.dtype)
    if seed.shape != t.shape or seed.type.dtype is not t.type.dtype:
        raise Error(
            "E0615", "the gradient given has another type than the tensor", where=here(),
            details=(f"expected {t.type}", f"found {seed.type}"),
        )  # fmt: skip
    return seed


__all__ = ["Tape", "_PythonOp", "backward", "evaluated", "gradients_on"]
