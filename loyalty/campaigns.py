"""Campaigns: what a brand gives for its scanned items, to whom, when, and how much in all."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit import locks
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import derived_id, new_id
from kit.vault import Vault
from loyalty import benefits, budgets, ledger
from loyalty.benefits import Benefit
from loyalty.budgets import STRIPES_DEFAULT, STRIPES_MAX, Budget
from loyalty.draws import fair
from loyalty.prizes import Prize, PrizeKind

TITLE_CHARACTERS_MAX = 80
BUDGET_MAX = ledger.AMOUNT_MAX
"""In units of the prize."""
PRIZES_MAX = 20
"""Of one campaign."""
WEIGHT_MAX = 10**9
DURATION_MAX = timedelta(days=5 * 366)
LIMIT_MAX = 1_000_000
"""Claims that a limit can allow at most."""


class Face(IntEnum):
    """Which of an item's two codes was scanned."""

    OUTER = 1
    INNER = 2


class CampaignStatus(StrEnum):
    """Whether the brand lets the campaign run."""

    ACTIVE = "active"
    PAUSED = "paused"


class CampaignState(StrEnum):
    """What time makes of a campaign."""

    OPEN = "open"
    NOT_STARTED = "not_started"
    ENDED = "ended"


class CampaignInvalid(Invalid):
    """A campaign cannot be made like this; the message names the field."""

    code = "CampaignInvalid"


class CampaignUnknown(NotFound):
    """There is no such campaign, or not for this member's group."""

    code = "CampaignUnknown"


class CampaignNotEnded(Conflict):
    """The campaign still runs, so its seed stays secret."""

    code = "CampaignNotEnded"


class CampaignNotRevealed(Conflict):
    code = "CampaignNotRevealed"


@dataclass(frozen=True)
class Limits:
    """Most claims in the campaign by one member, and in one day by one member, device and place. None: no limit.

    Days are those of China. A place is what the caller's network address tells: see `scan_api.callers`.
    """

    member: int | None = None
    member_day: int | None = None
    device_day: int | None = None
    place_day: int | None = None


class Campaign(SQLModel, table=True):
    """A campaign. Small and read often: a reference table. All but `status` and `revealed_at` stays as it was made."""

    __tablename__: ClassVar[str] = "campaign"
    __table_args__ = (
        CheckConstraint("face IN (1, 2)", name="face"),
        CheckConstraint(f"stripes BETWEEN 1 AND {STRIPES_MAX}", name="stripes"),
        CheckConstraint("starts_at < ends_at", name="period"),
        CheckConstraint(
            " AND ".join(f"({limit.name}_limit IS NULL OR {limit.name}_limit > 0)" for limit in fields(Limits)),
            name="limits",
        ),
        CheckConstraint("(seed_sealed IS NULL) = (commitment IS NULL)", name="draw"),
        CheckConstraint("status IN ('active', 'paused')", name="status"),
    )

    campaign_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    group_id: int
    title_zh: str = Field(sa_type=Text)
    title_en: str = Field(sa_type=Text)
    face: int
    gtin: str | None = Field(default=None, sa_type=Text)
    stripes: int
    starts_at: datetime = Field(sa_type=Moment)
    ends_at: datetime = Field(sa_type=Moment)
    member_limit: int | None = None
    member_day_limit: int | None = None
    device_day_limit: int | None = None
    place_day_limit: int | None = None
    seed_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    commitment: bytes | None = Field(default=None, sa_type=LargeBinary)
    status: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    revealed_at: datetime | None = Field(default=None, sa_type=Moment)


class CampaignPrize(SQLModel, table=True):
    """One prize of a campaign. A campaign with several draws among them by weight; the last one is the consolation."""

    __tablename__: ClassVar[str] = "campaign_prize"
    __table_args__ = (
        CheckConstraint("kind IN ('points', 'mb', 'fen', 'benefit', 'nothing')", name="kind"),
        CheckConstraint(f"weight BETWEEN 1 AND {WEIGHT_MAX}", name="weight"),
        CheckConstraint("(kind = 'benefit') = (benefit_id IS NOT NULL)", name="benefit"),
        CheckConstraint(
            "(kind = 'nothing' AND amount = 0 AND budget = 0) OR (amount > 0 AND budget > 0 AND budget % amount = 0)",
            name="budget",
        ),
    )

    campaign_id: uuid.UUID = Field(primary_key=True, foreign_key="campaign.campaign_id")
    number: int = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    amount: int = Field(sa_type=BigInteger)
    weight: int = Field(sa_type=BigInteger)
    budget: int = Field(sa_type=BigInteger)
    benefit_id: uuid.UUID | None = None

    @property
    def prize(self) -> Prize:
        return Prize(PrizeKind(self.kind), self.amount, self.benefit_id)


@dataclass(frozen=True)
class NewPrize:
    """A prize to be offered: `weight` in the draw, `budget` in units of the prize (0 for nothing)."""

    prize: Prize
    budget: int
    weight: int = 1


@dataclass(frozen=True)
class NewCampaign:
    """A campaign to be made. With several prizes it is a draw, and the last prize takes the place of one used up.

    `stripes` None: as many as is sensible.
    """

    brand_id: int
    group_id: int
    title_zh: str
    title_en: str
    face: int
    prizes: tuple[NewPrize, ...]
    starts_at: datetime
    ends_at: datetime
    gtin: str | None = None
    limits: Limits = Limits()
    stripes: int | None = None


@dataclass(frozen=True)
class Terms:
    """All of a campaign that stays as it was made. `seed` is there for a draw."""

    campaign: Campaign
    prizes: tuple[CampaignPrize, ...]
    benefits: Mapping[int, Benefit]
    """The benefits among the prizes, by the prize's number."""
    seed: bytes | None

    @cached_property
    def limits(self) -> Limits:
        return Limits(**{limit.name: getattr(self.campaign, f"{limit.name}_limit") for limit in fields(Limits)})

    def drawn(self, ticket: bytes) -> CampaignPrize:
        """The prize that an item draws; the only one where there is no draw. See docs/loyalty/draws.md."""
        if self.seed is None:
            return self.prizes[0]
        weights = [prize.weight for prize in self.prizes]
        return self.prizes[fair.outcome(self.seed, self.campaign.campaign_id, ticket, weights)]


def state_at(campaign: Campaign, now: datetime) -> CampaignState:
    """What time makes of a campaign, a pause left aside."""
    if now < campaign.starts_at:
        return CampaignState.NOT_STARTED
    return CampaignState.ENDED if now >= campaign.ends_at else CampaignState.OPEN


def budget_of(campaign: Campaign, prize: CampaignPrize) -> Budget:
    """The budget that pays a prize."""
    # The first prize's is named as budgets were when campaigns had one prize.
    key = campaign.campaign_id
    budget_id = derived_id("campaign-prize", key, prize.number) if prize.number else key
    return Budget(budget_id, prize.prize.asset, min(campaign.stripes, prize.budget // prize.amount))


async def create(session: Session, vault: Vault, new: NewCampaign, now: datetime) -> Campaign:
    """Make a campaign and fund its prizes; of a draw the seed is fixed now, and its commitment can be published.

    Raises CampaignInvalid, PrizeInvalid, and what `benefits.escrow` raises for a benefit.
    """
    check(new, now)
    campaign_id = new_id()
    campaign = Campaign(
        campaign_id=campaign_id,
        brand_id=new.brand_id,
        group_id=new.group_id,
        title_zh=new.title_zh,
        title_en=new.title_en,
        face=new.face,
        gtin=new.gtin,
        stripes=new.stripes or STRIPES_DEFAULT,
        starts_at=new.starts_at,
        ends_at=new.ends_at,
        **{f"{limit.name}_limit": getattr(new.limits, limit.name) for limit in fields(Limits)},
        status=CampaignStatus.ACTIVE,
        created_at=now,
    )
    prizes = [
        CampaignPrize(
            campaign_id=campaign_id,
            number=number,
            kind=offered.prize.kind,
            amount=offered.prize.amount,
            weight=offered.weight,
            budget=offered.budget,
            benefit_id=offered.prize.benefit_id,
        )
        for number, offered in enumerate(new.prizes)
    ]
    if len(prizes) > 1:
        seed = secrets.token_bytes(fair.SEED_BYTES)
        campaign.seed_sealed = vault.seal(seed, _seed_context(campaign_id))
        campaign.commitment = fair.commitment(published_terms(campaign, prizes, fair.seed_hash(seed, campaign_id)))
    session.add(campaign)
    await session.flush()
    session.add_all(prizes)
    await session.flush()
    for prize in prizes:
        if prize.amount:
            await _fund(session, campaign, prize, now)
    return campaign


async def _fund(session: Session, campaign: Campaign, prize: CampaignPrize, now: datetime) -> None:
    budget = budget_of(campaign, prize)
    if prize.benefit_id is not None:
        await benefits.escrow(session, prize.benefit_id, campaign.brand_id, budget, prize.budget, now)
        return
    source = ledger.issuance(campaign.brand_id, budget.asset, budget.budget_id)
    await budgets.fund(session, budget, prize.budget, source, now, unit=prize.amount)


def published_terms(campaign: Campaign, prizes: Sequence[CampaignPrize], seed_hash: bytes) -> dict[str, object]:
    """What a draw is committed to, in the form of docs/loyalty/draws.md."""
    return {
        "form": "item-odds",
        "draw_id": str(campaign.campaign_id),
        "title": {"zh": campaign.title_zh, "en": campaign.title_en},
        "starts_at": int(campaign.starts_at.timestamp()),
        "ends_at": int(campaign.ends_at.timestamp()),
        "face": campaign.face,
        "gtin": campaign.gtin,
        "seed_hash": seed_hash.hex(),
        "prizes": [
            {
                "kind": prize.kind,
                "amount": prize.amount,
                "benefit_id": str(prize.benefit_id) if prize.benefit_id else None,
                "weight": prize.weight,
                "quantity": prize.budget // prize.amount if prize.amount else None,
            }
            for prize in prizes
        ],
        "consolation": len(prizes) - 1,
    }


async def public_terms(session: Session, vault: Vault, campaign_id: uuid.UUID) -> dict[str, object]:
    """The terms of a draw with their commitment, and the seed once it is revealed. Raises as `reveal` does."""
    terms = await terms_of(session, vault, campaign_id)
    seed, committed = _drawing(terms)
    published = published_terms(terms.campaign, terms.prizes, fair.seed_hash(seed, campaign_id))
    revealed = seed.hex() if terms.campaign.revealed_at is not None else None
    return {"terms": published, "commitment": committed.hex(), "seed": revealed}


async def revealed(session: Session, vault: Vault, campaign_id: uuid.UUID) -> Terms:
    """The terms of a draw whose seed is public. Raises CampaignUnknown, CampaignInvalid, CampaignNotRevealed."""
    terms = await terms_of(session, vault, campaign_id)
    _drawing(terms)
    if terms.campaign.revealed_at is None:
        raise CampaignNotRevealed("the seed of this draw is not public yet", hint="`fanxing campaign reveal` does it.")
    return terms


def _drawing(terms: Terms) -> tuple[bytes, bytes]:
    if terms.seed is None or terms.campaign.commitment is None:
        raise CampaignInvalid("prizes: this campaign has one prize and draws nothing")
    return terms.seed, terms.campaign.commitment


def check(new: NewCampaign, now: datetime) -> None:
    """Check a campaign without making it. Raises CampaignInvalid, naming the field, and PrizeInvalid."""
    for field, wrong in _faults(new, now):
        if wrong:
            raise CampaignInvalid(field)
    for offered in new.prizes:
        offered.prize.check()
        for field, wrong in _prize_faults(offered):
            if wrong:
                raise CampaignInvalid(field)


def _faults(new: NewCampaign, now: datetime) -> list[tuple[str, bool]]:
    titles = (new.title_zh, new.title_en)
    limits = [getattr(new.limits, limit.name) for limit in fields(Limits)]
    return [
        (
            f"title_zh and title_en: 1 to {TITLE_CHARACTERS_MAX} characters",
            not all(1 <= len(title) <= TITLE_CHARACTERS_MAX for title in titles),
        ),
        ("face: 1 (outer code) or 2 (inner code)", new.face not in (Face.OUTER, Face.INNER)),
        (f"prizes: 1 to {PRIZES_MAX}", not 1 <= len(new.prizes) <= PRIZES_MAX),
        ("prizes: one that is nothing needs others beside it", [p.prize.amount for p in new.prizes] == [0]),
        ("ends_at: after starts_at, and in the future", not (new.starts_at < new.ends_at and now < new.ends_at)),
        (f"ends_at: at most {DURATION_MAX.days} days after starts_at", new.ends_at - new.starts_at > DURATION_MAX),
        ("gtin: 14 digits", new.gtin is not None and not _is_gtin(new.gtin)),
        (
            f"limits: 1 to {LIMIT_MAX}",
            not all(limit is None or 1 <= limit <= LIMIT_MAX for limit in limits),
        ),
        (f"stripes: 1 to {STRIPES_MAX}", new.stripes is not None and not 1 <= new.stripes <= STRIPES_MAX),
    ]


def _prize_faults(offered: NewPrize) -> list[tuple[str, bool]]:
    amount = offered.prize.amount
    nothing = offered.prize.kind is PrizeKind.NOTHING
    return [
        (f"weight: 1 to {WEIGHT_MAX}", not 1 <= offered.weight <= WEIGHT_MAX),
        ("budget: 0 for nothing", nothing and offered.budget != 0),
        (f"budget: 1 to {BUDGET_MAX}", not nothing and not 1 <= offered.budget <= BUDGET_MAX),
        ("budget: a whole multiple of the prize's amount", amount > 0 and offered.budget % amount != 0),
    ]


def _is_gtin(text: str) -> bool:
    return len(text) == 14 and text.isascii() and text.isdigit()


async def get(session: Session, campaign_id: uuid.UUID) -> Campaign:
    """Raises CampaignUnknown."""
    campaign = await session.get(Campaign, campaign_id)
    if campaign is None:
        raise CampaignUnknown("no such campaign")
    return campaign


async def prizes_of(session: Session, campaign_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[CampaignPrize]]:
    """The prizes of each campaign, by number."""
    found = await session.exec(
        select(CampaignPrize)
        .where(col(CampaignPrize.campaign_id).in_(campaign_ids))
        .order_by(col(CampaignPrize.campaign_id), col(CampaignPrize.number))
    )
    prizes: dict[uuid.UUID, list[CampaignPrize]] = {campaign_id: [] for campaign_id in campaign_ids}
    for prize in found:
        prizes[prize.campaign_id].append(prize)
    return prizes


async def terms_of(session: Session, vault: Vault, campaign_id: uuid.UUID) -> Terms:
    """What a campaign was made with; it may be kept, since it does not change. Raises CampaignUnknown."""
    campaign = await get(session, campaign_id)
    prizes = (await prizes_of(session, [campaign_id]))[campaign_id]
    seed = campaign.seed_sealed
    opened = None if seed is None else vault.unseal(seed, _seed_context(campaign_id))
    given = {prize.number: await benefits.get(session, prize.benefit_id) for prize in prizes if prize.benefit_id}
    return Terms(campaign, tuple(prizes), given, opened)


def _seed_context(campaign_id: uuid.UUID) -> bytes:
    return b"campaign-seed" + campaign_id.bytes


async def of_brand(session: Session, brand_id: int) -> list[Campaign]:
    """Every campaign of a brand, latest first."""
    found = await session.exec(
        select(Campaign).where(Campaign.brand_id == brand_id).order_by(col(Campaign.campaign_id).desc())
    )
    return list(found)


async def set_status(session: Session, campaign_id: uuid.UUID, status: CampaignStatus) -> None:
    """Pause a campaign or let it run again; a pause waits for claims that are under way. Raises CampaignUnknown."""
    await locks.change(session, lock_of(campaign_id))
    changed = await session.exec(
        update(Campaign)
        .where(col(Campaign.campaign_id) == campaign_id)
        .values(status=status)
        .returning(col(Campaign.campaign_id))
    )
    if changed.first() is None:
        raise CampaignUnknown("no such campaign")


def lock_of(campaign_id: uuid.UUID) -> int:
    """The lock that claims of a campaign share."""
    return locks.key_of("campaign", campaign_id)


async def budget_left(session: Session, campaign: Campaign, prize: CampaignPrize) -> int:
    """What the campaign can still give of a prize, in its units."""
    return await budgets.left(session, budget_of(campaign, prize)) if prize.amount else 0


async def reveal(session: Session, vault: Vault, campaign_id: uuid.UUID, now: datetime) -> Terms:
    """Say that the seed of a draw is public from now on. Raises CampaignUnknown, CampaignInvalid, CampaignNotEnded."""
    terms = await terms_of(session, vault, campaign_id)
    _drawing(terms)
    if now < terms.campaign.ends_at:
        raise CampaignNotEnded("this campaign has not ended, and its seed would tell what every item draws")
    terms.campaign.revealed_at = terms.campaign.revealed_at or now
    await session.flush()
    return terms
