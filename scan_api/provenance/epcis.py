"""The history of an item in the terms of EPCIS 2.0 and CBV 2.0 (GS1), as JSON-LD.

Items are named by their canonical GS1 Digital Link URI (GS1 Digital Link Standard: URI Syntax 1.6, 4.12), which is what
EPCIS 2.0 (8.3) takes beside the older URNs.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kit.clock import iso
from scan_api.provenance.events import Event, Step

_NAMESPACE = "https://fanxing.example/ns/epcis/"
CONTEXT = [
    "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld",
    {"fanxing": _NAMESPACE},
]
SCHEMA_VERSION = "2.0"

# Action (EPCIS 2.0, 7.3.2), business step (CBV 2.0, 7.1) and disposition (CBV 2.0, 7.2) of each step. Putting on
# sale and claiming have no business step in the CBV; private ones are URIs (CBV 2.0, 5.1). Voiding ends a serial, not
# a thing: the goods may get another code. So it is decommissioning and leaves it inactive; destroying would say that
# the goods are gone.
_TERMS: dict[Step, dict[str, str]] = {
    Step.COMMISSIONED: {"action": "ADD", "bizStep": "commissioning", "disposition": "encoded"},
    Step.ACTIVATED: {"action": "OBSERVE", "bizStep": f"{_NAMESPACE}activating", "disposition": "active"},
    Step.VOIDED: {"action": "DELETE", "bizStep": "decommissioning", "disposition": "inactive"},
    Step.SHIPPED: {"action": "OBSERVE", "bizStep": "shipping", "disposition": "in_transit"},
    Step.RECEIVED: {"action": "OBSERVE", "bizStep": "receiving", "disposition": "in_progress"},
    Step.RECALLED: {"action": "OBSERVE", "bizStep": "holding", "disposition": "recalled"},
    Step.SCANNED: {"action": "OBSERVE", "bizStep": "inspecting"},
    Step.CLAIMED: {"action": "OBSERVE", "bizStep": f"{_NAMESPACE}claiming"},
}


def item_uri(gtin: str, serial: str) -> str:
    """The item's canonical GS1 Digital Link URI."""
    return f"https://id.gs1.org/01/{gtin}/21/{serial}"


def event_uri(event: Event) -> str:
    """The id of an event in a document."""
    return f"urn:uuid:{event.event_id}"


def document(gtin: str, serial: str, events: Iterable[Event], created_at: datetime) -> dict[str, Any]:
    """An EPCIS document (EPCIS 2.0, 9) with the item's events, as they come."""
    return {
        "@context": CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": SCHEMA_VERSION,
        "creationDate": iso(created_at),
        "epcisBody": {"eventList": [_object_event(gtin, serial, event) for event in events]},
    }


def _object_event(gtin: str, serial: str, event: Event) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "ObjectEvent",
        "eventID": event_uri(event),
        "eventTime": iso(event.at),
        "eventTimeZoneOffset": "+00:00",
        "recordTime": iso(event.recorded_at),
        "epcList": [item_uri(gtin, serial)],
        **_TERMS[event.step],
        "fanxing:step": event.step.value,
    }
    if event.place is not None:
        body["fanxing:place"] = event.place
    if event.by is not None:
        body["fanxing:recordedBy"] = event.by
    if event.whole_order:
        # The event was captured once for the whole order; the query shows it for the item that was asked for.
        body["fanxing:order"] = f"{gtin}.{serial[:5]}"
    return body
