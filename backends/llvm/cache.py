"""Compiled kernels on disk: found by content, written atomically, bounded in size.

A key is the SHA-256 of the text, the target, llvmlite's version and our format, so that an entry
never goes stale; it can only be evicted (least recently used first) or found damaged, and then it
counts as absent and is written again. Several processes may share a folder.  A folder that cannot
be written costs speed only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from pathlib import Path

import llvmlite

FORMAT = 2
"""Version of the entries; part of every key."""

DEFAULT_LIMIT = 1 << 30
"""Bytes that the entries of one folder may take."""

_MAGIC = b"irc kernel 1\n"


def cache_dir() -> Path:
    """Where irc keeps files between runs: `IRC_CACHE_DIR`, else the user's cache; may not exist."""
    chosen = os.environ.get("IRC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "irc"
    if os.name == "nt" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"]) / "irc" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irc"


def cache_key(text: str, target: str) -> str:
    """The key, in hex, of `text` compiled for the target that `target` describes completely."""
    digest = hashlib.sha256(f"{FORMAT}\0{llvmlite.__version__}\0{target}\0".encode())
    digest.update(text.encode())
    return digest.hexdigest()


class KernelCache:
    """The entries of one folder.  Safe with several threads and several processes."""

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._unseen = limit  # bytes written since the folder was last measured; at first unknown
        self._lock = threading.Lock()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def get(self, key: str) -> bytes | None:
        """The entry, now the most recently used, or None where it is absent or damaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = _unseal(data)
        try:
            if body is None:
                path.unlink()
            else:
                os.utime(path)
        except OSError:
            pass  # another process was quicker, or the folder is read-only
        return body

    def put(self, key: str, body: bytes) -> None:
        """Write an entry, then evict what exceeds the limit; a failure to write is silent."""
        path = self._path(key)
        try:
            _replace(path, _MAGIC + hashlib.sha256(body).digest() + body)
        except OSError:
            return
        with self._lock:
            self._unseen += len(body)
            if self._unseen * 16 < self.limit:
                return
            self._unseen = 0
            evict(self.folder, "??/*", self.limit)


def evict(folder: Path, pattern: str, limit: int) -> None:
    """Measure the files of a folder; over the limit, drop the oldest ones down to 7/8 of it.

    What a crash left behind counts and goes like any other.
    """
    entries = []
    for path in folder.glob(pattern):
        try:
            stat = path.stat()
        except OSError:
            continue
        entries.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    if total <= limit:
        return
    for _, size, path in sorted(entries):
        if total * 8 <= limit * 7:
            return
        path.unlink(missing_ok=True)
        total -= size


def _unseal(data: bytes) -> bytes | None:
    """The body of an entry whose checksum is right."""
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        return None
    return body


def _replace(path: Path, data: bytes) -> None:
    """Write a whole file or none: a temporary one beside it, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


_caches: dict[Path, KernelCache] = {}


def kernel_cache() -> KernelCache:
    """The cache of kernels in the folder that holds now."""
    folder = cache_dir() / "kernels"
    return _caches.setdefault(folder, KernelCache(folder))
