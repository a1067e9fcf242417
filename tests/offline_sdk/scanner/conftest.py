"""Fixtures of the scanner program's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.offline_sdk.scanner.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop whose scanner is equipped with nothing yet."""
    shop = Shop(tmp_path)
    yield shop
    for program in shop.programs:
        program.end()
