"""Compiled against reference: every output, and every fused region on the reference's own inputs.

The regions are compared one by one: each gets exactly what the reference gives it, so an error
shows in the region that makes it and nowhere behind.  They run as one program whose inputs are all
their operands; constants stay constants, so they are packed and fused as in the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import compiler
from ..backends.targets import Choice
from ..ir.blobs import Blob
from ..ir.core import Builder, Op, Value
from ..ir.interpret import Interpreter, order_inputs, run
from ..ir.ops.core import Const, Func, Fused, Module, Return
from ..ir.types import TensorType
from ..passes.pipeline import Options

Array = np.ndarray[Any, Any]
Noted = tuple[list[Array], list[Array]]
"""Operands and results of a region."""

TOLERANCE = {"f64": 1e-4, "f32": 1e-4, "f16": 1e-2, "bf16": 3e-2}
"""Greatest max|y - ref| / max|ref| by element type; the f8 and f4 families get 0.3."""
_NARROW = 0.3


@dataclass(frozen=True)
class Compared:
    """One output or region: its worst relative error, the bar, and where it comes from."""

    what: str
    error: float
    tolerance: float
    where: str = ""

    @property
    def passed(self) -> bool:
        """Within the bar."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """What `verify` found: outputs of the model, then regions in program order."""

    outputs: tuple[Compared, ...]
    regions: tuple[Compared, ...]
    host_steps: int

    @property
    def passed(self) -> bool:
        """Every row is within its bar."""
        return all([row.passed for row in (*self.outputs, *self.regions)])

    @property
    def worst(self) -> float:
        """The greatest error of all rows."""
        return max([row.error for row in (*self.outputs, *self.regions)], default=0.0)

    @property
    def first(self) -> Compared | None:
        """The first row that diverges: a region where one does, else an output."""
        return next((row for row in (*self.regions, *self.outputs) if not row.passed), None)


def compare(
    module: Module,
    choice: Choice,
    inputs: Mapping[str, Array],
    *,
    noise: float = 0.0,
    tolerance: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    regions: bool = True,
) -> Report:
    """Compile, run and compare.  `noise` perturbs the compiled weights by that relative amount."""
    lowered = compiler.lower(module, choice, Options(to_phase="fused"), shapes)
    clean = lowered.module
    tested = noisy(clean, noise) if noise else clean
    rest = Options(from_phase="fused")
    exe = compiler.compiled_now(tested, choice, rest)
    expected = run(module.main, inputs)
    given = {name: np.array(x) for name, x in inputs.items()}  # state is updated in place
    found = exe.run(given)
    outputs = tuple(
        [
            row(name, y, ref, tolerance, rounds=roundings(module.main))
            for (name, _), y, ref in zip(exe.outputs, found, expected, strict=True)
        ]
    )
    rows = _regions(clean, tested, choice, rest, inputs, tolerance) if regions else ()
    return Report(outputs, rows, len(exe.coverage()["host_steps"]))


def roundings(op: Op) -> float:
    """The bar of the narrowest float type that is computed in: a result in f32 of sums in f16 has
    rounded like f16.
    """
    types = {v.type.dtype for o in op.walk() for v in o.results if isinstance(v.type, TensorType)}
    return max([TOLERANCE.get(str(t), _NARROW) for t in types if t.is_float], default=0.0)


def row(
    what: str,
    y: Array,
    ref: Array,
    tolerance: float | None,
    where: str = "",
    rounds: float = 0.0,
) -> Compared:
    """One comparison; an element type without rounding must be equal.

    Without a tolerance the bar is that of the element type, or `rounds` where that is greater.
    """
    name = str(ref.dtype)
    short = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(name)
    exact = ref.dtype.kind in "iubOSU"
    usual = max(rounds, TOLERANCE.get(short or "", _NARROW))
    bar = 0.0 if exact else usual if tolerance is None else tolerance
    return Compared(what, relative_error(y, ref), bar, where)


def relative_error(y: Array, ref: Array) -> float:
    """max|y - ref| over max|ref| of the finite values; infinite where shapes or specials differ."""
    if y.shape != ref.shape:
        return float("inf")
    if ref.dtype.kind in "OSUb":
        return 0.0 if np.array_equal(y, ref) else float("inf")
    wide = np.complex128 if ref.dtype.kind == "c" else np.float64
    a, b = y.astype(wide), ref.astype(wide)
    finite = np.isfinite(b)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(a[finite]).all()
    ):
        return float("inf")
    scale = float(np.abs(b[finite]).max(initial=0.0))
    off = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return off / scale if scale else off


def noisy(module: Module, scale: float, seed: int = 73_561) -> Module:
    """A copy whose weights (float constants of more than one element) are off by `scale`, normal.

    The seed is one that no model is made from: equal streams would correlate noise and weights.
    """
    rng = np.random.default_rng(seed)
    made = module.clone()
    for op in made.walk():
        if isinstance(op, Const) and _is_weight(op):
            array = op.value.array
            factor = 1.0 + scale * rng.standard_normal(array.shape)
            blob = Blob((array.astype(np.float64) * factor).astype(array.dtype), op.value.type)
            op.set_attr("value", blob)
    return made


def _is_weight(op: Const) -> bool:
    value = op.value
    return isinstance(value, Blob) and value.type.dtype.kind == "float" and value.array.size > 1


# Regions ------------------------------------------------------------------------------------------


class Recorder(Interpreter):
    """An interpreter that keeps operands and results of each fused region's first run."""

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self.seen: dict[Op, Noted] = {}

    def results(self, op: Op, arrays: Sequence[Any]) -> Sequence[Any]:
        """As the interpreter, and noted."""
        found = super().results(op, arrays)
        if isinstance(op, Fused) and op not in self.seen:
            self.seen[op] = [np.array(a) for a in arrays], [np.asarray(a) for a in found]
        return found


def record(module: Module, inputs: Mapping[str, Array]) -> dict[Op, Noted]:
    """Operands and results of every fused region that runs on these inputs."""
    recorder = Recorder(module)
    with np.errstate(all="ignore"):
        recorder.func(module.main, order_inputs(module.main, inputs))
    return recorder.seen


def _regions(
    clean: Module,
    tested: Module,
    choice: Choice,
    rest: Options,
    inputs: Mapping[str, Array],
    tolerance: float | None,
) -> tuple[Compared, ...]:
    """Every region that runs, alone; `tested` has the same regions as `clean`, maybe with noise."""
    seen = record(clean, inputs)
    twins = dict(zip(_fused(clean), _fused(tested), strict=True))
    chosen = [op for op in twins if op in seen and op.results]
    if not chosen:
        return ()
    module, feeds = apart([twins[op] for op in chosen], [seen[op][0] for op in chosen])
    exe = compiler.compiled_now(module, choice, rest)
    found = iter(exe.run(feeds))
    rows = []
    for k, op in enumerate(chosen):
        rounds, where = roundings(op), str(op.loc) if op.loc else ""
        for ref, value in zip(seen[op][1], op.results, strict=True):
            what = f"region {k} {op.label}" + (f" %{value.name}" if value.name else "")
            rows.append(row(what, next(found), ref, tolerance, where, rounds))
    return tuple(rows)


def _fused(module: Module) -> list[Fused]:
    return [op for op in module.main.walk() if isinstance(op, Fused)]


def apart(regions: Sequence[Op], arrays: Sequence[Sequence[Array]]) -> tuple[Module, list[Array]]:
    """A module that runs each region on inputs of its own, and those inputs."""
    types: list[Any] = []
    feeds: list[Array] = []
    names: list[str] = []
    for k, (op, given) in enumerate(zip(regions, arrays, strict=True)):
        for i, (value, array) in enumerate(zip(op.operands, given, strict=True)):
            if not isinstance(value.op, Const):
                types.append(value.type)
                feeds.append(array)
                names.append(f"r{k}_{i}")
    func = Func.make("main", types, names)
    b = Builder(func.body)
    args = iter(func.args)
    results: list[Value] = []
    for op in regions:
        env: dict[Value, Value] = {}
        for value in op.operands:
            made = value.op
            known = env.get(value)
            if isinstance(made, Const):
                env[value] = known or b.insert(made.copy({})).result
            else:
                env[value] = next(args)
        results += func.body.append(op.copy(env)).results
    b.emit(Return, *results)
    return Module.make([func]), feeds


__all__ = ["Compared", "Report", "compare", "noisy", "record", "relative_error", "roundings"]
