"""For brands: the rules of their tiers and of what purchases earn, and the movement across their group."""

import uuid
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from codes import catalogue
from codes.catalogue import Brand, brand_named
from kit.clock import When
from kit.db import Session
from loyalty import earn_rules, movements, tier_rules
from loyalty.earn_rules import EarnRule, NewEarnRule
from loyalty.experience import Figures
from loyalty.tier_rules import CardFace, Rules, Tier
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.routers import At, BrandSlug
from scan_api.routers.cards import FACE_EXAMPLE, NEEDS_EXAMPLE, TIER_EXAMPLE, Body, Face, Needs, TierAnswer, tier_answer
from scan_api.services import Serve

router = APIRouter(prefix="/v1/brand/{brand}")

Authorization = Annotated[str | None, Header(description="Bearer fx_…, a key of the role brand")]

PERIOD_DEFAULT = timedelta(days=30)
"""How far back the flows go when nobody says."""


class TierBody(Body):
    """A step of the ladder to be set; ranks follow from the order."""

    slug: str
    name_zh: str
    name_en: str
    card_face: Face
    needs: Needs = Needs()
    any_of: bool = False


class RulesBody(Body):
    """A brand's tier rules. `replaces` is the version that the caller saw; 0 when there is none yet."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "replaces": 1,
                "window_months": 12,
                "period_months": 1,
                "grace_days": 30,
                "purchase_fen_min": 1_000,
                "experience_per_purchase": 10,
                "experience_per_yuan": 1,
                "tiers": [
                    {"slug": "member", "name_zh": "会员", "name_en": "Member", "card_face": FACE_EXAMPLE},
                    {
                        "slug": "gold",
                        "name_zh": "金卡",
                        "name_en": "Gold",
                        "card_face": FACE_EXAMPLE,
                        "needs": NEEDS_EXAMPLE,
                    },
                ],
            }
        }
    )

    replaces: int = Field(ge=0)
    valid_from: When | None = Field(default=None, description="At least 60 s ahead; absent: just that")
    window_months: int = 12
    keep_permille: int = 1_000
    period_months: int = 1
    grace_days: int = 0
    purchase_fen_min: int = 0
    experience_per_purchase: int = 0
    experience_per_yuan: int = 0
    tiers: list[TierBody] = Field(min_length=1, max_length=tier_rules.TIERS_MAX)


class RulesAnswer(BaseModel):
    """The newest version of a brand's rules."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "version": 2,
                "valid_from": "2026-05-01T08:00:00.000Z",
                "window_months": 12,
                "keep_permille": 1_000,
                "period_months": 1,
                "grace_days": 30,
                "purchase_fen_min": 1_000,
                "experience_per_purchase": 10,
                "experience_per_yuan": 1,
                "tiers": [TIER_EXAMPLE],
            }
        }
    )

    version: int = Field(description="0: the brand has made no rules, and everybody is of one tier")
    valid_from: At | None
    window_months: int
    keep_permille: int
    period_months: int
    grace_days: int
    purchase_fen_min: int
    experience_per_purchase: int
    experience_per_yuan: int
    tiers: list[TierAnswer]


class EarnRuleBody(Body):
    """What a purchase earns. Of several rules each fen earns by the best alone; caps are in points."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "points_per_yuan_milli": 1_000,
                "points_per_day_max": 5_000,
                "tier_permille": [1_000, 1_200, 1_500],
                "gtin_prefix": "0950600",
            }
        }
    )

    points_per_yuan_milli: int = Field(description="Thousandths of a point for each yuan; 1000: one point")
    starts_at: When | None = Field(default=None, description="Absent: now")
    ends_at: When | None = None
    paid_fen_min: int = 0
    points_per_purchase_max: int | None = None
    points_per_day_max: int | None = None
    tier_permille: list[int] = Field(default=[], max_length=earn_rules.TIERS_MAX, description="By rank, in thousandths")
    gtin_prefix: str = Field(default="", max_length=earn_rules.GTIN_DIGITS)


class EarnRuleAnswer(EarnRuleBody):
    """A rule that holds, or will."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "rule_id": "0197f0f0-5c00-7000-8000-0000000000e4",
                "points_per_yuan_milli": 1_000,
                "starts_at": "2026-05-01T08:00:00.000Z",
                "ends_at": None,
                "paid_fen_min": 0,
                "points_per_purchase_max": None,
                "points_per_day_max": 5_000,
                "tier_permille": [1_000, 1_200, 1_500],
                "gtin_prefix": "0950600",
            }
        }
    )

    rule_id: uuid.UUID
    starts_at: At
    ends_at: At | None = None


class FlowAnswer(BaseModel):
    """Points earned at one brand and spent at another; null figures stand for fewer than 10 members."""

    earned_at: str | None = Field(description="null: by a merge, a correction or a budget of unknown brand")
    spent_at: str
    points: int | None
    members: int | None


class SharedAnswer(BaseModel):
    """How many members hold cards of both brands; null: fewer than 10."""

    brands: list[str]
    members: int | None


class FlowsAnswer(BaseModel):
    """Movement across the brands of a group."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "flows": [{"earned_at": "star-cream", "spent_at": "moon-tea", "points": 5_200, "members": 41}],
                "shared": [{"brands": ["star-cream", "moon-tea"], "members": 320}],
            }
        }
    )

    flows: list[FlowAnswer]
    shared: list[SharedAnswer]


async def _own(session: Session, authorization: str | None, slug: str) -> Brand:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    found = await brand_named(session, slug)
    key.require_brand(found.brand_id or 0)
    return found


def rules_answer(rules: Rules) -> RulesAnswer:
    """A version of rules as the API shows it."""
    return RulesAnswer(
        version=rules.version,
        valid_from=rules.valid_from,
        window_months=rules.window_months,
        keep_permille=rules.keep_permille,
        period_months=rules.period_months,
        grace_days=rules.grace_days,
        purchase_fen_min=rules.purchase_fen_min,
        experience_per_purchase=rules.experience_per_purchase,
        experience_per_yuan=rules.experience_per_yuan,
        tiers=[tier_answer(tier, "en") for tier in rules.ladder],
    )


@router.get("/tiers", summary="Show the brand's tier rules")
async def show_rules(brand: BrandSlug, services: Serve, authorization: Authorization = None) -> RulesAnswer:
    """The newest version, which may not hold yet; `version` is what a change has to name as `replaces`."""
    async with services.database.reading() as session:
        found = await _own(session, authorization, brand)
        book = await tier_rules.book_of(session, found.brand_id or 0)
    return rules_answer(book.version(len(book.versions)))


@router.put("/tiers", summary="Change the brand's tier rules")
async def put_rules(
    brand: BrandSlug, body: RulesBody, services: Serve, authorization: Authorization = None
) -> RulesAnswer:
    """Make the next version of the rules. Cards follow: upwards when it begins to hold, downwards by period."""
    async with services.database.writing() as session:
        found = await _own(session, authorization, brand)
        made = await tier_rules.set_rules(
            session,
            found.brand_id or 0,
            asked_rules(body),
            replaces=body.replaces,
            by="API",
            valid_from=body.valid_from,
            now=services.clock(),
        )
    return rules_answer(made)


def asked_rules(body: RulesBody) -> Rules:
    """The rules that a body describes."""
    plain = body.model_dump(exclude={"replaces", "valid_from", "tiers"})
    return Rules(ladder=tuple(_asked_tier(rank, tier) for rank, tier in enumerate(body.tiers)), **plain)


def _asked_tier(rank: int, tier: TierBody) -> Tier:
    face = CardFace(tuple(tier.card_face.colours), tier.card_face.text_colour, tier.card_face.pattern)
    needs = Figures(tier.needs.purchases, tier.needs.fen, tier.needs.experience)
    return Tier(rank, tier.slug, tier.name_zh, tier.name_en, face, needs, tier.any_of)


@router.get("/earn-rules", summary="List the brand's earn rules")
async def list_earn_rules(
    brand: BrandSlug, services: Serve, authorization: Authorization = None
) -> list[EarnRuleAnswer]:
    """The rules that have not ended, earliest first; there are at most 100."""
    async with services.database.reading() as session:
        found = await _own(session, authorization, brand)
        rules = await earn_rules.rules_of(session, found.brand_id or 0, services.clock())
    return [_earn_rule(rule) for rule in rules]


def _earn_rule(rule: EarnRule) -> EarnRuleAnswer:
    return EarnRuleAnswer(**rule.model_dump(exclude={"brand_id", "created_at"}))


@router.post("/earn-rules", status_code=201, summary="Make an earn rule")
async def make_earn_rule(
    brand: BrandSlug, body: EarnRuleBody, services: Serve, authorization: Authorization = None
) -> EarnRuleAnswer:
    """Make a rule. It never changes: end it and make another. Try it with a quote before."""
    now = services.clock()
    asked = body.model_dump() | {"starts_at": body.starts_at or now, "tier_permille": tuple(body.tier_permille)}
    async with services.database.writing() as session:
        found = await _own(session, authorization, brand)
        return _earn_rule(await earn_rules.add(session, found.brand_id or 0, NewEarnRule(**asked), now))


@router.delete("/earn-rules/{rule_id}", status_code=204, summary="End an earn rule")
async def end_earn_rule(
    brand: BrandSlug, rule_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Response:
    """Purchases made from now on do not earn by it; what was earned stays, and is refunded as it was earned."""
    async with services.database.writing() as session:
        found = await _own(session, authorization, brand)
        await earn_rules.end(session, found.brand_id or 0, rule_id, services.clock())
    return Response(status_code=204)


@router.get("/flows", summary="Show movement across the group's brands")
async def flows(
    brand: BrandSlug,
    services: Serve,
    begin: Annotated[When | None, Query(alias="from", description="Absent: 30 days before `to`")] = None,
    end: Annotated[When | None, Query(alias="to", description="Absent: now")] = None,
    authorization: Authorization = None,
) -> FlowsAnswer:
    """Where points of the brand's group were earned and spent. Sums and counts of 10 members and more, nothing else."""
    until = end or services.clock()
    async with services.database.reading() as session:
        found = await _own(session, authorization, brand)
        return await group_flows(session, found.group_id, begin or until - PERIOD_DEFAULT, until)


async def group_flows(session: Session, group_id: int, begin: datetime, until: datetime) -> FlowsAnswer:
    """The movement across a group's brands, by their short names."""
    slugs = await catalogue.slugs_of_group(session, group_id)
    found = await movements.flows(session, slugs, begin, until)
    shared = await movements.shared(session, slugs)
    return FlowsAnswer(
        flows=[
            FlowAnswer(
                earned_at=slugs.get(flow.earned_at or 0),
                spent_at=slugs[flow.spent_at],
                points=flow.points,
                members=flow.members,
            )
            for flow in found
        ],
        shared=[SharedAnswer(brands=[slugs[one] for one in pair.brands], members=pair.members) for pair in shared],
    )
