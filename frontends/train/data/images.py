"""Images: a folder with one subfolder per class, read by Pillow (extra `data`).

Invariant: an image is decoded when it is asked for, alone or in a batch; nothing is kept.
Imports numpy, nodes, datasets and errors; Pillow where an image is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....ir.errors import Error
from .dataset import STARTS, Dataset
from .element import Array, Element
from .node import Node, Where, positions
from .order import need
from .sources import File
from .tables import missing_extra

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
CHANNELS = {"RGB": 3, "L": 1, "RGBA": 4}


class ImageFolder(Node):
    """Image files and the number of each one's class; sample i is (image, class)."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Array,
        size: tuple[int, int] | None,
        mode: str,
        dtype: np.dtype[Any],
        layout: str,
    ) -> None:
        self.paths, self.labels, self.shape = list(paths), labels, size
        self.mode, self.dtype, self.layout = mode, dtype, layout
        self.size = len(self.paths)

    def describe(self) -> str:
        """With the number of images."""
        return f"images({self.size})"

    def label(self, position: int, epoch: int) -> str:
        """The sample and its file."""
        return f"sample {position} ({self.paths[position]})"

    def rows(self, where: Where, epoch: int) -> Element:
        """The decoded images; they must have one size (E0661, naming two files)."""
        places = positions(where)
        first = self.read(int(places[0]))
        block = np.empty((len(places), *first.shape), np.uint8)
        block[0] = first
        for k, place in enumerate(places[1:].tolist(), 1):
            image = self.read(place)
            if image.shape != first.shape:
                raise Error(
                    "E0661",
                    "images of one batch have different sizes",
                    details=(
                        f"{self.paths[int(places[0])]}: {first.shape[1]}x{first.shape[0]}",
                        f"{self.paths[place]}: {image.shape[1]}x{image.shape[0]}",
                    ),
                    hint="images(folder, size=(height, width)) brings them to one size",
                )
            block[k] = image
        return self.finished(block), self.labels.take(places)

    def finished(self, block: Array) -> Array:
        """u8 images (n, h, w, c) in the layout and element type asked for; floats are 0 to 1."""
        if self.layout == "CHW":
            block = block.transpose(0, 3, 1, 2)
        if self.dtype == np.uint8:
            return np.ascontiguousarray(block)
        return np.multiply(block, np.float32(1 / 255), dtype=np.float32, order="C").astype(
            self.dtype, copy=False
        )

    def read(self, position: int) -> Array:
        """One image as u8 (h, w, c); a file that Pillow cannot read is E0680."""
        image_module = _pillow()
        path = self.paths[position]
        try:
            with image_module.open(path) as image:
                if self.shape is not None:  # a JPEG decoder can halve while it decodes
                    image.draft("L" if self.mode == "L" else "RGB", self.shape[::-1])
                made = image.convert(self.mode)
        except (OSError, SyntaxError, ValueError, EOFError) as reason:
            raise Error(
                "E0680",
                f"cannot read the image {path}",
                details=(f"{type(reason).__name__}: {reason}",),
                hint="the file is damaged or no image: remove it from the folder",
            ) from None
        if self.shape is not None and made.size != self.shape[::-1]:
            made = made.resize(self.shape[::-1], image_module.Resampling.BILINEAR)
        found = np.asarray(made)
        return found[:, :, None] if found.ndim == 2 else found


def _pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("Pillow", "images") from None
    return Image


class Images(Dataset):
    """A dataset of images; `classes` are the names of the subfolders by their numbers."""

    def __init__(self, node: ImageFolder, workers: int, start: str | None) -> None:
        super().__init__(node, workers, start)
        root = {int(k): path for k, path in zip(node.labels[::-1], reversed(node.paths))}
        self.classes: list[str] = [root[k].parent.name for k in sorted(root)]


def images(
    folder: File,
    size: int | tuple[int, int] | None = None,
    *,
    mode: str = "RGB",
    dtype: Any = np.float32,
    layout: str = "CHW",
    workers: int = 0,
    start: str | None = None,
) -> Images:
    """Images of a folder that has one subfolder per class: elements are (image, class number).

    size    (height, width), or one number for both; None: as the files are, all alike in a batch
    mode    "RGB", "L" (grey) or "RGBA"
    dtype   a float type: values 0 to 1; uint8: the bytes, a quarter of the traffic
    layout  "CHW" as convolutions want it, or "HWC"
    workers processes that decode whole batches (put .batch(n) after it); start as for `map`
    Classes are numbered in the order of the subfolders' names.  Errors: E0665 no image, E0674 no
    such folder, E0680 a file that is no image.
    """
    _pillow()
    if mode not in CHANNELS or layout not in ("CHW", "HWC") or start not in STARTS:
        raise Error(
            "E0663",
            f"images(mode={mode!r}, layout={layout!r}, start={start!r})",
            details=(f"mode: {', '.join(CHANNELS)}; layout: CHW, HWC; start: {STARTS}",),
        )
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None:
        if len(shape) != 2:
            raise Error("E0663", f"images(size={size!r})", details=("expected: (height, width)",))
        shape = (need(shape[0], 1, "images(size=)"), need(shape[1], 1, "images(size=)"))
    paths, labels = _find(Path(folder))
    node = ImageFolder(paths, labels, shape, mode, np.dtype(dtype), layout)
    return Images(node, need(workers, 0, "images(workers=)"), start)


def _find(folder: Path) -> tuple[list[Path], Array]:
    """The image files of the subfolders, sorted, and the number of each one's subfolder."""
    if not folder.is_dir():
        raise Error("E0674", f"there is no folder {folder}")
    paths: list[Path] = []
    labels: list[int] = []
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for number, place in enumerate(classes):
        found = sorted(p for p in place.iterdir() if p.suffix.lower() in ENDINGS)
        if not found:
            raise Error(
                "E0665",
                f"the class folder {place} holds no image",
                details=(f"files end in: {' '.join(ENDINGS)}",),
            )
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise Error("E0665", f"{folder} has no subfolder with images", hint="one for each class")
    return paths, np.array(labels, np.int64)
