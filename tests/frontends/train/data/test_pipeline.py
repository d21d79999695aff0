"""Order, batches and maps: which samples come out, where, in which epoch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

N = 103
X = np.arange(N * 6, dtype=np.float32).reshape(N, 2, 3)
Y = np.arange(N)


def labels(dataset: Any) -> list[int]:
    """The second field of a whole epoch, flat."""
    return [int(v) for batch in dataset for v in np.atleast_1d(batch[1])]


def base() -> Any:
    return data.arrays(X, Y)


def test_a_batch_is_rows_of_every_array() -> None:
    batches = list(base().batch(10))
    assert len(batches) == len(base().batch(10)) == 11
    assert [len(x) for x, _ in batches] == [10] * 10 + [3]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), Y)
    assert [len(x) for x, _ in base().batch(10, drop_last=True)] == [10] * 10


def test_samples_one_by_one() -> None:
    for k, (x, y) in enumerate(base()):
        np.testing.assert_array_equal(x, X[k])
        assert y == k
    assert len(base()) == N


@pytest.mark.parametrize("shape", ["single", "dict"])
def test_other_forms_of_elements(shape: str) -> None:
    made = data.arrays(X) if shape == "single" else data.arrays({"x": X, "y": Y})
    batch = next(iter(made.shuffle(seed=1).batch(4)))
    rows = batch if shape == "single" else batch["x"]
    assert rows.shape == (4, 2, 3)
    if shape == "dict":
        np.testing.assert_array_equal(rows, X[batch["y"]])


def test_writing_into_a_batch_does_not_change_the_source() -> None:
    for dataset in (base().batch(8), base().shuffle().batch(8), base().batch(8).cache()):
        before = [x.copy() for x, _ in dataset]
        for x, _ in dataset:
            x += 1
        for (x, _), old in zip(dataset.iterate(0), before):
            np.testing.assert_array_equal(x, old)
    assert X[0, 0, 1] == 1


def test_shuffle_is_another_order_each_epoch_and_the_same_in_every_run() -> None:
    dataset = base().shuffle(seed=3).batch(10)
    first, second = labels(dataset), labels(dataset)
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second and first != list(range(N))
    again = base().shuffle(seed=3).batch(10)
    assert [labels(again), labels(again)] == [first, second]
    assert labels(base().shuffle(seed=4).batch(10)) != first
    fixed = base().shuffle(seed=3, reshuffle=False).batch(10)
    assert labels(fixed) == labels(fixed) == first


def test_two_shuffles_of_one_seed_do_not_undo_or_repeat_each_other() -> None:
    once = labels(base().shuffle(seed=0))
    twice = labels(base().shuffle(seed=0).shuffle(seed=0))
    assert sorted(twice) == list(range(N))
    assert twice != once and twice != [once[k] for k in once]


def test_a_shuffle_in_a_window() -> None:
    dataset = data.generator(lambda: ((x, y) for x, y in zip(X, Y))).shuffle(seed=1, buffer=20)
    first, second = labels(dataset), labels(dataset)
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert all(value <= place + 20 for place, value in enumerate(first))


def test_shards_part_the_samples_and_the_global_batch() -> None:
    whole = base().shuffle(seed=5).batch(8)
    parts = [base().shuffle(seed=5).shard(rank, 2).batch(4) for rank in range(2)]
    for epoch in range(2):
        for (_, y), (_, a), (_, b) in zip(whole.iterate(epoch), *[p.iterate(epoch) for p in parts]):
            if len(y) == 8:
                assert sorted([*a, *b]) == sorted(y)
    assert len(parts[0]) == len(parts[1])
    uneven = [labels(base().shard(rank, 4, even=False)) for rank in range(4)]
    assert sorted(sum(uneven, [])) == list(range(N))
    assert [len(base().shard(rank, 4, even=False)) for rank in range(4)] == [26, 26, 26, 25]
    assert [len(labels(base().shard(rank, 4))) for rank in range(4)] == [25] * 4


def test_shards_of_a_generator() -> None:
    def make() -> Any:
        return ((x, y) for x, y in zip(X, Y))

    for even in (True, False):
        for rank in range(4):
            indexed = labels(base().shard(rank, 4, even=even))
            assert labels(data.generator(make).shard(rank, 4, even=even)) == indexed


def test_take_and_skip() -> None:
    assert labels(base().skip(5).take(7)) == list(range(5, 12))
    assert labels(base().take(1000)) == list(range(N))
    assert labels(base().batch(10).skip(9)) == list(range(90, N))
    assert labels(base().batch(10).take(2)) == list(range(20))
    assert len(base().skip(5).take(7).batch(2)) == 4


def test_repeat_shuffles_each_pass_anew() -> None:
    dataset = base().shuffle(seed=1).repeat(3).batch(10)
    found = labels(dataset)
    assert len(found) == 3 * N and len(dataset) == 31
    passes = [found[k * N : (k + 1) * N] for k in range(3)]
    assert all(sorted(p) == list(range(N)) for p in passes)
    assert passes == [labels(base().shuffle(seed=1).batch(10).iterate(k)) for k in range(3)]
    assert labels(dataset)[:N] == labels(base().shuffle(seed=1).iterate(3))
    mixed = labels(base().repeat(3).shuffle(seed=1).batch(10))
    assert sorted(mixed) == sorted([*range(N)] * 3)
    node = base().shuffle(seed=2).repeat(3).shuffle(seed=1).node
    one_by_one = [int(node.element(k, 0)[1]) for k in range(3 * N)]
    assert labels(base().shuffle(seed=2).repeat(3).shuffle(seed=1).batch(10)) == one_by_one


def test_repeat_without_end() -> None:
    dataset = base().shuffle(seed=1).repeat().batch(10)
    assert dataset.size is None
    with pytest.raises(TypeError, match="not known"):
        len(dataset)
    found = labels(dataset.take(25))
    assert found[:N] == labels(base().shuffle(seed=1))
    assert len(found) == 250


def test_a_map_of_samples_of_blocks_and_of_batches_agree() -> None:
    def scaled(x: Any, y: Any) -> Any:
        return x * 2 + 1, y

    for make in (
        base().map(scaled).batch(10),
        base().map(scaled, batched=True).batch(10),
        base().batch(10).map(scaled),
        base().map(scaled, batched=True),
        data.generator(lambda: zip(X, Y)).map(scaled, batched=True).batch(10),
    ):
        found = [x for x, _ in make]
        joined = np.concatenate(found) if found[0].ndim == 3 else np.stack(found)
        np.testing.assert_array_equal(joined, X * 2 + 1)
        assert joined.dtype == np.float32


def test_a_batched_map_is_called_once_for_each_batch() -> None:
    calls = []

    def note(x: Any, y: Any) -> Any:
        calls.append(len(x))
        return x, y

    list(base().map(note, batched=True).shuffle().batch(25))
    assert calls == [25, 25, 25, 25, 3]


def test_python_numbers_become_f32_and_i64() -> None:
    x, y = next(iter(base().map(lambda x, y: (float(y), int(y))).batch(4)))
    assert (x.dtype, y.dtype) == (np.float32, np.int64)


def test_random_maps_depend_on_seed_epoch_and_position_alone() -> None:
    def noisy(x: Any, y: Any, rng: Any) -> Any:
        return rng.random(len(x)), y

    dataset = base().batch(10).map(noisy, seed=1)
    draws = [[tuple(x) for x, _ in dataset] for _ in range(2)]
    assert len({d for epoch in draws for d in epoch}) == 22
    assert [tuple(x) for x, _ in base().batch(10).map(noisy, seed=1)] == draws[0]
    assert [tuple(x) for x, _ in base().batch(10).map(noisy, seed=2)] != draws[0]
    two = base().batch(10).map(noisy, seed=1).map(lambda x, y: (x, x)).map(noisy_pair, seed=1)
    x, y = next(iter(two))
    assert not np.any(x == y)  # one seed in two places: other numbers


def noisy_pair(x: Any, y: Any, rng: Any) -> Any:
    return rng.random(len(x)), y


def test_cache_computes_once() -> None:
    calls = []

    def note(x: Any, y: Any) -> Any:
        calls.append(int(y))
        return x, y

    dataset = base().map(note).cache().shuffle(seed=0).batch(10)
    assert not calls
    first, second = labels(dataset), labels(dataset)
    assert sorted(calls) == list(range(N)) and first != second
    calls.clear()
    grouped = base().map(note).batch(10).cache()
    assert labels(grouped) == labels(grouped) == list(range(N))
    assert len(calls) == N


def test_cache_makes_a_generator_countable() -> None:
    dataset = data.generator(lambda: zip(X, Y)).cache()
    assert len(dataset) == N
    assert sorted(labels(dataset.shuffle(seed=0).batch(10))) == list(range(N))


def test_prefetch_hands_out_the_same() -> None:
    plain, ahead = base().shuffle(seed=2).batch(9), base().shuffle(seed=2).batch(9).prefetch(3)
    for _ in range(3):
        assert labels(plain) == labels(ahead)


def test_prefetch_works_ahead_but_no_further() -> None:
    made = []
    dataset = base().batch(10).map(lambda x, y: made.append(len(made)) or (x, y)).prefetch(3)
    iterator = iter(dataset)
    next(iterator)
    for _ in range(200):
        if len(made) >= 4:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4
    iterator.close()  # type: ignore[attr-defined]


def test_a_broken_off_epoch_is_followed_by_the_next() -> None:
    dataset = base().shuffle(seed=0).batch(10)
    for _ in dataset:
        break
    assert labels(dataset) == labels(base().shuffle(seed=0).batch(10).iterate(1))


def test_peek_moves_nothing() -> None:
    dataset = base().shuffle(seed=0).batch(10)
    x, y = dataset.peek()
    assert dataset.state()["position"] == 0
    np.testing.assert_array_equal(next(iter(dataset))[1], y)
    np.testing.assert_array_equal(x, X[y])


def test_two_iterators_of_one_dataset_do_not_disturb_each_other() -> None:
    dataset = base().shuffle(seed=0).batch(10)
    one, two = dataset.iterate(0), dataset.iterate(0)
    pairs = [(a[1], b[1]) for a, b in zip(one, two)]
    assert len(pairs) == 11 and all(np.array_equal(a, b) for a, b in pairs)


BAD = {
    "lengths": (lambda: data.arrays(X, Y[:5]), "E0662", "field 1: shape (5,)"),
    "no array": (lambda: data.arrays(), "E0663", "at least one"),
    "a number": (lambda: data.arrays(X, 3), "E0662", "single value"),
    "empty": (lambda: data.arrays(X[:0], Y[:0]), "E0665", "empty"),
    "ragged": (lambda: data.arrays([[1, 2], [3]]), "E0660", "no common shape"),
    "batch 0": (lambda: base().batch(0), "E0663", "batch(n) is 0"),
    "batch twice": (lambda: base().batch(2).batch(2), "E0668", "batches already"),
    "all dropped": (lambda: base().batch(200, drop_last=True), "E0665", "drops all 103"),
    "all skipped": (lambda: base().skip(N), "E0665", "empty"),
    "empty shard": (lambda: base().take(2).shard(0, 4), "E0665", "empty"),
    "rank": (lambda: base().shard(2, 2), "E0663", "rank 2 of 2"),
    "endless shuffle": (lambda: base().repeat().shuffle(), "E0664", "buffer"),
    "endless cache": (lambda: base().repeat().cache(), "E0664", "no end"),
    "generator shuffle": (lambda: data.generator(lambda: X).shuffle(), "E0664", "buffer"),
    "no function": (lambda: base().map(3), "E0663", "not a function"),
    "seed too soon": (lambda: base().map(noisy_pair, batched=True, seed=1), "E0666", ".batch(n)"),
    "augment too soon": (lambda: base().augment(), "E0666", ".batch(n)"),
    "workers": (lambda: base().map(noisy_pair, workers=-1), "E0663", "workers="),
    "fewer": (
        lambda: list(base().map(lambda x, y: (x[1:], y[1:]), batched=True).batch(10)),
        "E0667", "expected: 10",
    ),
    "disagree": (
        lambda: list(base().batch(10).map(lambda x, y: (x[1:], y))), "E0662", "shape (9, 2, 3)",
    ),
    "shapes": (
        lambda: list(base().map(lambda x, y: (np.zeros(int(y)), y)).batch(10)), "E0661", "sample 1",
    ),
    "fields": (
        lambda: list(base().map(lambda x, y: (x, y)[: 1 + y % 2]).batch(9)), "E0661", "sample 1",
    ),
    "none": (lambda: list(base().map(lambda x, y: None).batch(9)), "E0660", "None"),
    "nested": (lambda: list(base().map(lambda x, y: (x, (y, y))).batch(9)), "E0660", "field 1"),
    "raises": (
        lambda: list(base().map(lambda x, y: (x, 1 // (int(y) - 7))).batch(9)),
        "E0670", "sample 7, epoch 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named(case: str) -> None:
    wrong, code, words = BAD[case]
    with pytest.raises(Error) as caught:
        wrong()
    assert caught.value.code == code
    assert words in caught.value.render()


def test_the_exception_in_a_map_is_the_cause() -> None:
    with pytest.raises(Error, match="ZeroDivisionError") as caught:
        list(base().batch(10).map(lambda x, y: 1 // 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "batch 0 (sample 0 to sample 9)" in str(caught.value)


def test_an_exception_under_prefetch_comes_at_its_place() -> None:
    seen = []
    with pytest.raises(Error, match="ZeroDivisionError"):
        for _, y in base().batch(10).map(lambda x, y: (x, y + 0 // (int(y[0]) - 50))).prefetch():
            seen.append(int(y[0]))
    assert seen[:5] == [0, 10, 20, 30, 40]
