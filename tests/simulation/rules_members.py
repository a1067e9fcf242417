"""Members who become one and are parted again, and providers who tell what became of orders."""

import uuid
from itertools import groupby

from kit.db import Session
from kit.ids import derived_id
from loyalty import fulfilment, ledger, merges
from loyalty.fulfilment import Teller, Word
from loyalty.ledger import POINTS, AccountId, Purpose
from loyalty.merge_moves import Moved
from loyalty.merges import Approval, Merged, NewMerge
from tests.simulation.choices import Choices
from tests.simulation.house import House, Ordered, Union
from tests.simulation.rules import rule
from tests.simulation.rules_giving import USABLE, issued_of
from tests.simulation.rules_points import points_of

MERGED_MAX = 3
"""At once, so that there is always somebody to act."""


@rule(1)
async def join(house: House, _choose: Choices) -> None:
    async with house.database.writing() as session:
        await house.enrol(session)


@rule(2)
async def merge(house: House, choose: Choices) -> None:
    if len(house.active) - len(house.acting()) >= MERGED_MAX:
        return
    survivor = choose.one_of(house.acting())
    # Nobody whom others were merged into: whose belongings `gather` brings first would be left to chance.
    others = [one for one in house.acting() if one != survivor and one not in house.merged_into.values()]
    if not others:
        return
    merged, union_id = choose.one_of(others), house.new_id()
    new = NewMerge(union_id, survivor, merged, Approval.CODES)

    async def work(session: Session) -> Merged:
        return await merges.merge(session, new, house.now)

    def expected(_: object) -> None:
        union = Union(union_id, survivor, merged)
        _bring(house, union)
        for (campaign_id, member_id), claims in list(house.claims.items()):
            if member_id == merged:  # and parting gives nothing of it back
                house.claims[campaign_id, survivor] += claims
        house.merged_into[merged] = survivor
        house.unions.append(union)

    if await house.both(work, expected) is not None:
        house.again(work)


def _bring(house: House, union: Union) -> None:
    """What the merged member holds goes to the survivor."""
    moves: list[Moved] = []
    points = house.balance(points_of(union.merged))
    if points < 0:
        moves.append(Moved(POINTS, Purpose.AVAILABLE, points, None))
    else:
        lots = [lot for lot in house.books.lots[union.merged].values() if lot.left]
        live = [lot for lot in lots if lot.expires_at is None or lot.expires_at > house.now]
        by_expiry = sorted(live, key=lambda lot: (lot.expires_at is None, lot.expires_at))
        for expires_at, some in groupby(by_expiry, key=lambda lot: lot.expires_at):
            moves.append(Moved(POINTS, Purpose.AVAILABLE, sum(lot.left for lot in some), expires_at))
    usable = [held for held in house.held.values() if held.member_id == union.merged and held.state in USABLE]
    for asset in sorted({held.asset for held in usable}):
        count = sum(held.asset == asset for held in usable)
        moves.append(Moved(asset, Purpose.AVAILABLE, count, None))
    for number, move in enumerate(moves, len(union.moves)):
        transfer_id = derived_id("merge", union.merge_id, number)
        _post(house, transfer_id, union.merged, union.survivor, move)
        union.moves.append((house.now, transfer_id, move))
    for held in usable:
        held.member_id = union.survivor
        union.benefits.append(held.held_id)
    owed = house.owed.pop(union.merged, 0)
    house.owed[union.survivor] += owed
    union.owed += owed


def _post(
    house: House,
    transfer_id: uuid.UUID,
    from_id: uuid.UUID,
    to_id: uuid.UUID,
    move: Moved,
    undoes: uuid.UUID | None = None,
) -> None:
    house.post(
        transfer_id,
        (AccountId(from_id, move.asset, move.purpose), -move.amount),
        (AccountId(to_id, move.asset, move.purpose), move.amount),
        lots_expire_at=move.expires_at,
        undoes=undoes,
        moves_debt=move.amount < 0,
    )


@rule(2)
async def part(house: House, choose: Choices) -> None:
    together = [union for union in house.unions if not union.undone]
    if not together:
        return
    union = choose.one_of(together[-MERGED_MAX:])

    async def work(session: Session) -> Merged:
        return await merges.unmerge(session, union.survivor, union.merge_id, house.now)

    if await house.both(work, lambda _: _part(house, union)) is not None:
        house.again(work)


def _part(house: House, union: Union) -> None:
    survivor, merged = union.survivor, union.merged
    for _, transfer_id, move in sorted(union.moves, key=lambda moved: moved[:2]):
        if move.asset != POINTS:
            continue
        amount, expires_at = move.amount, house.expiry()
        if amount > 0:
            lot = house.books.lots[survivor].get(transfer_id)
            is_live = lot is not None and (lot.expires_at is None or lot.expires_at > house.now)
            amount, expires_at = lot.left if lot is not None and is_live else 0, move.expires_at
        if amount:
            back = Moved(move.asset, move.purpose, amount, expires_at)
            _post(house, derived_id("unmerge", transfer_id), survivor, merged, back, transfer_id)
    own = [house.held[held_id] for held_id in union.benefits]
    usable = [held for held in own if held.member_id == survivor and held.state in USABLE]
    for held in usable:
        move = Moved(held.asset, Purpose.AVAILABLE, 1, None)
        _post(house, house.new_id(), survivor, merged, move)
        held.member_id = merged
    owed = min(union.owed, house.owed[survivor])
    house.owed[survivor] -= owed
    house.owed[merged] += owed
    union.undone = True
    del house.merged_into[merged]


@rule(2)
async def gather(house: House, _choose: Choices) -> None:
    """What came to merged members since is brought to those who act for them."""

    def expected(_: object) -> None:
        for union in house.unions:
            if not union.undone:
                _bring(house, union)

    async def work(session: Session) -> None:
        member_id: uuid.UUID | None = uuid.UUID(int=0)
        while member_id is not None:
            member_id = await merges.stray_after(session, member_id)
            if member_id is not None:
                await merges.bring_stray(session, member_id, house.now)

    await house.both(work, expected)


@rule(12)
async def provider_tells(house: House, choose: Choices) -> None:
    """Something is told of an order, old news among it; also what nobody expects, such as failed after completed."""
    if not house.orders:
        return
    on_the_way = [order for order in house.orders if order.at is Purpose.PENDING]
    order = choose.one_of(on_the_way if on_the_way and choose.number(0, 3) else house.orders)
    words = (Word.ACCEPTED, Word.PENDING, Word.COMPLETED, Word.COMPLETED, Word.FAILED, Word.REVERSED)
    word, revision = choose.one_of(words), max(1, order.revision + choose.number(0, 2))
    report = fulfilment.Report(word, Teller.CALLBACK, revision)

    async def work(session: Session) -> int:
        paid_by = (await fulfilment.find(session, order.order_id)).refund_to
        before = await ledger.balances_of(session, [paid_by])
        await fulfilment.take(session, order.member_id, order.order_id, report, house.now)
        return before.get(paid_by, 0)

    def expected(stripe: int | None) -> None:
        assert stripe is not None
        if revision > order.revision:
            _hear(house, order, word, stripe)
            order.revision = revision

    # A provider's word is heard, whatever has become of the member and the budget meanwhile.
    assert await house.both(work, expected) is not None
    house.again(work)


def _hear(house: House, order: Ordered, word: Word, stripe: int) -> None:
    """`stripe` is what the very account held that paid: the books know of whole budgets only."""
    pending, delivered = (AccountId(order.member_id, order.asset, p) for p in (Purpose.PENDING, Purpose.DELIVERED))
    source = {Purpose.PENDING: pending, Purpose.DELIVERED: delivered, None: order.refund_to}[order.at]
    if word is Word.COMPLETED and order.at is not Purpose.DELIVERED:
        if order.at is None and source.purpose is not Purpose.ISSUANCE and stripe < order.amount:
            source = issued_of(order.asset)  # the budget has spent what came back to it
        house.post(house.new_id(), (source, -order.amount), (delivered, order.amount))
        order.at = Purpose.DELIVERED
    elif word in (Word.FAILED, Word.REVERSED) and order.at is not None:
        house.post(house.new_id(), (source, -order.amount), (order.refund_to, order.amount))
        order.at = None
