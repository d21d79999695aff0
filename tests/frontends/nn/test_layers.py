"""Layers against torch: results, gradients and statistics in f64; and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


DENSE = {
    "linear": (lambda n: n.Linear(5, 3), (4, 5)),
    "linear no bias": (lambda n: n.Linear(5, 3, bias=False), (2, 3, 5)),
    "linear vector": (lambda n: n.Linear(5, 1), (5,)),
    "linear empty": (lambda n: n.Linear(5, 2), (0, 5)),
    "flatten": (lambda n: n.Sequential(n.Flatten(), n.Linear(12, 2)), (2, 3, 4)),
    "unflatten": (lambda n: n.Sequential(n.Unflatten(1, (2, 3)), n.Linear(3, 2)), (4, 6)),
    "identity": (lambda n: n.Sequential(n.Identity(7, a=1), n.Linear(3, 2)), (4, 3)),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", DENSE)
def test_dense(against: Any, name: str) -> None:
    make, shape = DENSE[name]
    against.layer(make, normal(*shape))


@pytest.mark.oracle
@pytest.mark.parametrize("lead", [(4,), (2, 3)])
def test_bilinear(against: Any, lead: tuple[int, ...]) -> None:
    against.layer(lambda n: n.Bilinear(3, 4, 2), normal(*lead, 3), normal(*lead, 4, seed=1))


CONVS = {
    "1d": (lambda n: n.Conv1d(3, 4, 3), (2, 3, 8)),
    "2d": (lambda n: n.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 5)),
    "3d": (lambda n: n.Conv3d(2, 3, 2, stride=2), (1, 2, 4, 5, 4)),
    "alone": (lambda n: n.Conv2d(3, 4, 3), (3, 6, 5)),
    "no bias": (lambda n: n.Conv2d(3, 4, (3, 1), bias=False, stride=(2, 1)), (2, 3, 6, 5)),
    "groups": (lambda n: n.Conv2d(4, 6, 3, groups=2, padding=(0, 2)), (2, 4, 6, 5)),
    "depthwise": (lambda n: n.Conv2d(4, 8, 3, groups=4, dilation=2), (1, 4, 7, 8)),
    "same": (lambda n: n.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2)), (1, 2, 7, 8)),
    "valid": (lambda n: n.Conv1d(2, 3, 3, padding="valid"), (1, 2, 7)),
    "reflect": (lambda n: n.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (1, 2, 4, 5)),
    "replicate": (lambda n: n.Conv1d(2, 3, 3, padding=2, padding_mode="replicate"), (2, 2, 5)),
    "circular": (lambda n: n.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (1, 2, 4, 5)),
    "same reflect": (
        lambda n: n.Conv1d(2, 3, 4, padding="same", padding_mode="reflect"), (2, 2, 6),
    ),
    "t1d": (lambda n: n.ConvTranspose1d(3, 4, 3, stride=2), (2, 3, 5)),
    "t2d": (
        lambda n: n.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 3, 4),
    ),
    "t2d dilated": (lambda n: n.ConvTranspose2d(2, 3, 2, dilation=2, bias=False), (1, 2, 3, 3)),
    "t3d": (lambda n: n.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1)), (1, 2, 3, 2, 2)),
    "t alone": (lambda n: n.ConvTranspose1d(3, 4, 3), (3, 5)),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(against: Any, name: str) -> None:
    make, shape = CONVS[name]
    against.layer(make, normal(*shape))


@pytest.mark.oracle
def test_transposed_convolution_of_a_given_size(against: Any) -> None:
    x = normal(2, 3, 4, 5)
    make = lambda n: n.ConvTranspose2d(3, 2, 3, stride=2, padding=1)  # noqa: E731
    against.layer(make, x, output_size=[8, 9])


POOLS = {
    "max1d": (lambda n: n.MaxPool1d(3, 2), (2, 3, 8)),
    "max2d": (lambda n: n.MaxPool2d(2), (2, 3, 6, 5)),
    "max2d padded": (lambda n: n.MaxPool2d(3, 2, padding=1), (2, 3, 7, 6)),
    "max2d dilated": (lambda n: n.MaxPool2d((2, 3), 1, dilation=2), (1, 2, 7, 6)),
    "max2d ceil": (lambda n: n.MaxPool2d(3, 2, ceil_mode=True), (1, 2, 6, 8)),
    "max2d indices": (lambda n: n.MaxPool2d(2, return_indices=True), (2, 3, 4, 6)),
    "max3d": (lambda n: n.MaxPool3d(2), (1, 2, 4, 4, 4)),
    "max alone": (lambda n: n.MaxPool2d(2), (3, 6, 5)),
    "avg1d": (lambda n: n.AvgPool1d(3, 2, padding=1), (2, 3, 8)),
    "avg2d": (lambda n: n.AvgPool2d(2), (2, 3, 6, 5)),
    "avg2d inside": (lambda n: n.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 3, 6, 5)),
    "avg2d ceil": (lambda n: n.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 8)),
    "avg2d divisor": (lambda n: n.AvgPool2d(3, 2, 1, divisor_override=5), (1, 2, 6, 8)),
    "avg2d divisor ceil": (
        lambda n: n.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5), (1, 2, 6, 8),
    ),
    "avg2d divisor partial": (
        lambda n: n.AvgPool2d(2, 3, 1, ceil_mode=True, divisor_override=5), (1, 2, 4, 7),
    ),
    "avg3d": (lambda n: n.AvgPool3d((2, 1, 2)), (1, 2, 4, 3, 4)),
    "lp1d": (lambda n: n.LPPool1d(2, 3), (2, 3, 9)),
    "lp2d": (lambda n: n.LPPool2d(2, 2, 1), (2, 3, 5, 4)),
    "lp2d ceil": (lambda n: n.LPPool2d(4, 3, 2, ceil_mode=True), (2, 3, 6, 4)),
    "adaptive avg1d": (lambda n: n.AdaptiveAvgPool1d(3), (2, 3, 8)),
    "adaptive avg2d": (lambda n: n.AdaptiveAvgPool2d((3, None)), (2, 3, 7, 5)),
    "adaptive avg2d one": (lambda n: n.AdaptiveAvgPool2d(1), (2, 3, 7, 5)),
    "adaptive avg2d whole": (lambda n: n.AdaptiveAvgPool2d((3, 2)), (2, 3, 6, 4)),
    "adaptive avg2d larger": (lambda n: n.AdaptiveAvgPool2d(7), (1, 2, 3, 5)),
    "adaptive avg3d": (lambda n: n.AdaptiveAvgPool3d((2, 3, 1)), (1, 2, 5, 4, 3)),
    "adaptive max1d": (lambda n: n.AdaptiveMaxPool1d(3), (2, 3, 8)),
    "adaptive max2d": (lambda n: n.AdaptiveMaxPool2d((3, 2)), (2, 3, 7, 5)),
    "adaptive max2d indices": (
        lambda n: n.AdaptiveMaxPool2d((3, 2), return_indices=True), (2, 3, 6, 4),
    ),
    "adaptive max3d": (lambda n: n.AdaptiveMaxPool3d((2, 3, 1)), (1, 2, 5, 4, 3)),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", POOLS)
def test_pools(against: Any, name: str) -> None:
    make, shape = POOLS[name]
    against.layer(make, np.abs(normal(*shape)) + 0.1 if name.startswith("lp") else normal(*shape))


NORMS = {
    "batch1d": (lambda n: n.BatchNorm1d(3), (6, 3)),
    "batch1d length": (lambda n: n.BatchNorm1d(3, momentum=0.3), (2, 3, 5)),
    "batch2d": (lambda n: n.BatchNorm2d(3, eps=1e-3), (2, 3, 4, 5)),
    "batch2d plain": (lambda n: n.BatchNorm2d(3, affine=False), (2, 3, 4, 5)),
    "batch2d untracked": (lambda n: n.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 5)),
    "batch2d mean": (lambda n: n.BatchNorm2d(3, momentum=None), (2, 3, 4, 5)),
    "batch3d": (lambda n: n.BatchNorm3d(3), (2, 3, 2, 2, 2)),
    "layer": (lambda n: n.LayerNorm(5), (3, 5)),
    "layer two axes": (lambda n: n.LayerNorm((4, 5), eps=1e-3), (2, 3, 4, 5)),
    "layer no bias": (lambda n: n.LayerNorm(5, bias=False), (3, 5)),
    "layer plain": (lambda n: n.LayerNorm(5, elementwise_affine=False), (3, 5)),
    "rms": (lambda n: n.RMSNorm(5), (3, 5)),
    "rms eps": (lambda n: n.RMSNorm((4, 5), eps=0.1, elementwise_affine=False), (3, 4, 5)),
    "group": (lambda n: n.GroupNorm(2, 6), (2, 6, 3, 3)),
    "group plain": (lambda n: n.GroupNorm(3, 6, affine=False), (2, 6)),
    "instance1d": (lambda n: n.InstanceNorm1d(3), (2, 3, 5)),
    "instance2d": (
        lambda n: n.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 5),
    ),
    "instance2d no momentum": (
        lambda n: n.InstanceNorm2d(3, momentum=None, track_running_stats=True), (2, 3, 4, 5),
    ),
    "instance3d": (lambda n: n.InstanceNorm3d(3, eps=0.1), (2, 3, 2, 3, 2)),
    "local response": (lambda n: n.LocalResponseNorm(3, alpha=0.5, k=2.0), (2, 5, 3, 2)),
    "local response even": (lambda n: n.LocalResponseNorm(4, alpha=0.5), (2, 5, 3)),
    "instance alone": (lambda n: n.InstanceNorm1d(3), (3, 5)),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NORMS)
def test_norms(against: Any, name: str, train: bool) -> None:
    make, shape = NORMS[name]
    against.layer(make, normal(*shape), train=train)


ACTIVATIONS = {
    **{name: (lambda n, name=name: getattr(n, name)()) for name in (
        "ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus",
        "Softsign", "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Hardswish", "Hardtanh",
        "Hardshrink", "Softshrink", "PReLU", "GLU",
    )},
    "LeakyReLU 0.2": lambda n: n.LeakyReLU(0.2, inplace=False),
    "ELU 0.5": lambda n: n.ELU(alpha=0.5),
    "CELU 0.5": lambda n: n.CELU(0.5),
    "GELU tanh": lambda n: n.GELU(approximate="tanh"),
    "Softplus 2": lambda n: n.Softplus(beta=2, threshold=30),
    "Hardtanh 2": lambda n: n.Hardtanh(-0.5, 2),
    "Hardshrink 1": lambda n: n.Hardshrink(1.0),
    "Softshrink 1": lambda n: n.Softshrink(1.0),
    "Threshold": lambda n: n.Threshold(0.1, 20),
    "Threshold 0": lambda n: n.Threshold(0.3, 0),
    "PReLU 4": lambda n: n.PReLU(4, init=0.1),
    "Softmax": lambda n: n.Softmax(dim=1),
    "LogSoftmax": lambda n: n.LogSoftmax(dim=0),
    "Softmin": lambda n: n.Softmin(dim=-1),
    "GLU 1": lambda n: n.GLU(dim=1),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(against: Any, name: str) -> None:
    against.layer(ACTIVATIONS[name], normal(3, 4, 6) * 3)


@pytest.mark.oracle
def test_hardsigmoid(against: Any) -> None:
    x = normal(3, 4) * 3
    against.function(lambda f: f.hardsigmoid, x.astype(np.float64), rtol=1e-7)  # torch: 1/6 in f32


@pytest.mark.oracle
def test_softmax_over_channels(against: Any) -> None:
    against.layer(lambda n: n.Softmax2d(), normal(2, 3, 2, 2))


@pytest.mark.oracle
def test_rrelu_in_evaluation(against: Any) -> None:
    against.layer(lambda n: n.RReLU(), normal(2, 3), train=False)


def test_rrelu_draws_slopes_between_its_bounds() -> None:
    y = nn.RReLU(0.2, 0.4)(nn.tensor(-np.ones((50, 50)))).numpy()
    assert -0.4 <= y.min() < -0.35 < -0.25 < y.max() <= -0.2


SHAPES = {
    "nearest": (lambda n: n.Upsample(scale_factor=2), (1, 2, 3, 4)),
    "nearest size": (lambda n: n.Upsample(size=7), (1, 2, 3)),
    "linear": (lambda n: n.Upsample(size=7, mode="linear"), (1, 2, 3)),
    "bilinear": (lambda n: n.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 4)),
    "bilinear 1.5": (lambda n: n.Upsample(scale_factor=1.5, mode="bilinear"), (1, 2, 3, 4)),
    "bilinear corners": (
        lambda n: n.Upsample(size=(5, 8), mode="bilinear", align_corners=True), (1, 2, 3, 4),
    ),
    "bicubic": (lambda n: n.Upsample(scale_factor=2, mode="bicubic"), (1, 1, 4, 4)),
    "trilinear": (lambda n: n.Upsample(scale_factor=2, mode="trilinear"), (1, 1, 2, 2, 3)),
    "channel shuffle": (lambda n: n.ChannelShuffle(3), (2, 6, 2, 3)),
    "shuffle": (lambda n: n.PixelShuffle(2), (2, 8, 3, 2)),
    "unshuffle": (lambda n: n.PixelUnshuffle(2), (2, 2, 4, 6)),
    "zero pad": (lambda n: n.ZeroPad2d((1, 2, 0, 3)), (1, 2, 3, 4)),
    "constant pad": (lambda n: n.ConstantPad1d((2, 0), 3.5), (2, 3, 4)),
    "reflection pad": (lambda n: n.ReflectionPad2d((1, 2, 0, 1)), (1, 2, 3, 4)),
    "replication pad": (lambda n: n.ReplicationPad2d(2), (1, 2, 3, 4)),
    "circular pad": (lambda n: n.CircularPad2d((1, 2, 0, 1)), (1, 2, 3, 4)),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", SHAPES)
def test_resampling(against: Any, name: str) -> None:
    make, shape = SHAPES[name]
    against.layer(make, normal(*shape))


@pytest.mark.oracle
@pytest.mark.parametrize("padding", [None, 1, -1])
def test_embedding(against: Any, padding: int | None) -> None:
    index = np.array([[1, 4, 1], [0, 2, 4]])
    against.layer(lambda n: n.Embedding(5, 3, padding_idx=padding), index)


def test_the_padding_row_begins_as_zeros() -> None:
    table = nn.Embedding(5, 3, padding_idx=-2).weight.numpy()
    assert (table[3] == 0).all() and (table[[0, 1, 2, 4]] != 0).all()


TWICE = {
    "linear": (lambda n: n.Sequential(n.Linear(6, 4), n.Tanh()), (3, 6)),
    "conv": (lambda n: n.Sequential(n.Conv2d(2, 3, 3), n.GELU(), n.AvgPool2d(2)), (2, 2, 5, 5)),
    "transposed": (lambda n: n.Sequential(n.ConvTranspose1d(2, 3, 3), n.SiLU()), (2, 2, 4)),
    "batch norm": (lambda n: n.Sequential(n.BatchNorm1d(3), n.Tanh()), (4, 3, 5)),
    "layer norm": (lambda n: n.Sequential(n.LayerNorm(6), n.Softplus()), (3, 6)),
    "softmax": (lambda n: n.Softmax(1), (3, 6)),
    "pool": (lambda n: n.Sequential(n.MaxPool1d(2), n.Sigmoid()), (2, 3, 6)),
    "cell": (lambda n: n.GRUCell(6, 4), (3, 6)),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives(against: Any, name: str) -> None:
    make, shape = TWICE[name]
    against.twice(make, normal(*shape))


OPEN = {name: case for table in (DENSE, CONVS, POOLS, NORMS, SHAPES)
        for name, case in table.items()
        if "alone" not in name and name != "linear vector"}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_traces_with_an_open_batch(name: str) -> None:
    make, shape = OPEN[name]
    layer = make(nn).double()
    traced = nn.trace(layer, nn.Spec(("N", *shape[1:]), "f64"))
    for batch in (shape[0], shape[0] + 1):
        x, state = np.abs(normal(batch, *shape[1:])), layer.state_dict()
        found = traced(x)
        layer.load_state_dict(state)
        eager = layer(x)
        for a, b in zip(*[r if isinstance(r, tuple) else (r,) for r in (found, eager)]):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d((1, 1))])
def test_pooling_open_extents_to_one(layer: Any) -> None:
    traced = nn.trace(layer, nn.Spec(("N", 3, "H", "W")))
    x = normal(2, 3, 5, 4).astype(np.float32)
    np.testing.assert_allclose(traced(x).numpy(), layer(x).numpy(), rtol=1e-6)
    with pytest.raises(Error, match="known extents"):
        nn.trace(nn.AdaptiveAvgPool2d(2), nn.Spec((1, 3, "H", "W")))


NARROW = {
    "images": (lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 5),
    ), (4, 1, 8, 8)),
    "sequences": (lambda: nn.Sequential(
        nn.LSTM(6, 8, batch_first=True), lambda t: t[0][:, -1], nn.RMSNorm(8), nn.Linear(8, 5),
    ), (4, 3, 6)),
    "attention": (lambda: nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), lambda t: t.mean(1),
        nn.Linear(8, 5),
    ), (4, 3, 8)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_types_stay_narrow(name: str, dtype: str) -> None:
    make, shape = NARROW[name]
    wide = make().eval()
    narrow = make().eval().to(dtype)
    narrow.load_state_dict(wide.state_dict())
    x = normal(*shape).astype(np.float32)
    y = narrow(nn.tensor(x).astype(dtype))
    assert str(y.dtype) == dtype
    np.testing.assert_allclose(
        y.astype("f32").numpy(), wide(x).numpy(), rtol=0.1, atol=0.1 if dtype == "bf16" else 0.02
    )
    nn.cross_entropy(narrow.train()(nn.tensor(x).astype(dtype)), np.arange(4)).backward()
    assert {str(p.grad.dtype) for p in narrow.parameters()} == {dtype}


# ------------------------------------------------------------ dropout


@pytest.mark.parametrize("layer,shape,whole", [
    (nn.Dropout(0.3), (40, 50), 0), (nn.Dropout1d(0.3), (40, 50, 3), 1),
    (nn.Dropout2d(0.3), (40, 50, 3, 2), 2), (nn.Dropout3d(0.3), (40, 50, 2, 2, 2), 3),
])  # fmt: skip
def test_dropout_drops_its_share_whole_channels_at_a_time(
    layer: Any, shape: tuple[int, ...], whole: int
) -> None:
    y = layer(nn.ones(shape)).numpy()
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / 0.7, rtol=1e-6)
    assert 0.66 < kept.mean() < 0.74
    axes = tuple(range(2, 2 + whole))
    assert (kept.all(axes) | ~kept.any(axes)).all()
    assert (layer.eval()(nn.ones(shape)).numpy() == 1).all()


def test_dropout_repeats_by_seed_and_differs_by_call() -> None:
    nn.random.manual_seed(5)
    layer, x = nn.Dropout(), nn.ones((8, 8))
    one, two = layer(x).numpy(), layer(x).numpy()
    nn.random.manual_seed(5)
    assert (layer(x).numpy() == one).all() and (one != two).any()


@pytest.mark.parametrize("layer", [nn.Dropout(0.4), nn.Dropout2d(0.4), nn.AlphaDropout(0.4)])
def test_a_trace_drops_what_eager_drops(layer: Any) -> None:
    net, x = nn.Sequential(layer, nn.Tanh(), layer), nn.ones((5, 4, 3, 3))
    nn.manual_seed(9)
    eager, after = net(x).numpy(), nn.random.state()
    nn.manual_seed(9)
    traced = nn.trace(net, x)
    assert (traced(x).numpy() == eager).all()
    assert all((nn.random.state()[k] == v).all() for k, v in after.items())
    assert (traced(x).numpy() != eager).any()


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    nn.random.manual_seed(0)
    x = nn.tensor(normal(200, 200).astype(np.float32))
    y = nn.AlphaDropout(0.2)(x)
    assert abs(y.mean().item()) < 0.02 and abs(y.std().item() - 1) < 0.02


# ------------------------------------------------------------ errors

WRONG = [
    (nn.Linear(32, 10), (4, 31), "Linear 32->10", "32 along axis -1", "f32[4, 31]"),
    (nn.Conv2d(3, 8, 3), (1, 4, 8, 8), "Conv2d 3->8 3x3", "3 along axis -3", "f32[1, 4, 8, 8]"),
    (nn.Conv2d(3, 8, 3), (8, 8), "Conv2d 3->8 3x3", "[N, C, H, W] or [C, H, W]", "f32[8, 8]"),
    (nn.Conv2d(3, 8, 5), (1, 3, 4, 8), "Conv2d 3->8 5x5", "at least 5", "f32[1, 3, 4, 8]"),
    (nn.BatchNorm2d(4), (1, 3, 2, 2), "BatchNorm2d 4", "4 along axis 1", "f32[1, 3, 2, 2]"),
    (nn.BatchNorm1d(4), (1, 4), "BatchNorm1d 4", "more than one", "f32[1, 4]"),
    (nn.LayerNorm((3, 4)), (4, 4), "LayerNorm 3x4", "3 along axis -2", "f32[4, 4]"),
    (nn.MaxPool2d(2), (5, 5), "MaxPool2d 2", "2 axes behind", "f32[5, 5]"),
    (nn.GroupNorm(2, 4), (1, 6, 2), "GroupNorm 2 of 4", "4 along axis 1", "f32[1, 6, 2]"),
    (nn.PReLU(3), (2, 4), "PReLU 3", "3 along axis 1", "f32[2, 4]"),
    (nn.PixelShuffle(2), (1, 6, 2, 2), "PixelShuffle", "multiple of 4", "f32[1, 6, 2, 2]"),
    (nn.Conv1d(2, 2, 3, padding=3, padding_mode="reflect"), (1, 2, 3), "Conv1d 2->2 3",
     "at least 4", "f32[1, 2, 3]"),
    (nn.Conv1d(2, 2, 3, padding=4, padding_mode="circular"), (1, 2, 3), "Conv1d 2->2 3",
     "at least 4", "f32[1, 2, 3]"),
    (nn.ReflectionPad1d(3), (1, 2, 3), "ReflectionPad1d (3, 3)", "at least 4", "f32[1, 2, 3]"),
]  # fmt: skip


@pytest.mark.parametrize("layer,shape,name,expected,found", WRONG)
def test_a_wrong_shape_names_the_layer(
    layer: Any, shape: tuple[int, ...], name: str, expected: str, found: str
) -> None:
    net = nn.Sequential({"head": nn.Sequential(layer)})
    with pytest.raises(Error) as raised:
        net(nn.ones(shape))
    text = str(raised.value)
    assert raised.value.code == "E0640" and f"head.0 ({name})" in text
    assert expected in text and found in text


def test_a_wrong_element_type_names_the_layer_and_the_remedy() -> None:
    with pytest.raises(Error, match=r"Linear 2->1: wrong element type") as raised:
        nn.Linear(2, 1)(nn.tensor(np.ones((1, 2))))
    assert "expected f32" in str(raised.value) and "net.to('f64')" in str(raised.value)


@pytest.mark.parametrize("make,said", [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "multiple of groups"),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode 'mirror'"),
    (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2), "stride 1"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size takes"),
    (lambda: nn.GroupNorm(4, 6), "6 channels are not 4"),
    (lambda: nn.Embedding(4, 2, max_norm=1.0), "max_norm"),
    (lambda: nn.Embedding(4, 2, padding_idx=4), "no row of 4"),
    (lambda: nn.Dropout(1.5), "between 0 and 1"),
    (lambda: nn.ReLU(3, 4), "takes no"),
    (lambda: nn.LSTM(3, 4, proj_size=2), "proj_size"),
    (lambda: nn.MultiheadAttention(5, 2), "no multiple of num_heads"),
])  # fmt: skip
def test_wrong_arguments(make: Any, said: str) -> None:
    with pytest.raises(Error, match=said) as raised:
        make()
    assert raised.value.code in ("E0641", "E0642")


def test_an_index_out_of_range_names_the_layer() -> None:
    net = nn.Sequential(nn.Embedding(4, 2))
    with pytest.raises(Error) as raised:
        net(np.array([[0, 1], [4, 2]]))
    text = str(raised.value)
    assert "0 (Embedding 4x2)" in text and "0 to 3" in text and "4 at [1, 0]" in text
