"""How an op's `infer` states a numbered constraint: one line each, with what was found.

Imports: dims and errors only.
"""

from __future__ import annotations

from ..dims import DimLike, equal, nonneg
from ..errors import Error


def require(
    ok: bool | None, code: str, message: str, *details: str, hint: str | None = None
) -> None:
    """Raise `Error` when `ok` is False; None (unknown, for symbolic dims) passes.

    What passes unknown is checked at run time.  `message` names op and constraint: "matmul (C2):
    inner extents differ".
    """
    if ok is False:
        raise Error(code, message, details=details, hint=hint)


def same(a: DimLike, b: DimLike) -> bool | None:
    """Whether two extents are equal: yes, no or unknown."""
    return True if a is b else equal(a, b)


def least(extent: DimLike, low: int) -> bool | None:
    """Whether an extent is at least `low`: yes, no or unknown."""
    return nonneg(extent - low)


def axis_of(axis: int, rank: int, op: str, constraint: str) -> int:
    """`axis` counted from the front; E0330 when it is outside -rank .. rank-1."""
    require(
        -rank <= axis < rank, "E0330", f"{op} ({constraint}): axis {axis} is outside rank {rank}"
    )
    return axis % rank


def permutation(order: tuple[int, ...], rank: int) -> bool:
    """Whether `order` holds each of 0 .. rank-1 once."""
    return sorted(order) == list(range(rank))


__all__ = ["axis_of", "least", "permutation", "require", "same"]
