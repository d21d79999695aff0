"""The plan: `main` with its launches becomes a loop-level function over arguments, one arena and
the weights.

Results are computed where they are wanted: in the caller's output buffers, in the state that they
replace, in the storage of a loop's carried value, in a slice of a stack; where that is not proved
safe a reported copy is made.  A launch may overwrite a dying input where inplace.py proves it.
Reshapes are views. Offsets come last (memory.py), then alias.py proves the result. May import: ir,
and the files named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.blobs import Blob
from ..ir.core import Block, Builder, Op, Value
from ..ir.dims import DimLike, sym, symbols_of
from ..ir.errors import UnsupportedError
from ..ir.ops.core import Const, Func, Module, Return
from ..ir.ops.loop import Call, For, HostCall, Load, Store
from ..ir.ops.plan import Launch
from ..ir.types import BufferType, TensorType, Type, u8
from .alias import verify_places
from .inplace import overwrites
from .lifetimes import Lifetimes, is_view, root
from .memory import Layout
from .places import Memory, Place, Storage, buffer_type, bytes_of
from .plan_control import CONTROL

COPY = "irc_copy"


@dataclass(frozen=True)
class Buffer:
    """One row of the memory report: where a storage lies and when it is needed (arena only)."""

    name: str
    kind: str
    offset: DimLike
    bytes: DimLike
    first: int
    last: int


@dataclass(frozen=True)
class Planned:
    """A module whose `plan` function needs no decision any more.

    `weights` are (offset, constant) pairs in one run of `weight_bytes`; `state` pairs (input,
    result): the result replaces the input in place and is no output of the plan.  `overwriting`
    names the kernels of which some call lets a result share the memory of an input.  `copies` says
    which copies could not be avoided.
    """

    module: Module
    inputs: tuple[tuple[str, TensorType], ...]
    results: tuple[tuple[str, TensorType], ...]
    state: tuple[tuple[int, int], ...]
    weights: tuple[tuple[int, Blob], ...]
    weight_bytes: int
    layout: Layout
    buffers: tuple[Buffer, ...]
    copies: tuple[str, ...]
    overwriting: frozenset[str]
    host_steps: dict[str, Op] = field(default_factory=dict)

    @property
    def func(self) -> Func:
        """The plan itself."""
        return next(f for f in self.module.funcs if f.kind == "plan")

    @property
    def kernels(self) -> list[Func]:
        return [f for f in self.module.funcs if f.kind == "kernel"]

    @property
    def arena_bytes(self) -> DimLike:
        """Bytes of the arena, an expression where sizes are symbolic."""
        return self.layout.arena

    @property
    def lower_bound(self) -> int:
        """Bytes of the largest live set; for symbolic sizes use `layout.lower_bound(dims)`."""
        return self.layout.lower_bound()


def plan(module: Module, name: str = "plan", consume: bool = False) -> Planned:
    """Plan `main` of a module whose fused regions are kernels already; the module given stays as it
    is, or with `consume` hands over its kernels.
    """
    planner = Planner(module, name, consume)
    planner.run()
    return planner.finished()


class Planner:
    """State while one function is planned: where values live, and homes promised to values not made
    yet.
    """

    def __init__(self, module: Module, name: str, consume: bool = False) -> None:
        self.main = module.main
        self.consume = consume
        self.kernels = {f.sym: f for f in module.funcs if f.kind == "kernel"}
        self.times = Lifetimes(self.main)
        self.places: dict[Value, Place] = {}
        self.homes: dict[Value, Place] = {}
        self.copies: list[str] = []
        self.host_steps: dict[str, Op] = {}
        self.overwriting: set[str] = set()
        self._proved: dict[tuple[str, int, int], bool] = {}
        self._copied = False
        self._counter = 0
        self.loops = 0
        self._start(name)

    def _start(self, name: str) -> None:
        main = self.main
        replaced = {r for _, r in main.state}
        results = main.returned
        self.result_names = [
            main.outputs[k] if k < len(main.outputs) else f"out{k}" for k in range(len(results))
        ]
        self.input_names = [
            main.inputs[k] if k < len(main.inputs) else v.name or f"arg{k}"
            for k, v in enumerate(main.args)
        ]
        kept = [k for k in range(len(results)) if k not in replaced]
        types = [buffer_type(_dense(v)) for v in (*main.args, *[results[k] for k in kept])]
        outputs = [self.result_names[k] for k in kept]
        self.func = Func.make(
            name, types, [*self.input_names, *outputs], kind="plan", outputs=outputs
        )
        self.func.set_attr("inputs", self.input_names)
        empty = BufferType(u8, (0,))
        arena, weights = (
            self.func.body.add_arg(empty, "arena"),
            self.func.body.add_arg(empty, "weights"),
        )
        self.memory = Memory(self.func, arena, weights)
        self.b = Builder(self.func.body)
        for value, arg in zip(main.args, self.func.args, strict=False):
            self.places[value] = self.memory.argument(arg, "input")
        count = len(main.args)
        outs = [
            self.memory.argument(a, "output") for a in self.func.args[count : count + len(kept)]
        ]
        self.results: dict[int, Place] = dict(zip(kept, outs, strict=True))
        for param, result in main.state:
            self.results[result] = self.places[main.args[param]]

    def run(self) -> None:
        """Promise the results their homes, then plan every op."""
        self._refuse_unknown_extents()
        for k, value in enumerate(self.main.returned):
            place = self.results[k]
            occupant = self.main.args[place.buffer.index] if place.storage.kind == "input" else None
            self.promise(value, place, self.main.body, occupant)
        self.block(self.main.body)

    def _refuse_unknown_extents(self) -> None:
        """Raise E0431, naming the ops, where a shape is known only when its data is."""
        known: set[str] = set().union(
            *[symbols_of(e) for v in self.main.args for e in _dense(v).shape]
        )
        found = []
        for op in self.main.body.walk():
            for value in op.results:
                if any([not symbols_of(e) <= known for e in _dense(value).shape]):
                    found.append(f"{op.where()} gives {value.type}")
        if found:
            raise UnsupportedError(
                "E0431", "some shapes depend on data, which a plan cannot hold", details=found[:12]
            )

    # Where values live ---------------------------------------------------------------------------

    def place(self, value: Value) -> Place:
        """Where a value lives; constants are put among the weights when first asked for."""
        known = self.places.get(value)
        if known is None:
            op = value.op
            assert isinstance(op, Const) and isinstance(op.value, Blob), (
                f"{value} is used before it is planned"
            )
            storage = self.memory.constant(op.value, value.name or "const")
            known = self.places[value] = self.memory.show(storage, value.type)
        return known

    def promise(
        self, value: Value, place: Place, block: Block, occupant: Value | None = None
    ) -> None:
        """Have `value`, when made in this block, written to `place` at once, unless `occupant` is
        needed longer.
        """
        made = root(value)
        free = made.owner.__class__ is not Block and made.op is not None and made.op.block is block
        if not free or made in self.homes or isinstance(made.op, Const):
            return
        if occupant is None or self.may_take(made, occupant):
            self.homes[made] = self.memory.show(
                place.storage, made.type, place.offset, self.b.block
            )

    def may_take(self, value: Value, occupant: Value) -> bool:
        """Whether the op that makes `value` may write it over `occupant`."""
        op = value.op
        assert op is not None
        starts, dies = self.times.start[op], self.times.dies(occupant)
        if dies != starts:
            return dies < starts
        uses = [k for k, v in enumerate(op.operands) if v is not None and root(v) is root(occupant)]
        if isinstance(op, Launch):
            return all([self.proved(op, k, value.index) for k in uses])
        if op.name in ("for", "while", "scan"):
            return len(uses) == 1 and uses[0] - (op.name == "for") == value.index
        return False

    def proved(self, op: Launch, operand: int, result: int) -> bool:
        """Whether the kernel may write this result over this operand."""
        key = (op.callee, operand, result)
        if key not in self._proved:
            self._proved[key] = overwrites(
                self.kernels[op.callee], operand, len(op.operands) + result
            )
        return self._proved[key]

    def fresh(self, type: Type, first: int, last: int, name: str | None = None) -> Place:
        """A new piece of the arena, needed from `first` to `last`."""
        self._counter += 1
        storage = self.memory.fresh(name or f"t{self._counter}", bytes_of(type))
        storage.need(first, last)
        return self.memory.show(storage, type)

    # Ops -----------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        """Plan the ops of a region up to its terminator."""
        for op in block:
            self.b.loc = op.loc
            if isinstance(op, Launch):
                self.launch(op)
            elif is_view(op):
                base = self.place(op.operands[0])
                value = op.results[0]
                self.places[value] = self.memory.show(
                    base.storage, value.type, base.offset, self.b.block
                )
            elif op.name in CONTROL:
                CONTROL[op.name](self, op)
            elif isinstance(op, Return):
                self.finish(op)
            elif not (isinstance(op, Const) or op.terminator):
                self.host(op)

    def launch(self, op: Launch) -> None:
        """Call a kernel; its results go to their homes, over a dying input, or to new memory."""
        now = self.times.start[op]
        ins = [self.place(v).buffer for v in op.operands]
        reused: set[Storage] = set()
        outs = [self.destination(op, v, reused).buffer for v in op.results]
        scratch = [self.fresh(t, now, now, "scratch").buffer for t in op.scratch]
        read = {self.places[v].storage for v in op.operands}
        if not read.isdisjoint([self.places[v].storage for v in op.results]):
            self.overwriting.add(op.callee)
        self.b.emit(Call, *ins, *outs, *scratch, callee=op.callee, dims=op.dims)

    def host(self, op: Op) -> None:
        """Have the runtime evaluate an op that has no kernel."""
        if not hasattr(type(op), "evaluate") or op.regions:
            raise UnsupportedError(
                "E0431", f"'{op.name}' can be neither compiled nor run by the host", where=op.loc
            )
        name = f"host{len(self.host_steps)}.{op.name}"
        self.host_steps[name] = op
        ins = [self.place(v).buffer for v in op.operands if v is not None]
        outs = [self.destination(op, v, set()).buffer for v in op.results]
        found = sorted(set().union(*[symbols_of(d) for v in (*ins, *outs) for d in v.buffer.shape]))
        self.b.emit(HostCall, *ins, *outs, callee=name, dims=[sym(s) for s in found])

    def destination(self, op: Op, value: Value, reused: set[Storage]) -> Place:
        """Where a result is written."""
        now, dies = self.times.start[op], self.times.dies(value)
        place = self.homes.get(value)
        if place is None and isinstance(op, Launch):
            place = self._over_input(op, value, reused)
        if place is None:
            place = self.fresh(value.type, now, dies, value.name)
        place.storage.need(now, dies)
        self.places[value] = place
        return place

    def _over_input(self, op: Launch, value: Value, reused: set[Storage]) -> Place | None:
        """The memory of an input that dies here and that the kernel may overwrite."""
        for operand in op.operands:
            place = self.place(operand)
            storage = place.storage
            if storage.kind != "arena" or storage.pinned or storage in reused or not place.whole:
                continue
            if storage.bytes == bytes_of(value.type) and self.may_take(value, root(operand)):
                if self.times.dies(root(operand)) == self.times.start[op]:
                    reused.add(storage)
                    return self.memory.show(storage, value.type)
        return None

    # Copies --------------------------------------------------------------------------------------

    def copy(self, source: Place, target: Place, why: str) -> None:
        """Copy all bytes of a value; reported."""
        size = bytes_of(target.buffer.type)
        bytes_ = BufferType(u8, (size,))
        ends = [
            self.memory.show(p.storage, bytes_, p.offset, self.b.block).buffer
            for p in (source, target)
        ]
        self.b.emit(Call, *ends, callee=COPY, dims=(size,))
        self._copied = True
        self.copies.append(
            f"{size} bytes from {source.storage.name} to {target.storage.name}: {why}"
        )

    def copy_all(self, pairs: Sequence[tuple[Place, Place]], now: int, why: str) -> None:
        """Copies that all read before any writes; a cycle goes through new memory."""
        pending = [(s, t) for s, t in pairs if s.storage is not t.storage or s.offset != t.offset]
        while pending:
            read = [s.storage for s, _ in pending]
            free = [
                p for p in pending if read.count(p[1].storage) == (p[0].storage is p[1].storage)
            ]
            if free:
                self.copy(*free[0], why)
                pending.remove(free[0])
                continue
            source, target = pending[0]
            aside = self.fresh(source.buffer.type, now, now)
            self.copy(source, aside, "values that change places")
            pending[0] = aside, target

    def finish(self, op: Return) -> None:
        """Copy the results that were not made in place."""
        replaced = {r for _, r in self.main.state}
        pairs = [(k, (self.place(v), self.results[k])) for k, v in enumerate(op.operands)]
        self.copy_all(
            [p for k, p in pairs if k not in replaced],
            self.times.end,
            "a result that is not made in place",
        )
        self.copy_all(
            [p for k, p in pairs if k in replaced],
            self.times.end,
            "a state still read when it changes",
        )

    # The result ----------------------------------------------------------------------------------

    def finished(self) -> Planned:
        """Settle the memory, prove it, and give the plan."""
        self.b.emit(Return)
        layout = self.memory.settle()
        verify_places(self.main, self.places, self.proved)
        kernels = [self._handed(f) for f in self.kernels.values()]
        if self._copied:
            kernels.append(copy_kernel())
        main = self.main
        return Planned(
            module=Module.make([*kernels, self.func]),
            inputs=tuple([(n, v.tensor) for n, v in zip(self.input_names, main.args, strict=True)]),
            results=tuple(
                [(n, v.tensor) for n, v in zip(self.result_names, main.returned, strict=True)]
            ),
            state=tuple(main.state),
            weights=tuple(self.memory.blobs),
            weight_bytes=self.memory.weight_bytes,
            layout=layout,
            buffers=tuple([self._row(s) for s in self.memory.storages]),
            copies=tuple(self.copies),
            overwriting=frozenset(self.overwriting),
            host_steps=self.host_steps,
        )

    def _handed(self, kernel: Func) -> Func:
        """The kernel itself, out of its module, or a copy."""
        if not self.consume or kernel.block is None:
            return kernel.copy()
        kernel.block.remove(kernel)
        return kernel

    def _row(self, storage: Storage) -> Buffer:
        """The row of the report; what is not in the arena is there all the time."""
        always = storage.kind != "arena"
        first, last = (0, self.times.end) if always else (storage.first, storage.last)
        return Buffer(storage.name, storage.kind, storage.offset, storage.bytes, first, last)


def _dense(value: Value) -> TensorType:
    """The type of an argument or result, which must be a tensor of known rank."""
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.shape is None or type_.dtype.kind == "string":
        raise UnsupportedError("E0430", f"values of type {type_} have no memory in a plan")
    return type_


def copy_kernel() -> Func:
    """The kernel that copies n bytes."""
    n = sym("n")
    kernel = Func.make(COPY, [BufferType(u8, (n,))] * 2, ["source", "target"], kind="kernel")
    loop = Builder(kernel.body).insert(For.make("i", n))
    b = Builder(loop.body)
    b.emit(
        Store, b.emit(Load, kernel.args[0], index=(sym("i"),)), kernel.args[1], index=(sym("i"),)
    )
    Builder(kernel.body).emit(Return)
    return kernel


__all__ = ["COPY", "Buffer", "Planned", "Planner", "copy_kernel", "plan"]
