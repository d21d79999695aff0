"""Scaled dot-product attention and rotary position embedding.

Imports: contractions, softmax, comparisons, the core, types, dims.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..core import (
    Array,
    Builder,
    Float,
    Grads,
    Int,
    Op,
    Plain,
    Value,
    attr,
    operand,
    optional,
    sample,
)
from ..dims import DimLike
from ..errors import Error
from ..types import Shape, TensorType, from_numpy, i64
from .constraints import least, require, same
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .core import generic, indices, iterators
from .elementwise import broadcast, constant
from .loop import IndexValue
from .shape import DimValue


class Attention(Op):
    """softmax(scale * q k^T + mask) v, per head (Vaswani 2017): q [B, H, S, D], k [B, G, T, D], v
    [B, G, T, E] to [B, H, S, E].

    H is a multiple of G: each head of k and v serves H/G heads of q (Ainslie 2023).  `mask`
    broadcasts to [B, H, S, T]: bools say what takes part, floats are added.  Query s stands at
    position p = s + offset or, with `lengths` [B] (how many keys are valid, at least), s + length -
    S; with `causal` it sees keys up to p, with `left` or `right` not negative those from p - left,
    up to p + right.  `softcap` c, where not 0, makes c * tanh(scores / c) of the scores before the
    mask.  A query that sees no key gives zeros.  `scale` 0 stands for 1 / sqrt(D).  f8, f16 and
    bf16 compute in f32.

    C1: q, k, v and a float mask have one element type.  C2: the shapes above fit together.  C3: H
    is a multiple of G.  C4: mask broadcasts to [B, H, S, T].
    """

    q = operand(Float)
    k = operand(Float)
    v = operand(Float)
    mask = optional(Plain)
    lengths = optional(Int)
    scale = attr(float, 0.0)
    causal = attr(bool, False)
    offset = attr(object, 0)
    left = attr(int, -1)
    right = attr(int, -1)
    softcap = attr(float, 0.0)

    @staticmethod
    def infer(
        q: TensorType,
        k: TensorType,
        v: TensorType,
        mask: TensorType | None = None,
        lengths: TensorType | None = None,
        **attrs: Any,
    ) -> TensorType:
        found = f"q : {q}   k : {k}   v : {v}"
        additive = mask is not None and mask.dtype.kind != "bool"
        alike = [t.dtype is q.dtype for t in (k, v, *([mask] if additive else []))]  # type: ignore[union-attr]
        require(all(alike), "E0303", "attention (C1): element types differ", found, f"mask {mask}")
        ranks = q.rank == k.rank == v.rank == 4
        require(ranks, "E0346", "attention (C2): q, k and v must have rank 4", found)
        pairs = [(q.shape[0], k.shape[0]), (q.shape[0], v.shape[0]), (k.shape[1], v.shape[1]),
                 (k.shape[2], v.shape[2]), (q.shape[3], k.shape[3])]  # fmt: skip
        if lengths is not None:
            require(lengths.rank == 1, "E0346", "attention (C2): lengths must be [B]", str(lengths))
            pairs.append((lengths.shape[0], q.shape[0]))
        fits = all([same(a, e) is not False for a, e in pairs])
        require(fits, "E0346", "attention (C2): the shapes of q, k and v do not fit", found)
        heads, groups = q.shape[1], k.shape[1]
        known = type(heads) is int and type(groups) is int and groups > 0
        require(
            not known or heads % groups == 0,
            "E0346",
            f"attention (C3): {heads} heads are no multiple of {groups}",
        )
        if mask is not None:
            scores = (*q.shape[:3], k.shape[2])
            try:
                ok = broadcast(scores, mask.shape) == scores
            except Error:
                ok = False
            said = TensorType(q.dtype, scores)
            require(ok, "E0346", f"attention (C4): the mask does not broadcast to {said}",
                    f"found {mask}")  # fmt: skip
        return TensorType(q.dtype, (*q.shape[:3], v.shape[3]))

    @staticmethod
    def evaluate(
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        lengths: Array | None = None,
        **attrs: Any,
    ) -> Array:
        dtype = from_numpy(q.dtype)
        repeat = q.shape[1] // max(k.shape[1], 1)
        wq, wk, wv = [widen(x).astype(np.float64) for x in (q, k, v)]
        wk, wv = [np.repeat(x, repeat, axis=1) for x in (wk, wv)]
        with np.errstate(all="ignore"):
            scores = wq @ wk.swapaxes(2, 3) * (attrs["scale"] or 1 / math.sqrt(max(q.shape[3], 1)))
            if attrs["softcap"]:
                scores = np.tanh(scores / attrs["softcap"]) * attrs["softcap"]
            if mask is not None and mask.dtype == np.bool_:
                scores = np.where(mask, scores, -np.inf)
            elif mask is not None:
                scores = scores + widen(mask)
            scores = np.where(_seen(scores.shape, lengths, attrs), scores, -np.inf)
            top = np.max(scores, axis=3, keepdims=True, initial=-np.inf)
            powers = np.exp(scores - np.where(top == -np.inf, 0.0, top))
            total = np.sum(powers, axis=3, keepdims=True)
            return round_float(powers / np.where(total == 0, 1.0, total) @ wv, dtype)

    def decompose(self, b: Builder) -> Value:
        """Contraction, mask, softmax, contraction."""
        *_, shares = self.stages(b)
        v = as_type(b, self.v, compute_dtype(self.q.tensor.dtype))
        return as_type(b, self.product(b, shares, v, "bhst,bgte->bhse"), self.q.tensor.dtype)

    def product(self, b: Builder, x: Value, y: Value, equation: str) -> Value:
        """A contraction whose operands and result have the heads of q (h) or of k and v (g)."""
        each = self.heads_per_group
        if type(each) is int and each == 1:
            return b.contract(x, y, equation=equation.replace("g", "h"))  # type: ignore[no-any-return]
        groups, pair = self.k.tensor.shape[1], []
        for value, letters in zip((x, y), equation.split(",")):
            batch, _, *rest = value.tensor.shape
            of_q = letters[1] == "h"
            pair.append(b.reshape(value, shape=(batch, groups, each, *rest)) if of_q else value)
        out = b.contract(*pair, equation=equation.replace("h", "gr"))
        if equation.partition("->")[2][1] != "h":
            return out  # type: ignore[no-any-return]
        batch, _, _, *rest = out.tensor.shape
        return b.reshape(out, shape=(batch, self.q.tensor.shape[1], *rest))  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The shares are computed anew (where the forward pass is decomposed as well they are its
        own).  Their softmax needs the sum over keys of share times cotangent: it is the product of
        the result with its cotangent (Dao 2022)."""
        wide = compute_dtype(self.q.tensor.dtype)
        g, out = as_type(b, g, wide), as_type(b, self.result, wide)
        q, k, v = (
            self.scaled(b, as_type(b, self.q, wide)),
            *[as_type(b, x, wide) for x in (self.k, self.v)],
        )
        _, capped, _, shares = self.stages(b)
        along = b.reduce_sum(b.mul(g, out), axes=(3,), keepdims=True)
        of_shares = self.product(b, g, v, "bhse,bgte->bhst")
        masked = b.mul(b.sub(of_shares, along), shares)
        raw = masked
        if self.softcap:
            part = b.div(capped, constant(b, capped, self.softcap))
            raw = b.mul(raw, b.sub(constant(b, part, 1.0), b.mul(part, part)))
        dq = self.scaled(b, self.product(b, raw, k, "bhst,bgtd->bhsd"))
        dk = self.product(b, raw, q, "bhst,bhsd->bgtd")
        dv = self.product(b, shares, g, "bhst,bhse->bgte")
        return (dq, dk, dv, masked, None)[: len(self.operands)]

    @property
    def heads_per_group(self) -> DimLike:
        """How many heads of q share one of k and v."""
        heads, groups = self.q.tensor.shape[1], self.k.tensor.shape[1]
        return 1 if heads is groups else heads // groups

    def stages(self, b: Builder) -> tuple[Value, Value, Value, Value]:
        """The scores [B, H, S, T]: as products, after the soft cap, with the mask, as shares."""
        raw = self.products(b)
        capped = raw
        if self.softcap:
            cap = constant(b, raw, self.softcap)
            capped = b.mul(b.tanh(b.div(raw, cap)), cap)
        masked = capped
        low = constant(b, capped, -math.inf)
        if self.mask is not None and self.mask.tensor.dtype.kind == "bool":
            masked = b.where(self.mask, masked, low)
        elif self.mask is not None:
            masked = b.add(masked, as_type(b, self.mask, masked.tensor.dtype))
        seen = self.seen(b)
        if seen is not None:
            masked = b.where(seen, masked, low)
        shares = b.softmax(masked, axis=3)
        if self.may_see_nothing:
            top = b.reduce_max(masked, axes=(3,), keepdims=True)
            shares = b.where(b.eq(top, low), constant(b, shares, 0.0), shares)
        return raw, capped, masked, shares

    @property
    def may_see_nothing(self) -> bool:
        """Some query may see no key."""
        plain = self.mask is None and self.lengths is None and max(self.left, self.right) < 0
        return not plain or (self.causal and least(self.offset, 0) is not True)

    def products(self, b: Builder) -> Value:
        """scale * q k^T."""
        wide = compute_dtype(self.q.tensor.dtype)
        q, k = self.scaled(b, as_type(b, self.q, wide)), as_type(b, self.k, wide)
        return self.product(b, q, k, "bhsd,bgtd->bhst")

    def scaled(self, b: Builder, q: Value) -> Value:
        """q times the scale."""
        width = q.tensor.shape[3]
        if self.scale:
            return b.mul(q, constant(b, q, self.scale))  # type: ignore[no-any-return]
        if type(width) is int:
            return b.mul(q, constant(b, q, 1 / math.sqrt(max(width, 1))))  # type: ignore[no-any-return]
        extent = b.cast(b.emit(DimValue, dim=width, dtype=i64), to=q.tensor.dtype)
        return b.div(q, b.sqrt(extent))  # type: ignore[no-any-return]

    def seen(self, b: Builder) -> Value | None:
        """What each query sees by its position: [S, T] or [B, 1, S, T]; None where all."""
        if not self.causal and self.lengths is None and max(self.left, self.right) < 0:
            return None
        queries, keys = self.q.tensor.shape[2], self.k.tensor.shape[2]
        at = b.iota(shape=(queries, 1), axis=0)
        key = b.iota(shape=(1, keys), axis=1)
        found: list[Value] = []
        if self.lengths is not None:
            batch = self.lengths.tensor.shape[0]
            count = b.reshape(as_type(b, self.lengths, i64), shape=(batch, 1, 1, 1))
            found.append(b.lt(key, count))
            at = b.add(at, b.sub(count, b.emit(DimValue, dim=queries, dtype=i64)))
        elif not (type(self.offset) is int and self.offset == 0):
            at = b.add(at, b.emit(DimValue, dim=self.offset, dtype=i64))
        if self.causal:
            found.append(b.le(key, at))
        if self.left >= 0:
            found.append(b.ge(key, b.sub(at, constant(b, at, self.left))))
        if self.right >= 0:
            found.append(b.le(key, b.add(at, constant(b, at, self.right))))
        out = found[0]
        for other in found[1:]:
            out = b.logical_and(out, other)
        return out

    samples: ClassVar[Any] = (
        sample((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)),
        sample((1, 4, 3, 2), (1, 2, 5, 2), (1, 2, 5, 3), causal=True, offset=2, scale=0.3),
        sample((2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 1, 5, 5), dtypes=("f32",) * 3 + (
            "bool",), softcap=0.7),
        sample((2, 2, 3, 4), (2, 1, 5, 4), (2, 1, 5, 4), (3, 5), causal=True, offset=1),
        sample((2, 2, 3, 4), (2, 2, 6, 4), (2, 2, 6, 4), None, (2,), causal=True,
               dtypes=("f32", "f32", "f32", "", "i64"), ranges=((-2, 2),) * 4 + ((0, 6),)),
        sample((1, 2, 9, 4), (1, 2, 5, 4), (1, 2, 5, 4), left=2, right=1),
        sample((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), causal=True, offset=-2),
        sample((1, 1, 3, 4), (1, 1, 0, 4), (1, 1, 0, 4), (3, 0)),
        sample((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6), dtypes=("f16",) * 3),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6), dtypes=("f32", "f64", "f32"))),
        ("C2", sample((3, 5, 4), (3, 7, 4), (3, 7, 6))),
        ("C2", sample((2, 3, 5, 4), (2, 3, 7, 5), (2, 3, 7, 6))),
        ("C2", sample((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 6, 6))),
        ("C3", sample((2, 3, 5, 4), (2, 2, 7, 4), (2, 2, 7, 6))),
        ("C4", sample((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6), (5, 6))),
    )


def _seen(shape: Shape, lengths: Array | None, attrs: Mapping[str, Any]) -> Array:
    """Which keys each query sees by its position, broadcast against the scores."""
    queries, keys = int(shape[2]), int(shape[3])  # type: ignore[arg-type]
    at, key = np.arange(queries)[:, None] + attrs["offset"], np.arange(keys)[None, :]
    out = np.ones((queries, keys), np.bool_)
    if lengths is not None:
        count = lengths.astype(np.int64).reshape(-1, 1, 1, 1)
        at = np.arange(queries)[:, None] + count - queries
        out = out & (key < count)
    if attrs["causal"]:
        out = out & (key <= at)
    if attrs["left"] >= 0:
        out = out & (key >= at - attrs["left"])
    if attrs["right"] >= 0:
        out = out & (key <= at + attrs["right"])
    return out


class RotaryEmbedding(Op):
    """x [B, H, S, D] with pairs of its first 2K elements turned by the angles of their position
    (Su 2021); cos and sin are [B, S, K], B may be 1.

    Element i < K is paired with i + K or, `interleaved`, 2i with 2i + 1: (x, y) becomes (x cos - y
    sin, x sin + y cos).  The rest of D stays.  f8, f16 and bf16 compute in f32.

    C1: one element type.  C2: the shapes above fit together, and 2K <= D.
    """

    x = operand(Float)
    cos = operand(Float)
    sin = operand(Float)
    interleaved = attr(bool, False)

    @staticmethod
    def infer(x: TensorType, cos: TensorType, sin: TensorType, interleaved: bool) -> TensorType:
        found = f"x : {x}   cos : {cos}   sin : {sin}"
        alike = x.dtype is cos.dtype and x.dtype is sin.dtype
        require(alike, "E0303", "rotary_embedding (C1): element types differ", found)
        fits = x.rank == 4 and cos.rank == 3 and cos.shape == sin.shape
        if fits:
            batch = same(cos.shape[0], 1) is True or same(cos.shape[0], x.shape[0]) is not False
            room = least(x.shape[3] - 2 * cos.shape[2], 0) is not False
            fits = batch and room and same(cos.shape[1], x.shape[2]) is not False
        require(fits, "E0346", "rotary_embedding (C2): the shapes do not fit together", found)
        return x

    @staticmethod
    def evaluate(x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
        dtype, half = from_numpy(x.dtype), cos.shape[2]
        wide = widen(x).astype(np.float64)
        c, s = [widen(a).astype(np.float64)[:, None] for a in (cos, sin)]
        first, second = slice(0, half), slice(half, 2 * half)
        if interleaved:
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        a, d = wide[..., first], wide[..., second]
        out = wide.copy()
        out[..., first], out[..., second] = a * c - d * s, a * s + d * c
        return round_float(out, dtype)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The turn back; cos and sin by the products of both pairs, summed over the heads."""
        wide = compute_dtype(self.x.tensor.dtype)
        dx = b.rotary_embedding(g, self.cos, b.neg(self.sin), interleaved=self.interleaved)
        (x, y), (u, v) = [self.pairs(b, as_type(b, part, wide)) for part in (self.x, g)]
        cos = b.add(b.mul(u, x), b.mul(v, y))
        sin = b.sub(b.mul(v, x), b.mul(u, y))
        return dx, b.reduce_sum(cos, axes=(1,)), b.reduce_sum(sin, axes=(1,))

    def pairs(self, b: Builder, x: Value) -> tuple[Value, Value]:
        """First and second elements of the pairs: [B, H, S, K] each."""
        half = self.cos.tensor.shape[2]
        sizes = (*x.tensor.shape[:3], half)
        steps = (1, 1, 1, 2 if self.interleaved else 1)
        second = 1 if self.interleaved else half
        return tuple(
            [b.slice(x, starts=(0, 0, 0, at), sizes=sizes, steps=steps) for at in (0, second)]
        )

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read at the element and at its partner."""
        x, cos, _ = [v.tensor for v in xs]
        half = cos.shape[2]
        its = iterators("i", x.shape)
        at = indices(its)
        lane = at[3]
        if self.interleaved:
            partner, angle, second = lane + 1 - 2 * (lane % 2), lane // 2, lane % 2
        else:
            partner, angle, second = (lane + half) % (2 * half), lane % half, lane // half
        batch = 0 if same(cos.shape[0], 1) is True else at[0]
        whole = same(x.shape[3], 2 * half) is True
        place = (batch, at[2], angle)
        wide = compute_dtype(x.dtype)

        def body(b: Builder, x: Value, y: Value, cos: Value, sin: Value) -> Value:
            u, v, c, s = [as_type(b, e, wide) for e in (x, y, cos, sin)]
            number = b.emit(IndexValue, value=second, dtype=i64)
            part = b.mul(v, s)
            part = b.where(b.eq(number, constant(b, number, 0)), b.neg(part), part)
            out = as_type(b, b.add(b.mul(u, c), part), x.type)  # type: ignore[arg-type]
            if whole:
                return out
            beyond = b.emit(IndexValue, value=lane - 2 * half, dtype=i64)
            return b.where(b.lt(beyond, constant(b, beyond, 0)), out, x)  # type: ignore[no-any-return]

        maps = [at, (*at[:3], partner), place, place]
        fills = () if whole else (None, 0.0, 0.0, 0.0)
        return generic(  # type: ignore[no-any-return]
            b, [xs[0], *xs], its, maps, [at], [self.result.tensor], body, fills=fills
        )

    samples: ClassVar[Any] = (
        sample((2, 3, 5, 8), (2, 5, 4), (2, 5, 4)),
        sample((2, 3, 5, 8), (1, 5, 4), (1, 5, 4), interleaved=True),
        sample((1, 2, 3, 9), (1, 3, 3), (1, 3, 3)),
        sample((1, 2, 3, 7), (1, 3, 2), (1, 3, 2), interleaved=True),
        sample((0, 2, 3, 4), (1, 3, 2), (1, 3, 2)),
        sample((1, 2, 3, 4), (1, 3, 2), (1, 3, 2), dtypes=("bf16",) * 3),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 3, 5, 8), (2, 5, 4), (2, 5, 4), dtypes=("f32", "f32", "f64"))),
        ("C2", sample((2, 3, 5, 8), (2, 5, 5), (2, 5, 5))),
        ("C2", sample((2, 3, 5, 8), (2, 4, 4), (2, 4, 4))),
        ("C2", sample((2, 3, 5, 8), (2, 5, 4), (2, 5, 3))),
    )


__all__ = ["Attention", "RotaryEmbedding"]
