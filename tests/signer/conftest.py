"""A trust domain for the signer's tests: real key files (at a small cost of derivation), a root, a moment."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

import signer.custody.file
from kit.db import Session
from offline_sdk import Bundle, Verifier, encode_message, encode_text
from signer import publication, service
from signer.keys import Issuer, SigningKey, create_issuer
from signer.publication import TrustBundle
from signer.service import SigningService

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


@dataclass(frozen=True)
class TrustDomain:
    """Keys in a folder, a root, and shortcuts."""

    folder: Path
    service: SigningService
    root_public: bytes

    async def issuer(self, session: Session, name: str = "Demo Dairy", prefix: str = PREFIX) -> Issuer:
        return await create_issuer(session, name, [prefix], NOW)

    async def publish(self, session: Session, now: datetime = NOW) -> TrustBundle:
        return await publication.publish(session, self.service, "test.example", self.root_public, now)

    async def verifier(self, session: Session, now: datetime = NOW) -> Verifier:
        """What a scanner knows that fetches the next bundle."""
        return Verifier(Bundle.load((await self.publish(session, now)).document, self.root_public), now=now)

    def code(self, key: SigningKey, serial: str, gtin: str = GTIN, profile: int = 1) -> str:
        """A printed code."""
        (signature,) = self.service.sign_many(key, [encode_message(profile, key.kid, gtin, serial)])
        return encode_text(BASE_URL, profile, key.kid, signature, gtin, serial)


@pytest.fixture
def domain(tmp_path: Path, cheap_derivation: None) -> TrustDomain:
    made = service.with_file_custody(tmp_path / "keys", lambda: PASSPHRASE)
    return TrustDomain(tmp_path / "keys", made, made.root())


@pytest.fixture
def reopened(domain: TrustDomain) -> Callable[[], TrustDomain]:
    """The same trust domain after a restart: nothing is remembered but files and rows."""

    def open_again() -> TrustDomain:
        return TrustDomain(
            domain.folder, service.with_file_custody(domain.folder, lambda: PASSPHRASE), domain.root_public
        )

    return open_again
