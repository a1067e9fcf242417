"""For brands: the links that the resolver leads to, each under an id that the brand chooses."""

import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import Brand, brand_named
from codes.digital_link import URI_CHARACTERS_MAX
from kit.clock import When
from kit.db import Session
from kit.paging import Position
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, OutOfScope, Role
from scan_api.paging import Page, Paged
from scan_api.resolver import link_types, links, targets
from scan_api.resolver.levels import level_named
from scan_api.resolver.links import CONTEXTS_MAX, LANGUAGES_MAX, LinkRole, NewLink, ResolverLink
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve

router = APIRouter(prefix="/v1/brand/{brand}/links", tags=["resolver"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, an API key with the role brand")]
Identifier = Annotated[
    str,
    Field(
        max_length=URI_CHARACTERS_MAX,
        description="What the link belongs to: a GS1 Digital Link on any host, its path, or an EPC URN",
    ),
]
_LINKS: Final = "links"
_ID = "0197f0f0-5c00-7000-8000-000000000011"
_GIVEN: Final[dict[str, Any]] = {
    "link_type": "gs1:pip",
    "title": "Sea salt lychee ice cream",
    "href": "https://www.example.cn/ice/{01}",
    "languages": ["en"],
    "media_type": "text/html",
    "contexts": [],
    "role": "default",
    "valid_from": None,
    "valid_until": None,
}


class GivenLink(BaseModel):
    """A link to keep."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {"identifier": "/01/09506000134352", **_GIVEN}},
    )

    identifier: Identifier
    link_type: str = Field(max_length=200, description="Of the GS1 Web Vocabulary: gs1:pip, or as an address")
    title: str = Field(max_length=links.TITLE_CHARACTERS_MAX, description="For people, in the target's language")
    href: str = Field(
        max_length=targets.HREF_CHARACTERS_MAX,
        description="https, on another host; {01} or {21} stand for the request's values",
    )
    languages: list[str] = Field(default=[], max_length=LANGUAGES_MAX, description="Of the target: en, zh-CN")
    media_type: str | None = Field(default=None, max_length=links.MEDIA_TYPE_CHARACTERS_MAX)
    contexts: list[str] = Field(default=[], max_length=CONTEXTS_MAX, description="Countries: CN, DE")
    role: LinkRole = Field(
        default=LinkRole.PLAIN,
        description="default: followed by who asks for nothing in particular; variant: instead, where it fits better",
    )
    valid_from: When | None = None
    valid_until: When | None = Field(default=None, description="From then on it does not count")


class Link(BaseModel):
    """A link as it is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "link_id": _ID,
                "digital_link": "https://id.example.cn/01/09506000134352",
                **_GIVEN,
                "created_at": "2026-05-01T08:00:00.000Z",
            }
        }
    )

    link_id: uuid.UUID
    digital_link: str = Field(description="What it belongs to, on this host")
    link_type: str
    title: str
    href: str
    languages: list[str]
    media_type: str | None
    contexts: list[str]
    role: LinkRole
    valid_from: At | None
    valid_until: At | None
    created_at: At


async def _authorised(session: Session, authorization: str | None, slug: str) -> tuple[ApiKey, Brand]:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    found = await brand_named(session, slug)
    key.require_brand(found.brand_id or 0)
    return key, found


def _covers(key: ApiKey, company_digits: str) -> bool:
    return not key.gtin_prefixes or company_digits.startswith(tuple(key.gtin_prefixes))


def _require_covered(key: ApiKey, company_digits: str) -> None:
    if not _covers(key, company_digits):
        raise OutOfScope("this API key does not cover that GS1 key")


@router.get("", summary="List links")
async def list_links(
    brand: BrandSlug,
    services: Serve,
    paging: Paged,
    identifier: Annotated[Identifier | None, Query()] = None,
    authorization: Authorization = None,
) -> Page[Link]:
    """The brand's links that the key covers, newest first: all of them, or those of one level, whatever their times."""
    level = level_named(identifier) if identifier is not None else None
    async with services.database.reading() as session:
        key, found = await _authorised(session, authorization, brand)
        rows = await links.newest_of(
            session, found.brand_id or 0, level, key.gtin_prefixes, paging.after(_LINKS), paging.count
        )
    base_url = services.settings.base_url
    return Page[Link](
        **paging.page(
            _LINKS, rows, lambda row: Position(row.created_at, row.link_id), lambda row: _shown(row, base_url)
        )
    )


@router.put("/{link_id}", summary="Keep a link")
async def put(
    brand: BrandSlug, link_id: uuid.UUID, body: GivenLink, services: Serve, authorization: Authorization = None
) -> Link:
    """Keep a link under this id, in the place of what was there: sent twice, it is kept once. It counts at once.

    The GTIN is of a product of this brand; another key lies under a company prefix of the brand's issuer.
    """
    level, now = level_named(body.identifier), services.clock()
    targets.check(body.href, services.settings.base_url)
    new = NewLink(
        level,
        link_types.named(body.link_type),
        body.title,
        body.href,
        tuple(body.languages),
        body.media_type,
        tuple(body.contexts),
        body.role,
        body.valid_from,
        body.valid_until,
    )
    async with services.database.writing() as session:
        key, found = await _authorised(session, authorization, brand)
        _require_covered(key, level.company_digits)
        before = await links.find(session, found.brand_id or 0, link_id)
        if before is not None:
            _require_covered(key, before.company_digits)
        kept = await links.put(session, found, link_id, new, now)
        return _shown(kept, services.settings.base_url)


@router.delete("/{link_id}", status_code=204, summary="Remove a link")
async def remove(
    brand: BrandSlug, link_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Response:
    """Forget a link, at once."""
    async with services.database.writing() as session:
        key, found = await _authorised(session, authorization, brand)
        link = await links.find(session, found.brand_id or 0, link_id)
        if link is None or not _covers(key, link.company_digits):
            raise links.LinkUnknown("this brand has no link with this id that the key covers")
        await links.remove(session, link)
    return Response(status_code=204)


def _shown(link: ResolverLink, base_url: str) -> Link:
    return Link(
        link_id=link.link_id,
        digital_link=base_url + link.level,
        link_type=link_types.short(link.link_type),
        title=link.title,
        href=link.href,
        languages=link.languages,
        media_type=link.media_type,
        contexts=link.contexts,
        role=LinkRole(link.role),
        valid_from=link.valid_from,
        valid_until=link.valid_until,
        created_at=link.created_at,
    )
