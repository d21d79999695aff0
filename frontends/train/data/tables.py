"""Tables: CSV, parquet, pandas frames.  Columns become features and a target.

A table is a dict of columns; the three readers differ in how they get one.
Features are one matrix (samples, columns), or a dict of columns with `stacked=False`.
pandas and pyarrow are needed only by those who use them (extra `data`).
Imports numpy, sources, datasets, elements and errors.
"""

from __future__ import annotations

import csv as reader
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ....ir.errors import Error
from .dataset import Dataset
from .element import Array
from .sources import Arrays, File, unknown, unreadable

Columns = dict[str, Array]
CATEGORY = "category"
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")


class Table(Dataset):
    """A dataset from a table.

    columns  names of the feature columns, in the order of the matrix
    classes  column -> its values in the order of their numbers, for text that became numbers
    """

    def __init__(self, node: Arrays, columns: Sequence[str], classes: dict[str, list[Any]]) -> None:
        super().__init__(node)
        self.columns, self.classes = list(columns), classes


def csv(
    path: File,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    stacked: bool = True,
) -> Table:
    """Samples from the rows of a CSV file.

    The first row holds the column names, unless `names` gives them.  With a `target` elements are
    (features, target), else features alone.  `columns`: the features (default: all others).
    `dtypes`: column -> element type, or "category" for text to be numbered.  Missing numbers become
    NaN.  Errors: E0674 unreadable file or ragged row, E0675 unknown column, E0678 a value that is
    no number, each with its line.
    """
    try:
        with open(path, newline="", encoding=encoding) as file:
            lines = reader.reader(file, delimiter=delimiter)
            header = list(names) if names is not None else next(lines, [])
            rows, places = _rows(lines, header, path)
    except (OSError, UnicodeDecodeError, reader.Error) as reason:
        raise unreadable(path, reason) from None
    if not rows:
        raise Error("E0665", f"{path} has no row of data", hint="names= if it has no header")
    cells = dict(zip(header, zip(*rows)))
    types = dtypes or {}
    wanted = _wanted(header, target, columns, types, str(path))
    table = {n: _parsed(n, cells[n], types.get(n), places, path) for n in wanted}
    return _table(table, target, columns, types, stacked, str(path), "csv")


def _rows(lines: Any, header: Sequence[str], path: File) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank, and the line each stands on."""
    if len(set(header)) != len(header):
        twice = next(name for name in header if list(header).count(name) > 1)
        raise Error("E0674", f"{path} has two columns {twice!r}")
    rows, places = [], []
    for row in lines:
        if not row:
            continue
        if len(row) != len(header):
            raise Error(
                "E0674",
                f"{path}, line {lines.line_num}: {len(row)} values",
                details=(f"expected: {len(header)}, one for each column",),
            )
        rows.append(row)
        places.append(lines.line_num)
    return rows, places


def _parsed(
    name: str, cells: Sequence[str], dtype: Any, places: Sequence[int], path: File
) -> Array:
    """A column of text as numbers where all of it are numbers, else as strings (objects)."""
    if dtype == CATEGORY or dtype in (str, object):
        return np.array(cells, object)
    missing = any(cell.strip() in MISSING for cell in cells)
    if not missing:
        try:
            return np.array(cells).astype(np.int64)
        except (ValueError, OverflowError):
            pass
    try:
        return np.array(["nan" if c.strip() in MISSING else c for c in cells]).astype(np.float64)
    except ValueError:
        if dtype is None:
            return np.array(cells, object)
    line, cell = next((p, c) for p, c in zip(places, cells) if not _is_number(c))
    raise Error(
        "E0678",
        f"column {name!r}: {cell!r} is no number",
        where=f"{path}, line {line}",
        hint=f"dtypes={{{name!r}: 'category'}} numbers the values of a column of text",
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip() in MISSING
    return True


def parquet(
    path: File,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    *,
    stacked: bool = True,
) -> Table:
    """Samples from the rows of a parquet file, by pyarrow (extra `data`); arguments as of `csv`."""
    try:
        arrow: Any = import_module("pyarrow")
        files: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise missing_extra("pyarrow", "parquet files") from None
    types = dtypes or {}
    try:
        header = [str(name) for name in files.read_schema(path).names]
        wanted = _wanted(header, target, columns, types, str(path))
        read = files.read_table(path, columns=wanted)
    except (OSError, arrow.ArrowException) as reason:
        raise unreadable(path, reason) from None
    table = {n: read.column(n).to_numpy(zero_copy_only=False) for n in wanted}
    return _table(table, target, columns, types, stacked, str(path), "parquet")


def frame(
    table: Any,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    *,
    stacked: bool = True,
) -> Table:
    """Samples from the rows of a pandas DataFrame (or anything like one); arguments as of `csv`."""
    if not hasattr(table, "columns") or not hasattr(table, "__getitem__"):
        raise Error("E0663", f"frame() needs a table with columns, not a {type(table).__name__}")
    types, header = dtypes or {}, list(table.columns)
    wanted = _wanted(header, target, columns, types, "the frame")
    found = {name: np.asarray(table[name]) for name in wanted}
    return _table(found, target, columns, types, stacked, "the frame", "frame")


def missing_extra(package: str, what: str) -> Error:
    """The error for a package of the extra `data` that is not installed (E0679)."""
    return Error(
        "E0679", f"{what} need {package}, which is not installed",
        hint="pip install 'tensor-irc[data]'",
    )  # fmt: skip


# ------------------------------------------------------------------- columns to samples


def _wanted(
    header: Sequence[Any],
    target: str | None,
    columns: Sequence[str] | None,
    dtypes: Mapping[str, Any],
    where: str,
) -> list[Any]:
    """The columns to read; a name that is not there is E0675."""
    for name in [*(columns or ()), *dtypes, *([target] if target is not None else [])]:
        unknown(name, header, where)
    chosen = list(columns) if columns is not None else [n for n in header if n != target]
    if not chosen:
        raise Error("E0675", "there is no feature column", where=where)
    return chosen if target is None or target in chosen else [*chosen, target]


def _table(
    table: Mapping[Any, Array],
    target: str | None,
    columns: Sequence[str] | None,
    dtypes: Mapping[str, Any],
    stacked: bool,
    where: str,
    name: str,
) -> Table:
    """The dataset of a table whose columns have been read."""
    chosen = list(columns) if columns is not None else [n for n in table if n != target]
    classes: dict[str, list[Any]] = {}
    made: Columns = {}
    for column in chosen:
        made[column] = _feature(column, table[column], dtypes.get(column), classes, stacked, where)
    features: Any = made
    if stacked:
        kinds = [made[column].dtype for column in chosen]
        wide = np.float32 if not dtypes else np.result_type(*kinds)
        features = np.stack([made[column].astype(wide) for column in chosen], 1)
    if target is None:
        return Table(Arrays(features, name), chosen, classes)
    answer = _target(target, table[target], dtypes.get(target), classes, where)
    if stacked:
        return Table(Arrays((features, answer), name), chosen, classes)
    return Table(Arrays({**made, target: answer}, name), chosen, classes)


def _feature(
    name: str, column: Array, dtype: Any, classes: dict[str, list[Any]], stacked: bool, where: str
) -> Array:
    """A feature column: f32, or its given element type, or numbers of categories."""
    if dtype == CATEGORY:
        return _numbered(name, column, classes, where).astype(np.float32 if stacked else np.int64)
    if column.dtype.kind in "OUSM" and dtype not in (object, str):
        try:
            column = column.astype(np.float64)  # nullable numbers arrive as objects
        except (ValueError, TypeError):
            if not stacked and dtype is None:
                return column.astype(object)
            raise _text(name, where) from None
    if dtype in (object, str):
        if stacked:
            raise _text(name, where)
        return column.astype(object)
    return column.astype(np.float32 if dtype is None else np.dtype(dtype))


def _text(name: str, where: str) -> Error:
    return Error(
        "E0678",
        f"column {name!r} holds text, and features are numbers",
        where=where,
        hint=f"dtypes={{{name!r}: 'category'}} numbers its values; stacked=False keeps columns "
        "apart; columns=[...] leaves it out",
    )


def _target(
    name: str, column: Array, dtype: Any, classes: dict[str, list[Any]], where: str
) -> Array:
    """The target: whole numbers i64, others f32, text numbered; a missing value is E0678."""
    if column.dtype.kind == "f" or column.dtype.hasobject:
        blank = np.array([value is None or value != value or value == "" for value in column])
        if blank.any():
            raise Error(
                "E0678",
                f"the target {name!r} has no value in {int(blank.sum())} rows",
                where=f"{where}, first in row {int(blank.argmax())} of the data",
            )
    if dtype == CATEGORY or (column.dtype.kind in "OUSM" and dtype is None):
        return _numbered(name, column, classes, where)
    if dtype is not None:
        return column.astype(np.dtype(dtype))
    return column.astype(np.int64 if column.dtype.kind in "iub" else np.float32)


def _numbered(name: str, column: Array, classes: dict[str, list[Any]], where: str) -> Array:
    """Numbers of the sorted distinct values; the values go to `classes`."""
    try:
        values, numbers = np.unique(column, return_inverse=True)
    except TypeError:
        raise Error(
            "E0678", f"column {name!r} mixes kinds of values (or lacks some)", where=where
        ) from None
    classes[name] = values.tolist()
    return numbers.astype(np.int64)


