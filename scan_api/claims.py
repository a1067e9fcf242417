"""Claims: a member who holds an item asks for a campaign's prize, once, however often the request arrives.

A claim is one procedure, put together here from the steps of those who know the tables: one round trip on PostgreSQL.
What an order and a campaign were made with does not change, so it is read once and kept; a claim that meets one for the
first time costs one round trip more, and a repeated request another.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import select

from codes import orders, ranges
from kit import idempotency, procedures
from kit.clock import iso
from kit.db import Database, Session
from kit.errors import Conflict, FanxingError
from kit.ids import new_id
from kit.kept import Kept
from kit.procedures import Caller, Procedure, Refused
from kit.vault import Vault
from loyalty import benefits, campaigns, ledger, members, sandbox, sign_in
from loyalty import claims as steps
from loyalty.benefits import paid
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import CampaignPrize, Terms
from loyalty.claims import ClaimRequest
from loyalty.draws import fair
from loyalty.ledger import Entry, Policy, paying
from offline_sdk.code_text import ORDER_DIGITS
from offline_sdk.verifier import Verdict
from scan_api import scans
from scan_api.errors import SignInNeeded
from scan_api.provenance import life
from scan_api.scans import Issued, OrderFacts, Scans
from scan_api.trust import Trust
from signer import keys

POLICY_KEPT = timedelta(seconds=60)
"""How long it takes at most until a group's new points policy is followed."""
_TRIES_BESIDES = 2
"""How often a budget is tried besides once a stripe. Each try that waits in vain saw a stripe being emptied, so after
so many nothing is left: whoever gets the consolation shows that the prize was used up, as a draw's record has it."""

PROCEDURE = Procedure(
    "claim",
    {
        **sign_in.SIGNED_IN_PARAMETERS,
        **idempotency.TAKING_PARAMETERS,
        **keys.NOT_REVOKED_PARAMETERS,
        **ranges.HOLDING_PARAMETERS,
        **life.FREE_PARAMETERS,
        **steps.PARAMETERS,
    },
    # The key first: who repeats a request gets his answer, whatever has become of item and campaign since.
    [*sign_in.SIGNED_IN, *idempotency.TAKING, *keys.NOT_REVOKED, *ranges.HOLDING, *life.FREE, *steps.STEPS],
    steps.ANSWER,
)


class ItemRevoked(Conflict):
    code = "ItemRevoked"


class ItemNotOnSale(Conflict):
    code = "ItemNotOnSale"


@dataclass(frozen=True)
class Ask:
    """What a caller asks for. `token` is his session's; `device` and `place` are what limits count by."""

    token: str
    code_text: str
    campaign_id: uuid.UUID
    idempotency_key: str
    device: uuid.UUID | None = None
    place: uuid.UUID | None = None

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same."""
        return idempotency.fingerprint("claim", {"code_text": self.code_text, "campaign_id": str(self.campaign_id)})


@dataclass(frozen=True)
class _Item:
    """An item that a genuine code speaks of."""

    issued: Issued
    item_number: int
    face: int
    ticket: bytes

    @property
    def facts(self) -> OrderFacts:
        return self.issued.facts


@dataclass
class _Kept:
    """What does not change, or not often."""

    terms: Kept[uuid.UUID, Terms] = field(default_factory=Kept)
    policies: Kept[int, tuple[Policy, datetime]] = field(default_factory=Kept)
    sandboxes: dict[int, bool] = field(default_factory=dict)


class Claims:
    """Grants claims."""

    def __init__(self, database: Database, caller: Caller, vault: Vault, trust: Trust, judge: Scans) -> None:
        self._database = database
        self._caller = caller
        self._vault = vault
        self._trust = trust
        self._scans = judge
        self._kept = _Kept()

    async def claim(self, ask: Ask, now: datetime) -> dict[str, Any]:
        """Grant the prize and answer what was granted, or answer again as the first time.

        Raises SignInNeeded, CodeRefused, ItemRevoked, ItemNotOnSale, the refusals of `loyalty.claims` and those of
        `kit.idempotency`.
        """
        idempotency.check_key(ask.idempotency_key)
        key = sign_in.session_key(ask.token)
        if key is None:
            raise SignInNeeded("sign in first", hint="POST /v1/sign-in/codes sends a one-time code.")
        member_id, token_hash = key
        try:
            return await self._grant(ask, member_id, token_hash, now)
        except (FanxingError, Refused) as error:
            async with self._database.reading() as session:
                if await sign_in.member_of(session, ask.token, now) is None:
                    raise SignInNeeded("sign in first", hint="POST /v1/sign-in/codes sends a one-time code.") from None
                earlier = await idempotency.find(session, member_id, ask.idempotency_key, ask.fingerprint)
                if earlier is not None:
                    return await self._again(session, member_id, earlier, now)
                if isinstance(error, FanxingError):
                    raise
                raise await self._refusal(session, error.name, ask, member_id) from None

    async def _grant(self, ask: Ask, member_id: uuid.UUID, token_hash: bytes, now: datetime) -> dict[str, Any]:
        verdict = self._trust.verifier.check(ask.code_text)
        item, terms, policy = await self._known(verdict, ask, now)
        request = _request(item, ask, member_id)
        steps.check(terms, request, now)
        drawn = terms.drawn(item.ticket)
        fixed = {
            "token": token_hash,
            "caller": member_id,
            "key": ask.idempotency_key,
            "asked": ask.fingerprint,
            "kid": item.facts.kid,
            "gtin": item.facts.gtin,
            "order_number": item.facts.order_number,
            "item_number": item.item_number,
            "order": item.facts.order_id,
            "order_lock": orders.lock_of(item.facts.order_id),
            "marks_lock": life.lock_of(item.facts.brand_id),
            **item.issued.life_values(),
        }
        claim_id, make_believe = new_id(), self._kept.sandboxes[terms.campaign.group_id]
        for given in dict.fromkeys((drawn.number, terms.prizes[-1].number)):
            prize = terms.prizes[given]
            answer = _answer(terms, claim_id, prize, now)
            expiry = ledger.lot_expiry(policy, now)
            values = {
                **steps.values_of(
                    self._vault, terms, request, claim_id, drawn, prize, expiry, now, sandbox=make_believe
                ),
                **fixed,
            }
            granted = await self._pay(terms, prize, {**values, "remembered": answer})
            if granted is not None:
                answer = {**answer, "balance": granted["payee_balance"], "card_number": granted["card_number"]}
                if values["writes_coupon"]:
                    code = paid.code_of(self._vault, values)
                    return {**answer, "coupon_id": answer["claim_id"], "coupon_code": code}
                if answer["benefit_id"] is None:
                    return {**answer, "coupon_id": None, "coupon_code": None}
                async with self._database.reading() as session:
                    return {**answer, **await self._coupon(session, member_id, answer, now)}
        raise BudgetUsedUp("this campaign has nothing left to give")

    async def _pay(self, terms: Terms, prize: CampaignPrize, values: dict[str, Any]) -> dict[str, Any] | None:
        """The procedure's answer; None when the prize is used up."""
        for number in range(_TRIES_BESIDES + len(values["stripes"])):
            try:
                return await self._call(terms, prize, values)
            except Refused as refused:
                if refused.name != BudgetUsedUp.code:
                    raise
            if number:
                # The stripe that was waited for came out empty; others may not be.
                async with self._database.reading() as session:
                    if not await steps.can_pay(session, terms, prize):
                        return None
            values = paying.waiting(values)
        return None

    async def _call(self, terms: Terms, prize: CampaignPrize, values: dict[str, Any]) -> dict[str, Any]:
        benefit_id = prize.benefit_id
        if benefit_id is None or values["writes_coupon"]:
            return await self._caller.call(PROCEDURE, values)
        async with self._database.writing() as session:
            granted = await procedures.call_at_once(session, PROCEDURE, values)
            await benefits.write_out(
                session,
                self._vault,
                held_id=values["claim"],
                member_id=values["member"],
                benefit_id=benefit_id,
                why="claim",
                now=values["now"],
            )
        return granted

    async def _known(self, verdict: Verdict, ask: Ask, now: datetime) -> tuple[_Item, Terms, Policy]:
        """What the claim is about, from memory if it can be. Raises CodeRefused and CampaignUnknown."""
        item = None
        if verdict.error is None:
            issued = self._scans.issued(self._scans.kept_order(verdict), verdict)
            item = _item(issued, verdict) if issued is not None else None
        terms = self._kept.terms.get(ask.campaign_id)
        policy, read_at = self._kept.policies.get(terms.campaign.group_id if terms else 0, (None, now))
        if item is not None and terms is not None and policy is not None and now - read_at < POLICY_KEPT:
            return item, terms, policy
        async with self._database.reading() as session:
            item = await self._look(session, verdict, ask.code_text)
            terms = await campaigns.terms_of(session, self._vault, ask.campaign_id)
            policy = await ledger.policy_of(session, terms.campaign.group_id)
            self._kept.sandboxes[terms.campaign.group_id] = await sandbox.is_sandbox(session, terms.campaign.group_id)
        self._kept.terms[ask.campaign_id] = terms
        self._kept.policies[terms.campaign.group_id] = policy, now
        return item, terms, policy

    async def _look(self, session: Session, verdict: Verdict, text: str) -> _Item:
        subject = scans.refuse_unless_genuine(await self._scans.judge(session, self._trust.verifier, text))
        return _item(subject.item, verdict)

    async def _refusal(self, session: Session, name: str, ask: Ask, member_id: uuid.UUID) -> FanxingError:
        """What a step's refusal means to who asked."""
        if name in ("ItemRevoked", "ItemNotActive"):
            judgement = await self._scans.judge(session, self._trust.verifier, ask.code_text)
            scans.refuse_unless_genuine(judgement)
            if name == "ItemRevoked":
                return ItemRevoked("this item was revoked a moment ago, so it pays nothing", hint="Scan it again.")
            return ItemNotOnSale(
                "this item is not yet on sale, so it pays nothing yet", hint="Ask the shop or the brand."
            )
        terms = self._kept.terms[ask.campaign_id]
        item = await self._look(session, self._trust.verifier.check(ask.code_text), ask.code_text)
        refusal = await steps.refusal(session, name, terms, _request(item, ask, member_id))
        assert refusal is not None, name
        return refusal

    async def _again(
        self, session: Session, member_id: uuid.UUID, answer: dict[str, Any], now: datetime
    ) -> dict[str, Any]:
        """The first answer to a request that came again."""
        terms = await campaigns.terms_of(session, self._vault, uuid.UUID(answer["campaign_id"]))
        posted = await session.exec(
            select(Entry.balance_after).where(
                Entry.holder_id == member_id, Entry.transfer_id == uuid.UUID(answer["claim_id"])
            )
        )
        cards = await members.cards_of(session, member_id)
        [card] = [card for card in cards if card.brand_id == terms.campaign.brand_id]
        return {
            **answer,
            "balance": posted.first(),
            "card_number": card.card_number,
            **await self._coupon(session, member_id, answer, now),
        }

    async def _coupon(
        self, session: Session, member_id: uuid.UUID, answer: dict[str, Any], now: datetime
    ) -> dict[str, Any]:
        """The coupon's id and code. A code is money, so it is stored sealed, and not with the remembered answer."""
        if answer["benefit_id"] is None:
            return {"coupon_id": None, "coupon_code": None}
        held = await benefits.held_of(session, self._vault, member_id, uuid.UUID(answer["claim_id"]), now)
        return {"coupon_id": answer["claim_id"], "coupon_code": held.code}


def _item(issued: Issued, verdict: Verdict) -> _Item:
    assert verdict.serial is not None  # it was issued
    ticket = fair.item_ticket(issued.facts.gtin, verdict.serial)
    return _Item(issued, int(verdict.serial[ORDER_DIGITS:]), verdict.profile or 0, ticket)


def _request(item: _Item, ask: Ask, member_id: uuid.UUID) -> ClaimRequest:
    return ClaimRequest(
        item_key=item.issued.item_key,
        gtin=item.facts.gtin,
        brand_id=item.facts.brand_id,
        face=item.face,
        ticket=item.ticket,
        member_id=member_id,
        device=ask.device,
        place=ask.place,
    )


def _answer(terms: Terms, claim_id: uuid.UUID, prize: CampaignPrize, now: datetime) -> dict[str, Any]:
    """The part of the answer that is known before, and is remembered with the idempotency key."""
    return {
        "claim_id": str(claim_id),
        "campaign_id": str(terms.campaign.campaign_id),
        "prize": {"kind": prize.kind, "amount": prize.amount},
        "at": iso(now),
        "order_id": str(claim_id) if prize.prize.is_ordered else None,
        "benefit_id": str(prize.benefit_id) if prize.benefit_id else None,
    }
