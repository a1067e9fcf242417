"""Lots of items: what commissioning events tell of them, and what becomes of that when an event was an error."""

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from kit import procedures
from kit.db import Database
from scan_api.provenance import captures, documents, life, lots
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.life import Lot
from scan_api.provenance.lots import LotItems
from tests.scan_api.provenance.test_packing import BRAND, CONTEXT, T0, at, declared, item

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def commissioned(minute: int, *numbers: int, **ilmd: Any) -> dict[str, Any]:
    return {
        "type": "ObjectEvent",
        "action": "ADD",
        "eventTime": at(minute).isoformat(),
        "eventTimeZoneOffset": "+00:00",
        "bizStep": "commissioning",
        "epcList": [item(number) for number in numbers],
        "ilmd": {f"cbvmda:{name}": value for name, value in ilmd.items()},
    }


async def capture(database: Database, *events: Mapping[str, Any]) -> None:
    whole = {
        "@context": CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": T0.isoformat(),
        "epcisBody": {"eventList": list(events)},
    }
    judged = captures.judge(BRAND, documents.read(whole))
    assert [one.problems for one in judged if one.problems] == []
    async with database.writing() as session:
        await captures.capture(session, BRAND, uuid.uuid4(), CONTEXT, judged, ErrorBehaviour.PROCEED, T0)


async def lot_of(database: Database, number: int) -> Lot | None:
    async with database.reading() as session:
        asked = life.values(BRAND, 1, "09506000134352", f"{number:014d}", 0)
        marks, lot = await life.life_of(session, asked)
    assert marks == []
    return lot


async def test_the_last_commissioning_tells_lot_and_dates_and_an_error_is_undone(database: Database) -> None:
    later = commissioned(20, 1, lotNumber="B2", itemExpirationDate="2027-05-01T00:00:00+08:00")
    await capture(database, later)
    await capture(database, commissioned(10, 1, 2, lotNumber="A/1", productionDate="2026-05-01"))
    assert await lot_of(database, 1) == Lot("B2", None, "2027-05-01")
    assert await lot_of(database, 2) == Lot("A/1", "2026-05-01", None)
    assert await lot_of(database, 3) is None
    await capture(database, declared(later, 30))
    assert await lot_of(database, 1) is None


@pytest.mark.parametrize(
    "told", [{"lotNumber": "x" * 21}, {"lotNumber": "a b"}, {"productionDate": "soon"}], ids=range(3)
)
async def test_what_is_no_lot_or_date_is_not_taken(database: Database, told: dict[str, str]) -> None:
    await capture(database, commissioned(10, 1, **told))
    assert await lot_of(database, 1) is None


async def test_the_items_of_a_lot_are_counted_and_the_first_are_named(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await procedures.install(database, [lots.ITEMS])
    await capture(database, commissioned(10, 5, 3, 1, 4, 2, lotNumber="A/1"), commissioned(11, 6, lotNumber="A"))

    async def told(lot: str = "A/1", gtin: str = "09506000134352", brand_id: int = BRAND) -> LotItems:
        async with database.reading() as session:
            return await lots.items_of(procedures.asking(session), brand_id, gtin, lot)

    names = [item(number) for number in range(1, 6)]
    assert await told() == LotItems(5, names, is_cut=False)
    for other in (told("B"), told(gtin="09506000134369"), told(brand_id=BRAND + 1)):
        assert await other == LotItems(0, [], is_cut=False)
    for most in (6, 5, 4):
        monkeypatch.setattr(lots, "ITEMS_TOLD_MAX", most)
        assert await told() == LotItems(5, names[:most], is_cut=most < 5)
    monkeypatch.setattr(lots, "ITEMS_TOLD_MAX", 5)
    for most in (6, 5, 4):
        monkeypatch.setattr(lots, "ITEMS_COUNTED_MAX", most)
        assert (await told()).count == min(most, 5)
