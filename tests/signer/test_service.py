"""Signing: keys made, rotated and ended, and what they still sign."""

import asyncio
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kit.db import Database
from signer import keys
from signer.custody import CustodyError
from signer.keys import KeyState, SigningKeyInvalid
from signer.service import SigningKeyNotActive
from tests.signer.conftest import NOW, TrustDomain


async def test_signatures_are_the_keys_own_and_in_order(
    database: Database, domain: TrustDomain, reopened: Callable[[], TrustDomain]
) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
    messages = [bytes([number]) * 44 for number in range(100)]
    signatures = reopened().service.sign_many(key, messages)
    for message, signature in zip(messages, signatures, strict=True):
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    assert signatures == domain.service.sign_many(key, messages), "Ed25519 signatures are deterministic"


async def test_a_revoked_key_signs_nothing_more(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
        domain.service.sign_many(key, [b"x"])
        await keys.end_key(session, key.kid, KeyState.REVOKED, NOW)
    async with database.reading() as session:
        with pytest.raises(SigningKeyNotActive, match=r"key number 1 is revoked"):
            domain.service.sign_many(await keys.key_numbered(session, key.kid), [b"x"])


async def test_a_retired_key_still_signs_its_lost_exports_again(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
        before = domain.service.sign_many(key, [b"x"])
        retired = await keys.end_key(session, key.kid, KeyState.RETIRED, NOW)
        assert domain.service.sign_many(retired, [b"x"]) == before


async def test_rotation_retires_the_old_key_and_keeps_its_order_range(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        first = await domain.service.create_key(session, issuer, NOW, order_min=7, order_max=500)
        old, new = await domain.service.rotate_key(session, issuer, NOW)
    assert (old.kid, old.state, old.ended_at) == (first.kid, KeyState.RETIRED, NOW)
    assert (new.kid, new.state, new.order_min, new.order_max) == (first.kid + 1, KeyState.ACTIVE, 7, 500)
    assert new.public != old.public


async def test_ten_rotations_at_once_leave_one_active_key(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        await domain.service.create_key(session, issuer, NOW)

    async def rotate() -> tuple[int, int]:
        async with database.writing() as session:
            old, new = await domain.service.rotate_key(session, issuer, NOW)
            return old.kid, new.kid

    steps = await asyncio.gather(*(rotate() for _ in range(10)))
    assert sorted(steps) == [(kid, kid + 1) for kid in range(1, 11)]
    async with database.reading() as session:
        states = [(await keys.key_numbered(session, kid)).state for kid in range(1, 12)]
    assert states == [KeyState.RETIRED] * 10 + [KeyState.ACTIVE]


async def test_a_key_made_in_a_rolled_back_transaction_does_not_block_its_number(
    database: Database, domain: TrustDomain
) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
    # The row is gone, its key file is not.
    async with database.writing() as session:
        await domain.service.create_key(session, issuer, NOW)
        await session.rollback()
    async with database.writing() as session:
        key = await domain.service.create_key(session, issuer, NOW.replace(microsecond=1))
    assert key.kid == 1
    Ed25519PublicKey.from_public_bytes(key.public).verify(domain.service.sign_many(key, [b"x"])[0], b"x")


async def test_an_order_range_out_of_bounds_makes_no_key(database: Database, domain: TrustDomain) -> None:
    files = set(domain.folder.glob("*"))
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        for order_min, order_max in ((0, 1), (2, 1), (1, 100_000), (-5, -1)):
            with pytest.raises(SigningKeyInvalid):
                await domain.service.create_key(session, issuer, NOW, order_min=order_min, order_max=order_max)
    assert set(domain.folder.glob("*")) == files


async def test_opening_a_key_tells_at_once_that_its_file_is_gone(
    database: Database, domain: TrustDomain, reopened: Callable[[], TrustDomain]
) -> None:
    async with database.writing() as session:
        key = await domain.service.create_key(session, await domain.issuer(session), NOW)
    domain.service.open_key(key)
    (domain.folder / f"{key.custody_name}.key.json").unlink()
    domain.service.open_key(key)  # held in memory since
    with pytest.raises(CustodyError, match="no private key"):
        reopened().service.open_key(key)
