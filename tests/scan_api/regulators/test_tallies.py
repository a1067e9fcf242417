"""Tallies and statistics: counted once, on their day, wherever a worker is killed; told as far as a scope reaches."""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlmodel import select

from codes.acts import record_act
from codes.orders import CodeOrder
from kit.db import Session
from offline_sdk.code_text import Profile
from scan_api import scans
from scan_api.device_scans import DeviceScan
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from scan_api.regulators import recall_orders, sights, statistics, tallies, tally_sources, territory
from scan_api.regulators.recall_orders import Subject, SubjectKind
from scan_api.regulators.scope import Scope
from scan_api.regulators.statistics import MONTHS_MAX, By, Line, Question, StatisticsInvalid
from scan_api.regulators.tallies import LAG, Counts, Kind, Tally, Window
from scan_api.scans import SCANNED_OFTEN_FROM, Seen
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, World

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LATER = NOW + timedelta(hours=2)
DAY = "2026-06-10"


async def _tallied(world: World) -> dict[tuple[str, str, str, str], int]:
    async with world.database.reading() as session:
        return {(one.day, one.gtin, one.region, one.kind): one.count for one in await session.exec(select(Tally))}


async def _activate(session: Session, placed: CodeOrder, place: str | None, items: int, at: datetime = NOW) -> None:
    assert placed.order_id is not None
    await events.record_for_order(session, placed, Happening(Step.ACTIVATED, at, place, None), at)
    await record_act(session, placed.order_id, "activated", None, {"items": items}, at)


async def _live(world: World) -> None:
    """Something of everything."""
    milk, tea = await world.order(MILK, 1, 100), await world.order(TEA, 1, 50, NOW + timedelta(hours=1))
    often = [Seen(milk.item_key(3), Profile.OUTER, NOW + timedelta(seconds=at)) for at in range(SCANNED_OFTEN_FROM)]
    async with world.database.writing() as session:
        await _activate(session, tea, "Depot Xi'an", 40)
        assert milk.order_id is not None
        await record_act(session, milk.order_id, "voided", None, {"items": 7}, NOW)
        await record_act(session, milk.order_id, "recalled", None, {"reason": "Glass."}, NOW + timedelta(minutes=9))
        await record_act(session, milk.order_id, "package_fetched", None, {}, NOW)
        await scans.record_many(session, "page", [*often, Seen(tea.item_key(1), Profile.OUTER, NOW)])
        await scans.record_many(session, "page", [Seen(milk.item_key(3), Profile.OUTER, NOW + timedelta(minutes=40))])
        subject = Subject.of(SubjectKind.GTIN, MILK)
        await recall_orders.order(session, world.dairy, uuid.UUID(int=1), "Bureau", subject, "Glass.", LATER, NOW)
        for number, (verdict, error, refusal, gtin) in enumerate(
            [
                ("genuine", None, None, MILK),
                ("refused", "BadSignature", None, MILK),
                ("genuine", None, "NeverIssued", MILK),
                ("refused", "Revoked", None, MILK),
                ("ask", "TrustMissing", None, MILK),
                ("refused", "BadSignature", None, "09506000999999"),  # nobody's product
                ("refused", "Malformed", None, None),
            ]
        ):
            session.add(_seen_at_counter(number + 1, verdict, error, refusal, gtin))


def _seen_at_counter(number: int, verdict: str, error: str | None, refusal: str | None, gtin: str | None) -> DeviceScan:
    then = NOW - timedelta(days=9)
    return DeviceScan(
        device_id=uuid.UUID(int=5), journal="0" * 16, number=number, received_at=NOW, scanned_at=then, at_ms=1,
        verdict=verdict, error=error, gtin=gtin, clock_suspect=False, refusal=refusal, content_sha256=bytes(32),
    )  # fmt: skip


COUNTED = {
    (DAY, MILK, "", "issued"): 100,
    (DAY, TEA, "", "issued"): 50,
    (DAY, TEA, "6101", "activated"): 40,
    (DAY, MILK, "", "voided"): 7,
    (DAY, MILK, "", "recalled"): 100,
    (DAY, MILK, "", "scans"): SCANNED_OFTEN_FROM + 1,
    (DAY, TEA, "", "scans"): 1,
    (DAY, MILK, "", "suspected_copies"): 1,
    (DAY, MILK, "", "recall_orders"): 1,
    ("2026-06-01", MILK, "", "scans"): 1,
    ("2026-06-01", MILK, "", "suspected_fakes"): 2,
    ("2026-06-01", MILK, "", "refused"): 1,
}


async def test_everything_is_counted_once_on_its_day(world: World) -> None:
    assert await tally_sources.keep_up(world.database, lambda: LATER) == 0  # nothing can have happened yet
    await _live(world)
    assert await tally_sources.keep_up(world.database, lambda: LATER) > 0
    assert await _tallied(world) == COUNTED
    assert await tally_sources.keep_up(world.database, lambda: LATER) == 0
    async with world.database.reading() as session:
        assert await statistics.counted_until(session) == LATER - LAG
    await asyncio.gather(*(tally_sources.keep_up(world.database, lambda: LATER + timedelta(hours=2)) for _ in range(3)))
    assert await _tallied(world) == COUNTED


@ONE_DATABASE
async def test_a_worker_that_stops_anywhere_counts_all_the_same(world: World) -> None:
    await _live(world)
    turns = 0
    while await tally_sources.keep_up(world.database, lambda: LATER, windows_max=4):
        turns += 1
    assert turns > 2
    assert await _tallied(world) == COUNTED


@ONE_DATABASE
async def test_what_breaks_in_a_window_leaves_nothing_of_it(world: World) -> None:
    await world.order(MILK, 1)

    async def breaks(session: Session, window: Window) -> tuple[Counts, int]:
        counts, _rows = await tally_sources.count_orders(session, window)
        await tallies.add(session, counts)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await tallies.follow(world.database, "orders", breaks, LATER)
    assert await _tallied(world) == {}
    await tallies.follow(world.database, "orders", tally_sources.count_orders, LATER)
    assert await _tallied(world) == {(DAY, MILK, "", "issued"): 100}


@ONE_DATABASE
async def test_windows_are_of_one_day_in_china_and_follow_each_other(world: World) -> None:
    await world.order(MILK, 1, at=NOW - timedelta(days=3))
    seen: list[Window] = []

    async def count(_session: Session, window: Window) -> tuple[Counts, int]:
        seen.append(window)
        return Counter(), 0

    await tallies.follow(world.database, "test", count, NOW)
    assert seen[0].start == datetime(2026, 6, 6, 16, tzinfo=UTC)  # midnight in China
    assert seen[-1].end == NOW - LAG
    assert all(one.end == after.start for one, after in pairwise(seen))
    assert all(tallies.day_of(one.end - timedelta(microseconds=1)) == one.day for one in seen)
    assert len(seen) < 30


@ONE_DATABASE
async def test_windows_shorten_where_much_happened(world: World) -> None:
    await world.order(MILK, 1, at=NOW - timedelta(days=1))
    seen: list[Window] = []

    async def count(_session: Session, window: Window) -> tuple[Counts, int]:
        seen.append(window)
        return Counter(), tallies.ROWS_WANTED + 1

    await tallies.follow(world.database, "test", count, NOW, windows_max=9)
    assert [(window.end - window.start).total_seconds() for window in seen][:8] == [
        600,
        300,
        150,
        75,
        37.5,
        18.75,
        10,
        10,
    ]


async def _lines(world: World, scope: Scope, *by: By, kinds: tuple[Kind, ...] = tuple(Kind)) -> list[Line]:
    async with world.database.reading() as session:
        reach = await sights.reach_of(session, scope)
        return await statistics.answer(session, reach, Question("2026-05", "2026-06", by, kinds))


async def test_statistics_as_far_as_a_scope_reaches(world: World) -> None:
    await _live(world)
    await tally_sources.keep_up(world.database, lambda: LATER)
    of_all = await _lines(world, Scope(), By.MONTH, By.BRAND, kinds=(Kind.ISSUED, Kind.SCANS))
    assert of_all == [
        Line(Kind.ISSUED, 100, "2026-06", brand_id=world.dairy),
        Line(Kind.ISSUED, 50, "2026-06", brand_id=world.tea_house),
        Line(Kind.SCANS, 22, "2026-06", brand_id=world.dairy),
        Line(Kind.SCANS, 1, "2026-06", brand_id=world.tea_house),
    ]
    assert [line.counted for line in of_all] == [{world.dairy}, {world.tea_house}] * 2
    [together] = await _lines(world, Scope(), kinds=(Kind.ISSUED,))
    assert (together.count, together.counted) == (150, {world.dairy, world.tea_house})
    xian = await _lines(world, Scope(("61",)), By.REGION, By.GTIN, kinds=(Kind.ISSUED, Kind.ACTIVATED))
    assert xian == [  # of the tea house, what happened here alone
        Line(Kind.ACTIVATED, 40, region="6101", gtin=TEA),
        Line(Kind.ISSUED, 100, gtin=MILK),
    ]
    food = await _lines(world, Scope(categories=("own:food",)), By.CATEGORY, kinds=(Kind.RECALLED,))
    assert {(line.category, line.count) for line in food} == {("own:food/dairy", 100), ("gpc:50131700", 100)}
    assert await _lines(world, Scope(("62",))) == []
    assert await _lines(world, Scope(), kinds=(Kind.VOIDED,)) == [Line(Kind.VOIDED, 7)]
    async with world.database.writing() as session:
        await territory.set_categories(session, MILK, ["own:toys"], NOW)
    assert await _lines(world, Scope(categories=("own:food",)), kinds=(Kind.VOIDED,)) == []


def test_limits_of_a_question() -> None:
    for first, last in (("2026-05", "2026-05"), ("2023-01", "2025-11"), ("2023-01", "2025-12")):
        Question(first, last, ())
    assert MONTHS_MAX == 36
    for first, last in (("2026-05", "2026-04"), ("2023-01", "2026-01"), ("2026-13", "2026-13"), ("26-1", "26-1")):
        with pytest.raises(StatisticsInvalid):
            Question(first, last, ())
    with pytest.raises(StatisticsInvalid):
        Question("2026-05", "2026-05", (By.MONTH, By.MONTH))
    with pytest.raises(StatisticsInvalid):
        Question("2026-05", "2026-05", (), region_digits=3)
