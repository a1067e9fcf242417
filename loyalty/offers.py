"""Offers: what the campaigns of an item hold for whoever scans it, worked out before anybody asks for it.

What changes is told by steps of the scan's own procedure, put together in `scan_api.item_view`. What a campaign was
made with is read once and kept.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self

from sqlmodel import col, select

from kit.db import Database, Session
from kit.kept import Kept
from kit.procedures import Kind, Step
from loyalty import campaigns, claims
from loyalty.campaigns import Campaign, CampaignPrize, CampaignState, CampaignStatus, Face
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


@dataclass(frozen=True, slots=True)
class Chance:
    """One prize of an offer: it is drawn with a chance of `weight` in `of`."""

    prize: Prize
    weight: int
    of: int


@dataclass(frozen=True, slots=True)
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


PARAMETERS: Mapping[str, Kind] = {
    "item": Kind.BIGINT,
    "brand": Kind.INTEGER,
    "gtin": Kind.TEXT,
    "now": Kind.MOMENT,
    "today": Kind.INTEGER,
    "stripes": Kind.UUIDS,
    "visits": Kind.BOOLEAN,
}
"""Besides `visitor`, which `loyalty.sign_in.VISITING` gives."""
_CAMPAIGNS_SQL = "FROM campaign WHERE brand_id = :brand AND (gtin IS NULL OR gtin = :gtin)"
STEPS: Sequence[Step] = (
    Step(
        "SELECT campaign_id, claim_id, member_id, prize_number, at FROM claim WHERE item_key = :item ORDER BY at",
        gives={
            "campaign_id": Kind.UUID,
            "claim_id": Kind.UUID,
            "member_id": Kind.UUID,
            "prize_number": Kind.INTEGER,
            "at": Kind.MOMENT,
        },
        collects="claims",
    ),
    Step(
        # Those that run come first: the limit must not cut them off for others that are still to come.
        f"""
        SELECT campaign_id, status {_CAMPAIGNS_SQL}
        ORDER BY CASE WHEN starts_at <= :now AND ends_at > :now THEN 0 ELSE 1 END, ends_at DESC, campaign_id
        LIMIT {OFFERS_MAX}
        """,
        gives={"campaign_id": Kind.UUID, "status": Kind.TEXT},
        collects="campaigns",
    ),
    Step(
        "SELECT holder_id, balance FROM ledger_account "
        "WHERE holder_id = ANY(:stripes) AND purpose = 'budget' AND balance > 0",
        gives={"holder_id": Kind.UUID, "balance": Kind.BIGINT},
        collects="held",
    ),
    Step(
        "SELECT campaign_id, day, claims FROM claim_count WHERE subject_id = :visitor AND day IN (0, :today) "  # noqa: S608 - words of ours
        f"AND campaign_id IN (SELECT campaign_id {_CAMPAIGNS_SQL})",
        gives={"campaign_id": Kind.UUID, "day": Kind.INTEGER, "claims": Kind.INTEGER},
        collects="counts",
        when="visits",
    ),
)
"""Steps that collect what changes about an item's campaigns."""
ANSWER = ("claims", "campaigns", "held", "counts")


class Claimed(NamedTuple):
    """A claim with the item."""

    campaign_id: uuid.UUID
    claim_id: uuid.UUID
    member_id: uuid.UUID
    prize_number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Looked:
    """Who looks at which item, with which of its codes. `visitor` is None for who is not signed in."""

    brand_id: int
    gtin: str
    face: int
    visitor: uuid.UUID | None
    now: datetime


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an offer needs of a campaign, all of it as the campaign was made."""

    campaign: Campaign
    prizes: tuple[CampaignPrize, ...]
    chances: tuple[Chance, ...]
    stripes: tuple[uuid.UUID, ...]
    """Those that pay the last prize; none when it is nothing."""

    @property
    def campaign_id(self) -> uuid.UUID:
        return self.campaign.campaign_id

    @classmethod
    def of(cls, campaign: Campaign, prizes: Sequence[CampaignPrize]) -> Self:
        total = sum(prize.weight for prize in prizes)
        last = prizes[-1]
        accounts = campaigns.budget_of(campaign, last).accounts if last.amount else ()
        return cls(
            campaign,
            tuple(prizes),
            tuple(Chance(prize.prize, prize.weight, total) for prize in prizes),
            tuple(account.holder_id for account in accounts),
        )

    def may_be_open(self, face: int, now: datetime) -> bool:
        return self.campaign.face == face and campaigns.state_at(self.campaign, now) is CampaignState.OPEN

    def pays(self, held: Mapping[uuid.UUID, int]) -> bool:
        """Whether the last prize can be paid, which takes the place of any other that is used up."""
        amount = self.prizes[-1].amount
        return not amount or any(held.get(stripe, 0) >= amount for stripe in self.stripes)


class Offers:
    """Works out what the holder of an item can expect of its campaigns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._terms: Kept[uuid.UUID, _Terms] = Kept()
        # The campaigns of a product as they were last seen: whose budgets to ask for along with everything else.
        self._listed: Kept[tuple[int, str], list[_Terms]] = Kept()

    def values(self, brand_id: int, gtin: str, face: int, now: datetime) -> dict[str, Any]:
        """The parameters of the steps, but for the item and its visitor."""
        listed = self._listed.get((brand_id, gtin), ())
        stripes = [stripe for terms in listed if terms.may_be_open(face, now) for stripe in terms.stripes]
        return {"brand": brand_id, "gtin": gtin, "now": now, "today": claims.day_of(now), "stripes": stripes}

    async def offers_of(self, looked: Looked, found: Mapping[str, Any], asked: Collection[uuid.UUID]) -> list[Offer]:
        """Every campaign for an item, with what its holder can expect of it; at most 20, those that run now in front.

        `found` is what the steps collected, and `asked` the stripes that they were given. A visitor who is not signed
        in is never told that a limit is reached. It takes more round trips when a campaign is new to this server, and
        when the last prize of several is used up.
        """
        statuses: dict[uuid.UUID, str] = dict(found["campaigns"])
        listed = await self._terms_of(list(statuses))
        self._listed[looked.brand_id, looked.gtin] = listed
        claimed = {claim.campaign_id: claim for claim in claims_in(found)}
        states = [
            _state(terms, statuses[terms.campaign_id], claimed.get(terms.campaign_id), looked) for terms in listed
        ]
        # Budgets and limits matter only where everything else says yes.
        opened = [terms for terms, state in zip(listed, states, strict=True) if state is OfferState.OPEN]
        used_up = await self._used_up(opened, dict(found["held"]), asked)
        full = _full(opened, found["counts"] or (), looked.now)
        for number, terms in enumerate(listed):
            if terms.campaign_id in used_up:
                states[number] = OfferState.BUDGET_USED_UP
            elif terms.campaign_id in full:
                states[number] = OfferState.LIMIT_REACHED
        return [
            _offer(terms, state, claimed.get(terms.campaign_id)) for terms, state in zip(listed, states, strict=True)
        ]

    async def _terms_of(self, campaign_ids: Sequence[uuid.UUID]) -> list[_Terms]:
        missing = [campaign_id for campaign_id in campaign_ids if campaign_id not in self._terms]
        if missing:
            async with self._database.reading() as session:
                prizes = await campaigns.prizes_of(session, missing)
                for campaign in await session.exec(select(Campaign).where(col(Campaign.campaign_id).in_(missing))):
                    self._terms[campaign.campaign_id] = _Terms.of(campaign, prizes[campaign.campaign_id])
        return [self._terms[campaign_id] for campaign_id in campaign_ids]

    async def _used_up(
        self, opened: Sequence[_Terms], held: Mapping[uuid.UUID, int], asked: Collection[uuid.UUID]
    ) -> set[uuid.UUID]:
        short = [terms for terms in opened if not terms.pays(held)]
        used_up = {terms.campaign_id for terms in short if len(terms.prizes) == 1 and terms.stripes[0] in asked}
        doubtful = [terms for terms in short if terms.campaign_id not in used_up]
        if doubtful:
            async with self._database.reading() as session:
                used_up |= {terms.campaign_id for terms in doubtful if not await _pays(session, terms)}
        return used_up


def claims_in(found: Mapping[str, Any]) -> list[Claimed]:
    """The claims that the steps collected, one a campaign at most, oldest first."""
    return [Claimed(*row) for row in found["claims"]]


async def _pays(session: Session, terms: _Terms) -> bool:
    for prize in terms.prizes:
        if not prize.amount or await campaigns.budget_left(session, terms.campaign, prize) >= prize.amount:
            return True
    return False


def _state(terms: _Terms, status: str, claim: Claimed | None, looked: Looked) -> OfferState:
    campaign = terms.campaign
    if claim is not None:
        return OfferState.CLAIMED_BY_YOU if claim.member_id == looked.visitor else OfferState.CLAIMED_BY_SOMEBODY
    state = campaigns.state_at(campaign, looked.now)
    if state is not CampaignState.OPEN:
        return OfferState(state.value)
    if status == CampaignStatus.PAUSED:
        return OfferState.PAUSED
    if looked.face != campaign.face:
        return OfferState.NEEDS_INNER_CODE if campaign.face == Face.INNER else OfferState.NEEDS_OUTER_CODE
    return OfferState.OPEN


def _full(opened: Sequence[_Terms], counts: Sequence[Sequence[Any]], now: datetime) -> set[uuid.UUID]:
    """The campaigns in which the visitor's limits, in all or today, are reached."""
    by_campaign: dict[uuid.UUID, dict[int, int]] = {}
    for campaign_id, day, count in counts:
        by_campaign.setdefault(campaign_id, {})[day] = count
    return {
        terms.campaign_id
        for terms in opened
        if claims.member_limit_reached(terms.campaign, by_campaign.get(terms.campaign_id, {}), now)
    }


def _offer(terms: _Terms, state: OfferState, claim: Claimed | None) -> Offer:
    campaign = terms.campaign
    return Offer(
        campaign_id=campaign.campaign_id,
        title_zh=campaign.title_zh,
        title_en=campaign.title_en,
        face=Face(campaign.face),
        chances=terms.chances,
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
        state=state,
        claimed_at=claim.at if claim is not None else None,
        given=terms.chances[claim.prize_number].prize if claim is not None else None,
    )
