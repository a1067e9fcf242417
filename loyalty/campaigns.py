"""Campaigns: what a brand gives for a scanned item, and the claim that gives it once."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Text, and_, or_, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import derived_id, new_id
from kit.vault import Vault
from loyalty import benefits, fulfilment, ledger, members
from loyalty.benefits import HeldCoupon, NewCoupon
from loyalty.fulfilment import DataOrder, OrderState
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer
from loyalty.members import Member

TITLE_CHARACTERS_MAX = 80
COUPON_TEXT_CHARACTERS_MAX = 200
COUPON_VALUE_FEN_MAX = 5_000_000
"""¥50,000, the most that a prize may be worth in China."""
COUPON_VALID_DAYS_MAX = 1095
POINTS_PER_CLAIM_MAX = 1_000_000
MEGABYTES_PER_CLAIM_MAX = 10_240
BUDGET_MAX = ledger.AMOUNT_MAX
"""In units of the prize."""
DURATION_MAX = timedelta(days=5 * 366)
PER_MEMBER_LIMIT_MAX = 1_000_000
STRIPES_DEFAULT = 16
STRIPES_MAX = 64
OFFERS_MAX = 20
_CAMPAIGNS_REMEMBERED = 1_024  # whose stripes need not be derived again
"""Most campaigns that one page shows."""


class Face(IntEnum):
    """Which of an item's two codes was scanned."""

    OUTER = 1
    INNER = 2


class PrizeKind(StrEnum):
    """What a campaign gives."""

    POINTS = "points"
    MEGABYTES = "mb"
    COUPON = "coupon"


class CampaignStatus(StrEnum):
    """Whether the brand lets the campaign run."""

    ACTIVE = "active"
    PAUSED = "paused"


_PRIZE_AMOUNT_MAX = {
    PrizeKind.POINTS: POINTS_PER_CLAIM_MAX,
    PrizeKind.MEGABYTES: MEGABYTES_PER_CLAIM_MAX,
    PrizeKind.COUPON: 1,
}


class CampaignInvalid(Invalid):
    """A campaign cannot be made like this; the message names the field."""

    code = "CampaignInvalid"


class CampaignUnknown(NotFound):
    """There is no such campaign, or not for this member's group."""

    code = "CampaignUnknown"


class CampaignNotOpen(Conflict):
    """The campaign has not started, has ended, or is paused. `state` says which."""

    code = "CampaignNotOpen"

    def __init__(self, state: "OfferState") -> None:
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
    """The member has claimed as often as the campaign allows one member."""

    code = "MemberLimitReached"


class BudgetUsedUp(Conflict):
    """The campaign has nothing left to give."""

    code = "BudgetUsedUp"


class Campaign(SQLModel, table=True):
    """What a brand gives, for which codes, when, and how much in all. Small and read often: a reference table."""

    __tablename__: ClassVar[str] = "campaign"
    __table_args__ = (
        CheckConstraint("face IN (1, 2)", name="face"),
        CheckConstraint("prize_kind IN ('points', 'mb', 'coupon')", name="prize_kind"),
        CheckConstraint("prize_amount > 0 AND budget > 0 AND budget % prize_amount = 0", name="budget"),
        CheckConstraint(f"stripes BETWEEN 1 AND {STRIPES_MAX}", name="stripes"),
        CheckConstraint("starts_at < ends_at", name="period"),
        CheckConstraint("per_member_limit IS NULL OR per_member_limit > 0", name="per_member_limit"),
        CheckConstraint("(prize_kind = 'coupon') = (coupon_valid_days > 0)", name="coupon"),
        CheckConstraint("status IN ('active', 'paused')", name="status"),
    )

    campaign_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    group_id: int
    title_zh: str = Field(sa_type=Text)
    title_en: str = Field(sa_type=Text)
    face: int
    prize_kind: str = Field(sa_type=Text)
    prize_amount: int = Field(sa_type=BigInteger)
    coupon_text_zh: str = Field(default="", sa_type=Text)
    coupon_text_en: str = Field(default="", sa_type=Text)
    coupon_value_fen: int = Field(default=0, sa_type=BigInteger)
    coupon_valid_days: int = 0
    gtin: str | None = Field(default=None, sa_type=Text)
    budget: int = Field(sa_type=BigInteger)
    stripes: int
    starts_at: datetime = Field(sa_type=Moment)
    ends_at: datetime = Field(sa_type=Moment)
    per_member_limit: int | None = None
    status: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)


class Claim(SQLModel, table=True):
    """One item, claimed once in one campaign."""

    __tablename__: ClassVar[str] = "claim"

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    campaign_id: uuid.UUID = Field(primary_key=True)
    claim_id: uuid.UUID
    member_id: uuid.UUID
    prize_amount: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Moment)


class MemberCampaign(SQLModel, table=True):
    """How often a member has claimed in a campaign that limits it."""

    __tablename__: ClassVar[str] = "member_campaign"

    member_id: uuid.UUID = Field(primary_key=True)
    campaign_id: uuid.UUID = Field(primary_key=True)
    claims: int


@dataclass(frozen=True)
class NewCampaign:
    """A campaign to be made. Amounts in points, megabytes or coupons; `stripes` None: as many as is sensible."""

    brand_id: int
    group_id: int
    title_zh: str
    title_en: str
    face: int
    prize_kind: PrizeKind
    prize_amount: int
    budget: int
    starts_at: datetime
    ends_at: datetime
    gtin: str | None = None
    per_member_limit: int | None = None
    coupon_text_zh: str = ""
    coupon_text_en: str = ""
    coupon_value_fen: int = 0
    coupon_valid_days: int = 0
    stripes: int | None = None


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
class Offer:
    """A campaign as the page of one item shows it."""

    campaign_id: uuid.UUID
    title_zh: str
    title_en: str
    face: Face
    prize_kind: PrizeKind
    prize_amount: int
    coupon_text_zh: str
    coupon_text_en: str
    coupon_value_fen: int
    starts_at: datetime
    ends_at: datetime
    state: OfferState
    claimed_at: datetime | None


@dataclass(frozen=True)
class ClaimRequest:
    """A member who holds an item asks for a campaign's prize. `face` is the code he scanned."""

    item_key: int
    gtin: str
    brand_id: int
    face: int
    member_id: uuid.UUID
    campaign_id: uuid.UUID


@dataclass(frozen=True)
class Grant:
    """What a claim gave. The claim's id is also that of its transfer, its coupon and its data order."""

    claim_id: uuid.UUID
    campaign_id: uuid.UUID
    prize_kind: PrizeKind
    prize_amount: int
    at: datetime
    balance: int
    """Of the member's account that the prize went to: points to spend, megabytes on their way, coupons to use."""
    card_number: str
    coupon: HeldCoupon | None
    order_id: uuid.UUID | None


async def create(session: Session, new: NewCampaign, now: datetime) -> Campaign:
    """Make a campaign and fund it, spread over stripes so that claims do not queue for one row.

    Raises CampaignInvalid.
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
        prize_kind=new.prize_kind,
        prize_amount=new.prize_amount,
        coupon_text_zh=new.coupon_text_zh,
        coupon_text_en=new.coupon_text_en,
        coupon_value_fen=new.coupon_value_fen,
        coupon_valid_days=new.coupon_valid_days,
        gtin=new.gtin,
        budget=new.budget,
        stripes=min(new.stripes or STRIPES_DEFAULT, new.budget // new.prize_amount),
        starts_at=new.starts_at,
        ends_at=new.ends_at,
        per_member_limit=new.per_member_limit,
        status=CampaignStatus.ACTIVE,
        created_at=now,
    )
    session.add(campaign)
    await session.flush()
    await _fund(session, campaign, now)
    return campaign


def check(new: NewCampaign, now: datetime) -> None:
    """Check a campaign without making it. Raises CampaignInvalid, naming the field."""
    for field, wrong in _faults(new, now):
        if wrong:
            raise CampaignInvalid(field)


def _faults(new: NewCampaign, now: datetime) -> list[tuple[str, bool]]:
    amount_max = _PRIZE_AMOUNT_MAX[new.prize_kind]
    titles = (new.title_zh, new.title_en)
    texts = (new.coupon_text_zh, new.coupon_text_en)
    coupon = new.prize_kind is PrizeKind.COUPON
    limit, stripes, days = new.per_member_limit, new.stripes, new.coupon_valid_days
    return [
        (
            f"title_zh and title_en: 1 to {TITLE_CHARACTERS_MAX} characters",
            not all(1 <= len(title) <= TITLE_CHARACTERS_MAX for title in titles),
        ),
        ("face: 1 (outer code) or 2 (inner code)", new.face not in (Face.OUTER, Face.INNER)),
        (f"prize_amount: 1 to {amount_max} for {new.prize_kind}", not 1 <= new.prize_amount <= amount_max),
        (f"budget: 1 to {BUDGET_MAX}", not 1 <= new.budget <= BUDGET_MAX),
        ("budget: a whole multiple of prize_amount", new.prize_amount > 0 and new.budget % new.prize_amount != 0),
        ("ends_at: after starts_at, and in the future", not (new.starts_at < new.ends_at and now < new.ends_at)),
        (f"ends_at: at most {DURATION_MAX.days} days after starts_at", new.ends_at - new.starts_at > DURATION_MAX),
        ("gtin: 14 digits", new.gtin is not None and not _is_gtin(new.gtin)),
        (
            f"per_member_limit: 1 to {PER_MEMBER_LIMIT_MAX}",
            limit is not None and not 1 <= limit <= PER_MEMBER_LIMIT_MAX,
        ),
        (f"stripes: 1 to {STRIPES_MAX}", stripes is not None and not 1 <= stripes <= STRIPES_MAX),
        (
            f"coupon_text_zh and coupon_text_en: 1 to {COUPON_TEXT_CHARACTERS_MAX} characters for a coupon",
            coupon and not all(1 <= len(text) <= COUPON_TEXT_CHARACTERS_MAX for text in texts),
        ),
        (
            f"coupon_value_fen: 0 to {COUPON_VALUE_FEN_MAX}",
            coupon and not 0 <= new.coupon_value_fen <= COUPON_VALUE_FEN_MAX,
        ),
        (
            f"coupon_valid_days: 1 to {COUPON_VALID_DAYS_MAX} for a coupon",
            coupon and not 1 <= days <= COUPON_VALID_DAYS_MAX,
        ),
        ("coupon fields: only for a coupon", not coupon and bool(any(texts) or new.coupon_value_fen or days)),
    ]


def _is_gtin(text: str) -> bool:
    return len(text) == 14 and text.isascii() and text.isdigit()


async def _fund(session: Session, campaign: Campaign, now: datetime) -> None:
    grants = campaign.budget // campaign.prize_amount
    each, more = divmod(grants, campaign.stripes)
    asset = _asset(campaign)
    source = AccountId(ledger.brand_holder(campaign.brand_id), asset, Purpose.ISSUANCE)
    legs = [Leg(source, -campaign.budget)]
    for number, stripe in enumerate(_stripes(campaign)):
        legs.append(Leg(stripe, (each + (number < more)) * campaign.prize_amount))
    transfer = Transfer(derived_id("campaign-budget", campaign.campaign_id), "campaign budget", tuple(legs))
    await ledger.post(session, transfer, now)


def _asset(campaign: Campaign) -> str:
    if campaign.prize_kind == PrizeKind.COUPON:
        return benefits.coupon_asset(campaign.campaign_id)
    return ledger.MEGABYTES if campaign.prize_kind == PrizeKind.MEGABYTES else ledger.POINTS


def _stripes(campaign: Campaign) -> tuple[AccountId, ...]:
    return _stripe_accounts(campaign.campaign_id, campaign.stripes, _asset(campaign))


@lru_cache(_CAMPAIGNS_REMEMBERED)
def _stripe_accounts(campaign_id: uuid.UUID, count: int, asset: str) -> tuple[AccountId, ...]:
    return tuple(
        AccountId(derived_id("campaign-stripe", campaign_id, number), asset, Purpose.BUDGET) for number in range(count)
    )


async def get(session: Session, campaign_id: uuid.UUID) -> Campaign:
    """Raises CampaignUnknown."""
    campaign = await session.get(Campaign, campaign_id)
    if campaign is None:
        raise CampaignUnknown("no such campaign")
    return campaign


async def of_brand(session: Session, brand_id: int) -> list[Campaign]:
    """Every campaign of a brand, latest first."""
    found = await session.exec(
        select(Campaign).where(Campaign.brand_id == brand_id).order_by(col(Campaign.campaign_id).desc())
    )
    return list(found)


async def set_status(session: Session, campaign_id: uuid.UUID, status: CampaignStatus) -> None:
    """Pause a campaign or let it run again. Raises CampaignUnknown."""
    changed = await session.exec(
        update(Campaign)
        .where(col(Campaign.campaign_id) == campaign_id)
        .values(status=status)
        .returning(col(Campaign.campaign_id))
    )
    if changed.first() is None:
        raise CampaignUnknown("no such campaign")


async def budget_left(session: Session, campaign: Campaign) -> int:
    """What the campaign can still give, in units of the prize."""
    return sum((await ledger.balances_of(session, _stripes(campaign))).values())


async def offers(
    session: Session,
    *,
    claims: Sequence[Claim],
    gtin: str,
    brand_id: int,
    face: int,
    member_id: uuid.UUID | None,
    now: datetime,
) -> list[Offer]:
    """Every campaign for an item, with what its holder can expect of it; at most 20, those that run now in front.

    `claims` are those of the item (`claims_of`). `member_id` is None for a visitor, who is never told that a limit is
    reached.
    """
    found = await session.exec(
        select(Campaign)
        .where(Campaign.brand_id == brand_id, or_(col(Campaign.gtin).is_(None), col(Campaign.gtin) == gtin))
        .order_by(
            # Those that run come first: the limit must not cut them off for others that are still to come.
            and_(col(Campaign.starts_at) <= now, col(Campaign.ends_at) > now).desc(),
            col(Campaign.ends_at).desc(),
            col(Campaign.campaign_id),
        )
        .limit(OFFERS_MAX)
    )
    campaigns = list(found)
    claimed = {claim.campaign_id: claim for claim in claims}
    states = {
        campaign.campaign_id: _state_for(campaign, claimed.get(campaign.campaign_id), face, member_id, now)
        for campaign in campaigns
    }
    # Budgets and limits are looked up only where everything else says yes: most scans of most items end before.
    open_ones = [campaign for campaign in campaigns if states[campaign.campaign_id] is OfferState.OPEN]
    counts = await _claims_by(session, member_id, open_ones)
    held = await ledger.balances_of(session, [stripe for campaign in open_ones for stripe in _stripes(campaign)])
    for campaign in open_ones:
        states[campaign.campaign_id] = _open_state(campaign, held, counts.get(campaign.campaign_id, 0))
    return [_offer(campaign, states[campaign.campaign_id], claimed.get(campaign.campaign_id)) for campaign in campaigns]


async def _claims_by(
    session: Session, member_id: uuid.UUID | None, campaigns: Sequence[Campaign]
) -> dict[uuid.UUID, int]:
    limited = [campaign.campaign_id for campaign in campaigns if campaign.per_member_limit is not None]
    if member_id is None or not limited:
        return {}
    found = await session.exec(
        select(MemberCampaign.campaign_id, MemberCampaign.claims).where(
            MemberCampaign.member_id == member_id, col(MemberCampaign.campaign_id).in_(limited)
        )
    )
    return dict(found.all())


def _state_for(
    campaign: Campaign, claim: Claim | None, face: int, member_id: uuid.UUID | None, now: datetime
) -> OfferState:
    if claim is None:
        return _state(campaign, face, now)
    return OfferState.CLAIMED_BY_YOU if claim.member_id == member_id else OfferState.CLAIMED_BY_SOMEBODY


def _state(campaign: Campaign, face: int, now: datetime) -> OfferState:
    if now < campaign.starts_at:
        return OfferState.NOT_STARTED
    if now >= campaign.ends_at:
        return OfferState.ENDED
    if campaign.status == CampaignStatus.PAUSED:
        return OfferState.PAUSED
    if face != campaign.face:
        return OfferState.NEEDS_INNER_CODE if campaign.face == Face.INNER else OfferState.NEEDS_OUTER_CODE
    return OfferState.OPEN


def _open_state(campaign: Campaign, held: Mapping[AccountId, int], claims_by_you: int) -> OfferState:
    if all(held.get(stripe, 0) < campaign.prize_amount for stripe in _stripes(campaign)):
        return OfferState.BUDGET_USED_UP
    if campaign.per_member_limit is not None and claims_by_you >= campaign.per_member_limit:
        return OfferState.LIMIT_REACHED
    return OfferState.OPEN


def _offer(campaign: Campaign, state: OfferState, claim: Claim | None) -> Offer:
    return Offer(
        campaign_id=campaign.campaign_id,
        title_zh=campaign.title_zh,
        title_en=campaign.title_en,
        face=Face(campaign.face),
        prize_kind=PrizeKind(campaign.prize_kind),
        prize_amount=campaign.prize_amount,
        coupon_text_zh=campaign.coupon_text_zh,
        coupon_text_en=campaign.coupon_text_en,
        coupon_value_fen=campaign.coupon_value_fen,
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
        state=state,
        claimed_at=claim.at if claim is not None else None,
    )


async def claim(session: Session, vault: Vault, request: ClaimRequest, now: datetime) -> Grant:
    """Give the campaign's prize for one item to one member: once, while there is budget, all in this transaction.

    Raises CampaignUnknown, CampaignNotOpen, ClaimWrongItem, ClaimNeedsInnerCode, ClaimNeedsOuterCode, AlreadyClaimed,
    MemberLimitReached and BudgetUsedUp; the caller's transaction must then be rolled back. One claim a transaction:
    two could wait for each other's budget.
    """
    campaign = await _claimable(session, request, now)
    claim = Claim(
        item_key=request.item_key,
        campaign_id=campaign.campaign_id,
        claim_id=new_id(),
        member_id=request.member_id,
        prize_amount=campaign.prize_amount,
        at=now,
    )
    # Everybody locks in this order: claim, limit, budget, the member's accounts and card.
    await _take_item(session, claim)
    await _count(session, campaign, claim)
    stripe, balance = await _pay(session, campaign, claim)
    card = await members.join_brand(session, claim.member_id, campaign.brand_id, now)
    kind = PrizeKind(campaign.prize_kind)
    coupon = await _issue_coupon(session, vault, campaign, claim) if kind is PrizeKind.COUPON else None
    if kind is PrizeKind.MEGABYTES:
        await _order_data(session, claim, stripe)
    return Grant(
        claim_id=claim.claim_id,
        campaign_id=campaign.campaign_id,
        prize_kind=kind,
        prize_amount=campaign.prize_amount,
        at=now,
        balance=balance,
        card_number=card.card_number,
        coupon=coupon,
        order_id=claim.claim_id if kind is PrizeKind.MEGABYTES else None,
    )


async def _claimable(session: Session, request: ClaimRequest, now: datetime) -> Campaign:
    found = await session.exec(
        select(Campaign)
        .join(Member, col(Member.group_id) == Campaign.group_id)
        .where(Campaign.campaign_id == request.campaign_id, Member.member_id == request.member_id)
        .with_for_update(read=True, of=Campaign)  # a pause waits for this claim, or this claim sees the pause
    )
    campaign = found.first()
    if campaign is None:
        raise CampaignUnknown("no such campaign for this member")
    if campaign.brand_id != request.brand_id or campaign.gtin not in (None, request.gtin):
        raise ClaimWrongItem("this campaign is for other products", hint="See the campaigns on the item's own page.")
    state = _state(campaign, request.face, now)
    if state is OfferState.NEEDS_INNER_CODE:
        raise ClaimNeedsInnerCode("this prize needs the covered code", hint="Open the item and scan the code inside.")
    if state is OfferState.NEEDS_OUTER_CODE:
        raise ClaimNeedsOuterCode("this prize needs the outer code", hint="Scan the code printed outside.")
    if state is not OfferState.OPEN:
        raise CampaignNotOpen(state)
    return campaign


async def _take_item(session: Session, claim: Claim) -> None:
    taken = await session.exec(
        insert(session, Claim).values(claim.model_dump()).on_conflict_do_nothing().returning(col(Claim.claim_id))
    )
    if taken.first() is None:
        by = await session.exec(
            select(Claim.member_id).where(Claim.item_key == claim.item_key, Claim.campaign_id == claim.campaign_id)
        )
        raise AlreadyClaimed(by_you=by.one() == claim.member_id)


async def _count(session: Session, campaign: Campaign, claim: Claim) -> None:
    if campaign.per_member_limit is None:
        return
    counted = await session.exec(
        insert(session, MemberCampaign)
        .values(member_id=claim.member_id, campaign_id=claim.campaign_id, claims=1)
        .on_conflict_do_update(
            index_elements=["member_id", "campaign_id"],
            set_={"claims": col(MemberCampaign.claims) + 1},
            where=col(MemberCampaign.claims) < campaign.per_member_limit,
        )
        .returning(col(MemberCampaign.claims))
    )
    if counted.first() is None:
        raise MemberLimitReached(f"this campaign gives one member at most {campaign.per_member_limit} prizes")


async def _pay(session: Session, campaign: Campaign, claim: Claim) -> tuple[AccountId, int]:
    stripes = _stripes(campaign)
    # Item keys are spread evenly, so their remainders spread the claims.
    first = claim.item_key % len(stripes)
    stripe, *others = stripes[first:] + stripes[:first]
    purpose = Purpose.PENDING if campaign.prize_kind == PrizeKind.MEGABYTES else Purpose.AVAILABLE
    prize = AccountId(claim.member_id, _asset(campaign), purpose)
    legs = (Leg(stripe, -claim.prize_amount, otherwise=tuple(others)), Leg(prize, claim.prize_amount))
    try:
        posted = await ledger.post(session, Transfer(claim.claim_id, "claim", legs), claim.at)
    except InsufficientBalance:
        raise BudgetUsedUp("this campaign has nothing left to give") from None
    paid = next(account for account in posted.balances if account != prize)
    return paid, posted.balances[prize]


async def _issue_coupon(session: Session, vault: Vault, campaign: Campaign, claim: Claim) -> HeldCoupon:
    new = NewCoupon(
        coupon_id=claim.claim_id,
        member_id=claim.member_id,
        campaign_id=campaign.campaign_id,
        brand_id=campaign.brand_id,
        text_zh=campaign.coupon_text_zh,
        text_en=campaign.coupon_text_en,
        value_fen=campaign.coupon_value_fen,
        expires_at=claim.at + timedelta(days=campaign.coupon_valid_days),
    )
    return await benefits.issue(session, vault, new, claim.at)


async def _order_data(session: Session, claim: Claim, stripe: AccountId) -> None:
    order = DataOrder(
        member_id=claim.member_id,
        order_id=claim.claim_id,
        item_key=claim.item_key,
        campaign_id=claim.campaign_id,
        budget_holder_id=stripe.holder_id,
        megabytes=claim.prize_amount,
        state=OrderState.PENDING,
        created_at=claim.at,
    )
    await fulfilment.place(session, order, claim.at)


async def claims_of(session: Session, item_key: int) -> list[Claim]:
    """The claims of an item, one a campaign at most, oldest first."""
    return list((await session.exec(select(Claim).where(Claim.item_key == item_key).order_by(col(Claim.at)))).all())
