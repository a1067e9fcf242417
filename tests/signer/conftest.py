"""A trust domain for the signer's tests: real key files (at a small cost of derivation), a root, a moment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

import signer.custody.file
from kit.db import Session
from offline_sdk import Bundle, Verifier, encode_message, encode_text
from signer import publication, roots, service
from signer.keys import Issuer, SigningKey, create_issuer, take_turn
from signer.publication import TrustBundle
from signer.roots import PUBLISHER_NAME
from signer.service import SigningService
from tests.signer.kms_simulator import KmsSimulator, kms_simulator, pretend_credentials
from tests.signer.softhsm import SoftToken, make_token

NOW = datetime(2026, 5, 1, 8, 0, 0, 250_000, tzinfo=UTC)
PASSPHRASE = "correct horse battery staple"
GTIN = "06901234567892"
PREFIX = "690123456"
BASE_URL = "https://id.example.cn"


@pytest.fixture
def cheap_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same Argon2id at a cost that a test of something else can pay many times."""
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    """An initialised token of SoftHSM2 without keys."""
    return make_token(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of no worth."""
    pretend_credentials(monkeypatch)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The base URL of a public simulator of AWS."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def kms(aws: None) -> Iterator[KmsSimulator]:
    """Our own simulator of a KMS."""
    with kms_simulator() as running:
        yield running


@dataclass(frozen=True)
class TrustDomain:
    """Keys in a folder, a root, and shortcuts."""

    folder: Path
    service: SigningService

    async def pin(self, session: Session) -> bytes:
        """The fingerprint of the first root, which is established at need."""
        await take_turn(session)
        rows = await roots.chain(session)
        if rows:
            return bytes.fromhex(rows[0].fingerprint)
        return (await roots.establish(session, self.service, "test.example", NOW)).fingerprint

    async def issuer(self, session: Session, name: str = "Demo Dairy", prefix: str = PREFIX) -> Issuer:
        return await create_issuer(session, name, [prefix], NOW)

    async def publish(self, session: Session, now: datetime = NOW) -> TrustBundle:
        return await publication.publish(session, self.service, await self.pin(session), now)

    def load(self, document: bytes) -> Bundle:
        return Bundle.load(document, [self.service.named(PUBLISHER_NAME)])

    async def verifier(self, session: Session, now: datetime = NOW) -> Verifier:
        """What a scanner knows that fetches the next bundle."""
        return Verifier(self.load((await self.publish(session, now)).document), now=now)

    def code(self, key: SigningKey, serial: str, gtin: str = GTIN, profile: int = 1) -> str:
        """A printed code."""
        (signature,) = self.service.sign_many(key, [encode_message(profile, key.kid, gtin, serial)])
        return encode_text(BASE_URL, profile, key.kid, signature, gtin, serial)


@pytest.fixture
def domain(tmp_path: Path, cheap_derivation: None) -> TrustDomain:
    made = service.with_file_custody(tmp_path / "keys", lambda: PASSPHRASE)
    return TrustDomain(tmp_path / "keys", made)


@pytest.fixture
def reopened(domain: TrustDomain) -> Callable[[], TrustDomain]:
    """The same trust domain after a restart: nothing is remembered but files and rows."""

    def open_again() -> TrustDomain:
        return TrustDomain(domain.folder, service.with_file_custody(domain.folder, lambda: PASSPHRASE))

    return open_again
