"""Checkpoints: whole or refused, and never lost."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from irc.frontends.train import checkpoint
from irc.frontends.train.checkpoint import load_checkpoint, save_checkpoint
from irc.ir.errors import Error

ARRAYS = {
    "params/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "params/h": np.asarray([1.5, -2.0], ml_dtypes.bfloat16),
    "rng/key": np.asarray([1, 2], np.uint32),
    "step": np.asarray(7, np.int64),
    "empty": np.zeros((0, 3)),
}


def test_arrays_and_meta_come_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", ARRAYS, {"epoch": 3, "history": [1.0]})
    arrays, meta = load_checkpoint(tmp_path / "c")
    assert meta == {"epoch": 3, "history": [1.0]} and set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes() and arrays[name].flags.writeable
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_second_one_replaces_the_first(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "c", {"step": np.asarray(step)}, {})
    assert load_checkpoint(tmp_path / "c")[0]["step"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("file", ["state.safetensors", "meta.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_one_is_refused_by_name(tmp_path: Path, file: str, how: str) -> None:
    save_checkpoint(tmp_path / "c", ARRAYS)
    goal = tmp_path / "c" / file
    content = bytearray(goal.read_bytes())
    if how == "remove":
        goal.unlink()
    elif how == "cut":
        goal.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x40
        goal.write_bytes(content)
    try:
        arrays, _ = load_checkpoint(tmp_path / "c")
    except Error as error:
        assert error.code == "E0696" and (file in str(error) or file == "meta.json")
    else:  # a bit of meta.json outside of what is read
        assert file == "meta.json" and arrays["step"] == 7


def test_a_failing_save_keeps_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "c", {"step": np.asarray(1)})

    def full(path: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_digest", full)
    with pytest.raises(Error, match="No space left"):
        save_checkpoint(tmp_path / "c", {"step": np.asarray(2)})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "c")[0]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_one_cut_off_between_two_renames_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"step": np.asarray(1)})
    (tmp_path / "c").rename(tmp_path / "c.previous")
    assert load_checkpoint(tmp_path / "c")[0]["step"] == 1


def test_a_newer_format_and_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"step": np.asarray(1)})
    meta = tmp_path / "c" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 99}))
    with pytest.raises(Error, match="newer format"):
        load_checkpoint(tmp_path / "c")
    with pytest.raises(Error, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "d")


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear")
    with pytest.raises(Error, match="no checkpoint"):
        save_checkpoint(tmp_path / "letters", ARRAYS)
    assert (tmp_path / "letters" / "one.txt").read_text() == "dear"
