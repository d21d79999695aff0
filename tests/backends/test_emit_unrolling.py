"""Which loops the LLVM emitter asks LLVM to write out."""

from __future__ import annotations

import re

import pytest

from irc.backends.llvm.emit import emit_func
from irc.ir.parse import parse

GUARD = ", where = [i + j - 1], fill = 0.0"


def asked(loops: str, guard: str) -> list[str]:
    """What each loop of a nest around one addition is marked with, the innermost first."""
    var, extent = zip(*re.findall(r"(\w)<(\w+)", loops))
    opened = "".join([f'loop.for {{var = "{v}", extent = {e}}} {{\n' for v, e in zip(var, extent)])
    text = f"""kernel @f(%a: buffer<f32[64, 64], heap>, %b: buffer<f32[64, 64], heap>) {{
      {opened}
      %0 = loop.load(%a) {{index = [i, j]{guard}}} : f32
      %1 = add(%0, %0) : f32
      loop.store(%1, %b) {{index = [i, j]}}
      {"}" * len(var)}
      return
    }}"""
    made = emit_func(parse(text).funcs[0])
    notes = dict(re.findall(r"^!(\d+) = !\{!\"llvm\.loop\.unroll\.([^}]*)\}", made, re.M))
    marked = re.findall(r"br i1 .*%loop\d+, label %done\d+(?:, !llvm.loop !(\d+))?", made)
    return [notes[str(int(mark) + 1)] if mark else "" for mark in marked]


@pytest.mark.parametrize(
    ("loops", "guard", "expected"),
    [
        ("i<4 j<4", "", ['full"', 'full"']),
        ("i<64 j<4", "", ['full"', ""]),
        ("i<64 j<4", GUARD, ['full"', 'full"']),  # the index decides what is read
        ("i<64 j<64", "", ['count", i32 2', ""]),
        ("i<64 j<64", GUARD, ["", ""]),
    ],
)
def test_short_loops_are_written_out(loops: str, guard: str, expected: list[str]) -> None:
    assert asked(loops, guard) == expected
