"""A shopper with a real browser, JavaScript off, before the real server: from the code to the prize on the card."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
from sqlmodel import select

from loyalty.claims import Claim
from loyalty.members import Card
from tests.scan_api.web.test_web_browser import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.stand import Stand

PHONE = ViewportSize(width=390, height=844)
WORDS = {
    "en": {"genuine": "Genuine code", "malformed": "This code cannot be read", "unknown": "No such code"},
    "zh-CN": {"genuine": "验证通过", "malformed": "读不出这个码", "unknown": "查无此码"},
}


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
def page(browser: Browser, language: str) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, java_script_enabled=False, locale=language)
    yield context.new_page()
    context.close()


def _press(page: Page) -> None:
    """Send the page's first form."""
    page.locator("form button").first.click()


def _claim(stand: Stand, page: Page, path: str, phone: str) -> None:
    page.goto(stand.text(path))
    form = page.locator("form", has=page.locator(f"input[name=campaign_id][value='{stand.campaign('points')}']")).first
    if not form.locator("input[name=phone]").is_visible():
        page.locator("summary", has=page.locator("xpath=following-sibling::form")).first.click()
    form.locator("input[name=phone]").fill(phone)
    form.locator("button").click()
    code = page.locator(".development strong").inner_text()
    assert re.fullmatch(r"[0-9]{6}", code)
    page.locator("input[name=one_time_code]").fill(code)
    _press(page)


def test_from_the_code_to_the_prize_on_the_card(stand: Stand, page: Page, language: str) -> None:
    item, phone = stand.take_item(), stand.new_phone()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(stand.text(item.inner))
    expect(page.locator("h1")).to_have_text(WORDS[language]["genuine"])
    _claim(stand, page, item.inner, phone)
    expect(page.locator("body")).to_contain_text("100")
    card = page.locator(".member-card").inner_text()
    [number] = re.findall(r"[0-9]{16}", card)
    assert stand.rows(select(Card.card_number).where(Card.card_number == number)) == [number]

    # The member's own page, and the item's page as it greets him now.
    page.locator("a.button").click()
    expect(page.locator("body")).to_contain_text(number)
    expect(page.locator("body")).to_contain_text(phone[-4:])
    page.goto(stand.text(item.inner))
    assert page.locator("form", has=page.locator(f"input[value='{stand.campaign('points')}']")).count() == 0
    expect(page.locator(".member-card")).to_contain_text(number)

    # The secret stood in no address but the code's own.
    assert {url for url in asked if re.search("[0-9]{100}", url)} == {stand.text(item.inner)}


def test_reloading_after_a_claim_pays_no_second_time(stand: Stand, page: Page) -> None:
    item, phone = stand.take_item(), stand.new_phone()
    _claim(stand, page, item.inner, phone)
    expect(page.locator(".member-card")).to_be_visible()
    before = stand.counts()
    for _ in range(2):
        page.reload()
    assert stand.counts() == before
    claims = [claim for claim in stand.rows(select(Claim)) if claim.item_key % 10**9 == int(item.serial[5:])]
    assert len(claims) == 1


def test_second_item_of_a_member_needs_no_second_sign_in(stand: Stand, page: Page) -> None:
    one, other = stand.take_items(2)
    _claim(stand, page, one.inner, stand.new_phone())
    page.goto(stand.text(other.inner))
    field = f"input[name=campaign_id][value='{stand.campaign('points')}']"
    page.locator("form", has=page.locator(field)).locator("button").click()
    expect(page.locator("body")).to_contain_text("200")


def test_codes_that_are_refused_have_pages_in_the_shoppers_language(stand: Stand, page: Page, language: str) -> None:
    for name, word in (("Malformed", "malformed"), ("BadSignature", "unknown"), ("NeverIssued serial", "unknown")):
        page.goto(stand.text(stand.installation.refused[name]))
        expect(page.locator("h1")).to_have_text(WORDS[language][word])
        assert page.locator("form").count() == 0


def test_wrong_one_time_code_is_asked_for_again(stand: Stand, page: Page) -> None:
    page.goto(f"{stand.server.url}/me")
    page.locator("input[name=phone]").fill(stand.new_phone())
    _press(page)
    code = page.locator(".development strong").inner_text()
    page.locator("input[name=one_time_code]").fill(f"{(int(code) + 1) % 10**6:06d}")
    _press(page)
    expect(page.locator("[role=alert]")).to_be_visible()
    page.locator("input[name=one_time_code]").fill(code)
    _press(page)
    assert page.url == f"{stand.server.url}/me"
