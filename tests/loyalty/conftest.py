"""A small world for loyalty tests: a vault, a moment, members and campaigns in a hurry."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit import procedures
from kit import vault as vaults
from kit.db import Database
from kit.ids import new_id
from kit.procedures import Procedure
from kit.vault import Vault
from loyalty import campaigns, claims, members
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import Campaign, Face, NewCampaign, NewPrize
from loyalty.claims import ClaimRequest
from loyalty.ledger import paying
from loyalty.prizes import Prize, PrizeKind

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
GROUP = 1
BRAND = 10
GTIN = "06901234567892"

CLAIM = Procedure("claim_alone", claims.PARAMETERS | {"now": procedures.Kind.MOMENT}, claims.STEPS, claims.ANSWER)
"""A claim as loyalty knows it, without sign-in, idempotency key and item."""

MakeMember = Callable[..., Awaitable[uuid.UUID]]
MakeCampaign = Callable[..., Awaitable[Campaign]]
MakeClaim = Callable[..., Awaitable[dict[str, Any]]]

POINTS_PRIZE = NewPrize(Prize(PrizeKind.POINTS, 100), 100_000)


def points(amount: int, budget: int) -> tuple[NewPrize, ...]:
    """The prizes of a campaign that gives points."""
    return (NewPrize(Prize(PrizeKind.POINTS, amount), budget),)


DATA_PRIZE = NewPrize(Prize(PrizeKind.MEGABYTES, 5), 5_000)
POINTS_CAMPAIGN = NewCampaign(
    brand_id=BRAND,
    group_id=GROUP,
    title_zh="扫码得积分",
    title_en="Scan for points",
    face=Face.INNER,
    prizes=(POINTS_PRIZE,),
    starts_at=NOW - timedelta(days=1),
    ends_at=NOW + timedelta(days=30),
)


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
def make_campaign(database: Database, vault: Vault) -> MakeCampaign:
    async def make(**changes: object) -> Campaign:
        async with database.writing() as session:
            return await campaigns.create(session, vault, replace(POINTS_CAMPAIGN, **changes), NOW)  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_claim(database: Database, vault: Vault) -> MakeClaim:
    """Claims in a transaction of its own, as a request does; raises what a request answers."""

    async def make(campaign: Campaign, member_id: uuid.UUID, item_key: int = 1, **changes: Any) -> dict[str, Any]:
        now = changes.pop("now", NOW)
        request = replace(
            ClaimRequest(item_key, GTIN, campaign.brand_id, campaign.face, f"item {item_key}".encode(), member_id),
            **changes,
        )
        async with database.reading() as session:
            terms = await campaigns.terms_of(session, vault, campaign.campaign_id)
        claims.check(terms, request, now)
        drawn, claim_id = terms.drawn(request.ticket), new_id()
        values = claims.values_of(vault, terms, request, claim_id, drawn, drawn, None, now)
        while True:
            try:
                async with database.writing() as session:
                    return {"claim_id": claim_id} | await procedures.call(session, CLAIM, values)
            except procedures.Refused as refused:
                async with database.reading() as session:
                    if refused.name == BudgetUsedUp.code and await claims.can_pay(session, terms, drawn):
                        values = paying.waiting(values)
                        continue
                    raise (await claims.refusal(session, refused.name, terms, request) or refused) from None

    return make
