"""Schedule steps about long sums: parts of them summed apart, and terms that are zero left out.

May import: ir, the steps beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.core import Builder
from ...ir.dims import (
    DimLike,
    ceildiv,
    coefficient,
    floordiv,
    max_,
    min_,
    nonneg,
    simplify,
    sym,
    symbols_of,
)
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loops_around, ranges_around
from ...ir.types import BufferType
from .memory import _combiner
from .nests import Refused, accesses, contains, find_alloc, find_loop, perfect_chain
from .simplify import simplify_under
from .steps import Step


@dataclass(frozen=True)
class SumApart(Step):
    """Sum what one iteration of the reduction loop `var` adds to an accumulator in a buffer of its
    own, LABEL.s, and add that up.

    The loops of the results stand inside `var`, or around it, which thus becomes a loop of complete
    contractions: each may be tiled while the sums stay in memory between them.
    """

    label: str
    var: str

    def apply(self, kernel: Func) -> None:
        alloc, loop = find_alloc(kernel, self.label), find_loop(kernel, self.var)
        if not loop.reduction or loop.body.size != 1:
            raise Refused(f"{self.var} is not a reduction around one nest")
        stores = [u for u in alloc.result.users if isinstance(u, Store)]
        inside = [s for s in stores if contains(loop, s)]
        starts = [s.value.op for s in stores if isinstance(s.value.op, Const)]
        if len(inside) != 1 or len(starts) != 1 or len(stores) != 2:
            raise Refused(f"{self.label} is not one accumulator with one update under {self.var}")
        (update,) = inside
        inner = {l.var: l for l in perfect_chain(loop)[1:]}
        around = {l.var for l in loops_around(loop)}
        results = {str(e) for e in update.index if not isinstance(e, int)}
        if not all([n in around or n in inner and not inner[n].reduction for n in results]):
            raise Refused(f"{self.label} is not written at one place per loop of {self.var}")
        self._split(alloc, loop, update, starts[0], results & around)

    def _split(
        self, alloc: Alloc, loop: For, update: Store, start: Const, around: set[str]
    ) -> None:
        """Start, update and addition of the part; `around` are the loops of results outside."""
        old, body = alloc.result.buffer, loop.body
        fixed = [str(e) in around for e in update.index]
        shape = tuple([1 if f else e for e, f in zip(old.shape, fixed, strict=True)])
        nest = body.first
        assert nest is not None
        part = Alloc(label=f"{self.label}.s", type=BufferType(old.dtype, shape, "heap"))
        part.result.name = part.label
        body.insert_before(part, nest)
        b, index = _over(Builder(body, nest, loop.loc), f"{part.label}i", shape)
        b.emit(Store, b.insert(start.copy({})).result, part.result, index=index)
        b, index = _over(Builder(body, None, loop.loc), f"{part.label}c", shape)
        place = [e if f else k for e, k, f in zip(update.index, index, fixed, strict=True)]
        total = b.emit(Load, alloc.result, index=place)
        made = _combiner(b, update, alloc.result, total, b.emit(Load, part.result, index=index))
        b.emit(Store, made, alloc.result, index=place)
        for op in accesses(nest):
            if op.operands[-1] is alloc.result:
                op.set_operands([part.result if v is alloc.result else v for v in op.operands])
                own = [0 if f else e for e, f in zip(op.index, fixed, strict=True)]
                op.set_attr("index", tuple(own))


def _over(b: Builder, name: str, shape: tuple[DimLike, ...]) -> tuple[Builder, list[DimLike]]:
    """A builder inside loops over a shape, and their index."""
    index: list[DimLike] = []
    for d, extent in enumerate(shape):
        if extent == 1:
            index.append(0)
            continue
        inner = b.insert(For.make(f"{name}{d}", extent))
        index.append(sym(inner.var))
        b = Builder(inner.body, loc=b.loc)
    return b, index


@dataclass(frozen=True)
class Trim(Step):
    """Leave out the iterations of a reduction that add nothing: all that they multiply is outside
    of its bounds, and read as zero.

    The loop then runs over what its outer loops' variables leave of it.  With `finite` one factor
    outside of its bounds is enough, as the others are taken to be finite.
    """

    var: str
    finite: bool = False

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        guards = _guards(loop, self.finite)
        outer = set(ranges_around(loop))
        low, high = loop.lo, loop.lo + loop.extent
        for guard in guards:
            form = coefficient(guard, self.var)
            if form is None or not isinstance(form[0], int) or not form[0]:
                raise Refused(f"the guard {guard} >= 0 is not linear in {self.var}")
            slope, rest = form
            if not symbols_of(rest) <= outer:
                raise Refused(f"the guard {guard} >= 0 needs a loop inside {self.var}")
            if slope > 0:
                low = max_(low, ceildiv(-rest, slope))
            else:
                high = min_(high, floordiv(rest, -slope) + 1)
        ranges = ranges_around(loop)
        loop.set_attr("lo", simplify(low, ranges))
        loop.set_attr("extent", simplify(max_(high - low, 0), ranges))
        for op in accesses(loop):
            op.set_attr("where", tuple([w for w in op.where if w not in guards]))
        simplify_under(loop)


@dataclass(frozen=True)
class Loosen(Step):
    """Read the factors of a sum of products without the guards that another factor has as well.

    What they are multiplied by is zero there: the sum stays as it is where they are finite.  The
    factor whose own bounds the guards are keeps them.
    """

    label: str

    def apply(self, kernel: Func) -> None:
        alloc = find_alloc(kernel, self.label)
        updates = [u for u in alloc.result.users if isinstance(u, Store) and _adds_products(u)]
        if len(updates) != 1:
            raise Refused(f"{self.label} does not add up products")
        loads = factors(updates[0])
        if len({frozenset(load.where) for load in loads}) != 1 or not loads[0].where:
            raise Refused("the factors do not have the same guards")
        if any([load.fill != 0 for load in loads]):
            raise Refused("a factor is read as something else than zero outside of its bounds")
        free = [load for load in loads if in_bounds(load)]
        if len(free) != len(loads) - 1:
            raise Refused("not all factors but one are always within their bounds")
        for load in free:
            load.set_attr("where", ())
            load.set_attr("fill", None)


def in_bounds(load: Load) -> bool:
    """Is every index within the buffer, whatever the guards say?"""
    ranges = ranges_around(load)
    pairs = zip(load.index, load.source.buffer.shape, strict=True)
    return all([nonneg(w, ranges) is True for e, n in pairs for w in (e, n - 1 - e)])


def _guards(loop: For, finite: bool) -> list[DimLike]:
    """The guards with this loop's variable that every factor of the sum under it has; or, with
    `finite`, any.
    """
    if not loop.reduction:
        raise Refused(f"{loop.var} is not a reduction")
    stores = [op for op in accesses(loop) if isinstance(op, Store)]
    if len(stores) != 1 or stores[0].where or not _adds_products(stores[0]):
        raise Refused(f"{loop.var} does not add up products")
    loads = factors(stores[0])
    found = [[w for w in load.where if loop.var in symbols_of(w)] for load in loads]
    if any([mine and load.fill != 0 for mine, load in zip(found, loads, strict=True)]):
        raise Refused("a factor is read as something else than zero outside of its bounds")
    if not finite and any([set(mine) != set(found[0]) for mine in found]):
        raise Refused("a factor has other guards than another")
    guards = list(dict.fromkeys([w for mine in found for w in mine]))
    if not guards:
        raise Refused(f"no guard mentions {loop.var}")
    return guards


def _adds_products(store: Store) -> bool:
    """acc + x * y, at one place of the accumulator, both read from memory."""
    return bool(factors(store))


def factors(store: Store) -> list[Load]:
    """The loads of x and y where acc + x * y is stored to acc; none for anything else."""
    total = store.value.op
    if total is None or total.name not in ("add", "fma"):
        return []
    rest = [v.op for v in total.operands
            if not (isinstance(v.op, Load) and v.op.source is store.target)]  # fmt: skip
    if total.name == "add":
        if len(rest) != 1 or rest[0] is None or rest[0].name != "mul":
            return []
        rest = [v.op for v in rest[0].operands]
    while any([op is not None and op.name == "cast" for op in rest]):
        rest = [op.operands[0].op if op is not None and op.name == "cast" else op for op in rest]
    found = [op for op in rest if isinstance(op, Load)]
    return found if len(found) == len(rest) else []


__all__ = ["Loosen", "SumApart", "Trim", "factors"]
