"""Groups of brands, brands, and the products that carry their codes."""

import re
from datetime import datetime
from typing import ClassVar

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from offline_sdk.gtin import is_valid as gtin_is_valid
from signer.keys import Issuer

NAME_CHARACTERS_MAX = 100
SLUG_CHARACTERS_MAX = 40
_SLUG = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{SLUG_CHARACTERS_MAX - 2}}}[a-z0-9])?")


class BrandInvalid(Invalid):
    code = "BrandInvalid"


class BrandUnknown(NotFound):
    code = "BrandUnknown"


class BrandExists(Conflict):
    code = "BrandExists"


class GroupUnknown(NotFound):
    code = "GroupUnknown"


class ProductUnknown(NotFound):
    code = "ProductUnknown"


class ProductExists(Conflict):
    code = "ProductExists"


class GtinInvalid(Invalid):
    code = "GtinInvalid"


class GtinOutsidePrefixes(Invalid):
    code = "GtinOutsidePrefixes"


class BrandGroup(SQLModel, table=True):
    """A group of brands that share their members' points."""

    __tablename__: ClassVar[str] = "brand_group"

    group_id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=Text, unique=True)


class Brand(SQLModel, table=True):
    """A brand as shoppers know it."""

    __tablename__: ClassVar[str] = "brand"

    brand_id: int | None = Field(default=None, primary_key=True)
    slug: str = Field(sa_type=Text, unique=True)
    group_id: int = Field(foreign_key="brand_group.group_id")
    issuer_id: int = Field(foreign_key="issuer.issuer_id")
    name_zh: str = Field(sa_type=Text)
    name_en: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)

    def name(self, language: str) -> str:
        return self.name_zh if language == "zh" else self.name_en


class Product(SQLModel, table=True):
    """A kind of item, identified by its 14-digit GTIN."""

    __tablename__: ClassVar[str] = "product"
    __table_args__ = (CheckConstraint("length(gtin) = 14", name="gtin"),)

    gtin: str = Field(primary_key=True, sa_type=Text)
    brand_id: int = Field(foreign_key="brand.brand_id", index=True)
    name_zh: str = Field(sa_type=Text)
    name_en: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)

    def name(self, language: str) -> str:
        return self.name_zh if language == "zh" else self.name_en


def gtin14(gtin: str) -> str:
    """A GTIN of 8, 12, 13 or 14 digits in its 14-digit form (GS1 General Specifications 3.3.2). Raises GtinInvalid."""
    padded = gtin.zfill(14) if len(gtin) in (8, 12, 13, 14) else gtin
    if not gtin_is_valid(padded):
        raise GtinInvalid("a GTIN is 8, 12, 13 or 14 digits, the last of them the right check digit")
    return padded


async def create_group(session: Session, name: str) -> BrandGroup:
    """The group of that name, made when it is not there yet."""
    name = _named(name)
    # Two brands that found one group at once both get it.
    await session.exec(insert(session, BrandGroup).values(name=name).on_conflict_do_nothing())
    return (await session.exec(select(BrandGroup).where(BrandGroup.name == name))).one()


async def group_named(session: Session, name: str) -> int:
    """The id of the group of that name. Raises GroupUnknown."""
    found = (await session.exec(select(BrandGroup.group_id).where(BrandGroup.name == name))).first()
    if found is None:
        raise GroupUnknown(f"there is no group {name}", hint="`fanxing brand list` shows the brands and their groups.")
    return found


async def create_brand(
    session: Session, issuer: Issuer, group_name: str, slug: str, name_zh: str, name_en: str, now: datetime
) -> Brand:
    """Register a brand of an issuer. Raises BrandInvalid and BrandExists."""
    if not _SLUG.fullmatch(slug):
        raise BrandInvalid(f"a brand's short name is 1 to {SLUG_CHARACTERS_MAX} of a-z, 0-9 and inner hyphens")
    taken = BrandExists(f"there is a brand {slug} already")
    if (await session.exec(select(Brand).where(Brand.slug == slug))).first() is not None:
        raise taken
    group = await create_group(session, group_name)
    assert group.group_id is not None  # flushed rows have their key
    assert issuer.issuer_id is not None
    brand = Brand(
        slug=slug,
        group_id=group.group_id,
        issuer_id=issuer.issuer_id,
        name_zh=_named(name_zh),
        name_en=_named(name_en),
        created_at=now,
    )
    session.add(brand)
    try:
        await session.flush()
    except IntegrityError:  # someone else was quicker
        raise taken from None
    return brand


async def brand_named(session: Session, slug: str) -> Brand:
    """Raises BrandUnknown."""
    brand = (await session.exec(select(Brand).where(Brand.slug == slug))).first()
    if brand is None:
        raise BrandUnknown(f"there is no brand {slug}", hint="`fanxing brand list` shows the brands.")
    return brand


async def brand_with(session: Session, brand_id: int) -> Brand:
    """Raises BrandUnknown."""
    brand = await session.get(Brand, brand_id)
    if brand is None:
        raise BrandUnknown("there is no such brand", hint="`fanxing brand list` shows the brands.")
    return brand


async def of_group(session: Session, group_id: int) -> list[Brand]:
    """The brands of a group, oldest first."""
    return list(await session.exec(select(Brand).where(Brand.group_id == group_id).order_by(col(Brand.brand_id))))


async def slugs_of_group(session: Session, group_id: int) -> dict[int, str]:
    """The short names of a group's brands by their ids."""
    brands = await session.exec(select(Brand).where(Brand.group_id == group_id))
    return {brand.brand_id: brand.slug for brand in brands if brand.brand_id is not None}


async def create_product(
    session: Session, brand: Brand, gtin: str, name_zh: str, name_en: str, now: datetime
) -> Product:
    """Register a product of a brand.

    Raises GtinInvalid, GtinOutsidePrefixes (the GTIN must lie under a prefix of the brand's issuer), ProductExists.
    """
    gtin = gtin14(gtin)
    issuer = await session.get_one(Issuer, brand.issuer_id)
    # A company prefix starts after the indicator digit of a GTIN-14.
    if not any(gtin[1:].startswith(prefix) for prefix in issuer.gtin_prefixes):
        raise GtinOutsidePrefixes(
            f"GTIN {gtin} is not under a prefix of {issuer.name}: {', '.join(issuer.gtin_prefixes)}",
            hint="Check the GTIN, or register the prefix for the issuer.",
        )
    taken = ProductExists(f"there is a product with GTIN {gtin} already")
    if await session.get(Product, gtin) is not None:
        raise taken
    assert brand.brand_id is not None  # rows read from the database have their key
    product = Product(
        gtin=gtin, brand_id=brand.brand_id, name_zh=_named(name_zh), name_en=_named(name_en), created_at=now
    )
    session.add(product)
    try:
        await session.flush()
    except IntegrityError:  # someone else was quicker
        raise taken from None
    return product


async def product_with(session: Session, gtin: str) -> Product:
    """Raises ProductUnknown."""
    product = await session.get(Product, gtin)
    if product is None:
        raise ProductUnknown(f"there is no product with GTIN {gtin}", hint="`fanxing product create` registers one.")
    return product


def _named(name: str) -> str:
    if not 1 <= len(name.strip()) <= NAME_CHARACTERS_MAX or not name.strip().isprintable():
        raise BrandInvalid(f"a name is 1 to {NAME_CHARACTERS_MAX} printable characters")
    return name.strip()
