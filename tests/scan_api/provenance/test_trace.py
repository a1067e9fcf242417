"""Trace: what an item went through while it was packed, what it was made of, and what became of a lot."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit import procedures
from kit.db import Database
from scan_api.provenance import captures, documents, trace, trace_answers, trace_step
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.trace import Direction, Tie, Trace

BRAND = 1
T0 = datetime(2026, 6, 1, tzinfo=UTC)
CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
ITEM, OTHER = (f"https://id.gs1.org/01/09506000134352/21/{number}" for number in (1, 2))
BOX, CASE, PALLET = (f"https://id.gs1.org/00/09506000000000{number}" for number in ("0017", "0024", "0031"))
MILK, SUGAR, FARM = (f"https://id.gs1.org/01/09506000134369/10/{lot}" for lot in ("MILK", "SUGAR", "FARM"))
ICE = "https://id.gs1.org/01/09506000134352/10/ICE"


def at(minute: int) -> str:
    return (T0 + timedelta(minutes=minute)).isoformat()


def event(kind: str, minute: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"{kind}Event", "eventTime": at(minute), "eventTimeZoneOffset": "+00:00", **fields}


def packed(minute: int, parent: str, *children: str, action: str = "ADD") -> dict[str, Any]:
    return event("Aggregation", minute, action=action, parentID=parent, childEPCs=list(children))


def seen(minute: int, *things: str, step: str = "shipping") -> dict[str, Any]:
    return event("Object", minute, action="OBSERVE", bizStep=step, epcList=list(things))


def made(minute: int, inputs: Sequence[str], outputs: Sequence[str], items: Sequence[str] = ()) -> dict[str, Any]:
    def quantities(lots: Sequence[str]) -> list[dict[str, Any]]:
        return [{"epcClass": lot, "quantity": 5, "uom": "KGM"} for lot in lots]

    more = {"outputEPCList": list(items)} if items else {}
    return event(
        "Transformation", minute, inputQuantityList=quantities(inputs), outputQuantityList=quantities(outputs), **more
    )


async def keep(database: Database, *events: Mapping[str, Any], brand_id: int = BRAND) -> None:
    whole = {
        "@context": CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": T0.isoformat(),
        "epcisBody": {"eventList": list(events)},
    }
    await procedures.install(database, [trace_step.STEP])
    judged = captures.judge(brand_id, documents.read(whole))
    async with database.writing() as session:
        done = await captures.capture(session, brand_id, uuid.uuid4(), CONTEXT, judged, ErrorBehaviour.ROLLBACK, T0)
        assert {result.outcome for result in done.results} == {"accepted"}, done.results


async def traced(database: Database, *names: str, steps: int = trace.STEPS_DEFAULT) -> Trace:
    async with database.reading() as session:
        return await trace.trace(procedures.asking(session), BRAND, names, steps)


def minutes(found: Trace) -> list[int]:
    return [int((event.event_time - T0).total_seconds()) // 60 for event in found.events]


def names(found: Trace, direction: Direction) -> dict[str, int]:
    return {one.name: one.steps for one in found.things if one.direction is direction}


async def test_an_item_has_gone_where_its_containers_went_while_it_was_in_them(database: Database) -> None:
    await keep(
        database,
        seen(0, ITEM, step="commissioning"),
        packed(1, BOX, ITEM, OTHER),
        packed(2, CASE, BOX),
        packed(3, PALLET, CASE),
        seen(4, PALLET),
        packed(5, PALLET, CASE, action="DELETE"),
        seen(6, PALLET),
        seen(7, CASE, step="receiving"),
        packed(8, BOX, ITEM, action="DELETE"),
        seen(9, BOX),
        packed(10, BOX, "https://id.gs1.org/01/09506000134352/21/3"),
    )
    found = await traced(database, ITEM)
    assert minutes(found) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert names(found, Direction.AROUND) == {BOX: 1, CASE: 2, PALLET: 3}
    assert [(link.source, link.target) for link in found.links] == [(ITEM, BOX), (BOX, CASE), (CASE, PALLET)]
    [pallet] = [one for one in found.things if one.name == PALLET]
    assert (pallet.since, pallet.until) == (T0 + timedelta(minutes=3), T0 + timedelta(minutes=5))
    assert not found.is_cut


async def test_an_event_that_was_declared_an_error_is_shown_as_undone(database: Database) -> None:
    wrong = seen(1, ITEM)
    await keep(database, {**wrong, "eventID": "urn:uuid:00000000-0000-4000-8000-000000000001"})
    declaration = {"declarationTime": at(2), "reason": "https://ref.gs1.org/cbv/ER-did_not_occur"}
    await keep(
        database,
        {**wrong, "eventID": "urn:uuid:00000000-0000-4000-8000-000000000001", "errorDeclaration": declaration},
    )
    found = await traced(database, ITEM)
    assert [(event.is_error, event.event_key in found.undone) for event in found.events] in (
        [(False, True), (True, False)],
        [(True, False), (False, True)],
    )


async def test_containers_of_what_it_leads_to_are_around_it_too(database: Database) -> None:
    await keep(
        database,
        packed(1, CASE, ITEM),
        packed(2, CASE, ITEM, action="DELETE"),
        packed(3, BOX, ITEM, OTHER),
        seen(4, BOX),
        made(5, [MILK], [ICE], [ITEM]),
    )
    case = await traced(database, CASE)
    assert (minutes(case), names(case, Direction.DOWN)) == ([1, 2, 3, 4, 5], {ITEM: 1})
    assert names(case, Direction.AROUND) == {BOX: 2}
    assert [stop.through for stop in trace_answers.way_of(case).waypoints] == [CASE, CASE, ITEM, BOX, ITEM]


async def test_upstream_leads_through_transformations_to_what_it_was_made_of(database: Database) -> None:
    await keep(
        database,
        seen(0, "https://id.gs1.org/01/09506000134376/21/COW"),
        made(1, [FARM], [MILK]),
        made(2, [MILK, SUGAR], [ICE], [ITEM]),
        seen(3, ITEM),
    )
    found = await traced(database, ITEM, ICE)
    assert names(found, Direction.UP) == {MILK: 1, SUGAR: 1, FARM: 2}
    assert {(link.source, link.target) for link in found.links if link.target == MILK} == {(FARM, MILK)}
    assert minutes(found) == [1, 2, 3]
    assert names(await traced(database, ITEM, steps=1), Direction.UP) == {MILK: 1, SUGAR: 1}
    assert names(await traced(database, ITEM, steps=0), Direction.UP) == {}


async def test_downstream_of_a_lot_is_everything_it_touched(database: Database) -> None:
    await keep(
        database, made(1, [MILK], [ICE], [ITEM, OTHER]), packed(2, BOX, ITEM), packed(3, CASE, BOX), seen(4, CASE)
    )
    found = await traced(database, MILK)
    assert names(found, Direction.DOWN) == {ICE: 1, ITEM: 1, OTHER: 1}
    assert minutes(found) == [1, 2, 3, 4]
    of_case = await traced(database, CASE)
    assert names(of_case, Direction.DOWN) == {BOX: 1, ITEM: 2}
    assert {link.tie for link in of_case.links} == {Tie.PACKED}


async def test_nothing_is_told_of_another_brands_events(database: Database) -> None:
    await keep(database, seen(1, ITEM), packed(2, BOX, ITEM), brand_id=2)
    found = await traced(database, ITEM)
    assert (minutes(found), found.links) == ([], [])


async def test_a_trace_is_cut_at_its_limits(database: Database, monkeypatch: Any) -> None:
    await keep(database, packed(0, BOX, *(f"https://id.gs1.org/01/09506000134352/21/{number}" for number in range(9))))
    monkeypatch.setattr(trace, "THINGS_MAX", 10)
    whole = await traced(database, BOX)
    assert (len(whole.things), whole.is_cut) == (10, False)
    monkeypatch.setattr(trace, "THINGS_MAX", 9)
    cut = await traced(database, BOX)
    assert (len(cut.things), cut.is_cut) == (9, True)
    monkeypatch.setattr(trace, "EVENTS_MAX", 1)
    assert not (await traced(database, ITEM)).is_cut
    await keep(database, seen(1, ITEM))
    assert (await traced(database, ITEM)).is_cut


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_links_of_a_trace_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [f"https://id.gs1.org/01/09506000134352/21/{number}" for number in range(8)]
    await keep(database, made(1, [MILK], [ICE], items[:4]), made(2, [ICE, SUGAR, FARM], [], items))
    whole = await traced(database, MILK)  # 5 links of the first event, 8 of ICE
    assert (len(whole.links), whole.is_cut) == (13, False)
    for most, is_cut in ((14, False), (13, False), (12, True), (4, True)):
        monkeypatch.setattr(trace, "LINKS_MAX", most)
        found = await traced(database, MILK)
        assert (len(found.links), found.is_cut) == (min(most, 13), is_cut)
        assert found.links == whole.links[:most]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_content_of_all_steps_together_is_bounded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(database, made(1, [FARM], [MILK]), made(2, [MILK], [ICE], [ITEM]))
    whole = await traced(database, ITEM)
    size = sum(len(event.content.encode()) for event in whole.events)
    assert (len(whole.events), whole.is_cut) == (2, False)
    for most, count in ((size + 1, 2), (size, 2), (size - 1, 1)):
        monkeypatch.setattr(trace, "CONTENT_BYTES_MAX", most)
        found = await traced(database, ITEM)
        assert (len(found.events), found.is_cut) == (count, count < 2)


async def test_what_a_thing_was_ever_in_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    in_and_out = [(packed(2 * one, BOX, ITEM), packed(2 * one + 1, BOX, ITEM, action="DELETE")) for one in range(4)]
    await keep(database, *(event for both in in_and_out for event in both))
    for most, is_cut in ((5, False), (4, False), (3, True)):
        monkeypatch.setattr(trace, "THINGS_MAX", most)
        found = await traced(database, ITEM)
        assert (len(found.links), found.is_cut) == (min(most, 4), is_cut)
        async with database.reading() as session:
            limits = {"looks_inside": False, "events_max": 1, "things_max": most}
            taken = await trace_step.take(procedures.asking(session), BRAND, [ITEM], **limits)
        assert len(taken.around) == min(most, 4)
