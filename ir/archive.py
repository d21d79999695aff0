"""Programs on disk: `.irc` (a zip of text and weights) and `.ir` (text, weights beside it).

An archive says the version of its format; `parse` upgrades ops written in an older one.  Files are
written beside their goal and moved there, so a failure leaves the old file intact; the same program
gives the same bytes.  Nothing is ever unpickled.  Imports: text, weights, errors.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import Error, InvalidModelError
from .ops.core import Module
from .parse import FORMAT, parse
from .text import blobs_of, print_op
from .weights import ALIGNMENT, read_weights, write_weights

LOCAL_HEADER = 30
"""Bytes of a zip entry before its name."""
ABOUT, TEXT, WEIGHTS = "about.json", "module.ir", "weights.safetensors"
_VERSION = re.compile(r"// irc format (\d{1,6})\n")


def save(module: Module, path: str | os.PathLike[str]) -> None:
    """Write an `.irc` archive; for a path ending in .ir, text and a .safetensors file beside it.

    Raises E0264 where the file cannot be written.
    """
    goal = Path(path)
    text = f"// irc format {FORMAT}\n{print_op(module)}\n".encode()
    blobs = blobs_of(module).values()
    if goal.suffix == ".ir":
        if blobs:
            with replacing(goal.with_suffix(".safetensors")) as file:
                write_weights(file, blobs)
        with replacing(goal) as file:
            file.write(text)
        return
    with replacing(goal) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        about = json.dumps({"format": FORMAT}).encode()
        for name, content in ((ABOUT, about), (TEXT, text)):
            archive.writestr(_entry(name), content)
        with archive.open(_aligned(file), "w", force_zip64=True) as entry:
            write_weights(entry, blobs)  # type: ignore[arg-type]  # a binary file in all that is used


def load(path: str | os.PathLike[str]) -> Module:
    """The module in an `.irc` or `.ir` file.

    Raises E0260 and E0261 for a damaged file, E0262 for one of a newer version, E0263 for an
    unreadable one.
    """
    source = Path(path)
    try:
        if source.suffix == ".ir":
            return _load_text(source)
        return _load_archive(source)
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile seeks before the start where the front is missing
            raise InvalidModelError("E0260", f"{source} is damaged, or no .irc file") from None
        raise Error("E0263", f"cannot read {source}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InvalidModelError("E0260", f"{source} is not text in UTF-8") from None
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
    ) as error:
        raise InvalidModelError(
            "E0260", f"{source} is damaged, or no .irc file", details=(str(error)[:200],)
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Behind a link the file it names is replaced; a device or pipe is written to and stays one.
    """
    temporary = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                with open(path, "wb") as device:
                    shutil.copyfileobj(file, device)
            return
        goal = path.resolve() if path.is_symlink() else path
        handle, temporary = tempfile.mkstemp(dir=goal.parent, prefix=".new-")
        with open(handle, "w+b") as file:
            yield file
        os.chmod(temporary, goal.stat().st_mode & 0o777 if goal.exists() else 0o666 & ~_umask())
        os.replace(temporary, goal)
        temporary = None
    except OSError as error:
        raise Error("E0264", f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980: the bytes depend on the program alone
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def _aligned(file: BinaryIO) -> zipfile.ZipInfo:
    """The entry of the weights, padded so that its content starts aligned."""
    info = _entry(WEIGHTS)
    zip64 = 20
    used = file.tell() + LOCAL_HEADER + len(WEIGHTS) + zip64 + 4
    pad = -used % ALIGNMENT
    info.extra = b"IR" + pad.to_bytes(2, "little") + bytes(pad)
    return info


def _load_text(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    weights = path.with_suffix(".safetensors")
    blobs = (
        read_weights(weights, 0, weights.stat().st_size, trusted=False) if weights.exists() else {}
    )
    stated = _VERSION.match(text)
    return parse(text, blobs, str(path), _readable(int(stated[1]) if stated else FORMAT, path))


def _load_archive(path: Path) -> Module:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} does not have its checksum")
        about = json.loads(archive.read(ABOUT))
        if not isinstance(about, dict) or not isinstance(about.get("format"), int):
            raise ValueError("it does not say its format")
        version = _readable(about["format"], path)
        text = archive.read(TEXT).decode("utf-8")
        info = archive.getinfo(WEIGHTS)
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = info.header_offset + LOCAL_HEADER + lengths
    blobs = read_weights(path, start, info.file_size, trusted=True)
    return parse(text, blobs, f"{path}/{TEXT}", version)


def _readable(version: int, path: Path) -> int:
    if not 1 <= version <= FORMAT:
        raise InvalidModelError(
            "E0262",
            f"{path} has format {version}; this version reads 1 to {FORMAT}",
            hint="install a newer tensor-irc",
        )
    return version


__all__ = ["load", "replacing", "save"]
