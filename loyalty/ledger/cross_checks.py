"""What the database itself can check of its ledger: transfers against entries, lots and holds against accounts."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Select, and_, case, cast, exists, func, literal, or_, union_all
from sqlalchemy import select as core_select
from sqlmodel import col, select

from kit.db import Session, table_of
from loyalty.ledger import holds
from loyalty.ledger.accounts import POINTS, Account, Purpose
from loyalty.ledger.entries import Entry, TransferRecord
from loyalty.ledger.holds import Hold, HoldState
from loyalty.ledger.lots import PointsLot, PointsLotUse
from loyalty.ledger.transfers import fingerprint

FAULTS_MAX = 100
"""Most faults of one kind that a report lists."""
_HOLDS_PAGE = 1_000

_account, _entry, _transfer = table_of(Account).c, table_of(Entry).c, table_of(TransferRecord).c
_hold, _lot, _use = table_of(Hold).c, table_of(PointsLot).c, table_of(PointsLotUse).c
_POINTS_ENTRY = and_(_entry.asset == POINTS, _entry.purpose == Purpose.AVAILABLE)


async def faults(session: Session) -> list[str]:
    """Every contradiction, in words; at most 100 of a kind."""
    connection = await session.connection()
    found: list[str] = []
    for check, told in _CHECKS:
        rows = await connection.execute(check().limit(FAULTS_MAX))
        found += [told(*row) for row in rows]
    return found + await _altered_holds(session)


def _transfers_of_entries() -> Select[Any]:
    moved = (
        core_select(
            _entry.transfer_id,
            _entry.asset,
            func.sum(_entry.amount).label("total"),
            func.min(_entry.at).label("first_at"),
            func.max(_entry.at).label("last_at"),
        )
        .group_by(_entry.transfer_id, _entry.asset)
        .subquery()
    )
    return (
        core_select(
            moved.c.transfer_id,
            moved.c.asset,
            moved.c.total,
            _transfer.transfer_id.is_(None),
            or_(moved.c.first_at != _transfer.at, moved.c.last_at != _transfer.at),
        )
        .select_from(moved.outerjoin(table_of(TransferRecord), _transfer.transfer_id == moved.c.transfer_id))
        .where(
            or_(
                moved.c.total != 0,
                _transfer.transfer_id.is_(None),
                moved.c.first_at != _transfer.at,
                moved.c.last_at != _transfer.at,
            )
        )
    )


def _told_of_transfer(transfer_id: object, asset: str, total: int, is_missing: bool, is_late: bool) -> str:
    if is_missing:
        return f"entries of transfer {transfer_id}, which is missing"
    if total:
        return f"transfer {transfer_id} sums to {total} {asset} instead of 0"
    return f"transfer {transfer_id} and its entries tell different times"


def _empty_transfers() -> Select[Any]:
    return core_select(_transfer.transfer_id).where(~exists().where(_entry.transfer_id == _transfer.transfer_id))


def _unsealed_transfers() -> Select[Any]:
    sealed = func.ledger_seal(_transfer.transfer_id, _transfer.fingerprint, _transfer.reason, _transfer.at)
    return core_select(_transfer.transfer_id).where(_transfer.seal != sealed)


def _members_whose_lots_differ() -> Select[Any]:
    nothing = cast(literal(0), BigInteger)
    both = union_all(
        core_select(_lot.member_id, _lot.left.label("lots"), nothing.label("balance")).where(_lot.left > 0),
        core_select(_account.holder_id, nothing, _account.balance).where(
            _account.asset == POINTS, _account.purpose == Purpose.AVAILABLE, _account.balance > 0
        ),
    ).subquery()
    lots, balance = func.sum(both.c.lots), func.sum(both.c.balance)
    return core_select(both.c.member_id, lots, balance).group_by(both.c.member_id).having(lots != balance)


def _lots_that_do_not_add_up() -> Select[Any]:
    out = (
        core_select(_use.member_id, _use.lot_id, func.sum(_use.amount - _use.returned).label("amount"))
        .group_by(_use.member_id, _use.lot_id)
        .subquery()
    )
    used_of = and_(out.c.member_id == _lot.member_id, out.c.lot_id == _lot.lot_id)
    brought = and_(_POINTS_ENTRY, _entry.holder_id == _lot.member_id, _entry.transfer_id == _lot.lot_id)
    # Of what came in, a debt was paid first; then what went back to older lots; the rest could be used.
    after, amount = _entry.balance_after, _entry.amount
    above_debt = case((after <= 0, 0), (after < amount, after), else_=amount)
    usable = case((above_debt > amount - _lot.amount, above_debt - amount + _lot.amount), else_=0)
    used = func.coalesce(out.c.amount, 0)
    return (
        core_select(_lot.member_id, _lot.lot_id, usable, used, _lot.left)
        .select_from(table_of(PointsLot).outerjoin(table_of(Entry), brought).outerjoin(out, used_of))
        .where(or_(amount.is_(None), amount < _lot.amount, _entry.at != _lot.earned_at, usable - used != _lot.left))
    )


def _told_of_lot(member_id: object, lot_id: object, usable: int | None, used: int, left: int) -> str:
    lot = f"points lot {lot_id} of member {member_id}"
    if usable is None:
        return f"{lot}: no entry brought it"
    return f"{lot}: {usable} points came in, {used} are used, and {left} left"


def _uses_of_no_lot() -> Select[Any]:
    same = and_(_lot.member_id == _use.member_id, _lot.lot_id == _use.lot_id)
    return core_select(_use.member_id, _use.lot_id).where(~exists().where(same))


def _debits_whose_uses_differ() -> Select[Any]:
    out = (
        core_select(_use.member_id, _use.transfer_id, func.sum(_use.amount).label("amount"))
        .group_by(_use.member_id, _use.transfer_id)
        .subquery()
    )
    same = and_(out.c.member_id == _entry.holder_id, out.c.transfer_id == _entry.transfer_id)
    # A debit uses what there was; the rest of a refund is a debt.
    before, used = _entry.balance_after - _entry.amount, func.coalesce(out.c.amount, 0)
    due = case((before <= 0, 0), (before < -_entry.amount, before), else_=-_entry.amount)
    return (
        core_select(_entry.holder_id, _entry.transfer_id, due, used)
        .select_from(table_of(Entry).outerjoin(out, same))
        .where(_POINTS_ENTRY, _entry.amount < 0, due != used)
    )


def _accounts_whose_holds_differ() -> Select[Any]:
    pending = core_select(_entry.holder_id, _entry.asset, -_entry.amount).join(
        table_of(Hold), _hold.transfer_id == _entry.transfer_id
    )
    both = union_all(
        core_select(_account.holder_id, _account.asset, _account.balance.label("amount")).where(
            _account.purpose == Purpose.HELD
        ),
        pending.where(_hold.state == HoldState.PENDING, _entry.purpose == Purpose.HELD),
    ).subquery()
    over = func.sum(both.c.amount)
    return core_select(both.c.holder_id, both.c.asset, over).group_by(both.c.holder_id, both.c.asset).having(over != 0)


_CHECKS: tuple[tuple[Callable[[], Select[Any]], Callable[..., str]], ...] = (
    (_transfers_of_entries, _told_of_transfer),
    (_empty_transfers, "transfer {} has no entries".format),
    (_unsealed_transfers, "transfer {}: its record was changed".format),
    (_members_whose_lots_differ, "points lots of member {} hold {}, his account {}".format),
    (_lots_that_do_not_add_up, _told_of_lot),
    (_uses_of_no_lot, "points of member {} were used of lot {}, which is missing".format),
    (_debits_whose_uses_differ, "points of member {}, transfer {}: {} were taken, {} of lots".format),
    (_accounts_whose_holds_differ, "held account of {}, {}: holds {:+} more than its pending holds took".format),
)


async def _altered_holds(session: Session) -> list[str]:
    """Pending holds whose legs are not those that were asked for."""
    found: list[str] = []
    after: Any = None
    while True:
        page = await session.exec(
            select(Hold, TransferRecord.fingerprint)
            .outerjoin(TransferRecord, col(TransferRecord.transfer_id) == Hold.transfer_id)
            .where(Hold.state == HoldState.PENDING, *([Hold.transfer_id > after] if after is not None else []))
            .order_by(col(Hold.transfer_id))
            .limit(_HOLDS_PAGE)
        )
        rows = page.all()
        if not rows or len(found) >= FAULTS_MAX:
            return found
        found += [
            f"hold {hold.transfer_id}: its legs were changed" for hold, asked in rows if not _as_asked(hold, asked)
        ]
        after = rows[-1][0].transfer_id
        for hold, _ in rows:
            session.expunge(hold)


def _as_asked(hold: Hold, asked: bytes | None) -> bool:
    try:
        return fingerprint(hold.transfer(), holds.KIND) == asked
    except (ValueError, TypeError):
        return False
