"""The loop people like to use: fit, evaluate, predict, save, and go on where one stopped.

`Trainer` drives a compiled `TrainStep` over a dataset; the step is there for a loop of one's own
(`trainer.step(batch)`).  May import: ir, frontends/nn, its siblings.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error
from .. import nn
from . import data, distributed
from .batches import as_batch, numbers
from .callbacks import Callback
from .checkpoint import load_checkpoint, save_checkpoint
from .metrics import Totals
from .nonfinite import NOWHERE, first_nonfinite
from .progress import Progress
from .step import TrainStep


@dataclass
class History:
    """What a fit logged: `history["val_accuracy"]` is one number per epoch."""

    epochs: dict[str, list[Any]] = field(default_factory=dict)
    stopped: str = ""
    """Why the fit ended early, if it did."""

    def __getitem__(self, name: str) -> list[Any]:
        return self.epochs[name]

    def add(self, logs: Mapping[str, Any]) -> None:
        """One epoch's values."""
        for name, value in logs.items():
            self.epochs.setdefault(name, []).append(value)


class Trainer:
    """A network, a loss, an optimizer and metrics, compiled into one step.

    `loss` is a name ("cross_entropy"), or a function (output, target) -> scalar; `metrics` names or
    `train.Metric`s.  `seed` decides dropout and everything else that is drawn.  The other arguments
    are those of `TrainStep`: precision, accumulate, loss_scale, activation_memory, shard_optimizer,
    threads, target.  Of several processes (`irc launch -n 4 train.py`) each takes its rows of every
    batch; rank 0 alone prints and writes.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        loss: Any = None,
        optimizer: Any = "adam",
        metrics: Sequence[Any] = (),
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> None:
        self.net = net
        self.step = TrainStep(
            net, loss=loss, optimizer=optimizer, metrics=metrics, seed=seed, **options
        )
        self.seed = seed
        self.callbacks = list(callbacks)
        self.history = History()
        self.epoch = 0
        self.position = 0
        self.steps_per_epoch: int | None = None
        self._sums: dict[str, float] = {}
        self._logs: dict[str, float] = {}
        self._totals = Totals(self.step.metrics)
        self._stop = ""
        self._pending: list[dict[str, Any]] | None = None

    def __repr__(self) -> str:
        return f"<Trainer of {self.step!r}, epoch {self.epoch}>"

    # ------------------------------------------------------------ training

    def fit(
        self,
        dataset: Any,
        epochs: int = 1,
        validation: Any = None,
        callbacks: Sequence[Callback] = (),
        batch_size: int = 32,
        steps_per_epoch: int | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train until `epochs` epochs are done, those before a `load` included.

        `dataset` gives batches (x, y): an `irc.data` dataset, any iterable that can be repeated, or
        a tuple of arrays, which is shuffled and cut into batches of `batch_size`.  `progress`:
        True and False force the moving line on and everything off.  Errors: E0665 empty dataset,
        E0697 the loss is no number any more, naming the op.
        """
        if not isinstance(epochs, (int, np.integer)):
            raise Error(
                "E0689",
                f"epochs is a number, found {type(epochs).__name__}",
                hint="the data is one argument: fit((X, y), epochs=...)",
            )
        if 0 < epochs <= self.epoch:
            warnings.warn(
                f"fit(epochs={epochs}) trains nothing: {self.epoch} are done, and they count",
                stacklevel=2,
            )
        batches = self._dataset(dataset, batch_size, shuffled=True)
        watchers = [*self.callbacks, *callbacks]
        if progress is not False and distributed.rank() == 0:
            watchers.append(Progress(epochs, progress))
        watchers.sort(key=lambda w: w.last)
        self.steps_per_epoch = steps_per_epoch or _length(batches)
        self._stop = ""
        self._begin(watchers)
        try:
            while self.epoch < epochs and not self._stop:
                self._epoch(batches, validation, batch_size, watchers, steps_per_epoch)
        finally:
            for watcher in watchers:
                watcher.fit_ends()
        self.history.stopped = self._stop
        return self.history

    def stop(self, reason: str) -> None:
        """End the fit after this epoch (callbacks call it)."""
        self._stop = reason

    def _begin(self, watchers: Sequence[Callback]) -> None:
        """Tell the callbacks who they work for and, after a `load`, where they were."""
        left, self._pending = list(self._pending or []), None
        self._watchers = [w for w in watchers if not isinstance(w, Progress)]
        for watcher in watchers:
            watcher.trainer = self
            named = [k for k, s in enumerate(left) if s["class"] == type(watcher).__name__]
            if named:
                watcher.restore(left.pop(named[0])["state"])
        for watcher in watchers:
            watcher.fit_begins()

    def _epoch(
        self,
        batches: Any,
        validation: Any,
        batch_size: int,
        watchers: Sequence[Callback],
        most: int | None,
    ) -> None:
        """One epoch from the position reached in it, and its validation."""
        for watcher in watchers:
            watcher.epoch_begins(self.epoch)
        for batch in self._batches(batches):
            self._logs = self._one_step(batch)
            for watcher in watchers:
                watcher.step_ends(self.step.count, self._logs)
            if most is not None and self.position >= most:
                break
        if not self.position:
            once = self.epoch and iter(batches) is batches
            raise Error(
                "E0665",
                "the dataset is empty",
                details=(f"epoch {self.epoch + 1}, found {batches!r}"[:200],),
                hint="an iterator runs once: data.generator(function) starts anew"
                if once
                else None,
            )
        done = self._means() | distributed.together(self._totals).values()
        done["lr"] = self._logs["lr"]
        self.epoch, self.position = self.epoch + 1, 0
        self._sums, self._totals = {}, Totals(self.step.metrics)
        if validation is not None:
            found = self.evaluate(validation, batch_size)
            done |= {f"val_{name}": value for name, value in found.items()}
        self.history.add(done)
        for watcher in watchers:
            watcher.epoch_ends(self.epoch - 1, done)

    def _one_step(self, batch: Any) -> dict[str, float]:
        """One step; the epoch's sums and totals grow."""
        result = self.step(batch)
        loss = float(result.logs["loss"])
        if not math.isfinite(loss) and not self.step.scales:
            raise self._diverged(batch, loss)
        self._totals.add(result.partials)
        self._sums["count"] = self._sums.get("count", 0.0) + result.rows
        self._sums["loss"] = self._sums.get("loss", 0.0) + loss * result.rows
        self.position += 1
        return {name: float(value) for name, value in result.logs.items()}

    def _means(self) -> dict[str, float]:
        return {"loss": self._sums["loss"] / self._sums["count"]} if self._sums else {}

    def _diverged(self, batch: Any, loss: float) -> Error:
        """E0697 for a loss that is no number: the first op whose result is not finite."""
        with distributed.alone():
            found = first_nonfinite(self.step, batch)
        every = distributed.exchanged(found)
        where, details = next((f for f in every if f[0] != NOWHERE), found)
        return Error(
            "E0697",
            f"the loss is {loss} at step {self.step.count} (epoch {self.epoch + 1})",
            where=where,
            details=details,
            hint="the parameters are those before this step; lower the rate, clip the gradients, "
            "or look at the inputs",
        )

    # ------------------------------------------------------------ data

    def _dataset(self, dataset: Any, batch_size: int, shuffled: bool) -> Any:
        """Arrays as a dataset of batches; anything else as it is."""
        arrays = tuple(
            [numbers(a) for a in (dataset if isinstance(dataset, tuple) else (dataset,))]
        )
        if all(nn.trees.is_leaf(a) and hasattr(a, "shape") for a in arrays):
            made = data.arrays(*[np.asarray(a) for a in arrays])
            made = made.shuffle(seed=self.seed) if shuffled else made
            return distributed.divided(made.batch(batch_size))
        if not isinstance(dataset, Iterable):
            raise Error(
                "E0689",
                f"a {type(dataset).__name__} is no dataset",
                hint="an irc.data dataset, an iterable of batches, or a tuple of arrays",
            )
        if isinstance(dataset, data.Dataset) and not dataset.batched:
            raise Error(
                "E0689", "the dataset gives single samples", hint="put .batch(64) at its end"
            )
        return distributed.divided(dataset)

    def _batches(self, batches: Any) -> Iterator[Any]:
        """The batches of this epoch that are still to come."""
        if isinstance(batches, data.Dataset):
            stream: Iterator[Any] = batches.iterate(self.epoch, self.position)
        else:
            stream = iter(batches)
            for _ in range(self.position):
                next(stream, None)
        return distributed.own_batches(batches, stream, self.position)

    # ------------------------------------------------------------ use

    def evaluate(self, dataset: Any, batch_size: int = 256) -> dict[str, Any]:
        """The loss and the metrics over a dataset, in evaluation mode."""
        totals, loss, rows = Totals(self.step.metrics), 0.0, 0
        batches = self._dataset(dataset, batch_size, shuffled=False)
        stream = batches.iterate(0) if isinstance(batches, data.Dataset) else iter(batches)
        for batch in distributed.own_batches(batches, stream, 0):
            result = self.step.evaluate(batch)
            totals.add(result.partials)
            loss += float(result.logs["loss"]) * result.rows
            rows += result.rows
        loss, counted = distributed.summed([loss, rows])
        if not counted:
            raise Error("E0665", "the dataset is empty", details=(f"found {batches!r}"[:200],))
        return {"loss": loss / counted, **distributed.together(totals).values()}

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """The outputs for an array of samples, or for each batch of a dataset, put together."""
        with distributed.alone():
            batches = self._dataset(x, batch_size, shuffled=False)
        stream = batches.iterate(0) if isinstance(batches, data.Dataset) else batches
        count = self.step.inputs
        found = [self.step.predict(as_batch(batch)[:count]) for batch in stream]
        if not found:
            raise Error("E0665", "there is nothing to predict: the dataset is empty")
        return _joined(found)

    def averaged(self) -> AbstractContextManager[None]:
        """`with t.averaged():` the network has the moving averages that the optimizer keeps (its
        `ema`), to evaluate, predict, save or export; behind it the parameters are there again.
        """
        return self.step.state.averaged()

    def summary(self, x: Any = None) -> nn.Summary:
        """Layers, shapes, parameters, operations and memory for a batch like `x` (arrays, or
        `nn.Spec`s; a tuple of several inputs); without it those of the network's first call serve.
        """
        return nn.summary(self.net, inputs=x)

    # ------------------------------------------------------------ keeping

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: everything that is needed to go on to the bit, in any number of
        processes (all of which call this, and rank 0 writes).
        """
        kept, held = self._remembered()
        meta = {
            "epoch": self.epoch,
            "position": self.position,
            "sums": self._sums,
            "logs": self._logs,
            "history": {n: [_plain(v) for v in vs] for n, vs in self.history.epochs.items()},
            "callbacks": kept,
        }
        arrays = {**self.step.arrays(), **held}
        for (k, name), parts in distributed.together(self._totals).parts.items():
            for n, part in enumerate(parts):
                arrays[f"totals/{k}/{name}/{n}"] = part
        distributed.by_root(lambda: save_checkpoint(path, arrays, meta, self.step.graph()))

    def _remembered(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """The callbacks' states (after a `load` and before a fit: those loaded), and their arrays
        apart.
        """
        watchers = getattr(self, "_watchers", self.callbacks)
        states = self._pending
        if states is None:
            states = [{"class": type(w).__name__, "state": w.state()} for w in watchers]
        plain: list[dict[str, Any]] = []
        arrays: dict[str, Array] = {}
        for k, saved in enumerate(states):
            parts = {n: v for n, v in saved["state"].items() if isinstance(v, np.ndarray)}
            arrays |= {f"callbacks/{k}/{n}": a for n, a in parts.items()}
            rest = {n: v for n, v in saved["state"].items() if n not in parts}
            plain.append({"class": saved["class"], "state": rest})
        return plain, arrays

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: the next `fit` continues where it was saved, to the bit.

        Raises E0695, E0696 for one that is missing or damaged, E0698 for one of another network or
        optimizer; then nothing has changed.
        """
        arrays, meta = distributed.by_root(lambda: load_checkpoint(path))
        totals = {n: arrays.pop(n) for n in list(arrays) if n.startswith("totals/")}
        held = {n: arrays.pop(n) for n in list(arrays) if n.startswith("callbacks/")}
        self.step.restore(arrays, str(path))
        self.epoch, self.position = int(meta["epoch"]), int(meta["position"])
        self._sums, self._logs = dict(meta["sums"]), dict(meta["logs"])
        self._totals = Totals(self.step.metrics)
        if distributed.rank() > 0:
            totals = {}  # they are summed over processes
        for name in sorted(totals, key=lambda n: (n.rpartition("/")[0], int(n.rsplit("/", 1)[1]))):
            _, k, part, _ = name.split("/")
            self._totals.parts.setdefault((int(k), part), []).append(totals[name])
        self.history = History({n: list(v) for n, v in meta["history"].items()})
        self._pending = list(meta["callbacks"])
        for name, array in held.items():
            _, at, part = name.split("/", 2)
            self._pending[int(at)]["state"][part] = array

    def export_step(self, path: str | os.PathLike[str], target: str = "c", **options: Any) -> None:
        """Write the train step as a package that trains on a device; see deploy/train_step."""
        self.step.export(path, target, **options)


def _length(batches: Any) -> int | None:
    size = getattr(batches, "size", None)
    if size is not None or isinstance(batches, data.Dataset):
        return None if size is None else int(size)
    return len(batches) if hasattr(batches, "__len__") else None


def _plain(value: Any) -> Any:
    """A logged value as JSON takes it."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _joined(found: Sequence[Any]) -> Any:
    """Outputs of batches as one: arrays side by side, tuples and dicts part by part."""
    first = found[0]
    if isinstance(first, tuple):
        return tuple([_joined([f[k] for f in found]) for k in range(len(first))])
    if isinstance(first, dict):
        return {name: _joined([f[name] for f in found]) for name in first}
    arrays: list[Array] = [np.asarray(f) for f in found]
    return np.concatenate(arrays) if arrays[0].ndim else np.asarray(arrays)


__all__ = ["History", "Trainer"]
