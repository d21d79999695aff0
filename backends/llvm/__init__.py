"""LLVM text from planned loops, compiled through `llvmlite.binding`."""
