"""Purchases, cards and tiers over HTTP: what a till sends, what a member sees, what a brand sets."""

import uuid
from typing import Any

import httpx2
import pytest

from tests.stand import BRAND, OTHER_BRAND, Stand

FACE = {"colours": ["#334155", "#0f172a"], "text_colour": "#ffffff", "pattern": "stars"}
RULES = {
    "window_months": 12,
    "grace_days": 30,
    "experience_per_purchase": 10,
    "experience_per_yuan": 1,
    "tiers": [
        {"slug": "member", "name_zh": "会员", "name_en": "Member", "card_face": FACE},
        {
            "slug": "gold",
            "name_zh": "金卡",
            "name_en": "Gold",
            "card_face": FACE,
            "needs": {"purchases": 2, "fen": 20_000},
        },
    ],
}


class Till:
    """A shop's till, with the rules of its brand made first."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        shown = self.get(f"/v1/brand/{OTHER_BRAND}/tiers", "other brand")
        if shown.json()["version"] == 0:
            made = self.put(f"/v1/brand/{OTHER_BRAND}/tiers", RULES | {"replaces": 0}, "other brand")
            assert (made.status_code, made.json()["version"]) == (200, 1)
            rule = self.post(f"/v1/brand/{OTHER_BRAND}/earn-rules", {"points_per_yuan_milli": 1_000}, "other brand")
            assert rule.status_code == 201

    def get(self, path: str, key: str, **parameters: str) -> httpx2.Response:
        return self.stand.http.get(path, headers=self.stand.key(key), params=parameters)

    def put(self, path: str, body: dict[str, Any], key: str) -> httpx2.Response:
        return self.stand.http.put(path, json=body, headers=self.stand.key(key))

    def post(
        self, path: str, body: dict[str, Any], key: str = "other shop", once: str | None = None
    ) -> httpx2.Response:
        headers = {**self.stand.key(key), "Idempotency-Key": once or str(uuid.uuid4())}
        return self.stand.http.post(path, json=body, headers=headers)

    def buy(self, phone: str, paid_fen: int, **changes: Any) -> httpx2.Response:
        body = {"receipt": str(uuid.uuid4()), "phone": phone, "paid_fen": paid_fen} | changes
        return self.post("/v1/shop/purchases", body)


@pytest.fixture
def till(stand: Stand) -> Till:
    return Till(stand)


def test_a_shopper_buys_climbs_returns_it_and_sees_why(till: Till, stand: Stand) -> None:
    member = stand.member()
    unknown = till.post("/v1/shop/members/lookup", {"phone": stand.new_phone()}).json()
    assert unknown == {
        "known": False, "member_id": None, "card_number": None, "tier": None, "tier_name": None, "points": 0
    }  # fmt: skip
    first = till.buy(member.phone, 12_000).json()
    assert (first["points"], first["balance"], first["tier"]) == (120, 120, "member")
    second = till.buy(member.phone, 10_050, lines=[{"fen": 10_000, "quantity": 2}])
    assert (second.status_code, second.json()["balance"], second.json()["tier"]) == (201, 220, "gold")
    known = till.post("/v1/shop/members/lookup", {"phone": member.phone}).json()
    assert (known["card_number"], known["tier"], known["points"]) == (first["card_number"], "gold", 220)

    [card] = stand.http.get("/v1/me/cards", headers={**member.headers, "accept-language": "en"}).json()["cards"]
    assert (card["tier"]["slug"], card["tier"]["card_face"], card["next_tier"]) == ("gold", FACE, None)
    assert card["explanation"] == "2 purchases, ¥220.50 and 240 experience in 12 months; the highest tier"
    me = stand.http.get("/v1/me", headers={**member.headers, "accept-language": "zh"}).json()
    assert [(one["tier"], one["tier_name"], one["card_face"]) for one in me["cards"]] == [("gold", "金卡", FACE)]

    refund = {"refund": "R1", "lines": [{"number": 1, "fen": 5_000, "quantity": 1}]}
    done = till.post(f"/v1/shop/purchases/{second.json()['purchase_id']}/refunds", refund).json()
    assert (done["points_taken"], done["points_short"], done["balance"], done["tier"]) == (50, 0, 170, "member")
    [card] = stand.http.get("/v1/me/cards", headers={**member.headers, "accept-language": "en"}).json()["cards"]
    assert card["explanation"] == (
        "2 purchases and ¥170.50 in 12 months; Gold needs 2 purchases and ¥200: ¥29.50 to go"
    )
    path = f"/v1/me/cards/{OTHER_BRAND}/changes"
    page = stand.http.get(path, headers=member.headers, params={"limit": 1}).json()
    assert [change["reason"] for change in page["data"]] == ["refunded"]
    rest = stand.http.get(path, headers=member.headers, params={"cursor": page["next_cursor"]}).json()
    assert [change["reason"] for change in rest["data"]] == ["earned"]
    assert stand.books().sound


def test_one_request_sent_twice_is_answered_alike_and_earns_once(till: Till, stand: Stand) -> None:
    body = {"receipt": str(uuid.uuid4()), "phone": stand.new_phone(), "paid_fen": 10_000}
    once = str(uuid.uuid4())
    answers = [till.post("/v1/shop/purchases", body, once=once) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    anew = till.post("/v1/shop/purchases", body).json()
    assert (anew["is_new"], anew["balance"]) == (False, 100)
    other = till.post("/v1/shop/purchases", body | {"paid_fen": 1})
    assert (other.status_code, other.json()["code"]) == (409, "ReceiptReused")


def test_one_receipt_sent_by_ten_tills_at_once_earns_once(till: Till, stand: Stand) -> None:
    body = {"receipt": str(uuid.uuid4()), "phone": stand.new_phone(), "paid_fen": 10_000}
    request = {"url": "/v1/shop/purchases", "json": body}
    answers = stand.at_once(
        [request | {"headers": {**stand.key("other shop"), "Idempotency-Key": str(uuid.uuid4())}} for _ in range(10)]
    )
    assert [answer.status_code for answer in answers] == [201] * 10
    assert sorted(answer.json()["is_new"] for answer in answers) == [False] * 9 + [True]
    assert {answer.json()["balance"] for answer in answers} == {100}


def test_a_quote_says_what_a_purchase_would_earn_and_changes_nothing(till: Till, stand: Stand) -> None:
    before = stand.counts(without={"code_window"})  # which counts what the till asked
    body = {"receipt": "q", "phone": stand.new_phone(), "paid_fen": 10_000, "lines": [{"fen": 150}]}
    quoted = till.post("/v1/shop/purchases/quote", body)
    assert quoted.json() == {"points": 100, "by_line": [98, 2], "experience": 110, "tier": "member"}
    assert stand.counts(without={"code_window"}) == before


def test_a_brands_tiers_are_public_and_its_rules_its_own(till: Till, stand: Stand) -> None:
    shown = stand.http.get(f"/v1/brands/{OTHER_BRAND}/tiers", headers={"accept-language": "en"}).json()
    assert [(tier["slug"], tier["name"]) for tier in shown["tiers"]] == [("member", "Member"), ("gold", "Gold")]
    plain = stand.http.get(f"/v1/brands/{BRAND}/tiers").json()
    assert [tier["slug"] for tier in plain["tiers"]] == ["member"]
    for answer in (
        till.get(f"/v1/brand/{OTHER_BRAND}/tiers", "brand"),
        till.put(f"/v1/brand/{OTHER_BRAND}/tiers", RULES | {"replaces": 1}, "brand"),
        till.get(f"/v1/brand/{OTHER_BRAND}/flows", "brand"),
        till.get(f"/v1/brand/{OTHER_BRAND}/earn-rules", "brand"),
        till.get(f"/v1/brand/{OTHER_BRAND}/earn-rules", "other shop"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "OutOfScope")


def test_rules_that_mean_nothing_are_refused(till: Till) -> None:
    path = f"/v1/brand/{OTHER_BRAND}/tiers"
    stale = till.put(path, RULES | {"replaces": 0}, "other brand")
    assert (stale.status_code, stale.json()["code"]) == (409, "TierRulesChanged")
    pale = [RULES["tiers"][0] | {"card_face": FACE | {"text_colour": "#334155"}}]  # type: ignore[index]
    for wrong in ({"tiers": pale}, {"window_months": 0}, {"valid_from": "2020-01-01T00:00:00Z"}):
        refused = till.put(path, RULES | {"replaces": 1} | wrong, "other brand")
        assert (refused.status_code, refused.json()["code"]) == (400, "TierRulesInvalid")


def test_a_shop_sees_only_its_own_brands_purchases(till: Till, stand: Stand) -> None:
    bought = till.buy(stand.new_phone(), 1_000).json()
    refund = till.post(f"/v1/shop/purchases/{bought['purchase_id']}/refunds", {"refund": "R1"}, "shop")
    assert (refund.status_code, refund.json()["code"]) == (404, "PurchaseUnknown")
    for key in ("brand", "logistics", "regulator"):
        assert till.post("/v1/shop/purchases", {"receipt": "r", "phone": "1", "paid_fen": 1}, key).status_code == 403


def test_an_earn_rule_is_made_listed_and_ended(till: Till) -> None:
    path = f"/v1/brand/{OTHER_BRAND}/earn-rules"
    made = till.post(path, {"points_per_yuan_milli": 1, "gtin_prefix": "0950600"}, "other brand").json()
    assert made["rule_id"] in [rule["rule_id"] for rule in till.get(path, "other brand").json()]
    ended = till.stand.http.delete(f"{path}/{made['rule_id']}", headers=till.stand.key("other brand"))
    assert ended.status_code == 204
    assert made["rule_id"] not in [rule["rule_id"] for rule in till.get(path, "other brand").json()]


def test_flows_are_shown_to_the_brands_of_the_group(till: Till) -> None:
    shown = till.get(f"/v1/brand/{OTHER_BRAND}/flows", "other brand")
    assert shown.status_code == 200
    assert {"flows", "shared"} == shown.json().keys()
