"""One router an audience. Routers translate between HTTP and the domain; they hold no SQL and no rules."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, PlainSerializer

from kit.clock import iso

BrandSlug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", description="The brand's short name")]
At = Annotated[datetime, PlainSerializer(iso, return_type=str), Field(json_schema_extra={"format": "date-time"})]
"""A moment in an answer: ISO 8601 in UTC with milliseconds."""


def example_of(status: int, content: Any) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` with an example of its answer, for answers that are plain dictionaries."""
    return {status: {"content": {"application/json": {"example": content}}}}
