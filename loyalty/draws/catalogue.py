"""The draws of the brands, from publication to the revealed seed, and what is set aside for their prizes."""

import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Conflict, NotFound, Unavailable
from kit.ids import derived_id, new_id
from kit.vault import Vault
from loyalty import benefits, budgets, ledger
from loyalty.benefits import catalogue as benefit_catalogue
from loyalty.benefits import stock
from loyalty.budgets import Budget
from loyalty.draws import fair, record
from loyalty.draws.fair import DrawInvalid
from loyalty.draws.record import StripeEnd
from loyalty.draws.terms import DrawPrize, Form, Terms, Tickets, parse
from loyalty.ledger import AccountId, Leg, Transfer
from loyalty.prizes import Prize, PrizeKind

BUDGET_STRIPES_MAX = 16
OPEN_LISTED_MAX = 20
_TERMS_REMEMBERED = 64


class DrawUnknown(NotFound):
    """There is no such draw, or not for this member's group."""

    code = "DrawUnknown"


class DrawNotOpen(Conflict):
    """The draw cannot be played, or cannot be opened, closed or revealed, in the state in which it is."""

    code = "DrawNotOpen"


class DrawAltered(Unavailable):
    """The stored terms or seed are not those that were committed to. Nothing may be played."""

    code = "DrawAltered"


class DrawState(StrEnum):
    """How far a draw is."""

    PUBLISHED = "published"
    OPEN = "open"
    CLOSED = "closed"
    REVEALED = "revealed"


class Draw(SQLModel, table=True):
    """A draw: its terms as they were published, its commitment, and its seed under seal. A reference table."""

    __tablename__: ClassVar[str] = "draw"
    __table_args__ = (
        CheckConstraint("state IN ('published', 'open', 'closed', 'revealed')", name="state"),
        CheckConstraint("opens_at < closes_at", name="period"),
        CheckConstraint("length(commitment) = 32", name="commitment"),
        CheckConstraint("(state = 'revealed') = (seed IS NOT NULL)", name="seed"),
        CheckConstraint("(state IN ('closed', 'revealed')) = (closing IS NOT NULL)", name="closing"),
    )

    draw_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    group_id: int
    state: str = Field(sa_type=Text)
    terms: str = Field(sa_type=Text)
    commitment: bytes = Field(sa_type=LargeBinary)
    seed_sealed: bytes = Field(sa_type=LargeBinary)
    seed: bytes | None = Field(default=None, sa_type=LargeBinary)
    closing: str | None = Field(default=None, sa_type=Text)
    opens_at: datetime = Field(sa_type=Moment)
    closes_at: datetime = Field(sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    revealed_at: datetime | None = Field(default=None, sa_type=Moment)


class DrawStripe(SQLModel, table=True):
    """One chain of plays, and of a deck one of its parts. `size` is None for odds, which never run out."""

    __tablename__: ClassVar[str] = "draw_stripe"
    __table_args__ = (CheckConstraint("plays >= 0 AND (size IS NULL OR plays <= size)", name="plays"),)

    draw_id: uuid.UUID = Field(primary_key=True)
    stripe: int = Field(primary_key=True)
    size: int | None = None
    plays: int = 0
    head: bytes = Field(sa_type=LargeBinary)


class DrawQuota(SQLModel, table=True):
    """How often a limited prize of the odds form was drawn, also after it was used up."""

    __tablename__: ClassVar[str] = "draw_quota"
    __table_args__ = (CheckConstraint("drawn >= 0", name="drawn"),)

    draw_id: uuid.UUID = Field(primary_key=True)
    prize: int = Field(primary_key=True)
    drawn: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))


@dataclass(frozen=True)
class Sealed:
    """A draw as those who play it need it."""

    draw: Draw
    terms: Terms
    seed: bytes


def new_seed() -> bytes:
    return secrets.token_bytes(fair.SEED_BYTES)


async def publish(
    session: Session,
    vault: Vault,
    *,
    brand_id: int,
    group_id: int,
    make_terms: Callable[[uuid.UUID, bytes], Terms],
    now: datetime,
    seed: bytes | None = None,
) -> Draw:
    """Commit to a draw and set its prizes aside. From here on its terms never change.

    `make_terms` gets the draw's id and the seed's hash. `seed`: for tests; otherwise fresh from the system. Raises
    DrawInvalid, and what `benefits.escrow` raises: BenefitUnknown, BenefitOutOfStock.
    """
    draw_id, secret = new_id(), seed or new_seed()
    terms = make_terms(draw_id, fair.seed_hash(secret, draw_id))
    check(terms, now)
    draw = Draw(
        draw_id=draw_id,
        brand_id=brand_id,
        group_id=group_id,
        state=DrawState.PUBLISHED,
        terms=fair.canonical(terms.document()).decode(),
        commitment=terms.commitment,
        seed_sealed=vault.seal(secret, _seal_context(draw_id)),
        opens_at=terms.opens_at,
        closes_at=terms.closes_at,
        created_at=now,
    )
    session.add(draw)
    sizes = terms.stripe_sizes() if terms.form is Form.DECK else [None] * terms.stripes
    for stripe, size in enumerate(sizes):
        session.add(DrawStripe(draw_id=draw_id, stripe=stripe, size=size, head=record.chain_start(terms, stripe)))
    if terms.form is Form.ODDS:
        for number, entry in enumerate(terms.prizes):
            if entry.quantity is not None:
                session.add(DrawQuota(draw_id=draw_id, prize=number))
    await session.flush()
    for number, entry in enumerate(terms.prizes):
        await _escrow(session, draw, number, entry, now)
    return draw


def check(terms: Terms, now: datetime) -> None:
    """Check terms without publishing them. Raises DrawInvalid."""
    terms.check()
    if terms.closes_at <= now:
        raise DrawInvalid("closes_at: in the future")
    if terms.tickets is not Tickets.PLAYS:
        raise DrawInvalid("tickets: those of items are for scans, which are no plays")
    for entry in terms.prizes:
        prize_of(entry).check()


def prize_of(entry: DrawPrize) -> Prize:
    """What is given to who gets this prize."""
    return Prize(PrizeKind(entry.kind), entry.amount, entry.benefit_id)


def budget_of(draw_id: uuid.UUID, number: int, entry: DrawPrize) -> Budget | None:
    """Where a prize lies until it is won; None for what has no number, and for nothing."""
    prize = prize_of(entry)
    if entry.quantity is None or prize.kind is PrizeKind.NOTHING:
        return None
    # One for each prize: a budget of prizes of several sizes would be left with pieces too small for the large ones.
    stripes = min(BUDGET_STRIPES_MAX, entry.quantity)
    return Budget(derived_id("draw-prize", draw_id, number), prize.asset, stripes)


async def _escrow(session: Session, draw: Draw, number: int, entry: DrawPrize, now: datetime) -> None:
    budget = budget_of(draw.draw_id, number, entry)
    if budget is None or entry.quantity is None:
        return
    if entry.benefit_id is not None:
        await benefits.escrow(session, entry.benefit_id, draw.brand_id, budget, entry.quantity, now)
        return
    source = ledger.issuance(draw.brand_id, budget.asset, draw.draw_id)
    await budgets.fund(session, budget, entry.quantity * entry.amount, source, now, unit=entry.amount)


async def get(session: Session, draw_id: uuid.UUID) -> Draw:
    """Raises DrawUnknown."""
    draw = await session.get(Draw, draw_id)
    if draw is None:
        raise DrawUnknown("no such draw")
    return draw


async def of_brand(session: Session, brand_id: int) -> list[Draw]:
    """Every draw of a brand, latest first."""
    found = await session.exec(select(Draw).where(Draw.brand_id == brand_id).order_by(col(Draw.draw_id).desc()))
    return list(found)


async def open_in_group(session: Session, group_id: int, now: datetime) -> list[Draw]:
    """The draws that members of a group can play now, those that end first in front, at most 20."""
    found = await session.exec(
        select(Draw)
        .where(Draw.group_id == group_id, Draw.state == DrawState.OPEN, Draw.opens_at <= now, Draw.closes_at > now)
        .order_by(col(Draw.closes_at), col(Draw.draw_id))
        .limit(OPEN_LISTED_MAX)
    )
    return list(found)


def terms_of(draw: Draw) -> Terms:
    """The terms as they were published. Raises DrawAltered when they are not those of the commitment."""
    terms = _read_terms(draw.terms, draw.commitment)
    if terms.draw_id != draw.draw_id:
        raise DrawAltered("this draw has the terms of another", hint="Stop it, and find out who did it.")
    return terms


@lru_cache(_TERMS_REMEMBERED)
def _read_terms(text: str, commitment: bytes) -> Terms:
    try:
        terms = parse(json.loads(text))
    except (DrawInvalid, ValueError):
        terms = None
    if terms is None or terms.commitment != commitment:
        raise DrawAltered("this draw's terms were altered", hint="Stop it, and find out who did it.")
    return terms


def unseal(vault: Vault, draw: Draw) -> Sealed:
    """The draw with its seed. Raises DrawAltered and VaultSealBroken."""
    terms = terms_of(draw)
    seed = vault.unseal(draw.seed_sealed, _seal_context(draw.draw_id))
    if fair.seed_hash(seed, draw.draw_id) != terms.seed_hash:
        raise DrawAltered("this draw's seed was altered", hint="Stop it, and find out who did it.")
    return Sealed(draw, terms, seed)


def _seal_context(draw_id: uuid.UUID) -> bytes:
    return b"draw-seed" + draw_id.bytes


async def open_plays(session: Session, draw_id: uuid.UUID, now: datetime) -> Draw:
    """Let members play, between the times that the terms name. Raises DrawUnknown and DrawNotOpen."""
    draw = await get(session, draw_id)
    terms_of(draw)
    if draw.closes_at <= now:
        raise DrawNotOpen("this draw's time is over", hint="Close it, and its prizes go back.")
    return await _advance(session, draw_id, DrawState.OPEN, (DrawState.PUBLISHED,))


async def close(session: Session, draw_id: uuid.UUID, now: datetime) -> Draw:
    """End the plays for good: every chain's end is published, and what nobody won goes back.

    Waits for plays that are under way. Raises DrawUnknown and DrawNotOpen.
    """
    draw = await get(session, draw_id)
    terms = terms_of(draw)
    # Takes the draw's row from every play that is under way, so that the chains have ended when they are read.
    locked = await session.exec(select(Draw.state).where(Draw.draw_id == draw_id).with_for_update())
    if locked.one() not in (DrawState.PUBLISHED, DrawState.OPEN):
        raise DrawNotOpen(f"this draw is {draw.state}")
    stripes = await session.exec(
        select(DrawStripe).where(DrawStripe.draw_id == draw_id).order_by(col(DrawStripe.stripe))
    )
    ends = [StripeEnd(stripe.plays, stripe.head) for stripe in stripes]
    closing = fair.canonical(record.closing(terms, ends, now)).decode()
    closed = await _advance(session, draw_id, DrawState.CLOSED, (DrawState.PUBLISHED, DrawState.OPEN), closing=closing)
    for number, entry in enumerate(terms.prizes):
        await _give_back(session, closed, number, entry, now)
    return closed


async def _give_back(session: Session, draw: Draw, number: int, entry: DrawPrize, now: datetime) -> None:
    budget = budget_of(draw.draw_id, number, entry)
    if budget is None:
        return
    held = {account: left for account, left in (await ledger.balances_of(session, budget.accounts)).items() if left}
    if held:
        legs = [Leg(account, -left) for account, left in held.items()]
        back = returns_to(draw, budget.asset)
        if entry.benefit_id is not None:
            back = stock.put_back(await benefit_catalogue.get(session, entry.benefit_id), draw.draw_id)
        legs.append(Leg(back, sum(held.values())))
        transfer_id = derived_id("draw-prize-left", draw.draw_id, number)
        await ledger.post(session, Transfer(transfer_id, "draw prizes left", tuple(legs)), now)


def returns_to(draw: Draw, asset: str) -> AccountId:
    """Where what nobody won goes at the close, and what cannot be delivered at any time: it is nobody's prize again."""
    return ledger.issuance(draw.brand_id, asset, draw.draw_id)


async def reveal(session: Session, vault: Vault, draw_id: uuid.UUID, now: datetime) -> Draw:
    """Publish the seed of a closed draw: from then on anybody can recompute it. Raises DrawUnknown, DrawNotOpen."""
    sealed = unseal(vault, await get(session, draw_id))
    return await _advance(session, draw_id, DrawState.REVEALED, (DrawState.CLOSED,), seed=sealed.seed, revealed_at=now)


async def _advance(
    session: Session, draw_id: uuid.UUID, to: DrawState, from_: tuple[DrawState, ...], **values: Any
) -> Draw:
    changed = await session.exec(
        update(Draw)
        .where(col(Draw.draw_id) == draw_id, col(Draw.state).in_(from_))
        .values(state=to, **values)
        .returning(Draw)
        .execution_options(populate_existing=True)
    )
    draw: Draw | None = changed.scalar_one_or_none()
    if draw is None:
        state = (await get(session, draw_id)).state
        needed = " or ".join(from_)
        raise DrawNotOpen(f"this draw is {state}; only one that is {needed} can become {to}")
    return draw


def closing_of(draw: Draw) -> dict[str, Any] | None:
    """What was published at the close, None before."""
    closing: dict[str, Any] | None = None if draw.closing is None else json.loads(draw.closing)
    return closing
