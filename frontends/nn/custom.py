"""Gradients of one's own and values computed twice: `custom_vjp`, `remat`.

May import: ir, its siblings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...ir.core import Any_, Array, Block, Builder, Grads, Value, attr, variadic
from ...ir.errors import Error
from ...ir.ops.autodiff import CustomGradient, Remat
from ...ir.ops.core import Yield, zeros
from .control import carry_on, fill, insert, united
from .creation import zeros_like
from .dispatch import STATE, Base, Call, Node, as_tensor, here, result
from .functions import cast, stop_gradient
from .recording import _PythonOp
from .tensor import Tensor
from .tracing import Frame, Trace
from .trees import Tree, flatten, unflatten

Function = Callable[..., Any]


class custom_vjp:
    """A function with a gradient of its own.

    As a decorator::

        @irc.custom_vjp
        def bounded(x):
            return x
        @bounded.backward
        def _(inputs, g):
            return nn.clip(g, -1, 1)

    `backward(residuals, g)` gives one gradient per argument (None: zero; alone where there is one
    argument).  The residuals are the tuple of arguments or, after `f.defvjp(forward, backward)`,
    what `forward` gives behind the result.  Tensors that the function takes from outside get no
    gradient.  Errors: E0625.
    """

    def __init__(self, function: Function, backward: Function | None = None) -> None:
        functools.update_wrapper(self, function)
        self.function = self.traces = function
        self._forward: Function = lambda *args: (function(*args), args)
        self._backward = backward

    def backward(self, function: Function) -> Function:
        """Declare `backward(inputs, g)`."""
        self._backward = function
        return function

    def defvjp(self, forward: Function, backward: Function) -> None:
        """Declare `forward(*args) -> (result, residuals)` and `backward(residuals, g)`."""
        self._forward, self._backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        if STATE.trace is not None:
            return self._traced(STATE.trace, args)
        leaves, tree = flatten(args)
        tensors = [as_tensor(x) for x in leaves]
        if not STATE.recording or not any([t.requires_grad for t in tensors]):
            return self.function(*args)
        found, residuals = self.forward(unflatten(tree, tensors))
        outs, arranged = flatten(found)
        outs = [as_tensor(x) for x in outs]
        rule = Rule(self, residuals, arranged, tree, tensors)
        return unflatten(arranged, recorded(rule, tensors, [t.array for t in tensors], outs))

    def forward(self, args: Sequence[Any]) -> tuple[Any, Any]:
        """Result and residuals."""
        if self._backward is None:
            raise Error(
                "E0625", f"custom_vjp: {self.function.__name__} has no backward function",
                where=here(), hint=f"@{self.function.__name__}.backward declares it",
            )  # fmt: skip
        found = self._forward(*args)
        if not isinstance(found, tuple) or len(found) != 2:
            raise Error("E0625", "custom_vjp: forward must give (result, residuals)", where=here())
        return found

    def gradients(
        self, residuals: Any, g: Any, arguments: Tree, inputs: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """What `backward` gives, one gradient or None per leaf of the arguments."""
        assert self._backward is not None
        found = self._backward(residuals, g)
        count = len(arguments.parts)
        if not isinstance(found, tuple):
            found = (found,)
        if len(found) != count:
            raise Error(
                "E0625", f"custom_vjp: backward gives {len(found)} gradients for {count} arguments",
                where=here(),
            )  # fmt: skip
        gathered: list[Tensor | None] = []
        for part, given in zip(arguments.parts, found, strict=True):
            width = _width(part)
            leaves = [None] * width if given is None else flatten(given, _or_none)[0]
            if len(leaves) != width:
                raise Error(
                    "E0625", "custom_vjp: a gradient is arranged otherwise than its argument",
                    where=here(),
                )  # fmt: skip
            gathered += [None if x is None else as_tensor(x) for x in leaves]
        return [_fit(g, t) for g, t in zip(gathered, inputs, strict=True)]

    def _traced(self, trace: Trace, args: Sequence[Any]) -> Any:
        """The forward function's ops, cut off from differentiation, and behind them an op that
        hands on their results with `backward` as its gradient.

        Residuals are ordinary values, so that the gradient may be differentiated again.
        """
        leaves, tree = flatten(tuple(args))
        tensors = [as_tensor(x) for x in leaves]
        found, residuals = self.forward(unflatten(tree, tensors))
        (outs, arranged), (kept, kept_tree) = flatten(found), flatten(residuals)
        outs, kept = [as_tensor(x) for x in outs], [as_tensor(x) for x in kept]
        given = [*tensors, *kept, *[stop_gradient(t) for t in outs]]
        inputs = [trace.value(t) for t in given]
        n, m = len(inputs), len(outs)
        types, results = [v.type for v in inputs], [v.type for v in inputs[n - m :]]
        with trace.scoped() as changes, trace.region([*types, *results, *results], True) as back:
            own = [trace.tensor(v) for v in back.block.args]
            middle = unflatten(kept_tree, own[len(tensors) : n - m])
            g = unflatten(arranged, own[n + m :])
            grads = self.gradients(middle, g, tree, own[: len(tensors)])
            values = [trace.value(zeros_like(t) if x is None else x) for x, t in zip(grads, own)]
            captured = list(back.captured)
            rest = [*inputs[len(tensors) :], *captured]
            trace.b.emit(Yield, *values, *[zeros(trace.b, v.tensor) for v in rest])
        if changes:
            raise Error("E0625", "custom_vjp: backward assigns a buffer or draws", where=here())
        arrange(back, n, captured)
        inputs += captured
        first = Block([v.type for v in inputs])
        Builder(first).emit(Yield, *first.args[n - m : n])
        op = CustomGradient(*inputs, regions=[first, back.block], loc=here())
        return unflatten(arranged, insert(trace, op))


def arrange(frame: Frame, count: int, captured: Sequence[Value]) -> None:
    """Put the arguments for what was taken from outside behind the first `count`."""
    block: Block = frame.block
    taken = [frame.captured.get(v) or block.add_arg(v.type) for v in captured]
    rest = [a for a in block.args[count:] if a not in set(taken)]
    block.args = (*block.args[:count], *taken, *rest)
    for index, value in enumerate(block.args):
        value.index = index


def _or_none(x: Any) -> bool:
    return (
        x is None or isinstance(x, Base) or hasattr(x, "__array__") or isinstance(x, (int, float))
    )


def _width(tree: Tree) -> int:
    """How many leaves a tree has."""
    if tree.kind is None:
        return 1
    return sum([_width(part) for part in tree.parts])


def _fit(g: Tensor | None, t: Tensor) -> Tensor | None:
    """A gradient in the type of its argument; E0625 for another shape."""
    if g is None or not t.type.dtype.is_float:
        return None
    if g.type.shape != t.type.shape:
        raise Error(
            "E0625", "custom_vjp: a gradient has another shape than its argument", where=here(),
            details=(f"argument {t.type}", f"gradient {g.type}"),
        )  # fmt: skip
    return cast(g, t.type.dtype)


# Eager --------------------------------------------------------------------------------------------


class Rule:
    """One call of a function with its own gradient: what going back needs."""

    def __init__(
        self, owner: custom_vjp, residuals: Any, results: Tree, arguments: Tree,
        inputs: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self.owner, self.residuals = owner, residuals
        self.results, self.arguments, self.inputs = results, arguments, tuple(inputs)

    def back(self, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the arguments' leaves, zeros where there is none."""
        g = unflatten(self.results, cotangents)
        found = self.owner.gradients(self.residuals, g, self.arguments, self.inputs)
        return [zeros_like(t) if x is None else x for x, t in zip(found, self.inputs)]


class _Custom(_PythonOp):
    """A call in a recording."""

    inputs = variadic(Any_)
    rule = attr(object)

    def vjp(self, b: Builder, *gs: Value | None) -> Grads:
        given = [zeros(b, r.tensor) if g is None else g for g, r in zip(gs, self.results)]
        types = [v.type for v in self.operands]
        return b.insert(_CustomBack.raw(given, (self.rule,), types)).results


class _CustomBack(_PythonOp):
    """The call of the function that goes back."""

    cotangents = variadic(Any_)
    rule = attr(object)

    def run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Call it; in a recording what it does is recorded."""
        return self.rule.back(tensors)  # type: ignore[no-any-return]


class Back(Protocol):
    """What a recorded call of one's own needs."""

    def back(self, cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
        """The cotangents of the operands for those of the results."""


def recorded(
    rule: Back, operands: Sequence[Tensor], arrays: Sequence[Array], results: Sequence[Tensor]
) -> list[Tensor]:
    """The results with a history: they come from the operands, and `rule` says how to go back."""
    call = Call.of(_Custom, (rule,), tuple([t.type for t in results]))
    node = Node(call, tuple(operands), tuple(arrays), here())
    return [result(t.array, t.type, node, k) for k, t in enumerate(results)]


# Rematerialisation --------------------------------------------------------------------------------


def remat(function: Function) -> Function:
    """The function, whose values inside a trace are computed again on the way back, not kept.

    Eager, it is the function as it is.
    """

    @functools.wraps(function, updated=())
    def again(*args: Any, **kwargs: Any) -> Any:
        trace = STATE.trace
        if trace is None:
            return function(*args, **kwargs)
        leaves, tree = flatten(tuple(args))
        inputs = [trace.value(as_tensor(x)) for x in leaves]
        types = [v.type for v in inputs]

        def run(own: list[Tensor]) -> Any:
            return function(*unflatten(tree, own), **kwargs)

        body = fill(trace, types, run)
        places = united(body.changes)
        if places:
            body = fill(trace, types, run, places=places)
        found = insert(trace, Remat(*inputs, regions=[body.block], loc=here()))
        count = len(body.types)
        carry_on(trace, places, [trace.value(t) for t in found[count:]])
        return unflatten(body.tree, found[:count])

    return again


__all__ = ["Back", "custom_vjp", "recorded", "remat"]
