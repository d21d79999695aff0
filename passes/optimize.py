"""A smaller module that means the same, for any target and for other tools: `irc optimize`.

Constants are folded, normalisations go into the weights, equal and dead ops go.  Nothing is packed
or decomposed, no constant that others use is copied, and the forms that runtimes recognise stay as
they are.  A constant of one number repeated is a view of that number on the way, and costs nothing.
May import: ir, passes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.blobs import Blob
from ..ir.core import OPS, Builder, Op, Value
from ..ir.ops.core import Const, Module
from ..ir.ops.elementwise import _Elementwise
from ..ir.rewrite import Rule, worklist
from ..ir.types import TensorType
from .cse import Cse
from .fold_weights import added_twice, conv_of_pad, pool_of_pad, scaled_sum, scaled_weights
from .half import Half
from .hoist import Hoist
from .options import Pass
from .rules.algebra import algebra_rules, division_by_power_of_two, power
from .rules.control import control_rules
from .rules.dims import dim_rules
from .rules.fold import fold_rules
from .rules.shapes import later_reshape, shape_rules
from .rules.values import (
    RuleTable,
    classes,
    constant,
    is_constant,
    joined,
    only_user,
    repeated,
    table,
)

LIMIT = 1 << 10
"""Bytes above which one number repeated is written as that number."""
FOLD_LIMIT = 64 << 10
_MOVES = ("reshape", "transpose", "broadcast_to", "slice", "identity")
_KEPT_FORMS = {power, division_by_power_of_two, later_reshape}
"""Rules that serve our own kernels, and that would hide from a runtime what it fuses."""


# ---- one number repeated


def spread(number: np.ndarray, type: TensorType) -> Const:
    """A constant of one number repeated; the array is a view."""
    shape = [e for e in type.shape if isinstance(e, int)]
    number = number.reshape(())
    key = ("repeated", type.dtype.name, number.tobytes())  # equal ones need not be read
    return Const(Blob(np.broadcast_to(number, shape), type, key=key))


def number_of(value: Value | None) -> np.ndarray | None:
    """The number that a constant of one element, or a view of one, repeats."""
    array = constant(value)
    if array is None or array.size == 0 or array.dtype == object:
        return None
    if array.size > 1 and any([s != 0 for s, e in zip(array.strides, array.shape) if e > 1]):
        return None
    return np.asarray(array[(0,) * array.ndim])


def moved_number(op: Op, b: Builder) -> Value | None:
    """A number repeated, moved about, is the number repeated."""
    found, type_ = number_of(op.operands[0]), op.results[0].tensor
    if found is None or not type_.is_static or type_.size == 0 or _plain(op):
        return None
    return b.insert(spread(found, type_)).result


def computed_number(op: Op, b: Builder) -> Value | None:
    """An elementwise op on numbers repeated is one number repeated."""
    numbers = [number_of(v) for v in op.operands]
    type_ = op.results[0].type
    if not isinstance(type_, TensorType) or not type_.is_static or type_.size == 0 or _plain(op):
        return None
    if not numbers or any([n is None for n in numbers]):
        return None
    with np.errstate(all="ignore"):
        found = np.asarray(type(op).evaluate(*numbers, **op.attributes))
    return b.insert(spread(found.astype(type_.dtype.np), type_)).result


def _plain(op: Op) -> bool:
    """Small enough for the plain folding rule."""
    size, dtype = op.results[0].tensor.size, op.results[0].tensor.dtype
    return isinstance(size, int) and size * dtype.bytes <= LIMIT


def gathered_number(op: Op, b: Builder) -> Value | None:
    """A large constant of one number repeated becomes a broadcast of that number."""
    blob = op.attributes["value"]
    type_ = op.results[0].type
    if not isinstance(blob, Blob) or not isinstance(type_, TensorType) or type_.size == 0:
        return None
    if blob.nbytes <= LIMIT or blob.dtype.kind not in ("float", "int", "uint", "bool"):
        return None
    first = np.asarray(blob.array[(0,) * blob.array.ndim])
    bits = np.dtype(f"u{first.dtype.itemsize}")
    if number_of(op.results[0]) is None:
        flat = np.ascontiguousarray(blob.array).view(bits).reshape(-1)
        if flat[-1] != flat[0] or (flat != flat[0]).any():
            return None
    number = b.insert(Const(Blob(first.copy(), TensorType(type_.dtype, ())))).result
    return b.broadcast_to(number, shape=type_.shape)  # type: ignore[no-any-return]


# ---- folding


def careful(rule: Rule) -> Rule:
    """`rule`, where it does not copy a large constant that another op uses as well."""

    def fold(op: Op, b: Builder) -> Sequence[Value] | Value | None:
        for value in op.operands:
            if is_constant(value) and len(value.users) > 1:
                if value.owner.value.nbytes > FOLD_LIMIT:
                    return None
        return rule(op, b)

    return fold


def compact(rule: Rule) -> Rule:
    """`rule`, where it does not multiply weights of one number by factors that differ."""

    def scale(op: Op, b: Builder) -> Sequence[Value] | Value | None:
        near = [v.op for v in op.operands if v.op is not None]
        near += [v.op for o in near if o.name == "add" for v in o.operands if v.op is not None]
        weights = [o.operands[1] for o in near if o.name in ("conv", "matmul")]
        factors = [v for v in op.operands if is_constant(v)]
        if all([number_of(v) is None and repeated(v) is None for v in factors]):
            if any([number_of(w) is not None and w.tensor.size * 4 > LIMIT for w in weights]):
                return None
        return rule(op, b)

    return scale


def one_scale(op: Op, b: Builder) -> Value | None:
    """(x * s) * r is x * (s * r), and (x * s + t) * r is x * (s * r) + t * r, for constants."""
    y, r = op.operands
    if not _factor(r, op) or only_user(y) is not op or y.type is not op.results[0].type:
        return None
    inner = y.op
    if inner is not None and inner.name == "mul" and _factor(inner.operands[1], inner):
        return b.mul(inner.operands[0], b.mul(inner.operands[1], r))  # type: ignore[no-any-return]
    if inner is None or inner.name != "add" or not _factor(inner.operands[1], inner):
        return None
    product, t = inner.operands
    scaled = product.op
    if scaled is None or scaled.name != "mul" or not _factor(scaled.operands[1], scaled):
        return None
    if only_user(product) is not inner or product.type is not y.type:
        return None
    made = b.mul(scaled.operands[0], b.mul(scaled.operands[1], r))
    return b.add(made, b.mul(t, r))  # type: ignore[no-any-return]


def one_shift(op: Op, b: Builder) -> Value | None:
    """(x * s + t) + u is x * s + (t + u) for constants."""
    y, u = op.operands
    inner = y.op
    if inner is None or inner.name != "add" or only_user(y) is not op:
        return None
    product, t = inner.operands
    fits = _factor(u, op) and _factor(t, inner) and y.type is op.results[0].type
    if not fits or product.op is None or product.op.name != "mul":
        return None
    if not _factor(product.op.operands[1], product.op) or product.type is not y.type:
        return None
    return b.add(product, b.add(t, u))  # type: ignore[no-any-return]


def _factor(value: Value, op: Op) -> bool:
    """A constant of floats that is repeated over some axis of the op's result."""
    type_ = op.results[0].tensor
    if not is_constant(value) or value.tensor.dtype.name not in ("f32", "f64"):
        return False
    return op.operands[0].type is type_ and value.tensor.size * 2 <= FOLD_LIMIT


@functools.cache
def tidy_rules() -> RuleTable:
    """What simplifies a graph and leaves the forms that runtimes know."""
    every = joined(algebra_rules(), shape_rules(), dim_rules(), control_rules())
    kept = {cls: [r for r in rules if r not in _KEPT_FORMS] for cls, rules in every.items()}
    folding = {cls: [careful(r) for r in rules] for cls, rules in fold_rules(FOLD_LIMIT).items()}
    elementwise = [c for c in OPS.values() if issubclass(c, _Elementwise)]
    numbers = table((classes(*_MOVES), [moved_number]), (elementwise, [computed_number]))
    return joined(kept, numbers, folding)


@functools.cache
def scale_rules() -> RuleTable:
    """Factors, sums and pads that go into weights and windows."""
    rules = table(
        (classes("conv"), [conv_of_pad]),
        (classes("max_pool"), [pool_of_pad]),
        (classes("mul", "div"), [compact(scaled_weights), compact(scaled_sum)]),
        (classes("mul"), [one_scale]),
        (classes("add"), [added_twice, one_shift]),
    )
    return joined({cls: [careful(r) for r in found] for cls, found in rules.items()}, tidy_rules())


@dataclass(frozen=True)
class Tidy(Pass):
    """Fold constants and simplify; with `scales` constant factors go into the weights."""

    scales: bool = False

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                worklist(func, scale_rules() if self.scales else tidy_rules())
        return module


@dataclass(frozen=True)
class Repeated(Pass):
    """Large constants of one number repeated become broadcasts of that number."""

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                worklist(func, {Const: [gathered_number]})
        return module


def optimize_passes(f16: bool = False) -> list[Pass]:
    """The passes of `irc optimize`; with `f16` the last of them narrow f32."""
    folding = [Tidy(), Cse(), Hoist(), Tidy(scales=True), Cse()]
    return [*folding, *([Half(), Tidy(), Cse()] if f16 else []), Repeated(), Cse()]


def optimized(module: Module, f16: bool = False) -> Module:
    """A copy of the module behind those passes."""
    made = module.clone()
    for step in optimize_passes(f16):
        made = step.run(made)
    return made


__all__ = ["Repeated", "Tidy", "optimize_passes", "optimized"]
