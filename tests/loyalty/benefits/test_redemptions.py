"""At the counter: coupons validated, redeemed once, rolled back, set aside for baskets, uploaded later."""

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from kit.ids import new_id
from loyalty import benefits, ledger
from loyalty.benefits import (
    BenefitState,
    HeldBenefit,
    MemberBenefit,
    asset_of,
    baskets,
    expiry,
    offline,
    redemptions,
    tills,
)
from loyalty.benefits.baskets import CouponNotReserved, CouponsDoNotStack, ReservationInvalid, TillBasket
from loyalty.benefits.expiry import Swept
from loyalty.benefits.offline import CLOCK_AHEAD_MAX, OFFLINE_AGE_MAX, OFFLINE_GRACE, OfflineLine, Uploaded
from loyalty.benefits.redemptions import ROLLBACK_WITHIN, Redemption, RedemptionUnknown, RollbackTooLate
from loyalty.benefits.tills import (
    CouponAlreadyRedeemed,
    CouponExpired,
    CouponReserved,
    CouponReversed,
    CouponUnknown,
    RedemptionIdReused,
    RedemptionOutcome,
    Seen,
    Till,
)
from loyalty.ledger import Purpose
from tests.loyalty.benefits.conftest import OTHER_TILL, TILL, House, MakeBenefit
from tests.loyalty.conftest import BRAND, NOW, MakeMember

A_MOMENT = timedelta(microseconds=1)
BASKET, OTHER_BASKET = uuid.UUID(int=1), uuid.UUID(int=2)


async def _reserve(house: House, code: str | None, basket_id: uuid.UUID = BASKET, **options: Any) -> Seen:
    seen: Seen = await house.call(
        baskets.reserve, options.pop("till", TILL), code, basket_id=basket_id, **({"now": NOW} | options)
    )
    return seen


async def _roll_back(house: House, redemption_id: uuid.UUID, now: datetime = NOW, till: Till = TILL) -> Any:
    async with house.database.writing() as session:
        return await redemptions.roll_back(session, till, redemption_id, now)


async def _upload(
    house: House,
    code: str | None,
    at: datetime,
    now: datetime,
    till: Till = TILL,
    redemption_id: uuid.UUID | None = None,
) -> Uploaded:
    line = OfflineLine(redemption_id or new_id(), code or "", at)
    done: Uploaded = await house.call(offline.upload, till, line, now)
    return done


async def _sweep(house: House, now: datetime) -> Swept:
    async with house.database.writing() as session:
        return await expiry.sweep(session, now)


async def _state(house: House, held: HeldBenefit, now: datetime = NOW) -> BenefitState:
    async with house.database.reading() as session:
        row = (await session.exec(select(MemberBenefit).where(MemberBenefit.held_id == held.held_id))).one()
        return row.state_at(now)


class TestRedeeming:
    async def test_a_redeemed_coupon_moves_in_the_ledger_and_says_who_redeemed_it(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        done = await house.redeem(coupon.code)
        assert (done.held_id, done.brand_id, done.value_fen, done.at) == (coupon.held_id, BRAND, 500, NOW)
        asset = asset_of(coupon.benefit_id)
        assert (await house.balances(member_id))[asset, Purpose.REDEEMED] == 1
        async with house.database.reading() as session:
            stored = (await session.exec(select(MemberBenefit))).one()
        assert (stored.status, stored.redeemed_at, stored.redeemed_by) == ("redeemed", NOW, TILL.shop_id)
        await house.verify()

    async def test_twenty_tills_redeem_one_coupon_and_one_succeeds(self, house: House, coupon: HeldBenefit) -> None:
        answers = await asyncio.gather(*(house.redeem(coupon.code) for _ in range(20)), return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {Redemption: 1, CouponAlreadyRedeemed: 19}
        await house.verify()

    async def test_the_same_redemption_id_again_changes_nothing(self, house: House, coupon: HeldBenefit) -> None:
        chosen = new_id()
        answers = await asyncio.gather(*(house.redeem(coupon.code, redemption_id=chosen) for _ in range(10)))
        assert Counter(answer.is_new for answer in answers) == {True: 1, False: 9}
        assert {replace(answer, is_new=True) for answer in answers} == {replace(answers[0], is_new=True)}

    async def test_a_redemption_id_belongs_to_one_coupon(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit, chosen = await make_benefit(), new_id()
        first, second = await house.grant(member_id, benefit), await house.grant(member_id, benefit)
        await house.redeem(first.code, redemption_id=chosen)
        with pytest.raises(RedemptionIdReused):
            await house.redeem(second.code, redemption_id=chosen)
        assert await _state(house, second) is BenefitState.ISSUED
        # The other till's ids are its own.
        assert (await house.redeem(second.code, OTHER_TILL, redemption_id=chosen)).is_new

    async def test_a_second_redemption_tells_when_the_first_was(self, house: House, coupon: HeldBenefit) -> None:
        await house.redeem(coupon.code)
        with pytest.raises(CouponAlreadyRedeemed) as refusal:
            await house.redeem(coupon.code, now=NOW + timedelta(days=1))
        assert refusal.value.redeemed_at == NOW

    async def test_a_coupon_is_good_until_just_before_it_expires(self, house: House, coupon: HeldBenefit) -> None:
        assert coupon.expires_at is not None
        with pytest.raises(CouponExpired):
            await house.redeem(coupon.code, now=coupon.expires_at)
        assert await house.redeem(coupon.code, now=coupon.expires_at - A_MOMENT)

    async def test_a_coupon_that_was_taken_back_is_refused(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        await house.call(benefits.reverse, member_id, coupon.held_id, NOW)
        with pytest.raises(CouponReversed):
            await house.redeem(coupon.code)

    async def test_a_till_redeems_only_coupons_of_its_brands(self, house: House, coupon: HeldBenefit) -> None:
        for brands in ({BRAND + 1}, set[int]()):
            with pytest.raises(CouponUnknown):
                await house.redeem(coupon.code, Till(TILL.shop_id, brands))
        assert await house.redeem(coupon.code, Till(TILL.shop_id, None))

    async def test_a_code_may_be_typed_as_people_type(self, house: House, coupon: HeldBenefit) -> None:
        assert coupon.code is not None
        typed = coupon.code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        assert (await house.redeem(f" {typed}\n")).held_id == coupon.held_id

    async def test_an_unknown_code_is_refused(self, house: House, coupon: HeldBenefit) -> None:
        for code in ("", "0000-0000-0000-0000", "x" * 10_000, "券", "\x00", "\ud800"):
            with pytest.raises(CouponUnknown):
                await house.redeem(code)


class TestRollingBack:
    async def test_a_coupon_is_good_again_after_a_rollback(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        done = await house.redeem(coupon.code)
        await _roll_back(house, done.redemption_id)
        assert (await _roll_back(house, done.redemption_id, NOW + timedelta(days=1))).rolled_back_at == NOW
        assert (await house.balances(member_id))[asset_of(coupon.benefit_id), Purpose.AVAILABLE] == 1
        with pytest.raises(RedemptionIdReused):
            await house.redeem(coupon.code, redemption_id=done.redemption_id)
        assert (await house.redeem(coupon.code)).is_new
        await house.verify()

    async def test_ten_rollbacks_at_once_are_one(self, house: House, coupon: HeldBenefit) -> None:
        done = await house.redeem(coupon.code)
        await asyncio.gather(*(_roll_back(house, done.redemption_id) for _ in range(10)))
        assert await _state(house, coupon) is BenefitState.CLAIMED
        await house.verify()

    async def test_a_rollback_comes_within_thirty_minutes(self, house: House, coupon: HeldBenefit) -> None:
        done = await house.redeem(coupon.code)
        with pytest.raises(RollbackTooLate):
            await _roll_back(house, done.redemption_id, NOW + ROLLBACK_WITHIN + A_MOMENT)
        await _roll_back(house, done.redemption_id, NOW + ROLLBACK_WITHIN)

    async def test_a_till_rolls_back_its_own_redemptions_alone(self, house: House, coupon: HeldBenefit) -> None:
        done = await house.redeem(coupon.code)
        for till, redemption_id in ((OTHER_TILL, done.redemption_id), (TILL, new_id())):
            with pytest.raises(RedemptionUnknown):
                await _roll_back(house, redemption_id, till=till)


class TestValidating:
    async def test_looking_changes_nothing(self, house: House, coupon: HeldBenefit) -> None:
        [seen] = await house.call(redemptions.validate, TILL, [coupon.code], NOW)
        assert (seen.held_id, seen.value_fen, seen.refusal) == (coupon.held_id, 500, None)
        assert await _state(house, coupon) is BenefitState.ISSUED

    async def test_every_refusal_is_told(self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit) -> None:
        benefit = await make_benefit(stackable=True)
        used, held, fresh = [await house.grant(member_id, benefit) for _ in range(3)]
        await house.redeem(used.code)
        await _reserve(house, held.code)
        codes = [used.code, held.code, "0000-0000-0000-0000", fresh.code]
        seen = await house.call(redemptions.validate, TILL, codes, NOW)
        assert [type(getattr(one, "refusal", one)) for one in seen] == [
            CouponAlreadyRedeemed,
            CouponReserved,
            CouponUnknown,
            type(None),
        ]

    async def test_coupons_stack_only_when_all_of_them_do(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        alone, stacking = await make_benefit(), await make_benefit(stackable=True)
        one = await house.grant(member_id, alone)
        two, three = await house.grant(member_id, stacking), await house.grant(member_id, stacking)

        async def refused(*codes: str | None) -> list[bool]:
            seen = await house.call(redemptions.validate, TILL, codes, NOW)
            return [isinstance(coupon.refusal, CouponsDoNotStack) for coupon in seen]

        assert await refused(two.code, three.code) == [False, False]
        assert await refused(one.code, two.code) == [True, True]
        assert await refused(two.code, two.code) == [True, True]


class TestBaskets:
    async def test_a_reserved_coupon_is_for_its_basket_alone(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        seen = await _reserve(house, coupon.code)
        assert seen.state is BenefitState.RESERVED
        assert (await house.balances(member_id))[asset_of(coupon.benefit_id), Purpose.HELD] == 1
        for basket_id in (None, OTHER_BASKET):
            with pytest.raises(CouponReserved):
                await house.redeem(coupon.code, basket_id=basket_id)
        with pytest.raises(CouponReserved):
            await _reserve(house, coupon.code, OTHER_BASKET)
        assert (await house.redeem(coupon.code, basket_id=BASKET)).is_new
        assert (await house.balances(member_id))[asset_of(coupon.benefit_id), Purpose.REDEEMED] == 1
        await house.verify()

    async def test_ten_baskets_reserve_one_coupon_and_one_succeeds(self, house: House, coupon: HeldBenefit) -> None:
        answers = await asyncio.gather(
            *(_reserve(house, coupon.code, uuid.UUID(int=10 + number)) for number in range(10)),
            return_exceptions=True,
        )
        assert Counter(type(answer) for answer in answers) == {Seen: 1, CouponReserved: 9}
        async with house.database.reading() as session:
            counted = [basket.coupons for basket in await session.exec(select(TillBasket))]
        assert sum(counted) == 1

    async def test_a_reservation_ends_by_itself_and_can_be_made_longer(self, house: House, coupon: HeldBenefit) -> None:
        lasting = timedelta(minutes=5)
        await _reserve(house, coupon.code, lasting=lasting)
        later = NOW + timedelta(minutes=4)
        await _reserve(house, coupon.code, now=later, lasting=lasting)
        with pytest.raises(CouponReserved):
            await house.redeem(coupon.code, now=later + lasting - A_MOMENT)
        assert (await house.redeem(coupon.code, now=later + lasting)).is_new
        await house.verify()

    async def test_the_sweep_frees_what_lapsed_and_its_basket(self, house: House, coupon: HeldBenefit) -> None:
        await _reserve(house, coupon.code)
        assert await _sweep(house, NOW) == Swept(0, 0)
        after = NOW + baskets.RESERVATION_DEFAULT
        swept = await asyncio.gather(*(_sweep(house, after) for _ in range(3)))
        assert sum(one.released for one in swept) == 1
        assert await _state(house, coupon) is BenefitState.CLAIMED
        async with house.database.reading() as session:
            assert (await session.exec(select(TillBasket.coupons))).all() == [0]
        await _sweep(house, after + baskets.BASKET_LIFETIME + A_MOMENT)
        async with house.database.reading() as session:
            assert (await session.exec(select(TillBasket))).all() == []
        await house.verify()

    async def test_the_ledgers_own_sweep_may_come_first(self, house: House, coupon: HeldBenefit) -> None:
        await _reserve(house, coupon.code)
        after = NOW + timedelta(hours=1)
        async with house.database.writing() as session:
            assert (await ledger.expire_due(session, after, 10)).holds == 1
        assert (await house.redeem(coupon.code, now=after)).is_new
        await house.verify()

    async def test_a_released_coupon_is_free(self, house: House, coupon: HeldBenefit) -> None:
        await _reserve(house, coupon.code)
        with pytest.raises(CouponNotReserved):
            await house.call(baskets.release, TILL, coupon.code, basket_id=OTHER_BASKET, now=NOW)
        await house.call(baskets.release, TILL, coupon.code, basket_id=BASKET, now=NOW)
        assert (await _reserve(house, coupon.code, OTHER_BASKET)).state is BenefitState.RESERVED
        await house.verify()

    async def test_a_basket_takes_one_coupon_that_does_not_stack(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        alone, stacking = await make_benefit(), await make_benefit(stackable=True)
        one, two = await house.grant(member_id, alone), await house.grant(member_id, alone)
        three = await house.grant(member_id, stacking)
        await house.redeem(one.code, basket_id=BASKET)
        for code in (two.code, three.code):
            with pytest.raises(CouponsDoNotStack):
                await house.redeem(code, basket_id=BASKET)
        await house.redeem(three.code, basket_id=OTHER_BASKET)
        with pytest.raises(CouponsDoNotStack):
            await _reserve(house, two.code, OTHER_BASKET)

    async def test_two_coupons_that_do_not_stack_race_for_one_basket(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        coupons = [await house.grant(member_id, benefit) for _ in range(8)]
        answers = await asyncio.gather(
            *(house.redeem(one.code, basket_id=BASKET) for one in coupons), return_exceptions=True
        )
        assert Counter(type(answer) for answer in answers) == {Redemption: 1, CouponsDoNotStack: 7}

    async def test_a_basket_takes_ten_that_stack(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(stackable=True)
        coupons = [await house.grant(member_id, benefit) for _ in range(baskets.BASKET_COUPONS_MAX + 1)]
        first = [await house.redeem(one.code, basket_id=BASKET) for one in coupons[:-1]]
        with pytest.raises(CouponsDoNotStack):
            await house.redeem(coupons[-1].code, basket_id=BASKET)
        await _roll_back(house, first[0].redemption_id)
        assert (await house.redeem(coupons[-1].code, basket_id=BASKET)).is_new

    async def test_a_reservation_lasts_up_to_an_hour(self, house: House, coupon: HeldBenefit) -> None:
        for seconds in (0, -1, 3_601):
            with pytest.raises(ReservationInvalid):
                await _reserve(house, coupon.code, lasting=timedelta(seconds=seconds))
        await _reserve(house, coupon.code, lasting=baskets.RESERVATION_MAX)

    async def test_a_member_reserves_his_own_coupon_for_an_online_basket(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        async with house.database.writing() as session:
            await baskets.reserve_own(session, member_id, coupon.held_id, basket_id=BASKET, now=NOW)
        async with house.database.writing() as session:
            await baskets.cancel_own(session, member_id, coupon.held_id, NOW)
        assert (await house.redeem(coupon.code, basket_id=OTHER_BASKET)).is_new


class TestOffline:
    async def test_a_redemption_counts_at_the_time_when_it_happened(self, house: House, coupon: HeldBenefit) -> None:
        at, chosen = NOW + timedelta(hours=1), new_id()
        for _ in range(2):
            done = await _upload(house, coupon.code, at, NOW + timedelta(hours=9), redemption_id=chosen)
            assert (done.outcome, done.held_id) == (RedemptionOutcome.REDEEMED, coupon.held_id)
        with pytest.raises(CouponAlreadyRedeemed) as refusal:
            await house.redeem(coupon.code)
        assert refusal.value.redeemed_at == at
        await house.verify()

    async def test_the_first_that_is_heard_of_wins_and_the_others_are_kept(
        self, house: House, coupon: HeldBenefit
    ) -> None:
        tills_ = [Till(uuid.UUID(int=100 + number), {BRAND}) for number in range(8)]
        done = await asyncio.gather(*(_upload(house, coupon.code, NOW, NOW, till) for till in tills_))
        assert Counter(one.outcome for one in done) == {
            RedemptionOutcome.REDEEMED: 1,
            RedemptionOutcome.ALREADY_REDEEMED: 7,
        }
        async with house.database.reading() as session:
            kept = await offline.conflicts_of(session, BRAND, None, 100)
        assert {(row.outcome, row.held_id) for row in kept} == {("already_redeemed", coupon.held_id)}
        assert len(kept) == 7
        await house.verify()

    async def test_a_line_is_told_many_times_at_once_and_counts_once(self, house: House, coupon: HeldBenefit) -> None:
        for code in (coupon.code, "0000-0000-0000-0000"):
            chosen = new_id()
            done = await asyncio.gather(*(_upload(house, code, NOW, NOW, redemption_id=chosen) for _ in range(8)))
            assert len({one.outcome for one in done}) == 1
        async with house.database.reading() as session:
            assert len((await session.exec(select(tills.ShopRedemption))).all()) == 2

    async def test_a_coupon_that_was_good_then_counts_within_the_grace(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        for before_end, told_after_end, outcome in (
            (A_MOMENT, OFFLINE_GRACE - A_MOMENT, RedemptionOutcome.REDEEMED),
            (A_MOMENT, OFFLINE_GRACE, RedemptionOutcome.TOO_LATE),
            (timedelta(0), timedelta(hours=1), RedemptionOutcome.EXPIRED),
        ):
            held = await house.grant(member_id, benefit)
            assert held.expires_at is not None
            told = held.expires_at + told_after_end
            assert (await _upload(house, held.code, held.expires_at - before_end, told)).outcome is outcome

    async def test_a_tills_clock_may_be_a_little_off(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        for at, outcome in (
            (NOW + CLOCK_AHEAD_MAX, RedemptionOutcome.REDEEMED),
            (NOW + CLOCK_AHEAD_MAX + A_MOMENT, RedemptionOutcome.TIME_REFUSED),
            (NOW - CLOCK_AHEAD_MAX, RedemptionOutcome.REDEEMED),
            (NOW - CLOCK_AHEAD_MAX - A_MOMENT, RedemptionOutcome.NOT_YET_ISSUED),
            (NOW - OFFLINE_AGE_MAX - A_MOMENT, RedemptionOutcome.TIME_REFUSED),
        ):
            held = await house.grant(member_id, benefit)
            assert (await _upload(house, held.code, at, NOW)).outcome is outcome

    async def test_a_reservation_gives_way_to_what_happened(self, house: House, coupon: HeldBenefit) -> None:
        await _reserve(house, coupon.code)
        done = await _upload(house, coupon.code, NOW, NOW, OTHER_TILL)
        assert done.outcome is RedemptionOutcome.REDEEMED
        with pytest.raises(CouponAlreadyRedeemed):
            await house.redeem(coupon.code, basket_id=BASKET)
        await house.verify()

    async def test_an_id_that_was_used_for_another_coupon_is_refused(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit, chosen = await make_benefit(), new_id()
        one, two = await house.grant(member_id, benefit), await house.grant(member_id, benefit)
        await _upload(house, one.code, NOW, NOW, redemption_id=chosen)
        with pytest.raises(RedemptionIdReused):
            await _upload(house, two.code, NOW, NOW, redemption_id=chosen)
        assert await _state(house, two) is BenefitState.ISSUED


class TestExpiry:
    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    async def test_two_sweeps_of_the_same_members_do_not_wait_for_each_other(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(200)
        holders = [await make_member(number) for number in range(1, 11)]
        async with house.database.writing() as session:
            for number in range(30):
                await benefits.grant(
                    session,
                    house.vault,
                    grant_id=new_id(),
                    member_id=holders[number * 7 % 10],
                    benefit_id=benefit.benefit_id,
                    why="test",
                    now=NOW,
                )

        async def sweep() -> Swept:
            async with house.database.writing() as session:
                return await expiry.sweep(session, NOW + timedelta(days=60), 15)

        assert [swept.expired for swept in await asyncio.gather(sweep(), sweep())] == [15, 15]
        await house.verify()

    async def test_a_benefit_is_written_off_once_after_the_grace(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        holders = [await make_member(number) for number in range(1, 4)]
        held = [await house.grant(one, benefit) for one in holders]
        await house.redeem(held[0].code)
        assert held[0].expires_at is not None
        over = held[0].expires_at + OFFLINE_GRACE
        assert (await _sweep(house, over - A_MOMENT)).expired == 0
        swept = await asyncio.gather(*(_sweep(house, over) for _ in range(4)))
        assert sum(one.expired for one in swept) == 2
        assert [await _state(house, one, over) for one in held] == ["redeemed", "expired", "expired"]
        async with house.database.reading() as session:
            asset = asset_of(benefit.benefit_id)
            assert await ledger.total(session, Purpose.EXPIRED, asset, benefit.group_id) == 2
        await house.verify()
