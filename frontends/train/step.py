"""The train step as users hold it: a network, a loss and an optimizer, compiled per kind of batch.

The step owns the arrays of the state (parameters, buffers, optimizer slots, random stream, step);
the compiled program changes them in place, and the module's parameters are these very arrays.
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
from ...ir.types import DType, from_numpy
from ...passes.training.accumulate import micro_rows
from .. import nn
from ..nn.draws import origin
from ..nn.random import default as default_stream
from ..nn.traced import Spec, Traced, trace
from . import distributed
from .assemble import (
    COUNTER,
    GOOD,
    KEY,
    RATE,
    SCALE,
    STEP,
    Forward,
    Settings,
    StepProgram,
    step_program,
)
from .batches import (
    as_batch,
    dense,
    leaves_of,
    owned,
    partials_of,
    rearranged,
    type_of,
    type_text,
)
from .losses import as_loss
from .metrics import Metric, as_metric
from .optim.names import as_optimizer
from .sharding import cut, joined, require_elementwise, shapes_of_parts


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
            raise Error("E0699", "a step takes either a loss or an objective")
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
        self._state: dict[str, Array] = {}
        self._called: dict[int, tuple[Any, str]] = {}
        self._borrowed: dict[str, Any] = {}
        self._parts: tuple[Any, ...] = ()
        self._programs: dict[Any, Any] = {}
        self._share = distributed.share(0)
        self._adopt(seed)

    # ------------------------------------------------------------ state

    def _adopt(self, seed: int) -> None:
        """Make the state's arrays, and the module's tensors views of them."""
        params = unique(self.net.named_parameters())
        for kind, tensors in (("params", params), ("buffers", unique(self.net.named_buffers()))):
            for name, tensor in tensors.items():
                self._state[f"{kind}/{name}"] = tensor.array = owned(tensor.array)
        self.origins = {f"params/{n}": origin(p.array) for n, p in params.items()}
        self._trained = {n: p for n, p in params.items() if p.requires_grad}
        distributed.same_state(self._state)
        with nn.no_grad():
            slots = self.settings.optimizer.init(self._trained)
        kept = {f"slots/{n}": np.asarray(t.array) for n, t in slots.items()}
        self._whole: dict[str, tuple[int, ...]] = {}
        if self.settings.sharded:
            require_elementwise(self.settings.optimizer)
            self._whole = shapes_of_parts(self._trained, kept)
        self._state |= {n: owned(a) for n, a in cut(kept, self._whole).items()}
        key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
        self._state[KEY] = owned(np.asarray(key, np.uint32))
        distributed.same_state({KEY: self._state[KEY]})
        self._state[COUNTER] = owned(np.zeros(4, np.uint32))
        self._state[STEP] = owned(np.zeros((), np.int64))
        self._state[RATE] = owned(np.ones((), np.float64))
        if self.settings.scales:
            first = self.settings.loss_scale
            scale = 2.0**16 if first == "dynamic" else float(first or 1.0)
            self._state[SCALE] = owned(np.asarray(scale, np.float32))
            self._state[GOOD] = owned(np.zeros((), np.int64))

    def _synchronise(self) -> None:
        """Take what the module holds where somebody gave it other values."""
        for kind, named in (
            ("params", self.net.named_parameters()),
            ("buffers", self.net.named_buffers()),
        ):
            for name, tensor in named:
                mine = self._state.get(f"{kind}/{name}")
                if kind == "params" and mine is not None:
                    self._require_as_made(name, tensor)
                if mine is not None and tensor.array is not mine:
                    if type_text(tensor.array) != type_text(mine):
                        raise _changed(f"{kind}/{name}")
                    np.copyto(mine, tensor.array)
                    self.origins[f"{kind}/{name}"] = origin(mine)
                    tensor.array = mine

    def _require_as_made(self, name: str, tensor: Any) -> None:
        """E0699 for a parameter frozen or thawed since the step was made."""
        if tensor.requires_grad != (name in self._trained):
            now = "trained" if tensor.requires_grad else "frozen"
            raise Error(
                "E0699",
                f"the parameter '{name}' is {now} now, and was not when the step was made",
                hint="call requires_grad_ before making the step, or make a new one",
            )

    def _array(self, name: str) -> Array:
        """A state's array: this step's own, or as another module holds it now."""
        mine = self._state.get(name)
        return self._borrowed[name].tensor.array if mine is None else mine

    def borrowed(self) -> Mapping[str, Array]:
        """The arrays of modules outside the network that its loss uses: these are not trained and
        no part of the step's state; each step reads them as they are, batch statistics change.
        """
        return {name: self._array(name) for name in self._borrowed}

    @property
    def parameters(self) -> set[str]:
        """The names of the state's parameters, as programs call them."""
        return {n for n in self._state if n.startswith("params/")}

    @property
    def count(self) -> int:
        """Steps done."""
        return int(self._state[STEP])

    @property
    def rate(self) -> float:
        """The factor on the schedule's rate."""
        return float(self._state[RATE])

    @rate.setter
    def rate(self, value: float) -> None:
        self._state[RATE][...] = value

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that single steps may be skipped."""
        return self.settings.scales

    def arrays(self) -> Mapping[str, Array]:
        """All state by name; the arrays change with each step, but for those that several processes
        hold in parts: these are put together, by all processes at once.
        """
        self._synchronise()
        if not self._whole:
            return self._state
        distributed.agree(f"the state behind step {self.count}")
        return self._state | joined(self._state, self._whole)

    def restore(self, arrays: Mapping[str, Array], source: str = "the state") -> None:
        """Take the values of a state; E0698 where it is another's, and then nothing has changed."""
        found = {name: type_text(array) for name, array in arrays.items()}
        expected = {
            name: type_text(mine, self._whole.get(name)) for name, mine in self._state.items()
        }
        wrong = [
            f"{name}: expected {type_}, found {found.get(name, 'none')}"
            for name, type_ in expected.items()
            if found.get(name) != type_
        ]
        wrong += [f"{name}: not part of this step" for name in arrays if name not in self._state]
        if wrong:
            raise Error(
                "E0698",
                f"{source} is of another network or optimizer",
                details=(*wrong[:8], *[f"... and {len(wrong) - 8} more"] * (len(wrong) > 8)),
            )
        for name, array in cut(arrays, self._whole).items():
            np.copyto(self._state[name], array)
        self._synchronise_module()

    def _synchronise_module(self) -> None:
        """Make the module's tensors views of the state again."""
        for kind, named in (
            ("params", self.net.named_parameters()),
            ("buffers", self.net.named_buffers()),
        ):
            for name, tensor in named:
                if f"{kind}/{name}" in self._state:
                    tensor.array = self._state[f"{kind}/{name}"]

    # ------------------------------------------------------------ running

    def __call__(self, batch: Any) -> Result:
        """One step on a batch (x, y); the state is changed in place.

        Errors: E0506 with the op and its line for an index or label out of range.
        """
        arrays = self._given(batch)
        program, exe, logs = self._train_program(arrays)
        if group().world > 1:
            distributed.agree(self._told(arrays, exe))
        self._synchronise()
        found = self._run(exe, [self._array(n) for n in program.states], arrays, program)
        updates = len(program.module.main.state)
        for k, r in program.module.main.state:
            name = program.states[k]
            mine = self._array(name)
            if found[r] is not mine and name in self._state:  # a target that gives new arrays
                np.copyto(mine, found[r])
            elif found[r] is not mine:
                self._borrowed[name].assign(np.asarray(found[r]))
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
        scale = [self._state[SCALE]] if self.scales else []
        return [self._array(n) for n in program.states[:count]] + batch + scale

    def forward_with(self, batch: Any) -> tuple[Func, dict[str, Array]]:
        """The function with gradients and its inputs by name, for looking at single values."""
        arrays = self._given(batch)
        program, _, _ = self._train_program(arrays)
        given = self._forward_arrays(program, arrays)
        func = program.forward
        return func, dict(zip([a.name or "" for a in func.args], given, strict=True))

    def evaluate(self, batch: Any) -> Result:
        """Loss and metrics of a batch in evaluation mode; nothing changes."""
        arrays = self._given(batch)
        traced, exe, names = self._mode_program("evaluate", arrays)
        found = self._run(exe, self._of(traced), arrays, None)[len(traced.buffers) :]
        if not self._share.counted:
            return Result({"loss": found[1]}, [{} for _ in names], 0)
        return Result({"loss": found[1]}, partials_of(names, found[2:]), self._share.rows)

    def predict(self, x: Any) -> Any:
        """The network's output for a batch of inputs, in evaluation mode; several as a tuple."""
        if isinstance(x, tuple) and len(x) == 1 and isinstance(x[0], tuple):
            x = x[0]
        arrays = [dense(a, self.dtype) for a in leaves_of(x)]
        traced, exe, _ = self._mode_program("predict", arrays, x)
        found = self._run(exe, self._of(traced), arrays, None)[len(traced.buffers) :]
        leaves = [np.asarray(f) for f in found]
        return nn.trees.unflatten(traced.results, leaves)

    @property
    def inputs(self) -> int:
        """How many fields of a batch, the first ones, are inputs: all but the target."""
        return max(1, len(self._parts) - 1)

    def graph(self) -> Module | None:
        """The compiled step's program, if there was a step."""
        for kind, found in self._programs.items():
            if kind[0] == "train":
                return found[0].module  # type: ignore[no-any-return]
        return None

    # ------------------------------------------------------------ programs

    @property
    def dtype(self) -> DType:
        """The element type of the network: of its first float parameter."""
        for p in self._trained.values():
            return p.type.dtype
        return DType("f32")

    def _given(self, batch: Any) -> list[Array]:
        """This process's rows of a batch, as dense arrays; wide floats get the network's type."""
        own = batch if isinstance(batch, distributed.Own) else None
        parts = as_batch(batch if own is None else own.batch)
        arrays = [dense(a, self.dtype) for part in parts for a in leaves_of(part)]
        self._parts = parts
        rows = {a.shape[0] if a.ndim else None for a in arrays}
        if len(rows) != 1 or None in rows:
            raise Error(
                "E0699",
                "the arrays of a batch have one row per sample each",
                details=tuple([f"array {k}: {type_text(a)}" for k, a in enumerate(arrays)]),
            )
        mine = distributed.share(len(arrays[0])) if own is None else own.share
        self._share = mine
        return arrays if own is not None else [a[mine.start : mine.stop] for a in arrays]

    def _train_program(self, arrays: list[Array]) -> tuple[StepProgram, Any, list[Any]]:
        """The compiled step for batches of these types."""
        key = ("train", *[type_text(a) for a in arrays], self._share)
        known = self._programs.get(key)
        if known is None:
            rows = micro_rows(len(arrays[0]), self.settings.accumulate)
            specs = [Spec((rows, *a.shape[1:]), from_numpy(a.dtype)) for a in arrays]
            forward, names = self.forward(specs)
            slots = {n: type_of(self._state[n]) for n in self._state if n.startswith("slots/")}
            program = step_program(forward, self.settings, slots)
            known = self._programs[key] = (program, self._compiled(program.module), names)
        return known  # type: ignore[no-any-return]

    def forward(self, specs: Sequence[Spec], training: bool = True) -> tuple[Forward, list[Any]]:
        """The traced forward function for such a batch, and what its partials are called."""
        if self.scales:
            specs = [*specs, Spec((), "f32", "loss_scale")]
        traced, names = self._traced(specs, training)
        states, trained = [], []
        for k, state in enumerate(traced.states):
            states.append(self._name_of(state))
            kind, _, bare = states[-1].partition("/")
            if kind == "params" and bare in self._trained:
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

    def _traced(self, specs: Sequence[Spec], training: bool) -> tuple[Traced, list[list[str]]]:
        """The trace of loss and partials."""
        names: list[list[str]] = []
        net, parts, scales = self.net, self._parts, self.scales and training
        weight = self._share.factor if training else 1.0

        def forward(*given: Any) -> Any:
            scale = given[-1] if scales else None
            batch = rearranged(parts, list(given[:-1] if scales else given))
            loss, output, target = self._loss_of(batch)
            partials = [m.partial(output, target) for m in self.metrics]
            names[:] = [list(p) for p in partials]
            loss = loss if weight == 1.0 else loss * weight
            objective = loss if scale is None else loss * scale.astype(loss.dtype)
            return [objective, loss, [list(p.values()) for p in partials]]

        forward.traces = [net, self.loss, self.objective]  # type: ignore[attr-defined]
        together = nullcontext() if self._share.part else distributed.alone()
        with mode(net, training), together:
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
                "E0699",
                "the loss is no scalar",
                details=(f"found {getattr(found, 'type', type(found).__name__)}",),
                hint="take its mean or sum",
            )
        return found, extra[0], extra[1]

    def _mode_program(self, kind: str, arrays: list[Array], x: Any = None) -> Any:
        """The program that evaluates or predicts, its state shared with the step's."""
        key = (kind, *[type_text(a) for a in arrays])
        known = self._programs.get(key)
        if known is None:
            specs = [Spec(a.shape, from_numpy(a.dtype)) for a in arrays]
            names: list[Any] = []
            if kind == "evaluate":
                traced, names = self._traced(specs, False)
            else:
                given = nn.trees.unflatten(nn.trees.flatten(x)[1], specs)
                with mode(self.net, False):
                    traced = trace(self.net, *(given if isinstance(given, tuple) else (given,)))
            known = self._programs[key] = (traced, self._compiled(traced.module), names)
        return known

    def _of(self, traced: Traced) -> list[Array]:
        """The arrays of a program's state inputs; those it would change are copied."""
        self._synchronise()
        found = []
        for state in traced.states:
            array = self._state.get(self._name_of(state), state.tensor.array)
            found.append(np.array(array) if state.result >= 0 else array)
        return found

    def _name_of(self, state: Any) -> str:
        """What the step calls a state of a trace: its own by their names in the network, those of
        other modules "frozen/...".
        """
        if state.table is default_stream.table:
            return KEY if state.key == "key" else COUNTER
        known = self._called.get(id(state))
        if known is None:
            known = self._called[id(state)] = (state, self._new_name(state))
        return known[1]

    def _new_name(self, state: Any) -> str:
        """The same for a state not seen before, by identity: a trace may call it otherwise."""
        for kind, named in (
            ("params", self.net.named_parameters()),
            ("buffers", self.net.named_buffers()),
        ):
            for name, tensor in named:
                if tensor is state.tensor:
                    return self._own(f"{kind}/{name}")
        name = f"frozen/{state.name}"
        while name in self._borrowed and self._borrowed[name].tensor is not state.tensor:
            name += "_"
        self._borrowed[name] = state
        return name

    def _own(self, name: str) -> str:
        """The name; E0699 where the network has got the tensor since the step was made."""
        if name not in self._state:
            raise _changed(name)
        return name

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


def _changed(name: str) -> Error:
    """E0699 for a tensor that the network has got since the step was made."""
    kind, _, bare = name.partition("/")
    return Error(
        "E0699",
        f"the network's {kind.removesuffix('s')} '{bare}' is another than when the step was made",
        hint="change the network first, then make the step",
    )


class Traceable:
    """A function together with the modules that it uses, for the trace to find their names."""

    def __init__(self, function: Callable[..., Any], *modules: Any) -> None:
        self.function = function
        self.traces = [m for m in modules if callable(m)]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class mode:
    """A module in training or evaluation mode, and back."""

    def __init__(self, net: nn.Module, training: bool) -> None:
        self.before = [(m, m.training) for m in net.modules()]
        self.training = training

    def __enter__(self) -> None:
        for module, _ in self.before:
            module.training = self.training

    def __exit__(self, *error: object) -> None:
        for module, training in self.before:
            module.training = training


def unique(named: Any) -> dict[str, Any]:
    """Named tensors, each once, under its first name."""
    seen: set[int] = set()
    found = {}
    for name, tensor in named:
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def checked_precision(precision: str) -> str:
    """E0404 for a precision that no step has."""
    if precision not in ("f32", "bf16", "f16"):
        raise Error("E0404", f"unknown precision '{precision}'", hint="f32, bf16 or f16")
    return precision


__all__ = ["Result", "TrainStep", "mode", "unique"]
