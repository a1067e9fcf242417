"""Claims: a campaign's prize for one item, given once. The steps of the one transaction that does it.

The steps are put together with those of codes and sign-in in `scan_api.claims`, into a procedure: on PostgreSQL a claim
is one round trip.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, bindparam, delete
from sqlmodel import Field, SQLModel, col, select

from kit import locks
from kit.clock import CHINA
from kit.db import Moment, Session
from kit.errors import Conflict
from kit.ids import new_id
from kit.procedures import Kind, Step
from kit.vault import Vault
from loyalty import budgets, campaigns, fulfilment, ledger, members, news
from loyalty.benefits import paid
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import Campaign, CampaignPrize, CampaignState, CampaignUnknown, Face, Limits, Terms
from loyalty.fulfilment import PROVIDER_OF, SANDBOX
from loyalty.ledger import AccountId, Purpose, paying
from loyalty.prizes import ORDERED

_WHOLE_CAMPAIGN = 0
_CHINA = CHINA.utcoffset(None)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


class CampaignNotOpen(Conflict):
    """The campaign has not started, has ended, or is paused. `state` says which."""

    code = "CampaignNotOpen"

    def __init__(self, state: str) -> None:
        super().__init__(f"this campaign is not open: {state}")
        self.state = state


class ClaimNeedsInnerCode(Conflict):
    """The campaign pays for the covered code, and the outer one was scanned."""

    code = "ClaimNeedsInnerCode"


class ClaimNeedsOuterCode(Conflict):
    """The campaign pays for the outer code, and the covered one was scanned."""

    code = "ClaimNeedsOuterCode"


class ClaimWrongItem(Conflict):
    """The item is not one that the campaign pays for."""

    code = "ClaimWrongItem"


class AlreadyClaimed(Conflict):
    """Somebody claimed with this item before. `by_you` says whether it was the same member."""

    code = "AlreadyClaimed"

    def __init__(self, by_you: bool) -> None:
        super().__init__("you have claimed this already" if by_you else "somebody else has claimed this already")
        self.by_you = by_you


class MemberLimitReached(Conflict):
    """The member has claimed as often as the campaign allows one member, in all or today."""

    code = "MemberLimitReached"


class DeviceLimitReached(Conflict):
    """So many prizes were claimed with this device today as the campaign allows."""

    code = "DeviceLimitReached"


class PlaceLimitReached(Conflict):
    """So many prizes were claimed from this place today as the campaign allows."""

    code = "PlaceLimitReached"


class Claim(SQLModel, table=True):
    """One item, claimed once in one campaign."""

    __tablename__: ClassVar[str] = "claim"

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    campaign_id: uuid.UUID = Field(primary_key=True)
    claim_id: uuid.UUID
    member_id: uuid.UUID
    prize_number: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """The prize that was given."""
    drawn_number: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """The prize that was drawn: another one only when it was used up."""
    prize_amount: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Moment)


class ClaimCount(SQLModel, table=True):
    """How often a member, a device or a place has claimed in a campaign: on one day, or (day 0) in all."""

    __tablename__: ClassVar[str] = "claim_count"
    __table_args__ = (CheckConstraint("claims > 0", name="claims"),)

    subject_id: uuid.UUID = Field(primary_key=True)
    campaign_id: uuid.UUID = Field(primary_key=True)
    day: int = Field(primary_key=True)
    claims: int


@dataclass(frozen=True)
class ClaimRequest:
    """A member who holds an item asks for a campaign's prize.

    `face` is the code he scanned, `ticket` what the item draws with. `device` and `place` are ids derived from what is
    known of the caller, and None when nothing is.
    """

    item_key: int
    gtin: str
    brand_id: int
    face: int
    ticket: bytes
    member_id: uuid.UUID
    device: uuid.UUID | None = None
    place: uuid.UUID | None = None


_SUBJECT_OF = {limit.name: limit.name.split("_")[0] for limit in fields(Limits)}
"""Whom each limit counts, by the limit's name."""

PARAMETERS: Mapping[str, Kind] = {
    "now": Kind.MOMENT,
    "member": Kind.UUID,
    "item": Kind.BIGINT,
    "claim": Kind.UUID,
    "campaign": Kind.UUID,
    "campaign_lock": Kind.BIGINT,
    "group_number": Kind.INTEGER,
    "brand": Kind.INTEGER,
    "prize_number": Kind.INTEGER,
    "drawn_number": Kind.INTEGER,
    "amount": Kind.BIGINT,
    "new_card_number": Kind.TEXT,
    "today": Kind.INTEGER,
    **{f"{name}_limit": Kind.INTEGER for name in _SUBJECT_OF},
    **{f"limits_{name}": Kind.BOOLEAN for name in _SUBJECT_OF},
    "device": Kind.UUID,
    "place": Kind.UUID,
    **paying.PAYING_PARAMETERS,
    **paid.WRITING_PARAMETERS,
    "is_ordered": Kind.BOOLEAN,
    "provider": Kind.TEXT,
    "refund_holder": Kind.UUID,
    "topic": Kind.TEXT,
    "order_message": Kind.JSON,
    **news.LEAVING_PARAMETERS,
}


def _counting(limit: str, subject: str, day: str) -> Step:
    name = {"member": "MemberLimitReached", "device": "DeviceLimitReached", "place": "PlaceLimitReached"}[subject]
    return Step(
        f"INSERT INTO claim_count (subject_id, campaign_id, day, claims) VALUES (:{subject}, :campaign, {day}, 1) "  # noqa: S608 - names of ours
        "ON CONFLICT (subject_id, campaign_id, day) DO UPDATE SET claims = claim_count.claims + 1 "
        f"WHERE claim_count.claims < :{limit}_limit",
        refusal=name,
        when=f"limits_{limit}",
    )


# Everybody locks in this order: campaign, claim, counts, card, budget, the member's accounts.
STEPS: tuple[Step, ...] = (
    Step(f"[[{locks.SHARE_SQL.format(key=':campaign_lock')}]]"),
    Step(
        "SELECT 1 FROM campaign WHERE campaign_id = :campaign AND status = 'active' AND starts_at <= :now "
        "AND ends_at > :now",
        refusal="CampaignNotOpen",
    ),
    Step("SELECT 1 FROM member WHERE member_id = :member AND group_id = :group_number", refusal="CampaignUnknown"),
    Step(
        "INSERT INTO claim (item_key, campaign_id, claim_id, member_id, prize_number, drawn_number, prize_amount, at) "
        "VALUES (:item, :campaign, :claim, :member, :prize_number, :drawn_number, :amount, :now) "
        "ON CONFLICT (item_key, campaign_id) DO NOTHING",
        refusal="AlreadyClaimed",
    ),
    _counting("member", "member", str(_WHOLE_CAMPAIGN)),
    _counting("member_day", "member", ":today"),
    _counting("device_day", "device", ":today"),
    _counting("place_day", "place", ":today"),
    Step(
        "INSERT INTO card (member_id, brand_id, card_number, joined_at) "
        "VALUES (:member, :brand, :new_card_number, :now) ON CONFLICT (member_id, brand_id) DO NOTHING"
    ),
    Step(
        "SELECT card_number FROM card WHERE member_id = :member AND brand_id = :brand",
        gives={"card_number": Kind.TEXT},
    ),
    *paying.PAYING,
    *paid.WRITING,
    Step(
        "INSERT INTO fulfilment_order (member_id, order_id, kind, provider, amount, brand_id, item_key, "
        "refund_holder_id, refund_purpose, state, seq, revision, attempts, created_at) VALUES "
        "(:member, :claim, :asset, :provider, :amount, :brand, :item, coalesce(:refund_holder, :stripe), "
        "CASE WHEN :refund_holder IS NULL THEN 'budget' ELSE 'issuance' END, 'created', 0, 0, 0, :now)",
        when="is_ordered",
    ),
    Step(
        "INSERT INTO outbox (item_key, message_id, topic, payload, attempts, failures, due_at) "
        "VALUES (:item, :claim, :topic, :order_message, 0, 0, :now)",
        when="is_ordered",
    ),
    *news.LEAVING,
)
ANSWER = ("card_number", "payee_balance")


def day_of(now: datetime) -> int:
    """The day in China that a limit counts: days since 1970."""
    return (now - _EPOCH + _CHINA) // _DAY


def check(terms: Terms, request: ClaimRequest, now: datetime) -> None:
    """Refuse what no database is needed for.

    Raises ClaimWrongItem, CampaignNotOpen, ClaimNeedsInnerCode and ClaimNeedsOuterCode.
    """
    campaign = terms.campaign
    if campaign.brand_id != request.brand_id or campaign.gtin not in (None, request.gtin):
        raise ClaimWrongItem("this campaign is for other products", hint="See the campaigns on the item's own page.")
    state = campaigns.state_at(campaign, now)
    if state is not CampaignState.OPEN:
        raise CampaignNotOpen(state)
    if request.face != campaign.face:
        if campaign.face == Face.INNER:
            raise ClaimNeedsInnerCode(
                "this prize needs the covered code", hint="Open the item and scan the code inside."
            )
        raise ClaimNeedsOuterCode("this prize needs the outer code", hint="Scan the code printed outside.")


def values_of(
    vault: Vault,
    terms: Terms,
    request: ClaimRequest,
    claim_id: uuid.UUID,
    drawn: CampaignPrize,
    given: CampaignPrize,
    lot_expires_at: datetime | None,
    now: datetime,
    *,
    sandbox: bool = False,
) -> dict[str, Any]:
    """The parameters of the steps. `given` is the prize that was drawn, or the consolation for it.

    A benefit that is no coupon is still to be written out, see `benefits.write_out`.
    """
    campaign, limits = terms.campaign, terms.limits
    order_kind = ORDERED.get(given.prize.kind)
    purpose = Purpose.AVAILABLE if order_kind is None else Purpose.PENDING
    payee = AccountId(request.member_id, given.prize.asset, purpose)
    subjects = {"member": request.member_id, "device": request.device, "place": request.place}
    limited: dict[str, int | bool | None] = {}
    for name, subject in _SUBJECT_OF.items():
        most = getattr(limits, name)
        limited[f"{name}_limit"] = most
        limited[f"limits_{name}"] = most is not None and subjects[subject] is not None
    provider = SANDBOX if sandbox else PROVIDER_OF[order_kind] if order_kind is not None else ""
    stripes = campaigns.budget_of(campaign, given).starting_at(request.item_key) if given.amount else ()
    return {
        "member": request.member_id,
        "item": request.item_key,
        "claim": claim_id,
        "campaign": campaign.campaign_id,
        "campaign_lock": campaigns.lock_of(campaign.campaign_id),
        "group_number": campaign.group_id,
        "brand": campaign.brand_id,
        "prize_number": given.number,
        "drawn_number": drawn.number,
        "new_card_number": members.new_card_number(),
        "today": day_of(now),
        **limited,
        "device": request.device,
        "place": request.place,
        **paying.paying_values(claim_id, stripes, payee, given.amount, "claim", now, lot_expires_at),
        **paid.writing_values(vault, terms.benefits.get(given.number), request.member_id, claim_id, "claim", now),
        "is_ordered": order_kind is not None,
        "provider": provider,
        "refund_holder": _refund_holder(campaign, given, request.member_id),
        "topic": fulfilment.topic_of(provider),
        "order_message": fulfilment.payload_of(request.member_id, claim_id),
        "news_id": new_id(),
        "news_topic": news.CLAIMED,
        "news": {
            "claim_id": str(claim_id),
            "campaign_id": str(campaign.campaign_id),
            "brand_id": campaign.brand_id,
            "member_id": str(request.member_id),
            "prize": {
                "kind": given.kind,
                "amount": given.amount,
                "benefit_id": str(given.benefit_id) if given.benefit_id else None,
            },
            "at": now.isoformat(),
        },
    }


def _refund_holder(campaign: Campaign, given: CampaignPrize, member_id: uuid.UUID) -> uuid.UUID | None:
    """The issuance that gets back what a draw could not deliver; None: it goes back to the budget that paid.

    A draw's prize was given all the same. Won by another item, it would be given more often than the terms say.
    """
    if campaign.commitment is None or not given.prize.is_ordered:
        return None
    return ledger.issuance(campaign.brand_id, given.prize.asset, member_id).holder_id


_LIMITS = {limit.code: limit for limit in (MemberLimitReached, DeviceLimitReached, PlaceLimitReached)}


async def refusal(
    session: Session, name: str, terms: Terms, request: ClaimRequest
) -> Conflict | CampaignUnknown | None:
    """The refusal that a step's name stands for; None when it is not one of a claim."""
    if name == "AlreadyClaimed":
        by = await session.exec(
            select(Claim.member_id).where(
                Claim.item_key == request.item_key, Claim.campaign_id == terms.campaign.campaign_id
            )
        )
        return AlreadyClaimed(by_you=by.one() == request.member_id)
    if name == BudgetUsedUp.code:
        return BudgetUsedUp("this campaign has nothing left to give")
    if name == "CampaignNotOpen":
        return CampaignNotOpen("paused")  # its period was checked before
    if name == "CampaignUnknown":
        return CampaignUnknown("no such campaign for this member")
    if name in _LIMITS:
        return _LIMITS[name]("the campaign's limit is reached", hint="See the campaign's rules for how often it pays.")
    return None


async def can_pay(session: Session, terms: Terms, prize: CampaignPrize) -> bool:
    """Whether a prize's budget holds enough for one more; a stripe that was waited for may have come out empty."""
    accounts = campaigns.budget_of(terms.campaign, prize).accounts
    return budgets.holds(await ledger.balances_of(session, accounts), accounts, prize.amount)


_CLAIMS = select(Claim).where(col(Claim.item_key) == bindparam("item")).order_by(col(Claim.at))


async def claims_of(session: Session, item_key: int) -> list[Claim]:
    """The claims of an item, one a campaign at most, oldest first."""
    return list((await session.exec(_CLAIMS, params={"item": item_key})).all())


async def claims_between(
    session: Session, campaign_id: uuid.UUID, first_key: int, end_key: int, limit: int
) -> list[Claim]:
    """The first `limit` claims in a campaign with items of `first_key` to `end_key` - 1, in the order of the items."""
    found = await session.exec(
        select(Claim)
        .where(Claim.campaign_id == campaign_id, col(Claim.item_key) >= first_key, col(Claim.item_key) < end_key)
        .order_by(col(Claim.item_key))
        .limit(limit)
    )
    return list(found)


def member_limit_reached(campaign: Campaign, counts: Mapping[int, int], now: datetime) -> bool:
    """Whether a campaign's limits, in all or today, keep a member from claiming again.

    `counts` are his claims in the campaign by day, day 0 all of them.
    """
    limits = {_WHOLE_CAMPAIGN: campaign.member_limit, day_of(now): campaign.member_day_limit}
    return any(most is not None and counts.get(day, 0) >= most for day, most in limits.items())


async def sweep(session: Session, now: datetime) -> None:
    """Delete the counts of days that are over."""
    await session.exec(delete(ClaimCount).where(col(ClaimCount.day).between(_WHOLE_CAMPAIGN + 1, day_of(now) - 2)))
