"""Exports: whole wherever their worker is killed, within their limits, and gone when their time is over."""

import hashlib
import io
import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlmodel import select

from codes.acts import record_act
from kit.db import Database
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey
from scan_api.regulators import accounts, export_rows, export_worker, exports, tallies
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.exports import (
    KEPT,
    LEASE,
    ExportFormat,
    ExportInvalid,
    ExportKind,
    ExportSpec,
    ExportState,
    ExportUnknown,
    RegulatorExport,
    TooManyExports,
)
from scan_api.regulators.sights import OutsideScope
from scan_api.regulators.tallies import Key, Kind
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, TOY, XIAN_SHOP, World, seen

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LATER = NOW + timedelta(hours=1)
SINCE, UNTIL = NOW - timedelta(days=1), NOW + timedelta(days=1)


async def _regulator(database: Database, regions: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> Regulator:
    async with database.writing() as session:
        account = await accounts.create(session, "Bureau", regions, categories, NOW)
        _made, text = await accounts.create_key(session, account.account_id, "desk", NOW)
        return await accounts.authenticate(session, f"Bearer {text}", NOW)


async def _ask(world: World, who: Regulator, kind: ExportKind, form: ExportFormat, **bounds: Any) -> uuid.UUID:
    async with world.database.writing() as session:
        made = await exports.request(session, who, ExportSpec(kind, form, SINCE, UNTIL, **bounds), LATER)
    return made.export_id


async def _state(world: World, export_id: uuid.UUID) -> RegulatorExport:
    async with world.database.reading() as session:
        return await session.get_one(RegulatorExport, export_id)


async def _rows(world: World, home: Path, export_id: uuid.UUID) -> list[dict[str, Any]]:
    """The rows of all parts, each of which is what its row says."""
    rows: list[dict[str, Any]] = []
    export = await _state(world, export_id)
    assert (export.state, export.failure) == (ExportState.FINISHED, None)
    async with world.database.reading() as session:
        parts = await exports.parts_of(session, export_id)
    for number, part in enumerate(parts):
        content = exports.path_of(home, export, number).read_bytes()
        assert (part.number, part.size_bytes) == (number, len(content))
        assert part.sha256 == hashlib.sha256(content).digest()
        if export.asked.format is ExportFormat.NDJSON:
            read = [json.loads(line) for line in content.splitlines()]
        else:
            read = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        assert part.rows == len(read) > 0
        rows += read
    assert (export.rows, export.size_bytes) == (len(rows), sum(part.size_bytes for part in parts))
    return rows


async def _events(world: World) -> None:
    for number in range(7):
        await world.capture(world.dairy, seen(MILK, number, bizStep="packing"))
    await world.capture(world.dairy, seen(TOY, 1), seen(MILK, 99, SINCE - timedelta(seconds=1)), seen(MILK, 98, UNTIL))
    await world.capture(world.tea_house, seen(TEA, 1, readPoint={"id": XIAN_SHOP}), seen(TEA, 2))


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_rows, "PART_ROWS", 3)


async def test_events_come_whole_in_parts(world: World, tmp_path: Path) -> None:
    await _events(world)
    who = await _regulator(world.database, ("61",))
    asked = {
        form: await _ask(world, who, ExportKind.EVENTS, form) for form in (ExportFormat.NDJSON, ExportFormat.PARQUET)
    }
    while await export_worker.work_once(world.database, tmp_path, lambda: LATER):
        pass
    lines, table = [await _rows(world, tmp_path, asked[form]) for form in asked]
    assert lines == table
    assert sorted(row["brand"] for row in lines) == ["dairy"] * 8 + ["tea"]
    assert {json.loads(row["event"])["type"] for row in lines} == {"ObjectEvent"}
    dairy, tea_house = str(world.dairy), str(world.tea_house)
    told = {"0": {dairy: 3}, "1": {dairy: 3}, "2": {dairy: 2}, "3": {tea_house: 1}}
    assert (await _state(world, asked[ExportFormat.NDJSON])).brands == told


@pytest.mark.parametrize(
    ("bounds", "count"),
    [({"gtins": (MILK,)}, 7), ({"brands": ("tea",)}, 1), ({"regions": ("610113",)}, 1), ({"brands": ("nobody",)}, 0)],
    ids=["gtins", "brand", "region", "nobody"],
)
@ONE_DATABASE
async def test_events_of_what_was_asked_for(world: World, tmp_path: Path, bounds: dict[str, Any], count: int) -> None:
    await _events(world)
    export_id = await _ask(
        world, await _regulator(world.database, ("61",)), ExportKind.EVENTS, ExportFormat.NDJSON, **bounds
    )
    assert await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    assert len(await _rows(world, tmp_path, export_id)) == count


@ONE_DATABASE
@pytest.mark.parametrize("killed_at", range(6))
async def test_a_killed_workers_successor_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    await _events(world)
    export_id = await _ask(world, await _regulator(world.database), ExportKind.EVENTS, ExportFormat.NDJSON)
    steps = 0

    def killing(step: Any) -> Any:
        async def done(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == killed_at + 1:
                raise SystemExit("killed")
            return await step(*arguments)

        return done

    with monkeypatch.context() as patched:
        # Before a part is read, and between its bytes on the disk and its row.
        patched.setattr(export_rows, "read", killing(export_rows.read))
        patched.setattr(exports, "advance", killing(exports.advance))
        with pytest.raises(SystemExit):
            await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    assert not await export_worker.work_once(world.database, tmp_path, lambda: LATER + LEASE - timedelta(seconds=1))
    assert await export_worker.work_once(world.database, tmp_path, lambda: LATER + LEASE)
    rows = await _rows(world, tmp_path, export_id)
    assert len({row["event_id"] for row in rows}) == len(rows) == 10


@ONE_DATABASE
async def test_statistics_and_acts(world: World, tmp_path: Path) -> None:
    who = await _regulator(world.database, ("61",), ("own:food",))
    milk, tea = await world.order(MILK, 1), await world.order(TEA, 1)
    assert milk.order_id is not None
    assert tea.order_id is not None
    async with world.database.writing() as session:
        for day in range(4):
            await tallies.add(session, {Key(f"2026-06-{8 + day:02d}", MILK, Kind.SCANS): 5})
        day_here = Key("2026-06-10", TEA, Kind.ACTIVATED, "610113")
        await tallies.add(
            session, {day_here: 2, Key("2026-06-10", TEA, Kind.SCANS): 1, Key("2026-06-10", TOY, Kind.SCANS): 9}
        )
        for order_id in (milk.order_id, tea.order_id):
            for at in (SINCE - timedelta(seconds=1), SINCE, NOW, UNTIL):
                await record_act(session, order_id, "voided", "key", {"items": 3}, at)
    counted = await _ask(world, who, ExportKind.STATISTICS, ExportFormat.PARQUET)
    acted = await _ask(world, who, ExportKind.ACTS, ExportFormat.NDJSON)
    while await export_worker.work_once(world.database, tmp_path, lambda: LATER):
        pass
    rows = await _rows(world, tmp_path, counted)
    assert [(row["day"], row["gtin"], row["region"], row["count"]) for row in rows] == [
        ("2026-06-09", MILK, None, 5),
        ("2026-06-10", MILK, None, 5),
        ("2026-06-11", MILK, None, 5),
        ("2026-06-10", TEA, "610113", 2),
    ]
    acts = await _rows(world, tmp_path, acted)
    assert [(row["gtin"], row["order_number"], row["kind"], row["by"]) for row in acts] == [
        (MILK, 1, "voided", "key")
    ] * 2


@ONE_DATABASE
async def test_what_grows_too_large_fails_and_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _events(world)
    who = await _regulator(world.database)
    for most, state in ((11, ExportState.FINISHED), (10, ExportState.FINISHED), (9, ExportState.FAILED)):
        monkeypatch.setattr(export_worker, "ROWS_MAX", most)
        export_id = await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
        assert await export_worker.work_once(world.database, tmp_path, lambda: LATER)
        export = await _state(world, export_id)
        assert export.state == state
        assert exports.folder_of(tmp_path, export_id).exists() == (state is ExportState.FINISHED)
    assert "9 rows" in (export.failure or "")
    assert export.size_bytes == 0


@ONE_DATABASE
async def test_a_revoked_key_gets_nothing_more(world: World, tmp_path: Path) -> None:
    await _events(world)
    who = await _regulator(world.database)
    export_id = await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
    async with world.database.writing() as session:
        [key] = [one for one in await session.exec(select(ApiKey)) if one.key_id == who.key.key_id]
        await api_keys.revoke(session, key.key_id, NOW)
    await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    export = await _state(world, export_id)
    assert (export.state, export.rows, "revoked" in (export.failure or "")) == (ExportState.FAILED, 0, True)


async def _rescope(world: World, who: Regulator, *regions: str) -> Regulator:
    async with world.database.writing() as session:
        await accounts.rescope(session, who.holder_id, regions, [])
        found = await accounts.with_key(session, who.key.key_id, NOW)
    assert found is not None
    return found


@ONE_DATABASE
@pytest.mark.parametrize(
    ("regions", "asked", "is_within"),
    [
        (("61",), (), True),
        (("CN",), (), True),
        ((), (), True),
        (("6101",), (), False),
        (("31",), (), False),
        (("6101",), ("610113",), True),
        (("6102",), ("610113",), False),
    ],
)
async def test_an_export_is_out_of_a_scope_that_became_narrower(
    world: World, tmp_path: Path, regions: tuple[str, ...], asked: tuple[str, ...], is_within: bool
) -> None:
    await _events(world)
    who = await _regulator(world.database, ("61",))
    export_id = await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON, regions=asked)
    await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    export, now = await _state(world, export_id), await _rescope(world, who, *regions)
    assert exports.is_within(export, now.scope) is is_within
    if is_within:
        exports.require_within(export, now.scope)
    else:
        with pytest.raises(OutsideScope):
            exports.require_within(export, now.scope)
    exports.require_within(export, (await _rescope(world, who, "61")).scope)


@ONE_DATABASE
async def test_an_export_whose_scope_nobody_kept_is_in_none(world: World) -> None:
    who = await _regulator(world.database)
    spec = ExportSpec(ExportKind.EVENTS, ExportFormat.NDJSON, SINCE, UNTIL)
    told = json.loads(spec.as_text())
    del told["scope"]
    before = RegulatorExport(
        export_id=uuid.uuid4(), holder_id=who.holder_id, key_id=who.key.key_id, spec=json.dumps(told), created_at=NOW
    )
    assert before.asked == spec
    assert not exports.is_within(before, who.scope)


@ONE_DATABASE
@pytest.mark.parametrize(
    ("regions", "state", "rows"),
    [(("62",), ExportState.FAILED, 3), ((), ExportState.FINISHED, 9)],
    ids=["narrower", "wider"],
)
async def test_an_export_tells_what_was_reached_when_it_was_asked_for_or_nothing_more(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    regions: tuple[str, ...],
    state: ExportState,
    rows: int,
) -> None:
    await _events(world)
    who = await _regulator(world.database, ("61",))
    export_id = await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
    advance = exports.advance

    async def rescoped(*arguments: Any) -> None:
        await advance(*arguments)
        await accounts.rescope(arguments[0], who.holder_id, regions, [])

    monkeypatch.setattr(exports, "advance", rescoped)
    await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    export = await _state(world, export_id)
    assert (export.state, export.rows) == (state, rows)
    assert exports.folder_of(tmp_path, export_id).exists() is (state is ExportState.FINISHED)


@ONE_DATABASE
async def test_limits_of_exports(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    who = await _regulator(world.database, ("61",))
    for bad in ({"regions": ("31",)}, {"brands": ("x",) * 101}):
        with pytest.raises(ExportInvalid):
            await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON, **bad)
    async with world.database.writing() as session:
        spec = ExportSpec(ExportKind.EVENTS, ExportFormat.NDJSON, SINCE, SINCE)
        with pytest.raises(ExportInvalid):
            await exports.request(session, who, spec, NOW)
    made = [await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON) for _ in range(3)]
    with pytest.raises(TooManyExports, match="unfinished"):
        await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
    async with world.database.writing() as session:
        await exports.drop(session, await session.get_one(RegulatorExport, made[0]), NOW)
    await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
    while await export_worker.work_once(world.database, tmp_path, lambda: LATER):
        pass
    async with world.database.writing() as session:
        full = await session.get_one(RegulatorExport, made[1])
        full.size_bytes = exports.BYTES_OF_ALL_MAX - 1
        session.add(full)
    await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)
    async with world.database.writing() as session:
        full = await session.get_one(RegulatorExport, made[1])
        full.size_bytes += 1
        session.add(full)
    with pytest.raises(TooManyExports, match="room"):
        await _ask(world, who, ExportKind.EVENTS, ExportFormat.NDJSON)


@ONE_DATABASE
async def test_files_are_deleted_when_their_time_is_over(world: World, tmp_path: Path) -> None:
    await _events(world)
    export_id = await _ask(world, await _regulator(world.database), ExportKind.EVENTS, ExportFormat.NDJSON)
    await export_worker.work_once(world.database, tmp_path, lambda: LATER)
    await export_worker.sweep(world.database, tmp_path, lambda: LATER + KEPT - timedelta(seconds=1))
    assert exports.folder_of(tmp_path, export_id).exists()
    await export_worker.sweep(world.database, tmp_path, lambda: LATER + KEPT)
    assert not exports.folder_of(tmp_path, export_id).exists()
    assert (await _state(world, export_id)).state == ExportState.GONE


@ONE_DATABASE
@pytest.mark.parametrize("bounds", ["brand", "gtins", "sandbox"])
async def test_a_bounded_key_reaches_its_own_exports_alone(world: World, bounds: str) -> None:
    wide = await _regulator(world.database)
    async with world.database.writing() as session:
        made, text = await accounts.create_key(
            session,
            wide.holder_id,
            "other desk",
            NOW,
            brand_id=world.dairy if bounds == "brand" else None,
            gtin_prefixes=(MILK[1:],) if bounds == "gtins" else (),
        )
        (await session.get_one(ApiKey, made.key_id)).sandbox = bounds == "sandbox"
    async with world.database.reading() as session:
        other = await accounts.authenticate(session, f"Bearer {text}", NOW)
    first = await _ask(world, wide, ExportKind.EVENTS, ExportFormat.NDJSON)
    own = await _ask(world, other, ExportKind.EVENTS, ExportFormat.NDJSON)
    async with world.database.reading() as session:
        assert [one.export_id for one in await exports.page(session, other, None, 9)] == [own]
        assert (await exports.of_holder(session, other, own)).export_id == own
        with pytest.raises(ExportUnknown):
            await exports.of_holder(session, other, first)
        of_wide = {first} if bounds == "sandbox" else {first, own}
        assert {one.export_id for one in await exports.page(session, wide, None, 9)} == of_wide
