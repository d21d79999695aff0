"""What a program sees of a model compiled ahead of time: a header, an entry, and a program of its
own.

`NAME_run(ctx, args, dims)` takes the inputs, the outputs and the arena in one array of pointers;
the constants are inside.  The program reads raw arrays from files and writes raw arrays.
May import: ir, passes, executable.py, the C printer's expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...ir.dims import DimLike
from ...passes.places import bytes_of
from ..c.prelude import prelude
from ..c.printer import CModule, Printer
from ..executable import Program


def entry_text(name: str, program: Program, constants: bool) -> str:
    """LLVM text of `NAME_run`, which hands the constants to the plan."""
    count = len(program.inputs) + len(program.results) - len(program.state) + 1
    kinds = ["ptr"] * (count + 2) + ["i64"] * len(program.dims)
    lines = [f"declare hidden i32 @{name}_plan({', '.join(kinds)})"]
    if constants:
        lines.append(f"@{name}_weights = external hidden constant i8")
    lines.append(f"define i32 @{name}_run(ptr %ctx, ptr %args, ptr %dims) nounwind {{")
    passed = ["ptr %ctx"]
    for array, kind, length in (("args", "ptr", count), ("dims", "i64", len(program.dims))):
        for k in range(length):
            lines += [
                f"  %{array}.{k} = getelementptr {kind}, ptr %{array}, i64 {k}",
                f"  %{array}.v{k} = load {kind}, ptr %{array}.{k}",
            ]
            passed.append(f"{kind} %{array}.v{k}")
        if array == "args":
            passed.append(f"ptr @{name}_weights" if constants else "ptr null")
    lines += [
        f"  %status = tail call i32 @{name}_plan({', '.join(passed)})",
        "  ret i32 %status",
        "}",
    ]
    return "\n".join(lines) + "\n"


class Face:
    """The C side of a model: every size as a C expression in its dims."""

    def __init__(self, name: str, program: Program, threads: int) -> None:
        self.name, self.program, self.threads = name, program, threads
        self.module = CModule([], [])
        self.printer = Printer(self.module)
        self.dims = [self.printer.bind(d, (0, None)) for d in program.dims]
        self.arena = self.expression(program.layout.arena)

    def expression(self, size: DimLike) -> str:
        """A number of bytes in C."""
        return self.own(self.printer.dim(size).text)

    def own(self, text: str) -> str:
        """C text whose index functions have names of this model, so that headers may meet."""
        return re.sub(r"\birc_(floordiv|mod|least|most)\b", rf"{self.name}_\1", text)

    def header(self) -> str:
        """NAME.h."""
        upper = self.name.upper()
        macro = f"{upper}_ARENA_BYTES" + (f"({', '.join(self.dims)})" if self.dims else "")
        replaced = {r for _, r in self.program.state}
        fields = [*self.program.inputs]
        fields += [f for k, f in enumerate(self.program.results) if k not in replaced]
        rows = [f" *   args[{k}] {n}: {t.text}" for k, (n, t) in enumerate(fields)]
        rows.append(f" *   args[{len(fields)}] {macro} bytes of working memory")
        rows += [f" *   dims[{k}] {d}" for k, d in enumerate(self.program.dims)]
        pool = _POOL if self.threads > 1 else ""
        return (
            f"#ifndef {upper}_H\n#define {upper}_H\n"
            + self.own(prelude(self.module.used))
            + f"#define {macro} ((size_t)({self.arena}))\n\n"
            + "/* Runs the model; ctx may be null.  Arrays are dense and row-major, at a multiple\n"
            + " * of 64 bytes.  Returns 0, or a status: 1 an index is out of range, 2 a shape\n"
            + " * contradicts the model.\n"
            + "\n".join(rows)
            + "\n */\n"
            + f"int32_t {self.name}_run(const irc_ctx *ctx, void *const *args, "
            + f"const int64_t *dims);\n{pool}\n#endif\n"
        )

    def main(self) -> str:
        """main.c: `PROGRAM DIM... INPUT-FILE... OUTPUT-FILE...`."""
        program = self.program
        replaced = {r: p for p, r in program.state}
        kept = [k for k in range(len(program.results)) if k not in replaced]
        slots = {k: len(program.inputs) + at for at, k in enumerate(kept)}
        types = [t for _, t in program.inputs] + [program.results[k][1] for k in kept]
        sizes = [self.expression(bytes_of(t)) for t in types] + [self.arena]
        nd, ni, no = len(program.dims), len(program.inputs), len(program.results)
        body = [f"    const int64_t {d} = dims[{k}];" for k, d in enumerate(self.dims)]
        body += [f"    sizes[{k}] = (size_t)({size});" for k, size in enumerate(sizes)]
        body += [f"    (void){d};" for d in self.dims]
        outs = [replaced[k] if k in replaced else slots[k] for k in range(no)]
        threads = _THREADS if self.threads > 1 else "    const irc_ctx *ctx = 0;"
        values = {
            "NAME": self.name,
            "THREADS": str(self.threads),
            "NARGS": str(len(sizes)),
            "ND": str(nd),
            "NI": str(ni),
            "NO": str(no),
            "USAGE": _usage(program),
            "OUTS": ", ".join(map(str, outs)) or "0",
        }
        text = _MAIN.replace("@SIZES@", "\n".join(body)).replace("@CONTEXT@", threads)
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        return text


def _usage(program: Program) -> str:
    words: Sequence[str] = (
        *program.dims,
        *[f"{n}.bin" for n, _ in program.inputs],
        *[f"{n}.bin" for n, _ in program.results],
    )
    return " ".join(["".join([c for c in w if c.isprintable() and c not in '"\\%']) for w in words])


_POOL = """
#ifndef IRC_POOL
#define IRC_POOL
/* A context with a pool of threads: {{irc_context_parallel, 0}, pool, irc_parallel_for}. */
typedef int32_t irc_task(void *arg, int64_t index);
typedef struct {
    irc_ctx base;
    void *pool;
    int32_t (*run)(void *pool, irc_task *fn, void *arg, int64_t n);
} irc_threads;
int32_t irc_context_parallel(const irc_ctx *ctx, irc_task *fn, void *arg, int64_t n);
void *irc_pool_create(int32_t threads);
void irc_pool_destroy(void *pool);
int32_t irc_parallel_for(void *pool, irc_task *fn, void *arg, int64_t n);
#endif
"""

_THREADS = """\
    const irc_threads with = {
        {irc_context_parallel, 0}, irc_pool_create(@THREADS@), irc_parallel_for
    };
    const irc_ctx *ctx = &with.base;"""

_MAIN = """\
/* @NAME@: reads arrays from files, runs once, writes arrays to files. */
#include <stdio.h>
#include <stdlib.h>
#include "@NAME@.h"

static void measure(const int64_t *dims, size_t *sizes) {
    (void)dims;
@SIZES@
}

static int transfer(const char *path, const char *mode, void *data, size_t size) {
    FILE *file = fopen(path, mode);
    size_t done = 0;
    if (file) {
        done = *mode == 'r' ? fread(data, 1, size, file) : fwrite(data, 1, size, file);
        if (fclose(file)) {
            done = size + 1;
        }
    }
    if (!file || done != size) {
        fprintf(stderr, "%s: not %lu bytes\\n", path, (unsigned long)size);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    static const int outs[] = {@OUTS@};
    int64_t dims[@ND@ + 1];
    size_t sizes[@NARGS@];
    void *args[@NARGS@];
    int k, status;
@CONTEXT@
    if (argc != 1 + @ND@ + @NI@ + @NO@) {
        fprintf(stderr, "usage: %s @USAGE@\\n", argv[0]);
        return 2;
    }
    dims[@ND@] = 0;
    for (k = 0; k < @ND@; ++k) {
        dims[k] = strtoll(argv[1 + k], 0, 10);
    }
    measure(dims, sizes);
    for (k = 0; k < @NARGS@; ++k) {
        char *raw = malloc(sizes[k] + 64);
        if (!raw) {
            fprintf(stderr, "out of memory\\n");
            return 1;
        }
        args[k] = raw + (64 - (uintptr_t)raw % 64);
    }
    for (k = 0; k < @NI@; ++k) {
        if (transfer(argv[1 + @ND@ + k], "rb", args[k], sizes[k])) {
            return 1;
        }
    }
    status = @NAME@_run(ctx, args, dims);
    if (status) {
        fprintf(stderr, "status %d\\n", status);
        return 64;
    }
    for (k = 0; k < @NO@; ++k) {
        if (transfer(argv[1 + @ND@ + @NI@ + k], "wb", args[outs[k]], sizes[outs[k]])) {
            return 1;
        }
    }
    return 0;
}
"""

__all__ = ["Face", "entry_text"]
