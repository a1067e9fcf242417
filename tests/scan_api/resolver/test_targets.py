"""Targets: where a link may lead, and that nothing secret goes along."""

import re
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scan_api.resolver import targets
from scan_api.resolver.targets import HREF_CHARACTERS_MAX, LinkTargetInvalid

BASE_URL = "https://id.example.cn:8443"
SIGNATURE = "7" * 155


@pytest.mark.parametrize(
    "href",
    [
        "https://www.example.cn",
        "https://www.example.cn/",
        "https://www.example.cn:65535/a/b;c?d=e&f#g",
        "https://xn--fsq.xn--0zwm56d/%E4%B8%AD",
        "https://www.example.cn/{01}/{10}?serial={21}#{22}",
        "https://example.cn/it's,(fine)",
    ],
)
def test_an_address_of_the_brands_own_is_taken(href: str) -> None:
    targets.check(href, BASE_URL)


@pytest.mark.parametrize(
    "href",
    [
        "",
        "http://www.example.cn/",
        "HTTPS://www.example.cn/",
        "javascript:alert(1)",
        "data:text/html,x",
        "//www.example.cn/",
        "/01/09506000134352",
        "https:///x",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://user@www.example.cn/",
        "https://user:pass@www.example.cn/",
        "https://www.example.cn@evil.example/",
        "https://www.example.cn\\@evil.example/",
        "https://www.example.cn:0/",
        "https://www.example.cn:65536/",
        "https://www.Example.cn/",
        "https://www.example.cn./",
        "https://-a.example.cn/",
        "https://www.example.cn/a b",
        "https://www.example.cn/\r\nset-cookie: a=b",
        "https://www.example.cn/\n",
        "https://www.example.cn/中",
        'https://www.example.cn/">',
        "https://www.example.cn/<",
        "https://www.example.cn/%",
        "https://www.example.cn/%0",
        "https://www.example.cn/%zz",
        "https://www.example.cn/{gtin}",
        "https://www.example.cn/{09}",
        "https://www.example.cn/{01",
        "https://www.example.cn/01}",
        "https://{01}.example.cn/",
        f"https://www.example.cn/{SIGNATURE}",
        f"https://www.example.cn/?a={quote(quote(''.join(f'%{ord(digit):x}' for digit in SIGNATURE)))}",
        "https://id.example.cn/",
        "https://id.example.cn:8443/01/09506000134352",
        "https://id.example.cn/web/claim",
    ],
)
def test_any_other_address_is_refused(href: str) -> None:
    with pytest.raises(LinkTargetInvalid):
        targets.check(href, BASE_URL)


def test_an_address_has_at_most_2000_characters() -> None:
    start = "https://www.example.cn/"
    for length in (HREF_CHARACTERS_MAX - 1, HREF_CHARACTERS_MAX):
        targets.check(start + "x" * (length - len(start)), BASE_URL)
    with pytest.raises(LinkTargetInvalid):
        targets.check(start + "x" * (HREF_CHARACTERS_MAX + 1 - len(start)), BASE_URL)


def test_a_host_has_at_most_253_characters() -> None:
    labels = "a" * 49 + "."
    targets.check(f"https://{labels * 5}aaa/", BASE_URL)
    with pytest.raises(LinkTargetInvalid):
        targets.check(f"https://{labels * 5}aaaa/", BASE_URL)


def test_variables_are_filled_and_escaped() -> None:
    values = {"01": "09506000134352", "21": "a/b?c#d%&=é"}
    assert (
        targets.filled("https://x.cn/{01}?s={21}#{01}", values)
        == "https://x.cn/09506000134352?s=a%2Fb%3Fc%23d%25%26%3D%C3%A9#09506000134352"
    )
    assert targets.filled("https://x.cn/{10}", values) is None
    assert targets.filled("https://x.cn/", {}) == "https://x.cn/"
    for step in (".", ".."):
        assert targets.filled("https://x.cn/a/{21}/b", {"21": step}) is None


@pytest.mark.parametrize(
    ("href", "parts", "whole"),
    [
        ("https://x.cn", ["a=b"], "https://x.cn?a=b"),
        ("https://x.cn/#f", ["a=b", "c"], "https://x.cn/?a=b&c#f"),
        ("https://x.cn/?y=1#f?g", ["a=b"], "https://x.cn/?y=1&a=b#f?g"),
        ("https://x.cn/?", ["a=b"], "https://x.cn/?a=b"),
        ("https://x.cn/", [], "https://x.cn/"),
        ("https://x.cn/", [""], "https://x.cn/"),
        ("https://x.cn/", [f"utm={SIGNATURE}", "a=b"], "https://x.cn/?a=b"),
        ("https://x.cn/", [SIGNATURE], "https://x.cn/"),
        ("https://x.cn/", ["u=" + "".join(f"%3{digit}" for digit in SIGNATURE)], "https://x.cn/"),
        ("https://x.cn/", ["u=" + "".join(f"%253{digit}" for digit in SIGNATURE)], "https://x.cn/"),
        ("https://x.cn/", ["u=" + "7" * 99], "https://x.cn/?u=" + "7" * 99),
        ("https://x.cn/", ["u=" + "7" * 100], "https://x.cn/"),
    ],
)
def test_the_query_goes_along_without_signatures(href: str, parts: list[str], whole: str) -> None:
    assert targets.with_query(href, parts) == whole


@settings(max_examples=50)
@given(
    st.from_regex(r"https://www\.example\.cn(/[a-z{}0-9%]{0,20})?(\?[a-z&=]{0,10})?(#[a-z]{0,5})?", fullmatch=True),
    st.text(max_size=20),
    st.lists(st.from_regex("[A-Za-z0-9%=.~-]{0,30}", fullmatch=True), max_size=4),
)
def test_a_redirect_stays_on_the_host_and_in_one_line(href: str, value: str, parts: list[str]) -> None:
    try:
        targets.check(href, BASE_URL)
    except LinkTargetInvalid:
        return
    href = targets.filled(href, {"01": value, "10": value, "21": value}) or href
    location = targets.with_query(href, parts)
    assert urlsplit(location).hostname == "www.example.cn"
    assert re.fullmatch(r"[!-~]+", location)
