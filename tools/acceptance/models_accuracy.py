"""Real networks against onnxruntime without optimizations, through LLVM and through C.

Compared are the outputs of the file as it is, and of a copy that returns what goes into the last
softmax and every tenth intermediate.  2 % noise on the weights must go red in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...backends import compiler
from ...backends.c.build import run_sanitized
from ...backends.targets import choose
from .. import driver
from ..bench.exported import EXPORTERS
from ..bench.witness import Agreement, agreement, first_wrong, probed, witness
from ..bench.zoo import Subject, models_folder, names, subject
from ..verification import relative_error
from . import Measured, Skipped

NOISE = 0.02
C_MODELS = ("squeezenet", "shufflenet")
C_TOLERANCE = 1e-4
Labelled = Iterator[tuple[str, Subject]]


def of_group(group: str) -> Callable[[], Labelled]:
    """The networks of a group, full size."""
    return lambda: ((name, subject(name)) for name in names(group))


def shared() -> Labelled:
    """The real models; skips where they are not here."""
    if models_folder() is None:
        raise Skipped("no real models: set IRC_MODELS to their folder")
    return of_group("shared")()


def small() -> Labelled:
    """The exported networks, small, by both exporters."""
    for exporter in EXPORTERS:
        for name in names("exported"):
            yield f"{name} by {exporter}", subject(name, "small", exporter)


def agrees(networks: Callable[[], Labelled], threads: int = 1) -> Measured:
    """Every network of them: right, finite, no host step, red with noise."""
    details: dict[str, object] = {}
    wrong: list[str] = []
    worst, least, values = 0.0, float("inf"), 0
    for name, each in networks():
        try:
            plain = agreement(witness(each), threads=threads)
            inside = probed(each)
            deep = agreement(inside, threads=threads)
            noisy = agreement(inside, threads=threads, noise=NOISE)
        except Exception as error:
            details[name] = f"{type(error).__name__}: {error}"[:500]
            wrong.append(f"{name} ({str(error).partition(chr(10))[0][:80]})")
            continue
        rows = len(plain.rows) + len(deep.rows)
        details[name] = {
            "outputs": plain.worst,
            "intermediates": deep.worst,
            "values": rows,
            "with noise": noisy.worst,
            "host steps": plain.host_steps,
        }
        worst, least = max(worst, plain.worst, deep.worst), min(least, noisy.worst)
        values += rows
        wrong += _faults(name, plain, deep, noisy)
    figure = f"{len(details)} networks, {values} values, worst {worst:.1e}"
    figure += f", with noise at least {least:.1e}"
    return Measured(figure + (f"; wrong: {', '.join(wrong)}" if wrong else ""), not wrong, details)


def _faults(name: str, plain: Agreement, deep: Agreement, noisy: Agreement) -> list[str]:
    said = [
        *([f"{name}: {first_wrong((*plain.rows, *deep.rows))}"]
          if not (plain.passed and deep.passed) else []),
        *([f"{name}: noise not found"] if noisy.passed else []),
        *([f"{name}: {plain.host_steps} host steps"] if plain.host_steps else []),
    ]  # fmt: skip
    return said


def through_c() -> Measured:
    """Two light networks as C99 with strict warnings, run under both sanitizers."""
    choice = choose("c", 1)
    details: dict[str, object] = {}
    wrong = []
    for name in C_MODELS:
        each = subject(name)
        expected = witness(each).expected
        compiled = compiler.lower(driver.load(str(each.file)), choice)
        assert compiled.planned is not None
        exe = compiler.build(compiled, choice)
        found = exe.run({n: np.array(x) for n, x in each.inputs.items()})
        clean = run_sanitized(compiled.planned, each.inputs)
        errors = [
            max([relative_error(y, ref) for y, ref in zip(ys, expected.values(), strict=True)])
            for ys in (found, clean)
        ]
        details[name] = dict(zip(("strict", "sanitized"), errors, strict=True))
        if max(errors) > C_TOLERANCE:
            wrong.append(name)
    worst = max([max(d.values()) for d in details.values() if isinstance(d, dict)])
    figure = f"{len(details)} networks, no warning, no finding, worst {worst:.1e}"
    return Measured(figure + (f"; wrong: {', '.join(wrong)}" if wrong else ""), not wrong, details)


__all__ = ["agrees", "of_group", "shared", "small", "through_c"]
