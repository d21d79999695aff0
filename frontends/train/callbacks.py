"""What may happen besides training: early stopping, checkpoints, logs, a rate that waits.

A callback's methods are called by `Trainer.fit` in the order that it was given, those of `last`
ones behind the others'; `logs` maps names to numbers.  What a callback must remember to go on after
a resume it gives by `state` and takes by `restore`.  May import: ir, its siblings.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...ir.errors import Error
from .distributed import rank

if TYPE_CHECKING:
    from .trainer import Trainer

Logs = Mapping[str, Any]


class Callback:
    """The base; override what is needed.  `self.trainer` is set before the first call."""

    trainer: Trainer
    last: ClassVar[bool] = False
    """Called behind the callbacks that are not: it saves what they remember."""

    def fit_begins(self) -> None:
        """Before the first step of a fit."""

    def epoch_begins(self, epoch: int) -> None:
        """Before the first step of an epoch (counted from 0)."""

    def step_ends(self, step: int, logs: Logs) -> None:
        """After each step; `logs` has loss and rate."""

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation (`val_loss`, `val_accuracy`, ...)."""

    def fit_ends(self) -> None:
        """After the last step, and where the fit is interrupted."""

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint: values as JSON has them, and arrays, by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class Watch(Callback):
    """A callback that compares one of the logs with its best value so far.

    `monitor` defaults to val_loss where there is validation, else loss; `mode` "min" or "max" is
    guessed from the name (losses and errors fall, the rest rises).
    """

    def __init__(
        self, monitor: str | None = None, mode: str | None = None, least_change: float = 0.0
    ) -> None:
        if mode not in (None, "min", "max"):
            raise Error("E0693", f"no mode '{mode}'", hint="min or max")
        self.monitor, self.mode, self.least_change = monitor, mode, least_change
        self.best = math.nan

    def watched(self, logs: Logs) -> tuple[str, float]:
        """The name and value that this callback looks at; E0693 where the logs lack it."""
        name = self.monitor or ("val_loss" if "val_loss" in logs else "loss")
        if name not in logs:
            raise Error(
                "E0693",
                f"{type(self).__name__} watches '{name}', which is not logged",
                details=("logged: " + ", ".join(logs),),
                hint="validation values begin with val_",
            )
        return name, float(logs[name])

    def improves(self, logs: Logs) -> bool:
        """Whether the value is better than the best so far, which it then becomes."""
        name, value = self.watched(logs)
        falls = self.mode == "min" if self.mode else _falls(name)
        gain = self.best - value if falls else value - self.best
        if math.isnan(self.best) and not math.isnan(value) or gain > self.least_change:
            self.best = value
            return True
        return False

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best = float(state["best"])


def _falls(name: str) -> bool:
    return any(part in name for part in ("loss", "mae", "mse", "error"))


_KEPT = "kept/"


class EarlyStopping(Watch):
    """Ends the fit after `patience` epochs without a better value.

    With `restore_best` the parameters of the best epoch come back at the end.
    """

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 5,
        mode: str | None = None,
        least_change: float = 0.0,
        restore_best: bool = False,
    ) -> None:
        super().__init__(monitor, mode, least_change)
        self.patience, self.restore_best = patience, restore_best
        self.waited = 0
        self.kept: dict[str, Any] | None = None
        self.resumed = False

    def fit_begins(self) -> None:
        if self.resumed and self.waited >= max(1, self.patience):  # it was saved as it stopped
            self.trainer.stop(f"no better value in {self.waited} epochs")
        self.resumed = False

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        if self.improves(logs):
            self.waited = 0
            if self.restore_best:
                self.kept = {n: np.array(a) for n, a in self.trainer.net.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.trainer.stop(f"no better {self.watched(logs)[0]} in {self.waited} epochs")

    def fit_ends(self) -> None:
        if self.kept is not None:
            self.trainer.net.load_state_dict(self.kept)

    def state(self) -> dict[str, Any]:
        kept = {f"{_KEPT}{n}": a for n, a in (self.kept or {}).items()}
        return super().state() | {"waited": self.waited} | kept

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.waited, self.resumed = int(state["waited"]), True
        kept = {n.removeprefix(_KEPT): a for n, a in state.items() if n.startswith(_KEPT)}
        self.kept = kept or None


class Checkpoint(Watch):
    """Saves the trainer to `folder/last` after each epoch (and every `steps` steps), and to
    `folder/best` where the watched value is better.
    """

    last = True

    def __init__(
        self,
        folder: str | Path,
        monitor: str | None = None,
        mode: str | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.folder, self.steps = Path(folder), steps

    def step_ends(self, step: int, logs: Logs) -> None:
        if self.steps and step % self.steps == 0:
            self.trainer.save(self.folder / "last")

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        better = self.improves(logs)
        self.trainer.save(self.folder / "last")
        if better:
            self.trainer.save(self.folder / "best")


class Plateau(Watch):
    """Scales the rate by `factor` after `patience` epochs without a better value.

    The scale is a part of the train state; the schedule goes on beneath it.
    """

    def __init__(
        self,
        monitor: str | None = None,
        factor: float = 0.1,
        patience: int = 10,
        mode: str | None = None,
        least_change: float = 1e-4,
        least_scale: float = 0.0,
        cooldown: int = 0,
    ) -> None:
        super().__init__(monitor, mode, least_change)
        self.factor, self.patience = factor, patience
        self.least_scale, self.cooldown = least_scale, cooldown
        self.waited = self.resting = 0

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        self.waited = 0 if self.improves(logs) else self.waited + 1
        if self.resting > 0:
            self.waited, self.resting = 0, self.resting - 1
        if self.waited > self.patience:
            step = self.trainer.step
            step.rate = max(step.rate * self.factor, self.least_scale)
            self.waited, self.resting = 0, self.cooldown

    def state(self) -> dict[str, Any]:
        return super().state() | {"waited": self.waited, "resting": self.resting}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.waited, self.resting = int(state["waited"]), int(state["resting"])


class CSVLog(Callback):
    """One row per epoch in a CSV file; a resumed fit goes on behind the rows that are there.

    Of several processes rank 0 writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.fields: list[str] | None = None

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        if rank():
            return
        row = {"epoch": epoch} | {n: v for n, v in logs.items() if np.ndim(v) == 0}
        resumed = self.fields is None and epoch > 0 and self.path.is_file()
        if resumed:
            with self.path.open(newline="", encoding="utf-8") as file:
                self.fields = next(csv.reader(file), None)
        fresh = self.fields is None
        self.fields = self.fields or list(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w" if fresh else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.fields, extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow(row)


class TensorBoard(Callback):
    """Loss, rate and metrics as TensorBoard event files in `folder` (extra: tensorboardX).

    Of several processes rank 0 writes.
    """

    def __init__(self, folder: str | Path, every: int = 10) -> None:
        self.folder, self.every = Path(folder), every
        self.writer: Any = None

    def fit_begins(self) -> None:
        if rank():
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise Error(
                "E0679",
                "TensorBoard logs need the package tensorboardX",
                hint="pip install 'tensor-irc[tensorboard]'",
                exit_code=7,
            ) from None
        self.writer = SummaryWriter(str(self.folder))

    def step_ends(self, step: int, logs: Logs) -> None:
        if step % self.every == 0:
            self._write(logs, step, "step/")

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        self._write(logs, epoch, "epoch/")

    def _write(self, logs: Logs, at: int, prefix: str) -> None:
        for name, value in logs.items() if self.writer is not None else ():
            if np.ndim(value) == 0:
                self.writer.add_scalar(prefix + name, float(value), at)

    def fit_ends(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


__all__ = [
    "CSVLog", "Callback", "Checkpoint", "EarlyStopping", "Plateau", "TensorBoard", "Watch",
]  # fmt: skip
