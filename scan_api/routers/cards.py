"""Cards and tiers: for members where they stand, for everybody what a brand's tiers ask for."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from loyalty import tier_rules, tiers
from loyalty.experience import Figures
from loyalty.tier_rules import Pattern, Tier
from loyalty.tiers import Standing, TierChange
from scan_api import membership
from scan_api.auth import members
from scan_api.paging import Page, Paged
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve
from scan_api.web.language import choose

router = APIRouter(prefix="/v1")

_LIST = "tier-changes"
FACE_EXAMPLE: dict[str, Any] = {"colours": ["#334155", "#0f172a"], "text_colour": "#ffffff", "pattern": "stars"}
NEEDS_EXAMPLE: dict[str, Any] = {"purchases": 6, "fen": 100_000, "experience": 0}
TIER_EXAMPLE: dict[str, Any] = {
    "rank": 2,
    "slug": "gold",
    "name": "Gold",
    "name_zh": "金卡",
    "name_en": "Gold",
    "card_face": FACE_EXAMPLE,
    "needs": NEEDS_EXAMPLE,
    "any_of": False,
}


class Body(BaseModel):
    """A part of a request: nothing that is not described."""

    model_config = ConfigDict(extra="forbid")


class Needs(Body):
    """What counts for a tier within the window: purchases, fen paid, experience."""

    purchases: int = Field(default=0, ge=0)
    fen: int = Field(default=0, ge=0)
    experience: int = Field(default=0, ge=0)


class Face(Body):
    """How a card looks: a colour or a gradient, text with a contrast of 4.5 on all of it, and a pattern."""

    colours: list[str] = Field(min_length=1, max_length=tier_rules.COLOURS_MAX)
    text_colour: str
    pattern: Pattern = Pattern.PLAIN


class TierAnswer(BaseModel):
    """A step of a brand's ladder."""

    model_config = ConfigDict(json_schema_extra={"example": TIER_EXAMPLE})

    rank: int
    slug: str
    name: str = Field(description="In the language that the caller reads best")
    name_zh: str
    name_en: str
    card_face: Face
    needs: Needs
    any_of: bool = Field(description="True: one of the needs is enough")


class LadderAnswer(BaseModel):
    """A brand's tiers, lowest first, and how what counts for them is reckoned."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"brand": "star-cream", "window_months": 12, "keep_permille": 1_000, "tiers": [TIER_EXAMPLE]}
        }
    )

    brand: str
    window_months: int = Field(description="Purchases count for so many months")
    keep_permille: int = Field(description="Of their weight with each month, in thousandths; 1000: all of it")
    tiers: list[TierAnswer]


class CardAnswer(BaseModel):
    """A card, its tier, why it is of that tier, and what comes next."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "brand": "star-cream",
                "brand_name": "Star Cream",
                "card_number": "1099822111545536",
                "joined_at": "2026-05-01T08:00:00.000Z",
                "tier": TIER_EXAMPLE | {"rank": 1, "slug": "silver", "name": "Silver"},
                "since": "2026-05-09T08:00:00.000Z",
                "until": None,
                "granted_until": None,
                "counted": {"purchases": 3, "fen": 42_000, "experience": 450},
                "next_tier": "gold",
                "missing": {"purchases": 3, "fen": 58_000, "experience": 0},
                "explanation": "3 purchases and ¥420 in 12 months; Gold needs 6 purchases and ¥1,000: "
                "3 purchases and ¥580 to go",
                "projected_tier": "silver",
                "projected_at": None,
            }
        }
    )

    brand: str
    brand_name: str
    card_number: str
    joined_at: At
    tier: TierAnswer
    since: At | None
    until: At | None = Field(description="When the tier falls unless enough is bought before")
    granted_until: At | None = Field(description="Until when a tier that was given holds")
    counted: Needs
    next_tier: str | None
    missing: Needs | None
    explanation: str
    projected_tier: str = Field(description="The tier after the next end of a period if nothing more is bought")
    projected_at: At | None


class CardsAnswer(BaseModel):
    """The member's cards, earliest first."""

    cards: list[CardAnswer]


class ChangeAnswer(BaseModel):
    """A change of a card's tier, with what counted then; warned and kept announce and call off, and change nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "number": 1,
                "at": "2026-05-09T08:00:00.000Z",
                "from_rank": 0,
                "to_rank": 1,
                "reason": "earned",
                "counted": {"purchases": 3, "fen": 42_000, "experience": 450},
                "until": None,
            }
        }
    )

    number: int
    at: At
    from_rank: int
    to_rank: int
    reason: str
    counted: Needs
    until: At | None


def tier_answer(tier: Tier, language: str) -> TierAnswer:
    """A tier for a client that reads this language best."""
    return TierAnswer(
        rank=tier.rank,
        slug=tier.slug,
        name=tier.name(language),
        name_zh=tier.name_zh,
        name_en=tier.name_en,
        card_face=Face(**membership.face_json(tier.face)),
        needs=_needs(tier.needs),
        any_of=tier.any_of,
    )


def _needs(figures: Figures) -> Needs:
    return Needs(purchases=figures.purchases, fen=figures.fen, experience=figures.experience)


def _card(held: membership.HeldCard, standing: Standing, language: str) -> CardAnswer:
    return CardAnswer(
        brand=held.brand.slug,
        brand_name=held.brand.name(language),
        card_number=held.card.card_number,
        joined_at=held.card.joined_at,
        tier=tier_answer(standing.tier, language),
        since=standing.since,
        until=standing.until,
        granted_until=standing.granted_until,
        counted=_needs(standing.figures),
        next_tier=standing.following.slug if standing.following else None,
        missing=_needs(standing.missing) if standing.missing else None,
        explanation=standing.explanation(language),
        projected_tier=standing.projected.slug,
        projected_at=standing.projected_at,
    )


@router.get("/me/cards", tags=["member"], summary="List the member's cards")
async def my_cards(request: Request, services: Serve) -> CardsAnswer:
    """Every card with its tier, why it is of that tier, what the next one takes, and what time will bring."""
    now, language = services.clock(), choose(request.headers.get("accept-language"))
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        held = await membership.held_cards(session, member_id)
        found = await tiers.standings(session, [one.card for one in held], now)
    return CardsAnswer(cards=[_card(one, standing, language) for one, standing in zip(held, found, strict=True)])


@router.get("/me/cards/{brand}/changes", tags=["member"], summary="List the changes of a card's tier")
async def my_changes(brand: BrandSlug, request: Request, services: Serve, paging: Paged) -> Page[ChangeAnswer]:
    """Every change of the tier with its reason and what counted then, latest first."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        found = await brand_named(session, brand)
        rows = await tiers.changes_of(session, member_id, found.brand_id or 0, paging.after_number(_LIST), paging.count)
    return Page[ChangeAnswer](**paging.page(_LIST, rows, lambda row: row.number, _change))


def _change(row: TierChange) -> ChangeAnswer:
    return ChangeAnswer(
        number=row.number,
        at=row.at,
        from_rank=row.from_rank,
        to_rank=row.to_rank,
        reason=row.reason,
        counted=Needs(purchases=row.purchases, fen=row.fen, experience=row.experience),
        until=row.until,
    )


@router.get("/brands/{brand}/tiers", tags=["catalogue"], summary="Show a brand's tiers")
async def public_tiers(brand: BrandSlug, request: Request, services: Serve) -> LadderAnswer:
    """What each tier asks for and how its card looks, for everybody."""
    language = choose(request.headers.get("accept-language"))
    async with services.database.reading() as session:
        found = await brand_named(session, brand)
        rules = (await tier_rules.book_of(session, found.brand_id or 0)).in_force(services.clock())
    return LadderAnswer(
        brand=brand,
        window_months=rules.window_months,
        keep_permille=rules.keep_permille,
        tiers=[tier_answer(tier, language) for tier in rules.ladder],
    )
