"""From anything that names a model to a module, and from a module to something that runs.

The functions behind `irc.load`, `irc.compile` and `irc.open`, and the steps between, which the
subcommands use one by one.  Heavy packages are imported where used: onnx only for an ONNX model,
llvmlite only for compiled code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import Error, UnsupportedError

if TYPE_CHECKING:
    from ..backends.cpu.build import Built, CpuExecutable
    from ..backends.cpu.mixed import MixedExecutable
    from ..backends.executable import Executable
    from ..backends.reference import ReferenceExecutable
    from ..ir.ops.core import Module
    from ..passes.pipeline import Compiled, Options
    from .targets import Choice

Shapes = Mapping[str, Sequence[int]]

TEXT_SUFFIXES = (".ir", ".irc")
PLAN_SUFFIX = ".ircx"
PRECISIONS = ("f32", "bf16", "f16", "tf32")


def load(model: Any, shapes: Shapes | None = None) -> Module:
    """The module of an ONNX file, its bytes or ModelProto, of an `.ir` or an `.irc` file.

    `shapes` gives the inputs of an ONNX model extents, so that what depends on them folds.  A
    module is given back as it is.  Errors: E0101 there is no such model, E0102 no kind of model
    that is known; the readers' own for damaged ones.
    """
    from ..ir.ops.core import Module

    shapes = checked_shapes(shapes)
    if isinstance(model, Module):
        return model
    if isinstance(model, (bytes, bytearray, memoryview)) or hasattr(model, "SerializeToString"):
        return _onnx(model, shapes)
    if not isinstance(model, (str, os.PathLike)):
        raise Error(
            "E0102",
            f"a {type(model).__name__} is no model",
            hint="a path, the bytes of an ONNX file, a ModelProto or an irc.Module",
        )
    return _load_file(Path(model), shapes)


def checked_shapes(shapes: Any) -> Shapes | None:
    """Extents by name as tuples of ints; E0320 for what is no such thing."""
    try:
        return {str(name): tuple([index(e) for e in shapes[name]]) for name in shapes or {}} or None
    except (TypeError, LookupError):
        raise Error(
            "E0320",
            "shapes are extents by the name of an input",
            details=(f"found {shapes!r}"[:200],),
            hint='shapes={"x": (1, 3, 224, 224)}',
        ) from None


def _load_file(path: Path, shapes: Shapes | None) -> Module:
    """By suffix, and where that says nothing by the first bytes."""
    head = first_bytes(path)
    if path.suffix == PLAN_SUFFIX:
        raise Error("E0102", f"{path} is a compiled plan", hint="irc.open reads it, and `irc run`")
    if path.suffix in TEXT_SUFFIXES or (head.startswith(b"PK") and path.suffix != ".onnx"):
        from ..ir.archive import load as load_archive
        from ..ir.verify import verify

        module = load_archive(path)
        verify(module)
        return module
    return _onnx(path, shapes)


def first_bytes(path: Path) -> bytes:
    """The head of a file; E0101 where it cannot be read."""
    try:
        if path.is_dir():
            raise Error("E0101", f"{path} is a folder", hint="name the model file in it")
        with path.open("rb") as file:
            return file.read(4)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        said = getattr(error, "strerror", None) or error
        raise Error("E0101", f"cannot read {path}: {said}") from None


def _onnx(model: Any, shapes: Shapes | None) -> Module:
    from ..frontends.onnx import load as load_onnx

    return load_onnx(model, shapes=shapes)


def open_plan(path: str | os.PathLike[str]) -> Executable:
    """The executable in an `.ircx` file; nothing is compiled.  Errors: E0508, E0509, E0497."""
    from ..backends.cpu.archive import open_archive

    if not isinstance(path, (str, os.PathLike)):
        raise Error("E0102", f"a {type(path).__name__} is no path of a plan")
    return open_archive(path)


def compile(
    model: Any,
    target: str = "cpu",
    threads: int | None = None,
    precision: str = "f32",
    shapes: Shapes | None = None,
    say: Callable[[str], None] | None = None,
) -> Executable | MixedExecutable | ReferenceExecutable:
    """An executable of a model (anything `load` takes) for a target that runs on this machine.

    `threads` goes before IRC_NUM_THREADS, that before the cores allowed; `shapes` gives inputs
    extents; `say` hears what is being done.  Errors: E0401 unknown target, E0402 it does not run
    here, E0404 unknown precision.
    """
    from .targets import choose

    choice = choose(target, threads)
    check_precision(precision, choice)
    check_runs(choice)
    shapes = checked_shapes(shapes)
    module = load(model, shapes)
    if choice.backend == "reference":
        return reference(module, shapes)
    return executable(module, choice, _heard(say), shapes)


def _heard(say: Callable[[str], None] | None) -> Options | None:
    """The pipeline's options for a listener, who hears of each pass."""
    from ..passes.pipeline import Options

    if say is None:
        return None
    return Options(on_pass=lambda step, module, seconds: say(f"behind {step.name}"))


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
    from ..backends.reference import ReferenceExecutable
    from ..passes.specialise import specialise

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
    from ..backends.cpu.build import CpuExecutable

    made = compiled_now(module, choice, options, shapes)
    if key is not None and isinstance(made, CpuExecutable):
        from ..backends.cpu.programs import keep

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
        from ..backends.llvm.compile import prepare

        prepare()
    try:
        return build(lower(module, choice, options, shapes), choice)
    except UnsupportedError as refusal:
        if refusal.code != "E0431" or choice.backend != "cpu":
            raise
    from ..backends.cpu.mixed import build_mixed
    from ..passes.pipeline import Options

    until = replace(options or Options(), to_phase="loops")
    return build_mixed(lower(module, choice, until, shapes).module, choice.target)


def find_program(key: str | None) -> CpuExecutable | None:
    """The program of that name on disk, if it was compiled before."""
    if key is None:
        return None
    from ..backends.cpu.programs import find

    return find(key)


def keep_program(key: str | None, path: Path, compiled: Compiled) -> None:
    """Keep the plan just written to `path` for the next time."""
    if key is None or compiled.planned is None:
        return
    import shutil

    from ..backends.cpu.programs import keep
    from ..ir.archive import replacing

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
    from ..backends.cpu import programs

    shapes = shapes or (options.shapes if options is not None else None)
    given = specialise(module, shapes) if shapes else module
    return programs.program_key(given, choice.target, choice.codegen)


def build(compiled: Compiled, choice: Choice) -> Executable:
    """The executable of a lowered module, in this process."""
    assert compiled.planned is not None
    if choice.backend == "c":
        from ..backends.c.build import CExecutable

        return CExecutable(compiled.planned)
    from ..backends.cpu.build import build as build_cpu

    return build_cpu(
        compiled.planned, choice.target, threads=choice.target.threads, codegen=choice.codegen
    )


def built(compiled: Compiled, choice: Choice) -> Built:
    """The objects of a lowered module, for a target that need not be this machine."""
    from ..backends.cpu.build import compile_plan

    assert compiled.planned is not None
    return compile_plan(
        compiled.planned,
        codegen=choice.codegen,
        threads=choice.target.threads,
        bits=choice.target.vector_bits,
    )


__all__ = [
    "PLAN_SUFFIX",
    "Shapes",
    "build",
    "built",
    "check_precision",
    "check_runs",
    "compile",
    "compiled_now",
    "executable",
    "find_program",
    "keep_program",
    "load",
    "lower",
    "open_plan",
    "program_key",
    "reference",
]
