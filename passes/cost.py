"""What things cost, roughly: operations, bytes, and the choice between two layouts of a
convolution.

One model for layout, fusion and schedules; all figures are estimates from shapes.  May import: ir.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..ir.core import Op, Value
from ..ir.dims import Dim, DimLike, evaluate
from ..ir.ops.contract import parse_equation
from ..ir.ops.core import Const
from ..ir.types import TensorType

ASSUMED = 16
"""The value of a symbolic dim where a figure needs one."""
PLAIN_CONV = 2.5
"""How much slower a convolution in plain layout runs than a blocked one, per useful operation."""
FEW_CHANNELS = 4
"""Input channels up to which padding them to a block costs more than reading them one by one."""
BYTES_PER_FLOP = 8.0
"""Operations that take as long as moving one byte through memory."""


def extent(dim: DimLike) -> int:
    """A dim as a number; symbols count as `ASSUMED`."""
    return evaluate(dim, dict.fromkeys(dim.symbols, ASSUMED)) if isinstance(dim, Dim) else dim


def elements(type: TensorType) -> int:
    """Number of elements."""
    return math.prod([extent(e) for e in type.shape])


def size_of(value: Value) -> int:
    """Bytes of a tensor."""
    return elements(value.tensor) * max(8, value.tensor.dtype.bits) // 8


@dataclass(frozen=True)
class Cost:
    """Arithmetic operations and bytes moved, operands and results each once."""

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / max(1, self.bytes)


def cost_of(op: Op) -> Cost:
    """The cost of one tensor-level op."""
    values = [v for v in (*op.operands, *op.results) if v is not None and _is_tensor(v)]
    moved = sum([size_of(v) for v in values])
    count = _FLOPS.get(op.name)
    if count is not None:
        return Cost(count(op), moved)
    if op.name in _VIEWS:
        return Cost(0, moved)
    return Cost(max([elements(v.tensor) for v in values], default=0), moved)


def work(op: Op) -> Cost:
    """What a whole op does, regions included: a fused region, a loop, or one op alone.

    Operations are those of all ops inside, as often as a loop runs them (once where only the data
    says how often), of the dearer branch of an `if`; bytes are those of its own operands and
    results, each once.
    """
    if not op.regions:
        return cost_of(op)
    moved = sum([size_of(v) for v in (*op.operands, *op.results) if _is_tensor(v)])
    inner = [sum([work(o).flops for o in block if not o.terminator]) for block in op.regions]
    return Cost(max(inner) if op.name == "if" else trips(op) * sum(inner), moved)


def trips(op: Op) -> int:
    """How often the regions of an op run: 1 unless it is a loop of a length known here."""
    known = op.trips if op.name == "scan" else op.attributes.get("trip")  # type: ignore[attr-defined]
    return max(0, extent(known)) if isinstance(known, (int, Dim)) else 1


def _is_tensor(value: Value | None) -> bool:
    return value is not None and isinstance(value.type, TensorType)


_VIEWS = frozenset(
    {"reshape", "transpose", "slice", "broadcast_to", "pad", "concat", "pack", "unpack", "const"}
)


def _matmul(op: Op) -> int:
    return 2 * elements(op.results[0].tensor) * extent(op.operands[0].tensor.shape[-1])


def _contract(op: Op) -> int:
    x, _, out = parse_equation(op.attributes["equation"])
    shape = dict(zip(x, op.operands[0].tensor.shape, strict=True))
    return (
        2
        * elements(op.results[0].tensor)
        * math.prod([extent(shape[c]) for c in x if c not in out])
    )


def _conv(op: Op) -> int:
    out, w = op.results[0].tensor, op.operands[1].tensor
    per = math.prod([extent(e) for e in w.shape[1:]])
    if op.attributes["channel_block"]:
        per //= max(1, extent(w.shape[-1]))
    return 2 * elements(out) * per


def _pool(op: Op) -> int:
    kernel: tuple[int, ...] = op.attributes["kernel"]
    return elements(op.results[0].tensor) * math.prod(kernel)


_FLOPS: dict[str, Callable[[Op], int]] = {
    "matmul": _matmul,
    "contract": _contract,
    "conv": _conv,
    "max_pool": _pool,
    "avg_pool": _pool,
}


def reads_plain(conv: Op, block: int, packed_input: bool) -> bool:
    """Does a blocked convolution read its few input channels in plain layout (a first layer)?"""
    channels = conv.operands[0].tensor.shape[1]
    few = isinstance(channels, int) and channels <= FEW_CHANNELS and channels < block
    return few and not packed_input and conv.attributes["groups"] == 1


def blocked_pays(conv: Op, block: int, packed_input: bool) -> bool:
    """Is a plain convolution cheaper in blocks of channels, padded lanes and packs counted?"""
    flops = _conv(conv)
    x, y = conv.operands[0], conv.results[0]
    channels, outs = extent(x.tensor.shape[1]), extent(y.tensor.shape[1])
    groups = conv.attributes["groups"]
    waste = -(-outs // block) * block / outs
    plain = reads_plain(conv, block, packed_input)
    if groups == 1 and not plain:
        waste *= -(-channels // block) * block / channels
    moves = 0 if packed_input or plain else 2 * size_of(x)
    if not isinstance(conv.operands[1].op, Const):
        moves += 2 * size_of(conv.operands[1])
    blocked = flops * waste + moves * BYTES_PER_FLOP
    return blocked < flops * PLAIN_CONV + 2 * size_of(y) * BYTES_PER_FLOP


__all__ = [
    "Cost",
    "blocked_pays",
    "cost_of",
    "elements",
    "extent",
    "reads_plain",
    "size_of",
    "trips",
    "work",
]
