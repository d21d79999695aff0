"""How everything but contractions runs: pointwise nests, reductions, and chains of both (softmax,
norms).

The loops that every intermediate result depends on are shared: intermediates are computed inside
them, one row (or one vector of rows) at a time.  Then each nest is vectorised along the dimension
that moves by one element.  May import: ir, the steps beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ...ir.dims import DimLike, symbols_of
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loop_names, loops_around
from .memory import Ahead, ComputeAt, Place, Rfactor, Stage
from .nests import Refused, accesses, child_of, contains, find_loop, perfect_chain
from .runs import MOST_RUNS, MOST_STRIDE, bends, jumps, moves_in_lanes
from .scheduler import Scheduler, depends, static, stride
from .steps import FromZero, Fuse, Partition, Reorder, Tile, parallel, unroll, vector
from .transpose import find_crossing, schedule_crossing
from .window import window

ROW_BYTES = 256 << 10
"""Largest intermediate row kept on the stack of a thread."""
GRAIN = 1 << 15
"""Elements of work below which one thread is faster than two."""
FETCH_BYTES = 1 << 10
"""Shortest row that is fetched ahead."""
PIECE_BYTES = 16 << 10
"""Largest piece of an operand that is copied to have its lanes side by side."""
FEWEST_TOUCHED = 4
"""Accesses of a nest from which such a copy pays: a plain copy would only be made twice."""
PIECES = 16
"""Pieces of work per thread, so that the last one to finish is not waited for long."""
CHAINS = 4
"""Vectors of partial sums side by side."""
TAPS = 16
"""Longest loop written out for lanes that jump."""
MOST_BENT = 1 << 12
"""Longest loop that is looked at step by step for where its accesses turn."""


def schedule_rows(s: Scheduler, root: For) -> None:
    """Schedule the nest `root` together with the intermediates that only it needs."""
    needed = _intermediates(s, root)
    if not needed and _cross(s, root):
        return
    shared, lanes = _share(s, root, needed)
    top = find_loop(s.kernel, shared[0] if shared else root.var)
    hosts = [""]
    if shared:
        _sink_all(s, [a.label for a in reversed(needed)], shared[-1])
        hosts = _tail_apart(s, shared[-1])
    for host in hosts:
        inner = find_loop(s.kernel, host).body if host else _nests_of(s, root, needed)
        names = [op.var for op in inner if isinstance(op, For)]
        several = len(names) > 1 and bool(host)
        for name in names:
            vectorize_nest(s, name, lanes, CHAINS if several else 1)
        if several:
            _fuse_passes(s, host)
            _fetch_ahead(s, names, host)
    if shared and s.target.threads > 1 and _work(top) >= GRAIN:
        large = [v for v in shared if _work(find_loop(s.kernel, v)) >= GRAIN]
        even = [v for v in large if _even(find_loop(s.kernel, v).extent, s.target.threads)]
        _share_among_threads(s, [*even, *shared][0])


def _tail_apart(s: Scheduler, shared: str) -> list[str]:
    """Let the last, shorter tile of the shared loop stand alone; gives the loops."""
    extents = [op.extent for op in find_loop(s.kernel, shared).body if isinstance(op, For)]
    rounds = find_loop(s.kernel, shared).extent
    ragged = any([shared in symbols_of(extent) for extent in extents])
    if not ragged or static(rounds, 0) < 3:
        return [shared]
    return [shared, f"{shared}.t"] if s.attempt(Partition(shared, rounds - 1)) else [shared]


def _cross(s: Scheduler, root: For) -> bool:
    """Tile a copy whose results are dense along another loop than what it reads."""
    chain, touched = perfect_chain(root), list(accesses(root))
    stores = [op for op in touched if isinstance(op, Store)]
    if not s.target.vector_bits or any([op.block is not chain[-1].body for op in touched]):
        return False
    lanes = s.target.lanes(min([o.target.buffer.dtype.bits for o in stores]))
    moving = [l.var for l in chain if all([stride(o, l.var) == 1 for o in stores])]
    found = find_crossing(chain, touched, moving[-1], lanes) if moving else None
    before = loop_names(s.kernel)
    if found is None or not schedule_crossing(s, chain, found):
        return False
    s.settled |= {l.var for l in chain} | loop_names(s.kernel) - before
    return True


def _share_among_threads(s: Scheduler, name: str) -> None:
    """Deal the rows out in pieces, so that what a piece costs once is spread over its rows."""
    rows = find_loop(s.kernel, name).extent
    piece = static(rows, 0) // (PIECES * s.target.threads)
    if piece > 1:
        s.do(Tile(name, piece, f"{name}.p", f"{name}.r"))
        name = f"{name}.p"
    s.attempt(parallel(name))


def share_copies(s: Scheduler) -> None:
    """Share among threads the large nests that no recipe shared: padded and packed copies."""
    for op in list(s.kernel.body):
        if not isinstance(op, For) or any(
            inner.kind == "parallel" for inner in op.walk() if isinstance(inner, For)
        ):
            continue
        large = []
        for loop in perfect_chain(op):
            if loop.kind != "serial" or loop.reduction or _work(loop) < GRAIN:
                break
            if static(loop.extent) >= s.target.threads:
                large.append(loop.var)
        even = [var for var in large if _even(find_loop(s.kernel, var).extent, s.target.threads)]
        for var in (*even, *large):
            if s.attempt(parallel(var)):
                break


def _even(extent: DimLike, threads: int) -> bool:
    """Do all threads get about as many iterations?"""
    return static(extent) >= 4 * threads or static(extent) % threads == 0


def _fuse_passes(s: Scheduler, row: str) -> None:
    """Neighbouring passes over a row become one where the second only reads what the first made."""
    loops = [op for op in find_loop(s.kernel, row).body if isinstance(op, For)]
    for first, second in pairwise(loops):
        buffers = [{op.operands[-1] for op in accesses(loop)} for loop in (first, second)]
        if first.extent == second.extent and buffers[0] & buffers[1]:
            s.attempt(Fuse(first.var, second.var))


def _fetch_ahead(s: Scheduler, names: Sequence[str], host: str) -> None:
    """Where a row is read several times, memory idles after the first: fetch the next row
    meanwhile.
    """
    row = find_loop(s.kernel, host)
    for arg in s.kernel.args:
        reads = [u for u in arg.users if isinstance(u, Load) and contains(row, u)]
        far = sum(static(e) for e in arg.buffer.shape[-1:]) * arg.buffer.dtype.bytes
        if not reads or not depends(reads[0], row.var) or not FETCH_BYTES <= far <= ROW_BYTES:
            continue
        if static(arg.buffer.size) * arg.buffer.dtype.bytes < s.target.l2:
            continue
        nests = {child_of(u, row.body) for u in reads}
        order = [op.var for op in row.body if isinstance(op, For) and op in nests]
        if len(order) > 1:
            s.attempt(Ahead(arg.name or "", order[1], row.var))


def _sink_all(s: Scheduler, labels: Sequence[str], loop: str) -> None:
    """Compute the buffers inside `loop`, consumers before producers."""
    waiting = list(labels)
    while waiting:
        left = [label for label in waiting if not s.attempt(ComputeAt(label, loop, "stack"))]
        if len(left) == len(waiting):
            return
        waiting = left


def _intermediates(s: Scheduler, root: For) -> list[Alloc]:
    """Top-level allocs that this nest reads, directly or through others, in program order."""
    block = s.kernel.body
    wanted = {root}
    found: set[Alloc] = set()
    grew = True
    while grew:
        grew = False
        for alloc in s.allocs():
            if alloc.block is not block or alloc in found:
                continue
            users = [(u, child_of(u, block)) for u in alloc.result.users]
            if any(nest in wanted for u, nest in users if isinstance(u, Load)):
                found.add(alloc)
                wanted |= {nest for _, nest in users if isinstance(nest, For)}
                grew = True
    return [a for a in s.allocs() if a in found]


def _nests_of(s: Scheduler, root: For, needed: Sequence[Alloc]) -> list[For]:
    block = s.kernel.body
    nests = {child_of(u, block) for a in needed for u in a.result.users} | {root}
    return [op for op in block if op in nests and isinstance(op, For)]


def _share(s: Scheduler, root: For, needed: Sequence[Alloc]) -> tuple[list[str], int]:
    """Order and tile the root's loops: first those shared with every intermediate.  Gives the
    shared ones.
    """
    chain = perfect_chain(root)
    outs = [op for op in root.walk() if isinstance(op, Store)]
    shared = [loop.var for loop in chain if _in_all(loop.var, root, needed) and not loop.reduction]
    lanes = (
        s.target.lanes(min(o.target.buffer.dtype.bits for o in outs)) if s.target.vector_bits else 1
    )
    lane = next(
        (loop.var for loop in reversed(chain) if all(stride(o, loop.var) == 1 for o in outs)), None
    )
    rest = [loop.var for loop in chain if loop.var not in shared]
    if not needed:
        return _split_pointwise(s, chain, lane), lanes
    if lane is not None and lane in shared and lanes > 1 and not _reduces_along_rows(s, needed):
        shared.remove(lane)
        extent = static(find_loop(s.kernel, lane).extent)
        size = lanes * _width(s, needed, shared, extent, lanes)
        if shared and extent <= CHAINS * lanes:  # a short row is one tile: no tail of its own
            size = extent
        if extent > size:
            s.do(Tile(lane, size))
            shared.append(f"{lane}.o")
            rest.append(f"{lane}.i")
        else:
            rest.append(lane)
    if not s.attempt(Reorder((*shared, *rest))):
        return [], lanes
    if shared and _row_bytes(s, needed, shared) > ROW_BYTES:
        return [], lanes
    return shared, lanes


def _width(
    s: Scheduler, needed: Sequence[Alloc], shared: Sequence[str], extent: int, lanes: int
) -> int:
    """Vectors of a tile of columns: two, more where the tile holds sums alone: a row of it is then
    read at once, and the sums are independent.
    """
    most = extent
    for name in shared:
        most *= static(find_loop(s.kernel, name).extent)
    if any([static(alloc.result.buffer.size) > most for alloc in needed]):
        return 2 if extent >= 2 * lanes else 1
    wide = [n for n in (8, 4, 2) if extent >= n * lanes * s.target.threads]
    return (*wide, 2 if extent >= 2 * lanes else 1)[0]


def _reduces_along_rows(s: Scheduler, needed: Sequence[Alloc]) -> bool:
    """Does some intermediate reduce over consecutive elements, so that its lanes are those of the
    reduction?
    """
    for alloc in needed:
        for nest in {
            child_of(u, s.kernel.body) for u in alloc.result.users if isinstance(u, Store)
        }:
            loads = [
                op
                for op in accesses(nest)
                if isinstance(op, Load) and op.source is not alloc.result
            ]
            for loop in nest.walk():
                if (
                    isinstance(loop, For)
                    and loop.reduction
                    and any(stride(op, loop.var) == 1 for op in loads)
                    and not (static(loop.extent) <= TAPS and _slides(alloc, loads))
                ):
                    return True
    return False


def _slides(alloc: Alloc, loads: Sequence[Load]) -> bool:
    """Is each load a window that moves little from one result to the next, as in pooling?"""
    stores = [u for u in alloc.result.users if isinstance(u, Store)]
    lanes = {n for u in stores for e in u.index[-1:] for n in symbols_of(e)}
    return bool(lanes) and all(
        any(stride(load, lane) in range(1, MOST_STRIDE + 1) for lane in lanes) for load in loads
    )


def _split_pointwise(s: Scheduler, chain: Sequence[For], lane: str | None) -> list[str]:
    """A nest without intermediates shares all loops but the vector one; a single loop is cut in
    chunks.
    """
    names = [loop.var for loop in chain]
    if lane is not None and names[-1] != lane:
        order = [n for n in names if n != lane] + [lane]
        if s.attempt(Reorder(tuple(order))):
            names = order
    if len(names) > 1:
        return names[:-1]
    extent = chain[0].extent
    if s.target.threads > 1 and static(extent) >= 2 * GRAIN:
        s.do(Tile(names[0], GRAIN))
        return [f"{names[0]}.o"]
    return []


def _in_all(var: str, root: For, needed: Sequence[Alloc]) -> bool:
    """Does every direct read of an intermediate in the root change with this loop?"""
    for alloc in needed:
        for user in alloc.result.users:
            if isinstance(user, Load) and contains(root, user) and not depends(user, var):
                return False
    return True


def _row_bytes(s: Scheduler, needed: Sequence[Alloc], shared: Sequence[str]) -> int:
    """Bytes of the largest intermediate inside the shared loops (extents known only at run time:
    huge).
    """
    most = 0
    inside = {symbol for name in shared for symbol in (name, name.removesuffix(".o"))}
    for alloc in reversed(needed):  # consumers first: what they share, their producers share
        buffer, users = alloc.result.buffer, alloc.result.users
        size = buffer.dtype.bytes
        for d, extent in enumerate(buffer.shape):
            if any(symbols_of(u.index[d]) & inside for u in users if isinstance(u, Load)):
                inside |= {n for u in users if isinstance(u, Store) for n in symbols_of(u.index[d])}
            else:
                size *= static(extent)
        most = max(most, size)
    return most


def _work(loop: For) -> int:
    """Elements touched, roughly: the product of the extents of the deepest nest."""
    inner = [_work(op) for op in loop.body if isinstance(op, For)]
    return static(loop.extent, 64) * max(inner, default=1)


def vectorize_nest(s: Scheduler, name: str, lanes: int, chains: int = 1) -> None:
    """Vectorise one nest along the loop that moves its accesses by one element."""
    if lanes == 1:
        return
    loop = find_loop(s.kernel, name)
    chain = perfect_chain(loop)
    touched = list(accesses(loop))
    stores = [op for op in touched if isinstance(op, Store)]
    if not stores or any(op.block is not chain[-1].body for op in touched):
        _vectorize_inner(s, loop, lanes, chains)
        return
    if any(l.kind != "serial" or l.var in s.settled for l in chain):
        return
    pieces = _cut_at_bends(s, chain, touched, lanes)
    if len(pieces) > 1:
        for piece in pieces:
            vectorize_nest(s, piece, lanes, chains)
        return
    before = loop_names(s.kernel)
    _find_lanes(s, chain, touched, stores, lanes, chains)
    s.settled |= {l.var for l in chain} | loop_names(s.kernel) - before


def _cut_at_bends(
    s: Scheduler, chain: Sequence[For], touched: Sequence[Load | Store], lanes: int
) -> list[str]:
    """Cut the innermost loop where reflected or clamped accesses turn; gives the pieces."""
    var, extent = chain[-1].var, chain[-1].extent
    bent = [op for op in touched if jumps(op, var) and not moves_in_lanes(op, var, lanes)]
    if not bent or not isinstance(extent, int) or not 2 * lanes < extent <= MOST_BENT:
        return [var]
    cuts = {cut for op in bent for cut in bends(op, var, extent)}
    if not all([bends(op, var, extent) for op in bent]) or len(cuts) > MOST_RUNS:
        return [var]
    pieces = [var]
    for number, cut in enumerate(sorted(cuts)):
        if not s.attempt(Partition(pieces[-1], cut, f".{number}")):
            break
        pieces.append(f"{pieces[-1]}.{number}")
    for piece in pieces[1:]:
        if _exists(s, piece):
            s.do(FromZero(piece))
    return [piece for piece in pieces if _exists(s, piece)]


def _find_lanes(
    s: Scheduler,
    chain: Sequence[For],
    touched: Sequence[Load | Store],
    stores: Sequence[Store],
    lanes: int,
    chains: int,
) -> None:
    """Run the last loop that moves every access by one element or none as vectors."""
    moving = [l.var for l in chain if all(stride(o, l.var) == 1 for o in stores)]
    if moving and all(moves_in_lanes(op, moving[-1], lanes) for op in touched):
        jumping = any(jumps(op, moving[-1]) for op in touched)
        _vector_loop(s, chain, moving[-1], lanes, chains)
        if jumping:
            _write_out(s, [moving[-1] + ".o", *[l.var for l in chain if l.reduction]])
        return
    crossing = find_crossing(chain, touched, moving[-1], lanes) if moving else None
    if crossing is not None and schedule_crossing(s, chain, crossing):
        return
    if moving and _lanes_last(s, touched, moving[-1], lanes):
        inner = perfect_chain(_outermost(find_loop(s.kernel, moving[-1])))
        _vector_loop(s, inner, moving[-1], lanes, chains)
        return
    reducing = [l for l in chain if l.reduction and any(stride(op, l.var) == 1 for op in touched)]
    if reducing and all(stride(op, reducing[-1].var) in (0, 1) for op in touched):
        reduce_lanes(s, chain, reducing[-1].var, stores[0], lanes)


def _outermost(loop: For) -> For:
    """The loop furthest out that holds nothing but what leads to this one."""
    around = loop.parent_op
    while isinstance(around, For) and around.body.size == 1:
        loop, around = around, around.parent_op
    return loop


def _lanes_last(s: Scheduler, touched: Sequence[Load | Store], lane: str, lanes: int) -> bool:
    """Copy the one operand whose elements lie apart along the lanes, where the others' do not and
    more is computed than moved: piece by piece, with the lanes side by side.
    """
    apart = [op for op in touched if not moves_in_lanes(op, lane, lanes)]
    load = apart[0] if len(apart) == 1 else None
    if not isinstance(load, Load) or len(touched) < FEWEST_TOUCHED:
        return False
    along = [d for d, e in enumerate(load.index) if lane in symbols_of(e)]
    if len(along) != 1 or not isinstance(stride(load, lane), int):
        return False
    order = tuple([d for d in range(len(load.index)) if d != along[0]] + along)
    for loop in [l for l in loops_around(load) if l.var != lane and l.kind == "serial"]:
        try:
            extents = window([load], loop).shape
        except Refused:
            continue
        elements, around = 1, _work(loop)
        for extent in extents:
            elements *= static(extent)
        if elements * load.source.buffer.dtype.bytes <= PIECE_BYTES and elements <= around:
            label = f"{load.source.name}.{lane}"
            return s.attempt(Stage(load.source.name or "", loop.var, label, "stack", (), order))
    return False


def _write_out(s: Scheduler, names: Sequence[str]) -> None:
    """Unroll short loops: lanes that jump need to know where."""
    for name in names:
        if _exists(s, name) and static(find_loop(s.kernel, name).extent) <= TAPS:
            s.attempt(unroll(name))


def _vectorize_inner(s: Scheduler, loop: For, lanes: int, chains: int) -> None:
    """An imperfect nest: vectorise the nests inside it."""
    for op in list(loop.body):
        if isinstance(op, For):
            vectorize_nest(s, op.var, lanes, chains)
        elif op.regions:
            return


def _vector_loop(
    s: Scheduler, chain: Sequence[For], name: str, lanes: int, chains: int = 1
) -> None:
    """Put the loop innermost and run it as vectors, `chains` per round if that leaves no rest; the
    tail is masked.
    """
    order = [l.var for l in chain if l.var != name]
    extent = next(l.extent for l in chain if l.var == name)
    if not s.attempt(Reorder((*order, name))):
        return
    if isinstance(extent, int) and extent <= lanes:
        s.attempt(vector(name))
        return
    if not s.may(vector(name)):
        return
    if chains > 1 and isinstance(extent, int) and extent % (lanes * chains) == 0:
        s.do(Tile(name, lanes * chains))
        s.do(Tile(f"{name}.i", lanes, f"{name}.u", f"{name}.l"))
        s.do(vector(f"{name}.l"))
        s.do(unroll(f"{name}.u"))
        return
    s.do(Tile(name, lanes))
    if not isinstance(extent, int) or extent % lanes:
        s.attempt(Partition(f"{name}.o", extent // lanes, suffix=".t"))
        tail = f"{name}.i.t"
        if _exists(s, tail):
            s.attempt(vector(tail))
    if _exists(s, f"{name}.i"):
        s.attempt(vector(f"{name}.i"))
    if chains > 1 and static(extent) <= lanes * chains and _exists(s, f"{name}.o"):
        s.attempt(unroll(f"{name}.o"))


def _exists(s: Scheduler, var: str) -> bool:
    try:
        find_loop(s.kernel, var)
    except Refused:
        return False
    return True


def reduce_lanes(s: Scheduler, chain: Sequence[For], name: str, store: Store, lanes: int) -> None:
    """A reduction along the vector dimension: partial accumulators, one per lane and chain."""
    alloc = store.target.op
    extent = next(l.extent for l in chain if l.var == name)
    if not isinstance(alloc, Alloc) or not s.attempt(
        Reorder((*[l.var for l in chain if l.var != name], name))
    ):
        return
    if not s.may(vector(name)):
        return
    if static(alloc.result.buffer.size) > 1:  # partial sums of a whole buffer fill no registers
        _reduce_tail(s, name, lanes)
        return
    wide = lanes * CHAINS
    if static(extent) < wide:
        if isinstance(extent, int) and extent <= lanes:
            s.attempt(vector(name))
            return
        wide = lanes
    s.do(Tile(name, wide))
    if not isinstance(extent, int) or extent % wide:
        s.do(Partition(f"{name}.o", extent // wide, suffix=".t"))
        _reduce_tail(s, f"{name}.i.t", lanes)
    if not _exists(s, f"{name}.i"):
        return
    if not s.attempt(Rfactor(alloc.label, f"{name}.i")):
        return
    _finish_partials(s, f"{name}.i", wide, lanes)


def _reduce_tail(s: Scheduler, name: str, lanes: int) -> None:
    """The last, partial block: masked vectors combined at once."""
    if not _exists(s, name):
        return
    extent = find_loop(s.kernel, name).extent
    if isinstance(extent, int) and extent <= lanes:
        s.attempt(vector(name))
        return
    s.do(Tile(name, lanes))
    if _exists(s, f"{name}.i"):
        s.attempt(vector(f"{name}.i"))


def _finish_partials(s: Scheduler, name: str, wide: int, lanes: int) -> None:
    """Vectors for the partial accumulators: set, update, and combine them."""
    parts = f"{name}.p"
    s.do(Place(parts, "register"))
    last = len(next(a for a in s.allocs() if a.label == parts).result.buffer.shape) - 1
    first = f"{name}.pi{last}"
    for loop in (first, name, f"{name}.c"):
        if wide > lanes:
            s.do(Tile(loop, lanes))
            s.do(vector(f"{loop}.i"))
            s.do(unroll(f"{loop}.o"))
        else:
            s.do(vector(loop))


__all__ = ["reduce_lanes", "schedule_rows", "share_copies", "vectorize_nest"]
