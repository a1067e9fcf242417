"""Merging two members of a group into one, and parting them again: a shopper who changed his number is one person.

The one who stays acts for both: the other's number signs in to him, and what it held moves to him by transfers. Every
transfer is noted, so that parting moves back what is still there; what was spent since stays spent by the one who
stayed. The other's own record, key and cards are kept as they were. See docs/loyalty/members.md.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import structlog
from sqlalchemy import exists, update
from sqlmodel import col, or_, select

from kit.clock import Clock
from kit.db import Database, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import derived_id
from loyalty import members, merge_moves, sign_in, tier_merges
from loyalty.benefits.held import USABLE, MemberBenefit
from loyalty.claims import ClaimCount
from loyalty.ledger import Account
from loyalty.members import Card, Member, MemberUnknown, PhoneIdentity
from loyalty.merge_moves import MemberMerge, Moved
from loyalty.points_owed import PointsOwed

_log = structlog.get_logger()

REASON_CHARACTERS_MAX = 200
MERGED_MAX = 20
"""Most members that are merged into one, directly and through others."""


class MergeInvalid(Invalid):
    """These two cannot be merged, whatever happens: they are the same, or of two groups."""

    code = "MergeInvalid"


class MergeRefused(Conflict):
    """These two cannot be merged now."""

    code = "MergeRefused"


class MergeUnknown(NotFound):
    """There is no such merge of this member."""

    code = "MergeUnknown"


class UnmergeRefused(Conflict):
    """This merge cannot be undone now."""

    code = "UnmergeRefused"


class Approval(StrEnum):
    """On whose word two members were merged."""

    CODES = "codes"
    """Both numbers were proven by one-time codes."""
    OPERATOR = "operator"
    """One was; somebody at the brand answers for the other, and said why."""


@dataclass(frozen=True)
class NewMerge:
    """Two members to be made one. `merge_id` is the caller's choice: the same one again changes nothing."""

    merge_id: uuid.UUID
    survivor_id: uuid.UUID
    merged_id: uuid.UUID
    approval: Approval
    reason: str = ""


@dataclass(frozen=True)
class Merged:
    """What a merge, or its undoing, moved. `is_new` is false on a repetition."""

    merge_id: uuid.UUID
    survivor_id: uuid.UUID
    merged_id: uuid.UUID
    is_new: bool
    moved: tuple[Moved, ...]


async def merge(session: Session, new: NewMerge, now: datetime) -> Merged:
    """Make two members one. Raises MergeInvalid, MergeRefused, MemberUnknown.

    Call it only when both were proven, or one was and an operator approves.
    """
    if new.survivor_id == new.merged_id:
        raise MergeInvalid("this is one and the same member already")
    if len(new.reason) > REASON_CHARACTERS_MAX or (new.approval is Approval.OPERATOR and not new.reason.strip()):
        raise MergeInvalid(f"an operator gives a reason of 1 to {REASON_CHARACTERS_MAX} characters")
    survivor, merged = await _locked(session, new.survivor_id, new.merged_id)
    before = await session.get(MemberMerge, (new.survivor_id, new.merge_id))
    if before is not None:
        if before.merged_id != new.merged_id:
            raise MergeRefused("this merge id belongs to another merge", hint="Choose a new one.")
        return await _told(session, before, is_new=False)
    await _check(session, survivor, merged)
    await _add_claims(session, merged.member_id, survivor.member_id)
    await session.exec(
        update(Member).where(col(Member.member_id) == merged.member_id).values(merged_into=survivor.member_id)
    )
    made = MemberMerge(
        survivor_id=survivor.member_id,
        merge_id=new.merge_id,
        merged_id=merged.member_id,
        approval=new.approval,
        reason=new.reason.strip(),
        cards=await _join_cards(session, survivor.member_id, merged.member_id, now),
        benefits=[],
        at=now,
    )
    session.add(made)
    await session.flush()
    await tier_merges.merge(session, new.merge_id, merged.member_id, survivor.member_id, now)
    await _sign_in_to(session, merged.member_id, survivor.member_id)
    await sign_in.close_sessions(session, [merged.member_id])
    await merge_moves.bring(session, made, now)
    return await _told(session, made, is_new=True)


async def _locked(session: Session, one: uuid.UUID, other: uuid.UUID) -> tuple[Member, Member]:
    # In one order for everybody, so that two merges of the same people wait for each other.
    found = await session.exec(
        select(Member)
        .where(col(Member.member_id).in_([one, other]))
        .order_by(col(Member.member_id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    by_id = {member.member_id: member for member in found}
    if by_id.keys() != {one, other} or any(member.phone_sealed is None for member in by_id.values()):
        raise MemberUnknown("no such member, or the member was erased")
    return by_id[one], by_id[other]


async def _check(session: Session, survivor: Member, merged: Member) -> None:
    if survivor.group_id != merged.group_id:
        raise MergeInvalid("members of two groups cannot be merged: their points are different things")
    if survivor.merged_into is not None or merged.merged_into is not None:
        raise MergeRefused("one of the two was merged before", hint="Merge with the member who acts for him.")
    family = [await members.family_of(session, one.member_id) for one in (survivor, merged)]
    if sum(map(len, family)) > MERGED_MAX:
        raise MergeRefused(f"at most {MERGED_MAX} members become one")


async def _add_claims(session: Session, from_id: uuid.UUID, to_id: uuid.UUID) -> None:
    """Two who are one have claimed as often as both did; parting gives nothing of it back.

    Before any card, as claims lock them. Claims under way are waited for.
    """
    counted = await session.exec(
        select(ClaimCount.campaign_id, ClaimCount.day, ClaimCount.claims)
        .where(ClaimCount.subject_id == from_id)
        .order_by(col(ClaimCount.campaign_id), col(ClaimCount.day))
        .with_for_update()
    )
    rows = [
        {"subject_id": to_id, "campaign_id": campaign_id, "day": day, "claims": claims}
        for campaign_id, day, claims in counted
    ]
    if rows:
        adding = insert(session, ClaimCount)
        await (await session.connection()).execute(
            adding.on_conflict_do_update(
                index_elements=["subject_id", "campaign_id", "day"],
                set_={"claims": col(ClaimCount.claims) + adding.excluded["claims"]},
            ),
            rows,
        )


async def _join_cards(
    session: Session, survivor_id: uuid.UUID, merged_id: uuid.UUID, now: datetime
) -> dict[str, str | None]:
    """The survivor gets a card of every brand, and of two the earlier day of joining; what his were like before.

    His own card number stays. The tier follows the experience, which `tier_merges` brings together.
    """
    before: dict[str, str | None] = {}
    own = {card.brand_id: card for card in await members.cards_of(session, survivor_id)}
    for card in await tier_merges.hold_cards(session, merged_id):
        had = own.get(card.brand_id)
        before[str(card.brand_id)] = None if had is None else had.joined_at.isoformat()
        await members.join_brand(session, survivor_id, card.brand_id, now)
        await session.exec(
            update(Card)
            .where(
                col(Card.member_id) == survivor_id,
                col(Card.brand_id) == card.brand_id,
                col(Card.joined_at) > card.joined_at,
            )
            .values(joined_at=card.joined_at)
        )
    return before


async def _sign_in_to(session: Session, from_id: uuid.UUID, to_id: uuid.UUID) -> None:
    await session.exec(update(PhoneIdentity).where(col(PhoneIdentity.member_id) == from_id).values(member_id=to_id))


async def gather(database: Database, clock: Clock) -> int:
    """Bring what came to merged members later: what an order gave back or a till let go of, and what was under way when
    they were merged; how many had something. Each in a transaction of his own: others wait for his cards and accounts.
    """
    brought, member_id = 0, uuid.UUID(int=0)
    while True:
        async with database.reading() as session:
            stray = await stray_after(session, member_id)
        if stray is None:
            return brought
        member_id = stray
        try:
            async with database.writing() as session:
                brought += await bring_stray(session, member_id, clock())
        except Exception:
            _log.exception("a merged member's value not brought, will try again", member_id=str(member_id))


async def stray_after(session: Session, member_id: uuid.UUID) -> uuid.UUID | None:
    """The first member after this one who was merged and has something that his survivor should have."""
    holds_value = exists().where(
        col(Account.holder_id) == col(Member.member_id),
        col(Account.purpose).in_([str(purpose) for purpose in merge_moves.MOVED]),
        col(Account.asset).not_like(merge_moves.BENEFITS),
        col(Account.balance) != 0,
    )
    holds_benefits = exists().where(
        col(MemberBenefit.member_id) == col(Member.member_id), col(MemberBenefit.status).in_(USABLE)
    )
    owes = exists().where(col(PointsOwed.member_id) == col(Member.member_id), col(PointsOwed.points) > 0)
    stray = await session.exec(
        select(Member.member_id)
        .where(
            col(Member.member_id) > member_id,
            col(Member.merged_into).is_not(None),
            col(Member.phone_sealed).is_not(None),
            or_(holds_value, holds_benefits, owes),
        )
        .order_by(col(Member.member_id))
        .limit(1)
    )
    return stray.first()


async def bring_stray(session: Session, member_id: uuid.UUID, now: datetime) -> bool:
    """Bring what a merged member has to whoever he was merged into; whether there was anything."""
    found = await session.exec(
        select(MemberMerge)
        .where(MemberMerge.merged_id == member_id, col(MemberMerge.undone_at).is_(None))
        .with_for_update(skip_locked=True)
    )
    made = found.first()
    if made is None:
        return False
    made.cards = await _join_cards(session, made.survivor_id, member_id, now) | made.cards
    await tier_merges.merge(session, made.merge_id, member_id, made.survivor_id, now)
    return bool(await merge_moves.bring(session, made, now))


async def unmerge(session: Session, survivor_id: uuid.UUID, merge_id: uuid.UUID, now: datetime) -> Merged:
    """Part two members: number, cards, experience and what is left of the value go back. The same again does nothing.

    Raises MergeUnknown, MemberUnknown and UnmergeRefused (the survivor was himself merged since).
    """
    made = await _merge_of(session, survivor_id, merge_id)
    survivor, merged = await _locked(session, survivor_id, made.merged_id)
    made = await _merge_of(session, survivor_id, merge_id, holds=True)
    if made.undone_at is not None:
        return await _told(session, made, is_new=False)
    if survivor.merged_into is not None:
        raise UnmergeRefused("the member was merged into another one since", hint="Undo that merge first.")
    made.undone_at = now
    session.add(made)
    await session.exec(update(Member).where(col(Member.member_id) == merged.member_id).values(merged_into=None))
    family = await members.family_of(session, merged.member_id)
    await session.exec(
        update(PhoneIdentity)
        .where(col(PhoneIdentity.member_id) == survivor_id, col(PhoneIdentity.origin_id).in_(family))
        .values(member_id=merged.member_id)
    )
    await tier_merges.unmerge(session, merge_id, merged.member_id, survivor_id, now)
    await _part_cards(session, made)
    returned = await merge_moves.give_back(session, made, now)
    await session.flush()
    return Merged(merge_id, survivor_id, merged.member_id, True, tuple(returned))


async def _merge_of(
    session: Session, survivor_id: uuid.UUID, merge_id: uuid.UUID, *, holds: bool = False
) -> MemberMerge:
    asked = select(MemberMerge).where(MemberMerge.survivor_id == survivor_id, MemberMerge.merge_id == merge_id)
    if holds:
        asked = asked.with_for_update()  # somebody may be bringing what came later
    found = await session.exec(asked.execution_options(populate_existing=True))
    made = found.first()
    if made is None:
        raise MergeUnknown("there is no such merge of this member")
    return made


async def _part_cards(session: Session, made: MemberMerge) -> None:
    """The survivor's days of joining as they were before. A card that the merge brought stays: it may be in use."""
    for brand, joined_at in made.cards.items():
        if joined_at is not None:
            await session.exec(
                update(Card)
                .where(col(Card.member_id) == made.survivor_id, col(Card.brand_id) == int(brand))
                .values(joined_at=datetime.fromisoformat(joined_at))
            )


def merge_id(survivor_id: uuid.UUID, key: str) -> uuid.UUID:
    """The id of the merge that a member asks for under a key of his choice."""
    return derived_id("member-merge", survivor_id, key)


async def _told(session: Session, made: MemberMerge, *, is_new: bool) -> Merged:
    moved = tuple(await merge_moves.moves_of(session, made))
    return Merged(made.merge_id, made.survivor_id, made.merged_id, is_new, moved)


async def merges_of(session: Session, survivor_id: uuid.UUID) -> list[MemberMerge]:
    """Every merge into this member, earliest first, undone ones among them."""
    found = await session.exec(
        select(MemberMerge).where(MemberMerge.survivor_id == survivor_id).order_by(col(MemberMerge.at))
    )
    return list(found)
