"""What all layers share: how they name themselves in errors, and small shape work.

A layer that is given a wrong shape says which layer it is, by its path in the network and its
geometry.  May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.dims import DimLike
from ...ir.errors import Error
from ...ir.ops.constraints import same
from ...ir.ops.pad import Pad
from .dispatch import apply
from .module import Module
from .tensor import Tensor


class Layer(Module):
    """Base of the layers that come with the package."""

    def describe(self) -> str:
        """The layer in a few words, for errors and summaries: its class and geometry."""
        return type(self).__name__

    def extra_repr(self) -> str:
        return self.describe().removeprefix(type(self).__name__).strip()

    def wrong(self, problem: str, expected: str, found: object, hint: str | None = None) -> Error:
        """E0640 for an input that does not fit this layer."""
        place = self.path()
        named = f"{place} ({self.describe()})" if place else self.describe()
        return Error("E0640", f"{named}: {problem}",
                     details=(f"expected {expected}", f"found {found}"), hint=hint)  # fmt: skip

    def expect_axis(self, x: Tensor, axis: int, extent: DimLike, what: str) -> None:
        """Raise E0640 unless x has `extent` along `axis`."""
        shape = x.type.shape
        if -len(shape) <= axis < len(shape) and same(shape[axis], extent) is not False:
            return
        raise self.wrong(f"wrong number of {what}", f"{extent} along axis {axis}", x.type)

    def expect_type(self, x: Tensor, weight: Tensor) -> None:
        """Raise E0640 unless x has the element type of a parameter."""
        want = weight.type.dtype
        if x.type.dtype is not want:
            raise self.wrong("wrong element type", str(want), x.type,
                             hint=f"x.astype('{want}'), or the network in x's type: "
                             f"net.to('{x.type.dtype}')" if x.type.dtype.is_float
                             else f"x.astype('{want}')")  # fmt: skip

    def expect_rank(self, x: Tensor, ranks: Sequence[int], layout: str) -> None:
        """Raise E0640 unless x has one of these ranks."""
        if len(x.type.shape) not in ranks:
            raise self.wrong("wrong number of axes", layout, x.type)


def scalar(value: float, like: Tensor) -> Any:
    """A number as an array of the element type of `like`."""
    return np.asarray(value, like.type.dtype.np)


def padded(
    x: Tensor, low: Sequence[int], high: Sequence[int], mode: str = "constant", value: float = 0
) -> Tensor:
    """x with pads on its last axes (`low` and `high` speak of these, in order)."""
    if not any(low) and not any(high):
        return x
    front = (0,) * (len(x.type.shape) - len(low))
    made: Tensor = apply(Pad, x, low=(*front, *low), high=(*front, *high), mode=mode, value=value)
    return made


def tupled(value: Any, count: int, what: str) -> tuple[int, ...]:
    """One number for each of `count` axes, or as given; E0641 where their number is another."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * count
    found = tuple([int(v) for v in value])
    if len(found) != count:
        raise Error("E0641", f"{what} takes a number or {count} of them",
                    details=(f"found {value}",))  # fmt: skip
    return found


__all__ = ["Layer"]
