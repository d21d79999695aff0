"""Image folders: classes, sizes, layouts, workers, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

Image = pytest.importorskip("PIL.Image")
CLASSES = ("cat", "dog", "emu")
EACH = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes; image k of class c is all (10 c, k, 100), 8 high and 6 wide."""
    root = tmp_path_factory.mktemp("images")
    for c, name in enumerate(reversed(CLASSES)):
        (root / name).mkdir()
        for k in range(EACH):
            pixels = np.full((8, 6, 3), (10 * (2 - c), k, 100), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


def test_a_folder_of_classes(folder: Path) -> None:
    dataset = data.images(folder, dtype=np.uint8)
    assert dataset.classes == list(CLASSES) and len(dataset) == 3 * EACH
    for number, (image, label) in enumerate(dataset):
        assert image.shape == (3, 8, 6) and image.dtype == np.uint8
        assert label == number // EACH
        assert image[:, 0, 0].tolist() == [10 * label, number % EACH, 100]


def test_layout_mode_size_and_type(folder: Path) -> None:
    x, y = next(iter(data.images(folder).batch(4)))
    assert x.shape == (4, 3, 8, 6) and x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_allclose(x[2, :, 0, 0] * 255, [0, 2, 100], rtol=1e-6)
    assert y.dtype == np.int64
    assert next(iter(data.images(folder, layout="HWC").batch(4)))[0].shape == (4, 8, 6, 3)
    assert next(iter(data.images(folder, mode="L").batch(4)))[0].shape == (4, 1, 8, 6)
    assert next(iter(data.images(folder, (4, 12)).batch(4)))[0].shape == (4, 3, 4, 12)
    assert next(iter(data.images(folder, 5).batch(4)))[0].shape == (4, 3, 5, 5)


def test_a_large_photograph_is_made_small(tmp_path: Path) -> None:
    y, x = np.mgrid[0:240, 0:320]
    smooth = np.stack([x * 0.7, y, 255 - x * 0.5], 2).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(smooth).save(tmp_path / "a" / "1.jpg", quality=95)
    made, _ = data.images(tmp_path, (60, 80), dtype=np.uint8, layout="HWC").peek()
    expected = np.asarray(Image.fromarray(smooth).resize((80, 60), Image.Resampling.BILINEAR))
    assert made.shape == (60, 80, 3)
    assert np.abs(made.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("start", [None, "spawn"])
def test_workers_decode_the_same(folder: Path, start: str | None) -> None:
    alone = data.images(folder).shuffle(seed=1).batch(4)
    shared = data.images(folder, workers=2, start=start).shuffle(seed=1).batch(4).prefetch()
    for (x, y), (a, b) in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, 10 * y, rtol=1e-6)
    shared.close()


def test_a_cache_of_images_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = data.images(folder).cache().shuffle(seed=0).batch(4)
    first = list(dataset.iterate(0))
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail("decoded again"))
    for (x, _), (a, _) in zip(dataset.iterate(0), first, strict=True):
        np.testing.assert_array_equal(x, a)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named(folder: Path, tmp_path: Path, workers: int) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for file in (folder / name).glob("*.png"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    broken = tmp_path / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:45])
    dataset = data.images(tmp_path, workers=workers).batch(4).map(doubled)
    with pytest.raises(Error, match="dog/3.png") as caught:
        list(dataset)
    assert caught.value.code == "E0680"
    dataset.close()


def doubled(x: Any, y: Any) -> Any:
    return x * 2, y


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(Error, match="no folder") as caught:
        data.images(tmp_path / "absent")
    assert caught.value.code == "E0674"
    with pytest.raises(Error, match="no subfolder") as caught:
        data.images(tmp_path)
    assert caught.value.code == "E0665"
    (tmp_path / "a").mkdir()
    with pytest.raises(Error, match="holds no image"):
        data.images(tmp_path)
    for k in (5, 6):
        Image.fromarray(np.zeros((k, 4), np.uint8)).save(tmp_path / "a" / f"{k}.png")
    with pytest.raises(Error, match="different sizes") as caught:
        list(data.images(tmp_path).batch(2))
    assert "6.png: 4x6" in str(caught.value) and "5.png: 4x5" in str(caught.value)
    for wrong in ({"mode": "CMYK"}, {"layout": "NCHW"}, {"size": 0}, {"size": (1, 2, 3)},
                  {"workers": -1}, {"start": "x"}):  # fmt: skip
        with pytest.raises(Error) as caught:
            data.images(tmp_path, **wrong)  # type: ignore[arg-type]
        assert caught.value.code == "E0663", wrong
