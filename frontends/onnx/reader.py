"""`load`: an ONNX model, from a path, bytes or a ModelProto, as an IR module.

Everything that a file says is doubted: sizes, names, opsets and types are checked, and a mistake is
an `Error` with exit code 3 (unsupported) or 4 (invalid).  Imports: onnx, ir.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from onnx import ModelProto

from ...ir.core import Builder
from ...ir.dims import DimLike, sym
from ...ir.errors import Error, InvalidModelError, UnsupportedError
from ...ir.ops.core import Func, Module
from ...ir.types import TensorType
from .graph import MAX_DEPTH, Graph, ModelContext
from .item import Item
from .table import MAX_OPSET, has_row, lookup
from .tensors import MAX_RANK, Slice, dtype_of, open_file
from .wire import without_weights

Shapes = Mapping[str, Sequence[int | str | None]]
Stored = dict[int, Slice]
"""Where the data of an initializer of the graph lies, by its number."""

SMALL_FILE = 1 << 20
"""Bytes below which a file is read as a whole."""


def load(model: str | Path | ModelProto | bytes, *, shapes: Shapes | None = None) -> Module:
    """The model as a module with one function `main`, its inputs and outputs named.

    `shapes` fixes extents of inputs by name: {"x": (1, 3, 224, 224)}; None keeps an extent as it
    is, a string names it.  Raises `InvalidModelError` for a damaged or ill-typed model,
    `UnsupportedError` naming every node that the import table lacks.
    """
    proto, file, stored = _read(model)
    where = f"in {file}" if file else None
    opsets = _opsets(proto, where)
    functions = {_domain(f.domain, f.name): f for f in proto.functions}
    for function in proto.functions:
        _check_texts((function.name, function.domain, *function.input, *function.output))
    folder = Path(file).parent if file else None
    context = ModelContext(file, folder, opsets, functions, lookup)
    _check_names(proto.graph)
    _check_supported(proto, context, where)
    return _import_main(proto.graph, context, dict(shapes or {}), stored)


def _domain(domain: str, name: str) -> tuple[str, str]:
    return ("" if domain == "ai.onnx" else domain, name)


# ---- reading


def _read(model: str | Path | ModelProto | bytes) -> tuple[Any, str, Stored]:
    """The message, the file it came from, and the initializers whose data stayed there."""
    stored: Stored = {}
    if isinstance(model, ModelProto):
        proto, file = model, ""
    elif isinstance(model, bytes):
        proto, file = _parse(model, None), ""
    else:
        file = str(model)
        try:
            proto, stored = _read_file(Path(model))
        except OSError as error:
            raise Error("E0100", f"cannot read {file}", details=(error.strerror or "",)) from None
        except ValueError as error:
            raise Error("E0100", f"cannot read {file!r}", details=(str(error),)) from None
    if not proto.HasField("graph") or not (proto.ir_version or proto.opset_import):
        raise _no_model("it has no graph", f"in {file}" if file else None)
    return proto, file, stored


def _read_file(path: Path) -> tuple[Any, Stored]:
    """The message of a file; the weights of a large one stay in it."""
    where = f"in {path}"
    if path.stat().st_size < SMALL_FILE or not path.is_file():
        return _parse(path.read_bytes(), where), {}
    file = open_file(path, hold=True)
    found = without_weights(memoryview(file.bytes()))
    if found is None:
        return _parse(path.read_bytes(), where), {}
    file.drop()  # the pages that the search touched
    graph, spans = found
    return _parse(graph, where), {k: Slice(file, *span) for k, span in spans.items()}


def _parse(data: bytes, where: str | None) -> Any:
    if not data:
        raise _no_model("it is empty", where)
    try:
        return ModelProto.FromString(data)
    except DecodeError:
        kind = "it is a zip archive" if data[:2] == b"PK" else "it is damaged, cut off or no model"
        raise _no_model(kind, where) from None


def _no_model(why: str, where: str | None) -> InvalidModelError:
    return InvalidModelError("E0103", "this is not an ONNX model", where=where, details=(why,),
                             hint="export the model as .onnx first")  # fmt: skip


def _opsets(proto: Any, where: str | None) -> dict[str, int]:
    """Opset by domain; E0104 for versions that do not exist (yet)."""
    _check_texts([o.domain for o in proto.opset_import])
    found = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    if not found and proto.ir_version < 3:
        found[""] = 1
    version = found.get("")
    uses = any(n.domain in ("", "ai.onnx") for n in proto.graph.node)
    if version is None and uses:
        raise InvalidModelError("E0104", "the model does not say which opset it uses", where=where)
    if version is not None and version < 1:
        raise InvalidModelError("E0104", f"opset {version} does not exist", where=where)
    if version is not None and version > MAX_OPSET:
        raise UnsupportedError("E0104", f"opset {version} is newer than this importer", where=where,
                               hint=f"export for opset {MAX_OPSET} or older")  # fmt: skip
    return found


# ---- unsupported nodes, all at once


def _check_supported(proto: Any, context: ModelContext, where: str | None) -> None:
    """Raise one E0101 that lists every node without a row."""
    lines = []
    for node, version in _all_nodes(proto, context):
        domain, op = _domain(node.domain, node.op_type)
        if not has_row(domain, op, version) and (domain, op) not in context.functions:
            name = node.name or next((o for o in node.output if o), "")
            full = f"{domain}.{op}" if domain else op
            lines.append(f"{full} (opset {version or 'not imported'}) at node '{name}'")
    if lines:
        count = (
            "1 node uses an operation" if len(lines) == 1 else f"{len(lines)} nodes use operations"
        )
        raise UnsupportedError("E0101", f"{count} that the importer does not have", where=where,
                               details=lines, hint="add rows: irc.register_onnx_op")  # fmt: skip


def _all_nodes(proto: Any, context: ModelContext) -> Iterator[tuple[Any, int]]:
    """Every node of the graphs and of the functions that are reached, with its opset."""
    pending: list[tuple[Any, Mapping[str, int], int]] = [(proto.graph.node, context.opsets, 0)]
    seen: set[tuple[str, str]] = set()
    while pending:
        nodes, opsets, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise InvalidModelError("E0114", f"graphs are nested more than {MAX_DEPTH} deep")
        for node in nodes:
            texts = (node.name, node.op_type, node.domain, *node.input, *node.output)
            _check_texts((*texts, *[a.name for a in node.attribute]))
            key = _domain(node.domain, node.op_type)
            yield node, opsets.get(key[0], 0)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    _check_names(graph)
                    if graph.node:
                        pending.append((graph.node, opsets, depth + 1))
            function = context.functions.get(key)
            if function is not None and key not in seen:
                seen.add(key)
                own = {_domain(o.domain, "")[0]: o.version for o in function.opset_import}
                pending.append((function.node, own, depth + 1))


def _check_names(graph: Any) -> None:
    """Names of a graph and of what it declares are text."""
    declared = [*graph.input, *graph.output]
    _check_texts((graph.name, *[v.name for v in declared], *[t.name for t in graph.initializer]))
    for v in declared:
        _check_texts([d.dim_param for d in v.type.tensor_type.shape.dim])


def _check_texts(texts: Sequence[Any]) -> None:
    """Protobuf gives bytes where a text is not valid UTF-8."""
    for text in texts:
        if not isinstance(text, str):
            raise InvalidModelError("E0103", f"the name {text!r} is not valid UTF-8")


# ---- the main graph


def _import_main(
    graph: Any, context: ModelContext, shapes: dict[str, Any], stored: Stored
) -> Module:
    initial = {t.name for t in graph.initializer} | {
        s.values.name for s in graph.sparse_initializer
    }
    inputs = [v for v in graph.input if v.name not in initial]
    unknown = [name for name in shapes if name not in {v.name for v in inputs}]
    if unknown:
        raise Error("E0116", f"the model has no input '{unknown[0]}'",
                    details=("inputs: " + ", ".join(v.name for v in inputs),))  # fmt: skip
    types = _Dims(inputs, shapes).types()
    func = Func.make("main", types, [v.name for v in inputs])
    main = Graph(context, Builder(func.body))
    for declared, arg in zip(inputs, func.args):
        main.define(declared.name, Item(arg.tensor, main.b, "graph input", made=arg),
                    "the graph's inputs")  # fmt: skip
    results = [item.value for item in main.run(graph, stored)]
    for declared, value in zip(graph.output, results):
        _check_declared(declared, value.type)
    main.b.loc = None
    main.b.return_(*results)
    func.set_attr("outputs", tuple(o.name for o in graph.output))
    _drop_unused(func)
    return Module.make([func], _identifier(graph.name) or "module")


def _check_declared(declared: Any, found: Any) -> None:
    """Hold an output's declared type against the real one.

    Another element type is an error (E0125); other extents, which exporters get wrong when they
    were told of some axes only, are a warning.
    """
    if declared.type.WhichOneof("value") != "tensor_type" or not isinstance(found, TensorType):
        return
    tensor = declared.type.tensor_type
    where = f"output '{declared.name}'"
    dtype = dtype_of(tensor.elem_type, where) if tensor.elem_type else found.dtype
    if dtype is not found.dtype:
        raise InvalidModelError(
            "E0125", "an output has another element type than the model declares", where=where,
            details=(f"declared {dtype}", f"found {found}"))  # fmt: skip
    if not tensor.HasField("shape") or found.shape is None:
        return
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    pairs = zip(dims, found.shape)
    if len(dims) != len(found.shape) or any(
        [d is not None and isinstance(e, int) and d != e for d, e in pairs]
    ):
        said = ", ".join(["?" if d is None else str(d) for d in dims])
        warnings.warn(f"{where} is declared with shape [{said}], it has {found}", stacklevel=2)


def _drop_unused(func: Func) -> None:
    """Erase what became unused because known values took its place."""
    op = func.body.last
    while op is not None:
        before = op.prev
        if op.pure and not any(result.uses for result in op.results):
            op.erase()
        op = before


class _Dims:
    """The types of the inputs: extents given, named or fresh."""

    def __init__(self, inputs: Sequence[Any], shapes: dict[str, Any]) -> None:
        self.inputs = inputs
        self.shapes = shapes
        self.extents: dict[str, DimLike] = {}
        self.taken: set[str] = set()

    def types(self) -> list[TensorType]:
        """One tensor type per input; a name fixed at one input is fixed at all."""
        declared = [self._declared(v) for v in self.inputs]
        for v, (_, dims) in zip(self.inputs, declared):
            for dim, want in zip(dims or (), self.shapes.get(v.name, ())):
                if isinstance(dim, str) and want is not None:
                    self._fix(v.name, dim, want)
        return [
            TensorType(dtype, tuple(self._extents(v.name, dims)))
            for v, (dtype, dims) in zip(self.inputs, declared)
        ]

    def _declared(self, v: Any) -> tuple[Any, list[int | str | None] | None]:
        """Element type and extents (number, name, None) of an input."""
        where = f"input '{v.name}'"
        kind = v.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError("E0105", "only tensors can be inputs", where=where,
                                   details=(f"found {kind or 'no type'}",))  # fmt: skip
        tensor = v.type.tensor_type
        dtype = dtype_of(tensor.elem_type, where)
        given = self.shapes.get(v.name)
        if not tensor.HasField("shape"):
            if given is None:
                raise UnsupportedError("E0105", "the rank of an input is not known", where=where,
                                       hint="give its shape with shapes=")  # fmt: skip
            return dtype, [None] * len(given)
        dims = [d.dim_param or (d.dim_value if d.HasField("dim_value") else None)
                for d in tensor.shape.dim]  # fmt: skip
        if len(dims) > MAX_RANK or any(isinstance(d, int) and d < 0 for d in dims):
            raise InvalidModelError("E0105", "the shape of an input is impossible", where=where,
                                    details=(f"found {dims[:MAX_RANK]}",))  # fmt: skip
        if given is not None and len(given) != len(dims):
            raise Error(
                "E0116", f"input '{v.name}' has {len(dims)} axes, shapes= gives {len(given)}"
            )
        return dtype, dims

    def _fix(self, name: str, dim: str, want: int | str) -> None:
        extent = want if isinstance(want, int) else sym(self._symbol(want))
        have = self.extents.setdefault(dim, extent)
        if have is not extent and have != extent:
            raise Error("E0116", f"shapes= gives '{dim}' both as {have} and as {extent}",
                        where=f"input '{name}'")  # fmt: skip

    def _extents(self, name: str, dims: Sequence[Any] | None) -> Iterator[DimLike]:
        given = self.shapes.get(name) or [None] * len(dims or ())
        for axis, (dim, want) in enumerate(zip(dims or (), given)):
            if isinstance(want, int) and (want < 0 or isinstance(dim, int) and want != dim):
                raise Error("E0116", f"axis {axis} of input '{name}' cannot be {want}",
                            details=(f"the model says {dim}",))  # fmt: skip
            if isinstance(dim, int):
                yield dim
            elif isinstance(dim, str):
                if dim not in self.extents:
                    self.extents[dim] = sym(self._symbol(dim))
                yield self.extents[dim]
            elif want is not None:
                yield want if isinstance(want, int) else sym(_identifier(want))
            else:
                yield sym(self._symbol(f"{name}_{axis}"))

    def _symbol(self, text: str) -> str:
        """A free name for a dim that is no loop variable's."""
        name = _identifier(text) or "dim"
        if re.fullmatch(r"[a-z]{1,2}\d*|_v\d+|min|max", name):
            name = name.capitalize() if name[0] != "_" else "D" + name
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _identifier(text: str) -> str:
    """`text` with what no name may hold replaced by underscores."""
    made = re.sub(r"[^A-Za-z0-9_]", "_", text)[:80]
    return "_" + made if made[:1].isdigit() else made


__all__ = ["Shapes", "load"]
