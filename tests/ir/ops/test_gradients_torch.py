"""Gradients in f32 against torch, for the ops that torch has; the conventions at kinks among them.

The table says what torch calls an op; samples that its call cannot express it refuses.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.ir.core import OPS, Array, Builder, Op, Sample
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Return
from irc.ir.types import TensorType, from_numpy

torch: Any = pytest.importorskip("torch")
F: Any = torch.nn.functional
pytestmark = pytest.mark.oracle

_spec = importlib.util.spec_from_file_location(
    "gradient_cases", Path(__file__).with_name("gradient_cases.py")
)
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


class Cannot(Exception):
    """Torch has no such call."""


def same(name: str) -> Callable[..., Any]:
    """A function of the module torch."""
    return lambda *xs: getattr(torch, name)(*xs)


def only(holds: bool, value: Any) -> Any:
    """The value of an attribute where torch has it so."""
    if not holds:
        raise Cannot
    return value


def reduced(name: str) -> Callable[..., Any]:
    def call(x: Any, axes: Any, keepdims: bool, **others: Any) -> Any:
        if not axes or not x.numel():
            raise Cannot
        return getattr(torch, name)(x, dim=axes, keepdim=keepdims)

    return call


def product(x: Any, axes: Any, keepdims: bool) -> Any:
    for axis in reversed(axes):
        x = x.prod(axis, keepdim=keepdims)
    return x


def sliced(x: Any, starts: Any, sizes: Any, steps: Any) -> Any:
    for k, (start, size, step) in enumerate(zip(starts, sizes, steps or (1,) * x.ndim)):
        x = x.index_select(k, torch.tensor([start + i * step for i in range(size)], dtype=int))
    return x


def padded(x: Any, low: Any, high: Any, mode: str, value: float) -> Any:
    pads = [p for pair in zip(low[::-1], high[::-1]) for p in pair]
    return only(mode == "constant" and bool(pads), F.pad)(x, pads, value=value)


def taken(x: Any, index: Any, axis: int) -> Any:
    flat = x.index_select(axis, index.reshape(-1).long() % x.shape[axis])
    return flat.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def along(x: Any, index: Any, axis: int) -> Any:
    return x.gather(axis, index.long() % x.shape[axis])


def scattered(x: Any, index: Any, updates: Any, axis: int, reduction: str) -> Any:
    """Torch leaves equal indices undefined where nothing is combined."""
    known = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    index = index.long() % x.shape[axis]
    if reduction == "none":
        raise Cannot
    return x.scatter_reduce(axis, index, updates, known[reduction], include_self=True)


def running(name: str) -> Callable[..., Any]:
    def call(x: Any, axis: int, exclusive: bool, reverse: bool) -> Any:
        if exclusive:
            raise Cannot
        x = x.flip(axis) if reverse else x
        out = getattr(torch, name)(x, axis)
        return out.flip(axis) if reverse else out

    return call


def clipped(x: Any, low: Any = None, high: Any = None) -> Any:
    return only(low is not None or high is not None, torch.clamp)(x, low, high)


def hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    if (alpha, beta) == (1 / 6, 0.5):
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def shrunk(x: Any, bias: float, lambd: float) -> Any:
    if bias == lambd:
        return F.softshrink(x, lambd)
    return only(bias == 0, F.hardshrink)(x, lambd)


TABLE: dict[str, Callable[..., Any]] = {
    **{
        name: same(name)
        for name in (
            "abs",
            "neg",
            "reciprocal",
            "sqrt",
            "rsqrt",
            "exp",
            "expm1",
            "log",
            "log1p",
            "tanh",
            "sigmoid",
            "erf",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "asinh",
            "acosh",
            "atanh",
            "add",
            "sub",
            "mul",
            "div",
            "pow",
            "where",
            "matmul",
            "relu",
            "det",
        )
    },
    "min": same("minimum"),
    "max": same("maximum"),
    "rem": same("fmod"),
    "mod": same("remainder"),
    "copy_sign": same("copysign"),
    "fma": lambda x, y, z: x * y + z,
    "clip": clipped,
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, alpha),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "celu": lambda x, alpha: F.celu(x, alpha),
    "selu": lambda x, alpha, gamma: F.selu(x),
    "softplus": F.softplus,
    "silu": F.silu,
    "mish": F.mish,
    "softsign": F.softsign,
    "thresholded_relu": lambda x, alpha: F.threshold(x, alpha, 0.0),
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "shrink": shrunk,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": F.hardswish,
    "gelu": lambda x, form: F.gelu(x, approximate="none" if form == "erf" else "tanh"),
    "reduce_sum": reduced("sum"),
    "reduce_mean": reduced("mean"),
    "reduce_prod": product,
    "reduce_max": reduced("amax"),
    "reduce_min": reduced("amin"),
    "reduce_log_sum_exp": reduced("logsumexp"),
    "reduce_l1": lambda x, **over: reduced("sum")(x.abs(), **over),
    "reduce_l2": lambda x, axes, keepdims: torch.linalg.vector_norm(
        x, dim=only(bool(axes), axes), keepdim=keepdims
    ),
    "reduce_sum_square": lambda x, **over: reduced("sum")(x * x, **over),
    "reduce_log_sum": lambda x, **over: reduced("sum")(x, **over).log(),
    "contract": lambda x, y, equation, out: torch.einsum(equation, x, y),
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, perm: x.permute(perm),
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "slice": sliced,
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "pad": padded,
    "take": taken,
    "gather": taken,
    "take_along": along,
    "gather_elements": along,
    "scatter_elements": scattered,
    "cum_sum": running("cumsum"),
    "cum_prod": running("cumprod"),
    "top_k": lambda x, k, axis, largest: torch.topk(x, k, axis, largest)[0],
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
}


def oracle(op: Op, arrays: list[Array], weights: list[Array]) -> list[Array]:
    """The gradients of the float arrays, by torch."""
    floats = [a.dtype.kind == "f" for a in arrays]
    tensors = [torch.tensor(a, requires_grad=f) for a, f in zip(arrays, floats, strict=True)]
    given = iter(tensors)
    operands = [None if v is None else next(given) for v in op.operands]
    attributes = {k: v for k, v in op.attributes.items() if op.name != "matmul"}
    out = TABLE[op.name](*operands, **attributes)
    (out * torch.tensor(weights[0])).sum().backward()
    moved = [t for t, f in zip(tensors, floats, strict=True) if f]
    return [np.zeros(t.shape, np.float32) if t.grad is None else t.grad.numpy() for t in moved]


def calls() -> list[Any]:
    every = [(c, at, s) for c, at, s in cases.samples() if c.name in TABLE]
    return [pytest.param(c, s, id=f"{c.name}-{at}") for c, at, s in every]


def agree(func: Func, op: Op, arrays: list[Array], weights: list[Array]) -> None:
    got = run(cases.pulled(func, "f32"), [*arrays, *weights])
    for g, w in zip(got, oracle(op, arrays, weights), strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-3, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize(("cls", "sample"), calls())
def test_torch(cls: type[Op], sample: Sample) -> None:
    """On the op's own samples."""
    made = cases.case(cls, sample, "f32")
    if made is None:
        return
    func, arrays = made
    (op,) = [op for op in func.body if isinstance(op, cls)]
    try:
        agree(func, op, arrays, cases.cotangents(func))
    except Cannot:
        return


def test_table_reaches() -> None:
    """Each row of the table is compared on some sample."""
    reached = set()
    for cls, _, sample in cases.samples():
        made = cases.case(cls, sample, "f32") if cls.name in TABLE else None
        if made is not None:
            (op,) = [op for op in made[0].body if isinstance(op, cls)]
            try:
                oracle(op, made[1], cases.cotangents(made[0]))
            except Cannot:
                continue
            reached.add(cls.name)
    assert reached == set(TABLE)


GRID = [-3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0]
KINKED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[(name, (GRID,), {}) for name in (
        "abs", "relu", "leaky_relu", "elu", "celu", "softsign", "hard_swish", "thresholded_relu",
        "softplus", "silu", "mish", "gelu", "sigmoid", "tanh",
    )],
    ("hard_sigmoid", (GRID,), {"alpha": 1 / 6, "beta": 0.5}),
    ("shrink", (GRID,), {"lambd": 0.5}),
    ("shrink", (GRID,), {"lambd": 0.5, "bias": 0.5}),
    ("prelu", (GRID, [0.25]), {}),
    ("clip", (GRID, -1.0, 2.0), {}),
    ("clip", (GRID, 1.0, -1.0), {}),
    ("clip", (GRID, 0.5), {}),
    ("clip", ([float("nan"), 1.0], -1.0, 1.0), {}),
    *[(name, (GRID, GRID[::-1]), {}) for name in ("max", "min")],
    *[(name, (GRID, 0.0), {}) for name in ("max", "min")],
    ("copy_sign", (GRID, GRID[::-1]), {}),
    ("sqrt", ([0.0, 1.0, 4.0],), {}),
    ("rsqrt", ([0.0, 1.0, 4.0],), {}),
    ("log", ([0.0, 1.0],), {}),
    ("reciprocal", ([0.0, 2.0],), {}),
    ("div", ([1.0, 0.0, 2.0], [0.0, 2.0, 4.0]), {}),
    ("pow", ([0.0, 0.0, 0.0, 2.0, 2.0], [0.0, 1.0, 2.0, 0.0, -1.0]), {}),
    ("pow", ([0.0, 0.0, 3.0], [0.5, 3.0, 0.5]), {}),
    ("rem", ([5.0, -5.0, 6.0, 0.0], [3.0, 3.0, 3.0, 3.0]), {}),
    ("mod", ([5.0, -5.0, 6.0, 0.0], [3.0, 3.0, 3.0, 3.0]), {}),
    *[(name, ([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]],), {"axes": (1,)})
      for name in ("reduce_max", "reduce_min")],
    ("reduce_prod", ([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0], [1.0, 2.0, 4.0]],), {"axes": (1,)}),
    ("cum_prod", ([[1.0, 0.0, 3.0, 2.0], [0.0, 2.0, 0.0, 5.0]],), {"axis": 1}),
    ("reduce_l2", ([[0.0, 0.0], [3.0, 4.0]],), {"axes": (1,)}),
    ("reduce_l1", ([[0.0, 0.0], [3.0, -4.0]],), {"axes": (1,)}),
    ("det", (np.eye(3) * 0.0 + 1.0,), {}),
    ("top_k", ([3.0, 1.0, 2.0],), {"k": 2}),
    ("scatter_elements", ([1.0, 2.0, 3.0], np.array([0, 0, 1]), [0.0, 5.0, 0.0]),
     {"reduction": "mul"}),
    ("scatter_elements", ([1.0, 5.0, 3.0], np.array([0, 1, 1, 1]), [1.0, 5.0, 5.0, 2.0]),
     {"reduction": "max"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "attrs"), KINKED, ids=lambda v: v if type(v) is str else ""
)
def test_kinks(name: str, given: tuple[Any, ...], attrs: dict[str, Any]) -> None:
    """At kinks, ties, zeros and NaN torch's convention holds."""
    arrays = [v if isinstance(v, np.ndarray) and v.dtype.kind == "i" else np.asarray(v, np.float32)
              for v in given]  # fmt: skip
    func = Func.make("main", [TensorType(from_numpy(a.dtype), a.shape) for a in arrays])
    b = Builder(func.body)
    op = b.insert(OPS[name](*func.args, **attrs))
    b.emit(Return, *op.results)
    weights = [np.abs(w) + np.float32(0.5) for w in cases.cotangents(func)]
    agree(func, op, arrays, weights)
