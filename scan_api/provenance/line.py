"""The packing line: what a scanner saw go into a container or come out of it, told as aggregation events.

The events go through the same capture as everybody's (EPCIS 2.0, 7.4.3; CBV 2.0, 7.1: packing, unpacking), so that a
standard client sees them, and what is packed where follows from them.
"""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from codes.epc_uri import EpcUriInvalid, canonical
from kit.clock import iso
from kit.db import Session
from kit.errors import Invalid
from scan_api.provenance import captures, documents
from scan_api.provenance.answers import STANDARD_CONTEXT
from scan_api.provenance.captures import ErrorBehaviour, Outcome
from scan_api.provenance.documents import is_uri
from scan_api.provenance.events import CLOCK_AHEAD_MAX, EARLIEST

CHILDREN_PER_SCAN_MAX = 1_000
THING_CHARACTERS_MAX = 512


class PackingInvalid(Invalid):
    """What a line told of names nothing, or says nothing."""

    code = "PackingInvalid"


class LineAction(StrEnum):
    """What happened at the line."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    """Some came out and others went in at the same moment: rework."""
    EMPTY = "empty"
    """Everything came out."""


@dataclass(frozen=True, slots=True)
class LineScan:
    """One container at one moment. Things are code texts, EPC URNs or Digital Links.

    `children` went in (add, replace) or came out (remove), `removed` came out (replace). `read_point` is a URI.
    """

    action: LineAction
    parent: str
    children: Sequence[str]
    at: datetime
    removed: Sequence[str] = ()
    read_point: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the events of line scans: how many are new, how many were there; and the ids of all."""

    event_ids: Sequence[str]
    accepted: int
    duplicates: int


def check(scan: LineScan, now: datetime) -> None:
    """Raises PackingInvalid."""
    moved = len(scan.children) + len(scan.removed)
    if moved > CHILDREN_PER_SCAN_MAX:
        raise PackingInvalid(f"a scan moves at most {CHILDREN_PER_SCAN_MAX:,} things", hint="Tell of them in parts.")
    if (scan.action is LineAction.EMPTY) != (moved == 0):
        raise PackingInvalid("name the things that moved; only of an emptied container none are named")
    if (scan.action is LineAction.REPLACE) != bool(scan.removed) or (scan.removed and not scan.children):
        raise PackingInvalid(
            "what is replaced and what replaces it are named both, and of other actions only the first"
        )
    if scan.at.tzinfo is None or not EARLIEST <= scan.at <= now + CLOCK_AHEAD_MAX:
        raise PackingInvalid(
            f"a scan's time has a zone, is not in the future and not before {EARLIEST.year}",
            hint="Check the scanner's clock.",
        )
    if scan.read_point is not None and (len(scan.read_point) > THING_CHARACTERS_MAX or not is_uri(scan.read_point)):
        raise PackingInvalid("a read point is a URI, such as urn:epc:id:sgln:9506000.00001.0")


def name(text: str, what: str) -> str:
    """The one name of what a scanner read. Raises PackingInvalid, which says `what` and not the text: it may be a code.

    The name has no signature, so that who may query events cannot make codes of them.
    """
    if len(text) <= THING_CHARACTERS_MAX:
        with contextlib.suppress(EpcUriInvalid):
            named = canonical(text)
            if is_uri(named):
                return named
    raise PackingInvalid(
        f"{what} is no code text, EPC URN or Digital Link of at most {THING_CHARACTERS_MAX} characters",
        hint="Scan it again; do not type it.",
    )


def events_of(scan: LineScan) -> Iterator[dict[str, Any]]:
    """The events that tell of a scan, one or two. Raises PackingInvalid."""
    parent = name(scan.parent, "the container")
    children = [name(text, f"thing {place}") for place, text in enumerate(scan.children, 1)]
    if scan.action is LineAction.REPLACE:
        out = [name(text, f"removed thing {place}") for place, text in enumerate(scan.removed, 1)]
        yield _event("DELETE", parent, out, scan)
    yield _event("ADD" if scan.action in (LineAction.ADD, LineAction.REPLACE) else "DELETE", parent, children, scan)


def _event(action: str, parent: str, children: Sequence[str], scan: LineScan) -> dict[str, Any]:
    event: dict[str, Any] = {
        "type": "AggregationEvent",
        "eventTime": iso(scan.at),
        "eventTimeZoneOffset": "+00:00",
        "parentID": parent,
        "action": action,
        "bizStep": "packing" if action == "ADD" else "unpacking",
        "disposition": "in_progress",
    }
    if children:
        event["childEPCs"] = list(dict.fromkeys(children))
    if scan.read_point is not None:
        event["readPoint"] = {"id": scan.read_point}
    return event


async def record(
    session: Session, brand_id: int, caller_id: uuid.UUID, scans: Sequence[LineScan], now: datetime
) -> Recorded:
    """Capture what a line told, all or nothing; told again, with the same times, it changes nothing.

    Raises PackingInvalid.
    """
    for scan in scans:
        check(scan, now)
    told = [event for scan in scans for event in events_of(scan)]
    document = documents.read(
        {
            "@context": STANDARD_CONTEXT,
            "type": "EPCISDocument",
            "schemaVersion": documents.SCHEMA_VERSION,
            "creationDate": iso(now),
            "epcisBody": {"eventList": told},
        }
    )
    judged = captures.judge(brand_id, document)
    captured = await captures.capture(
        session, brand_id, caller_id, STANDARD_CONTEXT, judged, ErrorBehaviour.ROLLBACK, now
    )
    for result in captured.results:
        for problem in result.problems:
            raise PackingInvalid(problem.message)
    outcomes = [result.outcome for result in captured.results]
    return Recorded(
        [result.event_id or "" for result in captured.results],
        outcomes.count(Outcome.ACCEPTED),
        outcomes.count(Outcome.DUPLICATE),
    )
