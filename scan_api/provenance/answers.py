"""What the EPCIS interfaces answer: events as they were sent, in a query document with the contexts of all of them."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Raw
from msgspec.json import Decoder, Encoder

from kit.clock import iso
from scan_api.provenance.documents import SCHEMA_VERSION
from scan_api.provenance.event_rows import EventRow
from scan_api.provenance.repository import EpcisEvent

STANDARD_CONTEXT: Final = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
QUERY_NAME: Final = "SimpleEventQuery"
_fields = Decoder(dict[str, Raw])
_value = Decoder()

encoded = Encoder().encode
"""An answer as JSON in UTF-8. What is `Raw` in it goes out as it came, so that no number of an event is rounded."""


def shown(event: EpcisEvent | EventRow) -> dict[str, Any]:
    """The event as it was sent, each field `Raw`, with the moment at which it was recorded here (EPCIS 2.0, 7.4.1)."""
    fields: dict[str, Any] = _fields.decode(event.content)
    fields["recordTime"] = iso(event.record_time)
    return fields


def _as_sent(event: EpcisEvent | EventRow) -> Raw:
    """The same, unread where it need not be read."""
    if '"recordTime"' in event.content or "\\u" in event.content:
        return Raw(encoded(shown(event)))
    return Raw(f'{event.content.rstrip()[:-1]},"recordTime":"{iso(event.record_time)}"}}'.encode())


def single(event: EpcisEvent | EventRow, declared: object) -> dict[str, Any]:
    """One event by itself, with its context."""
    fields = shown(event)
    own = _entries(_value.decode(fields.pop("@context", b"[]")))
    return {"@context": _joined([*_entries(declared), *own]), **fields}


def query_document(
    events: Sequence[EpcisEvent | EventRow],
    contexts: Mapping[uuid.UUID, object],
    created_at: datetime,
    query_name: str = QUERY_NAME,
    subscription_id: uuid.UUID | None = None,
) -> dict[str, Any]:
    """An EPCISQueryDocument (EPCIS 2.0, 10.5), for `encoded`.

    Where events came with different contexts, each has its own: what one document declares must not change what the
    words of another mean.
    """
    listed: Sequence[Any]
    if len(contexts) == 1:
        [declared] = contexts.values()
        common, listed = _joined(_entries(declared)), [_as_sent(event) for event in events]
    else:
        common, listed = [STANDARD_CONTEXT], [single(event, contexts[event.context_id]) for event in events]
    results: dict[str, Any] = {"queryName": query_name}
    if subscription_id is not None:
        results["subscriptionID"] = str(subscription_id)
    return {
        "@context": common,
        "type": "EPCISQueryDocument",
        "schemaVersion": SCHEMA_VERSION,
        "creationDate": iso(created_at),
        "epcisBody": {"queryResults": {**results, "resultsBody": {"eventList": listed}}},
    }


def _entries(declared: object) -> list[Any]:
    return list(declared) if isinstance(declared, list) else [declared]


def _joined(entries: Sequence[Any]) -> list[Any]:
    return list(entries) if STANDARD_CONTEXT in entries else [STANDARD_CONTEXT, *entries]
