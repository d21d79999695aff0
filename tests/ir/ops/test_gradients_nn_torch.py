"""The larger ops and their gradients against torch, in f64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.ir.core import OPS, Array, Builder, Value
from irc.ir.interpret import run

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
F = torch.nn.functional


def _beside() -> Any:
    """The central-difference tests, whose functions these are as well."""
    known = sys.modules.get("gradients_nn")
    if known is not None:
        return known
    path = Path(__file__).with_name("test_gradients_nn.py")
    spec = importlib.util.spec_from_file_location("gradients_nn", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gradients_nn"] = module
    spec.loader.exec_module(module)
    return module


NN = _beside()
op = NN.of_op
RNG = np.random.default_rng(8)


def draw(*shape: int) -> Array:
    return RNG.uniform(-2, 2, shape)


def compare(build: Callable[..., Any], theirs: Callable[..., Any], arrays: Sequence[Array]) -> None:
    """Weighted results, and the gradients of their sum, are torch's."""
    found = run(NN.gradient(build, arrays), list(arrays))
    given = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    results = theirs(*given)
    results = results if isinstance(results, tuple) else (results,)
    rng, total = np.random.default_rng(11), torch.zeros((), dtype=torch.float64)
    for mark, result in zip(found, results):
        weighted = result * torch.tensor(rng.uniform(0.5, 1.5, tuple(result.shape)))
        np.testing.assert_allclose(mark, weighted.detach().numpy(), rtol=1e-9, atol=1e-12)
        total = total + weighted.sum()
    total.backward()
    wanted = [g.grad for g in given if g.requires_grad]
    for got, want in zip(found[len(results) :], wanted, strict=True):
        other = np.zeros_like(got) if want is None else want.numpy()
        np.testing.assert_allclose(got, other, rtol=1e-8, atol=1e-11)


def test_norms() -> None:
    arrays = [draw(3, 4, 5), draw(5), draw(5)]
    compare(op("layer_norm"), lambda x, s, c: F.layer_norm(x, (5,), s, c), arrays)
    compare(op("rms_norm"), lambda x, s: F.rms_norm(x, (5,), s, 1e-5), arrays[:2])
    arrays = [draw(2, 6, 3, 2), draw(6), draw(6)]
    compare(op("group_norm", groups=3), lambda x, s, c: F.group_norm(x, 3, s, c), arrays)
    compare(op("local_response_norm", size=3, alpha=0.3, bias=2.0),
            lambda x: F.local_response_norm(x, 3, 0.3, 0.75, 2.0), [draw(2, 5, 3)])  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (6, 3)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    def build(b: Builder, *xs: Value) -> Any:
        return b.batch_norm_train(*xs)[0]

    def theirs(x: Any, scale: Any, bias: Any) -> Any:
        return F.batch_norm(x, None, None, scale, bias, training=True)

    compare(build, theirs, [draw(*shape), draw(3), draw(3)])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(reduction: str, smoothing: float, weighted: bool) -> None:
    labels, weights = np.asarray([[0, 3, -100], [2, -100, 1]]), RNG.uniform(0.5, 2, 4)
    attrs = {"reduction": reduction, "smoothing": smoothing}

    def build(b: Builder, x: Value, at: Value) -> Any:
        given = [NN.const(b, weights)] if weighted else []
        return b.emit(OPS["cross_entropy"], x, at, *given, **attrs)

    def theirs(x: Any, at: Any) -> Any:
        given = torch.tensor(weights) if weighted else None
        return F.cross_entropy(x, at, given, reduction=reduction, label_smoothing=smoothing)

    compare(build, theirs, [draw(2, 4, 3), labels])


def test_cross_entropy_of_ignored_labels_only() -> None:
    """The sum of nothing is 0 and has no slope; its mean is NaN."""
    arrays = [draw(2, 3), np.asarray([-100, -100])]
    loss, grad = run(NN.gradient(op("cross_entropy", reduction="sum"), arrays), arrays)
    assert loss == 0 and not grad.any()
    assert np.isnan(run(NN.gradient(op("cross_entropy", reduction="mean"), arrays), arrays)[0])


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_loss(zero_infinity: bool) -> None:
    """Behind a log_softmax, as torch's own gradient supposes; with it the third does not fit."""
    labels = np.asarray([[1, 2, 2], [3, 0, 0], [1, 1, 1], [2, 3, 1]])
    sizes = np.asarray([7, 5, 4, 6]), np.asarray([3, 1, 3 if zero_infinity else 2, 2])

    def build(b: Builder, x: Value, *rest: Value) -> Any:
        return b.ctc_loss(b.log_softmax(x, axis=2), *rest, zero_infinity=zero_infinity)

    def theirs(x: Any, *rest: Any) -> Any:
        return F.ctc_loss(F.log_softmax(x, 2), *rest, reduction="none", zero_infinity=zero_infinity)

    compare(build, theirs, [draw(7, 4, 4), labels, *sizes])


def test_ctc_loss_that_is_infinite() -> None:
    sizes = np.asarray([2]), np.asarray([2])
    arrays = [np.log(np.full((2, 1, 3), 1 / 3)), np.asarray([[1, 1]]), *sizes]
    loss, grad = run(NN.gradient(op("ctc_loss"), arrays), arrays)
    assert np.isposinf(loss).all() and np.isnan(grad).any()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [4, 2])
def test_attention(causal: bool, groups: int) -> None:
    def theirs(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    arrays = [draw(2, 4, 5, 3), draw(2, groups, 5, 3), draw(2, groups, 5, 6)]
    compare(op("attention", causal=causal), theirs, arrays)


def test_attention_with_a_mask_that_is_learnt() -> None:
    arrays = [draw(2, 2, 5, 3), draw(2, 2, 4, 3), draw(2, 2, 4, 6), draw(2, 1, 5, 4)]
    compare(op("attention"), F.scaled_dot_product_attention, arrays)


@pytest.mark.parametrize(
    ("mode", "padding"),
    [(m, p) for m in ("linear", "cubic", "nearest") for p in ("zeros", "border", "reflection")
     if (m, p) != ("cubic", "border")],
)  # fmt: skip
def test_grid_sample(mode: str, padding: str) -> None:
    """But for cubic at a border, where ONNX moves the point and torch each neighbour."""
    named = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    compare(
        op("grid_sample", mode=mode, padding=padding),
        lambda x, at: F.grid_sample(x, at, named, padding, align_corners=False),
        [draw(2, 3, 4, 5), RNG.uniform(-0.95, 0.95, (2, 3, 6, 2))],
    )


@pytest.mark.parametrize(
    ("mode", "named"), [("nearest", "nearest"), ("linear", "bilinear"), ("cubic", "bicubic")]
)
@pytest.mark.parametrize("size", [(8, 10), (3, 4), (7, 9)])
def test_resize(mode: str, named: str, size: tuple[int, int]) -> None:
    attrs: dict[str, Any] = {"axes": (2, 3), "sizes": size, "mode": mode}
    if mode == "nearest":
        attrs |= {"coordinates": "asymmetric", "rounding": "floor"}
    x = draw(2, 3, 4, 5)
    compare(op("resize", **attrs), lambda x: F.interpolate(x, size, mode=named), [x])


def test_windows_and_transforms() -> None:
    compare(op("col2im", size=(5, 6), kernel=(2, 3), strides=(2, 1), pads=(1, 1, 1, 1)),
            lambda x: F.fold(x, (5, 6), (2, 3), padding=1, stride=(2, 1)),
            [draw(2, 12, 18)])  # fmt: skip
    compare(op("dft", onesided=True), lambda x: torch.view_as_real(torch.fft.rfft(x[..., 0])),
            [draw(3, 9, 1)])  # fmt: skip
    index = np.asarray([[[[0, 3], [9, 11]]]])
    compare(op("max_unpool", shape=(1, 1, 4, 4)), lambda x, i: F.max_unpool2d(x, i, 2),
            [draw(1, 1, 2, 2), index])  # fmt: skip


GATES = {"lstm": [0, 2, 3, 1], "gru": [1, 0, 2], "rnn": [0]}
"""Where torch's gates stand among ours."""


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("both", [False, True])
def test_recurrent(name: str, both: bool) -> None:
    order, hidden, count = GATES[name], 3, 2 if both else 1
    wide = len(order) * hidden
    shapes = [(5, 2, 4), (count, wide, 4), (count, wide, hidden), (count, 2 * wide)]
    shapes += [(count, 2, hidden)] * (2 if name == "lstm" else 1)
    attrs: dict[str, Any] = {"direction": "bidirectional"} if both else {}
    if name == "gru":
        attrs["linear_before_reset"] = True
    fields = [o.name for o in OPS[name].spec.operands][3:]

    def build(b: Builder, x: Value, w: Value, r: Value, *rest: Value) -> Any:
        given = dict(zip(("bias", "h0", "c0"), rest))
        return b.emit(OPS[name], x, w, r, *[given.get(n) for n in fields], **attrs)

    def theirs(x: Any, w: Any, r: Any, bias: Any, *states: Any) -> Any:
        at = torch.cat([torch.arange(k * hidden, (k + 1) * hidden) for k in order])
        flat = []
        for d in range(count):
            flat += [w[d][at], r[d][at], bias[d][:wide][at], bias[d][wide:][at]]
        call = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}[name]
        first = states if name == "lstm" else states[0]
        y, *last = call(x, first, flat, True, 1, 0.0, False, both, False)
        return (y.reshape(5, 2, count, hidden).transpose(1, 2), *last)

    compare(build, theirs, [draw(*s) for s in shapes])
