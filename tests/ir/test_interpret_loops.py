"""The loop interpreter: what it computes, and the planted faults it must catch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import DimLike, min_, sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops import elementwise, loop  # noqa: F401  # registers add, mul, cast
from irc.ir.ops.core import Const, Func, Module, Yield
from irc.ir.types import BufferType, DType, boolean, f16, f32, i4, i8, i32, i64, parse_type

Body = Callable[..., None]
S = sym


def kernel(
    types: Sequence[str], body: Body, outputs: int = 1, name: str = "k", kind: str = "kernel"
) -> Func:
    """A kernel over buffers `f32[4, N]`; `body(b, *args)` fills it."""
    made = []
    for text in types:
        t = parse_type(text)
        made.append(t if isinstance(t, BufferType) else BufferType(t.dtype, t.shape))
    func = Func.make(
        name, made, [f"a{k}" for k in range(len(types))], kind=kind, outputs=["y"] * outputs
    )
    body(Builder(func.body), *func.args)
    return func


def for_(b: Builder, var: str, extent: DimLike, kind: str = "serial", lo: DimLike = 0) -> Builder:
    made = b.insert(loop.For.make(var, extent, kind, lo))
    return b.at(made.body)


def load(b: Builder, buffer: Value, *index: DimLike, **attrs: Any) -> Value:
    return b.emit(loop.Load, buffer, index=index, **attrs)


def store(b: Builder, value: Value, buffer: Value, *index: DimLike, **attrs: Any) -> None:
    b.emit(loop.Store, value, buffer, index=index, **attrs)


def alloc(
    b: Builder, dtype: DType, shape: Sequence[DimLike], space: str = "stack", label: str = "t"
) -> Value:
    return b.insert(loop.Alloc(label=label, type=BufferType(dtype, tuple(shape), space))).result


def const(b: Builder, value: float, type: Any = f32) -> Value:
    return b.insert(Const(value, type)).result


def matmul(kind: str = "parallel", wrong: bool = False) -> Func:
    def body(b: Builder, x: Value, w: Value, y: Value) -> None:
        b = for_(for_(b, "i", S("M"), kind), "j", S("N"))
        acc = alloc(b, f32, (), "register")
        store(b, const(b, 0.0), acc)
        c = for_(b, "k", S("K"))
        i = S("k") if wrong else S("i")
        store(c, c.add(load(c, acc), c.mul(load(c, x, i, S("k")), load(c, w, S("k"), S("j")))), acc)
        store(b, load(b, acc), y, S("i"), S("j"))

    return kernel(["f32[M, K]", "f32[K, N]", "f32[M, N]"], body)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (4, 0, 2), (6, 5, 0)])
def test_matmul_with_symbolic_extents(shape: tuple[int, int, int], check: bool) -> None:
    m, n, k = shape
    x, w, y = floats(m, k), floats(k, n, seed=1), np.empty((m, n), np.float32)
    assert run_kernel(matmul(), [x, w, y], check=check) == loop.STATUS_OK
    np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-6)


def test_wrong_index_map_is_out_of_bounds_or_wrong() -> None:
    x, w, y = floats(3, 5), floats(5, 4), np.empty((3, 4), np.float32)
    with pytest.raises(Error, match=r"E0510.*outside of 'a0'"):
        run_kernel(matmul(wrong=True), [x, w, y])
    x = floats(5, 5)
    y = np.empty((5, 4), np.float32)
    run_kernel(matmul(wrong=True), [x, w, y])
    assert not np.allclose(y, x @ w)


def test_dropped_tail_leaves_results_unwritten() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        b = for_(for_(b, "i", S("N") // 4), "j", 4)
        store(b, load(b, x, S("i") * 4 + S("j")), y, S("i") * 4 + S("j"))

    func = kernel(["f32[N]", "f32[N]"], body)
    y = np.empty(8, np.float32)
    run_kernel(func, [floats(8), y])
    np.testing.assert_array_equal(y, floats(8))
    with pytest.raises(Error, match=r"E0518[\s\S]*index \[8\]"):
        run_kernel(func, [floats(11), np.empty(11, np.float32)])


def test_undefined_read_of_scratch() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        t = alloc(b, f32, (S("N"),))
        c = for_(b, "i", S("N") - 1)
        store(c, load(c, x, S("i")), t, S("i"))
        c = for_(b, "j", S("N"))
        store(c, load(c, t, S("j")), y, S("j"))

    with pytest.raises(Error, match="E0512.*element 4 of 't'"):
        run_kernel(kernel(["f32[N]", "f32[N]"], body), [floats(5), np.empty(5, np.float32)])


@pytest.mark.parametrize("fault", ["write-write", "read-write", "write-read", "vector", "none"])
def test_race_in_a_parallel_loop(fault: str) -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        c = for_(b, "i", S("N"), "parallel")
        i = S("i")
        store(c, load(c, x, i), y, i)
        if fault == "write-write":
            store(c, load(c, x, i), y, i // 2)
        elif fault == "read-write":
            store(c, load(c, x, min_(i + 1, S("N") - 1)), x, i)
        elif fault == "write-read":
            load(c, y, (i + 1) % S("N"), where=(i - 3,), fill=0)
            store(c, load(c, x, i), y, i)
        elif fault == "vector":
            v = load(c, x, S("l"), lane="l", lanes=4)
            store(c, v, y, S("l"), lane="l")

    func = kernel(["f32[N]", "f32[N]"], body)
    args = [floats(8), np.empty(8, np.float32)]
    if fault == "none":
        assert run_kernel(func, args) == 0
    else:
        with pytest.raises(Error, match="E0513|E0512"):
            run_kernel(func, args)


@pytest.mark.parametrize("seed", range(5))
def test_one_iteration_reads_what_another_writes(seed: int) -> None:
    """Caught in either order: the write sees the reader, or the read sees the writer."""

    def body(b: Builder, x: Value, y: Value) -> None:
        c = for_(b, "i", 2, "parallel")
        store(c, load(c, x, 0, where=(-S("i"),), fill=3.0), y, S("i"))
        store(c, const(c, 1.0), x, 0, where=(S("i") - 1,))

    with pytest.raises(Error, match="E0513"):
        run_kernel(kernel(["f32[1]", "f32[2]"], body), [floats(1), floats(2)], seed=seed)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("what", ["write", "read"])
def test_vectors_of_two_iterations_meet(what: str, masked: bool) -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        c = for_(b, "i", 2, "parallel")
        at, where = S("i") * 3 + S("l"), (2 * S("i") + 3 - S("l") - S("i"),) if masked else ()
        if what == "write":
            v = c.emit(loop.Splat, const(c, 2.0), lanes=4)
            store(c, v, y, at, lane="l", where=where)
        else:
            v = load(c, x, at, lane="l", lanes=4, where=where)
            store(c, v, x, at, lane="l", where=where)

    with pytest.raises(Error, match="E0513"):
        run_kernel(kernel(["f32[7]", "f32[7]"], body), [floats(7), floats(7)], written=())


def test_lanes_that_meet_or_leave_the_buffer() -> None:
    def body(b: Builder, y: Value, step: int, inside: DimLike) -> None:
        v = b.emit(loop.Splat, const(b, 2.0), lanes=4)
        store(b, v, y, S("l") // step, lane="l", where=(inside,))

    def run(step: int, inside: DimLike) -> None:
        run_kernel(
            kernel(["f32[2]"], lambda b, y: body(b, y, step, inside)), [floats(2)], written=()
        )

    run(1, 1 - S("l"))
    with pytest.raises(Error, match="E0513.*lanes"):
        run(2, 3 - S("l"))
    with pytest.raises(Error, match=r"E0510.*\[2\]"):
        run(1, 2 - S("l"))


def test_nested_parallel_loops_do_not_race_when_disjoint() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        c = for_(b, "i", 4, "parallel")
        t = alloc(c, f32, (5,))
        d = for_(c, "j", 5, "parallel")
        store(d, load(d, x, S("i"), S("j")), t, S("j"))
        e = for_(c, "q", 5, "parallel")
        store(e, load(e, t, 4 - S("q")), y, S("i"), S("q"))

    x, y = floats(4, 5), np.empty((4, 5), np.float32)
    run_kernel(kernel(["f32[4, 5]", "f32[4, 5]"], body), [x, y])
    np.testing.assert_array_equal(y, x[:, ::-1])


@pytest.mark.parametrize("n", [16, 13, 1])
def test_vector_access_with_a_masked_tail(n: int) -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        b = for_(b, "i", (S("N") + 7) // 8)
        at = S("i") * 8 + S("l")
        inside = (S("N") - 1 - at,)
        v = load(b, x, at, where=inside, fill=-1.0, lane="l", lanes=8)
        store(
            b, b.add(v, b.emit(loop.Splat, const(b, 2.0), lanes=8)), y, at, where=inside, lane="l"
        )
        total = b.emit(loop.ReduceLanes, v, combiner="min")
        store(b, total, y, S("i") * 8)

    x, y = floats(n), np.empty(n, np.float32)
    run_kernel(kernel(["f32[N]", "f32[N]"], body), [x, y])
    padded = np.full((n + 7) // 8 * 8, -1.0, np.float32)
    padded[:n] = x
    want = x + 2
    want[::8] = padded.reshape(-1, 8).min(axis=1)
    np.testing.assert_array_equal(y, want)


def test_strided_and_reversed_lanes() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        v = load(b, x, S("l"), 1, lane="l", lanes=4)
        store(b, v, y, 3 - S("l"), lane="l")

    x, y = floats(4, 3), np.empty(4, np.float32)
    run_kernel(kernel(["f32[4, 3]", "f32[4]"], body), [x, y])
    np.testing.assert_array_equal(y, x[::-1, 1])
    with pytest.raises(Error, match="E0510"):
        run_kernel(kernel(["f32[3, 3]", "f32[4]"], body), [floats(3, 3), y])


def test_packed_int4() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        b = for_(b, "i", 7)
        store(b, b.cast(load(b, x, S("i")), to=i32), y, S("i"))

    x = np.array([-8, 7, 3, -1, 0, 5, -2], ml_dtypes.int4)
    y = np.empty(7, np.int32)
    run_kernel(kernel(["i4[7]", "i32[7]"], body), [x, y])
    np.testing.assert_array_equal(y, x.astype(np.int32))

    def back(b: Builder, x: Value, y: Value) -> None:
        b = for_(b, "i", 7)
        store(b, b.cast(load(b, x, S("i")), to=i4), y, 6 - S("i"))

    z = np.empty(7, ml_dtypes.int4)
    run_kernel(kernel(["i32[7]", "i4[7]"], back), [y, z])
    np.testing.assert_array_equal(z.astype(int), x[::-1].astype(int))


def test_parallel_writers_of_one_byte_race() -> None:
    def body(b: Builder, y: Value) -> None:
        b = for_(b, "i", 8, "parallel")
        store(b, const(b, 1, i4), y, S("i"))

    with pytest.raises(Error, match="E0513"):
        run_kernel(kernel(["i4[8]"], body), [np.empty(8, ml_dtypes.int4)])


def test_bind_checks_the_index_read_from_data() -> None:
    def body(b: Builder, x: Value, at: Value, y: Value) -> None:
        b = for_(b, "i", S("N"))
        b.emit(loop.Bind, load(b, at, S("i")), symbol="g", extent=S("V"))
        store(b, load(b, x, S("g")), y, S("i"))

    func = kernel(["f32[V]", "i64[N]", "f32[N]"], body)
    x, y = floats(6), np.empty(3, np.float32)
    assert run_kernel(func, [x, np.array([5, 0, 2]), y]) == loop.STATUS_OK
    np.testing.assert_array_equal(y, x[[5, 0, 2]])
    assert run_kernel(func, [x, np.array([5, 6, 2]), y]) == loop.STATUS_INDEX


def test_while_when_if_fail_and_index_values() -> None:
    def body(b: Builder, y: Value) -> None:
        loop_ = b.insert(
            loop.While(var="r", regions=[*(Builder(b.block).block.__class__() for _ in range(2))])
        )
        before, inside = b.at(loop_.before), b.at(loop_.body)
        n = before.emit(loop.IndexValue, value=5 - S("r"), dtype=i64)
        before.emit(Yield, before.cast(n, to=boolean))
        store(inside, inside.emit(loop.IndexValue, value=S("r") * S("r"), dtype=i64), y, S("r"))
        cond = b.cast(load(b, y, 3), to=boolean)
        when = b.insert(loop.When(cond, regions=[type(b.block)(), type(b.block)()]))
        store(b.at(when.then), const(b.at(when.then), 7, i64), y, 0)
        b.at(when.otherwise).emit(loop.Fail, status=3)
        guard = b.insert(loop.If(where=(S("Q") - 2,), regions=[type(b.block)()]))
        b.at(guard.body).emit(loop.Fail, status=loop.STATUS_SHAPE)

    y = np.empty(5, np.int64)
    func = kernel(["i64[5]"], body)
    assert run_kernel(func, [y], {"Q": 1}) == 0
    assert y.tolist() == [7, 1, 4, 9, 16]
    assert run_kernel(func, [y], {"Q": 2}) == loop.STATUS_SHAPE
    with pytest.raises(Error, match="E0516.*symbol Q"):
        run_kernel(func, [y])


def copy_kernel(name: str) -> Func:
    def body(b: Builder, x: Value, y: Value) -> None:
        b = for_(b, "i", S("N"))
        one = const(b, 1.0)
        store(b, b.add(load(b, x, S("i")), one), y, S("i"))

    return kernel(["f32[N]", "f32[N]"], body, name=name)


def plan(offsets: Sequence[int]) -> Module:
    """x -> t0 -> t1 -> y + t0, with t0 and t1 at these offsets of the arena."""

    def add(b: Builder, x: Value, z: Value, y: Value) -> None:
        b = for_(b, "i", S("N"))
        store(b, b.add(load(b, x, S("i")), load(b, z, S("i"))), y, S("i"))

    def body(b: Builder, x: Value, y: Value, arena: Value, weights: Value) -> None:
        t = [
            b.insert(loop.View(arena, offset=o, type=BufferType(f32, (S("N"),)))).result
            for o in offsets
        ]
        n = (S("N"),)
        b.emit(loop.Call, x, t[0], callee="inc", dims=n)
        b.emit(loop.Call, t[0], t[1], callee="inc", dims=n)
        b.emit(loop.Call, t[1], t[0], y, callee="add", dims=n)

    main = kernel(["f32[N]", "f32[N]", "u8[64]", "u8[0]"], body, name="main", kind="plan")
    return Module.make([main, copy_kernel("inc"), kernel(["f32[N]"] * 3, add, name="add")])


def test_plan_with_views_of_an_arena() -> None:
    x, y = floats(5), np.empty(5, np.float32)
    arena, weights = np.zeros(64, np.uint8), np.zeros(0, np.uint8)
    module = plan([0, 20])
    assert run_kernel(module.main, [x, y, arena, weights], module=module) == 0
    np.testing.assert_allclose(y, 2 * x + 3, rtol=1e-6)


@pytest.mark.parametrize("offsets", [(0, 16), (20, 4), (0, 0)])
def test_overlapping_buffers_in_an_arena_are_caught(offsets: tuple[int, int]) -> None:
    module = plan(offsets)
    with pytest.raises(Error, match="E0517.*another view"):
        run_kernel(
            module.main,
            [floats(5), np.empty(5, np.float32), np.zeros(64, np.uint8), np.zeros(0, np.uint8)],
            module=module,
        )


def test_view_past_the_end_of_the_arena() -> None:
    module = plan([0, 50])
    with pytest.raises(Error, match="E0511"):
        run_kernel(
            module.main,
            [floats(5), np.empty(5, np.float32), np.zeros(64, np.uint8), np.zeros(0, np.uint8)],
            module=module,
        )


def test_strided_argument_and_half_precision() -> None:
    def body(b: Builder, x: Value, y: Value) -> None:
        b = for_(for_(b, "i", 3), "j", 2)
        x_ij = load(b, x, S("i"), S("j"))
        store(b, b.mul(x_ij, x_ij), y, S("i"), S("j"))

    func = kernel(["buffer<f16[3, 2], heap, strides=[8, 1]>", "f16[3, 2]"], body)
    x, y = floats(3, 2).astype(np.float16), np.empty((3, 2), np.float16)
    run_kernel(func, [x, y])
    np.testing.assert_array_equal(y, x * x)
    back = np.empty((2, 3), np.float16).T
    run_kernel(kernel(["f16[3, 2]", "f16[3, 2]"], body), [x, back])
    np.testing.assert_array_equal(back, x * x)


def test_host_call_and_missing_host_step() -> None:
    def body(b: Builder, x: Value, y: Value, arena: Value, weights: Value) -> None:
        b.emit(loop.HostCall, x, y, callee="sort", dims=(S("N"),))

    func = kernel(["f32[N]", "f32[N]", "u8[0]", "u8[0]"], body, kind="plan")
    none = np.zeros(0, np.uint8)
    x, y = floats(6), np.empty(6, np.float32)

    def sort(arrays: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        assert list(dims) == [6]
        arrays[1][:] = np.sort(arrays[0])

    run_kernel(func, [x, y, none, none.copy()], host={"sort": sort})
    np.testing.assert_array_equal(y, np.sort(x))
    with pytest.raises(Error, match="E0516"):
        run_kernel(func, [x, y, none, none.copy()])


def test_arguments_are_checked() -> None:
    y = np.empty((3, 4), np.float32)
    with pytest.raises(Error, match="E0516"):
        run_kernel(matmul(), [floats(3, 5), floats(6, 4), y])
    with pytest.raises(Error, match="E0516"):
        run_kernel(matmul(), [floats(3, 5), floats(5, 4).astype(np.float64), y])
    both = floats(4, 4)
    with pytest.raises(Error, match="E0519"):
        run_kernel(matmul(), [both, floats(4, 4), both])


def test_store_of_another_type_is_refused() -> None:
    def body(b: Builder, y: Value) -> None:
        store(b, const(b, 1, i8), y, 0)

    with pytest.raises(Error, match="E0521"):
        run_kernel(kernel(["f32[1]"], body), [np.empty(1, np.float32)])


def test_deep_nests_are_outlined() -> None:
    def body(b: Builder, y: Value) -> None:
        index: DimLike = 0
        for k in range(25):
            b = for_(b, f"i{k}", 2 if k % 5 == 0 else 1)
            index = index * 2 + S(f"i{k}") if k % 5 == 0 else index
        store(b, const(b, 1.0, f16), y, index)

    y = np.empty(32, np.float16)
    run_kernel(kernel(["f16[32]"], body), [y])
    assert (y == 1).all() and f16.bits == 16
