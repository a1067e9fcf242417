"""Sights: what the tables tell of a thing, for a scope to decide on, and the same decision as a query's condition."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, false, or_
from sqlmodel import col, select

from codes.catalogue import Brand, Product
from codes.digital_link import CANONICAL_STEM
from kit.db import Session
from kit.errors import Conflict, Forbidden
from loyalty.sandbox import SandboxGroup
from scan_api.provenance.events import Event
from scan_api.provenance.repository import EpcisEvent, EventThing
from scan_api.provenance.things import name_of
from scan_api.regulators import regions, territory
from scan_api.regulators.scope import Facts, Scope, Sight
from scan_api.regulators.territory import PlaceRegion

PRODUCTS_NAMED_MAX: Final = 1_000
_LAST_CHARACTER: Final = "\U0010ffff"


class OutsideScope(Forbidden):
    """The scope of the account does not reach this."""

    code = "OutsideScope"


class ScopeTooWide(Conflict):
    """The question cannot be asked of so many products."""

    code = "ScopeTooWide"


@dataclass(frozen=True, slots=True)
class Reach:
    """The brands and products that a scope reaches, all that a question over many brands needs to know."""

    scope: Scope
    seated: frozenset[int]
    """Brands of which all is seen, as far as the categories go: seated in the jurisdiction, or there is none."""
    elsewhere: frozenset[int]
    """Other brands, of which only what was at a place in the jurisdiction is seen."""
    gtins: Mapping[str, int]
    """Products within the categories and the key, with their brands."""
    mixed: frozenset[int]
    """Brands that have other products, too: of these an event must name a product that is reached."""

    @property
    def brands(self) -> list[int]:
        return sorted(self.seated | self.elsewhere)


async def reach_of(session: Session, scope: Scope) -> Reach:
    """The brands and products that a scope reaches. Sandboxes and the real world do not see each other."""
    brand_ids = await brands_of(session, scope)
    seats = await territory.seats_by_brand(session)
    gtins: dict[str, int] = {}
    mixed: set[int] = set()
    for gtin, brand_id, some in await territory.products_with_categories(session, brand_ids):
        if scope.covers_gtin(gtin) and scope.covers_categories(some):
            gtins[gtin] = brand_id
        else:
            mixed.add(brand_id)
    if scope.is_bounded_by_product:
        brand_ids &= set(gtins.values())
    seated = frozenset(brand_id for brand_id in brand_ids if scope.covers_any(seats.get(brand_id, ())))
    there: set[int] = set()
    if scope.regions:
        told = select(PlaceRegion.brand_id).where(regions.within(col(PlaceRegion.region), scope.regions)).distinct()
        there = set((await session.exec(told)).all())
    return Reach(scope, seated, frozenset((brand_ids & there) - seated), gtins, frozenset(mixed))


async def brands_of(session: Session, scope: Scope) -> set[int]:
    """The brands on the scope's side of the sandbox's wall that its key is for."""
    make_believe = select(SandboxGroup.group_id)
    of_side = col(Brand.group_id).in_(make_believe)
    asked = select(Brand.brand_id).where(of_side if scope.sandbox else ~of_side)
    if scope.brand_id is not None:
        asked = asked.where(col(Brand.brand_id) == scope.brand_id)
    return {brand_id for brand_id in await session.exec(asked) if brand_id is not None}


async def reached_named(session: Session, reach: Reach, slug: str) -> int | None:
    """The brand of this short name, if it is reached; None else, whether or not there is one."""
    if "\0" in slug:  # no database stores it
        return None
    brand_id = (await session.exec(select(Brand.brand_id).where(Brand.slug == slug))).first()
    return brand_id if brand_id in reach.seated | reach.elsewhere else None


async def slugs_of(session: Session, brand_ids: Collection[int]) -> dict[int, str]:
    """The short names of these brands."""
    rows = await session.exec(select(Brand.brand_id, Brand.slug).where(col(Brand.brand_id).in_(brand_ids)))
    return {brand_id: slug for brand_id, slug in rows if brand_id is not None}


def require(sight: Sight) -> None:
    """Raises OutsideScope unless the thing is seen."""
    if not sight.is_seen:
        raise OutsideScope(f"this account does not reach that ({sight})", hint="GET /v1/regulator/me tells its scope.")


async def product_facts(session: Session, product: Product, places: Collection[str] = ()) -> Facts:
    """What decides about a product, and about an item of it that was at places in these regions."""
    return Facts(
        product.brand_id,
        product.gtin,
        await territory.categories_of(session, product.gtin),
        await territory.seats_of(session, product.brand_id),
        places,
    )


async def item_facts(session: Session, product: Product, link: str, history: Collection[Event]) -> Facts:
    """What decides about an item: `link` is its Digital Link, `history` its own recorded events."""
    told = {event.place for event in history if event.place is not None}
    places = set((await territory.regions_of(session, product.brand_id, told)).values())
    captured = await session.exec(
        select(PlaceRegion.region)
        .join(EpcisEvent, col(EpcisEvent.brand_id) == PlaceRegion.brand_id)
        .join(EventThing, col(EventThing.event_key) == EpcisEvent.event_key)
        .where(
            col(EventThing.thing) == name_of(link),
            col(EventThing.brand_id) == product.brand_id,
            col(EpcisEvent.brand_id) == product.brand_id,
            or_(
                col(EpcisEvent.read_point) == PlaceRegion.place,
                col(EpcisEvent.biz_location) == PlaceRegion.place,
            ),
        )
        .distinct()
    )
    return await product_facts(session, product, places | set(captured))


def event_condition(reach: Reach, brand_id: int) -> ColumnElement[bool]:
    """Which of a brand's captured events the scope sees: `Scope.sees` for queries of `epcis_event`.

    Of a brand that has products outside the scope, an event must name an item or class of one within: what names
    containers alone tells nothing of what is in them, and is not seen. Raises ScopeTooWide above 1,000 such products.
    """
    if brand_id not in reach.seated | reach.elsewhere:
        return false()
    held: list[ColumnElement[bool]] = [col(EpcisEvent.brand_id) == brand_id]
    if brand_id in reach.mixed:
        names = [f"{CANONICAL_STEM}/01/{gtin}" for gtin, owner in reach.gtins.items() if owner == brand_id]
        if len(names) > PRODUCTS_NAMED_MAX:
            raise ScopeTooWide(
                f"more than {PRODUCTS_NAMED_MAX:,} products of a brand are reached, and not all of them",
                hint="Use a key for fewer GTINs.",
            )
        thing = col(EventThing.thing)
        fitting = (or_(thing == name, and_(thing >= f"{name}/", thing < f"{name}/{_LAST_CHARACTER}")) for name in names)
        named = select(EventThing.event_key).where(col(EventThing.brand_id) == brand_id, or_(false(), *fitting))
        held.append(col(EpcisEvent.event_key).in_(named))
    if brand_id not in reach.seated:
        here = select(PlaceRegion.place).where(
            col(PlaceRegion.brand_id) == brand_id, regions.within(col(PlaceRegion.region), reach.scope.regions)
        )
        held.append(or_(col(EpcisEvent.read_point).in_(here), col(EpcisEvent.biz_location).in_(here)))
    return and_(*held)
