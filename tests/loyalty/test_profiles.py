"""Profiles: a birthday that is told once, found without being read, and forgotten with its member."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlmodel import SQLModel, select

from kit.db import Database
from kit.vault import Vault, VaultSealBroken
from loyalty import consents, erasure, ledger, member_export, members, profiles, sign_in
from loyalty.consents import Agreement, Channel, NewDocument
from loyalty.members import Member, MemberKey, MemberProfile, MemberUnknown, PhoneIdentity
from loyalty.profiles import Birthday, BirthdayAlreadySet, BirthdayInvalid, parse_birthday
from loyalty.sign_in import CodePurpose, MemberSession, OneTimeCode
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember


async def tell(database: Database, vault: Vault, member_id: uuid.UUID, birthday: Birthday) -> None:
    async with database.writing() as session:
        await profiles.set_birthday(session, vault, member_id, birthday)


async def exported(database: Database, vault: Vault, member_id: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    held: dict[str, list[dict[str, Any]]] = {}
    async with database.reading() as session:
        async for section, row in member_export.export(session, vault, member_id):
            held.setdefault(section, []).append(row)
    return held


@pytest.mark.parametrize(("text", "birthday"), [("02-29", (2, 29)), ("1999-12-31", (12, 31)), ("5-1", (5, 1))])
def test_a_birthday_is_read_with_and_without_a_year(text: str, birthday: tuple[int, int]) -> None:
    assert parse_birthday(text) == Birthday(*birthday)


@pytest.mark.parametrize("text", ["02-30", "00-01", "13-01", "04-31", "5", "", "a-b", "１-1", "001-1"])
def test_what_is_no_day_of_a_year_is_no_birthday(text: str) -> None:
    with pytest.raises(BirthdayInvalid):
        parse_birthday(text)


async def test_a_birthday_is_told_once(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member_id = await make_member()
    await tell(database, vault, member_id, Birthday(2, 29))
    await tell(database, vault, member_id, Birthday(2, 29))
    with pytest.raises(BirthdayAlreadySet):
        await tell(database, vault, member_id, Birthday(3, 1))
    async with database.reading() as session:
        assert (await profiles.profile_of(session, vault, member_id)).birthday == Birthday(2, 29)
        stored = (await session.exec(select(MemberProfile))).one()
    assert b"02-29" not in (stored.birthday_sealed or b"") + (stored.birthday_key or b"")


async def test_of_two_birthdays_at_once_one_stays(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member_id = await make_member()
    tries = (tell(database, vault, member_id, Birthday(1, day)) for day in range(1, 9))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(result is None or isinstance(result, BirthdayAlreadySet) for result in results)


async def test_members_are_found_by_their_day_and_pages_follow_each_other(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    born = [await make_member(number) for number in range(5)]
    for member_id in born:
        await tell(database, vault, member_id, Birthday(5, 1))
    await tell(database, vault, await make_member(6), Birthday(5, 2))
    await tell(database, vault, await make_member(7, group_id=GROUP + 1), Birthday(5, 1))
    async with database.writing() as session:
        await erasure.erase(session, born.pop(), NOW)
    async with database.reading() as session:
        first = await profiles.born_on(session, vault, GROUP, [Birthday(5, 1)], 3)
        rest = await profiles.born_on(session, vault, GROUP, [Birthday(5, 1)], 3, first[-1])
    assert first + rest == sorted(born)


async def test_what_is_sealed_for_a_member_opens_for_him_alone_and_never_after_erasure(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        sealed = await members.seal_for(session, vault, ann, "杭州".encode(), b"address")
        assert await members.unseal_for(session, vault, ann, sealed, b"address") == "杭州".encode()
        for other, context in ((ben, b"address"), (ann, b"name")):
            with pytest.raises(VaultSealBroken):
                await members.unseal_for(session, vault, other, sealed, context)
        await erasure.erase(session, ann, NOW)
        with pytest.raises(MemberUnknown):
            await members.unseal_for(session, vault, ann, sealed, b"address")
        with pytest.raises(MemberUnknown):
            await members.seal_for(session, vault, ann, b"", b"address")


async def test_a_member_of_whom_a_till_told_is_proven_by_his_first_sign_in(database: Database, vault: Vault) -> None:
    async with database.writing() as session:
        told, was_new = await members.find_or_record(session, vault, GROUP, "13800138000", NOW)
        assert (was_new, told.proven_at) == (True, None)
        again, is_new = await members.find_or_enrol(session, vault, GROUP, "13800138000", NOW)
        assert (again.member_id, is_new) == (told.member_id, False)
        await session.refresh(again)
        assert again.proven_at == NOW


async def test_erasure_leaves_bare_facts_and_nothing_that_tells_who_it_was(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    member_id = await make_member()
    await tell(database, vault, member_id, Birthday(5, 1))
    async with database.writing() as session:
        await sign_in.open_session(session, member_id, NOW)
        await sign_in.issue_code(session, vault, GROUP, "13800138000", CodePurpose.SIGN_IN, NOW)
        await consents.publish(session, GROUP, NewDocument("privacy", "v1", "隐私", "P", "https://a.example"), NOW)
        await consents.record(session, member_id, GROUP, [Agreement("privacy", "v1")], Channel.API, NOW)
        await members.join_brand(session, member_id, BRAND, NOW)
        await erasure.erase(session, member_id, NOW)
    async with database.reading() as session:
        gone: tuple[type[SQLModel], ...] = (MemberKey, PhoneIdentity, MemberProfile, MemberSession, OneTimeCode)
        for model in gone:
            assert (await session.exec(select(model))).all() == []
        [left] = (await session.exec(select(Member))).all()
        assert (left.member_id, left.phone_sealed) == (member_id, None)
        assert len(await consents.held_by(session, member_id)) == 1
        assert len(await members.cards_of(session, member_id)) == 1
        assert (await ledger.verify(session)).sound


async def test_an_export_holds_what_is_known_and_no_secret(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    await tell(database, vault, ann, Birthday(5, 1))
    async with database.writing() as session:
        token = await sign_in.open_session(session, ann, NOW)
        await members.join_brand(session, ann, BRAND, NOW)
        legs = (
            ledger.Leg(ledger.issuance(BRAND, ledger.POINTS, ann), -5),
            ledger.Leg(ledger.AccountId(ann, ledger.POINTS, ledger.Purpose.AVAILABLE), 5),
        )
        await ledger.post(session, ledger.Transfer(uuid.uuid4(), "gift", legs), NOW)
    held = await exported(database, vault, ann)
    [member] = held["member"]
    assert (member["phone"], member["birthday"]) == ("+8613800138001", "05-01")
    assert [(row["asset"], row["amount"]) for row in held["ledger_entry"]] == [("points", 5)]
    assert len(held["card"]) == len(held["member_session"]) == 1
    text = json.dumps(held)
    assert token not in text
    assert str(ben) not in text
    with pytest.raises(MemberUnknown):
        await exported(database, vault, uuid.uuid4())


def test_every_table_that_names_members_is_a_section_or_says_why_not() -> None:
    named = {table.name for table in SQLModel.metadata.tables.values() if member_export.owner_of(table) is not None}
    assert {table.name for table in member_export.sections()} | (member_export.LEFT_OUT.keys() & named) == named


def test_every_section_is_found_by_its_member_without_reading_the_others() -> None:
    for table in member_export.sections():
        owner = member_export.owner_of(table)
        leading = [next(iter(table.primary_key.columns)), *(next(iter(index.columns)) for index in table.indexes)]
        assert owner in leading, table.name
