"""One way in for every operation: evaluated and recorded at once, or appended to a trace.

`apply` is the only place where an op of the IR meets tensors.  Eager, it evaluates by the class's
own numpy `evaluate` and remembers a `Node`: the op, its operands and their arrays.  A node points
to what it was made from and nothing points forward, so dropping the last result frees everything.
May import: ir, its siblings.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...ir.core import Array, Loc, Op, Value, freeze
from ...ir.dims import Dim
from ...ir.errors import Error
from ...ir.ops.elementwise import _Elementwise
from ...ir.types import DType, Shape, TensorType, Type, f32, from_numpy, i64

if TYPE_CHECKING:
    from .tensor import Tensor
    from .tracing import Trace

PACKAGE = str(Path(__file__).parents[2]) + "/"
"""Frames of files in this folder are ours; the user's location is the first one outside."""

_USERS = tuple([PACKAGE + part for part in ("tests/", "examples/", "tools/demo.py")])
"""What stands in the folder of the package and is a user all the same."""

_MOST_CALLS = 20_000


class _State(threading.local):
    """What this thread is doing: the trace that takes ops, whether ops are recorded."""

    trace: Trace | None = None
    recording: bool = True

    def __init__(self) -> None:
        self.calls: list[Any] = []
        """The modules whose `forward` runs now, outermost first."""


STATE = _State()


class Base:
    """What a tensor is made of; `Tensor` adds the methods.

    An eager tensor holds `array`, a traced one `value` and the `trace` it belongs to.  `node` and
    `index` say what it is a result of (None for a leaf).
    """

    __slots__ = (
        "__weakref__", "array", "grad", "index", "node", "requires_grad", "trace", "type", "value",
    )  # fmt: skip
    array: Array
    type: TensorType
    value: Value | None
    trace: Trace | None
    node: Node | None
    index: int
    requires_grad: bool
    grad: Tensor | None

    made_as: ClassVar[Any] = None
    """The class that results get: the first class derived from this one."""
    is_state: ClassVar[bool] = False
    """Parameters and buffers: a trace takes them as named inputs, not as constants."""
    symbolic: ClassVar[bool] = False
    """Whether it has a type alone, and notes what is done with it (see graph.py)."""

    def __init_subclass__(cls) -> None:
        if Base.made_as is None:
            Base.made_as = cls


class Call:
    """An op class with attributes and operand types: all that is known before there are arrays."""

    __slots__ = (
        "attrs", "cls", "gives", "named", "quiet", "reads", "single", "template", "types",
    )  # fmt: skip
    template: Op | None
    reads: tuple[Value, ...]

    def __init__(self, cls: type[Op], op: Op) -> None:
        self.template, self.reads = None, ()
        self.cls = cls
        self.attrs = op.attrs
        self.named: dict[str, Any] = op.attributes
        self.types = tuple([r.type for r in op.results])
        self.single = len(self.types) == 1
        self.quiet = issubclass(cls, _Elementwise)  # these silence numpy themselves
        self.gives = not cls.no_gradient and any([_is_float(t) for t in self.types])

    @classmethod
    def of(cls, op: type[Op], attrs: tuple[Any, ...], types: tuple[Type, ...]) -> Call:
        """A call of an op that lives in recordings only: no `evaluate` is asked for."""
        made = cls.__new__(cls)
        made.cls, made.attrs, made.named, made.types = op, attrs, {}, types
        made.single, made.quiet, made.gives = len(types) == 1, True, True
        made.template, made.reads = None, ()
        return made

    @classmethod
    def region(cls, op: Op, reads: tuple[Value, ...]) -> Call:
        """A call of an op with regions, to be copied; `reads` are all values that it reads."""
        made = cls.of(type(op), op.attrs, tuple([r.type for r in op.results]))
        made.template, made.reads = op, reads
        return made


class Node:
    """One recorded op: the call, the tensors it read with their arrays, and where it was made."""

    __slots__ = ("arrays", "call", "loc", "operands")

    def __init__(
        self,
        call: Call,
        operands: tuple[Tensor | None, ...],
        arrays: tuple[Array | None, ...],
        loc: Loc,
    ) -> None:
        self.call, self.operands, self.arrays, self.loc = call, operands, arrays, loc


_CALLS: dict[Any, Call] = {}
_LOCS: dict[tuple[CodeType, int], Loc] = {}


def _is_float(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype.is_float


def here() -> Loc:
    """The user's line: that of the innermost frame outside the package."""
    frame: Any = sys._getframe(1)
    last = frame
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if _is_users(file) and file != contextlib.__file__:
            break
        last, frame = frame, frame.f_back
    frame = frame or last
    key = (frame.f_code, frame.f_lineno)
    known = _LOCS.get(key)
    if known is None:
        if len(_LOCS) > _MOST_CALLS:
            _LOCS.clear()
        name = frame.f_code.co_qualname.removeprefix("<module>").split("<locals>.")[-1]
        known = _LOCS[key] = Loc(name, frame.f_code.co_filename, frame.f_lineno)
    return known


def line_of(error: BaseException) -> Loc | None:
    """The user's line in the traceback of an error: the innermost outside the package."""
    found, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_users(code.co_filename):
            found = Loc(code.co_qualname, code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _is_users(file: str) -> bool:
    return not file.startswith(PACKAGE) or file.startswith(_USERS)


def apply(cls: type[Op], *operands: Any, **attrs: Any) -> Any:
    """The result of the op (or the tuple of results) on these tensors; None is an absent operand.

    Arrays and Python numbers are made tensors.  Types are the op's own concern: there is no
    promotion here.  An op of one's own is a class with `infer`, `evaluate`, `vjp` and, to be
    compiled, `decompose`::

        class TimesCube(Op):
            x = operand(Float)
            y = operand(Float)

            @staticmethod
            def infer(x, y):
                return x

            @staticmethod
            def evaluate(x, y):
                return x * y**3

            def vjp(self, b, g):
                square = b.mul(self.y, self.y)
                ...

        z = nn.apply(TimesCube, x, y)

    Errors: those of the op's `infer`, with the user's line.
    """
    given = [x if x is None or isinstance(x, Base) else as_tensor(x) for x in operands]
    trace = STATE.trace
    if trace is not None and trace.takes(given, attrs):
        return trace.emit(cls, given, attrs)
    types: list[Type | None] = []
    arrays: list[Array | None] = []
    needs = False
    for x in given:
        if x is None:
            types.append(None)
            arrays.append(None)
            continue
        if x.value is not None:
            if x.symbolic:
                return x.applied(cls, given, attrs)  # type: ignore[attr-defined]
            raise escaped(x)
        types.append(x.type)
        arrays.append(x.array)
        needs = needs or x.requires_grad
    call = _call(cls, types, attrs)
    if call.quiet:
        found = cls.evaluate(*arrays, **call.named)
    else:
        found = _evaluated(call, arrays)
    node = None
    if needs and call.gives and STATE.recording:
        node = Node(call, tuple(given), tuple(arrays), here())  # type: ignore[arg-type]
    if call.single:
        return result(found, call.types[0], node, 0)
    return tuple([result(f, t, node, k) for k, (f, t) in enumerate(zip(found, call.types))])


one: Callable[..., Tensor] = apply
"""`apply` of an op that has one result."""


def _evaluated(call: Call, arrays: Sequence[Array | None]) -> Any:
    with np.errstate(all="ignore"):
        try:
            return call.cls.evaluate(*arrays, **call.named)
        except Error as error:
            error.where = error.where or f"op '{call.cls.name}' at {here()}"
            raise


def _call(cls: type[Op], types: Sequence[Type | None], attrs: Mapping[str, Any]) -> Call:
    """The prepared call for these types and attributes, from memory where it can be."""
    key = (cls, *types, *attrs.items()) if attrs else (cls, *types)
    try:
        known = _CALLS.get(key)
    except TypeError:  # a list among the attributes
        return _call(cls, types, {name: freeze(value) for name, value in attrs.items()})
    if known is None:
        stand_ins = [None if t is None else Value(t, None, 0) for t in types]
        known = Call(cls, cls(*stand_ins, loc=here(), **attrs))  # type: ignore[arg-type]
        if cls.memoise:
            if len(_CALLS) > _MOST_CALLS:
                _CALLS.clear()
            _CALLS[key] = known
    return known


def result(found: Any, type: Type, node: Node | None, index: int) -> Tensor:
    """A tensor of what `evaluate` gave; a type with open extents gets the array's."""
    made: Tensor = Base.made_as.__new__(Base.made_as)
    array = found if found.__class__ is np.ndarray else np.asarray(found)
    if not isinstance(type, TensorType) or (type.shape != array.shape):
        type = TensorType(_dtype_of(type, array), array.shape)
    made.array = array
    made.type = type
    made.value = made.trace = made.grad = None
    made.index = index
    made.node = node if node is not None and type.dtype.is_float else None
    made.requires_grad = made.node is not None
    return made


def _dtype_of(type: Type, array: Array) -> DType:
    return type.dtype if isinstance(type, TensorType) else from_numpy(array.dtype)


def leaf(array: Array, type: TensorType | None = None, requires_grad: bool = False) -> Tensor:
    """An eager tensor that is the result of nothing; the array is shared."""
    made = result(array, type or TensorType(from_numpy(array.dtype), array.shape), None, 0)
    made.requires_grad = requires_grad
    return made


def traced(value: Value, trace: Trace) -> Tensor:
    """The tensor that stands for a value of a trace."""
    made: Tensor = Base.made_as.__new__(Base.made_as)
    made.type = value.tensor
    made.value, made.trace = value, trace
    made.node = made.grad = None
    made.index = 0
    made.requires_grad = False
    return made


def as_tensor(x: Any, dtype: DType | None = None) -> Tensor:
    """`x` as a tensor: arrays are shared, Python floats are f32, integers i64 unless `dtype` says.

    E0610 for what is no array of numbers.
    """
    if isinstance(x, Base):
        return x  # type: ignore[return-value]
    if isinstance(x, Dim):
        return dim_tensor(x, dtype or i64)
    array = as_array(x, dtype)
    return leaf(array)


def dim_tensor(x: Dim, dtype: DType) -> Tensor:
    """The value of a symbolic extent, in the trace that knows it."""
    if STATE.trace is None:
        raise Error("E0616", f"the extent {x} has no value outside the trace it belongs to")
    return STATE.trace.dim(x, dtype)


def as_array(x: Any, dtype: DType | None = None) -> Array:
    """`x` as an array of an element type that we have; E0610 otherwise."""
    try:
        if dtype is not None:
            return np.asarray(_plain(x), dtype.np)
        array = np.asarray(_plain(x))
        if not hasattr(x, "dtype"):
            if array.dtype == np.float64:
                array = array.astype(f32.np)
            elif array.dtype.kind == "O":
                raise TypeError(f"it holds {type(x).__name__}")
        from_numpy(array.dtype)
        return array
    except (TypeError, ValueError, OverflowError, Error) as error:
        raise Error(
            "E0610",
            f"a {type(x).__name__} is no tensor" + (f" of {dtype}" if dtype is not None else ""),
            where=here(),
            details=(str(getattr(error, "message", error)).splitlines()[0][:200],),
        ) from None


def _plain(x: Any) -> Any:
    """Tensors of other frameworks as arrays; lists that hold tensors as lists of arrays."""
    if isinstance(x, (list, tuple)) and any([isinstance(e, Base) for e in x]):
        return np.stack([np.asarray(e) for e in x])
    if hasattr(x, "detach") and hasattr(x, "cpu"):
        return _from_torch(x.detach().cpu())
    return x


def _from_torch(x: Any) -> Array:
    """A torch tensor's array; numpy has no bfloat16 of its own, so that goes by its bits."""
    if str(x.dtype) == "torch.bfloat16":
        bits = x.float().numpy()
        return np.asarray(bits, DType("bf16").np)
    return np.asarray(x.numpy())


def escaped(x: Base) -> Error:
    """E0616: a traced tensor where values are needed or in a foreign trace."""
    return Error(
        "E0616",
        f"a traced tensor {x.type} is used outside its trace",
        where=here(),
        hint="return it from the traced function; do not keep it in an attribute or a list",
    )


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside, nothing is recorded: results have no gradient.  Also a decorator."""
    before = STATE.recording
    STATE.recording = False
    try:
        yield
    finally:
        STATE.recording = before


@contextlib.contextmanager
def enable_grad() -> Iterator[None]:
    """Inside, ops are recorded, also within `no_grad`."""
    before = STATE.recording
    STATE.recording = True
    try:
        yield
    finally:
        STATE.recording = before


def has_dims(shape: Shape) -> bool:
    """Whether an extent is symbolic."""
    return any([not isinstance(e, int) for e in shape])


__all__ = [
    "STATE", "Base", "Call", "Node", "apply", "as_array", "as_tensor", "dim_tensor", "enable_grad",
    "escaped", "has_dims", "here", "leaf", "line_of", "no_grad", "one", "result", "traced",
]  # fmt: skip
