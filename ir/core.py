"""The core: values, ops, blocks, locations, and the class machinery from which every op is made.

One Python class is one operation, and its instance *is* the typed op.  A class declares its fields
with `operand`, `optional`, `variadic`, `attr` and `region`; from them come the constructor, the
builder method, the text syntax and the verifier.  A region is one block (there is no CFG), so
`Region` is `Block`.

Invariants: `operands` is a tuple of values (None for an absent optional one); `attrs` is a tuple of
frozen values in declared order; an op stands in at most one block; each value knows the ops that
use it.
Imports: types, dims, errors, fields (whose names it passes on).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from .dims import DimLike
from .errors import Error
from .fields import (
    Any_,
    Bool,
    Float,
    Int,
    Kind,
    Number,
    Plain,
    Real,
    Sample,
    Spec,
    attr,
    freeze,
    operand,
    optional,
    region,
    sample,
    variadic,
)
from .types import BufferType, TensorType, Type

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Loc:
    """Where an op came from: an ONNX node or a Python source line; every rewrite passes it on."""

    name: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.name} in {place}" if self.name and place else self.name or place


class Value:
    """An SSA value: `type`, the op (result) or block (argument) that owns it, and its index there.

    Users are held lazily: None, one op, or a dict of ops.
    """

    __slots__ = ("index", "name", "owner", "type", "uses")
    type: Type
    owner: Any
    index: int
    uses: Any
    name: str | None

    def __init__(self, type: Type, owner: Any, index: int, name: str | None = None) -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.uses = None
        self.name = name

    @property
    def users(self) -> tuple[Op, ...]:
        """The ops that use this value, each once, in order of first use."""
        uses = self.uses
        if uses is None:
            return ()
        return tuple(uses) if type(uses) is dict else (uses,)

    @property
    def op(self) -> Op | None:
        """The op this value is a result of; None for a block argument."""
        return self.owner if isinstance(self.owner, Op) else None

    @property
    def tensor(self) -> TensorType:
        """The type, known to be a tensor type."""
        return self.type  # type: ignore[return-value]

    @property
    def buffer(self) -> BufferType:
        """The type, known to be a buffer type."""
        return self.type  # type: ignore[return-value]

    def add_user(self, op: Op) -> None:
        uses = self.uses
        if uses is None:
            self.uses = op
        elif uses is not op:
            if type(uses) is dict:
                uses[op] = None
            else:
                self.uses = {uses: None, op: None}

    def drop_user(self, op: Op) -> None:
        uses = self.uses
        if uses is op:
            self.uses = None
        elif type(uses) is dict:
            uses.pop(op, None)
            if not uses:
                self.uses = None

    def replace_by(self, new: Value) -> None:
        """Make every user of this value use `new` instead."""
        uses = self.uses
        if uses is None:
            return
        for user in tuple(uses) if type(uses) is dict else (uses,):
            user.operands = tuple([new if v is self else v for v in user.operands])
            new.add_user(user)
        self.uses = None

    def __repr__(self) -> str:
        return f"<{self.name or 'value'} : {self.type}>"


OPS: dict[str, type[Op]] = {}
Grads = Sequence["Value | None"]
"""One cotangent per operand, None where there is no path: what a `vjp` gives."""


class _OpClass(type):
    """Gives every op class empty slots, so that its instances carry no dict."""

    def __new__(
        meta, called: str, bases: tuple[type, ...], names: dict[str, Any], /, **kwargs: Any
    ) -> Any:
        names.setdefault("__slots__", ())
        return super().__new__(meta, called, bases, names, **kwargs)

    def __init__(
        cls, called: str, bases: tuple[type, ...], names: dict[str, Any], /, **kwargs: Any
    ) -> None:
        super().__init__(called, bases, names)


class Op(metaclass=_OpClass):
    """One operation.  Subclass it, declare fields, write `infer` and `evaluate`."""

    __slots__ = ("attrs", "block", "loc", "next", "operands", "prev", "regions", "results")
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attrs: tuple[Any, ...]
    regions: tuple[Block, ...]
    block: Block | None
    prev: Op | None
    next: Op | None
    loc: Loc | None

    name: ClassVar[str] = "?"
    spec: ClassVar[Spec]
    pure: ClassVar[bool] = True
    """No effect but its results: may be removed when unused, merged when equal, moved."""
    terminator: ClassVar[bool] = False
    memoise: ClassVar[bool] = True
    """`infer` depends on types and attributes alone (it makes no fresh symbols)."""
    samples: ClassVar[Sequence[Sample]] = ()
    no_gradient: ClassVar[str] = ""
    """Why no cotangent passes this op; it then needs no `vjp`."""
    upgrades: ClassVar[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
    """Format version to a rule for the attributes of texts older than it (see parse.FORMAT)."""
    inferred: ClassVar[dict[Any, tuple[Type, ...]]]
    infer: ClassVar[Callable[..., Any]]
    evaluate: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            for key, value in getattr(base, "__dict__", {}).items():
                if not isinstance(found.get(key), (operand, attr, region)):
                    found.pop(key, None)  # a field stands where it was declared first as a field
                found[key] = value
        operands = tuple(v for v in found.values() if isinstance(v, operand))
        attrs = tuple(v for v in found.values() if isinstance(v, attr))
        regions = tuple(v for v in found.values() if isinstance(v, region))
        for index, an_operand in enumerate(operands):
            an_operand.index = index
        for index, an_attr in enumerate(attrs):
            an_attr.index = index
        for index, a_region in enumerate(regions):
            a_region.index = index
        cls.spec = Spec(
            operands,
            attrs,
            regions,
            {a.name: a.index for a in attrs},
            tuple(a.default for a in attrs),
            any(a.required for a in attrs),
        )
        cls.inferred = {}
        if not cls.__name__.startswith("_"):
            cls.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
            assert cls.name not in OPS, f"two ops are called {cls.name}"
            OPS[cls.name] = cls

    def __init__(
        self, *operands: Value, loc: Loc | None = None, regions: Sequence[Block] = (), **attrs: Any
    ) -> None:
        spec = self.spec
        self.attrs = spec.bind(self.name, attrs) if attrs or spec.needs else spec.defaults
        self.operands = operands
        self.loc = loc
        self.regions = ()
        self.block = self.prev = self.next = None
        if regions:
            self.regions = tuple(regions)
            for block in regions:
                block.parent = self
        index = 0
        results = []
        for type_ in self.result_types():
            results.append(Value(type_, self, index))
            index += 1
        self.results = tuple(results)
        for value in operands:
            if value is not None:
                if value.uses is None:
                    value.uses = self
                else:
                    value.add_user(self)

    @classmethod
    def raw(
        cls,
        operands: Sequence[Value],
        attrs: tuple[Any, ...],
        types: Sequence[Type],
        regions: Sequence[Block] = (),
        loc: Loc | None = None,
    ) -> Self:
        """An op from its parts, nothing inferred or checked (the parser and copies use it)."""
        op = cls.__new__(cls)
        op.operands = tuple(operands)
        op.attrs = attrs
        op.loc = loc
        op.block = op.prev = op.next = None
        op.regions = tuple(regions)
        for block in regions:
            block.parent = op
        op.results = tuple([Value(t, op, i) for i, t in enumerate(types)])
        for value in op.operands:
            if value is not None:
                value.add_user(op)
        return op

    def result_types(self) -> tuple[Type, ...]:
        """The types of the results, from `infer`; ops with regions override this."""
        key = (*[v.type if v is not None else None for v in self.operands], self.attrs)
        known = self.inferred.get(key) if self.memoise else None
        if known is None:
            known = self.infer_types(key[:-1])
            if self.memoise and len(self.inferred) < 50_000:
                self.inferred[key] = known
        return known

    def infer_types(self, types: Sequence[Any]) -> tuple[Type, ...]:
        """Check operand kinds and attributes, then call the class's `infer`."""
        self.check_operands(types)
        try:
            inferred = type(self).infer(*types, **self.attributes)
        except Error as error:
            if error.where is None:
                error.where = self.place()
            raise
        return inferred if isinstance(inferred, tuple) else (inferred,)

    def check_operands(self, types: Sequence[Type | None]) -> None:
        """Raise E0301 or E0302 where the number or the element types of the operands are wrong."""
        declared = self.spec.operands
        most = len(types) if declared and declared[-1].variadic else len(declared)
        least = sum(not (d.optional or d.variadic) for d in declared)
        if not least <= len(types) <= most:
            raise Error(
                "E0301",
                f"{self.name} takes {least} operands, {len(types)} given",
                where=self.place(),
            )
        for index, given in enumerate(types):
            want = declared[min(index, len(declared) - 1)]
            if given is None and want.optional:
                continue
            if given is None or not want.kind.accepts(given):
                raise Error(
                    "E0302",
                    f"{self.name}: operand '{want.name}' must be {want.kind.name}",
                    where=self.place(),
                    details=(f"found {given}",),
                )

    def place(self) -> str:
        """One line that names this op and its location."""
        return f"op '{self.name}'" + (f" at {self.loc}" if self.loc else "")

    where = place  # ops whose attribute `where` hides it are asked for their place

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes by name."""
        return {a.name: value for a, value in zip(self.spec.attrs, self.attrs, strict=True)}

    @property
    def result(self) -> Value:
        """The only result."""
        (only,) = self.results
        return only

    def set_operands(self, operands: Sequence[Value]) -> None:
        """Replace all operands, keeping the use lists."""
        for value in self.operands:
            if value is not None:
                value.drop_user(self)
        self.operands = tuple(operands)
        for value in self.operands:
            if value is not None:
                value.add_user(self)

    def set_attr(self, name: str, value: Any) -> None:
        """Change one attribute in place; result types are the caller's concern."""
        at = self.spec.attr_index[name]
        self.attrs = (*self.attrs[:at], freeze(value), *self.attrs[at + 1 :])

    def copy(
        self, env: Mapping[Value, Value] | None = None, attrs: tuple[Any, ...] | None = None
    ) -> Self:
        """A deep copy, operands looked up in `env` (a dict learns the new values)."""
        env = env if env is not None else {}
        operands = [env.get(v, v) for v in self.operands]
        made = type(self).raw(
            operands,
            self.attrs if attrs is None else attrs,
            [r.type for r in self.results],
            [block.copy(env) for block in self.regions],
            self.loc,
        )
        for old, new in zip(self.results, made.results, strict=True):
            new.name = old.name
            env[old] = new  # type: ignore[index]  # callers pass a dict
        return made

    def erase(self) -> None:
        """Drop the operands (also those of nested ops) and leave the block."""
        for value in self.operands:
            if value is not None:
                value.drop_user(self)
        for block in self.regions:
            for op in block:
                op.erase()
        if self.block is not None:
            self.block.remove(self)

    def replace_by(self, values: Sequence[Value]) -> None:
        """Make users of the results use `values`, and erase this op."""
        for old, new in zip(self.results, values, strict=True):
            old.replace_by(new)
        self.erase()

    def walk(self) -> Iterator[Op]:
        """This op and every op nested in it, in order."""
        return _walk(self.regions, self) if self.regions else iter((self,))

    @property
    def parent_op(self) -> Op | None:
        """The op whose region holds this one."""
        return self.block.parent if self.block is not None else None

    def __str__(self) -> str:
        from .text import print_op  # the printer reads this module

        return print_op(self)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Block:
    """Arguments and a linked list of ops; a region is one block."""

    __slots__ = ("args", "first", "last", "parent", "size")

    def __init__(self, types: Sequence[Type] = (), names: Sequence[str | None] = ()) -> None:
        self.args: tuple[Value, ...] = ()
        self.first: Op | None = None
        self.last: Op | None = None
        self.size = 0
        self.parent: Op | None = None
        for index, type_ in enumerate(types):
            self.add_arg(type_, names[index] if index < len(names) else None)

    def add_arg(self, type: Type, name: str | None = None) -> Value:
        """Append one argument."""
        value = Value(type, self, len(self.args), name)
        self.args = (*self.args, value)
        return value

    def append(self, op: OpT) -> OpT:
        """Put `op` at the end."""
        op.block = self
        op.next = None
        last = self.last
        op.prev = last
        if last is None:
            self.first = op
        else:
            last.next = op
        self.last = op
        self.size += 1
        return op

    def insert_before(self, op: OpT, ref: Op | None) -> OpT:
        """Put `op` before `ref` (at the end when `ref` is None)."""
        if ref is None:
            return self.append(op)
        op.block = self
        before = ref.prev
        op.prev, op.next, ref.prev = before, ref, op
        if before is None:
            self.first = op
        else:
            before.next = op
        self.size += 1
        return op

    def remove(self, op: Op) -> None:
        """Unlink `op`; its operands and uses stay."""
        before, after = op.prev, op.next
        if before is None:
            self.first = after
        else:
            before.next = after
        if after is None:
            self.last = before
        else:
            after.prev = before
        op.block = op.prev = op.next = None
        self.size -= 1

    @property
    def terminator(self) -> Op | None:
        """The last op when it is a terminator (`return`, `yield`)."""
        return self.last if self.last is not None and self.last.terminator else None

    def copy(self, env: Mapping[Value, Value] | None = None) -> Block:
        """A deep copy; `env` maps values of enclosing scopes and learns the new ones."""
        env = env if env is not None else {}
        made = Block([a.type for a in self.args], [a.name for a in self.args])
        env.update(zip(self.args, made.args, strict=True))  # type: ignore[attr-defined]
        for op in self:
            made.append(op.copy(env))
        return made

    def walk(self) -> Iterator[Op]:
        """Every op in the block, nested ones included, in order."""
        return _walk((self,))

    def __iter__(self) -> Iterator[Op]:
        op = self.first
        while op is not None:
            after = op.next
            yield op
            op = after

    def __len__(self) -> int:
        return self.size


def _walk(blocks: Sequence[Block], holder: Op | None = None) -> Iterator[Op]:
    """The op that holds the blocks, if given, then every op in them, depth first.

    One generator for all levels: a nested one would hand each op up through every level.  What
    follows an op is looked up before the op is given, so that it may be erased meanwhile.
    """
    if holder is not None:
        yield holder
    pending: list[Block | Op | None] = list(reversed(blocks))
    while pending:
        top = pending.pop()
        op = top.first if isinstance(top, Block) else top
        while op is not None:
            after = op.next
            yield op
            if op.regions:
                pending.append(after)
                pending.extend(reversed(op.regions))
                break
            op = after


Region = Block
OpT = TypeVar("OpT", bound=Op)


class Builder:
    """Makes ops at an insertion point; `b.matmul(x, w)` appends a `Matmul` and gives its result(s).

    An op with one result gives that value, otherwise the tuple of results.
    """

    def __init__(self, block: Block, before: Op | None = None, loc: Loc | None = None) -> None:
        self.block = block
        self.before = before
        self.loc = loc

    def insert(self, op: OpT) -> OpT:
        """Put an op at the insertion point; it takes the builder's location if it has none."""
        if op.loc is None:
            op.loc = self.loc
        if self.before is None:
            return self.block.append(op)
        return self.block.insert_before(op, self.before)

    def emit(self, cls: type[Op], *operands: Value, **attrs: Any) -> Any:
        """Make, insert, and return the result value (or the tuple of results)."""
        results = self.insert(cls(*operands, loc=self.loc, **attrs)).results
        return results[0] if len(results) == 1 else results

    def __getattr__(self, name: str) -> Callable[..., Any]:
        cls = OPS.get(name) or OPS.get(name.rstrip("_")) or OPS.get("loop." + name.rstrip("_"))
        if cls is None:
            raise AttributeError(f"no operation is called '{name}'")

        def build(b: Builder, *operands: Value, **attrs: Any) -> Any:
            return b.emit(cls, *operands, **attrs)

        setattr(Builder, name, build)  # found at once from now on
        return partial(build, self)

    def at(self, block: Block, before: Op | None = None) -> Builder:
        """A builder with the same location at another place."""
        return Builder(block, before, self.loc)


def dims_of(types: Sequence[Type]) -> set[str]:
    """The symbols that occur in the shapes of these types."""
    found: set[str] = set()
    for type_ in types:
        for extent in getattr(type_, "shape", None) or ():
            if not isinstance(extent, int):
                found |= extent.symbols
    return found


__all__ = [
    "OPS", "Any_", "Array", "Block", "Bool", "Builder", "DimLike", "Float", "Grads", "Int", "Kind",
    "Loc", "Number", "Op", "Plain", "Real", "Region", "Sample", "Spec", "Value", "attr", "dims_of",
    "freeze", "operand", "optional", "region", "sample", "variadic",
]  # fmt: skip
