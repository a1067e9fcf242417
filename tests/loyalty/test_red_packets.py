"""Red packets: shares that were decided before anybody opened one, opened once by each, and what is left goes back."""

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import fulfilment, programs, red_packets
from loyalty.allowances import AllowanceUsedUp
from loyalty.budgets import BudgetUsedUp
from loyalty.draws import fair
from loyalty.draws.fair import SHARES_MAX
from loyalty.fulfilment import Report, Teller, Word
from loyalty.prizes import PrizeKind
from loyalty.programs import Program, ProgramInvalid
from loyalty.red_packets import (
    VALID_HOURS_MAX,
    Opened,
    PacketEmpty,
    PacketIdReused,
    PacketRefused,
    PacketRules,
    PacketState,
    PacketUnknown,
    RedPacket,
)
from tests.loyalty.conftest import NOW
from tests.loyalty.earning import DAY, ON_SQLITE, assert_books_balance, issued, join, make_program, points_of

RULES = PacketRules(PrizeKind.POINTS, total=100, shares=5, minimum=2, valid_hours=24)


async def make(database: Database, vault: Vault, program: Program, member_id: uuid.UUID, **changes: Any) -> RedPacket:
    asked: dict[str, Any] = {
        "packet_id": uuid.uuid4(),
        "member_id": member_id,
        "program_id": program.program_id,
        "now": NOW,
    }
    async with database.writing() as session:
        return await red_packets.make(session, vault, **(asked | changes))


async def open_share(
    database: Database,
    vault: Vault,
    packet: RedPacket,
    member_id: uuid.UUID,
    at: datetime = NOW,
    device: str | None = None,
) -> Opened:
    async with database.writing() as session:
        return await red_packets.open_share(
            session, vault, packet_id=packet.packet_id, member_id=member_id, device=device, now=at
        )


async def friends(database: Database, vault: Vault, count: int, at: datetime = NOW) -> list[uuid.UUID]:
    return [await join(database, vault, 10 + number, at) for number in range(count)]


async def expire(database: Database, at: datetime) -> red_packets.Expired:
    async with database.writing() as session:
        return await red_packets.expire_due(session, at, 100)


async def test_shares_are_those_that_were_committed_to(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    packet = await make(database, vault, program, ann)
    opened = [await open_share(database, vault, packet, friend) for friend in await friends(database, vault, 5)]
    seed = red_packets.seed_of(vault, packet)
    assert [one.amount for one in opened] == fair.split(seed, packet.packet_id, 100, 5, 2)
    assert opened[-1].packet.state == PacketState.FINISHED
    terms = red_packets.document(packet.packet_id, RULES, fair.seed_hash(seed, packet.packet_id))
    assert fair.commitment(terms) == packet.commitment
    with pytest.raises(PacketEmpty):
        await open_share(database, vault, packet, await join(database, vault, 50, NOW))
    await assert_books_balance(database)


async def test_a_second_opening_answers_as_before(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    packet, [ben] = await make(database, vault, program, ann), await friends(database, vault, 1)
    first, again = [await open_share(database, vault, packet, ben) for _ in range(2)]
    assert (first.number, first.amount) == (again.number, again.amount)
    assert (first.given is None, again.given is None) == (False, True)
    assert await points_of(database, ben) == first.amount


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_twenty_friends_at_once_open_five_shares(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    packet, many = await make(database, vault, program, ann), await friends(database, vault, 20)
    results = await asyncio.gather(
        *(open_share(database, vault, packet, friend) for friend in many), return_exceptions=True
    )
    assert Counter(type(result).__name__ for result in results) == {"Opened": 5, "PacketEmpty": 15}
    assert sum([await points_of(database, friend) for friend in many]) == 100
    await assert_books_balance(database)


async def test_one_friend_at_once_opens_one_share(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    packet, [ben] = await make(database, vault, program, ann), await friends(database, vault, 1)
    results = await asyncio.gather(
        *(open_share(database, vault, packet, ben) for _ in range(10)), return_exceptions=True
    )
    assert {type(result).__name__ for result in results} <= {"Opened", "PacketRefused"}
    async with database.reading() as session:
        assert len(await red_packets.opened_of(session, packet.packet_id)) == 1
        assert (await red_packets.get(session, packet.packet_id)).opened == 1


@ON_SQLITE
async def test_nobody_opens_his_own_packet(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    with pytest.raises(PacketRefused, match="own"):
        await open_share(database, vault, await make(database, vault, program, ann), ann)


@pytest.mark.parametrize(("hours", "fits"), [(1, True), (2, True), (3, False)])
@ON_SQLITE
async def test_a_packet_for_new_friends(database: Database, vault: Vault, hours: int, fits: bool) -> None:
    rules = PacketRules(**{**vars(RULES), "friend_window_hours": 2})
    program, ann = await make_program(database, rules), await join(database, vault, 0, NOW)
    packet = await make(database, vault, program, ann)
    [ben] = await friends(database, vault, 1, NOW - timedelta(hours=hours))
    if fits:
        assert (await open_share(database, vault, packet, ben)).number == 1
    else:
        with pytest.raises(PacketRefused, match="new"):
            await open_share(database, vault, packet, ben)


async def test_what_is_not_opened_goes_back_to_the_budget(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES, budget=1), await join(database, vault, 0, NOW)
    packet, [ben, cid] = await make(database, vault, program, ann), await friends(database, vault, 2)
    with pytest.raises(BudgetUsedUp):
        await make(database, vault, program, ann)
    found = (await open_share(database, vault, packet, ben)).amount
    over = NOW + timedelta(hours=24)
    assert await expire(database, over - timedelta(seconds=1)) == red_packets.Expired(0, 0)
    with pytest.raises(PacketEmpty):
        await open_share(database, vault, packet, cid, over)
    assert await expire(database, over) == red_packets.Expired(1, 100 - found)
    assert await expire(database, over) == red_packets.Expired(0, 0)
    async with database.reading() as session:
        assert await programs.budget_left(session, program, RULES) == {"points": 100 - found}
        assert (await red_packets.get(session, packet.packet_id)).state == PacketState.EXPIRED
    await assert_books_balance(database)


@ON_SQLITE
@pytest.mark.parametrize("budget", [None, 1], ids=["issuance", "budget"])
async def test_a_share_that_cannot_be_delivered_goes_where_the_rest_of_its_packet_goes(
    database: Database, vault: Vault, budget: int | None
) -> None:
    rules = replace(RULES, asset=PrizeKind.CASH)
    program, ann = await make_program(database, rules, budget=budget), await join(database, vault, 0, NOW)
    packet, [ben] = await make(database, vault, program, ann), await friends(database, vault, 1)
    opened = await open_share(database, vault, packet, ben)
    assert opened.given is not None
    assert opened.given.order_id is not None
    await expire(database, NOW + DAY)
    async with database.writing() as session:
        await fulfilment.take(session, ben, opened.given.order_id, Report(Word.FAILED, Teller.OPERATOR), NOW + DAY)
    async with database.reading() as session:
        held = 0 if budget is None else (await programs.budget_left(session, program, rules))["fen"]
    assert held == (100 if budget else 0)
    assert await issued(database, "fen") == held
    await assert_books_balance(database)


@ON_SQLITE
async def test_without_a_budget_it_goes_back_to_the_brand(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    await make(database, vault, program, ann)
    assert await issued(database) == 100
    await expire(database, NOW + DAY)
    assert await issued(database) == 0


@ON_SQLITE
async def test_a_packet_outlives_its_program(database: Database, vault: Vault) -> None:
    program = await make_program(database, RULES, ends_at=NOW + timedelta(hours=1))
    ann, [ben] = await join(database, vault, 0, NOW), await friends(database, vault, 1)
    packet = await make(database, vault, program, ann)
    assert (await open_share(database, vault, packet, ben, NOW + timedelta(hours=2))).number == 1
    with pytest.raises(programs.ProgramNotOpen):
        await make(database, vault, program, ann, now=NOW + timedelta(hours=2))


async def test_making_is_idempotent_and_limited(database: Database, vault: Vault) -> None:
    rules = PacketRules(**{**vars(RULES), "member_day": 1, "device_day": 1})
    program, ann = await make_program(database, rules), await join(database, vault, 0, NOW)
    packet_id = uuid.uuid4()
    packets = [await make(database, vault, program, ann, packet_id=packet_id) for _ in range(2)]
    assert packets[0].commitment == packets[1].commitment
    assert await issued(database) == 100
    with pytest.raises(AllowanceUsedUp):
        await make(database, vault, program, ann)
    [ben, cid] = await friends(database, vault, 2)
    with pytest.raises(PacketIdReused):
        await make(database, vault, program, ben, packet_id=packet_id)
    other = await make(database, vault, program, ann, now=NOW + timedelta(hours=23))
    assert (await open_share(database, vault, other, ben, NOW + DAY, device="id x")).number == 1
    with pytest.raises(AllowanceUsedUp):
        await open_share(database, vault, other, cid, NOW + DAY, device="id x")


@ON_SQLITE
async def test_strangers_and_unknown_packets(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW)
    packet = await make(database, vault, program, ann)
    with pytest.raises(PacketUnknown):
        await open_share(database, vault, packet, await join(database, vault, 1, NOW, group_id=2))
    with pytest.raises(PacketUnknown):
        async with database.reading() as session:
            await red_packets.get(session, uuid.uuid4())


@pytest.mark.parametrize(
    "changes",
    [
        {"asset": PrizeKind.BENEFIT},
        {"shares": 1},
        {"shares": SHARES_MAX + 1, "total": 1000},
        {"minimum": 0},
        {"total": 9},
        {"total": 1_000_001},
        {"valid_hours": 0},
        {"valid_hours": VALID_HOURS_MAX + 1},
        {"friend_window_hours": 0},
        {"member_all": 0},
    ],
    ids=str,
)
def test_rules_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProgramInvalid):
        PacketRules(**{**vars(RULES), **changes}).check()


def test_rules_at_their_bounds_are_allowed() -> None:
    PacketRules(PrizeKind.POINTS, 1_000_000, SHARES_MAX, 10_000, VALID_HOURS_MAX, 1, 1, 1, 1).check()
    PacketRules(PrizeKind.CASH, 2, 2, 1, 1).check()
    assert PacketRules.read(RULES.document()) == RULES
