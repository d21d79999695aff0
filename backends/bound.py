"""An executable together with its state: a call passes what is new, the batch, and nothing else.

The arrays of the state are checked and their addresses taken once; every call changes them in
place.  A train step of hundreds of parameters costs as much Python as one of none.  May import: ir,
the files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.errors import Error
from ..ir.ops.loop import STATUS_OK
from .arrays import Array, address, aligned, empty, is_packed, pack, unpack
from .executable import Executable, Frame, _room, fit

_MOST_FRAMES = 32
"""Sets of batch shapes that are remembered."""


class Bound:
    """`bound(*batch)` runs the executable and gives the results that replace no state, in order.

    `state` names the arrays that live on: those given, or copies where they were not writable and
    dense.  One call at a time.  Errors: E0501 for states that are missing or unknown; those of
    `Executable.run` for the batch.
    """

    def __init__(self, exe: Executable, state: Mapping[str, Any]) -> None:
        program = exe.program
        self.exe = exe
        self._places = tuple([param for param, _ in program.state])
        self._open = tuple([k for k in range(len(program.inputs)) if k not in set(self._places)])
        names = [program.inputs[k][0] for k in self._places]
        _same_names(names, state)
        self._types = dict([program.inputs[k] for k in self._places])
        self._held = {n: self._hold(k, state[n]) for k, n in zip(self._places, names, strict=True)}
        self._shapes = {n: np.shape(state[n]) for n in names}
        self._frames: dict[Any, Frame] = {}
        self._frame: Frame | None = None
        self._checks: list[tuple[Any, tuple[int, ...]]] = []
        self._arena = aligned(1)
        self._packed = any([is_packed(program.inputs[k][1].dtype) for k in self._open])

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs of a call, in order."""
        return tuple([self.exe.names[k] for k in self._open])

    @property
    def state(self) -> dict[str, Array]:
        """The arrays as they are now; changed in place by the next call."""
        return {
            n: unpack(x, self._types[n].dtype, self._shapes[n])
            if is_packed(self._types[n].dtype)
            else x
            for n, x in self._held.items()
        }

    def run(self, batch: Mapping[str, Any] | Sequence[Any]) -> list[Array]:
        """As a call, on a dict by name or a sequence in order."""
        if isinstance(batch, Mapping):
            _same_names(self.names, batch)
            batch = [batch[n] for n in self.names]
        return self(*batch)

    def __call__(self, *batch: Any) -> list[Array]:
        """Run once."""
        frame = self._frame
        if frame is None or not self._fits(batch):
            frame, batch = self._prepared(batch)
        args = frame.args
        if self._packed:
            types = [self.exe.program.inputs[k][1].dtype for k in self._open]
            batch = tuple([pack(x, t) if is_packed(t) else x for x, t in zip(batch, types)])
        for k, x in zip(self._open, batch):
            args[k] = address(x)
        at = len(self.exe.names)
        outs = []
        for _, shape, dtype in frame.outputs:
            out = empty(shape, dtype.np) if frame.plain else _room(shape, dtype)
            args[at] = address(out)
            outs.append(out)
            at += 1
        status = self.exe._enter(frame)
        if status != STATUS_OK:
            raise self.exe._failed(status, frame)
        if frame.plain:
            return outs
        return [
            unpack(out, dtype, shape) if is_packed(dtype) else out
            for (_, shape, dtype), out in zip(frame.outputs, outs, strict=True)
        ]

    def _fits(self, batch: Sequence[Any]) -> bool:
        """Whether these are dense arrays of the types and shapes of the last call."""
        return len(batch) == len(self._checks) and fit(batch, self._checks)

    def _prepared(self, batch: Sequence[Any]) -> tuple[Frame, tuple[Any, ...]]:
        """The frame for a batch, and the batch as dense arrays."""
        if len(batch) != len(self._open):
            wanted = f"a call takes {', '.join(self.names) or 'nothing'}"
            said = f"{len(self._open)} inputs are needed, {len(batch)} given"
            raise Error("E0501", said, details=(wanted,))
        given = tuple([self.exe._accept(k, x) for k, x in zip(self._open, batch, strict=True)])
        key = tuple([x.shape for x in given])
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = self._frames[key] = self._new_frame(given)
        if self._arena.size < frame.needs:
            self._arena = aligned(frame.needs)
            for other in self._frames.values():
                other.take(self._arena)
        frame.take(self._arena)
        self._frame = frame
        self._checks = [frame.checks[k] for k in self._open]
        return frame, given

    def _new_frame(self, batch: Sequence[Array]) -> Frame:
        arrays: list[Any] = [None] * len(self.exe.names)
        names = [self.exe.names[k] for k in self._places]
        for k, name in zip(self._places, names, strict=True):
            arrays[k] = np.broadcast_to(np.empty((), np.uint8), self._shapes[name])
        for k, x in zip(self._open, batch, strict=True):
            arrays[k] = x
        shapes = [x.shape for x in arrays]
        weights = address(self.exe.weights)
        frame = Frame(self.exe.program, self.exe._bind(arrays), shapes, weights)
        for k, name in zip(self._places, names, strict=True):
            frame.args[k] = address(self._held[name])
        return frame

    def _hold(self, k: int, given: Any) -> Array:
        """The array that holds a state from now on."""
        name, type_ = self.exe.program.inputs[k]
        x = self.exe._accept(k, given)
        if is_packed(type_.dtype):
            return pack(x, type_.dtype)
        return x if x.flags.writeable else x.copy()


def _same_names(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """E0501 unless exactly these are given."""
    missing = [n for n in names if n not in given]
    unknown = [n for n in given if n not in names]
    if missing or unknown:
        said = [f"missing: {', '.join(missing)}"] * bool(missing)
        said += [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise Error("E0501", "missing state" if missing else "unknown state", details=said)


__all__ = ["Bound"]
