"""Portable C99 from loop-level IR."""
