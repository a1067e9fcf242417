"""The envelopes of EPCIS documents, and what names mean in them."""

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scan_api.provenance import documents
from scan_api.provenance.documents import (
    CONTEXT_ENTRIES_MAX,
    EVENTS_PER_DOCUMENT_MAX,
    STANDARD,
    DocumentFault,
    DocumentKind,
    EpcisDocumentInvalid,
    is_moment,
    is_uri,
    read,
)

STANDARD_CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
EVENT: dict[str, Any] = {"type": "ObjectEvent", "@context": STANDARD_CONTEXT}


def document(**more: object) -> dict[str, Any]:
    return {
        "@context": [STANDARD_CONTEXT, {"example": "https://ns.example.com/epcis/"}],
        "id": "https://id.example.org/document1",
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2024-05-06T07:08:09.000+08:00",
        "epcisBody": {"eventList": [{"type": "ObjectEvent"}, 7]},
        **more,
    }


def query_document(**more: object) -> dict[str, Any]:
    results = {"queryName": "SimpleEventQuery", "resultsBody": {"eventList": [{}]}, **more}
    return {"@context": STANDARD_CONTEXT, "type": "EPCISQueryDocument", "epcisBody": {"queryResults": results}}


def test_a_documents_events_are_those_that_were_read() -> None:
    body = document(epcisHeader={"epcisMasterData": {"vocabularyList": []}}, sender="urn:x:1")
    before = copy.deepcopy(body)
    found = read(body)
    assert found.kind is DocumentKind.DOCUMENT
    assert found.events is body["epcisBody"]["eventList"]
    assert [pointer for pointer, _ in found.located()] == ["/epcisBody/eventList/0", "/epcisBody/eventList/1"]
    assert found.created_at == body["creationDate"]
    assert found.header is body["epcisHeader"]
    assert body == before


def test_a_query_documents_events_are_found() -> None:
    found = read(query_document())
    assert found.kind is DocumentKind.QUERY_DOCUMENT
    assert [pointer for pointer, _ in found.located()] == ["/epcisBody/queryResults/resultsBody/eventList/0"]


def test_an_event_is_a_document_of_its_own() -> None:
    found = read(EVENT)
    assert found.kind is DocumentKind.EVENT
    assert list(found.located()) == [("", EVENT)]


INVALID: list[tuple[object, DocumentFault, str]] = [
    ([], DocumentFault.NOT_AN_OBJECT, ""),
    ({}, DocumentFault.KIND_UNKNOWN, "/type"),
    ({"type": ["EPCISDocument"]}, DocumentFault.KIND_UNKNOWN, "/type"),
    ({"type": "QuantityEvent"}, DocumentFault.KIND_UNKNOWN, "/type"),
    ({"type": "ObjectEvent"}, DocumentFault.CONTEXT_MISSING, "/@context"),
    (document(schemaVersion="1.2"), DocumentFault.VERSION_UNSUPPORTED, "/schemaVersion"),
    (document(schemaVersion=2.0), DocumentFault.VERSION_UNSUPPORTED, "/schemaVersion"),
    (document(schemaVersion="2.01"), DocumentFault.VERSION_UNSUPPORTED, "/schemaVersion"),
    (document(creationDate=None), DocumentFault.CREATION_DATE_INVALID, "/creationDate"),
    (document(creationDate="2024-05-06"), DocumentFault.CREATION_DATE_INVALID, "/creationDate"),
    (document(epcisHeader=[]), DocumentFault.HEADER_INVALID, "/epcisHeader"),
    (document(epcisBody=None), DocumentFault.EVENTS_MISSING, "/epcisBody"),
    (document(epcisBody={"eventList": {}}), DocumentFault.EVENTS_MISSING, "/epcisBody/eventList"),
    (document(format="application/ld+json"), DocumentFault.FIELD_UNKNOWN, "/format"),
    (document(**{"@context": 7}), DocumentFault.CONTEXT_INVALID, "/@context"),
    (document(**{"@context": [[STANDARD_CONTEXT]]}), DocumentFault.CONTEXT_INVALID, "/@context"),
    (query_document(queryName=None), DocumentFault.EVENTS_MISSING, "/epcisBody/queryResults/queryName"),
    (query_document(resultsBody=[]), DocumentFault.EVENTS_MISSING, "/epcisBody/queryResults/resultsBody"),
    ({**query_document(), "schemaVersion": "1.2"}, DocumentFault.VERSION_UNSUPPORTED, "/schemaVersion"),
    ({**query_document(), "creationDate": "now"}, DocumentFault.CREATION_DATE_INVALID, "/creationDate"),
]


@pytest.mark.parametrize(
    ("body", "fault", "pointer"), INVALID, ids=[f"{at}-{pointer}" for at, (_, _, pointer) in enumerate(INVALID)]
)
def test_a_bad_envelope_is_refused_with_its_place(body: object, fault: DocumentFault, pointer: str) -> None:
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(body)
    assert (refusal.value.fault, refusal.value.pointer) == (fault, pointer)


@pytest.mark.parametrize("version", ["2.0", "2.0.0", "2.0.1"])
def test_version_2_0_is_read_with_any_revision(version: str) -> None:
    assert read(document(schemaVersion=version)).context.prefixes["example"] == "https://ns.example.com/epcis/"


def test_a_document_has_so_many_events_and_no_more() -> None:
    events: list[object] = [{}] * EVENTS_PER_DOCUMENT_MAX
    assert len(read(document(epcisBody={"eventList": events})).events) == EVENTS_PER_DOCUMENT_MAX
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(document(epcisBody={"eventList": [*events, {}]}))
    assert refusal.value.fault is DocumentFault.TOO_MANY_EVENTS


def test_a_context_declares_so_many_names_and_no_more() -> None:
    names = {f"p{number}": "https://a.example/" for number in range(CONTEXT_ENTRIES_MAX)}
    assert "p0" in read(document(**{"@context": names})).context.prefixes
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(document(**{"@context": [names, STANDARD_CONTEXT]}))
    assert refusal.value.fault is DocumentFault.CONTEXT_INVALID


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("example:a", "{https://ns.example.com/epcis/}a"),
        ("mine:a", "{https://ns.example.com/epcis/mine/}a"),
        ("colour", "{https://ns.example.com/epcis/}colour"),
        ("example:size", "{https://other.example/ns#}size"),
        ("cbvmda:lotNumber", "{urn:epcglobal:cbv:mda}lotNumber"),
        ("https://other.example/ns#a", "{https://other.example/ns#}a"),
        ("urn:example:a", "{urn:example:}a"),
        ("nobody:a", None),
        ("bare", None),
        ("example:", None),
        ("https://with space/a", None),
        ("typed", None),
    ],
)
def test_a_name_means_what_its_context_says(name: str, full: str | None) -> None:
    declared = {
        "@version": 1.1,
        "example": "https://ns.example.com/epcis/",
        "mine": "example:mine/",
        "colour": {"@id": "example:colour", "@type": "@id"},
        "example:size": {"@id": "https://other.example/ns#size"},
        "typed": {"@type": "xsd:integer"},
        "nothing": None,
    }
    context = read(document(**{"@context": [STANDARD_CONTEXT, declared]})).context
    assert context.expanded(name) == full
    assert context.expanded(name) == full
    assert not context.is_open


CHAIN = {"a": "b:one/", "b": "c:two/", "c": {"@id": "https://c.example/"}, "a:word": "b:word", "other": "a:x"}


@given(st.permutations(list(CHAIN)))
def test_the_order_within_one_context_says_nothing(names: list[str]) -> None:
    context = read(document(**{"@context": {name: CHAIN[name] for name in names}})).context
    told = {name: context.expanded(name) for name in ("a:x", "b:x", "c:x", "a:word", "other")}
    assert told == {
        "a:x": "{https://c.example/two/one/}x",
        "b:x": "{https://c.example/two/}x",
        "c:x": "{https://c.example/}x",
        "a:word": "{https://c.example/two/}word",
        "other": "{https://c.example/two/one/}x",
    }


def test_of_several_contexts_each_builds_on_those_before_it() -> None:
    def expanded(*declared: object) -> str | None:
        return read(document(**{"@context": list(declared)})).context.expanded("a:x")

    first, second = {"b": "https://one.example/"}, {"b": "https://two.example/"}
    assert expanded(first, {"a": "b:"}, second) == "{https://one.example/}x"
    assert expanded(first, second, {"a": "b:"}) == "{https://two.example/}x"
    assert expanded(first, {"a": "b:", "b": "https://two.example/"}) == "{https://two.example/}x"
    assert expanded({"a": "b:y"}, second) == "{b:y}x"  # a URI by itself, as nobody had declared b by then


@pytest.mark.parametrize(
    "circle",
    [
        {"a": "a:x"},
        {"a": {"@id": "a:"}},
        {"a": "b:x", "b": "a:x"},
        {"b": "a:x", "a": "b:x"},
        {"x": "a:", "a": "b:x", "b": "c:x", "c": "a:x"},
    ],
    ids=range(5),
)
def test_prefixes_that_define_each_other_are_refused(circle: dict[str, object]) -> None:
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(document(**{"@context": [{"a": "https://a.example/"}, circle]}))
    assert (refusal.value.fault, refusal.value.pointer) == (DocumentFault.CONTEXT_INVALID, "/@context")
    assert "is defined by itself" in refusal.value.message
    context = read(document()).context
    with pytest.raises(EpcisDocumentInvalid):
        context.of_event({"@context": circle})


def test_a_chain_of_prefixes_is_as_long_as_a_context_may_be() -> None:
    chain = {f"p{number}": f"p{number + 1}:" for number in range(CONTEXT_ENTRIES_MAX - 1)}
    whole = chain | {f"p{CONTEXT_ENTRIES_MAX - 1}": "https://a.example/"}
    assert read(document(**{"@context": whole})).context.expanded("p0:x") == "{https://a.example/}x"


def test_an_event_adds_to_its_documents_context() -> None:
    context = read(document()).context
    own = context.of_event({"@context": [{"own": "https://own.example/"}]})
    assert own.expanded("own:a") == "{https://own.example/}a"
    assert own.expanded("example:a") == "{https://ns.example.com/epcis/}a"
    assert context.expanded("own:a") is None
    assert context.of_event({"@context": [{"own": "https://own.example/"}]}) is own
    assert context.of_event({}) is context


def test_what_is_kept_ready_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "NAMES_KEPT_MAX", 1)
    monkeypatch.setattr(documents, "CONTEXTS_KEPT_MAX", 1)
    context = read(document()).context
    for name in ("a", "b", "c"):
        assert context.expanded(f"example:{name}") == f"{{https://ns.example.com/epcis/}}{name}"
        assert context.of_event({"@context": {name: "https://x.example/"}}).expanded(f"{name}:x") is not None
    assert (len(context.names), len(context.events)) == (1, 1)


def test_a_context_from_elsewhere_leaves_names_open() -> None:
    context = read(document(**{"@context": [STANDARD_CONTEXT, "https://elsewhere.example/context.jsonld"]})).context
    assert context.is_open
    assert context.expanded("nobody:a") == "nobody:a"
    assert context.expanded("bare") is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("urn:epc:id:sgtin:0614141.812345.6789%2F%26%25%22!%3F()", True),
        ("geo:50.95,6.92", True),
        ("example:x", True),
        ("https://ns.example.com/产品", True),
        ("x", False),
        (":x", False),
        ("x:", False),
        ("9x:y", False),
        ("a:b c", False),
        ("a:b\u3000c", False),
        ("a:b\n", False),
        ("a:<b>", False),
        ("a:\ud800", False),
    ],
)
def test_uris_are_told_from_other_texts(text: str, valid: bool) -> None:
    assert (is_uri(text) is not None) == valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("1970-01-01T00:00:00Z", True),
        ("2199-12-31T23:59:59.999999999999+14:00", True),
        ("1969-12-31T23:59:59Z", False),
        ("2200-01-01T00:00:00Z", False),
        ("2024-05-06T07:08:60Z", False),
        ("2024-05-06T24:00:00Z", False),
        ("2024-05-06T07:08:09", False),
        ("2024-05-06T07:08:09+24:00", False),
        ("2024-05-06T07:08:09.1234567890123Z", False),
    ],
)
def test_moments_are_told_from_other_texts(text: str, valid: bool) -> None:
    assert is_moment(text) == valid


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.sampled_from([document(), query_document(), EVENT]), st.data())
def test_a_broken_document_is_read_or_refused_by_name(body: dict[str, Any], data: st.DataObject) -> None:
    body = copy.deepcopy(body)
    place = body
    while data.draw(st.booleans()):
        inner = [value for value in place.values() if isinstance(value, dict)]
        if not inner:
            break
        place = inner[0]
    place[data.draw(st.sampled_from(sorted(place)) | st.text(max_size=8))] = data.draw(json_values)
    with contextlib.suppress(EpcisDocumentInvalid):
        found = read(body)
        assert len(found.events) == len(list(found.located()))


def test_the_standard_context_is_left_alone() -> None:
    assert STANDARD.prefixes["gs1"] == "https://gs1.org/voc/"
    with pytest.raises(TypeError):
        STANDARD.prefixes["gs1"] = "x"  # type: ignore[index]
