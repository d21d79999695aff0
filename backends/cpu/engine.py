"""Object code loaded into this process.

One LLVM JIT linker serves the process; every `Engine` is a library of its own in it, so the symbols
of two engines never meet.  Symbols that no object defines come from `symbols`, then from the
process (libc, libm, pthreads). The linker itself lives as long as the process: code may still be
running in some thread while Python shuts down.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import itertools
import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ...ir.errors import EXIT_INTERNAL, Error

if TYPE_CHECKING:
    from llvmlite.binding import LLJIT

# llvmlite's own lock is not safe to fork; holding this one around each call keeps a child from
# inheriting it locked.
_lock = threading.RLock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
_numbers = itertools.count()


@functools.cache
def _linker() -> LLJIT:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        reloc="pic", codemodel="small"
    )
    math = ctypes.util.find_library("m")
    if math is not None:
        llvm.load_library_permanently(math)
    linker = llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)
    linker._owned = True  # by the process: never disposed of
    return linker


class Engine:
    """Object files linked together in memory.

    `objects` maps names, used in errors only, to object files for this machine; `symbols` gives
    addresses to undefined symbols.  Addresses hold until `close`, which also happens when the
    engine is collected. Errors: E0495 where objects do not link or a symbol is missing.
    """

    def __init__(
        self, objects: Mapping[str, bytes], symbols: Mapping[str, int] | None = None
    ) -> None:
        from llvmlite.binding import JITLibraryBuilder

        self._name = f"irc.{os.getpid()}.{next(_numbers)}"
        self._addresses: dict[str, int] = {}
        self._trackers = []
        builder = JITLibraryBuilder().add_current_process()
        for body in objects.values():
            builder.add_object_img(body)
        for symbol, address in (symbols or {}).items():
            builder.import_symbol(symbol, address)
        try:
            with _lock:
                self._trackers.append(builder.link(_linker(), self._name))
        except RuntimeError as error:
            raise _link_error(f"cannot link {', '.join(objects)}", error) from None

    def address(self, symbol: str) -> int:
        """The address of a symbol that one of the objects defines."""
        known = self._addresses.get(symbol)
        if known is not None:
            return known
        if not self._trackers:
            raise Error(
                "E0495", f"the engine of symbol '{symbol}' is closed", exit_code=EXIT_INTERNAL
            )
        try:
            with _lock:
                tracker = _linker().lookup(self._name, symbol)
        except RuntimeError as error:
            raise _link_error(f"no symbol '{symbol}' in the loaded objects", error) from None
        self._trackers.append(tracker)
        self._addresses[symbol] = int(tracker[symbol])
        return self._addresses[symbol]

    def keep(self) -> None:
        """Keep the code for the life of the process, for threads that never return from it."""
        for tracker in self._trackers:
            tracker.detach()

    def close(self) -> None:
        """Unload the code; every address of it is void."""
        self._addresses.clear()
        with _lock:
            while self._trackers:
                self._trackers.pop().close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _link_error(message: str, error: RuntimeError) -> Error:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Error("E0495", message, details=lines[:6], exit_code=EXIT_INTERNAL)
