"""The parser of the text syntax (see text.py): recursive descent, one fast path for plain ops.

It builds ops from their parts and infers nothing that the text says; `verify` judges the result.
Whatever the text, the outcome is a module or an `Error` E02xx with file, line, column and a caret.
Imports: the core, ops/core, blobs, literals, scan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .blobs import Blob
from .core import OPS, Block, Loc, Op, Value, attr
from .dims import Dim
from .errors import Error
from .literals import WORDS, dense
from .ops.core import Const, Func, Module
from .scan import MAX_NESTING, SPACE, Scanner, token
from .spelling import nearest, suggestion
from .types import TensorType, Type, parse_type

FORMAT = 1
"""Version of the text syntax and of the ops' attributes; archives state it."""
FUNC_KINDS = ("func", "kernel", "plan", "host")
MAX_DEPTH = 100
"""Regions in regions."""

_VALUE = token(r"%[A-Za-z0-9_.]++")
_NAME = token(r"[A-Za-z_][A-Za-z0-9_.]*+")
_SYMBOL = token(r"@[A-Za-z_][A-Za-z0-9_.]*+")
_FUNC = token(rf"(?:{'|'.join(FUNC_KINDS)})(?={SPACE}@)")
_MODULE = token(rf"module(?={SPACE}@)")
_ATTRIBUTES = re.compile(rf"\{{{SPACE}[A-Za-z_][A-Za-z0-9_]*+{SPACE}=")
_ENDS = rf"(?={SPACE}[,}}\]>])"
_WORD = token(rf"(?:none|true|false|-?inf|nan){_ENDS}")
_NUMBER = token(rf"-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?{_ENDS}")
_INTEGER = token(r"[0-9]++")
_BLOB = token(r"@blob:[0-9a-f]{16}(?![0-9a-f])")
_PLAIN = re.compile(
    r"%([A-Za-z0-9_.]+) = ([a-z][a-z0-9_.]*)\((%[A-Za-z0-9_.]+(?:, %[A-Za-z0-9_.]+)*)\)"
    r" : ([a-z][a-z0-9]*\[[A-Za-z0-9_*, ]*\])\n[ \n]*"
)


def parse(
    text: str, blobs: Mapping[str, Blob] | None = None, file: str = "<text>", version: int = FORMAT
) -> Module:
    """The module that `text` says; `blobs` are its large constants by the 16 digits it names.

    `version` is the format the text was written in: ops that changed since are upgraded.
    Raises `InvalidModelError` E02xx.
    """
    parser = _Parser(text, blobs or {}, file, version)
    module = parser.module()
    return module


class _Parser(Scanner):
    """`env` maps the visible names to values, `defined` lists the names of the open region."""

    def __init__(self, text: str, blobs: Mapping[str, Blob], file: str, version: int) -> None:
        super().__init__(text, file)
        self.blobs = blobs
        self.version = version
        self.env: dict[str, Value] = {}
        self.defined: list[str] = []
        self.depth = 0

    def module(self) -> Module:
        """An optional header, then ops to the end of the text."""
        module = Module.make()
        if self.match(_MODULE):
            module.set_attr("sym", self.symbol())
            module.loc = self.location()
        while self.at < len(self.text):
            module.body.append(self.op())
        return module

    def symbol(self) -> str:
        """`@name` or `@"any name"`."""
        name = self.match(_SYMBOL)
        if name is not None:
            return name[1:]
        self.expect("@")
        return self.string()

    def location(self) -> Loc | None:
        """`@"name"`, `@"name" "file":line`, or nothing."""
        if not self.text.startswith('@"', self.at):
            return None
        self.at += 1
        name = self.string()
        if not self.text.startswith('"', self.at):
            return Loc(name)
        file = self.string()
        self.expect(":")
        return Loc(name, file, int(self.need(_INTEGER, "a line number")[:18]))

    def op(self) -> Op:
        """One op, or a function."""
        at = self.at
        if self.match(_FUNC):
            self.at = at
            return self.func()
        names = self.names() if self.text.startswith("%", at) else []
        if names:
            self.expect("=")
        at = self.at
        word = self.need(_NAME, "an operation")
        cls = OPS.get(word)
        if cls is None or cls in (Func, Module):
            self.error(
                f"no operation is called '{word}'",
                at,
                "E0221",
                suggestion(word, OPS),
            )
        operands = self.operands(cls.terminator)
        given = self.attributes(cls) if _ATTRIBUTES.match(self.text, self.at) else {}
        regions = []
        while self.text.startswith(("(", "{"), self.at):
            regions.append(self.region())
        types = self.types() if self.take(":") else None
        op = self.make(at, cls, operands, given, regions, types, len(names))
        op.loc = self.location()
        for name, value in zip(names, op.results, strict=True):
            self.define(name, value, at)
        return op

    def names(self) -> list[str]:
        """`%a, %b`"""
        found = [self.need(_VALUE, "a value")]
        while self.take(","):
            found.append(self.need(_VALUE, "a value"))
        return found

    def define(self, name: str, value: Value, at: int) -> None:
        """Make `name` visible to the end of the region."""
        if name in self.env:
            self.error(f"{name} is defined twice", at, "E0223")
        self.env[name] = value
        self.defined.append(name)
        if not name[1].isdigit():
            value.name = name[1:]

    def operands(self, bare: bool) -> list[Value | None]:
        """`(%a, _)`, or `%a, %b` where they stand bare, or nothing."""
        if bare and self.text.startswith("%", self.at):
            closing = ""
        elif self.text.startswith("(", self.at) and not _ARGUMENT.match(self.text, self.at):
            self.take("(")
            closing = ")"
        else:
            return []
        found: list[Value | None] = []
        if closing and self.take(closing):
            return found
        while True:
            found.append(None if self.take("_") else self.value())
            if not self.take(","):
                break
        if closing:
            self.expect(closing)
        return found

    def value(self) -> Value:
        """A visible value."""
        at = self.at
        name = self.need(_VALUE, "a value")
        found = self.env.get(name)
        if found is None:
            near = nearest(name, self.env) if len(self.env) < 1000 else None
            self.error(
                f"{name} is not defined here",
                at,
                "E0222",
                f"did you mean {near}?" if near else None,
            )
        return found

    def types(self) -> list[Type]:
        """One or several types."""
        found = [self.type()]
        while self.take(","):
            found.append(self.type())
        return found

    def arguments(self) -> Block:
        """`(%a: type, ...)`: an empty block with these arguments, which become visible."""
        block = Block()
        self.expect("(")
        while not self.take(")"):
            if block.args:
                self.expect(",")
            at = self.at
            name = self.need(_VALUE, "an argument")
            self.expect(":")
            self.define(name, block.add_arg(self.type()), at)
        return block

    def region(self) -> Block:
        """`(arguments) { ops }`; what it defines is visible inside only."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.error("regions are nested too deeply", None, "E0226")
        outer, self.defined = self.defined, []
        block = self.arguments() if self.text.startswith("(", self.at) else Block()
        self.body(block)
        for name in self.defined:
            del self.env[name]
        self.defined = outer
        self.depth -= 1
        return block

    def body(self, block: Block) -> None:
        """`{ ops }`, appended to `block`."""
        self.expect("{")
        text, match = self.text, _PLAIN.match
        while True:
            plain = match(text, self.at)
            if plain is not None and self.plain(block, plain):
                continue
            if self.take("}"):
                return
            if self.at >= len(text):
                self.error("'{' is never closed")
            block.append(self.op())

    def plain(self, block: Block, match: re.Match[str]) -> bool:
        """Append an op of operands and one result; False where there is more to it."""
        name, word, listed, type_ = match.groups()
        cls, env = OPS.get(word), self.env
        if cls is None or cls.spec.attrs or "%" + name in env:
            return False
        operands = [env.get(v) for v in listed.split(", ")]
        if None in operands:
            return False
        at = self.at
        try:
            made = parse_type(type_)
        except Error:
            return False
        op = cls.raw(operands, (), (made,))  # type: ignore[arg-type]  # none is None
        self.at = match.end()
        self.skip()
        self.define("%" + name, op.results[0], at)
        block.append(op)
        return True

    def func(self) -> Func:
        """`func @name(arguments) -> types {attributes} { ops }`."""
        outer = self.env, self.defined
        self.env, self.defined = {}, []
        at = self.at
        kind = self.need(_FUNC, "a function")
        sym = self.symbol()
        block = self.arguments()
        returned = self.returned()
        given = self.attributes(Func) if _ATTRIBUTES.match(self.text, self.at) else {}
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.error("functions are nested too deeply", None, "E0226")
        self.body(block)
        self.depth -= 1
        self.env, self.defined = outer
        names = tuple([v.name for v in block.args])
        said = {"sym": sym, "kind": kind, "inputs": names if all(names) else ()}
        func = self.make(at, Func, [], said | given, [block], [], 0)
        func.loc = self.location()
        assert isinstance(func, Func)
        if returned is not None and returned != [v.type for v in func.returned if v is not None]:
            self.error(f"@{sym} does not return what its header says", at, "E0225")
        return func

    def returned(self) -> list[Type] | None:
        """`-> type`, `-> (type, type)`, or nothing."""
        if not self.take("->"):
            return None
        if not self.take("("):
            return [self.type()]
        found = self.types()
        self.expect(")")
        return found

    def attributes(self, cls: type[Op]) -> dict[str, Any]:
        """`{name = value, ...}`"""
        self.expect("{")
        found: dict[str, Any] = {}
        while True:
            at = self.at
            name = self.need(_NAME, "an attribute")
            index = cls.spec.attr_index.get(name)
            if name in found:
                self.error(f"the attribute '{name}' stands twice", at, "E0224")
            self.expect("=")
            declared = cls.spec.attrs[index].type if index is not None else object
            found[name] = self.attribute(declared, 0)
            if not self.take(","):
                break
        self.expect("}")
        return found

    def attribute(self, declared: Any, depth: int) -> Any:
        """The value of an attribute declared with this type."""
        if depth > MAX_NESTING:
            self.error("brackets are nested too deeply", None, "E0226")
        word = self.match(_WORD)
        if word is not None:
            return -WORDS["inf"] if word == "-inf" else WORDS[word]
        if isinstance(declared, type) and issubclass(declared, Type):
            return self.type()
        number = self.match(_NUMBER)
        if number is not None:
            return self.number(number)
        char = self.text[self.at : self.at + 1]
        if char == '"':
            return self.string()
        if char == "!":
            self.at += 1
            return self.type()
        if char == "[":
            return self.sequence(depth)
        if char == "@":
            return self.blob()
        if self.take("dense<"):
            return self.dense(depth)
        if self.take("complex<"):
            real = self.attribute(float, depth + 1)
            self.expect(",")
            value = self.complex(real, self.attribute(float, depth + 1))
            self.expect(">")
            return value
        return self.dim()

    def number(self, text: str) -> int | float:
        """An integer, or a float where there is a point or an exponent."""
        if len(text) > 1000:
            self.error("this number is too long")
        return float(text) if "." in text or "e" in text or "E" in text else int(text)

    def complex(self, real: Any, imag: Any) -> complex:
        """The complex number of two floats."""
        if type(real) is not float or type(imag) is not float:
            self.error("a complex number has two floats")
        return complex(real, imag)

    def sequence(self, depth: int) -> tuple[Any, ...]:
        """`[a, b]`"""
        self.expect("[")
        found: list[Any] = []
        while not self.take("]"):
            if found:
                self.expect(",")
            found.append(self.attribute(object, depth + 1))
        return tuple(found)

    def blob(self) -> Blob:
        """A constant that lies beside the text."""
        at = self.at
        name = self.need(_BLOB, "@blob: and 16 hex digits")[6:]
        found = self.blobs.get(name)
        if found is None:
            self.error(
                f"the constant {name} is not beside the text",
                at,
                "E0228",
                "load the .irc file, or keep the .safetensors file next to the .ir file",
            )
        return found

    def dense(self, depth: int) -> Any:
        """The inside of `dense<[...]>` or `dense<type, [...]>`."""
        at = self.at
        type_: Type | None = None
        if not self.text.startswith(("[", '"'), at):
            type_ = self.type()
            self.expect(",")
        elements = self.attribute(object, depth + 1)
        self.expect(">")
        return self.constant(type_, elements, at) if type_ is not None else _Elements(elements, at)

    def constant(self, type_: Type, elements: Any, at: int) -> Blob:
        """The constant of this type and these elements."""
        if not isinstance(type_, TensorType) or not type_.is_static:
            self.error(f"a constant cannot have the type {type_}", at, "E0229")
        try:
            return dense(type_, elements)
        except (ValueError, TypeError, OverflowError) as error:
            self.error(f"these elements do not make a {type_}: {error}", at, "E0229")

    def make(
        self,
        at: int,
        cls: type[Op],
        operands: Sequence[Value | None],
        given: dict[str, Any],
        regions: Sequence[Block],
        types: Sequence[Type] | None,
        results: int,
    ) -> Op:
        """The op from its parts; where the types are left out they are inferred."""
        for since, upgrade in sorted(cls.upgrades.items()):
            given = upgrade(given) if self.version < since else given
        unknown = [name for name in given if name not in cls.spec.attr_index]
        if unknown:
            known = ", ".join(cls.spec.attr_index) or "none"
            self.error(
                f"{cls.name} has no attribute '{unknown[0]}'", at, "E0210", f"attributes: {known}"
            )
        if types is not None and results != len(types):
            self.error(
                f"{cls.name}: {results} names and {len(types)} types of results", at, "E0225"
            )
        attrs = tuple([self.bound(a, cls, given, types, at) for a in cls.spec.attrs])
        if types is not None or not results:
            return _typed(cls, operands, attrs, types or (), regions)
        return self.inferred(at, cls, operands, attrs, regions, results)

    def bound(
        self,
        field: attr,
        cls: type[Op],
        given: dict[str, Any],
        types: Sequence[Type] | None,
        at: int,
    ) -> Any:
        """The value of one attribute: given, implied by the types, or the default."""
        if field.name in given:
            value = given[field.name]
            if isinstance(value, _Elements):
                if types is None or len(types) != 1:
                    self.error("the constant needs its type", value.at, "E0229")
                value = self.constant(types[0], value.elements, value.at)
            if not _fits(field, value):
                want = getattr(field.type, "__name__", str(field.type))
                self.error(
                    f"{cls.name}: attribute '{field.name}' must be {want}, not {value!r}",
                    at,
                    "E0224",
                )
            return value
        if field.implied:
            if types:
                return tuple(types) if field.type is tuple else types[0]
            self.error(f"{cls.name} needs its result types", at, "E0225")
        if field.required:
            self.error(f"{cls.name} needs the attribute '{field.name}'", at, "E0210")
        return field.default

    def inferred(
        self,
        at: int,
        cls: type[Op],
        operands: Sequence[Any],
        attrs: tuple[Any, ...],
        regions: Sequence[Block],
        results: int,
    ) -> Op:
        """The op with result types from its own rule."""
        names = [a.name for a in cls.spec.attrs]
        try:
            op = cls(*operands, regions=regions, **dict(zip(names, attrs, strict=True)))
        except Error as error:
            self.error(error.render().split("]: ", 1)[-1], at, error.code)
        except Exception as error:  # a rule may break on operands it never expected
            self.error(f"the result types of {cls.name} cannot be inferred: {error}", at, "E0225")
        if len(op.results) != results:
            self.error(f"{cls.name} has {len(op.results)} results, not {results}", at, "E0225")
        return op


def _typed(
    cls: type[Op],
    operands: Sequence[Any],
    attrs: tuple[Any, ...],
    types: Sequence[Type],
    regions: Sequence[Block],
) -> Op:
    """The op with the result types that the text says; the verifier judges them.

    Where a class has a constructor of its own, that one brings axes into canonical form.
    """
    if cls.__init__ is not Op.__init__ and cls is not Const and not regions:
        names = [a.name for a in cls.spec.attrs]
        try:
            op = cls(*operands, **dict(zip(names, attrs, strict=True)))
        except Exception:  # what is wrong with it the verifier says
            return cls.raw(operands, attrs, types)
        if [r.type for r in op.results] == list(types):
            return op
        attrs = op.attrs
        op.erase()
    return cls.raw(operands, attrs, types, regions)


class _Elements:
    """Elements of a constant whose type comes later."""

    def __init__(self, elements: Any, at: int) -> None:
        self.elements, self.at = elements, at


_ARGUMENT = re.compile(rf"\({SPACE}%[A-Za-z0-9_.]++{SPACE}:")
_KINDS: dict[Any, tuple[type, ...]] = {
    int: (int, Dim),
    float: (float, int),
    bool: (bool,),
    str: (str,),
    tuple: (tuple,),
}


def _fits(field: attr, value: Any) -> bool:
    if isinstance(field.type, type) and issubclass(field.type, Type):
        kinds: tuple[type, ...] = (field.type,)
    else:
        kinds = _KINDS.get(field.type, (object,))
    if isinstance(value, bool) and field.type in (int, float):
        return False
    return isinstance(value, kinds) or (value is None and field.default is None)


__all__ = ["FORMAT", "FUNC_KINDS", "MAX_DEPTH", "parse"]
