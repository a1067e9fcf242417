"""Tiers: where a member's card stands on a brand's ladder, kept up to date with purchases, time and rules.

What is decided is decided in `loyalty.tier_history`; here it is read, locked and stored.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import structlog
from sqlalchemy import BigInteger, CheckConstraint, Insert, Integer, Text, Uuid, bindparam, or_, update
from sqlmodel import Field, SQLModel, and_, col, func, select

from kit.clock import Clock
from kit.db import Database, Moment, Session, insert_into, is_postgresql, table_of
from kit.errors import NotFound
from kit.ids import derived_id
from loyalty import experience, tier_history, tier_rules, tier_words, webhooks
from loyalty.experience import Counted, EntryKind, ExperienceEntry, Figures
from loyalty.members import Card
from loyalty.tier_history import Change, Reason, State
from loyalty.tier_rules import RuleBook, Tier
from loyalty.webhooks import WebhookKind

_log = structlog.get_logger()

CHANGES_LISTED_MAX = 1_000
SETTLE_EVERY_S = 60
SETTLED_AT_ONCE = 200
"""Cards that one transaction of the sweep settles."""


class CardUnknown(NotFound):
    """The member has no card of the brand."""

    code = "CardUnknown"


class TierChange(SQLModel, table=True):
    """A change of a card's tier, as it was decided, with the figures that explain it."""

    __tablename__: ClassVar[str] = "tier_change"
    __table_args__ = (
        CheckConstraint(f"reason IN ({', '.join(repr(str(reason)) for reason in Reason)})", name="reason"),
        CheckConstraint("number > 0 AND from_rank >= 0 AND to_rank >= 0", name="ranks"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)
    from_rank: int
    to_rank: int
    reason: str = Field(sa_type=Text)
    version: int
    seq: int
    purchases: int = Field(sa_type=BigInteger)
    fen: int = Field(sa_type=BigInteger)
    experience: int = Field(sa_type=BigInteger)
    until: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True)
class NewEntry:
    """Something to be counted. `entry_id` is that of its cause: under the same id and kind it counts once."""

    entry_id: uuid.UUID
    kind: EntryKind
    figures: Figures
    at: datetime
    of_entry: uuid.UUID | None = None
    origin_id: uuid.UUID | None = None
    grant_rank: int = 0
    granted_until: datetime | None = None


@dataclass(frozen=True)
class Standing:
    """Where a card stands. `missing` is what the following tier still takes; both are None on the highest.

    `projected` is the tier that the card will have from `projected_at` on if nothing more is bought: the present one,
    and None, when it stays through the next end of a period.
    """

    tier: Tier
    since: datetime | None
    until: datetime | None
    granted_until: datetime | None
    figures: Figures
    window_months: int
    following: Tier | None
    missing: Figures | None
    projected: Tier
    projected_at: datetime | None

    def explanation(self, language: str) -> str:
        """Why, in words: what counts, and what the following tier asks for."""
        return tier_words.explanation(language, self.figures, self.window_months, self.following)


@dataclass
class Turn:
    """A card that nobody else changes until the transaction ends, settled up to now."""

    session: Session
    card: Card
    book: RuleBook
    now: datetime
    entries: list[Counted]
    """Those that count for what is decided here, by `seq`."""
    state: State
    since: datetime | None
    """From when on they are known; None: all are."""

    @property
    def tier(self) -> Tier:
        return self.book.version(self.state.version).ladder[self.state.rank]

    async def enter(self, new: NewEntry) -> bool:
        """Count something and decide at once; False when it was counted before."""
        return await self.enter_all([new]) == 1

    async def enter_all(self, news: Sequence[NewEntry]) -> int:
        """The same for several things, one after the other; how many were not counted before."""
        if not news:
            return 0
        recorded_at = max(self.now, self.state.moment or self.now)
        if self.state.rank and any(new.of_entry is not None for new in news):
            await self._recall(tier_history.recalls_since(self.state, self.book, recorded_at))
        seq = max(self.state.seq, self.entries[-1].seq if self.entries else 0)
        rows = [self._row(new, seq + number, recorded_at) for number, new in enumerate(news, 1)]
        connection = await self.session.connection()
        made = await connection.execute(_entering(is_postgresql(self.session)), rows[0] if len(rows) == 1 else rows)
        fresh = {tuple(row) for row in made}
        self.entries += [
            experience.counted(ExperienceEntry(**row)) for row in rows if (row["entry_id"], row["kind"]) in fresh
        ]
        if fresh:
            await self.settle(recorded_at)
        return len(fresh)

    async def _recall(self, since: datetime) -> None:
        if self.since is not None and since < self.since:
            self.entries = await _entries(self.session, self.card, since)
            self.since = since

    def _row(self, new: NewEntry, seq: int, recorded_at: datetime) -> dict[str, Any]:
        return {
            "member_id": self.card.member_id,
            "entry_id": new.entry_id,
            "kind": str(new.kind),
            "brand_id": self.card.brand_id,
            "seq": seq,
            "purchases": new.figures.purchases,
            "fen": new.figures.fen,
            "experience": new.figures.experience,
            "at": new.at,
            "recorded_at": recorded_at,
            "rules_version": self.book.in_force(recorded_at).version,
            "of_entry": new.of_entry,
            "origin_id": new.origin_id,
            "grant_rank": new.grant_rank,
            "granted_until": new.granted_until,
        }

    async def settle(self, until: datetime) -> None:
        """Decide on everything that is due by then."""
        before = self.state
        self.state, changes = tier_history.advance(before, self.entries, self.book, until)
        if self.state != before:
            await _store(self.session, [(self.card, self.state, changes, self.book)], self.now)


async def take(
    session: Session, member_id: uuid.UUID, brand_id: int, now: datetime, *, takes_back: bool = False
) -> Turn:
    """Take a card's turn: it is locked, and settled up to now. Raises CardUnknown.

    Take it before anything is posted to the ledger in the same transaction. `takes_back`: something will be entered
    that takes back an earlier entry, for which more has to be known.
    """
    row = (await session.exec(_TAKING, params={"member": member_id, "brand": brand_id})).first()
    if row is None:
        raise CardUnknown("the member has no card of this brand", hint="Let the member join the brand first.")
    card, version, created_at = row
    book = await tier_rules.known_book(session, brand_id, version, created_at)
    since = tier_history.counts_since(state_of(card), book)
    if takes_back and since is not None and card.tier_rank:
        moment = max(now, card.tier_moment or now)
        since = min(since, tier_history.recalls_since(state_of(card), book, moment))
    turn = Turn(session, card, book, now, await _entries(session, card, since), state_of(card), since)
    # Another server's clock may be ahead; what it recorded is decided before anything else.
    await turn.settle(max([now, *(entry.recorded_at for entry in turn.entries[-1:]), card.tier_moment or now]))
    return turn


async def _entries(session: Session, card: Card, since: datetime | None) -> list[Counted]:
    return await experience.entries_since(session, card, since)


async def _counting(
    session: Session, cards: Sequence[Card], books: Mapping[int, RuleBook]
) -> dict[tuple[uuid.UUID, int], list[Counted]]:
    """The entries of cards that count for whatever is decided from now on."""
    begins = [tier_history.counts_since(state_of(card), books[card.brand_id]) for card in cards]
    known = [begin for begin in begins if begin is not None]
    since = min(known) if known and len(known) == len(begins) else None
    return await experience.entries_of(session, [(card.member_id, card.brand_id) for card in cards], since)


_BRAND = bindparam("brand", type_=Integer())
_TAKING = (
    select(Card, *tier_rules.newest(_BRAND))
    .where(Card.member_id == bindparam("member", type_=Uuid()), Card.brand_id == _BRAND)
    .with_for_update(of=Card)
    .execution_options(populate_existing=True)
)


async def ladder(session: Session, brand_id: int, now: datetime) -> list[Tier]:
    """The brand's tiers, lowest first; one for everybody where it has made no rules."""
    return list((await tier_rules.book_of(session, brand_id)).in_force(now).ladder)


async def standing(session: Session, member_id: uuid.UUID, brand_id: int, now: datetime) -> Standing:
    """Where a member stands with a brand, decided up to now; without a card: on the lowest tier."""
    card = await session.get(Card, (member_id, brand_id))
    if card is None:
        return _standing(None, [], await tier_rules.book_of(session, brand_id), now)
    return (await standings(session, [card], now))[0]


async def standings(session: Session, cards: Sequence[Card], now: datetime) -> list[Standing]:
    """The same for several cards, in their order."""
    books = await tier_rules.books_of(session, {card.brand_id for card in cards})
    entries = await _counting(session, cards, books)
    return [_standing(card, entries[card.member_id, card.brand_id], books[card.brand_id], now) for card in cards]


async def tiers_of(session: Session, cards: Sequence[Card]) -> list[Tier]:
    """The tiers of cards as they were last decided, in their order: for a page that must not cost much."""
    books = await tier_rules.books_of(session, {card.brand_id for card in cards})
    return [_tier_of(card, books[card.brand_id]) for card in cards]


def _tier_of(card: Card, book: RuleBook) -> Tier:
    # Of a card that nothing was decided on, only the lowest tier's name is known, by the newest rules.
    return book.version(card.tier_version or len(book.versions)).ladder[card.tier_rank]


def _standing(card: Card | None, entries: Sequence[Counted], book: RuleBook, now: datetime) -> Standing:
    state, _ = tier_history.advance(State() if card is None else state_of(card), entries, book, now)
    rules = book.version(state.version)
    figures = experience.figures_at(entries, now, rules.window_months, rules.keep_permille)
    following = rules.ladder[state.rank + 1] if state.rank < rules.top_rank else None
    falls_to, falls_at = _projection(state, entries, book)
    return Standing(
        tier=rules.ladder[state.rank],
        since=state.since,
        until=state.until,
        granted_until=state.granted_until,
        figures=figures,
        window_months=rules.window_months,
        following=following,
        missing=None if following is None else figures.less(following.needs),
        projected=rules.ladder[min(falls_to, rules.top_rank)],
        projected_at=falls_at,
    )


def _projection(state: State, entries: Sequence[Counted], book: RuleBook) -> tuple[int, datetime | None]:
    """The rank that the card falls to by its next end of a period, or by the end of the grace that begins there."""
    if not state.rank or state.moment is None:
        return state.rank, None
    period_end = experience.period_end_after(state.moment, book.version(state.version).period_months)
    later: State = state
    while (due := tier_history.next_check(later, book)) is not None and (due <= period_end or later.until is not None):
        later, changes = tier_history.advance(later, entries, book, due)
        if later.rank < state.rank:
            return later.rank, changes[-1].at
    return state.rank, None


async def changes_of(
    session: Session, member_id: uuid.UUID, brand_id: int, before: int | None = None, count: int = CHANGES_LISTED_MAX
) -> list[TierChange]:
    """Changes of a card's tier, latest first: those with numbers below `before`."""
    asked = select(TierChange).where(TierChange.member_id == member_id, TierChange.brand_id == brand_id)
    if before is not None:
        asked = asked.where(col(TierChange.number) < before)
    return list(await session.exec(asked.order_by(col(TierChange.number).desc()).limit(count)))


async def settle_due(session: Session, now: datetime, count_max: int = SETTLED_AT_ONCE) -> int:
    """Settle cards for which time or new rules have something to decide; how many there were.

    Call it in a transaction of its own till it gives less than `count_max`. Several may do so at once: each takes
    cards that no other has.
    """
    newest = await session.exec(
        select(tier_rules.TierRules.brand_id, func.max(tier_rules.TierRules.version))
        .where(tier_rules.TierRules.valid_from <= now)
        .group_by(col(tier_rules.TierRules.brand_id))
    )
    behind = [
        and_(Card.brand_id == brand_id, Card.tier_version < version, Card.tier_seq > 0) for brand_id, version in newest
    ]
    due = await session.exec(
        select(Card)
        .where(or_(col(Card.tier_check_at) <= now, *behind))
        .limit(count_max)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    cards = list(due)
    await settle(session, cards, now)
    return len(cards)


async def settle(session: Session, cards: Sequence[Card], now: datetime) -> None:
    """Decide on everything that is due for cards that the caller has locked."""
    books = await tier_rules.books_of(session, {card.brand_id for card in cards})
    entries = await _counting(session, cards, books)
    done: list[Decided] = []
    for card in cards:
        book, known = books[card.brand_id], entries[card.member_id, card.brand_id]
        state, changes = tier_history.advance(state_of(card), known, book, max(now, card.tier_moment or now))
        done.append((card, state, changes, book))
    await _store(session, done, now)


async def keep_settled(database: Database, clock: Clock) -> None:
    """Settle cards as they fall due, for ever."""
    while True:
        try:
            settled = SETTLED_AT_ONCE
            while settled == SETTLED_AT_ONCE:
                async with database.writing() as session:
                    settled = await settle_due(session, clock())
        except Exception:
            _log.exception("tiers not settled, will try again")
        await asyncio.sleep(SETTLE_EVERY_S)


Decided = tuple[Card, State, Sequence[Change], RuleBook]


async def _store(session: Session, decided: Sequence[Decided], now: datetime) -> None:
    rows = [change_row(card, change) for card, _state, changes, _book in decided for change in changes]
    connection = await session.connection()
    if decided:
        await connection.execute(_KEEPING, [_kept(card, state, book) for card, state, _changes, book in decided])
    if rows:
        await connection.execute(table_of(TierChange).insert(), rows)
    for row in rows:
        if row["from_rank"] != row["to_rank"]:
            await _tell(session, row, now)


def change_row(card: Card, change: Change) -> dict[str, Any]:
    """A change of a card's tier as it is stored."""
    return {
        "member_id": card.member_id,
        "brand_id": card.brand_id,
        "number": change.number,
        "at": change.at,
        "from_rank": change.from_rank,
        "to_rank": change.to_rank,
        "reason": str(change.reason),
        "version": change.version,
        "seq": change.seq,
        "purchases": change.figures.purchases,
        "fen": change.figures.fen,
        "experience": change.figures.experience,
        "until": change.until,
    }


@lru_cache
def _entering(on_postgresql: bool) -> Insert:
    entry = table_of(ExperienceEntry).c
    return (
        insert_into(ExperienceEntry, on_postgresql=on_postgresql)
        .on_conflict_do_nothing(index_elements=["member_id", "entry_id", "kind"])
        .returning(entry.entry_id, entry.kind)
    )


_CARDS = table_of(Card)
# The card itself is left as it was read: whoever holds its turn goes by the state.
_KEEPING = (
    update(_CARDS)
    .where(_CARDS.c.member_id == bindparam("whose", type_=Uuid()), _CARDS.c.brand_id == bindparam("at_brand"))
    .values(
        tier_rank=bindparam("rank"),
        tier_since=bindparam("since"),
        tier_until=bindparam("until"),
        granted_rank=bindparam("given_rank"),
        granted_until=bindparam("given_until"),
        tier_moment=bindparam("moment"),
        tier_seq=bindparam("seq"),
        tier_changes=bindparam("changes"),
        tier_version=bindparam("version"),
        tier_check_at=bindparam("check_at"),
    )
)


def _kept(card: Card, state: State, book: RuleBook) -> dict[str, Any]:
    return {
        "whose": card.member_id,
        "at_brand": card.brand_id,
        "rank": state.rank,
        "since": state.since,
        "until": state.until,
        "given_rank": state.granted_rank,
        "given_until": state.granted_until,
        "moment": state.moment,
        "seq": state.seq,
        "changes": state.changes,
        "version": state.version,
        "check_at": tier_history.next_check(state, book),
    }


def state_of(card: Card) -> State:
    """What the card keeps of its history."""
    return State(
        rank=card.tier_rank,
        since=card.tier_since,
        until=card.tier_until,
        granted_rank=card.granted_rank,
        granted_until=card.granted_until,
        moment=card.tier_moment,
        seq=card.tier_seq,
        changes=card.tier_changes,
        version=card.tier_version,
    )


async def _tell(session: Session, row: Mapping[str, Any], now: datetime) -> None:
    change_id = derived_id("tier-change", row["member_id"], row["brand_id"], row["number"])
    told = ("from_rank", "to_rank", "reason", "purchases", "fen", "experience")
    data = {"member_id": str(row["member_id"])} | {name: row[name] for name in told}
    await webhooks.emit(session, row["brand_id"], WebhookKind.TIER_CHANGED, change_id, data, now)
