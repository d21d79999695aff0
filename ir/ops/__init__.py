"""Every operation, one class each, by family.  Importing this package registers them all."""

from . import (
    activations,
    compare,
    contract,
    conv,
    core,
    elementwise,
    elementwise_math,
    layout,
    loop,
    normalize,
    pool,
    reduce,
    shape,
)

__all__ = [
    "activations",
    "compare",
    "contract",
    "conv",
    "core",
    "elementwise",
    "elementwise_math",
    "layout",
    "loop",
    "normalize",
    "pool",
    "reduce",
    "shape",
]
