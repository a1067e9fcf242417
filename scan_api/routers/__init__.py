"""One router an audience. Routers translate between HTTP and the domain; they hold no SQL and no rules."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, PlainSerializer

from kit.clock import iso

BrandSlug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", description="The brand's short name")]
At = Annotated[datetime, PlainSerializer(iso, return_type=str), Field(json_schema_extra={"format": "date-time"})]
"""A moment in an answer: ISO 8601 in UTC with milliseconds."""

YEAR_MIN, YEAR_END = 1970, 2200


def _in_our_time(moment: datetime) -> datetime:
    if not YEAR_MIN <= moment.year < YEAR_END:  # near the ends of the calendar no arithmetic is safe
        raise ValueError(f"a moment lies in the years {YEAR_MIN} to {YEAR_END - 1}")
    return moment


When = Annotated[AwareDatetime, AfterValidator(_in_our_time)]
"""A moment in a request: ISO 8601 with its offset from UTC, 1970 to 2199."""


def example_of(status: int, content: Any) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` with an example of its answer, for answers that are plain dictionaries."""
    return {status: {"content": {"application/json": {"example": content}}}}
