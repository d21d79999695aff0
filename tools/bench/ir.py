"""Speed and size of the IR: a chain of adds of f32[4, 4], built, printed, parsed, verified,
rewritten.

The figures are microseconds of process time per op (the least of several rounds, as the machine may
be busy) and bytes per op.  The collector's threshold is raised, as the compile entry points do it.
"""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click

from ...ir.core import Builder, Op
from ...ir.ops.core import Func, Module, Return
from ...ir.ops.elementwise import Add, Mul, Sub
from ...ir.parse import parse
from ...ir.rewrite import worklist
from ...ir.text import print_op
from ...ir.types import TensorType, f32
from ...ir.verify import verify

OPS = 100_000
BARS = {
    "build": 3.0,
    "print": 3.0,
    "parse": 15.0,
    "verify": 2.0,
    "canonicalize without change": 2.0,
    "replace": 10.0,
}
BYTES_BAR = 600.0


@dataclass(frozen=True)
class Figure:
    """One row: what, figure, bar, unit."""

    what: str
    figure: float
    bar: float
    unit: str

    @property
    def passed(self) -> bool:
        """Within the bar."""
        return self.figure <= self.bar


def chain(n: int) -> Module:
    """x, y = y, x + y, n times."""
    type_ = TensorType(f32, (4, 4))
    func = Func.make("main", [type_, type_], ["x", "y"])
    b = Builder(func.body)
    add = b.add
    x, y = func.args
    for _ in range(n):
        x, y = y, add(x, y)
    b.emit(Return, x, y)
    return Module.make([func])


def _no_match(op: Op, b: Builder) -> None:
    return None


def _to_mul(op: Op, b: Builder) -> Any:
    return b.mul(*op.operands)


def least_us(n: int, rounds: int, work: Callable[[Any], object], start: Callable[[], Any]) -> float:
    """Least process time of `work(start())` in microseconds per op; `start` is not counted."""
    times = []
    for _ in range(rounds):
        given = start()
        gc.collect()
        began = time.process_time()
        made = work(given)
        times.append(time.process_time() - began)
        del made, given
    return min(times) / n * 1e6


def bytes_per_op(n: int = 20_000) -> float:
    """Memory that one op of the chain holds."""
    chain(10)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    module = chain(n)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(module.main.body) == n + 1
    return size / n


def measure(n: int = OPS, rounds: int = 5) -> list[Figure]:
    """All rows."""
    threshold = gc.get_threshold()
    gc.set_threshold(10_000_000, 1000, 1000)
    try:
        module = chain(n)
        text = print_op(module)
        work: dict[str, tuple[Callable[[Any], object], Callable[[], Any]]] = {
            "build": (lambda _: chain(n), lambda: None),
            "print": (print_op, lambda: module),
            "parse": (parse, lambda: text),
            "verify": (verify, lambda: module),
            "canonicalize without change": (
                lambda m: worklist(m, {Add: (), Sub: (_no_match,), Mul: (_no_match,)}),
                lambda: module,
            ),
            "replace": (lambda m: worklist(m, {Add: (_to_mul,)}), lambda: chain(n)),
        }
        rows = [Figure(k, least_us(n, rounds, *work[k]), BARS[k], "us/op") for k in BARS]
    finally:
        gc.set_threshold(*threshold)
    return [*rows, Figure("memory", bytes_per_op(min(n, 20_000)), BYTES_BAR, "bytes/op")]


@click.command()
@click.option("--ops", default=OPS, show_default=True, help="Length of the chain.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ops: int, as_json: bool) -> None:
    """Speed and size of the IR; exits with 1 where a figure is above its bar."""
    rows = measure(ops)
    if as_json:
        click.echo(json.dumps([{**asdict(r), "passed": r.passed} for r in rows], indent=1))
    else:
        for r in rows:
            verdict = "pass" if r.passed else "FAIL"
            click.echo(f"{r.what:<30}{r.figure:9.2f} {r.unit:<9} bar {r.bar:<6g} {verdict}")
    raise SystemExit(0 if all([r.passed for r in rows]) else 1)
