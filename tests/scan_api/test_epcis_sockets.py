"""EPCIS subscriptions by websocket, over a real connection: what is told, to whom, and how it ends."""

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import websocket
from websocket import ABNF, WebSocket, WebSocketBadStatusException

from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.provenance.sockets import SOCKETS_PER_KEY_MAX
from scan_api.socket_protocol import MESSAGE_BYTES_MAX
from tests.scan_api.event_sender import URN, capture, seen, serial
from tests.scan_api.test_epcis_queries import QUERIES, ask, name_query
from tests.stand import MakeStand, Stand, wait_until

TIMEOUT_S = 30
on_sqlite = pytest.mark.parametrize("stand_kind", ["sqlite"])


@contextlib.contextmanager
def opened(stand: Stand, name: str, query: str = "stream=true", label: str | None = "brand") -> Iterator[WebSocket]:
    headers = {} if label is None else stand.key(label)
    url = f"{stand.server.url.replace('http', 'ws')}{QUERIES}/{name}/events?{query}"
    connection = websocket.create_connection(url, TIMEOUT_S, header=headers)
    try:
        yield connection
    finally:
        connection.close()
        connection.shutdown()  # to which its `close` does not get when the server closed first


def refusal(stand: Stand, name: str, query: str = "stream=true", label: str | None = "brand") -> tuple[int, str]:
    """Status and code of an opening that is refused."""
    with pytest.raises(WebSocketBadStatusException) as refused, opened(stand, name, query, label):
        pass
    assert refused.value.resp_headers is not None
    assert refused.value.resp_headers["cache-control"] == "no-store"
    assert refused.value.resp_headers["content-type"] == "application/problem+json"
    assert refused.value.resp_body is not None
    problem = json.loads(refused.value.resp_body)
    assert problem["status"] == refused.value.status_code
    return problem["status"], problem["code"]


def report(connection: WebSocket) -> dict[str, Any]:
    """What the next message says of the query."""
    document = json.loads(connection.recv())
    assert document["type"] == "EPCISQueryDocument"
    results: dict[str, Any] = document["epcisBody"]["queryResults"]
    return results


def events(connection: WebSocket, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += report(connection)["resultsBody"]["eventList"]
    return found


def ending(connection: WebSocket) -> tuple[int, str]:
    """Code and reason with which the server closes."""
    while True:
        opcode, data = connection.recv_data(control_frame=True)
        if opcode == ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big"), data[2:].decode()


def ids(found: list[dict[str, Any]]) -> list[str]:
    return sorted(event["eventID"] for event in found)


def test_events_are_told_as_they_come_each_once(stand: Stand) -> None:
    epc = URN + serial()
    name = name_query(stand, EQ_bizStep=["shipping"], MATCH_epc=[epc])
    at = [f"urn:uuid:{uuid.uuid4()}" for _ in range(5)]

    def tell(*numbers: int, **more: Any) -> None:
        capture(stand, *(seen("x", epcList=[epc], eventID=at[one], **more) for one in numbers))

    tell(0)
    with opened(stand, name) as first, opened(stand, name) as second:
        tell(1)
        tell(4, bizStep="receiving")
        tell(2, 3)
        found, again = events(first, 3), events(second, 3)
        assert ids(found) == ids(again) == sorted(at[1:4])
        told = first.getheaders()
        assert told is not None
        assert told["gs1-epcis-version"] == "2.0.0"
    since = found[0]["recordTime"]
    with opened(stand, name, f"stream=true&initialRecordTime={since.replace('+', '%2B')}") as later:
        assert ids(events(later, 3)) == sorted(at[1:4])
        told = later.getheaders()
        assert told is not None
        assert told["gs1-query-min-record-time"] == since
        capture(stand, seen("x", epcList=[epc]), label="other brand")
        tell(0)  # which is known already, so that it is no news
        capture(stand, seen("x", epcList=[epc]))
        results = report(later)
    assert len(results["resultsBody"]["eventList"]) == 1
    assert (results["queryName"], bool(uuid.UUID(results["subscriptionID"]))) == (name, True)


@on_sqlite
def test_a_schedule_tells_at_its_times_also_that_there_is_nothing(stand: Stand) -> None:
    number = serial()
    name = name_query(stand, MATCH_epc=[URN + number])
    with opened(stand, name, "second=0/1&reportIfEmpty=true") as connection:
        assert report(connection)["resultsBody"]["eventList"] == []
        capture(stand, seen(number))
        assert len(events(connection, 1)) == 1
        assert report(connection)["resultsBody"]["eventList"] == []


@on_sqlite
def test_what_may_not_be_opened_is_refused_as_everywhere(stand: Stand) -> None:
    name = name_query(stand, EQ_bizStep=["shipping"])
    key = stand.key("brand")["Authorization"].split()[1]
    assert refusal(stand, name, label=None) == (401, "ApiKeyRefused")
    assert refusal(stand, name, f"stream=true&access_token={key}", None) == (401, "ApiKeyRefused")
    assert refusal(stand, name, label="revoked") == (401, "ApiKeyRefused")
    assert refusal(stand, name, label="shop") == (403, "OutOfScope")
    assert refusal(stand, name, label="brand, other GTINs") == (403, "OutOfScope")
    assert refusal(stand, name, label="other brand") == (404, "NamedQueryUnknown")
    assert refusal(stand, "nothing") == (404, "NamedQueryUnknown")
    for query, code in (
        ("", "SubscriptionInvalid"),
        ("stream=false", "SubscriptionInvalid"),
        ("stream=true&second=0", "SubscriptionInvalid"),
        ("stream=true&stream=true", "SubscriptionInvalid"),
        ("stream=true&reportIfEmpty=maybe", "SubscriptionInvalid"),
        ("stream=true&EQ_bizStep=packing", "SubscriptionInvalid"),
        ("dayOfMonth=31&month=2", "SubscriptionInvalid"),
        ("second=60", "ScheduleInvalid"),
        ("stream=true&initialRecordTime=yesterday", "QueryParameterInvalid"),
    ):
        assert refusal(stand, name, query) == (400, code), query


@on_sqlite
def test_a_key_has_so_many_sockets_and_no_more(stand: Stand) -> None:
    name = name_query(stand, EQ_bizStep=["shipping"])
    with contextlib.ExitStack() as several:
        for _ in range(SOCKETS_PER_KEY_MAX - 1):
            several.enter_context(opened(stand, name))
        with opened(stand, name):
            assert refusal(stand, name) == (429, "TooManySockets")

        def reopened() -> bool:
            with contextlib.suppress(WebSocketBadStatusException), opened(stand, name):
                return True
            return False

        wait_until(reopened, "the place of a socket that was closed")


@on_sqlite
@pytest.mark.parametrize(("size", "code"), [(1, 1003), (MESSAGE_BYTES_MAX, 1003), (MESSAGE_BYTES_MAX + 1, 1009)])
def test_a_subscriber_has_nothing_to_say(stand: Stand, size: int, code: int) -> None:
    name = name_query(stand, EQ_bizStep=["shipping"])
    with opened(stand, name) as connection:
        connection.send("x" * size)
        assert ending(connection)[0] == code


@on_sqlite
def test_an_end_of_key_or_query_ends_the_socket(stand: Stand) -> None:
    query, gone = name_query(stand, EQ_bizStep=["shipping"]), name_query(stand, EQ_bizStep=["packing"])

    async def another_key(session: Any) -> tuple[str, str]:
        known = stand.key("brand")["Authorization"].split("_")[1]
        brand_id = (await session.get(api_keys.ApiKey, known)).brand_id
        key, text = await api_keys.create(session, Role.BRAND, "short-lived", datetime.now(UTC), brand_id=brand_id)
        return key.key_id, text

    key_id, text = stand.run(another_key)
    stand.installation.api_keys["short-lived"] = text  # type: ignore[index]
    with opened(stand, query, label="short-lived") as revoked, opened(stand, gone) as removed:
        stand.run(lambda session: api_keys.revoke(session, key_id, datetime.now(UTC)))
        assert ask(stand, "DELETE", f"{QUERIES}/{gone}").status_code == 204
        assert ending(revoked) == (1008, "this API key was revoked")
        assert ending(removed) == (1000, "this query was removed")


@on_sqlite
def test_a_server_that_stops_says_so(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    with opened(stand, name_query(stand, EQ_bizStep=["shipping"])) as connection:
        stand.server.stop()
        assert ending(connection)[0] == 1001


@on_sqlite
def test_the_path_of_a_code_is_not_written_down_when_a_socket_is_asked_for_there(stand: Stand) -> None:
    path = stand.take_item().inner
    url = stand.server.url.replace("http", "ws") + path
    with pytest.raises(WebSocketBadStatusException, match="403"):
        websocket.create_connection(url, TIMEOUT_S)
    wait_until(lambda: re.search(r'"WEBSOCKET".*403', stand.server.log), "the opening in the log")
    assert path not in stand.server.log
