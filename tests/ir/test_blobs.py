"""Constants by reference: loaded late, released, moved, derived, compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc.ir.blobs import Blob, copy_elements, in_shape
from irc.ir.types import TensorType, f32

Maker = Callable[[Any], Blob]


def counted(array: Any, loads: list[int], key: tuple[Any, ...] | None = None) -> Blob:
    def load() -> Any:
        loads.append(1)
        return array.copy()

    return Blob(None, TensorType(f32, array.shape), load, key)


def test_released_content_is_loaded_again() -> None:
    loads: list[int] = []
    blob = counted(np.arange(6, dtype=np.float32), loads)
    assert blob.array is blob.array
    blob.release()
    assert blob._array is None
    assert blob.array.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(loads) == 2
    plain = Blob(np.zeros(3, np.float32))
    plain.release()
    assert plain.array.tolist() == [0, 0, 0]


def turned(source: Blob) -> Blob:
    shape = source.type.shape
    assert shape is not None
    return Blob.moved(source, TensorType(f32, shape[::-1]), ("turned",), lambda x: x.T)


def test_moves_of_equal_sources_are_equal_and_read_little() -> None:
    loads: list[int] = []
    x = np.arange(20_000, dtype=np.float32).reshape(100, 200)
    y = x.copy()
    y[50, 50] = -1
    same, alike, other = counted(x, loads), counted(x, loads), counted(y, loads)
    assert turned(same) == turned(alike)
    assert turned(same) != turned(other)
    assert turned(same) == counted(x.T, loads)
    assert same._array is None


def test_a_probe_tells_most_constants_apart() -> None:
    loads: list[int] = []
    x = np.arange(20_000, dtype=np.float32)
    one, other = counted(x, loads), counted(x + 1, loads)
    assert one != other
    assert one != counted(x + 2, loads)
    assert len(loads) == 3


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (61,), (62,), (7, 0, 2)])
def test_small_constants_compare(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    assert Blob(x) == Blob(x.copy())
    assert (Blob(x) == Blob(-x)) is (x.size == 0)


def test_what_is_written_is_not_kept() -> None:
    loads: list[int] = []
    source = counted(np.ones((3, 4), np.float32), loads)
    blob = Blob.derived(source, source.type, lambda x: x * 2)
    target = np.zeros((3, 4), np.float32)
    blob.copy_to(target)
    assert target.sum() == 24
    assert blob._array is None
    assert source._array is None


@pytest.mark.parametrize("shape", [(3, 2000), (2, 5, 1500), (2000, 3)])
def test_copies_in_strips(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    target = np.zeros(shape[::-1], np.float32)
    copy_elements(target, x.T)
    np.testing.assert_array_equal(target, x.T)
    np.testing.assert_array_equal(in_shape(x.T, (x.size,)), x.T.reshape(-1))
    assert np.shares_memory(in_shape(x, (x.size,)), x)
