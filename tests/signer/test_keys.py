"""Issuers, key numbers, the ends of keys, revocations."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from kit.db import Database
from signer import keys
from signer.keys import (
    Issuer,
    IssuerExists,
    IssuerInvalid,
    IssuerUnknown,
    KeyNumbersUsedUp,
    KeyState,
    Revocation,
    RevocationInvalid,
    SigningKey,
    SigningKeyMissing,
    SigningKeyUnknown,
)
from tests.signer.conftest import GTIN, NOW, PREFIX, TrustDomain

LATER = NOW + timedelta(days=1)


async def stored(database: Database, kind: type[Issuer | SigningKey | Revocation]) -> int:
    async with database.reading() as session:
        return len((await session.exec(select(kind))).all())


async def test_an_issuer_is_found_by_its_name(database: Database) -> None:
    async with database.writing() as session:
        made = await keys.create_issuer(session, "  繁星示范乳业 ", ["6901234", "0950600", "6901234"], NOW)
    async with database.reading() as session:
        found = await keys.issuer_named(session, "繁星示范乳业")
        assert (found.issuer_id, found.gtin_prefixes) == (made.issuer_id, ["0950600", "6901234"])
        assert found.created_at == NOW
        with pytest.raises(IssuerUnknown):
            await keys.issuer_named(session, "nobody")


@pytest.mark.parametrize("name", ["x", "x" * 100])
@pytest.mark.parametrize("prefix", ["0000", "6901", "690123456789"])
async def test_names_and_prefixes_at_their_bounds_are_taken(database: Database, name: str, prefix: str) -> None:
    async with database.writing() as session:
        await keys.create_issuer(session, name, [prefix], NOW)
    assert await stored(database, Issuer) == 1


async def test_a_name_that_scanners_would_refuse_is_refused(database: Database) -> None:
    for name in ["", " ", "x" * 101, "a\nb", "a\x1b[31mb", "a\u202eb"]:
        async with database.writing() as session:
            with pytest.raises(IssuerInvalid, match="name"):
                await keys.create_issuer(session, name, [PREFIX], NOW)
        assert await stored(database, Issuer) == 0


async def test_prefixes_out_of_form_are_refused(database: Database) -> None:
    for prefixes in [
        [],
        [""],
        ["690"],
        ["6901234567890"],
        ["69o1"],
        ["٦٩٠١"],
        ["6901", "x"],
        ["6901²"],
        [str(10**6 + n) for n in range(1001)],
    ]:
        async with database.writing() as session:
            with pytest.raises(IssuerInvalid, match="prefix"):
                await keys.create_issuer(session, "Dairy", prefixes, NOW)
        assert await stored(database, Issuer) == 0


@pytest.mark.parametrize("theirs", ["690123456", "6901", "69012345678"])
async def test_nobody_takes_a_prefix_inside_or_around_anothers(
    database: Database, domain: TrustDomain, theirs: str
) -> None:
    async with database.writing() as session:
        await domain.issuer(session, "First")
    async with database.writing() as session:
        with pytest.raises(IssuerExists, match="belongs to the issuer First"):
            await keys.create_issuer(session, "Second", ["5901", theirs], NOW)
        await keys.create_issuer(session, "Second", ["690123457"], NOW)


@pytest.mark.parametrize("name", ["First", " First "])
async def test_a_name_belongs_to_one_issuer(database: Database, domain: TrustDomain, name: str) -> None:
    async with database.writing() as session:
        await domain.issuer(session, "First")
        with pytest.raises(IssuerExists, match="named First already"):
            await keys.create_issuer(session, name, ["5901"], NOW)


async def test_of_ten_that_claim_one_prefix_at_once_one_gets_it(database: Database) -> None:
    async def claim(number: int) -> None:
        async with database.writing() as session:
            await keys.create_issuer(session, f"Issuer {number}", ["690123456"[: 4 + number % 5]], NOW)

    outcomes = await asyncio.gather(*map(claim, range(10)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, IssuerExists) for outcome in outcomes) == 9
    assert await stored(database, Issuer) == 1


async def test_key_numbers_count_up_and_never_come_again(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        first = await domain.service.create_key(session, issuer, NOW)
        second = await domain.service.create_key(session, issuer, NOW)
        await keys.end_key(session, second.kid, KeyState.REVOKED, NOW)
        third = await domain.service.create_key(session, issuer, NOW)
    assert [first.kid, second.kid, third.kid] == [1, 2, 3]
    assert len({first.public, second.public, third.public}) == 3


async def test_ten_keys_made_at_once_get_ten_numbers(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)

    async def make() -> int:
        async with database.writing() as session:
            return (await domain.service.create_key(session, issuer, NOW)).kid

    assert sorted(await asyncio.gather(*(make() for _ in range(10)))) == list(range(1, 11))


async def test_the_last_key_number_is_the_last(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        assert issuer.issuer_id is not None
        session.add(
            SigningKey(
                kid=keys.KID_MAX - 1, issuer_id=issuer.issuer_id, public=b"\1" * 32, custody_name="x", created_at=NOW
            )
        )
        await session.flush()
        last = await domain.service.create_key(session, issuer, NOW)
        assert last.kid == 99_999
        files = len(list(domain.folder.iterdir()))
        with pytest.raises(KeyNumbersUsedUp):
            await domain.service.create_key(session, issuer, NOW)
    assert len(list(domain.folder.iterdir())) == files, "a key without a number was made"


async def test_the_newest_active_key_signs_new_orders(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        assert issuer.issuer_id is not None
        with pytest.raises(SigningKeyMissing):
            await keys.active_key(session, issuer.issuer_id)
        first = await domain.service.create_key(session, issuer, NOW)
        second = await domain.service.create_key(session, issuer, NOW)
        assert (await keys.active_key(session, issuer.issuer_id)).kid == second.kid
        await keys.end_key(session, second.kid, KeyState.RETIRED, NOW)
        assert (await keys.active_key(session, issuer.issuer_id)).kid == first.kid
        await keys.end_key(session, first.kid, KeyState.REVOKED, NOW)
        with pytest.raises(SigningKeyMissing):
            await keys.active_key(session, issuer.issuer_id)


async def test_a_key_number_that_is_not_there_is_told(database: Database) -> None:
    async with database.writing() as session:
        with pytest.raises(SigningKeyUnknown):
            await keys.key_numbered(session, 1)
        with pytest.raises(SigningKeyUnknown):
            await keys.end_key(session, 1, KeyState.REVOKED, NOW)


async def test_a_retired_key_can_be_revoked_but_a_revoked_one_not_retired(
    database: Database, domain: TrustDomain
) -> None:
    async with database.writing() as session:
        kid = (await domain.service.create_key(session, await domain.issuer(session), NOW)).kid
    for state, expected, ended_at in (
        (KeyState.RETIRED, KeyState.RETIRED, NOW),
        (KeyState.RETIRED, KeyState.RETIRED, NOW),
        (KeyState.REVOKED, KeyState.REVOKED, LATER),
        (KeyState.RETIRED, KeyState.REVOKED, LATER),
    ):
        async with database.writing() as session:
            now = ended_at if expected == state else LATER + timedelta(days=1)
            await keys.end_key(session, kid, state, now)
        async with database.reading() as session:
            key = await keys.key_numbered(session, kid)
            assert (key.state, key.ended_at) == (expected, ended_at)


async def test_retiring_a_key_never_takes_back_a_revocation_it_had_not_seen(
    database: Database, domain: TrustDomain
) -> None:
    async with database.writing() as session:
        kid = (await domain.service.create_key(session, await domain.issuer(session), NOW)).kid

    async def revoke() -> None:
        async with database.writing() as session:
            await keys.end_key(session, kid, KeyState.REVOKED, NOW)

    async with database.writing() as session:
        assert (await keys.key_numbered(session, kid)).state == KeyState.ACTIVE
        revoking = asyncio.create_task(revoke())
        # PostgreSQL lets it through now; SQLite has one writer and lets it in after us.
        await asyncio.wait([revoking], timeout=0.5)
        await keys.end_key(session, kid, KeyState.RETIRED, NOW)
    await revoking
    async with database.reading() as session:
        assert (await keys.key_numbered(session, kid)).state == KeyState.REVOKED


async def test_an_order_range_out_of_bounds_is_not_revoked(database: Database) -> None:
    for order_min, order_max in [(0, 1), (2, 1), (1, 100_000), (-1, -1), (100_000, 100_000)]:
        async with database.writing() as session:
            with pytest.raises(RevocationInvalid):
                await keys.revoke_orders(session, GTIN, order_min, order_max, "", NOW)
        assert await stored(database, Revocation) == 0


async def test_a_wrong_gtin_is_not_revoked(database: Database) -> None:
    for gtin in ["", "6901234567892", "06901234567893", "x6901234567892", "٠6901234567892"]:
        async with database.writing() as session:
            with pytest.raises(RevocationInvalid, match="GTIN"):
                await keys.revoke_orders(session, gtin, 1, 1, "", NOW)
            with pytest.raises(RevocationInvalid, match="GTIN"):
                await keys.revoke_item(session, gtin, "00001000000000", "", NOW)


async def test_a_wrong_serial_is_not_revoked(database: Database) -> None:
    for serial in ["", "0000100000000", "000010000000000", "0000x000000000", "٠0001000000000", "-0001000000000"]:
        async with database.writing() as session:
            with pytest.raises(RevocationInvalid, match="serial"):
                await keys.revoke_item(session, GTIN, serial, "", NOW)


async def test_a_revocation_is_kept_once_with_its_first_reason(database: Database) -> None:
    async with database.writing() as session:
        await keys.revoke_orders(session, GTIN, 1, 99_999, "stolen", NOW)
        await keys.revoke_item(session, GTIN, "00001999999999", "lost", NOW)
    async with database.writing() as session:
        again = await keys.revoke_orders(session, GTIN, 1, 99_999, "other", LATER)
        item = await keys.revoke_item(session, GTIN, "00001999999999", "other", LATER)
        assert (again.reason, again.at, item.reason) == ("stolen", NOW, "lost")
    assert await stored(database, Revocation) == 2


async def test_ten_who_revoke_the_same_at_once_make_one_revocation(database: Database) -> None:
    async def revoke(number: int) -> None:
        async with database.writing() as session:
            if number % 2:
                await keys.revoke_item(session, GTIN, "00001000000007", "", NOW)
            else:
                await keys.revoke_orders(session, GTIN, 3, 5, "", NOW)

    await asyncio.gather(*map(revoke, range(10)))
    assert await stored(database, Revocation) == 2


async def test_what_is_revoked_is_exactly_that(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
        kid = (await domain.service.create_key(session, issuer, NOW)).kid
        dead = (await domain.service.create_key(session, issuer, NOW)).kid
        await keys.end_key(session, dead, KeyState.REVOKED, NOW)
        await keys.revoke_orders(session, GTIN, 3, 5, "", NOW)
        await keys.revoke_item(session, GTIN, "00007000000042", "", NOW)
    async with database.reading() as session:

        async def revoked(order: int, item: int, *, gtin: str = GTIN, kid: int = kid) -> bool:
            return await keys.is_revoked(session, kid, gtin, order, item)

        assert [await revoked(order, 0) for order in range(1, 8)] == [False, False, True, True, True, False, False]
        assert [await revoked(7, item) for item in (41, 42, 43)] == [False, True, False]
        assert not await revoked(4, 0, gtin="09506000134352")
        assert not await revoked(6, 42)
        assert await revoked(1, 0, kid=dead)


async def test_the_database_itself_refuses_a_key_out_of_bounds(database: Database, domain: TrustDomain) -> None:
    async with database.writing() as session:
        issuer = await domain.issuer(session)
    for kid, state, order_min, order_max in (
        (0, "active", 1, 1),
        (100_000, "active", 1, 1),
        (1, "lost", 1, 1),
        (1, "active", 2, 1),
        (1, "active", 1, 100_000),
    ):
        with pytest.raises(IntegrityError):
            async with database.writing() as session:
                session.add(
                    SigningKey(
                        kid=kid,
                        issuer_id=issuer.issuer_id,
                        public=b"\1" * 32,
                        state=state,
                        order_min=order_min,
                        order_max=order_max,
                        custody_name="x",
                        created_at=NOW,
                    )
                )
