"""Suppression of boxes: which are kept, and that their number is known after a run."""

from __future__ import annotations

import numpy as np

from irc.ir.core import Builder
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Module, Return
from irc.ir.ops.nms import NonMaxSuppression
from irc.ir.types import parse_type

BOXES = np.array([[[0, 0, 2, 2], [0, 0.1, 2, 2.1], [2, 5, 0, 3], [0, 3, 2, 5.2]]], np.float32)
SCORES = np.array([[[0.9, 0.8, 0.3, 0.6], [0.1, 0.7, 0.7, 0.2]]], np.float32)


def kept(most: int | None, overlap: float | None, lowest: float | None) -> list[list[int]]:
    given = [
        None if most is None else np.array(most),
        *[None if v is None else np.array([v], np.float32) for v in (overlap, lowest)],
    ]
    return NonMaxSuppression.evaluate(BOXES, SCORES, *given, centred=False).tolist()  # type: ignore[no-any-return]


def test_the_best_of_overlapping_boxes_is_kept() -> None:
    first, second = [[0, 0, 0], [0, 0, 3]], [[0, 1, 1], [0, 1, 2]]
    assert kept(9, 0.5, None) == first + second
    assert kept(1, 0.5, None) == [first[0], second[0]]
    assert kept(9, 0.5, 0.65) == [first[0], *second]
    assert kept(9, 1.0, None)[:4] == [[0, 0, 0], [0, 0, 1], [0, 0, 3], [0, 0, 2]]
    assert kept(None, 0.5, None) == []


def test_centres() -> None:
    y1, x1, y2, x2 = BOXES[0].T
    sizes = np.abs(x2 - x1), np.abs(y2 - y1)
    boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, *sizes], 1)[None]
    found = NonMaxSuppression.evaluate(
        boxes, SCORES, np.array(9), np.array(0.5), None, centred=True
    )
    assert found.tolist() == kept(9, 0.5, None)


def test_the_number_of_boxes_is_known_after_a_run() -> None:
    types = ["f32[1, 4, 4]", "f32[1, 2, 4]", "i64[]", "f32[1]"]
    func = Func.make("main", [parse_type(t) for t in types])
    b = Builder(func.body)
    b.emit(Return, b.insert(NonMaxSuppression(*func.args)).result)
    given = [BOXES, SCORES, np.array(9), np.array([0.5], np.float32)]
    (found,) = run(Module.make([func]), given)
    assert found.tolist() == kept(9, 0.5, None)
