"""Offers: what the campaigns of an item hold for whoever scans it, worked out before anybody asks for it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import and_, bindparam, or_
from sqlmodel import col, select

from kit.db import Session
from loyalty import budgets, campaigns, claims, ledger
from loyalty.campaigns import Campaign, CampaignPrize, CampaignState, CampaignStatus, Face
from loyalty.claims import Claim
from loyalty.prizes import Prize

OFFERS_MAX = 20
"""Most campaigns that one page shows."""


class OfferState(StrEnum):
    """What a shopper who holds an item can expect of a campaign."""

    OPEN = "open"
    CLAIMED_BY_YOU = "claimed_by_you"
    CLAIMED_BY_SOMEBODY = "claimed_by_somebody"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    PAUSED = "paused"
    NEEDS_INNER_CODE = "needs_inner_code"
    NEEDS_OUTER_CODE = "needs_outer_code"
    BUDGET_USED_UP = "budget_used_up"
    LIMIT_REACHED = "limit_reached"


@dataclass(frozen=True)
class Chance:
    """One prize of an offer: it is drawn with a chance of `weight` in `of`."""

    prize: Prize
    weight: int
    of: int


@dataclass(frozen=True)
class Offer:
    """A campaign as the page of one item shows it. Several chances make it a draw."""

    campaign_id: uuid.UUID
    title_zh: str
    title_en: str
    face: Face
    chances: tuple[Chance, ...]
    starts_at: datetime
    ends_at: datetime
    state: OfferState
    claimed_at: datetime | None
    given: Prize | None
    """What the item's claim gave."""


# Every scan runs it: built once, it costs SQLAlchemy a third of what building it anew does.
_CAMPAIGNS = (
    select(Campaign)
    .where(
        col(Campaign.brand_id) == bindparam("brand"),
        or_(col(Campaign.gtin).is_(None), col(Campaign.gtin) == bindparam("gtin")),
    )
    .order_by(
        # Those that run come first: the limit must not cut them off for others that are still to come.
        and_(col(Campaign.starts_at) <= bindparam("now"), col(Campaign.ends_at) > bindparam("now")).desc(),
        col(Campaign.ends_at).desc(),
        col(Campaign.campaign_id),
    )
    .limit(OFFERS_MAX)
)


async def offers_of(
    session: Session,
    *,
    claims_of_item: Sequence[Claim],
    gtin: str,
    brand_id: int,
    face: int,
    member_id: uuid.UUID | None,
    now: datetime,
) -> list[Offer]:
    """Every campaign for an item, with what its holder can expect of it; at most 20, those that run now in front.

    `claims_of_item` are those of `loyalty.claims.claims_of`. `member_id` is None for a visitor, who is never told that
    a limit is reached.
    """
    found = await session.exec(_CAMPAIGNS, params={"brand": brand_id, "gtin": gtin, "now": now})
    listed = list(found)
    if not listed:
        return []
    prizes = await campaigns.prizes_of(session, [campaign.campaign_id for campaign in listed])
    claimed = {claim.campaign_id: claim for claim in claims_of_item}
    states = {
        campaign.campaign_id: _state(campaign, claimed.get(campaign.campaign_id), face, member_id, now)
        for campaign in listed
    }
    # Budgets and limits are looked up only where everything else says yes: most scans of most items end before.
    for campaign in listed:
        if states[campaign.campaign_id] is OfferState.OPEN:
            states[campaign.campaign_id] = await _open_state(
                session, campaign, prizes[campaign.campaign_id], member_id, now
            )
    return [
        _offer(
            campaign,
            prizes[campaign.campaign_id],
            states[campaign.campaign_id],
            claimed.get(campaign.campaign_id),
        )
        for campaign in listed
    ]


def _state(
    campaign: Campaign, claim: Claim | None, face: int, member_id: uuid.UUID | None, now: datetime
) -> OfferState:
    if claim is not None:
        return OfferState.CLAIMED_BY_YOU if claim.member_id == member_id else OfferState.CLAIMED_BY_SOMEBODY
    state = campaigns.state_at(campaign, now)
    if state is not CampaignState.OPEN:
        return OfferState(state.value)
    if campaign.status == CampaignStatus.PAUSED:
        return OfferState.PAUSED
    if face != campaign.face:
        return OfferState.NEEDS_INNER_CODE if campaign.face == Face.INNER else OfferState.NEEDS_OUTER_CODE
    return OfferState.OPEN


async def _open_state(
    session: Session,
    campaign: Campaign,
    prizes: Sequence[CampaignPrize],
    member_id: uuid.UUID | None,
    now: datetime,
) -> OfferState:
    # The last prize takes the place of any other that is used up, so it alone decides.
    last = prizes[-1]
    if last.amount:
        accounts = campaigns.budget_of(campaign, last).accounts
        held = await ledger.balances_of(session, accounts)
        if not budgets.holds(held, accounts, last.amount) and not await _another_pays(session, campaign, prizes):
            return OfferState.BUDGET_USED_UP
    if member_id is not None and await claims.member_limit_reached(session, campaign, member_id, now):
        return OfferState.LIMIT_REACHED
    return OfferState.OPEN


async def _another_pays(session: Session, campaign: Campaign, prizes: Sequence[CampaignPrize]) -> bool:
    for prize in prizes[:-1]:
        if not prize.amount or await campaigns.budget_left(session, campaign, prize):
            return True
    return False


def _offer(campaign: Campaign, prizes: Sequence[CampaignPrize], state: OfferState, claim: Claim | None) -> Offer:
    total = sum(prize.weight for prize in prizes)
    return Offer(
        campaign_id=campaign.campaign_id,
        title_zh=campaign.title_zh,
        title_en=campaign.title_en,
        face=Face(campaign.face),
        chances=tuple(Chance(prize.prize, prize.weight, total) for prize in prizes),
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
        state=state,
        claimed_at=claim.at if claim is not None else None,
        given=prizes[claim.prize_number].prize if claim is not None else None,
    )
