"""Imported programs as trainable networks: `nn.from_ir(irc.load("model.onnx"))`.

Float constants with a name of their own become parameters under that name, so that the state dict
reads as in the network that was exported; the statistics of batch norms become buffers and stay as
they are.  `cut` gives the part before or behind a layer, for a new head.
May import: ir, its siblings.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...ir.core import Op, Value
from ...ir.dims import Dim
from ...ir.errors import Error
from ...ir.interpret import input_names
from ...ir.ops.core import Const, Func, Return
from ...ir.ops.core import Module as Program
from ...ir.types import TensorType
from .dispatch import here, leaf
from .network import Entry, Held, Network, Slot
from .open_batch import opened
from .specs import Spec
from .tensor import Parameter
from .trees import Tree, flatten, is_leaf

_WEIGHTS = frozenset({
    *[(name, 1) for name in ("matmul", "contract", "conv", "conv_transpose")],
    *[(name, at) for name in ("lstm", "gru", "rnn") for at in (1, 2, 3)],
    *[(name, 0) for name in ("take", "gather")],
})  # fmt: skip
"""Operands that are weights: (op, which operand)."""


class Imported(Network):
    """A network that runs the ops of a program; `inputs` and `outputs` are its names for them."""

    def __init__(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.name, self.inputs, self.outputs = name, tuple(inputs), tuple(outputs)

    def extra_repr(self) -> str:
        return f"{self.name}: {len(self._entries)} ops"

    @property
    def steps(self) -> list[str]:
        """The names of the layers (nodes) in order, each once: what `cut` takes."""
        return list(dict.fromkeys([e.name for e in self._entries if e.name]))

    def cut(self, *, before: str = "", after: str = "") -> Imported:
        """The network up to the input of the layer `before`, or up to the results of `after`.

        A layer is named as in `steps`, or by its parameters ("fc" where there is "fc.weight").  The
        parameters are shared with this network.  E0646 for an unknown name, or where several
        values lead into the layer.
        """
        if bool(before) == bool(after):
            raise Error("E0646", "cut takes before= or after=, one of them", where=here())
        inside = self._layer(before or after)
        wanted = self._leading(inside, before) if before else self._leaving(inside)
        made = Imported(self.name, self.inputs, [before or after])
        shape = flatten(0 if len(wanted) == 1 else (0,) * len(wanted), is_leaf)[1]
        made.plan(self._types, self._labels, self._entries, wanted, shape)
        for name in made.held():
            table = "_parameters" if name in self._parameters else "_buffers"
            made.__dict__[table][name] = self.__dict__[table][name]
        object.__setattr__(made, "_example", self._example)
        return made

    def held(self) -> list[str]:
        """The parameters and buffers that the plan reads, each once."""
        names = [x.name for e in self._entries for x in e.operands if isinstance(x, Held)]
        return list(dict.fromkeys(names))

    def _layer(self, name: str) -> list[Entry]:
        """The steps of a layer."""
        groups = {e.name for e in self._entries if e.name == name or _holds(e, name)}
        inside = [e for e in self._entries if e.name in groups]
        if inside:
            return inside
        stems = [n.rpartition(".")[0] for n in self.held() if "." in n]
        close = difflib.get_close_matches(name, [*self.steps, *stems], n=5, cutoff=0.3)
        raise Error("E0646", f"there is no layer '{name}' in {self.name}", where=here(),
                    hint=f"near it: {', '.join(dict.fromkeys(close))}" if close
                    else "net.steps lists them")  # fmt: skip

    def _flowing(self) -> set[int]:
        """The slots that depend on the network's inputs."""
        flowing = set(range(len(self._types)))
        for e in self._entries:
            if any([isinstance(x, Slot) and x.index in flowing for x in e.operands]):
                flowing.update(range(e.first, e.first + e.count))
        return flowing

    def _leading(self, inside: Sequence[Entry], name: str) -> list[int]:
        """The one value that flows into these steps."""
        made = {e.first + k for e in inside for k in range(e.count)}
        flowing = self._flowing()
        found = dict.fromkeys([
            x.index for e in inside for x in e.operands
            if isinstance(x, Slot) and x.index in flowing and x.index not in made
        ])  # fmt: skip
        if len(found) != 1:
            raise Error("E0646", f"{len(found)} values lead into '{name}', not one", where=here(),
                        hint="cut after the layer before it")  # fmt: skip
        return list(found)

    def _leaving(self, inside: Sequence[Entry]) -> list[int]:
        """The results of the last of these steps."""
        last = inside[-1]
        return list(range(last.first, last.first + last.count))


def _holds(entry: Entry, name: str) -> bool:
    """Whether a step reads a parameter of a layer."""
    names = [x.name for x in entry.operands if isinstance(x, Held)]
    return any([n == name or n.startswith(name + ".") for n in names])


def from_ir(program: Program, buffers: Sequence[str] = (), batch: str = "") -> Imported:
    """A network of the program's `main`, whose float constants it trains.

    Scalars, and constants that an op makes for itself, stay constants; `buffers` are patterns of
    further names ("*mask*") that are not trained.  `batch` names an open batch ("N") for a program
    that was fixed at one example.  Errors: E0646 for control flow, which is not taken apart, and
    where the batch cannot be opened.
    """
    func = opened(program.main, batch) if batch else program.main
    net = Imported(program.sym, input_names(func), func.outputs)
    slots = {value: k for k, value in enumerate(func.args)}
    held = _Constants(net, func, buffers)
    entries = []
    for op in func.body:
        if isinstance(op, (Const, Return)):
            continue
        if op.regions or getattr(type(op), "evaluate", None) is None:
            raise Error(
                "E0646",
                f"'{op.name}' is not taken into a network",
                where=op.loc,
                hint="a program without control flow; irc.load folds what is constant",
            )
        entries.append(_entry(op, slots, held))
    results = [_slot(v, slots, held) for v in func.returned]
    fixed = [k for k in results if not isinstance(k, Slot)]
    if fixed:
        raise Error("E0646", "an output is a constant", where=program.sym)
    types = [v.tensor for v in func.args]
    shape: Tree = flatten(0 if len(results) == 1 else (0,) * len(results), is_leaf)[1]
    net.plan(types, input_names(func), entries, [r.index for r in results], shape)
    object.__setattr__(net, "_example", tuple([Spec(t.shape, t.dtype) for t in types]))
    return net


def _entry(op: Op, slots: dict[Value, int], held: _Constants) -> Entry:
    """An op as a step; its results get the next slots."""
    operands = tuple([None if v is None else _slot(v, slots, held) for v in op.operands])
    first = len(slots)
    for k, r in enumerate(op.results):
        slots[r] = first + k
    binds = []
    for k, r in enumerate(op.results):
        shape = r.type.shape if isinstance(r.type, TensorType) and r.type.ranked else ()
        binds += [(k, a, str(e)) for a, e in enumerate(shape)
                  if isinstance(e, Dim) and str(e) in e.symbols]  # fmt: skip
    attrs = dict(op.attributes)
    return Entry(type(op), operands, Tree(), attrs, first, len(op.results), op.loc, tuple(binds))


def _slot(value: Value, slots: dict[Value, int], held: _Constants) -> Any:
    return held.tensor(value.op) if isinstance(value.op, Const) else Slot(slots[value])


class _Constants:
    """Which constants are parameters, buffers, or only constants."""

    def __init__(self, net: Imported, func: Func, buffers: Sequence[str]) -> None:
        self.net, self.patterns = net, tuple(buffers)
        self.made_by_ops = {op.loc.name for op in func.body
                            if op.loc is not None and not isinstance(op, Const)}  # fmt: skip
        self.statistics = set(_statistics(func))
        self.known: dict[Op, Any] = {}

    def tensor(self, op: Const) -> Any:
        """What stands for a constant: `Held`, or an eager tensor."""
        if op not in self.known:
            self.known[op] = self._made(op)
        return self.known[op]

    def _made(self, op: Const) -> Any:
        array = np.asarray(op.value.array)
        name = self._named(op)
        if not name or not op.result.tensor.dtype.is_float or not array.ndim:
            return leaf(array)
        name = self._free(name)
        kept = op in self.statistics or any([fnmatch.fnmatch(name, p) for p in self.patterns])
        if kept:
            self.net.register_buffer(name, leaf(array))
        else:
            self.net.register_parameter(name, Parameter(array))
        return Held(name)

    def _named(self, op: Const) -> str:
        """The constant's own name; weights without one are called after the op that they serve."""
        name = op.loc.name if op.loc is not None else ""
        if name and name not in self.made_by_ops:
            return name
        for user in op.result.users:
            at = user.operands.index(op.result)
            if (user.name, at) in _WEIGHTS:
                return f"{user.loc.name if user.loc is not None else user.name}.weight"
        return ""

    def _free(self, name: str) -> str:
        """The name, numbered where it is taken."""
        found, count = name, 1
        while found in self.net._parameters or found in self.net._buffers:
            found, count = f"{name}_{count}", count + 1
        return found


def _statistics(func: Func) -> Iterator[Op]:
    """The constants that are a batch norm's mean or variance.

    The importer writes a batch norm as factor = scale / sqrt(variance + epsilon) and offset = bias
    - mean * factor.
    """
    for op in func.body:
        if op.name != "div":
            continue
        root = op.operands[1].op
        added = root.operands[0].op if root is not None and root.name == "sqrt" else None
        if added is None or added.name != "add" or not isinstance(added.operands[0].op, Const):
            continue
        for user in op.result.users:
            if user.name == "mul" and isinstance(user.operands[0].op, Const):
                if any([u.name == "sub" for u in user.result.users]):
                    yield added.operands[0].op
                    yield user.operands[0].op


__all__ = ["Imported", "from_ir"]
