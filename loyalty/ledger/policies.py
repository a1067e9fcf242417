"""What a group does with its members' points: how long they live, and how deep a refund may leave a member in debt."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Integer, Uuid, column, table
from sqlmodel import Field, SQLModel, col, select

from kit.clock import CHINA
from kit.db import Session, insert
from kit.errors import Invalid
from loyalty.ledger.entries import AMOUNT_MAX

LIFETIME_MONTHS_MAX = 120

# The ledger knows of members only which group each is in.
_MEMBERS = table("member", column("member_id", Uuid()), column("group_id", Integer()))


class PolicyInvalid(Invalid):
    """A policy cannot be like this; the message names the limit."""

    code = "PolicyInvalid"


class PointsPolicy(SQLModel, table=True):
    """A group's policy; a group without a row has the default one. Small and read often: a reference table."""

    __tablename__: ClassVar[str] = "points_policy"
    __table_args__ = (
        CheckConstraint(f"lifetime_months BETWEEN 1 AND {LIFETIME_MONTHS_MAX}", name="lifetime_months"),
        CheckConstraint(f"debt_max_points BETWEEN 0 AND {AMOUNT_MAX}", name="debt_max_points"),
    )

    group_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    lifetime_months: int | None = None
    debt_max_points: int = Field(sa_type=BigInteger)


@dataclass(frozen=True)
class Policy:
    """Points live `lifetime_months`, None: for ever. A refund leaves a member owing at most `debt_max_points`."""

    lifetime_months: int | None = None
    debt_max_points: int = 0


async def policy_of(session: Session, group_id: int) -> Policy:
    """A group's policy: unless it was set, points live for ever and nobody owes any."""
    row = await session.get(PointsPolicy, group_id)
    return Policy(row.lifetime_months, row.debt_max_points) if row is not None else Policy()


async def set_policy(session: Session, group_id: int, policy: Policy) -> None:
    """Set a group's policy; points that were earned before keep their expiry. Raises PolicyInvalid."""
    months, debt = policy.lifetime_months, policy.debt_max_points
    if months is not None and not 1 <= months <= LIFETIME_MONTHS_MAX:
        raise PolicyInvalid(f"points live 1 to {LIFETIME_MONTHS_MAX} months, or for ever")
    if not 0 <= debt <= AMOUNT_MAX:
        raise PolicyInvalid(f"a refund leaves at most 0 to {AMOUNT_MAX} points of debt")
    values = {"lifetime_months": months, "debt_max_points": debt}
    await session.exec(
        insert(session, PointsPolicy)
        .values(group_id=group_id, **values)
        .on_conflict_do_update(index_elements=["group_id"], set_=values)
    )


def lot_expiry(policy: Policy, now: datetime) -> datetime | None:
    """When points earned now run out: the first moment, in China, of the month after `lifetime_months` months."""
    if policy.lifetime_months is None:
        return None
    local = now.astimezone(CHINA)
    years, month = divmod(local.month - 1 + policy.lifetime_months + 1, 12)
    return datetime(local.year + years, month + 1, 1, tzinfo=CHINA).astimezone(UTC)


async def group_of(session: Session, member_id: uuid.UUID) -> int | None:
    """The group that a member is in; None for a holder who is nobody's member."""
    found = await session.exec(select(_MEMBERS.c.group_id).where(_MEMBERS.c.member_id == member_id))
    group_id: int | None = found.first()
    return group_id


async def debt_max(session: Session, member_id: uuid.UUID) -> int:
    """How many points a refund may leave this member owing."""
    found = await session.exec(
        select(PointsPolicy.debt_max_points)
        .join(_MEMBERS, _MEMBERS.c.group_id == col(PointsPolicy.group_id))
        .where(_MEMBERS.c.member_id == member_id)
    )
    return found.first() or 0
