"""The transparency log over HTTP, and its commands: what anybody can verify who has its key, and who sees openings."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from codes import catalogue, log_queue
from codes.acts import acts_of
from codes.log_queue import NewEntry, record_of
from kit.clock import system_clock
from kit.db import Database, Session
from kit.settings import Settings
from offline_sdk.audit import main as audit
from offline_sdk.transparency import (
    Evidence,
    Frontier,
    Opening,
    Policy,
    SignedCheckpoint,
    TileId,
    VerifierKey,
    decode_entries,
    leaf_hashes,
    verify_consistency,
)
from offline_sdk.transparency.note import decode_base64
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.provenance.repository import EpcisEvent
from scan_api.transparency import log_key, store
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.witnesses import Publisher
from signer.keys import Issuer
from tests.scan_api.event_sender import capture, outcomes, seen, serial
from tests.scan_api.test_commands import Terminal, bare
from tests.scan_api.test_regulator_accounts import ELSEWHERE, REGION, _regulator
from tests.stand import BRAND, GROUP, PLACED_AT, Stand, wait_until

__all__ = ["bare"]

on_one = pytest.mark.parametrize("stand_kind", ["postgresql"])


_LOGGED: dict[Path, list[uuid.UUID]] = {}
"""By the data folder of the stand, which the tests share."""


@pytest.fixture
def logged(stand: Stand) -> tuple[Stand, list[uuid.UUID]]:
    """A stand whose log has begun, and some entries of its brand in it, published."""
    if stand.home in _LOGGED:
        return stand, _LOGGED[stand.home]
    stand.run(partial(_begin, Settings(home=stand.home, base_url=stand.server.url)))
    ids = stand.run(_enqueue)
    wait_until(
        lambda: all(stand.http.get(f"/log/entries/{one}/proof", headers=stand.key("brand")).is_success for one in ids),
        "the entries to be published",
    )
    _LOGGED[stand.home] = ids
    return stand, ids


async def _begin(settings: Settings, session: Session) -> None:
    if await store.find_head(session) is None:
        await log_key.begin(session, settings, system_clock())


async def _enqueue(session: Session) -> list[uuid.UUID]:
    brand = await catalogue.brand_named(session, BRAND)
    entries = [
        NewEntry("act", uuid.uuid4(), brand.brand_id, record_of({"type": "act", "at": "包装"})) for _ in range(30)
    ]
    return await log_queue.enqueue(session, entries, system_clock())


def _policy(stand: Stand) -> Policy:
    return Policy(VerifierKey.read(stand.http.get("/log/key").text.strip()))


def _checkpoint(stand: Stand) -> SignedCheckpoint:
    signed = SignedCheckpoint.read(stand.http.get("/log/checkpoint").content)
    _policy(stand).check(signed)
    return signed


@on_one
def test_whole_tree_is_served_as_tiles(logged: tuple[Stand, list[uuid.UUID]]) -> None:
    stand, _ids = logged
    head = _checkpoint(stand).checkpoint
    assert head.origin == f"{stand.server.url.removeprefix('http://')}/log"
    frontier = Frontier()
    for index in range(-(-head.size // 256)):
        width = min(256, head.size - 256 * index)
        entries, hashes = (stand.http.get(f"/log/{TileId(level, index, width).path}") for level in (None, 0))
        leaves = leaf_hashes(decode_entries(entries.content))
        assert b"".join(leaves) == hashes.content
        frontier = frontier.append(leaves).frontier
    assert frontier.root == head.root


@on_one
@pytest.mark.parametrize(
    ("path", "media_type", "caching"),
    [
        ("checkpoint", "text/plain; charset=utf-8", "public, max-age=1"),
        ("key", "text/plain; charset=utf-8", "public, max-age=3600"),
        ("tile/0/000.p/3", "application/octet-stream", "public, max-age=31536000, immutable"),
        ("tile/entries/000.p/3", "application/octet-stream", "public, max-age=31536000, immutable"),
    ],
)
def test_files_can_be_cached(logged: tuple[Stand, list[uuid.UUID]], path: str, media_type: str, caching: str) -> None:
    stand, _ids = logged
    answer = stand.http.get(f"/log/{path}")
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == caching
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    again = stand.http.get(f"/log/{path}", headers={"if-none-match": f'"x", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    head = stand.http.head(f"/log/{path}")
    assert (head.status_code, head.headers["etag"]) == (200, answer.headers["etag"])


@on_one
@pytest.mark.parametrize(
    "path", ["0/999", "0/x000/000", "0/0", "7/000", "entries/000.p/256", "..%2f..%2fkey", "x" * 64]
)
def test_tile_that_is_not_there_is_unknown(logged: tuple[Stand, list[uuid.UUID]], path: str) -> None:
    stand, _ids = logged
    assert stand.http.get(f"/log/tile/{path}").status_code == 404


@on_one
def test_later_checkpoint_is_proved_to_continue_an_earlier_one(logged: tuple[Stand, list[uuid.UUID]]) -> None:
    stand, _ids = logged
    old = _checkpoint(stand).checkpoint
    stand.run(_enqueue)
    wait_until(lambda: _checkpoint(stand).checkpoint.size > old.size, "the log to grow")
    new = _checkpoint(stand).checkpoint
    answer = stand.http.get("/log/consistency", params={"old": old.size, "new": new.size}).json()
    proof = [decode_base64(one, "hash") for one in answer["proof"]]
    verify_consistency(old.size, new.size, old.root, new.root, proof)
    for asked in ({"old": 2, "new": 1}, {"old": 0, "new": new.size + 1_000}, {"old": -1, "new": 1}, {"old": 1}):
        assert stand.http.get("/log/consistency", params=asked).status_code == 400


@on_one
def test_evidence_of_an_entry_needs_nothing_but_the_key(logged: tuple[Stand, list[uuid.UUID]]) -> None:
    stand, ids = logged
    answer = stand.http.get(f"/log/entries/{ids[3]}/proof", headers=stand.key("brand")).json()
    opening = Opening(decode_base64(answer["opening"]["salt"], "salt"), answer["opening"]["record"].encode())
    assert json.loads(opening.record) == {"type": "act", "at": "包装"}
    Evidence.read(answer["proof"].encode()).verify(opening.entry, _policy(stand))


@on_one
@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("brand", 200),
        ("regulator", 200),
        ("other brand", 404),
        ("regulator, other brand", 404),
        ("brand, other GTINs", 403),
        ("regulator, other GTINs", 404),
        ("logistics", 403),
        ("shop", 403),
        ("revoked", 401),
        (None, 401),
    ],
)
def test_opening_is_for_its_brand_and_for_regulators(
    logged: tuple[Stand, list[uuid.UUID]], label: str | None, status: int
) -> None:
    stand, ids = logged
    headers: Mapping[str, str] = {} if label is None else stand.key(label)
    assert stand.http.get(f"/log/entries/{ids[0]}/proof", headers=headers).status_code == status
    if status == 200:
        assert stand.http.get(f"/log/entries/{uuid.uuid4()}/proof", headers=headers).status_code == 404
        assert stand.http.get("/log/entries/x/proof", headers=headers).status_code == 400


@on_one
def test_regulator_of_some_products_opens_acts_of_brands_that_have_no_others(
    logged: tuple[Stand, list[uuid.UUID]],
) -> None:
    stand, _ids = logged
    shop = f"shop-{uuid.uuid4().hex[:12]}"
    [entry_id] = stand.run(partial(_enqueue_of_new_brand, shop, "09506000900018"))
    headers = stand.run(partial(_regulator_of, "950600090001"))
    wait_until(
        lambda: stand.http.get(f"/log/entries/{entry_id}/proof", headers=stand.key("regulator")).is_success,
        "the entry to be published",
    )
    assert stand.http.get(f"/log/entries/{entry_id}/proof", headers=headers).status_code == 200
    stand.run(partial(_add_product, shop, "09506000900025"))
    assert stand.http.get(f"/log/entries/{entry_id}/proof", headers=headers).status_code == 404


async def _enqueue_of_new_brand(slug: str, gtin: str, session: Session) -> list[uuid.UUID]:
    issuer = await session.get_one(Issuer, (await catalogue.brand_named(session, BRAND)).issuer_id)
    brand = await catalogue.create_brand(session, issuer, GROUP, slug, "店", "Shop", PLACED_AT)
    await catalogue.create_product(session, brand, gtin, "货", "Goods", PLACED_AT)
    entry = NewEntry("act", uuid.uuid4(), brand.brand_id, record_of({"type": "act"}))
    return await log_queue.enqueue(session, [entry], system_clock())


async def _add_product(slug: str, gtin: str, session: Session) -> None:
    brand = await catalogue.brand_named(session, slug)
    await catalogue.create_product(session, brand, gtin, "货", "Goods", PLACED_AT)


async def _regulator_of(gtin_prefix: str, session: Session) -> dict[str, str]:
    _key, text = await api_keys.create(session, Role.REGULATOR, "log", PLACED_AT, gtin_prefixes=(gtin_prefix,))
    return {"Authorization": f"Bearer {text}"}


def _entries_about(stand: Stand, *subjects: str) -> list[uuid.UUID]:
    async def find(session: Session) -> list[uuid.UUID]:
        found = await log_queue.entries_about(session, [uuid.UUID(one) for one in subjects])
        return [found[uuid.UUID(one)][0] for one in subjects]

    made: list[uuid.UUID] = stand.run(find)
    return made


def _record(stand: Stand, entry_id: uuid.UUID, headers: Mapping[str, str]) -> dict[str, Any]:
    """What the entry says, once it is proved."""

    def asked() -> httpx2.Response | None:
        answer = stand.http.get(f"/log/entries/{entry_id}/proof", headers=headers)
        return None if answer.status_code == 409 else answer

    answer = wait_until(asked, "the entry to be published").raise_for_status().json()
    opening = Opening(decode_base64(answer["opening"]["salt"], "salt"), answer["opening"]["record"].encode())
    Evidence.read(answer["proof"].encode()).verify(opening.entry, _policy(stand))
    record: dict[str, Any] = json.loads(opening.record)
    return record


@on_one
def test_what_is_captured_is_logged_as_it_was_sent_and_seen_by_whom_the_event_is(
    logged: tuple[Stand, list[uuid.UUID]],
) -> None:
    stand, _ids = logged
    event = seen(serial(), **{"ex:note": "as it was sent 原样"})
    told = capture(stand, event)
    assert outcomes(told) == ["accepted"]
    again = capture(stand, event)
    assert outcomes(again) == ["duplicate"]
    event_key = stand.run(partial(_key_of, told["captureID"]))
    [entry_id] = _entries_about(stand, event_key)
    record = _record(stand, entry_id, stand.key("brand"))
    assert record["event"] == event
    assert (record["type"], record["key"], record["capture"]) == ("event", event_key, told["captureID"])
    assert _record(stand, entry_id, stand.key("regulator")) == record
    here, elsewhere = _regulator(stand, REGION), _regulator(stand, ELSEWHERE)
    assert _record(stand, entry_id, here) == record
    hidden = stand.http.get(f"/log/entries/{entry_id}/proof", headers=elsewhere)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "LogEntryUnknown")
    looks = [
        [(look["subject"], look["outcome"], look["told"]) for look in answer.json()["data"]]
        for answer in (stand.http.get("/v1/regulator/accesses", headers=headers) for headers in (here, elsewhere))
    ]
    assert (str(entry_id), "answered", 1) in looks[0]
    assert looks[1] == [(str(entry_id), "LogEntryUnknown", 0)]


async def _key_of(capture_id: str, session: Session) -> str:
    kept = select(EpcisEvent.event_key).where(EpcisEvent.capture_id == uuid.UUID(capture_id))
    return str((await session.exec(kept)).one())


@on_one
def test_movements_and_acts_are_logged(logged: tuple[Stand, list[uuid.UUID]]) -> None:
    stand, _ids = logged
    order = stand.order("on sale")
    shipped = {
        "gtin": order.gtin,
        "order_number": order.number,
        "step": "shipped",
        "serials": [item.serial for item in order.items[:2]],
        "place": "Xi'an 西安",
    }
    event_id = stand.http.post("/v1/brand/events", json=shipped, headers=stand.key("brand")).json()["event_id"]
    last = str(len(order.items) - 1)
    held = {"act": "hold", "gtin": order.gtin, "order_number": order.number, "ranges": last, "reason": "investigation"}
    assert stand.http.post("/v1/brand/life", json=held, headers=stand.key("brand")).json()["marks"] == 1
    acts = stand.run(partial(acts_of, order_id=order.order_id))
    entries = _entries_about(stand, event_id, str(acts[-1].act_id))
    moved, act = (_record(stand, one, stand.key("brand")) for one in entries)
    assert {name: moved[name] for name in ("gtin", "order", "step", "serials", "place")} == {
        "gtin": order.gtin,
        "order": order.number,
        "step": "shipped",
        "serials": shipped["serials"],
        "place": "Xi'an 西安",
    }
    assert (act["type"], act["kind"], act["order"], act["detail"]["ranges"]) == ("act", "held", order.number, last)


@on_one
def test_gap_is_told_to_whoever_asks(logged: tuple[Stand, list[uuid.UUID]]) -> None:
    stand, _ids = logged
    told = stand.http.get("/log/status").json()
    assert told["healthy"] is True
    assert told["published_size"] == told["size"] >= 30
    wait_until(lambda: stand.metric("fanxing_log_leaves") >= 30, "the gauges")
    wait_until(lambda: stand.metric("fanxing_log_pending") == 0, "the rest")
    assert stand.http.get("/readyz").json()["checks"]["transparency_log"] == "ok"


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
class TestCommands:
    def test_from_beginning_to_audit(self, bare: Terminal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bare.run("init --make-passphrase --without-root")
        assert bare.refusal("log status") == "LogMissing"
        begun = bare.ask("log init --origin log.example.cn/fanxing")
        assert begun["origin"] == "log.example.cn/fanxing"
        assert bare.refusal("log init") == "LogExists"
        assert (bare.home / "log.passphrase").stat().st_mode & 0o777 == 0o600
        assert bare.refusal(f"log export {tmp_path / 'export'}") == "LogMissing"
        asyncio.run(_sequence(bare))
        told = bare.ask("log status")
        assert (told["size"], told["published_size"], told["key"], told["cosigned_by"]) == (40, 40, begun["key"], [])
        done = bare.ask(f"log export {tmp_path / 'export'}")
        assert (done["size"], done["records"], done["erased"]) == (40, 40, 0)
        assert bare.refusal(f"log export {tmp_path / 'export'}") == "ExportFolderTaken"
        capsys.readouterr()
        assert audit([str(tmp_path / "export"), "--key", str(tmp_path / "export" / "key")]) == 0
        assert "WHOLE: 40 entries of log.example.cn/fanxing, 40 records" in capsys.readouterr().out

    def test_witnesses_come_and_go(self, bare: Terminal) -> None:
        key = "witness.example/w1+4cb05a5d+BAeXyVdl+KO8nMzWvhR5uwA1pqyBP+b3kXDYkdH7aXz4"
        bare.run("init --make-passphrase --without-root")
        assert bare.refusal(f"log witness add {key} --url http://127.0.0.1:9") == "LogMissing"
        bare.ask("log init")
        assert bare.ask("log witness list") == []
        assert bare.refusal("log witness add x --url http://127.0.0.1:9") == "WitnessInvalid"
        assert bare.refusal("log witness remove x") == "WitnessUnknown"

    @pytest.mark.parametrize("origin", ["''", "'a b'", "a+b", "中", "x" * 257])
    def test_name_of_a_log_is_checked(self, bare: Terminal, origin: str) -> None:
        bare.run("init --make-passphrase --without-root")
        assert bare.refusal(f"log init --origin {origin}") == "LogOriginInvalid"
        assert not (bare.home / "log.passphrase").exists()


async def _sequence(terminal: Terminal) -> None:
    """What the server would do."""
    database = Database(terminal.database_url)
    settings = Settings(home=terminal.home, database_url=terminal.database_url)
    async with database.writing() as session:
        entries: list[Any] = [NewEntry("act", uuid.uuid4(), None, record_of({"number": one})) for one in range(40)]
        await log_queue.enqueue(session, entries, system_clock())
    signing = log_key.access(settings).open()
    await Sequencer(database, signing, HeadMemory(terminal.home), system_clock).turn()
    async with httpx2.AsyncClient() as client:
        await Publisher(database, client, system_clock).turn()
    await database.close()
