"""How convolutions of small images run in batches: the images are the rows of the register tile.

All rows of a tile then stand at one position, where the same taps lie in the padding: those are
left out, a third of the work for 3 x 3 taps on 4 x 4 images.  The padded copy has the images side
by side.  May import: ir, the steps beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from ...ir.core import Builder
from ...ir.dims import DimLike, evaluate, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.types import BufferType
from .contraction import Contraction, match_contraction, split_tails
from .memory import ComputeAt
from .microtile import finish_tile
from .nests import Refused, child_of, find_buffer, find_loop
from .scheduler import Scheduler, depends, static, stride
from .steps import Reorder, Step, Tile, parallel
from .sums import Trim
from .window import position

LEAST_GAIN = 1.15
"""How much work must be left out for one that is done."""
LEAST_ROWS = 8
"""Images in a tile below which it would not hide the units' latency."""
SMALL_WORK = 200_000
"""Multiply-adds below which one thread is faster than two."""
MOST_PLACES = 64
"""Positions along an axis up to which what is left out is counted."""


@dataclass(frozen=True)
class Batched:
    """A convolution: the dimensions of its vector, of the images, of more vectors, and of the
    positions; its image and the loops of the taps that padding concerns.
    """

    c: Contraction
    vector: int
    batch: int
    columns: tuple[int, ...]
    image: Load
    taps: tuple[str, ...]


def match_batched(c: Contraction) -> Batched | None:
    """A convolution with padding over several images; None for anything else."""
    guarded = [load for load in c.loads if load.where]
    if len(guarded) != 1:
        return None
    (image,) = guarded
    weights = next(load for load in c.loads if load is not image)
    outs = [op for op in c.consumer.walk() if isinstance(op, Store)]
    names = {name for w in image.where for name in symbols_of(w)}
    taps = tuple([name for name, _ in c.reductions if name in names])
    vector, batch, columns = [], [], []
    for d, (var, out, _) in enumerate(c.dims):
        if not var:
            continue
        if stride(weights, var) == 1 and not depends(image, var):
            vector += [d] if all([stride(o, out) == 1 for o in outs]) else []
        elif not depends(image, var):
            columns.append(d)
        elif not depends(weights, var) and var not in names:
            batch.append(d)
    if len(vector) != 1 or not batch or not taps or not _linear(c, batch[0], image):
        return None
    return Batched(c, vector[0], batch[0], tuple(columns), image, taps)


def _linear(c: Contraction, batch: int, image: Load) -> bool:
    """Do the images have a dimension of their own, and lanes behind them that the sum runs over?"""
    var = c.dims[batch][0]
    alone = [e for e in image.index if var in symbols_of(e)]
    inner = c.reductions[-1][0]
    return len(alone) == 1 and symbols_of(alone[0]) == {var} and stride(image, inner) == 1


def work_left(found: Batched) -> float:
    """The share of multiply-adds that do not meet padding; 1 where it is not known."""
    share = 1.0
    extents = {name: static(e) for name, e in found.c.reductions}
    extents |= {var: static(e) for var, _, e in found.c.dims if var}
    for tap in found.taps:
        guards = [w for w in found.image.where if tap in symbols_of(w)]
        around = sorted({name for w in guards for name in symbols_of(w)} - {tap})
        sizes = [extents[name] for name in (*around, tap)]
        if len(around) > 1 or max(sizes) > MOST_PLACES:
            return 1.0
        places = [dict(zip((*around, tap), at)) for at in product(*[range(n) for n in sizes])]
        inside = [all([evaluate(w, at) >= 0 for w in guards]) for at in places]
        share *= sum(inside) / max(1, len(places))
    return share


@dataclass(frozen=True)
class Copy(Step):
    """Copy all of `source`, its dimensions in another order, before the kernel's first nest that
    reads it; every read is of the copy then.
    """

    source: str
    label: str
    order: tuple[int, ...]

    def apply(self, kernel: Func) -> None:
        source = find_buffer(kernel, self.source)
        reads = [u for u in source.users if isinstance(u, Load)]
        if not reads or source.op is not None or len(reads) != len(source.users):
            raise Refused(f"{self.source} is not an operand that is only read")
        if any([read.where for read in reads]):
            raise Refused(f"{self.source} is read under a guard")
        old = source.buffer
        top = min([child_of(r, kernel.body) for r in reads], key=position)
        b = Builder(kernel.body, top, top.loc)
        shape = tuple([old.shape[d] for d in self.order])
        alloc = b.insert(Alloc(label=self.label, type=BufferType(old.dtype, shape)))
        alloc.result.name = self.label
        index: list[DimLike] = []
        for d, extent in enumerate(shape):
            loop = b.insert(For.make(f"{self.label}.c{d}", extent))
            index.append(sym(loop.var))
            b = Builder(loop.body, loc=b.loc)
        plain = [index[self.order.index(d)] for d in range(len(shape))]
        b.emit(Store, b.emit(Load, source, index=plain), alloc.result, index=index)
        for read in reads:
            read.set_operands([alloc.result])
            read.set_attr("index", tuple([read.index[d] for d in self.order]))


def schedule_batched(s: Scheduler, root: For) -> bool:
    """Schedule the nest `root` if it reads such a convolution, and it gains; False if not."""
    if not s.target.vector_bits:
        return False
    for alloc in [a for a in s.allocs() if a.block is s.kernel.body]:
        c = match_contraction(alloc)
        found = match_batched(c) if c is not None and c.consumer is root else None
        if found is None or work_left(found) * LEAST_GAIN > 1:
            continue
        sizes = _sizes(s, found)
        if sizes is None:
            continue
        before, count = s.kernel.copy({}), len(s.steps)
        try:
            _schedule(s, found, sizes)
        except Refused as refused:
            s.give_up(before, count, refused)
            return False
        return True
    return False


def _sizes(s: Scheduler, found: Batched) -> dict[int, int] | None:
    """The register tile: two vectors across, as many images as there is room for."""
    c = found.c
    lanes = s.target.lanes(c.acc.result.buffer.dtype.bits)
    extent = c.dims[found.vector][2]
    if not isinstance(extent, int) or not isinstance(c.dims[found.batch][2], int):
        return None
    sizes = {found.vector: extent}
    across = -(-extent // lanes)
    wide = [d for d in found.columns if static(c.dims[d][2]) % 2 == 0]
    if across == 1 and wide and s.target.registers >= 32:
        sizes[wide[-1]] = across = 2
    images, room = static(c.dims[found.batch][2]), (s.target.registers - 2 - across) // across
    sizes[found.batch] = rows = -(-images // -(-images // room))
    return sizes if rows >= LEAST_ROWS and extent % min(lanes, extent) == 0 else None


def _schedule(s: Scheduler, found: Batched, sizes: dict[int, int]) -> None:
    """Tiles of images at one position, the taps inside it, and the copy that they read."""
    c = found.c
    label, source = c.acc.label, found.image.source.name or ""
    rank = len(found.image.index)
    var = c.dims[found.batch][0]
    at = next(d for d, e in enumerate(found.image.index) if var in symbols_of(e))
    for tap in found.taps:
        s.do(Trim(tap, finite=True))
    axes = [d for d in range(rank) if d != at]
    s.do(Copy(source, f"{label}.rows", (*axes[:-1], at, axes[-1])))
    outer: dict[int, str] = {}
    inner: dict[int, str] = {}
    for d, (_, name, extent) in enumerate(c.dims):
        size = sizes.get(d, 1)
        if not name:
            continue
        if size == 1:
            outer[d] = name
        elif extent == size:
            inner[d] = name
        else:
            s.do(Tile(name, size))
            outer[d], inner[d] = f"{name}.o", f"{name}.i"
    places = [d for d in outer if d not in (*found.columns, found.batch)]
    ordered = [d for d in (*found.columns, *places, found.batch) if d in outer]
    order = [outer[d] for d in ordered]
    wide = [d for d in inner if d not in (found.batch, found.vector)]
    within = [inner[d] for d in (found.batch, *wide, found.vector)]
    s.do(Reorder((*order, *within)))
    s.do(ComputeAt(label, order[-1], "register"))
    full = {f"{n}.o": extent // sizes.get(d, 1) for d, (_, n, extent) in enumerate(c.dims)}
    split_tails(s, full, order)
    finish_tile(s, {label: found.vector}, frozenset(wide))
    work = 1
    for extent in [e for *_, e in c.dims] + [e for _, e in c.reductions]:
        work *= static(extent, 64)
    if (
        s.target.threads > 1
        and work >= SMALL_WORK
        and static(find_loop(s.kernel, order[0]).extent) > 1
    ):
        s.attempt(parallel(order[0]))


__all__ = ["Batched", "match_batched", "schedule_batched", "work_left"]
