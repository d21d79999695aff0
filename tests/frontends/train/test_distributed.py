"""Training in several processes: equal to one process, bit-identical, and ends that are told.

Jobs are started by the mpiexec of the package mpich; each writes what it found to a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import data
from irc.frontends.train import distributed
from irc.ir.errors import Error
from irc.ir.ops import dist

pytest.importorskip("mpi4py", reason="extra [mpi]")
MPIEXEC = Path(sys.executable).with_name("mpiexec")
pytestmark = pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec beside this Python")

HEAD = """
import sys, os, json, hashlib, signal
import numpy as np
from irc import nn, optim, train, data
from irc.frontends.train import distributed
from irc.frontends.train.step import TrainStep
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((24, 3, 6, 6)), rng.integers(0, 4, 24)
def network(dtype, dropout=0.0):
    nn.manual_seed(3 + 7 * train.rank())  # rank 0's first parameters count
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, sync=True), nn.ReLU(),
                         nn.Flatten(), nn.Dropout(dropout), nn.Linear(96, 4)).to(dtype)
def digest(arrays):
    made = hashlib.sha256()
    for name in sorted(arrays):
        made.update(np.ascontiguousarray(arrays[name]).tobytes())
    return made.hexdigest()
def report(**facts):
    alike = len(set(distributed.exchanged(facts.pop("digest", "")))) == 1
    if train.rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(facts | {"alike": alike}, file)
"""
STEPS = """
facts = {}
digests = ""
for dtype in sys.argv[2].split(","):
    for how in ("whole", "shard")[: train.world()]:
        adam = optim.Adam(1e-2, clip_norm=2.0)
        step = TrainStep(network(dtype), loss="cross_entropy", optimizer=adam, threads=1,
                         shard_optimizer=how == "shard", metrics=["accuracy"])
        for k in range(20):
            rows = (24, 24, 23, 3)[k % int(sys.argv[3])]
            result = step((X[:rows], Y[:rows]))
        arrays = step.arrays()
        held = sum([a.nbytes for n, a in step.state.arrays.items() if n.startswith("slots/")])
        facts[dtype + how] = {"loss": float(result.logs["loss"]), "held": held, "rows": result.rows,
            "state": {n: np.asarray(a, np.float64).reshape(-1).tolist() for n, a in arrays.items()}}
        digests += digest(arrays)
report(digest=digests, **facts)
"""
LOOP = """
folder, how = sys.argv[2:4]
class Trouble(train.Callback):
    def step_ends(self, step, logs):
        if step != 5 or train.rank() != 1: return
        if "kill" in how: os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in how: raise ValueError("broken")
        if "exit" in how: sys.exit(0)
X = X.reshape(24, -1)
X, Y = np.concatenate([X, X[:11]]), np.concatenate([Y, Y[:11]])
nn.manual_seed(2)
net = nn.Sequential(nn.Linear(108, 8, bias=False), nn.BatchNorm1d(8, sync=True), nn.ReLU(),
                    nn.Linear(8, 4))
t = train.Trainer(net.to("f64"), loss="cross_entropy", optimizer=optim.AdamW(1e-2), threads=1,
                  metrics=["accuracy", "confusion"], shard_optimizer="shard" in how,
                  target="cpu" if "compiled" in how else "reference")
if "resume" in how: t.load(folder + "/last")
h = t.fit(data.arrays(X, Y).shuffle(seed=0).batch(12), epochs=3, validation=(X[:13], Y[:13]),
          callbacks=[train.Checkpoint(folder, steps=2), train.CSVLog(folder + "/log.csv"),
                     Trouble()])
epochs = {n: np.asarray(v, np.float64).tolist() for n, v in h.epochs.items()}
report(digest=digest(t.step.arrays()), epochs=epochs, state={
    n: np.asarray(a, np.float64).reshape(-1).tolist() for n, a in t.step.arrays().items()})
"""


def job(
    folder: Path, ranks: int, body: str, *args: str, timeout: float = 120
) -> tuple[int, str, Any]:
    """Exit code, output and report of a script in some processes (0: without a launcher)."""
    script, goal = folder / "train.py", folder / f"found{ranks}.json"
    script.write_text(HEAD + body, encoding="utf-8")
    goal.unlink(missing_ok=True)
    launcher = [str(MPIEXEC), "-n", str(ranks)] if ranks else []
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*launcher, sys.executable, str(script), str(goal), *args],
        capture_output=True, text=True, timeout=timeout, env=env, cwd=folder,
    )  # fmt: skip
    found = json.loads(goal.read_text()) if goal.exists() else None
    return ran.returncode, ran.stdout + ran.stderr, found


def compare(one: Any, many: Any, bound: float) -> None:
    assert set(one["state"]) == set(many["state"])
    for name, values in one["state"].items():
        apart = np.abs(np.subtract(values, many["state"][name])).max(initial=0)
        assert apart <= bound, (name, apart)


def steps_equal(folder: Path, ranks: int, dtypes: str, kinds: int) -> None:
    code, said, one = job(folder, 0, STEPS, dtypes, str(kinds))
    assert code == 0, said
    code, said, many = job(folder, ranks, STEPS, dtypes, str(kinds))
    assert code == 0 and many["alike"], said
    for dtype in dtypes.split(","):
        for how in ("whole", "shard"):
            compare(one[dtype + "whole"], many[dtype + how], 1e-10 if dtype == "f64" else 1e-4)
            assert many[dtype + how]["rows"] == one[dtype + "whole"]["rows"]
        held = [many[dtype + how]["held"] for how in ("whole", "shard")]
        assert held[0] / ranks <= held[1] <= held[0] / ranks * 1.02 + 64


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """20 steps of Adam, a synchronised batch norm, clipping; state whole and in parts; f64."""
    steps_equal(tmp_path, 2, "f64", 1)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_processes_equal_one(tmp_path: Path, ranks: int) -> None:
    """Also with batches that do not split evenly, and with fewer rows than processes."""
    steps_equal(tmp_path, ranks, "f64,f32", 4)


def test_the_loop_equals_one_process_and_goes_on(tmp_path: Path) -> None:
    """Epochs, metrics, validation; a checkpoint of two processes goes on in one and in parts."""
    code, said, one = job(tmp_path, 0, LOOP, str(tmp_path / "a"), "")
    assert code == 0, said
    code, said, two = job(tmp_path, 2, LOOP, str(tmp_path / "b"), "raise")
    assert code == 1 and two is None
    assert "rank 1 of 2 failed: ValueError" in said and "broken" in said
    code, said, two = job(tmp_path, 2, LOOP, str(tmp_path / "b"), "resume shard")
    assert code == 0 and two["alike"], said
    compare(one, two, 1e-10)
    for name, values in one["epochs"].items():
        np.testing.assert_allclose(two["epochs"][name], values, rtol=0, atol=1e-9)
    assert said.count("epoch 3/3") == 1  # one process speaks
    rows = (tmp_path / "b" / "log.csv").read_text().splitlines()
    assert len(rows) == 4


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_killed_process_ends_the_job(tmp_path: Path, ranks: int) -> None:
    code, said, one = job(tmp_path, 0, LOOP, str(tmp_path / "a"), "compiled")
    assert code == 0, said
    code, said, found = job(tmp_path, ranks, LOOP, str(tmp_path / "b"), "compiled kill")
    assert code != 0 and found is None
    assert f"error[E0653]: rank 1 of {ranks} was killed" in said
    code, said, many = job(tmp_path, ranks, LOOP, str(tmp_path / "b"), "compiled resume")
    assert code == 0 and many["alike"], said
    compare(one, many, 1e-10)


@pytest.mark.long
def test_a_process_that_ends_early_ends_the_job(tmp_path: Path) -> None:
    code, said, _ = job(tmp_path, 2, LOOP, str(tmp_path / "b"), "exit")
    assert code != 0 and "rank 1 has ended, and rank 0 waits for it" in said


def test_other_programs_are_told_apart(tmp_path: Path) -> None:
    body = """
net = nn.Linear(108, 4 + train.rank() * int(sys.argv[2])).to("f64")
step = TrainStep(net, loss="cross_entropy", optimizer="sgd", threads=1, target="reference")
rows = 24 - 2 * train.rank()
step((X.reshape(24, -1)[:rows], Y[:rows]))
"""
    for other, words in (("1", "the first state: params/weight"), ("0", "step 1 on 22 rows")):
        code, said, _ = job(tmp_path, 2, body, other)
        assert code == 1 and "error[E0652]: the processes do not do the same" in said
        assert "rank 0: " in said and "rank 1: " in said and words in said


OPTIONS = """
from irc.ir.errors import Error
first = X.reshape(24, -1)
def trained(optimizer, shard, dtype="f64", **options):
    nn.manual_seed(3)
    net = nn.Sequential(nn.Linear(108, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
    step = TrainStep(net, loss="cross_entropy", optimizer=optimizer, shard_optimizer=shard,
                     target="reference", **options)
    for _ in range(4):
        step((first, Y))
    return {n: np.array(a, np.float64) for n, a in step.arrays().items()}
def matrices(name, p): return p.ndim > 1
facts, seen = {}, ""
for name, optimizer, options in [
    ("decay", optim.AdamW(1e-2, weight_decay=0.1, decay_mask=matrices, clip_value=0.01), {}),
    ("ema", optim.SGD(1e-1, momentum=0.9, nesterov=True, ema=0.9, clip_norm=0.1), {}),
    ("nadam", optim.NAdam(1e-2), {}), ("amsgrad", optim.Adam(1e-2, amsgrad=True), {}),
    ("lion", optim.Lion(1e-3), {}), ("accumulate", optim.RMSprop(1e-2), {"accumulate": 2}),
    ("groups", optim.Adagrad(1e-2, groups=(optim.Group("0.*", 0.5),)), {}),
    ("scaled", optim.Adam(1e-2), {"precision": "f16", "dtype": "f32"}),
    ("lamb", optim.LAMB(1e-2), {}), ("muon", optim.Muon(1e-2), {}),
    ("adafactor", optim.Adafactor(1e-2), {}),
]:
    with distributed.alone():
        want = trained(optimizer, False, **options)
    for shard in (False, True):
        try:
            found = trained(optimizer, shard, **options)
        except Error as error:
            facts[name + "shard"] = error.code
            continue
        seen += digest(found)
        assert set(found) == set(want)
        facts[name + "shard" * shard] = max([float(np.abs(found[n] - want[n]).max()) for n in want])
report(digest=seen, **facts)
"""


def test_optimizers_and_options(tmp_path: Path) -> None:
    """Each in two processes against one, state whole and in parts; who cannot be cut says so."""
    code, said, found = job(tmp_path, 2, OPTIONS)
    assert code == 0 and found.pop("alike"), said
    for name, apart in found.items():
        if name in ("lambshard", "muonshard", "adafactorshard"):
            assert apart == "E0655"
        else:
            assert apart < (2e-3 if "scaled" in name else 1e-10), name
    assert len(found) == 22


def test_running_statistics_are_averaged(tmp_path: Path) -> None:
    """Without `sync` each process normalises by its own rows; what is kept is their mean."""
    body = """
x = X.reshape(24, -1)[:, :5]
net = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)).to("f64")
step = TrainStep(net, loss="cross_entropy", optimizer="sgd", threads=1, target="reference")
step((x, Y))
report(digest=digest(step.arrays()), mean=step.arrays()["buffers/0.running_mean"].tolist(),
       var=step.arrays()["buffers/0.running_var"].tolist(), x=x.tolist())
"""
    code, said, found = job(tmp_path, 2, body)
    assert code == 0 and found["alike"], said
    halves = np.asarray(found["x"]).reshape(2, 12, 5)
    np.testing.assert_allclose(found["mean"], 0.1 * halves.mean(1).mean(0), atol=1e-12)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * halves.var(1, ddof=1).mean(0), atol=1e-12)


@pytest.mark.long
def test_processes_drop_other_elements(tmp_path: Path) -> None:
    """Dropout draws differ between processes, and their state does not."""
    body = """
net = nn.Dropout(0.5)
class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.w = nn.Dropout(0.5), nn.Parameter(np.ones(64, np.float32))
    def forward(self, x):
        return self.drop(self.w * 1.0) * x.sum()
step = TrainStep(Sum(), objective=lambda net, x: net(x).mean(), optimizer=optim.SGD(1.0), threads=1)
step((np.ones((2, 1), np.float32),))
values = np.unique(step.arrays()["params/w"])
report(digest=digest(step.arrays()), values=values.tolist())
"""
    code, said, found = job(tmp_path, 2, body)
    assert code == 0 and found["alike"], said
    assert len(found["values"]) == 3  # dropped by both, by one, by none


# --------------------------------------------------------------------- in this process


def test_alone_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*distributed.SIZES, "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert isinstance(dist.group(), dist.Alone)


def test_missing_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(Error, match="one of 4 processes, and MPI is missing") as found:
        distributed.join()
    assert found.value.exit_code == 7 and "tensor-irc[mpi]" in str(found.value.hint)


class Ranked:
    """A group of which only the numbers are asked."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


@pytest.mark.parametrize("total", [1, 3, 4, 10, 64])
def test_shares(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are neighbours, cover a batch once, and their weighted means are its mean."""
    rows = np.arange(total) ** 2.0
    mean, covered = 0.0, []
    for rank in range(4):
        monkeypatch.setattr(distributed, "group", lambda r=rank: Ranked(r, 4))
        mine = distributed.share(total)
        mean += rows[mine.start : mine.stop].mean() * mine.factor / 4
        covered += list(range(mine.start, mine.stop)) if mine.counted else []
    assert covered == list(range(total))
    assert mean == pytest.approx(rows.mean())


def test_rows_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process loads its rows alone, in the order that one process has."""
    x = np.arange(50)
    touched: list[int] = []

    def seen(v: Any) -> Any:
        touched.append(int(v))
        return v

    whole = data.arrays(x).shuffle(seed=1).batch(16)
    epoch = [np.asarray(b) for b in whole.iterate(2)]
    parts: list[list[Any]] = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "group", lambda r=rank: Ranked(r, 3))
        made = distributed.divided(data.arrays(x).shuffle(seed=1).map(seen).batch(16))
        parts.append(list(distributed.own_batches(made, made.iterate(2, 1), 1)))
    rows = [int(v) for b in (*epoch[1:], epoch[3], epoch[3]) for v in b]
    assert sorted(touched) == sorted(rows)  # the last two rows are everybody's
    for k, batch in enumerate(epoch[1:]):
        found = [np.asarray(p[k].batch) for p in parts]
        if len(batch) >= 3:
            np.testing.assert_array_equal(np.concatenate(found), batch)
        else:
            assert all([np.array_equal(f, batch) for f in found])


def test_a_dataset_in_shards_gives_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "group", lambda: Ranked(1, 2))
    made = data.arrays(np.arange(12)).shard(1, 2).batch(3)
    assert distributed.divided(made) is made
    found = list(distributed.own_batches(made, made.iterate(0), 0))
    assert [f.share.total for f in found] == [6, 6] and found[0].share.factor == 1
    assert list(found[0].batch) == [1, 3, 5]
