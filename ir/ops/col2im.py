"""Columns to images: the adjoint of cutting an image into windows.

Imports: the core, types, dims, windows.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import Shape, TensorType, f32, from_numpy, i64
from .constraints import require, same
from .contract import add_up, as_type
from .convert import convert, widen
from .core import Const, generic
from .elementwise import constant
from .shape import DimValue
from .window import Window, window, windows_of


class Col2Im(Op, name="col2im"):
    """x [N, C * prod(kernel), L], one column for each of the L windows of an image of extents
    `size`, summed where they overlap: [N, C, *size] (ONNX Col2Im).

    f8, f16 and bf16 are summed in f32.  C1: x has rank 3, its channels are a multiple of the
    kernel.  C2: L is the number of windows.  C3: one kernel extent per axis of `size`; strides,
    dilations (>= 1) and pads (>= 0) fit their number.  C4: the kernel fits the padded image.
    """

    x = operand(Real)
    size = attr(tuple)
    kernel = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())

    @staticmethod
    def geometry(size: Shape, attrs: dict[str, Any]) -> tuple[Window, Shape]:
        """The window, and how many there are per axis."""
        kernel = attrs["kernel"]
        require(len(kernel) == len(size), "E0315",
                f"col2im (C3): {len(size)} axes, kernel {kernel}")  # fmt: skip
        win = window("col2im", kernel, attrs["strides"], attrs["pads"], attrs["dilations"])
        return win, windows_of("col2im", size, win)

    @classmethod
    def infer(cls, x: TensorType, size: Shape, **attrs: Any) -> TensorType:
        win, counts = cls.geometry(size, attrs)
        taps = math.prod(win.kernel)
        fits = x.rank == 3 and same(x.shape[1] % taps, 0) is not False
        require(fits, "E0316", f"col2im (C1): x must be [N, C * {taps}, L]", f"found {x}")
        total: DimLike = 1
        for count in counts:
            total = total * count
        require(same(x.shape[2], total), "E0316", f"col2im (C2): there are {total} windows",
                f"found {x}")  # fmt: skip
        return TensorType(x.dtype, (x.shape[0], x.shape[1] // taps, *size))

    @classmethod
    def evaluate(cls, x: Array, size: tuple[int, ...], **attrs: Any) -> Array:
        win, counts = cls.geometry(size, attrs)
        count = [int(c) for c in counts]  # type: ignore[arg-type]
        wide = widen(x)
        channels = x.shape[1] // math.prod(win.kernel)
        parts = wide.reshape(x.shape[0], channels, *win.kernel, *count)
        room = [e + a + c for e, a, c in zip(size, win.before, win.after)]
        out = np.zeros((x.shape[0], channels, *room), wide.dtype)
        for tap in np.ndindex(*win.kernel):
            place = (slice(None), slice(None), *win.slices(tap, count))
            out[place] += parts[(slice(None), slice(None), *tap)]
        kept = [slice(a, a + e) for a, e in zip(win.before, size)]
        return convert(out[(slice(None), slice(None), *kept)], from_numpy(x.dtype))

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the image, summed over the taps; a tap counts where a window puts it there."""
        attrs = self.attributes
        size = attrs.pop("size")
        win, counts = self.geometry(size, attrs)
        x, out = xs[0].tensor, self.result.tensor
        acc = f32 if x.dtype.is_float and x.dtype.bits < 32 else x.dtype
        its = [("n", out.shape[0], "parallel"), ("c", out.shape[1], "parallel")]
        its += [(f"s{k}", extent, "parallel") for k, extent in enumerate(size)]
        its += [(f"k{k}", extent, "reduction") for k, extent in enumerate(win.kernel)]
        channel: DimLike = sym("c")
        column: DimLike = 0
        where: list[DimLike] = []
        for k, count in enumerate(counts):
            channel = channel * win.kernel[k] + sym(f"k{k}")
            reach = sym(f"s{k}") + win.before[k] - sym(f"k{k}") * win.dilations[k]
            at = reach // win.strides[k]
            column = column * count + at
            where += [reach, count - 1 - at]
            if win.strides[k] > 1:
                where.append(-(reach % win.strides[k]))
        target = [sym(name) for name, _, kind in its if kind == "parallel"]
        zero = 0 if x.dtype.is_integer else 0.0
        return generic(  # type: ignore[no-any-return]
            b, xs, its, [[sym("n"), channel, column]], [target], [out],
            lambda b, x: as_type(b, x, acc), init=(zero,), combine=add_up, acc_types=(acc,),
            fills=(zero,), where=(where,),
        )  # fmt: skip

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The windows cut out again: one gather from the padded image, laid flat."""
        attrs = self.attributes
        win, counts = self.geometry(attrs.pop("size"), attrs)
        padded = b.pad(g, low=(0, 0, *win.before), high=(0, 0, *win.after))
        room = padded.tensor.shape
        index = b.insert(Const(np.zeros((), np.int64))).result
        area: DimLike = 1
        for k, extent in enumerate(room[2:]):
            along = [1] * (2 * win.rank)
            along[k] = win.kernel[k]
            moved = np.arange(win.kernel[k]).reshape(along) * win.dilations[k]
            taps = b.insert(Const(moved)).result
            spread: list[DimLike] = [1] * (2 * win.rank)
            spread[win.rank + k] = counts[k]
            at = b.iota(shape=spread, axis=win.rank + k)
            at = b.add(b.mul(at, constant(b, at, win.strides[k])), taps)
            index = b.add(b.mul(index, b.emit(DimValue, dim=extent, dtype=i64)), at)
            area = area * extent
        index = b.reshape(index, shape=(math.prod(win.kernel), self.x.tensor.shape[2]))
        flat = b.reshape(padded, shape=(*room[:2], area))
        return (b.reshape(b.take(flat, index, axis=2), shape=self.x.tensor.shape),)

    samples: ClassVar[Any] = (
        sample((1, 12, 6), size=(3, 4), kernel=(2, 2)),
        sample((2, 6, 6), size=(5, 6), kernel=(2, 3), strides=(2, 3), pads=(1, 0, 0, 2)),
        sample((1, 4, 4), size=(5, 5), kernel=(2, 2), dilations=(3, 3)),
        sample((1, 3, 5), size=(9,), kernel=(3,), strides=(2,), pads=(1, 1), dtypes=("i32",)),
        sample((1, 8, 12), size=(3, 4, 3), kernel=(2, 2, 2), dtypes=("f16",)),
        sample((0, 12, 6), size=(3, 4), kernel=(2, 2)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 11, 6), size=(3, 4), kernel=(2, 2))),
        ("C2", sample((1, 12, 7), size=(3, 4), kernel=(2, 2))),
        ("C3", sample((1, 12, 6), size=(3, 4), kernel=(2,))),
        ("C3", sample((1, 12, 6), size=(3, 4), kernel=(2, 2), strides=(0, 1))),
        ("C4", sample((1, 12, 6), size=(1, 4), kernel=(3, 2))),
    )


__all__ = ["Col2Im"]
