"""Orders whose keys are P-256, or lie in a token or a KMS: every code of theirs holds before a scanner."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codes import manifest
from codes.engines.inline import InlineEngine
from codes.engines.local import LocalEngine
from codes.signing import CustodyAccess
from codes.signing_agent import LeasedSigner
from kit.db import Database
from offline_sdk import Bundle, BundleKey, Signer, Verifier
from offline_sdk.algorithms import Algorithm
from signer.service import FileCustodyAccess, KmsCustodyAccess, SigningAccess
from tests.codes.conftest import NOW, PASSPHRASE, Market
from tests.codes.factory import SECRET, SmallFactory, files_in, open_factory
from tests.codes.test_engines import agent, room
from tests.signer.kms_simulator import kms_simulator, pretend_credentials
from tests.signer.softhsm import make_token

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # keys do not know the database
ALGORITHMS = pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda algorithm: algorithm.label)


@pytest.fixture(params=["file", "token", "kms"])
def access(
    request: pytest.FixtureRequest, tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SigningAccess]:
    if request.param == "file":
        yield FileCustodyAccess(market.keys_folder, PASSPHRASE)
    elif request.param == "token":
        yield make_token(tmp_path / "hsm", monkeypatch).access
    else:
        pretend_credentials(monkeypatch)
        with kms_simulator() as kms:
            yield KmsCustodyAccess(kms.url, "fanxing/")


async def factory_of(
    database: Database, market: Market, access: SigningAccess, algorithm: Algorithm, folder: Path
) -> SmallFactory:
    """An order that a new key of this custody signs."""
    signing = access.open()
    async with database.writing() as session:
        key = await signing.create_key(session, market.issuer, NOW, algorithm=algorithm)
    factory = await open_factory(database, replace(market, service=signing, key=key), folder)
    assert factory.order.kid == key.kid
    return factory


def texts(folder: Path) -> list[str]:
    """Every code of an export."""
    lines = [line for name in ("outer.csv", "inner.csv") for line in (folder / name).read_text().splitlines()[1:]]
    return [line.split(",")[1] for line in lines]


def holds(factory: SmallFactory) -> None:
    """Every code and the manifest, by nothing but what a bundle tells of the key."""
    key = factory.market.key
    told = BundleKey(key.kid, key.public, "Demo Dairy", ("690123456",), algorithm=key.signature_algorithm)
    issued = int(NOW.timestamp())
    verifier = Verifier(Bundle("test.example", 1, issued, issued + 86_400, (told,)), now=NOW)
    found = texts(factory.folder)
    assert len(found) == 2 * factory.order.quantity
    assert {verifier.check(text).verdict for text in found} == {"genuine"}
    read = manifest.read(factory.folder, {key.kid: Signer(key.signature_algorithm, key.public)})
    manifest.check_files(factory.folder, read, lambda _count: None)


@ON_SQLITE
@ALGORITHMS
async def test_every_code_of_an_order_is_genuine(
    database: Database, market: Market, tmp_path: Path, access: SigningAccess, algorithm: Algorithm
) -> None:
    factory = await factory_of(database, market, access, algorithm, tmp_path / "exports")
    run = await factory.begin(factory.spec())
    travels = CustodyAccess(access, factory.market.key, factory.scheme)
    job = factory.job(run)
    await factory.carry_through(run, InlineEngine(job, travels.signer(job.recipe)))
    holds(factory)


@ON_SQLITE
@pytest.mark.parametrize("access", ["token", "kms"], indirect=True)
async def test_a_worker_opens_the_custody_in_its_own_process(
    database: Database, market: Market, tmp_path: Path, access: SigningAccess
) -> None:
    factory = await factory_of(database, market, access, Algorithm.ED25519, tmp_path / "exports")
    run = await factory.begin(factory.spec())
    travels = CustodyAccess(access, factory.market.key, factory.scheme)
    await factory.carry_through(run, LocalEngine(factory.job(run), travels, 1))
    holds(factory)


@ON_SQLITE
async def test_the_agent_signs_with_a_token(
    database: Database,
    market: Market,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = make_token(tmp_path / "hsm", monkeypatch)
    factory = await factory_of(database, market, token.access, Algorithm.ED25519, tmp_path / "exports")
    run = await factory.begin(factory.spec())
    path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent(path, replace(room(factory), custody=token.access)):
        await factory.carry_through(run, LocalEngine(factory.job(run), LeasedSigner(path, SECRET), 1))
    holds(factory)


@ON_SQLITE
async def test_p256_from_a_file_makes_the_same_bytes_again(database: Database, market: Market, tmp_path: Path) -> None:
    access = FileCustodyAccess(market.keys_folder, PASSPHRASE)
    factory = await factory_of(database, market, access, Algorithm.ESP256, tmp_path / "exports")
    for folder in (tmp_path / "once", tmp_path / "again"):
        await factory.carry_through(await factory.begin(factory.spec(), folder))
    assert files_in(tmp_path / "once") == files_in(tmp_path / "again") == factory.expected(factory.spec())
