"""The lazy root face: every name it advertises resolves, and nothing else does."""

from __future__ import annotations

import pytest

import irc


@pytest.mark.parametrize("name", irc.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(irc, name) is not None
    assert name in dir(irc)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        irc.no_such_name  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("tensor-irc") == irc.__version__
