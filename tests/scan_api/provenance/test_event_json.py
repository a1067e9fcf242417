"""Documents in JSON read event by event: what is taken as JSON, what is kept of an event, and limits of memory."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from scan_api.provenance import event_json
from scan_api.provenance.documents import (
    EVENTS_PER_DOCUMENT_MAX,
    STANDARD_CONTEXT,
    DocumentFault,
    DocumentKind,
    EpcisDocumentInvalid,
)
from scan_api.provenance.event_json import ENVELOPE_BYTES_MAX, EVENT_BYTES_MAX
from scan_api.provenance.event_values import Fault, FaultCode


def document(listed: bytes, envelope: bytes = b"") -> bytes:
    return (
        b'{"@context":"%s","type":"EPCISDocument","schemaVersion":"2.0","creationDate":"2026-06-02T08:00:00Z",%s'
        b'"epcisBody":{"eventList":[%s]}}' % (STANDARD_CONTEXT.encode(), envelope, listed)
    )


def read_one(written: str) -> Any:
    [raw] = event_json.read(document(written.encode())).events
    assert isinstance(raw, Raw)
    return event_json.parsed(raw)


def test_an_event_is_kept_as_it_was_written() -> None:
    written = '{ "b": 0.1234567890123456789012345,\n\t"a": 12345678901234567890123, "c": "\\u6caa \\/ 沪" }'
    event, text = read_one(written)
    assert text == written
    assert event == {"b": 0.12345678901234568, "a": 12345678901234567890123, "c": "沪 / 沪"}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), _values, max_size=4), st.booleans(), st.sampled_from([None, 1]))
def test_what_the_standard_library_reads_reads_alike(
    event: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    written = json.dumps(event, ensure_ascii=ascii_only, indent=indent)
    try:
        written.encode()
    except UnicodeEncodeError:
        return
    told = event_json.parsed(Raw(written.encode()))
    assert told == (json.loads(written), written) or isinstance(told, Fault)
    if '"\\ud' not in written:
        assert not isinstance(told, Fault) or told.code is FaultCode.NUMBER_INVALID


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_reader(body: bytes) -> None:
    for tried in (body, document(body)):
        try:
            for raw in event_json.read(tried).events:
                assert isinstance(raw, Raw)
                event_json.parsed(raw)
        except EpcisDocumentInvalid:
            pass


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ('{"a":1,"a":1}', FaultCode.DUPLICATE),
        ('{"a":{"b":[{"c":"x","c":"y"}]}}', FaultCode.DUPLICATE),
        ('{"a":"\\"","a":"\\\\"}', FaultCode.DUPLICATE),
        ('{"a":1,"\\u0061":2}', FaultCode.DUPLICATE),
        ('{"a":1e999}', FaultCode.NUMBER_INVALID),
        ("[" * 500 + "]" * 500, None),
        ("[" * 5_000 + "]" * 5_000, FaultCode.TOO_DEEP),
        ('{"a":"\\\\\\"b\\"","c":"\\\\"}', None),
    ],
)
def test_what_is_wrong_with_an_events_json(written: str, code: FaultCode | None) -> None:
    told = event_json.parsed(Raw(written.encode()))
    assert (told.code if isinstance(told, Fault) else None) is code


def test_an_event_is_utf_8() -> None:
    told = event_json.parsed(Raw(b'{"a":"\xff"}'))
    assert isinstance(told, Fault)
    assert told.code is FaultCode.TEXT_INVALID


@pytest.mark.parametrize(("over", "refused"), [(-1, False), (0, False), (1, True)])
def test_an_event_has_a_size(over: int, refused: bool) -> None:
    told = event_json.parsed(Raw(b'{"a":1' + b" " * (EVENT_BYTES_MAX + over - 7) + b"}"))
    assert isinstance(told, Fault) is refused


def fault_of(body: bytes) -> DocumentFault | None:
    try:
        event_json.read(body)
    except EpcisDocumentInvalid as error:
        return error.fault
    return None


@pytest.mark.parametrize(("over", "fault"), [(-1, None), (0, None), (1, DocumentFault.TOO_LARGE)])
def test_an_envelope_has_a_size(over: int, fault: DocumentFault | None) -> None:
    listed = b" " * ENVELOPE_BYTES_MAX
    filling = b" " * (ENVELOPE_BYTES_MAX + over - len(document(b"")) + len(b"[]"))
    body = document(listed, filling)
    assert len(body) - len(listed) - len(b"[]") == ENVELOPE_BYTES_MAX + over
    assert fault_of(body) is fault


@pytest.mark.parametrize(("over", "fault"), [(-1, None), (0, None), (1, DocumentFault.TOO_MANY_EVENTS)])
def test_events_of_a_document_are_counted(over: int, fault: DocumentFault | None) -> None:
    assert fault_of(document(b",".join([b"{}"] * (EVENTS_PER_DOCUMENT_MAX + over)))) is fault


def test_a_single_event_and_an_answer_of_a_query_are_documents_too() -> None:
    single = event_json.read(b'{"@context":"%s","type":"ObjectEvent"}' % STANDARD_CONTEXT.encode())
    assert (single.kind, len(single.events), single.pointer(0)) == (DocumentKind.EVENT, 1, "")
    answer = (
        document(b"")
        .replace(b"EPCISDocument", b"EPCISQueryDocument")
        .replace(b'{"eventList":[]}', b'{"queryResults":{"queryName":"q","resultsBody":{"eventList":[{},{}]}}}')
    )
    assert len(event_json.read(answer).events) == 2
