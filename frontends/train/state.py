"""What a train step changes: parameters, buffers, optimizer slots, random stream, counters.

The arrays live as long as the step; the compiled program changes them in place, and the module's
tensors are these very arrays.  Of several processes each may keep parts of the slots alone.
May import: ir, deploy, frontends/nn, its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...deploy.rehearsal import seed_key
from ...ir.core import Array
from ...ir.errors import Error
from .. import nn
from ..nn.draws import origin
from ..nn.random import default as default_stream
from ..nn.traced import State, Traced
from . import distributed
from .assemble import COUNTER, GOOD, KEY, RATE, SCALE, STEP, Settings
from .batches import owned, type_text
from .optim.base import EMA
from .sharding import cut, joined, require_elementwise, shapes_of_parts


class TrainState:
    """The state of a step by name: "params/0.weight", "buffers/...", "slots/0.weight/mean" ...

    `arrays` are this process's own; `trained` the parameters that the optimizer changes; `origins`
    says how parameters and buffers were drawn, where that is known.
    """

    def __init__(self, net: nn.Module, settings: Settings, seed: int) -> None:
        self.net = net
        self.arrays: dict[str, Array] = {}
        self._called: dict[int, tuple[State, str]] = {}
        self._borrowed: dict[str, State] = {}
        params = unique(net.named_parameters())
        self._adopt("params", params)
        self._adopt("buffers", unique(net.named_buffers()))
        self.origins = {f"params/{n}": origin(p.array) for n, p in params.items()}
        self.trained = {n: p for n, p in params.items() if p.requires_grad}
        distributed.same_state(self.arrays)
        self._whole: dict[str, tuple[int, ...]] = {}
        self._make_slots(settings)
        self._make_counters(settings, seed)

    def _adopt(self, kind: str, tensors: Mapping[str, Any]) -> None:
        """Make arrays of the state, and the tensors views of them."""
        for name, tensor in tensors.items():
            self.arrays[f"{kind}/{name}"] = tensor.array = owned(tensor.array)

    def _make_slots(self, settings: Settings) -> None:
        """The optimizer's slots, or this process's parts of them."""
        kept = fresh_slots(settings, self.trained)
        if settings.sharded:
            require_elementwise(settings.optimizer)
            self._whole = shapes_of_parts(self.trained, kept)
        self.arrays |= {n: owned(a) for n, a in cut(kept, self._whole).items()}

    def _make_counters(self, settings: Settings, seed: int) -> None:
        """Random stream, steps done, factor on the rate, and what a scaled loss needs."""
        self.arrays[KEY] = owned(seed_key(seed))
        distributed.same_state({KEY: self.arrays[KEY]})
        self.arrays |= {n: owned(a) for n, a in fresh_counters(settings).items()}

    # ------------------------------------------------------------ the network's tensors

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        """What the network holds now, by the state's names."""
        for name, tensor in self.net.named_parameters():
            yield f"params/{name}", tensor
        for name, tensor in self.net.named_buffers():
            yield f"buffers/{name}", tensor

    def synchronise(self) -> None:
        """Take what the module holds where somebody gave it other values."""
        for name, tensor in self._tensors():
            mine = self.arrays.get(name)
            if mine is None:
                continue
            self._require_as_made(name, tensor)
            if tensor.array is not mine:
                if type_text(tensor.array) != type_text(mine):
                    raise _changed(name)
                np.copyto(mine, tensor.array)
                self.origins[name] = origin(mine)
                tensor.array = mine

    def _require_as_made(self, name: str, tensor: Any) -> None:
        """E0699 for a parameter frozen or thawed since the step was made."""
        kind, _, bare = name.partition("/")
        if kind == "params" and tensor.requires_grad != (bare in self.trained):
            now = "trained" if tensor.requires_grad else "frozen"
            raise Error(
                "E0699",
                f"the parameter '{bare}' is {now} now, and was not when the step was made",
                hint="call requires_grad_ before making the step, or make a new one",
            )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving averages in the place of the parameters, until the end; E0691 without any."""
        whole = self.whole()
        pairs = [(self.arrays[f"params/{n}"], whole.get(f"slots/{n}/{EMA}")) for n in self.trained]
        kept = [(mine, average.copy()) for mine, average in pairs if average is not None]
        if not kept:
            raise Error(
                "E0691",
                "the optimizer keeps no averages",
                hint="give it ema=0.999, or another decay",
            )
        before = [mine.copy() for mine, _ in kept]
        try:
            for mine, average in kept:
                np.copyto(mine, average)
            yield
        finally:
            for (mine, _), old in zip(kept, before, strict=True):
                np.copyto(mine, old)

    # ------------------------------------------------------------ as a whole

    def whole(self) -> Mapping[str, Array]:
        """All arrays; those that several processes hold in parts are put together, by all of them
        at once.
        """
        self.synchronise()
        if not self._whole:
            return self.arrays
        distributed.agree(f"the state behind step {int(self.arrays[STEP])}")
        return self.arrays | joined(self.arrays, self._whole)

    def restore(self, arrays: Mapping[str, Array], source: str) -> None:
        """Take the values of a state; E0698 where it is another's, and then nothing has changed."""
        found = {name: type_text(array) for name, array in arrays.items()}
        expected = {
            name: type_text(mine, self._whole.get(name)) for name, mine in self.arrays.items()
        }
        wrong = [
            f"{name}: expected {type_}, found {found.get(name, 'none')}"
            for name, type_ in expected.items()
            if found.get(name) != type_
        ]
        wrong += [f"{name}: not part of this step" for name in arrays if name not in self.arrays]
        if wrong:
            raise Error(
                "E0698",
                f"{source} is of another network or optimizer",
                details=(*wrong[:8], *[f"... and {len(wrong) - 8} more"] * (len(wrong) > 8)),
            )
        for name, array in cut(arrays, self._whole).items():
            np.copyto(self.arrays[name], array)
        for name, tensor in self._tensors():
            if name in self.arrays:
                tensor.array = self.arrays[name]

    # ------------------------------------------------------------ states of programs

    def array(self, name: str) -> Array:
        """A state's array: the step's own, or as another module holds it now."""
        mine = self.arrays.get(name)
        return self._borrowed[name].tensor.array if mine is None else mine

    def set(self, name: str, value: Array) -> None:
        """Take a state's next value, where the program has not written it in place."""
        mine = self.array(name)
        if value is mine:
            return
        if name in self.arrays:
            np.copyto(mine, value)
        else:
            self._borrowed[name].assign(np.asarray(value))

    def inputs_of(self, traced: Traced) -> list[Array]:
        """The arrays of a program's state inputs; those it would change are copied."""
        self.synchronise()
        found = []
        for state in traced.states:
            array = self.arrays.get(self.name_of(state), state.tensor.array)
            found.append(np.array(array) if state.result >= 0 else array)
        return found

    def name_of(self, state: State) -> str:
        """What the step calls a state of a trace: its own by their names in the network, those of
        other modules "frozen/...": these are not trained and no part of the step's state; each
        step reads them as they are, batch statistics change.
        """
        if state.table is default_stream.table:
            return KEY if state.key == "key" else COUNTER
        known = self._called.get(id(state))
        if known is None:
            known = self._called[id(state)] = (state, self._new_name(state))
        return known[1]

    def _new_name(self, state: State) -> str:
        """The same for a state not seen before, by identity: a trace may call it otherwise."""
        for name, tensor in self._tensors():
            if tensor is state.tensor:
                if name not in self.arrays:
                    raise _changed(name)
                return name
        name = f"frozen/{state.name}"
        while name in self._borrowed and self._borrowed[name].tensor is not state.tensor:
            name += "_"
        self._borrowed[name] = state
        return name


def fresh_slots(settings: Settings, params: Mapping[str, Any]) -> dict[str, Array]:
    """The optimizer's slots of parameters, as a step begins."""
    with nn.no_grad():
        slots = settings.optimizer.init(params)
    return {f"slots/{n}": np.asarray(t.array) for n, t in slots.items()}


def fresh_counters(settings: Settings) -> dict[str, Array]:
    """Words drawn, steps done, factor on the rate, and the loss scale, as a step begins."""
    found: dict[str, Array] = {
        COUNTER: np.zeros(4, np.uint32), STEP: np.zeros((), np.int64), RATE: np.ones(()),
    }  # fmt: skip
    if settings.scales:
        found[SCALE] = np.asarray(settings.first_scale, np.float32)
        found[GOOD] = np.zeros((), np.int64)
    return found


def _changed(name: str) -> Error:
    """E0699 for a tensor that the network has got since the step was made."""
    kind, _, bare = name.partition("/")
    return Error(
        "E0699",
        f"the network's {kind.removesuffix('s')} '{bare}' is another than when the step was made",
        hint="change the network first, then make the step",
    )


def unique(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Named tensors, each once, under its first name."""
    seen: set[int] = set()
    found = {}
    for name, tensor in named:
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


__all__ = ["TrainState", "fresh_counters", "fresh_slots", "unique"]
