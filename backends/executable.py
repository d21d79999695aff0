"""Running a compiled plan from Python: inputs checked, dims bound, one native call, outputs new.

`Program` is what the compiled code does not say itself: names, types, memory.  `Executable` ties it
to an entry point with the ABI of ir/kernel_abi.py, wherever that comes from (LLVM, a C compiler, an
archive). A run may happen in several threads at once: each thread has its own arena. May import:
ir, passes, arrays.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.core import Op
from ..ir.dims import Dim, DimLike, coefficient, evaluate
from ..ir.errors import Error
from ..ir.interpret import bound, unordered
from ..ir.kernel_abi import dim_parameters
from ..ir.ops.loop import STATUS_INDEX, STATUS_OK, STATUS_SHAPE
from ..ir.types import Shape, TensorType
from ..passes.memory import Item, Layout
from ..passes.plan import Planned
from .arrays import Array, address, aligned, empty, is_packed, pack, stored_bytes, unpack

STATUS_HOST = 64
"""A host step raised; the error itself waits in the frame."""

_MOST_FRAMES = 32
"""Sets of input shapes that one thread remembers."""

Field = tuple[str, TensorType]
HostStep = Callable[[Sequence[Array], Mapping[str, int]], Sequence[Array]]


@dataclass(frozen=True)
class Program:
    """The face of a plan.  `dims` names the entry's i64 parameters; `state` pairs (input, result).

    `host_steps` are (name, operand types, result types); `calls` counts kernel calls.
    """

    inputs: tuple[Field, ...]
    results: tuple[Field, ...]
    state: tuple[tuple[int, int], ...]
    dims: tuple[str, ...]
    layout: Layout
    weight_bytes: int
    kernels: tuple[str, ...]
    calls: int
    copies: tuple[str, ...] = ()
    host_steps: tuple[tuple[str, tuple[TensorType, ...], tuple[TensorType, ...]], ...] = ()

    @classmethod
    def of(cls, planned: Planned) -> Program:
        """The face of a planned module."""
        steps = []
        for name, op in planned.host_steps.items():
            operands = [v.tensor for v in op.operands if v is not None]
            steps.append((name, tuple(operands), tuple([r.tensor for r in op.results])))
        return cls(
            inputs=planned.inputs,
            results=planned.results,
            state=planned.state,
            dims=dim_parameters(planned.func),
            layout=planned.layout,
            weight_bytes=planned.weight_bytes,
            kernels=tuple([f.sym for f in planned.kernels]),
            calls=sum([op.name == "loop.call" for op in planned.func.walk()]),
            copies=planned.copies,
            host_steps=tuple(steps),
        )


class Frame:
    """What one thread needs for runs with one set of input shapes; its arena is the thread's."""

    def __init__(
        self,
        program: Program,
        dims: dict[str, int],
        shapes: Sequence[tuple[int, ...]],
        weights: int,
    ) -> None:
        """Evaluate every shape and lay out the argument array; the arena comes with `take`."""
        count = len(program.inputs) + len(program.results) - len(program.state) + 2
        self.dims = dims
        self.values = (ctypes.c_int64 * max(1, len(program.dims)))(*[dims[n] for n in program.dims])
        self.args = (ctypes.c_void_p * count)()
        self.needs = max(1, evaluate(program.layout.arena, dims))
        self.args[count - 1] = weights
        self.args_at = ctypes.addressof(self.args)
        self.dims_at = ctypes.addressof(self.values)
        replaced = {r for _, r in program.state}
        self.outputs = [
            (k, tuple([evaluate(e, dims) for e in t.shape]), t.dtype)
            for k, (_, t) in enumerate(program.results)
            if k not in replaced
        ]
        self.plain = not any([is_packed(t) for _, _, t in self.outputs])
        self.checks = [
            (t.dtype.np, shape) for (_, t), shape in zip(program.inputs, shapes, strict=True)
        ]
        self.states = tuple([k for k, _ in program.state])
        others = set(range(len(self.checks))) - set(self.states)
        self.open = sorted(others)
        self.open_checks = [self.checks[k] for k in self.open]
        self.held: list[tuple[int, weakref.ref[Array]]] = []
        """The state of the last run, where its arrays were used as they came."""

    def take(self, arena: Array) -> None:
        """Work in this arena."""
        self.args[len(self.args) - 2] = address(arena)

    def hold(self, given: Sequence[Any], used: Sequence[Array]) -> None:
        """Remember the state just given, if no array of it had to be copied."""
        same = all([given[k] is used[k] for k in self.states])
        self.held = [(k, weakref.ref(used[k])) for k in self.states] if same else []

    def keeps(self, given: Sequence[Any]) -> bool:
        """Whether the state is that of the last run, and the rest is as `fits` wants it."""
        for k, ref in self.held:
            kept = ref()
            if kept is None or kept is not given[k] or not kept.flags.writeable:
                return False
        return fit([given[k] for k in self.open], self.open_checks)

    def fits(self, given: Sequence[Any]) -> bool:
        """Whether these are dense arrays of the types and shapes that the frame was made for."""
        return fit(given, self.checks)


def fit(arrays: Sequence[Any], checks: Sequence[tuple[Any, tuple[int, ...]]]) -> bool:
    """Whether these are dense arrays of the numpy types (the very objects) and shapes in `checks`.

    Runs on every call of a program: the loop is in here, not around it.
    """
    for x, (dtype, shape) in zip(arrays, checks):
        if (
            type(x) is not np.ndarray
            or x.dtype is not dtype
            or x.shape != shape
            or not x.flags.c_contiguous
        ):
            return False
    return True


class Executable:
    """A compiled plan.  `run` takes a dict or a list of arrays and gives the list of results.

    Errors: E0501 missing or unknown input, E0502 shapes that contradict the model, E0503 wrong
    element type or rank, E0506 an index read from data is out of range, E0507 any other failure in
    native code.
    """

    def __init__(
        self,
        program: Program,
        entry: int,
        weights: Array,
        *,
        keep: Any = None,
        context: Sequence[int] = (),
        host: Mapping[str, HostStep] | None = None,
    ) -> None:
        """`entry` is the address of `NAME.entry`; `context` the fields of ctx; `keep` is kept
        alive.
        """
        self.program = program
        self.weights = weights
        self.keep = keep
        self.names = tuple([n for n, _ in program.inputs])
        self._local = threading.local()
        self._entry = ctypes.CFUNCTYPE(
            ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
        )(entry)
        self._host = dict(host or {})
        fields = [*context, *[0] * (2 - len(context))]
        if program.host_steps and not fields[1]:
            self._callback = HOST_CALL(self._host_call)
            fields[1] = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        self._context = (ctypes.c_void_p * len(fields))(*fields)
        self._context_at = ctypes.addressof(self._context)
        self._replaced = tuple(program.state)
        self._packed = any([is_packed(t.dtype) for _, t in program.inputs])
        self._unusual = bool(self._replaced) or self._packed

    # Running -------------------------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
        """One array per input in order; gives the result, or a tuple of several."""
        results = self.run(inputs)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, inputs: Mapping[str, Any] | Sequence[Any]) -> list[Array]:
        """Run on a dict by name or a sequence in order; the results in order, newly made.

        The result of a `state` input is that input's own array, changed in place (a copy, where the
        array given is not writable or not dense).
        """
        given = self._ordered(inputs)
        frame: Frame | None = getattr(self._local, "frame", None)
        if frame is not None and frame.held and frame.keeps(given):
            args = frame.args
            for k in frame.open:
                args[k] = address(given[k])
        else:
            frame, given = self._given(frame, given)
            args = frame.args
        at = len(given)
        outs = []
        for _, size, dtype in frame.outputs:
            out = empty(size, dtype.np) if frame.plain else _room(size, dtype)
            args[at] = address(out)
            outs.append(out)
            at += 1
        status = self._entry(self._context_at, frame.args_at, frame.dims_at)
        if status != STATUS_OK:
            raise self._failed(status, frame)
        if frame.plain and not self._unusual:
            return outs
        return self._collect(frame, given, outs)

    def _given(self, frame: Frame | None, given: list[Any]) -> tuple[Frame, list[Any]]:
        """The frame for these inputs, their addresses in it, and the arrays that are used."""
        used = given
        if frame is None or not frame.fits(given):
            used = [self._accept(k, x) for k, x in enumerate(given)]
            frame = self._frame(used)
        at = 0
        for x in used:
            frame.args[at] = address(x)
            at += 1
        if self._unusual:
            used = self._prepare(frame, used)
            if not self._packed:
                frame.hold(given, used)
        return frame, used

    def _enter(self, frame: Frame) -> int:
        """The status of a run in a frame that is not this thread's own; host steps see that one."""
        if not self.program.host_steps:
            return int(self._entry(self._context_at, frame.args_at, frame.dims_at))
        mine = getattr(self._local, "frame", None)
        self._local.frame = frame
        try:
            return int(self._entry(self._context_at, frame.args_at, frame.dims_at))
        finally:
            self._local.frame = mine

    def _ordered(self, inputs: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
        """The inputs in the program's order; E0501 where one is missing or unknown."""
        names = self.names
        if type(inputs) is dict:  # the usual case, without the cost of asking for a Mapping
            if len(inputs) == len(names):
                try:
                    return [inputs[n] for n in names]
                except KeyError:
                    pass
            raise self._missing(inputs)
        if isinstance(inputs, (list, tuple)):
            if len(inputs) != len(names):
                raise self._missing(inputs)
            return list(inputs)
        if isinstance(inputs, Mapping):
            return self._ordered(dict(inputs))
        raise unordered(inputs, names)

    def _frame(self, given: Sequence[Array]) -> Frame:
        """This thread's frame for these shapes."""
        local = self._local
        shapes = tuple([x.shape for x in given])
        frames: dict[Any, Frame] = local.__dict__.setdefault("frames", {})
        frame = frames.get(shapes)
        if frame is None:
            frame = Frame(self.program, self._bind(given), shapes, address(self.weights))
            if len(frames) >= _MOST_FRAMES:
                frames.clear()
            frames[shapes] = frame
        if "arena" not in local.__dict__ or local.arena.size < frame.needs:
            local.arena = aligned(frame.needs)
        frame.take(local.arena)
        local.frame = frame
        return frame

    def _accept(self, k: int, x: Any) -> Array:
        """A dense array of the right type made of one input, or the error that says what is wrong
        with it.
        """
        name, type_ = self.program.inputs[k]
        dtype = type_.dtype
        if not isinstance(x, (np.ndarray, np.generic)):
            try:
                x = np.asarray(x, dtype.np)
            except (TypeError, ValueError, OverflowError) as error:
                raise Error(
                    "E0503", f"input '{name}' is no array of {dtype}", details=(str(error),)
                ) from None
        array: Array = np.asarray(x)
        found = f"found    {array.dtype}{list(array.shape)}"
        if array.dtype != dtype.np:
            raise Error(
                "E0503",
                f"input '{name}' has the wrong element type",
                details=(f"expected {type_}", found),
                hint=f"convert it with .astype('{dtype.np}')",
            )
        if array.ndim != type_.rank:
            raise Error(
                "E0503", f"input '{name}' has the wrong rank", details=(f"expected {type_}", found)
            )
        if type_.is_static and array.shape != type_.shape:
            raise Error(
                "E0502", f"input '{name}' has the wrong shape", details=(f"expected {type_}", found)
            )
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array).reshape(array.shape)
        return array

    def _missing(self, inputs: Mapping[str, Any] | Sequence[Any]) -> Error:
        """What is wrong with the number or the names of the inputs."""
        names = self.names
        wanted = f"the model takes the inputs {', '.join(names) or 'none'}"
        if not isinstance(inputs, Mapping):
            return Error(
                "E0501", f"{len(names)} inputs are needed, {len(inputs)} given", details=(wanted,)
            )
        missing = [n for n in names if n not in inputs]
        unknown = [str(n) for n in inputs if n not in names]
        said = [f"missing: {', '.join(missing)}"] * bool(missing) + [
            f"unknown: {', '.join(unknown)}"
        ] * bool(unknown)
        return Error(
            "E0501", "missing input" if missing else "unknown input", details=[*said, wanted]
        )

    def _bind(self, given: Sequence[Array]) -> dict[str, int]:
        """Values of the symbolic dims; E0502 names the input that contradicts."""
        known: dict[str, int] = {}
        said: dict[str, str] = {}
        fields = self.program.inputs
        for _ in range(2):
            for (name, type_), x in zip(fields, given, strict=True):
                for axis, (e, n) in enumerate(zip(type_.shape, x.shape, strict=True)):
                    _solve(e, n, known, said, f"axis {axis} of '{name}'")
        for (name, type_), x in zip(fields, given, strict=True):
            for axis, (e, n) in enumerate(zip(type_.shape, x.shape, strict=True)):
                want = evaluate(e, known)
                if want != n:
                    symbols = sorted(e.symbols) if isinstance(e, Dim) else []
                    details = [
                        f"expected {type_}",
                        f"found    {x.dtype}{list(x.shape)}: axis {axis} is {n}, not {want}",
                        *[f"{s} = {known[s]}, from {said[s]}" for s in symbols],
                    ]
                    raise Error("E0502", f"input '{name}' has the wrong shape", details=details)
        return known

    def _prepare(self, frame: Frame, given: Sequence[Array]) -> list[Array]:
        """The arrays to pass where some are packed, or are state that must be writable."""
        given = list(given)
        states = [k for k, _ in self._replaced]
        for k, (_, type_) in enumerate(self.program.inputs):
            if is_packed(type_.dtype):
                given[k] = pack(given[k], type_.dtype)
            elif k in states and not given[k].flags.writeable:
                given[k] = given[k].copy()
            frame.args[k] = address(given[k])
        return given

    def _collect(self, frame: Frame, given: Sequence[Array], outs: Sequence[Array]) -> list[Array]:
        """All results in order: new outputs, unpacked where needed, and the state that was
        replaced.
        """
        results: dict[int, Array] = {}
        for (k, shape, dtype), out in zip(frame.outputs, outs, strict=True):
            results[k] = unpack(out, dtype, shape) if is_packed(dtype) else out
        for param, result in self._replaced:
            if not self._packed:
                results[result] = given[param]
                continue
            type_ = self.program.inputs[param][1]
            shape = tuple([evaluate(e, frame.dims) for e in type_.shape])
            x = given[param]
            results[result] = unpack(x, type_.dtype, shape) if is_packed(type_.dtype) else x
        return [results[k] for k in range(len(results))]

    def _failed(self, status: int, frame: Frame) -> BaseException:
        """The error for a status."""
        raised = getattr(self._local, "error", None)
        if status == STATUS_HOST and raised is not None:
            self._local.error = None
            return raised  # type: ignore[no-any-return]
        if status == STATUS_INDEX:
            return Error(
                "E0506",
                "an index is out of range",
                hint="check the values of integer inputs that select elements",
            )
        if status == STATUS_SHAPE:
            return Error("E0502", "a shape known only at run time contradicts the model")
        return Error("E0507", f"the compiled program failed with status {status}")

    def _host_call(self, ctx: int, name: bytes, args: int, dims: int) -> int:
        """Evaluate a host step on the plan's own buffers."""
        try:
            key = name.decode()
            frame = self._local.frame
            _, operands, results = next(s for s in self.program.host_steps if s[0] == key)
            pointers = (ctypes.c_void_p * (len(operands) + len(results))).from_address(args)
            arrays = [_at(p, t, frame.dims) for p, t in zip(pointers, (*operands, *results))]
            made = self._host[key](
                [_read(a, t, frame.dims) for a, t in zip(arrays, operands)], frame.dims
            )
            for array, t, value in zip(arrays[len(operands) :], results, made, strict=True):
                array[...] = pack(value, t.dtype) if is_packed(t.dtype) else value
        except BaseException as error:
            self._local.error = error
            return STATUS_HOST
        return STATUS_OK

    # Facts ---------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Field, ...]:
        """(name, type) of each input."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Field, ...]:
        """(name, type) of each result."""
        return self.program.results

    @property
    def arena_bytes(self) -> DimLike:
        """Working memory of one run, an expression where sizes are symbolic."""
        return self.program.layout.arena

    def arena_for(self, **dims: int) -> tuple[int, int]:
        """(working memory, its lower bound) in bytes for these dims."""
        return evaluate(self.program.layout.arena, dims), self.program.layout.lower_bound(dims)

    @property
    def lower_bound(self) -> int:
        """The least working memory any placement needs (static shapes)."""
        return self.program.layout.lower_bound()

    def coverage(self) -> dict[str, Any]:
        """What runs where: kernels, calls, copies, and the steps that the host evaluates."""
        return {
            "kernels": len(self.program.kernels),
            "calls": self.program.calls,
            "copies": list(self.program.copies),
            "host_steps": [name for name, _, _ in self.program.host_steps],
        }


HOST_CALL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p
)


def _room(shape: Shape, dtype: Any) -> Array:
    """Memory for an output of any type."""
    if is_packed(dtype):
        return aligned(stored_bytes(dtype, int(np.prod(shape, dtype=np.int64))))  # type: ignore[arg-type]
    return empty(shape, dtype.np)  # type: ignore[arg-type]


def _solve(e: DimLike, found: int, known: dict[str, int], said: dict[str, str], where: str) -> None:
    """Learn the only unknown symbol of an extent."""
    if not isinstance(e, Dim):
        return
    unknown = [s for s in e.symbols if s not in known]
    if len(unknown) != 1:
        return
    parts = coefficient(e, unknown[0])
    if parts is None:
        return
    slope, rest = [evaluate(p, known) for p in parts]
    if slope and (found - rest) % slope == 0:
        known[unknown[0]] = (found - rest) // slope
        said[unknown[0]] = where


def _at(pointer: int | None, type_: TensorType, dims: Mapping[str, int]) -> Array:
    """The array of a plan's buffer, as stored."""
    shape = [evaluate(e, dims) for e in type_.shape]
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.ctypeslib.as_array(
        (ctypes.c_uint8 * stored_bytes(type_.dtype, count)).from_address(pointer or 0)
    )
    return raw if is_packed(type_.dtype) else raw.view(type_.dtype.np).reshape(shape)


def _read(array: Array, type_: TensorType, dims: Mapping[str, int]) -> Array:
    """A host step's operand: elements, not to be kept."""
    if not is_packed(type_.dtype):
        return array
    return unpack(array, type_.dtype, [evaluate(e, dims) for e in type_.shape])


def host_functions(ops: Mapping[str, Op]) -> dict[str, HostStep]:
    """The functions behind host steps: each op's own `evaluate`."""
    return {name: _evaluator(op) for name, op in ops.items()}


def _evaluator(op: Op) -> HostStep:
    def step(arrays: Sequence[Array], dims: Mapping[str, int]) -> Sequence[Array]:
        given = iter(arrays)
        full = [next(given) if v is not None else None for v in op.operands]
        made = type(op).evaluate(*full, **{k: bound(v, dims) for k, v in op.attributes.items()})
        return made if isinstance(made, (tuple, list)) else (made,)

    return step


__all__ = ["Executable", "Field", "Frame", "Item", "Program", "fit", "host_functions"]
