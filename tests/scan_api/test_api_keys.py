"""API keys over real HTTP: what each role may, how far it reaches, and what is kept of a key."""

import hashlib
import uuid
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from scan_api.auth.api_keys import ApiKey
from tests.stand import BRAND, GTIN, OTHER_BRAND, OTHER_GTIN, Stand

ROLES = ("brand", "logistics", "shop", "regulator")


def _list_orders(stand: Stand, headers: dict[str, str], brand: str = BRAND) -> httpx2.Response:
    return stand.http.get(f"/v1/brand/{brand}/orders", headers=headers)


def _ship(stand: Stand, headers: dict[str, str], order: str = "on sale") -> httpx2.Response:
    placed = stand.order(order)
    body = {"step": "shipped", "gtin": placed.gtin, "order_number": placed.number, "serials": [placed.items[1].serial]}
    return stand.http.post("/v1/brand/events", json=body, headers=headers)


def _activate(stand: Stand, headers: dict[str, str]) -> httpx2.Response:
    placed = stand.order("on sale")
    body = {"step": "activated", "gtin": placed.gtin, "order_number": placed.number}
    return stand.http.post("/v1/brand/events", json=body, headers=headers)


def _redeem(stand: Stand, headers: dict[str, str], code: str = "0000-0000-0000-0000") -> httpx2.Response:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    return stand.http.post("/v1/shop/redemptions", json={"coupon_code": code}, headers={**headers, **key})


def _history(stand: Stand, headers: dict[str, str], order: str = "on sale") -> httpx2.Response:
    placed = stand.order(order)
    return stand.http.get(f"/v1/regulator/items/{placed.gtin}/{placed.items[1].serial}", headers=headers)


# What a key of each role gets where its scope is no obstacle. The coupon does not exist, so 404 is right for a shop.
ENDPOINTS: dict[str, tuple[Any, dict[str, int]]] = {
    "list orders": (_list_orders, {"brand": 200}),
    "record a movement": (_ship, {"brand": 201, "logistics": 201}),
    "put on sale": (_activate, {"brand": 201, "logistics": 400}),
    "redeem": (_redeem, {"shop": 404}),
    "read a history": (_history, {"regulator": 200}),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_role_may_what_it_is_for_and_nothing_else(stand: Stand, role: str, endpoint: str) -> None:
    ask, allowed = ENDPOINTS[endpoint]
    answer = ask(stand, stand.key(role))
    assert answer.status_code == allowed.get(role, 403)
    if answer.status_code == 403:
        assert answer.json()["code"] == "OutOfScope"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_member_session_is_no_api_key(stand: Stand, endpoint: str) -> None:
    ask, _allowed = ENDPOINTS[endpoint]
    answer = ask(stand, stand.member().headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "ApiKeyRefused")


def test_api_key_is_no_member(stand: Stand) -> None:
    answer = stand.http.get("/v1/me", headers=stand.key("brand"))
    assert (answer.status_code, answer.json()["code"]) == (401, "SignInNeeded")


def test_brands_key_does_not_reach_another_brand(stand: Stand) -> None:
    assert _list_orders(stand, stand.key("brand"), OTHER_BRAND).status_code == 403
    assert _list_orders(stand, stand.key("other brand"), OTHER_BRAND).status_code == 200
    before = stand.counts()
    assert _ship(stand, stand.key("brand"), "other brand").status_code == 404
    assert _ship(stand, stand.key("logistics"), "other brand").status_code == 404
    assert _activate(stand, stand.key("other brand")).status_code == 404
    assert stand.counts() == before


def test_shops_key_does_not_reach_another_brands_coupon(stand: Stand) -> None:
    code = stand.claim(stand.member(), stand.take_item().outer, "coupon").json()["coupon_code"]
    answer = _redeem(stand, stand.key("other shop"), code)
    assert (answer.status_code, answer.json()["code"]) == (404, "CouponUnknown")
    assert _redeem(stand, stand.key("shop"), code).status_code == 201


def test_regulators_key_reaches_the_gtins_under_its_prefixes(stand: Stand) -> None:
    assert _history(stand, stand.key("regulator, these GTINs")).status_code == 200
    assert _history(stand, stand.key("regulator, other GTINs")).status_code == 403
    assert _history(stand, stand.key("regulator, other GTINs"), "other brand").status_code == 200


def test_regulators_key_of_one_brand_does_not_reach_another(stand: Stand) -> None:
    assert _history(stand, stand.key("regulator, other brand"), "other brand").status_code == 200
    assert _history(stand, stand.key("regulator, other brand")).status_code == 404


def test_gtin_prefixes_bind_brand_and_logistics_too(stand: Stand) -> None:
    before = stand.counts()
    for label in ("brand, other GTINs", "logistics, other GTINs"):
        assert _ship(stand, stand.key(label)).status_code == 403
    assert _activate(stand, stand.key("brand, other GTINs")).status_code == 403
    assert stand.counts() == before
    assert _list_orders(stand, stand.key("brand, other GTINs")).json()["data"] == []


def test_orders_are_listed_for_the_brand_alone(stand: Stand) -> None:
    listed = _list_orders(stand, stand.key("brand")).json()["data"]
    assert {order["gtin"] for order in listed} == {GTIN}
    assert {(order["order_number"], order["state"]) for order in listed} >= {
        (stand.order("on sale").number, "active"),
        (stand.order("recalled").number, "recalled"),
    }
    others = _list_orders(stand, stand.key("other brand"), OTHER_BRAND).json()["data"]
    assert {order["gtin"] for order in others} == {OTHER_GTIN}


def test_orders_are_listed_in_pages_newest_first(stand: Stand) -> None:
    whole = _list_orders(stand, stand.key("brand")).json()
    read: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while "cursor" not in query or query["cursor"] is not None:
        page = stand.http.get(f"/v1/brand/{BRAND}/orders", headers=stand.key("brand"), params=query).json()
        read += page["data"]
        query["cursor"] = page["next_cursor"]
    assert (read, whole["next_cursor"]) == (whole["data"], None)
    assert [order["order_number"] for order in read] == sorted((order["order_number"] for order in read), reverse=True)


def test_unknown_brand_is_not_found(stand: Stand) -> None:
    answer = _list_orders(stand, stand.key("brand"), "nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "BrandUnknown")


def test_revoked_key_ends_at_once(stand: Stand) -> None:
    answer = _history(stand, stand.key("revoked"))
    assert (answer.status_code, answer.json()["code"]) == (401, "ApiKeyRefused")


def _flipped(text: str) -> str:
    return text[:-1] + ("A" if text[-1] != "A" else "B")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "",
        lambda key: key,
        lambda key: f"Basic {key}",
        lambda key: f"Bearer  {key}",
        lambda key: f"Bearer {key} x",
        lambda key: f"Bearer {key.upper()}",
        lambda key: f"Bearer {key[:-1]}",
        lambda key: f"Bearer {_flipped(key)}",
        lambda key: f"Bearer fx_{'0' * 16}_{key[20:]}",
        lambda key: "Bearer fx__",
        lambda key: "Bearer",
    ],
    ids=range(11),
)
def test_what_is_not_the_key_is_refused(stand: Stand, spoil: Any) -> None:
    key = stand.installation.api_keys["regulator"]
    answer = _history(stand, {"Authorization": spoil(key)})
    assert (answer.status_code, answer.json()["code"]) == (401, "ApiKeyRefused")
    assert answer.headers["www-authenticate"] == 'Bearer realm="fanxing"'
    assert key[20:40] not in answer.text


def test_scheme_is_read_in_any_case(stand: Stand) -> None:
    key = stand.installation.api_keys["regulator"]
    assert _history(stand, {"Authorization": f"bearer {key}"}).status_code == 200


def test_database_holds_the_hash_of_the_secret_alone(stand: Stand) -> None:
    for text in stand.installation.api_keys.values():
        _fx, key_id, secret = text.split("_", 2)
        [stored] = stand.rows(select(ApiKey).where(ApiKey.key_id == key_id))
        assert stored.secret_sha256 == hashlib.sha256(secret.encode()).digest()
        assert secret not in repr(stored)
