"""The links that brands give: who may give one to what, how they are kept, and which ones count at a moment."""

import re
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from sqlalchemy import JSON, CheckConstraint, Column, ColumnElement, Index, Text, delete, or_
from sqlmodel import Field, SQLModel, col, func, select

from codes.catalogue import Brand, Product
from codes.gs1.code_lists import COUNTRIES_ALPHA2
from kit import locks
from kit.db import Moment, Session, insert
from kit.errors import Conflict, Forbidden, Invalid, NotFound
from kit.paging import Position, newest_first
from scan_api.resolver.levels import Level
from signer.keys import Issuer

TITLE_CHARACTERS_MAX: Final = 200
LANGUAGES_MAX: Final = 20
CONTEXTS_MAX: Final = 60
MEDIA_TYPE_CHARACTERS_MAX: Final = 100
LINKS_PER_LEVEL_MAX: Final = 100
"""Of one brand on one level, whatever their times."""

# The form that GS1's schema of link sets has for hreflang, which is less than BCP 47 allows.
_LANGUAGE: Final = re.compile("[A-Za-z]{2}(?:-[A-Za-z]{2})?")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class LinkInvalid(Invalid):
    code = "LinkInvalid"


class LinkUnknown(NotFound):
    code = "LinkUnknown"


class LevelNotYours(Forbidden):
    code = "LevelNotYours"


class LevelTaken(Conflict):
    code = "LevelTaken"


class TooManyLinks(Conflict):
    code = "TooManyLinks"


class LinkRole(StrEnum):
    """What a link is among those of its level."""

    PLAIN = "plain"  # followed by who asks for its type
    DEFAULT = "default"  # followed by who asks for nothing in particular; the one that came into force last counts
    VARIANT = "variant"  # followed instead of the default by whose language, media type or context it fits better


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link as a brand gives it. `target` has passed `targets.check`, `link_type` is a bare name."""

    level: Level
    link_type: str
    title: str
    href: str
    languages: tuple[str, ...] = ()
    """Tags as `en` or `zh-CN` (BCP 47), what the target is written in."""
    media_type: str | None = None
    contexts: tuple[str, ...] = ()
    """Countries where it applies: ISO 3166-1 alpha-2."""
    role: LinkRole = LinkRole.PLAIN
    valid_from: datetime | None = None
    valid_until: datetime | None = None


class ResolverLink(SQLModel, table=True):
    """A link on a level. All links of one key lie together."""

    __tablename__: ClassVar[str] = "resolver_link"
    __table_args__ = (
        CheckConstraint("role IN ('plain', 'default', 'variant')", name="role"),
        CheckConstraint("valid_from < valid_until", name="times"),
        Index("ix_resolver_link_key_level", "key", "level"),
        Index("ix_resolver_link_brand_id_created_at", "brand_id", "created_at", "link_id"),
    )

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False}, foreign_key="brand.brand_id")
    link_id: uuid.UUID = Field(primary_key=True)
    key: str = Field(sa_type=Text)
    """The path of the level's key: "/01/09506000134352"."""
    level: str = Field(sa_type=Text)
    """The level's own path."""
    company_digits: str = Field(sa_type=Text)
    """The key's value from its company prefix on, which API keys are limited to."""
    link_type: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    href: str = Field(sa_type=Text)
    languages: list[str] = Field(sa_column=Column(JSON, nullable=False))
    media_type: str | None = Field(default=None, sa_type=Text)
    contexts: list[str] = Field(sa_column=Column(JSON, nullable=False))
    role: str = Field(sa_type=Text)
    valid_from: datetime | None = Field(default=None, sa_type=Moment)
    valid_until: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)


def checked(new: NewLink) -> NewLink:
    """The link with its tags in their usual case. Raises LinkInvalid."""
    title = new.title.strip()
    if not 1 <= len(title) <= TITLE_CHARACTERS_MAX or any(unicodedata.category(sign) in _UNSEEN for sign in title):
        raise LinkInvalid(f"a link's title is 1 to {TITLE_CHARACTERS_MAX} visible characters")
    if len(new.languages) > LANGUAGES_MAX or not all(_LANGUAGE.fullmatch(tag) for tag in new.languages):
        raise LinkInvalid(
            f"a link has at most {LANGUAGES_MAX} languages, each as en or zh-CN",
            hint="GS1's schema of link sets knows no longer tags.",
        )
    contexts = tuple(context.upper() for context in new.contexts)
    if len(contexts) > CONTEXTS_MAX or not COUNTRIES_ALPHA2.issuperset(contexts):
        raise LinkInvalid(f"a link's contexts are at most {CONTEXTS_MAX} countries, as CN or DE (ISO 3166-1 alpha-2)")
    media_type = new.media_type
    if media_type is not None and (
        len(media_type) > MEDIA_TYPE_CHARACTERS_MAX or _MEDIA_TYPE.fullmatch(media_type) is None
    ):
        raise LinkInvalid("a link's media type is one as text/html or application/pdf, without parameters")
    if new.valid_from is not None and new.valid_until is not None and new.valid_from >= new.valid_until:
        raise LinkInvalid("a link's time ends after it begins")
    return NewLink(
        new.level,
        new.link_type,
        title,
        new.href,
        tuple(dict.fromkeys(map(_usual_case, new.languages))),
        media_type.lower() if media_type else None,
        tuple(dict.fromkeys(contexts)),
        new.role,
        new.valid_from,
        new.valid_until,
    )


def _usual_case(tag: str) -> str:
    language, _, region = tag.partition("-")
    return f"{language.lower()}-{region.upper()}" if region else language.lower()


async def put(session: Session, brand: Brand, link_id: uuid.UUID, new: NewLink, now: datetime) -> ResolverLink:
    """Keep a link under the id that its brand chose, in the place of what was there.

    Raises LinkInvalid, LevelNotYours, LevelTaken (another brand of the same company has links on the key),
    TooManyLinks.
    """
    new, level = checked(new), new.level
    assert brand.brand_id is not None  # rows read from the database have their key
    await locks.change(session, locks.key_of("resolver key", level.key_path))
    await _require_ours(session, brand, level)
    others = select(func.count()).where(
        col(ResolverLink.key) == level.key_path,
        col(ResolverLink.level) == level.path,
        col(ResolverLink.link_id) != link_id,
    )
    if (await session.exec(others)).one() >= LINKS_PER_LEVEL_MAX:
        raise TooManyLinks(f"{level.path} has {LINKS_PER_LEVEL_MAX} links, which is the limit")
    values = {
        "key": level.key_path,
        "level": level.path,
        "company_digits": level.company_digits,
        "link_type": new.link_type,
        "title": new.title,
        "href": new.href,
        "languages": list(new.languages),
        "media_type": new.media_type,
        "contexts": list(new.contexts),
        "role": new.role.value,
        "valid_from": new.valid_from,
        "valid_until": new.valid_until,
    }
    await session.exec(
        insert(session, ResolverLink)
        .values(brand_id=brand.brand_id, link_id=link_id, created_at=now, **values)
        .on_conflict_do_update(index_elements=["brand_id", "link_id"], set_=values)
    )
    return await session.get_one(ResolverLink, (brand.brand_id, link_id), populate_existing=True)


async def _require_ours(session: Session, brand: Brand, level: Level) -> None:
    if level.gtin is not None:
        product = await session.get(Product, level.gtin)
        if product is None or product.brand_id != brand.brand_id:
            raise LevelNotYours(
                f"GTIN {level.gtin} is no product of this brand", hint="`fanxing product create` registers one."
            )
        return
    issuer = await session.get_one(Issuer, brand.issuer_id)
    if not level.company_digits.startswith(tuple(issuer.gtin_prefixes)):
        raise LevelNotYours(
            f"({level.key[0]}) {level.key[1]} does not lie under a company prefix of this brand's issuer",
            hint="Check the key, or register the prefix for the issuer.",
        )
    held = select(ResolverLink.brand_id).where(ResolverLink.key == level.key_path).limit(1)
    if (await session.exec(held)).first() not in {None, brand.brand_id}:
        raise LevelTaken(f"another brand has links on ({level.key[0]}) {level.key[1]}")


async def find(session: Session, brand_id: int, link_id: uuid.UUID) -> ResolverLink | None:
    """The brand's link with this id, if there is one."""
    return await session.get(ResolverLink, (brand_id, link_id))


async def link_of(session: Session, brand_id: int, link_id: uuid.UUID) -> ResolverLink:
    """Raises LinkUnknown."""
    found = await find(session, brand_id, link_id)
    if found is None:
        raise LinkUnknown("this brand has no link with this id")
    return found


async def remove(session: Session, link: ResolverLink) -> None:
    """Forget a link."""
    await session.exec(
        delete(ResolverLink).where(
            col(ResolverLink.brand_id) == link.brand_id, col(ResolverLink.link_id) == link.link_id
        )
    )


async def newest_of(
    session: Session,
    brand_id: int,
    level: Level | None,
    company_prefixes: Sequence[str],
    after: Position | None,
    count: int,
) -> list[ResolverLink]:
    """A brand's next links, newest first: those of one level or all, and under these company prefixes if any."""
    asked: list[ColumnElement[bool]] = [col(ResolverLink.brand_id) == brand_id]
    if level is not None:
        asked += [col(ResolverLink.key) == level.key_path, col(ResolverLink.level) == level.path]
    if company_prefixes:
        asked.append(or_(*(col(ResolverLink.company_digits).startswith(prefix) for prefix in company_prefixes)))
    page = newest_first(
        select(ResolverLink).where(*asked), col(ResolverLink.created_at), col(ResolverLink.link_id), after, count
    )
    return list(await session.exec(page))


async def in_force(session: Session, levels: Sequence[Level], now: datetime) -> list[ResolverLink]:
    """The links of these levels of one key that count now, oldest first."""
    rows = await session.exec(
        select(ResolverLink)
        .where(
            col(ResolverLink.key) == levels[0].key_path,
            col(ResolverLink.level).in_([level.path for level in levels]),
            or_(col(ResolverLink.valid_from).is_(None), col(ResolverLink.valid_from) <= now),
            or_(col(ResolverLink.valid_until).is_(None), col(ResolverLink.valid_until) > now),
        )
        .order_by(col(ResolverLink.created_at), col(ResolverLink.link_id))
    )
    return list(rows)


async def product_of(session: Session, gtin: str) -> tuple[Product, Brand] | None:
    """The registered product with this GTIN, and its brand."""
    query = select(Product, Brand).join(Brand, col(Product.brand_id) == Brand.brand_id).where(Product.gtin == gtin)
    return (await session.exec(query)).first()
