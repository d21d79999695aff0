"""What a network is made of: `nn.summary(net, (1, 784))` gives shapes, parameters, work, memory.

The network runs on symbols, so nothing is computed and large networks cost nothing.
May import: ir, passes.cost, its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...ir.core import Block, Builder, Op
from ...ir.dims import substitute, symbols_of
from ...ir.errors import Error
from ...ir.types import TensorType
from ...passes.cost import cost_of, size_of, work
from .dispatch import Base, here
from .graph import Watch, symbol, watching
from .layers import Layer
from .module import Module
from .specs import Spec, is_input, type_of
from .trees import flatten, unflatten

_TAKEN_APART = frozenset({"lstm", "gru", "rnn", "attention", "conv_transpose"})
"""Composites whose work is that of their parts."""


@dataclass
class Row:
    """One call of a module: where it is, what it is, what it gives, and what that takes."""

    path: str
    kind: str
    depth: int
    output: tuple[TensorType, ...] = ()
    parameters: int = 0
    flops: int = 0
    shared: bool = False


@dataclass
class Summary:
    """The calls of a network's modules in order, and the totals; printing it gives a table.

    Operations are those of one forward pass, a multiply-add being two; `activation_bytes` are the
    results of all ops, what training keeps at most.
    """

    rows: list[Row] = field(default_factory=list)
    inputs: tuple[TensorType, ...] = ()
    parameters: int = 0
    trainable: int = 0
    parameter_bytes: int = 0
    buffer_bytes: int = 0
    flops: int = 0
    activation_bytes: int = 0

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "operations")
        table = [head, *[self._cells(row) for row in self.rows]]
        widths = [max([len(line[k]) for line in table]) for k in range(4)]
        lines = [_line(cells, widths) for cells in table]
        rule = "-" * max([len(line) for line in lines])
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._totals()])

    def _cells(self, row: Row) -> tuple[str, str, str, str]:
        """The row as text."""
        name = row.path.rpartition(".")[2]
        label = f"{'  ' * row.depth}{name}: {row.kind}" if name else row.kind
        count = "shared" if row.shared and row.parameters else f"{row.parameters:,}"
        return label, ", ".join([str(t) for t in row.output]), count, scaled(row.flops)

    def _totals(self) -> list[str]:
        given = ", ".join([str(t) for t in self.inputs])
        frozen = self.parameters - self.trainable
        return [
            f"input: {given}",
            f"parameters: {self.parameters:,} ({self.trainable:,} trainable, {frozen:,} frozen)",
            f"operations of one forward pass: {scaled(self.flops)}",
            f"memory: {scaled(self.parameter_bytes)}B parameters, {scaled(self.buffer_bytes)}B "
            f"buffers, {scaled(self.activation_bytes)}B activations while training",
        ]

    __repr__ = __str__


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, numbers to the right."""
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:])]
    return "  ".join([*left, *right]).rstrip()


def scaled(count: float) -> str:
    """A count with a decimal prefix: 1234 as "1.23 k"."""
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000 or unit == "T":
            break
        count /= 1000
    return f"{count:.3g} {unit}" if unit else f"{count:.3g} "


class _Recorder(Watch):
    """Notes what the modules give and what their ops cost."""

    def __init__(self, net: Module) -> None:
        self.net, self.summary = net, Summary()
        self.open: list[Row] = []
        self.seen: set[int] = set()
        self.paths = {id(m): name for name, m in net.named_modules()}

    def applied(self, op: Op) -> None:
        """An op: its work belongs to every module that runs."""
        flops = _flops(op)
        self.summary.flops += flops
        if op.name not in ("reshape", "transpose", "slice", "broadcast_to"):
            self.summary.activation_bytes += sum([size_of(r) for r in op.results])
        for row in self.open:
            row.flops += flops

    def called(self, module: Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A module: one row, with what it gives."""
        own = [p for _, p in module.named_parameters()]
        row = Row(self.paths.get(id(module), ""), _kind(module), len(self.open),
                  parameters=sum([p.size for p in own]),
                  shared=all([id(p) in self.seen for p in own]))  # fmt: skip
        self.summary.rows.append(row)
        self.open.append(row)
        found = module.entered(args, kwargs)
        self.open.pop()
        self.seen.update([id(p) for p in own])
        row.output = tuple([x.type for x in flatten(found, _is_tensor)[0]])
        return found


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Base)


def _kind(module: Module) -> str:
    return module.describe() if isinstance(module, Layer) else type(module).__name__


def _flops(op: Op) -> int:
    """The work of an op, of some composites that of their parts."""
    if op.name not in _TAKEN_APART:
        return cost_of(op).flops
    block = Block([v.type for v in op.operands if v is not None])
    args = iter(block.args)
    b = Builder(block)
    copy = b.insert(op.copy({v: next(args) for v in op.operands if v is not None}))
    copy.decompose(b)  # type: ignore[attr-defined]
    return sum([work(part).flops for part in block if part is not copy])


def summary(net: Module, input_size: Any = None, inputs: Any = None, dtype: Any = "f32") -> Summary:
    """What `net` is made of, on inputs of `input_size`: a shape with the batch, or several shapes.

    `inputs` are examples or `nn.Spec`s in its place, one or a tuple; without either those of the
    network's first call serve; symbolic extents count as 1.  Errors: E0647 for no inputs.
    """
    examples = _examples(net, input_size, inputs, dtype)
    leaves, tree = flatten(examples, is_input)
    symbols = [symbol(_of_one(type_of(x))) for x in leaves]
    recorder = _Recorder(net)
    with watching(recorder, net):
        net(*unflatten(tree, symbols))
    made = recorder.summary
    made.inputs = tuple([s.type for s in symbols])
    for p in net.parameters():
        made.parameters += p.size
        made.trainable += p.size if p.requires_grad else 0
        made.parameter_bytes += p.array.nbytes
    made.buffer_bytes = sum([b.array.nbytes for b in net.buffers()])
    return made


def _of_one(type: TensorType) -> TensorType:
    """The type with 1 for each symbolic extent."""
    ones = [substitute(e, dict.fromkeys(symbols_of(e), 1)) for e in type.shape]
    return TensorType(type.dtype, tuple(ones))


def _examples(net: Module, size: Any, inputs: Any, dtype: Any) -> tuple[Any, ...]:
    """The inputs to run on, as descriptions or examples."""
    if inputs is not None:
        return inputs if isinstance(inputs, tuple) else (inputs,)
    if size is not None:
        shapes = size if size and isinstance(size[0], (tuple, list)) else (size,)
        return tuple([Spec(tuple(s), dtype) for s in shapes])
    if net.example is None:
        raise Error("E0647", "summary: there are no inputs to run the network on", where=here(),
                    hint="nn.summary(net, (1, 784)), or inputs=")  # fmt: skip
    return net.example


__all__ = ["Summary", "summary"]
