"""For signed-in members in a browser: what they hold, the history of their points, and their benefits in use."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from codes import catalogue as brands
from kit.db import Session
from loyalty import benefits, fulfilment, ledger, points, sign_in, tiers
from loyalty import members as loyalty_members
from loyalty.benefits import BenefitState, HeldBenefit, deliveries
from loyalty.benefits.catalogue import CODED
from loyalty.benefits.deliveries import ADDRESS_LINE_CHARACTERS_MAX, Address
from loyalty.benefits.held import HELD_LISTED_MAX
from loyalty.fulfilment import Order, OrderKind, OrderState
from loyalty.tiers import Standing
from scan_api import membership
from scan_api.auth import members
from scan_api.membership import HeldCard
from scan_api.page_answers import card_view, html_response, language_of, require_own_form, sign_in_page
from scan_api.paging import Paged
from scan_api.services import Serve, Services
from scan_api.web import member_pages, paths, qr
from scan_api.web import member_views as views
from scan_api.web.views import Language

router = APIRouter(include_in_schema=False)

HELD_ON_ME_MAX = 5
HELD_A_PAGE = 20
ORDERS_ON_ME_MAX = 10
_POINTS_LIST = "points-page"

HeldId = Annotated[uuid.UUID, Form()]
AddressLine = Annotated[str, Form(max_length=ADDRESS_LINE_CHARACTERS_MAX)]

_ORDER_STATES: dict[OrderState, views.OrderStatus] = {
    OrderState.AWAIT_USER: "confirm",
    OrderState.FAILED: "failed",
    OrderState.REVERSED: "reversed",
}
_HELD_STATES: dict[BenefitState, views.HeldStatus] = {
    BenefitState.ISSUED: "usable",
    BenefitState.CLAIMED: "usable",
    BenefitState.RESERVED: "reserved",
    BenefitState.REDEEMED: "redeemed",
    BenefitState.EXPIRED: "expired",
    BenefitState.REVERSED: "reversed",
}
_REASONS: dict[str, views.Reason] = {
    "purchase": "purchase",
    "refund": "refund",
    "claim": "claim",
    "check-in": "check_in",
    "task": "task",
    "referral, friend": "referral",
    "referral, referrer": "referral",
    "birthday": "birthday",
    "draw": "draw",
    "draw price": "draw_price",
    "red packet": "packet",
    "benefit obtained": "obtained",
    "benefit reversed": "given_back",
    "benefit used": "used",
    "points expired": "expired",
    "merge": "merged",
    "unmerge": "merged",
    "crm import": "imported",
}


async def points_of(session: Session, member_id: uuid.UUID) -> int:
    """The points that the member can spend."""
    return (await ledger.balances(session, member_id)).get((ledger.POINTS, ledger.Purpose.AVAILABLE), 0)


async def _expiry(session: Session, member_id: uuid.UUID, now: datetime) -> views.ExpiryView | None:
    first = await points.next_expiry(session, member_id, now)
    return views.ExpiryView(first.points, first.at) if first else None


@router.get(paths.ME_PATH)
async def me(request: Request, services: Serve) -> Response:
    """The member's own page, or the form that asks for a phone number."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.ME_PATH)
        view = await _me(services, session, member_id, language, now)
    return html_response(member_pages.me(view), language)


async def _me(
    services: Services, session: Session, member_id: uuid.UUID, language: Language, now: datetime
) -> views.MeView:
    balances = await ledger.balances(session, member_id)
    held = await benefits.held_by(session, services.vault, member_id, now)
    cards = await membership.held_cards(session, member_id)
    standings = await tiers.standings(session, [one.card for one in cards], now)
    megabytes = (ledger.Purpose.PENDING, ledger.Purpose.DELIVERED)
    return views.MeView(
        language,
        membership.masked(await loyalty_members.phone_of(session, services.vault, member_id)),
        balances.get((ledger.POINTS, ledger.Purpose.AVAILABLE), 0),
        sum(balances.get((ledger.MEGABYTES, purpose), 0) for purpose in megabytes),
        await _expiry(session, member_id, now),
        tuple(_standing(card, standing, language) for card, standing in zip(cards, standings, strict=True)),
        tuple(_held(one, language) for one in held[:HELD_ON_ME_MAX]),
        len(held),
        _orders(await fulfilment.orders_of(session, member_id)),
    )


def _standing(held: HeldCard, standing: Standing, language: Language) -> views.StandingView:
    falls = standing.projected.rank < standing.tier.rank
    return views.StandingView(
        card_view(held, standing.tier, language),
        standing.explanation(language),
        standing.projected.name(language) if falls else None,
        standing.projected_at if falls else None,
    )


def _held(held: HeldBenefit, language: Language) -> views.HeldView:
    return views.HeldView(
        str(held.held_id),
        held.text_zh if language == "zh" else held.text_en,
        held.kind.value,
        _HELD_STATES[held.state],
        held.value_fen,
        held.expires_at,
        held.code,
    )


def _orders(orders: Sequence[Order]) -> tuple[views.OrderView, ...]:
    """What has not arrived; what did is counted in the balance."""
    waited_for = [order for order in orders if order.state != OrderState.COMPLETED]
    return tuple(
        views.OrderView(
            "data" if OrderKind(order.kind) is OrderKind.DATA else "cash",
            order.amount,
            _ORDER_STATES.get(OrderState(order.state), "on_its_way"),
            order.created_at,
        )
        for order in waited_for[:ORDERS_ON_ME_MAX]
    )


@router.post(paths.SIGN_OUT_ACTION)
async def sign_out(request: Request, services: Serve) -> Response:
    """End the session and forget the cookie."""
    require_own_form(request)
    async with services.database.writing() as session:
        await sign_in.close_session(session, members.session_token(request) or "")
    response = RedirectResponse(paths.ME_PATH, 303)
    response.delete_cookie(members.COOKIE)
    return response


@router.get(paths.POINTS_PATH)
async def history(request: Request, services: Serve, paging: Paged) -> Response:
    """What came and went, latest first."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.POINTS_PATH)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        named = {brand.brand_id: brand.name(language) for brand in await brands.of_group(session, group_id)}
        rows = await points.movements(
            session,
            member_id,
            [brand_id for brand_id in named if brand_id is not None],
            paging.after_number(_POINTS_LIST),
            paging.count,
        )
        balance, expiry = await points_of(session, member_id), await _expiry(session, member_id, now)
    page = paging.page(
        _POINTS_LIST,
        rows,
        lambda row: row.number,
        lambda row: views.MovementView(
            row.at, _REASONS.get(row.reason, "other"), row.amount, row.balance_after, named.get(row.brand_id)
        ),
    )
    view = views.PointsView(language, balance, expiry, tuple(page["data"]), page["next_cursor"])
    return html_response(member_pages.points(view), language)


@router.get(paths.BENEFITS_PATH)
async def held_benefits(
    request: Request, services: Serve, page: Annotated[int, Query(ge=1, le=HELD_LISTED_MAX)] = 1
) -> Response:
    """The member's benefits, those that can be used first."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.BENEFITS_PATH)
        held = await benefits.held_by(session, services.vault, member_id, now)
    end = page * HELD_A_PAGE
    shown = tuple(_held(one, language) for one in held[end - HELD_A_PAGE : end])
    view = views.HeldListView(language, shown, page + 1 if end < len(held) else None)
    return html_response(member_pages.benefits(view), language)


@router.get(paths.BENEFITS_PATH + "/{held_id}")
async def held_benefit(held_id: uuid.UUID, request: Request, services: Serve) -> Response:
    """One benefit, with its code to be shown at a till."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        held = await benefits.held_of(session, services.vault, member_id, held_id, now)
        brand = await brands.brand_with(session, held.brand_id)
    shown = _held(held, language)
    is_shown = held.kind in CODED and held.code is not None and shown.status == "usable"
    view = views.HeldPageView(
        language,
        shown,
        brand.name(language),
        is_new="new" in request.query_params,
        qr=qr.symbol(held.code) if is_shown and held.code else None,
    )
    return html_response(member_pages.benefit(view), language)


@router.post(paths.SHOW_CODE_ACTION)
async def show_code(request: Request, services: Serve, held_id: HeldId) -> Response:
    """Show a code of somebody else's, which counts as taken from then on."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await benefits.show(session, services.vault, member_id, held_id, now)
    return benefit_page(held_id)


@router.post(paths.OPEN_ACTION)
async def open_cash(request: Request, services: Serve, held_id: HeldId) -> Response:
    """Take a cash gift: the money is on its way from then on."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await benefits.open_packet(session, services.vault, member_id, held_id, now)
    return benefit_page(held_id)


@router.post(paths.ADDRESS_ACTION)
async def send_to(
    request: Request,
    services: Serve,
    held_id: HeldId,
    name: AddressLine,
    phone: AddressLine,
    region: AddressLine,
    line: AddressLine,
    postcode: AddressLine = "",
) -> Response:
    """Say where a thing goes; till it is shipped it may be said again."""
    require_own_form(request)
    now, address = services.clock(), Address(name, phone, region, line, postcode)
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await deliveries.order(session, services.vault, member_id, held_id, address, now)
    return benefit_page(held_id)


def benefit_page(held_id: uuid.UUID, *, is_new: bool = False) -> Response:
    """Where a form about a benefit leads: to its page, so that reloading sends nothing again."""
    return RedirectResponse(f"{paths.BENEFITS_PATH}/{held_id}{'?new' if is_new else ''}", 303)
