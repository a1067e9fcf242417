"""Purchases: each earns once, in points and experience, and is there when its buyer comes."""

import asyncio
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import earn_rules, ledger, members, purchases, tiers
from loyalty.earn_rules import (
    POINTS_PER_YUAN_MILLI_MAX,
    RULES_MAX,
    UNITS_A_POINT,
    EarnRule,
    EarnRuleInvalid,
    EarnRuleUnknown,
    Part,
    quote,
)
from loyalty.experience import Figures
from loyalty.members import MemberUnknown
from loyalty.purchases import AGE_MAX, AHEAD_MAX, Buyer, Line, Purchase, PurchaseInvalid, Receipt, ReceiptReused
from tests.loyalty.conftest import BRAND, GROUP, NOW
from tests.loyalty.tier_world import PHONE, World, rule

GTIN = "06901234567892"


@pytest.fixture
def world(database: Database, vault: Vault) -> World:
    return World(database, vault)


async def test_a_purchase_earns_points_and_experience_and_makes_an_unknown_number_a_member(
    database: Database, world: World
) -> None:
    await world.rules()
    await world.earning(500)
    done = await world.buy(12_399)
    assert (done.purchase.points, done.balance, done.is_new) == (61, 61, True)
    async with database.reading() as session:
        member = await members.get(session, done.purchase.member_id)
        assert member.proven_at is None
        standing = await tiers.standing(session, member.member_id, BRAND, NOW)
        assert standing.figures == Figures(1, 12_399, 10 + 123)
        assert (await ledger.verify(session)).sound
        assert await ledger.total(session, ledger.Purpose.ISSUANCE, "points", BRAND) == -61
    # He who proves the number later finds what was bought.
    assert await world.member() == done.purchase.member_id


async def test_the_same_receipt_again_changes_nothing_and_other_content_is_refused(world: World) -> None:
    await world.earning()
    new = world.purchase(10_000)
    first = await world.record(new)
    again = await world.record(new, NOW + timedelta(hours=1))
    assert (first.is_new, again.is_new, again.balance) == (True, False, 100)
    assert again.purchase.purchase_id == first.purchase.purchase_id
    for changes in ({"paid_fen": 10_001}, {"buyer": Buyer(phone="13800138001")}, {"lines": (Line(1),)}):
        with pytest.raises(ReceiptReused):
            await world.buy(**({"paid_fen": 10_000, "receipt": new.receipt} | changes))  # type: ignore[arg-type]
    assert (await world.buy(10_000, receipt=new.receipt, caller_id=uuid.UUID(int=78))).balance == 200


async def test_one_receipt_sent_by_twenty_at_once_earns_once(database: Database, world: World) -> None:
    await world.rules()
    await world.earning()
    new = world.purchase(10_000)
    results = await asyncio.gather(*(world.record(new) for _ in range(20)))
    assert Counter(result.is_new for result in results) == {True: 1, False: 19}
    assert {result.balance for result in results} == {100}
    async with database.reading() as session:
        assert (
            len((await session.exec(select(Receipt))).all()) == len((await session.exec(select(Purchase))).all()) == 1
        )
        assert (await ledger.verify(session)).sound


async def test_twenty_purchases_at_once_all_count_and_the_caps_of_a_day_hold(database: Database, world: World) -> None:
    await world.rules()
    await world.earning(1_000, points_per_day_max=950)
    results = await asyncio.gather(*(world.buy(10_000) for _ in range(20)))
    member_id = results[0].purchase.member_id
    assert sum(result.purchase.points for result in results) == await world.balance(member_id) == 950
    async with database.reading() as session:
        standing = await tiers.standing(session, member_id, BRAND, NOW)
    assert (standing.figures.purchases, standing.tier.slug) == (20, "gold")
    tomorrow = NOW + timedelta(days=1)
    assert (await world.buy(10_000, tomorrow)).purchase.points == 100


async def test_a_buyer_is_named_by_phone_by_id_or_by_card(database: Database, world: World) -> None:
    bought = await world.buy(100)
    member_id = bought.purchase.member_id
    for buyer in (Buyer(member_id=member_id), Buyer(card_number=bought.card_number), Buyer(phone=f"+86 {PHONE}")):
        assert (await world.buy(100, buyer=buyer)).purchase.member_id == member_id
    for buyer in (Buyer(member_id=uuid.uuid4()), Buyer(card_number="0" * 16)):
        with pytest.raises(MemberUnknown):
            await world.buy(100, buyer=buyer)
    with pytest.raises(MemberUnknown):
        await world.buy(100, buyer=Buyer(member_id=member_id), group_id=GROUP + 1)
    async with database.writing() as session:
        await members.erase(session, member_id)
    with pytest.raises(MemberUnknown):
        await world.buy(100, buyer=Buyer(member_id=member_id))


async def test_the_refund_of_an_erased_members_purchase_still_balances(database: Database, world: World) -> None:
    await world.earning()
    bought = await world.buy(10_000)
    async with database.writing() as session:
        await members.erase(session, bought.purchase.member_id)
    assert (await world.refund(bought.purchase.purchase_id, "r")).balance == 0
    async with database.reading() as session:
        assert (await ledger.verify(session)).sound


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({"paid_fen": 0}, {"paid_fen": 1}),
        ({"paid_fen": 10**9 + 1}, {"paid_fen": 10**9}),
        ({"receipt": ""}, {"receipt": "r"}),
        ({"receipt": "r" * 65}, {"receipt": "r" * 64}),
        ({"lines": (Line(1),) * 201}, {"lines": (Line(1),) * 200}),
        ({"lines": (Line(600), Line(401))}, {"lines": (Line(600), Line(400))}),
        ({"lines": (Line(-1),)}, {"lines": (Line(0),)}),
        ({"lines": (Line(1, quantity=0),)}, {"lines": (Line(1, quantity=1),)}),
        ({"lines": (Line(1, quantity=1_000_001),)}, {"lines": (Line(1, quantity=1_000_000),)}),
        ({"lines": (Line(1, "1234"),)}, {"lines": (Line(1, GTIN),)}),
        ({"at": NOW - AGE_MAX - timedelta(seconds=1)}, {"at": NOW - AGE_MAX}),
        ({"at": NOW + AHEAD_MAX + timedelta(seconds=1)}, {"at": NOW + AHEAD_MAX}),
        ({"buyer": Buyer()}, {"buyer": Buyer(PHONE)}),
        ({"buyer": Buyer(PHONE, uuid.UUID(int=1))}, {"buyer": Buyer(None, uuid.UUID(int=1))}),
    ],
    ids=str,
)
def test_every_limit_of_a_purchase_is_one(changes: dict[str, object], fine: dict[str, object]) -> None:
    world = World.__new__(World)
    world.brand_id, world._receipts = BRAND, 0
    with pytest.raises(PurchaseInvalid):
        purchases.check(world.purchase(**({"paid_fen": 1_000} | changes)), NOW)  # type: ignore[arg-type]
    purchases.check(world.purchase(**({"paid_fen": 1_000} | fine)), NOW)  # type: ignore[arg-type]


async def test_a_till_whose_clock_is_ahead_counts_nothing_in_the_future(world: World) -> None:
    done = await world.buy(100, at=NOW + timedelta(minutes=4))
    assert done.purchase.at == NOW


def test_points_are_rounded_down_once_for_the_whole_purchase() -> None:
    by_line = [Part(50), Part(50), Part(99)]
    assert quote([rule(1_000)], [Part(199)], 0, {}).points == 1
    assert quote([rule(1_000)], by_line, 0, {}).by_part == (0, 1, 0)
    assert quote([rule(1)], [Part(99_999)], 0, {}).points == 0
    assert quote([rule(1)], [Part(100_000)], 0, {}).points == 1


def test_rules_do_not_stack_each_fen_earns_by_the_best_alone() -> None:
    rules = [rule(1_000), rule(2_000, gtin_prefix="069"), rule(1_500)]
    quoted = quote(rules, [Part(10_000), Part(10_000, GTIN)], 0, {})
    assert quoted.by_part == (150, 200)


@pytest.mark.parametrize(("rank", "points"), [(0, 100), (1, 120), (2, 150), (3, 150)])
def test_a_rule_gives_more_to_higher_tiers_and_the_last_figure_is_for_all_above(rank: int, points: int) -> None:
    assert quote([rule(1_000, tier_permille=[1_000, 1_200, 1_500])], [Part(10_000)], rank, {}).points == points


@pytest.mark.parametrize(("paid_fen", "points"), [(4_999, 49), (5_000, 100)])
def test_a_rule_holds_from_its_minimum_on(paid_fen: int, points: int) -> None:
    assert quote([rule(1_000), rule(2_000, paid_fen_min=5_000)], [Part(paid_fen)], 0, {}).points == points


def test_what_a_cap_leaves_goes_to_the_next_best_rule() -> None:
    rules = [rule(1_000), rule(10_000, points_per_purchase_max=100)]
    assert quote(rules, [Part(1_000)], 0, {}).points == 100
    assert quote(rules, [Part(10_000)], 0, {}).points == 100 + 90


def test_the_cap_of_a_day_counts_what_was_earned_before() -> None:
    daily = rule(1_000, points_per_day_max=100)
    assert quote([daily], [Part(50_000)], 0, {daily.rule_id: 60 * UNITS_A_POINT}).points == 40
    assert quote([daily], [Part(50_000)], 0, {daily.rule_id: 100 * UNITS_A_POINT}).points == 0


RULES = st.builds(
    rule,
    st.integers(1, POINTS_PER_YUAN_MILLI_MAX),
    paid_fen_min=st.integers(0, 30_000),
    points_per_purchase_max=st.none() | st.integers(1, 5_000),
    gtin_prefix=st.sampled_from(["", "069"]),
)
PARTS = st.lists(st.builds(Part, st.integers(0, 20_000), st.sampled_from([None, GTIN])), min_size=1, max_size=5)


@given(st.lists(RULES, max_size=4), RULES, PARTS)
def test_another_rule_never_makes_a_purchase_earn_less_than_the_best_rule_alone(
    rules: list[EarnRule], other: EarnRule, parts: list[Part]
) -> None:
    points = quote([*rules, other], parts, 0, {}).points
    assert points >= quote([other], parts, 0, {}).points
    everything = [one for one in rules if not one.gtin_prefix and one.points_per_purchase_max is None]
    assert all(points >= quote([one], parts, 0, {}).points for one in everything)
    fen = sum(part.fen for part in parts)
    assert points <= max(one.rate(0) for one in [*rules, other]) * fen // UNITS_A_POINT


@given(st.lists(RULES, max_size=4), PARTS)
def test_parts_sum_to_the_whole_and_no_fen_earns_twice(rules: list[EarnRule], parts: list[Part]) -> None:
    quoted = quote(rules, parts, 0, {})
    assert sum(quoted.by_part) == quoted.points
    assert sum(fen for fen, _ in quoted.by_rule.values()) <= sum(part.fen for part in parts)
    caps = {one.rule_id: one.points_per_purchase_max for one in rules}
    for rule_id, (_fen, units) in quoted.by_rule.items():
        assert caps[rule_id] is None or units <= caps[rule_id] * UNITS_A_POINT


@pytest.mark.parametrize(
    "wrong",
    [
        {"points_per_yuan_milli": 0},
        {"points_per_yuan_milli": 100_001},
        {"paid_fen_min": -1},
        {"points_per_purchase_max": 0},
        {"points_per_day_max": 1_000_001},
        {"tier_permille": (10_001,)},
        {"tier_permille": (1_000,) * 13},
        {"gtin_prefix": "1" * 15},
        {"gtin_prefix": "x"},
        {"ends_at": NOW},
    ],
    ids=str,
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_no_rule_is_refused(world: World, wrong: dict[str, object]) -> None:
    with pytest.raises(EarnRuleInvalid):
        await world.earning(**wrong)  # type: ignore[arg-type]


async def test_a_rule_ends_and_holds_only_in_its_period(database: Database, world: World) -> None:
    held = await world.earning()
    await world.earning(5_000, starts_at=NOW + timedelta(days=1), ends_at=NOW + timedelta(days=2))
    never = await world.earning(9_000, starts_at=NOW + timedelta(days=1))
    async with database.writing() as session:
        await earn_rules.end(session, BRAND, never.rule_id, NOW)
    when = [(hours, NOW + timedelta(hours=hours)) for hours in (0, 24, 47, 48)]
    earned = {hours: (await world.buy(1_000, moment)).purchase.points for hours, moment in when}
    assert earned == {0: 10, 24: 50, 47: 50, 48: 10}
    later = NOW + timedelta(days=3)
    async with database.writing() as session:
        await earn_rules.end(session, BRAND, held.rule_id, later)
    assert (await world.buy(1_000, later)).purchase.points == 0
    assert (await world.buy(1_000, later, at=later - timedelta(hours=1))).purchase.points == 10
    async with database.writing() as session:
        with pytest.raises(EarnRuleUnknown):
            await earn_rules.end(session, BRAND, held.rule_id, later)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_brand_has_a_hundred_rules_and_no_more(world: World) -> None:
    for _ in range(RULES_MAX):
        await world.earning()
    with pytest.raises(EarnRuleInvalid):
        await world.earning()
