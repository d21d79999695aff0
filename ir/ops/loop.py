"""The kernel level: loops, buffers, loads and stores with quasi-affine indices, and what hardware
adds.

Scalar arithmetic at this level is the elementwise ops themselves on scalars and vectors.  Loop
variables are symbols (`For.var`), unique in a kernel, and index expressions are attributes over
them: substituting an expression for a symbol is all that a schedule step does to an access.  Loops
carry no SSA values; what passes from one iteration to the next lives in a buffer (space `register`
becomes registers).

A memory access may be a vector: then `lane` names the symbol that runs over the lanes (0 ..
lanes-1), and index and guard still contain it.  Lane-dependent guards mask lanes. Imports: the
core, types, dims.
"""

from __future__ import annotations

from ..core import Any_, Block, Bool, Int, Op, Value, attr, operand, region, variadic
from ..dims import DimLike
from ..errors import Error
from ..types import BufferType, DType, Type, VectorType, boolean, element, i64

STATUS_OK = 0
STATUS_INDEX = 1
"""An index read from data is out of its range."""
STATUS_SHAPE = 2
"""A shape known only at run time contradicts the model."""
STATUS_ARENA = 3
"""The arena is too small or misaligned."""

KINDS = (
    "serial",
    "parallel",
    "vector",
    "unroll",
    "pipeline",
    "gpu.block",
    "gpu.warp",
    "gpu.lane",
    "gpu.thread",
)


class For(Op, name="loop.for"):
    """Runs `body` for the symbol `var` from `lo` to `lo + extent - 1`.

    `kind` says how; `reduction` marks a declared reduction, whose order schedules may change.
    """

    pure = False
    var = attr(str)
    extent = attr(object)
    lo = attr(object, 0)
    kind = attr(str, "serial")
    reduction = attr(bool, False)
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return ()

    @classmethod
    def make(
        cls,
        var: str,
        extent: DimLike,
        kind: str = "serial",
        lo: DimLike = 0,
        reduction: bool = False,
    ) -> For:
        """A loop with an empty body."""
        return cls(var=var, extent=extent, lo=lo, kind=kind, reduction=reduction, regions=[Block()])


class If(Op, name="loop.if"):
    """Runs `body` where every expression of `where` is at least zero."""

    pure = False
    where = attr(tuple)
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return ()


class When(Op, name="loop.when"):
    """Runs `then` or `otherwise` by a scalar computed at run time."""

    pure = False
    condition = operand(Bool)
    then = region()
    otherwise = region()

    def result_types(self) -> tuple[Type, ...]:
        return ()


class While(Op, name="loop.while"):
    """Runs `before`, which yields a scalar bool, and while it is true `body`; `var` counts the
    rounds.
    """

    pure = False
    var = attr(str)
    before = region()
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Alloc(Op, name="loop.alloc"):
    """Memory that lives until the end of the enclosing block; its content is undefined."""

    pure = False
    label = attr(str, "")
    type = attr(BufferType, implied=True)

    def result_types(self) -> tuple[Type, ...]:
        return (self.type,)


class View(Op, name="loop.view"):
    """The memory of `base` from byte `offset` on, seen as another buffer type.  No copy."""

    base = operand(Any_)
    offset = attr(object, 0)
    type = attr(BufferType, implied=True)

    def result_types(self) -> tuple[Type, ...]:
        return (self.type,)


class Load(Op, name="loop.load"):
    """Element `index` of the buffer; `fill` where an expression of `where` is negative.

    With `lane`, `lanes` elements at once: a vector.
    """

    source = operand(Any_)
    index = attr(tuple)
    where = attr(tuple, ())
    fill = attr(object, None)
    lane = attr(str, "")
    lanes = attr(int, 0)

    def result_types(self) -> tuple[Type, ...]:
        dtype = element(self.source.type)
        return (VectorType(dtype, self.lanes) if self.lane else dtype,)


class Store(Op, name="loop.store"):
    """Writes a scalar (or, with `lane`, a vector) at `index`; nothing where an expression of
    `where` is negative.
    """

    pure = False
    value = operand(Any_)
    target = operand(Any_)
    index = attr(tuple)
    where = attr(tuple, ())
    lane = attr(str, "")
    stream = attr(bool, False, doc="past the caches: nobody reads it soon, and vectors are aligned")

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Aligned(Op, name="loop.aligned"):
    """Whether the buffer begins at a multiple of `bytes`."""

    source = operand(Any_)
    bytes = attr(int, 64)

    def result_types(self) -> tuple[Type, ...]:
        return (boolean,)


class Fence(Op, name="loop.fence"):
    """Streamed stores of this thread become visible to others before anything it does later."""

    pure = False

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Prefetch(Op, name="loop.prefetch"):
    """Asks for the cache line of an element that will be read (or written) soon; never fails,
    changes nothing.

    The element may lie outside of the buffer.
    """

    pure = False
    source = operand(Any_)
    index = attr(tuple)
    write = attr(bool, False)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class IndexValue(Op, name="loop.index"):
    """The value of an index expression as a scalar (with `lane`, as a vector)."""

    value = attr(object)
    lane = attr(str, "")
    lanes = attr(int, 0)
    dtype = attr(DType, i64)

    def result_types(self) -> tuple[Type, ...]:
        return (VectorType(self.dtype, self.lanes) if self.lane else self.dtype,)


class Bind(Op, name="loop.bind"):
    """From here to the end of the block, `symbol` stands for an integer computed at run time.

    The kernel fails with `STATUS_INDEX` unless 0 <= value < extent.  The one escape from affine
    indices.
    """

    pure = False
    value = operand(Int)
    symbol = attr(str)
    extent = attr(object)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Fail(Op, name="loop.fail"):
    """Ends the kernel with this status."""

    pure = False
    status = attr(int)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Splat(Op, name="loop.splat"):
    """A vector with the scalar in every lane."""

    x = operand(Any_)
    lanes = attr(int)

    @staticmethod
    def infer(x: DType, lanes: int) -> Type:
        return VectorType(x, lanes)


class ReduceLanes(Op, name="loop.reduce_lanes"):
    """All lanes of a vector combined into a scalar, pairwise halves.

    `combiner` is add, mul, max, min or larger.
    """

    x = operand(Any_)
    combiner = attr(str)

    @staticmethod
    def infer(x: VectorType, combiner: str) -> Type:
        return x.dtype


class TransposeLanes(Op, name="loop.transpose_lanes"):
    """Vector k of the results holds lane k of every row, in order.

    C1: the rows are vectors of one type.  C2: their number is a power of two.
    """

    rows = variadic(Any_)

    @staticmethod
    def infer(*rows: VectorType) -> tuple[Type, ...]:
        count = len(rows)
        if not count or count & (count - 1):
            raise Error("E0253", f"transpose_lanes (C2): {count} rows are no power of two")
        if not isinstance(rows[0], VectorType) or any([row is not rows[0] for row in rows]):
            raise Error("E0253", "transpose_lanes (C1): the rows are not vectors of one type")
        return (VectorType(rows[0].dtype, count),) * rows[0].lanes


class Call(Op, name="loop.call"):
    """Calls a kernel on buffers; `dims` are values for its extent symbols, in sorted order of their
    names.

    A status other than ok ends the caller with it.
    """

    pure = False
    args = variadic(Any_)
    callee = attr(str)
    dims = attr(tuple, ())

    def result_types(self) -> tuple[Type, ...]:
        return ()


class HostCall(Op, name="loop.host_call"):
    """A step outside native code: the runtime evaluates the host function `callee` on these
    buffers.
    """

    pure = False
    args = variadic(Any_)
    callee = attr(str)
    dims = attr(tuple, ())

    def result_types(self) -> tuple[Type, ...]:
        return ()


class CallInstr(Op, name="loop.call_instr"):
    """One hardware instruction: its operands' addresses are `index[k]` in buffer k; see
    ir/ops/instr.py.
    """

    pure = False
    args = variadic(Any_)
    instr = attr(str)
    index = attr(tuple, ())

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Barrier(Op, name="loop.barrier"):
    """All threads of the enclosing gpu.block wait for each other."""

    pure = False
    scope = attr(str, "block")

    def result_types(self) -> tuple[Type, ...]:
        return ()


class AsyncCopy(Op, name="loop.async_copy"):
    """Starts copying `count` elements; the target is undefined until the `wait` that covers its
    group.
    """

    pure = False
    source = operand(Any_)
    target = operand(Any_)
    source_index = attr(tuple)
    target_index = attr(tuple)
    count = attr(int, 1)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Commit(Op, name="loop.commit"):
    """Closes the group of asynchronous copies started since the last commit."""

    pure = False

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Wait(Op, name="loop.wait"):
    """Waits until at most `pending` committed groups are unfinished."""

    pure = False
    pending = attr(int, 0)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Process(Op, name="loop.process"):
    """A dataflow process: runs at the same time as its sibling processes, which it meets only in
    streams.
    """

    pure = False
    label = attr(str)
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Push(Op, name="loop.push"):
    """Appends a scalar to a stream (a buffer in space `stream` whose shape is its depth); waits
    while full.
    """

    pure = False
    value = operand(Any_)
    stream = operand(Any_)

    def result_types(self) -> tuple[Type, ...]:
        return ()


class Pop(Op, name="loop.pop"):
    """Takes the oldest scalar of a stream; waits while empty."""

    pure = False
    stream = operand(Any_)

    def result_types(self) -> tuple[Type, ...]:
        return (element(self.stream.type),)


def accessed(op: Op) -> Value | None:
    """The buffer that a load or store touches."""
    if isinstance(op, Load):
        return op.source
    return op.target if isinstance(op, Store) else None


__all__ = [
    "KINDS",
    "STATUS_ARENA",
    "STATUS_INDEX",
    "STATUS_OK",
    "STATUS_SHAPE",
    "Aligned",
    "Alloc",
    "AsyncCopy",
    "Barrier",
    "Bind",
    "Call",
    "CallInstr",
    "Commit",
    "Fail",
    "Fence",
    "For",
    "HostCall",
    "If",
    "IndexValue",
    "Load",
    "Pop",
    "Prefetch",
    "Process",
    "Push",
    "ReduceLanes",
    "Splat",
    "Store",
    "TransposeLanes",
    "View",
    "Wait",
    "When",
    "While",
    "accessed",
]
