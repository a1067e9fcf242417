"""The shopper's pages in a real Chromium, on a small phone, with JavaScript off and the security policy on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from scan_api.web.pages import CONTENT_SECURITY_POLICY
from scan_api.web.rendering import Html

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = ViewportSize(width=360, height=740)
# WCAG 2.2, 1.4.10: content reflows down to this width.
NARROWEST = ViewportSize(width=320, height=740)
SCREENS = (PHONE, NARROWEST)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# WCAG 2.2, 2.5.8.
TARGET_PX_MIN = 24

# Pages that differ from others in their words alone. Of the member's own, the longer words of English fill the narrow
# screen; Chinese shows each page once.
ALIKE = re.compile(
    r".*-error-(?!not_found)|.*-prove-\w+-(?!wrong)|.*-privacy-(?!invalid)|.*-package-(?!received|report)"
    r"|zh-(benefit|confirm|draw|invitation|packet|points|privacy|prove|done|shop|earn|me)s?-"
)

INTERACTIVE = "a, button, summary, input:not([type=hidden])"

# The texts on a page whose colour is too close to a colour behind them: [text, ratio] each. Of a gradient every stop
# counts; text below 24 px (18.66 px in bold) needs 4.5:1, larger text 3:1 (WCAG 2.2, 1.4.3).
LOW_CONTRAST_TEXTS = """() => {
  const parse = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const stops = style.backgroundImage.match(/rgb\\([^)]*\\)/g);
      if (stops) return stops.map(parse);
      const colour = parse(style.backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return [colour];
      if (colour[3] > 0) throw new Error("a translucent background: " + at.className);
    }
    return [[255, 255, 255]];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const px = parseFloat(style.fontSize);
    const needed = px >= 24 || (px >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const worst = Math.min(...behind(element).map((colour) => ratio(parse(style.color), colour)));
    if (worst < needed) found.push([text, worst]);
  }
  return found;
}"""

SMALL_TARGETS = """([selector, px_min]) => [...document.querySelectorAll(selector)]
  .filter((target) => target.checkVisibility())
  .map((target) => [target.outerHTML, target.getBoundingClientRect()])
  .filter(([_, box]) => Math.min(box.width, box.height) < px_min)
"""


@dataclass
class Site:
    """Pages by name on a local address, and the paths that were asked for."""

    pages: dict[str, Html]
    address: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(documents: dict[str, Html]) -> Iterator[Site]:
    served = Site({name: html for name, html in documents.items() if not ALIKE.match(name)})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            html = served.pages.get(self.path[1:])
            self.send_response(200 if html is not None else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", html.policy if html else CONTENT_SECURITY_POLICY)
            self.end_headers()
            self.wfile.write((html or "").encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are asserted on, not printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        served.address = f"http://127.0.0.1:{server.server_port}"
        yield served
        server.shutdown()
        thread.join()


# Closed at the end of this module: while it is open, no test of another module could start an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail("apt-get install -y chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    yield context.new_page()
    context.close()


@dataclass(frozen=True)
class Look:
    """What the browser made of one page."""

    display: str
    """Of the main element: "flex" when the page's own style was let in."""
    widths: tuple[int, ...]
    """px that the document takes on each of SCREENS."""
    small_targets: list[Any]
    faint_texts: dict[str, list[Any]]
    """By colour scheme, with all details open."""


@dataclass(frozen=True)
class Tour:
    """Every page's look, seen in one go, since loading a page costs more than looking at it."""

    looks: dict[str, Look]
    complaints: list[str]
    asked: list[str]


@pytest.fixture(scope="module", params=["half", pytest.param("all", marks=pytest.mark.slow)])
def tour(site: Site, browser: Browser, request: pytest.FixtureRequest) -> Tour:
    """Every page in every language, or each in one language."""
    names = sorted(site.pages, key=lambda name: name.partition("-")[::-1])
    if request.param == "half":  # of each pair one, in turns
        names = [name for number, name in enumerate(names) if number % 4 in (0, 3)]
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda failure: complaints.append(str(failure)))
    site.asked.clear()
    looks = {}
    for name in names:
        page.goto(f"{site.address}/{name}", wait_until="networkidle" if name == "zh-me" else "load")
        looks[name] = _look(page)
    context.close()
    return Tour(looks, complaints, list(site.asked))


def _look(page: Page) -> Look:
    display = page.evaluate("getComputedStyle(document.querySelector('main')).display")
    small_targets = page.evaluate(SMALL_TARGETS, [INTERACTIVE, TARGET_PX_MIN])
    widths = []
    for screen in SCREENS:
        page.set_viewport_size(screen)
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    faint_texts = {}
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        faint_texts[scheme] = page.evaluate(LOW_CONTRAST_TEXTS)
    return Look(display, tuple(widths), small_targets, faint_texts)


def test_every_page_fits_a_narrow_screen_without_scrolling_sideways(tour: Tour) -> None:
    widths = tuple(screen["width"] for screen in SCREENS)
    assert {name: look.widths for name, look in tour.looks.items() if look.widths != widths} == {}


def test_every_page_obeys_the_policy_and_loads_nothing_but_itself(tour: Tour) -> None:
    assert {name: look.display for name, look in tour.looks.items() if look.display != "flex"} == {}
    assert tour.complaints == []
    assert tour.asked == [f"/{name}" for name in tour.looks]


def test_the_policy_refuses_any_other_style(site: Site, page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page_before = site.pages["zh-me"]
    site.pages["tampered"] = Html(page_before.replace("<style>", "<style>/**/"), page_before.policy)
    page.goto(f"{site.address}/tampered")
    del site.pages["tampered"]
    assert page.evaluate("getComputedStyle(document.querySelector('main')).display") == "block"
    assert "Content Security Policy" in complaints[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out_from_what_is_behind_it(tour: Tour, scheme: str) -> None:
    assert {name: look.faint_texts[scheme] for name, look in tour.looks.items() if look.faint_texts[scheme]} == {}


def test_every_target_is_large_enough_for_a_thumb(tour: Tour) -> None:
    assert {name: look.small_targets for name, look in tour.looks.items() if look.small_targets} == {}


@pytest.mark.parametrize(
    "name",
    ["zh-scan-first", "en-scan-signed-in", "zh-code-consents", "en-phone", "zh-me", "en-privacy", "en-draw-member"],
)
def test_the_keyboard_reaches_every_target_in_order_and_shows_where_it_is(site: Site, page: Page, name: str) -> None:
    page.goto(f"{site.address}/{name}")
    reachable = [target for target in page.locator(INTERACTIVE).all() if target.is_visible()]
    assert reachable
    for target in reachable:
        page.keyboard.press("Tab")
        assert target.evaluate("(element) => element === document.activeElement")
        outline = target.evaluate("(element) => getComputedStyle(element).outline")
        assert "solid" in outline
        assert "3px" in outline


def test_the_forms_work_without_scripts(site: Site, page: Page) -> None:
    page.goto(f"{site.address}/zh-scan-first")
    page.get_by_label("手机号码").fill("13800138000")
    with page.expect_request(f"{site.address}/web/sign-in") as sent:
        page.get_by_role("button", name="领取 5 MB 流量").click()
    assert sent.value.method == "POST"
    assert "phone=13800138000" in str(sent.value.post_data)
    assert "code_text=" in str(sent.value.post_data)


def test_the_verdict_is_seen_without_scrolling(site: Site, page: Page) -> None:
    for state in ("first", "again", "careful", "recalled", "revoked", "voided", "unknown", "malformed", "error"):
        for language in ("zh", "en"):
            page.goto(f"{site.address}/{language}-scan-{state}")
            lead = page.locator(".verdict .lead").bounding_box()
            assert lead is not None
            assert lead["y"] + lead["height"] < PHONE["height"] / 2, (language, state)
