"""Networks as people export them, and a published architecture, against onnxruntime.

onnxruntime runs the same file with every optimization off.  The exports need torch, so they skip
where it is missing; the light model needs nothing but the wheel of onnx.
"""

from __future__ import annotations

import pytest

from irc.tools.bench import exported, zoo
from irc.tools.bench.witness import Agreement, agreement, first_wrong, probed, witness

pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")

NOISE = 0.02


def small(name: str, exporter: str = "") -> zoo.Subject:
    pytest.importorskip("torch", reason="the extra `oracle` is not installed")
    return zoo.subject(name, "small", exporter)


def check(found: Agreement) -> None:
    assert found.passed, first_wrong(found.rows)
    assert found.rows
    assert found.host_steps == 0


@pytest.mark.oracle
@pytest.mark.parametrize("name", exported.NAMES)
def test_exports(name: str) -> None:
    """Inside and out on one thread, the outputs on two, and noise on the weights is seen."""
    each = small(name)
    inside = probed(each, every=5)
    assert len(inside.expected) > len(witness(each).expected)
    check(agreement(inside))
    check(agreement(witness(each), threads=2))
    assert not agreement(inside, noise=NOISE).passed


@pytest.mark.oracle
@pytest.mark.parametrize("name", exported.NAMES)
def test_exports_by_the_older_exporter(name: str) -> None:
    check(agreement(witness(small(name, "torchscript")), threads=2))


@pytest.mark.long
@pytest.mark.oracle
@pytest.mark.parametrize("name", exported.NAMES)
def test_exports_as_c(name: str) -> None:
    check(agreement(witness(small(name)), "c"))


def test_a_light_model() -> None:
    """The smallest of them; `make accept TOPIC=models` takes all nine."""
    each = zoo.subject("squeezenet")
    inside = probed(each)
    check(agreement(inside, threads=2))
    assert not agreement(inside, noise=NOISE).passed


@pytest.mark.long
@pytest.mark.parametrize("name", ["shufflenet", "densenet121", "inception_v2"])
def test_light_models(name: str) -> None:
    check(agreement(witness(zoo.subject(name)), threads=2))


@pytest.mark.long
def test_a_light_model_as_c() -> None:
    check(agreement(witness(zoo.subject("squeezenet")), "c"))
