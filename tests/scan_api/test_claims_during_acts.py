"""Claims and acts on the same goods at the same time, on PostgreSQL: once an act is done, nothing more is paid."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg
import pytest
from sqlmodel import col, func, select

from codes import orders
from codes.catalogue import Product
from codes.serials import ITEM_NUMBERS
from loyalty import campaigns
from loyalty.claims import Claim
from scan_api.provenance import life
from tests.scan_api.test_serial_life import QUANTITY, new_order
from tests.stand import GTIN, Item, PlacedOrder, Stand, wait_until

pytestmark = pytest.mark.parametrize("stand_kind", ["postgresql"])

numbers = itertools.count(90_000)
CAMPAIGN = "points"
ROUNDS = 3
_WAITING = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted AND database = (
        SELECT oid FROM pg_database WHERE datname = current_database()
    ) AND (classid::bigint << 32 | objid::bigint) = %s
"""

Act = Callable[[Stand, PlacedOrder], dict[str, Any]]


def _link(item: Item) -> str:
    return f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"


def _in_a_box(stand: Stand, order: PlacedOrder) -> dict[str, Any]:
    box = f"urn:epc:id:sscc:9506000.{next(numbers):010}"
    body = {"action": "add", "parent": box, "children": [_link(item) for item in order.items]}
    assert stand.http.post("/v1/packing", json=body, headers=stand.key("logistics")).status_code == 201
    return {"act": "hold", "thing": box, "reason": "investigation"}


def _of_a_lot(stand: Stand, order: PlacedOrder) -> dict[str, Any]:
    lot = f"C{next(numbers)}"
    body = {"gtin": GTIN, "order_number": order.number, "lot": lot}
    assert stand.http.post("/v1/brand/lots", json=body, headers=stand.key("brand")).status_code == 201
    return {"act": "recall", "gtin": GTIN, "lot": lot, "reason": "safety", "message": "Glass."}


def _of_an_item(_stand: Stand, order: PlacedOrder) -> dict[str, Any]:
    return {"act": "recall", "thing": _link(order.items[0]), "reason": "safety", "message": "Stop."}


def _of_an_order(**more: Any) -> Act:
    return lambda _stand, order: {"gtin": GTIN, "order_number": order.number, **more}


MARKS: dict[str, tuple[Act, str]] = {
    "a held container": (_in_a_box, "Held"),
    "a recalled lot": (_of_a_lot, "Recalled"),
    "a held order": (_of_an_order(act="hold"), "Held"),
    "a recalled item": (_of_an_item, "Recalled"),
}
ORDERS: dict[str, tuple[Act, str]] = {
    "a recalled order": (_of_an_order(act="recall", message="Stop."), "Recalled"),
    "ranges that are void": (_of_an_order(act="void", ranges=f"0-{QUANTITY - 1}"), "Voided"),
}
ALL = MARKS | ORDERS


@pytest.fixture
def order(stand: Stand) -> PlacedOrder:
    made = new_order(stand)
    body = {"step": "activated", "gtin": made.gtin, "order_number": made.number}
    assert stand.http.post("/v1/brand/events", json=body, headers=stand.key("brand")).status_code == 201
    return made


def _lock_of_acts(stand: Stand, order: PlacedOrder, name: str) -> int:
    """The lock on which claims and this act meet."""
    [brand_id] = stand.rows(select(Product.brand_id).where(Product.gtin == order.gtin))
    return life.lock_of(brand_id) if name in MARKS else orders.lock_of(order.order_id)


def _send(stand: Stand, body: dict[str, Any]) -> httpx2.Response:
    return stand.http.post("/v1/brand/life", json=body, headers=stand.key("brand"))


def _waiting(stand: Stand, key: int) -> int:
    """How many wait for an advisory lock."""
    with psycopg.connect(stand.database_url) as connection:
        row = connection.execute(_WAITING, [key]).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def _held(stand: Stand, statement: str) -> Iterator[None]:
    """Something that others need, kept from them as long as this lasts."""
    with psycopg.connect(stand.database_url) as connection:
        connection.execute(statement)
        yield


def _paid(stand: Stand, order: PlacedOrder) -> int:
    first = order.order_id * ITEM_NUMBERS
    asked = select(func.count()).where(col(Claim.item_key) >= first, col(Claim.item_key) < first + ITEM_NUMBERS)
    return int(stand.rows(asked)[0])


@pytest.mark.parametrize("name", ALL)
def test_an_act_waits_for_a_claim_that_began_before_it(stand: Stand, order: PlacedOrder, name: str) -> None:
    make, error = ALL[name]
    body, item, (member, late) = make(stand, order), order.items[0], stand.members(2)
    campaign_lock = campaigns.lock_of(uuid.UUID(stand.campaign(CAMPAIGN)))
    act_lock = _lock_of_acts(stand, order, name)
    with ThreadPoolExecutor(2) as threads:
        with _held(stand, f"SELECT pg_advisory_xact_lock({campaign_lock})"):
            # It has looked at the item, and has not paid.
            claiming = threads.submit(stand.claim, member, item.inner, CAMPAIGN)
            wait_until(lambda: _waiting(stand, campaign_lock) == 1, "the claim to wait for its campaign")
            acting = threads.submit(_send, stand, body)
            wait_until(lambda: acting.done() or _waiting(stand, act_lock) == 1, "the act to wait for the claim")
            assert not acting.done()
        assert claiming.result().status_code == 201
        assert acting.result().status_code == 201
    refused = stand.claim(late, order.items[0].inner, "data")
    assert refused.json()["code"] == error
    assert _paid(stand, order) == 1


@pytest.mark.parametrize("name", ALL)
def test_a_claim_waits_for_an_act_that_began_before_it(stand: Stand, order: PlacedOrder, name: str) -> None:
    make, error = ALL[name]
    body, item, member = make(stand, order), order.items[0], stand.member()
    act_lock = _lock_of_acts(stand, order, name)
    with ThreadPoolExecutor(2) as threads:
        with _held(stand, "LOCK TABLE order_act, brand_act, order_event, range_event IN SHARE MODE"):
            # It has done what it does, and cannot write it down.
            acting = threads.submit(_send, stand, body)
            wait_until(lambda: _blocked_on_a_table(stand), "the act to wait for the table of acts")
            claiming = threads.submit(stand.claim, member, item.inner, CAMPAIGN)
            wait_until(lambda: claiming.done() or _waiting(stand, act_lock) == 1, "the claim to wait for the act")
            assert not claiming.done()
        assert acting.result().status_code == 201
        assert claiming.result().json()["code"] == error
    assert _paid(stand, order) == 0


def _blocked_on_a_table(stand: Stand) -> bool:
    with psycopg.connect(stand.database_url) as connection:
        asked = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'relation' AND NOT granted)"
        row = connection.execute(asked).fetchone()
    return row is not None and bool(row[0])


@pytest.mark.parametrize("name", ["a held container", "a recalled lot", "a recalled order"])
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_nothing_is_paid_after_an_act_is_done_however_many_claim(
    stand: Stand, order: PlacedOrder, name: str, turn: int
) -> None:
    make, error = ALL[name]
    body, members = make(stand, order), stand.members(QUANTITY)
    with ThreadPoolExecutor(QUANTITY) as threads:
        claiming: list[Future[httpx2.Response]] = [
            threads.submit(stand.claim, member, item.inner, CAMPAIGN)
            for member, item in zip(members, order.items, strict=True)
        ]
        wait_until(lambda: sum(one.done() for one in claiming) > turn, "the first claims", pause_s=0.001)
        assert _send(stand, body).status_code == 201
        paid = _paid(stand, order)
        wait(claiming)
    answers = [one.result() for one in claiming]
    granted = [one for one in answers if one.status_code == 201]
    assert {one.json()["code"] for one in answers if one.status_code != 201} <= {error}
    assert (len(granted), _paid(stand, order)) == (paid, paid)
