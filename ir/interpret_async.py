"""What runs at the same time in the loop interpreter: threads, processes, streams, copies.

Threads and processes are Python generators.  A thread yields at a barrier, a process where its
stream is full or empty; the schedulers here resume them, and see divergence and deadlock.
Asynchronous copies happen only when a wait obliges them to; until then their destination is
undefined.
Imports: the translator, memory, the kernel-level ops.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .core import Block, Op
from .errors import Error
from .interpret_memory import Array, Window, poison
from .interpret_rules import PLAIN
from .interpret_translate import Level, Place, Rule, Translator
from .ops import loop
from .ops.instr import instr
from .types import BufferType

Coroutine = Generator[Any, None, None]


@dataclass
class Copy:
    """An asynchronous copy under way: `saved` is the source as it was when the copy was started."""

    op: Op
    source: Window
    source_at: int
    target: Window
    target_at: int
    count: int
    saved: Array


class Group:
    """The threads of one GPU block, or sibling processes: their stamps, their copies in flight.

    Thread ids: a single thread is its linear number, warp w as a whole is -(w + 1).
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.base = runtime.stamp + 1
        self.owners: dict[int, int] = {}
        self.warp_base: dict[int, int] = {}
        self.open: dict[int, list[Copy]] = {}
        self.committed: dict[int, list[list[Copy]]] = {}

    def enter(self, thread: int) -> int:
        """A new stamp for a thread that starts or resumes."""
        self.runtime.stamp += 1
        stamp: int = self.runtime.stamp
        self.owners[stamp] = thread
        return stamp

    def conflict(self, stamp: int, thread: int) -> bool:
        """Was this stamp, of the current interval, another thread's?"""
        owner = self.owners.get(int(stamp))
        if owner is None or owner == thread:
            return False
        return not (
            warp_of(owner) == warp_of(thread) and stamp < self.warp_base.get(warp_of(thread), -1)
        )

    def barrier(self) -> None:
        """All threads of the block have met: a new interval begins."""
        self.base = self.runtime.stamp + 1
        self.owners.clear()

    def warp_barrier(self, thread: int) -> None:
        """The lanes of one warp have met."""
        self.warp_base[warp_of(thread)] = self.runtime.stamp + 1

    # Asynchronous copies -------------------------------------------------------------------------

    def start(
        self,
        op: Op,
        thread: int,
        source: Window,
        source_at: int,
        target: Window,
        target_at: int,
        count: int,
    ) -> None:
        """Start a copy of `count` elements; the destination is poisoned."""
        saved = source.data[source_at : source_at + count].copy()
        self.open.setdefault(thread, []).append(
            Copy(op, source, source_at, target, target_at, count, saved)
        )
        cut = slice(target_at, target_at + count)
        poison(target.data[cut].view("u1"), target.dtype)
        target.shadow()[0][cut] = 0

    def commit(self, thread: int) -> None:
        """Close the thread's group of copies."""
        self.committed.setdefault(thread, []).append(self.open.pop(thread, []))

    def wait(self, thread: int, pending: int, me: int) -> None:
        """Finish the thread's groups until at most `pending` are left."""
        groups = self.committed.get(thread, [])
        while len(groups) > pending:
            for copy in groups.pop(0):
                self.finish(copy, me)

    def finish(self, copy: Copy, me: int) -> None:
        """Make a copy's elements arrive, as if written now."""
        now = copy.source.data[copy.source_at : copy.source_at + copy.count]
        shadow, pattern = copy.target.shadow()
        cut = slice(copy.target_at, copy.target_at + copy.count)
        if self.runtime.check:
            if now.tobytes() != copy.saved.tobytes():
                raise Error(
                    "E0514",
                    f"'{copy.source.label}' changed while it was being copied",
                    where=Op.where(copy.op),
                )
            if (shadow[cut] != 0).any():
                raise Error(
                    "E0514",
                    f"'{copy.target.label}' was written while a copy into it was under way",
                    where=Op.where(copy.op),
                )
        copy.target.data[cut] = copy.saved
        shadow[cut] = pattern
        if copy.target.memory.stamps is not None:
            copy.target.stamps()[0][cut] = me

    def in_flight(self, window: Window, slot: int) -> bool:
        """Does a copy under way cover this element?"""
        copies = [c for many in self.open.values() for c in many]
        copies += [c for groups in self.committed.values() for many in groups for c in many]
        byte = window.offset + slot * window.dtype.np.itemsize
        for copy in copies:
            first = copy.target.offset + copy.target_at * copy.target.dtype.np.itemsize
            last = first + copy.count * copy.target.dtype.np.itemsize
            if copy.target.memory is window.memory and first <= byte < last:
                return True
        return False


def warp_of(thread: int) -> int:
    """The warp of a thread id."""
    return -thread - 1 if thread < 0 else thread // 32


def meet(threads: Sequence[Coroutine], label: str) -> Generator[tuple[Op, str], None, None]:
    """Run threads from barrier to barrier, each time in another order; yields at each."""
    live = list(threads)
    while live:
        at: dict[Any, int] = {}
        for thread in live:
            site = next(thread, None)
            at[site] = at.get(site, 0) + 1
        if len(at) > 1:
            found = [
                f"{n} threads " + (f"at {Op.where(site[0])}" if site else "at the end")
                for site, n in at.items()
            ]
            raise Error(
                "E0514", f"the threads of loop {label} part ways at a barrier", details=found
            )
        (site,) = at
        if site is None:
            return
        live = (
            live[1:] + live[:1]
            if len(live) < 3
            else live[len(live) // 2 :] + live[: len(live) // 2]
        )
        yield site


def run_threads(runtime: Any, group: Group, threads: Sequence[Coroutine], label: str) -> None:
    """Run the threads of a block to their end."""
    for _ in meet(threads, label):
        group.barrier()


def run_lanes(group: Group, threads: Sequence[Coroutine], label: str, thread: int) -> Coroutine:
    """Run threads inside another one: barriers of scope "warp" end here, others go on outside."""
    for site in meet(threads, label):
        if site[1] == "warp":
            group.warp_barrier(thread)
        else:
            yield site


def run_processes(runtime: Any, processes: Sequence[tuple[str, Coroutine]]) -> None:
    """Run sibling processes in turn until all end; E0515 where none can go on."""
    live = dict(processes)
    while live:
        before, waits = runtime.progress, []
        for label, process in list(live.items()):
            blocked_on = next(process, None)
            if blocked_on is None:
                del live[label]
                runtime.progress += 1
            else:
                waits.append(f"process '{label}' waits to {blocked_on}")
        if live and runtime.progress == before:
            raise Error(
                "E0515", "deadlock: no process can go on", details=waits, hint="deepen a stream"
            )


def blocked(runtime: Any, op: Op, what: str) -> None:
    """A push or pop that can never succeed, because nothing runs at the same time."""
    raise Error("E0515", f"deadlock: this code waits for ever to {what}", where=Op.where(op))


# Rules -----------------------------------------------------------------------------------------

_GPU = ("gpu.warp", "gpu.lane", "gpu.thread")


def gpu_block(t: Translator, op: loop.For) -> None:
    """Blocks of the grid: concurrent iterations, each with a group of threads."""
    var = t.define_symbol(op.var)
    level = Level("loop", t.fresh("b"), t.fresh("m"))
    outer, t.group = t.group, t.fresh("g")
    t.emit(f"{level.base} = rt.stamp + 1")
    t.emit(f"for {var} in rt.order({t.expr(op.lo)}, {t.expr(op.extent)}):")
    t.emit(f" {level.me} = rt.stamp = rt.stamp + 1; {t.group} = rt.group()")
    t.levels.append(level)
    t.nest += 1
    t.block(op.body)
    t.nest -= 1
    t.levels.pop()
    t.group = outer


def gpu_threads(t: Translator, op: loop.For) -> None:
    """Threads, warps or lanes: one generator each, in step at barriers."""
    outer = t.levels[-1] if t.levels and t.levels[-1].kind == "thread" else None
    lo, extent = t.expr(op.lo), t.expr(op.extent)
    number = f"(k - {lo})"
    if op.kind == "gpu.warp":
        number = f"-{number} - 1"
    elif outer is not None:
        number += (
            f" + ({outer.thread} * {extent} if {outer.thread} >= 0 else 32 * (-{outer.thread} - 1))"
        )
    name = t.fresh("thread")
    var = t.define_symbol(op.var)
    level = Level("thread", t.fresh("b"), t.fresh("m"), t.fresh("id"), t.group)
    t.emit(f"def {name}({var}, {level.thread}):")
    _coroutine(t, op.body, level)
    make = f"[{name}(k, {number}) for k in rt.order({lo}, {extent})]"
    if outer is None:
        t.emit(f"rt.run_threads({t.group}, {make}, {op.var!r})")
    else:
        t.emit(f"yield from {t.constant(run_lanes)}({t.group}, {make}, {op.var!r}, {outer.thread})")
        _resume(t, outer)


def _resume(t: Translator, level: Level) -> None:
    t.emit(f"{level.me} = {level.group}.enter({level.thread}); {level.base} = {level.group}.base")


def _coroutine(t: Translator, body: Block, level: Level) -> None:
    """The body of a generator function."""
    saved = t.coroutine, t.nest
    t.coroutine, t.nest = True, 0
    t.levels.append(level)
    t.depth += 1
    _resume(t, level)
    t.depth -= 1
    t.block(body)
    t.emit(" return")
    t.emit(" yield")
    t.levels.pop()
    t.coroutine, t.nest = saved


def for_loop(t: Translator, op: loop.For) -> None:
    """Any loop: those of a GPU here, the others by the sequential rule."""
    if op.kind == "gpu.block":
        gpu_block(t, op)
    elif op.kind in _GPU:
        gpu_threads(t, op)
    else:
        PLAIN[loop.For](t, op)


def _barrier(t: Translator, op: loop.Barrier) -> None:
    level = t.levels[-1] if t.levels else None
    if level is None or level.kind != "thread":
        t.emit(f"{t.group}.barrier()")
        return
    t.emit(f"yield ({t.constant(op)}, {op.scope!r})")
    _resume(t, level)


def _thread(t: Translator) -> tuple[str, str]:
    """(thread id, stamp) at this point."""
    level = t.levels[-1] if t.levels else None
    if level is None:
        return "0", "0"
    return (level.thread, level.me) if level.kind == "thread" else ("0", level.me)


def _async_copy(t: Translator, op: loop.AsyncCopy) -> None:
    source, target = t.place(op, op.source), t.place(op, op.target)
    _whole_rows(op, source, target)
    _check_last(t, op, source, op.source_index)
    t.address(op, source, op.source_index)
    for lane in range(op.count if t.check else 0):
        t.look(op, source)
        t.emit("o += 1; h += 1" if lane + 1 < op.count else f"o -= {op.count - 1}")
    t.emit("at = o")
    _check_last(t, op, target, op.target_index)
    t.address(op, target, op.target_index)
    for lane in range(op.count if t.check else 0):
        t.touch(op, target)
        t.emit("o += 1; h += 1" if lane + 1 < op.count else f"o -= {op.count - 1}")
    t.emit(
        f"{t.group}.start({t.constant(op)}, {_thread(t)[0]}, "
        f"W{source.name}, at, W{target.name}, o, {op.count})"
    )


def _whole_rows(op: loop.AsyncCopy, source: Place, target: Place) -> None:
    for place in (source, target):
        if place.packed or (op.count > 1 and (not place.strides or place.strides[-1] != "1")):
            raise Error(
                "E0521",
                "an asynchronous copy wants whole bytes, side by side",
                where=Op.where(op),
                details=(f"buffer {place.type}",),
            )
    if source.type.dtype is not target.type.dtype:
        raise Error("E0521", "an asynchronous copy keeps the element type", where=Op.where(op))


def _check_last(t: Translator, op: loop.AsyncCopy, place: Place, index: tuple[Any, ...]) -> None:
    if t.check and op.count > 1:
        t.address(op, place, (*index[:-1], index[-1] + (op.count - 1)))


def _commit(t: Translator, op: loop.Commit) -> None:
    t.emit(f"{t.group}.commit({_thread(t)[0]})")


def _wait(t: Translator, op: loop.Wait) -> None:
    thread, me = _thread(t)
    t.emit(f"{t.group}.wait({thread}, {op.pending}, {me})")


def _processes(t: Translator, op: loop.Process) -> None:
    """Sibling processes, run together where the first one stands."""
    if isinstance(op.prev, loop.Process):
        return
    siblings: list[loop.Process] = []
    at: Op | None = op
    while isinstance(at, loop.Process):
        siblings.append(at)
        at = at.next
    group = t.fresh("g")
    t.emit(f"{group} = rt.group()")
    made = []
    for number, process in enumerate(siblings):
        name = t.fresh("process")
        level = Level("thread", t.fresh("b"), t.fresh("m"), t.fresh("id"), group)
        t.emit(f"def {name}({level.thread}):")
        _coroutine(t, process.body, level)
        made.append(f"({process.label!r}, {name}({100 * number}))")
    t.emit(f"rt.run_processes([{', '.join(made)}])")


def _call_instr(t: Translator, op: loop.CallInstr) -> None:
    """An instruction: its meaning, inlined on windows of the operands."""
    found = instr(op.instr)
    if len(op.args) != len(found.operands):
        raise Error(
            "E0521", f"{found.name} takes {len(found.operands)} operands", where=Op.where(op)
        )
    if found.scope == "warp" and t.levels and t.levels[-1].kind == "thread":
        text = f"{found.name} belongs to a whole warp, not to one lane"
        t.emit(f"if {t.levels[-1].thread} >= 0: rt.misplaced({t.constant(op)}, {text!r})")
    symbols = dict(t.symbols)
    for k, (value, arg) in enumerate(zip(op.args, found.body.args, strict=True)):
        place, type_ = t.place(op, value), arg.buffer
        if place.type.dtype is not type_.dtype or _held(place.type) != _held(type_):
            raise Error(
                "E0521",
                f"{found.name}: operand '{found.operands[k][0]}' is a {type_}",
                where=Op.where(op),
                details=(f"found {place.type}",),
            )
        index = op.index[k] if k < len(op.index) and op.index[k] else (0,) * place.type.rank
        window = (
            f"rt.window({t.constant(op)}, W{place.name}, {t.exprs(index)}, {t.exprs(type_.shape)})"
        )
        t.bind(arg, window)
        made = t.places[arg]
        strides = tuple([f"W{made.name}.strides[{axis}]" for axis in range(type_.rank)])
        t.places[arg] = replace(made, strides=strides, depth=place.depth)
    t.ops(found.body.body)
    t.symbols = symbols


def _held(type_: BufferType) -> str:
    """The space of a tile or fragment, which an instruction needs exactly; "" for others."""
    return type_.space if type_.space.split(".")[0] in ("tile", "fragment") else ""


def _push(t: Translator, op: loop.Push) -> None:
    place, queue = t.places[op.stream], t.read(op.stream)
    _until(t, op, f"len({queue}) >= {place.shape[0]}", "push into")
    t.emit(f"{queue}.append({t.read(op.value)}); rt.progress += 1")


def _pop(t: Translator, op: loop.Pop) -> None:
    queue = t.read(op.stream)
    _until(t, op, f"not {queue}", "pop from")
    t.emit(f"{t.define(op.result)} = {queue}.popleft(); rt.progress += 1")


def _until(t: Translator, op: loop.Push | loop.Pop, waiting: str, what: str) -> None:
    owner = op.stream.op
    label = f"{what} '{owner.label if isinstance(owner, loop.Alloc) else ''}'"
    if t.coroutine:
        t.emit(f"while {waiting}: yield {label!r}")
    else:
        t.emit(f"if {waiting}: rt.blocked({t.constant(op)}, {label!r})")


ASYNC: dict[type[Op], Rule] = {
    loop.For: for_loop, loop.Barrier: _barrier, loop.AsyncCopy: _async_copy,
    loop.Commit: _commit, loop.Wait: _wait,
    loop.Process: _processes, loop.CallInstr: _call_instr, loop.Push: _push, loop.Pop: _pop,
}  # fmt: skip
