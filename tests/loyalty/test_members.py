"""Members: one a phone number and group, found by it, and forgotten on demand."""

import asyncio
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from sqlmodel import SQLModel, select

from kit import vault as vaults
from kit.db import Database
from kit.vault import Vault, VaultSealBroken
from loyalty import ledger, members, sign_in
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.members import Card, Member, MemberKey, MemberUnknown, PhoneIdentity
from loyalty.phones import PhoneInvalid, parse_phone
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember

PHONE = "+8613800138000"


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("13800138000", PHONE),
        ("+86 138 0013 8000", PHONE),
        ("0086-138-0013-8000", PHONE),
        ("１３８００１３８０００", PHONE),
        ("+12025550123", "+12025550123"),
        ("+447400123456", "+447400123456"),
    ],
)
def test_a_phone_number_has_one_form(text: str, phone: str) -> None:
    assert parse_phone(text) == phone


@pytest.mark.parametrize(
    "text", ["", "12345", "1380013800", "138001380000", "01012345678", "hello", "+99913800138000", "1" * 33]
)
def test_what_is_no_mobile_number_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(PhoneInvalid) as refusal:
        parse_phone(text)
    assert not text or text not in f"{refusal.value} {refusal.value.hint}"


async def test_a_number_enrols_once_and_is_found_again(database: Database, vault: Vault) -> None:
    async with database.writing() as session:
        made, is_new = await members.find_or_enrol(session, vault, GROUP, "13800138000", NOW)
    async with database.writing() as session:
        found, is_new_again = await members.find_or_enrol(session, vault, GROUP, PHONE, NOW + timedelta(days=1))
    assert (is_new, is_new_again) == (True, False)
    assert (found.member_id, found.created_at) == (made.member_id, NOW)


async def test_one_number_is_two_members_in_two_groups(make_member: MakeMember) -> None:
    assert await make_member(group_id=1) != await make_member(group_id=2)


async def test_twenty_enrolments_of_one_number_make_one_member(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    async def enrol() -> tuple[Member, bool]:
        async with database.writing() as session:
            return await members.find_or_enrol(session, vault, GROUP, PHONE, NOW)

    results = await asyncio.gather(*(enrol() for _ in range(20)))
    assert len({member.member_id for member, _ in results}) == 1
    assert Counter(is_new for _, is_new in results) == {True: 1, False: 19}
    async with database.reading() as session:
        for model in (Member, MemberKey, PhoneIdentity):
            assert len((await session.exec(select(model))).all()) == 1


async def test_the_number_is_stored_sealed_and_comes_back_for_the_carrier(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    member_id = await make_member()
    async with database.reading() as session:
        assert await members.phone_of(session, vault, member_id) == PHONE
        for model in (Member, MemberKey, PhoneIdentity):
            assert "13800138000" not in str((await session.exec(select(model))).one().model_dump())
        with pytest.raises(VaultSealBroken):
            await members.phone_of(session, Vault(vaults.new_key()), member_id)


async def test_a_sealed_number_does_not_open_in_another_members_row(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        stolen = await session.get_one(Member, ann)
        (await session.get_one(Member, ben)).phone_sealed = stolen.phone_sealed
        key = await session.get_one(MemberKey, ann)
        (await session.get_one(MemberKey, ben)).key_sealed = key.key_sealed
    async with database.reading() as session:
        with pytest.raises(VaultSealBroken):
            await members.phone_of(session, vault, ben)


async def test_an_erased_member_is_forgotten_while_the_ledger_still_balances(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    member_id = await make_member()
    source = AccountId(ledger.group_holder(GROUP), "points", Purpose.ISSUANCE)
    legs = (Leg(source, -5), Leg(AccountId(member_id, "points", Purpose.AVAILABLE), 5))
    async with database.writing() as session:
        await ledger.post(session, Transfer(uuid.uuid4(), "gift", legs), NOW)
        token = await sign_in.open_session(session, member_id, NOW)
        await members.erase(session, member_id)
    async with database.reading() as session:
        with pytest.raises(MemberUnknown):
            await members.phone_of(session, vault, member_id)
        assert await sign_in.member_of(session, token, NOW) is None
        assert (await members.get(session, member_id)).phone_sealed is None
        emptied: tuple[type[SQLModel], ...] = (MemberKey, PhoneIdentity)
        for model in emptied:
            assert (await session.exec(select(model))).all() == []
        assert (await ledger.verify(session)).sound
    assert await make_member() != member_id


async def test_erasing_one_member_leaves_the_others(database: Database, vault: Vault, make_member: MakeMember) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        await members.erase(session, ann)
    async with database.reading() as session:
        assert await members.phone_of(session, vault, ben) == "+8613800138002"


async def test_an_unknown_member_is_an_error(database: Database, vault: Vault) -> None:
    async with database.writing() as session:
        with pytest.raises(MemberUnknown):
            await members.get(session, uuid.uuid4())
        with pytest.raises(MemberUnknown):
            await members.erase(session, uuid.uuid4())
        with pytest.raises(MemberUnknown):
            await members.phone_of(session, vault, uuid.uuid4())


async def test_joining_a_brand_twenty_times_at_once_makes_one_card(database: Database, make_member: MakeMember) -> None:
    member_id = await make_member()

    async def join() -> Card:
        async with database.writing() as session:
            return await members.join_brand(session, member_id, BRAND, NOW)

    cards = await asyncio.gather(*(join() for _ in range(20)))
    assert len({card.card_number for card in cards}) == 1
    async with database.reading() as session:
        assert len(await members.cards_of(session, member_id)) == 1


async def test_a_card_number_has_sixteen_digits_and_a_check_digit(database: Database, make_member: MakeMember) -> None:
    member_id = await make_member()
    async with database.writing() as session:
        number = (await members.join_brand(session, member_id, BRAND, NOW)).card_number
    assert len(number) == 16
    assert members.luhn_digit(number[:-1]) == int(number[-1])


@pytest.mark.parametrize(("payload", "digit"), [("7992739871", 3), ("1789372997", 4), ("0", 0), ("424242424242424", 2)])
def test_the_check_digit_is_the_published_one(payload: str, digit: int) -> None:
    assert members.luhn_digit(payload) == digit
