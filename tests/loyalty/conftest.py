"""A small world for loyalty tests: a vault, a moment, members and campaigns in a hurry."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kit import vault as vaults
from kit.db import Database
from kit.vault import Vault
from loyalty import campaigns, members
from loyalty.campaigns import Campaign, ClaimRequest, Face, Grant, NewCampaign, PrizeKind

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
GROUP = 1
BRAND = 10
GTIN = "06901234567892"

MakeMember = Callable[..., Awaitable[uuid.UUID]]
MakeCampaign = Callable[..., Awaitable[Campaign]]
MakeClaim = Callable[..., Awaitable[Grant]]

POINTS_CAMPAIGN = NewCampaign(
    brand_id=BRAND,
    group_id=GROUP,
    title_zh="扫码得积分",
    title_en="Scan for points",
    face=Face.INNER,
    prize_kind=PrizeKind.POINTS,
    prize_amount=100,
    budget=100_000,
    starts_at=NOW - timedelta(days=1),
    ends_at=NOW + timedelta(days=30),
)
COUPON_FIELDS = {
    "prize_kind": PrizeKind.COUPON,
    "prize_amount": 1,
    "budget": 50,
    "coupon_text_zh": "满十减五",
    "coupon_text_en": "5 off 10",
    "coupon_value_fen": 500,
    "coupon_valid_days": 30,
}
DATA_FIELDS = {"prize_kind": PrizeKind.MEGABYTES, "prize_amount": 5, "budget": 5_000}


@pytest.fixture
def vault() -> Vault:
    return Vault(vaults.new_key())


@pytest.fixture
def make_member(database: Database, vault: Vault) -> MakeMember:
    async def make(number: int = 0, group_id: int = GROUP) -> uuid.UUID:
        async with database.writing() as session:
            member, _ = await members.find_or_enrol(session, vault, group_id, f"1380013{8000 + number}", NOW)
        return member.member_id

    return make


@pytest.fixture
def make_campaign(database: Database) -> MakeCampaign:
    async def make(**changes: object) -> Campaign:
        async with database.writing() as session:
            return await campaigns.create(session, replace(POINTS_CAMPAIGN, **changes), NOW)  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_claim(database: Database, vault: Vault) -> MakeClaim:
    """Claims in a transaction of its own, as a request does."""

    async def make(campaign: Campaign, member_id: uuid.UUID, item_key: int = 1, **changes: object) -> Grant:
        now = changes.pop("now", NOW)
        request = ClaimRequest(
            item_key=item_key,
            gtin=GTIN,
            brand_id=campaign.brand_id,
            face=campaign.face,
            member_id=member_id,
            campaign_id=campaign.campaign_id,
        )
        async with database.writing() as session:
            return await campaigns.claim(session, vault, replace(request, **changes), now)  # type: ignore[arg-type]

    return make
