"""Gradients of the larger ops against central differences in f64, and against torch.

The cotangent of a random weighting of the results, along a random direction of the operands, is the
slope of that weighting; twice over for the second order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  registers every op
from irc.backends.cpu.build import build as build_executable
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Array, Builder, Op, Sample, Value
from irc.ir.dims import evaluate, sym
from irc.ir.interpret import run
from irc.ir.ops.control import inlined
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, from_numpy, parse_type
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate
from irc.passes.autodiff.pullback import pullback
from irc.passes.pipeline import Options, compile_module

RNG = np.random.default_rng(5)
Build = Callable[..., Any]


def gradient(build: Build, arrays: Sequence[Array], order: int = 1) -> Func:
    """A function of the arrays that gives the weighted float results, then the cotangents of the
    float operands; of the second order the results are the weighted cotangents of the first.
    """
    func = Func.make("main", [TensorType(from_numpy(a.dtype), a.shape) for a in arrays])
    b = Builder(func.body)
    wrt = [a for a in func.args if a.tensor.dtype.is_float]
    found = build(b, *func.args)
    marks = weighted(b, found if isinstance(found, tuple) else (found,))
    for _ in range(order - 1):
        marks = weighted(b, pullback(b, marks, [ones(b, m) for m in marks], wrt))
    cotangents = pullback(b, marks, [ones(b, m) for m in marks], wrt)
    filled = [
        const(b, np.zeros(v.tensor.shape, v.tensor.dtype.np)) if g is None else g
        for g, v in zip(cotangents, wrt, strict=True)
    ]
    b.emit(Return, *marks, *filled)
    verify(func)
    return func


def const(b: Builder, array: Any) -> Value:
    return b.insert(Const(np.asarray(array))).result


def ones(b: Builder, like: Value) -> Value:
    return const(b, np.ones(like.tensor.shape, like.tensor.dtype.np))


def weighted(b: Builder, results: Sequence[Value | None]) -> list[Value]:
    """Each float result times random weights."""
    rng, made = np.random.default_rng(11), []
    for value in results:
        if value is not None and value.tensor.dtype.is_float:
            weight = rng.uniform(0.5, 1.5, value.tensor.shape)
            made.append(b.mul(value, const(b, weight.astype(value.tensor.dtype.np))))
    return made


def check(
    build: Build,
    arrays: Sequence[Array],
    order: int = 1,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    fixed: Sequence[int] = (),
) -> list[Array]:
    """The cotangents agree with central differences in random directions; gives them.

    Operands in `fixed` stay where they are.
    """
    func = gradient(build, arrays, order)
    floats = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]

    def values(given: Sequence[Array]) -> tuple[float, list[Array]]:
        (*marks,) = run(func, list(given))
        count = len(marks) - len(floats)
        return math.fsum([float(np.sum(m)) for m in marks[:count]]), marks[count:]

    rng = np.random.default_rng(23)
    grads = values(arrays)[1]
    for _ in range(2):
        along = {k: rng.uniform(-1, 1, arrays[k].shape) for k in floats if k not in fixed}
        ends = []
        for sign in (1, -1):
            moved = [a + sign * eps * along[k] if k in along else a for k, a in enumerate(arrays)]
            ends.append(values(moved)[0])
        terms = [g * along[k] for k, g in zip(floats, grads, strict=True) if k in along]
        bound = rtol * max(sum([float(np.sum(abs(t))) for t in terms]), 1e-2)
        got = sum([float(np.sum(t)) for t in terms])
        np.testing.assert_allclose(got, (ends[0] - ends[1]) / (2 * eps), rtol, bound)
    return grads


def of_op(name: str, **attrs: Any) -> Build:
    return lambda b, *xs: b.emit(OPS[name], *xs, **attrs)


def operands(cls: type[Op], sample: Sample) -> list[Array | None]:
    """Operands of a sample, its floats in f64."""
    rng, made = np.random.default_rng(9), []
    for k, shape in enumerate(sample.shapes):
        low, high = sample.ranges[min(k, len(sample.ranges) - 1)] if sample.ranges else (-2, 2)
        named = sample.dtypes[min(k, len(sample.dtypes) - 1)] if sample.dtypes else ""
        kind = cls.spec.operands[min(k, len(cls.spec.operands) - 1)].kind
        if shape is None:
            made.append(None)
        elif named == "bool":
            made.append(rng.integers(0, 2, shape).astype(np.bool_))
        elif (named and not DType(named).is_float) or not kind.accepts(DType("f64")):
            whole = rng.integers(int(np.ceil(low)), int(high), shape, endpoint=True)
            made.append(whole.astype(DType(named or "i64").np))
        else:
            made.append(rng.uniform(low, high, shape))
    return made


FIRST: dict[str, Sequence[int]] = {
    "softmax": range(6), "log_softmax": range(6), "layer_norm": range(6), "group_norm": range(6),
    "rms_norm": range(5), "lp_norm": (0, 1, 3), "mean_variance_norm": range(4),
    "sample_points": range(3), "scatter_points": range(3), "grid_sample": range(15),
    "deform_conv": range(4), "roi_align": range(5), "roi_align_grad": range(4),
    "max_roi_pool": range(4),
    "ctc_loss": range(5),
    "col2im": (0, 1, 2, 4, 5), "max_unpool": (0, 2), "resample": (0, 1, 2, 4),
    "resize": (*range(11), 13, 14, 15), "dft": range(11), "stft": range(4),
    "dropout": range(6), "batch_norm_train": range(7), "cross_entropy": range(9),
    "local_response_norm": range(9), "attention": range(8), "rotary_embedding": range(6),
}  # fmt: skip
FIXED = {"roi_align": (1,), "roi_align_grad": (1,), "max_roi_pool": (1,)}
"""Float operands that get no cotangent: regions."""
SECOND = ("softmax", "log_softmax", "layer_norm", "group_norm", "rms_norm", "lp_norm",
          "mean_variance_norm", "local_response_norm", "attention", "rotary_embedding", "dropout",
          "col2im", "max_unpool", "resample", "resize", "dft", "stft",
          "sample_points", "scatter_points", "grid_sample", "ctc_loss", "deform_conv",
          "batch_norm_train", "cross_entropy")  # fmt: skip


def sample_call(name: str, at: int) -> tuple[Build, list[Array]]:
    cls = OPS[name]
    sample = cls.samples[at]
    values = operands(cls, sample)
    attrs = dict(sample.attrs)

    def build(b: Builder, *xs: Value) -> Any:
        given = iter(xs)
        return b.emit(cls, *[None if v is None else next(given) for v in values], **attrs)

    return build, [v for v in values if v is not None]


@pytest.mark.parametrize(("name", "at"), [(n, at) for n, chosen in FIRST.items() for at in chosen])
def test_samples(name: str, at: int) -> None:
    build, arrays = sample_call(name, at)
    check(build, arrays, fixed=FIXED.get(name, ()))


@pytest.mark.parametrize("name", SECOND)
def test_second_order(name: str) -> None:
    build, arrays = sample_call(name, 1 if name == "local_response_norm" else 0)
    check(build, arrays, order=2)


def test_unpool_of_equal_positions() -> None:
    x, index = RNG.uniform(-1, 1, (2, 3)), np.asarray([[1, 4, 1], [4, 0, 1]])
    found = check(of_op("max_unpool", shape=(7,)), [x, index])[0]
    np.testing.assert_array_equal(found != 0, [[False] * 3, [True] * 3])


@pytest.mark.parametrize(
    ("attrs", "tables"),
    [
        ({"axes": (1,), "sizes": (9,), "places": ((1, -1, 2),), "taps": (2,)}, [(2, 2)]),
        ({"axes": (0, 1), "sizes": (5, 4), "places": ((1, -1, 2), (2, -1, 3)), "taps": (2, 3)},
         [(1, 2), (4, 3)]),
        ({"axes": (1,), "sizes": (6,), "places": ((2, 1, 3),), "taps": (2,)}, []),
    ],
)  # fmt: skip
def test_resample_with_weights_that_are_computed(attrs: Any, tables: Any) -> None:
    arrays = [RNG.uniform(-1, 1, s) for s in ((4, 5), *tables)]
    check(of_op("resample", **attrs), arrays)
    if not tables:
        return
    check(of_op("resample", **attrs), arrays, order=2)


def test_resample_of_unknown_extents() -> None:
    """The scattered adjoint is the gathered one."""
    attrs = {"axes": (1,), "places": ((1, -1, 2),), "taps": (2,)}
    x, weights = RNG.uniform(-1, 1, (3, 5)), RNG.uniform(-1, 1, (2, 2))
    want = run(gradient(of_op("resample", sizes=(10,), **attrs), [x, weights]), [x, weights])
    n = sym("N")
    func = Func.make("main", [TensorType(DType("f64"), s) for s in ((3, n), (2, 2), (3, 2 * n))])
    b = Builder(func.body)
    found = b.mul(b.resample(*func.args[:2], sizes=(2 * n,), **attrs), func.args[2])
    cotangent = b.broadcast_to(const(b, np.ones(())), shape=found.tensor.shape)
    b.emit(Return, found, *pullback(b, [found], [cotangent], func.args[:2]))  # type: ignore[list-item]
    factor = np.random.default_rng(11).uniform(0.5, 1.5, (3, 10))
    for got, expected in zip(run(func, [x, weights, factor]), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


COMPILED = {"mean_variance_norm": 0, "layer_norm": 0, "attention": 0, "cross_entropy": 1,
            "batch_norm_train": 0, "deform_conv": 0}  # fmt: skip


def test_compiled() -> None:
    """Several in one program: what is computed beside something else is there before it is read."""
    func, arrays, wanted = Func.make("main", []), [], []
    b = Builder(func.body)
    outs: list[Value] = []
    for name, at in COMPILED.items():
        build, given = sample_call(name, at)
        given = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in given]
        alone = gradient(build, given)
        wanted += run(alone, given)
        types = [TensorType(from_numpy(a.dtype), a.shape) for a in given]
        outs += inlined(b, alone.body, [func.body.add_arg(t) for t in types])
        arrays += given
    b.emit(Return, *outs)
    target = cpu_target(1)
    planned = compile_module(Module.make([func]), target, Options(verify_each=True)).planned
    assert planned is not None
    found = build_executable(planned, target, codegen=codegen_target(None)).run(arrays)
    for got, want in zip(found, wanted, strict=True):
        scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
        np.testing.assert_allclose(got, want, rtol=3e-5, atol=3e-5 * scale)


OPEN: dict[str, tuple[Sequence[str], Sequence[int], dict[str, Any]]] = {
    "softmax": (["f64[N, M]"], (0,), {}),
    "log_softmax": (["f64[N, M]"], (0,), {}),
    "layer_norm": (["f64[N, M]", "f64[M]", "f64[M]"], (0, 1), {}),
    "rms_norm": (["f64[N, M]", "f64[M]"], (0, 1), {}),
    "group_norm": (["f64[N, 6, H, W]", "f64[6]", "f64[6]"], (0, 1), {"groups": 3}),
    "batch_norm_train": (["f64[N, 3, M]", "f64[3]", "f64[3]"], (0, 1), {}),
    "mean_variance_norm": (["f64[N, M]"], (0,), {"axes": (1,)}),
    "lp_norm": (["f64[N, M]"], (0,), {}),
    "local_response_norm": (["f64[N, M, H]"], (0,), {"size": 3}),
    "cross_entropy": (["f64[N, M]", "i64[N]"], (0,), {"smoothing": 0.1, "reduction": "mean"}),
    "attention": (["f64[N, 4, S, 3]", "f64[N, 2, T, 3]", "f64[N, 2, T, 5]"], (0, 1, 2),
                  {"causal": True}),
    "rotary_embedding": (["f64[N, 2, S, 4]", "f64[1, S, 2]", "f64[1, S, 2]"], (0, 1), {}),
    "ctc_loss": (["f64[T, N, 5]", "i64[N, S]", "i64[N]", "i64[N]"], (0,), {}),
    "lstm": (["f64[T, N, 3]", "f64[1, 8, 3]", "f64[1, 8, 2]", "f64[1, 16]"], (0, 1, 2, 3), {}),
    "gru": (["f64[T, N, 3]", "f64[1, 6, 3]", "f64[1, 6, 2]", "f64[1, 12]"], (0, 1, 2, 3), {}),
    "grid_sample": (["f64[N, 2, H, W]", "f64[N, S, T, 2]"], (0, 1), {}),
    "resize": (["f64[N, 2, H]"], (0,), {"axes": (2,), "sizes": (2 * sym("H"),), "scales": (2.0,),
                                       "mode": "linear"}),
    "max_unpool": (["f64[N, M]", "i64[N, M]"], (0,), {"shape": (sym("N"), 9)}),
    "col2im": (["f64[N, 12, 6]"], (0,), {"size": (3, 4), "kernel": (2, 2)}),
    "roi_align": (["f64[2, 3, H, W]", "f64[N, 4]", "i64[N]"], (0,), {"size": (2, 2)}),
    "max_roi_pool": (["f64[1, 3, H, W]", "f64[N, 5]"], (0,), {"size": (2, 2)}),
}  # fmt: skip
EXTENTS = {"N": 2, "M": 5, "H": 4, "W": 3, "S": 2, "T": 6}


@pytest.mark.parametrize("name", OPEN)
def test_open_extents(name: str) -> None:
    """With extents that are not known the gradients are those with the extents."""
    texts, wrt, attrs = OPEN[name]
    types = [parse_type(t) for t in texts]
    closed = [TensorType(t.dtype, tuple([evaluate(e, EXTENTS) for e in t.shape])) for t in types]
    known = {k: tuple([evaluate(e, EXTENTS) for e in v]) if k in ("sizes", "shape") else v
             for k, v in attrs.items()}  # fmt: skip
    found = []
    rng = np.random.default_rng(2)
    arrays = [
        rng.uniform(-1, 1, t.shape) if t.dtype.is_float else rng.integers(1, 2, t.shape)
        for t in closed
    ]
    for chosen, given in ((types, attrs), (closed, known)):
        func = Func.make("main", chosen)
        b = Builder(func.body)
        results = b.insert(OPS[name](*func.args, **given)).results
        b.emit(Return, *results)
        made = differentiate(func, list(wrt), [0], cotangents=True)
        verify(made)
        weight = np.random.default_rng(1).uniform(-1, 1, run(func, arrays)[0].shape)
        found.append(run(made, [*arrays, weight]))
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
