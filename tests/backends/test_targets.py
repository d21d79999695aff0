"""One schedule source, many machines: AVX-512, AVX2 and SSE here, NEON under an emulator, and C.

Every program of the schedule tests and three networks go through the whole pipeline for each
target; the reference says what is right.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from target_models import PROGRAMS, Array, difference, everything, inputs_of, module_of

from irc.backends.c.build import CExecutable, run_sanitized, sources
from irc.backends.c.target import c_target
from irc.backends.c.types import identifier
from irc.backends.cpu.aot import Ahead, compile_ahead, linker
from irc.backends.cpu.build import build, texts
from irc.backends.cpu.elf import archive
from irc.backends.cpu.host import MASKS, codegen_target, host
from irc.backends.cpu.target import cpu_target, probed_features, processor
from irc.backends.llvm.compile import CodegenTarget, assembly, compile_many
from irc.backends.llvm.pool import pool_text
from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Module, Return
from irc.ir.parse import parse
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.passes.pipeline import compile_module
from irc.passes.plan import Planned

TOLERANCE = 1e-4


def planned(module: Module, target: Target) -> Planned:
    result = compile_module(module, target).planned
    assert result is not None
    return result


def wrong(results: Sequence[Array]) -> dict[str, float]:
    """The programs whose result is not the reference's, with the difference."""
    pairs = zip(PROGRAMS, results, everything()[2].values(), strict=True)
    found = {name: difference(got, want) for name, got, want in pairs}
    return {name: share for name, share in found.items() if not share <= TOLERANCE}


def test_a_small_fault_is_seen() -> None:
    results = list(everything()[2].values())
    results[2] = results[2] + np.float32(2e-4) * np.abs(results[2]).max()
    assert list(wrong(results)) == [list(PROGRAMS)[2]]
    assert wrong([np.full_like(y, np.nan) for y in results]).keys() >= {"mlp", "cnn", "lstm"}


# Machines like this one, by masks -----------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, "avx2", "sse4.2"])
def test_this_machine_and_narrower_ones_compute_the_same(mask: str | None) -> None:
    module, given, _ = everything()
    target = cpu_target(1, mask)
    found = build(planned(module, target), target, codegen=codegen_target(mask))
    assert wrong(found.run(list(given))) == {}


@pytest.mark.parametrize(
    ("name", "register", "wider"),
    [
        ("x86_64-linux-v4", "%zmm", "%tmm"),
        ("x86_64-linux-v3", "%ymm", "%zmm"),
        ("x86_64-linux", "%xmm", "%ymm"),
        ("aarch64-linux", "fmla", "%"),
    ],
)
def test_a_tile_uses_the_vectors_of_its_machine(name: str, register: str, wider: str) -> None:
    target, codegen = processor(name)
    made = planned(module_of(["matmul_bias_relu"]), target)
    (text,) = [t for n, t in texts(made, target.vector_bits).items() if n.startswith("k0")]
    code = assembly(text, codegen)
    assert register in code and wider not in code
    assert ("vfmadd" in code) == (name.endswith(("v3", "v4")))


def test_masks_narrow_the_target() -> None:
    found = {mask: cpu_target(1, mask) for mask in MASKS}
    assert found["avx2"].vector_bits <= 256 and found["avx2"].registers == 16
    assert (found["sse4.2"].vector_bits, found["sse4.2"].fma) == (128, False)
    assert {t.layout_block * 32 for t in found.values()} == {t.vector_bits for t in found.values()}


def test_processors_by_name() -> None:
    neon, codegen = processor("aarch64-linux-cortex-a72")
    assert (neon.vector_bits, neon.registers, neon.fma) == (128, 32, True)
    assert codegen.cpu == "cortex-a72"
    wide = processor("x86_64-linux-skylake-avx512")[0]
    assert (wide.vector_bits, wide.registers, wide.fma) == (512, 32, True)
    assert processor("x86_64-linux-ivybridge")[0].fma is False
    assert probed_features(CodegenTarget("x86_64-unknown-linux-gnu", "x86-64")) == []
    with pytest.raises(UnsupportedError, match="no-such"):
        processor("x86_64-linux-no-such")


# Ahead of time ------------------------------------------------------------------------------------

SMALL = ["matmul_bias_relu", "conv", "softmax"]


def ahead_for(names: list[str], name: str, threads: int = 1) -> tuple[Ahead, list[Array]]:
    module = module_of(names)
    target, codegen = processor(name, threads)
    return compile_ahead(planned(module, target), target, codegen), inputs_of(module)


def agree(got: list[Array], names: list[str]) -> None:
    module = module_of(names)
    for y, want in zip(got, run(module, inputs_of(module)), strict=True):
        assert difference(y, want) <= TOLERANCE


def test_a_program_of_its_own_on_this_machine(tmp_path: Path) -> None:
    made, given = ahead_for(SMALL, "cpu", threads=2)
    agree(made.run(made.executable(tmp_path), given), SMALL)
    assert (tmp_path / "model.h").read_text() == made.header
    with pytest.raises(Error, match="E0448"):
        made.run(tmp_path / "model", given, ("env", "-i", "false"))
    usage = subprocess.run([tmp_path / "model"], capture_output=True, text=True)
    assert usage.returncode == 2 and "matmul_bias_relu.0.bin" in usage.stderr


def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Only the run functions and the pool are seen: kernels of equal names do not meet."""
    module = module_of(["matmul"])
    target, codegen = processor("cpu", 2)
    for name in ("first", "second"):
        made = compile_ahead(planned(module, target), target, codegen, name)
        made.shared(tmp_path)
        made.archive(tmp_path)
    seen = subprocess.run(
        ["nm", "-D", "--defined-only", tmp_path / "libfirst.so"], capture_output=True, text=True
    ).stdout.split()[2::3]
    assert {"first_run", "irc_parallel_for"} <= set(seen)
    assert not [s for s in seen if s.startswith("first_") and s != "first_run"]
    both = '#include "first.h"\n#include "second.h"\n'
    both += "int main(void) { return (void *)first_run == (void *)second_run; }\n"
    (tmp_path / "main.c").write_text(both)
    libraries = ["-L.", "-lfirst", "-lsecond", "-lm", "-pthread"]
    command = [*linker(host().arch), "-Wall", "-static", "main.c", *libraries, "-o", "both"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "both"], check=True)


def test_archives_repeat_to_the_bit(tmp_path: Path) -> None:
    made = [ahead_for(["conv"], "aarch64-linux")[0].archive(tmp_path / n) for n in ("a", "b")]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_an_archive_has_an_index_long_names_and_even_offsets() -> None:
    members = {"a_name_of_more_than_16_letters.o": b"abc", "b.o": b"de"}
    body = archive(members, {"a_name_of_more_than_16_letters.o": [], "b.o": ["b"]})
    assert body.startswith(b"!<arch>\n/ ")
    assert body.index(b"abc") % 2 == body.index(b"de") % 2 == 0
    index = body[68:]  # behind the magic and the first member's head: count, offset, name
    assert index[:4] == (1).to_bytes(4, "big") and index[8:10] == b"b\0"
    assert int.from_bytes(index[4:8], "big") == body.index(b"de") - 60
    assert b"a_name_of_more_than_16_letters.o/\nb.o/\n" in body


def symbolic() -> Module:
    func = Func.make("main", [TensorType(f32, (sym("N"), 9))], ["x"], outputs=["y"])
    b = Builder(func.body)
    b.emit(Return, b.softmax(b.mul(func.args[0], func.args[0]), axis=1))
    return Module.make([func])


def test_dims_are_arguments_of_the_program(tmp_path: Path) -> None:
    target, codegen = processor("cpu", 1)
    made = compile_ahead(planned(symbolic(), target), target, codegen)
    program = made.executable(tmp_path, static=False)
    for n in (1, 5):
        x = np.random.default_rng(n).standard_normal((n, 9)).astype(np.float32)
        assert difference(made.run(program, [x])[0], run(symbolic(), [x])[0]) <= TOLERANCE


# NEON under an emulator ---------------------------------------------------------------------------

EMULATOR = "qemu-aarch64"


def emulator() -> list[str]:
    """The command that runs aarch64 programs; skips where it or a linker is missing."""
    found = shutil.which(EMULATOR) or shutil.which(EMULATOR + "-static")
    if found is None:
        pytest.skip(f"no {EMULATOR} here (Debian: qemu-user)")
    try:
        linker("aarch64")
    except Error as error:
        pytest.skip(f"{error.message} ({error.hint})")
    return [found]


def test_neon_computes_the_same(tmp_path: Path) -> None:
    runner = emulator()
    made, given = ahead_for(list(PROGRAMS), "aarch64-linux")
    assert wrong(made.run(made.executable(tmp_path), given, runner)) == {}


POOL_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <pthread.h>
void *irc_pool_create(int32_t threads);
void irc_pool_destroy(void *pool);
int32_t irc_parallel_for(void *, int32_t (*)(void *, int64_t), void *, int64_t);
static int64_t cells[1000];
static pthread_t who[1000];
static int32_t task(void *arg, int64_t k) {
    int spin;
    volatile int64_t *cell = (int64_t *)arg + k;
    for (spin = 0; spin < 200; ++spin) *cell += 1;
    who[k] = pthread_self();
    return k == 700 ? 7 : 0;
}
int main(void) {
    void *pool = irc_pool_create(2);
    int round, k, others = 0, bad = 0;
    for (round = 0; round < 50; ++round) {
        bad |= irc_parallel_for(pool, task, cells, 1000) != 7;
        for (k = 0; k < 1000; ++k) others += !pthread_equal(who[k], pthread_self());
    }
    for (k = 0; k < 1000; ++k) bad |= cells[k] != 50 * 200;
    irc_pool_destroy(pool);
    printf("%d %d", bad, others > 0);
    return 0;
}
"""


def test_the_pool_on_aarch64(tmp_path: Path) -> None:
    runner = emulator()
    codegen = processor("aarch64-linux")[1]
    (body,) = compile_many({"irc_pool": pool_text("aarch64")}, codegen).values()
    (tmp_path / "pool.o").write_bytes(body)
    (tmp_path / "main.c").write_text(POOL_MAIN)
    command = [*linker("aarch64"), "-static", "-O1", "main.c", "pool.o", "-pthread", "-o", "pool"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([*runner, tmp_path / "pool"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0 1")


@pytest.mark.long
def test_two_threads_on_aarch64(tmp_path: Path) -> None:
    runner = emulator()
    made, given = ahead_for(["mlp", "cnn"], "aarch64-linux-cortex-a72", threads=2)
    agree(made.run(made.executable(tmp_path), given, runner, 60), ["mlp", "cnn"])


# C ------------------------------------------------------------------------------------------------


def test_c_computes_the_same() -> None:
    """Compiled without a warning at -O2."""
    module, given, _ = everything()
    assert wrong(CExecutable(planned(module, c_target())).run(list(given))) == {}


@pytest.mark.long
def test_c_is_clean_under_sanitizers() -> None:
    module, given, _ = everything()
    made = planned(module, c_target())
    names = [n for n, _ in made.inputs]
    assert wrong(run_sanitized(made, dict(zip(names, given, strict=True)))) == {}


def test_c_tiles_have_constant_indices() -> None:
    text = sources(planned(module_of(["matmul_bias_relu"]), c_target()), "m").source
    assert "acc0[0][" in text and "acc0[4][" in text
    loops = replace(c_target(), unroll_tiles=False)
    assert "acc0[4][" not in sources(planned(module_of(["matmul_bias_relu"]), loops), "m").source


def test_c_copies_the_padding_of_few_results_piece_by_piece() -> None:
    text = sources(planned(module_of(["depthwise"]), c_target()), "m").source
    assert "float s0_acc0_pad0[" in text and "scratch" not in text
    sums = [line for line in text.splitlines() if "acc0[" in line and " * in1[" in line]
    assert sums and not any(["?" in line for line in sums])


def test_c_needs_little_memory_and_little_text() -> None:
    made = planned(module_of(["cnn"]), c_target())
    assert made.arena_bytes <= 38_848
    assert made.arena_bytes <= 1.05 * made.lower_bound
    assert sources(made, "cnn", embed=False).source.count("\n") < 500


def c_text(*body: str) -> str:
    """The C source of a function in IR text, which the strict compiler took."""
    made = planned(parse("\n".join(body)), c_target())
    CExecutable(made)
    return sources(made, "model").source


def test_c_has_no_variable_that_nobody_reads() -> None:
    """One exponential of a sum over one element is needed, the others are not."""
    c_text(
        "func @main(%x: f32[3, 1]) -> (f32[3, 1], f32[]) {",
        "  %0 = softmax(%x) : f32[3, 1]",
        "  %1 = reduce_sum(%0) : f32[]",
        "  %2 = log_softmax(%x) {axis = 0} : f32[3, 1]",
        "  return %2, %1",
        "}",
    )


def test_c_names_are_names_in_c() -> None:
    text = c_text(
        "func @main(%int: f32[2], %model_plan: f32[2]) -> f32[2] {",
        "  %0 = add(%int, %model_plan) : f32[2]",
        "  return %0",
        "}",
    )
    assert "model_run(const float *xint, const float *model_plan_2, float *out0" in text
    assert [identifier(n, set()) for n in ("\u00e9-\u00fc", "size_t", "1x", "NULL")] == [
        "x___",
        "xsize_t",
        "x1x",
        "xNULL",
    ]


def test_c_has_no_struct_for_constants_of_no_bytes() -> None:
    module = parse(
        "func @main(%x: f32[2, 0], %w: f32[0, 4]) -> f32[2, 4] {\n"
        "  %0 = matmul(%x, %w) : f32[2, 4]\n  return %0\n}"
    )
    main = module.main
    main.body.args[1].replace_by(
        Builder(main.body, before=main.body.first).const(np.zeros((0, 4), np.float32))
    )
    got = CExecutable(planned(module, c_target())).run(
        [np.zeros((2, 0), np.float32), np.zeros((0, 4), np.float32)]
    )
    assert np.array_equal(got[0], np.zeros((2, 4), np.float32))
