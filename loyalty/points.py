"""A member's points as he sees them: what came and went, and what runs out next."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import tuple_
from sqlmodel import col, select

from kit.db import Session
from loyalty import ledger
from loyalty.ledger import POINTS, Entry, Purpose, TransferRecord


@dataclass(frozen=True, slots=True)
class Movement:
    """One entry of the member's points account: `amount` came (or went, below zero), and left `balance_after`."""

    number: int
    transfer_id: uuid.UUID
    at: datetime
    reason: str
    amount: int
    balance_after: int
    brand_id: int | None
    """The brand that gave or took them; None when a budget, an expiry or a correction did."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """So many points run out at this moment, unless they are used."""

    points: int
    at: datetime


async def movements(
    session: Session, member_id: uuid.UUID, brand_ids: Collection[int], before: int | None, count: int
) -> list[Movement]:
    """The member's entries, latest first, with numbers below `before`. `brand_ids` are those of his group."""
    asked = select(Entry).where(
        Entry.holder_id == member_id, Entry.asset == POINTS, Entry.purpose == Purpose.AVAILABLE.value
    )
    if before is not None:
        asked = asked.where(col(Entry.seq) < before)
    entries = (await session.exec(asked.order_by(col(Entry.seq).desc()).limit(count))).all()
    if not entries:
        return []
    transfer_ids = [entry.transfer_id for entry in entries]
    named = select(TransferRecord.transfer_id, TransferRecord.reason)
    reasons = dict((await session.exec(named.where(col(TransferRecord.transfer_id).in_(transfer_ids)))).all())
    brands = await _brands_behind(session, member_id, transfer_ids, brand_ids)
    return [
        Movement(
            entry.seq,
            entry.transfer_id,
            entry.at,
            reasons[entry.transfer_id],
            entry.amount,
            entry.balance_after,
            brands.get(entry.transfer_id),
        )
        for entry in entries
    ]


async def _brands_behind(
    session: Session, member_id: uuid.UUID, transfer_ids: Sequence[uuid.UUID], brand_ids: Collection[int]
) -> dict[uuid.UUID, int]:
    """Which brand's own account stands at the other end of a transfer."""
    # A brand's accounts are striped by what a transfer is about: its id, or the member.
    behind = {
        (ledger.issuance(brand_id, POINTS, spread).holder_id, transfer_id): brand_id
        for transfer_id in transfer_ids
        for brand_id in brand_ids
        for spread in (transfer_id, member_id)
    }
    if not behind:
        return {}
    found = await session.exec(
        select(Entry.holder_id, Entry.transfer_id).where(
            tuple_(col(Entry.holder_id), col(Entry.transfer_id)).in_(list(behind)),
            Entry.asset == POINTS,
            col(Entry.purpose).in_((Purpose.ISSUANCE.value, Purpose.SPENT.value)),
        )
    )
    return {transfer_id: behind[holder_id, transfer_id] for holder_id, transfer_id in found}


async def next_expiry(session: Session, member_id: uuid.UUID, now: datetime) -> Expiry | None:
    """What runs out first; None when nothing does."""
    lots = await ledger.lots_of(session, member_id, now)
    if not lots or lots[0].expires_at is None:
        return None
    first = lots[0].expires_at
    return Expiry(sum(lot.left for lot in lots if lot.expires_at == first), first)
