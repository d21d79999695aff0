"""Constant arithmetic moves into weights: scales of a normalisation, transposes, pads.

Unlike canonicalize this changes rounding: (x * w) * s becomes x * (w * s).  It is done where the
product has no other user, and in floats of 32 bits and more.  May import: ir, passes.options,
passes.rules.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..ir.core import OPS, Array, Builder, Op, Value
from ..ir.dims import equal
from ..ir.ops.contract import parse_equation
from ..ir.ops.core import Module
from ..ir.rewrite import worklist
from ..ir.types import TensorType
from .options import Pass
from .rules.fold import fold_rules
from .rules.gradients import gradient_rules
from .rules.values import (
    LATE,
    RuleTable,
    classes,
    constant,
    derived_constant,
    is_constant,
    joined,
    make_constant,
    moved_constant,
    only_user,
    table,
)

_FOLD_LIMIT = 64 << 10


@dataclass(frozen=True)
class FoldWeights(Pass):
    """Fold constant factors and divisors behind a convolution or product into its weights; merge
    transposes and pads.

    `scales=false` keeps every rounding as it was.
    """

    scales: bool = True

    def run(self, module: Module) -> Module:
        rules = weight_rules(self.scales)
        for func in module.funcs:
            if func.kind == "func":
                worklist(func, rules)
        return module


def _per_channel(array: Array, rank: int, axis: int) -> Array | None:
    """The factors along one axis of a broadcast constant that varies along no other axis; None
    otherwise.
    """
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or any([e != 1 for k, e in enumerate(shape) if k != axis]):
        return None
    return array.reshape(-1)


def scaled_weights(op: Op, b: Builder) -> Value | None:
    """conv(x, w) * s is conv(x, w * s) where s has one factor per output channel; so for matmul and
    its columns.
    """
    for value, factor in ((op.operands[0], op.operands[1]), (op.operands[1], op.operands[0])):
        producer, s = value.op, constant(factor)
        if (
            producer is None
            or s is None
            or only_user(value) is not op
            or value.type is not op.results[0].type
        ):
            continue
        scaled = _scaled(producer, s, op.name, b)
        if scaled is not None:
            return scaled
        if op.name == "div":
            break
    return None


def _scaled(producer: Op, s: Array, how: str, b: Builder) -> Value | None:
    """The producer with its constant weights multiplied (or divided) by s."""
    result = producer.results[0].tensor
    if result.dtype.name not in ("f32", "f64"):
        return None
    if producer.name == "conv" and not producer.attributes["channel_block"]:
        axis = 1
    elif producer.name == "matmul" and producer.operands[1].tensor.rank == 2:
        axis = result.rank - 1
    else:
        return None
    x, w = producer.operands
    weights = constant(w)
    factors = _per_channel(s, result.rank, axis)
    if weights is None or factors is None or not np.isfinite(factors).all():
        return None
    shape = (-1, *[1] * (weights.ndim - 1)) if producer.name == "conv" else (1, -1)
    if factors.size == 1:
        shape = (1,) * weights.ndim
    factors = factors.reshape(shape)

    def scale(array: Array) -> Array:
        with np.errstate(all="ignore"):
            made = array * factors if how == "mul" else array / factors
        return made.astype(array.dtype, copy=False)

    made = scale(weights)
    if not np.isfinite(made).all():
        return None
    if made.nbytes < LATE or made.shape != weights.shape:
        new = make_constant(b, made, w.tensor)
    else:  # made again where it is written: meanwhile no second copy of the weights is held
        new = derived_constant(b, w.owner.value, w.tensor, scale)
    return b.emit(type(producer), x, new, **producer.attributes)  # type: ignore[no-any-return]


def scaled_sum(op: Op, b: Builder) -> Value | None:
    """(y + c) * s is y * s + c * s for constants c and s, where y is a product with constant
    weights.
    """
    total, factor = op.operands
    inner = total.op
    if (
        inner is None
        or inner.name != "add"
        or not is_constant(factor)
        or only_user(total) is not op
    ):
        return None
    if total.type is not op.results[0].type:
        return None
    y, c = inner.operands
    producer = y.op
    if (
        not is_constant(c)
        or producer is None
        or producer.name not in ("conv", "matmul")
        or only_user(y) is not inner
    ):
        return None
    s = constant(factor)
    assert s is not None
    if y.type is not total.type or not is_constant(producer.operands[1]):
        return None
    scaled = _scaled(producer, s, op.name, b)
    if scaled is None:
        return None
    return b.add(scaled, b.emit(type(op), c, factor))  # type: ignore[no-any-return]


def added_twice(op: Op, b: Builder) -> Value | None:
    """(y + c) + d is y + (c + d) behind a product with constant weights."""
    total, d = op.operands
    inner = total.op
    if inner is None or inner.name != "add" or only_user(total) is not op or not is_constant(d):
        return None
    y, c = inner.operands
    if (
        not is_constant(c)
        or y.op is None
        or y.op.name not in ("conv", "matmul")
        or y.type is not op.results[0].type
    ):
        return None
    if not _small(c, y) or not _small(d, y):
        return None
    return b.add(y, b.add(c, d))  # type: ignore[no-any-return]


def _small(c: Value, y: Value) -> bool:
    if not c.tensor.is_static or not y.tensor.is_static:
        return c.tensor.is_static
    return bool(c.tensor.size <= y.tensor.size)


def conv_of_pad(op: Op, b: Builder) -> Value | None:
    """A zero pad of the spatial axes before a convolution becomes the convolution's pads."""
    x, w = op.operands
    pad = x.op
    if pad is None or pad.name != "pad" or op.attributes["channel_block"]:
        return None
    merged = _merged_pads(pad, op, 0)
    if merged is None:
        return None
    return b.emit(type(op), pad.operands[0], w, **{**op.attributes, "pads": merged})  # type: ignore[no-any-return]


def pool_of_pad(op: Op, b: Builder) -> Value | None:
    """A pad with the least value before a max pool becomes the pool's pads (where they stay below
    the kernel).
    """
    pad = op.operands[0].op
    if (
        pad is None
        or pad.name != "pad"
        or op.attributes["channel_block"]
        or op.attributes["ceil_mode"]
    ):
        return None
    if not op.operands[0].tensor.dtype.is_float:
        return None
    merged = _merged_pads(pad, op, -np.inf)
    kernel = op.attributes["kernel"]
    dilations = op.attributes["dilations"] or (1,) * len(kernel)
    if merged is None:
        return None
    if any(
        [
            p > d * (k - 1)
            for p, k, d in zip(merged, (*kernel, *kernel), (*dilations, *dilations), strict=True)
        ]
    ):
        return None
    return b.emit(type(op), pad.operands[0], **{**op.attributes, "pads": merged})  # type: ignore[no-any-return]


def _merged_pads(pad: Op, op: Op, value: float) -> tuple[int, ...] | None:
    """The pads of a window op plus those of a pad before it; None where the pad does something
    else.
    """
    given = pad.attributes
    low, high = given["low"], given["high"]
    if (
        given["mode"] != "constant"
        or given["value"] != value
        or any([p != 0 for p in (*low[:2], *high[:2])])
    ):
        return None
    more = (*low[2:], *high[2:])
    if any([not isinstance(p, int) or p < 0 for p in more]):
        return None
    have = op.attributes["pads"] or (0,) * len(more)
    return tuple([p + q for p, q in zip(have, more, strict=True)])


def contract_transpose(op: Op, b: Builder) -> Value | None:
    """A transpose of an operand of a product is only another order of its letters."""
    x, y = op.operands
    equation = _equation(op)
    if equation is None:
        return None
    terms = list(parse_equation(equation))
    changed = False
    operands = [x, y]
    for k, value in enumerate((x, y)):
        view = value.op
        if view is not None and view.name == "transpose":
            perm = view.attributes["perm"]
            letters = [""] * len(perm)
            for at, source in enumerate(perm):
                letters[source] = terms[k][at]
            terms[k], operands[k], changed = "".join(letters), view.operands[0], True
    if not changed:
        return None
    made = f"{terms[0]},{terms[1]}->{terms[2]}"
    return b.contract(*operands, equation=made, out=op.attributes["out"])  # type: ignore[no-any-return]


def transposed_product(op: Op, b: Builder) -> Value | None:
    """A transpose of a product that nothing else reads is another order of its result's letters."""
    product = op.operands[0].op
    if product is None or product.name not in ("matmul", "contract"):
        return None
    equation = _equation(product)
    if equation is None or only_user(product.results[0]) is not op:
        return None
    x, y, out = parse_equation(equation)
    made = f"{x},{y}->{''.join([out[k] for k in op.attributes['perm']])}"
    return b.contract(*product.operands, equation=made, out=product.attributes["out"])  # type: ignore[no-any-return]


def merged_reductions(op: Op, b: Builder) -> Value | None:
    """Axes that stand side by side in both operands and are summed over are one axis: "abk,abn->kn"
    is a product of matrices.
    """
    x, y, out = parse_equation(op.attributes["equation"])
    for p, q in itertools.pairwise(x):
        if p + q in y and p not in out and q not in out:
            break
    else:
        return None
    if any([v.op is not None and v.op.name in _VIEWS for v in op.operands]):
        return None  # read through where it is; as a value of its own it would be copied
    terms = [x.replace(p + q, p), y.replace(p + q, p)]
    merged = [_merged(b, v, term.index(p)) for v, term in zip(op.operands, terms, strict=True)]
    return b.contract(*merged, equation=f"{terms[0]},{terms[1]}->{out}", out=op.attributes["out"])  # type: ignore[no-any-return]


_VIEWS = ("transpose", "slice", "broadcast_to", "pad", "unpack", "pack")


def _merged(b: Builder, value: Value, axis: int) -> Value:
    """The value with an axis and the next one as one."""
    shape = value.tensor.shape
    made = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return b.reshape(value, shape=made)  # type: ignore[no-any-return]


def _equation(op: Op) -> str | None:
    """The equation of a contract, or of a matmul whose batch axes need no broadcast."""
    if op.name == "contract":
        return op.attributes["equation"]  # type: ignore[no-any-return]
    x, y = [v.tensor for v in op.operands]
    batch = "abcdefgh"[: x.rank - 2]
    if y.rank == 2 and x.rank - 2 <= 8:
        return f"{batch}mk,kn->{batch}mn"
    if x.rank == y.rank <= 10 and all(
        [equal(p, q) is True for p, q in zip(x.shape[:-2], y.shape[:-2], strict=True)]
    ):
        return f"{batch}mk,{batch}kn->{batch}mn"
    return None


def plain_contract(op: Op, b: Builder) -> Value | None:
    """A contract that says "mk,kn->mn" is a matmul."""
    terms = parse_equation(op.attributes["equation"])
    (x, y, out) = terms
    if len(x) != 2 or len(y) != 2 or x[1] != y[0] or out != x[0] + y[1]:
        return None
    return b.matmul(*op.operands, out=op.attributes["out"])  # type: ignore[no-any-return]


def transposed_constant(op: Op, b: Builder) -> Value | None:
    """A constant second operand read column by column is stored the other way round: "mk,nk->mn" is
    a matmul.
    """
    x, y, out = parse_equation(op.attributes["equation"])
    weights = op.operands[1]
    if not is_constant(weights) or len(x) < 2 or len(y) != 2:
        return None
    if x[-1] != y[1] or out != x[:-1] + y[0]:
        return None
    type_ = TensorType(weights.tensor.dtype, weights.tensor.shape[::-1])
    if weights.owner.value.nbytes >= LATE:
        turned = moved_constant(b, OPS["transpose"], weights.owner.value, type_, {"perm": (1, 0)})
    else:
        turned = make_constant(b, weights.owner.value.array.T, type_)
    return b.matmul(op.operands[0], turned, out=op.attributes["out"])  # type: ignore[no-any-return]


def stored_weights(op: Op, b: Builder) -> Value | None:
    """Weights that are one repeated number are stored all the same: kernels want them in panels."""
    x, w = op.operands
    fill = w.op
    if fill is None or fill.name != "broadcast_to" or not is_constant(fill.operands[0]):
        return None
    if not w.tensor.is_static or is_constant(x):
        return None
    shape = tuple([int(str(e)) for e in w.tensor.shape])

    def repeat(array: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(array, shape))

    source = fill.operands[0].owner.value
    if w.tensor.size * w.tensor.dtype.bytes < LATE:
        stored = make_constant(b, repeat(source.array), w.tensor)
    else:
        stored = derived_constant(b, source, w.tensor, repeat)
    return b.emit(type(op), x, stored, **op.attributes)  # type: ignore[no-any-return]


def weight_rules(scales: bool) -> RuleTable:
    """The table of this file."""
    always = table(
        (classes("conv", "matmul"), [stored_weights]),
        (classes("conv"), [conv_of_pad]),
        (classes("max_pool"), [pool_of_pad]),
        (classes("matmul", "contract"), [contract_transpose]),
        (classes("transpose"), [transposed_product]),
        (classes("contract"), [plain_contract, transposed_constant, merged_reductions]),
    )
    always = joined(always, gradient_rules())
    if not scales:
        return always
    scaling = table(
        (classes("mul", "div"), [scaled_weights, scaled_sum]), (classes("add"), [added_twice])
    )
    folding = fold_rules(_FOLD_LIMIT)
    arithmetic = {cls: folding[cls] for cls in classes("add", "mul", "div")}
    return joined(arithmetic, always, scaling)


__all__ = ["FoldWeights", "weight_rules"]
