"""What `irc compile` writes: each kind of output from a lowered module, as files made whole.

A text kind goes to stdout where no file is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..backends import compiler
from ..backends.targets import Choice
from ..ir.archive import replacing
from ..ir.errors import Error, UnsupportedError
from ..ir.text import print_op
from ..passes.pipeline import Compiled
from . import driver


@dataclass(frozen=True)
class Kind:
    """One kind of output: its file suffix, the phase it needs, whether it is text."""

    suffix: str
    phase: str
    text: bool
    backends: tuple[str, ...] = ("cpu", "c", "reference")


KINDS = {
    "plan": Kind(driver.PLAN_SUFFIX, "planned", False, ("cpu",)),
    "ir": Kind(".ir", "fused", True),
    "loops": Kind(".ir", "planned", True, ("cpu", "c")),
    "llvm": Kind(".ll", "planned", True, ("cpu",)),
    "asm": Kind(".s", "planned", True, ("cpu",)),
    "obj": Kind(".a", "planned", False, ("cpu",)),
    "c": Kind(".c", "planned", True, ("c",)),
}
"""`ir` stops before kernels are made, `loops` shows kernels and plan, `obj` is a static archive."""


def kind_of(name: str | None, choice: Choice) -> tuple[str, Kind]:
    """The kind asked for, or the target's own; E0407 where the target has none such."""
    if name is None:
        name = {"cpu": "plan", "c": "c", "reference": "ir"}[choice.backend]
    kind = KINDS[name]
    if choice.backend not in kind.backends:
        able = [n for n, k in KINDS.items() if choice.backend in k.backends]
        raise UnsupportedError(
            "E0407", f"target {choice.name} has no {name}", hint=f"it has {', '.join(able)}"
        )
    return name, kind


def text_of(name: str, compiled: Compiled, choice: Choice, stem: str) -> str:
    """The text of a text kind."""
    if name in ("ir", "loops"):
        return print_op(compiled.module) + "\n"
    assert compiled.planned is not None
    if name == "c":
        from ..backends.c.build import sources

        return sources(compiled.planned, c_name(stem)).source
    from ..backends.cpu.build import texts

    found = texts(compiled.planned, choice.target.vector_bits)
    if name == "asm":
        from ..backends.llvm.compile import assembly

        assert choice.codegen is not None
        found = {n: assembly(text, choice.codegen, name=n) for n, text in found.items()}
    mark = "#" if name == "asm" else ";"
    return "\n".join([f"{mark} ---- {n}\n{text}" for n, text in found.items()])


def write(name: str, compiled: Compiled, choice: Choice, output: Path) -> list[Path]:
    """Write the output; the old files stay until the new ones are whole.  The paths written."""
    if name == "plan":
        return _plan(compiled, choice, output)
    if name == "c":
        return _c(compiled, output)
    if name == "ir":
        compiled.module.save(str(output))
        return [output]
    if name == "obj":
        return _archive(compiled, choice, output)
    return _whole({output: text_of(name, compiled, choice, output.stem).encode()})


def _plan(compiled: Compiled, choice: Choice, output: Path) -> list[Path]:
    from ..backends.arrays import weight_image
    from ..backends.cpu.archive import save

    planned = compiled.planned
    assert planned is not None
    image = weight_image(planned.weights, planned.weight_bytes)
    save(compiler.built(compiled, choice), image, planned.host_steps, output)
    return [output]


def _archive(compiled: Compiled, choice: Choice, output: Path) -> list[Path]:
    """A static archive with the constants inside, and the header beside it."""
    from ..backends.cpu.aot import compile_ahead
    from ..backends.cpu.elf import archive

    assert compiled.planned is not None and choice.codegen is not None
    name = c_name(output.stem.removeprefix("lib"))
    made = compile_ahead(compiled.planned, choice.target, choice.codegen, name)
    header = output.with_name(f"{name}.h")
    return _whole({output: archive(made.objects, made.symbols), header: made.header.encode()})


def _c(compiled: Compiled, output: Path) -> list[Path]:
    """The source and the header beside it, which the source includes."""
    from ..backends.c.build import sources

    assert compiled.planned is not None
    made = sources(compiled.planned, c_name(output.stem))
    header = output.with_name(f"{made.name}.h")
    parts = {output: made.source.encode(), header: made.header.encode()}
    if not made.embedded:
        from ..backends.arrays import weight_image

        image = weight_image(compiled.planned.weights, compiled.planned.weight_bytes)
        parts[output.with_name(f"{made.name}.bin")] = image.tobytes()
    return _whole(parts)


def c_name(stem: str) -> str:
    """A C identifier like the file's name."""
    plain = re.sub(r"\W", "_", stem, flags=re.ASCII).lower()
    return plain if re.match(r"[a-z]", plain) else f"m_{plain}"


def _whole(parts: Mapping[Path, bytes]) -> list[Path]:
    """Write files that belong together: none takes its place before all are written."""
    for path in parts:
        check_writable(path)
    with ExitStack() as stack:
        for path, body in parts.items():
            stack.enter_context(replacing(path)).write(body)
    return list(parts)


def default_output(model: str, kind: Kind) -> Path:
    """Where a binary kind goes when no file is named: beside nothing, in the current folder."""
    return Path(Path(model).stem + kind.suffix)


def check_writable(output: Path) -> None:
    """Refuse a place that cannot be written before anything is compiled; E0264."""
    if output.is_dir():
        raise Error("E0264", f"cannot write {output}: it is a folder")
    if not output.parent.is_dir():
        raise Error("E0264", f"cannot write {output}: there is no folder {output.parent}")


__all__ = ["KINDS", "Kind", "check_writable", "default_output", "kind_of", "text_of", "write"]
