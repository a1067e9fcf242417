"""An item's history: the same answer as the event query's, in one round trip with the key that asks."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit import procedures
from kit.db import Database
from kit.procedures import Caller
from scan_api.auth.api_keys import ApiKey, ApiKeyRefused, OutOfScope, Role, admitted
from scan_api.provenance import event_query, history
from scan_api.provenance.history import HISTORY
from tests.scan_api.provenance.event_world import BRAND_ID, OTHER_BRAND_ID, keep, page

T0 = datetime(2026, 6, 1, tzinfo=UTC)
ITEM, OTHER, BOX = (f"https://id.gs1.org/01/09506000134352/21/{number}" for number in (1, 2, 3))
LOT = "https://id.gs1.org/01/09506000134352/10/A"
KEY_ID, SECRET = "0123456789abcdef", "s" * 43
AUTHORIZATION = f"Bearer fx_{KEY_ID}_{SECRET}"


def event(kind: str, minute: int, **fields: Any) -> dict[str, Any]:
    at = (T0 + timedelta(minutes=minute)).isoformat()
    return {"type": f"{kind}Event", "eventTime": at, "eventTimeZoneOffset": "+00:00", **fields}


async def found(database: Database, thing: str, per_page: int, authorization: str = AUTHORIZATION) -> dict[str, Any]:
    await procedures.install(database, [HISTORY])
    caller = Caller(database)
    try:
        return await caller.call(HISTORY, history.values(authorization, thing, per_page))
    finally:
        await caller.close()


async def add_key(database: Database, **fields: Any) -> None:
    given = {"role": Role.BRAND.value, "brand_id": BRAND_ID, "gtin_prefixes": [], "label": "test", "created_at": T0}
    async with database.writing() as session:
        session.add(ApiKey(key_id=KEY_ID, secret_sha256=hashlib.sha256(SECRET.encode()).digest(), **(given | fields)))


async def test_the_history_is_what_the_event_query_answers_page_by_page(database: Database) -> None:
    await add_key(database)
    await keep(
        database,
        event("Object", 1, action="ADD", epcList=[ITEM, OTHER]),
        event("Aggregation", 2, action="ADD", parentID=BOX, childEPCs=[ITEM]),
        event("Aggregation", 3, action="ADD", parentID=ITEM, childEPCs=[OTHER]),
        event("Object", 3, action="OBSERVE", epcList=[ITEM], bizStep="shipping"),
        event("Object", 4, action="OBSERVE", epcList=[OTHER]),
        event("Transformation", 5, inputEPCList=[ITEM], outputQuantityList=[{"epcClass": LOT}]),
    )
    await keep(database, event("Object", 6, action="OBSERVE", epcList=[ITEM]), brand_id=OTHER_BRAND_ID)
    for thing in (ITEM, BOX, LOT, "https://id.gs1.org/01/09506000134352/21/99"):
        for per_page in (1, 2, 4, 5, 6):
            answer = await found(database, thing, per_page)
            assert admitted(AUTHORIZATION, answer, Role.BRAND).brand_id == BRAND_ID
            got = history.page_of(answer, per_page)
            asked = await page(database, ("MATCH_anyEPC", thing), ("perPage", str(per_page)))
            assert got.next_token == asked.next_token
            assert [(one.event_id, one.record_time, one.content) for one in got.events] == [
                (one.event_id, one.record_time, one.content) for one in asked.events
            ]


@pytest.mark.parametrize(
    "authorization", ["", "Bearer fx_nonsense", f"Bearer fx_{KEY_ID}_{'t' * 43}", f"Basic fx_{KEY_ID}_{SECRET}"]
)
async def test_a_wrong_key_is_refused_and_finds_nothing(database: Database, authorization: str) -> None:
    await add_key(database)
    await keep(database, event("Object", 1, action="ADD", epcList=[ITEM]))
    answer = await found(database, ITEM, 30, authorization)
    assert answer["events"] == []
    with pytest.raises(ApiKeyRefused):
        admitted(authorization, answer, Role.BRAND)


async def test_a_key_that_was_revoked_or_has_another_role_is_refused(database: Database) -> None:
    await add_key(database, role=Role.SHOP.value)
    answer = await found(database, ITEM, 30)
    with pytest.raises(OutOfScope):
        admitted(AUTHORIZATION, answer, Role.BRAND)
    with pytest.raises(ApiKeyRefused, match="revoked"):
        admitted(AUTHORIZATION, answer | {"revoked_at": T0}, Role.SHOP)


def test_what_there_was_no_room_for_is_on_the_next_page() -> None:
    row = [T0, "id", "ObjectEvent", T0, T0, "ADD", None, None, False, None, False]
    page = history.page_of({"events": [[*row, "{}"], [*row, None]]}, 30)
    assert len(page.events) == 1
    assert page.next_token is not None


@pytest.mark.parametrize(
    ("more", "thing"),
    [
        ([], ITEM),
        ([("perPage", "5")], ITEM),
        ([("MATCH_anyEPC", OTHER)], None),
        ([("orderDirection", "ASC")], None),
        ([("EQ_bizStep", "shipping")], None),
        ([("EQ_ex:lorry", "1")], None),
        ([("maxEventCount", "5")], None),
    ],
    ids=["alone", "page", "two", "order", "step", "field", "count"],
)
def test_only_a_query_for_one_thing_and_nothing_else_goes_this_way(
    more: list[tuple[str, str]], thing: str | None
) -> None:
    context = event_query.context_of("ex=https://ns.example.com/")
    assert history.thing_of(event_query.parse([("MATCH_anyEPC", ITEM), *more], context)) == thing


def test_patterns_go_the_long_way() -> None:
    assert history.thing_of(event_query.parse([("MATCH_anyEPC", "urn:epc:idpat:sgtin:9506000.013435.*")])) is None
    assert history.thing_of(event_query.parse([("MATCH_epc", ITEM)])) is None
