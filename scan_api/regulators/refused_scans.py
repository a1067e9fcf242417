"""Refused scans: how many codes page and API refused, counted in memory and added to the tallies every few seconds.

A scan of what was never issued leaves no row that a tally could follow, and shall not: anybody can send any number of
them. A server that is killed takes the counts of its last ten seconds with it.
"""

import asyncio
import contextlib
from collections import Counter
from datetime import datetime
from typing import Final

import structlog

from kit.db import Database
from offline_sdk.errors import Revoked
from scan_api.regulators import tallies
from scan_api.regulators.tallies import Counts, Key, Kind, day_of
from scan_api.regulators.tally_sources import NOBODYS
from scan_api.scans import Judgement

_log = structlog.get_logger()

ADDED_EVERY_S: Final = 10.0
KEYS_MAX: Final = 10_000
"""Days and products that are counted at once; a flood of codes that name others is left out."""
_WITHDRAWN: Final = (Revoked.code, "Recalled", "Voided", "Held")


class RefusedScans:
    """The counts of one server."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counts = Counter()

    def note(self, judgement: Judgement, now: datetime) -> None:
        """Count a scan if its code was refused and named a product."""
        kind, gtin = _kind(judgement.error), judgement.verdict.gtin
        if kind is None or gtin is None:
            return
        key = Key(day_of(now), gtin, kind)
        if key in self._counts or len(self._counts) < KEYS_MAX:
            self._counts[key] += 1

    async def add(self) -> None:
        """Add what was counted to the tallies; it is kept for the next time if that fails."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            async with self._database.writing() as session:
                await tallies.add(session, counts)
        except BaseException:
            self._counts.update(counts)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Add until `stop` is set or the task is cancelled, and once more then."""
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), ADDED_EVERY_S)
                try:
                    await self.add()
                except Exception:
                    _log.exception("refused scans not added, will try again")
        finally:
            await self.add()


def _kind(error: str | None) -> Kind | None:
    if error in NOBODYS:
        return Kind.SUSPECTED_FAKES_ONLINE
    return Kind.REFUSED_ONLINE if error in _WITHDRAWN else None
