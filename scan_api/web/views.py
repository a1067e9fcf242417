"""What each of the shopper's pages shows, as frozen data that a router fills in and `pages` turns into HTML."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Language = Literal["zh", "en"]

ScanState = Literal["genuine", "malformed", "unknown", "revoked", "recalled", "voided", "error"]
ScanWarning = Literal["not_active", "scanned_often"]
Step = Literal["commissioned", "activated", "shipped", "received", "scanned", "claimed"]
PrizeKind = Literal["points", "mb", "coupon"]
OfferState = Literal[
    "open",
    "claimed_by_you",
    "claimed",
    "not_started",
    "ended",
    "used_up",
    "limit_reached",
    "needs_inner",
    "not_active",
]
PhoneProblem = Literal["invalid_phone", "too_many_requests"]
OneTimeCodeProblem = Literal["wrong", "expired", "too_many_tries"]
PackageProblem = Literal["unknown", "spent", "expired", "revoked", "unavailable", "report_refused"]
CouponStatus = Literal["usable", "redeemed", "expired", "cancelled"]
ErrorReason = Literal[
    "not_found",
    "invalid_request",
    "too_many_requests",
    "sign_in_needed",
    "unavailable",
    "claimed_by_you",
    "claimed",
    "not_started",
    "ended",
    "used_up",
    "limit_reached",
    "needs_inner",
    "not_active",
]


@dataclass(frozen=True)
class TimelineEntry:
    """One step in the life of an item; `at` carries a time zone, entries stand oldest first."""

    step: Step
    at: datetime
    place: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class OfferView:
    """One prize an item may pay; `prize_amount` counts points, megabytes or coupons.

    `idempotency_key` goes into the claim form of a signed-in member: one fresh key an offer and page, because the same
    key with another campaign would be refused.
    """

    campaign_id: str
    title: str
    prize_kind: PrizeKind
    prize_amount: int
    state: OfferState
    idempotency_key: str


@dataclass(frozen=True)
class CardView:
    """One brand's membership card."""

    brand_name: str
    number: str
    tier_name: str


@dataclass(frozen=True)
class MemberView:
    """The signed-in member on the page of one item: the group's points and the card of the item's brand, if any."""

    points: int
    card: CardView | None = None


@dataclass(frozen=True)
class ScanView:
    """The page a scanned code opens.

    `scan_count` includes this scan (0: nothing was recorded). Offers show on genuine items only. `code_text` feeds the
    hidden fields of forms and nothing else: the text of an inner code is as good as its prize.
    """

    language: Language
    state: ScanState
    warnings: tuple[ScanWarning, ...] = ()
    brand_name: str | None = None
    product_name: str | None = None
    gtin: str | None = None
    serial: str | None = None
    first_scan_at: datetime | None = None
    scan_count: int = 0
    timeline: tuple[TimelineEntry, ...] = ()
    offers: tuple[OfferView, ...] = ()
    member: MemberView | None = None
    code_text: str | None = None


@dataclass(frozen=True)
class PhoneView:
    """Stage 1 of signing in as a page of its own: at /me without a session, and when a phone number was refused.

    `code_text` and `campaign_id` are carried along when a claim waits for the sign-in; both or neither.
    """

    language: Language
    phone: str | None = None
    problem: PhoneProblem | None = None
    code_text: str | None = None
    campaign_id: str | None = None


@dataclass(frozen=True)
class OneTimeCodeView:
    """Stage 2 of signing in: the one-time code sent to `phone`.

    With a claim waiting (`code_text`, `campaign_id`, `idempotency_key`) the form goes to `CLAIM_ACTION`, otherwise to
    `CONFIRM_ACTION`. `development_code` is shown in a box marked as such; never set it in production.
    """

    language: Language
    phone: str
    code_text: str | None = None
    campaign_id: str | None = None
    idempotency_key: str | None = None
    problem: OneTimeCodeProblem | None = None
    tries_left: int | None = None
    development_code: str | None = None


@dataclass(frozen=True)
class ClaimedView:
    """What a claim brought: the prize, the balance after it, and the member's card of the brand."""

    language: Language
    title: str
    prize_kind: PrizeKind
    prize_amount: int
    points: int
    coupon_code: str | None = None
    card: CardView | None = None


@dataclass(frozen=True)
class CouponView:
    """One coupon in a member's hands."""

    code: str
    title: str
    status: CouponStatus
    expires_at: datetime | None = None


@dataclass(frozen=True)
class MeView:
    """The member's own page; `phone_masked` shows just enough to recognise the number, as in 138****8000."""

    language: Language
    phone_masked: str
    points: int
    data_mb: int
    cards: tuple[CardView, ...] = ()
    coupons: tuple[CouponView, ...] = ()


@dataclass(frozen=True)
class ErrorView:
    """A refusal or a failure: what was wrong, what to do, and the stable code to quote to support."""

    language: Language
    title: str
    message: str
    hint: str
    code: str


@dataclass(frozen=True)
class ReportView:
    """A return report as the print house typed it, or, once it was `received`, the codes that it counts."""

    printed: str = ""
    spoiled: str = ""
    overprinted: str = ""
    received: tuple[int, int, int] | None = None
    """How many are to go on sale, were spoiled, and were printed too often."""


@dataclass(frozen=True)
class PackageView:
    """The print house's page: the package to fetch, and the report to send back.

    It shows nothing of the package, since its address is no secret. `report_id` is a fresh id, the same for a report
    that is corrected and sent again. `code` is the stable code of the error behind a problem; `detail` says in English
    what was wrong with a report.
    """

    language: Language
    package_id: str
    report_id: str
    problem: PackageProblem | None = None
    code: str | None = None
    detail: str | None = None
    report: ReportView = ReportView()
