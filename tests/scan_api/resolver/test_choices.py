"""Choices and link sets: which link a wish leads to, and how all of them are written."""

import json
from typing import Any

import pytest

from scan_api.resolver import link_sets, link_types
from scan_api.resolver.choices import LinkTypeUnavailable, NothingLinked, Offered, Shelf, choose
from scan_api.resolver.levels import level_named
from scan_api.resolver.link_types import LinkTypeInvalid
from scan_api.resolver.links import LinkRole
from scan_api.resolver.page import links_page
from scan_api.resolver.wishes import wish_of

BASE_URL = "https://id.example.cn"
KEY, LOT = level_named("/01/09506000134352"), level_named("/01/09506000134352/10/L1")
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def offered(name: str, link_type: str = "pip", *languages: str, **more: Any) -> Offered:
    return Offered(link_type, f"https://www.example.cn/{name}", name.title(), languages, **more)


DEFAULT = offered("default", "homepage", role=LinkRole.DEFAULT)
EN = offered("en", "pip", "en", role=LinkRole.VARIANT)
ZH = offered("zh", "pip", "zh", role=LinkRole.VARIANT)
PDF = offered("pdf", "instructions", media_type="application/pdf")
HTML_EN = offered("html-en", "instructions", "en", media_type="text/html")
HTML_ZH = offered("html-zh", "instructions", "zh", media_type="text/html")
IN_CN = offered("cn", "hasRetailers", contexts=("CN",))
IN_DE = offered("de", "hasRetailers", contexts=("DE", "AT"))
ANYWHERE = offered("anywhere", "hasRetailers")
TWINS = (offered("one", "certificationInfo", "en"), offered("two", "certificationInfo", "en"))
ALL = Shelf(KEY, (DEFAULT, EN, ZH, PDF, HTML_EN, HTML_ZH, IN_CN, IN_DE, ANYWHERE, *TWINS), "Ice")


@pytest.mark.parametrize(
    ("query", "accept", "language", "names"),
    [
        ("", "", "", "Default"),
        ("", BROWSER, "fr", "Default"),
        ("", BROWSER, "zh-CN,zh;q=0.9,en;q=0.8", "Zh"),
        ("", "", "en-GB", "En"),
        ("", "", "en;q=0.5,zh;q=0.4", "En"),
        ("", "", "en,zh", "Default"),
        ("", "", "*", "Default"),
        ("linkType=gs1:defaultLink", "", "en", "Default"),
        ("linkType=gs1:defaultLinkMulti", "", "en", "En"),
        ("linkType=gs1:pip", "", "", "En Zh"),
        ("linkType=gs1:pip", "", "zh", "Zh"),
        ("linkType=gs1:pip", "", "fr", "En Zh"),
        ("linkType=gs1:pip", "", "en;q=0", "Zh"),
        ("linkType=gs1:instructions", "", "", "Pdf"),
        ("linkType=gs1:instructions", BROWSER, "zh", "Html-Zh"),
        ("linkType=gs1:instructions", "application/pdf", "zh", "Pdf"),
        ("linkType=gs1:instructions", BROWSER, "fr", "Pdf"),
        ("linkType=gs1:hasRetailers", "", "", "Anywhere"),
        ("linkType=gs1:hasRetailers&context=CN", "", "", "Cn"),
        ("linkType=gs1:hasRetailers&context=at", "", "", "De"),
        ("linkType=gs1:hasRetailers&context=US", "", "", "Anywhere"),
        ("linkType=gs1:certificationInfo", "", "en", "One Two"),
        ("linkType=gs1:certificationInfo", "", "de", "One Two"),
        ("linkType=gs1:homepage", "application/pdf", "de", "Default"),
    ],
)
def test_the_best_link_is_chosen(query: str, accept: str, language: str, names: str) -> None:
    choice = choose([ALL], wish_of(query, accept, language))
    assert " ".join(link.title for link in choice.links) == names


def test_the_finest_level_that_has_the_type_decides() -> None:
    """2.5.9: links of a level apply to everything below it, unless there is a finer one of the same type."""
    lot = Shelf(LOT, (offered("lot", "pip"), offered("recall", "recallStatus")))
    shelves = [lot, ALL]
    for query, title, level in (
        ("linkType=gs1:pip", "Lot", LOT),
        ("linkType=gs1:recallStatus", "Recall", LOT),
        ("linkType=gs1:homepage", "Default", KEY),
        ("", "Default", KEY),
    ):
        choice = choose(shelves, wish_of(query, "", ""))
        assert (choice.links[0].title, choice.level) == (title, level)


def test_a_default_that_is_particular_competes_with_its_variants() -> None:
    default = offered("main", "pip", "en", role=LinkRole.DEFAULT)
    shelf = Shelf(KEY, (default, ZH))
    assert shelf.variants == (default, ZH)
    assert [choose([shelf], wish_of("", "", asked)).links[0].title for asked in ("zh", "en", "fr", "")] == [
        "Zh", "Main", "Main", "Main",
    ]  # fmt: skip


def test_of_several_defaults_the_last_counts_and_without_one_the_first_variant() -> None:
    assert Shelf(KEY, (DEFAULT, offered("later", role=LinkRole.DEFAULT))).default == offered(
        "later", role=LinkRole.DEFAULT
    )
    assert Shelf(KEY, (PDF, EN, ZH)).default == EN
    assert Shelf(KEY, (PDF,)).default is None


@pytest.mark.parametrize("written", ["gs1:nosuch", "gs1:", "nosuch", "https://example.com/pip", "gs1:handledBy", "\0"])
def test_a_type_that_no_link_has_is_unavailable(written: str) -> None:
    with pytest.raises(LinkTypeUnavailable):
        choose([ALL], wish_of(f"linkType={written}", "", ""))


def test_nothing_linked_is_told_apart() -> None:
    for query in ("", "linkType=gs1:pip"):
        with pytest.raises(NothingLinked):
            choose([Shelf(LOT, ()), Shelf(KEY, ())], wish_of(query, "", ""))


GOLDEN = {
    "linkset": [
        {
            "anchor": "https://id.example.cn/01/09506000134352/10/L1",
            "https://ref.gs1.org/voc/pip": [
                {
                    "href": "https://www.example.cn/en",
                    "title": "En",
                    "type": "text/html",
                    "hreflang": ["en"],
                    "context": ["CN"],
                }
            ],
        },
        {
            "anchor": "https://id.example.cn/01/09506000134352",
            "itemDescription": "Ice",
            "https://ref.gs1.org/voc/defaultLink": [{"href": "https://www.example.cn/default", "title": "Default"}],
            "https://ref.gs1.org/voc/defaultLinkMulti": [
                {"href": "https://www.example.cn/zh", "title": "Zh", "hreflang": ["zh"]}
            ],
            "https://ref.gs1.org/voc/homepage": [{"href": "https://www.example.cn/default", "title": "Default"}],
            "https://ref.gs1.org/voc/pip": [{"href": "https://www.example.cn/zh", "title": "Zh", "hreflang": ["zh"]}],
        },
    ]
}
"""Clients of other makers read this: names and shapes may never change."""
SHELVES = (
    Shelf(LOT, (offered("en", "pip", "en", media_type="text/html", contexts=("CN",)),)),
    Shelf(level_named("/01/09506000134352/22/V"), ()),
    Shelf(KEY, (DEFAULT, ZH), "Ice"),
)


def test_a_link_set_has_the_links_of_every_level() -> None:
    assert link_sets.link_set(BASE_URL, SHELVES) == GOLDEN
    assert link_sets.as_json_ld(GOLDEN)["@context"] == link_sets.CONTEXT


def test_a_link_set_as_text_is_a_link_header() -> None:
    """RFC 9264, 4.1."""
    assert link_sets.as_text(GOLDEN).splitlines()[:2] == [
        '<https://www.example.cn/en>; rel="https://ref.gs1.org/voc/pip"; '
        'anchor="https://id.example.cn/01/09506000134352/10/L1"; '
        'title*=UTF-8\'\'En; type="text/html"; hreflang="en",',
        '<https://www.example.cn/default>; rel="https://ref.gs1.org/voc/defaultLink"; '
        "anchor=\"https://id.example.cn/01/09506000134352\"; title*=UTF-8''Default,",
    ]


def test_the_page_escapes_whatever_a_title_holds() -> None:
    evil = "</script><script>alert(1)</script><!--&\u2028"
    shelf = Shelf(KEY, (Offered("pip", "https://www.example.cn/?a=1&b=2", evil),), evil)
    page = links_page(link_sets.link_set(BASE_URL, [shelf]), [shelf], "en")
    assert page.count("<script") == page.count("</script") == 1
    assert "<!--&" not in page
    assert 'href="https://www.example.cn/?a=1&amp;b=2"' in page
    data = page.partition('<script type="application/ld+json">')[2].partition("</script>")[0]
    assert json.loads(data)["linkset"][0]["itemDescription"] == evil


def test_link_types_are_of_the_gs1_vocabulary() -> None:
    assert link_types.named("gs1:pip") == link_types.named("https://gs1.org/voc/pip") == "pip"
    assert (link_types.short("pip"), link_types.uri("pip")) == ("gs1:pip", "https://ref.gs1.org/voc/pip")
    for wrong in ("pip", "gs1:Pip", "gs1:defaultLink", "gs1:handledBy", "gs1:linkset", "", "alternate"):
        with pytest.raises(LinkTypeInvalid):
            link_types.named(wrong)
