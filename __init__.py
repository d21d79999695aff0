"""irc: a tensor IR and deployment toolchain.  Every public name, loaded on first use (PEP 562).

Invariant: `import irc` loads this file alone; numpy, onnx and llvmlite arrive with the first name
that needs them.  Add a name as one row of `_FACE` once its module exists; tests/test_face.py
resolves each.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

# public name -> (module, attribute); an empty attribute is the module itself
_FACE = {
    "Error": (".ir.errors", "Error"),
    "Module": (".ir.ops.core", "Module"),
    "UnsupportedError": (".ir.errors", "UnsupportedError"),
    "compile": (".tools.driver", "compile"),
    "custom_vjp": (".frontends.nn.custom", "custom_vjp"),
    "data": (".frontends.train.data", ""),
    "export_onnx": (".tools.driver", "export_onnx"),
    "grad": (".frontends.nn.transforms", "grad"),
    "load": (".tools.driver", "load"),
    "nn": (".frontends.nn", ""),
    "open": (".tools.driver", "open_plan"),
    "optim": (".frontends.train.optim", ""),
    "register_onnx_op": (".frontends.onnx", "register_onnx_op"),
    "stop_gradient": (".frontends.nn.functions", "stop_gradient"),
    "train": (".frontends.train", ""),
    "value_and_grad": (".frontends.nn.transforms", "value_and_grad"),
}

__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> object:
    """Load the public name from its module and keep it (PEP 562)."""
    try:
        module, attribute = _FACE[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    found: object = import_module(module, __name__)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
