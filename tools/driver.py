"""From anything that names a model to a module, and from a module to something that runs.

The functions behind `irc.load`, `irc.compile` and `irc.open`, and the steps between, which the
subcommands use one by one.  Heavy packages are imported where used: onnx only for an ONNX model,
llvmlite only for compiled code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import Error

if TYPE_CHECKING:
    from ..backends.cpu.mixed import MixedExecutable
    from ..backends.executable import Executable
    from ..backends.reference import ReferenceExecutable
    from ..ir.ops.core import Module
    from ..passes.pipeline import Options
    from .compiled import CompiledFunction

Shapes = Mapping[str, Sequence[int]]

TEXT_SUFFIXES = (".ir", ".irc")
PLAN_SUFFIX = ".ircx"


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
) -> Executable | MixedExecutable | ReferenceExecutable | CompiledFunction:
    """An executable of a model (anything `load` takes) for a target that runs on this machine.

    A Python function or an nn.Module becomes a function that is traced and compiled on its first
    call with each kind of inputs (see tools/compiled.py).

    `threads` goes before IRC_NUM_THREADS, that before the cores allowed; `shapes` gives inputs
    extents; `say` hears what is being done.  Errors: E0401 unknown target, E0402 it does not run
    here, E0404 unknown precision.
    """
    from ..backends.compiler import check_precision, check_runs, executable, reference
    from ..backends.targets import choose

    choice = choose(target, threads)
    check_precision(precision, choice)
    check_runs(choice)
    shapes = checked_shapes(shapes)

    def made(module: Module) -> Executable | MixedExecutable | ReferenceExecutable:
        if choice.backend == "reference":
            return reference(module, shapes)
        return executable(module, choice, _heard(say), shapes)

    if callable(model) and not isinstance(model, type):
        from .compiled import CompiledFunction

        return CompiledFunction(model, made)
    return made(load(model, shapes))


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    opset: int | None = None,
    *,
    example: Any = None,
    **options: Any,
) -> int:
    """Write a module, or a network traced on `example` inputs, as an ONNX file; gives the opset.

    `example` is one input or a tuple of several: tensors, arrays, or `nn.Spec(("N", 784))` for
    symbolic extents; without it the inputs of the network's first call serve.  `options` are those
    of the exporter: `metadata`, a dict of texts, and `external_bytes`, from which weights go to a
    file of their own.  Errors: E0622 there are no inputs, E0102, E0118 to E0120, E0264.
    """
    from ..frontends.onnx import export_onnx as write

    if callable(model) and not isinstance(model, type):
        from ..frontends.nn.saving import program

        model = program(model, example)
    return write(model, path, opset, **options)


def _heard(say: Callable[[str], None] | None) -> Options | None:
    """The pipeline's options for a listener, who hears of each pass."""
    from ..passes.pipeline import Options

    if say is None:
        return None
    return Options(on_pass=lambda step, module, seconds: say(f"behind {step.name}"))


__all__ = [
    "PLAN_SUFFIX",
    "Shapes",
    "checked_shapes",
    "compile",
    "export_onnx",
    "first_bytes",
    "load",
    "open_plan",
]
