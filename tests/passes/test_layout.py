"""Layouts: what is blocked by cost, what sinks, and that meanings stay."""

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.autodiff.pullback import pullback
from irc.passes.cost import blocked_pays, cost_of
from irc.passes.layout_moves import segments
from irc.passes.pipeline import Options, compile_module, parse_pipeline

rng = np.random.default_rng(3)


def weights(b: Builder, *shape: int) -> Value:
    return b.insert(Const(rng.standard_normal(shape).astype(np.float32))).result


def program(shape: tuple[int, ...], fill: object) -> Module:
    func = Func.make("main", [TensorType(f32, shape)], ["x"])
    b = Builder(func.body)
    b.emit(Return, fill(b, func.args[0]))  # type: ignore[operator]
    return Module.make([func])


def after(module: Module, passes: str) -> tuple[Module, list[str]]:
    """The module after the passes, checked against the one before, and the names of its ops."""
    x = rng.standard_normal([int(e) for e in module.main.args[0].tensor.shape]).astype(np.float32)
    wanted = run(module, [x])
    made = module.clone()
    for step in parse_pipeline(passes):
        made = step.run(made)
        verify(made)
    for a, c in zip(run(made, [x]), wanted, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)
    return made, [op.name for op in made.main.body if op.name not in ("const", "return")]


def conv_chain(channels: tuple[int, ...], **how: object) -> object:
    def fill(b: Builder, x: Value) -> Value:
        for c, o in zip(channels, channels[1:], strict=False):
            x = b.relu(
                b.add(
                    b.conv(x, weights(b, o, c, 3, 3), pads=(1, 1, 1, 1), **how),
                    weights(b, 1, o, 1, 1),
                )
            )
        return x

    return fill


BLOCKED = "canonicalize,layout{block=8 always},canonicalize,cse"


def test_a_chain_is_packed_once() -> None:
    _, names = after(program((1, 16, 6, 6), conv_chain((16, 16, 32, 8))), BLOCKED)
    assert names == ["pack", *["conv", "add", "relu"] * 3, "unpack"]


def test_channels_that_do_not_fill_blocks() -> None:
    """Their padding lanes are zero through relu, so the packs still cancel."""
    _, names = after(program((2, 5, 6, 6), conv_chain((5, 12, 7, 3))), BLOCKED)
    assert names.count("pack") == 1 and names.count("unpack") == 1


def test_padding_lanes_that_are_not_zero_are_cleared() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.exp(b.conv(x, weights(b, 5, 8, 1, 1)))
        return b.conv(y, weights(b, 8, 5, 1, 1))

    _, names = after(program((1, 8, 4, 4), fill), BLOCKED)
    assert names.count("pack") == 2


def test_first_layers_read_the_plain_image() -> None:
    _, names = after(
        program((1, 3, 6, 6), conv_chain((3, 16, 16))), "layout{block=16},canonicalize"
    )
    assert names == ["reshape", "conv", "add", "relu", "conv", "add", "relu", "unpack"]


def test_channels_that_waste_most_of_a_block_stay_plain() -> None:
    _, names = after(
        program((1, 5, 6, 6), conv_chain((5, 16, 16))), "layout{block=16},canonicalize"
    )
    assert names == ["conv", "add", "relu", "pack", "conv", "add", "relu", "unpack"]


def test_squeeze_and_excite_stays_blocked() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.conv(x, weights(b, 16, 8, 1, 1))
        s = b.reduce_mean(y, axes=(2, 3), keepdims=True)
        s = b.sigmoid(b.conv(s, weights(b, 16, 16, 1, 1)))
        return b.mul(y, s)

    _, names = after(program((1, 8, 5, 5), fill), BLOCKED)
    assert names.count("pack") == 1 and names.count("unpack") == 1


def test_depthwise_and_residual() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.relu(b.conv(x, weights(b, 16, 16, 1, 1)))
        z = b.conv(y, weights(b, 16, 1, 3, 3), groups=16, pads=(1, 1, 1, 1))
        z = b.conv(z, weights(b, 16, 16, 1, 1))
        return b.concat(b.add(y, z), y, axis=1)

    _, names = after(program((1, 16, 5, 5), fill), BLOCKED)
    assert names == ["pack", "conv", "relu", "conv", "conv", "add", "concat", "unpack"]


def test_a_flattened_image_reorders_the_matrix() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.max_pool(b.conv(x, weights(b, 16, 8, 1, 1)), kernel=(2, 2), strides=(2, 2))
        return b.matmul(b.reshape(y, shape=(2, 64)), weights(b, 64, 10))

    _, names = after(program((2, 8, 4, 4), fill), BLOCKED)
    assert names == ["pack", "conv", "max_pool", "reshape", "matmul"]


def test_groups_that_are_not_depthwise_stay() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.conv(x, weights(b, 8, 4, 2, 2), groups=2)

    _, names = after(program((1, 8, 4, 4), fill), BLOCKED)
    assert names == ["conv"]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (16, ["contract", "add", "reshape"]),
        (15, ["contract", "add", "unpack"]),
        (12, ["matmul", "add"]),
        (8, ["matmul", "add"]),
    ],
)
def test_panels(columns: int, names: list[str]) -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.add(b.matmul(x, weights(b, 6, columns)), weights(b, columns))

    assert after(program((3, 6), fill), "layout{panel=8}")[1] == names


def test_the_cost_model() -> None:
    func = Func.make("main", [TensorType(f32, (1, 5, 8, 8)), TensorType(f32, (1, 64, 8, 8))])
    b = Builder(func.body)
    few = b.conv(func.args[0], weights(b, 16, 5, 3, 3)).op
    many = b.conv(func.args[1], weights(b, 64, 64, 3, 3)).op
    product = b.matmul(func.args[1], weights(b, 8, 4)).op
    assert not blocked_pays(few, 16, False) and blocked_pays(many, 16, False)
    assert cost_of(many).flops == 2 * 64 * 36 * 64 * 9
    assert cost_of(product).flops == 2 * 64 * 8 * 4 * 8
    assert cost_of(few).bytes == 4 * (5 * 64 + 16 * 45 + 16 * 36)
    assert cost_of(many).intensity > cost_of(product).intensity


def test_groups_of_whole_blocks() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.conv(x, weights(b, 48, 8, 3, 3), groups=3, pads=(1, 1, 1, 1))

    made, names = after(program((1, 24, 5, 5), fill), BLOCKED)
    assert names == ["pack", "conv", "unpack"]
    conv = next(op for op in made.main.body if op.name == "conv")
    assert conv.attributes["out_block"] == 16 and conv.attributes["groups"] == 3


def test_groups_of_part_blocks_stay_plain() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.conv(x, weights(b, 48, 4, 3, 3), groups=6, pads=(1, 1, 1, 1))

    assert after(program((1, 24, 5, 5), fill), BLOCKED)[1] == ["conv"]


def test_a_norm_across_channels_stays_in_blocks() -> None:
    """Lanes that are no channels take no part in it, though relu of their bias is not zero."""

    def fill(b: Builder, x: Value) -> Value:
        y = b.exp(b.conv(x, weights(b, 13, 8, 1, 1)))
        y = b.local_response_norm(y, size=5, alpha=0.5)
        return b.conv(y, weights(b, 8, 13, 1, 1))

    _, names = after(program((1, 8, 4, 4), fill), BLOCKED)
    assert names.index("local_response_norm") < names.index("unpack")
    assert "unpack" not in names[: names.index("local_response_norm")]


def test_clip_stays_in_blocks() -> None:
    """Also where blocks have lanes to spare, if zero stays zero."""

    def clipped(low: float) -> object:
        def fill(b: Builder, x: Value) -> Value:
            bounds = [b.insert(Const(np.float32(v))).result for v in (low, 6.0)]
            y = b.clip(b.conv(x, weights(b, 13, 8, 1, 1)), *bounds)
            return b.clip(b.conv(y, weights(b, 16, 13, 1, 1)), None, bounds[1])

        return fill

    _, names = after(program((1, 8, 4, 4), clipped(0.0)), BLOCKED)
    assert names == ["pack", "conv", "clip", "conv", "clip", "unpack"]
    assert after(program((1, 8, 4, 4), clipped(0.5)), BLOCKED)[1].count("pack") == 2


@pytest.mark.parametrize("batch", [1, 2])
def test_grouped_1x1_is_a_batched_product(batch: int) -> None:
    """Bias, residual and relu stay with it; the residual is an earlier product or any value."""

    def fill(b: Builder, x: Value) -> Value:
        y = x
        for _ in range(2):
            y = b.conv(y, weights(b, 20, 5, 1, 1), groups=4)
            y = b.relu(b.add(b.add(y, weights(b, 1, 20, 1, 1)), x))
        return y

    _, names = after(program((batch, 20, 3, 5), fill), BLOCKED)
    assert "conv" not in names and names.count("matmul") == 2
    assert names[names.index("matmul") :].count("reshape") <= 2


def test_grouped_1x1_that_steps_stays_a_convolution() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.conv(x, weights(b, 20, 5, 1, 1), groups=4, strides=(2, 2))
        return b.conv(y, weights(b, 20, 1, 1, 1), groups=20)

    assert after(program((1, 20, 4, 4), fill), BLOCKED)[1].count("conv") == 2


def test_unpack_sinks_through_what_keeps_blocks_whole() -> None:
    """Doubling an image by interleaving four phases of whole blocks, then cutting an edge."""

    def fill(b: Builder, x: Value) -> Value:
        y = b.reshape(b.conv(x, weights(b, 64, 8, 1, 1)), shape=(1, 2, 2, 16, 4, 5))
        y = b.reshape(b.transpose(y, perm=(0, 3, 4, 1, 5, 2)), shape=(1, 16, 8, 10))
        y = b.slice(y, starts=(0, 0, 1, 0), sizes=(1, 16, 7, 10))
        y = b.slice(y, starts=(0, 8, 0, 0), sizes=(1, 8, 7, 10))
        return b.conv(y, weights(b, 8, 8, 1, 1))

    _, names = after(program((1, 8, 4, 5), fill), BLOCKED)
    assert names.count("pack") == 1 and names.count("unpack") == 1 and names[-1] == "unpack"


@pytest.mark.parametrize("groups", [4, 2])
def test_a_shuffle_that_parts_blocks_unpacks(groups: int) -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.reshape(b.conv(x, weights(b, 16, 8, 1, 1)), shape=(1, groups, 16 // groups, 3, 3))
        y = b.reshape(b.transpose(y, perm=(0, 2, 1, 3, 4)), shape=(1, 16, 3, 3))
        return b.conv(y, weights(b, 8, 16, 1, 1))

    _, names = after(program((1, 8, 3, 3), fill), BLOCKED)
    assert names.count("unpack") == 2


@pytest.mark.parametrize(
    "shapes",
    [
        ((6, 4), (2, 3, 4)),
        ((2, 3, 4), (6, 4)),
        ((1, 6), (6,)),
        ((2, 9, 2), (3, 6, 2)),
        ((5,), (5,)),
        ((4, 1), (1, 2, 2)),
    ],
)
def test_segments_cover_both_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    before, after = shapes
    found = segments(before, after)
    for a, b, c, d in found:
        assert np.prod(before[a:b]) == np.prod(after[c:d])
    assert [s[0] for s in found[1:]] == [s[1] for s in found[:-1]] and found[-1][1] == len(before)
    assert [s[2] for s in found[1:]] == [s[3] for s in found[:-1]] and found[-1][3] == len(after)


def test_a_transposed_convolution_stays_in_blocks() -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.relu(b.conv(x, weights(b, 16, 8, 3, 3), pads=(1, 1, 1, 1)))
        y = b.conv_transpose(y, weights(b, 16, 8, 2, 2), strides=(2, 2))
        return b.conv(y, weights(b, 8, 8, 3, 3), pads=(1, 1, 1, 1))

    passes = "canonicalize,decompose{only=conv_transpose}," + BLOCKED
    _, names = after(program((1, 8, 4, 4), fill), passes)
    assert names.count("pack") == 1 and names.count("unpack") == 1


@pytest.mark.parametrize("outs", [16, 512])
def test_weights_that_repeat_one_number_are_packed(outs: int) -> None:
    """Also where they are larger than what folding stores."""

    def fill(b: Builder, x: Value) -> Value:
        one = b.insert(Const(np.float32(0.25))).result
        w = b.broadcast_to(one, shape=(outs, 16, 3, 3))
        return b.conv(x, w, pads=(1, 1, 1, 1))

    passes = "canonicalize,fold-weights," + BLOCKED
    _, names = after(program((1, 16, 6, 6), fill), passes)
    assert names == ["pack", "conv", "unpack"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_an_enlarged_image_stays_in_blocks(mode: str) -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.relu(b.conv(x, weights(b, 13, 8, 1, 1)))
        y = b.resize(y, axes=(2, 3), sizes=(8, 10), mode=mode)
        return b.conv(y, weights(b, 8, 13, 1, 1))

    passes = "canonicalize,decompose{only=resize}," + BLOCKED
    _, names = after(program((1, 8, 4, 5), fill), passes)
    assert names.count("pack") == 1 and names.count("unpack") == 1 and "resample" in names


@pytest.mark.parametrize("between", ["resize", "conv_transpose"])
def test_the_pipeline_parts_what_would_stand_between_blocks(between: str) -> None:
    def fill(b: Builder, x: Value) -> Value:
        y = b.relu(b.conv(x, weights(b, 32, 16, 3, 3), pads=(1, 1, 1, 1)))
        if between == "resize":
            y = b.resize(y, axes=(2, 3), sizes=(16, 16))
        else:
            y = b.conv_transpose(y, weights(b, 32, 32, 2, 2), strides=(2, 2))
        return b.conv(y, weights(b, 16, 32, 3, 3), pads=(1, 1, 1, 1))

    target = Target("t", vector_bits=512, layout_block=16)
    made = compile_module(program((1, 16, 8, 8), fill), target, Options(to_phase="layout")).module
    names = [op.name for op in made.main.body]
    assert names.count("pack") == names.count("unpack") == 1


def trained(net: object, *shapes: tuple[int, ...]) -> Module:
    """The gradients of a network, in all of its operands, for a cotangent of ones."""
    func = Func.make(
        "main", [TensorType(f32, s) for s in shapes], [f"x{k}" for k in range(9)][: len(shapes)]
    )
    b = Builder(func.body)
    y = net(b, *func.args)  # type: ignore[operator]
    ones = b.insert(Const(np.ones(y.tensor.shape, np.float32))).result
    found = pullback(b, [y], [b.mul(y, ones)], func.args)
    b.emit(Return, y, *[v for v in found if v is not None])
    return Module.make([func])


def names_after(module: Module, passes: str) -> list[str]:
    """As `after`, for functions of several inputs."""
    given = [rng.standard_normal(a.tensor.shape).astype(np.float32) for a in module.main.args]
    wanted = run(module, given)
    made = module.clone()
    for step in parse_pipeline(passes):
        made = step.run(made)
        verify(made)
    for a, c in zip(run(made, given), wanted, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(c).max())))
    return [op.name for op in made.main.body if op.name not in ("const", "return", "reshape")]


TRAINED = (
    "decompose{only=conv_input_grad},decompose{only=batch_norm_train},canonicalize,"
    "layout{block=4 always},canonicalize,cse"
)


def test_training_stays_in_blocks() -> None:
    """Forward, cotangents and filter gradients: only weights and their gradients are moved, and the
    ends.
    """

    def net(b: Builder, x: Value, w: Value, s: Value, t: Value, v: Value) -> Value:
        y = b.conv(x, w, pads=(1, 1, 1, 1))
        y = b.relu(b.batch_norm_train(y, s, t)[0])
        y = b.max_pool(y, kernel=(2, 2), strides=(2, 2))
        return b.avg_pool(b.conv(y, v, pads=(1, 1, 1, 1)), kernel=(2, 2), strides=(2, 2))

    names = names_after(
        trained(net, (2, 8, 8, 8), (8, 8, 3, 3), (8,), (8,), (12, 8, 3, 3)), TRAINED
    )
    assert names.count("conv_filter_grad") == 2 and names.count("conv") == 4
    assert names.count("pack") == 5  # x, and both weights for both ways
    assert names.count("unpack") == 4  # y, dx, and both filter gradients


def test_gradients_of_strides_stay_in_blocks() -> None:
    """The phases of a strided input gradient are joined block by block."""

    def net(b: Builder, x: Value, w: Value) -> Value:
        return b.conv(b.relu(x), w, strides=(2, 2), pads=(1, 1, 1, 1))

    names = names_after(trained(net, (1, 8, 7, 6), (8, 8, 3, 3)), TRAINED)
    assert names.count("conv") == 5 and names.count("concat") == 3
    assert names.count("unpack") == 3


@pytest.mark.parametrize("channels", [3, 8, 9])
def test_gradients_of_groups_and_few_channels(channels: int) -> None:
    """Depthwise filter gradients are blocks of [C / c, K, K, c]; images of few channels stay
    plain.
    """

    def depthwise(b: Builder, x: Value, w: Value) -> Value:
        return b.conv(x, w, pads=(1, 1, 1, 1), groups=channels)

    def first(b: Builder, x: Value, w: Value) -> Value:
        return b.conv(x, w, pads=(1, 0, 0, 1), strides=(2, 1))

    names = names_after(trained(depthwise, (2, channels, 5, 4), (channels, 1, 3, 3)), TRAINED)
    assert names.count("conv_filter_grad") == 1
    names_after(trained(first, (2, channels, 5, 4), (6, channels, 3, 3)), TRAINED)
