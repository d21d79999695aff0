"""Optimizer state in parts: what a process keeps, and the update of its parts (ZeRO-1).

Only optimizers that treat every element alike can be cut; which do is tried, not declared.
May import: ir, passes, frontends/nn, its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error
from ...ir.ops.dist import AllReduce, group
from ...passes.training import zero
from .. import nn
from ..nn.creation import tensor
from ..nn.dispatch import apply
from ..nn.tracing import Trace
from .distributed import own_part, whole
from .optim import Optimizer
from .optim.base import global_norm


def shapes_of_parts(
    params: Mapping[str, Any], slots: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    """The whole shapes of the slots `slots/parameter/slot` that are kept in parts: those shaped
    like their parameter.
    """
    found = {}
    for name, slot in slots.items():
        shape = tuple(params[name.removeprefix("slots/").rpartition("/")[0]].shape)
        if tuple(slot.shape) == shape:
            found[name] = shape
    return found


def cut(slots: Mapping[str, Array], shapes: Mapping[str, Any]) -> dict[str, Array]:
    """Slots with this process's parts in place of those with `shapes`."""
    return {n: own_part(a) if n in shapes else a for n, a in slots.items()}


def joined(slots: Mapping[str, Array], shapes: Mapping[str, Any]) -> dict[str, Array]:
    """The whole slots, from the parts of all processes."""
    return {n: whole(a, shapes[n]) if n in shapes else a for n, a in slots.items()}


def require_elementwise(optimizer: Optimizer) -> None:
    """Raise E0655 for an optimizer whose update of an element depends on others."""
    rng = np.random.default_rng(0)

    def update(at: slice | None, p: Array, g: Array, slots: Mapping[str, Array]) -> list[Array]:
        def own(a: Array) -> Any:
            return tensor(a if at is None or a.shape == () else a.reshape(-1)[at])

        step, lr = tensor(np.float64(3.0)), tensor(np.float64(0.1))
        new, kept = optimizer.update(
            own(p), own(g), {n: own(a) for n, a in slots.items()}, lr, step
        )
        return [np.asarray(t).reshape(-1) for t in (new, *kept.values())]

    with nn.no_grad():
        p, g = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
        slots = {n: np.asarray(t) for n, t in optimizer.slots(tensor(p)).items()}
        slots = {n: a if a.shape == () else rng.random(a.shape) + 1 for n, a in slots.items()}
        fits = all([a.shape in ((), p.shape) for a in slots.values()])
        if fits:
            at_once = update(None, p, g, slots)
            halves = [update(s, p, g, slots) for s in (slice(0, 12), slice(12, 24))]
            fits = all(
                [np.array_equal(a if a.size == 1 else a[:12], b) and
                 np.array_equal(a if a.size == 1 else a[12:], c)
                 for a, b, c in zip(at_once, *halves)]
            )  # fmt: skip
    if not fits:
        raise Error(
            "E0655",
            f"{type(optimizer).__name__} looks at whole parameters: its state cannot be sharded",
            hint="Adam, AdamW, SGD and their kin treat every element alike; or leave "
            "shard_optimizer out",
        )


class Sharded:
    """The update of parts inside a trace; `params` are the whole parameters before it, by name."""

    def __init__(self, trace: Trace, params: Mapping[str, Any]) -> None:
        self.trace, self.params, self.world = trace, params, group().world
        values = [trace.value(p) for p in params.values()]
        made = zero.parts(trace.b, values, self.world)
        self.parts = {n: trace.tensor(v) for n, v in zip(params, made)}

    def optimizer(self, given: Optimizer) -> Optimizer:
        """An optimizer of parts: clipping is done by `clipped`, masks see whole parameters."""
        mask, params = given.decay_mask, self.params
        made = replace(given, clip_norm=None, clip_value=None)
        if mask is None:
            return made
        return replace(made, decay_mask=lambda name, part: mask(name, params[name]))

    def clipped(
        self, given: Optimizer, grads: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `Optimizer.clipped`, its norm over the parts of all processes."""
        found, logged = replace(given, clip_norm=None).clipped(grads)
        if given.clip_norm is not None:
            mine = global_norm([g for g in found.values() if g is not None])
            norm = nn.sqrt(apply(AllReduce, mine * mine))
            logged["grad_norm"] = norm
            factor = nn.minimum(given.clip_norm / (norm + 1e-6), 1.0)
            found = {n: None if g is None else g * factor.astype(g.dtype) for n, g in found.items()}
        return found, logged

    def everywhere(self, good: Any) -> Any:
        """Whether a flag holds in all processes."""
        return apply(AllReduce, good.astype("i32"), how="min") > 0

    def whole(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """The next parameters from the next parts."""
        like = [self.trace.value(self.params[n]).tensor for n in parts]
        values = [self.trace.value(t) for t in parts.values()]
        found = zero.whole(self.trace.b, values, like, self.world)
        return {n: self.trace.tensor(v) for n, v in zip(parts, found)}


__all__ = ["Sharded", "cut", "joined", "require_elementwise", "shapes_of_parts"]
