"""Connectionist temporal classification: the loss of all alignments of a sequence with its labels.

Logarithms of probabilities are kept at or above `NEVER`, so that no difference of infinities
arises, in the loss or in its derivatives.  Imports: control flow, the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Int, Op, Value, attr, operand, sample
from ..types import TensorType, from_numpy, i64
from .constraints import require, same
from .contract import as_type
from .control import Scan
from .convert import compute_dtype, widen
from .core import Const, zeros
from .elementwise import constant
from .index import in_range

NEVER = -1e30
"""The logarithm of the probability of what cannot be."""


class CtcLoss(Op):
    """-log of the probability that x [T, N, C], logarithms of class probabilities per step, spells
    the labels [N, S] of each sequence, over all alignments (Graves 2006): [N].

    Sequence n takes its first x_lengths[n] steps and label_lengths[n] labels; steps may repeat a
    label or give the class `blank`, which must stand between equal labels.  Where no alignment fits
    the loss is infinite, its gradient NaN, or with `zero_infinity` both are 0.  A label out of
    range is a run-time error.  f8, f16 and bf16 compute in f32, and their losses are f32.

    C1: x has rank 3, labels rank 2.  C2: there are N label rows, x lengths and label lengths.
    """

    x = operand(Float)
    labels = operand(Int)
    x_lengths = operand(Int)
    label_lengths = operand(Int)
    blank = attr(int, 0)
    zero_infinity = attr(bool, False)

    @staticmethod
    def infer(
        x: TensorType,
        labels: TensorType,
        x_lengths: TensorType,
        label_lengths: TensorType,
        blank: int,
        zero_infinity: bool,
    ) -> TensorType:
        found = f"x : {x}   labels : {labels}   lengths : {x_lengths} and {label_lengths}"
        ranks = x.rank == 3 and labels.rank == 2 and x_lengths.rank == label_lengths.rank == 1
        require(ranks, "E0310", "ctc_loss (C1): x must be [T, N, C], labels [N, S]", found)
        rows = [t.shape[0] for t in (labels, x_lengths, label_lengths)]
        fits = all([same(e, x.shape[1]) is not False for e in rows])
        require(fits, "E0310", "ctc_loss (C2): the number of sequences differs", found)
        return TensorType(compute_dtype(x.dtype), (x.shape[1],))

    @staticmethod
    def evaluate(
        x: Array,
        labels: Array,
        x_lengths: Array,
        label_lengths: Array,
        blank: int,
        zero_infinity: bool,
    ) -> Array:
        wide = widen(x).astype(np.float64)
        out = np.zeros(x.shape[1])
        for n in range(x.shape[1]):
            count = int(label_lengths[n])
            in_range(np.asarray(count), labels.shape[1] + 1, "ctc_loss", 0)
            spelt = in_range(labels[n, :count], x.shape[2], "ctc_loss", 0)
            states = np.full(2 * count + 1, blank)
            states[1::2] = spelt
            jumps = np.zeros(len(states), np.bool_)
            jumps[3::2] = spelt[1:] != spelt[:-1]
            alpha = np.full(len(states), -np.inf)
            alpha[0] = 0.0
            with np.errstate(all="ignore"):
                for row in wide[: int(x_lengths[n]), n]:
                    one = np.concatenate([[-np.inf], alpha[:-1]])
                    two = np.concatenate([[-np.inf] * 2, alpha])[: len(alpha)]
                    alpha = np.logaddexp(np.logaddexp(alpha, one), np.where(jumps, two, -np.inf))
                    alpha = alpha + row[states]
            out[n] = -np.logaddexp.reduce(alpha[-2:])
        if zero_infinity:
            out = np.where(np.isinf(out), 0, out)
        return out.astype(compute_dtype(from_numpy(x.dtype)).np)

    def decompose(self, b: Builder) -> Value:
        """A scan over the steps of the logarithms of the prefixes' probabilities."""
        loss, possible = self.finished(b, self.forward(b)[0])
        low = constant(b, loss, 0.0 if self.zero_infinity else np.inf)
        return b.where(possible, loss, low)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Less the probability that each step is in a state with its class (Graves 2006, eq. 15):
        prefixes forward, suffixes backward."""
        last, prefixes, emitted = self.forward(b)
        loss, possible = self.finished(b, last)
        shares = self.backward(b, prefixes, emitted, loss)
        shape = self.x.tensor.shape
        shares = b.neg(b.mul(shares, b.reshape(g, shape=(1, shape[1], 1))))
        lost = constant(b, shares, 0.0 if self.zero_infinity else np.nan)
        shares = b.where(b.reshape(possible, shape=(1, shape[1], 1)), shares, lost)
        none = zeros(b, TensorType(shares.tensor.dtype, shape))
        index = b.broadcast_to(self.states(b)[0], shape=shares.tensor.shape)
        dx = b.scatter_elements(none, index, shares, axis=2, reduction="add")
        return dx, None, None, None

    def states(self, b: Builder) -> tuple[Value, Value]:
        """The class of each state, labels between blanks [N, L = 2S + 1], and what it costs to come
        there from two states before: 0 or `NEVER`, in the compute type."""
        batch, count = self.labels.tensor.shape
        labels = as_type(b, self.labels, i64)
        blank = b.insert(Const(np.asarray(self.blank))).result
        one = b.broadcast_to(blank, shape=(batch, 1))
        blanks = b.broadcast_to(blank, shape=(batch, count, 1))
        pairs = b.concat(blanks, b.reshape(labels, shape=(batch, count, 1)), axis=2)
        every = b.concat(b.reshape(pairs, shape=(batch, 2 * count)), one, axis=1)
        at = b.iota(shape=(1, 2 * count + 1), axis=1)
        every = b.where(
            b.lt(at, self.ends(b)), every, blank
        )  # what pads the labels is not looked at
        before = b.pad(every, low=(0, 2), high=(0, 0), value=-1)
        before = b.slice(before, starts=(0, 0), sizes=(batch, 2 * count + 1))
        same_ = b.logical_or(b.eq(every, before), b.eq(every, blank))
        wide = compute_dtype(self.x.tensor.dtype)
        zero, never = [b.insert(Const(np.asarray(v, wide.np))).result for v in (0.0, NEVER)]
        return every, b.where(same_, never, zero)

    def ends(self, b: Builder) -> Value:
        """How many states each sequence has: [N, 1]."""
        count = b.reshape(as_type(b, self.label_lengths, i64), shape=(self.x.tensor.shape[1], 1))
        return b.add(b.add(count, count), constant(b, count, 1))  # type: ignore[no-any-return]

    def running(self, b: Builder, step: Value) -> Value:
        """Which sequences have this step: [N, 1]."""
        lengths = as_type(b, self.x_lengths, i64)
        return b.lt(step, b.reshape(lengths, shape=(self.x.tensor.shape[1], 1)))  # type: ignore[no-any-return]

    def forward(self, b: Builder) -> tuple[Value, Value, Value]:
        """Logarithms of the probabilities of the prefixes that end in each state, after the last
        step [N, L] and after each [T, N, L], and what each step gives there [T, N, L]."""
        every, jump = self.states(b)
        steps, batch, _ = self.x.tensor.shape
        x = as_type(b, self.x, jump.tensor.dtype)
        size = every.tensor.shape[1]
        index = b.broadcast_to(every, shape=(steps, batch, size))
        emitted = b.take_along(x, index, axis=2)
        emitted = b.max(emitted, constant(b, emitted, NEVER))
        at = b.iota(shape=(batch, size), axis=1)
        zero, never = constant(b, x, 0.0), constant(b, x, NEVER)
        start = b.where(b.eq(at, constant(b, at, 0)), zero, never)

        def body(b: Builder, alpha: Value, given: Value, step: Value) -> Sequence[Value]:
            padded = b.pad(alpha, low=(0, 2), high=(0, 0), value=NEVER)
            ways = [b.slice(padded, starts=(0, k), sizes=(batch, size)) for k in (2, 1, 0)]
            new = b.add(log_sum(b, ways[0], ways[1], b.add(ways[2], jump)), given)
            new = b.where(self.running(b, step), new, alpha)
            return new, new

        scan = Scan.make([start], [emitted, b.iota(shape=(steps,))], body, loc=b.loc)
        last, prefixes = b.insert(scan).results
        return last, prefixes, emitted

    def finished(self, b: Builder, last: Value) -> tuple[Value, Value]:
        """The loss [N], and where some alignment fits."""
        ends, shape = self.ends(b), self.result.tensor.shape
        one, two = constant(b, ends, 1), constant(b, ends, 2)
        in_blank = b.take_along(last, b.sub(ends, one), axis=1)
        some = b.gt(ends, one)
        in_label = b.take_along(last, b.where(some, b.sub(ends, two), constant(b, ends, 0)), axis=1)
        in_label = b.where(some, in_label, constant(b, last, NEVER))
        total = log_sum(b, in_blank, in_label)
        loss = b.reshape(b.neg(total), shape=shape)
        return loss, b.lt(loss, constant(b, loss, -NEVER / 2))

    def backward(self, b: Builder, prefixes: Value, emitted: Value, loss: Value) -> Value:
        """The probability of each state at each step among all alignments: [T, N, L]."""
        _, jump = self.states(b)
        steps, batch, size = prefixes.tensor.shape
        ends = self.ends(b)
        at = b.iota(shape=(batch, size), axis=1)
        final = b.logical_and(b.lt(at, ends), b.ge(at, b.sub(ends, constant(b, ends, 2))))
        start = b.where(final, constant(b, loss, 0.0), constant(b, loss, NEVER))
        whole = b.reshape(loss, shape=(batch, 1))

        def body(
            b: Builder, beta: Value, alpha: Value, given: Value, step: Value
        ) -> Sequence[Value]:
            runs, zero = self.running(b, step), constant(b, beta, 0.0)
            part = b.min(b.add(b.add(alpha, beta), whole), zero)
            share = b.where(runs, b.exp(part), zero)
            here = b.add(beta, given)
            pair = [
                b.pad(v, low=(0, 0), high=(0, 2), value=NEVER) for v in (here, b.add(here, jump))
            ]
            ways = [b.slice(pair[k // 2], starts=(0, k), sizes=(batch, size)) for k in (0, 1, 2)]
            return b.where(runs, log_sum(b, *ways), beta), share

        scanned = [prefixes, emitted, b.iota(shape=(steps,))]
        scan = Scan.make([start], scanned, body, reverse=True, loc=b.loc)
        return b.insert(scan).results[1]

    samples: ClassVar[Any] = (
        sample((5, 2, 4), (2, 2), (2,), (2,), dtypes=("f32", "i64", "i64", "i64"),
               ranges=((-3, -0.1), (1, 3), (4, 5), (1, 2))),
        sample((7, 3, 3), (3, 3), (3,), (3,), dtypes=("f64", "i32", "i32", "i32"),
               ranges=((-3, -0.1), (0, 1), (6, 7), (0, 3)), blank=2),
        sample((2, 2, 3), (2, 3), (2,), (2,), dtypes=("f64", "i64", "i64", "i64"),
               ranges=((-3, -0.1), (1, 2), (1, 2), (3, 3)), zero_infinity=True),
        sample((4, 1, 3), (1, 0), (1,), (1,), dtypes=("f32", "i64", "i64", "i64"),
               ranges=((-3, -0.1), (1, 2), (3, 4), (0, 0))),
        sample((4, 1, 3), (1, 1), (1,), (1,), dtypes=("bf16", "i64", "i64", "i64"),
               ranges=((-3, -0.1), (1, 2), (3, 4), (1, 1))),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 4), (2, 2), (2,), (2,), dtypes=("f32", "i64", "i64", "i64"))),
        ("C2", sample((5, 2, 4), (3, 2), (2,), (2,), dtypes=("f32", "i64", "i64", "i64"))),
    )


def log_sum(b: Builder, *xs: Value) -> Value:
    """log(sum(exp(x))) of values at or above about `NEVER`; the shift takes no part in slopes."""
    top = xs[0]
    for x in xs[1:]:
        top = b.max(top, x)
    top = b.stop_gradient(top)
    total = b.exp(b.sub(xs[0], top))
    for x in xs[1:]:
        total = b.add(total, b.exp(b.sub(x, top)))
    return b.add(b.log(total), top)  # type: ignore[no-any-return]


__all__ = ["NEVER", "CtcLoss"]
