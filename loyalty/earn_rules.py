"""Earn rules: how many points a purchase gives. Every fen earns by one rule alone, never by a product of rules.

The best rule comes first: it takes the fen that it is for until its cap, and what is left goes to the next best. So
rules do not stack, and a rule with a cap never gives less than there would be without it. All is whole numbers: a
purchase's points are rounded down once, at the end.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Date, Text, bindparam, delete, update
from sqlmodel import Field, SQLModel, col, select

from kit.clock import CHINA
from kit.db import Moment, Session, insert
from kit.errors import Invalid, NotFound
from kit.ids import new_id

POINTS_PER_YUAN_MILLI_MAX = 100_000
"""A hundred points a yuan."""
POINTS_CAP_MAX = 1_000_000
PAID_FEN_MAX = 10**9
"""¥10,000,000."""
TIER_PERMILLE_MAX = 10_000
"""Ten times."""
TIERS_MAX = 12
RULES_MAX = 100
"""Most rules of one brand that have not ended."""
GTIN_DIGITS = 14
UNITS_A_POINT = 100 * 1_000 * 1_000
"""What is counted: fen × thousandths of a point a yuan × thousandths by tier."""


class EarnRuleInvalid(Invalid):
    """A rule cannot be made like this; the message names the field."""

    code = "EarnRuleInvalid"


class EarnRuleUnknown(NotFound):
    """The brand has no such rule, or it has ended."""

    code = "EarnRuleUnknown"


class EarnRule(SQLModel, table=True):
    """What one brand gives for a yuan. It never changes: it ends, and another begins. A reference table."""

    __tablename__: ClassVar[str] = "earn_rule"
    __table_args__ = (
        CheckConstraint(f"points_per_yuan_milli BETWEEN 1 AND {POINTS_PER_YUAN_MILLI_MAX}", name="rate"),
        CheckConstraint(f"paid_fen_min BETWEEN 0 AND {PAID_FEN_MAX}", name="paid_fen_min"),
        CheckConstraint(
            f"points_per_purchase_max BETWEEN 1 AND {POINTS_CAP_MAX}"
            f" AND points_per_day_max BETWEEN 1 AND {POINTS_CAP_MAX}",
            name="caps",
        ),
        CheckConstraint("ends_at > starts_at", name="period"),
        CheckConstraint("length(gtin_prefix) <= 14", name="gtin_prefix"),
    )

    rule_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    points_per_yuan_milli: int
    paid_fen_min: int = Field(sa_type=BigInteger)
    points_per_purchase_max: int | None = None
    points_per_day_max: int | None = None
    tier_permille: list[int] = Field(sa_column=Column(JSON, nullable=False))
    gtin_prefix: str = Field(default="", sa_type=Text)
    starts_at: datetime = Field(sa_type=Moment)
    ends_at: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)

    def rate(self, rank: int) -> int:
        """Units a fen at a tier; the last of `tier_permille` is that of every higher tier too."""
        permille = self.tier_permille[min(rank, len(self.tier_permille) - 1)] if self.tier_permille else 1_000
        return self.points_per_yuan_milli * permille

    def is_for(self, gtin: str | None) -> bool:
        """Whether the rule is for items with this GTIN; None: of whatever else was bought."""
        return not self.gtin_prefix or (gtin is not None and gtin.startswith(self.gtin_prefix))


class EarnedToday(SQLModel, table=True):
    """What a member has earned by one rule, which has a cap a day, on one day of China, in units."""

    __tablename__: ClassVar[str] = "earned_today"
    __table_args__ = (CheckConstraint("units > 0", name="units"),)

    member_id: uuid.UUID = Field(primary_key=True)
    rule_id: uuid.UUID = Field(primary_key=True)
    day: date = Field(primary_key=True, sa_type=Date)
    units: int = Field(sa_type=BigInteger)


@dataclass(frozen=True)
class NewEarnRule:
    """A rule to be made. `points_per_yuan_milli`: thousandths of a point for each yuan; 1000 is a point a yuan.

    `tier_permille`: by rank, in thousandths; empty: the same for every tier. `gtin_prefix`: digits that the 14-digit
    GTIN of an item begins with; empty: everything. Caps are in points; None: no cap.
    """

    points_per_yuan_milli: int
    starts_at: datetime
    ends_at: datetime | None = None
    paid_fen_min: int = 0
    points_per_purchase_max: int | None = None
    points_per_day_max: int | None = None
    tier_permille: tuple[int, ...] = ()
    gtin_prefix: str = ""


@dataclass(frozen=True)
class Part:
    """A part of a purchase: a line, or what was paid beyond the lines. `gtin` None: of unknown products."""

    fen: int
    gtin: str | None = None


@dataclass(frozen=True)
class Quote:
    """What a purchase earns: points in all; by part, which sum to it; by rule the fen that it took, and their units."""

    points: int
    by_part: tuple[int, ...]
    by_rule: Mapping[uuid.UUID, tuple[int, int]]


def quote(rules: Sequence[EarnRule], parts: Sequence[Part], rank: int, earned_today: Mapping[uuid.UUID, int]) -> Quote:
    """What the parts of one purchase earn at a tier by rules that hold; `earned_today` in units, by rule."""
    paid = sum(part.fen for part in parts)
    left = [part.fen for part in parts]
    units = [0] * len(parts)
    by_rule: dict[uuid.UUID, tuple[int, int]] = {}
    for rule in sorted(rules, key=lambda one: (-one.rate(rank), one.rule_id)):
        rate = rule.rate(rank)
        if not rate or paid < rule.paid_fen_min:
            continue
        room = _room_fen(rule, rate, earned_today.get(rule.rule_id, 0))
        taken = 0
        for number, part in enumerate(parts):
            if rule.is_for(part.gtin):
                fen = left[number] if room is None else min(left[number], room - taken)
                left[number] -= fen
                units[number] += fen * rate
                taken += fen
        if taken:
            by_rule[rule.rule_id] = (taken, taken * rate)
    # Rounded down as a whole: a point goes to the part that completes it.
    sums = [sum(units[: number + 1]) // UNITS_A_POINT for number in range(len(units))]
    by_part = tuple(after - before for before, after in zip([0, *sums], sums, strict=False))
    return Quote(sum(by_part), by_part, by_rule)


def _room_fen(rule: EarnRule, rate: int, earned_today: int) -> int | None:
    rooms = []
    if rule.points_per_purchase_max is not None:
        rooms.append(rule.points_per_purchase_max * UNITS_A_POINT // rate)
    if rule.points_per_day_max is not None:
        rooms.append(max(0, rule.points_per_day_max * UNITS_A_POINT - earned_today) // rate)
    return min(rooms, default=None)


def day_of(moment: datetime) -> date:
    """The day in China."""
    return moment.astimezone(CHINA).date()


async def add(session: Session, brand_id: int, new: NewEarnRule, now: datetime) -> EarnRule:
    """Make a rule. Raises EarnRuleInvalid."""
    for fault, wrong in _faults(new, now):
        if wrong:
            raise EarnRuleInvalid(fault)
    if len(await rules_of(session, brand_id, now)) >= RULES_MAX:
        raise EarnRuleInvalid(f"a brand has at most {RULES_MAX} rules", hint="End rules that are no longer needed.")
    rule = EarnRule(
        rule_id=new_id(),
        brand_id=brand_id,
        points_per_yuan_milli=new.points_per_yuan_milli,
        paid_fen_min=new.paid_fen_min,
        points_per_purchase_max=new.points_per_purchase_max,
        points_per_day_max=new.points_per_day_max,
        tier_permille=list(new.tier_permille),
        gtin_prefix=new.gtin_prefix,
        starts_at=new.starts_at,
        ends_at=new.ends_at,
        created_at=now,
    )
    session.add(rule)
    await session.flush()
    return rule


def _faults(new: NewEarnRule, now: datetime) -> list[tuple[str, bool]]:
    caps = (new.points_per_purchase_max, new.points_per_day_max)
    rate, permille, prefix = new.points_per_yuan_milli, new.tier_permille, new.gtin_prefix
    return [
        (f"points_per_yuan_milli: 1 to {POINTS_PER_YUAN_MILLI_MAX}", not 1 <= rate <= POINTS_PER_YUAN_MILLI_MAX),
        (f"paid_fen_min: 0 to {PAID_FEN_MAX}", not 0 <= new.paid_fen_min <= PAID_FEN_MAX),
        (
            f"points_per_purchase_max and points_per_day_max: 1 to {POINTS_CAP_MAX}",
            not all(cap is None or 1 <= cap <= POINTS_CAP_MAX for cap in caps),
        ),
        (
            f"tier_permille: at most {TIERS_MAX} of 0 to {TIER_PERMILLE_MAX}",
            len(permille) > TIERS_MAX or not all(0 <= one <= TIER_PERMILLE_MAX for one in permille),
        ),
        (
            f"gtin_prefix: at most {GTIN_DIGITS} digits",
            len(prefix) > GTIN_DIGITS or bool(prefix and not (prefix.isascii() and prefix.isdigit())),
        ),
        (
            "ends_at: after starts_at, and in the future",
            new.ends_at is not None and (new.ends_at <= new.starts_at or new.ends_at <= now),
        ),
    ]


async def end(session: Session, brand_id: int, rule_id: uuid.UUID, now: datetime) -> None:
    """End a rule: purchases made from now on do not earn by it; one that has not begun goes. Raises EarnRuleUnknown."""
    gone = await session.exec(
        delete(EarnRule)
        .where(col(EarnRule.rule_id) == rule_id, col(EarnRule.brand_id) == brand_id, col(EarnRule.starts_at) >= now)
        .returning(col(EarnRule.rule_id))
    )
    if gone.first() is not None:
        return
    ended = await session.exec(
        update(EarnRule)
        .where(
            col(EarnRule.rule_id) == rule_id,
            col(EarnRule.brand_id) == brand_id,
            col(EarnRule.ends_at).is_(None) | (col(EarnRule.ends_at) > now),
        )
        .values(ends_at=now)
        .returning(col(EarnRule.rule_id))
    )
    if ended.first() is None:
        raise EarnRuleUnknown("the brand has no such rule, or it has ended")


_AT = bindparam("at", type_=Moment())
_NOT_ENDED = (
    select(EarnRule)
    .where(EarnRule.brand_id == bindparam("brand"), col(EarnRule.ends_at).is_(None) | (col(EarnRule.ends_at) > _AT))
    .order_by(col(EarnRule.rule_id))
)
_HOLDING = _NOT_ENDED.where(col(EarnRule.starts_at) <= _AT)


async def rules_of(session: Session, brand_id: int, now: datetime) -> list[EarnRule]:
    """The brand's rules that have not ended, earliest first."""
    return list(await session.exec(_NOT_ENDED, params={"brand": brand_id, "at": now}))


async def rules_at(session: Session, brand_id: int, at: datetime) -> list[EarnRule]:
    """The brand's rules that hold at a moment."""
    return list(await session.exec(_HOLDING, params={"brand": brand_id, "at": at}))


async def earned_on(session: Session, member_id: uuid.UUID, day: date) -> dict[uuid.UUID, int]:
    """What a member has earned on a day by rules with a cap a day, in units."""
    found = await session.exec(
        select(EarnedToday.rule_id, EarnedToday.units).where(EarnedToday.member_id == member_id, EarnedToday.day == day)
    )
    return dict(found.all())


async def count_earned(
    session: Session, member_id: uuid.UUID, day: date, rules: Sequence[EarnRule], earned: Quote
) -> None:
    """Keep what was earned by rules with a cap a day. The caller holds the member's card."""
    for rule in rules:
        _fen, units = earned.by_rule.get(rule.rule_id, (0, 0))
        if rule.points_per_day_max is None or not units:
            continue
        statement = insert(session, EarnedToday).values(member_id=member_id, rule_id=rule.rule_id, day=day, units=units)
        await session.exec(
            statement.on_conflict_do_update(
                index_elements=["member_id", "rule_id", "day"],
                set_={"units": col(EarnedToday.units) + statement.excluded["units"]},
            )
        )
