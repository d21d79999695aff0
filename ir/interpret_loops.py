"""Runs kernels and plans on numpy arrays: the meaning of the loop level, and its strictest critic.

`run_kernel` translates a function to Python (interpret_translate.py) and runs it.  With `check`
every access is proved in bounds and defined, iterations of concurrent loops run in a shuffled
order and may not meet in memory, views of an arena may not overlap while both live, asynchronous
copies arrive as late as they may, streams are bounded, and barriers must be reached by all
threads.
Imports: the other interpret files, the kernel-level ops, symbols, errors.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import interpret_memory as memory
from .blobs import Blob
from .core import OPS, Op
from .dims import Dim, coefficient, evaluate
from .errors import Error
from .interpret_async import ASYNC, Group, blocked, run_processes, run_threads
from .interpret_memory import Array, Memory, Window
from .interpret_rules import PLAIN, translate
from .kernel_abi import dim_parameters
from .ops import loop
from .ops.core import Const, Func, Module
from .types import BufferType, TensorType, u8

HostStep = Callable[[Sequence[Array], Sequence[int]], None]
_RULES = {**PLAIN, **ASYNC}


class _Failed(Exception):  # noqa: N818  # a status on its way out, not an error
    """Carries the status with which a kernel ends early."""


def run_kernel(
    func: Func,
    args: Sequence[Array],
    dims: Mapping[str, int] | None = None,
    *,
    module: Module | None = None,
    check: bool = True,
    seed: int = 0,
    written: Sequence[int] | None = None,
    scratch: Sequence[int] = (),
    host: Mapping[str, HostStep] | None = None,
) -> int:
    """Run a kernel or plan on arrays, outputs written in place; gives the status.

    Symbols of argument shapes are bound from the arrays, others come from `dims`.  `written`
    numbers the arguments that start undefined and must be wholly written (default: the last
    `len(func.outputs)` of a kernel; of a plan its outputs, and its arena starts undefined too);
    `scratch` numbers those that start undefined and mean nothing afterwards.
    `seed` orders concurrent iterations and threads.  Mistakes of the kernel raise E0510 to E0519.
    """
    bound = bind_symbols(func, args, dims or {})
    results, undefined = _undefined_args(func, written)
    undefined |= {k % len(args) for k in scratch}
    _check_overlap(func, args, results)
    runtime = Runtime(module, check, seed, host or {})
    windows = []
    for k, (value, array) in enumerate(zip(func.args, args, strict=True)):
        type_ = value.buffer
        shape = tuple([evaluate(d, bound) for d in type_.shape])
        strides = (
            None if type_.strides is None else tuple([evaluate(d, bound) for d in type_.strides])
        )
        fresh = check and (k in results or k in undefined)
        windows.append(
            memory.argument(array, type_.dtype, shape, strides, value.name or f"arg{k}", not fresh)
        )
    status = runtime.run(func, windows, bound, ())
    for k, (window, array) in enumerate(zip(windows, args, strict=True)):
        if (
            check
            and status == loop.STATUS_OK
            and k in results
            and (missing := window.undefined()) is not None
        ):
            raise Error(
                "E0518",
                f"@{func.sym} leaves its result '{window.label}' unwritten",
                details=(f"first at index {list(missing)} of shape {list(window.shape)}",),
            )
        if not np.may_share_memory(window.memory.bytes, array) and array.flags.writeable:
            array[...] = window.array()
    return status


def _undefined_args(func: Func, written: Sequence[int] | None) -> tuple[set[int], set[int]]:
    """(arguments that must be wholly written, arguments that merely start undefined)."""
    count = len(func.args)
    plan = func.kind == "plan"
    if written is not None:
        results = {k % count for k in written}
    else:
        end = count - 2 if plan else count
        results = set(range(end - len(func.outputs), end))
    return results, {count - 2} if plan else set()


def _check_overlap(func: Func, args: Sequence[Array], results: set[int]) -> None:
    for k in results:
        for other, array in enumerate(args):
            if other != k and array.size and np.may_share_memory(array, args[k]):
                raise Error(
                    "E0519",
                    f"arguments {k} and {other} of @{func.sym} overlap",
                    hint="pass separate arrays",
                )


def bind_symbols(func: Func, args: Sequence[Array], dims: Mapping[str, int]) -> dict[str, int]:
    """Values of all parameters, from argument shapes and `dims`; E0516 where they disagree."""
    if len(args) != len(func.args):
        raise Error("E0516", f"@{func.sym} takes {len(func.args)} arrays, {len(args)} given")
    bound = dict(dims)
    pairs: list[tuple[Dim | int, int, str]] = []
    for k, (value, array) in enumerate(zip(func.args, args, strict=True)):
        type_ = value.buffer
        if array.dtype != type_.dtype.np or array.ndim != type_.rank:
            raise Error(
                "E0516",
                f"argument {k} of @{func.sym} must be {type_}",
                details=(f"found {array.dtype}{list(array.shape)}",),
            )
        pairs += [
            (d, n, f"argument {k} of @{func.sym}")
            for d, n in zip(type_.shape, array.shape, strict=True)
        ]
    for _ in range(2):  # symbols that stand alone first, then those inside expressions
        for d, n, _where in pairs:
            open_ = [s for s in d.symbols if s not in bound] if isinstance(d, Dim) else []
            parts = coefficient(d, open_[0]) if len(open_) == 1 else None
            if parts is not None and evaluate(parts[0], bound):
                bound[open_[0]] = (n - evaluate(parts[1], bound)) // evaluate(parts[0], bound)
    for d, n, where in pairs:
        if evaluate(d, bound) != n:
            raise Error(
                "E0516", f"{where} has extent {n}, where {d} = {evaluate(d, bound)} is declared"
            )
    for symbol in dim_parameters(func):
        if symbol not in bound:
            raise Error(
                "E0516",
                f"@{func.sym} needs a value for its symbol {symbol}",
                hint="pass it in dims",
            )
    return bound


class Runtime:
    """What a translated kernel calls: memory, stamps, orders, callees, and its failures."""

    put_code = staticmethod(memory.put_code)
    code_of = staticmethod(memory.code_of)

    def __init__(
        self, module: Module | None, check: bool, seed: int, host: Mapping[str, HostStep]
    ) -> None:
        self.module, self.check, self.host = module, check, host
        self.random = random.Random(seed)
        self.stamp = 0
        self.progress = 0
        self.groups: list[Group] = []
        self.compiled: dict[tuple[Func, int], tuple[Callable[..., None], tuple[str, ...]]] = {}
        self.tables: dict[Op, Window] = {}

    def run(
        self,
        func: Func,
        windows: Sequence[Window],
        dims: Mapping[str, int],
        levels: tuple[Any, ...],
    ) -> int:
        """Run one function; the status."""
        key = (func, len(levels))
        if key not in self.compiled:
            names = dim_parameters(func)
            self.compiled[key] = (
                translate(func, _RULES, names, self.check, len(levels)),
                names,
            )
        try:
            with np.errstate(all="ignore"):
                self.compiled[key][0](self, windows, dims, levels)
        except _Failed as failed:
            return int(failed.args[0])
        return loop.STATUS_OK

    def fail(self, status: int) -> None:
        """End the kernel."""
        raise _Failed(status)

    def order(self, lo: int, extent: int) -> Sequence[int]:
        """The values of a concurrent loop's variable, shuffled."""
        values = list(range(lo, lo + extent))
        self.random.shuffle(values)
        return values

    # Memory ------------------------------------------------------------------------------------

    def alloc(self, op: loop.Alloc, shape: tuple[int, ...], strides: tuple[int, ...]) -> Window:
        """Undefined memory."""
        made = Memory.poisoned(
            op.type.dtype, memory.span(shape, strides), op.label or op.result.name or "alloc"
        )
        window = Window(made, op.type.dtype, shape, strides, owner=made.name())
        window.root = op.type.dtype is u8
        return window

    def view(
        self,
        op: loop.View,
        base: Window,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> Window:
        """A view; one made directly on memory that began undefined gets a name of its own."""
        whole = base.memory
        owner = whole.name() if whole.tracked and base.root else base.owner
        return Window(
            whole,
            op.type.dtype,
            shape,
            strides,
            base.offset + offset,
            owner,
            op.result.name or base.label,
        )

    def table(self, op: Const) -> Window:
        """The window of a constant buffer."""
        if op not in self.tables:
            blob, type_ = op.value, op.result.type
            assert isinstance(blob, Blob) and isinstance(type_, (BufferType, TensorType))
            shape = tuple(blob.array.shape)
            self.tables[op] = memory.argument(
                blob.array.copy(), type_.dtype, shape, None, "constant", True
            )
        return self.tables[op]

    def stream(self) -> deque[Any]:
        """An empty stream."""
        return deque()

    def drained(self, stream: deque[Any], op: loop.Alloc) -> None:
        """Check that every element pushed was popped."""
        if self.check and stream:
            raise Error(
                "E0515",
                f"stream '{op.label}' ends with {len(stream)} elements that nobody takes",
                where=Op.where(op),
            )

    def window(self, op: Op, base: Window, index: Sequence[int], shape: tuple[int, ...]) -> Window:
        """An instruction's operand: `shape` elements of the last dimensions, from `index` on."""
        skip = len(base.shape) - len(shape)
        last = [i + (shape[k - skip] - 1 if k >= skip else 0) for k, i in enumerate(index)]
        for at in (index, last):
            if any(not 0 <= i < n for i, n in zip(at, base.shape, strict=True)):
                self.outside(op, tuple(at), base)
        return base.sub(index, shape, base.strides[skip:])

    # Vector accesses ---------------------------------------------------------------------------

    def gather(
        self,
        op: loop.Load,
        window: Window,
        index: Sequence[Any],
        where: Sequence[Any],
        fill: Any,
        lanes: int,
        levels: Sequence[Any],
        me: int,
    ) -> Array:
        """Lanes of a load, one address each."""
        on, at = self._lane_addresses(op, window, index, where, lanes)
        if self.check:
            shadow, pattern = window.shadow()
            slots = at * window.dtype.bits // 8 if memory.packed(window.dtype) else at
            if (shadow[slots] != pattern).any():
                self.undefined(op, slots, window)
            self.lanes(op, window, slots, levels, me, False)
        out = np.full(lanes, fill, window.dtype.np)
        out[on] = memory.get_elements(window, at)
        return out

    def scatter(
        self,
        op: loop.Store,
        window: Window,
        index: Sequence[Any],
        where: Sequence[Any],
        value: Array,
        lanes: int,
        levels: Sequence[Any],
        me: int,
    ) -> None:
        """Lanes of a store, one address each; two lanes may not write one element."""
        on, at = self._lane_addresses(op, window, index, where, lanes)
        if self.check:
            if len(set(at.tolist())) != at.size:
                raise Error(
                    "E0513",
                    "two lanes of a store write one element",
                    where=Op.where(op),
                    details=(f"buffer '{window.label}'",),
                )
            slots = at * window.dtype.bits // 8 if memory.packed(window.dtype) else at
            self.lanes(op, window, slots, levels, me, True)
        memory.put_elements(window, at, np.asarray(value)[on])

    def _lane_addresses(
        self, op: Op, window: Window, index: Sequence[Any], where: Sequence[Any], lanes: int
    ) -> tuple[Array, Array]:
        """(mask of active lanes, flat element numbers of those)."""
        on = np.ones(lanes, bool)
        for e in where:
            on &= np.asarray(e) >= 0
        at = np.zeros(int(on.sum()), np.int64)
        columns = [np.broadcast_to(np.asarray(i), lanes)[on] for i in index]
        for column, extent, step in zip(columns, window.shape, window.strides, strict=True):
            bad = (column < 0) | (column >= extent)
            if self.check and bad.any():
                self.outside(op, tuple([int(c[bad][0]) for c in columns]), window)
            at += column * step
        return on, at

    def lanes(
        self, op: Op, window: Window, at: Array, levels: Sequence[Any], me: int, write: bool
    ) -> None:
        """The race check of many elements at once."""
        if not levels:
            return
        writer, reader, before = window.stamps()
        for base, own, group, thread in levels:
            for stamps in (writer, reader, before) if write else (writer,):
                seen = stamps[at]
                if group is None:
                    bad = bool(((base <= seen) & (seen < own)).any())
                else:
                    bad = any(
                        s >= base and s != own and group.conflict(s, thread)
                        for s in set(seen.tolist())
                    )
                if bad:
                    self.race(op, at, window)
        if write:
            writer[at] = me
        else:
            other = at[reader[at] != me]
            before[other] = reader[other]
            reader[at] = me

    def reduce_lanes(self, x: Array, combiner: str) -> Any:
        """All lanes combined, by pairwise halves."""
        combine = OPS[combiner].evaluate
        while x.size > 1:
            half = x.size // 2
            x = np.concatenate([combine(x[:half], x[half : 2 * half]), x[2 * half :]])
        return x[0]

    # Calls -------------------------------------------------------------------------------------

    def call(
        self, op: loop.Call, windows: Sequence[Window], dims: Sequence[int], levels: tuple[Any, ...]
    ) -> None:
        """Call a kernel of the module; a status other than ok ends the caller too."""
        if self.module is None:
            raise Error("E0516", f"a call of @{op.callee} needs the module", where=Op.where(op))
        callee = self.module.func(op.callee)
        names = dim_parameters(callee)
        if len(names) != len(dims) or len(windows) != len(callee.args):
            raise Error(
                "E0516",
                f"@{op.callee} takes {len(callee.args)} buffers and the dims {list(names)}",
                where=Op.where(op),
            )
        bound = dict(zip(names, dims, strict=True))
        for window, value in zip(windows, callee.args, strict=True):
            shape = tuple([evaluate(d, bound) for d in value.buffer.shape])
            if shape != window.shape or window.dtype is not value.buffer.dtype:
                raise Error(
                    "E0516",
                    f"@{op.callee} wants {value.type}",
                    where=Op.where(op),
                    details=(f"found {window.dtype}{list(window.shape)}, dims {bound}",),
                )
        status = self.run(callee, windows, bound, levels)
        if status != loop.STATUS_OK:
            self.fail(status)

    def host_call(self, op: loop.HostCall, windows: Sequence[Window], dims: Sequence[int]) -> None:
        """Call a host step on dense copies, and write back what it changed."""
        step = self.host.get(op.callee)
        if step is None:
            raise Error("E0516", f"no host step @{op.callee} was given", where=Op.where(op))
        arrays = [w.array() for w in windows]
        before = [a.copy() for a in arrays]
        step(arrays, dims)
        for window, array, old in zip(windows, arrays, before, strict=True):
            if array.tobytes() != old.tobytes() or window.undefined() is not None:
                window.fill(array)

    # Concurrency (interpret_async.py) ------------------------------------------------------------

    def group(self) -> Group:
        """A new set of threads that meet at barriers."""
        made = Group(self)
        self.groups.append(made)
        return made

    run_threads = run_threads
    run_processes = run_processes
    blocked = blocked

    # Failures ----------------------------------------------------------------------------------

    def outside(self, op: Op, index: tuple[int, ...], window: Window) -> None:
        """An index is out of bounds."""
        raise Error(
            "E0510",
            f"index {[int(i) for i in index]} is outside of '{window.label}'",
            where=Op.where(op),
            details=(f"shape {list(window.shape)}",),
        )

    def undefined(self, op: Op, at: Any, window: Window) -> None:
        """An element that is read was not written through this window."""
        shadow, pattern = window.shadow()
        for slot in np.atleast_1d(at):
            if shadow[slot] == pattern:
                continue
            names = set(np.atleast_1d(shadow[slot]).view(np.uint8).tolist())
            where = f"element {int(slot)} of '{window.label}'"
            if 0 not in names:
                raise Error(
                    "E0517",
                    f"{where} was overwritten through another view of the same memory",
                    where=Op.where(op),
                )
            if any(g.in_flight(window, int(slot)) for g in self.groups):
                raise Error(
                    "E0512",
                    f"{where} is read before its asynchronous copy was waited for",
                    where=Op.where(op),
                )
            raise Error(
                "E0512",
                f"{where} is read but was never written",
                where=Op.where(op),
                details=(f"shape {list(window.shape)}, strides {list(window.strides)}",),
            )

    def misplaced(self, op: Op, text: str) -> None:
        """An op stands where it cannot."""
        raise Error("E0514", text, where=Op.where(op))

    def race(self, op: Op, at: Any, window: Window) -> None:
        """Two concurrent iterations meet in an element."""
        first = int(np.atleast_1d(at)[0])
        raise Error(
            "E0513",
            f"iterations that run at the same time meet in '{window.label}'",
            where=Op.where(op),
            details=(f"element {first} (shape {list(window.shape)})",),
            hint="a barrier may be missing",
        )


__all__ = ["HostStep", "Runtime", "bind_symbols", "run_kernel"]
