"""Scalar arithmetic and index expressions as C expressions: one row per op.

An expression carries its precedence, so that parentheses stand where C (or a compiler's
warnings) wants them. Integer arithmetic wraps through the unsigned type; nothing here is
undefined for any operand.
Imports: ir, types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...ir.core import Op
from ...ir.dims import Dim, DimLike, Range, nonneg
from ...ir.dims_expr import DIV, MIN, MOD, SYM, Atom, Mono, dim
from ...ir.ops.core import Const
from ...ir.types import DType, bf16, boolean, dense_strides, f16, f64
from .types import literal, register_type, width

PRIMARY, UNARY, MULTIPLY, ADD, SHIFT, RELATION, EQUALITY, BITS, AND, OR, TERNARY = range(16, 5, -1)


class Expr(NamedTuple):
    """C text and the precedence of its outermost operator."""

    text: str
    level: int = PRIMARY
    wide: str = ""
    """The same number modulo the type's width, as an unsigned primary expression, where there is
    one.
    """

    def at(self, level: int) -> str:
        """The text, in parentheses when its operator binds less than `level`."""
        return self.text if self.level >= level else f"({self.text})"


def binary(operator: str, level: int, x: Expr, y: Expr) -> Expr:
    """x operator y, for a left-associative operator."""
    return Expr(f"{x.at(level)} {operator} {y.at(level + 1)}", level)


def apart(operator: str, level: int, x: Expr, y: Expr) -> Expr:
    """The same for operators whose mixing compilers warn about: operands are simple or in
    parentheses.
    """
    return Expr(f"{x.at(UNARY)} {operator} {y.at(UNARY)}", level)


def call(name: str, *xs: Expr) -> Expr:
    """name(xs...)."""
    return Expr(f"{name}({', '.join([x.text for x in xs])})")


def cast(type: str, x: Expr) -> Expr:
    """(type)x."""
    return Expr(f"({type}){x.at(UNARY)}", UNARY)


class Expressions:
    """What printing an expression needs to know: names of symbols, their ranges, and which helpers
    are used.
    """

    cplusplus = False

    def __init__(self) -> None:
        self.symbols: dict[str, Expr] = {}
        self.ranges: dict[str, Range] = {}
        self.used: dict[str, None] = {}
        self.mentions: set[str] = set()
        """Names that the text refers to."""

    def simple(self, x: Expr, dtype: DType) -> Expr:
        """x in a form that may be written twice."""
        return x

    def need(self, name: str) -> str:
        """Note that a helper of the prelude is used; gives its name."""
        self.used[name] = None
        return name

    def constant(self, value: Any, dtype: DType) -> Expr:
        """A literal; negative ones bind like a unary minus."""
        text = literal(value, dtype)
        if text.endswith(("INFINITY", "NAN")):
            self.need("<math.h>")
        return Expr(text, UNARY if text[0] == "-" else PRIMARY)

    # Index expressions -------------------------------------------------------------------------

    def dim(self, e: DimLike) -> Expr:
        """e as a ptrdiff_t."""
        if not isinstance(e, Dim):
            return Expr(str(e), PRIMARY if e >= 0 else UNARY)
        plus = [(m, c) for m, c in e.terms if c > 0]
        minus = [(m, -c) for m, c in e.terms if c < 0]
        parts = [(1, self._term(m, c)) for m, c in plus]
        if e.const > 0:
            parts.append((1, Expr(str(e.const))))
        parts += [(-1, self._term(m, c)) for m, c in minus]
        if e.const < 0:
            parts.append((-1, Expr(str(-e.const))))
        sign, total = parts[0]
        if sign < 0:
            total = Expr(f"-{total.at(UNARY)}", UNARY)
        for sign, part in parts[1:]:
            total = binary("+" if sign > 0 else "-", ADD, total, part)
        return total

    def _term(self, m: Mono, c: int) -> Expr:
        factors = [self._atom(f) for f in m.factors]
        total = factors[0]
        for f in factors[1:]:
            total = binary("*", MULTIPLY, total, f)
        return total if c == 1 else binary("*", MULTIPLY, total, Expr(str(c)))

    def _atom(self, a: Atom) -> Expr:
        if a.kind == SYM:
            known = self.symbols[a.args[0]]
            self.mentions.add(known.text)
            return known
        xs = [self.dim(x) for x in a.args]
        if a.kind in (DIV, MOD):
            if nonneg(a.args[0], self.ranges):
                return binary("/" if a.kind == DIV else "%", MULTIPLY, *xs)
            return call(self.need("irc_floordiv" if a.kind == DIV else "irc_mod"), *xs)
        total = xs[0]
        for x in xs[1:]:
            total = call(self.need("irc_least" if a.kind == MIN else "irc_most"), total, x)
        return total

    def holds(self, where: Sequence[DimLike]) -> Expr | None:
        """Every expression is at least zero, as comparisons of positive sums; None where that is
        plain.
        """
        known: Expr | None = None
        for e in where:
            if not isinstance(e, Dim):
                if e < 0:
                    return Expr("false")
                continue
            one = self._at_least_zero(e)
            known = one if known is None else binary("&&", AND, known, one)
        return known

    def _at_least_zero(self, e: Dim) -> Expr:
        left = dim(tuple([t for t in e.terms if t[1] > 0]), max(e.const, 0))
        right = dim(tuple([(m, -c) for m, c in e.terms if c < 0]), max(-e.const, 0))
        relation = ">="
        if e.const == -1:
            relation, right = ">", right - 1
        if not isinstance(left, Dim):  # the constant stands on the right: i <= 5, not 5 >= i
            return Expr(f"{self.dim(right).at(ADD)} {relation.replace('>', '<')} {left}", RELATION)
        return Expr(f"{self.dim(left).at(ADD)} {relation} {self.dim(right).at(ADD)}", RELATION)

    def flat(
        self, index: Sequence[DimLike], shape: Sequence[DimLike], strides: Sequence[DimLike] | None
    ) -> Expr:
        """The flat position of an element: nested as (i * N + j) when dense, else a sum."""
        if strides is not None or all(isinstance(i, int) for i in index):
            total: DimLike = 0
            for i, s in zip(index, strides or dense_strides(tuple(shape)), strict=True):
                total = total + i * s
            return self.dim(total)
        known: Expr | None = None
        for i, extent in zip(index, shape, strict=True):
            if known is not None:
                known = binary("*", MULTIPLY, known, self.dim(extent)) if extent != 1 else known
                if i == 0:
                    continue
                known = self._plus(known, i)
            elif i != 0:
                known = self.dim(i)
        return known or Expr("0")

    def _plus(self, x: Expr, i: DimLike) -> Expr:
        """x + i, with i's own leading minus or trailing constant kept as written."""
        if isinstance(i, int) and i < 0:
            return binary("-", ADD, x, Expr(str(-i)))
        y = self.dim(i)
        return Expr(f"{x.at(ADD)} + {y.at(ADD) if y.text[0] != '-' else y.at(PRIMARY)}", ADD)


# Arithmetic --------------------------------------------------------------------------------------

Rule = Callable[[Expressions, DType, "list[Expr]", Op], Expr]


def _unsigned(dtype: DType) -> str:
    """The unsigned type in which arithmetic of a narrow or signed integer cannot overflow."""
    return f"uint{max(32, width(dtype))}_t"


def wrapped(x: Expr, dtype: DType) -> Expr:
    """An integer expression cut to the width of `dtype`."""
    if dtype.bits == width(dtype):
        return cast(register_type(dtype), x)
    mask = (1 << dtype.bits) - 1
    low = f"{x.at(UNARY)} & {mask}"
    if dtype.kind == "int":
        half = 1 << (dtype.bits - 1)
        low = f"(({low}) ^ {half}) - {half}"
    return Expr(f"({register_type(dtype)})({low})", UNARY)


def rounded(p: Expressions, x: Expr, dtype: DType) -> Expr:
    """A float expression rounded to a 16-bit type."""
    if dtype is f16 or dtype is bf16:
        return call(p.need(f"irc_{dtype.name}_round"), x)
    return x


def _arithmetic(operator: str, level: int) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        if dtype.is_float:
            return rounded(p, binary(operator, level, *xs), dtype)
        wide = _unsigned(dtype)
        if dtype.kind == "uint" and dtype.bits >= 32:
            return binary(operator, level, *xs)
        x, y = [Expr(v.wide, PRIMARY) if v.wide else cast(wide, v) for v in xs]
        inner = binary(operator, level, x, y)
        made = wrapped(inner, dtype)
        return made._replace(wide=inner.at(PRIMARY)) if dtype.bits in (32, 64) else made

    return rule


def _division(name: str) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        if dtype.is_float:
            if name == "div":
                return rounded(p, binary("/", MULTIPLY, *xs), dtype)
            p.need("<math.h>")
            return call("fmod" if dtype is f64 else "fmodf", *xs)
        helper = p.need(f"irc_{name}_{'u' if dtype.kind == 'uint' else 'i'}{width(dtype)}")
        made = call(helper, *xs)
        return wrapped(made, dtype) if dtype.bits != width(dtype) else made

    return rule


def suffix(dtype: DType) -> str:
    """The suffix of C's own float functions."""
    return "" if dtype is f64 else "f"


def _helper(name: str, rounds: bool = False) -> Rule:
    """A function of the prelude on floats."""

    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        made = call(p.need(f"{name}{suffix(dtype)}"), *xs)
        return rounded(p, made, dtype) if rounds else made

    return rule


def _sqrt(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
    p.need("<math.h>")
    return rounded(p, call(f"sqrt{suffix(dtype)}", *xs), dtype)


def _extremum(name: str, operator: str) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        x, y = xs
        if dtype is boolean:
            return apart("&&" if name == "min" else "||", AND if name == "min" else OR, x, y)
        if isinstance(op.operands[0].op, Const):
            x, y = y, x
        if any(isinstance(v.op, Const) for v in op.operands) and y.text != "NAN":
            x = p.simple(x, dtype)
            other = ">" if operator == "<" else "<"  # false for a NaN x, which is then kept
            return Expr(f"{x.at(ADD)} {other} {y.text} ? {y.text} : {x.at(ADD)}", TERNARY)
        if dtype.is_float:
            return call(p.need(f"irc_{name}{suffix(dtype)}"), x, y)
        return call(p.need(f"irc_{name}_{register_type(dtype)}"), x, y)

    return rule


def _larger(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
    x, y = [p.simple(v, dtype) for v in xs]
    return Expr(f"{x.at(ADD)} > {y.at(ADD)} ? {x.at(ADD)} : {y.at(ADD)}", TERNARY)


def _negate(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
    (x,) = xs
    if dtype.is_float:
        return Expr(f"-{x.at(PRIMARY)}", UNARY)
    return wrapped(Expr(f"0u - {cast(_unsigned(dtype), x).text}", ADD), dtype)


def _absolute(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
    (x,) = xs
    if dtype.is_float:
        return call(p.need(f"irc_abs{suffix(dtype)}"), x)
    if dtype.kind == "uint":
        return x
    x = p.simple(x, dtype)
    return Expr(f"{x.at(ADD)} < 0 ? {_negate(p, dtype, [x], op).text} : {x.at(ADD)}", TERNARY)


def _relation(operator: str, level: int) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        return Expr(f"{xs[0].at(ADD)} {operator} {xs[1].at(ADD)}", level)

    return rule


def _logic(operator: str, level: int) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        return apart(operator, level, *xs)

    return rule


def _bitwise(operator: str) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        made = apart(operator, BITS, *xs)
        return made if dtype.bits >= 32 else cast(register_type(dtype), made)

    return rule


def _complement(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
    if dtype is boolean:
        return Expr(f"!{xs[0].at(UNARY)}", UNARY)
    return wrapped(Expr(f"~{xs[0].at(UNARY)}", UNARY), dtype)


def _shift(operator: str) -> Rule:
    def rule(p: Expressions, dtype: DType, xs: list[Expr], op: Op) -> Expr:
        x, y = xs
        fixed = op.operands[1].op
        if isinstance(fixed, Const):
            count = str(int(fixed.value) & (dtype.bits - 1))
        else:
            count = f"({y.at(UNARY)} & {dtype.bits - 1})"
        if operator == "<<":
            return wrapped(Expr(f"{cast(_unsigned(dtype), x).text} << {count}", SHIFT), dtype)
        made = Expr(f"{x.at(UNARY)} >> {count}", SHIFT)
        return made if dtype.bits >= 32 else cast(register_type(dtype), made)

    return rule


RULES: dict[str, Rule] = {
    "add": _arithmetic("+", ADD),
    "sub": _arithmetic("-", ADD),
    "mul": _arithmetic("*", MULTIPLY),
    "div": _division("div"),
    "rem": _division("rem"),
    "min": _extremum("min", "<"),
    "max": _extremum("max", ">"),
    "larger": _larger,
    "fma": _helper("irc_fma", rounds=True),
    "sqrt": _sqrt,
    "floor": _helper("irc_floor"),
    "ceil": _helper("irc_ceil"),
    "trunc": _helper("irc_trunc"),
    "round_even": _helper("irc_round_even"),
    "copy_sign": _helper("irc_copysign"),
    "neg": _negate,
    "abs": _absolute,
    "identity": lambda p, dtype, xs, op: xs[0],
    "eq": _relation("==", EQUALITY),
    "ne": _relation("!=", EQUALITY),
    "lt": _relation("<", RELATION),
    "le": _relation("<=", RELATION),
    "gt": _relation(">", RELATION),
    "ge": _relation(">=", RELATION),
    "logical_and": _logic("&&", AND),
    "logical_or": _logic("||", OR),
    "logical_xor": _logic("!=", EQUALITY),
    "logical_not": _complement,
    "bitwise_and": _bitwise("&"),
    "bitwise_or": _bitwise("|"),
    "bitwise_xor": _bitwise("^"),
    "bitwise_not": _complement,
    "shift_left": _shift("<<"),
    "shift_right": _shift(">>"),
}


def choose(condition: Expr, x: Expr, y: Expr) -> Expr:
    """condition ? x : y."""
    return Expr(f"{condition.at(OR)} ? {x.at(OR)} : {y.at(OR)}", TERNARY)


def convert(p: Expressions, x: Expr, source: DType, to: DType) -> Expr:
    """`x` converted as the op `cast` defines."""
    if source is to:
        return x
    if to is boolean:
        return Expr(f"{x.at(ADD)} != {literal(0, source)}", EQUALITY)
    if to.is_float:
        made = x
        if to.bits == 16 and (source is f64 or (source.is_integer and source.bits > 24)):
            return rounded(p, call(p.need("irc_odd"), cast("double", x)), to)
        if not (source.is_float and register_type(source) == register_type(to)):
            made = cast(register_type(to), x)
        return rounded(p, made, to)
    if source.is_float:
        name = f"irc_{register_type(source)}_to_{'u' if to.kind == 'uint' else 'i'}{width(to)}"
        made = call(p.need(name), x)
        if to.bits != width(to):
            low, high = (
                (-(1 << to.bits - 1), (1 << to.bits - 1) - 1)
                if to.kind == "int"
                else (0, (1 << to.bits) - 1)
            )
            wide = call(p.need(f"irc_{register_type(source)}_to_i32"), x)
            p.need("irc_most"), p.need("irc_least")
            return cast(
                register_type(to),
                call("irc_most", Expr(str(low)), call("irc_least", Expr(str(high)), wide)),
            )
        return made
    if source is boolean or (to.bits == width(to)):
        return cast(register_type(to), x)
    return wrapped(x, to)


def bitcast(p: Expressions, x: Expr, source: DType, to: DType) -> Expr:
    """The bits of x as another type of the same width."""
    if source.is_float:
        if source.bits == 16:
            x = call(p.need(f"irc_{source.name}_bits"), x)
        else:
            x = call(p.need(f"irc_bits{suffix(source)}"), x)
        source = DType(f"u{source.bits}")
    if not to.is_float:
        return x if source is to else cast(register_type(to), x)
    if source.kind == "int":
        x = cast(f"uint{source.bits}_t", x)
    if to.bits == 16:
        return call(p.need(f"irc_{to.name}_load"), x)
    return call(p.need(f"irc_from_bits{suffix(to)}"), x)


__all__ = [
    "ADD",
    "AND",
    "PRIMARY",
    "RELATION",
    "RULES",
    "TERNARY",
    "UNARY",
    "Expr",
    "Expressions",
    "Rule",
    "binary",
    "bitcast",
    "call",
    "cast",
    "choose",
    "convert",
    "wrapped",
]
