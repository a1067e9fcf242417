"""Statistics: tallies put together by month, region, brand, product and category, as far as a scope reaches."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import func, select

from kit.db import Session, table_of
from kit.errors import Invalid
from scan_api.regulators import regions, territory
from scan_api.regulators.sights import Reach, ScopeTooWide
from scan_api.regulators.tallies import NOWHERE, Kind, Tally, TallySource

MONTHS_MAX: Final = 36
ROWS_READ_MAX: Final = 200_000
LINES_MAX: Final = 10_000
REGION_DIGITS: Final = (2, 4, 6)
_MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")


class StatisticsInvalid(Invalid):
    code = "StatisticsInvalid"


class By(StrEnum):
    """What counts are parted by."""

    MONTH = "month"
    REGION = "region"
    BRAND = "brand"
    GTIN = "gtin"
    CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class Question:
    """Which counts are asked for: months, both included, such as 2026-05. Raises StatisticsInvalid."""

    first: str
    last: str
    by: tuple[By, ...]
    kinds: tuple[Kind, ...] = tuple(Kind)
    region_digits: int = 4

    def __post_init__(self) -> None:
        for month in (self.first, self.last):
            if not _MONTH.fullmatch(month):
                raise StatisticsInvalid("a month is written 2026-05")
        if not 1 <= self._months <= MONTHS_MAX:
            raise StatisticsInvalid(f"1 to {MONTHS_MAX} months, not {self._months}")
        if len(set(self.by)) != len(self.by):
            raise StatisticsInvalid("counts are parted by each thing once")
        if self.region_digits not in REGION_DIGITS:
            raise StatisticsInvalid("regions are told by 2, 4 or 6 digits")

    @property
    def _months(self) -> int:
        (year, month), (end_year, end_month) = (map(int, one.split("-")) for one in (self.first, self.last))
        return (end_year - year) * 12 + end_month - month + 1


@dataclass(frozen=True, slots=True)
class Line:
    """A count, and what it is of; what it was not parted by is None, and so is an unknown region or category."""

    kind: Kind
    count: int
    month: str | None = None
    region: str | None = None
    brand_id: int | None = None
    gtin: str | None = None
    category: str | None = None
    counted: frozenset[int] = field(default=frozenset(), compare=False)
    """The brands of whose goods it is."""


async def answer(session: Session, reach: Reach, question: Question) -> list[Line]:
    """The counts, sorted. A product of several categories counts in each of them when parted by category.

    Of brands that are not seated in the jurisdiction, only what happened at known places in it counts. Raises
    ScopeTooWide above 10,000 lines.
    """
    rows = await _rows(session, reach, question)
    of_product: dict[str, tuple[str, ...]] = {}
    if By.CATEGORY in question.by:
        of_product = {
            gtin: some for gtin, _brand, some in await territory.products_with_categories(session, reach.brands)
        }
    counted: Counter[tuple[Any, ...]] = Counter()
    brands: dict[tuple[Any, ...], set[int]] = {}
    for brand_id, gtin, region, month, kind, count in rows:
        for category in of_product.get(gtin) or (None,):
            parts = {
                By.MONTH: month,
                By.REGION: regions.level_of(region, question.region_digits) if region != NOWHERE else None,
                By.BRAND: brand_id,
                By.GTIN: gtin,
                By.CATEGORY: category,
            }
            key = kind, *(parts[one] if one in question.by else None for one in By)
            counted[key] += count
            brands.setdefault(key, set()).add(brand_id)
        if len(counted) > LINES_MAX:
            raise ScopeTooWide(f"more than {LINES_MAX:,} lines", hint="Ask for fewer months, or by less.")
    return [
        replace(Line(Kind(str(key[0])), count, *key[1:]), counted=frozenset(brands[key]))  # in the order of By
        for key, count in sorted(counted.items(), key=lambda one: tuple(map(str, one[0])))
    ]


async def _rows(session: Session, reach: Reach, question: Question) -> Collection[tuple[int, str, str, str, str, int]]:
    tally = table_of(Tally).c
    month = func.substr(tally.day, 1, 7)
    asked = (
        sa.select(tally.brand_id, tally.gtin, tally.region, month, tally.kind, func.sum(tally.count))
        .where(
            tally.brand_id.in_(reach.brands),
            tally.day >= f"{question.first}-01",
            tally.day <= f"{question.last}-31",
            tally.kind.in_(question.kinds),
        )
        .group_by(tally.brand_id, tally.gtin, tally.region, sa.literal_column("4"), tally.kind)
        .limit(ROWS_READ_MAX + 1)
    )
    rows = (await (await session.connection()).execute(asked)).all()
    if len(rows) > ROWS_READ_MAX:
        raise ScopeTooWide(f"more than {ROWS_READ_MAX:,} counts", hint="Ask for fewer months, or name brands.")
    return [
        (brand_id, gtin, region, of_month, kind, int(count))  # PostgreSQL sums whole numbers as decimals
        for brand_id, gtin, region, of_month, kind, count in rows
        if _is_seen(reach, brand_id, gtin, region)
    ]


def _is_seen(reach: Reach, brand_id: int, gtin: str, region: str) -> bool:
    return gtin in reach.gtins and (
        brand_id in reach.seated or (region != NOWHERE and reach.scope.covers_any((region,)))
    )


async def counted_until(session: Session) -> datetime | None:
    """Everything before this moment is in the counts; None: nothing was counted yet."""
    return (await session.exec(select(func.min(TallySource.upto)))).one()
