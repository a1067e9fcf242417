"""Roots of an installation: what is taken up, and when a publication refuses."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from kit.db import Database
from offline_sdk.algorithms import Algorithm
from offline_sdk.cose import Signer
from signer import publication, roots, service
from signer.publication import TrustBundleRefused
from signer.roots import PUBLISHER_NAME, ROOT_LIFETIME_MAX, ROOT_NAME, PublisherMissing, RootMissing, RootRefused
from tests.signer.conftest import NOW, PASSPHRASE, TrustDomain


def renewed(domain: TrustDomain, version: int, publishers: list[Signer], expires: timedelta) -> bytes:
    """A next root document of the same root key, signed."""
    key = domain.service.named(ROOT_NAME)
    return roots.sign(
        domain.service, ROOT_NAME, roots.draft("test.example", version, [key], 1, publishers, NOW, expires)
    )


async def test_there_is_no_root_before_the_first(database: Database, domain: TrustDomain) -> None:
    async with database.reading() as session:
        with pytest.raises(RootMissing):
            await roots.current(session, bytes(32))


async def test_a_root_is_followed_from_its_own_pin_only(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        assert (await roots.current(session, pin)).fingerprint == pin
        with pytest.raises(RootRefused):
            await roots.current(session, bytes(32))


async def test_a_first_root_whose_making_was_stopped_is_made_the_next_time(
    database: Database, domain: TrustDomain
) -> None:
    """Custody keeps the keys that it made; the database forgets them."""
    with contextlib.suppress(InterruptedError):
        async with database.writing() as session:
            await roots.establish(session, domain.service, "test.example", NOW)
            raise InterruptedError
    left = [domain.service.named(name) for name in (ROOT_NAME, PUBLISHER_NAME)]
    async with database.writing() as session:
        assert await roots.document_keys(session) == []
        root = await roots.establish(session, domain.service, "test.example", NOW)
        assert [root.keys, root.publishers] == [(left[0],), (left[1],)]
        assert (await domain.publish(session)).seq == 1


async def test_a_first_root_takes_keys_that_were_made_for_it(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        made = await roots.create_document_key(session, domain.service, PUBLISHER_NAME, Algorithm.ESP256, NOW)
        root = await roots.establish(session, domain.service, "test.example", NOW)
        assert root.publishers == (made.signer,)


async def test_the_next_version_is_taken_up_and_no_other(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        publishers = [domain.service.named(PUBLISHER_NAME)]
        for version in (1, 3):
            with pytest.raises(RootRefused):
                await roots.install(session, renewed(domain, version, publishers, timedelta(days=1)), pin, NOW)
        await roots.install(session, renewed(domain, 2, publishers, ROOT_LIFETIME_MAX), pin, NOW)
        assert (await roots.current(session, pin)).version == 2


async def test_an_expired_root_is_not_taken_up(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        document = renewed(domain, 2, [domain.service.named(PUBLISHER_NAME)], timedelta(seconds=2))
        expires = datetime.fromtimestamp(roots.read_draft(document).expires, UTC)
        with pytest.raises(RootRefused, match="expired"):
            await roots.install(session, document, pin, expires)
        await roots.install(session, document, pin, expires - timedelta(microseconds=1))


async def test_pin_and_database_belong_together(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        with pytest.raises(RootRefused, match="belong together"):
            await roots.install(session, b"", bytes(32), NOW)
        await domain.pin(session)
        with pytest.raises(RootRefused, match="belong together"):
            await roots.install(session, b"", None, NOW)


async def test_a_publisher_that_the_root_no_longer_names_publishes_nothing(
    database: Database, domain: TrustDomain
) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        elsewhere = domain.service.create_named("of-another-machine")
        await roots.install(session, renewed(domain, 2, [elsewhere], timedelta(days=9)), pin, NOW)
        with pytest.raises(PublisherMissing):
            await publication.publish(session, domain.service, pin, NOW)


async def test_a_key_of_another_machines_custody_publishes_nothing_here(
    database: Database, domain: TrustDomain
) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        mine = domain.service.named(PUBLISHER_NAME)
        elsewhere = await roots.create_document_key(session, domain.service, "publisher-2", Algorithm.ED25519, NOW)
        await roots.install(session, renewed(domain, 2, [mine, elsewhere.signer], timedelta(days=9)), pin, NOW)
        (domain.folder / "publisher-2.key.json").unlink()
        here = service.with_file_custody(domain.folder, lambda: PASSPHRASE)
        root = await roots.current(session, pin)
        assert (await roots.publisher_here(session, here, root)).custody_name == PUBLISHER_NAME


async def test_a_publisher_that_had_left_is_not_named_again(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        pin = await domain.pin(session)
        first, second = domain.service.named(PUBLISHER_NAME), domain.service.create_named("publisher-2")
        await roots.install(session, renewed(domain, 2, [second], timedelta(days=9)), pin, NOW)
        with pytest.raises(RootRefused, match="had left"):
            await roots.install(session, renewed(domain, 3, [first, second], timedelta(days=9)), pin, NOW)


async def test_under_an_expired_root_nothing_is_published(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        root = await roots.current(session, await domain.pin(session))
        expires = datetime.fromtimestamp(root.expires, UTC)
        with pytest.raises(TrustBundleRefused, match="expired"):
            await domain.publish(session, expires)
        await domain.publish(session, expires - timedelta(seconds=1))
