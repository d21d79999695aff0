"""The loop: fit, evaluate, predict, callbacks, and going on to the bit."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import data, nn, optim, train
from irc.ir.errors import Error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 6)).astype("f")
Y = (X[:, :3].sum(1) > 0).astype(np.int64) + (X[:, 3] > 0)


def trainer(seed: int = 0, **options: Any) -> train.Trainer:
    nn.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    )
    options = {"optimizer": optim.AdamW(optim.cosine(2e-2, 60)), "target": "reference"} | options
    return train.Trainer(net, loss="cross_entropy", metrics=["accuracy"], seed=seed, **options)


def batches() -> Any:
    return data.arrays(X, Y).shuffle(seed=0).batch(32)


def state_of(t: train.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in t.step.arrays().items()}


def test_it_learns_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    t = trainer()
    h = t.fit(batches(), epochs=12, validation=(X, Y))
    assert h["loss"][-1] < 0.7 * h["loss"][0] and h["val_accuracy"][-1] > 0.75
    assert len(h["lr"]) == 12 and h["lr"][0] > h["lr"][-1]
    found = t.evaluate(data.arrays(X, Y).batch(40))
    assert found["accuracy"] == pytest.approx(h["val_accuracy"][-1])
    assert found["loss"] == pytest.approx(h["val_loss"][-1], rel=1e-5)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("epoch ") == 12 and "val_loss" in said.err


def test_prediction_does_not_depend_on_the_batches() -> None:
    t = trainer()
    t.fit(batches(), epochs=1, progress=False)
    whole = t.predict(X)
    assert whole.shape == (90, 3)
    np.testing.assert_allclose(t.predict(X, batch_size=7), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(t.predict(data.arrays(X).batch(50)), whole, rtol=1e-5, atol=1e-6)


def test_arrays_and_plain_iterables_are_datasets() -> None:
    one, two = trainer(), trainer()
    one.fit((X, Y), epochs=2, batch_size=32, progress=False)
    assert one.step.count == 6
    two.fit([(X[:40], Y[:40]), (X[40:], Y[40:])], epochs=2, progress=False)
    assert two.step.count == 4


def test_averages_stand_in_for_the_parameters() -> None:
    t = trainer(optimizer=optim.SGD(0.5, ema=0.9))
    t.fit(batches(), epochs=2, progress=False)
    weight = t.net[0].weight
    own, said = weight.numpy().copy(), t.predict(X[:4])
    with t.averaged():
        np.testing.assert_array_equal(weight.numpy(), t.step.arrays()["slots/0.weight/ema"])
        assert (t.predict(X[:4]) != said).any()
    np.testing.assert_array_equal(weight.numpy(), own)
    with pytest.raises(Error, match="keeps no averages"), trainer().averaged():
        pass


def test_summary() -> None:
    said = str(trainer().summary(X[:5]))
    assert "Linear 6->16" in said and "parameters: 195" in said and "f32[5, 3]" in said


def test_several_inputs_and_one_field_alone() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, a: Any, b: Any) -> Any:
            return self.head(nn.concatenate([a, b], 1))

    t = train.Trainer(Two(), loss="cross_entropy", target="reference")
    t.fit((X[:, :2], X[:, 2:], Y), epochs=1, progress=False)
    assert t.predict((X[:, :2], X[:, 2:])).shape == (90, 3)
    assert t.predict(data.arrays(X[:, :2], X[:, 2:], Y).batch(50)).shape == (90, 3)
    same = train.Trainer(nn.Linear(6, 6), loss="mse", target="reference")
    assert same.fit(X, epochs=2, progress=False)["loss"][1] > 0
    assert same.predict(X).shape == (90, 6)


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_resumed_equals_uninterrupted_to_the_bit(stop: int, tmp_path: Path) -> None:
    whole = trainer()
    whole.fit(batches(), epochs=4, validation=(X, Y), progress=False)

    class Cut(train.Callback):
        def step_ends(self, step: int, logs: Any) -> None:
            if step == stop:
                self.trainer.save(tmp_path / "c")
                raise KeyboardInterrupt

    first = trainer()
    with pytest.raises(KeyboardInterrupt):
        first.fit(batches(), epochs=4, validation=(X, Y), callbacks=[Cut()], progress=False)
    second = trainer(seed=5)  # everything comes from the checkpoint
    second.load(tmp_path / "c")
    second.fit(batches(), epochs=4, validation=(X, Y), progress=False)
    assert state_of(second) == state_of(whole)
    assert second.history.epochs == whole.history.epochs


CHILD = """
import sys, time
sys.path.insert(0, {folder!r})
import importlib.util
spec = importlib.util.spec_from_file_location("case", {file!r})
case = importlib.util.module_from_spec(spec); spec.loader.exec_module(case)
from irc import train
t = case.trainer()
class Slow(train.Callback):
    def step_ends(self, step, logs):
        print(step, flush=True); time.sleep(0.05)
t.fit(case.batches(), epochs=4, progress=False,
      callbacks=[train.Checkpoint({goal!r}, monitor="loss", steps=1), Slow()])
"""


@pytest.mark.parametrize("after", [2, 5])
def test_killed_and_resumed_equals_uninterrupted(after: int, tmp_path: Path) -> None:
    text = CHILD.format(folder=str(tmp_path), file=__file__, goal=str(tmp_path / "c"))
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != str(after):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    whole = trainer()
    whole.fit(batches(), epochs=4, progress=False)
    resumed = trainer(seed=9)
    resumed.load(tmp_path / "c" / "last")
    assert 0 < resumed.step.count < 12
    resumed.fit(batches(), epochs=4, progress=False)
    assert state_of(resumed) == state_of(whole)


def test_two_runs_of_one_seed_are_equal_to_the_bit() -> None:
    runs = [trainer(target="cpu", threads=2) for _ in range(2)]
    for t in runs:
        t.fit(batches(), epochs=2, progress=False)
    assert state_of(runs[0]) == state_of(runs[1])
    other = trainer(seed=1, target="cpu", threads=2)
    other.fit(batches(), epochs=2, progress=False)
    assert state_of(other) != state_of(runs[0])


def test_early_stopping_gives_the_best_back() -> None:
    stopper = train.EarlyStopping("val_loss", patience=2, restore_best=True)
    t = trainer(optimizer=optim.SGD(0.0))
    h = t.fit(batches(), epochs=20, validation=(X, Y), callbacks=[stopper], progress=False)
    assert len(h["loss"]) < 20 and "val_loss" in h.stopped
    best = {n: np.array(a) for n, a in (stopper.kept or {}).items()}
    for name, array in t.net.state_dict().items():
        np.testing.assert_array_equal(np.asarray(array), best[name])


def test_plateau_lowers_the_rate() -> None:
    t = trainer(optimizer=optim.SGD(0.0))
    plateau = train.Plateau("loss", factor=0.5, patience=1, least_change=10.0)
    t.fit(batches(), epochs=5, callbacks=[plateau], progress=False)
    assert t.step.rate == 0.25


def test_csv_log_goes_on_behind_its_rows(tmp_path: Path) -> None:
    t, log = trainer(), tmp_path / "log.csv"
    t.fit(batches(), epochs=2, callbacks=[train.CSVLog(log)], progress=False)
    t.save(tmp_path / "c")
    again = trainer()
    again.load(tmp_path / "c")
    again.fit(batches(), epochs=3, callbacks=[train.CSVLog(log)], progress=False)
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert [r["epoch"] for r in rows] == ["0", "1", "2"] and float(rows[2]["loss"]) > 0


def test_tensorboard_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    trainer().fit(batches(), epochs=1, callbacks=[train.TensorBoard(tmp_path)], progress=False)
    (events,) = tmp_path.glob("events*")
    assert b"epoch/accuracy" in events.read_bytes()


def test_checkpoints_best_and_last(tmp_path: Path) -> None:
    t = trainer()
    t.fit(
        batches(),
        epochs=3,
        validation=(X, Y),
        callbacks=[train.Checkpoint(tmp_path)],
        progress=False,
    )
    fresh = trainer(seed=4)
    fresh.load(tmp_path / "last")
    assert state_of(fresh) == state_of(t) and (tmp_path / "best" / "meta.json").is_file()


def test_a_loss_that_is_no_number_names_the_op() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            return self.head(nn.log(x * x - 100.0))  # the log of a negative number

    t = train.Trainer(Net(), loss="cross_entropy", optimizer="sgd", target="reference")
    with pytest.raises(Error) as caught:
        t.fit(batches(), progress=False)
    said = str(caught.value)
    assert caught.value.code == "E0697" and "op 'log'" in said and "test_trainer.py" in said


def test_a_parameter_that_is_no_number_is_named() -> None:
    t = trainer()
    next(iter(t.net.parameters())).assign(np.full((16, 6), np.nan))
    with pytest.raises(Error, match="params/0.weight"):
        t.fit(batches(), progress=False)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: trainer().fit([], progress=False), "the dataset is empty"),
        (lambda: trainer().fit(3), "is no dataset"),
        (lambda: trainer().fit(data.arrays(X, Y)), r"\.batch\(64\)"),
        (lambda: trainer().evaluate([]), "the dataset is empty"),
        (lambda: trainer().load("nowhere"), "there is no checkpoint"),
        (lambda: trainer().fit(np.ones((4, 4)), np.ones(4)), "epochs is a number"),
        (lambda: trainer().fit(iter([next(iter(batches()))]), 2, progress=False), "runs once"),
        (
            lambda: trainer().fit(
                batches(), callbacks=[train.EarlyStopping("val_auc")], progress=False
            ),
            "watches 'val_auc', which is not logged",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(make: Any, said: str) -> None:
    with pytest.raises(Error, match=said):
        make()


def test_epochs_count_from_the_first_and_a_fit_without_any_says_so() -> None:
    made = trainer()
    made.fit(batches(), epochs=1, progress=False)
    with pytest.warns(UserWarning, match="trains nothing: 1 are done"):
        made.fit(batches(), epochs=1, progress=False)
    assert made.epoch == 1
