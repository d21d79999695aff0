"""`.ircx` files: a compiled plan with its objects and weights, loaded without compiling anything.

A zip of stored entries: weights.bin first, at a multiple of 64 bytes so that it can be mapped; then
the objects, host.ir (the ops that the host evaluates), and manifest.json, which says versions,
target and checksums. Files are written whole or not at all.  Errors: E0508 damaged or of another
version, E0509 cannot be read, E0497 built for another processor. May import: ir,
build.py, host.py, executable.py.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...ir.archive import replacing
from ...ir.core import Builder, Op
from ...ir.dims import parse_dim
from ...ir.errors import Error, InvalidModelError, UnsupportedError
from ...ir.ops.core import Func, Module, Return
from ...ir.parse import parse
from ...ir.text import print_op
from ...ir.types import TensorType, parse_type
from ...passes.memory import Item, Layout
from ..arrays import Array, aligned
from ..executable import Program
from ..llvm.compile import CodegenTarget
from ..llvm.version import llvm_version
from .build import Built, CpuExecutable, load
from .host import host

FORMAT = 1
_WEIGHTS = "weights.bin"
_ALIGN = 64
_PIECE = 1 << 20
_LOCAL = struct.Struct("<26xHH")


def save(
    built: Built, weights: Array, host_steps: Mapping[str, Op], path: str | os.PathLike[str]
) -> None:
    """Write an archive; the old file, if any, stays until the new one is complete.  E0264."""
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        _write(archive, built, weights, host_steps)


def _write(
    archive: zipfile.ZipFile, built: Built, weights: Array, host_steps: Mapping[str, Op]
) -> None:
    info = zipfile.ZipInfo(_WEIGHTS)
    head = 30 + len(_WEIGHTS) + (20 if weights.size >= 1 << 31 else 0)
    room = -head % _ALIGN
    room += _ALIGN if room < 4 else 0
    info.extra = struct.pack("<HH", 0x4952, room - 4) + bytes(room - 4)
    archive.writestr(info, memoryview(np.ascontiguousarray(weights)))  # type: ignore[arg-type]
    for name, body in built.objects.items():
        archive.writestr(zipfile.ZipInfo(f"objects/{name}.o"), body)
    text = _host_text(host_steps)
    archive.writestr(zipfile.ZipInfo("host.ir"), text)
    manifest = _manifest(built, weights, text)
    archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(manifest, indent=1))


def _manifest(built: Built, weights: Array, host_text: str) -> dict[str, Any]:
    program = built.program
    return {
        "format": FORMAT,
        "llvm": llvm_version(),
        "codegen": dataclasses.asdict(built.codegen),
        "entry": built.entry,
        "threads": built.threads,
        "inputs": [[n, t.text] for n, t in program.inputs],
        "results": [[n, t.text] for n, t in program.results],
        "state": program.state,
        "dims": program.dims,
        "arena": str(program.layout.arena),
        "buffers": [
            [i.name, str(i.size), str(o), i.first, i.last]
            for i, o in zip(program.layout.items, program.layout.offsets, strict=True)
        ],
        "kernels": program.kernels,
        "calls": program.calls,
        "copies": program.copies,
        "host_steps": [
            [n, [t.text for t in a], [t.text for t in r]] for n, a, r in program.host_steps
        ],
        "host_sha256": hashlib.sha256(host_text.encode()).hexdigest(),
        "weights": {
            "bytes": int(weights.size),
            "crc32": zlib.crc32(np.ascontiguousarray(weights).data),
        },
        "objects": {name: hashlib.sha256(body).hexdigest() for name, body in built.objects.items()},
    }


def _host_text(steps: Mapping[str, Op]) -> str:
    """The host steps as functions of one op each."""
    funcs = []
    for name, op in steps.items():
        operands = [v for v in op.operands if v is not None]
        func = Func.make(name, [v.type for v in operands], kind="func")
        env = dict(zip(operands, func.args, strict=True))
        made = func.body.append(op.copy(env))
        Builder(func.body).emit(Return, *made.results)
        funcs.append(func)
    return print_op(Module.make(funcs, "host"))


def open_archive(path: str | os.PathLike[str]) -> CpuExecutable:
    """Load an archive; the weights are mapped from it, so the file must stay."""
    source = Path(path)
    try:
        with zipfile.ZipFile(source) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            _check_version(source, manifest)
            names = manifest["objects"]
            objects = {name: archive.read(f"objects/{name}.o") for name in names}
            text = archive.read("host.ir").decode()
            where = archive.getinfo(_WEIGHTS)
        _check_content(source, manifest, objects, text)
        weights = _map_weights(source, where, manifest["weights"])
        built = _built(manifest, objects)
        host_ops = _host_ops(text)
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile seeks before the start where the front is missing
            raise _damaged(source, "its front is missing") from None
        raise Error(
            "E0509", f"cannot read {source}", details=(error.strerror or str(error),)
        ) from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, struct.error, zlib.error) as error:
        raise _damaged(source, f"{type(error).__name__}: {error}") from None
    _check_machine(source, built.codegen)
    return load(built, weights, host_ops)


def _damaged(source: Path, why: str) -> InvalidModelError:
    return InvalidModelError(
        "E0508",
        f"{source} is damaged or no .ircx file",
        details=(why,),
        hint="compile the model again",
    )


def _check_version(source: Path, manifest: Mapping[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise InvalidModelError(
            "E0508",
            f"{source} has format {manifest['format']}; this irc reads {FORMAT}",
            hint="compile the model again",
        )


def _check_content(
    source: Path, manifest: Mapping[str, Any], objects: Mapping[str, bytes], text: str
) -> None:
    for name, body in objects.items():
        if hashlib.sha256(body).hexdigest() != manifest["objects"][name]:
            raise _damaged(source, f"the checksum of object {name} is wrong")
    if hashlib.sha256(text.encode()).hexdigest() != manifest["host_sha256"]:
        raise _damaged(source, "the checksum of the host steps is wrong")


def _check_machine(source: Path, codegen: CodegenTarget) -> None:
    """Refuse code for another architecture, or for features that this processor lacks."""
    machine = host()
    wanted = {f[1:] for f in codegen.features.split(",") if f.startswith("+")}
    lacking = sorted(wanted - machine.features)
    if codegen.arch != machine.arch or lacking:
        said = f"it was compiled for {codegen.triple} {codegen.cpu}"
        raise UnsupportedError(
            "E0497",
            f"{source} does not run on this processor",
            details=(said, *([f"lacking here: {', '.join(lacking)}"] if lacking else [])),
        )


def _map_weights(source: Path, info: zipfile.ZipInfo, said: Mapping[str, Any]) -> Array:
    """The weights, mapped read-only; their checksum is compared.

    It is taken by reading, not through the map: pages that no run needs stay out of memory.
    """
    if info.file_size != said["bytes"]:
        raise ValueError("the weights have another size")
    if info.file_size == 0:
        return aligned(0)
    with open(source, "rb") as file:
        file.seek(info.header_offset)
        name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        start = info.header_offset + _LOCAL.size + name + extra
        if _checksum(file, start, info.file_size) != said["crc32"]:
            raise ValueError("the checksum of the weights is wrong")
    return np.asarray(np.memmap(source, np.uint8, "r", start, (info.file_size,)))


def _checksum(file: BinaryIO, start: int, size: int) -> int:
    """CRC-32 of a stretch of a file."""
    file.seek(start)
    found = 0
    while size > 0:
        piece = file.read(min(size, _PIECE))
        if not piece:
            break  # the file is shorter than it says
        found = zlib.crc32(piece, found)
        size -= len(piece)
    return found


def _built(manifest: Mapping[str, Any], objects: dict[str, bytes]) -> Built:
    rows = manifest["buffers"]
    items = tuple([Item(n, parse_dim(size), first, last) for n, size, _, first, last in rows])
    layout = Layout(
        tuple([parse_dim(o) for _, _, o, _, _ in rows]), parse_dim(manifest["arena"]), items
    )
    program = Program(
        inputs=tuple([(n, _tensor(t)) for n, t in manifest["inputs"]]),
        results=tuple([(n, _tensor(t)) for n, t in manifest["results"]]),
        state=tuple([(p, r) for p, r in manifest["state"]]),
        dims=tuple(manifest["dims"]),
        layout=layout,
        weight_bytes=manifest["weights"]["bytes"],
        kernels=tuple(manifest["kernels"]),
        calls=manifest["calls"],
        copies=tuple(manifest["copies"]),
        host_steps=tuple(
            [
                (n, tuple(map(_tensor, a)), tuple(map(_tensor, r)))
                for n, a, r in manifest["host_steps"]
            ]
        ),
    )
    codegen = CodegenTarget(**manifest["codegen"])
    return Built(program, objects, manifest["entry"], codegen, manifest["threads"])


def _tensor(text: str) -> TensorType:
    found = parse_type(text)
    if not isinstance(found, TensorType):
        raise ValueError(f"{text} is no tensor type")
    return found


def _host_ops(text: str) -> dict[str, Op]:
    """The op of each host step, by name."""
    return {f.sym: op for f in parse(text).funcs if (op := f.body.first) is not None}


__all__ = ["FORMAT", "open_archive", "save"]
