"""Merging of members, as far as tiers go: what one has bought counts for the other, until they are parted again."""

import uuid
from datetime import datetime

from sqlmodel import col, select

from kit.db import Session
from kit.ids import derived_id
from loyalty import experience, tiers
from loyalty.experience import Counted, EntryKind, Figures
from loyalty.members import Card
from loyalty.tiers import NewEntry


async def merge(
    session: Session, merge_id: uuid.UUID, source_id: uuid.UUID, target_id: uuid.UUID, now: datetime
) -> None:
    """Count for the target's cards what the source's cards have counted, less what was taken back.

    The source's cards keep theirs, and are nobody's until the two are parted. The target has a card of each of the
    source's brands. The same merge again changes nothing. Raises CardUnknown.
    """
    for source in await hold_cards(session, source_id):
        brand_id = source.brand_id
        turn = await tiers.take(session, target_id, brand_id, now)
        await turn.enter_all(
            [
                NewEntry(
                    _copy_id(merge_id, entry),
                    EntryKind.MERGED,
                    entry.figures,
                    entry.at,
                    origin_id=entry.origin_id or entry.entry_id,
                    grant_rank=entry.grant_rank,
                    granted_until=entry.granted_until,
                )
                for entry in experience.netted(await _entries(session, source_id, brand_id))
            ]
        )


async def unmerge(
    session: Session, merge_id: uuid.UUID, source_id: uuid.UUID, target_id: uuid.UUID, now: datetime
) -> None:
    """Take back from the target's cards what the merge gave them; a tier that rested on it is gone at once."""
    for source in await hold_cards(session, source_id):
        brand_id = source.brand_id
        turn = await tiers.take(session, target_id, brand_id, now, takes_back=True)
        copied = {_copy_id(merge_id, entry) for entry in await _entries(session, source_id, brand_id)}
        given = [
            entry
            for entry in experience.netted(await _entries(session, target_id, brand_id))
            if entry.entry_id in copied
        ]
        await turn.enter_all(
            [
                NewEntry(
                    derived_id("unmerged", entry.entry_id),
                    EntryKind.MERGED,
                    Figures(-entry.figures.purchases, -entry.figures.fen, -entry.figures.experience),
                    entry.at,
                    of_entry=entry.entry_id,
                    origin_id=merge_id,
                )
                for entry in given
            ]
        )


def _copy_id(merge_id: uuid.UUID, entry: Counted) -> uuid.UUID:
    return derived_id("merged", merge_id, entry.entry_id, "grant" if entry.grant_rank else "figures")


async def hold_cards(session: Session, member_id: uuid.UUID) -> list[Card]:
    """The member's cards, by brand; nothing is entered on them by others till the end.

    The source's cards are held before any of the target's, as a refund of what the source bought holds both.
    """
    # One order for everybody.
    found = await session.exec(
        select(Card)
        .where(Card.member_id == member_id)
        .order_by(col(Card.brand_id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list(found)


async def _entries(session: Session, member_id: uuid.UUID, brand_id: int) -> list[Counted]:
    return (await experience.entries_of(session, [(member_id, brand_id)]))[member_id, brand_id]
