"""EPCIS documents in XML: the same events as in JSON, and nothing that XML could do beside."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scan_api.provenance import documents, event_xml
from scan_api.provenance.documents import CONTEXT_ENTRIES_MAX, DocumentFault, DocumentKind, EpcisDocumentInvalid
from scan_api.provenance.event_hash import event_hash, prehash
from scan_api.provenance.event_rules import check
from scan_api.provenance.event_xml import ELEMENT_DEPTH_MAX, read

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:2" xmlns:gs1="https://gs1.org/voc/"
    xmlns:cbv="https://ref.gs1.org/cbv/" xmlns:cbvmda="urn:epcglobal:cbv:mda" xmlns:ext="https://ns.example.com/epcis/"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    schemaVersion="2.0" creationDate="2024-05-06T07:08:09.000Z">
<EPCISHeader>
  <sbdh:StandardBusinessDocumentHeader xmlns:sbdh="http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader">
    <sbdh:HeaderVersion>1.0</sbdh:HeaderVersion><EventList><ObjectEvent/></EventList>
  </sbdh:StandardBusinessDocumentHeader>
  <extension><EPCISMasterData><VocabularyList><Vocabulary type="urn:epcglobal:epcis:vtype:BusinessLocation">
    <VocabularyElementList><VocabularyElement id="urn:epc:id:sgln:4012345.00011.0">
      <attribute id="urn:epcglobal:cbv:mda#name">Warehouse</attribute>
      <attribute id="urn:epcglobal:cbv:mda#address"><ext:city>Köln</ext:city></attribute>
      <children><id>urn:epc:id:sgln:4012345.00011.1</id></children>
    </VocabularyElement></VocabularyElementList>
  </Vocabulary></VocabularyList></EPCISMasterData></extension>
</EPCISHeader>
<EPCISBody><EventList>"""
TAIL = "</EventList></EPCISBody></epcis:EPCISDocument>"

OBJECT = """<ObjectEvent>
  <!-- in the order of the schema -->
  <eventTime>2024-05-06T15:08:09.5+08:00</eventTime>
  <recordTime>2024-05-06T07:08:10Z</recordTime>
  <eventTimeZoneOffset>+08:00</eventTimeZoneOffset>
  <eventID>urn:uuid:11111111-2222-4333-8444-555555555555</eventID>
  <errorDeclaration>
    <declarationTime>2024-05-07T00:00:00Z</declarationTime>
    <reason>urn:epcglobal:cbv:er:incorrect_data</reason>
    <correctiveEventIDs><correctiveEventID>urn:uuid:2</correctiveEventID></correctiveEventIDs>
    <ext:by>me</ext:by>
  </errorDeclaration>
  <certificationInfo>https://a.example/1</certificationInfo>
  <certificationInfo>https://a.example/2</certificationInfo>
  <epcList><epc> urn:epc:id:sgtin:4012345.011111.1
  </epc><epc>https://id.gs1.org/01/04012345111118/21/2</epc></epcList>
  <action>ADD</action>
  <bizStep>cbv:BizStep-commissioning</bizStep>
  <disposition>urn:epcglobal:cbv:disp:active</disposition>
  <readPoint><id>urn:epc:id:sgln:4012345.00011.0</id><ext:gate>7</ext:gate></readPoint>
  <bizLocation><id>urn:epc:id:sgln:4012345.00011.0</id></bizLocation>
  <bizTransactionList>
    <bizTransaction type="urn:epcglobal:cbv:btt:po">urn:epcglobal:cbv:bt:4012345000009:1</bizTransaction>
    <bizTransaction>http://a.example/po/1</bizTransaction>
  </bizTransactionList>
  <quantityList><quantityElement>
    <epcClass>urn:epc:class:lgtin:4012345.011111.L1</epcClass><quantity>12.50</quantity><uom>KGM</uom>
  </quantityElement><quantityElement><epcClass>urn:epc:idpat:sgtin:4012345.011111.*</epcClass><quantity>3</quantity>
  </quantityElement></quantityList>
  <sourceList><source type="https://ref.gs1.org/cbv/SDT-owning_party">urn:epc:id:pgln:4012345.00000</source></sourceList>
  <destinationList><destination type="ext:depot">urn:epc:id:pgln:0614141.00000</destination></destinationList>
  <persistentDisposition><set>cbv:Disp-recalled</set><set>cbv:Disp-expired</set>
    <unset>urn:epcglobal:cbv:disp:damaged</unset></persistentDisposition>
  <sensorElementList><sensorElement>
    <sensorMetadata time="2024-05-06T07:00:00Z" deviceID="urn:epc:id:giai:4000001.111" ext:meta="m"/>
    <sensorReport type="gs1:Temperature" value="26.0" component="cbv:Comp-x" booleanValue="true" uom="CEL"/>
    <sensorReport type="ext:Own" exception="gs1:ALARM_CONDITION" stringValue="1.0" ext:cv="1"/>
    <ext:more><ext:a>1</ext:a></ext:more><ext:more>2</ext:more>
  </sensorElement></sensorElementList>
  <ilmd><cbvmda:lotNumber>L1</cbvmda:lotNumber><ext:w unit="KGM" xsi:type="ext:weight">3.50</ext:w></ilmd>
  <ext:note xml:lang="en">hello</ext:note>
  <ext:list><ext:item>1</ext:item><ext:item>2</ext:item><plain/></ext:list>
</ObjectEvent>"""

SAME_IN_JSON: dict[str, Any] = {
    "type": "ObjectEvent",
    "eventTime": "2024-05-06T15:08:09.5+08:00",
    "recordTime": "2024-05-06T07:08:10Z",
    "eventTimeZoneOffset": "+08:00",
    "eventID": "urn:uuid:11111111-2222-4333-8444-555555555555",
    "errorDeclaration": {
        "declarationTime": "2024-05-07T00:00:00Z",
        "reason": "incorrect_data",
        "correctiveEventIDs": ["urn:uuid:2"],
        "ext:by": "me",
    },
    "certificationInfo": ["https://a.example/1", "https://a.example/2"],
    "epcList": ["urn:epc:id:sgtin:4012345.011111.1", "https://id.gs1.org/01/04012345111118/21/2"],
    "action": "ADD",
    "bizStep": "commissioning",
    "disposition": "active",
    "readPoint": {"id": "urn:epc:id:sgln:4012345.00011.0", "ext:gate": "7"},
    "bizLocation": {"id": "urn:epc:id:sgln:4012345.00011.0"},
    "bizTransactionList": [
        {"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000009:1"},
        {"bizTransaction": "http://a.example/po/1"},
    ],
    "quantityList": [
        {"epcClass": "urn:epc:class:lgtin:4012345.011111.L1", "quantity": 12.5, "uom": "KGM"},
        {"epcClass": "urn:epc:idpat:sgtin:4012345.011111.*", "quantity": 3},
    ],
    "sourceList": [{"type": "owning_party", "source": "urn:epc:id:pgln:4012345.00000"}],
    "destinationList": [{"type": "ext:depot", "destination": "urn:epc:id:pgln:0614141.00000"}],
    "persistentDisposition": {"set": ["recalled", "expired"], "unset": ["damaged"]},
    "sensorElementList": [
        {
            "sensorMetadata": {
                "time": "2024-05-06T07:00:00Z",
                "deviceID": "urn:epc:id:giai:4000001.111",
                "ext:meta": "m",
            },
            "sensorReport": [
                {"type": "Temperature", "value": 26.0, "component": "x", "booleanValue": True, "uom": "CEL"},
                {"type": "ext:Own", "exception": "ALARM_CONDITION", "stringValue": "1.0", "ext:cv": "1"},
            ],
            "ext:more": [{"ext:a": "1"}, "2"],
        }
    ],
    "ilmd": {"cbvmda:lotNumber": "L1", "ext:w": {"unit": "KGM", "#text": "3.50"}},
    "ext:note": {"xml:lang": "en", "#text": "hello"},
    "ext:list": {"ext:item": ["1", "2"], "plain": ""},
}

JSON_CONTEXT = documents.read(
    {
        "@context": [
            "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld",
            {"ext": "https://ns.example.com/epcis/", "xml": "http://www.w3.org/XML/1998/namespace"},
        ],
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2024-05-06T07:08:09Z",
        "epcisBody": {"eventList": []},
    }
).context


def xml(*events: str) -> bytes:
    return (HEAD + "".join(events) + TAIL).encode()


def test_an_event_in_xml_is_the_event_in_json() -> None:
    found = read(xml(OBJECT))
    assert found.kind is DocumentKind.DOCUMENT
    assert found.created_at == "2024-05-06T07:08:09.000Z"
    assert list(found.located()) == [("/epcisBody/eventList/0", SAME_IN_JSON)]
    assert check(found.events[0], found.context) == []
    assert check(SAME_IN_JSON, JSON_CONTEXT) == []


def test_an_event_hashes_alike_in_xml_and_json() -> None:
    found = read(xml(OBJECT))
    assert prehash(found.events[0], found.context) == prehash(SAME_IN_JSON, JSON_CONTEXT)
    assert event_hash(found.events[0], found.context) == event_hash(SAME_IN_JSON, JSON_CONTEXT)


def test_master_data_is_kept() -> None:
    assert read(xml(OBJECT)).header == {
        "epcisMasterData": {
            "vocabularyList": [
                {
                    "type": "urn:epcglobal:epcis:vtype:BusinessLocation",
                    "vocabularyElementList": [
                        {
                            "id": "urn:epc:id:sgln:4012345.00011.0",
                            "attributes": [
                                {"id": "urn:epcglobal:cbv:mda#name", "attribute": "Warehouse"},
                                {
                                    "id": "urn:epcglobal:cbv:mda#address",
                                    "attribute": {"id": "urn:epcglobal:cbv:mda#address", "ext:city": "Köln"},
                                },
                            ],
                            "children": ["urn:epc:id:sgln:4012345.00011.1"],
                        }
                    ],
                }
            ]
        }
    }


OLD = """<epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:1" schemaVersion="1.2">
<EPCISBody><EventList>
<AggregationEvent><eventTime>2024-05-06T07:08:09Z</eventTime><eventTimeZoneOffset>+00:00</eventTimeZoneOffset>
  <baseExtension><eventID>urn:uuid:1</eventID><errorDeclaration><declarationTime>2024-05-07T00:00:00Z</declarationTime>
  </errorDeclaration></baseExtension>
  <parentID>urn:epc:id:sscc:4012345.0000000111</parentID><childEPCs/><action>DELETE</action>
  <extension><childQuantityList><quantityElement><epcClass>urn:epc:class:lgtin:4012345.011111.L1</epcClass>
  <quantity>7</quantity></quantityElement></childQuantityList>
  <extension><sensorElementList><sensorElement><sensorReport type="gs1:Count" value="1"/></sensorElement>
  </sensorElementList></extension></extension></AggregationEvent>
<extension><TransformationEvent><eventTime>2024-05-06T07:08:09Z</eventTime>
  <eventTimeZoneOffset>+00:00</eventTimeZoneOffset>
  <inputEPCList><epc>urn:x:1</epc></inputEPCList><outputEPCList><epc>urn:x:2</epc></outputEPCList>
  </TransformationEvent></extension>
<extension><extension><AssociationEvent><eventTime>2024-05-06T07:08:09Z</eventTime>
  <eventTimeZoneOffset>+00:00</eventTimeZoneOffset><parentID>urn:x:1</parentID><childEPCs><epc>urn:x:2</epc></childEPCs>
  <action>ADD</action></AssociationEvent></extension></extension>
</EventList></EPCISBody></epcis:EPCISDocument>"""


def test_the_wrappers_of_1_2_are_taken_off() -> None:
    found = read(OLD.encode())
    assert [event["type"] for event in found.events] == ["AggregationEvent", "TransformationEvent", "AssociationEvent"]
    assert [check(event, found.context) for event in found.events] == [[], [], []]
    assert found.events[0]["childQuantityList"] == [
        {"epcClass": "urn:epc:class:lgtin:4012345.011111.L1", "quantity": 7}
    ]
    assert found.events[0]["eventID"] == "urn:uuid:1"
    assert found.events[0]["sensorElementList"] == [{"sensorReport": [{"type": "Count", "value": 1}]}]


def test_ignored_fields_of_a_query_document_are_left_out_of_the_hash() -> None:
    # The reference generator's example (its pull request 114), with the pre-hash string that it publishes.
    body = """<epcisq:EPCISQueryDocument xmlns:epcisq="urn:epcglobal:epcis-query:xsd:2" schemaVersion="2.0"
      xmlns:repository-x="https://repository-x.example.com/" xmlns:example="https://ns.example.com/epcis/">
      <repository-x:ignoreFields><example:testField1/><example:testField2/></repository-x:ignoreFields>
      <queryName>SimpleEventQuery</queryName><resultsBody><EventList><ObjectEvent>
        <eventTime>2024-06-08T10:58:56.591+02:00</eventTime><recordTime>2024-06-08T15:38:32.052+02:00</recordTime>
        <eventTimeZoneOffset>+02:00</eventTimeZoneOffset><epcList/><action>ADD</action>
        <bizStep>urn:epcglobal:cbv:bizstep:commissioning</bizStep>
        <readPoint><id>urn:epc:id:sgln:4054738.00005.0</id></readPoint>
        <extension><quantityList><quantityElement><epcClass>urn:epc:class:lgtin:4054739.099961.2015-03-30a</epcClass>
          <quantity>150</quantity><uom>KGM</uom></quantityElement></quantityList></extension>
        <example:testField1>123</example:testField1><example:testField4>ABC</example:testField4>
      </ObjectEvent></EventList></resultsBody></epcisq:EPCISQueryDocument>"""
    found = read(body.encode())
    assert found.kind is DocumentKind.QUERY_DOCUMENT
    assert prehash(found.events[0], found.context) == (
        "eventType=ObjectEventeventTime=2024-06-08T08:58:56.591ZeventTimeZoneOffset=+02:00quantityListquantityElement"
        "epcClass=https://id.gs1.org/01/04054739999612/10/2015-03-30aquantity=150uom=KGMaction=ADD"
        "bizStep=https://ref.gs1.org/cbv/BizStep-commissioningreadPointid=https://id.gs1.org/414/4054738000050"
        "{https://ns.example.com/epcis/}testField4=ABC"
    )


def test_a_prefix_with_two_meanings_gets_two_names() -> None:
    event = (
        '<ObjectEvent><a:x xmlns:a="https://one.example/">1</a:x><a:x xmlns:a="https://two.example/">2</a:x>'
        '<x xmlns="https://three.example/">3</x></ObjectEvent>'
    )
    found = read(xml(event))
    assert found.events[0] == {"type": "ObjectEvent", "a:x": "1", "a2:x": "2", "ns:x": "3"}
    assert prehash(found.events[0], found.context).endswith(
        "{https://one.example/}x=1{https://three.example/}x=3{https://two.example/}x=2"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_encodings_that_expat_knows_are_read(encoding: str) -> None:
    body = HEAD.replace("UTF-8", encoding) + "<ObjectEvent><ext:x>Köln</ext:x></ObjectEvent>" + TAIL
    assert read(body.encode(encoding)).events[0]["ext:x"] == "Köln"


DOCTYPE = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
REFUSED: list[tuple[bytes, DocumentFault]] = [
    (b"", DocumentFault.XML_MALFORMED),
    (b"{}", DocumentFault.XML_MALFORMED),
    (xml(OBJECT)[:-20], DocumentFault.XML_MALFORMED),
    (xml("<ObjectEvent>&nbsp;</ObjectEvent>"), DocumentFault.XML_MALFORMED),
    (xml("<ObjectEvent><other:x/></ObjectEvent>"), DocumentFault.XML_MALFORMED),
    (b'<?xml version="1.0" encoding="gbk"?><x/>', DocumentFault.XML_MALFORMED),
    (b'<?xml version="1.0" encoding="no-such"?><x/>', DocumentFault.XML_MALFORMED),
    (DOCTYPE.encode() + OLD.encode(), DocumentFault.XML_FORBIDDEN),
    (b'<!DOCTYPE x SYSTEM "https://evil.example/x.dtd"><x/>', DocumentFault.XML_FORBIDDEN),
    (b"<html/>", DocumentFault.KIND_UNKNOWN),
    (b'<EPCISDocument xmlns="urn:other" schemaVersion="2.0"/>', DocumentFault.KIND_UNKNOWN),
    (b"<EPCISDocument/>", DocumentFault.VERSION_UNSUPPORTED),
    (b'<EPCISDocument schemaVersion="3.0"/>', DocumentFault.VERSION_UNSUPPORTED),
    (b'<EPCISDocument schemaVersion="2.0" creationDate="now"/>', DocumentFault.CREATION_DATE_INVALID),
    (b'<EPCISDocument schemaVersion="2.0"><EPCISBody/></EPCISDocument>', DocumentFault.EVENTS_MISSING),
]


@pytest.mark.parametrize(("body", "fault"), REFUSED, ids=[f"{at}-{row[1]}" for at, row in enumerate(REFUSED)])
def test_other_documents_are_refused_by_name(body: bytes, fault: DocumentFault) -> None:
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(body)
    assert refusal.value.fault is fault


def test_elements_nest_to_the_limit_and_no_deeper() -> None:
    around = 4  # the document, its body, the list and the event
    inner = ELEMENT_DEPTH_MAX - around
    assert read(xml(f"<ObjectEvent>{'<ext:x>' * inner}{'</ext:x>' * inner}</ObjectEvent>")).events
    inner += 1
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(xml(f"<ObjectEvent>{'<ext:x>' * inner}{'</ext:x>' * inner}</ObjectEvent>"))
    assert refusal.value.fault is DocumentFault.XML_TOO_DEEP


def test_namespaces_are_taken_to_the_limit_and_no_more() -> None:
    declared = 4  # gs1, cbv, cbvmda and ext; that of the business header is the fifth

    def events(number: int) -> bytes:
        return xml("<ObjectEvent>" + "".join(f'<a:x xmlns:a="urn:{at}"/>' for at in range(number)) + "</ObjectEvent>")

    assert read(events(CONTEXT_ENTRIES_MAX - declared - 1)).events
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(events(CONTEXT_ENTRIES_MAX - declared))
    assert refusal.value.fault is DocumentFault.CONTEXT_INVALID


def test_a_document_has_so_many_events_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_xml, "EVENTS_PER_DOCUMENT_MAX", 2)
    assert len(read(xml("<ObjectEvent/>", "<ObjectEvent/>")).events) == 2
    with pytest.raises(EpcisDocumentInvalid) as refusal:
        read(xml("<ObjectEvent/>", "<ObjectEvent/>", "<ObjectEvent/>"))
    assert refusal.value.fault is DocumentFault.TOO_MANY_EVENTS


@settings(max_examples=50)
@given(st.integers(0, len(xml(OBJECT))), st.integers(0, 40), st.binary(max_size=12))
def test_broken_xml_is_read_or_refused_by_name(start: int, length: int, patch: bytes) -> None:
    body = xml(OBJECT)
    with contextlib.suppress(EpcisDocumentInvalid):
        found = read(body[:start] + patch + body[start + length :])
        for event in found.events:
            if not check(event, found.context):
                event_hash(event, found.context)
