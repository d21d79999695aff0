"""Kernels and plans as LLVM text: a table from op class to lines, which takes no decisions.

Loops come scheduled and vectors made; functions of mathematics come expanded.  The text is
written directly and deterministically; target features and optimisation belong to whoever
compiles it.  See ir/kernel_abi.py for the calling convention.  emit_index.py places index
arithmetic, emit_control.py, emit_memory.py and emit_ops.py hold the rows.
Imports: ir, and the other emit_* files.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.kernel_abi import dim_parameters
from ...ir.ops.core import Func
from ...ir.types import BufferType
from .emit_control import CONTROL_ROWS
from .emit_index import Memory
from .emit_instr import INSTR_ROWS
from .emit_lanes import LANE_ROWS
from .emit_memory import MEMORY_ROWS
from .emit_ops import OP_ROWS
from .emit_writer import ModuleText, Row, Writer

ROWS: dict[str, Row] = {
    **CONTROL_ROWS,
    **MEMORY_ROWS,
    **OP_ROWS,
    **LANE_ROWS,
    **INSTR_ROWS,
}

_PARALLEL = """\
define internal i32 @irc.parallel(ptr %ctx, ptr %fn, ptr %arg, i64 %n) #0 {
entry:
  %none = icmp eq ptr %ctx, null
  br i1 %none, label %serial, label %ask
ask:
  %hook = load ptr, ptr %ctx
  %unset = icmp eq ptr %hook, null
  br i1 %unset, label %serial, label %fork
fork:
  %forked = call i32 %hook(ptr %ctx, ptr %fn, ptr %arg, i64 %n)
  ret i32 %forked
serial:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %body, label %done
body:
  %i = phi i64 [ 0, %serial ], [ %next, %more ]
  %status = call i32 %fn(ptr %arg, i64 %i)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %fail, label %more
more:
  %next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %next, %n
  br i1 %again, label %body, label %done
fail:
  ret i32 %status
done:
  ret i32 0
}
"""


def _function(module: ModuleText, func: Func) -> None:
    w = Writer(module, func.sym)
    names = dim_parameters(func)
    noalias = module.noalias and func.kind != "plan"
    params = ["ptr %ctx"]
    for k, arg in enumerate(func.args):
        assert isinstance(arg.type, BufferType)
        params.append(f"ptr {'noalias ' if noalias else ''}%arg{k}")
        w.buffers[arg] = Memory(f"%arg{k}", 0, 0, arg.type)
    for name in names:
        w.symbols[name] = f"%dim.{name}", 0
        params.append(f"i64 %dim.{name}")
    w.run(func.body)
    module.defined.add(func.sym)
    module.texts.append(w.finished(f"define i32 @{func.sym}({', '.join(params)}) #0"))
    if func.kind == "plan":
        module.texts.append(_entry(func, names))


def _entry(func: Func, names: Sequence[str]) -> str:
    """`NAME.entry(ctx, args, dims)`: the plan with its arguments in arrays."""
    lines = [f"define i32 @{func.sym}.entry(ptr %ctx, ptr %args, ptr %dims) #0 {{"]
    passed = ["ptr %ctx"]
    for array, type_, count in (("args", "ptr", len(func.args)), ("dims", "i64", len(names))):
        for k in range(count):
            lines += [
                f"  %{array}.{k} = getelementptr {type_}, ptr %{array}, i64 {k}",
                f"  %{array}.v{k} = load {type_}, ptr %{array}.{k}",
            ]
            passed.append(f"{type_} %{array}.v{k}")
    lines += [f"  %status = call i32 @{func.sym}({', '.join(passed)})", "  ret i32 %status", "}\n"]
    return "\n".join(lines)


def emit_module(funcs: Sequence[Func], *, vector_bits: int = 0, noalias: bool = True) -> str:
    """LLVM text of kernels and plans.

    `vector_bits` is the width that LLVM may assume to be wanted (512 keeps zmm registers on
    x86).  `noalias=False` is for kernels whose plan lets outputs share the memory of
    inputs.  E0420 to E0425 name what cannot be printed.
    """
    module = ModuleText(ROWS, noalias)
    for func in funcs:
        _function(module, func)
    for callee, types in module.called.items():
        if callee not in module.defined:
            module.declared[f"declare i32 @{callee}({types})"] = None
    width = (
        f' "prefer-vector-width"="{vector_bits}" "min-legal-vector-width"="{vector_bits}"'
        if vector_bits
        else ""
    )
    parts = [
        *module.declared,
        "",
        _PARALLEL if module.needs_parallel else "",
        *module.texts,
        f"attributes #0 = {{ nounwind{width} }}",
        "",
    ]
    return "\n".join(parts)


def emit_func(func: Func, *, vector_bits: int = 0, noalias: bool = True) -> str:
    """LLVM text of one kernel or plan: `emit_module` of it alone."""
    return emit_module([func], vector_bits=vector_bits, noalias=noalias)


__all__ = ["ROWS", "emit_func", "emit_module"]
