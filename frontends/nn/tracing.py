"""Traces (being written)."""


class Trace:
    """A trace."""
