"""For shoppers without an app: the pages behind a scanned code, which work without JavaScript."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from kit.db import Session
from kit.errors import FanxingError, Forbidden
from loyalty import campaigns, ledger, sign_in
from loyalty import members as loyalty_members
from loyalty.benefits import CouponState
from loyalty.campaigns import AlreadyClaimed, CampaignNotOpen, OfferState
from loyalty.members import PHONE_CHARACTERS_MAX, PhoneInvalid
from loyalty.sign_in import (
    CODE_TRIES_MAX,
    OneTimeCodeExpired,
    OneTimeCodeTooSoon,
    OneTimeCodeTriesExhausted,
    OneTimeCodeWrong,
)
from offline_sdk.code_text import TEXT_CHARS_MAX
from scan_api import claims, membership, scans
from scan_api.auth import members
from scan_api.errors import status_of
from scan_api.item_view import WARNING_NOT_ACTIVE, ItemView
from scan_api.provenance.events import Step
from scan_api.services import Serve, Services
from scan_api.web import pages, views
from scan_api.web.language import choose

router = APIRouter(include_in_schema=False)

_TIER_NAMES: dict[str, dict[views.Language, str]] = {"member": {"zh": "会员", "en": "Member"}}

Phone = Annotated[str, Form(max_length=PHONE_CHARACTERS_MAX)]
CodeText = Annotated[str, Form(max_length=TEXT_CHARS_MAX)]

_OFFER_STATES: dict[OfferState, views.OfferState] = {
    OfferState.OPEN: "open",
    OfferState.CLAIMED_BY_YOU: "claimed_by_you",
    OfferState.CLAIMED_BY_SOMEBODY: "claimed",
    OfferState.NOT_STARTED: "not_started",
    OfferState.ENDED: "ended",
    OfferState.PAUSED: "ended",
    OfferState.NEEDS_INNER_CODE: "needs_inner",
    OfferState.BUDGET_USED_UP: "used_up",
    OfferState.LIMIT_REACHED: "limit_reached",
}
# Recall and voiding are no steps of the journey: the verdict itself tells them.
_STEPS: dict[Step, views.Step] = {
    Step.COMMISSIONED: "commissioned",
    Step.ACTIVATED: "activated",
    Step.SHIPPED: "shipped",
    Step.RECEIVED: "received",
    Step.SCANNED: "scanned",
    Step.CLAIMED: "claimed",
}
_COUPON_STATES: dict[CouponState, views.CouponStatus] = {
    CouponState.ISSUED: "usable",
    CouponState.REDEEMED: "redeemed",
    CouponState.EXPIRED: "expired",
}
_SCAN_STATES: dict[str | None, views.ScanState] = {
    None: "genuine",
    "Malformed": "malformed",
    "Revoked": "revoked",
    "Recalled": "recalled",
    "Voided": "voided",
}
_ERROR_REASONS: dict[str, views.ErrorReason] = {
    "PageUnknown": "not_found",
    "SignInNeeded": "sign_in_needed",
    "AlreadyClaimed": "claimed",
    "BudgetUsedUp": "used_up",
    "MemberLimitReached": "limit_reached",
    "ClaimNeedsInnerCode": "needs_inner",
    "ItemNotOnSale": "not_active",
}
_REASONS_BY_STATUS: dict[int, views.ErrorReason] = {404: "not_found", 429: "too_many_requests", 401: "sign_in_needed"}


class CrossSiteForm(Forbidden):
    code = "CrossSiteForm"


def wants_page(request: Request) -> bool:
    """Whether the caller is a browser looking for a page: it names text/html, a client names JSON or anything."""
    return "text/html" in request.headers.get("accept", "")


def language_of(request: Request) -> views.Language:
    """The language that the visitor reads best."""
    return choose(request.headers.get("accept-language"))


def html_response(
    body: str, language: views.Language, status: int = 200, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """A page with the headers that every page has."""
    return HTMLResponse(
        body,
        status,
        {
            "content-security-policy": pages.CONTENT_SECURITY_POLICY,
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


async def member_view(
    session: Session, member_id: uuid.UUID | None, view: ItemView, language: views.Language
) -> views.MemberView | None:
    """The visitor's points, and his card of the item's brand, for the item's page.

    A member of another group is a stranger here: the page asks him to sign in, as it asks everybody.
    """
    subject = view.judgement.subject
    if member_id is None or subject is None:
        return None
    if (await loyalty_members.get(session, member_id)).group_id != subject.brand.group_id:
        return None
    balances = await ledger.balances(session, member_id)
    return views.MemberView(
        points=balances.get((ledger.POINTS, ledger.Purpose.AVAILABLE), 0),
        card=await _card_at(session, member_id, subject.product.brand_id, language),
    )


async def _card_at(
    session: Session, member_id: uuid.UUID, brand_id: int, language: views.Language
) -> views.CardView | None:
    """The member's card of one brand, if he has one."""
    held = await membership.held_cards(session, member_id)
    return next((_card(card, language) for card in held if card.card.brand_id == brand_id), None)


def _card(held: membership.HeldCard, language: views.Language) -> views.CardView:
    return views.CardView(held.brand.name(language), held.card.card_number, _TIER_NAMES[held.tier][language])


def scan_page(
    view: ItemView,
    text: str,
    member: views.MemberView | None,
    language: views.Language,
    status: int,
    headers: dict[str, str],
) -> Response:
    """The page that a scanned code opens."""
    subject, verdict = view.judgement.subject, view.judgement.verdict
    body = pages.scan(
        views.ScanView(
            language=language,
            state=_SCAN_STATES.get(view.judgement.error, "unknown"),
            warnings=tuple(
                "not_active" if warning == WARNING_NOT_ACTIVE else "scanned_often" for warning in view.warnings
            ),
            brand_name=subject.brand.name(language) if subject else None,
            product_name=subject.product.name(language) if subject else None,
            gtin=verdict.gtin if subject else None,
            serial=verdict.serial if subject else None,
            first_scan_at=view.record.first_scan_at,
            scan_count=view.record.scan_count,
            timeline=tuple(
                views.TimelineEntry(_STEPS[event.step], event.at, event.place, event.by)
                for event in view.timeline
                if event.step in _STEPS
            ),
            offers=tuple(_offer(offer, view, language) for offer in view.offers if offer.state in _OFFER_STATES),
            member=member,
            code_text=text if view.judgement.genuine else None,
        )
    )
    return html_response(body, language, status, headers)


def _offer(offer: campaigns.Offer, view: ItemView, language: views.Language) -> views.OfferView:
    dormant = WARNING_NOT_ACTIVE in view.warnings
    return views.OfferView(
        campaign_id=str(offer.campaign_id),
        title=offer.title_zh if language == "zh" else offer.title_en,
        prize_kind=offer.prize_kind.value,
        prize_amount=offer.prize_amount,
        state="not_active" if dormant and offer.state is OfferState.OPEN else _OFFER_STATES[offer.state],
        idempotency_key=str(uuid.uuid4()),
    )


def error_page(request: Request, error: FanxingError) -> Response:
    """A refusal as a page, in the visitor's language."""
    language, status = language_of(request), status_of(error)
    return html_response(pages.error(pages.error_view(language, _reason(error, status), error.code)), language, status)


def _reason(error: FanxingError, status: int) -> views.ErrorReason:
    if isinstance(error, AlreadyClaimed) and error.by_you:
        return "claimed_by_you"
    if isinstance(error, CampaignNotOpen):
        return "not_started" if error.state is OfferState.NOT_STARTED else "ended"
    return _ERROR_REASONS.get(error.code) or _REASONS_BY_STATUS.get(
        status, "unavailable" if status >= 500 else "invalid_request"
    )


@router.post(pages.SIGN_IN_ACTION)
async def begin_sign_in(
    request: Request,
    services: Serve,
    phone: Phone,
    code_text: CodeText = "",
    campaign_id: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Send a one-time code and ask for it."""
    require_own_form(request)
    language = language_of(request)
    problem: views.PhoneProblem
    refusal: FanxingError
    try:
        brand = await _brand_of(services, code_text)
        issued, shown = await members.send_code(services, brand, phone, language, services.clock())
    except PhoneInvalid as error:
        problem, refusal = "invalid_phone", error
    except OneTimeCodeTooSoon as error:
        problem, refusal = "too_many_requests", error
    else:
        return html_response(
            pages.one_time_code(
                views.OneTimeCodeView(
                    language,
                    issued.phone_e164,
                    code_text or None,
                    campaign_id or None,
                    idempotency_key=str(uuid.uuid4()) if code_text else None,
                    development_code=shown.code if shown else None,
                )
            ),
            language,
        )
    return html_response(
        pages.phone(views.PhoneView(language, phone, problem, code_text or None, campaign_id or None)),
        language,
        status_of(refusal),
    )


@router.post(pages.CONFIRM_ACTION)
async def finish_sign_in(
    request: Request, services: Serve, phone: Phone, one_time_code: Annotated[str, Form(max_length=20)]
) -> Response:
    """Check the one-time code and show the member his page."""
    require_own_form(request)
    try:
        _member, token, _is_new = await members.confirm(services, None, phone, one_time_code, services.clock())
    except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
        return _ask_again(request, views.OneTimeCodeView(language_of(request), phone), error)
    response = RedirectResponse(pages.ME_PATH, 303)
    members.set_cookie(response, services, token)
    return response


@router.post(pages.CLAIM_ACTION)
async def claim(
    request: Request,
    services: Serve,
    code_text: CodeText,
    campaign_id: Annotated[uuid.UUID, Form()],
    idempotency_key: Annotated[str, Form(max_length=64)],
    phone: Phone = "",
    one_time_code: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Claim for the signed-in member, or sign in with a one-time code and claim at once."""
    require_own_form(request)
    language, now, token = language_of(request), services.clock(), None
    if one_time_code:
        try:
            brand = await _brand_of(services, code_text)
            _member, token, _is_new = await members.confirm(services, brand, phone, one_time_code, now)
        except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
            view = views.OneTimeCodeView(language, phone, code_text, str(campaign_id), idempotency_key)
            return _ask_again(request, view, error)
    response: Response
    try:
        with services.metrics.counting_claim():
            async with services.database.writing() as session:
                current = token or members.session_token(request) or ""
                member_id = await sign_in.member_of(session, current, now)
                if member_id is None:
                    raise members.SignInNeeded("sign in first")
                answer = await claims.claim(services, session, member_id, code_text, campaign_id, idempotency_key, now)
                view_of_claim = await _claimed_view(services, session, member_id, answer, language)
        response = html_response(pages.claimed(view_of_claim), language)
    except FanxingError as error:
        response = error_page(request, error)  # the sign-in stands, also when the claim is refused
    if token:
        members.set_cookie(response, services, token)
    return response


async def _claimed_view(
    services: Services, session: Session, member_id: uuid.UUID, answer: dict[str, object], language: views.Language
) -> views.ClaimedView:
    campaign = await campaigns.get(session, uuid.UUID(str(answer["campaign_id"])))
    balances = await ledger.balances(session, member_id)
    coupon_code = answer["coupon_code"]
    return views.ClaimedView(
        language=language,
        title=campaign.title_zh if language == "zh" else campaign.title_en,
        prize_kind=campaigns.PrizeKind(campaign.prize_kind).value,
        prize_amount=campaign.prize_amount,
        points=balances.get((ledger.POINTS, ledger.Purpose.AVAILABLE), 0),
        coupon_code=str(coupon_code) if coupon_code else None,
        card=await _card_at(session, member_id, campaign.brand_id, language),
    )


def _ask_again(request: Request, view: views.OneTimeCodeView, error: FanxingError) -> Response:
    problems: dict[str, views.OneTimeCodeProblem] = {
        "OneTimeCodeWrong": "wrong",
        "OneTimeCodeExpired": "expired",
        "OneTimeCodeTriesExhausted": "too_many_tries",
    }
    tries_left = getattr(error, "tries_left", None)
    again = views.OneTimeCodeView(
        view.language,
        view.phone,
        view.code_text,
        view.campaign_id,
        view.idempotency_key,
        problems[error.code],
        tries_left,
    )
    assert tries_left is None or 0 <= tries_left <= CODE_TRIES_MAX
    return html_response(pages.one_time_code(again), view.language, status_of(error))


async def _brand_of(services: Services, code_text: str) -> str | None:
    """The brand whose code the visitor holds: its group is the one to sign in to."""
    if not code_text:
        return None
    async with services.database.reading() as session:
        judgement = await services.scans.judge(session, services.trust.verifier, code_text)
    return scans.refuse_unless_genuine(judgement).brand.slug


@router.get(pages.ME_PATH)
async def me(request: Request, services: Serve) -> Response:
    """The member's own page, or the form that asks for a phone number."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return html_response(pages.phone(views.PhoneView(language)), language)
        holdings = await membership.holdings_of(session, services.vault, member_id, now)
    chinese = language == "zh"
    coupons = tuple(
        views.CouponView(
            coupon.code,
            coupon.text_zh if chinese else coupon.text_en,
            _COUPON_STATES[coupon.state],
            coupon.expires_at,
        )
        for coupon in holdings.coupons
    )
    return html_response(
        pages.me(
            views.MeView(
                language,
                membership.masked(holdings.phone_e164),
                holdings.points,
                holdings.megabytes_pending + holdings.megabytes_delivered,
                tuple(_card(held, language) for held in holdings.cards),
                coupons,
            )
        ),
        language,
    )


@router.post(pages.SIGN_OUT_ACTION)
async def sign_out(request: Request, services: Serve) -> Response:
    """End the session and forget the cookie."""
    require_own_form(request)
    async with services.database.writing() as session:
        await sign_in.close_session(session, members.session_token(request) or "")
    response = RedirectResponse(pages.ME_PATH, 303)
    response.delete_cookie(members.COOKIE)
    return response
