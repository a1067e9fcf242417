"""The catalogue: what can be a benefit, and what is taken for a slip of the decimal point or the unit."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kit.ids import new_id
from loyalty.benefits import BenefitInvalid, BenefitKind, BenefitOutOfStock, BenefitSuspicious, catalogue, stock
from loyalty.benefits.catalogue import VALUE_FEN_MAX
from loyalty.benefits.stock import COST_FEN_UNASKED_MAX
from tests.loyalty.benefits.conftest import COUPON, House, MakeBenefit
from tests.loyalty.conftest import BRAND, NOW

LATER = NOW + timedelta(days=1)


def _check(*, sure: bool = False, **changes: Any) -> None:
    catalogue.check(replace(COUPON, **changes), NOW, sure=sure)


@pytest.mark.parametrize(
    "changes",
    [
        {"value_fen": VALUE_FEN_MAX, "prices": {}},
        {"cost_fen": 500},
        {"valid_days": 0, "expires_at": LATER},
        {"name_zh": "满", "name_en": "x" * 80},
        {"text_zh": "细" * 500},
        {"kind": BenefitKind.POINTS, "amount": 1_000_000, "valid_days": 0, "prices": {}},
        {"kind": BenefitKind.DATA, "amount": 10_240, "valid_days": 0},
        {"kind": BenefitKind.CASH, "amount": 500},
        {"prices": {0: 0}, "limit_total": 1},
        {"prices": {0: 2_000, 1: 100}},
        {"prices": {20: 10_000_000}},
    ],
    ids=str,
)
def test_what_can_be_a_benefit(changes: dict[str, Any]) -> None:
    _check(**changes)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("value_fen", {"value_fen": VALUE_FEN_MAX + 1}),
        ("value_fen", {"value_fen": -1, "cost_fen": -1}),
        ("cost_fen", {"cost_fen": 501}),
        ("valid_days", {"valid_days": 1_096}),
        ("valid_days or expires_at", {"valid_days": 0}),
        ("expires_at", {"expires_at": NOW}),
        ("ends_at", {"ends_at": NOW}),
        ("ends_at", {"starts_at": LATER, "ends_at": LATER}),
        ("name_zh", {"name_zh": ""}),
        ("name_zh", {"name_en": "x" * 81}),
        ("name_zh", {"name_en": "a\nb"}),
        ("text_zh", {"text_en": "x" * 501}),
        ("amount", {"amount": 2}),
        ("amount", {"kind": BenefitKind.POINTS, "amount": 1_000_001, "prices": {}}),
        ("amount", {"kind": BenefitKind.DATA, "amount": 10_241}),
        ("value_fen", {"kind": BenefitKind.CASH, "amount": 499}),
        ("limit_total", {"limit_total": 0}),
        ("limit_total", {"limit_a_day": 1_000_001}),
        ("stripes", {"stripes": 65}),
        ("prices", {"kind": BenefitKind.POINTS, "amount": 5}),
        ("prices", {"prices": {21: 1}}),
        ("prices", {"prices": {0: 10_000_001}}),
        ("prices", {"prices": {0: -1}}),
    ],
    ids=str,
)
def test_what_cannot_be_a_benefit(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(BenefitInvalid, match=f"^{field}"):
        _check(sure=True, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"value_fen": 20_000, "prices": {0: 1}},  # ¥200 for a point: the decimal point slipped
        {"prices": {0: 100, 1: 200}},
        {"prices": {0: 2_100, 1: 100}},
        {"prices": {0: 0}},
    ],
    ids=["too cheap", "dearer for the better", "twenty times", "free without limit"],
)
def test_what_looks_like_a_slip_needs_somebody_who_is_sure(changes: dict[str, Any]) -> None:
    with pytest.raises(BenefitSuspicious) as refusal:
        _check(**changes)
    assert "--sure" in refusal.value.hint
    _check(sure=True, **changes)


def test_a_point_may_be_worth_ten_yuan_and_no_fen_more() -> None:
    _check(value_fen=100_000, prices={0: 100})
    with pytest.raises(BenefitSuspicious):
        _check(value_fen=100_001, prices={0: 100})


class TestStock:
    async def test_stock_is_procured_once_for_each_id(self, house: House, make_benefit: MakeBenefit) -> None:
        benefit, chosen = await make_benefit(0), new_id()
        for _ in range(2):
            async with house.database.writing() as session:
                await stock.procure(session, benefit, 33, procurement_id=chosen, now=NOW)
        assert await house.left(benefit) == 33
        await house.verify()

    async def test_stock_that_may_cost_too_much_is_not_procured(self, house: House, make_benefit: MakeBenefit) -> None:
        benefit = await make_benefit(0, value_fen=200_000, cost_fen=100_000, prices={})
        most = COST_FEN_UNASKED_MAX // benefit.cost_fen

        async def procure(count: int, limit: int | None = None) -> None:
            async with house.database.writing() as session:
                await stock.procure(session, benefit, count, procurement_id=new_id(), now=NOW, cost_fen_max=limit)

        await procure(most)
        with pytest.raises(BenefitSuspicious):
            await procure(most + 1)
        await procure(most + 1, (most + 1) * benefit.cost_fen)
        with pytest.raises(BenefitSuspicious):
            await procure(2, 2 * benefit.cost_fen - 1)

    @pytest.mark.parametrize("count", [0, -1, 100_000_001])
    def test_stock_comes_in_sensible_numbers(self, count: int) -> None:
        stock.check_cost(100_000_000, 0, None)
        with pytest.raises(BenefitInvalid):
            stock.check_cost(count, 0, None)

    async def test_what_is_left_can_be_withdrawn_and_no_more(self, house: House, make_benefit: MakeBenefit) -> None:
        benefit = await make_benefit(40)

        async def withdraw(count: int) -> None:
            async with house.database.writing() as session:
                await stock.withdraw(session, benefit, count, withdrawal_id=uuid.uuid4(), now=NOW)

        await withdraw(30)
        with pytest.raises(BenefitOutOfStock):
            await withdraw(11)
        await withdraw(10)
        assert await house.left(benefit) == 0
        await house.verify()


async def test_new_prices_replace_the_old_ones(house: House, make_benefit: MakeBenefit) -> None:
    benefit = await make_benefit()
    async with house.database.writing() as session:
        await catalogue.set_prices(session, benefit.benefit_id, {1: 50, 3: 40})
    with pytest.raises(BenefitSuspicious):
        async with house.database.writing() as session:
            await catalogue.set_prices(session, benefit.benefit_id, {0: 1, 1: 2})
    async with house.database.reading() as session:
        assert await catalogue.prices_of(session, benefit.benefit_id) == {1: 50, 3: 40}


async def test_members_see_what_they_can_buy_now(house: House, make_benefit: MakeBenefit) -> None:
    shown = [await make_benefit(), await make_benefit(0)]
    await make_benefit(prices={})
    await make_benefit(starts_at=LATER)
    await make_benefit(brand_id=BRAND + 1)
    async with house.database.reading() as session:
        found = await catalogue.on_offer(session, BRAND, NOW, None, 10)
        assert len(await catalogue.of_brand(session, BRAND)) == 4
    assert {one.benefit.benefit_id for one in found} == {benefit.benefit_id for benefit in shown}
    assert found[0].prices == {0: 100}
