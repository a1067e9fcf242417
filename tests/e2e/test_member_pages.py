"""A member with a real browser, JavaScript off, before the real server: points earned, spent, shown, and given up."""

import io
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright
from sqlmodel import select

from codes.catalogue import Brand, brand_named, create_brand
from kit.db import Session
from loyalty import check_ins, consents, ledger, members, programs, red_packets, referrals, tier_rules
from loyalty.benefits import BenefitKind, NewBenefit, catalogue, stock
from loyalty.consents import Consent, NewDocument
from loyalty.draws import catalogue as draws
from loyalty.draws import terms
from loyalty.experience import Figures
from loyalty.ledger import POINTS, AccountId, Leg, Purpose, Transfer
from loyalty.members import Member
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram
from loyalty.tier_rules import CardFace, Pattern, Rules, Tier
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from signer.keys import Issuer
from tests.scan_api.web.test_web_browser import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.stand import BRAND, GROUP, SignedIn, Stand

PAGE_BRAND = "page-brand"
"""Of the stand's group, with rules of its own: other tests make theirs for the brands that the stand has."""
CONSENT = "page-news"
PHONE = ViewportSize(width=390, height=844)
SILVER, GOLD = CardFace(("#e8edf2", "#c3ccd6"), "#1b2430", Pattern.DOTS), CardFace(("#f7e2a4",), "#3a2600")
WORDS = {
    "en": {
        "get": "Get it",
        "spend": "Spend 60 points",
        "short": "You need 40 points more.",
        "check in": "Check in for 5 points",
        "done": "Checked in today",
        "play": "Play",
        "erase": "Delete my account",
        "erased": "Your account is deleted",
        "merged": "Both numbers are one member now, with 130 points.",
        "link": "Get my link",
        "gift": "Take the gift",
    },
    "zh-CN": {
        "get": "兑换",
        "spend": "用 60 积分 兑换",
        "short": "积分不够，还差 40 积分。",
        "check in": "签到，得 5 积分",
        "done": "今天已签到",
        "play": "抽一次",
        "erase": "删除我的账号",
        "erased": "账号已删除",
        "merged": "共有 130 积分",
        "link": "取得我的邀请链接",
        "gift": "领取",
    },
}


@dataclass(frozen=True)
class Shelf:
    """What the brand has on offer in this test's stand."""

    coupon: uuid.UUID
    goods: uuid.UUID
    check_in: uuid.UUID
    referral: uuid.UUID
    packet: uuid.UUID
    draw: uuid.UUID
    shop_key: str


# Closed at the end of this module: while it is open, no test of another module could start an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield opened
        opened.close()


# Words and database know nothing of each other: two pairs show what four would.
@pytest.fixture
def language(stand_kind: str) -> str:
    return {"sqlite": "en", "postgresql": "zh-CN"}[stand_kind]


@pytest.fixture
def words(language: str) -> dict[str, str]:
    return WORDS[language]


@pytest.fixture
def shelf(stand: Stand) -> Shelf:
    shelf: Shelf = stand.run(lambda session: _stock_up(stand, session))
    return shelf


async def _brand(session: Session) -> Brand:
    found = (await session.exec(select(Brand).where(Brand.slug == PAGE_BRAND))).first()
    if found is not None:
        return found
    now, sister = datetime.now(UTC), await brand_named(session, BRAND)
    issuer = await session.get_one(Issuer, sister.issuer_id)
    brand = await create_brand(session, issuer, GROUP, PAGE_BRAND, "页面", "Pages", now)
    ladder = (Tier(0, "member", "会员", "Member", SILVER), Tier(1, "gold", "金卡", "Gold", GOLD, Figures(0, 100_000)))
    rules = Rules(ladder)
    await tier_rules.set_rules(session, brand.brand_id or 0, rules, replaces=0, by="test", valid_from=None, now=now)
    return brand


async def _stock_up(stand: Stand, session: Session) -> Shelf:
    now = datetime.now(UTC)
    brand = await _brand(session)
    brand_id = brand.brand_id or 0
    made = []
    for kind, prices in ((BenefitKind.COUPON, {0: 60, 1: 10}), (BenefitKind.GOODS, {0: 30})):
        new = NewBenefit(
            brand_id=brand_id,
            group_id=brand.group_id,
            kind=kind,
            name_zh=f"页面 {kind}",
            name_en=f"Page {kind}",
            starts_at=now - timedelta(days=1),
            ends_at=now + timedelta(days=30),
            value_fen=500,
            valid_days=30,
            prices=prices,
        )
        benefit = await catalogue.create(session, new, now)
        await stock.procure(session, benefit, 10, procurement_id=benefit.benefit_id, now=now)
        made.append(benefit.benefit_id)
    referral = referrals.ReferralRules(Prize(PrizeKind.POINTS, 30), Prize(PrizeKind.POINTS, 10), 72)
    packet = red_packets.PacketRules(PrizeKind.POINTS, 20, 2, 5, 24)
    for rules in (check_ins.CheckInRules(5, {}), referral, packet):
        new_program = NewProgram(brand_id, brand.group_id, str(rules.kind), str(rules.kind), rules, now)
        made.append((await programs.create(session, new_program, now)).program_id)
    plan = {
        "form": "deck",
        "title": {"zh": "盲盒", "en": "Box"},
        "opens_at": now.isoformat(),
        "closes_at": (now + timedelta(days=7)).isoformat(),
        "prizes": [{"name": {"zh": "好", "en": "Good"}, "kind": "points", "amount": 7, "quantity": 9}],
    }
    draw = await draws.publish(
        session,
        stand.vault,
        brand_id=brand_id,
        group_id=brand.group_id,
        make_terms=lambda draw_id, hashed: terms.from_plan(plan, draw_id, hashed),
        now=now,
    )
    await draws.open_plays(session, draw.draw_id, now)
    _key, text = await api_keys.create(session, Role.SHOP, "page shop", now, brand_id=brand_id)
    coupon, goods, check_in, referral_id, packet_id = made
    return Shelf(coupon, goods, check_in, referral_id, packet_id, draw.draw_id, text)


@pytest.fixture
def member(stand: Stand) -> SignedIn:
    """Somebody with a card and 80 points."""
    return _with_points(stand, 80)


def _with_points(stand: Stand, points: int) -> SignedIn:
    member = stand.member()

    async def give(session: Session) -> None:
        now = datetime.now(UTC)
        brand = await _brand(session)
        await members.join_brand(session, member.member_id, brand.brand_id or 0, now)
        account = AccountId(member.member_id, POINTS, Purpose.AVAILABLE)
        source = ledger.issuance(brand.brand_id or 0, POINTS, member.member_id)
        await ledger.post(session, Transfer(uuid.uuid4(), "test", (Leg(source, -points), Leg(account, points))), now)

    stand.run(give)
    return member


@pytest.fixture
def open_page(stand: Stand, browser: Browser, language: str) -> Iterator[object]:
    contexts = []

    def make(member: SignedIn | None = None) -> Page:
        context = browser.new_context(viewport=PHONE, java_script_enabled=False, locale=language)
        contexts.append(context)
        if member is not None:
            context.add_cookies([{"name": "fanxing_session", "value": member.token, "url": stand.server.url}])
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: object, member: SignedIn) -> Page:
    page: Page = open_page(member)  # type: ignore[operator]
    return page


def _press(page: Page, words: str) -> None:
    page.get_by_role("button", name=words, exact=True).first.click()


def _of_program(page: Page, program_id: uuid.UUID) -> Locator:
    return page.locator("form", has=page.locator(f"input[name=program_id][value='{program_id}']"))


def _points(stand: Stand, member: SignedIn) -> int:
    points: int = stand.http.get("/v1/me", headers=member.headers).json()["points"]
    return points


def test_points_become_a_coupon_that_a_till_reads_off_the_phone(
    stand: Stand, page: Page, shelf: Shelf, member: SignedIn, words: dict[str, str]
) -> None:
    page.goto(f"{stand.server.url}/me")
    expect(page.locator(".member-card")).to_have_count(1)
    colour = page.locator(".member-card").evaluate("(card) => getComputedStyle(card).color")
    assert colour == "rgb(27, 36, 48)"  # the brand's own
    page.goto(f"{stand.server.url}/me/shop?brand={PAGE_BRAND}")
    link = page.locator(f"a[href='/me/shop/{shelf.coupon}']")
    expect(link).to_have_text(words["get"])
    link.focus()
    page.keyboard.press("Enter")
    form = page.locator("form", has=page.locator("input[name=points_expected][value='60']"))
    key = form.locator("input[name=idempotency_key]").get_attribute("value")
    _press(page, words["spend"])
    expect(page.locator("[role=status]")).to_be_visible()
    held_url = page.url.split("?")[0]
    picture = Image.open(io.BytesIO(page.locator(".qr").screenshot()))
    [read] = zxingcpp.read_barcodes(picture)
    assert read.text == page.locator(".coupon-code").inner_text()
    assert _points(stand, member) == 20

    # The form sent once more, as by a doubtful thumb, leads to the same benefit and costs nothing.
    body = {"benefit_id": str(shelf.coupon), "points_expected": "60", "idempotency_key": str(key)}
    own = {"accept": "text/html", "sec-fetch-site": "same-origin", "cookie": f"fanxing_session={member.token}"}
    again = stand.http.post("/web/obtain", data=body, headers=own)
    assert (again.status_code, again.headers["location"].split("?")[0]) == (
        303,
        held_url.removeprefix(stand.server.url),
    )
    assert _points(stand, member) == 20

    headers = {"Authorization": f"Bearer {shelf.shop_key}", "Idempotency-Key": str(uuid.uuid4())}
    redeemed = stand.http.post("/v1/shop/redemptions", json={"coupon_code": read.text}, headers=headers)
    assert redeemed.status_code == 201
    page.reload()
    expect(page.locator(".qr")).to_have_count(0)
    page.goto(f"{stand.server.url}/me/shop/{shelf.coupon}")
    expect(page.locator("body")).to_contain_text(words["short"])
    page.goto(f"{stand.server.url}/me/points")
    expect(page.locator("ol.list > li").first).to_contain_text("60")


def test_a_thing_goes_to_the_address_that_is_asked_for(stand: Stand, page: Page, shelf: Shelf) -> None:
    page.goto(f"{stand.server.url}/me/shop/{shelf.goods}")
    page.locator("form button").first.click()
    for name, text in {"name": "李雷", "phone": "13800138000", "region": "山东青岛", "line": "香港中路 1 号"}.items():
        page.locator(f"input[name={name}]").fill(text)
    page.locator("form button").first.click()
    expect(page.locator(".notice")).to_be_visible()
    expect(page.locator("input[name=line]")).to_have_value("")  # what was said is sealed, and not said back


def test_a_day_is_checked_in_once_and_a_draw_leaves_a_receipt(
    stand: Stand, page: Page, shelf: Shelf, member: SignedIn, words: dict[str, str]
) -> None:
    page.goto(f"{stand.server.url}/me/earn")
    _of_program(page, shelf.check_in).locator("button").click()
    expect(_of_program(page, shelf.check_in)).to_have_count(0)
    expect(page.locator("section", has=page.locator("#check-in"))).to_contain_text(words["done"])
    assert _points(stand, member) == 85

    page.goto(f"{stand.server.url}/draws/{shelf.draw}")
    commitment = stand.http.get(f"/v1/draws/{shelf.draw}").json()["commitment"]
    expect(page.locator("body")).to_contain_text(commitment)
    page.locator("input[name=own]").fill("好运 888")
    _press(page, words["play"])
    page.locator("summary").first.click()
    receipt = page.locator("details .long").first.inner_text()
    mine = stand.http.get(f"/v1/me/draws/{shelf.draw}", headers=member.headers).json()["plays"]
    assert [play["receipt"] for play in mine] == [receipt]
    assert "好运 888".encode().hex() in receipt
    assert _points(stand, member) == 92


def test_a_friends_link_and_a_red_packet_pay_both_sides(
    stand: Stand, open_page: object, page: Page, shelf: Shelf, member: SignedIn, words: dict[str, str]
) -> None:
    page.goto(f"{stand.server.url}/me/earn")
    _of_program(page, shelf.referral).locator("button").click()
    path = "/r/" + page.locator(".long").inner_text().rpartition("/")[2]
    page.goto(f"{stand.server.url}/me/earn")
    _of_program(page, shelf.packet).locator("button").click()
    packet = page.url
    expect(page.locator(".qr")).to_be_visible()

    friend: Page = open_page()  # type: ignore[operator]
    friend.goto(stand.server.url + path)
    friend.locator("input[name=phone]").fill(stand.new_phone())
    friend.locator("form button").first.click()
    friend.locator("input[name=one_time_code]").fill(friend.locator(".development strong").inner_text())
    friend.locator("form button").first.click()
    assert friend.url == stand.server.url + path
    _press(friend, words["gift"])
    expect(friend.locator("body")).to_contain_text("10")
    assert _points(stand, member) == 110
    friend.goto(packet)
    friend.locator("form button").first.click()
    expect(friend.locator("[role=status]")).to_be_visible()
    friend.goto(stand.server.url + path)
    friend.locator("form button").first.click()
    page.goto(packet)
    expect(page.locator("ol.list > li")).to_have_count(1)


def test_who_leaves_takes_his_data_along_and_is_forgotten(
    stand: Stand, page: Page, member: SignedIn, words: dict[str, str]
) -> None:
    async def publish(session: Session) -> None:
        group_id = (await members.get(session, member.member_id)).group_id
        document = NewDocument(CONSENT, "2026-05", "消息", "News", "https://brand.example.cn/news")
        await consents.publish(session, group_id, document, datetime.now(UTC))

    stand.run(publish)
    page.goto(f"{stand.server.url}/me/privacy")
    consent = page.locator("form", has=page.locator(f"input[name=kind][value={CONSENT}]"))
    consent.locator("button").click()
    query = select(Consent.version, Consent.is_given, Consent.channel).where(Consent.member_id == member.member_id)
    assert stand.rows(query) == [("2026-05", True, "page")]

    other = _with_points(stand, 50)
    page.locator("input[name=phone]").fill(other.phone)
    page.locator("form", has=page.locator("input[name=phone]")).locator("button").click()
    page.locator("input[name=phone_code]").fill(page.locator(".development strong").inner_text())
    page.locator("form button").first.click()
    expect(page.locator("[role=status]")).to_contain_text(words["merged"])

    with page.expect_download() as downloading:
        page.goto(f"{stand.server.url}/me/privacy")
        page.locator("a[download]").click()
    assert member.phone in downloading.value.path().read_text(encoding="utf-8")

    _press(page, words["erase"])
    code = page.locator(".development strong").inner_text()
    page.locator("input[name=one_time_code]").fill(f"{(int(code) + 1) % 10**6:06d}")
    page.locator("form button").first.click()
    expect(page.locator("[role=alert]")).to_be_visible()
    page.locator("input[name=one_time_code]").fill(code)
    page.locator("form button").first.click()
    expect(page.locator("h1")).to_have_text(words["erased"])
    assert stand.rows(select(Member.phone_sealed).where(Member.member_id == member.member_id)) == [None]
    page.goto(f"{stand.server.url}/me")
    expect(page.locator("input[name=phone]")).to_be_visible()


def test_a_visitor_is_asked_to_sign_in_and_comes_back(stand: Stand, open_page: object) -> None:
    page: Page = open_page()  # type: ignore[operator]
    page.goto(f"{stand.server.url}/me/points")
    page.locator("input[name=phone]").fill(stand.new_phone())
    page.locator("form button").first.click()
    code = page.locator(".development strong").inner_text()
    assert re.fullmatch("[0-9]{6}", code)
    page.locator("input[name=one_time_code]").fill(code)
    page.locator("form button").first.click()
    assert page.url == f"{stand.server.url}/me/points"
