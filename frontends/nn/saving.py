"""Networks as programs and files: parameters become constants, or go to a file of their own.

May import: ir, its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.numpy

from ...ir.archive import replacing
from ...ir.core import Array
from ...ir.errors import Error
from ...ir.ops.core import Module as Program
from .dispatch import here
from .specs import batched
from .traced import modules_of, trace

if TYPE_CHECKING:
    from .module import Module


def program(model: Any, example: Any = None) -> Program:
    """The program of a network or function in evaluation mode, its parameters constants.

    `example` is one input or a tuple of several.  Without it those of the network's first call
    serve, with an open batch where the network allows it.  Errors: E0622.
    """
    with in_mode(model):
        if example is not None:
            examples = example if isinstance(example, tuple) else (example,)
            return trace(model, *examples).frozen()
        seen = getattr(model, "example", None)
        if seen is None:
            raise Error(
                "E0622", "there are no inputs to trace the network by", where=here(),
                hint="give an example input, or call the network once before",
            )  # fmt: skip
        try:
            return trace(model, *batched(seen)).frozen()
        except (Error, TypeError):  # a network that needs to know the size of its batch
            return trace(model, *seen).frozen()


@contextmanager
def in_mode(model: Any, training: bool = False) -> Iterator[None]:
    """All modules of a network or function in evaluation or training mode, until the end."""
    modes = [(m, m.training) for _, root in modules_of(model) for m in root.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, before in modes:
            module.training = before


def save(model: Module, path: str | os.PathLike[str], example: Any = None) -> None:
    """Write the weights (.safetensors) or the program with them (.irc, .ir).

    Errors: E0622 no inputs to trace by, E0626 another suffix, E0264.
    """
    goal = Path(path)
    if goal.suffix == ".safetensors":
        with replacing(goal) as file:
            file.write(safetensors.numpy.save(model.state_dict()))
        return
    if goal.suffix not in (".irc", ".ir"):
        raise Error(
            "E0626", f"{goal.name}: a network is saved as .irc, .ir or .safetensors", where=here(),
            hint="irc.export_onnx writes an ONNX file",
        )  # fmt: skip
    program(model, example).save(str(goal))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a .safetensors file, for `load_state_dict`.  E0626 for no such file."""
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise Error("E0626", f"cannot read weights from {path}: {error}") from None


__all__ = ["in_mode", "load_weights", "program", "save"]
