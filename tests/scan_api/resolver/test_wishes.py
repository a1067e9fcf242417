"""Wishes: what a request asks for, however its query and headers are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan_api.resolver import wishes
from scan_api.resolver.wishes import Fit, Form, wish_of

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        ("", "", None),
        ("", BROWSER, None),
        ("", "application/json", None),
        ("", "application/linkset+json", Form.LINK_SET_JSON),
        ("", "Application/LinkSet+JSON; charset=utf-8", Form.LINK_SET_JSON),
        ("", "application/linkset", Form.LINK_SET),
        ("", "application/linkset+json;q=0", None),
        ("", "text/html,application/linkset+json;q=0.5", None),
        ("", "text/html;q=0.5,application/linkset+json", Form.LINK_SET_JSON),
        ("", "application/linkset;q=0.5,application/linkset+json;q=0.6", Form.LINK_SET_JSON),
        ("linkType=linkset", "", Form.LINK_SET_JSON),
        ("linkType=linkset", "*/*", Form.LINK_SET_JSON),
        ("linkType=linkset", BROWSER, Form.HTML),
        ("linkType=linkset", "application/json", Form.JSON),
        ("linkType=linkset", "application/ld+json", Form.JSON_LD),
        ("linkType=linkset", "application/linkset", Form.LINK_SET),
        ("a=b&linkType=all", "", Form.LINK_SET_JSON),
        ("linkType=gs1:pip", "application/linkset+json", Form.LINK_SET_JSON),
        ("linkType=gs1:pip", "", None),
        ("linkType=gs1:pip&linkType=linkset", "", None),
        ("linktype=linkset", "", None),
    ],
)
def test_the_link_set_is_asked_for_by_type_or_by_header(query: str, accept: str, form: Form | None) -> None:
    assert wish_of(query, accept, "").form is form


@pytest.mark.parametrize(
    "written",
    ["gs1:pip", "gs1%3Apip", "https://ref.gs1.org/voc/pip", "https%3A%2F%2Fgs1.org%2Fvoc%2Fpip", "pip"],
)
def test_a_link_type_is_written_in_several_ways(written: str) -> None:
    assert wish_of(f"x=y&linkType={written}", "", "").link_type == "pip"


def test_a_type_that_is_empty_or_absent_is_no_type() -> None:
    assert wish_of("linkType=", "", "").link_type is wish_of("linkType", "", "").link_type is None


def test_contexts_are_lists_in_any_case() -> None:
    assert wish_of("context=cn,de&context=FR", "", "").contexts == {"CN", "DE", "FR"}
    assert wish_of("context=", "", "").contexts == frozenset()
    many = ",".join(f"C{number}" for number in range(wishes.CONTEXTS_MAX + 1))
    assert len(wish_of(f"context={many}", "", "").contexts) == wishes.CONTEXTS_MAX


@pytest.mark.parametrize(
    ("header", "tags", "fit"),
    [
        ("", ["en"], Fit(0)),
        ("", [], Fit(1)),
        ("en", [], Fit(1)),
        ("en", ["en"], Fit(2, 1, 3)),
        ("en", ["EN"], Fit(2, 1, 3)),
        ("en", ["en-GB"], Fit(2, 1, 2)),
        ("pt-BR", ["pt"], Fit(2, 1, 1)),
        ("pt-BR,pt;q=0.9", ["pt"], Fit(2, 0.9, 3)),
        ("pt-BR;q=0.3,pt-PT;q=0.9", ["pt"], Fit(2, 0.9, 1)),
        ("pt-BR;q=0", ["pt"], Fit(0)),
        ("en,en-GB;q=0", ["en-GB"], Fit(-1)),
        ("de", ["en"], Fit(0)),
        ("de,*;q=0.1", ["en"], Fit(1)),
        ("de,*;q=0", ["en"], Fit(-1)),
        ("en;q=0,*", ["en"], Fit(-1)),
        ("en;q=0.2,de", ["en", "de"], Fit(2, 1, 3)),
        ("en;q=nan", ["en"], Fit(-1)),
        ("eng", ["en"], Fit(0)),
    ],
)
def test_languages_are_looked_up(header: str, tags: list[str], fit: Fit) -> None:
    """RFC 4647, 3.3.1 and 3.4; RFC 9110, 12.5.4."""
    assert wish_of("", "", header).language_fit(tags) == fit


@pytest.mark.parametrize(
    ("header", "media_type", "fit"),
    [
        ("", "text/html", Fit(1)),
        ("text/html", None, Fit(1)),
        ("*/*", "text/html", Fit(1)),
        (BROWSER, "text/html", Fit(2, 1, 2)),
        (BROWSER, "application/pdf", Fit(1)),
        ("application/json", "text/html", Fit(0)),
        ("text/*;q=0.5", "text/html", Fit(2, 0.5, 1)),
        ("text/html;q=0,*/*", "text/html", Fit(-1)),
    ],
)
def test_media_types_are_matched(header: str, media_type: str | None, fit: Fit) -> None:
    assert wish_of("", header, "").media_fit(media_type) == fit


def test_headers_are_read_up_to_a_limit() -> None:
    within = ",".join(["de"] * (wishes.RANGES_MAX - 1))
    assert wish_of("", "", f"{within},en").language_fit(["en"]).grade == 2
    assert wish_of("", "", f"{within},de,en").language_fit(["en"]).grade == 0
    padded = "de," + " " * (wishes.HEADER_CHARACTERS_MAX - 5)
    assert wish_of("", "", f"{padded}en").language_fit(["en"]).grade == 2
    assert wish_of("", "", f"{padded}  en").language_fit(["en"]).grade == 0


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.text(max_size=10))
def test_no_request_is_wrong(query: str, accept: str, accept_language: str, value: str) -> None:
    wish = wish_of(query, accept, accept_language)
    assert wish.media_fit(value).grade in (-1, 0, 1, 2)
    assert wish.language_fit([value]).grade in (-1, 0, 1, 2)
    assert wish.context_fit([value]).grade in (0, 2)
