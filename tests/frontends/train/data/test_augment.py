"""Augmentation: each step against a plain loop over images, and its chance against its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.frontends.train.data import augment
from irc.ir.errors import Error

RNG = np.random.default_rng(0)
X = RNG.random((6, 3, 9, 7), np.float32)
U8 = RNG.integers(0, 256, (6, 3, 9, 7), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])
STEPS = {
    "flip": augment.Flip(),
    "shift": augment.Shift(2),
    "crop": augment.Crop(3),
    "rotate": augment.Rotate(30),
    "colour": augment.Colour(0.5, 0.5, 0.5),
    "cutout": augment.Cutout(3),
    "chain": augment.Chain((augment.Flip(), augment.Shift(1))),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("x", [X, U8, X.astype(np.float64)], ids=["f32", "u8", "f64"])
def test_steps_keep_shape_and_type_and_leave_the_input_alone(name: str, x: Any) -> None:
    before = x.copy()
    made, labels = STEPS[name](x, Y, rng=rng())
    assert made.shape == x.shape and made.dtype == x.dtype and labels is Y
    np.testing.assert_array_equal(x, before)
    assert not np.array_equal(made, x)
    np.testing.assert_array_equal(STEPS[name](x, rng=rng()), made)
    assert not np.array_equal(STEPS[name](x, rng=rng(1)), made)


def test_flip() -> None:
    chosen = np.array([True, False, True, False, False, True])
    for image, was, yes in zip(augment.flip(X, chosen), X, chosen):
        np.testing.assert_array_equal(image, was[:, :, ::-1] if yes else was)
    np.testing.assert_array_equal(augment.Flip(1.0)(X, rng=rng()), X[..., ::-1])


@pytest.mark.parametrize("x", [X, U8], ids=["f32", "u8"])
def test_shift(x: Any) -> None:
    down, right = np.array([0, 1, -2, 3, -9, 20]), np.array([0, -1, 2, -3, 7, 0])
    for image, was, d, r in zip(augment.shift(x, down, right, 7), x, down, right):
        for i in range(9):
            for j in range(7):
                inside = 0 <= i - d < 9 and 0 <= j - r < 7
                expected = was[:, i - d, j - r] if inside else np.full(3, 7)
                np.testing.assert_array_equal(image[:, i, j], expected)


def test_crop_is_a_part_of_the_padded_image() -> None:
    padded = np.pad(X, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=0.5)
    for size in (None, (5, 4), (13, 11)):
        made = augment.Crop(2, size, fill=0.5)(X, rng=rng(3))
        h, w = made.shape[2:]
        assert (h, w) == (size or (9, 7))
        for image, whole in zip(made, padded):
            parts = [
                whole[:, i : i + h, j : j + w] for i in range(14 - h) for j in range(12 - w)
            ]
            assert any(np.array_equal(image, part) for part in parts)


def test_rotate_by_right_angles_is_exact() -> None:
    square = RNG.random((4, 2, 5, 5), np.float32)
    angles = np.array([0, 1, 2, 3]) * np.pi / 2
    for k, image in enumerate(augment.rotate(square, angles)):
        np.testing.assert_allclose(image, np.rot90(square[k], k, (1, 2)), atol=1e-6)


def test_rotate_interpolates_and_fills() -> None:
    ramp = np.broadcast_to(np.arange(21, dtype=np.float32), (1, 1, 21, 21)) - 10
    angle = 0.3
    turned = augment.rotate(ramp, np.array([angle]), fill=99)[0, 0]
    dy, dx = np.mgrid[-10:11, -10:11]
    inner = np.hypot(dy, dx) < 9
    expected = -np.sin(angle) * dy + np.cos(angle) * dx
    np.testing.assert_allclose(turned[inner], expected[inner], atol=1e-4)
    assert turned[0, 0] == pytest.approx(99)


def test_rotate_against_pillow() -> None:
    image_module = pytest.importorskip("PIL.Image")
    smooth = np.add.outer(np.arange(24), 2 * np.arange(24)).astype(np.float32)
    theirs = image_module.fromarray(smooth).rotate(20, image_module.Resampling.BILINEAR)
    ours = augment.rotate(smooth[None, None], np.deg2rad([20.0]))[0, 0]
    inner = np.s_[7:17, 7:17]
    np.testing.assert_allclose(ours[inner], np.asarray(theirs)[inner], atol=0.05)


def test_colour() -> None:
    one = np.ones(6)
    np.testing.assert_allclose(augment.adjust(X, one, one, one), X, atol=1e-6)
    np.testing.assert_allclose(augment.adjust(X, one * 0.5, one, one), X / 2, atol=1e-6)
    np.testing.assert_array_equal(augment.adjust(X, one * 9, one, one).max(), 1)
    grey = augment.adjust(X, one, one, one * 0)
    luma = np.einsum("nchw,c->nhw", X, [0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, np.repeat(luma[:, None], 3, 1), atol=1e-6)
    flat = augment.adjust(X, one, one * 0, one)
    middle = np.broadcast_to(luma.mean((1, 2))[:, None, None, None], X.shape)
    np.testing.assert_allclose(flat, middle, atol=1e-6)
    halved = augment.adjust(U8, one * 0.5, one, one)
    assert halved.dtype == np.uint8 and np.abs(halved - U8 / 2.0).max() <= 0.5


def test_normalize() -> None:
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    made = augment.Normalize(mean, std)(X, rng=rng())
    expected = (X - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    assert augment.Normalize(mean, std)(U8, rng=rng()).dtype == np.float32


def test_cutout() -> None:
    row, column = np.array([0, 4, 8, 4, 4, 4]), np.array([0, 3, 6, 3, 3, 3])
    made = augment.cutout(X, row, column, 3, fill=-1)
    hidden = (made == -1).all(1)
    assert hidden[0].sum() == 4 and hidden[0, :2, :2].all()
    assert hidden[1].sum() == 9 and hidden[1, 3:6, 2:5].all()
    assert hidden[2].sum() == 4 and hidden[2, 7:, 5:].all()
    np.testing.assert_array_equal(made[~np.repeat(hidden[:, None], 3, 1)],
                                  X[~np.repeat(hidden[:, None], 3, 1)])  # fmt: skip


def test_mixup_mixes_images_and_labels_alike() -> None:
    solid = np.eye(3, dtype=np.float32)[Y][:, :, None, None] * np.ones((1, 1, 4, 4), np.float32)
    x, y = augment.Mixup(1.0, classes=3)(solid, Y, rng=rng())
    assert y.shape == (6, 3) and y.dtype == np.float32
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(x[:, :, 0, 0], y, atol=1e-6)  # each image shows its label
    assert ((y > 0).sum(1) > 1).any()
    again = augment.Mixup(1.0)(solid, np.eye(3, dtype=np.float32)[Y], rng=rng())[1]
    np.testing.assert_array_equal(again, y)


def test_augment_is_seeded_by_epoch_and_batch() -> None:
    steps = (augment.Flip(), augment.Crop(2), augment.Mixup(classes=3))

    def make(seed: int = 0, workers: int = 0) -> Any:
        return data.arrays(X, Y).batch(2).augment(*steps, seed=seed, workers=workers)

    dataset = make()
    first, second = [x for x, _ in dataset], [x for x, _ in dataset]
    for dataset_again in (make(), make(workers=2)):
        for x, a in zip(first, dataset_again, strict=True):
            np.testing.assert_array_equal(x, a[0])
        for x, a in zip(second, dataset_again, strict=True):
            np.testing.assert_array_equal(x, a[0])
        dataset_again.close()
    assert not any(np.array_equal(a, b) for a, b in zip(first, second))
    assert not np.array_equal(first[0], next(iter(make(seed=1)))[0])


WRONG = {
    "images": (lambda: augment.Flip()(X[0], rng=rng()), "E0681", "shape (3, 9, 7)"),
    "integers": (lambda: augment.Flip()(X.astype(int), rng=rng()), "E0681", "int64"),
    "p": (lambda: augment.Flip(2), "E0663", "p=2"),
    "pixels": (lambda: augment.Shift(-1), "E0663", "pixels=-1"),
    "padding": (lambda: augment.Crop(-1), "E0663", "padding=-1"),
    "size": (lambda: augment.Crop(1, (20, 20))(X, rng=rng()), "E0663", "(20, 20)"),
    "colour": (lambda: augment.Colour(contrast=3), "E0663", "contrast=3"),
    "std": (lambda: augment.Normalize([0.0], [0.0]), "E0663", "above 0"),
    "channels": (lambda: augment.Normalize([0.0], [1.0])(X, rng=rng()), "E0663", "3 numbers"),
    "cutout": (lambda: augment.Cutout(0), "E0663", "size=0"),
    "alpha": (lambda: augment.Mixup(0), "E0663", "alpha=0"),
    "classes": (lambda: augment.Mixup()(X, Y, rng=rng()), "E0681", "classes="),
    "label": (lambda: augment.Mixup(classes=2)(X, Y, rng=rng()), "E0681", "label 2"),
    "no labels": (lambda: augment.Mixup(classes=2)(X, rng=rng()), "E0681", "(images, labels)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named(case: str) -> None:
    wrong, code, words = WRONG[case]
    with pytest.raises(Error) as caught:
        wrong()
    assert caught.value.code == code and words in caught.value.render()
