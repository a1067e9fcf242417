"""Sandboxes: groups of make-believe, where app and till makers try everything and nothing leaves the house.

A sandbox's members are no people: their one-time codes are shown and never sent, their orders are never placed with a
carrier. The group alone decides; whatever belongs to it is of the sandbox.
"""

from datetime import datetime
from typing import ClassVar
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Engine, Integer, Text, delete
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from loyalty.members import Member
from loyalty.sign_in import MemberSession


class SandboxGroup(SQLModel, table=True):
    """A group of make-believe. A retired one was replaced by a fresh one of its name, and is nobody's any more."""

    __tablename__: ClassVar[str] = "sandbox_group"

    group_id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    name: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    retired_at: datetime | None = Field(default=None, sa_type=Moment)


# By the engine: one process may serve several databases, as tests do.
_known: WeakKeyDictionary[Engine, dict[int, bool]] = WeakKeyDictionary()


async def make(session: Session, group_id: int, name: str, now: datetime) -> None:
    """Say that a new group is a sandbox. Only in the transaction that makes the group: it can't become one later."""
    await session.exec(insert(session, SandboxGroup).values(group_id=group_id, name=name, created_at=now))


async def is_sandbox(session: Session, group_id: int) -> bool:
    """Whether the group is one of make-believe. What was found once is remembered, for it never changes."""
    known = _known.setdefault(session.get_bind().engine, {})
    if group_id not in known:
        found = await session.exec(select(SandboxGroup.group_id).where(SandboxGroup.group_id == group_id))
        known[group_id] = found.first() is not None
    return known[group_id]


async def current(session: Session, name: str) -> SandboxGroup | None:
    """The sandbox of that name that is in use."""
    found = await session.exec(
        select(SandboxGroup).where(SandboxGroup.name == name, col(SandboxGroup.retired_at).is_(None))
    )
    return found.first()


async def retire(session: Session, old: SandboxGroup, now: datetime) -> None:
    """End a sandbox: its members are signed out for good. What was booked stays, for the ledger is append-only."""
    old.retired_at = now
    session.add(old)
    gone = select(Member.member_id).where(Member.group_id == old.group_id)
    await session.exec(delete(MemberSession).where(col(MemberSession.member_id).in_(gone)))
