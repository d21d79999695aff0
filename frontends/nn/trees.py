"""Arguments and results made of tuples, lists and dicts: taken apart to leaves and put together.

May import: its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dispatch import Base

_NUMBERS = (int, float, complex, np.generic)


@dataclass(frozen=True)
class Tree:
    """The shape of a container: what it is made with, and its parts.

    `kind` is the container's type; `keys` are those of a dict.  A leaf has kind None; a thing that
    is no tensor (a string, a bool, None) stands for itself as `fixed`.
    """

    kind: Any = None
    keys: tuple[Any, ...] = ()
    parts: tuple[Tree, ...] = ()
    fixed: Any = None

    def build(self, leaves: Iterator[Any]) -> Any:
        """The container with the next leaves in its places."""
        if self.kind is None:
            return next(leaves)
        if self.kind is _Fixed:
            return self.fixed.value
        made = [part.build(leaves) for part in self.parts]
        if self.keys:
            return dict(zip(self.keys, made, strict=True))
        if self.kind in (list, dict):
            return self.kind(made)
        return tuple(made) if self.kind is tuple else self.kind(*made)


@dataclass(frozen=True)
class _Fixed:
    """A value that is part of the signature; what cannot be hashed counts by identity."""

    value: Any

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Fixed) or type(self.value) is not type(other.value):
            return False
        if self.value is other.value:
            return True
        try:
            hash(self.value)
            return bool(self.value == other.value)
        except TypeError:
            return False


LEAF = Tree()


def is_leaf(x: Any) -> bool:
    """Tensors, arrays (of other libraries too) and numbers; no bool: it says how to compute."""
    if isinstance(x, (Base, np.ndarray, *_NUMBERS)):
        return not isinstance(x, bool)
    return hasattr(x, "__array__") and hasattr(x, "shape")


def flatten(tree: Any, leaf: Callable[[Any], bool] = is_leaf) -> tuple[list[Any], Tree]:
    """The leaves in order, and how they are arranged."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaf, leaves)


def _flatten(x: Any, leaf: Callable[[Any], bool], leaves: list[Any]) -> Tree:
    if leaf(x):
        leaves.append(x)
        return LEAF
    if isinstance(x, (tuple, list)):
        return Tree(type(x), (), tuple([_flatten(e, leaf, leaves) for e in x]))
    if isinstance(x, Mapping):
        return Tree(dict, tuple(x), tuple([_flatten(e, leaf, leaves) for e in x.values()]))
    return Tree(_Fixed, (), (), _Fixed(x))


def unflatten(tree: Tree, leaves: Any) -> Any:
    """The containers with these leaves."""
    return tree.build(iter(leaves))


def paths(x: Any, prefix: str = "", leaf: Callable[[Any], bool] = is_leaf) -> list[str]:
    """A dotted name for each leaf."""
    if leaf(x):
        return [prefix]
    if isinstance(x, (tuple, list)):
        pairs: list[tuple[Any, Any]] = list(enumerate(x))
    elif isinstance(x, Mapping):
        pairs = list(x.items())
    else:
        return []
    return [n for k, e in pairs for n in paths(e, f"{prefix}.{k}" if prefix else str(k), leaf)]


__all__ = ["LEAF", "Tree", "flatten", "is_leaf", "paths", "unflatten"]
