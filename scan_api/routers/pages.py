"""For shoppers without an app: the pages behind a scanned code, which work without JavaScript."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from kit.db import Session
from kit.errors import FanxingError
from loyalty import campaigns, consents, ledger, sign_in
from loyalty import members as loyalty_members
from loyalty.benefits import Benefit, catalogue
from loyalty.consents import AGREEMENTS_MAX, Agreement
from loyalty.offers import Offer, OfferState
from loyalty.phones import PHONE_CHARACTERS_MAX, PhoneInvalid
from loyalty.prizes import Prize
from loyalty.sign_in import (
    CODE_TRIES_MAX,
    OneTimeCodeExpired,
    OneTimeCodeTooSoon,
    OneTimeCodeTriesExhausted,
    OneTimeCodeWrong,
)
from offline_sdk.code_text import TEXT_CHARS_MAX
from scan_api import membership, scans
from scan_api.auth import members
from scan_api.callers import caller_of, name_device, subjects_of
from scan_api.claims import Ask
from scan_api.errors import status_of
from scan_api.item_view import WARNING_EXPIRED, WARNING_NOT_ACTIVE, WARNING_SCANNED_OFTEN, ItemView
from scan_api.page_answers import (
    CODE_PROBLEMS,
    card_view,
    document_view,
    error_page,
    html_response,
    language_of,
    require_own_form,
)
from scan_api.provenance.events import Step
from scan_api.services import Serve, Services
from scan_api.web import pages, views
from scan_api.web.paths import returns_to

router = APIRouter(include_in_schema=False)

Phone = Annotated[str, Form(max_length=PHONE_CHARACTERS_MAX)]
CodeText = Annotated[str, Form(max_length=TEXT_CHARS_MAX)]
OneTimeCode = Annotated[str, Form(max_length=20)]
Then = Annotated[str, Form(max_length=100)]
Agreed = Annotated[Sequence[str], Form(max_length=AGREEMENTS_MAX)]
Benefits = Mapping[uuid.UUID, Benefit]

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
_STEPS: dict[Step, views.Step] = {
    Step.COMMISSIONED: "commissioned",
    Step.ACTIVATED: "activated",
    Step.SHIPPED: "shipped",
    Step.RECEIVED: "received",
    Step.HELD: "held",
    Step.RECALLED: "recalled",
    Step.VOIDED: "voided",
    Step.SCANNED: "scanned",
    Step.CLAIMED: "claimed",
}
_SCAN_STATES: dict[str | None, views.ScanState] = {
    None: "genuine",
    "Malformed": "malformed",
    "Revoked": "revoked",
    "Recalled": "recalled",
    "Voided": "voided",
    "Held": "held",
}

_WARNINGS: dict[str, views.ScanWarning] = {
    WARNING_NOT_ACTIVE: "not_active",
    WARNING_SCANNED_OFTEN: "scanned_often",
    WARNING_EXPIRED: "expired",
}


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


async def benefits_of(session: Session, view: ItemView) -> Benefits:
    """The benefits among the offers' prizes; a statement where there are any."""
    prizes = (chance.prize for offer in view.offers for chance in offer.chances)
    ids = {prize.benefit_id for prize in prizes if prize.benefit_id is not None}
    return await catalogue.named(session, ids) if ids else {}


async def _card_at(
    session: Session, member_id: uuid.UUID, brand_id: int, language: views.Language
) -> views.CardView | None:
    """The member's card of one brand, if he has one."""
    held = await membership.held_cards(session, member_id)
    return next((card_view(card, card.tier, language) for card in held if card.card.brand_id == brand_id), None)


def scan_page(
    view: ItemView,
    text: str,
    member: views.MemberView | None,
    benefits: Benefits,
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
            warnings=tuple(_WARNINGS[warning] for warning in view.warnings),
            brand_name=subject.brand.name(language) if subject else None,
            product_name=subject.product.name(language) if subject else None,
            gtin=verdict.gtin if subject else None,
            serial=verdict.serial if subject else None,
            first_scan_at=view.record.first_scan_at,
            scan_count=view.record.scan_count,
            timeline=tuple(
                views.TimelineEntry(_STEPS[event.step], event.at, event.place, event.by) for event in view.timeline
            ),
            offers=tuple(
                _offer(offer, view, benefits, language) for offer in view.offers if offer.state in _OFFER_STATES
            ),
            member=member,
            code_text=text if view.judgement.genuine else None,
        )
    )
    return html_response(body, language, status, headers)


def _offer(offer: Offer, view: ItemView, benefits: Benefits, language: views.Language) -> views.OfferView:
    dormant = WARNING_NOT_ACTIVE in view.warnings
    shown = offer.given or offer.chances[0].prize
    name, value_fen = _named(shown, benefits, language)
    return views.OfferView(
        campaign_id=str(offer.campaign_id),
        title=offer.title_zh if language == "zh" else offer.title_en,
        prize_kind=shown.kind.value,
        prize_amount=shown.amount,
        chances=tuple(
            views.ChanceView(
                chance.prize.kind.value,
                chance.prize.amount,
                chance.weight,
                chance.of,
                *_named(chance.prize, benefits, language),
            )
            for chance in (offer.chances if len(offer.chances) > 1 else ())
        ),
        state="not_active" if dormant and offer.state is OfferState.OPEN else _OFFER_STATES[offer.state],
        idempotency_key=str(uuid.uuid4()),
        prize_name=name,
        value_fen=value_fen,
    )


def _named(prize: Prize, benefits: Benefits, language: views.Language) -> tuple[str | None, int]:
    benefit = benefits.get(prize.benefit_id) if prize.benefit_id is not None else None
    return (benefit.name(language), benefit.value_fen) if benefit is not None else (None, 0)


@router.post(pages.SIGN_IN_ACTION)
async def begin_sign_in(
    request: Request,
    services: Serve,
    phone: Phone,
    code_text: CodeText = "",
    campaign_id: Annotated[str, Form(max_length=40)] = "",
    brand: Annotated[str, Form(max_length=40)] = "",
    then: Then = "",
) -> Response:
    """Send a one-time code and ask for it, and for what is to be agreed to."""
    require_own_form(request)
    language, now = language_of(request), services.clock()
    problem: views.PhoneProblem
    refusal: FanxingError
    try:
        slug = await _brand_of(services, code_text) or brand or None
        issued, shown = await members.send_code(services, request, slug, phone, language, now)
    except PhoneInvalid as error:
        problem, refusal = "invalid_phone", error
    except OneTimeCodeTooSoon as error:
        problem, refusal = "too_many_requests", error
    else:
        view = views.OneTimeCodeView(
            language,
            issued.phone_e164,
            code_text or None,
            campaign_id or None,
            idempotency_key=str(uuid.uuid4()) if code_text else None,
            development_code=shown.code if shown else None,
            brand=slug,
            then=then or None,
            documents=await _documents(services, request, slug, language),
        )
        response = html_response(pages.one_time_code(view), language)
        name_device(request, response, services)
        return response
    again = views.PhoneView(
        language, phone, problem, code_text or None, campaign_id or None, brand or None, then or None
    )
    return html_response(pages.phone(again), language, status_of(refusal))


async def _documents(
    services: Services, request: Request, slug: str | None, language: views.Language
) -> tuple[views.DocumentView, ...]:
    async with services.database.reading() as session:
        group_id = await members.group_of(session, request, slug, services.clock())
        return tuple(document_view(one, language) for one in await consents.in_force(session, group_id))


def _agreements(agreed: Sequence[str]) -> list[Agreement]:
    """What was ticked: kind@version each. Raises ConsentDocumentUnknown later, for what is no document."""
    split = (choice.partition("@") for choice in agreed[:AGREEMENTS_MAX])
    return [Agreement(kind, version) for kind, _at, version in split]


@router.post(pages.CONFIRM_ACTION)
async def finish_sign_in(
    request: Request,
    services: Serve,
    phone: Phone,
    one_time_code: OneTimeCode,
    brand: Annotated[str, Form(max_length=40)] = "",
    then: Then = "",
    agreed: Agreed = (),
) -> Response:
    """Check the one-time code and show the member his page, or the one that he came from."""
    require_own_form(request)
    now, language, slug = services.clock(), language_of(request), brand or None
    try:
        _member, token, _is_new = await members.confirm(
            services, request, slug, phone, one_time_code, now, agreed=_agreements(agreed)
        )
    except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
        documents = await _documents(services, request, slug, language)
        view = views.OneTimeCodeView(
            language, phone, brand=slug, then=then or None, documents=documents, agreed=tuple(agreed)
        )
        return _ask_again(view, error)
    response = RedirectResponse(returns_to(then), 303)
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
    one_time_code: OneTimeCode = "",
    agreed: Agreed = (),
) -> Response:
    """Claim for the signed-in member, or sign in with a one-time code and claim at once."""
    require_own_form(request)
    language, now, token = language_of(request), services.clock(), None
    if one_time_code:
        try:
            brand = await _brand_of(services, code_text)
            _member, token, _is_new = await members.confirm(
                services, request, brand, phone, one_time_code, now, agreed=_agreements(agreed)
            )
        except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
            view = views.OneTimeCodeView(
                language,
                phone,
                code_text,
                str(campaign_id),
                idempotency_key,
                brand=brand,
                documents=await _documents(services, request, brand, language),
                agreed=tuple(agreed),
            )
            return _ask_again(view, error)
    response: Response
    try:
        with services.metrics.counting_claim():
            device, place = subjects_of(services.vault, caller_of(request, services))
            current = token or members.session_token(request) or ""
            ask = Ask(current, code_text, campaign_id, idempotency_key, device, place)
            answer = await services.claims.claim(ask, now)
        signed_in = sign_in.session_key(current)
        assert signed_in is not None  # or the claim would have been refused
        async with services.database.reading() as session:
            view_of_claim = await _claimed_view(services, session, signed_in[0], answer, language)
        response = html_response(pages.claimed(view_of_claim), language)
    except FanxingError as error:
        response = error_page(request, error)  # the sign-in stands, also when the claim is refused
    if token:
        members.set_cookie(response, services, token)
    return response


async def _claimed_view(
    services: Services, session: Session, member_id: uuid.UUID, answer: dict[str, Any], language: views.Language
) -> views.ClaimedView:
    campaign = await campaigns.get(session, uuid.UUID(answer["campaign_id"]))
    balances = await ledger.balances(session, member_id)
    coupon_code, benefit_id = answer["coupon_code"], answer["benefit_id"]
    benefit = await catalogue.get(session, uuid.UUID(benefit_id)) if benefit_id else None
    return views.ClaimedView(
        language=language,
        title=campaign.title_zh if language == "zh" else campaign.title_en,
        prize_kind=answer["prize"]["kind"],
        prize_amount=answer["prize"]["amount"],
        points=balances.get((ledger.POINTS, ledger.Purpose.AVAILABLE), 0),
        coupon_code=str(coupon_code) if coupon_code else None,
        card=await _card_at(session, member_id, campaign.brand_id, language),
        prize_name=benefit.name(language) if benefit else None,
    )


def _ask_again(view: views.OneTimeCodeView, error: FanxingError) -> Response:
    tries_left = getattr(error, "tries_left", None)
    assert tries_left is None or 0 <= tries_left <= CODE_TRIES_MAX
    again = replace(view, problem=CODE_PROBLEMS[error.code], tries_left=tries_left)
    return html_response(pages.one_time_code(again), view.language, status_of(error))


async def _brand_of(services: Services, code_text: str) -> str | None:
    """The brand whose code the visitor holds: its group is the one to sign in to."""
    if not code_text:
        return None
    async with services.database.reading() as session:
        judgement = await services.scans.judge(session, services.trust.verifier, code_text)
    return scans.refuse_unless_genuine(judgement).brand.slug
