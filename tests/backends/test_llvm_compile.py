"""From LLVM text to running code: workers, errors, cache, loaded objects, targets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ctypes import CFUNCTYPE, c_double, c_int32
from pathlib import Path

import pytest

from irc.backends.cpu.engine import Engine
from irc.backends.cpu.host import (
    Caches,
    _cgroup_quota,
    codegen_target,
    host,
    named_target,
    present_features,
    read_caches,
)
from irc.backends.llvm import compile as compiling
from irc.backends.llvm.cache import KernelCache, cache_key
from irc.backends.llvm.compile import CodegenTarget, assembly, compile_many, compile_text
from irc.ir.errors import Error, UnsupportedError

TEN = "define i32 @{name}(i32 %x) {{\n  %r = mul i32 %x, {factor}\n  ret i32 %r\n}}\n"
INT = CFUNCTYPE(c_int32, c_int32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))


def times(factor: int, name: str = "f") -> str:
    return TEN.format(name=name, factor=factor)


def long_text(count: int) -> str:
    """A text that takes LLVM seconds."""
    lines = ["define i64 @f(i64 %v0, ptr %p) {"]
    for i in range(count):
        lines.append(f"  %l{i} = load volatile i64, ptr %p")
        lines.append(f"  %v{i + 1} = call i64 @llvm.fshl.i64(i64 %l{i}, i64 %v{i}, i64 %l{i})")
    lines += [f"  ret i64 %v{count}", "}", "declare i64 @llvm.fshl.i64(i64, i64, i64)"]
    return "\n".join(lines)


def test_object_runs() -> None:
    with Engine({"m": compile_text(times(7), codegen_target())}) as engine:
        assert INT(engine.address("f"))(6) == 42


def test_assembly_names_the_function() -> None:
    assert "f:" in assembly(times(3), codegen_target())


def test_vectorizer_only_on_request() -> None:
    text = """define void @f(ptr noalias %a, ptr noalias %b) {
e:
  br label %l
l:
  %i = phi i64 [ 0, %e ], [ %i1, %l ]
  %p = getelementptr float, ptr %a, i64 %i
  %v = load float, ptr %p
  %w = fadd float %v, %v
  %q = getelementptr float, ptr %b, i64 %i
  store float %w, ptr %q
  %i1 = add i64 %i, 1
  %c = icmp eq i64 %i1, 1024
  br i1 %c, label %x, label %l
x:
  ret void
}"""
    plain = named_target("x86_64-linux-v3")
    fast = CodegenTarget(plain.triple, plain.cpu, vectorize=True)
    assert "addps" not in assembly(text, plain)
    assert "vaddps" in assembly(text, fast)


def test_refused_text_names_kernel_and_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        compile_text("define void @f( { ret void }", codegen_target(), name="conv/1")
    assert caught.value.code == "E0491"
    assert "conv/1" in caught.value.message
    assert "expected type" in str(caught.value)
    assert [p.read_text() for p in (tmp_path / "crashes").iterdir()] == [
        "define void @f( { ret void }"
    ]


def test_ill_typed_text_is_refused() -> None:
    with pytest.raises(Error, match="E0491"):
        compile_text("define void @f() { ret i32 1 }", codegen_target())


def test_llvm_abort_is_an_error_and_the_workers_go_on(tmp_path: Path) -> None:
    text = """declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
define <16 x i32> @f(<16 x i32> %a, <64 x i8> %b) {
  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %a, <64 x i8> %b, <64 x i8> %b)
  ret <16 x i32> %r
}"""
    with pytest.raises(Error) as caught:
        compile_text(text, named_target("x86_64-linux"), name="dot")
    assert caught.value.code == "E0490"
    assert "'dot'" in caught.value.message
    assert "LLVM ERROR" in str(caught.value)
    assert next((tmp_path / "crashes").iterdir()).read_text() == text
    assert compile_text(times(2), codegen_target())


def test_timeout_is_an_error_and_the_workers_go_on() -> None:
    start = time.monotonic()
    with pytest.raises(Error, match=r"E0490(.|\n)*more than 0.05 s"):
        compile_text(long_text(20_000), codegen_target(), timeout=0.05)
    assert time.monotonic() - start < 5
    assert compile_text(times(2), codegen_target())


def test_worker_killed_while_idle_is_replaced() -> None:
    compile_text(times(2), codegen_target())
    for worker in list(compiling._all):
        worker._process.send_signal(signal.SIGKILL)
        worker._process.wait()
    assert compile_text(times(2), codegen_target())


def test_unknown_processor_and_triple() -> None:
    with pytest.raises(UnsupportedError, match="E0492.*cortex-a999"):
        compile_text(times(2), named_target("aarch64-linux-cortex-a999"))
    with pytest.raises(UnsupportedError, match="E0492"):
        compile_text(times(2), CodegenTarget("pdp11-unknown-unix"))


def test_workers_end_with_their_parent() -> None:
    code = (
        "import os\n"
        "from irc.backends.llvm import compile as c\n"
        "c.compile_text('define void @f() { ret void }', c.CodegenTarget('x86_64-linux-gnu'))\n"
        "print(*[w._process.pid for w in c._all], flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (pid,) = map(int, done.stdout.split())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{pid}/stat").exists()


def test_forked_child_compiles_with_its_own_workers() -> None:
    expected = compile_text(times(9), codegen_target())
    inherited = list(compiling._all)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert not compiling._all
            assert all(worker._process.stdin.closed for worker in inherited)
            status = 0 if compile_text(times(9), codegen_target()) == expected else 2
            compiling.shutdown()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert compile_text(times(9), codegen_target()) == expected


def test_many_share_work_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    original = compiling.compile_text

    def counting(text: str, target: CodegenTarget, *, name: str, timeout: float) -> bytes:
        built.append(name)
        return original(text, target, name=name, timeout=timeout)

    monkeypatch.setattr(compiling, "compile_text", counting)
    texts = {"a": times(2), "b": times(3), "c": times(2)}
    first = compile_many(texts, codegen_target(), workers=2)
    assert sorted(built) == ["a", "b"]
    assert first["a"] == first["c"] != first["b"]
    assert compile_many(texts, codegen_target()) == first
    assert len(built) == 2
    compile_many(texts, named_target("x86_64-linux"))
    assert len(built) == 4


def test_many_report_the_failing_kernel() -> None:
    with pytest.raises(Error, match="'bad'"):
        compile_many({"a": times(2), "bad": "no llvm", "b": times(3)}, codegen_target(), 2)


def test_an_interrupt_ends_the_work_at_once(tmp_path: Path) -> None:
    """What is queued never starts, what is at work is killed, and nothing counts as a crash."""

    def texts() -> Iterator[tuple[str, str]]:
        for k in range(4):
            yield f"k{k}", long_text(30_000).replace("@f", f"@f{k}", 1)
        time.sleep(0.5)  # both processes are at work
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        compile_many(texts(), codegen_target(), 2, timeout=100)
    assert time.perf_counter() - began < 5
    assert not list(tmp_path.rglob("*.ll"))
    assert compile_many({"a": times(2)}, codegen_target())["a"]


def test_workers_hear_no_interrupt() -> None:
    """Ctrl-C goes to the terminal's process group; a process that still starts would die of it."""
    compile_text(times(2), codegen_target())
    (worker, *_) = compiling._all
    assert os.getpgid(worker._process.pid) == worker._process.pid != os.getpgrp()


def test_key_depends_on_text_and_target() -> None:
    assert len({cache_key("a", "t"), cache_key("b", "t"), cache_key("a", "u")}) == 3


def test_damaged_entry_counts_as_absent(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path)
    cache.put("ab12", b"code")
    assert cache.get("ab12") == b"code"
    path = tmp_path / "ab" / "12"
    for damage in (path.read_bytes()[:-1], path.read_bytes()[:-1] + b"x", b""):
        path.write_bytes(damage)
        assert cache.get("ab12") is None
        cache.put("ab12", b"code")
        assert cache.get("ab12") == b"code"


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path, limit=10_000)
    for i in range(9):
        cache.put(f"aa{i}", bytes(1000))
        os.utime(tmp_path / "aa" / str(i), (i, i))
    assert cache.get("aa0") is not None  # now the most recent
    for i in range(9, 12):
        cache.put(f"aa{i}", bytes(1000))
    left = {i for i in range(12) if (tmp_path / "aa" / str(i)).exists()}
    assert {0, 11} <= left
    assert 1 not in left
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= 10_000


def test_unwritable_cache_costs_speed_only(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("in the way")
    assert compile_many({"a": times(2)}, codegen_target())["a"]


def test_objects_call_each_other_libm_and_given_symbols() -> None:
    caller = """declare i32 @callee(i32)
declare double @cbrt(double)
declare i32 @given(i32)
define i32 @f(i32 %x) {
  %r = call i32 @callee(i32 %x)
  %g = call i32 @given(i32 %r)
  ret i32 %g
}
define double @root(double %x) {
  %r = call double @cbrt(double %x)
  ret double %r
}"""
    given = INT(lambda x: x + 1)
    from ctypes import c_void_p, cast

    address = cast(given, c_void_p).value
    assert address is not None
    objects = compile_many({"a": caller, "b": times(10, "callee")}, codegen_target())
    with Engine(objects, {"given": address}) as engine:
        assert INT(engine.address("f"))(4) == 41
        assert CFUNCTYPE(c_double, c_double)(engine.address("root"))(27.0) == pytest.approx(3.0)


def test_engines_do_not_share_symbols() -> None:
    objects = compile_many({"two": times(2), "three": times(3)}, codegen_target())
    two, three = Engine({"m": objects["two"]}), Engine({"m": objects["three"]})
    assert INT(two.address("f"))(5) == 10
    assert INT(three.address("f"))(5) == 15
    two.close()
    assert INT(three.address("f"))(5) == 15
    with pytest.raises(Error, match="E0495.*closed"):
        two.address("f")


def test_link_errors_name_the_symbol() -> None:
    text = "declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n  ret void\n}"
    with pytest.raises(Error, match=r"E0495(.|\n)*"):
        Engine({"m": compile_text(text, codegen_target())}).address("f")
    with (
        Engine({"m": compile_text(times(2), codegen_target())}) as engine,
        pytest.raises(Error, match="'absent'"),
    ):
        engine.address("absent")


def test_mask_forbids_wide_vectors() -> None:
    masked = present_features(codegen_target("avx2"))
    assert not [name for name in masked if name.startswith(("avx512", "amx"))]
    assert "avx" not in present_features(codegen_target("sse4.2"))
    assert present_features(codegen_target()) == host().features
    with pytest.raises(UnsupportedError, match="E0494"):
        codegen_target("mmx")


def test_mask_reaches_the_code() -> None:
    text = """define <16 x float> @f(<16 x float> %a) "prefer-vector-width"="512" {
  %r = fadd <16 x float> %a, %a
  ret <16 x float> %r
}"""
    assert "zmm" in assembly(text, named_target("x86_64-linux-v4"))
    assert "zmm" not in assembly(text, named_target("x86_64-linux-v3"))
    if host().arch == "x86_64":
        assert "zmm" not in assembly(text, codegen_target("avx2"))


def test_named_targets() -> None:
    assert named_target("aarch64-linux-cortex-a72").cpu == "cortex-a72"
    assert named_target("aarch64-linux").arch == "aarch64"
    assert named_target("cpu") == codegen_target()
    for bad in ("z80", "x86_64-linux-", "x86_64-windows"):
        with pytest.raises(UnsupportedError, match="E0401"):
            named_target(bad)


def test_host_is_described() -> None:
    assert 1 <= host().cores <= (os.cpu_count() or 1)
    assert host().vector_bits in (128, 256, 512)
    assert host().caches.l1d >= 8 << 10


def test_caches_from_sysfs(tmp_path: Path) -> None:
    assert read_caches(tmp_path) == Caches()
    for i, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
        (folder / "coherency_line_size").write_text("64\n")
    assert read_caches(tmp_path) == Caches(l1d=48 << 10, l2=2 << 20)


def test_quota_is_the_least_of_the_groups(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    (root / "a" / "b").mkdir(parents=True)
    membership.write_text("0::/a/b\n")
    assert _cgroup_quota(root, membership) is None
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "cpu.max").write_text("400000 100000\n")
    assert _cgroup_quota(root, membership) == 1.5


def test_texts_are_compiled_while_others_are_made(tmp_path: Path) -> None:
    """The second text comes only when the object of the first is there."""

    def made() -> Iterator[tuple[str, str]]:
        yield "a", times(2)
        end = time.monotonic() + 60
        while not list((tmp_path / "kernels").glob("??/*")) and time.monotonic() < end:
            time.sleep(0.01)
        assert list((tmp_path / "kernels").glob("??/*"))
        yield "b", times(3)

    assert list(compile_many(made(), codegen_target(), 1)) == ["a", "b"]


def test_processes_are_prepared_once() -> None:
    compiling.shutdown()
    compiling.prepare(2)
    started = set(compiling._all)
    compiling.prepare(2)
    assert len(started) == 2
    assert compiling._all == started
    compile_text(times(2), codegen_target())
    assert compiling._all == started
