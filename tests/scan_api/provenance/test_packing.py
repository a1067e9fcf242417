"""Packing: what events say of containers, in whatever order they come, and the two directions in which it is asked."""

import asyncio
import itertools
import shutil
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from kit.db import Database
from scan_api.provenance import aggregation, captures, documents, packed, packing
from scan_api.provenance.aggregation import LEVELS_MAX
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.packing import Packing
from tests.scan_api.provenance.plain_packing import PlainPacking

BRAND, OTHER_BRAND = 1, 2
T0 = datetime(2026, 6, 1, tzinfo=UTC)
CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"


def item(number: int) -> str:
    return f"https://id.gs1.org/01/09506000134352/21/{number:014d}"


def box(number: int) -> str:
    body = f"09506000{number:09d}"
    digits = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(body))
    return f"https://id.gs1.org/00/{body}{-digits % 10}"


def at(minute: int) -> datetime:
    return T0 + timedelta(minutes=minute)


def event(action: str, parent: str, children: Sequence[str], minute: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "AggregationEvent",
        "eventTime": at(minute).isoformat(),
        "eventTimeZoneOffset": "+00:00",
        "parentID": parent,
        "childEPCs": list(children),
        "action": action,
        **more,
    }


def declared(sent: Mapping[str, Any], minute: int) -> dict[str, Any]:
    return {**sent, "errorDeclaration": {"declarationTime": at(minute).isoformat(), "reason": "did_not_occur"}}


async def capture(database: Database, *events: Mapping[str, Any], brand_id: int = BRAND) -> list[str]:
    whole = {
        "@context": CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": T0.isoformat(),
        "epcisBody": {"eventList": list(events)},
    }
    judged = captures.judge(brand_id, documents.read(whole))
    async with database.writing() as session:
        done = await captures.capture(session, brand_id, uuid.uuid4(), CONTEXT, judged, ErrorBehaviour.PROCEED, T0)
    return [str(result.outcome) for result in done.results]


async def chain_of(database: Database, name: str, minute: int, brand_id: int = BRAND) -> list[str]:
    async with database.reading() as session:
        return [one.parent for one in await packed.containers_of(session, brand_id, name, at(minute))]


async def contents(database: Database, name: str, minute: int, brand_id: int = BRAND) -> set[str]:
    async with database.reading() as session:
        found = await packed.contents_of(session, brand_id, name, at(minute))
    return {one.child for one in found.things}


async def test_five_levels_are_told_in_both_directions_at_any_moment(database: Database) -> None:
    carton, case, pallet, container = (box(number) for number in range(4))
    await capture(
        database,
        event("ADD", carton, [item(1), item(2)], 10),
        event("ADD", case, [carton], 20),
        event("ADD", pallet, [case], 30),
        event("ADD", container, [pallet], 40),
        event("DELETE", carton, [item(2)], 50),
    )
    assert await chain_of(database, item(1), 9) == []
    assert await chain_of(database, item(1), 10) == [carton]
    assert await chain_of(database, item(1), 30) == [carton, case, pallet]
    assert await chain_of(database, item(1), 99) == [carton, case, pallet, container]
    assert await chain_of(database, item(2), 49) == [carton, case, pallet, container]
    assert await chain_of(database, item(2), 50) == []
    assert await contents(database, container, 39) == set()
    assert await contents(database, container, 49) == {item(1), item(2), carton, case, pallet}
    assert await contents(database, container, 50) == {item(1), carton, case, pallet}
    assert await contents(database, container, 50, OTHER_BRAND) == set()
    async with database.reading() as session:
        cut = await packed.contents_of(session, BRAND, container, at(49), limit=2)
        whole = await packed.contents_of(session, BRAND, container, at(49), limit=5)
    assert ([one.child for one in cut.things], cut.is_cut, whole.is_cut) == ([pallet, case], True, False)


async def test_all_names_of_a_thing_are_one_thing(database: Database) -> None:
    signed = f"https://id.example.com/1{'0' * 160}/01/09506000134352/21/00000000000007"
    urn, pallet = "urn:epc:id:sgtin:9506000.013435.00000000000007", "urn:epc:id:sscc:9506000.0000000007"
    link = "https://id.gs1.org/00/095060000000000077"
    await capture(database, event("ADD", pallet, [urn], 1), event("DELETE", link, [signed], 2))
    [row] = await _open_and_closed(database)
    assert (row.child, row.until) == (item(7), at(2))


async def _open_and_closed(database: Database, brand_id: int = BRAND) -> list[Packing]:
    return [row for row in await _rows(database, brand_id) if row.kind == "add"]


async def _rows(database: Database, brand_id: int) -> list[Packing]:
    async with database.reading() as session:
        return list(await session.exec(select(Packing).where(Packing.brand_id == brand_id)))


async def test_a_move_ends_the_first_place_and_removal_from_elsewhere_changes_nothing(database: Database) -> None:
    await capture(
        database,
        event("ADD", box(1), [item(1)], 10),
        event("ADD", box(2), [item(1)], 20),
        event("DELETE", box(1), [item(1)], 30),
        event("OBSERVE", box(3), [item(1)], 31),
    )
    assert [await chain_of(database, item(1), minute) for minute in (19, 20, 31)] == [[box(1)], [box(2)], [box(2)]]


async def test_an_emptied_container_loses_what_came_before_and_keeps_what_comes_after(database: Database) -> None:
    emptied = event("DELETE", box(1), [], 20)
    del emptied["childEPCs"]
    await capture(database, event("ADD", box(1), [item(1)], 10), event("ADD", box(1), [item(3)], 20))
    await capture(database, emptied)
    await capture(database, event("ADD", box(1), [item(2)], 15))  # heard of late
    assert await contents(database, box(1), 19) == {item(1), item(2)}
    assert await contents(database, box(1), 20) == {item(3)}
    assert await capture(database, declared(emptied, 40)) == ["accepted"]
    assert await contents(database, box(1), 20) == {item(1), item(2), item(3)}


async def test_what_one_document_removes_and_adds_at_one_moment_is_replaced(database: Database) -> None:
    await capture(database, event("ADD", box(1), [item(1)], 10))
    await capture(database, event("ADD", box(2), [item(1)], 20), event("DELETE", box(1), [item(1)], 20))
    assert await chain_of(database, item(1), 20) == [box(2)]


async def test_an_error_is_undone_also_when_its_declaration_comes_first(database: Database) -> None:
    wrong = event("ADD", box(1), [item(1)], 10, eventID="urn:uuid:0197f0f0-5c00-7000-8000-0000000000e5")
    await capture(database, declared(wrong, 30))
    assert await capture(database, wrong) == ["accepted"]
    assert await chain_of(database, item(1), 30) == []
    unnamed = event("DELETE", box(2), [item(2)], 20)
    await capture(database, event("ADD", box(2), [item(2)], 10), unnamed)
    assert await chain_of(database, item(2), 30) == []
    await capture(database, declared(unnamed, 40))
    await capture(database, declared(unnamed, 50))
    assert await chain_of(database, item(2), 30) == [box(2)]


async def test_the_same_events_again_change_nothing(database: Database) -> None:
    sent = event("ADD", box(1), [item(1)], 10)
    await capture(database, sent)
    assert await capture(database, sent, event("DELETE", box(1), [item(1)], 20)) == ["duplicate", "accepted"]
    assert await chain_of(database, item(1), 20) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_circles_have_no_effect_and_the_first_of_one_document_stays(database: Database) -> None:
    await capture(database, event("ADD", box(1), [box(2)], 10), event("ADD", box(2), [box(1)], 20))
    assert await chain_of(database, box(2), 30) == [box(1)]
    assert await chain_of(database, box(1), 30) == []
    await capture(database, event("ADD", box(5), [box(5)], 10))
    await capture(database, event("ADD", box(4), [box(3)], 20))
    await capture(database, event("ADD", box(3), [box(4)], 10))  # before, but it is heard of later
    assert await chain_of(database, box(3), 30) == [box(4)]
    assert await chain_of(database, box(4), 30) == []
    assert await chain_of(database, box(5), 30) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("order", ["inwards", "outwards", "one document"])
async def test_a_ninth_level_has_no_effect(database: Database, order: str) -> None:
    levels = [box(number) for number in range(LEVELS_MAX)]
    events = [event("ADD", outer, [inner], 10 + n) for n, (inner, outer) in enumerate(itertools.pairwise(levels))]
    if order == "one document":
        await capture(database, *events)
    for one in {"inwards": events[::-1], "outwards": events}.get(order, []):
        await capture(database, one)
    assert await chain_of(database, levels[0], 90) == levels[1:]  # eight levels
    await capture(database, event("ADD", levels[0], [item(1)], 50))
    await capture(database, event("ADD", box(99), [levels[-1]], 51))
    assert await chain_of(database, item(1), 90) == []
    assert await chain_of(database, levels[-1], 90) == []


async def _tower(database: Database, levels: int, minute: int) -> list[str]:
    """Boxes of so many levels, each in the next from the minute on, in documents of one event."""
    tower = [box(500 + number) for number in range(levels)]
    for inner, outer in itertools.pairwise(tower):
        await capture(database, event("ADD", outer, [inner], minute))
    return tower


async def test_what_a_container_held_at_other_times_is_no_level(database: Database) -> None:
    """It held something before and after, not while it is at the bottom of eight levels."""
    tower = await _tower(database, LEVELS_MAX - 1, 10)
    await capture(database, event("ADD", box(1), [item(1)], 10), event("DELETE", box(1), [item(1)], 20))
    await capture(database, event("ADD", tower[0], [box(1)], 30), event("DELETE", tower[0], [box(1)], 40))
    await capture(database, event("ADD", box(1), [item(2)], 50))
    assert await chain_of(database, box(1), 35) == tower
    assert await chain_of(database, item(1), 15) == [box(1)]
    assert await chain_of(database, item(2), 55) == [box(1)]
    assert await capture(database, event("ADD", tower[0], [box(1)], 60)) == ["accepted"]
    assert await chain_of(database, box(1), 65) == []  # now it would be nine


async def test_what_leaves_a_container_in_the_same_document_is_no_level(database: Database) -> None:
    tower = await _tower(database, LEVELS_MAX - 1, 10)
    await capture(database, event("ADD", box(1), [item(1)], 10))
    await capture(database, event("DELETE", box(1), [item(1)], 20), event("ADD", tower[0], [box(1)], 30))
    assert await chain_of(database, box(1), 35) == tower


async def test_what_a_declared_error_put_into_a_container_is_no_level(database: Database) -> None:
    tower = await _tower(database, LEVELS_MAX - 1, 10)
    wrong = event("ADD", box(1), [item(1)], 10)
    await capture(database, wrong)
    await capture(database, declared(wrong, 40), event("ADD", tower[0], [box(1)], 30))
    assert await chain_of(database, box(1), 35) == tower


async def test_levels_above_and_below_count_together_only_at_the_same_time(database: Database) -> None:
    tower = await _tower(database, LEVELS_MAX - 1, 10)
    await capture(database, event("DELETE", tower[1], [tower[0]], 40))
    await capture(database, event("ADD", box(1), [item(1)], 40))
    await capture(database, event("ADD", tower[0], [box(1)], 30))
    assert await chain_of(database, box(1), 35) == tower
    assert await chain_of(database, item(1), 45) == [box(1), tower[0]]


async def test_what_becomes_a_container_in_the_same_document_is_looked_into(database: Database) -> None:
    tower = await _tower(database, LEVELS_MAX - 2, 10)
    await capture(database, event("ADD", box(2), [box(1)], 10))
    await capture(database, event("ADD", box(1), [item(1)], 20), event("ADD", tower[0], [box(2)], 30))
    assert await chain_of(database, item(1), 35) == [box(1), box(2)]  # and no nine


async def test_of_one_documents_ninth_levels_the_last_in_time_has_no_effect(database: Database) -> None:
    levels = [box(number) for number in range(LEVELS_MAX + 1)]
    events = [event("ADD", outer, [inner], 10 + n) for n, (inner, outer) in enumerate(itertools.pairwise(levels))]
    await capture(database, *events[::-1])
    assert await chain_of(database, levels[0], 90) == levels[1:-1]
    assert await chain_of(database, levels[-2], 90) == []


THINGS = [[item(1), item(2), item(3)], [box(1), box(2)], [box(3), box(4)], [box(5)]]
ranked = st.integers(0, 2).flatmap(
    lambda rank: st.tuples(
        st.sampled_from(["ADD", "ADD", "DELETE", "EMPTY"]),
        st.sampled_from(THINGS[rank + 1]),
        st.lists(st.sampled_from(THINGS[rank]), min_size=1, max_size=3, unique=True),
    )
)
anything = st.tuples(
    st.sampled_from(["ADD", "ADD", "DELETE", "EMPTY"]),
    st.sampled_from([box(number) for number in range(5)]),
    st.lists(st.sampled_from([box(number) for number in range(5)]), min_size=1, max_size=2, unique=True),
)


told_of_boxes = st.lists(
    st.tuples(
        st.sampled_from(["ADD", "ADD", "ADD", "DELETE", "EMPTY"]),
        st.sampled_from([box(number) for number in range(6)]),
        st.lists(st.sampled_from([box(number) for number in range(6)]), min_size=1, max_size=2, unique=True),
    ),
    max_size=12,
)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(told=told_of_boxes, data=st.data())
def test_exactly_those_additions_have_no_effect_that_cannot_be(
    database_url: str, monkeypatch: pytest.MonkeyPatch, told: Any, data: st.DataObject
) -> None:
    """As a plain model says, with three levels, so that few things are enough."""
    monkeypatch.setattr(aggregation, "LEVELS_MAX", 3)
    monkeypatch.setattr(packing, "LEVELS_MAX", 3)
    arriving, sizes = data.draw(st.permutations(range(len(told)))), data.draw(st.integers(1, 4))
    events, plain = _events(told), PlainPacking(told, levels_max=3)

    async def check() -> None:
        database, brand_id = Database(database_url), next(brands)
        for start in range(0, len(arriving), sizes):
            minutes = arriving[start : start + sizes]
            await capture(database, *(events[minute] for minute in minutes), brand_id=brand_id)
            plain.arrive(minutes)
            rows = await _rows(database, brand_id)
            refused = {(row.since, row.child) for row in rows if row.kind in ("circle", "too_deep")}
            assert refused == {(at(minute), child) for minute, child in plain.without_effect}
            for minute in range(len(told)):
                lasting = [row for row in rows if row.since <= at(minute) < (row.until or at(99))]
                assert {row.child: row.parent for row in lasting} == plain.where(minute)
        await database.close()

    asyncio.run(check())


def _events(told: Sequence[tuple[str, str, list[str]]]) -> list[dict[str, Any]]:
    made = []
    for minute, (action, parent, children) in enumerate(told):
        one = event("DELETE" if action == "EMPTY" else action, parent, children, minute)
        if action == "EMPTY":
            del one["childEPCs"]
        made.append(one)
    return made


def _replayed(told: Sequence[tuple[str, str, list[str]]], wrong: set[int], minute: int) -> dict[str, str]:
    """Where everything is at a minute, by doing what was told one after another."""
    where: dict[str, str] = {}
    for number, (action, parent, children) in enumerate(told[: minute + 1]):
        if number in wrong:
            continue
        for child in where.copy() if action == "EMPTY" else children:
            if action == "ADD":
                where[child] = parent
            elif where.get(child) == parent:
                del where[child]
    return where


@pytest.fixture(scope="module")
def template(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose examples are of a brand each."""
    return Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("packing") / "fanxing.db"))


brands = itertools.count(100)
quiet = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@quiet
@given(told=st.lists(ranked, max_size=8), data=st.data())
def test_whatever_the_order_of_arrival_it_is_as_if_told_in_time(template: Path, told: Any, data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, max(len(told) - 1, 0)), max_size=2)) if told else set()
    events = _events(told)
    arriving = data.draw(st.permutations(events + [declared(events[number], 60) for number in wrong]))
    sizes = data.draw(st.integers(1, 4))

    async def check() -> None:
        database, brand_id = Database(f"sqlite:///{template}"), next(brands)
        for start in range(0, len(arriving), sizes):
            await capture(database, *arriving[start : start + sizes], brand_id=brand_id)
        for minute in range(len(told)):
            where = _replayed(told, set(wrong), minute)
            for thing in itertools.chain(*THINGS):
                expected, current = [], thing
                while current in where:
                    current = where[current]
                    expected.append(current)
                assert await chain_of(database, thing, minute, brand_id) == expected
        await database.close()

    asyncio.run(check())


@quiet
@given(told=st.lists(anything, max_size=10), data=st.data())
def test_nothing_is_ever_in_itself_or_in_two_things(template: Path, told: Any, data: st.DataObject) -> None:
    arriving, sizes = data.draw(st.permutations(_events(told))), data.draw(st.integers(1, 4))

    async def check() -> None:
        database, brand_id = Database(f"sqlite:///{template}"), next(brands)
        for start in range(0, len(arriving), sizes):
            await capture(database, *arriving[start : start + sizes], brand_id=brand_id)
        rows = [row for row in await _open_and_closed(database, brand_id) if row.until is None or row.until > row.since]
        for minute in range(len(told)):
            now = [row for row in rows if row.since <= at(minute) and (row.until is None or row.until > at(minute))]
            where = {row.child: row.parent for row in now}
            assert len(where) == len(now)
            for thing in where:
                current: str | None = thing
                for _step in range(LEVELS_MAX):
                    current = where.get(current) if current is not None else None
                assert current is None
        await database.close()

    asyncio.run(check())
