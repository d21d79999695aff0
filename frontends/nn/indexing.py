"""Indexing and choosing: `x[...]`, take, gather, scatter, one-hot, sort, top-k.

Basic indices (integers, slices, None, ...) are slices and reshapes; one or several integer arrays
are gathers; a mask of bools works on eager tensors only, its result having as many elements as the
mask has ones.  May import: ir, its siblings.
"""

from __future__ import annotations

from operator import index as as_index
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.dims import Dim, DimLike, nonneg
from ...ir.errors import Error
from ...ir.ops.index import Gather, GatherElements, GatherND, OneHot
from ...ir.ops.scatter import ScatterElements, ScatterND
from ...ir.ops.shape import Slice
from ...ir.ops.topk import TopK
from ...ir.types import boolean, f32, i64
from .dispatch import Base, apply, as_tensor, here, leaf, one
from .functions import add, cast, less, multiply, where
from .shaping import (
    axis_in,
    broadcast_to,
    expand_dims,
    flatten,
    flip,
    moveaxis,
    reshape,
    stack,
)

if TYPE_CHECKING:
    from .tensor import Tensor


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key].  Errors: E0612 too many indices or one out of range, E0614 a mask in a trace."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if len(parts) == 1 and _is_mask(parts[0]):
        return _masked(x, parts[0])
    parts = _filled(parts, x.ndim)
    x = _basic(x, parts)
    chosen = [(k, p) for k, p in enumerate(_left(parts)) if _is_array(p)]
    return _gathered(x, chosen) if chosen else x


def _is_array(part: Any) -> bool:
    if isinstance(part, (list, np.ndarray)):
        return not (isinstance(part, np.ndarray) and part.ndim == 0)
    return isinstance(part, Base)


def _is_mask(part: Any) -> bool:
    if isinstance(part, Base):
        return part.type.dtype is boolean and part.type.rank > 0
    return isinstance(part, (np.ndarray, list)) and np.asarray(part).dtype == bool


def _filled(parts: list[Any], rank: int) -> list[Any]:
    """The parts with the ellipsis written out and whole slices behind; masks as positions."""
    made: list[Any] = []
    for part in parts:
        if _is_mask(part):
            made += list(np.nonzero(_known_mask(part)))
        else:
            made.append(part)
    dots = [k for k, p in enumerate(made) if p is Ellipsis]
    used = sum([p is not None and p is not Ellipsis for p in made])
    if used > rank or len(dots) > 1:
        raise Error("E0612", f"{used} indices for a tensor with {rank} axes", where=here())
    at = dots[0] if dots else len(made)
    return made[:at] + [slice(None)] * (rank - used) + made[at + 1 :]


def _known_mask(mask: Any) -> Any:
    """The mask's values; E0614 in a trace, where they are not known."""
    if isinstance(mask, Base) and mask.value is not None:
        raise Error(
            "E0614",
            "a mask of bools chooses as many elements as it has ones, which a trace cannot know",
            where=here(),
            hint="use nn.where(mask, x, 0), or multiply by the mask",
        )
    return np.asarray(mask.array if isinstance(mask, Base) else mask)


def _masked(x: Tensor, mask: Any) -> Tensor:
    """x[mask] with a mask over the leading axes."""
    known = _known_mask(mask)
    if known.shape != x.shape[: known.ndim]:
        raise Error("E0612", f"a mask of shape {known.shape} for a tensor {x.type}", where=here())
    places = np.stack(np.nonzero(known), axis=-1).astype(np.int64)
    return one(GatherND, x, leaf(places))


def _basic(x: Tensor, parts: list[Any]) -> Tensor:
    """Slices first, then a reshape that drops integer axes and adds new ones."""
    starts: list[DimLike] = []
    sizes: list[DimLike] = []
    steps: list[int] = []
    shape: list[DimLike] = []
    axis = 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        extent = x.type.shape[axis]
        start, size, step, keep = _bounds(part, extent, axis)
        starts.append(start)
        sizes.append(size)
        steps.append(step)
        if keep:
            shape.append(size)
        axis += 1
    whole = tuple(sizes) == x.type.shape and not any([type(s) is not int or s != 0 for s in starts])
    if not whole or any([s != 1 for s in steps]):
        x = one(Slice, x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))
    return reshape(x, tuple(shape))


def _bounds(part: Any, extent: DimLike, axis: int) -> tuple[DimLike, DimLike, int, bool]:
    """Start, size and step of one index, and whether the axis stays."""
    if isinstance(part, slice):
        return (*_slice(part, extent), True)
    if _is_array(part):
        return 0, extent, 1, True
    if isinstance(part, Dim):
        return part, 1, 1, False
    try:
        place = as_index(part)
    except TypeError:
        raise Error(
            "E0612", f"a {type(part).__name__} is no index", where=here(), details=(repr(part),)
        ) from None
    if isinstance(extent, int) and not -extent <= place < extent:
        raise IndexError(f"index {place} is out of range for axis {axis} of {extent} elements")
    return (place if place >= 0 else extent + place), 1, 1, False


def _slice(part: slice, extent: DimLike) -> tuple[DimLike, DimLike, int]:
    """Start, size and step of a slice; symbolic ones are taken to lie inside the axis."""
    step = 1 if part.step is None else as_index(part.step)
    bounds = (part.start, part.stop)
    if isinstance(extent, int) and not any([isinstance(b, Dim) for b in bounds]):
        places = range(*part.indices(extent))
        return (places.start if places else 0), len(places), step
    if step < 0:
        if bounds != (None, None):
            raise Error("E0612", "a negative step needs a known extent", where=here())
        return extent - 1, -((-extent) // -step), step
    start = 0 if part.start is None else _place(part.start, extent)
    stop = extent if part.stop is None else _place(part.stop, extent)
    return start, -((start - stop) // step), step


def _place(bound: DimLike, extent: DimLike) -> DimLike:
    """A bound of a slice, counted from the front."""
    return extent + bound if nonneg(bound) is False else bound


def _left(parts: list[Any]) -> list[Any]:
    """The parts whose axes `_basic` left standing."""
    return [p for p in parts if p is None or isinstance(p, slice) or _is_array(p)]


def _gathered(x: Tensor, chosen: list[tuple[int, Any]]) -> Tensor:
    """x with the axes of the index arrays replaced by the axes of their common shape."""
    indices = [_as_indices(p) for _, p in chosen]
    axes = [k for k, _ in chosen]
    if len(axes) == 1:
        return one(Gather, x, indices[0], axis=axes[0])
    shape = _common(indices)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    x = moveaxis(x, axes, tuple(range(len(axes))))
    rows = stack([broadcast_to(i, shape) for i in indices], -1)
    out = one(GatherND, x, rows)
    if together and axes[0]:
        rank = len(shape)
        out = moveaxis(out, tuple(range(rank)), tuple(range(axes[0], axes[0] + rank)))
    return out


def _common(indices: list[Tensor]) -> Any:
    total = indices[0]
    for other in indices[1:]:
        total = add(total, other)
    return total.type.shape


def _as_indices(part: Any) -> Tensor:
    found = as_tensor(np.asarray(part, np.int64) if isinstance(part, list) and not part else part)
    if not found.type.dtype.is_integer:
        raise Error("E0612", f"indices are integers, found {found.type}", where=here())
    return cast(found, i64)


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """The elements or slices at these indices along the axis; flattened for no axis.

    Negative indices count from the end; one out of range is an error (E0503).
    """
    x = as_tensor(x) if axis is not None else flatten(x)
    return one(Gather, x, _as_indices(indices), axis=axis_in(axis or 0, x.ndim, "take"))


def index_select(x: Any, axis: int, indices: Any) -> Tensor:
    """`take` with torch's order of arguments."""
    return take(x, indices, axis)


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Tensor:
    """Element by element along the axis, by indices of the rank of x; the other axes broadcast."""
    x, found = as_tensor(x), _as_indices(indices)
    place = axis_in(axis, x.ndim, "take_along_axis")
    shape = [e if _is_one(i) else i for e, i in zip(x.type.shape, found.type.shape)]
    shape[place] = found.type.shape[place]
    return one(GatherElements, x, broadcast_to(found, shape), axis=place)


def _is_one(extent: DimLike) -> bool:
    return type(extent) is int and extent == 1


def gather(x: Any, axis: int, indices: Any) -> Tensor:
    """Torch's gather: element by element along the axis, of the leading part of x that the indices
    reach in the other axes.
    """
    x, found = as_tensor(x), _as_indices(indices)
    place = axis_in(axis, x.ndim, "gather")
    if found.ndim != x.ndim:
        raise Error(
            "E0612", "gather: the indices have another rank than the tensor", where=here(),
            details=(f"tensor {x.type}", f"indices {found.type}"), hint="nn.take picks slices",
        )  # fmt: skip
    sizes = [e if k == place else i for k, (e, i) in enumerate(zip(x.type.shape, found.type.shape))]
    if tuple(sizes) != x.type.shape:
        x = one(Slice, x, starts=(0,) * x.ndim, sizes=tuple(sizes))
    return one(GatherElements, x, found, axis=place)


def scatter(x: Any, axis: int, indices: Any, updates: Any, reduction: str = "none") -> Tensor:
    """x with the updates written along the axis where the indices say, or combined.

    `reduction` is none, add, mul, max or min; of equal indices the last wins, or all are combined.
    """
    x = as_tensor(x)
    found = _as_indices(indices)
    new = broadcast_to(cast(updates, x.type.dtype), found.type.shape)
    place = axis_in(axis, x.ndim, "scatter")
    return one(ScatterElements, x, found, new, axis=place, reduction=reduction)


def scatter_add(x: Any, axis: int, indices: Any, updates: Any) -> Tensor:
    """x with the updates added along the axis where the indices say."""
    return scatter(x, axis, indices, updates, "add")


def index_add(x: Any, axis: int, indices: Any, updates: Any) -> Tensor:
    """x with slices added at these indices along the axis."""
    x = as_tensor(x)
    place = axis_in(axis, x.ndim, "index_add")
    rows = expand_dims(_as_indices(indices), -1)
    front = moveaxis(x, place, 0)
    new = moveaxis(cast(updates, x.type.dtype), place, 0)
    out = one(ScatterND, front, rows, new, reduction="add")
    return moveaxis(out, 0, place)


def one_hot(indices: Any, depth: DimLike, axis: int = -1, dtype: Any = f32) -> Tensor:
    """Ones at the indices along a new axis of extent `depth`, zeros elsewhere."""
    return cast(one(OneHot, _as_indices(indices), depth=depth, axis=axis), dtype)


def topk(x: Any, k: DimLike, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """(values, indices) of the k greatest elements along the axis, the greatest first."""
    x = as_tensor(x)
    return apply(TopK, x, k=k, axis=axis_in(axis, x.ndim, "topk"), largest=largest)  # type: ignore[no-any-return]


def sort(x: Any, axis: int = -1, descending: bool = False) -> Tensor:
    """The elements in order along the axis; NaN counts as the greatest."""
    x = as_tensor(x)
    return topk(x, x.type.shape[axis], axis, descending)[0]


def argsort(x: Any, axis: int = -1, descending: bool = False) -> Tensor:
    """The indices that sort the elements along the axis, equal ones in their order."""
    x = as_tensor(x)
    return topk(x, x.type.shape[axis], axis, descending)[1]


def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    """x with `value` where the mask holds."""
    return where(mask, value, x)


def searchsorted(edges: Any, values: Any) -> Tensor:
    """How many of the sorted edges lie below each value."""
    below = less(as_tensor(edges), expand_dims(as_tensor(values), -1))
    return cast(below, i64).sum(-1)


def bincount(x: Any, length: int) -> Tensor:
    """How often each of 0 ... length - 1 occurs."""
    hot = one_hot(flatten(x), length, dtype=i64)
    return hot.sum(0)


def fliplr(x: Any) -> Tensor:
    """The second axis in opposite order."""
    return flip(x, 1)


def dropped(x: Any, keep: Any, scale: float) -> Tensor:
    """x times `scale` where `keep` holds, 0 elsewhere: the body of dropout."""
    return where(keep, multiply(x, scale), 0)


__all__ = [
    "argsort", "bincount", "dropped", "fliplr", "gather", "getitem", "index_add", "index_select",
    "masked_fill", "one_hot", "scatter", "scatter_add", "searchsorted", "sort", "take",
    "take_along_axis", "topk",
]  # fmt: skip
