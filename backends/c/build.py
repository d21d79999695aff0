"""From a planned module to C99 sources, and to a shared library or a sanitized program made of
them.

The sources have no writable globals and call no allocator: the caller brings the arena.  Constants
are a `const` struct of typed arrays, or a pointer of the caller's where they are too many to print.
May import: ir, passes, the files beside it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...ir.blobs import Blob
from ...ir.dims import evaluate
from ...ir.errors import EXIT_NO_TOOLCHAIN, Error
from ...ir.kernel_abi import dim_parameters
from ...ir.ops.core import Func
from ...passes.places import bytes_of
from ...passes.plan import Planned
from ..arrays import Array, aligned, is_packed, pack, stored_bytes, unpack, weight_image
from ..executable import Executable, Frame, Program
from .printer import CModule, Printer, emit_blob
from .types import identifier, memory_type

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

EMBED_LIMIT = 4 << 20
"""Bytes of constants up to which they are printed into the source."""

_QUICK_EMBED = 64 << 10
"""The same where a compiler reads the source at once: it is slow on long tables."""


@dataclass(frozen=True)
class Sources:
    """C text of one model.  `embedded` says whether the constants are in it; else `run` takes their
    address.
    """

    name: str
    source: str
    header: str
    embedded: bool

    def write(self, folder: Path) -> list[Path]:
        """Write NAME.c and NAME.h."""
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for suffix, text in ((".c", self.source), (".h", self.header)):
            path = folder / (self.name + suffix)
            path.write_text(text)
            found.append(path)
        return found


def sources(planned: Planned, name: str, embed: bool | None = None) -> Sources:
    """The C text of a planned module whose functions begin with `name`.  E0440 where a host would
    be needed.
    """
    refuse_host_steps(planned)
    embed = planned.weight_bytes <= EMBED_LIMIT if embed is None else embed
    plan = planned.func.copy()
    plan.set_attr("sym", f"{name}_plan")
    module = CModule([*planned.kernels, plan], [])
    module.overwriting = planned.overwriting
    body = module.text()
    face = _Face(planned, plan, module, name, embed)
    parts = [f'#include "{name}.h"', "", body]
    if embed and planned.weight_bytes:
        parts.append(constants(name, planned.weights, planned.weight_bytes))
    parts += [face.arena_size(), face.run(), face.entry()]
    return Sources(name, "\n".join(parts), face.header(), embed)


def write_sources(planned: Planned, folder: Path | str, name: str) -> list[Path]:
    """Write NAME.c and NAME.h into a folder; gives their paths."""
    return sources(planned, name).write(Path(folder))


def refuse_host_steps(planned: Planned) -> None:
    """Raise E0440, naming every op that only a host could run, unless there is none."""
    if planned.host_steps:
        ops = [
            f"'{op.name}'" + (f" at {op.loc}" if op.loc else "")
            for op in planned.host_steps.values()
        ]
        raise Error(
            "E0440", f"C has no host to run {len(ops)} of the ops", details=ops, exit_code=3
        )


class _Face:
    """The public functions of one model."""

    def __init__(
        self, planned: Planned, plan: Func, module: CModule, name: str, embed: bool
    ) -> None:
        self.planned, self.plan, self.name, self.embed = planned, plan, name, embed
        self.dims = dim_parameters(plan)
        printer: Printer = module.printer(module)
        self.dim_names = [printer.bind(d, (0, None)) for d in self.dims]
        self.arena = printer.dim(planned.arena_bytes).text
        written = module.written(plan.sym)
        self.types = [
            ("" if k in written else "const ") + memory_type(a.buffer.dtype)
            for k, a in enumerate(plan.args[:-2])
        ]
        taken = {"arena", "weights", f"{name}_plan", f"{name}_weights", *self.dim_names}
        self.args = [identifier(arg.name or "x", taken) for arg in plan.args[:-2]]

    def prototype(self) -> str:
        """`int32_t NAME_run(...)` without its end."""
        params = [f"{t} *{n}" for t, n in zip(self.types, self.args, strict=True)]
        params += ["void *arena"] + ([] if self.embed else ["const void *weights"])
        params += [f"ptrdiff_t {n}" for n in self.dim_names]
        return f"int32_t {self.name}_run({', '.join(params)})"

    def run(self) -> str:
        """The function a program calls."""
        weights = (
            f"&{self.name}_weights"
            if self.embed and self.planned.weight_bytes
            else "0"
            if self.embed
            else "weights"
        )
        passed = [
            "0",
            *self.args,
            "(uint8_t *)arena",
            f"(const uint8_t *)(const void *){weights}",
            *self.dim_names,
        ]
        return f"{self.prototype()} {{\n    return {self.name}_plan({', '.join(passed)});\n}}\n"

    def entry(self) -> str:
        """The same with the arguments in arrays; the last pointer (the constants) counts only if
        not embedded.
        """
        count = len(self.args)
        passed = [f"({t} *)args[{k}]" for k, t in enumerate(self.types)] + [f"args[{count}]"]
        passed += ([] if self.embed else [f"args[{count + 1}]"]) + [
            f"(ptrdiff_t)dims[{k}]" for k in range(len(self.dims))
        ]
        unused = "    (void)ctx;\n" + ("" if self.dims else "    (void)dims;\n")
        call = f"    return {self.name}_run({', '.join(passed)});\n"
        return f"{self.entry_prototype()} {{\n{unused}{call}}}\n"

    def entry_prototype(self) -> str:
        """`int32_t NAME_entry(...)` without its end."""
        return f"int32_t {self.name}_entry(const void *ctx, void *const *args, const int64_t *dims)"

    def arena_prototype(self) -> str:
        """`size_t NAME_arena_bytes(...)` without its end, for a model with symbolic dims."""
        params = ", ".join([f"ptrdiff_t {n}" for n in self.dim_names])
        return f"size_t {self.name}_arena_bytes({params})"

    def arena_size(self) -> str:
        """The function behind that prototype; nothing where a macro says it."""
        if not self.dims:
            return ""
        unused = "".join([f"    (void){n};\n" for n in self.dim_names])
        return f"{self.arena_prototype()} {{\n{unused}    return (size_t)({self.arena});\n}}\n"

    def header(self) -> str:
        """NAME.h: what each argument is, and how much memory to bring."""
        upper = self.name.upper()
        size = f"#define {upper}_ARENA_BYTES ((size_t)({self.arena}))"
        if self.dims:
            size = f"{self.arena_prototype()};"
        rows = [
            f" *   {name}: {arg.buffer.dtype}[{', '.join(map(str, arg.buffer.shape))}]"
            for name, arg in zip(self.args, self.plan.args, strict=False)
        ]
        lines = [
            f"#ifndef {upper}_H",
            f"#define {upper}_H",
            "#include <stddef.h>",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* Bytes of working memory for one run, aligned to 8 or more; between runs its",
            " * content means nothing. */",
            size,
            "",
            "/* Runs the model: inputs, then outputs, all dense and row-major.  Returns 0, or",
            " * a status: 1 an index is out of range, 2 a shape contradicts the model.",
            f" * The constants take {self.planned.weight_bytes} bytes.",
            *rows,
            " */",
            f"{self.prototype()};",
            "",
            "/* The same with the arguments in arrays. */",
            f"{self.entry_prototype()};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
        return "\n".join(lines)


def constants(name: str, weights: Sequence[tuple[int, Blob]], size: int) -> str:
    """A const struct whose members lie at the planned offsets (each padded to the next multiple of
    64); those without elements have no place.
    """
    weights = [(offset, blob) for offset, blob in weights if blob.array.size]
    if not weights:
        return ""
    members, values = [], []
    ends = [offset for offset, _ in weights[1:]] + [size]
    for k, ((offset, blob), end) in enumerate(zip(weights, ends, strict=True)):
        text = emit_blob("x", blob)
        count = int(text[text.index("[") + 1 : text.index("]")])
        members.append(f"    {memory_type(blob.type.dtype)} w{k}[{count}];")
        values.append(text[text.index("=") + 2 : text.rindex(";")])
        used = stored_bytes(blob.type.dtype, blob.array.size)
        if end - offset > used:
            members.append(f"    uint8_t p{k}[{end - offset - used}];")
            values.append("{0}")
    inside = ",\n".join(values)
    return "\n".join(
        ["static const struct {", *members, f"}} {name}_weights = {{", inside, "};", ""]
    )


def compiler() -> str:
    """The system's C compiler: `CC`, else cc.  E0445 where there is none."""
    found = (
        os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    )
    if not found:
        raise Error(
            "E0445",
            "no C compiler is on the PATH",
            hint="install one or set CC",
            exit_code=EXIT_NO_TOOLCHAIN,
        )
    if not shutil.which((found.split() or [""])[0]):
        raise Error("E0445", f"there is no C compiler '{found}'", hint="CC says so",
                    exit_code=EXIT_NO_TOOLCHAIN)  # fmt: skip
    return found


def run_compiler(
    arguments: Sequence[str], folder: Path, command: Sequence[str] | None = None
) -> None:
    """Run the C compiler (the system's, unless `command` is another) in a folder; E0446 with its
    first complaints.
    """
    command = [*(command or compiler().split()), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Error(
            "E0446",
            "the C compiler refuses the sources",
            details=done.stderr.splitlines()[:12],
            hint="please report this",
            exit_code=70,
        )


class CExecutable(Executable):
    """A model printed as C, compiled by the system's compiler and loaded; the face of any
    executable.
    """

    def __init__(self, planned: Planned, name: str = "model", flags: Sequence[str] = FLAGS) -> None:
        made = sources(planned, name, embed=planned.weight_bytes <= _QUICK_EMBED)
        with tempfile.TemporaryDirectory() as held:
            folder = Path(held)
            made.write(folder)
            run_compiler(
                [*flags, "-shared", "-fPIC", "-o", f"lib{name}.so", f"{name}.c", "-lm"], folder
            )
            library = ctypes.CDLL(str(folder / f"lib{name}.so"))
        entry = ctypes.cast(getattr(library, f"{name}_entry"), ctypes.c_void_p).value
        assert entry is not None
        weights = (
            weight_image(planned.weights, planned.weight_bytes) if not made.embedded else aligned(0)
        )
        self.sources = made
        super().__init__(Program.of(planned), entry, weights, keep=library)

    def save(self, path: str) -> None:
        """What ships is the source: E0510."""
        raise Error(
            "E0510",
            "a program compiled from C is not saved",
            hint="its sources: exe.sources.write(folder), or `irc compile --target c`",
        )


def run_sanitized(
    planned: Planned, inputs: Mapping[str, Array], flags: Sequence[str] = SANITIZERS
) -> list[Array]:
    """The results of a program of its own, built with address and undefined-behaviour sanitizers.

    Every buffer is a malloc of its exact size.  E0447 with the sanitizer's words where it stops the
    program.
    """
    made = sources(planned, "model", embed=planned.weight_bytes <= _QUICK_EMBED)
    program = Program.of(planned)
    face = Executable(program, 0, aligned(0))
    given = [face._accept(k, inputs[n]) for k, (n, _) in enumerate(program.inputs)]
    frame = face._frame(given)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        made.write(folder)
        (folder / "main.c").write_text(_main(planned, program, frame, made))
        parts = [
            pack(x, t.dtype) if is_packed(t.dtype) else x
            for x, (_, t) in zip(given, program.inputs, strict=True)
        ]
        weights = (
            b"" if made.embedded else weight_image(planned.weights, planned.weight_bytes).tobytes()
        )
        (folder / "in.bin").write_bytes(b"".join([p.tobytes() for p in parts]) + weights)
        run_compiler(
            [*FLAGS[:1], *FLAGS[2:], *flags, "-o", "model", "model.c", "main.c", "-lm"], folder
        )
        done = subprocess.run(["./model"], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Error(
                "E0447",
                f"the sanitized program ended with status {done.returncode}",
                details=done.stderr.splitlines()[:20],
            )
        raw = np.fromfile(folder / "out.bin", np.uint8)
    return _split(raw, program, frame, given)


def _split(raw: Array, program: Program, frame: Frame, given: Sequence[Array]) -> list[Array]:
    """The results from the bytes that the program wrote: state inputs first, then outputs."""
    results: dict[int, Array] = {}
    at = 0
    fields = [(r, given[p].shape, program.inputs[p][1].dtype) for p, r in program.state]
    for k, shape, dtype in [*fields, *frame.outputs]:
        size = stored_bytes(dtype, int(np.prod(shape, dtype=np.int64)))
        part = raw[at : at + size]
        at += size
        results[k] = (
            unpack(part, dtype, shape)
            if is_packed(dtype)
            else part.copy().view(dtype.np).reshape(shape)
        )
    return [results[k] for k in sorted(results)]


def _main(planned: Planned, program: Program, frame: Frame, made: Sources) -> str:
    """main.c: reads in.bin, runs once, writes out.bin."""
    plan = planned.func
    sizes = [evaluate(bytes_of(a.type), frame.dims) for a in plan.args]
    count, inputs = len(plan.args), len(program.inputs)
    if made.embedded:
        sizes[-1] = 0
    outs = [p for p, _ in program.state] + list(range(inputs, count - 2))
    read = [*range(inputs), *([] if made.embedded else [count - 1])]
    dims = ", ".join([f"INT64_C({frame.dims[d]})" for d in program.dims]) or "0"
    lines = [
        "#include <stdio.h>",
        "#include <stdlib.h>",
        '#include "model.h"',
        "int main(void) {",
        f"    static const size_t sizes[{count}] = {{{', '.join(map(str, sizes))}}};",
        f"    static const int64_t dims[] = {{{dims}}};",
        f"    void *args[{count}];",
        '    FILE *in = fopen("in.bin", "rb");',
        '    FILE *out = fopen("out.bin", "wb");',
        "    int k, bad = !in || !out;",
        f"    for (k = 0; k < {count}; ++k) bad |= !(args[k] = malloc(sizes[k] + !sizes[k]));",
        "    if (bad) return 1;",
    ]
    lines += [f"    if (fread(args[{k}], 1, sizes[{k}], in) != sizes[{k}]) return 2;" for k in read]
    lines += ["    bad = model_entry(0, args, dims);", "    if (bad) return 64 + bad;"]
    lines += [
        f"    if (fwrite(args[{k}], 1, sizes[{k}], out) != sizes[{k}]) return 3;" for k in outs
    ]
    lines += [
        f"    for (k = 0; k < {count}; ++k) free(args[k]);",
        "    fclose(in);",
        "    return fclose(out);",
        "}",
        "",
    ]
    return "\n".join(lines)


__all__ = [
    "CExecutable",
    "EMBED_LIMIT",
    "FLAGS",
    "SANITIZERS",
    "Sources",
    "constants",
    "run_sanitized",
    "sources",
    "write_sources",
]
