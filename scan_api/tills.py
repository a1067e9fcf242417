"""A till's request about a coupon: its key, its transaction, and the codes of it that were none."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import datetime

from kit.db import Session
from loyalty import till_limits
from loyalty.benefits.tills import CouponUnknown
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.services import Services


@contextlib.asynccontextmanager
async def at_till(
    services: Services, authorization: str | None, now: datetime
) -> AsyncIterator[tuple[Session, ApiKey]]:
    """A till's transaction about one coupon. A code that is none counts, though nothing else is left of it.

    Raises ApiKeyRefused, OutOfScope and TillLookupsLimited.
    """
    till_id: uuid.UUID | None = None
    try:
        async with services.database.writing() as session:
            key = await api_keys.authenticate(session, authorization, Role.SHOP)
            till_id = key.caller_id
            await till_limits.require_room(session, services.vault, till_id, now)
            yield session, key
    except CouponUnknown:
        if till_id is not None:
            await count_misses(services, till_id, 1, now)
        raise


async def count_misses(services: Services, till_id: uuid.UUID, misses: int, now: datetime) -> None:
    """Count codes that were none, before the till is told, and keep that. Raises TillLookupsLimited."""
    async with services.database.writing() as session:
        await till_limits.count_misses(session, services.vault, till_id, now, misses)
