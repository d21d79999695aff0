"""Imported programs as networks: names, values, gradients, batch norms, cutting off a head."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn
from irc.ir.core import Loc
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.parse import parse

TEXT = """
module @small
func @main(%x: f32[N, 3, 4, 4]) -> f32[N, 5] {
  %w = const {value = dense<WEIGHT>} : f32[2, 3, 1, 1] @"conv.weight"
  %c = conv(%x, %w) : f32[N, 2, 4, 4] @"/conv"
  %m = const {value = dense<[0.5, -1.0]>} : f32[2] @"bn.running_mean"
  %v = const {value = dense<[2.0, 0.25]>} : f32[2] @"bn.running_var"
  %s = const {value = dense<[1.5, 1.0]>} : f32[2] @"bn.weight"
  %b = const {value = dense<[0.25, 0.0]>} : f32[2] @"bn.bias"
  %e = const {value = dense<[1e-05]>} : f32[] @"/bn"
  %0 = add(%v, %e) : f32[2] @"/bn"
  %1 = sqrt(%0) : f32[2] @"/bn"
  %2 = div(%s, %1) : f32[2] @"/bn"
  %3 = mul(%m, %2) : f32[2] @"/bn"
  %4 = sub(%b, %3) : f32[2] @"/bn"
  %5 = reshape(%2) {shape = [2, 1, 1]} : f32[2, 1, 1] @"/bn"
  %6 = reshape(%4) {shape = [2, 1, 1]} : f32[2, 1, 1] @"/bn"
  %7 = mul(%c, %5) : f32[N, 2, 4, 4] @"/bn"
  %8 = add(%7, %6) : f32[N, 2, 4, 4] @"/bn"
  %9 = relu(%8) : f32[N, 2, 4, 4] @"/relu"
  %10 = reshape(%9) {shape = [N, 32]} : f32[N, 32] @"/flatten"
  %fw = const {value = dense<HEAD>} : f32[5, 32] @"fc.weight"
  %11 = transpose(%fw) {perm = [1, 0]} : f32[32, 5] @"/fc"
  %12 = matmul(%10, %11) : f32[N, 5] @"/fc"
  %half = const {value = dense<[0.5]>} : f32[] @"half"
  %13 = mul(%12, %half) : f32[N, 5] @"/scale"
  return %13
}
"""


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def listed(*shape: int) -> str:
    return str(normal(*shape, seed=9).round(3).ravel().tolist())


@pytest.fixture
def program() -> Any:
    text = TEXT.replace("WEIGHT", listed(2, 3, 1, 1)).replace("HEAD", listed(5, 32))
    return parse(text)


def test_constants_with_names_are_parameters(program: Any) -> None:
    net = nn.from_ir(program)
    assert [n for n, _ in net.named_parameters()] == [
        "conv.weight", "bn.weight", "bn.bias", "fc.weight",
    ]  # fmt: skip
    assert sorted(n for n, _ in net.named_buffers()) == ["bn.running_mean", "bn.running_var"]
    assert net.steps == ["/conv", "/bn", "/relu", "/flatten", "/fc", "/scale"]


@pytest.mark.parametrize("batch", [1, 3])
def test_it_computes_what_the_program_does(program: Any, batch: int) -> None:
    net, x = nn.from_ir(program), normal(batch, 3, 4, 4)
    want = run(program, [x])[0]
    np.testing.assert_array_equal(net(x).numpy(), want)
    np.testing.assert_array_equal(nn.trace(net, nn.Spec(("N", 3, 4, 4)))(x).numpy(), want)


def test_it_trains_and_keeps_its_statistics(program: Any) -> None:
    net, x = nn.from_ir(program), normal(6, 3, 4, 4)
    labels = np.array([0, 1, 2, 3, 4, 0])
    first = nn.cross_entropy(net(x), labels).item()
    statistics = {n: b.numpy().copy() for n, b in net.named_buffers()}
    for _ in range(20):
        net.zero_grad()
        nn.cross_entropy(net(x), labels).backward()
        for p in net.parameters():
            p.assign(p.numpy() - 0.1 * p.grad.numpy())
    assert nn.cross_entropy(net(x), labels).item() < 0.7 * first
    for name, b in net.named_buffers():
        assert (b.numpy() == statistics[name]).all()


def test_gradients_are_those_of_the_same_layers(program: Any) -> None:
    net, x = nn.from_ir(program), normal(2, 3, 4, 4)
    twin = nn.Sequential({
        "conv": nn.Conv2d(3, 2, 1, bias=False), "bn": nn.BatchNorm2d(2), "relu": nn.ReLU(),
        "flatten": nn.Flatten(), "fc": nn.Linear(32, 5, bias=False),
    }).eval()  # fmt: skip
    twin.load_state_dict({**net.state_dict(), "bn.num_batches_tracked": 0})
    (net(x) * normal(2, 5)).sum().backward()
    (twin(x) * 0.5 * normal(2, 5)).sum().backward()
    for name, p in twin.named_parameters():
        mine = dict(net.named_parameters())[name]
        np.testing.assert_allclose(mine.grad.numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", [{"before": "fc"}, {"before": "/fc"}, {"after": "/flatten"}])
def test_a_new_head(program: Any, where: dict[str, str]) -> None:
    net, x = nn.from_ir(program), normal(2, 3, 4, 4)
    body = net.cut(**where)
    assert [n for n, _ in body.named_parameters()] == ["conv.weight", "bn.weight", "bn.bias"]
    whole = nn.Sequential({"body": body, "head": nn.Linear(32, 7)})
    assert whole(x).shape == (2, 7)
    body.requires_grad_(False)
    nn.cross_entropy(whole(x), np.array([6, 0])).backward()
    assert whole.head.weight.grad is not None
    assert all(p.grad is None for p in body.parameters())


def test_cutting_shares_parameters_and_copying_does_not(program: Any) -> None:
    net, x = nn.from_ir(program), normal(2, 3, 4, 4)
    part, twin = net.cut(after="/relu"), copy.deepcopy(net)
    before = part(x).numpy().copy()
    dict(net.named_parameters())["conv.weight"].assign(np.zeros((2, 3, 1, 1)))
    assert (part(x).numpy() != before).any()
    assert (twin.cut(after="/relu")(x).numpy() == before).all()


def test_patterns_keep_constants(program: Any) -> None:
    net = nn.from_ir(program, buffers=["bn.*"])
    assert [n for n, _ in net.named_parameters()] == ["conv.weight", "fc.weight"]


def test_an_imported_network_is_a_layer_of_a_graph(program: Any) -> None:
    x = nn.Input((3, 4, 4))
    net = nn.Model(x, nn.Linear(32, 2)(nn.from_ir(program).cut(before="fc")(x)))
    assert net(normal(3, 3, 4, 4)).shape == (3, 2)


def test_errors(program: Any) -> None:
    net = nn.from_ir(program)
    with pytest.raises(Error, match="no layer 'conw'") as raised:
        net.cut(before="conw")
    assert raised.value.code == "E0646" and "conv" in str(raised.value)
    with pytest.raises(Error, match="one of them"):
        net.cut()
    with pytest.raises(Error, match="does not fit the network") as raised:
        net(normal(2, 4, 4, 4))
    assert "expected f32[N, 3, 4, 4]" in str(raised.value)


def test_names_and_values_there_and_back(tmp_path: Any) -> None:
    net = nn.Sequential({
        "conv": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "relu": nn.ReLU(),
        "flatten": nn.Flatten(), "fc": nn.Linear(64, 5),
    }).eval()  # fmt: skip
    x, path = normal(2, 3, 4, 4), str(tmp_path / "net.onnx")
    want = net(x).numpy()
    irc.export_onnx(nn.trace(net, nn.Spec(("N", 3, 4, 4))).frozen(), path)
    back = nn.from_ir(irc.load(path))
    assert {"conv.weight", "conv.bias", "fc.weight", "fc.bias"} <= set(back.state_dict())
    np.testing.assert_allclose(back(x).numpy(), want, rtol=1e-5, atol=1e-6)
    assert back.cut(before="fc")(x).shape == (2, 64)


def test_weights_without_names_are_called_after_their_op() -> None:
    net = nn.Sequential(nn.Embedding(7, 3), nn.LSTM(3, 4, batch_first=True))
    program = nn.trace(net, nn.Spec(("N", 5), "i64")).frozen()
    for op in program.main.body:
        op.loc = Loc(f"/{op.name}") if op.name != "const" else None
    back = nn.from_ir(program)
    assert [n for n, _ in back.named_parameters()][0] == "/take.weight"
    index = np.array([[1, 2, 3, 4, 6]])
    np.testing.assert_array_equal(back(index)[0].numpy(), net(index)[0].numpy())


def test_a_batch_of_one_is_opened() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 6), lambda x: x.reshape(x.shape[0], 2, 3).transpose(0, 2, 1),
    ).eval()  # fmt: skip
    fixed = nn.trace(net, nn.Spec((1, 3, 4, 4))).frozen()
    with pytest.raises(Error, match="does not fit the network"):
        nn.from_ir(fixed)(normal(5, 3, 4, 4))
    x = normal(5, 3, 4, 4)
    opened = nn.from_ir(fixed, batch="N")
    np.testing.assert_allclose(opened(x).numpy(), net(x).numpy(), rtol=1e-5, atol=1e-6)
    assert opened.cut(after=opened.steps[-1])(x).shape == (5, 3, 2)


def test_attention_heads_open_with_their_batch() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval()
    opened = nn.from_ir(nn.trace(layer, nn.Spec((1, 4, 6))).frozen(), batch="N")
    x = normal(3, 4, 6)
    np.testing.assert_allclose(opened(x).numpy(), layer(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function,said", [
    (lambda x: x.sum(0), "would become"),
    (lambda x: nn.concatenate([x, x], 0), "along the batch"),
    (lambda x: x.T @ x, "would become"),
    (lambda x: nn.softmax(x, 0), "along the batch"),
])  # fmt: skip
def test_batches_that_cannot_be_opened(function: Any, said: str) -> None:
    traced = nn.trace(function, nn.Spec((1, 4)))
    with pytest.raises(Error, match=said) as raised:
        nn.from_ir(traced.module, batch="N")
    assert raised.value.code == "E0646"


def test_control_flow_is_refused() -> None:
    traced = nn.trace(
        lambda c, x: nn.cond(c, lambda: nn.abs(x), lambda: -x),
        nn.Spec((), "bool"), nn.Spec((3,)),
    )  # fmt: skip
    with pytest.raises(Error, match="'if' is not taken") as raised:
        nn.from_ir(traced.module)
    assert raised.value.code == "E0646"


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_has_its_names(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    ).eval()  # fmt: skip
    for t in net[1].state_dict().values():  # the exporter writes equal initial values once
        if t.ndim:
            t.uniform_(0.5, 2)
    x, path = torch.randn(1, 3, 4, 4), str(tmp_path / "net.onnx")
    torch.onnx.export(net, (x,), path, dynamo=False, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.PRESERVE)  # fmt: skip
    ours = nn.from_ir(irc.load(path))
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    assert sorted(ours.state_dict()) == sorted(state)
    net[4].weight.data.normal_()
    ours.load_state_dict({k: v for k, v in net.state_dict().items() if "num_batches" not in k})
    np.testing.assert_allclose(ours(x.numpy()).numpy(), net(x).detach(), rtol=1e-4, atol=1e-5)
    assert ours.cut(before="4")(x.numpy()).shape == (1, 16)
