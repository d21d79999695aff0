"""Structure: module, function, return, yield, constants, fused regions, and `generic`, the waist.

Imports: the core, types, dims, blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..blobs import Blob
from ..core import Any_, Array, Block, Builder, Loc, Op, Value, attr, region, variadic
from ..dims import DimLike, sym
from ..errors import Error
from ..types import DType, TensorType, Type, element


class Return(Op):
    """Ends a function; the operands are its results."""

    terminator = True
    pure = False
    values = variadic(Any_)

    @staticmethod
    def infer(*types: Type) -> tuple[Type, ...]:
        return ()


class Yield(Op):
    """Ends a region; the operands are what the region gives to its op."""

    terminator = True
    pure = False
    values = variadic(Any_)

    @staticmethod
    def infer(*types: Type) -> tuple[Type, ...]:
        return ()


class Const(Op):
    """A constant: a `Blob` for tensors, a Python number for a scalar (kernel level)."""

    value = attr(object)
    type = attr(Type, implied=True)

    def __init__(self, value: Any, type: Type | None = None, loc: Loc | None = None) -> None:
        if isinstance(value, (np.ndarray, np.generic)):
            value = Blob(np.asarray(value), type if isinstance(type, TensorType) else None)
        super().__init__(loc=loc, value=value, type=type if type is not None else value.type)

    def result_types(self) -> tuple[Type, ...]:
        return (self.type,)

    @staticmethod
    def infer(value: Any, type: Type) -> Type:
        return type

    @staticmethod
    def evaluate(value: Any, type: Type) -> Array:
        return value.array if isinstance(value, Blob) else np.asarray(value, type.np)  # type: ignore[attr-defined]


def zeros(b: Builder, type: TensorType) -> Value:
    """Zeros of a type, whose shape may be symbolic."""
    zero = b.insert(Const(np.zeros((), type.dtype.np), TensorType(type.dtype, ()))).result
    return b.broadcast_to(zero, shape=type.shape) if type.shape else zero


class Func(Op):
    """A function.  Block arguments are its parameters, the operands of its `return` its results.

    `kind` is "func" (tensors), "kernel" (loop level: buffer parameters, results written in place),
    "plan" (loop level: calls kernels) or "host".  `state` pairs (parameter, result) indices: the
    result is the parameter's next value, updated in place.
    """

    pure = False
    sym = attr(str)
    kind = attr(str, "func")
    inputs = attr(tuple, ())
    outputs = attr(tuple, ())
    state = attr(tuple, ())
    body = region()

    @classmethod
    def make(
        cls,
        sym: str,
        types: Sequence[Type],
        inputs: Sequence[str] = (),
        kind: str = "func",
        outputs: Sequence[str] = (),
        state: Sequence[tuple[int, int]] = (),
    ) -> Func:
        """An empty function with parameters of these types."""
        block = Block(types, list(inputs))
        return cls(
            sym=sym,
            kind=kind,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            state=tuple(state),
            regions=[block],
        )

    def result_types(self) -> tuple[Type, ...]:
        return ()

    @property
    def args(self) -> tuple[Value, ...]:
        return self.body.args

    @property
    def returned(self) -> tuple[Value, ...]:
        """The values the function returns (none for kernels)."""
        last = self.body.last
        return last.operands if isinstance(last, Return) else ()


class Module(Op):
    """A list of functions; `main` is the one that runs."""

    pure = False
    sym = attr(str, "module")
    body = region()

    @classmethod
    def make(cls, funcs: Sequence[Func] = (), sym: str = "module") -> Module:
        """A module holding these functions."""
        module = cls(sym=sym, regions=[Block()])
        for func in funcs:
            module.body.append(func)
        return module

    def result_types(self) -> tuple[Type, ...]:
        return ()

    @property
    def funcs(self) -> list[Func]:
        return [op for op in self.body if isinstance(op, Func)]

    def func(self, sym: str) -> Func:
        """The function called `sym`; E0211 if there is none."""
        for func in self.funcs:
            if func.sym == sym:
                return func
        raise Error(
            "E0211",
            f"the module has no function @{sym}",
            details=("functions: " + ", ".join("@" + f.sym for f in self.funcs),),
        )

    @property
    def main(self) -> Func:
        return self.func("main")

    def clone(self) -> Module:
        """A deep copy (constants are shared)."""
        return self.copy()

    def save(self, path: str) -> None:
        """Write an `.irc` archive or, for a path ending in .ir, the text."""
        from ..archive import save  # the archive reads this module

        save(self, path)


class Fused(Op):
    """A region of tensor ops that becomes one kernel.  Isolated: it sees its arguments only."""

    inputs = variadic(Any_)
    label = attr(str, "")
    body = region("one argument per operand; yields the results")

    def result_types(self) -> tuple[Type, ...]:
        last = self.regions[0].last
        assert isinstance(last, Yield)
        return tuple([v.type for v in last.operands])


Scalars = Callable[..., Any]


class Generic(Op):
    """The waist: a loop nest over named iterators with one scalar body (structured op, quasi-
    affine).

    `iterators` are (name, extent, "parallel" or "reduction").  Operand k is read at `maps[k]`, an
    index expression over iterator names per dimension; `_v0`, `_v1` ... stand for the (integer,
    checked) value of an earlier operand: the escape for gathers.  Where `fills[k]` is not None, an
    index out of the operand's bounds, or an expression of `where[k]` below zero, gives the fill
    value.  Result r is written at `out_maps[r]`.

    Without reductions `body` yields the result elements.  With them it yields contributions;
    `combine(accumulators..., contributions...)` yields new accumulators starting from `init`, of
    scalar types `acc_types`; `finish(accumulators...)` yields the result elements.
    """

    inputs = variadic(Any_)
    iterators = attr(tuple)
    maps = attr(tuple)
    out_maps = attr(tuple)
    fills = attr(tuple, ())
    where = attr(tuple, ())
    init = attr(tuple, ())
    acc_types = attr(tuple, ())
    types = attr(tuple, implied=True)
    body = region("one scalar per operand")
    combine = region("accumulators, then contributions; absent without reductions")
    finish = region("accumulators; absent without reductions")

    def result_types(self) -> tuple[Type, ...]:
        return self.types  # type: ignore[no-any-return]

    @property
    def parallel(self) -> list[tuple[str, DimLike]]:
        return [(n, e) for n, e, kind in self.iterators if kind == "parallel"]

    @property
    def reduction(self) -> list[tuple[str, DimLike]]:
        return [(n, e) for n, e, kind in self.iterators if kind == "reduction"]


def _scalar_block(types: Sequence[DType], fill: Scalars, loc: Loc | None) -> Block:
    block = Block(types)
    b = Builder(block, loc=loc)
    out = fill(b, *block.args)
    b.emit(Yield, *(out if isinstance(out, (tuple, list)) else (out,)))
    return block


def generic(
    b: Builder,
    inputs: Sequence[Value],
    iterators: Sequence[tuple[str, DimLike, str]],
    maps: Sequence[Sequence[DimLike]],
    out_maps: Sequence[Sequence[DimLike]],
    types: Sequence[TensorType],
    body: Scalars,
    *,
    init: Sequence[Any] = (),
    combine: Scalars | None = None,
    finish: Scalars | None = None,
    acc_types: Sequence[DType] = (),
    fills: Sequence[Any] = (),
    where: Sequence[Sequence[DimLike]] = (),
) -> Any:
    """Make a `Generic`; `body`, `combine` and `finish` are functions (builder, scalars...) ->
    scalar(s).

    Accumulator types default to the contributions' types, `finish` to a cast to the result types.
    Gives the result value, or a tuple of them.
    """
    regions = [_scalar_block([v.tensor.dtype for v in inputs], body, b.loc)]
    if combine is not None:
        given = regions[0].last
        gives = [element(v.type) for v in given.operands] if given is not None else []
        acc_types = tuple(acc_types) or tuple(gives)
        done = finish or _cast_to([t.dtype for t in types])
        regions.append(_scalar_block([*acc_types, *gives], combine, b.loc))
        regions.append(_scalar_block(acc_types, done, b.loc))
    op = Generic(
        *inputs,
        loc=b.loc,
        regions=regions,
        iterators=iterators,
        maps=maps,
        out_maps=out_maps,
        fills=fills,
        where=where,
        init=init,
        acc_types=acc_types,
        types=types,
    )
    b.insert(op)
    return op.results[0] if len(op.results) == 1 else op.results


def _cast_to(dtypes: Sequence[DType]) -> Scalars:
    def finish(b: Builder, *accs: Value) -> list[Value]:
        return [a if a.type is t else b.cast(a, to=t) for a, t in zip(accs, dtypes, strict=True)]

    return finish


def iterators(
    prefix: str, shape: Sequence[DimLike], kind: str = "parallel"
) -> list[tuple[str, DimLike, str]]:
    """`i0, i1 ...` over a shape."""
    return [(f"{prefix}{k}", extent, kind) for k, extent in enumerate(shape)]


def indices(its: Sequence[tuple[str, DimLike, str]]) -> list[DimLike]:
    """The index expressions that are just the iterators."""
    return [sym(name) for name, _, _ in its]


__all__ = [
    "Const",
    "Func",
    "Fused",
    "Generic",
    "Module",
    "Return",
    "Yield",
    "generic",
    "indices",
    "iterators",
    "zeros",
]
