"""Tables: CSV, parquet, pandas frames give the same samples, and name what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

TEXT = """age,height,town,kind
30,1.5,Rome,b
41,,Oslo,a
52,1.75,Rome,b
"""
CATEGORY = {"town": "category"}


@pytest.fixture(params=["csv", "parquet", "frame"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The reader, with the table as its first argument."""
    (tmp_path / "t.csv").write_text(TEXT)
    if request.param == "csv":
        return lambda **options: data.csv(tmp_path / "t.csv", **options)
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "t.csv")
    if request.param == "frame":
        return lambda **options: data.frame(frame, **options)
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "t.parquet")
    return lambda **options: data.parquet(tmp_path / "t.parquet", **options)


def test_features_and_target(table: Any) -> None:
    dataset = table(target="kind", columns=["height", "age"])
    x, y = next(iter(dataset.batch(3)))
    np.testing.assert_array_equal(x, np.array([[1.5, 30], [np.nan, 41], [1.75, 52]], np.float32))
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert y.tolist() == [1, 0, 1] and dataset.classes == {"kind": ["a", "b"]}
    assert dataset.columns == ["height", "age"]


def test_all_other_columns_are_features(table: Any) -> None:
    dataset = table(target="age", dtypes=CATEGORY | {"kind": "category"})
    x, y = next(iter(dataset.batch(3)))
    assert x[:, 1:].tolist() == [[1, 1], [0, 0], [1, 1]] and y.tolist() == [30, 41, 52]
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert dataset.columns == ["height", "town", "kind"]


def test_no_target(table: Any) -> None:
    assert next(iter(table(columns=["age"]).batch(3))).tolist() == [[30], [41], [52]]


def test_element_types(table: Any) -> None:
    x, y = next(iter(table(target="age", columns=["height"],
                           dtypes={"height": np.float64, "age": np.float32}).batch(3)))  # fmt: skip
    assert (x.dtype, y.dtype) == (np.float64, np.float32)


def test_columns_apart(table: Any) -> None:
    batch = next(iter(table(stacked=False, target="kind").batch(3)))
    assert list(batch) == ["age", "height", "town", "kind"]
    assert batch["town"].tolist() == ["Rome", "Oslo", "Rome"]
    assert batch["age"].tolist() == [30, 41, 52] and batch["kind"].tolist() == [1, 0, 1]


def test_mistakes(table: Any) -> None:
    for options, code, words in (
        ({"target": "Age"}, "E0675", "did you mean 'age'"),
        ({"columns": ["weight"]}, "E0675", "'age', 'height', 'town', 'kind'"),
        ({"dtypes": {"weight": "f4"}}, "E0675", "'weight'"),
        ({"columns": []}, "E0675", "no feature column"),
        ({"target": "kind"}, "E0678", "'town' holds text"),
        ({"target": "height", "columns": ["age"]}, "E0678", "no value in 1 rows"),
    ):
        with pytest.raises(Error) as caught:
            table(**options)
        assert caught.value.code == code and words in caught.value.render(), options


def test_csv_without_a_header_and_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1;2\n\n3;4\n")
    dataset = data.csv(tmp_path / "t.csv", "b", names=["a", "b"], delimiter=";")
    assert [(x.tolist(), int(y)) for x, y in dataset] == [([1], 2), ([3], 4)]


def test_csv_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, options, code, words in (
        ("a,b\n1,2\n3\n", {}, "E0674", "line 3: 1 values"),
        ("a,a\n1,2\n", {}, "E0674", "two columns 'a'"),
        ("a,b\n", {}, "E0665", "no row"),
        ("", {}, "E0665", "no row"),
        ("a,b\n1,2\n3,x\n", {"dtypes": {"b": "f4"}}, "E0678", "t.csv, line 3"),
    ):
        path.write_text(text)
        with pytest.raises(Error) as caught:
            data.csv(path, **options)
        assert caught.value.code == code and words in caught.value.render(), text
    path.write_bytes(b"a\n\xff\n")
    for name in (path, tmp_path / "absent.csv"):
        with pytest.raises(Error, match=name.name) as caught:
            data.csv(name)
        assert caught.value.code == "E0674"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    for name in ("t.parquet", "absent.parquet"):
        with pytest.raises(Error, match=name) as caught:
            data.parquet(tmp_path / name)
        assert caught.value.code == "E0674"


def test_nullable_and_boolean_columns_of_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": pandas.array([1, None, 3], "Int64"), "b": [True, False, True]})
    x = next(iter(data.frame(frame).batch(3)))
    np.testing.assert_array_equal(x, np.array([[1, 1], [np.nan, 0], [3, 1]], np.float32))
    with pytest.raises(Error, match="needs a table"):
        data.frame([1, 2])


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, use in (("pyarrow", lambda: data.parquet("t")), ("PIL", lambda: data.images("t"))):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(Error, match="tensor-irc.data") as caught:
            use()
        assert caught.value.code == "E0679"
