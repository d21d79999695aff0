"""The official node cases again, by way of an export: what is imported goes out and comes back.

A case passes where the import of its export still gives the case's results.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from irc.frontends.onnx import load
from irc.frontends.onnx.export import model_of
from irc.ir.errors import Error, UnsupportedError
from irc.ir.verify import verify

LEAST = 1760
"""Cases that are known to come back, of all; a change that loses any must say why."""
FAULTS = ("E0118", "E0120", "E0121")


def _backend() -> Any:
    """The cases, and how they are compared, from the test beside this one."""
    spec = importlib.util.spec_from_file_location(
        "onnx_backend", Path(__file__).with_name("test_onnx_backend.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


SUITE = _backend()


def there_and_back(case: Any, model: Any, without: frozenset[int]) -> None:
    """AssertionError where a result of the re-imported model differs."""
    again = load(model_of(load(model)))
    verify(again)
    for given, expected in case.data_sets:
        kept = [x for k, x in enumerate(given) if k not in without]
        SUITE.compare(case, again, kept, list(expected))


def outcome(case: Any) -> str:
    """ "pass", "not imported", "not exported", or what went wrong."""
    try:
        try:
            there_and_back(case, case.model, frozenset())
        except UnsupportedError as error:
            if "must be known" not in error.message:
                raise
            there_and_back(case, *SUITE.frozen(case))
    except AssertionError as error:
        return f"wrong: {error}"
    except Error as error:
        if error.code in FAULTS:
            return "not exported"
        return "not imported" if isinstance(error, UnsupportedError) else error.render()
    return "pass"


@pytest.mark.long
def test_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    count: Counter[str] = Counter()
    failed = {}
    for name, case in SUITE.cases().items():
        found = outcome(case) if SUITE.is_supported(case) else "no row"
        known = found in ("pass", "not imported", "not exported", "no row")
        count[found if known else "fail"] += 1
        if not known:
            failed[name] = found
    with capsys.disabled():
        print("\nround trip of ONNX node cases:", dict(count))
    assert not failed, "\n".join([f"{name}: {why}" for name, why in failed.items()])
    assert count["pass"] >= LEAST


@pytest.mark.long
def test_a_wrong_result_is_seen() -> None:
    case = SUITE.cases()["test_relu"]
    ((given, expected),) = case.data_sets
    wrong = type(case)(**{**vars(case), "data_sets": [(given, [expected[0] + 0.01])]})
    assert outcome(case) == "pass" and outcome(wrong).startswith("wrong")
