"""Evidence over real HTTP: bundles that a program checks with no network, and proofs beside regulators' answers."""

import asyncio
import io
import json
import uuid
import zipfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from kit.settings import Settings
from offline_sdk.audit import main as audit
from offline_sdk.transparency import Evidence, Opening, Policy, VerifierKey
from offline_sdk.transparency.note import decode_base64
from tests.scan_api.event_sender import URN, capture, outcomes, seen, serial
from tests.scan_api.test_commands import Terminal, bare
from tests.scan_api.test_log import _begin, _sequence
from tests.stand import BRAND, Stand, wait_until

__all__ = ["bare"]

on_one = pytest.mark.parametrize("stand_kind", ["postgresql"])


@pytest.fixture
def logging(stand: Stand) -> Stand:
    """A stand whose log has begun."""
    stand.run(partial(_begin, Settings(home=stand.home, base_url=stand.server.url)))
    return stand


def _bundle(stand: Stand, thing: str, room: str = "/v1", caller: str = "brand") -> bytes:
    """The bundle of a thing, once all of it is proved."""

    def whole() -> bytes | None:
        answer = stand.http.get(f"{room}/evidence/{quote(thing, safe='')}", headers=stand.key(caller))
        if answer.status_code == 503 and answer.json()["code"] == "LogMissing":
            return None  # no checkpoint yet
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/zip"
        return None if _manifest(answer.content)["pending"] else answer.content

    found = wait_until(whole, "the records to be published")
    assert found is not None
    return found


def _manifest(content: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_file(content, "manifest.json"))
    return told


def _file(content: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(name)


def _packed(item: str, box: str) -> dict[str, Any]:
    return {
        "type": "AggregationEvent",
        "eventTime": "2026-06-01T09:00:00Z",
        "eventTimeZoneOffset": "+08:00",
        "parentID": box,
        "childEPCs": [URN + item],
        "action": "ADD",
    }


@on_one
def test_a_things_way_is_proved_to_who_has_the_key_alone(
    logging: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item, box = serial(), f"urn:epc:id:sscc:9506000.{uuid.uuid4().int % 10**10:010}"
    events = [
        seen(item, **{"ex:note": "原样"}),
        _packed(item, box),
        seen(item, "2026-06-02T10:00:00Z") | {"epcList": [box]},
    ]
    assert outcomes(capture(logging, *events)) == ["accepted"] * 3
    content = _bundle(logging, URN + item)
    path = tmp_path / "evidence.zip"
    path.write_bytes(content)
    arguments = ["evidence", str(path), "--key", logging.http.get("/log/key").text.strip(), "--json"]
    assert audit(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], told["records"], told["unlogged"]) == (True, 3, 0)
    records = [json.loads(Opening.read(line).record) for line in _file(content, "events.ndjson").splitlines()]
    assert [record["type"] for record in records] == ["event"] * 3
    assert sorted(json.dumps(record["event"]) for record in records) == sorted(map(json.dumps, events))
    altered = content.replace("原样".encode(), "改样".encode())
    path.write_bytes(altered)
    assert audit(arguments) != 0
    capsys.readouterr()


@on_one
def test_an_item_of_ours_brings_its_steps_acts_and_its_codes_verdict(logging: Stand) -> None:
    item = logging.take_item()
    # Dated back: an act is found by what it was done to.
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    thing = f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"
    done = logging.http.post(
        "/v1/brand/life",
        json={"act": "hold", "thing": thing, "reason": "other", "at": at},
        headers=logging.key("brand"),
    )
    assert done.status_code == 201, done.text
    content = _bundle(logging, f"https://id.example.cn{item.outer}")
    manifest = _manifest(content)
    assert manifest["thing"] == thing
    assert {leaf["kind"] for leaf in manifest["leaves"]} >= {"step", "act"}
    said = json.loads(_file(content, "code.json"))
    assert (said["verdict"], said["serial"]) == ("genuine", item.serial)
    signature = item.outer.split("/")[1][-40:]
    assert signature.encode() not in content


@on_one
def test_a_regulator_gets_as_much_of_a_bundle_as_he_reaches_and_it_is_a_look(
    logging: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item, room = logging.take_item(), "/v1/regulator"
    thing = f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"
    done = logging.http.post(
        "/v1/brand/life", json={"act": "hold", "thing": thing, "reason": "other"}, headers=logging.key("brand")
    )
    assert done.status_code == 201, done.text
    capture(logging, seen("x") | {"epcList": [thing]})
    content = _bundle(logging, thing, room, "regulator, these GTINs")
    path = tmp_path / "evidence.zip"
    path.write_bytes(content)
    assert audit(["evidence", str(path), "--key", logging.http.get("/log/key").text.strip()]) == 0
    capsys.readouterr()
    kinds = [leaf["kind"] for leaf in _manifest(content)["leaves"]]
    assert {"event", "step", "act"} == set(kinds)
    looks = logging.http.get("/v1/regulator/accesses", headers=logging.key("regulator, these GTINs")).json()["data"]
    assert [looks[0][name] for name in ("operation", "subject", "outcome")] == ["evidence", thing, "answered"]
    assert looks[0]["told"] == len(kinds)
    headers = logging.key("regulator, other GTINs")
    for asked in (thing, thing[:-14] + "9" * 14):
        hidden = _bundle(logging, asked, room, "regulator, other GTINs")
        assert (_manifest(hidden)["thing"], _manifest(hidden)["leaves"]) == (asked, [])
        [look] = logging.http.get("/v1/regulator/accesses?limit=1", headers=headers).json()["data"]
        assert (look["subject"], look["outcome"], look["told"]) == (asked, "answered", 0)
    box = quote("https://id.gs1.org/00/095060000000000017", safe="")
    unknown = [
        logging.http.get(f"{room}/evidence/{box}?brand={slug}", headers=logging.key("regulator, other brand")).content
        for slug in (BRAND, "nobody-there")
    ]
    assert unknown[0] == unknown[1]
    refused = logging.http.get(f"{room}/evidence/{box}", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "BrandNeeded")


@on_one
def test_an_act_on_a_part_of_an_order_is_evidence_of_its_items_alone(logging: Stand) -> None:
    order = logging.order("dormant")
    for act in ("hold", "lift"):
        sent = {"act": act, "gtin": order.gtin, "order_number": order.number, "ranges": "14-15", "reason": "other"}
        assert logging.http.post("/v1/brand/life", json=sent, headers=logging.key("brand")).status_code == 201
    held: dict[int, bool] = {}
    for index in (13, 14, 15, 16):
        content = _bundle(logging, f"https://id.gs1.org/01/{order.gtin}/21/{order.items[index].serial}")
        records = [json.loads(Opening.read(line).record) for line in _file(content, "events.ndjson").splitlines()]
        ranges = {record["detail"].get("ranges") for record in records if record["type"] == "act"}
        held[index] = "14-15" in ranges
    assert held == {13: False, 14: True, 15: True, 16: False}


@on_one
def test_an_items_steps_are_proved_beside_the_answer(logging: Stand) -> None:
    item = logging.take_item()
    sent = {"step": "shipped", "gtin": item.gtin, "order_number": int(item.serial[:5]), "serials": [item.serial]}
    assert logging.http.post("/v1/brand/events", json=sent, headers=logging.key("logistics")).status_code == 201
    logging.scan(item.outer)
    path, headers = f"/v1/regulator/items/{item.gtin}/{item.serial}", logging.key("regulator")
    assert "fanxing:evidence" not in logging.http.get(path, headers=headers).json()

    def proved() -> dict[str, Any] | None:
        answer = logging.http.get(path, params={"evidence": "true"}, headers=headers)
        if answer.status_code == 503:
            return None
        told: dict[str, Any] = answer.raise_for_status().json()
        return told if "pending" not in {event["state"] for event in told["fanxing:evidence"]["events"]} else None

    told = wait_until(proved, "the steps to be published")
    assert told is not None
    history = told["epcis"]["epcisBody"]["eventList"]
    steps = [one for one in history if one["fanxing:step"] not in ("scanned", "claimed")]
    assert len(steps) < len(history)
    events = told["fanxing:evidence"]["events"]
    assert [event["event"] for event in events] == [one["eventID"] for one in steps]
    policy = Policy(VerifierKey.read(logging.http.get("/log/key").text.strip()))
    [shipped] = [event for event, one in zip(events, steps, strict=True) if one["fanxing:step"] == "shipped"]
    opening = Opening(decode_base64(shipped["opening"]["salt"], "salt"), shipped["opening"]["record"].encode())
    assert json.loads(opening.record)["serials"] == [item.serial]
    Evidence.read(decode_base64(shipped["proof"], "proof")).verify(opening.entry, policy)


@on_one
def test_regulators_answers_carry_proofs_for_who_asks(logging: Stand) -> None:
    item = serial()
    capture(logging, seen(item))
    headers, thing = logging.key("regulator"), URN + item
    policy = Policy(VerifierKey.read(logging.http.get("/log/key").text.strip()))

    def proved(path: str, params: dict[str, str]) -> dict[str, Any] | None:
        answer = logging.http.get(path, params=params | {"evidence": "true"}, headers=headers)
        if answer.status_code == 503:
            return None
        told = answer.raise_for_status().json()["fanxing:evidence"]
        return told if all(event["state"] == "proved" for event in told["events"]) else None

    by = {"brand": BRAND}
    asked = {"MATCH_epc": thing, **by}
    for path, params in (("/v1/regulator/events", asked), (f"/v1/regulator/trace/{quote(thing, safe='')}", by)):
        without: httpx2.Response = logging.http.get(path, params=params, headers=headers)
        assert "fanxing:evidence" not in without.raise_for_status().json()
        told = wait_until(partial(proved, path, params), "the event to be published")
        assert told is not None
        [event] = told["events"]
        opening = Opening(decode_base64(event["opening"]["salt"], "salt"), event["opening"]["record"].encode())
        assert json.loads(opening.record)["event"]["epcList"] == [thing]
        evidence = Evidence.read(decode_base64(event["proof"], "proof"))
        evidence.verify(opening.entry, policy)
        assert evidence.signed == evidence.signed.read(decode_base64(told["checkpoint"], "checkpoint"))
    refused = logging.http.get("/v1/regulator/events", params={"evidence": "maybe"}, headers=headers)
    assert refused.status_code == 400


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
def test_the_command_writes_a_bundle(bare: Terminal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare.run("init --make-passphrase")
    bare.ask("issuer create --gtin-prefix 9506000 --name 'Test Dairy'")
    bare.ask("brand create --slug star-cream --group group --name-zh 星 --name-en Star --issuer 'Test Dairy'")
    to = tmp_path / "evidence.zip"
    command = f"log evidence {URN}S1 --brand star-cream --out {to}"
    assert bare.refusal(command) == "LogMissing"
    assert not to.exists()
    asyncio.run(_sequence(bare))
    (tmp_path / "packing.csv").write_text(f"parent,child,action,at\nurn:epc:id:sscc:9506000.0000000001,{URN}S1,ADD,\n")
    bare.run(f"packing load {tmp_path / 'packing.csv'} --brand star-cream")
    asyncio.run(_sequence(bare))
    done, key = bare.ask(command), bare.ask("log status")["key"]
    assert (done["file"], done["records"], done["pending"], done["unlogged"]) == (str(to), 1, 0, 0)
    capsys.readouterr()
    assert audit(["evidence", str(to), "--key", key]) == 0
    assert "WHOLE: 1 records of " in capsys.readouterr().out
