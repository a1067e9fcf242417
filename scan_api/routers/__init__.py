"""One router an audience. Routers translate between HTTP and the domain; they hold no SQL and no rules."""

from typing import Annotated

from pydantic import Field

BrandSlug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", description="The brand's short name")]
