"""Signing: keys made, rotated and ended, and what they still sign."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kit.db import Database
from kit.errors import ConfigurationError
from kit.settings import Settings
from offline_sdk.algorithms import Algorithm, signature_is_right
from signer import keys
from signer.custody import CustodyError, PrivateKeyMissing
from signer.keys import KeyState, SigningKeyInvalid
from signer.service import (
    FileCustodyAccess,
    KmsCustodyAccess,
    SigningAccess,
    SigningKeyNotActive,
    TokenCustodyAccess,
    custody_access,
)
from tests.signer.conftest import NOW, PASSPHRASE, TrustDomain


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


@pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda algorithm: algorithm.label)
def test_a_named_key_signs_documents(
    domain: TrustDomain, reopened: Callable[[], TrustDomain], algorithm: Algorithm
) -> None:
    made = domain.service.create_named("root-7", algorithm)
    assert reopened().service.named("root-7") == made
    assert made.algorithm is algorithm
    assert signature_is_right(algorithm, made.public, b"x", reopened().service.sign_named("root-7", b"x"))
    with pytest.raises(PrivateKeyMissing):
        domain.service.named("root-8")
    with pytest.raises(PrivateKeyMissing):
        domain.service.sign_named("root-8", b"x")


async def test_a_successor_is_of_the_same_algorithm(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        await domain.service.create_key(session, issuer, NOW, algorithm=Algorithm.ESP256)
        old, new = await domain.service.rotate_key(session, issuer, NOW)
    assert [key.algorithm for key in (old, new)] == ["P-256", "P-256"]
    assert {key.signature_algorithm for key in (old, new)} == {Algorithm.ESP256}
    assert [len(key.public) for key in (old, new)] == [33, 33]


async def test_a_custody_of_another_installation_is_found_out(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        first, second = [await domain.service.create_key(session, issuer, NOW.replace(second=s)) for s in (1, 2)]
        first.custody_name, second.custody_name = second.custody_name, first.custody_name
    with pytest.raises(CustodyError, match="is another one"):
        domain.service.open_key(first)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FileCustodyAccess(Path("home/keys"), PASSPHRASE)),
        ({"custody": "kms"}, KmsCustodyAccess("", "fanxing/")),
        (
            {"custody": "pkcs11", "pkcs11_module": Path("m.so"), "pkcs11_token": "t"},
            TokenCustodyAccess(Path("m.so"), "t", "1234"),
        ),
    ],
    ids=["file", "kms", "pkcs11"],
)
def test_settings_choose_the_custody(changes: dict[str, Any], expected: SigningAccess) -> None:
    settings = Settings(home=Path("home")).model_copy(update=changes)
    access = custody_access(settings, lambda: PASSPHRASE, lambda: "1234")
    assert access == expected
    assert PASSPHRASE not in repr(access)
    assert "1234" not in repr(access)
    assert pickle.loads(pickle.dumps(access)) == access  # noqa: S301 - from this test


@pytest.mark.parametrize(
    ("changes", "missing"),
    [({"pkcs11_token": "t"}, "FANXING_PKCS11_MODULE"), ({"pkcs11_module": Path("m.so")}, "FANXING_PKCS11_TOKEN")],
    ids=["module", "token"],
)
def test_a_token_that_is_half_described_is_told(changes: dict[str, Any], missing: str) -> None:
    settings = Settings(home=Path("home")).model_copy(update={"custody": "pkcs11", **changes})
    with pytest.raises(ConfigurationError, match=missing):
        custody_access(settings, lambda: PASSPHRASE, lambda: "1234")


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
