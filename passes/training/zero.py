"""Sharded optimizer state (ZeRO-1): each process updates its part of every parameter.

The gradients' parts come from `data_parallel(..., scatter=world)`; here are the parts of the
parameters before the update, and the whole parameters behind it, gathered in buckets.
Source: Rajbhandari et al., ZeRO: memory optimizations toward training trillion parameter models
(SC 2020), stage 1.  May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Builder, Value
from ...ir.ops.dist import GatherParts, Part
from ...ir.types import TensorType
from .parallel import BUCKET_BYTES


def parts(b: Builder, params: Sequence[Value], world: int) -> list[Value]:
    """This process's part of each parameter."""
    return [b.emit(Part, p, world=world) for p in params]


def whole(
    b: Builder,
    parts: Sequence[Value],
    like: Sequence[TensorType],
    world: int,
    bucket_bytes: int = BUCKET_BYTES,
) -> list[Value]:
    """The parameters of types `like` from all processes' parts, some in each collective."""
    found: list[Value] = []
    for first, last in _runs([_bytes(t) for t in like], bucket_bytes):
        shapes = [t.shape for t in like[first:last]]
        op = GatherParts(
            *parts[first:last],
            extents=tuple([e for shape in shapes for e in shape]),
            ranks=tuple([len(shape) for shape in shapes]),
            world=world,
        )
        found += b.insert(op).results
    return found


def _element(type: TensorType) -> int:
    return type.dtype.bits // 8 or 1


def _bytes(type: TensorType) -> int:
    size = _element(type)
    for extent in type.shape:
        assert isinstance(extent, int), "parameters have fixed extents"
        size *= extent
    return size


def _runs(sizes: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Neighbours as ranges (first, behind the last) of at most `most` bytes, or of one."""
    found: list[tuple[int, int]] = []
    held = 0
    for k, size in enumerate(sizes):
        if found and held + size <= most:
            found[-1] = (found[-1][0], k + 1)
            held += size
        else:
            found.append((k, k + 1))
            held = size
    return found


__all__ = ["parts", "whole"]
