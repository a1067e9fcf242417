"""Purchases that tills and online shops post: each earns points and experience once, under the receipt's own number.

A purchase is a transfer of points from the brand's issuance, an experience entry, and rows here that say what each part
of it earned, so that a refund can take back exactly that.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Insert, Integer, LargeBinary, Text, Uuid, bindparam, update
from sqlmodel import Field, SQLModel, col, select

from kit.clock import iso
from kit.db import Moment, Session, insert_into, is_postgresql, table_of
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import earn_rules, ledger, members, merge_moves, news, points_owed, tasks, tier_rules, tiers, webhooks
from loyalty.earn_rules import GTIN_DIGITS, PAID_FEN_MAX, Part, Quote
from loyalty.experience import EntryKind, Figures
from loyalty.ledger import Account, AccountId, Leg, PointsPolicy, Purpose, Transfer
from loyalty.members import CARD_NUMBER_DIGITS, Card, Member, MemberUnknown
from loyalty.points_owed import PointsOwed
from loyalty.tasks import TaskEvent
from loyalty.tier_rules import Tier
from loyalty.tiers import CardUnknown, NewEntry, Turn
from loyalty.webhooks import WebhookKind

LINES_MAX = 200
QUANTITY_MAX = 1_000_000
RECEIPT_CHARACTERS_MAX = 64
AGE_MAX = timedelta(days=90)
"""How late a shop may tell of a purchase."""
AHEAD_MAX = timedelta(minutes=5)
"""How far a till's clock may be ahead."""


class Channel(StrEnum):
    """Where a purchase was made."""

    STORE = "store"
    ONLINE = "online"


class PurchaseInvalid(Invalid):
    """A purchase cannot be like this; the message names the field."""

    code = "PurchaseInvalid"


class PurchaseUnknown(NotFound):
    """The brand has recorded no such purchase."""

    code = "PurchaseUnknown"


class ReceiptReused(Conflict):
    """The shop has told of this receipt before, with other content."""

    code = "ReceiptReused"


class Receipt(SQLModel, table=True):
    """Whose purchase a receipt was: one shop's receipt is one purchase, whatever member it names later."""

    __tablename__: ClassVar[str] = "receipt"

    purchase_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    member_id: uuid.UUID
    fingerprint: bytes = Field(sa_type=LargeBinary)


class Purchase(SQLModel, table=True):
    """What a member bought at once, what it earned, and what refunds took back. Its transfer has the same id."""

    __tablename__: ClassVar[str] = "purchase"
    __table_args__ = (
        CheckConstraint("channel IN ('store', 'online')", name="channel"),
        CheckConstraint(f"paid_fen BETWEEN 1 AND {PAID_FEN_MAX}", name="paid_fen"),
        CheckConstraint("refunded_fen BETWEEN 0 AND paid_fen", name="refunded_fen"),
        CheckConstraint("points >= 0 AND points_back BETWEEN 0 AND points", name="points"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    purchase_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    receipt: str = Field(sa_type=Text)
    channel: str = Field(sa_type=Text)
    paid_fen: int = Field(sa_type=BigInteger)
    points: int = Field(sa_type=BigInteger)
    rules_version: int
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    refunded_fen: int = Field(default=0, sa_type=BigInteger)
    points_back: int = Field(default=0, sa_type=BigInteger)


class PurchasePart(SQLModel, table=True):
    """A line of a purchase, from number 1; number 0 is what was paid beyond the lines."""

    __tablename__: ClassVar[str] = "purchase_part"
    __table_args__ = (
        CheckConstraint("fen >= 0 AND refunded_fen BETWEEN 0 AND fen", name="fen"),
        CheckConstraint("quantity >= 0 AND refunded_quantity BETWEEN 0 AND quantity", name="quantity"),
        CheckConstraint("points >= 0 AND points_back BETWEEN 0 AND points", name="points"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    purchase_id: uuid.UUID = Field(primary_key=True)
    number: int = Field(primary_key=True)
    gtin: str | None = Field(default=None, sa_type=Text)
    quantity: int
    fen: int = Field(sa_type=BigInteger)
    points: int = Field(sa_type=BigInteger)
    refunded_fen: int = Field(default=0, sa_type=BigInteger)
    refunded_quantity: int = 0
    points_back: int = Field(default=0, sa_type=BigInteger)


@dataclass(frozen=True)
class Line:
    """`fen` is what was paid for the whole line, after every discount."""

    fen: int
    gtin: str | None = None
    quantity: int = 1


@dataclass(frozen=True)
class Buyer:
    """Who bought: exactly one of the three is given."""

    phone: str | None = None
    member_id: uuid.UUID | None = None
    card_number: str | None = None


@dataclass(frozen=True)
class NewPurchase:
    """A purchase as a shop tells of it. `receipt` is the shop's own number of it, unique among its `caller_id`'s."""

    brand_id: int
    group_id: int
    caller_id: uuid.UUID
    receipt: str
    buyer: Buyer
    paid_fen: int
    channel: Channel = Channel.STORE
    lines: tuple[Line, ...] = ()
    at: datetime | None = None
    """None: now."""

    @property
    def purchase_id(self) -> uuid.UUID:
        return derived_id("purchase", self.brand_id, self.caller_id, self.receipt)

    @property
    def parts(self) -> list[Part]:
        """What was paid beyond the lines, and the lines."""
        rest = self.paid_fen - sum(line.fen for line in self.lines)
        return [Part(rest), *(Part(line.fen, line.gtin) for line in self.lines)]


@dataclass(frozen=True)
class Recorded:
    """What a purchase did. `points` were earned, `points_repaid` of them paid what refunds had left owing.

    `balance` is what the member has now; `tier` the one after the purchase.
    """

    purchase: Purchase
    points_repaid: int
    balance: int
    tier: Tier
    card_number: str
    is_new: bool


async def record(session: Session, vault: Vault, new: NewPurchase, now: datetime) -> Recorded:
    """Record a purchase once: the same receipt of the same shop with the same content answers as before.

    A phone number that nobody has becomes a member whose owner is still to be proven, so the purchase is there when he
    signs in. Points by the earn rules that hold at the time of purchase, at the tier that the card has now; experience
    and tier at once. Raises PurchaseInvalid, PhoneInvalid, MemberUnknown and ReceiptReused.
    """
    check(new, now)
    member_id = await buyer_of(session, vault, new.group_id, new.buyer, now)
    asked = _fingerprint(new)
    connection = await session.connection()
    receipt = {"purchase_id": new.purchase_id, "brand_id": new.brand_id, "member_id": member_id, "fingerprint": asked}
    claimed = await connection.execute(_claiming(is_postgresql(session)), receipt)
    if claimed.first() is None:
        return await _recorded_before(session, new, member_id, now)
    turn, joined = await _turn(session, member_id, new.brand_id, now)
    while (holder := await members.acting_for(session, member_id)).member_id != member_id:
        # Merged while we waited for the card: the purchase is the survivor's.
        member_id = holder.member_id
        await session.exec(
            update(Receipt).where(col(Receipt.purchase_id) == new.purchase_id).values(member_id=member_id)
        )
        turn, joined = await _turn(session, member_id, new.brand_id, now)
    # A till's clock may be ahead; nothing that counts for a tier lies in the future.
    at = min(new.at or now, now)
    earned = await _earn(session, member_id, new, turn.state.rank, at)
    rules = turn.book.in_force(now)
    purchase = _purchase(new, member_id, earned, rules.version, at, now)
    await connection.execute(table_of(Purchase).insert(), purchase.model_dump())
    await connection.execute(table_of(PurchasePart).insert(), _parts(new, purchase, earned))
    about = await _circumstances(session, new, member_id)
    repaid, balance = await _credit(session, purchase, about, now) if earned.points else (0, about.balance)
    figures = rules.of_purchase(new.paid_fen)
    await turn.enter(NewEntry(purchase.purchase_id, EntryKind.PURCHASE, figures, purchase.at))
    await _tell(session, purchase, figures, now)
    done = {TaskEvent.BUY: str(purchase.purchase_id)} if about.pays_task else {}
    for event, subject_id in (done | ({TaskEvent.JOIN: str(new.brand_id)} if joined else {})).items():
        await news.leave(
            session, member_id=member_id, brand_id=new.brand_id, event=event, subject_id=subject_id, now=now
        )
    return Recorded(purchase, repaid, balance, turn.tier, turn.card.card_number, is_new=True)


async def _turn(session: Session, member_id: uuid.UUID, brand_id: int, now: datetime) -> tuple[Turn, bool]:
    """The turn of the member's card, and whether he joins only now; most have bought before."""
    try:
        return await tiers.take(session, member_id, brand_id, now), False
    except CardUnknown:
        card = await members.join_brand(session, member_id, brand_id, now)
        return await tiers.take(session, member_id, brand_id, now), card.joined_at == now


@dataclass(frozen=True)
class _Circumstances:
    """What else a purchase depends on, by one statement: what is owed is looked at again under its lock."""

    policy: ledger.Policy
    owed: int
    balance: int
    pays_task: bool


async def _circumstances(session: Session, new: NewPurchase, member_id: uuid.UUID) -> _Circumstances:
    about = {"group": new.group_id, "member": member_id, "brand": new.brand_id}
    found = await (await session.connection()).execute(_CIRCUMSTANCES, about)
    months, owed, balance, pays_task = found.one()
    return _Circumstances(ledger.Policy(lifetime_months=months), owed or 0, balance or 0, pays_task)


_CIRCUMSTANCES = select(
    select(PointsPolicy.lifetime_months).where(PointsPolicy.group_id == bindparam("group")).scalar_subquery(),
    select(PointsOwed.points).where(PointsOwed.member_id == bindparam("member", type_=Uuid())).scalar_subquery(),
    select(Account.balance)
    .where(
        Account.holder_id == bindparam("member", type_=Uuid()),
        Account.asset == ledger.POINTS,
        Account.purpose == Purpose.AVAILABLE,
    )
    .scalar_subquery(),
    tasks.offered(bindparam("brand", type_=Integer()), TaskEvent.BUY),
)


async def quote(
    session: Session, new: NewPurchase, rank: int, member_id: uuid.UUID | None, now: datetime
) -> tuple[Quote, Figures]:
    """What a purchase would earn in points and count for tiers; nothing is changed.

    `member_id`: whose caps a day count. Raises PurchaseInvalid.
    """
    check(new, now)
    at = min(new.at or now, now)
    rules = (await tier_rules.book_of(session, new.brand_id)).in_force(now)
    today = await earn_rules.earned_on(session, member_id, earn_rules.day_of(at)) if member_id else {}
    holding = await earn_rules.rules_at(session, new.brand_id, at)
    return earn_rules.quote(holding, new.parts, rank, today), rules.of_purchase(new.paid_fen)


def check(new: NewPurchase, now: datetime) -> None:
    """Check a purchase without recording it. Raises PurchaseInvalid, naming the field."""
    lines = new.lines
    given = [who for who in (new.buyer.phone, new.buyer.member_id, new.buyer.card_number) if who is not None]
    faults = [
        ("buyer: one of phone, member_id and card_number", len(given) != 1),
        (
            f"receipt: 1 to {RECEIPT_CHARACTERS_MAX} printable characters",
            not (1 <= len(new.receipt) <= RECEIPT_CHARACTERS_MAX and new.receipt.isprintable()),
        ),
        (f"paid_fen: 1 to {PAID_FEN_MAX}", not 1 <= new.paid_fen <= PAID_FEN_MAX),
        (f"lines: at most {LINES_MAX}", len(lines) > LINES_MAX),
        ("lines: fen of zero or more, together at most paid_fen", not _lines_fit(new)),
        (f"quantity: 1 to {QUANTITY_MAX}", not all(1 <= line.quantity <= QUANTITY_MAX for line in lines)),
        (f"gtin: {GTIN_DIGITS} digits", not all(line.gtin is None or _is_gtin(line.gtin) for line in lines)),
        (f"at: not more than {AGE_MAX.days} days ago", new.at is not None and new.at < now - AGE_MAX),
        (f"at: not more than {AHEAD_MAX.seconds // 60} minutes ahead", new.at is not None and new.at > now + AHEAD_MAX),
    ]
    for fault, wrong in faults:
        if wrong:
            raise PurchaseInvalid(fault)


def _lines_fit(new: NewPurchase) -> bool:
    return all(line.fen >= 0 for line in new.lines) and sum(line.fen for line in new.lines) <= new.paid_fen


def _is_gtin(text: str) -> bool:
    return len(text) == GTIN_DIGITS and text.isascii() and text.isdigit()


async def buyer_of(session: Session, vault: Vault, group_id: int, buyer: Buyer, now: datetime) -> uuid.UUID:
    """The member who buys; a phone number that nobody has makes one. Raises PhoneInvalid and MemberUnknown."""
    if buyer.phone is not None:
        member, _is_new = await members.find_or_record(session, vault, group_id, buyer.phone, now)
        return await acting(session, member)
    return await _member_named(session, group_id, buyer)


async def _member_named(session: Session, group_id: int, buyer: Buyer) -> uuid.UUID:
    if buyer.member_id is not None:
        wanted = select(Member).where(Member.member_id == buyer.member_id)
    else:
        wanted = select(Member).join(Card, col(Card.member_id) == Member.member_id)
        wanted = wanted.where(Card.card_number == buyer.card_number).distinct()
    found = list(await session.exec(wanted.where(Member.group_id == group_id).limit(2)))
    if len(found) != 1:
        raise _nobody()
    return await acting(session, found[0])


async def known_buyer(session: Session, vault: Vault, group_id: int, buyer: Buyer) -> uuid.UUID | None:
    """The member who buys; None for a phone number that nobody has. Raises PhoneInvalid and MemberUnknown."""
    if buyer.phone is None:
        return await _member_named(session, group_id, buyer)
    try:
        return await members.member_with(session, vault, group_id, buyer.phone)
    except MemberUnknown:
        return None


async def acting(session: Session, member: Member) -> uuid.UUID:
    """Who acts for a member: himself, or whom he was merged into. Raises MemberUnknown for one who was erased."""
    holder = await members.acting_for(session, member.member_id)
    if holder.phone_sealed is None:
        raise _nobody()
    return holder.member_id


def _nobody() -> MemberUnknown:
    return MemberUnknown(
        "there is no such member in this group",
        hint=f"Send a phone number, or the {CARD_NUMBER_DIGITS} digits of a card.",
    )


async def balance_of(session: Session, member_id: uuid.UUID) -> int:
    """The member's points, which a refund may have taken below zero."""
    account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
    return (await ledger.balances_of(session, [account])).get(account, 0)


async def _earn(session: Session, member_id: uuid.UUID, new: NewPurchase, rank: int, at: datetime) -> Quote:
    day = earn_rules.day_of(at)
    rules = await earn_rules.rules_at(session, new.brand_id, at)
    capped = any(rule.points_per_day_max is not None for rule in rules)
    earned = earn_rules.quote(
        rules, new.parts, rank, await earn_rules.earned_on(session, member_id, day) if capped else {}
    )
    await earn_rules.count_earned(session, member_id, day, rules, earned)
    return earned


async def _credit(session: Session, purchase: Purchase, about: _Circumstances, now: datetime) -> tuple[int, int]:
    """Pay the points out, and at once take of them what is owed; how many that were, and the balance after it."""
    member_id, purchase_id = purchase.member_id, purchase.purchase_id
    # By member and not by purchase: what one transaction posts for one member then has one order of locks.
    source = ledger.issuance(purchase.brand_id, ledger.POINTS, member_id)
    account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
    legs = (Leg(source, -purchase.points), Leg(account, purchase.points))
    expiry = ledger.lot_expiry(about.policy, now)
    posted = await ledger.post(session, Transfer(purchase_id, "purchase", legs, lots_expire_at=expiry), now)
    balance = posted.balances[account]
    repaid = await points_owed.pay(session, member_id, min(purchase.points, max(0, balance))) if about.owed else 0
    if not repaid:
        return 0, balance
    # Of the very points that were earned just now.
    back = Transfer(
        derived_id("points-owed", purchase_id),
        "points owed",
        (Leg(account, -repaid), Leg(source, repaid)),
        undoes=purchase_id,
    )
    return repaid, (await ledger.post(session, back, now)).balances[account]


def _purchase(
    new: NewPurchase, member_id: uuid.UUID, earned: Quote, rules_version: int, at: datetime, now: datetime
) -> Purchase:
    return Purchase(
        member_id=member_id,
        purchase_id=new.purchase_id,
        brand_id=new.brand_id,
        receipt=new.receipt,
        channel=new.channel,
        paid_fen=new.paid_fen,
        points=earned.points,
        rules_version=rules_version,
        at=at,
        recorded_at=now,
    )


def _parts(new: NewPurchase, purchase: Purchase, earned: Quote) -> list[dict[str, Any]]:
    quantities = [0, *(line.quantity for line in new.lines)]
    return [
        {
            "member_id": purchase.member_id,
            "purchase_id": purchase.purchase_id,
            "number": number,
            "gtin": part.gtin,
            "quantity": quantity,
            "fen": part.fen,
            "points": points,
        }
        for number, (part, quantity, points) in enumerate(zip(new.parts, quantities, earned.by_part, strict=True))
    ]


@lru_cache
def _claiming(on_postgresql: bool) -> Insert:
    claiming = insert_into(Receipt, on_postgresql=on_postgresql).on_conflict_do_nothing()
    return claiming.returning(table_of(Receipt).c.purchase_id)


def _fingerprint(new: NewPurchase) -> bytes:
    # Not the buyer: who acts for him may have changed since.
    lines = [[line.gtin, line.quantity, line.fen] for line in new.lines]
    content = [new.paid_fen, new.at and iso(new.at), str(new.channel), lines]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).digest()


async def _recorded_before(session: Session, new: NewPurchase, member_id: uuid.UUID, now: datetime) -> Recorded:
    receipt = await session.get_one(Receipt, new.purchase_id)
    holder = await members.acting_for(session, receipt.member_id)
    is_his = holder.member_id == member_id or await merge_moves.were_one(session, receipt.member_id, member_id)
    if receipt.fingerprint != _fingerprint(new) or not is_his:
        raise ReceiptReused(
            "this shop has told of this receipt before, with other content", hint="Give each purchase its own number."
        )
    purchase = await session.get_one(Purchase, (receipt.member_id, receipt.purchase_id))
    turn, _joined = await _turn(session, holder.member_id, receipt.brand_id, now)
    balance = await balance_of(session, holder.member_id)
    return Recorded(purchase, 0, balance, turn.tier, turn.card.card_number, is_new=False)


async def _tell(session: Session, purchase: Purchase, figures: Figures, now: datetime) -> None:
    data = {
        "purchase_id": str(purchase.purchase_id),
        "member_id": str(purchase.member_id),
        "receipt": purchase.receipt,
        "channel": purchase.channel,
        "paid_fen": purchase.paid_fen,
        "points": purchase.points,
        "experience": figures.experience,
        "at": iso(purchase.at),
    }
    await webhooks.emit(session, purchase.brand_id, WebhookKind.PURCHASE_RECORDED, purchase.purchase_id, data, now)
