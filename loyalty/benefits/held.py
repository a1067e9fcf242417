"""Benefits in members' hands: their states, every step of their lives, and the one way from state to state."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    insert,
    text,
    update,
)
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, table_of
from kit.errors import Conflict, NotFound
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import ledger
from loyalty.benefits import coupon_codes
from loyalty.benefits.catalogue import BenefitKind
from loyalty.benefits.stock import asset_of
from loyalty.ledger import AccountId, Leg, Purpose, Transfer

HELD_LISTED_MAX = 200
WHY_CHARACTERS_MAX = 80


class BenefitState(StrEnum):
    """Where a held benefit is in its life. Time makes `expired` before the sweep writes it down."""

    ISSUED = "issued"
    """Written out for the member, who has not looked at it yet."""
    CLAIMED = "claimed"
    """The member took it: he bought it or looked at its code."""
    RESERVED = "reserved"
    """Set aside for a till's basket, or a thing on its way to the member."""
    REDEEMED = "redeemed"
    EXPIRED = "expired"
    REVERSED = "reversed"
    """Taken back, with the points that it cost given back."""


class Step(StrEnum):
    """What happened to a held benefit; `released` and `rolled_back` lead back."""

    ISSUED = "issued"
    CLAIMED = "claimed"
    RESERVED = "reserved"
    RELEASED = "released"
    REDEEMED = "redeemed"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"
    REVERSED = "reversed"


USABLE = frozenset({BenefitState.ISSUED, BenefitState.CLAIMED})
LIVE = USABLE | {BenefitState.RESERVED}
_LIVE_ROWS = text("status IN ('issued', 'claimed', 'reserved') AND expires_at IS NOT NULL")


class HeldBenefitUnknown(NotFound):
    """The member holds no such benefit."""

    code = "HeldBenefitUnknown"


class BenefitStateForbids(Conflict):
    """The held benefit is past that, or not yet there. `state` says where it is."""

    code = "BenefitStateForbids"

    def __init__(self, state: str, hint: str = "") -> None:
        super().__init__(f"this benefit is {state}", hint=hint)
        self.state = state


class MemberBenefit(SQLModel, table=True):
    """A benefit of a member. It keeps the words and the value under which it was issued."""

    __tablename__: ClassVar[str] = "member_benefit"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(state)) for state in BenefitState)})", name="status"),
        CheckConstraint("(status = 'redeemed') = (redeemed_at IS NOT NULL)", name="redeemed_at"),
        CheckConstraint("value_fen >= 0 AND points_paid >= 0 AND amount > 0", name="amounts"),
        CheckConstraint("(code_sealed IS NULL) = (code_fingerprint IS NULL)", name="code"),
        Index("ix_member_benefit_code_fingerprint", "code_fingerprint"),
        Index("ix_member_benefit_expiry", "expires_at", postgresql_where=_LIVE_ROWS, sqlite_where=_LIVE_ROWS),
        Index(
            "ix_member_benefit_reserved",
            "reserved_until",
            postgresql_where=text("reserved_until IS NOT NULL"),
            sqlite_where=text("reserved_until IS NOT NULL"),
        ),
        Index("ix_member_benefit_benefit_id", "benefit_id"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    held_id: uuid.UUID = Field(primary_key=True)
    benefit_id: uuid.UUID
    brand_id: int
    group_id: int
    kind: str = Field(sa_type=Text)
    text_zh: str = Field(sa_type=Text)
    text_en: str = Field(sa_type=Text)
    amount: int = Field(sa_type=BigInteger)
    value_fen: int = Field(sa_type=BigInteger)
    points_paid: int = Field(sa_type=BigInteger)
    paid_by: uuid.UUID | None = None
    """Whose points paid: also when he was merged into another one since."""
    stackable: bool
    why: str = Field(sa_type=Text)
    code_fingerprint: bytes | None = Field(default=None, sa_type=LargeBinary)
    code_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    status: str = Field(sa_type=Text)
    turn: int
    """Number of its last step: who changes the state names the turn that he saw, so nobody acts on an old state."""
    issued_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    shown_at: datetime | None = Field(default=None, sa_type=Moment)
    redeemed_at: datetime | None = Field(default=None, sa_type=Moment)
    redeemed_by: uuid.UUID | None = None
    reserved_until: datetime | None = Field(default=None, sa_type=Moment)
    basket_id: uuid.UUID | None = None

    def state_at(self, now: datetime) -> BenefitState:
        """The state as time has it: over when the time is over, free when the reservation is."""
        state = BenefitState(self.status)
        if state is BenefitState.RESERVED and self.reserved_until is not None and self.reserved_until <= now:
            state = BenefitState.CLAIMED
        if state in USABLE and self.expires_at is not None and self.expires_at <= now:
            return BenefitState.EXPIRED
        return state

    def account(self, purpose: Purpose) -> AccountId:
        """The member's account of this benefit."""
        return AccountId(self.member_id, asset_of(self.benefit_id), purpose)

    def transfer_id(self, turn: int) -> uuid.UUID:
        """The id of the transfer that a step made, under which it is made once."""
        return self.held_id if turn == 0 else derived_id("benefit", self.held_id, turn)


class BenefitStep(SQLModel, table=True):
    """One step in the life of a held benefit. Append-only: a way back is a step too."""

    __tablename__: ClassVar[str] = "benefit_step"
    __table_args__ = (
        CheckConstraint(f"step IN ({', '.join(repr(str(step)) for step in Step)})", name="step"),
        Index("ix_benefit_step_benefit_id_step_at", "benefit_id", "step", "at"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    held_id: uuid.UUID = Field(primary_key=True)
    turn: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    benefit_id: uuid.UUID
    brand_id: int
    step: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    by: uuid.UUID | None = None
    """The till or key that did it; None: the member, or the server itself."""


@dataclass(frozen=True)
class HeldBenefit:
    """A benefit as its member may see it. `code` is missing for kinds without one, and till a pool's code is shown."""

    held_id: uuid.UUID
    benefit_id: uuid.UUID
    brand_id: int
    kind: BenefitKind
    text_zh: str
    text_en: str
    amount: int
    value_fen: int
    points_paid: int
    code: str | None
    state: BenefitState
    issued_at: datetime
    expires_at: datetime | None
    redeemed_at: datetime | None
    reserved_until: datetime | None
    is_new: bool = False


_ADDING_STEP = insert(table_of(BenefitStep))


async def record(
    session: Session,
    held: MemberBenefit,
    first_turn: int,
    steps: Sequence[Step],
    at: datetime,
    now: datetime,
    by: uuid.UUID | None = None,
) -> None:
    """Write steps down, the first under `first_turn`. `at` is when they happened, `now` when that became known."""
    rows = [
        {
            "member_id": held.member_id,
            "held_id": held.held_id,
            "turn": first_turn + number,
            "benefit_id": held.benefit_id,
            "brand_id": held.brand_id,
            "step": step,
            "at": at,
            "recorded_at": now,
            "by": by,
        }
        for number, step in enumerate(steps)
    ]
    await session.exec(_ADDING_STEP, params=rows)


async def advance(
    session: Session,
    held: MemberBenefit,
    to: BenefitState,
    step: Step,
    now: datetime,
    *,
    at: datetime | None = None,
    by: uuid.UUID | None = None,
    **values: Any,
) -> MemberBenefit | None:
    """Change the state of a held benefit that nobody changed since it was read; None: somebody did, so read again.

    `values` are columns to set beside it.
    """
    changed = await session.exec(
        update(MemberBenefit)
        .where(
            col(MemberBenefit.member_id) == held.member_id,
            col(MemberBenefit.held_id) == held.held_id,
            col(MemberBenefit.turn) == held.turn,
        )
        .values(status=to, turn=held.turn + 1, **values)
        .returning(MemberBenefit)
        .execution_options(synchronize_session=False)
    )
    after: MemberBenefit | None = changed.scalar_one_or_none()
    if after is not None:
        apart(session, after)
        await record(session, after, after.turn, [step], at or now, now, by)
    return after


async def move(
    session: Session, held: MemberBenefit, source: AccountId, target: AccountId, reason: str, now: datetime
) -> None:
    """Move one of the benefit between accounts, under the id of the step that was just made."""
    legs = (Leg(source, -1), Leg(target, 1))
    await ledger.post(session, Transfer(held.transfer_id(held.turn), reason, legs), now)


def apart(session: Session, held: MemberBenefit) -> MemberBenefit:
    """The row as it was read: while the session keeps it, the next statement about it would change it."""
    session.expunge(held)
    return held


async def find_row(session: Session, member_id: uuid.UUID, held_id: uuid.UUID) -> MemberBenefit | None:
    """The held benefit as it is now; None: the member holds no such."""
    held = await session.get(MemberBenefit, (member_id, held_id))
    return apart(session, held) if held is not None else None


async def row_of(session: Session, member_id: uuid.UUID, held_id: uuid.UUID) -> MemberBenefit:
    """The held benefit as it is now. Raises HeldBenefitUnknown."""
    held = await find_row(session, member_id, held_id)
    if held is None:
        raise HeldBenefitUnknown("you hold no such benefit")
    return held


def shown(vault: Vault, held: MemberBenefit, now: datetime, *, is_new: bool = False) -> HeldBenefit:
    """The held benefit as its member may see it."""
    visible = held.code_sealed is not None and (held.kind != BenefitKind.POOL or held.shown_at is not None)
    code = coupon_codes.unseal(vault, held.code_sealed, held.held_id) if visible and held.code_sealed else None
    return HeldBenefit(
        held_id=held.held_id,
        benefit_id=held.benefit_id,
        brand_id=held.brand_id,
        kind=BenefitKind(held.kind),
        text_zh=held.text_zh,
        text_en=held.text_en,
        amount=held.amount,
        value_fen=held.value_fen,
        points_paid=held.points_paid,
        code=coupon_codes.show_code(code) if code and held.kind == BenefitKind.COUPON else code,
        state=held.state_at(now),
        issued_at=held.issued_at,
        expires_at=held.expires_at,
        redeemed_at=held.redeemed_at,
        reserved_until=held.reserved_until if held.status == BenefitState.RESERVED else None,
        is_new=is_new,
    )


async def held_of(
    session: Session, vault: Vault, member_id: uuid.UUID, held_id: uuid.UUID, now: datetime
) -> HeldBenefit:
    """One of the member's benefits. Raises HeldBenefitUnknown."""
    return shown(vault, await row_of(session, member_id, held_id), now)


async def held_by(session: Session, vault: Vault, member_id: uuid.UUID, now: datetime) -> list[HeldBenefit]:
    """The member's benefits, at most 200: those that can still be used first, the latest in front."""
    rows = await session.exec(
        select(MemberBenefit)
        .where(MemberBenefit.member_id == member_id)
        .order_by(
            col(MemberBenefit.status).in_(LIVE).desc(),
            col(MemberBenefit.issued_at).desc(),
            col(MemberBenefit.held_id).desc(),
        )
        .limit(HELD_LISTED_MAX)
    )
    return [shown(vault, held, now) for held in rows]


def append_only_ddl(dialect: str) -> list[str]:
    """Statements that make the database itself refuse to change or delete steps; `dialect`: sqlite or postgresql.

    `SQLModel.metadata.create_all` runs them; a migration has to, after it made the table.
    """
    if dialect == "postgresql":
        return [
            "CREATE OR REPLACE FUNCTION benefit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'steps of benefits are append-only'; END $$",
            "CREATE TRIGGER benefit_step_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON benefit_step "
            "FOR EACH STATEMENT EXECUTE FUNCTION benefit_refuse_change()",
        ]
    return [
        f"CREATE TRIGGER benefit_step_no_{verb.lower()} BEFORE {verb} ON benefit_step "
        "BEGIN SELECT RAISE(ABORT, 'steps of benefits are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ]


@event.listens_for(SQLModel.metadata, "after_create")
def _make_append_only(_metadata: MetaData, connection: Connection, tables: Sequence[Table], **_options: object) -> None:
    if any(table.name == BenefitStep.__tablename__ for table in tables):
        for statement in append_only_ddl(connection.dialect.name):
            connection.exec_driver_sql(statement)
