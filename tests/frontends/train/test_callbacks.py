"""Callbacks that wait: what they decide, and that a resumed fit decides it at the same epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import data, nn, optim, train
from irc.ir.errors import Error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
FALLS = (1.0, 0.8, 0.6, 0.7, 0.65, 0.62, 0.61, 0.6, 0.5)
"""A loss that stays above its best, that of the third epoch, for a while."""


class Said(train.Callback):
    """Puts given numbers into the logs as val_loss, so that what is decided is known; remembers
    the parameters of each epoch.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values, self.seen = values, list[bytes]()

    def epoch_ends(self, epoch: int, logs: Any) -> None:
        logs["val_loss"] = self.values[epoch]
        self.seen.append(self.trainer.net.weight.numpy().tobytes())


class Cut(train.Callback):
    """Ends the fit as a signal would, behind so many steps of this run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step_ends(self, step: int, logs: Any) -> None:
        self.steps -= 1
        if not self.steps:
            raise KeyboardInterrupt


def trainer(seed: int = 0) -> train.Trainer:
    nn.manual_seed(seed)
    return train.Trainer(
        nn.Linear(4, 2), loss="cross_entropy", optimizer=optim.SGD(0.1), seed=seed,
        target="reference",
    )  # fmt: skip


def fit(t: train.Trainer, callbacks: Sequence[Any], epochs: int = 9) -> train.History:
    batches = data.arrays(X, Y).shuffle(seed=0).batch(12)  # two steps an epoch
    return t.fit(batches, epochs=epochs, callbacks=[Said(FALLS), *callbacks], progress=False)


def stopping(**options: Any) -> train.EarlyStopping:
    return train.EarlyStopping("val_loss", patience=3, **options)


def weights(t: train.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in t.step.arrays().items()}


def resumed(
    make: Callable[[], list[Any]], steps: int, folder: Path
) -> tuple[train.Trainer, train.History]:
    """A fit that was cut after so many steps and went on from the last checkpoint."""
    first = trainer()
    with pytest.raises(KeyboardInterrupt):
        # the checkpoint is named first, and yet keeps what the others have decided
        fit(first, [train.Checkpoint(folder, "val_loss"), *make(), Cut(steps)])
    second = trainer(5)
    second.load(folder / "last")
    assert second.epoch == (steps - 1) // 2
    return second, fit(second, make())


@pytest.mark.parametrize("restore_best", [False, True])
@pytest.mark.parametrize("steps", [3, 7, 9, 11])
def test_early_stopping_stops_at_the_same_epoch(
    steps: int, restore_best: bool, tmp_path: Path
) -> None:
    def make() -> list[Any]:
        return [stopping(restore_best=restore_best)]

    whole = trainer()
    h = fit(whole, make())
    assert len(h["loss"]) == 6 and "val_loss" in h.stopped  # 0.6, then three above it
    again, found = resumed(make, steps, tmp_path)
    assert found.epochs == h.epochs and found.stopped == h.stopped
    assert weights(again) == weights(whole)


def test_a_fit_saved_as_it_stopped_does_not_go_on(tmp_path: Path) -> None:
    whole, saved = trainer(), train.Checkpoint(tmp_path, "val_loss")
    fit(whole, [saved, stopping(restore_best=True)])
    again = trainer(5)
    again.load(tmp_path / "last")
    h = fit(again, [saved, stopping(restore_best=True)])
    assert again.epoch == 6 and len(h["loss"]) == 6 and "no better" in h.stopped
    assert weights(again) == weights(whole)
    patient = trainer(5)
    patient.load(tmp_path / "last")
    fit(patient, [train.EarlyStopping("val_loss", patience=9)])  # more patience goes on
    assert patient.epoch == 9


def test_the_best_parameters_outlive_the_resume(tmp_path: Path) -> None:
    said, t = Said(FALLS), trainer()
    batches = data.arrays(X, Y).shuffle(seed=0).batch(12)
    t.fit(batches, epochs=5, callbacks=[said], progress=False)
    again, _ = resumed(lambda: [stopping(restore_best=True)], 9, tmp_path)
    assert again.net.weight.numpy().tobytes() == said.seen[2]  # those of the third epoch


@pytest.mark.parametrize("steps", [5, 9, 11, 15])
def test_a_plateau_lowers_the_rate_at_the_same_epoch(steps: int, tmp_path: Path) -> None:
    def make() -> list[Any]:
        return [train.Plateau("val_loss", factor=0.5, patience=1, cooldown=1, least_change=0.0)]

    whole = trainer()
    h = fit(whole, make())
    assert [round(r, 6) for r in h["lr"]] == [0.1] * 5 + [0.05] * 3 + [0.025]
    again, found = resumed(make, steps, tmp_path)
    assert found.epochs == h.epochs and again.step.rate == whole.step.rate == 0.25
    assert weights(again) == weights(whole)


@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("patience", [0, 2])
def test_a_plateau_is_that_of_torch(patience: int, cooldown: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    values = np.round(RNG.random(40), 2).tolist()
    other = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        other, factor=0.5, patience=patience, cooldown=cooldown, threshold=0.05,
        threshold_mode="abs", min_lr=0.01,
    )  # fmt: skip
    ours = train.Plateau("val_loss", 0.5, patience, None, 0.05, 0.01, cooldown)
    ours.trainer = trainer()
    for epoch, value in enumerate(values):
        theirs.step(value)
        ours.epoch_ends(epoch, {"val_loss": value})
        assert ours.trainer.step.rate == pytest.approx(other.param_groups[0]["lr"]), epoch
    assert ours.trainer.step.rate < 0.3


def test_a_checkpoint_of_what_was_loaded_keeps_all_of_it(tmp_path: Path) -> None:
    first = trainer()
    fit(first, [stopping(restore_best=True)], epochs=5)
    first.save(tmp_path / "a")
    second = trainer(5)
    second.load(tmp_path / "a")
    second.save(tmp_path / "b")
    metas = [train.load_checkpoint(tmp_path / n)[1] for n in "ab"]
    assert metas[0]["callbacks"] == metas[1]["callbacks"]
    third = trainer(6)
    third.load(tmp_path / "b")
    best = stopping(restore_best=True)
    fit(third, [best], epochs=5)
    assert (best.best, best.waited) == (0.6, 2) and best.kept is not None


def test_states_find_their_callbacks_by_class(tmp_path: Path) -> None:
    first = trainer()
    fit(first, [stopping(), train.Plateau("val_loss", patience=7)], epochs=5)
    first.save(tmp_path / "a")
    second = trainer(5)
    second.load(tmp_path / "a")
    plateau, stopper = train.Plateau("val_loss", patience=7), stopping()
    fit(second, [plateau, stopper], epochs=5)
    assert stopper.waited == plateau.waited == 2 and stopper.best == plateau.best == 0.6


def test_what_is_better() -> None:
    rises, falls = train.EarlyStopping("val_accuracy"), train.EarlyStopping("val_mae")
    for watch, values, expected in (
        (rises, (0.5, 0.6, 0.6, 0.4), (True, True, False, False)),
        (falls, (0.5, 0.6, 0.5, 0.4), (True, False, False, True)),
    ):
        name = watch.monitor or ""
        assert tuple([watch.improves({name: v}) for v in values]) == expected
    small = train.EarlyStopping("x", mode="max", least_change=0.1)
    assert [small.improves({"x": v}) for v in (1.0, 1.05, 1.2, float("nan"))] == [
        True, False, True, False,
    ]  # fmt: skip
    lost = train.EarlyStopping("loss")
    assert [lost.improves({"loss": v}) for v in (float("nan"), 2.0)] == [False, True]
    with pytest.raises(Error, match="not logged"):
        train.EarlyStopping("val_f1").improves({"loss": 1.0})
    with pytest.raises(Error, match="no mode"):
        train.EarlyStopping(mode="least")
