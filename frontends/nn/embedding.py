"""Rows of a table by index.  May import: ir, its siblings."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.ops.index import Take
from .dispatch import apply, as_tensor
from .functions import stop_gradient, where
from .init import normal
from .layers import Layer
from .shaping import reshape
from .tensor import Parameter, Tensor


def embedding(x: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """weight[x]: x integers, weight [rows, width]; the row `padding_idx` gets no gradient.

    E0643 where an index is out of range, as far as the values are known (eager).
    """
    x, rows = as_tensor(x), weight.type.shape[0]
    check_range(x, rows, "embedding", "index")
    found: Tensor = apply(Take, weight, x, axis=0)
    if padding_idx is None:
        return found
    at = padding_idx % rows if isinstance(rows, int) else padding_idx
    fixed = reshape(x == at, (*x.type.shape, 1))
    return where(fixed, stop_gradient(found), found)


def check_range(x: Tensor, count: Any, what: str, noun: str) -> None:
    """E0643 unless the integers x lie in [0, count); nothing is known of traced ones."""
    if not x.type.dtype.is_integer:
        raise Error("E0643", f"{what} takes integers", details=(f"found {x.type}",))
    if x.value is not None or not isinstance(count, int) or not x.array.size:
        return
    low, high = int(x.array.min()), int(x.array.max())
    if 0 <= low and high < count:
        return
    worst = low if low < 0 else high
    at = np.unravel_index(int(np.argmax(x.array == worst)), x.array.shape)
    raise Error(
        "E0643",
        f"{what}: {noun} {worst} is out of range",
        details=(f"expected 0 to {count - 1}", f"found {worst} at {[int(k) for k in at]}"),
    )


class Embedding(Layer):
    """weight[x]: weight [num_embeddings, embedding_dim], normal at first; no gradient reaches the
    row `padding_idx`, which begins as zeros.

    E0642 for torch's `max_norm`, `scale_grad_by_freq` and `sparse`, which are not offered.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        dtype: Any = "f32",
    ) -> None:
        super().__init__()
        if max_norm is not None or scale_grad_by_freq or sparse:
            name = (
                "max_norm" if max_norm is not None else "sparse" if sparse else "scale_grad_by_freq"
            )
            raise Error("E0642", f"Embedding does not offer {name}", details=(f"norm {norm_type}",),
                        hint="normalise or scale in forward, with ordinary operations")  # fmt: skip
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise Error("E0641", f"padding_idx {padding_idx} is no row of {num_embeddings}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        table = normal((num_embeddings, embedding_dim), dtype=dtype)
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        self.weight = Parameter(table)

    def describe(self) -> str:
        return f"Embedding {self.num_embeddings}x{self.embedding_dim}"

    def forward(self, x: Tensor) -> Tensor:
        if not x.type.dtype.is_integer:
            raise self.wrong("the indices are no integers", "an integer tensor", x.type)
        try:
            return embedding(x, self.weight, self.padding_idx)
        except Error as error:
            if error.code != "E0643":
                raise
            raise self.wrong(error.message, *[d.split(" ", 1)[1] for d in error.details]) from None


__all__ = ["Embedding", "embedding"]
