"""Functions that move elements: reshape, transpose, concatenate, split, pad, roll, tile.

An extent may be symbolic wherever the IR allows it; -1 in a shape is what remains.
May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.dims import Dim, DimLike
from ...ir.errors import Error
from ...ir.ops import shape as shapes
from ...ir.ops.pad import Pad
from ...ir.types import Shape
from .dispatch import as_tensor, here, one
from .dtypes import promoted
from .functions import cast

if TYPE_CHECKING:
    from .tensor import Tensor

Axes = int | Sequence[int] | None


def axis_in(axis: int, rank: int, name: str) -> int:
    """`axis` counted from the front; E0612 where the tensor has no such axis."""
    if not -rank <= axis < rank:
        raise Error("E0612", f"{name}: axis {axis} of a tensor with {rank} axes", where=here())
    return axis % rank if rank else 0


def axes_in(axes: Axes, rank: int, name: str) -> tuple[int, ...]:
    """All axes for None, else those given, counted from the front."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, int) else axes
    return tuple([axis_in(a, rank, name) for a in given])


def as_shape(given: Any) -> tuple[Any, ...]:
    """A shape from `(2, 3)`, `[2, 3]`, `2` or the arguments `2, 3`."""
    while isinstance(given, (tuple, list)) and len(given) == 1 and not _is_extent(given[0]):
        given = given[0]
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def extents(given: Any, name: str) -> tuple[Any, ...]:
    """A shape of a new tensor; E0612 for what is none."""
    shape = tuple([int(e) if isinstance(e, np.integer) else e for e in as_shape(given)])
    wrong = [e for e in shape if not isinstance(e, (int, Dim)) or (isinstance(e, int) and e < 0)]
    if wrong:
        raise Error("E0612", f"{name}: {wrong[0]!r} is no extent of a tensor", where=here())
    return shape


def _is_extent(given: Any) -> bool:
    return not isinstance(given, (tuple, list))


def reshape(x: Any, *shape: Any) -> Tensor:
    """The elements in row-major order as another shape; one extent may be -1."""
    x = as_tensor(x)
    want = as_shape(shape)
    if any([type(e) is int and e == -1 for e in want]):
        rest = math.prod([e for e in want if not (type(e) is int and e == -1)])
        if type(rest) is int and rest == 0 or sum([type(e) is int and e == -1 for e in want]) > 1:
            raise Error("E0612", f"reshape: no extent follows for -1 in {want}", where=here())
        want = tuple([x.type.size // rest if type(e) is int and e == -1 else e for e in want])
    return x if want == x.type.shape else one(shapes.Reshape, x, shape=want)


def transpose(x: Any, *axes: Any) -> Tensor:
    """The axes in another order, reversed where none is given.

    Two axes alone of a tensor with more are exchanged, as torch does.
    """
    x = as_tensor(x)
    rank = x.ndim
    given = as_shape(axes) if axes and axes != (None,) else tuple(range(rank))[::-1]
    order = axes_in(given, rank, "transpose")
    if len(order) == 2 and rank != 2:
        return swapaxes(x, *order)
    return x if order == tuple(range(rank)) else one(shapes.Transpose, x, perm=order)


permute = transpose


def swapaxes(x: Any, first: int, other: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    first, other = axes_in((first, other), x.ndim, "swapaxes")
    order[first], order[other] = order[other], order[first]
    return one(shapes.Transpose, x, perm=tuple(order))


def moveaxis(x: Any, source: Axes, target: Axes) -> Tensor:
    """The axes `source` at the places `target`, the others in order."""
    x = as_tensor(x)
    taken = axes_in(source, x.ndim, "moveaxis")
    places = axes_in(target, x.ndim, "moveaxis")
    order = [k for k in range(x.ndim) if k not in taken]
    for place, axis in sorted(zip(places, taken, strict=True)):
        order.insert(place, axis)
    return one(shapes.Transpose, x, perm=tuple(order))


def squeeze(x: Any, axis: Axes = None) -> Tensor:
    """Without the axes of extent 1 (those named: E0612 where one is longer)."""
    x = as_tensor(x)
    extents = x.type.shape
    if axis is None:
        gone = tuple([k for k, e in enumerate(extents) if type(e) is int and e == 1])
    else:
        gone = axes_in(axis, x.ndim, "squeeze")
        wrong = [k for k in gone if not (type(extents[k]) is int and extents[k] == 1)]
        if wrong:
            raise Error(
                "E0612", f"squeeze: axis {wrong[0]} of {x.type} is not of extent 1", where=here()
            )
    return reshape(x, tuple([e for k, e in enumerate(extents) if k not in gone]))


def expand_dims(x: Any, axis: int | Sequence[int]) -> Tensor:
    """With new axes of extent 1 at these places of the result."""
    x = as_tensor(x)
    count = 1 if isinstance(axis, int) else len(axis)
    places = axes_in(axis, x.ndim + count, "expand_dims")
    rest = iter(x.type.shape)
    return reshape(x, tuple([1 if k in places else next(rest) for k in range(x.ndim + count)]))


unsqueeze = expand_dims


def flatten(x: Any, start: int = 0, end: int = -1) -> Tensor:
    """The axes from `start` to `end` as one."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, (1,))
    start, end = axis_in(start, x.ndim, "flatten"), axis_in(end, x.ndim, "flatten")
    extents = x.type.shape
    middle = math.prod(extents[start : end + 1])
    return reshape(x, (*extents[:start], middle, *extents[end + 1 :]))


ravel = flatten


def broadcast_to(x: Any, *shape: Any) -> Tensor:
    """x repeated to the shape; -1 keeps an extent."""
    x = as_tensor(x)
    want = list(as_shape(shape))
    skip = len(want) - x.ndim
    for k, extent in enumerate(want):
        if type(extent) is int and extent == -1 and k >= skip:
            want[k] = x.type.shape[k - skip]
    return x if tuple(want) == x.type.shape else one(shapes.BroadcastTo, x, shape=tuple(want))


expand = broadcast_to


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors one after the other along an axis."""
    given = alike(xs, "concatenate")
    return one(shapes.Concat, *given, axis=axis_in(axis, given[0].ndim, "concatenate"))


cat = concatenate


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors side by side along a new axis."""
    given = alike(xs, "stack")
    place = axis_in(axis, given[0].ndim + 1, "stack")
    return one(shapes.Concat, *[expand_dims(x, place) for x in given], axis=place)


def alike(xs: Sequence[Any], name: str) -> list[Tensor]:
    """The operands as tensors of one element type; E0612 where there is none."""
    given = [as_tensor(x) for x in xs]
    if not given:
        raise Error("E0612", f"{name} needs at least one tensor", where=here())
    dtype = given[0].type.dtype
    for x in given[1:]:
        dtype = promoted(dtype, x.type.dtype)
    return [cast(x, dtype) for x in given]


def slice_axis(x: Any, start: DimLike, size: DimLike, axis: int) -> Tensor:
    """`size` elements from `start` on along one axis."""
    x = as_tensor(x)
    starts: list[DimLike] = [0] * x.ndim
    sizes: list[DimLike] = list(x.type.shape)
    starts[axis], sizes[axis] = start, size
    return one(shapes.Slice, x, starts=tuple(starts), sizes=tuple(sizes))


def split(x: Any, sections: int | Sequence[DimLike], axis: int = 0) -> tuple[Tensor, ...]:
    """Parts along an axis: so many equal ones, or parts of these sizes.

    E0612 where an int does not divide the extent.
    """
    x = as_tensor(x)
    axis = axis_in(axis, x.ndim, "split")
    extent = x.type.shape[axis]
    if isinstance(sections, int):
        if type(extent) is int and extent % sections:
            raise Error(
                "E0612",
                f"split: {extent} elements do not make {sections} equal parts",
                where=here(),
            )
        sections = [extent // sections] * sections
    parts, start = [], 0
    for size in sections:
        parts.append(slice_axis(x, start, size, axis))
        start = start + size  # type: ignore[assignment]
    return tuple(parts)


def chunk(x: Any, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most so many parts of equal size, the last one smaller where it must be."""
    x = as_tensor(x)
    axis = axis_in(axis, x.ndim, "chunk")
    extent: Any = x.type.shape[axis]
    size = -(-extent // chunks)
    if not isinstance(extent, int):
        return split(x, chunks, axis)
    return split(x, [min(size, extent - k) for k in range(0, extent, max(1, size))], axis)


def pad(x: Any, widths: Any, mode: str = "constant", value: float = 0) -> Tensor:
    """With elements before and behind each axis: `widths` as in numpy, (before, behind) per axis.

    One pair, or a number, goes for all axes; `mode` is constant, edge, reflect or wrap.
    """
    x = as_tensor(x)
    if isinstance(widths, int):
        widths = ((widths, widths),) * x.ndim
    elif len(widths) == 2 and isinstance(widths[0], int):
        widths = (tuple(widths),) * x.ndim
    low, high = [tuple([pair[k] for pair in widths]) for k in (0, 1)]
    return one(Pad, x, low=low, high=high, mode=mode, value=value)


def flip(x: Any, axis: Axes = None) -> Tensor:
    """The elements in opposite order along the axes (all of them for None)."""
    x = as_tensor(x)
    turned = axes_in(axis, x.ndim, "flip")
    sizes = x.type.shape
    starts = tuple([e - 1 if k in turned else 0 for k, e in enumerate(sizes)])
    steps = tuple([-1 if k in turned else 1 for k in range(x.ndim)])
    if any([type(e) is int and e == 0 for e in sizes]):
        steps, starts = (), (0,) * x.ndim
    return one(shapes.Slice, x, starts=starts, sizes=sizes, steps=steps)


def roll(x: Any, shift: int | Sequence[int], axis: Axes = None) -> Tensor:
    """The elements moved on by `shift` along the axes, round the end; flattened for no axis."""
    moved = as_tensor(x)
    if axis is None:
        return reshape(roll(flatten(moved), shift, 0), moved.type.shape)
    places = axes_in(axis, moved.ndim, "roll")
    steps = [shift] * len(places) if isinstance(shift, int) else list(shift)
    for place, step in zip(places, steps, strict=True):
        extent: Any = moved.type.shape[place]
        if isinstance(extent, int):
            step = step % extent if extent else 0
        cut = extent - step if step >= 0 else -step
        if isinstance(extent, int) and step == 0:
            continue
        parts = [slice_axis(moved, cut, extent - cut, place), slice_axis(moved, 0, cut, place)]
        moved = concatenate(parts, place)
    return moved


def tile(x: Any, *repeats: Any) -> Tensor:
    """x side by side so often along each axis; missing counts are 1 in front."""
    x = as_tensor(x)
    counts: tuple[DimLike, ...] = as_shape(repeats)
    rank = max(len(counts), x.ndim)
    counts = (1,) * (rank - len(counts)) + counts
    extents: Shape = (1,) * (rank - x.ndim) + x.type.shape
    inner = reshape(x, tuple([e for extent in extents for e in (1, extent)]))
    want = tuple([e for c, extent in zip(counts, extents, strict=True) for e in (c, extent)])
    wide = broadcast_to(inner, want)
    return reshape(wide, tuple([c * e for c, e in zip(counts, extents, strict=True)]))


def repeat(x: Any, repeats: DimLike, axis: int | None = None) -> Tensor:
    """Each element so often in a row along the axis; flattened for no axis."""
    x = as_tensor(x) if axis is not None else flatten(x)
    axis = axis_in(axis or 0, x.ndim, "repeat")
    extents = x.type.shape
    wide = broadcast_to(
        expand_dims(x, axis + 1), (*extents[: axis + 1], repeats, *extents[axis + 1 :])
    )
    return reshape(wide, (*extents[:axis], extents[axis] * repeats, *extents[axis + 1 :]))


__all__ = [
    "as_shape", "axes_in", "axis_in", "broadcast_to", "cat", "chunk", "concatenate", "expand",
    "expand_dims", "flatten", "flip", "moveaxis", "pad", "permute", "ravel", "repeat", "reshape",
    "roll", "slice_axis", "split", "squeeze", "stack", "swapaxes", "tile", "transpose",
    "unsqueeze",
]  # fmt: skip
