"""Programs that no plan can hold: data-dependent shapes, strings, sequences.

`main` runs op by op under the reference interpreter, except that each launch calls its compiled
kernel.  May import: ir, passes, the llvm backend, the files beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.core import Op, Value
from ...ir.dims import evaluate
from ...ir.errors import Error
from ...ir.interpret import Interpreter, order_inputs
from ...ir.kernel_abi import dim_parameters
from ...ir.ops.core import Const, Func, Module
from ...ir.ops.loop import STATUS_INDEX, STATUS_OK
from ...ir.ops.plan import Launch
from ...ir.target import Target
from ..arrays import Array, address, aligned, empty, is_packed, pack, stored_bytes, unpack
from ..llvm.compile import compile_many
from ..llvm.emit import emit_func
from ..reference import ReferenceExecutable
from .build import BRIDGE, context_of
from .engine import Engine
from .host import codegen_target

_STRUCTURE = (Const, Launch, Func)
_NATIVE = ("if", "for", "while", "scan", "reshape")


class MixedExecutable(ReferenceExecutable):
    """Kernels in native code, everything between them on the host; the face of any executable."""

    def __init__(self, module: Module, engine: Engine, context: Sequence[int]) -> None:
        super().__init__(module)
        self.engine = engine
        self.context = (ctypes.c_void_p * len(context))(*context)
        self.kernels = {f.sym: _Kernel(f, engine) for f in module.funcs if f.kind == "kernel"}

    def run(self, inputs: Mapping[str, Any] | Sequence[Any], observe: Any = None) -> list[Any]:
        """Run on a dict by name or a sequence in order; `observe` sees every value computed."""
        main = self.module.main
        with np.errstate(all="ignore"):
            return _Runner(self, observe).func(main, order_inputs(main, inputs))

    def save(self, path: str) -> None:
        """Half of the program is no machine code: E0510."""
        raise Error(
            "E0510",
            "the shapes of this program depend on data, so it has no plan that could be saved",
            hint="save the module (module.save), and compile it where it runs",
        )

    def coverage(self) -> dict[str, Any]:
        """What runs where; the host steps are op names with their locations."""
        ops = list(self.module.main.body.walk())
        host = [op for op in ops if not (isinstance(op, _STRUCTURE) or op.terminator)]
        host = [op for op in host if op.name not in _NATIVE]
        return {
            "kernels": len(self.kernels),
            "calls": sum([isinstance(op, Launch) for op in ops]),
            "copies": [],
            "host_steps": [op.name + (f" at {op.loc}" if op.loc else "") for op in host],
        }


class _Kernel:
    """A compiled kernel as a Python function."""

    def __init__(self, func: Func, engine: Engine) -> None:
        dims = len(dim_parameters(func))
        types = [ctypes.c_void_p] * (1 + len(func.args)) + [ctypes.c_int64] * dims
        self.call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(engine.address(func.sym))


class _Runner(Interpreter):
    """The interpreter with native launches."""

    def __init__(self, owner: MixedExecutable, observe: Any) -> None:
        super().__init__(owner.module, observe)
        self.owner = owner

    def results(self, op: Op, arrays: Sequence[Any]) -> Sequence[Any]:
        """The results of one op: a launch natively, others by their `evaluate`."""
        if isinstance(op, Launch):
            return self.launch(op, arrays)
        return super().results(op, arrays)

    def launch(self, op: Launch, arrays: Sequence[Array]) -> list[Array]:
        """Call the kernel on dense copies where needed."""
        kernel = self.owner.kernels[op.callee]
        passed = [_stored(x, v) for x, v in zip(arrays, op.operands, strict=True)]
        made = [self.room(t) for t in op.types]
        scratch = [self.room(t) for t in op.scratch]
        dims = [self.extent(e) for e in op.dims]
        pointers = [address(x) for x in (*passed, *made, *scratch)]
        status = kernel.call(ctypes.addressof(self.owner.context), *pointers, *dims)
        if status == STATUS_INDEX:
            raise Error("E0506", "an index is out of range", where=op.loc)
        if status != STATUS_OK:
            raise Error("E0507", f"kernel {op.callee} failed with status {status}", where=op.loc)
        return [
            unpack(x, t.dtype, [self.extent(e) for e in t.shape]) if is_packed(t.dtype) else x
            for x, t in zip(made, op.types, strict=True)
        ]

    def room(self, type: Any) -> Array:
        """Memory for a value of this type."""
        shape = [evaluate(e, self.dims) for e in type.shape]
        if is_packed(type.dtype):
            return aligned(stored_bytes(type.dtype, int(np.prod(shape, dtype=np.int64))))
        return empty(shape, type.dtype.np)


def _stored(x: Array, value: Value) -> Array:
    dtype = value.tensor.dtype
    if is_packed(dtype):
        return pack(x, dtype)
    if x.flags.c_contiguous and x.flags.aligned:  # a constant lies where its file has it
        return x
    return np.array(x, order="C")


def build_mixed(module: Module, target: Target, *, threads: int | None = None) -> MixedExecutable:
    """The executable of a module after the phase `loops`, for programs that `plan` refuses."""
    texts = {
        f.sym: emit_func(f, vector_bits=target.vector_bits)
        for f in module.funcs
        if f.kind == "kernel"
    }
    texts["irc.context"] = BRIDGE
    engine = Engine(compile_many(texts, codegen_target()))
    context = context_of(engine, threads or target.threads)
    return MixedExecutable(module, engine, context)


__all__ = ["MixedExecutable", "build_mixed"]
