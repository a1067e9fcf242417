"""Recalculation of tiers: every decision made anew from the entries and the rules, and compared with what is stored."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import tuple_
from sqlmodel import col, func, select

from kit.db import Session, table_of
from loyalty import experience, tier_history, tier_rules, tiers
from loyalty.members import Card
from loyalty.tier_history import Change, State
from loyalty.tiers import TierChange

_COLUMNS = tuple(table_of(TierChange).c.keys())

CARDS_AT_ONCE = 500
DIFFERENCES_MAX = 100
"""Most differences that a report lists; the rest is counted."""


@dataclass(frozen=True)
class Difference:
    """A card whose stored history is not what the entries and the rules give."""

    member_id: uuid.UUID
    what: str


@dataclass
class Recalculation:
    """What was found so far: `moved` counts cards by the ranks that they leave and reach, beyond what is stored."""

    cards: int = 0
    changes: int = 0
    differing: int = 0
    moved: Counter[tuple[int, int]] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    after: uuid.UUID | None = None
    """The last member that was looked at."""


async def count(session: Session, brand_id: int) -> int:
    """How many cards a recalculation looks at."""
    return (await session.exec(select(func.count()).select_from(Card).where(Card.brand_id == brand_id))).one()


async def step(session: Session, brand_id: int, as_of: datetime, found: Recalculation, *, settle: bool) -> bool:
    """Recalculate the next 500 cards of a brand, in the order of their members; False when there are none left.

    Only entries recorded by `as_of` count; later than now it tells what time alone will bring. With `settle`, what is
    due by then is decided and stored; what is stored already is never altered, only reported.
    """
    cards = await _next_cards(session, brand_id, found.after, lock=settle)
    if not cards:
        return False
    book = await tier_rules.book_of(session, brand_id)
    keys = [(card.member_id, brand_id) for card in cards]
    entries, stored = await experience.entries_of(session, keys), await _stored(session, keys)
    sound = []
    for card in cards:
        known = [entry for entry in entries[card.member_id, brand_id] if entry.recorded_at <= as_of]
        state, changes = tier_history.advance(State(), known, book, as_of)
        found.cards += 1
        found.changes += len(changes)
        what = _compare(card, state, changes, stored.get(card.member_id, ()), as_of)
        if what is not None:
            found.differing += 1
            if len(found.differences) < DIFFERENCES_MAX:
                found.differences.append(Difference(card.member_id, what))
            continue
        sound.append(card)
        if state.rank != card.tier_rank and (card.tier_moment is None or card.tier_moment <= as_of):
            found.moved[card.tier_rank, state.rank] += 1
    if settle:
        await tiers.settle(session, sound, as_of)
    found.after = cards[-1].member_id
    return True


async def _next_cards(session: Session, brand_id: int, after: uuid.UUID | None, *, lock: bool) -> list[Card]:
    wanted = select(Card).where(Card.brand_id == brand_id).order_by(col(Card.member_id)).limit(CARDS_AT_ONCE)
    if after is not None:
        wanted = wanted.where(col(Card.member_id) > after)
    if lock:
        wanted = wanted.with_for_update()
    return list(await session.exec(wanted.execution_options(populate_existing=True)))


async def _stored(session: Session, keys: Sequence[tuple[uuid.UUID, int]]) -> dict[uuid.UUID, list[TierChange]]:
    rows = await session.exec(
        select(TierChange)
        .where(tuple_(col(TierChange.member_id), col(TierChange.brand_id)).in_(keys))
        .order_by(col(TierChange.number))
    )
    stored: dict[uuid.UUID, list[TierChange]] = {}
    for row in rows:
        stored.setdefault(row.member_id, []).append(row)
    return stored


def _compare(
    card: Card, state: State, changes: Sequence[Change], stored: Sequence[TierChange], as_of: datetime
) -> str | None:
    """What contradicts the recalculation; what is only not decided yet does not."""
    kept = [row for row in stored if row.at <= as_of]
    for row, change in zip(kept, changes, strict=False):
        if {name: getattr(row, name) for name in _COLUMNS} != tiers.change_row(card, change):
            return f"change {row.number} is stored as {_words(row)}, and recalculated as {_words(change)}"
    if len(kept) > len(changes):
        return f"change {kept[len(changes)].number} is stored, and nothing accounts for it"
    if card.tier_changes != len(stored):
        return f"the card tells of {card.tier_changes} changes, and {len(stored)} are stored"
    if card.tier_changes == state.changes and card.tier_rank != state.rank:
        return f"the card is of rank {card.tier_rank}, and its changes end at {state.rank}"
    return None


def _words(change: TierChange | Change) -> str:
    return f"{change.from_rank} to {change.to_rank} ({change.reason}) at {change.at.isoformat()}"
