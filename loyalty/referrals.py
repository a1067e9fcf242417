"""Referrals: a member's link brings a friend into the group, and both are given a prize, once.

A friend must have joined the group after the link was made, and so after the member who shares it. That alone makes
rings impossible: every referral leads from an older member to a younger one.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import Text
from sqlmodel import Field, SQLModel, col, func, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, NotFound
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, members, prizes, programs
from loyalty.budgets import Budget
from loyalty.ledger import AccountId
from loyalty.members import Member
from loyalty.prizes import Given, Prize, PrizeKind
from loyalty.programs import Program, ProgramKind

CODE_CHARACTERS = 16
"""80 bits of a keyed hash: nobody guesses a code, and it tells nothing of its member."""
WINDOW_HOURS_MAX = 24 * 90
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_CODE = re.compile(f"[{_ALPHABET}]{{{CODE_CHARACTERS}}}")


class ReferralUnknown(NotFound):
    """There is no such link, or it is of another group."""

    code = "ReferralUnknown"


class ReferralRefused(Conflict):
    """This friend cannot be referred by this member; the message says why."""

    code = "ReferralRefused"


class ReferralLink(SQLModel, table=True):
    """A member's link of one program, found by its code."""

    __tablename__: ClassVar[str] = "referral_link"

    code: str = Field(primary_key=True, sa_type=Text)
    program_id: uuid.UUID
    member_id: uuid.UUID
    device_id: uuid.UUID | None = None
    """The holder of the allowances of the device that made the link; see `allowances.device_holder`."""
    created_at: datetime = Field(sa_type=Moment)


class Referral(SQLModel, table=True):
    """A friend who joined by a link: once in a program, whoever's link it was."""

    __tablename__: ClassVar[str] = "referral"

    member_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID = Field(primary_key=True)
    referrer_id: uuid.UUID = Field(index=True)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class ReferralRules:
    """Both prizes; how long after enrolling a friend counts as new; how many friends bring one member a prize."""

    kind: ClassVar[ProgramKind] = ProgramKind.REFERRAL

    referrer: Prize
    friend: Prize
    window_hours: int
    member_day: int | None = None
    member_all: int | None = None
    device_day: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "ReferralRules":
        """Raises PrizeInvalid, and what a document of another form makes Python raise."""
        given = {name: programs.read_prize(document[name]) for name in ("referrer", "friend")}
        return cls(**{**document, **given})

    def document(self) -> dict[str, Any]:
        return {
            "referrer": programs.prize_document(self.referrer),
            "friend": programs.prize_document(self.friend),
            "window_hours": self.window_hours,
            "member_day": self.member_day,
            "member_all": self.member_all,
            "device_day": self.device_day,
        }

    def check(self) -> None:
        self.referrer.check()
        self.friend.check()
        nothing = PrizeKind.NOTHING
        programs.require(
            [
                ("referrer and friend: one prize at least", self.referrer.kind is self.friend.kind is nothing),
                (f"window_hours: 1 to {WINDOW_HOURS_MAX}", not 1 <= self.window_hours <= WINDOW_HOURS_MAX),
                programs.limit_fault("member_day", self.member_day),
                programs.limit_fault("member_all", self.member_all),
                programs.limit_fault("device_day", self.device_day),
            ]
        )

    def costs(self) -> Mapping[str, int]:
        return programs.costs_of(self.referrer, self.friend)

    def largest(self) -> int:
        return 1

    @property
    def event(self) -> str:
        return ""


@dataclass(frozen=True)
class Joined:
    """What a referral gave: to the friend, and to the member who shared. Both None when it was made before."""

    program_id: uuid.UUID
    friend: Given | None
    referrer: Given | None
    is_new: bool


@dataclass(frozen=True)
class Shared:
    """A member's link, and how many friends came by it."""

    program: Program
    code: str
    friends: int


def rules_of(program: Program) -> ReferralRules:
    return ReferralRules.read(program.rules)


async def link_of(
    session: Session, vault: Vault, *, member_id: uuid.UUID, program_id: uuid.UUID, device: str | None, now: datetime
) -> Shared:
    """The member's link, made now unless he has one. Raises ProgramUnknown, ProgramNotOpen and CardNeeded."""
    program = await programs.open_for(session, program_id, member_id, ProgramKind.REFERRAL, now)
    code = _code(vault, member_id, program_id)
    holder = None if device is None else allowances.device_holder(device)
    row = {"code": code, "program_id": program_id, "member_id": member_id, "device_id": holder, "created_at": now}
    await session.exec(insert(session, ReferralLink).values(row).on_conflict_do_nothing())
    friends = await session.exec(
        select(func.count())
        .select_from(Referral)
        .where(Referral.referrer_id == member_id, Referral.program_id == program_id)
    )
    return Shared(program, code, friends.one())


def _code(vault: Vault, member_id: uuid.UUID, program_id: uuid.UUID) -> str:
    number = int.from_bytes(vault.fingerprint("referral-link", f"{program_id}\x00{member_id}")[:10], "big")
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in range(CODE_CHARACTERS))


async def program_of(session: Session, code: str) -> Program:
    """The program of a link, for whoever opens it. Raises ReferralUnknown."""
    return await programs.get(session, (await _link(session, code)).program_id)


async def _link(session: Session, code: str) -> ReferralLink:
    # A text with a NUL is none that PostgreSQL can look for.
    link = await session.get(ReferralLink, code) if _CODE.fullmatch(code) else None
    if link is None:
        raise ReferralUnknown("no such link", hint="Ask your friend to send it again.")
    return link


async def join(
    session: Session, vault: Vault, *, code: str, friend_id: uuid.UUID, device: str | None, now: datetime
) -> Joined:
    """A friend, who is a member by now, came by a link: both get their prizes, once.

    Raises ReferralUnknown, ReferralRefused, ProgramNotOpen, CardNeeded, AllowanceUsedUp, BudgetUsedUp and what
    `prizes.give` raises; the caller's transaction must then be rolled back.
    """
    link = await _link(session, code)
    program = await programs.open_for(session, link.program_id, friend_id, ProgramKind.REFERRAL, now)
    if await _made_before(session, program, link, friend_id):
        return Joined(program.program_id, None, None, is_new=False)
    rules = rules_of(program)
    await _check_friend(session, rules, link, friend_id, device, now)
    row = {"member_id": friend_id, "program_id": program.program_id, "referrer_id": link.member_id, "at": now}
    taken = await session.exec(
        insert(session, Referral).values(row).on_conflict_do_nothing().returning(col(Referral.member_id))
    )
    if taken.first() is None:  # the same friend at the same time
        raise ReferralRefused("you came by a link already")
    await _count(session, rules, program, link, device, now)
    return await _give_both(session, vault, program, rules, link, friend_id, now)


async def _made_before(session: Session, program: Program, link: ReferralLink, friend_id: uuid.UUID) -> bool:
    earlier = await session.get(Referral, (friend_id, program.program_id))
    if earlier is not None and earlier.referrer_id != link.member_id:
        raise ReferralRefused("you came by another friend's link already")
    return earlier is not None


async def _check_friend(
    session: Session,
    rules: ReferralRules,
    link: ReferralLink,
    friend_id: uuid.UUID,
    device: str | None,
    now: datetime,
) -> None:
    # One person may be several members that were merged; everybody in the family is the sharer himself.
    own = await members.family_of(session, await acting_for(session, link.member_id))
    if await acting_for(session, friend_id) in own or friend_id in own:
        raise ReferralRefused("this is your own link", hint="Send it to a friend.")
    friend = await members.get(session, friend_id)
    if friend.created_at <= link.created_at:
        raise ReferralRefused("this is for those who are new, and you were a member before the link was made")
    if now - friend.created_at > timedelta(hours=rules.window_hours):
        raise ReferralRefused("this is for those who are new", hint=f"It had to be within {rules.window_hours} hours.")
    if device is not None and allowances.device_holder(device) == link.device_id:
        raise ReferralRefused("the link was made on this very device")


async def acting_for(session: Session, member_id: uuid.UUID) -> uuid.UUID:
    """The member himself, or the one whom he was merged into, at the end of the chain."""
    seen = {member_id}
    while True:
        found = await session.exec(select(Member.merged_into).where(Member.member_id == member_id))
        into = found.first()
        if into is None or into in seen:
            return member_id
        seen.add(into)
        member_id = into


async def _count(
    session: Session,
    rules: ReferralRules,
    program: Program,
    link: ReferralLink,
    device: str | None,
    now: datetime,
) -> None:
    subject, today = program.program_id, allowances.day_of(now).isoformat()
    if rules.member_all is not None:
        await allowances.take(session, link.member_id, subject, allowances.IN_ALL, rules.member_all)
    if rules.member_day is not None:
        await allowances.take(session, link.member_id, subject, today, rules.member_day)
    await allowances.take_for_device(session, device, subject, rules.device_day, now)


async def _give_both(
    session: Session,
    vault: Vault,
    program: Program,
    rules: ReferralRules,
    link: ReferralLink,
    friend_id: uuid.UUID,
    now: datetime,
) -> Joined:
    given = []
    # The friend first, always: he is the younger of the two, so that no two referrals lock two members crosswise.
    for who, member_id, prize in (("friend", friend_id, rules.friend), ("referrer", link.member_id, rules.referrer)):
        given.append(
            await prizes.give(
                session,
                vault,
                grant_id=derived_id("referral", program.program_id, friend_id, who),
                member_id=member_id,
                group_id=program.group_id,
                brand_id=program.brand_id,
                prize=prize,
                budget=_pair_budget(program, prize.asset, friend_id),
                reason=f"referral, {who}",
                now=now,
                spread=friend_id,
            )
        )
    return Joined(program.program_id, given[0], given[1], is_new=True)


@dataclass(frozen=True)
class _PairBudget(Budget):
    """A budget from which both prizes of a pair are taken at the same stripe first.

    It was funded in whole pairs, so the stripe that paid the first pays the second as well: nobody waits for a second
    stripe while he holds one.
    """

    first: int = 0

    def starting_at(self, spread: int) -> tuple[AccountId, ...]:
        return super().starting_at(self.first)


def _pair_budget(program: Program, asset: str, friend_id: uuid.UUID) -> Budget | None:
    budget = programs.budget_of(program, asset)
    return None if budget is None else _PairBudget(budget.budget_id, asset, budget.stripes, friend_id.int)


async def offered_to(session: Session, member_id: uuid.UUID, now: datetime) -> list[Program]:
    """The referral programs that a member can use now."""
    return await programs.running_for(session, member_id, ProgramKind.REFERRAL, now)
