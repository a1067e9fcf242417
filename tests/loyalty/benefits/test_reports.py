"""What a report says of a benefit's life, from procurement to the visit after the visit."""

import uuid
from datetime import datetime, timedelta

from kit.ids import new_id
from loyalty import benefits
from loyalty.benefits import Benefit, offline, redemptions, reports
from loyalty.benefits.offline import OfflineLine
from loyalty.benefits.reports import BenefitReport
from loyalty.purchases import Purchase
from tests.loyalty.benefits.conftest import OTHER_TILL, TILL, House, MakeBenefit
from tests.loyalty.conftest import BRAND, NOW, MakeMember

A_DAY = timedelta(days=1)
A_MOMENT = timedelta(milliseconds=2)


async def _bought(house: House, member_id: uuid.UUID, at: datetime, fen: int, brand_id: int = BRAND) -> None:
    purchase = Purchase(
        member_id=member_id,
        purchase_id=new_id(),
        brand_id=brand_id,
        receipt="1",
        channel="store",
        paid_fen=fen,
        points=0,
        rules_version=1,
        at=at,
        recorded_at=at,
    )
    async with house.database.writing() as session:
        session.add(purchase)


async def _report(house: House, benefit: Benefit, days: int = 7) -> BenefitReport:
    async with house.database.reading() as session:
        return await reports.of_benefit(session, benefit, days)


async def test_every_step_is_counted(house: House, make_member: MakeMember, make_benefit: MakeBenefit) -> None:
    benefit = await make_benefit()
    shoppers = [await make_member(number) for number in range(5)]
    await house.give_points(shoppers[0], 100)
    bought = await house.obtain(shoppers[0], benefit)
    granted = [await house.grant(one, benefit) for one in shoppers]
    await house.redeem(bought.code)
    done = await house.redeem(granted[1].code)
    async with house.database.writing() as session:
        await redemptions.roll_back(session, TILL, done.redemption_id, NOW)
    await house.redeem(granted[2].code)
    await house.call(offline.upload, OTHER_TILL, OfflineLine(new_id(), granted[2].code or "", NOW), NOW)
    await house.call(benefits.reverse, shoppers[3], granted[3].held_id, NOW)
    counted = await _report(house, benefit)
    assert (counted.procured, counted.stock, counted.issued) == (50, 45, 6)
    assert (counted.claimed, counted.redeemed, counted.rolled_back) == (3, 2, 1)
    assert (counted.reversed, counted.expired, counted.conflicts) == (1, 0, 1)
    assert (counted.visits, counted.points_spent, counted.cost_fen) == (2, 100, 600)


async def test_a_deal_is_a_purchase_near_the_redemption(
    house: House, make_member: MakeMember, make_benefit: MakeBenefit
) -> None:
    benefit = await make_benefit()
    moments = [-timedelta(hours=1), -timedelta(hours=1) - A_MOMENT, 7 * A_DAY - A_MOMENT, 7 * A_DAY]
    for number, moment in enumerate(moments):
        shopper = await make_member(number)
        await house.redeem((await house.grant(shopper, benefit)).code)
        await _bought(house, shopper, NOW + moment, 10 ** (number + 1))
    elsewhere = await make_member(9)
    await house.redeem((await house.grant(elsewhere, benefit)).code)
    await _bought(house, elsewhere, NOW, 7, BRAND + 1)
    counted = await _report(house, benefit)
    assert (counted.deals, counted.deal_fen) == (2, 10 + 1_000)
    assert (await _report(house, benefit, 8)).deals == 3


async def test_two_coupons_of_one_purchase_count_its_money_once(
    house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
) -> None:
    benefit = await make_benefit()
    for _ in range(2):
        await house.redeem((await house.grant(member_id, benefit)).code)
    await _bought(house, member_id, NOW, 5_000)
    counted = await _report(house, benefit)
    assert (counted.deals, counted.deal_fen, counted.visits) == (2, 5_000, 1)


async def test_a_return_visit_is_on_a_later_day_in_china(
    house: House, make_member: MakeMember, make_benefit: MakeBenefit
) -> None:
    benefit, other = await make_benefit(), await make_benefit()
    same_day, next_day, by_coupon, too_late = [await make_member(number) for number in range(4)]
    for shopper in (same_day, next_day, by_coupon, too_late):
        await house.redeem((await house.grant(shopper, benefit)).code)
    midnight = NOW.replace(hour=16)
    await _bought(house, same_day, midnight - A_MOMENT, 1)
    await _bought(house, next_day, midnight, 1)
    await _bought(house, too_late, NOW + 7 * A_DAY, 1)
    await house.redeem((await house.grant(by_coupon, other)).code, now=NOW + A_DAY)
    assert (await _report(house, benefit)).return_visits == 2
