"""What the EPCIS interfaces answer: events as they were sent, in a query document with the contexts of all of them."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kit.clock import iso
from scan_api.provenance.documents import SCHEMA_VERSION
from scan_api.provenance.repository import EpcisEvent

STANDARD_CONTEXT: Final = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
QUERY_NAME: Final = "SimpleEventQuery"


def shown(event: EpcisEvent) -> dict[str, Any]:
    """The event as it was sent, with the moment at which it was recorded here (EPCIS 2.0, 7.4.1)."""
    content: dict[str, Any] = json.loads(event.content)
    content["recordTime"] = iso(event.record_time)
    return content


def single(event: EpcisEvent, declared: object) -> dict[str, Any]:
    """One event by itself, with its context."""
    content = shown(event)
    own = _entries(content.pop("@context", []))
    return {"@context": _joined([*_entries(declared), *own]), **content}


def query_document(
    events: Sequence[EpcisEvent], contexts: Mapping[uuid.UUID, object], created_at: datetime
) -> dict[str, Any]:
    """An EPCISQueryDocument (EPCIS 2.0, 10.5). A name that two documents declare unlike is declared at its events."""
    common: dict[str, object] = {}
    named: dict[str, None] = {STANDARD_CONTEXT: None}
    apart: set[uuid.UUID] = set()
    for context_id, declared in contexts.items():
        told, links = _split(declared)
        if any(common.get(name, definition) != definition for name, definition in told.items()):
            apart.add(context_id)
        else:
            common |= told
            named |= dict.fromkeys(links)
    listed = []
    for event in events:
        content = shown(event)
        if event.context_id in apart:
            own = _entries(content.pop("@context", []))
            content = {"@context": [*_entries(contexts[event.context_id]), *own], **content}
        listed.append(content)
    return {
        "@context": [*named, *([common] if common else [])],
        "type": "EPCISQueryDocument",
        "schemaVersion": SCHEMA_VERSION,
        "creationDate": iso(created_at),
        "epcisBody": {"queryResults": {"queryName": QUERY_NAME, "resultsBody": {"eventList": listed}}},
    }


def _entries(declared: object) -> list[Any]:
    return list(declared) if isinstance(declared, list) else [declared]


def _split(declared: object) -> tuple[dict[str, object], list[str]]:
    told: dict[str, object] = {}
    links: list[str] = []
    for entry in _entries(declared):
        if isinstance(entry, dict):
            told |= entry
        elif isinstance(entry, str) and entry != STANDARD_CONTEXT:
            links.append(entry)
    return told, links


def _joined(entries: Sequence[Any]) -> list[Any]:
    kept: list[Any] = [STANDARD_CONTEXT]
    for entry in entries:
        if entry not in kept:
            kept.append(entry)
    return kept
