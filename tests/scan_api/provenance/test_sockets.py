"""Socket subscriptions: each event in one report of a connection, from where its client says; so many, and no more."""

import contextlib
import uuid
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.db import Database, Session
from kit.errors import FanxingError
from scan_api.auth.api_keys import ApiKey
from scan_api.provenance import arrivals, named_queries, reports, sockets
from scan_api.provenance.event_query import QueryParameterInvalid
from scan_api.provenance.named_queries import NamedQueryUnknown
from scan_api.provenance.schedules import ScheduleInvalid
from scan_api.provenance.sockets import (
    KEY_REVOKED,
    QUERY_REMOVED,
    SOCKETS_MAX,
    SOCKETS_PER_BRAND_MAX,
    SOCKETS_PER_KEY_MAX,
    SocketAsked,
    Sockets,
    SocketsFull,
    SocketSubscription,
    TooManySockets,
)
from scan_api.provenance.subscriptions import SubscriptionInvalid
from tests.scan_api.event_sender import seen
from tests.scan_api.provenance.event_world import BRAND_ID, OTHER_BRAND_ID, RECORDED_AT, keep

KEY_ID = "0123456789abcdef"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def key(key_id: str = KEY_ID) -> ApiKey:
    return ApiKey(
        key_id=key_id,
        role="brand",
        label="erp",
        brand_id=BRAND_ID,
        gtin_prefixes=[],
        secret_sha256=b"",
        created_at=RECORDED_AT,
    )


async def begin(database: Database, since: datetime | None = None, now: datetime = RECORDED_AT) -> SocketSubscription:
    async with database.writing() as session:
        query = await named_queries.add(session, BRAND_ID, "shipped", {"EQ_bizStep": ["shipping"]}, RECORDED_AT)
        return await sockets.begin(session, key(), query, SocketAsked(None, False, since), lambda: now)


def event(number: int, **more: Any) -> dict[str, Any]:
    return seen(str(number), eventID=f"urn:x:{number}", **more)


async def told(database: Database, subscription: SocketSubscription) -> list[list[str]]:
    """The event ids of each report that is due now."""
    await arrivals.place(database)
    found = []
    async for document in subscription._run(database, lambda: RECORDED_AT):
        found.append(document.split('"eventID":"')[1:])
    return [[one.partition('"')[0] for one in ids] for ids in found]


async def test_each_event_is_told_once_in_messages_of_bounded_size(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "REPORT_EVENTS_MAX", 3)
    monkeypatch.setattr(reports, "ARRIVALS_AT_ONCE_MAX", 2)
    subscription = await begin(database)
    for first in range(0, 12, 4):
        await keep(database, *(event(number) for number in range(first, first + 4)))
    await keep(database, event(12, bizStep="receiving"))
    await keep(database, event(13), brand_id=OTHER_BRAND_ID)
    found = await told(database, subscription)
    assert sorted(chain(*found)) == sorted(f"urn:x:{number}" for number in range(12))
    assert max(map(len, found)) == 3
    assert await told(database, subscription) == []
    monkeypatch.setattr(sockets, "REPORT_BYTES_MAX", 1)
    await keep(database, event(14), event(15))
    assert sorted(await told(database, subscription)) == [["urn:x:14"], ["urn:x:15"]]


@on_sqlite
async def test_who_comes_again_says_from_when_on(database: Database) -> None:
    hours = [RECORDED_AT + timedelta(hours=number) for number in range(4)]
    for number, at in enumerate(hours):
        await keep(database, event(number), at=at)
    await arrivals.place(database)
    for since, first in ((hours[0], 0), (hours[1], 1), (hours[1] + timedelta(seconds=1), 2), (hours[3], 3)):
        subscription = await begin(database, since, hours[3] + timedelta(hours=1))
        assert subscription.position == first
        assert list(chain(*await told(database, subscription))) == [f"urn:x:{number}" for number in range(first, 4)]
    late = await begin(database, None, hours[3] + timedelta(hours=1))
    assert (late.position, await told(database, late)) == (4, [])


@pytest.mark.parametrize("initially", [None, timedelta(), timedelta(seconds=0.4)], ids=["now", "asked", "ahead"])
@on_sqlite
async def test_what_arrives_while_a_socket_begins_is_told_or_was_before(
    database: Database, monkeypatch: pytest.MonkeyPatch, initially: timedelta | None
) -> None:
    moment, last_position = RECORDED_AT, arrivals.last_position
    async with database.writing() as session:
        query = await named_queries.add(session, BRAND_ID, "shipped", {}, RECORDED_AT)

    async def slow(session: Session) -> int:
        nonlocal moment
        monkeypatch.setattr(arrivals, "last_position", last_position)  # `place` asks for it too
        moment += timedelta(seconds=0.5)
        await keep(database, event(1), at=moment)
        await arrivals.place(database)
        moment += timedelta(seconds=0.5)
        return await last_position(session)

    async with database.reading() as session:
        monkeypatch.setattr(arrivals, "last_position", slow)
        asked = SocketAsked(None, False, None if initially is None else RECORDED_AT + initially)
        subscription = await sockets.begin(session, key(), query, asked, lambda: moment)
    is_promised = subscription.since <= RECORDED_AT + timedelta(seconds=0.5)
    assert is_promised is (initially is not None)
    assert await told(database, subscription) == ([["urn:x:1"]] if is_promised else [])


@on_sqlite
async def test_another_query_of_the_same_name_is_not_told_of(database: Database) -> None:
    subscription = await begin(database)
    async with database.writing() as session:
        await named_queries.remove(session, BRAND_ID, "shipped")
        await named_queries.add(session, BRAND_ID, "shipped", {}, RECORDED_AT + timedelta(seconds=1))
    await keep(database, event(1))
    with pytest.raises(NamedQueryUnknown):
        await told(database, subscription)


@on_sqlite
async def test_sockets_are_woken_for_their_brand_and_ended_with_key_or_query(database: Database) -> None:
    async with database.writing() as session:
        session.add(key())
    open_ones = Sockets(database)
    subscription = await begin(database)
    with open_ones.held(subscription):
        await open_ones.look()  # the first look wakes everybody
        assert subscription.news.is_set()
        for brand_id, is_news in ((OTHER_BRAND_ID, False), (BRAND_ID, True)):
            subscription.news.clear()
            await keep(database, event(brand_id), brand_id=brand_id)
            await arrivals.place(database)
            await open_ones.look()
            assert subscription.news.is_set() is is_news
        await open_ones.check()
        assert not subscription.ended.done()
        async with database.writing() as session:
            (await session.get_one(ApiKey, KEY_ID)).revoked_at = RECORDED_AT
        await open_ones.check()
        assert subscription.ended.result() == KEY_REVOKED
    async with database.writing() as session:
        (await session.get_one(ApiKey, KEY_ID)).revoked_at = None
        await named_queries.remove(session, BRAND_ID, "shipped")
    subscription = await begin(database)
    subscription.query_made_at += timedelta(seconds=1)
    with open_ones.held(subscription):
        await open_ones.check()
        assert subscription.ended.result() == QUERY_REMOVED


@on_sqlite
async def test_a_server_a_brand_and_a_key_have_so_many_sockets_and_no_more(database: Database) -> None:
    open_ones, model = Sockets(database), await begin(database)

    def another(key_id: str, brand_id: int) -> SocketSubscription:
        given = {name: getattr(model, name) for name in ("query_name", "query_made_at", "asked", "since")}
        return SocketSubscription(subscription_id=uuid.uuid4(), key_id=key_id, brand_id=brand_id, position=0, **given)

    held = [
        open_ones.held(another(f"key {number // SOCKETS_PER_KEY_MAX}", number // SOCKETS_PER_BRAND_MAX))
        for number in range(SOCKETS_MAX)
    ]
    for one in held[: SOCKETS_PER_BRAND_MAX - 1]:
        one.__enter__()
    with pytest.raises(TooManySockets, match="an API key"), open_ones.held(another("key 0", 0)):
        pass
    with open_ones.held(another("another key", 0)):
        pass
    held[SOCKETS_PER_BRAND_MAX - 1].__enter__()
    with pytest.raises(TooManySockets, match="a brand"), open_ones.held(another("another key", 0)):
        pass
    for one in held[SOCKETS_PER_BRAND_MAX:-1]:
        one.__enter__()
    with open_ones.held(another("another key", SOCKETS_MAX)):
        pass
    held[-1].__enter__()
    with pytest.raises(SocketsFull), open_ones.held(another("another key", SOCKETS_MAX)):
        pass
    held[0].__exit__(None, None, None)
    with open_ones.held(another("another key", SOCKETS_MAX)):
        pass
    for one in held[1:]:
        one.__exit__(None, None, None)


_NAMES = st.sampled_from(["stream", "reportIfEmpty", "initialRecordTime", "second", "hour", "dayOfWeek", "x"])
_VALUES = st.one_of(
    st.sampled_from(["true", "false", "1", "[1-5]", "0/1", "2026-06-01T08:00:00Z"]),
    st.text("0159[-],/*T:+Zé ", max_size=12),
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))
def test_any_query_string_asks_for_something_or_is_refused(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(SubscriptionInvalid, ScheduleInvalid, QueryParameterInvalid):
        asked = sockets.asked_of(pairs)
        assert (asked.schedule is None) == (("stream", "true") in pairs)


@pytest.mark.parametrize("pairs", [[("stream", "true")], [("hour", "1"), ("minute", "5"), ("reportIfEmpty", "true")]])
def test_a_query_string_says_when_to_tell(pairs: list[tuple[str, str]]) -> None:
    asked = sockets.asked_of(pairs)
    assert (asked.schedule is None, asked.report_if_empty) == (len(pairs) == 1, len(pairs) == 3)
    with pytest.raises(FanxingError):
        sockets.asked_of([*pairs, pairs[0]])
