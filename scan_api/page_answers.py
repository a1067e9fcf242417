"""What all routers of pages share: who wants a page, whose form it is, and refusals in the visitor's language."""

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from kit.db import Session
from kit.errors import FanxingError, Forbidden
from loyalty.claims import AlreadyClaimed, CampaignNotOpen
from loyalty.consents import PRIVACY, ConsentDocument
from loyalty.offers import OfferState
from loyalty.tier_rules import Tier
from scan_api import membership
from scan_api.auth import members
from scan_api.callers import caller_of
from scan_api.errors import status_of
from scan_api.services import Services
from scan_api.web import pages, views
from scan_api.web.language import choose
from scan_api.web.rendering import Html

ERROR_REASONS: dict[str, views.ErrorReason] = {
    "PageUnknown": "not_found",
    "SignInNeeded": "sign_in_needed",
    "AlreadyClaimed": "claimed",
    "BudgetUsedUp": "used_up",
    "MemberLimitReached": "limit_reached",
    "ClaimNeedsInnerCode": "needs_inner",
    "ItemNotOnSale": "not_active",
    "PointsShort": "points_short",
    "PlayUnpaid": "points_short",
    "BenefitOutOfStock": "out_of_stock",
    "BenefitPriceChanged": "price_changed",
    "BenefitLimitReached": "limit_used_up",
    "AllowanceUsedUp": "limit_used_up",
    "BenefitNotForTier": "not_for_tier",
    "BenefitNotOpen": "not_open",
    "ProgramNotOpen": "not_open",
    "CheckInOutOfTurn": "not_open",
    "CardNeeded": "card_needed",
    "BenefitStateForbids": "wrong_state",
    "DeliveryStateForbids": "wrong_state",
    "AddressInvalid": "address",
    "DrawNotOpen": "draw_over",
    "DrawUsedUp": "draw_over",
    "ReferralRefused": "not_for_you",
    "PacketRefused": "not_for_you",
    "PacketEmpty": "packet_empty",
    "FreshSignInNeeded": "prove_again",
    "OneTimeCodeExpired": "prove_again",
    "OneTimeCodeTriesExhausted": "prove_again",
    "ConsentOutdated": "consent_outdated",
    "ConsentDocumentUnknown": "consent_outdated",
    "MergeRefused": "merge_refused",
    "MergeInvalid": "merge_refused",
    "MemberUnknown": "merge_refused",
}
_REASONS_BY_STATUS: dict[int, views.ErrorReason] = {404: "not_found", 429: "too_many_requests", 401: "sign_in_needed"}


CODE_PROBLEMS: dict[str, views.OneTimeCodeProblem] = {
    "OneTimeCodeWrong": "wrong",
    "OneTimeCodeExpired": "expired",
    "OneTimeCodeTriesExhausted": "too_many_tries",
}
"""What a form says of a one-time code, by the error that refused it."""


class CrossSiteForm(Forbidden):
    code = "CrossSiteForm"


def wants_page(request: Request) -> bool:
    """Whether the caller is a browser looking for a page: it names text/html, a client names JSON or anything."""
    return "text/html" in request.headers.get("accept", "")


def language_of(request: Request) -> views.Language:
    """The language that the visitor reads best."""
    return choose(request.headers.get("accept-language"))


def html_response(
    body: Html, language: views.Language, status: int = 200, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """A page with the headers that every page has."""
    return HTMLResponse(
        body,
        status,
        {
            "content-security-policy": body.policy,
            "content-language": language,
            "vary": "accept, accept-language, cookie",
            **(headers or {}),
        },
    )


def require_own_form(request: Request) -> None:
    """Raises CrossSiteForm when another site's page posts here in the visitor's name.

    Browsers state where a form comes from in Sec-Fetch-Site (W3C Fetch Metadata). Origin says nothing of our own forms:
    with our no-referrer policy browsers send `null`.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise CrossSiteForm("this form came from another site", hint="Open the page again and send it from there.")


def device_of(request: Request, services: Services) -> str:
    """What limits by device count by: who does not tell his device shares the limits of his network."""
    caller = caller_of(request, services)
    return f"id {caller.device_id}" if caller.device_id else f"network {caller.address_network}"


async def sign_in_page(session: Session, request: Request, then: str) -> Response:
    """The form that asks for a phone number, and comes back to a page of ours.

    It signs in with the brand that the address names, else with the one whose code the visitor looked at last.
    """
    language = language_of(request)
    brand = request.query_params.get("brand") or await members.remembered_brand(session, request)
    return html_response(pages.phone(views.PhoneView(language, brand=brand, then=then)), language)


def document_view(document: ConsentDocument, language: views.Language) -> views.DocumentView:
    """A document to be agreed to. Nobody becomes a member without the privacy policy, where there is one."""
    title = document.title_zh if language == "zh" else document.title_en
    return views.DocumentView(document.kind, document.version, title, document.url, document.kind == PRIVACY)


def card_view(held: membership.HeldCard, tier: Tier, language: views.Language) -> views.CardView:
    """A card of that tier, as a page shows it."""
    face = views.FaceView(tier.face.colours, tier.face.text_colour, tier.face.pattern.value)
    return views.CardView(held.brand.name(language), held.card.card_number, tier.name(language), face)


def error_page(request: Request, error: FanxingError) -> Response:
    """A refusal as a page, in the visitor's language."""
    language, status = language_of(request), status_of(error)
    return html_response(pages.error(pages.error_view(language, _reason(error, status), error.code)), language, status)


def _reason(error: FanxingError, status: int) -> views.ErrorReason:
    if isinstance(error, AlreadyClaimed) and error.by_you:
        return "claimed_by_you"
    if isinstance(error, CampaignNotOpen):
        return "not_started" if error.state == OfferState.NOT_STARTED else "ended"
    return ERROR_REASONS.get(error.code) or _REASONS_BY_STATUS.get(
        status, "unavailable" if status >= 500 else "invalid_request"
    )
