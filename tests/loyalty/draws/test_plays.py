"""Plays: each ticket is dealt once, each prize is given once, and the record of it all holds."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from kit.db import Database
from kit.errors import FanxingError
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import fulfilment, ledger
from loyalty.allowances import AllowanceUsedUp
from loyalty.benefits import BenefitKind, NewBenefit, stock
from loyalty.benefits import catalogue as benefit_catalogue
from loyalty.draws import catalogue, fair, plays, record
from loyalty.draws.catalogue import Draw, DrawAltered, DrawNotOpen, DrawState, DrawUnknown
from loyalty.draws.fair import DrawInvalid
from loyalty.draws.plays import DrawUsedUp, Played, PlayIdReused, PlayRequest, PlayUnpaid
from loyalty.draws.record import Checked
from loyalty.draws.terms import DrawPrize, Form, Limits, Made, Price, Terms, Tickets, Words
from loyalty.fulfilment import Report, Teller, Word
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember
from tests.loyalty.draws.published import prize
from tests.loyalty.earning import ON_SQLITE

PLAYERS = 20
OPENS = NOW - timedelta(days=1)
CLOSES = NOW + timedelta(days=30)

MakeDraw = Callable[..., Awaitable[Draw]]

DECK_PRIZES = (
    prize("first", Made.CASH, 500, 1),
    prize("second", Made.POINTS, 100, 9),
    prize("none", Made.NOTHING, 0, 30),
)
ODDS_PRIZES = (
    prize("first", Made.CASH, 500, 2, 2),
    prize("second", Made.POINTS, 100, None, 3),
    prize("none", Made.NOTHING, 0, None, 5),
)


def terms(**changes: Any) -> Callable[[uuid.UUID, bytes], Terms]:
    def make(draw_id: uuid.UUID, seed_hash: bytes) -> Terms:
        plain = Terms(
            draw_id=draw_id,
            form=Form.DECK,
            tickets=Tickets.PLAYS,
            title=Words("夏日盲盒", "Summer box"),
            opens_at=OPENS,
            closes_at=CLOSES,
            prizes=DECK_PRIZES,
            seed_hash=seed_hash,
            stripes=4,
        )
        return replace(plain, **changes)

    return make


ODDS = {"form": Form.ODDS, "prizes": ODDS_PRIZES, "consolation": 2}


@pytest.fixture
def make_draw(database: Database, vault: Vault) -> MakeDraw:
    async def make(is_open: bool = True, **changes: Any) -> Draw:
        async with database.writing() as session:
            draw = await catalogue.publish(
                session, vault, brand_id=BRAND, group_id=GROUP, make_terms=terms(**changes), now=NOW
            )
            return await catalogue.open_plays(session, draw.draw_id, NOW) if is_open else draw

    return make


async def play(database: Database, vault: Vault, draw: Draw, member_id: uuid.UUID, **changes: Any) -> Played:
    plain = PlayRequest(uuid.uuid4(), member_id, draw.draw_id, b"the player's own")
    at = changes.pop("at", NOW)
    async with database.writing() as session:
        return await plays.play(session, vault, replace(plain, **changes), at)


class PowerCut(Exception):
    """What ends a transaction before its commit."""


async def play_and_crash(database: Database, vault: Vault, draw: Draw, member_id: uuid.UUID) -> None:
    async with database.writing() as session:
        request = PlayRequest(uuid.uuid4(), member_id, draw.draw_id, b"the player's own")
        await plays.play(session, vault, request, NOW)
        raise PowerCut


async def finish(database: Database, vault: Vault, draw: Draw) -> list[bytes]:
    async with database.writing() as session:
        await catalogue.close(session, draw.draw_id, CLOSES)
        await catalogue.reveal(session, vault, draw.draw_id, CLOSES)
    async with database.reading() as session:
        revealed = await catalogue.get(session, draw.draw_id)
        return [line async for line in plays.record_of(session, revealed)]


async def checked(database: Database, vault: Vault, draw: Draw, receipts: list[bytes]) -> Checked:
    return record.check(await finish(database, vault, draw), commitment=draw.commitment, receipts=receipts)


async def balance(database: Database, account: AccountId) -> int:
    async with database.reading() as session:
        return (await ledger.balances_of(session, [account])).get(account, 0)


async def give_points(database: Database, member_id: uuid.UUID, points: int) -> None:
    legs = (
        Leg(ledger.issuance(BRAND, "points", member_id), -points),
        Leg(AccountId(member_id, "points", Purpose.AVAILABLE), points),
    )
    async with database.writing() as session:
        await ledger.post(session, Transfer(uuid.uuid4(), "test", legs), NOW)


async def assert_books_balance(database: Database) -> None:
    async with database.reading() as session:
        assert (await ledger.verify(session)).faults == ()


class TestConcurrency:
    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    async def test_sixty_four_at_once_over_a_small_deck(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw = await make_draw()
        members = [await make_member(number) for number in range(16)]
        results = await asyncio.gather(
            *(play(database, vault, draw, members[number % 16]) for number in range(64)), return_exceptions=True
        )
        done = [result for result in results if isinstance(result, Played)]
        assert Counter(type(result).__name__ for result in results) == {"Played": 40, "DrawUsedUp": 24}
        assert len({(result.line.stripe, result.line.position) for result in done}) == 40
        found = await checked(database, vault, draw, [result.receipt for result in done])
        assert [(entry.given, entry.left) for entry in found.prizes] == [(1, 0), (9, 0), (30, 0)]
        points = sum([await balance(database, AccountId(member, "points", Purpose.AVAILABLE)) for member in members])
        assert points == 900
        await assert_books_balance(database)

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    async def test_odds_with_limited_prizes_under_many_at_once(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw = await make_draw(**ODDS)
        members = [await make_member(number) for number in range(16)]
        done = await asyncio.gather(*(play(database, vault, draw, members[number % 16]) for number in range(64)))
        found = await checked(database, vault, draw, [result.receipt for result in done])
        assert (found.plays, found.prizes[0].given, found.prizes[0].left) == (64, 2, 0)
        await assert_books_balance(database)

    async def test_one_play_sent_twenty_times_at_once_is_one_play(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member, play_id = await make_draw(), await make_member(), uuid.uuid4()
        results = await asyncio.gather(*(play(database, vault, draw, member, play_id=play_id) for _ in range(20)))
        assert len({result.receipt for result in results}) == 1
        assert sum(result.given is not None for result in results) == 1
        assert (await checked(database, vault, draw, [results[0].receipt])).plays == 1

    async def test_a_play_that_is_rolled_back_leaves_no_hole(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(stripes=1), await make_member()
        for number in range(3):
            with pytest.raises(PowerCut):
                await play_and_crash(database, vault, draw, member)
            done = await play(database, vault, draw, member)
            assert (done.line.position, done.turn) == (number, number + 1)
        assert (await checked(database, vault, draw, [])).plays == 3

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    async def test_plays_whose_connections_are_killed_are_dealt_once_when_sent_again(
        self, database: Database, database_url: str, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw = await make_draw()
        members = [await make_member(number) for number in range(8)]
        killed = 0

        async def play_until_answered(member: uuid.UUID) -> Played:
            nonlocal killed
            play_id = uuid.uuid4()
            while True:
                try:
                    return await play(database, vault, draw, member, play_id=play_id)
                except DBAPIError:
                    killed += 1

        playing = [asyncio.create_task(play_until_answered(members[number % 8])) for number in range(40)]
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as axe:
            while not killed and not all(task.done() for task in playing):
                await axe.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND state = 'idle in transaction'"
                )
        done = await asyncio.gather(*playing)
        assert killed
        found = await checked(database, vault, draw, [result.receipt for result in done])
        assert (found.plays, [entry.left for entry in found.prizes]) == (40, [0, 0, 0])
        await assert_books_balance(database)


class TestPlaying:
    async def test_every_prize_arrives(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(), await make_member()
        done = [await play(database, vault, draw, member) for _ in range(40)]
        assert Counter(result.line.prize for result in done) == {0: 1, 1: 9, 2: 30}
        assert [result.turn for result in done] == list(range(1, 41))
        assert await balance(database, AccountId(member, "points", Purpose.AVAILABLE)) == 900
        assert await balance(database, AccountId(member, "fen", Purpose.PENDING)) == 500
        with pytest.raises(DrawUsedUp):
            await play(database, vault, draw, member)
        async with database.reading() as session:
            listed = await plays.plays_of(session, member, draw.draw_id)
        assert [result.receipt for result in listed] == [result.receipt for result in reversed(done)]
        await checked(database, vault, draw, [result.receipt for result in done])
        await assert_books_balance(database)

    async def test_a_benefit_is_set_aside_and_given(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        benefit_id = await make_benefit(database, count=5)
        entry = DrawPrize(Words("杯", "cup"), Made.BENEFIT, 1, 2_000, 3, benefit_id=benefit_id)
        draw, member = await make_draw(prizes=(entry,), stripes=1), await make_member()
        assert await in_stock(database, benefit_id) == 2
        done = await play(database, vault, draw, member)
        assert done.given is not None
        assert done.given.held is not None
        assert await balance(database, AccountId(member, f"benefit:{benefit_id}", Purpose.AVAILABLE)) == 1
        await finish(database, vault, draw)
        assert await in_stock(database, benefit_id) == 4
        await assert_books_balance(database)

    async def test_what_nobody_won_goes_back_to_the_brand(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw = await make_draw(**ODDS)
        async with database.reading() as session:
            assert await ledger.total(session, Purpose.ISSUANCE, "fen", BRAND) == -1_000
        await finish(database, vault, draw)
        async with database.reading() as session:
            assert await ledger.total(session, Purpose.ISSUANCE, "fen", BRAND) == 0
        await assert_books_balance(database)

    async def test_what_cannot_be_delivered_after_the_close_goes_where_the_budget_went(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(prizes=(prize("first", Made.CASH, 500, 1),), stripes=1), await make_member()
        played = await play(database, vault, draw, member)
        assert played.given is not None
        assert played.given.order_id is not None
        await finish(database, vault, draw)
        async with database.writing() as session:
            failed = Report(Word.FAILED, Teller.OPERATOR)
            await fulfilment.take(session, member, played.given.order_id, failed, CLOSES)
        async with database.reading() as session:
            assert await ledger.total(session, Purpose.ISSUANCE, "fen", BRAND) == 0
        await assert_books_balance(database)

    async def test_a_play_costs_points(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(price=Price.POINTS, price_amount=10), await make_member()
        with pytest.raises(PlayUnpaid):
            await play(database, vault, draw, member)
        await give_points(database, member, 19)
        await play(database, vault, draw, member)
        assert await balance(database, AccountId(member, "points", Purpose.AVAILABLE)) in (9, 109)
        async with database.reading() as session:
            assert await ledger.total(session, Purpose.SPENT, "points", BRAND) == 10
        await assert_books_balance(database)

    async def test_a_play_costs_a_chance(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(price=Price.CHANCES, price_amount=1), await make_member()
        async with database.writing() as session:
            for _repeated in range(2):
                left = await plays.grant_chances(
                    session,
                    grant_id=derived_id("test"),
                    member_id=member,
                    draw=draw,
                    count=2,
                    reason="test",
                    now=NOW,
                )
        assert left == 2
        for _ in range(2):
            await play(database, vault, draw, member)
        with pytest.raises(PlayUnpaid):
            await play(database, vault, draw, member)
        assert await balance(database, AccountId(member, plays.chance_asset(draw.draw_id), Purpose.SPENT)) == 2
        assert (await checked(database, vault, draw, [])).plays == 2

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    async def test_one_chance_played_ten_times_at_once_is_one_play(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(price=Price.CHANCES, price_amount=1), await make_member()
        async with database.writing() as session:
            await plays.grant_chances(
                session, grant_id=uuid.uuid4(), member_id=member, draw=draw, count=1, reason="test", now=NOW
            )
        results = await asyncio.gather(
            *(play(database, vault, draw, member) for _ in range(10)), return_exceptions=True
        )
        assert Counter(type(result).__name__ for result in results) == {"Played": 1, "PlayUnpaid": 9}
        assert (await checked(database, vault, draw, [])).plays == 1


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "changes"),
        [
            (Limits(member=2), {"at": NOW + timedelta(days=1)}),
            (Limits(member_day=2), {}),
            (Limits(device_day=2), {"device": "phone"}),
        ],
        ids=["member", "member_day", "device_day"],
    )
    async def test_limit(
        self,
        database: Database,
        vault: Vault,
        make_member: MakeMember,
        make_draw: MakeDraw,
        limits: Limits,
        changes: dict[str, Any],
    ) -> None:
        draw, member = await make_draw(limits=limits), await make_member()
        for _ in range(2):
            await play(database, vault, draw, member, device=changes.get("device"))
        with pytest.raises(AllowanceUsedUp):
            await play(database, vault, draw, member, **changes)
        other = await make_member(1)
        if limits.device_day:
            with pytest.raises(AllowanceUsedUp):
                await play(database, vault, draw, other, **changes)
        else:
            await play(database, vault, draw, other)
        if limits.member is None:
            await play(database, vault, draw, member, **changes, at=NOW + timedelta(days=1))

    @pytest.mark.parametrize("length", [15, 65])
    @ON_SQLITE
    async def test_entropy_has_16_to_64_bytes(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw, length: int
    ) -> None:
        draw, member = await make_draw(), await make_member()
        with pytest.raises(DrawInvalid, match="entropy"):
            await play(database, vault, draw, member, entropy=bytes(length))

    @pytest.mark.parametrize("length", [16, 64])
    @ON_SQLITE
    async def test_entropy_at_its_limits(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw, length: int
    ) -> None:
        draw, member = await make_draw(), await make_member()
        assert (await play(database, vault, draw, member, entropy=bytes(length))).line.ticket[20:] == bytes(length)


class TestStates:
    @ON_SQLITE
    async def test_a_published_draw_is_not_played(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member = await make_draw(is_open=False), await make_member()
        with pytest.raises(DrawNotOpen, match="published"):
            await play(database, vault, draw, member)

    @pytest.mark.parametrize("at", [OPENS - timedelta(milliseconds=1), CLOSES], ids=["before", "after"])
    @ON_SQLITE
    async def test_a_draw_is_played_between_its_times(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw, at: Any
    ) -> None:
        draw, member = await make_draw(), await make_member()
        with pytest.raises(DrawNotOpen):
            await play(database, vault, draw, member, at=at)

    async def test_a_closed_draw_is_not_played_and_answers_what_was_played(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member, play_id = await make_draw(), await make_member(), uuid.uuid4()
        done = await play(database, vault, draw, member, play_id=play_id)
        async with database.writing() as session:
            await catalogue.close(session, draw.draw_id, NOW)
        with pytest.raises(DrawNotOpen, match="closed"):
            await play(database, vault, draw, member)
        assert (await play(database, vault, draw, member, play_id=play_id)).receipt == done.receipt

    @ON_SQLITE
    async def test_another_groups_member_does_not_see_the_draw(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, stranger = await make_draw(), await make_member(5, group_id=2)
        with pytest.raises(DrawUnknown):
            await play(database, vault, draw, stranger)

    @ON_SQLITE
    async def test_a_play_id_with_other_entropy_is_refused(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
    ) -> None:
        draw, member, play_id = await make_draw(), await make_member(), uuid.uuid4()
        await play(database, vault, draw, member, play_id=play_id)
        with pytest.raises(PlayIdReused):
            await play(database, vault, draw, member, play_id=play_id, entropy=b"another entropy!")

    async def test_steps_come_in_their_order(self, database: Database, vault: Vault, make_draw: MakeDraw) -> None:
        draw = await make_draw(is_open=False)

        async def refused(step: Callable[..., Awaitable[Any]], *before: Any) -> None:
            with pytest.raises(DrawNotOpen):
                async with database.writing() as session:
                    await step(session, *before, draw.draw_id, NOW)

        await refused(catalogue.reveal, vault)
        async with database.writing() as session:
            await catalogue.open_plays(session, draw.draw_id, NOW)
        await refused(catalogue.open_plays)
        await refused(catalogue.reveal, vault)
        async with database.reading() as session:
            with pytest.raises(DrawNotOpen):
                _ = [line async for line in plays.record_of(session, await catalogue.get(session, draw.draw_id))]
        async with database.writing() as session:
            assert (await catalogue.close(session, draw.draw_id, NOW)).state == DrawState.CLOSED
        await refused(catalogue.close)
        async with database.writing() as session:
            assert (await catalogue.reveal(session, vault, draw.draw_id, NOW)).seed is not None
        await refused(catalogue.reveal, vault)

    @ON_SQLITE
    async def test_a_draw_whose_time_is_over_is_not_opened(self, database: Database, make_draw: MakeDraw) -> None:
        draw = await make_draw(is_open=False)
        with pytest.raises(DrawNotOpen):
            async with database.writing() as session:
                await catalogue.open_plays(session, draw.draw_id, CLOSES)


class TestWhoAltersTheDatabase:
    @pytest.mark.parametrize("field", ["terms", "commitment", "seed_sealed"])
    @ON_SQLITE
    async def test_a_draw_that_was_altered_is_not_played(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw, field: str
    ) -> None:
        draw, member = await make_draw(), await make_member()
        altered = {
            "terms": draw.terms.replace('"quantity":9', '"quantity":8'),
            "commitment": bytes(32),
            "seed_sealed": vault.seal(bytes(32), b"draw-seed" + draw.draw_id.bytes),
        }
        async with database.writing() as session:
            await session.exec(update(Draw).values({field: altered[field]}))
        with pytest.raises(DrawAltered):
            await play(database, vault, draw, member)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE draw_ticket SET prize = (drawn + 1) % 3, drawn = (drawn + 1) % 3 WHERE position = 1 AND stripe = 0",
            "UPDATE draw_ticket SET ticket = (SELECT link FROM draw_ticket WHERE position = 2 AND stripe = 0)"
            " WHERE position = 1 AND stripe = 0",
            "DELETE FROM draw_ticket WHERE position = 1 AND stripe = 0",
            "UPDATE draw_ticket SET position = position + 1000 WHERE stripe = 1",
        ],
        ids=["outcome", "ticket", "removed", "moved"],
    )
    @ON_SQLITE
    async def test_an_altered_record_is_found_out(
        self, database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw, statement: str
    ) -> None:
        draw, member = await make_draw(stripes=2), await make_member()
        for _ in range(30):  # chance leaves neither stripe with fewer than three
            await play(database, vault, draw, member)
        async with database.writing() as session:
            await (await session.connection()).execute(text(statement))
        lines = await finish(database, vault, draw)
        with pytest.raises(record.DrawRecordWrong):
            record.check(lines)


@ON_SQLITE
async def test_the_record_names_no_member(
    database: Database, vault: Vault, make_member: MakeMember, make_draw: MakeDraw
) -> None:
    draw, member = await make_draw(), await make_member()
    done = await play(database, vault, draw, member)
    lines = b"".join(await finish(database, vault, draw))
    assert member.hex.encode() not in lines
    assert str(member).encode() not in lines
    assert plays.player_of(vault, draw.draw_id, member).hex().encode() in done.receipt
    assert json.loads(lines.splitlines()[1])["ticket"].startswith(plays.player_of(vault, draw.draw_id, member).hex())


@ON_SQLITE
async def test_the_seed_is_sealed_until_it_is_revealed(database: Database, vault: Vault, make_draw: MakeDraw) -> None:
    draw = await make_draw()
    assert draw.seed is None
    opened = catalogue.unseal(vault, draw)
    assert opened.seed not in draw.seed_sealed
    assert fair.seed_hash(opened.seed, draw.draw_id) == opened.terms.seed_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"closes_at": NOW},
        {"tickets": Tickets.ITEMS, **ODDS},
        {"prizes": (replace(DECK_PRIZES[0], value_fen=5_000_001, amount=5_000_001),)},
        {"prizes": (replace(DECK_PRIZES[1], amount=1_000_001),)},
        {"title": Words("", "x")},
    ],
    ids=["over", "items", "above the law's limit", "points", "title"],
)
@ON_SQLITE
async def test_what_is_no_draw_is_not_published(make_draw: MakeDraw, changes: dict[str, Any]) -> None:
    with pytest.raises(FanxingError):
        await make_draw(**changes)


async def make_benefit(database: Database, count: int) -> uuid.UUID:
    new = NewBenefit(
        brand_id=BRAND,
        group_id=GROUP,
        kind=BenefitKind.COUPON,
        name_zh="杯",
        name_en="cup",
        text_zh="一只杯子",
        text_en="a cup",
        starts_at=OPENS,
        ends_at=CLOSES,
        cost_fen=1_000,
        value_fen=2_000,
        valid_days=30,
    )
    async with database.writing() as session:
        made = await benefit_catalogue.create(session, new, NOW)
        await stock.procure(session, made, count, procurement_id=uuid.uuid4(), now=NOW)
    return made.benefit_id


async def in_stock(database: Database, benefit_id: uuid.UUID) -> int:
    async with database.reading() as session:
        return (await stock.left(session, [await benefit_catalogue.get(session, benefit_id)]))[benefit_id]
