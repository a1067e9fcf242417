"""Refunds: what a purchase earned is taken back in proportion, also when it was spent, and never more than it earned.

Of each part of a purchase, points are taken back so that what stays is rounded down: however a sum is given back in
pieces, the pieces take back just what the whole would.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, LargeBinary, Text, bindparam, update
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Field, SQLModel, col, select

from kit.clock import iso
from kit.db import Moment, Session, table_of
from kit.errors import Conflict, Invalid
from kit.ids import derived_id
from loyalty import experience, ledger, members, points_owed, tiers, webhooks
from loyalty.experience import EntryKind, Figures
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer
from loyalty.members import Member
from loyalty.purchases import (
    LINES_MAX,
    Purchase,
    PurchasePart,
    PurchaseUnknown,
    Receipt,
    balance_of,
)
from loyalty.tier_rules import Tier
from loyalty.tiers import NewEntry
from loyalty.webhooks import WebhookKind

NAME_CHARACTERS_MAX = 64
_TRIES = 5


class RefundInvalid(Invalid):
    """A refund cannot be like this; the message names the field."""

    code = "RefundInvalid"


class RefundTooLarge(Conflict):
    """More would be refunded than was bought, or than is left after earlier refunds."""

    code = "RefundTooLarge"


class RefundReused(Conflict):
    """The shop has told of this refund before, with other content."""

    code = "RefundReused"


class Refund(SQLModel, table=True):
    """What was given back of a purchase. `points_taken` and `points_short` sum to what it takes back of the points.

    Points are short when they were spent and the group's policy lets nobody owe as many; they are owed, and the next
    purchases pay them.
    """

    __tablename__: ClassVar[str] = "refund"
    __table_args__ = (
        CheckConstraint("fen > 0", name="fen"),
        CheckConstraint("points_taken >= 0 AND points_short >= 0", name="points"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    refund_id: uuid.UUID = Field(primary_key=True)
    purchase_id: uuid.UUID
    name: str = Field(sa_type=Text)
    fen: int = Field(sa_type=BigInteger)
    parts: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    points_taken: int = Field(sa_type=BigInteger)
    points_short: int = Field(sa_type=BigInteger)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class RefundLine:
    """`number` counts the purchase's lines from 1. `quantity` is for the record; `fen` decides."""

    number: int
    fen: int
    quantity: int = 0


@dataclass(frozen=True)
class NewRefund:
    """A refund as a shop tells of it: of lines, or of an amount; with neither, of all that is left.

    An amount alone is taken from the parts that earned most for their price, so that it never leaves more points than
    naming the lines would. `name` is the shop's own number of it, unique for the purchase. `brand_id` None: any brand.
    """

    purchase_id: uuid.UUID
    brand_id: int | None
    name: str
    fen: int | None = None
    lines: tuple[RefundLine, ...] = ()


@dataclass(frozen=True)
class Refunded:
    """What a refund did, how many points the member has now, and his tier."""

    refund: Refund
    refunded_fen: int
    """Of the purchase, by all its refunds."""
    balance: int
    tier: Tier
    is_new: bool


async def refund(session: Session, new: NewRefund, now: datetime) -> Refunded:
    """Record a refund once: the same name with the same content answers as before.

    Raises RefundInvalid, PurchaseUnknown (also when the refund comes before its purchase: send it again later),
    RefundTooLarge and RefundReused.
    """
    _check(new)
    receipt = await session.get(Receipt, new.purchase_id)
    if receipt is None or new.brand_id not in (None, receipt.brand_id):
        raise PurchaseUnknown(
            "there is no such purchase", hint="Record the purchase first, then send its refund again."
        )
    owner_id = receipt.member_id
    # One refund of a purchase after the other.
    turn = await tiers.take(session, owner_id, receipt.brand_id, now, takes_back=True)
    purchase = await session.get_one(Purchase, (owner_id, new.purchase_id), populate_existing=True)
    refund_id = derived_id("refund", new.purchase_id, new.name)
    earlier = await session.get(Refund, (owner_id, refund_id))
    # Only now, and with the card of whoever acts for the buyer, in the order in which merges lock cards and accounts.
    holder, other = await _held_by(session, turn, now)
    holder_id = holder.member_id
    if earlier is not None:
        if earlier.fingerprint != _fingerprint(new):
            raise RefundReused(
                "the shop has told of this refund before, with other content", hint="Give each refund its own number."
            )
        balance = await balance_of(session, holder_id)
        return Refunded(earlier, purchase.refunded_fen, balance, other.tier, is_new=False)
    shares = shares_of(new, purchase, await _parts_of(session, purchase))
    points = await _take_back(session, shares)
    fen = sum(share[1] for share in shares)
    await _note(session, purchase, fen, points)
    taken, balance = await _take_points(session, refund_id, purchase, holder, points, now)
    made = Refund(
        member_id=owner_id,
        refund_id=refund_id,
        purchase_id=purchase.purchase_id,
        name=new.name,
        fen=fen,
        parts=[{"number": part.number, "fen": fen, "quantity": quantity} for part, fen, quantity in shares],
        points_taken=taken,
        points_short=points - taken,
        fingerprint=_fingerprint(new),
        at=now,
    )
    session.add(made)
    await session.flush()
    await _uncount(session, turn, other, purchase, made)
    await _tell(session, purchase, made, now)
    return Refunded(made, purchase.refunded_fen, balance, other.tier, is_new=True)


def _check(new: NewRefund) -> None:
    numbers = [line.number for line in new.lines]
    faults = [
        (
            f"name: 1 to {NAME_CHARACTERS_MAX} printable characters",
            not (1 <= len(new.name) <= NAME_CHARACTERS_MAX and new.name.isprintable()),
        ),
        ("fen: more than zero", new.fen is not None and new.fen <= 0),
        ("fen or lines, not both", new.fen is not None and bool(new.lines)),
        (f"lines: at most {LINES_MAX}, each once", len(numbers) > LINES_MAX or len(set(numbers)) != len(numbers)),
        (
            "lines: each a number from 1, fen of more than zero, and a quantity",
            not all(line.number > 0 and line.fen > 0 and line.quantity >= 0 for line in new.lines),
        ),
    ]
    for fault, wrong in faults:
        if wrong:
            raise RefundInvalid(fault)


def _fingerprint(new: NewRefund) -> bytes:
    content = [new.fen, [[line.number, line.fen, line.quantity] for line in new.lines]]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).digest()


async def _held_by(session: Session, turn: tiers.Turn, now: datetime) -> tuple[Member, tiers.Turn]:
    """Who acts for the buyer, and the turn of his card: while it was waited for he may have been merged on."""
    other, brand_id = turn, turn.card.brand_id
    while True:
        holder = await members.acting_for(session, turn.card.member_id)
        if holder.member_id == other.card.member_id:
            return holder, other
        await members.join_brand(session, holder.member_id, brand_id, now)
        other = await tiers.take(session, holder.member_id, brand_id, now, takes_back=True)


async def _parts_of(session: Session, purchase: Purchase) -> list[PurchasePart]:
    found = await session.exec(
        select(PurchasePart)
        .where(PurchasePart.member_id == purchase.member_id, PurchasePart.purchase_id == purchase.purchase_id)
        .order_by(col(PurchasePart.number))
        .execution_options(populate_existing=True)
    )
    return list(found)


Share = tuple[PurchasePart, int, int]
"""Fen and quantity that a refund gives back of a part."""


def shares_of(new: NewRefund, purchase: Purchase, parts: Sequence[PurchasePart]) -> list[Share]:
    """What a refund gives back of each part. Raises RefundInvalid and RefundTooLarge."""
    left = purchase.paid_fen - purchase.refunded_fen
    if new.lines:
        by_number = {part.number: part for part in parts}
        if not all(line.number in by_number for line in new.lines):
            raise RefundInvalid(f"lines: the purchase has {len(parts) - 1}")
        return [(by_number[line.number], line.fen, line.quantity) for line in new.lines]
    wanted = left if new.fen is None else new.fen
    if not 0 < wanted <= left:
        raise RefundTooLarge(f"{left} fen of this purchase are left to be refunded")
    shares: list[Share] = []
    for part in sorted(parts, key=_best_earning):
        fen = min(wanted, part.fen - part.refunded_fen)
        whole = fen == part.fen - part.refunded_fen
        if fen:
            shares.append((part, fen, part.quantity - part.refunded_quantity if whole else 0))
        wanted -= fen
    return shares


def _best_earning(part: PurchasePart) -> tuple[int, int]:
    # In whole numbers: parts of one purchase cost less than 10^9 fen.
    return -(part.points * 10**9 // part.fen if part.fen else 0), part.number


def points_back(part: PurchasePart, fen: int) -> int:
    """The points that giving back so much more of a part takes back: what stays is rounded down."""
    left = max(0, part.fen - part.refunded_fen - fen)
    kept = part.points * left // part.fen if part.fen else 0
    return part.points - kept - part.points_back


async def _take_back(session: Session, shares: Sequence[Share]) -> int:
    """Note what is given back of each part; the points that it takes back. Raises RefundTooLarge."""
    rows, points = [], 0
    for part, fen, quantity in shares:
        back = points_back(part, fen)
        points += back
        fen_left, quantity_left = part.fen - part.refunded_fen, part.quantity - part.refunded_quantity
        if fen > fen_left or quantity > quantity_left:
            raise RefundTooLarge(
                f"line {part.number} has {fen_left} fen and a quantity of {quantity_left} left to be refunded"
            )
        key = {"member": part.member_id, "purchase": part.purchase_id, "part": part.number}
        rows.append(key | {"before": part.refunded_fen, "given": fen, "items": quantity, "back": back})
    done = await (await session.connection()).execute(_TAKING_BACK, rows)
    if done.rowcount != len(rows):
        raise RefundTooLarge("another refund of this purchase came first", hint="Look at what is left of it.")
    return points


_PARTS = table_of(PurchasePart)
_TAKING_BACK = (
    update(_PARTS)
    .where(
        _PARTS.c.member_id == bindparam("member"),
        _PARTS.c.purchase_id == bindparam("purchase"),
        _PARTS.c.number == bindparam("part"),
        _PARTS.c.refunded_fen == bindparam("before"),
    )
    .values(
        refunded_fen=_PARTS.c.refunded_fen + bindparam("given"),
        refunded_quantity=_PARTS.c.refunded_quantity + bindparam("items"),
        points_back=_PARTS.c.points_back + bindparam("back"),
    )
)


async def _note(session: Session, purchase: Purchase, fen: int, points: int) -> None:
    changed = await session.exec(
        update(Purchase)
        .where(
            col(Purchase.member_id) == purchase.member_id,
            col(Purchase.purchase_id) == purchase.purchase_id,
            col(Purchase.refunded_fen) + fen <= col(Purchase.paid_fen),
        )
        .values(refunded_fen=Purchase.refunded_fen + fen, points_back=Purchase.points_back + points)
        .returning(col(Purchase.refunded_fen), col(Purchase.points_back))
        .execution_options(synchronize_session=False)
    )
    row = changed.first()
    if row is None:
        raise RefundTooLarge("more would be refunded than was paid")
    set_committed_value(purchase, "refunded_fen", row[0])
    set_committed_value(purchase, "points_back", row[1])


async def _take_points(
    session: Session, refund_id: uuid.UUID, purchase: Purchase, member: Member, points: int, now: datetime
) -> tuple[int, int]:
    """Take points off the member's account, as many as may be; what is short is owed.

    How many were taken, and the balance after it.
    """
    member_id = member.member_id
    debt_max = (await ledger.policy_of(session, member.group_id)).debt_max_points if points else 0
    taken, after = 0, None
    for _try in range(_TRIES if points else 0):
        balance = await ledger.spendable(session, member_id, now)
        amount = min(points, max(0, balance + debt_max))
        if not amount:
            break
        try:
            async with session.begin_nested():  # he may be spending just now, and then less is there than we saw
                posted = await ledger.post(session, _reversal(refund_id, purchase, member_id, amount), now)
        except InsufficientBalance:
            continue
        taken, after = amount, posted.balances[AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)]
        break
    if taken < points:
        await points_owed.owe(session, member_id, points - taken)
    return taken, await balance_of(session, member_id) if after is None else after


def _reversal(refund_id: uuid.UUID, purchase: Purchase, member_id: uuid.UUID, amount: int) -> Transfer:
    account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
    source = ledger.issuance(purchase.brand_id, ledger.POINTS, purchase.member_id)
    legs = (Leg(account, -amount), Leg(source, amount))
    return Transfer(refund_id, "refund", legs, undoes=purchase.purchase_id, may_owe=True)


async def _uncount(session: Session, turn: tiers.Turn, other: tiers.Turn, purchase: Purchase, made: Refund) -> None:
    """Take back what the purchase counted, on its own card and on that of whoever the member was merged into."""
    rules = turn.book.version(purchase.rules_version)
    left = purchase.paid_fen - purchase.refunded_fen
    after, before = rules.of_purchase(left), rules.of_purchase(left + made.fen)
    figures = Figures(after.purchases - before.purchases, after.fen - before.fen, after.experience - before.experience)
    await turn.enter(NewEntry(made.refund_id, EntryKind.REFUND, figures, purchase.at, of_entry=purchase.purchase_id))
    if other is turn:
        return
    copy = await experience.copy_of(session, other.card.member_id, purchase.brand_id, purchase.purchase_id)
    if copy is not None:
        await other.enter(NewEntry(made.refund_id, EntryKind.REFUND, figures, purchase.at, of_entry=copy.entry_id))


async def _tell(session: Session, purchase: Purchase, made: Refund, now: datetime) -> None:
    data = {
        "refund_id": str(made.refund_id),
        "purchase_id": str(made.purchase_id),
        "member_id": str(made.member_id),
        "name": made.name,
        "fen": made.fen,
        "points_taken": made.points_taken,
        "points_short": made.points_short,
        "at": iso(made.at),
    }
    await webhooks.emit(session, purchase.brand_id, WebhookKind.PURCHASE_REFUNDED, made.refund_id, data, now)
