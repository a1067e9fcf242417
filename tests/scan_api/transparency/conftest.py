"""A log in a database of the test's own, with a real key in a real folder."""

from pathlib import Path

import pytest

from kit.db import Database
from signer.service import SigningService, with_file_custody
from tests.scan_api.transparency.log_stand import LogStand, begin

__all__ = ["LogStand"]


@pytest.fixture(scope="session")
def log_signing(tmp_path_factory: pytest.TempPathFactory) -> SigningService:
    """The key's custody; a derivation of its passphrase costs more than most tests."""
    signing = with_file_custody(tmp_path_factory.mktemp("log-key"), lambda: "a passphrase for tests alone")
    signing.create_named("log")
    return signing


@pytest.fixture
async def log(database: Database, log_signing: SigningService, tmp_path: Path) -> LogStand:
    """A log that has just begun."""
    return await begin(database, log_signing, tmp_path)
