"""Contractions: `matmul` with numpy's batch rules and `contract`, any product-sum of two tensors.

Also here is what every product-sum shares (convolution too): the accumulator and result element
types. f8, f16 and bf16 accumulate in f32 and round once; integers of at most 32 bits in i32 (u32 in
u32), and wrap.  Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import Array, Builder, Grads, Number, Op, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..errors import Error
from ..types import DType, Shape, TensorType, element, f32, from_numpy, i32
from .constraints import require, same
from .core import generic
from .elementwise import broadcast, broadcast_map

Letters = tuple[str, str, str]


def accumulator(x: DType, y: DType, out: DType | None = None) -> DType:
    """The element type in which products of `x` and `y` are summed, at least as wide as `out`."""
    if x.is_integer:
        acc = i32 if max(x.bits, y.bits) < 32 else x
        return out if out is not None and out.is_integer and out.bits > acc.bits else acc
    acc = f32 if x.is_float and x.bits < 32 else x
    return out if out is not None and out.kind == acc.kind and out.bits > acc.bits else acc


def product_dtype(op: str, x: DType, y: DType, out: DType | None) -> DType:
    """The result element type of a product-sum; checks constraint C1 of the op."""
    mixed = x.is_integer and y.is_integer and max(x.bits, y.bits) <= 16
    require(
        x is y or mixed,
        "E0303",
        f"{op} (C1): element types must be equal, or integers of at most 16 bits",
        f"found {x} and {y}",
        hint="cast one of them",
    )
    acc = accumulator(x, y, out)
    if out is None:
        return acc if x.is_integer else x
    if x.is_integer:
        fits = out is acc or out.is_float
    else:
        fits = out.kind == x.kind
    require(fits, "E0303", f"{op} (C1): products of {x} and {y} do not sum to {out}")
    return out


def as_type(b: Builder, x: Value, dtype: DType) -> Value:
    """The scalar or tensor `x` in element type `dtype`."""
    return x if element(x.type) is dtype else b.cast(x, to=dtype)


def add_up(b: Builder, acc: Value, term: Value) -> Value:
    """The combiner of a sum."""
    return b.add(acc, term)  # type: ignore[no-any-return]


def product_sum(
    b: Builder,
    xs: Sequence[Value],
    its: Sequence[tuple[str, DimLike, str]],
    maps: Sequence[Sequence[DimLike]],
    target: Sequence[DimLike],
    out: TensorType,
    acc: DType,
    fills: Sequence[Any] = (),
    where: Sequence[Sequence[DimLike]] = (),
) -> Value:
    """The sum of x * y, both read at `maps`, in type `acc`, rounded once to `out` at `target`."""

    def multiply(b: Builder, x: Value, y: Value) -> Value:
        return b.mul(as_type(b, x, acc), as_type(b, y, acc))  # type: ignore[no-any-return]

    made: Value = generic(
        b,
        xs,
        its,
        maps,
        [target],
        [out],
        multiply,
        init=(zero(acc),),
        combine=add_up,
        acc_types=(acc,),
        fills=fills,
        where=where,
    )
    return made


def zero(acc: DType) -> int | float:
    """The start of a sum in type `acc`."""
    return 0 if acc.is_integer else 0.0


def exact_matmul(x: Array, y: Array, acc: DType) -> Array:
    """numpy's matmul, summed in `acc`; narrow integers go through f64, exactly."""
    if not acc.is_integer:
        return np.asarray(np.matmul(x.astype(acc.np), y.astype(acc.np)))
    bits = 8 * (x.dtype.itemsize + y.dtype.itemsize)
    if bits + max(1, x.shape[-1]).bit_length() <= 53:
        wide = np.matmul(x.astype(np.float64), y.astype(np.float64)).astype(np.int64)
        return np.asarray(wide.astype(acc.np))
    return np.asarray(np.matmul(x.astype(acc.np), y.astype(acc.np)))


class Matmul(Op):
    """x @ y over the last two axes; leading axes broadcast as in numpy.

    C1: element types are equal, or both integers of at most 16 bits (then the result is i32);
    `out`, if given, is the result type: a float or complex at any width, for integers the
    accumulator or a float. C2: both ranks are at least 2.  C3: x's last extent is y's last but one.
    C4: leading axes broadcast.
    """

    x = operand(Number)
    y = operand(Number)
    out = attr(DType, None)

    @staticmethod
    def infer(x: TensorType, y: TensorType, out: DType | None) -> TensorType:
        dtype = product_dtype("matmul", x.dtype, y.dtype, out)
        found = f"x : {x}   y : {y}"
        require(
            x.rank >= 2 and y.rank >= 2,
            "E0312",
            "matmul (C2): operands must be matrices",
            found,
            hint="reshape a vector to [1, K] or [K, 1]",
        )
        inner, other = x.shape[-1], y.shape[-2]
        require(
            same(inner, other),
            "E0312",
            "matmul (C3): inner extents differ",
            found,
            f"{inner} (last of x) != {other} (last but one of y)",
        )
        try:
            batch = broadcast(x.shape[:-2], y.shape[:-2])
        except Error as error:
            message = "matmul (C4): leading axes do not broadcast"
            raise Error("E0312", message, details=(found, *error.details[1:])) from None
        return TensorType(dtype, (*batch, x.shape[-2], y.shape[-1]))

    @staticmethod
    def evaluate(x: Array, y: Array, out: DType | None) -> Array:
        return _evaluate(x, y, out, exact_matmul)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Iterators b0.. (batch), m, n parallel and k reduction."""
        out = self.result.tensor
        x, y = xs[0].tensor, xs[1].tensor
        batch = out.shape[:-2]
        names = [f"b{k}" for k in range(len(batch))]
        lead = [sym(name) for name in names]
        its = [(name, extent, "parallel") for name, extent in zip(names, batch)]
        its += [("m", out.shape[-2], "parallel"), ("n", out.shape[-1], "parallel")]
        its.append(("k", x.shape[-1], "reduction"))
        m, n, k = sym("m"), sym("n"), sym("k")
        maps = (
            (*broadcast_map(x.shape[:-2], batch, lead), m, k),
            (*broadcast_map(y.shape[:-2], batch, lead), k, n),
        )
        acc = accumulator(x.dtype, y.dtype, self.out)
        return product_sum(b, xs, its, maps, (*lead, m, n), out, acc)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """One contraction each, which also sums over the axes that the operand was broadcast on."""
        batch = LETTERS[: g.tensor.rank - 2]
        x, of_x = _unrepeated(b, self.x, batch, g.tensor.shape)
        y, of_y = _unrepeated(b, self.y, batch, g.tensor.shape)
        grads = product_grads(b, g, x, y, (f"{of_x}mk", f"{of_y}kn", f"{batch}mn"))
        return [
            v if v.type is operand.type else b.reshape(v, shape=operand.tensor.shape)
            for v, operand in zip(grads, (self.x, self.y))
        ]

    samples = (
        sample((3, 5), (5, 7)),
        sample((1, 1), (1, 1)),
        sample((2, 1, 4, 3), (5, 3, 2)),
        sample((4, 0), (0, 3)),
        sample((0, 4), (4, 3)),
        sample((17, 33), (33, 19), dtypes=("f64", "f64")),
        sample((3, 11), (11, 5), dtypes=("f16", "f16")),
        sample((3, 11), (11, 5), dtypes=("bf16", "bf16")),
        sample((3, 11), (11, 5), dtypes=("bf16", "bf16"), out=f32),
        sample((5, 13), (13, 4), dtypes=("u8", "i8"), ranges=((0, 255), (-128, 127))),
        sample((5, 13), (13, 4), dtypes=("i8", "i8"), ranges=((-128, 127), (-128, 127)), out=f32),
        sample((2, 3), (3, 2), dtypes=("i64", "i64"), ranges=((-9, 9), (-9, 9))),
    )
    rejects = (
        ("C1", sample((3, 5), (5, 7), dtypes=("f32", "f64"))),
        ("C1", sample((3, 5), (5, 7), dtypes=("i32", "i8"))),
        ("C2", sample((5,), (5, 7))),
        ("C3", sample((3, 5), (4, 7))),
        ("C4", sample((2, 3, 5), (3, 5, 7))),
    )


LETTERS = "abcdefghijlopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names for batch axes: all but k, m and n."""


def _unrepeated(b: Builder, x: Value, batch: str, out: Shape) -> tuple[Value, str]:
    """The operand of a matmul without the batch axes that are repeated, and the letters of the
    others.
    """
    shape = x.tensor.shape
    extra = len(out) - len(shape)
    kept = [
        k for k in range(len(shape) - 2)
        if same(shape[k], out[extra + k]) is True or same(shape[k], 1) is not True
    ]  # fmt: skip
    letters = "".join([batch[extra + k] for k in kept])
    if len(kept) == len(shape) - 2:
        return x, letters
    return b.reshape(x, shape=(*[shape[k] for k in kept], *shape[-2:])), letters


def product_grads(b: Builder, g: Value, x: Value, y: Value, letters: Letters) -> list[Value]:
    """The cotangents of the operands of a product-sum, each in the wider type of what it is made
    of.
    """
    of_x, of_y, out = letters
    made = []
    for other, equation in ((y, f"{out},{of_y}->{of_x}"), (x, f"{of_x},{out}->{of_y}")):
        pair = [g, other] if other is y else [other, g]
        dtypes = {v.tensor.dtype for v in pair}
        wide = max(dtypes, key=lambda t: t.bits)
        wide = f32 if len(dtypes) > 1 and wide.bits < 32 else wide
        made.append(b.contract(*[as_type(b, v, wide) for v in pair], equation=equation))
    return made


def _evaluate(x: Array, y: Array, out: DType | None, product: Callable[..., Array]) -> Array:
    from_x, from_y = from_numpy(x.dtype), from_numpy(y.dtype)
    total = product(x, y, accumulator(from_x, from_y, out))
    return total.astype(product_dtype("product", from_x, from_y, out).np)


def parse_equation(equation: str) -> Letters:
    """The letters of x, y and the result of "bik,bkj->bij"; E0313 for anything else."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    distinct = all([len(set(t)) == len(t) and (t.isalpha() or not t) for t in (*parts, result)])
    require(
        bool(arrow) and len(parts) == 2 and distinct,
        "E0313",
        f"contract (C2): {equation!r} is not 'x,y->z' with distinct letters in each term",
    )
    return parts[0], parts[1], result


class Contract(Op):
    """The product-sum that `equation` says: "bik,bkj->bij" sums over k.

    C1: element types as for matmul.  C2: `equation` is two terms and a result of distinct single
    letters each.  C3: each term has as many letters as its operand has axes.  C4: a letter has one
    extent.  C5: every letter of a term is in the result or in the other term, and every letter of
    the result in a term.
    """

    x = operand(Number)
    y = operand(Number)
    equation = attr(str)
    out = attr(DType, None)

    @staticmethod
    def infer(x: TensorType, y: TensorType, equation: str, out: DType | None) -> TensorType:
        dtype = product_dtype("contract", x.dtype, y.dtype, out)
        of_x, of_y, result = parse_equation(equation)
        extents: dict[str, DimLike] = {}
        for term, given in ((of_x, x), (of_y, y)):
            require(
                len(term) == given.rank,
                "E0313",
                f"contract (C3): '{term}' does not fit rank {given.rank}",
                f"operand {given}, equation {equation}",
            )
            for letter, extent in zip(term, given.shape):
                have = extents.setdefault(letter, extent)
                require(
                    same(have, extent),
                    "E0313",
                    f"contract (C4): extents of '{letter}' differ",
                    f"x : {x}   y : {y}   {have} != {extent}",
                )
                if type(extent) is int:
                    extents[letter] = extent
        alone = (set(of_x) ^ set(of_y)) - set(result) | set(result) - set(extents)
        require(
            not alone,
            "E0313",
            f"contract (C5): '{''.join(sorted(alone))}' stands in one term only",
            f"equation {equation}",
        )
        return TensorType(dtype, tuple([extents[letter] for letter in result]))

    @staticmethod
    def evaluate(x: Array, y: Array, equation: str, out: DType | None) -> Array:
        def product(x: Array, y: Array, acc: DType) -> Array:
            return _as_matmul(x, y, parse_equation(equation), acc)

        return _evaluate(x, y, out, product)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """One iterator per letter: those of the result parallel, the others reductions."""
        out = self.result.tensor
        of_x, of_y, result = parse_equation(self.equation)
        extents = dict(zip(of_x, xs[0].tensor.shape)) | dict(zip(of_y, xs[1].tensor.shape))
        its = [(letter, extents[letter], "parallel") for letter in result]
        its += [(letter, extents[letter], "reduction") for letter in of_x if letter not in result]
        maps = [[sym(letter) for letter in term] for term in (of_x, of_y)]
        acc = accumulator(xs[0].tensor.dtype, xs[1].tensor.dtype, self.out)
        return product_sum(b, xs, its, maps, [sym(letter) for letter in result], out, acc)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """One contraction each; C5 of this one makes them valid."""
        return product_grads(b, g, self.x, self.y, parse_equation(self.equation))

    samples = (
        sample((3, 5), (5, 7), equation="ik,kj->ij"),
        sample((3, 5), (7, 5), equation="ik,jk->ji"),
        sample((2, 3, 5), (2, 5, 4), equation="bik,bkj->bij"),
        sample((3, 2, 5), (4, 2, 5), equation="ibk,jbk->ibj"),
        sample((3,), (4,), equation="i,j->ij"),
        sample((3, 5), (3, 5), equation="ij,ij->"),
        sample((1, 0), (0, 3), equation="ik,kj->ij"),
        sample((3, 4), (4, 3), equation="ij,ji->ji", dtypes=("f64", "f64")),
        sample((3, 11), (11, 5), equation="ik,kj->ji", dtypes=("f16", "f16")),
        sample(
            (3, 11),
            (11, 5),
            equation="ik,kj->ij",
            dtypes=("u8", "i8"),
            ranges=((0, 255), (-128, 127)),
        ),
    )
    rejects = (
        ("C1", sample((3, 5), (5, 7), dtypes=("f32", "f16"), equation="ik,kj->ij")),
        ("C2", sample((3, 3), (3, 7), equation="ii,ij->ij")),
        ("C2", sample((3, 5), (5, 7), equation="ik,kj")),
        ("C3", sample((3, 5), (5, 7), equation="bik,kj->bij")),
        ("C4", sample((3, 5), (4, 7), equation="ik,kj->ij")),
        ("C5", sample((3, 5), (5, 7), equation="ik,kj->i")),
    )


def _as_matmul(x: Array, y: Array, letters: Letters, acc: DType) -> Array:
    """The contraction as one batched matrix product, with transposes around it."""
    of_x, of_y, result = letters
    extent = dict(zip(of_x, x.shape)) | dict(zip(of_y, y.shape))
    batch = [c for c in result if c in of_x and c in of_y]
    summed = [c for c in of_x if c not in result]
    rows = [c for c in of_x if c not in batch and c not in summed]
    columns = [c for c in of_y if c not in batch and c not in summed]

    def panel(a: Array, term: str, *groups: list[str]) -> Array:
        order = [term.index(c) for group in groups for c in group]
        sizes = [int(np.prod([extent[c] for c in group], dtype=np.int64)) for group in groups]
        return a.transpose(order).reshape(sizes)

    total = exact_matmul(
        panel(x, of_x, batch, rows, summed), panel(y, of_y, batch, summed, columns), acc
    )
    found = [*batch, *rows, *columns]
    return total.reshape([extent[c] for c in found]).transpose([found.index(c) for c in result])


__all__ = [
    "Contract",
    "Matmul",
    "accumulator",
    "add_up",
    "as_type",
    "exact_matmul",
    "parse_equation",
    "product_dtype",
    "product_sum",
    "zero",
]
