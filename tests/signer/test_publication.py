"""Trust bundles: what is published, and what a scanner that has it refuses."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlmodel import col, select

from kit.db import Database
from offline_sdk import Algorithm, Bundle, BundleUntrusted, Signer, Verifier
from signer import keys, publication, roots
from signer.keys import KeyState
from signer.publication import (
    LIFETIME_DEFAULT,
    LIFETIME_MAX,
    BundleLifetimeInvalid,
    TrustBundle,
    TrustBundleMissing,
    TrustBundleRefused,
)
from signer.roots import PublisherMissing, RootRefused
from tests.signer.conftest import GTIN, NOW, TrustDomain

SERIAL = "00004000000042"
NEIGHBOURS = ("00003000000042", "00005000000042", "00004000000041", "00004000000043")


async def test_a_bundle_says_what_keys_there_are(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session, "繁星示范乳业")
        key = await domain.service.create_key(session, issuer, NOW, order_min=3, order_max=500)
        published = await domain.publish(session)
    bundle = domain.load(published.document)
    assert (bundle.domain, bundle.seq, bundle.issued) == ("test.example", 1, int(NOW.timestamp()))
    assert bundle.expires - bundle.issued == LIFETIME_DEFAULT.total_seconds()
    (told,) = bundle.keys
    assert (told.kid, told.public, told.issuer) == (key.kid, key.public, "繁星示范乳业")
    assert (told.gtin_prefixes, told.order_min, told.order_max) == (("690123456",), 3, 500)
    assert (told.not_before, told.not_after) == (None, None)
    assert published.sha256 == hashlib.sha256(published.document).hexdigest()


async def test_the_row_tells_the_moments_that_scanners_were_told(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        await domain.publish(session)
    async with database.reading() as session:
        row = await publication.latest(session)
    bundle = domain.load(row.document)
    assert (row.issued_at.timestamp(), row.expires_at.timestamp()) == (bundle.issued, bundle.expires)


async def test_an_empty_trust_domain_publishes_too(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        assert domain.load((await domain.publish(session)).document).keys == ()


async def test_a_bundle_holds_only_against_its_own_root(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        published = await domain.publish(session)
        other = (await domain.service.create_key(session, await domain.issuer(session), NOW)).public
    with pytest.raises(BundleUntrusted):
        Bundle.load(published.document, [Signer(Algorithm.ED25519, other)])


async def test_nothing_is_published_that_the_roots_owner_would_refuse(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        other = (await domain.service.create_key(session, await domain.issuer(session), NOW)).public
        root = await roots.current(session, await domain.pin(session))
        for wrong in (other, bytes(32), b"short"):
            with pytest.raises(RootRefused):
                await publication.publish(session, domain.service, wrong, NOW)
        with pytest.raises(TrustBundleRefused, match="expired"):
            await domain.publish(session, datetime.fromtimestamp(root.expires, UTC))
        assert (await session.exec(select(TrustBundle))).all() == []


async def test_the_latest_bundle_is_the_one_with_the_highest_number(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        with pytest.raises(TrustBundleMissing):
            await publication.latest(session)
        for _ in range(3):
            last = await domain.publish(session)
        assert (last.seq, (await publication.latest(session)).seq) == (3, 3)


@pytest.mark.parametrize(
    "lifetime",
    [timedelta(0), timedelta(seconds=-1), timedelta(microseconds=999_999), LIFETIME_MAX + timedelta(microseconds=1)],
)
async def test_a_lifetime_out_of_bounds_publishes_nothing(
    database: Database, domain: TrustDomain, lifetime: timedelta
) -> None:
    async with database.writing() as session:
        with pytest.raises(BundleLifetimeInvalid):
            await publication.publish(session, domain.service, await domain.pin(session), NOW, lifetime)
        with pytest.raises(TrustBundleMissing):
            await publication.latest(session)


@pytest.mark.parametrize("lifetime", [timedelta(seconds=1), LIFETIME_MAX])
async def test_a_lifetime_at_its_bounds_is_published(
    database: Database, domain: TrustDomain, lifetime: timedelta
) -> None:
    async with database.writing() as session:
        made = await publication.publish(session, domain.service, await domain.pin(session), NOW, lifetime)
    bundle = domain.load(made.document)
    assert bundle.expires - bundle.issued == lifetime.total_seconds()


async def test_ten_publications_at_once_have_ten_numbers(database: Database, domain: TrustDomain) -> None:
    async def publish() -> int:
        async with database.writing() as session:
            return (await domain.publish(session)).seq

    assert sorted(await asyncio.gather(*(publish() for _ in range(10)))) == list(range(1, 11))


async def test_a_later_bundle_never_forgets_a_revocation(database: Database, domain: TrustDomain) -> None:
    async def revoke(number: int) -> None:
        async with database.writing() as session:
            await keys.revoke_item(session, GTIN, f"00001{number:09d}", "", NOW)
            await domain.publish(session)

    await asyncio.gather(*map(revoke, range(10)))
    async with database.reading() as session:
        rows = (await session.exec(select(TrustBundle).order_by(col(TrustBundle.seq)))).all()
    told = [{item for group in domain.load(row.document).revocations.items for item in group.items} for row in rows]
    assert [len(items) for items in told] == list(range(1, 11))
    assert all(earlier < later for earlier, later in pairwise(told))


async def test_a_code_is_genuine_until_its_item_is_revoked(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
        before = await domain.verifier(session)
        await keys.revoke_item(session, GTIN, SERIAL, "lost in transport", NOW)
        after = await domain.verifier(session)
    for profile in (1, 2):
        code = domain.code(key, SERIAL, profile=profile)
        assert before.check(code).is_genuine
        assert refusal(after, code) == ("Revoked", "item")
    assert all(after.check(domain.code(key, serial)).is_genuine for serial in NEIGHBOURS)


async def test_a_code_is_genuine_until_its_order_is_revoked(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
        await keys.revoke_orders(session, GTIN, 4, 5, "stolen labels", NOW)
        await keys.revoke_orders(session, GTIN, 5, 7, "stolen labels", NOW)
        after = await domain.verifier(session)
    for order in range(1, 10):
        verdict = after.check(domain.code(key, f"{order:05d}000000042"))
        assert verdict.is_genuine == (not 4 <= order <= 7)
    assert refusal(after, domain.code(key, SERIAL)) == ("Revoked", "order")


async def test_every_code_of_a_revoked_key_is_refused_and_no_other(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        lost = await domain.service.create_key(session, issuer, NOW)
        kept = await domain.service.create_key(session, issuer, NOW)
        codes = [domain.code(key, SERIAL) for key in (lost, kept)]
        await keys.end_key(session, lost.kid, KeyState.REVOKED, NOW)
        after = await domain.verifier(session)
    assert refusal(after, codes[0]) == ("Revoked", "key")
    assert after.check(codes[1]).is_genuine


async def test_codes_of_a_retired_key_stay_good(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        await domain.service.create_key(session, issuer, NOW)
        old, new = await domain.service.rotate_key(session, issuer, NOW)
        after = await domain.verifier(session)
        assert after.check(domain.code(old, SERIAL)).is_genuine
        assert after.check(domain.code(new, SERIAL)).is_genuine


async def test_a_key_outside_its_orders_or_prefixes_convinces_nobody(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW, order_min=4, order_max=4)
        verifier = await domain.verifier(session)
    assert verifier.check(domain.code(key, SERIAL)).is_genuine
    for code in (
        domain.code(key, "00003000000042"),
        domain.code(key, "00005000000042"),
        domain.code(key, SERIAL, gtin="09506000134352"),
    ):
        assert verifier.check(code).error == "KeyOutOfScope"


async def test_without_the_publisher_key_nothing_is_published(
    database: Database, domain: TrustDomain, reopened: Callable[[], TrustDomain]
) -> None:
    async with database.writing() as session:
        await domain.pin(session)
        (domain.folder / "publisher-1.key.json").unlink()
        with pytest.raises(PublisherMissing):
            await publication.publish(session, reopened().service, await domain.pin(session), NOW)


def refusal(verifier: Verifier, code: str) -> tuple[str | None, str]:
    verdict = verifier.check(code)
    return verdict.error, next(word for word in ("key", "order", "item", "") if f"the {word} was" in verdict.message)
