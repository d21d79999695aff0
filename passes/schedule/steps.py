"""Schedule steps that reshape loops: data, each with one short function that applies it or refuses.

A step addresses loops and buffers by name; `apply` changes the kernel in place and raises `Refused`
with the reason before it has changed anything.  After any step the kernel computes the same values
(declared reductions may be reordered); the loop interpreter checks that on small shapes. May
import: ir, the analysis beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, ceildiv, min_, nonneg, simplify, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, Bind, For, If, Load, Store
from ...ir.symbols import (
    free_symbols,
    loop_names,
    map_dims,
    map_dims_in,
    ranges_around,
    rename_bind,
    rename_loop,
)
from .nests import (
    Refused,
    accesses,
    find_loop,
    is_parallel,
    may_move,
    move_body,
    perfect_chain,
    separates,
)
from .simplify import simplify_kernel, simplify_under


@dataclass(frozen=True)
class Step:
    """One schedule step."""

    def apply(self, kernel: Func) -> None:
        """Change `kernel` in place, or raise `Refused`."""
        raise Refused(f"{type(self).__name__} has no meaning of its own")


@dataclass(frozen=True)
class Tile(Step):
    """Split a loop into `outer` over tiles and `inner` within a tile of `size`.

    The last tile is shorter (`tail="min"`), or whole with a guard around the body (`tail="guard"`)
    or in each access that could leave its buffer (`tail="mask"`). Names default to VAR.o and VAR.i.
    """

    var: str
    size: int
    outer: str = ""
    inner: str = ""
    tail: str = "min"

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        if loop.lo != 0:
            raise Refused(f"{self.var} does not start at 0")
        outer, inner = self.outer or f"{self.var}.o", self.inner or f"{self.var}.i"
        extent, size = loop.extent, self.size
        divides = nonneg(-(extent % size), ranges_around(loop)) is True
        if self.tail == "mask" and not divides:
            _check_maskable(loop)
        short = size if divides or self.tail != "min" else min_(size, extent - size * sym(outer))
        within = For.make(inner, short, loop.kind, reduction=loop.reduction)
        move_body(loop.body, within.body)
        for op in within.body.walk():
            map_dims(op, {self.var: size * sym(outer) + sym(inner)})
        if self.tail == "guard" and not divides:
            guard = If(where=(extent - 1 - size * sym(outer) - sym(inner),), regions=[Block()])
            move_body(within.body, guard.body)
            within.body.append(guard)
        loop.set_attr("var", outer)
        loop.set_attr("extent", ceildiv(extent, size))
        loop.body.append(within)
        if self.tail == "mask" and not divides:
            _mask(within, extent - 1 - size * sym(outer) - sym(inner))
        simplify_under(loop)


def _check_maskable(loop: For) -> None:
    """Refuse unless everything under the loop but its loads and stores is without effect."""
    for op in loop.walk():
        if op is not loop and not (op.pure or isinstance(op, (For, Load, Store))):
            raise Refused(f"{op.name} under {loop.var} cannot be masked")


def _mask(tile: For, inside: DimLike) -> None:
    """Guard the accesses under a whole tile that may lie beyond the extent it was cut from."""
    for op in accesses(tile):
        buffer, ranges = op.operands[-1], ranges_around(op)
        room = [nonneg(n - 1 - e, ranges) for e, n in zip(op.index, buffer.buffer.shape)]
        if isinstance(op, Store) or not all(room):
            op.set_attr("where", (*op.where, inside))


@dataclass(frozen=True)
class Reorder(Step):
    """Put the named loops, which stand directly inside each other, into this order."""

    loops: tuple[str, ...]

    def apply(self, kernel: Func) -> None:
        found = [find_loop(kernel, var) for var in self.loops]
        chain = next((c for c in map(perfect_chain, found) if set(found) <= set(c)), None)
        if chain is None:
            raise Refused(f"{', '.join(self.loops)} are not one perfect nest")
        chain = chain[: max(chain.index(loop) for loop in found) + 1]
        if set(chain) != set(found):
            raise Refused("loops between the named ones must be named too")
        self._check(chain)
        heads = [(loop.var, loop.extent, loop.lo, loop.kind, loop.reduction) for loop in found]
        for loop, (var, extent, lo, kind, reduction) in zip(chain, heads, strict=True):
            loop.attrs = (var, extent, lo, kind, reduction)

    def _check(self, chain: Sequence[For]) -> None:
        moved = [loop for at, loop in enumerate(chain) if loop.var != self.loops[at]]
        stuck = [loop.var for loop in moved if not may_move(loop)]
        if stuck:
            raise Refused(f"iterations of {', '.join(stuck)} depend on each other")
        by_name = {loop.var: loop for loop in chain}
        for at, var in enumerate(self.loops):
            later = set(self.loops[at:])
            if symbols_of(by_name[var].extent) & later:
                raise Refused(f"the extent {by_name[var].extent} of {var} needs a loop inside it")


@dataclass(frozen=True)
class Fission(Step):
    """Split the body of a loop after its first `count` ops into two loops, the second called
    `second`.

    Legal when the loop is parallel: no iteration reads what another wrote.
    """

    var: str
    count: int
    second: str

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        if not is_parallel(loop):
            raise Refused(f"iterations of {self.var} depend on each other")
        tail = [op for at, op in enumerate(loop.body) if at >= self.count]
        defined = {r for at, op in enumerate(loop.body) if at < self.count for r in op.results}
        if any(v in defined for op in tail for inner in op.walk() for v in inner.operands):
            raise Refused("a value crosses the cut")
        other = For.make(self.second, loop.extent, loop.kind, loop.lo, loop.reduction)
        assert loop.block is not None
        loop.block.insert_before(other, loop.next)
        for op in tail:
            loop.body.remove(op)
            other.body.append(op)
            map_dims_in(op, {self.var: sym(self.second)})


@dataclass(frozen=True)
class Partition(Step):
    """Run a loop as two: iterations below `at`, then the rest, whose loops get `suffix` to their
    names.

    In each part extents and guards become simpler: full tiles lose their tails.
    """

    var: str
    at: DimLike
    suffix: str = ".t"

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        ranges = ranges_around(loop)
        inside = nonneg(self.at - loop.lo, ranges) and nonneg(
            loop.lo + loop.extent - self.at, ranges
        )
        if inside is not True:
            raise Refused(f"{self.at} is not within the range of {self.var}")
        rest = loop.copy({})
        rename_nest(kernel, rest, self.suffix)
        rest.set_attr("lo", self.at)
        rest.set_attr("extent", simplify(loop.lo + loop.extent - self.at, ranges))
        loop.set_attr("extent", simplify(self.at - loop.lo, ranges))
        assert loop.block is not None
        loop.block.insert_before(rest, loop.next)
        simplify_under(loop)
        simplify_under(rest)


@dataclass(frozen=True)
class FromZero(Step):
    """Count a loop's iterations from zero, as tiles and lanes need."""

    var: str

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        start = loop.lo
        if start == 0:
            raise Refused(f"{self.var} starts at 0")
        map_dims_in(loop, {self.var: sym(self.var) + start})
        loop.attrs = (self.var, loop.extent, 0, loop.kind, loop.reduction)
        simplify_under(loop)


def rename_nest(kernel: Func, copy: For, suffix: str) -> None:
    """Give every loop, alloc and bound symbol of a copied nest a new name: `suffix`, repeated
    until none is taken.
    """
    taken = names_within(kernel)
    own = names_within(copy)
    end = suffix
    while any(name + end in taken for name in own):
        end += suffix
    suffix = end
    for op in copy.walk():
        if isinstance(op, For):
            rename_loop(op, op.var + suffix)
        elif isinstance(op, Alloc):
            op.set_attr("label", op.label + suffix)
        elif isinstance(op, Bind):
            rename_bind(op, op.symbol + suffix)


def names_within(op: Op) -> set[str]:
    """The loop variables, labels and bound symbols of everything nested in an op."""
    found = loop_names(op)
    for inner in op.walk():
        if isinstance(inner, Alloc):
            found.add(inner.label)
        elif isinstance(inner, Bind):
            found.add(inner.symbol)
    return found


@dataclass(frozen=True)
class Specialize(Step):
    """Run a loop twice over: a copy where every expression of `where` is at least zero, else the
    original.

    In the copy those facts simplify extents and guards.  Loops of the other part get `suffix`.
    """

    var: str
    where: tuple[DimLike, ...]
    suffix: str = ".s"

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.var)
        if len(self.where) != 1:
            raise Refused("one predicate at a time: its negation must be one too")
        other = loop.copy({})
        rename_nest(kernel, other, self.suffix)
        block, after = loop.block, loop.next
        assert block is not None
        block.remove(loop)
        for nest, where in ((loop, self.where[0]), (other, -self.where[0] - 1)):
            guard = If(where=(where,), regions=[Block()])
            guard.body.append(nest)
            block.insert_before(guard, after)


@dataclass(frozen=True)
class Mark(Step):
    """Say how a loop runs: `kind` of loop.KINDS.

    Parallel and vector loops must be parallel; a declared reduction may also be a vector loop: its
    lanes are combined in registers.
    """

    var: str
    kind: str

    def apply(self, kernel: Func) -> None:
        self.check(kernel).set_attr("kind", self.kind)

    def check(self, kernel: Func) -> For:
        """The loop, which may run so; else `Refused`."""
        loop = find_loop(kernel, self.var)
        needs = self.kind in ("parallel", "vector") or self.kind.startswith("gpu.")
        if self.kind == "vector" and any(isinstance(op, For) for op in loop.body.walk()):
            raise Refused(f"{self.var} holds another loop: only the innermost can be lanes")
        if self.kind == "vector" and binds_lanes(loop):
            raise Refused(f"an index read from data changes from lane to lane of {self.var}")
        lanes_combine = self.kind == "vector" and loop.reduction
        if lanes_combine and not all([combines(op) for op in loop.body if isinstance(op, Store)]):
            raise Refused(f"lanes of {self.var} cannot be combined: factor the reduction first")
        if needs and not lanes_combine and not is_parallel(loop):
            raise Refused(
                f"iterations of {self.var} depend on each other: it cannot be {self.kind}"
            )
        return loop


def combines(store: Store) -> bool:
    """Is this `acc = acc (+) value`, which `vectorize` can do for all lanes at once?"""
    update = store.value.op
    if update is None or update.name not in ("add", "mul", "min", "max", "larger", "fma"):
        return False
    loads = [v.op for v in update.operands if isinstance(v.op, Load)]
    old = [l for l in loads if l.source is store.target and l.index == store.index]
    return len(old) == 1


def binds_lanes(loop: For) -> bool:
    """Does a bound symbol of the body take its value from something that changes with the loop?"""
    moving: set[Value] = set()
    for op in loop.body:
        varies = loop.var in free_symbols(op) or any(v in moving for v in op.operands)
        if varies and isinstance(op, Bind):
            return True
        if varies:
            moving.update(op.results)
    return False


@dataclass(frozen=True)
class Simplify(Step):
    """Simplify all index expressions; loops of one iteration disappear."""

    def apply(self, kernel: Func) -> None:
        simplify_kernel(kernel)


def vector(var: str) -> Mark:
    """Run a loop as vector lanes."""
    return Mark(var, "vector")


def unroll(var: str) -> Mark:
    """Write a loop out."""
    return Mark(var, "unroll")


def parallel(var: str) -> Mark:
    """Share a loop among threads."""
    return Mark(var, "parallel")


@dataclass(frozen=True)
class Fuse(Step):
    """Run two loops of one extent as one; the second loop's body follows the first's.

    Legal when whatever one of them writes and the other touches is of the same iteration.  What
    stands between them goes before the first, and must have nothing to do with it.
    """

    first: str
    second: str

    def apply(self, kernel: Func) -> None:
        a, b = find_loop(kernel, self.first), find_loop(kernel, self.second)
        between = _between(a, b)
        if a.extent != b.extent or a.lo != b.lo:
            raise Refused(f"extents {a.extent} and {b.extent} differ")
        for op in between:
            if _conflicts(a, op):
                raise Refused(f"{op.name} stands between {self.first} and {self.second}")
        if a.kind != b.kind:
            raise Refused(f"{self.first} runs as {a.kind}, {self.second} as {b.kind}")
        trial = For.make(a.var, a.extent, a.kind, a.lo)
        for source in (a, b):
            for op in source.body:
                trial.body.append(op.copy({}))
        for op in trial.body.walk():
            map_dims(op, {b.var: sym(a.var)})
        legal = all(separates(trial, buffer) for buffer in _shared(a, b))
        trial.erase()
        if not legal:
            raise Refused(f"{self.second} reads what other iterations of {self.first} write")
        for op in between:
            a.block.remove(op)  # type: ignore[union-attr]
            a.block.insert_before(op, a)  # type: ignore[union-attr]
        for op in list(b.body):
            b.body.remove(op)
            map_dims_in(op, {b.var: sym(a.var)})
            a.body.append(op)
        b.erase()


def _between(a: For, b: For) -> list[Op]:
    """The ops that stand between two loops of one block, in order."""
    found: list[Op] = []
    op = a.next
    while op is not None and op is not b:
        found.append(op)
        op = op.next
    if op is None:
        raise Refused(f"{a.var} and {b.var} are not neighbours")
    return found


def _shared(a: Op, b: Op) -> set[Value]:
    """Buffers that both touch and at least one writes."""
    written = {op.target for nest in (a, b) for op in accesses(nest) if isinstance(op, Store)}
    touched = [{op.operands[-1] for op in accesses(nest)} for nest in (a, b)]
    return written & touched[0] & touched[1]


def _conflicts(nest: For, op: Op) -> bool:
    """May `op` not change places with the nest before it?"""
    plain = op.pure or isinstance(op, (Alloc, For, Store))
    inside = {r for inner in nest.walk() for r in inner.results}
    return not plain or bool(_shared(nest, op)) or any(v in inside for v in op.operands)


@dataclass(frozen=True)
class Collapse(Step):
    """Make one loop `var` of two perfectly nested ones (outer extent times inner extent, both
    static).
    """

    outer: str
    inner: str
    var: str

    def apply(self, kernel: Func) -> None:
        outer, inner = find_loop(kernel, self.outer), find_loop(kernel, self.inner)
        if outer.body.first is not inner or outer.body.size != 1 or outer.lo != 0 or inner.lo != 0:
            raise Refused(f"{self.inner} does not stand alone inside {self.outer}")
        if outer.var in symbols_of(inner.extent):
            raise Refused(f"the extent of {self.inner} changes with {self.outer}")
        size = inner.extent
        env = {outer.var: sym(self.var) // size, inner.var: sym(self.var) % size}
        move_body(inner.body, outer.body)
        inner.erase()
        for op in outer.body.walk():
            map_dims(op, env)
        outer.set_attr("var", self.var)
        outer.set_attr("extent", outer.extent * size)
        simplify_under(outer)


class Applied(tuple[Step, ...]):
    """Steps together with the kernel that they made, where choosing them has applied them."""

    kernel: Func

    def __new__(cls, steps: Sequence[Step], kernel: Func) -> Applied:
        """The steps, in order; the kernel is the caller's from here on."""
        made = super().__new__(cls, steps)
        made.kernel = kernel
        return made


def apply_steps(kernel: Func, steps: Sequence[Step]) -> Func:
    """A copy of `kernel` with all steps applied, in order."""
    made = kernel.copy({})
    for step in steps:
        step.apply(made)
    return made


__all__ = [
    "Applied",
    "Collapse",
    "Fission",
    "FromZero",
    "Fuse",
    "Mark",
    "Partition",
    "Reorder",
    "Simplify",
    "Specialize",
    "Step",
    "Tile",
    "apply_steps",
    "parallel",
    "rename_nest",
    "unroll",
    "vector",
]
