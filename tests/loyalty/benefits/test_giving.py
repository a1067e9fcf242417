"""Giving benefits: bought at the price of a tier, granted, limited, used at once, and taken back."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from kit.ids import new_id
from loyalty import benefits, budgets, fulfilment, ledger, merges
from loyalty.benefits import (
    BenefitKind,
    BenefitLimitReached,
    BenefitNotForTier,
    BenefitNotOpen,
    BenefitOutOfStock,
    BenefitPriceChanged,
    BenefitState,
    BenefitStateForbids,
    BenefitStatus,
    BenefitStep,
    BenefitUnknown,
    HeldBenefit,
    HeldBenefitUnknown,
    MemberBenefit,
    PointsShort,
    asset_of,
    catalogue,
    using,
)
from loyalty.budgets import Budget
from loyalty.fulfilment import Order, OrderNotRepeatable, OrderState, Report, Teller, Word
from loyalty.ledger import AccountId, Leg, Purpose, Transfer, TransferIdReused
from loyalty.merges import Approval, NewMerge
from tests.loyalty.benefits.conftest import House, MakeBenefit
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember

SetTier = Callable[[uuid.UUID, int], Awaitable[None]]
A_MOMENT = timedelta(microseconds=1)


async def _steps(house: House, held: HeldBenefit) -> list[str]:
    async with house.database.reading() as session:
        rows = await session.exec(
            select(BenefitStep.step).where(BenefitStep.held_id == held.held_id).order_by(col(BenefitStep.turn))
        )
        return list(rows)


async def _tell(house: House, member_id: uuid.UUID, order_id: uuid.UUID, word: Word) -> None:
    async with house.database.writing() as session:
        await fulfilment.take(session, member_id, order_id, Report(word, Teller.OPERATOR), NOW)


async def _place_anew(house: House, order_id: uuid.UUID) -> Order:
    async with house.database.writing() as session:
        return await fulfilment.repeat(session, await fulfilment.find(session, order_id), NOW)


class TestObtaining:
    async def test_points_are_spent_at_the_brand_and_the_benefit_comes_out_of_stock(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        held = await house.obtain(member_id, benefit)
        assert (held.state, held.points_paid, held.is_new) == (BenefitState.CLAIMED, 100, True)
        assert (held.text_zh, held.text_en, held.value_fen) == ("满十减五", "5 off 10", 500)
        assert held.expires_at == NOW + timedelta(days=30)
        assert await house.balances(member_id) == {(asset_of(benefit.benefit_id), Purpose.AVAILABLE): 1}
        assert await house.left(benefit) == 49
        async with house.database.reading() as session:
            assert await ledger.total(session, Purpose.SPENT, ledger.POINTS, BRAND) == 100
        assert await _steps(house, held) == ["issued", "claimed"]
        await house.verify()

    async def test_the_same_id_again_changes_nothing(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit, obtain_id = await make_benefit(), new_id()
        await house.give_points(member_id, 400)
        answers = await asyncio.gather(*(house.obtain(member_id, benefit, obtain_id) for _ in range(10)))
        assert Counter(answer.is_new for answer in answers) == {True: 1, False: 9}
        assert len({answer.code for answer in answers}) == 1
        assert (await house.points(member_id), await house.left(benefit)) == (400, 49)
        with pytest.raises(TransferIdReused):
            await house.obtain(member_id, await make_benefit(), obtain_id)

    async def test_the_same_hundred_points_buy_more_at_gold(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit, set_tier: SetTier
    ) -> None:
        ordinary, gold = await make_member(1), await make_member(2)
        await set_tier(gold, 2)
        for one in (ordinary, gold):
            await house.give_points(one, 100)
        small = await make_benefit(value_fen=1_000)
        large = await make_benefit(value_fen=20_000, prices={2: 100})
        assert (await house.obtain(gold, large)).value_fen == 20_000
        with pytest.raises(BenefitNotForTier):
            await house.obtain(ordinary, large)
        assert (await house.obtain(ordinary, small)).value_fen == 1_000

    async def test_a_price_holds_up_to_the_next_tiers(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit, set_tier: SetTier
    ) -> None:
        benefit = await make_benefit(prices={0: 100, 1: 80, 3: 40})
        await house.give_points(member_id, 300)
        for rank, points in ((0, 100), (1, 80), (2, 80), (3, 40), (20, 40)):
            await set_tier(member_id, rank)
            assert (await house.obtain(member_id, benefit)).points_paid == points

    async def test_what_has_no_price_is_not_for_sale(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        with pytest.raises(BenefitNotForTier):
            await house.obtain(member_id, await make_benefit(prices={}))

    async def test_one_point_less_than_the_price_is_too_few(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        dear = await make_benefit(prices={0: 101})
        with pytest.raises(PointsShort):
            await house.obtain(member_id, dear)
        assert (await house.points(member_id), await house.left(dear)) == (100, 50)
        await house.give_points(member_id, 1)
        assert (await house.obtain(member_id, dear)).points_paid == 101

    async def test_a_price_that_the_member_did_not_see_is_refused(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        with pytest.raises(BenefitPriceChanged) as refusal:
            await house.obtain(member_id, benefit, points_expected=99)
        assert refusal.value.points == 100
        assert (await house.obtain(member_id, benefit, points_expected=100)).points_paid == 100

    async def test_a_benefit_of_another_group_is_unknown(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        with pytest.raises(BenefitUnknown):
            await house.obtain(member_id, await make_benefit(group_id=GROUP + 1))

    async def test_a_benefit_is_given_in_its_period_alone(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        for moment in (benefit.starts_at - A_MOMENT, benefit.ends_at):
            with pytest.raises(BenefitNotOpen):
                await house.obtain(member_id, benefit, now=moment)
        assert await house.obtain(member_id, benefit, now=benefit.ends_at - A_MOMENT)

    async def test_a_paused_benefit_is_not_given(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        async with house.database.writing() as session:
            await catalogue.set_status(session, benefit.benefit_id, BenefitStatus.PAUSED)
        for give in (house.obtain, house.grant):
            with pytest.raises(BenefitNotOpen):
                await give(member_id, benefit)

    async def test_given_again_after_its_member_was_merged_it_is_still_one(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit
    ) -> None:
        (ann, old), grant_id, benefit = [await make_member(number) for number in (1, 2)], new_id(), await make_benefit()
        first = await house.grant(old, benefit, grant_id)
        merged = NewMerge(new_id(), ann, old, Approval.CODES)
        async with house.database.writing() as session:
            await merges.merge(session, merged, NOW)
        again = await house.grant(old, benefit, grant_id)
        assert (again.held_id, again.code, again.is_new) == (grant_id, first.code, False)
        assert [len(await house.held(member_id)) for member_id in (ann, old)] == [1, 0]
        with pytest.raises(TransferIdReused):
            await house.grant(old, await make_benefit(), grant_id)
        await house.verify()


class TestRaces:
    async def test_twenty_ask_for_the_last_one(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(1)
        crowd = [await make_member(number) for number in range(20)]
        for one in crowd:
            await house.give_points(one, 100)
        answers = await asyncio.gather(*(house.obtain(one, benefit) for one in crowd), return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {HeldBenefit: 1, BenefitOutOfStock: 19}
        assert sum([await house.points(one) for one in crowd]) == 1_900
        assert await house.left(benefit) == 0
        await house.verify()

    async def test_one_member_with_points_for_one_asks_for_twenty(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit()
        answers = await asyncio.gather(*(house.obtain(member_id, benefit) for _ in range(20)), return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {HeldBenefit: 1, PointsShort: 19}
        assert (await house.points(member_id), await house.left(benefit)) == (0, 49)
        assert len(await house.held(member_id)) == 1
        await house.verify()

    async def test_a_limit_holds_against_twenty_at_once(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(limit_total=3)
        answers = await asyncio.gather(*(house.grant(member_id, benefit) for _ in range(20)), return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {HeldBenefit: 3, BenefitLimitReached: 17}
        assert await house.left(benefit) == 47

    async def test_a_reversal_races_ten_redemptions(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        answers = await asyncio.gather(
            house.call(benefits.reverse, member_id, coupon.held_id, NOW),
            *(house.redeem(coupon.code) for _ in range(10)),
            return_exceptions=True,
        )
        assert sum(not isinstance(answer, Exception) for answer in answers) == 1
        await house.verify()


class TestLimits:
    async def test_a_days_limit_starts_anew_at_midnight_in_china(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(limit_a_day=2, limit_total=3)
        midnight = NOW.replace(hour=16)
        for _ in range(2):
            await house.grant(member_id, benefit, now=midnight - A_MOMENT)
        with pytest.raises(BenefitLimitReached):
            await house.grant(member_id, benefit, now=midnight - A_MOMENT)
        await house.grant(member_id, benefit, now=midnight)
        with pytest.raises(BenefitLimitReached, match="3 in all and 2 a day"):
            await house.grant(member_id, benefit, now=midnight)

    async def test_what_was_taken_back_does_not_count(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit = await make_benefit(limit_total=1)
        held = await house.grant(member_id, benefit)
        with pytest.raises(BenefitLimitReached):
            await house.grant(member_id, benefit)
        await house.call(benefits.reverse, member_id, held.held_id, NOW)
        assert (await house.grant(member_id, benefit)).is_new


class TestKinds:
    async def test_a_points_pack_is_credited_at_once(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        pack = await make_benefit(kind=BenefitKind.POINTS, amount=250, prices={}, valid_days=0)
        held = await house.grant(member_id, pack)
        assert (held.state, held.redeemed_at, held.code) == (BenefitState.REDEEMED, NOW, None)
        assert await house.balances(member_id) == {
            (ledger.POINTS, Purpose.AVAILABLE): 350,
            (asset_of(pack.benefit_id), Purpose.REDEEMED): 1,
        }
        assert await _steps(house, held) == ["issued", "claimed", "redeemed"]
        await house.verify()

    async def test_mobile_data_is_ordered_at_once_and_comes_back_when_the_order_fails(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        data = await make_benefit(kind=BenefitKind.DATA, amount=30, valid_days=0)
        held = await house.obtain(member_id, data)
        assert (await house.balances(member_id))[ledger.MEGABYTES, Purpose.PENDING] == 30
        async with house.database.reading() as session:
            order = (await session.exec(select(Order))).one()
        assert (order.order_id, order.kind, order.amount) == (using.order_of(held.held_id), "mb", 30)
        with pytest.raises(BenefitStateForbids):
            await house.call(benefits.reverse, member_id, held.held_id, NOW)
        async with house.database.writing() as session:
            await session.exec(update(Order).values(state=OrderState.FAILED, closed_at=NOW))
        reversed_ = await house.call(benefits.reverse, member_id, held.held_id, NOW)
        assert reversed_.state is BenefitState.REVERSED
        assert (await house.points(member_id), await house.left(data)) == (100, 50)

    @pytest.mark.parametrize("anew_before", [False, True])
    async def test_an_order_that_failed_is_placed_anew_or_its_benefit_taken_back_and_never_both(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit, anew_before: bool
    ) -> None:
        data = await make_benefit(kind=BenefitKind.DATA, amount=30, valid_days=0)
        held = await house.obtain(member_id, data)
        order_id = using.order_of(held.held_id)
        await _tell(house, member_id, order_id, Word.FAILED)
        if anew_before:
            order_id = (await _place_anew(house, order_id)).order_id
            with pytest.raises(BenefitStateForbids):
                await house.call(benefits.reverse, member_id, held.held_id, NOW)
            await _tell(house, member_id, order_id, Word.FAILED)
        answers = await asyncio.gather(
            *(house.call(benefits.reverse, member_id, held.held_id, NOW) for _ in range(2)),
            *(_place_anew(house, order_id) for _ in range(2)),
            return_exceptions=True,
        )
        kinds = Counter(type(answer) for answer in answers)
        assert kinds in ({HeldBenefit: 2, OrderNotRepeatable: 2}, {Order: 2, BenefitStateForbids: 2})
        ordered = {(ledger.MEGABYTES, Purpose.PENDING): 30, (asset_of(data.benefit_id), Purpose.REDEEMED): 1}
        taken_back = {(ledger.POINTS, Purpose.AVAILABLE): 100}
        assert await house.balances(member_id) == (taken_back if HeldBenefit in kinds else ordered)
        await house.verify()

    async def test_what_arrived_after_all_is_not_taken_back_for_the_order_that_replaced_it(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        held = await house.obtain(member_id, await make_benefit(kind=BenefitKind.DATA, amount=30, valid_days=0))
        first = using.order_of(held.held_id)
        await _tell(house, member_id, first, Word.FAILED)
        second = (await _place_anew(house, first)).order_id
        await _tell(house, member_id, second, Word.FAILED)
        await _tell(house, member_id, first, Word.COMPLETED)
        with pytest.raises(BenefitStateForbids, match="its order completed"):
            await house.call(benefits.reverse, member_id, held.held_id, NOW)

    async def test_a_red_packet_waits_till_its_member_opens_it(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        packet = await make_benefit(kind=BenefitKind.CASH, amount=888, value_fen=888, cost_fen=888)
        held = await house.grant(member_id, packet)
        assert held.state is BenefitState.ISSUED
        answers = await asyncio.gather(
            *(house.call(benefits.open_packet, member_id, held.held_id, NOW) for _ in range(5))
        )
        assert Counter(answer.is_new for answer in answers) == {True: 1, False: 4}
        assert (await house.balances(member_id))[ledger.FEN, Purpose.PENDING] == 888
        await house.verify()

    async def test_a_red_packet_is_not_opened_after_its_end(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        packet = await make_benefit(kind=BenefitKind.CASH, amount=888, value_fen=888, cost_fen=888)
        held = await house.grant(member_id, packet)
        with pytest.raises(BenefitStateForbids):
            await house.call(benefits.open_packet, member_id, held.held_id, held.expires_at)

    async def test_a_coupon_is_no_red_packet(self, house: House, member_id: uuid.UUID, coupon: HeldBenefit) -> None:
        with pytest.raises(BenefitStateForbids):
            await house.call(benefits.open_packet, member_id, coupon.held_id, NOW)

    async def test_a_fixed_end_comes_before_the_days(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        end = NOW + timedelta(days=3)
        assert (await house.grant(member_id, await make_benefit(expires_at=end))).expires_at == end
        assert (await house.grant(member_id, await make_benefit(expires_at=end, valid_days=0))).expires_at == end
        assert (await house.grant(member_id, await make_benefit(expires_at=end, valid_days=1))).expires_at == (
            NOW + timedelta(days=1)
        )


class TestHolding:
    async def test_looking_at_a_code_claims_the_coupon_once(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        assert coupon.state is BenefitState.ISSUED
        for _ in range(2):
            seen = await house.call(benefits.show, member_id, coupon.held_id, NOW)
            assert (seen.state, seen.code) == (BenefitState.CLAIMED, coupon.code)
        assert await _steps(house, coupon) == ["issued", "claimed"]

    async def test_another_members_benefit_is_unknown(
        self, house: House, make_member: MakeMember, coupon: HeldBenefit
    ) -> None:
        other = await make_member(1)
        for work in (benefits.show, benefits.reverse, benefits.open_packet):
            with pytest.raises(HeldBenefitUnknown):
                await house.call(work, other, coupon.held_id, NOW)

    async def test_a_code_is_stored_sealed_and_found_by_its_hash(self, house: House, coupon: HeldBenefit) -> None:
        async with house.database.reading() as session:
            stored = (await session.exec(select(MemberBenefit))).one()
        assert coupon.code is not None
        plain = coupon.code.replace("-", "").encode()
        assert stored.code_sealed is not None
        assert plain not in stored.code_sealed
        assert plain not in (stored.code_fingerprint or b"")

    async def test_steps_are_never_changed(self, house: House, coupon: HeldBenefit) -> None:
        async with house.database.reading() as session:
            assert len((await session.exec(select(BenefitStep))).all()) == 1
        with pytest.raises(DBAPIError, match="append-only"):
            async with house.database.writing() as session:
                await session.exec(update(BenefitStep).values(step="claimed"))


class TestReversing:
    async def test_points_go_back_to_the_lots_they_came_from(
        self, house: House, make_member: MakeMember, make_benefit: MakeBenefit
    ) -> None:
        member_id, benefit = await make_member(), await make_benefit()
        soon, later = NOW + timedelta(days=1), NOW + timedelta(days=2)
        await house.give_points(member_id, 60, soon)
        await house.give_points(member_id, 60, later)
        held = await house.obtain(member_id, benefit)
        answers = [await house.call(benefits.reverse, member_id, held.held_id, NOW) for _ in range(2)]
        assert [answer.is_new for answer in answers] == [True, False]
        async with house.database.reading() as session:
            lots = await ledger.lots_of(session, member_id, NOW)
            assert await ledger.total(session, Purpose.SPENT, ledger.POINTS, BRAND) == 0
        assert [(lot.left, lot.expires_at) for lot in lots] == [(60, soon), (60, later)]
        assert await house.left(benefit) == 50
        assert await _steps(house, held) == ["issued", "claimed", "reversed"]
        await house.verify()

    async def test_a_redeemed_coupon_is_not_taken_back(
        self, house: House, member_id: uuid.UUID, coupon: HeldBenefit
    ) -> None:
        await house.redeem(coupon.code)
        with pytest.raises(BenefitStateForbids):
            await house.call(benefits.reverse, member_id, coupon.held_id, NOW)


class TestEscrow:
    async def test_a_campaign_pays_benefits_out_of_its_own_budget(
        self, house: House, member_id: uuid.UUID, make_benefit: MakeBenefit
    ) -> None:
        benefit, claim_id = await make_benefit(), new_id()
        budget = Budget(new_id(), asset_of(benefit.benefit_id), 4)
        async with house.database.writing() as session:
            await benefits.escrow(session, benefit.benefit_id, BRAND, budget, 30, NOW)
        async with house.database.writing() as session:
            account = AccountId(member_id, budget.asset, Purpose.AVAILABLE)
            legs = (budgets.debit(budget, 1, 0), Leg(account, 1))
            await ledger.post(session, Transfer(claim_id, "claim", legs), NOW)
            held = await benefits.write_out(
                session,
                house.vault,
                held_id=claim_id,
                member_id=member_id,
                benefit_id=benefit.benefit_id,
                why="claim",
                now=NOW,
            )
        assert (await house.redeem(held.code)).held_id == claim_id
        async with house.database.reading() as session:
            assert (await house.left(benefit), await budgets.left(session, budget)) == (20, 29)
        await house.verify()

    async def test_no_more_is_set_aside_than_there_is(self, house: House, make_benefit: MakeBenefit) -> None:
        benefit = await make_benefit(10)
        budget = Budget(new_id(), asset_of(benefit.benefit_id))
        for brand_id, count, refusal in ((BRAND, 11, BenefitOutOfStock), (BRAND + 1, 10, BenefitUnknown)):
            with pytest.raises(refusal):
                async with house.database.writing() as session:
                    await benefits.escrow(session, benefit.benefit_id, brand_id, budget, count, NOW)
        async with house.database.writing() as session:
            await benefits.escrow(session, benefit.benefit_id, BRAND, budget, 10, NOW)
        assert await house.left(benefit) == 0
