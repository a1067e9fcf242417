"""A claim as loyalty knows it: granted as `scan_api.claims` does, with an idempotency key, without sign-in and code."""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from kit import idempotency, procedures
from kit.db import Database
from kit.procedures import Procedure, Refused
from kit.vault import Vault
from loyalty import campaigns, claims, ledger
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import CampaignPrize, Terms
from loyalty.claims import ClaimRequest
from loyalty.ledger import Policy, paying

CLAIM = Procedure(
    "claim_simulated",
    {**idempotency.TAKING_PARAMETERS, **claims.PARAMETERS},
    [*idempotency.TAKING, *claims.STEPS],
    claims.ANSWER,
)
_TRIES_BESIDES = 2


@dataclass(frozen=True)
class Ask:
    """A request for a prize. The same key again is the same request."""

    terms: Terms
    item: int
    member_id: uuid.UUID
    claim_id: uuid.UUID
    key: str

    @property
    def request(self) -> ClaimRequest:
        campaign = self.terms.campaign
        ticket = f"item {self.item}".encode()
        return ClaimRequest(self.item, "06901234567892", campaign.brand_id, campaign.face, ticket, self.member_id)

    @property
    def fingerprint(self) -> bytes:
        body = {"item": self.item, "campaign": str(self.terms.campaign.campaign_id)}
        return idempotency.fingerprint("claim", body)


async def claim(database: Database, vault: Vault, ask: Ask, policy: Policy, now: datetime) -> tuple[uuid.UUID, int]:
    """The claim's id and the number of the prize: granted now, or when the same request came before.

    Raises the refusals of `loyalty.claims`.
    """
    claims.check(ask.terms, ask.request, now)
    prizes = ask.terms.prizes
    drawn = ask.terms.drawn(ask.request.ticket)
    try:
        for number in dict.fromkeys((drawn.number, prizes[-1].number)):
            if await _pay(database, vault, ask, drawn, prizes[number], policy, now):
                return ask.claim_id, number
    except Refused as refused:
        async with database.reading() as session:
            if refused.name == "KeyTaken":
                earlier = await idempotency.find(session, ask.member_id, ask.key, ask.fingerprint)
                assert earlier is not None
                return uuid.UUID(earlier["claim_id"]), int(earlier["prize"])
            raise (await claims.refusal(session, refused.name, ask.terms, ask.request) or refused) from None
    raise BudgetUsedUp("this campaign has nothing left to give")


async def _pay(
    database: Database,
    vault: Vault,
    ask: Ask,
    drawn: CampaignPrize,
    prize: CampaignPrize,
    policy: Policy,
    now: datetime,
) -> bool:
    expiry = ledger.lot_expiry(policy, now)
    values = claims.values_of(vault, ask.terms, ask.request, ask.claim_id, drawn, prize, expiry, now)
    values |= {
        "caller": ask.member_id,
        "key": ask.key,
        "asked": ask.fingerprint,
        "remembered": {"claim_id": str(ask.claim_id), "prize": prize.number},
    }
    for number in range(_TRIES_BESIDES + len(values["stripes"])):
        try:
            async with database.writing() as session:
                await procedures.call_at_once(session, CLAIM, values)
            return True
        except Refused as refused:
            if refused.name != BudgetUsedUp.code:
                raise
        if number:
            async with database.reading() as session:
                if not await claims.can_pay(session, ask.terms, prize):
                    return False
        values = paying.waiting(values)
    return False


async def terms_of(database: Database, vault: Vault, campaign_id: uuid.UUID) -> Terms:
    """What a campaign was made with, as it may be kept."""
    async with database.reading() as session:
        terms = await campaigns.terms_of(session, vault, campaign_id)
        session.expunge_all()
    return replace(terms)
