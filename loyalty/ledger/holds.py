"""Holds: transfers in two steps. What one takes leaves its accounts at once; what it brings comes when it is settled.

It is settled or released, and never both, however many try at the same time.
"""

import json
import uuid
from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, Text, text, update
from sqlmodel import Field, SQLModel, col

from kit.db import Moment, Session
from kit.errors import Conflict, NotFound
from kit.ids import derived_id
from loyalty.ledger import entries
from loyalty.ledger.accounts import LOCK_ORDER, AccountId, Purpose
from loyalty.ledger.transfers import (
    REASON_CHARACTERS_MAX,
    Leg,
    Posted,
    Posting,
    Transfer,
    TransferInvalid,
    check,
    fingerprint,
    leg_position,
    moved_by,
    post,
    posted_before,
)

KIND = "hold"


class HoldState(StrEnum):
    """What became of a hold."""

    PENDING = "pending"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class Release(StrEnum):
    """Why a hold is released."""

    VOIDED = "voided"
    """Somebody called it off."""
    EXPIRED = "expired"
    """Its time was over."""


class HoldUnknown(NotFound):
    """There is no such hold."""

    code = "HoldUnknown"


class HoldExpired(Conflict):
    """The hold's time is over; what it took goes back."""

    code = "HoldExpired"


class HoldResolved(Conflict):
    """The hold went the other way before: `state` says whether it was posted, voided or expired."""

    code = "HoldResolved"

    def __init__(self, state: HoldState) -> None:
        super().__init__(f"this hold was {state} before")
        self.state = state


class Hold(SQLModel, table=True):
    """A hold and the legs that were asked for. Distributed by its id, as its transfer's record is."""

    __tablename__: ClassVar[str] = "ledger_hold"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(str(state)) for state in HoldState)})", name="state"),
        CheckConstraint("(state = 'pending') = (resolved_at IS NULL)", name="resolved_at"),
        Index(
            "ix_ledger_hold_due",
            "expires_at",
            postgresql_where=text("state = 'pending'"),
            sqlite_where=text("state = 'pending'"),
        ),
    )

    transfer_id: uuid.UUID = Field(primary_key=True)
    reason: str = Field(sa_type=Text)
    legs: str = Field(sa_type=Text)
    """JSON, a list of [holder, asset, purpose, amount, [other holder, …]]."""
    lots_expire_at: datetime | None = Field(default=None, sa_type=Moment)
    state: str = Field(sa_type=Text)
    made_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    resolved_at: datetime | None = Field(default=None, sa_type=Moment)

    def transfer(self) -> Transfer:
        """The transfer that was asked for."""
        return Transfer(self.transfer_id, self.reason, read_legs(self.legs), self.lots_expire_at)


async def hold(session: Session, transfer: Transfer, now: datetime, expires_at: datetime) -> Posted:
    """Take what a transfer takes, and keep it in its holders' HELD accounts until `settle` or `release`.

    Raises what `post` raises, and TransferInvalid when it takes from accounts other than ISSUANCE, BUDGET, STOCK and
    AVAILABLE, brings to HELD, or would have expired already.
    """
    _check(transfer, now, expires_at)
    connection = await session.connection()
    asked = fingerprint(transfer, KIND)
    terms = (transfer.lots_expire_at, None, expires_at)
    if not await entries.claim(connection, transfer.transfer_id, asked, transfer.reason, now, *terms):
        return await posted_before(session, transfer, asked)
    posting = Posting(session, connection, now)
    held: Counter[AccountId] = Counter()
    for leg in sorted(transfer.legs, key=leg_position):
        if leg.amount < 0:
            moved = await posting.move(transfer, leg)
            held[_held(moved.account)] -= leg.amount
    for account in sorted(held):
        await posting.move(transfer, Leg(account, held[account]))
    after = await posting.finish()
    session.add(
        Hold(
            transfer_id=transfer.transfer_id,
            reason=transfer.reason,
            legs=_written(transfer.legs),
            lots_expire_at=transfer.lots_expire_at,
            state=HoldState.PENDING,
            made_at=now,
            expires_at=expires_at,
        )
    )
    await session.flush()
    return Posted(transfer.transfer_id, True, after)


def _check(transfer: Transfer, now: datetime, expires_at: datetime) -> None:
    check(transfer)
    if transfer.undoes is not None or transfer.may_owe or transfer.moves_debt:
        raise TransferInvalid("a hold neither undoes a transfer nor leaves a debt")
    if expires_at <= now:
        raise TransferInvalid("a hold expires after it is made")
    for leg in transfer.legs:
        # What is taken is locked before HELD is, as in every other transfer.
        if leg.amount < 0 and LOCK_ORDER[leg.account.purpose] >= LOCK_ORDER[Purpose.HELD]:
            raise TransferInvalid(f"a hold does not take from {leg.account.purpose} accounts")
        if leg.account.purpose is Purpose.HELD:
            raise TransferInvalid("a hold does not bring to held accounts")


async def settle(session: Session, transfer_id: uuid.UUID, now: datetime) -> Posted:
    """Bring what the hold promised; again is a no-op. Raises HoldUnknown, HoldExpired and HoldResolved."""
    resolved = await session.exec(
        update(Hold)
        .where(
            col(Hold.transfer_id) == transfer_id,
            col(Hold.state) == HoldState.PENDING,
            col(Hold.expires_at) > now,
        )
        .values(state=HoldState.POSTED, resolved_at=now)
        .returning(Hold)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    made: Hold | None = resolved.scalar_one_or_none()
    if made is None:
        made = await _resolved(session, transfer_id)
        if made.state == HoldState.PENDING:
            raise HoldExpired("this hold's time is over")
        if made.state != HoldState.POSTED:
            raise HoldResolved(HoldState(made.state))
    asked = made.transfer()
    gives = tuple(leg for leg in asked.legs if leg.amount > 0)
    takes = tuple(Leg(account, -amount) for account, amount in (await _held_by(session, asked)).items())
    reason = closing_reason(made.state, asked.reason)
    return await post(session, Transfer(closing(transfer_id), reason, takes + gives, asked.lots_expire_at), now)


async def release(session: Session, transfer_id: uuid.UUID, now: datetime, why: Release) -> Posted:
    """Give back what the hold took, points to their lots; again is a no-op. Raises HoldUnknown and HoldResolved."""
    resolved = await session.exec(
        update(Hold)
        .where(col(Hold.transfer_id) == transfer_id, col(Hold.state) == HoldState.PENDING)
        .values(state=why.value, resolved_at=now)
        .returning(Hold)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    made: Hold | None = resolved.scalar_one_or_none()
    if made is None:
        made = await _resolved(session, transfer_id)
        if made.state == HoldState.POSTED:
            raise HoldResolved(HoldState.POSTED)
    asked = made.transfer()
    moved = await moved_by(session, asked)
    legs = tuple(Leg(account, -amount) for account, (amount, _) in moved.items())
    reason = closing_reason(made.state, asked.reason)
    return await post(session, Transfer(closing(transfer_id), reason, legs, undoes=transfer_id), now)


async def _resolved(session: Session, transfer_id: uuid.UUID) -> Hold:
    found = await session.get(Hold, transfer_id, populate_existing=True)
    if found is None:
        raise HoldUnknown("no such hold")
    return found


async def _held_by(session: Session, asked: Transfer) -> dict[AccountId, int]:
    moved = await moved_by(session, asked)
    return {account: amount for account, (amount, _) in moved.items() if account.purpose is Purpose.HELD}


def closing(transfer_id: uuid.UUID) -> uuid.UUID:
    """The id of the transfer that settles or releases a hold."""
    # One id for either end: the ledger refuses the second should a hold ever be closed both ways.
    return derived_id("hold-closed", transfer_id)


def closing_reason(state: str, reason: str) -> str:
    """The reason of the transfer that settles or releases a hold."""
    return reason if state == HoldState.POSTED else f"{state}: {reason}"[:REASON_CHARACTERS_MAX]


def _held(account: AccountId) -> AccountId:
    return AccountId(account.holder_id, account.asset, Purpose.HELD)


def _written(legs: tuple[Leg, ...]) -> str:
    return json.dumps(
        [
            [
                str(leg.account.holder_id),
                leg.account.asset,
                leg.account.purpose,
                leg.amount,
                [str(other.holder_id) for other in leg.otherwise],
            ]
            for leg in legs
        ]
    )


def read_legs(legs: str) -> tuple[Leg, ...]:
    """The legs of a `Hold`. Raises ValueError or TypeError when they are none."""
    return tuple(
        Leg(
            AccountId(uuid.UUID(holder), asset, Purpose(purpose)),
            amount,
            tuple(AccountId(uuid.UUID(other), asset, Purpose(purpose)) for other in others),
        )
        for holder, asset, purpose, amount, others in json.loads(legs)
    )
