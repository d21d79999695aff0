"""Shape specialisation: symbolic dims get values, everywhere in a module.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.core import Block, Op
from ..ir.dims import Dim, DimLike, coefficient, evaluate, substitute
from ..ir.errors import Error
from ..ir.ops.core import Func, Module
from ..ir.types import BufferType, OptionalType, SequenceType, TensorType, Type


def specialise(module: Module, shapes: Mapping[str, Sequence[int]]) -> Module:
    """A copy of `module` whose inputs have these shapes; E0320 where they contradict the model or
    each other.
    """
    made = module.clone()
    main = made.main
    values: dict[str, int] = {}
    types = {n: v.type for n, v in zip(main.inputs, main.args, strict=False)}
    for name, shape in shapes.items():
        type_ = types.get(name)
        if not isinstance(type_, TensorType):
            raise Error(
                "E0320",
                f"the model has no tensor input '{name}'",
                details=("inputs: " + ", ".join(types),),
            )
        if type_.shape is None or len(type_.shape) != len(shape):
            raise Error(
                "E0320",
                f"the shape given for '{name}' has another rank",
                details=(f"expected {type_}", f"found {list(shape)}"),
            )
        for extent, found in zip(type_.shape, shape, strict=True):
            _solve(extent, int(found), values, f"'{name}' : {type_}", list(shape))
    substitute_dims(main, values)
    for func in made.funcs:
        if func is not main and func.kind == "func":
            substitute_dims(func, values)
    return made


def _solve(
    extent: DimLike, found: int, values: dict[str, int], what: str, shape: list[int]
) -> None:
    """Learn the symbol of one extent; raise where the extent cannot be `found`."""
    known = substitute(extent, values)
    if isinstance(known, int):
        if known != found:
            raise Error(
                "E0320",
                f"a shape contradicts the model: {extent} is {known}, not {found}",
                details=(f"input {what}", f"given {shape}"),
            )
        return
    free = sorted(known.symbols)
    parts = coefficient(known, free[0]) if len(free) == 1 else None
    if parts is None:
        raise Error(
            "E0320",
            f"the extent {extent} does not say what its symbols are",
            details=(f"input {what}",),
        )
    slope, rest = [evaluate(e, {}) for e in parts]
    if slope == 0 or (found - rest) % slope or (found - rest) // slope < 0:
        raise Error(
            "E0320",
            f"no {free[0]} makes {extent} = {found}",
            details=(f"input {what}", f"given {shape}"),
        )
    values[free[0]] = (found - rest) // slope


def substitute_dims(func: Func, values: Mapping[str, DimLike]) -> None:
    """Replace symbols in all types and attributes of a function, then infer types anew where they
    sharpen.
    """
    for value in func.args:
        value.type = _typed(value.type, values)
    for op in func.body.walk():
        op.attrs = tuple([_attribute(v, values) for v in op.attrs])
        for result in op.results:
            result.type = _typed(result.type, values)
        for region in op.regions:
            for value in region.args:
                value.type = _typed(value.type, values)
    _sharpen(func.body)


def _attribute(value: Any, values: Mapping[str, DimLike]) -> Any:
    if isinstance(value, Dim):
        return substitute(value, values)
    if isinstance(value, Type):
        return _typed(value, values)
    if type(value) is tuple:
        return tuple([_attribute(v, values) for v in value])
    return value


def _typed(type: Type, values: Mapping[str, DimLike]) -> Type:
    """The type with symbols replaced."""
    if isinstance(type, TensorType):
        if type.shape is None or type.is_static:
            return type
        return TensorType(type.dtype, tuple([substitute(e, values) for e in type.shape]))
    if isinstance(type, BufferType):
        strides = (
            None if type.strides is None else tuple([substitute(e, values) for e in type.strides])
        )
        return BufferType(
            type.dtype, tuple([substitute(e, values) for e in type.shape]), type.space, strides
        )
    if isinstance(type, SequenceType):
        return SequenceType(_typed(type.element, values))
    if isinstance(type, OptionalType):
        return OptionalType(_typed(type.element, values))
    return type


def _sharpen(block: Block) -> None:
    """Take newly inferred types where they are static and the old ones are not; contradictions are
    errors.
    """
    for op in block:
        if op.regions:
            for region in op.regions:
                _sharpen(region)
        elif op.results and op.memoise and not op.terminator:
            _infer(op)


def _infer(op: Op) -> None:
    for result, new in zip(op.results, op.result_types(), strict=True):
        if (
            new is result.type
            or not isinstance(new, TensorType)
            or not isinstance(result.type, TensorType)
        ):
            continue
        if new.is_static and not result.type.is_static:
            result.type = new
        elif new.is_static and result.type.is_static:
            raise Error(
                "E0320",
                f"with these shapes {op.name} gives {new}, the model says {result.type}",
                where=op.where(),
            )


__all__ = ["specialise", "substitute_dims"]
