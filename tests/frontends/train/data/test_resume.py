"""State and restore: an interrupted run goes on with the very next sample."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

N = 37
X, Y = np.arange(N * 4, dtype=np.float32).reshape(N, 4), np.arange(N)


def noisy(x: Any, y: Any, rng: Any) -> Any:
    return x + rng.random(x.shape, np.float32), y


def pairs() -> Any:
    return zip(X, Y)


PIPELINES = {
    "samples": lambda: data.arrays(X, Y).shuffle(seed=1),
    "batches": lambda: data.arrays(X, Y).shuffle(seed=1).batch(5),
    "random": lambda: data.arrays(X, Y).shuffle(seed=1).batch(5).map(noisy, seed=4),
    "shard": lambda: data.arrays(X, Y).shuffle(seed=1).shard(1, 2).batch(5).map(noisy, seed=4),
    "sample map": lambda: data.arrays(X, Y).map(noisy, seed=4).shuffle(seed=1).batch(5),
    "repeat": lambda: data.arrays(X, Y).shuffle(seed=1).repeat(2).batch(5),
    "endless": lambda: data.arrays(X, Y).shuffle(seed=1).repeat().batch(5).take(20),
    "prefetch": lambda: data.arrays(X, Y).shuffle(seed=1).batch(5).map(noisy, seed=4).prefetch(3),
    "workers": lambda: data.arrays(X, Y).shuffle(seed=1).batch(5).map(noisy, seed=4, workers=2),
    "generator": lambda: data.generator(pairs).batch(5).map(noisy, seed=4),
    "window": lambda: data.generator(pairs).shuffle(seed=1, buffer=9).batch(5).prefetch(2),
    "generator repeat": lambda: data.generator(pairs).skip(2).repeat(2).take(60).batch(5),
    "generator shard": lambda: data.generator(pairs).shard(1, 2, even=False).batch(5),
    "generator workers": lambda: data.generator(pairs).batch(5).map(noisy, seed=4, workers=2),
    "cache": lambda: data.arrays(X, Y).map(noisy, seed=4).cache().shuffle(seed=1).batch(5),
    "both": lambda: data.arrays(X, Y).batch(5).map(noisy, seed=4, workers=2).prefetch(2),
}
EPOCHS = 3


def same(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a, b) for f, e in zip(found, expected) for a, b in zip(f, e)
    )


@pytest.mark.parametrize("name", PIPELINES)
def test_a_resumed_run_equals_the_uninterrupted_one(name: str) -> None:
    make = PIPELINES[name]
    dataset = make()
    whole = [element for _ in range(EPOCHS) for element in dataset]
    dataset.close()
    size = len(whole) // EPOCHS
    for stop in (1, size // 2, size - 1, size, size + 2):
        broken, seen = make(), []
        for _ in range(EPOCHS):
            for element in broken:
                seen.append(element)
                if len(seen) == stop:
                    break
            if len(seen) == stop:
                break
        state = json.loads(json.dumps(broken.state()))
        broken.close()
        resumed = make()
        resumed.restore(state)
        seen += [e for _ in range(EPOCHS - state["epoch"]) for e in resumed]
        resumed.close()
        assert same(seen, whole), f"stopped after {stop}"


def test_the_state_counts_what_was_handed_out() -> None:
    dataset = data.arrays(X, Y).batch(5).prefetch(4)
    iterator = iter(dataset)
    for handed_out in range(1, 4):
        next(iterator)
        assert dataset.state()["position"] == handed_out
        assert iterator.state() == dataset.state()  # type: ignore[attr-defined]


def test_an_iterator_goes_back() -> None:
    dataset = data.arrays(X, Y).shuffle(seed=1).batch(5)
    iterator: Any = iter(dataset)
    next(iterator)
    state = iterator.state()
    rest = list(iterator)
    assert iterator.state()["epoch"] == 1
    iterator.restore(state)
    assert same(list(iterator), rest)


def test_a_finished_epoch_resumes_with_the_next() -> None:
    dataset = data.arrays(X, Y).shuffle(seed=1).batch(5)
    list(dataset)
    state = dataset.state()
    assert (state["epoch"], state["position"]) == (1, 0)
    other = data.arrays(X, Y).shuffle(seed=1).batch(5)
    other.restore(state)
    assert same(list(other), list(dataset))


def test_every_rank_resumes_from_the_state_of_one() -> None:
    ranks = [data.arrays(X, Y).shuffle(seed=1).shard(r, 2).batch(3) for r in range(2)]
    assert ranks[0].state() == ranks[1].state()


def test_workers_and_prefetch_may_change_between_runs() -> None:
    state = data.arrays(X, Y).batch(5).map(noisy, seed=1, workers=2).prefetch(3).state()
    data.arrays(X, Y).batch(5).map(noisy, seed=1).restore(state)


def test_the_state_of_another_pipeline_is_refused() -> None:
    state = data.arrays(X, Y).shuffle(seed=1).batch(5).state()
    with pytest.raises(Error, match="another pipeline") as caught:
        data.arrays(X, Y).shuffle(seed=1).batch(6).restore(state)
    assert caught.value.code == "E0673"
    for damaged in ({}, {**state, "position": -1}, {**state, "epoch": "x"}, 3):
        with pytest.raises(Error):
            data.arrays(X, Y).shuffle(seed=1).batch(5).restore(damaged)  # type: ignore[arg-type]
