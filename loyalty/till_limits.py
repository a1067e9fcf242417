"""How much a till may look up: enough for a busy shop, too little for a thief of its key to list members or coupons.

A till is what holds one API key. A person who is found counts one, a coupon that is found nothing, and what is not
found ten: who guesses mostly misses. Over the limit nothing is answered, found or not, so that the refusal tells
nothing. The window opens and closes as those of one-time codes do.
"""

import uuid
from datetime import datetime, timedelta

from kit.db import Session
from kit.errors import TooMany
from kit.vault import Vault
from loyalty import code_limits
from loyalty.code_limits import Scope

PERSON_UNITS = 1
MISS_UNITS = 10
"""Of the units that a till has in an hour, `code_limits.LIMITS[Scope.TILL]`."""


class TillLookupsLimited(TooMany):
    """The till looked up too much of late. `retry_after_s` says when it may again."""

    code = "TillLookupsLimited"

    def __init__(self, wait: timedelta) -> None:
        self.retry_after_s = -(-wait // timedelta(seconds=1))
        super().__init__(
            f"this till looked up too much that was not found; the next is answered in {self.retry_after_s} s",
            hint="Was it nobody of yours? Have its API key revoked.",
        )


async def require_room(session: Session, vault: Vault, till_id: uuid.UUID, now: datetime) -> None:
    """Count nothing yet. Raises TillLookupsLimited."""
    _raise_after(await code_limits.wait_for(session, vault, Scope.TILL, str(till_id), now))


async def count_person(session: Session, vault: Vault, till_id: uuid.UUID, now: datetime, *, is_found: bool) -> None:
    """Count that a till asked who somebody is, before it is told. Raises TillLookupsLimited."""
    units = PERSON_UNITS if is_found else MISS_UNITS
    _raise_after(await code_limits.take_from(session, vault, Scope.TILL, str(till_id), now, units))


async def count_misses(session: Session, vault: Vault, till_id: uuid.UUID, now: datetime, misses: int) -> None:
    """Count coupon codes that were none, at least one, before the till is told. Raises TillLookupsLimited."""
    _raise_after(await code_limits.take_from(session, vault, Scope.TILL, str(till_id), now, misses * MISS_UNITS))


def _raise_after(wait: timedelta | None) -> None:
    if wait is not None:
        raise TillLookupsLimited(wait)
