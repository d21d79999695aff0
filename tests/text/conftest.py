"""The option that accepts new outputs of the text tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write outputs into CHECK lines")
