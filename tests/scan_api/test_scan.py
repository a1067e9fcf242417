"""Scanning a code over real HTTP: verdicts, pages and JSON, what is recorded, and what stays secret."""

import re
import uuid
from collections.abc import Iterable
from functools import partial

import pytest
from sqlalchemy import update
from sqlmodel import select

from codes.orders import CodeOrder
from kit.db import Session, table_of
from loyalty import budgets, campaigns, ledger
from loyalty.campaigns import CampaignStatus
from loyalty.ledger import Account
from scan_api.scans import SCANNED_OFTEN_FROM, Item, Scan
from signer import keys
from tests.stand import GTIN, PLACED_AT, PlacedOrder, Stand, forged, publish, wait_until
from tests.stand import Item as Codes

STATUS_OF = {
    "NeverIssued serial": 404,
    "NeverIssued order": 404,
    "NeverIssued face": 404,
    "BadSignature": 404,
    "UnknownKey": 404,
    "Malformed": 400,
    "Revoked item": 410,
    "Revoked order": 410,
    "Revoked key": 410,
    "Recalled": 410,
}
TITLES = {
    "zh-CN": {400: "读不出这个码", 404: "查无此码", 410: "此码已作废"},
    "en": {400: "This code cannot be read", 404: "No such code", 410: "This code was withdrawn"},
}
PHONE = "Mozilla/5.0 (Linux; Android 14; 2312DRA50C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile"
PERSONS = {
    "WeChat": f"{PHONE} Safari/537.36 MicroMessenger/8.0.49 WeChat/arm64 Weixin NetType/WIFI",
    "a phone of the make Cubot": PHONE.replace("2312DRA50C", "CUBOT KINGKONG 9"),
    "Pinterest's in-app browser": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) [Pinterest/iOS]",
    "a scanner app": "okhttp/4.12.0",
    "nobody": "",
}
ROBOTS = {
    "WhatsApp's preview": "WhatsApp/2.24.1 A",
    "Facebook's preview": "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Telegram's preview": "TelegramBot (like TwitterBot)",
    "Google": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Baidu": "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
    "Pinterest": "Pinterest/0.2 (+https://www.pinterest.com/bot.html)",
    "Meta's fetcher": "meta-externalfetcher/1.1",
    "KakaoTalk's preview": "facebookexternalhit/1.1; kakaotalk-scrap/1.0",
    "Iframely": "Iframely/1.3.1 (+https://iframely.com/docs/about)",
    "Google's snippets": "Mozilla/5.0 (X11; Linux x86_64) (developers.google.com/+/web/snippet/)",
    "Google's inspection": "Mozilla/5.0 (compatible; Google-InspectionTool/1.0;)",
    "Google's advertising": "Mediapartners-Google",
    "Mastodon": "Mastodon/4.2.0 (http.rb/5.1.1; +https://mastodon.social/)",
    "DingTalk's preview": "DingTalkBot-LinkService/1.0 (+https://open-doc.dingtalk.com)",
}
SECURITY_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
    "cross-origin-opener-policy": "same-origin",
}


def _item_key(order: PlacedOrder, item: Codes) -> int:
    return CodeOrder(order_id=order.order_id).item_key(int(item.serial[5:]))


def _scans(stand: Stand, item: Codes, order: str = "on sale") -> list[Scan]:
    key = _item_key(stand.order(order), item)
    return stand.rows(select(Scan).where(Scan.item_key == key).order_by(Scan.scan_id))


def _count(stand: Stand, item: Codes) -> int:
    """The item's scan count, read in the database."""
    found = stand.rows(select(Item.scan_count).where(Item.item_key == _item_key(stand.order("on sale"), item)))
    return found[0] if found else 0


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def test_genuine_code_tells_product_issuer_and_first_scan(stand: Stand) -> None:
    item = stand.take_item()
    answer = stand.scan(item.outer, accept_language="en")
    seen = answer.json()
    assert answer.status_code == 200
    assert (seen["verdict"], seen["error"], seen["warnings"]) == ("genuine", None, [])
    assert (seen["gtin"], seen["serial"], seen["profile"]) == (GTIN, item.serial, 1)
    assert (seen["issuer"], seen["bundle_state"]) == ("Stand Dairy", "fresh")
    assert seen["product"] == {
        "gtin": GTIN,
        "name": "Sea salt lychee ice cream",
        "brand": "star-cream",
        "brand_name": "Star Cream",
    }
    assert seen["scan_count"] == 1
    assert [step["step"] for step in seen["timeline"]] == ["commissioned", "scanned"]
    assert seen["timeline"][1]["at"] == seen["first_scan_at"]


@pytest.mark.parametrize("name", STATUS_OF)
def test_refused_code_has_its_status_and_reason(stand: Stand, name: str) -> None:
    answer = stand.scan(stand.installation.refused[name])
    assert answer.status_code == STATUS_OF[name]
    seen = answer.json()
    assert (seen["verdict"], seen["error"], seen["offers"]) == ("refused", name.split(maxsplit=1)[0], [])


@pytest.mark.parametrize("name", STATUS_OF)
@pytest.mark.parametrize("language", TITLES)
def test_refused_code_has_a_page_in_either_language(stand: Stand, name: str, language: str) -> None:
    answer = stand.scan(stand.installation.refused[name], accept="text/html", accept_language=language)
    assert answer.status_code == STATUS_OF[name]
    recalled = {"zh-CN": "商品已召回", "en": "recalled"}[language]
    title = recalled if name == "Recalled" else TITLES[language][answer.status_code]
    assert f'lang="{language}"' in answer.text
    assert title in answer.text
    assert "code_text" not in answer.text  # nothing on this page leads to a claim


def test_recall_tells_its_reason_to_clients(stand: Stand) -> None:
    seen = stand.scan(stand.installation.refused["Recalled"]).json()
    assert seen["message"] == "Glass splinters were found in this batch."
    assert "recalled" in [step["step"] for step in seen["timeline"]]


def test_every_digit_of_a_signature_counts(stand: Stand) -> None:
    path = stand.take_item().inner
    for at in range(7, 162):
        changed = f"{path[:at]}{(int(path[at]) + 1) % 10}{path[at + 1 :]}"
        assert stand.scan(changed, user_agent="bot").json()["error"] in ("BadSignature", "Malformed")


def test_item_of_one_order_is_not_taken_for_another_orders(stand: Stand) -> None:
    """The signature of one item, with the numbers of another."""
    one, other = stand.take_items(2)
    assert stand.scan(one.inner[:-14] + other.serial).json()["error"] == "BadSignature"
    assert stand.scan(one.inner.replace("/2", "/1", 1)).json()["error"] == "BadSignature"


def test_page_or_json_as_the_caller_accepts(stand: Stand) -> None:
    path = stand.take_item().outer
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    assert stand.scan(path, accept=browser).headers["content-type"] == "text/html; charset=utf-8"
    for accept in ("application/json", "*/*", ""):
        assert stand.scan(path, accept=accept).headers["content-type"] == "application/json"


@pytest.mark.parametrize(("asked", "given"), [("zh-CN,zh;q=0.9", "zh"), ("en-GB", "en"), ("fr", "en"), ("", "zh")])
def test_language_as_the_caller_accepts(stand: Stand, asked: str, given: str) -> None:
    path = stand.take_item().outer
    name = {"zh": "海盐荔枝雪糕", "en": "Sea salt lychee ice cream"}[given]
    as_json = stand.scan(path, accept_language=asked)
    page = stand.scan(path, accept="text/html", accept_language=asked)
    assert (as_json.headers["content-language"], page.headers["content-language"]) == (given, given)
    assert as_json.json()["product"]["name"] == name
    assert name in page.text


def test_scans_are_counted_and_the_first_is_remembered(stand: Stand) -> None:
    item = stand.take_item()
    first = stand.scan(item.outer).json()
    again = stand.scan(item.inner).json()
    assert (first["scan_count"], again["scan_count"]) == (1, 2)
    assert again["first_scan_at"] == first["first_scan_at"]
    assert [scan.face for scan in _scans(stand, item)] == [1, 2]


def test_scan_is_in_the_database_when_the_answer_arrives(stand: Stand) -> None:
    item = stand.take_item()
    for count, (accept, channel) in enumerate((("application/json", "api"), ("text/html", "page")), start=1):
        assert stand.scan(item.outer, accept=accept).status_code == 200
        assert _count(stand, item) == count
        assert _scans(stand, item)[-1].channel == channel


def test_scan_of_a_refused_item_is_recorded_too(stand: Stand) -> None:
    item = stand.order("items revoked").items[0]
    before = len(_scans(stand, item, "items revoked"))
    assert stand.scan(item.inner).json()["scan_count"] == before + 1
    assert len(_scans(stand, item, "items revoked")) == before + 1


def test_code_that_was_never_issued_leaves_nothing_behind(stand: Stand) -> None:
    before = stand.counts()
    for name, status in STATUS_OF.items():
        if status in (400, 404):
            stand.scan(stand.installation.refused[name])
    assert stand.counts() == before


def test_parallel_scans_are_all_counted(stand: Stand) -> None:
    item = stand.take_item()
    answers = stand.at_once([{"url": item.outer, "headers": {"accept": "text/html"}}] * 24, method="GET")
    assert {answer.status_code for answer in answers} == {200}
    assert _count(stand, item) == 24
    assert len(_scans(stand, item)) == 24


def test_code_scanned_often_warns(stand: Stand) -> None:
    item = stand.take_item()
    for _ in range(SCANNED_OFTEN_FROM - 1):
        assert stand.scan(item.outer).json()["warnings"] == []
    assert stand.scan(item.outer).json()["warnings"] == ["scanned_often"]


def test_dormant_order_warns_and_offers_nothing_open(stand: Stand) -> None:
    item = stand.order("dormant").items[0]
    seen = stand.scan(item.inner).json()
    assert (seen["verdict"], seen["warnings"]) == ("genuine", ["not_active"])
    assert {offer["state"] for offer in seen["offers"]} == {"not_active"}
    page = stand.scan(item.inner, accept="text/html", accept_language="en").text
    assert "Genuine code, but look closer" in page
    assert "<form" not in page


def test_offers_tell_what_the_code_can_pay(stand: Stand) -> None:
    item = stand.take_item()
    inner = {offer["title"]: offer["state"] for offer in stand.scan(item.inner, accept_language="en").json()["offers"]}
    outer = {offer["title"]: offer["state"] for offer in stand.scan(item.outer, accept_language="en").json()["offers"]}
    assert inner["Campaign points"] == inner["Campaign data"] == "open"
    assert inner["Campaign coupon"] == "needs_outer_code"
    assert inner["Campaign not started"] == "not_started"
    assert inner["Campaign ended"] == "ended"
    assert inner["Campaign paused"] == "paused"
    assert "Tea gift" not in inner
    assert outer["Campaign coupon"] == "open"
    assert outer["Campaign points"] == "needs_inner_code"


def test_offer_says_who_claimed_without_saying_his_name(stand: Stand) -> None:
    item, winner, other = stand.take_item(), stand.member(), stand.member()
    assert stand.claim(winner, item.inner).status_code == 201

    def state(**headers: str) -> str:
        offers = stand.scan(item.inner, accept_language="en", **headers).json()["offers"]
        return next(offer["state"] for offer in offers if offer["title"] == "Campaign points")

    assert state(authorization=winner.headers["Authorization"]) == "claimed_by_you"
    assert state(authorization=other.headers["Authorization"]) == "claimed_by_somebody"
    assert state() == "claimed_by_somebody"
    assert str(winner.member_id) not in stand.scan(item.inner).text


def test_whatever_changes_reaches_the_very_next_answer(stand: Stand) -> None:
    """The server keeps what cannot change; here everything that can is changed behind its back."""
    item, campaign_id = stand.take_item(), uuid.UUID(stand.campaign("points"))
    order_id, budget = stand.order("on sale").order_id, table_of(Account)
    stripes = budgets.Budget(campaign_id, ledger.POINTS).accounts
    held = budget.c.holder_id.in_([stripe.holder_id for stripe in stripes])

    def seen() -> tuple[str, str]:
        answer = stand.scan(item.inner, accept_language="en").json()
        states = [offer["state"] for offer in answer["offers"] if offer["title"] == "Campaign points"]
        return answer["error"] or "genuine", states[0] if states else ""

    def order_is(**changes: object) -> None:
        stand.execute(update(CodeOrder).where(CodeOrder.order_id == order_id).values(**changes))

    assert seen() == ("genuine", "open")
    stand.run(partial(campaigns.set_status, campaign_id=campaign_id, status=CampaignStatus.PAUSED))
    assert seen() == ("genuine", "paused")
    stand.run(partial(campaigns.set_status, campaign_id=campaign_id, status=CampaignStatus.ACTIVE))
    before = stand.rows(select(budget.c.holder_id, budget.c.balance).where(held))
    assert len(before) == len(stripes)
    stand.execute(update(budget).where(held).values(balance=99))
    assert seen() == ("genuine", "budget_used_up")
    for holder_id, balance in before:
        stand.execute(update(budget).where(budget.c.holder_id == holder_id).values(balance=balance))
    order_is(state="recalled", recall_reason="sharp")
    assert seen() == ("Recalled", "")
    order_is(state="dormant", recall_reason=None)
    assert seen() == ("genuine", "not_active")
    order_is(state="active")
    assert seen() == ("genuine", "open")


@pytest.mark.parametrize("name", ROBOTS)
def test_robot_sees_the_page_but_is_no_scan(stand: Stand, name: str) -> None:
    item = stand.take_item()
    answer = stand.scan(item.outer, accept="text/html", user_agent=ROBOTS[name])
    assert answer.status_code == 200
    assert _count(stand, item) == 0


@pytest.mark.parametrize("name", PERSONS)
def test_person_is_a_scan(stand: Stand, name: str) -> None:
    item = stand.take_item()
    stand.scan(item.outer, accept="text/html", user_agent=PERSONS[name])
    assert _count(stand, item) == 1


@pytest.mark.parametrize(
    "header", [{"sec-purpose": "prefetch"}, {"sec-purpose": "prefetch;prerender"}, {"purpose": "prefetch"}]
)
def test_prefetch_is_no_scan(stand: Stand, header: dict[str, str]) -> None:
    item = stand.take_item()
    assert stand.scan(item.outer, accept="text/html", **header).status_code == 200
    assert _count(stand, item) == 0


def test_head_is_no_scan_and_has_no_body(stand: Stand) -> None:
    item = stand.take_item()
    answer = stand.http.head(item.outer)
    assert (answer.status_code, answer.content) == (200, b"")
    assert stand.http.head(forged(item.outer)).status_code == 404
    assert _count(stand, item) == 0


def test_query_is_no_part_of_the_code(stand: Stand) -> None:
    item = stand.take_item()
    assert stand.scan(f"{item.outer}?from=singlemessage&isappinstalled=0").json()["verdict"] == "genuine"


@pytest.mark.parametrize(
    "spelling",
    [
        lambda path: path.replace("/01/", "/%301/"),
        lambda path: f"%2f{path[1:]}",
        lambda path: f"{path}/",
        lambda path: f"{path}%20",
        lambda path: f"/{path[1]}%3{path[2]}{path[3:]}",
        lambda path: path[:-1],
        lambda path: f"/3{path[2:]}",
        lambda path: path.replace("/01/", "/01//"),
    ],
)
def test_other_spelling_of_a_code_is_malformed(stand: Stand, spelling: object) -> None:
    item = stand.take_item()
    assert callable(spelling)
    assert stand.scan(spelling(item.outer)).status_code in (400, 404)
    assert _count(stand, item) == 0


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_headers_keep_the_code_at_home(stand: Stand, accept: str) -> None:
    answer = stand.scan(stand.take_item().inner, accept=accept)
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert {part.strip() for part in answer.headers["vary"].split(",")} >= {"accept", "accept-language", "cookie"}
    assert "server" not in answer.headers
    if accept == "text/html":
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]


def test_json_answer_does_not_repeat_the_code(stand: Stand) -> None:
    path = stand.take_item().inner
    for answer in (stand.scan(path), stand.scan(forged(path)), stand.scan(f"{path}0")):
        for text in _strings(answer.json()):
            assert not re.search(r"[0-9]{20}", text)


def test_page_holds_the_code_in_hidden_fields_alone(stand: Stand) -> None:
    path = stand.take_item().inner
    page = stand.scan(path, accept="text/html").text
    assert path in page
    hidden = re.sub(r'<input type="hidden" name="code_text" value="[^"]*" autocomplete="off">', "", page)
    assert not re.search(r"[0-9]{20}", hidden)
    for address in re.findall(r'(?:href|src|action)="([^"]*)"', page):
        assert address.startswith(("#", "data:,")) or address in ("/me", "/web/sign-in", "/web/claim")


def test_get_of_an_inner_code_claims_nothing(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()
    before = stand.counts(without=("scan", "item"))
    stand.scan(item.inner, accept="text/html", cookie=f"fanxing_session={member.token}")
    assert stand.counts(without=("scan", "item")) == before


def test_revocation_and_recall_are_seen_without_a_restart(stand: Stand) -> None:
    item = stand.take_item()
    assert stand.scan(item.outer).status_code == 200

    async def revoke(session: Session) -> None:
        await keys.revoke_item(session, GTIN, item.serial, "stolen", PLACED_AT)
        await publish(session, stand.home)

    stand.run(revoke)
    wait_until(lambda: stand.scan(item.outer, user_agent="bot").status_code == 410, "the new trust bundle")
    assert stand.scan(item.inner).json()["error"] == "Revoked"


def test_unknown_address_is_not_found(stand: Stand) -> None:
    answer = stand.scan("/wp-login.php")
    assert (answer.status_code, answer.json()["code"]) == (404, "PageUnknown")
    page = stand.scan("/wp-login.php", accept="text/html", accept_language="en")
    assert (page.status_code, page.headers["cache-control"]) == (404, "no-store")
    assert "PageUnknown" in page.text
    assert stand.http.post("/wp-login.php").status_code == 405


def test_every_request_has_an_id_of_its_own(stand: Stand) -> None:
    ids = {stand.scan("/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(uuid.UUID(found) for found in ids)
