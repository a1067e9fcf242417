"""Tiers as they are stored: kept up to date, explained, imported, merged, and the same when decided anew."""

import asyncio
import uuid
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Uuid, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from kit.db import Database, Moment, Session
from kit.vault import Vault
from loyalty import members, tier_audit, tier_imports, tier_merges, tier_rules, tiers
from loyalty.experience import Figures
from loyalty.members import Card
from loyalty.purchases import Buyer
from loyalty.tier_audit import Recalculation
from loyalty.tier_imports import Imported
from loyalty.tier_rules import (
    CONTRAST_MIN,
    CardFace,
    Rules,
    Tier,
    TierRulesChanged,
    TierRulesInvalid,
    TierUnknown,
    contrast,
)
from loyalty.tiers import CardUnknown, Standing
from tests.loyalty.conftest import BRAND, NOW
from tests.loyalty.tier_world import FACE, LADDER, RULES, World, rank_of

YEAR = timedelta(days=366)


@pytest.fixture
def world(database: Database, vault: Vault) -> World:
    return World(database, vault)


async def standing(database: Database, member_id: uuid.UUID, now: datetime = NOW) -> Standing:
    async with database.reading() as session:
        return await tiers.standing(session, member_id, BRAND, now)


async def settle(database: Database, now: datetime, count_max: int = tiers.SETTLED_AT_ONCE) -> int:
    async with database.writing() as session:
        return await tiers.settle_due(session, now, count_max)


async def audit(database: Database, now: datetime, *, settling: bool = False) -> Recalculation:
    found = Recalculation()
    more = True
    while more:
        async with database.writing() if settling else database.reading() as session:
            more = await tier_audit.step(session, BRAND, now, found, settle=settling)
    return found


async def test_a_card_tells_why_it_stands_where_it_stands_and_what_comes_next(database: Database, world: World) -> None:
    await world.rules()
    for fen in (10_000, 12_000, 20_000):
        bought = await world.buy(fen)
    found = await standing(database, bought.purchase.member_id)
    assert (found.tier.slug, found.since, found.figures) == ("silver", NOW, Figures(3, 42_000, 450))
    assert (found.following, found.missing) == (LADDER[2], Figures(3, 58_000, 0))
    assert found.explanation("en") == (
        "3 purchases and ¥420 in 12 months; Gold needs 6 purchases and ¥1,000: 3 purchases and ¥580 to go"
    )
    assert found.explanation("zh") == (
        "近 12 个月消费 3 次、消费额 ¥420；金卡需要消费 6 次、消费额 ¥1,000：还差消费 3 次、消费额 ¥580"
    )
    assert (found.projected.slug, found.projected_at) == ("silver", None)


async def test_the_projection_says_when_a_tier_will_fall(database: Database, world: World) -> None:
    await world.rules()
    for _ in range(2):
        bought = await world.buy(10_000)
    member_id = bought.purchase.member_id
    last_month = datetime.fromisoformat("2027-05-02T00:00+08:00")
    found = await standing(database, member_id, last_month)
    falls = datetime.fromisoformat("2027-07-01T00:00+08:00")
    assert (found.tier.slug, found.projected.slug, found.projected_at) == ("silver", "member", falls)
    assert (await standing(database, member_id, falls)).tier.slug == "member"
    assert (await standing(database, member_id, falls - timedelta(seconds=1))).until == falls


async def test_who_has_no_card_or_whose_brand_has_no_rules_is_of_the_lowest_tier(
    database: Database, world: World
) -> None:
    found = await standing(database, uuid.uuid4())
    assert (found.tier.slug, found.following, found.explanation("en")) == (
        "member",
        None,
        "no purchases in 12 months; the highest tier",
    )
    with pytest.raises(CardUnknown):
        async with database.writing() as session:
            await tiers.take(session, uuid.uuid4(), BRAND, NOW)


async def test_the_sweep_lowers_what_is_due_and_finds_nothing_the_second_time(database: Database, world: World) -> None:
    await world.rules()
    for number in range(6):
        for _ in range(2):
            bought = await world.buy(10_000, buyer=Buyer(phone=f"1380013{9000 + number}"))
    later = NOW + 2 * YEAR
    async with database.reading() as session:
        assert await rank_of(session, bought.purchase.member_id) == 1
    # Several workers at once: each card is settled by one of them.
    settled = await asyncio.gather(*(settle(database, later, 2) for _ in range(6)))
    while await settle(database, later, 2):
        pass
    assert sum(settled) >= 2
    async with database.reading() as session:
        assert await rank_of(session, bought.purchase.member_id) == 0
        changes = await tiers.changes_of(session, bought.purchase.member_id, BRAND)
    assert [change.reason for change in changes] == ["lowered", "warned", "earned"]
    assert await settle(database, later) == 0
    assert (await audit(database, later)).differing == 0


async def test_new_rules_reach_every_card_through_the_sweep(database: Database, world: World) -> None:
    await world.rules()
    bought = await world.buy(10_000)
    easier = (LADDER[0], replace(LADDER[1], needs=Figures(purchases=1)))
    await world.rules(now=NOW, ladder=easier)
    assert await settle(database, NOW + tier_rules.LEAD - timedelta(seconds=1)) == 0
    assert await settle(database, NOW + tier_rules.LEAD) == 1
    async with database.reading() as session:
        assert await rank_of(session, bought.purchase.member_id) == 1
    assert await settle(database, NOW + tier_rules.LEAD) == 0


async def test_recalculation_stores_what_is_due_and_finds_what_was_altered(database: Database, world: World) -> None:
    await world.rules()
    bought = [await world.buy(10_000) for _ in range(2)][-1]
    member_id, later = bought.purchase.member_id, NOW + 2 * YEAR
    ahead = await audit(database, later)
    assert (ahead.cards, ahead.changes, ahead.differing, dict(ahead.moved)) == (1, 3, 0, {(1, 0): 1})
    assert dict((await audit(database, later, settling=True)).moved) == {(1, 0): 1}
    assert dict((await audit(database, later)).moved) == {}
    assert (await audit(database, NOW)).differing == 0
    async with database.writing() as session:
        await session.exec(update(Card).where(col(Card.member_id) == member_id).values(tier_rank=2))
    assert "of rank 2" in (await audit(database, later)).differences[0].what


@pytest.mark.parametrize("table", ["experience_entry", "tier_change"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = at", "DELETE FROM {}"])
async def test_history_refuses_to_be_altered(database: Database, world: World, table: str, change: str) -> None:
    await world.rules()
    for _ in range(2):
        await world.buy(10_000)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.writing() as session:
            await (await session.connection()).execute(text(change.format(table)))


STAGED = Table(
    "staged_standings",
    MetaData(),
    Column("member_id", Uuid(), primary_key=True),
    Column("entry_id", Uuid()),
    Column("purchases", Integer()),
    Column("fen", Integer()),
    Column("experience", Integer()),
    Column("at", Moment()),
    Column("grant_rank", Integer()),
    Column("granted_until", Moment()),
)


async def import_staged(database: Database, rows: list[dict[str, object]], now: datetime = NOW) -> int:
    async with database.writing() as session:
        connection = await session.connection()
        await connection.run_sync(STAGED.create)
        try:
            await connection.execute(STAGED.insert(), rows)
            return await tier_imports.import_many(session, BRAND, STAGED, now)
        finally:
            await connection.run_sync(STAGED.drop)


def staged(member_id: uuid.UUID, **changes: object) -> dict[str, object]:
    plain = {
        "member_id": member_id,
        "entry_id": uuid.uuid5(member_id, "row"),
        "purchases": 0,
        "fen": 0,
        "experience": 0,
        "at": NOW - timedelta(days=30),
        "grant_rank": None,
        "granted_until": None,
    }
    return plain | changes


async def test_an_imported_standing_counts_at_once_and_once(database: Database, world: World) -> None:
    await world.rules()
    until = NOW + timedelta(days=200)
    numbers = [f"1380013{8100 + number}" for number in range(4)]
    given_one, both, counted, old = [await world.member(number) for number in numbers]
    await world.buy(10_000, buyer=Buyer(phone=numbers[3]))
    rows = [
        staged(given_one, grant_rank=2, granted_until=until),
        staged(both, grant_rank=1, granted_until=until, purchases=7, fen=200_000, experience=9),
        staged(counted, purchases=2, fen=20_000),
        staged(old, grant_rank=2, granted_until=until, purchases=1, fen=10_000),
        staged(await world.member("13800138200")),
    ]
    assert await import_staged(database, rows) == 6
    async with database.reading() as session:
        assert [await rank_of(session, one) for one in (given_one, both, counted, old)] == [2, 1, 0, 0]
    assert await settle(database, NOW) == 4
    async with database.reading() as session:
        assert [await rank_of(session, one) for one in (given_one, both, counted, old)] == [2, 2, 1, 2]
    assert await import_staged(database, rows, NOW + timedelta(days=1)) == 0
    later = NOW + timedelta(days=201)
    while await settle(database, later):
        pass
    async with database.reading() as session:
        assert [await rank_of(session, one) for one in (given_one, both, counted, old)] == [0, 2, 1, 1]
    found = await audit(database, later)
    assert (found.cards, found.differing) == (5, 0)


async def test_a_standing_imported_before_there_are_rules_holds_when_they_come(
    database: Database, world: World
) -> None:
    member_id = await world.member()
    assert await import_staged(database, [staged(member_id, grant_rank=2, granted_until=NOW + YEAR)]) == 1
    await settle(database, NOW)
    await world.rules(now=NOW + timedelta(days=1))
    await settle(database, NOW + timedelta(days=2))
    async with database.reading() as session:
        assert await rank_of(session, member_id) == 2
    assert (await audit(database, NOW + timedelta(days=2))).differing == 0


async def test_one_members_standing_is_imported_once(database: Database, world: World) -> None:
    await world.rules()
    member_id = await world.member()
    imported = Imported(uuid.uuid4(), Figures(2, 20_000, 5), NOW, grant_rank=2, granted_until=NOW + YEAR)
    for is_new in (True, False):
        async with database.writing() as session:
            assert await tier_imports.import_standing(session, member_id, BRAND, imported, NOW) is is_new
    found = await standing(database, member_id)
    assert (found.tier.slug, found.granted_until, found.figures) == ("gold", NOW + YEAR, Figures(2, 20_000, 5))


async def test_a_merge_adds_up_and_its_end_takes_apart(database: Database, world: World) -> None:
    await world.rules()
    await world.earning()
    target_id = (await world.buy(10_000)).purchase.member_id
    other = await world.buy(15_000, buyer=Buyer(phone="13800138001"))
    source_id, merge_id = other.purchase.member_id, uuid.uuid4()

    async def merge(session: Session) -> None:
        await tier_merges.merge(session, merge_id, source_id, target_id, NOW)
        await session.exec(
            update(members.Member).where(col(members.Member.member_id) == source_id).values(merged_into=target_id)
        )

    for _ in range(2):
        async with database.writing() as session:
            await merge(session)
    assert (await standing(database, target_id)).tier.slug == "silver"
    # What the one bought is refunded to the other.
    undone = await world.refund(other.purchase.purchase_id, "part", fen=5_001)
    assert (undone.tier.slug, undone.refund.points_taken) == ("member", 51)
    async with database.writing() as session:
        await tier_merges.unmerge(session, merge_id, source_id, target_id, NOW)
    assert (await standing(database, target_id)).figures == Figures(1, 10_000, 110)
    assert (await standing(database, source_id)).figures == Figures(1, 9_999, 109)
    assert (await audit(database, NOW)).differing == 0


async def test_rules_change_by_versions_and_not_behind_anybodys_back(database: Database, world: World) -> None:
    first = await world.rules()
    assert (first.version, first.valid_from) == (1, NOW)
    assert (await world.rules()).valid_from == NOW + tier_rules.LEAD
    async with database.writing() as session:
        for replaces in (0, 1, 3):
            with pytest.raises(TierRulesChanged):
                await tier_rules.set_rules(
                    session, BRAND, RULES, replaces=replaces, by="test", valid_from=None, now=NOW
                )
        for early in (NOW + tier_rules.LEAD, NOW + YEAR):
            with pytest.raises(TierRulesInvalid):
                await tier_rules.set_rules(
                    session, BRAND, RULES, replaces=2, by="test", valid_from=early, now=NOW + YEAR
                )
        ladder = await tiers.ladder(session, BRAND, NOW)
    assert tier_rules.rank_named(ladder, "gold") == 2
    with pytest.raises(TierUnknown):
        tier_rules.rank_named(ladder, "platinum")


async def test_of_two_who_change_the_rules_at_once_one_is_told(database: Database, world: World) -> None:
    async def change() -> Rules:
        async with database.writing() as session:
            return await tier_rules.set_rules(session, BRAND, RULES, replaces=0, by="test", valid_from=None, now=NOW)

    results = await asyncio.gather(change(), change(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Rules", "TierRulesChanged"]


def wrong_tier(**changes: object) -> dict[str, object]:
    return {"ladder": (LADDER[0], replace(LADDER[1], **changes))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ladder": ()},
        {"ladder": LADDER[1:]},
        {"ladder": tuple(replace(LADDER[1], rank=rank, slug=f"t{rank}") for rank in range(13))},
        {"ladder": (replace(LADDER[0], needs=Figures(purchases=1)), LADDER[1])},
        wrong_tier(needs=Figures()),
        wrong_tier(needs=Figures(fen=-1)),
        wrong_tier(needs=Figures(fen=10**12 + 1)),
        wrong_tier(slug="member"),
        wrong_tier(slug="Gold"),
        wrong_tier(name_zh=""),
        wrong_tier(name_en="n" * 31),
        wrong_tier(face=CardFace((), "#ffffff")),
        wrong_tier(face=CardFace(("#000000",) * 4, "#ffffff")),
        wrong_tier(face=CardFace(("black",), "#ffffff")),
        wrong_tier(face=CardFace(("#777777",), "#ffffff")),
        wrong_tier(face=CardFace(("#ff0000", "#00ff00"), "#ffffff")),
        {"window_months": 0},
        {"window_months": 61},
        {"keep_permille": 0},
        {"keep_permille": 1_001},
        {"period_months": 2},
        {"grace_days": -1},
        {"grace_days": 367},
        {"purchase_fen_min": -1},
        {"experience_per_purchase": 10_001},
        {"experience_per_yuan": -1},
    ],
    ids=str,
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TierRulesInvalid):
        tier_rules.check(replace(RULES, **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fine",
    [
        {"window_months": 60, "keep_permille": 1, "period_months": 12, "grace_days": 366},
        {"window_months": 1, "keep_permille": 1_000, "period_months": 1, "grace_days": 0},
        {"ladder": tuple(replace(LADDER[min(rank, 1)], rank=rank, slug=f"t{rank}") for rank in range(12))},
        wrong_tier(face=CardFace(("#767676",), "#ffffff")),
    ],
    ids=str,
)
def test_rules_at_their_limits_are_taken(fine: dict[str, object]) -> None:
    tier_rules.check(replace(RULES, **fine))  # type: ignore[arg-type]


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == 21
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


def test_text_must_be_readable_on_the_whole_gradient() -> None:
    # Half way from red to green is darker than either end.
    text = "#141414"
    assert min(contrast(text, "#ff0000"), contrast(text, "#00ff00")) > CONTRAST_MIN > contrast(text, "#7f7f00")
    for colours in (("#ff0000",), ("#00ff00",)):
        tier_rules.check(replace(RULES, **wrong_tier(face=CardFace(colours, text))))  # type: ignore[arg-type]
    with pytest.raises(TierRulesInvalid):
        tier_rules.check(replace(RULES, **wrong_tier(face=CardFace(("#ff0000", "#00ff00"), text))))  # type: ignore[arg-type]


def test_a_tier_may_ask_for_one_of_several() -> None:
    either = Tier(1, "silver", "银卡", "Silver", FACE, Figures(purchases=3, fen=50_000), any_of=True)
    assert [either.reached(Figures(*one)) for one in ((3, 0), (0, 50_000), (2, 49_999))] == [True, True, False]
    ladder = replace(RULES, ladder=(LADDER[0], either))
    assert ladder.rank_for(Figures(3, 0, 0)) == 1


@pytest.mark.parametrize(
    ("paid_fen", "expected"), [(999, Figures(0, 999, 9)), (1_000, Figures(1, 1_000, 20)), (0, Figures())]
)
def test_a_purchase_counts_from_the_minimum_on(paid_fen: int, expected: Figures) -> None:
    assert replace(RULES, purchase_fen_min=1_000).of_purchase(paid_fen) == expected
