"""Traces and compiled functions: state, symbolic extents, containers, locations, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn
from irc.ir.verify import verify

RNG = np.random.default_rng(2)
X = RNG.standard_normal((5, 3)).astype(np.float32)


class Running(nn.Module):
    """A linear map that keeps the running mean of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(RNG.standard_normal((3, 4)).astype(np.float32))
        self.register_buffer("mean", np.zeros(4, np.float32))
        self.register_buffer("fixed", np.ones(4, np.float32))

    def forward(self, x: Any) -> Any:
        y = x @ self.w + self.fixed
        if self.training:
            self.mean = self.mean * 0.9 + y.mean(0) * 0.1
        return y - self.mean


def test_state_has_names_and_buffers_are_put_back() -> None:
    net = Running()
    traced = nn.trace(net, X)
    assert [s.name for s in traced.states] == ["w", "mean", "fixed"]
    assert traced.parameters == ["w"] and traced.buffers == ["mean"]
    func = traced.module.main
    assert func.inputs == ("w", "mean", "fixed", "x")
    assert func.outputs == ("mean.next", "output") and func.state == ((1, 0),)
    assert net.mean.tolist() == [0.0] * 4  # tracing changes nothing
    want, other = Running(), Running()
    for made in (want, other):
        made.load_state_dict(net.state_dict())
    run = irc.compile(other)
    for _ in range(3):
        np.testing.assert_allclose(run(X).numpy(), want(X).numpy(), 1e-6, 1e-6)
        np.testing.assert_allclose(other.mean.numpy(), want.mean.numpy(), 1e-6)
    before = other.mean.numpy().copy()
    other.eval(), want.eval()
    np.testing.assert_allclose(run(X).numpy(), want(X).numpy(), 1e-6, 1e-6)
    np.testing.assert_array_equal(other.mean.numpy(), before)
    assert len(run.programs) == 2  # one in each mode
    other.w = nn.Parameter(np.zeros((3, 4), np.float32))
    np.testing.assert_allclose(run(X).numpy(), np.broadcast_to(1 - before, (5, 4)), 1e-6)
    assert len(run.programs) == 2


def test_symbolic_extents() -> None:
    net = Running().eval()

    def forward(x: Any) -> Any:
        y = net(x)
        return y.reshape(y.shape[0] * 2, -1).sum() / x.shape[0] + nn.arange(x.shape[0]).sum()

    traced = nn.trace(forward, nn.Spec(("N", 3)))
    assert "f32[N, 3]" in str(traced.module)
    for count in (1, 5, 7):
        x = RNG.standard_normal((count, 3)).astype(np.float32)
        np.testing.assert_allclose(traced(x).numpy(), forward(nn.tensor(x)).numpy(), 1e-5)
    with pytest.raises(irc.Error, match="E0618.*symbolic"):
        nn.trace(lambda x: len(x), nn.Spec(("N", 3)))
    for call in (lambda x: list(range(x.shape[0])), lambda x: x if x.shape[0] > 3 else -x):
        with pytest.raises(irc.Error, match="E0618.*\n.*test_trace.py"):
            nn.trace(call, nn.Spec(("N", 3)))
    with pytest.raises(TypeError, match="unsupported operand"):
        nn.trace(lambda x: 1 + "1", nn.Spec(("N", 3)))
    with pytest.raises(irc.Error, match="E0622"):
        nn.trace(lambda x: x, nn.Spec((None, 3)))


def test_containers_numbers_and_constants() -> None:
    def call(batch: Any, scale: Any, *, mode: str) -> Any:
        x, (y, z) = batch["x"], batch["rest"]
        found = {"sum": x + y * scale, "pair": [z, 2 * z]}
        return found if mode == "all" else found["sum"]

    batch = {"x": X, "rest": (nn.tensor(X), X[0])}
    run = irc.compile(call)
    for _ in range(2):
        found = run(batch, 3.0, mode="all")
        np.testing.assert_allclose(found["sum"].numpy(), X * 4, 1e-6)
        assert isinstance(found["pair"], list)
        np.testing.assert_allclose(found["pair"][1].numpy(), X[0] * 2)
    assert len(run.programs) == 1
    np.testing.assert_allclose(run(batch, 2.0, mode="sum").numpy(), X * 3, 1e-6)
    assert len(run.programs) == 2  # a string is part of the program, a number is not
    np.testing.assert_allclose(run(batch, 5.0, mode="sum").numpy(), X * 6, 1e-6)
    assert len(run.programs) == 2
    traced = nn.trace(lambda a, b: a + b["k"], X, {"k": X})
    assert traced.inputs == ("a", "b.k")
    with pytest.raises(irc.Error, match="E0622"):
        traced(X, {"other": X})


def test_tied_parameters_appear_once() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    net = nn.Sequential(one, other)
    traced = nn.trace(net, X)
    assert traced.parameters == ["0.weight", "0.bias", "1.bias"]
    gradient = irc.compile(irc.value_and_grad(lambda net, x: (net(x) ** 2).sum()))(net, X)[1]
    (net(X) ** 2).sum().backward()
    for name, p in net.named_parameters():
        np.testing.assert_allclose(gradient[name].numpy(), p.grad.numpy(), 1e-5)  # type: ignore[union-attr]


def test_several_modules_have_their_names_in_front() -> None:
    encoder, decoder = nn.Linear(3, 2), nn.Linear(2, 3)
    traced = nn.trace(lambda x: decoder(encoder(x)), X)
    assert set(traced.parameters) == {
        "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias",
    }  # fmt: skip


def test_parameters_in_no_module_and_streams_of_ones_own() -> None:
    scale, stream = nn.Parameter(np.ones(3, np.float32)), nn.random.Generator(3, "mine")
    run = irc.compile(lambda x: x * scale + nn.random.uniform(3, generator=stream))
    traced = run.program(X)[0]
    assert traced.module.main.inputs == ("scale", "mine.key", "mine.counter", "x")
    for seed in (3, 4):
        stream.seed(seed)
        want = X * scale.numpy() + nn.random.uniform(3, generator=nn.random.Generator(seed)).numpy()
        np.testing.assert_allclose(run(X).numpy(), want, 1e-6)
        scale.assign([2.0, 3.0, 4.0])
    assert stream.state()["counter"].tolist() == [1, 0, 0, 0] and len(run.programs) == 1


REFUSED = [
    (lambda x: x if x.sum() > 0 else -x, "E0617", "nn.cond"),
    (lambda x: [x for _ in range(int(x[0, 0]))], "E0617", "nn.scan"),
    (lambda x: float(x.sum()), "E0617", "nn.while_loop"),
    (lambda x: x.sum().item(), "E0617", ""),
    (lambda x: np.exp(np.asarray(x)), "E0617", "nn functions"),
    (lambda x: x.numpy(), "E0617", "nn functions"),
    (lambda x: x[0, 0] > 0 and x, "E0617", "nn.where"),
    (lambda x: x[x > 0], "E0614", "nn.where"),
    (lambda x: x.sum().backward(), "E0615", "irc.grad"),
    (lambda x: nn.trace(lambda y: y, x), "E0622", ""),
]  # fmt: skip


@pytest.mark.parametrize(("call", "code", "hint"), REFUSED)
def test_what_needs_a_value_is_refused(call: Any, code: str, hint: str) -> None:
    with pytest.raises(irc.Error, match=code) as found:
        nn.trace(call, X)
    line = f"{Path(__file__).name}:{call.__code__.co_firstlineno}"
    assert line in str(found.value) and hint in str(found.value)
    with pytest.raises(irc.Error, match=code):
        irc.compile(call)(X)


def test_a_traced_tensor_that_escapes_is_refused() -> None:
    kept: list[Any] = []
    nn.trace(lambda x: kept.append(x) or x, X)
    with pytest.raises(irc.Error, match="E0616"):
        kept[0] + 1
    with pytest.raises(irc.Error, match="E0616"):
        nn.trace(lambda x: x + kept[0], X)
    assert "traced" in repr(kept[0])


def test_a_failed_trace_leaves_no_trace() -> None:
    net = Running()
    before = net.mean

    def call(x: Any) -> Any:
        net(x)
        nn.random.uniform((2,))
        raise ZeroDivisionError

    state = nn.random.state()
    with pytest.raises(ZeroDivisionError):
        nn.trace(call, X)
    assert net.mean is before
    np.testing.assert_array_equal(nn.random.state()["counter"], state["counter"])
    assert float(nn.tensor(1.0) + 1) == 2.0  # eager again


def test_ops_know_the_users_line() -> None:
    def call(x: Any) -> Any:
        y = nn.softmax(x)
        return y * 2

    first = call.__code__.co_firstlineno
    lines = {op.name: op.loc for op in nn.trace(call, X).module.main.body if op.loc is not None}
    assert lines["softmax"].line == first + 1 and lines["mul"].line == first + 2
    assert lines["softmax"].file == __file__ and "call" in lines["softmax"].name


def test_random_bits_are_those_of_eager() -> None:
    def draw(x: Any) -> Any:
        first = x * nn.random.uniform(x.shape)
        return first, nn.random.normal((3,)), nn.random.uniform(2, dtype="f64")

    nn.manual_seed(11)
    want, after = draw(nn.tensor(X)), nn.random.state()
    for run in (nn.trace(draw, X), irc.compile(draw)):
        nn.manual_seed(11)
        found = run(X)
        np.testing.assert_array_equal(found[0].numpy(), want[0].numpy())
        np.testing.assert_allclose(found[1].numpy(), want[1].numpy(), 1e-5)
        np.testing.assert_array_equal(found[2].numpy(), want[2].numpy())
        np.testing.assert_array_equal(nn.random.state()["counter"], after["counter"])
        again = run(X)
        assert not np.array_equal(again[0].numpy(), want[0].numpy())


def test_no_grad_cuts_in_a_trace() -> None:
    def call(x: Any) -> Any:
        with nn.no_grad():
            frozen = nn.exp(x)
        return (x * frozen + x.detach() * x).sum()

    found = irc.grad(call)(X).numpy()
    np.testing.assert_allclose(found, np.exp(X) + X, 1e-5)
    np.testing.assert_allclose(nn.trace(irc.grad(call), X)(X).numpy(), found, 1e-6)


def test_compiled_functions_compose() -> None:
    inner = irc.compile(lambda x: nn.sin(x))
    outer = irc.compile(irc.grad(lambda x: inner(x).sum()))
    np.testing.assert_allclose(outer(X).numpy(), np.cos(X), 1e-5)
    assert "1 programs" in repr(outer)
    assert irc.compile(lambda x: x + 1, target="reference")(X).shape == (5, 3)
    decorated = irc.compile(Running.forward)
    assert decorated.__name__ == "forward"


def test_a_compiled_method() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(np.full(3, 2.0, np.float32))

        @irc.compile
        def forward(self, x: Any) -> Any:
            return x * self.w

    one, other = Scaled(), Scaled()
    other.w.assign(np.ones(3))
    for net in (one, other, one):
        np.testing.assert_allclose(net(X).numpy(), X * net.w.numpy())
    assert len(Scaled.forward.programs) == 2
    (gradient,) = irc.grad(lambda net: net(X).sum())(one).values()
    np.testing.assert_allclose(gradient.numpy(), X.sum(0), 1e-5)


def test_backward_goes_through_compiled_functions() -> None:
    def build() -> Any:
        layers = nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Dropout(0.3)
        return nn.Sequential(*layers).double()

    net, other = build(), build()
    other.load_state_dict(net.state_dict())
    run = irc.compile(net)
    x = RNG.standard_normal((5, 3))
    for _ in range(2):  # the second time with other statistics and random bits
        grads = []
        state = nn.random.state()
        for call, module in ((run, net), (other, other)):
            nn.random.set_state(state)
            t = nn.tensor(x, requires_grad=True)
            first = irc.grad(lambda t, call=call: (call(t) ** 2).sum())(t)
            nn.random.set_state(state)
            ((call(t) * 3).sum() + (first**2).sum()).backward()
            grads.append([t.grad, *[p.grad for p in module.parameters()]])
        for a, b in zip(*grads):
            np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-8, 1e-12)
    for name, array in net.state_dict().items():
        np.testing.assert_allclose(array, other.state_dict()[name], 1e-9)
    with nn.no_grad():
        assert not run(x).requires_grad
    assert not irc.compile(nn.argmax)(x).requires_grad


def test_a_train_step_as_a_plain_function() -> None:
    def build() -> Any:
        layers = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        return nn.Sequential(*layers).double()

    x, y = RNG.standard_normal((6, 3)), RNG.standard_normal((6, 1))
    rate = nn.Parameter(np.array(0.1), requires_grad=False)

    def step_of(net: Any) -> Any:
        def loss(net: Any, x: Any, y: Any) -> Any:
            return ((net(x) - y) ** 2).mean()

        def step(x: Any, y: Any) -> Any:
            value, gradient = irc.value_and_grad(loss)(net, x, y)
            for name, p in net.named_parameters():
                p.assign(p - gradient[name] * rate)
            rate.assign(rate * 0.5)
            return value, rate * 1.0

        return step

    one, other = build(), build()
    other.load_state_dict(one.state_dict())
    run, eager = irc.compile(step_of(one)), step_of(other)
    weight = one[0].weight
    for _ in range(4):
        start = rate.numpy().copy()
        found = run(x, y)
        np.testing.assert_allclose(rate.numpy(), start * 0.5)
        rate.assign(start)
        want = eager(nn.tensor(x), nn.tensor(y))
        for a, b in zip(found, want):
            np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-9)
        for name, array in one.state_dict().items():
            np.testing.assert_allclose(array, other.state_dict()[name], 1e-8)
    assert one[0].weight is weight and isinstance(weight, nn.Parameter) and len(run.programs) == 1


def test_loops_assign_parameters() -> None:
    total = nn.Parameter(np.zeros(3, np.float32))

    def f(x: Any) -> Any:
        def body(count: Any, row: Any) -> Any:
            total.assign(total + row)
            return count + 1, total.sum()

        count, sums = nn.scan(body, 0, x)
        nn.cond(x.sum() > 1e9, lambda: total.assign(total * 0), lambda: None)
        return sums, total * 1

    want = np.cumsum(X, 0)
    for run in (f, nn.trace(f, X), irc.compile(f)):
        total.assign(np.zeros(3))
        sums, last = run(nn.tensor(X))
        np.testing.assert_allclose(sums.numpy(), want.sum(1), 1e-5, 1e-5)
        np.testing.assert_allclose(last.numpy(), want[-1], 1e-5, 1e-5)
        np.testing.assert_allclose(total.numpy(), want[-1], 1e-5, 1e-5)


def test_a_network_as_a_file(tmp_path: Path) -> None:
    net = Running()
    with pytest.raises(irc.Error, match="E0622"):
        net.save(str(tmp_path / "net.irc"))
    net(X)
    want = net.eval()(X).numpy()
    net.train()
    net.save(str(tmp_path / "net.irc"))
    assert net.training
    module = irc.load(str(tmp_path / "net.irc"))
    verify(module)
    assert "f32[N, 3]" in str(module) and not module.main.state
    for count in (5, 2):
        np.testing.assert_allclose(irc.compile(module)(X[:count]), want[:count], 1e-5, 1e-6)
    net.save(tmp_path / "net.safetensors")
    other = Running()
    other.load_state_dict(nn.load_weights(tmp_path / "net.safetensors"))
    np.testing.assert_array_equal(other.eval()(X).numpy(), want)
    for name in ("net.pt", "missing.safetensors"):
        with pytest.raises(irc.Error, match="E0626"):
            net.save(tmp_path / name) if name == "net.pt" else nn.load_weights(tmp_path / name)


def test_a_network_as_an_onnx_file(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    path = tmp_path / "net.onnx"
    irc.export_onnx(net, path, example=X)
    session = runtime.InferenceSession(str(path))
    (found,) = session.run(None, {session.get_inputs()[0].name: X})
    np.testing.assert_allclose(found, net(X).numpy(), 1e-5, 1e-6)
    np.testing.assert_allclose(irc.compile(str(path))(X), found, 1e-5, 1e-6)
