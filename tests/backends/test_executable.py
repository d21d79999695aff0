"""Executables: results against the reference, checks of inputs, symbolic dims, state, threads,
archives, C.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc.ir.ops.activations  # noqa: F401
import irc.ir.ops.contract  # noqa: F401
import irc.ir.ops.index  # noqa: F401
import irc.ir.ops.shape  # noqa: F401
from irc.backends import arrays
from irc.backends.c.build import CExecutable, run_compiler, run_sanitized, write_sources
from irc.backends.c.target import c_target
from irc.backends.cpu import archive
from irc.backends.cpu.archive import open_archive
from irc.backends.cpu.build import build
from irc.backends.cpu.mixed import build_mixed
from irc.backends.cpu.profile import profile
from irc.backends.cpu.target import cpu_target
from irc.backends.executable import Executable
from irc.backends.reference import ReferenceExecutable
from irc.ir.core import Builder, Op, Value, operand
from irc.ir.dims import fresh, sym
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import DType, TensorType, boolean, f32, i64
from irc.passes.pipeline import Options, compile_module
from irc.passes.plan import Planned

Fill = Callable[..., Any]


def module(types: list[TensorType], fill: Fill, state: Any = ()) -> Module:
    func = Func.make("main", types, [f"x{k}" for k in range(len(types))], state=state)
    b = Builder(func.body)
    made = fill(b, *func.args)
    b.emit(Return, *(made if isinstance(made, (tuple, list)) else (made,)))
    return Module.make([func])


def planned(made: Module, target: Target | None = None) -> Planned:
    result = compile_module(made, target or cpu_target(1)).planned
    assert result is not None
    return result


def compiled(made: Module, threads: int = 1) -> Executable:
    return build(planned(made, cpu_target(threads)), cpu_target(threads))


def const(b: Builder, value: Any) -> Value:
    return b.insert(Const(np.asarray(value, np.float32))).result


def tensor(*shape: Any, dtype: DType = f32) -> TensorType:
    return TensorType(dtype, shape)


RNG = np.random.default_rng(3)
W1, W2 = (RNG.uniform(-1, 1, s).astype(np.float32) for s in ((16, 40), (40, 5)))


def mlp(b: Builder, x: Value) -> Value:
    return b.matmul(b.max(b.matmul(x, const(b, W1)), const(b, 0.0)), const(b, W2))


@pytest.fixture(scope="module")
def mlp_module() -> Module:
    return module([tensor(sym("N"), 16)], mlp)


@pytest.fixture(scope="module")
def exe(mlp_module: Module) -> Executable:
    return compiled(mlp_module)


def x_of(n: int) -> Any:
    return np.random.default_rng(n).uniform(-1, 1, (n, 16)).astype(np.float32)


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


# Results -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 33, 2])
def test_every_extent_of_a_symbolic_dim(exe: Executable, mlp_module: Module, n: int) -> None:
    x = x_of(n)
    want = run(mlp_module, [x])[0]
    close(exe(x), want)
    close(exe.run({"x0": x})[0], want)
    assert ReferenceExecutable(mlp_module)(x).shape == (n, 5)


def test_extents_may_alternate(exe: Executable, mlp_module: Module) -> None:
    for n in (3, 90, 3, 50, 90, *range(1, 40)):
        close(exe(x_of(n)), run(mlp_module, [x_of(n)])[0])


def test_outputs_are_new_every_time(exe: Executable) -> None:
    first, second = exe(x_of(3)), exe(x_of(4)[:3])
    assert not np.may_share_memory(first, second)
    assert not np.array_equal(first, second)


def test_a_view_that_is_not_dense_is_copied(exe: Executable, mlp_module: Module) -> None:
    wide = RNG.uniform(-1, 1, (5, 32)).astype(np.float32)
    close(exe(wide[:, ::2]), run(mlp_module, [np.ascontiguousarray(wide[:, ::2])])[0])
    close(exe(wide[:, :16].tolist()), run(mlp_module, [np.ascontiguousarray(wide[:, :16])])[0])


def control(b: Builder, flag: Value, n: Value, x: Value) -> Any:
    y = b.insert(If.make(flag, lambda b: [b.add(x, x)], lambda b: [b.mul(x, x)])).results[0]
    z = b.insert(ForLoop.make(n, [y], lambda b, i, a: [b.add(a, x)])).results[0]
    one = b.insert(Const(np.asarray(1, np.int64))).result
    k, w = b.insert(
        While.make(
            [n, z],
            lambda b, k, a: [b.lt(k, b.insert(Const(np.asarray(9, np.int64))).result)],
            lambda b, k, a: [b.add(k, one), b.mul(a, const(b, 0.5))],
        )
    ).results
    total, rows = b.insert(
        Scan.make([const(b, np.zeros(4))], [w], lambda b, s, r: [b.add(s, r), b.mul(s, r)])
    ).results
    return k, total, rows


CONTROL_TYPES = [tensor(dtype=boolean), tensor(dtype=i64), tensor(6, 4)]


@pytest.mark.parametrize(("flag", "n"), [(True, 3), (False, 0), (False, 20)])
def test_control_flow_runs_natively_and_in_c(flag: bool, n: int) -> None:
    made = module(CONTROL_TYPES, control)
    inputs = [
        np.asarray(flag),
        np.asarray(n, np.int64),
        RNG.uniform(-1, 1, (6, 4)).astype(np.float32),
    ]
    want = run(made, inputs)
    native = compiled(made)
    assert native.coverage()["host_steps"] == []
    plan = planned(made, Target("c"))
    checked = run_sanitized(plan, {f"x{k}": x for k, x in enumerate(inputs)})
    for found in (native.run(inputs), CExecutable(plan).run(inputs), checked):
        for g, w in zip(found, want, strict=True):
            close(g, w)


def test_c_agrees_also_under_sanitizers(mlp_module: Module) -> None:
    plan = planned(mlp_module, Target("c"))
    x = x_of(6)
    want = run(mlp_module, [x])[0]
    close(CExecutable(plan)(x), want)
    close(run_sanitized(plan, {"x0": x})[0], want)


@pytest.mark.parametrize("name", ["i4", "u4", "bool", "i8", "i64", "f64"])
def test_element_types_pass_through_memory(name: str) -> None:
    dtype = DType(name)
    made = module([tensor(3, 5, dtype=dtype)], lambda b, x: (b.reshape(x, shape=(15,)), x))
    x = RNG.integers(0, 2 if name == "bool" else 7, (3, 5)).astype(dtype.np)
    for e in (compiled(made), CExecutable(planned(made, Target("c")))):
        flat, same = e.run([x])
        assert np.array_equal(same, x) and np.array_equal(flat, x.reshape(-1))


@pytest.mark.parametrize("name", ["i4", "u4", "i2", "u2", "f4e2m1"])
def test_packing_is_undone_by_unpacking(name: str) -> None:
    dtype = DType(name)
    codes = RNG.integers(-2 if dtype.kind == "int" else 0, 2, 13)
    x = codes.astype(np.float32).astype(dtype.np)
    assert np.array_equal(arrays.unpack(arrays.pack(x, dtype), dtype, (13,)), x)


def test_two_threads_give_the_same_bits() -> None:
    made = module([tensor(64, 64)], lambda b, x: b.matmul(b.add(x, x), x))
    x = RNG.uniform(-1, 1, (64, 64)).astype(np.float32)
    two = compiled(made, 2)
    close(two(x), compiled(made, 1)(x))
    first = two(x)
    assert all([np.array_equal(two(x), first) for _ in range(10)])


def test_python_threads_run_at_once(exe: Executable, mlp_module: Module) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = x_of(seed + 1)
        want = run(mlp_module, [x])[0]
        for _ in range(50):
            if not np.allclose(exe(x), want, atol=1e-4):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


# State, host steps, statuses ---------------------------------------------------------------------


def test_state_is_changed_in_place() -> None:
    made = module(
        [tensor(4, 3), tensor(4, 3)], lambda b, w, g: (b.sub(w, g), b.mul(w, g)), ((0, 0),)
    )
    for e in (compiled(made), CExecutable(planned(made, Target("c")))):
        w, g = np.full((4, 3), 5, np.float32), np.full((4, 3), 2, np.float32)
        after, loss = e.run([w, g])
        assert after is w and np.all(w == 3) and np.all(loss == 10)
        w.flags.writeable = False
        after, _ = e.run([w, g])
        assert after is not w and np.all(after == 1) and np.all(w == 3)


class PlusOneOnHost(Op):
    """An op that has no kernel."""

    x = operand()

    @staticmethod
    def infer(x: TensorType) -> TensorType:
        return x

    @staticmethod
    def evaluate(x: Any) -> Any:
        if x[0] > 100:
            raise Error("E0599", "the host step says no")
        return x + 1


def host_module() -> Module:
    return module([tensor(sym("N"))], lambda b, x: b.add(b.plus_one_on_host(x), x))


def test_a_host_step_runs_in_the_middle_of_a_plan(tmp_path: Path) -> None:
    e = compiled(host_module())
    assert e.coverage()["host_steps"] == ["host0.plus_one_on_host"]
    assert np.array_equal(e(np.arange(4, dtype=np.float32)), np.arange(4) * 2 + 1)
    with pytest.raises(Error, match="says no"):
        e(np.full(3, 200, np.float32))
    e.save(str(tmp_path / "h.ircx"))  # type: ignore[attr-defined]
    again = open_archive(tmp_path / "h.ircx")
    assert np.array_equal(again(np.arange(4, dtype=np.float32)), np.arange(4) * 2 + 1)


def test_a_target_without_a_host_names_every_host_step() -> None:
    plan = planned(host_module())
    with pytest.raises(Error, match="plus_one_on_host") as error:
        CExecutable(plan)
    assert error.value.code == "E0440" and error.value.exit_code == 3
    with pytest.raises(Error, match="E0440"):
        build(plan, Target("bare", host=False))


def test_an_index_out_of_range_is_an_error() -> None:
    made = module([tensor(5, 3), tensor(4, dtype=i64)], lambda b, x, i: b.gather(x, i, axis=0))
    x = RNG.uniform(-1, 1, (5, 3)).astype(np.float32)
    for e in (compiled(made), CExecutable(planned(made, Target("c")))):
        close(e.run([x, np.array([4, 0, 2, 1])])[0], x[[4, 0, 2, 1]])
        with pytest.raises(Error) as error:
            e.run([x, np.array([0, 1, 5, 2])])
        assert error.value.code == "E0506"


class PositivesOnHost(Op):
    """The positive elements: a shape that only the data says."""

    x = operand()
    memoise = False

    @staticmethod
    def infer(x: TensorType) -> TensorType:
        return TensorType(x.dtype, (fresh("p"),))

    @staticmethod
    def evaluate(x: Any) -> Any:
        return x[x > 0]


def test_shapes_that_depend_on_data_run_between_native_kernels() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.positives_on_host(b.add(x, x))
        return b.mul(y, y)

    made = module([tensor(8)], fill)
    with pytest.raises(Error, match="positives_on_host") as error:
        planned(made)
    assert error.value.code == "E0431"
    lowered = compile_module(made, cpu_target(1), Options(to_phase="loops")).module
    e = build_mixed(lowered, cpu_target(1))
    for seed in (1, 2):
        x = np.random.default_rng(seed).uniform(-1, 1, 8).astype(np.float32)
        close(e(x), (2 * x[x > 0]) ** 2)
    coverage = e.coverage()
    assert coverage["calls"] == 2 and coverage["host_steps"] == ["positives_on_host"]


# Checks of inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        ({}, "E0501", "missing: x0"),
        ({"x0": x_of(2), "z": 1}, "E0501", "unknown: z"),
        ([], "E0501", "1 inputs are needed, 0 given"),
        ({"x0": x_of(2).astype(np.float64)}, "E0503", "float64"),
        ({"x0": x_of(2)[0]}, "E0503", "rank"),
        ({"x0": x_of(2)[:, :9].copy()}, "E0502", "axis 1 is 9, not 16"),
        ({"x0": "text"}, "E0503", "x0"),
        ({"x0": None}, "E0503", "x0"),
    ],
)
def test_bad_inputs_are_named(exe: Executable, inputs: Any, code: str, says: str) -> None:
    with pytest.raises(Error) as error:
        exe.run(inputs)
    assert error.value.code == code and says in error.value.render()
    exe.run([x_of(2)])


def test_contradicting_dims_are_named() -> None:
    e = compiled(module([tensor(sym("N"), 3), tensor(sym("N"))], lambda b, x, y: (b.add(x, x), y)))
    with pytest.raises(Error, match="N = 4, from axis 0 of 'x0'"):
        e.run([np.ones((4, 3), np.float32), np.ones(5, np.float32)])


# Archives ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(exe: Executable, tmp_path: Path) -> Path:
    path = tmp_path / "mlp.ircx"
    exe.save(str(path))  # type: ignore[attr-defined]
    return path


def test_an_archive_runs_without_compiling(
    saved: Path, mlp_module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr("irc.backends.cpu.build.compile_many", refuse)
    again = open_archive(saved)
    close(again(x_of(9)), run(mlp_module, [x_of(9)])[0])
    assert again.inputs[0][0] == "x0" and str(again.inputs[0][1]) == "f32[N, 16]"
    assert again.weights.ctypes.data % 64 == 0 and not again.weights.flags.writeable
    assert again.arena_for(N=3) == again.arena_for(N=3)


def test_damage_anywhere_is_found(saved: Path) -> None:
    data = saved.read_bytes()
    for at in range(64, len(data), max(1, len(data) // 23)):
        hurt = bytearray(data)
        hurt[at] ^= 0x55
        saved.write_bytes(bytes(hurt))
        try:
            again = open_archive(saved)
        except Error as error:
            assert error.code in ("E0508", "E0509", "E0497")
        else:  # a byte that no reader looks at
            close(again(x_of(2)), exe_result(data, saved))
    for size in (0, 10, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:size])
        with pytest.raises(Error, match="E0508"):
            open_archive(saved)


def exe_result(data: bytes, path: Path) -> Any:
    whole = path.with_name("whole.ircx")
    whole.write_bytes(data)
    return open_archive(whole)(x_of(2))


def test_another_version_or_processor_is_refused(saved: Path) -> None:
    for change, code in (
        ({"format": 99}, "E0508"),
        ({"codegen": {"triple": "riscv64-linux"}}, "E0497"),
    ):
        other = saved.with_name("other.ircx")
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(other, "w") as new:
            for item in old.infolist():
                body = old.read(item)
                if item.filename == "manifest.json":
                    body = json.dumps(json.loads(body) | change).encode()
                new.writestr(item, body)
        with pytest.raises(Error, match=code):
            open_archive(other)


def test_an_old_file_survives_a_failed_save(
    exe: Executable, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_write", full)
    with pytest.raises(Error, match="No space left"):
        exe.save(str(saved))  # type: ignore[attr-defined]
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1
    with pytest.raises(Error, match="E0509"):
        open_archive(saved.parent / "none.ircx")


def test_the_profile_names_every_kernel(mlp_module: Module) -> None:
    plan = planned(mlp_module)
    rows = profile(plan, [x_of(8)], cpu_target(1), runs=3)
    assert [r.kernel for r in rows] == [k.sym for k in plan.kernels]
    assert all([r.calls == 1 and 0 < r.seconds < 1 for r in rows])


# Speed -------------------------------------------------------------------------------------------


def test_a_run_costs_little_beyond_the_native_call(exe: Executable) -> None:
    x = x_of(1)
    exe(x)
    frame = exe._local.frame
    rounds = 2000

    def per_call(work: Callable[[], Any]) -> float:
        best = 1.0
        for _ in range(5):
            start = time.thread_time()
            for _ in range(rounds):
                work()
            best = min(best, (time.thread_time() - start) / rounds)
        return best

    native = per_call(lambda: exe._entry(exe._context_at, frame.args_at, frame.dims_at))
    whole = per_call(lambda: exe.run([x]))
    empty = per_call(lambda: np.empty((1, 5), np.float32))
    assert whole - native < 40 * empty


def test_the_header_sizes_the_arena_for_symbolic_dims(tmp_path: Path) -> None:
    func = Func.make("main", [TensorType(f32, (sym("N"), 5))], ["x"])
    b = Builder(func.body)
    value = b.softmax(b.exp(b.reduce_sum(func.args[0], axes=(1,))), axis=0)
    b.emit(Return, value)
    planned = compile_module(Module.make([func]), c_target()).planned
    assert planned is not None
    write_sources(planned, str(tmp_path), "model")
    main = "int main(void) { return model_arena_bytes(3 + 4) % 8 != 0; }\n"
    (tmp_path / "main.c").write_text('#include "model.h"\n' + main)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    run_compiler([*flags, "model.c", "main.c", "-lm", "-o", "program"], tmp_path)
    assert subprocess.run([str(tmp_path / "program")], check=False).returncode == 0
