"""Sandboxes over real HTTP: everything can be tried there, nothing leaves the house, and the two worlds never touch."""

import itertools
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlmodel import col, select

from codes.catalogue import Brand, BrandExists, BrandUnknown
from loyalty import sandbox
from loyalty.members import Member
from loyalty.sandbox import SandboxGroup
from scan_api import playground
from scan_api.auth.api_keys import ApiKey
from scan_api.playground import Playground
from tests.stand import BRAND, GTIN, Stand

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
_numbers = itertools.count()


def make(stand: Stand) -> Playground:
    name = f"play-{next(_numbers)}"
    made: Playground = stand.run(lambda session: playground.create(session, stand.vault, name, datetime.now(UTC)))
    return made


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def sign_in(stand: Stand, brand: str, phone: str) -> dict[str, Any]:
    asked = stand.http.post("/v1/sign-in/codes", json={"phone": phone, "brand": brand})
    assert asked.status_code == 202, asked.text
    body = {"phone": phone, "brand": brand, "one_time_code": asked.json()["development_code"]}
    answer: dict[str, Any] = stand.http.post("/v1/sign-in", json=body).json()
    return answer


def test_a_sandbox_is_made_in_one_go(stand: Stand) -> None:
    made = make(stand)
    assert (made.brand, made.gtin[:5], len(made.gtin), set(made.keys)) == (
        made.name,
        "09520",
        14,
        {"brand", "shop", "crm"},
    )
    answer = stand.http.get(f"/v1/brand/{made.brand}/orders", headers=bearer(made.keys["brand"]))
    assert (answer.status_code, answer.headers["fanxing-sandbox"]) == (200, "true")


@pytest.mark.parametrize("role", ["brand", "shop", "crm"])
def test_a_sandboxs_key_touches_no_real_brand(stand: Stand, role: str) -> None:
    headers = {**bearer(make(stand).keys[role]), "Idempotency-Key": str(uuid.uuid4())}
    member = stand.member()
    coupon = stand.claim(member, stand.take_item().outer, "coupon").json()["coupon_code"]
    for method, path, body in _real_requests(stand, coupon):
        answer = stand.http.request(method, path, json=body, headers=headers)
        assert (path, answer.status_code, answer.json()["code"]) in {
            (path, 403, "OutOfScope"),
            (path, 404, "CouponUnknown"),
            (path, 404, "BenefitUnknown"),
            (path, 404, "OrderUnknown"),
        }
        assert answer.headers["fanxing-sandbox"] == "true"


def _real_requests(stand: Stand, coupon: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    movement = {"step": "shipped", "gtin": GTIN, "order_number": stand.order("on sale").number}
    hook = {"url": "https://crm.example.cn/", "kinds": ["claim.made"]}
    return [
        ("GET", f"/v1/brand/{BRAND}/orders", None),
        ("POST", "/v1/brand/events", movement),
        ("GET", f"/v1/brand/{BRAND}/webhooks", None),
        ("POST", f"/v1/brand/{BRAND}/webhooks", hook),
        ("POST", "/v1/shop/redemptions", {"coupon_code": coupon}),
    ]


@pytest.mark.parametrize("role", ["brand", "shop", "logistics", "regulator"])
def test_a_real_key_touches_no_sandbox(stand: Stand, role: str) -> None:
    made = make(stand)
    hook = {"url": "https://crm.example.cn/", "kinds": ["claim.made"]}
    for method, path, body in (
        ("GET", f"/v1/brand/{made.brand}/orders", None),
        ("GET", f"/v1/brand/{made.brand}/webhooks", None),
        ("POST", f"/v1/brand/{made.brand}/webhooks", hook),
    ):
        answer = stand.http.request(method, path, json=body, headers=stand.key(role))
        assert (path, answer.status_code, answer.json()["code"]) == (path, 403, "OutOfScope")
        assert "fanxing-sandbox" not in answer.headers


def test_a_keys_side_is_stored_with_it(stand: Stand) -> None:
    made = make(stand)
    ids = {text.split("_")[1] for text in made.keys.values()}
    real = {text.split("_")[1] for text in stand.installation.api_keys.values()}
    sides = {key.key_id: key.sandbox for key in stand.rows(select(ApiKey))}
    assert {sides[key_id] for key_id in ids} == {True}
    assert {sides[key_id] for key_id in real} == {False}


def test_a_member_of_the_sandbox_is_nobody_outside(stand: Stand) -> None:
    made, phone = make(stand), stand.new_phone()
    there = sign_in(stand, made.brand, phone)
    here = sign_in(stand, BRAND, phone)
    assert (there["is_new"], here["is_new"], there["member_id"] != here["member_id"]) == (True, True, True)
    item = stand.take_item()
    body = {"code_text": stand.text(item.inner), "campaign_id": stand.campaign("points")}
    headers = {**bearer(there["token"]), "Idempotency-Key": str(uuid.uuid4())}
    assert stand.http.post("/v1/claims", json=body, headers=headers).status_code >= 400


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_codes_of_a_sandbox_are_shown_and_never_sent(make_stand: Any) -> None:
    stand: Stand = make_stand(CODE_SENDER="none")
    stand.server.start()
    made = make(stand)
    real = stand.http.post("/v1/sign-in/codes", json={"phone": stand.new_phone(), "brand": BRAND})
    assert (real.status_code, real.json()["code"], "fanxing-sandbox" in real.headers) == (503, "SenderMissing", False)
    shown = stand.http.post("/v1/sign-in/codes", json={"phone": stand.new_phone(), "brand": made.brand})
    assert (shown.status_code, shown.headers["fanxing-sandbox"]) == (202, "true")
    assert len(shown.json()["development_code"]) == 6
    # Where there is one real group, it need not be named, however many sandboxes there are.
    assert stand.http.post("/v1/sign-in/codes", json={"phone": stand.new_phone()}).json()["code"] == "SenderMissing"


def test_a_reset_keeps_keys_and_forgets_members(stand: Stand) -> None:
    made, phone = make(stand), stand.new_phone()
    before = sign_in(stand, made.brand, phone)
    assert stand.http.get("/v1/me", headers=bearer(before["token"])).status_code == 200
    fresh: Playground = stand.run(lambda session: playground.reset(session, made.name, datetime.now(UTC)))
    assert (fresh.brand, fresh.gtin, fresh.keys) == (made.brand, made.gtin, {})
    assert stand.http.get("/v1/me", headers=bearer(before["token"])).status_code == 401
    answer = stand.http.get(f"/v1/brand/{made.brand}/orders", headers=bearer(made.keys["brand"]))
    assert (answer.status_code, answer.headers["fanxing-sandbox"]) == (200, "true")
    groups = stand.rows(select(SandboxGroup).where(SandboxGroup.name == made.name))
    assert sorted(group.retired_at is None for group in groups) == [False, True]
    member = stand.rows(select(Member).where(Member.member_id == uuid.UUID(before["member_id"])))[0]
    current = stand.rows(select(Brand.group_id).where(Brand.slug == made.brand))
    assert member.group_id not in current
    stand.run(lambda session: playground.reset(session, made.name, datetime.now(UTC)))  # and once more


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_only_a_new_group_becomes_a_sandbox(stand: Stand) -> None:
    made = make(stand)
    with pytest.raises(BrandExists):
        stand.run(lambda session: playground.create(session, stand.vault, made.name, NOW))
    with pytest.raises(BrandExists):
        stand.run(lambda session: playground.create(session, stand.vault, BRAND, NOW))
    with pytest.raises(BrandUnknown):
        stand.run(lambda session: playground.reset(session, BRAND, NOW))


def test_the_group_decides(stand: Stand) -> None:
    made = make(stand)

    async def sides(session: Any) -> list[bool]:
        brands = (await session.exec(select(Brand).where(col(Brand.slug).in_([made.brand, BRAND])))).all()
        return [await sandbox.is_sandbox(session, one.group_id) for one in sorted(brands, key=lambda one: one.slug)]

    assert stand.run(sides) == [True, False]
