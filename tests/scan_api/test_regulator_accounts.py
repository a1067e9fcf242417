"""Regulators over real HTTP: what an account reaches, the record of its looks, recall orders, statistics, exports."""

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from codes.catalogue import brand_named
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.regulators import accounts, partners
from tests.scan_api.event_sender import capture, events_in, seen, serial
from tests.stand import BRAND, GTIN, OTHER_BRAND, OTHER_GTIN, Stand, wait_until

# What SQL differs in is tested beside the modules; a server of one kind is enough here.
pytestmark = pytest.mark.parametrize("stand_kind", ["postgresql"])
SSCC = "urn:epc:id:sscc:9506000.0000000001"
REGION, ELSEWHERE = "6101", "31"


def _bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def _regulator(stand: Stand, *regions: str, categories: tuple[str, ...] = ()) -> dict[str, str]:
    """The headers of a new account. The stand's brand is seated in Xi'an from then on."""

    async def make(session: Any) -> str:
        now = datetime.now(UTC)
        account = await accounts.create(session, f"Bureau {uuid.uuid4()}", regions, categories, now)
        _made, text = await accounts.create_key(session, account.account_id, "desk", now)
        return text

    text: str = stand.run(make)
    seats = {"regions": [REGION]}
    assert stand.http.put(f"/v1/brand/{BRAND}/seats", json=seats, headers=stand.key("brand")).status_code == 200
    return _bearer(text)


def _once(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "Idempotency-Key": str(uuid.uuid4())}


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _item(stand: Stand, headers: dict[str, str], gtin: str = GTIN, **more: str) -> httpx2.Response:
    order = stand.order("on sale" if gtin == GTIN else "other brand")
    return stand.http.get(f"/v1/regulator/items/{gtin}/{order.items[7].serial}", headers={**headers, **more})


def test_an_account_reaches_its_region_and_category_and_nothing_else(stand: Stand) -> None:
    here, there = _regulator(stand, REGION), _regulator(stand, ELSEWHERE)
    told = stand.http.get("/v1/regulator/me", headers=here).json()
    assert (told["regions"], told["brands"]) == ([REGION], [BRAND])
    assert _item(stand, here).status_code == 200
    assert _code(_item(stand, there)) == (404, "ItemUnknown")
    assert _code(_item(stand, here, OTHER_GTIN)) == (404, "ItemUnknown")
    path = f"/v1/brand/{BRAND}/products/{GTIN}/categories"
    toys = _regulator(stand, REGION, categories=("own:toys",))
    assert _code(_item(stand, toys)) == (404, "ItemUnknown")
    told = stand.http.put(path, json={"categories": ["own:toys/ice"]}, headers=stand.key("brand")).json()
    assert told == stand.http.get(path, headers=stand.key("brand")).json() == {"categories": ["own:toys/ice"]}
    assert _item(stand, toys).status_code == 200


def test_every_look_is_recorded_for_its_regulator_and_the_groups_auditor(stand: Stand) -> None:
    here = _regulator(stand, REGION)
    purpose = {"Fanxing-Purpose": "%E6%A1%88 17"}
    assert _item(stand, here, **purpose).status_code == 200
    assert _item(stand, here, OTHER_GTIN).status_code == 404
    refused, answered = stand.http.get("/v1/regulator/accesses", headers=here).json()["data"]
    assert (refused["outcome"], refused["told"], refused["purpose"]) == ("ItemUnknown", 0, None)
    assert (answered["operation"], answered["outcome"], answered["told"]) == ("item", "answered", 1)
    assert (answered["subject"].split("/")[0], answered["purpose"]) == (GTIN, "案 17")
    assert _code(_item(stand, here, **{"Fanxing-Purpose": "%FF"})) == (400, "PurposeInvalid")

    async def auditor(session: Any) -> str:
        brand_id = (await brand_named(session, BRAND)).brand_id
        _key, text = await api_keys.create(session, Role.AUDITOR, "auditor", datetime.now(UTC), brand_id=brand_id)
        return text

    path = f"/v1/regulator/audit?brand={BRAND}"
    looks = stand.http.get(path, headers=_bearer(stand.run(auditor))).json()["data"]
    assert answered in looks
    assert refused["access_id"] not in {look["access_id"] for look in looks}
    assert _code(stand.http.get(path, headers=stand.key("brand"))) == (403, "OutOfScope")


def _told(answer: httpx2.Response) -> tuple[int, Any]:
    """An answer without the moment at which it was made."""
    body = answer.json()
    body.pop("creationDate", None)
    if isinstance(body.get("epcis"), dict):
        body["epcis"].pop("creationDate")
    return answer.status_code, body


def test_a_brand_that_is_not_seen_is_answered_for_as_one_that_there_is_not(stand: Stand) -> None:
    async def make(session: Any) -> tuple[str, str]:
        now, brand_id = datetime.now(UTC), (await brand_named(session, BRAND)).brand_id
        _key, auditor = await api_keys.create(session, Role.AUDITOR, "auditor", now, brand_id=brand_id)
        account = await partners.create(session, "Fast Freight", [f"https://{uuid.uuid4()}.example"], now)
        return auditor, (await partners.create_key(session, account.partner_id, "depot", now))[1]

    auditor, partner = map(_bearer, stand.run(make))
    regulator, deadline = _regulator(stand, ELSEWHERE), (datetime.now(UTC) + timedelta(days=2)).isoformat()
    item = f"https://id.gs1.org/01/{GTIN}/21/{stand.take_item().serial}"
    recall = {"kind": "container", "subject": SSCC, "reason": "Glass.", "deadline": deadline}
    for told in (
        lambda slug: stand.http.get(f"/v1/regulator/events?brand={slug}", headers=regulator),
        lambda slug: stand.http.get(f"/v1/regulator/trace/{quote(SSCC, safe='')}?brand={slug}", headers=regulator),
        lambda slug: stand.http.get(f"/v1/regulator/trace/{quote(item, safe='')}?brand={slug}", headers=regulator),
        lambda slug: stand.http.post(
            "/v1/regulator/recall-orders", json={**recall, "brand": slug}, headers=_once(regulator)
        ),
        lambda slug: stand.http.get(f"/v1/partner/events?brand={slug}&eventType=ObjectEvent", headers=partner),
        lambda slug: stand.http.get(f"/v1/regulator/audit?brand={slug}", headers=auditor),
        *(
            partial(_of_brand, stand, path, headers)
            for path in ("seats", f"products/{GTIN}/categories", "partner-shares", "recall-orders")
            for headers in (regulator, partner, auditor)
        ),
    ):
        assert _told(told(OTHER_BRAND)) == _told(told("nobody-there"))
    looks = stand.http.get("/v1/regulator/accesses", headers=regulator).json()["data"]
    assert [look["outcome"] for look in looks] == ["OutsideScope"] * 2 + ["answered"] * 4 + ["BrandUnknown"] * 2
    assert {look["told"] for look in looks} == {0}


def _of_brand(stand: Stand, path: str, headers: dict[str, str], slug: str) -> httpx2.Response:
    return stand.http.get(f"/v1/brand/{slug}/{path}", headers=headers)


def test_events_of_all_brands_that_are_reached(stand: Stand) -> None:
    number, place = serial(), f"https://id.gs1.org/414/9506000134376/254/{serial()}"
    capture(stand, seen(number, readPoint={"id": place}))
    asked = {"EQ_readPoint": place}
    for headers, count in ((_regulator(stand, REGION), 1), (_regulator(stand, ELSEWHERE), 0), (_regulator(stand), 1)):
        answer = stand.http.get("/v1/regulator/events", params=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]) == count
    headers = _regulator(stand, ELSEWHERE)
    told = {"places": [{"place": place, "region": "310101"}]}
    assert stand.http.put(f"/v1/brand/{BRAND}/places", json=told, headers=stand.key("brand")).status_code == 200
    answer = stand.http.get("/v1/regulator/events", params=asked, headers=headers)
    assert len(answer.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]) == 1
    for wrong in ({"brand": "nobody"}, {"EQ_colour": "red"}):
        assert stand.http.get("/v1/regulator/events", params=wrong, headers=headers).status_code in (400, 404)


def test_pages_of_events_of_many_brands_lead_on(stand: Stand) -> None:
    place = f"https://id.gs1.org/414/9506000134376/254/{serial()}"
    own = [serial() for _ in range(5)]
    capture(stand, *(seen(one, at=f"2026-06-01T08:00:0{at}Z", readPoint={"id": place}) for at, one in enumerate(own)))
    headers = _regulator(stand)
    found: list[str] = []
    path = f"/v1/regulator/events?EQ_readPoint={place}&perPage=2"
    while path:
        answer = stand.http.get(path, headers=headers)
        events = answer.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]
        found += [event["epcList"][0][-14:] for event in events]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert [one[-len(own[0]) :] for one in found] == own[::-1]


def test_a_recall_order_is_given_carried_out_and_reported(stand: Stand) -> None:
    headers, brand = _regulator(stand, REGION), stand.key("brand")
    deadline = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    asked = {"kind": "lot", "subject": f"{GTIN}/L{serial()[-8:]}", "reason": "Glass.", "deadline": deadline}
    once = _once(headers)
    given = stand.http.post("/v1/regulator/recall-orders", json=asked, headers=once)
    assert given.status_code == 201, given.text
    assert stand.http.post("/v1/regulator/recall-orders", json=asked, headers=once).json() == given.json()
    own = f"/v1/regulator/recall-orders/{given.json()['recall_id']}"
    path = f"/v1/brand/{BRAND}/recall-orders/{given.json()['recall_id']}"
    assert stand.http.get(path, headers=brand).json() == stand.http.get(own, headers=headers).json() == given.json()
    assert given.json() in stand.http.get(f"/v1/brand/{BRAND}/recall-orders", headers=brand).json()["data"]
    for _ in range(2):
        assert stand.http.post(f"{path}/acknowledge", headers=brand).json()["state"] == "acknowledged"
    for _ in range(2):
        assert stand.http.post(f"{path}/execute", json={}, headers=brand).json()["state"] == "executed"
    assert _code(stand.http.post(f"{own}/withdraw", headers=headers)) == (409, "RecallOrderForbids")
    done = stand.http.post(f"{path}/report", json={"text": "All came back.", "found": 3}, headers=brand).json()
    assert [step["step"] for step in done["steps"]] == ["ordered", "acknowledged", "executed", "reported"]
    assert done["steps"][2]["detail"] == {"already_done": False, "items": 0, "marks": 1}
    assert done["steps"][3]["detail"] == {"text": "All came back.", "found": 3}
    assert stand.http.get(own, headers=_regulator(stand)).status_code == 404
    assert stand.http.get(f"/v1/brand/{OTHER_BRAND}/recall-orders", headers=brand).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"subject": f"{OTHER_GTIN}/L1"}, 404, "RecallSubjectUnknown"),
        ({"subject": "09506000999999/L1"}, 404, "RecallSubjectUnknown"),
        ({"subject": "x"}, 400, "RecallOrderInvalid"),
        ({"kind": "container", "subject": SSCC}, 400, "RecallOrderInvalid"),
        ({"kind": "container", "subject": SSCC, "brand": OTHER_BRAND}, 403, "OutsideScope"),
        ({"deadline": "2020-01-01T00:00:00Z"}, 400, "RecallOrderInvalid"),
        ({"reason": "\u0000"}, 400, "RecallOrderInvalid"),
        ({"more": 1}, 400, "RequestInvalid"),
    ],
    ids=["brand", "product", "subject", "whose", "container", "deadline", "reason", "field"],
)
def test_recall_orders_that_are_refused(stand: Stand, changes: dict[str, Any], status: int, code: str) -> None:
    deadline = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    asked = {"kind": "lot", "subject": f"{GTIN}/L1", "reason": "Glass.", "deadline": deadline, **changes}
    headers = _regulator(stand, REGION)
    answer = stand.http.post("/v1/regulator/recall-orders", json=asked, headers=_once(headers))
    assert _code(answer) == (status, code)
    looks = stand.http.get("/v1/regulator/accesses", headers=headers).json()["data"]
    assert [look["outcome"] for look in looks] == ([] if code == "RequestInvalid" else [code])


def test_looks_hold_no_code_texts_and_what_cannot_be_stored_is_refused(stand: Stand) -> None:
    headers, item = _regulator(stand, REGION), stand.take_item()
    signed, name = "1" * 161, f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"
    text = f"https://id.example.cn/{signed}/01/{item.gtin}/21/{item.serial}"
    assert stand.http.get(f"/v1/regulator/trace/{quote(text, safe='')}", headers=headers).status_code == 200
    asked = {"MATCH_anyEPC": f"{text}|{text}"}
    assert stand.http.get("/v1/regulator/events", params=asked, headers=headers).status_code == 200
    assert _code(stand.http.get("/v1/regulator/trace/%00", headers=headers)) == (400, "ThingInvalid")
    assert _code(stand.http.get("/v1/regulator/events?brand=%00", headers=headers)) == (404, "BrandUnknown")
    looks = stand.http.get("/v1/regulator/accesses", headers=headers).json()["data"][::-1]
    assert [look["outcome"] for look in looks] == ["answered", "answered", "ThingInvalid", "BrandUnknown"]
    assert (looks[0]["subject"], looks[1]["filters"]) == (name, {"MATCH_anyEPC": f"{name}|{name}"})


def test_statistics(stand: Stand) -> None:
    headers = _regulator(stand, REGION)
    wait_until(lambda: _counted(stand, headers, "2026-03"), "what was issued to be counted")
    [line] = _counted(stand, headers, "2026-03")
    assert (line["month"], line["brand"], line["count"] >= 5_100) == ("2026-03", BRAND, True)
    wrong = stand.http.get("/v1/regulator/statistics?first=2026-05&last=2026-04", headers=headers)
    assert _code(wrong) == (400, "StatisticsInvalid")


def _counted(stand: Stand, headers: dict[str, str], month: str) -> list[dict[str, Any]]:
    asked = f"/v1/regulator/statistics?first={month}&last={month}&by=month&by=brand&kind=issued"
    answer = stand.http.get(asked, headers=headers)
    assert answer.status_code == 200, answer.text
    lines: list[dict[str, Any]] = answer.json()["lines"]
    return lines


def test_an_export_is_made_fetched_and_deleted(stand: Stand) -> None:
    headers = _regulator(stand, REGION)
    asked = {"kind": "acts", "format": "ndjson", "since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    sent = {"step": "voided", "gtin": GTIN, "order_number": stand.order("dormant").number, "ranges": "18"}
    assert stand.http.post("/v1/brand/events", json=sent, headers=stand.key("brand")).status_code == 201
    made = stand.http.post("/v1/regulator/exports", json=asked, headers=_once(headers))
    assert made.status_code == 202, made.text
    path = f"/v1/regulator/exports/{made.json()['export_id']}"

    def finished() -> dict[str, Any] | None:
        told: dict[str, Any] = stand.http.get(path, headers=headers).json()
        return told if told["state"] == "finished" else None

    told = wait_until(finished, "the export")
    assert told is not None
    [part] = told["parts"]
    whole = stand.http.get(part["path"], headers=headers)
    assert (whole.status_code, hashlib.sha256(whole.content).hexdigest()) == (200, part["sha256"])
    assert "voided" in {json.loads(line)["kind"] for line in whole.content.splitlines()}
    ranged = stand.http.get(part["path"], headers={**headers, "Range": "bytes=5-9"})
    assert (ranged.status_code, ranged.content) == (206, whole.content[5:10])
    assert stand.http.get(part["path"], headers=_regulator(stand, REGION)).status_code == 404
    assert stand.http.get(f"{path}/parts/1", headers=headers).status_code == 404
    assert stand.http.get("/v1/regulator/exports", headers=headers).json()["data"][0]["state"] == "finished"
    assert stand.http.delete(path, headers=headers).status_code == 204
    assert _code(stand.http.get(part["path"], headers=headers)) == (409, "ExportGone")
    looks = stand.http.get("/v1/regulator/accesses", headers=headers).json()["data"]
    assert [look["told"] for look in looks if look["operation"] == "export part"][1:] == [0, part["rows"], part["rows"]]


def test_an_export_is_given_out_no_more_once_the_scope_is_narrower(stand: Stand) -> None:
    headers = _regulator(stand, "61")
    account_id = uuid.UUID(stand.http.get("/v1/regulator/me", headers=headers).json()["account_id"])

    def rescope(*regions: str) -> None:
        async def change(session: Any) -> None:
            await accounts.rescope(session, account_id, regions, [])

        stand.run(change)

    asked = {"kind": "acts", "format": "ndjson", "since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    sent = {"step": "voided", "gtin": GTIN, "order_number": stand.order("dormant").number, "ranges": "19"}
    assert stand.http.post("/v1/brand/events", json=sent, headers=stand.key("brand")).status_code == 201
    path = f"/v1/regulator/exports/{_asked_export(stand, headers, asked)}"
    part = f"{path}/parts/0"
    listed = "/v1/regulator/exports"
    for regions, in_scope in ((("61",), True), ((REGION,), False), ((), True), (("31",), False)):
        rescope(*regions)
        answers = [stand.http.get(one, headers=headers) for one in (path, part)]
        [row] = stand.http.get(listed, headers=headers).json()["data"]
        assert (row["in_scope"], row["rows"] > 0, row["bytes"] > 0) == (in_scope, in_scope, in_scope)
        if in_scope:
            assert [answer.status_code for answer in answers] == [200, 200]
        else:
            assert [_code(answer) for answer in answers] == [(403, "OutsideScope")] * 2
    looks = stand.http.get("/v1/regulator/accesses", headers=headers).json()["data"]
    assert [look["outcome"] for look in looks[:4]] == ["OutsideScope", "answered", "OutsideScope", "answered"]
    assert stand.http.delete(path, headers=headers).status_code == 204


def _asked_export(stand: Stand, headers: dict[str, str], asked: dict[str, str]) -> str:
    """The id of an export that is finished."""
    export_id: str = stand.http.post("/v1/regulator/exports", json=asked, headers=_once(headers)).json()["export_id"]
    path = f"/v1/regulator/exports/{export_id}"
    wait_until(lambda: stand.http.get(path, headers=headers).json()["state"] == "finished" or None, "the export")
    return export_id


def test_a_trace_tells_the_acts_and_is_recorded_as_a_look(stand: Stand) -> None:
    here, there, brand = _regulator(stand, REGION), _regulator(stand, ELSEWHERE), stand.key("brand")
    item = stand.take_item()
    thing = f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"
    capture(stand, seen("x") | {"epcList": [thing], "bizStep": "storing"})
    for act in ({"act": "hold", "reason": "diversion"}, {"act": "lift"}, {"act": "hold", "reason": "stolen"}):
        assert stand.http.post("/v1/brand/life", json=act | {"thing": thing}, headers=brand).status_code == 201
    path = quote(thing, safe="")
    told = stand.http.get(f"/v1/regulator/trace/{path}", headers=here).json()
    assert [stop["bizStep"] for stop in told["way"]] == ["storing"]
    own = [(act["kind"], act["reason"]) for act in told["acts"] if act["on"] == "thing"]
    assert own == [("held", "diversion"), ("lifted", "diversion"), ("held", "stolen")]
    of_brand = stand.http.get(f"/v1/trace/{path}", headers=brand).json()
    assert (of_brand["acts"], of_brand["way"]) == (told["acts"], told["way"])
    [look] = stand.http.get("/v1/regulator/accesses", headers=here).json()["data"]
    assert (look["operation"], look["outcome"], look["told"]) == ("trace", "answered", 1 + len(told["acts"]))
    hidden = stand.http.get(f"/v1/regulator/trace/{path}", headers=there).json()
    assert (hidden["way"], hidden["acts"], len(hidden["things"])) == ([], [], 1)
    described = stand.http.get(f"/v1/regulator/items/{item.gtin}/{item.serial}", headers=here).json()["item"]
    assert (described["state"], [mark["reason"] for mark in described["marks"]]) == ("held", ["stolen"])
    assert described["acts"] == told["acts"]
    page = stand.http.post(
        "/trace",
        data={"thing": thing, "key": brand["Authorization"].removeprefix("Bearer ")},
        headers={"accept-language": "en"},
    )
    assert page.text.index("sold outside its region") < page.text.index("let go") < page.text.index("stolen")


def test_what_a_brand_shares_with_a_partner(stand: Stand) -> None:
    async def make(session: Any) -> tuple[uuid.UUID, str]:
        now = datetime.now(UTC)
        account = await partners.create(session, "Fast Freight", [f"https://{uuid.uuid4()}.example"], now)
        return account.partner_id, (await partners.create_key(session, account.partner_id, "depot", now))[1]

    brand, path = stand.key("brand"), f"/v1/brand/{BRAND}/partner-shares"
    partner_id, key = stand.run(make)
    asked = {"partner_id": str(partner_id), "gtins": [GTIN], "since": "2026-01-01T00:00:00Z"}
    item = f"https://id.gs1.org/01/{GTIN}/21/{serial()}"
    capture(stand, seen("", epcList=[item]))
    made = stand.http.post(path, json=asked, headers=_once(brand))
    assert made.status_code == 201, made.text
    assert made.json() in stand.http.get(path, headers=brand).json()["data"]
    events = f"/v1/partner/events?perPage=1&eventType=ObjectEvent&MATCH_epc={item}"
    assert len(events_in(stand.http.get(events, headers=_bearer(key)))) == 1
    assert stand.http.get(events, headers=brand).status_code == 403
    wrong = stand.http.post(path, json={**asked, "gtins": [OTHER_GTIN]}, headers=_once(brand))
    assert _code(wrong) == (400, "ShareInvalid")
    revoked = stand.http.delete(f"{path}/{made.json()['share_id']}", headers=brand).json()
    assert revoked["revoked_at"] is not None
    assert stand.http.delete(f"{path}/{made.json()['share_id']}", headers=brand).json() == revoked
    assert stand.http.delete(f"{path}/{uuid.uuid4()}", headers=brand).status_code == 404
    assert events_in(stand.http.get(events, headers=_bearer(key))) == []


def test_a_brand_tells_of_itself_alone(stand: Stand) -> None:
    brand = stand.key("brand")
    other = {"categories": ["own:tea"]}
    for path, body in (
        (f"/v1/brand/{OTHER_BRAND}/seats", {"regions": ["61"]}),
        (f"/v1/brand/{BRAND}/products/{OTHER_GTIN}/categories", other),
        (f"/v1/brand/{OTHER_BRAND}/places", {"places": [{"place": "x", "region": "61"}]}),
    ):
        assert _code(stand.http.put(path, json=body, headers=brand)) == (403, "OutOfScope")
    wrong = stand.http.put(f"/v1/brand/{BRAND}/seats", json={"regions": ["99"]}, headers=brand)
    assert _code(wrong) == (400, "RegionInvalid")
    assert stand.http.get(f"/v1/brand/{BRAND}/seats", headers=stand.key("brand, other GTINs")).status_code == 403
