"""What each of the shopper's pages shows, as frozen data that a router fills in and `pages` turns into HTML."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Language = Literal["zh", "en"]

ScanState = Literal["genuine", "malformed", "unknown", "revoked", "recalled", "voided", "held", "error"]
ScanWarning = Literal["not_active", "scanned_often", "expired"]
Step = Literal["commissioned", "activated", "shipped", "received", "held", "recalled", "voided", "scanned", "claimed"]
PrizeKind = Literal["points", "mb", "fen", "benefit", "nothing"]
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
Pattern = Literal["plain", "waves", "dots", "stars", "lattice"]
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
    "points_short",
    "out_of_stock",
    "price_changed",
    "limit_used_up",
    "not_for_tier",
    "not_open",
    "card_needed",
    "wrong_state",
    "address",
    "draw_over",
    "not_for_you",
    "packet_empty",
    "prove_again",
    "consent_outdated",
    "merge_refused",
]


@dataclass(frozen=True)
class TimelineEntry:
    """One step in the life of an item; `at` carries a time zone, entries stand oldest first."""

    step: Step
    at: datetime
    place: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class ChanceView:
    """One prize of a draw: it comes up with a chance of `weight` in `of`. `value_fen` is what a benefit is worth."""

    prize_kind: PrizeKind
    prize_amount: int
    weight: int
    of: int
    prize_name: str | None = None
    value_fen: int = 0


@dataclass(frozen=True)
class OfferView:
    """What an item may pay; `prize_amount` counts points, megabytes, fen or benefits. A draw lists its `chances`.

    `prize_name` is a benefit's own name, and `value_fen` what it is worth, 0 when nothing is said of it.

    `idempotency_key` goes into the claim form of a signed-in member: one fresh key an offer and page, because the same
    key with another campaign would be refused.
    """

    campaign_id: str
    title: str
    prize_kind: PrizeKind
    prize_amount: int
    state: OfferState
    idempotency_key: str
    chances: tuple[ChanceView, ...] = ()
    prize_name: str | None = None
    value_fen: int = 0

    @property
    def is_drawn(self) -> bool:
        """Whether nobody knows yet which prize it will be."""
        return bool(self.chances) and self.state not in ("claimed", "claimed_by_you")


@dataclass(frozen=True)
class FaceView:
    """How a card looks: one to three colours as #rrggbb, that of the text, and what is drawn faintly over them."""

    colours: tuple[str, ...]
    text_colour: str
    pattern: Pattern


HOUSE_FACE = FaceView(("#141c3d", "#2c3b7d"), "#ffffff", "stars")
"""The look of a card whose brand chose none; its real colours stand in the style sheet, for light and for dark."""


@dataclass(frozen=True)
class CardView:
    """One brand's membership card."""

    brand_name: str
    number: str
    tier_name: str
    face: FaceView = HOUSE_FACE


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

    `code_text` and `campaign_id` are carried along when a claim waits for the sign-in; both or neither. `brand` is the
    short name of one whose group is meant, `then` the page to come back to.
    """

    language: Language
    phone: str | None = None
    problem: PhoneProblem | None = None
    code_text: str | None = None
    campaign_id: str | None = None
    brand: str | None = None
    then: str | None = None


@dataclass(frozen=True)
class DocumentView:
    """A version of a document that is to be agreed to. `is_needed`: without it nobody signs in."""

    kind: str
    version: str
    title: str
    url: str
    is_needed: bool = False


@dataclass(frozen=True)
class OneTimeCodeView:
    """Stage 2 of signing in: the one-time code sent to `phone`.

    With a claim waiting (`code_text`, `campaign_id`, `idempotency_key`) the form goes to `CLAIM_ACTION`, otherwise to
    `CONFIRM_ACTION`. `development_code` is shown in a box marked as such; never set it in production. `documents` are
    those in force, `agreed` the ones that were ticked before, as kind@version.
    """

    language: Language
    phone: str
    code_text: str | None = None
    campaign_id: str | None = None
    idempotency_key: str | None = None
    problem: OneTimeCodeProblem | None = None
    tries_left: int | None = None
    development_code: str | None = None
    brand: str | None = None
    then: str | None = None
    documents: tuple[DocumentView, ...] = ()
    agreed: tuple[str, ...] = ()


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
    prize_name: str | None = None


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
