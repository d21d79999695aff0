"""Ahead of time: a planned module to objects for any machine LLVM knows, and from them a static
archive, a shared library or a program.

The archive needs no tool.  A library or a program is linked by the C compiler of the machine it is
for: cc here, else ARCH-linux-gnu-gcc, else zig (extra `cross`).  Only `NAME_run` and the thread
pool are visible.  May import: ir, passes, the LLVM and C backends, the files beside it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...ir.errors import EXIT_NO_TOOLCHAIN, Error
from ...ir.ops.core import Func
from ...ir.target import Target
from ...passes.plan import Planned
from ..arrays import Array, is_packed, pack, unpack, weight_image
from ..c.build import compiler, run_compiler
from ..executable import Executable, Program
from ..llvm.compile import CodegenTarget, compile_many
from ..llvm.emit import emit_func
from ..llvm.pool import pool_text
from .aot_face import Face, entry_text
from .build import BRIDGE, CONTEXT, refuse_host_steps
from .elf import archive, constants_object
from .host import host

_POOL_SYMBOLS = ("irc_pool_create", "irc_pool_destroy", "irc_parallel_for")


@dataclass(frozen=True)
class Ahead:
    """A model compiled ahead of time: objects by file name, what each defines, and its C face."""

    name: str
    program: Program
    codegen: CodegenTarget
    objects: dict[str, bytes]
    symbols: dict[str, tuple[str, ...]]
    header: str
    main: str

    def archive(self, folder: Path | str) -> Path:
        """Write libNAME.a and NAME.h; needs no tool."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{self.name}.h").write_text(self.header)
        path = place / f"lib{self.name}.a"
        path.write_bytes(archive(self.objects, self.symbols))
        return path

    def shared(self, folder: Path | str) -> Path:
        """Write libNAME.so and NAME.h."""
        path = Path(folder) / f"lib{self.name}.so"
        whole = ["-Wl,--whole-archive", f"lib{self.name}.a", "-Wl,--no-whole-archive"]
        self._link(Path(folder), path, ["-shared", *whole])
        return path

    def executable(self, folder: Path | str, static: bool = True) -> Path:
        """Write a program: `PROGRAM DIM... INPUT-FILE... OUTPUT-FILE...`."""
        path = Path(folder) / self.name
        how = ["-static"] if static else []
        self._link(Path(folder), path, [*how, "main.c", f"lib{self.name}.a"], self.main)
        return path

    def _link(self, folder: Path, path: Path, arguments: Sequence[str], main: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as held:
            self.archive(held)
            (Path(held) / "main.c").write_text(main)
            flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"]
            made = Path(held) / "made"
            command = [*flags, "-o", str(made), *arguments, "-lm", "-Wl,-z,stack-size=8388608"]
            run_compiler(command, Path(held), linker(self.codegen.arch))
            shutil.copyfile(Path(held) / f"{self.name}.h", folder / f"{self.name}.h")
            shutil.copy(made, path)

    def run(self, program: Path, inputs: Mapping[str, Array] | Sequence[Array],
            runner: Sequence[str] = (), timeout: float = 300.0) -> list[Array]:  # fmt: skip
        """What the program gives for these inputs; `runner` is an emulator's command.

        Errors: those of any executable for wrong inputs; E0448 with the program's words where it
        fails.
        """
        fields = self.program.inputs
        given = [inputs[n] for n, _ in fields] if isinstance(inputs, Mapping) else list(inputs)
        face = Executable(self.program, 0, np.empty(0, np.uint8))
        frame = face._frame([face._accept(k, x) for k, x in enumerate(given)])
        with tempfile.TemporaryDirectory() as held:
            files = [str(Path(held) / f"in{k}") for k in range(len(given))]
            for path, x, (_, t) in zip(files, given, fields, strict=True):
                Path(path).write_bytes(
                    (pack(x, t.dtype) if is_packed(t.dtype) else np.ascontiguousarray(x)).tobytes()
                )
            outs = [str(Path(held) / f"out{k}") for k in range(len(self.program.results))]
            values = [str(frame.dims[d]) for d in self.program.dims]
            command = [*runner, str(program), *values, *files, *outs]
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
            if done.returncode:
                said = (done.stderr or done.stdout).splitlines()[:12]
                raise Error("E0448", f"{program.name} ended with {done.returncode}", details=said)
            raws = [np.fromfile(path, np.uint8) for path in outs]
        shapes = {k: shape for k, shape, _ in frame.outputs}
        shapes |= {r: given[p].shape for p, r in self.program.state}
        return [
            unpack(raw, t.dtype, shapes[k])
            if is_packed(t.dtype)
            else raw.view(t.dtype.np).reshape(shapes[k])
            for k, (raw, (_, t)) in enumerate(zip(raws, self.program.results, strict=True))
        ]


def compile_ahead(
    planned: Planned,
    target: Target,
    codegen: CodegenTarget,
    name: str = "model",
    workers: int | None = None,
) -> Ahead:
    """Compile a planned module for a machine; its symbols begin with `name`.

    Errors: E0440 names every op that would need a host, E0493 no thread pool for the machine.
    """
    refuse_host_steps(planned, target.name)
    program = Program.of(planned)
    texts, symbols = {}, {}
    for k, func in enumerate([*planned.kernels, planned.func]):
        plan = func is planned.func
        made = prefixed(func, name)
        file = f"{name}.{'plan' if plan else k}.o"
        apart = not plan and func.sym not in planned.overwriting
        text = emit_func(made, vector_bits=target.vector_bits, noalias=apart)
        texts[file] = re.sub(r"^(define|declare) i32 @", r"\1 hidden i32 @", text, flags=re.M)
        symbols[file] = (made.sym,)
    texts[f"{name}.o"] = entry_text(name, program, planned.weight_bytes > 0)
    symbols[f"{name}.o"] = (f"{name}_run",)
    if target.threads > 1:
        texts["irc_pool.o"], symbols["irc_pool.o"] = pool_text(codegen.arch), _POOL_SYMBOLS
        texts["irc_context.o"], symbols["irc_context.o"] = BRIDGE, (CONTEXT,)
    objects = compile_many(texts, codegen, workers)
    if planned.weight_bytes:
        image = weight_image(planned.weights, planned.weight_bytes)
        symbol = f"{name}_weights"
        objects[f"{symbol}.o"] = constants_object(symbol, memoryview(image), codegen.arch)  # type: ignore[arg-type]
        symbols[f"{symbol}.o"] = (symbol,)
    face = Face(name, program, target.threads)
    return Ahead(name, program, codegen, objects, symbols, face.header(), face.main())


def prefixed(func: Func, name: str) -> Func:
    """A copy whose own symbol, and those that it calls, begin with the model's name."""
    made = func.copy()
    made.set_attr("sym", f"{name}_plan" if func.kind == "plan" else f"{name}_{func.sym}")
    for op in made.walk():
        if op.name == "loop.call":
            op.set_attr("callee", f"{name}_{op.attributes['callee']}")
    return made


def linker(arch: str) -> list[str]:
    """The command of a C compiler that links for an architecture on Linux; E0445 where none is."""
    if arch == host().arch:
        return compiler().split()
    cross = shutil.which(os.environ.get("CROSS_CC", f"{arch}-linux-gnu-gcc"))
    if cross is not None:
        return [cross]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"]
    raise Error(
        "E0445",
        f"no C compiler for {arch} is on the PATH",
        hint=f"pip install 'tensor-irc[cross]', or install {arch}-linux-gnu-gcc",
        exit_code=EXIT_NO_TOOLCHAIN,
    )


__all__ = ["Ahead", "compile_ahead", "linker", "prefixed"]
