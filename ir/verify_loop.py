"""Rules of the waist and of the kernel level: `generic`, scope of symbols, accesses, lanes.

Imports: the core, dims, ops/core, ops/loop, text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from .core import Block, Op, Value
from .dims import Dim
from .errors import VerifyError
from .ops import loop
from .ops.core import Func, Generic
from .text import print_op
from .types import BufferType, DType, TensorType, Type, VectorType, element


def fail(op: Op, code: str, message: str, *details: str) -> NoReturn:
    """Raise the error that shows the op and where it came from."""
    shown = print_op(op).split("\n", 1)[0].strip()
    raise VerifyError(
        code,
        f"{op.name}: {message}",
        where=str(op.loc) if op.loc else None,
        details=(*details, f"in: {shown[:200]}"),
    )


def symbols_in(value: Any) -> Iterator[str]:
    """The symbols in an attribute value."""
    if isinstance(value, Dim):
        yield from value.symbols
    elif type(value) is tuple:
        for part in value:
            yield from symbols_in(part)


def _declared(op: Op) -> str | None:
    """The symbol that an op introduces."""
    if isinstance(op, (loop.For, loop.While)):
        return str(op.var)
    return str(op.symbol) if isinstance(op, loop.Bind) else None


class LoopScope:
    """The symbols of one kernel or plan: each declared once, none used outside its scope.

    A symbol that no loop or bind declares is a parameter of the kernel.
    """

    def __init__(self, func: Func) -> None:
        self.declared: set[str] = set()
        self.open: set[str] = set()
        self.bound: dict[Block, list[str]] = {}
        parameters = {
            s for a in func.args for s in symbols_in(getattr(a.type, "shape", None) or ())
        }
        for op in func.body.walk():
            name = _declared(op)
            if name is None:
                continue
            if name in self.declared or name in parameters:
                fail(op, "E0250", f"the symbol '{name}' is declared twice in @{func.sym}")
            self.declared.add(name)

    def enter(self, op: Op, block: Block) -> None:
        """Before the ops of a region."""
        if isinstance(op, Func):
            return
        self.symbols(op)
        name = _declared(op)
        if name is not None:
            self.open.add(name)

    def leave(self, op: Op, block: Block) -> None:
        """After the ops of a region."""
        self.open.difference_update(self.bound.pop(block, ()))
        name = _declared(op)
        if name is not None:
            self.open.discard(name)

    def after(self, op: Op) -> None:
        """An op at the kernel level."""
        if not op.regions:
            self.symbols(op)
        check = _CHECKS.get(type(op))
        if check is not None:
            check(op)
        if isinstance(op, loop.Bind):
            assert op.block is not None
            self.open.add(op.symbol)
            self.bound.setdefault(op.block, []).append(op.symbol)

    def symbols(self, op: Op) -> None:
        """Every symbol in the attributes is in scope."""
        lane = getattr(op, "lane", "")
        if lane and lane in self.declared:
            fail(op, "E0250", f"the lane symbol '{lane}' is also declared by a loop")
        for name in symbols_in(op.attrs):
            if name in self.declared and name not in self.open:
                fail(op, "E0251", f"the symbol '{name}' is used outside its loop")


def _buffer(op: Op, value: Value) -> BufferType:
    if not isinstance(value.type, BufferType):
        fail(op, "E0252", "it needs a buffer", f"found {value.type}")
    return value.type


def _rank(op: Op, index: Sequence[Any], type: BufferType) -> None:
    if len(index) != type.rank:
        fail(
            op,
            "E0252",
            f"{len(index)} indices for a buffer of rank {type.rank}",
            f"the buffer is {type}",
        )


def _load(op: Op) -> None:
    assert isinstance(op, loop.Load)
    _rank(op, op.index, _buffer(op, op.source))
    _lanes(op)


def _lanes(op: Any) -> None:
    if bool(op.lane) != (op.lanes > 0):
        fail(op, "E0253", "'lane' and 'lanes' go together")


def _store(op: Op) -> None:
    assert isinstance(op, loop.Store)
    target = _buffer(op, op.target)
    _rank(op, op.index, target)
    wanted: type[Type] = VectorType if op.lane else DType
    if not isinstance(op.value.type, wanted):
        fail(
            op,
            "E0253",
            f"it stores a {op.value.type} {'with' if op.lane else 'without'} a lane symbol",
        )
    if element(op.value.type) is not target.dtype:
        fail(op, "E0254", f"it stores {op.value.type} in {target}")


def _copy(op: Op) -> None:
    assert isinstance(op, loop.AsyncCopy)
    source, target = _buffer(op, op.source), _buffer(op, op.target)
    _rank(op, op.source_index, source)
    _rank(op, op.target_index, target)
    if source.dtype is not target.dtype:
        fail(op, "E0254", f"it copies {source} to {target}")


def _stream(op: Op) -> None:
    assert isinstance(op, (loop.Push, loop.Pop))
    type_ = _buffer(op, op.stream)
    if type_.space != "stream":
        fail(op, "E0252", "it needs a buffer in space stream", f"found {type_}")
    if isinstance(op, loop.Push) and op.value.type is not type_.dtype:
        fail(op, "E0254", f"it pushes {op.value.type} into {type_}")


def _view(op: Op) -> None:
    assert isinstance(op, loop.View)
    _buffer(op, op.base)


def _for(op: Op) -> None:
    assert isinstance(op, loop.For)
    if op.kind not in loop.KINDS:
        fail(op, "E0255", f"there is no loop kind '{op.kind}'", f"kinds: {', '.join(loop.KINDS)}")


def _instr(op: Op) -> None:
    assert isinstance(op, loop.CallInstr)
    for value, index in zip(op.args, op.index):
        if index:
            _rank(op, index, _buffer(op, value))


_CHECKS: dict[type[Op], Callable[[Op], None]] = {
    loop.Load: _load,
    loop.Store: _store,
    loop.AsyncCopy: _copy,
    loop.Push: _stream,
    loop.Pop: _stream,
    loop.View: _view,
    loop.For: _for,
    loop.IndexValue: _lanes,
    loop.CallInstr: _instr,
}


def verify_generic(op: Generic) -> None:
    """Maps, guards, accumulators and regions of a `generic` fit each other."""
    inputs = [v.type for v in op.operands]
    names = [n for n, _, _ in op.iterators]
    if len(set(names)) != len(names) or any(
        [kind not in ("parallel", "reduction") for _, _, kind in op.iterators]
    ):
        fail(op, "E0256", "iterators have names of their own and are parallel or reduction")
    if len(op.maps) != len(inputs) or len(op.out_maps) != len(op.types):
        fail(
            op,
            "E0256",
            f"{len(op.maps)} maps for {len(inputs)} operands, "
            f"{len(op.out_maps)} for {len(op.types)} results",
        )
    for said, given in (("fills", op.fills), ("where", op.where)):
        if given and len(given) != len(inputs):
            fail(op, "E0256", f"{len(given)} {said} for {len(inputs)} operands")
    for type_, index in zip((*inputs, *op.types), (*op.maps, *op.out_maps)):
        if not isinstance(type_, (TensorType, BufferType)) or len(index) != len(type_.shape):
            fail(op, "E0256", f"{len(index)} indices for {type_}")
    for k, index in enumerate(op.maps):
        later = [
            s
            for s in symbols_in(index)
            if s.startswith("_v") and s[2:].isdigit() and int(s[2:]) >= k
        ]
        if later:
            fail(op, "E0256", f"the map of operand {k} uses {later[0]}, which is not known yet")
    reductions = {n for n, _ in op.reduction}
    if reductions & set(symbols_in(op.out_maps)):
        fail(op, "E0256", "a result is written at an index that a reduction runs over")
    _generic_regions(op, bool(reductions))


def _generic_regions(op: Generic, reduces: bool) -> None:
    """Arguments and yields of body, combine and finish."""
    if len(op.regions) not in (1, 3) or (reduces and len(op.regions) == 1):
        fail(op, "E0257", "it has a body, and with reductions also combine and finish")
    results = [t.dtype for t in op.types]
    _scalars(op, "body", op.body.args, [element(v.type) for v in op.operands])
    given = _yielded(op.body)
    if len(op.regions) == 1:
        _scalars(op, "body", given, results, "yields")
        return
    accs = list(op.acc_types)
    if len(op.init) != len(accs):
        fail(op, "E0257", f"{len(op.init)} initial values for {len(accs)} accumulators")
    _scalars(op, "combine", op.combine.args, [*accs, *[v.type for v in given]])
    _scalars(op, "combine", _yielded(op.combine), accs, "yields")
    _scalars(op, "finish", op.finish.args, accs)
    _scalars(op, "finish", _yielded(op.finish), results, "yields")


def _yielded(block: Block) -> Sequence[Value]:
    return block.last.operands if block.last is not None else ()


def _scalars(
    op: Op, region: str, values: Sequence[Value], types: Sequence[Type], verb: str = "takes"
) -> None:
    found = [v.type for v in values]
    if found != list(types):
        fail(
            op,
            "E0257",
            f"{region} {verb} {', '.join(map(str, found))}, not {', '.join(map(str, types))}",
        )


__all__ = ["LoopScope", "fail", "symbols_in", "verify_generic"]
