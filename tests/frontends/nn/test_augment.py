"""Augmentation of images: the maths of irc.data's, drawn from nn's stream, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc import data, nn, optim, train
from irc.ir.errors import Error

A, D = nn.augment, data.augment
RNG = np.random.default_rng(0)
N, SHAPE = 6, (6, 3, 9, 7)
X = RNG.random(SHAPE).astype(np.float32)
KINDS: dict[str, np.ndarray] = {
    "f32": X,
    "f64": RNG.random(SHAPE),
    "u8": RNG.integers(0, 256, SHAPE).astype(np.uint8),
    "grey": X[:, :1],
}
WHOLE = RNG.integers(-3, 10, (2, N))
ANGLES = RNG.uniform(-1, 1, N).astype(np.float32)
FACTORS = RNG.uniform(0.5, 1.5, (3, N)).astype(np.float32)
SPREADS = np.array([[0.4, 0.5, 0.6], [0.2, 0.3, 0.1]])
CHOSEN = np.array([True, False, True, True, False, False])
MATHS: dict[str, Callable[[Any, Any], Any]] = {
    "flip": lambda m, x: m.flip(x, CHOSEN),
    "shift": lambda m, x: m.shift(x, *WHOLE, 0.5 if x.dtype.kind == "f" else 7),
    "window": lambda m, x: m.window(x, *WHOLE, (4, 11)),
    "rotate": lambda m, x: m.rotate(x, ANGLES, 0.25),
    "adjust": lambda m, x: m.adjust(x, *FACTORS),
    "normalize": lambda m, x: m.normalize(x, *SPREADS[:, : x.shape[1]]),
    "blend": lambda m, x: m.blend(x, x[::-1].copy(), FACTORS[0] - 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MATHS)
def test_the_maths_is_that_of_the_data_sets(name: str, kind: str) -> None:
    x = KINDS[kind]
    found, expected = MATHS[name](A, x).numpy(), MATHS[name](D, x)
    if name == "blend":
        expected = D.like(expected, x)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if kind == "u8" and name != "normalize":  # rounding may fall either way
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
        assert (found == expected).mean() > 0.99
    else:
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_square_is_erased_as_there() -> None:
    for size in (1, 4, 30):
        found = A.erase(X, *WHOLE, size, 0.5).numpy()
        np.testing.assert_array_equal(found, D.cutout(X, *WHOLE, size, 0.5))


def all_of(x: Any, labels: Any) -> Any:
    """Every random change, one after the other."""
    x = A.random_shift(A.random_flip(x), 1)
    x = A.random_rotate(A.random_crop(x, 2), 20.0)
    x = A.cutout(A.colour(x), 3)
    return A.mixup(A.normalize(x, [0.5] * 3, [0.2] * 3), labels, classes=4)


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_eager_traced_and_compiled_draw_and_compute_the_same(target: str) -> None:
    labels = np.array([0, 1, 2, 3, 1, 0])
    compiled = irc.compile(all_of, target=target, threads=1)
    nn.manual_seed(3)
    expected = [*all_of(X, labels), *all_of(X, labels)]
    assert np.abs(np.array(expected[0]) - np.array(expected[2])).max() > 0.5  # the stream goes on
    after = nn.random.state()["counter"]
    for call in (compiled, nn.trace(all_of, nn.Spec(("N", 3, 9, 7)), nn.Spec(("N",), nn.i64))):
        nn.manual_seed(3)
        found = [*call(X, labels), *call(X, labels)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(nn.random.state()["counter"], after)


def test_what_only_moves_is_equal_to_the_bit_when_compiled() -> None:
    def moved(x: Any) -> Any:
        return A.cutout(A.random_crop(A.random_shift(A.random_flip(x), 2), 3), 4, 0.5)

    nn.manual_seed(1)
    expected = moved(X).numpy()
    nn.manual_seed(1)
    np.testing.assert_array_equal(np.asarray(irc.compile(moved, threads=1)(X)), expected)


def test_functions_apply_what_they_draw() -> None:
    """The numbers drawn again, given to the functions of the data sets."""
    draw = nn.random

    def again(call: Callable[[], Any]) -> Any:
        nn.manual_seed(11)
        return call()

    found = again(lambda: A.random_shift(X, 3, 0.5)).numpy()
    down, right = again(lambda: [draw.randint(-3, 4, N).numpy() for _ in range(2)])
    np.testing.assert_array_equal(found, D.shift(X, down, right, 0.5))
    found = again(lambda: A.random_crop(X, 2, (5, 4))).numpy()
    top, left = again(lambda: [draw.randint(0, k, N).numpy() - 2 for k in (9, 8)])
    np.testing.assert_array_equal(found, D.window(X, top, left, (5, 4)))
    found = again(lambda: A.random_rotate(X, 30.0)).numpy()
    turn = again(lambda: draw.uniform(N).numpy()) * 2 - 1
    np.testing.assert_allclose(found, D.rotate(X, turn * np.float32(np.pi / 6)), atol=2e-5)
    found = again(lambda: A.colour(X, 0.1, 0.2, 0.3)).numpy()
    factors = again(lambda: [1 + v * (draw.uniform(N).numpy() * 2 - 1) for v in (0.1, 0.2, 0.3)])
    np.testing.assert_allclose(found, D.adjust(X, *factors), atol=2e-6)
    found = again(lambda: A.cutout(X, 4)).numpy()
    row, column = again(lambda: [draw.randint(0, k, N).numpy() for k in SHAPE[2:]])
    np.testing.assert_array_equal(found, D.cutout(X, row, column, 4))


def test_statistics_of_what_is_drawn() -> None:
    nn.manual_seed(0)
    many = np.zeros((4000, 1, 5, 5), np.float32)
    many[:, :, 2, 2] = 1.0
    ramp = np.broadcast_to(np.arange(5, dtype=np.float32), many.shape)
    flipped = (A.random_flip(ramp, 0.3).numpy()[:, 0, 0, 0] == 4).mean()
    assert abs(flipped - 0.3) < 0.03
    for moved in (A.random_shift(many, 2), A.random_crop(many, 2)):
        places = moved.numpy().mean((0, 1))
        assert np.abs(places - 1 / 25).max() < 0.015  # every place is as likely
    held = A.cutout(np.ones_like(many), 1).numpy().mean((0, 1))
    assert np.abs(held - 24 / 25).max() < 0.015
    assert not A.random_flip(ramp, 0.0).numpy()[:, 0, 0, 0].any()
    assert (A.random_flip(ramp, 1.0).numpy()[:, 0, 0, 0] == 4).all()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 5.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha: float) -> None:
    nn.manual_seed(0)
    shares = A.beta(40_000, alpha).numpy().astype(np.float64)
    assert shares.min() >= 0 and shares.max() <= 1
    centred = shares - 0.5
    variance = 0.25 / (2 * alpha + 1)
    fourth = variance**2 * (3 - 6 / (2 * alpha + 3))
    assert abs(centred.mean()) < 4 * (variance / 40_000) ** 0.5
    assert (centred**2).mean() == pytest.approx(variance, rel=0.03)
    assert (centred**4).mean() == pytest.approx(fourth, rel=0.05)


def test_mixup_mixes_labels_as_it_mixes_images() -> None:
    labels = np.array([0, 1, 2, 3, 1, 0])
    flat = np.eye(4, dtype=np.float32)[labels][:, :, None, None]  # the image says its label
    nn.manual_seed(2)
    x, soft = A.mixup(flat, labels, 1.0, 4)
    np.testing.assert_allclose(x.numpy()[:, :, 0, 0], soft.numpy(), atol=1e-6)
    np.testing.assert_allclose(soft.numpy().sum(1), 1, atol=1e-6)
    assert 0.02 < np.sort(soft.numpy(), 1)[:, -2].max()  # some are mixed
    assert A.mixup(flat, soft)[1].shape == (6, 4)  # rows are mixed as they are


def test_layers_change_in_training_alone() -> None:
    changing = [
        A.RandomFlip(1.0), A.RandomShift(3), A.RandomCrop(4), A.RandomRotate(90.0), A.Colour(),
        A.Cutout(5),
    ]  # fmt: skip
    nn.manual_seed(0)
    for layer in changing:
        assert np.abs(layer(X).numpy() - X).max() > 0.05, layer
        before = nn.random.state()["counter"]
        np.testing.assert_array_equal(layer.eval()(X).numpy(), X)
        np.testing.assert_array_equal(nn.random.state()["counter"], before)  # nothing is drawn
    fixed = A.Normalize([0.5] * 3, [0.5] * 3)
    np.testing.assert_array_equal(fixed(X).numpy(), fixed.eval()(X).numpy())
    kept, rows = A.Mixup(classes=3).eval()(X, np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_array_equal(kept.numpy(), X)
    np.testing.assert_array_equal(rows.numpy(), np.tile(np.eye(3), (2, 1)))
    assert "RandomShift(pixels=3" in repr(nn.Sequential(A.RandomShift(3)))


def test_first_in_a_network_that_trains() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])

    def losses(target: str) -> Any:
        nn.manual_seed(0)
        net = nn.Sequential(
            A.RandomFlip(), A.RandomCrop(2), A.RandomRotate(10.0), nn.Flatten(),
            nn.Linear(3 * 9 * 7, 3),
        )  # fmt: skip
        step = train.TrainStep(
            net, loss="cross_entropy", optimizer=optim.SGD(0.1), seed=4, target=target, threads=1
        )
        found = [float(step((X, labels)).logs["loss"]) for _ in range(4)]
        return found, step.predict(X), net

    found, said, net = losses("cpu")
    expected, other, _ = losses("reference")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(said, other, atol=1e-5)
    plain = net[-1](nn.tensor(X).reshape(N, -1)).numpy()
    np.testing.assert_allclose(said, plain, atol=1e-5)  # nothing is changed in evaluation


def test_gradients_go_through_the_images() -> None:
    x = nn.tensor(KINDS["f64"], requires_grad=True)
    nn.manual_seed(5)
    (A.random_rotate(A.random_crop(A.random_flip(x), 1), 20.0) ** 2).sum().backward()
    step = 1e-6 * RNG.standard_normal(SHAPE)

    def loss(at: Any) -> float:
        nn.manual_seed(5)
        changed = A.random_rotate(A.random_crop(A.random_flip(nn.tensor(at)), 1), 20.0)
        return float((changed**2).sum().item())

    slope = loss(x.numpy() + step) - loss(x.numpy() - step)
    assert slope == pytest.approx(2 * float((x.grad.numpy() * step).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (lambda: A.random_flip(X[0]), "E0640", "f32[3, 9, 7]"),
        (lambda: A.colour(X.astype(np.int32)), "E0640", "i32"),
        (lambda: A.random_flip(X, 1.5), "E0641", "0 to 1"),
        (lambda: A.RandomFlip(-1), "E0641", "RandomFlip: p"),
        (lambda: A.random_crop(X, 1, (12, 3)), "E0641", "1 to 11"),
        (lambda: A.Cutout(0), "E0641", "1 or more"),
        (lambda: A.normalize(X, [0.5], [0.5]), "E0641", "for each channel"),
        (lambda: A.mixup(X, np.zeros(6, np.int64)), "E0641", "classes="),
        (lambda: A.Mixup(0.0), "E0641", "above 0"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Any], code: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        call()
    assert caught.value.code == code and said in caught.value.render()


def test_mixup_within_an_objective() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = A.Mixup(1.0, classes=3), nn.Linear(3 * 9 * 7, 3)

        def forward(self, x: Any) -> Any:
            return self.head(nn.flatten(x, 1))

    def objective(net: Any, x: Any, labels: Any) -> Any:
        x, soft = net.mix(x, labels)
        return nn.cross_entropy(net(x), soft)

    nn.manual_seed(0)
    net, labels = Net(), np.array([0, 1, 2, 0, 1, 2])
    plain = float(nn.cross_entropy(net(X), labels).item())
    step = train.TrainStep(net, objective=objective, optimizer=optim.SGD(0.0), target="reference")
    found = [float(step((X, labels)).logs["loss"]) for _ in range(3)]
    assert len({*found}) == 3 and all(abs(f - plain) > 1e-4 for f in found)
    assert float(step.evaluate((X, labels)).logs["loss"]) == pytest.approx(plain, rel=1e-5)
