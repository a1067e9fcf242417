"""Accounts of regulators, their keys, and the record of their looks."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from kit.db import Database
from kit.errors import NotFound
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKeyRefused, OutOfScope, Role
from scan_api.regulators import accesses, accounts, keys
from scan_api.regulators.accesses import KEPT, PURPOSE_CHARACTERS_MAX, Asked, PurposeInvalid, Told
from scan_api.regulators.accounts import NAME_CHARACTERS_MAX, RegulatorEnded, RegulatorInvalid, RegulatorUnknown
from scan_api.regulators.keys import KEYS_PER_ACCOUNT_MAX, LIFETIME_DAYS_MAX, KeyLifetimeInvalid, TooManyKeys
from scan_api.regulators.scope import Scope
from tests.scan_api.regulators.conftest import NOW, World, regulator

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def _account(database: Database) -> uuid.UUID:
    async with database.writing() as session:
        made = await accounts.create(session, " Xi'an Bureau ", ["610100"], ["own:food"], NOW)
    return made.account_id


async def test_a_key_speaks_for_its_account_till_it_expires(world: World) -> None:
    account_id = await _account(world.database)
    async with world.database.writing() as session:
        made, key = await accounts.create_key(session, account_id, "desk 3", NOW, days=30, gtin_prefixes=("9506000",))
    async with world.database.reading() as session:
        found = await accounts.authenticate(session, f"Bearer {key}", NOW + timedelta(days=30, microseconds=-1))
        assert found.scope == Scope(("6101",), ("own:food",), ("9506000",))
        assert (found.name, found.holder_id, made.account_id) == ("Xi'an Bureau", account_id, account_id)
        with pytest.raises(ApiKeyRefused, match="expired"):
            await accounts.authenticate(session, f"Bearer {key}", NOW + timedelta(days=30))


async def test_an_account_that_ends_takes_its_keys_along(world: World) -> None:
    account_id = await _account(world.database)
    async with world.database.writing() as session:
        _made, one = await accounts.create_key(session, account_id, "desk 3", NOW)
        other, two = await accounts.create_key(session, account_id, "desk 4", NOW)
        await api_keys.revoke(session, other.key_id, NOW)
    async with world.database.reading() as session:
        await accounts.authenticate(session, f"Bearer {one}", NOW)
        with pytest.raises(ApiKeyRefused, match="revoked"):
            await accounts.authenticate(session, f"Bearer {two}", NOW)
    async with world.database.writing() as session:
        await accounts.end(session, account_id, NOW)
        assert [key.revoked_at is not None for key, _made in await keys.keys_of(session, account_id)] == [True, True]
        with pytest.raises(ApiKeyRefused):
            await accounts.authenticate(session, f"Bearer {one}", NOW)
        with pytest.raises(RegulatorEnded):
            await accounts.create_key(session, account_id, "desk 5", NOW)
        with pytest.raises(RegulatorEnded):
            await accounts.rescope(session, account_id, [], [])
        with pytest.raises(RegulatorUnknown):
            await accounts.end(session, uuid.UUID(int=1), NOW)


@ONE_DATABASE
async def test_a_new_jurisdiction_holds_for_the_keys_that_there_are(world: World) -> None:
    account_id = await _account(world.database)
    async with world.database.writing() as session:
        _made, key = await accounts.create_key(session, account_id, "desk 3", NOW)
        await accounts.rescope(session, account_id, ["31"], [])
    async with world.database.reading() as session:
        assert (await accounts.authenticate(session, f"Bearer {key}", NOW)).scope == Scope(("31",))
        assert [account.regions for account in await accounts.everyone(session)] == [["31"]]


@ONE_DATABASE
async def test_keys_of_other_roles_are_no_regulators(world: World) -> None:
    async with world.database.writing() as session:
        _key, text_ = await api_keys.create(session, Role.BRAND, "brand", NOW, brand_id=world.dairy)
        _key, plain = await api_keys.create(session, Role.REGULATOR, "from before", NOW, gtin_prefixes=("9506",))
        with pytest.raises(OutOfScope):
            await accounts.authenticate(session, f"Bearer {text_}", NOW)
        assert (await accounts.authenticate(session, f"Bearer {plain}", NOW)).scope == Scope(gtin_prefixes=("9506",))


@ONE_DATABASE
async def test_limits_of_accounts_and_keys(world: World) -> None:
    account_id = await _account(world.database)
    async with world.database.writing() as session:
        for name in ("", " ", "x" * (NAME_CHARACTERS_MAX + 1), "a\nb"):
            with pytest.raises(RegulatorInvalid):
                await accounts.create(session, name, [], [], NOW)
        for length in (NAME_CHARACTERS_MAX - 1, NAME_CHARACTERS_MAX):
            await accounts.create(session, "x" * length, [], [], NOW)
        for days in (0, LIFETIME_DAYS_MAX + 1):
            with pytest.raises(KeyLifetimeInvalid):
                await accounts.create_key(session, account_id, "desk", NOW, days=days)
        for days in (1, LIFETIME_DAYS_MAX - 1, LIFETIME_DAYS_MAX, *([5] * (KEYS_PER_ACCOUNT_MAX - 3))):
            made, _text = await accounts.create_key(session, account_id, "desk", NOW, days=days)
        with pytest.raises(TooManyKeys):
            await accounts.create_key(session, account_id, "desk", NOW)
        await api_keys.revoke(session, made.key_id, NOW)
        await accounts.create_key(session, account_id, "desk", NOW)


async def _ask_for_nothing(world: World) -> None:
    async with accesses.recorded(world.database, lambda: NOW, regulator(Scope()), Asked("item", "nothing")) as told:
        told.of(world.dairy)
        raise NotFound("there is none")


async def test_an_answer_is_recorded_and_so_is_a_refusal(world: World) -> None:
    who = regulator(Scope())
    asked = Asked("items", "x" * 32_769, {"brand": "y" * 32_769, "none": None, "count": 3}, "Case 17")
    async with accesses.recorded(world.database, lambda: NOW, who, asked) as told:
        told.of(world.dairy, 2)
        told.of(world.tea_house)
    with pytest.raises(NotFound):
        await _ask_for_nothing(world)
    async with world.database.reading() as session:
        found = {row.operation: row for row in await accesses.of_holder(session, who.holder_id, None, 10)}
        assert (found["items"].outcome, found["items"].told, found["items"].purpose) == ("answered", 3, "Case 17")
        assert found["items"].asked == {"brand": "y" * 32_768, "count": 3}
        assert (len(found["items"].subject), found["items"].key_id) == (32_768, who.key.key_id)
        assert (found["item"].outcome, found["item"].told) == ("NotFound", 0)
        ids = [row.access_id for row in found.values()]
        assert await accesses.brands_of(session, ids) == {found["items"].access_id: [world.dairy, world.tea_house]}
        assert [row.operation for row in await accesses.of_brands(session, [world.dairy], None, 10)] == ["items"]
        assert await accesses.of_brands(session, [world.tea_house + 1], None, 10) == []


@pytest.mark.parametrize("statement", ["UPDATE {} SET kept_until = kept_until", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["regulator_access", "regulator_access_brand"])
async def test_the_database_keeps_looks_as_they_are(world: World, table: str, statement: str) -> None:
    async with world.database.writing() as session:
        told = Told(1, {world.dairy: 1})
        # The database compares with its own clock.
        now = datetime.now(UTC) - KEPT + timedelta(minutes=5)
        await accesses.record(session, regulator(Scope()), Asked("item"), told, "answered", now)
    with pytest.raises(DBAPIError, match="append-only"):
        async with world.database.writing() as session:
            await (await session.connection()).execute(text(statement.format(table)))


async def test_looks_are_forgotten_when_their_time_is_over_and_not_before(world: World) -> None:
    async with world.database.writing() as session:
        for age in (KEPT - timedelta(hours=1), KEPT, KEPT + timedelta(days=1)):
            await accesses.record(
                session, regulator(Scope()), Asked("item"), Told(1, {world.dairy: 1}), "answered", NOW - age
            )
    async with world.database.writing() as session:
        assert await accesses.sweep(session, NOW) == 2
        assert await accesses.sweep(session, NOW) == 0
        assert len(await accesses.of_holder(session, None, None, 10)) == 1
        assert len(await accesses.of_brands(session, [world.dairy], None, 10)) == 1


@pytest.mark.parametrize(
    ("header", "purpose"),
    [(None, None), ("", None), (" ", None), ("Case 17", "Case 17"), ("%E6%A1%88", "案"), ("x" * 500, "x" * 500)],
)
def test_purposes(header: str | None, purpose: str | None) -> None:
    assert accesses.purpose_of(header) == purpose


@pytest.mark.parametrize("header", ["%FF", "a%00b", "%0A", "x" * (PURPOSE_CHARACTERS_MAX + 1)])
def test_what_is_no_purpose_is_refused(header: str) -> None:
    with pytest.raises(PurposeInvalid):
        accesses.purpose_of(header)


@ONE_DATABASE
@pytest.mark.parametrize(("text", "kept"), [("a\0b\ud800", "a\ufffdb\ufffd"), ("1" * 20, "1" * 20), ("1" * 21, "…")])
async def test_what_is_kept_of_a_look_can_be_stored_and_holds_no_signature(world: World, text: str, kept: str) -> None:
    who = regulator(Scope())
    async with accesses.recorded(world.database, lambda: NOW, who, Asked("trace", text, {text: text, "list": [text]})):
        pass
    async with world.database.reading() as session:
        [look] = await accesses.of_holder(session, who.holder_id, None, 10)
    assert look.subject == look.asked[kept] == kept
    assert text == kept or text not in look.asked["list"]
