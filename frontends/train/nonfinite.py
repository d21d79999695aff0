"""Where a loss stopped being a number: the step's function is run op by op on the same batch.

May import: ir, its siblings.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.core import Value
from ...ir.interpret import run
from ...ir.ops.core import Const

if TYPE_CHECKING:
    from .step import TrainStep


NOWHERE = "the step"
"""Where nothing was found."""


class _Found(Exception):
    """Ends the run at the first NaN."""


class _Search:
    """An observer: the first NaN ends the run; an infinity (masks hold some) is only noted."""

    def __init__(self) -> None:
        self.infinite: tuple[Value, Any] | None = None
        self.nan: tuple[Value, Any] | None = None

    def __call__(self, value: Value, array: Any) -> None:
        if _finite(array):
            return
        if np.isnan(np.asarray(array).astype(np.float64)).any():
            self.nan = (value, np.asarray(array))
            raise _Found
        if self.infinite is None and not isinstance(value.op, Const):
            self.infinite = (value, np.asarray(array))


def first_nonfinite(step: TrainStep, batch: Any) -> tuple[str, list[str]]:
    """The op that first gives NaN (else infinity) on this batch, as (place, details).

    Inputs and parameters are looked at first: what is no number there is named.
    """
    func, arrays = step.forward_with(batch)
    for name, array in arrays.items():
        if not _finite(array):
            what = "parameter" if name in step.parameters else "input"
            return f"{what} '{name}'", [f"it holds {_count(array)} before the first op"]
    search = _Search()
    with contextlib.suppress(_Found):
        run(func, arrays, observe=search)
    found = search.nan or search.infinite
    if found is None:
        return NOWHERE, ["op by op, every value is finite: only the compiled step's is not"]
    value, array = found
    place = value.op.place() if value.op is not None else str(value)
    details = [f"its result {value.type} is the first to hold {_count(array)}"]
    if search.nan and search.infinite and search.infinite[0].op is not None:
        details.append(f"the first infinity came from {search.infinite[0].op.place()}")
    return place, details


def _finite(array: Any) -> bool:
    found = np.asarray(array)
    if found.dtype.kind in "biu":
        return True
    return bool(np.isfinite(found.astype(np.float64)).all())


def _count(array: Any) -> str:
    wide = np.asarray(array).astype(np.float64)
    nans, infinities = int(np.isnan(wide).sum()), int(np.isinf(wide).sum())
    parts = [f"{nans} NaN"] * bool(nans) + [f"{infinities} infinite"] * bool(infinities)
    return f"{' and '.join(parts)} of {wide.size} values"


__all__ = ["NOWHERE", "first_nonfinite"]
