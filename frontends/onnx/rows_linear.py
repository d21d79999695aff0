"""Import rows of products: MatMul, Gemm, convolutions, and their integer forms.

Imports: node, ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.types import i32
from .node import Node, Result, Row


def matmul(n: Node) -> Result:
    """numpy's matmul."""
    return product(n, n.x(0), n.x(1))


def product(n: Node, x: Value, y: Value) -> Value:
    """numpy's matmul: a vector gets an axis, which the result loses."""
    left, right = x.tensor.rank == 1, y.tensor.rank == 1
    if not x.tensor.rank or not y.tensor.rank:
        raise n.invalid("E0312", "MatMul takes no scalars")
    x = n.reshape(x, (1, *x.tensor.shape)) if left else x
    y = n.reshape(y, (*y.tensor.shape, 1)) if right else y
    out: Value = n.b.matmul(x, y)
    dims = out.tensor.shape
    if left or right:
        kept = [*dims[:-2], *([] if left else [dims[-2]]), *([] if right else [dims[-1]])]
        return n.reshape(out, kept)
    return out


def gemm(n: Node) -> Result:
    """alpha * A' B' + beta * C."""
    a, b = n.x(0), n.x(1)
    if a.tensor.rank != 2 or b.tensor.rank != 2:
        raise n.invalid("E0312", "Gemm takes matrices")
    a = n.transpose(a, (1, 0)) if n.attr("transA", 0) else a
    b = n.transpose(b, (1, 0)) if n.attr("transB", 0) else b
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    out: Value = n.b.matmul(a, b)
    out = out if alpha == 1.0 else n.b.mul(out, n.like(out, alpha))
    c = n.opt(2)
    if c is None or beta == 0.0:
        return out
    return n.b.add(out, c if beta == 1.0 else n.b.mul(c, n.like(c, beta)))


class Geometry(NamedTuple):
    """Kernel, strides, dilations and pads (before, then after) of the spatial axes."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def geometry(n: Node, spatial: Sequence[DimLike], kernel: Sequence[int]) -> Geometry:
    """The window that the attributes say; `auto_pad` is turned into pads."""
    rank = len(spatial)
    strides = n.ints("strides") or (1,) * rank
    dilations = n.ints("dilations") or (1,) * rank
    pads = n.ints("pads") or (0,) * (2 * rank)
    auto = n.attr("auto_pad", "NOTSET")
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise n.invalid(
            "E0315", f"{n.op}: kernel, strides, pads or dilations do not fit {rank} axes"
        )
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        low, high = [], []
        for size, k, s, d in zip(spatial, kernel, strides, dilations):
            total = _same_pads(n, size, k, s, d)
            first = total // 2 if auto == "SAME_UPPER" else total - total // 2
            low.append(first)
            high.append(total - first)
        pads = (*low, *high)
    return Geometry(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads))


def _same_pads(n: Node, size: DimLike, kernel: int, stride: int, dilation: int) -> int:
    """Padding on both sides together for ceil(size / stride) windows."""
    reach = dilation * (kernel - 1)
    if stride == 1:
        return reach  # whatever the extent is
    if not isinstance(size, int):
        raise n.unsupported(f"{n.op}: auto_pad with stride {stride} needs known extents",
                            hint="give the extents with shapes=")  # fmt: skip
    return max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)


def conv(n: Node) -> Result:
    """Convolution plus bias."""
    out = convolution(n, n.x(0), n.x(1))
    bias = n.opt(2)
    return out if bias is None else n.b.add(out, per_channel(n, bias, out))


def convolution(n: Node, x: Value, w: Value) -> Value:
    """The convolution without bias."""
    if x.tensor.rank < 3 or w.tensor.rank != x.tensor.rank:
        raise n.invalid("E0314", f"{n.op}: x and w must be [N, C, ...] and [O, C, ...]")
    kernel = w.tensor.shape[2:]
    if any(type(k) is not int for k in kernel):
        raise n.unsupported(f"{n.op}: the extents of the kernel must be known")
    said = n.ints("kernel_shape")
    if said and said != kernel:
        raise n.invalid("E0315", f"{n.op}: kernel_shape {list(said)} is not that of the weights")
    win = geometry(n, x.tensor.shape[2:], kernel)  # type: ignore[arg-type]
    return n.b.conv(x, w, strides=win.strides, pads=win.pads, dilations=win.dilations,
                    groups=n.attr("group", 1))  # fmt: skip


def per_channel(n: Node, v: Value, x: Value) -> Value:
    """A vector laid along axis 1 of x."""
    return n.reshape(v, (*v.tensor.shape, *[1] * (x.tensor.rank - 2)))


def conv_transpose(n: Node) -> Result:
    """The IR's `conv_transpose`, plus bias."""
    x, w = n.x(0), n.x(1)
    if x.tensor.rank < 3 or w.tensor.rank != x.tensor.rank:
        raise n.invalid("E0314", "ConvTranspose: x and w must be [N, C, ...] and [C, O, ...]")
    rank = x.tensor.rank - 2
    kernel = w.tensor.shape[2:]
    if any(type(k) is not int for k in kernel):
        raise n.unsupported("ConvTranspose: the extents of the kernel must be known")
    strides = n.ints("strides") or (1,) * rank
    dilations = n.ints("dilations") or (1,) * rank
    extra = n.ints("output_padding") or (0,) * rank
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]  # type: ignore[operator]
    pads = _transposed_pads(n, x.tensor.shape[2:], reach, strides, extra)  # type: ignore[arg-type]
    out = n.b.conv_transpose(x, w, strides=strides, pads=pads, dilations=dilations, extra=extra,
                             groups=n.attr("group", 1))  # fmt: skip
    bias = n.opt(2)
    return out if bias is None else n.b.add(out, per_channel(n, bias, out))


def _transposed_pads(
    n: Node,
    spatial: Sequence[DimLike],
    reach: Sequence[int],
    strides: Sequence[int],
    extra: Sequence[int],
) -> tuple[int, ...]:
    """Pads as given, or for a result of `output_shape` or, with auto_pad, size * stride."""
    rank, auto = len(spatial), n.attr("auto_pad", "NOTSET")
    given, want = n.ints("pads") or (0,) * (2 * rank), n.ints("output_shape")
    if auto == "VALID" or (auto == "NOTSET" and want is None):
        return given if auto == "NOTSET" else (0,) * (2 * rank)
    low, high = [], []
    for k in range(rank):
        target = spatial[k] * strides[k] if want is None else want[-rank:][k]
        total = strides[k] * (spatial[k] - 1) + extra[k] + reach[k] - target
        if not isinstance(total, int):
            raise n.unsupported("ConvTranspose: output_shape needs known extents",
                                hint="give the extents with shapes=")  # fmt: skip
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        low.append(first)
        high.append(total - first)
    return (*low, *high)


def shifted(n: Node, index: int, zero: int) -> Value:
    """Operand `index` in i32, less its zero point."""
    x = n.cast(n.x(index), i32)
    point = n.opt(zero)
    if point is None:
        return x
    point = n.cast(point, i32)
    if point.tensor.rank == 1 and x.tensor.rank > 1 and point.tensor.shape != (1,):
        lies = (*[1] * (x.tensor.rank - 1), -1) if index else (-1, 1)
        point = n.reshape(point, [point.tensor.shape[0] if e == -1 else e for e in lies])
    elif point.tensor.shape == (1,):
        point = n.reshape(point, ())
    return n.b.sub(x, point)


def matmul_integer(n: Node) -> Result:
    """A product in i32 of operands less their zero points."""
    if not n.has(2) and not n.has(3):
        return product(n, n.x(0), n.x(1))
    return product(n, shifted(n, 0, 2), shifted(n, 1, 3))


def conv_integer(n: Node) -> Result:
    """A convolution in i32 of operands less their zero points."""
    if not n.has(2) and not n.has(3):
        return convolution(n, n.x(0), n.x(1))
    w = n.cast(n.x(1), i32)
    point = n.opt(3)
    if point is not None:  # one for all, or one per output channel
        lies = (*point.tensor.shape, *[1] * (w.tensor.rank - 1)) if point.tensor.rank else ()
        w = n.b.sub(w, n.reshape(n.cast(point, i32), lies))
    return convolution(n, shifted(n, 0, 2), w)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("MatMul", 1, matmul),
    ("Gemm", 1, gemm),
    ("Conv", 1, conv),
    ("ConvTranspose", 1, conv_transpose),
    ("MatMulInteger", 10, matmul_integer),
    ("ConvInteger", 10, conv_integer),
)
