"""Finding events page by page: by whichever index, each once, in order, and never more than a page may cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit.db import Database
from scan_api.provenance import event_query, event_search, event_walk, locations, resources
from scan_api.provenance.event_query import QueryTooComplex, TooManyEvents
from scan_api.provenance.locations import Told
from tests.scan_api.event_sender import URN, seen
from tests.scan_api.provenance.event_world import BRAND_ID, OTHER_BRAND_ID, RECORDED_AT, keep, page, walked

SGLN = "urn:epc:id:sgln:9506000."


def at(number: int) -> str:
    return (datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat()


def event(number: int, **more: Any) -> dict[str, Any]:
    """The event `urn:x:NUMBER`, a minute after the one before it."""
    return seen(str(number), at(number), eventID=f"urn:x:{number}", **more)


def ids(*numbers: int) -> list[str]:
    return [f"urn:x:{number}" for number in numbers]


async def flat(database: Database, *pairs: tuple[str, str]) -> list[str]:
    return [one for some in await walked(database, ("orderDirection", "ASC"), *pairs) for one in some]


async def test_by_any_way_each_event_comes_once_in_order(database: Database) -> None:
    step = {"bizStep": "receiving", "readPoint": {"id": SGLN + "00001.0"}}
    events = [event(n, **(step if n % 3 == 0 else {}), **({"ex:odd": n} if n % 2 else {})) for n in range(12)]
    await keep(database, *events[:6])
    await keep(database, *events[6:], at=RECORDED_AT + timedelta(hours=1))
    await keep(database, event(50), brand_id=OTHER_BRAND_ID)
    everything = [f"{URN}*".replace(":id:", ":idpat:")]
    for pairs, expected in (
        ([], range(12)),
        ([("EQ_bizStep", "receiving")], range(0, 12, 3)),
        ([("EQ_bizStep", "receiving|shipping")], range(12)),
        ([("EQ_readPoint", SGLN + "00001.0"), ("EQ_bizStep", "receiving")], range(0, 12, 3)),
        ([("EXISTS_ex:odd", "")], range(1, 12, 2)),
        ([("GE_ex:odd", "5"), ("EQ_bizStep", "receiving")], [9]),
        ([("MATCH_epc", "|".join(URN + str(n) for n in (2, 3, 5)))], [2, 3, 5]),
        ([("MATCH_epc", everything[0])], range(12)),
        ([("MATCH_epc", everything[0]), ("MATCH_anyEPC", URN + "4")], [4]),
        ([("MATCH_epc", URN + "4"), ("orderBy", "recordTime")], [4]),
        ([("EQ_eventID", "urn:x:3|urn:x:7|urn:x:99")], [3, 7]),
        ([("GE_eventTime", at(3)), ("LT_eventTime", at(5))], [3, 4]),
        ([("GE_recordTime", (RECORDED_AT + timedelta(hours=1)).isoformat())], range(6, 12)),
        ([("eventType", "ObjectEvent"), ("EQ_action", "OBSERVE")], range(12)),
        ([("EXISTS_errorDeclaration", "")], []),
    ):
        for per_page in ("2", "100"):
            found = await flat(database, *pairs, ("perPage", per_page))
            if ("orderBy", "recordTime") in pairs:
                found.sort()
            assert found == ids(*expected), (pairs, per_page)
    backwards = [one for some in await walked(database, ("perPage", "5")) for one in some]
    assert backwards == ids(*reversed(range(12)))
    by_record = await walked(database, ("orderBy", "recordTime"), ("perPage", "5"), ("orderDirection", "ASC"))
    assert set(by_record[0]) <= set(ids(*range(6)))
    assert sorted(one for some in by_record for one in some) == sorted(ids(*range(12)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_ends_where_its_work_is_done(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(database, *(event(n, **({"ex:rare": 1} if n in (5, 17) else {})) for n in range(20)))
    for name, value in (("WINDOW_EVENTS", 5), ("MET_AT_ONCE_MAX", 3)):
        monkeypatch.setattr(event_walk, name, value)
    monkeypatch.setattr(event_search, "Work", lambda sifted=6: _work(sifted, 4))
    pages = await walked(database, ("EXISTS_ex:rare", ""), ("orderDirection", "ASC"))
    assert ([one for some in pages for one in some], len(pages) > 4) == (ids(5, 17), True)
    assert all(len(some) <= 1 for some in pages)
    pages = await walked(database, ("EQ_action", "DELETE"))
    assert ([one for some in pages for one in some], len(pages) > 1) == ([], True)
    monkeypatch.setattr(event_search, "Work", lambda sifted=6: _work(6, 4))
    with pytest.raises(QueryTooComplex):
        await page(database, ("EXISTS_ex:rare", ""), ("maxEventCount", "5"))


_REAL_WORK = event_search.Work


def _work(sifted: int, decoded: int) -> Any:
    return _REAL_WORK(sifted=sifted, decoded=decoded)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_has_so_many_bytes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(database, *(event(n) for n in range(6)))
    one = (await page(database, ("perPage", "1"))).events[0]
    for size, count in ((1, 1), (len(one.content), 1), (2 * len(one.content), 2), (3 * len(one.content) - 1, 2)):
        monkeypatch.setattr(event_search, "PAGE_BYTES_MAX", size)
        assert [len(some) for some in await walked(database)] == [count] * (6 // count)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_events_are_counted_up_to_a_limit(database: Database) -> None:
    await keep(database, *(event(n) for n in range(5)))
    for parameter in ([], [("MATCH_epc", "urn:epc:idpat:sgtin:9506000.*.*")], [("EXISTS_INNER_ex:none", "")]):
        fitting = 0 if len(parameter) and parameter[0][0].startswith("EXISTS") else 5
        assert len((await page(database, *parameter, ("maxEventCount", "5"))).events) == fitting
    with pytest.raises(TooManyEvents):
        await page(database, ("maxEventCount", "4"))
    assert [len(some) for some in await walked(database, ("eventCountLimit", "4"), ("perPage", "3"))] == [3, 1]


async def test_a_hundred_companies_at_once(database: Database) -> None:
    await keep(database, event(1), event(2, epcList=["urn:epc:id:sscc:9506000.0000000001"]))
    patterns = [f"urn:epc:idpat:sgtin:{company}.*.*" for company in range(9_506_000, 9_506_100)]
    assert await flat(database, ("MATCH_epc", "|".join(patterns))) == ids(1)
    assert await flat(database, ("MATCH_epc", "urn:epc:idpat:sscc:9506000.*")) == ids(2)
    assert await flat(database, ("MATCH_epc", "urn:epc:idpat:sgtin:9506000.013435.[0-1]")) == ids(1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_broad_patterns_are_walked_by_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(database, *(event(n) for n in range(8)))
    monkeypatch.setattr(event_walk, "THINGS_EXAMINED_MAX", 4)
    pattern = ("MATCH_epc", "urn:epc:idpat:sgtin:9506000.*.*")
    assert await flat(database, pattern, ("perPage", "3")) == ids(*range(8))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_prefixes_of_a_query_are_expanded(database: Database) -> None:
    await keep(database, event(1, bizStep="https://ns.example.com/curing", epcList=["https://ns.example.com/thing/1"]))
    for name, value in (("EQ_bizStep", "my:curing"), ("MATCH_epc", "my:thing/1"), ("EQ_bizStep", "other:curing")):
        found = (await page(database, (name, value), header="my=https://ns.example.com/")).events
        assert len(found) == (0 if value.startswith("other") else 1), (name, value)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_error_is_found_with_its_event(database: Database) -> None:
    declared = {"declarationTime": "2026-06-03T08:00:00Z", "reason": "did_not_occur"}
    await keep(database, event(1), event(2))
    await keep(database, event(1, errorDeclaration=declared))
    assert await flat(database, ("EQ_eventID", "urn:x:1")) == ids(1, 1)
    assert await flat(database, ("EXISTS_errorDeclaration", "")) == ids(1)


async def test_locations_are_found_with_all_below(database: Database) -> None:
    spots = {1: "00001.0", 2: "00001.dock", 3: "00002.0", 4: "00003.0"}
    await keep(database, *(event(n, bizLocation={"id": SGLN + spot}) for n, spot in spots.items()))
    async with database.writing() as session:
        told = [
            Told(SGLN + "00002.0", SGLN + "00001.dock", {"urn:epcglobal:cbv:mda:sst": "201"}),
            Told(SGLN + "00001.0", SGLN + "00002.0", {}),  # a circle
        ]
        await locations.put(session, BRAND_ID, told)
    for name, value, expected in (
        ("WD_bizLocation", "https://id.gs1.org/414/9506000000015", [1, 2, 3]),
        ("WD_bizLocation", SGLN + "00003.0", [4]),
        ("EQ_bizLocation", SGLN + "00001.0", [1]),
        ("HASATTR_bizLocation", "urn:epcglobal:cbv:mda:sst", [3]),
        ("EQATTR_bizLocation_urn:epcglobal:cbv:mda:sst", "201", [3]),
        ("EQATTR_bizLocation_urn:epcglobal:cbv:mda:sst", "202", []),
        ("WD_readPoint", SGLN + "00001.0", []),
    ):
        assert await flat(database, (name, value)) == ids(*expected), (name, value)
    async with database.writing() as session:
        await locations.forget(session, BRAND_ID, SGLN + "00002.0")
        assert [one.location for one in await locations.listed(session, BRAND_ID, None, 9)] == [
            "https://id.gs1.org/414/9506000000015"
        ]


async def test_what_a_repository_has_is_listed_each_once(database: Database) -> None:
    await keep(database, *(event(n, bizStep=("shipping", "receiving")[n % 2]) for n in range(6)))
    await keep(database, event(7, epcList=[URN + "1", URN + "7"], disposition="in_transit"))
    await keep(database, event(8, bizStep="packing"), brand_id=OTHER_BRAND_ID)
    async with database.reading() as session:
        steps: list[str] = []
        token = None
        while True:
            got = await resources.words(session, BRAND_ID, "bizSteps", 1, token)
            steps += got.names
            if (token := got.next_token) is None:
                break
        assert steps == ["receiving", "shipping"]
        assert (await resources.words(session, BRAND_ID, "dispositions", 9, None)).names == ["in_transit"]
        assert (await resources.words(session, BRAND_ID, "readPoints", 9, None)).names == []
        named: list[str] = []
        while True:
            page_of_things = await resources.things(session, BRAND_ID, 2, token)
            named += page_of_things.names
            if (token := page_of_things.next_token) is None:
                break
    assert [name.rpartition("/")[2] for name in named] == ["0", "1", "2", "3", "4", "5", "7"]


def test_names_of_parameters_are_those_of_the_standard() -> None:
    with pytest.raises(event_query.QueryParameterInvalid) as refused:
        event_query.parse([("EQ_colour", "red")])
    assert refused.value.problem_type == "epcisException:QueryParameterException"
