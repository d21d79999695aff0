"""Sources in memory and streams: arrays, npz files, windows of tokens, lines of text, generators.

Invariant: `rows` gives arrays of its own, one numpy take per array; a user may write into a batch.
Imports numpy, nodes, datasets, elements and errors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ....ir.errors import Error
from .dataset import Dataset
from .element import Array, Element, as_element, count, each, fields, names
from .node import Node, Where, skip
from .order import need

File = str | PathLike[str]
ROWS_AT_ONCE = 256  # when samples are handed out one by one


class Arrays(Node):
    """Arrays side by side: sample i is row i of each."""

    def __init__(self, block: Element, name: str = "arrays") -> None:
        self.block, self.name = block, name
        self.size, self.chunk = count(block), ROWS_AT_ONCE

    def describe(self) -> str:
        """With the number of samples."""
        return f"{self.name}({self.size})"

    def rows(self, where: Where, epoch: int) -> Element:
        """A copy of a slice, or a take."""
        block = self.block
        if isinstance(where, slice):
            return each(block, lambda field: field[where].copy())
        if isinstance(block, tuple):
            return tuple([field.take(where, 0) for field in block])
        return each(block, lambda field: field.take(where, 0))


def arrays(*columns: Any) -> Dataset:
    """Arrays of equal length, samples in the first dimension: `arrays(X, y)`.

    One array gives elements that are arrays, several give tuples, a dict gives dicts.  Anything
    with `__array__` will do.  Lengths that differ are E0662, no sample at all is E0665.
    """
    if not columns:
        raise Error("E0663", "arrays() needs at least one array")
    made = as_element(columns[0] if len(columns) == 1 else tuple(columns))
    for name, field in zip(names(made), fields(made)):
        if np.ndim(field) == 0:
            raise Error("E0662", f"array {name} is a single value, not one value for each sample")
    return Dataset(Arrays(made))


def npz(path: File, *keys: str) -> Dataset:
    """Arrays of a .npz file: those named, in this order, or all of the file as a dict.

    One key gives elements that are arrays, several give tuples.  A file that cannot be read is
    E0674, an unknown key E0675; arrays of Python objects are refused.
    """
    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise ValueError("it holds a single array: it is a .npy file")
        with opened as file:
            for key in keys:
                unknown(key, file.files, f"{path}", "array")
            found = {key: file[key] for key in (keys or file.files)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as reason:
        raise unreadable(path, reason) from None
    if not keys:
        return Dataset(Arrays(as_element(found), "npz"))
    made = tuple(found[key] for key in keys)
    return Dataset(Arrays(as_element(made if len(made) > 1 else made[0]), "npz"))


def unreadable(path: File, reason: Exception | str) -> Error:
    """The error for a file that cannot be read (E0674)."""
    return Error("E0674", f"cannot read {path}", details=(f"{reason}",))


def unknown(name: object, known: Sequence[Any], where: str, what: str = "column") -> None:
    """Refuse a name that is not among those known (E0675)."""
    if name in known:
        return
    near = [k for k in known if str(k).lower() == str(name).lower()]
    raise Error(
        "E0675",
        f"there is no {what} {name!r}",
        where=where,
        details=(f"there are: {', '.join(repr(k) for k in known)}",),
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


# ------------------------------------------------------------------- text


class Tokens(Node):
    """Windows of a row of tokens: (tokens[a : a + window], the same one further)."""

    def __init__(self, ids: Array, window: int, stride: int) -> None:
        self.ids, self.window, self.stride = ids, window, stride
        self.size = max((len(ids) - window - 1) // stride + 1, 0)
        self.chunk = ROWS_AT_ONCE
        self._reach = np.arange(window + 1)

    def describe(self) -> str:
        """With the number of tokens and the window."""
        return f"tokens({len(self.ids)}, {self.window}, stride={self.stride})"

    def rows(self, where: Where, epoch: int) -> Element:
        """One take for all windows."""
        if isinstance(where, slice):
            where = np.arange(where.start, where.stop)
        block = self.ids.take(where[:, None] * self.stride + self._reach)
        return block[:, :-1].copy(), block[:, 1:].copy()


def tokens(ids: Any, window: int, stride: int | None = None) -> Dataset:
    """Input and target windows for a language model, from one long row of token numbers.

    Elements are (x, y) of `window` tokens, y one token further; window k begins at k * `stride`
    (default: `window`, none overlap; with stride 1, `shuffle` gives windows at random places).
    A text becomes token numbers by `characters`.
    """
    row = np.asarray(ids)
    if row.ndim != 1 or row.dtype.kind not in "iu":
        raise Error(
            "E0676",
            "tokens are one row of integers",
            details=(f"found: {row.dtype} of shape {row.shape}",),
            hint="ids, vocabulary = data.characters(text)" if row.dtype.kind in "US" else None,
        )
    need(window, 1, "tokens(window=)")
    if len(row) < window + 1:
        raise Error(
            "E0665",
            f"{len(row)} tokens are too few for a window of {window} and its target",
            details=(f"expected: at least {window + 1}",),
        )
    stride = window if stride is None else need(stride, 1, "tokens(stride=)")
    return Dataset(Tokens(row, window, stride))


def characters(text: str, vocabulary: str | None = None) -> tuple[Array, str]:
    """A text as i32 numbers of characters, and the vocabulary (its characters, sorted).

    With a given vocabulary, a character that is not in it is E0676.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    known = np.unique(points)
    if vocabulary is not None:
        given = np.array([ord(c) for c in vocabulary], np.uint32)
        strange = np.setdiff1d(known, given)
        if len(strange):
            raise Error(
                "E0676",
                f"the character {chr(strange[0])!r} is not in the vocabulary",
                details=(f"at position {text.index(chr(strange[0]))} of the text",),
            )
        order = np.argsort(given)
        return order[np.searchsorted(given, points, sorter=order)].astype(np.int32), vocabulary
    return np.searchsorted(known, points).astype(np.int32), "".join(map(chr, known))


class Lines(Node):
    """Lines of text files; the files stay on disk, only where lines begin is kept."""

    def __init__(self, paths: Sequence[Path], encoding: str, blank: bool) -> None:
        self.paths, self.encoding, self.chunk = list(paths), encoding, ROWS_AT_ONCE
        self._bytes: list[Array] | None = None
        spans = [_spans(data, blank) for data in self.data]
        self.spans = np.concatenate(spans)
        self.file = np.repeat(np.arange(len(spans)), [len(s) for s in spans])
        self.size = len(self.spans)

    @property
    def data(self) -> list[Array]:
        """The bytes of the files, mapped into memory."""
        if self._bytes is None:
            self._bytes = [_mapped(path) for path in self.paths]
        return self._bytes

    def describe(self) -> str:
        """With the number of lines."""
        return f"text({self.size})"

    def label(self, position: int, epoch: int) -> str:
        """The file and the number of the sample."""
        return f"sample {position} of {self.paths[int(self.file[position])]}"

    def rows(self, where: Where, epoch: int) -> Element:
        """An array of Python strings."""
        data, spans, files = self.data, self.spans[where], self.file[where]
        made = np.empty(len(spans), object)
        for k, ((first, last), file) in enumerate(zip(spans.tolist(), files.tolist())):
            try:
                made[k] = data[file][first:last].tobytes().decode(self.encoding)
            except UnicodeDecodeError as reason:
                raise Error(
                    "E0674",
                    f"a line is not {self.encoding}: {reason.reason}",
                    where=f"{self.paths[file]}, byte {first + reason.start}",
                ) from None
        return made

    def forget(self) -> dict[str, Any]:
        """Without the mapped files: a worker maps them anew."""
        return {**self.__dict__, "_bytes": None}


def _mapped(path: Path) -> Array:
    try:
        empty = path.stat().st_size == 0
        return np.zeros(0, np.uint8) if empty else np.memmap(path, np.uint8, mode="r")
    except OSError as reason:
        raise unreadable(path, reason) from None


def _spans(data: Array, blank: bool) -> Array:
    """First and last byte of each line, without its end of line; blank lines only if asked for."""
    ends = np.flatnonzero(data == ord("\n"))
    if len(data) and data[-1] != ord("\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    carriage = (ends > starts) & (data[np.maximum(ends - 1, 0)] == ord("\r")) if len(ends) else ends
    spans = np.stack([starts, ends - carriage], 1)
    return spans if blank else spans[spans[:, 1] > spans[:, 0]]


def text(paths: File | Sequence[File], encoding: str = "utf-8", blank: bool = False) -> Dataset:
    """The lines of one or several text files, as Python strings (a batch: an array of objects).

    Lines keep their order; empty ones are left out unless `blank`.  Files are mapped, not read.
    """
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not given:
        raise Error("E0663", "text() needs at least one file")
    try:
        plain = "\n".encode(encoding) == b"\n"
    except LookupError:
        plain = False
    if not plain:
        raise Error(
            "E0663",
            f"text(encoding={encoding!r})",
            details=("expected: an encoding in which a line ends with the byte 0x0A",),
        )
    return Dataset(Lines([Path(path) for path in given], encoding, blank))


# ------------------------------------------------------------------- generators


class Stream(Node):
    """Elements that a function yields, one after the other, anew each epoch."""

    indexed = False

    def __init__(self, make: Callable[[], Iterable[Any]], length: int | None) -> None:
        self.make, self.size = make, length

    def describe(self) -> str:
        """With the length, if it is promised."""
        return f"generator({'' if self.size is None else self.size})"

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """The function's elements; those before `start` are made and dropped."""
        made = 0
        for element in skip(iter(self.make()), start):
            made += 1
            yield as_element(element)
        if self.size is not None and start <= self.size and start + made != self.size:
            raise Error(
                "E0677",
                f"generator(length={self.size}) ended after {start + made} elements",
                hint="leave the length out if it is not known",
            )
        if start == 0 and made == 0:
            raise Error("E0665", "the dataset is empty: the generator gave no element")


def generator(make: Callable[[], Iterable[Any]], length: int | None = None) -> Dataset:
    """The samples that `make()` yields; it is called again for each epoch.

    `make` is a function (a generator function, or one that gives a list or an iterator), so that an
    epoch can begin again: a generator that is already running is refused.  `length`, if given, is
    what `len()` says and is checked.  Resuming makes the earlier samples again and drops them.
    """
    if not callable(make):
        raise Error(
            "E0663",
            f"generator() needs a function, not a {type(make).__name__}",
            hint="give the function itself (or a lambda), not what it returned",
        )
    length = None if length is None else need(length, 1, "generator(length=)")
    return Dataset(Stream(make, length))
