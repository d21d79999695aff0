"""Import rows of signal processing: DFT, STFT, MelWeightMatrix.  Imports: node, ir."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .item import Array
from .node import Known, Node, Result, Row
from .tensors import dtype_of


def dft(n: Node) -> Result:
    """The IR's `dft`; before opset 20 the axis is an attribute."""
    if n.version < 20:
        axis = n.attr("axis", 1)
    else:
        axis = n.numbers(2, "axis")[0] if n.has(2) else -2
    length = n.numbers(1, "length")[0] if n.has(1) else 0
    return n.b.dft(  # type: ignore[no-any-return]
        n.x(0), axis=axis, length=length, inverse=bool(n.attr("inverse", 0)),
        onesided=bool(n.attr("onesided", 0)),
    )  # fmt: skip


def stft(n: Node) -> Result:
    """The IR's `stft`; the length of a frame is that of the window where it is not said."""
    x, window = n.x(0), n.opt(2)
    step = n.numbers(1, "frame step")[0]
    if n.has(3):
        length: object = n.numbers(3, "frame length")[0]
    elif window is not None:
        length = window.tensor.shape[0]
    else:
        raise n.invalid("E0110", "STFT needs a window or a frame length")
    if not isinstance(length, int):
        raise n.unsupported("STFT: the length of a frame must be known")
    if x.tensor.rank == 2:
        x = n.reshape(x, (*x.tensor.shape, 1))
    onesided = bool(n.attr("onesided", 1))
    return n.b.stft(x, window, step=step, length=length, onesided=onesided)  # type: ignore[no-any-return]


def mel_weight_matrix(n: Node) -> Result:
    """Triangles over the bins of a spectrum, evenly spaced in mel (O'Shaughnessy 1987)."""
    whole = ("number of bins", "length of the transform", "sample rate")
    count, length, rate = [n.numbers(k, what)[0] for k, what in enumerate(whole)]
    known = [n.known(k) for k in (3, 4)]
    if any(k is None for k in known):
        raise n.unsupported("the edges of MelWeightMatrix must be known when the model is imported")
    low, high = [float(k.reshape(-1)[0]) for k in known]  # type: ignore[union-attr]
    dtype = dtype_of(n.attr("output_datatype", 1), n.place())
    return Known(mel_triangles(count, length, rate, low, high).astype(dtype.np), dtype)


def mel_triangles(count: int, length: int, rate: int, low: float, high: float) -> Array:
    """[length // 2 + 1, count]: each column rises to 1 and falls, from edge to edge in hertz."""
    least, most = [2595 * math.log10(1 + edge / 700) for edge in (low, high)]
    at = least + np.arange(count + 2) * (most - least) / (count + 2)
    bins = np.floor((length + 1) * 700 * (10 ** (at / 2595) - 1) / rate).astype(int)
    out = np.zeros((length // 2 + 1, count))
    row = np.arange(len(out))
    for k, (start, top, end) in enumerate(zip(bins, bins[1:], bins[2:])):
        rising = (row >= start) & (row <= top)
        out[rising, k] = (row[rising] - start) / (top - start) if top > start else 1.0
        falling = (row >= top) & (row < end)
        out[falling, k] = (end - row[falling]) / max(end - top, 1)
    return out


ROWS: Sequence[tuple[str, int, Row]] = (
    ("DFT", 17, dft),
    ("STFT", 17, stft),
    ("MelWeightMatrix", 17, mel_weight_matrix),
)
