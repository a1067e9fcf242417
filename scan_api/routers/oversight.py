"""For brands under oversight: where they and their places are, and of what kind their products are."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named, product_with
from kit.db import Session
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.regulators import territory
from scan_api.regulators.categories import CATEGORIES_PER_PRODUCT_MAX, OWN_CHARACTERS_MAX
from scan_api.regulators.regions import REGIONS_MAX
from scan_api.regulators.territory import PLACE_CHARACTERS_MAX, PLACES_PER_CALL_MAX
from scan_api.routers import BrandSlug
from scan_api.routers.regulator import Authorization
from scan_api.services import Serve

router = APIRouter(prefix="/v1/brand/{brand}", tags=["oversight"])

Region = Annotated[str, Field(min_length=2, max_length=12)]
Gtin = Annotated[str, Path(pattern=r"^[0-9]{14}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Seats(_Body):
    """Where a brand is seated: regions of GB/T 2260, or of ISO 3166 outside China."""

    model_config = ConfigDict(json_schema_extra={"example": {"regions": ["6101"]}})

    regions: list[Region] = Field(max_length=REGIONS_MAX)


class Categories(_Body):
    """The categories of a product."""

    model_config = ConfigDict(json_schema_extra={"example": {"categories": ["gpc:50131700", "own:food/ice-cream"]}})

    categories: list[Annotated[str, Field(min_length=1, max_length=OWN_CHARACTERS_MAX)]] = Field(
        max_length=CATEGORIES_PER_PRODUCT_MAX
    )


class NewPlace(_Body):
    """A place that events name, and its region."""

    place: str = Field(min_length=1, max_length=PLACE_CHARACTERS_MAX)
    region: Region


class Places(_Body):
    """Where places lie."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"places": [{"place": "https://id.gs1.org/414/9506000134376", "region": "610113"}]}
        }
    )

    places: list[NewPlace] = Field(min_length=1, max_length=PLACES_PER_CALL_MAX)


class PlacesTold(BaseModel):
    """How many places the brand has told of."""

    model_config = ConfigDict(json_schema_extra={"example": {"places": 120}})

    places: int


@router.get("/seats", summary="Where a brand is seated")
async def seats(brand: BrandSlug, services: Serve, authorization: Authorization = None) -> Seats:
    """Regions in their one form."""
    async with services.database.reading() as session:
        _key, brand_id = await _acting(session, authorization, brand)
        return Seats(regions=list(await territory.seats_of(session, brand_id)))


@router.put("/seats", summary="Say where a brand is seated")
async def set_seats(brand: BrandSlug, body: Seats, services: Serve, authorization: Authorization = None) -> Seats:
    """Regulators of these regions see the brand's goods, as far as their categories go."""
    async with services.database.writing() as session:
        _key, brand_id = await _acting(session, authorization, brand)
        return Seats(regions=list(await territory.set_seats(session, brand_id, body.regions, services.clock())))


@router.put("/places", summary="Say where places lie")
async def set_places(
    brand: BrandSlug, body: Places, services: Serve, authorization: Authorization = None
) -> PlacesTold:
    """Regulators of these regions see what was at these places. What was told before of other places stays."""
    told = {one.place: one.region for one in body.places}
    async with services.database.writing() as session:
        _key, brand_id = await _acting(session, authorization, brand)
        return PlacesTold(places=await territory.set_places(session, brand_id, told, services.clock()))


@router.get("/products/{gtin}/categories", summary="Categories of a product")
async def categories(brand: BrandSlug, gtin: Gtin, services: Serve, authorization: Authorization = None) -> Categories:
    """Of GS1's Global Product Classification, or of the brand's own words."""
    async with services.database.reading() as session:
        await _acting(session, authorization, brand, gtin)
        return Categories(categories=list(await territory.categories_of(session, gtin)))


@router.put("/products/{gtin}/categories", summary="Say of what categories a product is")
async def set_categories(
    brand: BrandSlug, gtin: Gtin, body: Categories, services: Serve, authorization: Authorization = None
) -> Categories:
    """Regulators of these categories see the product's items."""
    async with services.database.writing() as session:
        await _acting(session, authorization, brand, gtin)
        told = await territory.set_categories(session, gtin, body.categories, services.clock())
        return Categories(categories=list(told))


async def _acting(
    session: Session, authorization: str | None, slug: str, gtin: str | None = None
) -> tuple[ApiKey, int]:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    key.require_brand(brand_id)
    if gtin is None:
        key.require_all_gtins("this is")
        return key, brand_id
    key.require_gtin(gtin)
    product = await product_with(session, gtin)
    if product.brand_id != brand_id:
        raise api_keys.OutOfScope("this API key does not cover that GTIN")
    return key, brand_id
