"""Keys of a token and keys of files: whole lives of theirs give bundles that verify alike."""

import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kit.db import Database, Session
from offline_sdk import Bundle, Verifier
from offline_sdk.algorithms import Algorithm
from offline_sdk.gtin import check_digit
from signer import keys, publication
from signer.keys import Issuer, KeyState, SigningKey
from signer.service import FileCustodyAccess, SigningAccess
from tests.signer.conftest import NOW, PASSPHRASE, TrustDomain
from tests.signer.softhsm import SoftToken

LATER = NOW + timedelta(days=1)
SERIAL = "00004000000042"


@dataclass
class Life:
    """A trust domain in a database of its own, and what every scanner of it may meet."""

    database: Database
    access: SigningAccess
    folder: Path
    codes: dict[int, str] = field(default_factory=dict)
    bundles: list[Bundle] = field(default_factory=list)

    def domain(self) -> TrustDomain:
        """As a new process sees it: nothing is remembered but rows and keys."""
        return TrustDomain(self.folder, self.access.open())

    async def live(self, count: int) -> None:
        """So many keys are made, used, rotated and revoked, and their successors made and used. A bundle each time."""
        domain = self.domain()
        async with self.database.writing() as session:
            issuers = [await domain.issuer(session, f"Issuer {n}", f"69{n:05d}") for n in range(count)]
            first = [
                await domain.service.create_key(session, issuer, NOW, algorithm=list(Algorithm)[n % 2])
                for n, issuer in enumerate(issuers)
            ]
            self.use(domain, issuers, first)
            await self.publish(session, domain)
        domain = self.domain()
        async with self.database.writing() as session:
            rotated = [await domain.service.rotate_key(session, issuer, LATER) for issuer in issuers]
            assert [old.kid for old, _new in rotated] == [key.kid for key in first]
            self.use(domain, issuers, [new for _old, new in rotated])
            await self.publish(session, domain)
        async with self.database.writing() as session:
            for n, key in enumerate(first):
                if n % 3:
                    await keys.end_key(session, key.kid, KeyState.REVOKED, LATER)
            await self.publish(session, self.domain())
        async with self.database.writing() as session:
            for key in first:
                await keys.end_key(session, key.kid, KeyState.REVOKED, LATER)
            await self.publish(session, self.domain())

    def use(self, domain: TrustDomain, issuers: list[Issuer], made: list[SigningKey]) -> None:
        for issuer, key in zip(issuers, made, strict=True):
            body = f"0{issuer.gtin_prefixes[0]}00001"
            self.codes[key.kid] = domain.code(key, SERIAL, body + check_digit(body))

    async def publish(self, session: Session, domain: TrustDomain) -> None:
        published = await publication.publish(session, domain.service, await domain.pin(session), LATER)
        self.bundles.append(domain.load(published.document))


def verdicts(bundle: Bundle, codes: dict[int, str]) -> list[dict[str, Any]]:
    verifier = Verifier(bundle, now=LATER)
    return [verifier.check(text).as_json() for _kid, text in sorted(codes.items())]


def without_publics(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says apart from the keys' own bytes."""
    told = bundle.as_json()
    for key in told["keys"]:
        del key["public_hex"]
    return {**told, "prev_hex": None}


@pytest.fixture
async def lives(tmp_path: Path, token: SoftToken, sqlite_template: Path) -> Any:
    """One trust domain of files, one of a token."""
    made = []
    for name, access in (("files", FileCustodyAccess(tmp_path / "keys", PASSPHRASE)), ("token", token.access)):
        path = tmp_path / f"{name}.db"
        shutil.copyfile(sqlite_template, path)
        made.append(Life(Database(f"sqlite:///{path}"), access, tmp_path))
    yield made
    for life in made:
        await life.database.close()


async def verify_alike(lives: list[Life], count: int) -> None:
    for life in lives:
        await life.live(count)
        assert len(life.codes) == 2 * count
    files, token = lives
    assert len(files.bundles) == len(token.bundles) == 4
    refused = [0, 0, count - (count + 2) // 3, count]
    for seq, (ours, theirs) in enumerate(zip(files.bundles, token.bundles, strict=True)):
        assert without_publics(ours) == without_publics(theirs)
        assert {key.public for key in ours.keys}.isdisjoint(key.public for key in theirs.keys)
        told = verdicts(ours, files.codes)
        assert told == verdicts(theirs, token.codes)
        known = len(ours.keys)
        assert sum(one["verdict"] == "genuine" for one in told) == known - refused[seq]
        assert sum(one["error"] == "Revoked" for one in told) == refused[seq]
        assert sum(one["error"] == "UnknownKey" for one in told) == 2 * count - known
        crossed = verdicts(theirs, files.codes)
        assert crossed == verdicts(ours, token.codes)
        assert sum(one["error"] == "BadSignature" for one in crossed) == known


async def test_ten_lives_of_keys_verify_alike(cheap_derivation: None, lives: list[Life]) -> None:
    await verify_alike(lives, 10)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_a_thousand_lives_of_keys_verify_alike(lives: list[Life]) -> None:
    await verify_alike(lives, 1_000)
