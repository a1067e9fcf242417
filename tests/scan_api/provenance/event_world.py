"""Events in a database without a server: kept as a capture keeps them, and found by parameters."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kit.db import Database
from scan_api.provenance import captures, documents, event_query, event_search
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.event_search import EventPage
from tests.scan_api.event_sender import document

BRAND_ID, OTHER_BRAND_ID = 1, 2
RECORDED_AT = datetime(2026, 7, 1, 8, tzinfo=UTC)


async def keep(
    database: Database, *events: Mapping[str, Any], brand_id: int = BRAND_ID, at: datetime = RECORDED_AT, **more: Any
) -> None:
    """Capture events; `context=` for another @context."""
    sent = document(*events, **more)
    judged = captures.judge(brand_id, documents.read(sent))
    async with database.writing() as session:
        captured = await captures.capture(
            session, brand_id, uuid.UUID(int=7), sent["@context"], judged, ErrorBehaviour.ROLLBACK, at
        )
    assert captured.capture.accepted == len(events), captured.results


async def page(database: Database, *pairs: tuple[str, str], brand_id: int = BRAND_ID, header: str = "") -> EventPage:
    query = event_query.parse(pairs, event_query.context_of(header))
    async with database.reading() as session:
        return await event_search.find(session, brand_id, query)


async def walked(database: Database, *pairs: tuple[str, str], brand_id: int = BRAND_ID) -> list[list[str]]:
    """The event ids of every page, from the first to the last."""
    pages: list[list[str]] = []
    token: list[tuple[str, str]] = []
    while True:
        got = await page(database, *pairs, *token, brand_id=brand_id)
        pages.append([event.event_id for event in got.events])
        if got.next_token is None:
            return pages
        token = [("nextPageToken", got.next_token)]
