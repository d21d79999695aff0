"""Passes as text: parsing, printing, registration, errors."""

import pytest

from irc.ir.errors import Error
from irc.passes.options import PASSES, default_of, options_of, parse_pipeline, pipeline_text
from irc.passes.pipeline import parse_pipeline as exported


@pytest.mark.parametrize(
    "text",
    [
        "canonicalize",
        "canonicalize,cse,fuse{max=8}",
        "fuse{max=8 pool=false}",
        "decompose{only=gelu+softmax},dce",
        "layout{block=16 always=true}",
    ],
)
def test_text_comes_back(text: str) -> None:
    assert pipeline_text(parse_pipeline(text)) == text
    assert exported is parse_pipeline


def test_options_have_values() -> None:
    (fuse,) = parse_pipeline(" fuse { max=8, pool } ")
    assert (fuse.max, fuse.pool) == (8, True)  # type: ignore[attr-defined]
    (decompose,) = parse_pipeline("decompose{only=gelu}")
    assert decompose.only == ("gelu",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cannonicalize", "did you mean 'canonicalize'?"),
        ("fuse{maxx=1}", "did you mean 'max'?"),
        ("fuse{max=x}", "found 'x'"),
        ("fuse{pool=perhaps}", "found 'perhaps'"),
        ("fuse{max=8", "stopped at"),
        ("cse;dce", "stopped at ';dce'"),
        ("layout{target=cpu}", "has no option 'target'"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        parse_pipeline(text)
    assert caught.value.code == "E0220" and said in caught.value.render()


def test_every_pass_has_a_text_form_and_defaults() -> None:
    assert {
        "canonicalize",
        "cse",
        "dce",
        "fuse",
        "layout",
        "lower-generic",
        "lower-kernels",
    } <= set(PASSES)
    for name, cls in PASSES.items():
        made = cls()
        assert str(made) == name and cls.__doc__
        for option in options_of(cls):
            assert getattr(made, option.name) == default_of(cls, option.name)
