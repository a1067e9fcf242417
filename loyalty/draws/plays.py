"""Plays: one member, one ticket, one prize, in one transaction; and the record that all plays make.

A position is taken by adding one to its stripe's row in the transaction that gives the prize, so that a play that is
rolled back or killed gives its position back: the record has no holes and knows no void tickets.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, LargeBinary, or_, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, benefits, budgets, ledger, prizes, webhooks
from loyalty.budgets import Budget
from loyalty.draws import catalogue, fair, record
from loyalty.draws.catalogue import Draw, DrawNotOpen, DrawQuota, DrawState, DrawStripe, DrawUnknown, Sealed
from loyalty.draws.record import PlayLine
from loyalty.draws.terms import DrawPrize, Form, Price, Terms
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer
from loyalty.members import Member
from loyalty.prizes import Given
from loyalty.webhooks import WebhookKind

CHANCES_PER_GRANT_MAX = 1_000
PLAYS_LISTED_MAX = 200
_DECKS_REMEMBERED = 8  # of 1 MB at most
_LINES_AT_ONCE = 1_000


class PlayIdReused(Conflict):
    """The play's id belongs to a play of another draw, or with other entropy."""

    code = "PlayIdReused"


class DrawUsedUp(Conflict):
    """Every ticket of the deck is dealt."""

    code = "DrawUsedUp"


class PlayUnpaid(Conflict):
    """The member has too few points, or no chance left, for a play."""

    code = "PlayUnpaid"


class DrawTicket(SQLModel, table=True):
    """One line of a draw's record. It names no member, only the draw's own name for him, in the ticket."""

    __tablename__: ClassVar[str] = "draw_ticket"
    __table_args__ = (
        CheckConstraint("position >= 0 AND drawn >= 0 AND prize >= 0", name="numbers"),
        CheckConstraint("length(link) = 32", name="link"),
    )

    draw_id: uuid.UUID = Field(primary_key=True)
    stripe: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    ticket: bytes = Field(sa_type=LargeBinary)
    drawn: int
    ordinal: int | None = None
    prize: int
    at: datetime = Field(sa_type=Moment)
    link: bytes = Field(sa_type=LargeBinary)


class DrawPlay(SQLModel, table=True):
    """A member's play, under the id that his client chose, and where in the record it stands."""

    __tablename__: ClassVar[str] = "draw_play"
    __table_args__ = (Index("ix_draw_play_member_id_draw_id_turn", "member_id", "draw_id", "turn"),)

    member_id: uuid.UUID = Field(primary_key=True)
    play_id: uuid.UUID = Field(primary_key=True)
    draw_id: uuid.UUID
    entropy: bytes = Field(sa_type=LargeBinary)
    turn: int = 0
    stripe: int = 0
    position: int = 0
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class PlayRequest:
    """A member plays once.

    `entropy`: 16..64 bytes that the member's own client chose at random, after the commitment was published. `device`:
    what tells his device from others, None when unknown.
    """

    play_id: uuid.UUID
    member_id: uuid.UUID
    draw_id: uuid.UUID
    entropy: bytes
    device: str | None = None


@dataclass(frozen=True)
class Played:
    """What a play gave. `receipt` is its line of the record, to be kept by the player."""

    play_id: uuid.UUID
    turn: int
    line: PlayLine
    link: bytes
    given: Given | None
    """None on a repetition."""

    @property
    def receipt(self) -> bytes:
        return record.play(self.line, self.link)


def player_of(vault: Vault, draw_id: uuid.UUID, member_id: uuid.UUID) -> bytes:
    """A draw's own name for a member, 16 bytes: the record shows it, and nobody else can tell whose it is."""
    return vault.fingerprint("draw-player", f"{draw_id}\x00{member_id}")[: record.PLAYER_BYTES]


def chance_asset(draw_id: uuid.UUID) -> str:
    """The ledger's name for chances to play one draw."""
    return f"chance:{draw_id}"


async def grant_chances(
    session: Session, *, grant_id: uuid.UUID, member_id: uuid.UUID, draw: Draw, count: int, reason: str, now: datetime
) -> int:
    """Give a member chances to play, once for one `grant_id`; how many he has now."""
    if not 1 <= count <= CHANCES_PER_GRANT_MAX:
        raise fair.DrawInvalid(f"chances: 1 to {CHANCES_PER_GRANT_MAX} at a time")
    asset = chance_asset(draw.draw_id)
    account = AccountId(member_id, asset, Purpose.AVAILABLE)
    legs = (Leg(ledger.issuance(draw.brand_id, asset, member_id), -count), Leg(account, count))
    return (await ledger.post(session, Transfer(grant_id, reason, legs), now)).balances[account]


async def chances_of(session: Session, member_id: uuid.UUID, draw_id: uuid.UUID) -> int:
    """How many chances a member has left."""
    account = AccountId(member_id, chance_asset(draw_id), Purpose.AVAILABLE)
    return (await ledger.balances_of(session, [account])).get(account, 0)


async def play(session: Session, vault: Vault, request: PlayRequest, now: datetime) -> Played:
    """Play once: take a ticket, give its prize, take the price; the same play id again answers as before.

    Raises DrawUnknown, DrawNotOpen, DrawAltered, DrawUsedUp, PlayUnpaid, PlayIdReused, AllowanceUsedUp, DrawInvalid
    (entropy) and what `prizes.give` raises; the caller's transaction must then be rolled back, and takes the ticket
    back with it.
    """
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # the record counts in milliseconds
    draw = await _playable(session, request, now)
    begun = await session.exec(
        insert(session, DrawPlay)
        .values(
            member_id=request.member_id,
            play_id=request.play_id,
            draw_id=request.draw_id,
            entropy=request.entropy,
            turn=0,
            stripe=0,
            position=0,
            at=now,
        )
        .on_conflict_do_nothing()
        .returning(col(DrawPlay.play_id))
    )
    if begun.first() is None:
        return await _played_before(session, vault, request)
    if not draw.opens_at <= now < draw.closes_at or draw.state != DrawState.OPEN:
        raise DrawNotOpen(_why_not(draw, now))
    sealed = catalogue.unseal(vault, draw)
    await _can_pay(session, sealed.terms, request)
    # Everybody locks in this order: play, allowances, stripe, quota, the prize's budget, the member's accounts.
    turn = await _take_turn(session, sealed.terms, request, now)
    player = player_of(vault, draw.draw_id, request.member_id)
    line, linked = await _deal(session, sealed, record.play_ticket(player, turn, request.entropy), now)
    await session.exec(
        update(DrawPlay)
        .where(col(DrawPlay.member_id) == request.member_id, col(DrawPlay.play_id) == request.play_id)
        .values(turn=turn, stripe=line.stripe, position=line.position)
    )
    given = await _give(session, vault, sealed, request, line, now)
    await _pay(session, sealed, request, now)
    told = {"draw_id": str(draw.draw_id), "member_id": str(request.member_id), "prize": line.prize, "turn": turn}
    await webhooks.emit(session, draw.brand_id, WebhookKind.DRAW_PLAYED, request.play_id, told, now)
    return Played(request.play_id, turn, line, linked, given)


async def _playable(session: Session, request: PlayRequest, now: datetime) -> Draw:
    found = await session.exec(
        select(Draw)
        .join(Member, col(Member.group_id) == Draw.group_id)
        .where(Draw.draw_id == request.draw_id, Member.member_id == request.member_id)
        .with_for_update(read=True, of=Draw)  # a close waits for this play, or this play sees the close
    )
    draw = found.first()
    if draw is None:
        raise DrawUnknown("no such draw for this member")
    return draw


def _why_not(draw: Draw, now: datetime) -> str:
    if draw.state != DrawState.OPEN:
        return f"this draw is {draw.state}"
    return "this draw has not begun" if now < draw.opens_at else "this draw is over"


async def _can_pay(session: Session, terms: Terms, request: PlayRequest) -> None:
    # Only to refuse early, before others wait for this play's stripe; what decides is the transfer at the end.
    if terms.price is not Price.FREE:
        account = _purse(terms, request.member_id)
        if (await ledger.balances_of(session, [account])).get(account, 0) < terms.price_amount:
            raise _unpaid(terms)


def _purse(terms: Terms, member_id: uuid.UUID) -> AccountId:
    asset = chance_asset(terms.draw_id) if terms.price is Price.CHANCES else ledger.POINTS
    return AccountId(member_id, asset, Purpose.AVAILABLE)


def _unpaid(terms: Terms) -> PlayUnpaid:
    return PlayUnpaid(f"a play costs {terms.price_amount} {terms.price}, and there are not so many left")


async def _take_turn(session: Session, terms: Terms, request: PlayRequest, now: datetime) -> int:
    limits, today = terms.limits, allowances.day_of(now).isoformat()
    turn = await allowances.take(session, request.member_id, terms.draw_id, allowances.IN_ALL, limits.member)
    if limits.member_day is not None:
        await allowances.take(session, request.member_id, terms.draw_id, today, limits.member_day)
    await allowances.take_for_device(session, request.device, terms.draw_id, limits.device_day, now)
    return turn


async def _deal(session: Session, sealed: Sealed, ticket: bytes, now: datetime) -> tuple[PlayLine, bytes]:
    """Take the ticket's place in the record, and find what it draws."""
    terms, draw_id = sealed.terms, sealed.terms.draw_id
    cards = await _deck(sealed) if terms.form is Form.DECK else b""
    stripe, position, before = await _take_position(session, terms, ticket)
    ordinal = None
    if terms.form is Form.DECK:
        drawn = given = cards[sum(terms.stripe_sizes()[:stripe]) + position]
    else:
        drawn = given = fair.outcome(sealed.seed, draw_id, ticket, terms.weights)
        quantity = terms.prizes[drawn].quantity
        if quantity is not None:
            ordinal = await _count_drawing(session, draw_id, drawn)
            assert terms.consolation is not None  # the terms were checked
            given = drawn if ordinal <= quantity else terms.consolation
    line = PlayLine(stripe, position, ticket, drawn, ordinal, given, now)
    linked = record.link(before, line)
    await session.exec(
        update(DrawStripe)
        .where(col(DrawStripe.draw_id) == draw_id, col(DrawStripe.stripe) == stripe)
        .values(head=linked)
        .execution_options(synchronize_session=False)
    )
    await session.exec(
        insert(session, DrawTicket).values(
            draw_id=draw_id,
            stripe=stripe,
            position=position,
            ticket=ticket,
            drawn=drawn,
            ordinal=ordinal,
            prize=given,
            at=now,
            link=linked,
        )
    )
    return line, linked


async def _take_position(session: Session, terms: Terms, ticket: bytes) -> tuple[int, int, bytes]:
    home = record.home_stripe(ticket, terms.stripes)
    table = col(DrawStripe.draw_id) == terms.draw_id
    room = or_(col(DrawStripe.size).is_(None), col(DrawStripe.plays) < col(DrawStripe.size))
    while True:
        # Only stripes that have room are tried, looked up anew after each that had none when its turn came: who waits
        # for one that was dealt out meanwhile may keep it locked, and must not be waited for in his turn.
        found = await session.exec(select(DrawStripe.stripe).where(table, room))
        stripes = sorted(found.all(), key=lambda stripe: (stripe - home) % terms.stripes)
        if not stripes:
            raise DrawUsedUp("every ticket of this draw is dealt")
        taken = await session.exec(
            update(DrawStripe)
            .where(table, col(DrawStripe.stripe) == stripes[0], room)
            .values(plays=col(DrawStripe.plays) + 1)
            .returning(col(DrawStripe.plays), col(DrawStripe.head))
            .execution_options(synchronize_session=False)
        )
        row = taken.first()
        if row is not None:
            return stripes[0], row[0] - 1, row[1]


async def _count_drawing(session: Session, draw_id: uuid.UUID, prize: int) -> int:
    counted = await session.exec(
        update(DrawQuota)
        .where(col(DrawQuota.draw_id) == draw_id, col(DrawQuota.prize) == prize)
        .values(drawn=col(DrawQuota.drawn) + 1)
        .returning(col(DrawQuota.drawn))
        .execution_options(synchronize_session=False)
    )
    return int(counted.scalar_one())


_one_deck_at_a_time = threading.Lock()


async def _deck(sealed: Sealed) -> bytes:
    # In a thread: a large one takes seconds, and other requests must be answered meanwhile.
    return await asyncio.to_thread(_shuffled, sealed.seed, sealed.terms.draw_id, sealed.terms.weights)


def _shuffled(seed: bytes, draw_id: uuid.UUID, quantities: tuple[int, ...]) -> bytes:
    with _one_deck_at_a_time:
        return _remembered_deck(seed, draw_id, quantities)


@lru_cache(_DECKS_REMEMBERED)
def _remembered_deck(seed: bytes, draw_id: uuid.UUID, quantities: tuple[int, ...]) -> bytes:
    return fair.deck(seed, draw_id, quantities)


async def _give(
    session: Session, vault: Vault, sealed: Sealed, request: PlayRequest, line: PlayLine, now: datetime
) -> Given:
    draw, entry = sealed.draw, sealed.terms.prizes[line.prize]
    budget = catalogue.budget_of(draw.draw_id, line.prize, entry)
    grant_id = derived_id("draw-play", request.member_id, request.play_id)
    if entry.benefit_id is not None and budget is not None:
        return await _give_benefit(session, vault, entry, budget, grant_id, request.member_id, now)
    prize = catalogue.prize_of(entry)
    return await prizes.give(
        session,
        vault,
        grant_id=grant_id,
        member_id=request.member_id,
        group_id=draw.group_id,
        brand_id=draw.brand_id,
        prize=prize,
        budget=budget,
        reason="draw",
        now=now,
        refund_to=catalogue.returns_to(draw, prize.asset),
    )


async def _give_benefit(
    session: Session,
    vault: Vault,
    entry: DrawPrize,
    budget: Budget,
    grant_id: uuid.UUID,
    member_id: uuid.UUID,
    now: datetime,
) -> Given:
    assert entry.benefit_id is not None
    account = AccountId(member_id, budget.asset, Purpose.AVAILABLE)
    legs = (budgets.debit(budget, 1, grant_id.int), Leg(account, 1))
    await ledger.post(session, Transfer(grant_id, "draw", legs), now)
    held = await benefits.write_out(
        session,
        vault,
        held_id=grant_id,
        member_id=member_id,
        benefit_id=entry.benefit_id,
        why="draw",
        now=now,
    )
    return Given(catalogue.prize_of(entry), None, None, held, is_new=held.is_new)


async def _pay(session: Session, sealed: Sealed, request: PlayRequest, now: datetime) -> None:
    terms, draw = sealed.terms, sealed.draw
    if terms.price is Price.FREE:
        return
    purse = _purse(terms, request.member_id)
    into = (
        AccountId(request.member_id, purse.asset, Purpose.SPENT)
        if terms.price is Price.CHANCES
        else ledger.spent(draw.brand_id, request.member_id)
    )
    legs = (Leg(purse, -terms.price_amount), Leg(into, terms.price_amount))
    transfer_id = derived_id("draw-price", request.member_id, request.play_id)
    try:
        await ledger.post(session, Transfer(transfer_id, "draw price", legs), now)
    except InsufficientBalance:
        raise _unpaid(terms) from None


async def _played_before(session: Session, vault: Vault, request: PlayRequest) -> Played:
    earlier = await session.get_one(DrawPlay, (request.member_id, request.play_id))
    if (earlier.draw_id, earlier.entropy) != (request.draw_id, request.entropy):
        raise PlayIdReused("this id belongs to another play", hint="Choose a new id for a new play.")
    ticket = await session.get_one(DrawTicket, (earlier.draw_id, earlier.stripe, earlier.position))
    return Played(earlier.play_id, earlier.turn, _line(ticket), ticket.link, None)


def _line(ticket: DrawTicket) -> PlayLine:
    return PlayLine(
        stripe=ticket.stripe,
        position=ticket.position,
        ticket=ticket.ticket,
        drawn=ticket.drawn,
        ordinal=ticket.ordinal,
        prize=ticket.prize,
        at=ticket.at.astimezone(UTC),
    )


async def plays_of(session: Session, member_id: uuid.UUID, draw_id: uuid.UUID) -> list[Played]:
    """A member's plays of one draw, latest first, at most 200."""
    found = await session.exec(
        select(DrawPlay, DrawTicket)
        .join(
            DrawTicket,
            (col(DrawTicket.draw_id) == DrawPlay.draw_id)
            & (col(DrawTicket.stripe) == DrawPlay.stripe)
            & (col(DrawTicket.position) == DrawPlay.position),
        )
        .where(DrawPlay.member_id == member_id, DrawPlay.draw_id == draw_id)
        .order_by(col(DrawPlay.turn).desc())
        .limit(PLAYS_LISTED_MAX)
    )
    return [Played(row.play_id, row.turn, _line(ticket), ticket.link, None) for row, ticket in found]


def require_revealed(draw: Draw) -> tuple[dict[str, Any], bytes]:
    """The closing and the seed of a revealed draw. Raises DrawNotOpen before."""
    closing = catalogue.closing_of(draw)
    if draw.seed is None or closing is None:
        raise DrawNotOpen(f"this draw is {draw.state}; its record comes with its seed")
    return closing, draw.seed


async def record_of(session: Session, draw: Draw) -> AsyncIterator[bytes]:
    """The lines of a revealed draw's record. Raises DrawNotOpen before the seed is revealed."""
    closing, seed = require_revealed(draw)
    yield record.head(catalogue.terms_of(draw), closing, seed)
    rows = await session.stream(
        select(DrawTicket)
        .where(DrawTicket.draw_id == draw.draw_id)
        .order_by(col(DrawTicket.stripe), col(DrawTicket.position))
        .execution_options(yield_per=_LINES_AT_ONCE)
    )
    async for (ticket,) in rows:
        yield record.play(_line(ticket), ticket.link)
