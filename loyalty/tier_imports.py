"""Standings that come from elsewhere: a CRM's figures and tiers, for one member or for a whole file at once."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, case, exists, literal, null, select, true, update
from sqlmodel import func

from kit.db import Moment, Session, insert, table_of
from loyalty import tier_rules, tiers
from loyalty.experience import EntryKind, ExperienceEntry, Figures
from loyalty.members import Card
from loyalty.tier_history import Reason
from loyalty.tiers import NewEntry, TierChange

_ENTRIES, _CARDS = table_of(ExperienceEntry), table_of(Card)
_ENTRY_COLUMNS = (
    "member_id",
    "entry_id",
    "kind",
    "brand_id",
    "seq",
    "purchases",
    "fen",
    "experience",
    "at",
    "recorded_at",
    "rules_version",
    "grant_rank",
    "granted_until",
)
_CHANGE_COLUMNS = (
    "member_id",
    "brand_id",
    "number",
    "at",
    "from_rank",
    "to_rank",
    "reason",
    "version",
    "seq",
    "purchases",
    "fen",
    "experience",
)


@dataclass(frozen=True)
class Imported:
    """What another system says of a member: figures, which count from `at`, and a tier that holds until a date.

    `entry_id` is the same whenever the same row of the same file comes again; it then changes nothing.
    """

    entry_id: uuid.UUID
    figures: Figures
    at: datetime
    grant_rank: int = 0
    granted_until: datetime | None = None


async def import_standing(
    session: Session, member_id: uuid.UUID, brand_id: int, imported: Imported, now: datetime
) -> bool:
    """Count what another system says of one member, and decide at once; False when it was counted before.

    Raises CardUnknown.
    """
    turn = await tiers.take(session, member_id, brand_id, now)
    done = False
    if imported.grant_rank and imported.granted_until is not None and imported.granted_until > now:
        grant = NewEntry(
            imported.entry_id,
            EntryKind.GRANTED,
            Figures(),
            now,
            grant_rank=imported.grant_rank,
            granted_until=imported.granted_until,
        )
        done |= await turn.enter(grant)
    if imported.figures != Figures():
        done |= await turn.enter(NewEntry(imported.entry_id, EntryKind.IMPORTED, imported.figures, imported.at))
    return done


async def import_many(session: Session, brand_id: int, staged: FromClause, now: datetime) -> int:
    """The same for many members in a few statements; how many entries are new.

    `staged` has the columns member_id, entry_id, purchases, fen, experience, at, grant_rank and granted_until (the last
    two null when no tier is given), one row a member, and every member has a card of the brand. Given tiers hold from
    now on for cards of which nothing was known; what else there is to decide is due now, see `tiers.settle_due`.
    """
    rules = (await tier_rules.book_of(session, brand_id)).in_force(now)
    given = await _enter(
        session,
        _new_entries(staged, EntryKind.GRANTED, brand_id, rules.version, now).where(
            staged.c.grant_rank > 0, staged.c.granted_until > now
        ),
    )
    if given and rules.top_rank:
        await _give(session, staged, brand_id, rules, now)
    counted = await _enter(
        session,
        _new_entries(staged, EntryKind.IMPORTED, brand_id, rules.version, now).where(
            (staged.c.purchases != 0) | (staged.c.fen != 0) | (staged.c.experience != 0)
        ),
    )
    if given or counted:
        await _mark_due(session, staged, brand_id, now)
    return given + counted


async def _enter(session: Session, entries: Select[Any]) -> int:
    made = await session.exec(
        insert(session, ExperienceEntry)
        .from_select(_ENTRY_COLUMNS, entries)
        .on_conflict_do_nothing(index_elements=["member_id", "entry_id", "kind"])
        .execution_options(preserve_rowcount=True)
    )
    return int(made.rowcount)


def _new_entries(staged: FromClause, kind: EntryKind, brand_id: int, version: int, now: datetime) -> Select[Any]:
    earlier = (
        select(func.coalesce(func.max(_ENTRIES.c.seq), 0))
        .where(_ENTRIES.c.member_id == staged.c.member_id, _ENTRIES.c.brand_id == brand_id)
        .correlate(staged)
        .scalar_subquery()
    )
    grants = kind is EntryKind.GRANTED
    moment = literal(now, Moment())

    def figure(name: str) -> ColumnElement[int]:
        return literal(0) if grants else staged.c[name]

    return (
        select(
            staged.c.member_id,
            staged.c.entry_id,
            literal(str(kind)),
            literal(brand_id),
            earlier + 1,
            figure("purchases"),
            figure("fen"),
            figure("experience"),
            moment if grants else staged.c.at,
            # Decided now, or after whatever was decided for this card by a clock that runs ahead.
            case((_CARDS.c.tier_moment > moment, _CARDS.c.tier_moment), else_=moment),
            literal(version),
            staged.c.grant_rank if grants else literal(0),
            staged.c.granted_until if grants else null(),
        )
        .select_from(staged.join(_CARDS, (_CARDS.c.member_id == staged.c.member_id) & (_CARDS.c.brand_id == brand_id)))
        .where(true())
    )


async def _give(session: Session, staged: FromClause, brand_id: int, rules: tier_rules.Rules, now: datetime) -> None:
    """Decide at once on cards of which nothing was known: just as `tier_history` would, which has nothing to weigh."""
    top, moment = rules.top_rank, literal(now, Moment())
    first_seen = (
        select(
            _ENTRIES.c.member_id,
            case((_ENTRIES.c.grant_rank > top, top), else_=_ENTRIES.c.grant_rank).label("rank"),
            _ENTRIES.c.grant_rank,
            _ENTRIES.c.granted_until,
        )
        .join(staged, staged.c.member_id == _ENTRIES.c.member_id)
        .join(_CARDS, (_CARDS.c.member_id == _ENTRIES.c.member_id) & (_CARDS.c.brand_id == brand_id))
        .where(
            _ENTRIES.c.brand_id == brand_id,
            _ENTRIES.c.entry_id == staged.c.entry_id,
            _ENTRIES.c.seq == 1,
            _ENTRIES.c.recorded_at == moment,
            _ENTRIES.c.kind == str(EntryKind.GRANTED),
            _CARDS.c.tier_seq == 0,
            _CARDS.c.tier_moment.is_(None),
        )
        .subquery()
    )
    await session.exec(
        insert(session, TierChange).from_select(
            _CHANGE_COLUMNS,
            select(
                first_seen.c.member_id,
                literal(brand_id),
                literal(1),
                moment,
                literal(0),
                first_seen.c.rank,
                literal(str(Reason.GRANTED)),
                literal(rules.version),
                literal(1),
                literal(0),
                literal(0),
                literal(0),
            ).where(true()),
        )
    )
    await session.exec(
        update(_CARDS)
        .where(_CARDS.c.member_id == first_seen.c.member_id, _CARDS.c.brand_id == brand_id)
        .values(
            tier_rank=first_seen.c.rank,
            tier_since=moment,
            granted_rank=first_seen.c.grant_rank,
            granted_until=first_seen.c.granted_until,
            tier_moment=moment,
            tier_seq=1,
            tier_changes=1,
            tier_version=rules.version,
            tier_check_at=moment,
        )
        .execution_options(synchronize_session=False)
    )


async def _mark_due(session: Session, staged: FromClause, brand_id: int, now: datetime) -> None:
    undecided = exists().where(
        _ENTRIES.c.member_id == _CARDS.c.member_id,
        _ENTRIES.c.brand_id == brand_id,
        _ENTRIES.c.seq > _CARDS.c.tier_seq,
    )
    await session.exec(
        update(_CARDS)
        .where(
            _CARDS.c.brand_id == brand_id,
            _CARDS.c.member_id.in_(select(staged.c.member_id)),
            # An import makes new cards due at once: to write each a second time would cost it a third of its speed.
            (_CARDS.c.tier_check_at.is_(None)) | (_CARDS.c.tier_check_at > literal(now, Moment())),
            undecided,
        )
        .values(tier_check_at=literal(now, Moment()))
        .execution_options(synchronize_session=False)
    )
