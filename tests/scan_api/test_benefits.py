"""Benefits over HTTP: what members obtain and use, what tills redeem, what brands send and count."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx2
import pytest

from codes.catalogue import brand_named
from kit.db import Session
from kit.ids import new_id
from loyalty import benefits, ledger
from loyalty.benefits import Benefit, BenefitKind, NewBenefit, catalogue, code_pools, stock
from loyalty.benefits.pool_files import Line
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from tests.stand import BRAND, OTHER_BRAND, SignedIn, Stand

ADDRESS = {"name": "李雷", "phone": "+8613800138000", "region": "山东省青岛市", "line": "香港中路 1 号"}
_PLAIN = NewBenefit(
    brand_id=0,
    group_id=0,
    kind=BenefitKind.COUPON,
    name_zh="满十减五",
    name_en="5 off 10",
    starts_at=datetime.now(UTC) - timedelta(days=1),
    ends_at=datetime.now(UTC) + timedelta(days=30),
    value_fen=500,
    cost_fen=300,
    valid_days=30,
    prices={0: 100},
)


async def _create(changes: dict[str, Any], stocked: int, vault: Any, session: Session) -> Benefit:
    brand = await brand_named(session, BRAND)
    now = datetime.now(UTC)
    new = replace(_PLAIN, brand_id=brand.brand_id, group_id=brand.group_id, **changes)
    made = await catalogue.create(session, new, now)
    if made.kind == BenefitKind.POOL:
        lines = [Line(number, f"POOL-{made.benefit_id.hex[-8:]}-{number}") for number in range(stocked)]
        file = await code_pools.begin(session, made, "codes.txt", bytes(32), now)
        await code_pools.add(session, vault, made, file, lines, 0, now)
    else:
        await stock.procure(session, made, stocked, procurement_id=new_id(), now=now)
    return made


def _benefit(stand: Stand, stocked: int = 20, **changes: Any) -> str:
    made = stand.run(partial(_create, changes, stocked, stand.vault))
    return str(made.benefit_id)


def _shopper(stand: Stand, points: int = 100) -> SignedIn:
    member = stand.member()

    async def give(session: Session) -> None:
        account = AccountId(member.member_id, ledger.POINTS, Purpose.AVAILABLE)
        legs = (Leg(ledger.issuance(1, ledger.POINTS, 0), -points), Leg(account, points))
        await ledger.post(session, Transfer(new_id(), "test", legs), datetime.now(UTC))

    stand.run(give)
    return member


def _keyed(headers: dict[str, str], key: str | None = None) -> dict[str, str]:
    return {**headers, "Idempotency-Key": key or str(uuid.uuid4())}


def _obtaining(member: SignedIn, benefit_id: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    return {
        "url": "/v1/me/benefits",
        "json": {"benefit_id": benefit_id, **body},
        "headers": _keyed(member.headers, key),
    }


def _obtained(stand: Stand, member: SignedIn, benefit_id: str) -> dict[str, Any]:
    answer = stand.http.post(**_obtaining(member, benefit_id))
    assert answer.status_code == 201, answer.text
    held: dict[str, Any] = answer.json()
    return held


def _of_till(stand: Stand, path: str, body: dict[str, Any], role: str = "shop", key: str | None = None) -> Any:
    return stand.http.post(f"/v1/shop/{path}", json=body, headers=_keyed(stand.key(role), key))


def _of_brand(stand: Stand, path: str, body: dict[str, Any] | None = None, role: str = "brand") -> httpx2.Response:
    url = f"/v1/brand/{BRAND}/{path}"
    if body is None:
        return stand.http.get(url, headers=stand.key(role))
    return stand.http.post(url, json=body, headers=_keyed(stand.key(role)))


def _refused(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_anybody_sees_what_is_on_offer(stand: Stand) -> None:
    benefit_id = _benefit(stand, prices={0: 100, 2: 50})
    data, cursor = [], ""
    for _ in range(100):
        page = stand.http.get(f"/v1/brands/{BRAND}/benefits?limit=3{cursor}").json()
        data += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    [shown] = [one for one in data if one["benefit_id"] == benefit_id]
    assert shown["prices"] == [{"tier_rank": 0, "points": 100}, {"tier_rank": 2, "points": 50}]
    assert (shown["name"]["en"], shown["in_stock"], shown["stackable"]) == ("5 off 10", True, False)
    assert "cost_fen" not in shown
    assert stand.http.get("/v1/brands/nobody/benefits").status_code == 404


def test_a_member_buys_shows_and_a_till_redeems(stand: Stand) -> None:
    member, benefit_id = _shopper(stand), _benefit(stand)
    held = _obtained(stand, member, benefit_id)
    assert (held["points_paid"], held["state"], held["value_fen"]) == (100, "claimed", 500)
    [listed] = stand.http.get("/v1/me/benefits", headers=member.headers).json()["data"]
    assert listed["code"] == held["code"]
    [seen] = _of_till(stand, "redemptions/validate", {"coupon_codes": [held["code"]]}).json()["coupons"]
    assert (seen["coupon_id"], seen["refusal"]) == (held["held_id"], None)
    done = _of_till(stand, "redemptions", {"coupon_code": held["code"]})
    assert (done.status_code, done.json()["coupon_id"]) == (201, held["held_id"])
    rollback = f"redemptions/{done.json()['redemption_id']}/rollback"
    assert _of_till(stand, rollback, {}).status_code == 200
    assert _of_till(stand, "redemptions", {"coupon_code": held["code"]}).status_code == 201
    counted = _of_brand(stand, f"benefits/{benefit_id}/report").json()
    assert (counted["redeemed"], counted["rolled_back"], counted["visits"]) == (1, 1, 1)
    assert stand.books().faults == ()


def test_obtaining_is_repeated_under_its_key_and_costs_once(stand: Stand) -> None:
    member, benefit_id, key = _shopper(stand, 1_000), _benefit(stand), str(uuid.uuid4())
    answers = stand.at_once([_obtaining(member, benefit_id, key)] * 10)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert stand.http.get("/v1/me", headers=member.headers).json()["points"] == 900
    reused = stand.http.post(**_obtaining(member, benefit_id, key, points_expected=100))
    assert _refused(reused) == (409, "IdempotencyKeyReused")


def test_the_last_one_goes_to_one_of_ten(stand: Stand) -> None:
    benefit_id = _benefit(stand, 1)
    crowd = [_shopper(stand) for _ in range(10)]
    answers = stand.at_once([_obtaining(member, benefit_id) for member in crowd])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 9}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"BenefitOutOfStock"}
    assert stand.books().faults == ()


@pytest.mark.parametrize(
    ("points", "body", "refusal"),
    [
        (99, {}, (409, "PointsShort")),
        (100, {"points_expected": 99}, (409, "BenefitPriceChanged")),
        (100, {"benefit_id": str(uuid.uuid4())}, (404, "BenefitUnknown")),
        (100, {"benefit_id": "x"}, (400, "RequestInvalid")),
    ],
    ids=["points short", "price changed", "unknown", "no id"],
)
def test_what_cannot_be_obtained_leaves_no_trace(
    stand: Stand, points: int, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    member, benefit_id = _shopper(stand, points), _benefit(stand)
    before = stand.counts()
    assert _refused(stand.http.post(**_obtaining(member, **({"benefit_id": benefit_id} | body)))) == refusal
    assert stand.counts() == before


def test_a_pools_code_is_shown_when_asked_for(stand: Stand) -> None:
    member, benefit_id = _shopper(stand), _benefit(stand, kind=BenefitKind.POOL)
    held = _obtained(stand, member, benefit_id)
    assert held["code"] is None
    shown = stand.http.post(f"/v1/me/benefits/{held['held_id']}/code", headers=member.headers).json()
    assert shown["code"].startswith("POOL-")
    other = stand.http.post(f"/v1/me/benefits/{held['held_id']}/code", headers=stand.member().headers)
    assert _refused(other) == (404, "HeldBenefitUnknown")


def test_a_red_packet_is_opened_once(stand: Stand) -> None:
    member = _shopper(stand)
    benefit_id = _benefit(stand, kind=BenefitKind.CASH, amount=888, value_fen=888)
    held = _obtained(stand, member, benefit_id)
    opening = {"url": f"/v1/me/benefits/{held['held_id']}/open"}
    answers = stand.at_once([{**opening, "headers": _keyed(member.headers)} for _ in range(5)])
    assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(200, "redeemed")}
    assert stand.books().faults == ()


def test_a_thing_is_sent_and_comes_back(stand: Stand) -> None:
    member, benefit_id = _shopper(stand), _benefit(stand, kind=BenefitKind.GOODS)
    held_id = _obtained(stand, member, benefit_id)["held_id"]
    ordered = stand.http.put(f"/v1/me/benefits/{held_id}/address", json=ADDRESS, headers=member.headers)
    assert (ordered.status_code, ordered.json()["state"]) == (200, "reserved")
    shipped = {"state": "shipped", "carrier": "SF", "tracking": "SF1"}
    assert _refused(_of_brand(stand, f"deliveries/{held_id}", {"state": "delivered"})) == (409, "DeliveryStateForbids")
    assert _of_brand(stand, f"deliveries/{held_id}", shipped).status_code == 200
    [parcel] = [one for one in _of_brand(stand, "deliveries").json()["data"] if one["held_id"] == held_id]
    assert (parcel["address"]["line"], parcel["tracking"]) == (ADDRESS["line"], "SF1")
    assert _of_brand(stand, f"deliveries/{held_id}", {"state": "returned"}).json()["state"] == "returned"
    assert stand.http.get("/v1/me", headers=member.headers).json()["points"] == 100
    assert ADDRESS["line"] not in stand.server.log


def test_the_brand_takes_a_benefit_back(stand: Stand) -> None:
    member, benefit_id = _shopper(stand), _benefit(stand)
    held_id = _obtained(stand, member, benefit_id)["held_id"]
    body = {"member_id": str(member.member_id), "held_id": held_id}
    done = _of_brand(stand, "reversals", body)
    assert (done.status_code, done.json()["points_returned"]) == (201, 100)
    assert stand.http.get("/v1/me", headers=member.headers).json()["points"] == 100
    elsewhere = f"/v1/brand/{OTHER_BRAND}/reversals"
    other = stand.http.post(elsewhere, json=body, headers=_keyed(stand.key("other brand")))
    assert _refused(other) == (404, "HeldBenefitUnknown")


def test_a_reserved_coupon_is_redeemed_with_its_basket(stand: Stand) -> None:
    member, benefit_id, basket = _shopper(stand), _benefit(stand), str(uuid.uuid4())
    held = _obtained(stand, member, benefit_id)
    own = f"/v1/me/benefits/{held['held_id']}/reservation"
    reserved = stand.http.post(own, json={"basket_id": basket}, headers=member.headers)
    assert reserved.json()["state"] == "reserved"
    body = {"coupon_code": held["code"]}
    assert _refused(_of_till(stand, "redemptions", body)) == (409, "CouponReserved")
    assert stand.http.request("DELETE", own, headers=member.headers).json()["state"] == "claimed"
    of_till = {**body, "basket_id": basket}
    assert _of_till(stand, "reservations", {**of_till, "seconds": 60}).json()["state"] == "reserved"
    assert _of_till(stand, "reservations/release", of_till).json()["state"] == "claimed"
    assert _refused(_of_till(stand, "reservations/release", of_till)) == (409, "CouponNotReserved")
    assert _of_till(stand, "reservations", of_till).status_code == 200
    assert _of_till(stand, "redemptions", of_till).status_code == 201


def test_uploaded_redemptions_are_judged_line_by_line(stand: Stand) -> None:
    benefit_id, at = _benefit(stand), datetime.now(UTC).isoformat()
    codes = [_obtained(stand, _shopper(stand), benefit_id)["code"] for _ in range(2)]

    def lines(codes: Sequence[str]) -> list[dict[str, str]]:
        return [{"redemption_id": str(uuid.uuid4()), "coupon_code": code, "at": at} for code in codes]

    sent = lines([*codes, codes[0], "0000-0000-0000-0000"])
    for _ in range(2):
        answer = _of_till(stand, "redemptions/offline", {"redemptions": sent})
        assert [line["outcome"] for line in answer.json()["lines"]] == [
            "redeemed",
            "redeemed",
            "already_redeemed",
            "unknown",
        ]
        assert answer.json()["counts"] == {"redeemed": 2, "already_redeemed": 1, "unknown": 1}
    conflicts = _of_brand(stand, "redemption-conflicts").json()["data"]
    kept = {one["redemption_id"]: one["outcome"] for one in conflicts}
    assert {kept[sent[2]["redemption_id"]], kept[sent[3]["redemption_id"]]} == {"already_redeemed", "unknown"}
    for wrong in ([], lines(codes[:1]) * 501):
        refused = _of_till(stand, "redemptions/offline", {"redemptions": wrong})
        assert _refused(refused) == (400, "RequestInvalid")


Call = Callable[[Stand], httpx2.Response]


@pytest.mark.parametrize(
    "call",
    [
        lambda stand: _of_till(stand, "redemptions/validate", {"coupon_codes": ["x"]}, "brand"),
        lambda stand: _of_till(stand, "reservations", {"coupon_code": "x", "basket_id": str(new_id())}, "brand"),
        lambda stand: _of_brand(stand, "deliveries", role="shop"),
        lambda stand: _of_brand(stand, "deliveries", role="other brand"),
        lambda stand: _of_brand(stand, "redemption-conflicts", role="other brand"),
        lambda stand: _of_brand(stand, f"benefits/{new_id()}/report", role="other brand"),
    ],
    ids=["validate", "reserve", "deliveries", "other deliveries", "other conflicts", "other report"],
)
def test_a_key_of_another_role_or_brand_is_out_of_scope(stand: Stand, call: Call) -> None:
    assert _refused(call(stand)) == (403, "OutOfScope")


def test_who_is_not_signed_in_has_no_benefits(stand: Stand) -> None:
    for answer in (
        stand.http.get("/v1/me/benefits"),
        stand.http.post("/v1/me/benefits", json={"benefit_id": str(new_id())}, headers=_keyed({})),
        stand.http.post(f"/v1/me/benefits/{new_id()}/code"),
    ):
        assert _refused(answer) == (401, "SignInNeeded")


def test_a_benefit_that_is_granted_reaches_the_member(stand: Stand) -> None:
    member, benefit_id = stand.member(), _benefit(stand, prices={})

    async def grant(session: Session) -> None:
        await benefits.grant(
            session,
            stand.vault,
            grant_id=new_id(),
            member_id=member.member_id,
            benefit_id=uuid.UUID(benefit_id),
            why="birthday",
            now=datetime.now(UTC),
        )

    stand.run(grant)
    [coupon] = stand.http.get("/v1/me", headers=member.headers).json()["coupons"]
    assert (coupon["state"], len(coupon["code"])) == ("issued", 19)
