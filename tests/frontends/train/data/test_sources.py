"""Sources: npz files, tokens, lines of text, generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

X, Y = np.arange(30, dtype=np.float32).reshape(10, 3), np.arange(10)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", images=X, labels=Y)
    return tmp_path / "a.npz"


def test_npz(archive: Path) -> None:
    x, y = next(iter(data.npz(archive, "images", "labels").batch(10)))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    assert sorted(next(iter(data.npz(archive).batch(2)))) == ["images", "labels"]
    assert next(iter(data.npz(archive, "labels").batch(3))).tolist() == [0, 1, 2]


def test_npz_errors(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="no array 'Images'") as caught:
        data.npz(archive, "Images")
    assert "did you mean 'images'" in str(caught.value)
    (tmp_path / "cut.npz").write_bytes(archive.read_bytes()[:100])
    np.save(tmp_path / "one.npy", X)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    for name in ("cut.npz", "one.npy", "objects.npz", "absent.npz"):
        with pytest.raises(Error, match=name) as caught:
            data.npz(tmp_path / name)
        assert caught.value.code == "E0674"


def test_windows_of_tokens() -> None:
    ids = np.arange(100, dtype=np.int32)
    dataset = data.tokens(ids, 8)
    assert len(dataset) == 12
    for k, (x, y) in enumerate(dataset):
        np.testing.assert_array_equal(x, ids[8 * k : 8 * k + 8])
        np.testing.assert_array_equal(y, ids[8 * k + 1 : 8 * k + 9])
    assert len(data.tokens(ids, 8, stride=1)) == 92
    x, y = next(iter(data.tokens(ids, 8, stride=1).shuffle(seed=0).batch(92)))
    np.testing.assert_array_equal(y, x + 1)
    assert sorted(x[:, 0]) == list(range(92))
    assert len(data.tokens(ids[:9], 8)) == 1
    assert x.dtype == np.int32 and x.flags.c_contiguous and y.flags.c_contiguous


def test_characters() -> None:
    ids, vocabulary = data.characters("hällo wörld \U0001f600")
    assert vocabulary == "".join(sorted(set("hällo wörld \U0001f600")))
    assert "".join(vocabulary[k] for k in ids) == "hällo wörld \U0001f600"
    again, _ = data.characters("old", "dlo")
    assert again.tolist() == [2, 1, 0]
    with pytest.raises(Error, match="'x' is not in the vocabulary"):
        data.characters("ox", "dlo")


def test_token_errors() -> None:
    for wrong, code in (
        ("abc", "E0676"), ([1.5, 2.5], "E0676"), ([[1, 2]], "E0676"), ([1, 2], "E0665"),
    ):  # fmt: skip
        with pytest.raises(Error) as caught:
            data.tokens(wrong, 2)
        assert caught.value.code == code


def test_lines_of_text(tmp_path: Path) -> None:
    one, two, none = tmp_path / "1.txt", tmp_path / "2.txt", tmp_path / "0.txt"
    one.write_bytes("first\r\nsecond ä\n\nfourth".encode())
    two.write_bytes(b"\nfifth\n")
    none.write_bytes(b"")
    dataset = data.text([one, none, two])
    assert list(dataset) == ["first", "second ä", "fourth", "fifth"]
    blank = list(data.text([one, none, two], blank=True))
    assert blank == ["first", "second ä", "", "fourth", "", "fifth"]
    batch = next(iter(dataset.shuffle(seed=0).batch(4)))
    assert sorted(batch) == sorted(dataset) and batch.dtype == object
    lengths = dataset.batch(2).map(lambda lines: np.array([len(line) for line in lines]), workers=1)
    assert [x.tolist() for x in lengths] == [[5, 8], [6, 5]]
    lengths.close()


def test_text_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(Error) as caught:
        list(data.text(tmp_path / "a.txt"))
    assert caught.value.code == "E0674" and "a.txt, byte 6" in str(caught.value)
    assert list(data.text(tmp_path / "a.txt", encoding="latin-1"))[1] == "bÿd"
    with pytest.raises(Error, match="absent"):
        data.text(tmp_path / "absent.txt")
    with pytest.raises(Error, match="utf-16"):
        data.text(tmp_path / "a.txt", encoding="utf-16")
    (tmp_path / "b.txt").write_bytes(b"\n\n")
    with pytest.raises(Error, match="empty"):
        data.text(tmp_path / "b.txt")


def test_a_generator_begins_anew_each_epoch() -> None:
    def make() -> Any:
        yield from zip(X, Y)

    dataset = data.generator(make, length=10).batch(4)
    assert len(dataset) == 3
    for _ in range(2):
        assert [y.tolist() for _, y in dataset] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [len(y) for _, y in data.generator(make).batch(4, drop_last=True)] == [4, 4]


def test_generator_errors() -> None:
    with pytest.raises(Error, match="the function itself"):
        data.generator(iter(X))  # type: ignore[arg-type]
    with pytest.raises(Error, match="ended after 10 elements") as caught:
        list(data.generator(lambda: X, length=12))
    assert caught.value.code == "E0677"
    with pytest.raises(Error, match="gave no element"):
        list(data.generator(lambda: []).repeat())
    with pytest.raises(Error, match="different shapes"):
        list(data.generator(lambda: [np.zeros(2), np.zeros(3)]).batch(2))
