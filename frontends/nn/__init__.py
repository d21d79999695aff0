"""The native builder: tensors, functions, modules, layers.  `from irc import nn`.

Every public name of the modules in `_ROOMS` (its `__all__`) is one of `nn`: a module that adds
names is one more row there.  `nn.random`, `nn.init` and `nn.augment` are modules whose names stay
inside.
May import: ir, passes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_ROOMS = (
    ".functions",
    ".shaping",
    ".reductions",
    ".creation",
    ".linear",
    ".indexing",
    ".tensor",
    ".module",
    ".containers",
    ".control",
    ".layers",
    ".activation",
    ".dense",
    ".convolution",
    ".pooling",
    ".pooling_layers",
    ".normalization",
    ".dropout",
    ".embedding",
    ".resampling",
    ".recurrent",
    ".attention",
    ".transformer",
    ".losses",
    ".loss_layers",
    ".graph",
    ".from_ir",
    ".summary",
)
"""Modules whose public names are names of `nn`."""

_MORE = {
    "Spec": ".specs",
    "apply": ".dispatch",
    "custom_vjp": ".custom",
    "enable_grad": ".dispatch",
    "grad": ".transforms",
    "gradients": ".transforms",
    "load_weights": ".saving",
    "manual_seed": ".random",
    "no_grad": ".dispatch",
    "remat": ".custom",
    "trace": ".traced",
    "value_and_grad": ".transforms",
}
"""Single names: where each comes from."""

_DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "u32", "u64", "boolean")


def _fill() -> None:
    names = globals()
    public: list[str] = []
    # all are loaded first: loading a module called `tensor` sets that name
    for module in [import_module(room, __name__) for room in _ROOMS]:
        names.update({name: getattr(module, name) for name in module.__all__})
        public += module.__all__
    for name, room in _MORE.items():
        names[name] = getattr(import_module(room, __name__), name)
    types = import_module("...ir.types", __name__)
    names.update({name: getattr(types, name) for name in _DTYPES})
    import_module(".augment", __name__)
    names["__all__"] = sorted({*public, *_MORE, *_DTYPES})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"nn has no '{name}'")


_fill()
