"""Codes that page and API refuse are counted by product and day, and told in the statistics, without a row for each."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from kit.db import Database
from offline_sdk.verifier import BundleState, Verdict
from scan_api.regulators import sights, statistics, tallies
from scan_api.regulators.refused_scans import KEYS_MAX, RefusedScans
from scan_api.regulators.scope import Scope
from scan_api.regulators.statistics import By, Question
from scan_api.regulators.tallies import Kind, Tally
from scan_api.scans import Judgement
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, World
from tests.stand import Stand, wait_until

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NOBODYS = "09506000999999"


def refused(error: str | None, gtin: str | None = MILK) -> Judgement:
    verdict = Verdict("refused", error, "", gtin, "1" * 14, 1, 7, None, 1, BundleState.FRESH, clock_suspect=False)
    return Judgement(verdict, error, "", None)


async def _told(database: Database) -> dict[tuple[str, str, str], int]:
    async with database.reading() as session:
        rows = await session.exec(select(Tally))
        return {(one.day, one.gtin, one.kind): one.count for one in rows}


async def test_what_is_refused_is_told_by_month_and_product(world: World) -> None:
    counted = RefusedScans(world.database)
    for error in ("BadSignature", "UnknownKey", "KeyOutOfScope", "NeverIssued"):
        counted.note(refused(error), NOW)
    for error in ("Revoked", "Recalled", "Voided", "Held"):
        counted.note(refused(error, TEA), NOW)
    counted.note(refused("BadSignature"), NOW - timedelta(days=31))
    for error, gtin in ((None, MILK), ("Malformed", None), ("AlgorithmMissing", MILK), ("BadSignature", NOBODYS)):
        counted.note(refused(error, gtin), NOW)
    await counted.add()
    await counted.add()  # what was added is not added again
    counted.note(refused("Voided", TEA), NOW)
    await counted.add()
    async with world.database.reading() as session:
        reach = await sights.reach_of(session, Scope())
        lines = await statistics.answer(session, reach, Question("2026-05", "2026-06", (By.MONTH, By.GTIN)))
    assert [(line.kind, line.count, line.month, line.gtin) for line in lines] == [
        (Kind.REFUSED_ONLINE, 5, "2026-06", TEA),
        (Kind.SUSPECTED_FAKES_ONLINE, 1, "2026-05", MILK),
        (Kind.SUSPECTED_FAKES_ONLINE, 4, "2026-06", MILK),
    ]


@ONE_DATABASE
@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_flood_of_other_products_is_left_out(world: World, over: int) -> None:
    counted = RefusedScans(world.database)
    for number in range(KEYS_MAX - 1 + over):
        counted.note(refused("BadSignature", f"{number:014d}"), NOW)
    for _again in range(2):
        counted.note(refused("BadSignature"), NOW)
    await counted.add()
    assert sum((await _told(world.database)).values()) == (2 if over <= 0 else 0)


@ONE_DATABASE
async def test_what_cannot_be_added_is_kept_for_the_next_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = RefusedScans(world.database)
    counted.note(refused("Recalled"), NOW)

    async def breaks(*_given: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(tallies, "add", breaks)
        with pytest.raises(ConnectionError):
            await counted.add()
    counted.note(refused("Recalled"), NOW)
    await counted.add()
    assert list((await _told(world.database)).values()) == [2]


@ONE_DATABASE
@pytest.mark.parametrize("end", ["stopped", "cancelled"])
async def test_a_server_that_ends_adds_what_it_has(world: World, end: str) -> None:
    counted, stop = RefusedScans(world.database), asyncio.Event()
    task = asyncio.create_task(counted.run(stop))
    await asyncio.sleep(0)
    counted.note(refused("Recalled"), NOW)
    if end == "stopped":
        stop.set()
    else:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert list((await _told(world.database)).values()) == [1]


def test_scans_that_page_and_api_refuse_are_counted_and_robots_are_not(stand: Stand) -> None:
    paths = stand.installation.refused
    gtin = stand.order("on sale").gtin

    def counts() -> dict[str, int]:
        rows = stand.rows(select(Tally).where(Tally.gtin == gtin))
        return {kind: sum(one.count for one in rows if one.kind == kind) for kind in Kind}

    before = counts()
    stand.scan(paths["BadSignature"])
    stand.scan(paths["NeverIssued serial"], accept="text/html")
    stand.scan(paths["Recalled"])
    stand.scan(paths["Revoked item"], user_agent="WhatsApp/2.0 bot")
    stand.scan(paths["Malformed"])

    def grown(kind: Kind) -> int:
        return counts()[kind] - before[kind]

    wait_until(lambda: grown(Kind.REFUSED_ONLINE) >= 1, "refused scans to be added")
    assert (grown(Kind.SUSPECTED_FAKES_ONLINE), grown(Kind.REFUSED_ONLINE)) == (2, 1)
