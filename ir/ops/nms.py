"""Non-maximum suppression: the data decides how many boxes are kept, so the host runs it.

Imports: the core, types, dims.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..core import Array, Float, Int, Op, attr, operand, optional
from ..dims import fresh
from ..types import TensorType, i64
from .constraints import require, same


class NonMaxSuppression(Op):
    """(batch, class, box) of the boxes kept, i64[N, 3]: per batch and class the boxes of score
    above `lowest`, the best first, as long as they overlap no better one by more than `overlap`
    (Neubeck 2006).

    boxes are [B, N, 4] as (y, x) of two opposite corners or, `centred`, (x, y) of the centre and
    the extents; scores [B, C, N].  At most `most` boxes (absent: none) are kept per class.  The
    overlap is intersection over union; an absent `overlap` is 0, an absent `lowest` no bound.
    """

    memoise = False
    host: ClassVar[bool] = True
    no_gradient: ClassVar[str] = "integer result"
    boxes = operand(Float)
    scores = operand(Float)
    most = optional(Int)
    overlap = optional(Float)
    lowest = optional(Float)
    centred = attr(bool, False)

    @staticmethod
    def infer(
        boxes: TensorType,
        scores: TensorType,
        most: TensorType | None = None,
        overlap: TensorType | None = None,
        lowest: TensorType | None = None,
        *,
        centred: bool,
    ) -> TensorType:
        ok = boxes.rank == scores.rank == 3 and same(boxes.shape[2], 4) is not False
        ok = ok and same(boxes.shape[0], scores.shape[0]) is not False
        ok = ok and same(boxes.shape[1], scores.shape[2]) is not False
        require(ok, "E0316", "non_max_suppression: boxes must be [B, N, 4], scores [B, C, N]",
                f"boxes : {boxes}   scores : {scores}")  # fmt: skip
        return TensorType(i64, (fresh("n"), 3))

    @staticmethod
    def evaluate(
        boxes: Array,
        scores: Array,
        most: Array | None = None,
        overlap: Array | None = None,
        lowest: Array | None = None,
        *,
        centred: bool,
    ) -> Array:
        limit = 0 if most is None else max(0, int(most.reshape(-1)[0]))
        bound = 0.0 if overlap is None else float(overlap.reshape(-1)[0])
        kept: list[tuple[int, int, int]] = []
        for batch, of_class in np.ndindex(*scores.shape[:2]):
            corners = _corners(boxes[batch].astype(np.float64), centred)
            score = scores[batch, of_class]
            order = np.argsort(-score.astype(np.float64), kind="stable")
            if lowest is not None:
                order = order[score[order] > lowest.reshape(-1)[0]]
            chosen: list[int] = []
            for box in order:
                if len(chosen) == limit:
                    break
                if not (_overlaps(corners[box], corners[chosen]) > bound).any():
                    chosen.append(int(box))
            kept += [(batch, of_class, box) for box in chosen]
        return np.asarray(kept, np.int64).reshape(-1, 3)


def _corners(boxes: Array, centred: bool) -> Array:
    """Boxes [N, 4] as least y, least x, greatest y, greatest x."""
    if centred:
        x, y, wide, high = boxes.T
        ends = (y - high / 2, x - wide / 2, y + high / 2, x + wide / 2)
        return np.stack(ends, 1)
    first, second = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], 1)


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box with others; 0 where one has no area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(box[2:] - box[:2])
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area + areas - shared
    valid = (area > 0) & (areas > 0) & (union > 0)
    return np.where(valid, shared / np.where(valid, union, 1.0), 0.0)


__all__ = ["NonMaxSuppression"]
