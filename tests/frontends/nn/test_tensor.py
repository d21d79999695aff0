"""Tensors and numpy's functions, each against numpy: values, types, shapes; indexing; errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import irc
from irc import nn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5))
Y = RNG.standard_normal((4, 1))
P = np.abs(X) + 0.5
U = X / (1 + np.abs(X))
I = RNG.integers(-9, 9, (3, 4))
B = X > 0

UNARY = [
    ("abs", X), ("negative", X), ("sign", X), ("exp", X), ("expm1", X), ("log", P), ("log1p", P),
    ("log2", P), ("log10", P), ("exp2", X), ("sqrt", P), ("square", X), ("reciprocal", P),
    ("sin", X), ("cos", X), ("tan", U), ("arcsin", U), ("arccos", U), ("arctan", X), ("sinh", X),
    ("cosh", X), ("tanh", X), ("arcsinh", X), ("arccosh", P + 1), ("arctanh", U), ("floor", X),
    ("ceil", X), ("trunc", X), ("round", X * 4), ("isnan", X), ("isinf", X), ("isfinite", X),
    ("abs", I), ("negative", I), ("sign", I), ("floor", I), ("logical_not", I), ("bitwise_not", I),
]  # fmt: skip
BINARY = [
    ("add", X, Y), ("subtract", X, Y), ("multiply", X, Y), ("divide", X, P), ("maximum", X, Y),
    ("minimum", X, Y), ("power", P, Y), ("remainder", X, P), ("fmod", X, P), ("copysign", X, Y),
    ("floor_divide", X, P), ("equal", I, 0), ("not_equal", I, 0), ("less", X, Y), ("greater", X, Y),
    ("less_equal", I, I.T[:, :, None]), ("greater_equal", X, Y), ("add", I, 3), ("multiply", I, I),
    ("floor_divide", I, 4), ("floor_divide", I, -4), ("remainder", I, 4), ("bitwise_and", I, 5),
    ("bitwise_or", I, 5), ("bitwise_xor", I, 5), ("left_shift", np.abs(I), 2),
    ("right_shift", np.abs(I), 1), ("logical_and", B, I.sum() > 0), ("logical_or", B, ~B),
    ("logical_xor", B, ~B),
]  # fmt: skip
REDUCE = ["sum", "mean", "prod", "max", "min", "var", "std", "all", "any"]


def run(call: Any, *xs: Any) -> Any:
    """What a function gives; a trace of it, interpreted, gives the same."""
    tensors = [nn.tensor(x) for x in xs]
    found, traced = call(*tensors), nn.trace(call, *tensors)(*tensors)
    for a, b in zip(*[t if isinstance(t, tuple) else (t,) for t in (found, traced)]):
        assert a.type is b.type
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    return found


def check(found: Any, want: Any, rtol: float = 1e-9) -> None:
    """The values of arrays, and their element types."""
    assert found.shape == want.shape
    assert found.numpy().dtype == want.dtype
    np.testing.assert_allclose(found.numpy(), want, rtol, 1e-12)


@pytest.mark.parametrize(("name", "x"), UNARY)
def test_functions_of_one_tensor(name: str, x: Any) -> None:
    check(run(getattr(nn, name), x), getattr(np, name)(x))


@pytest.mark.parametrize(("name", "x", "y"), BINARY)
def test_functions_of_two_tensors(name: str, x: Any, y: Any) -> None:
    check(run(lambda x: getattr(nn, name)(x, y), x), getattr(np, name)(x, y))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", REDUCE)
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    want = getattr(np, name)(U, axis=axis, keepdims=keepdims)
    check(run(lambda x: getattr(nn, name)(x, axis, keepdims), U), np.asarray(want))
    if name not in ("all", "any"):
        check(getattr(nn.tensor(U), name)(axis, keepdims), np.asarray(want))


def test_more_reductions() -> None:
    t = nn.tensor(X)
    for axis in (None, 0, 1, -1):
        check(nn.argmax(t, axis), np.asarray(np.argmax(X, axis)))
        check(nn.argmin(t, axis), np.asarray(np.argmin(X, axis)))
        check(nn.cumsum(t, axis), np.cumsum(X, axis))
        check(nn.cumprod(t, axis), np.cumprod(X, axis))
    check(nn.var(t, 1, ddof=1), X.var(1, ddof=1))
    check(nn.logsumexp(t, 1), np.log(np.exp(X).sum(1)))
    check(nn.norm(t), np.asarray(np.linalg.norm(X)))
    check(nn.norm(t, 1, 0), np.abs(X).sum(0))
    check(nn.norm(t, np.inf, 0), np.abs(X).max(0))
    check(nn.norm(t, 3, 0), (np.abs(X) ** 3).sum(0) ** (1 / 3))
    check(nn.softmax(t).sum(-1), np.ones((3, 4)))
    check(nn.sum(nn.tensor(B)), np.asarray(B.sum()))
    check(nn.mean(nn.tensor(I)), np.asarray(np.float32(I.mean())), 1e-6)


SHAPES = [
    (lambda f, x: f.reshape(x, (12, 5)), "reshape"),
    (lambda f, x: f.reshape(x, (2, -1)), "reshape with -1"),
    (lambda f, x: f.transpose(x), "transpose"),
    (lambda f, x: f.transpose(x, (2, 0, 1)), "transpose axes"),
    (lambda f, x: f.swapaxes(x, 0, 2), "swapaxes"),
    (lambda f, x: f.moveaxis(x, 0, -1), "moveaxis"),
    (lambda f, x: f.moveaxis(x, (0, 1), (2, 0)), "moveaxis of two"),
    (lambda f, x: f.expand_dims(x, 1), "expand_dims"),
    (lambda f, x: f.expand_dims(x, (0, -1)), "expand_dims of two"),
    (lambda f, x: f.squeeze(f.expand_dims(x, 1)), "squeeze"),
    (lambda f, x: f.squeeze(f.expand_dims(x, (0, 2)), 2), "squeeze one"),
    (lambda f, x: f.concatenate([x, x[:, :2]], 1), "concatenate"),
    (lambda f, x: f.stack([x, x], 1), "stack"),
    (lambda f, x: f.stack([x, x], -1), "stack behind"),
    (lambda f, x: f.flip(x, 1), "flip"),
    (lambda f, x: f.flip(x), "flip all"),
    (lambda f, x: f.roll(x, 2, 1), "roll"),
    (lambda f, x: f.roll(x, -7), "roll flat"),
    (lambda f, x: f.roll(x, (1, -2), (0, 2)), "roll two"),
    (lambda f, x: f.tile(x, (2, 1, 3)), "tile"),
    (lambda f, x: f.tile(x, (2, 1, 1, 2)), "tile to a higher rank"),
    (lambda f, x: f.repeat(x, 3, 1), "repeat"),
    (lambda f, x: f.repeat(x, 2), "repeat flat"),
    (lambda f, x: f.pad(x, ((0, 0), (1, 2), (3, 0))), "pad"),
    (lambda f, x: f.pad(x, 1, mode="reflect"), "pad reflect"),
    (lambda f, x: f.pad(x, (1, 2), mode="edge"), "pad edge"),
    (lambda f, x: f.ravel(x), "ravel"),
    (lambda f, x: f.split(x, 2, 1)[1], "split"),
    (lambda f, x: f.tril(x, -1), "tril"),
    (lambda f, x: f.triu(x, 1), "triu"),
    (lambda f, x: f.broadcast_to(x[:, :1], (3, 4, 5)), "broadcast_to"),
    (lambda f, x: f.sort(x, 1), "sort"),
    (lambda f, x: f.argsort(x, 1), "argsort"),
    (lambda f, x: f.take(x, np.array([[0, -1], [2, 2]]), 1), "take"),
    (lambda f, x: f.take(x, np.array([0, 59, 7])), "take flat"),
    (lambda f, x: f.clip(x, -0.5, 0.5), "clip"),
    (lambda f, x: f.where(x > 0, x, 0.0), "where"),
    (lambda f, x: f.zeros_like(x), "zeros_like"),
    (lambda f, x: f.full_like(x, 2.0), "full_like"),
]


@pytest.mark.parametrize(("call", "name"), SHAPES, ids=[n for _, n in SHAPES])
def test_functions_that_move_elements(call: Any, name: str) -> None:
    check(run(lambda x: call(nn, x), X), np.asarray(call(np, X)))


def test_torch_names_of_moves() -> None:
    t = nn.tensor(X)
    check(t.transpose(0, 2), X.swapaxes(0, 2))
    check(t.permute(2, 0, 1), X.transpose(2, 0, 1))
    check(t.view(-1, 5), X.reshape(-1, 5))
    check(t.flatten(1), X.reshape(3, 20))
    check(t.unsqueeze(0), X[None])
    check(t.T, X.T)
    check(t.mT, X.swapaxes(1, 2))
    check(nn.cat([t, t]), np.concatenate([X, X]))
    assert [c.shape for c in nn.chunk(t, 3, 2)] == [(3, 4, 2), (3, 4, 2), (3, 4, 1)]
    assert [c.shape for c in nn.split(t, [1, 3], 1)] == [(3, 1, 5), (3, 3, 5)]


EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)), ("ij,jk", (3, 4), (4, 5)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("...ij,...jk->...ik", (2, 2, 3, 4), (2, 4, 5)),
    ("ii", (4, 4)), ("ii->i", (4, 4)),
    ("ij->ji", (3, 4)), ("ij->j", (3, 4)), ("i,j->ij", (3,), (4,)), ("i,i", (3,), (3,)),
    ("ij,ij->", (3, 4), (3, 4)), ("ijk,k,j->i", (2, 3, 4), (4,), (3,)),
    ("iij,jk->ik", (3, 3, 4), (4, 2)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", EQUATIONS, ids=[c[0] for c in EQUATIONS])
def test_einsum(case: Any) -> None:
    equation, *shapes = case
    xs = [RNG.standard_normal(s) for s in shapes]
    check(run(lambda *xs: nn.einsum(equation, *xs), *xs), np.asarray(np.einsum(equation, *xs)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
        ((7, 1, 3, 4), (2, 4, 5)),
    ],
)  # fmt: skip
def test_matmul(a: Any, b: Any) -> None:
    x, y = RNG.standard_normal(a), RNG.standard_normal(b)
    check(nn.tensor(x) @ y, np.asarray(x @ y))
    check(x @ nn.tensor(y), np.asarray(x @ y))


INDICES = [
    np.s_[1], np.s_[-1], np.s_[1, 2], np.s_[1, 2, 3], np.s_[:, 1], np.s_[..., 1], np.s_[1:],
    np.s_[::2], np.s_[::-1], np.s_[:, 3:0:-2], np.s_[:, None, 1], np.s_[None],
    np.s_[..., None, 1::2], np.s_[5:], np.s_[:-1, -2:], np.s_[[0, 2]], np.s_[:, [1, 1, 3]],
    np.s_[[0, 1], [2, 3]],
    np.s_[[[0], [1]], [2, 3]], np.s_[:, [0, 1], [2, 3]], np.s_[1:, [0, -1]],
    np.s_[[0, 1], :, [2, 3]],
    np.s_[B], np.s_[X[:, 0, 0] > 0], np.s_[[True, False, True]], np.s_[0, X[0, :, 0] > 0],
    np.s_[np.array(1)], np.s_[...], np.s_[np.zeros((0,), int)],
]  # fmt: skip


@pytest.mark.parametrize("key", INDICES, ids=[str(k)[:30] for k in INDICES])
def test_indexing_as_numpy(key: Any) -> None:
    check(run(lambda x: x[key], X), np.asarray(X[key]))


def test_gather_and_scatter_against_torch() -> None:
    torch = pytest.importorskip("torch")
    x, index, new = X[:, :, 0], RNG.integers(0, 3, (2, 4)), RNG.standard_normal((2, 4))
    tx, ti, tn = torch.tensor(x), torch.tensor(index), torch.tensor(new)
    check(nn.gather(x, 0, index), torch.gather(tx, 0, ti).numpy())
    check(nn.scatter_add(x, 0, index, new), tx.scatter_add(0, ti, tn).numpy())
    for name, ours in (("sum", "add"), ("prod", "mul"), ("amax", "max"), ("amin", "min")):
        want = tx.scatter_reduce(0, ti, tn, name).numpy()
        check(nn.scatter(x, 0, index, new, ours), want)
    where = torch.tensor([2, 0, 2])
    check(nn.index_add(x, 1, where.numpy(), x[:, :3]), tx.index_add(1, where, tx[:, :3]).numpy())
    for largest in (True, False):
        values, places = nn.topk(X, 2, 1, largest)
        want_values, want_places = torch.tensor(X).topk(2, 1, largest)
        check(values, want_values.numpy())
        check(places, want_places.numpy())
    hot = torch.nn.functional.one_hot(torch.tensor([0, 2]), 3)
    check(nn.one_hot([0, 2], 3, dtype="i64"), hot.numpy())
    picks = RNG.integers(0, 4, (3, 2))
    check(nn.take_along_axis(x, picks, 1), np.take_along_axis(x, picks, 1))
    check(nn.take_along_axis(x, picks[:1], 1), np.take_along_axis(x, picks[:1], 1))


def test_creation() -> None:
    check(nn.zeros(2, 3), np.zeros((2, 3), np.float32))
    check(nn.ones((2,), dtype="i32"), np.ones(2, np.int32))
    check(nn.full((2,), 3.0), np.full(2, 3.0, np.float32))
    check(nn.arange(5), np.arange(5))
    check(nn.arange(1, 2, 0.25), np.arange(1, 2, 0.25, np.float32))
    check(nn.arange(5, dtype="f64"), np.arange(5.0))
    check(nn.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32))
    check(nn.eye(3, 4), np.eye(3, 4, dtype=np.float32))
    check(nn.diagonal(nn.tensor(X)), np.diagonal(X, axis1=-2, axis2=-1))
    axes = np.arange(3), np.arange(2)
    for found, want in zip(nn.meshgrid(*axes), np.meshgrid(*axes)):
        check(found, want)
    check(nn.searchsorted(np.array([1.0, 2, 3]), X), np.searchsorted([1.0, 2, 3], X))
    check(nn.bincount(np.array([1, 1, 3]), 5), np.bincount([1, 1, 3], minlength=5))


def test_element_types() -> None:
    assert nn.tensor([1.5]).dtype is nn.f32
    assert nn.tensor([1]).dtype is nn.i64
    assert nn.tensor([True]).dtype is nn.boolean
    assert nn.tensor(np.ones(2)).dtype is nn.f64
    assert nn.tensor([1.5], dtype="bfloat16").dtype is nn.bf16
    f32, f64, bf16, i32 = [nn.ones(2, dtype=t) for t in ("f32", "f64", "bf16", "i32")]
    assert (f32 * 2.0).dtype is nn.f32
    assert (bf16 * 2.5).dtype is nn.bf16
    assert (bf16 * np.float64(2.5)).dtype is nn.bf16
    assert (f32 + f64).dtype is nn.f64
    assert (i32 + f32).dtype is nn.f32
    assert (i32 * 2).dtype is nn.i32
    assert (i32 * 2.5).dtype is nn.f32
    assert (i32 / i32).dtype is nn.f32
    assert (nn.tensor([True]) + 1).dtype is nn.i64
    assert (bf16 + nn.ones(2, dtype="f16")).dtype is nn.f32
    assert (nn.ones(2, dtype="u8") + nn.ones(2, dtype="i8")).dtype is nn.i16
    assert nn.ones(2, dtype="u8").astype(np.float16).dtype is nn.f16
    x = np.linspace(-3, 3, 7).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(nn.exp(x).numpy(), np.exp(x.astype("f")).astype(x.dtype))
    with pytest.raises(irc.Error, match="E0611"):
        nn.ones(2, dtype="float33")


def test_a_tensor_in_python() -> None:
    t = nn.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2 and [float(r.sum()) for r in t] == [3.0, 7.0]
    assert t[0, 1].item() == 2.0 and t.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert int(nn.tensor(3)) == 3 and list(range(5))[nn.tensor(2)] == 2
    assert bool(t[0, 0] == 1) and 4.0 in t
    assert "1., 2." in repr(t) and "f32" in repr(t)
    assert f"{t.sum():.2f}" == "10.00" and str(t.sum()) == "10.0"
    assert np.asarray(t).sum() == 10 and np.add(np.ones(2), 1).sum() == 4
    assert isinstance(np.float64(2) * t, nn.Tensor) and isinstance(np.ones(2) + t, nn.Tensor)
    assert np.mean(t) == 2.5 and np.stack([t, t]).shape == (2, 2, 2)
    assert (t == None) is False and (t != None) is True  # noqa: E711
    with pytest.raises(ValueError, match="read-only"):
        t.numpy()[0] = 0
    before = t
    t += 1
    assert before is not t and float(before.sum()) == 10
    with pytest.raises(irc.Error, match="E0619"):
        t[0] = 1
    with pytest.raises(irc.Error, match="E0612"):
        float(t)
    data = np.ones(2)
    shared = nn.tensor(data)
    data[0] = 5
    assert float(shared.sum()) == 2.0
    for made in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        np.testing.assert_array_equal(made.numpy(), t.numpy())


def test_mistakes_say_what_and_where() -> None:
    with pytest.raises(irc.Error) as wrong:
        nn.tensor(np.ones((2, 3))) @ np.ones((4, 5))
    assert "matmul" in str(wrong.value) and "test_tensor.py" in str(wrong.value)
    for call, code in [
        (lambda: nn.tensor(object()), "E0610"),
        (lambda: nn.tensor(X).sum(7), "E0612"),
        (lambda: nn.tensor(X)[1, 2, 3, 4], "E0612"),
        (lambda: nn.tensor(X)["a"], "E0612"),
        (lambda: nn.tensor(X)[np.ones((7,), bool)], "E0612"),
        (lambda: nn.tensor(X).squeeze(0), "E0612"),
        (lambda: nn.split(X, 3, 1), "E0612"),
        (lambda: nn.reshape(X, (-1, -1)), "E0612"),
        (lambda: nn.concatenate([]), "E0612"),
        (lambda: nn.einsum("ij,jk->iq", X[0], X[0].T), "E0613"),
        (lambda: nn.einsum("ij->i", X), "E0613"),
        (lambda: nn.take(X, [9], 1), "E0503"),
        (lambda: nn.gather(X, 1, [0, 1]), "E0612"),
        (lambda: nn.zeros(2, -1), "E0612"),
        (lambda: nn.random.uniform(2.5), "E0612"),
        (lambda: nn.tensor(X) + np.ones((3, 3)), "E0310"),
    ]:
        with pytest.raises(irc.Error, match=code) as found:
            call()
        assert "test_tensor.py" in str(found.value), code
    with pytest.raises(IndexError, match="out of range"):
        nn.tensor(X)[5]
