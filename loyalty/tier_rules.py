"""Rules of tiers: a brand's ladder, what each step asks for and how its card looks, in versions that never change."""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from sqlalchemy import JSON, BigInteger, BindParameter, CheckConstraint, Column, Engine, ScalarSelect, Text, func
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from loyalty.experience import FIGURE_MAX, KEEP_PERMILLE_MAX, Figures

TIERS_MAX = 12
NAME_CHARACTERS_MAX = 30
BY_CHARACTERS_MAX = 100
WINDOW_MONTHS_MAX = 60
GRACE_DAYS_MAX = 366
PERIOD_MONTHS = (1, 3, 6, 12)
EXPERIENCE_RATE_MAX = 10_000
COLOURS_MAX = 3
CONTRAST_MIN = 4.5
"""WCAG 2.2, 1.4.3, level AA, between text and what is behind it."""
LEAD = timedelta(seconds=60)
"""How long before they hold new rules must be known, so that servers whose clocks differ decide alike."""
_GRADIENT_STEPS = 16
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


class TierRulesInvalid(Invalid):
    """Rules cannot be made like this; the message names the field."""

    code = "TierRulesInvalid"


class TierRulesChanged(Conflict):
    """Somebody else changed the brand's rules meanwhile."""

    code = "TierRulesChanged"


class TierUnknown(NotFound):
    """The brand's ladder has no such tier."""

    code = "TierUnknown"


class Pattern(StrEnum):
    """What is drawn faintly over the colours of a card."""

    PLAIN = "plain"
    WAVES = "waves"
    DOTS = "dots"
    STARS = "stars"
    LATTICE = "lattice"


@dataclass(frozen=True)
class CardFace:
    """How a card looks: one colour or a gradient of up to three, a pattern, and text that can be read on them."""

    colours: tuple[str, ...]
    text_colour: str
    pattern: Pattern = Pattern.PLAIN


@dataclass(frozen=True)
class Tier:
    """A step of a ladder. `needs` holds within the window; zero asks for nothing. `any_of`: one of them is enough."""

    rank: int
    slug: str
    name_zh: str
    name_en: str
    face: CardFace
    needs: Figures = Figures()  # noqa: RUF009 - frozen
    any_of: bool = False

    def name(self, language: str) -> str:
        return self.name_zh if language == "zh" else self.name_en

    def reached(self, figures: Figures) -> bool:
        """Whether the figures are enough for this tier."""
        asked = [
            (have, need)
            for have, need in zip(
                (figures.purchases, figures.fen, figures.experience),
                (self.needs.purchases, self.needs.fen, self.needs.experience),
                strict=True,
            )
            if need
        ]
        met = [have >= need for have, need in asked]
        return not met or (any(met) if self.any_of else all(met))


BASE_TIER = Tier(0, "member", "会员", "Member", CardFace(("#8a5a00", "#6b4500"), "#ffffff"))
"""Everybody's tier where a brand has made no rules."""


@dataclass(frozen=True)
class Rules:
    """One version of a brand's rules. `ladder` is sorted by rank, from 0 without gaps."""

    ladder: tuple[Tier, ...] = (BASE_TIER,)
    window_months: int = 12
    keep_permille: int = KEEP_PERMILLE_MAX
    period_months: int = 1
    grace_days: int = 0
    purchase_fen_min: int = 0
    """A purchase of less does not count as one; its amount does."""
    experience_per_purchase: int = 0
    experience_per_yuan: int = 0
    version: int = 0
    valid_from: datetime | None = None

    @property
    def top_rank(self) -> int:
        return len(self.ladder) - 1

    def rank_for(self, figures: Figures) -> int:
        """The highest rank whose needs the figures meet."""
        return max(tier.rank for tier in self.ladder if tier.rank == 0 or tier.reached(figures))

    def of_purchase(self, paid_fen: int) -> Figures:
        """What a purchase counts, or what is left of one after refunds; nothing paid counts nothing."""
        counts = int(paid_fen > 0 and paid_fen >= self.purchase_fen_min)
        experience = counts * self.experience_per_purchase + paid_fen * self.experience_per_yuan // 100
        return Figures(counts, paid_fen, experience)


_BOOKS_KNOWN_MAX = 1_000


@dataclass(frozen=True)
class RuleBook:
    """Every version of one brand's rules, oldest first."""

    brand_id: int
    versions: tuple[Rules, ...] = field(default=())

    def version(self, number: int) -> Rules:
        """Version 0 is that of a brand without rules."""
        return self.versions[number - 1] if number else Rules()

    def in_force(self, at: datetime) -> Rules:
        """The rules that hold at a moment."""
        held = [rules for rules in self.versions if rules.valid_from is not None and rules.valid_from <= at]
        return held[-1] if held else Rules()


class TierRules(SQLModel, table=True):
    """A stored version. Small and read often: a reference table."""

    __tablename__: ClassVar[str] = "tier_rules"
    __table_args__ = (
        CheckConstraint("version > 0", name="version"),
        CheckConstraint(f"window_months BETWEEN 1 AND {WINDOW_MONTHS_MAX}", name="window_months"),
        CheckConstraint(f"keep_permille BETWEEN 1 AND {KEEP_PERMILLE_MAX}", name="keep_permille"),
        CheckConstraint(f"period_months IN {PERIOD_MONTHS}", name="period_months"),
        CheckConstraint(f"grace_days BETWEEN 0 AND {GRACE_DAYS_MAX}", name="grace_days"),
        CheckConstraint("purchase_fen_min >= 0", name="purchase_fen_min"),
        CheckConstraint(
            f"experience_per_purchase BETWEEN 0 AND {EXPERIENCE_RATE_MAX} "
            f"AND experience_per_yuan BETWEEN 0 AND {EXPERIENCE_RATE_MAX}",
            name="experience",
        ),
    )

    brand_id: int = Field(primary_key=True)
    version: int = Field(primary_key=True)
    valid_from: datetime = Field(sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    by: str = Field(sa_type=Text)
    window_months: int
    keep_permille: int
    period_months: int
    grace_days: int
    purchase_fen_min: int = Field(sa_type=BigInteger)
    experience_per_purchase: int
    experience_per_yuan: int
    ladder: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))


_known: WeakKeyDictionary[Engine, dict[tuple[int, int | None, datetime | None], RuleBook]] = WeakKeyDictionary()


async def book_of(session: Session, brand_id: int) -> RuleBook:
    """The brand's rules, all versions of them."""
    return (await books_of(session, [brand_id]))[brand_id]


def newest(brand_id: BindParameter[int]) -> tuple[ScalarSelect[int], ScalarSelect[datetime]]:
    """SQL: number and making of a brand's newest version, for who asks something else anyway; see `known_book`."""
    of_brand = col(TierRules.brand_id) == brand_id
    number = select(func.max(TierRules.version)).where(of_brand).scalar_subquery()
    return number, select(func.max(TierRules.created_at)).where(of_brand).scalar_subquery()


async def known_book(session: Session, brand_id: int, version: int | None, created_at: datetime | None) -> RuleBook:
    """The book whose newest version is this one: versions never change, so it is read once in a process."""
    known = _known.setdefault(session.get_bind().engine, {})
    book = known.get((brand_id, version, created_at))
    if book is None:
        book = await book_of(session, brand_id)
        if len(known) >= _BOOKS_KNOWN_MAX:
            known.clear()
        if len(book.versions) == (version or 0):
            known[brand_id, version, created_at] = book
    return book


async def books_of(session: Session, brand_ids: Collection[int]) -> dict[int, RuleBook]:
    """The same for several brands."""
    versions: dict[int, list[Rules]] = {brand_id: [] for brand_id in brand_ids}
    if brand_ids:
        found = await session.exec(
            select(TierRules).where(col(TierRules.brand_id).in_(brand_ids)).order_by(col(TierRules.version))
        )
        for row in found:
            versions[row.brand_id].append(_rules(row))
    return {brand_id: RuleBook(brand_id, tuple(rules)) for brand_id, rules in versions.items()}


async def set_rules(
    session: Session, brand_id: int, new: Rules, *, replaces: int, by: str, valid_from: datetime | None, now: datetime
) -> Rules:
    """Make the next version of a brand's rules. `replaces` is the number of the newest version that the caller saw.

    The first version holds at once; later ones from a moment at least 60 seconds ahead (`valid_from` None: just that),
    so that every decision, on any server, is made by the version that holds at its moment. Raises TierRulesInvalid and
    TierRulesChanged.
    """
    check(new)
    if not 1 <= len(by) <= BY_CHARACTERS_MAX:
        raise TierRulesInvalid(f"by: 1 to {BY_CHARACTERS_MAX} characters")
    book = await book_of(session, brand_id)
    if len(book.versions) != replaces:
        raise _changed(len(book.versions))
    earliest = now if not replaces else now + LEAD
    held_from = valid_from or earliest
    latest = book.versions[-1].valid_from if replaces else None
    if held_from < earliest or (latest is not None and held_from <= latest):
        raise TierRulesInvalid(
            f"valid_from: at least {LEAD.seconds} seconds ahead, and later than that of the version before"
        )
    made = await session.exec(
        insert(session, TierRules)
        .values(
            brand_id=brand_id,
            version=replaces + 1,
            valid_from=held_from,
            created_at=now,
            by=by,
            window_months=new.window_months,
            keep_permille=new.keep_permille,
            period_months=new.period_months,
            grace_days=new.grace_days,
            purchase_fen_min=new.purchase_fen_min,
            experience_per_purchase=new.experience_per_purchase,
            experience_per_yuan=new.experience_per_yuan,
            ladder=[asdict(tier) for tier in new.ladder],
        )
        .on_conflict_do_nothing()
        .returning(col(TierRules.version))
    )
    if made.first() is None:
        raise _changed(replaces + 1)
    return (await book_of(session, brand_id)).versions[-1]


def _changed(version: int) -> TierRulesChanged:
    return TierRulesChanged(
        f"the brand's rules are at version {version} by now", hint="Read them again, and change what you find there."
    )


def rank_named(ladder: Sequence[Tier], slug: str) -> int:
    """The rank of a tier by its short name. Raises TierUnknown."""
    for tier in ladder:
        if tier.slug == slug:
            return tier.rank
    raise TierUnknown(f"there is no tier {slug}", hint="The brand's tiers: " + ", ".join(tier.slug for tier in ladder))


def check(rules: Rules) -> None:
    """Check rules without making them. Raises TierRulesInvalid, naming the field."""
    for fault, wrong in _faults(rules):
        if wrong:
            raise TierRulesInvalid(fault)
    for tier in rules.ladder:
        _check_face(tier)


def _faults(rules: Rules) -> list[tuple[str, bool]]:
    ladder = rules.ladder
    rates = (rules.experience_per_purchase, rules.experience_per_yuan)
    needs = [(tier.needs.purchases, tier.needs.fen, tier.needs.experience) for tier in ladder]
    return [
        (f"tiers: 1 to {TIERS_MAX} of them", not 1 <= len(ladder) <= TIERS_MAX),
        ("tiers: ranks 0, 1, 2 and so on", [tier.rank for tier in ladder] != list(range(len(ladder)))),
        ("slug: 1 to 30 of a-z, 0-9 and hyphens", not all(_SLUG.fullmatch(tier.slug) for tier in ladder)),
        ("slug: each tier has its own", len({tier.slug for tier in ladder}) != len(ladder)),
        (
            f"name_zh and name_en: 1 to {NAME_CHARACTERS_MAX} printable characters",
            not all(_is_name(name) for tier in ladder for name in (tier.name_zh, tier.name_en)),
        ),
        (f"needs: 0 to {FIGURE_MAX}", not all(0 <= need <= FIGURE_MAX for three in needs for need in three)),
        ("needs: the lowest tier asks for nothing", bool(needs) and any(needs[0])),
        ("needs: every other tier asks for something", not all(any(three) for three in needs[1:])),
        (f"window_months: 1 to {WINDOW_MONTHS_MAX}", not 1 <= rules.window_months <= WINDOW_MONTHS_MAX),
        (f"keep_permille: 1 to {KEEP_PERMILLE_MAX}", not 1 <= rules.keep_permille <= KEEP_PERMILLE_MAX),
        ("period_months: 1, 3, 6 or 12", rules.period_months not in PERIOD_MONTHS),
        (f"grace_days: 0 to {GRACE_DAYS_MAX}", not 0 <= rules.grace_days <= GRACE_DAYS_MAX),
        (f"purchase_fen_min: 0 to {FIGURE_MAX}", not 0 <= rules.purchase_fen_min <= FIGURE_MAX),
        (
            f"experience_per_purchase and experience_per_yuan: 0 to {EXPERIENCE_RATE_MAX}",
            not all(0 <= rate <= EXPERIENCE_RATE_MAX for rate in rates),
        ),
    ]


def _is_name(name: str) -> bool:
    return 1 <= len(name.strip()) <= NAME_CHARACTERS_MAX and name.isprintable()


def _check_face(tier: Tier) -> None:
    face = tier.face
    if not 1 <= len(face.colours) <= COLOURS_MAX:
        raise TierRulesInvalid(f"face of {tier.slug}: 1 to {COLOURS_MAX} colours")
    if not all(_COLOUR.fullmatch(colour) for colour in (*face.colours, face.text_colour)):
        raise TierRulesInvalid(f"face of {tier.slug}: a colour is # and six of 0-9 and a-f")
    least = min(contrast(face.text_colour, behind) for behind in _gradient(face.colours))
    if least < CONTRAST_MIN:
        raise TierRulesInvalid(
            f"face of {tier.slug}: text and colours have a contrast of {least:.2f}, and {CONTRAST_MIN} is needed",
            hint="Choose a lighter or darker text colour; it must be readable on the whole gradient.",
        )


def _gradient(colours: Sequence[str]) -> list[str]:
    # Between its ends a gradient can be darker than both, so ends alone do not tell.
    shades = [colours[-1]]
    for start, end in pairwise(colours):
        for step in range(_GRADIENT_STEPS):
            mixed = (
                (a * (_GRADIENT_STEPS - step) + b * step) // _GRADIENT_STEPS
                for a, b in zip(_channels(start), _channels(end), strict=True)
            )
            shades.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return shades


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2, definition of contrast ratio)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    # WCAG 2.2, definition of relative luminance, for sRGB.
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rules(row: TierRules) -> Rules:
    return Rules(
        ladder=tuple(tier_from(stored) for stored in row.ladder),
        window_months=row.window_months,
        keep_permille=row.keep_permille,
        period_months=row.period_months,
        grace_days=row.grace_days,
        purchase_fen_min=row.purchase_fen_min,
        experience_per_purchase=row.experience_per_purchase,
        experience_per_yuan=row.experience_per_yuan,
        version=row.version,
        valid_from=row.valid_from,
    )


def tier_from(stored: dict[str, Any]) -> Tier:
    """A tier from its form as JSON."""
    face = stored["face"]
    return Tier(
        stored["rank"],
        stored["slug"],
        stored["name_zh"],
        stored["name_en"],
        CardFace(tuple(face["colours"]), face["text_colour"], Pattern(face["pattern"])),
        Figures(**stored["needs"]),
        stored["any_of"],
    )
