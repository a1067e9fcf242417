"""The catalogue of benefits: what a brand gives or sells for points, at which price for which tier, and until when."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, Text, delete, update
from sqlmodel import Field, SQLModel, col, select

from kit import paging
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.paging import Position

NAME_CHARACTERS_MAX = 80
TEXT_CHARACTERS_MAX = 500
VALUE_FEN_MAX = 5_000_000
"""¥50,000, the most that a prize may be worth in China."""
POINTS_MAX = 1_000_000
MEGABYTES_MAX = 10_240
PRICE_POINTS_MAX = 10_000_000
TIER_RANK_MAX = 20
VALID_DAYS_MAX = 1_095
MEMBER_LIMIT_MAX = 1_000_000
STRIPES_DEFAULT = 16
STRIPES_MAX = 64
FEN_A_POINT_MAX = 1_000
"""A benefit whose point is worth more than ¥10 is taken for a slip, unless its maker is sure."""
PRICE_STEP_MAX = 20
"""A tier that pays more than 20 times what the next one pays is taken for a slip, unless its maker is sure."""
BENEFITS_LISTED_MAX = 1_000


class BenefitKind(StrEnum):
    """What a benefit is made of."""

    POINTS = "points"
    """A pack of points, credited at once."""
    DATA = "data"
    """Mobile data, ordered from the carrier at once."""
    COUPON = "coupon"
    """A code of our own, checked off in a shop."""
    POOL = "pool"
    """A code of somebody else's, out of an imported pool."""
    GOODS = "goods"
    """A thing that is sent to the member's address."""
    CASH = "cash"
    """A red packet, paid when the member opens it."""


class BenefitStatus(StrEnum):
    """Whether the brand lets the benefit be given."""

    ACTIVE = "active"
    PAUSED = "paused"


CODED = frozenset({BenefitKind.COUPON, BenefitKind.POOL})
"""Kinds that carry a code, and are checked off in a shop."""
AT_ONCE = frozenset({BenefitKind.POINTS, BenefitKind.DATA})
"""Kinds that are used in the moment in which they are given."""
_AMOUNT_MAX = {
    BenefitKind.POINTS: POINTS_MAX,
    BenefitKind.DATA: MEGABYTES_MAX,
    BenefitKind.CASH: VALUE_FEN_MAX,
}


class BenefitInvalid(Invalid):
    """A benefit cannot be like this; the message names the field."""

    code = "BenefitInvalid"


class BenefitSuspicious(Invalid):
    """A figure looks like a slip of the decimal point or the unit; who is sure says so and gets it."""

    code = "BenefitSuspicious"


class BenefitUnknown(NotFound):
    """There is no such benefit, or not for this member's group."""

    code = "BenefitUnknown"


class BenefitNotOpen(Conflict):
    """The benefit is not given now: too early, too late, or paused. `state` says which."""

    code = "BenefitNotOpen"

    def __init__(self, state: str) -> None:
        super().__init__(f"this benefit is not given now: {state}")
        self.state = state


class Benefit(SQLModel, table=True):
    """What a brand gives. Small and read often: a reference table."""

    __tablename__: ClassVar[str] = "benefit"
    __table_args__ = (
        CheckConstraint(f"kind IN ({', '.join(repr(str(kind)) for kind in BenefitKind)})", name="kind"),
        CheckConstraint("status IN ('active', 'paused')", name="status"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint(f"value_fen BETWEEN 0 AND {VALUE_FEN_MAX}", name="value_fen"),
        CheckConstraint(f"cost_fen BETWEEN 0 AND {VALUE_FEN_MAX}", name="cost_fen"),
        CheckConstraint(f"valid_days BETWEEN 0 AND {VALID_DAYS_MAX}", name="valid_days"),
        CheckConstraint("limit_total IS NULL OR limit_total > 0", name="limit_total"),
        CheckConstraint("limit_a_day IS NULL OR limit_a_day > 0", name="limit_a_day"),
        CheckConstraint(f"stripes BETWEEN 1 AND {STRIPES_MAX}", name="stripes"),
        CheckConstraint("starts_at < ends_at", name="period"),
    )

    benefit_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    group_id: int
    kind: str = Field(sa_type=Text)
    name_zh: str = Field(sa_type=Text)
    name_en: str = Field(sa_type=Text)
    text_zh: str = Field(sa_type=Text)
    text_en: str = Field(sa_type=Text)
    amount: int = Field(sa_type=BigInteger)
    """Points, megabytes or fen of those kinds; 1 of the others."""
    value_fen: int = Field(sa_type=BigInteger)
    cost_fen: int = Field(sa_type=BigInteger)
    valid_days: int
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    starts_at: datetime = Field(sa_type=Moment)
    ends_at: datetime = Field(sa_type=Moment)
    limit_total: int | None = None
    limit_a_day: int | None = None
    stackable: bool
    stripes: int
    status: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)

    def name(self, language: str) -> str:
        return self.name_zh if language == "zh" else self.name_en


class BenefitPrice(SQLModel, table=True):
    """What members of a tier and of those above it pay, up to the next row. Below the lowest row: not for sale."""

    __tablename__: ClassVar[str] = "benefit_price"
    __table_args__ = (
        CheckConstraint(f"tier_rank BETWEEN 0 AND {TIER_RANK_MAX}", name="tier_rank"),
        CheckConstraint(f"points BETWEEN 0 AND {PRICE_POINTS_MAX}", name="points"),
    )

    benefit_id: uuid.UUID = Field(primary_key=True)
    tier_rank: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    points: int = Field(sa_type=BigInteger)


@dataclass(frozen=True)
class NewBenefit:
    """A benefit to be made. `prices`: points by the lowest tier's rank that pays them; none: it is only granted.

    It ends `valid_days` after it was given or at `expires_at`, whichever is first. `cost_fen` is what one costs the
    brand, `value_fen` what it is worth to the member.
    """

    brand_id: int
    group_id: int
    kind: BenefitKind
    name_zh: str
    name_en: str
    starts_at: datetime
    ends_at: datetime
    text_zh: str = ""
    text_en: str = ""
    amount: int = 1
    value_fen: int = 0
    cost_fen: int = 0
    valid_days: int = 0
    expires_at: datetime | None = None
    limit_total: int | None = None
    limit_a_day: int | None = None
    stackable: bool = False
    stripes: int = STRIPES_DEFAULT
    prices: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Priced:
    """A benefit and its prices by tier rank."""

    benefit: Benefit
    prices: Mapping[int, int]


async def create(session: Session, new: NewBenefit, now: datetime, *, sure: bool = False) -> Benefit:
    """Make a benefit, without stock. Raises BenefitInvalid, and BenefitSuspicious unless the caller is sure."""
    check(new, now, sure=sure)
    benefit = Benefit(
        benefit_id=new_id(),
        status=BenefitStatus.ACTIVE,
        created_at=now,
        **{name: value for name, value in vars(new).items() if name != "prices"},
    )
    session.add(benefit)
    _add_prices(session, benefit.benefit_id, new.prices)
    await session.flush()
    return benefit


def check(new: NewBenefit, now: datetime, *, sure: bool = False) -> None:
    """Check a benefit without making it. Raises BenefitInvalid and BenefitSuspicious, naming the field."""
    for fault, wrong in _faults(new, now):
        if wrong:
            raise BenefitInvalid(fault)
    _check_prices(new.kind, new.prices)
    if not sure:
        _suspect(new.value_fen, new.limit_total, new.prices)


def _faults(new: NewBenefit, now: datetime) -> list[tuple[str, bool]]:
    names, texts = (new.name_zh, new.name_en), (new.text_zh, new.text_en)
    amount_max = _AMOUNT_MAX.get(new.kind, 1)
    limits = (new.limit_total, new.limit_a_day)
    return [
        (
            f"name_zh and name_en: 1 to {NAME_CHARACTERS_MAX} printable characters",
            not all(1 <= len(name) <= NAME_CHARACTERS_MAX and name.isprintable() for name in names),
        ),
        (
            f"text_zh and text_en: at most {TEXT_CHARACTERS_MAX} characters",
            any(len(text) > TEXT_CHARACTERS_MAX or "\x00" in text for text in texts),
        ),
        (f"amount: 1 to {amount_max} for {new.kind}", not 1 <= new.amount <= amount_max),
        (f"value_fen: 0 to {VALUE_FEN_MAX} (¥50,000)", not 0 <= new.value_fen <= VALUE_FEN_MAX),
        (
            "cost_fen: 0 to value_fen; what costs more than it is worth is a wrong unit",
            not 0 <= new.cost_fen <= new.value_fen,
        ),
        ("value_fen: the amount, for cash", new.kind is BenefitKind.CASH and new.value_fen != new.amount),
        (f"valid_days: 0 to {VALID_DAYS_MAX}", not 0 <= new.valid_days <= VALID_DAYS_MAX),
        (
            f"valid_days or expires_at: {new.kind} must end some day",
            new.kind not in AT_ONCE and not new.valid_days and new.expires_at is None,
        ),
        (
            "expires_at: after starts_at, and in the future",
            new.expires_at is not None and new.expires_at <= max(now, new.starts_at),
        ),
        ("ends_at: after starts_at, and in the future", not (new.starts_at < new.ends_at and now < new.ends_at)),
        (
            f"limit_total and limit_a_day: 1 to {MEMBER_LIMIT_MAX}",
            any(limit is not None and not 1 <= limit <= MEMBER_LIMIT_MAX for limit in limits),
        ),
        (f"stripes: 1 to {STRIPES_MAX}", not 1 <= new.stripes <= STRIPES_MAX),
    ]


def _check_prices(kind: str, prices: Mapping[int, int]) -> None:
    if prices and kind == BenefitKind.POINTS:
        raise BenefitInvalid("prices: points are not sold for points")
    for rank, points in prices.items():
        if not 0 <= rank <= TIER_RANK_MAX:
            raise BenefitInvalid(f"prices: a tier's rank is 0 to {TIER_RANK_MAX}")
        if not 0 <= points <= PRICE_POINTS_MAX:
            raise BenefitInvalid(f"prices: 0 to {PRICE_POINTS_MAX} points")


def _suspect(value_fen: int, limit_total: int | None, prices: Mapping[int, int]) -> None:
    hint = "Look again for a decimal point or a wrong unit; if it is meant, say that you are sure (--sure)."
    by_rank = [points for _rank, points in sorted(prices.items())]
    for lower, higher in pairwise(by_rank):
        if higher > lower:
            raise BenefitSuspicious(
                f"prices: a higher tier pays more ({higher} points) than a lower ({lower})", hint=hint
            )
        if lower > max(higher, 1) * PRICE_STEP_MAX:
            raise BenefitSuspicious(
                f"prices: {lower} points beside {higher} is more than {PRICE_STEP_MAX} times as much", hint=hint
            )
    for points in by_rank:
        if points and value_fen > points * FEN_A_POINT_MAX:
            raise BenefitSuspicious(
                f"prices: {points} points for a value of {value_fen} fen makes a point worth "
                f"{value_fen / points / 100:,.2f} yuan",
                hint=hint,
            )
        if not points and value_fen and limit_total is None:
            raise BenefitSuspicious("prices: free for everybody, and without a limit a member", hint=hint)


def _add_prices(session: Session, benefit_id: uuid.UUID, prices: Mapping[int, int]) -> None:
    session.add_all(
        BenefitPrice(benefit_id=benefit_id, tier_rank=rank, points=points) for rank, points in prices.items()
    )


async def set_prices(session: Session, benefit_id: uuid.UUID, prices: Mapping[int, int], *, sure: bool = False) -> None:
    """Replace all prices of a benefit; none takes it off sale.

    Raises BenefitUnknown, BenefitInvalid, and BenefitSuspicious unless the caller is sure.
    """
    benefit = await get(session, benefit_id)
    _check_prices(benefit.kind, prices)
    if not sure:
        _suspect(benefit.value_fen, benefit.limit_total, prices)
    await session.exec(delete(BenefitPrice).where(col(BenefitPrice.benefit_id) == benefit_id))
    _add_prices(session, benefit_id, prices)
    await session.flush()


async def set_status(session: Session, benefit_id: uuid.UUID, status: BenefitStatus) -> None:
    """Stop giving a benefit, or give it again; what members hold stays good. Raises BenefitUnknown."""
    changed = await session.exec(
        update(Benefit)
        .where(col(Benefit.benefit_id) == benefit_id)
        .values(status=status)
        .returning(col(Benefit.benefit_id))
    )
    if changed.first() is None:
        raise BenefitUnknown("no such benefit")


async def get(session: Session, benefit_id: uuid.UUID) -> Benefit:
    """Raises BenefitUnknown."""
    benefit = await session.get(Benefit, benefit_id)
    if benefit is None:
        raise BenefitUnknown("no such benefit")
    return benefit


async def named(session: Session, benefit_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Benefit]:
    """Benefits by their ids; those that are not there are left out."""
    found = await session.exec(select(Benefit).where(col(Benefit.benefit_id).in_(benefit_ids)))
    return {benefit.benefit_id: benefit for benefit in found}


async def of_brand_named(session: Session, brand_id: int, benefit_id: uuid.UUID) -> Benefit:
    """A benefit of this brand. Raises BenefitUnknown."""
    benefit = await get(session, benefit_id)
    if benefit.brand_id != brand_id:
        raise BenefitUnknown("this brand has no such benefit")
    return benefit


async def prices_of(session: Session, benefit_id: uuid.UUID) -> dict[int, int]:
    """Points by the lowest tier's rank that pays them."""
    rows = await session.exec(select(BenefitPrice).where(BenefitPrice.benefit_id == benefit_id))
    return {row.tier_rank: row.points for row in rows}


async def of_brand(session: Session, brand_id: int) -> list[Priced]:
    """Every benefit of a brand, latest first, at most 1,000."""
    found = await session.exec(
        select(Benefit)
        .where(Benefit.brand_id == brand_id)
        .order_by(col(Benefit.created_at).desc(), col(Benefit.benefit_id).desc())
        .limit(BENEFITS_LISTED_MAX)
    )
    return await _priced(session, list(found))


async def on_offer(session: Session, brand_id: int, now: datetime, after: Position | None, count: int) -> list[Priced]:
    """Benefits that members can buy now, latest first."""
    wanted = select(Benefit).where(
        Benefit.brand_id == brand_id,
        Benefit.status == BenefitStatus.ACTIVE,
        Benefit.starts_at <= now,
        Benefit.ends_at > now,
        col(Benefit.benefit_id).in_(select(BenefitPrice.benefit_id)),
    )
    page = paging.newest_first(wanted, col(Benefit.created_at), col(Benefit.benefit_id), after, count)
    return await _priced(session, list((await session.exec(page)).all()))


async def _priced(session: Session, benefits: Sequence[Benefit]) -> list[Priced]:
    prices: dict[uuid.UUID, dict[int, int]] = {benefit.benefit_id: {} for benefit in benefits}
    for row in await session.exec(select(BenefitPrice).where(col(BenefitPrice.benefit_id).in_(prices))):
        prices[row.benefit_id][row.tier_rank] = row.points
    return [Priced(benefit, prices[benefit.benefit_id]) for benefit in benefits]


def expiry(benefit: Benefit, now: datetime) -> datetime | None:
    """When one that is given now ends; None: never, since it is used at once."""
    by_days = now + timedelta(days=benefit.valid_days) if benefit.valid_days else None
    ends = [end for end in (by_days, benefit.expires_at) if end is not None]
    return min(ends) if ends else None


def require_open(benefit: Benefit, now: datetime) -> None:
    """Raises BenefitNotOpen."""
    if benefit.status == BenefitStatus.PAUSED:
        raise BenefitNotOpen("paused")
    if now < benefit.starts_at:
        raise BenefitNotOpen("not started")
    if now >= benefit.ends_at or (benefit.expires_at is not None and now >= benefit.expires_at):
        raise BenefitNotOpen("ended")
