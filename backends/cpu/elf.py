"""Object and archive files made without a tool: constants as an ELF object, objects as an archive.

Formats: System V ABI, chapter 4 (ELF-64, little end first), and the archive of ar(5) with the
symbol index of System V.  Equal content gives equal bytes: no time, owner or path is written.
May import: ir errors only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from ...ir.errors import UnsupportedError

_MACHINES = {"x86_64": 62, "aarch64": 183}
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALIGN = 64
_HEADER, _SYMBOL = 64, 24


def constants_object(symbol: str, data: bytes | memoryview, arch: str) -> bytes:
    """A relocatable object that defines `symbol`, hidden, as these read-only bytes at a multiple
    of 64.
    """
    if arch not in _MACHINES:
        raise UnsupportedError("E0493", f"no object of constants is known for {arch}")
    names = b"\0.rodata\0.note.GNU-stack\0.symtab\0.strtab\0.shstrtab\0"
    strings = b"\0" + symbol.encode() + b"\0"
    # The null symbol, then ours: global object, hidden, in section 1.
    symbols = bytes(_SYMBOL) + struct.pack("<IBBHQQ", 1, 0x11, 2, 1, 0, len(data))
    parts: list[bytes | memoryview] = []
    rows = [bytes(64)]
    at = _HEADER

    def section(name: bytes, kind: int, body: bytes | memoryview, align: int, flags: int = 0,
                link: int = 0, info: int = 0, entry: int = 0) -> None:  # fmt: skip
        nonlocal at
        parts.append(bytes(-at % align))
        at += -at % align
        where = names.index(b"\0" + name + b"\0") + 1
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", where, kind, flags, 0, at, len(body), link, info, align, entry
            )  # fmt: skip
        )
        parts.append(body)
        at += len(body)

    section(b".rodata", _PROGBITS, data, _ALIGN, flags=2)
    section(b".note.GNU-stack", _PROGBITS, b"", 1)
    section(b".symtab", _SYMTAB, symbols, 8, link=4, info=1, entry=_SYMBOL)
    section(b".strtab", _STRTAB, strings, 1)
    section(b".shstrtab", _STRTAB, names, 1)
    parts.append(bytes(-at % 8))
    at += -at % 8
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, _MACHINES[arch], 1, 0, 0, at, 0, _HEADER,
        0, 0, 64, len(rows), len(rows) - 1,
    )  # fmt: skip
    return b"".join([head, *parts, *rows])


def archive(objects: Mapping[str, bytes], symbols: Mapping[str, Sequence[str]]) -> bytes:
    """A static archive of objects by file name; `symbols` says what each defines."""
    names = b"".join([f"{name}/\n".encode() for name in objects])
    index = [(symbol, name) for name in objects for symbol in symbols[name]]
    table = b"".join([symbol.encode() + b"\0" for symbol, _ in index])
    sizes = {name: 60 + len(body) + len(body) % 2 for name, body in objects.items()}
    start = 8 + sum([60 + n + n % 2 for n in (4 + 4 * len(index) + len(table), len(names))])
    offsets = {}
    for name, size in sizes.items():
        offsets[name] = start
        start += size
    places = [offsets[name] for _, name in index]
    head = struct.pack(f">{len(index) + 1}I", len(index), *places)
    members = [_member("/", head + table), _member("//", names)]
    at = 0
    for name, body in objects.items():
        members.append(_member(f"/{at}", body))
        at += len(name) + 2
    return b"".join([b"!<arch>\n", *members])


def _member(name: str, body: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(body):<10}`\n"
    return head.encode() + body + b"\n" * (len(body) % 2)


__all__ = ["archive", "constants_object"]
