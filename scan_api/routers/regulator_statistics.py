"""For regulators: how much was issued, sold, scanned, recalled and suspected, by month, region, brand and product."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from scan_api.regulators import accesses, sights, statistics
from scan_api.regulators.accesses import Asked
from scan_api.regulators.statistics import By, Question
from scan_api.regulators.tallies import Kind
from scan_api.routers import At
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1/regulator", tags=["regulator"])

Month = Annotated[str, Query(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="Such as 2026-05")]


class LineAnswer(BaseModel):
    """A count; what it was not parted by is null, and so is a region or category that nobody told."""

    kind: Kind
    count: int
    month: str | None
    region: str | None
    brand: str | None
    gtin: str | None
    category: str | None


class StatisticsAnswer(BaseModel):
    """Counts, and up to when they are complete."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "counted_until": "2026-05-31T15:58:00.000Z",
                "lines": [
                    {
                        "kind": "scans",
                        "count": 10_412,
                        "month": "2026-05",
                        "region": None,
                        "brand": "star-cream",
                        "gtin": None,
                        "category": None,
                    }
                ],
            }
        }
    )

    counted_until: At | None = Field(description="Everything before this moment is in the counts")
    lines: list[LineAnswer]


@router.get("/statistics", summary="Statistics by month, region, brand and product")
async def counts(
    services: Serve,
    first: Month,
    last: Month,
    by: Annotated[list[By] | None, Query(max_length=len(By), description="What counts are parted by")] = None,
    kind: Annotated[list[Kind] | None, Query(max_length=len(Kind), description="Absent: all")] = None,
    region_digits: Annotated[int, Query(description="2 provinces, 4 prefectures, 6 counties")] = 4,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> StatisticsAnswer:
    """Counts of 1 to 36 months, of the goods that the account reaches.

    Of brands that are not seated in the jurisdiction, only what happened at known places in it is counted.
    """
    regulator = await regulator_of(services, authorization)
    filters = {"first": first, "last": last, "by": ",".join(by or ()), "kind": ",".join(kind or ())}
    asked = Asked("statistics", "", filters, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        question = Question(first, last, tuple(by or ()), tuple(kind or Kind), region_digits)
        async with services.database.reading() as session:
            reach = await sights.reach_of(session, regulator.scope)
            lines = await statistics.answer(session, reach, question)
            slugs = await sights.slugs_of(session, reach.brands)
            until = await statistics.counted_until(session)
        for line in lines:
            told.of_all(line.counted)
    return StatisticsAnswer(
        counted_until=until,
        lines=[
            LineAnswer(
                kind=line.kind,
                count=line.count,
                month=line.month,
                region=line.region,
                brand=None if line.brand_id is None else slugs[line.brand_id],
                gtin=line.gtin,
                category=line.category,
            )
            for line in lines
        ],
    )
