"""The kernels of training convolutional networks beside torch: forward and both gradients.

Each is a module of one op, compiled as any model is.  Images and cotangents come and go in blocks
of channels, as they stand inside a network; weights and their gradients are plain, since each step
packs them anew.  Rates count every multiply-add, those with padding too.  Times are of the
processor, least of several calls, ours and torch's in turns: other work on the machine then counts
less.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from ...backends import compiler
from ...backends.targets import choose
from ...ir.core import Builder, Value
from ...ir.ops.core import Func, Module, Return
from ...ir.types import TensorType, f32
from .native import NativeCall

Array = np.ndarray[Any, Any]
WAYS = ("forward", "input gradient", "filter gradient")


@dataclass(frozen=True)
class Layer:
    """A convolution of `batch` square images with `kernel` taps per axis and same padding."""

    batch: int
    channels: int
    outs: int
    size: int
    kernel: int = 3
    stride: int = 1

    def __str__(self) -> str:
        taps = f"{self.kernel}x{self.kernel}" + (f"/{self.stride}" if self.stride > 1 else "")
        return f"{taps} {self.channels}-{self.outs} @{self.size} x{self.batch}"

    @property
    def pad(self) -> int:
        """Zeros on each side."""
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        """The extent of the result."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def work(self) -> float:
        """Floating-point operations of each of the three ways."""
        places = self.batch * self.out_size**2
        return 2.0 * places * self.channels * self.outs * self.kernel**2

    @property
    def attrs(self) -> dict[str, tuple[int, ...]]:
        """Strides and pads, as the ops take them."""
        return {"strides": (self.stride,) * 2, "pads": (self.pad,) * 4}


LAYERS = (
    Layer(64, 1, 32, 28),
    Layer(64, 32, 64, 14),
    Layer(32, 3, 64, 32),
    Layer(32, 64, 64, 32),
    Layer(32, 64, 128, 32, stride=2),
    Layer(32, 64, 128, 32, kernel=1, stride=2),
    Layer(32, 128, 128, 16),
    Layer(32, 128, 256, 16, stride=2),
    Layer(32, 256, 256, 8),
    Layer(32, 256, 512, 8, stride=2),
    Layer(32, 512, 512, 4),
)
"""The convolutions of a small image classifier and of ResNet-18 on images of 32 x 32."""


def blocked(channels: int, block: int) -> bool:
    """Do images of so many channels stand in blocks?"""
    return channels % block == 0


def module_of(layer: Layer, way: str, block: int) -> Module:
    """The module of one way of a layer."""
    image = (layer.batch, layer.channels, layer.size, layer.size)
    result = (layer.batch, layer.outs, layer.out_size, layer.out_size)
    weights = (layer.outs, layer.channels, layer.kernel, layer.kernel)
    plain = {
        "forward": (image, weights),
        "input gradient": (result, weights),
        "filter gradient": (image, result),
    }[way]
    packs = [s is not weights and blocked(s[1], block) for s in plain]
    shapes = [
        (s[0], s[1] // block, *s[2:], block) if p else s for s, p in zip(plain, packs, strict=True)
    ]
    func = Func.make("main", [TensorType(f32, s) for s in shapes])
    b = Builder(func.body)
    given = [
        b.unpack(v, axes=(1,), blocks=(block,), shape=s) if p else v
        for v, s, p in zip(func.args, plain, packs, strict=True)
    ]
    y = _op(b, layer, way, *given)
    if way != "filter gradient" and blocked(y.tensor.shape[1], block):
        y = b.pack(y, axes=(1,), blocks=(block,))
    b.emit(Return, y)
    return Module.make([func])


def _op(b: Builder, layer: Layer, way: str, x: Value, y: Value) -> Value:
    made: Value
    if way == "forward":
        made = b.conv(x, y, **layer.attrs)
    elif way == "input gradient":
        made = b.conv_input_grad(x, y, size=(layer.size,) * 2, **layer.attrs)
    else:
        made = b.conv_filter_grad(x, y, kernel=(layer.kernel,) * 2, **layer.attrs)
    return made


def ours(layer: Layer, way: str, threads: int) -> Callable[[], None]:
    """A call of the compiled kernel on buffers that stay."""
    choice = choose("cpu", threads)
    module = module_of(layer, way, choice.target.layout_block or 1)
    exe = compiler.build(compiler.lower(module, choice), choice)
    rng = np.random.default_rng(0)
    shapes = [tuple([int(str(e)) for e in a.tensor.shape]) for a in module.main.args]
    call = NativeCall(exe, [rng.standard_normal(s, np.float32) for s in shapes])

    def run() -> None:
        call.seconds(1)

    return run


def theirs(layer: Layer, way: str, threads: int) -> Callable[[], None]:
    """The same by torch's own operators, plain images."""
    import torch

    torch.set_num_threads(threads)
    conv = torch.nn.functional.conv2d
    x = torch.randn(layer.batch, layer.channels, layer.size, layer.size)
    w = torch.randn(layer.outs, layer.channels, layer.kernel, layer.kernel)
    if way == "forward":
        return lambda: conv(x, w, None, layer.stride, layer.pad)
    g = torch.randn(layer.batch, layer.outs, layer.out_size, layer.out_size)
    mask = [way == "input gradient", way == "filter gradient", False]
    strides, pads = [layer.stride] * 2, [layer.pad] * 2

    def run() -> None:
        torch.ops.aten.convolution_backward(
            g, x, w, None, strides, pads, [1, 1], False, [0, 0], 1, mask
        )

    return run


def least(calls: list[Callable[[], None]], rounds: int, threads: int) -> list[float]:
    """The least seconds of each call, all in turns: of the processor where one thread runs."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    best = [float("inf")] * len(calls)
    for round_ in range(rounds + 1):
        for k, call in enumerate(calls):
            start = clock()
            call()
            seconds = clock() - start
            best[k] = min(best[k], seconds) if round_ else best[k]
    return best


def rates(threads: int, rounds: int, torch: bool = True) -> Iterator[dict[str, Any]]:
    """Per layer and way the GFLOP/s of ours and, with `torch`, of torch."""
    for layer in LAYERS:
        for way in WAYS:
            if way == "input gradient" and layer.channels <= 3:
                continue  # the first layer of a network needs none
            calls = [ours(layer, way, threads)]
            calls += [theirs(layer, way, threads)] if torch else []
            seconds = least(calls, rounds, threads)
            row = {"layer": str(layer), "way": way, "ms": seconds[0] * 1e3}
            row["irc"] = layer.work / seconds[0] / 1e9
            if torch:
                row["torch"] = layer.work / seconds[1] / 1e9
            yield row


@click.command()
@click.option("--threads", default=1, show_default=True, help="Threads of the kernels.")
@click.option("--rounds", default=8, show_default=True, help="Calls of each, in turns.")
@click.option("--alone", is_flag=True, help="Without torch beside.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(threads: int, rounds: int, alone: bool, as_json: bool) -> None:
    """Forward, input gradient and filter gradient of convolutions, in GFLOP/s, beside torch."""
    found = []
    for row in rates(threads, rounds, not alone):
        found.append(row)
        if not as_json:
            beside = "" if alone else f"{row['torch']:9.1f} torch"
            click.echo(f"{row['layer']:<26}{row['way']:<16}{row['ms']:9.2f} ms"
                       f"{row['irc']:9.1f} irc{beside}   GFLOP/s")  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1))
