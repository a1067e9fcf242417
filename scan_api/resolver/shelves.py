"""What stands on the levels of a Digital Link at a moment: the links of brands, and our own page of a product."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from codes.digital_link import DigitalLink
from kit.db import Session
from scan_api.resolver import link_types, links, targets
from scan_api.resolver.choices import Offered, Shelf
from scan_api.resolver.levels import Level, levels_of
from scan_api.resolver.links import LinkRole, ResolverLink
from scan_api.web.views import Language

OWN_PAGE_QUERY: Final = "?linkType=linkset"
"""The list of links is the page that every registered product has, in the visitor's language."""


async def shelves_of(
    session: Session, base_url: str, link: DigitalLink, language: Language, now: datetime
) -> tuple[Shelf, ...]:
    """The levels of a Digital Link with their links, the finest first; the key's own level always comes last."""
    levels = levels_of(link)
    rows = await links.in_force(session, levels, now)
    registered = await links.product_of(session, levels[-1].gtin) if levels[-1].gtin is not None else None
    values = dict(link.elements[: link.path_elements])
    shelves = [Shelf(level, tuple(_offered(rows, level, values))) for level in levels]
    if registered is not None:
        product, brand = registered
        name = f"{brand.name(language)} {product.name(language)}"
        shelves[-1] = _with_own_page(replace(shelves[-1], description=name), base_url, name)
    return tuple(_with_default(shelves))


def _offered(rows: Sequence[ResolverLink], level: Level, values: dict[str, str]) -> list[Offered]:
    """The level's links, the default that came into force last behind the others."""
    offered = []
    for row in sorted(rows, key=lambda row: row.valid_from.timestamp() if row.valid_from is not None else 0.0):
        if row.level != level.path or (href := targets.filled(row.href, values)) is None:
            continue
        offered.append(
            Offered(
                row.link_type,
                href,
                row.title,
                tuple(row.languages),
                row.media_type,
                tuple(row.contexts),
                LinkRole(row.role),
            )
        )
    return offered


def _with_own_page(shelf: Shelf, base_url: str, name: str) -> Shelf:
    if shelf.default is not None or shelf.of_type(link_types.PIP):
        return shelf
    href = base_url + shelf.level.path + OWN_PAGE_QUERY
    page = Offered(link_types.PIP, href, name, ("zh", "en"), "text/html", role=LinkRole.DEFAULT)
    return replace(shelf, links=(*shelf.links, page))


def _with_default(shelves: Sequence[Shelf]) -> list[Shelf]:
    """The same, where every level has a default on it or above it, if any has a link (2.5.9)."""
    *finer, key = shelves
    if key.links:
        return [*finer, _promoted(key)]
    at = next((at for at, shelf in enumerate(finer) if shelf.links), None)
    if at is None or any(shelf.default is not None for shelf in finer):
        return list(shelves)
    return [*finer[:at], _promoted(finer[at]), *finer[at + 1 :], key]


def _promoted(shelf: Shelf) -> Shelf:
    """The level with a default, which is a page of the thing or its oldest link where its brand named none."""
    if shelf.default is not None:
        return shelf
    chosen = next(iter(shelf.of_type(link_types.PIP)), shelf.links[0])
    links_ = [replace(link, role=LinkRole.DEFAULT) if link is chosen else link for link in shelf.links]
    return replace(shelf, links=tuple(links_))
