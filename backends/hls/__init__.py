"""C++ for high-level synthesis from loop-level IR."""
