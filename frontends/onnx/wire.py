"""The wire format of a model file, as far as it takes to leave its weights where they are.

A model is some hundred kilobytes of graph around its initializers' raw data.  `without_weights`
copies the graph and says where the data lies, so that protobuf never sees it and it can be mapped.
Field numbers are those of onnx.proto.  What is not understood is protobuf's to judge: the answer is
then None.  Imports: nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""ModelProto.graph, GraphProto.initializer, TensorProto.raw_data."""

LARGE = 4096
"""Bytes of raw data from which it stays in the file."""

Spans = dict[int, tuple[int, int]]
"""(offset, length) of the raw data of an initializer, by its number."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}


class _Unknown(Exception):
    """The bytes are not what this file understands."""


def without_weights(data: memoryview) -> tuple[bytes, Spans] | None:
    """The model without the large raw data of its graph's initializers, and where that lies.

    None where the data is no such message.
    """
    spans: Spans = {}
    made: list[bytes | memoryview] = []
    try:
        numbers = iter(range(len(data)))
        for number, start, body, end in _fields(data, 0, len(data)):
            if number == GRAPH and body >= 0:
                graph = _graph(data, body, end, spans, numbers)
                made += [_varint(GRAPH << 3 | _BYTES), _varint(len(graph)), graph]
            else:
                made.append(data[start:end])
    except (_Unknown, IndexError):
        return None
    return b"".join(made), spans


def _graph(data: memoryview, at: int, stop: int, spans: Spans, numbers: Iterator[int]) -> bytes:
    """A GraphProto, its large initializers without their data."""
    made: list[bytes | memoryview] = []
    kept = at
    for number, start, body, end in _fields(data, at, stop):
        if number != INITIALIZER or body < 0:
            continue
        k = next(numbers)
        found = _tensor(data, body, end) if end - body >= LARGE else None
        if found is not None:
            tensor, span = found
            spans[k] = span
            head = _varint(INITIALIZER << 3 | _BYTES) + _varint(len(tensor))
            made += [data[kept:start], head, tensor]
            kept = end
    made.append(data[kept:stop])
    return b"".join(made)


def _tensor(data: memoryview, at: int, stop: int) -> tuple[bytes, tuple[int, int]] | None:
    """A TensorProto without its raw data, and where that lies; None where it is not large."""
    made: list[memoryview] = []
    span = None
    for number, start, body, end in _fields(data, at, stop):
        if number == RAW_DATA and body >= 0:
            span = body, end - body  # of several the last counts, as in protobuf
        else:
            made.append(data[start:end])
    if span is None or span[1] < LARGE:
        return None
    return b"".join(made), span


def _fields(data: memoryview, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start, start of the body of a length-delimited field or -1, end) of each
    field.
    """
    while at < stop:
        start = at
        key, at = _read_varint(data, at)
        kind, body = key & 7, -1
        if kind == _BYTES:
            length, body = _read_varint(data, at)
            at = body + length
        elif kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind in _WIDTH:
            at += _WIDTH[kind]
        else:
            raise _Unknown
        if at > stop:
            raise _Unknown
        yield key >> 3, start, body, at


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits to the byte, and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Unknown


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


__all__ = ["LARGE", "Spans", "without_weights"]
