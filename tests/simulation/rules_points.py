"""Points: earned by buying, checking in and tasks, given back by refunds, set aside by holds, and run out."""

import uuid
from datetime import timedelta

from kit.db import Session
from kit.ids import derived_id
from loyalty import check_ins, ledger, programs, purchases, refunds, tasks
from loyalty.allowances import day_of
from loyalty.budgets import BudgetUsedUp
from loyalty.ledger import POINTS, AccountId, HoldState, Leg, Purpose, Release, Transfer
from loyalty.purchases import Buyer, NewPurchase
from loyalty.refunds import NewRefund, RefundTooLarge
from tests.simulation.choices import Choices
from tests.simulation.house import (
    BRAND,
    CHECK_IN,
    GROUP,
    ISSUED_POINTS,
    POLICY,
    SPENT_POINTS,
    TASK_POINTS,
    Bought,
    House,
    pot_of,
)
from tests.simulation.rules import rule

SHOP = uuid.UUID(int=77)
DONE_KEPT = 200
REFUNDABLE = 100
"""Purchases, the latest, that may be refunded."""
_SECONDS = (1, 60, 3_600, 7_200, 86_400, 5 * 86_400)


def points_of(member_id: uuid.UUID) -> AccountId:
    return AccountId(member_id, POINTS, Purpose.AVAILABLE)


@rule(4)
async def wait(house: House, choose: Choices) -> None:
    house.now += timedelta(seconds=choose.one_of(_SECONDS))


@rule(8)
async def again(house: House, choose: Choices) -> None:
    """Something is asked for again under the id that it had: nothing moves."""
    if house.done:
        await choose.one_of(house.done)()
        del house.done[:-DONE_KEPT]


@rule(14)
async def buy(house: House, choose: Choices) -> None:
    member_id = choose.one_of(house.active)
    new = NewPurchase(
        BRAND, GROUP, SHOP, f"R-{house.number()}", Buyer(member_id=member_id), paid_fen=choose.number(1, 6_000)
    )

    async def record(session: Session) -> purchases.Recorded:
        return await purchases.record(session, house.vault, new, house.now)

    def expected(_: object) -> None:
        buyer, points = house.acts_for(member_id), new.paid_fen // 100
        if points:
            house.post(
                new.purchase_id,
                (ISSUED_POINTS, -points),
                (points_of(buyer), points),
                lots_expire_at=house.expiry(),
            )
            repaid = min(house.owed[buyer], points, max(0, house.balance(points_of(buyer))))
            if repaid:
                owed_id = derived_id("points-owed", new.purchase_id)
                house.post(owed_id, (points_of(buyer), -repaid), (ISSUED_POINTS, repaid), undoes=new.purchase_id)
                house.owed[buyer] -= repaid
        house.bought.append(Bought(new, buyer, points))

    await house.both(record, expected)
    house.again(record)


@rule(8)
async def refund(house: House, choose: Choices) -> None:
    if not house.bought:
        return
    bought = choose.one_of(house.bought[-REFUNDABLE:])
    fen = choose.number(1, bought.new.paid_fen)
    made = NewRefund(bought.new.purchase_id, BRAND, f"B-{house.number()}", fen=fen)

    async def record(session: Session) -> refunds.Refunded:
        return await refunds.refund(session, made, house.now)

    def expected(_: object) -> None:
        paid = bought.new.paid_fen
        left = paid - bought.refunded_fen - fen
        if left < 0:
            raise RefundTooLarge("")
        holder = house.acts_for(bought.member_id)
        points = bought.points - bought.points * left // paid - bought.points_back
        taken = min(points, max(0, house.books.spendable(holder, house.now) + POLICY.debt_max_points))
        if taken:
            house.post(
                derived_id("refund", made.purchase_id, made.name),
                (points_of(holder), -taken),
                (ISSUED_POINTS, taken),
                undoes=made.purchase_id,
                may_owe=True,
            )
        house.owed[holder] += points - taken
        bought.refunded_fen += fen
        bought.points_back += points

    if await house.both(record, expected) is not None:
        house.again(record)


@rule(5)
async def hold_points(house: House, choose: Choices) -> None:
    member_id, amount = choose.one_of(house.acting()), choose.number(1, 60)
    transfer_id, hours = house.new_id(), choose.one_of((1, 30, 300))
    made_at = house.now

    def transfer(to: AccountId) -> Transfer:
        return Transfer(transfer_id, "held", (Leg(points_of(member_id), -amount), Leg(to, amount)))

    async def hold(session: Session) -> object:
        spent = ledger.spent(BRAND, member_id)
        return await ledger.hold(session, transfer(spent), made_at, made_at + timedelta(hours=hours))

    def expected(_: object) -> None:
        house.books.hold(transfer(SPENT_POINTS), made_at, made_at + timedelta(hours=hours))

    if await house.both(hold, expected) is not None:
        house.again(hold)


@rule(5)
async def end_hold(house: House, choose: Choices) -> None:
    pending = [key for key, (_, _, state) in house.books.holds.items() if state is HoldState.PENDING]
    others = list(house.books.holds)
    if not others:
        return
    transfer_id = choose.one_of(pending if pending and choose.number(0, 4) else others)
    settles = choose.number(0, 1) == 1

    async def end(session: Session) -> object:
        if settles:
            return await ledger.settle(session, transfer_id, house.now)
        return await ledger.release(session, transfer_id, house.now, Release.VOIDED)

    def expected(_: object) -> None:
        if settles:
            house.books.settle(transfer_id, house.now)
        else:
            house.books.release(transfer_id, house.now, Release.VOIDED)

    if await house.both(end, expected) is not None:
        house.again(end)


@rule(2)
async def expire_points(house: House, _choose: Choices) -> None:
    found = await house.both(
        lambda session: ledger.expire_due(session, house.now, 100_000),
        lambda real: _same(house.books.expire_due(house.now), real),
    )
    assert found is not None


def _same(expected: tuple[int, int], real: ledger.Expired | None) -> None:
    assert real is not None
    assert expected == (real.holds, real.lots)


@rule(4)
async def check_in(house: House, choose: Choices) -> None:
    member_id, program = choose.one_of(house.acting()), house.check_in
    assert program is not None
    program_id = program.program_id

    def expected(_: object) -> None:
        today = day_of(house.now)
        last, streak = house.streaks.get(member_id, (None, 0))
        if last == today:
            return
        streak = streak + 1 if last == today - timedelta(days=1) else 1
        house.post(
            derived_id("check-in", member_id, program_id, today),
            (ISSUED_POINTS, -CHECK_IN.earns(streak)),
            (points_of(member_id), CHECK_IN.earns(streak)),
            lots_expire_at=house.expiry(),
        )
        house.streaks[member_id] = today, streak

    await house.both(
        lambda session: check_ins.check_in(
            session, house.vault, member_id=member_id, program_id=program_id, device=None, now=house.now
        ),
        expected,
    )


@rule(4)
async def do_task(house: House, choose: Choices) -> None:
    member_id, program = choose.one_of(house.acting()), house.task
    assert program is not None
    budget, program_id, subject = programs.budget_of(program, POINTS), program.program_id, f"T-{house.number()}"
    assert budget is not None

    def expected(_: object) -> None:
        today = day_of(house.now)
        if (member_id, today) in house.tasks_done:
            return
        if house.balance(pot_of(budget)) < TASK_POINTS:
            raise BudgetUsedUp("")
        house.post(
            derived_id("task", member_id, program_id, today.isoformat()),
            (pot_of(budget), -TASK_POINTS),
            (points_of(member_id), TASK_POINTS),
            lots_expire_at=house.expiry(),
        )
        house.tasks_done.add((member_id, today))

    await house.both(
        lambda session: tasks.complete(
            session, house.vault, program_id=program_id, member_id=member_id, subject_id=subject, now=house.now
        ),
        expected,
    )
