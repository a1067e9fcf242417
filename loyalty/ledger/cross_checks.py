"""What is checked beside the walk through the entries: that transfers sum to zero, when lots expire, and holds."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, and_, exists, func, or_, union_all
from sqlalchemy import select as core_select

from kit.db import Session, table_of
from loyalty.ledger import holds
from loyalty.ledger.accounts import POINTS, Account, Purpose
from loyalty.ledger.entries import Entry, TransferRecord
from loyalty.ledger.holds import Hold, HoldState
from loyalty.ledger.lots import PointsLot
from loyalty.ledger.transfers import Transfer, fingerprint

FAULTS_MAX = 100
"""Most faults of one kind that a report lists."""
_HOLDS_PAGE = 1_000

_account, _entry, _transfer = table_of(Account).c, table_of(Entry).c, table_of(TransferRecord).c
_hold, _lot = table_of(Hold).c, table_of(PointsLot).c
_POINTS_ENTRY = and_(_entry.asset == POINTS, _entry.purpose == Purpose.AVAILABLE)


async def faults(session: Session) -> list[str]:
    """Every contradiction, in words; at most 100 of a kind."""
    connection = await session.connection()
    found: list[str] = []
    for check, told in _CHECKS:
        rows = await connection.execute(check().limit(FAULTS_MAX))
        found += [told(*row) for row in rows]
    return found + await _holds_that_differ(session)


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


def _lots_that_expire_otherwise() -> Select[Any]:
    return (
        core_select(_lot.member_id, _lot.lot_id)
        .join(table_of(TransferRecord), _transfer.transfer_id == _lot.lot_id)
        .where(_lot.expires_at.is_distinct_from(_transfer.lots_expire_at))
    )


def _missing_holds() -> Select[Any]:
    return core_select(_transfer.transfer_id).where(
        _transfer.held_until.is_not(None), ~exists().where(_hold.transfer_id == _transfer.transfer_id)
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
    (_lots_that_expire_otherwise, "points of member {}, lot {}: they expire when its transfer does not say".format),
    (_missing_holds, "hold {} is missing".format),
    (_accounts_whose_holds_differ, "held account of {}, {}: holds {:+} more than its pending holds took".format),
)


async def _holds_that_differ(session: Session) -> list[str]:
    """Holds that are not as they were asked for, or that went another way than the transfers say that close them."""
    connection = await session.connection()
    found: list[str] = []
    after: Any = None
    while len(found) < FAULTS_MAX:
        wanted = _ASKED.where(_hold.transfer_id > after) if after is not None else _ASKED
        rows = (await connection.execute(wanted)).all()
        if not rows:
            break
        closings = {holds.closing(row.transfer_id): row.transfer_id for row in rows}
        closed = await connection.execute(_CLOSED.where(_transfer.transfer_id.in_(closings)))
        ends = {closings[row.transfer_id]: row for row in closed}
        for row in rows:
            fault = _told_of_hold(row, ends.get(row.transfer_id))
            found += [f"hold {row.transfer_id}: {fault}"] if fault else []
        after = rows[-1].transfer_id
    return found


_ASKED = (
    core_select(
        *table_of(Hold).c,
        _transfer.fingerprint,
        _transfer.reason.label("said_reason"),
        _transfer.at.label("said_made_at"),
        _transfer.held_until.label("said_expires_at"),
        _transfer.lots_expire_at.label("said_lots_expire_at"),
    )
    .outerjoin(table_of(TransferRecord), _transfer.transfer_id == _hold.transfer_id)
    .order_by(_hold.transfer_id)
    .limit(_HOLDS_PAGE)
)
_CLOSED = core_select(_transfer.transfer_id, _transfer.reason, _transfer.at, _transfer.undoes)


def _told_of_hold(row: Any, end: Any) -> str:
    if not _as_asked(row):
        return "its legs were changed"
    says = (row.reason, row.made_at, row.expires_at, row.lots_expire_at)
    if says != (row.said_reason, row.said_made_at, row.said_expires_at, row.said_lots_expire_at):
        return "its reason or one of its times was changed"
    if row.state == HoldState.PENDING:
        return "it is pending, and was closed" if end is not None else ""
    if end is None:
        return f"it is {row.state}, and nothing closed it"
    undoes = None if row.state == HoldState.POSTED else row.transfer_id
    if (end.reason, end.at, end.undoes) != (holds.closing_reason(row.state, row.reason), row.resolved_at, undoes):
        return f"it is {row.state}, and went another way"
    return ""


def _as_asked(row: Any) -> bool:
    try:
        transfer = Transfer(row.transfer_id, row.reason, holds.read_legs(row.legs))
        return bool(fingerprint(transfer, holds.KIND) == row.fingerprint)
    except (ValueError, TypeError):
        return False
