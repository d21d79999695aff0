"""From a planned module to an executable on this machine: LLVM text, objects, linked in memory.

Each kernel is one text, so that the cache on disk keeps them apart; the plan is a text of its own.
May import: ir, passes, the llvm backend, the files beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...ir.core import Op
from ...ir.errors import UnsupportedError
from ...ir.target import Target
from ...ir.types import element, f16
from ...passes.plan import Planned
from ..arrays import Array, weight_image
from ..executable import Executable, Program, host_functions
from ..llvm.compile import CodegenTarget, compile_many
from ..llvm.emit import emit_func
from .engine import Engine
from .host import codegen_target, vector_bits
from .pool import pool

CONTEXT = "irc_context_parallel"

BRIDGE = f"""\
; The first field of a context: hands a loop to the pool (its handle and function: fields 3, 4).
define i32 @{CONTEXT}(ptr %ctx, ptr %fn, ptr %arg, i64 %n) nounwind {{
  %p = getelementptr ptr, ptr %ctx, i64 2
  %pool = load ptr, ptr %p
  %q = getelementptr ptr, ptr %ctx, i64 3
  %for = load ptr, ptr %q
  %status = tail call i32 %for(ptr %pool, ptr %fn, ptr %arg, i64 %n)
  ret i32 %status
}}
"""


@dataclass(frozen=True)
class Built:
    """Everything that running a plan needs, in a form that can be kept in a file."""

    program: Program
    objects: dict[str, bytes]
    entry: str
    codegen: CodegenTarget
    threads: int


def texts(planned: Planned, bits: int) -> dict[str, str]:
    """The LLVM text of each kernel, of the plan and of the bridge to the thread pool."""
    return dict(_texts(planned, bits))


def _texts(planned: Planned, bits: int) -> Iterator[tuple[str, str]]:
    """The same, one by one."""
    for kernel in planned.kernels:
        apart = kernel.sym not in planned.overwriting
        yield kernel.sym, emit_func(kernel, vector_bits=bits, noalias=apart)
    yield "irc.plan", emit_func(planned.func, vector_bits=bits)
    yield "irc.context", BRIDGE


def compile_plan(
    planned: Planned,
    *,
    codegen: CodegenTarget | None = None,
    threads: int = 1,
    bits: int | None = None,
    workers: int | None = None,
) -> Built:
    """Compile every kernel and the plan; `codegen` is this machine by default."""
    codegen = codegen or codegen_target()
    refuse_half(planned, codegen)
    bits = vector_bits(_present(codegen)) if bits is None else bits
    objects = compile_many(_texts(planned, bits), codegen, workers)
    return Built(Program.of(planned), objects, f"{planned.func.sym}.entry", codegen, threads)


def refuse_half(planned: Planned, codegen: CodegenTarget) -> None:
    """Raise E0425 for f16 on an x86 processor without F16C: LLVM would call a library for it."""
    if codegen.arch != "x86_64" or "f16c" in _present(codegen):
        return
    for kernel in planned.kernels:
        values = [*kernel.args, *[r for op in kernel.walk() for r in op.results]]
        if any(element(v.type) is f16 for v in values):
            raise UnsupportedError(
                "E0425",
                f"kernel {kernel.sym} computes with f16, which this processor cannot convert",
                where=kernel.loc,
                hint="a target with F16C (x86_64-linux-v3), or a model in f32",
            )


def _present(codegen: CodegenTarget) -> frozenset[str]:
    return frozenset([f[1:] for f in codegen.features.split(",") if f.startswith("+")])


def load(built: Built, weights: Array, host_ops: Mapping[str, Op]) -> CpuExecutable:
    """Link the objects and make an executable; its threads are those of the process's pool."""
    engine = Engine(built.objects)
    context = context_of(engine, built.threads)
    return CpuExecutable(built, engine, weights, context, host_ops)


def context_of(engine: Engine, threads: int) -> list[int]:
    """The fields of a context: serial, or with the process's pool of so many threads."""
    if threads == 1:
        return [0, 0]
    workers = pool(threads)
    return [engine.address(CONTEXT), 0, workers.handle, workers.parallel_for]


def build(
    planned: Planned,
    target: Target | None = None,
    *,
    threads: int | None = None,
    codegen: CodegenTarget | None = None,
    workers: int | None = None,
) -> Executable:
    """The executable of a planned module.  E0440 names every host step where the target has no
    host.
    """
    if target is not None and not target.host:
        refuse_host_steps(planned, target.name)
    count = threads or (target.threads if target is not None else 1)
    bits = target.vector_bits if target is not None else None
    built = compile_plan(planned, codegen=codegen, threads=count, bits=bits, workers=workers)
    image = weight_image(planned.weights, planned.weight_bytes)
    return load(built, image, planned.host_steps)


def refuse_host_steps(planned: Planned, target: str) -> None:
    """Raise E0440, naming every op that only a host could run, unless there is none."""
    if planned.host_steps:
        ops = [
            f"'{op.name}' at {op.loc}" if op.loc else f"'{op.name}'"
            for op in planned.host_steps.values()
        ]
        raise UnsupportedError(
            "E0440", f"target {target} has no host to run {len(ops)} of the ops", details=ops
        )


class CpuExecutable(Executable):
    """An executable linked into this process, which can also be written to a file."""

    def __init__(
        self,
        built: Built,
        engine: Engine,
        weights: Array,
        context: Sequence[int],
        host_ops: Mapping[str, Op],
    ) -> None:
        """Take the entry point of a linked engine."""
        super().__init__(
            built.program,
            engine.address(built.entry),
            weights,
            keep=engine,
            context=context,
            host=host_functions(host_ops),
        )
        self.built = built
        self.host_ops = dict(host_ops)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.ircx` file, which `irc.open` loads without compiling anything."""
        from .archive import save  # it reads this module

        save(self.built, self.weights, self.host_ops, path)


__all__ = [
    "Built",
    "CpuExecutable",
    "build",
    "compile_plan",
    "context_of",
    "load",
    "refuse_host_steps",
    "texts",
]
