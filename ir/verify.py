"""The verifier: what must hold of every program between two passes.

Structure (use lists, parents, terminators, regions), scope (a value is defined before it is used;
the regions of functions, `fused`, `generic` and `custom_gradient` see only their arguments), types
(inferred anew), calls, and in verify_loop.py the rules of the kernel level.  A broken rule raises
`VerifyError` E023x with op and location.
Imports: the core, ops/core, ops/autodiff, ops/loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

from .blobs import Blob
from .core import Block, Op, Value
from .errors import Error, VerifyError
from .ops.autodiff import CustomGradient
from .ops.core import Const, Func, Fused, Generic, Module, Return, Yield
from .ops.loop import Call
from .types import Type
from .verify_loop import LoopScope, fail, verify_generic

ISOLATED = (Func, Fused, Generic, CustomGradient)
"""Their regions see no values from outside."""
LOOP_KINDS = ("kernel", "plan")


def verify(program: Op) -> None:
    """Check a module, a function or any op and all in it; VerifyError names the first fault."""
    checker = _Checker(program)
    if isinstance(program, Module):
        checker.module(program)
    else:
        checker.op(program, {v for v in program.operands if v is not None})


class _Checker:
    """One verification; `visible` sets hold the values that an op may use."""

    def __init__(self, program: Op) -> None:
        root = program
        while root.parent_op is not None:
            root = root.parent_op
        self.funcs = {f.sym: f for f in root.funcs} if isinstance(root, Module) else None
        self.loops: LoopScope | None = None

    def module(self, module: Module) -> None:
        """Names of functions are unique; each function holds."""
        names: set[str] = set()
        for func in module.body:
            if isinstance(func, Func):
                if func.sym in names:
                    fail(func, "E0235", f"there are two functions @{func.sym}")
                names.add(func.sym)
        self.block(module.body, set())

    def block(self, block: Block, visible: set[Value]) -> None:
        """Every op of a block, in order."""
        visible.update(block.args)
        count = 0
        prev: Op | None = None
        op = block.first
        while op is not None:
            if op.block is not block or op.prev is not prev:
                fail(op, "E0230", "the links of its block are broken")
            if op.regions or op.attrs or op.terminator or len(op.results) != 1 or self.loops:
                self.op(op, visible)
            else:
                self.plain(op, visible)
            visible.update(op.results)
            count += 1
            prev, op = op, op.next
        if prev is not block.last or count != block.size:
            raise VerifyError(
                "E0230",
                "a block miscounts its ops",
                details=(f"{count} found, {block.size} noted",),
            )

    def nested(self, block: Block, visible: set[Value]) -> None:
        """A region that sees the outer values; what it defines is invisible after it."""
        self.block(block, visible)
        for op in block:
            visible.difference_update(op.results)
        visible.difference_update(block.args)

    def plain(self, op: Op, visible: set[Value]) -> None:
        """The fast path: one result, no attributes, no regions."""
        key: list[Any] = []
        for value in op.operands:
            if value is None:
                key.append(None)
                continue
            if value not in visible:
                self.scope(op, value)
            uses = value.uses
            if uses is not op and (type(uses) is not dict or op not in uses):
                fail(op, "E0231", "an operand does not know that it is used here")
            key.append(value.type)
        key.append(())
        known = op.inferred.get(tuple(key))
        (result,) = op.results
        if known is None or len(known) != 1 or known[0] is not result.type:
            self.types(op)
        uses = result.uses
        if uses is not None or result.owner is not op:
            self.users(op, result)

    def op(self, op: Op, visible: set[Value]) -> None:
        """Any op, with its regions."""
        for value in op.operands:
            if value is None:
                continue
            if value not in visible:
                self.scope(op, value)
            uses = value.uses
            if uses is not op and (type(uses) is not dict or op not in uses):
                fail(op, "E0231", "an operand does not know that it is used here")
        if op.terminator:
            self.terminator(op)
        if len(op.attrs) != len(op.spec.attrs):
            fail(op, "E0232", "the attributes do not match the declared ones")
        self.regions(op, visible)
        self.types(op)
        for result in op.results:
            self.users(op, result)
        if isinstance(op, Call):
            self.call(op)
        elif isinstance(op, Const) and isinstance(op.value, Blob) and op.value.type is not op.type:
            fail(op, "E0239", f"its value is a {op.value.type}")
        if self.loops is not None:
            _guarded(op, self.loops.after)

    def scope(self, op: Op, value: Value) -> NoReturn:
        """The error for a value that is not visible."""
        owner = value.owner
        said = f"from '{owner.name}'" if isinstance(owner, Op) else "an argument of another region"
        fail(
            op,
            "E0233",
            "it uses a value that is not visible here",
            f"the value, {said}, has the type {value.type}",
        )

    def users(self, op: Op, result: Value) -> None:
        """The use list names only ops that stand somewhere and do use the value."""
        if result.owner is not op:
            fail(op, "E0231", "a result has another owner")
        for user in result.users:
            if result not in user.operands or user.block is None:
                fail(
                    op,
                    "E0231",
                    f"the use list of a result names '{user.name}', which does not use it",
                )

    def terminator(self, op: Op) -> None:
        """A terminator stands last; `return` in functions, `yield` elsewhere."""
        if op.next is not None:
            fail(op, "E0234", "a terminator must stand last")
        in_func = isinstance(op.parent_op, Func)
        if op.parent_op is not None and isinstance(op, Return) != in_func:
            fail(op, "E0234", "functions end in return, other regions in yield")

    def regions(self, op: Op, visible: set[Value]) -> None:
        """The regions, each in its scope, with the terminators they need."""
        if not op.regions:
            if op.spec.regions:
                fail(op, "E0236", f"it needs {len(op.spec.regions)} regions")
            return
        if len(op.regions) > len(op.spec.regions) or (
            len(op.regions) < len(op.spec.regions) and type(op) is not Generic
        ):
            fail(op, "E0236", f"it has {len(op.regions)} regions, not {len(op.spec.regions)}")
        outer = self.loops
        if isinstance(op, Func):
            self.loops = LoopScope(op) if op.kind in LOOP_KINDS else None
        for declared, block in zip(op.spec.regions, op.regions):
            if block.parent is not op:
                fail(op, "E0230", "a region has another parent")
            self.ending(op, block, declared.name)
            if self.loops is not None:
                self.loops.enter(op, block)
            if isinstance(op, ISOLATED):
                self.block(block, set())
            else:
                self.nested(block, visible)
            if self.loops is not None:
                self.loops.leave(op, block)
        self.loops = outer
        _guarded(op, self.interface)

    def ending(self, op: Op, block: Block, region: str) -> None:
        """Which terminator a region ends in."""
        if isinstance(op, Module):
            return
        if isinstance(op, Func):
            if op.kind not in LOOP_KINDS and not isinstance(block.last, Return):
                fail(op, "E0234", "the function does not end in return")
        elif (not op.name.startswith("loop.") or region == "before") and not isinstance(
            block.last, Yield
        ):
            fail(op, "E0234", "a region does not end in yield")

    def interface(self, op: Op) -> None:
        """Regions fit the operands of `fused` and `generic`; names fit a function."""
        if isinstance(op, Fused):
            if _types(op.operands) != _types(op.body.args):
                fail(
                    op, "E0236", "the arguments of the region do not have the types of the operands"
                )
        elif isinstance(op, Generic):
            verify_generic(op)
        elif isinstance(op, Func):
            # A plan's names are those of the model; the arena and the weights follow them unnamed.
            named = op.inputs and op.kind != "plan"
            if named and len(op.inputs) != len(op.args):
                fail(op, "E0236", f"{len(op.inputs)} input names for {len(op.args)} parameters")
            if op.outputs and op.kind == "func" and len(op.outputs) != len(op.returned):
                fail(op, "E0236", f"{len(op.outputs)} output names for {len(op.returned)} results")

    def types(self, op: Op) -> None:
        """Result types, and the attributes they imply, are those that the op's rule gives."""
        try:
            if not op.regions:
                op.check_operands([v.type if v is not None else None for v in op.operands])
            inferred = op.result_types()
        except Error as error:
            raise VerifyError(
                error.code,
                error.message,
                where=error.where or str(op.loc or ""),
                details=error.details,
                hint=error.hint,
            ) from error
        except Exception as error:  # a rule may break on operands it never expected
            fail(op, "E0237", f"its types cannot be inferred: {error}")
        have = _types(op.results)
        if (
            len(inferred) != len(have)
            or any([a is not b for a, b in zip(inferred, have)])
            and op.memoise
        ):
            fail(
                op,
                "E0237",
                "its result types are not those of its operands",
                f"found {_listed(have)}",
                f"inferred {_listed(inferred)}",
            )
        for field, value in zip(op.spec.attrs, op.attrs):
            if field.implied and value != (tuple(have) if field.type is tuple else have[0]):
                fail(op, "E0237", f"the attribute '{field.name}' is not its result type")

    def call(self, op: Call) -> None:
        """The callee exists and takes so many arguments (host steps live beside the module)."""
        if self.funcs is None:
            return
        callee = self.funcs.get(op.callee)
        if callee is None:
            fail(op, "E0238", f"there is no function @{op.callee}")
        if len(callee.args) != len(op.operands):
            fail(
                op,
                "E0238",
                f"@{op.callee} takes {len(callee.args)} arguments, not {len(op.operands)}",
            )


def _guarded(op: Op, check: Callable[[Any], None]) -> None:
    """`check(op)`, where attributes may have any form at all: they may come from a text."""
    try:
        check(op)
    except Error:
        raise
    except Exception as error:
        fail(op, "E0232", f"its attributes are malformed: {error}")


def _types(values: Collection[Value | None]) -> list[Type | None]:
    return [v.type if v is not None else None for v in values]


def _listed(types: Collection[Type | None]) -> str:
    return ", ".join(map(str, types)) or "none"


__all__ = ["fail", "verify"]
