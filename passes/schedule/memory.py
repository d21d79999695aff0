"""Schedule steps about where values live: ComputeAt, Inline, Stage, Relayout, Rfactor.

May import: ir, the analysis beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.core import Builder, Op, Value
from ...ir.dims import DimLike, ceildiv, equal, substitute, sym
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import Alloc, Bind, For, Load, Prefetch, Store
from ...ir.symbols import free_symbols, map_dims, ranges_around
from ...ir.types import BufferType
from .nests import Refused, child_of, contains, find_alloc, find_buffer, find_loop
from .simplify import simplify_under
from .steps import Step, names_within
from .window import covers, position, sink, window


@dataclass(frozen=True)
class ComputeAt(Step):
    """Compute a buffer inside the loop that reads it, over the part read there only, in `space`.

    With space "register" the part is held in registers (its indices must become constants by
    unrolling).
    """

    label: str
    loop: str
    space: str = "stack"

    def apply(self, kernel: Func) -> None:
        sink(find_alloc(kernel, self.label), find_loop(kernel, self.loop), self.space, clip=True)


def keep(label: str, loop: str) -> ComputeAt:
    """Hold a buffer in registers inside a loop."""
    return ComputeAt(label, loop, "register")


@dataclass(frozen=True)
class Place(Step):
    """Say where a buffer lives, without moving its computation."""

    label: str
    space: str

    def apply(self, kernel: Func) -> None:
        alloc = find_alloc(kernel, self.label)
        old = alloc.result.buffer
        _retype(alloc, BufferType(old.dtype, old.shape, self.space, old.strides))


@dataclass(frozen=True)
class Pad(Step):
    """Round a buffer's dimension up to a multiple, so that whole vectors fit."""

    label: str
    dim: int
    multiple: int

    def apply(self, kernel: Func) -> None:
        alloc = find_alloc(kernel, self.label)
        old = alloc.result.buffer
        shape = list(old.shape)
        shape[self.dim] = ceildiv(shape[self.dim], self.multiple) * self.multiple
        _retype(alloc, BufferType(old.dtype, tuple(shape), old.space))


def _retype(alloc: Alloc, made: BufferType) -> None:
    alloc.set_attr("type", made)
    alloc.result.type = made


@dataclass(frozen=True)
class Inline(Step):
    """Recompute a pointwise buffer at every place that reads it, and drop it."""

    label: str

    def apply(self, kernel: Func) -> None:
        alloc = find_alloc(kernel, self.label)
        stores = [u for u in alloc.result.users if isinstance(u, Store)]
        loads = [u for u in alloc.result.users if isinstance(u, Load)]
        if len(stores) != 1 or len(stores) + len(loads) != len(alloc.result.users):
            raise Refused(f"{self.label} is not written by a single store")
        store = stores[0]
        nest = child_of(store, alloc.block)  # type: ignore[arg-type]
        names = _pointwise(nest, store)
        taken = names_within(kernel) - names_within(nest)
        for load in loads:
            if contains(nest, load):
                raise Refused(f"{self.label} is read where it is computed")
            if load.where:
                raise Refused(f"{self.label} is read under a guard")
            _recompute(store, load, names, taken)
        nest.erase()
        alloc.erase()


def _pointwise(nest: Op, store: Store) -> list[str]:
    """The loop variables per dimension of a perfect nest with one straight-line body."""
    op = nest
    extents: dict[str, DimLike] = {}
    while isinstance(op, For):
        if op.reduction:
            raise Refused("the producer reduces")
        extents[op.var] = op.extent
        if store.block is op.body:
            break
        if op.body.size != 1 or op.body.first is None:
            raise Refused("the producer is not a perfect nest")
        op = op.body.first
    if isinstance(op, For) and any(inner.regions for inner in op.body):
        raise Refused("the producer is not a perfect nest")
    if store.where or {str(e) for e in store.index if not isinstance(e, int)} != set(extents):
        raise Refused("the producer's index is not its loops")
    return [str(e) if not isinstance(e, int) else "" for e in store.index]


def _recompute(store: Store, load: Load, names: list[str], taken: set[str]) -> None:
    """Clone what the stored value needs before `load`, for the element it reads; what it binds gets
    names that are not `taken`.
    """
    env_dims: dict[str, DimLike] = {n: e for n, e in zip(names, load.index, strict=True) if n}
    env: dict[Value, Value] = {}
    assert load.block is not None
    for op in _slice(store):
        made = op.copy(env)
        map_dims(made, env_dims)
        load.block.insert_before(made, load)
        if isinstance(made, Bind):
            old = new = made.symbol
            count = 0
            while new in taken:
                count += 1
                new = f"{old}.{count}"
            taken.add(new)
            env_dims[old] = sym(new)
            made.set_attr("symbol", new)
    load.result.replace_by(env.get(store.value, store.value))
    load.erase()


def _slice(store: Store) -> list[Op]:
    """The ops of the store's block that its value depends on, bound symbols included, in order."""
    wanted: list[Op] = []
    names: set[str] = set()
    op = store.prev
    values = {store.value}
    while op is not None:
        bound = isinstance(op, Bind) and op.symbol in names
        if isinstance(op, Alloc):
            pass  # memory is shared, not copied
        elif bound or any(r in values for r in op.results):
            wanted.append(op)
            values.update(op.operands)
            names |= free_symbols(op)
        op = op.prev
    return wanted[::-1]


@dataclass(frozen=True)
class Stage(Step):
    """Copy the part of `source` that `loop` reads into a new buffer at the start of each iteration.

    Without a loop the copy is made once, before the kernel's first nest that reads it.

    Guarded reads (padding) become plain ones: the copy holds the fill.  `blocks` splits dimensions,
    (dim, size) pairs, and `order` permutes the resulting ones: packed panels are stages.
    """

    source: str
    loop: str
    label: str
    space: str = "stack"
    blocks: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()

    def apply(self, kernel: Func) -> None:
        source = find_buffer(kernel, self.source)
        target = find_loop(kernel, self.loop) if self.loop else None
        reads = [
            u
            for u in source.users
            if isinstance(u, Load) and (target is None or contains(target, u))
        ]
        if not reads:
            raise Refused(f"{self.source} is not read under {self.loop}")
        window(reads, target)  # refuses where it is not known
        fill = _padding(reads, source)
        shape = source.buffer.shape
        top = min([child_of(r, kernel.body) for r in reads], key=position)
        _check_settled(source, top, kernel)
        b = Builder(kernel.body, top, top.loc)
        alloc = b.insert(Alloc(label=self.label, type=BufferType(source.buffer.dtype, shape)))
        alloc.result.name = self.label
        b, index = _copy_loops(b, self.label, shape)
        where = (
            ()
            if fill is None
            else tuple([w for e, n in zip(index, shape, strict=True) for w in (e, n - 1 - e)])
        )
        value = b.emit(Load, source, index=index, where=where, fill=fill)
        b.emit(Store, value, alloc.result, index=index)
        for read in reads:
            made = Load(
                alloc.result, index=read.index, lane=read.lane, lanes=read.lanes, loc=read.loc
            )
            read.block.insert_before(made, read)  # type: ignore[union-attr]
            read.replace_by(made.results)
        sink(alloc, target, self.space, clip=False)
        if self.blocks or self.order:
            Relayout(self.label, self.blocks, self.order).apply(kernel)
        if target is not None:
            simplify_under(target)


def _check_settled(source: Value, top: Op, kernel: Func) -> None:
    """A copy made before the nest `top` must see the final values: nothing may write the source
    from there on.
    """
    if source.op is not None and source.op.block is not kernel.body:
        raise Refused(f"{source.name} lives inside a loop")
    for user in source.users:
        if isinstance(user, Store) and position(child_of(user, kernel.body)) >= position(top):
            raise Refused(f"{source.name} is still being written where it would be copied")


def _copy_loops(
    b: Builder, label: str, shape: tuple[DimLike, ...]
) -> tuple[Builder, list[DimLike]]:
    index: list[DimLike] = []
    for d, extent in enumerate(shape):
        loop = b.insert(For.make(f"{label}.c{d}", extent))
        index.append(sym(loop.var))
        b = Builder(loop.body, loc=b.loc)
    return b, index


def _padding(reads: list[Load], source: Value) -> object:
    """The common fill of guarded reads (None when none is guarded); guards must only be bounds."""
    fills = {r.fill for r in reads if r.where}
    if len(fills) > 1:
        raise Refused("reads have different fill values")
    for read in reads:
        bounds = [
            w for e, n in zip(read.index, source.buffer.shape, strict=True) for w in (e, n - 1 - e)
        ]
        ranges = ranges_around(read)
        for w in read.where:
            if not any(equal(w, bound, ranges) for bound in bounds):
                raise Refused(f"the guard {w} >= 0 is more than a bound")
    return fills.pop() if fills else None


@dataclass(frozen=True)
class Ahead(Step):
    """Prefetch what the nest `nest` reads of `source` when the loop `row` will be `rows` further
    on.

    Goes before the vector loop of the nest, once per vector; so the memory works while rows are
    computed. With `write`, it is the part of a result that the current row will write.
    """

    source: str
    nest: str
    row: str
    rows: int = 1
    write: bool = False

    def apply(self, kernel: Func) -> None:
        source, nest = find_buffer(kernel, self.source), find_loop(kernel, self.nest)
        lane = next((op for op in nest.walk() if isinstance(op, For) and op.kind == "vector"), None)
        users = [u for u in source.users if isinstance(u, (Load, Store))]
        inside = [u for u in users if contains(lane, u)] if lane is not None else []
        if lane is None or lane.block is None or not inside:
            raise Refused(f"{self.source} is not used in vectors under {self.nest}")
        env: dict[str, DimLike] = {lane.var: 0, self.row: sym(self.row) + self.rows}
        index = tuple([substitute(e, env) for e in inside[0].index])
        lane.block.insert_before(
            Prefetch(source, index=index, write=self.write, loc=lane.loc), lane
        )


@dataclass(frozen=True)
class Relayout(Step):
    """Store a buffer in another order: split dimensions (dim, size), then permute.

    Dimension d of extent E split by b gives ceil(E/b) at d and b after it.
    """

    label: str
    blocks: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()

    def apply(self, kernel: Func) -> None:
        alloc = find_alloc(kernel, self.label)
        buffer = alloc.result
        if any(not isinstance(u, (Load, Store)) for u in buffer.users):
            raise Refused(f"{self.label} is used by more than loads and stores")
        old = buffer.buffer
        shape: list[DimLike] = []
        sizes = dict(self.blocks)
        for d, extent in enumerate(old.shape):
            shape += [ceildiv(extent, sizes[d]), sizes[d]] if d in sizes else [extent]
        order = self.order or tuple(range(len(shape)))
        made = BufferType(old.dtype, tuple([shape[o] for o in order]), old.space)
        for user in buffer.users:
            index: list[DimLike] = []
            for d, e in enumerate(user.attributes["index"]):
                index += [e // sizes[d], e % sizes[d]] if d in sizes else [e]
            user.set_attr("index", tuple([index[o] for o in order]))
        _retype(alloc, made)


@dataclass(frozen=True)
class Rfactor(Step):
    """Give a reduction `lanes` partial accumulators: loop `var` of extent `lanes` gets its own
    dimension.

    The partial results live in the buffer VAR.p, set by loops VAR.pi0, VAR.pi1 ...; a second update
    nest combines them over the loop VAR.c.  `var` becomes a parallel loop; what else the nest adds
    to the accumulator (tails) goes there at once.
    """

    label: str
    var: str

    def apply(self, kernel: Func) -> None:
        alloc, loop = find_alloc(kernel, self.label), find_loop(kernel, self.var)
        update = child_of(loop, alloc.block)  # type: ignore[arg-type]
        stores = [u for u in alloc.result.users if isinstance(u, Store)]
        init = [s for s in stores if isinstance(s.value.op, Const)]
        inside = [s for s in stores if contains(loop, s)]
        if (
            len(init) != 1
            or len(inside) != 1
            or not loop.reduction
            or not isinstance(loop.extent, int)
        ):
            raise Refused(f"{self.label} is not one accumulator reduced over a static {self.var}")
        if loop.lo != 0:
            raise Refused(f"{self.var} does not start at 0")
        covers(update, alloc.result)
        start = init[0].value.op
        if not isinstance(start, Const):
            raise Refused("the accumulator's start is not a constant")
        old = alloc.result.buffer
        made = BufferType(old.dtype, (*old.shape, loop.extent), old.space)
        parts = Alloc(label=f"{self.var}.p", type=made)
        parts.result.name = parts.label
        alloc.block.insert_before(parts, alloc)  # type: ignore[union-attr]
        self._init(alloc, parts.result, loop.extent, start)
        self._combine(alloc, parts.result, update, inside[0], loop.extent)
        self._redirect(alloc.result, parts.result, loop)
        loop.set_attr("reduction", False)

    def _init(self, alloc: Alloc, parts: Value, lanes: int, start: Const) -> None:
        b = Builder(alloc.block, alloc.next, alloc.loc)  # type: ignore[arg-type]
        index: list[DimLike] = []
        for d, extent in enumerate((*alloc.result.buffer.shape, lanes)):
            inner = b.insert(For.make(f"{self.var}.pi{d}", extent))
            index.append(sym(inner.var))
            b = Builder(inner.body, loc=b.loc)
        b.emit(Store, b.insert(start.copy({})).result, parts, index=index)

    def _combine(self, alloc: Alloc, parts: Value, update: Op, store: Store, lanes: int) -> None:
        """After the update nest: accumulator = combine(accumulator, part), part by part."""
        b = Builder(update.block, update.next, update.loc)  # type: ignore[arg-type]
        index: list[DimLike] = []
        for d, extent in enumerate(alloc.result.buffer.shape):
            inner = b.insert(For.make(f"{self.var}.pc{d}", extent))
            index.append(sym(inner.var))
            b = Builder(inner.body, loc=b.loc)
        last = b.insert(For.make(f"{self.var}.c", lanes, reduction=True))
        b = Builder(last.body, loc=b.loc)
        old = b.emit(Load, alloc.result, index=index)
        part = b.emit(Load, parts, index=(*index, sym(last.var)))
        b.emit(Store, _combiner(b, store, alloc.result, old, part), alloc.result, index=index)

    def _redirect(self, acc: Value, parts: Value, loop: For) -> None:
        for user in acc.users:
            if contains(loop, user):
                user.set_attr("index", (*user.attributes["index"], sym(self.var)))
                user.set_operands([parts if v is acc else v for v in user.operands])


def _combiner(b: Builder, store: Store, acc: Value, old: Value, part: Value) -> Value:
    """The op that the update applies to its accumulator, on the old value and a part."""
    op = store.value.op
    if op is None or len(op.operands) not in (2, 3):
        raise Refused("the update is not one combining op")
    sides = [v for v in op.operands if isinstance(v.op, Load) and v.op.source is acc]
    if len(sides) != 1:
        raise Refused("the update is not one combining op")
    if op.name == "fma":
        return b.add(old, part)  # type: ignore[no-any-return]
    made = type(op).raw([old, part], op.attrs, [old.type], loc=op.loc)
    return b.insert(made).result


__all__ = ["Ahead", "ComputeAt", "Inline", "Pad", "Place", "Relayout", "Rfactor", "Stage", "keep"]
