"""Ops that the ONNX standard defines by a body of other ops: where no row exists, the body is used.

Imports: onnx, ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from onnx import FunctionProto, TensorProto, TypeProto, defs

from ...ir.types import TensorType
from .tensors import DTYPES

_CODES = {ours: TensorProto.DataType.Value(name) for name, ours in DTYPES.items()}


@cache
def attribute_kinds(domain: str, op: str, version: int) -> Mapping[str, int]:
    """The kind (AttributeProto.AttributeType) of each attribute that the standard gives an op."""
    if not 1 <= version < 1 << 31:
        return {}
    try:
        schema = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return {}
    return {name: attribute.type.value for name, attribute in schema.attributes.items()}


@cache
def schema_of(domain: str, op: str, version: int) -> Any:
    """The definition of an op in an opset, if it has a body; None otherwise."""
    if not 1 <= version < 1 << 31:
        return None
    try:
        schema = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def body_of(schema: Any, proto: Any, version: int, types: Sequence[TensorType | None]) -> Any:
    """The body as a FunctionProto, for operands of these types; None where it has none for them."""
    if schema.has_function:
        found = schema.get_function_with_opset_version(
            _fit(schema.function_opset_versions, version)
        )
    else:
        known = _fit(schema.context_dependent_function_opset_versions, version)
        given = [_type_proto(t).SerializeToString() for t in types]
        found = schema.get_context_dependent_function_with_opset_version(
            known, proto.SerializeToString(), given
        )
    if not found:
        return None
    body = FunctionProto.FromString(found)
    have = {a.name for a in body.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in have and attribute.default_value.type:
            body.attribute_proto.append(attribute.default_value)
    return body


def _fit(versions: Sequence[int], version: int) -> int:
    """The newest version not above `version`, else the oldest."""
    return max([v for v in versions if v <= version], default=min(versions))


def _type_proto(type_: TensorType | None) -> Any:
    made = TypeProto()
    if type_ is not None:
        made.tensor_type.elem_type = _CODES[type_.dtype.name]
        made.tensor_type.shape.SetInParent()
        for extent in type_.shape:
            dim = made.tensor_type.shape.dim.add()
            if isinstance(extent, int):
                dim.dim_value = extent
            else:
                dim.dim_param = str(extent)
    return made


__all__ = ["attribute_kinds", "body_of", "schema_of"]
