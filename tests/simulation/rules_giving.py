"""Benefits: procured, imported, sold for points, granted, shown, checked off, taken back, and past their time."""

import uuid
from datetime import datetime

from kit.db import Session
from kit.ids import derived_id
from loyalty import benefits
from loyalty.benefits import (
    Benefit,
    BenefitKind,
    BenefitLimitReached,
    BenefitNotForTier,
    BenefitOutOfStock,
    BenefitState,
    BenefitStateForbids,
    HeldBenefit,
    PointsShort,
    catalogue,
    code_pools,
    expiry,
    redemptions,
    stock,
)
from loyalty.benefits.catalogue import AT_ONCE, CODED
from loyalty.benefits.offline import OFFLINE_GRACE
from loyalty.benefits.pool_files import Line
from loyalty.benefits.redemptions import ROLLBACK_WITHIN, Redemption, RollbackTooLate
from loyalty.benefits.tills import CouponAlreadyRedeemed, CouponExpired, CouponReversed, Till
from loyalty.ledger import FEN, MEGABYTES, POINTS, AccountId, InsufficientBalance, Purpose
from tests.simulation.choices import Choices
from tests.simulation.house import BRAND, BRAND_POT, GROUP_POT, SPENT_POINTS, Held, House, Ordered
from tests.simulation.rules import rule
from tests.simulation.rules_points import points_of

TILL = Till(uuid.UUID(int=77), {BRAND})
USABLE = (BenefitState.ISSUED, BenefitState.CLAIMED)
_MADE_OF = {BenefitKind.POINTS: POINTS, BenefitKind.DATA: MEGABYTES, BenefitKind.CASH: FEN}


def stock_of(benefit: Benefit) -> AccountId:
    return AccountId(benefit.benefit_id, stock.asset_of(benefit.benefit_id), Purpose.STOCK)


def issued_of(asset: str) -> AccountId:
    return AccountId(BRAND_POT, asset, Purpose.ISSUANCE)


def state_of(held: Held, house: House) -> BenefitState:
    over = held.expires_at is not None and held.expires_at <= house.now
    return BenefitState.EXPIRED if held.state in USABLE and over else held.state


@rule(5)
async def stock_up(house: House, choose: Choices) -> None:
    """More of a benefit; of a pool a file of codes, some of which are known or no codes."""
    benefit, count = choose.one_of(house.benefits), choose.number(1, 12)
    if benefit.kind == BenefitKind.POOL:
        return await _import(house, benefit, count)
    procured = house.new_id()
    await house.both(
        lambda session: stock.procure(session, benefit, count, procurement_id=procured, now=house.now),
        lambda _: house.post(procured, (issued_of(stock_of(benefit).asset), -count), (stock_of(benefit), count)),
    )
    return None


async def _import(house: House, benefit: Benefit, count: int) -> None:
    first = house.number()
    codes = [f"CODE-{first}-{number}" for number in range(count)] + [f"CODE-{first}-0", "no"]
    lines = [Line(number, code) for number, code in enumerate(codes, 1)]

    async def work(session: Session) -> code_pools.Chunk:
        file = await code_pools.begin(session, benefit, f"{first}.txt", first.to_bytes(32), house.now)
        chunk = await code_pools.add(session, house.vault, benefit, file, lines, 0, house.now)
        await code_pools.finish(session, file, house.now)
        return chunk

    def expected(chunk: code_pools.Chunk | None) -> None:
        assert chunk is not None
        assert (chunk.added, len(chunk.duplicates), len(chunk.refused)) == (count, 1, 1)
        house.post(house.new_id(), (issued_of(stock_of(benefit).asset), -count), (stock_of(benefit), count))

    await house.both(work, expected)


@rule(10)
async def obtain(house: House, choose: Choices) -> None:
    member_id, benefit, held_id = choose.one_of(house.acting()), choose.one_of(house.benefits), house.new_id()
    price = house.prices[benefit.benefit_id]

    async def work(session: Session) -> HeldBenefit:
        return await benefits.obtain(
            session,
            house.vault,
            obtain_id=held_id,
            member_id=member_id,
            benefit_id=benefit.benefit_id,
            now=house.now,
        )

    def expected(real: HeldBenefit | None) -> None:
        if not price:
            raise BenefitNotForTier("")
        _give(house, real, held_id, member_id, benefit, price)

    if await house.both(work, expected) is not None:
        house.again(work)


@rule(5)
async def grant(house: House, choose: Choices) -> None:
    member_id, benefit, held_id = choose.one_of(house.acting()), choose.one_of(house.benefits), house.new_id()

    async def work(session: Session) -> HeldBenefit:
        return await benefits.grant(
            session,
            house.vault,
            grant_id=held_id,
            member_id=member_id,
            benefit_id=benefit.benefit_id,
            why="birthday",
            now=house.now,
        )

    if await house.both(work, lambda real: _give(house, real, held_id, member_id, benefit, 0)) is not None:
        house.again(work)


def _give(
    house: House, real: HeldBenefit | None, held_id: uuid.UUID, member_id: uuid.UUID, benefit: Benefit, price: int
) -> None:
    had = house.had[member_id, benefit.benefit_id]
    if benefit.limit_total is not None and had >= benefit.limit_total:
        raise BenefitLimitReached("")
    held = Held(
        held_id,
        benefit,
        member_id,
        price,
        BenefitState.CLAIMED if price else BenefitState.ISSUED,
        catalogue.expiry(benefit, house.now),
    )
    moved = [(stock_of(benefit), -1), (held.account(Purpose.AVAILABLE), 1)]
    if price:
        moved += [(points_of(member_id), -price), (SPENT_POINTS, price)]
    try:
        house.post(held_id, *moved)
    except InsufficientBalance:
        if price and house.books.spendable(member_id, house.now) < price:
            raise PointsShort("") from None
        raise BenefitOutOfStock("") from None
    if benefit.limit_total is not None:
        house.had[member_id, benefit.benefit_id] += 1
    add_held(house, held, real)


def add_held(house: House, held: Held, real: HeldBenefit | None) -> None:
    """A benefit that a member was given, whoever paid."""
    house.held[held.held_id] = held
    if real is not None:
        held.code = real.code
    if held.benefit.kind in AT_ONCE:
        _use(house, held, derived_id("benefit", held.held_id, 2))


def _use(house: House, held: Held, transfer_id: uuid.UUID) -> None:
    asset, amount = _MADE_OF[BenefitKind(held.benefit.kind)], held.benefit.amount
    purpose = Purpose.AVAILABLE if asset == POINTS else Purpose.PENDING
    house.post(
        transfer_id,
        (held.account(Purpose.AVAILABLE), -1),
        (held.account(Purpose.REDEEMED), 1),
        (issued_of(asset), -amount),
        (AccountId(held.member_id, asset, purpose), amount),
        lots_expire_at=house.expiry() if asset == POINTS else None,
    )
    held.state = BenefitState.REDEEMED
    if asset != POINTS:
        order_id = derived_id("benefit-order", held.held_id)
        house.orders.append(Ordered(order_id, held.member_id, asset, amount, issued_of(asset)))


def _one_held(house: House, choose: Choices, *kinds: BenefitKind) -> Held | None:
    wanted = [held for held in house.held.values() if held.benefit.kind in kinds]
    usable = [held for held in wanted if held.state in USABLE]
    if not wanted:
        return None
    return choose.one_of(usable if usable and choose.number(0, 4) else wanted)


@rule(3)
async def show_code(house: House, choose: Choices) -> None:
    held = _one_held(house, choose, *CODED)
    if held is None:
        return

    def expected(real: HeldBenefit | None) -> None:
        assert real is not None
        if not held.shown and state_of(held, house) in USABLE:
            held.state, held.shown = BenefitState.CLAIMED, True
        if held.shown:
            assert real.code is not None
            held.code = real.code

    await house.both(
        lambda session: benefits.show(session, house.vault, held.member_id, held.held_id, house.now), expected
    )


@rule(8)
async def redeem(house: House, choose: Choices) -> None:
    held, redemption_id = _one_held(house, choose, *CODED), house.new_id()
    if held is None or held.code is None:
        return
    code = held.code

    async def work(session: Session) -> Redemption:
        return await redemptions.redeem(session, house.vault, TILL, code, redemption_id=redemption_id, now=house.now)

    def expected(_: object) -> None:
        state = state_of(held, house)
        if state is BenefitState.REDEEMED:
            raise CouponAlreadyRedeemed(house.now)
        if state is BenefitState.REVERSED:
            raise CouponReversed("")
        if state is BenefitState.EXPIRED:
            raise CouponExpired("")
        house.post(house.new_id(), (held.account(Purpose.AVAILABLE), -1), (held.account(Purpose.REDEEMED), 1))
        held.state, held.redeemed_at, held.redemption_id = BenefitState.REDEEMED, house.now, redemption_id

    if await house.both(work, expected) is not None:
        house.again(work)


@rule(3)
async def roll_back(house: House, choose: Choices) -> None:
    redeemed = [held for held in house.held.values() if held.redemption_id and held.state is BenefitState.REDEEMED]
    if not redeemed:
        return
    held = choose.one_of(redeemed[-3:] if choose.number(0, 3) else redeemed)
    redemption_id, redeemed_at = held.redemption_id, held.redeemed_at
    assert redemption_id is not None
    assert redeemed_at is not None

    async def work(session: Session) -> object:
        return await redemptions.roll_back(session, TILL, redemption_id, house.now)

    def expected(_: object) -> None:
        if redeemed_at < house.now - ROLLBACK_WITHIN:
            raise RollbackTooLate("")
        house.post(house.new_id(), (held.account(Purpose.REDEEMED), -1), (held.account(Purpose.AVAILABLE), 1))
        held.state, held.redemption_id = BenefitState.CLAIMED, None

    if await house.both(work, expected) is not None:
        house.again(work)


@rule(4)
async def take_back(house: House, choose: Choices) -> None:
    held = _one_held(house, choose, *BenefitKind)
    if held is None:
        return
    member_id, held_id = held.member_id, held.held_id

    async def work(session: Session) -> HeldBenefit:
        return await benefits.reverse(session, house.vault, member_id, held_id, house.now)

    def expected(_: object) -> None:
        if held.state is BenefitState.REVERSED:
            return
        state = state_of(held, house)
        order = next((one for one in house.orders if one.order_id == derived_id("benefit-order", held_id)), None)
        if state not in USABLE and not (state is BenefitState.REDEEMED and order is not None and order.at is None):
            raise BenefitStateForbids(state)
        was = Purpose.REDEEMED if state is BenefitState.REDEEMED else Purpose.AVAILABLE
        seen = held.benefit.kind == BenefitKind.POOL and held.shown
        lost = AccountId(GROUP_POT, held.asset, Purpose.EXPIRED)
        moved = [(held.account(was), -1), (lost if seen else stock_of(held.benefit), 1)]
        if held.points_paid:
            moved += [(SPENT_POINTS, -held.points_paid), (points_of(member_id), held.points_paid)]
        undoes = held_id if held.points_paid else None
        house.post(house.new_id(), *moved, lots_expire_at=_paid_till(house, held_id), undoes=undoes)
        held.state = BenefitState.REVERSED
        if held.benefit.kind == BenefitKind.POOL and not seen:
            held.code = None
        if house.had[member_id, held.benefit.benefit_id]:
            house.had[member_id, held.benefit.benefit_id] -= 1

    if await house.both(work, expected) is not None:
        house.again(work)


def _paid_till(house: House, held_id: uuid.UUID) -> datetime | None:
    """The last day of the points that paid a benefit, whoever paid with them; None: never."""
    days = [
        house.books.lots[member][lot_id].expires_at
        for (member, transfer_id), used in house.books.uses.items()
        if transfer_id == held_id
        for lot_id in used
    ]
    if not days:
        return house.expiry()
    return max((day for day in days if day is not None), default=None)


@rule(3)
async def open_packet(house: House, choose: Choices) -> None:
    held = _one_held(house, choose, BenefitKind.CASH)
    if held is None:
        return
    member_id, held_id = held.member_id, held.held_id

    async def work(session: Session) -> HeldBenefit:
        return await benefits.open_packet(session, house.vault, member_id, held_id, house.now)

    def expected(_: object) -> None:
        state = state_of(held, house)
        if state is BenefitState.REDEEMED:
            return
        if state not in USABLE:
            raise BenefitStateForbids(state)
        _use(house, held, house.new_id())

    if await house.both(work, expected) is not None:
        house.again(work)


@rule(2)
async def sweep_benefits(house: House, _choose: Choices) -> None:
    def expected(real: expiry.Swept | None) -> None:
        over = [
            held
            for held in house.held.values()
            if held.state in USABLE and held.expires_at is not None and held.expires_at <= house.now - OFFLINE_GRACE
        ]
        assert real == expiry.Swept(len(over), 0)
        for held in over:
            lost = AccountId(GROUP_POT, held.asset, Purpose.EXPIRED)
            house.post(house.new_id(), (held.account(Purpose.AVAILABLE), -1), (lost, 1))
            held.state = BenefitState.EXPIRED

    await house.both(lambda session: expiry.sweep(session, house.now, 100_000), expected)
