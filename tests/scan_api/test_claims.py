"""Claims over real HTTP: who may, what is refused without a trace, and that a repetition is not a second claim."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from loyalty.benefits import MemberBenefit
from loyalty.claims import Claim
from loyalty.members import Card
from scan_api.middleware import BODY_BYTES_MAX
from tests.stand import SignedIn, Stand

NEW_KEY = "a-key-of-this-test"


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _raw_claim(stand: Stand, member: SignedIn, content: Any, **headers: str) -> httpx2.Response:
    """A claim whose body is written by hand."""
    given = {**member.headers, "Idempotency-Key": str(uuid.uuid4()), "content-type": "application/json", **headers}
    return stand.http.post("/v1/claims", content=content, headers=given)


def _body(stand: Stand, campaign: str = "points") -> dict[str, str]:
    return {"code_text": stand.text(stand.take_item().inner), "campaign_id": stand.campaign(campaign)}


def test_points_are_paid_and_a_card_is_opened(stand: Stand) -> None:
    member, (one, other) = stand.member(), stand.take_items(2)
    first, second = stand.claim(member, one.inner), stand.claim(member, other.inner)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["prize"] == {"kind": "points", "amount": 100}
    assert (first.json()["balance"], second.json()["balance"]) == (100, 200)
    assert first.json()["card_number"] == second.json()["card_number"]
    me = stand.http.get("/v1/me", headers=member.headers).json()
    assert me["points"] == 200
    assert [card["card_number"] for card in me["cards"]] == [first.json()["card_number"]]


def test_repeated_scans_add_up_to_mobile_data_that_arrives(stand: Stand) -> None:
    member = stand.member()
    orders = [stand.claim(member, item.inner, "data").json()["order_id"] for item in stand.take_items(3)]
    stand.wait_for_fulfilment()
    me = stand.http.get("/v1/me", headers=member.headers).json()
    assert me["megabytes"] == {"pending": 0, "delivered": 15}
    told = stand.carrier.statistics()["by_order"]
    assert [told[order]["deliveries"] for order in orders] == [1, 1, 1]


def test_a_code_under_an_upper_case_host_pays_and_is_the_same_item(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    upper = stand.claim(member, item.inner, code_text=stand.text(item.inner).upper())
    assert (upper.status_code, upper.json()["prize"]) == (201, {"kind": "points", "amount": 100})
    assert _error(stand.claim(member, item.inner)) == (409, "AlreadyClaimed")
    mixed = stand.text(item.inner).replace("http", "Http")
    assert _error(stand.claim(member, item.inner, code_text=mixed)) == (400, "Malformed")


def test_coupon_comes_with_its_code_again_and_again(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    answers = [stand.claim(member, item.outer, "coupon", key=NEW_KEY) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    code = answers[0].json()["coupon_code"]
    [held] = stand.http.get("/v1/me", headers=member.headers).json()["coupons"]
    assert (held["code"], held["state"], held["value_fen"]) == (code, "issued", 500)
    [stored] = stand.rows(select(MemberBenefit).where(MemberBenefit.member_id == member.member_id))
    assert code.replace("-", "").encode() not in stored.code_sealed


def test_one_item_pays_in_several_campaigns(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    codes = {"points": item.inner, "data": item.inner, "coupon": item.outer}
    assert [stand.claim(member, path, name).status_code for name, path in codes.items()] == [201] * 3


def test_claim_needs_a_sign_in(stand: Stand) -> None:
    stranger = SignedIn(uuid.uuid4(), "", "nobody")
    answer = stand.claim(stranger, stand.take_item().inner)
    assert _error(answer) == (401, "SignInNeeded")


def test_claim_needs_an_idempotency_key(stand: Stand) -> None:
    answer = stand.http.post("/v1/claims", json=_body(stand), headers=stand.member().headers)
    assert _error(answer) == (400, "IdempotencyKeyMissing")
    assert "idempotency-key" in answer.json()["detail"].lower()


@pytest.mark.parametrize(("key", "good"), [("7 chars", False), ("8 chars.", True), ("k" * 64, True), ("k" * 65, False)])
def test_idempotency_key_has_8_to_64_characters(stand: Stand, key: str, good: bool) -> None:
    answer = stand.claim(stand.member(), stand.take_item().inner, key=key)
    if good:
        assert answer.status_code == 201
    else:
        assert _error(answer) == (400, "IdempotencyKeyInvalid")


def test_idempotency_key_is_ascii(stand: Stand) -> None:
    request = stand.claim_request(stand.member(), stand.take_item().inner)
    headers = {**request["headers"], "Idempotency-Key": "schlüssel".encode("latin-1")}
    answer = stand.http.post(request["url"], json=request["json"], headers=headers)
    assert _error(answer) == (400, "IdempotencyKeyInvalid")


def test_repetition_under_one_key_gets_the_first_answer(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    first = stand.claim(member, item.inner, key=NEW_KEY)
    before = stand.counts()
    again = stand.claim(member, item.inner, key=NEW_KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert stand.counts() == before


def test_one_key_for_two_requests_is_refused(stand: Stand) -> None:
    member, (one, other) = stand.member(), stand.take_items(2)
    assert stand.claim(member, one.inner, key=NEW_KEY).status_code == 201
    before = stand.counts()
    assert _error(stand.claim(member, other.inner, key=NEW_KEY)) == (409, "IdempotencyKeyReused")
    assert _error(stand.claim(member, one.inner, "data", key=NEW_KEY)) == (409, "IdempotencyKeyReused")
    assert stand.counts() == before


def test_one_key_is_free_for_every_member(stand: Stand) -> None:
    pairs = zip(stand.members(2), stand.take_items(2), strict=True)
    answers = [stand.claim(member, item.inner, key=NEW_KEY) for member, item in pairs]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["claim_id"] != answers[1].json()["claim_id"]


def test_key_of_a_refused_claim_can_be_used_again(stand: Stand) -> None:
    """Nothing is remembered of what did not happen."""
    member, item = stand.member(), stand.take_item()
    assert _error(stand.claim(member, item.outer, key=NEW_KEY)) == (409, "ClaimNeedsInnerCode")
    assert stand.claim(member, item.inner, key=NEW_KEY).status_code == 201


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("NeverIssued serial", 404),
        ("NeverIssued order", 404),
        ("NeverIssued face", 404),
        ("BadSignature", 404),
        ("UnknownKey", 404),
        ("Malformed", 400),
        ("Revoked item", 410),
        ("Revoked order", 410),
        ("Revoked key", 410),
        ("Recalled", 410),
    ],
)
def test_refused_code_pays_nothing_and_leaves_nothing(stand: Stand, name: str, status: int) -> None:
    member = stand.member()
    before = stand.counts()
    assert _error(stand.claim(member, stand.installation.refused[name])) == (status, name.split(maxsplit=1)[0])
    assert stand.counts() == before


def test_dormant_order_pays_nothing_and_leaves_nothing(stand: Stand) -> None:
    member = stand.member()
    before = stand.counts()
    assert _error(stand.claim(member, stand.order("dormant").items[1].inner)) == (409, "ItemNotOnSale")
    assert stand.counts() == before


@pytest.mark.parametrize(
    ("campaign", "status", "code"),
    [
        ("not started", 409, "CampaignNotOpen"),
        ("ended", 409, "CampaignNotOpen"),
        ("paused", 409, "CampaignNotOpen"),
        ("coupon", 409, "ClaimNeedsOuterCode"),
        ("other brand", 409, "ClaimWrongItem"),
    ],
)
def test_campaign_that_does_not_pay_leaves_nothing(stand: Stand, campaign: str, status: int, code: str) -> None:
    member, item = stand.member(), stand.take_item()
    before = stand.counts()
    assert _error(stand.claim(member, item.inner, campaign)) == (status, code)
    assert stand.counts() == before


def test_unknown_campaign_leaves_nothing(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    before = stand.counts()
    assert _error(stand.claim(member, item.inner, campaign_id=str(uuid.uuid4()))) == (404, "CampaignUnknown")
    assert stand.counts() == before


def test_second_claim_is_refused_to_the_winner_and_to_others(stand: Stand) -> None:
    (winner, other), item = stand.members(2), stand.take_item()
    assert stand.claim(winner, item.inner).status_code == 201
    before = stand.counts()
    for member, word in ((winner, "you"), (other, "somebody else")):
        answer = stand.claim(member, item.inner)
        assert _error(answer) == (409, "AlreadyClaimed")
        assert answer.json()["detail"].startswith(word)
    assert stand.counts() == before


def test_both_faces_of_an_item_are_one_item(stand: Stand) -> None:
    item = stand.take_item()
    assert stand.claim(stand.member(), item.outer, "coupon").status_code == 201
    assert _error(stand.claim(stand.member(), item.outer, "coupon")) == (409, "AlreadyClaimed")


def test_member_limit_holds(stand: Stand) -> None:
    member, (one, other) = stand.member(), stand.take_items(2)
    assert stand.claim(member, one.outer, "coupon").status_code == 201
    before = stand.counts()
    assert _error(stand.claim(member, other.outer, "coupon")) == (409, "MemberLimitReached")
    assert stand.counts() == before


def test_another_host_in_front_of_the_code_is_the_same_item(stand: Stand) -> None:
    """A brand may move its domain: the signature covers the item, not the host."""
    member, item = stand.member(), stand.take_item()
    moved = stand.claim(member, item.inner, code_text=f"https://id.example.cn{item.inner}")
    assert moved.status_code == 201
    assert _error(stand.claim(member, item.inner)) == (409, "AlreadyClaimed")


def test_cards_are_one_a_brand(stand: Stand) -> None:
    member = stand.member()
    stand.claim(member, stand.take_item().inner)
    stand.claim(member, stand.order("other brand").items[0].inner, "other brand")
    cards = stand.rows(select(Card).where(Card.member_id == member.member_id))
    assert len({card.brand_id for card in cards}) == len(cards) == 2
    me = stand.http.get("/v1/me", headers={**member.headers, "accept-language": "en"}).json()
    assert {card["brand_name"] for card in me["cards"]} == {"Star Cream", "Moon Tea"}
    assert me["points"] == 200  # the group's, over both brands


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"code_text": ' + b"9" * 5_000 + b"}"],
    ids=["nothing", "half", "list", "null", "text", "not UTF-8", "deep", "long number"],
)
def test_what_is_no_claim_is_refused(stand: Stand, content: bytes) -> None:
    member = stand.member()
    before = stand.counts()
    answer = _raw_claim(stand, member, content)
    assert answer.status_code == 400
    assert answer.json()["code"]
    assert stand.counts() == before


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"campaign_id": "not-a-uuid"},
        {"campaign_id": None},
        {"code_text": 5},
        {"code_text": "x" * 2_000},
        {"code_text": "\ud800"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_field_is_named_and_not_repeated(stand: Stand, change: dict[str, Any]) -> None:
    answer = _raw_claim(stand, stand.member(), json.dumps({**_body(stand), **change}))
    assert _error(answer) == (400, "RequestInvalid")
    assert next(iter(change)) in answer.json()["detail"]
    assert "not-a-uuid" not in answer.text
    assert "x" * 20 not in answer.text


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_body_of_another_type_is_refused(stand: Stand, content_type: str) -> None:
    """Such requests a browser sends across sites without asking."""
    body = json.dumps(_body(stand))
    answer = _raw_claim(stand, stand.member(), body, **{"content-type": content_type})
    assert _error(answer) == (400, "RequestInvalid")


def _padded(body: dict[str, str], size: int) -> bytes:
    content = json.dumps(body).encode()
    return content + b" " * (size - len(content))


def _in_chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 50_000):
        yield content[start : start + 50_000]


@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_the_greatest_size_is_read(stand: Stand, chunked: bool) -> None:
    content = _padded(_body(stand), BODY_BYTES_MAX)
    answer = _raw_claim(stand, stand.member(), _in_chunks(content) if chunked else content)
    assert answer.status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 4 * BODY_BYTES_MAX])
def test_larger_body_is_refused(stand: Stand, chunked: bool, size: int) -> None:
    member = stand.member()
    before = stand.counts()
    content = _padded(_body(stand), size)
    answer = _raw_claim(stand, member, _in_chunks(content) if chunked else content)
    assert _error(answer) == (413, "BodyTooLarge")
    assert answer.headers["cache-control"] == "no-store"
    assert stand.counts() == before


def test_larger_form_is_refused(stand: Stand) -> None:
    answer = stand.http.post("/web/join", data={"code": "1" * BODY_BYTES_MAX})
    assert _error(answer) == (413, "BodyTooLarge")


def test_claims_of_one_item_by_campaign_are_rows_of_their_own(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    ids = {uuid.UUID(stand.claim(member, item.inner, name).json()["claim_id"]) for name in ("points", "data")}
    stored = stand.rows(select(Claim).where(Claim.member_id == member.member_id))
    assert {claim.claim_id for claim in stored} == ids
    assert len({claim.item_key for claim in stored}) == 1
