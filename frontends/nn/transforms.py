"""Functions of functions: `grad`, `value_and_grad`, and `gradients` of what is computed already.

They work on eager tensors and inside a trace, and on each other's results: the gradient of a
gradient is the second derivative.  May import: ir, its siblings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ...ir.errors import Error
from ...ir.ops.elementwise import Identity
from .creation import ones_like, zeros_like
from .dispatch import STATE, Base, as_tensor, enable_grad, here, leaf, one
from .module import Module
from .recording import Tape, gradients_on
from .tensor import Tensor
from .trees import Tree, flatten, paths, unflatten

Function = Callable[..., Any]


def grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The function that gives the gradient of `function` by its argument(s) `argnums`.

    `function` gives one number; arguments may be tensors, arrays, containers of them, or modules
    (the gradient is then a dict by the names of the parameters that require one).  With `has_aux`
    it gives (number, more), and the result is (gradient, more).  Errors: E0624.
    """
    inner = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = inner(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def value_and_grad(
    function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """The function that gives (value, gradient): see `grad`; with `has_aux` the value is a pair."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function, updated=())
    def both(*args: Any, **kwargs: Any) -> Any:
        sources = Sources(function, args, numbers)
        with enable_grad():
            found = function(*sources.args, **kwargs)
        value, aux = _parts(found, has_aux, function)
        loss = _loss(value, function)
        parts_found, kept = _gradients([loss], [ones_like(loss)], sources.tensors, stop=True)
        parts = sources.gathered(parts_found)
        whole = loss if kept else loss.detach()
        given = parts[0] if isinstance(argnums, int) else tuple(parts)
        return ((whole, aux) if has_aux else whole), given

    return both


def _parts(found: Any, has_aux: bool, function: Function) -> tuple[Any, Any]:
    if not has_aux:
        return found, None
    if not isinstance(found, tuple) or len(found) != 2:
        raise Error(
            "E0624", f"{_name(function)} gives no pair (value, more)", where=here(),
            details=(f"found {type(found).__name__}",), hint="has_aux=True expects one",
        )  # fmt: skip
    return found


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _loss(value: Any, function: Function) -> Tensor:
    """The function's value, which must be one float."""
    ok = isinstance(value, Base) and value.type.dtype.is_float
    if not ok or any([not isinstance(e, int) or e != 1 for e in value.type.shape]):
        found = str(value.type) if isinstance(value, Base) else type(value).__name__
        raise Error(
            "E0624", f"grad: {_name(function)} must give one float", where=here(),
            details=(f"found {found}",), hint="reduce it, e.g. with nn.mean or nn.sum",
        )  # fmt: skip
    return value  # type: ignore[no-any-return]


class Sources:
    """The arguments of a function with those to differentiate by replaced by tensors of their own.

    What reaches the function's value otherwise (through its closure) is then constant.
    """

    def __init__(self, function: Function, args: Sequence[Any], numbers: Sequence[int]) -> None:
        self.args = list(args)
        self.tensors: list[Tensor] = []
        self.trees: list[tuple[Any, int]] = []
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise Error(
                    "E0624", f"grad: {_name(function)} has no argument {number}", where=here(),
                    details=(f"{len(args)} positional arguments given",),
                )  # fmt: skip
            self._take(function, number)

    def _take(self, function: Function, number: int) -> None:
        given = self.args[number]
        if isinstance(given, Module):
            named = {n: p for n, p in given.named_parameters() if p.requires_grad}
            self.trees.append((list(named), len(named)))
            self.tensors += named.values()
            return
        leaves, tree = flatten(given)
        own = []
        for x, label in zip(leaves, paths(given, f"argument {number}"), strict=True):
            t = as_tensor(x)
            if not t.type.dtype.is_float:
                raise Error(
                    "E0624", f"grad: {_name(function)}: {label} is no float", where=here(),
                    details=(f"found {t.type}",), hint="argnums says by which arguments",
                )  # fmt: skip
            own.append(_fresh(t))
        self.tensors += own
        self.trees.append((tree, len(own)))
        self.args[number] = unflatten(tree, own)

    def gathered(self, found: Sequence[Tensor | None]) -> list[Any]:
        """The gradients arranged as the arguments are; zeros where there is no path."""
        full = [zeros_like(t) if g is None else g for g, t in zip(found, self.tensors, strict=True)]
        made: list[Any] = []
        for tree, count in self.trees:
            part, full = full[:count], full[count:]
            made.append(unflatten(tree, part) if isinstance(tree, Tree) else dict(zip(tree, part)))
        return made


def _fresh(t: Tensor) -> Tensor:
    """The same values as another tensor, connected where its gradient is asked for."""
    if STATE.trace is not None and (t.value is not None or t.is_state):
        return one(Identity, t)
    if STATE.trace is not None:
        return STATE.trace.tensor(STATE.trace.fresh(t))
    if t.requires_grad and STATE.recording:
        return one(Identity, t)
    return leaf(t.array, t.type, requires_grad=True)


def gradients(
    outputs: Sequence[Tensor] | Tensor,
    wrt: Sequence[Tensor],
    cotangents: Sequence[Any] | None = None,
) -> list[Tensor | None]:
    """The gradients of tensors already computed by others that they depend on; None: no path.

    Eager ones need a recording (`wrt` requires gradients), traced ones only to be in the trace.
    """
    outs = [outputs] if isinstance(outputs, Base) else list(outputs)
    given = (
        [ones_like(t) for t in outs]
        if cotangents is None
        else [as_tensor(g, t.type.dtype) for g, t in zip(cotangents, outs, strict=True)]
    )
    return _gradients(outs, given, wrt)[0]


def _gradients(
    outs: Sequence[Tensor], given: Sequence[Tensor], wrt: Sequence[Tensor], stop: bool = False
) -> tuple[list[Tensor | None], bool]:
    """The gradients, and whether they and the outputs have a history that goes on."""
    if STATE.trace is not None:
        return STATE.trace.gradients(outs, given, wrt), True
    tape = Tape(outs, wrt, stop)
    own = {id(t) for t in wrt if t.node is None}
    keep = STATE.recording and (
        any([t.node is not None for t in wrt])
        or any([id(t) not in own for t, _ in tape.leaves])
        or any([g.requires_grad for g in given])
    )
    return gradients_on(tape, outs, given, wrt, keep), keep


__all__ = ["grad", "gradients", "value_and_grad"]
