"""Ops with one `axis`: built with a negative one, they hold it counted from the front.

So two ops that mean the same are equal, and passes need not ask.  Imports: the core, types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Op, Value
from ..types import TensorType


class _Axis(Op):
    """Base: canonical `axis`; an axis out of range is left for `infer` to refuse."""

    def __init__(self, *operands: Value, **attrs: Any) -> None:
        axis = attrs.get("axis", self.spec.defaults[self.spec.attr_index["axis"]])
        rank = self.axes(operands, attrs)
        if type(axis) is int and -rank <= axis < 0:
            attrs["axis"] = axis + rank
        super().__init__(*operands, **attrs)

    @classmethod
    def axes(cls, operands: Sequence[Value], attrs: Mapping[str, Any]) -> int:
        """How many axes `axis` counts among: the rank of the first operand."""
        first = operands[0].type if operands else None
        return first.rank if isinstance(first, TensorType) and first.ranked else 0


__all__ = ["_Axis"]
