"""For members in a browser: what they agreed to, signing out everywhere, being forgotten, merging numbers."""

import uuid
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from kit import idempotency
from kit.db import Session
from kit.errors import FanxingError
from loyalty import consents, erasure, merges, sign_in
from loyalty import members as loyalty_members
from loyalty.code_senders import DevelopmentCode
from loyalty.consents import KIND_CHARACTERS_MAX, VERSION_CHARACTERS_MAX, Agreement, Channel
from loyalty.merges import Approval, NewMerge
from loyalty.phones import PHONE_CHARACTERS_MAX, PhoneInvalid, parse_phone, phone_fingerprint
from loyalty.sign_in import (
    CodePurpose,
    OneTimeCodeExpired,
    OneTimeCodeTooSoon,
    OneTimeCodeTriesExhausted,
    OneTimeCodeWrong,
)
from scan_api import membership
from scan_api.auth import members
from scan_api.errors import status_of
from scan_api.page_answers import (
    CODE_PROBLEMS,
    document_view,
    html_response,
    language_of,
    require_own_form,
    sign_in_page,
)
from scan_api.routers.member_pages import points_of
from scan_api.services import Serve, Services
from scan_api.web import member_pages, paths
from scan_api.web import member_views as views
from scan_api.web.views import Language, PhoneProblem

router = APIRouter(include_in_schema=False)

OneTimeCode = Annotated[str, Form(max_length=20)]
Phone = Annotated[str, Form(max_length=PHONE_CHARACTERS_MAX)]
Key = Annotated[str, Form(max_length=idempotency.KEY_CHARACTERS_MAX)]
_MERGE = "merge by form"


@router.get(paths.PRIVACY_PATH)
async def privacy(request: Request, services: Serve) -> Response:
    """Consents with their versions, the export, and the ways out."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.PRIVACY_PATH)
        view = await _privacy(services, session, member_id, language)
    return html_response(member_pages.privacy(view), language)


async def _privacy(services: Services, session: Session, member_id: uuid.UUID, language: Language) -> views.PrivacyView:
    group_id = (await loyalty_members.get(session, member_id)).group_id
    held = await consents.held_by(session, member_id)
    shown = []
    for document in await consents.in_force(session, group_id):
        last = held.get(document.kind)
        view = views.ConsentView(document_view(document, language))
        if last is not None and last.version == document.version:
            view = replace(view, given=last.is_given, at=last.at)
        shown.append(view)
    merged = [made for made in await merges.merges_of(session, member_id) if made.undone_at is None]
    phone = await loyalty_members.phone_of(session, services.vault, member_id)
    return views.PrivacyView(language, membership.masked(phone), tuple(shown), len(merged))


@router.post(paths.CONSENT_ACTION)
async def consent(
    request: Request,
    services: Serve,
    kind: Annotated[str, Form(max_length=KIND_CHARACTERS_MAX)],
    version: Annotated[str, Form(max_length=VERSION_CHARACTERS_MAX)],
    given: Annotated[Literal["yes", "no"], Form()],
) -> Response:
    """Agree to the version in force, or withdraw."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        agreement = Agreement(kind, version, given == "yes")
        await consents.record(session, member_id, group_id, [agreement], Channel.PAGE, now)
    return RedirectResponse(paths.PRIVACY_PATH, 303)


@router.post(paths.SIGN_OUT_EVERYWHERE_ACTION)
async def sign_out_everywhere(request: Request, services: Serve) -> Response:
    """End every session of the member, this one too."""
    require_own_form(request)
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, services.clock())
        await sign_in.close_sessions(session, [member_id])
    response = RedirectResponse(paths.ME_PATH, 303)
    response.delete_cookie(members.COOKIE)
    return response


@router.post(paths.PROVE_ACTION)
async def prove(
    request: Request, services: Serve, purpose: Annotated[views.Purpose, Form()], phone: Phone = ""
) -> Response:
    """Send the codes that prove what is about to be done: to the other phone, and to the own one where it takes it.

    Erasing always takes a code, however young the sign-in: a phone that lies open on a table must not be enough.
    """
    require_own_form(request)
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        fresh = await sign_in.member_freshly_of(session, members.session_token(request) or "", now)
        own = await loyalty_members.phone_of(session, services.vault, member_id)
        shown = await _privacy(services, session, member_id, language)
    asks_own, wanted = purpose == "erase" or fresh is None, CodePurpose(purpose)
    other: tuple[str, DevelopmentCode | None] | None = None
    try:
        if purpose == "merge":
            issued, told = await members.send_code(services, request, None, phone, language, now, wanted)
            other = (issued.phone_e164, told)
        _issued, own_code = (
            await members.send_code(services, request, None, own, language, now, wanted) if asks_own else (None, None)
        )
    except (PhoneInvalid, OneTimeCodeTooSoon) as error:
        problem: PhoneProblem = "invalid_phone" if isinstance(error, PhoneInvalid) else "too_many_requests"
        again = member_pages.privacy(replace(shown, problem=problem, phone=phone))
        return html_response(again, language, status_of(error))
    view = views.ProofView(
        language,
        purpose,
        shown.phone_masked,
        str(uuid.uuid4()),
        asks_own,
        other_phone=other[0] if other else None,
        development_own=own_code.code if own_code else None,
        development_other=other[1].code if other and other[1] else None,
    )
    return html_response(member_pages.prove(view), language)


async def _ask_again(request: Request, services: Services, view: views.ProofView, error: FanxingError) -> Response:
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, services.clock())
        own = await loyalty_members.phone_of(session, services.vault, member_id)
    again = replace(view, phone_masked=membership.masked(own), problem=CODE_PROBLEMS[error.code])
    return html_response(member_pages.prove(again), view.language, status_of(error))


@router.post(paths.ERASE_ACTION)
async def erase(request: Request, services: Serve, one_time_code: OneTimeCode, idempotency_key: Key) -> Response:
    """Be forgotten, with a code sent just now. There is no way back."""
    require_own_form(request)
    language, now = language_of(request), services.clock()
    try:
        member_id = await members.require_proof(services, request, one_time_code, CodePurpose.ERASE, now)
    except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
        return await _ask_again(request, services, views.ProofView(language, "erase", "", idempotency_key), error)
    async with services.database.writing() as session:
        await erasure.erase(session, member_id, now)
    response = html_response(member_pages.done(views.DoneView(language, "erase")), language)
    response.delete_cookie(members.COOKIE)
    return response


@router.post(paths.MERGE_ACTION)
async def merge(
    request: Request,
    services: Serve,
    phone: Phone,
    phone_code: OneTimeCode,
    idempotency_key: Key,
    one_time_code: OneTimeCode = "",
) -> Response:
    """Make the member of another number part of this one; both numbers are proven. The same form again does nothing."""
    require_own_form(request)
    idempotency.check_key(idempotency_key)
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        # By the keyed hash, as the API does: the form's key with another number is refused.
        hashed = phone_fingerprint(services.vault, group_id, parse_phone(phone)).hex()
        asked = idempotency.fingerprint(_MERGE, {"phone": hashed})
        done = await idempotency.find(session, member_id, idempotency_key, asked)
    if done is None:
        try:
            await members.require_proof(services, request, one_time_code or None, CodePurpose.MERGE, now)
            other_id = await members.prove_phone(services, member_id, phone, phone_code, now)
        except (OneTimeCodeWrong, OneTimeCodeExpired, OneTimeCodeTriesExhausted) as error:
            asks_own = bool(one_time_code)
            view = views.ProofView(language, "merge", "", idempotency_key, asks_own, other_phone=phone)
            return await _ask_again(request, services, view, error)
        new = NewMerge(merges.merge_id(member_id, idempotency_key), member_id, other_id, Approval.CODES)
        async with services.database.writing() as session:
            if await idempotency.begin(session, member_id, idempotency_key, asked, now) is None:
                await merges.merge(session, new, now)
                await idempotency.remember(session, member_id, idempotency_key, {"merge_id": str(new.merge_id)})
    async with services.database.reading() as session:
        held = await points_of(session, member_id)
    return html_response(member_pages.done(views.DoneView(language, "merge", held)), language)
