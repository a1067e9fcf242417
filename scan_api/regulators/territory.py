"""Territory: where brands are seated, where the places lie that their events name, and of what category products are.

Brands say so themselves, or the operator for them; what nobody said is unknown, and in no jurisdiction.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final

from sqlalchemy import CheckConstraint, Text, delete, func
from sqlmodel import Field, SQLModel, col, select

from codes.catalogue import Product
from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid
from scan_api.provenance.things import name_of
from scan_api.regulators import categories, regions
from scan_api.regulators.categories import CATEGORIES_PER_PRODUCT_MAX

PLACE_CHARACTERS_MAX: Final = 500
PLACES_PER_CALL_MAX: Final = 1_000
PLACES_PER_BRAND_MAX: Final = 100_000
_ASKED_AT_ONCE_MAX: Final = 500


class PlaceInvalid(Invalid):
    code = "PlaceInvalid"


class TooManyPlaces(Conflict):
    code = "TooManyPlaces"


class BrandSeat(SQLModel, table=True):
    """A region in which a brand is seated: its company, or a plant of its."""

    __tablename__: ClassVar[str] = "brand_seat"

    brand_id: int = Field(primary_key=True, foreign_key="brand.brand_id")
    region: str = Field(primary_key=True, sa_type=Text)
    set_at: datetime = Field(sa_type=Moment)


class ProductCategory(SQLModel, table=True):
    """A category of a product."""

    __tablename__: ClassVar[str] = "product_category"

    gtin: str = Field(primary_key=True, foreign_key="product.gtin", sa_type=Text)
    category: str = Field(primary_key=True, sa_type=Text)
    set_at: datetime = Field(sa_type=Moment)


class PlaceRegion(SQLModel, table=True):
    """In which region a place lies that a brand's events name."""

    __tablename__: ClassVar[str] = "place_region"
    __table_args__ = (CheckConstraint("place <> ''", name="place"),)

    brand_id: int = Field(primary_key=True, foreign_key="brand.brand_id")
    place: str = Field(primary_key=True, sa_type=Text)
    """Its one name, see `scan_api.provenance.things.name_of`."""
    region: str = Field(index=True, sa_type=Text)
    set_at: datetime = Field(sa_type=Moment)


async def set_seats(session: Session, brand_id: int, codes: Collection[str], now: datetime) -> tuple[str, ...]:
    """Say anew where a brand is seated. Raises RegionInvalid."""
    seats = regions.parse_all(codes)
    await session.exec(delete(BrandSeat).where(col(BrandSeat.brand_id) == brand_id))
    for region in seats:
        session.add(BrandSeat(brand_id=brand_id, region=region, set_at=now))
    await session.flush()
    return seats


async def set_categories(session: Session, gtin: str, words: Collection[str], now: datetime) -> tuple[str, ...]:
    """Say anew of what categories a product is, at most 8. Raises CategoryInvalid."""
    found = categories.parse_all(words, CATEGORIES_PER_PRODUCT_MAX)
    await session.exec(delete(ProductCategory).where(col(ProductCategory.gtin) == gtin))
    for category in found:
        session.add(ProductCategory(gtin=gtin, category=category, set_at=now))
    await session.flush()
    return found


async def set_places(session: Session, brand_id: int, told: Mapping[str, str], now: datetime) -> int:
    """Say where 1 to 1,000 places lie: region by place, which is a GLN, a Digital Link or what the events call it.

    Returns how many places the brand has. Raises PlaceInvalid, RegionInvalid, TooManyPlaces (100,000 a brand).
    """
    if not 1 <= len(told) <= PLACES_PER_CALL_MAX:
        raise PlaceInvalid(f"1 to {PLACES_PER_CALL_MAX:,} places at once, not {len(told):,}")
    rows = {}
    for place, region in told.items():
        name = place_name(place)
        rows[name] = {"brand_id": brand_id, "place": name, "region": regions.parse(region), "set_at": now}
    inserting = insert(session, PlaceRegion)
    await session.exec(
        inserting.values([rows[name] for name in sorted(rows)]).on_conflict_do_update(
            index_elements=["brand_id", "place"],
            set_={"region": inserting.excluded.region, "set_at": inserting.excluded.set_at},
        )
    )
    count = select(func.count()).select_from(PlaceRegion).where(col(PlaceRegion.brand_id) == brand_id)
    held = (await session.exec(count)).one()
    if held > PLACES_PER_BRAND_MAX:  # in the transaction, which leaves nothing behind
        raise TooManyPlaces(f"a brand tells of at most {PLACES_PER_BRAND_MAX:,} places")
    return held


def place_name(place: str) -> str:
    """The one name of a place. Raises PlaceInvalid."""
    if not 1 <= len(place.strip()) <= PLACE_CHARACTERS_MAX or not place.isprintable():
        raise PlaceInvalid(f"a place has 1 to {PLACE_CHARACTERS_MAX} printable characters")
    return name_of(place.strip())


async def seats_of(session: Session, brand_id: int) -> tuple[str, ...]:
    """The regions in which a brand is seated, sorted."""
    asked = select(BrandSeat.region).where(col(BrandSeat.brand_id) == brand_id).order_by(col(BrandSeat.region))
    return tuple((await session.exec(asked)).all())


async def categories_of(session: Session, gtin: str) -> tuple[str, ...]:
    """The categories of a product, sorted."""
    asked = select(ProductCategory.category).where(col(ProductCategory.gtin) == gtin)
    return tuple((await session.exec(asked.order_by(col(ProductCategory.category)))).all())


async def regions_of(session: Session, brand_id: int, places: Collection[str]) -> dict[str, str]:
    """The regions of those of these places that the brand told of, by the place as it was asked for."""
    names = {place: name_of(place) for place in places}
    wanted = sorted(set(names.values()))
    known: dict[str, str] = {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE_MAX):
        some = wanted[start : start + _ASKED_AT_ONCE_MAX]
        rows = await session.exec(
            select(PlaceRegion.place, PlaceRegion.region).where(
                col(PlaceRegion.brand_id) == brand_id, col(PlaceRegion.place).in_(some)
            )
        )
        known |= dict(rows.all())
    return {place: known[name] for place, name in names.items() if name in known}


async def seats_by_brand(session: Session) -> dict[int, list[str]]:
    """The regions in which every brand is seated; brands that told none are missing."""
    found: dict[int, list[str]] = {}
    for brand_id, region in await session.exec(
        select(BrandSeat.brand_id, BrandSeat.region).order_by(col(BrandSeat.brand_id), col(BrandSeat.region))
    ):
        found.setdefault(brand_id, []).append(region)
    return found


async def products_with_categories(
    session: Session, brand_ids: Collection[int] | None = None
) -> Sequence[tuple[str, int, tuple[str, ...]]]:
    """GTIN, brand and categories of every product, or of these brands' alone, by GTIN."""
    asked = select(Product.gtin, Product.brand_id, ProductCategory.category).join(
        ProductCategory, col(ProductCategory.gtin) == Product.gtin, isouter=True
    )
    if brand_ids is not None:
        asked = asked.where(col(Product.brand_id).in_(brand_ids))
    found: dict[str, tuple[int, list[str]]] = {}
    for gtin, brand_id, category in await session.exec(
        asked.order_by(col(Product.gtin), col(ProductCategory.category))
    ):
        found.setdefault(gtin, (brand_id, []))[1].extend([category] if category else [])
    return [(gtin, brand_id, tuple(some)) for gtin, (brand_id, some) in found.items()]
