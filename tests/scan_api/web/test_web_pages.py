"""What the shopper's pages say and carry, read from their HTML without a browser."""

import gzip
import re
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from markupsafe import escape

from scan_api.web import member_pages, pages, paths, wording
from scan_api.web.member_views import (
    ConfirmView,
    DrawView,
    HeldPageView,
    HeldView,
    MeView,
    OfferedView,
    PriceView,
    StandingView,
)
from scan_api.web.rendering import Html
from scan_api.web.style import CONTENT_SECURITY_POLICY, STYLE, face_style
from scan_api.web.views import (
    CardView,
    ChanceView,
    ClaimedView,
    DocumentView,
    ErrorView,
    FaceView,
    Language,
    MemberView,
    OfferView,
    OneTimeCodeView,
    PhoneView,
    ScanView,
    TimelineEntry,
)

# A first flight of TCP segments holds about 14 kB: more costs a second round trip before anything shows.
HTML_GZIP_BYTES_MAX = 14_000

# WCAG 2.2: 1.4.3 asks 4.5:1 of text, 1.4.11 asks 3:1 of the borders and icons one needs to see.
TEXT_CONTRAST_MIN = 4.5
SHAPE_CONTRAST_MIN = 3.0
TEXT_PAIRS = [
    ("ink", "page"), ("ink", "surface"), ("ink", "sunken"), ("ink", "gift-surface"),
    ("muted", "page"), ("muted", "surface"), ("muted", "sunken"), ("muted", "gift-surface"),
    ("accent", "page"), ("accent", "surface"), ("accent", "gift-surface"), ("on-accent", "accent"),
    ("gift-ink", "gift-surface"), ("notice-ink", "notice-surface"), ("alarm-ink", "alarm-surface"),
    *(("on-tone", f"{tone}-top") for tone in ("good", "caution", "danger", "neutral", "night")),
    *(("on-tone", f"{tone}-end") for tone in ("good", "caution", "danger", "neutral", "night")),
    ("gold", "night-top"), ("gold", "night-end"),
]  # fmt: skip
SHAPE_PAIRS = [
    ("field-line", "surface"),
    ("field-line", "gift-surface"),
    ("alarm-ink", "surface"),
    ("accent", "surface"),
    ("accent", "gift-surface"),
]

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Document(HTMLParser):
    """A page taken apart: its elements, its forms with their fields, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.forms: list[tuple[dict[str, str | None], list[dict[str, str | None]]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"<{tag}> repeats an attribute"
        self.elements.append((tag, attributes))
        if tag == "form":
            self.forms.append((attributes, []))
        if tag == "input":
            assert "form" in self.open, "an input outside a form is never sent"
            self.forms[-1][1].append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def form(self, action: str) -> dict[str, str | None]:
        """Names and values of the fields of the only form with this action."""
        (fields,) = [fields for attributes, fields in self.forms if attributes["action"] == action]
        return {str(field["name"]): field.get("value") for field in fields}


def says(language: Language, key: str, **values: object) -> str:
    return Document(wording.say(language, key, **values)).text


def test_every_page_is_well_formed_and_has_its_landmarks(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        document = Document(html)
        assert html.startswith("<!DOCTYPE html>"), name
        assert document.open == [], name
        assert document.all("html") == [{"lang": "zh-CN" if name.startswith("zh") else "en"}], name
        for landmark in ("header", "main", "footer", "h1", "title"):
            assert len(document.all(landmark)) == 1, (name, landmark)


def test_headings_never_skip_a_level(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        levels = [int(tag[1]) for tag, _ in Document(html).elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name


def test_ids_are_unique_and_every_reference_finds_its_target(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        elements = Document(html).elements
        ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
        assert len(ids) == len(set(ids)), name
        for _, attributes in elements:
            wanted = [attributes.get("for"), *(attributes.get("aria-labelledby") or "").split()]
            wanted += (attributes.get("aria-describedby") or "").split()
            href = attributes.get("href") or ""
            wanted += [href[1:]] if href.startswith("#") else []
            assert {target for target in wanted if target} <= set(ids), (name, wanted)


def test_every_input_a_person_fills_in_has_a_label(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        document = Document(html)
        labelled = {label["for"] for label in document.all("label")}
        visible = [field for field in document.all("input") if field["type"] != "hidden"]
        assert {field["id"] for field in visible} == labelled, name


def test_no_page_asks_for_anything_from_elsewhere(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        document = Document(html)
        for tag, attributes in document.elements:
            assert tag not in {"script", "img", "iframe", "object", "embed", "base"}, name
            assert not [key for key in attributes if key.startswith("on") or key in {"src", "srcset", "style"}], name
            # A link to a document of a brand's is followed by hand, or never, and tells nobody where one comes from.
            followed = tag == "a" and attributes.get("rel") == "noopener noreferrer"
            for link in ("href", "action"):
                assert followed or re.match(r"/(?!/)|#|data:,$", attributes.get(link) or "/"), (name, attributes)
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "http" not in STYLE


def test_every_page_keeps_its_address_to_itself(documents: dict[str, Html]) -> None:
    for html in documents.values():
        assert '<meta name="referrer" content="no-referrer">' in html
        assert '<meta name="robots" content="noindex">' in html


def test_the_code_text_stands_in_hidden_fields_only(documents: dict[str, Html], genuine: ScanView) -> None:
    secret = str(genuine.code_text)
    assert any(secret in html for html in documents.values())
    for name, html in documents.items():
        document = Document(html)
        homes = [
            (tag, attribute, attributes.get("type"), attributes.get("name"))
            for tag, attributes in document.elements
            for attribute, value in attributes.items()
            if "7777777" in (value or "")
        ]
        assert set(homes) <= {("input", "value", "hidden", "code_text")}, name
        assert html.count("7777777" * 20) == len(homes), name


def test_every_page_arrives_in_the_first_flight(documents: dict[str, Html]) -> None:
    sizes = {name: len(gzip.compress(html.encode())) for name, html in documents.items()}
    assert max(sizes.values()) <= HTML_GZIP_BYTES_MAX, max(sizes.items(), key=lambda item: item[1])


def test_the_policy_allows_the_styles_of_the_page_and_nothing_else(documents: dict[str, Html]) -> None:
    for name, html in documents.items():
        allowed = [b64decode(hashed) for hashed in re.findall(r"'sha256-([^']+)'", html.policy)]
        styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
        assert allowed == [sha256(style.encode()).digest() for style in styles], name
        assert "unsafe" not in html.policy
        for directive in ("default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"):
            assert directive in html.policy
    assert {html.policy for name, html in documents.items() if "phone" in name} == {CONTENT_SECURITY_POLICY}


def test_a_face_that_is_no_colour_never_becomes_style() -> None:
    for colours, text in ((("red;}*{display:none",), "#ffffff"), (("#fff",), "#ffffff"), (("#000000",), "#FFFFFF")):
        with pytest.raises(ValueError, match="colour"):
            face_style([FaceView(colours, text, "plain")])


def test_colours_contrast_in_light_and_in_dark() -> None:
    light_block, dark_block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light_block))
    dark = light | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark_block))
    assert dark["page"] != light["page"]
    for scheme, colours in (("light", light), ("dark", dark)):
        for pairs, least in ((TEXT_PAIRS, TEXT_CONTRAST_MIN), (SHAPE_PAIRS, SHAPE_CONTRAST_MIN)):
            ratios = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
            assert {pair: ratio for pair, ratio in ratios.items() if ratio < least} == {}, scheme


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, definition of contrast ratio."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """WCAG 2.2, definition of relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_verdict_comes_before_the_product_and_the_phone_number(genuine: ScanView) -> None:
    text = Document(pages.scan(genuine)).text
    order = ["genuine.title", "scans.first_now", "timeline.heading", "phone.label"]
    places = [text.index(says(genuine.language, key), len("title")) for key in order]
    assert places == sorted(places)


def test_a_first_scan_is_called_the_first(genuine: ScanView) -> None:
    text = Document(pages.scan(genuine)).text
    assert says(genuine.language, "scans.first_now") in text
    assert says(genuine.language, "scans.earlier.meaning") not in text


def test_a_later_scan_tells_first_time_and_count_and_what_it_may_mean(genuine: ScanView) -> None:
    text = Document(pages.scan(replace(genuine, scan_count=1_234))).text
    date = {"zh": "2026年6月12日 09:12 中国标准时间", "en": "12 Jun 2026, 01:12 UTC"}[genuine.language]
    assert date in text
    assert says(genuine.language, "scans.times", count="1,234") in text
    assert says(genuine.language, "scans.earlier.meaning") in text
    assert says(genuine.language, "scans.first_now") not in text


def test_a_genuine_page_admits_that_codes_can_be_copied(genuine: ScanView) -> None:
    assert says(genuine.language, "scans.honest") in Document(pages.scan(genuine)).text


def test_a_warning_changes_the_verdict_itself(genuine: ScanView) -> None:
    for warning in ("not_active", "scanned_often", "expired"):
        document = Document(pages.scan(replace(genuine, warnings=(warning,))))
        assert says(genuine.language, "caution.title") in document.text
        assert says(genuine.language, f"warning.{warning}") in document.text
        assert "good" not in str(document.all("body")[0]["class"])


@pytest.mark.parametrize("state", ["unknown", "revoked", "recalled", "voided", "held", "malformed", "error"])
def test_a_bad_verdict_says_what_to_do_first_and_offers_no_prize(genuine: ScanView, state: str) -> None:
    document = Document(pages.scan(replace(genuine, state=state, member=MemberView(5))))  # type: ignore[arg-type]
    todo = document.text.index(says(genuine.language, f"{state}.todo.1"))
    assert todo < document.text.index("海盐荔枝雪糕")
    assert document.forms == []
    assert says(genuine.language, "genuine.title") not in document.text


def test_without_a_session_an_open_offer_asks_for_a_phone_number(genuine: ScanView) -> None:
    document = Document(pages.scan(genuine))
    fields = document.form(pages.SIGN_IN_ACTION)
    assert fields == {"phone": "", "code_text": genuine.code_text, "campaign_id": genuine.offers[0].campaign_id}
    (phone,) = [field for field in document.all("input") if field["name"] == "phone"]
    assert (phone["type"], phone["autocomplete"], phone["inputmode"]) == ("tel", "tel", "tel")


def test_with_a_session_an_open_offer_is_one_button(genuine: ScanView) -> None:
    offer = genuine.offers[0]
    document = Document(pages.scan(replace(genuine, member=MemberView(7, CardView("B", "1", "T")))))
    assert document.form(pages.CLAIM_ACTION) == {
        "code_text": genuine.code_text,
        "campaign_id": offer.campaign_id,
        "idempotency_key": offer.idempotency_key,
    }
    assert len(document.all("button")) == 1
    assert says(genuine.language, "card.heading") in document.text


def test_an_offer_that_is_not_open_says_why_and_has_no_form(genuine: ScanView) -> None:
    for state in ("claimed_by_you", "claimed", "not_started", "ended", "used_up", "limit_reached", "needs_inner"):
        offer = replace(genuine.offers[0], state=state)
        document = Document(pages.scan(replace(genuine, offers=(offer,))))
        assert says(genuine.language, f"offer.{state}") in document.text
        assert document.forms == []


def test_the_one_time_code_of_a_claim_goes_to_the_claim(language: Language) -> None:
    view = OneTimeCodeView(language, "13800138000", "TEXT", "c-1", "key-1", development_code="482915")
    document = Document(pages.one_time_code(view))
    assert document.form(pages.CLAIM_ACTION) == {
        "one_time_code": None,
        "phone": "13800138000",
        "code_text": "TEXT",
        "campaign_id": "c-1",
        "idempotency_key": "key-1",
    }
    (field,) = [field for field in document.all("input") if field["name"] == "one_time_code"]
    assert (field["autocomplete"], field["inputmode"], field["maxlength"]) == ("one-time-code", "numeric", "6")
    assert "482915" in document.text


def test_the_one_time_code_of_a_plain_sign_in_carries_no_claim(language: Language) -> None:
    document = Document(pages.one_time_code(OneTimeCodeView(language, "13800138000")))
    assert document.form(pages.CONFIRM_ACTION) == {"one_time_code": None, "phone": "13800138000"}


def test_another_code_can_be_sent_to_this_number_or_another(language: Language) -> None:
    document = Document(pages.one_time_code(OneTimeCodeView(language, "13800138000", "TEXT", "c-1", "key-1")))
    again = [fields for attributes, fields in document.forms if attributes["action"] == pages.SIGN_IN_ACTION]
    carried = [{field["name"]: field.get("value") for field in fields} for fields in again]
    claim = {"code_text": "TEXT", "campaign_id": "c-1"}
    assert carried == [{"phone": "13800138000"} | claim, {"phone": ""} | claim]


def test_a_wrong_code_is_said_beside_the_field_with_the_tries_left(language: Language) -> None:
    document = Document(pages.one_time_code(OneTimeCodeView(language, "1", problem="wrong", tries_left=1)))
    assert says(language, "otp.tries_left.one", count=1) in document.text
    (field,) = [field for field in document.all("input") if field["name"] == "one_time_code"]
    assert (field["aria-invalid"], field["aria-describedby"]) == ("true", "problem")


def test_a_refused_phone_number_is_kept_for_correction(language: Language) -> None:
    document = Document(pages.phone(PhoneView(language, "12x", "invalid_phone")))
    assert document.form(pages.SIGN_IN_ACTION) == {"phone": "12x"}
    assert says(language, "phone.problem.invalid_phone") in document.text


def test_a_coupon_code_is_drawn_in_groups_of_four_and_copied_whole(language: Language) -> None:
    html = pages.claimed(ClaimedView(language, "夏日", "benefit", 1, 1_280, "FX7K2M9QWT"))
    assert "<span>FX7K</span><span>2M9Q</span><span>WT</span>" in html
    assert "1,280" in html
    assert f'href="{pages.ME_PATH}"' in html


def test_megabytes_are_said_to_be_on_their_way(language: Language) -> None:
    text = Document(pages.claimed(ClaimedView(language, "夏日", "mb", 5, 0))).text
    assert says(language, "claimed.mb") in text


def test_my_page_shows_everything_held_and_signs_out(language: Language) -> None:
    held = HeldView("0197", "券", "coupon", "redeemed", code="7Q4M-0ZKE-9XTB-3VHN")
    card = CardView("牌", "88", "金", FaceView(("#102030",), "#f0e0d0", "waves"))
    standing = StandingView(card, "3 purchases", "银", datetime(2026, 6, 30, 16, tzinfo=UTC))
    html = member_pages.me(MeView(language, "138****8000", 12_480, 35, None, (standing,), (held,), 1))
    document = Document(html)
    words = ["138****8000", "12,480", "35 MB", "牌", "88", "金", "3 purchases", "银", "7Q4M-0ZKE-9XTB-3VHN"]
    assert [word for word in [*words, says(language, "held.redeemed")] if word not in document.text] == []
    assert "linear-gradient(150deg,#102030,#102030);color:#f0e0d0" in html
    assert document.form(pages.SIGN_OUT_ACTION) == {}
    links = {attributes["href"] for attributes in document.all("a")}
    assert {paths.POINTS_PATH, paths.SHOP_PATH, paths.EARN_PATH, paths.PRIVACY_PATH} <= links


def test_a_benefit_is_a_symbol_for_the_till_only_while_it_can_be_used(documents: dict[str, Html]) -> None:
    assert 'class="qr"' in documents["zh-benefit-code"]
    assert not [name for name in documents if "benefit-sent" in name and 'class="qr"' in documents[name]]


def test_prices_of_all_tiers_stand_beside_the_members_own(language: Language) -> None:
    offered = OfferedView("0197", "券", "", "coupon", 0, 100, (PriceView("会员", 100), PriceView("金卡", 5)))
    view = ConfirmView(language, offered, "牌", "会员", 120, "key-1")
    document = Document(member_pages.confirm(view))
    assert document.form(paths.OBTAIN_ACTION) == {
        "benefit_id": "0197",
        "points_expected": "100",
        "idempotency_key": "key-1",
    }
    for tier, points in (("会员", "100"), ("金卡", "5")):
        price = says(language, "shop.price", points=points)
        assert says(language, "shop.tier_price", tier=wording.isolated(tier), price=price) in document.text
    short = Document(member_pages.confirm(replace(view, points=99)))
    assert short.forms == []
    assert says(language, "confirm.short", points=1) in short.text


def test_a_draw_shows_what_was_committed_to_before_anybody_plays(language: Language) -> None:
    view = DrawView(language, "0197", "抽", "b", "open", ("odds 0.1%",), "6d1c" * 16, is_member=True, may_play=True)
    text = Document(member_pages.draw(view)).text
    assert text.index("odds 0.1%") < text.index("6d1c" * 16) < text.rindex(says(language, "draw.play"))


def test_the_odds_of_every_prize_stand_above_the_button(genuine: ScanView) -> None:
    chances = (ChanceView("benefit", 1, 1, 1_000, "一箱雪糕", 9_900), ChanceView("points", 5, 999, 1_000))
    offer = replace(genuine.offers[0], chances=chances, prize_kind="benefit", prize_amount=1)
    text = Document(pages.scan(replace(genuine, offers=(offer,)))).text
    assert "一箱雪糕" in text
    assert "0.1%" in text
    assert "99.9%" in text
    assert says(genuine.language, "offer.worth", amount="¥99") in text
    assert says(genuine.language, "offer.draw") in text


def test_consent_is_asked_for_by_version_and_never_ticked_beforehand(language: Language) -> None:
    documents = (
        DocumentView("privacy", "2026-05", "政策", "https://brand.example.cn/p", is_needed=True),
        DocumentView("marketing", "2", "推广", "https://brand.example.cn/m"),
    )
    view = OneTimeCodeView(language, "13800138000", documents=documents)
    boxes = [field for field in Document(pages.one_time_code(view)).all("input") if field["type"] == "checkbox"]
    assert [box["value"] for box in boxes] == ["privacy@2026-05", "marketing@2"]
    assert ["required" in box for box in boxes] == [True, False]
    assert not [box for box in boxes if "checked" in box]
    again = Document(pages.one_time_code(replace(view, problem="wrong", agreed=("privacy@2026-05",))))
    assert [box["value"] for box in again.all("input") if "checked" in box] == ["privacy@2026-05"]


def test_a_sign_in_leads_back_to_pages_of_ours_alone() -> None:
    ours = "/packet/0190f3a0-7b1c-7c11-8000-0123456789ab"
    assert paths.returns_to(ours) == ours
    assert paths.returns_to("/r/0123456789abcdef") == "/r/0123456789abcdef"
    for elsewhere in ("", "//evil.example", "https://evil.example", "/me/../v1/me/export", "/me\n", "/web/erase"):
        assert paths.returns_to(elsewhere) == paths.ME_PATH


def test_an_error_shows_its_stable_code(language: Language) -> None:
    view = ErrorView(language, "T<", "M", "H", "loyalty.used-up")
    text = Document(pages.error(view)).text
    assert all(word in text for word in ("T<", "M", "H", "loyalty.used-up"))


def test_nothing_from_outside_becomes_markup(genuine: ScanView) -> None:
    evil = "<script>alert('x')</script>\"'>{{ 7*7 }}{brand}"
    html = "".join(
        [
            pages.scan(
                replace(
                    genuine,
                    warnings=("scanned_often",),
                    brand_name=evil,
                    product_name=evil,
                    gtin=evil,
                    serial=evil,
                    timeline=(TimelineEntry("shipped", genuine.first_scan_at, evil, evil),),  # type: ignore[arg-type]
                    offers=(OfferView(evil, evil, "points", 5, "open", evil),),
                    member=member,
                    code_text=evil,
                )
            )
            for member in (None, MemberView(1, CardView(evil, evil, evil)))
        ]
        + [
            pages.phone(PhoneView(genuine.language, evil, code_text=evil, campaign_id=evil)),
            pages.one_time_code(
                OneTimeCodeView(genuine.language, evil, evil, evil, evil, "wrong", 1, development_code=evil)
            ),
            pages.claimed(ClaimedView(genuine.language, evil, "benefit", 1, 1, evil, CardView(evil, evil, evil), evil)),
            member_pages.me(
                MeView(
                    genuine.language,
                    evil,
                    1,
                    1,
                    None,
                    (StandingView(CardView(evil, evil, evil), evil, evil, genuine.first_scan_at),),
                    (HeldView(evil, evil, "coupon", "usable", code=evil),),
                )
            ),
            member_pages.benefit(HeldPageView(genuine.language, HeldView(evil, evil, "pool", "usable"), evil)),
            pages.error(ErrorView(genuine.language, evil, evil, evil, evil)),
        ]
    )
    assert "<script" not in html
    assert str(escape(evil)) in html
    assert "49" not in html.replace(STYLE, "")


def test_names_from_outside_are_fenced_against_their_writing_direction(genuine: ScanView) -> None:
    html = pages.scan(replace(genuine, brand_name="\u202eevil", product_name="شركة"))
    body = html.split("<body", 1)[1]
    assert re.findall(r"(.{9})شركة", body) == ['"item"><bdi>'[-9:]]
    assert all(before.endswith(("<bdi>", 'name">')) for before in re.findall(r"(.{0,12})\u202eevil", body))
