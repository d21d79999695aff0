"""Which LLVM stands behind the emitter, for cache keys and bug reports.  Imports llvmlite late."""

from __future__ import annotations


def llvm_version() -> str:
    """The version as "22.1.0"."""
    import llvmlite.binding as llvm

    return ".".join(str(part) for part in llvm.llvm_version_info)
