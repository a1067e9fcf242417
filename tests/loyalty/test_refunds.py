"""Refunds: they take back what the purchase earned, all of it and no more, whoever is in a hurry."""

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
from loyalty import ledger, tiers
from loyalty.earn_rules import Part, quote
from loyalty.points_owed import PointsOwed
from loyalty.purchases import Line, Purchase, PurchasePart, PurchaseUnknown
from loyalty.refunds import (
    NewRefund,
    Refund,
    RefundInvalid,
    RefundLine,
    RefundReused,
    RefundTooLarge,
    points_back,
    shares_of,
)
from tests.loyalty.conftest import BRAND, GROUP, NOW
from tests.loyalty.tier_world import World, rule


@pytest.fixture
def world(database: Database, vault: Vault) -> World:
    return World(database, vault)


async def sound(database: Database) -> bool:
    async with database.reading() as session:
        return (await ledger.verify(session)).sound


async def test_a_whole_refund_takes_back_points_experience_and_tier(database: Database, world: World) -> None:
    await world.rules()
    await world.earning()
    for _ in range(2):
        bought = await world.buy(15_050)
    assert (bought.purchase.points, bought.balance, bought.tier.slug) == (150, 300, "silver")
    undone = await world.refund(bought.purchase.purchase_id, "r")
    assert (undone.refund.points_taken, undone.refund.points_short, undone.balance) == (150, 0, 150)
    assert (undone.refunded_fen, undone.tier.slug) == (15_050, "member")
    async with database.reading() as session:
        standing = await tiers.standing(session, bought.purchase.member_id, BRAND, NOW)
    assert (standing.figures.purchases, standing.figures.fen, standing.figures.experience) == (1, 15_050, 160)
    assert await sound(database)


async def test_a_refund_takes_the_points_of_its_own_purchase_and_leaves_older_ones(
    database: Database, world: World
) -> None:
    await world.earning()
    async with database.writing() as session:
        await ledger.set_policy(session, GROUP, ledger.Policy(lifetime_months=12))
    first = await world.buy(10_000, NOW)
    second = await world.buy(5_000, NOW + timedelta(days=60))
    await world.refund(second.purchase.purchase_id, "r", NOW + timedelta(days=61))
    async with database.reading() as session:
        lots = await ledger.lots_of(session, first.purchase.member_id, NOW + timedelta(days=61))
    assert [(lot.lot_id, lot.left) for lot in lots] == [(first.purchase.purchase_id, 100)]
    assert await sound(database)


async def test_the_same_refund_again_changes_nothing_and_other_content_is_refused(
    database: Database, world: World
) -> None:
    await world.earning()
    bought = await world.buy(10_000)
    first = await world.refund(bought.purchase.purchase_id, "r", fen=4_000)
    again = await world.refund(bought.purchase.purchase_id, "r", fen=4_000)
    assert (first.is_new, again.is_new, again.balance, again.refunded_fen) == (True, False, 60, 4_000)
    with pytest.raises(RefundReused):
        await world.refund(bought.purchase.purchase_id, "r", fen=4_001)


async def test_never_more_than_bought(world: World) -> None:
    bought = await world.buy(10_000, lines=(Line(4_000, quantity=2), Line(3_000)))
    purchase_id = bought.purchase.purchase_id
    with pytest.raises(RefundTooLarge):
        await world.refund(purchase_id, "a", fen=10_001)
    with pytest.raises(RefundTooLarge):
        await world.refund(purchase_id, "b", lines=(RefundLine(1, 4_001),))
    with pytest.raises(RefundTooLarge):
        await world.refund(purchase_id, "c", lines=(RefundLine(1, 1, quantity=3),))
    await world.refund(purchase_id, "d", lines=(RefundLine(1, 4_000, quantity=2),))
    with pytest.raises(RefundTooLarge):
        await world.refund(purchase_id, "e", lines=(RefundLine(1, 1),))
    await world.refund(purchase_id, "f", fen=6_000)
    with pytest.raises(RefundTooLarge):
        await world.refund(purchase_id, "g")


@pytest.mark.parametrize(
    "wrong",
    [
        {"fen": 0},
        {"fen": -1},
        {"fen": 1, "lines": (RefundLine(1, 1),)},
        {"lines": (RefundLine(1, 1), RefundLine(1, 1))},
        {"lines": (RefundLine(0, 1),)},
        {"lines": (RefundLine(1, 0),)},
        {"lines": (RefundLine(1, 1, -1),)},
        {"lines": (RefundLine(2, 1),)},
        {"name": ""},
        {"name": "r" * 65},
    ],
    ids=str,
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_no_refund_is_refused(world: World, wrong: dict[str, object]) -> None:
    bought = await world.buy(10_000, lines=(Line(10_000),))
    with pytest.raises(RefundInvalid):
        await world.refund(bought.purchase.purchase_id, **({"name": "r"} | wrong))  # type: ignore[arg-type]


async def test_a_refund_before_its_purchase_or_of_another_brand_is_not_found(database: Database, world: World) -> None:
    new = world.purchase(10_000)
    with pytest.raises(PurchaseUnknown):
        await world.refund(new.purchase_id, "r")
    await world.record(new)
    with pytest.raises(PurchaseUnknown):
        await World(database, world.vault, BRAND + 1).refund(new.purchase_id, "r")
    assert (await world.refund(new.purchase_id, "r")).is_new


async def test_points_that_were_spent_are_taken_back_into_debt(database: Database, world: World) -> None:
    await world.debt_max(1_000)
    await world.earning()
    bought = await world.buy(10_000)
    await world.spend(bought.purchase.member_id, 80)
    undone = await world.refund(bought.purchase.purchase_id, "r")
    assert (undone.balance, undone.refund.points_taken, undone.refund.points_short) == (-80, 100, 0)
    assert (await world.buy(10_000)).balance == 20
    assert await sound(database)


@pytest.mark.parametrize(
    ("debt_max", "taken", "short", "balance"), [(79, 99, 1, -79), (80, 100, 0, -80), (0, 20, 80, 0)]
)
async def test_what_the_debt_limit_keeps_back_is_on_record_and_paid_by_the_next_purchases(
    database: Database, world: World, debt_max: int, taken: int, short: int, balance: int
) -> None:
    await world.debt_max(debt_max)
    await world.earning()
    bought = await world.buy(10_000)
    await world.spend(bought.purchase.member_id, 80)
    undone = await world.refund(bought.purchase.purchase_id, "r")
    assert (undone.refund.points_taken, undone.refund.points_short, undone.balance) == (taken, short, balance)
    later = await world.buy(20_000)
    assert later.balance == 200 - 80
    assert later.points_repaid == short
    async with database.reading() as session:
        assert all(owed.points == 0 for owed in await session.exec(select(PointsOwed)))
    assert await sound(database)


@pytest.mark.parametrize("debt_max", [0, 50])
async def test_buying_spending_and_refunding_again_and_again_never_gains(
    database: Database, world: World, debt_max: int
) -> None:
    await world.rules()
    await world.debt_max(debt_max)
    await world.earning()
    got = 0
    for turn in range(3):
        bought = await world.buy(30_000)
        member_id = bought.purchase.member_id
        if bought.balance > 0:
            await world.spend(member_id, bought.balance)
            got += bought.balance
        undone = await world.refund(bought.purchase.purchase_id, f"r{turn}")
        assert undone.tier.rank == 0
        async with database.reading() as session:
            owed = sum((await session.exec(select(PointsOwed.points))).all())
        # All that was got stands as debt or as owed: the first turn's goods are the last.
        assert got + undone.balance - owed == 0
    assert got == 300
    assert await sound(database)


async def test_a_refunded_purchase_does_not_leave_its_tier_behind(world: World) -> None:
    await world.rules()
    await world.buy(15_000)
    bought = await world.buy(15_000)
    assert bought.tier.slug == "silver"
    assert (await world.refund(bought.purchase.purchase_id, "r")).tier.slug == "member"


async def test_a_tier_that_was_reached_otherwise_survives_a_refund_till_its_period_ends(world: World) -> None:
    await world.rules()
    for _ in range(2):
        await world.buy(15_000)
    later = NOW + timedelta(days=366)  # both have left the window; the tier is held till the end of the month
    bought = await world.buy(15_000, later)
    assert bought.tier.slug == "silver"
    assert (await world.refund(bought.purchase.purchase_id, "r", later)).tier.slug == "silver"


async def test_two_refunds_at_once_never_give_back_more_than_was_bought(database: Database, world: World) -> None:
    await world.earning()
    bought = await world.buy(10_000)
    results = await asyncio.gather(
        *(world.refund(bought.purchase.purchase_id, f"r{n}", fen=3_000) for n in range(8)), return_exceptions=True
    )
    assert Counter(type(result).__name__ for result in results) == {"Refunded": 3, "RefundTooLarge": 5}
    assert await world.balance(bought.purchase.member_id) == 10
    assert await sound(database)


async def test_one_refund_sent_by_ten_at_once_happens_once(database: Database, world: World) -> None:
    await world.earning()
    bought = await world.buy(10_000)
    results = await asyncio.gather(*(world.refund(bought.purchase.purchase_id, "r", fen=3_000) for _ in range(10)))
    assert Counter(result.is_new for result in results) == {True: 1, False: 9}
    assert await world.balance(bought.purchase.member_id) == 70


async def test_refunding_while_spending_takes_each_point_once(database: Database, world: World) -> None:
    await world.earning()
    bought = await world.buy(10_000)
    member_id = bought.purchase.member_id
    spending = [world.spend(member_id, 10) for _ in range(10)]
    undone, *spent = await asyncio.gather(
        world.refund(bought.purchase.purchase_id, "r"), *spending, return_exceptions=True
    )
    assert not isinstance(undone, BaseException)
    done = sum(result is None for result in spent)
    assert undone.refund.points_taken + undone.refund.points_short == 100
    assert await world.balance(member_id) == 100 - 10 * done - undone.refund.points_taken == 0
    assert await sound(database)


def in_pieces(fen: int) -> st.SearchStrategy[list[int]]:
    cuts = st.lists(st.integers(1, max(1, fen - 1)), max_size=6).map(lambda found: sorted({*found, fen}))
    return cuts.map(lambda ends: [end - start for start, end in zip([0, *ends], ends, strict=False) if end > start])


LINES = st.lists(st.tuples(st.integers(1, 5_000), st.sampled_from([None, "0" * 14, "06901234567892"])), max_size=4)


@given(data=st.data(), lines=LINES, rest=st.integers(1, 5_000), rates=st.tuples(*[st.integers(1, 7_000)] * 2))
def test_pieces_take_back_what_the_whole_would(
    data: st.DataObject, lines: list[tuple[int, str | None]], rest: int, rates: tuple[int, int]
) -> None:
    rules = [rule(rates[0], gtin_prefix="069"), rule(rates[1])]
    parts = [Part(rest), *(Part(*line) for line in lines)]
    paid = sum(part.fen for part in parts)
    earned = quote(rules, parts, 0, {})
    bought = Purchase(paid_fen=paid, points=earned.points, refunded_fen=0)
    kept = [
        PurchasePart(number=number, gtin=part.gtin, quantity=1, fen=part.fen, points=points)
        for number, (part, points) in enumerate(zip(parts, earned.by_part, strict=True))
    ]
    for fen in data.draw(in_pieces(paid)):
        for part, given_back, _quantity in shares_of(NewRefund(uuid.uuid4(), None, "r", fen), bought, kept):
            part.points_back += points_back(part, given_back)
            part.refunded_fen += given_back
        bought.refunded_fen += fen
        left = earned.points - sum(part.points_back for part in kept)
        assert 0 <= left <= earned.points * (paid - bought.refunded_fen) // paid
    assert left == 0


async def test_what_a_refund_did_is_kept_by_line(database: Database, world: World) -> None:
    await world.earning(2_000, gtin_prefix="069")
    await world.earning(1_000)
    bought = await world.buy(9_000, lines=(Line(3_000, "06901234567892", 3), Line(4_000, "0" * 14)))
    assert bought.purchase.points == 60 + 40 + 20
    await world.refund(bought.purchase.purchase_id, "r", lines=(RefundLine(1, 1_000, 1),))
    async with database.reading() as session:
        [refund] = await session.exec(select(Refund))
        parts = list(await session.exec(select(PurchasePart).order_by(PurchasePart.number)))  # type: ignore[arg-type]
        [purchase] = await session.exec(select(Purchase))
    assert refund.parts == [{"number": 1, "fen": 1_000, "quantity": 1}]
    assert [(part.refunded_fen, part.refunded_quantity, part.points_back) for part in parts] == [
        (0, 0, 0),
        (1_000, 1, 20),
        (0, 0, 0),
    ]
    assert (purchase.refunded_fen, purchase.points_back) == (1_000, 20)


async def test_an_amount_alone_is_taken_from_what_earned_most(database: Database, world: World) -> None:
    await world.earning(2_000, gtin_prefix="069")
    await world.earning(1_000)
    bought = await world.buy(9_000, lines=(Line(3_000, "06901234567892"), Line(4_000)))
    undone = await world.refund(bought.purchase.purchase_id, "r", fen=3_000)
    assert (undone.refund.points_taken, undone.refund.parts) == (60, [{"number": 1, "fen": 3_000, "quantity": 1}])
