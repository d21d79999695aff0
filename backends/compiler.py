"""From a module to something that runs: the pipeline for a target, then its backend.

Compiled programs are kept on disk by the name of module, target and compiler.  What loads models is
elsewhere (frontends, tools).  Heavy packages are imported where used: llvmlite only for compiled
code.  May import: ir, passes, the backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import Error, UnsupportedError

if TYPE_CHECKING:
    from ..ir.ops.core import Module
    from ..passes.pipeline import Compiled, Options
    from .cpu.build import Built, CpuExecutable
    from .cpu.mixed import MixedExecutable
    from .executable import Executable
    from .reference import ReferenceExecutable
    from .targets import Choice

Shapes = Mapping[str, Sequence[int]]

PRECISIONS = ("f32", "bf16", "f16", "tf32")


def check_precision(precision: str, choice: Choice) -> None:
    """Refuse a precision that is unknown (E0404) or that the target does not have (E0405)."""
    if precision not in PRECISIONS:
        raise Error(
            "E0404", f"unknown precision '{precision}'", hint=f"one of {', '.join(PRECISIONS)}"
        )
    if precision != "f32":
        raise UnsupportedError(
            "E0405",
            f"target {choice.name} computes f32 models in f32, not in {precision}",
            hint="models whose own tensors are f16 or bf16 run as they are",
        )


def check_runs(choice: Choice) -> None:
    """Raise E0402 where code for the target cannot run here."""
    lacking = choice.lacking()
    if lacking:
        raise UnsupportedError(
            "E0402",
            f"code for {choice.name} does not run on this machine",
            details=(f"lacking here: {', '.join(lacking)}",),
            hint=f"irc compile MODEL --target {choice.name} writes it to a file",
        )


def reference(module: Module, shapes: Shapes | None = None) -> ReferenceExecutable:
    """The module as it is, run by its ops' own semantics."""
    from ..passes.specialise import specialise
    from .reference import ReferenceExecutable

    return ReferenceExecutable(specialise(module, shapes) if shapes else module)


def lower(
    module: Module,
    choice: Choice,
    options: Options | None = None,
    shapes: Shapes | None = None,
) -> Compiled:
    """The pipeline for a target, as far as the options say."""
    from ..passes.pipeline import Options, compile_module

    options = options or Options()
    if shapes:
        options = replace(options, shapes=shapes)
    return compile_module(module, choice.target, options)


def executable(
    module: Module,
    choice: Choice,
    options: Options | None = None,
    shapes: Shapes | None = None,
) -> Executable | MixedExecutable:
    """The executable of a module, in this process; one compiled before is found on disk."""
    key = program_key(module, choice, options, shapes)
    known = find_program(key)
    if known is not None:
        return known
    from .cpu.build import CpuExecutable

    made = compiled_now(module, choice, options, shapes)
    if key is not None and isinstance(made, CpuExecutable):
        from .cpu.programs import keep

        keep(key, made.save, made.program.weight_bytes)
    return made


def compiled_now(
    module: Module,
    choice: Choice,
    options: Options | None = None,
    shapes: Shapes | None = None,
) -> Executable | MixedExecutable:
    """The executable of a module, compiled whether or not it has been before.

    Shapes that depend on data fit no plan; on a target with a host such a program runs op by op
    there, its kernels compiled.
    """
    if choice.backend == "cpu":
        from .llvm.compile import prepare

        prepare()
    try:
        return build(lower(module, choice, options, shapes), choice)
    except UnsupportedError as refusal:
        if refusal.code != "E0431" or choice.backend != "cpu":
            raise
    from ..passes.pipeline import Options
    from .cpu.mixed import build_mixed

    until = replace(options or Options(), to_phase="loops")
    return build_mixed(lower(module, choice, until, shapes).module, choice.target)


def find_program(key: str | None) -> CpuExecutable | None:
    """The program of that name on disk, if it was compiled before."""
    if key is None:
        return None
    from .cpu.programs import find

    return find(key)


def keep_program(key: str | None, path: Path, compiled: Compiled) -> None:
    """Keep the plan just written to `path` for the next time."""
    if key is None or compiled.planned is None:
        return
    import shutil

    from ..ir.archive import replacing
    from .cpu.programs import keep

    def save(place: Path) -> None:
        with path.open("rb") as source, replacing(place) as copy:
            shutil.copyfileobj(source, copy)

    if path.is_file():
        keep(key, save, compiled.planned.weight_bytes)


def program_key(
    module: Module, choice: Choice, options: Options | None, shapes: Shapes | None
) -> str | None:
    """The name of the program on disk; None where it is not to be kept: other backends than cpu,
    and options that want to see the passes at work.
    """
    from ..passes.pipeline import Options
    from ..passes.specialise import specialise

    plain = replace(options or Options(), on_pass=None, shapes=None)
    if choice.backend != "cpu" or choice.codegen is None or plain != Options():
        return None
    from .cpu import programs

    shapes = shapes or (options.shapes if options is not None else None)
    given = specialise(module, shapes) if shapes else module
    return programs.program_key(given, choice.target, choice.codegen)


def build(compiled: Compiled, choice: Choice) -> Executable:
    """The executable of a lowered module, in this process."""
    assert compiled.planned is not None
    if choice.backend == "c":
        from .c.build import CExecutable

        return CExecutable(compiled.planned)
    from .cpu.build import build as build_cpu

    return build_cpu(
        compiled.planned, choice.target, threads=choice.target.threads, codegen=choice.codegen
    )


def built(compiled: Compiled, choice: Choice) -> Built:
    """The objects of a lowered module, for a target that need not be this machine."""
    from .cpu.build import compile_plan

    assert compiled.planned is not None
    return compile_plan(
        compiled.planned,
        codegen=choice.codegen,
        threads=choice.target.threads,
        bits=choice.target.vector_bits,
    )


__all__ = [
    "PRECISIONS", "Shapes", "build", "built", "check_precision", "check_runs", "compiled_now",
    "executable", "find_program", "keep_program", "lower", "program_key", "reference",
]  # fmt: skip
