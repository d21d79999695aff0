"""The train step as users hold it: a network, a loss and an optimizer, compiled per kind of batch.

The state (state.py) is changed in place by the compiled program.
May import: ir, passes, backends, frontends/nn, its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends.compiler import compiled_now, executable, reference
from ...backends.targets import choose
from ...ir.core import Array
from ...ir.errors import Error
from ...ir.interpret import run
from ...ir.ops.core import Func, Module
from ...ir.ops.dist import group
from ...ir.types import DType, f32, from_numpy
from ...passes.training.accumulate import micro_rows
from .. import nn
from ..nn.saving import in_mode
from ..nn.specs import Spec
from ..nn.traced import Traced, trace
from . import distributed
from .assemble import RATE, SCALE, STEP, Forward, Settings, StepProgram, step_program
from .batches import (
    as_batch,
    dense,
    leaves_of,
    numbers,
    partials_of,
    rearranged,
    type_of,
    type_text,
)
from .losses import as_loss, labels_of
from .metrics import Metric, as_metric
from .optim.names import as_optimizer
from .state import TrainState


@dataclass
class Result:
    """What a step gives: scalars to log, what the batch adds to each metric, its rows."""

    logs: dict[str, Array]
    partials: list[dict[str, Array]]
    rows: int


class TrainStep:
    """One step of training, compiled; call it with a batch.

    `net` is a module; `loss` a name, or a function (output, target) -> scalar tensor.  The last
    field of a batch is the target, those before it are the inputs; one alone is both.  A network
    whose loss is no function of one output and one target gives `objective(net, *batch)` instead:
    a scalar, or (scalar, output, target) where there are metrics.  `optimizer` is an
    `optim.Optimizer` or a name.  `precision`: f32, or bf16 and f16 for products over f32 weights;
    `loss_scale`: a number or "dynamic" (the default for f16).  `accumulate`: micro-batches per
    step.  `activation_memory`: bytes, or a share of them, to keep for the way back; the rest is
    computed again.  `shard_optimizer`: of several processes (see distributed.py), each of which
    computes its rows of a batch, each keeps its part of the optimizer's state alone.
    `threads`, `target` as for `irc.compile`; "reference" runs op by op.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        loss: Any = None,
        objective: Callable[..., Any] | None = None,
        optimizer: Any = "adam",
        metrics: Sequence[Any] = (),
        seed: int = 0,
        precision: str = "f32",
        accumulate: int = 1,
        loss_scale: float | str | None = None,
        activation_memory: float | int | None = None,
        shard_optimizer: bool = False,
        threads: int | None = None,
        target: str = "cpu",
    ) -> None:
        distributed.join()
        if (loss is None) == (objective is None):
            raise Error("E0688", "a step takes either a loss or an objective")
        self._require_parameters(net)
        if not isinstance(accumulate, int) or accumulate < 1:
            raise Error("E0607", f"accumulate is a number from 1, found {accumulate!r}")
        self.net, self.objective = net, objective
        self.loss = as_loss(loss) if objective is None else None
        self.metrics: tuple[Metric, ...] = tuple([as_metric(m) for m in metrics])
        if precision == "f16" and loss_scale is None:
            loss_scale = "dynamic"
        self.settings = Settings(
            as_optimizer(optimizer), checked_precision(precision), accumulate, loss_scale,
            activation_memory, shard_optimizer,
        )  # fmt: skip
        self.choice = choose(target, distributed.threads(threads))
        self._parts: tuple[Any, ...] = ()
        self._steps: dict[Any, tuple[StepProgram, Any, list[list[str]]]] = {}
        self._modes: dict[Any, tuple[Traced, Any, list[list[str]]]] = {}
        self._share = distributed.share(0)
        self.state = TrainState(net, self.settings, seed)

    def __repr__(self) -> str:
        loss = self.loss if self.objective is None else self.objective
        called = getattr(loss, "__name__", type(loss).__name__)
        optimizer = type(self.settings.optimizer).__name__
        net = type(self.net).__name__
        return f"<{type(self).__name__} of {net}, {called}, {optimizer}, step {self.count}>"

    @staticmethod
    def _require_parameters(net: nn.Module) -> None:
        """E0687 for a network that holds no parameter at all: it would stay as it is in silence."""
        if next(iter(net.parameters()), None) is None:
            raise Error(
                "E0687",
                f"the network {type(net).__name__} has no parameters",
                hint="layers in a plain list or dict are not found: nn.ModuleList, nn.ModuleDict",
            )

    # ------------------------------------------------------------ state

    @property
    def parameters(self) -> set[str]:
        """The names of the state's parameters, as programs call them."""
        return {n for n in self.state.arrays if n.startswith("params/")}

    @property
    def count(self) -> int:
        """Steps done."""
        return int(self.state.arrays[STEP])

    @property
    def rate(self) -> float:
        """The factor on the schedule's rate."""
        return float(self.state.arrays[RATE])

    @rate.setter
    def rate(self, value: float) -> None:
        self.state.arrays[RATE][...] = value

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that single steps may be skipped."""
        return self.settings.scales

    def arrays(self) -> Mapping[str, Array]:
        """All state by name; the arrays change with each step, but for those that several processes
        hold in parts: these are put together, by all processes at once.
        """
        return self.state.whole()

    def restore(self, arrays: Mapping[str, Array], source: str = "the state") -> None:
        """Take the values of a state; E0698 where it is another's, and then nothing has changed."""
        self.state.restore(arrays, source)

    # ------------------------------------------------------------ running

    def __call__(self, batch: Any) -> Result:
        """One step on a batch (x, y); the state is changed in place.

        Errors: E0506 with the op and its line for an index or label out of range.
        """
        arrays = self.given(batch)
        program, exe, logs = self._train_program(arrays)
        if group().world > 1:
            distributed.agree(self._told(arrays, exe))
        self.state.synchronise()
        found = self._run(exe, [self.state.array(n) for n in program.states], arrays, program)
        updates = len(program.module.main.state)
        for k, r in program.module.main.state:
            self.state.set(program.states[k], found[r])
        values = found[updates : updates + len(program.logs)]
        rest = found[updates + len(program.logs) :]
        partials = partials_of(logs, rest) if self._share.counted else [{} for _ in logs]
        return Result(dict(zip(program.logs, values)), partials, self._share.total)

    def _told(self, arrays: list[Array], exe: Any) -> str:
        """What this process is about to do, in words in which all processes agree."""
        rows = ", ".join([f"{from_numpy(a.dtype).name}{list(a.shape[1:])}" for a in arrays])
        program = distributed.collectives(exe)
        return f"step {self.count + 1} on {self._share.total} rows of {rows}, program {program}"

    def _run(
        self, exe: Any, state: list[Array], batch: list[Array], program: StepProgram | None
    ) -> list[Array]:
        try:
            return list(exe.run([*state, *batch]))
        except Error as error:
            if error.code == "E0506" and program is not None:
                self._explain(program, batch)
            raise

    def _explain(self, program: StepProgram, batch: list[Array]) -> None:
        """Run the forward function op by op: an error there names the op and its line."""
        with distributed.alone():
            run(program.forward, self._forward_arrays(program, batch))

    def _forward_arrays(self, program: StepProgram, batch: list[Array]) -> list[Array]:
        count = len(program.forward.args) - len(batch) - self.scales
        scale = [self.state.arrays[SCALE]] if self.scales else []
        return [self.state.array(n) for n in program.states[:count]] + batch + scale

    def forward_with(self, batch: Any) -> tuple[Func, dict[str, Array]]:
        """The function with gradients and its inputs by name, for looking at single values."""
        arrays = self.given(batch)
        program, _, _ = self._train_program(arrays)
        given = self._forward_arrays(program, arrays)
        func = program.forward
        return func, dict(zip([a.name or "" for a in func.args], given, strict=True))

    def evaluate(self, batch: Any) -> Result:
        """Loss and metrics of a batch in evaluation mode; nothing changes."""
        arrays = self.given(batch)
        traced, exe, names = self._mode_program("evaluate", arrays)
        found = self._run(exe, self.state.inputs_of(traced), arrays, None)[len(traced.buffers) :]
        if not self._share.counted:
            return Result({"loss": found[1]}, [{} for _ in names], 0)
        return Result({"loss": found[1]}, partials_of(names, found[2:]), self._share.rows)

    def predict(self, x: Any) -> Any:
        """The network's output for a batch of inputs, in evaluation mode; several as a tuple."""
        if isinstance(x, tuple) and len(x) == 1 and isinstance(x[0], tuple):
            x = x[0]
        x = tuple([numbers(p) for p in x]) if isinstance(x, tuple) else numbers(x)
        arrays = [dense(a, self.dtype) for a in leaves_of(x)]
        traced, exe, _ = self._mode_program("predict", arrays, x)
        found = self._run(exe, self.state.inputs_of(traced), arrays, None)[len(traced.buffers) :]
        leaves = [np.asarray(f) for f in found]
        return nn.trees.unflatten(traced.results, leaves)

    @property
    def inputs(self) -> int:
        """How many fields of a batch, the first ones, are inputs: all but the target."""
        return max(1, len(self._parts) - 1)

    def graph(self) -> Module | None:
        """The compiled step's program, if there was a step."""
        program = next(iter(self._steps.values()), None)
        return None if program is None else program[0].module

    @property
    def seen(self) -> tuple[tuple[Any, ...] | None, int | None]:
        """The fields of the last batch, and the rows of the first that was trained with."""
        rows = [types[0].shape[0] for types, _ in self._steps]
        return self._parts or None, rows[0] if rows else None

    # ------------------------------------------------------------ programs

    @property
    def dtype(self) -> DType:
        """The element type of the network: of its first float parameter."""
        return next((p.type.dtype for p in self.state.trained.values()), f32)

    def given(self, batch: Any) -> list[Array]:
        """This process's rows of a batch, as dense arrays; wide floats get the network's type."""
        own = batch if isinstance(batch, distributed.Own) else None
        parts = as_batch(batch if own is None else own.batch)
        arrays = [dense(a, self.dtype) for part in parts for a in leaves_of(part)]
        self._parts = parts
        rows = {a.shape[0] if a.ndim else None for a in arrays}
        if len(rows) != 1 or None in rows:
            raise Error(
                "E0662",
                "the arrays of a batch have one row per sample each",
                details=tuple([f"array {k}: {type_text(a)}" for k, a in enumerate(arrays[:8])]),
            )
        mine = distributed.share(len(arrays[0])) if own is None else own.share
        self._share = mine
        return arrays if own is not None else [a[mine.start : mine.stop] for a in arrays]

    def _train_program(self, arrays: list[Array]) -> tuple[StepProgram, Any, list[list[str]]]:
        """The compiled step for batches of these types."""
        key = tuple([type_of(a) for a in arrays]), self._share
        known = self._steps.get(key)
        if known is None:
            rows = micro_rows(len(arrays[0]), self.settings.accumulate)
            specs = [Spec((rows, *a.shape[1:]), from_numpy(a.dtype)) for a in arrays]
            forward, names = self.forward(specs)
            own = self.state.arrays
            slots = {n: type_of(own[n]) for n in own if n.startswith("slots/")}
            program = step_program(forward, self.settings, slots)
            known = self._steps[key] = (program, self._compiled(program.module), names)
        return known

    def forward(
        self, specs: Sequence[Spec], training: bool = True
    ) -> tuple[Forward, list[list[str]]]:
        """The traced forward function for such a batch, and what its partials are called."""
        if self.scales:
            specs = [*specs, Spec((), "f32", "loss_scale")]
        traced, names = self.traced(specs, training)
        states, trained = [], []
        for k, state in enumerate(traced.states):
            states.append(self.state.name_of(state))
            kind, _, bare = states[-1].partition("/")
            if kind == "params" and bare in self.state.trained:
                trained.append(k)
        made = traced.module.main
        updated = tuple([(k, s.result) for k, s in enumerate(traced.states) if s.result >= 0])
        first = len(updated) + 2
        flat = [(metric, n) for metric, row in zip(self.metrics, names) for n in row]
        stacked = frozenset([first + k for k, (metric, _) in enumerate(flat) if metric.gathers])
        for value, name in zip(made.args, states):
            value.name = name
        made.set_attr("inputs", (*states, *traced.inputs))
        even = self._share.even
        return Forward(made, tuple(states), updated, tuple(trained), stacked, even), names

    def traced(self, specs: Sequence[Spec], training: bool) -> tuple[Traced, list[list[str]]]:
        """The trace of loss and partials."""
        names: list[list[str]] = []
        net, parts, scales = self.net, self._parts, self.scales and training
        weight = self._share.factor if training else 1.0

        def forward(*given: Any) -> Any:
            scale = given[-1] if scales else None
            batch = rearranged(parts, list(given[:-1] if scales else given))
            loss, output, target = self._loss_of(batch)
            target = labels_of(self.loss, output, target)
            partials = [m.partial(output, target) for m in self.metrics]
            names[:] = [list(p) for p in partials]
            loss = loss if weight == 1.0 else loss * weight
            objective = loss if scale is None else loss * scale.astype(loss.dtype)
            return [objective, loss, [list(p.values()) for p in partials]]

        together = nullcontext() if self._share.part else distributed.alone()
        with in_mode(net, training), together:
            return trace(Traceable(forward, net, self.loss, self.objective), *specs), names

    def _loss_of(self, batch: list[Any]) -> tuple[Any, Any, Any]:
        """Loss, output and target of a batch of tensors."""
        if self.objective is None:
            inputs, target = (batch[:-1], batch[-1]) if len(batch) > 1 else (batch, batch[0])
            if len(inputs) == 1 and isinstance(inputs[0], tuple):
                inputs = list(inputs[0])
            output = self.net(*inputs)
            assert self.loss is not None
            found, extra = self.loss(output, target), (output, target)
        else:
            found, extra = self.objective(self.net, *batch), (None, None)
            if isinstance(found, tuple):
                found, *rest = found
                extra = (rest[0] if rest else None, rest[1] if len(rest) > 1 else None)
        if getattr(found, "shape", None) != ():
            raise Error(
                "E0688",
                "the loss is no scalar",
                details=(f"found {getattr(found, 'type', type(found).__name__)}",),
                hint="take its mean or sum",
            )
        return found, extra[0], extra[1]

    def _mode_program(
        self, kind: str, arrays: list[Array], x: Any = None
    ) -> tuple[Traced, Any, list[list[str]]]:
        """The program that evaluates or predicts, its state shared with the step's."""
        key = kind, tuple([type_of(a) for a in arrays])
        known = self._modes.get(key)
        if known is None:
            specs = [Spec(a.shape, from_numpy(a.dtype)) for a in arrays]
            names: list[list[str]] = []
            if kind == "evaluate":
                traced, names = self.traced(specs, False)
            else:
                given = nn.trees.unflatten(nn.trees.flatten(x)[1], specs)
                with in_mode(self.net):
                    traced = trace(self.net, *(given if isinstance(given, tuple) else (given,)))
            known = self._modes[key] = (traced, self._compiled(traced.module), names)
        return known

    def _compiled(self, module: Module) -> Any:
        if self.choice.backend == "reference":
            return reference(module)
        if self.choice.backend == "cpu":
            return executable(module, self.choice)
        return compiled_now(module, self.choice)

    def export(self, path: str | os.PathLike[str], target: str = "c", **options: Any) -> None:
        """Write the step as a package that trains on a device."""
        from .export import export_step

        export_step(self, path, target, **options)


class Traceable:
    """A function together with the modules that it uses, for the trace to find their names."""

    def __init__(self, function: Callable[..., Any], *modules: Any) -> None:
        self.function = function
        self.traces = [m for m in modules if callable(m)]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def checked_precision(precision: str) -> str:
    """E0404 for a precision that no step has."""
    if precision not in ("f32", "bf16", "f16"):
        raise Error("E0404", f"unknown precision '{precision}'", hint="f32, bf16 or f16")
    return precision


__all__ = ["Result", "TrainStep"]
