"""LSTM against a loop written from the ONNX definition: directions, peepholes, lengths, one step,
symbolic time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.interpret import run
from irc.ir.ops.control import Scan
from irc.ir.ops.core import Func, Return
from irc.ir.ops.sequence import Lstm
from irc.ir.types import parse_type


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm_by_loops(
    x: Any, w: Any, r: Any, bias: Any, h0: Any, c0: Any, peephole: Any, lengths: Any
) -> Any:
    """Each direction and each sequence of the batch by itself, all gates spelled out."""
    time, batch, _ = x.shape
    directions, _, hidden = r.shape
    y = np.zeros((time, directions, batch, hidden))
    last_h, last_c = h0.copy(), c0.copy()
    for d in range(directions):
        wi, wo, wf, wc = np.split(w[d], 4)
        ri, ro, rf, rc = np.split(r[d], 4)
        wbi, wbo, wbf, wbc, rbi, rbo, rbf, rbc = np.split(bias[d], 8)
        pi, po, pf = np.split(peephole[d], 3)
        for n in range(batch):
            steps = range(lengths[n])
            h, c = h0[d, n], c0[d, n]
            for t in steps if d == 0 else reversed(steps):
                s = x[t, n]
                i = sigmoid(wi @ s + ri @ h + pi * c + wbi + rbi)
                f = sigmoid(wf @ s + rf @ h + pf * c + wbf + rbf)
                g = np.tanh(wc @ s + rc @ h + wbc + rbc)
                c = f * c + i * g
                o = sigmoid(wo @ s + ro @ h + po * c + wbo + rbo)
                h = o * np.tanh(c)
                y[t, d, n] = h
            last_h[d, n], last_c[d, n] = h, c
    return y, last_h, last_c


def parameters(time: int, batch: int, inputs: int, hidden: int, directions: int) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = [
        (time, batch, inputs), (directions, 4 * hidden, inputs), (directions, 4 * hidden, hidden),
        (directions, 8 * hidden), (directions, batch, hidden), (directions, batch, hidden),
        (directions, 3 * hidden),
    ]  # fmt: skip
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("time", [1, 2, 5])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("varied", [False, True])
def test_by_loops(apply: Any, time: int, directions: int, varied: bool) -> None:
    given = parameters(time, 3, 2, 4, directions)
    lengths = np.array([time, max(time - 2, 0), 1], np.int32) if varied else None
    direction = "bidirectional" if directions == 2 else "forward"
    found = apply("lstm", *given, lengths, direction=direction)
    want = lstm_by_loops(*given, lengths if varied else [time] * 3)
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_reverse_is_the_second_direction(apply: Any) -> None:
    given = parameters(4, 2, 3, 2, 2)
    both = apply("lstm", *given, direction="bidirectional")
    alone = apply("lstm", given[0], *[p[1:] for p in given[1:]], direction="reverse")
    np.testing.assert_allclose(alone[0][:, 0], both[0][:, 1])
    np.testing.assert_allclose(alone[2][0], both[2][1])


def test_absent_operands_are_zeros(apply: Any) -> None:
    given = parameters(3, 2, 3, 2, 1)
    zeros = [np.zeros_like(p) for p in given[3:]]
    for got, want in zip(apply("lstm", *given[:3]), apply("lstm", *given[:3], *zeros), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-15)


def test_clip_and_coupled_gates(apply: Any) -> None:
    x, w, r = np.full((1, 1, 1), 100.0), np.ones((1, 4, 1)), np.zeros((1, 4, 1))
    c0 = np.full((1, 1, 1), 2.0)
    _, h, c = apply("lstm", x, w, r, None, None, c0, clip=1.0, input_forget=True)
    want = sigmoid(1) * np.tanh(1) + (1 - sigmoid(1)) * 2
    np.testing.assert_allclose([c.item(), h.item()], [want, sigmoid(1) * np.tanh(want)])


def test_other_activations(apply: Any) -> None:
    x, w, r = np.full((1, 1, 1), 0.5), np.ones((1, 4, 1)), np.zeros((1, 4, 1))
    _, h, c = apply("lstm", x, w, r, activations=("sigmoid", "relu", "relu"))
    np.testing.assert_allclose([c.item(), h.item()], [0.5 * sigmoid(0.5), 0.5 * sigmoid(0.5) ** 2])


def test_f16_states_are_kept_in_f32(apply: Any) -> None:
    given = [p.astype(np.float16) for p in parameters(6, 2, 3, 4, 1)]
    got = apply("lstm", *given)[0]
    want = apply("lstm", *[p.astype(np.float32) for p in given])[0]
    np.testing.assert_array_equal(got, want.astype(np.float16))


def built(types: list[str]) -> Func:
    func = Func.make("main", [parse_type(t) for t in types])
    b = Builder(func.body)
    op = b.insert(Lstm(*func.args))
    results = op.decompose(Builder(func.body, before=op))
    op.replace_by(results)
    b.emit(Return, *results)
    return func


def test_symbolic_time_and_batch() -> None:
    func = built(["f64[T, B, 2]", "f64[1, 16, 2]", "f64[1, 16, 4]", "f64[1, 32]"])
    assert [str(v.type) for v in func.returned] == [
        "f64[T, 1, B, 4]",
        "f64[1, B, 4]",
        "f64[1, B, 4]",
    ]
    for time in (1, 3):
        given = parameters(time, 2, 2, 4, 1)
        zeros = [np.zeros_like(p) for p in given[4:]]
        want = lstm_by_loops(*given[:4], *zeros, [time] * 2)
        for got, expected in zip(run(func, given[:4]), want, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12)


def test_one_product_for_all_steps_and_no_scan_for_one() -> None:
    many = built(["f32[7, 1, 2]", "f32[1, 16, 2]", "f32[1, 16, 4]"])
    scans = [op for op in many.body if isinstance(op, Scan)]
    assert len(scans) == 1
    assert [op.name for op in many.body].count("contract") == 1
    assert [op.name for op in scans[0].body].count("contract") == 1
    one = built(["f32[1, 1, 2]", "f32[1, 16, 2]", "f32[1, 16, 4]"])
    assert not [op for op in one.walk() if isinstance(op, Scan)]
    assert [op.name for op in one.body].count("contract") == 2
