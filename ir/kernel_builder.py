"""Kernels written by hand: a builder for the loop level whose blocks are `with` statements.

    k = KernelBuilder("double", "f32[N]", "f32[N]")
    x, y = k.args
    with k.loop("i", sym("N"), "parallel") as i:
        k.store(k.add(k.load(x, i), k.load(x, i)), y, i)
    k.func

Ops without a method of their own come from `Builder`: `k.add`, `k.cast`, `k.emit(...)`.
Imports: the core, dims, types, the kernel-level ops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .core import Block, Builder, Value
from .dims import Dim, DimLike, sym
from .ops import loop
from .ops.core import Const, Func
from .types import BufferType, DType, TensorType, Type, f32, i64, parse_type


def buffer_type(text: str | BufferType) -> BufferType:
    """`f32[4, N]` is a dense heap buffer; `buffer<...>` says everything."""
    if isinstance(text, BufferType):
        return text
    type_ = parse_type(text)
    if isinstance(type_, BufferType):
        return type_
    assert isinstance(type_, TensorType)
    return BufferType(type_.dtype, type_.shape)


class KernelBuilder(Builder):
    """Builds the function `func` over the buffers `args`; the last `outputs` are results."""

    def __init__(
        self, name: str, *buffers: str | BufferType, outputs: int = 1, kind: str = "kernel"
    ) -> None:
        names = [f"a{k}" for k in range(len(buffers))]
        results = names[len(names) - outputs :]
        self.func = Func.make(
            name, [buffer_type(t) for t in buffers], names, kind=kind, outputs=results
        )
        self.args = self.func.args
        super().__init__(self.func.body)

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """Insert into `block` for a while."""
        saved = self.block
        self.block = block
        yield
        self.block = saved

    @contextmanager
    def loop(
        self,
        var: str,
        extent: DimLike,
        kind: str = "serial",
        lo: DimLike = 0,
        reduction: bool = False,
    ) -> Iterator[Dim]:
        """A loop; gives its symbol."""
        made = self.insert(loop.For.make(var, extent, kind, lo, reduction))
        with self.inside(made.body):
            index = sym(var)
            assert isinstance(index, Dim)
            yield index

    @contextmanager
    def guard(self, *where: DimLike) -> Iterator[None]:
        """What runs only where every expression is at least zero."""
        with self.inside(self.insert(loop.If(where=where, regions=[Block()])).body):
            yield

    @contextmanager
    def process(self, label: str) -> Iterator[None]:
        """A dataflow process."""
        with self.inside(self.insert(loop.Process(label=label, regions=[Block()])).body):
            yield

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What runs only where a scalar is true."""
        made = self.insert(loop.When(condition, regions=[Block(), Block()]))
        with self.inside(made.then):
            yield

    def load(
        self, buffer: Value, *index: DimLike, where: Sequence[DimLike] = (), fill: Any = None
    ) -> Value:
        """One element."""
        value: Value = self.emit(loop.Load, buffer, index=index, where=where, fill=fill)
        return value

    def store(
        self, value: Value, buffer: Value, *index: DimLike, where: Sequence[DimLike] = ()
    ) -> None:
        """Write one element."""
        self.emit(loop.Store, value, buffer, index=index, where=where)

    def accumulate(self, value: Value, buffer: Value, *index: DimLike) -> None:
        """Add to one element."""
        self.store(self.add(self.load(buffer, *index), value), buffer, *index)

    def alloc(self, text: str, space: str = "stack", label: str = "") -> Value:
        """Undefined memory `f32[4, N]` in a space."""
        type_ = buffer_type(text)
        made = BufferType(type_.dtype, type_.shape, space, type_.strides)
        value: Value = self.emit(loop.Alloc, label=label, type=made)
        value.name = label or None
        return value

    def const(self, number: float, type: Type = f32) -> Value:
        """A constant scalar."""
        return self.insert(Const(number, type)).result

    def index_value(self, e: DimLike, dtype: DType = i64) -> Value:
        """An index expression as a scalar."""
        value: Value = self.emit(loop.IndexValue, value=e, dtype=dtype)
        return value

    def instr(self, name: str, *operands: tuple[Value, Sequence[DimLike]]) -> None:
        """One hardware instruction on (buffer, index) pairs."""
        buffers, index = zip(*operands, strict=True)
        self.emit(loop.CallInstr, *buffers, instr=name, index=index)


__all__ = ["KernelBuilder", "buffer_type"]
