"""For members in a browser: what their points can buy, the question before they go, and the purchase."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from codes import catalogue as brands
from codes.catalogue import Brand, BrandUnknown
from kit import idempotency
from kit.db import Session
from kit.ids import derived_id
from kit.paging import Position
from loyalty import benefits, tiers
from loyalty import members as loyalty_members
from loyalty.benefits import BenefitUnknown, catalogue, stock
from loyalty.benefits.catalogue import Priced
from loyalty.members import Card
from loyalty.tier_rules import Tier
from scan_api.auth import members
from scan_api.page_answers import html_response, language_of, require_own_form, sign_in_page
from scan_api.paging import Paged
from scan_api.routers.member_pages import benefit_page, points_of
from scan_api.services import Serve
from scan_api.web import member_pages, paths
from scan_api.web import member_views as views
from scan_api.web.views import Language

router = APIRouter(include_in_schema=False)

BRANDS_LISTED_MAX = 20
_LIST = "shop-page"


@dataclass(frozen=True)
class _Counter:
    """Where a member buys: a brand, its tiers, and his own there."""

    brand: Brand
    ladder: Sequence[Tier]
    rank: int

    @property
    def tier(self) -> Tier:
        return self.ladder[min(self.rank, len(self.ladder) - 1)]

    def price(self, prices: Mapping[int, int]) -> int | None:
        """What the member pays: the price of the highest tier that is not above his own."""
        below = [rank for rank in prices if rank <= self.rank]
        return prices[max(below)] if below else None

    def offered(self, priced: Priced, left: Mapping[uuid.UUID, int], language: Language) -> views.OfferedView:
        benefit, chinese = priced.benefit, language == "zh"
        known = {tier.rank: tier.name(language) for tier in self.ladder}
        return views.OfferedView(
            str(benefit.benefit_id),
            benefit.name(language),
            benefit.text_zh if chinese else benefit.text_en,
            benefits.BenefitKind(benefit.kind).value,
            benefit.value_fen,
            self.price(priced.prices),
            tuple(views.PriceView(known[rank], paid) for rank, paid in sorted(priced.prices.items()) if rank in known),
            left[benefit.benefit_id] > 0,
        )


async def _counter(session: Session, cards: Sequence[Card], brand: Brand, now: datetime) -> _Counter:
    ladder = await tiers.ladder(session, brand.brand_id or 0, now)
    rank = next((card.tier_rank for card in cards if card.brand_id == brand.brand_id), 0)
    return _Counter(brand, ladder, rank)


@router.get(paths.SHOP_PATH)
async def shop(request: Request, services: Serve, paging: Paged, brand: str = "") -> Response:
    """What a brand sells for points; of the member's own brands first, or of any other in the group."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.SHOP_PATH)
        cards = await loyalty_members.cards_of(session, member_id)
        listed = await _brands(session, member_id, cards)
        view = views.ShopView(language, await points_of(session, member_id), ())
        if listed:
            chosen = _chosen(listed, brand)
            counter = await _counter(session, cards, chosen, now)
            rows = await catalogue.on_offer(session, chosen.brand_id or 0, now, paging.after(_LIST), paging.count)
            left = await stock.left(session, [row.benefit for row in rows])
            page = paging.page(
                _LIST,
                rows,
                lambda row: Position(row.benefit.created_at, row.benefit.benefit_id),
                lambda row: counter.offered(row, left, language),
            )
            choices = tuple(views.BrandChoice(one.slug, one.name(language), one is chosen) for one in listed)
            view = views.ShopView(
                language,
                view.points,
                choices,
                counter.tier.name(language),
                tuple(page["data"]),
                page["next_cursor"],
            )
    return html_response(member_pages.shop(view), language)


async def _brands(session: Session, member_id: uuid.UUID, cards: Sequence[Card]) -> list[Brand]:
    """The brands of the member's group, those whose cards he holds in front."""
    group_id = (await loyalty_members.get(session, member_id)).group_id
    own = {card.brand_id for card in cards}
    found = await brands.of_group(session, group_id)
    return sorted(found, key=lambda brand: brand.brand_id not in own)[:BRANDS_LISTED_MAX]


def _chosen(listed: Sequence[Brand], slug: str) -> Brand:
    if not slug:
        return listed[0]
    for brand in listed:
        if brand.slug == slug:
            return brand
    raise BrandUnknown("your group has no such brand")


@router.get(paths.SHOP_PATH + "/{benefit_id}")
async def ask(benefit_id: uuid.UUID, request: Request, services: Serve) -> Response:
    """Show what a benefit costs this member, and ask."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        benefit = await catalogue.get(session, benefit_id)
        if benefit.group_id != (await loyalty_members.get(session, member_id)).group_id:
            raise BenefitUnknown("no such benefit for this member")
        catalogue.require_open(benefit, now)
        brand = await brands.brand_with(session, benefit.brand_id)
        counter = await _counter(session, await loyalty_members.cards_of(session, member_id), brand, now)
        priced = Priced(benefit, await catalogue.prices_of(session, benefit_id))
        left = await stock.left(session, [benefit])
        view = views.ConfirmView(
            language,
            counter.offered(priced, left, language),
            brand.name(language),
            counter.tier.name(language),
            await points_of(session, member_id),
            str(uuid.uuid4()),
            benefit.valid_days,
            benefit.expires_at,
        )
    return html_response(member_pages.confirm(view), language)


@router.post(paths.OBTAIN_ACTION)
async def obtain(
    request: Request,
    services: Serve,
    benefit_id: Annotated[uuid.UUID, Form()],
    points_expected: Annotated[int, Form(ge=0)],
    idempotency_key: Annotated[str, Form(max_length=idempotency.KEY_CHARACTERS_MAX)],
) -> Response:
    """Buy a benefit at the price that was shown. The same form again leads to the same benefit, and costs nothing."""
    require_own_form(request)
    idempotency.check_key(idempotency_key)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        held = await benefits.obtain(
            session,
            services.vault,
            obtain_id=derived_id("obtain", member_id, idempotency_key),
            member_id=member_id,
            benefit_id=benefit_id,
            now=now,
            points_expected=points_expected,
        )
    return benefit_page(held.held_id, is_new=True)
