"""Auditing: what a group's auditor is told of regulators' looks: what concerns the group's brands, and nothing else.

A look may have asked for other groups' goods too, by short names, GTINs and serials, and told of them. Of what was
asked he is told what names nobody's things, and what names things of the group's own products; of what was told, how
many things were the group's.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import col, select

from codes.catalogue import BrandUnknown, Product, brand_named, slugs_of_group
from kit.db import Session
from kit.paging import Position
from scan_api import thing_acts
from scan_api.auth.api_keys import ApiKey, OutOfScope
from scan_api.regulators import accesses
from scan_api.regulators.accesses import RegulatorAccess

GTINS_ASKED_AT_ONCE_MAX: Final = 1_000
_BRAND: Final = "brand"
_THINGS: Final = "MATCH_"
_NAMELESS: Final = frozenset(
    {
        "first", "last", "by", "kind", "steps", "evidence", "eventType", "EQ_action", "EXISTS_errorDeclaration",
        "GE_eventTime", "LT_eventTime", "GE_recordTime", "LT_recordTime", "orderBy", "orderDirection",
        "eventCountLimit", "maxEventCount", "perPage",
    }
)  # fmt: skip
"""Filters whose values, in a question that was answered, are numbers, moments and words of ours or the standard's."""


@dataclass(frozen=True, slots=True)
class GroupLook:
    """A look, as far as it concerns a group: `subject` empty where it names another's thing.

    `told`: how many things of the group's; None: of several groups, and from before that was counted.
    """

    access_id: uuid.UUID
    at: datetime
    name: str
    key_id: str
    operation: str
    subject: str
    asked: dict[str, Any]
    purpose: str | None
    outcome: str
    told: int | None


async def group_of(session: Session, key: ApiKey, slug: str) -> int:
    """The group of the auditor's brand of this short name. Raises BrandUnknown, for a brand of others the same."""
    try:
        brand = await brand_named(session, slug)
        key.require_brand(brand.brand_id or 0)
    except (BrandUnknown, OutOfScope):
        raise BrandUnknown("there is no such brand, or this API key does not cover it") from None
    return brand.group_id


async def of_group(session: Session, group_id: int, after: Position | None, count: int) -> list[GroupLook]:
    """A page of the looks whose answers told of goods of a group's brands, newest first."""
    slugs = await slugs_of_group(session, group_id)
    rows = await accesses.of_brands(session, slugs.keys(), after, count)
    told_of = await accesses.brands_of(session, [row.access_id for row in rows])
    own = await _own_gtins(session, slugs.keys(), rows)
    return [
        _shown(row, row.told_of(told_of.get(row.access_id, ()), slugs.keys()), set(slugs.values()), own) for row in rows
    ]


async def _own_gtins(session: Session, brand_ids: Collection[int], rows: Sequence[RegulatorAccess]) -> Collection[str]:
    """The GTINs that these looks name and that are of products of these brands."""
    texts = {text for row in rows for text in (row.subject, *_things(row))}
    named = sorted({gtin for text in texts if (gtin := thing_acts.gtin_in(text)) is not None})
    own: set[str] = set()
    for start in range(0, len(named), GTINS_ASKED_AT_ONCE_MAX):
        some = named[start : start + GTINS_ASKED_AT_ONCE_MAX]
        own |= set(
            await session.exec(
                select(Product.gtin).where(col(Product.gtin).in_(some), col(Product.brand_id).in_(brand_ids))
            )
        )
    return own


def _things(row: RegulatorAccess) -> list[str]:
    return [one for name, value in row.asked.items() if name.startswith(_THINGS) for one in str(value).split("|")]


def _shown(row: RegulatorAccess, told: int | None, slugs: Collection[str], own: Collection[str]) -> GroupLook:
    gtin = thing_acts.gtin_in(row.subject)
    # What names no product names what was told of, such as an item, or a container in events of the brand.
    is_own = bool(told) if gtin is None else gtin in own
    filters = {name: _of_own(name, value, slugs, own) for name, value in row.asked.items()}
    return GroupLook(
        row.access_id,
        row.at,
        row.name,
        row.key_id,
        row.operation,
        row.subject if is_own else "",
        {name: value for name, value in filters.items() if value is not None},
        row.purpose,
        row.outcome,
        told,
    )


def _of_own(name: str, value: Any, slugs: Collection[str], own: Collection[str]) -> Any:
    """Of a filter's value what names the group's own, or nobody's; None: nothing is left."""
    if name in _NAMELESS:
        return value
    if name == _BRAND:
        left = [one for one in str(value).split("|") if one in slugs]
    elif name.startswith(_THINGS):
        left = [one for one in str(value).split("|") if thing_acts.gtin_in(one) in own]
    else:
        left = []
    return "|".join(left) or None
