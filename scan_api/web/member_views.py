"""What each of the member's own pages shows, as frozen data."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from scan_api.web.qr import QrView
from scan_api.web.views import CardView, DocumentView, Language, OneTimeCodeProblem, PhoneProblem, PrizeKind

HeldKind = Literal["points", "data", "coupon", "pool", "goods", "cash"]
HeldStatus = Literal["usable", "reserved", "redeemed", "expired", "reversed"]
OrderKind = Literal["data", "cash"]
OrderStatus = Literal["on_its_way", "confirm", "failed", "reversed"]
Reason = Literal[
    "purchase",
    "refund",
    "claim",
    "check_in",
    "task",
    "referral",
    "birthday",
    "draw",
    "draw_price",
    "packet",
    "obtained",
    "given_back",
    "used",
    "expired",
    "merged",
    "imported",
    "other",
]
TaskPeriod = Literal["once", "daily", "weekly"]
DrawState = Literal["published", "open", "closed", "revealed"]
PacketState = Literal["open", "finished", "expired"]
Purpose = Literal["erase", "merge"]


@dataclass(frozen=True)
class PrizeView:
    """Something to be had; `name` and `value_fen` are those of a benefit."""

    kind: PrizeKind
    amount: int
    name: str | None = None
    value_fen: int = 0


@dataclass(frozen=True)
class ExpiryView:
    """So many points run out at this moment."""

    points: int
    at: datetime


@dataclass(frozen=True)
class StandingView:
    """A card, why it is of its tier, and what it falls to when nothing more is bought."""

    card: CardView
    explanation: str
    falls_to: str | None = None
    falls_at: datetime | None = None


@dataclass(frozen=True)
class HeldView:
    """A benefit in the member's hands."""

    held_id: str
    title: str
    kind: HeldKind
    status: HeldStatus
    value_fen: int = 0
    expires_at: datetime | None = None
    code: str | None = None


@dataclass(frozen=True)
class OrderView:
    """Mobile data or cash that somebody has to deliver; `amount` in megabytes or fen."""

    kind: OrderKind
    amount: int
    status: OrderStatus
    at: datetime


@dataclass(frozen=True)
class MeView:
    """The member's own page; `phone_masked` shows just enough to recognise the number, as in 138****8000.

    `held` are the first benefits of `held_count`.
    """

    language: Language
    phone_masked: str
    points: int
    data_mb: int
    expiry: ExpiryView | None = None
    cards: tuple[StandingView, ...] = ()
    held: tuple[HeldView, ...] = ()
    held_count: int = 0
    orders: tuple[OrderView, ...] = ()


@dataclass(frozen=True)
class MovementView:
    """Points that came, or went when below zero."""

    at: datetime
    reason: Reason
    amount: int
    balance_after: int
    brand_name: str | None = None


@dataclass(frozen=True)
class PointsView:
    """The history of the points, latest first; `next_cursor` leads on."""

    language: Language
    points: int
    expiry: ExpiryView | None = None
    movements: tuple[MovementView, ...] = ()
    next_cursor: str | None = None


@dataclass(frozen=True)
class HeldListView:
    """A page of the member's benefits; `next_page` is None on the last."""

    language: Language
    held: tuple[HeldView, ...] = ()
    next_page: int | None = None


@dataclass(frozen=True)
class HeldPageView:
    """One benefit: its code to be shown at a till, or what is still to be done with it."""

    language: Language
    held: HeldView
    brand_name: str
    is_new: bool = False
    qr: QrView | None = None


@dataclass(frozen=True)
class BrandChoice:
    """A brand whose benefits can be looked at."""

    slug: str
    name: str
    is_chosen: bool = False


@dataclass(frozen=True)
class PriceView:
    """What a tier pays, and those above it up to the next price."""

    tier_name: str
    points: int


@dataclass(frozen=True)
class OfferedView:
    """A benefit that points can buy. `price` is the member's own; None: not for his tier."""

    benefit_id: str
    title: str
    text: str
    kind: HeldKind
    value_fen: int
    price: int | None
    prices: tuple[PriceView, ...]
    in_stock: bool = True


@dataclass(frozen=True)
class ShopView:
    """What the member's points can buy at one brand."""

    language: Language
    points: int
    brands: tuple[BrandChoice, ...]
    tier_name: str = ""
    offered: tuple[OfferedView, ...] = ()
    next_cursor: str | None = None

    @property
    def chosen(self) -> BrandChoice | None:
        return next((brand for brand in self.brands if brand.is_chosen), None)


@dataclass(frozen=True)
class ConfirmView:
    """The question whether points shall go for a benefit. `valid_days`, `expires_at`: how long it can be used."""

    language: Language
    offered: OfferedView
    brand_name: str
    tier_name: str
    points: int
    idempotency_key: str
    valid_days: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True)
class CheckInView:
    """A daily check-in. `earns`: what today brings, or tomorrow when it is done."""

    program_id: str
    title: str
    is_done: bool
    streak: int
    earns: int


@dataclass(frozen=True)
class TaskView:
    """Something to be done, and what it brings."""

    title: str
    period: TaskPeriod
    prize: PrizeView
    chances: int = 0
    is_done: bool = False


@dataclass(frozen=True)
class DrawLink:
    """A draw that runs."""

    draw_id: str
    title: str
    closes_at: datetime


@dataclass(frozen=True)
class ReferralView:
    """A way to bring friends, and what both get."""

    program_id: str
    title: str
    you: PrizeView
    friend: PrizeView


@dataclass(frozen=True)
class PacketOffer:
    """A red packet to be made and shared. `kind` and `total` say what is in it, `shares` for how many."""

    program_id: str
    title: str
    whole: PrizeView
    shares: int
    idempotency_key: str


@dataclass(frozen=True)
class EarnView:
    """Everything that brings points without a scan."""

    language: Language
    points: int
    check_ins: tuple[CheckInView, ...] = ()
    tasks: tuple[TaskView, ...] = ()
    draws: tuple[DrawLink, ...] = ()
    referrals: tuple[ReferralView, ...] = ()
    packets: tuple[PacketOffer, ...] = ()


@dataclass(frozen=True)
class PlayView:
    """A play of the member: what it gave, and its line of the record."""

    turn: int
    prize_name: str
    has_won: bool
    at: datetime
    receipt: str


@dataclass(frozen=True)
class DrawView:
    """A draw in public, and for a member a way to play. `plays` are his, latest first; `chances` None: none needed."""

    language: Language
    draw_id: str
    title: str
    brand: str
    state: DrawState
    notice: tuple[str, ...]
    commitment: str
    seed: str | None = None
    is_member: bool = False
    may_play: bool = False
    chances: int | None = None
    plays: tuple[PlayView, ...] = ()
    entropy: str = ""
    idempotency_key: str = ""


@dataclass(frozen=True)
class ShareView:
    """The member's own link to send to friends."""

    language: Language
    title: str
    url: str
    qr: QrView
    friends: int = 0


@dataclass(frozen=True)
class InvitationView:
    """What a friend's link opens. `gift` is what the visitor gets."""

    language: Language
    code: str
    title: str
    brand_name: str
    brand: str
    gift: PrizeView
    is_member: bool = False


@dataclass(frozen=True)
class ShareOpened:
    """A share that somebody took out of a packet."""

    number: int
    prize: PrizeView
    at: datetime


@dataclass(frozen=True)
class PacketView:
    """A red packet. `url` and `qr` are for its owner to share; `own` is what the visitor found in it."""

    language: Language
    packet_id: str
    title: str
    brand: str
    whole: PrizeView
    shares: int
    state: PacketState
    expires_at: datetime
    commitment: str
    seed: str | None = None
    opened: tuple[ShareOpened, ...] = ()
    is_member: bool = False
    is_owner: bool = False
    own: PrizeView | None = None
    url: str = ""
    qr: QrView | None = None


@dataclass(frozen=True)
class ConsentView:
    """A document in force, and what the member last said: `given` None when he was never asked about this version."""

    document: DocumentView
    given: bool | None = None
    at: datetime | None = None


@dataclass(frozen=True)
class PrivacyView:
    """What the member agreed to, what is held about him, and how to be forgotten or to be one with another number."""

    language: Language
    phone_masked: str
    consents: tuple[ConsentView, ...] = ()
    merges: int = 0
    problem: PhoneProblem | None = None
    phone: str = ""


@dataclass(frozen=True)
class ProofView:
    """The codes that prove a phone before something that cannot be undone.

    `other_phone` is that of the member to be merged. `asks_own`: the sign-in is too old, so a code went to the member's
    own phone. The development codes are never set in production.
    """

    language: Language
    purpose: Purpose
    phone_masked: str
    idempotency_key: str
    asks_own: bool = True
    other_phone: str | None = None
    problem: OneTimeCodeProblem | None = None
    development_own: str | None = None
    development_other: str | None = None


@dataclass(frozen=True)
class DoneView:
    """Something that cannot be undone is done: the member was erased, or another number is his."""

    language: Language
    purpose: Purpose
    points: int = 0
