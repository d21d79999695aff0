"""`grad`: from a function to the function that also gives gradients.

The results stay as they are, the gradients follow, each named after its input.  Applied again it
gives the next order.  May import: ir, passes.options, pullback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.core import Builder, Value
from ...ir.errors import Error
from ...ir.interpret import input_names
from ...ir.ops.core import Const, Func, Module, zeros
from ...ir.rewrite import worklist
from ...ir.spelling import suggestion
from ..options import Pass
from .activity import active_ops, differentiable
from .pullback import pullback

Which = Sequence[int | str]


def differentiate(
    func: Func,
    wrt: Which | None = None,
    outputs: Which | None = None,
    *,
    cotangents: bool = False,
    keep: bool = True,
) -> Func:
    """A copy of `func` that also gives the gradients of `outputs` by the inputs `wrt`.

    Inputs and outputs are named or numbered; by default all float inputs and the first output: the
    others are what is reported beside it.  Outputs must be scalars, of which several are summed,
    unless `cotangents` asks for a further input for each, named `d_` and its name.  Gradients are
    called `grad.` and the input's name; where nothing leads from it to the outputs they are zeros
    (`unreached` says which).  Without `keep` they are the only results.

    Errors: E0604 an input or output that does not exist or is no float; E0605 an output that is no
    scalar; E0601, E0602 what has no reverse.
    """
    made = func.copy()
    inputs, results = _inputs(made, wrt), _outputs(made, outputs)
    returned, last = made.returned, made.body.last
    assert last is not None
    made.body.remove(last)
    names = output_names(func)
    b = Builder(made.body, loc=last.loc)
    given = [_seed(made, b, returned[k], names[k], cotangents) for k in results]
    found = pullback(b, [returned[k] for k in results], given, [made.args[k] for k in inputs])
    grads = [g or zeros(b, made.args[k].tensor) for k, g in zip(inputs, found, strict=True)]
    made.body.append(last)
    kept = list(made.returned) if keep else []
    last.set_operands([*kept, *grads])
    called = [f"grad.{input_names(func)[k]}" for k in inputs]
    made.set_attr("outputs", ([*names] if keep else []) + called)
    if not keep:
        made.set_attr("state", ())
    worklist(made, {})
    return made


def unreached(func: Func, wrt: Which | None = None, outputs: Which | None = None) -> list[str]:
    """The inputs among `wrt` from which nothing leads to the outputs: their gradients are zeros
    that were never computed.
    """
    inputs = _inputs(func, wrt)
    results = [func.returned[k] for k in _outputs(func, outputs)]
    names = input_names(func)
    return [
        names[k]
        for k in inputs
        if func.args[k] not in results and not active_ops(func.body, results, [func.args[k]])
    ]


def output_names(func: Func) -> list[str]:
    """The names of the results: declared, else out0, out1 ..."""
    given = func.outputs
    return [given[k] if k < len(given) else f"out{k}" for k in range(len(func.returned))]


def _seed(made: Func, b: Builder, value: Value, name: str, cotangents: bool) -> Value:
    """The cotangent of an output: an input of its own, or one."""
    if cotangents:
        names = input_names(made)
        arg = made.body.add_arg(value.type, f"d_{name}")
        made.set_attr("inputs", (*names, f"d_{name}"))
        return arg
    type_ = value.tensor
    if type_.shape != ():
        raise Error(
            "E0605",
            f"the output '{name}' of @{made.sym} is no scalar",
            details=(f"found {type_}",),
            hint="sum it, or give its cotangent (cotangents=True)",
        )
    return b.insert(Const(np.ones((), type_.dtype.np), type_)).result


def _inputs(func: Func, wrt: Which | None) -> list[int]:
    names = input_names(func)
    if wrt is None or not len(wrt):
        return [k for k, v in enumerate(func.args) if differentiable(v)]
    found = [_find(func, w, names, "input") for w in wrt]
    _floats(func, [func.args[k] for k in found], [names[k] for k in found], "input")
    return found


def _outputs(func: Func, outputs: Which | None) -> list[int]:
    names = output_names(func)
    chosen: Which = outputs if outputs is not None and len(outputs) else [0]
    found = [_find(func, o, names, "output") for o in chosen]
    _floats(func, [func.returned[k] for k in found], [names[k] for k in found], "output")
    return found


def _find(func: Func, which: int | str, names: Sequence[str], what: str) -> int:
    """The index of a name, or of a number as a number or a word."""
    if which in names:
        return names.index(which)
    at = int(which) if isinstance(which, int) or which.lstrip("-").isdigit() else None
    if at is not None and -len(names) <= at < len(names):
        return at % len(names)
    raise Error(
        "E0604",
        f"@{func.sym} has no {what} '{which}'",
        details=(f"{what}s: {', '.join(names) or 'none'}",),
        hint=suggestion(which, names),
    )


def _floats(func: Func, values: Sequence[Value], names: Sequence[str], what: str) -> None:
    for value, name in zip(values, names, strict=True):
        if not differentiable(value):
            raise Error(
                "E0604",
                f"the {what} '{name}' of @{func.sym} has no gradient: it is no float",
                details=(f"found {value.type}",),
            )


@dataclass(frozen=True)
class Grad(Pass):
    """Make `func` also give its gradients: see `differentiate`."""

    func: str = "main"
    wrt: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    cotangents: bool = False
    keep: bool = True

    def run(self, module: Module) -> Module:
        old = module.func(self.func)
        made = differentiate(
            old, self.wrt, self.outputs, cotangents=self.cotangents, keep=self.keep
        )
        module.body.insert_before(made, old)
        old.erase()
        return module


__all__ = ["Grad", "Which", "differentiate", "output_names", "unreached"]
